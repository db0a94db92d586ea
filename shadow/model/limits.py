"""The limits for work on the secondary, as one frozen settings object."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Limits", "Watch"]


class Limits(BaseModel):
    """Times are seconds. The names are those of the configuration file, section `limits`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: float = Field(default=30.0, gt=0, le=600)
    """The longest time that one operation on the primary can last. Any process may adopt an older intent."""
    late_writes: float = Field(default=1200.0, ge=60, le=86_400)
    """How long after its beginning a write that nobody has an answer to may still take effect on the primary: no limit
    of a client calls back what it has sent. Until then its key is compared again, each time at twice the age."""
    write_deadline: float = Field(default=2.0, gt=0, le=60)
    """For the replay of one write on the secondary; after that the write is left to its intent."""
    read_deadline: float = Field(default=2.0, gt=0, le=60)
    """For one shadow read."""
    routed_read: float = Field(default=0.25, gt=0, le=60)
    """For a read that the secondary answers (`reads`); after that the primary answers it."""
    write_workers: int = Field(default=16, ge=1, le=256)
    write_queue: int = Field(default=2000, ge=1)
    read_workers: int = Field(default=8, ge=1, le=256)
    read_queue: int = Field(default=500, ge=1)
    compare_documents: int = Field(default=1000, ge=1)
    """The most documents of one answer to keep for comparison; a longer answer is shed and counted."""
    loop_lag: float = Field(default=0.5, ge=0, le=60)
    """How late the application's event loop may be. Beyond that, reads are shed and counted instead of shadowed,
    until it is in time again. 0: never."""
    settle: float = Field(default=0.25, ge=0, le=60)
    """Between the first sight of a difference and the next probe: what settles within it is transient."""
    minimum_age: float = Field(default=0.5, ge=0, le=3600)
    """How long a difference must have lasted, with both stores unchanged, before it is confirmed."""
    index_age: float = Field(default=5.0, ge=0, le=3600)
    """The same for a read through an index that lags behind its table, if every single document is equal."""
    confirmations: int = Field(default=4, ge=1, le=100)
    """Probes after the first before a difference that new writes keep disturbing is called lagging."""
    recover_every: float = Field(default=0.5, gt=0, le=60)
    """Between two searches of the journal for keys to repair."""
    recover_batch: int = Field(default=64, ge=1, le=10_000)
    in_flight_timeout: float = Field(default=5.0, ge=0, le=600)
    """How long a request to the secondary that timed out may still arrive. No flip is made within that time."""
    drain: float = Field(default=5.0, ge=0, le=300)
    """For `close()` and for a change of routing: what is not done by then stays in the journal."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How the comparison itself is watched. Shares are 0 to 1, times seconds. The defaults turn it off."""

    noise_share: float = 0.0
    holdout: float = 0.0
    canary_every: float = 0.0
    """0: no differences are injected."""
    canary_within: float = 30.0
