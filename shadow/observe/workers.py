"""The gauges of several worker processes as one exposition.

prometheus_client's own multi-process mode adds up the counters and histograms of workers. Gauges here are read on
request, which only their own process can do: so each process writes the values of its gauges to a file in the shared
folder, about once a second, and the worker that is scraped merges the files of the living ones. Each also holds a lock
in the folder, by which workers in other containers are known to be alive or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from shadow.host.process import Owner, hold_lock, this_process

__all__ = ["WorkerGauges"]

_PREFIX: Final = "shadow_gauges_"
_MERGE: Final[dict[str, Callable[[Iterable[float]], float]]] = {"sum": sum, "max": max, "min": min}


class WorkerGauges:
    """`merge` returns by the name of a gauge how to merge the values of workers: "sum", "max" or "min"."""

    def __init__(self, folder: str | Path, merge: Mapping[str, str]) -> None:
        self._folder = Path(folder)
        self._merge = merge

    def publish(self, families: Iterable[Metric]) -> None:
        """Writes this process's gauges, completely or not at all. Raises OSError."""
        gauges = [
            [family.name, family.documentation, [[sample.labels, sample.value] for sample in family.samples]]
            for family in families
        ]
        own = this_process()
        content = {"owner": [own.place, own.pid, own.started], "gauges": gauges}
        # A missing folder is not created here: another process manages it.
        if self._folder.is_dir():
            hold_lock(self._folder)
        path = self.path_of(own)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(path)

    def path_of(self, owner: Owner) -> Path:
        """The file of a process, unique to it: processes in several containers may have the same pid."""
        return self._folder / f"{_PREFIX}{hashlib.sha256(owner.id.encode()).hexdigest()[:16]}.json"

    def merged(self) -> Iterator[Metric]:
        """The gauges of the living processes; removes the files of the others."""
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
                owner = Owner(*content["owner"]) if "owner" in content else Owner("", content["pid"], 0.0)
                if not owner.known_dead():
                    yield from (each for each in content["gauges"] if each[0] in self._merge)
                else:
                    path.unlink(missing_ok=True)
