"""A store in memory: the contract in its plainest form. The simulator runs the real protocol over it, and the contract
suite holds it to the same tests as the real ones."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from pymongo.errors import DuplicateKeyError

from shadow.model.matching import cached_filter, compile_pipeline, compile_projection
from shadow.model.matching.caching import cached_update
from shadow.model.matching.updates import check_upsert
from shadow.model.matching.values_at import distinct_values
from shadow.model.operation import Applied, Change, Delete, Hit, Insert, Query, Replace, Sort, Update, Write
from shadow.model.order import key_digest, sort_documents
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.model.stored import check_copyable, with_id
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Version

__all__ = ["MemoryStore"]

_PAGE = 100


class MemoryStore:
    """Holds images by collection and key. Every method runs without giving up the event loop, so each is atomic.

    `name` is the role that it plays; nothing else depends on it.
    """

    def __init__(self, name: StoreName = StoreName.MONGO) -> None:
        self.name = name
        self._images: dict[str, dict[str, tuple[Key, Image]]] = {}

    async def close(self) -> None:
        """Nothing to end; the images stay, as a server's would."""

    async def ping(self) -> None:
        """Always there."""

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        for spec in collections:
            self._images.setdefault(spec.name, {})

    async def speed_up(self, collection: str, keys: Sort, name: str) -> bool:
        return False

    async def drop(self, collection: str) -> None:
        self._images.pop(collection, None)

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

        return compile_pipeline(pipeline).run(lookup(collection), lookup)

    async def image(self, collection: str, key: Key) -> Image:
        return copy.deepcopy(self._image(collection, key))

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        return [copy.deepcopy(self._image(collection, key)) for key in keys]

    def _find(self, collection: str, query: Query) -> list[Hit]:
        matches = cached_filter(query.filter).matches
        found = [
            (image.state, image.document)
            for _, image in self._images.get(collection, {}).values()
            if image.document is not None and matches(image.document)
        ]
        if query.sort:
            found = sort_documents(found, query.sort, key=lambda pair: pair[1])
        found = found[query.skip : query.skip + query.limit if query.limit else None]
        project = compile_projection(query.projection) if query.projection else None
        hits = []
        for state, document in found:
            assert isinstance(state, Version)
            hits.append(Hit(document["_id"], state, copy.deepcopy(document if project is None else project(document))))
        return hits

    # --- writes -------------------------------------------------------------------------------------------------

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        pre = self._image(collection, change.key)
        post = _effect(change, pre)
        if post is None:
            return None
        if isinstance(change, Delete):
            self._images[collection].pop(key_digest(change.key))
        else:
            self._set(collection, change.key, post)
        return Applied(pre if pre.present else Image(ABSENT), copy.deepcopy(post))

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
            self._set(collection, write.key, post)
        return copy.deepcopy(post)

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        check_copyable(image)
        if self._image(collection, key).state != expected:
            return False
        self._set(collection, key, copy.deepcopy(image))
        return True

    def _image(self, collection: str, key: Key) -> Image:
        found = self._images.get(collection, {}).get(key_digest(key))
        return Image(ABSENT) if found is None else found[1]

    def _set(self, collection: str, key: Key, image: Image) -> None:
        self._images.setdefault(collection, {})[key_digest(key)] = (key, image)


def _effect(change: Change, pre: Image) -> Image | None:
    """What the change makes of the image before it; None if it does not apply. Raises as MongoDB would."""
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
                    _inserted(change)  # what is wrong with the document itself is said first
                    raise _duplicate(change.key)
                return None
            return _changed(change, pre)


def _inserted(change: Update | Replace) -> Image:
    if isinstance(change, Replace):
        return _replaced(change, change.key)
    document = cached_update(change.update, change.array_filters).upsert(change.filter, change.key)
    return Image(Version(change.born, 1), document)


def _changed(change: Update | Replace, pre: Image) -> Image:
    assert pre.document is not None
    if isinstance(change, Replace):
        return _replaced(change, pre.document["_id"])
    assert isinstance(pre.state, Version)
    updater = cached_update(change.update, change.array_filters)
    matched = cached_filter(change.filter) if updater.positional else None
    return Image(pre.state.next(), updater.apply(pre.document, matched))


def _replaced(change: Replace, key: Key) -> Image:
    """A replacement without an `_id` keeps the `_id` that stands."""
    return Image(Version(change.born, 1), with_id(copy.deepcopy(change.replacement), key))


def _duplicate(key: Key) -> DuplicateKeyError:
    details = {"code": 11000, "index": 0, "keyPattern": {"_id": 1}, "keyValue": {"_id": key}}
    return DuplicateKeyError("E11000 duplicate key error: index: _id_", 11000, details)
