"""The gauges of several worker processes as one exposition.

Counters and histograms of workers are added up by prometheus_client's own multi-process mode. Gauges here are read when
they are asked for, which only their own process can do: so each process writes what its gauges say to a file in the
shared folder, about once a second, and whichever worker is scraped merges the files of those that live.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

__all__ = ["WorkerGauges"]

_PREFIX: Final = "shadow_gauges_"
_MERGE: Final[dict[str, Callable[[Iterable[float]], float]]] = {"sum": sum, "max": max, "min": min}


class WorkerGauges:
    """`merge` says by the name of a gauge how workers' values become one: "sum", "max" or "min"."""

    def __init__(self, folder: str | Path, merge: Mapping[str, str]) -> None:
        self._folder = Path(folder)
        self._merge = merge

    def publish(self, families: Iterable[Metric]) -> None:
        """Writes this process's gauges, whole or not at all. Raises OSError."""
        said = [
            [family.name, family.documentation, [[sample.labels, sample.value] for sample in family.samples]]
            for family in families
        ]
        pid = os.getpid()
        content = {"pid": pid, "started": psutil.Process(pid).create_time(), "gauges": said}
        draft = self._folder / f"{_PREFIX}{pid}.new"
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(self._folder / f"{_PREFIX}{pid}.json")

    def merged(self) -> Iterator[Metric]:
        """The gauges of the processes that live; the files of the others are removed."""
        values: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
        helps: dict[str, str] = {}
        for name, text, samples in self._living():
            helps[name] = text
            series = values.setdefault(name, {})
            for labels, value in samples:
                series.setdefault(tuple(labels.items()), []).append(value)
        for name, series in values.items():
            family = GaugeMetricFamily(name, helps[name])
            for pairs, several in series.items():
                family.add_sample(name, dict(pairs), _MERGE[self._merge[name]](several))
            yield family

    def _living(self) -> Iterator[Any]:
        for path in sorted(self._folder.glob(f"{_PREFIX}*.json")):
            # A worker that ends may remove or replace it at any moment.
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(path.read_text(encoding="utf-8"))
                if _lives(content["pid"], content["started"]):
                    yield from (each for each in content["gauges"] if each[0] in self._merge)
                else:
                    path.unlink(missing_ok=True)


def _lives(pid: int, started: float) -> bool:
    """Whether the very process lives, and not a later one with its pid."""
    try:
        found = psutil.Process(pid)
        return abs(found.create_time() - started) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
