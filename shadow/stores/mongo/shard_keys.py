"""The shard key of a collection, and which part of it a command by key must carry. Pure.

A router (`mongos`) sends a command to the shard that holds the document by the values of the shard key in its filter.
Before MongoDB 7.1 it rejects `findAndModify` and upserts without them. A missing field counts as null.

Sources: the MongoDB manual, "Shard Keys", "findAndModify" and "update" on sharded collections, "Change a Document's
Shard Key Value", "Missing Shard Key Fields".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shadow.model.version import Document

__all__ = ["ShardKey"]


@dataclass(frozen=True, slots=True)
class ShardKey:
    """`paths`: its fields, dotted, in order, without `_id`; empty if `_id` is the whole key."""

    paths: tuple[str, ...]

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None) -> ShardKey | None:
        """Of an entry of `config.collections`; None: the collection is not sharded. A collection that a router only
        tracks (`unsplittable`, from MongoDB 8.0 on), or that was dropped, is not sharded."""
        if entry is None or entry.get("dropped") or entry.get("unsplittable"):
            return None
        return cls(tuple(path for path in entry["key"] if path != "_id"))

    def values(self, document: Mapping[str, Any]) -> Document:
        """The condition for exactly the shard that holds `document`. No part of a shard key can be an array."""
        return {path: {"$eq": _at(document, path)} for path in self.paths}

    def is_in(self, filter: Mapping[str, Any]) -> bool:
        """Whether a filter contains every part of it as an equality."""
        return all(path in filter and not _is_condition(filter[path]) for path in self.paths)

    def beside(self, document: Mapping[str, Any], raw: Document) -> Document:
        """`raw`, a tombstone, with the shard key of the document that it replaces: so it stays on its shard."""
        made = dict(raw)
        for path in self.paths:
            value = _at(document, path)
            if value is not None:
                _put(made, path.split("."), value)
        return made


def _is_condition(value: Any) -> bool:
    return isinstance(value, Mapping) and any(str(name).startswith("$") for name in value)


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(document, Mapping) or name not in document:
            return None
        document = document[name]
    return document


def _put(document: Document, path: list[str], value: Any) -> None:
    *way, last = path
    for name in way:
        document[name] = dict(document.get(name, {}))
        document = document[name]
    document[last] = value
