"""`$group` and `$sortByCount`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shadow.model.order import MISSING, as_document, order_key, sort_documents
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.pipeline.accumulators import ACCUMULATORS, Accumulator
from shadow.mongoql.pipeline.picks import PICKS, Make, compile_pick
from shadow.mongoql.values.failures import failure
from shadow.mongoql.values.stages import Lookup, Stage, Variables
from shadow.mongoql.values.support import TABLE, Family, require

__all__ = ["Fields", "accumulated", "compile_accumulator", "compile_fields", "compile_group", "compile_sort_by_count"]


@dataclass(frozen=True, slots=True)
class Fields:
    """Accumulators by the names of their results: how one is made for a group's key, and what it is given of each
    document."""

    made: Mapping[str, tuple[Make, Callable[[Document], Any]]]


def compile_fields(spec: Mapping[str, Any], given: Variables) -> Fields:
    return Fields({name: compile_accumulator(name, value, given) for name, value in spec.items()})


def accumulated(fields: Fields, key: Any, documents: Iterable[Document]) -> Document:
    """The results over the documents of one group."""
    parts = [(name, make(key), evaluate) for name, (make, evaluate) in fields.made.items()]
    for document in documents:
        for _, accumulator, evaluate in parts:
            accumulator.add(evaluate(document))
    return {name: accumulator.result() for name, accumulator, _ in parts}


def compile_group(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(15947, "a group's fields must be specified in an object")
    keys, fields = [], []
    for name, value in spec.items():  # in their order, like the server
        if name == "_id":
            keys.append(_group_key(value, given))
        else:
            fields.append((name, *compile_accumulator(name, value, given)))
    if not keys:
        raise failure(15955, "a group specification must include an _id")
    (key,) = keys

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        groups: dict[Any, tuple[Any, list[Accumulator]]] = {}
        for document in documents:
            value = key(document)
            value = None if value is MISSING else value
            group = groups.setdefault(order_key(value), (value, []))
            if not group[1]:
                group[1].extend(make(value) for _, make, _ in fields)
            for accumulator, (_, _, evaluate) in zip(group[1], fields, strict=True):
                accumulator.add(evaluate(document))
        return [_grouped(value, fields, accumulators) for value, accumulators in groups.values()]

    return stage


def _group_key(spec: Any, given: Variables) -> Callable[[Document], Any]:
    """The `_id` of a group. For a missing field, an object with one field has null there; one with more fields omits
    it."""
    whole = evaluator(spec, given)
    if type(spec) is not dict or len(spec) != 1 or next(iter(spec)).startswith("$"):
        return whole
    (name,) = spec
    return lambda document: {name: None, **whole(document)}


def _grouped(value: Any, fields: Sequence[tuple[str, Any, Any]], accumulators: Sequence[Accumulator]) -> Document:
    results = {name: accumulator.result() for (name, _, _), accumulator in zip(fields, accumulators, strict=True)}
    return {"_id": value, **results}


def compile_accumulator(name: str, spec: Any, given: Variables) -> tuple[Make, Callable[[Document], Any]]:
    """How the accumulator of a field is made for a group's key, and what it is given of each document."""
    spec = as_document(spec)
    if type(spec) is not dict or not next(iter(spec), "").startswith("$"):
        raise failure(40234, f"The field '{name}' must be an accumulator object")
    if "." in name:
        raise failure(40235, f"The field name '{name}' cannot contain '.'")
    if name.startswith("$"):
        raise failure(40236, f"The field name '{name}' cannot be an operator name")
    if len(spec) > 1:
        raise failure(40238, f"The field '{name}' must specify one accumulator")
    ((operator, operand),) = spec.items()
    if type(operand) is list and operator not in TABLE[Family.ACCUMULATOR]:
        raise failure(40237, f"The {operator} accumulator is a unary operator")
    require(Family.ACCUMULATOR, operator)
    if operator == "$count":
        if operand != {}:
            raise failure(14, "$count takes no arguments, i.e. $count:{}")
        operand = 1
    if type(operand) is list:
        raise failure(40237, f"The {operator} accumulator is a unary operator")
    if operator in PICKS:
        return compile_pick(operator, operand, given)
    make = ACCUMULATORS[operator]
    return lambda key: make(), evaluator(operand, given)


def compile_sort_by_count(spec: Any, given: Variables) -> Stage:
    spec = as_document(spec)
    if type(spec) is dict:
        if not spec or not next(iter(spec)).startswith("$"):
            raise failure(40147, "the sortByCount field must be defined as a $-prefixed path or an expression")
    elif type(spec) is not str:
        raise failure(40149, "the sortByCount field must be specified as a string or as an object")
    elif not spec.startswith("$"):
        raise failure(40148, "the sortByCount field must be defined as a $-prefixed path or an expression")
    group = compile_group({"_id": spec, "count": {"$sum": 1}}, given)
    return lambda documents, lookup: sort_documents(group(documents, lookup), [("count", -1)])
