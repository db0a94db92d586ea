"""Sums like the server's: whole numbers exactly, doubles with compensation, decimals separately.

Source: `DoubleDoubleSummation` and `AccumulatorSum`. The result has the widest type of the summands; int widens to
long, and long to double, if necessary.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable
from typing import Any

from bson import Decimal128, Int64

from shadow.model.order import CONTEXT
from shadow.mongoql import numbers
from shadow.mongoql.predicates import is_number

__all__ = ["Deviation", "Summation", "deviation"]

_WIDTH = {int: 0, Int64: 1, float: 2, Decimal128: 3}


class Summation:
    __slots__ = ("_addend", "_decimal", "_special", "_sum", "_whole", "_widest")

    def __init__(self) -> None:
        self._whole = 0
        self._sum = 0.0
        self._addend = 0.0
        self._special = 0.0
        self._decimal = decimal.Decimal(0)
        self._widest = 0

    def add(self, value: Any) -> None:
        kind = type(value)
        self._widest = max(self._widest, _WIDTH[kind])
        if kind is Decimal128:
            self._decimal = CONTEXT.add(self._decimal, value.to_decimal())
        elif kind is float:
            self._special += value
            self._accumulate(value)
        else:
            self._whole += int(value)

    def _accumulate(self, value: float) -> None:
        total = self._sum + value
        part = total - self._sum
        error = (self._sum - (total - part)) + (value - part)
        self._sum, self._addend = total, self._addend + error

    def _double(self) -> float:
        if self._whole:
            high = float(self._whole)
            self._accumulate(high)
            self._accumulate(float(self._whole - int(high)))
            self._special += high
            self._whole = 0
        total = self._sum + self._addend
        return total if total == total else self._special

    def result(self) -> Any:
        if self._widest == 3:
            return Decimal128(CONTEXT.add(self._decimal, self._inexact()))
        if self._widest == 2:
            return self._double()
        if self._whole in numbers.INT64:
            return Int64(self._whole) if self._widest == 1 else numbers.int_of(self._whole)
        return self._double()

    def _inexact(self) -> decimal.Decimal:
        """All non-decimal summands as one decimal."""
        whole = decimal.Decimal(self._whole)
        if self._special == 0 and self._sum == 0 and self._addend == 0:
            return whole
        if self._special != self._special or self._special in (float("inf"), float("-inf")):
            return decimal.Decimal(self._special)
        parts = CONTEXT.add(CONTEXT.create_decimal(decimal.Decimal(self._sum)), decimal.Decimal(self._addend))
        return CONTEXT.add(parts, whole)

    def average(self, count: int) -> Any:
        """The mean of `count` numbers: a decimal if one of them is, otherwise a double."""
        if self._widest == 3:
            return Decimal128(CONTEXT.divide(self.result().to_decimal(), decimal.Decimal(count)))
        return self._double() / count


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
