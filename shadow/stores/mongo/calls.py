"""MongoDB's client as the store uses it: the driver's own time limits end its calls, which are never cancelled.

`MongoLink` holds the client; its databases, collections and cursors have the driver's own methods. Motor runs PyMongo's
blocking client in threads, where a cancellation has no effect, so the limits are enough. PyMongo's async client does
not survive one (see `calls`): its calls are separate tasks, and a client of our own that no longer responds is
replaced, under the same databases.
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

from shadow.host.tasks import begin
from shadow.model.deadline import ending, left
from shadow.stores.calls import LEAST_PATIENCE, Calls, ClientHooks, let_go
from shadow.stores.mongo.drivers import unbind

__all__ = ["MongoLink"]

_GRACE: Final = 0.25
"""Seconds that the driver has beyond its caller: the caller gives up first, so that it reports its own limit."""
LEAST_SELECTION: Final = 0.001
"""Seconds; 0 would be no limit."""
_TURNS: Final = 10_000
"""Turns of the event loop within which the calls of a client that was given up must end."""
_FAREWELL: Final = 5.0
"""Seconds that Motor's client has to tell its server that it is closing."""
_GOODBYE: Final = 2.0
"""Seconds that PyMongo's has: fewer than `calls` waits for the whole close."""
_QUIET: Final = 20
"""Turns in a row without any lock taken, after which none will be."""
_CURSORS: Final = frozenset({"aggregate", "find", "list_indexes", "watch"})
"""Methods of databases and collections that return a cursor: in Motor immediately, in PyMongo some only when
awaited."""

_NO_HOOKS: Final = ClientHooks()

_Source: TypeAlias = Callable[[], Any]


class MongoLink:
    """`again` creates another client like the first; None for one that was passed in. `patience`: seconds without any
    response after which a client is pinged (see `Calls`)."""

    def __init__(
        self, client: Any, again: Callable[[], Any] | None, *, patience: float, hooks: ClientHooks = _NO_HOOKS
    ) -> None:
        self.client = client
        self.generation = 0
        self._on_stuck = hooks.on_stuck
        self._again = again
        self._closing: set[asyncio.Task[None]] = set()
        self.is_motor = type(client).__module__.startswith("motor")
        self._patience = patience = max(patience, LEAST_PATIENCE)
        self._asked = _asked_limit(client)
        self._limits_answers = _has_limits(client)
        self.calls: Final = Calls(
            "MongoDB", patience=patience, ping=self._ping, on_stuck=self._stuck, on_abandoned=hooks.on_abandoned
        )

    def database(self, name: str, *, own: bool = False, **options: Any) -> Any:
        """The driver's database, with its own methods. `own`: for shadow's own calls, which have shadow's limits and
        not those of the application's client (`timeoutMS`, `socketTimeoutMS`)."""
        return _Database(self, lambda: self.client.get_database(name, **options), own)

    def limit(self, own: bool) -> AbstractContextManager[None]:
        """The driver's limit for one call: the caller's remaining time, but no more than the application's client
        allows. A limit here replaces the client's own (PyMongo, `pymongo.timeout`)."""
        seconds = left()
        if seconds is None:
            return pymongo.timeout(self._patience) if own and self._limits_answers else contextlib.nullcontext()
        seconds = max(seconds, 0.0) + _GRACE
        return pymongo.timeout(seconds if own or self._asked is None else min(seconds, self._asked))

    def of_write(self) -> AbstractContextManager[None]:
        """The time that the application's client allows for a write, within an existing limit. The driver resends once
        a request that `socketTimeoutMS` ends."""
        seconds = self._asked or _answer_limit(self.client)
        return contextlib.nullcontext() if seconds is None else pymongo.timeout(seconds)

    async def close(self, *, owned: bool) -> None:
        """Closes a client of our own; waits a few seconds for calls on another."""
        if self.is_motor:
            if owned:
                # It notifies the server and waits for the response: not in the event loop, and not forever.
                with pymongo.timeout(_FAREWELL):
                    await asyncio.to_thread(self.client.close)
            return
        await self.calls.end(functools.partial(_closed, self.client) if owned else None)
        if owned or self.calls.stuck:
            await _freed(self.client, self.calls.under_way)
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def found(self, seconds: float) -> None:
        """Waits for a primary member if none is known, as long as the application's client would: the limit of
        `seconds` for the next call replaces `serverSelectionTimeoutMS`. Raises `ServerSelectionTimeoutError`."""
        options = getattr(self.client, "options", None)
        patience: float = getattr(options, "server_selection_timeout", seconds)
        description = getattr(self.client, "topology_description", None)
        if patience >= seconds or description is None or description.has_writable_server():
            return
        with ending(max(patience, LEAST_SELECTION)):
            await self.database("admin").command("ping")

    async def bounded(self, call: Callable[[], Awaitable[Any]], own: bool) -> Any:
        """Returns the result of the call, with the driver's limit. The session of the call is the one that it names,
        if any: what is done beside a call of the application is no part of the transaction that it belongs to."""
        unbind()
        with self.limit(own):
            return await call()

    async def _ping(self) -> None:
        with pymongo.timeout(self._patience):
            await self.client.admin.command("ping")

    def _stuck(self) -> bool:
        if self._again is None:
            self._on_stuck(False)
            return False
        before, self.client = self.client, self._again()
        self.generation += 1
        closing = begin(_retire(before, self.calls.under_way))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._on_stuck(True)
        return True


