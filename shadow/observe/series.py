"""The series of counters and histograms: bounded by the table of metrics, and at zero where that is of use.

A row says which of its series are exposed at zero from the start, and which appear at zero as soon as one beside them
is counted: an alert sees a rise only from a zero that it was shown before. The others appear once they are counted. A
series costs memory only then. If `PROMETHEUS_MULTIPROC_DIR` is set, those at zero are created at once, because the
exposition is then read from files.
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from prometheus_client import values
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString as _untyped_text

from shadow.observe.metric_row import OTHER, Configured, MetricRow
from shadow.traces.identity import exemplar

__all__ = ["Add", "CounterSeries", "HistogramSeries", "Labels", "Names"]

Labels: TypeAlias = "tuple[str, ...]"

Names: TypeAlias = "Mapping[Configured, Sequence[Labels]]"
"""The label values that the configuration defines, including `OTHER`."""


def _text(bound: float) -> str:
    return str(_untyped_text(bound))  # type: ignore[no-untyped-call]


def _point(value: Any, amount: float) -> None:
    """Sets the exemplar to the trace in which `amount` was observed, if there is a sampled one."""
    labels = exemplar()
    if labels is not None:
        value.set_exemplar(Exemplar(labels, amount, time.time()))


class Add(Protocol):
    """Counts or observes `amount`, `times` times."""

    def __call__(self, labels: Labels, amount: float, times: int = 1, /) -> None: ...


class _Group:
    """Adjacent labels whose values are bounded together: `width` of them. Values that are not in `members` count as
    "other", if "other" is one of them."""

    def __init__(self, members: Iterable[Labels]) -> None:
        self.members: dict[Labels, None] = dict.fromkeys(members)
        self.width: Final = len(next(iter(self.members)))
        self._other: Final = (OTHER,) * self.width

    def bounded(self, labels: Labels) -> Labels:
        """Raises KeyError for a value that is not in the list, if there is no "other"."""
        if labels in self.members:
            return labels
        if self._other in self.members:
            return self._other
        raise KeyError(labels)


class _Series:
    """What counters and histograms share: which label values there are, and the values that have been created so far.

    `shared`: keep the values in the files of `PROMETHEUS_MULTIPROC_DIR`, if that is set. Raises OSError if a file
    cannot be written.
    """

    def __init__(self, row: MetricRow, names: Names, *, shared: bool) -> None:
        self.row: Final = row
        self._kind: Final = values.ValueClass if shared else values.MutexValue
        self._groups: Final = [
            _Group(names[each] if isinstance(each, Configured) else ((str(value),) for value in each))
            for each in row.values
        ]
        self._lock: Final = threading.Lock()
        self._made: Final[dict[Labels, Any]] = {}
        self._rest: Final = [(row.labels.index(name), frozenset(each)) for name, each in row.rest.items()]
        self._beside: Final = [row.labels.index(name) for name in row.together]
        if self._kind is not values.MutexValue:
            for labels in self.labels():
                self._make(labels)

    def every(self) -> Iterator[Labels]:
        """The labels of every series that there can be."""
        for parts in itertools.product(*(tuple(group.members) for group in self._groups)):
            yield tuple(itertools.chain.from_iterable(parts))

    def labels(self) -> Iterator[Labels]:
        """The labels of every series that is exposed: at zero from the start, or counted, or beside one that is."""
        for labels in self.every():
            if labels in self._made or all(labels[place] in names for place, names in self._rest):
                yield labels

    def create(self) -> None:
        """Exposes every series that there can be, at zero."""
        for labels in self.every():
            self._make(labels)

    def allow(self, labels: Labels) -> None:
        """Adds a series, of a metric that has one group of labels."""
        self._groups[0].members.setdefault(labels)
        if self._kind is not values.MutexValue:
            self._make(labels)

    def bounded(self, labels: Labels) -> Labels:
        """The labels of the series that these count in: values that are not configured are "other"."""
        bounded: Labels = ()
        start = 0
        for group in self._groups:
            bounded += group.bounded(labels[start : start + group.width])
            start += group.width
        return bounded

    def _at(self, labels: Labels) -> Any:
        """The value of a series that was not found under `labels`: created now, or that of "other"."""
        bounded = self.bounded(labels)
        made = self._made.get(bounded)
        if made is None:
            self._create_beside(bounded)
            made = self._make(bounded)
        return made

    def _create_beside(self, labels: Labels) -> None:
        """Those that differ from this one only in labels whose values appear together."""
        if not self._beside:
            return
        choices = [self._values_at(place) if place in self._beside else (name,) for place, name in enumerate(labels)]
        for each in itertools.product(*choices):
            self._make(each)

    def _values_at(self, place: int) -> Labels:
        """The values of a label that is a group by itself."""
        start = 0
        for group in self._groups:
            if start == place:
                return tuple(member[0] for member in group.members)
            start += group.width
        raise LookupError(place)

    def _make(self, labels: Labels) -> Any:
        labels = tuple(map(str, labels))
        with self._lock:
            if labels not in self._made:
                self._made[labels] = self._new(labels)
            return self._made[labels]

    def _new(self, labels: Labels) -> Any:
        raise NotImplementedError

    def _value(self, suffix: str, labels: Labels, *bound: str) -> Any:
        row, name = self.row, self.row.name.removesuffix("_total")
        names = (*row.labels, "le") if bound else row.labels
        return self._kind(row.type, name, name + suffix, names, (*labels, *bound), row.help)


class CounterSeries(_Series):
    def add(self, labels: Labels, amount: float = 1, times: int = 1) -> None:
        """Counts. Label values that are not configured count as "other". Thread-safe."""
        (self._made.get(labels) or self._at(labels)).inc(amount * times)

    def add_traced(self, labels: Labels, amount: float = 1, times: int = 1) -> None:
        """As `add`, with the trace in which it was counted as the exemplar."""
        value = self._made.get(labels) or self._at(labels)
        value.inc(amount * times)
        _point(value, amount)

    def counts(self) -> Iterator[tuple[Labels, float]]:
        """Every series and its count in this process."""
        for labels in self.labels():
            made = self._made.get(labels)
            yield labels, 0.0 if made is None else made.get()

    def counted(self) -> Iterator[tuple[Labels, float]]:
        """Those of `counts` that were created: all that are not zero, at the cost of what was counted."""
        for labels, made in tuple(self._made.items()):
            yield labels, made.get()

    def last_labels(self) -> Iterator[str]:
        """The values of the last label that `counts` has."""
        group, first = self._groups[-1], len(self.row.labels) - self._groups[-1].width
        for labels in tuple(group.members):
            if all(labels[place - first] in names for place, names in self._rest if place >= first):
                yield labels[-1]

    def family(self) -> Metric:
        found = CounterMetricFamily(self.row.name, self.row.help, labels=self.row.labels)
        for labels, count in self.counts():
            made = self._made.get(labels)
            found.add_metric(labels, count, exemplar=None if made is None else made.get_exemplar())
        return found

    def _new(self, labels: Labels) -> Any:
        return self._value("_total", labels)


class HistogramSeries(_Series):
    def __init__(self, row: MetricRow, names: Names, *, shared: bool) -> None:
        self._bounds: Final = (*row.buckets, float("inf"))
        super().__init__(row, names, shared=shared)

    def add(self, labels: Labels, amount: float, times: int = 1) -> None:
        """Observes `amount`, `times` times. Thread-safe."""
        total, buckets = self._made.get(labels) or self._at(labels)
        total.inc(amount * times)
        bucket = buckets[bisect_left(self._bounds, amount)]
        bucket.inc(times)
        _point(bucket, amount)

    def family(self) -> Metric:
        found = HistogramMetricFamily(self.row.name, self.row.help, labels=self.row.labels)
        bounds = [_text(bound) for bound in self._bounds]
        for labels in self.labels():
            total, buckets = self._made.get(labels) or (None, ())
            counts = [bucket.get() for bucket in buckets] or [0.0] * len(bounds)
            shown = [bucket.get_exemplar() for bucket in buckets] or [None] * len(bounds)
            cumulative = list(zip(bounds, itertools.accumulate(counts), shown, strict=True))
            found.add_metric(labels, cumulative, 0.0 if total is None else total.get())
        return found

    def _new(self, labels: Labels) -> Any:
        return (
            self._value("_sum", labels),
            [self._value("_bucket", labels, _text(bound)) for bound in self._bounds],
        )
