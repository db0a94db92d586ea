"""The settings of the DynamoDB store: its location, its connections, its limits."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shadow.model.schema import Billing, TableSpec
from shadow.settings import names
from shadow.stores.dynamo.client.regions import check_region

__all__ = ["MOST_INDEXES", "DynamoSettings", "TableSettings", "is_table_name"]

MOST_INDEXES: Final = 20
"""Global secondary indexes per table, unless AWS has raised the quota (Developer Guide, "Quotas")."""

_DEFAULT_REGION: Final = "us-east-1"

_TABLE_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{3,255}")


def is_table_name(name: str) -> bool:
    """Whether DynamoDB accepts it as the name of a table or an index."""
    return _TABLE_NAME.fullmatch(name) is not None


def _tag(name: str) -> str:
    if name.lower().startswith("aws:"):
        raise ValueError("must not begin with aws:, which is AWS's own")
    return name


Tag = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_tag)]
Units = Annotated[int, Field(ge=1, le=1_000_000)]


class TableSettings(BaseModel):
    """The options of a table besides its keys and indexes. Unset options are left unmanaged; a table that is created
    without them is billed on demand, and unprotected.

    `read` and `write`: units per second, only with `billing: provisioned`, for the table and each of its indexes.
    `tags`: only these are managed; other tags of the table stay. `stream`: whether the table gets a stream, which shows
    out-of-band writes; unset: if these are relayed. A stream is never switched off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    billing: Billing | None = None
    read: Units | None = None
    write: Units | None = None
    point_in_time_recovery: bool | None = None
    deletion_protection: bool | None = None
    stream: bool | None = None
    tags: Annotated[dict[Tag, Annotated[str, Field(max_length=256)]], Field(max_length=50)] = Field(
        default_factory=dict
    )

    def over(self, below: TableSettings) -> TableSpec:
        """These settings, with those of `below` for every unset one; the tags of both."""
        said = {**below.model_dump(exclude_none=True), **self.model_dump(exclude_none=True)}
        provisioned = said.get("billing") is Billing.PROVISIONED
        if not provisioned:
            said = {name: value for name, value in said.items() if name not in ("read", "write")}
        elif not {"read", "write"} <= said.keys():
            raise ValueError("billing: provisioned needs read and write, in units per second")
        return TableSpec(**{**said, "tags": tuple(sorted({**below.tags, **self.tags}.items()))})

    def shared(self) -> TableSpec:
        """The settings that also apply to tables that belong to no collection."""
        return TableSpec(deletion_protection=self.deletion_protection, tags=tuple(sorted(self.tags.items())))


class DynamoSettings(BaseModel):
    """Frozen; unknown keys are rejected. Unset credentials come from the environment, as with any AWS SDK.

    Times are in seconds. `max_concurrency` is the number of concurrent requests, and the size of the connection pool;
    `scan_segments` is the number of segments of a large table that are scanned concurrently; `max_attempts` includes
    the first attempt; `requests: sdk` sends requests on items through the SDK, with its hooks, which takes far more
    processor time (see `wire`); `verify_index_reads` reads each document that an index returns again from the table,
    which is consistent where an index is not; `transactional_inserts` sends an ordered `insert_many` in transactions of
    up to 100 documents, at twice the write units of one request per document; `sweep_every` is how often one process
    for all searches the tables that have had large documents for parts that a crash has left behind (0: never); `table`
    applies to all tables, unless a collection overrides it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: Annotated[str | None, AfterValidator(names.endpoint)] = None
    region: str = _DEFAULT_REGION
    table_prefix: Annotated[str, AfterValidator(names.table_prefix)] = ""
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    max_concurrency: int = Field(default=64, ge=1, le=4096)
    scan_segments: int = Field(default=4, ge=1, le=64)
    connect_timeout: float = Field(default=2.0, gt=0)
    read_timeout: float = Field(default=5.0, gt=0)
    max_attempts: int = Field(default=3, ge=1, le=20)
    retry_mode: Literal["adaptive", "standard"] = "adaptive"
    requests: Literal["direct", "sdk"] = "direct"
    table: TableSettings = TableSettings()
    verify_index_reads: bool = False
    transactional_inserts: bool = True
    sweep_every: float = Field(default=86_400.0, ge=0)
    prepare_timeout: float = Field(default=300.0, gt=0)

    @field_validator("region")
    @classmethod
    def _known_region(cls, region: str, info: ValidationInfo) -> str:
        if info.data.get("endpoint_url", "") is None and region != _DEFAULT_REGION:
            check_region(region)
        return region

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        parts = (self.access_key_id, self.secret_access_key)
        if (parts[0] is None) != (parts[1] is None) or (self.session_token is not None and None in parts):
            raise ValueError(
                "access_key_id and secret_access_key go together, and session_token with both: set them all, or "
                "none (then the AWS SDK finds its own)"
            )
        return self
