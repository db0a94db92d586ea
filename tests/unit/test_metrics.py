"""Metrics: at zero where that is needed, bounded, right, and documented by the table that makes them."""

from __future__ import annotations

import copy
import functools
import re
import threading
import time
import timeit
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from shadow.model.background import Background
from shadow.model.events import (
    BackgroundTaskFailed,
    CallRefused,
    CanaryFound,
    CanaryInjected,
    ComparisonFinished,
    ComparisonUndecided,
    ConfigReloaded,
    HealFinished,
    JournalRecovered,
    MismatchConfirmed,
    NoiseMeasured,
    NotPortable,
    OperationFinished,
    OutOfBandWriteCounted,
    OutOfBandWriteRelayed,
    ReadFinished,
    ReadRouted,
    ReadShed,
    RouteChanged,
    RuleApplied,
    WriteDeferred,
    WriteUnjournaled,
    noted,
)
from shadow.model.operation import READS, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, Route, StoreName
from shadow.model.verdict import (
    Bypass,
    Deferral,
    Difference,
    Healing,
    Incomparable,
    Kind,
    Mismatch,
    Routed,
    ShedReason,
    Slice,
    Verdict,
)
from shadow.observe.gauges import GaugeSnapshot
from shadow.observe.log import Event as LogEvent
from shadow.observe.metric_row import Component, DynamoCall
from shadow.observe.metric_table import (
    COMPARISONS,
    DEFERRED,
    EXCUSED,
    FAILURES,
    HEALS,
    LIST_VERSION,
    MISMATCHES,
    NOISE,
    OPERATIONS,
    RELOADS,
    SHED,
    metric_table,
)
from shadow.observe.metrics import Metrics
from shadow.observe.series import CounterSeries
from tests.support import manual, metric_list
from tests.support.cases import each_of

_TOTALS = {
    "outcomes": OPERATIONS,
    "verdicts": COMPARISONS,
    "kinds": MISMATCHES,
    "excused": EXCUSED,
    "noise": NOISE,
    "shed": SHED,
    "deferred": DEFERRED,
    "heals": HEALS,
    "reloads": RELOADS,
    "failures": FAILURES,
}
"""What `totals` sums by the last label."""

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    return made()


def made(gauges: Callable[[], GaugeSnapshot] = GaugeSnapshot) -> Metrics:
    tables, rules = {"users": ["email-index"]}, [("users", "last-seen")]
    return Metrics(["users", "documents"], tables=tables, rules=rules, gauges=gauges)


def series(metrics: Metrics) -> Series:
    return parsed(metrics.render()[0].decode())


