"""Store against store: how long the primary took for an operation of the application, and the secondary for the same
one, of the last hour in this process.

Reads are counted in pairs: the answer that the application got, and the shadow read of it. Writes of one document are
counted as each store has acknowledged them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.events import Handlers, OperationFinished, ReadTimed, RouteChanged
from shadow.model.guards import bucket_of
from shadow.model.health import LatencyHealth
from shadow.model.latencies import QUANTILES, SINGLE_WRITES, Times, percentile, text_of, total
from shadow.model.outcome import Outcome
from shadow.model.phase import Role
from shadow.model.shapes import shape_of

__all__ = ["OTHER_SHAPES", "Latencies"]

_WINDOW: Final = 3600.0
_STEP: Final = 300.0
"""Seconds that are counted together, and dropped together."""
_MOST_SHAPES: Final = 20
"""Shapes of reads of one collection that are counted by name, and the rest together."""
OTHER_SHAPES: Final = "(other shapes)"

_Place = tuple[str, Role, int]
"""A shape, the role of the store, and a bucket of time."""


@dataclass(slots=True)
class _Collection:
    route: object = None
    shapes: dict[str, bool] = field(default_factory=dict)
    """Those that are counted by name, and whether they are of reads."""
    steps: deque[tuple[int, Counter[_Place]]] = field(default_factory=deque)


class Latencies:
    """Counts by collection. Thread-safe. `now` returns seconds of a monotonic clock."""

    def __init__(self, collections: tuple[str, ...], *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._collections = {name: _Collection() for name in collections}

    def handlers(self) -> Handlers:
        return {ReadTimed: self._read, OperationFinished: self._written, RouteChanged: self._routed}

    def of(self, collection: str, slower: float) -> LatencyHealth:
        """For the gate, whose limit is `slower`."""
        with self._lock:
            found = self._collections[collection]
            counts = self._counts(found)
            reads = [shape for shape, is_read in found.shapes.items() if is_read]
            writes = [shape for shape, is_read in found.shapes.items() if not is_read]
        return LatencyHealth(slower, *(_texts(counts, shapes) for shapes in (reads, writes)))

    def status(self, collection: str) -> list[dict[str, Any]]:
        """By shape, the most frequent first: how often each store was asked, and its quantiles in seconds. `ratio`: the
        secondary's quantile as a multiple of the primary's; absent where one of both was not asked."""
        with self._lock:
            found = self._collections[collection]
            counts, shapes = self._counts(found), list(found.shapes)
        told = [_told(shape, *(_times(counts, [shape], role) for role in Role)) for shape in shapes]
        return sorted((each for each in told if each["primary"]), key=lambda each: -each["primary"]["count"])

    def _read(self, event: ReadTimed) -> None:
        if event.collection in self._collections:
            shape = shape_of(event.asked)
            with self._lock:
                found = self._collections[event.collection]
                self._add(found, shape, Role.PRIMARY, event.primary_seconds, is_read=True)
                self._add(found, shape, Role.SECONDARY, event.secondary_seconds, is_read=True)

    def _written(self, event: OperationFinished) -> None:
        if event.verb not in SINGLE_WRITES or event.outcome is not Outcome.ACKED:
            return
        found = self._collections.get(event.collection)
        if found is not None:
            with self._lock:
                self._add(found, event.verb, event.role, event.seconds, is_read=False)

    def _routed(self, event: RouteChanged) -> None:
        found, route = self._collections.get(event.collection), (event.route.primary, event.route.phase)
        if found is not None and found.route != route:
            with self._lock:
                self._collections[event.collection] = _Collection(route)

    def _add(self, found: _Collection, shape: str, role: Role, seconds: float, *, is_read: bool) -> None:
        if shape not in found.shapes:
            if is_read and sum(found.shapes.values()) >= _MOST_SHAPES:
                shape = OTHER_SHAPES
            found.shapes[shape] = is_read
        number = int(self._now() // _STEP)
        if not found.steps or found.steps[-1][0] != number:
            self._forget(found)
            found.steps.append((number, Counter()))
        found.steps[-1][1][shape, role, bucket_of(seconds)] += 1

    def _counts(self, found: _Collection) -> Counter[_Place]:
        self._forget(found)
        counts: Counter[_Place] = Counter()
        for _, each in found.steps:
            counts.update(each)
        return counts

    def _forget(self, found: _Collection) -> None:
        oldest = int((self._now() - _WINDOW) // _STEP)
        while found.steps and found.steps[0][0] <= oldest:
            found.steps.popleft()


def _times(counts: Counter[_Place], shapes: list[str], role: Role) -> Times:
    found: Counter[int] = Counter()
    for (shape, of, bucket), count in counts.items():
        if of is role and shape in shapes:
            found[bucket] += count
    return found


def _texts(counts: Counter[_Place], shapes: list[str]) -> tuple[str, ...]:
    return tuple(text_of(_times(counts, shapes, role)) for role in Role)


def _told(shape: str, primary: Times, secondary: Times) -> dict[str, Any]:
    told: dict[str, Any] = {"shape": shape, "primary": _quantiles(primary), "secondary": _quantiles(secondary)}
    if told["primary"] and told["secondary"]:
        names = told["primary"].keys() - {"count"}
        told["ratio"] = {name: round(told["secondary"][name] / told["primary"][name], 2) for name in sorted(names)}
    return told


def _quantiles(times: Times) -> dict[str, Any]:
    if not total(times):
        return {}
    found = {f"p{share * 100:.0f}": round(percentile(times, share), 6) for share in QUANTILES}
    return {"count": total(times), **found}
