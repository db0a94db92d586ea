"""The collection: Motor's surface. It turns a call into operations and results back into Motor's; ids, births and the
clock are fixed here, once, and inputs are copied at the door.

Methods take what Motor takes. An argument that would change the answer on one of the stores is refused by name, before
any store is touched; one that changes no answer is accepted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import pymongo
from bson import ObjectId
from bson.codec_options import CodecOptions
from pymongo.errors import InvalidOperation, OperationFailure, WriteConcernError, WriteError
from pymongo.operations import IndexModel
from pymongo.read_concern import ReadConcern
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from pymongo.write_concern import WriteConcern

from shadow.compare.answers import compare_values
from shadow.compare.equality import Comparison
from shadow.errors import UnsupportedOperation
from shadow.model.operation import ANY, Applied, Change, Delete, Hit, Insert, Query, Replace, Update, Verb
from shadow.model.schema import CollectionSpec
from shadow.model.values import present, snapshot
from shadow.model.version import Document, Image, fresh_id
from shadow.mongoql import cached_filter, compile_projection
from shadow.mongoql.updates import check_upsert
from shadow.mongoql.upserts import check_same_key, with_key
from shadow.router import Router
from shadow.stores.base import Store
from shadow.surface import indexes
from shadow.surface.arguments import Arguments, key_in
from shadow.surface.bulk import Make, Step, kind_of, operation, runs
from shadow.surface.cursor import Cursor, DocumentCursor
from shadow.surface.forwarded import NotIterable, sub_name
from shadow.surface.index_upkeep import IndexUpkeep
from shadow.surface.options import ClientDefaults, RequestedConcerns
from shadow.surface.results import BulkTally, as_command, as_write, by_pipeline, deleted, updated
from shadow.surface.verb_options import check_modify, check_options, check_order_of_one

__all__ = ["Collection", "Handle"]

_MANY_AT_ONCE: Final = 16
"""Documents of one `update_many` or `delete_many` under way at once."""


class Handle(Protocol):
    """What a collection needs of the Shadow that made it."""

    @property
    def database_name(self) -> str: ...

    def current(self) -> Router:
        """The router of the running event loop."""

    def get_collection(self, name: str) -> Collection: ...

    def kept(self) -> ClientDefaults:
        """What the client of MongoDB keeps for every read and write."""

    @property
    def database(self) -> Any:
        """What the application holds in place of the driver's database object."""

    @property
    def indexes(self) -> IndexUpkeep:
        """Of the indexes that the application asks for."""