@functools.lru_cache(maxsize=2)
def parsed(text: str) -> Series:
    """Once for all that is asked of it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return series(metrics)[name, frozenset(labels.items())]


def confirmed(collection: str, verb: Verb, kind: Kind) -> MismatchConfirmed:
    return MismatchConfirmed(Mismatch(collection, verb, kind, 1, (Difference(kind, "a"),)))


def use(metrics: Metrics) -> None:
    """Every counter once."""
    metrics.count(OperationFinished("users", Verb.FIND_ONE, StoreName.MONGO, Role.PRIMARY, Outcome.ACKED, 0.003))
    metrics.count(ComparisonFinished("users", Verb.FIND_ONE, Verdict.MATCH))
    metrics.count(ComparisonFinished("users", Verb.UPDATE_ONE, Verdict.MATCH))
    metrics.count(confirmed("users", Verb.FIND_ONE, Kind.VALUE))
    metrics.count(RuleApplied("users", "last-seen"))
    metrics.count(ReadRouted("users", StoreName.DYNAMO, Routed.SHARE))
    metrics.count(ReadShed("users", Verb.FIND, ShedReason.LANE_FULL))
    metrics.count(ComparisonUndecided("users", Verb.FIND, Incomparable.ROUNDING))
    metrics.count(NotPortable("users", Verb.FIND, "other"))
    metrics.count(CallRefused("users", "other"))
    metrics.count(WriteDeferred("users", Deferral.DEADLINE))
    metrics.count(HealFinished("users", Healing.COPIED))
    metrics.count(WriteUnjournaled("users", taken=False))
    metrics.count(JournalRecovered())
    metrics.count(OutOfBandWriteCounted("users", Bypass.CHANGED))
    metrics.count(OutOfBandWriteRelayed("users", Bypass.CHANGED))
    metrics.count(ConfigReloaded(ok=True))
    metrics.internal_failure(Component.LANE)
    metrics.count(BackgroundTaskFailed(Background.RECOVERY, OSError(), new=True))
    metrics.capacity("users", "email-index", DynamoCall.QUERY, 1.5)
    metrics.scanned("users", 1, 20, 3)
    metrics.throttled()
    metrics.abandoned[StoreName.MONGO]()
    metrics.stuck[StoreName.MONGO]()
    metrics.count(noted(LogEvent.FLIP_DONE, collection="users"))
    metrics.count(noted(LogEvent.RAMP_STEPPED_BACK, collection="users"))
    metrics.count(noted(LogEvent.FLIP_TAKEN_BACK, collection="users"))
    metrics.count(noted(LogEvent.HOOK_FAILED, hook="pager", on="after_abort"))
    metrics.count(NoiseMeasured("users", Verb.FIND, Verdict.MATCH))
    metrics.count(CanaryInjected("users"))
    metrics.count(CanaryFound("users"))
    metrics.count(ReadFinished(Verb.FIND_ONE, Slice.LEFT_OUT, 0.002))


def test_every_hook_moves_its_series_by_one(metrics: Metrics) -> None:
    use(metrics)
    users = {"collection": "users"}
    operation = {"verb": "find_one", "store": "mongo", "role": "primary", "outcome": "acked"}
    assert value(metrics, "shadow_operations_total", **users, **operation) == 1
    answered = {**users, "family": "read", "store": "mongo", "role": "primary"}
    assert value(metrics, "shadow_operation_seconds_count", **answered) == 1
    assert value(metrics, "shadow_operation_seconds_sum", **answered) == 0.003
    assert value(metrics, "shadow_operation_seconds_bucket", **answered, le="0.0025") == 0
    assert value(metrics, "shadow_operation_seconds_bucket", **answered, le="0.005") == 1
    assert value(metrics, "shadow_comparisons_total", **users, verb="find_one", verdict="match") == 1
    assert value(metrics, "shadow_write_comparisons_total", **users, verb="update_one", verdict="match") == 1
    assert value(metrics, "shadow_mismatches_total", **users, kind="value") == 1
    assert value(metrics, "shadow_excused_total", **users, rule="last-seen") == 1
    assert value(metrics, "shadow_shed_total", **users, reason="lane_full") == 1
    assert value(metrics, "shadow_deferred_writes_total", **users, reason="deadline") == 1
    assert value(metrics, "shadow_heals_total", **users, result="copied") == 1
    assert value(metrics, "shadow_unjournaled_writes_total", **users, result="doubted") == 1
    assert value(metrics, "shadow_journal_damaged_total") == 1
    assert value(metrics, "shadow_config_reloads_total", result="ok") == 1
    assert value(metrics, "shadow_internal_failures_total", part="lane") == 1
    capacity = {"table": "users", "index": "email-index", "verb": "query"}
    assert value(metrics, "shadow_dynamo_capacity_units_total", **capacity) == 1.5


def test_what_is_there_is_at_zero_and_what_was_counted_stays(metrics: Metrics) -> None:
    before = series(metrics)
    assert not any(
        number for (name, _), number in before.items() if name not in ("shadow_build_info", "shadow_background_up")
    )
    use(metrics)
    after = series(metrics)
    assert after.keys() >= before.keys()
    moved = {name for (name, _), number in after.items() if number and name.endswith("_total")}
    assert moved == {row.name for row in metric_table() if row.type == "counter"}


def test_a_series_that_an_alert_watches_is_at_zero_before_it_can_rise(metrics: Metrics) -> None:
    """What is counted first of a verb brings all its verdicts and outcomes with it, so that a later rise is seen."""

    def at_zero(name: str, label: str, values: Iterable[str], **labels: str) -> bool:
        told = series(metrics)
        return all((name, frozenset({**labels, label: each}.items())) in told for each in values)

    users = {"collection": "users"}
    assert at_zero("shadow_mismatches_total", "kind", Kind, **users)
    assert at_zero("shadow_out_of_band_writes_total", "kind", Bypass, **users)
    for verb in Verb:
        metrics.count(ComparisonFinished("users", verb, Verdict.MATCH))
        metrics.count(OperationFinished("users", verb, StoreName.DYNAMO, Role.SECONDARY, Outcome.ACKED, 0.1))
    for verb in Verb:
        name = "shadow_comparisons_total" if verb in READS else "shadow_write_comparisons_total"
        labels = {"verb": verb, "store": "dynamo", "role": "secondary", **users}
        assert at_zero(name, "verdict", Verdict, verb=verb, **users)
        assert at_zero("shadow_operations_total", "outcome", Outcome, **labels)
    metrics.create_all()
    assert at_zero("shadow_noise_comparisons_total", "verb", READS, verdict="mismatch", collection="other")


def test_a_collection_at_rest_has_few_series_and_the_manual_tells_how_many() -> None:
    """With a table of its own, everything that the gauges can say of it, and no index and no comparison rule."""

    def rest(*names: str) -> int:
        route = Route(StoreName.MONGO, Phase.SHADOW)
        gauges = GaugeSnapshot(
            dict.fromkeys(names, 1),
            routes=dict.fromkeys(names, route),
            canary_found=dict.fromkeys(names, 1.0),
            comparison_working=dict.fromkeys(names, True),
        )
        metrics = Metrics(names, tables={name: [] for name in names}, gauges=lambda: gauges)
        return len(series(metrics))

    eight = [f"c{number}" for number in range(8)]
    each = rest(*eight) - rest(*eight[:-1])
    assert each == (rest(*eight) - rest()) / 8
    assert each <= 150
    text = " ".join(manual.text("metrics").split())
    told = re.search(r"has about (\d+) series \(never more than 150\).* eight of them make about ([\d,]+)", text)
    assert told is not None
    assert int(told[1]) == pytest.approx(each, rel=0.1)
    assert int(told[2].replace(",", "")) == pytest.approx(rest(*eight), rel=0.1)


def test_what_is_not_configured_counts_as_other() -> None:
    metrics = made(lambda: GaugeSnapshot(open_intents={"hunter": 3, "users": 1}))
    before = series(metrics).keys()
    for i in range(100):
        name = f"hunter{i}"
        metrics.count(OperationFinished(name, Verb.FIND, StoreName.DYNAMO, Role.SECONDARY, Outcome.UNKNOWN, 1.0))
        metrics.count(ComparisonFinished(name, Verb.FIND, Verdict.SHED))
        metrics.count(confirmed(name, Verb.FIND, Kind.ORDER))
        metrics.count(RuleApplied("users", name))
        metrics.count(ReadRouted(name, StoreName.DYNAMO, Routed.SHARE))
        metrics.count(ReadShed(name, Verb.FIND, ShedReason.CLOSING))
        metrics.count(NotPortable(name, Verb.FIND, "$where"))
        metrics.count(NotPortable("users", Verb.FIND, name))
        metrics.count(CallRefused(name, "$where"))
        metrics.count(CallRefused("users", name))
        metrics.count(WriteDeferred(name, Deferral.CLOSING))
        metrics.count(HealFinished(name, Healing.FAILED))
        metrics.internal_failure(name)
        metrics.capacity(name, "", "get_item", 1)
        metrics.capacity("users", name, "get_item", 1)
        metrics.capacity("users", "", name, 1)
        metrics.count(RouteChanged(name, Route(StoreName.MONGO, Phase.OFF)))
    names = {dict(labels).get("collection") for _, labels in series(metrics)}
    assert names == {None, "users", "documents", "other"}
    assert series(metrics).keys() >= before
    assert "hunter" not in metrics.render()[0].decode()
    assert value(metrics, "shadow_comparisons_total", collection="other", verb="find", verdict="shed") == 100
    assert value(metrics, "shadow_internal_failures_total", part="other") == 100
    assert value(metrics, "shadow_dynamo_capacity_units_total", table="other", index="other", verb="get_item") == 200
    assert value(metrics, "shadow_dynamo_capacity_units_total", table="users", index="", verb="other") == 100
    assert value(metrics, "shadow_journal_open_intents", collection="other") == 3


def test_gauges_are_read_at_each_scrape() -> None:
    depth = iter([3, 4])
    metrics = made(
        lambda: GaugeSnapshot({"users": 2}, 1.5, next(depth), 10, {}, {StoreName.DYNAMO: False, StoreName.MONGO: True})
    )
    first = series(metrics)
    assert first["shadow_queue_depth", frozenset()] == 3
    assert first["shadow_queue_capacity", frozenset()] == 10
    assert first["shadow_journal_oldest_intent_seconds", frozenset()] == 1.5
    assert first["shadow_journal_open_intents", frozenset({("collection", "users")})] == 2
    assert first["shadow_journal_open_intents", frozenset({("collection", "documents")})] == 0
    assert first["shadow_secondary_up", frozenset({("store", "dynamo")})] == 0
    assert first["shadow_secondary_up", frozenset({("store", "mongo")})] == 1
    assert series(metrics)["shadow_queue_depth", frozenset()] == 4


def test_gauges_that_cannot_be_read_are_counted_and_cost_no_other_metric() -> None:
    def broken() -> GaugeSnapshot:
        raise RuntimeError("hunter2")

    metrics = made(broken)
    use(metrics)
    text = metrics.render()[0].decode()
    assert "shadow_queue_depth" not in text
    assert "hunter2" not in text
    assert value(metrics, "shadow_internal_failures_total", part="gauges") >= 1
    assert value(metrics, "shadow_config_reloads_total", result="ok") == 1


def test_one_route_of_a_collection_is_one_and_the_others_are_zero() -> None:
    snapshot = GaugeSnapshot()
    metrics = made(lambda: snapshot)

    def current() -> set[frozenset[tuple[str, str]]]:
        return {labels for (name, labels), on in series(metrics).items() if name == "shadow_route_info" and on}

    def route(primary: str, phase: str) -> frozenset[tuple[str, str]]:
        return frozenset({"collection": "users", "primary": primary, "phase": phase}.items())

    metrics.count(RouteChanged("users", Route(StoreName.MONGO, Phase.SHADOW)))
    assert current() == {route("mongo", "shadow")}
    assert sum(name == "shadow_route_info" for name, _ in series(metrics)) == 6
    snapshot = GaugeSnapshot(routes={"users": Route(StoreName.DYNAMO, Phase.OFF)})
    assert current() == {route("dynamo", "off")}


def test_several_metrics_live_in_one_process_and_leave_the_global_registry_alone(metrics: Metrics) -> None:
    other = Metrics(["users"])
    metrics.count(ComparisonFinished("users", Verb.FIND_ONE, Verdict.MATCH))
    assert value(metrics, "shadow_comparisons_total", collection="users", verb="find_one", verdict="match") == 1
    assert value(other, "shadow_comparisons_total", collection="users", verb="find_one", verdict="match") == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("shadow")]


def test_the_table_documents_exactly_what_is_exported() -> None:
    metrics = made(
        lambda: GaugeSnapshot(
            secondary_up={StoreName.DYNAMO: True},
            relay_lag={StoreName.MONGO: 0.0},
            canary_found={"users": 1.0},
            comparison_working={"users": True},
            mismatches_by_path={("users", "value", "a"): 1},
        )
    )
    metrics.count(RouteChanged("users", Route(StoreName.MONGO, Phase.SHADOW)))
    metrics.create_all()
    families = list(text_string_to_metric_families(metrics.render()[0].decode()))
    exported = {}
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exported[name] = (family.type, family.documentation, labels)
    documented = {row.name: (row.type, row.help, set(row.labels)) for row in metric_table()}
    assert exported == documented


def test_names_and_helps_follow_the_conventions() -> None:
    rows = metric_table()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.name.startswith("shadow_")
        assert row.name.endswith("_total") == (row.type == "counter")
        assert row.help.endswith(".")
        assert not any(unit in row.name for unit in ("_ms", "milli", "minutes"))
        assert bool(row.buckets) == (row.type == "histogram")
        assert list(row.buckets) == sorted(row.buckets)


def test_the_exposition_is_text_and_openmetrics_where_it_is_asked_for(metrics: Metrics) -> None:
    use(metrics)
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    assert b"_created" not in body
    body, content_type = metrics.render("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert list(openmetrics_families(body.decode()))


def test_totals_add_up(metrics: Metrics) -> None:
    use(metrics)
    use(metrics)
    totals = metrics.totals()
    assert (totals["operations"], totals["comparisons"], totals["mismatches"]) == (2, 2, 2)
    assert totals["verdicts"]["match"] == 2
    assert totals["kinds"]["value"] == 2
    assert totals["failures"]["lane"] == 2
    assert totals["shed"]["lane_full"] == 2


def test_totals_are_those_of_every_series_and_cost_what_was_counted(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of a hundred collections asks for them with each heartbeat."""
    use(metrics)
    expected: dict[str, dict[str, int]] = {}
    for name, row in _TOTALS.items():
        sums = expected.setdefault(name, {})
        for labels, count in metrics._counters[row.name].counts():
            sums[labels[-1]] = sums.get(labels[-1], 0) + int(count)
    monkeypatch.setattr(CounterSeries, "labels", None)
    assert {name: each for name, each in metrics.totals().items() if name in _TOTALS} == expected


