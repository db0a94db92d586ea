"""The metrics as OpenTelemetry's meter has them: the same series with the same values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from prometheus_client.metrics_core import Metric

from shadow.observe.metric_row import MetricRow
from shadow.observe.series import Add, CounterSeries, HistogramSeries, Labels
from shadow.traces.meters import Attributes, Counts, Meters

__all__ = ["Metered"]

_FRESH: Final = 0.2
"""Seconds for which one reading of the gauges serves: the reader asks for each of them, one after the other."""


class _Collector(Protocol):
    def collect(self) -> Iterable[Metric]: ...


class Metered:
    """The twins of all series. `failed`: called with what a histogram raises."""

    def __init__(
        self,
        meters: Meters,
        series: Mapping[str, CounterSeries | HistogramSeries],
        gauges: _Collector,
        rows: Iterable[MetricRow],
        failed: Callable[[Exception], None],
    ) -> None:
        self._meters = meters
        self._counters = {name: each for name, each in series.items() if isinstance(each, CounterSeries)}
        self._histograms = {name: each for name, each in series.items() if isinstance(each, HistogramSeries)}
        self._gauges = gauges
        self._gauge_rows = [row for row in rows if row.type == "gauge"]
        self._failed = failed
        self._lock = threading.Lock()
        self._read: tuple[float, dict[str, Metric]] = float("-inf"), {}

    def open(self) -> None:
        """From now on the provider's reader sees them. Call it as often as you like."""
        for name, series in self._counters.items():
            self._meters.counter(name, series.row.help, lambda series=series: _counts(series))  # type: ignore[misc]
        for row in self._gauge_rows:
            self._meters.gauge(row.name, row.help, row.merge, lambda name=row.name: self._gauge(name))  # type: ignore[misc]

    def close(self) -> None:
        """Counters stay as they are, and gauges go; until they are opened again."""
        for name, series in self._counters.items():
            self._meters.freeze(name, _counts(series))
        for row in self._gauge_rows:
            self._meters.end(row.name)

    def recorder(self, name: str) -> Add:
        """What a histogram's `add` does, in OpenTelemetry's. Never raises."""
        series = self._histograms[name]
        record = self._meters.histogram(name, series.row.help, series.row.buckets)

        def add(labels: Labels, amount: float, times: int = 1) -> None:
            try:
                attributes = dict(zip(series.row.labels, map(str, series.bounded(labels)), strict=True))
                for _ in range(times):
                    record(amount, attributes)
            except Exception as error:
                self._failed(error)

        return add

    def _gauge(self, name: str) -> Counts:
        with self._lock:
            if time.monotonic() - self._read[0] > _FRESH:
                self._read = time.monotonic(), {family.name: family for family in self._gauges.collect()}
            family = self._read[1].get(name)
        samples: Iterable[Any] = () if family is None else family.samples
        return {tuple(sample.labels.items()): sample.value for sample in samples}


def _counts(series: CounterSeries) -> Counts:
    return {_attributes(series.row, labels): count for labels, count in series.counts()}


def _attributes(row: MetricRow, labels: Labels) -> Attributes:
    return tuple(zip(row.labels, map(str, labels), strict=True))
