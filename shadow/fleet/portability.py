"""Shares what the processes have left to MongoDB alone: each adds its own to the fleet's record, and reads it.

It is read each time the figures of the gates are. It is written at once for an operator that it does not name yet,
otherwise once a minute at most: a process that is killed loses the counts of that minute, and no name.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

from shadow.control.portability import listed, note
from shadow.control.records import Records
from shadow.host.steady import steady
from shadow.model.uses import UsesOf
from shadow.observe.portability import Portability

__all__ = ["SharedPortability"]

_EVERY: Final = 60.0
"""Seconds between two writes of counts."""


class SharedPortability:
    """One for each Shadow. `keep`: seconds after which an operator that was not used is forgotten; `clock`: seconds
    that never go back."""

    def __init__(
        self,
        own: Portability,
        records: Records,
        keep: Callable[[], float],
        *,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._own = own
        self._records = records
        self._keep = keep
        self._clock = clock
        self._written = clock()
        self._lock = threading.Lock()

    async def exchange(self, *, ending: bool = False) -> None:
        """Adds what is due, and reads the record; nothing while another call of this process does. `ending`: adds
        everything. Raises `ControlError`."""
        await asyncio.to_thread(self._exchange, ending=ending)

    def _exchange(self, *, ending: bool) -> None:
        # A call that gave up waiting leaves its thread with the control store.
        if not self._lock.acquire(blocking=False):
            return
        try:
            own, now, keep = self._own, time.time(), self._keep()
            if own.waiting and (ending or own.new or self._clock() - self._written >= _EVERY):
                self._written = self._clock()
                self._write(own.take(), now, keep)
            own.noted(listed(self._records, now=now, keep=keep))
        finally:
            self._lock.release()

    def _write(self, found: UsesOf, now: float, keep: float) -> None:
        left = dict(found)
        try:
            for collection, operators in found.items():
                note(self._records, collection, operators, now=now, keep=keep)
                del left[collection]
        except BaseException:
            self._own.put_back(left)
            raise
