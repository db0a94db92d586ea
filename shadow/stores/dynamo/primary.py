"""Writes to DynamoDB as the primary: read, compute, and write back on condition that nothing has changed."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Final

from pymongo.errors import OperationFailure, WriteError

from shadow.model.bounds import check_outcome
from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Insert,
    Replace,
    Update,
    UpsertGuard,
)
from shadow.model.version import ABSENT, Document, Image, Key, Version
from shadow.mongoql import cached_filter
from shadow.mongoql.expiry import live
from shadow.stores.dynamo.access import DynamoAccess
from shadow.stores.dynamo.client.errors import outcome_unknown
from shadow.stores.dynamo.client.gateway import ConditionFailed
from shadow.stores.dynamo.client.limits import RANGE_LIMIT
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import whole
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.write.changes import Computation, computation
from shadow.stores.dynamo.write.upserts import guard_key, guard_of, last_inserted
from shadow.stores.dynamo.write.writes import NOTHING, FoundItem, expected_of

__all__ = ["DynamoPrimary"]

_PATIENCE: Final = 2
"""Lost races that are retried immediately; each further retry waits longer, up to `_LONGEST`."""
_LONGEST: Final = 0.32
"""Seconds. Each process has one writer per document at a time, so as many processes as round trips fit into this get
their turn."""
_WRITE_CONFLICT: Final = 112


class DynamoPrimary(DynamoAccess):
    def chooses(self, change: Change) -> bool:
        """DynamoDB changes an item by its key."""
        return False

    async def chosen(self, collection: str, op_id: str) -> Key:
        return ANY

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        table, name = self._table(collection), guard_key(change.filter)
        item = await self._reader.get(table, name)
        found = NOTHING if item is None else await self.found(table, last_inserted(table, item))
        seen = live(table.spec.expiry, found.image)
        matches = seen.present and cached_filter(change.filter).matches(whole(seen))
        return guard_of(table, name, item), whole(seen)["_id"] if matches else ANY

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        table = self._table(collection)
        text = keys.key_text(change.key)
        compute = computation(table.namespace, change)
        if isinstance(change, Insert):
            return await self._apply(table, text, change, compute, op_id, NOTHING)
        async with self._turns.turn((table.name, text)):
            found = await self.found(table, text)
            return await self._apply(table, text, change, compute, op_id, found)

    async def _apply(
        self, table: CollectionTable, text: str, change: Change, compute: Computation, op_id: str, found: FoundItem
    ) -> Applied | None:
        """Retries until it wins: a lost race is not a result."""
        until = asyncio.get_running_loop().time() + self._context.operation_limit / 2
        for attempt in itertools.count():
            seen = live(table.spec.expiry, found.image)
            after = compute(seen)
            if after is None:
                return None
            check_outcome(change, after.document, existed=seen.present)
            expected = expected_of(found)
            guard = change.guard if isinstance(change, Update | Replace) and not seen.present else None
            try:
                await self._writer.commit(table, text, expected, found, after, op_id, guard)
            except ConditionFailed as failed:
                if self._is_own(table, failed, change, after, op_id):
                    return _applied(seen, after)
                if asyncio.get_running_loop().time() > until:
                    break
                found = await self._after_lost_race(table, failed, change, attempt)
            else:
                return _applied(seen, after)
        message = f"too many concurrent changes of one document in {table.name}"
        raise OperationFailure(message, _WRITE_CONFLICT, {"code": _WRITE_CONFLICT, "errmsg": message})

    def _is_own(
        self, table: CollectionTable, failed: ConditionFailed, change: Change, after: Image, op_id: str
    ) -> bool:
        """Whether the conflicting item is this very write, applied by an earlier attempt of the client."""
        if failed.item is None:
            return False
        state = table.codec.state(failed.item)
        if isinstance(change, Insert) and isinstance(state, Version) and state.born == change.born:
            return True  # and perhaps changed by another writer since
        return state == after.state and table.codec.op_id(failed.item) == op_id

    async def _after_lost_race(
        self, table: CollectionTable, failed: ConditionFailed, change: Change, attempt: int
    ) -> FoundItem:
        if failed.retried and not isinstance(change, Insert):
            # An earlier attempt may have been applied and then overwritten; to compute again could apply it twice.
            raise outcome_unknown("delete_item" if isinstance(change, Delete) else "put_item", table.name)
        if attempt >= _PATIENCE:
            await asyncio.sleep(random.uniform(0, min(_LONGEST, 0.005 * 2.0 ** min(attempt - _PATIENCE, 10))))
        return FoundItem(failed.item, await self._reader.image(table, failed.item))

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        table = self._table(collection)
        if "_id" in table.codec.ranges and (size := len(keys.key_text(document["_id"]).encode())) > RANGE_LIMIT:
            text = f"an _id of {size} bytes: it is the range key of an index, where DynamoDB accepts {RANGE_LIMIT}"
            return WriteError(text, 2, {"index": 0, "code": 2, "errmsg": text})
        return unique.too_many(table.spec, document) if table.spec.unique else None

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        table, pairs = self._table(collection), list(zip(inserts, op_ids, strict=True))

        async def alone(insert: Insert, op_id: str) -> Applied | None:
            return await self.apply(collection, insert, op_id)

        if ordered:
            return await self._inserter.ordered(table, pairs, alone)
        return await self._inserter.unordered(table, pairs, alone)


def _applied(before: Image, after: Image) -> Applied:
    return Applied(before if before.present else Image(ABSENT), after)
