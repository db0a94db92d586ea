"""Expression operators that are functions of evaluated values: comparison and arithmetic; and the table of all.

Each entry of `FUNCTIONS` has its number of arguments. `MISSING` may be an argument, and a result where it is the
server's. Codes are the server's (`src/mongo/db/pipeline/expression.cpp`).
"""

from __future__ import annotations

import decimal
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import Decimal128, Int64, Timestamp

from shadow.errors import UnsupportedOperation
from shadow.model.order import CONTEXT, as_document, millis, order_key
from shadow.mongoql.expressions import containers, conversions, mathematics, texts
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.moments import date_of, is_date
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, remainder, truthy
from shadow.mongoql.values.summation import Summation, deviation

__all__ = ["FUNCTIONS", "Function"]


@dataclass(frozen=True, slots=True)
class Function:
    """`arity`: the server's code for another number of arguments than `least` to `most`."""

    call: Callable[..., Any]
    least: int
    most: int
    arity: int = 16020


_MANY: Final = 1 << 30
_NAN: Final = decimal.Decimal("NaN")


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
            # NaN for an infinity too, and where there are too many digits: the server has no special case for these.
            return Decimal128(
                exact.quantize(decimal.Decimal(1), rounding=mode, context=CONTEXT) if exact.is_finite() else _NAN
            )
        if type(value) is float:
            return math.copysign(float(plain(value)), value) if math.isfinite(value) else value
        return value

    return call


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


def _timestamp(name: str, code: int, take: Callable[[Timestamp], int]) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        if nullish(value):
            return None
        if type(value) is not Timestamp:
            raise failure(code, f"{name} requires a timestamp argument, found: {described(value)}")
        return Int64(take(value))

    return call


def _bson_size(value: Any) -> Any:
    value = as_document(value)
    if nullish(value):
        return None
    if type(value) is not dict:
        raise failure(31393, f"$bsonSize requires a document input, found: {described(value)}")
    return len(bson.encode(value))


FUNCTIONS: Final[dict[str, Function]] = {
    "$eq": Function(_comparison(operator.eq), 2, 2),
    "$ne": Function(_comparison(operator.ne), 2, 2),
    "$gt": Function(_comparison(operator.gt), 2, 2),
    "$gte": Function(_comparison(operator.ge), 2, 2),
    "$lt": Function(_comparison(operator.lt), 2, 2),
    "$lte": Function(_comparison(operator.le), 2, 2),
    "$cmp": Function(_cmp, 2, 2),
    "$not": Function(lambda v: not truthy(v), 1, 1),
    "$add": Function(_add, 0, _MANY),
    "$subtract": Function(_subtract, 2, 2),
    "$multiply": Function(_multiply, 0, _MANY),
    "$divide": Function(_divide, 2, 2),
    "$mod": Function(_mod, 2, 2),
    "$abs": Function(_abs, 1, 1),
    "$ceil": Function(_rounded("$ceil", math.ceil, decimal.ROUND_CEILING), 1, 1),
    "$floor": Function(_rounded("$floor", math.floor, decimal.ROUND_FLOOR), 1, 1),
    "$trunc": Function(mathematics.rounded("$trunc", decimal.ROUND_DOWN), 1, 2, 28667),
    "$round": Function(mathematics.rounded("$round", decimal.ROUND_HALF_EVEN), 1, 2, 28667),
    "$concat": Function(texts.concat, 0, _MANY),
    "$toUpper": Function(texts.upper, 1, 1),
    "$toLower": Function(texts.lower, 1, 1),
    "$strcasecmp": Function(texts.compared, 2, 2),
    "$strLenCP": Function(texts.length("$strLenCP", 34471, len), 1, 1),
    "$strLenBytes": Function(texts.length("$strLenBytes", 34473, lambda v: len(v.encode())), 1, 1),
    "$substrCP": Function(texts.substring, 3, 3),
    "$substrBytes": Function(texts.substring_of_bytes, 3, 3),
    "$substr": Function(texts.substring_of_bytes, 3, 3),
    "$indexOfBytes": Function(texts.index_of("$indexOfBytes", (40091, 40092), octets=True), 2, 4, 28667),
    "$indexOfCP": Function(texts.index_of("$indexOfCP", (40093, 40094), octets=False), 2, 4, 28667),
    "$split": Function(texts.split, 2, 2),
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
    "$stdDevPop": Function(lambda *values: deviation(_spread(values), sample=False), 0, _MANY),
    "$stdDevSamp": Function(lambda *values: deviation(_spread(values), sample=True), 0, _MANY),
    "$sqrt": Function(mathematics.square_root, 1, 1),
    "$exp": Function(mathematics.exponential, 1, 1),
    "$ln": Function(mathematics.logarithm("$ln", 28766, math.log), 1, 1),
    "$log10": Function(mathematics.logarithm("$log10", 28761, math.log10), 1, 1),
    "$log": Function(mathematics.logarithm_to, 2, 2),
    "$pow": Function(mathematics.power, 2, 2),
    "$tsSecond": Function(_timestamp("$tsSecond", 5687301, lambda v: v.time), 1, 1),
    "$tsIncrement": Function(_timestamp("$tsIncrement", 5687302, lambda v: v.inc), 1, 1),
    "$binarySize": Function(texts.binary_size, 1, 1),
    "$bsonSize": Function(_bson_size, 1, 1),
    **{name: Function(call, count, count) for name, (call, count) in mathematics.TRIGONOMETRY.items()},
    **{name: Function(conversions.short(target), 1, 1, 50723) for name, target in conversions.SHORT_FORMS.items()},
}
