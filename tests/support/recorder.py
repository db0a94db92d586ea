"""A reporter that remembers what it was told."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.reporter import Silent
from shadow.model.verdict import Deferral, Healing, Mismatch, ShedReason, Verdict

__all__ = ["Recorder"]


class Recorder(Silent):
    def __init__(self) -> None:
        self.operations: Counter[tuple[Role, Outcome]] = Counter()
        self.verdicts: Counter[Verdict] = Counter()
        self.mismatches: list[Mismatch] = []
        self.sheds: Counter[ShedReason] = Counter()
        self.deferrals: Counter[Deferral] = Counter()
        self.healings: Counter[Healing] = Counter()
        self.failures: list[tuple[str, BaseException]] = []

    def operation(
        self, collection: str, verb: Verb, store: StoreName, role: Role, outcome: Outcome, seconds: float
    ) -> None:
        self.operations[role, outcome] += 1

    def comparison(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        self.verdicts[verdict] += 1

    def mismatch(self, found: Mismatch) -> None:
        self.mismatches.append(found)

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        self.sheds[reason] += 1

    def deferred(self, collection: str, reason: Deferral) -> None:
        self.deferrals[reason] += 1

    def healed(self, collection: str, result: Healing) -> None:
        self.healings[result] += 1

    def failed(self, part: str, error: BaseException) -> None:
        self.failures.append((part, error))

    def event(self, name: str, **fields: Any) -> None: ...
