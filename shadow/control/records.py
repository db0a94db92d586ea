"""The contract of a control store: small records by key, each with a revision that a write can be conditional on.

Everything that processes have to agree on stands on this one condition: a record changes only if it is still the one
that was seen. Revisions are unique and compared for equality only, so that a record that was deleted and made again is
another one. Every store reads its own acknowledged writes, whoever made them (linearizable, one record at a time), and
a scan shows every record that was there, unchanged, while it lasted.

Stores are synchronous and thread-safe: they are asked from threads, never from the application's event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

__all__ = ["MISSING", "Record", "Records", "Value"]

Value: TypeAlias = Mapping[str, Any]
"""What BSON can hold, 300 KB at most."""

MISSING: Final = ""
"""The revision of a record that is not there."""


@dataclass(frozen=True, slots=True)
class Record:
    key: str
    value: dict[str, Any]
    revision: str


class Records(Protocol):
    """Keys are texts of 1 to 500 characters, parts joined by `/`; they sort by their UTF-8 bytes. Raises
    `ControlError`."""

    @property
    def place(self) -> str:
        """For people: where this is, without credentials."""

    def prepare(self) -> None:
        """Makes what the records are kept in, if it is missing, and waits until it can be used."""

    def get(self, key: str) -> Record | None: ...

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        """The records whose keys begin with `prefix` and sort after `after`, in order, at most `limit`."""

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        """Writes a record and answers its new revision; None if it was not at `expected` (`MISSING`: not there; None:
        whatever is there). Durable when it returns."""

    def put_many(self, values: Mapping[str, Value]) -> None:
        """Writes many records, whatever is there; not as one: if it raises, some may have been written."""

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        """Whether the record is gone by this call; False if it was not there, or not at `expected`."""

    def delete_all(self, prefix: str) -> int:
        """Deletes every record whose key begins with `prefix`; how many. Not as one."""

    def close(self) -> None:
        """Idempotent."""
