"""Inserts into MongoDB as the primary: one or many, where nothing is stored or in place of a tombstone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    WriteError,
)

from shadow.model.operation import (
    Applied,
    Insert,
)
from shadow.model.outcome import Outcome, marked
from shadow.model.server_options import sent_with
from shadow.model.version import (
    ABSENT,
    Document,
    Image,
    Key,
    Version,
)
from shadow.stores.mongo.access import MongoAccess
from shadow.stores.mongo.bytes import has_empty_timestamp, literal
from shadow.stores.mongo.refusals import in_one_batch, is_of_id, write_concern_error, write_error
from shadow.stores.mongo.shards import beside
from shadow.stores.mongo.statements import (
    raw_of,
    replacing,
)

__all__ = ["MongoInserts"]


class MongoInserts(MongoAccess):
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
                await self._collection(collection).insert_one(raw, **sent_with("insert_one"))
        except DuplicateKeyError as error:
            if not await self._take_tombstone(collection, change.key, raw, error):
                raise
        return Applied(Image(ABSENT), image)

    async def _take_tombstone(self, collection: str, key: Key, raw: Document, error: WriteError) -> bool:
        """Replaces a tombstone, or one that has just expired, by `raw`. False if there is a document under the key,
        or the refusal is of another kind."""
        if self.once or not isinstance(error, DuplicateKeyError) or not is_of_id(error):
            return False
        if self._shards.key(collection) is not None:
            return await self._shards.take(self._collection(collection), key, raw)
        standing = {"_id": key, f"{self._reserved(collection)}.t": {"$ne": None}}
        try:
            given = sent_with("replace_one")
            await replacing(self._collection(collection), standing, raw, upsert=True, **given)
        except DuplicateKeyError as refusal:
            if not is_of_id(refusal):
                raise
            return False
        return True

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
        """Before each insert, all shards must be asked for its key."""
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
            given = sent_with("insert_many")
            await self._collection(collection).insert_many(raws, ordered=ordered, **given)
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
        """The result of one insert of many that the server has rejected; an error concerns only this one."""
        refusal = write_error(fault)
        try:
            done = await self._take_tombstone(
                collection, insert.key, raw_of(image, self._reserved(collection)), refusal
            )
            if (
                not self.once
                and isinstance(refusal, DuplicateKeyError)
                and await self._unique.make_way(collection, refusal)
            ):
                return await self._insert(collection, insert)
        except Exception as error:
            return error
        return Applied(Image(ABSENT), image) if done else refusal

    async def _insert_literally(self, collection: str, key: Key, raw: Document) -> None:
        """Inserts the result of an upsert: the server fills in empty timestamps in inserts, but not in updates."""
        where = {"_id": key, f"{self._reserved(collection)}.never": True}
        if (shard_key := self._shards.key(collection)) is not None:
            where = beside(where, shard_key.values(raw))
        await self._collection(collection).update_one(where, literal(raw), upsert=True, **sent_with("update_one"))
