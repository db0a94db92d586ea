"""Batches shadow reads by key: those that come within 100 ms are one request to the secondary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import bson
from bson import ObjectId
from pymongo.errors import ConnectionFailure

from shadow.compare.comparer import is_heavy
from shadow.model.events import ComparisonFinished, ComponentFailed, OperationFinished
from shadow.model.operation import Hit
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, StoreName
from shadow.model.reads import FindOne
from shadow.model.stored import is_readable
from shadow.model.verdict import Incomparable, ShedReason, Verdict
from shadow.model.version import Image, Key, Version
from shadow.reads.comparisons import Comparisons
from shadow.reads.confirm import Confirmation, Retry
from shadow.reads.sources import ShadowRead, incomparable
from shadow.stores.breaker import Breaker
from shadow.stores.within import within
from shadow.writes.context import LoopContext

__all__ = ["Batcher", "KeyReads", "by_key_alone"]

_CHEAP_IN_BATCHES: Final = frozenset({StoreName.DYNAMO})
"""Stores whose client spends most of its time on the request, whatever is in it. MongoDB's is not one."""
_MAX_WAIT: Final = 0.1
"""Seconds that a key read waits for others to share its request: less than the settling time, which a write in between
would cost. A request costs the client many times what one more key in it does."""
_MAX_BATCH: Final = 25
"""Key reads in one request. Decoding its answer blocks the event loop for a millisecond; more would be felt."""
_IN_ONE_GO: Final = 5
"""Comparisons after which the event loop is given back to the application."""

T = TypeVar("T")


class Batcher(Generic[T]):
    """Hands over a batch when it has `max_size` members, or `max_wait` seconds after its first. For one event loop."""

    def __init__(self, *, max_wait: float, max_size: int, hand_over: Callable[[list[T]], None]) -> None:
        self._max_wait = max_wait
        self._max_size = max_size
        self._hand_over = hand_over
        self._groups: dict[Hashable, tuple[asyncio.TimerHandle, list[T]]] = {}

    def __len__(self) -> int:
        """How many have come and are not handed over yet."""
        return sum(len(members) for _, members in self._groups.values())

    def add(self, group: Hashable, member: T) -> None:
        known = self._groups.get(group)
        if known is None:
            timer = asyncio.get_running_loop().call_later(self._max_wait, self._due, group)
            known = self._groups[group] = timer, []
        known[1].append(member)
        if len(known[1]) >= self._max_size:
            known[0].cancel()
            self._due(group)

    def _due(self, group: Hashable) -> None:
        self._hand_over(self._groups.pop(group)[1])

    def stop(self) -> None:
        """Forgets what has not been handed over."""
        for timer, _ in self._groups.values():
            timer.cancel()
        self._groups.clear()


@dataclass(frozen=True, slots=True)
class _KeyRead:
    """A read of one document by its key alone, the primary's answer to it, and its number among the accepted reads."""

    read: ShadowRead
    key: Key
    hits: Sequence[Hit]
    turn: int


def by_key_alone(read: ShadowRead) -> bool:
    """Whether the read asks for the whole document under one key, of a store that answers many keys as cheaply as
    one."""
    if not isinstance(read.asked, FindOne):
        return False
    query = read.asked.query
    return (
        read.sides.secondary.name in _CHEAP_IN_BATCHES
        and len(query.filter) == 1
        and type(query.filter.get("_id")) in (str, ObjectId)
        and not query.projection
        and not query.skip
    )


