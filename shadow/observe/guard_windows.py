"""What the guards of a ramp or of a watched flip go by: the last minutes of a collection, in this process.

Counting begins with each new share of reads, and with each flip, so that no figure is of another one. A collection
without a ramp and without a watched flip costs one look into a dictionary for each event.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.events import (
    CallRefused,
    ComparisonFinished,
    Handlers,
    NoiseMeasured,
    OperationFinished,
    ReadRouted,
    ReadTimed,
    RequestThrottled,
)
from shadow.model.guards import BOUNDS, bucket_of
from shadow.model.health import GuardHealth
from shadow.model.latencies import SINGLE_WRITES
from shadow.model.operation import READS
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.verdict import Routed, Verdict

__all__ = ["GuardWindows"]

_SLOTS: Final = 10
"""Parts of a window, each dropped as a whole."""
_NAMED: Final = 5
"""Operators that are named, of those that were refused."""
_MATCHED: Final = frozenset((Verdict.MATCH, Verdict.EXCUSED, Verdict.MISMATCH))
_FAILED: Final = frozenset((Routed.SLOW, Routed.DOWN, Routed.ERROR))


def _zeros() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


@dataclass(slots=True)
class _Slot:
    number: int
    matched: int = 0
    differing: int = 0
    noise: int = 0
    noisy: int = 0
    routed: int = 0
    routed_failed: int = 0
    asked: int = 0
    asked_failed: int = 0
    requests: int = 0
    throttled: int = 0
    followed: int = 0
    followed_failed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    routed_times: list[int] = field(default_factory=_zeros)
    primary_times: list[int] = field(default_factory=_zeros)
    secondary_times: list[int] = field(default_factory=_zeros)
    paired_times: list[int] = field(default_factory=_zeros)
    paired_secondary_times: list[int] = field(default_factory=_zeros)
    single_writes: list[int] = field(default_factory=_zeros)
    secondary_single_writes: list[int] = field(default_factory=_zeros)


_COUNTS: Final = (
    "matched", "differing", "noise", "noisy", "routed", "routed_failed", "asked", "asked_failed", "requests",
    "throttled", "followed", "followed_failed",
)  # fmt: skip
_TIMES: Final = (
    "routed_times", "primary_times", "secondary_times", "paired_times", "paired_secondary_times", "single_writes",
    "secondary_single_writes",
)  # fmt: skip


class _Window:
    def __init__(self, plan: str, number: int, seconds: float, primary: StoreName | None) -> None:
        self.plan = plan
        self.number = number
        self._primary = primary
        self._step = seconds / _SLOTS
        self._slots: deque[_Slot] = deque(maxlen=_SLOTS)

    def counts(self, store: StoreName | None, role: Role) -> bool:
        """Whether the store has this role, as far as it is known: what began before a flip may end after it."""
        return self._primary is None or store is None or (store is self._primary) is (role is Role.PRIMARY)

    def slot(self, now: float) -> _Slot:
        number = int(now // self._step)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        return self._slots[-1]

    def health(self, now: float) -> GuardHealth:
        oldest = int(now // self._step) - _SLOTS
        slots = [each for each in self._slots if each.number > oldest]
        found: dict[str, Any] = {name: sum(getattr(each, name) for each in slots) for name in _COUNTS}
        for name in _TIMES:
            columns = zip(_zeros(), *(getattr(each, name) for each in slots), strict=True)
            found[name] = tuple(map(sum, columns))
        refused: Counter[str] = Counter()
        for each in slots:
            refused.update(each.refused)
        found["unsupported"] = refused.total()
        found["unsupported_for"] = tuple(f"{count} {operator}" for operator, count in refused.most_common(_NAMED))
        return GuardHealth(self.plan, self.number, **found)


class GuardWindows:
    """Thread-safe. `now` returns seconds of a monotonic clock."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def follow(
        self, collection: str, *, plan: str, number: int, seconds: float, primary: StoreName | None = None
    ) -> None:
        """Counts the last `seconds` of a collection. With another `plan` or `number` than before, from zero. With
        `primary`, only what was asked of the stores in these roles."""
        with self._lock:
            window = self._windows.get(collection)
            if window is None or (window.plan, window.number) != (plan, number):
                self._windows[collection] = _Window(plan, number, seconds, primary)

    def drop(self, collection: str) -> None:
        with self._lock:
            self._windows.pop(collection, None)

    @property
    def collections(self) -> set[str]:
        return set(self._windows)

    def of(self, collection: str) -> GuardHealth | None:
        """None: nothing is counted of it."""
        with self._lock:
            window = self._windows.get(collection)
            return None if window is None else window.health(self._now())

    def handlers(self) -> Handlers:
        return {
            OperationFinished: self._finished,
            ReadRouted: self._routed,
            ReadTimed: self._timed,
            ComparisonFinished: self._compared,
            NoiseMeasured: self._noise,
            RequestThrottled: self._throttled,
            CallRefused: self._refused,
        }

    def _finished(self, event: OperationFinished) -> None:
        if not self._windows:
            return
        with self._lock:
            if event.store is StoreName.DYNAMO:
                # Throttling is known for all tables together, and so are the requests that it is a share of.
                for each in self._windows.values():
                    each.slot(self._now()).requests += event.count
            window = self._windows.get(event.collection)
            if window is None or not window.counts(event.store, event.role):
                return
            # What is refused as the statement itself deserves is no failure of the store.
            slot, failed = window.slot(self._now()), event.outcome is Outcome.UNKNOWN or event.denied
            is_primary = event.role is Role.PRIMARY
            if is_primary:
                slot.asked += event.count
                slot.asked_failed += event.count * failed
            else:
                slot.followed += event.count
                slot.followed_failed += event.count * failed
            if event.verb in SINGLE_WRITES and event.outcome is Outcome.ACKED:
                times = slot.single_writes if is_primary else slot.secondary_single_writes
                times[bucket_of(event.seconds)] += event.count
            if event.verb in READS and event.outcome is not Outcome.REFUSED:
                times = slot.primary_times if is_primary else slot.secondary_times
                times[bucket_of(event.seconds)] += event.count

    def _routed(self, event: ReadRouted) -> None:
        window = self._windows.get(event.collection)
        if window is None or (event.reason is not Routed.SHARE and event.reason not in _FAILED):
            return
        with self._lock:
            slot = window.slot(self._now())
            slot.routed += 1
            slot.routed_failed += event.reason in _FAILED
            if event.seconds:
                slot.routed_times[bucket_of(event.seconds)] += 1

    def _timed(self, event: ReadTimed) -> None:
        window = self._windows.get(event.collection)
        if window is not None and window.counts(event.primary, Role.PRIMARY):
            with self._lock:
                slot = window.slot(self._now())
                slot.paired_times[bucket_of(event.primary_seconds)] += 1
                slot.paired_secondary_times[bucket_of(event.secondary_seconds)] += 1

    def _compared(self, event: ComparisonFinished) -> None:
        window = self._windows.get(event.collection)
        if window is not None and event.verdict in _MATCHED:
            with self._lock:
                slot = window.slot(self._now())
                slot.matched += event.count
                slot.differing += event.count * (event.verdict is Verdict.MISMATCH)

    def _noise(self, event: NoiseMeasured) -> None:
        window = self._windows.get(event.collection)
        if window is not None and event.verdict in _MATCHED:
            with self._lock:
                slot = window.slot(self._now())
                slot.noise += 1
                slot.noisy += event.verdict is Verdict.MISMATCH

    def _refused(self, event: CallRefused) -> None:
        window = self._windows.get(event.collection)
        if window is not None and window.counts(StoreName.DYNAMO, Role.PRIMARY):
            with self._lock:
                window.slot(self._now()).refused[event.operator] += 1

    def _throttled(self, event: RequestThrottled) -> None:
        with self._lock:
            for each in self._windows.values():
                each.slot(self._now()).throttled += 1
