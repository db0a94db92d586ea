"""What a `mongos` before shards answers, as far as commands by key go: it refuses what lacks the shard key as MongoDB
6.0 does, and keeps `_id` unique on each shard alone. For `ScriptedMongo`; it works documents out as shadow itself does.

Source: the MongoDB manual, "findAndModify", "update" and "insert" on sharded collections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shadow.mongoql import cached_filter, compile_projection
from shadow.mongoql.caching import cached_update

__all__ = ["ScriptedRouter"]

SHARD_KEY_NOT_FOUND: Final = 61
_DUPLICATE: Final = 11000
_DENIED: Final = 13

Document = dict[str, Any]


class ScriptedRouter:
    """One sharded collection. `documents` is what stands on all shards: two values of the shard key are two shards.

    `denied`: names of commands, or of collections of `config`, that the user may not use. `before`: called with the
    name of each command that changes something, before it does.
    """

    def __init__(self, collection: str, key: Mapping[str, Any]) -> None:
        self.collection = collection
        self.key = dict(key)
        self.documents: list[Document] = []
        self.denied: set[str] = set()
        self.changes: list[Document] = []
        self.before: Any = None

    def __call__(self, name: str, command: Document) -> Document:
        if name in self.denied:
            return _refusal(_DENIED, f"not authorized to execute {name}")
        handler = getattr(self, f"_{name}", None)
        if handler is None or command.get("$db") == "admin":
            return {}
        if name in ("findAndModify", "update", "insert", "delete"):
            if self.before is not None:
                self.before(name)
            self.changes.append(command)
        answer: Document = handler(command)
        return answer

    # --- what it says of itself ---------------------------------------------------------------------------------

    def _listCollections(self, command: Document) -> Document:
        entry = {"name": self.collection, "type": "collection", "options": {}, "info": {"uuid": b"0" * 16}}
        return _cursor([entry])

    def _collStats(self, command: Document) -> Document:
        return {"sharded": True}

    def _listIndexes(self, command: Document) -> Document:
        return _cursor([{"v": 2, "key": {"_id": 1}, "name": "_id_"}])

    def _find(self, command: Document) -> Document:
        if command["$db"] == "config":
            if "config.collections" in self.denied:
                return _refusal(_DENIED, "not authorized on config to execute find")
            return _cursor([{"_id": command["filter"]["_id"], "key": self.key}])
        found = self._matching(command.get("filter", {}))
        if command.get("projection"):
            found = [compile_projection(command["projection"])(each) for each in found]
        return _cursor(found[: command.get("limit") or None])

    # --- changes ------------------------------------------------------------------------------------------------

    def _findAndModify(self, command: Document) -> Document:
        shard = self._shard_of(command["query"])
        if shard is None:
            return _refusal(SHARD_KEY_NOT_FOUND, "Query for sharded findAndModify must contain the shard key")
        found = self._matching(command["query"], shard)
        if not found:
            return {"value": None, "lastErrorObject": {"n": 0, "updatedExisting": False}}
        (before, *_) = found
        if command.get("remove"):
            self.documents.remove(before)
            return {"value": before, "lastErrorObject": {"n": 1}}
        after = self._put(before, command["update"], command)
        return {"value": after if command.get("new") else before, "lastErrorObject": {"n": 1, "updatedExisting": True}}

    def _update(self, command: Document) -> Document:
        (one,) = command["updates"]
        shard = self._shard_of(one["q"])
        if shard is None and (one.get("upsert") or "_id" not in one["q"]):
            return _refusal(SHARD_KEY_NOT_FOUND, "Failed to target upsert by query")
        found = self._matching(one["q"], shard)
        if found:
            self._put(found[0], one["u"], one)
            return {"n": 1, "nModified": 1}
        if not one.get("upsert"):
            return {"n": 0, "nModified": 0}
        made = one["u"][0]["$replaceWith"]["$literal"] if isinstance(one["u"], list) else one["u"]
        made = {"_id": one["q"]["_id"], **made}
        if (fault := self._insert_one(made)) is not None:
            return {"n": 0, "nModified": 0, "writeErrors": [fault]}
        return {"n": 1, "nModified": 0, "upserted": [{"index": 0, "_id": made["_id"]}]}

    def _insert(self, command: Document) -> Document:
        faults = []
        for place, each in enumerate(command["documents"]):
            if (fault := self._insert_one(each)) is not None:
                faults.append({**fault, "index": place})
                if command.get("ordered", True):
                    break
        made = {"n": len(command["documents"]) - len(faults)}
        return {**made, "writeErrors": faults} if faults else made

    def _delete(self, command: Document) -> Document:
        removed = 0
        for one in command["deletes"]:
            for each in self._matching(one["q"])[: one["limit"] or None]:
                self.documents.remove(each)
                removed += 1
        return {"n": removed}

    def _insert_one(self, document: Document) -> Document | None:
        shard = self._shard(document)
        if any(each["_id"] == document["_id"] and self._shard(each) == shard for each in self.documents):
            return {
                "index": 0,
                "code": _DUPLICATE,
                "errmsg": "E11000 duplicate key error",
                "keyPattern": {"_id": 1},
                "keyValue": {"_id": document["_id"]},
            }
        self.documents.append(document)
        return None

    def _put(self, before: Document, update: Any, options: Document) -> Document:
        if isinstance(update, dict) and not any(name.startswith("$") for name in update):
            after: Document = {"_id": before["_id"], **update}
        else:
            after = cached_update(update, tuple(options.get("arrayFilters") or ())).apply(before, None)
        self.documents[self.documents.index(before)] = after
        return after

    # --- shards -------------------------------------------------------------------------------------------------

    def _matching(self, filter: Document, shard: tuple[str, ...] | None = None) -> list[Document]:
        wanted = cached_filter(filter)
        return [each for each in self.documents if wanted.matches(each) and shard in (None, self._shard(each))]

    def _shard(self, document: Any) -> tuple[str, ...]:
        return tuple(repr(_at(document, path)) for path in self.key)

    def _shard_of(self, query: Document) -> tuple[str, ...] | None:
        """None where the query does not say every part of the shard key by equality."""
        said: Document = {}
        for part in (query, *query.get("$and", ())):
            for name, value in part.items():
                value = value.get("$eq", ...) if isinstance(value, dict) and _is_condition(value) else value
                if value is not ...:
                    said[name] = value
        values = [said.get(path, ...) for path in self.key]
        return None if any(value is ... for value in values) else tuple(map(repr, values))


def _is_condition(value: Document) -> bool:
    return any(str(name).startswith("$") for name in value)


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _cursor(found: list[Document]) -> Document:
    return {"cursor": {"id": 0, "ns": "d.c", "firstBatch": found}}


def _refusal(code: int, text: str) -> Document:
    return {"ok": 0.0, "code": code, "errmsg": text}
