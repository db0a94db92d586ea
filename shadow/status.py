"""Collects what one process knows by itself, without document content."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, Protocol

from shadow.compare.rules import Excuses
from shadow.config import Settings
from shadow.fleet.history import SharedHistory
from shadow.fleet.portability import SharedPortability
from shadow.fleet.relay import Relay
from shadow.fleet.status import (
    CollectionRoute,
    FindingsStatus,
    JournalStatus,
    ProcessStatus,
    QueueStatus,
    StoreStatus,
)
from shadow.host.steady import steady
from shadow.model.health import IndexHealth
from shadow.model.phase import Route, StoreName
from shadow.observe.findings_file import SharedFindings
from shadow.observe.metrics import Metrics
from shadow.observe.report import Report
from shadow.reads.bypass_watch import WriterWatch
from shadow.reads.unconfirmed import SharedUnconfirmed
from shadow.rights import RightsWatch
from shadow.runtime import Runtime, RuntimeContext
from shadow.stores.base import Scanning, Store
from shadow.stores.within import within
from shadow.surface.indexing.index_report import IndexReport
from shadow.surface.indexing.index_upkeep import IndexUpkeep

__all__ = ["Observed", "check", "own_status"]

_LOOK_EVERY: Final = 30.0
"""Seconds after which MongoDB is asked again which indexes a collection has."""

_LONGEST: Final = 4.0
"""Seconds to wait for the control store."""


class Observed(Protocol):
    """What the status is collected from."""

    settings: Settings
    parts: RuntimeContext
    report: Report
    excuses: Excuses
    metrics_registry: Metrics
    shared_findings: SharedFindings
    suspects: SharedUnconfirmed
    rights: RightsWatch
    writer_watch: WriterWatch | None
    relays: Mapping[StoreName, Relay]
    started: float
    indexes: IndexUpkeep
    index_report: IndexReport
    portability: SharedPortability
    history: SharedHistory

    def runtime(self) -> Runtime: ...

    def routes(self) -> dict[str, Route]: ...


async def own_status(engine: Observed) -> ProcessStatus:
    """What this process knows by itself."""
    runtime = engine.runtime()
    failure = await check(runtime.refresh(), 5.0)
    await _look_at_indexes(engine)
    await check(engine.portability.exchange(), _LONGEST)
    await check(engine.history.exchange(), _LONGEST)
    stats, findings, metrics = runtime.stats, engine.shared_findings, engine.metrics_registry
    counts, slower = await findings.summary(), engine.settings.slower()
    return ProcessStatus(
        {name: CollectionRoute.of(route) for name, route in engine.routes().items()},
        {
            str(name): StoreStatus(runtime.breakers[name].closed, store.describe())
            for name, store in runtime.stores.items()
        },
        JournalStatus(
            engine.settings.journal.place,
            failure,
            dict(stats.open_by_collection),
            dict(stats.deferred_by_collection),
            dict(stats.refused_by_collection),
            round(stats.oldest_age, 3),
            {name: _moment(since) for name, since in stats.unclean.items()},
            dict(stats.late_by_collection),
        ),
        {
            "writes": QueueStatus(runtime.writes.depth, runtime.writes.capacity),
            "reads": QueueStatus(runtime.reads.depth, runtime.reads.capacity),
        },
        {name: {**each, "noise": metrics.noise_of(name)} for name, each in runtime.reader.canaries.status().items()},
        FindingsStatus(
            counts["seen"], counts["open"], counts["dropped"], await findings.open_by_collection(), findings.place
        ),
        engine.report.bypassing.status(),
        {str(name): dataclasses.asdict(each.status()) for name, each in engine.relays.items()},
        engine.report.portability.status(_accepted(engine.settings)),
        {name: metrics.recent.of(name) for name in metrics.collections},
        metrics.totals(),
        _index_advice(runtime.stores[StoreName.DYNAMO]),
        {name: _index_health(engine, name, route) for name, route in engine.routes().items()},
        {name: figures for name in metrics.collections if (figures := metrics.guards.of(name)) is not None},
        {name: metrics.latencies.of(name, slower.get(name, 0.0)) for name in metrics.collections},
        {name: shapes for name in metrics.collections if (shapes := metrics.latencies.status(name))},
        {
            "lost_indexes": engine.index_report.status(),
            "excuses": engine.excuses.status(),
            "suspects": {
                "count": await engine.suspects.count(),
                "kept": "in this process alone" if engine.suspects.fault else "on this host",
            },
            "refused": runtime.admission.unfit(),
            "rights_lacking": [str(each) for each in engine.rights.found],
            "writer_watch": "off" if engine.writer_watch is None else engine.writer_watch.state,
            "uptime_seconds": round(steady() - engine.started, 1),
        },
        not_portable_known=engine.report.portability.known,
    )


async def _look_at_indexes(engine: Observed) -> None:
    """Which indexes there are is asked again from time to time, of the collections that are not on MongoDB alone."""
    for name, route in engine.routes().items():
        on_dynamo = route.dual_write or route.primary is StoreName.DYNAMO
        due = on_dynamo and engine.index_report.is_due(name, _LOOK_EVERY)
        if due and await check(engine.indexes.look(name)) != "ok":
            engine.index_report.missed(name)


def _index_health(engine: Observed, name: str, route: Route) -> IndexHealth:
    """MongoDB has its own indexes, whichever they are: only a flip to DynamoDB can lose some."""
    return IndexHealth(True, ()) if route.primary is StoreName.DYNAMO else engine.index_report.health(name)


def _accepted(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {name: entry.accept_not_portable for name, entry in settings.collections.items()}


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _index_advice(store: Store) -> list[dict[str, Any]]:
    """The shapes of queries that scanned, the costliest first, each with the index that would serve it."""
    return store.scans() if isinstance(store, Scanning) else []


async def check(work: Any, seconds: float = 2.0) -> str:
    try:
        async with within(seconds):
            await work
    except Exception as error:
        return f"failed: {type(error).__name__}"
    return "ok"
