"""How this process takes part in the fleet, and the flips that its configuration file asks for.

The file of every process says which store is to be primary. Where all of them say the same, and it is not what is in
force, one of them makes the flip for all. A process with an older file, or a newer one than the others, changes nothing
by itself. What the command line has flipped stays so, whatever the files say, until all of them have come after.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shadow.control import epochs, members
from shadow.control import flip_record as routing
from shadow.control.flip_record import FlipKind, FlipState, RouteRecord, Routing
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.control.vouching import Vouching
from shadow.errors import ControlError, JournalError, ShadowClosed
from shadow.fleet.coordinator import Aborted, Flipped
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.fleet.gates import fleet_gates, more_gates
from shadow.fleet.health_gates import Gate
from shadow.fleet.participant import Participant
from shadow.host.process import this_process
from shadow.host.steady import steady
from shadow.model.background import Background
from shadow.model.events import ComponentFailed, noted
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, Route, StoreName
from shadow.observe.log import Event
from shadow.runtime import Runtime, Shared
from shadow.stores.base import Store

__all__ = ["Fleet"]

_ENDS: Final = {"done": Event.FLIP_DONE, "aborted": Event.FLIP_REFUSED, "rehearsed": Event.FLIP_REHEARSED}
_RAISED: Final = 2.0
"""Seconds in which the other processes take note of dual writes, as a rule."""
_VOUCHED: Final = 30.0
"""Seconds between two looks at whether journal and stores are those of before."""
_VOUCHED_AT_MOST: Final = 3
"""How often a store that does not say in time whether it is the one of before is asked, before a flip is refused."""
_BY: Final = "by"
_AGAIN: Final = 0.5
"""Seconds before a flip that could not be made is tried again."""


@dataclass(frozen=True)
class FleetRoute:
    """Where the fleet stands with one collection, and the phase that this process may begin in."""

    primary: StoreName
    epoch: int
    phase: Phase


class Fleet:
    """Implements `participant.Site` for one Shadow. `current`: the runtime of the running event loop; `figures`: what
    the gates are judged by; `journal`: names the journal for other hosts."""

    def __init__(
        self,
        records: Records,
        parts: Shared,
        wanted: Mapping[str, Route],
        *,
        current: Callable[[], Runtime],
        figures: Callable[[], Awaitable[Mapping[str, CollectionHealth]]],
        journal: str,
        heartbeat: float,
        tool: bool,
        where: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.records = records
        self._parts = parts
        self._current = current
        self._figures = figures
        self._heartbeat = heartbeat
        self._tool = tool
        self._wanted = dict(wanted)
        self._pending: dict[str, StoreName] = {}
        self._told: dict[str, str] = {}
        self._forced: Mapping[str, str] = {}
        self.participant = Participant(
            records,
            self,
            journal=journal,
            heartbeat=heartbeat,
            limit=parts.limits.drain,
            tool=tool,
            late=parts.limits.operation + parts.limits.straggle,
            where=where,
        )
        here = records.place
        self._control = here if "://" in here else f"{this_process().place.partition('/')[0]}:{here}"
        self._vouching = Vouching(
            records,
            parts.journal,
            journal,
            self._stores,
            self.wants_both,
            self.participant.interrupt,
            # Within what `close` waits for.
            patience=min(parts.limits.read_deadline, parts.limits.drain / 4),
            by=f"{self._control} {_BY} {this_process().place.partition('/')[0]} pid {this_process().pid}",
            on_stranger=self._stranger,
        )
        self._vouched = -math.inf
        self._looked = False
        self._strangers: dict[str, str] = {}
        self._gaps: set[str] = set()

    def _stranger(self, place: str, by: str) -> None:
        """Another process keeps its token there by another control store: neither can know of the other's writes."""
        theirs, _, who = by.partition(f" {_BY} ")
        if theirs == self._control or self._strangers.get(place) == by:
            return
        self._strangers[place] = by
        detail = (
            f"{place}: {who or 'a process'} has the control store {theirs}, and this one {self._control}: "
            "all processes of an application must name the same (control.url, or journal.url)"
        )
        self._parts.reporter.publish(noted(Event.CONTROL_ELSEWHERE, detail=detail))

    def era(self, collection: str) -> str:
        """Names the time since both stores of a collection were written last, in all processes alike."""
        placed = self.participant.routing.placed.get(collection)
        return "one" if placed is None else f"one-{placed.dual}-{placed.broken:.6f}"

    def _stores(self) -> Mapping[StoreName, Store]:
        try:
            return self._current().stores
        except ShadowClosed:
            return {}

    def _unfit(self) -> Mapping[str, str]:
        try:
            return self._current().admission.unfit()
        except ShadowClosed:
            return {}

    # --- what the participant asks for --------------------------------------------------------------------------

    def routes(self) -> Mapping[str, Route]:
        routes = self._parts.routes.all()
        return {name: routes[name] for name in self._wanted if name in routes}

    def wanted(self) -> Mapping[str, StoreName]:
        return {name: route.primary for name, route in self._wanted.items()}

    def wants_both(self) -> Mapping[str, Phase]:
        return {name: route.phase for name, route in self._wanted.items() if route.dual_write}

    def noted(self, seen: Routing, until: float) -> None:
        routes = self._parts.routes
        versioned = {name for name, each in seen.placed.items() if not epochs.bare(each)}
        stamped = {name for name, each in seen.placed.items() if epochs.stamped(each)}
        routes.lease(until, versioned=versioned, stamped=stamped)
        if self._tool:
            return
        for name, route in self.routes().items():
            placed = seen.placed.get(name)
            if route.dual_write and placed is not None and placed.writing not in epochs.TWICE:
                # Somebody has taken this process off the list: the others write one store alone by now.
                routes.set(name, dataclasses.replace(route, phase=Phase.OFF))

    def drained(self, collections: Iterable[str]) -> bool:
        return self._parts.routes.drained(collections)

    def arrived(self, collections: Iterable[str]) -> bool:
        return self._parts.routes.arrived(collections)

    async def write_both(self, collections: list[str]) -> None:
        routes, wants = self._parts.routes, self.wants_both()
        for name in collections:
            # What was written to one store has ended before this process says that it writes both.
            async with routes.held(name, self._parts.limits.operation):
                routes.set(name, dataclasses.replace(routes[name], phase=wants[name]))

    async def join(self, kept: Mapping[str, StoreName]) -> Mapping[str, FleetRoute]:
        """Takes part, as a process that begins, and says where each configured collection stands. Raises
        `ControlError`."""
        # A tool beside collections of one store each has nothing to agree on, and follows its file.
        wanted = self.wants_both() if self._tool else self._wanted
        kept = {name: primary for name, primary in kept.items() if name in wanted}
        if self._tool and not kept:
            return {}
        placed = await self.participant.join(kept, self.wanted())
        if not self._tool:
            # A primary that does not answer keeps nobody waiting that could go on without it.
            await self._vouching.tokens(name for name in kept if placed[name].primary is StoreName.MONGO)
        return {name: self._agreed(name, placed[name]) for name in kept}

    def _agreed(self, name: str, placed: RouteRecord) -> FleetRoute:
        wanted = self._wanted[name].phase
        may = not placed.completed if self._tool else placed.both
        return FleetRoute(placed.primary, placed.epoch, wanted if may else Phase.OFF)

    @asynccontextmanager
    async def holding(self, collections: list[str]) -> AsyncIterator[None]:
        for name in collections:
            self._parts.reporter.publish(noted(Event.FLIP_STARTED, collection=name))
        async with self._current().holding(collections):
            yield

    async def switch(self, placed: Mapping[str, RouteRecord]) -> None:
        for name, each in placed.items():
            try:
                await self._parts.journal.set_primary(name, str(each.primary))
            except JournalError as error:
                # The fleet's record decides at the next start, whatever the journal has noted.
                self._parts.reporter.publish(ComponentFailed("journal", error))
            now = self._parts.routes[name]
            phase = Phase.OFF if each.completed else now.phase
            self._parts.routes.set(name, dataclasses.replace(now, primary=each.primary, phase=phase, epoch=each.epoch))
            self._pending.pop(name, None)

    async def vouch(self, collections: Collection[str], *, whole: bool = True) -> str:
        if self._tool:
            return ""
        wrong: set[str] = set()
        for _ in range(_VOUCHED_AT_MOST):
            wrong |= await self._vouching.tokens(collections)
            silent = set(self._vouching.silent)
            if not silent:
                break
        wrong |= await self._vouching.identities(collections)
        unfit = [
            f"{name} cannot stand in two stores: {why}" for name, why in self._unfit().items() if name in collections
        ]
        if unfit:
            return "; ".join(unfit)
        if silent and whole and not wrong:
            return f"{', '.join(sorted(silent))}: no answer in time whether it is the one of before: try again"
        if not wrong:
            return ""
        return f"{', '.join(sorted(wrong))}: a store or the journal is not the one of before: copy and verify again"

    async def figures(self) -> Mapping[str, CollectionHealth]:
        return await self._figures() if not self._tool else {}

    async def is_empty(self) -> bool:
        try:
            await self._parts.journal.flush()
            stats = await self._parts.journal.stats()
        except JournalError:
            return False
        return stats.open == 0

    def failed(self, task: Background, error: BaseException | None) -> None:
        self._parts.supervisor.report(task, error)

    def heard(self, what: str, **about: Any) -> None:
        said = about.get("said", "")
        if what == "flip":
            event = _ENDS[about["state"]]
            for name in about["collections"]:
                self._parts.reporter.publish(noted(event, collection=name, detail=said))
        elif what == "gap":
            for name in about["collections"]:
                self._parts.reporter.publish(noted(Event.DUAL_WRITES_INTERRUPTED, collection=name))
        else:
            self._parts.reporter.publish(
                noted(Event.CONTROL_LOST if what == "lost" else Event.CONTROL_FOUND, detail=said)
            )

    # --- the file -----------------------------------------------------------------------------------------------

    def kept(self, name: str, primary: StoreName, wanted: StoreName) -> None:
        """The process begins with another primary than its file asks for."""
        if self._tool:
            return
        self._pending[name] = wanted
        if self._told.get(name) != str(primary):
            # Once, and not for every event loop.
            self._told[name] = str(primary)
            self._parts.reporter.publish(noted(Event.FLIP_PENDING, collection=name, to=str(wanted)))

    def configured(self) -> Mapping[str, Route]:
        """What the file asks for that was read last."""
        return dict(self._wanted)

    def wishes(self, wanted: Mapping[str, Route], forced: Mapping[str, str]) -> None:
        """What a new file asks for. `forced`: why closed gates are no reason to wait, by collection."""
        self._wanted = dict(wanted)
        self._forced = dict(forced)
        self._pending.clear()
        self._told.clear()

    async def change(self, name: str, wanted: Route) -> bool:
        """Puts in force what a file asks for; False: a change of primary is still to be made."""
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
            # At once: a share that the new file takes away would else begin with the flip, and end just after it.
            await self._set(name, now, dataclasses.replace(now, reads=wanted.reads))
            self._pending[name] = wanted.primary
            if not await self._flip(name):
                return False
            now = self._parts.routes[name]
        return await self._set(name, now, wanted)

    def decides(self, name: str, wanted: Route) -> bool:
        """Whether the fleet's word stands against what a file asks for, so that the file changes nothing there."""
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
        """A heal under way ends before this process says that it writes one store alone: it would copy what others have
        written there alone by then."""
        routes = self._parts.routes
        async with routes.changing(name):
            if not await self._write_alone(name):
                return False
            routes.set(name, wanted)
        return True

    async def _raise(self, name: str) -> bool:
        """Dual writes begin when no process makes a write any more that moves no version."""
        try:
            if not self.participant.joined:
                await self.participant.join({name: self._parts.routes[name].primary})
            return await self.participant.want_both([name], _RAISED + 2 * self._heartbeat)
        except (ControlError, TimeoutError) as error:
            self._parts.reporter.publish(ComponentFailed("control", error))
            return False

    async def _write_alone(self, name: str) -> bool:
        """Whatever was copied and verified before says nothing any more. Where that cannot be recorded, dual writes go
        on."""
        try:
            await self.participant.write_alone([name])
        except BaseException as error:
            # Also where the event loop ends on the way: this process would stand for ever as one that writes alone.
            self.participant.writes_both_again([name])
            if not isinstance(error, ControlError):
                raise
            self._parts.reporter.publish(ComponentFailed("control", error))
            return False
        return True

    async def tend(self, turn: Callable[[], None] = lambda: None) -> None:
        """Makes the flips that are still to be made, until cancelled. `turn` is called at each round."""
        while True:
            turn()
            for name in list(self._pending):
                await self._flip(name)
            await self._come_after()
            await self._vouch()
            await asyncio.sleep(min(_AGAIN, self._heartbeat))

    @property
    def vouched(self) -> bool:
        """Whether this process has looked at journal and stores, and found them or noted that they are others."""
        return self._looked

    def has_entered(self) -> bool:
        """Whether nothing has to be asked now before a write that goes past the routes. Does no I/O."""
        routes = self._parts.routes
        return self._tool or (routes.known and routes.fresh)

    async def enter(self, names: Collection[str]) -> None:
        """Returns when the fleet knows of this process, and has ended what was proven of collections that others write
        to both stores: before the first write of an event loop, and of each pause, to collections that its
        configuration does not name.

        Where it cannot be told, MongoDB's database keeps a sign of each such write to `names`, for the time when it can
        be told. Raises `ControlError` or `JournalError` where nothing would know of it, or `names` are not known.
        """
        if self.has_entered():
            return
        error: ControlError | JournalError | None = None
        try:
            await self._parts.routes.learnt(writing=True)
        except (ControlError, JournalError) as raised:
            error = raised
        if not (self._parts.routes.known and self.participant.joined):
            await self.unplaced(names, error)

    async def unplaced(self, names: Collection[str], error: ControlError | JournalError | None = None) -> None:
        """This process is about to write without being on the list of processes. Raises `error`, or `ControlError`,
        where MongoDB cannot keep a sign of it."""
        if not names or not all([await self._vouching.spoil(name) for name in names]):
            raise error or ControlError(
                f"{', '.join(names)}: neither the control store nor MongoDB can note that it is written",
                hint="nothing was written; bring one of them back",
            )

    async def gap(self, name: str) -> None:
        """This process is about to write without its journal: what was proven ends before. Where the control store
        cannot be written either, as on a full disk, MongoDB's database keeps a sign of it. Raises `JournalError` where
        nothing would know of it."""
        if name in self._gaps:
            return
        try:
            await self._say_gap(name)
        except BaseException:
            # Nothing is written without the journal then, and nobody else would take it back.
            if name not in self._gaps:
                self.participant.writes_both_again([name])
            raise
        self._gaps.add(name)
        self.participant.stands_alone([name])

    async def _say_gap(self, name: str) -> None:
        try:
            await self.participant.write_alone([name])
        except ControlError as error:
            self._parts.reporter.publish(ComponentFailed("control", error))
            if not await self._vouching.spoil(name):
                raise JournalError(
                    f"{name}: neither the journal nor the control store can be written, nor MongoDB in their place",
                    hint="nothing was written; free some space on the disk, or bring one of them back",
                ) from error

    def journal_works(self, works: bool) -> None:
        """What was written without it and did not arrive is in the journal by now, as unverified."""
        if works:
            self.participant.writes_both_again(self._gaps)
            self._gaps.clear()

    async def _vouch(self) -> None:
        """From time to time, for all collections. Where none is written to both stores, there is nothing to prove."""
        both = list(self.wants_both())
        if steady() - self._vouched < _VOUCHED or self._tool or not both or not self.participant.joined:
            return
        self._vouched = steady()
        await self._vouching.tokens(self._wanted, fresh=True)
        silent = bool(self._vouching.silent)
        await self._vouching.identities(both)
        if silent:
            # Asked again with the next sign of life, and not a minute later.
            self._vouched = -math.inf
        else:
            self._looked = True

    async def _flip(self, name: str) -> bool:
        """Whether the collection has the primary that is wanted."""
        to = self._pending[name]
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
            return "no process has placed it yet"
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

    async def _make(self, name: str, to: StoreName, rows: list[Member], gates: list[Gate]) -> str:
        who = this_process()
        order = FlipRequest(self.records, FlipKind.FLIP, [name], to, self._heartbeat, self._parts.limits.drain)
        by = f"the configuration file, {who.place.partition('/')[0]} pid {who.pid}"
        forced = self._forced.get(name, "")
        outlook = FlipPlan(self.participant.routing, rows, gates)

        def make() -> Flipped:
            return order.make(outlook, reason=forced, forced=bool(forced), by=by, spent=False)

        try:
            flipped = await asyncio.to_thread(make)
        except Aborted as error:
            return str(error)
        await self.participant.look()
        await self.participant.settled()
        return "" if flipped.done else flipped.said

    async def order(self, name: str, to: StoreName, reason: str) -> dict[str, Any]:
        """What an operator orders through this process. Shape: {"done", "said", "held"}."""
        order = FlipRequest(self.records, FlipKind.FLIP, [name], to, self._heartbeat, self._parts.limits.drain)

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
        """Says so once for each reason."""
        if self._told.get(name) != why_not:
            self._told[name] = why_not
            self._parts.reporter.publish(noted(Event.FLIP_REFUSED, collection=name, to=str(to), detail=why_not))

    async def _come_after(self) -> None:
        """Once every file asks for what the command line has put in force, files count again."""
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

    def prepare(self) -> None:
        """Makes what the control store is kept in. Blocks; raises `ControlError`."""
        self.records.prepare()

    def close(self) -> None:
        """Idempotent; the next use opens it again."""
        self.records.close()

    # --- what people ask for ------------------------------------------------------------------------------------

    async def gates(self, own: Mapping[str, CollectionHealth]) -> list[Gate]:
        """Every gate of every configured collection for a flip to its other store. `own`: of this process."""
        return await asyncio.to_thread(self._all_gates, own)

    def _all_gates(self, own: Mapping[str, CollectionHealth]) -> list[Gate]:
        seen, routes = self.participant.routing, self.routes()
        try:
            rows = members.prune(self.records, members.members(self.records))
            silent = members.journals(self.records) - {row.journal for row in rows}
        except ControlError as error:
            look = f"the control store cannot be asked: {error.message}"
            return [Gate(name, "processes", False, "not known", look) for name in routes]
        others = [row.figures for row in rows if not row.tool and row.id != self.participant.id]
        more = more_gates(self.records, seen.placed, routes)
        return [
            gate
            for name, route in routes.items()
            for gate in fleet_gates(name, rows, silent, seen.placed.get(name), route.secondary, more, [own, *others])
        ]

    def gauges(self) -> dict[str, Any]:
        """What metrics show of the fleet, as last seen; does no I/O."""
        part = self.participant
        application = [row for row in part.seen_members if not row.tool]
        return {
            "control_up": part.reachable,
            "members": len(application),
            "disagreements": members.disagreements(application).keys(),
            "held": dict(part.held),
        }

    async def status(self) -> dict[str, Any]:
        """JSON-able. Shape: {"control": text, "members": [...], "disagreements": {...}, "routing": {...}, "flip": ...};
        where the control store does not answer: {"control": text, "state": text}."""
        try:
            rows = await asyncio.to_thread(lambda: members.members(self.records))
            seen = await asyncio.to_thread(lambda: routing.load(self.records))
        except ControlError as error:
            return {"control": self.records.place, "state": error.message}
        return {
            "control": self.records.place,
            "state": "ok",
            "control_elsewhere": dict(self._strangers),
            **described(seen, rows),
        }


