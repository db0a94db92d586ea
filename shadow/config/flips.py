"""The settings of flips: the watch window after one."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from shadow.config.fields import FROZEN, as_duration
from shadow.config.reads import GuardSettings
from shadow.model.guards import WatchPlan

__all__ = ["FlipSettings", "WatchGuardSettings", "window_of"]

_LONGEST: Final = 30 * 86_400.0


Window = Annotated[float, BeforeValidator(as_duration), Field(ge=0, le=_LONGEST)]


class WatchGuardSettings(GuardSettings):
    """The limits of the guards of a watch window, where the figures are of the whole traffic."""

    at_least: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Requests and comparisons within `window` below which a figure proves nothing."""


class FlipSettings(BaseModel):
    """`watch`: seconds for which a flip is watched; 0: not at all."""

    model_config = FROZEN

    watch: Window = 0.0
    take_back: bool = True
    """Whether a flip is taken back by itself when a guard of its window breaks, or it is only reported."""
    guards: WatchGuardSettings = WatchGuardSettings()

    def plan(self, seconds: float | None = None, *, take_back: bool | None = None) -> WatchPlan | None:
        """The window of a flip; None: it is not watched. `seconds` and `take_back` replace the settings."""
        seconds = self.watch if seconds is None else seconds
        if not seconds:
            return None
        return WatchPlan(seconds, self.take_back if take_back is None else take_back, self.guards.limits())


def window_of(text: str) -> float:
    """The seconds of a window that an operator asks for (`30m`); 0: none. Raises ValueError."""
    seconds: float = as_duration(text)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError("must be a time like 90s, 30m or 2h, up to 30 days; 0 for none")
    return seconds
