"""Builds the components of an engine from the settings: observation, stores, journal, names and places."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.config import MetricsOutput, Settings, revealed
from shadow.errors import ConfigurationError, Fault
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.host.supervisor import Supervisor
from shadow.journal.server.driver import Driver
from shadow.journal.server.dynamo import DynamoDriver
from shadow.journal.server.dynamo_table import Access
from shadow.journal.server.mongo import MongoDriver
from shadow.journal.server.remote import RemoteJournal, patience
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.journal.sqlite.recovery import Recovery
from shadow.model.events import ComponentFailed
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.notices import Notices
from shadow.observe.findings import Findings
from shadow.observe.findings_file import FindingsFile, SharedFindings
from shadow.observe.gauges import GaugeSnapshot
from shadow.observe.log_lines import LogLines
from shadow.observe.metric_row import Component
from shadow.observe.metrics import Metrics, Output
from shadow.observe.mismatch_file import MismatchFile
from shadow.observe.pulse import PeriodicTasks
from shadow.observe.report import Report
from shadow.reads.unconfirmed import SharedUnconfirmed
from shadow.stores.base import Store
from shadow.stores.dynamo.store import DynamoContext, DynamoStore
from shadow.stores.mongo.checks import HandedIn, client_faults, handed_in
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoContext, MongoStore
from shadow.traces.meters import Meters
from shadow.traces.spans import Traces

__all__ = [
    "EngineOptions",
    "HandedClients",
    "Observation",
    "admitted",
    "journal_name",
    "make_journal",
    "make_observation",
    "make_stores",
    "places",
]


@dataclass(frozen=True)
class EngineOptions:
    """How a Shadow is made, beside its settings. `path`: of the file that they come from, which is watched. Clients
    that are passed in are never closed. `reach`: called at the named points at which tests make it fail."""

    path: Path | None = None
    mongo_client: Any = None
    dynamo_client: Any = None
    reach: Failpoints = no_failpoint
    passive: bool = False
    """A tool that does only what it is asked: no recovery and no watching."""
    tool: bool = False
    """A tool beside an application, which does not count in decisions on routes."""


@dataclass(frozen=True)
class HandedClients:
    """The clients that were passed in; None: one is made."""

    mongo: HandedIn | None = None
    dynamo: Any = None

    @classmethod
    def of(cls, options: EngineOptions, settings: Settings) -> Self:
        """Raises as `admitted` does."""
        given = None if options.mongo_client is None else admitted(options.mongo_client, settings)
        return cls(given, options.dynamo_client)


@dataclass(frozen=True)
class Observation:
    """Metrics, log, findings and comparison rules of one Shadow."""

    hasher: Hasher
    excuses: Excuses
    metrics: Metrics
    findings: Findings
    report: Report
    shared_findings: SharedFindings
    unconfirmed: SharedUnconfirmed
    pulse: PeriodicTasks
    traces: Traces


def make_observation(
    settings: Settings,
    gauges: Callable[[], GaugeSnapshot],
    doubted: Callable[[str], bool],
    relayed: Callable[[str], bool],
) -> Observation:
    """`gauges`: read at each scrape, from any thread; `doubted`: whether intents of a collection are known to be
    lost; `relayed`: whether its out-of-band writes are relayed."""
    observe, excuses = settings.observe, Excuses(settings.rules())
    hasher = Hasher(b"" if observe.hash_secret is None else observe.hash_secret.get_secret_value().encode())
    metrics = Metrics(
        settings.collections,
        tables=_tables(settings),
        rules=excuses.names(),
        gauges=gauges,
        on_failure=lambda part, error: report.failed(part, error),
        output=Output(
            None if observe.metrics is MetricsOutput.PROMETHEUS else Meters(),
            exposed=observe.metrics is not MetricsOutput.OTEL,
        ),
    )
    findings = Findings(hasher, reveal_keys=observe.reveal_keys, notes=True)
    lines = LogLines(findings, hasher, reveal_keys=observe.reveal_keys)
    report = Report(metrics, findings, lines, hasher=hasher, doubted=doubted, relayed=relayed)
    mismatches = MismatchFile(settings.host_file("findings"), earlier=settings.host_file("suspects"))
    shared = SharedFindings(
        findings,
        FindingsFile(mismatches, reveal_keys=observe.reveal_keys),
        lambda error: report.publish(ComponentFailed("report", error)),
    )
    pulse = PeriodicTasks(metrics, shared, report.say_held)
    unconfirmed, traces = SharedUnconfirmed(mismatches), _traces(settings, report)
    return Observation(hasher, excuses, metrics, findings, report, shared, unconfirmed, pulse, traces)


def _traces(settings: Settings, report: Report) -> Traces:
    observe = settings.observe
    return Traces(
        enabled=observe.traces,
        statements=observe.trace_statements,
        failed=lambda error: report.publish(ComponentFailed(Component.TRACES, error)),
    )


def _tables(settings: Settings) -> dict[str, list[str]]:
    """DynamoDB's tables with the names of their indexes."""
    prefix = settings.dynamo.table_prefix
    return {f"{prefix}{name}": [each.name for each in spec.indexes] for name, spec in settings.specs().items()}


