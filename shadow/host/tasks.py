"""Tasks whose errors are never lost: each reaches whoever awaits the task, or a callback, instead of asyncio's log."""

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
    """A task for `work` in the running event loop. The caller keeps a reference to it.

    `failed` is called with the task's error, for tasks that nobody awaits; it must not raise. Without it, the task must
    be awaited, or its error does not matter: if nobody awaits it, asyncio logs nothing either.
    """

    def ended(task: asyncio.Task[T]) -> None:
        # Reading the exception keeps asyncio from logging it as never retrieved.
        if not task.cancelled() and (error := task.exception()) is not None and failed is not None:
            failed(error)

    coroutine = work if isinstance(work, Coroutine) else _awaited(work)
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
    task.add_done_callback(ended)
    return task


async def _awaited(work: Awaitable[T]) -> T:
    return await work
