"""A lock that a process holds for as long as it lives; the kernel releases it at the process's death, whatever the
cause.

Each process locks a file of its own in a folder that it shares with others. If the lock is taken, the process lives,
even if it is suspended; if it is free, the process is dead. This also works between containers that share a folder and
a kernel but not pids; the caller must only ask about processes of the same kernel. A missing file says nothing, because
the folder may have been cleaned up. Without `flock` on the platform, nothing is known.
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
"""The most files of dead processes in a folder. Beyond that the oldest are deleted, and with them the proof of
death."""

_lock = threading.Lock()
_folders: dict[Path, int] = {}
"""The folders that this process shares, with the descriptor of its own lock in each; -1 if it holds none there."""


def share(folder: Path) -> None:
    """Makes the locks in the folder count from now on. Does no I/O."""
    with _lock:
        _folders.setdefault(folder.absolute(), -1)


def hold(folder: Path, name: str) -> None:
    """Locks the file of this process, known as `name`, in the folder, which is created if it is missing. Idempotent;
    locks a new file if the old one was deleted. Raises OSError."""
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
        # The file gets its name once it is locked; otherwise others could briefly take this process for dead.
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
    """Whether the process of this name lives; None if no shared folder knows."""
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
        # A shared lock, so that several processes can check at once.
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
    """Closes the inherited locks in a forked child; otherwise the parent's locks would live as long as the child."""
    global _lock
    _lock = threading.Lock()
    for folder, number in _folders.items():
        if number >= 0:
            os.close(number)
        _folders[folder] = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
