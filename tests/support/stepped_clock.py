"""A wall clock that somebody else sets: forward and back, under processes that go on.

Where `SHADOW_TEST_CLOCK` names a file, `time.time` of this process is off by as many seconds as the file says. It is
put in place when `tests.support` is imported, before anything of shadow's is, for a default argument keeps the clock
that it was made with. The steady clocks stay what they are.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

__all__ = ["VARIABLE", "SteppedClock", "install"]

VARIABLE: Final = "SHADOW_TEST_CLOCK"
_OFFSET: Final = struct.Struct("d")


class SteppedClock:
    """The file, for who sets it and who reads it."""

    def __init__(self, path: str | Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(handle, _OFFSET.size)
        self._memory = mmap.mmap(handle, _OFFSET.size)
        os.close(handle)

    @property
    def offset(self) -> float:
        """Seconds by which it is ahead."""
        seconds: float = _OFFSET.unpack_from(self._memory)[0]
        return seconds

    def step(self, seconds: float) -> None:
        """Sets it forward, or back."""
        _OFFSET.pack_into(self._memory, 0, self.offset + seconds)


def install() -> None:
    """Puts the clock in place of `time.time`, if the environment names one."""
    path = os.environ.get(VARIABLE)
    if path:
        clock, real = SteppedClock(path), time.time
        time.time = lambda: real() + clock.offset
