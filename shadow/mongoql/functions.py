"""Expression operators that are functions of evaluated values: comparison, arithmetic, text, dates; and their table.

Each entry of `FUNCTIONS` has its number of arguments. `MISSING` may be an argument, and a result where it is the
server's. Codes are the server's (`src/mongo/db/pipeline/expression.cpp`).
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from bson import Code, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp

from shadow.errors import UnsupportedOperation
from shadow.model.order import CONTEXT, millis, order_key
from shadow.mongoql import containers, numbers
from shadow.mongoql.containers import nullish
from shadow.mongoql.failures import described, failure
from shadow.mongoql.predicates import is_number, remainder, truthy
from shadow.mongoql.summation import Summation

__all__ = ["DATE_PARTS", "FUNCTIONS", "Function", "date_of", "is_date"]


@dataclass(frozen=True, slots=True)
class Function:
    """`arity`: the server's code for another number of arguments than `least` to `most`."""

    call: Callable[..., Any]
    least: int
    most: int
    arity: int = 16020


_MANY: Final = 1 << 30


def is_date(value: Any) -> bool:
    return type(value) in (dt.datetime, DatetimeMS)


def date_of(moment: int) -> Any:
    """The date at a number of milliseconds, as Python's type if it is in range."""
    if moment not in numbers.INT64:
        raise failure(15, "date overflow")
    try:
        return dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=moment)
    except OverflowError:
        return DatetimeMS(moment)


# -- comparison ---------------------------------------------------------------------------------------------------


