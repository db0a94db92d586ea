"""What tests of the stores' contract write into `Backend.shared`, and how they look at what is stored there."""

from __future__ import annotations

from typing import Any, Final

import bson
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from shadow.model.operation import Applied, Change, Insert, Update
from shadow.model.version import ABSENT, Document, Image, Key, Tombstone, Version, fresh_id
from tests.support.backends import Backend

__all__ = [
    "SHARED",
    "apply",
    "assert_duplicate_of_id",
    "assert_image",
    "buried",
    "image",
    "inserted",
    "key_of",
    "put",
    "same",
    "update",
    "version_of",
]

SHARED: Final = Backend.shared


def same(a: Document | None, b: Document | None) -> bool:
    return (a is None) == (b is None) and (a is None or b is None or bson.encode(a) == bson.encode(b))


def assert_image(found: Image | None, wanted: Image) -> None:
    assert found is not None
    assert found.state == wanted.state
    assert same(found.document, wanted.document)


async def apply(backend: Backend, change: Change) -> Applied | None:
    return await backend.store.apply(SHARED, change, fresh_id())


async def image(backend: Backend, key: Key) -> Image:
    return await backend.store.image(SHARED, key)


async def put(backend: Backend, key: Key, wanted: Image) -> None:
    assert await backend.store.put(SHARED, key, wanted, ABSENT)


async def inserted(backend: Backend, **fields: Any) -> Image:
    """A document under a key of its own, at its first version."""
    document = {"_id": ObjectId(), **fields}
    applied = await apply(backend, Insert(document["_id"], document, fresh_id()))
    assert applied is not None
    return applied.post


async def buried(backend: Backend) -> Key:
    """A key that holds a tombstone."""
    key = ObjectId()
    await put(backend, key, Image(Tombstone(fresh_id())))
    return key


def key_of(stored: Image) -> Key:
    assert stored.document is not None
    return stored.document["_id"]


def version_of(stored: Image) -> Version:
    assert isinstance(stored.state, Version)
    return stored.state


def update(key: Key, change: Any, filter: Document | None = None, **options: Any) -> Update:
    return Update(key, {"_id": key} if filter is None else filter, change, fresh_id(), **options)


def assert_duplicate_of_id(error: DuplicateKeyError) -> None:
    assert error.code == 11000
    assert error.details is not None
    assert dict(error.details["keyPattern"]) == {"_id": 1}
