"""How far a long command has come: a bar on a terminal, a line now and then elsewhere. Always on standard error."""

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
"""Seconds before the first line: what ends sooner needs none."""
EVERY: Final = 15.0
"""Seconds between two lines."""


class Shown(Protocol):
    """What a command tells; the part of rich's `Progress` that is used."""

    @property
    def disable(self) -> bool:
        """Whether nobody is told."""

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
    """Whether standard error is a terminal. One that is closed is none."""
    try:
        return os.isatty(2)
    except OSError:
        return False


def progress(title: str, *columns: ProgressColumn, quiet: bool = False) -> Shown:
    """A `Shown` for `with`: a bar with these columns (bar and description by default) that is gone when it ends, or
    lines. `quiet`: nothing at all."""
    if quiet or is_watched():
        shown = columns or (TextColumn(title), BarColumn(), TextColumn("{task.description}"))
        # Its methods take more than is asked for here.
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
    """`shadow backfill, 0:01:15: users: 1200 of about 2000, 20/s, 0:00:40 left`, every `every` seconds from `first` on,
    out of a thread: a command that waits for a server has no turn of its own. `clock`: seconds that go forward."""

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
        """Says nothing more."""
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
        """What would be written now."""
        with self._lock:
            description, total, completed = self._description, self._total, self._completed
        passed = self._clock() - self._began
        said = [description or "at work"]
        # A description that counts says it better: it knows what is counted, and how fast it went of late.
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
                return  # nobody reads any more
            pause = every
