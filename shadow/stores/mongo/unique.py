"""MongoDB's unique indexes, where this store is the secondary: finds what blocks a copy, and keeps tombstones from it.

A unique index counts a missing field as null, and a tombstone has no field of the application. So a tombstone carries
its own id, which no document has, at every path of a unique index. The indexes are the server's, whoever created them;
they are looked up once, and again when a value was rejected.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import DuplicateKeyError, OperationFailure

from shadow.model.order import UNDEFINED
from shadow.model.schema import UniqueSpec
from shadow.model.uniqueness import held_values
from shadow.model.version import Document, Key
from shadow.mongoql import cached_filter
from shadow.stores.mongo.validation import past_validator

__all__ = ["MongoUnique"]

_UNAUTHORIZED: Final = 13
_PLAIN: Final = (1, -1)
"""Directions; any other value is an index of a special kind, whose keys are not the field's values."""


@dataclass(frozen=True, slots=True)
class _Index:
    fields: tuple[str, ...]
    sparse: bool
    partial: Document | None
    collation: Document | None

    def tuples(self, document: Document) -> list[tuple[Any, ...]]:
        """The values of the document in the index; none if it is not in it."""
        if self.partial is not None and not cached_filter(self.partial).matches(document):
            return []
        return held_values(UniqueSpec("", self.fields, self.sparse), document)


class MongoUnique:
    """`reserved` gives the name of a collection's reserved field."""

    def __init__(self, database: Any, reserved: Callable[[str], str]) -> None:
        self._database = database
        self._reserved = reserved
        self._known: dict[str, tuple[_Index, ...]] = {}

    def forget(self, collection: str) -> None:
        """The indexes may have changed."""
        self._known.pop(collection, None)

    async def _indexes(self, collection: str) -> tuple[_Index, ...]:
        found = self._known.get(collection)
        if found is None:
            raws = await self._list(collection)
            found = self._known[collection] = tuple(index for raw in raws if (index := _index(raw)) is not None)
        return found

    async def _list(self, collection: str) -> list[Any]:
        try:
            cursor = self._database[collection].list_indexes()
            if inspect.isawaitable(cursor):
                cursor = await cursor
            return list(await cursor.to_list(length=None))
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            return []  # then only the rejection names the conflict

    async def aside(self, collection: str, tombstone: Document) -> Document:
        """The stored form of a tombstone, with values that no document can have in any unique index."""
        raw = dict(tombstone)
        mark = str(raw[self._reserved(collection)]["t"])
        for path in _movable(path for index in await self._indexes(collection) for path in index.fields):
            _fill(raw, path.split("."), mark)
        return raw

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        """The keys of documents and tombstones that conflict with `document` in a current unique index."""
        self.forget(collection)
        found: list[Key] = []
        for index in await self._indexes(collection):
            for values in index.tuples(document):
                where = {
                    "$and": [
                        *({path: _equal(value)} for path, value in zip(index.fields, values, strict=True)),
                        {"_id": {"$ne": key}},
                        *([index.partial] if index.partial is not None else []),
                    ]
                }
                options = {"collation": index.collation} if index.collation is not None else {}
                cursor = self._database[collection].find(where, {"_id": 1}, **options)
                found += [raw["_id"] for raw in await cursor.to_list(length=None) if raw["_id"] not in found]
        return found

    async def clear(self, collection: str, more: Sequence[Sequence[str]] = ()) -> None:
        """Gives existing tombstones values of their own in every unique index, and in those over `more` fields that
        are about to be created."""
        self.forget(collection)
        known = [index.fields for index in await self._indexes(collection)]
        await self._move(collection, [path for each in (*known, *more) for path in each])

    async def make_way(self, collection: str, refusal: DuplicateKeyError) -> bool:
        """Does the same for tombstones that may block a write that the server has rejected, because an index was
        created after them. True: there were some, and the write may be tried again."""
        values = (refusal.details or {}).get("keyValue") or {}
        # A tombstone that is older than the index has none of its fields: each counts as null.
        if not _movable(values) or any(values[path] is not None for path in _movable(values)):
            return False
        self.forget(collection)
        return await self._move(collection, list(values)) > 0

    async def _move(self, collection: str, paths: Sequence[str]) -> int:
        """Returns how many tombstones got a value of their own at one of the paths."""
        reserved = self._reserved(collection)
        standing = {f"{reserved}.x": {"$exists": True}, f"{reserved}.t": {"$ne": None}}
        moved = 0
        for path in _movable(paths):
            done = await past_validator(
                collection,
                functools.partial(
                    self._update,
                    collection,
                    {**standing, path: {"$exists": False}},
                    [{"$set": {path: f"${reserved}.t"}}],
                ),
            )
            moved += done.modified_count
        return moved

    async def _update(self, collection: str, where: Document, update: list[Document], past: bool) -> Any:
        more: dict[str, Any] = {"bypass_document_validation": True} if past else {}
        return await self._database[collection].update_many(where, update, **more)


def _index(raw: Any) -> _Index | None:
    # An index that is about to become unique refuses duplicates already (`collMod`, `prepareUnique`).
    refuses = raw.get("unique") or raw.get("prepareUnique")
    if not refuses or any(direction not in _PLAIN for direction in raw["key"].values()):
        return None
    partial, collation = raw.get("partialFilterExpression"), raw.get("collation")
    return _Index(
        tuple(raw["key"]),
        bool(raw.get("sparse")),
        None if partial is None else dict(partial),
        None if collation is None else dict(collation),
    )


def _equal(value: Any) -> Any:
    # `[]` matches itself; null also matches a missing field, which the index treats as equal.
    return {"$eq": [] if value is UNDEFINED else value}


def _movable(paths: Iterable[str]) -> list[str]:
    """The paths at which a tombstone may have any value: all but those of its key. The longest first, since a value
    at `a.b` is also a value for an index over `a`."""
    free = {path for path in paths if path.partition(".")[0] != "_id"}
    return sorted(free, key=lambda path: path.count("."), reverse=True)


def _fill(raw: Document, path: Sequence[str], mark: str) -> None:
    """Sets `mark` at a path, unless the tombstone has a value there."""
    *way, last = path
    for name in way:
        inner = raw.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        raw = inner
    raw.setdefault(last, mark)
