"""When an index provides the order of a sort, and how it is proved that nothing else could come first. Pure.

An index sorts its range attribute by key text, as bytes. That is MongoDB's order among strings that represent
themselves (not those with a "~" prefix), among ObjectIds, and among the dates of Python's years. It is not between
types, and an array sorts by its least or greatest element. So the order of the index is used within one kind, and the
rest of what may match is shown to be empty:

    sides        ranges in which arrays, and strings with "~", would be: they are read, and nothing may match
    typed        the filter's bounds are of one type, so nothing of another type in between matches
    not typed    the first and the last text must be of one kind, and so must all texts between: dates are contiguous;
                 strings may have ObjectIds or "~" texts among them, and `doubt` returns the next position to check
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shadow.model.operation import Query, Sort
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.query.plan import Condition, KeyRange, QueryPlan, conditions, pinned_text, plan, spans

__all__ = ["KeyTextKind", "OrderedPlan", "doubt", "kind_of", "ordered_plan"]

_DATE: Final = re.compile(r"~date:\d{4}-.*")
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{24}")
_HEX: Final = "0123456789abcdef"
_LENGTH: Final = 24
_LAST: Final = "\U0010ffff"


class KeyTextKind(enum.Enum):
    """What a key text of a range attribute represents."""

    STRING = "string"
    OBJECT_ID = "ObjectId"
    DATE = "date"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class OrderedPlan:
    """Read `main` of the index `forward` or backward, until there is enough. `ties`: the sort has more fields after the
    range attribute, so all documents with the last text are needed."""

    index: IndexSpec
    main: KeyRange
    sides: tuple[KeyRange, ...]
    typed: bool
    forward: bool
    ties: bool

    def query(self) -> QueryPlan:
        return QueryPlan(self.index, (self.main, *self.sides))


def ordered_plan(query: Query, spec: CollectionSpec) -> OrderedPlan | None:
    """The plan for a limited, sorted query that an index serves in order; None if there is none."""
    if not query.limit or not query.sort:
        return None
    found = tuple(conditions(query.filter))
    chosen = plan(query.filter, spec)
    if not isinstance(chosen, QueryPlan):
        return None
    # An index that narrows the read is better than one that sorts it, unless it is the same.
    narrowed = any(one.low is not None or one.high is not None for one in chosen.ranges)
    for index in (chosen.index,) if narrowed else spec.indexes:
        made = _of_index(found, query.sort, index)
        if made is not None:
            return made
    return None


def _of_index(found: Sequence[Condition], sort: Sort, index: IndexSpec) -> OrderedPlan | None:
    rest = [pair for pair in sort if pair[0] != index.hash]  # the same for all
    text = pinned_text(found, index.hash)
    if text is None or index.range is None or not rest or rest[0][0] != index.range:
        return None
    if len(rest) > 2 or any("." in path for path, _ in rest):  # an unread document might be one that cannot be sorted
        return None
    (low, high), *others = spans(found, index.range)
    if low is not None and (low == high or (low.startswith("~") and not low.startswith("~date:"))):
        return None
    typed = low is not None or high is not None
    if typed and not others:  # strings, and the texts with "~", are contiguous
        others = [("~", f"~{_LAST}")]
    sides = (*(KeyRange(text, *other) for other in others), KeyRange(keys.ARRAY))
    return OrderedPlan(index, KeyRange(text, low, high), sides, typed, rest[0][1] > 0, len(rest) > 1)


def kind_of(text: str) -> KeyTextKind:
    if not text.startswith("~"):
        return KeyTextKind.OBJECT_ID if _OBJECT_ID.fullmatch(text) else KeyTextKind.STRING
    return KeyTextKind.DATE if _DATE.fullmatch(text) else KeyTextKind.OTHER


def doubt(text: str) -> str | None:
    """The least text after `text` that is not a string representing itself; None if there is none."""
    candidates = [_next_object_id(text), "~" if text < "~" else None]
    return min((one for one in candidates if one is not None), default=None)


def _next_object_id(text: str) -> str | None:
    """The least text of an ObjectId after `text`."""
    digits = len(re.match(r"[0-9a-f]{0,24}", text).group())  # type: ignore[union-attr]
    if digits == len(text) and digits < _LENGTH:
        return text + "0" * (_LENGTH - digits)
    follow = text[digits] if digits < min(len(text), _LENGTH) else ""
    for place in range(min(digits, _LENGTH - 1), -1, -1):
        beyond = follow if place == digits else text[place]
        higher = next((digit for digit in _HEX if digit > beyond), None)
        if higher is not None:
            return text[:place] + higher + "0" * (_LENGTH - place - 1)
    return None
