"""This process as a member of the fleet: it renews its record, follows the routing record, and asks for dual writes.

A process that cannot reach the control store continues as it was: flips wait for its acknowledgement, its operations do
not wait. What it may do without the others' knowledge, the driver's own calls, it may do for one heartbeat after it
last read the routing record and no longer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Collection
from typing import Final

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import Routing
from shadow.control.members import Member
from shadow.control.raising import is_on_the_way
from shadow.errors import ControlError, ShadowClosed
from shadow.fleet.flip_part import FlipPart
from shadow.fleet.membership import SOON
from shadow.host.steady import steady
from shadow.host.tasks import begin
from shadow.model.background import Background

__all__ = ["Participant"]


_FIGURES_EVERY: Final = 3.0
_LISTED: Final = 2.0
"""Heartbeats after a renewal of the record within which reading the routing record is enough to continue writing."""
_FIGURING: Final = 10.0
"""Seconds after which the figures of the gates count as unavailable."""


class Participant(FlipPart):
    """See `Membership` for its record and `FlipPart` for what it does in a flip."""

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Renews the record and follows the routing record until cancelled. Reads twice in a heartbeat, so that the
        lease does not expire in between. `turn` is called at each round."""
        while True:
            turn()
            if self._row is not None:
                try:
                    await self._turn()
                    self._reached(True)
                except ControlError as error:
                    self._reached(False, error)
            on_the_way = any(is_on_the_way(self._routing.placed.get(name)) for name in self._site.wants_both())
            await asyncio.sleep(min(SOON, self._heartbeat / 2) if on_the_way else self._heartbeat / 2)

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
        """All processes; removes the records of those that have long been dead. Called here since it may take long."""
        found = members.members(self.records)
        if any(row.alone and row.owner.known_dead() for row in found):
            self._raising.bury()
        return found

    async def _figure(self) -> None:
        """Updates the figures of the gates. If that fails, the heartbeat continues without figures, and the gates
        that need them are closed."""
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

    async def renew(self) -> None:
        """Reads the routing record and follows it, before a write after a pause. If the record of this process was
        removed meanwhile, others may have verified something: it registers again first. Raises `ControlError`."""
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
        """Whether the last renewal found this process registered, a moment ago."""
        return now - self._listed < _LISTED * self._heartbeat

    async def _follow(self) -> None:
        """Adopts what the other processes want, and advances what this process wants."""
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
        """Asks for dual writes of these, and waits until this process may write both stores. False: some process has
        not seen it within `patience` seconds; it continues in `run`. Raises `ControlError`."""
        end = steady() + patience
        while True:
            await self.look()
            await self._follow()
            routes = self._site.routes()
            if all(routes[name].dual_write for name in names if name in routes):
                return True
            if steady() > end:
                return False
            await asyncio.sleep(min(SOON, self._heartbeat / 2))

    async def look(self) -> Routing:
        """Reads the routing record and follows it. Raises `ControlError`."""
        asked = steady()
        seen = await self._ask(lambda: routing.load(self.records))
        if self._row is None:
            return seen
        self._routing = seen
        # Nothing may wait between this and `_adopt`, which pauses the writes of what has changed.
        self._site.noted(seen, asked + self._heartbeat if self._is_listed(asked) else -math.inf)
        flip = seen.flip
        if flip is not None and not flip.state.over and flip.id != self._seen_flip:
            self._seen_flip = flip.id
            self._flip = begin(self._take_part(flip), name="shadow-flip", failed=self._failed)
        if self._flip is None or self._flip.done():
            await self._adopt(seen)
            await self._end_abandoned(seen)
        return seen
