"""Progress of a long command, on standard error: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn

__all__ = ["Lines", "Shown", "duration", "is_watched", "progress"]

FIRST: Final = 5.0
"""Seconds before the first line, so that a short command prints none."""
EVERY: Final = 15.0
"""Seconds between two lines."""


class Shown(Protocol):
    """How a command shows its progress: the part of rich's `Progress` that is used."""

    @property
    def disable(self) -> bool:
        """Whether nothing is shown."""

    def __enter__(self) -> Shown: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add_task(self, description: str, *, total: float | None = None) -> TaskID: ...

    def update(
        self,
        task_id: TaskID,
        *,
        total: float | None = None,
        completed: float | None = None,
        description: str | None = None,
    ) -> None: ...

    def stop(self) -> None: ...


def is_watched() -> bool:
    """Whether standard error is an open terminal."""
    try:
        return os.isatty(2)
    except OSError:
        return False


def progress(title: str, *columns: ProgressColumn, quiet: bool = False) -> Shown:
    """A context manager: a bar with these columns (default: bar and description) that disappears at the end, or lines
    without a terminal. `quiet`: shows nothing."""
    if quiet or is_watched():
        shown = columns or (TextColumn(title), BarColumn(), TextColumn("{task.description}"))
        # rich's methods accept more than the protocol asks for.
        return cast(Shown, Progress(*shown, console=Console(stderr=True), transient=True, disable=quiet))
    return Lines(title)


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _write(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Lines:
    """Writes `shadow backfill, 0:01:15: users: 1200 of about 2000, 20/s, 0:00:40 left` every `every` seconds, from
    `first` seconds on. Runs in a thread, because a command that waits for a server cannot. `clock`: monotonic, in
    seconds."""

    disable = False

    def __init__(
        self,
        title: str,
        *,
        first: float = FIRST,
        every: float = EVERY,
        write: Callable[[str], None] = _write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._pauses = first, every
        self._write = write
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._description = ""
        self._total: float | None = None
        self._completed = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops writing."""
        self._ended.set()

    def add_task(self, description: str, *, total: float | None = None) -> TaskID:
        with self._lock:
            self._description, self._total = description, total
        return TaskID(0)

    def update(
        self,
        task_id: TaskID,
        *,
        total: float | None = None,
        completed: float | None = None,
        description: str | None = None,
    ) -> None:
        with self._lock:
            self._total = self._total if total is None else total
            self._completed = self._completed if completed is None else completed
            self._description = self._description if description is None else description

    def line(self) -> str:
        """The line for the current state."""
        with self._lock:
            description, total, completed = self._description, self._total, self._completed
        passed = self._clock() - self._began
        said = [description or "at work"]
        # A description with counts is better: it knows the unit and the recent rate.
        if not any(each.isdecimal() for each in description) and total:
            said.append(f"{completed:.4g} of {total:.4g}")
            if completed and passed > 0:
                said.append(f"{duration((total - completed) * passed / completed)} left")
        return f"shadow {self._title}, {duration(passed)}: {', '.join(said)}"

    def _run(self) -> None:
        pause, every = self._pauses
        while not self._ended.wait(pause):
            try:
                self._write(self.line())
            except (OSError, ValueError):
                return  # the reader is gone
            pause = every
