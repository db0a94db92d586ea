"""Writes to DynamoDB as the secondary: replays and copies, each conditional on what is stored there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from pymongo.errors import WriteError

from shadow.errors import UnsupportedOperation
from shadow.model.operation import (
    Delete,
    Update,
    Write,
)
from shadow.model.stored import RawDocument, is_readable
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Unknown, Version, fresh_id
from shadow.mongoql import cached_filter
from shadow.stores.dynamo.access import DynamoAccess
from shadow.stores.dynamo.client.gateway import ConditionFailed
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.write.changes import Computation, computation, names_only_key
from shadow.stores.dynamo.write.direct import direct_request
from shadow.stores.dynamo.write.writes import NOTHING, Expected, FoundItem, expected_of

__all__ = ["DynamoSecondary"]


class DynamoSecondary(DynamoAccess):
    async def replay(self, collection: str, write: Write) -> Image | None:
        table = self._table(collection)
        text = keys.key_text(write.key)
        if isinstance(write.change, Delete):
            return await self._replay_delete(table, text, write, write.change)
        compute = computation(table.namespace, write.change)
        if isinstance(write.pre, Version):
            request = direct_request(table, text, write.change, write.op_id, write.pre)
            if request is None:
                found = await self.found(table, text)
            else:
                tried = await self._replay_directly(table, text, request, compute)
                if isinstance(tried, Image):
                    return tried
                found = tried
            if found.image.state != write.pre:
                return self._own_image(table, found, write)
            if not is_readable(found.image.document):
                return None
            if isinstance(found.image.document, RawDocument) and isinstance(write.change, Update):
                raise UnsupportedOperation("update", "the driver's values cannot represent the whole document")
        else:
            found = NOTHING
        after = compute(found.image)
        if after is None:
            return None
        return await self._follow(table, text, found.image.state, found, after, write.op_id)

    def replays_at_once(self, collection: str) -> int:
        return self._replays.at_once(self._table(collection))

    async def replay_many(self, collection: str, writes: Sequence[Write]) -> list[Image | None]:
        return await self._replays.replay(self._table(collection), writes)

    async def _replay_directly(
        self, table: CollectionTable, text: str, request: dict[str, Any], compute: Computation
    ) -> Image | FoundItem:
        try:
            answer = await self._gateway.call("update_item", table.name, **request)
        except ConditionFailed as failed:
            return FoundItem(failed.item, await self._reader.image(table, failed.item))
        except WriteError:
            return await self.found(table, text)
        before = table.codec.decode(answer["Attributes"])
        if not is_readable(before.document) and isinstance(before.state, Version):
            return Image(before.state.next(), before.document)  # applied, and still unreadable
        after = compute(before)
        assert after is not None
        return after

    def _own_image(self, table: CollectionTable, found: FoundItem, write: Write) -> Image | None:
        """The stored image, if this very write has already stored it."""
        own = found.item is not None and table.codec.op_id(found.item) == write.op_id
        return found.image if own and found.image.state == write.post.state else None

    async def _replay_delete(self, table: CollectionTable, text: str, write: Write, change: Delete) -> Image | None:
        after = Image(Tombstone(change.tombstone))
        if not table.spec.unique and names_only_key(change.filter):
            return await self._follow(table, text, (write.pre, ABSENT), NOTHING, after, write.op_id)
        found = await self.found(table, text)
        if found.image.state == after.state:
            return after
        if found.image.state not in (write.pre, ABSENT):
            return None
        document = found.image.document
        if not is_readable(document) and not names_only_key(change.filter):
            return None
        if document is not None and not cached_filter(change.filter).matches(document):
            return None
        return await self._follow(table, text, found.image.state, found, after, write.op_id)

    async def _follow(
        self, table: CollectionTable, text: str, expected: Expected, found: FoundItem, after: Image, op_id: str
    ) -> Image | None:
        try:
            await self._writer.commit(table, text, expected, found, after, op_id)
        except ConditionFailed as failed:
            there = failed.item
            own = there is not None and table.codec.op_id(there) == op_id
            if there is None or not own or table.codec.state(there) != after.state:
                return None
        return after

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        return await self._put(collection, key, image, expected, fresh_id())

    async def put_many(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> list[bool | Exception]:
        """`put` for many (key, image, expected), in order; inserts where nothing is stored are batched."""
        op_ids = [fresh_id() for _ in puts]
        free = [place for place, (_, _, expected) in enumerate(puts) if expected == ABSENT]
        images = [puts[place][1] for place in free]
        inserted = await self._inserter.put_absent(
            self._table(collection), [puts[place][0] for place in free], images, [op_ids[place] for place in free]
        )
        done = dict(zip(free, inserted, strict=True))

        left = [place for place in range(len(puts)) if not done.get(place)]
        results: list[bool | Exception] = [True] * len(puts)
        alone = await asyncio.gather(
            *(self._put(collection, *puts[place], op_ids[place]) for place in left), return_exceptions=True
        )
        for place, result in zip(left, alone, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            results[place] = result
        return results

    def copies_at_once(self, collection: str) -> int:
        return self._replays.at_once(self._table(collection))

    async def copy_many(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> list[bool]:
        return await self._replays.copy(self._table(collection), puts)

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        return await self._together.put(self._table(collection), puts)

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        return await self._together.holders(self._table(collection), keys.key_text(key), document)

    async def _copy_absent(self, collection: str, keys_: Sequence[Key], images: Sequence[Image]) -> list[bool]:
        """Inserts, in batches, the images whose keys are free. False: not inserted, or unknown."""
        op_ids = [fresh_id() for _ in images]
        return await self._inserter.put_absent(self._table(collection), keys_, images, op_ids)

    async def _put(self, collection: str, key: Key, image: Image, expected: State, op_id: str) -> bool:
        if image.state == ABSENT:
            raise ValueError("only a document or a tombstone can be put")
        table = self._table(collection)
        text = keys.key_text(key)
        found, wanted = NOTHING, cast(Expected, expected)
        if isinstance(expected, Unknown) or (table.spec.unique and expected != ABSENT):
            found = await self.found(table, text)
            if found.image.state != expected:
                return False
            wanted = expected_of(found) if isinstance(expected, Unknown) else expected
        return await self._follow(table, text, wanted, found, image, op_id) is not None
