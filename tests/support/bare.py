"""Writers that go past the shim: the bare drivers, as an old service, a script or a person would use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from pymongo import MongoClient

from shadow.embedded.audit import dynamo_client
from shadow.stores.dynamo.items.keys import key_text
from tests.support.shadows import Site

__all__ = ["BareDynamo", "BareMongo", "BareWriter", "bare_writer"]


class BareWriter(Protocol):
    async def insert(self, key: Any) -> None: ...

    async def update(self, key: Any) -> None: ...

    async def replace(self, key: Any) -> None: ...

    async def delete(self, key: Any) -> None: ...


class BareMongo:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def _do(self, work: Callable[[Any], Any]) -> None:
        def call() -> None:
            with MongoClient[dict[str, Any]](self._site.mongo_url) as client:
                work(client[self._site.database][self._site.collection])

        await asyncio.to_thread(call)

    async def insert(self, key: Any) -> None:
        await self._do(lambda things: things.insert_one({"_id": key, "by": "a bare driver"}))

    async def update(self, key: Any) -> None:
        await self._do(lambda things: things.update_one({"_id": key}, {"$set": {"by": "a bare driver"}}))

    async def replace(self, key: Any) -> None:
        await self._do(lambda things: things.replace_one({"_id": key}, {"by": "a bare driver"}))

    async def delete(self, key: Any) -> None:
        await self._do(lambda things: things.delete_one({"_id": key}))


class BareDynamo:
    def __init__(self, site: Site) -> None:
        self._table = f"{site.prefix}{site.collection}"
        self._client = dynamo_client(site.dynamo_url)

    async def _put(self, key: Any) -> None:
        # A writer that knows nothing of shadow's layout: natural attributes, and no version beside them.
        item = {"_id": {"S": str(key)}, "by": {"S": "a bare driver"}}
        await asyncio.to_thread(self._client.put_item, TableName=self._table, Item=item)

    async def insert(self, key: Any) -> None:
        await self._put(key)

    async def update(self, key: Any) -> None:
        await asyncio.to_thread(
            self._client.update_item,
            TableName=self._table,
            Key={"_id": {"S": key_text(key)}},
            UpdateExpression="SET #f = :v",
            ExpressionAttributeNames={"#f": "by"},
            ExpressionAttributeValues={":v": {"S": "a bare driver"}},
        )

    async def replace(self, key: Any) -> None:
        await self._put(key)

    async def delete(self, key: Any) -> None:
        await asyncio.to_thread(self._client.delete_item, TableName=self._table, Key={"_id": {"S": key_text(key)}})


def bare_writer(site: Site) -> BareWriter:
    """One that writes to the site's primary."""
    return BareMongo(site) if site.primary == "mongo" else BareDynamo(site)
