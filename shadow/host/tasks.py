"""Tasks whose errors are never lost: each is heard by whoever waits for it, or by a callback, and not by asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import TypeVar

__all__ = ["begin"]

T = TypeVar("T")


def begin(
    work: Awaitable[T],
    *,
    name: str | None = None,
    context: Context | None = None,
    failed: Callable[[BaseException], None] | None = None,
) -> asyncio.Task[T]:
    """A task for `work` in the running event loop; the caller keeps a reference to it.

    `failed` is told what the task raised, for tasks that nobody waits for; it must not raise. Without one, somebody has
    to wait for the task, or does not care: where he has gone meanwhile, asyncio has nothing to say of it.
    """

    def ended(task: asyncio.Task[T]) -> None:
        # Asking for the exception is what keeps asyncio from calling it lost.
        if not task.cancelled() and (error := task.exception()) is not None and failed is not None:
            failed(error)

    coroutine = work if isinstance(work, Coroutine) else _awaited(work)
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
    task.add_done_callback(ended)
    return task


async def _awaited(work: Awaitable[T]) -> T:
    return await work
