"""The simulated scheduler: an event loop without I/O and without real time, in which a seed decides what runs next.

Time jumps to the next timer when nothing is ready. What is ready runs in a drawn order, a superset of what a real loop
does. A task knows the process it belongs to, so that a crash can take all tasks of one process and no others.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import Any, Protocol, TypeVar

from tests.simulation.threads import SimulatedThread

__all__ = ["PROCESS", "Member", "SimulatedClock", "SimulatedLoop", "Stalled"]

T = TypeVar("T")


class Member(Protocol):
    """What owns tasks: a simulated process."""

    dead: bool
    tasks: list[asyncio.Task[Any]]


PROCESS: ContextVar[Member | None] = ContextVar("process", default=None)


class Stalled(Exception):
    """The run came to no end: nothing is left to run, or too much was."""


class _Task(asyncio.Task[Any]):
    """Hashes by number and not by address, so that the order of a set of tasks is the same in every run."""

    def __init__(self, coro: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """`horizon`: virtual seconds after which a run counts as stalled; `steps`: callbacks likewise."""

    _ready: Any
    _scheduled: Any
    _stopping: bool

    def __init__(self, rng: random.Random, *, horizon: float, steps: int = 400_000) -> None:
        super().__init__()
        self._rng = rng
        self._time = 1_000.0
        self._end = self._time + horizon
        self._steps = steps
        self._numbers = itertools.count()
        self.made: list[asyncio.Task[Any]] = []
        self._threads: list[SimulatedThread] = []
        self.stepped = 0.0
        """Seconds by which the wall clock of the host has been set forward; negative: back."""
        self.set_task_factory(self._make)

    def time(self) -> float:
        return self._time

    def _make(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        member, context = PROCESS.get(), options.get("context")
        if context is not None:
            context.run(PROCESS.set, member)  # a task in a context of its own belongs to who made it as well
        task = _Task(coro, next(self._numbers), loop=loop, **options)
        self.made.append(task)
        if member is not None:
            member.tasks.append(task)
            if member.dead:
                task.cancel()
        return task

    # --- threads ------------------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """In a simulated thread, which goes on when whoever waits for it is cancelled, as a real one does."""
        answer: asyncio.Future[T] = self.create_future()
        context = copy_context()

        def job() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon(_fail, answer, error)
            except BaseException:
                # Of a dead process, or at the end of the run: nobody is there to hear of it.
                self.call_soon(answer.cancel)
            else:
                self.call_soon(_resolve, answer, result)

        thread = SimulatedThread(lambda: context.run(job))
        self._threads = [each for each in self._threads if not each.done]
        self._threads.append(thread)
        self.call_soon(thread.resume)
        return answer

    def sleep(self, seconds: float) -> None:
        """Of a thread."""
        thread = SimulatedThread.current()
        assert thread is not None, "nobody sleeps in the event loop"
        self.call_later(seconds, thread.resume)
        thread.pause()

    def end_threads(self) -> None:
        """Unwinds those that are left."""
        for thread in self._threads:
            thread.end()

    # --- what runs next -----------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Runs until stopped."""
        ready, draw = self._ready, self._rng.random
        while not self._stopping:
            if not ready:
                self._advance()
            if len(ready) > 1:
                ready.rotate(-int(draw() * len(ready)))
            handle = ready.popleft()
            if not handle.cancelled():
                self._steps -= 1
                if self._steps < 0:
                    raise Stalled("too many steps")
                handle._run()

    def _advance(self) -> None:
        """Jumps to the next timer, and makes ready all that are due then."""
        timers = self._scheduled
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False
        if not timers:
            raise Stalled("nothing is left to run")
        self._time = max(self._time, timers[0]._when)
        if self._time > self._end:
            raise Stalled("the time is over")
        while timers and timers[0]._when <= self._time:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)

    def _write_to_self(self) -> None:
        """No other thread, so nobody to be woken."""

    def _process_events(self, event_list: Any) -> None:
        """No I/O, so no events."""


def _resolve(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class SimulatedClock:
    """Takes the place of the module `time` in the modules under test."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.monotonic = self.perf_counter = loop.time
        self.sleep = loop.sleep
        self._loop = loop

    def time(self) -> float:
        """The wall clock, which somebody may have set."""
        return self._loop.time() + self._loop.stepped
