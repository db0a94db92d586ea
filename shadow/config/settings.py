"""The whole settings, and those of one collection."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shadow.assess.prices import Prices
from shadow.compare.rules import Rule
from shadow.config.fields import (
    FROZEN,
    Factor,
    FieldPath,
    Name,
    OperatorName,
    Reason,
    Share,
    UniquePath,
    as_phase,
    check_docs_url,
    check_named_once,
    check_reserved,
    revealed,
    said_twice,
)
from shadow.config.hooks import HookSettings, check_hooks
from shadow.config.sections import (
    AdminSettings,
    ControlSettings,
    Defaults,
    ExpirySettings,
    IndexSettings,
    JournalSettings,
    MongoSettings,
    ObserveSettings,
    ReadsSettings,
    UniqueSettings,
    as_unique,
    check_indexes,
    unique_spec,
)
from shadow.control.place import ControlPlace, DynamoPlace, MongoPlace, SqlitePlace
from shadow.journal.server.dynamo_table import Access
from shadow.manual import project_address
from shadow.model.guards import RampPlan
from shadow.model.hooks import Hook
from shadow.model.limits import Limits
from shadow.model.phase import NO_SHARES, Phase, Route, StoreName, Unsupported, WriteMode
from shadow.model.schema import RESERVED, CollectionSpec, ExpirySpec
from shadow.settings.names import collection_name
from shadow.stores.dynamo.client.settings import DynamoSettings, TableSettings, is_table_name

__all__ = ["CollectionSettings", "Settings", "as_collections", "where"]


class CollectionSettings(BaseModel):
    """One collection. `unique` takes field names, or entries with `name`, `fields`, `sparse` and `collation`; `compare`
    takes comparison rules; `reveal_fields` the dotted paths whose values findings may show."""

    model_config = FROZEN

    primary: StoreName | None = None
    phase: Annotated[Phase | None, BeforeValidator(as_phase)] = None
    writes: WriteMode | None = None
    shadow_reads: Share | None = None
    unsupported: Unsupported | None = None
    accept_not_portable: tuple[OperatorName, ...] = ()
    """The operators and options that DynamoDB does not support and the application may lose by the flip: they close no
    gate."""
    forced: Reason | None = None
    """The reason for a change of `primary` in this file in spite of closed gates; kept in the receipt."""
    reads: ReadsSettings | None = None
    slower: Factor | None = None
    indexes: Annotated[tuple[IndexSettings, ...], AfterValidator(check_indexes)] = ()
    unique: tuple[UniquePath | UniqueSettings, ...] = ()
    expires: ExpirySettings | None = None
    """The TTL index of MongoDB whose documents expire on DynamoDB too."""
    accept_lost_indexes: tuple[Name, ...] = ()
    """Names of MongoDB's indexes that have no counterpart on DynamoDB, which is acknowledged; `*` for all."""
    reserved: Annotated[Name, AfterValidator(check_reserved)] = RESERVED
    compare: Annotated[tuple[Rule, ...], AfterValidator(check_named_once)] = ()
    reveal_fields: tuple[FieldPath, ...] = ()
    table: TableSettings = TableSettings()
    """Of its table on DynamoDB; `dynamo.table` sets what is omitted here."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Checks that settings of one collection do not contradict each other."""
        unique = [as_unique(each) for each in self.unique]
        fields = [*(index.fields for index in self.indexes), *(each.fields for each in unique)]
        fields += [] if self.expires is None else [(self.expires.field,)]
        if any(path.partition(".")[0] == self.reserved for each in fields for path in each):
            raise ValueError(f"{self.reserved} is shadow's own field (reserved): it can have no index or constraint")
        twice = said_twice([*(index.name for index in self.indexes), *(each.name for each in unique)])
        if twice:
            raise ValueError(f"indexes and unique constraints need different names; {twice} occurs twice")
        return self

    def spec(
        self, name: str, tables: TableSettings | None = None, unsupported: Unsupported = Unsupported.PASS
    ) -> CollectionSpec:
        """The collection's definition for the stores. `tables` are the settings for all tables, `unsupported` that of
        all collections."""
        passes_on = (self.unsupported or unsupported) is Unsupported.PASS
        unique = map(unique_spec, self.unique)
        indexes = (each.spec(self.reserved) for each in self.indexes)
        table = self.table.over(tables or TableSettings())
        expiry = None if self.expires is None else ExpirySpec(self.expires.field, self.expires.after)
        return CollectionSpec(name, tuple(indexes), tuple(unique), self.reserved, table, passes_on, expiry)


def as_collections(value: Any) -> Any:
    """An entry without settings may be empty in YAML."""
    if isinstance(value, Mapping):
        return {name: {} if entry is None else entry for name, entry in value.items()}
    return value


