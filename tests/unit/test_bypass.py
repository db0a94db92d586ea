"""Which mismatches are sure to come from writers past the shim, and which are not to be held against anybody."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from typing import Any

import pytest
from bson import ObjectId

from shadow.compare.bypass import bypass
from shadow.compare.diff import Hasher
from shadow.model.events import MismatchConfirmed, OutOfBandWriteSeen
from shadow.model.operation import Verb
from shadow.model.verdict import Bypass, Difference, Kind, Mismatch
from shadow.model.version import ABSENT, State, Tombstone, Version
from shadow.observe.bypassing import Bypassing
from shadow.observe.findings import Findings
from shadow.observe.log_lines import LogLines
from shadow.observe.metrics import Metrics
from shadow.observe.report import Report
from tests.support.cases import each_of

OLD = Version("", 0)
FIRST, SECOND = Version("b", 1), Version("b", 2)
GONE = Tombstone("t")
STARTED = time.time() - 100


def key_made(seconds: float) -> ObjectId:
    return ObjectId.from_datetime(dt.datetime.fromtimestamp(seconds, dt.UTC))


SURE: dict[str, tuple[State, State, Any, Bypass]] = {
    "other content at the same version": (FIRST, FIRST, "k", Bypass.CHANGED),
    "the same, of a document of before that the shim has changed": (
        Version("", 1),
        Version("", 1),
        "k",
        Bypass.CHANGED,
    ),
    "the version is gone": (OLD, SECOND, "k", Bypass.REPLACED),
    "without a version over a tombstone": (OLD, GONE, "k", Bypass.INSERTED),
    "without a version, made since": (OLD, ABSENT, key_made(STARTED + 10), Bypass.INSERTED),
    "the same, the key as text": (OLD, ABSENT, str(key_made(STARTED + 10)), Bypass.INSERTED),
    "gone without a tombstone": (ABSENT, SECOND, "k", Bypass.DELETED),
}


@each_of("case", SURE)
def test_what_no_writer_of_the_shim_can_have_done_is_named(case: str) -> None:
    primary, secondary, key, kind = SURE[case]
    assert bypass(mismatch(primary, secondary, key), since=STARTED) is kind


def test_a_hand_in_the_secondary_that_left_it_unreadable_blames_no_writer_of_the_primary() -> None:
    found = dataclasses.replace(mismatch(FIRST, FIRST, "k"), kind=Kind.UNREADABLE)
    assert bypass(found, since=STARTED) is None


UNSURE: dict[str, tuple[State | None, State | None, Any]] = {
    "a document of before, not copied yet": (OLD, ABSENT, "k"),
    "the same, with a key that says when": (OLD, ABSENT, key_made(STARTED - 10)),
    "text of 24 digits that is no time of ours": (OLD, ABSENT, "ffffffffffffffffffffffff"),
    "two documents of before": (OLD, OLD, "k"),
    "a document of before that only the secondary has": (ABSENT, OLD, "k"),
    "a write of the shim that was lost": (SECOND, FIRST, "k"),
    "an insert of the shim that was lost": (FIRST, ABSENT, "k"),
    "an insert of the shim over a tombstone that was lost": (FIRST, GONE, "k"),
    "a secondary that was loaded by something else": (SECOND, OLD, "k"),
    "deleted on both sides": (ABSENT, GONE, "k"),
    "an old tombstone on the side that answers now": (GONE, FIRST, "k"),
    "a whole answer": (None, None, None),
}


@each_of("case", UNSURE)
def test_what_may_have_come_about_otherwise_is_held_against_nobody(case: str) -> None:
    assert bypass(mismatch(*UNSURE[case]), since=STARTED) is None


def test_a_replay_that_came_to_something_else_is_not_a_writer_past_the_shim() -> None:
    found = mismatch(SECOND, SECOND, "k", Kind.WRITE_RESULT)
    assert bypass(found, since=STARTED) is None


def test_a_missing_document_is_not_held_against_anybody_where_the_journal_may_have_lost_the_delete() -> None:
    assert bypass(mismatch(ABSENT, SECOND, "k"), since=STARTED, doubted=True) is None


def mismatch(primary: State | None, secondary: State | None, key: Any, kind: Kind = Kind.VALUE) -> Mismatch:
    return Mismatch("users", Verb.FIND, kind, key, (Difference(kind, "name"),), primary, secondary)


@pytest.fixture
def report() -> Report:
    return made()


def made(**options: Any) -> Report:
    hasher = Hasher(b"test")
    findings = Findings(hasher)
    return Report(Metrics(["users"]), findings, LogLines(findings, hasher), hasher=hasher, **options)


def counted(report: Report, kind: Bypass) -> float:
    name = "shadow_out_of_band_writes_total"
    line = next(
        each
        for each in report.metrics.render()[0].decode().splitlines()
        if each.startswith(f'{name}{{collection="users",kind="{kind}"}}')
    )
    return float(line.split()[-1])


def test_a_write_past_the_shim_counts_once_however_often_it_is_read(report: Report) -> None:
    for _ in range(3):
        report.publish(MismatchConfirmed(mismatch(FIRST, FIRST, "k")))
    report.publish(MismatchConfirmed(mismatch(SECOND, SECOND, "k")))
    report.publish(MismatchConfirmed(mismatch(FIRST, FIRST, "other")))
    assert counted(report, Bypass.CHANGED) == 3
    (status,) = report.bypassing.status().values()
    assert (status["count"], status["kinds"]) == (3, {"changed": 3})
    assert report.findings.summary()["seen"] == 5


def test_all_series_stand_at_zero_and_status_is_empty_before_anything_was_seen(report: Report) -> None:
    assert [counted(report, kind) for kind in Bypass] == [0, 0, 0, 0]
    assert report.bypassing.status() == {}


def test_doubt_about_the_journal_reaches_the_report() -> None:
    report = made(doubted=lambda collection: collection == "users")
    report.publish(MismatchConfirmed(mismatch(ABSENT, SECOND, "k")))
    report.publish(OutOfBandWriteSeen("users", Bypass.DELETED, "k", "event"))
    assert report.bypassing.status() == {}
    report.publish(OutOfBandWriteSeen("users", Bypass.CHANGED, "k", "event"))
    assert counted(report, Bypass.CHANGED) == 1


def test_first_and_last_sight_are_kept_by_collection() -> None:
    times = iter([10.0, 20.0, 30.0])
    seen = Bypassing(clock=lambda: next(times))
    assert seen.add("a", Bypass.CHANGED, "k", 1)
    assert seen.add("b", Bypass.DELETED, "k", 1)
    assert not seen.add("a", Bypass.CHANGED, "k", 1)
    status = seen.status()
    assert (status["a"]["first_seen"][-9:-6], status["a"]["last_seen"][-9:-6]) == (":10", ":30")
    assert status["b"]["first_seen"] == status["b"]["last_seen"]
    assert status["b"]["means"].keys() == {"deleted"}


def test_what_the_watch_has_counted_a_read_does_not_count_again(report: Report) -> None:
    report.publish(OutOfBandWriteSeen("users", Bypass.CHANGED, "k", "event 1"))
    report.publish(OutOfBandWriteSeen("users", Bypass.CHANGED, "k", "event 1"))
    report.publish(OutOfBandWriteSeen("users", Bypass.CHANGED, "k", "event 2"))
    report.publish(MismatchConfirmed(mismatch(FIRST, FIRST, "k")))
    report.publish(MismatchConfirmed(mismatch(FIRST, FIRST, "unwatched")))
    assert counted(report, Bypass.CHANGED) == 3
