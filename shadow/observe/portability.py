"""What MongoDB alone has done, by collection and operator, for `/status` and the gate: a flip would end it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from shadow.model.operation import Verb
from shadow.model.uses import Uses, UsesOf, merged

__all__ = ["ADVICE", "LOST", "Portability", "shown_uses"]

ADVICE: Final = (
    "DynamoDB as primary refuses it: change the application, or name it in `accept_not_portable` of the collection"
)

LOST: Final = (
    "DynamoDB is the primary and does not support it: change the application, or flip back; if it may fail, name it in "
    "`accept_not_portable` of the collection"
)


class Portability:
    """Counts operations that are not portable: those of the fleet as its record says, and what this process has still
    to add to it. Thread-safe; `clock` returns seconds since the epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._own: dict[str, dict[str, Uses]] = {}
        self._taken: UsesOf = {}
        self._fleet: UsesOf | None = None

    def add(self, collection: str, verb: Verb, operator: str) -> None:
        """Counts one."""
        now = self._clock()
        one = Uses(now, now, {verb.value: 1})
        with self._lock:
            own = self._own.setdefault(collection, {})
            before = own.get(operator)
            own[operator] = one if before is None else before.plus(one)

    @property
    def known(self) -> bool:
        """Whether the fleet's record was ever read."""
        return self._fleet is not None

    @property
    def waiting(self) -> bool:
        """Whether this process has something to add to the record."""
        return bool(self._own)

    @property
    def new(self) -> bool:
        """Whether that has an operator which is not in the record, as last read."""
        with self._lock:
            fleet = self._fleet or {}
            return any(set(each) - set(fleet.get(name, ())) for name, each in self._own.items())

    def take(self) -> UsesOf:
        """What is to be added to the record; `noted` or `put_back` follows."""
        with self._lock:
            self._taken, self._own = merged(self._taken, self._own), {}
            return self._taken

    def put_back(self, left: UsesOf) -> None:
        """What was taken and could not be added."""
        with self._lock:
            self._own, self._taken = merged(left, self._own), {}

    def noted(self, fleet: UsesOf) -> None:
        """The record, with what was taken."""
        with self._lock:
            self._fleet, self._taken = fleet, {}

    def status(self, accepted: Mapping[str, Collection[str]]) -> dict[str, Any]:
        """JSON-able: see `shown_uses`. `accepted`: the configured collections, with the operators that each may lose;
        no others are shown."""
        with self._lock:
            total = merged(self._fleet or {}, self._taken, self._own)
        return shown_uses({name: seen for name, seen in total.items() if name in accepted}, accepted)


def shown_uses(found: UsesOf, accepted: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """By collection, JSON-able; empty if there was none. `accepted`: the operators that each may lose.

    Shape: {collection: {"operators": {name: {"count": n, "verbs": {verb: n}, "first_seen": ISO time, "last_seen":
    ISO time}}, "not_accepted": [name], "advice": text}}.
    """
    return {
        name: {
            "operators": {operator: _shown(each) for operator, each in sorted(seen.items())},
            "not_accepted": sorted(set(seen) - set(accepted.get(name, ()))),
            "advice": ADVICE,
        }
        for name, seen in found.items()
    }


def _shown(uses: Uses) -> dict[str, Any]:
    return {
        "count": uses.count,
        "verbs": dict(uses.verbs),
        "first_seen": _moment(uses.first),
        "last_seen": _moment(uses.last),
    }


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
