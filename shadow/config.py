"""The settings: a YAML file and the environment, validated together. The environment wins over the file.

Every key can be given in the environment: `SHADOW_` and the path in capitals, joined by `_`
(`SHADOW_MONGO_URL`, `SHADOW_DEFAULTS_PHASE`, `SHADOW_COLLECTIONS_USERS_PRIMARY`); `SHADOW_COLLECTIONS` takes the whole
section as JSON. Shorthands: `USE_DYNAMODB`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_SESSION_TOKEN`.
"""

from __future__ import annotations

import difflib
import json
import os
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from shadow.compare.rules import Ignore, MissingAsNull, Rule, Tolerance, Truncate, Unordered
from shadow.concerns import kept_by_url
from shadow.control.place import ControlPlace, DynamoPlace, MongoPlace, SqlitePlace
from shadow.errors import ConfigurationError, Fault
from shadow.migrate.assess.prices import Prices
from shadow.model.phase import NO_SHARES, Phase, ReadShares, Route, StoreName, WriteMode
from shadow.model.schema import RESERVED, CollectionSpec, IndexSpec, UniqueSpec
from shadow.replicate.intents import OnFailure
from shadow.replicate.journals.dynamo_table import Access
from shadow.replicate.limits import Limits, Watch
from shadow.stores.dynamo.settings import MOST_INDEXES, DynamoSettings, TableSettings, is_table_name
from shadow.stores.mongo_durability import WeakWrites

__all__ = ["CollectionSettings", "Settings", "load", "parse", "revealed", "where"]

_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")

_OURS: Final = ("journal", "control")
"""The options of a connection string that are ours and not the driver's."""


def revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _phase(value: Any) -> Any:
    """YAML reads a bare `off` as the boolean false."""
    return "off" if value is False else value


