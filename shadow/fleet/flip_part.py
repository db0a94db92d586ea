"""What this process does in a flip: it reports whether it can take part, pauses its writes until the flip is decided,
and changes over.

A process that missed a flip adopts the new primary as soon as it reads the routing record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from shadow.control import flip_record as routing
from shadow.control.flip_record import Flip, FlipKind, FlipState, RouteRecord, Routing
from shadow.control.members import Ack
from shadow.errors import ControlError, NotCaughtUp
from shadow.fleet.membership import GONE, Membership, aborted
from shadow.model.background import Background
from shadow.model.phase import Route

__all__ = ["FAILED", "LEVEL", "READY", "REFUSED", "REHEARSED", "SWITCHED", "FlipPart"]

READY: Final = "ready"
REFUSED: Final = "refused"
LEVEL: Final = "level"
FAILED: Final = "failed"
SWITCHED: Final = "switched"
REHEARSED: Final = "a rehearsal"
"""The reason with which a successful rehearsal is aborted."""
_WATCH: Final = 0.2
"""Seconds for which one call polls: a thread cannot be cancelled, and a process that ends waits for it."""
_ABANDONED: Final = 6
"""Multiples of the limit after which a stalled flip is ended by a process that has not paused its writes for it."""
_RELEASE: Final = 1.0
"""Seconds after which a process that has changed over resumes its writes regardless of the others: those that have
not changed over yet keep theirs paused."""
_QUICK: Final = 0.01
"""Seconds between two reads of the routing record while a flip is under way."""


class FlipPart(Membership):
    async def settled(self) -> None:
        """Returns when no flip pauses the writes of this process: they must not resume before it is decided."""
        if self._flip is not None and self._flip.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._flip], timeout=8 * self._limit)

    async def _end_abandoned(self, seen: Routing) -> None:
        """Ends a stalled flip in which this process's own part is over or failed: its coordinator may have died, and
        what the files ask for waits until it has ended."""
        flip = seen.flip
        if flip is None or flip.state.over:
            return
        move, now = f"{flip.id} {flip.state}", time.monotonic()
        if self._last_move[0] != move:
            self._last_move = move, now
        elif now - self._last_move[1] > _ABANDONED * self._limit + 3 * self._heartbeat:
            ended = aborted(seen, GONE) if flip.state.undecided else _released(seen, flip)
            await self._ask(lambda: routing.save(self.records, ended))

    async def _adopt(self, seen: Routing) -> None:
        """Adopts a change of primary that was made without this process, for example after `shadow fleet forget`."""
        routes = self._site.routes()
        moved = {name: each for name, each in seen.placed.items() if name in routes and not _stands(routes[name], each)}
        if moved and (seen.flip is None or not seen.flip.state.undecided):
            try:
                async with self._site.holding(list(moved)):
                    await self._site.switch(moved)
            except NotCaughtUp:
                await self._site.switch(moved)

    def _failed(self, error: BaseException) -> None:
        """Reports an error that `_take_part` could not report itself, since the client of the control store, or this
        process, is closing."""
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
            # No writes are paused here any more; a flip without this acknowledgement is aborted.
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
                self._site.notify("flip", state="done" if committed else aborted, said=said, collections=names)
        except NotCaughtUp as error:
            await self.beat(Ack(flip.id, FAILED, str(error), time.monotonic() - since))
            self._site.notify("flip", state="aborted", said=str(error), collections=names)

    async def _decided(self, id: str) -> Routing:
        """Waits for the decision with writes paused. Aborts a flip that is not decided in time. While the control
        store does not answer, the decision is unknown and writes stay paused."""
        since = time.monotonic()
        while True:
            with suppress(ControlError):
                seen = await self._watched(id, lambda state: not state.undecided)
                if seen.flip is None or seen.flip.id != id or not seen.flip.state.undecided:
                    self._routing = seen
                    return seen
                if time.monotonic() - since > self._limit:
                    await self._abort(seen, f"{self._name()} waited for {self._limit:g} s without a decision")
            await asyncio.sleep(_QUICK)

    async def _released(self, id: str, since: float) -> None:
        with suppress(ControlError):
            await self.beat(Ack(id, SWITCHED, held=time.monotonic() - since))
            with suppress(TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await self._until(id, lambda state: state is not FlipState.COMMITTED)

    async def _until(self, id: str, condition: Callable[[FlipState], bool]) -> Routing:
        """Polls until the flip is over or in the wanted state. Aborts a stalled flip."""
        since = time.monotonic()
        while True:
            seen = await self._watched(id, condition)
            self._routing = seen
            if seen.flip is None or seen.flip.id != id or condition(seen.flip.state):
                return seen
            if seen.flip.state.undecided and time.monotonic() - since > _ABANDONED * self._limit:
                await self._abort(seen, GONE)
            await asyncio.sleep(_QUICK)

    async def _watched(self, id: str, condition: Callable[[FlipState], bool]) -> Routing:
        """Returns the routing record once the flip is over or in the wanted state, or after a while as it is. Polls
        from one thread: a poll from the event loop would queue behind the application's work."""

        def watch() -> Routing:
            end = time.monotonic() + min(_WATCH, self._limit)
            while True:
                seen = routing.load(self.records)
                over = seen.flip is None or seen.flip.id != id or condition(seen.flip.state)
                if over or time.monotonic() > end:
                    return seen
                time.sleep(_QUICK)

        # Not from the default executor of the event loop: its few threads are shared with the application.
        thread = ThreadPoolExecutor(1, thread_name_prefix="shadow-flip")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, watch)
        finally:
            thread.shutdown(wait=False)

    async def _abort(self, seen: Routing, said: str) -> None:
        """Aborts the flip if it is still undecided."""
        if seen.flip is not None and seen.flip.state.undecided:
            await self._ask(lambda: routing.save(self.records, aborted(seen, said)))

    async def _patiently(self, work: Any) -> None:
        """Ignores a control store that does not answer: the coordinator misses the acknowledgement and aborts."""
        with suppress(ControlError):
            await work

    def _name(self) -> str:
        return self._row.name if self._row is not None else "a process"


def _released(seen: Routing, flip: Flip) -> Routing:
    return seen.with_flip(flip.moved(FlipState.RELEASED))


def _stands(route: Route, placed: RouteRecord) -> bool:
    """Whether the route equals the record. Whether only one store is written is up to the configuration."""
    return route.primary is placed.primary and not (placed.completed and route.dual_write)
