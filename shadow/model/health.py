"""The health of one collection in one process: what the gates decide by.

A process shows it to the others through the control store, as a flat record. What a record does not hold, because
another version of shadow wrote it or because the process does not know, is None: a gate that needs it is closed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from shadow.model.latencies import of_text
from shadow.model.phase import Phase, StoreName

__all__ = [
    "CollectionHealth",
    "ComparisonHealth",
    "FindingsHealth",
    "GuardHealth",
    "IndexHealth",
    "JournalHealth",
    "LatencyHealth",
    "OutOfBandHealth",
    "PortabilityHealth",
    "RecentReads",
    "RouteHealth",
    "SecondaryHealth",
]


@dataclass(frozen=True, slots=True)
class RouteHealth:
    primary: StoreName
    phase: Phase
    shadow_reads: float
    """The share of the reads that are compared, 0 to 1."""


@dataclass(frozen=True, slots=True)
class SecondaryHealth:
    down: tuple[StoreName, ...]
    """The secondary stores that do not answer."""


@dataclass(frozen=True, slots=True)
class FindingsHealth:
    findings: int
    """Findings that are open."""
    kept: str = field(default="", metadata={"optional": True})
    """Host and file of them, for people."""


@dataclass(frozen=True, slots=True)
class ComparisonHealth:
    planted: bool
    """Whether differences are planted that the comparison must find."""
    works: bool
    """Whether they are found."""
    undecided: bool = field(default=False, metadata={"optional": True})
    """Whether that none was found says nothing yet: the process has just begun, or nothing is to be compared."""


@dataclass(frozen=True, slots=True)
class JournalHealth:
    waiting: int
    """Entries of the journal."""
    refused: int
    """Those of them that the secondary refuses to hold."""
    oldest: float
    """Age of the oldest entry, in seconds; 0 with none."""
    read: bool
    """Whether the journal answered when it was last asked."""
    unverified: str
    """Since when intents may have been lost, ISO time; "" if none are known to be."""


@dataclass(frozen=True, slots=True)
class OutOfBandHealth:
    bypassing: int
    """Out-of-band writes that were found, and that nothing relayed."""
    relayed: int = 0
    """Those that were relayed, by all processes."""
    last: float = 0.0
    """When the last of these was relayed, epoch seconds."""
    behind: float = -1.0
    """Seconds that the relay is behind; below 0: none is configured."""
    unrelayed: str = ""
    """Why nothing is relayed, though it is configured."""
    unrelayed_after: str = field(default="", metadata={"optional": True})
    """Why nothing would be relayed after a flip, though it is configured: by the other store."""


@dataclass(frozen=True, slots=True)
class IndexHealth:
    indexes_known: bool
    """Whether MongoDB has told which indexes it has; true where DynamoDB is the primary."""
    indexes_lost: tuple[str, ...]
    """The indexes without which DynamoDB answers otherwise, and which the configuration does not acknowledge."""


@dataclass(frozen=True, slots=True)
class PortabilityHealth:
    not_portable: tuple[str, ...]
    """Operators that only MongoDB has done, and that the configuration does not accept to lose; none where DynamoDB is
    the primary."""


@dataclass(frozen=True, slots=True)
class RecentReads:
    """Shadow reads of late, as the collection is routed now: those that were compared, those that were shed, and the
    seconds in which they were counted."""

    compared: int
    shed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LatencyHealth:
    """How long both stores took for the same operations, of late, as the collection is routed now."""

    slower: float
    """By how much the 95th percentile of the secondary may exceed that of the primary; 0: as slow as it likes."""
    read_times: tuple[str, ...]
    """Of the primary and of the secondary, each as `latencies.text_of` makes it."""
    write_times: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for what no process has counted."""
        for primary, secondary in (self.read_times, self.write_times):
            of_text(primary), of_text(secondary)


