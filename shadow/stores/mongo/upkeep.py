"""The indexes of a MongoDB collection, its kind, and whether it has been recreated."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import (
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
)
from pymongo.operations import IndexModel
from pymongo.read_concern import ReadConcern

from shadow.errors import UnsupportedOperation
from shadow.model.collations import as_options
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.server_options import sent_with
from shadow.stores.mongo.access import MongoAccess
from shadow.stores.mongo.changes import Bare, bare_writes, past_writes
from shadow.stores.mongo.kinds import UnfitKind
from shadow.stores.past import PastPage

__all__ = ["WITNESS", "MongoUpkeep"]

_SAME_KEYS: Final = frozenset({85})
"""IndexOptionsConflict: an index of these keys exists, under another name or with other options."""
_SAME_INDEX: Final = _SAME_KEYS | {86}
"""IndexKeySpecsConflict as well: such an index exists, under another name."""
_UNAUTHORIZED: Final = 13
READ_MAJORITY: Final = ReadConcern("majority")
"""The only read concern that change streams accept (manual, "Change Streams")."""
WITNESS: Final = "shadow_witness"
"""The collection of the database in which `set_token` stores its token."""


async def _unless(call: Awaitable[Any], codes: frozenset[int]) -> None:
    """Awaits the creation of an index. One of these error codes means that it already exists."""
    try:
        await call
    except OperationFailure as error:
        if error.code not in codes:
            raise


class MongoUpkeep(MongoAccess):
    async def has_stamps(self, collection: str, patience: float) -> bool:
        """Whether a document has a version, or there is a tombstone; True where `patience` seconds were not enough
        to search all of it."""
        reserved = self._reserved(collection)
        stamped = {"$or": [{f"{reserved}.{part}": {"$exists": True}} for part in ("b", "r", "t")]}
        try:
            found = await self._exact[collection].find_one(stamped, {"_id": 1}, max_time_ms=int(patience * 1000))
        except ExecutionTimeout:
            return True
        except OperationFailure as error:
            # The application may only write, so this is unknown: versions and tombstones are hidden.
            if error.code != _UNAUTHORIZED:
                raise
            return True
        return found is not None

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        for spec in collections:
            await self._plain[spec.name].create_index(
                f"{spec.reserved}.x", name=f"{spec.reserved}_ttl", expireAfterSeconds=0, sparse=True
            )
            # Recovery finds the document that an operation has chosen by it; only such documents are in it.
            await self._plain[spec.name].create_index(f"{spec.reserved}.o", name=f"{spec.reserved}_op", sparse=True)
            await self._unique.clear(spec.name, [unique.fields for unique in spec.unique])
            for unique in spec.unique:
                await self._make_unique(spec.name, unique)

    async def _make_unique(self, collection: str, unique: UniqueSpec) -> None:
        """The unique index that the configuration declares."""
        keys = [(path, 1) for path in unique.fields]
        options = as_options(unique.collation)
        made = self._collection(collection).create_index(
            keys, name=unique.name, unique=True, sparse=unique.sparse, **options
        )
        await _unless(made, _SAME_INDEX)
        self._unique.forget(collection)

    async def ensure_index(self, collection: str, keys: Any, name: str, **options: Any) -> bool:
        await _unless(self._collection(collection).create_index(list(keys), name=name, **options), _SAME_KEYS)
        return True

    async def create_index(self, collection: str, keys: Any, options: Mapping[str, Any]) -> str:
        """The driver's own. Tombstones get out of the way of a unique one."""

        async def make() -> Any:
            return await self._collection(collection).create_index(keys, **options)

        unique = [IndexModel(keys)] if options.get("unique") else []
        return str(await self._making_way(collection, unique, make))

    async def create_indexes(
        self, collection: str, models: Sequence[IndexModel], options: Mapping[str, Any]
    ) -> list[str]:
        """The driver's own. Tombstones get out of the way of unique ones."""

        async def make() -> Any:
            return await self._collection(collection).create_indexes(models, **options)

        unique = [each for each in models if each.document.get("unique")]
        return [str(each) for each in await self._making_way(collection, unique, make)]

    async def _making_way(
        self, collection: str, unique: Sequence[IndexModel], make: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Tombstones that may be the duplicates get values of their own, and the index is tried again."""
        try:
            return await make()
        except DuplicateKeyError:
            await self._unique.clear(collection, [tuple(each.document["key"]) for each in unique])
            return await make()
        finally:
            self._unique.forget(collection)

    async def indexes(self, collection: str) -> list[Any]:
        """As `listIndexes` returns them; empty if there is no collection. Raises what the driver raises."""
        cursor = self._plain[collection].list_indexes(**sent_with("list_indexes"))
        if inspect.isawaitable(cursor):
            cursor = await cursor
        return list(await cursor.to_list(length=None))

    async def expiring(self, collection: str) -> list[str]:
        """How the server deletes documents of the application by itself: the fields of TTL indexes, and `_id` for a
        collection that is clustered with `expireAfterSeconds`. Raises what the driver raises."""
        reserved = self._reserved(collection)
        found = await self.looks.listed(collection)
        fields = ["_id"] if "expireAfterSeconds" in found.options and "clusteredIndex" in found.options else []
        for index in await self.indexes(collection):
            fields += [path for path in index["key"] if "expireAfterSeconds" in index and path != f"{reserved}.x"]
        return fields

    async def drop_index(self, collection: str, name: str, options: Mapping[str, Any]) -> None:
        """Raises OperationFailure, code 27, if there is none of that name."""
        await self._collection(collection).drop_index(name, **options)
        self._unique.forget(collection)

    async def drop(self, collection: str) -> None:
        await self._collection(collection).drop()

    async def identity(self, collection: str) -> str:
        """The collection's UUID; "" if there is none. Source: the server's manual, `listCollections`."""
        return await self.looks.identity(collection)

    async def token(self, collection: str) -> str:
        """The token that `set_token` stored in the collection `shadow_witness` of the database."""
        found = await self._exact[WITNESS].find_one({"_id": collection})
        return "" if found is None else str(found["token"])

    async def set_token(self, collection: str, token: str) -> None:
        await self._exact[WITNESS].update_one({"_id": collection}, {"$set": {"token": token}}, upsert=True)

    @property
    def unfit(self) -> Mapping[str, UnfitKind | None]:
        return self.looks.unfit

    async def look(self, collection: str) -> UnfitKind | None:
        return await self.looks.look(collection)

    def bare_writes(self, after: Mapping[str, Any] | None) -> AsyncIterator[tuple[Bare, Mapping[str, Any]]]:
        """The writes to configured collections without a new version; see `changes`."""
        return bare_writes(self._watched(), self._reserved_fields(), after)

    def past_writes(self, cursor: Mapping[str, Any] | None) -> AsyncIterator[PastPage]:
        """See `Streaming`."""
        return past_writes(self._watched(), self._reserved_fields(), cursor)

    async def check_stream(self, collections: Iterable[str]) -> None:
        """See `Streaming`."""
        found = await self._plain.command("hello")
        if "setName" not in found and found.get("msg") != "isdbgrid":
            raise UnsupportedOperation(
                "observe.follow_writers",
                "this MongoDB is no replica set, so it reports no changes",
                hint="make it a replica set of one member (mongod --replSet NAME, then rs.initiate()), or set "
                "observe.follow_writers: false and move every writer to shadow",
            )

    def _watched(self) -> Any:
        return self._plain.with_options(read_concern=READ_MAJORITY)

    def _reserved_fields(self) -> dict[str, str]:
        return {name: spec.reserved for name, spec in self._specs.items()}
