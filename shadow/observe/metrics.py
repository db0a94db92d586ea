"""The metrics: one table that declares them, one object that counts them, one text that Prometheus reads.

Label values come from enums and from the configuration, never from data: a collection, table or index that is not
configured counts as "other". Every series exists at zero from the start. Each `Metrics` has a registry of its own, so
several `Shadow` objects can live in one process.
"""

from __future__ import annotations

import contextlib
import enum
import os
import platform
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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

from shadow.model.background import Background
from shadow.model.operation import READS, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, Route, StoreName
from shadow.model.verdict import Bypass, Deferral, Healing, Kind, Routed, ShedReason, Slice, Unjournaled, Verdict
from shadow.observe.recent import Recent
from shadow.observe.workers import WorkerGauges

__all__ = [
    "LIST_VERSION",
    "OTHER",
    "DynamoCall",
    "Flip",
    "GaugeSnapshot",
    "MetricRow",
    "Metrics",
    "Part",
    "Reload",
    "metric_table",
]

OTHER: Final = "other"
"""The label value of whatever is not configured or not listed."""

LIST_VERSION: Final = 1
"""Of the documented list of metrics. Within a version, metrics and label values are only added."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, in seconds: from a read in one data centre to the longest client time limit."""


class Part(enum.StrEnum):
    """The internal parts whose failures are counted."""

    REPORT = "report"
    COMPARE = "compare"
    CONFIRM = "confirm"
    SHADOW_READ = "shadow_read"
    ROUTED_READ = "routed_read"
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
    SWEEP = "sweep"
    INDEX = "index"
    CONTROL = "control"
    OTHER = OTHER


class Reload(enum.StrEnum):
    OK = "ok"
    REJECTED = "rejected"


