"""The sections of the settings, frozen."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from shadow.config.fields import (
    FROZEN,
    OURS,
    Factor,
    FieldPath,
    Name,
    PhaseField,
    Reason,
    Share,
    as_duration,
    check_constraint_name,
    check_index_name,
    check_journal_url,
    check_mongo_url,
    said_twice,
)
from shadow.config.reads import ReadsSettings
from shadow.model.limits import Watch
from shadow.model.phase import Phase, StoreName, Unsupported, WriteMode
from shadow.model.schema import CollationSpec, IndexSpec, UniqueSpec
from shadow.settings.names import database_name, top_level_field
from shadow.stores.dynamo.client.settings import MOST_INDEXES
from shadow.stores.mongo.checks import database_of_url
from shadow.stores.mongo.durability import WeakWrites
from shadow.surface.calls.options import kept_by_url
from shadow.writes.intents import OnFailure

__all__ = [
    "AdminSettings",
    "ControlSettings",
    "Defaults",
    "ExpirySettings",
    "IndexSettings",
    "JournalSettings",
    "MetricsOutput",
    "MongoSettings",
    "ObserveSettings",
    "ReadsSettings",
    "UniqueSettings",
    "as_unique",
    "check_indexes",
]


class MongoSettings(BaseModel):
    """Where MongoDB is. `url` may hold a password, so it is a secret. `database` defaults to the one in the path of
    `url`, if there is one."""

    model_config = FROZEN

    url: Annotated[SecretStr, AfterValidator(check_mongo_url)] = SecretStr(
        "mongodb://127.0.0.1:27017/?directConnection=true"
    )
    database: Annotated[Name, AfterValidator(database_name)] = "notesllm"
    driver: Literal["motor", "pymongo"] = "motor"
    weak_writes: WeakWrites = WeakWrites.RAISE
    """What to do with writes whose write concern a replica set could roll back (`w=0`, `w=1`): `raise` them to
    `w: majority`, or `refuse` them."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_url(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("database") is not None or given.get("url") is None:
            return given
        url = given["url"]
        named = database_of_url(url.get_secret_value() if isinstance(url, SecretStr) else str(url))
        return given if named is None else {**given, "database": named}

    @model_validator(mode="after")
    def _acknowledged(self) -> Self:
        kept = kept_by_url(self.url.get_secret_value())
        if self.weak_writes is WeakWrites.REFUSE and not kept.write_concern.acknowledged:
            raise ValueError("mongo.url has w=0, which weak_writes: refuse excludes: set w=majority in the url")
        return self


class JournalSettings(BaseModel):
    """Where the journal is kept. `url` may hold a password, so it is a secret:

    - `sqlite:///path`: a file, which the processes of one host may share.
    - `mongodb://host/database?journal=name` (or `mongodb+srv:`), with any other options of a connection string: three
      collections whose names begin with `name` (`shadow_journal`). Without a host: the server of section `mongo`;
      without a database: its database.
    - `dynamodb://table`: a table of its own; region, endpoint and credentials are those of section `dynamo`.

    `synchronous` is SQLite's: NORMAL survives the death of the process, FULL also that of the operating system.
    """

    model_config = FROZEN

    url: Annotated[SecretStr, AfterValidator(check_journal_url)] = SecretStr("sqlite:///var/shadow.db")
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    max_bytes: Annotated[int, Field(ge=2**20)] | None = None
    """The most bytes for SQLite's file; beyond that it counts as full."""
    on_failure: OnFailure = OnFailure.REFUSE
    """What to do with writes while the journal cannot be written: `refuse` them, or `sync`: write both stores and wait
    for both."""

    @property
    def kind(self) -> Literal["sqlite", "mongodb", "dynamodb"]:
        scheme = urlsplit(self.url.get_secret_value()).scheme
        return "sqlite" if scheme == "sqlite" else "dynamodb" if scheme == "dynamodb" else "mongodb"

    @property
    def path(self) -> Path:
        """SQLite's file; for a journal on a server, a path beside which local files are kept."""
        if self.kind != "sqlite":
            return Path("var") / "shadow.db"
        return Path(self.url.get_secret_value().removeprefix("sqlite:///"))

    @property
    def table(self) -> str:
        """DynamoDB's."""
        return urlsplit(self.url.get_secret_value()).netloc

    @property
    def name(self) -> str:
        """The journal's name among others in the same database."""
        return dict(parse_qsl(urlsplit(self.url.get_secret_value()).query)).get("journal", "")

    @property
    def place(self) -> str:
        """For display: the url without credentials and options."""
        if self.kind == "sqlite":
            return str(self.path)
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def mongo(
        self, stores: MongoSettings, *, option: str = "journal", name: str = "shadow_journal"
    ) -> tuple[str, str, str]:
        """The connection string, the database, and the prefix of the collections: the value of `option`, or `name`."""
        parts = urlsplit(self.url.get_secret_value())
        options = parse_qsl(parts.query, keep_blank_values=True)
        name = dict(options).get(option) or name
        query = urlencode([(key, value) for key, value in options if key not in OURS], safe=":/,")
        url = urlunsplit(parts._replace(query=query)) if parts.netloc else stores.url.get_secret_value()
        return url, parts.path.strip("/") or stores.database, name


