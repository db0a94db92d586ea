"""A lock for as long as a process lives, which the kernel frees at its death, whatever that is.

Each process holds one on a file of its own in a folder that it shares with others. Who finds it taken knows that the
process lives, stopped or not; who gets it knows that it is dead. That holds between containers too, which share a
folder and a kernel and know nothing of each other's pids: the caller asks only for processes of the same kernel. A file
that is not there says nothing: somebody may have cleaned up. Where the platform has no `flock`, nothing is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

__all__ = ["held", "hold", "share"]

_SUFFIX: Final = ".lives"
_KEPT: Final = 500
"""Files of the dead that a folder may hold; of more, the oldest go, and with them what they prove."""

_lock = threading.Lock()
_folders: dict[Path, int] = {}
"""The folders that this process shares, with the descriptor of its own lock in each; -1: it holds none there."""


def share(folder: Path) -> None:
    """The locks of others in the folder count from now on. Does no I/O."""
    with _lock:
        _folders.setdefault(folder.absolute(), -1)


def hold(folder: Path, name: str) -> None:
    """Takes the lock of this process, which is known by `name`, in the folder, which is made if it is missing.
    Idempotent; takes it again if its file was cleaned away. Raises OSError."""
    share(folder)
    if sys.platform == "win32":
        return
    folder = folder.absolute()
    path = _file(folder, name)
    with _lock:
        own = _folders[folder]
        if own >= 0 and path.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        # The name appears when the lock is held: who comes in between would take this process for dead.
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        number = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.replace(path)
        except BaseException:
            os.close(number)
            draft.unlink(missing_ok=True)
            raise
        _folders[folder] = number
        if own >= 0:
            os.close(own)


def held(name: str) -> bool | None:
    """Whether the process of this name lives; None if no shared folder says so."""
    for folder in list(_folders):
        found = _taken(_file(folder, name))
        if found is not None:
            return found
    return None


def _file(folder: Path, name: str) -> Path:
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}{_SUFFIX}"


def _taken(path: Path) -> bool | None:
    if sys.platform == "win32":
        return None
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared, so that those who ask at once are not in each other's way.
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(number)
    return False


def _tidy(folder: Path) -> None:
    with contextlib.suppress(OSError):
        found = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda each: each.stat().st_mtime)
        for path in found[:-_KEPT]:
            if _taken(path) is False:
                path.unlink(missing_ok=True)


def _forked() -> None:
    """A child holds nothing for its parent, whose lock would else live as long as the child."""
    global _lock
    _lock = threading.Lock()
    for folder, number in _folders.items():
        if number >= 0:
            os.close(number)
        _folders[folder] = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
