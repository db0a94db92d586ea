"""The gates of backfill and verify: closed until a job has ended well, and lately."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.control import flip_record as routing
from shadow.control.epochs import interrupted
from shadow.control.flip_record import RouteRecord, WriteState
from shadow.control.members import Member, MemberRoute
from shadow.control.mongo import MongoRecords
from shadow.control.sqlite import SqliteRecords
from shadow.fleet.health_gates import Gate
from shadow.fleet.job_gates import FRESH, read_gates
from shadow.host.process import this_process
from shadow.jobs.issues import Issue
from shadow.jobs.target import JobRefused
from shadow.model.phase import Phase, StoreName
from tests.support.migration import OpenJobs

MONGO = StoreName.MONGO
FULL = {"full": True, "sample": 1.0, "filter": "{}"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def control(tmp_path: Path, clock: Clock) -> Iterator[OpenJobs]:
    made = OpenJobs(SqliteRecords(tmp_path / "control.db"), now=clock)
    dual = RouteRecord(MONGO, writing=WriteState.DUAL, dual=1, mark="an epoch")
    routing.change(made.records, lambda seen: seen.with_placed({"things": dual}))
    yield made
    made.close()


def done(control: OpenJobs, kind: str, outcome: str | None, options: dict[str, object] | None = None) -> None:
    """A job of one range with ten documents; unfinished without an outcome."""
    job = control.begin(kind, "things", "mark", options or {}, restart=True)
    control.create_ranges(job, [{}], 10)
    claim = control.claim(job, "worker", this_process())
    assert claim is not None
    issues = [Issue(1, "missing")] if outcome == "different" else []
    assert control.advance(claim, {"after": 1}, {"seen": 10, "compared": 10}, issues)
    if outcome is not None:
        control.complete(claim)
        control.finish(job, outcome)


def gates(control: OpenJobs, clock: Clock) -> list[Gate]:
    return read_gates(control.records, ["things"], routing.load(control.records).placed, now=clock.now)


def opened(control: OpenJobs, clock: Clock) -> dict[str, bool]:
    return {gate.name: gate.ok for gate in gates(control, clock)}


def test_where_no_job_ever_ran_both_are_closed(control: OpenJobs, clock: Clock) -> None:
    assert opened(control, clock) == {"copied": False, "equal": False}


def test_a_control_store_that_does_not_answer_closes_them_soon_and_says_so() -> None:
    records = MongoRecords("mongodb://127.0.0.1:9/?directConnection=true", "db", "control", patience=0.3)
    found = read_gates(records, ["things", "others"], {})
    records.close()
    assert [(gate.collection, gate.name, gate.ok) for gate in found] == [
        (collection, name, False) for collection in ("things", "others") for name in ("copied", "equal")
    ]
    assert "did not answer" in found[0].said


def test_a_whole_copy_and_a_whole_clean_verification_open_them(control: OpenJobs, clock: Clock) -> None:
    done(control, "backfill", "complete")
    done(control, "verify", "equal", FULL)
    assert opened(control, clock) == {"copied": True, "equal": True}


@pytest.mark.parametrize("outcome", ["incomplete", "abandoned", None])
def test_a_copy_that_is_not_whole_does_not_count(control: OpenJobs, clock: Clock, outcome: str | None) -> None:
    done(control, "backfill", outcome)
    assert not opened(control, clock)["copied"]


@pytest.mark.parametrize("options", [{**FULL, "full": False}, {**FULL, "sample": 0.5}, {**FULL, "filter": '{"n": 1}'}])
def test_a_part_of_a_verification_does_not_speak_for_the_whole(
    control: OpenJobs, clock: Clock, options: dict[str, object]
) -> None:
    done(control, "verify", "equal", options)
    assert not opened(control, clock)["equal"]


@pytest.mark.parametrize("outcome", ["different", "undecided", "nothing", None])
def test_nothing_but_equal_is_equal(control: OpenJobs, clock: Clock, outcome: str | None) -> None:
    done(control, "verify", outcome, FULL)
    assert not opened(control, clock)["equal"]


def test_a_verification_grows_old(control: OpenJobs, clock: Clock) -> None:
    done(control, "verify", "equal", FULL)
    clock.now += FRESH + 1
    assert not opened(control, clock)["equal"]


def test_a_difference_found_later_by_a_quick_look_closes_it(control: OpenJobs, clock: Clock) -> None:
    done(control, "verify", "equal", FULL)
    clock.now += 10
    done(control, "verify", "different", {**FULL, "full": False})
    assert not opened(control, clock)["equal"]
    clock.now += 10
    done(control, "verify", "equal", FULL)
    assert opened(control, clock)["equal"]


def test_what_was_copied_and_verified_in_another_epoch_of_dual_writes_says_nothing(
    control: OpenJobs, clock: Clock
) -> None:
    done(control, "backfill", "complete")
    done(control, "verify", "equal", FULL)
    assert opened(control, clock) == {"copied": True, "equal": True}
    routing.change(control.records, lambda seen: interrupted(seen, ["things"]))
    assert opened(control, clock) == {"copied": False, "equal": False}
    assert all("interrupted" in gate.said for gate in gates(control, clock))
    done(control, "verify", "equal", FULL)
    assert opened(control, clock) == {"copied": True, "equal": True}


def test_what_was_copied_while_a_process_wrote_one_store_alone_says_nothing(control: OpenJobs, clock: Clock) -> None:
    own = Member("alone", this_process(), "a journal", standing={"things": MemberRoute(MONGO, Phase.OFF, MONGO)})
    own.write(control.records)
    done(control, "backfill", "complete")
    assert all(
        "as the last job began, one of them wrote one store alone" in gate.said for gate in gates(control, clock)
    )
    own.leave(control.records, empty=True)
    done(control, "verify", "equal", {**FULL, "sample": 0.5})
    assert opened(control, clock) == {"copied": False, "equal": False}


def test_a_process_of_an_older_version_is_taken_to_write_one_store_alone(control: OpenJobs, clock: Clock) -> None:
    stands = {"things": MemberRoute(MONGO, Phase.SHADOW, MONGO)}
    Member("old", this_process(), "a journal", standing=stands, format=1).write(control.records)
    done(control, "verify", "equal", FULL)
    assert not opened(control, clock)["equal"]


def test_a_record_that_an_older_version_has_written_proves_nothing(control: OpenJobs, clock: Clock) -> None:
    done(control, "verify", "equal", FULL)
    found = control.records.get(routing.KEY)
    assert found is not None
    control.records.put(routing.KEY, {"placed": found.value["placed"], "flip": None})
    assert not opened(control, clock)["equal"]
    done(control, "verify", "equal", FULL)
    assert not opened(control, clock)["equal"], "nobody has begun an epoch yet"


def test_a_job_of_another_epoch_is_not_gone_on_with(control: OpenJobs, clock: Clock) -> None:
    done(control, "backfill", None)
    control.begin("backfill", "things", "mark", {})
    routing.change(control.records, lambda seen: interrupted(seen, ["things"]))
    with pytest.raises(JobRefused, match="the epoch of dual writes changed since"):
        control.begin("backfill", "things", "mark", {})
    control.begin("backfill", "things", "mark", {}, restart=True)
