"""Processes that tell everything: what one says on stdout and stderr is kept in a file of its own, from its first line.

That file is written by the process that has started it, by way of a pipe: what was said is there when the one that said
it may write no file any more (a disk that is full), could not import what it was to run, or was killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["Worker", "forking_server"]

_PRELOADED: Final = [
    "tests.support.warm",
    "tests.support.worker",
    "tests.support.writer",
    "tests.support.hammer",
    "tests.support.lifecycle",
    "tests.support.fleet_worker",
    "shadow.cli",
]
_END: Final = 4000
"""Characters that are shown of what a process has said."""
_DRAINED: Final = 2.0
"""Seconds for the last words of a process that has ended; a child of its own may live on with the same pipe."""

_unheard: list[IO[bytes]] = []
"""What the server that forks has said itself, and its children before they had a pipe."""


def forking_server() -> Any:
    """The context of processes that are forked from a server which has everything imported: one costs a tenth of a
    second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    if not _unheard:
        _unheard.append(tempfile.TemporaryFile())  # noqa: SIM115 - for as long as the server lives
        with _stderr_is(_unheard[0].fileno()):
            forkserver.ensure_running()
    return context


class Worker:
    """`target(*arguments)` in a process of its own, started at once; what it says is kept in `said`. `environment`:
    what it has beside this one's; that is there before anything is imported, so such a process is no fork."""

    def __init__(
        self, said: Path, target: Callable[..., None], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        self.said = said
        reader, writer = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn") if environment else forking_server()
        # What it is to run is imported when it can already be heard.
        order = pickle.dumps((target, arguments))
        self.process: BaseProcess = context.Process(target=_run, args=(writer, order), daemon=True)
        with contextlib.ExitStack() as stack:
            if environment:
                stack.enter_context(_environment_with(environment))
                stack.enter_context(_stderr_is(writer.fileno()))
            self.process.start()
        writer.close()
        self._listener = threading.Thread(target=_listen, args=(reader, said), daemon=True)
        self._listener.start()

    def last_words(self) -> str:
        """The end of what it has said; if it never came to speak, what the server that forked it has heard."""
        if self.process.exitcode is not None:
            self._listener.join(_DRAINED)
        told = self.said.read_text(errors="replace") if self.said.exists() else ""
        if not told and _unheard:
            _unheard[0].seek(0)
            told = _unheard[0].read().decode(errors="replace")
        return told[-_END:] or "without a word"


def _run(writer: Connection, order: bytes) -> None:
    for stream in (1, 2):
        os.dup2(writer.fileno(), stream)
    writer.close()
    faulthandler.enable()
    target, arguments = pickle.loads(order)
    target(*arguments)


def _listen(reader: Connection, said: Path) -> None:
    with reader, said.open("ab", buffering=0) as kept:
        while told := os.read(reader.fileno(), 1 << 16):
            kept.write(told)


@contextlib.contextmanager
def _stderr_is(handle: int) -> Iterator[None]:
    """For the processes that are started meanwhile."""
    before = os.dup(2)
    os.dup2(handle, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextlib.contextmanager
def _environment_with(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
