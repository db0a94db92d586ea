"""Waiting for what a process does."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

__all__ = ["gone", "until"]


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Waits for a condition; fails if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """A process that ended; where nobody collects orphans it stays as a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
