"""The healer: repairs keys between the two stores, one by one and in batches, on request and from the journal.

A batch is one attempt for many keys, in the order of a repair; what it has not made equal is repaired alone, which also
finds out why. Nothing here ever raises into an application call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Final

from pymongo.errors import ConnectionFailure

from shadow.errors import JournalError, NotFollowed, UnreadableDocument
from shadow.host.failpoints import Point
from shadow.journal.base import Due, undecided_op
from shadow.model.events import ComponentFailed, HealFinished, KeyAgreed
from shadow.model.outcome import Outcome, classify, refusal_of
from shadow.model.phase import Route
from shadow.model.verdict import Deferral, Healing
from shadow.model.version import Key
from shadow.stores.base import CopyingMany
from shadow.stores.breaker import Breaker
from shadow.stores.within import within
from shadow.traces.causes import Causes
from shadow.traces.spans import current_cause
from shadow.writes.context import LoopContext
from shadow.writes.heal import HealContended, decided, heal, heal_many
from shadow.writes.refusals import report_refused
from shadow.writes.untangle import Untangler

__all__ = ["Healer", "check_followed"]

_OFTEN: Final = 10.0
_RARELY: Final = 3600.0
"""The longest pauses, in seconds, between two failed repairs of a key: where it waits for the secondary, and where the
secondary refuses to hold it. The next write of such a key makes it due at once."""
_WORTH_A_BATCH: Final = 2


class Healer:
    """One for each event loop."""

    def __init__(self, context: LoopContext) -> None:
        self._stores = context.stores
        self._breakers = context.breakers
        self._journal = context.journal
        self._limits = context.limits
        self._reporter = context.reporter
        self._routes = context.routes
        self._reach = context.failpoints
        self._untangler = Untangler(context.intents, context.failpoints, context.expiry)
        self._wake = asyncio.Event()
        self._traces = context.traces
        self._causes = Causes()
        self._given_up: dict[str, float] = {}

    # --- one key, and many ----------------------------------------------------------------------------------------

    async def _heal_due(self, due: Due, route: Route) -> None:
        for key in await decided(self._stores.values(), due.collection, due.key):
            await self._heal(due.collection, key, route)

    async def _heal(self, collection: str, key: Key, route: Route) -> Healing:
        self._reach(Point.BEFORE_HEAL)
        result = await self._healed(collection, key, route)
        self._reach(Point.AFTER_HEAL)
        self._reporter.publish(HealFinished(collection, result))
        self._reporter.publish(KeyAgreed(collection, key))
        return result

    async def _healed(self, collection: str, key: Key, route: Route) -> Healing:
        primary, secondary = self._stores[route.primary], self._stores[route.secondary]
        return await heal(primary, secondary, collection, key, untangles=self._untangler, traces=self._traces)

    async def _heal_many(self, collection: str, keys: Sequence[Key], route: Route) -> list[Healing | None]:
        """None for each key that is to be repaired alone. Raises what the stores raise."""
        primary, secondary = self._stores[route.primary], self._stores[route.secondary]
        results: list[Healing | None] = []
        if not isinstance(primary, CopyingMany) or not isinstance(secondary, CopyingMany):
            return [None] * len(keys)
        most = secondary.copies_at_once(collection)
        if most < _WORTH_A_BATCH or len(keys) < _WORTH_A_BATCH:
            return [None] * len(keys)
        for start in range(0, len(keys), most):
            part = keys[start : start + most]
            self._reach(Point.BEFORE_HEAL)
            made = await heal_many(primary, secondary, collection, part, traces=self._traces)
            self._reach(Point.AFTER_HEAL)
            for key, result in zip(part, made, strict=True):
                if result is not None:
                    self._reporter.publish(HealFinished(collection, result))
                    self._reporter.publish(KeyAgreed(collection, key))
            results += made
        return results

    def may_be_in_flight(self, collection: str) -> bool:
        """Whether a request whose answer was given up on may still arrive at the secondary."""
        given_up = self._given_up.get(collection)
        return given_up is not None and asyncio.get_running_loop().time() - given_up < self._limits.in_flight_timeout

    def _judge(self, collection: str, error: Exception, breaker: Breaker) -> Deferral:
        """What an error of the secondary means: for the breaker, for a flip, and as a reason."""
        otherwise = Deferral.SECONDARY_ERROR
        if isinstance(error, NotFollowed):
            return Deferral.NOT_FOLLOWED
        if isinstance(error, HealContended):
            return otherwise
        if isinstance(error, TimeoutError | ConnectionFailure) or classify(error) is Outcome.UNKNOWN:
            breaker.failed()
            self._given_up[collection] = asyncio.get_running_loop().time()
            return Deferral.DEADLINE if isinstance(error, TimeoutError) else otherwise
        if not isinstance(error, UnreadableDocument):  # it is a difference, and no failure of a part
            self._reporter.publish(ComponentFailed("replay", error))
        return otherwise

    # --- recovery -----------------------------------------------------------------------------------------------

    async def recover_forever(self, turn: Callable[[], None] = lambda: None) -> None:
        """Repairs what is due until cancelled; raises what the journal raises. `turn` is called at each round."""
        while True:
            turn()
            if await self.recover() < self._limits.recover_batch:
                await self._rest()

    async def _rest(self) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.recover_every):
                await self._wake.wait()
        # Deferrals come many at a time; one round serves them all.
        await asyncio.sleep(min(0.02, self._limits.recover_every))

    async def recover(self) -> int:
        """Repairs one batch of due keys; how many were due. While the secondary is down, one key is the probe."""
        probing = not all(breaker.closed for breaker in self._breakers.values())
        batch = 1 if probing else self._limits.recover_batch
        found = await self._journal.due(batch, lease=self._limits.operation)
        gate = asyncio.Semaphore(self._limits.write_workers)
        try:
            left = found if probing else await self._recover_together(found)
        except BaseException:
            for due in found:
                self._journal.give_back(due)
            raise
        try:
            # Each runs to its end, whatever another raises: none may run on after the caller has gone.
            results = await asyncio.gather(*(self._recover_one(due, gate) for due in left), return_exceptions=True)
        except asyncio.CancelledError:
            # Here, and not where each of them is healed: one that is cancelled before its first step notices nothing.
            for due in found:
                self._journal.give_back(due)
            raise
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(found)

    async def _recover_together(self, found: Sequence[Due]) -> list[Due]:
        """Repairs in batches what can be, and returns what is to be repaired alone: among that, what the secondary has
        refused before."""
        alone: list[Due] = []
        together: dict[str, list[Due]] = {}
        for due in found:
            apart = bool(due.refused) or undecided_op(due.key) is not None
            (alone if apart else together.setdefault(due.collection, [])).append(due)
        for collection, batch in together.items():
            alone += batch if len(batch) < _WORTH_A_BATCH else await self._recover_batch(collection, batch)
        return alone

    async def _recover_batch(self, collection: str, batch: Sequence[Due]) -> Sequence[Due]:
        """Those that are to be repaired alone."""
        async with self._routes.healing(collection) as route:
            breaker = self._breakers[route.secondary]
            if not route.dual_write or not breaker.closed:
                return batch
            caused_by = [self._causes.of(collection, due.key) for due in batch]
            tries = min(due.attempts for due in batch) + 1
            with self._traces.work("heal", collection, caused_by, to=route.secondary, attempt=tries):
                try:
                    async with within(min(self._limits.operation / 2, 2 * self._limits.write_deadline)):
                        made = await self._heal_many(collection, [due.key for due in batch], route)
                except Exception as error:
                    self._judge(collection, error, breaker)
                    return batch
            settled = [due for due, result in zip(batch, made, strict=True) if result is not None]
            if settled:
                breaker.succeeded()
            for due, done in zip(settled, await asyncio.gather(*map(self._journal.settle, settled)), strict=True):
                if done:
                    self._causes.forget(collection, due.key)
        return [due for due, result in zip(batch, made, strict=True) if result is None]

    async def _recover_one(self, due: Due, gate: asyncio.Semaphore) -> None:
        async with gate, self._routes.healing(due.collection) as route:
            caused_by, tries = self._causes.of(due.collection, due.key), due.attempts + 1
            if not route.dual_write:
                await self._attempt(due, route)
                return
            with self._traces.work("heal", due.collection, [caused_by], to=route.secondary, attempt=tries):
                await self._attempt(due, route)

    async def _attempt(self, due: Due, route: Route) -> None:
        breaker = self._breakers[route.secondary]
        if not route.dual_write or not breaker.allow():
            over = due.late and not route.dual_write  # what takes effect late stays where it is, as all else does
            await (self._journal.settle(due) if over else self._journal.postpone(due, self._limits.recover_every))
            return
        try:
            async with within(min(self._limits.operation / 2, 2 * self._limits.write_deadline)):
                await self._heal_due(due, route)
        except JournalError:
            raise
        except Exception as error:
            self._judge(due.collection, error, breaker)
            report_refused(self._reporter, due, error)
            self._reporter.publish(HealFinished(due.collection, Healing.FAILED))
            refused = refusal_of(error)
            pause = self._backoff(due.attempts_after(refused) - 1, most=_RARELY if refused else _OFTEN)
            await self._journal.postpone(due, pause, refused)
        else:
            breaker.succeeded()
            if await self._journal.settle(due):
                self._causes.forget(due.collection, due.key)

    async def repair(self, collection: str, key: Key) -> Healing:
        """Repairs one key on request, or what an undecided one stands for. Raises `NotFollowed` in phase `off`,
        `HealContended`, TimeoutError, and what the stores raise."""
        result = Healing.EQUAL
        async with self._routes.healing(collection) as route:
            check_followed(collection, route)
            with self._traces.work("heal", collection, [current_cause()], to=route.secondary):
                try:
                    async with within(self._limits.operation / 2):
                        for each in await decided(self._stores.values(), collection, key):
                            result = await self._healed(collection, each, route)
                            self._reporter.publish(KeyAgreed(collection, each))
                except BaseException:
                    self._given_up[collection] = asyncio.get_running_loop().time()
                    raise
                self._reporter.publish(HealFinished(collection, result))
        return result

    async def repair_many(self, collection: str, keys: Sequence[Key]) -> list[Healing | None]:
        """Repairs many keys on request, in few requests. None for each key that `repair` has to be asked for, whatever
        the reason. Raises `NotFollowed` in phase `off`."""
        async with self._routes.healing(collection) as route:
            check_followed(collection, route)
            with self._traces.work("heal", collection, [current_cause()], to=route.secondary):
                try:
                    async with within(self._limits.operation / 2):
                        return await self._heal_many(collection, keys, route)
                except BaseException as error:
                    self._given_up[collection] = asyncio.get_running_loop().time()
                    if not isinstance(error, Exception):
                        raise
        return [None] * len(keys)

    def _backoff(self, attempts: int, most: float) -> float:
        return random.uniform(0.5, 1.0) * min(most, self._limits.recover_every * 2.0 ** min(attempts, 20))


def check_followed(collection: str, route: Route) -> None:
    """Raises `NotFollowed` where only one store is written. What is read there while that lasts must not reach the
    other one: MongoDB's own calls give one version to one document after the other."""
    if not route.dual_write:
        raise NotFollowed(collection)
