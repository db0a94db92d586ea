"""`$densify` and `$fill`: the stages that add the documents, and the values, that are missing in a row of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document, millis, order_key
from shadow.model.version import Document
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.date_operators import UNITS, shifted
from shadow.mongoql.expressions.moments import date_of, is_date
from shadow.mongoql.expressions.zones import UTC
from shadow.mongoql.pipeline.joins import plain_value, with_value
from shadow.mongoql.pipeline.projections import compile_adding
from shadow.mongoql.pipeline.windows import compile_windows
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.stages import Lookup, Stage, Variables

__all__ = ["compile_densify", "compile_fill"]

_MOST: Final = 500_000
"""Documents that one `$densify` adds at most, as the server has it."""

_DENSIFY: Final = {"field": "string", "range": "object", "partitionByFields": "array"}
_FILL: Final = {"output": "object", "sortBy": "object", "partitionByFields": "array"}


def _fields(stage: str, spec: Any, types: Mapping[str, str], needed: Sequence[str], optional: Sequence[str]) -> None:
    """Checks the fields of a specification and their types. Raises OperationFailure with the server's codes."""
    for name, value in spec.items():
        if name not in (*needed, *optional):
            raise failure(40415, f"BSON field '{stage}.{name}' is an unknown field.")
        if name in types:
            _typed(f"{stage}.{name}", value, types[name])
    for name in needed:
        if name not in spec:
            raise failure(40414, f"BSON field '{stage}.{name}' is missing but a required field")


def _typed(name: str, value: Any, kind: str) -> None:
    if type(as_document(value)) is not {"string": str, "object": dict, "array": list}[kind]:
        raise failure(14, f"BSON field '{name}' is the wrong type '{described(value)}', expected type '{kind}'")


def _partition_fields(stage: str, spec: Mapping[str, Any]) -> list[str]:
    names: list[str] = spec.get("partitionByFields", [])
    for at, name in enumerate(names):
        _typed(f"{stage}.partitionByFields.{at}", name, "string")
    return names


# -- $densify -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Steps:
    """A range: a step of numbers, or of a unit of time. `bounds`: "full", "partition", or where it begins and ends."""

    step: Any
    unit: str | None
    bounds: Any

    def after(self, value: Any) -> Any:
        """The value one step later."""
        if self.unit is None:
            return numbers.add(value, self.step)
        return date_of(shifted(millis(value), self.unit, self.step, UTC))