class Collection(NotIterable):
    """One collection of the application. Made by `Shadow.get_collection`; needs no event loop until it is used."""

    def __init__(
        self,
        spec: CollectionSpec,
        handle: Handle,
        *,
        options: CodecOptions[Any] | None = None,
        concerns: RequestedConcerns | None = None,
    ) -> None:
        self._spec = spec
        self._name = spec.name
        self._handle = handle
        self._options = options
        self._concerns = concerns or RequestedConcerns()
        self._take = Arguments(spec.reserved, options, self._knows)

    def _knows(self, hint: Any) -> bool:
        return indexes.is_known(self._spec, hint)

    @property
    def name(self) -> str:
        return self._name

    @property
    def full_name(self) -> str:
        return f"{self._handle.database_name}.{self._name}"

    @property
    def database(self) -> Any:
        return self._handle.database

    @property
    def codec_options(self) -> CodecOptions[Any]:
        return self._options if self._options is not None else CodecOptions()

    @property
    def read_preference(self) -> Any:
        return self._concerns.read_preference or self._handle.kept().read_preference

    @property
    def write_concern(self) -> WriteConcern:
        return self._concerns.write_concern or self._handle.kept().write_concern

    @property
    def read_concern(self) -> ReadConcern:
        return self._concerns.read_concern or self._handle.kept().read_concern

    def __repr__(self) -> str:
        return f"Collection({self.full_name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Collection) and (self._handle, self._name) == (other._handle, other._name)

    def __hash__(self) -> int:
        return hash((id(self._handle), self._name))

    def __bool__(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} objects do not implement truth value testing: compare with None instead"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """Motor takes an unknown attribute for the name of a sub-collection; a misspelt or unsupported verb must not
        become one here."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise UnsupportedOperation(
            f"collection.{name}", "there is no such verb here", hint='a collection of that name: db["a.b"]'
        )

    def __getitem__(self, name: str) -> Collection:
        return self._handle.get_collection(sub_name(self._name, name))

    def with_options(
        self,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: Any = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
    ) -> Collection:
        """The same collection, decoding to `codec_options`.

        Preference and concerns are accepted where they make no difference: what the client of MongoDB keeps anyway,
        and what is no more than that (primary, primaryPreferred; local, available; w=1), for DynamoDB reads and
        writes with no less. Raises UnsupportedOperation for anything else by name (w=0 always): it would have to be
        set for the client, in `mongo.url`.
        """
        given = RequestedConcerns(read_preference, write_concern, read_concern)
        if given != RequestedConcerns():
            self._handle.kept().check(given)
        asked = {name: getattr(given, name) or getattr(self._concerns, name) for name in RequestedConcerns.__slots__}
        return Collection(
            self._spec, self._handle, options=codec_options or self._options, concerns=RequestedConcerns(**asked)
        )

    async def options(self) -> dict[str, Any]:
        """No collection here has options of its own."""
        return {}

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(
        self,
        filter: Mapping[str, Any] | Any = None,
        projection: Any = None,
        *,
        sort: Any = None,
        skip: int = 0,
        **options: Any,
    ) -> Any:
        """The first document that matches, or None. A `filter` that is no mapping is taken for an `_id`."""
        query = self._query("find_one", filter, projection, options, sort=sort, skip=skip)
        hit = await self._router.find_one(self._name, query)
        return None if hit is None else self._present(hit.document)

    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        projection: Any = None,
        skip: int = 0,
        limit: int = 0,
        *,
        sort: Any = None,
        batch_size: int = 0,
        **options: Any,
    ) -> Cursor:
        """A cursor over the documents that match; nothing is asked yet."""
        if filter and not isinstance(filter, Mapping):
            raise TypeError(f"filter must be an instance of a mapping, not {type(filter).__name__}")
        # The drivers take any empty filter for none, where `find_one` takes it for an `_id`.
        query = self._query(
            "find",
            filter or None,
            projection,
            options,
            sort=sort,
            skip=skip,
            limit=abs(limit),
        )
        return Cursor(self, query, self._pages, self._present, self._take).batch_size(batch_size)

    async def count_documents(self, filter: Mapping[str, Any], *, skip: int = 0, limit: int = 0, **options: Any) -> int:
        """How many documents match."""
        query = self._query("count_documents", filter, None, options, skip=skip, limit=limit)

        async def ask(store: Store) -> int:
            return await store.count(self._name, query.filter, query.skip, query.limit)

        return int(await self._answer(Verb.COUNT_DOCUMENTS, ask, filter=query.filter))

    async def estimated_document_count(self, **options: Any) -> int:
        """How many documents there are. Counted exactly: tombstones must not be in it."""
        self._take.refuse("estimated_document_count", options)

        async def ask(store: Store) -> int:
            return await store.count(self._name, {})

        return int(await self._answer(Verb.ESTIMATED_DOCUMENT_COUNT, ask))

    async def distinct(self, key: str, filter: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """The different values at a dotted path, arrays opened."""
        if not isinstance(key, str):
            raise TypeError(f"key must be an instance of str, not {type(key).__name__}")
        if filter is not None and not isinstance(filter, Mapping):
            raise OperationFailure("BSON field 'distinct.query' is the wrong type", 14, {"ok": 0.0, "code": 14})
        self._take.refuse("distinct", options)
        self._take.path("distinct", key)
        wanted = self._take.filter(filter)

        async def ask(store: Store) -> list[Any]:
            return await store.distinct(self._name, key, wanted)

        return list(self._present({"": await self._answer(Verb.DISTINCT, ask, filter=wanted)})[""])

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]], **options: Any) -> DocumentCursor:
        """A cursor over the answer of a pipeline. May be awaited first, as with PyMongo's own client, or not."""
        self._take.refuse("aggregate", options)
        wanted = self._take.pipeline(pipeline)

        async def ask(store: Store) -> list[Document]:
            return await store.aggregate(self._name, wanted)

        async def documents() -> list[Document]:
            first = wanted[0].get("$match", {}) if wanted else {}
            return list(await self._answer(Verb.AGGREGATE, ask, pipeline=wanted, filter=first))

        return DocumentCursor(self, documents, self._present)

    @property
    def _router(self) -> Router:
        return self._handle.current()

    def _pages(self, query: Query) -> AsyncIterator[list[Hit]]:
        return self._router.find(self._name, query)

    async def _answer(
        self,
        verb: Verb,
        ask: Callable[[Store], Any],
        *,
        pipeline: Sequence[Document] = (),
        filter: Document | None = None,
    ) -> Any:
        def compare(primary: Any, secondary: Any) -> Comparison:
            return compare_values(verb, primary, secondary, pipeline=pipeline)

        return await self._router.answer(self._name, verb, ask, compare, filter, pipeline)

    def _query(
        self,
        verb: str,
        filter: Any,
        projection: Any,
        options: Mapping[str, Any],
        *,
        sort: Any = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Query:
        self._take.refuse(verb, options)
        of_stage = verb == "count_documents"  # which is an aggregate, with codes of its stages
        skip = self._take.counted("skip", skip, 5107200 if of_stage else 51024)
        limit = self._take.counted("limit", limit, 5107201 if of_stage else 51024)
        wanted = self._take.projection(projection)
        check_modify(sort or None)
        order = self._take.sort(sort or None)
        return Query(self._take.filter(filter), wanted, order, skip=skip, limit=limit)

    def _present(self, document: Document) -> Any:
        return present(document, self._options)

    # --- inserts ------------------------------------------------------------------------------------------------

    async def insert_one(self, document: Any, **options: Any) -> InsertOneResult:
        """Inserts, and puts an `_id` into the caller's document if it has none, as the drivers do."""
        self._take.refuse("insert_one", options)
        await self._router.write(self._name, Verb.INSERT_ONE, self._insert(document))
        return InsertOneResult(document["_id"], acknowledged=True)

    async def insert_many(self, documents: Iterable[Any], ordered: bool = True, **options: Any) -> InsertManyResult:
        """Raises BulkWriteError with one entry for each document that was refused."""
        self._take.refuse("insert_many", options)
        check_options("insert_many", {"ordered": ordered})
        if isinstance(documents, Mapping | str | bytes) or not isinstance(documents, Iterable):
            raise TypeError("documents must be a non-empty list")
        originals = list(documents)
        if not originals:
            raise TypeError("documents must be a non-empty list")
        await self._make_all([self._insert_step(place, each) for place, each in enumerate(originals)], ordered=ordered)
        return InsertManyResult([each["_id"] for each in originals], acknowledged=True)

    def _insert(self, document: Any) -> Insert:
        whole = self._whole(document)
        return Insert(whole["_id"], with_key(whole, whole["_id"]), fresh_id())

    def _whole(self, document: Any) -> Document:
        if not isinstance(document, Mapping):
            raise TypeError(f"document must be an instance of a mapping, not {type(document).__name__}")
        if "_id" not in document:
            document["_id"] = ObjectId()  # type: ignore[index]
        return self._take.document(document)

    def _insert_step(self, place: int, document: Any) -> Step:
        whole = self._whole(document)
        try:
            insert = Insert(whole["_id"], with_key(whole, whole["_id"]), fresh_id())
        except WriteError as error:
            return Step(place, 0, document, make=functools.partial(_refusing, error))
        return Step(place, 0, document, insert)

    # --- changes of one document --------------------------------------------------------------------------------

    async def update_one(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        *,
        array_filters: Any = None,
        sort: Any = None,
        **options: Any,
    ) -> UpdateResult:
        self._take.refuse("update_one", options)
        check_order_of_one(sort)
        with as_write():
            applied = await self._update(Verb.UPDATE_ONE, filter, update, array_filters, upsert=upsert, sort=sort)
        return updated(applied)

    async def replace_one(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        upsert: bool = False,
        *,
        sort: Any = None,
        **options: Any,
    ) -> UpdateResult:
        self._take.refuse("replace_one", options)
        check_order_of_one(sort)
        with as_write():
            return updated(await self._replace(Verb.REPLACE_ONE, filter, replacement, upsert=upsert, sort=sort))

    async def delete_one(self, filter: Mapping[str, Any], **options: Any) -> DeleteResult:
        self._take.refuse("delete_one", options)
        with as_write():
            return deleted(len(await self._delete(Verb.DELETE_ONE, filter)))

    async def find_one_and_update(
        self,
        filter: Mapping[str, Any],
        update: Any,
        projection: Any = None,
        sort: Any = None,
        upsert: bool | None = False,
        return_document: bool = pymongo.ReturnDocument.BEFORE,
        array_filters: Any = None,
        **options: Any,
    ) -> Any:
        """The document before the update, or after it; None where there was none."""
        self._take.refuse("find_one_and_update", options)
        check_modify(sort, return_document)
        shape = self._take.projection(projection)
        verb = Verb.FIND_ONE_AND_UPDATE
        with as_command():
            # The driver leaves a None away here, and nowhere else.
            upsert = False if upsert is None else upsert
            applied = await self._update(verb, filter, update, array_filters, upsert=upsert, sort=sort)
            return self._shown(applied, shape, after=return_document)

    async def find_one_and_replace(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        projection: Any = None,
        sort: Any = None,
        upsert: bool | None = False,
        return_document: bool = pymongo.ReturnDocument.BEFORE,
        **options: Any,
    ) -> Any:
        """The document before the replacement, or after it; None where there was none."""
        self._take.refuse("find_one_and_replace", options)
        check_modify(sort, return_document)
        shape = self._take.projection(projection)
        verb = Verb.FIND_ONE_AND_REPLACE
        with as_command():
            upsert = False if upsert is None else upsert
            applied = await self._replace(verb, filter, replacement, upsert=upsert, sort=sort)
            return self._shown(applied, shape, after=return_document)

    async def find_one_and_delete(
        self, filter: Mapping[str, Any], projection: Any = None, sort: Any = None, **options: Any
    ) -> Any:
        """The document that was deleted, or None."""
        self._take.refuse("find_one_and_delete", options)
        check_modify(sort)
        shape = self._take.projection(projection)
        with as_command():
            return self._shown(await self._delete(Verb.FIND_ONE_AND_DELETE, filter, sort=sort), shape, after=False)

    def _shown(self, applied: Sequence[Applied], shape: Document | None, *, after: bool) -> Any:
        image: Image | None = (applied[0].post if after else applied[0].pre) if applied else None
        if image is None or image.document is None:
            return None
        if type(image.document) is not dict:
            shown = self._present(image.document)  # which says more than its values do
            return compile_projection(shape)(shown) if shape else shown
        return self._present(snapshot(compile_projection(shape)(image.document)))

    async def _update(
        self, verb: Verb, filter: Any, update: Any, array_filters: Any, *, upsert: bool, sort: Any = None
    ) -> list[Applied]:
        upsert = self._take.upsert(upsert)
        wanted, order = self._filter_of(filter), self._take.sort(sort)
        change, filters = self._take.update(update, array_filters)
        born = fresh_id() if upsert or isinstance(change, list) else ""
        new = ObjectId() if upsert else None
        applied = await self._write(verb, Update(key_in(wanted), wanted, change, born, upsert, filters, order, new))
        return by_pipeline(applied, change) if isinstance(change, list) else applied

    async def _replace(
        self, verb: Verb, filter: Any, replacement: Any, *, upsert: bool, sort: Any = None
    ) -> list[Applied]:
        upsert = self._take.upsert(upsert)
        wanted, whole, order = self._filter_of(filter), self._take.replacement(replacement), self._take.sort(sort)
        key = key_in(wanted)
        if "_id" in whole and key is not ANY:
            check_same_key(whole, key)
            whole = with_key(whole, whole["_id"])
        new = ObjectId() if upsert else None
        applied = await self._write(verb, Replace(key, wanted, whole, fresh_id(), upsert, order, new))
        return [dataclasses.replace(each, rewritten="_id" not in whole) for each in applied]

    async def _delete(self, verb: Verb, filter: Any, *, sort: Any = None) -> list[Applied]:
        wanted, order = self._filter_of(filter), self._take.sort(sort)
        return await self._write(verb, Delete(key_in(wanted), wanted, fresh_id(), order))

    def _filter_of(self, filter: Any) -> Document:
        if not isinstance(filter, (dict, Mapping)):
            raise TypeError(f"filter must be an instance of a mapping, not {type(filter).__name__}")
        return self._take.filter(filter)

    async def _write(self, verb: Verb, change: Update | Replace | Delete) -> list[Applied]:
        """Makes the change: of the document that the filter names by its key, or of the first that the filter
        matches, which the primary finds. At most one was applied."""
        if not isinstance(change, Delete) and change.upsert:
            check_upsert(cached_filter(change.filter))
        applied = await self._router.write(self._name, verb, change)
        return [] if applied is None else [applied]

    # --- changes of many documents ------------------------------------------------------------------------------

    async def update_many(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        array_filters: Any = None,
        **options: Any,
    ) -> UpdateResult:
        """The documents that match are found on the primary first, and changed one by one with the filter still
        attached. An error ends it, and those that were changed stay changed, as in MongoDB."""
        self._take.refuse("update_many", options)
        with as_write():
            return updated(await self._update_many(filter, update, array_filters, upsert=upsert))

    async def _update_many(self, filter: Any, update: Any, array_filters: Any, *, upsert: bool) -> list[Applied]:
        upsert = self._take.upsert(upsert)
        wanted = self._filter_of(filter)
        change, filters = self._take.update(update, array_filters)
        if upsert:
            check_upsert(cached_filter(wanted))
        keys = await self._router.keys_of(self._name, wanted)
        if not keys and upsert:
            return await self._update(Verb.UPDATE_MANY, filter, update, array_filters, upsert=True)
        born = fresh_id if isinstance(change, list) else str
        changes = [Update(key, wanted, change, born(), False, filters) for key in keys]
        applied = await self._write_all(Verb.UPDATE_MANY, changes)
        return by_pipeline(applied, change) if isinstance(change, list) else applied

    async def delete_many(self, filter: Mapping[str, Any], **options: Any) -> DeleteResult:
        self._take.refuse("delete_many", options)
        with as_write():
            return deleted(len(await self._delete_many(filter)))

    async def _delete_many(self, filter: Any) -> list[Applied]:
        wanted = self._filter_of(filter)
        keys = await self._router.keys_of(self._name, wanted)
        return await self._write_all(Verb.DELETE_MANY, [Delete(key, wanted, fresh_id()) for key in keys])

    async def _write_all(self, verb: Verb, changes: Sequence[Change]) -> list[Applied]:
        applied: list[Applied] = []
        for start in range(0, len(changes), _MANY_AT_ONCE):
            batch = changes[start : start + _MANY_AT_ONCE]
            writes = [self._router.write(self._name, verb, each) for each in batch]
            results = await asyncio.gather(*writes, return_exceptions=True)
            applied += [each for each in results if isinstance(each, Applied)]
            for each in results:
                if isinstance(each, BaseException):
                    raise each
        return applied

    async def bulk_write(self, requests: Sequence[Any], ordered: bool = True, **options: Any) -> BulkWriteResult:
        """PyMongo's operation objects, in PyMongo's order. Raises BulkWriteError with PyMongo's details."""
        self._take.refuse("bulk_write", options)
        check_options("bulk_write", {"ordered": ordered})
        operations = list(requests)
        if not operations:
            raise InvalidOperation("No operations to execute")
        steps = [self._step(place, each) for place, each in enumerate(operations)]
        tally = await self._make_all(steps, ordered=ordered)
        return BulkWriteResult(tally.details, acknowledged=True)

    def _step(self, place: int, request: Any) -> Step:
        """A request, checked as far as PyMongo does before it sends any; what the server would refuse is said when
        its turn comes, and what is not supported at once."""
        for option in ("_collation", "_hint"):
            if getattr(request, option, None) is not None:
                raise UnsupportedOperation(f"bulk_write({option[1:]}=...)", "it has no meaning that both stores share")
        match request:
            case pymongo.InsertOne():
                return self._insert_step(place, request._doc)
            case pymongo.UpdateOne() | pymongo.UpdateMany():
                _tried(self._take.update, request._doc, request._array_filters)
                make: Make = functools.partial(self._bulk_update, request)
            case pymongo.ReplaceOne():
                self._take.replacement(request._doc)
                make = functools.partial(self._bulk_replace, request)
            case pymongo.DeleteOne() | pymongo.DeleteMany():
                make = functools.partial(self._bulk_delete, request)
            case _:
                raise TypeError(f"{type(request).__name__} is not a valid request")
        _tried(self._filter_of, request._filter)
        _tried(self._take.sort, getattr(request, "_sort", None))
        return Step(place, kind_of(request), operation(request), make=make)

    async def _make_all(self, steps: Sequence[Step], *, ordered: bool) -> BulkTally:
        """Makes every step, or, ordered, those up to the first that is refused. Raises BulkWriteError for refusals and
        write concern errors, the driver's error where the outcome is not known."""
        tally = BulkTally()
        for run in runs(steps, ordered=ordered):
            if run[0].make is None:
                await self._make_inserts(tally, run, ordered=ordered)
            else:
                await self._make_one(tally, run[0], run[0].make)
            if ordered and tally.has_errors:
                break
        tally.raise_errors()
        return tally

    async def _make_inserts(self, tally: BulkTally, run: Sequence[Step], *, ordered: bool) -> None:
        inserts = [step.insert for step in run if step.insert is not None]
        results = await self._router.insert_many(self._name, inserts, ordered=ordered)
        for step, result in zip(run, results, strict=True):
            if isinstance(result, WriteConcernError):
                tally.unsafe(result)
                tally.inserted += 1
            elif isinstance(result, Exception):
                tally.failed(step.place, result, step.operation)
            elif result is not None:
                tally.inserted += 1

    async def _make_one(self, tally: BulkTally, step: Step, make: Make) -> None:
        try:
            with as_write():
                applied = await make()
        except WriteConcernError as error:
            tally.unsafe(error)
        except WriteError as error:
            tally.failed(step.place, error, step.operation)
        else:
            tally.made(step.place, applied, removed=step.removes)

    async def _bulk_update(self, request: Any) -> list[Applied]:
        filter, update, filters, upsert = request._filter, request._doc, request._array_filters, bool(request._upsert)
        if isinstance(request, pymongo.UpdateMany):
            return await self._update_many(filter, update, filters, upsert=upsert)
        return await self._update(Verb.BULK_WRITE, filter, update, filters, upsert=upsert, sort=request._sort)

    async def _bulk_replace(self, request: Any) -> list[Applied]:
        upsert, sort = bool(request._upsert), request._sort
        return await self._replace(Verb.BULK_WRITE, request._filter, request._doc, upsert=upsert, sort=sort)

    async def _bulk_delete(self, request: Any) -> list[Applied]:
        if isinstance(request, pymongo.DeleteMany):
            return await self._delete_many(request._filter)
        return await self._delete(Verb.BULK_WRITE, request._filter)

    # --- indexes and the collection itself ----------------------------------------------------------------------

    async def create_index(self, keys: Any, **options: Any) -> str:
        """The name of the index: the configuration's, where that serves it. A unique one is made on both stores
        (DuplicateKeyError if there are duplicates); a plain one on MongoDB, with a log line on how to have it on
        DynamoDB if the configuration does not. Raises UnsupportedOperation for options that both stores cannot keep."""
        wanted = self._wanted(keys, options)
        self._spec = await self._handle.indexes.add(self._spec, wanted)
        return wanted.name

    async def create_indexes(self, indexes: Sequence[IndexModel], **options: Any) -> list[str]:
        """All are looked at before one is made, as by the server. Raises what `create_index` does."""
        self._take.refuse("create_indexes", options)
        asked = [(list(each.document["key"].items()), _without_key(each.document)) for each in indexes]
        await self._handle.indexes.check(self._spec, [self._wanted(keys, options) for keys, options in asked])
        return [await self.create_index(keys, **options) for keys, options in asked]

    def _wanted(self, keys: Any, options: Mapping[str, Any]) -> indexes.IndexRequest:
        return indexes.wanted(self._spec, indexes.index_keys(keys), options)

    async def index_information(self, **options: Any) -> dict[str, Any]:
        """The indexes that both stores have, in PyMongo's shape."""
        self._take.refuse("index_information", options)
        return indexes.information(self._spec)

    def list_indexes(self, **options: Any) -> DocumentCursor:
        self._take.refuse("list_indexes", options)

        async def documents() -> list[Document]:
            return [{"v": 2, "name": name, **each} for name, each in indexes.documents(self._spec).items()]

        return DocumentCursor(self, documents, self._present)

    async def drop_index(self, index_or_name: Any, **options: Any) -> None:
        """Drops a plain index that `create_index` has made, by name or by keys. Raises OperationFailure code 27 if
        there is none, UnsupportedOperation for one that the configuration declares or that is unique."""
        self._take.refuse("drop_index", options)
        await self._handle.indexes.drop(self._name, indexes.to_drop(self._spec, index_or_name))

    async def drop_indexes(self, **options: Any) -> NoReturn:
        raise UnsupportedOperation(
            "drop_indexes", "indexes belong to the configuration", hint="drop_index takes what create_index has made"
        )

    async def drop(self, **options: Any) -> None:
        """Deletes every document, on both stores, one by one with an intent each; tables and indexes stay."""
        await self._delete_many({})

    async def rename(self, new_name: str, **options: Any) -> NoReturn:
        raise UnsupportedOperation("rename", "a DynamoDB table cannot be renamed", hint="copy, then drop")

    def watch(self, *arguments: Any, **options: Any) -> NoReturn:
        raise UnsupportedOperation("watch", "the two stores have different change streams")


def _without_key(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "key"}


def _tried(check: Callable[..., Any], *arguments: Any) -> None:
    """Checks what the application handed in, and leaves what the server refuses to the step itself."""
    try:
        check(*arguments)
    except UnsupportedOperation:
        raise
    except OperationFailure:
        return


async def _refusing(error: Exception) -> list[Applied]:
    raise error
