"""Reads of MongoDB, with versions and tombstones hidden."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from bson import Int64, ObjectId
from bson.errors import InvalidBSON
from pymongo.cursor_shared import CursorType

from shadow.model.operation import (
    Hit,
    Query,
)
from shadow.model.read_options import ReadOptions
from shadow.model.reads import Aggregate, Count, Distinct
from shadow.model.server_options import sent_with
from shadow.model.stored import document_of, split
from shadow.model.values import CANONICAL
from shadow.model.version import (
    ABSENT,
    Document,
    Image,
    Key,
)
from shadow.mongoql import cached_filter
from shadow.mongoql.values.collation import uncollated
from shadow.stores.mongo import alone
from shadow.stores.mongo.access import MongoAccess
from shadow.stores.mongo.bytes import plain_errors, taken
from shadow.stores.mongo.ranges import identity
from shadow.stores.mongo.statements import (
    hide,
    hide_joined,
    hit_of,
    project,
)

__all__ = ["MongoReads"]

_KEYS: Final = 5000
"""Keys fetched at a time."""
_PLAIN_KEYS: Final = frozenset({ObjectId, str, int, Int64, bool, type(None)})
_PAGE: Final = 100
"""Documents fetched at a time where the application named no batch size; MongoDB's own first batch has 101."""


async def _next_page(cursor: Any, size: int, kind: Any) -> list[Any]:
    with plain_errors():
        if kind in (CursorType.TAILABLE, CursorType.TAILABLE_AWAIT):  # Motor lists none of them
            found = await anext(cursor, None)
            return [] if found is None else [found]
        page: list[Any] = await cursor.to_list(length=size)
        return page


def _sent(query: Query, reserved: str) -> tuple[Document, Document | None, dict[str, Any]]:
    """Filter and projection as the server gets them, and the collation as an option of the driver."""
    if query.mongo_only is not None:
        return alone.hidden(query, reserved), alone.shown(query, reserved), {}
    filter, collation = uncollated(query.filter)
    # By a collation, even a lookup of one `_id` may find a tombstone of another.
    hidden = hide(filter, reserved, always=bool(collation))
    return hidden, project(query.projection, reserved), {"collation": collation} if collation else {}