class KeyReads:
    """Compares in batches the reads of one document by its key alone."""

    def __init__(self, context: LoopContext, confirmation: Confirmation, comparisons: Comparisons) -> None:
        self._queue = context.reads
        self._limits = context.limits
        self._reporter = context.reporter
        self._traces = context.traces
        self._confirmation = confirmation
        self._comparisons = comparisons
        self._accepted = comparisons.accepted
        self._near: Batcher[_KeyRead] = Batcher(max_wait=_MAX_WAIT, max_size=_MAX_BATCH, hand_over=self._offer)

    def __len__(self) -> int:
        """Reads that wait to be batched."""
        return len(self._near)

    def stop(self) -> None:
        """Forgets those; they stay among the accepted."""
        self._near.stop()

    def offer(self, read: ShadowRead, hits: Sequence[Hit]) -> None:
        """Takes a read (`by_key_alone`) with the primary's answer to it."""
        if self._queue.closed or len(self._accepted) >= self._queue.capacity:
            self._comparisons.shed(read, ShedReason.CLOSING if self._queue.closed else ShedReason.LANE_FULL)
            return
        turn = self._comparisons.next_number()
        self._accepted[turn] = read
        self._near.add((read.collection, read.sides), _KeyRead(read, read.asked.filter["_id"], hits, turn))

    def _offer(self, near: list[_KeyRead]) -> None:
        async def job() -> None:
            first = near[0].read
            causes = [each.read.caused_by for each in near]
            to = first.sides.secondary.name
            work = self._traces.work("shadow_read", first.collection, causes, verb=first.verb, to=to)
            try:
                with work:
                    await self._run_together(near)
            except asyncio.CancelledError:
                self._shed_left(near, ShedReason.CLOSING)
                raise
            finally:
                for each in near:
                    self._accepted.pop(each.turn, None)

        if not self._queue.offer(near[0].read.collection, ("read", near[0].turn), job):
            self._shed_left(near, ShedReason.CLOSING if self._queue.closed else ShedReason.LANE_FULL)

    def _shed_left(self, near: Sequence[_KeyRead], reason: ShedReason) -> None:
        """Counts those that have no verdict yet."""
        for each in near:
            if self._accepted.pop(each.turn, None) is not None:
                self._comparisons.shed(each.read, reason)

    async def _run_together(self, near: Sequence[_KeyRead]) -> None:
        first = near[0]
        if len(near) == 1:
            await self._comparisons.run(first.read, lambda: self._confirmation.first(first.read, first.hits))
            return
        breaker = first.read.sides.breaker
        if breaker is not None and not breaker.allow():
            self._shed_left(near, ShedReason.SECONDARY_DOWN)
            return
        try:
            images = await self._ask(near)
        except Exception as error:
            self._failed(near, error, breaker)
            return
        if breaker is not None:
            breaker.succeeded()
        equal = 0
        try:
            for place, (each, image) in enumerate(zip(near, images, strict=True)):
                if place % _IN_ONE_GO == 0:
                    await asyncio.sleep(0)
                verdict = await self._verdict(each, image)
                self._accepted.pop(each.turn, None)
                if verdict is Verdict.MATCH:
                    equal += 1
                else:
                    self._comparisons.conclude(each.read, verdict)
        finally:
            # Counting them one by one would cost more than comparing them.
            if equal:
                first.read.sides.reporter.publish(
                    ComparisonFinished(first.read.collection, first.read.verb, Verdict.MATCH, equal)
                )

    async def _ask(self, near: Sequence[_KeyRead]) -> list[Image]:
        read = near[0].read
        store, started, outcome = read.sides.secondary, time.perf_counter(), Outcome.UNKNOWN
        try:
            async with within(self._limits.read_deadline):
                with self._traces.request(store.name, Role.SECONDARY):
                    images = await store.images(read.collection, [each.key for each in near])
            outcome = Outcome.ACKED
            return images
        finally:
            self._reporter.publish(
                OperationFinished(
                    read.collection,
                    read.verb,
                    store.name,
                    Role.SECONDARY,
                    outcome,
                    time.perf_counter() - started,
                    len(near),
                )
            )

    def _failed(self, near: Sequence[_KeyRead], error: Exception, breaker: Breaker | None) -> None:
        """Counts one failure, for one request failed. The secondary may have refused it for one key alone, so each is
        asked for again by itself."""
        if not isinstance(error, TimeoutError):
            self._reporter.publish(ComponentFailed("shadow_read", error))
        if isinstance(error, TimeoutError | ConnectionFailure) or classify(error) is Outcome.UNKNOWN:
            if breaker is not None:
                breaker.failed()
            late = isinstance(error, TimeoutError)
            self._shed_left(near, ShedReason.DEADLINE if late else ShedReason.SECONDARY_DOWN)
            return
        for each in near:
            self._comparisons.probe_later(each.read, Retry(lambda read=each.read: self._confirmation.probe(read)))  # type: ignore[misc]

    async def _verdict(self, each: _KeyRead, image: Image) -> Verdict | Retry:
        try:
            if _is_equal(each, image):
                return Verdict.MATCH
            found: list[Hit] = []
            if image.document is not None:
                version = image.state if isinstance(image.state, Version) else Version("", 0)
                found.append(Hit(each.key, version, image.document))
            return await self._confirmation.compare(each.read, each.hits, found)
        except Exception as error:
            self._reporter.publish(ComponentFailed("shadow_read", error))
            return incomparable(each.read, Incomparable.FAILED)


def _is_equal(each: _KeyRead, image: Image) -> bool:
    """Whether both stores answered the same document to the byte, which is so for nearly all reads. False if that is
    not certain, or would take long on the event loop."""
    if len(each.hits) != 1 or image.document is None or is_heavy((image.document,)):
        return False
    if not is_readable(image.document) or not is_readable(each.hits[0].document):
        return False
    return bson.encode(each.hits[0].document) == bson.encode(image.document)
