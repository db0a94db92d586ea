"""What MongoDB alone has done, by collection and operator, for `/status` and the gate: a flip would end it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.operation import Verb

__all__ = ["ADVICE", "Portability"]

ADVICE: Final = (
    "DynamoDB as primary refuses it: change the application, or name it in `accept_not_portable` of the collection"
)


@dataclass(slots=True)
class _Seen:
    first: float
    last: float
    verbs: Counter[Verb] = field(default_factory=Counter)


class Portability:
    """Counts operations that are not portable. Thread-safe; `clock` returns seconds since the epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, dict[str, _Seen]] = {}

    def add(self, collection: str, verb: Verb, operator: str) -> bool:
        """Counts one; whether it is the first of its operator."""
        now = self._clock()
        with self._lock:
            of_collection = self._seen.setdefault(collection, {})
            new = operator not in of_collection
            seen = of_collection.setdefault(operator, _Seen(now, now))
            seen.last = now
            seen.verbs[verb] += 1
        return new

    def status(self, accepted: Mapping[str, Collection[str]]) -> dict[str, Any]:
        """By collection, JSON-able; empty if there was none. `accepted`: the operators that it may lose, by collection.

        Shape: {collection: {"operators": {name: {"count": n, "verbs": {verb: n}, "first_seen": ISO time, "last_seen":
        ISO time}}, "not_accepted": [name], "advice": text}}.
        """
        with self._lock:
            return {
                name: {
                    "operators": {operator: _shown(each) for operator, each in sorted(seen.items())},
                    "not_accepted": sorted(set(seen) - set(accepted.get(name, ()))),
                    "advice": ADVICE,
                }
                for name, seen in self._seen.items()
            }


def _shown(seen: _Seen) -> dict[str, Any]:
    return {
        "count": seen.verbs.total(),
        "verbs": {verb.value: count for verb, count in seen.verbs.items()},
        "first_seen": _moment(seen.first),
        "last_seen": _moment(seen.last),
    }


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