def make_stores(
    settings: Settings,
    specs: Mapping[str, CollectionSpec],
    clients: HandedClients,
    metrics: Metrics,
    notices: Notices,
    on_doubt: Callable[[str], None],
) -> dict[StoreName, Store]:
    """Both stores, for one event loop. `specs`: those in force, with constraints that were added since the start.
    `on_doubt`: called with a collection of which an acknowledged write may have been rolled back."""
    given, mongo = clients.mongo, settings.mongo
    connected = functools.partial(connect, mongo.url.get_secret_value(), mongo.driver)

    def stuck(name: StoreName) -> Callable[[bool], None]:
        return functools.partial(notices.client_stuck, name)

    context = MongoContext(
        on_abandoned=metrics.abandoned[StoreName.MONGO],
        on_stuck=stuck(StoreName.MONGO),
        operation_limit=settings.limits.operation,
        again=connected,
        options={} if given is None else given.options,
        weak_writes=mongo.weak_writes,
        on_raised=notices.raised,
        on_doubt=on_doubt,
    )
    client = connected() if given is None else given.client
    store = MongoStore(client, mongo.database, specs, owned=given is None, context=context)
    dynamo = DynamoContext(
        on_abandoned=metrics.abandoned[StoreName.DYNAMO],
        on_stuck=stuck(StoreName.DYNAMO),
        database=mongo.database,
        operation_limit=settings.limits.operation,
        on_capacity=metrics.capacity,
        on_scan=metrics.scanned,
        on_lacking=notices.table_lacking,
        on_throttled=metrics.throttled,
    )
    second = DynamoStore(settings.dynamo, specs, client=clients.dynamo, context=dynamo)
    return {StoreName.MONGO: store, StoreName.DYNAMO: second}


def admitted(given: Any, settings: Settings) -> HandedIn:
    """The client or database object that was passed in for MongoDB. Raises `TypeError`, and `ConfigurationError` for
    what cannot be used."""
    found = handed_in(given)
    faults = [Fault(f"mongo_client({name}=...)", "set", why) for name, why in client_faults(found.client)]
    if found.database is not None and found.database.name != settings.mongo.database:
        here = f"the database of the settings, {settings.mongo.database!r}: say mongo.database: {found.database.name}"
        faults.append(Fault("mongo_client", f"a database object of {found.database.name!r}", here))
    if faults:
        raise ConfigurationError("(what was passed in)", faults)
    return found


def make_journal(
    settings: Settings, on_damage: Callable[[Recovery], None], supervisor: Supervisor
) -> SqliteJournal | RemoteJournal:
    """The journal at `journal.url`."""
    where, limit, late = settings.journal, settings.limits.operation, settings.limits.late_writes
    if where.kind == "sqlite":
        file = FileSettings(
            where.path,
            synchronous=where.synchronous,
            max_bytes=where.max_bytes,
            limit=limit,
            late=late,
            collections=tuple(settings.collections),
            on_damage=on_damage,
        )
        return SqliteJournal(file, supervisor)

    def connect() -> Driver:
        if where.kind == "mongodb":
            return MongoDriver(*where.mongo(settings.mongo), patience=patience(limit))
        dynamo = settings.dynamo
        access = Access(
            dynamo.region,
            dynamo.endpoint_url,
            revealed(dynamo.access_key_id),
            revealed(dynamo.secret_access_key),
            revealed(dynamo.session_token),
        )
        return DynamoDriver(access, where.table, patience=patience(limit))

    return RemoteJournal(connect, place=where.place, limit=limit, late=late, supervisor=supervisor)


def journal_name(settings: Settings) -> str:
    """Names the journal for every host: a file belongs to its own host."""
    journal = settings.journal
    if journal.kind != "sqlite":
        return f"{journal.place} {journal.name}"
    return f"{socket.gethostname()}:{journal.path.absolute()}"


def places(settings: Settings) -> dict[str, str]:
    """The settings that all processes of an application must have alike, without credentials. Hosts may use
    different names for one server, and each host has a journal in a file of its own."""
    found = {
        "mongo.database": settings.mongo.database,
        "dynamo.region": settings.dynamo.region,
        "dynamo.table_prefix": settings.dynamo.table_prefix,
    }
    if settings.journal.kind != "sqlite":
        in_mongo = settings.journal.kind == "mongodb"
        named = settings.journal.mongo(settings.mongo)[1:] if in_mongo else (settings.journal.table,)
        found["journal.url"] = f"{settings.journal.kind}: {' '.join(named)}"
    return found
