"""Predicates of one element: comparison within a type, membership, types, patterns, remainders, bits.

Each function takes an operator's operand and returns a closure; the operand is examined once. Rules are those of the
server's leaf match expressions.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import operator
from collections.abc import Callable
from typing import Any, Final

from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)

from shadow.model.order import MISSING, binary_data, canonical_type, order_key, regex_flags
from shadow.mongoql.values.failures import failure
from shadow.mongoql.values.paths import Predicate
from shadow.mongoql.values.regexes import compile_regex

__all__ = [
    "ALIASES",
    "bits",
    "compare",
    "equals",
    "exists",
    "has_type",
    "is_nan",
    "is_number",
    "member",
    "modulo",
    "pattern",
    "size",
    "truthy",
    "type_code",
    "type_codes",
    "whole",
]

_NUMBERS: Final = frozenset({int, Int64, float, Decimal128})
_PLAIN_NUMBERS: Final = frozenset({int, Int64, float})


def is_number(value: Any) -> bool:
    return type(value) in _NUMBERS


def is_nan(value: Any) -> bool:
    if type(value) is float:
        return value != value
    return type(value) is Decimal128 and value.to_decimal().is_nan()


def truthy(value: Any) -> bool:
    """BSONElement::trueValue, also used by Value::coerceToBool: false only for false, zero, null and missing."""
    if value is None or value is MISSING:
        return False
    if type(value) is bool:
        return value
    if type(value) in _PLAIN_NUMBERS:
        return bool(value != 0)
    return not (type(value) is Decimal128 and value.to_decimal() == 0)


# -- comparison ---------------------------------------------------------------------------------------------------


def equals(operand: Any) -> Predicate:
    """`$eq`: the same type (all numbers count as one) and the same value; null matches missing."""
    kind = type(operand)
    if operand is None:
        return lambda v: v is None or v is MISSING
    if kind is str or kind is ObjectId:
        return lambda v: type(v) is kind and v == operand
    if kind is bool:
        return lambda v: v is operand
    if kind in _PLAIN_NUMBERS and operand == operand:
        return _equals_number(operand)
    if kind is MinKey or kind is MaxKey:
        return lambda v: type(v) is kind
    wanted, rank = order_key(operand), canonical_type(operand)
    return lambda v: canonical_type(v) == rank and order_key(v) == wanted


def _equals_number(operand: float) -> Predicate:
    wanted = order_key(operand)

    def predicate(value: Any) -> bool:
        if type(value) in _PLAIN_NUMBERS:
            return bool(value == operand)
        return type(value) is Decimal128 and order_key(value) == wanted

    return predicate


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def compare(name: str, operand: Any) -> Predicate:
    """`$gt`, `$gte`, `$lt`, `$lte`: within the operand's type, except for MinKey and MaxKey."""
    kind = type(operand)
    inclusive = name in ("$gte", "$lte")
    if operand is None:
        return equals(None) if inclusive else _never
    if kind is MinKey or kind is MaxKey:
        return _compare_extreme(name, kind)
    if is_nan(operand):
        return equals(operand) if inclusive else _never
    test = _COMPARISONS[name]
    if kind in _PLAIN_NUMBERS:
        return _compare_number(test, operand)
    if kind is str:
        return lambda v: type(v) is str and test(v, operand)
    wanted, rank = order_key(operand), canonical_type(operand)
    if rank == 10:
        return lambda v: type(v) in _NUMBERS and not is_nan(v) and test(order_key(v), wanted)
    return lambda v: canonical_type(v) == rank and test(order_key(v), wanted)


def _never(value: Any) -> bool:
    return False


def _compare_extreme(name: str, kind: type) -> Predicate:
    if name in (("$lt", "$lte") if kind is MinKey else ("$gt", "$gte")):
        return (lambda v: type(v) is kind) if name.endswith("e") else _never
    if name.endswith("e"):
        return lambda v: True
    return lambda v: type(v) is not kind


