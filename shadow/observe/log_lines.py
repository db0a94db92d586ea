"""The log of events: which of them become lines, with which fields, and how many of each."""

from __future__ import annotations

from typing import Any, Final

import structlog

from shadow.compare.diff import Hasher
from shadow.model.events import (
    BackgroundTaskFailed,
    BackgroundTaskRecovered,
    CallRefused,
    ComponentFailed,
    ConfigReloaded,
    Handlers,
    HealFinished,
    MismatchConfirmed,
    Noted,
    NotPortable,
    OutOfBandWriteCounted,
    OutOfBandWriteRelayed,
    RouteChanged,
    WriteDeferred,
)
from shadow.model.verdict import Healing
from shadow.observe.bounding import Bounds
from shadow.observe.bypassing import HINTS
from shadow.observe.findings import Findings, state_text
from shadow.observe.log import (
    ERRORS,
    UNBOUNDED,
    WARNINGS,
    Event,
    LogThrottle,
    error_fields,
    get_logger,
    safe_fields,
    scrub,
)
from shadow.observe.metric_row import Component
from shadow.observe.portability import ADVICE, LOST
from shadow.traces.identity import trace_fields

__all__ = ["LogLines"]

LOGGED_DIFFERENCES: Final = 10
"""Differences that the line of one mismatch names; the finding has the others."""

_COMPONENTS: Final = frozenset(component.value for component in Component)


class LogLines:
    """A subscriber that writes lines.

    Keys appear as the hasher's keyed hash, as text only with `reveal_keys`. `logger` takes structlog's calls
    (`info`, `warning` with an event name and fields); by default it is `log.get_logger()`.
    """

    def __init__(
        self,
        findings: Findings,
        hasher: Hasher,
        *,
        reveal_keys: bool = False,
        logger: structlog.typing.FilteringBoundLogger | None = None,
        throttle: LogThrottle | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._findings = findings
        self._hasher = hasher
        self._reveal = reveal_keys
        self._logger = logger or get_logger()
        self._throttle = throttle or LogThrottle()
        self._bounds = bounds or Bounds()

    def handlers(self) -> Handlers:
        return {
            MismatchConfirmed: self._mismatch,
            OutOfBandWriteCounted: self._out_of_band,
            OutOfBandWriteRelayed: self._relayed,
            NotPortable: self._not_portable,
            CallRefused: self._refused,
            WriteDeferred: self._deferred,
            HealFinished: self._healed,
            ConfigReloaded: self._reloaded,
            RouteChanged: self._routed,
            ComponentFailed: self._failed,
            BackgroundTaskFailed: self._background_failed,
            BackgroundTaskRecovered: self._background_recovered,
            Noted: self._noted,
        }

    def report_held(self, *, ending: bool = False) -> None:
        """Logs how many lines were suppressed, once a minute at most; to be called once a second."""
        held = self._bounds.due(ending=ending)
        if held is not None:
            about = {"not_written": held.not_written, "by_event": held.by_kind, "repeated": held.repeated}
            self._log(Event.LINES_HELD, **about, seconds=held.seconds)

    def _mismatch(self, event: MismatchConfirmed) -> None:
        found, finding = event.found, self._findings.id_of(event.found)
        shown = found.differences[:LOGGED_DIFFERENCES]
        self._log(
            Event.MISMATCH_CONFIRMED,
            finding,
            collection=found.collection,
            verb=found.verb.value,
            kind=found.kind.value,
            finding=finding,
            **self._key(found.key),
            differences=[f"{each.path} {each.kind}: {each.primary_type}/{each.secondary_type}" for each in shown],
            more=len(found.differences) - len(shown),
            primary_state=state_text(found.primary_state),
            secondary_state=state_text(found.secondary_state),
            healed=found.healed,
        )

    def _out_of_band(self, event: OutOfBandWriteCounted) -> None:
        fields = {"collection": event.collection, "kind": event.kind.value, "hint": HINTS[event.kind]}
        self._throttled(Event.WRITER_BYPASSING, event.collection, event.kind, **fields)

    def _relayed(self, event: OutOfBandWriteRelayed) -> None:
        fields = {"collection": event.collection, "kind": event.kind.value}
        self._throttled(Event.WRITER_RELAYED, event.collection, event.kind, **fields)

    def _not_portable(self, event: NotPortable) -> None:
        fields = {"collection": event.collection, "verb": event.verb.value, "operator": event.operator}
        self._throttled(Event.OPERATION_NOT_PORTABLE, event.collection, event.operator, **fields, hint=ADVICE)

    def _refused(self, event: CallRefused) -> None:
        fields = {"collection": event.collection, "operator": event.operator}
        self._throttled(Event.OPERATION_REFUSED, event.collection, event.operator, **fields, hint=LOST)

    def _deferred(self, event: WriteDeferred) -> None:
        fields = {"collection": event.collection, "reason": event.reason.value}
        self._throttled(Event.WRITE_DEFERRED, event.collection, event.reason, **fields)

    def _healed(self, event: HealFinished) -> None:
        if event.result is Healing.FAILED:
            self._throttled(Event.HEAL_FAILED, event.collection, collection=event.collection)

    def _reloaded(self, event: ConfigReloaded) -> None:
        self._log(Event.CONFIG_RELOADED if event.ok else Event.CONFIG_REJECTED, detail=scrub(event.detail))

    def _routed(self, event: RouteChanged) -> None:
        route = event.route
        self._log(
            Event.ROUTE_CHANGED,
            collection=event.collection,
            primary=route.primary.value,
            phase=route.phase.value,
            writes=route.writes.value,
            shadow_reads=route.shadow_reads,
            secondary_reads=route.secondary_reads,
            epoch=route.epoch,
        )
        if route.reads.of(route.primary):
            # A share of reads for the store that answers them all, as a flip leaves it behind: no fault, but logged.
            self._log(Event.READS_IDLE, collection=event.collection, store=route.primary.value)

    def _failed(self, event: ComponentFailed) -> None:
        fields = error_fields(event.error)
        known = event.part if event.part in _COMPONENTS else Component.OTHER.value
        self._throttled(Event.INTERNAL_FAILED, known, fields["error"], part=known, **fields)

    def _background_failed(self, event: BackgroundTaskFailed) -> None:
        if event.new:
            self._log(Event.BACKGROUND_FAILED, task=event.task.value, **error_fields(event.error))

    def _background_recovered(self, event: BackgroundTaskRecovered) -> None:
        self._log(Event.BACKGROUND_WORKING, task=event.task.value)

    def _noted(self, event: Noted) -> None:
        fields = dict(event.fields)
        key = self._key(fields.pop("key")) if "key" in fields else {}
        self._log(event.name, **safe_fields(fields, self._hasher.hash_value), **key)

    def _key(self, key: Any) -> dict[str, str]:
        """The key as a log line shows it; nothing for a mismatch of a whole answer."""
        if key is None:
            return {}
        return {"key_hash": self._hasher.hash_key(key), **({"key": str(key)} if self._reveal else {})}

    def _throttled(self, event: Event, *name: str, **fields: Any) -> None:
        held = self._throttle.admit(event, *name)
        if held is not None:
            self._log(event, **fields, repeated=held)

    def _log(self, event: str, _thing: str = "", /, **fields: Any) -> None:
        """The one place where lines are written. `_thing`: what the line names, to be named once."""
        if event in WARNINGS and event not in UNBOUNDED and not self._bounds.admit(str(event), _thing):
            return
        logger = self._logger
        log = logger.error if event in ERRORS else logger.warning if event in WARNINGS else logger.info
        log(str(event), **trace_fields(), **fields)
