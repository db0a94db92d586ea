"""The definition of a collection for both stores: name, indexes, unique fields, the reserved field of the version."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "RESERVED",
    "Billing",
    "CollationSpec",
    "CollectionSpec",
    "ExpirySpec",
    "IndexSpec",
    "TableSpec",
    "UniqueSpec",
]

RESERVED: Final = "_shadow"
"""The default name of the field that holds version, tombstone and codec hints in every stored document."""


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A global secondary index of the DynamoDB table, with whole items (projection ALL). `hash` and `range` are
    top-level field names. An index over several fields has them in `fields`, and in `hash` the attribute that joins
    their texts. Raises `ValueError` for a path: DynamoDB cannot index one, and would create an index that finds
    nothing.
    """

    name: str
    hash: str
    range: str | None = None
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        paths = [name for name in self.keys if "." in name]
        if paths:
            raise ValueError(f"index {self.name}: {paths[0]} is a path; an index needs top-level fields")

    @property
    def keys(self) -> tuple[str, ...]:
        """The indexed fields of the document, in order."""
        own = self.fields or (self.hash,)
        return own if self.range is None else (*own, self.range)


@dataclass(frozen=True, slots=True)
class CollationSpec:
    """By which texts are equal: as in English, at strength 1 (neither case nor accents count), 2 (accents count) or 3
    (both count)."""

    locale: str
    strength: int


@dataclass(frozen=True, slots=True)
class UniqueSpec:
    """A unique constraint over one or more dotted paths; `sparse` skips documents that have none of them. Without a
    collation texts are equal if their bytes are."""

    name: str
    fields: tuple[str, ...]
    sparse: bool = False
    collation: CollationSpec | None = field(default=None, repr=False)
    """Omitted from the text, as `CollectionSpec.table` is."""


@dataclass(frozen=True, slots=True)
class ExpirySpec:
    """Documents expire `after` seconds after the date in `field`, a dotted path: MongoDB's TTL index over it."""

    field: str
    after: int


class Billing(enum.StrEnum):
    ON_DEMAND = "on_demand"
    PROVISIONED = "provisioned"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The wanted options of a DynamoDB table, besides keys and indexes. None, and a tag that is not named, are left as
    they are; a new table is created on demand without them. `read` and `write` are units of provisioned capacity per
    second, for the table and each of its indexes. `stream`: whether it needs a stream of both images; one that is there
    is never switched off."""

    billing: Billing | None = None
    read: int = 0
    write: int = 0
    point_in_time_recovery: bool | None = None
    deletion_protection: bool | None = None
    tags: tuple[tuple[str, str], ...] = ()
    stream: bool = False


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    name: str
    indexes: tuple[IndexSpec, ...] = ()
    unique: tuple[UniqueSpec, ...] = ()
    reserved: str = RESERVED
    table: TableSpec = field(default=TableSpec(), repr=False)
    """Omitted from the spec's text, to which jobs' checkpoints are bound: no document depends on it."""
    passes_on: bool = field(default=True, repr=False)
    """Whether MongoDB as primary does what DynamoDB could not. Omitted like `table`."""
    expiry: ExpirySpec | None = field(default=None, repr=False)
    """Omitted likewise: no content depends on it."""
