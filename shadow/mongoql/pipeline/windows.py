"""`$setWindowFields`: for each document, what a function makes of the documents around it in an order."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from shadow.model.order import MISSING, as_document, millis, order_key, sort_key
from shadow.model.values import snapshot
from shadow.model.version import Document
from shadow.mongoql.expressions.date_operators import UNITS, shifted
from shadow.mongoql.expressions.expressions import evaluator, is_constant
from shadow.mongoql.expressions.moments import is_date
from shadow.mongoql.expressions.zones import UTC
from shadow.mongoql.pipeline.accumulators import Accumulator, WindowAverage
from shadow.mongoql.pipeline.curves import FILLS, RATES, compile_fill_function, compile_moving_average, compile_rate
from shadow.mongoql.pipeline.groups import compile_accumulator
from shadow.mongoql.pipeline.joins import with_value
from shadow.mongoql.pipeline.picks import PICKS, sort_pairs
from shadow.mongoql.pipeline.sliding import SLIDING, Covariance, slid
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.stages import Lookup, Stage, Variables
from shadow.mongoql.values.support import LITERALS, Family, require

__all__ = ["compile_windows"]

Rows: TypeAlias = list[Document]
Function: TypeAlias = Callable[[Rows], list[Any]]
"""From the documents of a partition, in order, to a value for each of them."""
Bounds: TypeAlias = Callable[[Rows], list[tuple[int, int]]]
"""From the documents of a partition to the window of each: where it begins, and where it has ended."""
Sort: TypeAlias = list[tuple[str, int]]

_RANKS: Final = frozenset({"$rank", "$denseRank", "$documentNumber"})
_ENDS: Final = {"$first": False, "$last": True}
_COVARIANCES: Final = {"$covariancePop": False, "$covarianceSamp": True}


def compile_windows(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(9, f"the $setWindowFields stage specification must be an object, found {described(spec)}")
    for name, value in spec.items():
        if name not in ("partitionBy", "sortBy", "output"):
            raise failure(40415, f"BSON field '$setWindowFields.{name}' is an unknown field.")
        if name != "partitionBy" and type(as_document(value)) is not dict:
            raise failure(14, f"BSON field '$setWindowFields.{name}' is the wrong type, expected type 'object'")
    if "output" not in spec:
        raise failure(40414, "BSON field '$setWindowFields.output' is missing but a required field")
    sort = sort_pairs(spec.get("sortBy", {}))
    part_of = evaluator(spec.get("partitionBy"), given)
    outputs = [(checked_path(path), _output(path, each, sort, given)) for path, each in spec["output"].items()]
    _check_paths(list(spec["output"]))
    # The server sorts by the partition first: then `_id` is not sorted by alone.
    key = sort_key(sort, alone=not _reads_fields(spec.get("partitionBy"))) if sort else None

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        made: Rows = []
        for rows in _partitions(documents, part_of):
            ordered = sorted(rows, key=key) if key is not None else rows
            results = [(path, function(ordered)) for path, function in outputs]
            for at, row in enumerate(ordered):
                for path, values in results:
                    row = with_value(row, path, values[at])
                made.append(row)
        return made

    return stage


def _reads_fields(expression: Any) -> bool:
    """Whether an expression reads anything of a document, so that the server cannot make a constant of it."""
    if isinstance(expression, str):
        return expression.startswith("$")
    if isinstance(expression, Mapping):
        return LITERALS.isdisjoint(expression) and any(map(_reads_fields, expression.values()))
    return isinstance(expression, list) and any(map(_reads_fields, expression))


def _check_paths(paths: Sequence[str]) -> None:
    for one in paths:
        if any(other.startswith(f"{one}.") for other in paths):
            raise failure(6307900, "$setWindowFields 'output' specification contains two conflicting paths")


def _partitions(documents: Rows, part_of: Callable[[Document], Any]) -> list[Rows]:
    parts: dict[Any, Rows] = {}
    for document in documents:
        value = part_of(document)
        if type(value) is list:
            raise failure(14, "An expression used to partition cannot evaluate to value of type array")
        parts.setdefault(order_key(None if value is MISSING else value), []).append(document)
    return [parts[key] for key in sorted(parts)]


# -- functions ----------------------------------------------------------------------------------------------------


def _output(path: str, spec: Any, sort: Sort, given: Variables) -> Function:
    spec = as_document(spec)
    if type(spec) is not dict:
        raise failure(9, f"The field '{path}' must be an object")
    names = [name for name in spec if name.startswith("$")]
    if len(names) > 1:
        raise failure(9, "Cannot specify two functions in window function spec")
    if not names:
        raise failure(9, "Expected a $-prefixed window function")
    for name in spec:
        if name not in (*names, "window"):
            raise failure(9, f"Window function found an unknown argument: {name}")
    (name,) = names
    require(Family.WINDOW, name)
    if name in _RANKS:
        return _rank(name, spec, sort)
    if name == "$shift":
        return _shift(spec["$shift"], sort, given)
    if name == "$expMovingAvg":
        return compile_moving_average(spec, sort, given)
    if name in FILLS:
        return compile_fill_function(name, spec, sort, given)
    if name in RATES:
        windows = _bounds(spec["window"], sort, True)[0] if "window" in spec else None
        return compile_rate(name, spec[name], sort, given, windows)
    if name in _COVARIANCES:
        pair, windows = evaluator(spec[name], given), _bounds(spec.get("window", {}), sort, "window" in spec)[0]
        sample = _COVARIANCES[name]
        return lambda rows: slid([pair(row) for row in rows], windows(rows), Covariance(sample=sample))
    if type(spec[name]) is list and name not in PICKS:
        make, evaluate = compile_accumulator("value", {name: None}, given)[0], evaluator(spec[name], given)
    else:
        make, evaluate = compile_accumulator("value", {name: spec[name]}, given)
    bounds, slides = _bounds(spec.get("window", {}), sort, "window" in spec)
    if name in _ENDS:
        return lambda rows: _at_end([evaluate(row) for row in rows], bounds(rows), _ENDS[name])
    if slides and name in SLIDING:
        return lambda rows: slid([evaluate(row) for row in rows], bounds(rows), SLIDING[name]())
    whole: Callable[[], Accumulator] = WindowAverage if name == "$avg" else lambda: make(None)
    return lambda rows: _accumulated(rows, bounds(rows), whole, evaluate)


def _at_end(values: list[Any], windows: list[tuple[int, int]], last: bool) -> list[Any]:
    """The first or last values of windows; null for an empty one, `MISSING` where the value is missing."""
    return [None if end <= begin else values[end - 1 if last else begin] for begin, end in windows]


def _accumulated(
    rows: Rows,
    windows: list[tuple[int, int]],
    make: Callable[[], Accumulator],
    evaluate: Callable[[Document], Any],
) -> list[Any]:
    values = [evaluate(row) for row in rows]
    made: list[Any] = []
    current, begun, ended = make(), 0, 0
    for begin, end in windows:
        if begin != begun or end < ended:
            current, begun, ended = make(), begin, begin
        for value in values[ended:end]:
            current.add(value)
        ended = max(ended, end)
        result = current.result()
        made.append(snapshot(result) if type(result) in (list, dict) else result)
    return made


def _rank(name: str, spec: Mapping[str, Any], sort: Sort) -> Function:
    if "window" in spec:
        raise failure(5371601, "Rank style window functions take no other arguments")
    if as_document(spec[name]) != {}:
        raise failure(5371603, f"{name} must be specified with '{{}}' as the value")
    if len(sort) != 1:
        raise failure(5371602, f"{name} needs a sortBy of exactly one field")
    path = evaluator(f"${sort[0][0]}")

    def function(rows: Rows) -> list[Any]:
        if name == "$documentNumber":
            return list(range(1, len(rows) + 1))
        made: list[int] = []
        last: Any = None
        for at, row in enumerate(rows):
            key = order_key(path(row))
            if at and key == last:
                made.append(made[-1])
            else:
                made.append(at + 1 if name == "$rank" or not made else made[-1] + 1)
            last = key
        return made

    return function


def _shift(spec: Any, sort: Sort, given: Variables) -> Function:
    if not sort:
        raise failure(9, "'$shift' requires a sortBy")
    spec = as_document(spec)
    if type(spec) is not dict:
        raise failure(9, "Argument to $shift must be an object")
    for name in spec:
        if name not in ("output", "by", "default"):
            raise failure(9, f"Unknown argument in $shift: {name}")
    by = _whole(spec.get("by"))
    if by is None:
        raise failure(9, "$shift requires 'by' as an integer value.")
    if "output" not in spec:
        raise failure(9, "$shift requires an 'output' expression.")
    if not is_constant(spec.get("default")):
        raise failure(9, "'$shift:default' expression must yield a constant value.")
    default = evaluator(spec.get("default"))({})
    output = evaluator(spec["output"], given)

    def function(rows: Rows) -> list[Any]:
        return [output(rows[at + by]) if 0 <= at + by < len(rows) else snapshot(default) for at in range(len(rows))]

    return function


# -- windows ------------------------------------------------------------------------------------------------------


_CURRENT: Final = object()


@dataclass(frozen=True, slots=True)
class _Ends:
    """`low` and `high`: distances from the document, None without a bound, `_CURRENT` for the document itself."""

    low: Any
    high: Any


def _bounds(spec: Any, sort: Sort, given: bool) -> tuple[Bounds, bool]:
    """The windows, and whether documents leave them again."""
    spec = as_document(spec)
    if type(spec) is not dict:
        raise failure(9, "'window' field must be an object")
    for name in spec:
        if name not in ("documents", "range", "unit"):
            raise failure(9, f"'window' field that is not recognized: {name}")
    if not spec:
        return lambda rows: [(0, len(rows))] * len(rows), False
    if "documents" in spec and ("range" in spec or "unit" in spec):
        raise failure(9, "Window bounds can specify either 'documents' or 'range', not both.")
    if "documents" in spec:
        return _by_documents(_ends(spec["documents"], _whole), sort)
    if "range" not in spec:
        raise failure(9, "Window bounds can only specify 'unit' with range-based bounds.")
    unit = spec.get("unit")
    if unit is not None and unit not in UNITS:
        raise failure(9, "unknown time unit value in a window")
    return _by_range(_ends(spec["range"], _number if unit is None else _whole), unit, sort)


def _ends(spec: Any, take: Callable[[Any], Any]) -> _Ends:
    if type(spec) is not list or len(spec) != 2:
        raise failure(9, "Window bounds must be a 2-element array")
    found: list[Any] = []
    for value in spec:
        if value not in ("unbounded", "current") and not is_number(value):
            raise failure(9, "Window bounds must be 'unbounded', 'current', or a number.")
        end = None if value == "unbounded" else _CURRENT if value == "current" else take(value)
        if end is None and value != "unbounded":
            raise failure(9, "Numeric bounds of a window must be integers here")
        found.append(end)
    low, high = found
    one, other = (0 if each is _CURRENT else each for each in (low, high))
    if one is not None and other is not None and order_key(one) > order_key(other):
        raise failure(5339900, "Lower bound must not exceed upper bound")
    return _Ends(low, high)


def _whole(value: Any) -> int | None:
    whole = truncated(value) if is_number(value) else None
    return whole if whole is not None and numbers.decimal_of(value) == whole and whole in numbers.INT32 else None


def _number(value: Any) -> Any:
    return value


def _by_documents(ends: _Ends, sort: Sort) -> tuple[Bounds, bool]:
    if not sort and ends != _Ends(None, None):
        raise failure(5339901, "Document-based bounds require a sortBy")

    before, after = (0 if each is _CURRENT else each for each in (ends.low, ends.high))

    def bounds(rows: Rows) -> list[tuple[int, int]]:
        count = len(rows)
        windows = []
        for at in range(count):
            low = 0 if before is None else min(max(at + before, 0), count)
            high = count if after is None else min(max(at + after + 1, 0), count)
            windows.append((low, max(low, high)))
        return windows

    return bounds, ends.low is not None


def _by_range(ends: _Ends, unit: str | None, sort: Sort) -> tuple[Bounds, bool]:
    if len(sort) != 1:
        raise failure(5339902, "Range-based bounds require sortBy a single field")
    if sort[0][1] < 0:
        raise failure(5429404, "Range-based bounds require an ascending sortBy")
    value_of = evaluator(f"${sort[0][0]}")

    def position(value: Any) -> Any:
        if unit is None:
            if is_date(value):
                raise failure(5429413, "Invalid range: a unit must be provided for dates")
            if not is_number(value):
                raise failure(5429414, "Invalid range: Expected the sortBy field to be a number")
            return order_key(value)
        if not is_date(value):
            raise failure(5429513, "Invalid range: Expected the sortBy field to be a Date")
        return order_key(value)

    def moved(value: Any, by: Any) -> Any:
        if unit is None:
            return order_key(numbers.add(value, by))
        return (45, shifted(millis(value), unit, by, UTC))

    def bounds(rows: Rows) -> list[tuple[int, int]]:
        values = [value_of(row) for row in rows]
        keys = [position(value) for value in values]
        windows = []
        for at, value in enumerate(values):
            low, high = 0, len(keys)
            if ends.low is not None:
                low = at if ends.low is _CURRENT else bisect.bisect_left(keys, moved(value, ends.low))
            if ends.high is not None:
                high = at + 1 if ends.high is _CURRENT else bisect.bisect_right(keys, moved(value, ends.high))
            windows.append((low, max(low, high)))
        return windows

    return bounds, ends.low is not None
