"""The expression operators that sort, join and pick from arrays."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shadow.model.order import MISSING, as_document, order_key, sort_documents
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.named import Compile, Evaluate, Names, checked, named
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.support import LITERALS

__all__ = ["LIST_OPERATORS", "Extremes", "count_of", "picked", "sorted_values", "sorting"]


# -- $zip ---------------------------------------------------------------------------------------------------------

_ZIP: Final = Names({"inputs": 34465}, ("useLongestLength", "defaults"), 34460, 34464)


def _zip(operand: Any, compile: Compile) -> Evaluate:
    given = dict(operand) if type(operand) is dict else operand
    longest = False
    if type(given) is dict:
        for name in given:
            if name not in ("inputs", "useLongestLength", "defaults"):
                raise failure(34464, f"$zip found an unknown argument: {name}")
        for name, code in (("inputs", 34461), ("defaults", 34462)):
            if name in given and type(given[name]) is not list:
                raise failure(code, f"{name} must be an array of expressions")
        longest = given.pop("useLongestLength", False)
        if type(longest) is not bool:
            raise failure(34463, "useLongestLength must be a bool")
    checked("$zip", _ZIP, given)
    inputs = [compile(each) for each in given["inputs"]]
    defaults = [compile(each) for each in given.get("defaults", [])]
    if not inputs:
        raise failure(34465, "$zip requires at least one input array")
    if defaults and not longest:
        raise failure(34466, "cannot specify defaults unless useLongestLength is true")
    if defaults and len(defaults) != len(inputs):
        raise failure(34467, "defaults and inputs must have the same length")

    def evaluate(document: Any, variables: Mapping[str, Any]) -> Any:
        arrays = [each(document, variables) for each in inputs]
        if any(map(nullish, arrays)):
            # An input that is no array is refused only if it stands before one that is null.
            arrays = arrays[: [nullish(each) for each in arrays].index(True) + 1]
        for array in arrays:
            if nullish(array):
                return None
            if type(array) is not list:
                raise failure(34468, f"$zip found a non-array expression in input: {described(array)}")
        fill = [each(document, variables) for each in defaults] or [None] * len(arrays)
        length = (max if longest else min)(map(len, arrays))
        rows = [[a[i] if i < len(a) else f for a, f in zip(arrays, fill, strict=True)] for i in range(length)]
        return [[value for value in row if value is not MISSING] for row in rows]

    return evaluate


# -- sorting ------------------------------------------------------------------------------------------------------


def sorting(spec: Any, codes: tuple[int, int, int], name: str) -> int | list[tuple[str, int]]:
    """What a `sortBy` says: a direction for whole values, or paths with theirs. `codes`: for a number that is no
    direction, for a bad specification of fields, and for any other value."""
    spec = as_document(spec)
    if type(spec) is dict:
        if not spec:
            raise failure(codes[1], f"{name} must have at least one sort key")
        pairs = []
        for path, way in spec.items():
            whole = truncated(way) if is_number(way) else None
            if whole not in (1, -1) or order_key(whole) != order_key(way):
                raise failure(codes[1], f"{name}: a sort key's ordering must be 1 or -1")
            checked_path(path)
            pairs.append((path, whole))
        return pairs
    if not is_number(spec):
        raise failure(codes[2], f"{name} requires 'sortBy' to be 1, -1 or an object")
    whole = truncated(spec)
    if whole not in (1, -1) or order_key(whole) != order_key(spec):
        raise failure(codes[0], f"{name} sort direction must be 1 or -1")
    return whole


def sorted_values(values: Sequence[Any], by: int | list[tuple[str, int]]) -> list[Any]:
    """Values in the order of a `sorting`; those that are no objects have none of its fields."""
    if isinstance(by, int):
        return sorted(values, key=order_key, reverse=by < 0)
    return sort_documents(values, by, key=lambda v: v if type(v) is dict else {})


_SORT: Final = Names({"input": 2942502, "sortBy": 2942503}, (), 2942500, 2942501)


def _sort_array(operand: Any, compile: Compile) -> Evaluate:
    checked("$sortArray", _SORT, operand)
    by = sorting(operand["sortBy"], (2942506, 2942505, 2942507), "$sortArray")
    source = compile(operand["input"])

    def evaluate(document: Any, variables: Mapping[str, Any]) -> Any:
        values = source(document, variables)
        if nullish(values):
            return None
        if type(values) is not list:
            raise failure(2942504, f"The input argument to $sortArray must be an array, but was: {described(values)}")
        return sorted_values([as_document(each) for each in values], by)

    return evaluate


# -- the first of several -----------------------------------------------------------------------------------------


def count_of(value: Any) -> int:
    """The `n` of `$firstN` and its like. Raises OperationFailure for what is no positive whole number."""
    if not is_number(value):
        raise failure(5787902, f"Value for 'n' must be of integral type, but found {described(value)}")
    whole = truncated(value)
    if whole is None or numbers.decimal_of(value) != whole or whole not in numbers.INT64:
        raise failure(5787903, f"Value for 'n' must be of integral type, but found {described(value)}")
    if whole <= 0:
        raise failure(5787908, "'n' must be greater than 0")
    return whole


def picked(name: str, values: Sequence[Any], count: int) -> list[Any]:
    """What `$firstN`, `$lastN`, `$maxN` or `$minN` takes of values."""
    match name:
        case "$firstN":
            return list(values[:count])
        case "$lastN":
            return list(values[-count:])
    extremes = Extremes(count, greatest=name == "$maxN")
    for value in values:
        extremes.add(value)
    return extremes.values()


class Extremes:
    """The `count` least or greatest values that are not null. Among equal ones, the server keeps and returns them in
    the order of its sorted set."""

    __slots__ = ("_count", "_greatest", "_keys", "_values")

    def __init__(self, count: int, *, greatest: bool) -> None:
        self._count = count
        self._greatest = greatest
        self._keys: list[Any] = []
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if nullish(value):
            return
        key = order_key(value)
        if len(self._keys) == self._count:
            worst = 0 if self._greatest else -1
            if not (key > self._keys[worst] if self._greatest else key < self._keys[worst]):
                return
            del self._keys[worst], self._values[worst]
        at = bisect.bisect_right(self._keys, key)
        self._keys.insert(at, key)
        self._values.insert(at, value)

    def values(self) -> list[Any]:
        return self._values[::-1] if self._greatest else list(self._values)


def _picking(name: str) -> Callable[[Any, Compile], Evaluate]:
    ends = name in ("$firstN", "$lastN")
    names = Names({"n": 5787906, "input": 5787907}, (), 5787801 if ends else 5787900, 5787901)

    def call(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
        count = count_of(given["n"])
        if type(given["input"]) is not list:
            raise failure(5788200, "input must be an array")
        values = picked(name, given["input"], count)
        return [None if value is MISSING else value for value in values]

    return lambda operand, compile: named(name, names, operand, compile, call)


# -- fields -------------------------------------------------------------------------------------------------------


def _set_field(name: str) -> Callable[[Any, Compile], Evaluate]:
    removing = name == "$unsetField"
    needed = {"field": 4161102, "input": 4161109}
    names = Names(needed if removing else {**needed, "value": 4161103}, (), 4161100, 4161101)

    def compiled(operand: Any, compile: Compile) -> Evaluate:
        checked(name, names, operand)
        field = _field_name(operand["field"], compile)
        source = compile(operand["input"])
        value = (lambda document, variables: MISSING) if removing else compile(operand["value"])

        def evaluate(document: Any, variables: Mapping[str, Any]) -> Any:
            target = as_document(source(document, variables))
            if nullish(target):
                return None
            if type(target) is not dict:
                raise failure(4161105, f"{name} requires 'input' to evaluate to type Object")
            made = value(document, variables)
            if made is not MISSING:
                return {**target, field: made}
            return {each: inner for each, inner in target.items() if each != field}

        return evaluate

    return compiled


def _field_name(field: Any, compile: Compile) -> str:
    compile(field)
    field = as_document(field)
    if type(field) is dict and len(field) == 1 and not LITERALS.isdisjoint(field):
        (field,) = field.values()
    elif type(field) is str and field.startswith("$"):
        raise failure(4161108, "A field path reference is not allowed here. Did you mean {$literal: ...}?")
    elif type(field) in (dict, list):
        raise failure(4161106, "'field' must evaluate to a constant")
    if type(field) is not str:
        raise failure(4161107, "'field' must evaluate to a constant of type string")
    return field


LIST_OPERATORS: Final[dict[str, Callable[[Any, Compile], Evaluate]]] = {
    "$zip": _zip,
    "$sortArray": _sort_array,
    **{name: _picking(name) for name in ("$firstN", "$lastN", "$maxN", "$minN")},
    "$setField": _set_field("$setField"),
    "$unsetField": _set_field("$unsetField"),
}
