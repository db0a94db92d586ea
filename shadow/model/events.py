"""What has happened, as frozen values in the past tense. Metrics, the log, the findings and tests subscribe to them.

Whoever publishes an event neither waits for its subscribers nor sees their errors: publishing never raises and never
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from shadow.model.background import Background
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reads import Read
from shadow.model.verdict import Bypass, Deferral, Healing, Incomparable, Mismatch, Routed, ShedReason, Slice, Verdict
from shadow.model.version import Key

__all__ = [
    "BackgroundTaskFailed",
    "BackgroundTaskRecovered",
    "CallAbandoned",
    "CallRefused",
    "CanaryFound",
    "CanaryInjected",
    "CapacityConsumed",
    "ClientStalled",
    "ComparisonFinished",
    "ComparisonUndecided",
    "ComponentFailed",
    "ConfigReloaded",
    "Event",
    "Handlers",
    "HealFinished",
    "JournalRecovered",
    "KeyAgreed",
    "MismatchConfirmed",
    "NoiseMeasured",
    "NotPortable",
    "Noted",
    "OperationFinished",
    "OutOfBandWriteCounted",
    "OutOfBandWriteRelayed",
    "OutOfBandWriteSeen",
    "ReadFinished",
    "ReadRouted",
    "ReadShed",
    "ReadTimed",
    "Reporter",
    "RequestThrottled",
    "RouteChanged",
    "RuleApplied",
    "Silent",
    "Subscriber",
    "TableScanned",
    "WriteDeferred",
    "WriteUnjournaled",
    "noted",
]


@dataclass(frozen=True, slots=True)
class OperationFinished:
    """A store has answered one operation, or `count` of them together, in `seconds` of wall time. `denied`: it was
    refused for a reason of the store, see `outcome.is_denied`; known of primaries alone."""

    collection: str
    verb: Verb
    store: StoreName
    role: Role
    outcome: Outcome
    seconds: float
    count: int = 1
    denied: bool = False


@dataclass(frozen=True, slots=True)
class ReadFinished:
    """A read has been answered to the application, in `seconds` of wall time, with what shadowing it adds."""

    verb: Verb
    slice: Slice
    seconds: float


@dataclass(frozen=True, slots=True)
class ReadRouted:
    """A read of a collection of which the secondary answers a share was, or will be, answered by `store`."""

    collection: str
    store: StoreName
    reason: Routed
    seconds: float = 0.0
    """For which the secondary was asked; 0.0: it was not."""


@dataclass(frozen=True, slots=True)
class ReadTimed:
    """A read that the primary has answered to the application was asked of the secondary by itself, and each took so
    long; also where the secondary had no answer within its time limit."""

    collection: str
    asked: Read
    primary_seconds: float
    secondary_seconds: float
    primary: StoreName | None = None
    """The store that was the primary then."""


@dataclass(frozen=True, slots=True)
class ReadShed:
    """A shadow read was not done or not finished."""

    collection: str
    verb: Verb
    reason: ShedReason


@dataclass(frozen=True, slots=True)
class ComparisonFinished:
    """A comparison has a verdict, or `count` of them have the same one."""

    collection: str
    verb: Verb
    verdict: Verdict
    count: int = 1


@dataclass(frozen=True, slots=True)
class ComparisonUndecided:
    """A comparison can say neither equal nor different; `ComparisonFinished` follows with that verdict."""

    collection: str
    verb: Verb
    reason: Incomparable


@dataclass(frozen=True, slots=True)
class NotPortable:
    """MongoDB alone has done an operation that DynamoDB does not support. `operator`: one of
    `mongoql.portability.NAMES`."""

    collection: str
    verb: Verb
    operator: str


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call was refused before any store was asked, for it needs what DynamoDB, the primary, does not support; MongoDB
    as primary would have done it, and the configuration does not accept to lose it. `operator` as of `NotPortable`."""

    collection: str
    operator: str


@dataclass(frozen=True, slots=True)
class RuleApplied:
    """A comparison needed the rule of this name for the verdict `excused`."""

    collection: str
    rule: str


@dataclass(frozen=True, slots=True)
class NoiseMeasured:
    """A comparison of the primary with itself has a verdict."""

    collection: str
    verb: Verb
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CanaryInjected:
    """An injected difference was given to the comparison."""

    collection: str


@dataclass(frozen=True, slots=True)
class CanaryFound:
    """The comparison has found an injected difference."""

    collection: str


