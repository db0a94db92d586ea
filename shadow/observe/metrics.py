"""The metrics: one table that declares them, one object that counts them, one text that Prometheus reads.

Label values come from enums and from the configuration, never from data: a collection, table or index that is not
configured counts as "other". Every series exists at zero from the start. Each `Metrics` has a registry of its own, so
several `Shadow` objects can live in one process.
"""

from __future__ import annotations

import enum
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from itertools import product
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, Route, StoreName
from shadow.model.verdict import Deferral, Healing, Kind, ShedReason, Verdict

__all__ = ["OTHER", "DynamoCall", "GaugeSnapshot", "MetricRow", "Metrics", "Part", "Reload", "metric_table"]

OTHER: Final = "other"
"""The label value of whatever is not configured or not listed."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, in seconds: from a read in one data centre to the longest client time limit."""


class Part(enum.StrEnum):
    """The internal parts whose failures are counted."""

    REPORT = "report"
    COMPARE = "compare"
    CONFIRM = "confirm"
    SHADOW_READ = "shadow_read"
    REPLAY = "replay"
    HEAL = "heal"
    LANE = "lane"
    JOURNAL = "journal"
    RECOVERY = "recovery"
    WATCH = "watch"
    RELOAD = "reload"
    GAUGES = "gauges"
    PROBE = "probe"
    CLOSE = "close"
    OTHER = OTHER


class Reload(enum.StrEnum):
    OK = "ok"
    REJECTED = "rejected"


class DynamoCall(enum.StrEnum):
    """The calls of the DynamoDB API that consume capacity, as the client names its methods."""

    GET_ITEM = "get_item"
    BATCH_GET_ITEM = "batch_get_item"
    QUERY = "query"
    SCAN = "scan"
    PUT_ITEM = "put_item"
    UPDATE_ITEM = "update_item"
    DELETE_ITEM = "delete_item"
    BATCH_WRITE_ITEM = "batch_write_item"
    TRANSACT_GET_ITEMS = "transact_get_items"
    TRANSACT_WRITE_ITEMS = "transact_write_items"
    OTHER = OTHER


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric as it is documented. `type` is counter, gauge or histogram; `buckets` are upper bounds in its unit."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


OPERATIONS: Final = MetricRow(
    "shadow_operations_total",
    "counter",
    "Operations that a store has answered.",
    ("collection", "verb", "store", "role", "outcome"),
)
LATENCY: Final = MetricRow(
    "shadow_operation_seconds", "histogram", "Time that a store took to answer.", ("store", "verb"), SECONDS
)
COMPARISONS: Final = MetricRow(
    "shadow_comparisons_total", "counter", "Comparisons by what they came to.", ("collection", "verb", "verdict")
)
MISMATCHES: Final = MetricRow(
    "shadow_mismatches_total", "counter", "Confirmed mismatches by kind.", ("collection", "verb", "kind")
)
EXCUSED: Final = MetricRow(
    "shadow_excused_total", "counter", "Differences that a named rule has excused.", ("collection", "rule")
)
SHED: Final = MetricRow(
    "shadow_shed_total", "counter", "Shadow reads that were not done or not finished.", ("collection", "reason")
)
DEFERRED: Final = MetricRow(
    "shadow_deferred_writes_total", "counter", "Writes that were left to their intent.", ("collection", "reason")
)
HEALS: Final = MetricRow("shadow_heals_total", "counter", "Heals by what they found or did.", ("collection", "result"))
RELOADS: Final = MetricRow(
    "shadow_config_reloads_total", "counter", "Times the configuration was read again.", ("result",)
)
FAILURES: Final = MetricRow(
    "shadow_internal_failures_total", "counter", "Internal failures kept from the application.", ("part",)
)
CAPACITY: Final = MetricRow(
    "shadow_dynamo_capacity_units_total",
    "counter",
    "Capacity units consumed on DynamoDB; index is empty for the table itself.",
    ("table", "index", "verb"),
)
SCANS: Final = MetricRow(
    "shadow_dynamo_scans_total",
    "counter",
    "Queries that had to scan a table, for no key or index serves them.",
    ("table",),
)
SCANNED: Final = MetricRow("shadow_dynamo_scan_items_read_total", "counter", "Items that scans have read.", ("table",))
SCANNED_OUT: Final = MetricRow(
    "shadow_dynamo_scan_items_returned_total",
    "counter",
    "Items that scans have answered, of those that they have read.",
    ("table",),
)
OPEN_INTENTS: Final = MetricRow("shadow_journal_open_intents", "gauge", "Intents open in the journal.", ("collection",))
OLDEST_INTENT: Final = MetricRow(
    "shadow_journal_oldest_intent_seconds", "gauge", "Age of the oldest open intent; 0 with none open."
)
LANE_DEPTH: Final = MetricRow("shadow_lane_depth", "gauge", "Pieces of work waiting or running in the lane.")
LANE_CAPACITY: Final = MetricRow("shadow_lane_capacity", "gauge", "Pieces of work that the lane can hold.")
ROUTE: Final = MetricRow(
    "shadow_route_info", "gauge", "1 for the current primary and phase, else 0.", ("collection", "primary", "phase")
)
SECONDARY_UP: Final = MetricRow(
    "shadow_secondary_up", "gauge", "1 if the store, as a secondary, answers; 0 if it is taken to be down.", ("store",)
)
BUILD: Final = MetricRow("shadow_build_info", "gauge", "Always 1.", ("version", "python"))

