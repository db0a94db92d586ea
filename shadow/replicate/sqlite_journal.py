"""The journal in an SQLite file, shared by the processes of one host.

One thread writes: it takes whatever is queued, does it in one transaction, and wakes all who wait (group commit). In
WAL mode with `synchronous=NORMAL` a commit survives the death of the process; `FULL` also survives the death of the
operating system. Source for both: the SQLite documentation, "PRAGMA synchronous".
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

import bson

from shadow.errors import JournalError
from shadow.model.values import CANONICAL
from shadow.model.version import Key
from shadow.replicate.journal import Due, Entry, JournalStats
from shadow.replicate.process import Owner, this_process

__all__ = ["SqliteJournal"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS owners (
    id TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (
    op_id TEXT PRIMARY KEY, collection TEXT NOT NULL, key BLOB NOT NULL, opened REAL NOT NULL, owner TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS intents_by_key ON intents (collection, key);
CREATE TABLE IF NOT EXISTS deferred (
    collection TEXT NOT NULL, key BLOB NOT NULL, generation INTEGER NOT NULL, since REAL NOT NULL,
    attempts INTEGER NOT NULL, next_try REAL NOT NULL, settle_after REAL NOT NULL, PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deferred_by_turn ON deferred (next_try, since);
"""

_DEFER: Final = """
INSERT INTO deferred (collection, key, generation, since, attempts, next_try, settle_after)
SELECT collection, key, 1, opened, 0, 0, {settle} FROM intents WHERE {where}
ON CONFLICT (collection, key) DO UPDATE SET
    generation = generation + 1, since = min(since, excluded.since), next_try = 0,
    settle_after = max(settle_after, excluded.settle_after)
"""

_BATCH: Final = 512

Work = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True)
class _Job:
    """One piece of work for the writer thread, and who waits for it (nobody, for closes)."""

    work: Work
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Writer:
    """The thread's side: its queue, and the pid that it belongs to (a fork leaves the thread behind)."""

    pid: int
    owner: Owner
    queue: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None


def _pack(key: Key) -> bytes:
    return bson.encode({"": key})


