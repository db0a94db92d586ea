"""`$convert` and its short forms: a value of one BSON type as a value of another one.

The pairs of types, the ranges and the texts of numbers are those of the server's `ExpressionConvert`.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bson import Code, Decimal128, Int64, ObjectId, Timestamp
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.intervals import Interval
from shadow.model.order import CONTEXT, millis
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.date_texts import iso_text, parsed_text
from shadow.mongoql.expressions.moments import date_of, is_date, moment_of
from shadow.mongoql.expressions.named import ABSENT, Compile, Evaluate, Names, named
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, truthy

__all__ = ["SHORT_FORMS", "coerced_text", "compile_convert", "short"]

CONVERSION_FAILED: Final = 241
"""ConversionFailure of the server's error codes: what `onError` catches."""

_NORMAL: Final = 2.2250738585072014e-308
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_DOUBLE: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL: Final = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?")
_INFINITY: Final = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_NAN: Final = re.compile(r"[+-]?nan", re.IGNORECASE)
_NAN_WITH_BITS: Final = re.compile(r"[+-]?nan\([0-9a-z_]*\)", re.IGNORECASE)
_OBJECT_ID: Final = re.compile(r"[0-9a-fA-F]{24}")


def _failed(text: str) -> OperationFailure:
    return failure(CONVERSION_FAILED, text)


def _unsupported(value: Any, target: str) -> OperationFailure:
    return _failed(f"Unsupported conversion from {described(value)} to {target} in $convert with no onError value")


# -- texts --------------------------------------------------------------------------------------------------------


def number_text(value: Any) -> str:
    """A number as the server writes it: a double with six significant digits."""
    if type(value) is Decimal128:
        return str(value)
    if type(value) is not float:
        return str(int(value))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:g}"


