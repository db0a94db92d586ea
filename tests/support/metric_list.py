"""The documented list of metrics, frozen by its version. `python -m tests.support.metric_list` adds to it.

Within a version metrics, labels' values and buckets are only added. To remove, rename or relabel one, raise
`metric_table.LIST_VERSION`, write the list of that version, and say so in the changelog.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Kind
from shadow.observe.gauges import GaugeSnapshot
from shadow.observe.metric_table import LIST_VERSION, metric_table
from shadow.observe.metrics import Metrics

__all__ = ["FILE", "List", "listed", "missing", "written"]

FILE: Final = Path(__file__).with_name(f"metrics-{LIST_VERSION}.json")

_OPEN: Final = ("collection", "table", "index", "rule", "path", "version", "python", "metrics")
"""Labels whose values are of the configuration, the data or the build."""

List = dict[str, dict[str, Any]]
"""By name of a metric: type, labels in order, buckets, and the values of each label that has a set of them."""


def listed() -> List:
    """The list as the code has it."""
    values = _values()
    return {
        row.name: {
            "type": row.type,
            "labels": list(row.labels),
            "buckets": list(row.buckets),
            "values": {label: sorted(values[row.name, label]) for label in row.labels if label not in _OPEN},
        }
        for row in metric_table()
    }


def _values() -> dict[tuple[str, str], set[str]]:
    gauges = GaugeSnapshot(
        routes={"users": Route(StoreName.MONGO, Phase.SHADOW)},
        secondary_up=dict.fromkeys(StoreName, True),
        relay_lag=dict.fromkeys(StoreName, 0.0),
        canary_found={"users": 1.0},
        comparison_working={"users": True},
        mismatches_by_path={("users", kind, "name"): 1 for kind in Kind},
    )
    metrics = Metrics(["users"], gauges=lambda: gauges)
    metrics.create_all()
    found: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault((name, label), set()).add(value)
    return found


def written() -> List:
    """The list as it is kept for this version; empty if it is not."""
    return json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}


def missing(promised: List, has: List) -> list[str]:
    """What is promised and not there, or there in another way."""
    found = []
    for name, each in promised.items():
        if name not in has:
            found.append(f"{name} is gone")
            continue
        found += [f"{name}: another {what}" for what in ("type", "labels") if each[what] != has[name][what]]
        found += [f"{name}: no bucket {bound}" for bound in each["buckets"] if bound not in has[name]["buckets"]]
        for label, values in each["values"].items():
            gone = sorted(set(values) - set(has[name]["values"].get(label, ())))
            found += [f'{name}: no {label}="{value}"' for value in gone]
    return found


if __name__ == "__main__":
    broken = missing(written(), listed())
    if broken:
        sys.exit("\n".join([*broken, "that wants another metric_table.LIST_VERSION"]))
    rows = (f"{json.dumps(name)}: {json.dumps(each)}" for name, each in listed().items())
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
