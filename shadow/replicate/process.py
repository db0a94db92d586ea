"""Who this process is, and whether another one is known to be dead."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

__all__ = ["Owner", "boot_id", "this_process"]


@lru_cache(maxsize=1)
def boot_id() -> str:
    """A text that changes with every start of the operating system."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def _place() -> str:
    """Names the set of processes among which a pid means one process: host, boot and pid namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()}/{boot_id()}/{namespace}"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from a later one with the same pid by its start time (seconds since the epoch)."""

    place: str
    pid: int
    started: float

    @property
    def id(self) -> str:
        return f"{self.place}/{self.pid}/{self.started:.2f}"

    def ended_with_its_system(self) -> bool:
        """Whether this host's operating system has started anew since: what was not yet on the disk is gone."""
        host, _, rest = self.place.partition("/")
        return host == socket.gethostname() and rest.partition("/")[0] != boot_id()

    def known_dead(self) -> bool:
        """True only if it is certain. A process of another place (host, boot, container) is never certain, except
        that nothing outlives a reboot of this very host."""
        if self.place != _place():
            return self.ended_with_its_system()
        try:
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.started) > 1.0:
                return True
            # Killed, and its parent has not asked for its status: nothing of it will ever run again.
            return found.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def this_process() -> Owner:
    pid = os.getpid()
    return Owner(_place(), pid, psutil.Process(pid).create_time())
