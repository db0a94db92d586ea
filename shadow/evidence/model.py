"""What the page shows of one collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shadow.compare.rules import Rule
from shadow.control.members import Member
from shadow.fleet.health_gates import Gate
from shadow.jobs.jobs import Job
from shadow.model.compared import Compared, together
from shadow.model.latencies import Times
from shadow.model.phase import StoreName

__all__ = ["Context", "Evidence", "StoreTimes"]


@dataclass(frozen=True, slots=True)
class Context:
    """What the command knows. `settings`: those of the collection, as the file says them, in YAML; `versions`: by
    program or library; `by`: who made the page; `now`: epoch seconds; `days`: how far back it looks."""

    settings: str
    rules: Sequence[Rule]
    versions: Mapping[str, str]
    by: str
    now: float
    days: int


@dataclass(frozen=True, slots=True)
class StoreTimes:
    """How long both stores took for the same operations of the last hour, in all processes."""

    what: str
    primary: Times
    secondary: Times


@dataclass(frozen=True, slots=True)
class Evidence:
    """`to`: the store that a flip would make primary; `proof`: the id of the current epoch of dual writes, in which a
    job must have begun to count; `hours`: what was compared, by hour since the epoch."""

    collection: str
    context: Context
    primary: StoreName
    to: StoreName
    epoch: int
    proof: str
    gates: Sequence[Gate]
    processes: Sequence[Member]
    hours: Mapping[int, Compared]
    verifications: Sequence[Job]
    backfills: Sequence[Job]
    receipts: Sequence[Mapping[str, Any]]
    times: Sequence[StoreTimes]

    @property
    def closed(self) -> list[Gate]:
        return [gate for gate in self.gates if not gate.ok]

    @property
    def compared(self) -> Compared:
        """All hours together."""
        return together(self.hours.values())