class MongoReads(MongoAccess):
    async def find_one(self, collection: str, query: Query) -> Hit | None:
        reserved = self._reserved(collection)
        options = sent_with("find_one")
        if query.sort:
            options["sort"] = list(query.sort)
        if query.skip:
            options["skip"] = query.skip
        source = await self._read(collection, newest=query.newest, options=query.read_options)
        only = query.mongo_only
        if only is not None:
            options |= only.options
        hidden, projection, collation = _sent(query, reserved)
        options |= collation
        with plain_errors():
            raw = await source.find_one(hidden, projection, **options)
        if raw is None:
            return None
        return (hit_of if only is None else alone.hit_of)(raw, reserved, query.projection)

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        reserved = self._reserved(collection)
        source = await self._read(collection, newest=query.newest, options=query.read_options)
        only = query.mongo_only
        hidden, projection, options = _sent(query, reserved)
        read = hit_of if only is None else alone.hit_of
        options = {**sent_with("find"), **options, **({} if only is None else only.options)}
        cursor = source.find(
            hidden,
            projection,
            skip=query.skip,
            limit=query.limit,
            sort=list(query.sort) or None,
            batch_size=query.batch_size,
            **options,
        )
        size, kind = query.batch_size or _PAGE, options.get("cursor_type")
        try:
            while cursor.alive and (page := await _next_page(cursor, size, kind)):
                hits = (read(raw, reserved, query.projection) for raw in page)
                yield [hit for hit in hits if hit is not None]
        finally:
            # The server closes a cursor that was read to its end, and Motor would use a thread to find out.
            if cursor.alive:
                await cursor.close()

    async def keys(self, collection: str, filter: Document) -> list[Key]:
        """The keys of all documents that match, as the primary member has them: decoded without their documents, if
        they are of a kind whose values say all that is stored."""
        plain, collation = uncollated(filter)
        hidden = hide(plain, self._reserved(collection), always=True)
        options = sent_with("find") | ({"collation": collation} if collation else {})
        cursor = self._plain[collection].find(hidden, {"_id": 1}, batch_size=_KEYS, **options)
        try:
            found = await cursor.to_list(length=None)
        except InvalidBSON:
            found = []
        keys = [each["_id"] for each in found]
        if keys and {type(key) for key in keys} <= _PLAIN_KEYS:
            return keys
        query = Query(filter=filter, projection={"_id": 1}, batch_size=_KEYS, newest=True)
        return [hit.key async for page in self.find(collection, query) for hit in page]

    def may_lag(self, collection: str, filter: Document) -> bool:
        """False: reads go to the primary member, whose indexes are as new as its documents."""
        return False

    async def answer_read(self, collection: str, read: Count | Distinct | Aggregate) -> Any:
        """The answer to a read with the driver's options, from the members that it wants. Raises what the driver
        raises."""
        options = {} if read.mongo_only is None else read.mongo_only.options
        asked = read.read_options
        match read:
            case Count(filter, skip, limit):
                return await self.count(collection, filter, skip, limit, asked, **options)
            case Distinct(path, filter):
                return await self.distinct(collection, path, filter, asked, **options)
            case Aggregate(pipeline):
                hidden = self._hidden(collection, pipeline) if read.mongo_only is None else pipeline
                return await self._aggregated(collection, hidden, options, asked)

    async def count(
        self,
        collection: str,
        filter: Document,
        skip: int = 0,
        limit: int = 0,
        asked: ReadOptions | None = None,
        **more: Any,
    ) -> int:
        options = {name: value for name, value in sent_with("count_documents").items() if value != {}}
        options |= {name: value for name, value in (("skip", skip), ("limit", limit)) if value}
        filter, collation = uncollated(filter)
        if collation:
            options["collation"] = collation
        hidden = hide(filter, self._reserved(collection), always=True)
        source = await self._read(collection, raw=False, options=asked)
        return int(await source.count_documents(hidden, **{**options, **more}))

    async def distinct(
        self, collection: str, path: str, filter: Document, asked: ReadOptions | None = None, **more: Any
    ) -> list[Any]:
        hidden = hide(filter, self._reserved(collection), always=True)
        values = await self._read(collection, raw=False, options=asked)
        if self._decoding_errors() != "strict":
            options = CANONICAL.with_options(unicode_decode_error_handler=self._decoding_errors())
            values = values.with_options(codec_options=options)
        return list(await values.distinct(path, hidden, **{**sent_with("distinct"), **more}))

    def _decoding_errors(self) -> str:
        """How the application's client handles text that is not UTF-8. Single values come without their bytes, so they
        are read as the client reads them."""
        options = self._options.get("codec_options") or getattr(self.client, "codec_options", None)
        return str(getattr(options, "unicode_decode_error_handler", "strict"))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        return await self._aggregated(collection, self._hidden(collection, pipeline), {}, None)

    def _hidden(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        """The pipeline, over documents without their versions and without tombstones."""
        reserved = self._reserved(collection)
        return [{"$match": {f"{reserved}.t": None}}, {"$unset": reserved}, *hide_joined(pipeline, reserved)]

    async def _aggregated(
        self, collection: str, pipeline: Sequence[Document], options: Mapping[str, Any], asked: ReadOptions | None
    ) -> list[Document]:
        source = await self._read(collection, options=asked)
        with plain_errors():
            cursor = source.aggregate(list(pipeline), **{**sent_with("aggregate"), **options})
            if inspect.isawaitable(cursor):
                cursor = await cursor
            return [document_of(bytes(each.raw)) for each in await cursor.to_list(length=None)]

    async def image(self, collection: str, key: Key) -> Image:
        with plain_errors():
            return self._split(collection, key, await self._lasting.find_one(collection, key))

    async def lasting_images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        with plain_errors():
            found = await self._lasting.find(collection, {"_id": {"$in": list(keys)}}, None)
        by_key = {identity(taken(raw)["_id"]): raw for raw in found}
        return [self._split(collection, key, by_key.get(identity(key))) for key in keys]

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        reserved = self._reserved(collection)
        matchers = [cached_filter({"_id": {"$eq": key}}) for key in keys]
        with plain_errors():
            cursor = self._exact[collection].find({"_id": {"$in": list(keys)}})
            found = [(taken(raw), raw) async for raw in cursor]
        return [next((split(raw, reserved) for key, raw in found if m.matches(key)), Image(ABSENT)) for m in matchers]
