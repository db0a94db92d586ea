"""How late the event loop is: shadow work gives way while the application's own work waits for its turn.

A timer that is due every `_BEAT` seconds notes by how much it came too late. The lag that counts is the larger of the
last beat's and the one that is overdue right now, so that a loop which comes back from a long stall is known to be
late before the next beat says so.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["LoopLag"]

_BEAT: Final = 0.05
_FADE: Final = 0.5
"""Of the lag that was known, what is left of it after a beat that came in time."""


class LoopLag:
    """Beats once started, on the running loop. `limit`: seconds of lag from which the loop is late; 0: never."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lag = 0.0
        self._due: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Inside the event loop that is to be watched."""
        if self._limit > 0 and self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._beat_later(self._loop)

    def stop(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due = None
        self._lag = 0.0

    @property
    def seconds(self) -> float:
        """Seconds by which callbacks come later than they are due."""
        if self._due is None or self._loop is None:
            return 0.0
        return max(self._lag, self._loop.time() - self._due)

    @property
    def late(self) -> bool:
        return self._limit > 0 and self.seconds > self._limit

    def _beat_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _BEAT
        self._timer = loop.call_at(self._due, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        late_by = loop.time() - (self._due or loop.time())
        self._lag = max(late_by, self._lag * _FADE)
        self._beat_later(loop)
