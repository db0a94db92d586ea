"""Sums like the server's: all but decimals as a double with what its rounding lost, decimals separately.

The result has the widest type of the summands; int widens to long, and long to double, if necessary. The order of the
summands counts, and of equal orders the last digit is the server's.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable
from typing import Any, Final

from bson import Decimal128, Int64

from shadow.model.order import CONTEXT
from shadow.mongoql.values import numbers
from shadow.mongoql.values.predicates import is_number

__all__ = ["Deviation", "Summation", "deviation"]

_WIDTH: Final = {int: 0, Int64: 1, float: 2, Decimal128: 3}
_HALF: Final = 2**32
"""A long is added as two doubles, each of which holds its half exactly."""


class Summation:
    __slots__ = ("_decimal", "_rest", "_special", "_sum", "_widest")

    def __init__(self) -> None:
        self._sum = 0.0
        self._rest = 0.0
        self._special = 0.0  # without the care for rounding, which makes NaN of infinities
        self._decimal = decimal.Decimal(0)
        self._widest = 0

    def add(self, value: Any) -> None:
        kind = type(value)
        self._widest = max(self._widest, _WIDTH[kind])
        if kind is Decimal128:
            self._decimal = CONTEXT.add(self._decimal, value.to_decimal())
        elif kind is Int64:
            low = value % _HALF if value >= 0 else -(-value % _HALF)
            self._accumulate(float(low))
            self._accumulate(float(value - low))
        else:
            self._accumulate(float(value))

    def _accumulate(self, value: float) -> None:
        self._special += value
        total = value + self._rest
        self._rest -= total - value
        made = self._sum + total
        old = made - total
        lost = (self._sum - old) + (total - (made - old))
        self._sum = made
        self._rest += lost

    def _double(self) -> float:
        return self._sum if self._sum == self._sum else self._special

    def _long(self) -> int | None:
        """The sum as a whole number; None where it is none, or beyond 64 bits."""
        if not math.isfinite(self._sum) or not math.isfinite(self._rest):
            return None
        whole = int(self._sum) + int(self._rest)
        return whole if whole in numbers.INT64 else None

    def result(self) -> Any:
        if self._widest == 3:
            return Decimal128(CONTEXT.add(self._decimal, self._inexact()))
        whole = self._long() if self._widest < 2 else None
        if whole is None:
            return self._double()
        return Int64(whole) if self._widest == 1 else numbers.int_of(whole)

    def _inexact(self) -> decimal.Decimal:
        """All non-decimal summands as one decimal."""
        if not math.isfinite(self._sum):
            return decimal.Decimal(self._special)
        parts = (CONTEXT.create_decimal(decimal.Decimal(each)) for each in (self._sum, self._rest))
        return CONTEXT.add(*parts)

    def average(self, count: int) -> Any:
        """The mean of `count` numbers: a decimal if one of them is, otherwise a double."""
        if self._widest == 3:
            return Decimal128(CONTEXT.divide(self.result().to_decimal(), decimal.Decimal(count)))
        return self._double() / count

    def average_of_group(self, count: int) -> Any:
        """As `average`, for `$group`: the server's engine for it takes whole numbers as they are."""
        whole = self._long() if self._widest < 2 else None
        return self.average(count) if whole is None else float(whole) / count


class Deviation:
    """The standard deviation of numbers, by Welford's method, as the server has it: in doubles, one by one."""

    __slots__ = ("_count", "_mean", "_squares", "sample")

    def __init__(self, *, sample: bool) -> None:
        self.sample = sample
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: Any) -> None:
        """Adds a number."""
        number = float(value.to_decimal()) if type(value) is Decimal128 else float(value)
        self._count += 1
        delta = number - self._mean
        if delta != 0.0 or delta != delta:
            self._mean += delta / self._count
            self._squares += delta * (number - self._mean)

    def result(self) -> float | None:
        count = self._count - 1 if self.sample else self._count
        return math.sqrt(self._squares / count) if count > 0 else None


def deviation(values: Iterable[Any], *, sample: bool) -> float | None:
    """The standard deviation of the numbers among `values`."""
    total = Deviation(sample=sample)
    for value in values:
        if is_number(value):
            total.add(value)
    return total.result()
