"""Finds and deletes parts of large documents that a crash has left behind.

Finding them takes a scan. So a table is marked before the first large document is written to it, and tables without the
mark are never scanned. The mark records the time of the last sweep: a process moves that time forward in one
conditional write, so that of all processes on all hosts one sweeps a table in a period.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from bson import ObjectId
from pymongo.errors import OperationFailure

from shadow.stores.dynamo.client.gateway import ConditionFailed, Gateway
from shadow.stores.dynamo.items.codec import Item
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.write.writes import SWEEP_MARK, Writer

__all__ = ["Sweeper", "Sweeps", "sweep_forever"]

_NAMESPACE_NOT_FOUND: Final = 26
_LOOKS: Final = 8
"""How often per period each process checks whether it is over."""
_FIRST_LOOK: Final = 600.0


class Sweeper:
    def __init__(self, gateway: Gateway, reader: Reader, writer: Writer) -> None:
        self._gateway = gateway
        self._reader = reader
        self._writer = writer

    async def is_due(self, table: CollectionTable, every: float) -> bool:
        """Whether the table has had large documents and was last swept over `every` seconds ago; if so, only this
        caller sweeps it in this period."""
        now = time.time()
        expression = Expression()
        swept = expression.path(table.spec.reserved, "at")
        request: dict[str, Any] = {
            "TableName": table.name,
            "Key": {"_id": {"S": SWEEP_MARK}},
            "ReturnConsumedCapacity": "INDEXES",
            **expression.parameters(
                UpdateExpression=f"SET {swept} = {expression.value({'N': f'{now:.3f}'})}",
                ConditionExpression=f"{swept} <= {expression.value({'N': f'{now - every:.3f}'})}",
            ),
        }
        try:
            await self._gateway.call("update_item", table.name, **request)
        except ConditionFailed:
            return False
        except OperationFailure as error:
            if error.code == _NAMESPACE_NOT_FOUND:
                return False
            raise
        return True

    async def sweep(self, table: CollectionTable, older_than: dt.timedelta, *, dry_run: bool) -> int:
        """Deletes parts older than `older_than` that no head refers to; returns how many. `dry_run`: only counts
        them."""
        swept = 0
        async for items in self._reader.part_pages(table):
            left = [item for item in items if await self._is_left(table, item, older_than)]
            if not dry_run:
                await self._writer.delete_keys(table, [item["_id"]["S"] for item in left])
            swept += len(left)
        return swept

    async def _is_left(self, table: CollectionTable, item: Item, older_than: dt.timedelta) -> bool:
        stamp = item[table.spec.reserved]["M"]
        generation, owner = table.codec.generation(item), stamp.get("w", {}).get("S")
        if generation is None or not ObjectId.is_valid(generation) or owner is None:
            return False  # shadow did not write it, so its owner is unknown
        if ObjectId(generation).generation_time >= dt.datetime.now(dt.UTC) - older_than:
            return False
        head = await self._reader.get(table, owner)
        # By the generation alone: a head that cannot be read may still be repaired by hand.
        return head is None or table.codec.generation(head) != generation


@runtime_checkable
class Sweeps(Protocol):
    """A store of which parts of documents may be left by a crash."""

    async def sweep_if_due(self, collection: str, every: float) -> int: ...


async def sweep_forever(
    store: Sweeps,
    collections: Callable[[], Iterable[str]],
    every: float,
    on_error: Callable[[Exception], None],
    on_swept: Callable[[str, int], None],
    turn: Callable[[], None] = lambda: None,
) -> None:
    """Sweeps each of `collections` once in `every` seconds, until cancelled: one request at a time, at times that
    differ between processes. `on_error` is called with each failure; the next check tries again. `turn` is called at
    each check."""
    pause = min(every / _LOOKS, _FIRST_LOOK)
    while True:
        turn()
        await asyncio.sleep(random.uniform(0, pause))
        for collection in _shuffled(collections()):
            try:
                deleted = await store.sweep_if_due(collection, every)
            except Exception as error:
                on_error(error)
            else:
                if deleted:
                    on_swept(collection, deleted)
        pause = 2 * every / _LOOKS


def _shuffled(names: Iterable[str]) -> Sequence[str]:
    """In random order, so that processes that start together do not all wait for the same table."""
    listed = list(names)
    return random.sample(listed, len(listed))
