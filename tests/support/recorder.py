"""A reporter that remembers what it was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from shadow.model.operation import READS, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.reporter import Silent
from shadow.model.verdict import Deferral, Healing, Incomparable, Mismatch, Routed, ShedReason, Slice, Verdict

__all__ = ["Recorder"]


class Recorder(Silent):
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
        self.sheds: Counter[ShedReason] = Counter()
        self.incomparables = Counter[Incomparable]()
        self.deferrals: Counter[Deferral] = Counter()
        self.healings: Counter[Healing] = Counter()
        self.failures: list[tuple[str, BaseException]] = []

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
        self.operations[role, outcome] += count

    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None:
        (self.verdicts if verb in READS else self.write_verdicts)[verdict] += count

    def excused(self, collection: str, rules: Iterable[str]) -> None:
        self.excuses.update(rules)

    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        self.noises[verdict] += 1

    def canary(self, collection: str, *, found: bool) -> None:
        self.canaries[found] += 1

    def read(self, verb: Verb, slice: Slice, seconds: float) -> None:
        self.reads[slice] += 1

    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None:
        self.answered_by[store, reason] += 1

    def mismatch(self, found: Mismatch) -> None:
        self.mismatches.append(found)

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        self.sheds[reason] += 1

    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None:
        self.incomparables[reason] += 1

    def deferred(self, collection: str, reason: Deferral) -> None:
        self.deferrals[reason] += 1

    def healed(self, collection: str, result: Healing) -> None:
        self.healings[result] += 1

    def failed(self, part: str, error: BaseException) -> None:
        self.failures.append((part, error))

    def event(self, name: str, **fields: Any) -> None: ...