class _Proxy:
    """Has the methods of the result of `source`, each with a time limit and never cancelled."""

    def __init__(self, link: MongoLink, source: _Source, own: bool) -> None:
        self._link = link
        self._source = source
        self._own = own
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
        if name in _CURSORS:
            return _cursor(self._link, name, getattr(self._now(), name)(*arguments, **options), self._own)
        with self._link.limit(self._own):
            return getattr(self._now(), name)(*arguments, **options)

    def _of_pymongo(self, name: str, is_async: bool, /, *arguments: Any, **options: Any) -> Any:
        if not is_async:
            made = getattr(self._now(), name)(*arguments, **options)
            return _cursor(self._link, name, made, self._own) if name in _CURSORS else made
        call = functools.partial(getattr(self._now(), name), *arguments, **options)
        if name in _CURSORS:
            return self._cursor_later(name, call)
        return self._link.calls.run(self._link.bounded(call, self._own))

    async def _cursor_later(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        made = await self._link.calls.run(self._link.bounded(call, self._own))
        return _cursor(self._link, name, made, self._own)


class _Collection(_Proxy):
    def with_options(self, **options: Any) -> Any:
        return _Collection(self._link, lambda: self._now().with_options(**options), self._own)


class _Database(_Proxy):
    def __getitem__(self, name: str) -> Any:
        return _Collection(self._link, lambda: self._now()[name], self._own)

    def get_collection(self, name: str, **options: Any) -> Any:
        return _Collection(self._link, lambda: self._now().get_collection(name, **options), self._own)

    def with_options(self, **options: Any) -> Any:
        return _Database(self._link, lambda: self._now().with_options(**options), self._own)


class _Cursor:
    """A cursor of the driver, with one call at a time in flight."""

    def __init__(self, link: MongoLink, inner: Any, own: bool) -> None:
        self._link = link
        self._inner = inner
        self._own = own
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
            # The abandoned call may still open a cursor, which would stay open on the server.
            self._link.calls.follow(self._running, self._inner.close)
            return
        await self._call(self._inner.close)

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        link = self._link
        if link.is_motor:
            with link.limit(self._own):
                future = call()
            return await future
        self._running = link.calls.begin(link.bounded(call, self._own))
        return await link.calls.wait(self._running)


class _Stream(_Cursor):
    """A change stream. The next change may be hours away, and an abandoned call would never end; the driver's
    `try_next` returns after a second."""

    async def __anext__(self) -> Any:
        while (found := await self._call(self._inner.try_next)) is None:
            if not self._inner.alive:
                raise StopAsyncIteration
        return found


def _cursor(link: MongoLink, name: str, made: Any, own: bool) -> _Cursor:
    return _Stream(link, made, own) if name == "watch" else _Cursor(link, made, own)


async def _retire(client: Any, calls: Collection[asyncio.Task[Any]]) -> None:
    """Closes a client that was given up, and ends its calls."""
    await _freed(client, calls)
    await let_go(functools.partial(_closed, client))


async def _closed(client: Any) -> None:
    """Closes PyMongo's client. It ends its sessions on the server first: without a limit, a server that hangs would
    keep it from ending its connections and monitors."""
    with pymongo.timeout(_GOODBYE):
        await client.close()


async def _freed(client: Any, calls: Collection[asyncio.Task[Any]]) -> None:
    """Returns when the cancelled calls of an abandoned client, and the tasks that they started, have ended. A call that
    waits for the lock of a condition swallows every cancellation until it has the lock, and the event loop could never
    end: so the lock is released."""
    quiet = 0
    for _ in range(_TURNS):
        locks = _locks(client)
        # One check is not enough: cancelled calls ask for the lock a few turns later.
        quiet = 0 if locks or not all(call.done() for call in calls) else quiet + 1
        if quiet > _QUIET:
            return
        for lock in locks:
            with contextlib.suppress(RuntimeError):
                lock.release()
        await asyncio.sleep(0)


def _locks(client: Any) -> list[Any]:
    """PyMongo's locks that calls wait for, if they exist."""
    topology = getattr(client, "_topology", None)
    servers = getattr(topology, "_servers", {}).values()
    found = [getattr(topology, "_lock", None), *(getattr(getattr(s, "pool", None), "lock", None) for s in servers)]
    return [lock for lock in found if lock is not None and lock.locked()]


def _asked_limit(client: Any) -> float | None:
    """`timeoutMS` of a client, in seconds; 0 there means no limit."""
    seconds: float | None = getattr(getattr(client, "options", None), "timeout", None)
    return seconds or None


def _answer_limit(client: Any) -> float | None:
    """How long a client waits for the response to one command: `socketTimeoutMS`, doubled if it retries."""
    options = getattr(client, "options", None)
    seconds: float | None = getattr(getattr(options, "pool_options", None), "socket_timeout", None)
    if not seconds:
        return None
    return 2 * seconds if getattr(options, "retry_writes", True) else seconds


def _has_limits(client: Any) -> bool:
    return _asked_limit(client) is not None or _answer_limit(client) is not None
