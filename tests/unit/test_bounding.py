"""What data or traffic multiply is bounded in the log, and in nothing else."""

from __future__ import annotations

from typing import Any, Final

import pytest

from shadow.compare.diff import Hasher
from shadow.errors import JournalError
from shadow.model.events import (
    ComponentFailed,
    HealFinished,
    MismatchConfirmed,
    OutOfBandWriteSeen,
    WriteDeferred,
    noted,
)
from shadow.model.operation import Verb
from shadow.model.verdict import Bypass, Deferral, Difference, Healing, Kind, Mismatch
from shadow.observe.bounding import AGAIN, LINES, MINUTE, Bounds, Held
from shadow.observe.findings import Findings
from shadow.observe.log import UNBOUNDED, WARNINGS, Event, LogThrottle
from shadow.observe.log_lines import LogLines
from shadow.observe.metrics import Metrics
from shadow.observe.report import Report

HASHER: Final = Hasher(b"a secret")


class Hand:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    info = warning

    def of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.lines if each["event"] == event]


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def report(hand: Hand, log: Log) -> Report:
    findings = Findings(HASHER, limit=5000)
    bounds, throttle = Bounds(clock=hand), LogThrottle(clock=hand)
    lines = LogLines(findings, HASHER, logger=log, bounds=bounds, throttle=throttle)  # type: ignore[arg-type]
    return Report(Metrics(["users"]), findings, lines, hasher=HASHER)


def mismatch(key: Any) -> Mismatch:
    return Mismatch("users", Verb.FIND, Kind.VALUE, key, (Difference(Kind.VALUE, "name"),))


def test_one_finding_is_one_line_however_often_it_is_seen(report: Report, log: Log, hand: Hand) -> None:
    for _ in range(8):
        report.publish(MismatchConfirmed(mismatch("k")))
        hand.now += 1
    assert len(log.of("mismatch.confirmed")) == 1
    hand.now += MINUTE
    report.say_held()
    (line,) = log.of("log.held_back")
    assert (line["not_written"], line["repeated"], line["by_event"]) == (7, 7, {"mismatch.confirmed": 7})
    assert report.findings.list()[0]["count"] == 8, "findings have all of it"
    assert report.metrics.totals()["mismatches"] == 8, "and so have the metrics"


def test_a_writer_that_touches_every_document_writes_a_bounded_log(report: Report, log: Log, hand: Hand) -> None:
    """1,200 findings, several times each, in 15 seconds, with a beat every second."""
    for turn in range(15):
        for number in range(turn * 80, turn * 80 + 80):
            for _ in range(4):
                report.publish(MismatchConfirmed(mismatch(number)))
        hand.now += 1
        report.say_held()
    assert len(log.lines) == LINES
    hand.now += MINUTE
    report.say_held()
    report.say_held()
    (line,) = log.of("log.held_back")
    assert line["not_written"] + LINES == 4 * 1200
    assert line["seconds"] == pytest.approx(75)
    assert report.findings.summary()["seen"] == 4 * 1200


def test_one_summary_a_minute_for_all_kinds_together(report: Report, log: Log, hand: Hand) -> None:
    for second in range(300):
        for number in range(10):
            report.publish(MismatchConfirmed(mismatch(second * 10 + number)))
            report.publish(noted(Event.INDEX_UNDECLARED, collection="users", index=f"i{number}", advice="none"))
        hand.now += 1
        report.say_held()
    summaries = log.of("log.held_back")
    assert len(summaries) == 5
    assert set(summaries[0]["by_event"]) == {"mismatch.confirmed", "index.undeclared"}
    for event in ("mismatch.confirmed", "index.undeclared"):
        written = len(log.of(event))
        assert written == 5 * LINES
        assert written + sum(each["by_event"][event] for each in summaries) == 300 * 10


def test_a_finding_that_is_still_there_is_named_again_after_an_hour(report: Report, log: Log, hand: Hand) -> None:
    report.publish(MismatchConfirmed(mismatch("k")))
    hand.now += AGAIN - 1
    report.publish(MismatchConfirmed(mismatch("k")))
    assert len(log.of("mismatch.confirmed")) == 1
    hand.now += 1
    report.publish(MismatchConfirmed(mismatch("k")))
    assert len(log.of("mismatch.confirmed")) == 2


@pytest.mark.parametrize("event", sorted(WARNINGS - UNBOUNDED))
def test_every_warning_has_a_bound(report: Report, log: Log, event: Event) -> None:
    for number in range(10 * LINES):
        report.publish(noted(event, collection=f"c{number}"))
    assert len(log.of(event)) == LINES


def test_what_people_did_is_on_record_whole(report: Report, log: Log) -> None:
    for event in (Event.ADMIN_REVEALED, Event.ADMIN_HEALED, Event.ADMIN_FLIPPED, Event.FLIP_DONE):
        for _ in range(3 * LINES):
            report.publish(noted(event, collection="users"))
        assert len(log.of(event)) == 3 * LINES


def test_hooks_that_traffic_multiplies_are_bounded_together(report: Report, log: Log, hand: Hand) -> None:
    for number in range(2000):
        report.publish(WriteDeferred(f"c{number}", Deferral.DEADLINE))
        report.publish(HealFinished(f"c{number}", Healing.FAILED))
        report.publish(ComponentFailed("journal", JournalError("full") if number % 2 else OSError(number)))
        report.publish(OutOfBandWriteSeen(f"c{number}", Bypass.CHANGED, number, str(number)))
        hand.now += 0.01
    assert len(log.lines) <= 4 * LINES
    report.say_held(ending=True)
    assert log.lines[-1]["event"] == "log.held_back"


def test_what_nobody_asks_about_is_told_at_the_end(hand: Hand) -> None:
    bounds = Bounds(lines=1, clock=hand)
    assert [bounds.admit("a") for _ in range(3)] == [True, False, False]
    assert bounds.due() is None, "not before the minute is over"
    hand.now += 3 * MINUTE
    assert bounds.admit("a"), "a new minute, though nobody has asked"
    assert bounds.due(ending=True) == Held({"a": 2}, 0, 3 * MINUTE)
    assert bounds.due(ending=True) is None
