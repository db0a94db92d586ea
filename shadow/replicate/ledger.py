"""The journal's logic as SQL on one connection: what an intent, a deferral and a settlement are. No thread, no loop.

Who drives it decides how it is made durable: `sqlite_journal` from its writer thread, with group commit; the tests
step by step, on a connection in memory. The rules are those of `journal`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import bson

from shadow.model.values import CANONICAL
from shadow.model.version import Key
from shadow.replicate.journal import Due, Entry, JournalStats
from shadow.replicate.process import Owner

__all__ = ["Job", "Ledger", "Work"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS owners (
    id TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (
    owner TEXT NOT NULL, collection TEXT NOT NULL, PRIMARY KEY (owner, collection)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unclean (collection TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
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


class Ledger:
    """One process's hand on the journal. `owner` signs its intents; `limit`: seconds after which an intent may be
    adopted; `now`: epoch seconds; `known_dead`: whether an owner has certainly ended.

    Its methods are the work of a `Job`; `commit` does many of them in one transaction. All raise `sqlite3.Error`.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        owner: Owner,
        *,
        limit: float,
        now: Callable[[], float] = time.time,
        known_dead: Callable[[Owner], bool] = Owner.known_dead,
    ) -> None:
        """`db` is in autocommit mode (`isolation_level=None`) and used by one thread at a time."""
        self._db = db
        self._owner = owner
        self._limit = limit
        self._now = now
        self._known_dead = known_dead
        self._written: set[str] = set()

    def enter(self) -> None:
        """Makes the tables that are missing and registers the owner."""
        self._db.executescript(_SCHEMA)
        owner = self._owner
        row = (owner.id, owner.place, owner.pid, owner.started)
        self._db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)", row)

    def leave(self) -> None:
        """The clean end of the owner. One that leaves intents stays registered, so that its death is noticed."""
        self._db.execute("DELETE FROM written WHERE owner = ?", (self._owner.id,))
        self._db.execute(
            "DELETE FROM owners WHERE id = ? AND NOT EXISTS (SELECT 1 FROM intents WHERE owner = ?)",
            (self._owner.id, self._owner.id),
        )

    # --- the work -----------------------------------------------------------------------------------------------

    def open(self, entries: Sequence[Entry], opened: float) -> None:
        """Opens intents as of `opened` (epoch seconds): all, or none and `sqlite3.IntegrityError`."""
        owner = self._owner.id
        for name in {entry.collection for entry in entries} - self._written:
            self._db.execute("INSERT OR IGNORE INTO written VALUES (?, ?)", (owner, name))
        rows = [(entry.op_id, entry.collection, _pack(entry.key), opened, owner) for entry in entries]
        self._db.executemany("INSERT INTO intents VALUES (?, ?, ?, ?, ?)", rows)
        self._written.update(entry.collection for entry in entries)

    def close(self, op_id: str) -> None:
        self._db.execute("DELETE FROM intents WHERE op_id = ?", (op_id,))

    def defer(self, op_id: str, *, unknown: bool) -> None:
        settle = "opened + ?" if unknown else "0 * ?"
        self._db.execute(_DEFER.format(settle=settle, where="op_id = ?"), (self._limit, op_id))
        self.close(op_id)

    def has_open(self, collection: str, key: Key) -> bool:
        arguments = (collection, _pack(key))
        for table in ("intents", "deferred"):
            query = f"SELECT 1 FROM {table} WHERE collection = ? AND key = ? LIMIT 1"  # noqa: S608 - two constants
            if self._db.execute(query, arguments).fetchone():
                return True
        return False

    def due(self, limit: int, lease: float) -> list[Due]:
        now = self._now()
        self._adopt(now)
        rows = self._db.execute(
            "SELECT collection, key, generation, attempts, since FROM deferred "
            "WHERE next_try <= ? ORDER BY since LIMIT ?",
            (now, limit),
        ).fetchall()
        self._db.executemany(
            "UPDATE deferred SET next_try = ? WHERE collection = ? AND key = ?",
            [(now + lease, row[0], row[1]) for row in rows],
        )
        return [Due(row[0], _unpack(row[1]), row[2], row[3], row[4], now) for row in rows]

    def settle(self, due: Due) -> bool:
        entry = (due.collection, _pack(due.key), due.generation)
        where = "WHERE collection = ? AND key = ? AND generation = ?"
        done = self._db.execute(f"DELETE FROM deferred {where} AND settle_after <= ?", (*entry, due.claimed))  # noqa: S608
        if done.rowcount == 0:
            self._db.execute(f"UPDATE deferred SET next_try = settle_after {where}", entry)  # noqa: S608
        return done.rowcount == 1

    def postpone(self, due: Due, delay: float) -> None:
        self._db.execute(
            "UPDATE deferred SET attempts = attempts + 1, next_try = ? "
            "WHERE collection = ? AND key = ? AND generation = ?",
            (self._now() + delay, due.collection, _pack(due.key), due.generation),
        )

    def stats(self) -> JournalStats:
        intents = dict(self._db.execute("SELECT collection, count(*) FROM intents GROUP BY collection").fetchall())
        deferred = dict(self._db.execute("SELECT collection, count(*) FROM deferred GROUP BY collection").fetchall())
        oldest = self._db.execute(
            "SELECT min(at) FROM (SELECT min(opened) AS at FROM intents UNION ALL SELECT min(since) FROM deferred)"
        ).fetchone()[0]
        age = max(0.0, self._now() - oldest) if oldest is not None else 0.0
        return JournalStats(intents, deferred, age, dict(self._db.execute("SELECT * FROM unclean").fetchall()))

    def _adopt(self, now: float) -> None:
        """Defers the intents of dead processes and those older than the limit. The primary may still be at work on
        them, so none is settled before the limit has passed since it was opened."""
        for id_, place, pid, started in self._db.execute("SELECT id, place, pid, started FROM owners").fetchall():
            if self._known_dead(Owner(place, pid, started)):
                self._adopt_where("owner = ?", id_)
                self._doubt(id_, Owner(place, pid, started))
                self._db.execute("DELETE FROM owners WHERE id = ?", (id_,))
        self._adopt_where("opened < ?", now - self._limit)

    def _doubt(self, id_: str, owner: Owner) -> None:
        """A process that ended with its operating system, and not cleanly, may have lost its last intents: what it
        wrote to wants to be verified, from its start on."""
        if owner.ended_with_its_system():
            self._db.execute(
                "INSERT INTO unclean SELECT collection, ? FROM written WHERE owner = ? "
                "ON CONFLICT (collection) DO UPDATE SET since = min(since, excluded.since)",
                (owner.started, id_),
            )
        self._db.execute("DELETE FROM written WHERE owner = ?", (id_,))

    def trust(self, collection: str) -> None:
        """The collection was verified: it is unclean no more."""
        self._db.execute("DELETE FROM unclean WHERE collection = ?", (collection,))

    def _adopt_where(self, where: str, argument: Any) -> None:
        self._db.execute(_DEFER.format(settle="opened + ?", where=where), (self._limit, argument))
        self._db.execute(f"DELETE FROM intents WHERE {where}", (argument,))  # noqa: S608 - two constants above

    # --- group commit -------------------------------------------------------------------------------------------

    def commit(self, jobs: Sequence[Job]) -> None:
        """All jobs in one transaction, durable when it returns. One that fails alone is answered alone, its own
        changes rolled back; what else is raised undoes all."""
        if not jobs:
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for job in jobs:
                self._do(job)
            self._db.execute("COMMIT")
        except BaseException:
            self._written.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _do(self, job: Job) -> None:
        self._db.execute("SAVEPOINT job")
        try:
            job.result = job.work(self)
        except (sqlite3.IntegrityError, bson.errors.BSONError, ValueError) as error:
            self._db.execute("ROLLBACK TO job")
            self._written.clear()
            job.error = error
        self._db.execute("RELEASE job")


Work: TypeAlias = Callable[[Ledger], Any]


@dataclass(slots=True)
class Job:
    """One piece of work, and what came of it."""

    work: Work
    result: Any = None
    error: BaseException | None = None


def _pack(key: Key) -> bytes:
    return bson.encode({"": key})


def _unpack(blob: bytes) -> Key:
    return bson.decode(blob, codec_options=CANONICAL)[""]
