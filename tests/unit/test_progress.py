"""Without a terminal, a long command says now and then how far it has come."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest
from rich.progress import Progress

from shadow.cli import progress as module
from shadow.cli.progress import Lines, duration, is_watched, progress


class Hand:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Told:
    """What was written, and when there is enough of it."""

    def __init__(self, wanted: int) -> None:
        self.lines: list[str] = []
        self.enough = threading.Event()
        self._wanted = wanted

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) >= self._wanted:
            self.enough.set()


def test_a_line_says_what_is_done_how_much_of_it_and_how_long_it_takes() -> None:
    hand = Hand()
    lines = Lines("repair", clock=hand)
    task = lines.add_task("healing", total=400)
    assert lines.line() == "shadow repair, 0:00:00: healing, 0 of 400"
    hand.now += 75
    lines.update(task, completed=300)
    assert lines.line() == "shadow repair, 0:01:15: healing, 300 of 400, 0:00:25 left"
    lines.update(task, description="things: 300 of about 400, 4/s, 0:00:25 left")
    assert lines.line() == "shadow repair, 0:01:15: things: 300 of about 400, 4/s, 0:00:25 left"


def test_lines_come_by_themselves_while_the_command_waits_and_end_with_it() -> None:
    told = Told(3)
    lines = Lines("verify", first=0.001, every=0.001, write=told)
    lines.add_task("things: starting")  # before the thread begins: it may write sooner than this one goes on
    with lines:
        assert told.enough.wait(90)
    lines._thread.join(90)
    assert not lines._thread.is_alive()
    assert all(each.endswith("things: starting") for each in told.lines)


def test_a_command_that_has_said_nothing_yet_is_at_work() -> None:
    assert Lines("verify", clock=Hand()).line() == "shadow verify, 0:00:00: at work"


def test_a_reader_that_has_gone_ends_the_lines_and_not_the_command() -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError

    with Lines("verify", first=0.001, every=0.001, write=gone) as lines:
        lines._thread.join(90)
        assert not lines._thread.is_alive()


@pytest.mark.parametrize(
    ("watched", "quiet", "kind"),
    [(True, False, Progress), (True, True, Progress), (False, True, Progress), (False, False, Lines)],
)
def test_a_terminal_has_a_bar_and_others_have_lines(
    monkeypatch: pytest.MonkeyPatch, watched: bool, quiet: bool, kind: type[Any]
) -> None:
    monkeypatch.setattr(module, "is_watched", lambda: watched)
    made: Any = progress("verify", quiet=quiet)
    assert isinstance(made, kind)
    assert bool(made.disable) is quiet


def test_standard_error_that_is_closed_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(number: int) -> bool:
        raise OSError("bad file descriptor")

    monkeypatch.setattr(module.os, "isatty", closed)
    assert not is_watched()


def test_lines_go_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    error = io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    module._write("a line")
    assert error.getvalue() == "a line\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (3661, "1:01:01"), (100_000, "27:46:40")]
)
def test_durations_are_written_as_clocks_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
