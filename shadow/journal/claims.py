"""The claims of this process in its journal, by the event loop that heals them: a claim ends with its loop.

A loop that is cancelled, closed, or stopped heals nothing any more. Its claims go back to the journal, so that the next
process or the next loop can take them at once, and not only when the lease expires. To give back too many does no harm:
a settlement is then late, and a heal may always be done twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Final

from shadow.host.steady import steady
from shadow.journal.base import Due
from shadow.model.order import key_digest

__all__ = ["CHECK_EVERY", "Claims", "Ticket"]

CHECK_EVERY: Final = 0.1
"""Seconds between two checks of the loops while something is claimed."""


class Ticket:
    """One request of the running loop for what is due, for `lease` seconds."""

    __slots__ = ("_loop", "_until", "over")

    def __init__(self, lease: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = steady() + lease
        self.over = False

    @property
    def ended(self) -> bool:
        """Whether nothing works on its answer: it was abandoned, its loop does not run, or its lease has expired."""
        return self.over or self._loop.is_closed() or not self._loop.is_running() or steady() > self._until


class Claims:
    """Used by the event loops and by the journal's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[object, ...], tuple[Due, Ticket]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, ticket: Ticket, found: Sequence[Due]) -> None:
        with self._lock:
            self._held.update((_name(due), (due, ticket)) for due in found)

    def drop(self, due: Due) -> None:
        """It is settled, postponed or given back."""
        with self._lock:
            self._held.pop(_name(due), None)

    def ended(self) -> list[Due]:
        """Those that nothing works on any more; each is returned once."""
        return self._take(lambda ticket: ticket.ended)

    def all(self) -> list[Due]:
        """Likewise, every one: the process leaves its journal."""
        return self._take(lambda ticket: True)

    def _take(self, wanted: Callable[[Ticket], bool]) -> list[Due]:
        if not self._held:
            return []
        with self._lock:
            found = [due for due, ticket in self._held.values() if wanted(ticket)]
            for due in found:
                del self._held[_name(due)]
        return found


def _name(due: Due) -> tuple[object, ...]:
    return due.collection, key_digest(due.key), due.generation, due.claimed, due.until
