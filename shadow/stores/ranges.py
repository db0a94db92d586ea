"""What jobs over whole collections need beyond the contract of `base`: ranges that can be scanned independently, reads
of many keys at once, and inserts in batches.

A range and a cursor in one are opaque documents that BSON can hold, so that a job can store them and resume later, in
another process.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from shadow.model.version import Document, Image, Key

__all__ = ["Batch", "Ranged", "Ranges"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some documents of a range, and the cursor after them. `nameless`: documents whose key no query can name, each
    with a text for its key, and the reason."""

    images: list[tuple[Key, Image]]
    place: Document
    nameless: list[tuple[Key, str]] = field(default_factory=list)


class Ranges(Protocol):
    """Raises PyMongo's errors. Where `whole` is false, the documents in images have only their `_id`."""

    async def estimate(self, collection: str) -> int:
        """The approximate number of documents, without reading them; 0 if it is unknown."""

    async def cut(self, collection: str, parts: int) -> list[Document]:
        """At most `parts` ranges that together contain every document exactly once, including those inserted later."""

    def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int, whole: bool, filter: Document
    ) -> AsyncGenerator[Batch, None]:
        """The documents of a range that match `filter` (tombstones never do), `size` at a time, from the cursor
        `place` on (None: from the start). Holds one batch at a time; a batch may be empty."""

    async def look(self, collection: str, keys: Sequence[Key], *, whole: bool) -> list[Image]:
        """The current images of the keys, read consistently, in their order."""

    async def put_absent(self, collection: str, images: Sequence[tuple[Key, Image]]) -> list[bool]:
        """Inserts each image where nothing is stored, not even a tombstone. False: not inserted, or unknown; a
        rejection raises nothing, so that the caller can check each."""


@runtime_checkable
class Ranged(Protocol):
    """A store that has ranges."""

    @property
    def ranges(self) -> Any:
        """Its `Ranges`."""
