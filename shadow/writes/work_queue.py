"""The keyed work queue: work off the caller's path, bounded, in order for each key.

A queue belongs to one event loop. It starts workers when there is work and ends them when there is none, so that an
idle loop holds no task.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from shadow.host.tasks import begin

__all__ = ["Batch", "Hold", "Job", "WorkQueue"]

Job = Callable[[], Awaitable[None]]
"""One piece of work. What it raises goes to `on_error` and ends no other job."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How jobs of one `group` are done together, up to `most` of them: `run` takes the jobs, each of another key."""

    group: Hashable
    most: int
    run: Callable[[Sequence[Any]], Awaitable[None]]


_Entry = tuple[str, Job, Batch | None, bool]
"""Its collection, the job, its batch, and whether it is one of many."""

_AFTER_YOU: Final = 4
"""Turns of the event loop that a worker lets pass before it begins. The answer of the write that made the work needs
two to reach its caller, who would otherwise wait until the secondary's client has built its request."""
_OF_MANY: Final = 5
"""Times `capacity` that jobs of calls for many documents may fill, which count by themselves: they are made in batches,
and leave the places of others free."""
_LONGEST_HOLD: Final = 5.0
"""Seconds for which jobs wait for the end of the call that makes them, at most."""


class Hold:
    """Jobs of one call, which begin when it is released: they would else take the processor from what is left of the
    call. Released at once by whoever waits until the queue is empty."""

    __slots__ = ("_release", "keys", "released")

    def __init__(self, release: Callable[[Sequence[Hashable]], None]) -> None:
        self._release = release
        self.keys: list[Hashable] = []
        self.released = False

    def release(self) -> None:
        if not self.released:
            self.released = True
            self._release(self.keys)


class WorkQueue:
    """`workers` jobs run at once; at most `capacity` wait. Jobs of one key run one after the other, in order.

    Jobs that continue something may go `ahead` of those that start something, and up to twice `capacity` are accepted
    for them: under overload, what was started is finished, and less is started.

    Jobs that are waiting when a worker comes to them are done together, if they are offered with a `Batch` of one
    group. None waits for others to come.
    """

    def __init__(self, *, workers: int, capacity: int, on_error: Callable[[BaseException], None]) -> None:
        self.capacity = capacity
        self._workers = workers
        self._on_error = on_error
        self._queues: dict[Hashable, list[_Entry]] = {}
        self._ready: deque[Hashable] = deque()
        self._ahead: deque[Hashable] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._pending: Counter[str] = Counter()
        self._depth = 0
        self._of_many = 0
        self._holds: set[Hold] = set()
        self._closed = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._paused = 0
        self._going = asyncio.Event()

    @property
    def depth(self) -> int:
        """Jobs accepted and not yet done."""
        return self._depth

    @property
    def closed(self) -> bool:
        return self._closed

    def busy(self, key: Hashable) -> bool:
        """Whether a job of the key is running or waiting."""
        return key in self._queues

    def pending(self, collection: str) -> int:
        return self._pending[collection]

    def offer(
        self,
        collection: str,
        key: Hashable,
        job: Job,
        *,
        ahead: bool = False,
        batch: Batch | None = None,
        hold: Hold | None = None,
    ) -> bool:
        """Accepts the job, or returns False: full, or closed. `ahead` is for a key that has no other jobs. `hold`: it
        is one of many, and begins when that is released."""
        many = hold is not None
        if self._closed or not self._has_room(ahead=ahead, many=many):
            return False
        self._depth += 1
        self._of_many += many
        self._pending[collection] += 1
        waiting = self._queues.get(key)
        if waiting is not None:
            waiting.append((collection, job, batch, many))
            return True
        self._queues[key] = [(collection, job, batch, many)]
        if hold is not None and not hold.released:
            hold.keys.append(key)
            return True
        (self._ahead if ahead else self._ready).append(key)
        self._employ()
        return True

    def _has_room(self, *, ahead: bool, many: bool) -> bool:
        if many:
            return self._of_many < _OF_MANY * self.capacity
        return self._depth - self._of_many < (2 * self.capacity if ahead else self.capacity)

    def _employ(self) -> None:
        """Starts a worker, if there may be one more."""
        if self._busy < self._workers:
            self._busy += 1
            # In a context of its own: the time limit of the application's call does not apply to this work.
            task = begin(self._work(), name="shadow-lane", context=Context(), failed=self._on_error)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @contextmanager
    def held(self) -> Iterator[Hold]:
        """For the jobs of one call: they begin when the block ends, or after five seconds."""
        hold = Hold(self._release)
        self._holds.add(hold)
        timer = asyncio.get_running_loop().call_later(_LONGEST_HOLD, hold.release)
        try:
            yield hold
        finally:
            timer.cancel()
            self._holds.discard(hold)
            hold.release()

    def _release(self, keys: Sequence[Hashable]) -> None:
        self._ready.extend(keys)
        for _ in range(min(len(keys), self._workers)):
            self._employ()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No job begins before the block ends; what is offered waits."""
        self._paused += 1
        self._going.clear()
        try:
            yield
        finally:
            self._paused -= 1
            if not self._paused:
                self._going.set()

    async def drain(self, timeout: float, collection: str | None = None) -> bool:
        """Waits until nothing (of `collection`) is pending. False: `timeout` seconds were over first."""
        for hold in tuple(self._holds):
            hold.release()
        try:
            async with asyncio.timeout(timeout):
                while self._pending[collection] if collection is not None else self._depth:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout: float) -> bool:
        """Accepts nothing more, drains within `timeout` seconds, then cancels what is left. False: something was
        left."""
        self._closed = True
        drained = await self.drain(timeout)
        await self.cut_off()
        return drained

    async def cut_off(self) -> None:
        """Accepts nothing more, and cancels all jobs: the loop ends."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        try:
            for _ in range(_AFTER_YOU):
                await asyncio.sleep(0)
            while self._ahead or self._ready:
                if self._paused:
                    await self._going.wait()
                else:
                    await self._next()
        finally:
            # Here and not when the task is done: a job offered in between would count on a worker that takes no more.
            self._busy -= 1

    async def _next(self) -> None:
        key = (self._ahead or self._ready).popleft()
        _, job, batch, _ = self._queues[key][0]
        others = [] if batch is None else self._others(batch)
        try:
            if batch is not None and others:
                await batch.run([job, *(self._queues[other][0][1] for other in others)])
            else:
                await job()
        except Exception as error:
            self._on_error(error)
        finally:
            for each in (key, *others):
                self._done(each)

    def _others(self, batch: Batch) -> list[Hashable]:
        """Takes the keys that come next, as far as their jobs belong to the same group."""
        others: list[Hashable] = []
        while self._ready and len(others) + 1 < batch.most:
            next_batch = self._queues[self._ready[0]][0][2]
            if next_batch is None or next_batch.group != batch.group:
                break
            others.append(self._ready.popleft())
        return others

    def _done(self, key: Hashable) -> None:
        waiting = self._queues[key]
        collection, _, _, many = waiting.pop(0)
        if waiting:
            self._ready.append(key)
        else:
            del self._queues[key]
        self._depth -= 1
        self._of_many -= many
        self._pending[collection] -= 1
        self._quiet.set()
