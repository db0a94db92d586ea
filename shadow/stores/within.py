"""Waits for a store with a time limit that is passed to the driver as well."""

from __future__ import annotations

import asyncio
from types import TracebackType

from shadow.model.deadline import ending

__all__ = ["within"]


class within:
    """`async with within(seconds):` raises TimeoutError when the time is over, as `asyncio.timeout` does. The stores
    pass the remaining time to their drivers as a limit; an abandoned call is not cancelled."""

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
