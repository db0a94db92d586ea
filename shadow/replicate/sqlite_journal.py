"""The journal in an SQLite file, shared by the processes of one host.

One thread writes: it takes whatever is queued, does it in one transaction, and wakes all who wait (group commit). In
WAL mode with `synchronous=NORMAL` a commit survives the death of the process; `FULL` also survives the death of the
operating system. Source for both: the SQLite documentation, "PRAGMA synchronous". What is written is `ledger`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from shadow.errors import JournalError
from shadow.model.version import Key
from shadow.replicate.journal import Due, Entry, JournalStats
from shadow.replicate.ledger import Job, Ledger, Work
from shadow.replicate.process import Owner, this_process

__all__ = ["SqliteJournal"]

_BATCH: Final = 512


@dataclass(slots=True)
class _Job(Job):
    """A job of the writer thread, and who waits for it (nobody, for closes)."""

    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None


@dataclass(slots=True)
class _Writer:
    """The thread's side: its queue, and the pid that it belongs to (a fork leaves the thread behind)."""

    pid: int
    owner: Owner
    queue: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None


class SqliteJournal:
    """See `journal.Journal`. Bound to no event loop; its thread starts with the first use, and again after a fork.

    `path`: the file, made with its folder if missing. `limit`: seconds after which an intent may be adopted.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        limit: float = 30.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.limit = limit
        self._synchronous = synchronous
        self._now = now
        self._lock = threading.Lock()
        self._writer: _Writer | None = None

    # --- the contract -------------------------------------------------------------------------------------------

    async def open(self, entries: Sequence[Entry]) -> None:
        opened = self._now()
        await self._run(lambda ledger: ledger.open(entries, opened))

    def close(self, op_id: str) -> None:
        self._submit(_Job(lambda ledger: ledger.close(op_id)))

    def defer(self, op_id: str, *, unknown: bool = False) -> None:
        self._submit(_Job(lambda ledger: ledger.defer(op_id, unknown=unknown)))

    async def has_open(self, collection: str, key: Key) -> bool:
        return bool(await self._run(lambda ledger: ledger.has_open(collection, key)))

    async def due(self, limit: int, lease: float) -> list[Due]:
        found: list[Due] = await self._run(lambda ledger: ledger.due(limit, lease))
        return found

    async def settle(self, due: Due) -> bool:
        return bool(await self._run(lambda ledger: ledger.settle(due)))

    async def postpone(self, due: Due, delay: float) -> None:
        await self._run(lambda ledger: ledger.postpone(due, delay))

    async def stats(self) -> JournalStats:
        found: JournalStats = await self._run(Ledger.stats)
        return found

    async def trust(self, collection: str) -> None:
        await self._run(lambda ledger: ledger.trust(collection))

    async def flush(self) -> None:
        await self._run(lambda ledger: None)

    def shut(self) -> None:
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None or writer.pid != os.getpid():
            return
        writer.queue.put(None)
        if writer.thread is not None:
            writer.thread.join(timeout=10)

    # --- the writer thread --------------------------------------------------------------------------------------

    async def _run(self, work: Work) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._submit(_Job(work, loop=loop, future=future))
        return await future

    def _submit(self, job: _Job) -> None:
        self._alive().queue.put(job)

    def _alive(self) -> _Writer:
        writer = self._writer
        if writer is None or writer.pid != os.getpid():
            writer = self._start()
        return writer

    def _start(self) -> _Writer:
        with self._lock:
            if self._writer is None or self._writer.pid != os.getpid():
                writer = _Writer(os.getpid(), this_process())
                writer.thread = threading.Thread(target=self._serve, args=(writer,), name="shadow-journal", daemon=True)
                self._writer = writer
                writer.thread.start()
            return self._writer

    def _connect(self, owner: Owner) -> tuple[sqlite3.Connection, Ledger]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={self._synchronous}")
        ledger = Ledger(db, owner, limit=self.limit, now=self._now)
        ledger.enter()
        return db, ledger

    def _serve(self, writer: _Writer) -> None:
        connected: tuple[sqlite3.Connection, Ledger] | None = None
        while True:
            jobs, ending = _take(writer.queue)
            try:
                if connected is None:
                    connected = self._connect(writer.owner)
                connected[1].commit(jobs)
            except Exception as error:
                _fail(jobs, self._explain(error))
                if connected is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connected[0].close()
                    connected = None
            _wake(jobs)
            if ending:
                break
        if connected is not None:
            with contextlib.suppress(sqlite3.Error):
                connected[1].leave()
                connected[0].close()

    def _explain(self, error: Exception) -> JournalError:
        wrapped = JournalError(
            f"the journal {self.path} could not be written: {error}",
            hint="check the free space and the rights of its folder; writes are refused until it can be written",
        )
        wrapped.__cause__ = error
        return wrapped


def _take(jobs: queue.SimpleQueue[_Job | None]) -> tuple[list[_Job], bool]:
    """Waits for one job, then takes what else is queued; the flag says that the end was asked for."""
    batch: list[_Job] = []
    block = True
    while len(batch) < _BATCH:
        try:
            job = jobs.get(block=block)
        except queue.Empty:
            break
        if job is None:
            return batch, True
        batch.append(job)
        block = False
    return batch, False


def _fail(jobs: list[_Job], error: BaseException) -> None:
    for job in jobs:
        job.error = error


def _wake(jobs: list[_Job]) -> None:
    """Resolves the waiting futures, one call into each event loop a batch."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        if job.loop is not None:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, waiting in by_loop.items():
        # The loop may have been closed meanwhile; nobody waits then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