def described(seen: Routing, rows: list[Member]) -> dict[str, Any]:
    """The fleet for people, JSON-able."""
    flip = seen.flip
    return {
        "members": [_member(row) for row in rows],
        "disagreements": members.disagreements(row for row in rows if not row.tool),
        "misplaced": members.misplaced(row for row in rows if not row.tool),
        "routing": {name: _placed(each) for name, each in seen.placed.items()},
        "flip": None
        if flip is None or flip.state is FlipState.RELEASED
        else {
            "id": flip.id,
            "kind": str(flip.kind),
            "state": str(flip.state),
            "to": {name: str(to) for name, to in flip.to.items()},
            "by": flip.by,
            "said": flip.said,
        },
    }


def _member(row: Member) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "tool": row.tool,
        "journal": row.journal,
        "dead": row.owner.known_dead(),
        "beat": row.beat,
        "where": dict(row.where),
        "standing": {
            name: {"primary": str(each.primary), "phase": str(each.phase), "file": str(each.wanted)}
            for name, each in row.standing.items()
        },
    }


def _placed(each: RouteRecord) -> dict[str, Any]:
    return {
        "primary": str(each.primary),
        "epoch": each.epoch,
        "since": each.since,
        "way_back": each.previous is not None,
        "completed": each.completed,
        "files_behind": each.spent,
    }


def _asks_for(row: Member, name: str, primary: StoreName) -> bool:
    """A tool has no say; a process that does not have the collection does not agree."""
    standing = row.standing.get(name)
    return row.tool or (standing is not None and standing.wanted is primary)


def _is_behind(placed: RouteRecord | None, wanted: StoreName) -> bool:
    """Whether a file asks for what the command line has flipped away from since."""
    return placed is not None and placed.spent and wanted is not placed.primary
