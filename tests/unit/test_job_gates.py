"""The gates of backfill and verify: closed until a job has ended well, and lately."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.migrate.control import Control, Issue
from shadow.migrate.gates import FRESH, read_gates
from shadow.replicate.process import this_process

FULL = {"full": True, "sample": 1.0, "filter": "{}"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def control(tmp_path: Path, clock: Clock) -> Iterator[Control]:
    made = Control(tmp_path / "jobs", now=clock)
    yield made
    made.close()


def done(control: Control, kind: str, outcome: str | None, options: dict[str, object] | None = None) -> None:
    """A job of one range with ten documents; unfinished without an outcome."""
    job = control.begin(kind, "things", "mark", options or {}, restart=True)
    control.lay_out(job, [{}], 10)
    claim = control.claim(job, "worker", this_process())
    assert claim is not None
    issues = [Issue(1, "missing")] if outcome == "different" else []
    assert control.advance(claim, {"after": 1}, {"seen": 10, "compared": 10}, issues)
    if outcome is not None:
        control.complete(claim)
        control.finish(job, outcome)


def opened(control: Control, clock: Clock) -> dict[str, bool]:
    return {gate.name: gate.ok for gate in read_gates(control.path, ["things"], now=clock.now)}


def test_where_no_job_ever_ran_both_are_closed(control: Control, clock: Clock, tmp_path: Path) -> None:
    assert opened(control, clock) == {"copied": False, "equal": False}
    missing = read_gates(tmp_path / "nowhere" / "jobs", ["things"], now=clock.now)
    assert [gate.ok for gate in missing] == [False, False]
    assert not (tmp_path / "nowhere").exists(), "asking makes no file"


def test_a_whole_copy_and_a_whole_clean_verification_open_them(control: Control, clock: Clock) -> None:
    done(control, "backfill", "complete")
    done(control, "verify", "equal", FULL)
    assert opened(control, clock) == {"copied": True, "equal": True}


@pytest.mark.parametrize("outcome", ["incomplete", "abandoned", None])
def test_a_copy_that_is_not_whole_does_not_count(control: Control, clock: Clock, outcome: str | None) -> None:
    done(control, "backfill", outcome)
    assert not opened(control, clock)["copied"]


@pytest.mark.parametrize("options", [{**FULL, "full": False}, {**FULL, "sample": 0.5}, {**FULL, "filter": '{"n": 1}'}])
def test_a_part_of_a_verification_does_not_speak_for_the_whole(
    control: Control, clock: Clock, options: dict[str, object]
) -> None:
    done(control, "verify", "equal", options)
    assert not opened(control, clock)["equal"]


@pytest.mark.parametrize("outcome", ["different", "undecided", "nothing", None])
def test_nothing_but_equal_is_equal(control: Control, clock: Clock, outcome: str | None) -> None:
    done(control, "verify", outcome, FULL)
    assert not opened(control, clock)["equal"]


def test_a_verification_grows_old(control: Control, clock: Clock) -> None:
    done(control, "verify", "equal", FULL)
    clock.now += FRESH + 1
    assert not opened(control, clock)["equal"]


def test_a_difference_found_later_by_a_quick_look_closes_it(control: Control, clock: Clock) -> None:
    done(control, "verify", "equal", FULL)
    clock.now += 10
    done(control, "verify", "different", {**FULL, "full": False})
    assert not opened(control, clock)["equal"]
    clock.now += 10
    done(control, "verify", "equal", FULL)
    assert opened(control, clock)["equal"]
