"""The routes that the configuration files ask for, and the flips that follow from them.

The file of each process names the primary. If all files agree, and it is not the one in force, one process makes the
flip for all. A process whose file is older or newer than the others' changes nothing by itself. What the command line
has flipped stays in force, whatever the files say, until all of them name the new primary.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import FlipKind, RouteRecord, Routing
from shadow.control.guard_record import WatchWindow
from shadow.control.members import Member
from shadow.errors import ControlError
from shadow.fleet.context import FleetContext
from shadow.fleet.coordinator import Aborted, Flipped
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.fleet.gaps import Gaps
from shadow.fleet.gates import fleet_gates, more_gates
from shadow.fleet.guard_context import GuardContext, Plans
from shadow.fleet.guarding import Guarding
from shadow.fleet.health_gates import Gate
from shadow.host.process import this_process
from shadow.host.steady import steady
from shadow.jobs.target import JobRefused
from shadow.model.events import ComponentFailed, noted
from shadow.model.guards import WatchPlan
from shadow.model.phase import Phase, Route, StoreName
from shadow.observe.log import Event

__all__ = ["FleetRoute", "Wishes"]

_RAISED: Final = 2.0
"""Seconds in which the other processes usually see a request for dual writes."""
_VETOED: Final = 60.0
"""Seconds before a flip that a hook has vetoed is tried again."""
_AGAIN: Final = 0.5
"""Seconds before a flip that could not be made is tried again."""


@dataclass(frozen=True)
class FleetRoute:
    """The route of one collection in the fleet, and the phase that this process may begin in."""

    primary: StoreName
    epoch: int
    phase: Phase


class Wishes(Gaps):
    def __init__(
        self, context: FleetContext, wanted: Mapping[str, Route], forced: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`forced`: the reason to flip despite closed gates, by collection."""
        super().__init__(context, wanted)
        self._forced = dict(forced)
        self._told: dict[str, str] = {}
        self._hooks = context.hooks
        self._watch = context.watch
        self._vetoed: dict[str, float] = {}
        """Until when a flip that a hook has vetoed is not tried again, by collection."""
        self.guarding = Guarding(
            GuardContext(
                context.records,
                lambda: self.participant.id,
                context.parts.routes,
                context.windows,
                context.parts.reporter,
                context.heartbeat,
                tool=context.tool,
                hooks=context.hooks,
                gates=self._gates_now,
                routing=lambda: self.participant.routing,
                take_back=self._take_back,
            ),
            context.ramps,
        )

    async def join(self, kept: Mapping[str, StoreName]) -> Mapping[str, FleetRoute]:
        """Registers this process, and returns the route of each configured collection. Raises `ControlError`."""
        # For a tool, collections with one store need no agreement: it follows its file.
        wanted = self.wants_both() if self._tool else self._wanted
        kept = {name: primary for name, primary in kept.items() if name in wanted}
        if self._tool and not kept:
            return {}
        placed = await self.participant.join(kept, self.wanted())
        if not self._tool:
            # A primary that does not answer delays no collection that does not need it.
            await self._vouching.tokens(name for name in kept if placed[name].primary is StoreName.MONGO)
        return {name: self._agreed(name, placed[name]) for name in kept}

    def _agreed(self, name: str, placed: RouteRecord) -> FleetRoute:
        wanted = self._wanted[name].phase
        may = not placed.completed if self._tool else placed.both
        return FleetRoute(placed.primary, placed.epoch, wanted if may else Phase.OFF)

    def kept(self, name: str, primary: StoreName, wanted: StoreName) -> None:
        """Called when the process starts with a primary other than the one its file names."""
        if self._tool:
            return
        self._pending[name] = wanted
        if self._told.get(name) != str(primary):
            # Only once, and not for each event loop.
            self._told[name] = str(primary)
            self._parts.reporter.publish(noted(Event.FLIP_PENDING, collection=name, to=str(wanted)))

    def configured(self) -> Mapping[str, Route]:
        """The routes that the last file asked for."""
        return dict(self._wanted)

    def wishes(
        self,
        wanted: Mapping[str, Route],
        forced: Mapping[str, str],
        ramps: Plans = MappingProxyType({}),
        watch: WatchPlan | None = None,
    ) -> None:
        """Replaces what the file asks for. `forced`: the reason to flip despite closed gates, by collection; `watch`:
        the window of later flips: one that is open stays as it is."""
        self._watch = watch
        self._wanted = dict(wanted)
        self.guarding.plans = ramps
        self._forced = dict(forced)
        self._pending.clear()
        self._told.clear()
        self._vetoed.clear()

    async def change(self, name: str, wanted: Route) -> bool:
        """Applies what a file asks for. False: a change of primary is pending."""
        wanted = self.guarding.applied(name, wanted)
        now = await self._parts.routes.route(name)
        if wanted.primary is not now.primary and self.participant.joined:
            with suppress(ControlError):
                await self.participant.look()
        placed = self.participant.routing.placed.get(name)
        if placed is not None and placed.completed:
            wanted = dataclasses.replace(wanted, primary=placed.primary, phase=Phase.OFF)
        elif self._tool:
            wanted = dataclasses.replace(wanted, primary=now.primary)
        elif _is_behind(placed, wanted.primary):
            self._parts.reporter.publish(noted(Event.FLIP_BEHIND, collection=name, to=str(wanted.primary)))
            wanted = dataclasses.replace(wanted, primary=now.primary)
        if wanted.primary is not now.primary:
            # At once: a share of reads that the new file removes would start with the flip and end just after it.
            await self._set(name, now, dataclasses.replace(now, reads=wanted.reads))
            self._pending[name] = wanted.primary
            if not await self._flip(name):
                return False
            now = self._parts.routes[name]
        return await self._set(name, now, wanted)

    def decides(self, name: str, wanted: Route) -> bool:
        """Whether the routing record overrides what a file asks for, so that the file changes nothing."""
        placed = self.participant.routing.placed.get(name)
        return placed is not None and (placed.completed or _is_behind(placed, wanted.primary))

    async def _set(self, name: str, now: Route, wanted: Route) -> bool:
        wanted = dataclasses.replace(wanted, epoch=now.epoch)
        if wanted == now:
            return True
        if wanted.dual_write and not now.dual_write and not self._tool:
            self._parts.routes.set(name, dataclasses.replace(wanted, phase=now.phase))
            return await self._raise(name)
        if now.dual_write and not wanted.dual_write and not self._tool:
            return await self._lower(name, wanted)
        self._parts.routes.set(name, wanted)
        return True

    async def _lower(self, name: str, wanted: Route) -> bool:
        """Waits for repairs under way before this process reports that it writes only one store: they would overwrite
        what others write to that store by then."""
        routes = self._parts.routes
        async with routes.changing(name):
            if not await self._write_alone(name):
                return False
            routes.set(name, wanted)
        return True

    async def _raise(self, name: str) -> bool:
        """Dual writes begin when no process makes writes without versions any more."""
        try:
            if not self.participant.joined:
                await self.participant.join({name: self._parts.routes[name].primary})
            return await self.participant.want_both([name], _RAISED + 2 * self._heartbeat)
        except (ControlError, TimeoutError) as error:
            self._parts.reporter.publish(ComponentFailed("control", error))
            return False

    async def tend(self, turn: Callable[[], None] = lambda: None) -> None:
        """Makes pending flips until cancelled. `turn` is called at each round."""
        while True:
            turn()
            for name in list(self._pending):
                await self._flip(name)
            await self._come_after()
            await self._vouch()
            await asyncio.sleep(min(_AGAIN, self._heartbeat))

    async def _flip(self, name: str) -> bool:
        """Makes a pending flip if the gates allow it. Returns whether the collection has the wanted primary."""
        to = self._pending[name]
        if steady() < self._vetoed.get(name, 0.0):
            return self._parts.routes[name].primary is to
        try:
            await self.participant.beat()
            seen = await self.participant.look()
            await self.participant.settled()
            if self._parts.routes[name].primary is to or _is_behind(seen.placed.get(name), to):
                self._pending.pop(name, None)
                return self._parts.routes[name].primary is to
            rows = await asyncio.to_thread(lambda: members.prune(self.records, members.members(self.records)))
            gates = await asyncio.to_thread(self._gates_of, name, rows, seen, to)
            why_not = self._obstacle(seen, name, to, rows, gates)
            if not why_not:
                why_not = await self._make(name, to, rows, gates)
        except ControlError as error:
            why_not = error.message
        if why_not:
            self._refused(name, to, why_not)
        return self._parts.routes[name].primary is to

    def _obstacle(self, seen: Routing, name: str, to: StoreName, rows: list[Member], gates: list[Gate]) -> str:
        """Why the flip cannot be made now; "" if it can."""
        if name not in seen.placed:
            return "no process has registered it yet"
        if seen.flip is not None and not seen.flip.state.over:
            return "another flip is under way"
        others = [row for row in rows if not _asks_for(row, name, to)]
        if others:
            return f"the configuration of {', '.join(row.name for row in others)} asks for another primary"
        if name in self._forced:
            return ""
        return "; ".join(f"gate {gate.name}: {gate.said}" for gate in gates if not gate.ok)

    def _gates_of(self, name: str, rows: list[Member], seen: Routing, to: StoreName) -> list[Gate]:
        silent = members.journals(self.records) - {row.journal for row in rows}
        more = more_gates(self.records, seen.placed, [name])
        return fleet_gates(name, rows, silent, seen.placed.get(name), to, more)

    def _gates_now(self, rows: Sequence[Member]) -> list[Gate]:
        """Every gate of every collection, from the figures in the control store. Does I/O; raises `ControlError`."""
        seen, routes = routing.load(self.records), self.routes()
        silent = members.journals(self.records) - {row.journal for row in rows}
        more = more_gates(self.records, seen.placed, routes)
        return [
            gate
            for name, route in routes.items()
            for gate in fleet_gates(name, rows, silent, seen.placed.get(name), route.secondary, more)
        ]

    async def _make(self, name: str, to: StoreName, rows: list[Member], gates: list[Gate]) -> str:
        who = this_process()
        order = self._request([name], to)
        by = f"the configuration file, {who.place.partition('/')[0]} pid {who.pid}"
        forced = self._forced.get(name, "")
        outlook = FlipPlan(self.participant.routing, rows, gates)

        def make() -> Flipped:
            return order.make(outlook, reason=forced, forced=bool(forced), by=by, spent=False)

        try:
            flipped = await asyncio.to_thread(make)
        except Aborted as error:
            return str(error)
        if flipped.vetoed:
            self._vetoed[name] = steady() + _VETOED
        await self.participant.look()
        await self.participant.settled()
        return "" if flipped.done else flipped.said

    def _request(self, names: Sequence[str], to: StoreName) -> FlipRequest:
        """Only flips to DynamoDB are watched by themselves: a difference would take a way back to where it came
        from."""
        watch = self._watch if to is StoreName.DYNAMO else None
        drain = self._parts.limits.drain
        return FlipRequest(self.records, FlipKind.FLIP, names, to, self._heartbeat, drain, self._hooks, watch)

    def _take_back(self, window: WatchWindow, names: Sequence[str]) -> str:
        """Takes the flip of a watch window back, if nobody has flipped these since. Blocks; returns why it could not,
        or "". Raises `ControlError`."""
        order = dataclasses.replace(
            self._request(names, window.to.other),
            watch=None,
            takes_back=True,
            at={name: window.epochs[name] for name in names},
        )
        who = this_process()
        try:
            outlook = order.look()
            if outlook.closed:
                return "; ".join(f"gate {gate.name} of {gate.collection}: {gate.said}" for gate in outlook.closed)
            flipped = order.make(
                outlook,
                reason=f"a guard has broken: {window.reason}",
                forced=False,
                by=f"the watch window, {who.place.partition('/')[0]} pid {who.pid}",
                more={"watched_flip": window.flip},
            )
        except (Aborted, JobRefused) as error:
            return str(error)
        return "" if flipped.done else flipped.said

    async def order(self, name: str, to: StoreName, reason: str) -> dict[str, Any]:
        """Executes a flip that an operator requested through this process. Shape: {"done", "said", "held"}."""
        order = self._request([name], to)

        def make() -> dict[str, Any]:
            outlook = order.look()
            closed = bool(outlook.closed)
            try:
                flipped = order.make(outlook, reason=reason, forced=closed)
            except Aborted as error:
                return {"done": False, "said": str(error), "held": 0.0}
            held = max(flipped.held.values(), default=0.0)
            return {"done": flipped.done, "said": flipped.said, "held": held}

        return await asyncio.to_thread(make)

    def _refused(self, name: str, to: StoreName, why_not: str) -> None:
        """Reports each reason once."""
        if self._told.get(name) != why_not:
            self._told[name] = why_not
            self._parts.reporter.publish(noted(Event.FLIP_REFUSED, collection=name, to=str(to), detail=why_not))

    async def _come_after(self) -> None:
        """Once every file names the primary that the command line has put in force, files count again."""
        seen = self.participant.routing
        spent = [name for name, each in seen.placed.items() if each.spent and self.wanted().get(name) is each.primary]
        if not spent or not self.participant.joined or (seen.flip is not None and not seen.flip.state.over):
            return

        def make(now: Routing) -> Routing | None:
            rows = members.members(self.records)
            caught_up = {
                name: dataclasses.replace(now.placed[name], spent=False)
                for name in spent
                if now.placed[name].spent and all(_asks_for(row, name, now.placed[name].primary) for row in rows)
            }
            over = now.flip is None or now.flip.state.over
            return now.with_placed(caught_up) if caught_up and over else None

        await asyncio.to_thread(routing.change, self.records, make)


def _asks_for(row: Member, name: str, primary: StoreName) -> bool:
    """Whether a process asks for this primary. A tool counts as agreeing; a process without the collection does not."""
    standing = row.standing.get(name)
    return row.tool or (standing is not None and standing.wanted is primary)


def _is_behind(placed: RouteRecord | None, wanted: StoreName) -> bool:
    """Whether a file still asks for a primary that the command line has flipped away from."""
    return placed is not None and placed.spent and wanted is not placed.primary
