"""A flip as an operator requests it: the gates, the steps, the receipt, and the update of the file.

The control store decides which store is primary; the configuration files say what is wanted. An operator's flip goes to
the control store, so that all processes change over together, and is written to the local file afterwards. Files of
other hosts may be updated later: they count again once all of them name the new primary.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from shadow.control import flip_record as routing
from shadow.control import guard_record, members, receipts
from shadow.control.flip_record import FlipKind, RouteRecord, Routing
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.fleet.coordinator import Aborted, Flipped, Step, make_flip
from shadow.fleet.gates import REHEARSAL, fleet_gates, is_way_back, more_gates
from shadow.fleet.health_gates import Gate
from shadow.hooks.hooks import NO_HOOKS, Hooks
from shadow.host.user import user
from shadow.jobs.target import JobRefused
from shadow.model.guards import WatchPlan
from shadow.model.hooks import HookEvent
from shadow.model.phase import StoreName
from shadow.model.version import fresh_id

__all__ = ["FlipPlan", "FlipRequest", "check_unwatched"]


@dataclass(frozen=True)
class FlipRequest:
    """A flip, completion or rehearsal of some collections. For a completion, `to` is the store that stays. `watch`: the
    window in which a flip is watched; `at`: the epochs of the routes that it is decided upon; `takes_back`: see `Flip`.
    Does I/O; raises `JobRefused` where it is not possible in the current state, `ControlError`."""

    records: Records
    kind: FlipKind
    names: Sequence[str]
    to: StoreName
    heartbeat: float
    limit: float
    hooks: Hooks = NO_HOOKS
    watch: WatchPlan | None = None
    at: Mapping[str, int] = field(default_factory=dict)
    takes_back: bool = False

    def look(self) -> FlipPlan:
        """Reads the state of the fleet and the gates."""
        seen = routing.load(self.records)
        self._check(seen)
        rows = members.prune(self.records, members.members(self.records))
        silent = members.journals(self.records) - {row.journal for row in rows}
        more = more_gates(self.records, seen.placed, self.names)
        gates = [gate for name in self.names for gate in self._gates(name, rows, silent, seen.placed[name], more)]
        return FlipPlan(seen, rows, gates)

    def _check(self, seen: Routing) -> None:
        for name in self.names:
            placed = seen.placed.get(name)
            if placed is None:
                raise JobRefused(
                    f"{name}: no process has written to it under this control store ({self.records.place})",
                    hint="start the application, in phase dual_write or shadow, with this configuration",
                )
            if placed.completed:
                raise JobRefused(
                    f"{name}: its migration is complete, and {placed.primary} is the only store that is written",
                    hint=f"`shadow complete {name} --reopen` begins a new one",
                )
            if self.kind is FlipKind.COMPLETE and placed.primary is not self.to:
                raise JobRefused(
                    f"{name}: {placed.primary} is its primary", hint=f"flip it first: shadow flip {name} --to {self.to}"
                )
            if self.kind is not FlipKind.COMPLETE and placed.primary is self.to:
                raise JobRefused(f"{name}: {self.to} is its primary already")
        if self.kind is FlipKind.COMPLETE:
            check_unwatched(self.records, seen, self.names)

    def _gates(
        self, name: str, rows: Sequence[Member], silent: Iterable[str], placed: RouteRecord, more: Sequence[Gate]
    ) -> list[Gate]:
        gates = fleet_gates(name, rows, silent, placed, self.to, more)
        if self.kind is FlipKind.COMPLETE:
            return [gate for gate in gates if gate.name in _FOR_THE_END]
        if self.kind is FlipKind.REHEARSAL:
            return [gate for gate in gates if gate.name in _FOR_A_REHEARSAL]
        return gates

    def make(
        self,
        outlook: FlipPlan,
        *,
        reason: str,
        forced: bool,
        by: str = "",
        spent: bool = True,
        step: Step = lambda step, said: None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> Flipped:
        """Makes the flip, and keeps a receipt with the gates as they were. Raises `Aborted` if it did not begin.
        `by`: who requested it, by default the user of this process; `spent`: the files may still name the old
        primary, see `RouteRecord`; `more`: added to the receipt. A hook may veto it, before it is announced."""
        who = by or f"{user()} at {socket.gethostname()}"
        to = dict.fromkeys(self.names, self.to)
        epochs = {name: outlook.seen.placed[name].mark for name in self.names}
        about: dict[str, Any] = {"kind": str(self.kind), "collections": list(self.names), "to": str(self.to), "by": who}
        about |= {"reason": reason, "forced": forced}
        if vetoed := self.hooks.ask(about):
            flipped = Flipped(fresh_id(), self.kind, to, False, vetoed, 0.0, vetoed=True)
        else:
            flipped = self._make(to, who, reason, spent, step, None if forced else epochs, about)
        body = {
            **flipped.receipt(),
            "by": who,
            "reason": reason,
            "forced": forced,
            "gates": [[gate.collection, gate.name, gate.ok, gate.said] for gate in outlook.gates],
            "processes": [row.name for row in outlook.rows],
            "epochs": epochs,
            "watch": None if self.watch is None else dataclasses.asdict(self.watch),
            **more,
        }
        receipts.file(self.records, REHEARSAL if self.kind is FlipKind.REHEARSAL else str(self.kind), body)
        self.hooks.send(
            self._end(flipped),
            {**about, "flip": flipped.id, "said": flipped.said, "paused_seconds": round(flipped.paused, 4)},
        )
        return flipped

    def _make(
        self,
        to: Mapping[str, StoreName],
        who: str,
        reason: str,
        spent: bool,
        step: Step,
        epochs: Mapping[str, str] | None,
        about: Mapping[str, Any],
    ) -> Flipped:
        try:
            return make_flip(
                self.records,
                to,
                kind=self.kind,
                by=who,
                reason=reason,
                heartbeat=self.heartbeat,
                limit=self.limit,
                spent=spent,
                step=step,
                epochs=epochs,
                watch=self.watch,
                at=self.at,
                takes_back=self.takes_back,
            )
        except Aborted as why:
            self.hooks.send(HookEvent.AFTER_ABORT, {**about, "said": str(why)})
            raise

    def _end(self, flipped: Flipped) -> HookEvent:
        if not flipped.done:
            return HookEvent.AFTER_ABORT
        return HookEvent.AFTER_REHEARSAL if self.kind is FlipKind.REHEARSAL else HookEvent.AFTER_COMMIT


def check_unwatched(records: Records, seen: Routing, names: Iterable[str]) -> None:
    """Raises `JobRefused` while the flip of one of these is watched: the old primary may be needed again. Does I/O;
    raises `ControlError`."""
    windows = guard_record.open_windows(seen, guard_record.load(records)).values()
    for name in names:
        for window in windows:
            if name in window.left(seen):
                raise JobRefused(
                    f"{name}: its flip to {window.to} is still watched ({window.state})",
                    hint=f"wait for the end of the window (shadow watch list), or end it: shadow watch end {name}",
                )


_FOR_THE_END = frozenset({"processes", "findings", "verified", "journal", "secondary", "equal", "writers"})
_FOR_A_REHEARSAL = frozenset({"processes", "secondary", "journal"})


@dataclass(frozen=True)
class FlipPlan:
    """The state of the fleet before a request."""

    seen: Routing
    rows: Sequence[Member]
    gates: Sequence[Gate]

    @property
    def closed(self) -> list[Gate]:
        return [gate for gate in self.gates if not gate.ok]

    def steps(self, order: FlipRequest) -> list[str]:
        """The steps that would be made, in order."""
        rows, names = self.rows, ", ".join(order.names)
        last = {
            FlipKind.FLIP: f"commit: {order.to} is primary of {names}, in one write for all processes",
            FlipKind.COMPLETE: f"commit: {names} are written to {order.to} alone from now on; there is no way back",
            FlipKind.REHEARSAL: "stop there: nothing changes",
        }[order.kind]
        epochs = ", ".join(f"{name} {self.seen.placed[name].epoch}" for name in order.names)
        watch = [] if order.watch is None else [_window(order.watch)]
        back = [name for name in order.names if is_way_back(self.seen.placed[name], order.to)]
        return [
            f"announce it to {len(rows)} processes ({', '.join(row.name for row in rows)}), epochs now: {epochs}",
            "each confirms within seconds that it can take part; otherwise the flip ends here",
            f"each pauses the writes of {names} until work queue and journal are empty: {order.limit:g} s at most",
            last,
            "each changes over and resumes its writes",
            *watch,
            f"keep a receipt{f'; the way back of {chr(44).join(back)} needs fewer gates' if back else ''}",
        ]


def _window(plan: WatchPlan) -> str:
    back = "the flip is taken back by itself" if plan.take_back else "it is only reported"
    return f"the guards are watched for {plan.seconds:g} s; when one breaks, {back}"
