"""A circuit breaker in front of a failing store: after some failures in a row, only an occasional probe is sent."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Opens after `threshold` failures in a row. While open, one probe may pass every `pause` seconds; the pause
    doubles up to `longest`, and a success closes it. `on_change` is called with True when the store counts as up
    again, False when it counts as down."""

    def __init__(
        self,
        *,
        threshold: int = 5,
        pause: float = 0.25,
        longest: float = 5.0,
        on_change: Callable[[bool], None] = lambda up: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._first = pause
        self._pause = pause
        self._longest = longest
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._next_probe = 0.0

    @property
    def closed(self) -> bool:
        """Whether the store counts as up."""
        return self._failures < self._threshold

    def allow(self) -> bool:
        """Whether a request may be sent now. Claims the probe if it is one."""
        if self.closed:
            return True
        now = self._clock()
        if now < self._next_probe:
            return False
        self._next_probe = now + self._pause
        return True

    def succeeded(self) -> None:
        was_open = not self.closed
        self._failures = 0
        self._pause = self._first
        if was_open:
            self._on_change(True)

    def failed(self) -> None:
        self._failures += 1
        if self._failures < self._threshold:
            return
        self._next_probe = self._clock() + self._pause
        self._pause = min(self._longest, self._pause * 2)
        if self._failures == self._threshold:
            self._on_change(False)
