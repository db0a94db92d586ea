"""Keeps the fleet's record of the indexes that applications have made, and does not depend on the control store.

What the control store does not take is kept in this process and written with the next call that reaches it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from shadow.control.index_record import MadeIndexes, record_of
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.model.events import ComponentFailed, Reporter

__all__ = ["Change", "SharedIndexes"]

Change: TypeAlias = Callable[[MadeIndexes], MadeIndexes]
"""Makes the same of a record however often it is applied."""

_LONGEST: Final = 4.0
"""Seconds to wait for the control store."""


class SharedIndexes:
    """One for each Shadow. Its methods raise nothing that comes from the control store: it is reported."""

    def __init__(self, records: Records, reporter: Reporter) -> None:
        self._records = records
        self.reporter: Final = reporter
        self._last: dict[str, MadeIndexes] = {}
        self._unsaved: dict[str, list[Change]] = {}
        self._lock = threading.Lock()

    async def load(self, collection: str) -> MadeIndexes:
        """The record; what this process knows, where the control store does not answer."""
        return await self._asked(self._load, collection)

    def last(self, collection: str) -> MadeIndexes:
        """What this process has loaded or made last."""
        with self._lock:
            return self._last.get(collection, MadeIndexes(collection))

    async def change(self, collection: str, make: Change) -> MadeIndexes:
        """Changes the record, at once or when the control store answers; what it holds then."""
        with self._lock:
            self._last[collection] = make(self._last.get(collection, MadeIndexes(collection)))
            self._unsaved.setdefault(collection, []).append(make)
        return await self.load(collection)

    async def save(self, wanted: MadeIndexes) -> bool:
        """Writes a record that was loaded and changed; False if it is another one by now, or was not written."""

        def save(collection: str) -> MadeIndexes:
            saved = record_of(collection).save(self._records, wanted)
            with self._lock:
                if saved is not None and collection not in self._unsaved:
                    self._last[collection] = saved
            return wanted if saved is None else saved

        found = await self._asked(save, wanted.collection)
        return found.revision != wanted.revision and found.indexes == wanted.indexes

    async def _asked(self, ask: Callable[[str], MadeIndexes], collection: str) -> MadeIndexes:
        try:
            async with asyncio.timeout(_LONGEST):
                return await asyncio.to_thread(ask, collection)
        except (ControlError, TimeoutError) as error:
            self.reporter.publish(ComponentFailed("index", error))
            with self._lock:
                return self._last.get(collection, MadeIndexes(collection))

    def _load(self, collection: str) -> MadeIndexes:
        with self._lock:
            waiting = tuple(self._unsaved.get(collection, ()))

        def changed(seen: MadeIndexes) -> MadeIndexes | None:
            wanted = seen
            for make in waiting:
                wanted = make(wanted)
            return None if wanted == seen else wanted

        record = record_of(collection)
        found = record.change(self._records, changed) if waiting else record.load(self._records)
        with self._lock:
            left = [make for make in self._unsaved.pop(collection, []) if make not in waiting]
            if left:
                self._unsaved[collection] = left
            else:
                self._last[collection] = found
        return found
