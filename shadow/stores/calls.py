"""The calls of a driver's client that are in flight. None of them is ever cancelled while the client is in use.

A client holds locks and conditions, and does not always survive a cancellation inside them. PyMongo's async client
waits for a server with `wait_for(condition.wait())`: cancelled while it reacquires the lock, it releases a lock that it
does not own and leaves it taken forever, so that every later call hangs. The SDK's adaptive retries do the same.

So each call is a task of its own. A caller that stops waiting *abandons* the call: it runs until the driver's own time
limits end it (`model.deadline`), and its answer is discarded. The number of abandoned calls is bounded and counted. If
limits end it (`model.deadline`), and its result is discarded. The number of abandoned calls is bounded and counted. If
a client no longer responds, not even to a ping with its own time limit, it is given up: its owner creates another, and
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pymongo.errors import AutoReconnect

from shadow.host.tasks import begin

__all__ = ["LEAST_PATIENCE", "MOST_ABANDONED", "Calls", "ClientHooks", "let_go"]

T = TypeVar("T")

MOST_ABANDONED: Final = 1000
"""The maximum number of abandoned calls in flight; above it, no call is started."""
LEAST_PATIENCE: Final = 5.0
"""Seconds without a response that prove nothing yet: an event loop may lag by as much."""
_FAREWELL: Final = 5.0
"""Seconds for a client to close, and for its last calls to end."""


def _ignore() -> None: ...


def _ignore_replaced(replaced: bool) -> None: ...


@dataclass(frozen=True)
class ClientHooks:
    """What a store reports about its client. None of them may raise."""

    on_abandoned: Callable[[], None] = _ignore
    """Called for each call that its caller stops waiting for."""
    on_stuck: Callable[[bool], None] = _ignore_replaced
    """Called when the client no longer responds, with whether it was replaced."""


class Calls:
    """The calls of successive clients, in one event loop.

    `ping` pings the client, within `patience` seconds by the driver's own limit, when calls are in flight and none has
    ended for that long. If the ping has not ended after twice that time either, `on_stuck` is asked whether to give the
    client up, once for each ping. `on_abandoned` is called for each call that is abandoned.
    """

    def __init__(
        self,
        name: str,
        *,
        patience: float,
        ping: Callable[[], Coroutine[Any, Any, object]],
        on_stuck: Callable[[], bool],
        on_abandoned: Callable[[], None] = lambda: None,
        most_abandoned: int = MOST_ABANDONED,
    ) -> None:
        self._name = name
        self._patience = patience
        self._ping = ping
        self._on_stuck = on_stuck
        self._on_abandoned = on_abandoned
        self._most = most_abandoned
        self._under_way: set[asyncio.Task[Any]] = set()
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._given_up: set[asyncio.Task[Any]] = set()
        self._progress = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._probe: asyncio.Task[None] | None = None
        self._said = False

    @property
    def abandoned(self) -> int:
        """How many abandoned calls are in flight."""
        return len(self._abandoned)

    @property
    def under_way(self) -> frozenset[asyncio.Task[Any]]:
        """Calls in flight, including abandoned ones."""
        return frozenset(self._under_way)

    @property
    def stuck(self) -> bool:
        """Whether the client does not respond, and is still in use."""
        return self._said

    async def run(self, call: Coroutine[Any, Any, T], on_end: Callable[[], None] | None = None) -> T:
        """Returns the result of `call`. Cancelling this abandons the call; `on_end` is called when it has ended.

        Raises what the call raises, and `AutoReconnect` if its client was given up, or too many calls are abandoned.
        """
        return await self.wait(self.begin(call, on_end))

    def begin(self, call: Coroutine[Any, Any, T], on_end: Callable[[], None] | None = None) -> asyncio.Task[T]:
        """Starts the call, for `wait`. Raises as `run` does."""
        if len(self._abandoned) >= self._most:
            call.close()
            if on_end is not None:
                on_end()
            raise AutoReconnect(f"{self._name}: {len(self._abandoned)} abandoned calls have not ended")
        loop = asyncio.get_running_loop()
        if not self._under_way:
            self._progress = loop.time()
        task = loop.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        if on_end is not None:
            task.add_done_callback(lambda _: on_end())
        if self._look is None:
            self._look_in(self._patience)
        return task

    async def wait(self, task: asyncio.Task[T]) -> T:
        """Returns the result of a call that was started here."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and task in self._given_up and not _is_cancelled():
                raise AutoReconnect(f"{self._name}: the client no longer responded and was given up") from None
            if not task.done():
                self._abandon(task)
            raise
        finally:
            self._given_up.discard(task)

    def follow(self, task: asyncio.Task[Any], call: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Makes `call` when `task` has ended, and discards its result."""

        async def following() -> None:
            await asyncio.wait([task])
            with contextlib.suppress(Exception):
                await call()

        with contextlib.suppress(AutoReconnect):
            self._abandon(self.begin(following()))

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.add(task)
        self._on_abandoned()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        self._progress = task.get_loop().time()
        self._abandoned.discard(task)
        # Its caller may have ended, and asyncio would report the error as never retrieved.
        if not task.cancelled():
            task.exception()

    # --- a client that does not respond -------------------------------------------------------------------------

    def _look_in(self, seconds: float) -> None:
        self._look = asyncio.get_running_loop().call_later(seconds, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        if not self._under_way:
            return
        silent = asyncio.get_running_loop().time() - self._progress
        if silent < self._patience:
            self._look_in(self._patience - silent)
        elif self._probe is None:
            self._probe = begin(self._sign_of_life())
            self._look_in(2 * self._patience)
        elif self._probe.done():
            # An error is a response too: the client works, and the server is down.
            self._probe, self._progress, self._said = None, asyncio.get_running_loop().time(), False
            self._look_in(self._patience)
        elif not self._said and self._on_stuck():
            self.give_up()
        else:
            self._said = True
            self._look_in(2 * self._patience)

    async def _sign_of_life(self) -> None:
        with contextlib.suppress(Exception):
            await self._ping()

    def give_up(self) -> None:
        """Cancels the calls of a client that is no longer used, so that it does no harm."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.cancel()
        self._given_up |= self._under_way - self._abandoned
        for task in self._under_way:
            task.cancel()

    async def end(self, closing: Callable[[], Awaitable[object]] | None) -> None:
        """Closes a client of our own with `closing`, and ends its calls; without it, waits for the calls on a client
        that others continue to use. Takes a few seconds at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _FAREWELL
        if closing is not None:
            ending = begin(_awaited(closing))
            await asyncio.wait([ending], timeout=_FAREWELL)
            ending.cancel()
            self.give_up()
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=max(0.1, end - loop.time()))
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._probe is not None:
            self._probe.cancel()


async def _awaited(closing: Callable[[], Awaitable[object]]) -> None:
    # A client that is cancelled while closing raises for a lock that it does not hold: it is no longer used.
    with contextlib.suppress(Exception):
        await closing()


async def let_go(closing: Callable[[], Awaitable[object]]) -> None:
    """Closes a client that was given up, whose locks may never be free: what is cancelled here is no longer used."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_FAREWELL):
            await closing()


def _is_cancelled() -> bool:
    """Whether the current task itself is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
