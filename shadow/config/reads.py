"""The settings of the reads that the secondary answers: a fixed share, or a ramp of shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from shadow.config.fields import FROZEN, Duration, Factor, ShareOfReads, as_share
from shadow.model.guards import GuardLimits, RampBack, RampPlan
from shadow.model.phase import NO_SHARES, ReadShares, StoreName

__all__ = ["GuardSettings", "RampSettings", "ReadsSettings", "begins"]


class GuardSettings(BaseModel):
    """The limits of the guards. Shares like `0.1%` or 0.001."""

    model_config = FROZEN

    mismatches: ShareOfReads = 0.001
    """Of the comparisons: how many may differ, beyond the noise."""
    errors: ShareOfReads = 0.01
    """Of the requests: how many may fail, beyond what fails of the other store's."""
    slower: Factor = 3.0
    """The most that the 95th percentile may be of the other store's, as a factor; 0: switched off."""
    throttled: ShareOfReads = 0.01
    """Of the requests to DynamoDB: how many may be throttled."""
    at_least: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Reads and comparisons within `window` below which a figure proves nothing, and a ramp waits."""
    window: Duration = 300.0

    def limits(self) -> GuardLimits:
        return GuardLimits(self.mismatches, self.errors, self.slower, self.throttled, self.at_least, self.window)


def _rising(steps: tuple[float, ...]) -> tuple[float, ...]:
    if list(steps) != sorted(set(steps)) or steps[0] <= 0:
        raise ValueError("must be shares above 0% that rise: [1%, 5%, 25%]")
    return steps


class RampSettings(BaseModel):
    """Shares that follow each other while the guards hold."""

    model_config = FROZEN

    ramp: Annotated[tuple[ShareOfReads, ...], Field(min_length=1, max_length=50), AfterValidator(_rising)]
    every: Duration = 1800.0
    back: RampBack = RampBack.ZERO
    """Where it goes when a guard breaks: to `zero`, or to the `step` before."""
    guards: GuardSettings = GuardSettings()

    def plan(self) -> RampPlan:
        return RampPlan(self.ramp, self.every, self.back, self.guards.limits())


def _of_text(value: Any) -> Any:
    """An environment variable may hold a ramp as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            raise ValueError("must be a share (5%) or a ramp as JSON") from None
    return value


def _which(value: Any) -> str:
    return "(ramp)" if isinstance(value, Mapping | RampSettings) else "(share)"


ShareOrRamp = Annotated[
    Annotated[ShareOfReads, Tag("(share)")] | Annotated[RampSettings, Tag("(ramp)")],
    Discriminator(_which),
    BeforeValidator(_of_text),
]


class ReadsSettings(BaseModel):
    """The share of reads that each store answers while it is the secondary, in phase `shadow`, or the ramp of shares.
    What is set for the store that is the primary has no effect."""

    model_config = FROZEN

    mongo: ShareOrRamp = 0.0
    dynamo: ShareOrRamp = 0.0

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if isinstance(value, Mapping | ReadsSettings):
            return value
        raise ValueError("must name the store that answers the share: {dynamo: 5%}")

    def shares(self) -> ReadShares:
        """A ramp begins at 0; the control store holds how far it is."""
        mongo, dynamo = (0.0 if isinstance(each, RampSettings) else each for each in (self.mongo, self.dynamo))
        return ReadShares(mongo, dynamo) if mongo or dynamo else NO_SHARES

    def ramps(self) -> dict[StoreName, RampPlan]:
        each = {StoreName.MONGO: self.mongo, StoreName.DYNAMO: self.dynamo}
        return {name: value.plan() for name, value in each.items() if isinstance(value, RampSettings)}


def begins(value: Any) -> bool:
    """Whether a value in the file has the secondary answer any reads."""
    if isinstance(value, Mapping | RampSettings):
        return True
    try:
        return as_share(value) > 0
    except ValueError:
        return False
