"""The identity of this process, and whether another process is known to be dead.

The wall clock is not used: it can be stepped, and start times derived from it then change for every process. A process
is distinguished from a later one with the same pid by the kernel's own count of ticks since boot (source:
proc_pid_stat(5), field 22). If processes share a folder, a lock there gives more certainty: see `liveness`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import psutil

from shadow.host import liveness

__all__ = ["Owner", "boot_id", "hold_lock", "share_locks", "this_process", "time_id"]

_NO_NAMESPACE: Final = "-"
_EPOCH: Final = 1e9
"""A larger start time is not relative to boot, but in seconds since the epoch, as earlier versions wrote them."""
_ENDED: Final = frozenset("ZXx")
"""States of a process that will never run again: killed, and its parent has not read its status yet."""


@lru_cache(maxsize=1)
def boot_id() -> str:
    """A text that changes with every boot of the operating system; "" if the system has none."""
    if sys.platform == "darwin":
        size, text = ctypes.c_size_t(64), ctypes.create_string_buffer(64)
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0)
        return "" if failed else text.value.decode(errors="replace")
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _clock_ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


def _namespace() -> str:
    """Identifies the namespaces within which a pid and a start time identify one process; "-" if that is unknown."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return _NO_NAMESPACE  # /proc belongs to other namespaces than this process
        found = os.readlink("/proc/self/ns/pid")
    except OSError:
        return _NO_NAMESPACE
    try:
        return f"{found},{os.readlink('/proc/self/ns/time')}"
    except OSError:
        return found  # a kernel without time namespaces


def _place() -> str:
    """Identifies the processes among which a pid is unique: host, boot and namespaces."""
    return f"{socket.gethostname()}/{boot_id()}/{_namespace()}"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. `place`: host, boot, namespaces, and when it was first noted (epoch seconds, for display and for
    `since`; nothing is decided by it). `started`: seconds from boot to its start, in the kernel's ticks."""

    place: str
    pid: int
    started: float

    @property
    def id(self) -> str:
        return f"{self.place}/{self.pid}/{self.started:.2f}"

    @property
    def host(self) -> str:
        return self.place.partition("/")[0]

    @property
    def realm(self) -> str:
        """Host, boot and namespaces: the same for all processes that share them."""
        return self._parts()[0]

    @property
    def since(self) -> float:
        """Approximate start in epoch seconds by its host's clock; 0.0 if unknown."""
        _, said = self._parts()
        if said.isdigit():
            return float(said)
        return self.started if self.started > _EPOCH else 0.0

    def _parts(self) -> tuple[str, str]:
        """Host, boot and namespaces, as `_place` names them; and the rest."""
        parts = self.place.split("/")
        return "/".join(parts[:3]), "/".join(parts[3:])

    def _boot(self) -> str:
        return [*self.place.split("/"), ""][1]

    def ended_with_its_system(self) -> bool:
        """Whether this host has rebooted since, so that data not yet on disk is lost."""
        return self.host == socket.gethostname() and "" not in (boot_id(), self._boot()) and self._boot() != boot_id()

    def known_dead(self) -> bool:
        """True only if it is certain: its host has rebooted, its lock is free, or the kernel has no such process. For a
        process of another host or container with which no lock is shared, it never is."""
        if self._boot() != boot_id():
            return self.ended_with_its_system()
        if self._boot() or self.host == socket.gethostname():
            lives = liveness.held(self._name())
            if lives is not None:
                return not lives
        return self._here() and self._gone()

    def _here(self) -> bool:
        """Whether its pid identifies one process here."""
        place, _ = self._parts()
        own = _place()
        if sys.platform == "linux" and own.endswith(f"/{_NO_NAMESPACE}"):
            return False
        # Earlier versions did not record the time namespace.
        return place in (own, own.partition(",")[0])

    def _gone(self) -> bool:
        found = _seen(self.pid)
        if found is None:
            return False
        state, started = found
        if state in _ENDED:
            return True
        if (self.started > _EPOCH) is not (started > _EPOCH):
            return False  # written by an earlier version: the pid is in use, perhaps by another process
        return abs(started - self.started) > 0.005

    def _name(self) -> str:
        """The name of its lock."""
        place, _ = self._parts()
        return f"{place}/{self.pid}/{self.started:.2f}"


def _seen(pid: int) -> tuple[str, float] | None:
    """State and start of the process that has the pid now; ("X", 0.0) if none has it, None if that is unknown."""
    if sys.platform != "linux":
        return _seen_by_psutil(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return _signalled(pid)
    # The program's name, in parentheses, may contain anything.
    fields = text.rpartition(")")[2].split()
    return (fields[0], int(fields[19]) / _clock_ticks()) if len(fields) > 19 else None


def _signalled(pid: int) -> tuple[str, float] | None:
    """/proc may hide other users' processes (option hidepid); signal 0 still reveals whether they exist."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "X", 0.0
    except (OSError, OverflowError):
        return None
    return None


def _seen_by_psutil(pid: int) -> tuple[str, float] | None:
    """Used where the kernel records a process's start as a time that later clock steps do not change."""
    try:
        found = psutil.Process(pid)
        return "Z" if found.status() == psutil.STATUS_ZOMBIE else "R", found.create_time()
    except psutil.NoSuchProcess:
        return "X", 0.0
    except psutil.Error:
        return None


@lru_cache(maxsize=4)
def _process(pid: int) -> Owner:
    found = _seen(pid)
    started = 0.0 if found is None else found[1]
    return Owner(f"{_place()}/{int(time.time())}", pid, started)


def this_process() -> Owner:
    """The same value for as long as the process lives; another one after a fork."""
    return _process(os.getpid())


def time_id() -> str:
    """Identifies the origin of `steady`: equal for all processes that read the same clock; "" if unknown."""
    return f"{boot_id()}/{_namespace().partition(',')[2]}" if boot_id() else ""


def share_locks(folder: Path) -> None:
    """Makes the locks of other processes in the folder count from now on. Does no I/O."""
    liveness.share(folder)


def hold_lock(folder: Path) -> None:
    """Lets processes that share `folder` know that this process lives, and when it has ended. Idempotent and cheap.
    Raises OSError if the folder cannot be used."""
    liveness.hold(folder, this_process()._name())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.cache_clear)
