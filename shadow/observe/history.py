"""What this process has compared, by hour and collection, until it is in the fleet's record."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shadow.model.compared import Compared
from shadow.model.events import ComparisonFinished, Handlers, NoiseMeasured, RuleApplied
from shadow.model.version import fresh_id

__all__ = ["HOUR", "Counts", "History"]

HOUR: Final = 3600

Counts = Mapping[int, Mapping[str, Compared]]
"""By hour since the epoch, and collection."""


@dataclass(slots=True)
class _Tally:
    verdicts: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)


class History:
    """Subscribes to comparisons. Thread-safe; `now` returns seconds since the epoch. The counts of an hour are absolute
    and under one writer's id, so that a record of them can be written as often as one likes."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self.writer = fresh_id()
        self._hours: dict[int, dict[str, _Tally]] = {}
        self._changed: set[int] = set()
        self._pid = os.getpid()

    @property
    def hour(self) -> int:
        """Hours since the epoch, now."""
        return int(self._now()) // HOUR

    def handlers(self) -> Handlers:
        return {ComparisonFinished: self._finished, RuleApplied: self._ruled, NoiseMeasured: self._noise}

    def _finished(self, event: ComparisonFinished) -> None:
        with self._held():
            self._of(event.collection).verdicts[event.verdict.value] += event.count

    def _ruled(self, event: RuleApplied) -> None:
        with self._held():
            self._of(event.collection).rules[event.rule] += 1

    def _noise(self, event: NoiseMeasured) -> None:
        with self._held():
            self._of(event.collection).noise[event.verdict.value] += 1

    def _held(self) -> threading.Lock:
        """The lock. A forked process begins with no counts, for its parent writes those itself, and with a lock of its
        own: a thread of the parent may have held the other one."""
        if self._pid != os.getpid():
            self._begin()
        return self._lock

    def _of(self, collection: str) -> _Tally:
        hour = self.hour
        self._changed.add(hour)
        of_hour = self._hours.setdefault(hour, {})
        if collection not in of_hour:
            of_hour[collection] = _Tally()
        return of_hour[collection]

    def of(self, collection: str) -> Compared:
        """What this process has compared of a collection in this hour."""
        with self._lock:
            return _shown(self._hours.get(self.hour, {})).get(collection, Compared())

    def take(self) -> tuple[str, Counts]:
        """The writer's id, and what has changed since it was last taken; `put_back` follows where it was not written.
        Hours that are over are forgotten with that."""
        with self._held():
            taken = {hour: _shown(self._hours[hour]) for hour in self._changed}
            self._changed.clear()
            this = self.hour
            self._hours = {hour: each for hour, each in self._hours.items() if hour >= this}
            return self.writer, taken

    def put_back(self, writer: str, left: Counts) -> None:
        with self._lock:
            if writer != self.writer:
                return
            for hour, collections in left.items():
                self._changed.add(hour)
                if hour not in self._hours:
                    self._hours[hour] = {name: _tally(each) for name, each in collections.items()}


def _shown(tallies: Mapping[str, _Tally]) -> dict[str, Compared]:
    return {name: Compared(dict(each.verdicts), dict(each.rules), dict(each.noise)) for name, each in tallies.items()}


def _tally(compared: Compared) -> _Tally:
    return _Tally(Counter(compared.verdicts), Counter(compared.rules), Counter(compared.noise))
