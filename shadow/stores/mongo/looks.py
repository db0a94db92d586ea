"""Checks the kinds of a MongoDB's collections: at each start, at each job, and where one was recreated.

One check is `listCollections`, `hello`, and, behind a router (`mongos`), the entry of `config.collections`. A validator
that does not show whether it accepts a version is tried on documents.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.model.deadline import left
from shadow.model.version import Document, Version, stamp_of
from shadow.stores.mongo.calls import MongoLink
from shadow.stores.mongo.kinds import (
    ListedCollection,
    Special,
    UnfitKind,
    doubtful_validator,
    judge_client,
    judge_collection,
    judge_name,
    refused_by_validator,
)
from shadow.stores.mongo.shard_keys import ShardKey

__all__ = ["MongoLooks"]

_DENIED: Final = frozenset({13, 8000})
"""Unauthorized (MongoDB's error_codes.yml), and Atlas's code for it."""
_LOOKED_AT: Final = 100
"""The number of documents that a validator is tried on."""
_LOOK_MS: Final = 5000
_UNKNOWN_TYPES: Final = frozenset({"Unknown", "PossiblePrimary"})
"""Of servers, in the specification "Server Discovery and Monitoring"."""


class MongoLooks:
    """`database`: the driver's, which returns plain documents of the primary member; `reserved` returns the name of
    a collection's reserved field."""

    def __init__(self, link: MongoLink, database: Any, reserved: Callable[[str], str]) -> None:
        self._link = link
        self._database = database
        self._config = link.database("config")
        self._reserved = reserved
        self.unfit: dict[str, UnfitKind | None] = {}
        """By collection that was checked: why it cannot be written to both stores; None: it can."""
        self._shard_keys: dict[str, ShardKey] = {}
        self._seen: dict[str, ListedCollection] = {}

    def shard_key(self, collection: str) -> ShardKey | None:
        """The shard key; None: `_id`, or no other key is known."""
        return self._shard_keys.get(collection)

    async def known(self, collection: str) -> ShardKey | None:
        """The shard key, looked up on first use, unless the driver sees that there are no shards. Raises what the
        driver raises."""
        if collection not in self.unfit and not self._has_no_shards():
            await self.look(collection)
        return self._shard_keys.get(collection)

    def _has_no_shards(self) -> bool:
        description = getattr(self._link.client, "topology_description", None)
        servers = () if description is None else description.server_descriptions().values()
        kinds = {server.server_type_name for server in servers} - _UNKNOWN_TYPES
        return bool(kinds) and all(kind == "Standalone" or kind.startswith("RS") for kind in kinds)

    async def look(self, collection: str) -> UnfitKind | None:
        """Checks it now. Raises what the driver raises if no server can be reached, after no longer than the
        application's client waits for one."""
        unfit = judge_name(collection) or judge_client(collection, self._link.client)
        if unfit is None:
            seconds = left()
            if seconds is not None:
                await self._link.found(seconds)
            unfit = await self._look(collection)
        self.unfit[collection] = unfit
        return unfit

    async def identity(self, collection: str) -> str:
        """Its UUID; "" if there is none. A collection with a new UUID, or one not checked yet, is checked."""
        found = await self.listed(collection)
        if found != self._seen.get(collection):
            await self.look(collection)
        return found.uuid

    async def _look(self, collection: str) -> UnfitKind | None:
        try:
            found = await self.listed(collection)
        except OperationFailure as error:
            if error.code not in _DENIED:
                raise
            return UnfitKind(collection, Special.UNSEEN)
        self._seen[collection] = found
        reserved = self._reserved(collection)
        unfit = judge_collection(found, reserved)
        if unfit is not None:
            return unfit
        validator = doubtful_validator(found, reserved)
        if validator is not None and await self._refuses_versions(collection, validator):
            return refused_by_validator(found, reserved)
        return await self._look_at_shards(collection)

    async def _refuses_versions(self, collection: str, validator: Mapping[str, Any]) -> bool:
        """Whether the server rejects some documents with a version that pass the validator without. Uses a read-only
        pipeline; False where that cannot tell."""
        stamp = {"$addFields": {self._reserved(collection): {"$literal": stamp_of(Version("0" * 24, 1))}}}
        match = {"$match": dict(validator)}
        stages = [{"$limit": _LOOKED_AT}, match, stamp, {"$match": {"$nor": [dict(validator)]}}, {"$limit": 1}]
        try:
            cursor = self._database[collection].aggregate(stages, maxTimeMS=_LOOK_MS)
            if inspect.isawaitable(cursor):
                cursor = await cursor
            return bool(await cursor.to_list(length=1))
        except OperationFailure:
            return False

    async def listed(self, collection: str) -> ListedCollection:
        """The current entry of `listCollections`. Raises what the driver raises."""
        answer = await self._database.command({"listCollections": 1, "filter": {"name": collection}})
        batch = answer.get("cursor", {}).get("firstBatch", ())
        return ListedCollection.read(batch[0]) if batch else ListedCollection(collection)

    # --- shards -------------------------------------------------------------------------------------------------

    async def _look_at_shards(self, collection: str) -> UnfitKind | None:
        self._shard_keys.pop(collection, None)
        hello = await self._database.command("hello")
        if hello.get("msg") != "isdbgrid":
            return None
        name = f"{self._database.name}.{collection}"
        try:
            entry: Document | None = await self._config["collections"].find_one({"_id": name})
        except OperationFailure as error:
            if error.code not in _DENIED:
                raise
            return UnfitKind(collection, Special.SHARDED_UNSEEN) if await self._is_sharded(collection) else None
        key = ShardKey.read(entry)
        if key is not None and key.paths:
            self._shard_keys[collection] = key
        return None

    async def _is_sharded(self, collection: str) -> bool:
        """Whether it is sharded, as the router reports it to users without access to its records; True where it does
        not report it."""
        try:
            return bool((await self._database.command({"collStats": collection})).get("sharded", True))
        except OperationFailure as error:
            if error.code not in _DENIED:
                raise
            return True
