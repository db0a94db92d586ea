"""Shadow reads: repeats a read of the primary on the secondary, off the caller's path, and compares the answers.

What is offered here waits in the work queue, or is shed and counted. The confirmation (`confirm`) decides what a
comparison comes to.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import ConnectionFailure

from shadow.compare.comparer import Comparator
from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.journal.base import Journal
from shadow.model import events
from shadow.model.events import (
    ComparisonFinished,
    ComparisonUndecided,
    ComponentFailed,
    MismatchConfirmed,
    NoiseMeasured,
    ReadShed,
    Reporter,
)
from shadow.model.keys import queue_key
from shadow.model.limits import Limits, Watch
from shadow.model.operation import Hit, Query, Verb
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reads import DocumentRead, FindOne, Read, ValueRead
from shadow.model.verdict import ERROR_PATH, Difference, Incomparable, Kind, Mismatch, ShedReason, Verdict
from shadow.reads.batching import KeyReads, by_key_alone
from shadow.reads.canary import Canaries
from shadow.reads.confirm import Confirmation, Probe, Retry
from shadow.reads.sources import SecondaryFailed, ShadowRead, StorePair, incomparable, lags
from shadow.reads.unconfirmed import MemoryUnconfirmed, UnconfirmedMismatches
from shadow.stores.base import Store
from shadow.stores.breaker import Breaker
from shadow.writes.work_queue import WorkQueue

__all__ = ["ShadowReader"]

_REVISIT: Final = 5.0
"""Seconds between two rounds over the unconfirmed mismatches, and for how long nobody must have probed one."""
_REVISITED: Final = 20
"""Unconfirmed mismatches of one round, at most."""


class _Noise:
    """The reporter of comparisons of the primary with itself."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def publish(self, event: events.Event) -> None:
        match event:
            case events.ComparisonFinished():
                for _ in range(event.count):
                    self._reporter.publish(NoiseMeasured(event.collection, event.verb, event.verdict))
            case ComponentFailed():
                self._reporter.publish(event)


