"""What the guards of ramps and of watched flips need of their process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shadow.control.flip_record import Routing
from shadow.control.guard_record import WatchWindow
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.fleet.health_gates import Gate
from shadow.hooks.hooks import NO_HOOKS, Hooks
from shadow.host.steady import steady
from shadow.model.events import Reporter
from shadow.model.guards import RampPlan
from shadow.model.phase import StoreName
from shadow.observe.guard_windows import GuardWindows
from shadow.routes.routes import Routes

__all__ = ["GuardContext", "Plans", "TakeBack"]

Plans = Mapping[str, Mapping[StoreName, RampPlan]]
"""The configured ramps, by collection and by the store that answers."""
TakeBack = Callable[[WatchWindow, Sequence[str]], str]
"""Takes the flip of a window back, for these of its collections. Blocks; returns why it could not, or "". Raises
`ControlError`."""


def _nowhere(window: WatchWindow, names: Sequence[str]) -> str:
    return "this process makes no flips"


@dataclass(frozen=True)
class GuardContext:
    """`own`: the member id of this process, "" until it is registered. `clock`: monotonic seconds."""

    records: Records
    own: Callable[[], str]
    routes: Routes
    windows: GuardWindows
    reporter: Reporter
    heartbeat: float
    tool: bool = False
    hooks: Hooks = NO_HOOKS
    gates: Callable[[Sequence[Member]], list[Gate]] = lambda rows: []
    """The gates of all collections, from these rows. Does I/O."""
    routing: Callable[[], Routing] = Routing
    """The routing record, as this process has last read it."""
    take_back: TakeBack = _nowhere
    clock: Callable[[], float] = field(default=steady)
