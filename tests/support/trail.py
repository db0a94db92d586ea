"""A file of notes that outlives its writer: what was noted is there after SIGKILL, and on a full disk too.

The file has its size from the start and is written through memory: a limit on what the process may write to files
does not touch it, and neither does the process' end. Whoever starts a process that may be under such a limit from its
beginning makes the file (`prepare`).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["Trail", "notes", "prepare"]

_SIZE: Final = 1 << 26
"""Of a file with holes: it takes what was written to it."""
_CHUNK: Final = 1 << 16


def prepare(path: str | Path) -> None:
    """Makes the file, as large as it will be."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(handle, _SIZE)
    os.close(handle)


class Trail:
    """`trail(*words)` notes one line. One writer a file; raises `ValueError` when the file is full."""

    def __init__(self, path: str | Path) -> None:
        if not os.path.exists(path):
            prepare(path)
        handle = os.open(path, os.O_RDWR)
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
    """The words of each whole line; none that its writer did not come to the end of."""
    file = Path(path)
    if not file.exists():
        return
    told, some = bytearray(), b""
    with file.open("rb") as content:
        while b"\0" not in some and (some := content.read(_CHUNK)):
            told += some
    for line in bytes(told).partition(b"\0")[0].splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield line.decode().split()
