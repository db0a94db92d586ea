"""Which attributes of an item a read needs: projection expressions, where a subset of the item is exact. Pure.

A read costs the same capacity either way; a projection saves transfer and parsing. The order of a document's fields is
stored as positions among all their names (see `codec`), so a subset of the fields has a known order only where nothing
depends on it: at most one field besides a leading `_id` is shown, or the fields are in the order of their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shadow.model.operation import Query
from shadow.stores.dynamo.client.limits import LONGEST_NAME_ASKED
from shadow.stores.dynamo.items.codec import STAMP, Item
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.items.values import octets, opened

__all__ = ["Fetch", "fetch_of", "looked_at", "top_level_fields"]

_MOST_NAMES: Final = 30
_NARROW: Final = 255


@dataclass(frozen=True, slots=True)
class Fetch:
    """The top-level fields to fetch besides `_id` and the reserved attribute, and those of them whose order is
    visible."""

    names: frozenset[str]
    shown: frozenset[str] = frozenset()
    stamp_only: bool = False
    """Fetch only the key and the state from the reserved attribute: enough for `Codec.stamp`, not for `decode`."""

    @property
    def is_certain(self) -> bool:
        """Whether it is enough for every document with a leading `_id`."""
        return len(self.shown) <= 1

    def text(self, expression: Expression, reserved: str) -> str:
        """The projection expression."""
        if self.stamp_only:
            return ", ".join([expression.path("_id"), *(expression.path(reserved, part) for part in STAMP)])
        names = sorted(self.names - {"_id", reserved})
        return ", ".join(expression.path(name) for name in ("_id", reserved, *names))

    def is_enough(self, item: Item, reserved: str) -> bool:
        """Whether the fetched fields of this item can be put in order."""
        shadow = item.get(reserved, {}).get("M", {})
        order = opened(shadow.get("h"))[1]
        if order is None or not self.shown:
            return True
        present = [name for name in self.shown if name in item or name in shadow.get("a", {}).get("M", {})]
        places = octets(order)
        return len(present) <= 1 and len(places) <= _NARROW and places[0] == 0


def fetch_of(query: Query) -> Fetch | None:
    """What a query needs of each item; None if it needs everything, or if that is unknown."""
    shown = _included(query.projection)
    read = top_level_fields(query.filter)
    if shown is None or read is None:
        return None
    return _limited(Fetch(frozenset(shown | read | {path.partition(".")[0] for path, _ in query.sort}), shown))


def looked_at(filter: Mapping[str, Any], *paths: str) -> Fetch | None:
    """What a filter and the values at `paths` need of an item, where the order of its fields does not matter."""
    fields = top_level_fields(filter)
    return None if fields is None else _limited(Fetch(fields | {path.partition(".")[0] for path in paths}))


def _limited(fetch: Fetch) -> Fetch | None:
    """`fetch`, unless its names are too many or too long for an expression."""
    short = all(len(name) > 0 and len(name.encode()) <= LONGEST_NAME_ASKED for name in fetch.names)
    return fetch if short and len(fetch.names) <= _MOST_NAMES else None


def _included(projection: Mapping[str, Any] | None) -> frozenset[str] | None:
    """The top-level fields besides `_id` that a projection includes; None unless it is a plain inclusion."""
    if not projection or not all(type(value) in (bool, int, float) for value in projection.values()):
        return None
    kept = {name.partition(".")[0] for name, value in projection.items() if value}
    left_out = [name for name, value in projection.items() if not value]
    if not kept or left_out not in ([], ["_id"]):
        return None
    return frozenset(kept - {"_id"})


def top_level_fields(filter: Mapping[str, Any]) -> frozenset[str] | None:
    """The top-level fields that a filter reads; None if it may read any field."""
    found: set[str] = set()
    for name, operand in filter.items():
        if name in ("$and", "$or", "$nor") and isinstance(operand, list):
            inner = _all_fields_of(operand)
            if inner is None:
                return None
            found |= inner
        elif name.startswith("$"):
            return None
        else:
            found.add(name.partition(".")[0])
    return frozenset(found)


def _all_fields_of(filters: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
    parts = [top_level_fields(one) for one in filters]
    return None if None in parts else frozenset(name for part in parts if part is not None for name in part)
