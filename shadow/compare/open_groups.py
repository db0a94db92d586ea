"""What `$group` and its kin determine of their answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shadow.compare.freedom import ANYTHING, EXACT, Freedom, OpenShape
from shadow.compare.open_expressions import expression
from shadow.compare.openness import Openness, Rows, settled
from shadow.mongoql.values.support import LITERALS

__all__ = ["accumulated", "bucket", "bucket_auto", "group", "sort_by_count"]


def group(state: Openness, spec: Any) -> Openness:
    state = settled(state)
    key = expression(spec["_id"], state.shape)
    constant = not _reads(spec["_id"])
    rows = Rows.KNOWN
    if not (key.exact or (not key.fields and key.open == {Freedom.EQUALS})):
        rows = Rows.OPEN
    counted = state.rows is Rows.COUNTED and constant
    if state.rows is not Rows.KNOWN and not counted:
        rows = Rows.OPEN
    fields = {name: accumulated(value, state) for name, value in spec.items() if name != "_id"}
    if counted:
        fields = {name: EXACT if _counts(spec[name]) else ANYTHING for name in fields}
    if not constant:
        fields["_id"] = OpenShape(frozenset({Freedom.EQUALS}))
    shape = OpenShape(fields={name: each for name, each in fields.items() if not each.exact})
    return Openness(rows, shape, stored=False, single=constant)


def _reads(expr: Any) -> bool:
    """Whether an expression may have different values for different rows."""
    if isinstance(expr, str):
        return expr.startswith("$")
    if isinstance(expr, list):
        return any(map(_reads, expr))
    if isinstance(expr, Mapping):
        return any(name.startswith("$") and name not in LITERALS for name in expr) or any(
            _reads(value) for name, value in expr.items() if name not in LITERALS
        )
    return False


def _counts(accumulator: Any) -> bool:
    """Whether the result depends only on the number of rows."""
    ((name, operand),) = accumulator.items()
    return name == "$count" or not _reads(operand)


def accumulated(accumulator: Any, state: Openness) -> OpenShape:
    ((name, operand),) = accumulator.items()
    value = expression(operand, state.shape)
    match name:
        case "$count":
            return EXACT
        case "$sum" | "$avg" | "$stdDevPop" | "$stdDevSamp":
            if not value.exact:
                return ANYTHING
            return EXACT if state.fixed or not _reads(operand) else OpenShape(frozenset({Freedom.ROUNDING}))
        case "$min" | "$max":
            known = not value.fields and value.open <= {Freedom.EQUALS}
            return OpenShape(frozenset({Freedom.EQUALS})) if known else ANYTHING
        case "$first" | "$last":
            return value if state.fixed or (value.exact and not _reads(operand)) else ANYTHING
        case "$firstN" | "$lastN" | "$top" | "$bottom" | "$topN" | "$bottomN":
            return EXACT if state.fixed and value.exact else ANYTHING
        case "$maxN" | "$minN":
            return OpenShape(frozenset({Freedom.EQUALS})) if value.exact else ANYTHING
        case "$push":
            if value.open:
                return ANYTHING
            return OpenShape(frozenset() if state.fixed else frozenset({_pushed(state)}), value.fields)
        case "$addToSet":
            known = not value.fields and value.open <= {Freedom.EQUALS}
            return OpenShape(frozenset({Freedom.ORDER, Freedom.EQUALS})) if known else ANYTHING
        case "$mergeObjects":
            return value if state.fixed and value.exact else ANYTHING
        case _:
            return ANYTHING


def _pushed(state: Openness) -> Freedom:
    return Freedom.PLACE if state.sort else Freedom.ORDER


def sort_by_count(state: Openness, spec: Any) -> Openness:
    grouped = group(state, {"_id": spec, "count": {"$sum": 1}})
    return replace(grouped, sort=(("count", -1),))


def bucket(state: Openness, spec: Any) -> Openness:
    grouped = group(state, {"_id": spec["groupBy"], **spec.get("output", {})})
    fields = {name: each for name, each in grouped.shape.fields.items() if name != "_id"}
    return _in_order(replace(grouped, shape=OpenShape(fields=fields)))


def bucket_auto(state: Openness, spec: Any) -> Openness:
    """Which of several equal values are the ends of a bucket is open."""
    grouped = group(state, {"_id": spec["groupBy"], **spec.get("output", {})})
    equal = OpenShape(frozenset({Freedom.EQUALS}))
    ends = OpenShape(fields={"min": equal, "max": equal})
    return _in_order(replace(grouped, shape=OpenShape(fields={**grouped.shape.fields, "_id": ends})))


def _in_order(state: Openness) -> Openness:
    """`state` of groups that come in the order of their keys."""
    return replace(state, sort=(("_id", 1),), whole=state.rows is Rows.KNOWN)