def text_of(value: Any) -> str:
    """`$toString` of a value that is not null."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if is_number(value):
        return number_text(value)
    if type(value) is ObjectId:
        return str(value)
    if is_date(value):
        return iso_text(millis(value))
    raise _unsupported(value, "string")


# -- numbers ------------------------------------------------------------------------------------------------------


def _whole(name: str, bits: Interval) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        kind = type(value)
        if kind is bool or kind is int or kind is Int64:
            whole = int(value)
        elif kind is float:
            whole = _truncated(value, bits)
        elif kind is Decimal128:
            exact = value.to_decimal()
            if not exact.is_finite():
                raise _failed(f"Attempt to convert NaN or infinity to {name}")
            # Beyond 20 digits it is out of range; a decimal may have thousands.
            whole = int(exact) if exact.adjusted() < 20 else bits.stop
        elif kind is str:
            whole = _whole_text(value)
        elif name == "long" and is_date(value):
            whole = millis(value)
        else:
            raise _unsupported(value, name)
        if whole not in bits:
            raise _failed("Conversion would overflow target type in $convert with no onError value")
        return Int64(whole) if name == "long" else whole

    return convert


def _truncated(value: float, bits: Interval) -> int:
    if not math.isfinite(value):
        raise _failed("Attempt to convert NaN or infinity value to integer type")
    if not bits.start <= value <= bits.stop - 1:
        raise _failed("Conversion would overflow target type in $convert with no onError value")
    return math.trunc(value)


def _whole_text(text: str) -> int:
    if not _WHOLE.fullmatch(text) or len(text) > 1_000:
        raise _failed("Failed to parse number in $convert with no onError value")
    return int(text)


def _to_double(value: Any) -> float:
    kind = type(value)
    if kind is str:
        return _double_text(value)
    if kind is Decimal128:
        exact = value.to_decimal()
        if not exact.is_finite():
            return float(exact)
        double = float(exact)
        if math.isinf(double) or (exact != 0 and abs(double) < _NORMAL):
            raise _failed("Conversion would overflow target type in $convert with no onError value")
        return double
    if kind is bool or is_number(value):
        return float(value)
    if is_date(value):
        return float(millis(value))
    raise _unsupported(value, "double")


def _double_text(text: str) -> float:
    if _HEXADECIMAL.fullmatch(text) and not text.startswith("0x"):
        try:
            return float.fromhex(text)
        except OverflowError:
            raise _failed("Failed to parse number: Out of range") from None
    if _INFINITY.fullmatch(text):
        return float(text)
    if _NAN_WITH_BITS.fullmatch(text):
        raise UnsupportedOperation("$toDouble of a text", "a NaN with bits of its own is not made here")
    if _NAN.fullmatch(text):
        return float(text)
    if not _DOUBLE.fullmatch(text):
        raise _failed("Failed to parse number in $convert with no onError value")
    double = float(text)
    if math.isinf(double) or (abs(double) < _NORMAL and re.search("[1-9]", re.split("[eE]", text)[0])):
        raise _failed("Failed to parse number: Out of range")
    return double


def _to_decimal(value: Any) -> Decimal128:
    kind = type(value)
    if kind is str:
        return _decimal_text(value)
    if kind is bool:
        return Decimal128(decimal.Decimal(int(value)))
    if is_number(value):
        return value if kind is Decimal128 else Decimal128(numbers.decimal_of(value))
    if is_date(value):
        return Decimal128(decimal.Decimal(millis(value)))
    raise _unsupported(value, "decimal")


def _decimal_text(text: str) -> Decimal128:
    if _NAN.fullmatch(text):
        return Decimal128("NaN")
    if not (_DOUBLE.fullmatch(text) or _INFINITY.fullmatch(text)):
        raise _failed("Failed to parse number in $convert with no onError value")
    context = CONTEXT.copy()
    context.rounding = decimal.ROUND_DOWN  # of more than 34 digits, the server takes the first
    context.clear_flags()
    made = context.create_decimal(text)
    if context.flags[decimal.Overflow] or context.flags[decimal.Underflow]:
        raise _failed("Failed to parse number: Out of range")
    return Decimal128(made)


# -- the others ---------------------------------------------------------------------------------------------------


def _to_object_id(value: Any) -> ObjectId:
    if type(value) is ObjectId:
        return value
    if type(value) is not str:
        raise _unsupported(value, "objectId")
    if not _OBJECT_ID.fullmatch(value):
        raise _failed("Failed to parse objectId in $convert with no onError value")
    return ObjectId(value)


_LONG: Final = _whole("long", numbers.INT64)


def _to_date(value: Any) -> Any:
    kind = type(value)
    if is_date(value):
        return value
    if kind in (ObjectId, Timestamp):
        return date_of(moment_of(value))
    if kind in (Int64, float, Decimal128):
        return date_of(int(_LONG(value)))
    if kind is str:
        return date_of(parsed_text("$convert", value))
    raise _unsupported(value, "date")


_TARGETS: Final[dict[str, Callable[[Any], Any]]] = {
    "double": _to_double,
    "string": text_of,
    "objectId": _to_object_id,
    "bool": truthy,
    "date": _to_date,
    "int": _whole("int", numbers.INT32),
    "long": _LONG,
    "decimal": _to_decimal,
}
_CODES: Final = {1: "double", 2: "string", 7: "objectId", 8: "bool", 9: "date", 16: "int", 18: "long", 19: "decimal"}
_OTHERS: Final = {
    "object", "array", "binData", "undefined", "null", "regex", "dbPointer", "javascript", "symbol",
    "javascriptWithScope", "timestamp", "minKey", "maxKey", "missing",
}  # fmt: skip
"""Types that nothing is converted to."""

SHORT_FORMS: Final = {
    "$toDouble": "double",
    "$toString": "string",
    "$toObjectId": "objectId",
    "$toBool": "bool",
    "$toDate": "date",
    "$toInt": "int",
    "$toLong": "long",
    "$toDecimal": "decimal",
}


def target_of(to: Any) -> str:
    """The name of the type that `to` of `$convert` names, by its name or its number."""
    if type(to) is str:
        if to not in _TARGETS and to not in _OTHERS:
            raise failure(2, f"Unknown type name: {to}")
        return to
    if not is_number(to):
        raise failure(9, f"$convert's 'to' argument must be a string or number, but is {described(to)}")
    number = to.to_decimal() if type(to) is Decimal128 else to
    if not math.isfinite(number) or number != int(number):
        raise failure(9, "In $convert, numeric 'to' argument is not an integer")
    if int(number) in _CODES:
        return _CODES[int(number)]
    if int(number) in {0, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 17, -1, 127}:
        return "missing"
    raise failure(9, "In $convert, numeric value for 'to' does not correspond to a BSON type")


def converted(value: Any, target: str) -> Any:
    """A value that is not null as one of the type `target`. Raises OperationFailure 241 where that is not possible."""
    convert = _TARGETS.get(target)
    if convert is None:
        raise _unsupported(value, target)
    return convert(value)


def short(target: str) -> Callable[[Any], Any]:
    """The short form for a type, such as `$toInt`."""
    return lambda value: None if nullish(value) else converted(value, target)


def coerced_text(name: str, value: Any) -> str:
    """What operators over texts, such as `$toUpper`, read: null is empty, and numbers and dates are written."""
    if nullish(value):
        return ""
    if type(value) is str or (type(value) is Code and value.scope is None):
        return str(value)
    if is_number(value):
        return number_text(value) if type(value) is not float else f"{value:g}"
    if is_date(value):
        return iso_text(millis(value))
    if type(value) is Timestamp:
        raise UnsupportedOperation(f"{name} of a timestamp", "the server writes it in its own time zone")
    raise failure(16007, f"can't convert from BSON type {described(value)} to String")


_CONVERT: Final = Names({"input": 9, "to": 9}, ("onError", "onNull"), 9, 9, {"onNull": None})


def _convert(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
    target = None if nullish(given["to"]) else target_of(given["to"])
    if nullish(given["input"]):
        return given["onNull"]
    if target is None:
        return None
    try:
        return converted(given["input"], target)
    except OperationFailure as error:
        if error.code != CONVERSION_FAILED or given["onError"] is ABSENT:
            raise
        return given["onError"]


def compile_convert(operand: Any, compile: Compile) -> Evaluate:
    """`$convert`."""
    return named("$convert", _CONVERT, operand, compile, _convert)
