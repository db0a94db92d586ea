"""The comparisons of one event loop, from the read that was offered to its verdict: those that wait for a probe, those
in the work queue, and what a failure means.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

from pymongo.errors import ConnectionFailure

from shadow.model.events import ComparisonFinished, ComponentFailed, ReadShed
from shadow.model.outcome import Outcome, classify
from shadow.model.verdict import Incomparable, ShedReason, Verdict
from shadow.reads.confirm import Confirmation, Probe, Retry
from shadow.reads.sources import SecondaryFailed, ShadowRead, incomparable
from shadow.traces.spans import Untraced, Work, scope
from shadow.writes.context import LoopContext

__all__ = ["Comparisons"]


class Comparisons:
    """`accepted`: the reads in the work queue that have no verdict yet, by number."""

    def __init__(self, context: LoopContext, confirmation: Confirmation) -> None:
        self._confirmation = confirmation
        self._queue = context.reads
        self._settle = context.limits.settle
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[asyncio.TimerHandle, ShadowRead]] = {}
        self.accepted: dict[int, ShadowRead] = {}

    def next_number(self) -> int:
        return next(self._numbers)

    @property
    def waiting(self) -> int:
        """Comparisons that wait for their next probe and hold no place in the queue."""
        return sum(read.sides.counted for _, read in self._waiting.values())

    def stop(self) -> None:
        """Forgets the probes that were still to come, or that the end of the queue cancelled, and counts them."""
        for handle, _ in self._waiting.values():
            handle.cancel()
        for read in (*(read for _, read in self._waiting.values()), *self.accepted.values()):
            self.shed(read, ShedReason.CLOSING)
        self._waiting.clear()
        self.accepted.clear()

    def shed(self, read: ShadowRead, reason: ShedReason) -> None:
        """Reports that the read gets no verdict."""
        read.sides.reporter.publish(ReadShed(read.collection, read.verb, reason))
        read.sides.reporter.publish(ComparisonFinished(read.collection, read.verb, Verdict.SHED))

    def offer(self, read: ShadowRead, probe: Probe, *, begun: bool = False) -> None:
        number = self.next_number()

        async def job() -> None:
            try:
                with self._work(read):
                    await self.run(read, probe)
            except asyncio.CancelledError:
                self.shed(read, ShedReason.CLOSING)
                raise
            finally:
                self.accepted.pop(number, None)

        # Reads need no order among themselves: each has a key of its own in the queue.
        if self._queue.offer(read.collection, ("read", number), job, ahead=begun):
            self.accepted[number] = read
        else:
            self.shed(read, ShedReason.CLOSING if self._queue.closed else ShedReason.LANE_FULL)

    def probe_later(self, read: ShadowRead, again: Retry, *, begun: bool = False) -> None:
        """The next probe, after the settling time at the earliest, without holding a place in the queue meanwhile.
        `begun`: a probe before saw a difference. Behind all reads that were not probed yet, each of its probes would
        have to wait for the whole queue."""
        if isinstance(work := scope(), Work):
            work.judged("unconfirmed")
        if len(self._waiting) >= self._queue.capacity:
            self.shed(read, ShedReason.LANE_FULL)
            return
        number = self.next_number()

        def due() -> None:
            del self._waiting[number]
            attempt = read.attempt + 1 if begun else read.attempt
            self.offer(dataclasses.replace(read, attempt=attempt), again.probe, begun=begun)

        after = max(self._settle, again.after)
        self._waiting[number] = asyncio.get_running_loop().call_later(after, due), read

    def _work(self, read: ShadowRead) -> Work | Untraced:
        """The span of one probe."""
        sides = read.sides
        uncounted = "noise" if sides.primary is sides.secondary else "canary"
        kind = "shadow_read" if sides.counted else uncounted
        return sides.traces.work(
            kind, read.collection, [read.caused_by], verb=read.verb, to=sides.secondary.name, attempt=read.attempt
        )

    async def run(self, read: ShadowRead, probe: Probe) -> None:
        breaker = read.sides.breaker
        # A collection that is only read has no write to probe with: one read at a time does it.
        if breaker is not None and not breaker.allow():
            self.shed(read, ShedReason.SECONDARY_DOWN)
            return
        try:
            verdict = await probe()
        except SecondaryFailed as failed:
            self._failed(read, probe, failed.error)
        except TimeoutError:
            self.shed(read, ShedReason.DEADLINE)
        except Exception as error:
            # The primary or the journal could not be asked again: that says nothing about the secondary.
            read.sides.reporter.publish(ComponentFailed("shadow_read", error))
            read.sides.reporter.publish(
                ComparisonFinished(read.collection, read.verb, incomparable(read, Incomparable.FAILED))
            )
        else:
            if breaker is not None:
                breaker.succeeded()
            self.conclude(read, verdict)

    def conclude(self, read: ShadowRead, verdict: Verdict | Retry) -> None:
        if isinstance(verdict, Verdict):
            read.sides.reporter.publish(ComparisonFinished(read.collection, read.verb, verdict))
        else:
            self.probe_later(read, verdict, begun=True)

    def _failed(self, read: ShadowRead, probe: Probe, error: Exception) -> None:
        breaker, reporter = read.sides.breaker, read.sides.reporter
        if not isinstance(error, TimeoutError):
            reporter.publish(ComponentFailed("shadow_read", error))
        if isinstance(error, TimeoutError | ConnectionFailure) or classify(error) is Outcome.UNKNOWN:
            if breaker is not None:
                breaker.failed()
            late = isinstance(error, TimeoutError)
            self.shed(read, ShedReason.DEADLINE if late else ShedReason.SECONDARY_DOWN)
            return
        if not read.refused:
            self.probe_later(dataclasses.replace(read, refused=True), Retry(probe))
            return
        # The secondary refuses, twice, what the primary answered: that is a difference, not an outage.
        self.probe_later(read, Retry(lambda: self._confirmation.refused_by_secondary(read, probe)), begun=True)
