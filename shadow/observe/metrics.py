"""The metrics: one object that counts them, one text that Prometheus reads; `metric_table` declares them.

Label values come from enums and from the configuration, never from data: a collection, table or index that is not
configured counts as "other". A row says which of its series are at zero from the start. Each `Metrics` has a registry
of its own, so several `Shadow` objects can live in one process.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from shadow.model.events import (
    CallAbandoned,
    CallRefused,
    CapacityConsumed,
    ClientStalled,
    ComparisonFinished,
    Event,
    Handlers,
    NoiseMeasured,
    NotPortable,
    RequestThrottled,
    RouteChanged,
    TableScanned,
)
from shadow.model.operation import READS
from shadow.model.phase import Route, StoreName
from shadow.model.verdict import (
    Verdict,
)
from shadow.mongoql.portability import NAMES
from shadow.observe.gauges import Gauges, GaugeSnapshot
from shadow.observe.guard_windows import GuardWindows
from shadow.observe.latencies import Latencies
from shadow.observe.metered import Metered
from shadow.observe.metric_row import OTHER, By, Component, Configured, MetricRow
from shadow.observe.metric_table import (
    COMPARISONS,
    DEFERRED,
    EXCUSED,
    FAILURES,
    HEALS,
    MISMATCHES,
    NOISE,
    NOT_PORTABLE,
    OPERATIONS,
    REFUSED,
    RELOADS,
    ROUTED,
    SHED,
    TABLE,
)
from shadow.observe.recent import Recent
from shadow.observe.series import Add, CounterSeries, HistogramSeries, Labels, Names
from shadow.observe.workers import WorkerGauges
from shadow.traces.meters import Meters

__all__ = ["Metrics", "Output"]


@dataclass(frozen=True, slots=True)
class Output:
    """`meters`: where the series are shown once `Metrics.open` was called; `exposed`: whether `Metrics.render` shows
    them."""

    meters: Meters | None = None
    exposed: bool = True


_EXPOSED: Final = Output()


class Metrics:
    """Counts what the components report. Every method is cheap, thread-safe, and accepts any string for a bounded
    label."""

    def __init__(
        self,
        collections: Iterable[str],
        *,
        tables: Mapping[str, Iterable[str]] | None = None,
        rules: Iterable[tuple[str, str]] = (),
        gauges: Callable[[], GaugeSnapshot] = GaugeSnapshot,
        on_failure: Callable[[str, Exception], None] | None = None,
        output: Output = _EXPOSED,
    ) -> None:
        """`collections`: the configured names. `tables`: DynamoDB tables with the names of their indexes. `rules`:
        pairs (collection, rule name) of the configured comparison rules. `on_failure`: called with the component that
        failed, and why; by default that is only counted. `output`: where the series are shown.

        `gauges` is called at each scrape, from any thread. It must not block, and may raise: the gauges are then absent
        from that scrape and the failure is counted."""
        self.collections: Final = tuple(dict.fromkeys(collections))
        tables, rules = dict(tables or {}), tuple(rules)
        self._unshared: OSError | None = None
        try:
            self._make(tables, rules)
        except OSError as error:
            # The folder of the workers takes no file: what this process counts is its own.
            self._unshared = error
            self._make(tables, rules)
        self.recent: Final = Recent()
        self.guards: Final = GuardWindows()
        self.latencies: Final = Latencies(self.collections)
        self._on_failure = on_failure or (lambda part, error: self.internal_failure(part))
        self._routes: dict[str, Route] = {}
        self._known = frozenset((*self.collections, OTHER))
        self._noise: Counts[tuple[str, Verdict]] = Counts()
        self.abandoned: Final = {name: functools.partial(self.surely, CallAbandoned(name)) for name in StoreName}
        """Call it for one abandoned call; never raises."""
        self.stuck: Final = {name: functools.partial(self.surely, ClientStalled(name)) for name in StoreName}
        """Call it for one client that no longer responds; never raises."""
        self._exposed = output.exposed
        self._gauges = Gauges(self.collections, self._routes, gauges, self._unread)
        self._metered = None
        if output.meters is not None:
            self._metered = Metered(output.meters, self._series, self._gauges, TABLE, self._unmetered)
        self._handlers: Final = self._compiled()

    def _make(self, tables: Mapping[str, Iterable[str]], rules: Sequence[tuple[str, str]]) -> None:
        """Creates every series, at zero. Raises OSError if they are to be stored in files, and cannot be."""
        names: Names = {
            Configured.COLLECTION: [(name,) for name in (*self.collections, OTHER)],
            Configured.RULE: [*rules, (OTHER, OTHER)],
            Configured.TABLE: [(name,) for name in (*tables, OTHER)],
            Configured.OPERATOR: [(name, OTHER) for name in (*self.collections, OTHER)],
            Configured.INDEX: [
                *((table, index) for table, indexes in tables.items() for index in ("", *indexes)),
                (OTHER, OTHER),
            ],
        }
        shared = self._unshared is None
        self._counters = {row.name: CounterSeries(row, names, shared=shared) for row in TABLE if row.type == "counter"}
        self._histograms = {
            row.name: HistogramSeries(row, names, shared=shared) for row in TABLE if row.type == "histogram"
        }
        self._series: dict[str, CounterSeries | HistogramSeries] = {**self._counters, **self._histograms}

    def _compiled(self) -> Handlers:
        handlers: dict[type[Any], list[Callable[[Any], None]]] = {
            ComparisonFinished: [self._compared],
            NoiseMeasured: [self._noise_measured],
            RouteChanged: [self._routed],
            NotPortable: [functools.partial(self._operator, NOT_PORTABLE)],
            CallRefused: [functools.partial(self._operator, REFUSED)],
        }
        for kind, handler in (*self.guards.handlers().items(), *self.latencies.handlers().items()):
            handlers.setdefault(kind, []).append(handler)
        for row in TABLE:
            for by in row.moved_by:
                series = self._series[row.name]
                if self._exposed or row.type == "counter":
                    handlers.setdefault(by.event, []).append(_moving(series, by, series.add))
                if self._metered is not None and row.type == "histogram":
                    twin = self._metered.recorder(row.name)
                    handlers.setdefault(by.event, []).append(_moving(series, by, twin))
        return {kind: _all(each) for kind, each in handlers.items()}

    def _name(self, collection: str) -> str:
        return collection if collection in self._known else OTHER

    def open(self) -> None:
        """Shows the series to the meter, if there is one. Call it as often as you like."""
        if self._metered is not None:
            self._metered.open()

    def close(self) -> None:
        """The meter sees counters as they are now, and no gauges, until `open` is called again."""
        if self._metered is not None:
            self._metered.close()

    def create_all(self) -> None:
        """Exposes every series that there can be, at zero, for who lists them."""
        for each in self._series.values():
            each.create()

    def handlers(self) -> Handlers:
        """What each type of event moves. Every handler is cheap and thread-safe."""
        return self._handlers

    def count(self, event: Event) -> None:
        """Moves what the event moves."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    def _compared(self, event: ComparisonFinished) -> None:
        if event.verb in READS:
            self.recent.add(self._name(event.collection), event.verdict, event.count)

    def _operator(self, row: MetricRow, event: NotPortable | CallRefused) -> None:
        """Creates the series of this operator. There is a fixed list of them, and each collection uses few."""
        if event.collection in self._known and event.operator in NAMES:
            self._series[row.name].allow((event.collection, event.operator))

    def _noise_measured(self, event: NoiseMeasured) -> None:
        self._noise[self._name(event.collection), event.verdict] += 1

    def _routed(self, event: RouteChanged) -> None:
        """The route of a collection, until a `GaugeSnapshot` says otherwise."""
        name, route = self._name(event.collection), event.route
        self._routes[name] = route
        self.recent.stands(name, (route.primary, route.phase))

    def excuses(self, rules: Iterable[tuple[str, str]]) -> None:
        """Creates the series of further rules, pairs (collection, rule name). Never raises: rules whose series cannot
        be created count as "other"."""
        with self._guarded():
            for pair in rules:
                self._series[EXCUSED.name].allow(pair)

    def surely(self, event: Event) -> None:
        """Counts an event for a caller that must not fail. Never raises."""
        with self._guarded():
            self.count(event)

    def internal_failure(self, part: str) -> None:
        """An internal part failed; a `part` that is not one of `Component` counts as "other". Never raises."""
        # After a fork the counters of workers open a file of their own, in a folder that may be missing.
        with contextlib.suppress(Exception):
            self._counters[FAILURES.name].add((part,))

    def _unread(self, error: Exception) -> None:
        self._on_failure(Component.GAUGES, error)

    def _unmetered(self, error: Exception) -> None:
        self._on_failure(Component.METERS, error)

    def capacity(self, table: str, index: str, call: str, units: float) -> None:
        """A store consumed capacity. Like the next two, it never raises: the store's response waits for it."""
        self.surely(CapacityConsumed(table, index, call, units))

    def scanned(self, table: str, scans: int, read: int, returned: int) -> None:
        self.surely(TableScanned(table, scans, read, returned))

    def throttled(self) -> None:
        self.surely(RequestThrottled())

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.internal_failure(Component.REPORT)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: Prometheus's text format, or what the header `accept` prefers.

        Where `PROMETHEUS_MULTIPROC_DIR` is set, everything is that of all processes that share it (one `Metrics` in
        each: two of one process would share series); gauges of other processes as they last published them. Where that
        folder cannot be read, or took no file when this was made, it is what this process alone has counted, and the
        failure is counted. Nothing is shown if the series are not exposed.
        """
        encode, content_type = choose_encoder(accept)
        if not self._exposed:
            return encode(_Once(())), content_type
        return encode(_Once(self._families())), content_type

    def publish(self) -> None:
        """Shows this process's gauges to the other workers, where there are some; to be called about once a second.
        Blocks for as long as a small file takes; a failure is counted."""
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared and self._exposed:
            try:
                _workers(shared).publish(self._gauges.collect())
            except Exception as error:
                self._on_failure(Component.GAUGES, error)
            else:
                if self._unshared is not None:
                    self._on_failure(Component.GAUGES, self._unshared)

    def _families(self) -> list[Metric]:
        """All series; if the other workers cannot be read, what only this process has counted."""
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared:
            self.publish()
        if shared and self._unshared is None:
            try:
                every = CollectorRegistry(auto_describe=False)
                counted = MultiProcessCollector(every, path=shared).collect()  # type: ignore[no-untyped-call]
                return [*counted, *_workers(shared).merged()]
            except Exception as error:
                self._on_failure(Component.GAUGES, error)
        series = (self._series[row.name] for row in TABLE if row.name in self._series)
        return [*(each.family() for each in series), *self._gauges.collect()]

    def noise_of(self, collection: str) -> dict[str, int]:
        """How often the primary was compared with itself, by verdict, in this process."""
        name = self._name(collection)
        return {verdict.value: self._noise[name, verdict] for verdict in Verdict if self._noise[name, verdict]}

    def totals(self) -> dict[str, Any]:
        """Sums for a status page or a report.

        Shape: {"operations": n, "outcomes": {...}, "comparisons": n, "verdicts": {...}, "mismatches": n,
        "kinds": {...}, "excused": {...}, "noise": {...}, "shed": {...}, "deferred": {...}, "heals": {...},
        "reloads": {...}, "failures": {...}, "collections": {name: {...}}, "routed_reads": {name: {store: {...}}}},
        each inner one from label value to number; those of a collection are its verdicts, those of `routed_reads` the
        reasons that were ever counted.
        """
        counted = self._of_all_workers() if os.environ.get("PROMETHEUS_MULTIPROC_DIR") else self._of_this_process

        def by_last_label(row: MetricRow) -> dict[str, int]:
            sums = dict.fromkeys(self._counters[row.name].last_labels(), 0)
            for labels, value in counted(row):
                sums[labels[-1]] = sums.get(labels[-1], 0) + value
            return sums

        collections: dict[str, dict[str, int]] = {
            name: dict.fromkeys(Verdict, 0) for name in (*self.collections, OTHER)
        }
        for (name, _, verdict), value in counted(COMPARISONS):
            if name in collections:
                collections[name][verdict] += value

        outcomes, verdicts, kinds = (by_last_label(row) for row in (OPERATIONS, COMPARISONS, MISMATCHES))
        return {
            "operations": sum(outcomes.values()),
            "outcomes": outcomes,
            "comparisons": sum(verdicts.values()),
            "verdicts": verdicts,
            "mismatches": sum(kinds.values()),
            "kinds": kinds,
            "excused": by_last_label(EXCUSED),
            "noise": by_last_label(NOISE),
            "shed": by_last_label(SHED),
            "deferred": by_last_label(DEFERRED),
            "heals": by_last_label(HEALS),
            "reloads": by_last_label(RELOADS),
            "failures": by_last_label(FAILURES),
            "collections": collections,
            "routed_reads": _routed(counted(ROUTED)),
        }

    def _of_this_process(self, row: MetricRow) -> Iterator[tuple[Labels, int]]:
        for labels, count in self._counters[row.name].counted():
            yield labels, int(count)

    def _of_all_workers(self) -> Callable[[MetricRow], Iterator[tuple[Labels, int]]]:
        families = {family.name: family for family in self._families()}

        def counted(row: MetricRow) -> Iterator[tuple[Labels, int]]:
            family = families.get(row.name.removesuffix("_total"))
            for sample in () if family is None else family.samples:
                yield tuple(sample.labels[name] for name in row.labels), int(sample.value)

        return counted


def _moving(series: CounterSeries | HistogramSeries, by: By, add: Add) -> Callable[[Any], None]:
    """What an event does to the series of a row, by `add`."""
    when = by.when
    if series.row.exemplars and isinstance(series, CounterSeries):
        add = series.add_traced
    labels = _labels_of(series.row.labels if by.labels is None else by.labels)
    amount = attrgetter(by.amount) if by.amount else _one
    if by.times:
        times = attrgetter(by.times)
        return lambda event: add(labels(event), amount(event), times(event))
    if when is None:
        return lambda event: add(labels(event), amount(event))

    def counted(event: Any) -> None:
        if when(event):
            add(labels(event), amount(event))

    return counted


def _labels_of(names: tuple[str, ...] | Callable[[Any], Labels]) -> Callable[[Any], Labels]:
    if not isinstance(names, tuple):
        return names
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda event: ()
    get: Callable[[Any], str] = attrgetter(names[0])
    return lambda event: (get(event),)


def _one(event: Any) -> int:
    return 1


def _all(handlers: Sequence[Callable[[Any], None]]) -> Callable[[Any], None]:
    if len(handlers) == 1:
        return handlers[0]

    def handle(event: Any) -> None:
        for each in handlers:
            each(event)

    return handle


class _Once(CollectorRegistry):
    """The collected series, in the form that an encoder needs."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _workers(folder: str) -> WorkerGauges:
    return WorkerGauges(folder, {row.name: row.merge for row in TABLE if row.type == "gauge"})


def _routed(counted: Iterable[tuple[Labels, int]]) -> dict[str, dict[str, dict[str, int]]]:
    """By collection, store and reason, without what was never counted."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (collection, store, reason), value in counted:
        if value:
            found.setdefault(collection, {}).setdefault(store, {})[reason] = value
    return found
