"""Through a meter of OpenTelemetry: every metric that Prometheus shows has a twin with the same value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from shadow.building import make_observation
from shadow.config import CollectionSettings, ObserveSettings, Settings
from shadow.model.events import ComparisonFinished, OperationFinished
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, Route, StoreName
from shadow.model.verdict import Verdict
from shadow.observe.gauges import GaugeSnapshot
from shadow.observe.metric_table import metric_table
from shadow.observe.metrics import Metrics, Output
from shadow.traces.meters import Meters, meter_name
from tests.unit.test_metrics import Series, series, use

FOUND = OperationFinished("users", Verb.FIND, StoreName.DYNAMO, Role.SECONDARY, Outcome.ACKED, 0.003, 5)


class Reader:
    """A provider whose only reader keeps what it collects."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def series(self) -> Series:
        """What it collects now, by the names that Prometheus has for it."""
        found: Series = {}
        for metric in self._metrics():
            row = next(row for row in metric_table() if meter_name(row.name) == metric.name)
            assert (metric.description, metric.unit) == (row.help, "s" if row.name.endswith("_seconds") else "")
            for point in metric.data.data_points:
                labels = frozenset(point.attributes.items())
                assert (row.name, labels) not in found, "twice"
                if row.type != "histogram":
                    found[row.name, labels] = point.value
                    continue
                found[f"{row.name}_count", labels], found[f"{row.name}_sum", labels] = point.count, point.sum
                assert point.explicit_bounds == row.buckets
                for place, bound in enumerate([*row.buckets, float("inf")]):
                    text = "+Inf" if bound == float("inf") else str(bound)
                    found[f"{row.name}_bucket", labels | {("le", text)}] = sum(point.bucket_counts[: place + 1])
        return found

    def _metrics(self) -> Iterator[Any]:
        data = self._reader.get_metrics_data()
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                assert scope.scope.name == "shadow"
                yield from scope.metrics


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.provider.shutdown()


def made(reader: Reader, *, exposed: bool = True) -> Metrics:
    gauges = GaugeSnapshot(
        {"users": 3},
        1.5,
        7,
        10,
        {"users": Route(StoreName.MONGO, Phase.SHADOW)},
        {StoreName.DYNAMO: True},
        canary_found={"users": 12.0},
        comparison_working={"users": True},
        mismatches_by_path={("users", "value", "a"): 1},
        relay_lag={StoreName.MONGO: 2.0},
    )
    tables, rules = {"users": ["email-index"]}, [("users", "last-seen")]
    metrics = Metrics(
        ["users", "documents"],
        tables=tables,
        rules=rules,
        gauges=lambda: gauges,
        output=Output(Meters(reader.provider), exposed=exposed),
    )
    metrics.open()
    return metrics


def test_every_metric_has_a_twin_with_the_same_value(reader: Reader) -> None:
    metrics = made(reader)
    for number in range(3):
        use(metrics)
        metrics.count(OperationFinished(f"x{number}", Verb.FIND, StoreName.MONGO, Role.PRIMARY, Outcome.ACKED, 99.0))
        metrics.count(FOUND)
        shown = series(metrics)
        # A histogram that nothing was observed in is shown by Prometheus alone.
        still = {labels for (name, labels), count in shown.items() if name == "shadow_read_seconds_count" and not count}
        shown = {
            (name, labels): value
            for (name, labels), value in shown.items()
            if not (name.startswith("shadow_read_seconds") and frozenset(e for e in labels if e[0] != "le") in still)
        }
        twins = reader.series()
        assert twins.keys() == shown.keys()
        assert twins == pytest.approx(shown)
    names = {name.removesuffix("_count").removesuffix("_sum").removesuffix("_bucket") for name, _ in reader.series()}
    assert names == {row.name for row in metric_table()}


def test_without_prometheus_there_is_no_exposition_and_all_is_counted(reader: Reader) -> None:
    metrics = made(reader, exposed=False)
    use(metrics)
    assert series(metrics) == {}
    assert metrics.totals()["comparisons"] == 1
    labels = {"collection": "users", "family": "read", "store": "mongo", "role": "primary"}
    assert reader.series()["shadow_operation_seconds_count", frozenset(labels.items())] == 1


def test_what_is_closed_falls_in_no_sum_and_two_of_a_process_are_added_up(reader: Reader) -> None:
    def matches() -> float:
        labels = {"collection": "users", "verb": "find_one", "verdict": "match"}
        return reader.series()["shadow_comparisons_total", frozenset(labels.items())]

    def depth() -> Any:
        return reader.series().get(("shadow_queue_depth", frozenset()))

    match = ComparisonFinished("users", Verb.FIND_ONE, Verdict.MATCH)
    one, other = made(reader), made(reader)
    one.count(match)
    other.count(match)
    assert (matches(), depth()) == (2, 14)
    one.close()
    one.close()
    assert (matches(), depth()) == (2, 7)
    other.count(match)
    assert matches() == 3
    one.open()
    one.open()
    one.count(match)
    assert (matches(), depth()) == (4, 14)
    one.close()
    other.close()
    assert (matches(), depth()) == (4, None)


def test_a_meter_that_fails_is_counted_and_costs_no_other_metric(reader: Reader) -> None:
    meters = Meters(reader.provider)

    def broken(*arguments: Any) -> None:
        raise RuntimeError("hunter2")

    meters.histogram = lambda *arguments: broken  # type: ignore[method-assign, assignment]
    metrics = Metrics(["users"], output=Output(meters))
    metrics.count(FOUND)
    assert metrics.totals()["operations"] == 5
    assert metrics.totals()["failures"]["meters"] == 1
    seconds = [value for (name, _), value in series(metrics).items() if name == "shadow_operation_seconds_count"]
    assert seconds == [5]


@pytest.mark.parametrize(
    ("output", "exposed", "metered"), [("prometheus", True, False), ("otel", False, True), ("both", True, True)]
)
def test_the_setting_says_where_they_are_shown(
    output: str, exposed: bool, metered: bool, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "get_meter_provider", lambda: reader.provider)
    entries = {"users": CollectionSettings()}
    settings = Settings(observe=ObserveSettings(metrics=output), collections=entries)
    metrics = make_observation(settings, GaugeSnapshot, lambda name: False, lambda name: False).metrics
    metrics.open()
    assert (bool(series(metrics)), bool(reader.series())) == (exposed, metered)
    metrics.close()
