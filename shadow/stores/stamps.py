"""What `finalize` removes from a store: versions and tombstones, and nothing else.

A document without a version is at version ("", 0); so it is after its version was removed, and decodes to the same
value as before. Whatever else a store needs to keep a document exactly stays.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from shadow.model.version import Document, Key, State
from shadow.stores.ranges import Batch

__all__ = ["Stamp", "Stamped", "Stamps"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """The version of a document, or a tombstone. `key` is in the store's own form, which BSON can hold; `writer` is the
    id of the operation that wrote it last, "" where the store keeps none."""

    key: Key
    state: State
    writer: str = ""
    rest: bool = False
    """Whether the field also holds something other than the version, as far as was read, which must stay."""


class Stamps(Protocol):
    """Raises PyMongo's errors."""

    def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int
    ) -> AsyncGenerator[Batch, None]:
        """Everything in a range of `Ranges.cut` that has a stamp, from `place` on; the keys of the batches are the
        `Stamp`s, and their images have no documents."""

    async def look(self, collection: str, keys: Sequence[Key]) -> list[Stamp | None]:
        """The current stamps under these keys (a `Stamp`'s); None where there is none, or no document."""

    async def strip(self, collection: str, stamps: Sequence[Stamp]) -> list[bool]:
        """Removes each stamp, and deletes tombstones, where the stored document still has exactly this stamp. True:
        no stamp is there now, also if an attempt whose answer was lost has removed it. False: another one is."""

    async def clear(self, collection: str) -> None:
        """Removes what only stamps needed, when none is left."""


@runtime_checkable
class Stamped(Protocol):
    """A store from which stamps can be removed."""

    @property
    def stamps(self) -> Any:
        """Its `Stamps`."""
