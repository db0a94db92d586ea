"""A MongoDB collection in ranges of `_id`.

The bounds are those of the index (`min` and `max` of a cursor): comparisons in a filter only match values of their own
type, and the keys of one collection may be of several.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import Any, Final

from bson import MaxKey, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from shadow.model.order import key_digest
from shadow.model.stored import element_document, is_copyable, key_of, split
from shadow.model.values import CANONICAL
from shadow.model.version import ABSENT, Document, Image, Key
from shadow.stores.mongo.bytes import has_empty_timestamp, plain_errors
from shadow.stores.mongo.durability import Lasting
from shadow.stores.mongo.schema_filters import without_version
from shadow.stores.mongo.shards import MongoShards
from shadow.stores.mongo.validation import VALIDATION_FAILED, RefusedByValidator, past_validator, refused_by_validator
from shadow.stores.ranges import Batch

__all__ = ["MongoRanges", "identity", "place_after"]

_SAMPLED: Final = 25
"""Keys sampled for each range; more samples give more even ranges."""
_BY_ID: Final = {"_id": 1}


class MongoRanges:
    """`lasting` reads durable data, as raw documents (`model.stored.RAW`); `reserved` names the field of the version
    by collection; `raw` makes the stored form of an image (image, reserved, key); `recurs` says whether the server
    deletes documents of a collection by itself."""

    def __init__(
        self,
        lasting: Lasting,
        reserved: Callable[[str], str],
        raw: Callable[[Image, str, Key], Document],
        shards: MongoShards,
        recurs: Callable[[str], bool],
    ) -> None:
        self._shards = shards
        self._recurs = recurs
        self._lasting = lasting
        self._database = lasting.database
        self._reserved = reserved
        self._raw = raw

    async def estimate(self, collection: str) -> int:
        return int(await self._database[collection].estimated_document_count())

    async def cut(self, collection: str, parts: int) -> list[Document]:
        bounds: list[Key] = []
        if parts > 1:
            sampled = await self._sample(collection, parts * _SAMPLED)
            bounds = [sampled[len(sampled) * i // parts] for i in range(1, parts)] if sampled else []
        bounds = _different(bounds)
        lows = [{}, *({"low": key} for key in bounds)]
        highs = [*({"high": key} for key in bounds), {}]
        return [{**low, **high} for low, high in zip(lows, highs, strict=True)]

    async def _sample(self, collection: str, size: int) -> list[Key]:
        pipeline = [{"$sample": {"size": size}}, {"$project": {"_id": 1}}, {"$sort": {"_id": 1}}]
        cursor = self._database[collection].aggregate(pipeline)
        if inspect.isawaitable(cursor):
            cursor = await cursor
        named = [key_of(each) for each in await cursor.to_list(length=None)]
        return [key for key, fault in named if not fault]

    async def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int, whole: bool, filter: Document
    ) -> AsyncGenerator[Batch, None]:
        reserved = self._reserved(collection)
        hidden: Document = {f"{reserved}.t": None}
        shown = {"$and": [without_version(filter, reserved), hidden]} if filter else hidden
        async for page in self.pages(collection, within, place, size=size, whole=whole, filter=shown):
            yield _batch(page, reserved)

    async def pages(
        self, collection: str, within: Document, place: Document | None, *, size: int, whole: bool, filter: Document
    ) -> AsyncGenerator[list[RawBSONDocument], None]:
        """The documents in a range that match `filter`, including tombstones; the cursor after a page is that of its
        last document (`place_after`)."""
        while place is None or not isinstance(place.get("after"), MaxKey):
            page = await self._page(collection, within, place, size + 1, filter, whole=whole)
            if page and place is not None and _is_at(page[0], place):
                page = page[1:]
            if not page and "high" not in within:
                page = await self._last(collection, filter, whole=whole)
            if not page:
                return
            place = place_after(page)
            yield page

    async def _page(
        self, collection: str, within: Document, place: Document | None, size: int, filter: Document, *, whole: bool
    ) -> list[RawBSONDocument]:
        """One reply of the server, at most 16 MB and perhaps fewer than `size` documents, and a query of its own for
        each: no cursor stays open on the server while the job is throttled."""
        command: Document = {"hint": _BY_ID, "sort": _BY_ID, "limit": size, "batchSize": size}
        if place is not None:
            command["min"] = _bound(place)
        elif "low" in within:
            command["min"] = {"_id": within["low"]}
        if "high" in within:
            command["max"] = {"_id": within["high"]}
        return await self._find(collection, filter, command, whole=whole)

    async def _last(self, collection: str, filter: Document, *, whole: bool) -> list[RawBSONDocument]:
        """The document under the largest possible key, which a lower bound excludes as an exclusive end."""
        last: Document = {"_id": MaxKey()}
        return await self._find(collection, {"$and": [last, filter]}, {}, whole=whole)

    async def _find(self, collection: str, filter: Document, more: Document, *, whole: bool) -> list[RawBSONDocument]:
        command: Document = {"find": collection, "filter": filter, "singleBatch": True, **more}
        if not whole:
            command["projection"] = {"_id": 1, self._reserved(collection): 1}
        with plain_errors():
            return await self._lasting.first_batch(command)

    async def look(self, collection: str, keys: Sequence[Key], *, whole: bool) -> list[Image]:
        reserved = self._reserved(collection)
        projection = None if whole else {"_id": 1, reserved: 1}
        with plain_errors():
            raws = await self._lasting.find(collection, {"_id": {"$in": list(keys)}}, projection)
            found = {identity(key_of(raw)[0]): split(raw, reserved) for raw in raws}
        return [found.get(identity(key), Image(ABSENT)) for key in keys]

    async def put_absent(self, collection: str, images: Sequence[tuple[Key, Image]]) -> list[bool]:
        reserved = self._reserved(collection)
        # They are put one by one if an insert would check only one shard, or may find the place of a deleted one free
        # (`stores.recurring`).
        if self._recurs(collection) or await self._shards.known(collection) is not None:
            return [False] * len(images)
        able = [is_copyable(image) and not has_empty_timestamp(image.document) for _, image in images]
        places = [place for place, each in enumerate(able) if each]
        if not places:
            return able
        raws = {place: self._raw(images[place][1], reserved, images[place][0]) for place in places}
        done = dict(enumerate(able))
        left = list(places)

        target = (await self._lasting.copies(collection)).with_options(codec_options=CANONICAL)

        async def insert(past: bool) -> None:
            """The remaining ones; those that only the validator rejected remain."""
            more: dict[str, Any] = {"bypass_document_validation": True} if past else {}
            chosen = list(left)
            try:
                await target.insert_many([raws[n] for n in chosen], ordered=False, **more)
            except BulkWriteError as error:
                if error.details.get("writeConcernErrors"):
                    done.update(dict.fromkeys(chosen, False))
                    return
                faults = {chosen[fault["index"]]: fault.get("code") for fault in error.details.get("writeErrors", ())}
                done.update(dict.fromkeys(faults, False))
                if refused_by_validator(error) and not past:
                    left[:] = [n for n, code in faults.items() if code == VALIDATION_FAILED]
                    done.update(dict.fromkeys(left, True))
                    raise

        try:
            await past_validator(collection, insert)
        except RefusedByValidator:
            done.update(dict.fromkeys(left, False))  # sent one by one, each is rejected by its key
        return [done[n] for n in range(len(images))]


def _batch(page: Sequence[RawBSONDocument], reserved: str) -> Batch:
    images: list[tuple[Key, Image]] = []
    nameless: list[tuple[Key, str]] = []
    for raw in page:
        image = split(raw, reserved)
        if type(image.document) is dict:
            images.append((image.document["_id"], image))
            continue
        key, fault = key_of(raw)
        if fault:
            nameless.append((key, fault))
        else:
            images.append((key, image))
    return Batch(images, place_after(page), nameless)


def place_after(page: Sequence[RawBSONDocument]) -> Document:
    """The cursor after a page: the key of its last document, or its bytes if Python cannot represent the key."""
    key, fault = key_of(page[-1])
    alone = element_document(bytes(page[-1].raw), "_id", "_id")
    return {"bytes": alone} if fault and alone is not None else {"after": key}


def _bound(place: Document) -> Document:
    if "bytes" in place:
        return RawBSONDocument(bytes(place["bytes"]))  # type: ignore[return-value]
    return {"_id": place["after"]}


def _is_at(raw: RawBSONDocument, place: Document) -> bool:
    if "bytes" in place:
        return element_document(bytes(raw.raw), "_id", "_id") == bytes(place["bytes"])
    return identity(key_of(raw)[0]) == identity(place["after"])


def identity(key: Key) -> Hashable:
    """Equal for keys that MongoDB considers equal."""
    return (type(key), key) if type(key) in (str, ObjectId) else key_digest(key)


def _different(keys: list[Key]) -> list[Key]:
    """The keys that can be bounds, each once."""
    found: dict[Hashable, Key] = {}
    for key in keys:
        if isinstance(key, MaxKey):
            continue  # nothing comes after it, so no range can begin there
        found.setdefault(identity(key), key)
    return list(found.values())
