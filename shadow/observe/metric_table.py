"""The table of the metrics: every one that is exported, its labels, and the events that move it."""

from __future__ import annotations

from typing import Final

from shadow.model.background import Background
from shadow.model.events import (
    BackgroundTaskFailed,
    CallAbandoned,
    CallRefused,
    CanaryFound,
    CanaryInjected,
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
    NotPortable,
    OperationFinished,
    OutOfBandWriteCounted,
    ReadFinished,
    ReadRouted,
    ReadShed,
    RuleApplied,
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
from shadow.observe.dynamo_metrics import BY_DYNAMO, BY_SCANS
from shadow.observe.guard_metrics import GUARDED
from shadow.observe.metric_labels import (
    component_labels,
    family_labels,
    flip_labels,
    is_flip,
    of_read,
    of_write,
    reload_labels,
    unjournaled_labels,
)
from shadow.observe.metric_row import (
    SECONDS,
    By,
    Component,
    Configured,
    Family,
    FlipOutcome,
    MetricRow,
    Reload,
)
from shadow.observe.relay_metrics import RELAY_LAG, RELAYED

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
    "NOT_PORTABLE",
    "OLDEST_INTENT",
    "OPEN_INTENTS",
    "OPERATIONS",
    "READ_SECONDS",
    "REFUSED",
    "RELOADS",
    "ROUTE",
    "ROUTED",
    "SECONDARY_UP",
    "SHED",
    "STUCK",
    "TABLE",
    "UNJOURNALED",
    "WORKING",
    "WRITE_COMPARISONS",
    "metric_table",
]

LIST_VERSION: Final = 3
"""Of the documented list of metrics. Within a version, metrics and label values are only added."""

_WRITES: Final = tuple(verb for verb in Verb if verb not in READS)
_ONE_READ: Final = {"verb": (Verb.FIND_ONE,)}
"""At rest a collection has the zeros of one verb, so that their sum is there."""


OPERATIONS: Final = MetricRow(
    "shadow_operations_total",
    "counter",
    "Operations that a store has answered.",
    ("collection", "verb", "store", "role", "outcome"),
    (Configured.COLLECTION, Verb, StoreName, Role, Outcome),
    rest=_ONE_READ,
    together=("outcome",),
    moved_by=(By(OperationFinished, amount="count"),),
)
LATENCY: Final = MetricRow(
    "shadow_operation_seconds",
    "histogram",
    "Time that a store took to answer, by family of verbs (read, write).",
    ("collection", "family", "store", "role"),
    (Configured.COLLECTION, Family, StoreName, Role),
    SECONDS,
    rest={"family": ()},
    moved_by=(By(OperationFinished, family_labels, amount="seconds", times="count"),),
)
COMPARISONS: Final = MetricRow(
    "shadow_comparisons_total",
    "counter",
    "Comparisons of reads, by verdict.",
    ("collection", "verb", "verdict"),
    (Configured.COLLECTION, READS, Verdict),
    rest=_ONE_READ,
    together=("verdict",),
    moved_by=(By(ComparisonFinished, amount="count", when=of_read),),
)
WRITE_COMPARISONS: Final = MetricRow(
    "shadow_write_comparisons_total",
    "counter",
    "Comparisons of the result of a write in both stores, by verdict.",
    ("collection", "verb", "verdict"),
    (Configured.COLLECTION, _WRITES, Verdict),
    rest={"verb": (Verb.UPDATE_ONE,)},
    together=("verdict",),
    moved_by=(By(ComparisonFinished, amount="count", when=of_write),),
)
MISMATCHES: Final = MetricRow(
    "shadow_mismatches_total",
    "counter",
    "Confirmed mismatches by kind.",
    ("collection", "kind"),
    (Configured.COLLECTION, Kind),
    exemplars=True,
    moved_by=(By(MismatchConfirmed, ("found.collection", "found.kind")),),
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
    rest=_ONE_READ,
    together=("verdict",),
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
    rest={"reason": (Routed.SHARE,)},
    together=("reason",),
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
NOT_PORTABLE: Final = MetricRow(
    "shadow_not_portable_total",
    "counter",
    "Reads and writes that only MongoDB can do, by the operator or option that DynamoDB does not support.",
    ("collection", "operator"),
    (Configured.OPERATOR,),
    moved_by=(By(NotPortable),),
)
REFUSED: Final = MetricRow(
    "shadow_refused_calls_total",
    "counter",
    "Calls that were refused because DynamoDB, the primary, does not support them, by the operator or option, without "
    "those that accept_not_portable names.",
    ("collection", "operator"),
    (Configured.OPERATOR,),
    moved_by=(By(CallRefused),),
)
DEFERRED: Final = MetricRow(
    "shadow_deferred_writes_total",
    "counter",
    "Writes that wait in the journal after their answer, by reason.",
    ("collection", "reason"),
    (Configured.COLLECTION, Deferral),
    exemplars=True,
    moved_by=(By(WriteDeferred),),
)
UNJOURNALED: Final = MetricRow(
    "shadow_unjournaled_writes_total",
    "counter",
    "Writes made without an intent (journal.on_failure: sync), by whether the secondary took them.",
    ("collection", "result"),
    (Configured.COLLECTION, Unjournaled),
    moved_by=(By(WriteUnjournaled, unjournaled_labels),),
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
    exemplars=True,
    moved_by=(By(HealFinished),),
)
RELOADS: Final = MetricRow(
    "shadow_config_reloads_total",
    "counter",
    "Times the configuration was read again.",
    ("result",),
    (Reload,),
    moved_by=(By(ConfigReloaded, reload_labels),),
)
FAILURES: Final = MetricRow(
    "shadow_internal_failures_total",
    "counter",
    "Internal failures that were kept from the application, by component.",
    ("part",),
    (Component,),
    moved_by=(
        By(ComponentFailed),
        By(BackgroundTaskFailed, component_labels),
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
    moved_by=(By(Noted, flip_labels, when=is_flip),),
)
OPEN_INTENTS: Final = MetricRow("shadow_journal_open_intents", "gauge", "Intents open in the journal.", ("collection",))
OLDEST_INTENT: Final = MetricRow(
    "shadow_journal_oldest_intent_seconds", "gauge", "Age of the oldest open intent; 0 with none open."
)
LANE_DEPTH: Final = MetricRow(
    "shadow_queue_depth", "gauge", "Pieces of work that wait or run in the work queue.", merge="sum"
)
LANE_CAPACITY: Final = MetricRow(
    "shadow_queue_capacity", "gauge", "Pieces of work that the work queue can hold.", merge="sum"
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
    RELAYED,
    RELAY_LAG,
    NOISE,
    CANARY_SOUGHT,
    CANARY_FOUND,
    CANARY_LAST_FOUND,
    WORKING,
    READ_SECONDS,
    ROUTED,
    SHED,
    INCOMPARABLE,
    NOT_PORTABLE,
    REFUSED,
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
    *GUARDED,
    RELOADS,
    FAILURES,
    BACKGROUND_FAILURES,
    BACKGROUND_UP,
    *BY_DYNAMO,
    ABANDONED,
    STUCK,
    *BY_SCANS,
    BUILD,
)


def metric_table() -> list[MetricRow]:
    """Every metric that is exported, in the order of the manual's table."""
    return list(TABLE)