class Settings(BaseSettings):
    """All settings, frozen. Create them with `load` or `parse`, which report every fault, or directly in code; then
    neither a file nor the environment is read."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    mongo: MongoSettings = MongoSettings()
    dynamo: DynamoSettings = DynamoSettings()
    journal: JournalSettings = JournalSettings()
    control: ControlSettings = ControlSettings()
    limits: Limits = Limits()
    observe: ObserveSettings = ObserveSettings()
    admin: AdminSettings = AdminSettings()
    prices: Prices = Prices()
    hooks: Annotated[tuple[HookSettings, ...], AfterValidator(check_hooks)] = ()
    defaults: Defaults = Defaults()
    collections: Annotated[dict[Name, CollectionSettings], BeforeValidator(as_collections)] = Field(
        default_factory=dict
    )
    watch_every: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Seconds between two checks of the configuration file."""
    docs_url: Annotated[str, AfterValidator(check_docs_url)] = Field(default_factory=functools.cache(project_address))
    """The web address of the manual: the folder of its pages, or an address with `{topic}` in it. Without it, links
    name the command that prints the section."""

    @field_validator("collections")
    @classmethod
    def _table_each(cls, entries: dict[str, CollectionSettings], info: ValidationInfo) -> dict[str, CollectionSettings]:
        below = info.data["dynamo"].table if "dynamo" in info.data else TableSettings(read=1, write=1)
        prefix = info.data["dynamo"].table_prefix if "dynamo" in info.data else ""
        database = info.data["mongo"].database if "mongo" in info.data else ""
        for name, entry in entries.items():
            try:
                collection_name(name, database)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if "dynamo" in info.data and not is_table_name(f"{prefix}{name}"):
                raise ValueError(
                    f"{name}: its table would be {prefix + name!r}, but DynamoDB requires 3 to 255 of a-z, A-Z, "
                    "0-9, `_`, `-` and `.`: set dynamo.table_prefix if it is too short, else rename the collection"
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
        """A file that the processes of this host share, beside the journal."""
        if self.journal.kind == "sqlite":
            return self.journal.path.with_name(f"{self.journal.path.name}.{name}")
        return Path("var") / f"shadow.{name}"

    def places(self) -> dict[str, JournalSettings]:
        """The places of the journal and, if it has its own, the control store, by the field that sets them."""
        found = {"journal.url": self.journal}
        if self.control.url is not None:
            found["control.url"] = JournalSettings(url=self.control.url)
        return found

    def control_place(self) -> ControlPlace:
        """The place of the control store."""
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
        """The configured route of a collection."""
        entry, defaults = self.collections[name], self.defaults
        phase = entry.phase or defaults.phase
        return Route(
            primary=entry.primary or defaults.primary,
            phase=phase,
            writes=entry.writes or defaults.writes,
            shadow_reads=defaults.shadow_reads if entry.shadow_reads is None else entry.shadow_reads,
            reads=(entry.reads or defaults.reads).shares() if phase is Phase.SHADOW else NO_SHARES,
        )

    def ramps(self) -> dict[str, dict[StoreName, RampPlan]]:
        """The ramps of reads, by collection and by the store that answers."""
        reads = {name: entry.reads or self.defaults.reads for name, entry in self.collections.items()}
        return {name: ramps for name, each in reads.items() if (ramps := each.ramps())}

    def slower(self) -> dict[str, float]:
        """By collection: the factor of the gate `fast enough`; 0: it is switched off."""
        found = {name: entry.slower for name, entry in self.collections.items()}
        return {name: self.defaults.slower if each is None else each for name, each in found.items()}

    def hook_list(self) -> tuple[Hook, ...]:
        return tuple(each.hook() for each in self.hooks)

    def forced(self) -> dict[str, str]:
        """By collection: the reason to flip in spite of closed gates."""
        found = {name: entry.forced or self.defaults.forced for name, entry in self.collections.items()}
        return {name: reason for name, reason in found.items() if reason}

    def routes(self) -> dict[str, Route]:
        return {name: self.route(name) for name in self.collections}

    def rules(self) -> dict[str, tuple[Rule, ...]]:
        """The comparison rules by collection."""
        return {name: entry.compare for name, entry in self.collections.items()}

    def specs(self) -> dict[str, CollectionSpec]:
        tables = self.dynamo.table
        if tables.stream is None:
            tables = tables.model_copy(update={"stream": self.observe.follow_writers})
        return {name: entry.spec(name, tables, self.defaults.unsupported) for name, entry in self.collections.items()}


def where(settings: Settings) -> str:
    """Identifies the database and the tables of these settings, without credentials."""
    mongo, dynamo = settings.mongo, settings.dynamo
    hosts = mongo.url.get_secret_value().partition("://")[2].partition("/")[0].rpartition("@")[2]
    endpoint = (dynamo.endpoint_url or "aws").rpartition("@")[2]
    return f"{hosts}/{mongo.database}|{endpoint}/{dynamo.region}/{dynamo.table_prefix}"