class Flip(enum.StrEnum):
    STARTED = "started"
    DONE = "done"
    REFUSED = "refused"


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
    merge: str = "max"
    """How a gauge's values in several workers become one: sum, max or min."""


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
    "shadow_comparisons_total",
    "counter",
    "Comparisons of reads by what they came to.",
    ("collection", "verb", "verdict"),
)
WRITE_COMPARISONS: Final = MetricRow(
    "shadow_write_comparisons_total",
    "counter",
    "Comparisons of what the same write came to in both stores.",
    ("collection", "verb", "verdict"),
)
MISMATCHES: Final = MetricRow(
    "shadow_mismatches_total", "counter", "Confirmed mismatches by kind.", ("collection", "verb", "kind")
)
BY_PATH: Final = MetricRow(
    "shadow_mismatches_by_path",
    "gauge",
    "Confirmed mismatches since the start in the places where most were; those of all others at the path *.",
    ("collection", "kind", "path"),
    merge="sum",
)
EXCUSED: Final = MetricRow(
    "shadow_excused_total", "counter", "Differences that a named rule has excused.", ("collection", "rule")
)
BYPASSING: Final = MetricRow(
    "shadow_bypassing_writes_total",
    "counter",
    "Writes that went past the shim, as shadow reads or the watch came upon them.",
    ("collection", "kind"),
)
NOISE: Final = MetricRow(
    "shadow_noise_comparisons_total",
    "counter",
    "Comparisons of the primary with itself, by the same code: what is not a match here is noise.",
    ("collection", "verb", "verdict"),
)
CANARY_SOUGHT: Final = MetricRow(
    "shadow_canary_sought_total", "counter", "Planted differences that the comparison was given.", ("collection",)
)
CANARY_FOUND: Final = MetricRow(
    "shadow_canary_found_total", "counter", "Planted differences that it found, with their kind.", ("collection",)
)
CANARY_LAST_FOUND: Final = MetricRow(
    "shadow_canary_last_found_timestamp_seconds",
    "gauge",
    "When a planted difference was last found, in seconds since the epoch; 0 if never.",
    ("collection",),
)
WORKING: Final = MetricRow(
    "shadow_comparison_working",
    "gauge",
    "1 if planted differences are found in time, else 0; for collections in phase shadow.",
    ("collection",),
    merge="min",
)
READ_SECONDS: Final = MetricRow(
    "shadow_read_seconds",
    "histogram",
    "Time of a read as the application sees it; left_out is a random slice that is not shadowed.",
    ("verb", "slice"),
    SECONDS,
)
ROUTED: Final = MetricRow(
    "shadow_routed_reads_total",
    "counter",
    "Reads of collections of which the secondary answers a share (reads), by the store that answered and why.",
    ("collection", "store", "reason"),
)
SHED: Final = MetricRow(
    "shadow_shed_total", "counter", "Shadow reads that were not done or not finished.", ("collection", "reason")
)
DEFERRED: Final = MetricRow(
    "shadow_deferred_writes_total", "counter", "Writes that were left to their intent.", ("collection", "reason")
)
UNJOURNALED: Final = MetricRow(
    "shadow_unjournaled_writes_total",
    "counter",
    "Writes made without an intent (journal.on_failure: sync), by whether the secondary took them.",
    ("collection", "result"),
)
DAMAGED: Final = MetricRow("shadow_journal_damaged_total", "counter", "Damaged journals that were salvaged.")
HEALS: Final = MetricRow("shadow_heals_total", "counter", "Heals by what they found or did.", ("collection", "result"))
RELOADS: Final = MetricRow(
    "shadow_config_reloads_total", "counter", "Times the configuration was read again.", ("result",)
)
FAILURES: Final = MetricRow(
    "shadow_internal_failures_total", "counter", "Internal failures kept from the application.", ("part",)
)
BACKGROUND_FAILURES: Final = MetricRow(
    "shadow_background_failures_total",
    "counter",
    "Failures of long-lived tasks and threads, after each of which the task begins again.",
    ("task",),
)
BACKGROUND_UP: Final = MetricRow(
    "shadow_background_up",
    "gauge",
    "0 if the task has failed and has not worked since, else 1.",
    ("task",),
    merge="min",
)
CAPACITY: Final = MetricRow(
    "shadow_dynamo_capacity_units_total",
    "counter",
    "Capacity units consumed on DynamoDB; index is empty for the table itself.",
    ("table", "index", "verb"),
)
THROTTLED: Final = MetricRow(
    "shadow_dynamo_throttled_requests_total",
    "counter",
    "Requests to DynamoDB that were throttled, repeated ones too; by a client that shadow made.",
)
ABANDONED: Final = MetricRow(
    "shadow_calls_abandoned_total",
    "counter",
    "Calls of a store's client whose caller went away; they run on to the client's own time limits.",
    ("store",),
)
STUCK: Final = MetricRow(
    "shadow_clients_stuck_total",
    "counter",
    "Clients of a store that answered nothing any more, not even a ping, and were given up where shadow had made them.",
    ("store",),
)
FLIPS: Final = MetricRow(
    "shadow_flips_total", "counter", "Changes of primary by what became of them.", ("collection", "result")
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
LANE_DEPTH: Final = MetricRow(
    "shadow_lane_depth", "gauge", "Pieces of work waiting or running in the lane.", merge="sum"
)
LANE_CAPACITY: Final = MetricRow("shadow_lane_capacity", "gauge", "Pieces of work that the lane can hold.", merge="sum")
ROUTE: Final = MetricRow(
    "shadow_route_info",
    "gauge",
    "Worker processes with this primary and phase: 1 for the current one, else 0, where there is one process.",
    ("collection", "primary", "phase"),
    merge="sum",
)
SECONDARY_UP: Final = MetricRow(
    "shadow_secondary_up",
    "gauge",
    "1 if the store, as a secondary, answers; 0 if it is taken to be down.",
    ("store",),
    merge="min",
)
CONTROL_UP: Final = MetricRow(
    "shadow_control_up", "gauge", "1 if the control store answered when it was last asked.", merge="min"
)
MEMBERS: Final = MetricRow(
    "shadow_fleet_members", "gauge", "Processes of the application that share the control store, as last seen."
)
DISAGREEMENTS: Final = MetricRow(
    "shadow_fleet_disagreements",
    "gauge",
    "1 if processes of the fleet do not have the same primary and phase, as last seen.",
    ("collection",),
)
HELD: Final = MetricRow(
    "shadow_flip_held_seconds", "gauge", "For how long the last flip held the writes; 0 with none.", ("collection",)
)
BUILD: Final = MetricRow(
    "shadow_build_info",
    "gauge",
    "Always 1; metrics is the version of this list.",
    ("version", "python", "metrics"),
)

TABLE: Final[tuple[MetricRow, ...]] = (
    OPERATIONS,
    LATENCY,
    COMPARISONS,
    WRITE_COMPARISONS,
    MISMATCHES,
    BY_PATH,
    EXCUSED,
    BYPASSING,
    NOISE,
    CANARY_SOUGHT,
    CANARY_FOUND,
    CANARY_LAST_FOUND,
    WORKING,
    READ_SECONDS,
    ROUTED,
    SHED,
    DEFERRED,
    UNJOURNALED,
    DAMAGED,
    HEALS,
    OPEN_INTENTS,
    OLDEST_INTENT,
    LANE_DEPTH,
    LANE_CAPACITY,
    CONTROL_UP,
    MEMBERS,
    DISAGREEMENTS,
    HELD,
    ROUTE,
    SECONDARY_UP,
    FLIPS,
    RELOADS,
    FAILURES,
    BACKGROUND_FAILURES,
    BACKGROUND_UP,
    CAPACITY,
    THROTTLED,
    ABANDONED,
    STUCK,
    SCANS,
    SCANNED,
    SCANNED_OUT,
    BUILD,
)


def metric_table() -> list[MetricRow]:
    """Every metric that is exported, in the order of the README's table."""
    return list(TABLE)


_WRITES: Final = tuple(verb for verb in Verb if verb not in READS)

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GaugeSnapshot:
    """What the gauges say at one scrape. `open_intents` by collection; `oldest_intent_seconds` 0.0 with none open;
    `secondary_up` for the stores that are a secondary now; `canary_found` in epoch seconds, 0.0 for never, and
    `comparison_working`, for the collections in phase shadow."""

    open_intents: Mapping[str, int] = field(default_factory=dict)
    oldest_intent_seconds: float = 0.0
    lane_depth: int = 0
    lane_capacity: int = 0
    routes: Mapping[str, Route] = field(default_factory=dict)
    secondary_up: Mapping[StoreName, bool] = field(default_factory=dict)
    canary_found: Mapping[str, float] = field(default_factory=dict)
    comparison_working: Mapping[str, bool] = field(default_factory=dict)
    mismatches_by_path: Mapping[Labels, int] = field(default_factory=dict)
    """By (collection, kind, path); whoever makes it bounds it."""
    control_up: bool = False
    members: int = 0
    disagreements: Collection[str] = ()
    """The collections on which processes disagree."""
    held: Mapping[str, float] = field(default_factory=dict)
    background_down: Collection[Background] = ()
    """The long-lived tasks that have failed and have not worked since."""


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
        self._counters: dict[str, Counter] = {}
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
        self._comparisons = self._series(COMPARISONS, named, READS, Verdict)
        self._comparisons |= self._series(WRITE_COMPARISONS, named, _WRITES, Verdict)
        self._mismatches = self._series(MISMATCHES, named, Verb, Kind)
        self._bypassing = self._series(BYPASSING, named, Bypass)
        self._counted: Counts[tuple[str, Verdict]] = Counts()
        self._noise = self._series(NOISE, named, READS, Verdict)
        self._canary_sought = self._series(CANARY_SOUGHT, named)
        self._canary_found = self._series(CANARY_FOUND, named)
        self._reads = {
            labels: child.observe
            for labels, child in _children(
                Histogram(
                    READ_SECONDS.name, READ_SECONDS.help, READ_SECONDS.labels, buckets=SECONDS, registry=self._registry
                ),
                READS,
                Slice,
            ).items()
        }
        self._routed = self._series(ROUTED, named, StoreName, Routed)
        self._shed = self._series(SHED, named, ShedReason)
        self._deferred = self._series(DEFERRED, named, Deferral)
        self._unjournaled = self._series(UNJOURNALED, named, Unjournaled)
        self._damaged = self._counter(DAMAGED)
        self._heals = self._series(HEALS, named, Healing)
        self._flips = self._series(FLIPS, named, Flip)
        self._reloads = self._series(RELOADS, Reload)
        self._failures = self._series(FAILURES, Part)
        self._background = self._series(BACKGROUND_FAILURES, Background)
        self._excuse = self._counter(EXCUSED)
        self._excused = {pair: self._excuse.labels(*pair).inc for pair in (*rules, (OTHER, OTHER))}
        indexes = [(table, index) for table, names in (tables or {}).items() for index in ("", *names)]
        self._capacity = self._pairs(
            CAPACITY, [(*place, call) for place in (*indexes, (OTHER, OTHER)) for call in map(str, DynamoCall)]
        )
        self._throttled = self._counter(THROTTLED).inc
        abandoned, stuck = self._series(ABANDONED, StoreName), self._series(STUCK, StoreName)
        self.abandoned: Final = {name: abandoned[(name,)] for name in StoreName}
        """To be called for one call that was abandoned."""
        self.stuck: Final = {name: stuck[(name,)] for name in StoreName}
        """To be called for one client that answered nothing any more."""
        named_tables = [(table,) for table in (*(tables or {}), OTHER)]
        self._scans = [self._pairs(row, named_tables) for row in (SCANS, SCANNED, SCANNED_OUT)]
        self._routes: dict[str, Route] = {}
        self.recent: Final = Recent()
        self.on_failure: Callable[[str, Exception], None] = lambda part, error: self.internal_failure(part)
        """Hears which part of the metrics could not be had, and why; as it stands it only counts that."""
        self._gauges = _Gauges(self.collections, self._routes, self._unread)

    def _counter(self, row: MetricRow) -> Counter:
        made = self._counters[row.name] = Counter(row.name, row.help, row.labels, registry=self._registry)
        return made

    def _series(self, row: MetricRow, *values: Iterable[str]) -> dict[Labels, Callable[..., None]]:
        return {labels: child.inc for labels, child in _children(self._counter(row), *values).items()}

    def _pairs(self, row: MetricRow, labels: Iterable[Labels]) -> dict[Labels, Callable[[float], None]]:
        counter = self._counter(row)
        return {each: counter.labels(*each).inc for each in labels}

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
        self._operations[self._name(collection), verb, store, role, outcome](count)
        observe = self._latency[store, verb]
        for _ in range(count):
            observe(seconds)

    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None:
        name = self._name(collection)
        self._comparisons[name, verb, verdict](count)
        if verb in READS:
            self.recent.add(name, verdict, count)

    def mismatch(self, collection: str, verb: Verb, kind: Kind) -> None:
        self._mismatches[self._name(collection), verb, kind]()

    def bypassed(self, collection: str, kind: Bypass) -> None:
        """A write that went past the shim was found."""
        self._bypassing[self._name(collection), kind]()

    def excused(self, collection: str, rule: str) -> None:
        """A rule has excused a difference."""
        self._excused.get((collection, rule), self._excused[OTHER, OTHER])(1)

    def excuses(self, rules: Iterable[tuple[str, str]]) -> None:
        """Makes the series of further rules, pairs (collection, rule name)."""
        for pair in rules:
            self._excused.setdefault(pair, self._excuse.labels(*pair).inc)

    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        """A comparison of the primary with itself came to `verdict`."""
        self._noise[self._name(collection), verb, verdict]()
        self._counted[self._name(collection), verdict] += 1

    def canary(self, collection: str, *, found: bool) -> None:
        """A planted difference was given to the comparison, or was found by it."""
        (self._canary_found if found else self._canary_sought)[(self._name(collection),)]()

    def read(self, verb: Verb, slice: Slice, seconds: float) -> None:
        """One read of the application took `seconds`."""
        self._reads[verb, slice](seconds)

    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None:
        """A read of a collection of which the secondary answers a share was answered by `store`."""
        self._routed[self._name(collection), store, reason]()

    def shed(self, collection: str, reason: ShedReason) -> None:
        self._shed[self._name(collection), reason]()

    def deferred(self, collection: str, reason: Deferral) -> None:
        self._deferred[self._name(collection), reason]()

    def unjournaled(self, collection: str, result: Unjournaled) -> None:
        self._unjournaled[self._name(collection), result]()

    def damaged(self) -> None:
        """A damaged journal was salvaged."""
        self._damaged.inc()

    def healed(self, collection: str, result: Healing) -> None:
        self._heals[self._name(collection), result]()

    def flipped(self, collection: str, result: Flip) -> None:
        """A change of primary was begun, made, or given up."""
        self._flips[self._name(collection), result]()

    def reloaded(self, ok: bool) -> None:
        self._reloads[(Reload.OK if ok else Reload.REJECTED,)]()

    def internal_failure(self, part: str) -> None:
        """An internal part failed; a `part` that is not one of `Part` counts as "other". Never raises."""
        # After a fork the counters of workers look for a file of their own, in a folder that may be gone.
        with contextlib.suppress(Exception):
            self._failures.get((part,), self._failures[(Part.OTHER,)])()

    def background_failure(self, task: Background) -> None:
        """A long-lived task has failed."""
        self._background[(task,)]()

    def _unread(self, error: Exception) -> None:
        self.on_failure(Part.GAUGES, error)

    def throttled(self) -> None:
        """One request was throttled. Like the two that follow it never raises: the store's answer waits for them."""
        with self._guarded():
            self._throttled()

    def capacity(self, table: str, index: str, call: str, units: float) -> None:
        """`units` of capacity used by one API call (`get_item`, `query`, ...); `index` is "" for the table itself."""
        with self._guarded():
            place = (table, index) if (table, index, Part.OTHER) in self._capacity else (OTHER, OTHER)
            self._capacity.get((*place, call), self._capacity[(*place, OTHER)])(units)

    def scanned(self, table: str, scans: int, read: int, returned: int) -> None:
        """Scans that were begun on a table, and the items that they have read and returned."""
        with self._guarded():
            for counter, count in zip(self._scans, (scans, read, returned), strict=True):
                if count:
                    counter.get((table,), counter[(OTHER,)])(count)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.internal_failure(Part.REPORT)

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
        folder cannot be read, it is what this process alone has counted, and the failure is counted.
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
                self.on_failure(Part.GAUGES, error)

    def _families(self) -> list[Metric]:
        """All that there is to show; where the other workers cannot be read, what this process alone has."""
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared:
            self.publish()
            try:
                every = CollectorRegistry(auto_describe=False)
                counted = MultiProcessCollector(every, path=shared).collect()  # type: ignore[no-untyped-call]
                return [*counted, *_workers(shared).merged()]
            except Exception as error:
                self.on_failure(Part.GAUGES, error)
        return [*_plain(self._registry), *self._gauges.collect()]

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
        reasons that were ever counted. Beside them "recent": {name: as `Recent.status`}, of this process alone.
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
            "recent": {name: self.recent.status(name) for name in self.collections},
            "routed_reads": _routed(counted(ROUTED)),
        }

    def _of_this_process(self, row: MetricRow) -> Iterator[tuple[Labels, int]]:
        """The series of a counter. Past the registry, which builds all samples of all series for it: some fifty
        milliseconds, in the event loop, each time that the fleet's figures or the status are asked for."""
        children: Mapping[Any, Any] = self._counters[row.name]._metrics
        for labels, child in list(children.items()):
            yield tuple(labels), int(child._value.get())

    def _of_all_workers(self) -> Callable[[MetricRow], Iterator[tuple[Labels, int]]]:
        families = {family.name: family for family in self._families()}

        def counted(row: MetricRow) -> Iterator[tuple[Labels, int]]:
            family = families.get(row.name.removesuffix("_total"))
            for sample in () if family is None else family.samples:
                yield tuple(sample.labels[name] for name in row.labels), int(sample.value)

        return counted


