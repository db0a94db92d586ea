"""Which of MongoDB's indexes have no counterpart on DynamoDB, as far as this process knows: for the log, the status
and the gate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from typing import Any, Final

from shadow.model.events import Reporter, noted
from shadow.model.health import IndexHealth
from shadow.model.index_gaps import IndexGap, Loss
from shadow.observe.log import Event

__all__ = ["IndexReport"]

_SOON: Final = 2.0
"""Seconds. A busy server that misses one look must not keep a gate closed until the next regular one."""


class IndexReport:
    """Thread-safe. `accepted`: the names that the configuration acknowledges for a collection; `clock`: seconds."""

    def __init__(
        self,
        reporter: Reporter,
        accepted: Callable[[str], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reporter = reporter
        self._accepted = accepted
        self._clock = clock
        self._lock = threading.Lock()
        self._gaps: dict[str, dict[str, IndexGap]] = {}
        self._looked: dict[str, float] = {}
        self._faults: dict[str, str] = {}
        self._missed: set[str] = set()
        self._logged: set[tuple[str, IndexGap]] = set()

    def is_due(self, collection: str, every: float) -> bool:
        """Whether nobody has looked for `every` seconds, or for two after a look without an answer; if so, only this
        caller looks now."""
        now = self._clock()
        with self._lock:
            pause = min(every, _SOON) if collection in self._missed else every
            due = now - self._looked.get(collection, -every) >= pause
            if due:
                self._looked[collection] = now
        return due

    def add(self, collection: str, gaps: Iterable[IndexGap]) -> None:
        """Of an index that was just requested."""
        gaps = list(gaps)
        with self._lock:
            self._gaps.setdefault(collection, {}).update({gap.index: gap for gap in gaps})
        self._log(collection, gaps)

    def forget(self, collection: str, index: str | None) -> None:
        """The index is gone; None: every one."""
        with self._lock:
            if index is None:
                self._gaps.pop(collection, None)
            else:
                self._gaps.get(collection, {}).pop(index, None)

    def looked(self, collection: str, gaps: Iterable[IndexGap]) -> None:
        """All that MongoDB has now."""
        found = {gap.index: gap for gap in gaps}
        with self._lock:
            self._gaps[collection] = found
            self._looked[collection] = self._clock()
            self._faults[collection] = ""
            self._missed.discard(collection)
        self._log(collection, found.values())

    def failed(self, collection: str, error: Exception) -> None:
        """MongoDB does not say which indexes it has; what was known before stays."""
        with self._lock:
            self._faults.setdefault(collection, type(error).__name__)
            self._missed.add(collection)

    def missed(self, collection: str) -> None:
        """A look was given up, because it took too long."""
        with self._lock:
            self._missed.add(collection)

    def _log(self, collection: str, gaps: Iterable[IndexGap]) -> None:
        """Each once."""
        for gap in gaps:
            with self._lock:
                new = (collection, gap) not in self._logged
                self._logged.add((collection, gap))
            if new:
                event = Event.INDEX_UNDECLARED if gap.loss is Loss.SPEED else Event.INDEX_LOST
                self._reporter.publish(
                    noted(
                        event,
                        collection=collection,
                        index=gap.index,
                        detail=f"{gap.kind}: {gap.why}",
                        advice=gap.advice,
                    )
                )

    def health(self, collection: str) -> IndexHealth:
        """For the gate."""
        accepted = self._accepted(collection)
        with self._lock:
            known = self._faults.get(collection) == "" or "*" in accepted
            gaps = list(self._gaps.get(collection, {}).values())
        lost = [gap.index for gap in gaps if gap.loss is Loss.ANSWERS and not gap.is_acknowledged(accepted)]
        return IndexHealth(known, tuple(lost))

    def status(self) -> dict[str, list[dict[str, Any]]]:
        """By collection, what will be different after the flip; JSON-able, empty if nothing is.

        Shape: {collection: [{"index": name, "kind": text, "loss": "answers" | "speed", "why": text, "advice": text,
        "acknowledged": bool}]}."""
        with self._lock:
            found = {name: list(gaps.values()) for name, gaps in self._gaps.items() if gaps}
        return {
            name: [
                {**asdict(gap), "loss": gap.loss.value, "acknowledged": gap.is_acknowledged(self._accepted(name))}
                for gap in gaps
            ]
            for name, gaps in found.items()
        }
