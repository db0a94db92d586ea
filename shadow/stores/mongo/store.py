"""MongoDB as a store, through Motor or through PyMongo's own async client.

The version moves in the same atomic command as the change: `find_one_and_update` and its kin, which also answer the
image before the change. The image after it follows from that by `mongoql`, which saves the second round trip
and leaves `modified_count` what MongoDB would have said.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import pymongo
from pymongo import AsyncMongoClient, ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteError,
)
from pymongo.read_concern import ReadConcern

from shadow.model.newest import wants_newest
from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Hit,
    Insert,
    Query,
    Replace,
    Sort,
    Update,
    UpsertGuard,
    Write,
)
from shadow.model.order import MISSING
from shadow.model.outcome import Outcome, classify, marked
from shadow.model.phase import StoreName
from shadow.model.schema import RESERVED, CollectionSpec, UniqueSpec
from shadow.model.stored import RAW, Damaged, document_of, split
from shadow.model.values import CANONICAL
from shadow.model.version import (
    ABSENT,
    Document,
    Image,
    Key,
    State,
    Tombstone,
    Unknown,
    Version,
)
from shadow.mongoql import cached_filter
from shadow.mongoql.upserts import keeps_key
from shadow.stores.mongo import limits as mongo_limits
from shadow.stores.mongo.bulk import in_one_batch, write_concern_error
from shadow.stores.mongo.bytes import has_empty_timestamp, literal, plain_errors, taken
from shadow.stores.mongo.calls import MongoLink
from shadow.stores.mongo.changes import Bare, bare_writes
from shadow.stores.mongo.durability import LOCAL, MAJORITY, Durability, Lasting, WeakWrites, waiting
from shadow.stores.mongo.kinds import UnfitKind
from shadow.stores.mongo.looks import MongoLooks
from shadow.stores.mongo.ranges import MongoRanges
from shadow.stores.mongo.shards import MongoShards, beside
from shadow.stores.mongo.stamps import MongoStamps
from shadow.stores.mongo.statements import (
    after_upsert,
    applied_after,
    check_upsert_key,
    exactly,
    hide,
    hide_joined,
    hit_of,
    inserting,
    is_plain,
    is_under,
    key_of_change,
    next_version,
    own_id,
    project,
    raw_of,
    replacing,
    stamping,
    where_of,
)
from shadow.stores.mongo.unique import MongoUnique
from shadow.stores.mongo.validation import past_validator

__all__ = ["COLLECTION_VERBS", "WITNESS", "MongoStore", "call_signature", "collection_class", "connect", "driver_of"]

_SAME_KEYS: Final = frozenset({85})
"""IndexOptionsConflict: an index of these keys exists, under another name or with other options."""
_SAME_INDEX: Final = _SAME_KEYS | {86}
"""IndexKeySpecsConflict as well: such an index exists, under another name."""
_NOT_OF_THE_WRITE: Final = frozenset({13, 18, 59, 72, 115})
"""Codes of a command that the server would not run at all (Unauthorized, AuthenticationFailed, CommandNotFound,
InvalidOptions, CommandNotSupported; MongoDB's error_codes.yml)."""

_UNAUTHORIZED: Final = 13
_OWN: Final[Mapping[str, Any]] = {
    "own": True,
    "read_preference": ReadPreference.PRIMARY,
    "read_concern": LOCAL,
    "write_concern": MAJORITY,
}
"""Of the databases by which shadow asks what the application has not asked: nothing of it is up to the application's
client, which may read from members that lag and write without an answer."""
READ_MAJORITY: Final = ReadConcern("majority")
"""The only one with which a change stream is answered (manual, "Change Streams")."""

_PAGE: Final = 100
"""Documents fetched at a time where the application named no batch size; MongoDB's own first batch has 101."""


WITNESS: Final = "shadow_witness"
"""The collection of the database in which `set_token` keeps what it is given."""


def connect(url: str, driver: str) -> Any:
    """A client of our own: `motor` or `pymongo` (its async client). Connects on first use."""
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        return AsyncIOMotorClient(url)
    return AsyncMongoClient(url)


def driver_of(client: Any) -> str:
    """Which driver a client is of: `motor` or `pymongo`."""
    return "motor" if type(client).__module__.startswith("motor") else "pymongo"


def collection_class(driver: str) -> type[Any]:
    """The class of a driver's collections."""
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorCollection

        return AsyncIOMotorCollection
    return AsyncCollection


COLLECTION_VERBS: Final = frozenset(name for name in dir(AsyncCollection) if not name.startswith("_"))
"""The public attributes of the drivers' collections; Motor's have a few more."""


@functools.cache
def call_signature(verb: str) -> inspect.Signature:
    """What a verb of the drivers' collections takes; for `find`, what its cursor takes."""
    return inspect.signature(AsyncCursor.__init__ if verb == "find" else getattr(AsyncCollection, verb))


class MongoStore:
    """`client` is Motor's or PyMongo's async client; `owned` says whether `close` ends it.

    `specs` names the reserved field of each collection; collections without an entry use the default. `again` makes
    another client like `client`, should that one, if it is `owned`, answer nothing any more.
    """

    name = StoreName.MONGO

    def __init__(
        self,
        client: Any,
        database: str,
        specs: Mapping[str, CollectionSpec],
        *,
        owned: bool,
        operation_limit: float = 30.0,
        again: Callable[[], Any] | None = None,
        weak_writes: WeakWrites = WeakWrites.RAISE,
        on_raised: Callable[[str], None] = lambda asked: None,
        on_doubt: Callable[[str], None] = lambda collection: None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """`again` makes another client like an owned one; `options` are those of a database object of the application's
        (`codec_options`, `read_preference`, `write_concern`, `read_concern`), before the client's; for the rest see
        `Durability`."""
        self.link = link = MongoLink(client, again if owned else None, patience=operation_limit / 2)
        self._options = dict(options or {})
        asked = self._options.get("write_concern")
        self._durability = Durability(link, weak=weak_writes, on_raised=on_raised, on_doubt=on_doubt, asked=asked)
        self.refuses = self._durability.refuses
        self._on_doubt = on_doubt
        self._name = database
        self._owned = owned
        self._specs = specs
        # Opening the intent, the way to the server and the skew of clocks have to fit into the limit as well.
        self._max_time_ms = max(1, int(operation_limit * 500))
        self._database = link.database(database, **{**self._options, "codec_options": CANONICAL})
        # Versions are read where they were written: a member that lags would make heal copy an older image.
        self._exact = link.database(database, codec_options=RAW, **_OWN)
        self._plain = plain = link.database(database, codec_options=CANONICAL, **_OWN)
        self._collections: dict[tuple[str, bool, bool], Any] = {}
        self._concern: WriteConcern = waiting(client.write_concern if asked is None else asked)
        self.looks = MongoLooks(link, plain, self._reserved)
        self._shards = MongoShards(self.looks, self._exact, self._reserved, exactly, replacing)
        lasting = Lasting(self._exact, self._durability, self._max_time_ms)
        self.ranges = MongoRanges(lasting, self._reserved, raw_of, self._shards)
        self.stamps = MongoStamps(
            Lasting(plain, self._durability, self._max_time_ms), self._reserved, self.ranges, exactly
        )
        self._lasting = lasting
        self._unique = MongoUnique(plain, self._reserved)

    @property
    def driver(self) -> Any:
        """The driver's database object, with the client's own options."""
        return self.client.get_database(self._name, **self._options)

    async def has_stamps(self, collection: str, patience: float) -> bool:
        """Whether a document carries a version, or a tombstone stands; True where `patience` seconds did not do to
        look through all of it."""
        reserved = self._reserved(collection)
        stamped = {"$or": [{f"{reserved}.{part}": {"$exists": True}} for part in ("b", "r", "t")]}
        try:
            found = await self._exact[collection].find_one(stamped, {"_id": 1}, max_time_ms=int(patience * 1000))
        except ExecutionTimeout:
            return True
        except OperationFailure as error:
            # An application that may only write: nobody can say, and what may be there is hidden.
            if error.code != _UNAUTHORIZED:
                raise
            return True
        return found is not None

    @property
    def client(self) -> Any:
        """The driver's client that is in use now."""
        return self.link.client

    # --- life ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        await self.link.close(owned=self._owned)

    async def ping(self) -> None:
        await self._database.command("ping")

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        for spec in collections:
            await self._plain[spec.name].create_index(
                f"{spec.reserved}.x", name=f"{spec.reserved}_ttl", expireAfterSeconds=0, sparse=True
            )
            # By what recovery finds the document that an operation has chosen; only such documents are in it.
            await self._plain[spec.name].create_index(f"{spec.reserved}.o", name=f"{spec.reserved}_op", sparse=True)
            await self._unique.clear(spec.name, [unique.fields for unique in spec.unique])
            for unique in spec.unique:
                await self._make_unique(spec.name, unique)

    async def _make_unique(self, collection: str, unique: UniqueSpec) -> None:
        """The unique index that the configuration declares."""
        keys = [(path, 1) for path in unique.fields]
        made = self._collection(collection).create_index(keys, name=unique.name, unique=True, sparse=unique.sparse)
        await _unless(made, _SAME_INDEX)
        self._unique.forget(collection)

    async def ensure_index(self, collection: str, keys: Sort, name: str, *, sparse: bool = False) -> bool:
        options = {"sparse": True} if sparse else {}
        await _unless(self._collection(collection).create_index(list(keys), name=name, **options), _SAME_KEYS)
        return True

    async def indexes(self, collection: str) -> list[Document]:
        """As `listIndexes` says; none where there is no collection. Raises what the driver raises."""
        cursor = self._plain[collection].list_indexes()
        if inspect.isawaitable(cursor):
            cursor = await cursor
        return [dict(each) for each in await cursor.to_list(length=None)]

    async def expiring(self, collection: str) -> list[str]:
        """By what the server deletes documents of the application by itself: the fields of TTL indexes, and `_id` for a
        collection that is clustered with `expireAfterSeconds`. Raises what the driver raises."""
        reserved = self._reserved(collection)
        found = await self.looks.listed(collection)
        fields = ["_id"] if "expireAfterSeconds" in found.options and "clusteredIndex" in found.options else []
        for index in await self.indexes(collection):
            fields += [path for path in index["key"] if "expireAfterSeconds" in index and path != f"{reserved}.x"]
        return fields

    async def drop_index(self, collection: str, name: str) -> None:
        """Raises OperationFailure, code 27, if there is none of that name."""
        await self._collection(collection).drop_index(name)

    async def drop(self, collection: str) -> None:
        await self._collection(collection).drop()

    # --- whether this is the same as before -----------------------------------------------------------------------

    async def identity(self, collection: str) -> str:
        """The collection's UUID; "" if there is none. Source: the server's manual, `listCollections`."""
        return await self.looks.identity(collection)

    async def token(self, collection: str) -> str:
        """What `set_token` has put into the collection `shadow_witness` of the database."""
        found = await self._exact[WITNESS].find_one({"_id": collection})
        return "" if found is None else str(found["token"])

    async def set_token(self, collection: str, token: str) -> None:
        await self._exact[WITNESS].update_one({"_id": collection}, {"$set": {"token": token}}, upsert=True)

    # --- whether two stores can hold it level -----------------------------------------------------------------------

    @property
    def unfit(self) -> Mapping[str, UnfitKind | None]:
        return self.looks.unfit

    async def look(self, collection: str) -> UnfitKind | None:
        return await self.looks.look(collection)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "mongo",
            "driver": driver_of(self.client),
            "database": str(self._database.name),
            "write_concern": self._durability.describe(),
        }

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        reserved = self._reserved(collection)
        options: dict[str, Any] = {"sort": list(query.sort)} if query.sort else {}
        if query.skip:
            options["skip"] = query.skip
        projection = project(query.projection, reserved)
        source = await self._read(collection, newest=query.newest)
        with plain_errors():
            raw = await source.find_one(hide(query.filter, reserved), projection, **options)
        return None if raw is None else hit_of(raw, reserved, query.projection)

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        reserved = self._reserved(collection)
        source = await self._read(collection, newest=query.newest)
        cursor = source.find(
            hide(query.filter, reserved),
            project(query.projection, reserved),
            skip=query.skip,
            limit=query.limit,
            sort=list(query.sort) or None,
            batch_size=query.batch_size,
        )
        size = query.batch_size or _PAGE
        try:
            while cursor.alive and (page := await _next_page(cursor, size)):
                hits = (hit_of(raw, reserved, query.projection) for raw in page)
                yield [hit for hit in hits if hit is not None]
        finally:
            # The server has closed it by itself if all was read, and a driver would go to a thread to find out.
            if cursor.alive:
                await cursor.close()

    def may_lag(self, collection: str, filter: Document) -> bool:
        """Reads go to the primary member, whose indexes are as new as its documents."""
        return False

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        options = {name: value for name, value in (("skip", skip), ("limit", limit)) if value}
        hidden = hide(filter, self._reserved(collection), always=True)
        source = await self._read(collection, raw=False)
        return int(await source.count_documents(hidden, **options))

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        hidden = hide(filter, self._reserved(collection), always=True)
        values = await self._read(collection, raw=False)
        if self._decoding_errors() != "strict":
            options = CANONICAL.with_options(unicode_decode_error_handler=self._decoding_errors())
            values = values.with_options(codec_options=options)
        return list(await values.distinct(path, hidden))

    def _decoding_errors(self) -> str:
        """What the application's own client does with text that is no UTF-8. Values that stand alone have no bytes
        beside them, so they are read as it reads them."""
        options = self._options.get("codec_options") or getattr(self.client, "codec_options", None)
        return str(getattr(options, "unicode_decode_error_handler", "strict"))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        reserved = self._reserved(collection)
        hidden: list[Document] = [
            {"$match": {f"{reserved}.t": None}},
            {"$unset": reserved},
            *hide_joined(pipeline, reserved),
        ]
        source = await self._read(collection)
        with plain_errors():
            cursor = source.aggregate(hidden)
            if inspect.isawaitable(cursor):
                cursor = await cursor
            return [document_of(bytes(each.raw)) for each in await cursor.to_list(length=None)]

    async def image(self, collection: str, key: Key) -> Image:
        with plain_errors():
            return self._split(collection, key, await self._lasting.find_one(collection, key))

    async def _image_now(self, collection: str, key: Key) -> Image:
        """What a write that is conditional on it starts from: it need not last."""
        return self._split(collection, key, await self._stored(collection, key))

    def _split(self, collection: str, key: Key, raw: Document | None) -> Image:
        """What stands under exactly this key; under a collation, the server answers what is spelt otherwise too."""
        if raw is None:
            return Image(ABSENT)
        image = split(raw, self._reserved(collection))
        return image if is_under(key, raw, image) else Image(ABSENT)

    def _meant(self, collection: str, change: Update | Replace | Delete, raw: Document) -> Image:
        """The document before a change. One under another spelling of its key, which the secondary has not, says that
        the collection has a collation since it was looked at: what else went past is not known."""
        image = split(raw, self._reserved(collection))
        if change.key is not ANY and not is_under(change.key, raw, image):
            self._on_doubt(collection)
        return image

    async def _stored(self, collection: str, key: Key) -> Any:
        """What stands under a key as the driver's raw document, or None."""
        with plain_errors():
            return await self._exact[collection].find_one({"_id": key})

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        reserved = self._reserved(collection)
        matchers = [cached_filter({"_id": {"$eq": key}}) for key in keys]
        with plain_errors():
            cursor = self._exact[collection].find({"_id": {"$in": list(keys)}})
            found = [(taken(raw), raw) async for raw in cursor]
        return [next((split(raw, reserved) for key, raw in found if m.matches(key)), Image(ABSENT)) for m in matchers]

    def bare_writes(self, after: Mapping[str, Any] | None) -> AsyncIterator[tuple[Bare, Mapping[str, Any]]]:
        """The writes to configured collections that moved no version: see `mongo_changes`."""
        watched = self._plain.with_options(read_concern=READ_MAJORITY)
        return bare_writes(watched, {name: spec.reserved for name, spec in self._specs.items()}, after)

    # --- writes as the store that answers -----------------------------------------------------------------------

    async def admit(self) -> None:
        """Raises `UnsupportedOperation` if the client's write concern is to be refused: see `mongo_durability`."""
        await self._durability.admit()

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        await self.link.found(self._max_time_ms / 1000)
        with self._in_time():
            self._concern = await self._durability.for_application()
            if not self._durability.unproven:
                with self.link.of_write():
                    return await self._apply(collection, change, op_id)
            before = self._durability.election()
            with self.link.of_write():
                applied = await self._apply(collection, change, op_id)
            await self._durability.prove(self._exact[collection], before, self._max_time_ms)
            return applied

    async def _apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        try:
            return await self._apply_once(collection, change, op_id)
        except DuplicateKeyError as refusal:
            # Tombstones stay after a flip, and the application makes indexes of its own.
            if not await self._unique.make_way(collection, refusal):
                raise
        return await self._apply_once(collection, change, op_id)

    async def _apply_once(self, collection: str, change: Change, op_id: str) -> Applied | None:
        match change:
            case Insert():
                return await self._insert(collection, change)
            case Update():
                return await self._update(collection, change, op_id)
            case Replace():
                return await self._replace(collection, change, op_id)
            case Delete():
                return await self._delete(collection, change)

    def chooses(self, change: Change) -> bool:
        """Not a delete, which leaves nothing with its operation's id; nor an upsert by a pipeline that may lose the
        `_id` that it is to insert under."""
        if isinstance(change, Update) and change.upsert and isinstance(change.update, list):
            return keeps_key(change.update)
        if isinstance(change, Replace) and change.upsert:
            return type(change.replacement) is dict  # a pipeline would lose what its bytes say beyond its values
        return isinstance(change, Update | Replace)

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        return None, ANY

    async def chosen(self, collection: str, op_id: str) -> Key:
        # An intent is settled by the answer: a member that has been deposed would not know of the document.
        found = await self._lasting.find(collection, {f"{self._reserved(collection)}.o": op_id}, {"_id": 1})
        return taken(found[0])["_id"] if found else ANY

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        return mongo_limits.refusal(change, existed, document)

    def _in_time(self) -> AbstractContextManager[None]:
        """No command of the block runs on beyond the time that an operation has: the driver gives each of them what
        is left as its `maxTimeMS`, inserts too, which take none as an option. A number that is fixed would begin again
        when the command arrives, however late that is."""
        return pymongo.timeout(self._max_time_ms / 1000)

    async def _insert(self, collection: str, change: Insert, op_id: str = "") -> Applied:
        reserved = self._reserved(collection)
        image = Image(Version(change.born, 1), change.document)
        raw = raw_of(image, reserved, op_id=op_id)
        if self._shards.key(collection) is not None and await self._shards.take(
            self._collection(collection), change.key, raw
        ):
            return Applied(Image(ABSENT), image)
        try:
            if has_empty_timestamp(change.document):
                await self._insert_literally(collection, change.key, raw)
            else:
                await self._collection(collection).insert_one(raw)
        except DuplicateKeyError as error:
            if not await self._take_tombstone(collection, change.key, raw, error):
                raise
        return Applied(Image(ABSENT), image)

    async def _take_tombstone(self, collection: str, key: Key, raw: Document, error: WriteError) -> bool:
        """Puts `raw` where a tombstone stands, or has stood and is gone by now; False if what stands under the key is a
        document, or if the refusal is of another kind."""
        if not isinstance(error, DuplicateKeyError) or not _is_id(error):
            return False
        if self._shards.key(collection) is not None:
            return await self._shards.take(self._collection(collection), key, raw)
        standing = {"_id": key, f"{self._reserved(collection)}.t": {"$ne": None}}
        try:
            await replacing(self._collection(collection), standing, raw, upsert=True)
        except DuplicateKeyError as refusal:
            if not _is_id(refusal):
                raise
            return False
        return True

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        await self.link.found(self._max_time_ms / 1000)
        with self._in_time():
            self._concern = await self._durability.for_application()
            if not self._durability.unproven:
                with self.link.of_write():
                    return await self._insert_many(collection, inserts, ordered=ordered)
            before = self._durability.election()
            with self.link.of_write():
                results = await self._insert_many(collection, inserts, ordered=ordered)
            try:
                await self._durability.prove(self._exact[collection], before, self._max_time_ms)
            except PyMongoError as error:
                return [error if isinstance(each, Applied) else each for each in results]
            return results

    async def _insert_many(
        self, collection: str, inserts: Sequence[Insert], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        results: list[Applied | Exception | None] = []
        if self._shards.key(collection) is not None:
            return await self._insert_one_by_one(collection, inserts, ordered=ordered)
        while len(results) < len(inserts):
            results += await self._insert_some(collection, inserts[len(results) :], ordered=ordered)
            if ordered and isinstance(results[-1], Exception):
                return results + [None] * (len(inserts) - len(results))
        return results

    async def _insert_one_by_one(
        self, collection: str, inserts: Sequence[Insert], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        """For each, all shards have to be asked whether something stands under its key."""
        results: list[Applied | Exception | None] = []
        for each in inserts:
            try:
                results.append(await self._insert(collection, each))
            except Exception as error:
                results.append(error)
                if ordered:
                    break
        return results + [None] * (len(inserts) - len(results))

    async def _insert_some(
        self, collection: str, inserts: Sequence[Insert], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        """One result for each of `inserts`, or, if ordered, for those before and with the first refusal."""
        reserved = self._reserved(collection)
        images = [Image(Version(each.born, 1), each.document) for each in inserts]
        raws = [raw_of(image, reserved) for image in images]
        results: list[Applied | Exception | None] = [Applied(Image(ABSENT), image) for image in images]
        try:
            await self._collection(collection).insert_many(raws, ordered=ordered)
        except BulkWriteError as error:
            details = error.details or {}
            if (doubt := write_concern_error(details)) is not None:
                results = [doubt] * len(inserts)
            for fault in details.get("writeErrors", ()):
                place = fault["index"]
                results[place] = await self._after_refusal(collection, inserts[place], images[place], fault)
                if ordered:
                    del results[place + 1 :]
        except Exception as error:
            whole = error if in_one_batch(raws) else marked(error, Outcome.UNKNOWN)
            return [whole] * len(inserts)
        return results

    async def _after_refusal(
        self, collection: str, insert: Insert, image: Image, fault: Mapping[str, Any]
    ) -> Applied | Exception:
        """What becomes of one insert of many that the server has refused; an error is this one's alone."""
        refusal = _write_error(fault)
        try:
            done = await self._take_tombstone(
                collection, insert.key, raw_of(image, self._reserved(collection)), refusal
            )
            if isinstance(refusal, DuplicateKeyError) and await self._unique.make_way(collection, refusal):
                return await self._insert(collection, insert)
        except Exception as error:
            return error
        return Applied(Image(ABSENT), image) if done else refusal

    async def _insert_literally(self, collection: str, key: Key, raw: Document) -> None:
        """Inserts what an upsert has made: the server fills in empty timestamps in inserts, and not in updates."""
        where = {"_id": key, f"{self._reserved(collection)}.never": True}
        if (shard_key := self._shards.key(collection)) is not None:
            where = beside(where, shard_key.values(raw))
        await self._collection(collection).update_one(where, literal(raw), upsert=True)

    async def _update(self, collection: str, change: Update, op_id: str) -> Applied | None:
        check_upsert_key(change)
        reserved = self._reserved(collection)
        by_filter = change.key is ANY
        update = stamping(change, op_id if by_filter else "", reserved)
        options: dict[str, Any] = {"array_filters": list(change.array_filters) or None, "maxTimeMS": self._max_time_ms}
        if by_filter:
            options |= {"sort": list(change.sort) or None, "upsert": change.upsert}
        where, target = where_of(change, reserved), self._bytes(collection)
        return await self._changed(
            collection,
            change,
            op_id,
            lambda: self._shards.ask(
                collection, change, where, lambda where: target.find_one_and_update(where, update, **options)
            ),
        )

    async def _changed(
        self, collection: str, change: Update | Replace, op_id: str, ask: Callable[[], Awaitable[Document | None]]
    ) -> Applied | None:
        """Asks (a command that answers the document before it) until it has changed or inserted one, or has found
        none and is no upsert."""
        while True:
            raw, is_taken = await self._asked(change, ask)
            if raw is not None:
                with _done():
                    return await self._made_of(collection, change, self._meant(collection, change, raw))
            if not change.upsert:
                return None
            if change.key is ANY and not is_taken:
                with _done():
                    return after_upsert(inserting(change))
            given = op_id if change.key is ANY else ""
            if (applied := await self._upsert(collection, inserting(change), given)) is not None:
                return applied

    async def _asked(
        self, change: Update | Replace, ask: Callable[[], Awaitable[Document | None]]
    ) -> tuple[Document | None, bool]:
        """The answer; whether an upsert by filter met its own `_id`, under which a tombstone may stand, or a document
        that its filter matches by now."""
        try:
            return await _refusing(ask()), False
        except DuplicateKeyError as error:
            if change.key is not ANY or not change.upsert or not _is_id(error):
                raise
            return None, True

    async def _made_of(self, collection: str, change: Update | Replace, pre: Image) -> Applied:
        """What the change has made of the document before it. Of one that Python's values do not say whole, only the
        server knows what an update made; where the next write has been faster, nobody does, and the secondary is
        healed."""
        if isinstance(change, Replace) or is_plain(pre):
            return applied_after(change, pre)
        assert pre.document is not None
        key, state = pre.document.get("_id", change.key), next_version(change, pre)
        after = await self._image_now(collection, key)
        if after.state == state:
            return Applied(pre, after)
        return Applied(pre, Image(state, Damaged({"_id": key}, {"": "changed before it was read back"})))

    async def _upsert(self, collection: str, change: Update | Replace, op_id: str) -> Applied | None:
        """Inserts what the upsert makes of nothing; None if a document that its filter matches has come in between.

        The server's own upsert would take the condition on the key for a field of the new document, and would not
        take a tombstone's place.
        """
        applied = after_upsert(change)
        assert applied.post.document is not None
        try:
            return await self._insert(collection, Insert(change.key, applied.post.document, change.born), op_id)
        except DuplicateKeyError as error:
            if not _is_id(error):
                raise
            standing = (await self._image_now(collection, change.key)).document
            if standing is not None and not cached_filter(change.filter).matches(standing):
                raise
            return None

    async def _replace(self, collection: str, change: Replace, op_id: str) -> Applied | None:
        check_upsert_key(change)
        reserved = self._reserved(collection)
        by_filter = change.key is ANY
        image = Image(Version(change.born, 1), change.replacement)
        raw = raw_of(image, reserved, op_id=op_id if by_filter else "")
        where, target = where_of(change, reserved), self._bytes(collection)
        if by_filter and change.upsert and key_of_change(change) is MISSING:
            # A replacement cannot say under which `_id` it is to be inserted, and be any document's; a pipeline can.
            update = [{"$replaceWith": {"$mergeObjects": [{"_id": own_id(change.new)}, {"$literal": raw}]}}]
            options: dict[str, Any] = {
                "sort": list(change.sort) or None,
                "upsert": True,
                "maxTimeMS": self._max_time_ms,
            }
            return await self._changed(
                collection, change, op_id, lambda: target.find_one_and_update(where, update, **options)
            )
        options = {"maxTimeMS": self._max_time_ms}
        if by_filter:
            options |= {"sort": list(change.sort) or None, "upsert": change.upsert}
        return await self._changed(
            collection,
            change,
            op_id,
            lambda: self._shards.ask(
                collection, change, where, lambda where: target.find_one_and_replace(where, raw, **options)
            ),
        )

    async def _delete(self, collection: str, change: Delete) -> Applied | None:
        reserved = self._reserved(collection)
        target = self._bytes(collection)
        with plain_errors():
            raw = await self._shards.ask(
                collection,
                change,
                where_of(change, reserved),
                lambda where: target.find_one_and_delete(where, maxTimeMS=self._max_time_ms),
            )
        with _done():
            return None if raw is None else Applied(self._meant(collection, change, raw), Image(ABSENT))

    # --- writes as the store that follows -----------------------------------------------------------------------

    async def replay(self, collection: str, write: Write) -> Image | None:
        change = write.change
        await self.looks.known(collection)
        if isinstance(change, Delete):
            return await self._replay_delete(collection, write, change)
        if write.pre == ABSENT:
            post = after_upsert(change).post if isinstance(change, Update | Replace) else write.post
            return post if await self.put(collection, write.key, post, ABSENT) else None
        assert isinstance(write.pre, Version)
        assert not isinstance(change, Insert)
        raw = await self._replay_change(collection, change, write.pre)
        return None if raw is None else split(raw, self._reserved(collection))

    async def _replay_change(self, collection: str, change: Update | Replace, pre: Version) -> Document | None:
        reserved = self._reserved(collection)
        where = {"$and": [change.filter, {"_id": change.key, **exactly(pre, reserved)}]}
        target = self._made(collection, await self._durability.for_copies(), raw=True, own=True)
        options: dict[str, Any] = {"return_document": ReturnDocument.AFTER, "maxTimeMS": self._max_time_ms}
        sent: Document | list[Document]
        if isinstance(change, Replace):
            ask = target.find_one_and_replace
            sent = raw_of(Image(Version(change.born, 1), change.replacement), reserved)
        else:
            ask = target.find_one_and_update
            sent = stamping(change, "", reserved)
            options["array_filters"] = list(change.array_filters) or None

        async def write(past: bool) -> Document | None:
            more: dict[str, Any] = {"bypassDocumentValidation": True} if past else {}
            raw: Document | None = await self._shards.ask(
                collection, change, where, lambda where: ask(where, sent, **options, **more)
            )
            return raw

        with plain_errors():
            return await past_validator(collection, write)

    async def _replay_delete(self, collection: str, write: Write, change: Delete) -> Image | None:
        """By key alone, in one round trip: the upsert inserts the tombstone where nothing stands, and collides where
        anything but the version before stands. A filter that says more cannot stand in an upsert."""
        image = Image(Tombstone(change.tombstone))
        assert isinstance(write.pre, Version)
        where = {"_id": write.key, **exactly(write.pre, self._reserved(collection))}
        if set(change.filter) <= {"_id"} and self._shards.key(collection) is None:
            return image if await self._place(collection, write.key, where, image, upsert=True) else None
        where = {"$and": [change.filter, where]}
        taken = await self._place(collection, write.key, where, image, upsert=False)
        return image if taken or await self.put(collection, write.key, image, ABSENT) else None

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        await self.looks.known(collection)
        reserved = self._reserved(collection)
        if isinstance(expected, Unknown):
            raw = await self._stored(collection, key)
            if raw is None or split(raw, reserved).state != expected:
                return False
            return await self._place(
                collection, key, {"_id": key, reserved: {"$eq": raw[reserved]}}, image, upsert=False
            )
        where = {"_id": key, **(exactly(expected, reserved) if expected != ABSENT else {f"{reserved}.never": True})}
        return await self._place(collection, key, where, image, upsert=expected == ABSENT)

    async def _place(self, collection: str, key: Key, where: Document, image: Image, *, upsert: bool) -> bool:
        """Replaces what `where` names by the image. The conditions beside `_id` cannot become fields: a replacement
        upsert takes only `_id` from its filter."""
        plain = raw = raw_of(image, self._reserved(collection), key)
        shard_key = self._shards.key(collection)
        if shard_key is not None:
            standing = await self._shards.standing(collection, key)
            if upsert == bool(standing):
                return False
            if standing and not image.present:
                plain = raw = shard_key.beside(standing[0], raw)
            where = beside(where, shard_key.values(standing[0] if standing else raw))
        if not image.present:
            raw = await self._unique.aside(collection, plain)
        while True:
            try:
                result = await past_validator(
                    collection, functools.partial(self._replace_one, collection, where, raw, upsert)
                )
            except DuplicateKeyError as error:
                if _is_id(error):
                    return False
                # A tombstone stands in nobody's way, unless an index has come that was not known of.
                if await self._unique.make_way(collection, error):
                    continue
                self._unique.forget(collection)
                renewed = raw if image.present else await self._unique.aside(collection, plain)
                if renewed == raw:
                    raise
                raw = renewed
                continue
            done = bool(result.matched_count or result.upserted_id is not None)
            if done and upsert and shard_key is not None:
                return await self._shards.is_alone(await self._copies(collection), key, image.state)
            return done

    async def _replace_one(self, collection: str, where: Document, raw: Document, upsert: bool, past: bool) -> Any:
        more: dict[str, Any] = {"bypass_document_validation": True} if past else {}
        return await replacing(await self._copies(collection), where, raw, upsert=upsert, **more)

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        """Its indexes are checked with each write, in a transaction too: no two documents can trade values in one."""
        return None

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        return await self._unique.holders(collection, key, document)

    def _collection(self, name: str) -> Any:
        """The driver's collection object, with the write concern of the application's writes."""
        return self._made(name, self._concern)

    def _bytes(self, name: str) -> Any:
        """The same, for what answers documents: they come with the bytes that are stored."""
        return self._made(name, self._concern, raw=True)

    async def _copies(self, name: str) -> Any:
        """The same for what this store follows by. Raises what the driver raises if it reaches nobody."""
        return self._made(name, await self._durability.for_copies(), own=True)

    async def _read(self, name: str, *, raw: bool = True, newest: bool = False) -> Any:
        """The driver's collection for a read: as the application's client reads, or, for a look that decides, what
        stands for good. `newest`: what the primary member has now, which is what a write is about."""
        if wants_newest():
            lasting = await self._lasting.reader(name)
            return lasting if raw else lasting.with_options(codec_options=CANONICAL)
        if newest:
            return self._exact[name]
        return self._made(name, self._concern, raw=raw)

    def _made(self, name: str, concern: WriteConcern, *, raw: bool = False, own: bool = False) -> Any:
        """Made once: making one costs as much as the rest of this class's part. `own`: not as the client is for the
        application, but for what shadow asks by itself."""
        kept = self._collections.get((name, raw, own))
        if kept is None or kept.write_concern != concern:
            options = {"codec_options": RAW} if raw else {}
            database = self._plain if own else self._database
            kept = database.get_collection(name, write_concern=concern, **options)
            self._collections[name, raw, own] = kept
        return kept

    def _reserved(self, collection: str) -> str:
        spec = self._specs.get(collection)
        return RESERVED if spec is None else spec.reserved


# --- what is sent -----------------------------------------------------------------------------------------------


# --- what follows from it ---------------------------------------------------------------------------------------


async def _next_page(cursor: Any, size: int) -> list[Any]:
    with plain_errors():
        page: list[Any] = await cursor.to_list(length=size)
        return page


async def _unless(call: Awaitable[Any], codes: frozenset[int]) -> None:
    """Makes an index. It will do if the server answers with one of these codes that there is one."""
    try:
        await call
    except OperationFailure as error:
        if error.code not in codes:
            raise


async def _refusing(call: Awaitable[Any]) -> Any:
    """What the server's `findAndModify` refuses is a plain `OperationFailure` to the drivers, where its `update` would
    be a `WriteError`; here both are the latter, which is one of the former."""
    try:
        with plain_errors():
            return await call
    except OperationFailure as error:
        of_the_write = type(error) is OperationFailure and error.code not in _NOT_OF_THE_WRITE
        if not of_the_write or classify(error) is not Outcome.REFUSED:
            raise
        details = dict(error.details or {})
        raise WriteError(str(details.get("errmsg", "refused")), error.code, details) from error


@contextmanager
def _done() -> Iterator[None]:
    """The server has done the write: whatever is wrong with the answer is no refusal."""
    try:
        yield
    except Exception as error:
        marked(error, Outcome.UNKNOWN)
        raise


def _is_id(error: WriteError) -> bool:
    """Whether a duplicate is one of `_id`, and not of another unique index."""
    pattern = (error.details or {}).get("keyPattern")
    return pattern is None or dict(pattern) == {"_id": 1}


def _write_error(fault: Mapping[str, Any]) -> WriteError:
    """One entry of a bulk error as the error that the single write would have raised."""
    kind = DuplicateKeyError if fault.get("code") in (11000, 11001, 12582) else WriteError
    return kind(fault.get("errmsg", ""), fault.get("code"), fault)
