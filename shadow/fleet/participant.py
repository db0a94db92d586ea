"""This process's part in the fleet: it registers before its first write, shows that it lives, and takes part in flips.

The order at the beginning is what keeps a new process and a flip from missing each other: the process writes its own
record, and reads the routing record afterwards; the flip is written to the routing record, and the members are read
afterwards. One of them sees the other.

A process that cannot reach the control store goes on as it was: flips wait for its word, its operations wait for
nobody. What it may do without the others' knowledge, the driver's own calls, it may do for a heartbeat after its last
look at the routing record and no longer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from shadow.control import epochs, members
from shadow.control import flip_record as routing
from shadow.control.flip_record import Flip, FlipKind, FlipState, RouteRecord, Routing
from shadow.control.members import Ack, Member, MemberRoute
from shadow.control.raising import Raising, is_on_the_way
from shadow.control.records import Records
from shadow.errors import ControlError, NotCaughtUp, ShadowClosed
from shadow.host.process import this_process
from shadow.host.steady import steady
from shadow.host.tasks import begin
from shadow.model.background import Background
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.version import fresh_id

__all__ = ["FAILED", "LEVEL", "READY", "REFUSED", "REHEARSED", "SWITCHED", "Participant", "Site"]

READY: Final = "ready"
REFUSED: Final = "refused"
LEVEL: Final = "level"
FAILED: Final = "failed"
SWITCHED: Final = "switched"
REHEARSED: Final = "a rehearsal"
"""Why a rehearsal that went well is aborted."""

_QUICK: Final = 0.01
"""Seconds between two looks while a flip is under way."""
_WATCH: Final = 0.2
"""Seconds for which one call looks: a thread cannot be cancelled, and a process that ends waits for it."""
_ABANDONED: Final = 6
"""Times the limit after which a flip that nobody moves is ended by a process that does not hold its writes for it."""
_GONE: Final = "its coordinator is gone"
_RELEASE: Final = 1.0
"""Seconds after which a process that has changed over lets its writes go on, whatever the others do: those that have
not changed over yet hold theirs."""
_FIGURES_EVERY: Final = 3.0
_RAISED: Final = 0.5
"""Seconds beside a heartbeat for which a process that begins waits for dual writes before its first write."""
_SOON: Final = 0.05
"""Seconds between two looks while dual writes wait for the other processes."""
_LISTED: Final = 2.0
"""Heartbeats after a sign of life in which a look at the routing record is enough to go on writing."""
_FIGURING: Final = 10.0
"""Seconds after which what the gates are judged by counts as not to be had."""

T = TypeVar("T")


class Site(Protocol):
    """What a participant does in its own process."""

    def routes(self) -> Mapping[str, Route]:
        """Those of the configured collections."""

    def wanted(self) -> Mapping[str, StoreName]:
        """The primary that the configuration asks for, by collection."""

    def wants_both(self) -> Mapping[str, Phase]:
        """The collections that the configuration wants to be written to both stores, with their phase."""

    def noted(self, seen: Routing, until: float) -> None:
        """What the routing record says, which may be relied on until a moment of `steady`. Waits for nothing."""

    def drained(self, collections: Iterable[str]) -> bool:
        """Whether no write that moves no version is under way, or may still arrive, in these."""

    def arrived(self, collections: Iterable[str]) -> bool:
        """Whether no write to one store of these alone that has ended without an answer may still arrive either."""

    async def write_both(self, collections: list[str]) -> None:
        """Begins dual writes of these, between two writes."""

    def holding(self, collections: list[str]) -> AbstractAsyncContextManager[None]:
        """Entered when the writes of these are held and the secondary is level. Raises `NotCaughtUp`."""

    async def switch(self, placed: Mapping[str, RouteRecord]) -> None:
        """Puts primaries in force; the writes are held, or none was taken yet."""

    async def vouch(self, collections: Collection[str], *, whole: bool = True) -> str:
        """Why journal and stores of these are not those that the control store knows; "" if they are. `whole`: each
        has to say so; otherwise one that does not answer, as a store that was switched off, is none that says no."""

    async def figures(self) -> Mapping[str, CollectionHealth]:
        """What the gates are judged by."""

    async def is_empty(self) -> bool:
        """Whether the journal holds nothing."""

    def failed(self, task: Background, error: BaseException | None) -> None:
        """A part of the work has failed, and goes on; None: it works."""

    def heard(self, what: str, **about: Any) -> None:
        """An event: "lost" and "found" (the control store; `said`), "flip" (`state`: done, aborted, rehearsed; `said`,
        `collections`), "gap" (dual writes of `collections` were interrupted)."""


class Participant:
    """One for each Shadow; does I/O in threads. `journal` names the journal that the process writes."""

    def __init__(
        self,
        records: Records,
        site: Site,
        *,
        journal: str,
        heartbeat: float,
        limit: float,
        tool: bool,
        late: float = 60.0,
        where: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`limit`: seconds for which writes may be held before this process aborts a flip that is not decided; `late`:
        seconds after which a request that a process has sent cannot arrive any more; `where`: see `Member`."""
        self.records = records
        self._site = site
        self._journal = journal
        self._heartbeat = heartbeat
        self._limit = limit
        self._tool = tool
        self._where = where
        self._late = late
        self._raising = Raising(records, late=late)
        self._row: Member | None = None
        self._entering: Member | None = None
        """The record as it was last asked for, until the process leaves: it may be there before `_row` says so."""
        self._left: Member | None = None
        """The record that could not be taken off the list as the process left, and may stand there still."""
        self._alone: set[str] = set()
        self._routing = Routing()
        self._flip: asyncio.Task[None] | None = None
        self._seen_flip = ""
        self._last_move = "", 0.0
        """The last move of a flip that was seen, and when it was seen first."""
        self._figures: Mapping[str, CollectionHealth] = {}
        self._figured = 0.0
        self._reachable = True
        self.seen_members: list[Member] = []
        """All processes, as last seen."""
        self.held: dict[str, float] = {}
        """Seconds for which the last flip held writes here, by collection."""
        self._beats = itertools.count(1)
        self._beaten = -math.inf
        self._listed = -math.inf
        self._written = 0
        # Cancelling a task does not end its thread, which must not bring back the record of a process that has left.
        self._mutex = threading.Lock()
        self._present = ""

    @property
    def joined(self) -> bool:
        return self._row is not None

    @property
    def id(self) -> str:
        return self._row.id if self._row is not None else ""

    @property
    def routing(self) -> Routing:
        """As it was last seen."""
        return self._routing

    @property
    def reachable(self) -> bool:
        """Whether the control store answered when it was last asked."""
        return self._reachable

    # --- the beginning and the end ------------------------------------------------------------------------------

    async def join(
        self, kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName] = MappingProxyType({})
    ) -> Mapping[str, RouteRecord]:
        """Registers, and answers where the fleet stands; a process that is registered comes after whatever has changed.
        A collection that nobody has placed yet is placed at its primary of `kept`. `chosen`: the primaries that the
        configuration names, which count as long as nothing rests on another. Waits for a flip that is being decided.
        Raises `ControlError`."""
        if self._flip is not None and self._flip.get_loop().is_closed():
            self._flip, self._seen_flip = None, ""
        own = this_process()
        if self._entering is not None and self._entering.owner != own:
            # The record is that of the process that this one was forked from, which goes on by itself; a thread of it
            # may hold the lock for ever.
            self._row, self._flip, self._seen_flip, self._mutex = None, None, "", threading.Lock()
            self._entering = None
        if self._left is not None and self._left.owner != own:
            self._left = None
        last = self._entering or self._left
        row = self._entering = Member(
            # One id for all who ask at once, and for whoever asks again after one who did not wait for the answer:
            # a record that nobody renews, of a process that lives, would stand in the way of every proof.
            self.id or (fresh_id() if last is None else last.id),
            own,
            self._journal,
            beat=next(self._beats),
            tool=self._tool,
            standing=self._standing(kept, alone=True),
            lease=self._heartbeat,
            where=self._where,
        )
        asked = steady()
        again = self._row is not None
        row, self._routing = await self._ask(lambda: self._register(row, kept, chosen, again=again))
        self._row, self._listed = row, asked
        self._site.noted(self._routing, asked + self._heartbeat)
        return self._routing.placed

    def _register(
        self, row: Member, kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName], *, again: bool
    ) -> tuple[Member, Routing]:
        """`again`: the process was on the list and has routes in force, by which it writes while it enters."""
        self.records.prepare()
        # A journal counts from before it is written to.
        members.note_journal(self.records, self._journal)
        row = dataclasses.replace(row, wants=tuple(self._site.wants_both()))
        while True:
            row, found = self._put_on_list(row, kept, chosen, again=again)
            row, found = self._raised(row, found)
            standing = self._standing({}) if again else self._begins(row, found)
            row = dataclasses.replace(row, standing=standing, wants=_wants(row.wants, found))
            # One that was taken off the list on the way begins again, with what the others have done since.
            if self._renew(row):
                return row, found

    def _put_on_list(
        self, row: Member, kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName], *, again: bool
    ) -> tuple[Member, Routing]:
        while True:
            self._wait_while_holding()
            with self._mutex:
                if self._entering is None or self._entering.id != row.id:
                    raise ControlError("this process has left the fleet while it entered", hint="enter again")
                self._present = row.id
                row.write(self.records)
            found = self._entered(row, kept, chosen, again=again)
            if found.flip is None or found.flip.state is not FlipState.HOLDING:
                return row, found
            # It has asked everybody already: this process comes after it.
            self._unregister(row, empty=False)

    def _raised(self, row: Member, seen: Routing) -> tuple[Member, Routing]:
        """Gives the other processes the time to take note of the dual writes that this one wants; those that begin as
        well do the same. It goes on in `run` where that takes longer."""
        end = steady() + _RAISED + self._heartbeat
        while not self._tool:
            if row.fence < seen.fence and self._is_drained(seen):
                row = dataclasses.replace(row, fence=seen.fence)
                self._renew(row)
            seen = self._raising.advance(seen, row.wants)
            if steady() > end or not any(is_on_the_way(seen.placed.get(name)) for name in row.wants):
                break
            if row.fence == seen.fence:
                time.sleep(_QUICK)
                seen = self._raising.want(row.wants)
        return row, seen

    def _entered(
        self, row: Member, kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName], *, again: bool
    ) -> Routing:
        if self._tool:
            return routing.change(self.records, lambda seen: _placing(seen, kept))
        found, routes = self._raising.enter(row.id, row.wants, kept, chosen), self._site.routes()
        # The others write both, and did so before this one was there again, which still writes one store alone.
        gaps = [name for name in row.wants if again and name in routes and not routes[name].dual_write]
        return self._raising.interrupt(gaps) if gaps else found

    def _begins(self, row: Member, seen: Routing) -> dict[str, MemberRoute]:
        """How a process stands that begins now: the primary in force, and dual writes where they are wanted and have
        begun."""
        wants, found = self._site.wants_both(), {}
        for name, each in row.standing.items():
            placed = seen.placed.get(name)
            primary = each.primary if placed is None else placed.primary
            both = placed is not None and placed.both and name in wants and name not in self._alone
            phase = wants[name] if both else each.phase
            found[name] = dataclasses.replace(each, primary=primary, phase=phase)
        return found

    def _is_drained(self, seen: Routing) -> bool:
        """Whether nothing of this process moves no version that has to, as far as the record says."""
        return self._site.drained([name for name, each in seen.placed.items() if not epochs.bare(each)])

    def _wait_while_holding(self) -> None:
        since = time.monotonic()
        while True:
            seen = routing.load(self.records)
            if seen.flip is None or seen.flip.state is not FlipState.HOLDING:
                return
            if time.monotonic() - since > 2 * self._limit:
                routing.save(self.records, _aborted(seen, _GONE))
            time.sleep(_QUICK)

    async def settled(self) -> None:
        """Returns when no flip has paused the writes of this process: they must not go on before it is decided."""
        if self._flip is not None and self._flip.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._flip], timeout=8 * self._limit)

    async def leave(self) -> None:
        """Unregisters: from here on, this process has to join before it may write. What the journal still holds keeps
        it on the list of journals. Never raises."""
        if self._flip is not None and self._flip.get_loop() is asyncio.get_running_loop():
            self._flip.cancel()
            await asyncio.gather(self._flip, return_exceptions=True)
        if self._row is not None and not self._tool:
            await self._arrived(list(self._site.routes()))
        row, self._row, self._flip, self._seen_flip = self._row or self._entering, None, None, ""
        self._entering = None
        if row is None or row.owner != this_process():
            return
        self._left = row
        with suppress(ControlError):
            empty = await self._site.is_empty()
            await self._ask(lambda: self._unregister(row, empty=empty, left=True))
            self._left = None

    async def _arrived(self, names: Collection[str]) -> None:
        """Returns when nothing that was written to one store alone, and had no answer, can arrive any more: once this
        process is off the list, nobody waits for it."""
        end = steady() + self._late
        while not self._site.arrived(names) and steady() < end:  # noqa: ASYNC110 - writes wake nobody
            await asyncio.sleep(_SOON)

    def _unregister(self, row: Member, *, empty: bool, left: bool = False) -> None:
        """`left`: unless the process has entered again since, by the same record."""
        with self._mutex:
            if left and self._entering is not None and self._entering.id == row.id:
                return
            self._present = ""
            row.leave(self.records, empty=empty)

    def _renew(self, row: Member) -> bool:
        """Writes the record, unless a newer one was written. False: somebody has taken it."""
        with self._mutex:
            if self._present != row.id or row.beat < self._written:
                return True
            if not row.renew(self.records):
                return False
            self._written = row.beat
            return True

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Renews the record and follows the routing record until cancelled. Looks twice in a heartbeat, so that the
        lease does not run out in between. `turn` is called at each round."""
        while True:
            turn()
            if self._row is not None:
                try:
                    await self._turn()
                    self._reached(True)
                except ControlError as error:
                    self._reached(False, error)
            on_the_way = any(is_on_the_way(self._routing.placed.get(name)) for name in self._site.wants_both())
            await asyncio.sleep(min(_SOON, self._heartbeat / 2) if on_the_way else self._heartbeat / 2)

    def _reached(self, answered: bool, error: ControlError | None = None) -> None:
        if answered is not self._reachable:
            self._reachable = answered
            self._site.heard("found" if answered else "lost", said="" if error is None else error.message)

    async def _turn(self) -> None:
        flipping = self._flip is not None and not self._flip.done()
        if not flipping and time.monotonic() - self._figured > max(_FIGURES_EVERY, self._heartbeat):
            await self._figure()
            self._figured = time.monotonic()
            self.seen_members = await self._ask(self._members)
        await self.look()
        await self._follow()
        if steady() - self._beaten >= 0.9 * self._heartbeat:
            await self.beat()

    def _members(self) -> list[Member]:
        """All processes; the records of those that are long dead go. Here, since it may take long to tell."""
        found = members.members(self.records)
        if any(row.alone and row.owner.known_dead() for row in found):
            self._raising.bury()
        return found

    async def _figure(self) -> None:
        """What cannot be computed takes no sign of life with it, and says nothing: gates that need it are closed."""
        try:
            async with asyncio.timeout(_FIGURING):
                self._figures = await self._site.figures()
        except ShadowClosed:
            raise
        except Exception as error:
            self._figures = {}
            self._site.failed(Background.FIGURES, error)
        else:
            self._site.failed(Background.FIGURES, None)

    async def beat(self, ack: Ack | None = None) -> None:
        """Shows that the process lives and how it stands, with its word on a flip. Raises `ControlError`."""
        row = self._row
        if row is None:
            return
        if ack is not None:
            # At once: a sign of life that is under way says nothing of it, and must not be the last.
            self._row = row = dataclasses.replace(row, ack=ack)
        row = dataclasses.replace(
            row,
            beat=next(self._beats),
            standing=self._standing({}),
            wants=_wants(self._site.wants_both(), self._routing),
            figures=self._figures,
        )
        self._beaten = asked = steady()
        there = await self._ask(lambda: self._renew(row))
        if self._row is not None and self._row.id == row.id:
            self._row = dataclasses.replace(row, ack=self._row.ack, fence=self._row.fence)
            if there:
                self._listed = asked
            else:
                await self.join({})

    async def renew(self) -> None:
        """Looks at the routing record and follows it, before a write after a pause. A process that was taken off the
        list meanwhile, so that others may have proven something, enters again first. Raises `ControlError`."""
        row = self._row
        if row is None:
            return
        if not self._reachable:
            raise ControlError("the control store did not answer when it was last asked")
        try:
            asked = steady()
            if await self._ask(lambda: members.is_member(self.records, row.id)):
                self._listed = asked
            else:
                await self.join({})
            await self.look()
        except ControlError as error:
            self._reached(False, error)
            raise

    def _is_listed(self, now: float) -> bool:
        """Whether this process was on the list of processes a moment ago: a sign of life finds out."""
        return now - self._listed < _LISTED * self._heartbeat

    async def _follow(self) -> None:
        """Takes note of what the others want, and gets on with what this process wants."""
        if self._tool or self._row is None:
            return
        seen, own = self._routing, self._row
        if own.fence < seen.fence and self._is_drained(seen):
            self._row = dataclasses.replace(own, fence=seen.fence)
            await self.beat()
        wants = self._site.wants_both()
        if any(is_on_the_way(seen.placed.get(name)) for name in wants):
            self._routing = seen = await self._ask(lambda: self._raising.want(wants))
        routes = self._site.routes()
        ready = [
            name
            for name in wants
            if name in routes and not routes[name].dual_write and (each := seen.placed.get(name)) and each.both
        ]
        if ready:
            await self._site.write_both(ready)
            self._alone.difference_update(ready)
            await self.beat()
        names = self._raising.lowers(seen, [name for name in routes if name not in wants], self.seen_members)
        if names:
            self._routing = await self._ask(lambda: self._raising.lower(names))

    async def want_both(self, names: Collection[str], patience: float) -> bool:
        """Asks for dual writes of these, and waits until this process may write both. False: some process has not taken
        note of it within `patience` seconds; it goes on in `run`. Raises `ControlError`."""
        end = steady() + patience
        while True:
            await self.look()
            await self._follow()
            routes = self._site.routes()
            if all(routes[name].dual_write for name in names if name in routes):
                return True
            if steady() > end:
                return False
            await asyncio.sleep(min(_SOON, self._heartbeat / 2))

    async def write_alone(self, names: Collection[str]) -> None:
        """Says, before it is so, that this process writes one store of these alone: what was proven says nothing any
        more, and there is nothing to go back to. Raises `ControlError`."""
        self.stands_alone(names)
        if self._row is None:
            await self.join({})
        # First this, then the epoch: see `epochs.proof_of`.
        await self.beat()
        await self.interrupt(names)

    def stands_alone(self, names: Collection[str]) -> None:
        """The next sign of life says that this process writes one store of these alone."""
        self._alone.update(names)

    async def interrupt(self, names: Collection[str]) -> None:
        """What was proven of these says nothing any more. Raises `ControlError`."""
        self._routing = await self._ask(lambda: self._raising.interrupt(names))
        self._site.heard("gap", collections=list(names))

    def writes_both_again(self, names: Collection[str]) -> None:
        """Takes back `write_alone`; the next sign of life says so."""
        self._alone.difference_update(names)

    def _standing(self, kept: Mapping[str, StoreName], *, alone: bool = False) -> dict[str, MemberRoute]:
        """As the routes are, but for the primaries of `kept`; `alone`: nothing is written to both stores yet. A process
        that writes both again stands as one that does not, as long as what it wrote to one before may still arrive:
        nothing is proven until then."""
        wanted = self._site.wanted()

        def is_alone(name: str) -> bool:
            return (alone and not self._tool) or name in self._alone or not self._site.arrived([name])

        return {
            name: MemberRoute(
                kept.get(name, each.primary),
                Phase.OFF if is_alone(name) else each.phase,
                wanted.get(name, each.primary),
            )
            for name, each in self._site.routes().items()
        }

    async def look(self) -> Routing:
        """Reads the routing record and follows it. Raises `ControlError`."""
        asked = steady()
        seen = await self._ask(lambda: routing.load(self.records))
        if self._row is None:
            return seen
        self._routing = seen
        # Nothing may wait between this and `_adopt`, which holds the writes of what has moved.
        self._site.noted(seen, asked + self._heartbeat if self._is_listed(asked) else -math.inf)
        flip = seen.flip
        if flip is not None and not flip.state.over and flip.id != self._seen_flip:
            self._seen_flip = flip.id
            self._flip = begin(self._take_part(flip), name="shadow-flip", failed=self._failed)
        if self._flip is None or self._flip.done():
            await self._adopt(seen)
            await self._end_abandoned(seen)
        return seen

    async def _end_abandoned(self, seen: Routing) -> None:
        """Ends a flip that nobody moves any more, where this process's own part in it is over or came to nothing: its
        coordinator may be gone, and what the files ask for waits until it has ended."""
        flip = seen.flip
        if flip is None or flip.state.over:
            return
        move, now = f"{flip.id} {flip.state}", time.monotonic()
        if self._last_move[0] != move:
            self._last_move = move, now
        elif now - self._last_move[1] > _ABANDONED * self._limit + 3 * self._heartbeat:
            ended = _aborted(seen, _GONE) if flip.state.undecided else _released(seen, flip)
            await self._ask(lambda: routing.save(self.records, ended))

    async def _adopt(self, seen: Routing) -> None:
        """The fleet has changed over without this process, which somebody has forgotten: it comes after."""
        routes = self._site.routes()
        moved = {name: each for name, each in seen.placed.items() if name in routes and not _stands(routes[name], each)}
        if moved and (seen.flip is None or not seen.flip.state.undecided):
            try:
                async with self._site.holding(list(moved)):
                    await self._site.switch(moved)
            except NotCaughtUp:
                await self._site.switch(moved)

    # --- a flip -------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        """What `_take_part` could not even say, since the control store's client, or this process, is at its end."""
        with suppress(Exception):
            self._site.failed(Background.FLIP, error)

    async def _take_part(self, flip: Flip) -> None:
        try:
            whole = flip.kind is not FlipKind.COMPLETE
            why_not = self._objection(flip) or await self._site.vouch(list(flip.to), whole=whole)
            await self.beat(Ack(flip.id, REFUSED if why_not else READY, why_not))
            seen = await self._until(flip.id, lambda state: state is not FlipState.ANNOUNCED)
            if seen.flip is not None and seen.flip.id == flip.id and seen.flip.state is FlipState.HOLDING:
                await self._hold(flip)
        except ControlError as error:
            # Nothing is held here, or no more: a flip that misses this process's word is aborted.
            self._reached(False, error)
        except Exception as error:
            self._site.failed(Background.FLIP, error)
            with suppress(ControlError):
                await self.beat(Ack(flip.id, FAILED, type(error).__name__))
        else:
            self._site.failed(Background.FLIP, None)

    def _objection(self, flip: Flip) -> str:
        routes = self._site.routes()
        for name, to in flip.to.items():
            route = routes.get(name)
            if route is None:
                return f"{name} is not in its configuration"
            before = to.other if flip.kind in (FlipKind.FLIP, FlipKind.REHEARSAL) else to
            if route.primary is not before:
                return f"{name}: its primary is {route.primary}"
            if not route.dual_write and flip.kind is not FlipKind.REOPEN:
                return f"{name}: it is in phase {route.phase}"
        return ""

    async def _hold(self, flip: Flip) -> None:
        names, since = list(flip.to), time.monotonic()
        try:
            async with self._site.holding(names):
                await self._patiently(self.beat(Ack(flip.id, LEVEL, held=time.monotonic() - since)))
                seen = await self._decided(flip.id)
                now = seen.flip
                committed = now is None or now.id != flip.id or now.state is not FlipState.ABORTED
                if committed:
                    await self._site.switch({name: seen.placed[name] for name in names if name in seen.placed})
                    await self._released(flip.id, since)
                self.held.update(dict.fromkeys(names, time.monotonic() - since))
                said = "" if now is None else now.said
                aborted = "rehearsed" if said == REHEARSED else "aborted"
                self._site.heard("flip", state="done" if committed else aborted, said=said, collections=names)
        except NotCaughtUp as error:
            await self.beat(Ack(flip.id, FAILED, str(error), time.monotonic() - since))
            self._site.heard("flip", state="aborted", said=str(error), collections=names)

    async def _decided(self, id: str) -> Routing:
        """Waits for the decision while the writes are held. Aborts a flip that is not decided in time; while the
        control store does not answer nobody can know, and the writes stay held."""
        since = time.monotonic()
        while True:
            with suppress(ControlError):
                seen = await self._watched(id, lambda state: not state.undecided)
                if seen.flip is None or seen.flip.id != id or not seen.flip.state.undecided:
                    self._routing = seen
                    return seen
                if time.monotonic() - since > self._limit:
                    await self._abort(seen, f"{self._name()} has waited for {self._limit:g} s")
            await asyncio.sleep(_QUICK)

    async def _released(self, id: str, since: float) -> None:
        with suppress(ControlError):
            await self.beat(Ack(id, SWITCHED, held=time.monotonic() - since))
            with suppress(TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await self._until(id, lambda state: state is not FlipState.COMMITTED)

    async def _until(self, id: str, condition: Callable[[FlipState], bool]) -> Routing:
        """Looks quickly until the flip is over or its state is as wanted. One that does not move is aborted."""
        since = time.monotonic()
        while True:
            seen = await self._watched(id, condition)
            self._routing = seen
            if seen.flip is None or seen.flip.id != id or condition(seen.flip.state):
                return seen
            if seen.flip.state.undecided and time.monotonic() - since > _ABANDONED * self._limit:
                await self._abort(seen, _GONE)
            await asyncio.sleep(_QUICK)

    async def _watched(self, id: str, condition: Callable[[FlipState], bool]) -> Routing:
        """The routing record as soon as the flip is over or its state as wanted, or as it is after a while. Looks from
        one thread: each look from the event loop would wait for its turn there, behind the application's work."""

        def watch() -> Routing:
            end = time.monotonic() + min(_WATCH, self._limit)
            while True:
                seen = routing.load(self.records)
                over = seen.flip is None or seen.flip.id != id or condition(seen.flip.state)
                if over or time.monotonic() > end:
                    return seen
                time.sleep(_QUICK)

        # Not one of those that the event loop lends: they are few, and the application's as well.
        thread = ThreadPoolExecutor(1, thread_name_prefix="shadow-flip")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, watch)
        finally:
            thread.shutdown(wait=False)

    async def _abort(self, seen: Routing, said: str) -> None:
        """If nobody has decided otherwise meanwhile."""
        if seen.flip is not None and seen.flip.state.undecided:
            await self._ask(lambda: routing.save(self.records, _aborted(seen, said)))

    async def _patiently(self, work: Any) -> None:
        """What cannot be said now is missed by whoever decides, who then aborts."""
        with suppress(ControlError):
            await work

    def _name(self) -> str:
        return self._row.name if self._row is not None else "a process"

    async def _ask(self, question: Callable[[], T]) -> T:
        return await asyncio.to_thread(question)


def _released(seen: Routing, flip: Flip) -> Routing:
    return seen.with_flip(flip.moved(FlipState.RELEASED))


def _aborted(seen: Routing, said: str) -> Routing:
    assert seen.flip is not None
    return seen.with_flip(seen.flip.moved(FlipState.ABORTED, said))


def _placing(seen: Routing, kept: Mapping[str, StoreName]) -> Routing | None:
    new = {name: RouteRecord(primary, since=time.time()) for name, primary in kept.items() if name not in seen.placed}
    return seen.with_placed(new) if new else None


def _stands(route: Route, placed: RouteRecord) -> bool:
    """Whether the route is as the record says. A store that is written alone is the configuration's own word."""
    return route.primary is placed.primary and not (placed.completed and route.dual_write)


def _wants(names: Collection[str], seen: Routing) -> tuple[str, ...]:
    """Without those whose migration is complete."""
    return tuple(name for name in names if name not in seen.placed or not seen.placed[name].completed)
