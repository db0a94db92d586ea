"""The contract of a control store: small records by key, each with a revision that a write can be conditional on.

Everything that processes have to agree on rests on this one condition: a record changes only if it is still the one
that was read. Revisions are unique and compared for equality only, so that a record that was deleted and created again
is another one. Every store reads its own acknowledged writes, whoever made them (linearizable, one record at a time),
and a scan returns every record that existed, unchanged, while the scan lasted.

Stores are synchronous and thread-safe: they are called from threads, never from the application's event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

__all__ = ["MISSING", "Record", "Records", "Value"]

Value: TypeAlias = Mapping[str, Any]
"""What BSON can hold, 300 KB at most."""

MISSING: Final = ""
"""The revision of a record that does not exist."""


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
        """Creates the table or collection of the records, if it is missing, and waits until it can be used."""

    def get(self, key: str) -> Record | None: ...

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        """The records whose keys begin with `prefix` and sort after `after`, in order, at most `limit`."""

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        """Writes a record and returns its new revision; None if it was not at `expected` (`MISSING`: must not exist;
        None: unconditional). Durable when it returns."""

    def put_many(self, values: Mapping[str, Value]) -> None:
        """Writes many records, unconditionally and not atomically: if it raises, some may have been written."""

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        """Whether this call has deleted the record; False if it did not exist, or was not at `expected`."""

    def delete_all(self, prefix: str) -> int:
        """Deletes every record whose key begins with `prefix`; how many. Not atomic."""

    def close(self) -> None:
        """Idempotent."""
