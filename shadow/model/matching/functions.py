"""The expression operators that are functions of evaluated values: comparison, arithmetic, text, arrays, objects, dates.

Each entry of `FUNCTIONS` says how many arguments it takes. `MISSING` may come in, and go out where the server's does.
Codes are the server's (`src/mongo/db/pipeline/expression.cpp`).
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from bson import DatetimeMS, Decimal128, Int64, ObjectId, Timestamp

from shadow.errors import UnsupportedOperation
from shadow.model.matching import numbers
from shadow.model.matching.failures import described, failure
from shadow.model.matching.predicates import is_nan, is_number, remainder, truthy
from shadow.model.matching.summation import Summation
from shadow.model.order import CONTEXT, MISSING, as_document, millis, order_key
from shadow.model.values import type_name

__all__ = ["FUNCTIONS", "Function", "date_of", "is_date", "nullish"]


@dataclass(frozen=True, slots=True)
class Function:
    call: Callable[..., Any]
    least: int
    most: int


_MANY: Final = 1 << 30


def nullish(value: Any) -> bool:
    return value is None or value is MISSING


def is_date(value: Any) -> bool:
    return type(value) in (dt.datetime, DatetimeMS)


def date_of(moment: int) -> Any:
    """A date of so many milliseconds, in Python's type where that reaches."""
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
        return float(a) - float(a) if math.isinf(a) else math.fmod(a, b)  # NaN, with the sign that the machine gives it
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
    if type(value) is str:
        return value
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
            raise failure(code, f"{name} requires a string argument, found: {_name(value)}")
        return measure(value)

    return call


def _name(value: Any) -> str:
    return "missing" if value is MISSING else type_name(value)


def _substr(value: Any, start: Any, count: Any) -> str:
    text = _text("$substrCP", value)
    begin, length = _index(start, 34450, 34451), _index(count, 34452, 34453)
    if begin < 0 or length < 0:
        raise failure(34455 if begin < 0 else 34454, "$substrCP takes no negative numbers")
    return text[begin : begin + length]


def _index(value: Any, kind: int, whole: int) -> int:
    """A number that must be a whole one of 32 bits, or the codes to say otherwise."""
    if not is_number(value):
        raise failure(kind, f"expected a numeric argument, found {_name(value)}")
    number = value.to_decimal() if type(value) is Decimal128 else value
    if is_nan(value) or not math.isfinite(number) or number != int(number) or int(number) not in numbers.INT32:
        raise failure(whole, "expected a number that 32 bits can hold")
    return int(number)


def _split(value: Any, separator: Any) -> Any:
    if nullish(value) or nullish(separator):
        return None
    if type(value) is not str or type(separator) is not str:
        raise failure(40085 if type(value) is not str else 40086, "$split takes strings")
    if not separator:
        raise failure(40087, "$split requires a non-empty separator")
    return value.split(separator)


# -- arrays -------------------------------------------------------------------------------------------------------


def _size(value: Any) -> int:
    if type(value) is not list:
        raise failure(17124, f"The argument to $size must be an array, but was of type: {_name(value)}")
    return len(value)


def _element(array: Any, at: Any) -> Any:
    if nullish(array) or nullish(at):
        return None
    if type(array) is not list:
        raise failure(28689, f"$arrayElemAt's first argument must be an array, but is {described(array)}")
    index = _index(at, 28690, 28691)
    return array[index] if -len(array) <= index < len(array) else MISSING


def _end(name: str, at: int) -> Callable[[Any], Any]:
    def call(array: Any) -> Any:
        if nullish(array):
            return None
        if type(array) is not list:
            raise failure(28689, f"{name}'s argument must be an array, but is {described(array)}")
        return array[at] if array else MISSING

    return call


def _in(value: Any, array: Any) -> bool:
    if type(array) is not list:
        raise failure(40081, f"$in requires an array as a second argument, found: {_name(array)}")
    key = order_key(value)
    return any(order_key(v) == key for v in array)


def _index_of(array: Any, value: Any, start: Any = 0, end: Any = None) -> Any:
    if nullish(array):
        return None
    if type(array) is not list:
        raise failure(40090, f"$indexOfArray requires an array as a first argument, found: {described(array)}")
    begin = _bound(start)
    stop = len(array) if end is None else _bound(end)
    key = order_key(value)
    return next((i for i in range(begin, min(stop, len(array))) if order_key(array[i]) == key), -1)


def _bound(value: Any) -> int:
    index = _index(value, 40096, 40096)
    if index < 0:
        raise failure(40097, "$indexOfArray requires a nonnegative bound")
    return index


def _slice(array: Any, first: Any, second: Any = MISSING) -> Any:
    if nullish(array) or nullish(first):
        return None
    if type(array) is not list:
        raise failure(28724, f"First argument to $slice must be an array, but is of type: {described(array)}")
    start = _index(first, 28725, 28726)
    if second is MISSING:
        return array[:start] if start >= 0 else array[start:]
    if second is None:
        return None
    count = _index(second, 28727, 28728)
    if count <= 0:
        raise failure(28729, "Third argument to $slice must be positive")
    begin = start if start >= 0 else max(len(array) + start, 0)
    return array[begin : begin + count]


