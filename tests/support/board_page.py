"""A board as a page: its panels where Grafana would put them, with what Prometheus answers. Not Grafana, which no
registry has as a program; near enough to be looked at, and to show what overlaps, is cut or is empty."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from shadow.markup import Child, Markup, join, tag
from tests.support import promql

__all__ = ["Answers", "board_page"]

Answers = Callable[[str], list[dict[str, Any]]]
"""A query over the last minutes to its series: {"metric": {label: value}, "values": [[seconds, text]]}."""

_CELL: Final = 50
"""Pixels of one of Grafana's 24 columns; a row has 30."""
_ROW: Final = 30
_COLOURS: Final = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0")
_STYLE: Final = f"""
body {{ margin: 0; background: #111217; color: #ccccdc; font: 12px/1.3 sans-serif; }}
.board {{ position: relative; width: {24 * _CELL}px; }}
.panel {{ position: absolute; box-sizing: border-box; border: 3px solid #111217; background: #181b1f;
  overflow: hidden; }}
.panel h3, .panel h2 {{ margin: 4px 6px; font-size: 13px; white-space: nowrap; overflow: hidden; }}
.legend {{ margin: 0 6px; max-height: 62px; overflow: hidden; }}
.stat {{ font-size: 28px; text-align: center; margin: 40px 6px; }}
td {{ padding: 0 10px 0 6px; }}
"""


def board_page(board: Mapping[str, Any], ask: Answers, collection: str = ".*") -> str:
    """HTML without scripts. `collection`: the value of the board's variable."""
    panels = [_panel(each, ask, collection) for each in board["panels"]]
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in board["panels"]) * _ROW
    made = tag("div", *panels, class_="board", style=f"height: {height}px")
    head = tag("head", tag("meta", charset="utf-8"), tag("title", board["title"]), tag("style", Markup(_STYLE)))
    return f"<!doctype html>{tag('html', head, tag('body', made))}"


def _panel(panel: Mapping[str, Any], ask: Answers, collection: str) -> Markup:
    at = panel["gridPos"]
    place = f"left:{at['x'] * _CELL}px;top:{at['y'] * _ROW}px;width:{at['w'] * _CELL}px;height:{at['h'] * _ROW}px"
    if panel["type"] == "row":
        return tag("div", tag("h2", panel["title"]), class_="panel row", style=place)
    series = [
        (_legend(target.get("legendFormat", ""), each["metric"]), each)
        for target in panel["targets"]
        for each in ask(promql.expression(target["expr"].replace("$collection", collection)))
    ]
    drawn = {"stat": _stat, "table": _table, "timeseries": _lines}[panel["type"]]
    body = drawn(panel, series, at) if series else tag("p", "No data", class_="legend")
    return tag(
        "div", tag("h3", panel["title"], title=panel["description"]), body,
        class_="panel", style=place, data_title=panel["title"], data_series=len(series),
    )  # fmt: skip


_Named = list[tuple[str, dict[str, Any]]]


def _legend(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), text) or str(dict(labels))


def _lines(panel: Mapping[str, Any], series: _Named, at: Mapping[str, int]) -> Markup:
    width, height = at["w"] * _CELL - 20, at["h"] * _ROW - 110
    values = [[(float(when), float(value)) for when, value in each["values"]] for _, each in series]
    whole = [point for each in values for point in each if point[1] == point[1]]
    most = max((value for _, value in whole), default=0.0) or 1.0
    begin, end = min(when for when, _ in whole or [(0.0, 0)]), max(when for when, _ in whole or [(1.0, 0)])
    span = (end - begin) or 1.0
    drawn: list[Child] = []
    for number, each in enumerate(values):
        places = " ".join(
            f"{(when - begin) / span * width:.1f},{height - value / most * (height - 12):.1f}"
            for when, value in each
            if value == value
        )
        drawn.append(tag("polyline", points=places, fill="none", stroke=_COLOURS[number % len(_COLOURS)]))
    top = tag("text", f"{most:.3g} {panel['fieldConfig']['defaults']['unit']}", x=0, y=10, fill="#ccccdc")
    svg = tag("svg", top, *drawn, width=width, height=height, style="margin: 4px 8px")
    names = (
        tag("span", f"{name}  ", style=f"color:{_COLOURS[number % len(_COLOURS)]}")
        for number, (name, _) in enumerate(series)
    )
    return join((svg, tag("div", *names, class_="legend")))


def _stat(panel: Mapping[str, Any], series: _Named, at: Mapping[str, int]) -> Markup:
    return tag("div", *(tag("div", f"{each['values'][-1][1]} {name}") for name, each in series), class_="stat")


def _table(panel: Mapping[str, Any], series: _Named, at: Mapping[str, int]) -> Markup:
    rows = (
        tag(
            "tr",
            *(tag("td", each["metric"][label]) for label in sorted(each["metric"])),
            tag("td", each["values"][-1][1]),
        )
        for _, each in series
    )
    return tag("table", *rows)
