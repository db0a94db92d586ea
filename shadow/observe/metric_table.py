"""The table of the metrics: every one that is exported, its labels, and the label values that are not of the
configuration."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from shadow.model.background import Background
from shadow.model.events import (
    BackgroundTaskFailed,
    CallAbandoned,
    CanaryFound,
    CanaryInjected,
    CapacityConsumed,
    ClientStalled,
    ComparisonFinished,
    ComparisonUndecided,
    ComponentFailed,
    ConfigReloaded,
    HealFinished,
    JournalRecovered,
    MismatchConfirmed,
    NoiseMeasured,
    Noted,
    OperationFinished,
    OutOfBandWriteCounted,
    ReadFinished,
    ReadRouted,
    ReadShed,
    RequestThrottled,
    RuleApplied,
    TableScanned,
    WriteDeferred,
    WriteUnjournaled,
)
from shadow.model.operation import READS, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.verdict import (
    HEALED,
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
from shadow.observe.log import Event as LogEvent

__all__ = [
    "ABANDONED",
    "BACKGROUND_FAILURES",
    "BACKGROUND_UP",
    "BUILD",
    "BYPASSING",
    "BY_PATH",
    "CANARY_FOUND",
    "CANARY_LAST_FOUND",
    "CANARY_SOUGHT",
    "CAPACITY",
    "COMPARISONS",
    "CONTROL_UP",
    "DAMAGED",
    "DEFERRED",
    "DISAGREEMENTS",
    "EXCUSED",
    "FAILURES",
    "FLIPS",
    "HEALS",
    "HELD",
    "INCOMPARABLE",
    "LANE_CAPACITY",
    "LANE_DEPTH",
    "LATENCY",
    "LIST_VERSION",
    "MEMBERS",
    "MISMATCHES",
    "NOISE",
    "OLDEST_INTENT",
    "OPEN_INTENTS",
    "OPERATIONS",
    "OTHER",
    "READ_SECONDS",
    "RELOADS",
    "ROUTE",
    "ROUTED",
    "SCANNED",
    "SCANNED_OUT",
    "SCANS",
    "SECONDARY_UP",
    "SECONDS",
    "SHED",
    "STUCK",
    "TABLE",
    "THROTTLED",
    "UNJOURNALED",
    "WORKING",
    "WRITE_COMPARISONS",
    "By",
    "Component",
    "Configured",
    "DynamoCall",
    "FlipOutcome",
    "MetricRow",
    "Reload",
    "metric_table",
]

OTHER: Final = "other"
"""The label value of whatever is not configured or not listed."""

LIST_VERSION: Final = 2
"""Of the documented list of metrics. Within a version, metrics and label values are only added."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, in seconds: from a read in one data centre to the longest client time limit."""


_WRITES: Final = tuple(verb for verb in Verb if verb not in READS)


class Configured(enum.Enum):
    """Label values that the configuration gives; each list of them has "other" too."""

    COLLECTION = enum.auto()
    RULE = enum.auto()
    """For two labels: a collection and the name of a comparison rule."""
    TABLE = enum.auto()
    INDEX = enum.auto()
    """For two labels: a table of DynamoDB and the name of an index, "" for the table itself."""


class Component(enum.StrEnum):
    """The internal parts whose failures are counted."""

    REPORT = "report"
    CONFIRM = "confirm"
    SHADOW_READ = "shadow_read"
    ROUTED_READ = "routed_read"
    REPLAY = "replay"
    LANE = "lane"
    JOURNAL = "journal"
    RECOVERY = "recovery"
    WATCH = "watch"
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


