"""The reporter of a running Shadow: metrics, findings and the log subscribe to the events of its components."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from shadow.compare.bypass import bypass
from shadow.compare.diff import Hasher
from shadow.model.background import Background
from shadow.model.events import (
    BackgroundTaskFailed,
    BackgroundTaskRecovered,
    ComponentFailed,
    Event,
    Handlers,
    KeyAgreed,
    MismatchConfirmed,
    NotPortable,
    OutOfBandWriteCounted,
    OutOfBandWriteSeen,
    RouteChanged,
)
from shadow.model.phase import Route
from shadow.model.verdict import Bypass, Mismatch
from shadow.model.version import Key
from shadow.observe.bypassing import Bypassing
from shadow.observe.findings import Findings
from shadow.observe.history import History
from shadow.observe.log_lines import LogLines
from shadow.observe.metric_row import Component
from shadow.observe.metrics import Metrics
from shadow.observe.portability import Portability
from shadow.observe.publisher import Publisher
from shadow.observe.span_notes import SpanNotes
from shadow.traces.identity import first_trace

__all__ = ["Report"]

_KNOWN: Final = 10_000
"""Findings that are remembered as seen."""


class Report:
    """Implements `model.events.Reporter`. `doubted`: whether the journal may have lost intents of a collection;
    `relayed`: whether its out-of-band writes are relayed, so that what a read finds of them is counted there."""

    def __init__(
        self,
        metrics: Metrics,
        findings: Findings,
        lines: LogLines,
        *,
        hasher: Hasher,
        doubted: Callable[[str], bool] = lambda collection: False,
        relayed: Callable[[str], bool] = lambda collection: False,
    ) -> None:
        self.metrics: Final = metrics
        self.findings: Final = findings
        self.bypassing: Final = Bypassing()
        self.portability: Final = Portability()
        self.history: Final = History()
        self.hasher: Final = hasher
        self._doubted = doubted
        self._relayed = relayed
        self._since = time.time()
        self._lines: Final = lines
        self.on_finding: Callable[[Mismatch, str], None] = lambda found, id: None
        """Called with a mismatch whose finding this process sees for the first time, and its id."""
        self._known: OrderedDict[str, None] = OrderedDict()
        self._publisher: Final = Publisher((metrics, self.history, SpanNotes(), self, lines), self._broken)

    def publish(self, event: Event) -> None:
        self._publisher.publish(event)

    def handlers(self) -> Handlers:
        return {
            MismatchConfirmed: self._mismatch,
            KeyAgreed: self._agreed,
            OutOfBandWriteSeen: self._seen,
            NotPortable: self._not_portable,
        }

    # --- callbacks for other components -----------------------------------------------------------------------------

    def failed(self, part: str, error: BaseException) -> None:
        self.publish(ComponentFailed(part, error))

    def routed(self, collection: str, route: Route) -> None:
        self.publish(RouteChanged(collection, route))

    def background_failed(self, task: Background, error: BaseException, new: bool) -> None:
        self.publish(BackgroundTaskFailed(task, error, new))

    def background_works(self, task: Background) -> None:
        self.publish(BackgroundTaskRecovered(task))

    def say_held(self, *, ending: bool = False) -> None:
        """As `LogLines.report_held`. Never raises."""
        try:
            self._lines.report_held(ending=ending)
        except Exception:
            self._broken()

    def _broken(self) -> None:
        """Counts a failure of a subscriber, which has no other effect."""
        self.metrics.internal_failure(Component.REPORT)

    def _mismatch(self, event: MismatchConfirmed) -> None:
        found = event.found
        self._note_finding(found, self.findings.add(found, first_trace()))
        kind = bypass(found, since=self._since, doubted=self._doubted(found.collection))
        if kind is None or self._relayed(found.collection):
            return
        content = tuple((each.path, each.primary_hash, each.secondary_hash) for each in found.differences)
        mark = (found.primary_state, found.secondary_state, content)
        self._count_bypass(found.collection, kind, found.key, mark, watched=False)

    def _note_finding(self, found: Mismatch, id: str) -> None:
        if id in self._known:
            self._known.move_to_end(id)
            return
        self._known[id] = None
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        self.on_finding(found, id)

    def _agreed(self, event: KeyAgreed) -> None:
        self.findings.mark_healed(event.collection, event.key)

    def _seen(self, event: OutOfBandWriteSeen) -> None:
        """Not counted: the delete may be one whose intent was lost."""
        if event.kind is not Bypass.DELETED or not self._doubted(event.collection):
            self._count_bypass(event.collection, event.kind, event.key, event.name, watched=True)

    def _not_portable(self, event: NotPortable) -> None:
        self.portability.add(event.collection, event.verb, event.operator)

    def _count_bypass(self, collection: str, kind: Bypass, key: Key, mark: Hashable, *, watched: bool) -> None:
        """Counted once, however often it is seen."""
        if self.bypassing.add(collection, kind, self.hasher.hash_key(key), mark, watched=watched):
            self.publish(OutOfBandWriteCounted(collection, kind))
