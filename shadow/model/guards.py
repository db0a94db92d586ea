"""The guarded ramp and the watch window of a flip as they are configured: shares, times, and the limits of guards."""

from __future__ import annotations

import enum
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

__all__ = ["BOUNDS", "GuardLimits", "RampBack", "RampPlan", "WatchPlan", "bucket_of", "quantile"]


class RampBack(enum.StrEnum):
    """Where a ramp goes when a guard breaks."""

    ZERO = "zero"
    STEP = "step"
    """To the step before."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """The limits of the guards, over the last `window` seconds at the current share. Shares are 0 to 1."""

    mismatches: float = 0.001
    """The share of comparisons that may differ, beyond the noise."""
    errors: float = 0.01
    """The share of requests that may fail, beyond the share of the other store's."""
    slower: float = 3.0
    """The most by which the 95th percentile may exceed the other store's; 0: as slow as it likes."""
    throttled: float = 0.01
    """The share of the requests to DynamoDB that may be throttled."""
    at_least: int = 20
    """Reads and comparisons below which a figure proves nothing."""
    window: float = 300.0


@dataclass(frozen=True, slots=True)
class RampPlan:
    """`steps`: the shares, 0 to 1, rising; `every`: seconds at each while the guards hold."""

    steps: tuple[float, ...]
    every: float
    back: RampBack = RampBack.ZERO
    limits: GuardLimits = GuardLimits()

    @property
    def text(self) -> str:
        """For people, and to compare the plans of processes."""
        steps = ", ".join(f"{share:.4g}" for share in self.steps)
        limits = self.limits
        return (
            f"{steps} every {self.every:g} s, back to {self.back}; mismatches {limits.mismatches:g}, errors "
            f"{limits.errors:g}, slower {limits.slower:g}, throttled {limits.throttled:g}, at least {limits.at_least} "
            f"in {limits.window:g} s"
        )

    def after(self, share: float) -> float | None:
        """The next share; None after the last one."""
        return next((each for each in self.steps if each > share), None)

    def before(self, share: float) -> float:
        """The share to go back to."""
        if self.back is RampBack.ZERO:
            return 0.0
        return max((each for each in self.steps if each < share), default=0.0)


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """The watch window after a flip. `seconds`: for how long the guards are watched; `take_back`: whether the flip is
    taken back when one breaks, or it is only reported."""

    seconds: float
    take_back: bool = True
    limits: GuardLimits = GuardLimits()


_FIRST: Final = 0.00025
_FACTOR: Final = 1.25

BOUNDS: Final = tuple(_FIRST * _FACTOR**number for number in range(48))
"""Upper bounds of the buckets of times, in seconds: 0.25 ms to 9 s, near enough for a ratio. What takes longer is in
one bucket more."""


def bucket_of(seconds: float) -> int:
    """The number of the bucket that holds it; `len(BOUNDS)` beyond the last one."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: tuple[int, ...], share: float) -> float:
    """The upper bound, in seconds, of the bucket that holds this quantile; 0.0 without any counts."""
    wanted, seen = share * sum(counts), 0
    for number, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return BOUNDS[min(number, len(BOUNDS) - 1)]
    return 0.0
