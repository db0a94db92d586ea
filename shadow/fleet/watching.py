"""Follows the watch windows of flips, and takes a flip back when a guard of its window breaks.

What is decided is in the record of the guards before anything is done; the way back is a flip like any other, on the
condition that the collections still have the routes that the watched flip has made. So a process that dies between both
leaves the way back to the next one, and one that comes late changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from shadow.control.flip_record import Routing
from shadow.control.guard_record import GuardRecord, Move, Ramp, RampState, WatchState, WatchWindow, open_windows
from shadow.control.members import Member
from shadow.errors import ControlError
from shadow.fleet import watch_window
from shadow.fleet.guard_context import GuardContext, Plans
from shadow.fleet.guards import Guard, unheard, watch_guards
from shadow.host.tasks import begin
from shadow.model.events import ComponentFailed, noted
from shadow.model.health import CollectionHealth
from shadow.model.hooks import HookEvent
from shadow.observe.log import Event

__all__ = ["Watching", "is_watch"]

_AGAIN: Final = 5.0
_LONGEST: Final = 300.0
"""Seconds before a flip that could not be taken back is tried again: the first pause, which doubles, and the longest.
Each attempt may pause the writes once more."""
_NUMBERS: Final = {WatchState.WATCHING: 1, WatchState.REPORTED: 2, WatchState.GOING_BACK: 3}
_PREFIX: Final = "watch "


def is_watch(plan: str) -> bool:
    """Whether figures that are counted for this plan are those of a watch window."""
    return plan.startswith(_PREFIX)


class Watching:
    """One for each `Guarding`."""

    def __init__(self, context: GuardContext) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._tried: dict[str, tuple[float, float]] = {}
        """When each flip may be tried to be taken back again, by the clock of this process, and the pause after
        that."""
        self._why_not: dict[str, str] = {}

    def open(self, record: GuardRecord) -> dict[str, WatchWindow]:
        return open_windows(self._context.routing(), record)

    def names(self, record: GuardRecord) -> set[str]:
        """The collections whose flip is watched."""
        seen = self._context.routing()
        return {name for each in self.open(record).values() for name in each.left(seen)}

    def watched(self, record: GuardRecord) -> dict[str, int]:
        """See `Guarding.watched`."""
        seen = self._context.routing()
        return {name: _NUMBERS[each.state] for each in self.open(record).values() for name in each.left(seen)}

    def follow(self, record: GuardRecord) -> set[str]:
        """Counts what the guards need of each watched collection as soon as this process has changed over. Returns
        them."""
        routes, found = self._context.routes.all(), set()
        for each in self.open(record).values():
            for name, epoch in each.epochs.items():
                if name in routes and routes[name].epoch == epoch:
                    found.add(name)
                    seconds = each.plan.limits.window
                    self._context.windows.follow(
                        name, plan=_PREFIX + each.flip, number=epoch, seconds=seconds, primary=each.to
                    )
        return found

    # --- the process that decides -----------------------------------------------------------------------------------

    def decide(
        self,
        record: GuardRecord,
        seen: Routing,
        rows: Sequence[Member],
        silent: Sequence[Member],
        elapsed: float,
        plans: Plans,
    ) -> GuardRecord:
        """The record with what happened to each window. `seen`: the routing record, as it is now."""
        now = time.time()
        for each in open_windows(seen, record).values():
            first = [] if each.flip in record.watches else [watch_window.opened(each)]
            left = each.left(seen)
            if not left:
                after, moves = watch_window.left_alone(each, seen, now)
            elif each.state is WatchState.GOING_BACK:
                after, moves = watch_window.not_taken_back(each, self._why_not.pop(each.flip, each.waits))
            else:
                guards = {name: self._guards(each, name, rows, silent) for name in left}
                after, moves = watch_window.judged(each, guards, elapsed, now)
            record = record.with_watch(after, [*first, *moves])
            if after.state is WatchState.TAKEN_BACK:
                record = _stopped(record, after, plans, now)
        return watch_window.pruned(record, seen)

    def _guards(self, window: WatchWindow, name: str, rows: Sequence[Member], silent: Sequence[Member]) -> list[Guard]:
        health = [row.figures.get(name, CollectionHealth()) for row in rows if row not in silent]
        guards = watch_guards(health, window.plan.limits, epoch=window.epochs[name], plan=_PREFIX + window.flip)
        return [*guards, unheard(silent)] if silent else guards

    def go_back(self, record: GuardRecord, seen: Routing) -> None:
        """Begins to take back what is decided, one flip at a time. Call it when `record` is saved."""
        now = self._context.clock()
        if self._task is not None and not self._task.done():
            return
        for each in record.watches.values():
            left, (due, pause) = each.left(seen), self._tried.get(each.flip, (now, _AGAIN))
            if each.state is WatchState.GOING_BACK and left and now >= due:
                self._tried[each.flip] = now + pause, min(_LONGEST, 2 * pause)
                self._task = begin(self._go_back(each, left), name="shadow-way-back")
                return

    async def _go_back(self, window: WatchWindow, names: Sequence[str]) -> None:
        try:
            why_not = await asyncio.to_thread(self._context.take_back, window, names)
        except ControlError as error:
            why_not = error.message
        except Exception as error:
            self._context.reporter.publish(ComponentFailed("control", error))
            why_not = type(error).__name__
        if why_not:
            self._why_not[window.flip] = why_not

    async def end(self) -> None:
        """A thread that makes the flip cannot be cancelled: it ends within the limits of a flip."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- reports -----------------------------------------------------------------------------------------------

    def tell(self, move: Move) -> None:
        """The event and the hooks of a step."""
        body = move.body
        event, hook = _TOLD[body["step"]]
        for name in body["collections"]:
            self._context.reporter.publish(
                noted(
                    event,
                    collection=name,
                    to=body["to"],
                    flip=body["flip"],
                    state=body["state"],
                    reason=body["reason"],
                    detail=body["said"],
                )
            )
        self._context.hooks.send(hook, body, id=move.id)


_TOLD: Final[Mapping[str, tuple[Event, HookEvent]]] = {
    "opened": (Event.WATCH_OPENED, HookEvent.WATCH_OPENED),
    "broken": (Event.WATCH_BROKEN, HookEvent.WATCH_BROKEN),
    "taken_back": (Event.FLIP_TAKEN_BACK, HookEvent.FLIP_TAKEN_BACK),
    "not_taken_back": (Event.FLIP_NOT_TAKEN_BACK, HookEvent.FLIP_NOT_TAKEN_BACK),
    "ended": (Event.WATCH_ENDED, HookEvent.WATCH_ENDED),
}


def _stopped(record: GuardRecord, window: WatchWindow, plans: Plans, now: float) -> GuardRecord:
    """The store that was taken back gets no share of the reads by itself again: its ramps wait for an operator."""
    for name in window.epochs:
        if window.to in plans.get(name, {}):
            found = record.ramps.get(name) or Ramp(name, window.to)
            waits = f"the flip to {window.to} was taken back: shadow ramp resume {name}"
            ramp = Ramp(name, window.to, 0.0, found.number + 1, RampState.STOPPED, since=now, waits=waits)
            record = record.with_ramp(ramp)
    return record
