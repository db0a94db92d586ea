"""The journal in an SQLite file, shared by the processes of one host.

One thread writes: it takes whatever is queued, does it in one transaction, and wakes all who wait (group commit). In
WAL mode with `synchronous=NORMAL` a commit survives the death of the process; `FULL` also survives the death of the
operating system. Source for both: the SQLite documentation, "PRAGMA synchronous". What is written is `tables`'s.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from shadow.errors import JournalError
from shadow.host.process import Owner, this_process
from shadow.host.steady import steady
from shadow.host.supervisor import Supervisor
from shadow.journal.base import Due, Entry
from shadow.journal.claims import CHECK_EVERY
from shadow.journal.sqlite.file import FileSettings, JournalFile, RecoveryFailed, is_damage, is_full
from shadow.journal.sqlite.tables import JournalTask, Ledger, Work
from shadow.journal.threaded import Driven, ThreadedJournal, wake
from shadow.model.background import Background
from shadow.model.version import Key

__all__ = ["SqliteJournal"]

_BATCH: Final = 512
_MOST_WAITING: Final = 50_000
"""Jobs that may wait for the disk before new intents are refused."""
_MAX_WAIT: Final = 0.02
"""Seconds for which closes and deferrals are batched with later jobs into one transaction. Each transaction costs the
disk, the file system's own journal and two turns of this thread the same, whatever is in it."""
_RETRY: Final = 0.5
"""Seconds between two attempts to write closes and deferrals that could not be written."""
_OPENINGS: Final = 3
"""How often the file is reopened for one batch, when it was replaced or found damaged."""


@dataclass(slots=True)
class _Job(JournalTask):
    """A job of the writer thread, and who waits for it (nobody, for closes)."""

    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None


@dataclass(kw_only=True)
class _Writer(Driven):
    """The writer thread of one process, with its queue."""

    queue: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    late: list[_Job] = field(default_factory=list)
    """Closes and deferrals that could not be written yet."""


