"""`shadow` as a process of its own, forked from a server that has everything imported: a command costs a tenth of a
second then, and not the two seconds of its imports. (`tests/e2e/test_demo.py` runs the program as it is installed.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from tests.support.worker import forking_server

__all__ = ["Ended", "begin", "run"]

PATIENCE: Final = 240.0
"""Seconds for a command, however crowded the machine is."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def begin(target: Callable[..., None], *arguments: Any, environment: Mapping[str, str], folder: Path) -> BaseProcess:
    """Runs `target(*arguments)` with this environment, in this folder. It may have processes of its own."""
    process: BaseProcess = forking_server().Process(target=_placed, args=(target, arguments, environment, str(folder)))
    process.start()
    return process


def command(words: Sequence[str], out: str = os.devnull, err: str = os.devnull) -> None:
    """`shadow WORDS`, for `begin`; what it says goes to these files."""
    from shadow.cli import main

    for number, path in ((1, out), (2, err)):
        said = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, number)
        os.close(said)
    sys.argv = ["shadow", *words]
    main()


def run(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> Ended:
    """`shadow WORDS`, to its end."""
    out, err = folder / "said.out", folder / "said.err"
    process = begin(command, words, str(out), str(err), environment=environment, folder=folder)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, out.read_text(), err.read_text())


def _placed(target: Callable[..., None], arguments: Any, environment: Mapping[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    target(*arguments)
