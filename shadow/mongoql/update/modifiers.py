"""The update operators, as functions of the value at the end of their path.

Rules and codes are those of the server's update nodes (`src/mongo/db/update`).
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bson import Decimal128, Int64, ObjectId, Regex, Timestamp

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document, millis, order_key
from shadow.model.version import Document
from shadow.mongoql.match.filter_parser import PATHLESS, forbid_expressions, is_expression
from shadow.mongoql.match.filters import compile_filter
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, write_failure
from shadow.mongoql.values.predicates import is_nan, is_number
from shadow.mongoql.values.support import Family, require, supported

__all__ = ["OPERATORS", "Modifier", "copied"]


@dataclass(frozen=True, slots=True)
class Modifier:
    """The effect of one operator at one path.

    `create` gives the value if there is none (None: the operator creates nothing). `change` turns the present value
    into the next one (`MISSING`: removed). `lenient`: a path that cannot exist is no error. `source` is `$rename`'s.
    """

    name: str
    path: str
    create: Callable[[], Any] | None
    change: Callable[[Any], Any]
    lenient: bool = False
    on_insert_only: bool = False
    source: str | None = None


def copied(value: Any) -> Any:
    """A deep copy as plain dicts and lists; a DBRef becomes its BSON document."""
    if type(value) in _SCALARS:
        return value
    value = as_document(value)
    if type(value) is dict:
        return {k: v if type(v) in _SCALARS else copied(v) for k, v in value.items()}
    return [v if type(v) in _SCALARS else copied(v) for v in value] if type(value) is list else value


_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes, dt.datetime, ObjectId, Int64, Decimal128})
"""The commonest values that hold no others: most of a document, which need no call."""


def is_scalar(value: Any) -> bool:
    """Whether a value is of the commonest types, and holds no others."""
    return type(value) in _SCALARS


def copied_scalars(document: Document) -> Document | None:
    """`copied` of a document that has only values of the commonest types, and arrays of them; else None."""
    made: Document = {}
    for name, value in document.items():
        if type(value) in _SCALARS:
            made[name] = value
        elif type(value) is list and all(type(each) in _SCALARS for each in value):
            made[name] = list(value)
        else:
            return None
    return made


def _set(path: str, operand: Any, name: str = "$set", on_insert_only: bool = False) -> Modifier:
    return Modifier(name, path, lambda: copied(operand), lambda _: copied(operand), on_insert_only=on_insert_only)


def _unset(path: str, operand: Any) -> Modifier:
    return Modifier("$unset", path, None, lambda _: MISSING, lenient=True)


def _arithmetic(name: str, path: str, operand: Any) -> Modifier:
    if not is_number(operand):
        raise write_failure(
            14, f"Cannot apply {name} with non-numeric argument of type {described(operand)} at '{path}'"
        )
    combine = numbers.add if name == "$inc" else numbers.multiply

    def change(value: Any) -> Any:
        if not is_number(value):
            raise write_failure(
                14, f"Cannot apply {name} to a value of non-numeric type {described(value)} at '{path}'"
            )
        try:
            result = combine(value, operand)
        except OverflowError:
            raise write_failure(2, f"Failed to apply {name}: '{path}' would leave 64 bits") from None
        # To the server an equal result of the same type is no change: -0.0 stays, a decimal keeps its exponent.
        unchanged = type(result) is type(value) and order_key(result) == order_key(value) and not is_nan(value)
        return value if unchanged else result

    return Modifier(name, path, (lambda: operand) if name == "$inc" else (lambda: combine(0, operand)), change)


def _extreme(name: str, path: str, operand: Any) -> Modifier:
    key = order_key(operand)

    def change(value: Any) -> Any:
        present = order_key(value)
        return copied(operand) if (key < present if name == "$min" else key > present) else value

    return Modifier(name, path, lambda: copied(operand), change)


def _set_on_insert(path: str, operand: Any) -> Modifier:
    return _set(path, operand, "$setOnInsert", on_insert_only=True)


def _current_date(path: str, operand: Any, now: dt.datetime | None) -> Modifier:
    wanted = operand.get("$type") if type(operand) is dict and list(operand) == ["$type"] else None
    if type(operand) is not bool and wanted not in ("date", "timestamp"):
        raise write_failure(2, f"$currentDate at '{path}' takes true or {{$type: 'date' | 'timestamp'}}")
    if now is None:
        raise UnsupportedOperation("$currentDate", "the operation has no fixed time")
    moment = millis(now)
    value: Any = dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=moment)
    return _set(path, Timestamp(moment // 1000, 1) if wanted == "timestamp" else value, "$currentDate")


# -- arrays -------------------------------------------------------------------------------------------------------


def _array(name: str, path: str, value: Any, code: int = 2) -> list[Any]:
    if type(value) is not list:
        raise write_failure(code, f"Cannot apply {name} to '{path}': a non-array of type {described(value)}")
    return value


def _whole(operand: Any, name: str) -> int:
    number = operand.to_decimal() if type(operand) is Decimal128 else operand
    try:
        whole = is_number(operand) and number == int(number)
    except (ValueError, OverflowError):
        whole = False
    if not whole or int(number) not in numbers.INT64:
        raise write_failure(2, f"The value for {name} must be an integer value")
    return int(number)


def _push(path: str, operand: Any) -> Modifier:
    clauses = operand if type(operand) is dict and "$each" in operand else {"$each": [operand]}
    for clause in clauses:
        require(Family.MODIFIER, clause)
    added = clauses["$each"]
    if type(added) is not list:
        raise write_failure(2, f"The argument to $each in $push must be an array but it was of type {described(added)}")
    start = _whole(clauses["$position"], "$position") if "$position" in clauses else None
    count = _whole(clauses["$slice"], "$slice") if "$slice" in clauses else None
    arrange = _element_sort(clauses["$sort"]) if "$sort" in clauses else None

    def pushed(present: list[Any]) -> list[Any]:
        at = len(present) if start is None else start if start >= 0 else max(len(present) + start, 0)
        result = [*present[:at], *copied(added), *present[at:]]
        if arrange is not None:
            result.sort(key=arrange)
        if count is None:
            return result
        return result[:count] if count >= 0 else result[count:]

    return Modifier("$push", path, lambda: pushed([]), lambda value: pushed(_array("$push", path, value)))


def _element_sort(spec: Any) -> Callable[[Any], Any]:
    """`$sort` of `$push`: a direction for whole elements, or an object of paths and directions."""
    if is_number(spec):
        sign = _direction(spec)
        return functools.cmp_to_key(lambda a, b: sign * _compared(order_key(a), order_key(b)))
    if type(spec) is not dict or not spec:
        raise write_failure(2, "The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1}")
    for path in spec:
        if not all(path.split(".")):
            raise write_failure(2, "The $sort field is a dotted field but has an empty part")
    signs = [(path, _direction(direction)) for path, direction in spec.items()]

    def compare(a: Any, b: Any) -> int:
        for path, sign in signs:
            order = _compared(order_key(_inside(a, path)), order_key(_inside(b, path)))
            if order:
                return sign * order
        return 0

    return functools.cmp_to_key(compare)


def _direction(value: Any) -> int:
    if not is_number(value) or order_key(value) not in (order_key(1), order_key(-1)):
        raise write_failure(2, "The $sort element value must be either 1 or -1")
    return 1 if order_key(value) == order_key(1) else -1


def _compared(a: tuple[Any, ...], b: tuple[Any, ...]) -> int:
    return (a > b) - (a < b)


def _inside(element: Any, path: str) -> Any:
    """The value by which `$sort` of `$push` orders an element; arrays are entered by position only."""
    element = as_document(element)
    if type(element) is not dict:
        return None
    value = _extracted(element, path)
    return None if value is MISSING else value


def _extracted(container: Any, path: str) -> Any:
    if path in container:
        return container[path]
    left, dot, right = path.partition(".")
    inner = as_document(container.get(left))
    if type(inner) is list:
        inner = {str(i): v for i, v in enumerate(inner)}
    return _extracted(inner, right) if dot and type(inner) is dict else MISSING


def _add_to_set(path: str, operand: Any) -> Modifier:
    added = [operand]
    if type(operand) is dict and next(iter(operand), "") == "$each":
        added = operand["$each"]
        if type(added) is not list:
            raise write_failure(14, f"The argument to $each in $addToSet must be an array, not {described(added)}")
        if len(operand) > 1:
            raise write_failure(2, "Found unexpected fields after $each in $addToSet")

    def united(present: list[Any]) -> list[Any]:
        seen = {order_key(v) for v in present}
        result = list(present)
        for value in added:
            if order_key(value) not in seen:
                seen.add(order_key(value))
                result.append(copied(value))
        return result

    return Modifier("$addToSet", path, lambda: united([]), lambda value: united(_array("$addToSet", path, value)))


def _pull(path: str, operand: Any) -> Modifier:
    doomed = _pull_test(operand)

    def change(value: Any) -> Any:
        return [v for v in _array("$pull", path, value) if not doomed(v)]

    return Modifier("$pull", path, None, change)


def _pull_test(operand: Any) -> Callable[[Any], bool]:
    """`$pull` uses an object of operators or a pattern as a condition on elements, another object as a filter of
    elements that are objects, and anything else as the value to match."""
    first = next(iter(operand), "") if is_expression(operand) else ""
    if type(operand) is Regex or (first not in PATHLESS and first != "$not" and supported(Family.QUERY, first)):
        over = compile_filter({"": operand}).matches
        return lambda element: over({"": element})
    if type(operand) is dict:
        forbid_expressions(operand)
        inner = compile_filter(operand).matches

        def matches(element: Any) -> bool:
            element = as_document(element)
            return type(element) is dict and inner(element)

        return matches
    key = order_key(operand)
    return lambda element: order_key(element) == key


def _pull_all(path: str, operand: Any) -> Modifier:
    if type(operand) is not list:
        raise write_failure(2, f"$pullAll requires an array argument but was given {described(operand)}")
    doomed = {order_key(v) for v in operand}

    def change(value: Any) -> Any:
        return [v for v in _array("$pullAll", path, value) if order_key(v) not in doomed]

    return Modifier("$pullAll", path, None, change)


def _pop(path: str, operand: Any) -> Modifier:
    if not is_number(operand) or order_key(operand) not in (order_key(1), order_key(-1)):
        raise write_failure(9, "$pop expects 1 or -1")
    last = order_key(operand) == order_key(1)

    def change(value: Any) -> Any:
        array = _array("$pop", path, value, code=14)
        return array[:-1] if last else array[1:]

    return Modifier("$pop", path, None, change)


# -- bits ---------------------------------------------------------------------------------------------------------

_BITWISE: Final[dict[str, Callable[[int, int], int]]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def _bit(path: str, operand: Any) -> Modifier:
    if type(operand) is not dict or not operand:
        raise write_failure(2, f"The $bit modifier at '{path}' takes an object of and, or, xor")
    for name, value in operand.items():
        if name not in _BITWISE or type(value) not in (int, Int64):
            raise write_failure(2, f"The $bit modifier at '{path}' takes and, or, xor of whole numbers")

    def change(value: Any) -> Any:
        if type(value) not in (int, Int64):
            raise write_failure(2, f"Cannot apply $bit to a value of non-integral type {described(value)} at '{path}'")
        for name, other in operand.items():
            value = numbers.narrow(_BITWISE[name](int(value), int(other)), value, other)
        return value

    return Modifier("$bit", path, lambda: change(0), change)


# -- rename -------------------------------------------------------------------------------------------------------


def _rename(path: str, operand: Any) -> Modifier:
    """A modifier at the *destination*; `source` is removed when it is applied."""
    if type(operand) is not str:
        raise write_failure(2, f"The 'to' field for $rename must be a string: '{path}'")
    if "\0" in operand:
        raise write_failure(2, "The 'to' field for $rename cannot contain an embedded null byte")
    for part in (*path.split("."), *operand.split(".")):
        if part == "$" or (part.startswith("$[") and part.endswith("]")):
            raise write_failure(2, "The source and destination field for $rename may not be dynamic")
    if path == operand:
        raise write_failure(2, f"The source and target field for $rename must differ: '{path}'")
    if path.startswith(operand + ".") or operand.startswith(path + "."):
        raise write_failure(2, f"The source and target field for $rename must not be on the same path: '{path}'")
    return Modifier("$rename", operand, lambda: None, lambda value: value, source=path)


OPERATORS: Final[dict[str, Callable[[str, Any, dt.datetime | None], Modifier]]] = {
    "$set": lambda path, operand, now: _set(path, operand),
    "$unset": lambda path, operand, now: _unset(path, operand),
    "$inc": lambda path, operand, now: _arithmetic("$inc", path, operand),
    "$mul": lambda path, operand, now: _arithmetic("$mul", path, operand),
    "$min": lambda path, operand, now: _extreme("$min", path, operand),
    "$max": lambda path, operand, now: _extreme("$max", path, operand),
    "$rename": lambda path, operand, now: _rename(path, operand),
    "$setOnInsert": lambda path, operand, now: _set_on_insert(path, operand),
    "$push": lambda path, operand, now: _push(path, operand),
    "$addToSet": lambda path, operand, now: _add_to_set(path, operand),
    "$pull": lambda path, operand, now: _pull(path, operand),
    "$pullAll": lambda path, operand, now: _pull_all(path, operand),
    "$pop": lambda path, operand, now: _pop(path, operand),
    "$bit": lambda path, operand, now: _bit(path, operand),
    "$currentDate": _current_date,
}
"""The factory of each operator's modifier, called with (path, operand, now)."""
