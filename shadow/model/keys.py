"""A key as a hashable value: the address of a document within this process."""

from __future__ import annotations

from collections.abc import Hashable

import bson
from bson import ObjectId

from shadow.model.version import Key

__all__ = ["queue_key"]


def queue_key(collection: str, key: Key) -> Hashable:
    """Equal for equal keys. Numbers of different types that MongoDB treats as equal may differ: fences keep the order
    between those, as they do between processes."""
    if type(key) in (str, ObjectId):
        return collection, key
    return collection, bson.encode({"": key})
