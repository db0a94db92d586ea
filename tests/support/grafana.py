"""Boards as few words, and Grafana's format made from them: ids, places and all else that it wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PLAIN", "Board", "Panel", "made"]

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
"""Columns of a board."""
PLAIN: Final = (("text", None),)


@dataclass(frozen=True)
class Panel:
    """`queries`: (expression, legend) each. `kind`: stat, timeseries or table; `steps`: (colour, from which value)."""

    title: str
    says: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    steps: Sequence[tuple[str, float | None]] = PLAIN
    words: dict[str, str] = field(default_factory=dict)
    """What stands for a number: {"0": "no"}."""


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    says: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    texts: Sequence[tuple[str, str, str]] = ()
    """Variables to type in: (name, label, default)."""


def made(board: Board) -> dict[str, Any]:
    """A board in Grafana's format."""
    return {
        "uid": f"shadow-{board.name}",
        "title": f"shadow: {board.title}",
        "description": board.says,
        "tags": ["shadow"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(board)},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "tags": ["shadow"],
                "title": "shadow",
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "panels": list(_placed(board)),
    }


def _variables(board: Board) -> list[dict[str, Any]]:
    asked = "label_values(shadow_route_info, collection)"
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
    }
    collection = {
        "name": "collection",
        "label": "Collection",
        "type": "query",
        "datasource": _SOURCE,
        "definition": asked,
        "query": {"query": asked, "refId": "collection"},
        "current": {},
        "hide": 0,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }
    texts = [
        {
            "name": name,
            "label": label,
            "type": "textbox",
            "query": value,
            "current": {"selected": False, "text": value, "value": value},
            "options": [{"selected": True, "text": value, "value": value}],
            "hide": 0,
        }
        for name, label, value in board.texts
    ]
    uses = any("$collection" in query for _, panels in board.rows for each in panels for query, _ in each.queries)
    return [source, *([collection] if uses else []), *texts]


def _placed(board: Board) -> Iterator[dict[str, Any]]:
    """Panels from left to right, a new line where one is full. Those of a line share its whole width and height."""
    number, y = 0, 0
    for title, panels in board.rows:
        number += 1
        place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        y += 1
        for line in _lines(panels):
            x, height = 0, max(each.height for each in line)
            for each, width in zip(line, _widths(line), strict=True):
                number += 1
                yield _panel(number, each, {"x": x, "y": y, "w": width, "h": height})
                x += width
            y += height


def _lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for each in panels:
        if line and sum(other.width for other in line) + each.width > _WIDTH:
            yield line
            line = []
        line.append(each)
    if line:
        yield line


def _widths(line: Sequence[Panel]) -> list[int]:
    """The widths that fill a line, in proportion to those that the panels ask for."""
    asked = sum(each.width for each in line)
    ends = [_WIDTH * sum(each.width for each in line[: n + 1]) // asked for n in range(len(line))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [_target(i, query, legend, panel.kind) for i, (query, legend) in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        **({"transformations": _COLUMNS} if panel.kind == "table" else {}),
    }


_COLUMNS: Final = [
    {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": {}}}
]


def _target(i: int, query: str, legend: str, kind: str) -> dict[str, Any]:
    target: dict[str, Any] = {
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query,
        "legendFormat": legend,
        "range": kind != "table",
        "instant": kind == "table",
        "refId": chr(ord("A") + i),
    }
    return {**target, "format": "table"} if kind == "table" else target


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"color": colour, "value": value} for colour, value in panel.steps]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
    }
    if panel.words:
        options = {value: {"text": text, "index": i} for i, (value, text) in enumerate(panel.words.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "stat":
        defaults["noValue"] = "not known"
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "stat":
            return {
                "colorMode": "background" if panel.words else "value",
                "graphMode": "none" if panel.words else "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            }
        case "table":
            return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "fields": ""}}
        case _:
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