class SqliteJournal(ThreadedJournal[Ledger, _Writer]):
    """See `journal.Journal`. Bound to no event loop; its thread starts with the first use, and again after a fork. A
    file that is missing is made with its folder, a damaged one is recovered."""

    def __init__(self, settings: FileSettings, supervisor: Supervisor | None = None) -> None:
        super().__init__(settings.limit, supervisor)
        self.path = settings.path
        self._mark = settings.now or steady
        self._wall = settings.now or time.time
        self._settings = settings
        self._unwritten: set[str] = set()
        """The collections that are on their way to the file, to be marked as unverified there."""

    # --- the contract -------------------------------------------------------------------------------------------

    async def open(self, entries: Sequence[Entry]) -> None:
        asked = self._mark()
        if self._alive().queue.qsize() > _MOST_WAITING:
            raise JournalError(
                "the journal does not keep up", hint="check the disk that it is on: it is too slow, or too busy"
            )
        await self._ask(lambda ledger: ledger.open(entries, ledger.at(asked)))

    def decide(self, op_id: str, key: Key) -> None:
        self._submit(_Job(lambda ledger: ledger.decide(op_id, key)))

    def close(self, op_id: str) -> None:
        self._submit(_Job(partial(Ledger.close, op_id=op_id), closes=op_id))

    def defer(self, op_id: str, *, unknown: bool = False) -> None:
        self._submit(_Job(lambda ledger: ledger.defer(op_id, unknown=unknown)))

    def give_back(self, due: Due) -> None:
        self._submit(_Job(partial(Ledger.give_back, due=due)))
        self._claims.drop(due)

    def doubt(self, collection: str) -> None:
        since = self._doubted[collection] = self._wall()
        if collection not in self._unwritten:
            self._unwritten.add(collection)
            self._submit(_Job(lambda ledger: self._write_doubt(ledger, collection, since)))

    def _write_doubt(self, ledger: Ledger, collection: str, since: float) -> None:
        # Before it is written: a verification that begins now does not see a mark that comes now.
        self._unwritten.discard(collection)
        ledger.doubt(collection, since)

    async def flush(self) -> None:
        await self._ask(lambda ledger: None, reads=True)

    async def probe(self) -> None:
        await self._ask(Ledger.probe)

    def shut(self) -> None:
        writer = self._stop()
        if writer is None:
            return
        for due in self._claims.all():
            writer.queue.put(_Job(partial(Ledger.give_back, due=due)))
        writer.queue.put(None)
        for thread in writer.threads:
            thread.join(timeout=10)

    # --- the writer thread --------------------------------------------------------------------------------------

    async def _ask(self, work: Work, *, reads: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._submit(_Job(work, reads, loop=loop, future=future))
        return await future

    def _submit(self, job: _Job) -> None:
        self._alive().queue.put(job)

    def _prepared(self) -> _Writer:
        writer = _Writer(pid=os.getpid(), owner=this_process())
        writer.threads.append(threading.Thread(target=self._serve, args=(writer,), name="shadow-journal", daemon=True))
        return writer

    def _serve(self, writer: _Writer) -> None:
        file = _FileWriter(self._settings, writer.owner)
        turn = self._supervisor.turn(Background.JOURNAL)
        ending = False
        while not ending:
            jobs: list[_Job] = []
            try:
                turn()
                wait = _RETRY if writer.late else CHECK_EVERY if self._claims else None
                jobs, ending = _take(writer.queue, wait)
                jobs = [*jobs, *(_Job(partial(Ledger.give_back, due=due)) for due in self._claims.ended())]
                if writer.late or jobs:
                    writer.late = file.do([*writer.late, *jobs])
            except Exception as error:
                # The thread must go on: the callers would wait for ever.
                writer.late += [job for job in jobs if job.loop is None]
                _fail([job for job in jobs if job.loop is not None], file.explain(error))
                time.sleep(turn.failed(error))
            wake(jobs)
        file.close()
        turn.ended()


class _FileWriter:
    """The file as the thread uses it: opened when it is first needed, and again when it was lost."""

    def __init__(self, settings: FileSettings, owner: Owner) -> None:
        self._settings = settings
        self._owner = owner
        self._file: JournalFile | None = None
        self._damaged: int | None = None
        self._hopeless: RecoveryFailed | None = None
        self._not_before = 0.0

    def do(self, jobs: list[_Job]) -> list[_Job]:
        """Does the jobs, or gives those that are waited for an error. Returns those that nobody waits for and that
        are still to be done: closes and deferrals, which must not be lost while the process lives."""
        try:
            self._commit(jobs)
        except Exception as error:
            return self._do_apart(jobs, self.explain(error))
        return []

    def _do_apart(self, jobs: list[_Job], error: JournalError) -> list[_Job]:
        """Closes and deferrals first: in a file that is full they make room, and they must not fail with what takes
        room."""
        asked = [job for job in jobs if job.loop is not None]
        quiet = [job for job in jobs if job.loop is None]
        if self._file is None or not quiet:
            _fail(asked, error)
            return quiet
        try:
            self._commit(quiet)
            quiet = []
            self._commit(asked)
        except Exception as again:
            _fail(asked, self.explain(again))
        return quiet

    def _commit(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        for _ in range(_OPENINGS):
            if self._file is None:
                self._open()
            assert self._file is not None
            if self._try(self._file, jobs):
                return
        raise OSError("the journal was replaced again and again")

    def _open(self) -> None:
        if self._hopeless is not None and time.monotonic() < self._not_before:
            raise self._hopeless
        try:
            self._file = JournalFile(self._settings, self._owner, damaged=self._damaged)
        except RecoveryFailed as error:
            # To read a large file in vain for every write would keep the disk busy.
            self._hopeless, self._not_before = error, time.monotonic() + _RETRY
            raise
        self._damaged = self._hopeless = None

    def _try(self, file: JournalFile, jobs: list[_Job]) -> bool:
        """False: the file is another one by now, or damaged; it must be opened again."""
        try:
            if file.commit(jobs):
                return True
        except sqlite3.Error as error:
            # Any other error leaves the connection as it was, and the file as it is; to open it again on a full disk
            # would be one thing more that can fail.
            if not is_damage(error):
                raise
            self._damaged = file.number
        self._file = None
        file.abandon()
        return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def explain(self, error: Exception) -> JournalError:
        if isinstance(error, JournalError):
            return error
        full = is_full(error) or getattr(error, "errno", None) == errno.ENOSPC
        wrapped = JournalError(
            f"the journal {self._settings.path} could not be written: {error}",
            hint="free some space on its disk, or raise journal.max_bytes"
            if full
            else "check the rights of the file and of its folder, and the disk that they are on",
        )
        wrapped.__cause__ = error
        return wrapped


def _take(jobs: queue.SimpleQueue[_Job | None], wait: float | None) -> tuple[list[_Job], bool]:
    """Waits for one job (for `wait` seconds at most, if given), then takes what else is queued; the flag says that
    the end was asked for. Jobs that nobody waits for are batched with later ones first."""
    batch: list[_Job] = []
    until = None if wait is None else time.monotonic() + wait
    while len(batch) < _BATCH:
        try:
            if until is None:
                job = jobs.get()
            else:
                left = until - time.monotonic()
                job = jobs.get(left > 0, max(0.0, left))
        except queue.Empty:
            break
        if job is None:
            return batch, True
        batch.append(job)
        if job.loop is not None:
            until = 0.0
        elif len(batch) == 1:
            until = time.monotonic() + _MAX_WAIT
    return batch, False


def _fail(jobs: list[_Job], error: BaseException) -> None:
    for job in jobs:
        job.error = error
