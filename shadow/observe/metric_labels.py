"""Label values that are derived from an event, and which events a metric counts."""

from __future__ import annotations

from typing import Final

from shadow.model.background import Background
from shadow.model.events import (
    BackgroundTaskFailed,
    ComparisonFinished,
    ConfigReloaded,
    Noted,
    OperationFinished,
    WriteUnjournaled,
)
from shadow.model.operation import READS, Verb
from shadow.model.verdict import Unjournaled
from shadow.observe.log import Event as LogEvent
from shadow.observe.metric_row import Component, Family, FlipOutcome, Reload

__all__ = [
    "COMPONENT_OF",
    "component_labels",
    "family_labels",
    "flip_labels",
    "is_flip",
    "of_read",
    "of_write",
    "reload_labels",
    "unjournaled_labels",
]

_FLIPS: Final = {
    LogEvent.FLIP_STARTED: FlipOutcome.STARTED,
    LogEvent.FLIP_DONE: FlipOutcome.DONE,
    LogEvent.FLIP_REFUSED: FlipOutcome.REFUSED,
}

COMPONENT_OF: Final = {
    Background.RECOVERY: Component.RECOVERY,
    Background.REFRESH: Component.JOURNAL,
    Background.CANARIES: Component.PROBE,
    Background.SUSPECTS: Component.CONFIRM,
    Background.WATCH: Component.WATCH,
    Background.FLEET: Component.CONTROL,
    Background.FIGURES: Component.CONTROL,
    Background.FLIP: Component.CONTROL,
    Background.FLIPS: Component.CONTROL,
    Background.GUARDS: Component.CONTROL,
    Background.PULSE: Component.REPORT,
    Background.WRITERS: Component.WATCH,
    Background.RELAY: Component.WATCH,
    Background.SWEEP: Component.SWEEP,
    Background.RIGHTS: Component.OTHER,
    Background.JOURNAL: Component.JOURNAL,
}

_FAMILY: Final = {verb: Family.READ if verb in READS else Family.WRITE for verb in Verb}


def family_labels(event: OperationFinished) -> tuple[str, ...]:
    return event.collection, _FAMILY[event.verb], event.store, event.role


def of_read(event: ComparisonFinished) -> bool:
    return event.verb in READS


def of_write(event: ComparisonFinished) -> bool:
    return event.verb not in READS


def unjournaled_labels(event: WriteUnjournaled) -> tuple[str, ...]:
    return event.collection, Unjournaled.TAKEN if event.taken else Unjournaled.DOUBTED


def reload_labels(event: ConfigReloaded) -> tuple[str, ...]:
    return (Reload.OK if event.ok else Reload.REJECTED,)


def component_labels(event: BackgroundTaskFailed) -> tuple[str, ...]:
    return (COMPONENT_OF.get(event.task, Component.OTHER),)


def is_flip(event: Noted) -> bool:
    return event.name in _FLIPS


def flip_labels(event: Noted) -> tuple[str, ...]:
    return str(event.fields.get("collection")), _FLIPS[LogEvent(event.name)]
