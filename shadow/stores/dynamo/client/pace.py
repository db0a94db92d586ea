"""The SDK's adaptive retry mode: after a throttled request, requests wait for a rate that rises again as answers
arrive.

The rate is botocore's own (`CubicCalculator`, `RateClocker`); only the waiting differs. aiobotocore waits on an
`asyncio.Condition` inside `wait_for`: cancelled at the wrong moment, it leaves the lock of the condition taken forever,
and every later request of the client hangs. Here a waiting request holds nothing, so a cancelled one leaves nothing
behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from botocore.retries.adaptive import RateClocker
from botocore.retries.standard import RetryEventAdapter, ThrottlingErrorDetector
from botocore.retries.throttling import CubicCalculator

from shadow.model.deadline import left

__all__ = ["RequestPace", "in_time"]

_LEAST_RATE: Final = 0.5
_RISE: Final = 2.0
"""The target rate is at most this times the measured rate. Source for both figures: botocore.retries.adaptive."""
_LOOK_AGAIN: Final = 0.1
"""Seconds; the rate may have risen while a request slept."""


def in_time(**_event: Any) -> None:
    """Raises TimeoutError once the caller's time is over. No attempt starts after that, so a caller that gave up
    knows that nothing more is sent. Also a hook of the SDK ("before-send")."""
    seconds = left()
    if seconds is not None and seconds <= 0:
        raise TimeoutError("the caller no longer waits for the response")


class _Clock:
    def __init__(self, now: Callable[[], float]) -> None:
        self.current_time = now


class RequestPace:
    """Paces the requests of one client; `now`: seconds of a monotonic clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen = RateClocker(_Clock(now))
        self._wanted = CubicCalculator(starting_max_rate=0, start_time=now())
        self._throttled = ThrottlingErrorDetector(RetryEventAdapter())
        self._rate: float | None = None
        self._tokens = 0.0
        self._filled = now()

    @property
    def rate(self) -> float | None:
        """Requests per second that are allowed; None until the first throttling."""
        return self._rate

    def attach(self, client: Any) -> None:
        """Makes every attempt of the client, retries included, wait here first."""
        client.meta.events.register("before-send", self._before)
        client.meta.events.register("needs-retry", self._after)

    async def _before(self, **_event: Any) -> None:
        await self.wait()

    async def wait(self) -> None:
        """Returns when a request may be sent. Raises TimeoutError if the caller's time is over first: abandoned
        requests must not take the place of others."""
        in_time()
        while (wait := self._take()) > 0:
            await asyncio.sleep(min(wait, _LOOK_AGAIN))
            in_time()

    def _after(self, **event: Any) -> None:
        seen = self._seen.record()
        if self._throttled.is_throttling_error(**event):
            before = seen if self._rate is None else min(seen, self._rate)
            self._slow_to(self._wanted.error_received(before, self._now()), seen)
        else:
            self._risen(seen)

    def answered(self) -> None:
        """Records a success, which the client's hooks do not report."""
        self._risen(self._seen.record())

    def _risen(self, seen: float) -> None:
        if self._rate is not None:
            self._slow_to(self._wanted.success_received(self._now()), seen)

    def _slow_to(self, wanted: float, seen: float) -> None:
        self._fill()
        self._rate = max(min(wanted, _RISE * seen), _LEAST_RATE)
        self._tokens = min(self._tokens, self._most)

    def _take(self) -> float:
        """Takes a token, or returns the seconds until there is one."""
        if self._rate is None:
            return 0.0
        self._fill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def _fill(self) -> None:
        now = self._now()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * (self._rate or 0.0))
        self._filled = now

    @property
    def _most(self) -> float:
        return max(self._rate or 0.0, 1.0)