class FlipOutcome(enum.StrEnum):
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
class By:
    """An event that moves a metric.

    `labels`: the attributes that hold the label values, or a function that gives them; by default the attributes named
    as the labels are. `amount`: the attribute by which a counter rises (by default it rises by 1), or that a histogram
    observes, `times` times. `when`: whether this event counts.
    """

    event: type[Any]
    labels: tuple[str, ...] | Callable[[Any], tuple[str, ...]] | None = None
    amount: str = ""
    times: str = ""
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric as it is documented. `type` is counter, gauge or histogram; `buckets` are upper bounds in its unit.

    `values` are the label values of a counter or histogram, in the order of `labels`: an enum's, or those that the
    configuration gives.
    """

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[Iterable[str] | Configured, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: str = "max"
    """How a gauge's values in several workers become one: sum, max or min."""
    moved_by: tuple[By, ...] = ()
    """The events that move a counter or a histogram; a gauge is read when it is asked for."""


_FLIPS: Final = {
    LogEvent.FLIP_STARTED: FlipOutcome.STARTED,
    LogEvent.FLIP_DONE: FlipOutcome.DONE,
    LogEvent.FLIP_REFUSED: FlipOutcome.REFUSED,
}

_COMPONENT_OF: Final = {
    Background.RECOVERY: Component.RECOVERY,
    Background.REFRESH: Component.JOURNAL,
    Background.CANARIES: Component.PROBE,
    Background.SUSPECTS: Component.CONFIRM,
    Background.WATCH: Component.WATCH,
    Background.FLEET: Component.CONTROL,
    Background.FIGURES: Component.CONTROL,
    Background.FLIP: Component.CONTROL,
    Background.FLIPS: Component.CONTROL,
    Background.PULSE: Component.REPORT,
    Background.WRITERS: Component.WATCH,
    Background.SWEEP: Component.SWEEP,
    Background.RIGHTS: Component.OTHER,
    Background.JOURNAL: Component.JOURNAL,
}


def _of_read(event: ComparisonFinished) -> bool:
    return event.verb in READS


def _of_write(event: ComparisonFinished) -> bool:
    return event.verb not in READS


def _unjournaled(event: WriteUnjournaled) -> tuple[str, ...]:
    return event.collection, Unjournaled.TAKEN if event.taken else Unjournaled.DOUBTED


def _reloaded(event: ConfigReloaded) -> tuple[str, ...]:
    return (Reload.OK if event.ok else Reload.REJECTED,)


def _component(event: BackgroundTaskFailed) -> tuple[str, ...]:
    return (_COMPONENT_OF.get(event.task, Component.OTHER),)


def _is_flip(event: Noted) -> bool:
    return event.name in _FLIPS


def _flip(event: Noted) -> tuple[str, ...]:
    return str(event.fields.get("collection")), _FLIPS[LogEvent(event.name)]


