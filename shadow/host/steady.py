"""Monotonic time, used for every decision about what has expired. The wall clock is for display only."""

from __future__ import annotations

import time

__all__ = ["steady"]


def steady() -> float:
    """Monotonic seconds that, where the system supports it, include the time for which the machine slept."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        # macOS' own clock includes sleep; `time.monotonic` there does not.
        boot = getattr(time, "CLOCK_MONOTONIC", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
