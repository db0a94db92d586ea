"""MongoDB's client as the store uses it: its calls end by the driver's own time limits, and nobody cancels them.

`MongoLink` holds the client; the databases, collections and cursors that come from it have the driver's own methods.
Motor runs PyMongo's blocking client in threads, to which a cancellation means nothing, so there the limits are all that
is needed. PyMongo's async client does not survive one (see `calls`): its calls are tasks of their own, and a client of
our own that answers nothing is replaced, under the same databases.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, Final, Self, TypeAlias

import pymongo

from shadow.model.deadline import left
from shadow.stores.calls import LEAST_PATIENCE, Calls, let_go

__all__ = ["MongoLink"]

_GRACE: Final = 0.25
"""Seconds that the driver has beyond those for which its answer is waited for: whoever waits shall go first, so that it
is its own limit that is said to be over."""
_TURNS: Final = 10_000
"""Turns of the event loop within which the calls of a client that was given up have to end."""
_FAREWELL: Final = 5.0
"""Seconds that Motor's client has to tell its server that it ends."""
_QUIET: Final = 20
"""Turns in a row in which nobody has a lock of it, after which nobody will."""
_CURSORS: Final = frozenset({"aggregate", "find", "list_indexes", "watch"})
"""Methods of databases and collections that answer a cursor, in Motor at once, in PyMongo some of them later."""

_Source: TypeAlias = Callable[[], Any]


class MongoLink:
    """`again` makes another client like the first; None for one that was handed in. `patience`: seconds without any
    answer after which a client is asked for a sign of life (`Calls`)."""

    def __init__(self, client: Any, again: Callable[[], Any] | None, *, patience: float) -> None:
        self.client = client
        self.generation = 0
        self.on_stuck: Callable[[bool], None] = lambda replaced: None
        """Told when the client answers nothing any more, and whether it was replaced."""
        self._again = again
        self._closing: set[asyncio.Task[None]] = set()
        self.is_motor = type(client).__module__.startswith("motor")
        self._patience = patience = max(patience, LEAST_PATIENCE)
        self.calls: Final = Calls("MongoDB", patience=patience, ping=self._ping, on_stuck=self._stuck)

    def database(self, name: str, **options: Any) -> Any:
        """The driver's database, by its own methods."""
        return _Database(self, lambda: self.client.get_database(name, **options))

    async def close(self, *, owned: bool) -> None:
        """Ends a client of our own; what runs on another is waited for, for a few seconds."""
        if self.is_motor:
            if owned:
                # It tells the server so, and waits for the answer: not in the event loop, nor for ever.
                with pymongo.timeout(_FAREWELL):
                    await asyncio.to_thread(self.client.close)
            return
        await self.calls.end(self.client.close if owned else None)
        if owned or self.calls.stuck:
            await _freed(self.client, self.calls.under_way)
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def _ping(self) -> None:
        with pymongo.timeout(self._patience):
            await self.client.admin.command("ping")

    def _stuck(self) -> bool:
        if self._again is None:
            self.on_stuck(False)
            return False
        before, self.client = self.client, self._again()
        self.generation += 1
        closing = asyncio.get_running_loop().create_task(_retire(before, self.calls.under_way))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self.on_stuck(True)
        return True


