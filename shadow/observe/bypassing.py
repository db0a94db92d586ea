"""Out-of-band writes: what was seen of them, by collection, for `/status`."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.verdict import Bypass

__all__ = ["HINTS", "Bypassing"]

HINTS: Final[dict[Bypass, str]] = {
    Bypass.CHANGED: "its content changed and its version did not: a direct write by the driver, to either store",
    Bypass.REPLACED: "the primary's document lost its version: a direct replace, or a restore of an old copy",
    Bypass.INSERTED: "the primary has it, without a version: a direct insert, or an import",
    Bypass.DELETED: "gone from the primary without a tombstone: a direct delete, a TTL index, a delete in phase off; "
    "or inserted into the secondary by hand",
}
"""The meaning of each kind, and its likely cause."""

ADVICE: Final = (
    "move these writers to a collection of shadow; then repair the findings, or verify the collection: "
    "what they wrote is not in the secondary"
)

_REMEMBERED: Final = 10_000
"""Documents that are recognised as seen before; beyond that many, one that occurs again counts again."""


@dataclass(slots=True)
class _Seen:
    first: float
    last: float
    count: int = 0
    kinds: Counter[Bypass] = field(default_factory=Counter)


class Bypassing:
    """Counts out-of-band writes, each once, even if many reads find it. Thread-safe; `clock` returns seconds since the
    epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self._watched: OrderedDict[Hashable, None] = OrderedDict()

    def add(self, collection: str, kind: Bypass, key: Hashable, mark: Hashable, *, watched: bool = False) -> bool:
        """Counts the write that `mark` names; False if it is known already. A write that a read finds of a key whose
        writes have been `watched` is known."""
        now = self._clock()
        with self._lock:
            new = self._remember(self._known, (collection, kind, key, mark))
            if watched:
                self._remember(self._watched, (collection, key))
            elif (collection, key) in self._watched:
                new = False
            seen = self._seen.setdefault(collection, _Seen(now, now))
            seen.last = now
            if new:
                seen.count += 1
                seen.kinds[kind] += 1
        return new

    @staticmethod
    def _remember(names: OrderedDict[Hashable, None], name: Hashable) -> bool:
        """Whether the name is new."""
        new = name not in names
        names[name] = None
        names.move_to_end(name)
        if len(names) > _REMEMBERED:
            names.popitem(last=False)
        return new

    def status(self) -> dict[str, Any]:
        """By collection, JSON-able; empty if nothing was seen.

        Shape: {collection: {"count": n, "kinds": {kind: n}, "first_seen": ISO time, "last_seen": ISO time,
        "means": {kind: text}, "advice": text}}.
        """
        with self._lock:
            return {
                name: {
                    "count": seen.count,
                    "kinds": {kind.value: count for kind, count in seen.kinds.items()},
                    "first_seen": _moment(seen.first),
                    "last_seen": _moment(seen.last),
                    "means": {kind.value: HINTS[kind] for kind in seen.kinds},
                    "advice": ADVICE,
                }
                for name, seen in self._seen.items()
            }


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
