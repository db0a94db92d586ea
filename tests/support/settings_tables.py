"""The tables of the settings in the manual: names, values and defaults from the code, meanings from here.

A setting without a meaning, and a meaning without a setting, is a KeyError when the tables are made.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from shadow.config import CollectionSettings, Settings
from shadow.config.hooks import HookSettings
from shadow.config.reads import GuardSettings, RampSettings
from shadow.stores.dynamo.client.settings import TableSettings

__all__ = ["BLOCKS", "table"]

_SHARE: Final = "0.0 to 1.0"

COLLECTION: Final = {
    "primary": ("", "the store that answers"),
    "phase": ("", "what the secondary does: see [phases](concepts.md#phases)"),
    "writes": (
        "",
        "`background`: answer at once; `sync`: answer after the secondary was tried; `strict`: answer only if the "
        "secondary took it too (`SecondaryWriteError` otherwise)",
    ),
    "shadow_reads": (_SHARE, "the share of reads that is repeated on the secondary"),
    "unsupported": (
        "",
        "what DynamoDB does not support, while MongoDB is the primary: `pass` leaves it to MongoDB alone, `refuse` "
        "refuses it as after the flip: see [not portable](concepts.md#not-portable)",
    ),
    "accept_not_portable": (
        "`[$where, collation]`",
        "operators and options that the application may lose by the flip: they close no gate",
    ),
    "forced": ("a reason", "makes a change of `primary` in the file although gates are closed; kept in the receipt"),
    "reads": (
        "`{dynamo: 5%}`",
        "the share of reads that this store answers while it is the secondary: see "
        "[percent reads](concepts.md#percent-reads); or a ramp of shares: see [ramps](#ramps)",
    ),
    "slower": (
        "a factor",
        "the 95th percentile of the secondary against the primary's above which the gate `fast enough` is closed; 0: "
        "switched off",
    ),
    "indexes": (
        "`[{name, hash, range}]`",
        "global secondary indexes of the table; `hash` is a field, or a list of two to four fields that a filter must "
        "fix together",
    ),
    "unique": (
        "`[field]` or `[{name, fields, sparse, collation}]`",
        "unique constraints, held on both stores; `collation`: see [indexes](compatibility.md#indexes)",
    ),
    "reserved": ("a field name", "where the version is kept in each document; hidden from the application"),
    "compare": (
        "`[{rule, name, path, expires}]`",
        "differences that are meant: see [comparison rules](concepts.md#comparison-rules)",
    ),
    "expires": (
        "`{field, after}`",
        "the TTL index of MongoDB: documents expire `after` seconds after the date in `field`, on both stores: see "
        "[documents that expire](compatibility.md#documents-that-expire)",
    ),
    "accept_lost_indexes": (
        '`[name]`, `["*"]`',
        "indexes of MongoDB whose loss is acknowledged: see [indexes](compatibility.md#indexes)",
    ),
    "reveal_fields": ("`[path]`", "fields of which the console may show a finding's values, on request and logged"),
    "table": ("", "settings of its table on DynamoDB: see [tables](#tables)"),
}
DEFAULTS: Final = {
    name: COLLECTION[name]
    for name in ("primary", "phase", "writes", "shadow_reads", "unsupported", "forced", "reads", "slower")
}
RAMP: Final = {
    "ramp": ("`[1%, 5%, 25%, 50%]`", "the shares, rising; the first one comes as soon as the guards hold"),
    "every": ("`30m`, or seconds", "for which the guards must have held at a share before the next one"),
    "back": ("", "the share after a guard has broken: `zero`, or that of the `step` before; the ramp stops there"),
    "guards": ("", "the limits, below"),
}
GUARDS: Final = {
    "mismatches": ("`0.1%` or 0.001", "of the comparisons: how many may differ, beyond the noise"),
    "errors": ("`1%` or 0.01", "of the reads of the share: how many may fail or be late, beyond those of the primary"),
    "slower": ("a factor, 0 to 1000", "their 95th percentile against that of the primary's reads; 0: switched off"),
    "throttled": ("`1%` or 0.01", "of the requests to DynamoDB: how many may be throttled"),
    "at_least": ("a number", "reads and comparisons within `window` below which a figure proves nothing"),
    "window": ("`5m`, or seconds", "the time that the figures are of, at the current share"),
}
HOOK: Final = {
    "name": ("a name", "of the hook, for log lines and metrics"),
    "events": ("a list", "what it is called for: see [events](concepts.md#hooks)"),
    "command": ("`[program, argument]`", "a program, without a shell; it gets the JSON on its standard input"),
    "url": ("an address", "or a webhook, which gets the JSON as a POST; no redirects; it may hold a token"),
    "secret": ("16 characters or more", "signs the requests of the webhook"),
    "timeout": ("seconds", "for one attempt"),
    "retries": ("", "attempts after the first one that got no answer, with growing pauses, in the background"),
    "veto": ("", "a flip waits for its answer before it pauses writes, and is not made unless it agrees"),
    "unanswered": ("", "with `veto`: no answer within `timeout` is a veto too"),
}
MONGO: Final = {
    "url": ("a connection string", "where MongoDB is; it may hold a password, so it is a secret"),
    "database": ("a name", "the database; without it, the one in the path of `url`"),
    "driver": ("", "Motor, or PyMongo's own async client, its successor"),
    "weak_writes": (
        "",
        "writes whose write concern a replica set could roll back (`w=0`, `w=1`): `raise` them to `w: majority`, or "
        "`refuse` them",
    ),
}
DYNAMO: Final = {
    "endpoint_url": ("an address", "for DynamoDB Local: `http://127.0.0.1:8000`"),
    "region": ("a region", "also `AWS_REGION`"),
    "table_prefix": ("a text", "put before the name of the collection"),
    "access_key_id": ("a secret", "better from the environment, or from wherever your AWS SDK finds it"),
    "secret_access_key": ("a secret", "as `access_key_id`"),
    "session_token": ("a secret", "as `access_key_id`"),
    "max_concurrency": ("", "requests under way at once, and the size of the connection pool"),
    "scan_segments": ("", "segments of a large table that are scanned at once"),
    "connect_timeout": ("seconds", "to connect"),
    "read_timeout": ("seconds", "for an answer"),
    "max_attempts": ("", "attempts for a request, the first one included"),
    "retry_mode": ("", "the SDK's rules for repeating requests"),
    "requests": (
        "",
        "`sdk` sends requests on items through the SDK's hooks, for tools that listen there; far more processor time",
    ),
    "table": ("", "settings of all tables: see [tables](#tables)"),
    "verify_index_reads": ("", "read each document that an index names from the table too, which is consistent"),
    "transactional_inserts": (
        "",
        "send an ordered `insert_many` in transactions of up to 100 documents: few round trips, twice the write units",
    ),
    "sweep_every": (
        "seconds",
        "between two searches for parts of large documents that a crash left behind, by one process for all; 0: never",
    ),
    "prepare_timeout": ("seconds", "to wait until tables and indexes can be used"),
}
TABLE: Final = {
    "billing": ("", "how capacity is paid for"),
    "read": ("1 to 1,000,000 units a second", "with `provisioned`: for the table, and for each of its indexes"),
    "write": ("1 to 1,000,000 units a second", "as `read`"),
    "point_in_time_recovery": ("", "continuous backups"),
    "deletion_protection": ("", "whether the table refuses to be deleted"),
    "stream": (
        "",
        "whether the table gets a stream with both images, which `observe.follow_writers` needs; without it, as that "
        "setting says; a stream is never switched off",
    ),
    "tags": ("`{name: value}`", "up to 50; other tags on the table stay"),
}
JOURNAL: Final = {
    "url": ("see below", "where the journal is; it may hold a password, so it is a secret"),
    "synchronous": ("", "SQLite: `NORMAL` survives the death of the process, `FULL` also that of the operating system"),
    "max_bytes": ("1,048,576 or more", "SQLite: the most that the file may hold; beyond that it counts as full"),
    "on_failure": (
        "",
        "writes while the journal cannot be written: `refuse` them, or `sync`: write both stores and wait for both",
    ),
}
CONTROL: Final = {
    "url": ("as `journal.url`", "where the control store is; without it, where the journal is"),
    "heartbeat": ("seconds", "between two signs of life of a process, and between two checks for a flip that begins"),
    "keep_not_portable": (
        "seconds, or `12h`, `30d`",
        "an operator that only MongoDB has is forgotten when no process used it for so long: see "
        "[not portable](concepts.md#not-portable)",
    ),
}
LIMITS: Final = {
    "operation": ("", "the longest that one operation on the primary can last; any process may adopt an older intent"),
    "late_writes": (
        "",
        "how late a write without an answer may be applied: its key is compared again until then",
    ),
    "write_deadline": ("", "for one write on the secondary; after that the journal takes care of it"),
    "read_deadline": ("", "for one shadow read; after that it is shed, and counted"),
    "routed_read": ("", "for a read that the secondary answers (`reads`); after that the primary answers it"),
    "write_workers": ("a number", "writes that are replicated at once"),
    "write_queue": (
        "a number",
        "writes that the work queue holds in memory, and five times as many of calls for many documents; beyond that "
        "they wait in the journal",
    ),
    "read_workers": ("a number", "shadow reads under way at once"),
    "read_queue": ("a number", "shadow reads that wait; beyond that they are shed"),
    "compare_documents": ("a number", "documents of one answer that are kept for comparison; a longer answer is shed"),
    "loop_lag": ("", "how late the event loop may be before reads are shed instead of shadowed; 0: never"),
    "settle": ("", "between the first sight of a difference and the next probe: what settles within it is transient"),
    "minimum_age": ("", "how long a difference must have lasted, with both stores still, before it is confirmed"),
    "index_age": ("", "the same if only an eventually consistent index shows it"),
    "confirmations": ("a number", "probes before a difference that new writes keep disturbing is called lagging"),
    "recover_every": ("", "between two searches of the journal for keys to repair"),
    "recover_batch": ("a number", "keys that one such search takes"),
    "in_flight_timeout": (
        "",
        "no flip within this time of a request to the secondary that timed out and may still arrive",
    ),
    "drain": ("", "for the end of the program, and for a flip: what is not done by then stays in the journal"),
}
OBSERVE: Final = {
    "hash_secret": ("a secret", "the key of the hashes that stand for keys and values; without it, one for each host"),
    "reveal_keys": ("", "log lines and findings show keys instead of their hashes"),
    "noise_share": (_SHARE, "of the shadowed reads: also compared primary against primary, to know the noise"),
    "holdout": (_SHARE, "the holdout: reads that are not shadowed, to measure what shadowing costs"),
    "canary_every": ("seconds", "between two differences that are injected into a collection's answers"),
    "canary_within": ("seconds", "within which one must be found, or the comparison counts as not working"),
    "metrics": (
        "",
        "where metrics are shown: at `/metrics`, by the application's meter of OpenTelemetry, or both: see "
        "[OpenTelemetry](metrics.md#opentelemetry-and-statsd)",
    ),
    "traces": (
        "",
        "calls, and the work that they cause, have spans of OpenTelemetry, where the application has configured them",
    ),
    "trace_statements": (
        "",
        "the spans of calls have the form of the query: fields and operators, with `?` for each value",
    ),
    "watch_writers": (
        "",
        "finds out-of-band writes with MongoDB's change streams; in one process of all; needs a replica set",
    ),
    "follow_writers": (
        "",
        "finds out-of-band writes to the primary, with MongoDB's change stream (needs a replica set) or the [streams]"
        "(concepts.md#streams-of-dynamodb) of DynamoDB's tables, and repairs their documents; in every process",
    ),
}
ADMIN: Final = {
    "token": (
        "16 to 512 characters",
        "lets its holder read from anywhere, repair, reveal and flip; better `SHADOW_ADMIN_TOKEN`. Without it this "
        "machine alone may read, and nobody may act",
    ),
}
PRICES: Final = {
    "write_million": ("dollars", "a million write request units"),
    "read_million": ("dollars", "a million read request units"),
    "storage_gb_month": ("dollars", "a gigabyte for a month"),
}
OTHER: Final = {
    "hooks": ("a list", "commands and webhooks: see [hooks](#hooks)"),
    "watch_every": ("seconds", "between two checks of the configuration file"),
    "docs_url": ("an address", "where this manual is on the web: see [links to the manual](#links-to-the-manual)"),
}


def _section(name: str) -> type[BaseModel]:
    return typing.cast("type[BaseModel]", Settings.model_fields[name].annotation)


BLOCKS: Final[Mapping[str, tuple[type[BaseModel], str, Mapping[str, tuple[str, str]]]]] = {
    "settings of a collection": (CollectionSettings, "", COLLECTION),
    "settings of defaults": (_section("defaults"), "defaults", DEFAULTS),
    "settings of a ramp": (RampSettings, "", RAMP),
    "settings of guards": (GuardSettings, "", GUARDS),
    "settings of a hook": (HookSettings, "", HOOK),
    "settings of mongo": (_section("mongo"), "mongo", MONGO),
    "settings of dynamo": (_section("dynamo"), "dynamo", DYNAMO),
    "settings of a table": (TableSettings, "", TABLE),
    "settings of journal": (_section("journal"), "journal", JOURNAL),
    "settings of control": (_section("control"), "control", CONTROL),
    "settings of limits": (_section("limits"), "limits", LIMITS),
    "settings of observe": (_section("observe"), "observe", OBSERVE),
    "settings of admin": (_section("admin"), "admin", ADMIN),
    "settings of prices": (_section("prices"), "prices", PRICES),
    "other settings": (Settings, "", OTHER),
}
"""Each table: the model, its section in the file, and for each setting (values in words, meaning)."""


def table(name: str) -> str:
    model, section, words = BLOCKS[name]
    fields = dict(_fields(model))
    if fields.keys() != words.keys():
        raise KeyError(f"{name}: {sorted(fields.keys() ^ words.keys())} has no row, or no setting")
    rows = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for each, info in fields.items():
        values, meaning = words[each]
        path = f"{section}.{each}" if section else each
        rows.append(f"| `{path}` | {_values(info, values)} | {_default(info)} | {meaning} |")
    return "\n".join(rows)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if model is not Settings or (name != "collections" and not _is_model(info.annotation)):
            yield name, info


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _values(info: FieldInfo, words: str) -> str:
    """What the words say, the bounds, or the choices."""
    bounds = _bounds(info)
    chosen = list(_choices(info.annotation))
    if chosen and not words:
        return ", ".join(f"`{each}`" for each in chosen)
    return f"{words}, {bounds}" if words and bounds and words != _SHARE else words or bounds or "see there"


def _bounds(info: FieldInfo) -> str:
    low, high = "", ""
    for each in info.metadata:
        match each:
            case annotated_types.Ge(ge=value):
                low = f"{value:,}"
            case annotated_types.Gt(gt=value):
                low = f"above {value:,}"
            case annotated_types.Le(le=value):
                high = f"{value:,}"
    if low and high:
        return f"{low} to {high}"
    return (f"{low} or more" if low and not low.startswith("above") else low) if low else ""


def _choices(annotation: Any) -> Iterator[str]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        yield from ("true", "false")
    elif isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        yield from (each.value for each in annotation)
    elif origin is Literal:
        yield from inner
    elif origin is Annotated:
        yield from _choices(inner[0])
    elif origin in (typing.Union, types.UnionType):
        for each in inner:
            yield from _choices(each)


def _default(info: FieldInfo) -> str:
    value = "" if info.default_factory is not None else info.default
    match value:
        case SecretStr():
            return f"`{value.get_secret_value()}`"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"{value:,}"
        case "" | None | () | BaseModel():
            return "-"
        case _:
            return f"`{value}`"
