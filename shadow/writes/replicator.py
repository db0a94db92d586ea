"""The replicator: replays the primary's writes on the secondary, and repairs what could not be replayed at once.

A write that the work queue has no room for, that the secondary refuses, or that takes too long, is left to its intent;
the recovery loop repairs it later, oldest first. Nothing here ever raises into an application call.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from shadow.compare.comparer import Comparator
from shadow.errors import UnsupportedOperation
from shadow.host.failpoints import Point
from shadow.journal.base import undecided
from shadow.model.events import (
    ComparisonFinished,
    ComparisonUndecided,
    MismatchConfirmed,
    OperationFinished,
    RuleApplied,
    WriteDeferred,
)
from shadow.model.keys import queue_key
from shadow.model.operation import ANY, Verb, Write
from shadow.model.outcome import Outcome, classify
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
from shadow.stores.within import within
from shadow.traces.spans import cause
from shadow.writes.context import LoopContext
from shadow.writes.heal import Replayed, by_result, replay, replay_fenced, replay_many
from shadow.writes.healer import Healer, check_followed
from shadow.writes.replica import Replica
from shadow.writes.work_queue import Batch, Hold

__all__ = ["Replicator"]

_REQUESTS: Final = 4
"""Requests at once that a batch of replays makes. So many batches run at once that their requests are as many as
there are workers: what a call for many documents makes in an instant would else reach the secondary in an instant."""


class Replicator(Healer):
    """One for each event loop. What it cannot replay, it repairs."""

    def __init__(self, context: LoopContext) -> None:
        super().__init__(context)
        self._queue = context.writes
        self._compare = Comparator(context.hasher, context.excuses)
        self._intents = context.intents
        self._following: dict[str, str] = {}
        self._batching = {name: each for name, each in context.stores.items() if isinstance(each, ReplayingMany)}
        self._alone = asyncio.Semaphore(context.limits.write_workers)
        self._together = asyncio.Semaphore(max(1, context.limits.write_workers // _REQUESTS))

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
                check_followed(collection, now)
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
            check_followed(write.collection, now)
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
