"""The reporter through which every part says what it did: each hook publishes one event of `model.events`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shadow.model.events import (
    CanaryFound,
    CanaryInjected,
    ComparisonFinished,
    ComparisonUndecided,
    ComponentFailed,
    ConfigReloaded,
    Event,
    HealFinished,
    KeyAgreed,
    MismatchConfirmed,
    NoiseMeasured,
    OperationFinished,
    ReadFinished,
    ReadRouted,
    ReadShed,
    RouteChanged,
    RuleApplied,
    WriteDeferred,
    WriteUnjournaled,
    noted,
)
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, Route, StoreName
from shadow.model.verdict import Deferral, Healing, Incomparable, Mismatch, Routed, ShedReason, Slice, Verdict
from shadow.model.version import Key

__all__ = ["Reporter", "Silent"]


class Reporter:
    """A hook never raises into its caller and never blocks: whoever implements `publish` sees to that."""

    def publish(self, event: Event) -> None:
        raise NotImplementedError

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
        self.publish(OperationFinished(collection, verb, store, role, outcome, seconds, count))

    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None:
        self.publish(ComparisonFinished(collection, verb, verdict, count))

    def excused(self, collection: str, rules: Iterable[str]) -> None:
        for rule in rules:
            self.publish(RuleApplied(collection, rule))

    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        self.publish(NoiseMeasured(collection, verb, verdict))

    def canary(self, collection: str, *, found: bool) -> None:
        self.publish(CanaryFound(collection) if found else CanaryInjected(collection))

    def read(self, verb: Verb, slice: Slice, seconds: float) -> None:
        self.publish(ReadFinished(verb, slice, seconds))

    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None:
        self.publish(ReadRouted(collection, store, reason))

    def mismatch(self, found: Mismatch) -> None:
        self.publish(MismatchConfirmed(found))

    def level(self, collection: str, key: Key) -> None:
        self.publish(KeyAgreed(collection, key))

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        self.publish(ReadShed(collection, verb, reason))

    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None:
        self.publish(ComparisonUndecided(collection, verb, reason))

    def deferred(self, collection: str, reason: Deferral) -> None:
        self.publish(WriteDeferred(collection, reason))

    def unjournaled(self, collection: str, *, taken: bool) -> None:
        self.publish(WriteUnjournaled(collection, taken))

    def healed(self, collection: str, result: Healing) -> None:
        self.publish(HealFinished(collection, result))

    def reloaded(self, ok: bool, detail: str = "") -> None:
        self.publish(ConfigReloaded(ok, detail))

    def routed(self, collection: str, route: Route) -> None:
        self.publish(RouteChanged(collection, route))

    def failed(self, part: str, error: BaseException) -> None:
        self.publish(ComponentFailed(part, error))

    def event(self, name: str, **fields: Any) -> None:
        self.publish(noted(name, **fields))


class Silent(Reporter):
    """A reporter that nobody subscribes to."""

    def publish(self, event: Event) -> None: ...
