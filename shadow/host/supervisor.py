"""Restarts long-lived tasks and threads that fail. An error is counted under the task's name and logged once for each
cause, and the task is restarted with growing delays. It counts as down until it has worked again.

A task calls its `Turn` at the start of each round. It has worked when it reaches the next round, or has run for a
minute. It ends by returning, or by being cancelled from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.model.background import Background

__all__ = ["Supervisor", "Turn"]

_FIRST: Final = 0.1
_LONGEST: Final = 5.0
"""Seconds before a task is restarted: the first delay, and the longest."""
_PROVEN: Final = 60.0
"""Seconds after which a task that has not failed counts as working."""

OnFailed = Callable[[Background, BaseException, bool], None]
"""Called with the task, its error, and whether the cause is new since the task last worked."""


class Turn:
    """One run of a task or thread, and its restarts."""

    def __init__(self, supervisor: Supervisor, task: Background) -> None:
        self.task = task
        self._supervisor = supervisor
        self._delay = 0.0
        self._begun = False

    def __call__(self) -> None:
        """Marks the start of a round, and the success of the one before."""
        self._supervisor.reach(self.task)
        if self._begun and self._delay:
            self.works()
        self._begun = True

    def works(self) -> None:
        """Marks the task as working again."""
        self._delay = 0.0
        self._supervisor.cleared(self)

    def failed(self, error: BaseException) -> float:
        """Records a failure. Returns the seconds to wait before the restart."""
        self._begun = False
        self._delay = min(_LONGEST, 2 * self._delay or _FIRST)
        self._supervisor.failed(self, error)
        return self._delay

    def ended(self) -> None:
        """The task is no longer needed, so it cannot be down."""
        self._supervisor.cleared(self)


class Supervisor:
    """One per Shadow, for the tasks of all its event loops and for its threads.

    `on_failed` and `on_works` must not raise. `reach` is called with the task's name at the start of each round; tests
    make it raise.
    """

    def __init__(
        self,
        on_failed: OnFailed = lambda task, error, new: None,
        on_works: Callable[[Background], None] = lambda task: None,
        reach: Failpoints = no_failpoint,
    ) -> None:
        self.reach = reach
        self._on_failed = on_failed
        self._on_works = on_works
        self._lock = threading.Lock()
        self._down: dict[Turn, str] = {}
        self._told: dict[Background, set[str]] = {}

    @property
    def down(self) -> Mapping[Background, str]:
        """The tasks that are down, with the class of the last error. Thread-safe."""
        with self._lock:
            return {turn.task: error for turn, error in self._down.items()}

    def turn(self, task: Background) -> Turn:
        """For a thread, which runs its own loop: see `Turn.failed`."""
        return Turn(self, task)

    async def run(self, task: Background, work: Callable[[Turn], Awaitable[None]]) -> None:
        """Runs `work` until it returns or this call is cancelled. Restarts it if it raises or is cancelled from
        within."""
        turn = Turn(self, task)
        try:
            while True:
                error = await self._once(turn, work)
                if error is None:
                    return
                await asyncio.sleep(turn.failed(error))
        finally:
            turn.ended()

    async def _once(self, turn: Turn, work: Callable[[Turn], Awaitable[None]]) -> BaseException | None:
        proven = asyncio.get_running_loop().call_later(_PROVEN, turn.works)
        try:
            await work(turn)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that the task waited for was cancelled; the task itself was not.
            return error
        except Exception as error:
            return _alone(error)
        finally:
            proven.cancel()
        return None

    def report(self, task: Background, error: BaseException | None) -> None:
        """For tasks that are not run here: records a failure, or success (None)."""
        with self._lock:
            found = next((turn for turn in self._down if turn.task is task), None)
        turn = found or Turn(self, task)
        if error is not None:
            turn.failed(error)
        elif found is not None:
            turn.works()

    def failed(self, turn: Turn, error: BaseException) -> None:
        cause = _cause(error)
        with self._lock:
            self._down[turn] = type(error).__name__
            told = self._told.setdefault(turn.task, set())
            new = cause not in told
            told.add(cause)
        with contextlib.suppress(Exception):
            self._on_failed(turn.task, error, new)

    def cleared(self, turn: Turn) -> None:
        with self._lock:
            was_down = self._down.pop(turn, None) is not None
            up = was_down and all(each.task is not turn.task for each in self._down)
            if up:
                self._told.pop(turn.task, None)
        if up:
            with contextlib.suppress(Exception):
                self._on_works(turn.task)


def _alone(error: BaseException) -> BaseException:
    """The error of a task group, if there is only one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _cause(error: BaseException) -> str:
    """Class and place of an error. Its text may differ each time."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__module__}.{type(error).__qualname__} {where}"
