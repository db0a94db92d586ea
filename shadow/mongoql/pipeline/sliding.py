"""Sums, means, deviations and covariances over a window that slides: each value is added once, and taken out again.

What a value that has left leaves behind in the last digits is the server's, so its steps and their order are kept.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from bson import Decimal128, Int64

from shadow.mongoql.expressions.functions import FUNCTIONS
from shadow.mongoql.values import numbers
from shadow.mongoql.values.predicates import is_number
from shadow.mongoql.values.summation import Summation

__all__ = ["SLIDING", "Covariance", "Sliding", "SlidingSum", "slid"]

_subtract, _multiply, _divide = (FUNCTIONS[name].call for name in ("$subtract", "$multiply", "$divide"))


class Sliding(Protocol):
    def add(self, value: Any) -> None: ...

    def remove(self, value: Any) -> None: ...

    def result(self) -> Any: ...


def slid(values: Sequence[Any], windows: Sequence[tuple[int, int]], state: Sliding) -> list[Any]:
    """The result over each of `windows` (begin and end) of `values`, neither of which ever moves back."""
    made: list[Any] = []
    begun = ended = 0
    for begin, end in windows:
        if end <= begin:
            begin, end = ended, ended
        elif begun == ended:
            begun = ended = begin
        for value in values[ended:end]:
            state.add(value)
        for value in values[begun:begin]:  # what a window leaps over comes and goes, as on the server
            state.remove(value)
        begun, ended = begin, end
        made.append(state.result())
    return made


def _double(value: Any) -> float:
    return float(value.to_decimal()) if type(value) is Decimal128 else float(value)


def _negated(value: Any) -> list[Any]:
    """What to add in order to take `value` out; the least of a type has no opposite in it."""
    if type(value) is Decimal128:
        return [Decimal128(value.to_decimal().copy_negate())]
    if type(value) is float:
        return [-value]
    if type(value) is Int64:
        return [Int64(-value)] if value > -(2**63) else [Int64(2**63 - 1), 1]
    return [-value] if value > -(2**31) else [2**31 - 1, 1]


class SlidingSum:
    """A sum; its type is the widest of what is in the window, and int wherever that suffices."""

    def __init__(self) -> None:
        self._total = Summation()
        self._counts = {"nan": 0, "inf": 0, "-inf": 0}
        self._doubles = 0
        self._decimals = 0

    def add(self, value: Any) -> None:
        self._count(value, 1, [value])

    def remove(self, value: Any) -> None:
        if is_number(value):
            self._count(value, -1, _negated(value))

    def _count(self, value: Any, by: int, summands: Sequence[Any]) -> None:
        if not is_number(value):
            return
        self._doubles += by * (type(value) is float)
        self._decimals += by * (type(value) is Decimal128)
        if type(value) in (float, Decimal128) and not math.isfinite(number := _double_or_special(value)):
            self._counts[str(number)] += by
            return
        for each in summands:
            self._total.add(each)

    def result(self) -> Any:
        special = self._special()
        if special is not None:
            return Decimal128(special) if self._decimals > 0 else float(special)
        total = self._total.result()
        if type(total) is Decimal128 and self._decimals == 0:  # all decimals have left
            exact = total.to_decimal()
            whole = exact.to_integral_value(decimal.ROUND_HALF_EVEN)
            if self._doubles == 0 and -(2**63) <= whole < 2**63:
                return numbers.int_of(int(whole))
            return float(exact)
        if type(total) is float and self._doubles == 0 and -(2.0**63) <= total < 2.0**63:
            return numbers.int_of(_rounded(total))
        return numbers.int_of(int(total)) if type(total) is Int64 else total

    def _special(self) -> str | None:
        nan, up, down = (self._counts[each] > 0 for each in ("nan", "inf", "-inf"))
        if nan or (up and down):
            return "NaN"
        return "Infinity" if up else "-Infinity" if down else None


def _rounded(number: float) -> int:
    """To the nearest whole number, halves away from zero."""
    rest, whole = math.modf(number)
    return int(whole) + (int(math.copysign(1, number)) if abs(rest) >= 0.5 else 0)


def _double_or_special(value: Any) -> float:
    """A number as a double, infinite only if it is so itself."""
    if type(value) is float:
        return value
    number = value.to_decimal()
    return float("nan") if number.is_nan() else float(number) if number.is_infinite() else 0.0


class _SlidingAverage(SlidingSum):
    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def _count(self, value: Any, by: int, summands: Sequence[Any]) -> None:
        super()._count(value, by, summands)
        self._size += by * is_number(value)

    def result(self) -> Any:
        if not self._size:
            return None
        total = super().result()
        if type(total) is Decimal128:
            return _divide(total, self._size) if total.to_decimal().is_finite() else total
        return float(total) / self._size


class _SlidingDeviation:
    """From the sum, and the sum of the squared distances from the mean."""

    def __init__(self, *, sample: bool) -> None:
        self.sample = sample
        self._reset()

    def _reset(self) -> None:
        self._sum = Summation()
        self._squares = Summation()
        self._size = 0
        self._special = 0

    def add(self, value: Any) -> None:
        self._update(value, 1)

    def remove(self, value: Any) -> None:
        self._update(value, -1)

    def _update(self, value: Any, by: int) -> None:
        if not is_number(value):
            return
        if type(value) in (float, Decimal128) and not math.isfinite(_double_or_special(value)):
            self._special += by
            self._size += by
        elif self._size == 0:
            self._size = 1
            self._sum.add(value)
        elif self._size + by == 0:
            self._reset()
        else:
            number = _double(value)
            distance = self._size * number - _double(self._sum.result())
            self._size += by
            self._sum.add(number * by)
            self._squares.add(_quotient(distance * distance * by, self._size * (self._size - by)))

    def result(self) -> Any:
        size = self._size - 1 if self.sample else self._size
        if self._special > 0 or size == 0:
            return None
        squares = _double(self._squares.result())
        if squares < 0 or (not self.sample and self._size == 1):
            self._squares = Summation()
            return 0
        whole = _quotient(squares, size)
        return math.sqrt(whole) if whole >= 0 else math.nan


def _quotient(number: float, by: float) -> float:
    if by:
        return number / by
    return math.nan if not number or number != number else math.copysign(math.inf, number)


class Covariance:
    """Of pairs of numbers; any other value counts for nothing."""

    def __init__(self, *, sample: bool) -> None:
        self.sample = sample
        self._reset()

    def _reset(self) -> None:
        self._size = 0
        self._x, self._y, self._products = _SlidingAverage(), _SlidingAverage(), SlidingSum()

    def add(self, value: Any) -> None:
        if not _is_pair(value):
            return
        special = _special_of(value)
        if special is not None:
            self._products.add(special)
            return
        x, y = value
        self._size += 1
        left = _subtract(x, self._x.result())
        self._x.add(x)
        self._y.add(y)
        self._products.add(_multiply(left, _subtract(y, self._y.result())))

    def remove(self, value: Any) -> None:
        if not _is_pair(value):
            return
        special = _special_of(value)
        if special is not None:
            self._products.remove(special)
            return
        x, y = value
        self._size -= 1
        if self._size == 0:
            self._reset()
            return
        self._x.remove(x)
        self._products.remove(_multiply(_subtract(x, self._x.result()), _subtract(y, self._y.result())))
        self._y.remove(y)

    def result(self) -> Any:
        if self._size == 1 and not self.sample:
            return 0.0
        size = self._size - 1 if self.sample else self._size
        if size <= 0:
            return None
        total = self._products.result()
        return _divide(total, float(size)) if type(total) is Decimal128 else float(total) / size


def _is_pair(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(is_number, value))


def _special_of(pair: Sequence[Any]) -> Any:
    """The NaN or infinity that counts for a pair with such a number; None for others."""
    found = [_double_or_special(each) if type(each) in (float, Decimal128) else 0.0 for each in pair]
    if all(map(math.isfinite, found)):
        return None
    decimals = any(type(each) is Decimal128 and number == number for each, number in zip(pair, found, strict=True))
    both = math.inf in found and -math.inf in found
    text = "NaN" if both or any(map(math.isnan, found)) else "Infinity" if math.inf in found else "-Infinity"
    return Decimal128(text) if decimals else float(text)


SLIDING: Final[dict[str, Callable[[], Sliding]]] = {
    "$sum": SlidingSum,
    "$avg": _SlidingAverage,
    "$stdDevPop": lambda: _SlidingDeviation(sample=False),
    "$stdDevSamp": lambda: _SlidingDeviation(sample=True),
}
"""By the name of the window function."""
