"""Writes by a condition that only MongoDB can check: a document is found by it, and changed by its key, at the version
that it had then.

At that version the condition holds, so the change needs no filter, and by its key it has an intent of its own. Where
another writer was faster, the document is looked for again: a lost race is never "no match".
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from pymongo.errors import OperationFailure

from shadow.model.keys import queue_key
from shadow.model.limits import Limits
from shadow.model.operation import Applied, Change, Delete, Hit, Query, Sort, Update, Verb
from shadow.model.version import Document, fresh_id
from shadow.stores.base import InTransaction, Store
from shadow.traces.spans import NO_TRACES, Traces

__all__ = ["ByVersion"]

_AT_ONCE: Final = 16
"""Concurrent writes of one call."""
_LONGEST: Final = 0.25
"""Seconds between two attempts, at most."""
_WRITE_CONFLICT: Final = 112

Result: TypeAlias = Applied | Exception | None
Found: TypeAlias = Update | Delete
Looked: TypeAlias = Callable[[], Awaitable[Hit | None]]


class ByVersion:
    """One for each event loop. `primary` returns the store that is the primary now; `write` makes a change by key."""

    def __init__(
        self,
        primary: Callable[[str], Awaitable[Store | InTransaction]],
        write: Callable[[str, Verb, Change], Awaitable[Sequence[Result]]],
        limits: Limits,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._primary = primary
        self._write = write
        self._limits = limits
        self._traces = traces

    async def first(self, collection: str, verb: Verb, change: Found) -> Result:
        """Changes the first document that the filter matches; None if there is none. Raises what searching raises."""

        async def look() -> Hit | None:
            found = await self._find(collection, change, change.filter, sort=change.sort, limit=1)
            return found[0] if found else None

        return await self._until_done(collection, verb, change, await look(), look)

    async def every(self, collection: str, verb: Verb, change: Found) -> list[Applied]:
        """Changes every document that the filter matches now. Raises the first error; changes that were made remain."""
        found = await self._find(collection, change, change.filter)
        applied: list[Applied] = []
        for start in range(0, len(found), _AT_ONCE):
            batch = [self._one(collection, verb, change, hit) for hit in found[start : start + _AT_ONCE]]
            results = await asyncio.gather(*batch, return_exceptions=True)
            applied += [each for each in results if isinstance(each, Applied)]
            for each in results:
                if isinstance(each, BaseException):
                    raise each
        return applied

    async def _one(self, collection: str, verb: Verb, change: Found, hit: Hit) -> Result:
        place = queue_key(collection, hit.key)

        async def look() -> Hit | None:
            keyed: Document = {"_id": hit.key}
            filter = {"$and": [change.filter, keyed]} if "_id" in change.filter else {**change.filter, **keyed}
            found = await self._find(collection, change, filter)
            # By a collation, other keys are found too.
            return next((each for each in found if queue_key(collection, each.key) == place), None)

        return await self._until_done(collection, verb, change, hit, look)

    async def _until_done(self, collection: str, verb: Verb, change: Found, hit: Hit | None, look: Looked) -> Result:
        until = asyncio.get_running_loop().time() + self._limits.operation
        for attempt in itertools.count():
            if hit is None:
                return None
            (result,) = await self._write(collection, verb, _pinned(change, hit))
            if result is not None:
                return result
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(random.uniform(0, min(_LONGEST, 0.002 * 2.0 ** min(attempt, 10))))
            hit = await look()
        message = f"too many concurrent changes of the documents that match in {collection}"
        return OperationFailure(message, _WRITE_CONFLICT, {"code": _WRITE_CONFLICT, "errmsg": message})

    async def _find(
        self, collection: str, change: Found, filter: Document, *, sort: Sort = (), limit: int = 0
    ) -> list[Hit]:
        query = Query(filter, {"_id": 1}, sort, limit=limit, newest=True, mongo_only=change.mongo_only)
        store = await self._primary(collection)
        with self._traces.request(store.name):
            return [hit async for page in store.find(collection, query) for hit in page]


def _pinned(change: Found, hit: Hit) -> Found:
    if isinstance(change, Delete):
        return dataclasses.replace(change, key=hit.key, sort=(), pin=hit.version, tombstone=fresh_id())
    born = fresh_id() if isinstance(change.update, list) else ""
    return dataclasses.replace(change, key=hit.key, sort=(), pin=hit.version, born=born)
