"""Rounding, powers, logarithms and trigonometry, as functions of evaluated values.

Doubles go through the C library, as on the server. Of decimals, only what is rounded correctly on both sides is
computed: the server's decimal library approximates the rest.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from typing import Any, Final

from bson import Decimal128, Int64

from shadow.errors import UnsupportedOperation
from shadow.model.order import CONTEXT
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, truncated

__all__ = ["TRIGONOMETRY", "exponential", "logarithm", "logarithm_to", "power", "rounded", "square_root"]

_DIGITS: Final = 34
_PLACES: Final = range(-20, 101)


def _numeric(name: str, value: Any, code: int = 28765) -> None:
    if not is_number(value):
        raise failure(code, f"{name} only supports numeric types, not {described(value)}")


def _exact_only(name: str, *values: Any) -> None:
    if any(type(value) is Decimal128 for value in values):
        raise UnsupportedOperation(f"{name} of a decimal", "the server approximates it with a library of its own")


# -- rounding -----------------------------------------------------------------------------------------------------


def rounded(name: str, mode: str) -> Callable[..., Any]:
    """`$round` and `$trunc`, to a place after the decimal point."""

    def call(value: Any, place: Any = 0) -> Any:
        if nullish(value) or nullish(place):
            return None
        _numeric(name, value, 51081)
        digits = _place(name, place)
        if type(value) is Decimal128:
            return Decimal128(_quantized(value.to_decimal(), digits, mode))
        if type(value) is float:
            return _rounded_double(value, digits, mode)
        if digits >= 0:
            return value
        whole = int(_quantized(decimal.Decimal(int(value)), digits, mode))
        if whole not in numbers.INT64:
            raise failure(51080, f"invalid conversion from Decimal128 result in {name}")
        if type(value) is Int64 or whole >= numbers.INT32.stop:
            return Int64(whole)
        return (whole + 2**31) % 2**32 - 2**31  # below the range, the server cuts it to 32 bits

    return call


def _place(name: str, value: Any) -> int:
    if not is_number(value):
        raise failure(16004, f"can't convert from BSON type {described(value)} to long")
    whole = truncated(value)
    if whole is None or numbers.decimal_of(value) != whole or whole not in numbers.INT32:
        raise failure(51082, f"precision argument to {name} must be a integral value")
    if whole not in _PLACES:
        raise failure(51083, f"cannot apply {name} with precision value {whole} value must be in [-20, 100]")
    return whole


def _quantized(value: decimal.Decimal, digits: int, mode: str) -> decimal.Decimal:
    if not value.is_finite():
        return value
    # Where the place needs more digits than there are, the server keeps as many as there can be.
    place = max(-digits, value.adjusted() - _DIGITS + 1) if value else -digits
    made = value.quantize(decimal.Decimal((0, (1,), place)), rounding=mode, context=CONTEXT)
    return made if made.is_finite() else value.quantize(decimal.Decimal((0, (1,), place + 1)), mode, CONTEXT)


def _rounded_double(value: float, digits: int, mode: str) -> float:
    if not math.isfinite(value):
        return value
    if digits == 0:
        exact = decimal.Decimal(value).to_integral_value(rounding=mode)
        return math.copysign(float(exact), value)
    return float(_quantized(CONTEXT.create_decimal(decimal.Decimal(value)), digits, mode))


# -- powers and logarithms ----------------------------------------------------------------------------------------


def square_root(value: Any) -> Any:
    if nullish(value):
        return None
    _numeric("$sqrt", value)
    number = value.to_decimal() if type(value) is Decimal128 else value
    if number < 0 if number == number else False:
        raise failure(28714, "$sqrt's argument must be greater than or equal to 0")
    return Decimal128(CONTEXT.sqrt(number)) if type(value) is Decimal128 else math.sqrt(float(value))


def exponential(value: Any) -> Any:
    if nullish(value):
        return None
    _numeric("$exp", value)
    _exact_only("$exp", value)
    try:
        return math.exp(float(value))
    except OverflowError:
        return math.inf


def logarithm(name: str, code: int, call: Callable[[float], float]) -> Callable[[Any], Any]:
    def compute(value: Any) -> Any:
        if nullish(value):
            return None
        _numeric(name, value)
        _positive(name, value, code)
        _exact_only(name, value)
        return call(float(value))

    return compute


def _positive(name: str, value: Any, code: int) -> None:
    number = value.to_decimal() if type(value) is Decimal128 else value
    if number == number and number <= 0:
        raise failure(code, f"{name}'s argument must be a positive number")


def logarithm_to(value: Any, base: Any) -> Any:
    """`$log`: the logarithm to a base."""
    if nullish(value) or nullish(base):
        return None
    _numeric("$log", value, 28756)
    _numeric("$log", base, 28757)
    _positive("$log", value, 28758)
    _positive("$log's base", base, 28759)
    if (base.to_decimal() if type(base) is Decimal128 else base) == 1:
        raise failure(28759, "$log's base must be a positive number not equal to 1")
    _exact_only("$log", value, base)
    return math.log(float(value)) / math.log(float(base))


def power(base: Any, exponent: Any) -> Any:
    if nullish(base) or nullish(exponent):
        return None
    _numeric("$pow", base, 28762)
    _numeric("$pow", exponent, 28763)
    one, other = (each.to_decimal() if type(each) is Decimal128 else each for each in (base, exponent))
    if one == 0 and other == other and other < 0:
        raise failure(28764, "$pow cannot take a base of 0 and a negative exponent")
    _exact_only("$pow", base, exponent)
    if type(base) is float or type(exponent) is float:
        return _double_power(float(base), float(exponent))
    whole, times = int(base), int(exponent)
    if times < 0:
        if whole in (1, -1):
            return numbers.narrow(whole ** (-times % 2) if whole == -1 else 1, base, exponent)
        return _double_power(float(whole), float(times))
    if whole in (0, 1, -1):
        return numbers.narrow(whole ** (times if times < 2 else 2 + times % 2), base, exponent)
    if times < 64 and (result := whole**times) in numbers.INT64:
        return Int64(result) if Int64 in (type(base), type(exponent)) else numbers.int_of(result)
    return _double_power(float(whole), float(times))


def _double_power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:
        return -math.nan  # the sign that the C library gives it


# -- trigonometry -------------------------------------------------------------------------------------------------


def _angle(name: str, call: Callable[[float], float], low: float, high: float, *, inside: bool) -> Callable[[Any], Any]:
    """A function of one number from `low` to `high`, whose ends belong to it if `inside`."""

    def compute(value: Any) -> Any:
        if nullish(value):
            return None
        _numeric(name, value)
        _exact_only(name, value)
        number = float(value)
        if not math.isnan(number) and not (low <= number <= high if inside else low < number < high):
            raise failure(50989, f"cannot apply {name} to {number}, value must be in its domain")
        try:
            return call(number)
        except OverflowError:
            return math.copysign(math.inf, number) if name == "$sinh" else math.inf
        except ValueError:
            return math.copysign(math.inf, number)

    return compute


def _arc_tangent(y: Any, x: Any) -> Any:
    for value, code in ((y, 51044), (x, 51045)):
        if nullish(value):
            return None
        _numeric("$atan2", value, code)
    _exact_only("$atan2", y, x)
    return math.atan2(float(y), float(x))


def _scaled(name: str, factor: float) -> Callable[[Any], Any]:
    def compute(value: Any) -> Any:
        if nullish(value):
            return None
        _numeric(name, value)
        _exact_only(name, value)
        return float(value) * factor

    return compute


_INF: Final = math.inf
TRIGONOMETRY: Final[dict[str, tuple[Callable[..., Any], int]]] = {
    "$sin": (_angle("$sin", math.sin, -_INF, _INF, inside=False), 1),
    "$cos": (_angle("$cos", math.cos, -_INF, _INF, inside=False), 1),
    "$tan": (_angle("$tan", math.tan, -_INF, _INF, inside=False), 1),
    "$asin": (_angle("$asin", math.asin, -1, 1, inside=True), 1),
    "$acos": (_angle("$acos", math.acos, -1, 1, inside=True), 1),
    "$atan": (_angle("$atan", math.atan, -_INF, _INF, inside=True), 1),
    "$sinh": (_angle("$sinh", math.sinh, -_INF, _INF, inside=True), 1),
    "$cosh": (_angle("$cosh", math.cosh, -_INF, _INF, inside=True), 1),
    "$tanh": (_angle("$tanh", math.tanh, -_INF, _INF, inside=True), 1),
    "$asinh": (_angle("$asinh", math.asinh, -_INF, _INF, inside=True), 1),
    "$acosh": (_angle("$acosh", math.acosh, 1, _INF, inside=True), 1),
    "$atanh": (_angle("$atanh", math.atanh, -1, 1, inside=True), 1),
    "$atan2": (_arc_tangent, 2),
    "$degreesToRadians": (_scaled("$degreesToRadians", math.pi / 180), 1),
    "$radiansToDegrees": (_scaled("$radiansToDegrees", 180 / math.pi), 1),
}
"""Functions with their numbers of arguments."""