def _journal_url(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    match parts.scheme:
        case "sqlite" if url.get_secret_value().startswith("sqlite:///") and len(parts.path) > 1:
            return url
        case "mongodb" | "mongodb+srv" if parts.path.count("/") <= 1:
            return url
        case "dynamodb" if is_table_name(parts.netloc) and not (parts.path or parts.query):
            return url
    raise ValueError(
        "must be sqlite:///relative/path.db, sqlite:////absolute/path.db, mongodb://host/database, mongodb:///database "
        "(on the server of section mongo) or dynamodb://table"
    )


def _mongo_url(url: SecretStr) -> SecretStr:
    scheme, _, rest = url.get_secret_value().partition("://")
    if scheme not in ("mongodb", "mongodb+srv"):
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    try:
        # As a plain one, so that no name is looked up; the client checks the options' values.
        parse_uri(f"mongodb://{rest}", validate=False)
    except (PyMongoError, ValueError):
        # What it says may show parts of a password.
        raise ValueError(
            "must be a connection string that PyMongo reads: `@ : / ? # [ ] %` in user and password escaped "
            "(urllib.parse.quote_plus), each host with a port from 1 to 65535 or none, each option with a value"
        ) from None
    return url


def _index_name(name: str) -> str:
    if not is_table_name(name):
        raise ValueError("must be 3 to 255 of a-z, A-Z, 0-9, `_`, `-` and `.`, as DynamoDB wants the name of an index")
    return name


def _reserved(name: str) -> str:
    if name == "_id" or name.startswith("$") or "." in name or "\0" in name:
        raise ValueError("must be a top-level field that is shadow's own: not _id, no `.` in it, no `$` before it")
    return name


def _named_once(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names that differ; {', '.join(twice)} is there twice")
    return rules


def _share_of_reads(value: Any) -> float:
    """A share as people write it: `5%`, or a number up to 1."""
    text = value.strip() if isinstance(value, str) else value
    try:
        share = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if isinstance(value, bool) or not 0.0 <= share <= 1.0:
        raise ValueError("must be a share of the reads from 0% to 100%: 5% or 0.05")
    return share


PhaseField = Annotated[Phase, BeforeValidator(_phase)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
ShareOfReads = Annotated[float, BeforeValidator(_share_of_reads)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Reason = Annotated[str, Field(min_length=3, max_length=500)]


class MongoSettings(BaseModel):
    """Where MongoDB is. `url` may hold a password, so it is a secret."""

    model_config = _FROZEN

    url: Annotated[SecretStr, AfterValidator(_mongo_url)] = SecretStr(
        "mongodb://127.0.0.1:27017/?directConnection=true"
    )
    database: Name = "notesllm"
    driver: Literal["motor", "pymongo"] = "motor"
    weak_writes: WeakWrites = WeakWrites.RAISE
    """What becomes of writes whose write concern a replica set could roll back (`w=0`, `w=1`): `raise` them to
    `w: majority`, or `refuse` them."""

    @model_validator(mode="after")
    def _acknowledged(self) -> Self:
        kept = kept_by_url(self.url.get_secret_value())
        if self.weak_writes is WeakWrites.REFUSE and not kept.write_concern.acknowledged:
            raise ValueError("mongo.url says w=0, and weak_writes is refuse: say w=majority in the url")
        return self


class JournalSettings(BaseModel):
    """Where the journal is kept. `url` may hold a password, so it is a secret:

    - `sqlite:///path`: a file; the processes of one host may share it.
    - `mongodb://host/database?journal=name` (or `mongodb+srv:`), with any other options of a connection string: three
      collections that begin with `name` (`shadow_journal`). Without a host: the server of section `mongo`; without a
      database: its database.
    - `dynamodb://table`: a table of its own; region, endpoint and credentials are those of section `dynamo`.

    `synchronous` is SQLite's: NORMAL survives the death of the process, FULL also that of the operating system.
    """

    model_config = _FROZEN

    url: Annotated[SecretStr, AfterValidator(_journal_url)] = SecretStr("sqlite:///var/shadow.db")
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    max_bytes: Annotated[int, Field(ge=2**20)] | None = None
    """The most bytes that SQLite's file may hold; beyond them it counts as full."""
    on_failure: OnFailure = OnFailure.REFUSE
    """What becomes of writes while the journal cannot be written: `refuse` them, or `sync`: write both stores and
    wait for both."""

    @property
    def kind(self) -> Literal["sqlite", "mongodb", "dynamodb"]:
        scheme = urlsplit(self.url.get_secret_value()).scheme
        return "sqlite" if scheme == "sqlite" else "dynamodb" if scheme == "dynamodb" else "mongodb"

    @property
    def path(self) -> Path:
        """Of SQLite's file; with a journal on a server, of one that stands for it where files are kept beside it."""
        if self.kind != "sqlite":
            return Path("var") / "shadow.db"
        return Path(self.url.get_secret_value().removeprefix("sqlite:///"))

    @property
    def table(self) -> str:
        """DynamoDB's."""
        return urlsplit(self.url.get_secret_value()).netloc

    @property
    def name(self) -> str:
        """Of the journal among others in the same database."""
        return dict(parse_qsl(urlsplit(self.url.get_secret_value()).query)).get("journal", "")

    @property
    def place(self) -> str:
        """For people: the url without credentials and options."""
        if self.kind == "sqlite":
            return str(self.path)
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def mongo(
        self, stores: MongoSettings, *, option: str = "journal", name: str = "shadow_journal"
    ) -> tuple[str, str, str]:
        """The connection string, the database, and what `option` names, else `name`: what the names of the
        collections begin with."""
        parts = urlsplit(self.url.get_secret_value())
        options = parse_qsl(parts.query, keep_blank_values=True)
        name = dict(options).get(option) or name
        query = urlencode([(key, value) for key, value in options if key not in _OURS], safe=":/,")
        url = urlunsplit(parts._replace(query=query)) if parts.netloc else stores.url.get_secret_value()
        return url, parts.path.strip("/") or stores.database, name


class ControlSettings(BaseModel):
    """Where the control store is, by which processes agree on routing, flips and jobs. `url` as that of the journal:

    - `sqlite:///path`: for the processes of one host;
    - `mongodb://host/database?control=name`: one collection (`shadow_control`); without a host, the server of section
      `mongo`;
    - `dynamodb://table`: a table of its own, or the journal's.

    Without one it is where the journal is: a file beside that of SQLite, the same database or table otherwise.
    """

    model_config = _FROZEN

    url: Annotated[SecretStr, AfterValidator(_journal_url)] | None = None
    heartbeat: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds between two signs of life of a process, and between two looks for a flip that begins."""


class ObserveSettings(BaseModel):
    """`hash_secret` keys the hashes that stand for keys and values; without it each process has one of its own."""

    model_config = _FROZEN

    hash_secret: SecretStr | None = None
    reveal_keys: bool = False
    noise_share: Share = 0.01
    """Of the shadowed reads, those that are also compared primary against primary."""
    left_out: Share = 0.01
    """Of the reads to be shadowed, those that are left alone, so that the cost of shadowing can be measured."""
    canary_every: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Seconds between two planted differences in a collection."""
    canary_within: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Seconds within which one must have been found, or the comparison counts as not working."""
    watch_writers: bool = False
    """Whether MongoDB's change streams are watched for writers that go past shadow; for one process of a fleet, since
    each that watches counts them all. Needs a replica set."""

    def watch(self) -> Watch:
        return Watch(self.noise_share, self.left_out, self.canary_every, self.canary_within)


def _admin_token(token: Any) -> Any:
    """An empty one is none, for compose files cannot leave a variable out."""
    text = token.get_secret_value() if isinstance(token, SecretStr) else token
    if text is None or text == "":
        return None
    if not isinstance(text, str) or not 16 <= len(text) <= 512 or not text.isascii() or not text.isprintable():
        raise ValueError("must be 16 to 512 printable ASCII characters; `openssl rand -hex 24` makes one")
    return text


class AdminSettings(BaseModel):
    """`token` lets its holder read findings and the console from anywhere, heal, reveal and flip. Without one they are
    read from this machine alone, and nothing can be done through them."""

    model_config = _FROZEN

    token: Annotated[SecretStr | None, BeforeValidator(_admin_token)] = None


class ReadsSettings(BaseModel):
    """The share of the reads that each store answers while it is the secondary, in phase `shadow`. A store that is
    the primary answers all others, so its own share has no effect."""

    model_config = _FROZEN

    mongo: ShareOfReads = 0.0
    dynamo: ShareOfReads = 0.0

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if isinstance(value, Mapping | ReadsSettings):
            return value
        raise ValueError("must name the store that answers the share: {dynamo: 5%}")

    def shares(self) -> ReadShares:
        return ReadShares(self.mongo, self.dynamo) if self.mongo or self.dynamo else NO_SHARES


class Defaults(BaseModel):
    """What a collection does unless its entry says otherwise."""

    model_config = _FROZEN

    primary: StoreName = StoreName.MONGO
    phase: PhaseField = Phase.SHADOW
    writes: WriteMode = WriteMode.BACKGROUND
    shadow_reads: Share = 1.0
    forced: Reason | None = None
    reads: ReadsSettings = ReadsSettings()


class IndexSettings(BaseModel):
    """`hash` is a field, or a list of fields which a filter has to fix all of to use the index."""

    model_config = _FROZEN

    name: Annotated[Name, AfterValidator(_index_name)]
    hash: Name | Annotated[tuple[Name, ...], Field(min_length=2, max_length=4)]
    range: Name | None = None

    @field_validator("hash", "range")
    @classmethod
    def _top_level(cls, fields: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if any("." in each for each in ((fields,) if isinstance(fields, str) else fields or ())):
            raise ValueError("must be a top-level field: DynamoDB has no index of a path")
        return fields

    def spec(self, reserved: str) -> IndexSpec:
        if isinstance(self.hash, str):
            return IndexSpec(self.name, self.hash, self.range)
        return IndexSpec(self.name, f"{reserved}_by_{self.name}", self.range, self.hash)


class UniqueSettings(BaseModel):
    model_config = _FROZEN

    name: Name
    fields: Annotated[tuple[Name, ...], Field(min_length=1)]
    sparse: bool = False


class CollectionSettings(BaseModel):
    """One collection. `unique` takes names of fields, or entries with `name`, `fields` and `sparse`; `compare` the
    rules that excuse differences; `reveal_fields` the dotted paths of which findings may show values."""

    model_config = _FROZEN

    primary: StoreName | None = None
    phase: Annotated[Phase | None, BeforeValidator(_phase)] = None
    writes: WriteMode | None = None
    shadow_reads: Share | None = None
    forced: Reason | None = None
    """Why a change of `primary` in this file is made though gates are closed; it is kept in the receipt."""
    reads: ReadsSettings | None = None
    indexes: Annotated[tuple[IndexSettings, ...], AfterValidator(_indexes)] = ()
    unique: tuple[Name | UniqueSettings, ...] = ()
    reserved: Annotated[Name, AfterValidator(_reserved)] = RESERVED
    compare: Annotated[tuple[Rule, ...], AfterValidator(_named_once)] = ()
    reveal_fields: tuple[Name, ...] = ()
    table: TableSettings = TableSettings()
    """Of its table on DynamoDB; what it leaves out, `dynamo.table` says."""

    def spec(self, name: str, tables: TableSettings | None = None) -> CollectionSpec:
        """What the stores need to know; `tables` are the settings for all tables."""
        unique = (
            UniqueSpec(f"{each}-unique", (each,))
            if isinstance(each, str)
            else UniqueSpec(each.name, each.fields, each.sparse)
            for each in self.unique
        )
        indexes = (each.spec(self.reserved) for each in self.indexes)
        table = self.table.over(tables or TableSettings())
        return CollectionSpec(name, tuple(indexes), tuple(unique), self.reserved, table)


def _indexes(indexes: tuple[IndexSettings, ...]) -> tuple[IndexSettings, ...]:
    names = [index.name for index in indexes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names that differ; {', '.join(twice)} is there twice")
    if len(names) > MOST_INDEXES:
        raise ValueError(f"at most {MOST_INDEXES} indexes: DynamoDB takes no more on one table; {len(names)} are there")
    return indexes


def _collections(value: Any) -> Any:
    """An entry without settings may be left empty in YAML."""
    if isinstance(value, Mapping):
        return {name: {} if entry is None else entry for name, entry in value.items()}
    return value


class Settings(BaseSettings):
    """All settings; frozen. Make them with `load` or `parse`, which turn every fault into one message each, or
    directly in code: then only what is given counts, and no file and no environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    mongo: MongoSettings = MongoSettings()
    dynamo: DynamoSettings = DynamoSettings()
    journal: JournalSettings = JournalSettings()
    control: ControlSettings = ControlSettings()
    limits: Limits = Limits()
    observe: ObserveSettings = ObserveSettings()
    admin: AdminSettings = AdminSettings()
    prices: Prices = Prices()
    defaults: Defaults = Defaults()
    collections: Annotated[dict[Name, CollectionSettings], BeforeValidator(_collections)] = Field(default_factory=dict)
    watch_every: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Seconds between two looks at the configuration file."""

    @field_validator("collections")
    @classmethod
    def _table_each(cls, entries: dict[str, CollectionSettings], info: ValidationInfo) -> dict[str, CollectionSettings]:
        below = info.data["dynamo"].table if "dynamo" in info.data else TableSettings(read=1, write=1)
        prefix = info.data["dynamo"].table_prefix if "dynamo" in info.data else ""
        for name, entry in entries.items():
            if "dynamo" in info.data and not is_table_name(f"{prefix}{name}"):
                raise ValueError(
                    f"{name}: its table would be {prefix + name!r}, and DynamoDB wants 3 to 255 of a-z, A-Z, 0-9, `_`, "
                    "`-` and `.`: give all tables a dynamo.table_prefix if it is too short, else rename the collection"
                )
            try:
                entry.table.over(below)
            except ValueError as error:
                raise ValueError(f"{name}.table: {error}") from None
        return entries

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def host_file(self, name: str) -> Path:
        """A file that the processes of this host share, beside the journal's."""
        if self.journal.kind == "sqlite":
            return self.journal.path.with_name(f"{self.journal.path.name}.{name}")
        return Path("var") / f"shadow.{name}"

    def control_place(self) -> ControlPlace:
        """Where the control store is."""
        url = self.control.url
        where = JournalSettings(url=url) if url is not None else self.journal
        if where.kind == "sqlite":
            return SqlitePlace(where.path if url is not None else self.host_file("control"))
        if where.kind == "mongodb":
            return MongoPlace(*where.mongo(self.mongo, option="control", name="shadow_control"))
        dynamo = self.dynamo
        access = Access(
            dynamo.region,
            dynamo.endpoint_url,
            revealed(dynamo.access_key_id),
            revealed(dynamo.secret_access_key),
            revealed(dynamo.session_token),
        )
        of_journal = self.journal.kind == "dynamodb" and self.journal.table == where.table
        return DynamoPlace(access, where.table, of_journal)

    def route(self, name: str) -> Route:
        """The route of a configured collection."""
        entry, defaults = self.collections[name], self.defaults
        phase = entry.phase or defaults.phase
        return Route(
            primary=entry.primary or defaults.primary,
            phase=phase,
            writes=entry.writes or defaults.writes,
            shadow_reads=defaults.shadow_reads if entry.shadow_reads is None else entry.shadow_reads,
            reads=(entry.reads or defaults.reads).shares() if phase is Phase.SHADOW else NO_SHARES,
        )

    def forced(self) -> dict[str, str]:
        """By collection: why closed gates are no reason to wait with a flip."""
        found = {name: entry.forced or self.defaults.forced for name, entry in self.collections.items()}
        return {name: reason for name, reason in found.items() if reason}

    def routes(self) -> dict[str, Route]:
        return {name: self.route(name) for name in self.collections}

    def rules(self) -> dict[str, tuple[Rule, ...]]:
        """The excuses by collection."""
        return {name: entry.compare for name, entry in self.collections.items()}

    def specs(self) -> dict[str, CollectionSpec]:
        return {name: entry.spec(name, self.dynamo.table) for name, entry in self.collections.items()}


def where(settings: Settings) -> str:
    """Which database and which tables these settings mean, without credentials."""
    mongo, dynamo = settings.mongo, settings.dynamo
    hosts = mongo.url.get_secret_value().partition("://")[2].partition("/")[0].rpartition("@")[2]
    endpoint = (dynamo.endpoint_url or "aws").rpartition("@")[2]
    return f"{hosts}/{mongo.database}|{endpoint}/{dynamo.region}/{dynamo.table_prefix}"


# --- sources ----------------------------------------------------------------------------------------------------


class EnvironmentSource(PydanticBaseSettingsSource):
    """The environment as a nested mapping, by the names of the settings themselves."""

    def __init__(self, environment: Mapping[str, str], collections: Mapping[str, Any]) -> None:
        super().__init__(Settings)
        self._environment = environment
        self._names = list(collections)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, value in (*self._shorthands(), *self._keys()):
            _put(found, path, value)
        return found

    def _shorthands(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        use = self._environment.get("USE_DYNAMODB", "").strip().lower()
        if use:
            yes, no = use in ("1", "true", "yes", "on"), use in ("0", "false", "no", "off")
            named = "dynamo" if yes else "mongo" if no else f"USE_DYNAMODB={use}"
            yield ("defaults", "primary"), named
        for name, field in _AWS.items():
            if self._environment.get(name):
                yield ("dynamo", field), self._environment[name]

    def _keys(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        whole = self._environment.get("SHADOW_COLLECTIONS")
        if whole:
            named = _json(whole)
            yield ("collections",), named
            self._names += list(named) if isinstance(named, Mapping) else []
        for path, simple in _leaves(Settings):
            name = "_".join(("SHADOW", *path)).upper()
            if name in self._environment:
                yield path, _read(self._environment[name], simple)
        for each in self._names:
            for path, simple in _of_collection():
                name = "_".join(("SHADOW_COLLECTIONS", each, *path)).upper().replace(".", "_").replace("-", "_")
                if name in self._environment:
                    yield ("collections", each, *path), _read(self._environment[name], simple)


_AWS: Final = {
    "AWS_DEFAULT_REGION": "region",
    "AWS_REGION": "region",
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The path of every setting, and whether its value is a plain text or number."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _leaves(info.annotation, (*path, name))
        elif (*path, name) != ("collections",):
            yield (*path, name), _is_simple(info.annotation)


def _of_collection() -> Iterator[tuple[tuple[str, ...], bool]]:
    """The same for the settings of one collection."""
    for name, info in CollectionSettings.model_fields.items():
        if name == "reads":
            yield from _leaves(ReadsSettings, (name,))
        else:
            yield (name,), _is_simple(info.annotation)


def _is_simple(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _is_simple(typing.get_args(annotation)[0])
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return not is_section and origin not in (tuple, list, dict)


def _read(text: str, simple: bool) -> Any:
    return text if simple else _json(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = target.get(name)
        target = target.setdefault(name, {}) if isinstance(inner, dict | None) else target
        if not isinstance(target, dict):
            return
    target[path[-1]] = value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, section by section."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


# --- reading ----------------------------------------------------------------------------------------------------


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings from a YAML file and the environment. Raises `ConfigurationError` with every fault there is."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path),
            [Fault("(file)", str(path), f"a readable YAML file ({type(error).__name__})")],
            hint="`SHADOW_CONFIG` or `Shadow.from_file` names the file; config/shadow.yaml is one to start from",
        ) from error
    return parse(text, environment, source=str(path))


def parse(text: str, environment: Mapping[str, str] | None = None, *, source: str = "(settings)") -> Settings:
    """The settings from YAML text and the environment (that of the process by default)."""
    raw = _read_yaml(text, source)
    named = raw.get("collections")
    above = EnvironmentSource(os.environ if environment is None else environment, named if named else {})()
    merged = _merge({**raw, "collections": _collections(named) or {}}, above)
    misplaced = list(_misplaced_reads(merged))
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise ConfigurationError(source, [*(_fault(each, merged) for each in error.errors()), *misplaced]) from None
    if misplaced:
        raise ConfigurationError(source, misplaced)
    return settings


class _BadKey(yaml.constructor.ConstructorError):
    def __init__(self, problem: str, expected: str, mark: Any) -> None:
        super().__init__(None, None, problem, mark)
        self.expected = expected


class _Yaml(yaml.SafeLoader):
    """Refuses what YAML's own loader takes in silence: a key that is there twice, of which the last would count, and
    one that is no text, as `yes`, `null` or `2024` are without quotes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = getattr(key, "value", "a key")
                raise _BadKey(f"the key {shown} is read as no text", "a name; quote it if it is one", key.start_mark)
            if key.value in seen:
                raise _BadKey(f"the key {key.value} a second time", "each key once", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        raw = yaml.load(text, _Yaml)  # noqa: S506 -- it is a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "(file)"
        problem = getattr(error, "problem", None) or "not YAML"
        expected = error.expected if isinstance(error, _BadKey) else "valid YAML"
        raise ConfigurationError(source, [Fault(place, str(problem), expected)]) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigurationError(source, [Fault("(file)", type(raw).__name__, "a mapping with sections")])
    return {str(name): value for name, value in raw.items() if value is not None}


# --- faults -----------------------------------------------------------------------------------------------------

_RULES: Final = {
    "ignore": Ignore,
    "missing_as_null": MissingAsNull,
    "truncate": Truncate,
    "tolerance": Tolerance,
    "unordered": Unordered,
}
"""What pydantic calls the place of a rule, besides its number in the list."""

_SECRET_SECTIONS: Final = ("mongo", "dynamo", "journal", "control", "observe", "admin")


def _misplaced_reads(given: Mapping[str, Any]) -> Iterator[Fault]:
    """A share of the reads where no phase `shadow` is: the secondary may lack what was there before."""
    defaults, collections = given.get("defaults"), given.get("collections")
    defaults = defaults if isinstance(defaults, Mapping) else {}
    entries = collections if isinstance(collections, Mapping) else {}
    sections = [("defaults", defaults), *((f"collections.{name}", entry) for name, entry in entries.items())]
    for place, section in sections:
        reads = section.get("reads") if isinstance(section, Mapping) else None
        if not isinstance(reads, Mapping) or not any(map(_is_share, reads.values())):
            continue
        own = section.get("phase")
        phase = _phase(defaults.get("phase", Phase.SHADOW) if own is None else own)
        if phase in (Phase.OFF, Phase.DUAL_WRITE):
            shown = ", ".join(f"{name}: {share}" for name, share in reads.items())
            yield Fault(f"{place}.reads", f"{{{shown}}}", f"phase shadow (it is {phase}), or 0%")


def _is_share(value: Any) -> bool:
    try:
        return _share_of_reads(value) > 0
    except ValueError:
        return False


_SECRET_WORDS: Final = ("secret", "key_id", "token", "password", "url")


def _fault(error: Any, given: Mapping[str, Any]) -> Fault:
    place = tuple(each for each in error["loc"] if each not in ("str", "UniqueSettings"))
    field = ".".join(str(each) for each in place) or "(file)"
    if error["type"] == "extra_forbidden":
        return Fault(field, "unknown key", _suggest(place))
    return Fault(field, _shown(field, error["input"]), _expected(error))


def _shown(field: str, value: Any) -> str:
    """The value for a message: a plain one of a setting that holds no secret; else only what kind of thing it is."""
    name, section = field.rsplit(".", 1)[-1], field.split(".", 1)[0]
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if any(word in name for word in _SECRET_WORDS) or field in (
        "mongo",
        "dynamo",
        "journal",
        "control",
        "observe",
        "admin",
    ):
        return "(hidden)"
    text = repr(value)
    if section in ("mongo", "dynamo") and "://" in text:
        return "(hidden)"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expected(error: Any) -> str:
    context = error.get("ctx") or {}
    match error["type"]:
        case "enum" | "literal_error":
            return f"must be one of {context['expected']}"
        case "value_error":
            return str(context["error"])
        case _:
            return str(error["msg"])


def _suggest(place: tuple[Any, ...]) -> str:
    """The keys that would be right beside an unknown one, the likeliest first."""
    model: Any = Settings
    for name in place[:-1]:
        model = _inside(model, name)
    known = sorted(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    listed = f"known keys: {', '.join(known)}"
    return f"did you mean {close[0]!r}? {listed}" if close else listed


def _inside(model: Any, name: Any) -> Any:
    if model is CollectionSettings and name in ("indexes", "unique"):
        return IndexSettings if name == "indexes" else UniqueSettings
    if name in _RULES:
        return _RULES[name]
    if name == "reads":
        return ReadsSettings
    if isinstance(name, int):
        return model
    info = getattr(model, "model_fields", {}).get(name)
    if info is None:
        return CollectionSettings if model is dict else model
    return dict if name == "collections" else info.annotation
