"""Threads of a run: code that blocks, and sleeps, runs step by step between the callbacks of the simulated loop.

Only one of all threads runs at any time, the loop's own among them: a thread gets the turn from the loop, and gives it
back where it sleeps or ends. So a seed decides the order here as well, and a run replays exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Ended", "SimulatedLock", "SimulatedThread"]

_WAITS: Final = 0.001
"""Virtual seconds between two tries to get a lock."""


class Ended(BaseException):
    """Unwinds what a thread was doing as its run ends."""


class _Worker:
    """A real thread, for one job after the other: to begin one costs more than a whole run of most jobs."""

    def __init__(self) -> None:
        self.job: Callable[[], None] | None = None
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()
        threading.Thread(target=self._work, name="simulated", daemon=True).start()

    def _work(self) -> None:
        while True:
            self.go.acquire()
            job, self.job = self.job, None
            assert job is not None
            job()
            self.back.release()


_IDLE: Final[list[_Worker]] = []


class _Current(threading.local):
    thread: SimulatedThread | None = None


_CURRENT: Final = _Current()


class SimulatedThread:
    """Runs `job`, which raises nothing but `Ended`, from the first `resume` on."""

    def __init__(self, job: Callable[[], None]) -> None:
        self._worker = _IDLE.pop() if _IDLE else _Worker()
        self._worker.job = self._whole
        self._job = job
        self._over = False
        self.done = False

    @staticmethod
    def current() -> SimulatedThread | None:
        """The one that the caller runs in; None: it runs in the event loop."""
        return _CURRENT.thread

    def _whole(self) -> None:
        _CURRENT.thread = self
        try:
            if not self._over:
                self._job()
        except Ended:
            pass
        finally:
            _CURRENT.thread = None
            self.done = True

    def resume(self) -> None:
        """Called by the loop: returns when the thread has come to its next pause, or to its end."""
        if self.done:
            return
        self._worker.go.release()
        self._worker.back.acquire()
        if self.done:
            _IDLE.append(self._worker)

    def pause(self) -> None:
        """Called by the thread: returns at the next `resume`."""
        self._worker.back.release()
        self._worker.go.acquire()
        if self._over:
            raise Ended

    def end(self) -> None:
        """Called by the loop as the run ends."""
        self._over = True
        while not self.done:
            self.resume()


class SimulatedLock:
    """Takes the place of `threading.Lock`: whoever waits for it lets the others run. `sleep`: of the loop."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._sleep(_WAITS)
        self._held = True

    def __exit__(self, *exc_info: object) -> None:
        self._held = False