def _concat_arrays(*arrays: Any) -> Any:
    joined: list[Any] = []
    for array in arrays:
        if nullish(array):
            return None
        if type(array) is not list:
            raise failure(28664, f"$concatArrays only supports arrays, not {described(array)}")
        joined.extend(array)
    return joined


def _reverse(array: Any) -> Any:
    if nullish(array):
        return None
    if type(array) is not list:
        raise failure(34435, f"The argument to $reverseArray must be an array, but was of type: {described(array)}")
    return array[::-1]


def _range(start: Any, end: Any, step: Any = 1) -> list[int]:
    begin, stop, width = _index(start, 34443, 34444), _index(end, 34445, 34446), _index(step, 34447, 34448)
    if width == 0:
        raise failure(34449, "$range requires a non-zero step value")
    return list(range(begin, stop, width))


# -- sets ---------------------------------------------------------------------------------------------------------


def _distinct(values: Iterable[Any]) -> list[Any]:
    """One of each, in MongoDB's order."""
    found = {}
    for value in values:
        found.setdefault(order_key(value), value)
    return [found[key] for key in sorted(found)]


def _set_argument(name: str, code: int, array: Any) -> list[Any]:
    if type(array) is not list:
        raise failure(code, f"arguments of {name} must be arrays. One argument is of type: {_name(array)}")
    return array


def _set_union(*arrays: Any) -> Any:
    values: list[Any] = []
    for array in arrays:
        if nullish(array):
            return None
        values.extend(_set_argument("$setUnion", 17043, array))
    return _distinct(values)


def _set_intersection(*arrays: Any) -> Any:
    common: list[Any] | None = None
    for array in arrays:
        if nullish(array):
            return None
        keys = {order_key(v) for v in _set_argument("$setIntersection", 17047, array)}
        common = array if common is None else [v for v in common if order_key(v) in keys]
    return _distinct(common or [])


def _set_difference(a: Any, b: Any) -> Any:
    if nullish(a) or nullish(b):
        return None
    seen = {order_key(v) for v in _set_argument("$setDifference", 17049, b)}
    kept = []
    for value in _set_argument("$setDifference", 17048, a):
        if order_key(value) not in seen:
            seen.add(order_key(value))
            kept.append(value)
    return kept


def _set_equals(*arrays: Any) -> bool:
    keys = [{order_key(v) for v in _set_argument("$setEquals", 17044, array)} for array in arrays]
    return all(other == keys[0] for other in keys)


def _set_is_subset(a: Any, b: Any) -> bool:
    small = {order_key(v) for v in _set_argument("$setIsSubset", 17046, a)}
    return small <= {order_key(v) for v in _set_argument("$setIsSubset", 17042, b)}


def _all_true(array: Any) -> bool:
    return all(truthy(v) for v in _set_argument("$allElementsTrue", 17040, array))


def _any_true(array: Any) -> bool:
    return any(truthy(v) for v in _set_argument("$anyElementTrue", 17041, array))


# -- objects ------------------------------------------------------------------------------------------------------


