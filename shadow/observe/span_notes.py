"""Notes on the span of the work or the call in which an event is published: verdicts, and why something was not
done."""

from __future__ import annotations

from shadow.model.events import (
    ComparisonFinished,
    Handlers,
    HealFinished,
    MismatchConfirmed,
    NoiseMeasured,
    NotPortable,
    ReadRouted,
    ReadShed,
    WriteDeferred,
)
from shadow.traces.spans import Call, Work, scope

__all__ = ["SpanNotes"]


class SpanNotes:
    """A subscriber. Publishers call their subscribers where they are, so the span is that of the publisher."""

    def handlers(self) -> Handlers:
        return {
            ComparisonFinished: self._judged,
            NoiseMeasured: self._judged,
            ReadShed: self._shed,
            WriteDeferred: self._deferred,
            HealFinished: self._healed,
            MismatchConfirmed: self._differs,
            NotPortable: self._not_portable,
            ReadRouted: self._routed,
        }

    def _judged(self, event: ComparisonFinished | NoiseMeasured) -> None:
        if isinstance(work := scope(), Work):
            work.judged(event.verdict.value)

    def _shed(self, event: ReadShed) -> None:
        _mark("shadow.shed", event.reason.value)

    def _deferred(self, event: WriteDeferred) -> None:
        _mark("shadow.deferred", event.reason.value)

    def _healed(self, event: HealFinished) -> None:
        _mark("shadow.healing", event.result.value)

    def _differs(self, event: MismatchConfirmed) -> None:
        _mark("shadow.mismatch", event.found.kind.value)

    def _not_portable(self, event: NotPortable) -> None:
        if isinstance(call := scope(), Call):
            call.mark("shadow.not_portable", event.operator)

    def _routed(self, event: ReadRouted) -> None:
        if isinstance(call := scope(), Call):
            call.mark("shadow.routed", event.reason.value)


def _mark(name: str, value: str) -> None:
    if isinstance(work := scope(), Work):
        work.mark(name, value)