def _compare_number(test: Callable[[Any, Any], bool], operand: float) -> Predicate:
    wanted = order_key(operand)

    def predicate(value: Any) -> bool:
        if type(value) in _PLAIN_NUMBERS:
            return test(value, operand)
        return type(value) is Decimal128 and not is_nan(value) and test(order_key(value), wanted)

    return predicate


def member(operand: list[Any]) -> Predicate:
    """`$in`: equal to one of the values, or matched by one of the regular expressions among them."""
    values = [v for v in operand if type(v) is not Regex]
    patterns = [pattern(v) for v in operand if type(v) is Regex]
    if values and all(type(v) is str for v in values) and not patterns:
        texts = frozenset(values)
        return lambda v: type(v) is str and v in texts
    keys = frozenset(order_key(v) for v in values)
    null = None in values

    def predicate(value: Any) -> bool:
        if value is MISSING:
            return null
        return order_key(value) in keys or any(p(value) for p in patterns)

    return predicate


# -- other leaves -------------------------------------------------------------------------------------------------


def exists(value: Any) -> bool:
    return value is not MISSING


def pattern(regex: Regex[Any]) -> Predicate:
    """A regular expression matches strings, and equal regular expressions."""
    search = compile_regex(regex).search
    same = (regex.pattern, regex_flags(regex.flags))

    def predicate(value: Any) -> bool:
        if type(value) is str:
            return search(value) is not None
        return type(value) is Regex and (value.pattern, regex_flags(value.flags)) == same

    return predicate


def size(operand: Any) -> Predicate:
    wanted = whole(operand, "$size")
    if not 0 <= wanted < 2**31:
        raise failure(2, "Failed to parse $size. Expected a non-negative number of 32 bits")
    return lambda v: type(v) is list and len(v) == wanted


def whole(operand: Any, name: str, code: int = 2) -> int:
    """An operand that must be a whole number of 64 bits, of any numeric type."""
    if not is_number(operand):
        raise failure(code, f"Failed to parse {name}. Expected a number")
    number = operand.to_decimal() if type(operand) is Decimal128 else operand
    if is_nan(operand) or not math.isfinite(number) or number != int(number) or not -(2**63) <= number < 2**63:
        raise failure(code, f"Failed to parse {name}. Expected an integer")
    return int(number)


def truncated(value: Any) -> int | None:
    """A number truncated to 64 bits; None for anything else, and if it is not finite or out of range."""
    if not is_number(value) or is_nan(value):
        return None
    number = value.to_decimal() if type(value) is Decimal128 else value
    if not math.isfinite(number) or not -(2**63) <= int(number) < 2**63:
        return None
    return int(number)


def remainder(dividend: int, divisor: int) -> int:
    """The remainder as in C: with the sign of the dividend."""
    rest = abs(dividend) % abs(divisor)
    return -rest if dividend < 0 else rest


def modulo(operand: Any) -> Predicate:
    """`$mod: [divisor, remainder]`; both sides are truncated."""
    if type(operand) is not list or len(operand) != 2:
        raise failure(2, "malformed mod, needs to be an array of two elements")
    divisor, rest = (truncated(v) for v in operand)
    if divisor is None or rest is None:
        raise failure(2, "malformed mod, divisor and remainder must be numbers of 64 bits")
    if divisor == 0:
        raise failure(2, "divisor cannot be 0")

    def predicate(value: Any) -> bool:
        number = truncated(value)
        return number is not None and remainder(number, divisor) == rest

    return predicate


ALIASES: Final = {
    "double": 1,
    "string": 2,
    "object": 3,
    "array": 4,
    "binData": 5,
    "undefined": 6,
    "objectId": 7,
    "bool": 8,
    "date": 9,
    "null": 10,
    "regex": 11,
    "dbPointer": 12,
    "javascript": 13,
    "symbol": 14,
    "javascriptWithScope": 15,
    "int": 16,
    "timestamp": 17,
    "long": 18,
    "decimal": 19,
    "minKey": -1,
    "maxKey": 127,
}
_NUMBER_CODES: Final = frozenset({1, 16, 18, 19})