def _merge_objects(*values: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in map(as_document, values[0] if len(values) == 1 and type(values[0]) is list else values):
        if nullish(value):
            continue
        if type(value) is not dict:
            raise failure(40400, f"$mergeObjects requires object inputs, but an input is of type {described(value)}")
        merged.update(value)
    return merged


def _object_to_array(value: Any) -> Any:
    value = as_document(value)
    if nullish(value):
        return None
    if type(value) is not dict:
        raise failure(40390, f"$objectToArray requires a document input, found: {described(value)}")
    return [{"k": name, "v": inner} for name, inner in value.items()]


def _array_to_object(array: Any) -> Any:
    if nullish(array):
        return None
    if type(array) is not list:
        raise failure(40386, f"$arrayToObject requires an array input, found: {described(array)}")
    result: dict[str, Any] = {}
    pairs = bool(array) and type(array[0]) is list
    for item in map(as_document, array):
        name, value = _pair(item) if pairs else _entry(item)
        if "\0" in name:
            raise failure(4940400 if pairs else 4940401, "Key field cannot contain an embedded null byte")
        result[name] = value
    return result


def _pair(item: Any) -> tuple[str, Any]:
    if type(item) is not list:
        raise failure(40396, "$arrayToObject requires a consistent input format of arrays")
    if len(item) != 2:
        raise failure(40397, "$arrayToObject requires an array of size 2 arrays")
    if type(item[0]) is not str:
        raise failure(40395, "$arrayToObject requires an array of key-value pairs, where the key must be a string")
    return item[0], item[1]


def _entry(item: Any) -> tuple[str, Any]:
    if type(item) is not dict:
        raise failure(40398 if type(item) is not list else 40391, "$arrayToObject requires an array of objects")
    if len(item) != 2:
        raise failure(40392, "$arrayToObject requires an object keys of 'k' and 'v'")
    if set(item) != {"k", "v"}:
        raise failure(40393, "$arrayToObject requires an object with keys 'k' and 'v'")
    if type(item["k"]) is not str:
        raise failure(40394, "$arrayToObject requires an object with keys 'k' and 'v', where 'k' is a string")
    return item["k"], item["v"]


# -- accumulators as expressions, types, dates --------------------------------------------------------------------


def _spread(values: tuple[Any, ...]) -> Iterable[Any]:
    """One argument that is an array stands for its elements."""
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
    def call(value: Any) -> Any:
        if nullish(value):
            return None
        if type(value) is ObjectId:
            value = value.generation_time.replace(tzinfo=None)
        elif type(value) is Timestamp:
            value = date_of(value.time * 1000)
        if type(value) is DatetimeMS:
            raise UnsupportedOperation(name, "of a date outside the years 1 to 9999")
        if type(value) is not dt.datetime:
            raise failure(16006, f"can't convert from BSON type {described(value)} to Date")
        return take(value)

    return call


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
    "$toBool": Function(_to_bool, 1, 1),
    "$add": Function(_add, 0, _MANY),
    "$subtract": Function(_subtract, 2, 2),
    "$multiply": Function(_multiply, 0, _MANY),
    "$divide": Function(_divide, 2, 2),
    "$mod": Function(_mod, 2, 2),
    "$abs": Function(_abs, 1, 1),
    "$ceil": Function(_rounded("$ceil", math.ceil, decimal.ROUND_CEILING), 1, 1),
    "$floor": Function(_rounded("$floor", math.floor, decimal.ROUND_FLOOR), 1, 1),
    "$trunc": Function(_rounded("$trunc", math.trunc, decimal.ROUND_DOWN), 1, 1),
    "$concat": Function(_concat, 0, _MANY),
    "$toUpper": Function(_ascii(_UPPER, "$toUpper"), 1, 1),
    "$toLower": Function(_ascii(_LOWER, "$toLower"), 1, 1),
    "$strLenCP": Function(_length("$strLenCP", 34471, len), 1, 1),
    "$strLenBytes": Function(_length("$strLenBytes", 34473, lambda v: len(v.encode())), 1, 1),
    "$substrCP": Function(_substr, 3, 3),
    "$split": Function(_split, 2, 2),
    "$size": Function(_size, 1, 1),
    "$arrayElemAt": Function(_element, 2, 2),
    "$first": Function(_end("$first", 0), 1, 1),
    "$last": Function(_end("$last", -1), 1, 1),
    "$in": Function(_in, 2, 2),
    "$indexOfArray": Function(_index_of, 2, 4),
    "$slice": Function(_slice, 2, 3),
    "$concatArrays": Function(_concat_arrays, 0, _MANY),
    "$reverseArray": Function(_reverse, 1, 1),
    "$range": Function(_range, 2, 3),
    "$isArray": Function(lambda v: type(v) is list, 1, 1),
    "$isNumber": Function(is_number, 1, 1),
    "$type": Function(_name, 1, 1),
    "$setUnion": Function(_set_union, 0, _MANY),
    "$setIntersection": Function(_set_intersection, 0, _MANY),
    "$setDifference": Function(_set_difference, 2, 2),
    "$setEquals": Function(_set_equals, 2, _MANY),
    "$setIsSubset": Function(_set_is_subset, 2, 2),
    "$allElementsTrue": Function(_all_true, 1, 1),
    "$anyElementTrue": Function(_any_true, 1, 1),
    "$mergeObjects": Function(_merge_objects, 0, _MANY),
    "$objectToArray": Function(_object_to_array, 1, 1),
    "$arrayToObject": Function(_array_to_object, 1, 1),
    "$sum": Function(_sum, 0, _MANY),
    "$avg": Function(_avg, 0, _MANY),
    "$min": Function(_least, 0, _MANY),
    "$max": Function(_greatest, 0, _MANY),
    "$year": Function(_date_part("$year", lambda d: d.year), 1, 1),
    "$month": Function(_date_part("$month", lambda d: d.month), 1, 1),
    "$dayOfMonth": Function(_date_part("$dayOfMonth", lambda d: d.day), 1, 1),
    "$hour": Function(_date_part("$hour", lambda d: d.hour), 1, 1),
    "$minute": Function(_date_part("$minute", lambda d: d.minute), 1, 1),
    "$second": Function(_date_part("$second", lambda d: d.second), 1, 1),
    "$millisecond": Function(_date_part("$millisecond", lambda d: d.microsecond // 1000), 1, 1),
    "$dayOfWeek": Function(_date_part("$dayOfWeek", lambda d: d.isoweekday() % 7 + 1), 1, 1),
    "$dayOfYear": Function(_date_part("$dayOfYear", lambda d: d.timetuple().tm_yday), 1, 1),
}