TABLE: Final[tuple[MetricRow, ...]] = (
    OPERATIONS,
    LATENCY,
    COMPARISONS,
    MISMATCHES,
    EXCUSED,
    SHED,
    DEFERRED,
    HEALS,
    OPEN_INTENTS,
    OLDEST_INTENT,
    LANE_DEPTH,
    LANE_CAPACITY,
    ROUTE,
    SECONDARY_UP,
    RELOADS,
    FAILURES,
    CAPACITY,
    SCANS,
    SCANNED,
    SCANNED_OUT,
    BUILD,
)


def metric_table() -> list[MetricRow]:
    """Every metric that is exported, in the order of the README's table."""
    return list(TABLE)


@dataclass(frozen=True, slots=True)
class GaugeSnapshot:
    """What the gauges say at one scrape. `open_intents` by collection; `oldest_intent_seconds` 0.0 with none open;
    `secondary_up` for the stores that are a secondary now."""

    open_intents: Mapping[str, int] = field(default_factory=dict)
    oldest_intent_seconds: float = 0.0
    lane_depth: int = 0
    lane_capacity: int = 0
    routes: Mapping[str, Route] = field(default_factory=dict)
    secondary_up: Mapping[StoreName, bool] = field(default_factory=dict)


Labels = tuple[str, ...]
_C = TypeVar("_C", Counter, Histogram)


