"""Follows the shares of reads and the watch windows that the control store holds, and decides about them, in one
process at a time.

Every process puts the share of the record in force. One of them, the holder of the record, reads the figures of all
processes at each round, and steps on or back, or has a flip taken back, by one conditional write. See "The guards" in
the manual's page on design.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from shadow.control import flip_record, guard_record, members, receipts
from shadow.control.flip_record import Routing
from shadow.control.guard_record import GuardRecord, Move, Ramp
from shadow.control.members import Member
from shadow.errors import ControlError
from shadow.fleet import ramp as ramps
from shadow.fleet import watch_window
from shadow.fleet.guard_context import GuardContext, Plans
from shadow.fleet.guards import Guard, ramp_guards, unheard
from shadow.fleet.watching import Watching, is_watch
from shadow.model.events import noted
from shadow.model.guards import RampPlan
from shadow.model.health import CollectionHealth
from shadow.model.hooks import HookEvent
from shadow.model.phase import NO_SHARES, Phase, ReadShares, Route, StoreName
from shadow.observe.log import Event

__all__ = ["GuardContext", "Guarding", "Plans"]

_ROUND: Final = 3
"""Heartbeats between two rounds."""
_LEASE: Final = 5
"""Rounds after which a record that did not change is taken over."""
GATE: Final = "gate"
_GATES: Final = 5
"""Rounds between two readings of the gates, for the hooks."""
_MOST_GATES: Final = 100
_HEARD: Final = 5.0
"""Seconds, besides ten heartbeats, after which the figures of a silent process count as unknown."""


class Guarding:
    """One for each Shadow."""

    def __init__(self, context: GuardContext, plans: Plans) -> None:
        self._context = context
        self._records = context.records
        self._routes = context.routes
        self._clock = context.clock
        self._round = _ROUND * context.heartbeat
        self.plans = plans
        self._watching = Watching(context)
        self._shares: dict[str, ReadShares] = {}
        self._seen: tuple[tuple[str, int], float] = ("", 0), 0.0
        """Holder and beat as last seen, and since when they have been so."""
        self._decided = 0.0
        """When this process last renewed the record as its holder."""
        self._beats: dict[str, tuple[int, float]] = {}
        self._told: set[str] = set()
        self._stepped_aside: set[str] = set()
        self._seen_record = GuardRecord()
        """As last read."""
        self._gates_due = 0.0

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Rounds until cancelled; `turn` is called at each."""
        try:
            while True:
                turn()
                await self.round()
                await asyncio.sleep(self._round)
        finally:
            await self._watching.end()

    async def round(self) -> None:
        """Follows the record, and decides if this process holds it."""
        if self._context.tool:
            return
        try:
            asked = self._clock()
            seen = await asyncio.to_thread(guard_record.load, self._records)
            self._follow(seen)
            if self._context.own() and (self._watching.open(seen) or self._has_more(seen)):
                await self._hold(seen, asked)
        except ControlError:
            # The share stays as it is, and nobody decides; the fleet's heartbeat reports the control store.
            self._step_aside()

    def _has_more(self, seen: GuardRecord) -> bool:
        """Whether there is something to decide or to tell besides watch windows."""
        return bool(seen.ramps or seen.moves or self._due(seen) or self._reads_gates)

    # --- the share in force ---------------------------------------------------------------------------------------

    def applied(self, name: str, route: Route) -> Route:
        """A route that the configuration asks for, with the shares that its ramps have reached."""
        shares = self._shares.get(name)
        return route if shares is None or name not in self.plans else dataclasses.replace(route, reads=shares)

    def _due(self, seen: GuardRecord) -> dict[str, tuple[StoreName, RampPlan]]:
        """The ramps that are under way as the collections are routed now. While a flip is watched, the new primary has
        the whole of the traffic."""
        routes, watched, found = self._routes.all(), self._watching.names(seen), {}
        for name, plans in self.plans.items():
            route = None if name in watched else routes.get(name)
            if route is not None and route.phase is Phase.SHADOW and route.secondary in plans:
                found[name] = route.secondary, plans[route.secondary]
        return found

    def _follow(self, seen: GuardRecord) -> None:
        self._seen_record = seen
        due = self._due(seen)
        for name in self.plans:
            self._shares[name] = _shares(self._routes.all().get(name), seen.ramps.get(name), self.plans[name])
            self._put(name, self._shares[name])
        for name, (store, plan) in due.items():
            found = seen.ramps.get(name)
            number = found.number if found is not None and found.store is store else 0
            self._context.windows.follow(name, plan=plan.text, number=number, seconds=plan.limits.window)
        watched = self._watching.follow(seen)
        for name in self._context.windows.collections - due.keys() - watched:
            self._context.windows.drop(name)
        self._stepped_aside.clear()

    def _put(self, name: str, shares: ReadShares) -> None:
        route = self._routes.all().get(name)
        if route is not None and route.reads != shares:
            self._routes.set(name, dataclasses.replace(route, reads=shares))

    def _step_aside(self) -> None:
        """While the control store does not answer, nobody steps back for all: a process whose own figures break a guard
        then asks the primary alone, until the record can be read again."""
        for name, (store, plan) in self._due(self._seen_record).items():
            own, share = self._context.windows.of(name), self._routes[name].secondary_reads
            if own is None or not share or name in self._stepped_aside:
                continue
            guards = ramp_guards(
                [CollectionHealth(guards=own)], plan.limits, share=share, number=own.number, plan=plan.text
            )
            broken = [f"{each.name}: {each.said}" for each in guards if each.holds is False]
            if broken:
                self._stepped_aside.add(name)
                self._put(name, _with(self._routes[name].reads, store, 0.0))
                said = f"in this process alone, for the control store does not answer; {'; '.join(broken)}"
                self._context.reporter.publish(
                    noted(Event.RAMP_STEPPED_BACK, collection=name, store=str(store), share=0.0, reason=said)
                )

    # --- the process that decides -----------------------------------------------------------------------------------

    async def _hold(self, seen: GuardRecord, asked: float) -> None:
        rows = await asyncio.to_thread(lambda: members.prune(self._records, members.members(self._records)))
        if seen.holder != self._context.own():
            await self._take_over(seen, {row.id for row in rows})
            return
        application = [row for row in rows if not row.tool]
        silent = self._silent(application)
        elapsed = asked - self._decided if self._decided else 0.0
        if elapsed > _LEASE * self._round:
            elapsed = 0.0  # nobody watched
        wanted = dataclasses.replace(
            seen, beat=seen.beat + 1, moves=tuple(each for each in seen.moves if each.id not in self._told)
        )
        routing = await asyncio.to_thread(flip_record.load, self._records)
        wanted = self._watching.decide(wanted, routing, application, silent, elapsed, self.plans)
        wanted = self._decide(wanted, routing, application, silent, elapsed)
        wanted = await self._gates(wanted, rows, asked)
        if self._clock() - asked > _LEASE * self._round:
            return  # what was read is old: the host was suspended
        saved = await asyncio.to_thread(guard_record.save, self._records, wanted)
        if saved is None:
            return  # an operator, or another process, has changed it: again with what is there now
        self._decided = asked
        self._follow(saved)
        await self._tell(saved.moves)
        self._watching.go_back(saved, routing)

    @property
    def _reads_gates(self) -> bool:
        return self._context.hooks.wanted(HookEvent.GATE_CLOSED)

    async def _gates(self, seen: GuardRecord, rows: Sequence[Member], asked: float) -> GuardRecord:
        """With the gates that are closed now, and a move for each that was open when they were last read."""
        if not self._reads_gates or asked < self._gates_due:
            return seen
        self._gates_due = asked + _GATES * self._round
        closed = [gate for gate in await asyncio.to_thread(self._context.gates, rows) if not gate.ok]
        known = None if seen.closed is None else set(seen.closed)
        new = [gate for gate in closed if known is not None and (gate.collection, gate.name) not in known]
        moves = [
            Move.of(
                GATE,
                {"collection": gate.collection, "gate": gate.name, "figure": gate.said, "look_at": gate.look_at},
            )
            for gate in new[:_MOST_GATES]
        ]
        gates = tuple((gate.collection, gate.name) for gate in closed)
        return dataclasses.replace(seen, closed=gates, moves=(*seen.moves, *moves))

    async def _take_over(self, seen: GuardRecord, living: Collection[str]) -> None:
        """Takes a record that nobody holds, or whose holder is gone or silent. Decides with the next round."""
        now, key = self._clock(), (seen.holder, seen.beat)
        if self._seen[0] != key:
            self._seen = key, now
        if seen.holder in living and now - self._seen[1] <= _LEASE * self._round:
            return
        mine = dataclasses.replace(seen, holder=self._context.own(), beat=seen.beat + 1)
        if await asyncio.to_thread(guard_record.save, self._records, mine) is not None:
            self._decided, self._beats = now, {}

    def _silent(self, rows: Sequence[Member]) -> list[Member]:
        """The processes whose heartbeat has not come for long, by this process's own clock."""
        now, silent = self._clock(), []
        self._beats = {row.id: self._beats.get(row.id, (row.beat, now)) for row in rows}
        for row in rows:
            beat, since = self._beats[row.id]
            if beat != row.beat:
                self._beats[row.id] = row.beat, now
            elif now - since > _HEARD + 10 * self._context.heartbeat:
                silent.append(row)
        return silent

    def _decide(
        self,
        seen: GuardRecord,
        routing: Routing,
        rows: Sequence[Member],
        silent: Sequence[Member],
        elapsed: float,
    ) -> GuardRecord:
        due, now = self._due(seen), time.time()
        for name in seen.ramps.keys() - due.keys():
            if not self._is_ahead(seen.ramps[name], routing) and not any(_ramps(row, name) for row in rows):
                # No file has it any more, or the collection was flipped: another time it begins from the start.
                seen = seen.without(name)
        for name, (store, plan) in due.items():
            found = seen.ramps.get(name)
            ramp = found if found is not None and found.store is store else Ramp(name, store, since=now)
            guards = self._guards(ramp, plan, rows, silent)
            seen = seen.with_ramp(*ramps.decided(ramp, plan, guards, elapsed, now))
        return seen

    def _is_ahead(self, ramp: Ramp, routing: Routing) -> bool:
        """Whether the record has the store of a configured ramp as the secondary, and this process may not know yet."""
        placed = routing.placed.get(ramp.collection)
        configured = ramp.store in self.plans.get(ramp.collection, {})
        return configured and placed is not None and placed.primary is ramp.store.other

    def _guards(self, ramp: Ramp, plan: RampPlan, rows: Sequence[Member], silent: Sequence[Member]) -> list[Guard]:
        health = [row.figures.get(ramp.collection, CollectionHealth()) for row in rows if row not in silent]
        guards = ramp_guards(health, plan.limits, share=ramp.share, number=ramp.number, plan=plan.text)
        return [*guards, unheard(silent)] if silent else guards

    async def _tell(self, moves: Sequence[Move]) -> None:
        """Receipts and events of what was decided. What fails is done with the next round."""
        for move in moves:
            if move.id in self._told:
                continue
            if move.kind == GATE:
                self._told.add(move.id)
                self._context.hooks.send(HookEvent.GATE_CLOSED, move.body, id=move.id)
                continue
            await asyncio.to_thread(receipts.file, self._records, move.kind, move.body)
            self._told.add(move.id)
            if move.kind == watch_window.WATCH:
                self._watching.tell(move)
                continue
            self._context.reporter.publish(_event(move))
            event = HookEvent.RAMP_STEPPED_BACK if move.body["back"] else HookEvent.RAMP_STEPPED
            self._context.hooks.send(event, move.body, id=move.id)

    # --- for people -------------------------------------------------------------------------------------------------

    def described(self) -> list[dict[str, Any]]:
        """The ramps, as they are now. Does I/O; raises `ControlError`."""
        seen = guard_record.load(self._records)
        due = self._due(seen)
        return [
            ramps.described(each, due[name][1] if name in due else None, time.time())
            for name, each in seen.ramps.items()
        ]

    def watched(self) -> dict[str, int]:
        """The collections whose flip is watched, as last read: 1; 2: a guard is broken and that is only reported; 3: it
        is to be taken back."""
        return self._watching.watched(self._seen_record)

    def windows(self, routing: Routing) -> list[dict[str, Any]]:
        """The watch windows of flips, the newest first, those that are over last. Does I/O; raises `ControlError`."""
        return watch_window.listed(routing, guard_record.load(self._records), time.time())


def _event(move: Move) -> Any:
    body = move.body
    name = Event.RAMP_STEPPED_BACK if body["back"] else Event.RAMP_STEPPED
    if body["share"] == body["share_before"]:
        name = Event.RAMP_ORDERED
    return noted(
        name,
        collection=body["collection"],
        store=body["store"],
        share_before=body["share_before"],
        share=body["share"],
        state=body["state"],
        reason=body["reason"],
        who=body["by"],
    )


def _ramps(row: Member, name: str) -> bool:
    """Whether a process ramps the collection, as far as is known."""
    figures = row.figures.get(name, CollectionHealth()).guards
    return not row.figures or (figures is not None and bool(figures.plan) and not is_watch(figures.plan))


def _shares(route: Route | None, found: Ramp | None, plans: Mapping[StoreName, RampPlan]) -> ReadShares:
    shares = NO_SHARES if route is None else route.reads
    for store in plans:
        shares = _with(shares, store, found.share if found is not None and found.store is store else 0.0)
    return shares


def _with(shares: ReadShares, store: StoreName, share: float) -> ReadShares:
    made = ReadShares(**{**{str(each): shares.of(each) for each in StoreName}, str(store): share})
    return made if made.named() else NO_SHARES
