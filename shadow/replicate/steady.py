"""A clock for leases: it never goes back, and goes on while the machine sleeps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final

__all__ = ["steady"]


def _steady() -> Callable[[], float]:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        return time.monotonic
    return functools.partial(time.clock_gettime, clock)


steady: Final[Callable[[], float]] = _steady()
"""Seconds since some moment, the same for every process of the host. `time.monotonic` stands still on Linux while the
machine is suspended: a lease would outlive the sleep of the one who holds it."""
