"""Recent comparisons with a verdict, of a collection under its current route; earlier ones do not count."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from shadow.model.health import RecentReads
from shadow.model.verdict import Verdict

__all__ = ["WINDOW", "Recent"]

WINDOW: Final = 3600.0
"""The age in seconds up to which comparisons count."""

_STEP: Final = 60.0
"""Seconds that are counted together, and dropped together."""

_DECIDED: Final = frozenset((Verdict.MATCH, Verdict.EXCUSED, Verdict.MISMATCH))


@dataclass(slots=True)
class _Step:
    number: int
    compared: int = 0
    shed: int = 0


@dataclass(slots=True)
class _Series:
    began: float
    standing: object = None
    steps: deque[_Step] = field(default_factory=deque)


class Recent:
    """Counts in this process, by collection; at most an hour of minutes each. Thread-safe. `now` returns seconds of a
    monotonic clock."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._series: dict[str, _Series] = {}

    def add(self, collection: str, verdict: Verdict, count: int = 1) -> None:
        """One comparison, or `count` of them. Verdicts that say neither equal nor different, and were not shed, do not
        count."""
        decided = verdict in _DECIDED
        if not decided and verdict is not Verdict.SHED:
            return
        now = self._now()
        with self._lock:
            steps = self._of(collection, now).steps
            if not steps or steps[-1].number != int(now // _STEP):
                self._forget(steps, now)
                steps.append(_Step(int(now // _STEP)))
            if decided:
                steps[-1].compared += count
            else:
                steps[-1].shed += count

    def stands(self, collection: str, standing: object) -> None:
        """Sets the route of the collection; if it is new, earlier counts are dropped."""
        now = self._now()
        with self._lock:
            series = self._of(collection, now)
            if series.standing != standing:
                self._series[collection] = _Series(now, standing)

    def of(self, collection: str) -> RecentReads:
        """The counts of the last `WINDOW` seconds."""
        now = self._now()
        with self._lock:
            series = self._of(collection, now)
            self._forget(series.steps, now)
            return RecentReads(
                sum(each.compared for each in series.steps),
                sum(each.shed for each in series.steps),
                round(min(WINDOW, now - series.began), 1),
            )

    def _of(self, collection: str, now: float) -> _Series:
        series = self._series.get(collection)
        if series is None:
            series = self._series[collection] = _Series(now)
        return series

    @staticmethod
    def _forget(steps: deque[_Step], now: float) -> None:
        oldest = int((now - WINDOW) // _STEP)
        while steps and steps[0].number <= oldest:
            steps.popleft()
