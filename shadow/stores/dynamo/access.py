"""What reads and writes of DynamoDB share: the gateway, the tables of the collections, the reader and the writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aioboto3

from shadow.model.schema import CollectionSpec
from shadow.model.version import Image
from shadow.mongoql.expiry import live
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.client.streams import StreamClient
from shadow.stores.dynamo.context import DEFAULTS, DynamoContext
from shadow.stores.dynamo.items import unique
from shadow.stores.dynamo.items.codec import Codec, Encoded
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.tables.manager import TableManager
from shadow.stores.dynamo.write.buffer import Committer
from shadow.stores.dynamo.write.constraints import Constraints
from shadow.stores.dynamo.write.inserts import Inserter
from shadow.stores.dynamo.write.replays import Replays
from shadow.stores.dynamo.write.sweeping import Sweeper
from shadow.stores.dynamo.write.together import Together
from shadow.stores.dynamo.write.writes import FoundItem, Writer
from shadow.stores.turns import Turns

__all__ = ["DynamoAccess"]


class DynamoAccess:
    """`specs` describes collections beyond their names. A `client` that was passed in (aioboto3's or aiobotocore's
    low-level client) is never closed."""

    def __init__(
        self,
        settings: DynamoSettings,
        specs: Mapping[str, CollectionSpec],
        *,
        client: Any = None,
        context: DynamoContext = DEFAULTS,
    ) -> None:
        self._settings = settings
        self._context = context
        self._gateway = Gateway(settings, client, context)
        self._streams = StreamClient(settings, client)
        self._names = tuple(specs)
        self._reader = Reader(
            self._gateway, settings, lambda name, *counts: context.on_scan(self._table(name).name, *counts)
        )
        self._writer = Writer(self._gateway, self._reader, context.on_lacking)
        self._inserter = Inserter(self._gateway, self._writer, transactional=settings.transactional_inserts)
        self._replays = Replays(self._gateway, self._reader, context.on_lacking)
        self._together = Together(self._reader, self._writer)
        self._committer = Committer(self._gateway, self._writer, self._together)
        self._sweeper = Sweeper(self._gateway, self._reader, self._writer)
        self._constraints = Constraints(self._gateway, self._reader, self._writer)
        self.manager = TableManager(self._gateway, settings.prepare_timeout, context.on_lacking)
        self._turns = Turns()
        self._tables = {name: self._made(spec) for name, spec in specs.items()}

    @property
    def link(self) -> Gateway:
        return self._gateway

    def _made(self, spec: CollectionSpec) -> CollectionTable:
        name = f"{self._settings.table_prefix}{spec.name}"
        return CollectionTable(name, f"{self._context.database}.{spec.name}", spec, Codec(spec))

    def _table(self, collection: str) -> CollectionTable:
        table = self._tables.get(collection)
        if table is None:
            table = self._tables[collection] = self._made(CollectionSpec(collection))
        return table

    async def close(self) -> None:
        await self._streams.close()
        await self._gateway.close()

    async def ping(self) -> None:
        await self._gateway.call("list_tables", "any table", Limit=1)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "dynamo",
            "driver": f"aioboto3 {aioboto3.__version__}",
            "endpoint": _without_credentials(self._settings.endpoint_url or f"AWS {self._settings.region}"),
            "region": self._settings.region,
            "table_prefix": self._settings.table_prefix,
        }

    def table_of(self, collection: str) -> CollectionTable:
        """The table of a collection."""
        return self._table(collection)

    async def found(self, table: CollectionTable, key_text: str) -> FoundItem:
        """What a key holds."""
        item = await self._reader.get(table, key_text)
        return FoundItem(item, await self._reader.image(table, item))

    async def encoded(self, table: CollectionTable, key_text: str, image: Image, op_id: str) -> Encoded | None:
        """The stored form of an image; None for one that is nothing."""
        return await self._writer.encode(table, key_text, image, op_id)

    async def owners(self, table: CollectionTable, names: Sequence[str]) -> dict[str, str]:
        """The documents that hold these unique values, and have not expired, by their items: the texts of both
        keys."""
        items = await self._reader.get_many(table, names)
        owners = {name: unique.owner_of(item, table.spec.reserved) for name, item in items.items()}
        heads = await self._reader.get_many(table, set(owners.values()))
        images = {text: await self._reader.image(table, head) for text, head in heads.items()}
        expiry = table.spec.expiry
        held = {text: unique.claims(table.spec, live(expiry, image).document) for text, image in images.items()}
        return {name: owner for name, owner in owners.items() if name in held.get(owner, {})}


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