def _comparison(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda a, b: test(order_key(a), order_key(b))


def _cmp(a: Any, b: Any) -> int:
    first, second = order_key(a), order_key(b)
    return (first > second) - (first < second)


# -- arithmetic ---------------------------------------------------------------------------------------------------


def _add(*values: Any) -> Any:
    total = Summation()
    dates = 0
    for value in values:
        if nullish(value):
            return None
        if is_date(value):
            dates += 1
            total.add(Int64(millis(value)))
        elif is_number(value):
            total.add(value)
        else:
            raise failure(16554, f"$add only supports numeric or date types, not {described(value)}")
    if dates > 1:
        raise failure(16612, "only one date allowed in an $add expression")
    return _shifted(total.result()) if dates else total.result()


def _shifted(moment: Any) -> Any:
    if type(moment) not in (int, Int64):
        raise UnsupportedOperation("$add", "of a date and a number that is not whole")
    return date_of(int(moment))


def _subtract(a: Any, b: Any) -> Any:
    if nullish(a) or nullish(b):
        return None
    if is_date(a) and is_date(b):
        return Int64(millis(a) - millis(b))
    if is_date(a) and type(b) in (int, Int64):
        return date_of(millis(a) - int(b))
    if is_date(a) and is_number(b):
        raise UnsupportedOperation("$subtract", "of a date and a number that is not whole")
    if not is_number(a) or not is_number(b):
        raise failure(14, f"can't $subtract {described(b)} from {described(a)}")
    if type(a) is Decimal128 or type(b) is Decimal128:
        return Decimal128(CONTEXT.subtract(numbers.decimal_of(a), numbers.decimal_of(b)))
    if type(a) is float or type(b) is float:
        return float(a) - float(b)
    return _whole_or_double(int(a) - int(b), a, b)


def _whole_or_double(result: int, *operands: Any) -> Any:
    try:
        return numbers.narrow(result, *operands)
    except OverflowError:
        return float(result)


def _multiply(*values: Any) -> Any:
    result: Any = 1
    for value in values:
        if nullish(value):
            return None
        if not is_number(value):
            raise failure(14, f"$multiply only supports numeric types, not {described(value)}")
    for value in values:
        try:
            result = numbers.multiply(result, value)
        except OverflowError:
            result = float(result) * float(value)
    return result


def _divide(a: Any, b: Any) -> Any:
    if nullish(a) or nullish(b):
        return None
    if not is_number(a) or not is_number(b):
        raise failure(14, f"$divide only supports numeric types, not {described(a)} and {described(b)}")
    if type(a) is Decimal128 or type(b) is Decimal128:
        divisor = numbers.decimal_of(b)
        if divisor == 0:
            raise failure(2, "can't $divide by zero")
        return Decimal128(CONTEXT.divide(numbers.decimal_of(a), divisor))
    if b == 0:
        raise failure(2, "can't $divide by zero")
    return float(a) / float(b)


def _mod(a: Any, b: Any) -> Any:
    if nullish(a) or nullish(b):
        return None
    if not is_number(a) or not is_number(b):
        raise failure(16611, f"$mod only supports numeric types, not {described(a)} and {described(b)}")
    if type(a) is Decimal128 or type(b) is Decimal128:
        divisor = numbers.decimal_of(b)
        if divisor == 0:
            raise failure(16610, "can't $mod by zero")
        return Decimal128(CONTEXT.remainder(numbers.decimal_of(a), divisor))
    if b == 0:
        raise failure(16610, "can't $mod by zero")
    if type(a) is float or type(b) is float:
        return float(a) - float(a) if math.isinf(a) else math.fmod(a, b)  # NaN, with the machine's sign
    return numbers.narrow(remainder(int(a), int(b)), a, b)


def _abs(value: Any) -> Any:
    if nullish(value):
        return None
    _numeric("$abs", value)
    if type(value) is Decimal128:
        return Decimal128(value.to_decimal().copy_abs())
    if type(value) is float:
        return abs(value)
    try:
        return numbers.narrow(abs(int(value)), value)
    except OverflowError:
        raise failure(28680, "can't take $abs of long long min") from None


def _numeric(name: str, value: Any, code: int = 28765) -> None:
    if not is_number(value):
        raise failure(code, f"{name} only supports numeric types, not {described(value)}")


def _rounded(name: str, plain: Callable[[float], int], mode: str) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        if nullish(value):
            return None
        _numeric(name, value, 51081 if name == "$trunc" else 28765)
        if type(value) is Decimal128:
            exact = value.to_decimal()
            if not exact.is_finite():
                return value
            return Decimal128(exact.quantize(decimal.Decimal(1), rounding=mode, context=CONTEXT))
        if type(value) is float:
            return math.copysign(float(plain(value)), value) if math.isfinite(value) else value
        return value

    return call


# -- text ---------------------------------------------------------------------------------------------------------


def _concat(*values: Any) -> Any:
    for value in values:
        if nullish(value):
            return None
        if type(value) is not str:
            raise failure(16702, f"$concat only supports strings, not {described(value)}")
    return "".join(values)


def _text(name: str, value: Any) -> str:
    if nullish(value):
        return ""
    if type(value) is str or (type(value) is Code and value.scope is None):
        return str(value)
    if is_number(value) or is_date(value) or type(value) is Timestamp:
        raise UnsupportedOperation(name, "of a value that has to be turned into text")
    raise failure(16007, f"can't convert from BSON type {described(value)} to String")


def _ascii(table: dict[int, int], name: str) -> Callable[[Any], str]:
    return lambda value: _text(name, value).translate(table)


_UPPER: Final = {i: i - 32 for i in range(ord("a"), ord("z") + 1)}
_LOWER: Final = {i: i + 32 for i in range(ord("A"), ord("Z") + 1)}


def _length(name: str, code: int, measure: Callable[[str], int]) -> Callable[[Any], int]:
    def call(value: Any) -> int:
        if type(value) is not str:
            raise failure(code, f"{name} requires a string argument, found: {containers.name_of(value)}")
        return measure(value)

    return call


def _substr(value: Any, start: Any, count: Any) -> str:
    text = _text("$substrCP", value)
    begin, length = containers.whole_index(start, 34450, 34451), containers.whole_index(count, 34452, 34453)
    if begin < 0 or length < 0:
        raise failure(34455 if begin < 0 else 34454, "$substrCP takes no negative numbers")
    return text[begin : begin + length]


def _split(value: Any, separator: Any) -> Any:
    if nullish(value) or nullish(separator):
        return None
    if type(value) is not str or type(separator) is not str:
        raise failure(40085 if type(value) is not str else 40086, "$split takes strings")
    if not separator:
        raise failure(40087, "$split requires a non-empty separator")
    return value.split(separator)


# -- accumulators as expressions, types, dates --------------------------------------------------------------------


def _spread(values: tuple[Any, ...]) -> Iterable[Any]:
    """A single argument that is an array is replaced by its elements."""
    return values[0] if len(values) == 1 and type(values[0]) is list else values


def _sum(*values: Any) -> Any:
    total = Summation()
    for value in _spread(values):
        if is_number(value):
            total.add(value)
    return total.result()


def _avg(*values: Any) -> Any:
    total = Summation()
    found = [v for v in _spread(values) if is_number(v)]
    for value in found:
        total.add(value)
    return total.average(len(found)) if found else None


def _least(*values: Any) -> Any:
    present = [v for v in _spread(values) if not nullish(v)]
    return min(present, key=order_key) if present else None


def _greatest(*values: Any) -> Any:
    present = [v for v in _spread(values) if not nullish(v)]
    return max(present, key=order_key) if present else None


def _date_part(name: str, take: Callable[[dt.datetime], int]) -> Callable[[Any], Any]:
    def call(value: Any, zone: Any = "UTC") -> Any:
        if nullish(value):
            return None
        if type(value) is ObjectId:
            value = value.generation_time.replace(tzinfo=None)
        elif type(value) is Timestamp:
            value = date_of(value.time * 1000)
        if not is_date(value):
            raise failure(16006, f"can't convert from BSON type {described(value)} to Date")
        if nullish(zone):
            return None
        offset = _offset(name, zone)
        moment = date_of(millis(value) + offset * 60_000) if offset else value
        if type(moment) is DatetimeMS:
            raise UnsupportedOperation(name, "of a date outside the years 1 to 9999")
        return take(moment)

    return call


_ZONE: Final = re.compile(r"([+-])(\d\d)(?::?(\d\d))?")


def _offset(name: str, zone: Any) -> int:
    """Minutes east of UTC of a time zone that needs no table: UTC, GMT, or an offset."""
    if type(zone) is not str:
        raise failure(40533, f"{name} requires a string for the timezone argument, but was given a {described(zone)}")
    if zone in ("UTC", "GMT"):
        return 0
    found = _ZONE.fullmatch(zone)
    if found is None or not zone.isascii():
        raise UnsupportedOperation(f"{name}.timezone", "except UTC, GMT and offsets, it depends on the server's tables")
    minutes = int(found[2]) * 60 + int(found[3] or 0)
    return minutes if found[1] == "+" else -minutes


def _to_bool(value: Any) -> Any:
    return None if nullish(value) else truthy(value)


FUNCTIONS: Final[dict[str, Function]] = {
    "$eq": Function(_comparison(operator.eq), 2, 2),
    "$ne": Function(_comparison(operator.ne), 2, 2),
    "$gt": Function(_comparison(operator.gt), 2, 2),
    "$gte": Function(_comparison(operator.ge), 2, 2),
    "$lt": Function(_comparison(operator.lt), 2, 2),
    "$lte": Function(_comparison(operator.le), 2, 2),
    "$cmp": Function(_cmp, 2, 2),
    "$not": Function(lambda v: not truthy(v), 1, 1),
    "$toBool": Function(_to_bool, 1, 1, 50723),
    "$add": Function(_add, 0, _MANY),
    "$subtract": Function(_subtract, 2, 2),
    "$multiply": Function(_multiply, 0, _MANY),
    "$divide": Function(_divide, 2, 2),
    "$mod": Function(_mod, 2, 2),
    "$abs": Function(_abs, 1, 1),
    "$ceil": Function(_rounded("$ceil", math.ceil, decimal.ROUND_CEILING), 1, 1),
    "$floor": Function(_rounded("$floor", math.floor, decimal.ROUND_FLOOR), 1, 1),
    "$trunc": Function(_rounded("$trunc", math.trunc, decimal.ROUND_DOWN), 1, 2, 28667),
    "$concat": Function(_concat, 0, _MANY),
    "$toUpper": Function(_ascii(_UPPER, "$toUpper"), 1, 1),
    "$toLower": Function(_ascii(_LOWER, "$toLower"), 1, 1),
    "$strLenCP": Function(_length("$strLenCP", 34471, len), 1, 1),
    "$strLenBytes": Function(_length("$strLenBytes", 34473, lambda v: len(v.encode())), 1, 1),
    "$substrCP": Function(_substr, 3, 3),
    "$split": Function(_split, 2, 2),
    "$size": Function(containers.size, 1, 1),
    "$arrayElemAt": Function(containers.element_at, 2, 2),
    "$first": Function(containers.end_of("$first", 0), 1, 1),
    "$last": Function(containers.end_of("$last", -1), 1, 1),
    "$in": Function(containers.contains, 2, 2),
    "$indexOfArray": Function(containers.index_of, 2, 4, 28667),
    "$slice": Function(containers.sliced, 2, 3, 28667),
    "$concatArrays": Function(containers.concatenated, 0, _MANY),
    "$reverseArray": Function(containers.reversed_array, 1, 1),
    "$range": Function(containers.range_of, 2, 3, 28667),
    "$isArray": Function(lambda v: type(v) is list, 1, 1),
    "$isNumber": Function(is_number, 1, 1),
    "$type": Function(containers.name_of, 1, 1),
    "$setUnion": Function(containers.set_union, 0, _MANY),
    "$setIntersection": Function(containers.set_intersection, 0, _MANY),
    "$setDifference": Function(containers.set_difference, 2, 2),
    "$setEquals": Function(containers.set_equals, 2, _MANY, 17045),
    "$setIsSubset": Function(containers.set_is_subset, 2, 2),
    "$allElementsTrue": Function(containers.all_true, 1, 1),
    "$anyElementTrue": Function(containers.any_true, 1, 1),
    "$mergeObjects": Function(containers.merge_objects, 0, _MANY),
    "$objectToArray": Function(containers.object_to_array, 1, 1),
    "$arrayToObject": Function(containers.array_to_object, 1, 1),
    "$sum": Function(_sum, 0, _MANY),
    "$avg": Function(_avg, 0, _MANY),
    "$min": Function(_least, 0, _MANY),
    "$max": Function(_greatest, 0, _MANY),
    "$year": Function(_date_part("$year", lambda d: d.year), 1, 2, 40536),
    "$month": Function(_date_part("$month", lambda d: d.month), 1, 2, 40536),
    "$dayOfMonth": Function(_date_part("$dayOfMonth", lambda d: d.day), 1, 2, 40536),
    "$hour": Function(_date_part("$hour", lambda d: d.hour), 1, 2, 40536),
    "$minute": Function(_date_part("$minute", lambda d: d.minute), 1, 2, 40536),
    "$second": Function(_date_part("$second", lambda d: d.second), 1, 2, 40536),
    "$millisecond": Function(_date_part("$millisecond", lambda d: d.microsecond // 1000), 1, 2, 40536),
    "$dayOfWeek": Function(_date_part("$dayOfWeek", lambda d: d.isoweekday() % 7 + 1), 1, 2, 40536),
    "$dayOfYear": Function(_date_part("$dayOfYear", lambda d: d.timetuple().tm_yday), 1, 2, 40536),
}

DATE_PARTS: Final = frozenset(
    {
        "$year",
        "$month",
        "$dayOfMonth",
        "$hour",
        "$minute",
        "$second",
        "$millisecond",
        "$dayOfWeek",
        "$dayOfYear",
    }
)
"""The operators that also take a document of `date` and `timezone`."""
