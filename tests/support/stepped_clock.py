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

import psutil

__all__ = ["VARIABLE", "SteppedClock", "follow", "install"]

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
    """Puts the clock in place of the wall clock, if the environment names one."""
    path = os.environ.get(VARIABLE)
    if path:
        follow(path)


def follow(path: str | Path) -> None:
    """For as long as this process lives, its wall clock is the one that is set at `path`. As where the kernel's is set,
    the moment of the boot moves with it, and whatever is derived from that."""
    clock, now, boot = SteppedClock(path), time.time, psutil.boot_time
    time.time = lambda: now() + clock.offset
    psutil.boot_time = lambda: boot() + clock.offset
    linux = getattr(psutil, "_pslinux", None)
    if linux is not None:
        linux.boot_time = psutil.boot_time
