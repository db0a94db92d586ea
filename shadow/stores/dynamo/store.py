"""DynamoDB as a document store, by the contract of `stores.base`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.model.version import Image
from shadow.mongoql.expiry import live
from shadow.stores.dynamo.buffered import BufferedStore
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.context import DEFAULTS, DynamoContext
from shadow.stores.dynamo.items import unique
from shadow.stores.dynamo.items.codec import Encoded
from shadow.stores.dynamo.primary import DynamoPrimary
from shadow.stores.dynamo.query.ranges import DynamoRanges
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.reads import DynamoReads
from shadow.stores.dynamo.secondary import DynamoSecondary
from shadow.stores.dynamo.streaming import DynamoStreaming
from shadow.stores.dynamo.upkeep import DynamoUpkeep
from shadow.stores.dynamo.write.buffer import Buffer
from shadow.stores.dynamo.write.stamps import DynamoStamps
from shadow.stores.dynamo.write.writes import FoundItem

__all__ = ["DynamoContext", "DynamoStore"]


class DynamoStore(DynamoReads, DynamoPrimary, DynamoSecondary, DynamoUpkeep, DynamoStreaming):
    """One table per collection. For one event loop: the client is created inside it at first use.

    Reader, primary, secondary, and manager of its tables, whose streams it reads; `ranges` and `stamps` are for jobs.
    For the arguments see `DynamoAccess`.
    """

    name = StoreName.DYNAMO

    def __init__(
        self,
        settings: DynamoSettings,
        specs: Mapping[str, CollectionSpec],
        *,
        client: Any = None,
        context: DynamoContext = DEFAULTS,
    ) -> None:
        super().__init__(settings, specs, client=client, context=context)
        self.ranges = DynamoRanges(self._gateway, self._reader, self._table, self._copy_absent)
        self.stamps = DynamoStamps(self._gateway, self._reader, self._table)

    # --- transactions -------------------------------------------------------------------------------------------

    def buffer(self) -> Buffer:
        return Buffer()

    def in_transaction(self, buffer: Any) -> BufferedStore:
        return BufferedStore(self, buffer)

    async def commit(self, buffer: Any) -> None:
        await self._committer.commit(buffer)

    def table_of(self, collection: str) -> CollectionTable:
        """The table of a collection."""
        return self._table(collection)

    async def found(self, table: CollectionTable, key_text: str) -> FoundItem:
        """What a key holds."""
        return await self._found(table, key_text)

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