def test_no_count_is_lost_between_threads(metrics: Metrics) -> None:
    def work() -> None:
        for _ in range(2000):
            metrics.count(ComparisonFinished("users", Verb.FIND, Verdict.MATCH))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.totals()["verdicts"]["match"] == 8000


def test_the_hot_hooks_cost_microseconds(metrics: Metrics) -> None:
    """About 1.5 us here; the bound is ten times that, for machines that are slow. Of this thread's own time."""

    def once() -> None:
        metrics.count(OperationFinished("users", Verb.FIND_ONE, StoreName.MONGO, Role.PRIMARY, Outcome.ACKED, 0.0007))

    assert min(timeit.repeat(once, timer=time.thread_time, number=1000, repeat=5)) / 1000 < 15e-6


def test_gauges_that_cannot_be_published_are_counted(
    metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "gone"))
    metrics.publish()
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    assert value(metrics, "shadow_internal_failures_total", part="gauges") == 1


@functools.cache
def the_list() -> metric_list.List:
    return metric_list.listed()


def listed() -> metric_list.List:
    """A copy, to be changed."""
    return copy.deepcopy(the_list())


# --- the documented list ----------------------------------------------------------------------------------------


def test_nothing_is_gone_from_the_documented_list_and_what_is_new_is_written_into_it() -> None:
    promised, has = metric_list.written(), listed()
    assert metric_list.missing(promised, has) == [], "raise metric_table.LIST_VERSION"
    assert promised == has, "run: python -m tests.support.metric_list"


