"""The time of the journal in a file: the host's steady clock, counted from a moment that its processes share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shadow.host.process import this_process
from shadow.journal.base import Entry
from shadow.journal.sqlite import tables as module
from shadow.journal.sqlite.tables import Ledger

LIMIT = 30.0


class Host:
    """A machine with a steady clock, a wall clock that can be set, and one file."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.steady, self.wall, self.boot = 5000.0, 1_800_000_000.0, "boot-1"
        monkeypatch.setattr(module, "time_id", lambda: f"{self.boot}/" if self.boot else "")
        monkeypatch.setattr(module.time, "time", lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds

    def reboots(self, boot: str = "boot-2") -> None:
        self.boot, self.steady = boot, 3.0

    def process(self) -> Ledger:
        db = sqlite3.connect(self.path, isolation_level=None)
        made = Ledger(db, this_process(), limit=LIMIT, clock=lambda: self.steady)
        made.enter()
        return made

    def open(self, ledger: Ledger, op_id: str, key: int) -> None:
        ledger.open([Entry(op_id, "users", key)], ledger.at(self.steady))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path / "journal.db", monkeypatch)


@pytest.mark.parametrize("step", [-3600.0, -3.0, 3.0, 3600.0])
def test_a_step_of_the_clock_neither_ages_an_intent_nor_keeps_it_young(host: Host, step: float) -> None:
    first = host.process()
    host.open(first, "op1", 1)
    host.wall += step
    second = host.process()
    assert second.now() == first.now()
    assert second.due(10, 10) == [], "the intent of a living, young operation"
    assert second.stats().oldest_age == 0
    host.passes(LIMIT + 0.1)
    (due,) = second.due(10, 10)
    assert second.settle(due)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_an_unknown_outcome_is_not_settled_early_because_somebody_set_the_clock(host: Host, step: float) -> None:
    one = host.process()
    host.open(one, "op1", 1)
    one.defer("op1", unknown=True)
    (due,) = one.due(10, 10)
    host.wall += step
    assert not host.process().settle(due)
    host.passes(LIMIT + 0.1)
    (due,) = one.due(10, 10)
    assert one.settle(due)


@pytest.mark.parametrize("wall", [1_000_000.0, 1_800_000_100.0, 1_900_000_000.0])
def test_after_a_reboot_everything_has_its_whole_limit_again_whatever_the_clock_says(host: Host, wall: float) -> None:
    before = host.process()
    host.open(before, "op1", 1)
    host.open(before, "op2", 2)
    host.open(before, "op3", 3)
    before.defer("op2", unknown=True)
    before.defer("op3", unknown=False)
    host.reboots()
    host.wall = wall
    after = host.process()
    found = {due.key: due for due in after.due(10, 5)}
    assert found.keys() == {2, 3}, "and the first is not known to be orphaned: this very process made it"
    assert after.settle(found[3])
    assert not after.settle(found[2]), "its request may be under way still"
    host.passes(LIMIT + 0.1)
    found = {due.key: due for due in after.due(10, 5)}
    assert found.keys() == {1, 2}
    assert all(after.settle(each) for each in found.values())
    assert after.stats().open == 0


def test_what_is_known_of_earlier_boots_is_forgotten(host: Host) -> None:
    for number in range(5):
        host.reboots(f"boot-{number}")
        last = host.process()
    clocks = last._db.execute("SELECT collection FROM counts WHERE kind = 'clock'").fetchall()
    assert clocks == [("boot-4/",)]


def test_a_system_that_does_not_name_its_boots_goes_by_the_wall_clock(host: Host) -> None:
    host.boot = ""
    assert host.process().now() == host.wall


def test_the_wall_clock_is_asked_once_for_a_boot(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.process()

    def never() -> float:
        raise AssertionError("the wall clock was asked")

    wall: Callable[[], float] = never
    monkeypatch.setattr(time, "time", wall)
    again = host.process()
    host.open(again, "op1", 1)
    again.due(10, 10)
    again.claim("users", 1, 10)
    again.stats()
