"""Writes to MongoDB as the secondary: replays and copies, each conditional on what is stored there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.errors import (
    DuplicateKeyError,
)

from shadow.model.operation import (
    Delete,
    Insert,
    Replace,
    Update,
    Write,
)
from shadow.model.outcome import Outcome, classify
from shadow.model.stored import split
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
from shadow.stores.mongo.access import MongoAccess
from shadow.stores.mongo.bytes import plain_errors
from shadow.stores.mongo.refusals import is_of_id
from shadow.stores.mongo.schema_filters import without_version
from shadow.stores.mongo.shards import beside
from shadow.stores.mongo.statements import (
    after_upsert,
    exactly,
    raw_of,
    replacing,
    stamping,
)
from shadow.stores.mongo.validation import past_validator
from shadow.stores.recurring import put_over_nothing

__all__ = ["MongoSecondary"]

_AT_ONCE: Final = 100
_TOGETHER: Final = 16
"""Puts of one batch that are on their way at the same time."""


class MongoSecondary(MongoAccess):
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
        filter = without_version(change.filter, reserved)
        where = {"$and": [filter, {"_id": change.key, **exactly(pre, reserved)}]}
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
        """By key alone, in one round trip: the upsert inserts the tombstone where nothing is stored, and conflicts
        with anything but the previous version. A filter with more conditions cannot be used in an upsert."""
        image = Image(Tombstone(change.tombstone))
        assert isinstance(write.pre, Version)
        reserved = self._reserved(collection)
        where = {"_id": write.key, **exactly(write.pre, reserved)}
        if set(change.filter) <= {"_id"} and self._shards.key(collection) is None:
            return image if await self._place(collection, write.key, where, image, upsert=True) else None
        where = {"$and": [without_version(change.filter, reserved), where]}
        taken = await self._place(collection, write.key, where, image, upsert=False)
        return image if taken or await self.put(collection, write.key, image, ABSENT) else None

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        await self.looks.known(collection)
        if expected == ABSENT and image.present and self._expires(collection):
            return await put_over_nothing(functools.partial(self._put, collection, key), image)
        return await self._put(collection, key, image, expected)

    def _expires(self, collection: str) -> bool:
        """Whether the server deletes documents of the collection by itself."""
        return collection in self._specs and self._specs[collection].expiry is not None

    async def _put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
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
        """Replaces the document that `where` selects by the image. Conditions other than `_id` cannot become fields: a
        replacement upsert takes only `_id` from its filter."""
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
                if is_of_id(error):
                    return False
                # A tombstone blocks nothing, unless an index was created since the last lookup.
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

    def copies_at_once(self, collection: str) -> int:
        return _AT_ONCE

    async def copy_many(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> list[bool]:
        """One by one, some at the same time: what is in the way of a put (a validator, an index, a shard) differs from
        document to document."""
        gate = asyncio.Semaphore(_TOGETHER)

        async def put(key: Key, image: Image, expected: State) -> bool:
            async with gate:
                return await self.put(collection, key, image, expected)

        # All have ended when one of them raises: none may still be writing when the caller goes on.
        answers = await asyncio.gather(*(put(*each) for each in puts), return_exceptions=True)
        for each in answers:
            if isinstance(each, BaseException) and not isinstance(each, Exception):
                raise each
            if isinstance(each, Exception) and classify(each) is Outcome.UNKNOWN:
                raise each
        return [each is True for each in answers]

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        """None: MongoDB checks indexes with each write, also in a transaction, so two documents cannot trade values."""
        return None

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        return await self._unique.holders(collection, key, document)
