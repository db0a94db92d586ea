"""Counts scans by the shape of the query that needed them: the list of shapes is the list of missing indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from shadow.model.operation import Query
from shadow.stores.dynamo.context import DEFAULTS, OnScan
from shadow.stores.dynamo.query.plan import shape, suggestion

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


@dataclass(frozen=True, slots=True)
class Counted:
    """One scan under way."""

    collection: str
    entry: _Entry


class ScanCounter:
    """Counts at most 200 shapes by name, and the rest together. `on_scan` gets the name of the collection, if the store
    knows the collection of the table."""

    def __init__(self, on_scan: OnScan = DEFAULTS.on_scan) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._on_scan = on_scan

    def begin(self, collection: str, query: Query) -> Counted:
        """Counts one scan; pass the result to `add`."""
        key = (collection, shape(query))
        if key not in self._entries and len(self._entries) >= _MOST_SHAPES:
            key = ("", _OTHER)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(*key, suggestion(query) if key[0] else "")
        entry.times += 1
        self._on_scan(collection, 1, 0, 0)
        return Counted(collection, entry)

    def add(self, counted: Counted, *, read: int = 0, returned: int = 0) -> None:
        counted.entry.items_read += read
        counted.entry.items_returned += returned
        self._on_scan(counted.collection, 0, read, returned)

    def report(self) -> list[dict[str, Any]]:
        """Collection, shape, number of scans, items read and returned, index that would help; sorted by most items
        read."""
        entries = sorted(self._entries.values(), key=lambda entry: -entry.items_read)
        return [{name: getattr(entry, name) for name in _Entry.__slots__} for entry in entries]
