"""A store with faults before it: what a test asks for happens to the next calls of a method, the rest goes through."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal

from pymongo.errors import AutoReconnect, WriteError

from shadow.stores.base import Store

__all__ = ["Fault", "FaultyStore", "Gate", "apply_and_lose", "hang", "lose", "raising", "refuse"]

Call = Callable[[], Awaitable[Any]]
Fault = Callable[[Call], Awaitable[Any]]
"""Given the real call, does it or not, before or after something else."""

_CALLS: Final = (
    "ping",
    "find_one",
    "count",
    "distinct",
    "aggregate",
    "apply",
    "insert_many",
    "change_many",
    "keys",
    "replay",
    "image",
    "images",
    "put",
)


async def refuse(call: Call) -> Any:
    """The store says no, and has changed nothing."""
    raise WriteError("Document failed validation", 121)


async def lose(call: Call) -> Any:
    """The request never arrives, and the caller cannot know."""
    raise AutoReconnect("connection closed")


async def apply_and_lose(call: Call) -> Any:
    """The store does it; the answer never arrives."""
    await call()
    raise AutoReconnect("connection closed")


async def hang(call: Call) -> Any:
    """No answer, ever."""
    await asyncio.Event().wait()


def raising(error: Exception) -> Fault:
    async def fault(call: Call) -> Any:
        raise error

    return fault


class _Expected(asyncio.Event):
    """An event that must come: waiting for it raises TimeoutError after a minute and a half."""

    async def wait(self) -> Literal[True]:
        async with asyncio.timeout(90):
            return await super().wait()


class Gate:
    """A barrier before a call: `reached` when the call has come to it, and the call goes on when it is `opened`."""

    def __init__(self) -> None:
        self.reached = _Expected()
        self.opened = asyncio.Event()

    async def __call__(self, call: Call) -> Any:
        self.reached.set()
        await self.opened.wait()
        return await call()


class FaultyStore:
    """Wraps `inner`. `on(method, fault, times)` applies to the next `times` calls (None: to all until `clear`)."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.name = inner.name
        self.calls: Counter[str] = Counter()
        self._once: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}

    def on(self, method: str, fault: Fault, times: int | None = 1) -> None:
        if times is None:
            self._always[method] = fault
        else:
            self._once[method].extend([fault] * times)

    def on_all(self, fault: Fault) -> None:
        for method in (*_CALLS, "find"):
            self.on(method, fault, None)

    def clear(self) -> None:
        self._once.clear()
        self._always.clear()

    async def find(self, collection: str, query: Any) -> AsyncIterator[list[Any]]:
        async def call() -> list[Any]:
            return [page async for page in self.inner.find(collection, query)]

        for page in await self._do("find", call):
            yield page

    async def _do(self, method: str, call: Call) -> Any:
        self.calls[method] += 1
        waiting = self._once[method]
        fault = waiting.popleft() if waiting else self._always.get(method)
        return await (call() if fault is None else fault(call))

    def __getattr__(self, method: str) -> Any:
        real = getattr(self.inner, method)
        if method not in _CALLS:
            return real

        async def faulty(*arguments: Any, **options: Any) -> Any:
            return await self._do(method, lambda: real(*arguments, **options))

        return faulty
