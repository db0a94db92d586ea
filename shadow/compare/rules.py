"""Comparison rules: named rules that say which differences between the stores to ignore.

A rule acts on both documents of an unequal pair before they are compared again. Documents that are then equal are
counted as excused, under the names of the rules that were needed.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from bson import DatetimeMS, Decimal128, Int64
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator

from shadow.compare.equality import canonical, same
from shadow.model.order import millis
from shadow.model.version import Document

__all__ = [
    "Excuses",
    "Ignore",
    "MissingAsNull",
    "Rule",
    "Tolerance",
    "Truncate",
    "Unordered",
    "active",
    "excused_by",
]

_Change = Callable[[Any], Any]
_REMOVE: Final = object()


class _Rule(BaseModel):
    """`path` is dotted. `*` stands for any one field or list position, and a field name that meets a list applies to
    all its elements, as in a MongoDB filter. `expires` is the last day (UTC) on which the rule holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    path: str
    expires: dt.date | None = None

    rank: ClassVar[int] = 0
    """Rules act in the order of their ranks: removals first, sorting last."""

    @field_validator("path")
    @classmethod
    def _names_a_place(cls, path: str) -> str:
        parts = path.split(".")
        if not all(parts):
            raise ValueError("a dotted path of field names, list positions and *, without an empty part")
        if parts[0] in ("_id", "*"):
            raise ValueError("a path that begins with a named field; _id cannot be ignored")
        return path

    def apply(self, a: Document, b: Document) -> tuple[Document, Document]:
        """Both documents as this rule compares them. Changes neither."""
        parts = tuple(self.path.split("."))
        return _changed(a, parts, self._one), _changed(b, parts, self._one)

    def _one(self, value: Any) -> Any:
        """What is compared in place of a value at the path."""
        raise NotImplementedError


class Ignore(_Rule):
    """Ignores the value at the path and whether it exists."""

    rule: Literal["ignore"]

    def _one(self, value: Any) -> Any:
        return _REMOVE


class MissingAsNull(_Rule):
    """Treats null at the path as missing."""

    rule: Literal["missing_as_null"]
    rank = 1

    def _one(self, value: Any) -> Any:
        return _REMOVE if value is None else value


class Truncate(_Rule):
    """Compares dates at the path down to the unit `to` only."""

    rule: Literal["truncate"]
    to: Literal["second", "minute", "hour", "day"]
    rank = 2

    def _one(self, value: Any) -> Any:
        if not isinstance(value, dt.datetime | DatetimeMS):
            return value
        since = millis(value)
        return DatetimeMS(since - since % _UNITS[self.to])


class Tolerance(_Rule):
    """Treats numbers of the same type at the path as equal if they are at most `by` apart."""

    rule: Literal["tolerance"]
    by: FiniteFloat = Field(gt=0)
    rank = 3

    def apply(self, a: Document, b: Document) -> tuple[Document, Document]:
        return a, _paired(a, b, tuple(self.path.split(".")), self._near)

    def _near(self, left: Any, right: Any) -> Any:
        if type(left) is not type(right) or not isinstance(left, int | Int64 | float | Decimal128):
            return right
        if isinstance(left, bool):
            return right
        return left if abs(_number(left) - _number(right)) <= self.by else right


class Unordered(_Rule):
    """Compares the list at the path as a bag: the number of its elements counts, their order does not."""

    rule: Literal["unordered"]
    rank = 4

    def _one(self, value: Any) -> Any:
        return sorted(value, key=lambda each: repr(canonical(each))) if isinstance(value, list) else value


Rule: TypeAlias = Annotated[
    Ignore | MissingAsNull | Truncate | Tolerance | Unordered,
    Field(discriminator="rule"),
]
"""One entry of a collection's `compare` in the settings; `rule` selects the class."""

_UNITS: Final = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


def active(rules: Iterable[Rule], today: dt.date) -> tuple[Rule, ...]:
    """The rules that have not expired, in the order in which they act."""
    standing = [rule for rule in rules if rule.expires is None or today <= rule.expires]
    return tuple(sorted(standing, key=lambda rule: rule.rank))


def excused_by(rules: Sequence[Rule], a: Document, b: Document) -> tuple[str, ...] | None:
    """The names of the rules that make `a` (the primary's) and `b` equal; None if they do not.

    The set is minimal: a rule is not named if the documents would be equal without it. Documents that are equal already
    need none. `rules` must be `active` ones.
    """
    if not _same_under(rules, a, b):
        return None
    needed = list(rules)
    for rule in rules:
        fewer = [each for each in needed if each is not rule]
        if _same_under(fewer, a, b):
            needed = fewer
    return tuple(rule.name for rule in needed)


