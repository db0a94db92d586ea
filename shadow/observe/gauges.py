"""The gauges: read on request, from one snapshot."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from itertools import product

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shadow.model.background import Background
from shadow.model.phase import Phase, Route, StoreName
from shadow.observe.guard_metrics import READS_SHARE, WATCHED
from shadow.observe.metric_row import OTHER, MetricRow
from shadow.observe.metric_table import (
    BACKGROUND_UP,
    BUILD,
    BY_PATH,
    CANARY_LAST_FOUND,
    CONTROL_UP,
    DISAGREEMENTS,
    HELD,
    LANE_CAPACITY,
    LANE_DEPTH,
    LIST_VERSION,
    MEMBERS,
    OLDEST_INTENT,
    OPEN_INTENTS,
    ROUTE,
    SECONDARY_UP,
    WORKING,
)
from shadow.observe.relay_metrics import RELAY_LAG

__all__ = ["GaugeSnapshot", "Gauges", "Labels"]

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GaugeSnapshot:
    """The values of the gauges at one scrape. `open_intents` by collection; `oldest_intent_seconds` 0.0 with none open;
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
    """By (collection, kind, path); its creator limits its size."""
    control_up: bool = False
    members: int = 0
    disagreements: Collection[str] = ()
    """The collections on which processes disagree."""
    held: Mapping[str, float] = field(default_factory=dict)
    watched: Mapping[str, int] = field(default_factory=dict)
    """Of the collections whose flip is watched, as `WATCHED` says it."""
    relay_lag: Mapping[StoreName, float] = field(default_factory=dict)
    """Seconds, of the stores whose writers are relayed."""
    background_down: Collection[Background] = ()
    """The long-lived tasks that have failed and have not succeeded since."""


class Gauges(Collector):
    """The gauges, read on request."""

    def __init__(
        self,
        collections: tuple[str, ...],
        routes: Mapping[str, Route],
        read: Callable[[], GaugeSnapshot],
        failed: Callable[[Exception], None],
    ) -> None:
        self._collections = collections
        self._routes = routes
        self._read = read
        self._failed = failed

    def collect(self) -> Iterator[Metric]:
        yield family_of(BUILD, {(_version(), platform.python_version(), str(LIST_VERSION)): 1})
        try:
            snapshot = self._read()
        except Exception as error:
            self._failed(error)
            return
        open_intents = dict.fromkeys((*self._collections, OTHER), 0)
        for name, count in snapshot.open_intents.items():
            open_intents[name if name in open_intents else OTHER] += count
        yield family_of(OPEN_INTENTS, {(name,): count for name, count in open_intents.items()})
        yield family_of(OLDEST_INTENT, {(): snapshot.oldest_intent_seconds})
        yield family_of(LANE_DEPTH, {(): snapshot.lane_depth})
        yield family_of(LANE_CAPACITY, {(): snapshot.lane_capacity})
        yield family_of(SECONDARY_UP, {(name,): int(up) for name, up in snapshot.secondary_up.items()})
        yield family_of(CANARY_LAST_FOUND, {(name,): at for name, at in snapshot.canary_found.items()})
        yield family_of(WORKING, {(name,): int(works) for name, works in snapshot.comparison_working.items()})
        yield family_of(BY_PATH, snapshot.mismatches_by_path)
        yield family_of(CONTROL_UP, {(): int(snapshot.control_up)})
        yield family_of(MEMBERS, {(): snapshot.members})
        yield family_of(DISAGREEMENTS, {(name,): int(name in snapshot.disagreements) for name in self._collections})
        yield family_of(READS_SHARE, self._shares({**self._routes, **snapshot.routes}))
        yield family_of(WATCHED, {(name,): snapshot.watched.get(name, 0) for name in self._collections})
        yield family_of(HELD, {(name,): snapshot.held.get(name, 0.0) for name in self._collections})
        yield family_of(RELAY_LAG, {(name,): lag for name, lag in snapshot.relay_lag.items()})
        yield family_of(BACKGROUND_UP, {(each,): int(each not in snapshot.background_down) for each in Background})
        yield family_of(ROUTE, self._info({**self._routes, **snapshot.routes}))

    def _shares(self, routes: Mapping[str, Route]) -> dict[Labels, float]:
        return {(name,): routes[name].secondary_reads if name in routes else 0.0 for name in self._collections}

    def _info(self, routes: Mapping[str, Route]) -> dict[Labels, float]:
        current = {(name, route.primary, route.phase) for name, route in routes.items()}
        places = product(self._collections, StoreName, Phase)
        return {place: int(place in current) for place in places if place[0] in routes}


def family_of(row: MetricRow, values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(row.name, row.help, labels=row.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _version() -> str:
    try:
        return metadata.version("shadow")
    except metadata.PackageNotFoundError:
        return "unknown"
