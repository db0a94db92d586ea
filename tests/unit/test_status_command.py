"""`shadow status` on a terminal of 80 columns: a line a collection, and nothing is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shadow.cli import status as command
from shadow.fleet.health_gates import Gate, Readiness
from shadow.fleet.status import CollectionRoute, JournalStatus, ProcessStatus
from shadow.model.phase import Phase, StoreName

Show = Callable[..., list[str]]
NAMES = ("users", "generated_content", "accounts_by_organisation", "the_name_of_a_collection_that_is_far_too_long")
FIGURE = "12 found in the last hour, of which every single one is to be read here to its very last word"
LONG = "find {organisation_id: $eq, state: $in, updated_at: $gte $lt} sort -updated_at limit skip"
SHAPES = [
    {
        "shape": LONG,
        "primary": {"count": 123_456_789, "p50": 0.0009, "p95": 0.0123, "p99": 9.4},
        "secondary": {"count": 5, "p50": 0.123, "p95": 9.4, "p99": 9.4},
        "ratio": {"p50": 136.67, "p95": 764.2, "p99": 1.0},
    },
    {"shape": "insert_one", "primary": {"count": 3, "p50": 0.1, "p95": 0.1, "p99": 0.1}, "secondary": {}},
]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    monkeypatch.setenv("COLUMNS", "80")
    route = CollectionRoute(StoreName.DYNAMO, Phase.DUAL_WRITE, "background", 0.5)
    gates = [Gate(name, gate, False, FIGURE, "look") for name in NAMES for gate in ("findings", "out-of-band writers")]
    totals = {
        "verdicts": {"match": 7},
        "comparisons": 7,
        "collections": {name: {"match": 12_345_678} for name in NAMES},
    }
    status = ProcessStatus(
        dict.fromkeys(NAMES, route),
        {},
        JournalStatus(open=dict.fromkeys(NAMES, 12_345), deferred={"users": 3}, refused={"users": 2}),
        totals=totals,
        latency=dict.fromkeys(NAMES, SHAPES),
        readiness=Readiness(tuple(gates)),
    )

    def show(**options: bool) -> list[str]:
        command._show(status, **{"every_gate": False, **options})
        return capsys.readouterr().out.splitlines()

    return show


def test_each_collection_has_one_line_and_its_whole_name(shown: Show) -> None:
    lines = shown()
    for name in NAMES[:3]:
        (line,) = [each for each in lines if name in each]
        assert "dynamo" in line
        assert "dual_write" in line
        assert "12345678" in line
        assert "2 closed" in line
    assert not any("…" in each for each in lines)
    assert NAMES[3] in "".join(each.split()[0] for each in lines if each.split())
    assert max(map(len, lines)) <= 80


def test_details_and_gates_show_everything_whole(shown: Show) -> None:
    lines = shown(details=True)
    (line,) = [each for each in lines if each.startswith("users:")]
    assert "writes background, shadow reads 50%, 12345 open intents, 3 (2 refused by the secondary) deferred" in line
    assert "closed gates: findings, out-of-band writers" in line
    text = "\n".join(shown(every_gate=True))
    assert "…" not in text
    assert all(word in text for word in FIGURE.split())


def test_store_against_store_fits_and_nothing_is_cut(shown: Show) -> None:
    lines = shown(details=True)
    start = next(number for number, line in enumerate(lines) if "dynamo is the primary" in line)
    assert max(map(len, lines[start:])) <= 80
    text = "\n".join(lines[start:])
    assert "…" not in text
    assert LONG.replace(" ", "") in "".join(line[:24].strip() for line in lines[start:]).replace(" ", "")
    (line,) = [each for each in lines[start : start + 10] if "764.2x" in each]
    assert "123457k" in line
    assert line.split()[-7:] == ["0.90", "12.3", "9400", "123", "9400", "9400", "764.2x"]
    (line,) = [each for each in lines[start : start + 10] if "insert_one" in each]
    assert line.split()[-3:] == ["100", "-", "-"]


def test_who_relays_and_what_of_is_not_read_are_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    reads = {"store": "mongo", "holder": "web-1 pid 7", "behind": 0.25, "fault": "",
             "collections": {"users": {"count": 3}}, "unread": {}}  # fmt: skip
    unread = {"users": "the table app-users has no stream: `shadow tables create` switches it on"}
    totals: dict[str, Any] = {"verdicts": {}, "comparisons": 0, "collections": {}}
    relay = {"mongo": reads, "dynamo": {**reads, "collections": {}, "unread": unread}}
    command._show(ProcessStatus(relay=relay, totals=totals, readiness=Readiness(())), every_gate=False)
    told = " ".join(capsys.readouterr().out.split())
    assert "writers on mongo: relayed by web-1 pid 7, 0.2 s behind: users 3" in told
    assert "writers on dynamo: relayed by web-1 pid 7, 0.2 s behind: none yet; not of users: the table" in told
    assert unread["users"] in told
    route = CollectionRoute(StoreName.MONGO, Phase.SHADOW, "background", 1.0)
    status = ProcessStatus({"users": route}, relay=relay, totals=totals, readiness=Readiness(()))
    assert "not of users after a flip to dynamo[/]: the table" in command._relay("dynamo", relay["dynamo"], status)
