"""How a job is worked off: claim a range, do it batch by batch with a checkpoint after each, until nothing is left.

The same code runs in one process, in several that share the control store, and again after any of them was killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from pymongo.errors import PyMongoError

from shadow.errors import StoreUnavailable
from shadow.migrate.control import FORMAT, Claim, Control, Issue, Job
from shadow.migrate.sides import JobRefused, Sides
from shadow.migrate.throttle import Throttle
from shadow.model.outcome import Outcome, classify
from shadow.model.version import Document, fresh_id
from shadow.replicate.process import this_process
from shadow.stores.ranges import Batch

__all__ = ["Handled", "Pace", "Task", "Work", "failed", "fingerprint", "patiently"]

T = TypeVar("T")

_TICK: Final = 0.5
"""Seconds between two looks at the control row and at the primary's latency."""
_PARTS_A_WORKER: Final = 4
"""Ranges for each worker: the more, the more evenly they end."""
_IDLE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Pace:
    """`workers` at once in this process; `rate` in documents a second over all processes (None: no limit);
    `latency`: seconds that a read of the primary may take before the job slows down (0: not looked at); `patience`:
    seconds for which a store may be out of reach before the job gives up."""

    workers: int = 8
    rate: float | None = None
    latency: float = 0.0
    patience: float = 60.0
    batch: int = 100


@dataclass(slots=True)
class Handled:
    """What came of one batch."""

    counts: Counter[str] = field(default_factory=Counter)
    issues: list[Issue] = field(default_factory=list)


class Task(Protocol):
    """One kind of job over one collection."""

    kind: str
    sides: Sides

    def options(self) -> Mapping[str, Any]:
        """What a run must have in common with the one that it goes on with. JSON-able."""

    async def cut(self, parts: int) -> tuple[list[Document], int]:
        """The ranges, and about how many documents they hold in all."""

    def walk(self, within: Document, place: Document | None, size: int) -> AsyncGenerator[Batch, None]:
        """The batches of one range."""

    async def handle(self, within: Document, batch: Batch) -> Handled:
        """Does one batch. Doing it again does no harm."""

    async def conclude(self, control: Control, job: int) -> str:
        """When all ranges are done: what is left to do, and the outcome of the job."""


def fingerprint(sides: Sides) -> str:
    """Changes with whatever makes the places of a checkpoint mean something else."""
    text = f"{FORMAT}|{sides.identity}|{sides.collection}|{sides.start.primary}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


async def patiently(
    work: Callable[[], Awaitable[T]], patience: float, *, clock: Callable[[], float] = time.monotonic
) -> T:
    """Tries again while a store is out of reach or throttles. Raises `StoreUnavailable` after `patience` seconds, and
    what is no passing fault at once."""
    began, attempt = clock(), 0
    while True:
        try:
            return await work()
        except (PyMongoError, TimeoutError) as error:
            if classify(error) is Outcome.REFUSED:
                raise
            if clock() - began > patience:
                raise StoreUnavailable(
                    f"a store could not be reached for {patience:.0f} s ({type(error).__name__})",
                    hint="start the same command again when it can: it goes on from the last checkpoint",
                ) from error
        attempt += 1
        await asyncio.sleep(random.uniform(0.5, 1.0) * min(5.0, 0.05 * 2.0**attempt))


