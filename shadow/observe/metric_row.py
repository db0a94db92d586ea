"""A row of the table of metrics (`metric_table`), and the fixed label values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "OTHER",
    "SECONDS",
    "By",
    "Component",
    "Configured",
    "DynamoCall",
    "Family",
    "FlipOutcome",
    "MetricRow",
    "Reload",
]

OTHER: Final = "other"
"""The label value of everything that is not configured or not listed."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, in seconds: from a read in one data centre to the longest client time limit."""


class Configured(enum.Enum):
    """Label values that the configuration defines; each list of them also has "other"."""

    COLLECTION = enum.auto()
    RULE = enum.auto()
    """For two labels: a collection and the name of a comparison rule."""
    TABLE = enum.auto()
    INDEX = enum.auto()
    """For two labels: a table of DynamoDB and the name of an index, "" for the table itself."""
    OPERATOR = enum.auto()
    """For two labels: a collection and an operator that is not portable, once it has occurred."""


class Family(enum.StrEnum):
    """The two families of verbs."""

    READ = "read"
    WRITE = "write"


class Component(enum.StrEnum):
    """The internal components whose failures are counted."""

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
    RELAY = "relay"
    TRACES = "traces"
    METERS = "meters"
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

    `labels`: the attributes that hold the label values, or a function that returns them; by default the attributes with
    the names of the labels. `amount`: the attribute by which a counter rises (by default it rises by 1), or that a
    histogram observes, `times` times. `when`: whether this event counts.
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
    rest: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which series of a counter or histogram are at zero from the start: those with these values of these labels. A
    label without an entry has all its values there."""
    together: tuple[str, ...] = ()
    """Labels all of whose values are at zero as soon as one series is counted that differs from them in these labels
    alone."""
    merge: str = "max"
    """How a gauge's values in several workers become one: sum, max or min."""
    exemplars: bool = False
    """Whether a counter keeps the trace in which it was moved last; every histogram does."""
    moved_by: tuple[By, ...] = ()
    """The events that move a counter or a histogram; a gauge is read on request."""
