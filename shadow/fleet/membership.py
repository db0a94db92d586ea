"""This process's record in the control store: it registers before its first write, renews the record, and leaves.

The order at the start ensures that a new process and a flip see each other: the process writes its own record and reads
the routing record afterwards; a flip is written to the routing record, and the members are read afterwards. So one of
them sees the other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, TypeVar

from shadow.control import epochs, members
from shadow.control import flip_record as routing
from shadow.control.flip_record import FlipState, RouteRecord, Routing
from shadow.control.members import Ack, Member, MemberRoute
from shadow.control.raising import Raising, is_on_the_way
from shadow.errors import ControlError
from shadow.fleet.context import ParticipantContext
from shadow.fleet.site import Site
from shadow.host.process import this_process
from shadow.host.steady import steady
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, StoreName
from shadow.model.version import fresh_id

__all__ = ["GONE", "SOON", "Membership", "aborted"]

_QUICK: Final = 0.01
"""Seconds between two reads of the routing record while a flip is under way."""
_RAISED: Final = 0.5
"""Seconds, in addition to a heartbeat, for which a new process waits for dual writes before its first write."""
SOON: Final = 0.05
"""Seconds between two reads while dual writes wait for the other processes."""
GONE: Final = "its coordinator is gone"

T = TypeVar("T")


class Membership:
    """One for each Shadow. Its I/O runs in threads."""

    def __init__(self, context: ParticipantContext, site: Site) -> None:
        self.records = records = context.records
        self._site = site
        self._journal = context.journal
        self._heartbeat = context.heartbeat
        self._limit = context.limit
        self._tool = context.tool
        self._where = context.where
        self._late = late = context.late
        self._raising = Raising(records, late=late)
        self._row: Member | None = None
        self._entering: Member | None = None
        """The record that was sent last, until the process leaves. It may be stored before `_row` is set."""
        self._left: Member | None = None
        """The record that could not be removed when the process left, and may still be stored."""
        self._alone: set[str] = set()
        self._routing = Routing()
        self._flip: asyncio.Task[None] | None = None
        self._seen_flip = ""
        self._last_move = "", 0.0
        """The last state change of a flip that was seen, and when it was seen first."""
        self._figures: Mapping[str, CollectionHealth] = {}
        self._figured = 0.0
        self._reachable = True
        self.seen_members: list[Member] = []
        """All processes, as last read."""
        self.held: dict[str, float] = {}
        """Seconds for which the last flip paused writes here, by collection."""
        self._beats = itertools.count(1)
        self._beaten = -math.inf
        self._listed = -math.inf
        self._written = 0
        # Cancelling a task does not end its thread, which must not restore the record of a process that has left.
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
        """As last read."""
        return self._routing

    @property
    def reachable(self) -> bool:
        """Whether the control store answered when it was last asked."""
        return self._reachable

    async def join(
        self, kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName] = MappingProxyType({})
    ) -> Mapping[str, RouteRecord]:
        """Registers, and returns the routing record of each collection. A process that is registered already adopts
        what has changed. A collection without a record gets one with its primary of `kept`. `chosen`: the primaries
        that the configuration names, which count while nothing depends on another one. Waits for a flip that is
        being decided. Raises `ControlError`."""
        if self._flip is not None and self._flip.get_loop().is_closed():
            self._flip, self._seen_flip = None, ""
        own = this_process()
        if self._entering is not None and self._entering.owner != own:
            # The record belongs to the process that this one was forked from, which still runs; one of its threads may
            # hold the lock forever.
            self._row, self._flip, self._seen_flip, self._mutex = None, None, "", threading.Lock()
            self._entering = None
        if self._left is not None and self._left.owner != own:
            self._left = None
        last = self._entering or self._left
        row = self._entering = Member(
            # One id for concurrent callers, and for a retry after a cancelled call: a record that a living process does
            # not renew would block every verification.
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
        """`again`: the process was registered and has routes in force, by which it writes while it registers again."""
        self.records.prepare()
        # A journal must be on the list before it is written to.
        members.note_journal(self.records, self._journal)
        row = dataclasses.replace(row, wants=tuple(self._site.wants_both()))
        while True:
            row, found = self._put_on_list(row, kept, chosen, again=again)
            row, found = self._raised(row, found)
            standing = self._standing({}) if again else self._begins(row, found)
            row = dataclasses.replace(row, standing=standing, wants=_wants(row.wants, found))
            # If the record was removed meanwhile, register again with what the others have done since.
            if self._renew(row):
                return row, found

    def _put_on_list(
        self, row: Member, kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName], *, again: bool
    ) -> tuple[Member, Routing]:
        while True:
            self._wait_while_holding()
            with self._mutex:
                if self._entering is None or self._entering.id != row.id:
                    raise ControlError("this process left the fleet while it registered", hint="register again")
                self._present = row.id
                row.write(self.records)
            found = self._entered(row, kept, chosen, again=again)
            if found.flip is None or found.flip.state is not FlipState.HOLDING:
                return row, found
            # The flip has asked every process already: register after it.
            self._unregister(row, empty=False)

    def _raised(self, row: Member, seen: Routing) -> tuple[Member, Routing]:
        """Gives the other processes time to see the dual writes that this one wants; other new processes do the
        same. What takes longer continues in `run`."""
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
        # The others write both stores already, while this process still writes one alone.
        gaps = [name for name in row.wants if again and name in routes and not routes[name].dual_write]
        return self._raising.interrupt(gaps) if gaps else found

    def _begins(self, row: Member, seen: Routing) -> dict[str, MemberRoute]:
        """The route of a process that starts now: the primary in force, and dual writes where they are wanted and
        have begun."""
        wants, found = self._site.wants_both(), {}
        for name, each in row.standing.items():
            placed = seen.placed.get(name)
            primary = each.primary if placed is None else placed.primary
            both = placed is not None and placed.both and name in wants and name not in self._alone
            phase = wants[name] if both else each.phase
            found[name] = dataclasses.replace(each, primary=primary, phase=phase)
        return found

    def _is_drained(self, seen: Routing) -> bool:
        """Whether no write of this process omits a version where the record requires one."""
        return self._site.drained([name for name, each in seen.placed.items() if not epochs.bare(each)])

    def _wait_while_holding(self) -> None:
        since = time.monotonic()
        while True:
            seen = routing.load(self.records)
            if seen.flip is None or seen.flip.state is not FlipState.HOLDING:
                return
            if time.monotonic() - since > 2 * self._limit:
                routing.save(self.records, aborted(seen, GONE))
            time.sleep(_QUICK)

    async def leave(self) -> None:
        """Unregisters: the process must join before it may write again. If the journal still holds something, it
        stays on the list of journals. Never raises."""
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
        """Returns when no unanswered write to one store alone can arrive any more: nobody waits for this process
        once its record is removed."""
        end = steady() + self._late
        while not self._site.arrived(names) and steady() < end:  # noqa: ASYNC110 - writes wake nobody
            await asyncio.sleep(SOON)

    def _unregister(self, row: Member, *, empty: bool, left: bool = False) -> None:
        """`left`: does nothing if the process has registered again since, with the same record."""
        with self._mutex:
            if left and self._entering is not None and self._entering.id == row.id:
                return
            self._present = ""
            row.leave(self.records, empty=empty)

    def _renew(self, row: Member) -> bool:
        """Writes the record, unless a newer one was written. False: it was removed."""
        with self._mutex:
            if self._present != row.id or row.beat < self._written:
                return True
            if not row.renew(self.records):
                return False
            self._written = row.beat
            return True

    def _reached(self, answered: bool, error: ControlError | None = None) -> None:
        if answered is not self._reachable:
            self._reachable = answered
            self._site.notify("found" if answered else "lost", said="" if error is None else error.message)

    async def beat(self, ack: Ack | None = None) -> None:
        """Renews the record with the current routes and, if given, the acknowledgement of a flip. Raises
        `ControlError`."""
        row = self._row
        if row is None:
            return
        if ack is not None:
            # At once: a heartbeat under way does not carry it, and must not be the last one.
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

    async def write_alone(self, names: Collection[str]) -> None:
        """Records, in advance, that this process writes one store of these alone: previous verifications are void,
        and there is no way back. Raises `ControlError`."""
        self.stands_alone(names)
        if self._row is None:
            await self.join({})
        # First this, then the epoch: see `epochs.proof_of`.
        await self.beat()
        await self.interrupt(names)

    def stands_alone(self, names: Collection[str]) -> None:
        """The next heartbeat reports that this process writes one store of these alone."""
        self._alone.update(names)

    async def interrupt(self, names: Collection[str]) -> None:
        """Voids previous verifications of these. Raises `ControlError`."""
        self._routing = await self._ask(lambda: self._raising.interrupt(names))
        self._site.notify("gap", collections=list(names))

    def writes_both_again(self, names: Collection[str]) -> None:
        """Revokes `write_alone`; the next heartbeat reports it."""
        self._alone.difference_update(names)

    def _standing(self, kept: Mapping[str, StoreName], *, alone: bool = False) -> dict[str, MemberRoute]:
        """The routes in force, with the primaries of `kept`. `alone`: nothing is written to both stores yet. A
        process that writes both again is reported as one that does not while an earlier write to one store may still
        arrive: nothing can be verified until then."""
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

    async def _ask(self, question: Callable[[], T]) -> T:
        return await asyncio.to_thread(question)


def _placing(seen: Routing, kept: Mapping[str, StoreName]) -> Routing | None:
    new = {name: RouteRecord(primary, since=time.time()) for name, primary in kept.items() if name not in seen.placed}
    return seen.with_placed(new) if new else None


def _wants(names: Collection[str], seen: Routing) -> tuple[str, ...]:
    """Without those whose migration is complete."""
    return tuple(name for name in names if name not in seen.placed or not seen.placed[name].completed)


def aborted(seen: Routing, said: str) -> Routing:
    assert seen.flip is not None
    return seen.with_flip(seen.flip.moved(FlipState.ABORTED, said))