@each_of(
    ("change", "says"),
    [
        (lambda each: each.pop("shadow_queue_depth"), "shadow_queue_depth is gone"),
        (lambda each: each.update(shadow_depth=each.pop("shadow_queue_depth")), "shadow_queue_depth is gone"),
        (lambda each: each["shadow_queue_depth"].update(type="counter"), "shadow_queue_depth: another type"),
        (lambda each: each["shadow_queue_depth"]["labels"].append("host"), "shadow_queue_depth: another labels"),
        (
            lambda each: each["shadow_shed_total"]["values"]["reason"].remove("lane_full"),
            'shadow_shed_total: no reason="lane_full"',
        ),
        (lambda each: each["shadow_read_seconds"]["buckets"].remove(0.001), "shadow_read_seconds: no bucket 0.001"),
    ],
)
def test_what_is_removed_renamed_or_labelled_otherwise_wants_another_version(change, says: str) -> None:
    has = listed()
    change(has)
    assert metric_list.missing(listed(), has) == [says]


def test_what_is_added_wants_none() -> None:
    less = listed()
    del less["shadow_queue_depth"]
    less["shadow_shed_total"]["values"]["reason"].remove("lane_full")
    assert metric_list.missing(less, listed()) == []


def test_the_version_of_the_list_is_exported_and_documented(metrics: Metrics) -> None:
    assert f'metrics="{LIST_VERSION}"' in metrics.render()[0].decode()
    assert f"This list of metrics is version {LIST_VERSION} " in manual.text("metrics")


def test_every_counter_and_histogram_names_the_events_that_move_it_and_gauges_name_none() -> None:
    for row in metric_table():
        assert bool(row.moved_by) == (row.type != "gauge"), row.name
