"""Removes versions and tombstones from a table.

Of the reserved attribute, `b`, `r` (the version) and `o` (the last operation) are removed. The parts needed to decode
the document stay (`h`, `a`, and the body or its location: `z`, `g`, `n`), and so do the items of unique constraints and
the parts of large documents. If the reserved attribute has no other parts, it is removed completely.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

from shadow.model.version import Document, Image, Key, State, Tombstone, Unknown
from shadow.stores.dynamo.client.gateway import ConditionFailed, Gateway
from shadow.stores.dynamo.items.codec import Item
from shadow.stores.dynamo.items.expressions import Expression, exactly
from shadow.stores.dynamo.query.fetching import Fetch
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.ranges import Batch
from shadow.stores.stamps import Stamp

__all__ = ["DynamoStamps"]

_TAKEN: Final = ("b", "r", "o")
_KEPT: Final = ("h", "a", "z", "g", "n")
_LOOKED_AT: Final = ("b", "r", "t", "o", "h", "a", "g")
"""Without `z`, the compressed body, which may be as large as an item; a document with one takes two requests."""
_KEY_AND_STAMP: Final = Fetch(frozenset())


class DynamoStamps:
    """`table` describes a collection's table."""

    def __init__(self, gateway: Gateway, reader: Reader, table: Callable[[str], CollectionTable]) -> None:
        self._gateway = gateway
        self._reader = reader
        self._table = table

    async def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int
    ) -> AsyncGenerator[Batch, None]:
        table = self._table(collection)
        segment = {"Segment": within["segment"], "TotalSegments": within["of"]}
        request = {**_scan(table), **segment, "Limit": size}
        while True:
            start = {"ExclusiveStartKey": {"_id": {"S": place["after"]}}} if place is not None else {}
            answer = await self._gateway.call("scan", table.name, **request, **start)
            items, last = answer.get("Items", []), answer.get("LastEvaluatedKey")
            if last or items:
                place = {"after": (last or items[-1])["_id"]["S"]}
                stamps = [_stamp(table, item) for item in items]
                yield Batch([(each, Image(each.state)) for each in stamps], place)
            if not last:
                return

    async def look(self, collection: str, keys: Sequence[Key]) -> list[Stamp | None]:
        table = self._table(collection)
        items = await self._reader.get_many(table, keys, _KEY_AND_STAMP)
        stamps = {text: _stamp(table, item) for text, item in items.items() if _is_stamped(table, item)}
        return [stamps.get(key) for key in keys]

    async def strip(self, collection: str, stamps: Sequence[Stamp]) -> list[bool]:
        table = self._table(collection)
        done = await asyncio.gather(*(self._strip(table, each) for each in stamps))
        refused = [stamp.key for stamp, one in zip(stamps, done, strict=True) if not one]
        if not refused:
            return list(done)
        # The client may have sent a request twice, and the second one finds nothing if the first one was applied.
        left = dict(zip(refused, await self.look(collection, refused), strict=True))
        return [one or left[stamp.key] is None for stamp, one in zip(stamps, done, strict=True)]

    async def _strip(self, table: CollectionTable, stamp: Stamp) -> bool:
        if isinstance(stamp.state, Unknown):
            return False  # shadow did not write it, so it must not remove it
        if isinstance(stamp.state, Tombstone):
            return await self._asked("delete_item", table, stamp) is None
        if not stamp.rest:
            failed = await self._asked("update_item", table, stamp, whole=True)
            if failed is None or failed.item is None or not _has_more(table, failed.item, stamp):
                return failed is None
        return await self._asked("update_item", table, stamp) is None

    async def _asked(
        self, verb: str, table: CollectionTable, stamp: Stamp, *, whole: bool = False
    ) -> ConditionFailed | None:
        """Sends the request on the condition that the stamp is unchanged; returns the failure if it was not applied."""
        expression, reserved = Expression(), table.spec.reserved
        tests = [_as_seen(expression, reserved, stamp)]
        change: dict[str, str] = {}
        if whole:
            tests += [f"attribute_not_exists({expression.path(reserved, name)})" for name in _KEPT]
            change["UpdateExpression"] = f"REMOVE {expression.path(reserved)}"
        elif verb == "update_item":
            change["UpdateExpression"] = f"REMOVE {', '.join(expression.path(reserved, name) for name in _TAKEN)}"
        try:
            await self._gateway.call(
                verb,
                table.name,
                TableName=table.name,
                Key={"_id": {"S": stamp.key}},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                ReturnConsumedCapacity="INDEXES",
                **expression.parameters(ConditionExpression=" AND ".join(tests), **change),
            )
        except ConditionFailed as failed:
            return failed
        return None

    async def clear(self, collection: str) -> None:
        """Does nothing: a table has no index or setting for stamps alone; its expiry also serves a later migration."""


def _scan(table: CollectionTable) -> dict[str, Any]:
    """The parameters of a consistent scan of all items with a stamp."""
    expression, reserved = Expression(), table.spec.reserved
    some = " OR ".join(f"attribute_exists({expression.path(reserved, name)})" for name in (*_TAKEN, "t"))
    paths = [expression.path("_id"), *(expression.path(reserved, name) for name in _LOOKED_AT)]
    return {
        "TableName": table.name,
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        **expression.parameters(
            FilterExpression=f"attribute_not_exists({expression.path(reserved, 'k')}) AND ({some})",
            ProjectionExpression=", ".join(paths),
        ),
    }


def _as_seen(expression: Expression, reserved: str, stamp: Stamp) -> str:
    writer = expression.path(reserved, "o")
    same = f"{writer} = {expression.value({'S': stamp.writer})}" if stamp.writer else f"attribute_not_exists({writer})"
    return f"{exactly(expression, reserved, stamp.state)} AND {same}"


def _stamp(table: CollectionTable, item: Item) -> Stamp:
    shadow = item.get(table.spec.reserved, {}).get("M", {})
    state: State = table.codec.state(item)
    return Stamp(item["_id"]["S"], state, table.codec.op_id(item), any(name in shadow for name in _KEPT))


def _is_stamped(table: CollectionTable, item: Item) -> bool:
    shadow = item.get(table.spec.reserved, {}).get("M", {})
    return "k" not in shadow and any(name in shadow for name in (*_TAKEN, "t"))


def _has_more(table: CollectionTable, item: Item, stamp: Stamp) -> bool:
    """Whether an item still exists, and has parts that must stay."""
    now = _stamp(table, item)
    return now.rest and (now.state, now.writer) == (stamp.state, stamp.writer)
