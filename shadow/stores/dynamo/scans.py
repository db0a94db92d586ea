"""Scans, counted by the shape of the query that needed them: the list of shapes is the list of indexes missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from shadow.model.operation import Query
from shadow.stores.dynamo.plan import shape, suggestion

__all__ = ["ScanCounter"]

_MOST_SHAPES: Final = 200
_OTHER: Final = "(other shapes)"


@dataclass(slots=True)
class _Entry:
    collection: str
    shape: str
    suggested_index: str
    times: int = 0
    items_read: int = 0
    items_returned: int = 0


class ScanCounter:
    """Counts at most 200 shapes by name, and the rest together."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}

    def begin(self, collection: str, query: Query) -> tuple[str, str]:
        """Counts one scan; what it returns names the shape to `add`."""
        key = (collection, shape(query))
        if key not in self._entries and len(self._entries) >= _MOST_SHAPES:
            key = ("", _OTHER)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(*key, suggestion(query) if key[0] else "")
        entry.times += 1
        return key

    def add(self, key: tuple[str, str], *, read: int = 0, returned: int = 0) -> None:
        self._entries[key].items_read += read
        self._entries[key].items_returned += returned

    def report(self) -> list[dict[str, Any]]:
        """Collection, shape, times, items read and returned, index that would help; the most read first."""
        entries = sorted(self._entries.values(), key=lambda entry: -entry.items_read)
        return [{name: getattr(entry, name) for name in _Entry.__slots__} for entry in entries]
