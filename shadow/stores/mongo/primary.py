"""Writes to MongoDB as the primary.

The version moves in the same atomic command as the change: `find_one_and_update` and the like, which also return the
image before the change. `mongoql` computes the image after it, which saves the second round trip and keeps
`modified_count` as MongoDB would return it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError, WriteError

from shadow.errors import UnsupportedOperation
from shadow.model.batches import Result
from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Insert,
    MongoOnly,
    Replace,
    Update,
    UpsertGuard,
)
from shadow.model.order import MISSING
from shadow.model.server_options import sent_with
from shadow.model.stored import Damaged, split
from shadow.model.version import (
    ABSENT,
    Document,
    Image,
    Key,
    Tombstone,
    Unknown,
    Version,
)
from shadow.mongoql import cached_filter
from shadow.mongoql.upserts import keeps_key
from shadow.stores.many import change_each, change_many
from shadow.stores.mongo import alone
from shadow.stores.mongo import limits as mongo_limits
from shadow.stores.mongo.bytes import plain_errors, taken
from shadow.stores.mongo.changes_of_many import MongoMany, alike
from shadow.stores.mongo.inserts import MongoInserts
from shadow.stores.mongo.refusals import done, is_of_id, refusing
from shadow.stores.mongo.statements import (
    after_upsert,
    applied_after,
    check_upsert_key,
    inserting,
    is_plain,
    is_under,
    key_of_change,
    next_version,
    own_id,
    raw_of,
    stamping,
    where_of,
)

__all__ = ["MongoPrimary"]


class MongoPrimary(MongoInserts):
    def _meant(self, collection: str, change: Update | Replace | Delete, raw: Document) -> Image:
        """The document before a change. Another spelling of its key means that the collection got a collation since
        it was checked: the secondary does not have it, and what else was missed is unknown."""
        image = split(raw, self._reserved(collection))
        if change.key is not ANY and not is_under(change.key, raw, image):
            self._on_doubt(collection)
        return image

    async def admit(self) -> None:
        """Raises `UnsupportedOperation` if the client's write concern must be refused; see `durability`."""
        await self._durability.admit()

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        await self.link.found(self._max_time_ms / 1000)
        with self._in_time():
            self._concern = await self._durability.for_application()
            if self.once or not self._durability.unproven:
                with self.link.of_write():
                    return await self._apply(collection, change, op_id)
            before = self._durability.election()
            with self.link.of_write():
                applied = await self._apply(collection, change, op_id)
            await self._durability.prove(self._exact[collection], before, self._max_time_ms)
            return applied

    async def _apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        try:
            return await self._apply_once(collection, change, op_id)
        except DuplicateKeyError as refusal:
            # Tombstones remain after a flip, and the application creates its own indexes.
            if not await self._unique.make_way(collection, refusal):
                raise
        return await self._apply_once(collection, change, op_id)

    async def _apply_once(self, collection: str, change: Change, op_id: str) -> Applied | None:
        match change:
            case Insert():
                return await self._insert(collection, change)
            case Update():
                return await self._update(collection, change, op_id)
            case Replace():
                return await self._replace(collection, change, op_id)
            case Delete():
                return await self._delete(collection, change)

    def chooses(self, change: Change) -> bool:
        """False for a delete, which leaves no operation id, and for an upsert by a pipeline that may remove the `_id`
        to insert under."""
        if isinstance(change, Update) and change.mongo_only is not None:
            return True  # its document is found again by the operation's id, under whatever `_id`
        if isinstance(change, Update) and change.upsert and isinstance(change.update, list):
            return keeps_key(change.update)
        if isinstance(change, Replace) and change.upsert:
            # A pipeline would lose what only its bytes represent, and takes names that a replacement may not have.
            return type(change.replacement) is dict and not any(name[:1] == "$" for name in change.replacement)
        return isinstance(change, Update | Replace)

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        return None, ANY

    async def chosen(self, collection: str, op_id: str) -> Key:
        # The result decides an intent: a deposed member would not know the document.
        found = await self._lasting.find(collection, {f"{self._reserved(collection)}.o": op_id}, {"_id": 1})
        return taken(found[0])["_id"] if found else ANY

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        return mongo_limits.refusal(change, existed, document)

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        await self.link.found(self._max_time_ms / 1000)
        with self._in_time():
            self._concern = await self._durability.for_application()
            if self.once or not self._durability.unproven:
                with self.link.of_write():
                    return await self._insert_many(collection, inserts, ordered=ordered)
            before = self._durability.election()
            with self.link.of_write():
                results = await self._insert_many(collection, inserts, ordered=ordered)
            try:
                await self._durability.prove(self._exact[collection], before, self._max_time_ms)
            except PyMongoError as error:
                return [error if isinstance(each, Applied) else each for each in results]
            return results

    async def change_many(self, collection: str, changes: Sequence[Change], op_ids: Sequence[str]) -> Sequence[Result]:
        if self._shards.key(collection) is not None or not alike(changes):
            return await change_each(len(changes), lambda place: self.apply(collection, changes[place], op_ids[place]))
        await self.link.found(self._max_time_ms / 1000)
        with self._in_time():
            self._concern = await self._durability.for_application()
            unproven, before = self._durability.unproven, self._durability.election()
            with self.link.of_write():
                many = self._many(collection, changes, op_ids)
                results = await change_many(many, len(changes))
            if unproven:
                try:
                    await self._durability.prove(self._exact[collection], before, self._max_time_ms)
                except PyMongoError as error:
                    return [error if isinstance(each, Applied) else each for each in results]
            return results

    def _many(self, collection: str, changes: Sequence[Change], op_ids: Sequence[str]) -> MongoMany:
        return MongoMany(
            collection,
            self._reserved(collection),
            changes,
            op_ids,
            self._exact[collection],
            self._lasting,
            self._collection(collection),
            functools.partial(self._apply, collection),
        )

    async def _update(self, collection: str, change: Update, op_id: str) -> Applied | None:
        if change.mongo_only is not None:
            return await self._update_alone(collection, change, op_id)
        check_upsert_key(change)
        reserved = self._reserved(collection)
        by_filter = change.key is ANY
        update = stamping(change, op_id if by_filter else "", reserved)
        options = {"array_filters": list(change.array_filters) or None, **self._sent("find_one_and_update", change)}
        if by_filter:
            options |= {"sort": list(change.sort) or None, "upsert": change.upsert}
        where, target = where_of(change, reserved), self._bytes(collection)
        return await self._changed(
            collection,
            change,
            op_id,
            lambda: self._shards.ask(
                collection, change, where, lambda where: target.find_one_and_update(where, update, **options)
            ),
        )

    def _sent(self, method: str, change: Update | Replace | Delete) -> dict[str, Any]:
        """The options of a command beside those of the change itself. What only MongoDB can do has a hint of its own,
        which need not go with the change."""
        limit = {"maxTimeMS": self._max_time_ms}
        if change.mongo_only is None:
            return {**limit, **sent_with(method)}
        own = {} if isinstance(change, Delete) else alone.options_of(change)
        return {**limit, **sent_with(method, hint=False), **own}

    async def _update_alone(self, collection: str, change: Update, op_id: str) -> Applied | None:
        """An update that only MongoDB can make, by its own conditions and options."""
        assert change.mongo_only is not None
        reserved, target = self._reserved(collection), self._bytes(collection)
        by_filter = change.key is ANY
        update = stamping(change, op_id if by_filter else "", reserved)
        where = where_of(change, reserved) if change.pin is None else alone.by_version(change, reserved)
        options = {"array_filters": list(change.array_filters) or None, **self._sent("find_one_and_update", change)}
        if by_filter:
            options |= {"sort": list(change.sort) or None, "upsert": change.upsert}
        after = change.mongo_only.after and not alone.is_computed(change)
        if after:
            options["return_document"] = ReturnDocument.AFTER
        plain = dataclasses.replace(change, filter={}) if change.pin is not None else change
        raw, _ = await self._asked(
            collection,
            change,
            lambda: self._shards.ask(
                collection, plain, where, lambda where: target.find_one_and_update(where, update, **options)
            ),
        )
        if raw is None:
            return await self._upserted_alone(collection, change, op_id) if change.upsert else None
        with done():
            if after:  # what was there before is not known, so the secondary is repaired
                return Applied(Image(Unknown("")), split(raw, reserved))
            return await self._made_of(collection, change, self._meant(collection, change, raw))

    async def _upserted_alone(self, collection: str, change: Update | Replace, op_id: str) -> Applied:
        """The document that MongoDB has inserted, found by the operation's id. Where the next write was faster, nobody
        knows what it was, and the secondary is repaired."""
        reserved = self._reserved(collection)
        with done(), plain_errors():
            raw = await self._exact[collection].find_one({f"{reserved}.o": op_id})
            if raw is not None:
                return Applied(Image(ABSENT), split(raw, reserved))
        named = change.filter.get("_id", change.replacement.get("_id") if isinstance(change, Replace) else None)
        key = change.new if named is None else named
        lost = Damaged({"_id": key}, {"": "changed before it was read back"})
        return Applied(Image(ABSENT), Image(Version(change.born, 1), lost))

    async def _check_no_tombstone(self, collection: str, only: MongoOnly, error: WriteError) -> None:
        """Raises UnsupportedOperation if the key under which the server would insert has a tombstone: it was deleted
        while MongoDB was the secondary, and only an insert that is computed here may take its place."""
        named = dict((error.details or {}).get("keyValue") or {})
        if "_id" in named and isinstance((await self._image_now(collection, named["_id"])).state, Tombstone):
            raise UnsupportedOperation(
                f"an upsert with {only.name}",
                "its key was deleted while DynamoDB was the primary, and has a tombstone for some days",
                hint="insert the document with insert_one or replace_one",
            ) from error

    async def _changed(
        self, collection: str, change: Update | Replace, op_id: str, ask: Callable[[], Awaitable[Document | None]]
    ) -> Applied | None:
        """Calls `ask` (a command that returns the document before it) until it has changed or inserted one, or has
        found none and is no upsert."""
        while True:
            raw, is_taken = await self._asked(collection, change, ask)
            if raw is not None:
                with done():
                    return await self._made_of(collection, change, self._meant(collection, change, raw))
            if not change.upsert:
                return None
            if change.mongo_only is not None:
                return await self._upserted_alone(collection, change, op_id)
            if change.key is ANY and not is_taken:
                with done():
                    return after_upsert(inserting(change))
            given = op_id if change.key is ANY else ""
            if (applied := await self._upsert(collection, inserting(change), given)) is not None:
                return applied

    async def _asked(
        self, collection: str, change: Update | Replace, ask: Callable[[], Awaitable[Document | None]]
    ) -> tuple[Document | None, bool]:
        """The result, and whether an upsert by filter met its own `_id`, under which there may be a tombstone, or a
        document that its filter matches by now."""
        try:
            return await refusing(ask()), False
        except DuplicateKeyError as error:
            if self.once or change.key is not ANY or not change.upsert or not is_of_id(error):
                raise
            if change.mongo_only is not None:
                await self._check_no_tombstone(collection, change.mongo_only, error)
                raise
            return None, True

    async def _made_of(self, collection: str, change: Update | Replace, pre: Image) -> Applied:
        """The result of the change for the document before it. Where Python's values do not represent the document
        completely, only the server knows the result of an update; where the next write was faster, nobody does, and
        the secondary is repaired."""
        if isinstance(change, Replace) or (is_plain(pre) and alone.is_computed(change)):
            return applied_after(change, pre)
        assert pre.document is not None
        key, state = pre.document.get("_id", change.key), next_version(change, pre)
        after = await self._image_now(collection, key)
        if after.state == state:
            return Applied(pre, after)
        return Applied(pre, Image(state, Damaged({"_id": key}, {"": "changed before it was read back"})))

    async def _upsert(self, collection: str, change: Update | Replace, op_id: str) -> Applied | None:
        """Inserts the document that the upsert makes; None if a document that its filter matches has appeared
        meanwhile.

        The server's own upsert would treat the condition on the key as a field of the new document, and would not
        replace a tombstone.
        """
        applied = after_upsert(change)
        assert applied.post.document is not None
        try:
            return await self._insert(collection, Insert(change.key, applied.post.document, change.born), op_id)
        except DuplicateKeyError as error:
            if self.once or not is_of_id(error):
                raise
            standing = (await self._image_now(collection, change.key)).document
            if standing is not None and not cached_filter(change.filter).matches(standing):
                raise
            return None

    async def _replace(self, collection: str, change: Replace, op_id: str) -> Applied | None:
        if change.mongo_only is None:
            check_upsert_key(change)
        reserved = self._reserved(collection)
        by_filter = change.key is ANY
        image = Image(Version(change.born, 1), change.replacement)
        raw = raw_of(image, reserved, op_id=op_id if by_filter else "")
        where, target = where_of(change, reserved), self._bytes(collection)
        if by_filter and change.upsert and key_of_change(change) is MISSING:
            # A replacement for an arbitrary document cannot name the `_id` to insert under; a pipeline can.
            update = [{"$replaceWith": {"$mergeObjects": [{"_id": own_id(change.new)}, {"$literal": raw}]}}]
            options: dict[str, Any] = {
                "sort": list(change.sort) or None,
                "upsert": True,
                **self._sent("find_one_and_update", change),
            }
            return await self._changed(
                collection, change, op_id, lambda: target.find_one_and_update(where, update, **options)
            )
        options = self._sent("find_one_and_replace", change)
        if by_filter:
            options |= {"sort": list(change.sort) or None, "upsert": change.upsert}
        return await self._changed(
            collection,
            change,
            op_id,
            lambda: self._shards.ask(
                collection, change, where, lambda where: target.find_one_and_replace(where, raw, **options)
            ),
        )

    async def _delete(self, collection: str, change: Delete) -> Applied | None:
        reserved = self._reserved(collection)
        target = self._bytes(collection)
        where = where_of(change, reserved)
        options = self._sent("find_one_and_delete", change)
        if change.pin is not None:
            where, change = alone.by_version(change, reserved), dataclasses.replace(change, filter={})
        with plain_errors():
            raw = await self._shards.ask(
                collection,
                change,
                where,
                lambda where: target.find_one_and_delete(where, **options),
            )
        with done():
            return None if raw is None else Applied(self._meant(collection, change, raw), Image(ABSENT))
