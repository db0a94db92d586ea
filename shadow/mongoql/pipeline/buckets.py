"""`$bucket`, `$bucketAuto` and `$sample`."""

from __future__ import annotations

import bisect
import itertools
import random
from typing import Any, Final

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document, canonical_type, order_key
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator, is_constant
from shadow.mongoql.pipeline.groups import Fields, accumulated, compile_fields
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.stages import Lookup, Stage, Variables

__all__ = ["compile_bucket", "compile_bucket_auto", "compile_sample"]

_COUNT: Final = {"count": {"$sum": 1}}


def _group_by(name: str, value: Any, code: int) -> Any:
    value = as_document(value)
    path = type(value) is str and value.startswith("$")
    if not path and not (type(value) is dict and next(iter(value), "").startswith("$")):
        raise failure(code, f"The {name} 'groupBy' field must be defined as a $-prefixed path or an expression")
    return value


# -- $bucket ------------------------------------------------------------------------------------------------------


def compile_bucket(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(40201, f"Argument to $bucket stage must be an object, but found type: {described(spec)}.")
    for name, value in spec.items():
        _check_bucket(name, value)
    if not {"groupBy", "boundaries"} <= spec.keys():
        raise failure(40198, "$bucket requires 'groupBy' and 'boundaries' to be specified.")
    boundaries = [evaluator(value)({}) for value in spec["boundaries"]]
    keys = [order_key(value) for value in boundaries]
    default: Any = MISSING
    if "default" in spec:
        default = evaluator(spec["default"])({})
        key = order_key(default)
        if canonical_type(default) == canonical_type(boundaries[0]) and keys[0] <= key < keys[-1]:
            raise failure(40199, "The $bucket 'default' field must be outside the boundaries")
    fields = compile_fields(spec.get("output", _COUNT), given)
    value_of = evaluator(spec["groupBy"], given)

    def bucket(document: Document) -> Any:
        value = value_of(document)
        at = bisect.bisect_right(keys, order_key(value))
        if 0 < at < len(keys):
            return boundaries[at - 1]
        if default is MISSING:
            raise failure(40066, "$bucket could not find a boundary for a value, and no default was specified")
        return default

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        groups: dict[Any, tuple[Any, list[Document]]] = {}
        for document in documents:
            value = bucket(document)
            groups.setdefault(order_key(value), (value, []))[1].append(document)
        return [{"_id": value, **accumulated(fields, value, rows)} for _, (value, rows) in sorted(groups.items())]

    return stage


def _check_bucket(name: str, value: Any) -> None:
    match name:
        case "groupBy":
            _group_by("$bucket", value, 40202)
        case "boundaries":
            _check_boundaries(value)
        case "default":
            if not is_constant(value):
                raise failure(40195, "The $bucket 'default' field must be a constant expression")
        case "output":
            if type(value) is not dict:
                raise failure(
                    40196, f"The $bucket 'output' field must be an object, but found type: {described(value)}."
                )
        case _:
            raise failure(40197, f"Unrecognized option to $bucket: {name}.")


def _check_boundaries(value: Any) -> None:
    if type(value) is not list:
        raise failure(40200, f"The $bucket 'boundaries' field must be an array, but found type: {described(value)}.")
    if not all(map(is_constant, value)):
        raise failure(40191, "The $bucket 'boundaries' field must be an array of constant values")
    if len(value) < 2:
        raise failure(40192, "The $bucket 'boundaries' field must have at least 2 values")
    values = [evaluator(each)({}) for each in value]
    for one, other in itertools.pairwise(values):
        if canonical_type(one) != canonical_type(other):
            raise failure(40193, "All values in the 'boundaries' option to $bucket must have the same type")
        if order_key(one) >= order_key(other):
            raise failure(40194, "The 'boundaries' option to $bucket must be sorted")


# -- $bucketAuto --------------------------------------------------------------------------------------------------


def compile_bucket_auto(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(40240, f"The argument to $bucketAuto must be an object, but found type: {described(spec)}.")
    count: int | None = None
    for name, value in spec.items():
        match name:
            case "groupBy":
                _group_by("$bucketAuto", value, 40239)
            case "buckets":
                count = _bucket_count(value)
            case "output":
                if type(value) is not dict:
                    raise failure(40244, "The $bucketAuto 'output' field must be an object")
            case "granularity":
                if type(value) is not str:
                    raise failure(40261, "The $bucketAuto 'granularity' field must be a string")
                raise UnsupportedOperation("$bucketAuto.granularity", "preferred numbers are not computed here")
            case _:
                raise failure(40245, f"Unrecognized option to $bucketAuto: {name}.")
    if count is None or "groupBy" not in spec:
        raise failure(40246, "$bucketAuto requires 'groupBy' and 'buckets' to be specified")
    fields = compile_fields(spec.get("output", _COUNT), given)
    value_of, most = evaluator(spec["groupBy"], given), count

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        rows = [(None if (value := value_of(each)) is MISSING else value, each) for each in documents]
        rows.sort(key=lambda row: order_key(row[0]))
        return _spread(rows, most, fields)

    return stage


def _bucket_count(value: Any) -> int:
    if not is_number(value):
        raise failure(40241, f"The $bucketAuto 'buckets' field must be a numeric value, but found: {described(value)}.")
    whole = truncated(value)
    if whole is None or numbers.decimal_of(value) != whole or whole not in numbers.INT32:
        raise failure(40242, "The $bucketAuto 'buckets' field must be representable as a 32-bit integer")
    if whole <= 0:
        raise failure(40243, "The $bucketAuto 'buckets' field must be greater than 0")
    return whole


def _spread(rows: list[tuple[Any, Document]], most: int, fields: Fields) -> list[Document]:
    """Buckets of about the same size; equal values are in one bucket. The upper end of a bucket is the lower end of
    the next one, that of the last one its greatest value."""
    size = max(1, int(len(rows) / most + 0.5))
    made: list[Document] = []
    start = 0
    while start < len(rows) and len(made) < most:
        end = len(rows) if len(made) == most - 1 else min(start + size, len(rows))
        while end < len(rows) and order_key(rows[end][0]) == order_key(rows[end - 1][0]):
            end += 1
        last = rows[end][0] if end < len(rows) else rows[end - 1][0]
        bounds = {"min": rows[start][0], "max": last}
        made.append({"_id": bounds, **accumulated(fields, bounds, [row for _, row in rows[start:end]])})
        start = end
    return made


# -- $sample ------------------------------------------------------------------------------------------------------


def compile_sample(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(28745, "the $sample stage specification must be an object")
    for name, value in spec.items():
        if name != "size":
            raise failure(28748, f"unrecognized option to $sample: {name}")
        if not is_number(value):
            raise failure(28746, "size argument to $sample must be a number")
        if (truncated(value) or 0) < 0:
            raise failure(28747, "size argument to $sample must not be negative")
    if "size" not in spec:
        raise failure(28749, "$sample stage must specify a size")
    size = truncated(spec["size"]) or 0
    return lambda documents, lookup: random.sample(documents, min(size, len(documents)))
