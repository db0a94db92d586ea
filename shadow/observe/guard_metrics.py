"""The rows of the table of metrics about ramps, watched flips and hooks."""

from __future__ import annotations

import enum
from typing import Final

from shadow.model.events import Noted
from shadow.model.hooks import HookEvent
from shadow.observe.log import Event as LogEvent
from shadow.observe.metric_row import By, Configured, MetricRow

__all__ = ["GUARDED", "HOOKS", "RAMP_STEPS", "READS_SHARE", "WATCHED", "WATCHES"]


class RampStep(enum.StrEnum):
    ON = "on"
    BACK = "back"


_STEPS: Final = {LogEvent.RAMP_STEPPED: RampStep.ON, LogEvent.RAMP_STEPPED_BACK: RampStep.BACK}


def _is_step(event: Noted) -> bool:
    return event.name in _STEPS


def _step_labels(event: Noted) -> tuple[str, ...]:
    return str(event.fields.get("collection")), _STEPS[LogEvent(event.name)]


class WatchStep(enum.StrEnum):
    OPENED = "opened"
    BROKEN = "broken"
    TAKEN_BACK = "taken_back"
    NOT_TAKEN_BACK = "not_taken_back"
    ENDED = "ended"


_WATCHES: Final = {
    LogEvent.WATCH_OPENED: WatchStep.OPENED,
    LogEvent.WATCH_BROKEN: WatchStep.BROKEN,
    LogEvent.FLIP_TAKEN_BACK: WatchStep.TAKEN_BACK,
    LogEvent.FLIP_NOT_TAKEN_BACK: WatchStep.NOT_TAKEN_BACK,
    LogEvent.WATCH_ENDED: WatchStep.ENDED,
}


def _is_watch(event: Noted) -> bool:
    return event.name in _WATCHES


def _watch_labels(event: Noted) -> tuple[str, ...]:
    return str(event.fields.get("collection")), _WATCHES[LogEvent(event.name)]


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
WATCHED: Final = MetricRow(
    "shadow_flip_watch",
    "gauge",
    "Whether the flip of a collection is watched: 0 it is not, 1 it is, 2 a guard is broken and that is only reported, "
    "3 the flip is to be taken back. Each process reports the same.",
    ("collection",),
)
WATCHES: Final = MetricRow(
    "shadow_flip_watches_total",
    "counter",
    "Watch windows of flips: what happened to them, in the process that decided.",
    ("collection", "step"),
    (Configured.COLLECTION, WatchStep),
    moved_by=(By(Noted, _watch_labels, when=_is_watch),),
)

HOOKS: Final = MetricRow(
    "shadow_hooks_total",
    "counter",
    "Calls of hooks, by what they were called for and how they ended.",
    ("event", "result"),
    (HookEvent, HookResult),
    moved_by=(By(Noted, _hook_labels, when=_is_hook),),
)

GUARDED: Final = (READS_SHARE, RAMP_STEPS, WATCHED, WATCHES, HOOKS)
