"""What a server does for the journal: the statements of a driver. What they mean together is `ledger`'s.

The journal keeps records: intents, deferred keys, and notes (the processes, the turn to sweep, how many have passed,
what is unverified, which store is primary). A driver reads and writes such records on its server, some of them under a
condition; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias

from shadow.journal.server.clock import Clock

__all__ = [
    "STORED",
    "Absent",
    "AtMost",
    "Condition",
    "Driver",
    "Is",
    "Kind",
    "Merge",
    "NotReady",
    "Place",
    "Record",
    "Same",
    "Tally",
    "Under",
]


class NotReady(Exception):
    """The table or collections of the journal are being created and cannot be used yet."""


class Kind(Enum):
    """The kinds of record, with their fields. Times are epoch seconds of the server.

    INTENT: `key` (packed), `opened`, `expires`, `owner`. DEFERRED: `key`, `generation`, `since`, `attempts`,
    `next_try`, `settle_after`, `claimed` (the moment of the claim that holds it), `claimant` (its mark), `refused` (the
    error with which the secondary refuses it). LATE, a settled key that is repaired again because its write may yet
    take effect: the same, with `since` of the youngest write and, as `settle_after`, the end. OWNER: `place`, `pid`,
    `started`, `beat`. PASSED: `number`. UNVERIFIED: `since`, `mark`. PRIMARY: `primary`. SWEEP: `until`.
    """

    INTENT = "intent"
    DEFERRED = "deferred"
    LATE = "late"
    OWNER = "owner"
    PASSED = "passed"
    UNVERIFIED = "unverified"
    PRIMARY = "primary"
    SWEEP = "sweep"


_OF_KEYS: Final[Mapping[str, str]] = {
    "key": "k",
    "generation": "g",
    "since": "s",
    "attempts": "a",
    "next_try": "t",
    "settle_after": "f",
    "claimed": "m",
    "claimant": "l",
    "refused": "r",
}
STORED: Final[Mapping[Kind, Mapping[str, str]]] = {
    Kind.INTENT: {"key": "k", "opened": "o", "expires": "e", "owner": "w"},
    Kind.DEFERRED: _OF_KEYS,
    Kind.LATE: _OF_KEYS,
    Kind.OWNER: {"beat": "b"},
    Kind.PASSED: {"number": "n"},
}
"""The short names under which every server keeps these fields: an intent is written for each write."""


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a record: `name` is the collection's, or the process's; an intent has a digest and an op_id, a
    key that is deferred or late has a digest."""

    kind: Kind
    name: str = ""
    digest: str = ""
    op_id: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """`values`: str, bytes, int or float by field. A number may come back as a float."""

    place: Place
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Same:
    """Stands for the value of another field of the same record."""

    field: str


@dataclass(frozen=True, slots=True)
class Is:
    """The field has this value."""

    field: str
    value: str | float


@dataclass(frozen=True, slots=True)
class AtMost:
    """The field's value is no higher."""

    field: str
    value: float


@dataclass(frozen=True, slots=True)
class Under:
    """The field's value is lower."""

    field: str
    value: float


@dataclass(frozen=True, slots=True)
class Absent:
    """The record lacks the field."""

    field: str


Condition: TypeAlias = Is | AtMost | Under | Absent


@dataclass(frozen=True, slots=True)
class Merge:
    """A change that makes the record where it is missing: `put` sets fields, `first` sets those that are missing, `add`
    raises numbers, `least` lowers a field to a value unless it is lower, `most` raises one unless it is higher."""

    put: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, int] = field(default_factory=dict)
    least: tuple[str, float] | None = None
    most: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many records of a kind there are by collection, how many of them have `refused`, and the oldest moment among
    them (None: there are none)."""

    counts: Mapping[str, int]
    refused: Mapping[str, int]
    oldest: float | None


class Driver(Protocol):
    """Used by several threads at once. Every method may raise what its client raises, within about the patience that
    the driver was made with. Whatever it has written when it returns is as durable as the server makes anything, and
    whatever it reads for a safety decision (all but `turns`, `claimed` and `oldest`) is read consistently.
    """

    clock: Clock

    # --- the connection

    def prepare(self) -> None:
        """Creates what is missing. Raises `NotReady` while it is being created."""

    def read_clock(self) -> None:
        """Asks the server for its time and tells `clock`."""

    def release(self) -> None:
        """Ends the connections."""

    def explain_error(self, error: Exception) -> tuple[str, str]:
        """What went wrong and what to do next, without document content."""

    # --- writes

    def insert(self, intents: Sequence[Record]) -> None:
        """Writes new records, in no order and not as one: if it raises, some may have been written."""

    def remove(self, intents: Sequence[Place]) -> None:
        """Deletes records, likewise."""

    def merge(self, merges: Sequence[tuple[Place, Merge]]) -> None:
        """Makes the changes, each of them atomic, in no order; `least` may follow in a step of its own."""

    def change(
        self, place: Place, values: Mapping[str, Any], conditions: Sequence[Condition] = (), *, create: bool = False
    ) -> Record | None:
        """Sets fields of a record that meets the conditions, in one atomic step, and returns it as it is then. None:
        it does not meet them, or is missing; `create` makes one that is missing. `Same` copies another field, and an
        empty string empties the field: it may be missing then."""

    def change_each(
        self, places: Sequence[Place], values: Mapping[str, Any], conditions: Sequence[Condition]
    ) -> list[Record]:
        """Likewise each of several, and returns those that it has changed. `values` must be unlike those of any other
        call: they may be how the changed records are found again."""

    def delete(self, place: Place, conditions: Sequence[Condition] = ()) -> bool:
        """Deletes a record that meets the conditions, in one atomic step; whether it did."""

    # --- reads

    def note(self, place: Place) -> Record | None: ...

    def notes(self, kind: Kind) -> list[Record]:
        """All records of a kind that is neither INTENT nor DEFERRED nor LATE."""

    def exists(self, kind: Kind, collection: str, digest: str) -> bool:
        """Whether there is a record with this digest, or one whose digest begins with `UNDECIDED`."""

    def of_key(self, kind: Kind, collection: str, digest: str) -> list[Record]: ...

    def intents(self, condition: Condition) -> Iterator[list[Record]]:
        """The intents that meet a condition, in batches; the caller removes each batch before it asks for the next."""

    def turns(self, kind: Kind, limit: int, now: float) -> list[Place]:
        """Up to `limit` keys (DEFERRED or LATE) whose `next_try` has come, earliest first; may lag behind."""

    def claimed(self, owner: str, now: float) -> Iterator[Record]:
        """The deferred keys whose `claimant` begins so and whose `next_try` is ahead; may lag behind."""

    def oldest(
        self, kind: Kind, limit: int, collection: str | None, after: tuple[float, str, str, str] | None
    ) -> list[Record]:
        """Up to `limit` records behind `after`, in the order of (`opened` or `since`, collection, digest, op_id)."""

    def tally(self, kind: Kind) -> Tally:
        """Exact up to some number of records of a collection, estimated beyond it; what is not empty is never counted
        as empty."""