OPERATIONS: Final = MetricRow(
    "shadow_operations_total",
    "counter",
    "Operations that a store has answered.",
    ("collection", "verb", "store", "role", "outcome"),
    (Configured.COLLECTION, Verb, StoreName, Role, Outcome),
    moved_by=(By(OperationFinished, amount="count"),),
)
LATENCY: Final = MetricRow(
    "shadow_operation_seconds",
    "histogram",
    "Time that a store took to answer.",
    ("store", "verb"),
    (StoreName, Verb),
    SECONDS,
    moved_by=(By(OperationFinished, amount="seconds", times="count"),),
)
COMPARISONS: Final = MetricRow(
    "shadow_comparisons_total",
    "counter",
    "Comparisons of reads, by verdict.",
    ("collection", "verb", "verdict"),
    (Configured.COLLECTION, READS, Verdict),
    moved_by=(By(ComparisonFinished, amount="count", when=_of_read),),
)
WRITE_COMPARISONS: Final = MetricRow(
    "shadow_write_comparisons_total",
    "counter",
    "Comparisons of the result of a write in both stores, by verdict.",
    ("collection", "verb", "verdict"),
    (Configured.COLLECTION, _WRITES, Verdict),
    moved_by=(By(ComparisonFinished, amount="count", when=_of_write),),
)
MISMATCHES: Final = MetricRow(
    "shadow_mismatches_total",
    "counter",
    "Confirmed mismatches by kind.",
    ("collection", "verb", "kind"),
    (Configured.COLLECTION, Verb, Kind),
    moved_by=(By(MismatchConfirmed, ("found.collection", "found.verb", "found.kind")),),
)
BY_PATH: Final = MetricRow(
    "shadow_mismatches_by_path",
    "gauge",
    "Confirmed mismatches since the start, at the paths with the most of them; all others at the path *.",
    ("collection", "kind", "path"),
    merge="sum",
)
EXCUSED: Final = MetricRow(
    "shadow_excused_total",
    "counter",
    "Differences that a comparison rule has ignored, by rule.",
    ("collection", "rule"),
    (Configured.RULE,),
    moved_by=(By(RuleApplied),),
)
BYPASSING: Final = MetricRow(
    "shadow_out_of_band_writes_total",
    "counter",
    "Out-of-band writes that shadow reads or the watch have found.",
    ("collection", "kind"),
    (Configured.COLLECTION, Bypass),
    moved_by=(By(OutOfBandWriteCounted),),
)
NOISE: Final = MetricRow(
    "shadow_noise_comparisons_total",
    "counter",
    "Comparisons of the primary with itself, by the same code: what is not a match here is noise.",
    ("collection", "verb", "verdict"),
    (Configured.COLLECTION, READS, Verdict),
    moved_by=(By(NoiseMeasured),),
)
CANARY_SOUGHT: Final = MetricRow(
    "shadow_canary_injected_total",
    "counter",
    "Planted differences that were injected into the comparison.",
    ("collection",),
    (Configured.COLLECTION,),
    moved_by=(By(CanaryInjected),),
)
CANARY_FOUND: Final = MetricRow(
    "shadow_canary_found_total",
    "counter",
    "Planted differences that the comparison found, with their kind.",
    ("collection",),
    (Configured.COLLECTION,),
    moved_by=(By(CanaryFound),),
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
    "Time of a read as the application sees it; left_out is the holdout, a random share that is not shadowed.",
    ("verb", "slice"),
    (READS, Slice),
    SECONDS,
    moved_by=(By(ReadFinished, amount="seconds"),),
)
ROUTED: Final = MetricRow(
    "shadow_routed_reads_total",
    "counter",
    "Reads of collections with a share for the secondary (reads), by the store that answered and why.",
    ("collection", "store", "reason"),
    (Configured.COLLECTION, StoreName, Routed),
    moved_by=(By(ReadRouted),),
)
SHED: Final = MetricRow(
    "shadow_shed_total",
    "counter",
    "Shadow reads that were not done or not finished.",
    ("collection", "reason"),
    (Configured.COLLECTION, ShedReason),
    moved_by=(By(ReadShed),),
)
INCOMPARABLE: Final = MetricRow(
    "shadow_incomparable_total",
    "counter",
    "Comparisons that could decide neither equal nor different, by reason.",
    ("collection", "reason"),
    (Configured.COLLECTION, Incomparable),
    moved_by=(By(ComparisonUndecided),),
)
DEFERRED: Final = MetricRow(
    "shadow_deferred_writes_total",
    "counter",
    "Writes that wait in the journal after their answer, by reason.",
    ("collection", "reason"),
    (Configured.COLLECTION, Deferral),
    moved_by=(By(WriteDeferred),),
)
UNJOURNALED: Final = MetricRow(
    "shadow_unjournaled_writes_total",
    "counter",
    "Writes made without an intent (journal.on_failure: sync), by whether the secondary took them.",
    ("collection", "result"),
    (Configured.COLLECTION, Unjournaled),
    moved_by=(By(WriteUnjournaled, _unjournaled),),
)
DAMAGED: Final = MetricRow(
    "shadow_journal_damaged_total", "counter", "Damaged journals that were recovered.", moved_by=(By(JournalRecovered),)
)
HEALS: Final = MetricRow(
    "shadow_heals_total",
    "counter",
    "Repairs of a key, by what they found or did.",
    ("collection", "result"),
    (Configured.COLLECTION, (*sorted(HEALED), Healing.FAILED)),
    moved_by=(By(HealFinished),),
)
RELOADS: Final = MetricRow(
    "shadow_config_reloads_total",
    "counter",
    "Times the configuration was read again.",
    ("result",),
    (Reload,),
    moved_by=(By(ConfigReloaded, _reloaded),),
)
FAILURES: Final = MetricRow(
    "shadow_internal_failures_total",
    "counter",
    "Internal failures that were kept from the application, by component.",
    ("part",),
    (Component,),
    moved_by=(
        By(ComponentFailed),
        By(BackgroundTaskFailed, _component),
    ),
)
BACKGROUND_FAILURES: Final = MetricRow(
    "shadow_background_failures_total",
    "counter",
    "Failures of long-lived tasks and threads; the task starts again after each.",
    ("task",),
    (Background,),
    moved_by=(By(BackgroundTaskFailed),),
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
    (Configured.INDEX, DynamoCall),
    moved_by=(By(CapacityConsumed, amount="units"),),
)
THROTTLED: Final = MetricRow(
    "shadow_dynamo_throttled_requests_total",
    "counter",
    "Requests to DynamoDB that were throttled, repeated ones too; by a client that shadow made.",
    moved_by=(By(RequestThrottled),),
)
ABANDONED: Final = MetricRow(
    "shadow_calls_abandoned_total",
    "counter",
    "Calls of a store's client whose caller went away; they run on to the client's own time limits.",
    ("store",),
    (StoreName,),
    moved_by=(By(CallAbandoned),),
)
STUCK: Final = MetricRow(
    "shadow_clients_stuck_total",
    "counter",
    "Clients of a store that stopped answering, even to a ping; those that shadow made were replaced.",
    ("store",),
    (StoreName,),
    moved_by=(By(ClientStalled),),
)
FLIPS: Final = MetricRow(
    "shadow_flips_total",
    "counter",
    "Changes of primary, by result.",
    ("collection", "result"),
    (Configured.COLLECTION, FlipOutcome),
    moved_by=(By(Noted, _flip, when=_is_flip),),
)
SCANS: Final = MetricRow(
    "shadow_dynamo_scans_total",
    "counter",
    "Queries that had to scan a table, for no key or index serves them.",
    ("table",),
    (Configured.TABLE,),
    moved_by=(By(TableScanned, amount="scans"),),
)
SCANNED: Final = MetricRow(
    "shadow_dynamo_scan_items_read_total",
    "counter",
    "Items that scans have read.",
    ("table",),
    (Configured.TABLE,),
    moved_by=(By(TableScanned, amount="read"),),
)
SCANNED_OUT: Final = MetricRow(
    "shadow_dynamo_scan_items_returned_total",
    "counter",
    "Items that scans have returned, of those that they have read.",
    ("table",),
    (Configured.TABLE,),
    moved_by=(By(TableScanned, amount="returned"),),
)
OPEN_INTENTS: Final = MetricRow("shadow_journal_open_intents", "gauge", "Intents open in the journal.", ("collection",))
OLDEST_INTENT: Final = MetricRow(
    "shadow_journal_oldest_intent_seconds", "gauge", "Age of the oldest open intent; 0 with none open."
)
LANE_DEPTH: Final = MetricRow(
    "shadow_queue_depth", "gauge", "Pieces of work that wait or run in the work queue.", merge="sum"
)
LANE_CAPACITY: Final = MetricRow(
    "shadow_queue_capacity",
    "gauge",
    "Pieces of work that the work queue can hold.",
    merge="sum",
)
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
    "1 if the store, as a secondary, answers; 0 if it counts as down.",
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
    "shadow_flip_held_seconds", "gauge", "For how long the last flip paused the writes; 0 with none.", ("collection",)
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
    INCOMPARABLE,
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
    """Every metric that is exported, in the order of the manual's table."""
    return list(TABLE)