class _Proxy:
    """Has the methods of what `source` answers, each bounded and never cancelled."""

    def __init__(self, link: MongoLink, source: _Source) -> None:
        self._link = link
        self._source = source
        self._generation = link.generation
        self._inner = source()

    def _now(self) -> Any:
        if self._generation != self._link.generation:
            self._generation, self._inner = self._link.generation, self._source()
        return self._inner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._now(), name)
        if not inspect.ismethod(found):
            return found
        kind = self._of_motor if self._link.is_motor else self._of_pymongo
        made = functools.partial(kind, name, inspect.iscoroutinefunction(found))
        setattr(self, name, made)
        return made

    def _of_motor(self, name: str, _is_async: bool, /, *arguments: Any, **options: Any) -> Any:
        seconds = left()
        if name in _CURSORS:
            return _cursor(self._link, name, getattr(self._now(), name)(*arguments, **options))
        if seconds is None:
            return getattr(self._now(), name)(*arguments, **options)
        with _limit(seconds):
            return getattr(self._now(), name)(*arguments, **options)

    def _of_pymongo(self, name: str, is_async: bool, /, *arguments: Any, **options: Any) -> Any:
        if not is_async:
            made = getattr(self._now(), name)(*arguments, **options)
            return _cursor(self._link, name, made) if name in _CURSORS else made
        call = functools.partial(getattr(self._now(), name), *arguments, **options)
        if name in _CURSORS:
            return self._cursor_later(name, call)
        return self._link.calls.run(_bounded(call))

    async def _cursor_later(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return _cursor(self._link, name, await self._link.calls.run(_bounded(call)))


class _Collection(_Proxy):
    def with_options(self, **options: Any) -> Any:
        return _Collection(self._link, lambda: self._now().with_options(**options))


class _Database(_Proxy):
    def __getitem__(self, name: str) -> Any:
        return _Collection(self._link, lambda: self._now()[name])

    def get_collection(self, name: str, **options: Any) -> Any:
        return _Collection(self._link, lambda: self._now().get_collection(name, **options))

    def with_options(self, **options: Any) -> Any:
        return _Database(self._link, lambda: self._now().with_options(**options))


class _Cursor:
    """A cursor of the driver's. One call of it at a time is under way."""

    def __init__(self, link: MongoLink, inner: Any) -> None:
        self._link = link
        self._inner = inner
        self._running: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def to_list(self, length: int | None = None) -> list[Any]:
        found: list[Any] = await self._call(lambda: self._inner.to_list(length))
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._call(self._inner.__anext__)

    async def close(self) -> None:
        if self._running is not None and not self._running.done():
            # Abandoned, and it may yet open what would then stay open on the server.
            self._link.calls.follow(self._running, self._inner.close)
            return
        await self._call(self._inner.close)

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        link, seconds = self._link, left()
        if link.is_motor:
            with _limit(seconds) if seconds is not None else contextlib.nullcontext():
                future = call()
            return await future
        self._running = link.calls.begin(_bounded(call))
        return await link.calls.wait(self._running)


class _Stream(_Cursor):
    """A change stream. The next change may be hours away, and a call that long would never end once it is abandoned;
    the driver's `try_next` answers nothing after a second."""

    async def __anext__(self) -> Any:
        while (found := await self._call(self._inner.try_next)) is None:
            if not self._inner.alive:
                raise StopAsyncIteration
        return found


def _cursor(link: MongoLink, name: str, made: Any) -> _Cursor:
    return _Stream(link, made) if name == "watch" else _Cursor(link, made)


async def _retire(client: Any, calls: Collection[asyncio.Task[Any]]) -> None:
    """The end of a client that was given up, and of its calls."""
    await _freed(client, calls)
    await let_go(client.close)


async def _freed(client: Any, calls: Collection[asyncio.Task[Any]]) -> None:
    """Returns when the cancelled calls of a client that is used no more have ended, and what they have begun. Whoever
    waits for the lock of a condition swallows every cancellation until he has it, and the event loop could never end:
    so the lock is let go."""
    quiet = 0
    for _ in range(_TURNS):
        locks = _locks(client)
        # One look is not enough: what was cancelled comes for the lock a few turns later.
        quiet = 0 if locks or not all(call.done() for call in calls) else quiet + 1
        if quiet > _QUIET:
            return
        for lock in locks:
            with contextlib.suppress(RuntimeError):
                lock.release()
        await asyncio.sleep(0)


def _locks(client: Any) -> list[Any]:
    """Those of PyMongo's that calls wait for, as far as they are there."""
    topology = getattr(client, "_topology", None)
    servers = getattr(topology, "_servers", {}).values()
    found = [getattr(topology, "_lock", None), *(getattr(getattr(s, "pool", None), "lock", None) for s in servers)]
    return [lock for lock in found if lock is not None and lock.locked()]


async def _bounded(call: Callable[[], Awaitable[Any]]) -> Any:
    """What the call answers, with what is left of the caller's time as the driver's limit."""
    seconds = left()
    if seconds is None:
        return await call()
    with _limit(seconds):
        return await call()


def _limit(seconds: float) -> AbstractContextManager[None]:
    return pymongo.timeout(max(seconds, 0.0) + _GRACE)
