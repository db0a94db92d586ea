"""How fast a job may go: a limit in documents a second that can change at any time, and a cap that follows the
primary's latency."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["RateLimiter"]

_LOWEST: Final = 10.0
"""Documents a second that a job does at least, however slow the primary is."""
_BURST: Final = 0.25
"""Seconds' worth of documents that may go at once after a pause."""
_RECHECK: Final = 0.25
"""Seconds after which a waiting worker sees a changed limit."""


class RateLimiter:
    """`rate`: documents a second, None for no limit. One event loop's."""

    def __init__(
        self,
        rate: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate = rate
        self._cap = math.inf
        self._clock = clock
        self._pause = pause
        self._debt = 0.0
        self._at = clock()
        self._taken = 0
        self._measured_at = clock()

    @property
    def limit(self) -> float:
        """Documents a second at the moment; infinite without a limit."""
        return min(self._cap, math.inf if self.rate is None else self.rate)

    async def take(self, documents: int) -> None:
        """Returns when so many more may be done. More than the rate is let through at once, and paid for afterwards."""
        while self._settle() > 0:
            await self._pause(min(_RECHECK, max(0.001, self._debt / self.limit)))
        self._debt += documents
        self._taken += documents

    def _settle(self) -> float:
        """The remaining debt, in documents; below zero, a saved burst."""
        now = self._clock()
        if math.isinf(self.limit):
            self._debt = 0.0
        else:
            self._debt = max(-_BURST * self.limit, self._debt - (now - self._at) * self.limit)
        self._at = now
        return self._debt

    def observe(self, latency: float, allowed: float) -> None:
        """Halves the pace where the primary answers slower than `allowed` (both seconds), raises it again by a
        quarter where it does not. Call it about once a second."""
        now = self._clock()
        achieved = self._taken / max(0.001, now - self._measured_at)
        self._taken, self._measured_at = 0, now
        if latency > allowed:
            self._cap = max(_LOWEST, min(self._cap, achieved) / 2)
        elif achieved < self._cap / 4:
            self._cap = math.inf  # something else limits it
        else:
            self._cap *= 1.25
