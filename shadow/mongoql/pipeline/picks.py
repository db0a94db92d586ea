"""The accumulators that keep several values, or those of certain documents: `$firstN`, `$maxN`, `$topN`..."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any, Final

from shadow.model.order import MISSING, as_document, order_key, sort_key
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.expressions.lists import Extremes, count_of
from shadow.mongoql.pipeline.accumulators import Accumulator
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.stages import Variables

__all__ = ["PICKS", "Make", "compile_pick", "sort_pairs"]

Make = Callable[[Any], Accumulator]
"""A new accumulator for the group with a key."""


class _Ends:
    """The first or the last `count` values."""

    def __init__(self, count: int, *, last: bool) -> None:
        self._count, self._last = count, last
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if len(self._values) < self._count or self._last:
            self._values.append(None if value is MISSING else value)
            del self._values[: -self._count]

    def result(self) -> list[Any]:
        return self._values


class _Extremes:
    def __init__(self, count: int, *, greatest: bool) -> None:
        self._kept = Extremes(count, greatest=greatest)

    def add(self, value: Any) -> None:
        self._kept.add(value)

    def result(self) -> list[Any]:
        return self._kept.values()


class _Ordered:
    """The outputs of the documents that come first, or last, in an order. It is given pairs of sort key and output.
    Among equal keys, the documents that came first stay."""

    def __init__(self, count: int, *, last: bool, single: bool) -> None:
        self._count, self._last, self._single = count, last, single
        self._keys: list[Any] = []
        self._outputs: list[Any] = []

    def add(self, value: Any) -> None:
        key, output = value
        if len(self._keys) == self._count:
            worst = 0 if self._last else -1
            if not (self._keys[worst] < key if self._last else key < self._keys[worst]):
                return
            del self._keys[worst], self._outputs[worst]
        at = bisect.bisect_right(self._keys, key)
        self._keys.insert(at, key)
        self._outputs.insert(at, None if output is MISSING else output)

    def result(self) -> Any:
        if self._single:
            return self._outputs[0] if self._outputs else None
        return self._outputs


_COUNTED: Final[dict[str, Callable[[int], Accumulator]]] = {
    "$firstN": lambda count: _Ends(count, last=False),
    "$lastN": lambda count: _Ends(count, last=True),
    "$maxN": lambda count: _Extremes(count, greatest=True),
    "$minN": lambda count: _Extremes(count, greatest=False),
    "$topN": lambda count: _Ordered(count, last=False, single=False),
    "$bottomN": lambda count: _Ordered(count, last=True, single=False),
    "$top": lambda count: _Ordered(1, last=False, single=True),
    "$bottom": lambda count: _Ordered(1, last=True, single=True),
}
PICKS: Final = frozenset(_COUNTED)


def compile_pick(name: str, operand: Any, given: Variables) -> tuple[Make, Callable[[Document], Any]]:
    """The accumulator, for a group's key, and what it is given of each document."""
    fields = _arguments(name, as_document(operand))
    make = _COUNTED[name]
    if "n" not in fields:
        return lambda key: make(1), _keyed(fields, given)
    count = evaluator(fields["n"], given)

    def counted(key: Any) -> Accumulator:
        key = as_document(key)
        return make(count_of(count(key if type(key) is dict else {})))

    return counted, _keyed(fields, given) if "sortBy" in fields else evaluator(fields["input"], given)


def _arguments(name: str, operand: Any) -> Mapping[str, Any]:
    ordered = name.startswith(("$top", "$bottom"))
    codes = {"output": 5788004, "sortBy": 5788005} if ordered else {"n": 5787906, "input": 5787907}
    if name in ("$topN", "$bottomN"):
        codes = {"n": 5788003, **codes}
    if type(operand) is not dict:
        code = 5788001 if ordered else 5787801 if name in ("$firstN", "$lastN") else 5787900
        raise failure(code, f"specification must be an object; found {name}: {described(operand)}")
    for each, value in operand.items():
        if each == "sortBy" and ordered and type(as_document(value)) is not dict:
            raise failure(10065, "invalid parameter: expected an object (sortBy)")
        if each not in codes:
            raise failure(5788002 if ordered else 5787901, f"Unknown argument to {name}: {each}")
    for each, code in codes.items():
        if each not in operand:
            raise failure(code, f"Missing value for '{each}'")
    return operand


def _keyed(fields: Mapping[str, Any], given: Variables) -> Callable[[Document], Any]:
    sort = as_document(fields["sortBy"])
    # The server puts the values into an array, and sorts by the positions in it.
    key = sort_key([(f"by.{at}", way) for at, (_, way) in enumerate(sort_pairs(sort))])
    values = evaluator([f"${path}" for path in sort], given)
    output = evaluator(fields["output"], given)
    return lambda document: (key({"by": values(document)}), output(document))


def sort_pairs(sort: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The paths of a `sortBy` with their directions. Raises OperationFailure with the codes of `$sort`."""
    return [(path, _way(path, way)) for path, way in sort.items()]


def _way(path: str, value: Any) -> int:
    if not is_number(value):
        raise failure(15974, f"Illegal key in $sort specification: {path}")
    whole = truncated(value)
    if whole not in (1, -1) or order_key(whole) != order_key(value):
        raise failure(15975, "$sort key ordering must be 1 (for ascending) or -1 (for descending)")
    checked_path(path)
    return whole
