"""Locks between the processes of a host, on files beside the journal. The kernel ends them with the process.

Where the platform has no `flock` they lock nothing, and only SQLite's own locks remain.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

__all__ = ["FileLock"]

_PAUSE: Final = 0.005
_COURTESY: Final = 1.0
"""Seconds for which those who share the lock let one go first who wants it alone. One who died waiting costs no
more."""


_open: Final[weakref.WeakSet[FileLock]] = weakref.WeakSet()


def _forked() -> None:
    """A child closes its parent's locks: through the inherited descriptors they would last as long as the child."""
    for lock in list(_open):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class FileLock:
    """A lock, shared or alone, by one descriptor of one thread. Raises OSError where the file cannot be opened."""

    def __init__(self, path: Path, *, patience: float = 30.0) -> None:
        """`patience`: seconds to wait for the lock before a TimeoutError (a process may have been stopped with it)."""
        self._path = path
        self._patience = patience
        self._number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        _open.add(self)

    def close(self) -> None:
        """Idempotent."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    @contextmanager
    def shared(self) -> Iterator[None]:
        self.pass_shared()
        try:
            yield
        finally:
            self.release()

    def pass_shared(self) -> None:
        """Takes the lock shared, behind those who want it alone. The caller releases it."""
        self._let_pass()
        self._wait(alone=False)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Announces itself by the size of the file: those who share the lock could else keep it for ever."""
        os.ftruncate(self._number, 1)
        try:
            self._wait(alone=True)
            try:
                yield
            finally:
                self.release()
        finally:
            os.ftruncate(self._number, 0)

    def take(self, *, alone: bool) -> bool:
        """Takes the lock at once, or returns False. A held lock changes its kind."""
        if sys.platform != "win32":
            try:
                fcntl.flock(self._number, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def release(self) -> None:
        if sys.platform != "win32":
            fcntl.flock(self._number, fcntl.LOCK_UN)

    def wait_shared(self) -> None:
        """Takes the lock shared, until it is released or closed."""
        self._wait(alone=False)

    def _let_pass(self) -> None:
        if not os.fstat(self._number).st_size:
            return
        end = time.monotonic() + _COURTESY
        while os.fstat(self._number).st_size and time.monotonic() < end:
            time.sleep(_PAUSE)

    def _wait(self, *, alone: bool) -> None:
        if self.take(alone=alone):
            return
        end = time.monotonic() + self._patience
        while not self.take(alone=alone):
            if time.monotonic() > end:
                raise TimeoutError(f"another process has held {self._path.name} for {self._patience:g} s")
            time.sleep(_PAUSE)
