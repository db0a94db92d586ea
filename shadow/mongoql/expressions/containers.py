"""The expression operators over arrays, sets and objects, as functions of evaluated values.

Codes are the server's (`src/mongo/db/pipeline/expression.cpp`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from bson import Decimal128

from shadow.model.order import MISSING, as_document, order_key
from shadow.model.values import type_name
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_nan, is_number, truthy

__all__ = [
    "all_true",
    "any_true",
    "array_to_object",
    "concatenated",
    "contains",
    "element_at",
    "end_of",
    "index_of",
    "merge_objects",
    "name_of",
    "nullish",
    "object_to_array",
    "range_of",
    "reversed_array",
    "set_difference",
    "set_equals",
    "set_intersection",
    "set_is_subset",
    "set_union",
    "size",
    "sliced",
    "whole_index",
]


def nullish(value: Any) -> bool:
    return value is None or value is MISSING


def name_of(value: Any) -> str:
    return "missing" if value is MISSING else type_name(value)


def whole_index(value: Any, kind: int, whole: int) -> int:
    """A number that must be a whole one of 32 bits; otherwise raises with one of the given codes."""
    if not is_number(value):
        raise failure(kind, f"expected a numeric argument, found {name_of(value)}")
    number = value.to_decimal() if type(value) is Decimal128 else value
    if is_nan(value) or not math.isfinite(number) or number != int(number) or int(number) not in numbers.INT32:
        raise failure(whole, "expected a number that 32 bits can hold")
    return int(number)


# -- arrays -------------------------------------------------------------------------------------------------------


def size(value: Any) -> int:
    if type(value) is not list:
        raise failure(17124, f"The argument to $size must be an array, but was of type: {name_of(value)}")
    return len(value)


def element_at(array: Any, at: Any) -> Any:
    if nullish(array) or nullish(at):
        return None
    if type(array) is not list:
        raise failure(28689, f"$arrayElemAt's first argument must be an array, but is {described(array)}")
    index = whole_index(at, 28690, 28691)
    return array[index] if -len(array) <= index < len(array) else MISSING


def end_of(name: str, at: int) -> Callable[[Any], Any]:
    def call(array: Any) -> Any:
        if nullish(array):
            return None
        if type(array) is not list:
            raise failure(28689, f"{name}'s argument must be an array, but is {described(array)}")
        return array[at] if array else MISSING

    return call


def contains(value: Any, array: Any) -> bool:
    if type(array) is not list:
        raise failure(40081, f"$in requires an array as a second argument, found: {name_of(array)}")
    key = order_key(value)
    return any(order_key(v) == key for v in array)


def index_of(array: Any, value: Any, start: Any = 0, end: Any = None) -> Any:
    if nullish(array):
        return None
    if type(array) is not list:
        raise failure(40090, f"$indexOfArray requires an array as a first argument, found: {described(array)}")
    begin = _bound(start)
    stop = len(array) if end is None else _bound(end)
    key = order_key(value)
    return next((i for i in range(begin, min(stop, len(array))) if order_key(array[i]) == key), -1)


def _bound(value: Any) -> int:
    index = whole_index(value, 40096, 40096)
    if index < 0:
        raise failure(40097, "$indexOfArray requires a nonnegative bound")
    return index


def sliced(array: Any, first: Any, second: Any = MISSING) -> Any:
    if nullish(array) or nullish(first):
        return None
    if type(array) is not list:
        raise failure(28724, f"First argument to $slice must be an array, but is of type: {described(array)}")
    start = whole_index(first, 28725, 28726)
    if second is MISSING:
        return array[:start] if start >= 0 else array[start:]
    if second is None:
        return None
    count = whole_index(second, 28727, 28728)
    if count <= 0:
        raise failure(28729, "Third argument to $slice must be positive")
    begin = start if start >= 0 else max(len(array) + start, 0)
    return array[begin : begin + count]


def concatenated(*arrays: Any) -> Any:
    joined: list[Any] = []
    for array in arrays:
        if nullish(array):
            return None
        if type(array) is not list:
            raise failure(28664, f"$concatArrays only supports arrays, not {described(array)}")
        joined.extend(array)
    return joined


def reversed_array(array: Any) -> Any:
    if nullish(array):
        return None
    if type(array) is not list:
        raise failure(34435, f"$reverseArray's argument must be an array, not {described(array)}")
    return array[::-1]


def range_of(start: Any, end: Any, step: Any = 1) -> list[int]:
    begin, stop, width = (
        whole_index(start, 34443, 34444),
        whole_index(end, 34445, 34446),
        whole_index(step, 34447, 34448),
    )
    if width == 0:
        raise failure(34449, "$range requires a non-zero step value")
    return list(range(begin, stop, width))


# -- sets ---------------------------------------------------------------------------------------------------------


def _distinct(values: Iterable[Any]) -> list[Any]:
    """The distinct values, in MongoDB's order."""
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(order_key(value), value)
    return [found[key] for key in sorted(found)]


