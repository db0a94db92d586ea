"""The accumulators of `$group`: small objects that take one value after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from shadow.model.order import MISSING, as_document, order_key
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number
from shadow.mongoql.values.summation import Deviation, Summation

__all__ = ["ACCUMULATORS", "Accumulator", "WindowAverage"]


class Accumulator(Protocol):
    def add(self, value: Any) -> None: ...

    def result(self) -> Any: ...


class _Sum:
    def __init__(self) -> None:
        self.total = Summation()

    def add(self, value: Any) -> None:
        if is_number(value):
            self.total.add(value)

    def result(self) -> Any:
        return self.total.result()


class _Average(_Sum):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def add(self, value: Any) -> None:
        super().add(value)
        self.count += is_number(value)

    def result(self) -> Any:
        return self.total.average_of_group(self.count) if self.count else None


class WindowAverage(_Average):
    """`$avg` over a window from which no document leaves: the server's other engine, which sums in doubles alone."""

    def result(self) -> Any:
        return self.total.average(self.count) if self.count else None


class _Deviation:
    def __init__(self, *, sample: bool) -> None:
        self.total = Deviation(sample=sample)

    def add(self, value: Any) -> None:
        if is_number(value):
            self.total.add(value)

    def result(self) -> Any:
        return self.total.result()


class _Extreme:
    def __init__(self, greatest: bool) -> None:
        self.greatest = greatest
        self.value: Any = None

    def add(self, value: Any) -> None:
        if nullish(value):
            return
        if self.value is None:
            self.value = value
            return
        new, old = order_key(value), order_key(self.value)
        if new > old if self.greatest else new < old:
            self.value = value

    def result(self) -> Any:
        return self.value


class _FirstValue:
    def __init__(self) -> None:
        self.seen = False
        self.value: Any = None

    def add(self, value: Any) -> None:
        if not self.seen:
            self.seen, self.value = True, value

    def result(self) -> Any:
        return None if self.value is MISSING else self.value


class _Last(_FirstValue):
    def add(self, value: Any) -> None:
        self.value = value


class _Push:
    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any) -> None:
        if value is not MISSING:
            self.values.append(value)

    def result(self) -> Any:
        return self.values


class _AddToSet:
    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}

    def add(self, value: Any) -> None:
        if value is not MISSING:
            self.values.setdefault(order_key(value), value)

    def result(self) -> Any:
        return list(self.values.values())


class _Merge:
    def __init__(self) -> None:
        self.merged: dict[str, Any] = {}

    def add(self, value: Any) -> None:
        value = as_document(value)
        if nullish(value):
            return
        if type(value) is not dict:
            raise failure(40400, f"$mergeObjects requires object inputs, but an input is of type {described(value)}")
        self.merged.update(value)

    def result(self) -> Any:
        return self.merged


ACCUMULATORS: Final[dict[str, Callable[[], Accumulator]]] = {
    "$sum": _Sum,
    "$count": _Sum,
    "$avg": _Average,
    "$min": lambda: _Extreme(greatest=False),
    "$max": lambda: _Extreme(greatest=True),
    "$first": _FirstValue,
    "$last": _Last,
    "$push": _Push,
    "$addToSet": _AddToSet,
    "$mergeObjects": _Merge,
    "$stdDevPop": lambda: _Deviation(sample=False),
    "$stdDevSamp": lambda: _Deviation(sample=True),
}
