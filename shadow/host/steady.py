"""Time that never leaps: for every decision about what has expired. The wall clock is for people."""

from __future__ import annotations

import time

__all__ = ["steady"]


def steady() -> float:
    """Seconds that never leap, and that go on while the machine sleeps where the system can tell."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        # That of macOS goes on in its sleep, which `time.monotonic` does not there.
        boot = getattr(time, "CLOCK_MONOTONIC", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
