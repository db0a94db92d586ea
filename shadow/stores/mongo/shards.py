"""Commands by key on a collection whose shard key is not `_id`: each carries the values of the shard key, from the
given document or from the documents that are stored under the key now.

There, `_id` is unique only within a shard. The application creates keys that are unique everywhere. Shadow itself
stores something under a key only if no shard has anything there. It checks that before and after: of two writers that
store something at the same time, on two shards, both find it and neither succeeds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from shadow.model.operation import ANY, Delete, Replace, Update
from shadow.model.server_options import sent_with
from shadow.model.stored import split
from shadow.model.version import Document, Key, State, Tombstone
from shadow.stores.mongo.looks import MongoLooks
from shadow.stores.mongo.shard_keys import ShardKey

__all__ = ["MongoShards", "beside"]

_DUPLICATE: Final = 11000


class MongoShards:
    """`database`: the driver's, which returns raw documents of the primary members; `reserved` returns the name of a
    collection's reserved field; `exactly` makes the condition that a document is at a state (state, reserved), and
    `replacing` replaces the document that a condition selects by a stored form (the driver's collection, condition,
    form)."""

    def __init__(
        self,
        looks: MongoLooks,
        database: Any,
        reserved: Callable[[str], str],
        exactly: Callable[[State, str], Document],
        replacing: Callable[[Any, Document, Document], Awaitable[Any]],
    ) -> None:
        self._looks = looks
        self._database = database
        self._reserved = reserved
        self._exactly = exactly
        self._replacing = replacing

    def key(self, collection: str) -> ShardKey | None:
        """The shard key; None: `_id` is enough for a command by key, as far as is known."""
        return self._looks.shard_key(collection)

    async def known(self, collection: str) -> ShardKey | None:
        """The same, looked up on first use. Raises what the driver raises."""
        return await self._looks.known(collection)

    async def standing(self, collection: str, key: Key) -> list[Any]:
        """The documents that are stored under a key on all shards, including tombstones: the version and shard key of
        each."""
        shard_key = self._looks.shard_key(collection)
        assert shard_key is not None
        paths = [path for path in shard_key.paths if not path.startswith("_id.")]
        shown = {"_id": 1, self._reserved(collection): 1, **dict.fromkeys(paths, 1)}
        found: list[Any] = await self._database[collection].find({"_id": key}, shown).to_list(length=None)
        return found

    async def ask(
        self,
        collection: str,
        change: Update | Replace | Delete,
        where: Document,
        command: Callable[[Document], Awaitable[Any]],
    ) -> Any:
        """Returns the result of `command`, called with `where`, and with the shard of the document if the change is
        about one key. A change by filter keeps the application's own conditions, as the server requires of any
        driver."""
        shard_key = self.key(collection)
        if shard_key is None or change.key is ANY or shard_key.is_in(change.filter):
            return await command(where)
        before: Document | None = None
        while True:
            standing = await self.standing(collection, change.key)
            live = [raw for raw in standing if not isinstance(self._state(collection, raw), Tombstone)]
            values = shard_key.values(live[0]) if live else None
            if values is None or values == before:
                return None
            answer = await command(beside(where, values))
            if answer is not None:
                return answer
            before = values  # it does not match, or has moved to another shard meanwhile

    async def take(self, target: Any, key: Key, raw: Document) -> bool:
        """Replaces a tombstone on any shard by `raw`; False if nothing is stored under the key. Raises
        `DuplicateKeyError` for a document on any shard. `target`: the driver's collection."""
        collection, shard_key = target.name, self.key(target.name)
        assert shard_key is not None
        while standing := await self.standing(collection, key):
            state = self._state(collection, standing[0])
            if not isinstance(state, Tombstone):
                raise _duplicate(collection, key)
            where = self._where(collection, shard_key, key, standing[0])
            if (await self._replacing(target, where, raw, **sent_with("replace_one"))).matched_count:
                return True
        return False

    async def is_alone(self, target: Any, key: Key, state: State) -> bool:
        """Whether the document that was stored under a key is the only one. If not, another writer has stored one on
        another shard at the same moment, and this one removes its own."""
        collection, shard_key = target.name, self.key(target.name)
        assert shard_key is not None
        standing = await self.standing(collection, key)
        if len(standing) < 2:
            return True
        own = next((raw for raw in standing if self._state(collection, raw) == state), None)
        if own is not None:
            await target.delete_one(self._where(collection, shard_key, key, own))
        return False

    def _state(self, collection: str, raw: Any) -> State:
        return split(raw, self._reserved(collection)).state

    def _where(self, collection: str, shard_key: ShardKey, key: Key, raw: Any) -> Document:
        """The condition for exactly this document."""
        exactly = self._exactly(self._state(collection, raw), self._reserved(collection))
        return beside({"_id": key, **exactly}, shard_key.values(raw))


def beside(where: Document, values: Document) -> Document:
    """Both conditions, at the top level where possible, where a router looks for the shard key."""
    return {"$and": [where, values]} if where.keys() & values.keys() else {**where, **values}


def _duplicate(collection: str, key: Key) -> DuplicateKeyError:
    """The server's error for a duplicate key, where another shard holds the key."""
    text = f"E11000 duplicate key error collection: {collection} index: _id_"
    details = {"index": 0, "code": _DUPLICATE, "errmsg": text, "keyPattern": {"_id": 1}, "keyValue": {"_id": key}}
    return DuplicateKeyError(text, _DUPLICATE, details)
