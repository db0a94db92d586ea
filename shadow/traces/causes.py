"""Which call a write that waits in the journal came from, for as long as this process lives.

The journal does not keep it: what another process repairs, or this one after a restart, has no link.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from shadow.model.keys import queue_key
from shadow.model.version import Key
from shadow.traces.spans import Cause

__all__ = ["Causes"]

_REMEMBERED: Final = 10_000
"""Keys; beyond that many, the oldest are forgotten."""


class Causes:
    """One for each event loop."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Hashable, Cause] = OrderedDict()

    def keep(self, collection: str, key: Key, by: Cause | None) -> None:
        """The first write that waits stands for those after it."""
        if by is not None:
            self._by_key.setdefault(queue_key(collection, key), by)
            if len(self._by_key) > _REMEMBERED:
                self._by_key.popitem(last=False)

    def of(self, collection: str, key: Key) -> Cause | None:
        return self._by_key.get(queue_key(collection, key)) if self._by_key else None

    def forget(self, collection: str, key: Key) -> None:
        """The key is repaired."""
        if self._by_key:
            self._by_key.pop(queue_key(collection, key), None)
