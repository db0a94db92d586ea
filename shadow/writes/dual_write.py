"""One write to both stores: its intent, the primary, and the replication to the secondary.

The intent is in the journal before the primary is asked. What the primary acknowledged is replicated off the caller's
path; what it refused closes its intent; where nobody knows, the intent stays open and recovery finds out.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pymongo.errors import NetworkTimeout

from shadow.errors import SecondaryWriteError
from shadow.host.failpoints import Point
from shadow.model.batches import Result, first_error, keys_in
from shadow.model.bounds import Refusal, held_to
from shadow.model.events import OperationFinished
from shadow.model.operation import ANY, Applied, Change, Verb, Write, at_key
from shadow.model.outcome import Outcome, classify, is_denied
from shadow.model.phase import Role, Route, StoreName, WriteMode
from shadow.model.verdict import Deferral
from shadow.model.version import fresh_id
from shadow.stores.within import within
from shadow.writes.context import LoopContext
from shadow.writes.in_turn import Turn
from shadow.writes.intents import Opened
from shadow.writes.replicator import Replicator
from shadow.writes.work_queue import Hold

__all__ = ["Admit", "DualWrite", "Early"]

_LAST_WORD: Final = 0.05
"""Seconds: what is waited for begins its own time a little later, and shall say itself that it is over."""
_AFTER_YOU: Final = 4
"""Turns of the event loop in which an early answer reaches its caller, before its changes are settled."""
_LOOK_AGAIN: Final = 0.01
"""Seconds between two checks whether the call has ended, or a flip waits for it."""
_IN_ONE_GO: Final = 32
"""Changes settled without yielding to the event loop."""

Ask: TypeAlias = Callable[[Route, Sequence[str]], Awaitable[Sequence[Result]]]
"""Asks the primary of a route to make the changes, given the id of each operation."""
Admit: TypeAlias = Callable[[str, StoreName], Awaitable[None]]
"""Asked before each write to both stores, with the collection and its primary. Raises where there may be none."""


@dataclass(frozen=True, slots=True)
class Early:
    """How the caller of many changes gets its answer before they are passed to the work queue, one by one: their
    intents are durable, and stay open until then. `hold`: of their work."""

    answer: Callable[[Sequence[Result]], None]
    hold: Hold


@dataclass(frozen=True, slots=True)
class _Batch:
    """Changes with their intents and results."""

    changes: Sequence[Change]
    op_ids: Sequence[str]
    results: Sequence[Result]

    def some(self, start: int, end: int | None) -> list[tuple[Change, str, Result]]:
        places = slice(start, end)
        return list(zip(self.changes[places], self.op_ids[places], self.results[places], strict=True))


class DualWrite:
    """One for each event loop."""

    def __init__(self, context: LoopContext, replicator: Replicator, admit: Admit | None) -> None:
        self._stores = context.stores
        self._routes = context.routes
        self._intents = context.intents
        self._replicator = replicator
        self._limits = context.limits
        self._reporter = context.reporter
        self._failpoints = context.failpoints
        self._admit = admit
        self._traces = context.traces

    async def make(
        self,
        collection: str,
        verb: Verb,
        changes: Sequence[Change],
        ask: Ask,
        early: Early | None = None,
        turn: Turn | None = None,
    ) -> Sequence[Result]:
        """One result for each change. Once it has begun, it must not be cancelled with the caller. With `early`, a
        caller who waits for nothing else is answered as soon as the primary has answered. `turn`: the primary is not
        asked before it, and if it does not come, nothing is changed."""
        writing = self._routes.writing(collection)
        async with writing as route:
            if not route.dual_write:
                if turn is not None and not await turn.comes():
                    return [None] * len(changes)
                results = await self._ask(collection, verb, route, [fresh_id() for _ in changes], ask)
                if first_error(results) is not None and _unknown(results):
                    writing.lost()
                return results
            if self._admit is not None:
                await self._admit(collection, route.primary)
            keys = keys_in(changes)
            opened = await self._intents.open(collection, keys)
            if turn is not None:
                if not await self._comes(turn, opened):
                    return [None] * len(changes)
                opened = await self._intents.young(collection, keys, opened)
            results = await self._ask(collection, verb, route, opened.op_ids, ask)
            self._failpoints(Point.AFTER_PRIMARY)
            if any(key is ANY for key in keys):
                changes = [self._decided(*each) for each in zip(changes, opened.op_ids, results, strict=True)]
            if self._intents.expired(opened):
                opened = await self._intents.renew(collection, keys_in(changes), opened)
            if early is not None and opened.durable and route.writes is WriteMode.BACKGROUND:
                early.answer(results)
                made = _Batch(changes, opened.op_ids, results)
                # The route stays in force meanwhile: a flip waits until all of it is in the work queue.
                await self._settle_all(collection, verb, made, route, early.hold)
                return results
            settled = [
                self._settle(collection, verb, change, op_id, result, route)
                for change, op_id, result in zip(changes, opened.op_ids, results, strict=True)
            ]
        replicating = [each for each in settled if each is not None]
        await self._wait_for(collection, route, replicating, results, durable=opened.durable)
        return results

    async def _comes(self, turn: Turn, opened: Opened) -> bool:
        """Waits for its turn. Without one, the intents are closed: the primary is never asked."""
        may = False
        try:
            may = await turn.comes()
        finally:
            if not may:
                self._intents.drop(opened)
        return may

    def _decided(self, change: Change, op_id: str, result: Result) -> Change:
        """The change at the key that the primary has found for it."""
        if change.key is not ANY or not isinstance(result, Applied):
            return change
        self._intents.decide(op_id, result.key)
        return at_key(change, result.key)

    async def _ask(
        self, collection: str, verb: Verb, route: Route, op_ids: Sequence[str], ask: Ask
    ) -> Sequence[Result]:
        """The primary's answers. An error of the whole call is the answer to each change."""
        started = time.perf_counter()
        try:
            async with within(self._limits.operation / 2):
                with held_to(self._bounds(collection, route)), self._traces.request(route.primary) as request:
                    results = await ask(route, op_ids)
                    if (fault := first_error(results)) is not None:
                        request.failed(fault)
        except TimeoutError:
            results = [NetworkTimeout(f"no answer from {route.primary} within {self._limits.operation / 2:g} s")]
        except Exception as error:
            results = [error]
        if len(results) < len(op_ids):
            results = list(results) * len(op_ids)
        seconds = time.perf_counter() - started
        fault = first_error(results)
        outcome = Outcome.ACKED if fault is None else classify(fault)
        refused = fault is not None and is_denied(fault)
        self._reporter.publish(
            OperationFinished(collection, verb, route.primary, Role.PRIMARY, outcome, seconds, denied=refused)
        )
        return results

    def _bounds(self, collection: str, route: Route) -> Refusal | None:
        """What a primary that computes the outcome of a change before it writes it has to check the outcome with."""
        return functools.partial(self._stores[route.secondary].refusal, collection) if route.dual_write else None

    def _settle(
        self, collection: str, verb: Verb, change: Change, op_id: str, result: Result, route: Route
    ) -> asyncio.Future[bool] | None:
        """Closes the intent if nothing changed, leaves it open if nobody knows, else replicates the change."""
        if isinstance(result, Applied):
            write = Write(collection, verb, op_id, change, result.pre.state, result.post)
            return self._replicator.follow(write, route)
        self._settle_unmade(collection, change, op_id, result)
        return None

    async def _settle_all(self, collection: str, verb: Verb, made: _Batch, route: Route, hold: Hold) -> None:
        """The same for many changes whose caller has its answer, once the call has no more to change. What is cancelled
        settles the rest at once."""

        done = 0
        try:
            for _ in range(_AFTER_YOU):
                await asyncio.sleep(0)
            while not (hold.released or self._routes.waits(collection)):  # noqa: ASYNC110 - of two, and neither is ours
                await asyncio.sleep(_LOOK_AGAIN)
            for done in range(0, len(made.changes), _IN_ONE_GO):
                self._settle_some(collection, verb, made.some(done, done + _IN_ONE_GO), route, hold)
                done += _IN_ONE_GO
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._settle_some(collection, verb, made.some(done, None), route, hold)
            raise

    def _settle_some(
        self, collection: str, verb: Verb, made: Sequence[tuple[Change, str, Result]], route: Route, hold: Hold
    ) -> None:
        writes = [
            Write(collection, verb, op_id, change, result.pre.state, result.post)
            for change, op_id, result in made
            if isinstance(result, Applied)
        ]
        self._replicator.follow_many(writes, route, hold)
        for change, op_id, result in made:
            if not isinstance(result, Applied):
                self._settle_unmade(collection, change, op_id, result)

    def _settle_unmade(self, collection: str, change: Change, op_id: str, result: Exception | None) -> None:
        if isinstance(result, Exception) and classify(result) is Outcome.UNKNOWN:
            self._replicator.defer(collection, op_id, Deferral.PRIMARY_UNKNOWN, change.key)
        else:
            self._intents.close(op_id)

    async def _wait_for(
        self,
        collection: str,
        route: Route,
        replicating: Sequence[asyncio.Future[bool]],
        results: Sequence[Result],
        *,
        durable: bool,
    ) -> None:
        """Waits for the secondary where the write mode asks for it, and where the write has no durable intent."""
        if not replicating or (route.writes is WriteMode.BACKGROUND and durable):
            return
        done, _ = await asyncio.wait(replicating, timeout=self._limits.write_deadline + _LAST_WORD)
        acknowledged = len(done) == len(replicating) and all(each.result() for each in done)
        if not acknowledged and not durable:
            self._intents.doubt(collection)
        # What the primary refused comes first: the caller has to know of it.
        refused = first_error(results) is not None
        if route.writes is WriteMode.STRICT and not acknowledged and not refused:
            raise SecondaryWriteError(
                f"the primary ({route.primary}) has the write, the secondary ({route.secondary}) has not yet",
                hint="the write stays in the journal and will be healed; `writes: sync` waits without raising",
            )


def _unknown(results: Sequence[Result]) -> bool:
    """Whether the outcome of any of them is unknown."""
    return any(isinstance(each, Exception) and classify(each) is Outcome.UNKNOWN for each in results)
