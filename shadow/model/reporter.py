"""The hooks through which every component reports. `observe.report` implements them; tests use a recorder.

A hook never raises into its caller and never blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, Route, StoreName
from shadow.model.verdict import Deferral, Healing, Incomparable, Mismatch, Routed, ShedReason, Slice, Verdict
from shadow.model.version import Key

__all__ = ["Reporter", "Silent"]


class Reporter(Protocol):
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
        """A store has answered one operation, or `count` of them together, in `seconds` of wall time."""

    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None:
        """A comparison has a verdict, or `count` of them have the same one."""

    def excused(self, collection: str, rules: Iterable[str]) -> None:
        """The names of the rules that a comparison needed for the verdict `excused`."""

    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None:
        """A comparison of the primary with itself has a verdict."""

    def canary(self, collection: str, *, found: bool) -> None:
        """An injected difference was given to the comparison, or was found by it."""

    def read(self, verb: Verb, slice: Slice, seconds: float) -> None:
        """The application's read was answered in `seconds` of wall time, the cost of shadowing included."""

    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None:
        """A read of a collection with a share for the secondary was, or will be, answered by `store`."""

    def mismatch(self, found: Mismatch) -> None:
        """A mismatch was confirmed: it is counted, logged, and kept as a finding."""

    def level(self, collection: str, key: Key) -> None:
        """Both stores were seen or made equal under a key: its findings are settled."""

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        """A shadow read was not done or not finished."""

    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None:
        """A comparison can say neither equal nor different; `comparison` follows with that verdict."""

    def deferred(self, collection: str, reason: Deferral) -> None:
        """A write was left to its intent."""

    def unjournaled(self, collection: str, *, taken: bool) -> None:
        """A write was made without an intent, because the journal could not be written. `taken`: the secondary has
        it."""

    def healed(self, collection: str, result: Healing) -> None:
        """A repair has ended."""

    def reloaded(self, ok: bool, detail: str = "") -> None:
        """The configuration was read again."""

    def routed(self, collection: str, route: Route) -> None:
        """A collection has a (new) route."""

    def failed(self, part: str, error: BaseException) -> None:
        """An internal component failed where the failure must not reach the application. `part` is from a fixed set."""

    def event(self, name: str, **fields: Any) -> None:
        """One structured log line. `name` is a constant of `observe.log`; fields hold no document content."""


class Silent:
    """A reporter that reports nothing; the base class of recorders in tests."""

    def operation(
        self,
        collection: str,
        verb: Verb,
        store: StoreName,
        role: Role,
        outcome: Outcome,
        seconds: float,
        count: int = 1,
    ) -> None: ...

    def comparison(self, collection: str, verb: Verb, verdict: Verdict, count: int = 1) -> None: ...

    def excused(self, collection: str, rules: Iterable[str]) -> None: ...

    def noise(self, collection: str, verb: Verb, verdict: Verdict) -> None: ...

    def canary(self, collection: str, *, found: bool) -> None: ...

    def read(self, verb: Verb, slice: Slice, seconds: float) -> None: ...

    def routed_read(self, collection: str, store: StoreName, reason: Routed) -> None: ...

    def mismatch(self, found: Mismatch) -> None: ...

    def level(self, collection: str, key: Key) -> None: ...

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None: ...

    def incomparable(self, collection: str, verb: Verb, reason: Incomparable) -> None: ...

    def deferred(self, collection: str, reason: Deferral) -> None: ...

    def unjournaled(self, collection: str, *, taken: bool) -> None: ...

    def healed(self, collection: str, result: Healing) -> None: ...

    def reloaded(self, ok: bool, detail: str = "") -> None: ...

    def routed(self, collection: str, route: Route) -> None: ...

    def failed(self, part: str, error: BaseException) -> None: ...

    def event(self, name: str, **fields: Any) -> None: ...
