"""DynamoDB as a document store, by the contract of `stores.base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.stores.dynamo.buffered import BufferedStore
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.context import DEFAULTS, DynamoContext
from shadow.stores.dynamo.primary import DynamoPrimary
from shadow.stores.dynamo.query.ranges import DynamoRanges
from shadow.stores.dynamo.reads import DynamoReads
from shadow.stores.dynamo.secondary import DynamoSecondary
from shadow.stores.dynamo.streaming import DynamoStreaming
from shadow.stores.dynamo.upkeep import DynamoUpkeep
from shadow.stores.dynamo.write.buffer import Buffer
from shadow.stores.dynamo.write.stamps import DynamoStamps

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
