"""The watch over out-of-band writes: those that bypass shadow, for as long as MongoDB reports every change.

Reads find such writes when somebody reads the document; the watch finds them as they happen, also of documents of
before the migration. A delete tells nothing by itself, for shadow's own leaves nothing on MongoDB either: there the
secondary decides, which has a tombstone for each delete of shadow's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.model.events import ComponentFailed, OutOfBandWriteSeen
from shadow.model.phase import StoreName
from shadow.model.verdict import Bypass
from shadow.model.version import Key, Version
from shadow.mongoql.expiry import has_expired
from shadow.stores.within import within
from shadow.writes.context import LoopContext

__all__ = ["Source", "WriterWatch"]

Source = Callable[[Mapping[str, Any] | None], AsyncIterator[tuple[tuple[str, Key, Bypass, str], Mapping[str, Any]]]]
"""Given the token of the last event seen, the events after it: collection, key, kind and name of each, its token."""

_NOT_SUPPORTED: Final = 40573
"""error_codes.yml of the server: change streams need a replica set."""
_HISTORY_LOST: Final = frozenset({280, 286})
_DELETES: Final = 100
"""Deletes that are examined at once."""
_PAUSE: Final = 1.0
"""Seconds after an error before the next try."""


class WriterWatch:
    """One for each event loop. Publishes `OutOfBandWriteSeen` for each such write."""

    def __init__(self, source: Source, context: LoopContext) -> None:
        self._source = source
        self._stores = context.stores
        self._routes = context.routes
        self._journal = context.journal
        self._limits = context.limits
        self._reporter = context.reporter
        self._expiry = context.expiry
        self._gate = asyncio.Semaphore(_DELETES)
        self._token: Mapping[str, Any] | None = None
        self.state = "on"

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Watches until cancelled, or until the server says that it cannot report changes. `turn` is called each time
        that it begins."""
        async with asyncio.TaskGroup() as deletes:
            while self.state == "on":
                turn()
                try:
                    await self._follow(deletes)
                except OperationFailure as error:
                    self._judge(error)
                except Exception as error:
                    self._failed(error)
                await asyncio.sleep(_PAUSE)

    def _failed(self, error: Exception) -> None:
        self._reporter.publish(ComponentFailed("watch", error))

    def _judge(self, error: OperationFailure) -> None:
        self._failed(error)
        if error.code == _NOT_SUPPORTED:
            self.state = "off: this MongoDB is no replica set"
        elif error.code in _HISTORY_LOST:
            # Shadow reads and verification have to find what was written in between.
            self._token = None

    async def _follow(self, deletes: asyncio.TaskGroup) -> None:
        async with aclosing(self._source(self._token)) as events:  # type: ignore[type-var]
            async for (collection, key, kind, name), token in events:
                self._token = token
                route = self._routes[collection]
                if not route.dual_write:
                    continue
                if kind is not Bypass.DELETED:
                    self._reporter.publish(OutOfBandWriteSeen(collection, kind, key, name))
                elif route.primary is StoreName.MONGO:
                    await self._gate.acquire()
                    deletes.create_task(self._delete(collection, key, name))

    async def _delete(self, collection: str, key: Key, name: str) -> None:
        """Counts a delete if the secondary, asked twice, knows nothing of it while the journal holds nothing either."""
        try:
            for _ in range(2):
                if not await self._unheard_of(collection, key):
                    return
                await asyncio.sleep(self._limits.settle)
            self._reporter.publish(OutOfBandWriteSeen(collection, Bypass.DELETED, key, name))
        except Exception as error:
            self._failed(error)
        finally:
            self._gate.release()

    async def _unheard_of(self, collection: str, key: Key) -> bool:
        route = self._routes[collection]
        async with within(self._limits.operation):
            if not route.dual_write or await self._journal.has_open(collection, key):
                return False
            secondary = await self._stores[route.secondary].image(collection, key)
            primary = await self._stores[route.primary].image(collection, key)
        if has_expired(self._expiry(collection), secondary.document):
            return False  # MongoDB has deleted it by its TTL index
        return isinstance(secondary.state, Version) and not primary.present