class ControlSettings(BaseModel):
    """Where the control store is, through which processes agree on routing, flips and jobs. `url` is like the
    journal's:

    - `sqlite:///path`: for the processes of one host;
    - `mongodb://host/database?control=name`: one collection (`shadow_control`); without a host, the server of section
      `mongo`;
    - `dynamodb://table`: a table of its own, or the journal's.

    Without a `url` it is where the journal is: a file beside SQLite's, or the same database or table.
    """

    model_config = FROZEN

    url: Annotated[SecretStr, AfterValidator(check_journal_url)] | None = None
    heartbeat: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds between two heartbeats of a process, and between two checks for a flip that begins."""
    keep_not_portable: Annotated[float, BeforeValidator(as_duration), Field(gt=0, le=366 * 86_400)] = 30 * 86_400.0
    """Seconds after which an operator that only MongoDB has, and that no process used, is forgotten."""


class MetricsOutput(enum.StrEnum):
    PROMETHEUS = "prometheus"
    OTEL = "otel"
    BOTH = "both"


class ObserveSettings(BaseModel):
    """`hash_secret` is the key of the hashes that stand for keys and values. Default: a random one for each host."""

    model_config = FROZEN

    hash_secret: SecretStr | None = None
    reveal_keys: bool = False
    noise_share: Share = 0.01
    """The share of shadowed reads that is also compared primary against primary."""
    holdout: Share = 0.01
    """The share of reads that is not shadowed, to measure the cost of shadowing."""
    canary_every: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Seconds between two injected differences in a collection."""
    canary_within: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Seconds within which an injected difference must be found, or the comparison counts as not working."""
    watch_writers: bool = False
    """Whether MongoDB's change streams are watched for out-of-band writes. Set it for one process of a fleet, since
    each watching process counts all of them. Needs a replica set."""
    metrics: MetricsOutput = MetricsOutput.PROMETHEUS
    """Where metrics are shown: at `/metrics`, by a meter of OpenTelemetry, or both."""
    traces: bool = True
    """Whether calls, and the work that they cause, have spans of OpenTelemetry, where the application has configured
    a provider of them."""
    trace_statements: bool = False
    """Whether the spans of calls have the form of the query: names of fields and operators, with `?` for each value."""

    follow_writers: bool = False
    """Whether out-of-band writes to the primary are relayed: found in its change stream, or in the streams of its
    tables, and repaired. Set it for every process: one of them relays, and the others can take over. Needs a replica
    set, and a stream of each table."""

    def watch(self) -> Watch:
        return Watch(self.noise_share, self.holdout, self.canary_every, self.canary_within)


def _admin_token(token: Any) -> Any:
    """An empty token means none, because compose files cannot omit a variable."""
    text = token.get_secret_value() if isinstance(token, SecretStr) else token
    if text is None or text == "":
        return None
    if not isinstance(text, str) or not 16 <= len(text) <= 512 or not text.isascii() or not text.isprintable():
        raise ValueError("must be 16 to 512 printable ASCII characters; `openssl rand -hex 24` makes one")
    return text


class AdminSettings(BaseModel):
    """`token` lets its holder read findings and the console from anywhere, repair, reveal and flip. Without it they can
    be read from this machine only, and nothing can be changed."""

    model_config = FROZEN

    token: Annotated[SecretStr | None, BeforeValidator(_admin_token)] = None


class Defaults(BaseModel):
    """The settings of a collection where its entry does not override them."""

    model_config = FROZEN

    primary: StoreName = StoreName.MONGO
    phase: PhaseField = Phase.SHADOW
    writes: WriteMode = WriteMode.BACKGROUND
    shadow_reads: Share = 1.0
    unsupported: Unsupported = Unsupported.PASS
    forced: Reason | None = None
    reads: ReadsSettings = ReadsSettings()
    slower: Factor = 3.0
    """By how much the secondary's 95th percentile may exceed the primary's before a flip; 0: as slow as it likes."""


class IndexSettings(BaseModel):
    """`hash` is a field, or a list of fields that a filter must all fix to use the index."""

    model_config = FROZEN

    name: Annotated[Name, AfterValidator(check_index_name)]
    hash: Name | Annotated[tuple[Name, ...], Field(min_length=2, max_length=4)]
    range: Name | None = None

    @field_validator("hash", "range")
    @classmethod
    def _top_level(cls, fields: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for each in (fields,) if isinstance(fields, str) else fields or ():
            top_level_field(each)
        return fields

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = said_twice(self.fields)
        if twice:
            raise ValueError(f"different fields: {twice} occurs twice")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        hash = (self.hash,) if isinstance(self.hash, str) else self.hash
        return hash if self.range is None else (*hash, self.range)

    def spec(self, reserved: str) -> IndexSpec:
        if isinstance(self.hash, str):
            return IndexSpec(self.name, self.hash, self.range)
        return IndexSpec(self.name, f"{reserved}_by_{self.name}", self.range, self.hash)


class CollationSettings(BaseModel):
    """By which texts are equal: strength 1 ignores case and accents, 2 only case."""

    model_config = FROZEN

    locale: Literal["en", "en_US"]
    strength: Literal[1, 2]


class UniqueSettings(BaseModel):
    model_config = FROZEN

    name: Annotated[Name, AfterValidator(check_constraint_name)]
    fields: Annotated[tuple[FieldPath, ...], Field(min_length=1, max_length=32)]
    sparse: bool = False
    collation: CollationSettings | None = None

    @field_validator("fields")
    @classmethod
    def _each_once(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        twice = said_twice(fields)
        if twice:
            raise ValueError(f"different fields: {twice} occurs twice")
        if fields == ("_id",):
            raise ValueError("must be another field: _id is always unique")
        return fields


class ExpirySettings(BaseModel):
    """The TTL index of MongoDB: documents expire `after` seconds after the date in `field`."""

    model_config = FROZEN

    field: FieldPath
    after: Annotated[int, Field(ge=0, le=2**31 - 1)]

    @field_validator("field")
    @classmethod
    def _not_the_key(cls, path: str) -> str:
        if path == "_id":
            raise ValueError("must be another field: MongoDB has no TTL index over _id")
        return path


def unique_spec(given: str | UniqueSettings) -> UniqueSpec:
    """The constraint of an entry of `unique`."""
    each = as_unique(given)
    collation = None if each.collation is None else CollationSpec(each.collation.locale, each.collation.strength)
    return UniqueSpec(each.name, each.fields, each.sparse, collation)


def as_unique(each: str | UniqueSettings) -> UniqueSettings:
    return UniqueSettings(name=f"{each}-unique", fields=(each,)) if isinstance(each, str) else each


def check_indexes(indexes: tuple[IndexSettings, ...]) -> tuple[IndexSettings, ...]:
    names = [index.name for index in indexes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"different names; {', '.join(twice)} occurs twice")
    if len(names) > MOST_INDEXES:
        raise ValueError(f"at most {MOST_INDEXES} indexes, DynamoDB's limit for a table; there are {len(names)}")
    return indexes
