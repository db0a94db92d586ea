"""The reporter: every hook counts and logs, none raises, and no document content comes out of any."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from shadow.compare.diff import Hasher, explain
from shadow.model.events import (
    CanaryFound,
    ComparisonFinished,
    ComponentFailed,
    ConfigReloaded,
    HealFinished,
    MismatchConfirmed,
    NoiseMeasured,
    OperationFinished,
    ReadFinished,
    ReadShed,
    Reporter,
    RouteChanged,
    RuleApplied,
    WriteDeferred,
    noted,
)
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, Route, StoreName
from shadow.model.verdict import Deferral, Healing, Kind, Mismatch, ShedReason, Slice, Verdict
from shadow.model.version import Version
from shadow.observe.findings import Findings
from shadow.observe.log import LOGGER_NAME, WARNINGS, Event, LogThrottle, error_fields, get_logger, scrub
from shadow.observe.log_lines import LogLines
from shadow.observe.metrics import Metrics
from shadow.observe.report import Report

HASHER = Hasher(b"secret")
SECRET = "hunter2"


class Recorder:
    """A logger that keeps its lines; `broken` makes it raise."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.broken = False

    def _keep(self, level: str, event: str, **fields: Any) -> None:
        if self.broken:
            raise RuntimeError("the disk is full")
        self.lines.append({"level": level, "event": event, **fields})

    def info(self, event: str, **fields: Any) -> None:
        self._keep("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._keep("warning", event, **fields)


@pytest.fixture
def log() -> Recorder:
    return Recorder()


def reporter(log: Any, **options: Any) -> Report:
    reveal = options.get("reveal_keys", False)
    findings = Findings(HASHER, reveal_keys=reveal)
    lines = LogLines(findings, HASHER, logger=log, **options)
    return Report(Metrics(["users"]), findings, lines, hasher=HASHER)


@pytest.fixture
def report(log: Recorder) -> Report:
    return reporter(log)


def mismatch(key: Any = "k1") -> Mismatch:
    left = {"_id": key, "name": SECRET, "tags": [SECRET, "x"], "by": {f"{SECRET}@example.org": 1}}
    right = {"_id": key, "name": 1, "tags": ["x"], "by": {f"{SECRET}@example.org": SECRET}}
    differences = explain(left, right, hasher=HASHER)
    return Mismatch("users", Verb.FIND, Kind.TYPE, key, differences, Version("b", 2), Version("b", 1))


def use_every_hook(report: Report, *, key: Any = "k1") -> None:
    report.publish(OperationFinished("users", Verb.FIND_ONE, StoreName.MONGO, Role.PRIMARY, Outcome.ACKED, 0.01))
    report.publish(ComparisonFinished("users", Verb.FIND_ONE, Verdict.MATCH))
    for rule in ["last-seen"]:
        report.publish(RuleApplied("users", rule))
    report.publish(NoiseMeasured("users", Verb.FIND_ONE, Verdict.MATCH))
    report.publish(CanaryFound("users"))
    report.publish(ReadFinished(Verb.FIND_ONE, Slice.SHADOWED, 0.01))
    report.publish(MismatchConfirmed(mismatch(key)))
    report.publish(ReadShed("users", Verb.FIND, ShedReason.LANE_FULL))
    report.publish(WriteDeferred("users", Deferral.SECONDARY_DOWN))
    report.publish(HealFinished("users", Healing.FAILED))
    report.publish(ConfigReloaded(True))
    report.publish(ConfigReloaded(False, "mongo.url: no such host"))
    report.publish(RouteChanged("users", Route(StoreName.DYNAMO, Phase.SHADOW)))
    report.publish(
        ComponentFailed("lane", DuplicateKeyError(f"dup key: {SECRET}", 11000, {"keyValue": {"email": SECRET}}))
    )
    report.publish(noted(Event.SECONDARY_DOWN, store=StoreName.DYNAMO, key=key))


def test_it_is_a_reporter(report: Report) -> None:
    accepted: Reporter = report
    assert accepted is report


def test_every_hook_counts(report: Report) -> None:
    use_every_hook(report)
    totals = report.metrics.totals()
    assert (totals["operations"], totals["comparisons"], totals["mismatches"]) == (1, 1, 1)
    assert totals["kinds"]["type"] == 1
    assert totals["shed"]["lane_full"] == 1
    assert totals["deferred"]["secondary_down"] == 1
    assert totals["heals"]["failed"] == 1
    assert totals["reloads"] == {"ok": 1, "rejected": 1}
    assert totals["failures"]["lane"] == 1
    assert totals["failures"]["report"] == 0
    assert len(report.findings) == 1


def test_a_confirmed_mismatch_is_one_line_with_paths_and_types(report: Report, log: Recorder) -> None:
    report.publish(MismatchConfirmed(mismatch()))
    (line,) = log.lines
    assert line["event"] == "mismatch.confirmed"
    assert line["level"] == "warning"
    assert (line["collection"], line["verb"], line["kind"]) == ("users", "find", "type")
    assert line["key_hash"] == HASHER.hash_key("k1")
    assert "key" not in line
    assert "name type: string/int" in line["differences"]
    assert report.findings.get(line["finding"]) is not None


def test_a_line_names_few_differences_and_says_how_many_more_there_are(report: Report, log: Recorder) -> None:
    many = explain({f"f{i}": 1 for i in "abcdefghijklm"}, {f"f{i}": 2 for i in "abcdefghijklm"}, hasher=HASHER)
    report.publish(MismatchConfirmed(Mismatch("users", Verb.FIND, Kind.VALUE, 1, many)))
    assert (len(log.lines[0]["differences"]), log.lines[0]["more"]) == (10, 3)


def test_keys_appear_only_where_that_is_allowed(log: Recorder) -> None:
    reporter(log).publish(MismatchConfirmed(mismatch("key-4711")))
    assert "key-4711" not in repr(log.lines)
    reporter(log, reveal_keys=True).publish(MismatchConfirmed(mismatch("key-4711")))
    assert log.lines[-1]["key"] == "key-4711"


SECRET_KEYS = [SECRET, {"tenant": SECRET}, SECRET.encode(), ObjectId(b"hunter2-2222")]


@pytest.mark.parametrize("key", SECRET_KEYS, ids=repr)
def test_no_secret_comes_out_of_any_hook(log: Recorder, key: Any) -> None:
    report = reporter(log)
    use_every_hook(report, key=key)
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        report.publish(ComponentFailed(SECRET, error))
        report.publish(
            noted(Event.INTERNAL_FAILED, error=error, note=SECRET, document={"a": SECRET}, raw=b"hunter2", at=key)
        )
        report.publish(noted(Event.INTERNAL_FAILED, names=[SECRET], odd={SECRET}, key={"a": SECRET}))
    report.publish(ConfigReloaded(False, f"mongo.url: mongodb://ann:{SECRET}@db.example.org/x?y=1"))
    shown = [log.lines, report.findings.list(), report.findings.groups(), report.metrics.totals()]
    text = json.dumps(shown) + report.metrics.render()[0].decode()
    for form in (SECRET, str(key), SECRET.encode().hex(), repr(SECRET)):
        assert form not in text
    assert report.metrics.totals()["failures"]["report"] == 0


def test_a_broken_logger_and_broken_findings_are_counted_and_raise_nothing(
    report: Report, log: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.broken = True
    use_every_hook(report)
    failures = report.metrics.totals()["failures"]
    assert failures["report"] == 8
    assert failures["lane"] == 1
    assert report.metrics.totals()["mismatches"] == 1


def test_arguments_that_make_no_sense_are_counted_and_raise_nothing(report: Report) -> None:
    report.publish(OperationFinished("users", "hunt", "mars", None, 3, "soon"))  # type: ignore[arg-type]
    report.publish(MismatchConfirmed(None))  # type: ignore[arg-type]
    report.publish(noted(Event.FLIP_STARTED, event="twice"))
    assert report.metrics.totals()["failures"]["report"] == 3


def test_cancellation_is_let_through(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report.metrics.recent, "add", cancelled)
    with pytest.raises(KeyboardInterrupt):
        report.publish(ComparisonFinished("users", Verb.FIND, Verdict.MATCH))


def test_what_repeats_is_logged_once_an_interval_and_the_rest_is_counted(log: Recorder) -> None:
    now = [0.0]
    report = reporter(log, throttle=LogThrottle(10.0, clock=lambda: now[0]))
    for _ in range(100):
        report.publish(WriteDeferred("users", Deferral.SECONDARY_DOWN))
    report.publish(WriteDeferred("documents", Deferral.SECONDARY_DOWN))
    now[0] = 11.0
    report.publish(WriteDeferred("users", Deferral.SECONDARY_DOWN))
    assert [(line["collection"], line["repeated"]) for line in log.lines] == [
        ("users", 0),
        ("documents", 0),
        ("users", 99),
    ]
    assert report.metrics.totals()["deferred"]["secondary_down"] == 102


def test_a_throttle_remembers_a_bounded_number_of_names() -> None:
    throttle = LogThrottle(10.0, limit=10, clock=lambda: 0.0)
    for i in range(1000):
        assert throttle.admit(str(i)) == 0
    assert len(throttle._seen) <= 10


def test_an_error_is_described_without_its_text() -> None:
    def fail() -> None:
        raise DuplicateKeyError(SECRET, 11000)

    try:
        fail()
    except DuplicateKeyError as error:
        fields = error_fields(error)
    assert fields["error"] == "pymongo.errors.DuplicateKeyError"
    assert fields["code"] == 11000
    assert fields["where"].startswith(f"{__name__}:")
    assert SECRET not in repr(fields)


def test_credentials_in_urls_and_long_texts_are_cut() -> None:
    assert scrub("a mongodb://u:p@h:1/x and https://t@h/") == "a mongodb://***@h:1/x and https://***@h/"
    assert len(scrub("x" * 9999)) == 2003


def test_every_warning_is_an_event_and_names_are_dotted() -> None:
    assert set(Event) >= WARNINGS
    for event in Event:
        assert event.count(".") == 1
        assert event == event.lower()


# -- the logger


@pytest.fixture
def untouched() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("untouched")
def test_without_configuration_events_are_json_lines_on_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=LOGGER_NAME):
        reporter(None).publish(MismatchConfirmed(mismatch()))
        get_logger().info(Event.FLIP_STARTED)
    first, second = (json.loads(record.message) for record in caplog.records)
    assert (first["event"], first["level"], first["kind"]) == ("mismatch.confirmed", "warning", "type")
    assert second["event"] == "flip.started"
    assert first["timestamp"].endswith("Z")
    assert not structlog.is_configured()


@pytest.mark.usefixtures("untouched")
def test_an_application_that_has_configured_structlog_gets_the_events_through_its_own_chain() -> None:
    with structlog.testing.capture_logs() as captured:
        structlog.configure(processors=structlog.get_config()["processors"])
        reporter(None).routed("users", Route(StoreName.MONGO, Phase.SHADOW))
    assert [line["event"] for line in captured] == ["route.changed"]
