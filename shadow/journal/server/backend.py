"""What a server has to do for the journal: blocking calls, made by the threads of `remote`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import bson

from shadow.host.process import Owner
from shadow.journal.base import Due, JournalStats, Pending, undecided_op
from shadow.journal.server.clock import Clock
from shadow.model.order import key_digest
from shadow.model.values import CANONICAL
from shadow.model.version import Key

__all__ = [
    "UNDECIDED",
    "IntentRow",
    "NotReady",
    "Registered",
    "RemoteLedger",
    "digest_of",
    "estimate",
    "in_order",
    "pack",
    "place_of",
    "unpack",
]


class NotReady(Exception):
    """The place of the journal is being made and cannot be used yet."""


@dataclass(frozen=True, slots=True)
class IntentRow:
    """An intent. `opened` is the earliest that its opening can have been, `expires` the latest that its operation can
    last: from then on any process may adopt it. Both in epoch seconds of the server; `key` is packed."""

    op_id: str
    collection: str
    digest: str
    key: bytes
    opened: float
    expires: float
    owner: str
    decided: bytes = b""
    """The packed key that an undecided operation has changed, which the server has not been told; else nothing."""

    @property
    def deferred_key(self) -> bytes:
        """Under what it is deferred."""
        return self.decided or self.key

    @property
    def deferred_digest(self) -> str:
        return digest_of(unpack(self.decided)) if self.decided else self.digest


@dataclass(frozen=True, slots=True)
class Registered:
    """A process that writes to the journal; `beat`: the latest that its last sign of life can have been."""

    id: str
    process: Owner
    beat: float


class RemoteLedger(Protocol):
    """One process's hand on a journal that a server keeps. Used by several threads at once.

    Every method may raise what its client raises, within about `patience` seconds. Whatever it has written when it
    returns is as durable as the server makes anything. Keys go by their digest (`digest_of`).
    """

    clock: Clock
    name: str
    """By which the process signs."""

    def enter(self) -> None:
        """Makes what is missing, registers the process, sets the clock. Raises `NotReady`."""

    def beat(self) -> None:
        """The process lives, and the journal can be written."""

    def leave(self) -> None:
        """The clean end of a process that leaves no intents."""

    def release(self) -> None:
        """Ends the connections."""

    def explain(self, error: Exception) -> tuple[str, str]:
        """What went wrong and what to do next, without content."""

    def open(self, rows: Sequence[IntentRow]) -> None:
        """Writes intents; if it raises, some may stand."""

    def close(self, rows: Sequence[IntentRow]) -> None:
        """Counts the intents as passed, then removes them: whoever sees none open sees that they have passed."""

    def defer(self, rows: Sequence[tuple[IntentRow, float]]) -> None:
        """Turns intents into deferrals, each with its `settle_after`; a deferral stands before its intent goes."""

    def has_open(self, collection: str, digest: str) -> bool:
        """Whether anything stands for a key, or something undecided for any key of the collection."""

    def take(self, limit: int, now: float, until: float) -> list[Due]:
        """Claims keys whose turn has come until a moment: first those that never failed, oldest first. `now` becomes
        their `claimed`."""

    def claim(self, collection: str, key: Key, now: float, until: float) -> Due | None: ...

    def settle(self, due: Due) -> bool: ...

    def postpone(self, due: Due, until: float, refused: str) -> None: ...

    def give_back(self, due: Due) -> None:
        """Its turn is that of one that nobody has claimed."""

    def end_claims(self, owner: str, now: float) -> None:
        """Gives back what a process has claimed that is known dead, or cut off for long."""

    def entries(self, limit: int, collection: str | None, after: Pending | None) -> list[Pending]: ...

    def explain_key(self, collection: str, key: Key) -> list[Pending]: ...

    def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        """What is noted, after `configured` was noted where nothing was."""

    def set_primary(self, collection: str, primary: str) -> None: ...

    def doubt(self, collection: str, since: float) -> None:
        """The collection wants to be verified from `since` on."""

    def doubts(self, collection: str) -> str: ...

    def trust(self, collection: str, doubts: str) -> None: ...

    def stats(self) -> JournalStats:
        """Exact up to some number of each kind and collection, beyond it estimated; nothing is called empty that is
        not."""

    def take_sweep(self, now: float, until: float) -> bool:
        """Whether this process may look for orphans now; no other may before `until`."""

    def end_sweep(self, until: float) -> None:
        """The sweep is over; the next one may begin at `until`."""

    def owners(self) -> list[Registered]: ...

    def forget(self, owner: Registered) -> None:
        """Unless it has given another sign of life."""

    def orphans(self, owner: str) -> Iterator[list[IntentRow]]:
        """The intents of one process, in batches; each batch is deferred before the next is asked for."""

    def expired(self, now: float) -> Iterator[list[IntentRow]]:
        """The intents that have expired, likewise."""


def pack(key: Key) -> bytes:
    return bson.encode({"": key})


def unpack(blob: bytes) -> Key:
    return bson.decode(blob, codec_options=CANONICAL)[""]


UNDECIDED: Final = "f" * 16
"""With what the digest of an undecided key begins, so that all of them lie together, behind nearly all others."""


def digest_of(key: Key) -> str:
    """The digest by which a journal addresses what stands for a key."""
    op_id = undecided_op(key)
    return key_digest(key) if op_id is None else f"{UNDECIDED}{op_id}"


def estimate(counted: int, last_digest: str) -> int:
    """How many there are, if so many have digests up to the last one: digests are spread evenly."""
    share = (int(last_digest[:12], 16) + 1) / 16**12
    return max(counted, round(counted / share))


def place_of(pending: Pending) -> tuple[float, str, str, str]:
    """Where an entry stands in the order of `entries`."""
    return pending.since, pending.collection, digest_of(pending.key), pending.op_id


def in_order(found: Iterable[Pending], limit: int) -> list[Pending]:
    return sorted(found, key=place_of)[:limit]
