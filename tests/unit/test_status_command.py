"""`shadow status` on a terminal of 80 columns: a line a collection, and nothing is cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shadow.cli import status as command
from shadow.fleet.health_gates import Gate, Readiness
from shadow.fleet.status import CollectionRoute, JournalStatus, ProcessStatus
from shadow.model.phase import Phase, StoreName

Show = Callable[..., list[str]]
NAMES = ("users", "generated_content", "accounts_by_organisation", "the_name_of_a_collection_that_is_far_too_long")
FIGURE = "12 found in the last hour, of which every single one is to be read here to its very last word"


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