@dataclass(frozen=True, slots=True)
class MismatchConfirmed:
    """A mismatch is confirmed: counted, logged, kept as a finding."""

    found: Mismatch


@dataclass(frozen=True, slots=True)
class KeyAgreed:
    """Both stores were seen, or made, to hold the same under a key: what was found of it is settled."""

    collection: str
    key: Key


@dataclass(frozen=True, slots=True)
class OutOfBandWriteSeen:
    """An out-of-band write was seen as it happened; `name` identifies it."""

    collection: str
    kind: Bypass
    key: Key
    name: str


@dataclass(frozen=True, slots=True)
class OutOfBandWriteCounted:
    """An out-of-band write was seen, or a mismatch proves it. Published once for each write."""

    collection: str
    kind: Bypass


@dataclass(frozen=True, slots=True)
class OutOfBandWriteRelayed:
    """An out-of-band write to the primary was seen as it happened; the journal has its document, to be repaired."""

    collection: str
    kind: Bypass


@dataclass(frozen=True, slots=True)
class WriteDeferred:
    """A write was left to its intent."""

    collection: str
    reason: Deferral


@dataclass(frozen=True, slots=True)
class WriteUnjournaled:
    """A write was made without an intent, for the journal could not be written; `taken`: the secondary has it."""

    collection: str
    taken: bool


@dataclass(frozen=True, slots=True)
class HealFinished:
    collection: str
    result: Healing


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """A collection has a route, or a new one."""

    collection: str
    route: Route


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """The configuration was read again; not `ok`: it was rejected, and the old one holds."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ComponentFailed:
    """An internal component failed where failing must not reach the application. `part` is from a fixed set."""

    part: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class BackgroundTaskFailed:
    """A long-lived task has failed, and starts again. `new`: the first time for this cause since it last worked."""

    task: Background
    error: BaseException
    new: bool


@dataclass(frozen=True, slots=True)
class BackgroundTaskRecovered:
    """A long-lived task that had failed works again."""

    task: Background


@dataclass(frozen=True, slots=True)
class CapacityConsumed:
    """`units` of capacity used by one call of the API (`get_item`, `query`, ...); `index` is "" for the table."""

    table: str
    index: str
    verb: str
    units: float


@dataclass(frozen=True, slots=True)
class TableScanned:
    """Scans that were begun on a table, and the items that they have read and returned."""

    table: str
    scans: int
    read: int
    returned: int


@dataclass(frozen=True, slots=True)
class RequestThrottled:
    """DynamoDB has throttled one request."""


@dataclass(frozen=True, slots=True)
class CallAbandoned:
    """The caller of a store's client went away; the call runs on to the client's own time limits."""

    store: StoreName


@dataclass(frozen=True, slots=True)
class ClientStalled:
    """A client of a store answered nothing any more."""

    store: StoreName


@dataclass(frozen=True, slots=True)
class JournalRecovered:
    """A damaged journal was recovered."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One line for the log. `name` is a constant of `observe.log`; `fields` hold no document content."""

    name: str
    fields: Mapping[str, Any]


def noted(name: str, /, **fields: Any) -> Noted:
    return Noted(name, fields)


Event: TypeAlias = (
    OperationFinished
    | ReadFinished
    | ReadRouted
    | ReadShed
    | ReadTimed
    | ComparisonFinished
    | ComparisonUndecided
    | NotPortable
    | CallRefused
    | RuleApplied
    | NoiseMeasured
    | CanaryInjected
    | CanaryFound
    | MismatchConfirmed
    | KeyAgreed
    | OutOfBandWriteSeen
    | OutOfBandWriteCounted
    | OutOfBandWriteRelayed
    | WriteDeferred
    | WriteUnjournaled
    | HealFinished
    | RouteChanged
    | ConfigReloaded
    | ComponentFailed
    | BackgroundTaskFailed
    | BackgroundTaskRecovered
    | CapacityConsumed
    | TableScanned
    | RequestThrottled
    | CallAbandoned
    | ClientStalled
    | JournalRecovered
    | Noted
)

Handlers: TypeAlias = Mapping[type[Any], Callable[[Any], None]]
"""What a subscriber does at each type of event that it wants."""


class Subscriber(Protocol):
    def handlers(self) -> Handlers: ...


class Reporter(Protocol):
    """Where every part publishes what happened."""

    def publish(self, event: Event) -> None:
        """Never raises and never blocks."""


class Silent:
    """A reporter that nobody subscribes to."""

    def publish(self, event: Event) -> None: ...
