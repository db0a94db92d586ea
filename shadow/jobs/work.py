"""How a job is done: claim a range, do it batch by batch with a checkpoint after each, until no range is left.

The same code runs in one process, in several of any hosts that share the control store, and again after any of them was
killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from pymongo.errors import PyMongoError

from shadow.errors import ControlError, StoreUnavailable, UnreadableDocument
from shadow.host.process import this_process
from shadow.host.tasks import begin
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import FORMAT, SILENT, Job, Jobs, RangeClaim
from shadow.jobs.target import JobRefused, JobTarget
from shadow.jobs.throttle import RateLimiter
from shadow.model.events import ComponentFailed
from shadow.model.outcome import Outcome, classify
from shadow.model.version import Document, fresh_id
from shadow.stores.ranges import Batch
from shadow.traces.spans import Untraced, current_cause
from shadow.traces.spans import Work as Span

__all__ = ["Handled", "JobPace", "Task", "Work", "failed", "fingerprint", "patiently"]

T = TypeVar("T")
P = ParamSpec("P")

_TICK: Final = 0.5
"""Seconds between two reads of the job's record and of the primary's latency."""
_RANGES_A_WORKER: Final = 4
"""The more ranges, the more evenly the workers end."""
_MOST_RANGES: Final = 1000
_IDLE: Final = 0.25
"""Seconds between two attempts to claim a range that has become free."""
_BEAT: Final = SILENT / 4
"""Seconds between the heartbeats of a claim, where a batch takes that long."""


@dataclass(frozen=True, slots=True)
class JobPace:
    """`workers` at once in this process; `rate` in documents a second over all processes (None: no limit);
    `latency`: seconds that a read of the primary may take before the job slows down (0: not measured); `patience`:
    seconds for which a store may be unreachable before the job gives up."""

    workers: int = 8
    rate: float | None = None
    latency: float = 0.0
    patience: float = 60.0
    batch: int = 100


@dataclass(slots=True)
class Handled:
    """The result of one batch."""

    counts: Counter[str] = field(default_factory=Counter)
    issues: list[Issue] = field(default_factory=list)


class Task(Protocol):
    """One kind of job over one collection."""

    kind: str
    sides: JobTarget

    def options(self) -> Mapping[str, Any]:
        """What a run must have in common with the one that it resumes. JSON-able."""

    async def doubts(self) -> str:
        """The journal's unverified mark before anything is read, where the outcome depends on it; see `Job.doubts`."""

    async def split(self, parts: int) -> tuple[list[Document], int]:
        """The ranges, and about how many documents they hold together."""

    def scan(self, within: Document, cursor: Document | None, size: int) -> AsyncGenerator[Batch, None]:
        """The batches of one range behind a cursor."""

    async def handle(self, within: Document, batch: Batch) -> Handled:
        """Does one batch. Idempotent."""

    async def conclude(self, jobs: Jobs, job: int) -> str:
        """Does what is left when all ranges are done; the outcome of the job."""


def fingerprint(sides: JobTarget) -> str:
    """Changes with whatever makes the cursors of a checkpoint mean something else."""
    text = f"{FORMAT}|{sides.identity}|{sides.collection}|{sides.start.primary}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


async def patiently(
    work: Callable[[], Awaitable[T]], patience: float, *, clock: Callable[[], float] = time.monotonic
) -> T:
    """Retries while a store, or the control store, is unreachable or throttles. Raises `StoreUnavailable` after
    `patience` seconds, and at once whatever is no transient error."""
    began, attempt = clock(), 0
    while True:
        try:
            return await work()
        except (PyMongoError, TimeoutError, ControlError) as error:
            if not isinstance(error, ControlError) and classify(error) is Outcome.REFUSED:
                raise
            if clock() - began > patience:
                raise StoreUnavailable(
                    f"a store could not be reached for {patience:.0f} s ({type(error).__name__})",
                    hint="run the same command again when it can: it resumes from the last checkpoint",
                ) from error
        attempt += 1
        await asyncio.sleep(random.uniform(0.5, 1.0) * min(5.0, 0.05 * 2.0**attempt))


@dataclass(frozen=True)
class WorkOptions:
    """How a process takes part in a job."""

    restart: bool = False
    """Whether an unfinished job is discarded."""
    join: bool = False
    """Whether it only helps with a job that exists."""
    wait: bool = False
    """With `join`: whether it helps until the job is done or stopped, else for as long as ranges are free."""
    slots: int | None = None
    """How many workers there will be in all processes, by which the job is split; None: those of this one."""


