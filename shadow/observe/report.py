"""The reporter of a running Shadow: every hook counts, logs and keeps, under one guard, and never raises."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Concatenate, ParamSpec

import structlog

from shadow.compare.bypass import bypass
from shadow.compare.diff import Hasher
from shadow.model.background import Background
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, Route, StoreName
from shadow.model.verdict import (
    Bypass,
    Deferral,
    Healing,
    Incomparable,
    Mismatch,
    Routed,
    ShedReason,
    Slice,
    Unjournaled,
    Verdict,
)
from shadow.model.version import Key
from shadow.observe.bounding import Bounds
from shadow.observe.bypassing import HINTS, Bypassing
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
from shadow.observe.metric_table import Component, FlipOutcome
from shadow.observe.metrics import Metrics

__all__ = ["Report"]

LOGGED_DIFFERENCES = 10
"""Differences that the line of one mismatch names; the finding has the others."""

_FLIPS: dict[str, FlipOutcome] = {
    Event.FLIP_STARTED: FlipOutcome.STARTED,
    Event.FLIP_DONE: FlipOutcome.DONE,
    Event.FLIP_REFUSED: FlipOutcome.REFUSED,
}

_PART_OF: dict[Background, Component] = {
    Background.RECOVERY: Component.RECOVERY,
    Background.REFRESH: Component.JOURNAL,
    Background.CANARIES: Component.PROBE,
    Background.SUSPECTS: Component.CONFIRM,
    Background.WATCH: Component.WATCH,
    Background.FLEET: Component.CONTROL,
    Background.FIGURES: Component.CONTROL,
    Background.FLIP: Component.CONTROL,
    Background.FLIPS: Component.CONTROL,
    Background.PULSE: Component.REPORT,
    Background.WRITERS: Component.WATCH,
    Background.SWEEP: Component.SWEEP,
    Background.RIGHTS: Component.OTHER,
    Background.JOURNAL: Component.JOURNAL,
}

_PARTS = frozenset(part.value for part in Component)

_P = ParamSpec("_P")


def _guarded(hook: Callable[Concatenate[Report, _P], None]) -> Callable[Concatenate[Report, _P], None]:
    """The one guard: what goes wrong in a hook is counted and goes no further. Cancellation is let through."""

    @functools.wraps(hook)
    def guarded(self: Report, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception:
            self.metrics.internal_failure(Component.REPORT)

    return guarded


class Report:
    """Implements `model.reporter.Reporter`.

    Keys appear as the hasher's keyed hash, as text only with `reveal_keys`. `logger` takes structlog's calls
    (`info`, `warning` with an event name and fields); by default it is `log.get_logger()`.
    """

    def __init__(
        self,
        metrics: Metrics,
        findings: Findings,
        *,
        hasher: Hasher,
        reveal_keys: bool = False,
        logger: structlog.typing.FilteringBoundLogger | None = None,
        throttle: LogThrottle | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.metrics = metrics
        self.findings = findings
        self.bypassing = Bypassing()
        self.doubted: Callable[[str], bool] = lambda collection: False
        """Whether the journal may have lost intents of a collection."""
        self._since = time.time()
        self._hasher = hasher
        self._reveal = reveal_keys
        self._logger = logger or get_logger()
        self._throttle = throttle or LogThrottle()
        self._bounds = bounds or Bounds()

    @property
    def hasher(self) -> Hasher:
        return self._hasher

    @_guarded
    def operation(
        self,
        collection: str,
        verb: Verb,
        store: StoreName,
        role: Role,
        outcome: Outcome,
        seconds: float,
        count: int = 1,
    ) -> None:
        self.metrics.operation(collection, verb, store, role, outcome, seconds, count)

    @_guarded
    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None:
        self.metrics.comparison(collection, verb, verdict, count)

    @_guarded
    def excused(self, collection: str, rules: Iterable[str]) -> None:
        """Counts each rule that a comparison needed to come to `excused`."""
        for rule in rules:
            self.metrics.excused(collection, rule)

    @_guarded
    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        self.metrics.noise(collection, verb, verdict)

    @_guarded
    def canary(self, collection: str, *, found: bool) -> None:
        self.metrics.canary(collection, found=found)

    @_guarded
    def read(self, verb: Verb, slice: Slice, seconds: float) -> None:
        self.metrics.read(verb, slice, seconds)

    @_guarded
    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None:
        self.metrics.routed_read(collection, store, reason)

    def _bypassed(self, found: Mismatch) -> None:
        """Counts the write past the shim that a mismatch is sure to come from, once however often it is come upon."""
        kind = bypass(found, since=self._since, doubted=self.doubted(found.collection))
        if kind is None:
            return
        content = tuple((each.path, each.primary_hash, each.secondary_hash) for each in found.differences)
        mark = (found.primary_state, found.secondary_state, content)
        self._count_bypass(found.collection, kind, found.key, mark, watched=False)

    @_guarded
    def watched(self, collection: str, kind: Bypass, key: Key, name: str) -> None:
        """A write past the shim was seen as it happened; `name` tells it from every other. Not so a delete that may
        be one whose intent was lost."""
        if kind is not Bypass.DELETED or not self.doubted(collection):
            self._count_bypass(collection, kind, key, name, watched=True)

    def _count_bypass(self, collection: str, kind: Bypass, key: Key, mark: Hashable, *, watched: bool) -> None:
        if self.bypassing.add(collection, kind, self._hasher.hash_key(key), mark, watched=watched):
            self.metrics.bypassed(collection, kind)
            fields = {"collection": collection, "kind": kind.value, "hint": HINTS[kind]}
            self._throttled(Event.WRITER_BYPASSING, collection, kind, **fields)

    @_guarded
    def mismatch(self, found: Mismatch) -> None:
        self._bypassed(found)
        self.metrics.mismatch(found.collection, found.verb, found.kind)
        finding = self.findings.add(found)
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

    @_guarded
    def level(self, collection: str, key: Key) -> None:
        self.findings.mark_healed(collection, key)

    @_guarded
    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        self.metrics.shed(collection, reason)

    @_guarded
    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None:
        self.metrics.incomparable(collection, reason)

    @_guarded
    def deferred(self, collection: str, reason: Deferral) -> None:
        self.metrics.deferred(collection, reason)
        self._throttled(Event.WRITE_DEFERRED, collection, reason, collection=collection, reason=reason.value)

    @_guarded
    def unjournaled(self, collection: str, *, taken: bool) -> None:
        self.metrics.unjournaled(collection, Unjournaled.TAKEN if taken else Unjournaled.DOUBTED)

    @_guarded
    def healed(self, collection: str, result: Healing) -> None:
        self.metrics.healed(collection, result)
        if result is Healing.FAILED:
            self._throttled(Event.HEAL_FAILED, collection, collection=collection)

    @_guarded
    def reloaded(self, ok: bool, detail: str = "") -> None:
        self.metrics.reloaded(ok)
        self._log(Event.CONFIG_RELOADED if ok else Event.CONFIG_REJECTED, detail=scrub(detail))

    @_guarded
    def routed(self, collection: str, route: Route) -> None:
        self.metrics.routed(collection, route)
        self._log(
            Event.ROUTE_CHANGED,
            collection=collection,
            primary=route.primary.value,
            phase=route.phase.value,
            writes=route.writes.value,
            shadow_reads=route.shadow_reads,
            secondary_reads=route.secondary_reads,
            epoch=route.epoch,
        )
        if route.reads.of(route.primary):
            # A share of reads for a store that answers them all, as it is left behind by a flip: no fault, but said.
            self._log(Event.READS_IDLE, collection=collection, store=route.primary.value)

    @_guarded
    def failed(self, part: str, error: BaseException) -> None:
        self.metrics.internal_failure(part)
        fields = error_fields(error)
        known = part if part in _PARTS else Component.OTHER.value
        self._throttled(Event.INTERNAL_FAILED, known, fields["error"], part=known, **fields)

    @_guarded
    def background_failed(self, task: Background, error: BaseException, new: bool) -> None:
        """A long-lived task has failed, and begins again. `new`: for this cause the first time since it has worked."""
        self.metrics.background_failure(task)
        self.metrics.internal_failure(_PART_OF.get(task, Component.OTHER))
        if new:
            self._log(Event.BACKGROUND_FAILED, task=task.value, **error_fields(error))

    @_guarded
    def background_works(self, task: Background) -> None:
        """A long-lived task that had failed works again."""
        self._log(Event.BACKGROUND_WORKING, task=task.value)

    def event(self, name: str, **fields: Any) -> None:
        self._event(name, fields)

    @_guarded
    def _event(self, name: str, fields: dict[str, Any]) -> None:
        if name in _FLIPS:
            self.metrics.flipped(str(fields.get("collection")), _FLIPS[name])
        key = self._key(fields.pop("key")) if "key" in fields else {}
        self._log(name, **safe_fields(fields, self._hasher.hash_value), **key)

    def _key(self, key: Any) -> dict[str, str]:
        """The key as a log line shows it; nothing for a mismatch of a whole answer."""
        if key is None:
            return {}
        return {"key_hash": self._hasher.hash_key(key), **({"key": str(key)} if self._reveal else {})}

    def _throttled(self, event: Event, *name: str, **fields: Any) -> None:
        held = self._throttle.admit(event, *name)
        if held is not None:
            self._log(event, **fields, repeated=held)

    @_guarded
    def say_held(self, *, ending: bool = False) -> None:
        """Says how many lines were held back, once a minute at most; to be called once a second."""
        held = self._bounds.due(ending=ending)
        if held is not None:
            about = {"not_written": held.not_written, "by_event": held.by_kind, "repeated": held.repeated}
            self._log(Event.LINES_HELD, **about, seconds=held.seconds)

    def _log(self, event: str, _thing: str = "", /, **fields: Any) -> None:
        """The one place where lines are written. `_thing`: what the line names, to be named once."""
        if event in WARNINGS and event not in UNBOUNDED and not self._bounds.admit(str(event), _thing):
            return
        logger = self._logger
        log = logger.error if event in ERRORS else logger.warning if event in WARNINGS else logger.info
        log(str(event), **fields)
