"""Versions, tombstones and images: what a key holds in a store, and what a conditional write expects to find there.

States are compared for equality and for nothing else. `born` is minted once, when a document is inserted or replaced
whole; `rev` rises by one, inside the store's own atomic update, with each change after that. No clock takes part.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bson import ObjectId

__all__ = [
    "ABSENT",
    "TOMBSTONE_LIFETIME",
    "Absent",
    "Document",
    "Image",
    "Key",
    "State",
    "Tombstone",
    "Version",
    "fresh_id",
    "split",
    "stamp_of",
]

Document: TypeAlias = dict[str, Any]
"""A document of the application: plain dicts, lists and BSON values, as `model.values.CANONICAL` decodes them."""

Key: TypeAlias = Any
"""The value of `_id`: any BSON value but an array, a regular expression or undefined."""

TOMBSTONE_LIFETIME: Final = dt.timedelta(days=30)
"""How long a tombstone stands before the store's TTL takes it: far longer than any write can be delayed."""


_PASSING: Final = "passing-"


def fresh_id() -> str:
    """A new unique id (24 hex digits). An ObjectId is unique across processes, hosts and forks without coordination."""
    return str(ObjectId())


@dataclass(frozen=True, slots=True)
class Version:
    """The version of a present document. `Version("", 0)` is a document that no writer of shadow has touched yet."""

    born: str
    rev: int

    def next(self) -> Version:
        return Version(self.born, self.rev + 1)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left where a document was deleted. Each deletion, and each touch of a deletion, has a fresh id.

    A *passing* one stands for a document that is set aside: the primary has it, and its place in the secondary is about
    to be written anew."""

    id: str

    @property
    def passing(self) -> bool:
        return self.id.startswith(_PASSING)

    @classmethod
    def in_passing(cls, id: str) -> Tombstone:
        return cls(f"{_PASSING}{id}")


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing at all under the key, no tombstone either."""


ABSENT: Final = Absent()

State: TypeAlias = Version | Tombstone | Absent


@dataclass(frozen=True, slots=True)
class Image:
    """A whole document at a version; a tombstone; or nothing. `document` is set exactly if `state` is a Version."""

    state: State
    document: Document | None = None

    @property
    def present(self) -> bool:
        return self.document is not None


def stamp_of(state: State) -> dict[str, Any] | None:
    """What is written under the reserved field for `state`; None for nothing.

    A document: {"b": born, "r": rev}; a tombstone: {"t": id}. Stores add what they need beside these (codec hints,
    an operation id, a time to live) and take it off again when they read.
    """
    match state:
        case Version(born, rev):
            return {"b": born, "r": rev}
        case Tombstone(id_):
            return {"t": id_}
        case _:
            return None


def split(raw: Mapping[str, Any], reserved: str) -> Image:
    """Takes the stamp off a stored document (shape: the application's fields plus `reserved`).

    A document without a stamp, or with one that lacks a part, has version ("", 0) in the parts that it lacks.
    """
    document = dict(raw)
    stamp = document.pop(reserved, None)
    if type(stamp) is not dict and not isinstance(stamp, Mapping):
        return Image(Version("", 0), document)
    tombstone = stamp.get("t")
    if tombstone is not None:
        return Image(Tombstone(str(tombstone)))
    return Image(Version(str(stamp.get("b", "")), int(stamp.get("r", 0))), document)
