"""A table in ranges: the segments of a scan, each of which can be resumed after the last key that was read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from shadow.model.stored import is_readable
from shadow.model.version import ABSENT, Document, Image, Key
from shadow.mongoql import cached_filter
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.query.fetching import Fetch
from shadow.stores.dynamo.query.plan import ScanPlan
from shadow.stores.dynamo.query.reads import CollectionTable, Reader, scan_request
from shadow.stores.dynamo.tables.options import describe_table
from shadow.stores.ranges import Batch

__all__ = ["DynamoRanges", "PutAbsent"]

PutAbsent: TypeAlias = Callable[[str, Sequence[Key], Sequence[Image]], Awaitable[list[bool]]]

_STAMP: Final = Fetch(frozenset(), stamp_only=True)


class DynamoRanges:
    """`table` returns the description of a collection's table; `put_absent` inserts (collection, keys, images) where
    nothing is stored."""

    def __init__(
        self, gateway: Gateway, reader: Reader, table: Callable[[str], CollectionTable], put_absent: PutAbsent
    ) -> None:
        self._gateway = gateway
        self._reader = reader
        self._table = table
        self._put_absent = put_absent

    async def estimate(self, collection: str) -> int:
        described = await describe_table(self._gateway, self._table(collection).name)
        return 0 if described is None else int(described.get("ItemCount", 0))

    async def cut(self, collection: str, parts: int) -> list[Document]:
        return [{"segment": number, "of": parts} for number in range(parts)]

    async def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int, whole: bool, filter: Document
    ) -> AsyncGenerator[Batch, None]:
        table = self._table(collection)
        matches = cached_filter(filter).matches if filter else None
        fetch = None if whole or filter else _STAMP
        segment = {"Segment": within["segment"], "TotalSegments": within["of"]}
        request = {**scan_request(table, ScanPlan(), fetch), **segment}
        while True:
            start = {"ExclusiveStartKey": {"_id": {"S": place["after"]}}} if place is not None else {}
            answer = await self._gateway.call("scan", table.name, **request, **start, Limit=size)
            items = answer.get("Items", [])
            if fetch is None:
                pairs = await self._reader.documents(table, items)
            else:
                pairs = [(item, table.codec.stamp(item)) for item in items]
            # Whether an unreadable document would match is unknown, so it is included.
            kept = [
                (*table.codec.key(item), image)
                for item, image in pairs
                if matches is None or not is_readable(image.document) or matches(image.document or {})
            ]
            last = answer.get("LastEvaluatedKey")
            if last or items:
                place = {"after": (last or items[-1])["_id"]["S"]}
                named = [(key, image) for key, fault, image in kept if not fault]
                yield Batch(named, place, [(key, fault) for key, fault, _ in kept if fault])
            if not last:
                return

    async def look(self, collection: str, keys_: Sequence[Key], *, whole: bool) -> list[Image]:
        table = self._table(collection)
        texts = [keys.key_text(key) for key in keys_]
        items = await self._reader.get_many(table, texts, None if whole else _STAMP)
        present = list(items.values())
        decoded = await self._reader.images(table, present) if whole else [table.codec.stamp(one) for one in present]
        images = dict(zip(items, decoded, strict=True))
        return [images.get(text, Image(ABSENT)) for text in texts]

    async def put_absent(self, collection: str, images: Sequence[tuple[Key, Image]]) -> list[bool]:
        return await self._put_absent(collection, [key for key, _ in images], [image for _, image in images])