class ShadowReader:
    """One for each event loop."""

    def __init__(
        self,
        stores: Mapping[StoreName, Store],
        breakers: Mapping[StoreName, Breaker],
        journal: Journal,
        queue: WorkQueue,
        writes: WorkQueue,
        limits: Limits,
        reporter: Reporter,
        hasher: Hasher,
        *,
        excuses: Excuses | None = None,
        unconfirmed: UnconfirmedMismatches | None = None,
        watch: Watch | None = None,
        routes: Callable[[], Mapping[str, Route]] = dict,
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        """`queue` takes the comparisons; `writes` is the queue of replicated writes, which tells which documents have a
        write under way. `late`: whether the application's own work waits for its turn in the event loop."""
        self._stores = stores
        self._breakers = breakers
        self._queue = queue
        self._limits = limits
        self._reporter = reporter
        self._writes = writes
        self._watch = watch or Watch()
        self._routes = routes
        self._late = late
        self._unconfirmed = unconfirmed or MemoryUnconfirmed()
        self._confirmation = Confirmation(journal, limits, Comparator(hasher, excuses or Excuses()))
        self._turn = itertools.count()
        self._waiting: dict[int, tuple[asyncio.TimerHandle, ShadowRead]] = {}
        self._accepted: dict[int, ShadowRead] = {}
        self._sides = {name: self._of(name) for name in StoreName if name in stores and name.other in stores}
        self._noises = {name: self._itself(name) for name in stores}
        self._near = KeyReads(
            queue,
            limits,
            self._confirmation,
            reporter,
            self._turn,
            self._accepted,
            run=self._run,
            later=self._probe_later,
            conclude=self._conclude,
            shed=self._shed,
        )
        self.canaries = Canaries(self._watch, reporter, routes, self._sides.__getitem__, self._offer_planted)

    def _of(self, primary: StoreName) -> StorePair:
        secondary = primary.other
        return StorePair(
            self._stores[primary],
            self._stores[secondary],
            self._breakers[secondary],
            self._reporter,
            self._unconfirmed,
        )

    def _itself(self, primary: StoreName) -> StorePair:
        store = self._stores[primary]
        return StorePair(store, store, None, _Noise(self._reporter), MemoryUnconfirmed(), counted=False)

    def sampled(self, route: Route) -> bool:
        """Whether this read is to be shadowed. Decides before anything is kept for it."""
        if not route.shadow_read or (route.shadow_reads < 1.0 and random.random() >= route.shadow_reads):
            return False
        return not self._watch.holdout or random.random() >= self._watch.holdout

    def offer_documents(
        self,
        collection: str,
        asked: DocumentRead,
        hits: Sequence[Hit],
        route: Route,
        *,
        by: Role = Role.PRIMARY,
    ) -> None:
        """Compares the documents that the store of this role has answered with the other store's. Nobody may change
        `hits` after this."""
        if self._late():
            self.shed(collection, asked.verb, ShedReason.LOOP_LAG)
            return
        read = self._read(collection, asked, route)
        if any(self._writes.busy(queue_key(collection, hit.key)) for hit in hits):
            # A write of one of them is still on its way: comparing now would only see that.
            self._probe_later(read, Retry(lambda: self._confirmation.probe(read)))
        elif by is Role.SECONDARY:
            self._offer(read, lambda: self._confirmation.first_of_secondary(read, hits))
        elif by_key_alone(read):
            self._near.offer(read, hits)
        else:
            self._offer(read, lambda: self._confirmation.first(read, hits))
        if by is Role.PRIMARY and self._is_noise():
            noise = dataclasses.replace(read, sides=self._noises[route.primary])
            self._offer(noise, lambda: self._confirmation.first(noise, hits))

    def offer_values(
        self, collection: str, asked: ValueRead, given: Any, route: Route, *, by: Role = Role.PRIMARY
    ) -> None:
        """Compares an answer that names no documents, given by the store of this role, with the other store's. Nobody
        may change `given` after this."""
        if self._late():
            self.shed(collection, asked.verb, ShedReason.LOOP_LAG)
            return
        read = self._read(collection, asked, route)
        self._offer(read, lambda: self._confirmation.first_values(read, given, by))
        if by is Role.PRIMARY and self._is_noise():
            noise = dataclasses.replace(read, sides=self._noises[route.primary])
            self._offer(noise, lambda: self._confirmation.first_values(noise, given, by))

    def offer_refusal(self, collection: str, asked: Read, error: Exception, route: Route) -> None:
        """The primary has refused a read with `error`: the secondary has to refuse it too."""
        # Whether it would go through an index that lags is not asked: the plan of such a read may be refused as well.
        read = ShadowRead(collection, asked, self._sides[route.primary])
        self._offer(read, lambda: self._confirmation.refusal(read, error))

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        """Counts a read that is not compared."""
        self._reporter.publish(ReadShed(collection, verb, reason))
        self._reporter.publish(ComparisonFinished(collection, verb, Verdict.SHED))

    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None:
        """Counts a read of which neither equal nor different can be said."""
        self._reporter.publish(ComparisonUndecided(collection, verb, reason))
        self._reporter.publish(ComparisonFinished(collection, verb, Verdict.INCOMPARABLE))

    def stop(self) -> None:
        """Forgets the probes that were still to come, or that the end of the queue cancelled, and counts them."""
        self._near.stop()
        for handle, _ in self._waiting.values():
            handle.cancel()
        for read in (*(read for _, read in self._waiting.values()), *self._accepted.values()):
            self._shed(read, ShedReason.CLOSING)
        self._waiting.clear()
        self._accepted.clear()

    @property
    def waiting(self) -> int:
        """Comparisons that wait for their first or next probe and hold no place in the queue yet."""
        return sum(read.sides.counted for _, read in self._waiting.values()) + len(self._near)

    async def revisit_forever(self, turn: Callable[[], None] = lambda: None) -> None:
        """Probes unconfirmed mismatches that nobody else probes: those of processes that have ended, and those whose
        documents are no longer read. `turn` is called at each round."""
        while True:
            turn()
            await self.revisit(_REVISIT)
            await asyncio.sleep(_REVISIT)

    async def revisit(self, idle: float) -> int:
        """One round. Returns how many there were that nobody has probed for `idle` seconds."""
        found = await self._unconfirmed.left(idle, _REVISITED)
        routes = self._routes()
        for each in found:
            route = routes.get(each.collection)
            if route is None or not route.shadow_read:
                await self._unconfirmed.clear(each.collection, each.key)
                continue
            read = self._read(each.collection, FindOne(Query({"_id": {"$eq": each.key}}, limit=1)), route)
            self._offer(read, lambda read=read: self._confirmation.probe(read))  # type: ignore[misc]
        return len(found)

    # --- one comparison -----------------------------------------------------------------------------------------

    def _read(self, collection: str, asked: Read, route: Route) -> ShadowRead:
        sides = self._sides[route.primary]
        return ShadowRead(collection, asked, sides, lags(sides, collection, asked.filter))

    def _is_noise(self) -> bool:
        return bool(self._watch.noise_share) and random.random() < self._watch.noise_share

    def _offer_planted(self, read: ShadowRead, hits: list[Hit]) -> None:
        self._offer(read, lambda: self._confirmation.first(read, hits))

    def _shed(self, read: ShadowRead, reason: ShedReason) -> None:
        read.sides.reporter.publish(ReadShed(read.collection, read.verb, reason))
        read.sides.reporter.publish(ComparisonFinished(read.collection, read.verb, Verdict.SHED))

    def _offer(self, read: ShadowRead, probe: Probe, *, begun: bool = False) -> None:
        turn = next(self._turn)

        async def job() -> None:
            try:
                await self._run(read, probe)
            except asyncio.CancelledError:
                self._shed(read, ShedReason.CLOSING)
                raise
            finally:
                self._accepted.pop(turn, None)

        # Reads need no order among themselves: each has a key of its own in the queue.
        if self._queue.offer(read.collection, ("read", turn), job, ahead=begun):
            self._accepted[turn] = read
        else:
            self._shed(read, ShedReason.CLOSING if self._queue.closed else ShedReason.LANE_FULL)

    def _probe_later(self, read: ShadowRead, again: Retry, *, begun: bool = False) -> None:
        """The next probe, after the settling time at the earliest, without holding a place in the queue meanwhile.
        `begun`: a probe before saw a difference. Behind all reads that were not probed yet, each of its probes would
        have to wait for the whole queue."""
        if len(self._waiting) >= self._queue.capacity:
            self._shed(read, ShedReason.LANE_FULL)
            return
        turn = next(self._turn)

        def due() -> None:
            del self._waiting[turn]
            self._offer(read, again.probe, begun=begun)

        after = max(self._limits.settle, again.after)
        self._waiting[turn] = asyncio.get_running_loop().call_later(after, due), read

    async def _run(self, read: ShadowRead, probe: Probe) -> None:
        breaker = read.sides.breaker
        # A collection that is only read has no write to probe with: one read at a time does it.
        if breaker is not None and not breaker.allow():
            self._shed(read, ShedReason.SECONDARY_DOWN)
            return
        try:
            verdict = await probe()
        except SecondaryFailed as failed:
            self._failed(read, probe, failed.error)
        except TimeoutError:
            self._shed(read, ShedReason.DEADLINE)
        except Exception as error:
            # The primary or the journal could not be asked again: that says nothing about the secondary.
            read.sides.reporter.publish(ComponentFailed("shadow_read", error))
            read.sides.reporter.publish(
                ComparisonFinished(read.collection, read.verb, incomparable(read, Incomparable.FAILED))
            )
        else:
            if breaker is not None:
                breaker.succeeded()
            self._conclude(read, verdict)

    def _conclude(self, read: ShadowRead, verdict: Verdict | Retry) -> None:
        if isinstance(verdict, Verdict):
            read.sides.reporter.publish(ComparisonFinished(read.collection, read.verb, verdict))
        else:
            self._probe_later(read, verdict, begun=True)

    def _failed(self, read: ShadowRead, probe: Probe, error: Exception) -> None:
        breaker, reporter = read.sides.breaker, read.sides.reporter
        if not isinstance(error, TimeoutError):
            reporter.publish(ComponentFailed("shadow_read", error))
        if isinstance(error, TimeoutError | ConnectionFailure) or classify(error) is Outcome.UNKNOWN:
            if breaker is not None:
                breaker.failed()
            late = isinstance(error, TimeoutError)
            self._shed(read, ShedReason.DEADLINE if late else ShedReason.SECONDARY_DOWN)
            return
        if not read.refused:
            self._probe_later(dataclasses.replace(read, refused=True), Retry(probe))
            return
        # The secondary refuses, twice, what the primary answered: that is a difference, not an outage.
        found = Difference(Kind.ERROR_SECONDARY_ONLY, ERROR_PATH, secondary_type=type(error).__name__)
        reporter.publish(
            MismatchConfirmed(Mismatch(read.collection, read.verb, Kind.ERROR_SECONDARY_ONLY, None, (found,)))
        )
        reporter.publish(ComparisonFinished(read.collection, read.verb, Verdict.MISMATCH))