_CODES: Final[dict[type, int]] = {
    float: 1,
    str: 2,
    dict: 3,
    DBRef: 3,
    list: 4,
    bytes: 5,
    Binary: 5,
    ObjectId: 7,
    bool: 8,
    dt.datetime: 9,
    DatetimeMS: 9,
    type(None): 10,
    Regex: 11,
    int: 16,
    Timestamp: 17,
    Int64: 18,
    Decimal128: 19,
    MinKey: -1,
    MaxKey: 127,
}


def type_code(value: Any) -> int:
    """The BSON type number of a value; 0 for a missing one."""
    if type(value) is Code:
        return 13 if value.scope is None else 15
    return _CODES.get(type(value), 0)


def type_codes(operand: Any) -> frozenset[int]:
    """The types in the operand of `$type`: a number, an alias or an array of these."""
    if type(operand) is not list:
        return _one_type(operand)
    if not operand:
        raise failure(9, "$type must match at least one type")
    return frozenset().union(*[_one_type(v) for v in operand])


def _one_type(operand: Any) -> frozenset[int]:
    if type(operand) is str:
        if operand == "number":
            return _NUMBER_CODES
        if operand not in ALIASES:
            raise failure(2, "Unknown type name alias")
        return frozenset({ALIASES[operand]})
    if not is_number(operand):
        raise failure(14, "type must be represented as a number or a string")
    code = truncated(operand)
    if code is None or order_key(code) != order_key(operand) or code not in ALIASES.values():
        raise failure(2, "Invalid numerical type code")
    return frozenset({code})


def has_type(operand: Any) -> Predicate:
    codes = type_codes(operand)
    return lambda v: type_code(v) in codes


# -- bits ---------------------------------------------------------------------------------------------------------


def bits(name: str, operand: Any) -> Predicate:
    """`$bitsAllSet`, `$bitsAnySet`, `$bitsAllClear`, `$bitsAnyClear`: numbers of 64 bits and binary data."""
    positions = _positions(name, operand)
    wanted = name.endswith("Set")
    decide = all if "All" in name else any

    def predicate(value: Any) -> bool:
        test = _bit_test(value)
        return test is not None and decide(test(p) is wanted for p in positions)

    return predicate


def _bit_test(value: Any) -> Callable[[int], bool] | None:
    if isinstance(value, bytes):
        data = binary_data(value)
        return lambda p: p // 8 < len(data) and bool(data[p // 8] >> (p % 8) & 1)
    number = _nearest(value.to_decimal()) if type(value) is Decimal128 else truncated(value)
    if number is None or (number != value and type(value) is not Decimal128):
        return None
    return lambda p: bool(number >> min(p, 63) & 1)


def _nearest(value: decimal.Decimal) -> int:
    """The server's unchecked conversion of a decimal: half to even; the least integer if out of range."""
    if not value.is_finite():
        return -(2**63)
    whole = int(value.to_integral_value(rounding=decimal.ROUND_HALF_EVEN))
    return whole if -(2**63) <= whole < 2**63 else -(2**63)


def _positions(name: str, operand: Any) -> list[int]:
    if isinstance(operand, bytes):
        data = binary_data(operand)
        return [i for i in range(len(data) * 8) if data[i // 8] >> (i % 8) & 1]
    if type(operand) is list:
        found = [whole(v, "bit position") for v in operand]
        if any(p < 0 or p >= 2**31 for p in found):
            raise failure(2, "Failed to parse bit position. Expected a non-negative number of 32 bits")
        return found
    if type(operand) is bool or not is_number(operand):
        raise failure(2, f"{name} takes an Array, a number, or a BinData")
    mask = whole(operand, name, code=9)
    if mask < 0:
        raise failure(9, f"Expected a non-negative number in {name}")
    return [i for i in range(64) if mask >> i & 1]
