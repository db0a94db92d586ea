"""The work that is done once a second: findings written, gauges published to other workers, rates sampled."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.observe.findings_file import SharedFindings
from shadow.observe.metrics import Metrics

__all__ = ["PeriodicTasks", "Sample", "Samples"]

EVERY: Final = 5.0
"""Seconds between two samples."""

KEPT: Final = 720
"""Number of samples kept: one hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums since the start, at a moment (epoch seconds): comparisons by verdict."""

    at: float
    verdicts: Mapping[str, int] = field(default_factory=dict)


class Samples:
    """The last hour, for plots without another server."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[Sample] = deque(maxlen=kept)

    def add(self, sample: Sample) -> None:
        """Stores a sample. Sums that decreased (another set of workers) begin a new series."""
        if self._ring and any(sample.verdicts.get(name, 0) < was for name, was in self._ring[-1].verdicts.items()):
            self._ring.clear()
        self._ring.append(sample)

    def rates(self, verdict: str, points: int = 120) -> list[tuple[float, float]]:
        """(epoch seconds, comparisons per second) with at most `points` points, oldest first."""
        step = max(1, -(-(len(self._ring) - 1) // points))
        kept = list(self._ring)[::-1][::step][::-1]
        return [
            (later.at, (later.verdicts.get(verdict, 0) - before.verdicts.get(verdict, 0)) / (later.at - before.at))
            for before, later in itertools.pairwise(kept)
            if later.at > before.at
        ]


class PeriodicTasks:
    """`beat` is one round; `run` continues until cancelled, and calls `turn` at each round."""

    def __init__(self, metrics: Metrics, findings: SharedFindings, on_beat: Callable[[], None] = lambda: None) -> None:
        self.samples = Samples()
        self._metrics = metrics
        self._findings = findings
        self._on_beat = on_beat
        self._sampled = -EVERY

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        while True:
            turn()
            await self.beat()
            await asyncio.sleep(1.0)

    async def beat(self) -> None:
        self._on_beat()
        await self._findings.save()
        totals = await asyncio.to_thread(self._look)
        if totals is not None:
            self.samples.add(Sample(time.time(), totals["verdicts"]))

    def _look(self) -> dict[str, Any] | None:
        """Reading every series takes about ten milliseconds, so it runs in a thread, and not in each round."""
        self._metrics.publish()
        now = time.monotonic()
        if now - self._sampled < EVERY:
            return None
        self._sampled = now
        return self._metrics.totals()
