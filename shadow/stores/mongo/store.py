"""MongoDB as a store, by the contract of `stores.base`: through Motor, or through PyMongo's own async client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import WriteConcern
from pymongo.errors import DuplicateKeyError, OperationFailure

from shadow.model.batches import Result
from shadow.model.operation import Applied, Change, Insert, Query
from shadow.model.outcome import transient
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.model.version import Document, Key
from shadow.stores.mongo.access import DEFAULTS, MongoContext
from shadow.stores.mongo.durability import Lasting, strengthened, waiting
from shadow.stores.mongo.primary import MongoPrimary
from shadow.stores.mongo.ranges import MongoRanges
from shadow.stores.mongo.reads import MongoReads
from shadow.stores.mongo.secondary import MongoSecondary
from shadow.stores.mongo.sessions import SessionDatabase, inserted_under
from shadow.stores.mongo.shards import MongoShards
from shadow.stores.mongo.stamps import MongoStamps
from shadow.stores.mongo.statements import exactly, raw_of, replacing
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
        self.ranges = MongoRanges(self._lasting, self._reserved, raw_of, self._shards, self._expires)
        lasting = Lasting(self._plain, self._durability, self._max_time_ms)
        self.stamps = MongoStamps(lasting, self._reserved, self.ranges, exactly)

    def in_session(self, session: Any) -> MongoStore:
        """This store for calls that belong to the application's session, which is the driver's."""
        return SessionStore(self, session)

    async def make_lasting(self, session: Any) -> None:
        """Raises the write concern of the session's transaction to a majority, where a commit could be rolled back."""
        await self._durability.learn()
        options = getattr(session, "delegate", session)._transaction.opts
        asked = options.write_concern or WriteConcern()
        if self._durability.replicated and asked.document.get("w") != "majority":
            options._write_concern = waiting(strengthened(WriteConcern(**{**asked.document, "w": 1}), 3))


class SessionStore(MongoStore):
    """The store of `MongoStore.in_session`: each call of the application carries the driver's session, so that the
    server keeps it causally consistent, or within the session's transaction. Shadow's own calls carry none.

    Within a transaction the server ends everything at the first error, so no call is repeated, and none is made to find
    out what an error means. What could be in the way, a tombstone under the key of an insert, is deleted within the
    transaction beforehand."""

    def __init__(self, store: MongoStore, session: Any) -> None:
        # All but the ways of the application's calls is the store's own: its link, what it knows of the server.
        vars(self).update(vars(store))
        self._session = session
        self._database = SessionDatabase(store._database, session)
        self._exact = SessionDatabase(store._exact, session)
        self._shards = MongoShards(self.looks, self._exact, self._reserved, exactly, replacing)
        self._collections = {}
        self._by_options = {}

    @property
    def once(self) -> bool:
        return bool(self._session.in_transaction)

    async def _apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        if not self.once:
            return await super()._apply(collection, change, op_id)
        await self._clear(collection, inserted_under([change]))
        try:
            return await self._apply_once(collection, change, op_id)
        except DuplicateKeyError as refusal:
            raise await self._judged(collection, refusal) from None

    async def _insert_many(
        self, collection: str, inserts: Sequence[Insert], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        if not self.once:
            return await super()._insert_many(collection, inserts, ordered=ordered)
        await self._clear(collection, inserted_under(inserts))
        results = await super()._insert_many(collection, inserts, ordered=ordered)
        return [
            await self._judged(collection, each) if isinstance(each, DuplicateKeyError) else each for each in results
        ]

    async def keys(self, collection: str, filter: Document) -> list[Key]:
        query = Query(filter=filter, projection={"_id": 1}, newest=True)
        return [hit.key async for page in self.find(collection, query) for hit in page]

    async def change_many(self, collection: str, changes: Sequence[Change], op_ids: Sequence[str]) -> Sequence[Result]:
        """One after the other: the server has one call of a session at a time, and what a command for many documents
        would have to find out afterwards, a transaction can't."""
        results: list[Result] = []
        for change, op_id in zip(changes, op_ids, strict=True):
            try:
                results.append(await self.apply(collection, change, op_id))
            except Exception as error:
                results.append(error)
                break
        return results + [None] * (len(changes) - len(results))

    async def _clear(self, collection: str, keys: Sequence[Key]) -> None:
        """Deletes tombstones under these keys, within the transaction."""
        if keys:
            where = {"_id": {"$in": list(keys)}, f"{self._reserved(collection)}.t": {"$ne": None}}
            await self._collection(collection).delete_many(where)

    async def _judged(self, collection: str, refusal: DuplicateKeyError) -> OperationFailure:
        """The refusal; one that the application has to try again where tombstones were in the way, which are not any
        more."""
        if not await self._unique.make_way(collection, refusal):
            return refusal
        return transient("a tombstone was in the way of a unique value")
