"""DynamoDB's prices: a section of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Prices"]

Price = Annotated[float, Field(ge=0)]


class Prices(BaseModel):
    """In dollars. The defaults are from the AWS price list for on-demand capacity, us-east-1, November 2024, without
    the free tier. Check them for your region and contract.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    write_million: Price = 0.625
    """Per million write request units."""
    read_million: Price = 0.125
    """Per million read request units."""
    storage_gb_month: Price = 0.25
    """Per gigabyte of table or index and month."""