class Work:
    """One process's part in a job. `join`: only go on with a job that there is, as a helper of another process."""

    def __init__(self, task: Task, control: Control, pace: Pace, *, restart: bool = False, join: bool = False) -> None:
        self.task = task
        self.control = control
        self.pace = pace
        self.throttle = Throttle()
        self._restart = restart
        self._join = join
        self._owner = this_process()
        self._stopping = asyncio.Event()
        self.job_id = 0

    async def run(self) -> Job:
        """Works until nothing is left, or until the job is stopped (then it has no `finished`). Raises `JobRefused`,
        `StoreUnavailable`, and what the stores raise that is no passing fault; the checkpoints stand."""
        await self.begin()
        keeper = asyncio.create_task(self._keep())
        workers = [asyncio.create_task(self._work(number)) for number in range(self.pace.workers)]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in (*workers, keeper):
                each.cancel()
            await asyncio.gather(*workers, keeper, return_exceptions=True)
        job = self._job()
        if not self._join and job.ranges_done == job.ranges and not job.finished:
            outcome = await patiently(lambda: self.task.conclude(self.control, self.job_id), self.pace.patience)
            self.control.finish(self.job_id, outcome)
        return self._job()

    async def begin(self) -> None:
        """Finds the job to go on with, or makes it and cuts it into ranges. `run` does so if it was not done."""
        task, sides = self.task, self.task.sides
        if self.job_id:
            return
        if self._join:
            self.job_id = self._joined()
            return
        self.job_id = self.control.begin(
            task.kind, sides.collection, fingerprint(sides), task.options(), restart=self._restart
        )
        if self.pace.rate is not None:
            self.control.set_rate(self.job_id, self.pace.rate)
        if not self.control.is_laid_out(self.job_id):
            parts = self.pace.workers * _PARTS_A_WORKER
            ranges, total = await patiently(lambda: task.cut(parts), self.pace.patience)
            self.control.lay_out(self.job_id, ranges, total)

    def _joined(self) -> int:
        task, sides = self.task, self.task.sides
        for job in self.control.jobs(kind=task.kind, collection=sides.collection, limit=1):
            if job.finished is None and job.fingerprint == fingerprint(sides):
                return job.id
        raise JobRefused(f"{task.kind} of {sides.collection}: there is none to join")

    def stop(self) -> None:
        """Ends this process's part after the batches at hand; `run` then returns an unfinished job."""
        self._stopping.set()

    def _job(self) -> Job:
        return self.control.job(self.job_id)

    # --- workers ------------------------------------------------------------------------------------------------

    async def _work(self, number: int) -> None:
        worker = f"{self._owner.id}/{number}/{fresh_id()}"
        while not self._stopping.is_set():
            claim = await asyncio.to_thread(self.control.claim, self.job_id, worker, self._owner)
            if claim is None:
                if await self._is_done():
                    return
                await asyncio.sleep(_IDLE)
                continue
            try:
                done = await self._range(claim)
            except BaseException:
                self.control.release(claim)
                raise
            await asyncio.to_thread(self.control.complete if done else self.control.release, claim)

    async def _is_done(self) -> bool:
        """Whether nothing is left to claim. A helper does not wait for ranges that others are at work on."""
        job = await asyncio.to_thread(self._job)
        return self._join or job.ranges_done == job.ranges

    async def _range(self, claim: Claim) -> bool:
        """Whether the range was done to its end by this worker."""
        reached = claim.place
        while True:
            try:
                async with aclosing(self.task.walk(claim.range, reached, self.pace.batch)) as batches:
                    async for batch in batches:
                        if self._stopping.is_set() or not await self._batch(claim, batch):
                            return False
                        reached = batch.place
                return True
            except (PyMongoError, TimeoutError) as error:
                if classify(error) is Outcome.REFUSED:
                    raise
            # Nothing is done before the stores answer again; then the walk goes on from the last place.
            await patiently(self._answers, self.pace.patience)

    async def _answers(self) -> None:
        for store in (self.task.sides.primary, self.task.sides.secondary):
            await store.ping()

    async def _batch(self, claim: Claim, batch: Batch) -> bool:
        await self.throttle.take(len(batch.images))
        handled = await patiently(lambda: self._handled(claim, batch), self.pace.patience)
        return await asyncio.to_thread(self.control.advance, claim, batch.place, handled.counts, handled.issues)

    async def _handled(self, claim: Claim, batch: Batch) -> Handled:
        handled = await self.task.handle(claim.range, batch)
        handled.counts["seen"] += len(batch.images)
        return handled

    # --- the pace -----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Follows the control row, and the primary's latency."""
        while True:
            with suppress(PyMongoError, TimeoutError):
                await self._look()
            await asyncio.sleep(_TICK)

    async def _look(self) -> None:
        job = await asyncio.to_thread(self._job)
        if job.stopping:
            self._stopping.set()
        self.throttle.rate = None if job.rate is None else job.rate / max(1, job.workers)
        if self.pace.latency:
            started = time.perf_counter()
            await self.task.sides.source.look(self.task.sides.collection, [""], whole=False)
            self.throttle.observe(time.perf_counter() - started, self.pace.latency)


def failed(error: Exception) -> str:
    """Why a document could not be done, without anything of it."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {code}" if isinstance(code, int) else type(error).__name__
