"""The rows of the table of metrics about ramps and hooks."""

from __future__ import annotations

import enum
from typing import Final

from shadow.model.events import Noted
from shadow.model.hooks import HookEvent
from shadow.observe.log import Event as LogEvent
from shadow.observe.metric_row import By, Configured, MetricRow

__all__ = ["GUARDED", "HOOKS", "RAMP_STEPS", "READS_SHARE"]


class RampStep(enum.StrEnum):
    ON = "on"
    BACK = "back"


_STEPS: Final = {LogEvent.RAMP_STEPPED: RampStep.ON, LogEvent.RAMP_STEPPED_BACK: RampStep.BACK}


def _is_step(event: Noted) -> bool:
    return event.name in _STEPS


def _step_labels(event: Noted) -> tuple[str, ...]:
    return str(event.fields.get("collection")), _STEPS[LogEvent(event.name)]


class HookResult(enum.StrEnum):
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"
    VETOED = "vetoed"


_RESULTS: Final = {
    LogEvent.HOOK_DELIVERED: HookResult.DELIVERED,
    LogEvent.HOOK_FAILED: HookResult.FAILED,
    LogEvent.HOOK_DROPPED: HookResult.DROPPED,
    LogEvent.HOOK_VETOED: HookResult.VETOED,
}


def _is_hook(event: Noted) -> bool:
    return event.name in _RESULTS


def _hook_labels(event: Noted) -> tuple[str, ...]:
    return str(event.fields.get("on")), _RESULTS[LogEvent(event.name)]


READS_SHARE: Final = MetricRow(
    "shadow_secondary_reads_share",
    "gauge",
    "The share of the application's reads that the secondary answers, 0 to 1.",
    ("collection",),
)
RAMP_STEPS: Final = MetricRow(
    "shadow_ramp_steps_total",
    "counter",
    "Steps of a ramp of reads, on or back, in the process that decided.",
    ("collection", "direction"),
    (Configured.COLLECTION, RampStep),
    moved_by=(By(Noted, _step_labels, when=_is_step),),
)

HOOKS: Final = MetricRow(
    "shadow_hooks_total",
    "counter",
    "Calls of hooks, by what they were called for and how they ended.",
    ("event", "result"),
    (HookEvent, HookResult),
    moved_by=(By(Noted, _hook_labels, when=_is_hook),),
)

GUARDED: Final = (READS_SHARE, RAMP_STEPS, HOOKS)