def _unpack(blob: bytes) -> Key:
    return bson.decode(blob, codec_options=CANONICAL)[""]


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
        owner = self._alive().owner.id
        opened = self._now()
        rows = [(entry.op_id, entry.collection, _pack(entry.key), opened, owner) for entry in entries]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("INSERT INTO intents VALUES (?, ?, ?, ?, ?)", rows)

        await self._run(work)

    def close(self, op_id: str) -> None:
        self._submit(_Job(lambda db: db.execute("DELETE FROM intents WHERE op_id = ?", (op_id,))))

    def defer(self, op_id: str, *, unknown: bool = False) -> None:
        settle = "opened + ?" if unknown else "0 * ?"

        def work(db: sqlite3.Connection) -> None:
            db.execute(_DEFER.format(settle=settle, where="op_id = ?"), (self.limit, op_id))
            db.execute("DELETE FROM intents WHERE op_id = ?", (op_id,))

        self._submit(_Job(work))

    async def has_open(self, collection: str, key: Key) -> bool:
        arguments = (collection, _pack(key))

        def work(db: sqlite3.Connection) -> bool:
            for table in ("intents", "deferred"):
                query = f"SELECT 1 FROM {table} WHERE collection = ? AND key = ? LIMIT 1"  # noqa: S608 - two constants
                if db.execute(query, arguments).fetchone():
                    return True
            return False

        return bool(await self._run(work))

    async def due(self, limit: int, lease: float) -> list[Due]:
        def work(db: sqlite3.Connection) -> list[Due]:
            now = self._now()
            self._adopt(db, now)
            rows = db.execute(
                "SELECT collection, key, generation, attempts, since FROM deferred "
                "WHERE next_try <= ? ORDER BY since LIMIT ?",
                (now, limit),
            ).fetchall()
            db.executemany(
                "UPDATE deferred SET next_try = ? WHERE collection = ? AND key = ?",
                [(now + lease, row[0], row[1]) for row in rows],
            )
            return [Due(row[0], _unpack(row[1]), row[2], row[3], row[4], now) for row in rows]

        found: list[Due] = await self._run(work)
        return found

    async def settle(self, due: Due) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            entry = (due.collection, _pack(due.key), due.generation)
            where = "WHERE collection = ? AND key = ? AND generation = ?"
            done = db.execute(f"DELETE FROM deferred {where} AND settle_after <= ?", (*entry, due.claimed))  # noqa: S608
            if done.rowcount == 0:
                db.execute(f"UPDATE deferred SET next_try = settle_after {where}", entry)  # noqa: S608
            return done.rowcount == 1

        return bool(await self._run(work))

    async def postpone(self, due: Due, delay: float) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE deferred SET attempts = attempts + 1, next_try = ? "
                "WHERE collection = ? AND key = ? AND generation = ?",
                (self._now() + delay, due.collection, _pack(due.key), due.generation),
            )

        await self._run(work)

    async def stats(self) -> JournalStats:
        def work(db: sqlite3.Connection) -> JournalStats:
            intents = dict(db.execute("SELECT collection, count(*) FROM intents GROUP BY collection").fetchall())
            deferred = dict(db.execute("SELECT collection, count(*) FROM deferred GROUP BY collection").fetchall())
            oldest = db.execute(
                "SELECT min(at) FROM (SELECT min(opened) AS at FROM intents UNION ALL SELECT min(since) FROM deferred)"
            ).fetchone()[0]
            return JournalStats(intents, deferred, max(0.0, self._now() - oldest) if oldest is not None else 0.0)

        found: JournalStats = await self._run(work)
        return found

    async def flush(self) -> None:
        await self._run(lambda db: None)

    def shut(self) -> None:
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None or writer.pid != os.getpid():
            return
        writer.queue.put(None)
        if writer.thread is not None:
            writer.thread.join(timeout=10)

    # --- recovery -----------------------------------------------------------------------------------------------

    def _adopt(self, db: sqlite3.Connection, now: float) -> None:
        """Defers the intents of dead processes and those older than the limit. The primary may still be at work on
        them, so none is settled before the limit has passed since it was opened."""
        for id_, place, pid, started in db.execute("SELECT id, place, pid, started FROM owners").fetchall():
            if Owner(place, pid, started).known_dead():
                self._adopt_where(db, "owner = ?", id_)
                db.execute("DELETE FROM owners WHERE id = ?", (id_,))
        self._adopt_where(db, "opened < ?", now - self.limit)

    def _adopt_where(self, db: sqlite3.Connection, where: str, argument: Any) -> None:
        db.execute(_DEFER.format(settle="opened + ?", where=where), (self.limit, argument))
        db.execute(f"DELETE FROM intents WHERE {where}", (argument,))  # noqa: S608 - two constants above

    # --- the writer thread --------------------------------------------------------------------------------------

    async def _run(self, work: Work) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._submit(_Job(work, loop, future))
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

    def _connect(self, owner: Owner) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={self._synchronous}")
        db.executescript(_SCHEMA)
        db.execute(
            "INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)", (owner.id, owner.place, owner.pid, owner.started)
        )
        return db

    def _serve(self, writer: _Writer) -> None:
        db: sqlite3.Connection | None = None
        while True:
            jobs, ending = _take(writer.queue)
            try:
                if db is None:
                    db = self._connect(writer.owner)
                _commit(db, jobs)
            except Exception as error:
                _fail(jobs, self._explain(error))
                if db is not None:
                    with contextlib.suppress(sqlite3.Error):
                        db.close()
                    db = None
            _wake(jobs)
            if ending:
                break
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.execute(
                    "DELETE FROM owners WHERE id = ? AND NOT EXISTS (SELECT 1 FROM intents WHERE owner = ?)",
                    (writer.owner.id, writer.owner.id),
                )
                db.close()

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


def _commit(db: sqlite3.Connection, jobs: list[_Job]) -> None:
    """All jobs in one transaction. One that fails alone is answered alone; its own changes are rolled back."""
    if not jobs:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for job in jobs:
            _do(db, job)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _do(db: sqlite3.Connection, job: _Job) -> None:
    db.execute("SAVEPOINT job")
    try:
        job.result = job.work(db)
    except (sqlite3.IntegrityError, bson.errors.BSONError, ValueError) as error:
        db.execute("ROLLBACK TO job")
        job.error = error
    db.execute("RELEASE job")


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
