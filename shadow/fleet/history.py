"""Shares what the processes have compared: each keeps its own counts in the control store, by hour.

They are written every few minutes and at the end: a process that is killed loses the comparisons of these minutes from
the evidence, and from nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from shadow.control.history import DAYS, forget_before, note
from shadow.control.records import Records
from shadow.host.steady import steady
from shadow.observe.history import History

__all__ = ["SharedHistory"]

_EVERY: Final = 300.0
"""Seconds between two writes."""


class SharedHistory:
    """One for each Shadow. `clock`: seconds that never go back."""

    def __init__(self, own: History, records: Records, *, clock: Callable[[], float] = steady) -> None:
        self._own = own
        self._records = records
        self._clock = clock
        self._written = clock()
        self._tidied = 0
        self._lock = threading.Lock()

    async def exchange(self, *, ending: bool = False) -> None:
        """Writes what is due; nothing while another call of this process does. `ending`: writes everything. Raises
        `ControlError`."""
        if ending or self._clock() - self._written >= _EVERY:
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        # A call that gave up waiting leaves its thread with the control store.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._written = self._clock()
            writer, taken = self._own.take()
            left = dict(taken)
            try:
                for hour, collections in taken.items():
                    note(self._records, writer, hour, collections)
                    del left[hour]
            except BaseException:
                self._own.put_back(writer, left)
                raise
            now = self._own.hour
            if taken and now != self._tidied:
                self._tidied = now
                forget_before(self._records, now - DAYS * 24)
        finally:
            self._lock.release()
