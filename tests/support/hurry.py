"""The clock of an event loop that a test makes go faster, for waits whose seconds somebody else chose.

Nothing is jumped over: what waits for a socket still has its time, only less of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

__all__ = ["Hurry"]


class Hurry:
    """The running loop's clock, from now to the loop's end. Called, it gives its seconds, for what has a clock of its
    own. It begins at the steady clock's time, and as fast as that."""

    def __init__(self) -> None:
        self._times = 1.0
        self._at = self._since = time.monotonic()
        loop: Any = asyncio.get_running_loop()
        loop.time = self
        select = loop._selector.select
        loop._selector.select = lambda timeout=None: select(timeout and timeout / self._times)

    def __call__(self) -> float:
        return self._at + (time.monotonic() - self._since) * self._times

    def by(self, times: float) -> None:
        """So many times as fast as the steady clock from now on."""
        self._at, self._since = self(), time.monotonic()
        self._times = times
