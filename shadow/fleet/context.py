"""What a process needs to take part in a fleet: created once and passed as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from shadow.control.records import Records
from shadow.fleet.guard_context import Plans
from shadow.hooks.hooks import NO_HOOKS, Hooks
from shadow.model.guards import WatchPlan
from shadow.model.health import CollectionHealth
from shadow.observe.guard_windows import GuardWindows
from shadow.runtime import Runtime, RuntimeContext

__all__ = ["FleetContext", "ParticipantContext"]


@dataclass(frozen=True)
class ParticipantContext:
    """How a process takes part."""

    records: Records
    """The control store."""
    journal: str
    """Names the journal that the process writes, for every host."""
    heartbeat: float
    """Seconds between two signs of life."""
    limit: float
    """Seconds for which writes may be paused before this process aborts an undecided flip."""
    tool: bool = False
    """Whether the process is a tool beside an application, which has no vote."""
    late: float = 60.0
    """Seconds after which a request that a process has sent can no longer arrive."""
    where: Mapping[str, str] = field(default_factory=dict)
    """What all processes must have in common; see `Member`."""


@dataclass(frozen=True)
class FleetContext:
    """What the fleet needs of its Shadow. For `journal`, `heartbeat`, `tool` and `where` see `ParticipantContext`."""

    records: Records
    parts: RuntimeContext
    current: Callable[[], Runtime]
    """The runtime of the running event loop. Raises `ShadowClosed`."""
    figures: Callable[[], Awaitable[Mapping[str, CollectionHealth]]]
    """Returns the figures that the gates check."""
    journal: str
    heartbeat: float
    tool: bool = False
    where: Mapping[str, str] = field(default_factory=dict)
    ramps: Plans = field(default_factory=dict)
    """The configured ramps of reads."""
    watch: WatchPlan | None = None
    """The configured watch window of flips."""
    hooks: Hooks = NO_HOOKS
    windows: GuardWindows = field(default_factory=GuardWindows)
    """The figures that the guards go by."""

    @property
    def participant(self) -> ParticipantContext:
        limits = self.parts.limits
        return ParticipantContext(
            self.records,
            self.journal,
            self.heartbeat,
            limits.drain,
            tool=self.tool,
            late=limits.operation + limits.in_flight_timeout,
            where=self.where,
        )
