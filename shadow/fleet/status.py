"""The status of one process: its types, and the one place where they become JSON and are read from it.

`shadow.status` collects it, the gates and the console read it, `/status` shows it, and `shadow status` reads that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from shadow.fleet.health_gates import Gate, Readiness
from shadow.model.health import (
    CollectionHealth,
    ComparisonHealth,
    FindingsHealth,
    GuardHealth,
    IndexHealth,
    JournalHealth,
    LatencyHealth,
    OutOfBandHealth,
    PortabilityHealth,
    RecentReads,
    RouteHealth,
    SecondaryHealth,
)
from shadow.model.phase import Phase, Route, StoreName

__all__ = [
    "CollectionRoute",
    "FindingsStatus",
    "JournalStatus",
    "ProcessStatus",
    "QueueStatus",
    "StoreStatus",
    "as_json",
    "of_json",
]


@dataclass(frozen=True, slots=True)
class CollectionRoute:
    """The route of a collection, as shown."""

    primary: StoreName
    phase: Phase
    writes: str
    shadow_reads: float
    reads: Mapping[str, float] = field(default_factory=dict)
    secondary_reads: float = 0.0
    epoch: int = 0

    @classmethod
    def of(cls, route: Route) -> CollectionRoute:
        return cls(
            route.primary,
            route.phase,
            str(route.writes),
            route.shadow_reads,
            route.reads.named(),
            route.secondary_reads,
            route.epoch,
        )


@dataclass(frozen=True, slots=True)
class StoreStatus:
    up: bool
    description: Mapping[str, Any] = field(default_factory=dict)
    """As `Store.describe` returns it."""


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """`state` is "ok", or why the journal could not be read now. By collection: entries that are `open` or
    `deferred`, those of the deferred that the secondary has `refused`, since when it is unverified (ISO time), and
    how many keys are settled but compared again, for a write without an answer may be applied `late`."""

    path: str = ""
    state: str = ""
    open: Mapping[str, int] = field(default_factory=dict)
    deferred: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    oldest_seconds: float = 0.0
    verify_since: Mapping[str, str] = field(default_factory=dict)
    late: Mapping[str, int] = field(default_factory=dict)
    look: str = "shadow journal [list | heal | explain KEY --collection NAME]"

    def waiting(self, collection: str) -> int:
        return self.open.get(collection, 0) + self.deferred.get(collection, 0)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    depth: int
    capacity: int


@dataclass(frozen=True, slots=True)
class FindingsStatus:
    seen: int = 0
    open: int = 0
    dropped: int = 0
    open_by_collection: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    """Host and file."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What one process knows. The mappings to `Any` are shown unchanged; nothing depends on them."""

    collections: Mapping[str, CollectionRoute] = field(default_factory=dict)
    stores: Mapping[str, StoreStatus] = field(default_factory=dict)
    journal: JournalStatus = JournalStatus()
    queues: Mapping[str, QueueStatus] = field(default_factory=dict)
    comparison: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the collections that get planted differences: `working`, and the canary's figures."""
    findings: FindingsStatus = FindingsStatus()
    bypassing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Out-of-band writes by collection, as `Bypassing.status` returns them."""
    relay: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How far the relayed writes are, by store: the fields of `RelayStatus`; empty where none are relayed."""
    not_portable: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What only MongoDB has done, by collection, as `Portability.status` returns it."""
    recent: Mapping[str, RecentReads] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=dict)
    """As `Metrics.totals` returns them."""
    indexes: Sequence[Mapping[str, Any]] = ()
    index_health: Mapping[str, IndexHealth] = field(default_factory=dict)
    """What MongoDB's indexes mean for the gate; `lost_indexes` is for people."""
    guards: Mapping[str, GuardHealth] = field(default_factory=dict)
    """Of the collections with a ramp or a watched flip; not shown."""
    latency_health: Mapping[str, LatencyHealth] = field(default_factory=dict)
    """For the gate; `latency` is for people."""
    latency: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Store against store, by collection and shape of query, as `Latencies.status` returns it."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields to show."""
    fleet: Mapping[str, Any] = field(default_factory=dict)
    """As `Fleet.status` returns it; empty if it was not requested."""
    readiness: Readiness | None = None
    """The gates; None if they were not requested."""
    not_portable_known: bool = True
    """Whether `not_portable` is of the whole fleet: its record was read."""

    def health(self) -> dict[str, CollectionHealth]:
        """By collection, the input of the gates."""
        return {name: self._health(name, route) for name, route in self.collections.items()}

    def _health(self, name: str, route: CollectionRoute) -> CollectionHealth:
        journal, planted = self.journal, self.comparison.get(name)
        waiting = journal.waiting(name)
        return CollectionHealth(
            RouteHealth(route.primary, route.phase, route.shadow_reads),
            SecondaryHealth(
                tuple(StoreName(each) for each, store in self.stores.items() if each != route.primary and not store.up)
            ),
            FindingsHealth(self.findings.open_by_collection.get(name, 0), self.findings.place),
            ComparisonHealth(
                planted is not None,
                planted is not None and bool(planted["working"]),
                planted is not None and bool(planted.get("undecided", False)),
            ),
            JournalHealth(
                waiting,
                journal.refused.get(name, 0),
                journal.oldest_seconds if waiting else 0.0,
                journal.state == "ok",
                journal.verify_since.get(name, ""),
            ),
            self._out_of_band(name, route),
            self.recent.get(name),
            self.index_health.get(name),
            self._lost_by_flip(name, route),
            self.guards.get(name),
            self.latency_health.get(name),
        )

    def _out_of_band(self, name: str, route: CollectionRoute) -> OutOfBandHealth:
        count, relaying = int(self.bypassing.get(name, {}).get("count", 0)), self.relay.get(route.primary)
        if relaying is None:
            return OutOfBandHealth(count)
        after = self.relay.get(route.primary.other)
        of_it = relaying["collections"].get(name, {})
        return OutOfBandHealth(
            count,
            int(of_it.get("count", 0)),
            float(of_it.get("last", 0.0)),
            float(relaying["behind"]),
            _untold(name, relaying),
            "" if after is None else _untold(name, after),
        )

    def _lost_by_flip(self, name: str, route: CollectionRoute) -> PortabilityHealth | None:
        if route.primary is StoreName.DYNAMO:
            return PortabilityHealth(())
        found = tuple(self.not_portable.get(name, {}).get("not_accepted", ()))
        return PortabilityHealth(found) if found or self.not_portable_known else None


