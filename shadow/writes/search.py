"""Writes by a filter on a store that changes documents by their keys alone: find the document, then change it.

Between the two, another writer may have changed it. Then it is searched for again, for as long as anything matches: a
lost race is never "no match". Calls that would only collide take turns within the process: updates with the same
filter, which would all find the same document, and upserts with the same filter, which would all find none. Deletes
take turns only while they search, since each takes another document.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

from pymongo.errors import DuplicateKeyError, OperationFailure

from shadow.model.keys import queue_key
from shadow.model.limits import Limits
from shadow.model.operation import ANY, Applied, Change, Delete, Query, Replace, Update, Verb, at_key
from shadow.model.version import Document, Key
from shadow.mongoql.upserts import insert_key
from shadow.stores.base import Store
from shadow.stores.turns import Turns
from shadow.traces.spans import NO_TRACES, Traces

__all__ = ["Search"]

_DUPLICATES: Final = 8
"""Duplicate key errors after which an upsert that finds nothing raises them."""
_LONGEST: Final = 0.25
"""Seconds between two attempts, at most."""
_WRITE_CONFLICT: Final = 112

Result: TypeAlias = Applied | Exception | None
Found: TypeAlias = Update | Replace | Delete


class Search:
    """One for each event loop. `primary` returns the store that is the primary now; `write` makes a change by key."""

    def __init__(
        self,
        primary: Callable[[str], Awaitable[Store]],
        write: Callable[[str, Verb, Change], Awaitable[Sequence[Result]]],
        limits: Limits,
        unexpired: Callable[[str, Document], Document] = lambda collection, filter: filter,
        traces: Traces = NO_TRACES,
    ) -> None:
        """`unexpired` narrows a filter to documents that have not expired."""
        self._primary = primary
        self._write = write
        self._limits = limits
        self._unexpired = unexpired
        self._traces = traces
        self._turns = Turns()
        self._deleting: defaultdict[str, dict[Hashable, asyncio.Future[None]]] = defaultdict(dict)

    async def change(self, collection: str, verb: Verb, change: Found) -> Result:
        """Changes the first document that the filter matches. Returns the result of the write, None if nothing matches
        and it is no upsert. Raises what searching raises."""
        async with AsyncExitStack() as stack:
            if not isinstance(change, Delete):
                await stack.enter_async_context(self._turns.turn(_address(collection, change)))
            return await self._until_done(collection, verb, change)

    async def _until_done(self, collection: str, verb: Verb, change: Found) -> Result:
        until = asyncio.get_running_loop().time() + self._limits.operation
        duplicates = 0
        for attempt in itertools.count():
            change, key = await self._guarded(collection, change)
            if key is ANY and (isinstance(change, Delete) or not change.upsert):
                return None
            result = await self._attempt(collection, verb, change, key)
            if isinstance(result, DuplicateKeyError) and key is ANY:
                # Another upsert may have been first: the next attempt finds its document.
                duplicates += 1
                if duplicates == _DUPLICATES:
                    return result
            elif result is not None and not _has_lost(result):
                return result
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(random.uniform(0, min(_LONGEST, 0.002 * 2.0 ** min(attempt, 10))))
        message = f"too many concurrent changes of the documents that match in {collection}"
        return OperationFailure(message, _WRITE_CONFLICT, {"code": _WRITE_CONFLICT, "errmsg": message})

    async def _attempt(self, collection: str, verb: Verb, change: Found, key: Key) -> Result:
        if isinstance(change, Delete):
            return await self._delete(collection, verb, at_key(change, key))
        (result,) = await self._write(collection, verb, at_key(change, insert_key(change) if key is ANY else key))
        return result

    async def _delete(self, collection: str, verb: Verb, change: Change) -> Result:
        try:
            (result,) = await self._write(collection, verb, change)
            return result
        finally:
            self._deleting[collection].pop(queue_key(collection, change.key)).set_result(None)

    async def _guarded(self, collection: str, change: Found) -> tuple[Found, Key]:
        """The first document's key, and the change; an upsert with the guard that was read before the search."""
        if isinstance(change, Delete) or not change.upsert:
            return change, await self._first(collection, change)
        guard, last = await (await self._primary(collection)).guard(collection, change)
        key = await self._first(collection, change)
        return dataclasses.replace(change, guard=guard), last if key is ANY else key

    async def _first(self, collection: str, change: Found) -> Key:
        """The key of the first document that matches, `ANY` if none does."""
        if isinstance(change, Delete):
            # One searches at a time: another one would find the same document.
            async with self._turns.turn(_address(collection, change)):
                return await self._first_to_delete(collection, change)
        found = await self._find(collection, change, 1)
        return found[0] if found else ANY

    async def _first_to_delete(self, collection: str, change: Delete) -> Key:
        """The first that no other delete of this process is about to take, reserved. If all are taken, waits until one
        of those deletes has ended."""
        busy = self._deleting[collection]
        while True:
            found = await self._find(collection, change, len(busy) + 1)
            if not found:
                return ANY
            places = {queue_key(collection, key): key for key in found}
            for place, key in places.items():
                if place not in busy:
                    busy[place] = asyncio.get_running_loop().create_future()
                    return key
            await asyncio.wait({busy[place] for place in places}, return_when=asyncio.FIRST_COMPLETED)

    async def _find(self, collection: str, change: Found, limit: int) -> list[Key]:
        filter = self._unexpired(collection, change.filter)
        query = Query(filter=filter, projection={"_id": 1}, sort=change.sort, limit=limit, newest=True)
        store = await self._primary(collection)
        with self._traces.request(store.name):
            return [hit.key async for page in store.find(collection, query) for hit in page]


def _has_lost(result: Result) -> bool:
    """Whether the write was refused because another writer was first, so that the next search may find another."""
    return isinstance(result, OperationFailure) and result.code == _WRITE_CONFLICT


def _address(collection: str, change: Found) -> Hashable:
    return queue_key(collection, [change.filter, [list(each) for each in change.sort]])
