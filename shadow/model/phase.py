"""Phases and routes: a table from phase to behaviour, and the allowed moves between phases."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = [
    "NO_SHARES",
    "PHASES",
    "Phase",
    "ReadShares",
    "Role",
    "Route",
    "StoreName",
    "Unsupported",
    "WriteMode",
    "neighbours",
]


class StoreName(enum.StrEnum):
    MONGO = "mongo"
    DYNAMO = "dynamo"

    @property
    def other(self) -> StoreName:
        return StoreName.DYNAMO if self is StoreName.MONGO else StoreName.MONGO


class Role(enum.StrEnum):
    PRIMARY = "primary"
    SECONDARY = "secondary"


class Phase(enum.StrEnum):
    OFF = "off"
    DUAL_WRITE = "dual_write"
    SHADOW = "shadow"


class Unsupported(enum.StrEnum):
    """What happens, while MongoDB is the primary, to an operation that DynamoDB does not support."""

    PASS = "pass"  # noqa: S105 - a way, not a password
    """MongoDB does it alone: a read is not compared, a write is replicated by its result."""
    REFUSE = "refuse"
    """It is refused, as it would be after the flip."""


class WriteMode(enum.StrEnum):
    """When the caller gets its answer: at once, after the secondary was tried, or only if the secondary took the
    write."""

    BACKGROUND = "background"
    SYNC = "sync"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Doing:
    """What a phase does besides using the primary."""

    dual_write: bool
    shadow_read: bool


PHASES: Final[dict[Phase, Doing]] = {
    Phase.OFF: Doing(dual_write=False, shadow_read=False),
    Phase.DUAL_WRITE: Doing(dual_write=True, shadow_read=False),
    Phase.SHADOW: Doing(dual_write=True, shadow_read=True),
}
"""In the order of the phases. A move goes to a neighbour. In `shadow` the primary may flip."""


@dataclass(frozen=True, slots=True)
class ReadShares:
    """The share of reads, 0 to 1, that each store answers while it is the secondary."""

    mongo: float = 0.0
    dynamo: float = 0.0

    def of(self, store: StoreName) -> float:
        return self.mongo if store is StoreName.MONGO else self.dynamo

    def named(self) -> dict[str, float]:
        """The shares by name of store, without those that are 0."""
        return {str(store): self.of(store) for store in StoreName if self.of(store)}


NO_SHARES: Final = ReadShares()


@dataclass(frozen=True, slots=True)
class Route:
    """Where the operations of one collection go. `epoch` is the number of the routing record that says so.

    `Routes.writing` sets two further fields. `bare`: no process writes both stores of the collection, so the write may
    be the driver's own call, which moves no version. `stamps`: documents may carry versions and tombstones may exist,
    because the collection has or had dual writes.
    """

    primary: StoreName
    phase: Phase
    writes: WriteMode = WriteMode.BACKGROUND
    shadow_reads: float = 1.0
    reads: ReadShares = NO_SHARES
    epoch: int = 0
    bare: bool = False
    stamps: bool = True

    @property
    def secondary(self) -> StoreName:
        return self.primary.other

    @property
    def secondary_reads(self) -> float:
        """The share of reads that the secondary answers; 0 outside phase `shadow`."""
        if self.reads is NO_SHARES or self.phase is not Phase.SHADOW:
            return 0.0
        return self.reads.of(self.secondary)

    @property
    def dual_write(self) -> bool:
        return PHASES[self.phase].dual_write

    @property
    def shadow_read(self) -> bool:
        return PHASES[self.phase].shadow_read and self.shadow_reads > 0


def neighbours(phase: Phase) -> tuple[Phase, ...]:
    """The phases that may follow `phase`, without itself."""
    order = list(PHASES)
    place = order.index(phase)
    return tuple(order[i] for i in (place - 1, place + 1) if 0 <= i < len(order))
