"""The replicator: replays the primary's writes on the secondary, and repairs what could not be replayed at once.

A write that the work queue has no room for, that the secondary refuses, or that takes too long, is left to its intent;
the recovery loop repairs it later, oldest first. Nothing here ever raises into an application call.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from pymongo.errors import ConnectionFailure

from shadow.compare.comparer import Comparator
from shadow.errors import JournalError, NotFollowed, UnreadableDocument, UnsupportedOperation
from shadow.host.failpoints import Point
from shadow.journal.base import Due, undecided
from shadow.model.events import (
    ComparisonFinished,
    ComparisonUndecided,
    ComponentFailed,
    HealFinished,
    KeyAgreed,
    MismatchConfirmed,
    OperationFinished,
    RuleApplied,
    WriteDeferred,
)
from shadow.model.keys import queue_key
from shadow.model.operation import ANY, Verb, Write
from shadow.model.outcome import Outcome, classify, refusal_of
from shadow.model.phase import Role, Route, WriteMode
from shadow.model.verdict import (
    MATCHED_PATH,
    Deferral,
    Difference,
    Healing,
    Incomparable,
    Kind,
    Mismatch,
    Verdict,
)
from shadow.model.version import Image, Key
from shadow.stores.base import ReplayingMany
from shadow.stores.breaker import Breaker
from shadow.stores.within import within
from shadow.traces.causes import Causes
from shadow.traces.spans import cause, current_cause
from shadow.writes.context import LoopContext
from shadow.writes.heal import HealContended, Replayed, by_result, decided, heal, replay, replay_fenced, replay_many
from shadow.writes.refusals import report_refused
from shadow.writes.replica import Replica
from shadow.writes.untangle import Untangler
from shadow.writes.work_queue import Batch, Hold

__all__ = ["Replicator"]

_OFTEN: Final = 10.0
_RARELY: Final = 3600.0
"""The longest pauses, in seconds, between two failed repairs of a key: where it waits for the secondary, and where the
secondary refuses to hold it. The next write of such a key makes it due at once."""

_REQUESTS: Final = 4
"""Requests at once that a batch of replays makes. So many batches run at once that their requests are as many as
there are workers: what a call for many documents makes in an instant would else reach the secondary in an instant."""


class Replicator:
    """One for each event loop."""

    def __init__(self, context: LoopContext) -> None:
        self._stores = context.stores
        self._breakers = context.breakers
        self._journal = context.journal
        self._queue = context.writes
        self._limits = context.limits
        self._reporter = context.reporter
        self._compare = Comparator(context.hasher, context.excuses)
        self._routes = context.routes
        self._reach = context.failpoints
        self._intents = context.intents
        self._untangler = Untangler(context.intents, context.failpoints, context.expiry)
        self._wake = asyncio.Event()
        self._following: dict[str, str] = {}
        self._batching = {name: each for name, each in context.stores.items() if isinstance(each, ReplayingMany)}
        self._alone = asyncio.Semaphore(context.limits.write_workers)
        self._together = asyncio.Semaphore(max(1, context.limits.write_workers // _REQUESTS))
        self._traces = context.traces
        self._causes = Causes()
        self._given_up: dict[str, float] = {}

    # --- writes, as they come -----------------------------------------------------------------------------------

    def follow(self, write: Write, route: Route) -> asyncio.Future[bool]:
        """Replicates the write in its turn. The future: whether the secondary is known to have it."""
        work = functools.partial(self._replay, write, route)
        return self._follow(write.collection, write.verb, write.key, write.op_id, route, work, write)

    def follow_many(self, writes: Iterable[Write], route: Route, hold: Hold | None) -> None:
        """Replicates the writes of one call, of one collection and verb, for which nobody waits."""
        of_call = cause()
        together: Batch | None = None
        for write in writes:
            if together is None:
                together = self._batch_of(write, route)
            batch = None if together is None or by_result(write.change) else together
            work = functools.partial(self._replay, write, route)
            replica = Replica(
                self._replicate_alone,
                write.collection,
                write.verb,
                write.key,
                write.op_id,
                route,
                work,
                None,
                of_call,
                write,
            )
            self._offer(replica, batch, hold)

    def follow_copy(self, collection: str, verb: Verb, key: Key, op_id: str, route: Route) -> asyncio.Future[bool]:
        """Likewise the outcome of several changes of one document, which became visible at once: it is copied."""

        async def copy() -> None:
            self._reach(Point.BEFORE_REPLAY)
            async with self._routes.healing(collection) as now:
                _check_followed(collection, now)
                await self._heal(collection, key, route)
            self._reporter.publish(ComparisonFinished(collection, verb, Verdict.LAGGING))

        return self._follow(collection, verb, key, op_id, route, copy)

    def _follow(
        self,
        collection: str,
        verb: Verb,
        key: Key,
        op_id: str,
        route: Route,
        work: Callable[[], Awaitable[None]],
        write: Write | None = None,
    ) -> asyncio.Future[bool]:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        replica = Replica(self._replicate_alone, collection, verb, key, op_id, route, work, done, cause(), write)
        self._offer(replica, None if write is None else self._batch_of(write, route))
        return done

    def _offer(self, replica: Replica, batch: Batch | None, hold: Hold | None = None) -> None:
        collection, key = replica.collection, replica.key
        self._following[replica.op_id] = collection
        if not self._queue.offer(collection, queue_key(collection, key), replica, batch=batch, hold=hold):
            reason = Deferral.CLOSING if self._queue.closed else Deferral.LANE_FULL
            self.defer(collection, replica.op_id, reason, key)
            self._end(replica, acknowledged=False)

    def _batch_of(self, write: Write, route: Route) -> Batch | None:
        """How the write is replayed along with others. One for which somebody waits is replayed alone."""
        store = self._batching.get(route.secondary)
        if store is None or route.writes is not WriteMode.BACKGROUND or by_result(write.change):
            return None
        most = store.replays_at_once(write.collection)
        return Batch((write.collection, write.verb, route), most, self._replicate_many) if most > 1 else None

    def _end(self, replica: Replica, *, acknowledged: bool) -> None:
        self._following.pop(replica.op_id, None)
        if replica.done is not None and not replica.done.done():
            replica.done.set_result(acknowledged)

    def defer(self, collection: str, op_id: str, reason: Deferral, key: Key = ANY) -> None:
        """Leaves the write to its intent. `key`: `ANY` where the operation has not found its document."""
        self._causes.keep(collection, undecided(op_id) if key is ANY else key, cause())
        self._intents.defer(collection, op_id, reason)
        self._reporter.publish(WriteDeferred(collection, reason))
        self._wake.set()

    async def heal_soon(self, collection: str, keys: Sequence[Key]) -> None:
        """Leaves keys to the journal, from which they are repaired next. Durable when it returns. Raises
        `JournalError`."""
        opened = await self._intents.open_durably(collection, keys)
        for op_id in opened.op_ids:
            self._journal.defer(op_id)
        self._wake.set()

    def abandon(self) -> None:
        """Leaves every write that has not been replicated to its intent."""
        for op_id, collection in self._following.items():
            self.defer(collection, op_id, Deferral.CLOSING)
        self._following.clear()

    async def _replicate_alone(self, replica: Replica) -> None:
        acknowledged = False
        try:
            with self._traces.work(
                "replicate", replica.collection, [replica.cause], verb=replica.verb, to=replica.route.secondary
            ):
                acknowledged = await self._replicate(
                    replica.collection, replica.key, replica.op_id, replica.route, replica.work
                )
        finally:
            self._end(replica, acknowledged=acknowledged)

    async def _replicate(
        self, collection: str, key: Key, op_id: str, route: Route, work: Callable[[], Awaitable[None]]
    ) -> bool:
        breaker = self._breakers[route.secondary]
        if not breaker.allow():
            self.defer(collection, op_id, Deferral.SECONDARY_DOWN, key)
            return False
        try:
            async with within(self._limits.write_deadline):
                await work()
        except asyncio.CancelledError:
            self.defer(collection, op_id, Deferral.CLOSING, key)
            raise
        except Exception as error:
            self.defer(collection, op_id, self._judge(collection, error, breaker), key)
            return False
        breaker.succeeded()
        self._intents.taken(collection, op_id)
        self._reach(Point.AFTER_CLOSE)
        return True

    async def _replicate_many(self, replicas: Sequence[Replica]) -> None:
        """Replicates writes of one collection, verb and route, each of another key: together, and what that did not
        make equal alone, for whatever reason it did not."""
        left, first = list(replicas), replicas[0]
        causes = [each.cause for each in replicas]
        try:
            async with self._together:
                with self._traces.work(
                    "replicate", first.collection, causes, verb=first.verb, to=first.route.secondary
                ):
                    left = await self._replicate_together(replicas)
            for result in await asyncio.gather(*map(self._in_turn, left), return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        except asyncio.CancelledError:
            # Here too: one that is cancelled before its first step does not notice.
            self._give_up([each for each in left if each.op_id in self._following], Deferral.CLOSING)
            raise
        finally:
            for each in left:
                self._end(each, acknowledged=False)

    async def _in_turn(self, replica: Replica) -> None:
        async with self._alone:
            await replica()

    async def _replicate_together(self, replicas: Sequence[Replica]) -> list[Replica]:
        """Those that are still to be replicated alone."""
        collection, route = replicas[0].collection, replicas[0].route
        writes = [each.write for each in replicas if each.write is not None]
        breaker = self._breakers[route.secondary]
        if not breaker.allow():
            self._give_up(replicas, Deferral.SECONDARY_DOWN)
            return []
        self._reach(Point.BEFORE_REPLAY)
        started = time.perf_counter()
        try:
            async with within(self._limits.write_deadline):
                with self._traces.request(route.secondary, Role.SECONDARY):
                    made = await replay_many(self._batching[route.secondary], writes)
        except Exception as error:
            for each in writes:
                self._observe(each, route, classify(error), started)
            self._give_up(replicas, self._judge(collection, error, breaker))
            return []
        breaker.succeeded()
        self._reach(Point.AFTER_REPLAY)
        for replica, write, equal in zip(replicas, writes, made, strict=True):
            if equal:
                self._observe(write, route, Outcome.ACKED, started)
                self._reporter.publish(ComparisonFinished(collection, write.verb, Verdict.MATCH))
                self._intents.taken(collection, write.op_id)
                self._end(replica, acknowledged=True)
        self._reach(Point.AFTER_CLOSE)
        return [replica for replica, equal in zip(replicas, made, strict=True) if not equal]

    def _give_up(self, replicas: Sequence[Replica], reason: Deferral) -> None:
        """Leaves writes to their intents."""
        for each in replicas:
            self.defer(each.collection, each.op_id, reason, each.key)
            self._end(each, acknowledged=False)

    async def _replay(self, write: Write, route: Route) -> None:
        """Replays, and heals if the replay did not make both equal."""
        self._reach(Point.BEFORE_REPLAY)
        secondary = self._stores[route.secondary]
        started = time.perf_counter()
        refused = False
        try:
            with self._traces.request(route.secondary, Role.SECONDARY):
                result, image = await replay(secondary, write)
                if result is Replayed.FENCED:
                    result, image = await replay_fenced(secondary, write)
        except UnsupportedOperation:
            result, image, refused = Replayed.FENCED, None, True
        except Exception as error:
            self._observe(write, route, classify(error), started)
            raise
        self._observe(write, route, Outcome.ACKED, started)
        self._reach(Point.AFTER_REPLAY)
        copied = by_result(write.change)
        if result is Replayed.EQUAL:
            if copied:
                self._undecided(write, Incomparable.NOT_PORTABLE)
            else:
                self._reporter.publish(ComparisonFinished(write.collection, write.verb, Verdict.MATCH))
            return
        async with self._routes.healing(write.collection) as now:
            _check_followed(write.collection, now)
            healing = await self._heal(write.collection, write.key, route)
        if refused or copied:
            self._undecided(write, Incomparable.NOT_PORTABLE if copied else Incomparable.REFUSED_REPLAY)
            return
        verdict = Verdict.LAGGING
        if image is not None:
            verdict = await self._judge_different(write, image, healing, unmatched=result is Replayed.UNMATCHED)
        self._reporter.publish(ComparisonFinished(write.collection, write.verb, verdict))

    def _undecided(self, write: Write, reason: Incomparable) -> None:
        """Counts a write whose results were not compared."""
        self._reporter.publish(ComparisonUndecided(write.collection, write.verb, reason))
        self._reporter.publish(ComparisonFinished(write.collection, write.verb, Verdict.INCOMPARABLE))

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

    async def _judge_different(self, write: Write, image: Image, healing: Healing, *, unmatched: bool) -> Verdict:
        """The same write from the same version had another result: comparison rules cover it, or it is a mismatch
        that needs no confirmation, for the fence held. It is healed either way."""
        rules = None if unmatched else await self._compare.agree(write.collection, write.post, image)
        if rules:
            self._compare.taken(write.collection, rules)
            for rule in rules:
                self._reporter.publish(RuleApplied(write.collection, rule))
            return Verdict.EXCUSED
        differences: tuple[Difference, ...] = (Difference(Kind.WRITE_RESULT, MATCHED_PATH, "bool", "bool"),)
        if not unmatched:
            _, differences = await self._compare.describe(write.post, image)
        if not differences:
            self._reporter.publish(ComparisonUndecided(write.collection, write.verb, Incomparable.NO_DIFFERENCE))
            return Verdict.INCOMPARABLE
        self._reporter.publish(
            MismatchConfirmed(
                Mismatch(
                    collection=write.collection,
                    verb=write.verb,
                    kind=Kind.WRITE_RESULT,
                    key=write.key,
                    differences=differences,
                    primary_state=write.post.state,
                    secondary_state=image.state,
                    healed=healing is not Healing.FAILED,
                )
            )
        )
        return Verdict.MISMATCH

    def _observe(self, write: Write, route: Route, outcome: Outcome, started: float) -> None:
        seconds = time.perf_counter() - started
        self._reporter.publish(
            OperationFinished(write.collection, write.verb, route.secondary, Role.SECONDARY, outcome, seconds)
        )

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
        """Heals what is due until cancelled; raises what the journal raises. `turn` is called at each round."""
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
        """Heals one batch of due keys. Returns how many were due. While the secondary is down, one key is the probe."""
        probing = not all(breaker.closed for breaker in self._breakers.values())
        batch = 1 if probing else self._limits.recover_batch
        found = await self._journal.due(batch, lease=self._limits.operation)
        gate = asyncio.Semaphore(self._limits.write_workers)
        try:
            # Each runs to its end, whatever another raises: none may run on after the caller has gone.
            results = await asyncio.gather(*(self._recover_one(due, gate) for due in found), return_exceptions=True)
        except asyncio.CancelledError:
            # Here, and not where each of them is healed: one that is cancelled before its first step notices nothing.
            for due in found:
                self._journal.give_back(due)
            raise
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(found)

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
        """Heals one key on request, or what an undecided one stands for. Raises `NotFollowed` in phase `off`,
        `HealContended`, TimeoutError, and what the stores raise."""
        result = Healing.EQUAL
        async with self._routes.healing(collection) as route:
            _check_followed(collection, route)
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

    def _backoff(self, attempts: int, most: float) -> float:
        return random.uniform(0.5, 1.0) * min(most, self._limits.recover_every * 2.0 ** min(attempts, 20))


def _check_followed(collection: str, route: Route) -> None:
    """Raises `NotFollowed` where only one store is written. What is read there while that lasts must not reach the
    other one: MongoDB's own calls give one version to one document after the other."""
    if not route.dual_write:
        raise NotFollowed(collection)
