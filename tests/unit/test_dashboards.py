"""The Grafana boards: every metric, label and label value that a panel names exists in what shadow exports."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from shadow.model.phase import Phase, Route, StoreName
from shadow.observe.gauges import GaugeSnapshot
from shadow.observe.metric_table import metric_table
from shadow.observe.metrics import Metrics
from tests.support import promql
from tests.support.boards import FOLDER, boards
from tests.support.cases import each_of

BOARDS: Final = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


@pytest.fixture(scope="module")
def series() -> promql.Series:
    """Everything that is exported, by a process with one collection."""
    route = Route(StoreName.MONGO, Phase.SHADOW)
    gauges = GaugeSnapshot(
        {"users": 1},
        1.0,
        1,
        10,
        {"users": route},
        {StoreName.DYNAMO: True},
        relay_lag={StoreName.MONGO: 1.0},
        canary_found={"users": 1.0},
        comparison_working={"users": True},
        mismatches_by_path={("users", "value", "name"): 1},
    )
    tables, rules = {"users": ["email-index"]}, [("users", "ignore")]
    metrics = Metrics(["users"], tables=tables, rules=rules, gauges=lambda: gauges)
    metrics.create_all()
    return promql.series_of(metrics.render()[0].decode())


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something, those inside collapsed rows too."""
    inside = [*board["panels"], *(inner for panel in board["panels"] for inner in panel.get("panels", []))]
    return [panel for panel in inside if panel["type"] != "row"]


def expressions() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{name}-{panel['title']}-{target['refId']}")
        for name, board in BOARDS.items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def test_there_are_boards_with_panels() -> None:
    assert BOARDS
    assert all(panels(board) for board in BOARDS.values())


@each_of("text", expressions())
def test_a_panel_asks_for_what_is_exported(text: str, series: promql.Series) -> None:
    assert promql.complaints(text, series) == []


@each_of(
    "text",
    [
        "shadow_no_such_total",
        'shadow_comparisons_total{verdict="equal"}',
        'shadow_comparisons_total{store="mongo"}',
        "sum by (store) (rate(shadow_comparisons_total[1m]))",
        "rate(shadow_comparisons_total)",
        "sum(shadow_queue_depth",
        "nonsense(shadow_queue_depth)",
    ],
)
def test_the_check_sees_faults(text: str, series: promql.Series) -> None:
    assert promql.complaints(text, series)


@each_of("text", expressions())
def test_every_alternative_of_a_pattern_is_a_value_that_exists(text: str, series: promql.Series) -> None:
    values = {(label, value) for _, labels in series for label, value in labels.items()}
    for label, pattern in re.findall(r'(\w+)[=!]~"([^"$]+)"', text):
        assert all((label, each) in values for each in pattern.split("|"))


def test_every_metric_is_shown_somewhere() -> None:
    shown = " ".join(
        target["expr"] for board in BOARDS.values() for panel in panels(board) for target in panel["targets"]
    )
    assert [row.name for row in metric_table() if row.name not in shown] == []


@each_of("board", BOARDS.values(), ids=BOARDS)
def test_ids_are_unique_and_panels_fill_the_board_without_overlapping(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    height = max(y for _, y in cells) + 1
    assert sorted(cells) == [(x, y) for x in range(24) for y in range(height)]


@each_of("board", BOARDS.values(), ids=BOARDS)
def test_panels_use_the_variable_for_the_data_source_and_say_what_they_show(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_the_boards_are_as_the_code_says() -> None:
    written = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")}
    assert written == boards(), "run: python -m tests.support.boards"


def test_boards_have_different_uids() -> None:
    uids = [board["uid"] for board in BOARDS.values()]
    assert len(uids) == len(set(uids))
