"""What DynamoDB costs: a section of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Prices"]

Price = Annotated[float, Field(ge=0)]


class Prices(BaseModel):
    """In dollars. The defaults are those of the AWS price list, on demand, us-east-1, November 2024, without the free
    tier; check them for your region and your contract.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    write_million: Price = 0.625
    """A million write request units."""
    read_million: Price = 0.125
    """A million read request units."""
    storage_gb_month: Price = 0.25
    """A gigabyte of table or index for a month."""
