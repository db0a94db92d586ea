"""What the server leaves open in an answer: the order of a list, the choice among equal values, the rounding of a sum.

An `OpenShape` describes it for a value and its parts. `agreed` converts values to a form that has only the fixed parts,
and keeps apart what is open with both answers allowed and what cannot be known.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bson import Decimal128

from shadow.compare.equality import canonical
from shadow.model.order import as_document, key_digest

__all__ = ["ANYTHING", "EXACT", "Freedom", "OpenShape", "agreed", "near", "near_numbers", "unknown"]


class Freedom(enum.Enum):
    """ORDER: a list's elements come in any order. EQUALS: any of several values that MongoDB treats as equal (10, 10.0)
    may appear, in a list for each element. ROUNDING: a sum of doubles, whose last digits depend on the order of
    addition. PLACE: a list whose order is partly fixed by something that cannot be seen. ANYTHING: the value depends on
    an order that nothing fixes."""

    ORDER = "order"
    EQUALS = "equals"
    ROUNDING = "rounding"
    PLACE = "place"
    ANYTHING = "anything"


@dataclass(frozen=True, slots=True)
class OpenShape:
    """What is open in a value, and in the fields of a document (for a list: of each document in it)."""

    open: frozenset[Freedom] = frozenset()
    fields: Mapping[str, OpenShape] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return not self.open and all(each.exact for each in self.fields.values())


EXACT: Final = OpenShape()
ANYTHING: Final = OpenShape(frozenset({Freedom.ANYTHING}))

_UNKNOWN: Final = "?"
"""Marks a value about which nothing is known. No canonical form equals it, because those contain a colon."""

_NEAR: Final = 1e-9
"""The greatest relative difference between two sums of the same doubles."""
_LEAST: Final = 1e-12
"""The greatest absolute difference: where large summands cancel, only their rounding is left."""


def agreed(value: Any, shape: OpenShape) -> Any:
    """The canonical form of `value`, with sorted lists where the order is open and one spelling for equal numbers where
    the choice is open. Two values with the same form are both allowed."""
    return _form(value, shape, blind=False)


def unknown(value: Any, shape: OpenShape) -> Any:
    """`agreed`, with a mark in place of rounded sums and of values that nothing fixes: two values with the same form
    may both be allowed."""
    return _form(value, shape, blind=True)


def _form(value: Any, shape: OpenShape, *, blind: bool) -> Any:
    if shape.exact:
        return canonical(value)
    if blind and Freedom.ANYTHING in shape.open:
        return _UNKNOWN
    if blind and Freedom.ROUNDING in shape.open and type(value) in (float, Decimal128):
        return f"{type(value).__name__}:{_UNKNOWN}"
    value = as_document(value)
    if isinstance(value, list):
        return _list(value, shape, blind=blind)
    if Freedom.EQUALS in shape.open:
        return f"={key_digest(value)}"
    if isinstance(value, dict):
        # What nothing fixes may also be missing.
        loose = [name for name, inner in shape.fields.items() if blind and Freedom.ANYTHING in inner.open]
        known = {name: inner for name, inner in value.items() if name not in loose}
        made = {name: _form(inner, shape.fields.get(name, EXACT), blind=blind) for name, inner in known.items()}
        return {**made, **dict.fromkeys(loose, _UNKNOWN)}
    return canonical(value)


def _list(values: list[Any], shape: OpenShape, *, blind: bool) -> Any:
    inner = OpenShape(shape.open & {Freedom.EQUALS}, shape.fields)
    forms = [_form(each, inner, blind=blind) for each in values]
    loose = Freedom.ORDER in shape.open or (blind and Freedom.PLACE in shape.open)
    return sorted(forms, key=repr) if loose else forms


def near(left: Any, right: Any, shape: OpenShape) -> bool:
    """Whether every sum in `left` is as close to the one in `right` as rounding allows. Both have the same `unknown`
    form; a list with an open order counts as close."""
    if Freedom.ANYTHING in shape.open:
        return True
    if Freedom.ROUNDING in shape.open and type(left) in (float, Decimal128):
        return near_numbers(left, right)
    left, right = as_document(left), as_document(right)
    if isinstance(left, dict) and isinstance(right, dict):
        both = {name: each for name, each in shape.fields.items() if name in left and name in right}
        return all(near(left[name], right[name], each) for name, each in both.items())
    if isinstance(left, list) and isinstance(right, list) and not shape.open:
        return all(near(a, b, OpenShape(fields=shape.fields)) for a, b in zip(left, right, strict=True))
    return True


def near_numbers(left: Any, right: Any) -> bool:
    """Whether two sums may differ only in rounding."""
    a, b = (float(each.to_decimal()) if type(each) is Decimal128 else float(each) for each in (left, right))
    if not math.isfinite(a) or not math.isfinite(b):
        return True  # an intermediate overflow depends on the order too
    return math.isclose(a, b, rel_tol=_NEAR, abs_tol=_LEAST)
