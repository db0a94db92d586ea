"""MongoDB as a store, through Motor or through PyMongo's own async client.

The version moves in the same atomic command as the change: `find_one_and_update` and its kin, which also answer the
image before the change. The image after it follows from that by `model.matching`, which saves the second round trip
and leaves `modified_count` what MongoDB would have said.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import pymongo
from bson import Decimal128, Regex
from pymongo import AsyncMongoClient, ReadPreference, ReturnDocument
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

from shadow.model.matching import cached_filter, compile_projection
from shadow.model.matching.caching import cached_update
from shadow.model.matching.predicates import truthy
from shadow.model.matching.projections import projection_includes
from shadow.model.matching.updates import check_upsert
from shadow.model.operation import Applied, Change, Delete, Hit, Insert, Query, Replace, Sort, Update, Write
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import StoreName
from shadow.model.schema import RESERVED, CollectionSpec, UniqueSpec
from shadow.model.values import CANONICAL
from shadow.model.version import (
    ABSENT,
    TOMBSTONE_LIFETIME,
    Document,
    Image,
    Key,
    State,
    Tombstone,
    Version,
    fresh_id,
    split,
    stamp_of,
)
from shadow.stores.mongo_changes import Bare, bare_writes
from shadow.stores.mongo_ranges import MongoRanges
from shadow.stores.mongo_stamps import MongoStamps

__all__ = ["COLLECTION_VERBS", "MongoStore", "call_signature", "collection_class", "connect", "driver_of"]

_SAME_KEYS: Final = frozenset({85})
"""IndexOptionsConflict: an index of these keys exists, under another name or with other options."""
_SAME_INDEX: Final = _SAME_KEYS | {86}
"""IndexKeySpecsConflict as well: such an index exists, under another name."""
_NOT_OF_THE_WRITE: Final = frozenset({13, 18, 59, 72, 115})
"""Codes of a command that the server would not run at all (Unauthorized, AuthenticationFailed, CommandNotFound,
InvalidOptions, CommandNotSupported; MongoDB's error_codes.yml)."""

_PAGE: Final = 100
"""Documents fetched at a time where the application named no batch size; MongoDB's own first batch has 101."""


_WITNESS: Final = "shadow_witness"


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

    `specs` names the reserved field of each collection; collections without an entry use the default.
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
    ) -> None:
        self._client = client
        self._owned = owned
        self._specs = specs
        # Opening the intent, the way to the server and the skew of clocks have to fit into the limit as well.
        self._max_time_ms = max(1, int(operation_limit * 500))
        self._database = client.get_database(database, codec_options=CANONICAL)
        # Versions are read where they were written: a member that lags would make heal copy an older image.
        self._exact = client.get_database(database, codec_options=CANONICAL, read_preference=ReadPreference.PRIMARY)
        self._driver = client.get_database(database)
        self._collections: dict[str, Any] = {}
        self.ranges = MongoRanges(self._exact, self._reserved, _raw)
        self.stamps = MongoStamps(self._exact, self._reserved, self.ranges, _exactly)

    @property
    def driver(self) -> Any:
        """The driver's database object, with the client's own options."""
        return self._driver

    async def has_stamps(self, collection: str, patience: float) -> bool:
        """Whether a document carries a version, or a tombstone stands; True where `patience` seconds did not do to
        look through all of it."""
        reserved = self._reserved(collection)
        stamped = {"$or": [{f"{reserved}.{part}": {"$exists": True}} for part in ("b", "r", "t")]}
        try:
            found = await self._exact[collection].find_one(stamped, {"_id": 1}, max_time_ms=int(patience * 1000))
        except ExecutionTimeout:
            return True
        return found is not None

    # --- life ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        if not self._owned:
            return
        ending = self._client.close()
        if inspect.isawaitable(ending):
            await ending

    async def ping(self) -> None:
        await self._database.command("ping")

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        for spec in collections:
            await self._database[spec.name].create_index(
                f"{spec.reserved}.x", name=f"{spec.reserved}_ttl", expireAfterSeconds=0, sparse=True
            )
            for unique in spec.unique:
                await self._make_unique(spec.name, unique)

    async def _make_unique(self, collection: str, unique: UniqueSpec) -> None:
        """The unique index that the configuration declares."""
        keys = [(path, 1) for path in unique.fields]
        made = self._collection(collection).create_index(keys, name=unique.name, unique=True, sparse=unique.sparse)
        await _unless(made, _SAME_INDEX)

    async def speed_up(self, collection: str, keys: Sort, name: str) -> bool:
        await _unless(self._collection(collection).create_index(list(keys), name=name), _SAME_KEYS)
        return True

    async def drop_index(self, collection: str, name: str) -> None:
        """Raises OperationFailure, code 27, if there is none of that name."""
        await self._collection(collection).drop_index(name)

    async def drop(self, collection: str) -> None:
        await self._collection(collection).drop()

    # --- whether this is the same as before -----------------------------------------------------------------------

    async def identity(self, collection: str) -> str:
        """The collection's UUID; "" if there is none. Source: the server's manual, `listCollections`."""
        command = {"listCollections": 1, "filter": {"name": collection}}
        found = (await self._exact.command(command))["cursor"]["firstBatch"]
        return bytes(found[0]["info"]["uuid"]).hex() if found and "uuid" in found[0].get("info", {}) else ""

    async def token(self, collection: str) -> str:
        """What `set_token` has put into the collection `shadow_witness` of the database."""
        found = await self._exact[_WITNESS].find_one({"_id": collection})
        return "" if found is None else str(found["token"])

    async def set_token(self, collection: str, token: str) -> None:
        await self._exact[_WITNESS].update_one({"_id": collection}, {"$set": {"token": token}}, upsert=True)

    def describe(self) -> dict[str, Any]:
        return {"kind": "mongo", "driver": driver_of(self._client), "database": str(self._database.name)}

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        reserved = self._reserved(collection)
        options: dict[str, Any] = {"sort": list(query.sort)} if query.sort else {}
        if query.skip:
            options["skip"] = query.skip
        projection = _project(query.projection, reserved)
        raw = await self._collection(collection).find_one(_hide(query.filter, reserved), projection, **options)
        return None if raw is None else _hit(raw, reserved, query.projection)

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        reserved = self._reserved(collection)
        cursor = self._collection(collection).find(
            _hide(query.filter, reserved),
            _project(query.projection, reserved),
            skip=query.skip,
            limit=query.limit,
            sort=list(query.sort) or None,
            batch_size=query.batch_size,
        )
        size = query.batch_size or _PAGE
        try:
            while cursor.alive and (page := await cursor.to_list(length=size)):
                hits = (_hit(raw, reserved, query.projection) for raw in page)
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
        hidden = _hide(filter, self._reserved(collection), always=True)
        return int(await self._collection(collection).count_documents(hidden, **options))

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        hidden = _hide(filter, self._reserved(collection), always=True)
        return list(await self._collection(collection).distinct(path, hidden))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        reserved = self._reserved(collection)
        hidden: list[Document] = [
            {"$match": {f"{reserved}.t": None}},
            {"$unset": reserved},
            *_hide_joined(pipeline, reserved),
        ]
        cursor = self._collection(collection).aggregate(hidden)
        if inspect.isawaitable(cursor):
            cursor = await cursor
        found: list[Document] = await cursor.to_list(length=None)
        return found

    async def image(self, collection: str, key: Key) -> Image:
        raw = await self._exact[collection].find_one({"_id": key})
        return Image(ABSENT) if raw is None else split(raw, self._reserved(collection))

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        reserved = self._reserved(collection)
        cursor = self._exact[collection].find({"_id": {"$in": list(keys)}})
        matchers = [cached_filter({"_id": {"$eq": key}}) for key in keys]
        found = [raw async for raw in cursor]
        return [next((split(raw, reserved) for raw in found if m.matches(raw)), Image(ABSENT)) for m in matchers]

    def bare_writes(self, after: Mapping[str, Any] | None) -> AsyncIterator[tuple[Bare, Mapping[str, Any]]]:
        """The writes to configured collections that moved no version: see `mongo_changes`."""
        return bare_writes(self._database, {name: spec.reserved for name, spec in self._specs.items()}, after)

    # --- writes as the store that answers -----------------------------------------------------------------------

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        with self._in_time():
            match change:
                case Insert():
                    return await self._insert(collection, change)
                case Update():
                    return await self._update(collection, change)
                case Replace():
                    return await self._replace(collection, change)
                case Delete():
                    return await self._delete(collection, change)

    def _in_time(self) -> AbstractContextManager[None]:
        """No command of the block runs on beyond the time that an operation has: the driver gives each of them what
        is left as its `maxTimeMS`, inserts too, which take none as an option. A number that is fixed would begin anew
        when the command arrives, however late that is."""
        return pymongo.timeout(self._max_time_ms / 1000)

    async def _insert(self, collection: str, change: Insert) -> Applied:
        reserved = self._reserved(collection)
        image = Image(Version(change.born, 1), change.document)
        raw = _raw(image, reserved)
        try:
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
        standing = {"_id": key, f"{self._reserved(collection)}.t": {"$ne": None}}
        try:
            await self._collection(collection).replace_one(standing, raw, upsert=True)
        except DuplicateKeyError as refusal:
            if not _is_id(refusal):
                raise
            return False
        return True

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        results: list[Applied | Exception | None] = []
        with self._in_time():
            while len(results) < len(inserts):
                results += await self._insert_some(collection, inserts[len(results) :], ordered=ordered)
                if ordered and isinstance(results[-1], Exception):
                    return results + [None] * (len(inserts) - len(results))
        return results

    async def _insert_some(
        self, collection: str, inserts: Sequence[Insert], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        """One result for each of `inserts`, or, if ordered, for those before and with the first duplicate."""
        reserved = self._reserved(collection)
        images = [Image(Version(each.born, 1), each.document) for each in inserts]
        raws = [_raw(image, reserved) for image in images]
        results: list[Applied | Exception | None] = [Applied(Image(ABSENT), image) for image in images]
        try:
            await self._collection(collection).insert_many(raws, ordered=ordered)
        except BulkWriteError as error:
            for fault in error.details.get("writeErrors", ()):
                place = fault["index"]
                refusal = _write_error(fault)
                if not await self._take_tombstone(collection, inserts[place].key, raws[place], refusal):
                    results[place] = refusal
                if ordered:
                    del results[place + 1 :]
            if error.details.get("writeConcernErrors"):
                results = [error if isinstance(each, Applied) else each for each in results]
        except PyMongoError as error:
            # How many of them arrived is not known.
            return [error] * len(inserts)
        return results

    async def _update(self, collection: str, change: Update) -> Applied | None:
        _check_upsert(change)
        if isinstance(change.update, list):
            return await self._update_by_pipeline(collection, change)
        reserved = self._reserved(collection)
        while True:
            raw = await _refusing(
                self._collection(collection).find_one_and_update(
                    _at(change, reserved),
                    _moving(change.update, reserved),
                    array_filters=list(change.array_filters) or None,
                    return_document=ReturnDocument.BEFORE,
                    maxTimeMS=self._max_time_ms,
                )
            )
            if raw is not None:
                return _after_update(change, split(raw, reserved))
            if not change.upsert:
                return None
            if (applied := await self._upsert(collection, change)) is not None:
                return applied

    async def _update_by_pipeline(self, collection: str, change: Update) -> Applied | None:
        """A pipeline may replace the whole document and the stamp with it, so the stamp is set from what was read,
        on the condition that it still stands."""
        while True:
            pre = await self.image(collection, change.key)
            if pre.document is not None and cached_filter(change.filter).matches(pre.document):
                applied = _after_update(change, pre)
                if await self._run_pipeline(collection, change, pre.state, applied.post.state) is not None:
                    return applied
            elif not change.upsert:
                return None
            elif (inserted := await self._upsert(collection, change)) is not None:
                return inserted

    async def _run_pipeline(self, collection: str, change: Update, pre: State, post: State) -> Document | None:
        reserved = self._reserved(collection)
        stamp: Document = {"$set": {reserved: {"$literal": stamp_of(post)}}}
        found: Document | None = await _refusing(
            self._collection(collection).find_one_and_update(
                {"$and": [change.filter, {"_id": change.key, **_exactly(pre, reserved)}]},
                [*change.update, stamp],
                return_document=ReturnDocument.BEFORE,
                maxTimeMS=self._max_time_ms,
            )
        )
        return found

    async def _upsert(self, collection: str, change: Update | Replace) -> Applied | None:
        """Inserts what the upsert makes of nothing; None if a document that its filter matches has come in between.

        The server's own upsert would take the conditions on the key and on the stamp for fields of the new document,
        and would not take a tombstone's place.
        """
        applied = _after_upsert(change)
        assert applied.post.document is not None
        try:
            return await self._insert(collection, Insert(change.key, applied.post.document, change.born))
        except DuplicateKeyError as error:
            if not _is_id(error):
                raise
            standing = (await self.image(collection, change.key)).document
            if standing is not None and not cached_filter(change.filter).matches(standing):
                raise
            return None

    async def _replace(self, collection: str, change: Replace) -> Applied | None:
        reserved = self._reserved(collection)
        _check_upsert(change)
        born = Version(change.born, 1)
        while True:
            raw = await _refusing(
                self._collection(collection).find_one_and_replace(
                    _at(change, reserved),
                    _raw(Image(born, change.replacement), reserved),
                    return_document=ReturnDocument.BEFORE,
                    maxTimeMS=self._max_time_ms,
                )
            )
            if raw is not None:
                return Applied(split(raw, reserved), Image(born, _replacement(change, raw["_id"])))
            if not change.upsert:
                return None
            if (applied := await self._upsert(collection, change)) is not None:
                return applied

    async def _delete(self, collection: str, change: Delete) -> Applied | None:
        reserved = self._reserved(collection)
        raw = await self._collection(collection).find_one_and_delete(_at(change, reserved), maxTimeMS=self._max_time_ms)
        return None if raw is None else Applied(split(raw, reserved), Image(ABSENT))

    # --- writes as the store that follows -----------------------------------------------------------------------

    async def replay(self, collection: str, write: Write) -> Image | None:
        change = write.change
        if isinstance(change, Delete):
            return await self._replay_delete(collection, write, change)
        if write.pre == ABSENT:
            post = _after_upsert(change).post if isinstance(change, Update | Replace) else write.post
            return post if await self.put(collection, write.key, post, ABSENT) else None
        assert isinstance(write.pre, Version)
        assert not isinstance(change, Insert)
        raw = await self._replay_change(collection, change, write.pre)
        return None if raw is None else split(raw, self._reserved(collection))

    async def _replay_change(self, collection: str, change: Update | Replace, pre: Version) -> Document | None:
        reserved = self._reserved(collection)
        where = {"$and": [change.filter, {"_id": change.key, **_exactly(pre, reserved)}]}
        target = self._collection(collection)
        after: Any = {"return_document": ReturnDocument.AFTER, "maxTimeMS": self._max_time_ms}
        call: Awaitable[Document | None]
        if isinstance(change, Replace):
            image = Image(Version(change.born, 1), change.replacement)
            call = target.find_one_and_replace(where, _raw(image, reserved), **after)
        else:
            update: Any = (
                [*change.update, {"$set": {reserved: {"$literal": stamp_of(pre.next())}}}]
                if isinstance(change.update, list)
                else _moving(change.update, reserved)
            )
            call = target.find_one_and_update(where, update, array_filters=list(change.array_filters) or None, **after)
        return await call

    async def _replay_delete(self, collection: str, write: Write, change: Delete) -> Image | None:
        """By key alone, in one round trip: the upsert inserts the tombstone where nothing stands, and collides where
        anything but the version before stands. A filter that says more cannot stand in an upsert."""
        image = Image(Tombstone(change.tombstone))
        assert isinstance(write.pre, Version)
        where = {"_id": write.key, **_exactly(write.pre, self._reserved(collection))}
        if set(change.filter) <= {"_id"}:
            return image if await self._place(collection, write.key, where, image, upsert=True) else None
        where = {"$and": [change.filter, where]}
        taken = await self._place(collection, write.key, where, image, upsert=False)
        return image if taken or await self.put(collection, write.key, image, ABSENT) else None

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        reserved = self._reserved(collection)
        where = {"_id": key, **(_exactly(expected, reserved) if expected != ABSENT else {f"{reserved}.never": True})}
        return await self._place(collection, key, where, image, upsert=expected == ABSENT)

    async def _place(self, collection: str, key: Key, where: Document, image: Image, *, upsert: bool) -> bool:
        """Replaces what `where` names by the image. The conditions beside `_id` cannot become fields: a replacement
        upsert takes only `_id` from its filter."""
        raw = _raw(image, self._reserved(collection), key)
        while True:
            try:
                result = await self._collection(collection).replace_one(
                    where, raw, upsert=upsert, bypass_document_validation=True
                )
            except DuplicateKeyError as error:
                if _is_id(error):
                    return False
                if image.present:
                    raise
                raw = _apart(raw, error)
                continue
            return bool(result.matched_count or result.upserted_id is not None)

    def _collection(self, name: str) -> Any:
        """The driver's collection object, made once: making one costs as much as the rest of this class's part."""
        made = self._collections.get(name)
        if made is None:
            made = self._collections[name] = self._database[name]
        return made

    def _reserved(self, collection: str) -> str:
        spec = self._specs.get(collection)
        return RESERVED if spec is None else spec.reserved


# --- what is sent -----------------------------------------------------------------------------------------------


def _raw(image: Image, reserved: str, key: Key = None) -> Document:
    """The stored form of an image. A tombstone carries its key, its id and the moment of its expiry."""
    stamp = stamp_of(image.state)
    if image.document is not None:
        return {**image.document, reserved: stamp}
    expiry = dt.datetime.now(dt.UTC) + TOMBSTONE_LIFETIME
    return {"_id": key, reserved: {**(stamp or {}), "x": expiry}}


def _apart(raw: Document, error: DuplicateKeyError) -> Document:
    """A tombstone that takes part in a unique index, where a second missing value would collide: its fields get
    values that nothing else has."""
    pattern = (error.details or {}).get("keyPattern") or {}
    fields = [str(path).split(".")[0] for path in pattern]
    if not fields or all(name in raw for name in fields):
        raise error
    return {**raw, **{name: f"{fresh_id()}" for name in fields if name not in raw}}


def _exactly(state: State, reserved: str) -> Document:
    """The condition that a stored document is at `state`."""
    if isinstance(state, Tombstone):
        return {f"{reserved}.t": state.id}
    assert isinstance(state, Version)
    # A document that no writer of shadow has made lacks these parts; a copy of such a document has them, empty.
    born = state.born or {"$in": [None, ""]}
    rev = state.rev or {"$in": [None, 0]}
    return {f"{reserved}.b": born, f"{reserved}.r": rev, f"{reserved}.t": None}


def _hide(filter: Document, reserved: str, *, always: bool = False) -> Document:
    """`filter`, without tombstones. A lookup of one `_id` alone needs no condition: what it finds is looked at."""
    if not always and len(filter) == 1 and not isinstance(filter.get("_id", {}), dict | Regex):
        return filter
    return {**filter, f"{reserved}.t": None}


def _hide_joined(pipeline: Sequence[Document], reserved: str) -> list[Document]:
    """The pipeline, with versions and tombstones hidden in what it joins."""
    hidden: list[Document] = [{"$match": {f"{reserved}.t": None}}, {"$unset": reserved}]
    made: list[Document] = []
    for stage in pipeline:
        match stage:
            case {"$lookup": {"localField": _, "foreignField": _} as join}:
                made.append(
                    {"$lookup": {**join, "pipeline": [*hidden, *_hide_joined(join.get("pipeline", ()), reserved)]}}
                )
            case {"$facet": dict(facets)}:
                made.append({"$facet": {name: _hide_joined(inner, reserved) for name, inner in facets.items()}})
            case _:
                made.append(stage)
    return made


def _at(change: Update | Replace | Delete, reserved: str) -> Document:
    """The key and the filter together; tombstones never match."""
    if "_id" in change.filter:
        # An equality on `_id` twice is one; anything else must hold beside the key.
        if len(change.filter) == 1 and not isinstance(change.filter["_id"], dict):
            return {"_id": change.key, f"{reserved}.t": None}
        return {"$and": [{"_id": change.key, f"{reserved}.t": None}, change.filter]}
    return {"_id": change.key, f"{reserved}.t": None, **change.filter}


def _moving(update: Document, reserved: str) -> Document:
    """The update, with the version moved in it."""
    return {**update, "$inc": {**update.get("$inc", {}), f"{reserved}.r": 1}}


def _project(projection: Document | None, reserved: str) -> Document | None:
    """The projection, widened to the version and the key; None for whole documents."""
    if not projection or _computes_key(projection):
        return None
    wanted = {name: value for name, value in projection.items() if name != "_id"}
    if projection_includes(projection):
        return {**wanted, "_id": 1, reserved: 1}
    return wanted or None


def _computes_key(projection: Document) -> bool:
    """Whether the projection puts something else in the place of `_id`, which is needed here as it is."""
    return not isinstance(projection.get("_id", True), bool | int | float | Decimal128) or any(
        name.startswith("_id.") for name in projection
    )


def _hit(raw: Document, reserved: str, projection: Document | None) -> Hit | None:
    image = split(raw, reserved)
    if image.document is None:
        return None
    assert isinstance(image.state, Version)
    key = image.document["_id"]
    if projection and _computes_key(projection):
        return Hit(key, image.state, compile_projection(projection)(image.document))
    if projection and not truthy(projection.get("_id", True)):
        del image.document["_id"]
    return Hit(key, image.state, image.document)


# --- what follows from it ---------------------------------------------------------------------------------------


def _after_update(change: Update, pre: Image) -> Applied:
    assert isinstance(pre.state, Version)
    assert pre.document is not None
    updater = cached_update(change.update, change.array_filters)
    matched = cached_filter(change.filter) if updater.positional else None
    return Applied(pre, Image(pre.state.next(), updater.apply(pre.document, matched)))


def _replacement(change: Replace, key: Key) -> Document:
    """The document after a replacement: one without an `_id` keeps the `_id` that stands, which may be an equal number
    of another type."""
    return change.replacement if "_id" in change.replacement else {"_id": key, **change.replacement}


def _check_upsert(change: Update | Replace) -> None:
    """The server refuses `$expr` in an upsert; here the upsert is not in the command, so it would not."""
    if change.upsert:
        check_upsert(cached_filter(change.filter))


def _after_upsert(change: Update | Replace) -> Applied:
    if isinstance(change, Replace):
        document = _replacement(change, change.key)
    else:
        document = cached_update(change.update, change.array_filters).upsert(change.filter, change.key)
    return Applied(Image(ABSENT), Image(Version(change.born, 1), document))


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
        return await call
    except OperationFailure as error:
        of_the_write = type(error) is OperationFailure and error.code not in _NOT_OF_THE_WRITE
        if not of_the_write or classify(error) is not Outcome.REFUSED:
            raise
        details = dict(error.details or {})
        raise WriteError(str(details.get("errmsg", "refused")), error.code, details) from error


def _is_id(error: WriteError) -> bool:
    """Whether a duplicate is one of `_id`, and not of another unique index."""
    pattern = (error.details or {}).get("keyPattern")
    return pattern is None or dict(pattern) == {"_id": 1}


def _write_error(fault: Mapping[str, Any]) -> WriteError:
    """One entry of a bulk error as the error that the single write would have raised."""
    kind = DuplicateKeyError if fault.get("code") in (11000, 11001, 12582) else WriteError
    return kind(fault.get("errmsg", ""), fault.get("code"), fault)
