"""Removes versions and tombstones from a MongoDB collection: the reserved field as a whole, and the indexes on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, UpdateOne
from pymongo.errors import OperationFailure
from pymongo.results import BulkWriteResult

from shadow.model.stored import RAW, key_of, split
from shadow.model.version import Document, Image, Key, State, Tombstone
from shadow.stores.mongo.bytes import plain_errors
from shadow.stores.mongo.durability import Lasting
from shadow.stores.mongo.ranges import MongoRanges, identity, place_after
from shadow.stores.mongo.validation import past_validator
from shadow.stores.ranges import Batch
from shadow.stores.stamps import Stamp

__all__ = ["MongoStamps"]

_NONE: Final = frozenset({26, 27})
"""NamespaceNotFound, IndexNotFound (error_codes.yml)."""


class MongoStamps:
    """As `MongoRanges`; `exactly` returns the condition that a stored document is at a state (state, reserved)."""

    def __init__(
        self,
        lasting: Lasting,
        reserved: Callable[[str], str],
        ranges: MongoRanges,
        exactly: Callable[[State, str], Document],
    ) -> None:
        self._lasting = lasting
        self._database = lasting.database
        self._reserved = reserved
        self._ranges = ranges
        self._exactly = exactly

    async def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int
    ) -> AsyncGenerator[Batch, None]:
        reserved = self._reserved(collection)
        pages = self._ranges.pages(collection, within, place, size=size, whole=False, filter=_stamped(reserved))
        async with aclosing(pages):
            async for page in pages:
                stamps = [_stamp(raw, reserved) for raw in page]
                yield Batch([(each, Image(each.state)) for each in stamps], place_after(page))

    async def look(self, collection: str, keys: Sequence[Key]) -> list[Stamp | None]:
        reserved = self._reserved(collection)
        source = self._database[collection].with_options(codec_options=RAW)
        with plain_errors():
            cursor = source.find({"_id": {"$in": list(keys)}, **_stamped(reserved)}, {"_id": 1, reserved: 1})
            stamps = [_stamp(raw, reserved) for raw in await cursor.to_list(length=None)]
        found = {identity(each.key): each for each in stamps}
        return [found.get(identity(key)) for key in keys]

    async def strip(self, collection: str, stamps: Sequence[Stamp]) -> list[bool]:
        """One request for all. Documents that the collection's validator would reject today are stripped, too."""
        if not stamps:
            return []
        reserved = self._reserved(collection)
        wanted = [_write(each, reserved, self._exactly) for each in stamps]

        target = await self._lasting.copies(collection)

        async def write(past: bool) -> BulkWriteResult:
            more: dict[str, Any] = {"bypass_document_validation": True} if past else {}
            result: BulkWriteResult = await target.bulk_write(wanted, ordered=False, **more)
            return result

        result = await past_validator(collection, write)
        if result.matched_count + result.deleted_count == len(stamps):
            return [True] * len(stamps)
        left = await self.look(collection, [each.key for each in stamps])
        return [each is None for each in left]

    async def clear(self, collection: str) -> None:
        for made in ("ttl", "op"):
            try:
                await self._database[collection].drop_index(f"{self._reserved(collection)}_{made}")
            except OperationFailure as error:
                if error.code not in _NONE:
                    raise


def _stamped(reserved: str) -> Document:
    return {reserved: {"$type": "object"}}


def _stamp(raw: RawBSONDocument, reserved: str) -> Stamp:
    return Stamp(key_of(raw)[0], split(raw, reserved).state)


def _write(stamp: Stamp, reserved: str, exactly: Callable[[State, str], Document]) -> UpdateOne | DeleteOne:
    where = {"_id": stamp.key, **exactly(stamp.state, reserved)}
    if isinstance(stamp.state, Tombstone):
        return DeleteOne(where)
    return UpdateOne(where, {"$unset": {reserved: ""}})
