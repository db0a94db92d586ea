"""A reporter that remembers what it was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from shadow.model import events
from shadow.model.events import Event
from shadow.model.operation import READS
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.verdict import Deferral, Healing, Incomparable, Mismatch, Routed, ShedReason, Slice, Verdict

__all__ = ["Recorder"]


class Recorder:
    def __init__(self) -> None:
        self.operations: Counter[tuple[Role, Outcome]] = Counter()
        self.verdicts: Counter[Verdict] = Counter()
        self.write_verdicts: Counter[Verdict] = Counter()
        self.noises: Counter[Verdict] = Counter()
        self.excuses: Counter[str] = Counter()
        self.canaries: Counter[bool] = Counter()
        self.reads: Counter[Slice] = Counter()
        self.answered_by: Counter[tuple[StoreName, Routed]] = Counter()
        self.mismatches: list[Mismatch] = []
        self.on_mismatch: Callable[[Mismatch], None] = self.mismatches.append
        self.sheds: Counter[ShedReason] = Counter()
        self.incomparables = Counter[Incomparable]()
        self.deferrals: Counter[Deferral] = Counter()
        self.healings: Counter[Healing] = Counter()
        self.failures: list[tuple[str, BaseException]] = []

    def publish(self, event: Event) -> None:
        match event:
            case events.OperationFinished():
                self.operations[event.role, event.outcome] += event.count
            case events.ComparisonFinished():
                (self.verdicts if event.verb in READS else self.write_verdicts)[event.verdict] += event.count
            case events.RuleApplied():
                self.excuses[event.rule] += 1
            case events.NoiseMeasured():
                self.noises[event.verdict] += 1
            case events.CanaryInjected():
                self.canaries[False] += 1
            case events.CanaryFound():
                self.canaries[True] += 1
            case events.ReadFinished():
                self.reads[event.slice] += 1
            case events.ReadRouted():
                self.answered_by[event.store, event.reason] += 1
            case events.MismatchConfirmed():
                self.on_mismatch(event.found)
            case events.ReadShed():
                self.sheds[event.reason] += 1
            case events.ComparisonUndecided():
                self.incomparables[event.reason] += 1
            case events.WriteDeferred():
                self.deferrals[event.reason] += 1
            case events.HealFinished():
                self.healings[event.result] += 1
            case events.ComponentFailed():
                self.failures.append((event.part, event.error))