@dataclass(frozen=True, slots=True)
class GuardHealth:
    """What the guards of a ramp or of a watched flip go by: counts of the last minutes at the current share. `plan`:
    the ramp of this process's configuration, in words, "" without one; `number`: the step that it has in force."""

    plan: str
    number: int
    matched: int
    """Comparisons that came to equal or not equal."""
    differing: int
    noise: int
    """Comparisons of the primary with itself."""
    noisy: int
    routed: int
    """Reads that the secondary answered, or was to answer."""
    routed_failed: int
    asked: int
    """Operations of the application that the primary has answered."""
    asked_failed: int
    requests: int
    """Operations on DynamoDB, of all collections."""
    throttled: int
    routed_times: tuple[int, ...]
    """By bucket of `guards.BOUNDS`: reads of the application that the secondary answered."""
    primary_times: tuple[int, ...]
    """Likewise those that the primary answered."""
    secondary_times: tuple[int, ...]
    """Likewise all reads of the secondary, shadow reads among them."""
    followed: int = field(default=0, metadata={"optional": True})
    """Operations that the secondary has answered."""
    followed_failed: int = field(default=0, metadata={"optional": True})
    paired_times: tuple[int, ...] = field(default=(), metadata={"optional": True})
    """By bucket: reads that both stores were asked, as the primary took for them, and then as the secondary did."""
    paired_secondary_times: tuple[int, ...] = field(default=(), metadata={"optional": True})
    single_writes: tuple[int, ...] = field(default=(), metadata={"optional": True})
    """Likewise writes of one document."""
    secondary_single_writes: tuple[int, ...] = field(default=(), metadata={"optional": True})
    unsupported: int = field(default=0, metadata={"optional": True})
    """Calls that the primary does not support, and the other store does; none of them is in `asked`."""
    unsupported_for: tuple[str, ...] = field(default=(), metadata={"optional": True})
    """Their operators, each with its count before it: "12 $where". The most frequent ones."""


@dataclass(frozen=True, slots=True)
class CollectionHealth:
    route: RouteHealth | None = None
    secondary: SecondaryHealth | None = None
    findings: FindingsHealth | None = None
    comparison: ComparisonHealth | None = None
    journal: JournalHealth | None = None
    out_of_band: OutOfBandHealth | None = None
    recent: RecentReads | None = None
    indexes: IndexHealth | None = None
    portability: PortabilityHealth | None = None
    guards: GuardHealth | None = None
    latency: LatencyHealth | None = None

    def record(self) -> dict[str, Any]:
        """As JSON and BSON can hold it: the fields of every section in one object, without what is unknown."""
        found: dict[str, Any] = {}
        for name in _SECTIONS:
            section = getattr(self, name)
            if section is not None:
                found |= {each.name: _plain(getattr(section, each.name)) for each in dataclasses.fields(section)}
        return found

    @classmethod
    def of_record(cls, value: Mapping[str, Any]) -> CollectionHealth:
        """What `record` has made, in this version or another one. Raises nothing."""
        return cls(**{name: _section(kind, value) for name, kind in _SECTIONS.items()})


_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "route": RouteHealth,
    "secondary": SecondaryHealth,
    "findings": FindingsHealth,
    "comparison": ComparisonHealth,
    "journal": JournalHealth,
    "out_of_band": OutOfBandHealth,
    "recent": RecentReads,
    "indexes": IndexHealth,
    "portability": PortabilityHealth,
    "guards": GuardHealth,
    "latency": LatencyHealth,
}

_T = TypeVar("_T")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [each if isinstance(each, int) else str(each) for each in value]
    return str(value) if isinstance(value, str) else value


def _exactly(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise TypeError(value)
    return value


_READERS: Final[Mapping[str, Any]] = {
    "StoreName": StoreName,
    "Phase": Phase,
    "float": float,
    "int": lambda value: _exactly(int, value),
    "bool": lambda value: _exactly(bool, value),
    "str": lambda value: _exactly(str, value),
    "tuple[StoreName, ...]": lambda value: tuple(StoreName(each) for each in value),
    "tuple[str, ...]": lambda value: tuple(_exactly(str, each) for each in value),
    "tuple[int, ...]": lambda value: tuple(_exactly(int, each) for each in value),
}
"""By the annotation of a field; each raises TypeError or ValueError for what is not of its type."""


def _section(kind: type[Any], value: Mapping[str, Any]) -> Any:
    """None where a field is missing or of another type."""
    fields = [each for each in dataclasses.fields(kind) if each.name in value or not each.metadata.get("optional")]
    try:
        return kind(**{each.name: _READERS[str(each.type)](value[each.name]) for each in fields})
    except (KeyError, TypeError, ValueError):
        return None
