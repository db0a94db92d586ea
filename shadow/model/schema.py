"""What a collection is, to both stores: its name, its indexes, its unique fields, the reserved field of the version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["RESERVED", "CollectionSpec", "IndexSpec", "UniqueSpec"]

RESERVED: Final = "_shadow"
"""The default name of the field that holds version, tombstone and codec hints in every stored document."""


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A global secondary index of the DynamoDB table. `hash` and `range` are top-level field names; it carries whole
    items (projection ALL). Over several fields, `fields` names them, and `hash` the attribute that joins their texts.
    """

    name: str
    hash: str
    range: str | None = None
    fields: tuple[str, ...] = ()

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


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    name: str
    indexes: tuple[IndexSpec, ...] = ()
    unique: tuple[UniqueSpec, ...] = ()
    reserved: str = RESERVED
