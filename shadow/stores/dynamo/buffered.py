"""DynamoDB within a transaction of the application: reads show the transaction's own writes, and writes are kept back
until the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from shadow.model.bounds import check_outcome
from shadow.model.operation import Applied, Change, Hit, Insert, Query
from shadow.model.phase import StoreName
from shadow.model.version import ABSENT, Document, Image
from shadow.mongoql import cached_pipeline
from shadow.mongoql.expiry import live
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.reads import DynamoReads
from shadow.stores.dynamo.write.buffer import Buffer, BufferedWrite
from shadow.stores.dynamo.write.changes import computation
from shadow.stores.memory import MemoryStore

__all__ = ["BufferedStore"]


class BufferedStore:
    """An `InTransaction`. Made for a few calls of one transaction."""

    name = StoreName.DYNAMO

    def __init__(self, store: DynamoReads, buffer: Buffer) -> None:
        self._store = store
        self._buffer = buffer

    def chooses(self, change: Change) -> bool:
        """See `Store.chooses`."""
        return False

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        if self._buffer.of(collection):
            return await (await self._overlaid({collection: query.filter})).find_one(collection, query)
        hit = await self._store.find_one(collection, query)
        if hit is not None:
            self._note(collection, hit)
        return hit

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        written = self._buffer.of(collection)
        source = await self._overlaid({collection: query.filter}) if written else self._store
        async for page in source.find(collection, query):
            if not written:
                for hit in page:
                    self._note(collection, hit)
            yield page

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        source = await self._overlaid({collection: filter}) if self._buffer.of(collection) else self._store
        return await source.count(collection, filter, skip, limit)

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        source = await self._overlaid({collection: filter}) if self._buffer.of(collection) else self._store
        return await source.distinct(collection, path, filter)

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        """After a write of the transaction to one of its collections, all of them are read whole."""
        names = {collection, *cached_pipeline(pipeline).collections}
        if not any(self._buffer.of(name) for name in names):
            return await self._store.aggregate(collection, pipeline)
        return await (await self._overlaid({name: {} for name in names})).aggregate(collection, pipeline)

    def _note(self, collection: str, hit: Hit) -> None:
        self._buffer.note(collection, keys.key_text(hit.key), hit.version)

    async def _overlaid(self, filters: Mapping[str, Document]) -> MemoryStore:
        """The documents that match these filters by collection, as the transaction sees them: with its own writes over
        those of the store."""
        memory = MemoryStore(StoreName.DYNAMO)
        for collection, filter in filters.items():
            own = {each.key_text for each in self._buffer.of(collection)}
            async for page in self._store.find(collection, Query(filter=filter)):
                for hit in page:
                    if keys.key_text(hit.key) not in own:
                        self._note(collection, hit)
                        await memory.put(collection, hit.key, Image(hit.version, hit.document), ABSENT)
            for each in self._buffer.of(collection):
                if each.after.present:
                    await memory.put(collection, each.key, each.after, ABSENT)
        return memory

    # --- writes -------------------------------------------------------------------------------------------------

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        """Keeps the change for the commit. Raises what `Store.apply` raises, a transient error if the document has
        changed since the transaction first read it, and `UnsupportedOperation` if the transaction gets too large."""
        table, text = self._store.table_of(collection), keys.key_text(change.key)
        place = collection, text
        kept = self._buffer.writes.get(place)
        found = kept.found if kept is not None else await self._store.found(table, text)
        before = live(table.spec.expiry, kept.after if kept is not None else found.image)
        if kept is None:
            self._buffer.check(collection, text, found.image.state)
        after = computation(table.namespace, change)(before)
        if after is None:
            return None
        check_outcome(change, after.document, existed=before.present)
        await self._check_unique(collection, table, text, before, after)
        encoded = await self._store.encoded(table, text, after, self._buffer.op_id)
        write = BufferedWrite(table, change.key, text, found, after, encoded)
        self._buffer.check_room(place, write)
        self._buffer.writes[place] = write
        return Applied(before if before.present else Image(ABSENT), after)

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        """The first error ends it, as it ends a transaction of MongoDB."""
        results: list[Applied | Exception | None] = []
        for insert, op_id in zip(inserts, op_ids, strict=True):
            try:
                results.append(await self.apply(collection, insert, op_id))
            except Exception as error:
                results.append(error)
                break
        return results + [None] * (len(inserts) - len(results))

    async def _check_unique(
        self, collection: str, table: CollectionTable, text: str, before: Image, after: Image
    ) -> None:
        """Raises `DuplicateKeyError` for a unique value that another document holds, as the transaction sees it."""
        taken, _ = unique.changed_claims(table.spec, before.document, after.document)
        if not taken:
            return
        own = {each.key_text: each for each in self._buffer.of(collection)}
        for each in own.values():
            held = unique.claims(table.spec, each.after.document) if each.key_text != text else {}
            for name in taken.keys() & held.keys():
                raise unique.violation(table.namespace, taken[name])
        for name, owner in (await self._store.owners(table, list(taken))).items():
            if owner != text and owner not in own:
                raise unique.violation(table.namespace, taken[name])
