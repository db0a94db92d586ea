"""The overview's "safe to flip" is green only where everything that it rests on is there and right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support import promql
from tests.support.boards import OVERVIEW
from tests.support.grafana import Panel
from tests.unit.test_alerts import promtool, rising, run, still  # noqa: F401 - a fixture

PANELS: Final[dict[str, Panel]] = {panel.title: panel for _, row in OVERVIEW.rows for panel in row}
SAFE: Final = promql.expression(PANELS["Safe to flip, as far as figures say"].queries[0][0])


def verdict(name: str) -> str:
    return f'shadow_comparisons_total{{collection="users",verb="find",verdict="{name}"}}'


MISMATCHES: Final = 'shadow_mismatches_total{collection="users",kind="value"}'
WORKING: Final = 'shadow_comparison_working{collection="users"}'
PAST: Final = 'shadow_out_of_band_writes_total{collection="users",kind="changed"}'
FLIPS: Final = 'shadow_flips_total{collection="users",result="done"}'
OLDEST: Final = "shadow_journal_oldest_intent_seconds"
UP: Final = 'shadow_secondary_up{store="dynamo"}'

WELL: Final = {
    verdict("match"): rising(20),
    verdict("excused"): still(0),
    verdict("mismatch"): still(0),
    verdict("shed"): rising(1),
    MISMATCHES: still(0),
    WORKING: still(1),
    PAST: still(0),
    FLIPS: still(0),
    OLDEST: still(2),
    UP: still(1),
}


def said(
    promtool: str,  # noqa: F811
    folder: Path,
    series: dict[str, str],
    samples: list[dict[str, Any]],
    question: str = SAFE,
) -> None:
    """Holds promtool to the answer after an hour and more."""
    test = {
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": question, "eval_time": "65m", "exp_samples": samples}],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump(test), encoding="utf-8")
    run(promtool, "test", "rules", str(file))


def test_where_all_is_well_it_says_yes(promtool: str, tmp_path: Path) -> None:  # noqa: F811
    said(promtool, tmp_path, WELL, [{"labels": '{collection="users"}', "value": 1}])


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({WORKING: still(0)}, id="planted differences are not found"),
        pytest.param({verdict("match"): "0+20x20 400+0x120"}, id="comparisons have ended"),
        pytest.param({verdict("match"): still(0), verdict("shed"): rising(20)}, id="all is shed"),
        pytest.param({verdict("shed"): rising(20)}, id="half is shed"),
        pytest.param({verdict("match"): still(0), verdict("shed"): still(0)}, id="nothing is compared"),
        pytest.param({MISMATCHES: "0+0x100 1+0x40"}, id="a mismatch"),
        pytest.param({PAST: "0+0x100 1+0x40"}, id="a write past shadow"),
        pytest.param({FLIPS: "0+0x100 1+0x40"}, id="a flip, with the comparisons of before it"),
        pytest.param({OLDEST: still(61)}, id="the journal is behind"),
        pytest.param({UP: still(0)}, id="the secondary is down"),
    ],
)
def test_what_is_broken_makes_it_say_no(promtool: str, tmp_path: Path, broken: dict[str, str]) -> None:  # noqa: F811
    said(promtool, tmp_path, {**WELL, **broken}, [{"labels": '{collection="users"}', "value": 0}])


@pytest.mark.parametrize("name", sorted({each.partition("{")[0] for each in WELL}))
def test_what_is_not_there_is_no_yes(promtool: str, tmp_path: Path, name: str) -> None:  # noqa: F811
    """A panel without data, or with one that is no number, is not green."""
    series = {each: values for each, values in WELL.items() if each.partition("{")[0] != name}
    said(promtool, tmp_path, series, [], f"({SAFE}) == 1")


def test_only_what_speaks_for_itself_is_ever_green() -> None:
    """A zero that rests on no comparison is not."""
    green = {title for title, panel in PANELS.items() if any(colour == "green" for colour, _ in panel.steps)}
    assert green == {"Safe to flip, as far as figures say", "Comparison works", "Oldest intent", "Secondary"}
