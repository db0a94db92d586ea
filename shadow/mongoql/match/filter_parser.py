"""A filter, parsed to the frozen tree of what it says (`tree`).

What the server refuses is refused with its code, what has no exact meaning here by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bson import Regex

from shadow.model.order import as_document, order_key
from shadow.mongoql.expressions.chance import sampled
from shadow.mongoql.match.tree import And, Leaf, Node, Nor, Not, Or
from shadow.mongoql.values import predicates
from shadow.mongoql.values.collation import COLLATED
from shadow.mongoql.values.failures import failure, unknown_operator, write_failure
from shadow.mongoql.values.regexes import with_options
from shadow.mongoql.values.support import TABLE, Family, require, supported

__all__ = ["PATHLESS", "REFERENCE", "forbid_expressions", "is_expression", "operators_of", "parsed"]

_LOGICAL: Final[dict[str, Callable[[tuple[Node, ...]], Node]]] = {"$and": And, "$or": Or, "$nor": Nor}
PATHLESS: Final = frozenset(
    {
        "$alwaysFalse",
        "$alwaysTrue",
        "$and",
        "$comment",
        "$expr",
        "$jsonSchema",
        "$nor",
        "$or",
        "$sampleRate",
        "$text",
        "$where",
    }
)
REFERENCE: Final = frozenset({"$ref", "$id", "$db"})
# What MongoDB 6.0 advises whoever names an operator that is none at the top of a filter.
_INSTEAD: Final = {"$not": "If you are trying to negate an entire expression, use $nor."}
_A_FIELD: Final = "If you have a field name that starts with a '$' symbol, consider using $getField or $setField."


def parsed(filter: Mapping[str, Any], *, nested: bool = False) -> Node:
    """`nested`: the filter of an element, inside `$elemMatch`."""
    children: list[Node] = []
    for name, value in filter.items():
        if name.startswith("$") and name not in REFERENCE:
            children.extend(_top_level(name, value, nested))
        else:
            children.extend(_field(name, value))
    return children[0] if len(children) == 1 else And(tuple(children))


def _top_level(name: str, value: Any, nested: bool) -> Iterator[Node]:
    if name in _LOGICAL:
        yield _LOGICAL[name](tuple(_clauses(name, value, nested)))
        return
    if name not in PATHLESS and not (name in TABLE[Family.QUERY] and not supported(Family.QUERY, name)):
        raise unknown_operator(2, f"unknown top level operator: {name}. {_INSTEAD.get(name, _A_FIELD)}", name)
    require(Family.QUERY, name)
    if name in ("$expr", "$sampleRate") and nested:
        raise failure(2, f"{name} can only be applied to the top-level document")
    if name in ("$alwaysTrue", "$alwaysFalse"):
        if not predicates.is_number(value) or order_key(value) != order_key(1):
            raise failure(9, f"{name} must be the integer value 1")
        yield Leaf("", name, 1)
    elif name == "$sampleRate":
        yield Leaf("", "$expr", sampled(value))
    elif name in ("$expr", "$jsonSchema"):
        yield Leaf("", name, value)


def _clauses(name: str, value: Any, nested: bool) -> Iterator[Node]:
    if type(value) is not list or not value:
        raise failure(2, f"{name} must be a nonempty array")
    for clause in map(as_document, value):
        if type(clause) is not dict:
            raise failure(2, f"{name} entries need to be full objects")
        yield parsed(clause, nested=nested)


def forbid_expressions(filter: Any) -> None:
    """Raises WriteError 224 where a filter of elements holds an `$expr` or a `$jsonSchema`, whatever else is wrong with
    it."""
    for name, value in filter.items() if isinstance(filter, Mapping) else ():
        if name in ("$expr", "$jsonSchema"):
            raise write_failure(224, f"{name} is not allowed in this context")
        for clause in value if name in _LOGICAL and type(value) is list else ():
            forbid_expressions(clause)


def is_expression(value: Any) -> bool:
    """Whether a value is an object of operators rather than an object to be equal to."""
    if type(value) is not dict or not value:
        return False
    return next(iter(value)).startswith("$") and not {"$ref", "$id"} <= value.keys()


def _field(path: str, value: Any) -> Iterator[Node]:
    if type(value) is Regex:
        yield Leaf(path, "$regex", value)
    elif is_expression(value):
        yield from operators_of(path, value)
    else:
        yield Leaf(path, "$eq", value)


def operators_of(path: str, expression: dict[str, Any]) -> Iterator[Node]:
    for name, value in expression.items():
        if name == "$regex":
            yield Leaf(path, "$regex", _regex(value, expression.get("$options", "")))
        elif name == "$options":
            if "$regex" not in expression:
                raise failure(2, "$options needs a $regex")
        elif name == "$not":
            yield Not(_negated(path, value))
        else:
            yield _leaf(path, name, value)


def _leaf(path: str, name: str, value: Any) -> Node:
    if name in PATHLESS or not name.startswith("$"):
        raise failure(2, f"unknown operator: {name}")
    if name == COLLATED:
        return Leaf(path, name, value)
    require(Family.QUERY, name)
    if name in ("$ne", "$gt", "$gte", "$lt", "$lte") and type(value) is Regex:
        raise failure(2, f"Can't have RegEx as arg to {name}.")
    if name in ("$in", "$nin", "$all") and type(value) is not list:
        raise failure(2, f"{name} needs an array")
    if name in ("$in", "$nin") and any(is_expression(v) for v in value):
        raise failure(2, f"cannot nest $ under {name}")
    if name == "$exists":
        return Leaf(path, name, predicates.truthy(value))
    return Leaf(path, name, value)


def _regex(value: Any, options: Any) -> Regex[str]:
    if type(value) not in (str, Regex):
        raise failure(2, "$regex has to be a string")
    pattern: Regex[str] = value if type(value) is Regex else Regex(value)
    if type(options) is not str:
        raise failure(2, "$options has to be a string")
    if options and pattern.flags:
        raise failure(51075, "options set in both $regex and $options")
    return with_options(pattern, options) if options else pattern


def _negated(path: str, value: Any) -> Node:
    if type(value) is Regex:
        return Leaf(path, "$regex", value)
    if type(value) is not dict:
        raise failure(2, "$not needs a regex or a document")
    if not value:
        raise failure(2, "$not cannot be empty")
    return And(tuple(operators_of(path, value)))
