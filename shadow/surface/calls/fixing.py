"""Expressions of a call in which the clock (`$$NOW`) and the variables of the option `let` have their values.

They are put in once, above both stores: a replicated write has the same time, and a shadow read sees the same clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.errors import PyMongoError

from shadow.model.order import MISSING, as_document
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import checked_name, evaluator, is_constant
from shadow.mongoql.values.fieldpaths import at_path
from shadow.mongoql.values.support import LITERALS

__all__ = ["Values", "bound", "clock", "fixed_expression", "fixed_filter", "fixed_pipeline", "reads_clock"]

Values = Mapping[str, Any]
"""Variables by name, without dollars."""

_CLOCK: Final = "$$NOW"
_LOGICAL: Final = frozenset({"$and", "$or", "$nor"})
_BINDING: Final = frozenset({"$let", "$map", "$filter", "$reduce"})


def clock() -> Values:
    """The variables of every call: the time, in the milliseconds that BSON has."""
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    return {"NOW": now.replace(microsecond=now.microsecond // 1000 * 1000)}


def reads_clock(value: Any) -> bool:
    """Whether a filter, an update, a projection or a pipeline may read the clock: true for some that only name it."""
    if isinstance(value, dict):
        return any(map(reads_clock, value.values()))
    if isinstance(value, list):
        return any(map(reads_clock, value))
    return isinstance(value, str) and value.startswith(_CLOCK)


def bound(let: Any) -> Values | None:
    """The values of the option `let`, as canonical values; None if that only the server can decide on."""
    if not isinstance(let, dict):
        return None
    made: dict[str, Any] = {}
    for name, expr in let.items():
        expr = fixed_expression(expr, clock())
        try:
            checked_name(name, 9)
            value = evaluator(expr)({}) if is_constant(expr) else MISSING
        except PyMongoError:
            return None
        if value is MISSING:
            return None
        made[name] = value
    return made


def fixed_filter(filter: Document, values: Values) -> Document:
    """The filter itself if nothing in it reads a variable."""
    if not any(name == "$expr" or name in _LOGICAL for name in filter):
        return filter
    made = {name: _condition(name, value, values) for name, value in filter.items()}
    return made if made != filter else filter


def _condition(name: str, value: Any, values: Values) -> Any:
    if name == "$expr":
        return fixed_expression(value, values)
    if name in _LOGICAL and isinstance(value, list):
        return [fixed_filter(each, values) if isinstance(each, dict) else each for each in value]
    return value


def fixed_pipeline(pipeline: Sequence[Any], values: Values) -> list[Any]:
    return [_stage(stage, values) if isinstance(stage, dict) else stage for stage in pipeline]


def _stage(stage: Document, values: Values) -> Document:
    return {name: _spec(name, spec, values) for name, spec in stage.items()}


def _spec(name: str, spec: Any, values: Values) -> Any:
    if name == "$match":
        return fixed_filter(spec, values) if isinstance(spec, dict) else spec
    if not isinstance(spec, dict):
        return fixed_expression(spec, values)
    if name == "$facet":
        return {
            each: fixed_pipeline(inner, values) if isinstance(inner, list) else inner for each, inner in spec.items()
        }
    inside = _without(values, spec["let"]) if isinstance(spec.get("let"), dict) else values
    made = {}
    for each, value in spec.items():
        if name in ("$lookup", "$unionWith", "$merge") and each in ("pipeline", "whenMatched"):
            made[each] = fixed_pipeline(value, inside) if isinstance(value, list) else value
        elif name == "$graphLookup" and each == "restrictSearchWithMatch":
            made[each] = fixed_filter(value, values) if isinstance(value, dict) else value
        else:
            made[each] = fixed_expression(value, values)
    return made


def fixed_expression(expr: Any, values: Values) -> Any:
    expr = as_document(expr)
    if isinstance(expr, str):
        return _variable(expr, values) if expr.startswith("$$") else expr
    if isinstance(expr, list):
        return [fixed_expression(each, values) for each in expr]
    if not isinstance(expr, dict) or not LITERALS.isdisjoint(expr):
        return expr
    if len(expr) == 1 and (name := next(iter(expr))) in _BINDING and isinstance(expr[name], dict):
        return {name: _scoped(name, expr[name], values)}
    return {name: fixed_expression(value, values) for name, value in expr.items()}


def _variable(text: str, values: Values) -> Any:
    name, *parts = text[2:].split(".")
    if name not in values:
        return text
    value = at_path(values[name], parts)
    return "$$REMOVE" if value is MISSING else {"$literal": value}


def _scoped(name: str, operand: Document, values: Values) -> Document:
    """An operator that binds names for one of its arguments."""
    if name == "$let":
        names = operand.get("vars", {})
    elif name == "$reduce":
        names = ("this", "value")
    else:
        names = (operand.get("as", "this"),)
    inside = _without(values, names)
    return {
        each: fixed_expression(value, inside if each in ("in", "cond") else values) for each, value in operand.items()
    }


def _without(values: Values, names: Any) -> Values:
    hidden = {name for name in names if isinstance(name, str)} if isinstance(names, Mapping | tuple) else set()
    return {name: value for name, value in values.items() if name not in hidden}
