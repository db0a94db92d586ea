"""A seat: work that one process of all does at a time, with what it has come to, in one record.

The process that holds it changes the record while it lives. Others take it over when that process is known to be dead,
or when the record has not changed for a while by their own clock: no other host's clock counts. Two holders may overlap
for a moment, so the work has to be idempotent; what the one that lost it notes is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from shadow.control.records import MISSING, Record, Records
from shadow.host.process import Owner
from shadow.model.version import fresh_id

__all__ = ["Seat"]

_FREE: Final = ""


class Seat:
    """Synchronous, not thread-safe; raises `ControlError`. `silent`: seconds without any change after which the record
    counts as left; `clock`: seconds that never go back."""

    def __init__(
        self,
        records: Records,
        key: str,
        owner: Callable[[], Owner],
        silent: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._key = key
        self._owner = owner
        self._silent = silent
        self._clock = clock
        self._token = fresh_id()
        self._revision = MISSING
        self._since = clock()
        self._held_by = _FREE
        self.value: dict[str, Any] = {}
        """What was noted last, by whoever holds the seat; empty before anything was."""
        self.holder = ""
        """Who holds it, for people; "" if nobody does."""

    @property
    def unchanged(self) -> float:
        """Seconds for which this process has seen the record as it is."""
        return self._clock() - self._since

    def take(self) -> bool:
        """Reads the record, and takes the seat if it is free or left. Whether this process has it now."""
        found = self._records.get(self._key)
        self._see(found)
        if found is not None and self._is_held(found):
            return self._has_it
        return self._put({} if found is None else dict(found.value["value"]), self._token)

    def keep(self, value: Mapping[str, Any]) -> bool:
        """Notes what the work has come to. False: another process has the seat, and nothing was noted."""
        # A second time after a write whose answer was lost: the record has changed, and is still this process's own.
        return any(self._has_it and self._put(value, self._token) for _ in range(2))

    def leave(self) -> None:
        """Frees the seat at once, if this process has it."""
        if self._has_it:
            self._put(self.value, _FREE)

    @property
    def _has_it(self) -> bool:
        """As last seen."""
        return self._held_by == self._token

    def _is_held(self, found: Record) -> bool:
        value = found.value
        if value["token"] in (_FREE, self._token):
            return bool(value["token"])
        owner = Owner(value["host"], value["pid"], value["born"])
        return self.unchanged < self._silent and not owner.known_dead()

    def _put(self, value: Mapping[str, Any], token: str) -> bool:
        own = self._owner()
        content = {"token": token, "host": own.place, "pid": own.pid, "born": own.started, "value": dict(value)}
        revision = self._records.put(self._key, content, expected=self._revision)
        if revision is None:
            self._see(self._records.get(self._key))
            return False
        self._see(Record(self._key, content, revision))
        return True

    def _see(self, found: Record | None) -> None:
        revision = MISSING if found is None else found.revision
        if revision != self._revision:
            self._revision, self._since = revision, self._clock()
        if found is None:
            self.value, self.holder, self._held_by = {}, "", _FREE
            return
        held = found.value
        self._held_by = held["token"]
        self.value = dict(held["value"])
        host = str(held["host"]).partition("/")[0]
        self.holder = f"{host} pid {held['pid']}" if held["token"] else ""