def _set_argument(name: str, code: int, array: Any) -> list[Any]:
    if type(array) is not list:
        raise failure(code, f"arguments of {name} must be arrays. One argument is of type: {name_of(array)}")
    return array


def set_union(*arrays: Any) -> Any:
    values: list[Any] = []
    for array in arrays:
        if nullish(array):
            return None
        values.extend(_set_argument("$setUnion", 17043, array))
    return _distinct(values)


def set_intersection(*arrays: Any) -> Any:
    common: list[Any] | None = None
    for array in arrays:
        if nullish(array):
            return None
        keys = {order_key(v) for v in _set_argument("$setIntersection", 17047, array)}
        common = array if common is None else [v for v in common if order_key(v) in keys]
    return _distinct(common or [])


def set_difference(a: Any, b: Any) -> Any:
    if nullish(a) or nullish(b):
        return None
    left = _set_argument("$setDifference", 17048, a)
    seen = {order_key(v) for v in _set_argument("$setDifference", 17049, b)}
    kept = []
    for value in left:
        if order_key(value) not in seen:
            seen.add(order_key(value))
            kept.append(value)
    return kept


def set_equals(*arrays: Any) -> bool:
    keys = [{order_key(v) for v in _set_argument("$setEquals", 17044, array)} for array in arrays]
    return all(other == keys[0] for other in keys)


def set_is_subset(a: Any, b: Any) -> bool:
    small = {order_key(v) for v in _set_argument("$setIsSubset", 17046, a)}
    return small <= {order_key(v) for v in _set_argument("$setIsSubset", 17042, b)}


def all_true(array: Any) -> bool:
    return all(truthy(v) for v in _set_argument("$allElementsTrue", 17040, array))


def any_true(array: Any) -> bool:
    return any(truthy(v) for v in _set_argument("$anyElementTrue", 17041, array))


# -- objects ------------------------------------------------------------------------------------------------------


def merge_objects(*values: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in map(as_document, values[0] if len(values) == 1 and type(values[0]) is list else values):
        if nullish(value):
            continue
        if type(value) is not dict:
            raise failure(40400, f"$mergeObjects requires object inputs, but an input is of type {described(value)}")
        merged.update(value)
    return merged


def object_to_array(value: Any) -> Any:
    value = as_document(value)
    if nullish(value):
        return None
    if type(value) is not dict:
        raise failure(40390, f"$objectToArray requires a document input, found: {described(value)}")
    return [{"k": name, "v": inner} for name, inner in value.items()]


def array_to_object(array: Any) -> Any:
    if nullish(array):
        return None
    if type(array) is not list:
        raise failure(40386, f"$arrayToObject requires an array input, found: {described(array)}")
    result: dict[str, Any] = {}
    pairs = bool(array) and type(array[0]) is list
    for item in map(as_document, array):
        name, value = _pair(item) if pairs else _entry(item)
        if "\0" in name:
            raise failure(4940400 if pairs else 4940401, "Key field cannot contain an embedded null byte")
        result[name] = value
    return result


def _pair(item: Any) -> tuple[str, Any]:
    if type(item) is not list:
        raise failure(40396, "$arrayToObject requires arrays only")
    if len(item) != 2:
        raise failure(40397, "$arrayToObject requires an array of size 2 arrays")
    if type(item[0]) is not str:
        raise failure(40395, "$arrayToObject requires keys that are strings")
    return item[0], item[1]


def _entry(item: Any) -> tuple[str, Any]:
    if type(item) is not dict:
        raise failure(40398 if type(item) is not list else 40391, "$arrayToObject requires an array of objects")
    if len(item) != 2:
        raise failure(40392, "$arrayToObject requires an object keys of 'k' and 'v'")
    if set(item) != {"k", "v"}:
        raise failure(40393, "$arrayToObject requires an object with keys 'k' and 'v'")
    if type(item["k"]) is not str:
        raise failure(40394, "$arrayToObject requires a 'k' that is a string")
    return item["k"], item["v"]
