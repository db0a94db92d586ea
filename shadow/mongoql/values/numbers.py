"""Arithmetic of BSON numbers. A result has the type of the wider operand: int < long < double < decimal."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

from bson import Decimal128, Int64

from shadow.model.intervals import INT32, INT64
from shadow.model.order import CONTEXT

__all__ = ["INT32", "INT64", "add", "decimal_of", "int_of", "multiply", "narrow"]


def decimal_of(value: Any) -> decimal.Decimal:
    """A number as a decimal; a double is rounded to 15 digits, as the server's default conversion does."""
    if type(value) is Decimal128:
        return value.to_decimal()
    if type(value) is not float:
        return decimal.Decimal(int(value))
    exact = decimal.Decimal(value)
    if value == 0 or not exact.is_finite():
        return exact
    rounded = CONTEXT.quantize(exact, decimal.Decimal((0, (1,), exact.adjusted() - 14)))
    return CONTEXT.quantize(exact, decimal.Decimal((0, (1,), rounded.adjusted() - 14)))


def int_of(value: int) -> Any:
    """A whole number as int32 or, if that is too narrow, int64. Raises OverflowError beyond int64."""
    if value in INT32:
        return int(value)
    if value in INT64:
        return Int64(value)
    raise OverflowError("beyond 64 bits")


def narrow(result: int, *operands: Any) -> Any:
    """The result of whole operands in their wider type; two int32 widen to int64 if necessary."""
    if all(type(v) is int for v in operands):
        return int_of(result)
    if result in INT64:
        return Int64(result)
    raise OverflowError("beyond 64 bits")


def _combined(
    a: Any,
    b: Any,
    exact: Callable[[decimal.Decimal, decimal.Decimal], decimal.Decimal],
    plain: Callable[[Any, Any], Any],
) -> Any:
    if type(a) is Decimal128 or type(b) is Decimal128:
        return Decimal128(exact(decimal_of(a), decimal_of(b)))
    if type(a) is float or type(b) is float:
        return plain(float(a), float(b))
    return narrow(plain(int(a), int(b)), a, b)


def add(a: Any, b: Any) -> Any:
    """a + b. Raises OverflowError beyond int64."""
    return _combined(a, b, CONTEXT.add, lambda x, y: x + y)


def multiply(a: Any, b: Any) -> Any:
    """a * b. Raises OverflowError beyond int64."""
    return _combined(a, b, CONTEXT.multiply, lambda x, y: x * y)
