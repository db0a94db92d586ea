"""Limits how many lines one kind of event may write, so that data or traffic cannot fill a disk.

Each kind may write a fixed number of lines per minute, and one line per named thing; further ones are counted, and one
line per minute reports how many there were. Findings and metrics are not limited.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["AGAIN", "LINES", "MINUTE", "Bounds", "Held"]

LINES: Final = 30
"""Lines of one kind of event per minute."""
MINUTE: Final = 60.0
AGAIN: Final = 3600.0
"""Seconds after which a thing that persists is named again."""
_REMEMBERED: Final = 10_000
"""Things that have had their line; beyond that many, the oldest may be named again."""


@dataclass(frozen=True, slots=True)
class Held:
    """Lines that were not written within `seconds`, by kind of event; `repeated` of them named a thing again."""

    by_kind: Mapping[str, int]
    repeated: int
    seconds: float

    @property
    def not_written(self) -> int:
        return sum(self.by_kind.values())


class Bounds:
    """Thread-safe; `clock` returns seconds of a monotonic clock."""

    def __init__(
        self,
        *,
        lines: int = LINES,
        minute: float = MINUTE,
        again: float = AGAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = lines
        self._minute = minute
        self._again = again
        self._clock = clock
        self._lock = threading.Lock()
        self._since = self._told = clock()
        self._written: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._repeated = 0
        self._named: OrderedDict[tuple[str, str], float] = OrderedDict()

    def admit(self, kind: str, thing: str = "") -> bool:
        """Whether a line may be written; `thing`: what it names, where each is to be named once."""
        now = self._clock()
        with self._lock:
            if now - self._since >= self._minute:
                self._since = now
                self._written.clear()
            if thing and self._was_named(kind, thing, now):
                self._repeated += 1
            elif self._written[kind] < self._lines:
                self._written[kind] += 1
                self._name(kind, thing, now)
                return True
            self._held[kind] += 1
        return False

    def _was_named(self, kind: str, thing: str, now: float) -> bool:
        named = self._named.get((kind, thing))
        return named is not None and now - named < self._again

    def _name(self, kind: str, thing: str, now: float) -> None:
        if thing:
            self._named[kind, thing] = now
            self._named.move_to_end((kind, thing))
            if len(self._named) > _REMEMBERED:
                self._named.popitem(last=False)

    def due(self, *, ending: bool = False) -> Held | None:
        """What was suppressed since the last call; None within the same minute, unless it is `ending`, and if there is
        nothing."""
        now = self._clock()
        with self._lock:
            if not ending and now - self._told < self._minute:
                return None
            found = Held(dict(self._held), self._repeated, round(now - self._told, 1)) if self._held else None
            self._told = now
            self._held.clear()
            self._repeated = 0
        return found
