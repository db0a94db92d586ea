"""When a call begins: as with the driver that is replaced.

PyMongo's verbs are coroutines, which begin when they are awaited. Motor's give futures of calls that have begun: an
application may leave them unawaited (`db.logs.insert_one(x)`), wait for several, or add callbacks.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["BegunCalls", "at_once", "begun", "driver_kind", "is_motor"]

T = TypeVar("T")


class BegunCalls:
    """The calls of each event loop that have begun and not ended. They are kept here, because asyncio alone does not
    keep a task from being collected."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}

    def begin(self, call: Coroutine[Any, Any, T], others: Iterable[asyncio.AbstractEventLoop] = ()) -> Awaitable[T]:
        """A future of the call in the running event loop, with the caller's context variables. From a thread without a
        loop, one in the loop that runs elsewhere; where none runs, the coroutine itself, which `run_until_complete`
        takes as well. An error that nobody asks for is reported by asyncio, as with Motor."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            running = [each for each in [*self._calls, *others] if each.is_running()]
            if not running:
                return call
            # Starlette, for one, calls what is no coroutine function in a thread, and awaits nothing.
            there = asyncio.run_coroutine_threadsafe(self._begun(call), running[0])
            return asyncio.wrap_future(there, loop=running[0])
        task = loop.create_task(call)
        calls = self._calls.get(loop)
        if calls is None:
            for ended in [each for each in self._calls if each.is_closed()]:
                del self._calls[ended]
            calls = self._calls[loop] = set()
        calls.add(task)
        task.add_done_callback(calls.discard)
        return task

    async def _begun(self, call: Coroutine[Any, Any, T]) -> T:
        return await self.begin(call)

    @property
    def running(self) -> int:
        """How many have not ended in the running event loop."""
        return len(self._calls.get(asyncio.get_running_loop(), ()))

    async def ended(self, timeout: float) -> None:
        """Waits for them, those included that begin meanwhile, for `timeout` seconds at most."""
        calls = self._calls.get(asyncio.get_running_loop(), set())
        end = asyncio.get_running_loop().time() + timeout
        while calls - {asyncio.current_task()} and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(calls - {asyncio.current_task()}, timeout=left)

    async def cancel(self) -> None:
        """Ends those that are left; a write that has begun is not cancelled by that."""
        left = self._calls.pop(asyncio.get_running_loop(), set()) - {asyncio.current_task()}
        for each in left:
            each.cancel()
        if left:
            await asyncio.wait(left)


def begun(owner: Any, call: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """The call as the driver of `owner` (a collection or a database) would give it: see `at_once`."""
    begin: Callable[[Coroutine[Any, Any, T]], Awaitable[T]] | None = getattr(owner, "_begin", None)
    return call if begin is None else begin(call)


def driver_kind(collection: Any) -> type[Any] | None:
    """The class of the driver's collections whose collection, or database, is replaced; None: of no driver."""
    handle = getattr(collection, "_handle", None)
    handle = getattr(collection, "_owner", None) if handle is None else handle
    kind: Callable[[], type[Any]] | None = getattr(handle, "driver_kind", None)
    return None if kind is None else kind()


def is_motor(collection: Any) -> bool:
    """Whether a configured collection stands for one of Motor's."""
    return hasattr(driver_kind(collection), "get_io_loop")


def at_once(method: Callable[..., Coroutine[Any, Any, Any]], check: Callable[..., None] | None = None) -> Any:
    """A verb: with PyMongo a coroutine function, which libraries look for; with Motor a function that gives a future of
    a call that has begun. `check`: what Motor's method raises before it gives a future."""
    return _AtOnce(method, check)


class _AtOnce:
    def __init__(self, method: Callable[..., Coroutine[Any, Any, Any]], check: Callable[..., None] | None) -> None:
        self._method = method

        @functools.wraps(method)
        def begin(self: Any, *arguments: Any, **options: Any) -> Any:
            if check is not None:
                check(self, *arguments, **options)
            return begun(getattr(self, "_collection", self), method(self, *arguments, **options))

        self._begin = begin

    def __get__(self, instance: Any, kind: type[Any]) -> Any:
        if instance is None:
            return self._method
        chosen = self._begin if is_motor(getattr(instance, "_collection", instance)) else self._method
        return types.MethodType(chosen, instance)
