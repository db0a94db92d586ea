"""`shadow flip` is refused for each gate that does not hold, with the reason, and changes nothing; and is not refused
where all of them hold. What the gates rest on is written into the control store as processes and jobs would."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.testing import CliRunner

from shadow.cli import app
from shadow.control import epochs, members, receipts
from shadow.control import flip_record as routing
from shadow.control.flip_record import RouteRecord, WriteState
from shadow.control.members import Member, MemberRoute
from shadow.control.records import Records
from shadow.control.sqlite import SqliteRecords
from shadow.fleet.gates import REHEARSAL, REHEARSED
from shadow.fleet.health_gates import _ORDER, ENOUGH
from shadow.host.process import this_process
from shadow.jobs.issues import Issue
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, StoreName
from shadow.model.version import fresh_id
from tests.support.migration import OpenJobs

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
NAME: Final = "things"
WELL: Final[dict[str, Any]] = {
    "primary": "mongo", "phase": "shadow", "shadow_reads": 1.0, "down": [], "findings": 0, "planted": True,
    "works": True, "waiting": 0, "refused": 0, "oldest": 0.0, "read": True, "unverified": "", "bypassing": 0,
    "compared": ENOUGH, "shed": 0, "seconds": 3600.0,
    "indexes_known": True, "indexes_lost": [], "not_portable": [],
    "relayed": 0, "last": 0.0, "behind": -1.0, "unrelayed": "",
    "slower": 3.0, "read_times": ["", ""], "write_times": ["", ""],
}  # fmt: skip
COPIED: Final = ("backfill", "complete")
EQUAL: Final = ("verify", "equal")
DUAL: Final = RouteRecord(MONGO, writing=WriteState.DUAL, dual=1, mark="an epoch")
FULL: Final = {"full": True, "sample": 1.0, "filter": "{}"}


class Place:
    """A control store of two processes that are ready for a flip, and the configuration beside it."""

    def __init__(self, folder: Path) -> None:
        self.records: Records = SqliteRecords(folder / "control.db")
        self.records.prepare()
        self.config = folder / "shadow.yaml"
        content = {
            "mongo": {"url": "mongodb://127.0.0.1:1", "database": "none"},
            "dynamo": {"endpoint_url": "http://127.0.0.1:1"},
            "control": {"url": f"sqlite:///{folder / 'control.db'}", "heartbeat": 0.05},
            "defaults": {"primary": "mongo", "phase": "shadow"},
            "collections": {NAME: {}},
            "limits": {"drain": 0.2},  # no process ever answers a flip here
        }
        self.config.write_text(yaml.safe_dump(content), encoding="utf-8")
        routing.change(self.records, lambda seen: seen.with_placed({NAME: DUAL}))
        for _ in range(2):
            self.process()
        self.job(*COPIED)
        self.job(*EQUAL)
        self.rehearsed(age=60.0)

    def interrupt(self) -> None:
        routing.change(self.records, lambda seen: epochs.interrupted(seen, [NAME]))

    def process(self, *, standing: MemberRoute | None = None, format: int = members.FENCED, **figures: Any) -> None:
        row = Member(fresh_id(), this_process(), "a journal", format=format)
        stands = {NAME: standing or MemberRoute(MONGO, Phase.SHADOW, MONGO)}
        health = {NAME: CollectionHealth.of_record({**WELL, **figures})}
        dataclasses.replace(row, standing=stands, figures=health).write(self.records)

    def elsewhere(self, *databases: str) -> None:
        """Processes whose files name other places."""
        for name in databases:
            row = Member(fresh_id(), this_process(), "a journal", where={"mongo.database": name})
            stands = {NAME: MemberRoute(MONGO, Phase.SHADOW, MONGO)}
            health = {NAME: CollectionHealth.of_record(WELL)}
            dataclasses.replace(row, standing=stands, figures=health).write(self.records)

    def beginning(self) -> None:
        """A process that has not told its figures yet."""
        stands = {NAME: MemberRoute(MONGO, Phase.SHADOW, MONGO)}
        Member(fresh_id(), this_process(), "a journal", standing=stands).write(self.records)

    def job(self, kind: str, outcome: str) -> None:
        jobs = OpenJobs(self.records)
        job = jobs.begin(kind, NAME, "mark", FULL if kind == "verify" else {}, restart=True)
        jobs.create_ranges(job, [{}], 10)
        claim = jobs.claim(job, "worker", this_process())
        assert claim is not None
        issues = [Issue(1, "missing")] if outcome in ("different", "incomplete") else []
        assert jobs.advance(claim, {"after": 1}, {"seen": 10, "compared": 10}, issues)
        jobs.complete(claim)
        jobs.finish(job, outcome)

    def rehearsed(self, *, age: float) -> None:
        at = 1.0 if age > REHEARSED else None
        receipts.file(
            self.records, REHEARSAL, {"done": True, "to": {NAME: "dynamo"}, "epochs": {NAME: DUAL.mark}}, at=at
        )

    def forget(self, prefix: str) -> None:
        self.records.delete_all(prefix)

    def flip(self, *more: str) -> tuple[int, dict[str, Any]]:
        words = ["flip", NAME, "--to", "dynamo", "--json", "--config", str(self.config), *more]
        result = CliRunner().invoke(app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with contextlib.closing(made.records):
        yield made


def test_where_every_gate_holds_nothing_is_refused(place: Place) -> None:
    code, said = place.flip("--dry-run")
    assert (code, said["closed"]) == (0, [])
    assert len(said["steps"]) > 3


CASES: Final[list[tuple[str, str, Callable[[Place], object]]]] = [
    (
        "processes",
        "do not report the same route",
        lambda place: place.process(standing=MemberRoute(MONGO, Phase.OFF, MONGO)),
    ),
    (
        "processes",
        "no process is responsible for",
        lambda place: members.note_journal(place.records, "a dead one's journal"),
    ),
    ("processes", "no process is registered", lambda place: place.forget("member/")),
    ("processes", "mongo.database is 'app' in", lambda place: place.elsewhere("app", "other")),
    ("processes", "an older version of shadow", lambda place: place.process(format=1)),
    ("copied", "interrupted", lambda place: place.interrupt()),
    ("equal", "interrupted", lambda place: place.interrupt()),
    ("way back", "never rehearsed", lambda place: place.interrupt()),
    ("compared", "not known of all", lambda place: (place.forget("member/"), place.beginning())),
    ("secondary", "dynamo counts as down", lambda place: place.process(down=["dynamo"])),
    ("findings", "3 open", lambda place: place.process(findings=3)),
    ("comparison works", "not found", lambda place: place.process(works=False)),
    ("comparison works", "no differences are planted", lambda place: place.process(planted=False)),
    ("journal", "the oldest 61 s", lambda place: place.process(waiting=1, oldest=61.0)),
    ("journal", "does not answer", lambda place: place.process(read=False)),
    ("verified", "not since", lambda place: place.process(unverified="2026-01-01T00:00:00+00:00")),
    ("copied", "never copied", lambda place: (place.forget("job"), place.job("verify", "different"))),
    ("copied", "incomplete", lambda place: place.job("backfill", "incomplete")),
    ("equal", "never verified as a whole", lambda place: (place.forget("job"), place.job(*COPIED))),
    ("equal", "different", lambda place: place.job("verify", "different")),
    ("equal", "undecided", lambda place: place.job("verify", "undecided")),
    ("equal", "nothing", lambda place: place.job("verify", "nothing")),
    ("way back", "never rehearsed", lambda place: place.forget("receipt/")),
    ("way back", "h ago", lambda place: (place.forget("receipt/"), place.rehearsed(age=2 * REHEARSED))),
    ("writers", "out-of-band writes: 2", lambda place: place.process(bypassing=2)),
    (
        "writers after",
        "would not be relayed: the table app-things has no stream",
        lambda place: place.process(behind=0.5, unrelayed_after="the table app-things has no stream"),
    ),
    ("indexes", "1 have no counterpart", lambda place: place.process(indexes_lost=["bio_text"])),
    ("indexes", "not known", lambda place: place.process(indexes_known=False)),
    (
        "portable",
        "not portable yet: $where, collation",
        lambda place: place.process(not_portable=["collation", "$where"]),
    ),
    ("phase", "dual_write", lambda place: place.process(phase="dual_write")),
    ("phase", "0% of the reads", lambda place: place.process(shadow_reads=0.0)),
    ("compared", "0 with a verdict", lambda place: (place.forget("member/"), place.process(compared=0))),
    ("compared", "999 with a verdict", lambda place: (place.forget("member/"), place.process(compared=ENOUGH - 1))),
    ("shed", "nothing was read", lambda place: (place.forget("member/"), place.process(compared=0))),
    ("shed", "at most 10%", lambda place: place.process(shed=ENOUGH)),
    ("fast enough", "(at most 3 times)", lambda place: place.process(read_times=["9:1000", "19:1000"])),
]


@pytest.mark.parametrize(("gate", "why", "spoil"), CASES, ids=[f"{gate}: {why}" for gate, why, _ in CASES])
def test_a_closed_gate_refuses_says_why_and_changes_nothing(
    place: Place, gate: str, why: str, spoil: Callable[[Place], object]
) -> None:
    spoil(place)
    before = place.config.read_text(), routing.load(place.records), receipts.listed(place.records)
    code, said = place.flip()
    assert (code, said["done"]) == (1, False)
    (closed,) = [each for each in said["closed"] if each["name"] == gate]
    assert why in closed["said"]
    assert NAME in closed["look_at"] or "process" in closed["look_at"]
    assert (place.config.read_text(), routing.load(place.records), receipts.listed(place.records)) == before
    code, dry = place.flip("--dry-run")
    assert (code, dry["closed"]) == (1, said["closed"])


def test_open_findings_are_told_with_the_host_that_keeps_them(place: Place) -> None:
    """A verification closes those of its own host alone."""
    place.process(findings=2, kept="far: /var/shadow.db.findings")
    place.process(findings=0, kept="near: /var/shadow.db.findings")
    code, said = place.flip("--dry-run")
    assert code == 1
    (gate,) = (each for each in said["closed"] if each["name"] == "findings")
    assert f"kept on far: /var/shadow.db.findings: `shadow verify {NAME}` there" in gate["look_at"]
    assert "near" not in gate["look_at"]


def test_a_stream_that_nobody_can_read_hinders_no_rehearsal_and_no_end(place: Place) -> None:
    """There is no flip after either."""
    place.process(behind=0.5, unrelayed_after="no stream")
    assert [each["name"] for each in place.flip("--dry-run")[1]["closed"]] == ["writers after"]
    assert place.flip("--dry-run", "--rehearse")[1]["closed"] == []
    words = ["complete", NAME, "--json", "--config", str(place.config)]
    routing.change(place.records, lambda seen: seen.with_placed({NAME: dataclasses.replace(DUAL, primary=DYNAMO)}))
    said = json.loads(CliRunner().invoke(app, words).stdout)
    assert "writers after" not in {each["name"] for each in said["closed"]}


def test_every_gate_has_its_case() -> None:
    assert {gate for gate, _, _ in CASES} == set(_ORDER)


def test_closed_gates_are_told_before_the_steps_that_are_made_in_spite_of_them(place: Place) -> None:
    place.job("verify", "different")
    place.forget("member/")
    words = ["flip", NAME, "--to", "dynamo", "--config", str(place.config), "--force", "--reason", "a test"]
    result = CliRunner().invoke(app, words)
    lines = result.stdout.splitlines()
    gates = [number for number, line in enumerate(lines) if line.startswith("closed, overridden: ")]
    last = next(number for number, line in enumerate(lines) if "not done" in line or "released" in line)
    assert gates
    assert max(gates) < last
    assert result.exit_code == 1
