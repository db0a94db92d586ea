"""MongoDB as a store, by the contract of `stores.base`: through Motor, or through PyMongo's own async client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.stores.mongo.access import DEFAULTS, MongoContext
from shadow.stores.mongo.durability import Lasting
from shadow.stores.mongo.primary import MongoPrimary
from shadow.stores.mongo.ranges import MongoRanges
from shadow.stores.mongo.reads import MongoReads
from shadow.stores.mongo.secondary import MongoSecondary
from shadow.stores.mongo.stamps import MongoStamps
from shadow.stores.mongo.statements import exactly, raw_of
from shadow.stores.mongo.upkeep import MongoUpkeep

__all__ = ["MongoContext", "MongoStore"]


class MongoStore(MongoReads, MongoPrimary, MongoSecondary, MongoUpkeep):
    """Reader, primary, secondary, and manager of its collections; `ranges` and `stamps` are for jobs. For the arguments
    see `MongoAccess`."""

    name = StoreName.MONGO

    def __init__(
        self,
        client: Any,
        database: str,
        specs: Mapping[str, CollectionSpec],
        *,
        owned: bool,
        context: MongoContext = DEFAULTS,
    ) -> None:
        super().__init__(client, database, specs, owned=owned, context=context)
        self.ranges = MongoRanges(self._lasting, self._reserved, raw_of, self._shards)
        lasting = Lasting(self._plain, self._durability, self._max_time_ms)
        self.stamps = MongoStamps(lasting, self._reserved, self.ranges, exactly)