def compile_densify(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(9, f"The $densify stage specification must be an object, found {described(spec)}")
    _fields("$densify", spec, _DENSIFY, ("field", "range"), ("partitionByFields",))
    by = _partition_fields("$densify", spec)
    steps = _steps(as_document(spec["range"]), partitioned=bool(by))
    path, parts = checked_path(spec["field"]), [checked_path(name) for name in by]

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        passed, groups = _grouped(documents, path, parts, dated=steps.unit is not None)
        if documents and any(part[: len(path)] == path for part in parts):
            raise failure(5733306, "DocGenerator cannot include field that is being densified")
        return [*passed, *_densified(groups, path, parts, steps)]

    return stage


def _steps(spec: Mapping[str, Any], *, partitioned: bool) -> _Steps:
    _fields("$densify.range", spec, {"unit": "string"}, ("step", "bounds"), ("unit",))
    step, bounds, unit = spec["step"], spec["bounds"], spec.get("unit")
    if not is_number(step):
        raise failure(14, f"BSON field '$densify.range.step' is the wrong type '{described(step)}'")
    if order_key(step) <= order_key(0):
        raise failure(5733401, "The step parameter in a range statement must be a strictly positive numeric value")
    if unit is not None and unit not in UNITS:
        raise failure(9, f"unknown time unit value: {unit}")
    whole = truncated(step)
    if unit is not None and (whole is None or order_key(whole) != order_key(step)):
        raise failure(6586400, "The step parameter in a range statement must be a whole number of a unit of time")
    _check_bounds(bounds, step, unit, partitioned=partitioned)
    return _Steps(whole if unit is not None else step, unit, bounds)


def _check_bounds(bounds: Any, step: Any, unit: str | None, *, partitioned: bool) -> None:
    if type(bounds) is str:
        if bounds not in ("full", "partition"):
            raise failure(5946802, "Bounds string must either be 'full' or 'partition'")
        if bounds == "partition" and not partitioned:
            raise failure(5733408, "the bounds 'partition' need a non-empty array of partitionByFields")
        return
    if type(bounds) is not list:
        raise failure(5733404, "The bounds must be 'full', 'partition', or an array of two numbers or two dates")
    if len(bounds) != 2:
        raise failure(5733403, "A bounding array in a range statement must have exactly two elements")
    dates, counts = all(map(is_date, bounds)), all(map(is_number, bounds))
    if not dates and not counts:
        raise failure(5733406, "A bounding array must contain either both dates or both numeric types")
    if order_key(bounds[0]) > order_key(bounds[1]):
        raise failure(5733402, "A bounding array must be ascending")
    if counts and unit is not None:
        raise failure(5733409, "Numeric bounds may not have unit parameter")
    if dates and unit is None:
        raise failure(5733410, "A bounding array of dates must specify a unit")
    if counts and len({type(each) for each in (*bounds, step)}) > 1:
        raise failure(5876900, "Upper bound, lower bound, and step must all have the same type")


_Group = tuple[Document, list[tuple[Any, Document]]]
"""A partition: its fields, and its documents with their values."""


def _grouped(
    documents: list[Document], path: list[str], parts: list[list[str]], *, dated: bool
) -> tuple[list[Document], list[_Group]]:
    """The documents without a value, which pass, and the others by partition, each in the order of its values."""
    passed: list[Document] = []
    groups: dict[Any, _Group] = {}
    ordered = sorted(documents, key=lambda each: order_key(_or_null(plain_value(each, path))))
    for document in ordered:
        value = plain_value(document, path)
        if nullish(value):
            passed.append(document)
            continue
        if not is_number(value) and not is_date(value):
            raise failure(5733201, "Densify field type must be numeric or a date")
        if is_date(value) is not dated:
            raise failure(6053600, "a value and the unit of the step do not go together in $densify")
        fields: Document = {}
        for part in parts:
            fields = with_value(fields, part, plain_value(document, part))
        groups.setdefault(order_key(fields), (fields, []))[1].append((value, document))
    return passed, [groups[key] for key in sorted(groups)]


def _or_null(value: Any) -> Any:
    return None if value is MISSING else value


def _densified(groups: list[_Group], path: list[str], parts: list[list[str]], steps: _Steps) -> list[Document]:
    made: list[Document] = []
    if not groups and type(steps.bounds) is list and not parts:
        groups = [({}, [])]
    if not groups:
        return made
    low, high = _range_of(groups, steps)
    for fields, held in groups:
        if steps.bounds == "partition":
            low, high = held[0][0], held[-1][0]
        made += _filled(fields, held, path, _Walk(low, high, steps))
    added = len(made) - sum(len(held) for _, held in groups)
    if added > _MOST:
        raise failure(5897900, f"Generated {added} documents in $densify, which is over the limit of {_MOST}")
    return made


@dataclass(frozen=True, slots=True)
class _Walk:
    low: Any
    high: Any
    steps: _Steps

    def reaches(self, value: Any) -> bool:
        """Up to what there is, or before the end of given bounds."""
        if type(self.steps.bounds) is str:
            return order_key(value) <= order_key(self.high)
        return order_key(value) < order_key(self.high)


def _filled(fields: Document, held: list[tuple[Any, Document]], path: list[str], walk: _Walk) -> list[Document]:
    """The documents of a partition with those that are added, which have its `fields`."""
    made: list[Document] = []
    place, value = 0, walk.low
    if walk.steps.unit is None and (not held or order_key(held[0][0]) > order_key(value)):
        value = numbers.add(value, numbers.multiply(walk.steps.step, 0))  # in the type that the later ones have
    while walk.reaches(value) and len(made) <= _MOST + len(held):
        found = False
        while place < len(held) and order_key(held[place][0]) <= order_key(value):
            found = order_key(held[place][0]) == order_key(value)
            value = held[place][0] if found else value
            made.append(held[place][1])
            place += 1
        if not found:
            made.append(with_value(fields, path, value))
        before, value = order_key(value), walk.steps.after(value)
        if order_key(value) <= before:
            raise UnsupportedOperation("$densify", "a step that is lost in the rounding of its values")
    return [*made, *(document for _, document in held[place:])]


def _range_of(groups: list[_Group], steps: _Steps) -> tuple[Any, Any]:
    if type(steps.bounds) is list:
        return steps.bounds[0], steps.bounds[1]
    values = [value for _, held in groups for value, _ in held]
    return min(values, key=order_key), max(values, key=order_key)


# -- $fill --------------------------------------------------------------------------------------------------------


def compile_fill(spec: Any, given: Variables) -> Stage:
    """As the server has it: `$setWindowFields` for the methods, then `$addFields` for the values."""
    if type(spec) is not dict:
        raise failure(9, f"The $fill stage specification must be an object, found {described(spec)}")
    _fields("$fill", spec, _FILL, ("output",), ("sortBy", "partitionBy", "partitionByFields"))
    by = spec.get("partitionBy")
    if "partitionBy" in spec:
        _typed("$fill.partitionBy", by, "object")
    names = _partition_fields("$fill", spec)
    if by is not None and names:
        raise failure(6050204, "Maximum one of 'partitionBy' and 'partitionByFields can be specified in '$fill'")
    values, methods = _outputs(as_document(spec["output"]))
    stages: list[Stage] = []
    if methods:
        whole: Document = {"output": methods, **({"sortBy": spec["sortBy"]} if "sortBy" in spec else {})}
        whole["partitionBy"] = {name: f"${name}" for name in names} if names else by
        stages.append(compile_windows({name: value for name, value in whole.items() if value is not None}, given))
    if values:
        add = compile_adding(values, "$addFields", given)
        stages.append(lambda documents, lookup: [add(document) for document in documents])
    return _in_turn(stages)


def _outputs(output: Mapping[str, Any]) -> tuple[Document, Document]:
    """The fields with a value in place of null, and those with a method, each as its stage has it."""
    if not output:
        raise failure(6050203, "The output field in '$fill' must contain an object with at least one element")
    values: Document = {}
    methods: Document = {}
    for path, each in output.items():
        each = as_document(each)
        if type(each) is not dict:
            raise failure(6050200, "Each fill output specification must be an object with exactly one field")
        _fields("$fill", each, {"method": "string"}, (), ("value", "method"))
        if len(each) > 1:
            raise failure(6050201, "Each fill output specification must have exactly one of 'method' or 'value'")
        if "value" in each:
            values[path] = {"$ifNull": [f"${path}", each["value"]]}
        elif "method" in each:
            methods[path] = {_method(each["method"]): f"${path}"}
    return values, methods


def _method(name: str) -> str:
    if name not in ("locf", "linear"):
        raise failure(6050202, "Method must be either locf or linear")
    return "$locf" if name == "locf" else "$linearFill"


def _in_turn(stages: Sequence[Callable[[list[Document], Lookup], list[Document]]]) -> Stage:
    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        for each in stages:
            documents = each(documents, lookup)
        return documents

    return stage