def _children(parent: _C, *values: Iterable[str]) -> dict[Labels, _C]:
    """The series of every combination of label values, made now so that they exist at zero and cost one look-up."""
    return {labels: parent.labels(*labels) for labels in product(*(tuple(map(str, some)) for some in values))}


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
        self._registry = CollectorRegistry(auto_describe=False)
        self.collections: Final = tuple(dict.fromkeys(collections))
        named = (*self.collections, OTHER)
        self._known = frozenset(named)
        self._operations = self._series(OPERATIONS, named, Verb, StoreName, Role, Outcome)
        self._latency = {
            labels: child.observe
            for labels, child in _children(
                Histogram(LATENCY.name, LATENCY.help, LATENCY.labels, buckets=SECONDS, registry=self._registry),
                StoreName,
                Verb,
            ).items()
        }
        self._comparisons = self._series(COMPARISONS, named, Verb, Verdict)
        self._mismatches = self._series(MISMATCHES, named, Verb, Kind)
        self._shed = self._series(SHED, named, ShedReason)
        self._deferred = self._series(DEFERRED, named, Deferral)
        self._heals = self._series(HEALS, named, Healing)
        self._reloads = self._series(RELOADS, Reload)
        self._failures = self._series(FAILURES, Part)
        self._excused = self._pairs(EXCUSED, [*rules, (OTHER, OTHER)])
        indexes = [(table, index) for table, names in (tables or {}).items() for index in ("", *names)]
        self._capacity = self._pairs(
            CAPACITY, [(*place, call) for place in (*indexes, (OTHER, OTHER)) for call in map(str, DynamoCall)]
        )
        named_tables = [(table,) for table in (*(tables or {}), OTHER)]
        self._scans = [self._pairs(row, named_tables) for row in (SCANS, SCANNED, SCANNED_OUT)]
        self._routes: dict[str, Route] = {}
        self._gauges = _Gauges(self.collections, self._routes, self._failures[(Part.GAUGES,)])

    def _counter(self, row: MetricRow) -> Counter:
        return Counter(row.name, row.help, row.labels, registry=self._registry)

    def _series(self, row: MetricRow, *values: Iterable[str]) -> dict[Labels, Callable[[], None]]:
        return {labels: child.inc for labels, child in _children(self._counter(row), *values).items()}

    def _pairs(self, row: MetricRow, labels: Iterable[Labels]) -> dict[Labels, Callable[[float], None]]:
        counter = self._counter(row)
        return {each: counter.labels(*each).inc for each in labels}

    def _name(self, collection: str) -> str:
        return collection if collection in self._known else OTHER

    def operation(
        self, collection: str, verb: Verb, store: StoreName, role: Role, outcome: Outcome, seconds: float
    ) -> None:
        """One operation answered by a store in `seconds`."""
        self._operations[self._name(collection), verb, store, role, outcome]()
        self._latency[store, verb](seconds)

    def comparison(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        self._comparisons[self._name(collection), verb, verdict]()

    def mismatch(self, collection: str, verb: Verb, kind: Kind) -> None:
        self._mismatches[self._name(collection), verb, kind]()

    def excused(self, collection: str, rule: str) -> None:
        """A rule has excused a difference."""
        self._excused.get((collection, rule), self._excused[OTHER, OTHER])(1)

    def shed(self, collection: str, reason: ShedReason) -> None:
        self._shed[self._name(collection), reason]()

    def deferred(self, collection: str, reason: Deferral) -> None:
        self._deferred[self._name(collection), reason]()

    def healed(self, collection: str, result: Healing) -> None:
        self._heals[self._name(collection), result]()

    def reloaded(self, ok: bool) -> None:
        self._reloads[(Reload.OK if ok else Reload.REJECTED,)]()

    def internal_failure(self, part: str) -> None:
        """An internal part failed; a `part` that is not one of `Part` counts as "other"."""
        self._failures.get((part,), self._failures[(Part.OTHER,)])()

    def capacity(self, table: str, index: str, call: str, units: float) -> None:
        """`units` of capacity used by one API call (`get_item`, `query`, ...); `index` is "" for the table itself."""
        place = (table, index) if (table, index, Part.OTHER) in self._capacity else (OTHER, OTHER)
        self._capacity.get((*place, call), self._capacity[(*place, OTHER)])(units)

    def scanned(self, table: str, scans: int, read: int, returned: int) -> None:
        """Scans that were begun on a table, and the items that they have read and returned."""
        for counter, count in zip(self._scans, (scans, read, returned), strict=True):
            if count:
                counter.get((table,), counter[(OTHER,)])(count)

    def routed(self, collection: str, route: Route) -> None:
        """The route of a collection, until a bound `GaugeSnapshot` says otherwise."""
        self._routes[self._name(collection)] = route

    def bind(self, gauges: Callable[[], GaugeSnapshot]) -> None:
        """Sets where the gauges are read at each scrape. `gauges` may be called from any thread, must not block, and
        may raise: the gauges are then absent from that scrape and the failure is counted."""
        self._gauges.read = gauges

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: Prometheus's text format, or what the header `accept` prefers.

        Where `PROMETHEUS_MULTIPROC_DIR` is set, counters and histograms are those of all processes that share it
        (one `Metrics` in each: two of one process would share series); gauges are this process's own.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._view()), content_type

    def _view(self) -> CollectorRegistry:
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        view = CollectorRegistry(auto_describe=False)
        if shared:
            MultiProcessCollector(view, path=shared)  # type: ignore[no-untyped-call]
        else:
            view.register(_Plain(self._registry))
        view.register(self._gauges)
        return view

    def totals(self) -> dict[str, Any]:
        """Sums for a status page or a report.

        Shape: {"operations": n, "outcomes": {...}, "comparisons": n, "verdicts": {...}, "mismatches": n,
        "kinds": {...}, "shed": {...}, "deferred": {...}, "heals": {...}, "reloads": {...}, "failures": {...}}, each
        inner one from label value to number.
        """
        families = {family.name: family for family in self._view().collect()}

        def by_last_label(row: MetricRow) -> dict[str, int]:
            sums: dict[str, int] = defaultdict(int)
            for sample in families[row.name.removesuffix("_total")].samples:
                sums[sample.labels[row.labels[-1]]] += int(sample.value)
            return dict(sums)

        outcomes, verdicts, kinds = (by_last_label(row) for row in (OPERATIONS, COMPARISONS, MISMATCHES))
        return {
            "operations": sum(outcomes.values()),
            "outcomes": outcomes,
            "comparisons": sum(verdicts.values()),
            "verdicts": verdicts,
            "mismatches": sum(kinds.values()),
            "kinds": kinds,
            "shed": by_last_label(SHED),
            "deferred": by_last_label(DEFERRED),
            "heals": by_last_label(HEALS),
            "reloads": by_last_label(RELOADS),
            "failures": by_last_label(FAILURES),
        }


class _Plain(Collector):
    """A registry without the `_created` samples: a second series for each counter, which no query here asks for.

    The library's own switch for them is one for the whole process, which is the application's to set.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Gauges(Collector):
    """The gauges, read when they are asked for."""

    def __init__(self, collections: tuple[str, ...], routes: Mapping[str, Route], failed: Callable[[], None]) -> None:
        self._collections = collections
        self._routes = routes
        self._failed = failed
        self.read: Callable[[], GaugeSnapshot] = GaugeSnapshot

    def collect(self) -> Iterator[Metric]:
        yield _family(BUILD, {(_version(), platform.python_version()): 1})
        try:
            snapshot = self.read()
        except Exception:
            self._failed()
            return
        open_intents = dict.fromkeys((*self._collections, OTHER), 0)
        for name, count in snapshot.open_intents.items():
            open_intents[name if name in open_intents else OTHER] += count
        yield _family(OPEN_INTENTS, {(name,): count for name, count in open_intents.items()})
        yield _family(OLDEST_INTENT, {(): snapshot.oldest_intent_seconds})
        yield _family(LANE_DEPTH, {(): snapshot.lane_depth})
        yield _family(LANE_CAPACITY, {(): snapshot.lane_capacity})
        yield _family(SECONDARY_UP, {(name,): int(up) for name, up in snapshot.secondary_up.items()})
        yield _family(ROUTE, self._info({**self._routes, **snapshot.routes}))

    def _info(self, routes: Mapping[str, Route]) -> dict[Labels, float]:
        current = {(name, route.primary, route.phase) for name, route in routes.items()}
        places = product(self._collections, StoreName, Phase)
        return {place: int(place in current) for place in places if place[0] in routes}


def _family(row: MetricRow, values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(row.name, row.help, labels=row.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _version() -> str:
    try:
        return metadata.version("shadow")
    except metadata.PackageNotFoundError:
        return "unknown"