def _plain(registry: CollectorRegistry) -> Iterator[Metric]:
    """A registry without the `_created` samples: a second series for each counter, which no query here asks for.

    The library's own switch for them is one for the whole process, which is the application's to set.
    """
    for family in registry.collect():
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        yield family


class _Once(CollectorRegistry):
    """What has been collected, as an encoder wants it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _workers(folder: str) -> WorkerGauges:
    return WorkerGauges(folder, {row.name: row.merge for row in TABLE if row.type == "gauge"})


class _Gauges(Collector):
    """The gauges, read when they are asked for."""

    def __init__(
        self, collections: tuple[str, ...], routes: Mapping[str, Route], failed: Callable[[Exception], None]
    ) -> None:
        self._collections = collections
        self._routes = routes
        self._failed = failed
        self.read: Callable[[], GaugeSnapshot] = GaugeSnapshot

    def collect(self) -> Iterator[Metric]:
        yield _family(BUILD, {(_version(), platform.python_version(), str(LIST_VERSION)): 1})
        try:
            snapshot = self.read()
        except Exception as error:
            self._failed(error)
            return
        open_intents = dict.fromkeys((*self._collections, OTHER), 0)
        for name, count in snapshot.open_intents.items():
            open_intents[name if name in open_intents else OTHER] += count
        yield _family(OPEN_INTENTS, {(name,): count for name, count in open_intents.items()})
        yield _family(OLDEST_INTENT, {(): snapshot.oldest_intent_seconds})
        yield _family(LANE_DEPTH, {(): snapshot.lane_depth})
        yield _family(LANE_CAPACITY, {(): snapshot.lane_capacity})
        yield _family(SECONDARY_UP, {(name,): int(up) for name, up in snapshot.secondary_up.items()})
        yield _family(CANARY_LAST_FOUND, {(name,): at for name, at in snapshot.canary_found.items()})
        yield _family(WORKING, {(name,): int(works) for name, works in snapshot.comparison_working.items()})
        yield _family(BY_PATH, snapshot.mismatches_by_path)
        yield _family(CONTROL_UP, {(): int(snapshot.control_up)})
        yield _family(MEMBERS, {(): snapshot.members})
        yield _family(DISAGREEMENTS, {(name,): int(name in snapshot.disagreements) for name in self._collections})
        yield _family(HELD, {(name,): snapshot.held.get(name, 0.0) for name in self._collections})
        yield _family(BACKGROUND_UP, {(each,): int(each not in snapshot.background_down) for each in Background})
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


def _routed(counted: Iterable[tuple[Labels, int]]) -> dict[str, dict[str, dict[str, int]]]:
    """By collection, store and reason, without what was never counted."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (collection, store, reason), value in counted:
        if value:
            found.setdefault(collection, {}).setdefault(store, {})[reason] = value
    return found


def _version() -> str:
    try:
        return metadata.version("shadow")
    except metadata.PackageNotFoundError:
        return "unknown"
