"""Verdicts, kinds of difference, reasons for work not done: the names used by every metric, log line and report."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from shadow.model.operation import Verb
from shadow.model.version import Key, State

__all__ = [
    "COUNT_PATH",
    "DOCUMENT_PATH",
    "ERROR_PATH",
    "HEALED",
    "MATCHED_PATH",
    "ORDER_PATH",
    "VERSION_PATH",
    "Bypass",
    "Deferral",
    "Difference",
    "Healing",
    "Incomparable",
    "Kind",
    "Mismatch",
    "Routed",
    "ShedReason",
    "Slice",
    "Unjournaled",
    "Verdict",
]


class Verdict(enum.StrEnum):
    """The result of a comparison. Only `match` and `excused` mean that both stores agree."""

    MATCH = "match"
    EXCUSED = "excused"
    TRANSIENT = "transient"
    LAGGING = "lagging"
    MISMATCH = "mismatch"
    INCOMPARABLE = "incomparable"
    SHED = "shed"


class Kind(enum.StrEnum):
    """How the stores differ: one list for comparison, verify, repair, metrics and console.

    `count`: answers of different length in which no document can be named. `version_lost`: the secondary has another
    version than the primary, and nothing is under way. `write_result`: the same write from the same version had another
    result on the secondary: another image, or no match. `error_...`: one store refused what the other answered. If both
    refused with different classes of error, it is `type` at the path `ERROR_PATH`."""

    MISSING = "missing_in_secondary"
    EXTRA = "extra_in_secondary"
    VALUE = "value"
    TYPE = "type"
    ORDER = "order"
    COUNT = "count"
    ERROR_PRIMARY_ONLY = "error_primary_only"
    ERROR_SECONDARY_ONLY = "error_secondary_only"
    VERSION_LOST = "version_lost"
    WRITE_RESULT = "write_result"
    UNREADABLE = "unreadable"


ERROR_PATH: Final = "$error"
"""The path of a difference between two errors. The types are the names of their classes."""


MATCHED_PATH: Final = "$matched"
"""The path of a write that matched a document on one side only."""


DOCUMENT_PATH: Final = "$document"
"""The path of a document that only one side has."""


COUNT_PATH: Final = "$count"
"""The path of a difference between two document counts."""


ORDER_PATH: Final = "$order"
"""The path of a difference in the order of two answers."""


VERSION_PATH: Final = "$version"
"""The path of a difference between two versions."""


class Incomparable(enum.StrEnum):
    """Why a comparison can say neither equal nor different.

    What the server leaves open: `unsorted_limit` a limit or skip without a sort; `projected_sort` the answer lacks the
    fields of the sort; `pipeline_order` the pipeline depends on an order that it does not fix; `rounding` the last
    digits of a sum of doubles; `field_order` the order of fields after several stages; `estimate` an estimated count;
    `chance` a filter with `$rand` or `$sampleRate`.
    What cannot be seen: `projected_bytes` a projection of a document that is kept as its bytes; `left_early` a cursor
    that was abandoned; `refused_replay` a write that only the primary can make; `failed` the primary or the journal did
    not answer the probe; `no_difference` two answers that differ although nothing in them does; `not_portable` a read
    or a write that DynamoDB does not support; `expiring` a join with a collection whose documents expire; `transaction`
    a read within a transaction, which sees what no other read can.
    """

    UNSORTED_LIMIT = "unsorted_limit"
    PROJECTED_SORT = "projected_sort"
    PIPELINE_ORDER = "pipeline_order"
    ROUNDING = "rounding"
    FIELD_ORDER = "field_order"
    ESTIMATE = "estimate"
    CHANCE = "chance"
    PROJECTED_BYTES = "projected_bytes"
    LEFT_EARLY = "left_early"
    REFUSED_REPLAY = "refused_replay"
    FAILED = "failed"
    NO_DIFFERENCE = "no_difference"
    TRANSACTION = "transaction"
    NOT_PORTABLE = "not_portable"
    EXPIRING = "expiring"


class Slice(enum.StrEnum):
    """Whether a read of a collection in phase shadow was shadowed, or held out at random for measurement."""

    SHADOWED = "shadowed"
    LEFT_OUT = "left_out"


class Bypass(enum.StrEnum):
    """What an out-of-band write did, as far as both stores show it."""

    CHANGED = "changed"
    REPLACED = "replaced"
    INSERTED = "inserted"
    DELETED = "deleted"


class ShedReason(enum.StrEnum):
    """Why a shadow read was not done or not finished."""

    LANE_FULL = "lane_full"
    DEADLINE = "deadline"
    SECONDARY_DOWN = "secondary_down"
    TOO_LARGE = "too_large"
    LOOP_LAG = "loop_lag"
    CLOSING = "closing"


class Routed(enum.StrEnum):
    """Why a read was answered by its store, in a collection with a share for the secondary. `share` is the one reason
    for the secondary; all others are for the primary."""

    SHARE = "share"
    OUTSIDE = "outside_share"
    OPEN = "open_write"
    """A write of the document (or, for a read not by key, of the collection) may not have reached the secondary."""
    SLOW = "secondary_slow"
    DOWN = "secondary_down"
    ERROR = "secondary_error"
    TOO_LARGE = "too_large"
    JOINS = "joins"
    """It reads another collection, which may not be replicated to the secondary."""
    JOURNAL = "journal"
    """The journal could not be asked for open writes."""
    DOUBTED = "doubted"
    """Intents of the collection may be lost; it must be verified."""
    SESSION = "session"
    """It belongs to a session, which has to see its own writes."""


class Deferral(enum.StrEnum):
    """Why a write was left to its intent instead of being replayed at once."""

    LANE_FULL = "lane_full"
    DEADLINE = "deadline"
    SECONDARY_DOWN = "secondary_down"
    SECONDARY_ERROR = "secondary_error"
    PRIMARY_UNKNOWN = "primary_unknown"
    CLOSING = "closing"
    NOT_FOLLOWED = "not_followed"
    """Since the write, the collection has changed to a phase that writes one store only."""
    ROLLED_BACK = "rolled_back"
    """Its transaction was aborted, or had to be given up; that nothing changed is confirmed by reading."""


class Unjournaled(enum.StrEnum):
    """What happened to a write that was made without an intent."""

    TAKEN = "taken"
    DOUBTED = "doubted"


class Healing(enum.StrEnum):
    """The result of repairing one key, or in a dry run its expected result: in the replicator, the jobs and the
    commands."""

    EQUAL = "equal"
    """Both stores hold the same already."""
    COPIED = "copied"
    TOMBSTONED = "tombstoned"
    UNSETTLED = "unsettled"
    """Repaired, but the entry of the journal can't be settled yet."""
    IN_FLIGHT = "in_flight"
    """An operation of a process that is alive has the key."""
    NOT_FOLLOWED = "not_followed"
    """The collection is in a phase that writes one store only."""
    REVERSED = "reversed"
    """The secondary is ahead of the primary."""
    CONTENDED = "contended"
    """It changed meanwhile."""
    REFUSED = "refused"
    """The secondary refuses to hold the document."""
    UNREADABLE = "unreadable"
    """What the primary holds can't be read."""
    FAILED = "failed"


HEALED: Final = frozenset((Healing.EQUAL, Healing.COPIED, Healing.TOMBSTONED))
"""After these both stores hold the same."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two documents differ. Never a value: the path, the types, and keyed hashes of the values.

    `path` is dotted, with list positions as numbers and `*` for names that are data. Types are BSON type names (`$type`
    aliases) or "missing".
    """

    kind: Kind
    path: str
    primary_type: str = "missing"
    secondary_type: str = "missing"
    primary_hash: str = ""
    secondary_hash: str = ""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A confirmed mismatch of one document, or of a whole answer (`key` is None). Raises ValueError if no difference is
    given."""

    collection: str
    verb: Verb
    kind: Kind
    key: Key | None
    differences: tuple[Difference, ...]
    primary_state: State | None = None
    secondary_state: State | None = None
    healed: bool = False

    def __post_init__(self) -> None:
        if not self.differences:
            raise ValueError(f"a mismatch ({self.kind}) without a difference")
