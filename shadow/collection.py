"""The collection: Motor's surface. It turns a call into operations and results back into Motor's; ids, births and the
clock are fixed here, once, and inputs are copied at the door.

Methods take what Motor takes. An argument that would change the answer on one of the stores is refused by name, before
any store is touched; one that changes no answer is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from bson import ObjectId, Regex
from bson.codec_options import CodecOptions
from pymongo.errors import BulkWriteError, WriteError
from pymongo.results import DeleteResult, InsertManyResult, InsertOneResult, UpdateResult

from shadow.compare.equality import same
from shadow.cursor import Cursor, sort_pairs
from shadow.errors import UnsupportedOperation
from shadow.model.matching import cached_filter, compile_projection
from shadow.model.matching.caching import cached_update
from shadow.model.operation import Applied, Change, Delete, Hit, Insert, Query, Replace, Sort, Update, Verb
from shadow.model.outcome import Outcome, classify
from shadow.model.values import normalise, present, snapshot
from shadow.model.version import Document, Key, fresh_id
from shadow.router import Router

__all__ = ["Collection", "Handle"]

_MISSING: Final = object()
_HARMLESS: Final = frozenset({"comment", "bypass_document_validation", "maxTimeMS", "max_time_ms", "allow_disk_use"})
"""Arguments that change no answer. Validation is bypassed on neither store by asking for it on one."""
_RESOLVE_ATTEMPTS: Final = 8
"""How often a write by filter looks for another document when the one it found was changed under it."""


class Handle(Protocol):
    """What a collection needs of the Shadow that made it."""

    @property
    def database_name(self) -> str: ...

    def current(self) -> Router:
        """The router of the running event loop."""

    def get_collection(self, name: str) -> Collection: ...


class Collection:
    """One collection of the application. Made by `Shadow.get_collection`; needs no event loop until it is used."""

    def __init__(self, name: str, handle: Handle, *, reserved: str, options: CodecOptions[Any] | None = None) -> None:
        self._name = name
        self._handle = handle
        self._reserved = reserved
        self._options = options

    @property
    def name(self) -> str:
        return self._name

    @property
    def full_name(self) -> str:
        return f"{self._handle.database_name}.{self._name}"

    @property
    def codec_options(self) -> CodecOptions[Any]:
        return self._options if self._options is not None else CodecOptions()

    def __repr__(self) -> str:
        return f"Collection({self.full_name!r})"

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
        return self._handle.get_collection(f"{self._name}.{name}")

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
        query = self._query("find_one", filter, projection, sort=sort, skip=skip, options=options)
        hit = await self._handle.current().find_one(self._name, query)
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
        query = self._query("find", filter, projection, sort=sort, skip=skip, limit=abs(limit), options=options)
        cursor = Cursor(self, query, self._pages, self._present)
        return cursor.batch_size(batch_size)

    async def count_documents(self, filter: Mapping[str, Any], *, skip: int = 0, limit: int = 0, **options: Any) -> int:
        """How many documents match."""
        query = self._query("count_documents", filter, None, skip=skip, limit=limit, options=options)
        return await self._handle.current().count(self._name, query)

    def _pages(self, query: Query) -> Any:
        return self._handle.current().find(self._name, query)

    def _query(
        self,
        verb: str,
        filter: Any,
        projection: Any,
        *,
        sort: Any = None,
        skip: int = 0,
        limit: int = 0,
        options: Mapping[str, Any],
    ) -> Query:
        self._refuse(verb, options)
        wanted = self._projection(projection)
        return Query(self._filter(filter), wanted, self._sort(sort), skip=skip, limit=limit)

    # --- writes -------------------------------------------------------------------------------------------------

    async def insert_one(self, document: Any, **options: Any) -> InsertOneResult:
        """Inserts, and puts an `_id` into the caller's document if it has none, as the drivers do."""
        self._refuse("insert_one", options)
        change = self._insert(document)
        await self._handle.current().write(self._name, Verb.INSERT_ONE, change)
        return InsertOneResult(document["_id"], acknowledged=True)

    async def insert_many(self, documents: Iterable[Any], ordered: bool = True, **options: Any) -> InsertManyResult:
        """Raises BulkWriteError with one entry for each document that was refused."""
        self._refuse("insert_many", options)
        originals = list(documents)
        if not originals:
            raise TypeError("documents must be a non-empty list")
        changes = [self._insert(each) for each in originals]
        results = await self._handle.current().insert_many(self._name, changes, ordered=ordered)
        _raise_bulk(results, changes)
        return InsertManyResult([each["_id"] for each in originals], acknowledged=True)

    async def update_one(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        *,
        array_filters: Any = None,
        **options: Any,
    ) -> UpdateResult:
        self._refuse("update_one", options)
        wanted = self._filter(filter)
        change, filters = self._update_of(update, array_filters)

        def make(key: Key) -> Change:
            return Update(key, wanted, change, fresh_id(), upsert, filters)

        return _updated(await self._write(Verb.UPDATE_ONE, wanted, make, upsert=upsert))

    async def replace_one(
        self, filter: Mapping[str, Any], replacement: Mapping[str, Any], upsert: bool = False, **options: Any
    ) -> UpdateResult:
        self._refuse("replace_one", options)
        wanted = self._filter(filter)
        whole = self._document(replacement, "replacement")
        if any(name.startswith("$") for name in list(whole)[:1]):
            raise ValueError("replacement can not include $ operators")

        def make(key: Key) -> Change:
            return Replace(key, wanted, _with_key(whole, key), fresh_id(), upsert)

        return _updated(await self._write(Verb.REPLACE_ONE, wanted, make, upsert=upsert, replacement=whole))

    async def delete_one(self, filter: Mapping[str, Any], **options: Any) -> DeleteResult:
        self._refuse("delete_one", options)
        wanted = self._filter(filter)
        applied = await self._write(Verb.DELETE_ONE, wanted, lambda key: Delete(key, wanted, fresh_id()))
        return DeleteResult({"n": 0 if applied is None else 1, "ok": 1.0}, acknowledged=True)

    async def _write(
        self,
        verb: Verb,
        filter: Document,
        make: Any,
        *,
        upsert: bool = False,
        sort: Sort = (),
        replacement: Document | None = None,
    ) -> Applied | None:
        """Finds the key that the write is about, on the primary, and makes the change there, the filter attached.
        Another writer may change the document in between; then another one that matches is looked for."""
        router = self._handle.current()
        key = key_in(filter)
        if key is not _MISSING:
            return await router.write(self._name, verb, make(key))
        for attempt in range(_RESOLVE_ATTEMPTS):
            hit = await router.key_of(self._name, filter, sort)
            if hit is None and not upsert:
                return None
            try:
                applied = await router.write(self._name, verb, make(_upsert_key(filter, replacement, hit)))
            except WriteError as error:
                # Two upserts of the same filter: the one that lost finds the other's document at the next look.
                if hit is not None or error.code != 11000 or attempt == _RESOLVE_ATTEMPTS - 1:
                    raise
                continue
            if applied is not None:
                return applied
        return None

    # --- what goes in -------------------------------------------------------------------------------------------

    def _insert(self, document: Any) -> Insert:
        if not isinstance(document, Mapping):
            raise TypeError(f"document must be a mapping, not {type(document).__name__}")
        if "_id" not in document:
            document["_id"] = ObjectId()  # type: ignore[index]
        whole = self._document(document, "document")
        key = whole["_id"]
        if isinstance(key, list | Regex):
            raise WriteError(f"The '_id' value cannot be of type {'array' if isinstance(key, list) else 'regex'}", 2)
        # MongoDB stores `_id` first.
        return Insert(key, _with_key(whole, key), fresh_id())

    def _document(self, document: Any, what: str) -> Document:
        if not isinstance(document, Mapping):
            raise TypeError(f"{what} must be a mapping, not {type(document).__name__}")
        whole = normalise(document, self._options)
        if self._reserved in whole:
            self._refuse_reserved(what)
        return whole

    def _filter(self, filter: Any) -> Document:
        if filter is None:
            return {}
        if not isinstance(filter, Mapping):
            filter = {"_id": filter}
        wanted = normalise(filter, self._options)
        for name in _names(wanted):
            if name == self._reserved or name.startswith(f"{self._reserved}."):
                self._refuse_reserved("filter")
        cached_filter(wanted)
        return wanted

    def _update_of(self, update: Any, array_filters: Any) -> tuple[Document | list[Document], tuple[Document, ...]]:
        filters = tuple(normalise(each, self._options) for each in array_filters or ())
        if isinstance(update, list):
            raise UnsupportedOperation("update with a pipeline", "not yet possible on both stores")
        if not isinstance(update, Mapping):
            raise TypeError("update must be a mapping of operators")
        wanted = normalise(update, self._options)
        if not wanted:
            raise ValueError("update cannot be empty")
        if not all(name.startswith("$") for name in wanted):
            raise ValueError("update only works with $ operators")
        for fields in wanted.values():
            for path in fields if isinstance(fields, dict) else ():
                if path.split(".")[0] == self._reserved:
                    self._refuse_reserved("update")
        cached_update(wanted, filters)
        return wanted, filters

    def _projection(self, projection: Any) -> Document | None:
        if projection is None:
            return None
        if not isinstance(projection, Mapping):
            projection = {str(name): 1 for name in projection} or {"_id": 1}
        wanted = normalise(projection, self._options)
        if any(name.split(".")[0] == self._reserved for name in wanted):
            self._refuse_reserved("projection")
        compile_projection(wanted)
        return wanted or None

    def _sort(self, sort: Any) -> Sort:
        return () if sort is None else sort_pairs(sort)

    def _refuse_reserved(self, what: str) -> NoReturn:
        raise UnsupportedOperation(
            f"the field {self._reserved!r} in a {what}",
            "it holds the version of the document",
            hint="the collection's setting `reserved` chooses another name",
        )

    def _refuse(self, verb: str, options: Mapping[str, Any]) -> None:
        """Refuses every option that is given and would change an answer."""
        for name, value in options.items():
            if value is not None and name not in _HARMLESS:
                raise UnsupportedOperation(f"{verb}({name}=...)", "it has no meaning that both stores share")

    def _present(self, document: Document) -> Any:
        return present(document, self._options)


