"""The planner: from a filter and a collection's indexes to the cheapest read that is sure to see every match. Pure.

A plan reads a superset. Each document that it yields is matched against the whole filter afterwards, so a plan may
read too much and must never read too little.

    KeyPlan     the filter fixes `_id` (equality, $in): GetItem or BatchGetItem
    QueryPlan   it fixes the hash attribute of an index, perhaps with a range: one Query for each `KeyRange`
    ScanPlan    anything else, with the conditions that DynamoDB itself can apply

An array field has the one text `~array` in an index (see keys.py), so each query is asked for that text too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bson import ObjectId, Regex

from shadow.model.operation import Query
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.stores.dynamo import keys
from shadow.stores.dynamo.expressions import Expression
from shadow.stores.dynamo.values import encode_value

__all__ = [
    "Condition",
    "KeyPlan",
    "KeyRange",
    "Plan",
    "QueryPlan",
    "ScanPlan",
    "conditions",
    "plan",
    "pushed_text",
    "shape",
    "suggestion",
]

_MOST_QUERIES: Final = 100
_LAST: Final = "\U0010ffff"
_LAST_OBJECT_ID: Final = "f" * 24
_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_EXACT_INTEGER: Final = 2**53


@dataclass(frozen=True, slots=True)
class Condition:
    """One conjunct of a filter: path, operator (`$eq` for a plain value), operand."""

    path: str
    operator: str
    operand: Any


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """Read these keys of the table."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """One query of an index: a hash text and, for the range attribute, inclusive bounds (None: open)."""

    hash: str
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Ask the index for these ranges. They may overlap; what is read twice counts once."""

    index: IndexSpec
    ranges: tuple[KeyRange, ...]


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Read the whole table; DynamoDB may leave out what fails one of `pushed`."""

    pushed: tuple[Condition, ...] = ()


Plan: TypeAlias = KeyPlan | QueryPlan | ScanPlan


def conditions(filter: Mapping[str, Any]) -> Iterator[Condition]:
    """The conjuncts of a filter that stand on a path; `$or` and its kin are left to the matching."""
    for name, operand in filter.items():
        if name == "$and" and isinstance(operand, Sequence):
            for part in operand:
                yield from conditions(part)
        elif not name.startswith("$"):
            yield from _of_path(name, operand)


def _is_operators(operand: Any) -> bool:
    return isinstance(operand, dict) and next(iter(operand), "").startswith("$") and "$ref" not in operand


def _of_path(path: str, operand: Any) -> Iterator[Condition]:
    if _is_operators(operand):
        for operator, argument in operand.items():
            yield Condition(path, operator, argument)
    else:
        yield Condition(path, "$regex" if isinstance(operand, Regex) else "$eq", operand)


def plan(filter: Mapping[str, Any], spec: CollectionSpec) -> Plan:
    """The plan for a filter that `compile_filter` has accepted."""
    found = tuple(conditions(filter))
    texts = _fixed(found, "_id", keys.HASH_LIMIT)
    if texts is not None:
        return KeyPlan(texts)
    queries = [query for index in spec.indexes if (query := _query(found, index)) is not None]
    if queries:
        return max(queries, key=_precision)
    indexed = {"_id"} | {name for index in spec.indexes for name in (index.hash, index.range) if name is not None}
    return ScanPlan(tuple(one for one in found if one.path not in indexed and pushed_text(one, Expression(), "")))


def _precision(query: QueryPlan) -> tuple[bool, int]:
    narrowed = query.index.range is not None and query.ranges[0] != KeyRange(query.ranges[0].hash)
    return narrowed, -len(query.ranges)


def _values(condition: Condition) -> list[Any] | None:
    """The values of which a field must equal one, or contain one."""
    match condition:
        case Condition(operator="$eq", operand=operand):
            return [operand]
        case Condition(operator="$in", operand=list() as operand) if not any(isinstance(v, Regex) for v in operand):
            return operand
    return None


def _fixed(found: Sequence[Condition], path: str, limit: int) -> tuple[str, ...] | None:
    """The key texts to which the conditions on `path` pin a field that is never an array; None if they don't."""
    pinned = [values for one in found if one.path == path and (values := _values(one)) is not None]
    if not pinned:
        return None
    fewest = min(pinned, key=len)
    return tuple(dict.fromkeys(keys.key_text(value, limit) for value in fewest))


def _query(found: Sequence[Condition], index: IndexSpec) -> QueryPlan | None:
    hashes = _texts(found, index.hash, keys.HASH_LIMIT)
    if hashes is None:
        return None
    spans = _spans(found, index.range) if index.range is not None else [(None, None)]
    ranges = tuple(KeyRange(text, low, high) for text in hashes for low, high in spans)
    return QueryPlan(index, ranges) if len(ranges) <= _MOST_QUERIES else None


def _texts(found: Sequence[Condition], path: str, limit: int) -> list[str] | None:
    """The texts that an indexed field has in every match; None if they cannot all be named. Null is such a case: the
    index has no entry for it."""
    for one in found:
        values = _values(one) if one.path == path else None
        if values is not None and None not in values:
            texts = [keys.ARRAY if isinstance(value, list) else keys.key_text(value, limit) for value in values]
            return list(dict.fromkeys([*texts, keys.ARRAY]))
    return None


Span: TypeAlias = tuple[str | None, str | None]


