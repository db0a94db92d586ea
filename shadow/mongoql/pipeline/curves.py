"""The window functions over a curve: `$derivative`, `$integral`, `$expMovingAvg`, and the filling of
gaps, `$locf` and `$linearFill`."""

from __future__ import annotations

import decimal
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from bson import Decimal128, Int64

from shadow.model.order import CONTEXT, as_document, millis, order_key
from shadow.model.version import Document
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.date_operators import LENGTHS, UNITS
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.expressions.functions import FUNCTIONS
from shadow.mongoql.expressions.moments import is_date
from shadow.mongoql.pipeline.sliding import SlidingSum, slid
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.stages import Variables

__all__ = ["FILLS", "RATES", "compile_fill_function", "compile_moving_average", "compile_rate"]

Rows: TypeAlias = list[Document]
Sort: TypeAlias = list[tuple[str, int]]
Function: TypeAlias = Callable[[Rows], list[Any]]
Windows: TypeAlias = Callable[[Rows], list[tuple[int, int]]]

RATES: Final = frozenset({"$derivative", "$integral"})
FILLS: Final = frozenset({"$locf", "$linearFill"})

_add, _subtract = FUNCTIONS["$add"].call, FUNCTIONS["$subtract"].call
_multiply, _divide = FUNCTIONS["$multiply"].call, FUNCTIONS["$divide"].call


# -- $derivative, $integral ---------------------------------------------------------------------------------------


def compile_rate(name: str, spec: Any, sort: Sort, given: Variables, windows: Windows | None) -> Function:
    """`$derivative` or `$integral` over `windows`; None: the specification has no window."""
    unit, source = _rate_arguments(name, as_document(spec), sort, has_window=windows is not None)
    value_of = evaluator(source, given)
    time_of = evaluator(f"${sort[0][0]}", given)
    found = windows or (lambda rows: [(0, len(rows))] * len(rows))
    make = _derivatives if name == "$derivative" else _integrals

    def function(rows: Rows) -> list[Any]:
        points = [(time_of(row), value_of(row)) for row in rows]
        return make(points, found(rows), unit)

    return function


def _rate_arguments(name: str, spec: Any, sort: Sort, *, has_window: bool) -> tuple[int | None, Any]:
    """The milliseconds of the unit, and the input."""
    if type(spec) is not dict:
        raise failure(9, f"{name} expects an object, but got a {described(spec)}")
    for each in spec:
        if each not in ("input", "unit"):
            raise failure(9, f"{name} got unexpected argument: {each}")
    if "unit" in spec and type(spec["unit"]) is not str:
        raise failure(9, f"'unit' must be a string, but got {described(spec['unit'])}")
    if "unit" in spec and spec["unit"] not in UNITS:
        raise failure(9, f"unknown time unit value: {spec['unit']}")
    if "unit" in spec and spec["unit"] not in LENGTHS:
        raise failure(5490710, "unit must be 'week' or smaller")
    if "input" not in spec:
        raise failure(9, f"{name} requires an 'input' expression")
    if not sort:
        raise failure(9, f"{name} requires a sortBy")
    if len(sort) > 1:
        raise failure(9, f"{name} requires a non-compound sortBy")
    if name == "$derivative" and not has_window:
        raise failure(9, "$derivative requires explicit window bounds")
    return LENGTHS[spec["unit"]] if "unit" in spec else None, spec["input"]


_Points: TypeAlias = list[tuple[Any, Any]]
"""Pairs of time and value."""


def _derivatives(points: _Points, windows: list[tuple[int, int]], unit: int | None) -> list[Any]:
    made: list[Any] = []
    for begin, end in windows:
        if end <= begin:
            made.append(None)
            continue
        (left, low), (right, high) = points[begin], points[end - 1]
        for time in (left, right):
            _check_time(time, unit, 5624900, 5624901, 5624902)
        for value in (low, high):
            if nullish(value):
                raise failure(5624903, "$derivative input must not be null or missing")
        rise, run = _subtract(high, low), _subtract(right, left)
        if order_key(run) == order_key(0):
            made.append(None)
        else:
            made.append(_divide(rise, run) if unit is None else _multiply(_divide(rise, run), unit))
    return made


def _check_time(time: Any, unit: int | None, no_date: int, date: int, no_number: int) -> None:
    if unit is not None and not is_date(time):
        raise failure(no_date, "with 'unit', the sortBy field is expected to be a Date")
    if unit is None and is_date(time):
        raise failure(date, "where the sortBy is a Date, a 'unit' is required")
    if unit is None and not is_number(time):
        raise failure(no_number, "with no 'unit', the sortBy field is expected to be numeric")


def _integrals(points: _Points, windows: list[tuple[int, int]], unit: int | None) -> list[Any]:
    sums = slid(points, windows, _Integral(unit))
    return [total if total is None or unit is None else _divide(total, unit) for total in sums]


