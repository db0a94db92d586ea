"""The writes under way: each runs to its end, whatever becomes of its caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shadow.model.batches import Result
from shadow.model.events import ComponentFailed, Reporter
from shadow.writes.dual_write import Early
from shadow.writes.work_queue import Hold

__all__ = ["Running"]

T = TypeVar("T")


class Running:
    """One for each event loop."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._tasks: set[asyncio.Task[object]] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    async def shielded(self, work: Awaitable[T]) -> T:
        """Runs `work` to its end even if the caller is cancelled."""
        task: asyncio.Task[T] = asyncio.ensure_future(work)
        self._begun(task)
        return await asyncio.shield(task)

    async def answered(self, work: Callable[[Early], Awaitable[Sequence[Result]]], hold: Hold) -> Sequence[Result]:
        """The same for changes of many documents. Returns with their answer, maybe before the work has ended."""
        return await asyncio.shield(self.begun(work, hold))

    def begun(
        self, work: Callable[[Early], Awaitable[Sequence[Result]]], hold: Hold
    ) -> asyncio.Future[Sequence[Result]]:
        """Begins such work. The future, which must not be cancelled, has its answer."""
        answer: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()

        def end(task: asyncio.Task[Sequence[Result]]) -> None:
            if not answer.done():
                _pass_on(task, answer)
            elif not task.cancelled() and isinstance(error := task.exception(), Exception):
                # The intents of what was not passed on stay, and are repaired.
                self._reporter.publish(ComponentFailed("replay", error))

        task = asyncio.ensure_future(work(Early(answer.set_result, hold)))
        self._begun(task)
        task.add_done_callback(end)
        answer.add_done_callback(_noticed)
        return answer

    async def finish(self, timeout: float) -> None:
        """Waits `timeout` seconds for the writes that are under way, then leaves the rest to their intents."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _begun(self, task: asyncio.Task[T]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        _noticed(task)


def _noticed(work: asyncio.Future[T]) -> None:
    """A caller that has gone cannot take it; asking for the exception keeps asyncio from reporting it as lost."""
    if not work.cancelled():
        work.exception()


def _pass_on(task: asyncio.Task[T], answer: asyncio.Future[T]) -> None:
    if task.cancelled():
        answer.cancel()
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())
