"""The metrics: one object that counts them, one text that Prometheus reads; `metric_table` declares them.

Label values come from enums and from the configuration, never from data: a collection, table or index that is not
configured counts as "other". Every series exists at zero from the start. Each `Metrics` has a registry of its own, so
several `Shadow` objects can live in one process.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from shadow.model.background import Background
from shadow.model.operation import READS, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, Route, StoreName
from shadow.model.verdict import (
    Bypass,
    Deferral,
    Healing,
    Incomparable,
    Kind,
    Routed,
    ShedReason,
    Slice,
    Unjournaled,
    Verdict,
)
from shadow.observe.gauges import Gauges, GaugeSnapshot
from shadow.observe.metric_table import (
    ABANDONED,
    BACKGROUND_FAILURES,
    BYPASSING,
    CANARY_FOUND,
    CANARY_SOUGHT,
    CAPACITY,
    COMPARISONS,
    DAMAGED,
    DEFERRED,
    EXCUSED,
    FAILURES,
    FLIPS,
    HEALS,
    INCOMPARABLE,
    LATENCY,
    MISMATCHES,
    NOISE,
    OPERATIONS,
    OTHER,
    READ_SECONDS,
    RELOADS,
    ROUTED,
    SCANNED,
    SCANNED_OUT,
    SCANS,
    SHED,
    STUCK,
    TABLE,
    THROTTLED,
    UNJOURNALED,
    WRITE_COMPARISONS,
    Component,
    Configured,
    FlipOutcome,
    MetricRow,
    Reload,
)
from shadow.observe.recent import Recent
from shadow.observe.series import CounterSeries, HistogramSeries, Labels, Names
from shadow.observe.workers import WorkerGauges

__all__ = ["Metrics"]


class Metrics:
    """Counts what the parts report. Every method is cheap, thread-safe, and takes any string for a bounded label."""

    def __init__(
        self,
        collections: Iterable[str],
        *,
        tables: Mapping[str, Iterable[str]] | None = None,
        rules: Iterable[tuple[str, str]] = (),
    ) -> None:
        """`collections`: the configured names. `tables`: DynamoDB tables with the names of their indexes. `rules`:
        pairs (collection, rule name) of the configured excuses."""
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
        self.on_failure: Callable[[str, Exception], None] = lambda part, error: self.internal_failure(part)
        """Hears which part of the metrics could not be had, and why; as it stands it only counts that."""
        self._routes: dict[str, Route] = {}
        self._known = frozenset((*self.collections, OTHER))
        self._counted: Counts[tuple[str, Verdict]] = Counts()
        self.abandoned: Final = {name: functools.partial(self._surely, ABANDONED, name) for name in StoreName}
        """To be called for one call that was abandoned; never raises."""
        self.stuck: Final = {name: functools.partial(self._surely, STUCK, name) for name in StoreName}
        """To be called for one client that answered nothing any more; never raises."""
        self._gauges = Gauges(self.collections, self._routes, self._unread)

    def _make(self, tables: Mapping[str, Iterable[str]], rules: Sequence[tuple[str, str]]) -> None:
        """Every series, at zero. Raises OSError where they are to be kept in files, and cannot be."""
        names: Names = {
            Configured.COLLECTION: [(name,) for name in (*self.collections, OTHER)],
            Configured.RULE: [*rules, (OTHER, OTHER)],
            Configured.TABLE: [(name,) for name in (*tables, OTHER)],
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

    def _count(self, row: MetricRow, *labels: str, amount: float = 1) -> None:
        self._counters[row.name].add(labels, amount)

    def _surely(self, row: MetricRow, *labels: str) -> None:
        with self._guarded():
            self._count(row, *labels)

    def _name(self, collection: str) -> str:
        return collection if collection in self._known else OTHER

    def operation(
        self,
        collection: str,
        verb: Verb,
        store: StoreName,
        role: Role,
        outcome: Outcome,
        seconds: float,
        count: int = 1,
    ) -> None:
        """One operation, or `count` together, answered by a store in `seconds`."""
        self._count(OPERATIONS, collection, verb, store, role, outcome, amount=count)
        self._histograms[LATENCY.name].add((store, verb), seconds, count)

    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None:
        read = verb in READS
        self._count(COMPARISONS if read else WRITE_COMPARISONS, collection, verb, verdict, amount=count)
        if read:
            self.recent.add(self._name(collection), verdict, count)

    def mismatch(self, collection: str, verb: Verb, kind: Kind) -> None:
        self._count(MISMATCHES, collection, verb, kind)

    def bypassed(self, collection: str, kind: Bypass) -> None:
        """A write that went past the shim was found."""
        self._count(BYPASSING, collection, kind)

    def excused(self, collection: str, rule: str) -> None:
        """A rule has excused a difference."""
        self._count(EXCUSED, collection, rule)

    def excuses(self, rules: Iterable[tuple[str, str]]) -> None:
        """Makes the series of further rules, pairs (collection, rule name). Never raises: what cannot be made counts as
        "other"."""
        with self._guarded():
            for pair in rules:
                self._counters[EXCUSED.name].allow(pair)

    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        """A comparison of the primary with itself came to `verdict`."""
        self._count(NOISE, collection, verb, verdict)
        self._counted[self._name(collection), verdict] += 1

    def canary(self, collection: str, *, found: bool) -> None:
        """A planted difference was given to the comparison, or was found by it."""
        self._count(CANARY_FOUND if found else CANARY_SOUGHT, collection)

    def read(self, verb: Verb, slice: Slice, seconds: float) -> None:
        """One read of the application took `seconds`."""
        self._histograms[READ_SECONDS.name].add((verb, slice), seconds)

    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None:
        """A read of a collection of which the secondary answers a share was answered by `store`."""
        self._count(ROUTED, collection, store, reason)

    def shed(self, collection: str, reason: ShedReason) -> None:
        self._count(SHED, collection, reason)

    def incomparable(self, collection: str, reason: Incomparable) -> None:
        self._count(INCOMPARABLE, collection, reason)

    def deferred(self, collection: str, reason: Deferral) -> None:
        self._count(DEFERRED, collection, reason)

    def unjournaled(self, collection: str, result: Unjournaled) -> None:
        self._count(UNJOURNALED, collection, result)

    def damaged(self) -> None:
        """A damaged journal was salvaged. Never raises."""
        with self._guarded():
            self._count(DAMAGED)

    def healed(self, collection: str, result: Healing) -> None:
        self._count(HEALS, collection, result)

    def flipped(self, collection: str, result: FlipOutcome) -> None:
        """A change of primary was begun, made, or given up."""
        self._count(FLIPS, collection, result)

    def reloaded(self, ok: bool) -> None:
        self._count(RELOADS, Reload.OK if ok else Reload.REJECTED)

    def internal_failure(self, part: str) -> None:
        """An internal part failed; a `part` that is not one of `Component` counts as "other". Never raises."""
        # After a fork the counters of workers look for a file of their own, in a folder that may be gone.
        with contextlib.suppress(Exception):
            self._count(FAILURES, part)

    def background_failure(self, task: Background) -> None:
        """A long-lived task has failed."""
        self._count(BACKGROUND_FAILURES, task)

    def _unread(self, error: Exception) -> None:
        self.on_failure(Component.GAUGES, error)

    def throttled(self) -> None:
        """One request was throttled. Like the two that follow it never raises: the store's answer waits for them."""
        with self._guarded():
            self._count(THROTTLED)

    def capacity(self, table: str, index: str, call: str, units: float) -> None:
        """`units` of capacity used by one API call (`get_item`, `query`, ...); `index` is "" for the table itself."""
        with self._guarded():
            self._count(CAPACITY, table, index, call, amount=units)

    def scanned(self, table: str, scans: int, read: int, returned: int) -> None:
        """Scans that were begun on a table, and the items that they have read and returned."""
        with self._guarded():
            for row, count in ((SCANS, scans), (SCANNED, read), (SCANNED_OUT, returned)):
                if count:
                    self._count(row, table, amount=count)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.internal_failure(Component.REPORT)

    def routed(self, collection: str, route: Route) -> None:
        """The route of a collection, until a bound `GaugeSnapshot` says otherwise."""
        name = self._name(collection)
        self._routes[name] = route
        self.recent.stands(name, (route.primary, route.phase))

    def bind(self, gauges: Callable[[], GaugeSnapshot]) -> None:
        """Sets where the gauges are read at each scrape. `gauges` may be called from any thread, must not block, and
        may raise: the gauges are then absent from that scrape and the failure is counted."""
        self._gauges.read = gauges

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: Prometheus's text format, or what the header `accept` prefers.

        Where `PROMETHEUS_MULTIPROC_DIR` is set, everything is that of all processes that share it (one `Metrics` in
        each: two of one process would share series); gauges of other processes as they last published them. Where that
        folder cannot be read, or took no file when this was made, it is what this process alone has counted, and the
        failure is counted.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_Once(self._families())), content_type

    def publish(self) -> None:
        """Shows this process's gauges to the other workers, where there are some; to be called about once a second.
        Blocks for as long as a small file takes; a failure is counted."""
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared:
            try:
                _workers(shared).publish(self._gauges.collect())
            except Exception as error:
                self.on_failure(Component.GAUGES, error)
            else:
                if self._unshared is not None:
                    self.on_failure(Component.GAUGES, self._unshared)

    def _families(self) -> list[Metric]:
        """All that there is to show; where the other workers cannot be read, what this process alone has."""
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared:
            self.publish()
        if shared and self._unshared is None:
            try:
                every = CollectorRegistry(auto_describe=False)
                counted = MultiProcessCollector(every, path=shared).collect()  # type: ignore[no-untyped-call]
                return [*counted, *_workers(shared).merged()]
            except Exception as error:
                self.on_failure(Component.GAUGES, error)
        series: dict[str, CounterSeries | HistogramSeries] = {**self._counters, **self._histograms}
        return [*(series[row.name].family() for row in TABLE if row.name in series), *self._gauges.collect()]

    def noise_of(self, collection: str) -> dict[str, int]:
        """How often the primary was compared with itself, by verdict, in this process."""
        name = self._name(collection)
        return {verdict.value: self._counted[name, verdict] for verdict in Verdict if self._counted[name, verdict]}

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
            sums: dict[str, int] = defaultdict(int)
            for labels, value in counted(row):
                sums[labels[-1]] += value
            return dict(sums)

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
        for labels, count in self._counters[row.name].counts():
            yield labels, int(count)

    def _of_all_workers(self) -> Callable[[MetricRow], Iterator[tuple[Labels, int]]]:
        families = {family.name: family for family in self._families()}

        def counted(row: MetricRow) -> Iterator[tuple[Labels, int]]:
            family = families.get(row.name.removesuffix("_total"))
            for sample in () if family is None else family.samples:
                yield tuple(sample.labels[name] for name in row.labels), int(sample.value)

        return counted


class _Once(CollectorRegistry):
    """What has been collected, as an encoder wants it."""

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
