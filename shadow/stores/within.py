"""Waiting for a store for so long and no longer: the driver is told how long, and whoever waits goes away after it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from shadow.model.deadline import ending

__all__ = ["within"]


class within:
    """`async with within(seconds):` raises TimeoutError when they are over, as `asyncio.timeout` does. The stores give
    what is left of them to their drivers as a limit, and a call that nobody waits for any more is not cancelled."""

    __slots__ = ("_ending", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._ending = ending(seconds)

    async def __aenter__(self) -> None:
        self._ending.__enter__()
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._ending.__exit__(None, None, None)
        await self._timeout.__aexit__(kind, error, at)
