"""What one process knows by itself, for `/status`: JSON-able, and without document content."""

from __future__ import annotations

import datetime as dt
from typing import Any, Protocol

from shadow.compare.rules import Excuses
from shadow.config import Settings
from shadow.host.steady import steady
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

__all__ = ["Observed", "check", "own_status"]


class Observed(Protocol):
    """What is looked at."""

    settings: Settings
    parts: RuntimeContext
    report: Report
    excuses: Excuses
    metrics_registry: Metrics
    shared_findings: SharedFindings
    suspects: SharedUnconfirmed
    rights: RightsWatch
    writer_watch: WriterWatch | None
    started: float

    def runtime(self) -> Runtime: ...

    def routes(self) -> dict[str, Route]: ...


async def own_status(engine: Observed) -> dict[str, Any]:
    """What this process knows by itengine."""
    runtime = engine.runtime()
    failure = await check(runtime.refresh(), 5.0)
    stats = runtime.stats
    findings = engine.shared_findings
    return {
        "collections": {name: _route_status(route) for name, route in engine.routes().items()},
        "stores": {
            str(name): {**store.describe(), "up": runtime.breakers[name].closed}
            for name, store in runtime.stores.items()
        },
        "journal": {
            "path": engine.settings.journal.place,
            "state": failure,
            "open": dict(stats.open_by_collection),
            "deferred": dict(stats.deferred_by_collection),
            "refused": dict(stats.refused_by_collection),
            "oldest_seconds": round(stats.oldest_age, 3),
            "verify_since": {name: _moment(since) for name, since in stats.unclean.items()},
            "look": "shadow journal [list | heal | explain KEY --collection NAME]",
        },
        "lanes": {
            "writes": {"depth": runtime.writes.depth, "capacity": runtime.writes.capacity},
            "reads": {"depth": runtime.reads.depth, "capacity": runtime.reads.capacity},
        },
        "comparison": {
            name: {**each, "noise": engine.metrics_registry.noise_of(name)}
            for name, each in runtime.reader.canaries.status().items()
        },
        "excuses": engine.excuses.status(),
        "suspects": {
            "count": await engine.suspects.count(),
            "kept": "in this process alone" if engine.suspects.fault else "on this host",
        },
        "refused": runtime.admission.unfit(),
        "indexes": _index_advice(runtime.stores[StoreName.DYNAMO]),
        "findings": {
            **await findings.summary(),
            "open_by_collection": await findings.open_by_collection(),
            "kept": findings.place,
        },
        "bypassing": engine.report.bypassing.status(),
        "rights_lacking": [str(each) for each in engine.rights.found],
        "writer_watch": "off" if engine.writer_watch is None else engine.writer_watch.state,
        "totals": engine.metrics_registry.totals(),
        "uptime_seconds": round(steady() - engine.started, 1),
    }


def _route_status(route: Route) -> dict[str, Any]:
    return {
        "primary": str(route.primary),
        "phase": str(route.phase),
        "writes": str(route.writes),
        "shadow_reads": route.shadow_reads,
        "reads": route.reads.named(),
        "secondary_reads": route.secondary_reads,
        "epoch": route.epoch,
    }


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