def key_in(filter: Document) -> Key:
    """The key that a filter names by equality on `_id`, or the marker for none."""
    if "_id" not in filter:
        return _MISSING
    wanted = filter["_id"]
    if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
        return wanted["$eq"] if set(wanted) == {"$eq"} and not isinstance(wanted["$eq"], list) else _MISSING
    return _MISSING if isinstance(wanted, list | Regex) else wanted


def _names(filter: Any) -> Iterable[str]:
    """Every field name in a filter, also inside logical operators."""
    if isinstance(filter, dict):
        for name, value in filter.items():
            yield name
            yield from _names(value)
    elif isinstance(filter, list):
        for each in filter:
            yield from _names(each)


def _with_key(document: Document, key: Key) -> Document:
    return {"_id": key, **{name: value for name, value in document.items() if name != "_id"}}


def _upsert_key(filter: Document, replacement: Document | None, hit: Hit | None) -> Key:
    """The key of the document found; else the one that the upsert will insert: named by the filter, by the
    replacement, or new."""
    if hit is not None:
        return hit.key
    named = cached_filter(filter).equalities()
    if "_id" in named:
        return snapshot(named["_id"])
    if replacement is not None and "_id" in replacement:
        return replacement["_id"]
    return ObjectId()


def _updated(applied: Applied | None) -> UpdateResult:
    """MongoDB's counts. `modified` is decided by the document, for the version moves with every change."""
    if applied is None:
        return UpdateResult({"n": 0, "nModified": 0, "ok": 1.0, "updatedExisting": False}, acknowledged=True)
    assert applied.post.document is not None
    if not applied.pre.present:
        raw = {"n": 1, "nModified": 0, "ok": 1.0, "updatedExisting": False, "upserted": applied.post.document["_id"]}
        return UpdateResult(raw, acknowledged=True)
    modified = int(not identical(applied))
    return UpdateResult({"n": 1, "nModified": modified, "ok": 1.0, "updatedExisting": True}, acknowledged=True)


def identical(applied: Applied) -> bool:
    """Whether a change left the document as it was."""
    assert applied.pre.document is not None
    assert applied.post.document is not None
    return same(applied.pre.document, applied.post.document)


def _raise_bulk(results: Sequence[Applied | Exception | None], changes: Sequence[Insert]) -> None:
    """Raises what `insert_many` raises: a BulkWriteError for refusals, the driver's error where the outcome is
    unknown."""
    errors = []
    for index, (result, change) in enumerate(zip(results, changes, strict=True)):
        if not isinstance(result, Exception):
            continue
        if not isinstance(result, WriteError) or classify(result) is Outcome.UNKNOWN:
            raise result
        errors.append({**(result.details or {}), "index": index, "code": result.code, "op": change.document})
        errors[-1].setdefault("errmsg", str(result))
    if errors:
        inserted = sum(isinstance(each, Applied) for each in results)
        raise BulkWriteError(
            {
                "writeErrors": errors,
                "writeConcernErrors": [],
                "nInserted": inserted,
                "nUpserted": 0,
                "nMatched": 0,
                "nModified": 0,
                "nRemoved": 0,
                "upserted": [],
            }
        )
