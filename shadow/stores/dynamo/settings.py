"""The settings of the DynamoDB store: where it is, how to reach it, how much it may ask at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["DynamoSettings"]


class DynamoSettings(BaseModel):
    """Frozen; unknown keys are refused. Credentials that are left out come from the environment, as with any AWS SDK.

    Times are in seconds. `max_concurrency` is the number of requests under way at once, and the size of the
    connection pool; `scan_segments` is the number of segments of a large table that are scanned at once;
    `max_attempts` counts the first attempt too; `verify_index_reads` reads each document that an index names once
    more from the table, which is consistent where an index is not; `transactional_inserts` sends an ordered
    `insert_many` in transactions of up to 100 documents, at twice the write units of one request a document;
    `sweep_every` is how often tables that have had large documents are searched for parts that a crash has left
    behind, by one process for all (0: never).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str = "us-east-1"
    endpoint_url: str | None = None
    table_prefix: str = ""
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    max_concurrency: int = Field(default=64, ge=1, le=4096)
    scan_segments: int = Field(default=4, ge=1, le=64)
    connect_timeout: float = Field(default=2.0, gt=0)
    read_timeout: float = Field(default=5.0, gt=0)
    max_attempts: int = Field(default=3, ge=1, le=20)
    retry_mode: Literal["adaptive", "standard"] = "adaptive"
    billing: Literal["on_demand"] = "on_demand"
    verify_index_reads: bool = False
    transactional_inserts: bool = True
    sweep_every: float = Field(default=86_400.0, ge=0)
    prepare_timeout: float = Field(default=300.0, gt=0)