def _spans(found: Sequence[Condition], path: str) -> list[Span]:
    """The spans of a range attribute that hold every match; the whole of it if the conditions say nothing."""
    texts = _texts(found, path, keys.RANGE_LIMIT)
    if texts is not None:
        return [(text, text) for text in texts]
    bounds = [one for one in found if one.path == path and one.operator in _COMPARISONS]
    if not bounds:
        return [(None, None)]
    # An array matches {$gt: a, $lt: b} by one element for each bound, and has its own span; so all bounds hold for
    # what is no array, and those of one kind narrow one span.
    kind = type(bounds[0].operand)
    same = [one for one in bounds if type(one.operand) is kind]
    low = max((one.operand for one in same if one.operator.startswith("$gt")), default=None)
    high = min((one.operand for one in same if one.operator.startswith("$lt")), default=None)
    if kind is str:
        return _string_spans(low, high)
    if kind is dt.datetime:
        between = (_date(low, "~date:"), _date(high, f"~date:{_LAST}"))
    elif kind is ObjectId:
        between = (str(low or "0" * 24), str(high or _LAST_OBJECT_ID))
    else:
        return [(None, None)]
    return [(keys.ARRAY, keys.ARRAY)] if between[0] > between[1] else [between, (keys.ARRAY, keys.ARRAY)]


def _date(bound: dt.datetime | None, otherwise: str) -> str:
    return keys.key_text(bound) if bound is not None else otherwise


def _string_spans(low: str | None, high: str | None) -> list[Span]:
    """Strings stand for themselves, or behind "~" if they cannot (so do other types)."""
    escaped = ("~", f"~{_LAST}")
    low = low if low and len(low.encode()) <= keys.RANGE_LIMIT else None
    high = high if high is None or len(high.encode()) <= keys.RANGE_LIMIT else None
    if low is None and high is None:
        return [(None, None)]
    if high == "" or (low is not None and high is not None and low > high):
        return [escaped]
    if high is None and low is not None and low <= "~":
        return [(low, None)]
    return [(low, high), escaped]


# ---- conditions that DynamoDB applies itself ----


def pushed_text(condition: Condition, expression: Expression, reserved: str) -> str:
    """A filter expression that holds for every document matching `condition`; "" if there is no useful one.

    It lets through whatever DynamoDB cannot judge: lists (one element may match), values kept as BSON (B), and
    documents whose fields are packed away.
    """
    name = condition.path
    if "." in name or not name or len(name.encode()) > 255:
        return ""
    path = expression.path(name)
    test = _test(condition, path, expression)
    if not test:
        return ""
    packed = " OR ".join(f"attribute_exists({expression.path(reserved, part)})" for part in ("z", "g"))
    unjudged = " OR ".join(f"attribute_type({path}, {expression.value({'S': tag})})" for tag in ("L", "B"))
    return f"({test} OR {unjudged} OR {packed})"


def _test(condition: Condition, path: str, expression: Expression) -> str:
    operand = condition.operand
    match condition.operator:
        case "$eq" if operand is None:
            null = expression.value({"S": "NULL"})
            return f"attribute_not_exists({path}) OR attribute_type({path}, {null})"
        case "$eq" if (attribute := _comparable(operand)) is not None:
            return f"{path} = {expression.value(attribute)}"
        case "$exists" if not operand:
            return f"attribute_not_exists({path})"
        case "$exists":
            return f"attribute_exists({path})"
        case "$gt" | "$gte" | "$lt" | "$lte" if (attribute := _comparable(operand)) is not None:
            if isinstance(operand, bool):
                return ""
            test = f"{path} {_COMPARISONS[condition.operator][0]}= {expression.value(attribute)}"
            if isinstance(operand, dt.datetime):  # dates outside Python's years are kept as numbers
                return f"{test} OR attribute_type({path}, {expression.value({'S': 'N'})})"
            return test
    return ""


def _comparable(operand: Any) -> dict[str, Any] | None:
    """The attribute that DynamoDB compares as MongoDB compares the value. Numbers only where every type of number
    writes them alike."""
    if type(operand) in (str, bool, ObjectId, dt.datetime):  # exactly these: Code is a str too
        return encode_value(operand)[0]
    if isinstance(operand, int | float) and float(operand).is_integer() and abs(operand) < _EXACT_INTEGER:
        return {"N": str(int(operand))}
    return None


# ---- shapes: what scans are counted by ----


def shape(query: Query) -> str:
    """The form of a query, without its values: fields, operators and sort."""
    text = _shape_of(query.filter)
    if query.sort:
        text += " sort " + ", ".join(path if direction > 0 else f"-{path}" for path, direction in query.sort)
    return text


def _shape_of(filter: Mapping[str, Any]) -> str:
    return "{" + ", ".join(_clause(name, operand) for name, operand in sorted(filter.items())) + "}"


def _clause(name: str, operand: Any) -> str:
    if name in ("$and", "$or", "$nor") and isinstance(operand, list):
        return f"{name}: [{', '.join(sorted({_shape_of(part) for part in operand}))}]"
    if name.startswith("$"):
        return name
    operators = sorted(one.operator for one in _of_path(name, operand))
    return f"{name}: {' '.join(operators)}"


def suggestion(query: Query) -> str:
    """The index that would spare the scan, in words; "" if none would."""
    found = list(conditions(query.filter))
    hashes = [one.path for one in found if _values(one) is not None and None not in (_values(one) or ())]
    top = [path for path in dict.fromkeys(hashes) if "." not in path]
    if not top:
        return ""
    rest = [one.path for one in found if one.operator in _COMPARISONS] + [path for path, _ in query.sort]
    ranges = [path for path in rest if "." not in path and path != top[0]]
    return f"hash {top[0]}" + (f", range {ranges[0]}" if ranges else "")