class Excuses:
    """The rules in force by collection, and how often each was needed. Thread-safe: sets are replaced as a whole.

    `today` returns the current day (UTC).
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[Rule]] | None = None,
        *,
        today: Callable[[], dt.date] = lambda: dt.datetime.now(dt.UTC).date(),
    ) -> None:
        self._today = today
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self._taken: Counter[tuple[str, str]] = Counter()
        self.replace(rules or {})

    def replace(self, rules: Mapping[str, Sequence[Rule]]) -> None:
        """Puts other rules in force. The counts of rules that stay are kept."""
        self._rules = {collection: tuple(each) for collection, each in rules.items() if each}

    def names(self) -> list[tuple[str, str]]:
        """Pairs of collection and rule name."""
        return [(collection, rule.name) for collection, rules in self._rules.items() for rule in rules]

    def excuse(self, collection: str, a: Document, b: Document) -> tuple[str, ...] | None:
        """`excused_by` for the rules of a collection. Changes no count."""
        rules = self._rules.get(collection)
        return excused_by(active(rules, self._today()), a, b) if rules else None

    def taken(self, collection: str, names: Iterable[str]) -> None:
        """Counts the rules that one comparison needed."""
        self._taken.update((collection, name) for name in names)

    def status(self) -> list[dict[str, Any]]:
        """Every rule, JSON-able: collection, name, rule, path, expires (a date or None), how often it was needed since
        the start, and `state`: "active", "never_matched" or "expired"."""
        today = self._today()
        return [self._row(collection, rule, today) for collection, rules in self._rules.items() for rule in rules]

    def _row(self, collection: str, rule: Rule, today: dt.date) -> dict[str, Any]:
        taken = self._taken[collection, rule.name]
        expired = rule.expires is not None and today > rule.expires
        return {
            "collection": collection,
            "name": rule.name,
            "rule": rule.rule,
            "path": rule.path,
            "expires": None if rule.expires is None else rule.expires.isoformat(),
            "excused": taken,
            "state": "expired" if expired else "active" if taken else "never_matched",
        }


def _same_under(rules: Iterable[Rule], a: Document, b: Document) -> bool:
    for rule in rules:
        a, b = rule.apply(a, b)
    return same(a, b)


def _number(value: Any) -> float:
    if not isinstance(value, Decimal128):
        return float(value)
    exact = value.to_decimal()
    return math.nan if exact.is_nan() else float(exact)


def _changed(value: Any, parts: Sequence[str], change: _Change) -> Any:
    """A copy of `value` with `change` applied to everything at the path. `_REMOVE` deletes a field, and puts null in
    place of a list element so that the others keep their positions."""
    if not parts:
        return change(value)
    if isinstance(value, dict):
        return _changed_fields(value, parts, change)
    if isinstance(value, list):
        return _changed_elements(value, parts, change)
    return value


def _changed_fields(value: dict[str, Any], parts: Sequence[str], change: _Change) -> dict[str, Any]:
    new = {
        name: _changed(inner, parts[1:], change) if parts[0] in ("*", name) else inner for name, inner in value.items()
    }
    return {name: inner for name, inner in new.items() if inner is not _REMOVE}


def _changed_elements(value: list[Any], parts: Sequence[str], change: _Change) -> list[Any]:
    new = []
    for place, inner in enumerate(value):
        if parts[0] in ("*", str(place)):
            inner = _changed(inner, parts[1:], change)
        elif not parts[0].isdecimal() and isinstance(inner, dict):
            inner = _changed(inner, parts, change)
        new.append(None if inner is _REMOVE else inner)
    return new


def _paired(a: Any, b: Any, parts: Sequence[str], choose: Callable[[Any, Any], Any]) -> Any:
    """`b` with `choose(left, right)` in place of what is at the path on both sides."""
    if not parts:
        return choose(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return {
            name: _paired(a[name], inner, parts[1:], choose) if name in a and parts[0] in ("*", name) else inner
            for name, inner in b.items()
        }
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            _paired(left, right, parts[1:] if parts[0] in ("*", str(place)) else parts, choose)
            if parts[0] in ("*", str(place)) or (isinstance(right, dict) and not parts[0].isdecimal())
            else right
            for place, (left, right) in enumerate(zip(a, b, strict=True))
        ]
    return b
