"""Versions, tombstones and images: what a key holds in a store, and what a conditional write expects to find there.

States are only compared for equality. `born` is created once, when a document is inserted or replaced as a whole; `rev`
rises by one, inside the store's own atomic update, with each later change. No clock is involved.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import bson
from bson import ObjectId

__all__ = [
    "ABSENT",
    "STAMP_PARTS",
    "TOMBSTONE_LIFETIME",
    "Absent",
    "Document",
    "Image",
    "Key",
    "State",
    "Tombstone",
    "Unknown",
    "Version",
    "fresh_id",
    "fresh_ids",
    "split",
    "split_own",
    "stamp_of",
]

Document: TypeAlias = dict[str, Any]
"""A document of the application: plain dicts, lists and BSON values, as `model.values.CANONICAL` decodes them."""

Key: TypeAlias = Any
"""The value of `_id`: any BSON value except an array, a regular expression or undefined."""

TOMBSTONE_LIFETIME: Final = dt.timedelta(days=30)
"""How long a tombstone is kept before the store's TTL deletes it: far longer than any write can be delayed."""

STAMP_PARTS: Final = frozenset({"b", "r", "t", "x", "o", "m"})
"""The parts that a stamp may have in MongoDB: born, revision, tombstone, its expiry, the operation that has found the
document by a filter, and the last batch that has changed it."""

_PASSING: Final = "passing-"


def fresh_id() -> str:
    """A new unique id (24 hex digits). An ObjectId is unique across processes, hosts and forks without coordination."""
    return str(ObjectId())


def fresh_ids(count: int) -> list[str]:
    """So many new unique ids, a tenth of the time for each: the seconds, as an ObjectId begins with, and 64 random
    bits. They are in order, so that an index takes them side by side."""
    now, noise = f"{int(time.time()) & 0xFFFFFFFF:08x}", os.urandom(8 * count).hex()
    return sorted(now + noise[start : start + 16] for start in range(0, 16 * count, 16))


@dataclass(frozen=True, slots=True)
class Version:
    """The version of a present document. `Version("", 0)` is a document that shadow has not written yet."""

    born: str
    rev: int

    def next(self) -> Version:
        return Version(self.born, self.rev + 1)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What replaces a deleted document. Each deletion, and each renewal of a tombstone, has a fresh id.

    A *passing* one stands for a document that was moved aside: the primary has it, and it is about to be written to the
    secondary again."""

    id: str

    @property
    def passing(self) -> bool:
        return self.id.startswith(_PASSING)

    @classmethod
    def in_passing(cls, id: str) -> Tombstone:
        return cls(f"{_PASSING}{id}")


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing under the key, not even a tombstone."""


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something under the key has a stamp that shadow has not written. `digest` is that of the stored stamp, so that a
    copy over it can still be conditional on it."""

    digest: str


State: TypeAlias = Version | Tombstone | Absent | Unknown


@dataclass(frozen=True, slots=True)
class Image:
    """A whole document at a version, a tombstone, or nothing. `document` is set if `state` is a Version, and if the
    stamp cannot be read but is not that of a tombstone; `model.stored` tells which documents can be read as a whole."""

    state: State
    document: Document | None = None

    @property
    def present(self) -> bool:
        return self.document is not None


def stamp_of(state: State) -> dict[str, Any] | None:
    """The content of the reserved field for `state`; None for nothing.

    A document: {"b": born, "r": rev}; a tombstone: {"t": id}. {"?": digest} occurs only in plans and reports, for a
    stamp that cannot be read. Stores add what they need to it (codec hints, an operation id, a time to live) and remove
    that again when they read.
    """
    match state:
        case Version(born, rev):
            return {"b": born, "r": rev}
        case Tombstone(id_):
            return {"t": id_}
        case Unknown(digest):
            return {"?": digest}
        case _:
            return None


def split(raw: Mapping[str, Any], reserved: str) -> Image:
    """Removes the stamp from a stored document (shape: the application's fields plus `reserved`).

    A document without a stamp, or with an incomplete one, has the missing parts of version ("", 0).
    """
    return split_own(dict(raw), reserved)


def split_own(document: Document, reserved: str) -> Image:
    """`split` of a dict that is the caller's own: it becomes the document of the image."""
    stamp = document.pop(reserved, None)
    if type(stamp) is dict or isinstance(stamp, Mapping):
        return _stamped(stamp, document)
    # A condition on a part of an array looks into its elements, so an array does not count as a missing stamp.
    return Image(_unknown(stamp) if isinstance(stamp, list) else Version("", 0), document)


def _stamped(stamp: Mapping[str, Any], document: Document) -> Image:
    tombstone, born, rev = stamp.get("t"), stamp.get("b"), stamp.get("r")
    if tombstone is not None:
        return Image(Tombstone(tombstone) if type(tombstone) is str else _unknown(stamp))
    if not (born is None or type(born) is str) or not (rev is None or _is_whole(rev)):
        return Image(_unknown(stamp), document)
    return Image(Version(born or "", int(rev or 0)), document)


def _is_whole(rev: Any) -> bool:
    if type(rev) is float:
        return rev.is_integer() and abs(rev) < 2**63
    return isinstance(rev, int) and type(rev) is not bool


def _unknown(stamp: Any) -> Unknown:
    return Unknown(hashlib.sha256(bson.encode({"": stamp})).hexdigest()[:32])