class _Integral:
    """By the trapezoidal rule, over a window that slides."""

    def __init__(self, unit: int | None) -> None:
        self._unit = unit
        self._points: deque[tuple[Any, Any]] = deque()
        self._total = SlidingSum()
        self._undefined = 0

    def add(self, value: tuple[Any, Any]) -> None:
        if not is_number(value[1]):
            raise failure(5423900, "the input value of $integral must be numeric")
        _check_time(value[0], self._unit, 5423901, 5423902, 5423900)
        if self._points:
            self._total.add(self._area(self._points[-1], value))
        self._points.append(value)
        self._undefined += _is_nan(value[1])

    def remove(self, value: tuple[Any, Any]) -> None:
        self._points.popleft()
        self._undefined -= _is_nan(value[1])
        if self._points:
            self._total.remove(self._area(value, self._points[0]))

    def _area(self, one: tuple[Any, Any], other: tuple[Any, Any]) -> Any:
        return 0 if _is_nan(one[1]) or _is_nan(other[1]) else _area(one, other)

    def result(self) -> Any:
        if not self._points:
            return None
        return math.nan if self._undefined else self._total.result()


def _is_nan(value: Any) -> bool:
    return value.to_decimal().is_nan() if type(value) is Decimal128 else value != value


def _area(one: tuple[Any, Any], other: tuple[Any, Any]) -> Any:
    run = _subtract(other[0], one[0])
    try:
        height = numbers.add(one[1], other[1])
    except OverflowError:
        height = float(one[1]) + float(other[1])
    return _divide(_multiply(run, height), 2.0)


# -- $expMovingAvg ------------------------------------------------------------------------------------------------


def compile_moving_average(spec: Mapping[str, Any], sort: Sort, given: Variables) -> Function:
    given_ = as_document(spec["$expMovingAvg"])
    if len(spec) > 1 or type(given_) is not dict:
        raise failure(9, "$expMovingAvg must have exactly one argument that is an object")
    if not sort:
        raise failure(9, "$expMovingAvg requires an explicit 'sortBy'")
    if "input" not in given_ or len(given_) != 2 or not given_.keys() & {"N", "alpha"}:
        raise failure(9, "$expMovingAvg needs exactly two fields: 'input', and either 'N' or 'alpha'")
    alpha = _alpha(given_)
    value_of = evaluator(given_["input"], given)

    def function(rows: Rows) -> list[Any]:
        made: list[Any] = []
        current: decimal.Decimal | None = None
        exact = False
        for row in rows:
            value = value_of(row)
            if is_number(value):
                exact = exact or type(value) is Decimal128
                number = numbers.decimal_of(value)
                current = number if current is None else _mixed(number, current, alpha)
            made.append(None if current is None else Decimal128(current) if exact else float(current))
        return made

    return function


def _mixed(number: decimal.Decimal, current: decimal.Decimal, alpha: decimal.Decimal) -> decimal.Decimal:
    rest = CONTEXT.subtract(decimal.Decimal(1), alpha)
    return CONTEXT.add(CONTEXT.multiply(number, alpha), CONTEXT.multiply(current, rest))


def _alpha(spec: Mapping[str, Any]) -> decimal.Decimal:
    if "N" in spec:
        count = spec["N"]
        whole = truncated(count) if is_number(count) else None
        if whole is None or order_key(whole) != order_key(count):
            raise failure(9, "'N' field must be an integer. To use a non-integer, use the 'alpha' argument instead")
        if whole <= 0:
            raise failure(9, "'N' must be greater than zero")
        return CONTEXT.divide(decimal.Decimal(2), decimal.Decimal(whole + 1))
    alpha = spec["alpha"]
    if not is_number(alpha):
        raise failure(9, "'alpha' must be a number")
    if not order_key(0) < order_key(alpha) < order_key(1):
        raise failure(9, "'alpha' must be between 0 and 1 (exclusive)")
    return numbers.decimal_of(alpha)


# -- $locf, $linearFill -------------------------------------------------------------------------------------------


def compile_fill_function(name: str, spec: Mapping[str, Any], sort: Sort, given: Variables) -> Function:
    if "window" in spec:
        raise failure(9, f"'window' field is not allowed in {name}")
    value_of = evaluator(spec[name], given)
    if name == "$locf":
        return lambda rows: _carried([value_of(row) for row in rows])
    if len(sort) != 1:
        raise failure(605001, "$linearFill must be specified with a sortBy of exactly one element")
    place_of = evaluator(f"${sort[0][0]}", given)
    return lambda rows: _interpolated([(place_of(row), value_of(row)) for row in rows])


def _carried(values: list[Any]) -> list[Any]:
    made: list[Any] = []
    last: Any = None
    for value in values:
        last = last if nullish(value) else value
        made.append(last)
    return made


def _interpolated(points: _Points) -> list[Any]:
    made: list[Any] = [None if nullish(value) else value for _, value in points]
    known: int | None = None
    for at, (place, value) in enumerate(points):
        if not is_number(place) and not is_date(place):
            raise failure(14, f"Value of the sortBy field must be numeric or a date, but found {described(place)}")
        if at and order_key(place) == order_key(points[at - 1][0]):
            raise failure(6050106, "There can be no repeated values in the sort field")
        if nullish(value):
            continue
        if not is_number(value):
            raise failure(14, f"Value to be filled must be numeric or nullish, but found {described(value)}")
        for between in range(at if known is None else known + 1, at):
            made[between] = _between(points[known or 0], points[at], place=points[between][0])
        known = at
    return made


def _between(left: tuple[Any, Any], right: tuple[Any, Any], *, place: Any) -> Any:
    one, other, here = (Int64(millis(each)) if is_date(each) else each for each in (left[0], right[0], place))
    slope = _divide(_subtract(right[1], left[1]), _subtract(other, one))
    return _add(left[1], _multiply(_subtract(here, one), slope))
