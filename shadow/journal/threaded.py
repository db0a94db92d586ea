"""What the journals have in common: a contract of coroutines over a ledger that blocks, which threads of the process
drive. How the threads batch and retry is each journal's own.

Threads start with the first use, and again after a fork, which leaves them behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from shadow.host.process import Owner
from shadow.host.supervisor import Supervisor
from shadow.journal.base import Due, JournalStats, Pending
from shadow.journal.claims import Claims, Ticket
from shadow.model.version import Key

__all__ = ["Driven", "JournalLedger", "ThreadedJournal", "Waiting", "wake"]


class JournalLedger(Protocol):
    """The blocking counterparts of the contract's methods; see `journal.base.Journal`."""

    def has_open(self, collection: str, key: Key) -> bool: ...

    def due(self, limit: int, lease: float) -> list[Due]: ...

    def claim(self, collection: str, key: Key, lease: float) -> Due | None: ...

    def settle(self, due: Due) -> bool: ...

    def postpone(self, due: Due, delay: float, refused: str = "") -> None: ...

    def entries(self, limit: int, collection: str | None, after: Pending | None) -> list[Pending]: ...

    def explain(self, collection: str, key: Key) -> list[Pending]: ...

    def stats(self) -> JournalStats: ...

    def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]: ...

    def set_primary(self, collection: str, primary: str) -> None: ...

    def doubts(self, collection: str) -> str: ...

    def trust(self, collection: str, doubts: str) -> None: ...


@dataclass(kw_only=True)
class Driven:
    """What one process has of a journal, by its pid: a fork's child begins with its own."""

    pid: int
    owner: Owner
    threads: list[threading.Thread] = field(default_factory=list)


class Waiting(Protocol):
    """A job, and the future in an event loop that waits for it, if any."""

    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[Any] | None
    result: Any
    error: BaseException | None


L = TypeVar("L", bound=JournalLedger)
D = TypeVar("D", bound=Driven)


class ThreadedJournal(ABC, Generic[L, D]):
    """The part of `journal.base.Journal` that is the same for every ledger. Bound to no event loop."""

    def __init__(self, limit: float, supervisor: Supervisor | None) -> None:
        self.limit = limit
        self._supervisor = supervisor or Supervisor()
        self._claims = Claims()
        self._doubted: dict[str, float] = {}
        self._lock = threading.Lock()
        self._driven: D | None = None

    @abstractmethod
    async def _ask(self, work: Callable[[L], Any], *, reads: bool = False) -> Any:
        """Has a thread do it, after whatever this process has closed and deferred before. `reads`: it changes
        nothing."""

    @abstractmethod
    def _prepared(self) -> D:
        """What this process drives, with threads that are not started yet."""

    @abstractmethod
    def give_back(self, due: Due) -> None: ...

    # --- the contract -------------------------------------------------------------------------------------------

    async def has_open(self, collection: str, key: Key) -> bool:
        return bool(await self._ask(lambda ledger: ledger.has_open(collection, key), reads=True))

    async def due(self, limit: int, lease: float) -> list[Due]:
        return await self._claim(lambda ledger: ledger.due(limit, lease), lease)

    async def claim(self, collection: str, key: Key, lease: float) -> Due | None:
        def work(ledger: L) -> list[Due]:
            found = ledger.claim(collection, key, lease)
            return [] if found is None else [found]

        claimed = await self._claim(work, lease)
        return claimed[0] if claimed else None

    async def _claim(self, work: Callable[[L], list[Due]], lease: float) -> list[Due]:
        """What is claimed for somebody who has gone meanwhile is given back."""
        ticket = Ticket(lease)

        def claim(ledger: L) -> list[Due]:
            if ticket.over:
                return []
            found = work(ledger)
            self._claims.add(ticket, found)
            return found

        try:
            claimed: list[Due] = await self._ask(claim)
        except BaseException:
            ticket.over = True
            for due in self._claims.ended():
                self.give_back(due)
            raise
        return claimed

    async def settle(self, due: Due) -> bool:
        try:
            return bool(await self._ask(lambda ledger: ledger.settle(due)))
        finally:
            self._claims.drop(due)

    async def postpone(self, due: Due, delay: float, refused: str = "") -> None:
        try:
            await self._ask(lambda ledger: ledger.postpone(due, delay, refused))
        finally:
            self._claims.drop(due)

    async def entries(
        self, limit: int, *, collection: str | None = None, after: Pending | None = None
    ) -> list[Pending]:
        found: list[Pending] = await self._ask(lambda ledger: ledger.entries(limit, collection, after), reads=True)
        return found

    async def explain(self, collection: str, key: Key) -> list[Pending]:
        found: list[Pending] = await self._ask(lambda ledger: ledger.explain(collection, key), reads=True)
        return found

    async def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        found: Mapping[str, str] = await self._ask(lambda ledger: ledger.primaries(configured))
        return found

    async def set_primary(self, collection: str, primary: str) -> None:
        await self._ask(lambda ledger: ledger.set_primary(collection, primary))

    async def stats(self) -> JournalStats:
        doubted = self.doubted
        found: JournalStats = await self._ask(lambda ledger: ledger.stats(), reads=True)
        self._note_written(doubted)
        return found

    async def doubts(self, collection: str) -> str:
        doubted = self.doubted
        found = str(await self._ask(lambda ledger: ledger.doubts(collection), reads=True))
        self._note_written(doubted)
        return found

    async def trust(self, collection: str, doubts: str) -> None:
        doubted = self.doubted
        await self._ask(lambda ledger: ledger.trust(collection, doubts))
        self._note_written(doubted)

    @property
    def doubted(self) -> Mapping[str, float]:
        return dict(self._doubted)

    def _note_written(self, doubted: Mapping[str, float]) -> None:
        """In order: a collection that was marked before the question has been written as unverified before the
        answer."""
        for name, since in doubted.items():
            if self._doubted.get(name) == since:
                del self._doubted[name]

    # --- the threads --------------------------------------------------------------------------------------------

    def _alive(self) -> D:
        driven = self._driven
        return driven if driven is not None and driven.pid == os.getpid() else self._start()

    def _start(self) -> D:
        with self._lock:
            if self._driven is None or self._driven.pid != os.getpid():
                if self._driven is not None:
                    # What is claimed is the parent's.
                    self._claims = Claims()
                driven = self._driven = self._prepared()
                for thread in driven.threads:
                    thread.start()
            return self._driven

    def _stop(self) -> D | None:
        """What this process drove until now; None if it drove nothing."""
        with self._lock:
            driven, self._driven = self._driven, None
        return driven if driven is not None and driven.pid == os.getpid() else None


def wake(jobs: Iterable[Waiting]) -> None:
    """Resolves the waiting futures, one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
    for job in jobs:
        if job.loop is not None:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, waiting in by_loop.items():
        # The loop may have been closed meanwhile; nobody waits then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(jobs: Sequence[Waiting]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
