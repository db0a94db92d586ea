"""What is open in the value of an expression over rows in which something is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shadow.compare.freedom import ANYTHING, EXACT, Freedom, OpenShape
from shadow.mongoql.values.paths import position
from shadow.mongoql.values.support import LITERALS

__all__ = ["expression", "merged", "only_path", "value_at", "with_value"]


def value_at(shape: OpenShape, path: str) -> OpenShape:
    """What is open in the value at a dotted path."""
    for name in path.split("."):
        if shape.open & {Freedom.ANYTHING, Freedom.ROUNDING, Freedom.PLACE}:
            return ANYTHING
        if position(name) >= 0 and not shape.exact:
            return ANYTHING
        inner = shape.fields.get(name, EXACT)
        # A path through a list gathers from its elements, in their order; a part of equal values is equal.
        shape = OpenShape(inner.open | shape.open, inner.fields)
    return shape


def with_value(shape: OpenShape, path: str, made: OpenShape) -> OpenShape:
    """`shape` with `made` at a dotted path."""
    name, _, rest = path.partition(".")
    if shape.open & {Freedom.ANYTHING, Freedom.ROUNDING}:
        return shape
    inner = with_value(shape.fields.get(name, EXACT), rest, made) if rest else made
    fields = {**shape.fields, name: inner}
    return OpenShape(shape.open, {each: value for each, value in fields.items() if not value.exact})


def only_path(shape: OpenShape, parts: Sequence[str]) -> OpenShape:
    """What is open in a document of which only the value at a path is kept, and the fields that lead to it."""
    if not parts:
        return shape
    inner = only_path(shape.fields.get(parts[0], EXACT), parts[1:])
    return OpenShape(shape.open, {} if inner.exact else {parts[0]: inner})


def merged(a: OpenShape, b: OpenShape) -> OpenShape:
    names = dict.fromkeys([*a.fields, *b.fields])
    return OpenShape(a.open | b.open, {n: merged(a.fields.get(n, EXACT), b.fields.get(n, EXACT)) for n in names})


def expression(expr: Any, shape: OpenShape) -> OpenShape:
    """What is open in the value of an expression over rows of `shape`."""
    if isinstance(expr, str) and expr.startswith("$"):
        return _reference(expr, shape)
    if isinstance(expr, list):
        return EXACT if all(expression(each, shape).exact for each in expr) else ANYTHING
    if not isinstance(expr, Mapping):
        return EXACT
    first = next(iter(expr), "")
    if not first.startswith("$"):
        made = {name: expression(value, shape) for name, value in expr.items()}
        return OpenShape(fields={name: each for name, each in made.items() if not each.exact})
    return _operator(first, expr[first], shape)


def _reference(text: str, shape: OpenShape) -> OpenShape:
    if not text.startswith("$$"):
        return value_at(shape, text[1:])
    name, _, path = text[2:].partition(".")
    if name in ("ROOT", "CURRENT"):
        return value_at(shape, path) if path else shape
    # A variable of $map, $let and the like: its binding is examined where it is bound.
    return ANYTHING if name in _CLOCKED else EXACT


_CLOCKED: Final = frozenset({"NOW", "CLUSTER_TIME", "USER_ROLES"})


_CHANCE: Final = frozenset({"$rand", "$sampleRate", "$function", "$accumulator"})


_SETS: Final = frozenset({"$setUnion", "$setIntersection", "$setDifference"})


_OF_ANY_ORDER: Final = frozenset(
    {"$size", "$isArray", "$in", "$allElementsTrue", "$anyElementTrue", "$setEquals", "$setIsSubset"}
)
"""Operators whose answer depends neither on the order of the elements of a list, nor on which of equal ones it
holds."""


_BY_VALUE: Final = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$cmp", "$isNumber"})
"""Operators that do not distinguish equal numbers."""


_ROUNDED: Final = frozenset({"$sum", "$avg", "$stdDevPop", "$stdDevSamp"})


def _operator(name: str, operand: Any, shape: OpenShape) -> OpenShape:
    if name in LITERALS:
        return EXACT
    if name in _CHANCE:
        return ANYTHING
    given = operand if isinstance(operand, list) else [operand]
    parts = [expression(each, shape) for each in given]
    if name in _SETS:
        known = all(not each.fields and each.open <= {Freedom.ORDER, Freedom.EQUALS} for each in parts)
        return OpenShape(frozenset({Freedom.ORDER, Freedom.EQUALS})) if known else ANYTHING
    if _is_exact(operand, shape):
        # Of equal arguments the server keeps one, in an order that its optimizer may change.
        return OpenShape(frozenset({Freedom.EQUALS})) if name in ("$min", "$max") and len(given) > 1 else EXACT
    if name in ("$map", "$filter") and _only_input_is_open(operand, shape):
        return OpenShape(frozenset({Freedom.ORDER}))
    if any(each.fields for each in parts):
        return ANYTHING
    opened = frozenset[Freedom]().union(*[each.open for each in parts])
    if opened <= {Freedom.ORDER, Freedom.EQUALS} and name in _OF_ANY_ORDER:
        return EXACT
    if opened <= {Freedom.EQUALS} and name in _BY_VALUE:
        return EXACT
    if len(parts) == 1 and opened == {Freedom.ORDER}:
        if name in _ROUNDED:
            return OpenShape(frozenset({Freedom.ROUNDING}))
        if name in ("$min", "$max"):
            return OpenShape(frozenset({Freedom.EQUALS}))
        if name == "$reverseArray":
            return OpenShape(frozenset({Freedom.ORDER}))
    return ANYTHING


def _only_input_is_open(operand: Any, shape: OpenShape) -> bool:
    """Whether `$map` or `$filter` has an input list whose order alone is open, and nothing else open."""
    if not isinstance(operand, Mapping):
        return False
    source = expression(operand.get("input"), shape)
    rest = {name: value for name, value in operand.items() if name != "input"}
    return source == OpenShape(frozenset({Freedom.ORDER})) and _is_exact(rest, shape)


def _is_exact(operand: Any, shape: OpenShape) -> bool:
    """Whether an operand reads nothing that is open, at any depth: operators with named arguments hold expressions
    below their names."""
    if isinstance(operand, str):
        return expression(operand, shape).exact
    if isinstance(operand, list):
        return all(_is_exact(each, shape) for each in operand)
    if isinstance(operand, Mapping):
        first = next(iter(operand), "")
        if first.startswith("$"):
            return _operator(first, operand[first], shape).exact
        return all(_is_exact(each, shape) for each in operand.values())
    return True