class Work:
    """The share of one process in a job, or of one task of a cluster."""

    def __init__(self, task: Task, jobs: Jobs, pace: JobPace, options: WorkOptions | None = None) -> None:
        options = options or WorkOptions()
        self.task = task
        self.jobs = jobs
        self.pace = pace
        self.throttle = RateLimiter()
        self._restart = options.restart
        self._join = options.join
        self._wait = options.wait or not options.join
        self._slots = options.slots or pace.workers
        self._owner = this_process()
        self._part = fresh_id()
        self._cause = current_cause()
        self._held: dict[str, RangeClaim] = {}
        self._seeking = asyncio.Lock()
        self._stopping = asyncio.Event()
        self.job_id = 0

    async def run(self) -> Job:
        """Works until nothing is left, or until the job is stopped (then it has no `finished`). Raises `JobRefused`,
        `StoreUnavailable`, and what the stores raise that is no transient error; the checkpoints are kept."""
        await self.begin()
        await self.work()
        return await self.end()

    async def begin(self) -> None:
        """Finds the job to resume, or creates it and splits it into ranges. `run` does so if it was not done."""
        task, sides = self.task, self.task.sides
        if self.job_id:
            return
        if task.sides.start.dual_write:
            await patiently(sides.check_kind, self.pace.patience)
        if self._join:
            self.job_id = await self._joined()
            return
        self.job_id = await self._ask(
            self.jobs.begin, task.kind, sides.collection, fingerprint(sides), task.options(), restart=self._restart
        )
        if self.pace.rate is not None:
            await self._ask(self.jobs.set_rate, self.job_id, self.pace.rate)
        if not (await self.look()).laid_out:
            parts = min(_MOST_RANGES, self._slots * _RANGES_A_WORKER)
            doubts = await task.doubts()
            ranges, total = await patiently(lambda: task.split(parts), self.pace.patience)
            await self._ask(self.jobs.create_ranges, self.job_id, ranges, total, doubts)

    async def _joined(self) -> int:
        task, sides = self.task, self.task.sides
        for job in await self._ask(self.jobs.jobs, kind=task.kind, collection=sides.collection, limit=1):
            if job.finished is None and job.fingerprint == fingerprint(sides):
                return job.id
        raise JobRefused(
            f"{task.kind} of {sides.collection}: no job to join",
            hint="a helper must have the same stores, tables and control store as the command that it helps",
        )

    async def work(self) -> None:
        """This process's workers, until they have nothing left to do."""
        pacing = begin(self._keep_pace())
        workers = [begin(self._work()) for _ in range(self.pace.workers)]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in (*workers, pacing):
                each.cancel()
            await asyncio.gather(*workers, pacing, return_exceptions=True)

    async def end(self) -> Job:
        """The job as it is now; concluded if all of it is done, unless this is a helper."""
        job = await self.look()
        if not self._join and job.done and not job.finished:
            with self._traced("conclude"):
                outcome = await patiently(lambda: self.task.conclude(self.jobs, self.job_id), self.pace.patience)
            await self._ask(self.jobs.finish, self.job_id, outcome)
            return await self.look()
        return job

    def stop(self) -> None:
        """Ends this process's share after the current batches; `run` then returns an unfinished job."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def look(self) -> Job:
        return await self._ask(self.jobs.job, self.job_id)

    async def _ask(self, what: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Asks the control store, in a thread, with retries: every such request is idempotent."""
        return await patiently(lambda: asyncio.to_thread(what, *arguments, **options), self.pace.patience)

    # --- workers ------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while (claim := await self._next()) is not None:
            self._held[claim.token] = claim
            try:
                try:
                    done = await self._range(claim)
                finally:
                    del self._held[claim.token]
                await self._ask(self.jobs.complete if done else self.jobs.release, claim)
            except BaseException:
                await self._give_back(asyncio.to_thread(self.jobs.release, claim))
                raise

    async def _next(self) -> RangeClaim | None:
        """The next range to work on; None if none is left. One worker at a time asks, for all that wait."""
        async with self._seeking:
            while not self.stopping:
                claim = await patiently(self._claimed, self.pace.patience)
                if claim is not None or not self._wait or (await self.look()).done:
                    return claim
                await asyncio.sleep(_IDLE)
        return None

    async def _claimed(self) -> RangeClaim | None:
        """One request. Cancelled meanwhile, this gives back what it gets: nobody else would have the range before this
        process has been silent for a minute."""
        asked = begin(asyncio.to_thread(self.jobs.claim, self.job_id, self._part, self._owner), name="shadow-claim")
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await self._give_back(self._released(asked))
            raise

    async def _released(self, asked: asyncio.Task[RangeClaim | None]) -> None:
        if (claim := await asked) is not None:
            await asyncio.to_thread(self.jobs.release, claim)

    @staticmethod
    async def _give_back(release: Coroutine[Any, Any, Any]) -> None:
        """Does this to its end, however often the worker is cancelled meanwhile: where one worker fails, the others are
        cancelled, and a request that has not got a thread yet would be cancelled with its worker."""
        released = begin(release, name="shadow-release")
        while not released.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([released])
        with suppress(ControlError, asyncio.CancelledError):
            released.result()

    async def _range(self, claim: RangeClaim) -> bool:
        """Does a range; whether this worker has done it to its end."""
        reached = claim.cursor
        while True:
            try:
                async with aclosing(self.task.scan(claim.range, reached, self.pace.batch)) as batches:
                    while (batch := await self._scanned(batches)) is not None:
                        if self._stopping.is_set() or not await self._batch(claim, batch):
                            return False
                        reached = batch.place
                return True
            except (PyMongoError, TimeoutError) as error:
                if classify(error) is Outcome.REFUSED:
                    raise
            # Nothing is done before the stores answer again; then the scan resumes at the last cursor.
            await patiently(self._answers, self.pace.patience)

    async def _scanned(self, batches: AsyncGenerator[Batch, None]) -> Batch | None:
        """The next batch; None at the end."""
        with self._traced("scan"):
            return await anext(batches, None)

    def _traced(self, step: str) -> Span | Untraced:
        """The span of one step: a job may take days, and one span of it all would hold nothing together."""
        return self.task.sides.traces.work(
            self.task.kind, self.task.sides.collection, [self._cause], verb=step, to=self.task.sides.start.secondary
        )

    async def _answers(self) -> None:
        for store in (self.task.sides.primary, self.task.sides.secondary):
            await store.ping()

    async def _batch(self, claim: RangeClaim, batch: Batch) -> bool:
        await self.throttle.take(len(batch.images))
        handled = await patiently(lambda: self._handled(claim, batch), self.pace.patience)
        return await self._ask(self.jobs.advance, claim, batch.place, handled.counts, handled.issues)

    async def _handled(self, claim: RangeClaim, batch: Batch) -> Handled:
        with self._traced("batch") as span:
            span.mark("shadow.job", self.job_id)
            span.mark("db.operation.batch.size", len(batch.images))
            handled = await self.task.handle(claim.range, batch)
        handled.counts["seen"] += len(batch.images)
        return handled

    # --- the pace -----------------------------------------------------------------------------------------------

    async def _keep_pace(self) -> None:
        """Adjusts the rate to the job's record and to the primary's latency, and sends heartbeats."""
        while True:
            try:
                await self._follow()
            except (PyMongoError, TimeoutError, ControlError):
                pass  # it is retried in a moment
            except Exception as error:
                # A worker without heartbeats would lose its range to another one.
                self.task.sides.reporter.publish(ComponentFailed("control", error))
            await asyncio.sleep(_TICK)

    async def _follow(self) -> None:
        for claim in list(self._held.values()):
            if time.monotonic() - claim.written > _BEAT:
                await asyncio.to_thread(self.jobs.beat, claim)
        job = await asyncio.to_thread(self.jobs.job, self.job_id)
        if job.stopping or job.finished:
            self.stop()
        self.throttle.rate = None if job.rate is None else job.rate / max(1, job.parts)
        if self.pace.latency:
            started = time.perf_counter()
            await self.task.sides.source.look(self.task.sides.collection, [""], whole=False)
            self.throttle.observe(time.perf_counter() - started, self.pace.latency)


def failed(error: Exception) -> str:
    """Why a document could not be handled, without its content."""
    if isinstance(error, UnreadableDocument):
        return error.reason
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {code}" if isinstance(code, int) else type(error).__name__