def _untold(name: str, relay: Mapping[str, Any]) -> str:
    """Why a store tells no changes of a collection; "" if it tells them."""
    return str(relay["fault"] or relay.get("unread", {}).get(name, ""))


# --- JSON -----------------------------------------------------------------------------------------------------------

_SHOWN_AS = {"queues": "lanes"}
"""Fields that have another name in JSON, which is public."""

_AS_THEY_ARE = ("comparison", "bypassing", "relay", "not_portable", "latency", "fleet")


def as_json(status: ProcessStatus) -> dict[str, Any]:
    """The JSON of `/status`."""
    findings = status.findings
    shown = {
        "collections": {name: _plain(asdict(each)) for name, each in status.collections.items()},
        "stores": {name: {**each.description, "up": each.up} for name, each in status.stores.items()},
        "journal": asdict(status.journal),
        "lanes": {name: asdict(each) for name, each in status.queues.items()},
        "findings": {
            "seen": findings.seen,
            "kept": findings.place,
            "open": findings.open,
            "dropped": findings.dropped,
            "open_by_collection": dict(findings.open_by_collection),
        },
        "totals": {**status.totals, "recent": {name: asdict(each) for name, each in status.recent.items()}},
        "indexes": list(status.indexes),
        "not_portable_known": status.not_portable_known,
        "index_health": {
            name: {"indexes_known": each.indexes_known, "indexes_lost": list(each.indexes_lost)}
            for name, each in status.index_health.items()
        },
        "latency_health": {
            name: {"slower": each.slower, "read_times": [*each.read_times], "write_times": [*each.write_times]}
            for name, each in status.latency_health.items()
        },
        **{name: dict(getattr(status, name)) for name in _AS_THEY_ARE},
        **status.more,
    }
    if status.readiness is not None:
        shown["verdict"] = _readiness(status.readiness)
    return {name: each for name, each in shown.items() if each or name != "fleet"}


def of_json(content: Mapping[str, Any]) -> ProcessStatus:
    """The status from the JSON of `/status`, also of another version: missing fields have their default.

    Raises KeyError, TypeError or ValueError for anything but a status."""
    totals = dict(content.get("totals", {}))
    recent = totals.pop("recent", {})
    findings = content.get("findings", {})
    status = ProcessStatus(
        {name: _route(each) for name, each in content.get("collections", {}).items()},
        {
            name: StoreStatus(each["up"], {key: value for key, value in each.items() if key != "up"})
            for name, each in content.get("stores", {}).items()
        },
        JournalStatus(**_known(JournalStatus, content.get("journal", {}))),
        {name: QueueStatus(each["depth"], each["capacity"]) for name, each in content.get("lanes", {}).items()},
        findings=FindingsStatus(
            findings.get("seen", 0),
            findings.get("open", 0),
            findings.get("dropped", 0),
            findings.get("open_by_collection", {}),
            str(findings.get("kept", "")),
        ),
        recent={name: RecentReads(**_known(RecentReads, each)) for name, each in recent.items()},
        totals=totals,
        indexes=tuple(content.get("indexes", ())),
        index_health={
            name: IndexHealth(bool(each["indexes_known"]), tuple(each["indexes_lost"]))
            for name, each in content.get("index_health", {}).items()
        },
        latency_health={
            name: LatencyHealth(float(each["slower"]), tuple(each["read_times"]), tuple(each["write_times"]))
            for name, each in content.get("latency_health", {}).items()
        },
        not_portable_known=bool(content.get("not_portable_known", True)),
        readiness=_readiness_of(content.get("verdict")),
        **{name: content.get(name, {}) for name in _AS_THEY_ARE},
    )
    known = {_SHOWN_AS.get(each.name, each.name) for each in fields(status)} | {"verdict"}
    return replace(status, more={name: each for name, each in content.items() if name not in known})


def _route(content: Mapping[str, Any]) -> CollectionRoute:
    found = _known(CollectionRoute, content)
    return CollectionRoute(**{**found, "primary": StoreName(content["primary"]), "phase": Phase(content["phase"])})


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: each for name, each in content.items() if name in names}


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    return {name: str(each) if isinstance(each, str) else each for name, each in content.items()}


def _readiness(found: Readiness) -> dict[str, Any]:
    return {
        "safe": found.safe,
        "look_at": found.look_at,
        "collections": found.collections,
        "gates": [asdict(gate) for gate in found.gates],
    }


def _readiness_of(content: Mapping[str, Any] | None) -> Readiness | None:
    if content is None:
        return None
    return Readiness(tuple(Gate(**_known(Gate, each)) for each in content["gates"]))
