"""Shadow reads: repeats a read of the primary on the secondary, off the caller's path, and compares the answers.

What is offered here waits in the work queue, or is shed and counted. The confirmation (`confirm`) decides what a
comparison comes to.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from shadow.compare.comparer import Comparator
from shadow.model import events
from shadow.model.events import (
    ComparisonFinished,
    ComparisonUndecided,
    ComponentFailed,
    NoiseMeasured,
    ReadShed,
    Reporter,
)
from shadow.model.keys import queue_key
from shadow.model.limits import Watch
from shadow.model.operation import Hit, Query, Verb
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reads import DocumentRead, FindOne, Read, ValueRead
from shadow.model.server_options import hinted
from shadow.model.verdict import Incomparable, ShedReason, Verdict
from shadow.mongoql.expressions.chance import chance_in_filter
from shadow.reads.batching import KeyReads, by_key_alone
from shadow.reads.canary import Canaries
from shadow.reads.comparisons import Comparisons
from shadow.reads.confirm import Confirmation, Retry
from shadow.reads.sources import ShadowRead, StorePair, lags
from shadow.reads.unconfirmed import MemoryUnconfirmed, UnconfirmedMismatches
from shadow.stores.base import Store
from shadow.traces.spans import cause
from shadow.writes.context import LoopContext

__all__ = ["TIMED_EVERY", "ShadowReader"]

TIMED_EVERY: Final = 0.5
"""Seconds between two key reads of a collection that are not batched. In an hour they are enough for the gate."""
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
        self, context: LoopContext, unconfirmed: UnconfirmedMismatches, watch: Watch, late: Callable[[], bool]
    ) -> None:
        """`late`: whether the application's own work waits for its turn in the event loop."""
        stores = context.stores
        self._limits = context.limits
        self._expiry = context.expiry
        self._reporter = context.reporter
        self._writes = context.writes
        self._routes = context.routes.all
        self._watch = watch
        self._late = late
        self._unconfirmed = unconfirmed
        self._confirmation = Confirmation(context.journal, context.limits, Comparator(context.hasher, context.excuses))
        self._comparisons = Comparisons(context, self._confirmation)
        self._sides = {
            name: _both(context, name, unconfirmed) for name in StoreName if name in stores and name.other in stores
        }
        self._noises = {name: _itself(store, context) for name, store in stores.items()}
        self._timed: dict[str, float] = {}
        """When the next key read of a collection is to be asked by itself."""
        self._near = KeyReads(context, self._confirmation, self._comparisons)
        self.canaries = Canaries(watch, context.reporter, self._routes, self._sides.__getitem__, self._offer_planted)

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
        seconds: float | None = None,
    ) -> None:
        """Compares the documents that the store of this role has answered with the other store's. Nobody may change
        `hits` after this. `seconds`: in which the primary has answered, to be compared with the secondary's."""
        if self._late():
            self.shed(collection, asked.verb, ShedReason.LOOP_LAG)
            return
        if chance_in_filter(asked.filter):
            self.incomparable(collection, asked.verb, Incomparable.CHANCE)
            return
        read = self._read(collection, asked, route, seconds)
        if any(self._writes.busy(queue_key(collection, hit.key)) for hit in hits):
            # A write of one of them is still on its way: comparing now would only see that.
            self._comparisons.probe_later(read, Retry(lambda: self._confirmation.probe(read)))
        elif _lags(asked):
            self._comparisons.offer(read, lambda: self._confirmation.first_of_newest(read))
        elif by is Role.SECONDARY:
            self._comparisons.offer(read, lambda: self._confirmation.first_of_secondary(read, hits))
        elif by_key_alone(read) and not self._is_timed(collection):
            self._near.offer(read, hits)
        else:
            self._comparisons.offer(read, lambda: self._confirmation.first(read, hits))
        if by is Role.PRIMARY and self._is_noise():
            noise = dataclasses.replace(read, sides=self._noises[route.primary])
            self._comparisons.offer(noise, lambda: self._confirmation.first(noise, hits))

    def offer_values(
        self,
        collection: str,
        asked: ValueRead,
        given: Any,
        route: Route,
        *,
        by: Role = Role.PRIMARY,
        seconds: float | None = None,
    ) -> None:
        """Compares an answer that names no documents, given by the store of this role, with the other store's. Nobody
        may change `given` after this. `seconds`: as for documents."""
        if self._late():
            self.shed(collection, asked.verb, ShedReason.LOOP_LAG)
            return
        if chance_in_filter(asked.filter):
            self.incomparable(collection, asked.verb, Incomparable.CHANCE)
            return
        read = self._read(collection, asked, route, seconds)
        if _lags(asked):
            self._comparisons.offer(read, lambda: self._confirmation.first_values_of_newest(read))
        else:
            self._comparisons.offer(read, lambda: self._confirmation.first_values(read, given, by))
        if by is Role.PRIMARY and self._is_noise():
            noise = dataclasses.replace(read, sides=self._noises[route.primary])
            self._comparisons.offer(noise, lambda: self._confirmation.first_values(noise, given, by))

    def offer_refusal(self, collection: str, asked: Read, error: Exception, route: Route) -> None:
        """The primary has refused a read with `error`: the secondary has to refuse it too, unless the application
        named an index, of which only MongoDB says that it does not exist."""
        if hinted():
            self.incomparable(collection, asked.verb, Incomparable.NOT_PORTABLE)
            return
        # Whether it would go through an index that lags is not asked: the plan of such a read may be refused as well.
        sides, expiry = self._sides[route.primary], self._expiry(collection)
        read = ShadowRead(collection, asked, sides, expiry=expiry, caused_by=cause())
        self._comparisons.offer(read, lambda: self._confirmation.refusal(read, error))

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        """Counts a read that is not compared."""
        self._reporter.publish(ReadShed(collection, verb, reason))
        self._reporter.publish(ComparisonFinished(collection, verb, Verdict.SHED))

    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None:
        """Counts a read that cannot be called equal or different."""
        self._reporter.publish(ComparisonUndecided(collection, verb, reason))
        self._reporter.publish(ComparisonFinished(collection, verb, Verdict.INCOMPARABLE))

    def stop(self) -> None:
        """Forgets the probes that were still to come, or that the end of the queue cancelled, and counts them."""
        self._near.stop()
        self._comparisons.stop()

    @property
    def waiting(self) -> int:
        """Comparisons that wait for their first or next probe and hold no place in the queue yet."""
        return self._comparisons.waiting + len(self._near)

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
            self._comparisons.offer(read, lambda read=read: self._confirmation.probe(read))  # type: ignore[misc]
        return len(found)

    # --- one comparison -----------------------------------------------------------------------------------------

    def _read(self, collection: str, asked: Read, route: Route, seconds: float | None = None) -> ShadowRead:
        sides = self._sides[route.primary]
        late = lags(sides, collection, asked.filter)
        expiry = self._expiry(collection)
        return ShadowRead(collection, asked, sides, late, expiry=expiry, caused_by=cause(), seconds=seconds)

    def _is_timed(self, collection: str) -> bool:
        """Whether a key read is to be asked by itself: a request for many keys does not say how long one takes."""
        now = time.monotonic()
        if now < self._timed.setdefault(collection, now + TIMED_EVERY):
            return False
        self._timed[collection] = now + TIMED_EVERY
        return True

    def _is_noise(self) -> bool:
        return bool(self._watch.noise_share) and random.random() < self._watch.noise_share

    def _offer_planted(self, read: ShadowRead, hits: list[Hit]) -> None:
        self._comparisons.offer(read, lambda: self._confirmation.first(read, hits))


def _lags(asked: Read) -> bool:
    """Whether a member that lags may answer the read."""
    return asked.read_options is not None and asked.read_options.lags


def _both(context: LoopContext, primary: StoreName, unconfirmed: UnconfirmedMismatches) -> StorePair:
    stores, secondary = context.stores, primary.other
    breaker, traces = context.breakers[secondary], context.traces
    return StorePair(stores[primary], stores[secondary], breaker, context.reporter, unconfirmed, traces=traces)


def _itself(store: Store, context: LoopContext) -> StorePair:
    noise = _Noise(context.reporter)
    return StorePair(store, store, None, noise, MemoryUnconfirmed(), counted=False, traces=context.traces)
