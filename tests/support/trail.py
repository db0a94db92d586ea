"""A file of notes that outlives its writer: what was noted is there after SIGKILL, and on a full disk too.

The file has its size from the start and is written through memory: a limit on what the process may write to files
does not touch it, and neither does the process' end.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["Trail", "notes"]

_SIZE: Final = 1 << 26
"""Of a file with holes: it takes what was written to it."""


class Trail:
    """`trail(*words)` notes one line. One writer a file; raises `ValueError` when the file is full."""

    def __init__(self, path: str | Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(handle, _SIZE)
        self._memory = mmap.mmap(handle, _SIZE)
        os.close(handle)
        self._at = 0

    def __call__(self, *words: object) -> None:
        line = (" ".join(map(str, words)) + "\n").encode()
        end = self._at + len(line)
        if end > _SIZE:
            raise ValueError("the file of notes is full")
        self._memory[self._at : end] = line
        self._at = end


def notes(path: str | Path) -> Iterator[list[str]]:
    """The words of each whole line; one that its writer did not come to the end of is left out."""
    file = Path(path)
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            if line.startswith(b"\0"):
                return
            if line.endswith(b"\n") and b"\0" not in line:
                yield line.decode().split()
