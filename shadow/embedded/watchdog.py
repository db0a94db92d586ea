"""Kills a server when the process that started it is gone. Run as a script: `python -I -S watchdog.py FOLDER`.

Standard input is a pipe whose other end only the starting process holds, so it closes when that process ends, whatever
the cause. `PR_SET_PDEATHSIG` would be simpler, but it fires when the starting *thread* ends, and servers are started
from worker threads too. The first line is the server's process id. A second line, "done", says that the server was
stopped regularly.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable


def killer(pid: int) -> Callable[[], None]:
    """Returns a function that kills `pid` and everything it has started. On Linux it uses a pidfd, which can never
    refer to another process with the same id."""
    if not hasattr(os, "pidfd_open"):
        return lambda: os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return lambda: None

    def kill() -> None:
        signal.pidfd_send_signal(handle, 0)  # raises if it is gone, when its group's id may belong to another process
        os.killpg(pid, signal.SIGKILL)

    return kill


def main(folder: str) -> None:
    """Waits for the end of standard input, then kills the server and removes `folder`. Does nothing after "done"."""
    pid = sys.stdin.readline().strip()
    if pid == "done":
        return
    kill = killer(int(pid)) if pid else None
    if sys.stdin.readline().strip() == "done":
        return
    if kill is not None:
        with contextlib.suppress(ProcessLookupError):
            kill()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
