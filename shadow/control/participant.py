"""This process's part in the fleet: it registers before its first write, shows that it lives, and takes part in flips.

The order at the beginning is what keeps a new process and a flip from missing each other: the process writes its own
record, and reads the routing record afterwards; the flip is written to the routing record, and the members are read
afterwards. One of them sees the other.

A process that cannot reach the control store goes on as it was: flips wait for its word, its operations wait for
nobody.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Protocol, TypeVar

from shadow.control import members, routing
from shadow.control.members import Ack, Member, Standing
from shadow.control.records import Records
from shadow.control.routing import Flip, FlipKind, FlipState, Placed, Routing
from shadow.errors import ControlError
from shadow.model.background import Background
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.version import fresh_id
from shadow.replicate.process import this_process

__all__ = ["FAILED", "LEVEL", "READY", "REFUSED", "REHEARSED", "SWITCHED", "NotLevel", "Participant", "Site"]

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
_RELEASE: Final = 1.0
"""Seconds after which a process that has changed over lets its writes go on, whatever the others do: those that have
not changed over yet hold theirs."""
_FIGURES_EVERY: Final = 3.0
_FIGURING: Final = 10.0
"""Seconds after which what the gates are judged by counts as not to be had."""

T = TypeVar("T")


class NotLevel(Exception):
    """The writes could not be held, or the secondary not be brought level; the text says why."""


class Site(Protocol):
    """What a participant does in its own process."""

    def routes(self) -> Mapping[str, Route]:
        """Those of the configured collections."""

    def wanted(self) -> Mapping[str, StoreName]:
        """The primary that the configuration asks for, by collection."""

    def holding(self, collections: list[str]) -> AbstractAsyncContextManager[None]:
        """Entered when the writes of these are held and the secondary is level. Raises `NotLevel`."""

    async def switch(self, placed: Mapping[str, Placed]) -> None:
        """Puts primaries in force; the writes are held, or none was taken yet."""

    async def figures(self) -> Mapping[str, Any]:
        """What the gates are judged by."""

    async def is_empty(self) -> bool:
        """Whether the journal holds nothing."""

    def failed(self, task: Background, error: BaseException | None) -> None:
        """A part of the work has failed, and goes on; None: it works."""

    def heard(self, what: str, **about: Any) -> None:
        """An event: "lost" and "found" (the control store; `said`), "flip" (`state`: done, aborted, rehearsed; `said`,
        `collections`)."""


class Participant:
    """One for each Shadow; does I/O in threads. `journal` names the journal that the process writes."""

    def __init__(
        self, records: Records, site: Site, *, journal: str, heartbeat: float, limit: float, tool: bool
    ) -> None:
        """`limit`: seconds for which writes may be held before this process aborts a flip that is not decided."""
        self.records = records
        self._site = site
        self._journal = journal
        self._heartbeat = heartbeat
        self._limit = limit
        self._tool = tool
        self._row: Member | None = None
        self._routing = Routing()
        self._flip: asyncio.Task[None] | None = None
        self._seen_flip = ""
        self._figures: Mapping[str, Any] = {}
        self._figured = 0.0
        self._reachable = True
        self.seen_members: list[Member] = []
        """All processes, as last seen."""
        self.held: dict[str, float] = {}
        """Seconds for which the last flip held writes here, by collection."""
        self._writing = asyncio.Lock()
        self._woken = asyncio.Event()
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

    async def join(self, kept: Mapping[str, StoreName]) -> Mapping[str, Placed]:
        """Registers, and answers where the fleet stands. A collection that nobody has placed yet is placed at its
        primary of `kept`. Waits for a flip that is being decided. Raises `ControlError`."""
        if self._row is None:
            standing = self._standing(kept)
            row = Member(fresh_id(), this_process(), self._journal, tool=self._tool, standing=standing)
            self._routing = await self._ask(lambda: self._register(row, kept))
            self._row = row
            self._woken.set()
        return self._routing.placed

    def _register(self, row: Member, kept: Mapping[str, StoreName]) -> Routing:
        self.records.prepare()
        # A journal counts from before it is written to.
        members.note_journal(self.records, self._journal)
        while True:
            self._wait_while_holding()
            with self._mutex:
                self._present = row.id
                row.write(self.records)
            found = routing.change(self.records, lambda seen: _placing(seen, kept))
            if found.flip is None or found.flip.state is not FlipState.HOLDING:
                return found
            # It has asked everybody already: this process comes after it.
            self._unregister(row, empty=False)

    def _wait_while_holding(self) -> None:
        since = time.monotonic()
        while True:
            seen = routing.load(self.records)
            if seen.flip is None or seen.flip.state is not FlipState.HOLDING:
                return
            if time.monotonic() - since > 2 * self._limit:
                routing.save(self.records, _aborted(seen, "its coordinator is gone"))
            time.sleep(_QUICK)

    async def settled(self) -> None:
        """Returns when no flip holds the writes of this process: they must not go on before it is decided."""
        if self._flip is not None:
            await asyncio.wait([self._flip], timeout=8 * self._limit)

    async def leave(self) -> None:
        """Unregisters. What the journal still holds keeps it on the list of journals. Never raises."""
        if self._flip is not None:
            self._flip.cancel()
            await asyncio.gather(self._flip, return_exceptions=True)
        row, self._row, self._flip, self._seen_flip = self._row, None, None, ""
        if row is None:
            return
        with suppress(ControlError):
            empty = await self._site.is_empty()
            await self._ask(lambda: self._unregister(row, empty=empty))

    def _unregister(self, row: Member, *, empty: bool) -> None:
        with self._mutex:
            self._present = ""
            row.leave(self.records, empty=empty)

    def _renew(self, row: Member) -> None:
        with self._mutex:
            if self._present == row.id:
                row.write(self.records)

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Renews the record and follows the routing record until cancelled. `turn` is called at each round."""
        # Those of before may belong to an event loop that has ended.
        self._writing, self._woken = asyncio.Lock(), asyncio.Event()
        while True:
            turn()
            if self._row is not None:
                try:
                    await self._turn()
                    self._reached(True)
                except ControlError as error:
                    self._reached(False, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._heartbeat)
            self._woken.clear()

    def _reached(self, answered: bool, error: ControlError | None = None) -> None:
        if answered is not self._reachable:
            self._reachable = answered
            self._site.heard("found" if answered else "lost", said="" if error is None else error.message)

    async def _turn(self) -> None:
        flipping = self._flip is not None and not self._flip.done()
        if not flipping and time.monotonic() - self._figured > max(_FIGURES_EVERY, self._heartbeat):
            await self._figure()
            self._figured = time.monotonic()
            self.seen_members = await self._ask(lambda: members.members(self.records))
        await self.beat()
        await self.look()

    async def _figure(self) -> None:
        """What cannot be computed takes no sign of life with it, and says nothing: gates that need it are closed."""
        try:
            async with asyncio.timeout(_FIGURING):
                self._figures = await self._site.figures()
        except Exception as error:
            self._figures = {}
            self._site.failed(Background.FIGURES, error)
        else:
            self._site.failed(Background.FIGURES, None)

    async def beat(self, ack: Ack | None = None) -> None:
        """Shows that the process lives and how it stands, with its word on a flip. Raises `ControlError`."""
        async with self._writing:
            row = self._row
            if row is None:
                return
            row = dataclasses.replace(
                row, beat=row.beat + 1, standing=self._standing({}), ack=ack or row.ack, figures=self._figures
            )
            await self._ask(lambda: self._renew(row))
            if self._row is not None:
                self._row = row

    def _standing(self, kept: Mapping[str, StoreName]) -> dict[str, Standing]:
        """As the routes are, but for the primaries of `kept`."""
        wanted = self._site.wanted()
        return {
            name: Standing(kept.get(name, each.primary), each.phase, wanted.get(name, each.primary))
            for name, each in self._site.routes().items()
        }

    async def look(self) -> Routing:
        """Reads the routing record and follows it. Raises `ControlError`."""
        seen = await self._ask(lambda: routing.load(self.records))
        if self._row is None:
            return seen
        self._routing = seen
        flip = seen.flip
        if flip is not None and not flip.state.over and flip.id != self._seen_flip:
            self._seen_flip = flip.id
            self._flip = asyncio.create_task(self._take_part(flip), name="shadow-flip")
        if self._flip is None or self._flip.done():
            await self._adopt(seen)
        return seen

    async def _adopt(self, seen: Routing) -> None:
        """The fleet has changed over without this process, which somebody has forgotten: it comes after."""
        routes = self._site.routes()
        moved = {name: each for name, each in seen.placed.items() if name in routes and not _stands(routes[name], each)}
        if moved and (seen.flip is None or not seen.flip.state.undecided):
            try:
                async with self._site.holding(list(moved)):
                    await self._site.switch(moved)
            except NotLevel:
                await self._site.switch(moved)

    # --- a flip -------------------------------------------------------------------------------------------------

    async def _take_part(self, flip: Flip) -> None:
        try:
            why_not = self._objection(flip)
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
        except NotLevel as error:
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
            if seen.flip.state.undecided and time.monotonic() - since > 6 * self._limit:
                await self._abort(seen, "its coordinator is gone")
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

    async def place(self, collection: str, primary: StoreName) -> Placed:
        """Where the fleet stands with a collection; places it at `primary` if nobody has. Raises `ControlError`."""
        kept = {collection: primary}
        self._routing = await self._ask(lambda: routing.change(self.records, lambda seen: _placing(seen, kept)))
        return self._routing.placed[collection]

    async def broke(self, collection: str) -> None:
        """One store of the collection is written alone from now on: there is nothing to go back to. Raises
        `ControlError`."""

        def make(seen: Routing) -> Routing | None:
            placed = seen.placed.get(collection)
            if placed is None:
                return None
            return seen.with_placed({collection: dataclasses.replace(placed, previous=None, broken=time.time())})

        self._routing = await self._ask(lambda: routing.change(self.records, make))


def _aborted(seen: Routing, said: str) -> Routing:
    assert seen.flip is not None
    return seen.with_flip(seen.flip.moved(FlipState.ABORTED, said))


def _placing(seen: Routing, kept: Mapping[str, StoreName]) -> Routing | None:
    new = {name: Placed(primary, since=time.time()) for name, primary in kept.items() if name not in seen.placed}
    return seen.with_placed(new) if new else None


def _stands(route: Route, placed: Placed) -> bool:
    """Whether the route is as the record says. A store that is written alone is the configuration's own word."""
    if placed.completed:
        return route.phase is Phase.OFF
    return not route.dual_write or route.primary is placed.primary
