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
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Self, TypeAlias

import pymongo

from shadow.model.deadline import left
from shadow.stores.calls import Calls, let_go

__all__ = ["MongoLink"]

_GRACE: Final = 0.25
"""Seconds that the driver has beyond those for which its answer is waited for: whoever waits shall go first, so that it
is its own limit that is said to be over."""
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
        self._patience = patience
        self._closing: set[asyncio.Task[None]] = set()
        self.is_motor = type(client).__module__.startswith("motor")
        self.calls: Final = Calls("MongoDB", patience=patience, ping=self._ping, on_stuck=self._stuck)

    def database(self, name: str, **options: Any) -> Any:
        """The driver's database, by its own methods."""
        return _Database(self, lambda: self.client.get_database(name, **options))

    async def close(self, *, owned: bool) -> None:
        """Ends a client of our own; what runs on another is waited for, for a few seconds."""
        if self.is_motor:
            if owned:
                self.client.close()
            return
        await self.calls.end(self.client.close if owned else None)
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
        closing = asyncio.get_running_loop().create_task(let_go(before.close))
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
        made = functools.partial(self._cursor if name in _CURSORS else self._call, name)
        setattr(self, name, made)
        return made

    def _call(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        method, link = getattr(self._now(), name), self._link
        seconds = left()
        if link.is_motor:
            if seconds is None:
                return method(*arguments, **options)
            with _limit(seconds):
                return method(*arguments, **options)
        made = method(*arguments, **options)
        return link.calls.run(_bounded(made)) if inspect.iscoroutine(made) else made

    def _cursor(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        made = getattr(self._now(), name)(*arguments, **options)
        kind = _Stream if name == "watch" else _Cursor
        return self._later(kind, made) if inspect.isawaitable(made) else kind(self._link, made)

    async def _later(self, kind: type[_Cursor], made: Awaitable[Any]) -> Any:
        link = self._link
        return kind(link, await link.calls.run(_bounded(made)))


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
        self._running = link.calls.begin(_bounded(call()))
        return await link.calls.wait(self._running)


class _Stream(_Cursor):
    """A change stream. The next change may be hours away, and a call that long would never end once it is abandoned;
    the driver's `try_next` answers nothing after a second."""

    async def __anext__(self) -> Any:
        while (found := await self._call(self._inner.try_next)) is None:
            if not self._inner.alive:
                raise StopAsyncIteration
        return found


async def _bounded(call: Awaitable[Any]) -> Any:
    """Awaits it with what is left of the caller's time as the driver's limit."""
    seconds = left()
    if seconds is None:
        return await call
    with _limit(seconds):
        return await call


def _limit(seconds: float) -> AbstractContextManager[None]:
    return pymongo.timeout(max(seconds, 0.0) + _GRACE)
