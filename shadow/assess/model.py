"""The data of an assessment. It contains no document values: only paths, types, counts, keyed hashes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from shadow.model.schema import CollectionSpec

__all__ = [
    "ITEM_BUCKETS",
    "Assessment",
    "Bucket",
    "CollectionReport",
    "Costs",
    "FieldReport",
    "Hot",
    "IndexReport",
    "KeyReport",
    "QueryReport",
    "Rates",
    "Remark",
    "RemarkKind",
    "Served",
    "Severity",
    "Sizes",
    "Units",
]

KIB = 1024
ITEM_BUCKETS = (*(KIB * 2**power for power in range(9)), 400 * KIB)
"""The upper bounds of the histogram in bytes; the last one is the limit of an item."""


class Severity(enum.StrEnum):
    BLOCKER = "blocker"
    """Must be fixed before the migration: calls of the application would fail."""
    WARNING = "warning"
    """Works, but slower, at higher cost, or differently."""
    NOTE = "note"


class RemarkKind(enum.StrEnum):
    """The subject of a remark."""

    VALIDATOR = "validator"
    RESERVED = "reserved field"
    NAME = "name"
    NOT_MOVED = "not moved"
    OPTION = "option"
    LARGE = "large documents"
    NESTED = "nested documents"
    UNREADABLE = "unreadable"
    BLOB = "kept as BSON"
    KEY = "keys"
    HOT = "hot key"
    INDEX = "index"
    QUERY = "query"
    SAMPLE = "sample"
    RIGHTS = "rights"
    NOT_PORTABLE = "not portable"


@dataclass(frozen=True, slots=True)
class Remark:
    severity: Severity
    kind: RemarkKind
    collection: str
    """The collection; "" for the whole database."""
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Documents of at most `upto` bytes, and larger than the previous bucket; None: over the limit of an item."""

    upto: int | None
    documents: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """In bytes, as DynamoDB counts an item with everything that shadow adds. Over the limit: the size that the item
    would have. `unnamed` documents have a field name that no item can have, so they are kept compressed."""

    histogram: tuple[Bucket, ...] = ()
    smallest: int = 0
    median: int = 0
    p99: int = 0
    largest: int = 0
    near: int = 0
    """Documents within a tenth of the limit."""
    compressed: int = 0
    """Documents kept as one item of compressed BSON."""
    split: int = 0
    """Documents split over several items."""
    most_parts: int = 0
    unnamed: int = 0
    bson_bytes: int = 0
    item_bytes: int = 0
    """All documents read: items and their parts, without indexes."""


@dataclass(frozen=True, slots=True)
class BoundsReached:
    """Documents within a tenth of a limit of one of the stores, or beyond it: bytes of BSON, levels of nesting, unique
    values in one document; and those with a top-level name that begins with `$`."""

    near_size: int = 0
    no_room: int = 0
    """So close to 16 MB that a version does not fit."""
    near_depth: int = 0
    near_values: int = 0
    too_many_values: int = 0
    dollar: int = 0


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One type of value at one path, its form on DynamoDB, and its count."""

    path: str
    type: str
    form: str
    count: int


@dataclass(frozen=True, slots=True)
class Hot:
    """The share of the documents (or of the recorded queries) that one value of a key has."""

    hash: str
    share: float


@dataclass(frozen=True, slots=True)
class KeyReport:
    """How a field's values work as a key: `exact` ones are in the key unchanged or escaped, `aside` ones (by type) as a
    digest with the value beside it. In an index, `absent` ones have no entry and `arrays` share one."""

    path: str
    limit: int
    exact: int
    escaped: int
    absent: int
    arrays: int
    aside: dict[str, int]
    types: dict[str, int]
    longest: int


@dataclass(frozen=True, slots=True)
class IndexReport:
    """An index of MongoDB, or one for recorded queries, and what it becomes."""

    name: str
    keys: str
    options: tuple[str, ...]
    becomes: str
    configured: bool
    """Whether the suggested configuration has an equivalent."""
    target: str = ""
    """The name of its own index of the table, if it has one."""
    warning: str = ""
    """What changes, or why there is no equivalent."""
    uses: int | None = None
    """Since the server started, if the server reports it."""
    entries: float = 0.0
    """The share of the documents that have an entry in the index on DynamoDB."""
    values: int = 0
    """The number of distinct values of its hash."""
    hottest: tuple[Hot, ...] = ()


class Served(enum.StrEnum):
    """How DynamoDB answers a query, with the suggested indexes."""

    KEY = "key"
    INDEX = "index"
    SCAN = "scan"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class QueryReport:
    """A shape of query. `detail`: the index, or what is refused. `units`: estimated read units of one run."""

    collection: str
    verb: str
    shape: str
    count: int
    served: Served
    detail: str
    sorted_here: bool
    suggestion: str
    units: float | None = None
    hottest: tuple[Hot, ...] = ()
    """Of the keys that were queried."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations per second; None if unknown. `source` says where the figures come from."""

    inserts: float | None = None
    updates: float | None = None
    deletes: float | None = None
    reads: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Units:
    """Request units of one operation on an average document, its indexes included. `item`: write units of the item
    alone, which are also those of one index."""

    item: float
    copy: float
    insert: float
    update: float
    delete: float
    read: float
    scan: float
    """Read units of one scan of the whole table."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Dollars; None if no rate is known. A month has 730 hours."""

    copy: float
    verify: float
    storage_month: float
    dual_write_month: float | None
    """Every write of the application also goes to DynamoDB."""
    full_month: float | None
    """Every read as well: in phase `shadow`, and after the flip."""
    copy_seconds: float
    copy_bound: str
    """What limits the speed of the copy."""
    write_units_second: float | None
    read_units_second: float | None


@dataclass(frozen=True, slots=True)
class CollectionReport:
    name: str
    documents: int
    looked_at: int
    whole: bool
    mongo_bytes: int | None
    dynamo_bytes: float
    """As billed: the table with all its indexes."""
    stamped: int
    """Documents that already have a version of shadow."""
    deepest: int
    """Nested containers, not counting the document itself."""
    spec: CollectionSpec
    sizes: Sizes
    fields: tuple[FieldReport, ...]
    keys: tuple[KeyReport, ...]
    indexes: tuple[IndexReport, ...]
    rates: Rates
    units: Units
    costs: Costs
    reach: BoundsReached = BoundsReached()


@dataclass(frozen=True, slots=True)
class Assessment:
    """The whole assessment. `left_out`: collections that are not migrated, and why."""

    database: str
    server: str
    taken: str
    """The time in UTC, ISO 8601."""
    sampled: str
    collections: tuple[CollectionReport, ...]
    left_out: dict[str, str]
    queries: tuple[QueryReport, ...]
    queries_from: str
    remarks: tuple[Remark, ...] = field(default=())

    @property
    def blockers(self) -> int:
        return sum(remark.severity is Severity.BLOCKER for remark in self.remarks)
