"""What a collection is, to both stores: its name, its indexes, its unique fields, the reserved field of the version."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

__all__ = ["RESERVED", "Billing", "CollectionSpec", "IndexSpec", "TableSpec", "UniqueSpec"]

RESERVED: Final = "_shadow"
"""The default name of the field that holds version, tombstone and codec hints in every stored document."""


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A global secondary index of the DynamoDB table. `hash` and `range` are top-level field names; it carries whole
    items (projection ALL). Over several fields, `fields` names them, and `hash` the attribute that joins their texts.
    Raises `ValueError` for a path: DynamoDB has no index of one, and would have an index in which nothing is found.
    """

    name: str
    hash: str
    range: str | None = None
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        paths = [name for name in self.keys if "." in name]
        if paths:
            raise ValueError(f"index {self.name}: {paths[0]} is a path; an index is of top-level fields")

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields of the document that the index is over, in order."""
        own = self.fields or (self.hash,)
        return own if self.range is None else (*own, self.range)


@dataclass(frozen=True, slots=True)
class UniqueSpec:
    """A unique constraint over one or more dotted paths; `sparse` leaves out documents that have none of them."""

    name: str
    fields: tuple[str, ...]
    sparse: bool = False


class Billing(enum.StrEnum):
    ON_DEMAND = "on_demand"
    PROVISIONED = "provisioned"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """What a table on DynamoDB is to be beside its keys and indexes. None, and a tag that is not named: whatever it is;
    such a table is made on demand and without the rest. `read` and `write` are the units a second of provisioned
    capacity, of the table and of each of its indexes."""

    billing: Billing | None = None
    read: int = 0
    write: int = 0
    point_in_time_recovery: bool | None = None
    deletion_protection: bool | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    name: str
    indexes: tuple[IndexSpec, ...] = ()
    unique: tuple[UniqueSpec, ...] = ()
    reserved: str = RESERVED
    table: TableSpec = field(default=TableSpec(), repr=False)
    """Left out of the text of a spec, which checkpoints of jobs are held to: no document depends on it."""
