"""A wall clock that a test sets, forward or back, for processes that are at work; the steady clocks stay as they are.

Stepped as the kernel steps it: with the time of day moves the moment of the boot, and whatever is derived from that.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import Final

import psutil

__all__ = ["SteppedClock", "follow"]

_DOUBLE: Final = struct.Struct("d")


class SteppedClock:
    """`path`: the file by which processes are told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_DOUBLE.pack(0.0))

    def step(self, seconds: float) -> None:
        """Sets the clocks of all that follow it so much forward; negative: back."""
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), _DOUBLE.size) as shared:
            shared[:] = _DOUBLE.pack(_DOUBLE.unpack(shared[:])[0] + seconds)


def follow(path: str) -> None:
    """For as long as this process lives, its wall clock is the one that is set at `path`."""
    with Path(path).open("rb") as file:
        shared = mmap.mmap(file.fileno(), _DOUBLE.size, access=mmap.ACCESS_READ)
    now, boot = time.time, psutil.boot_time
    linux = getattr(psutil, "_pslinux", None)

    def stepped() -> float:
        return now() + float(_DOUBLE.unpack(shared[:])[0])

    def booted() -> float:
        return boot() + float(_DOUBLE.unpack(shared[:])[0])

    time.time = stepped
    psutil.boot_time = booted
    if linux is not None:
        linux.boot_time = booted
