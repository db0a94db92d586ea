"""Who this process is, and whether another one is known to be dead.

No wall clock is asked: it can be stepped, and whoever derives start times from it then gives every process another one.
A process is told apart from a later one with its pid by the kernel's own count of ticks since the boot (source:
proc_pid_stat(5), field 22). Where processes share a folder, a lock there says more: see `liveness`.
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
"""A start time beyond it is none since a boot: it is one in seconds since the epoch, as earlier versions wrote them."""
_ENDED: Final = frozenset("ZXx")
"""States of a process of which nothing will ever run again: killed, and its parent has not asked for its status."""


@lru_cache(maxsize=1)
def boot_id() -> str:
    """A text that changes with every start of the operating system; "" where the system does not say."""
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
    """Names the namespaces in which a pid and a start time mean one process; "-" where that cannot be told."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return _NO_NAMESPACE  # /proc is that of other namespaces than this process's
        found = os.readlink("/proc/self/ns/pid")
    except OSError:
        return _NO_NAMESPACE
    try:
        return f"{found},{os.readlink('/proc/self/ns/time')}"
    except OSError:
        return found  # a kernel without namespaces of time


def _place() -> str:
    """Names the set of processes among which a pid means one process: host, boot and namespaces."""
    return f"{socket.gethostname()}/{boot_id()}/{_namespace()}"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. `place`: host, boot, namespaces, and when it said so first (epoch seconds, for people and for
    `since`; it decides nothing). `started`: seconds from the boot to its start, by the kernel's ticks."""

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
        """Host, boot and namespaces, the same for all processes that share them."""
        return self._parts()[0]

    @property
    def since(self) -> float:
        """About when it began, in epoch seconds by its host's clock; 0.0 if that is not known."""
        _, said = self._parts()
        if said.isdigit():
            return float(said)
        return self.started if self.started > _EPOCH else 0.0

    def _parts(self) -> tuple[str, str]:
        """Host, boot and namespaces, as `_place` names them; and what stands behind."""
        parts = self.place.split("/")
        return "/".join(parts[:3]), "/".join(parts[3:])

    def _boot(self) -> str:
        return [*self.place.split("/"), ""][1]

    def ended_with_its_system(self) -> bool:
        """Whether this host's operating system has started anew since: what was not yet on the disk is gone."""
        return self.host == socket.gethostname() and "" not in (boot_id(), self._boot()) and self._boot() != boot_id()

    def known_dead(self) -> bool:
        """True only if it is certain: its host has started anew, the lock that it held is free, or the kernel has no
        such process. A process of another host or container, with which no lock is shared, is never certain."""
        if self._boot() != boot_id():
            return self.ended_with_its_system()
        if self._boot() or self.host == socket.gethostname():
            lives = liveness.held(self._name())
            if lives is not None:
                return not lives
        return self._here() and self._gone()

    def _here(self) -> bool:
        """Whether its pid means one process here."""
        place, _ = self._parts()
        own = _place()
        if sys.platform == "linux" and own.endswith(f"/{_NO_NAMESPACE}"):
            return False
        # Earlier versions did not name the namespace of time.
        return place in (own, own.partition(",")[0])

    def _gone(self) -> bool:
        found = _seen(self.pid)
        if found is None:
            return False
        state, started = found
        if state in _ENDED:
            return True
        if (self.started > _EPOCH) is not (started > _EPOCH):
            return False  # of an earlier version: the pid is in use, and nobody can say by whom
        return abs(started - self.started) > 0.005

    def _name(self) -> str:
        """By which its lock is known."""
        place, _ = self._parts()
        return f"{place}/{self.pid}/{self.started:.2f}"


def _seen(pid: int) -> tuple[str, float] | None:
    """State and start of the process that has the pid now; ("X", 0.0) if none has it, None if that cannot be told."""
    if sys.platform != "linux":
        return _seen_by_psutil(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return _signalled(pid)
    # The name of the program, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return (fields[0], int(fields[19]) / _clock_ticks()) if len(fields) > 19 else None


def _signalled(pid: int) -> tuple[str, float] | None:
    """/proc may hide the processes of others (its option hidepid); a signal that is not sent still tells of them."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "X", 0.0
    except (OSError, OverflowError):
        return None
    return None


def _seen_by_psutil(pid: int) -> tuple[str, float] | None:
    """Where the kernel keeps the start of a process as a time that no later step of the clock moves."""
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
    """The same for as long as the process lives; another one after a fork."""
    return _process(os.getpid())


def time_id() -> str:
    """Names what `steady` counts from: the same for all processes that read the same time; "" if that is not known."""
    return f"{boot_id()}/{_namespace().partition(',')[2]}" if boot_id() else ""


def share_locks(folder: Path) -> None:
    """The locks that other processes hold in the folder count from now on. Does no I/O."""
    liveness.share(folder)


def hold_lock(folder: Path) -> None:
    """From now on, processes that share `folder` know that this process lives, and know at once when it has ended.
    Idempotent and cheap; raises OSError where the folder cannot be used."""
    liveness.hold(folder, this_process()._name())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.cache_clear)
