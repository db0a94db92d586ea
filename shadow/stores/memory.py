"""A store in memory: the contract in its simplest form. The simulator runs the real protocol over it, and the contract
suite runs the same tests against it as against the real stores."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

from pymongo.errors import DuplicateKeyError

from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Hit,
    Insert,
    Query,
    Replace,
    Update,
    UpsertGuard,
    Write,
    at_key,
    version_after,
)
from shadow.model.order import key_digest, sort_documents
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.stored import check_copyable
from shadow.model.uniqueness import held_values
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Version, fresh_id
from shadow.mongoql import cached_filter, cached_pipeline, cached_projection, cached_update
from shadow.mongoql.match.values_at import distinct_values
from shadow.mongoql.uniqueness import compared
from shadow.mongoql.update.updates import check_upsert
from shadow.mongoql.upserts import insert_key, replaced

__all__ = ["MemoryStore"]

_PAGE = 100


class MemoryStore:
    """Holds images by collection and key. Every method runs without yielding to the event loop, so each is atomic.

    `name` is the role that it plays; nothing else depends on it.
    """

    def __init__(
        self, name: StoreName = StoreName.MONGO, unique: Sequence[UniqueSpec] = (), *, together: bool = False
    ) -> None:
        """`unique`: constraints that it enforces; `together`: whether values can move between documents in one step."""
        self.name = name
        self._unique = tuple(unique)
        self._together = together
        self._images: dict[str, dict[str, tuple[Key, Image]]] = {}
        self._chosen: dict[tuple[str, str], str] = {}
        """By collection and digest of the key, the last operation that selected its document by itself."""
        self._identities: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    async def close(self) -> None:
        """Closes nothing; the images stay, as on a server."""

    async def ping(self) -> None:
        """Always available."""

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        for spec in collections:
            self._images.setdefault(spec.name, {})

    async def ensure_index(self, collection: str, keys: Any, name: str, **options: Any) -> bool:
        return False

    async def drop(self, collection: str) -> None:
        self._images.pop(collection, None)
        self._identities.pop(collection, None)

    async def identity(self, collection: str) -> str:
        return self._identities.setdefault(collection, fresh_id())

    async def token(self, collection: str) -> str:
        return self._tokens.get(collection, "")

    async def set_token(self, collection: str, token: str) -> None:
        self._tokens[collection] = token

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory"}

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        return next(iter(self._find(collection, query)), None)

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        hits = self._find(collection, query)
        size = query.batch_size or _PAGE
        for start in range(0, len(hits), size):
            yield hits[start : start + size]

    def may_lag(self, collection: str, filter: Document) -> bool:
        return False

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        return len(self._find(collection, Query(filter=filter, skip=skip, limit=limit)))

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        return distinct_values(path, (hit.document for hit in self._find(collection, Query(filter=filter))))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        def lookup(other: str) -> list[Document]:
            return [hit.document for hit in self._find(other, Query())]

        return cached_pipeline(pipeline).run(lookup(collection), lookup)

    async def image(self, collection: str, key: Key) -> Image:
        return copy.deepcopy(self._image(collection, key))

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        return [copy.deepcopy(self._image(collection, key)) for key in keys]

    def _find(self, collection: str, query: Query) -> list[Hit]:
        filter = cached_filter(query.filter)
        matches = filter.matches
        found = [
            (image.state, image.document)
            for _, image in self._images.get(collection, {}).values()
            if image.document is not None and matches(image.document)
        ]
        if query.sort:
            found = sort_documents(found, query.sort, key=lambda pair: pair[1])
        found = found[query.skip : query.skip + query.limit if query.limit else None]
        project = cached_projection(query.projection) if query.projection else None
        hits = []
        for state, document in found:
            assert isinstance(state, Version)
            hits.append(
                Hit(document["_id"], state, copy.deepcopy(document if project is None else project(document, filter)))
            )
        return hits

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        return None

    # --- writes -------------------------------------------------------------------------------------------------

    def chooses(self, change: Change) -> bool:
        return isinstance(change, Update | Replace)

    async def chosen(self, collection: str, op_id: str) -> Key:
        for (name, digest), last in self._chosen.items():
            if (name, last) == (collection, op_id):
                return self._images[collection][digest][0]
        return ANY

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        return None, ANY

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        if change.key is ANY:
            return await self._apply_first(collection, change, op_id)
        pre = self._image(collection, change.key)
        post = _effect(change, pre)
        if post is None:
            return None
        self._check_unique(collection, change.key, post)
        if isinstance(change, Delete):
            self._chosen.pop((collection, key_digest(change.key)), None)
            self._images[collection].pop(key_digest(change.key))
        else:
            self._set(collection, change.key, post)
        return Applied(pre if pre.present else Image(ABSENT), copy.deepcopy(post))

    async def _apply_first(self, collection: str, change: Change, op_id: str) -> Applied | None:
        assert isinstance(change, Update | Replace)
        found = self._find(collection, Query(change.filter, sort=change.sort, limit=1))
        if not found and not change.upsert:
            return None
        key = found[0].key if found else insert_key(change)
        applied = await self.apply(collection, at_key(change, key), op_id)
        self._chosen[collection, key_digest(key)] = op_id
        return applied

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        results: list[Applied | Exception | None] = []
        for insert in inserts:
            try:
                results.append(await self.apply(collection, insert, ""))
            except DuplicateKeyError as error:
                results.append(error)
                if ordered:
                    return results + [None] * (len(inserts) - len(results))
        return results

    async def replay(self, collection: str, write: Write) -> Image | None:
        seen = self._image(collection, write.key)
        if isinstance(write.change, Delete):
            fits = seen.state == write.pre and _effect(write.change, seen) is not None
            gone = fits or seen.state == ABSENT
            post = Image(Tombstone(write.change.tombstone)) if gone else None
        else:
            post = _effect(write.change, seen) if seen.state == write.pre else None
        if post is not None:
            self._check_unique(collection, write.key, post)
            self._set(collection, write.key, post)
        return copy.deepcopy(post)

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        check_copyable(image)
        if self._image(collection, key).state != expected:
            return False
        self._check_unique(collection, key, image)
        self._set(collection, key, copy.deepcopy(image))
        return True

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        if not self._together:
            return None
        if any(self._image(collection, key).state != expected for key, _, expected in puts):
            return False
        before = dict(self._images.get(collection, {}))
        for key, image, _ in puts:
            self._set(collection, key, copy.deepcopy(image))
        try:
            for key, image, _ in puts:
                self._check_unique(collection, key, image)
        except DuplicateKeyError:
            self._images[collection] = before
            raise
        return True

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        return [holder for holder, _ in self._in_the_way(collection, key, document)]

    def _in_the_way(self, collection: str, key: Key, document: Document) -> Iterator[tuple[Key, UniqueSpec]]:
        for digest, (holder, image) in self._images.get(collection, {}).items():
            for constraint in self._unique:
                held = _held(constraint, image.document) if image.document is not None else set()
                if digest != key_digest(key) and not held.isdisjoint(_held(constraint, document)):
                    yield holder, constraint

    def _check_unique(self, collection: str, key: Key, image: Image) -> None:
        if image.document is None or not self._unique:
            return
        for _, constraint in self._in_the_way(collection, key, image.document):
            details = {"code": 11000, "index": 0, "keyPattern": dict.fromkeys(constraint.fields, 1)}
            raise DuplicateKeyError(f"E11000 duplicate key error: index: {constraint.name}", 11000, details)

    def _image(self, collection: str, key: Key) -> Image:
        found = self._images.get(collection, {}).get(key_digest(key))
        return Image(ABSENT) if found is None else found[1]

    def _set(self, collection: str, key: Key, image: Image) -> None:
        self._chosen.pop((collection, key_digest(key)), None)
        self._images.setdefault(collection, {})[key_digest(key)] = (key, image)


def _effect(change: Change, pre: Image) -> Image | None:
    """The result of the change for the image before it; None if it does not apply. Raises as MongoDB would."""
    match change:
        case Insert(key, document, born):
            if pre.present:
                raise _duplicate(key)
            return Image(Version(born, 1), copy.deepcopy(document))
        case Delete(filter=filter):
            return Image(ABSENT) if pre.document is not None and cached_filter(filter).matches(pre.document) else None
        case Update() | Replace():
            matched = cached_filter(change.filter)
            if change.upsert:
                check_upsert(matched)
            if pre.document is None:
                return _inserted(change) if change.upsert else None
            if not matched.matches(pre.document):
                if change.upsert:
                    _inserted(change)  # faults of the document itself are reported first
                    raise _duplicate(change.key)
                return None
            return _changed(change, pre)


def _inserted(change: Update | Replace) -> Image:
    if isinstance(change, Replace):
        return _replaced(change, change.key, None)
    document = cached_update(change.update, change.array_filters).upsert(cached_filter(change.filter), change.key)
    return Image(Version(change.born, 1), document)


def _changed(change: Update | Replace, pre: Image) -> Image:
    assert pre.document is not None
    if isinstance(change, Replace):
        return _replaced(change, pre.document["_id"], pre.document)
    assert isinstance(pre.state, Version)
    updater = cached_update(change.update, change.array_filters)
    matched = cached_filter(change.filter) if updater.positional else None
    return Image(version_after(change, pre.state), updater.apply(pre.document, matched))


def _replaced(change: Replace, key: Key, before: Document | None) -> Image:
    """A replacement without an `_id` keeps the existing `_id`."""
    return Image(Version(change.born, 1), replaced(copy.deepcopy(change.replacement), key, before))


def _duplicate(key: Key) -> DuplicateKeyError:
    details = {"code": 11000, "index": 0, "keyPattern": {"_id": 1}, "keyValue": {"_id": key}}
    return DuplicateKeyError("E11000 duplicate key error: index: _id_", 11000, details)


def _held(constraint: UniqueSpec, document: Document) -> set[str]:
    """A digest of each value that a document holds under a constraint."""
    return {key_digest(list(compared(constraint, values))) for values in held_values(constraint, document)}
