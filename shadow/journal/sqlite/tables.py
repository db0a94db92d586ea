"""The journal's logic as SQL on one connection: what an intent, a deferral and a settlement are. No thread, no loop.

Its caller decides how it becomes durable: `journal` from its writer thread, with group commit; the tests step by step,
on a connection in memory. The rules are those of `journal.base`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import bson

from shadow.host.process import Owner, time_id
from shadow.host.steady import steady
from shadow.journal.base import Due, Entry, JournalStats, Pending, undecided
from shadow.journal.sqlite.schema import DOUBTS, PAGE_SIZE, DamagedJournal, check_of, make_schema
from shadow.journal.sqlite.statements import (
    CLAIMED,
    DEFER,
    LATE,
    PENDING,
    REASON,
    REFUSED,
    closing,
    in_parts,
    opening,
)
from shadow.model.values import CANONICAL
from shadow.model.version import Key

__all__ = ["BUSY", "JournalTask", "Ledger", "Work"]

BUSY: Final = 10.0
"""Seconds that a transaction waits for those of other processes."""
_RETRY_WAIT: Final = 0.002

_START: Final[dict[str, Any]] = {"since": -math.inf, "name": "", "key": b"", "op_id": ""}
_ROOM: Final = "?" * PAGE_SIZE
"""A value that needs one page more than the table has."""
_CLOCK: Final = "clock"
"""A kind in `counts` that counts nothing: microseconds from the epoch to the start of the steady clock, by its name."""

_OF_ONE: Final = (sqlite3.IntegrityError, bson.errors.BSONError, ValueError)
"""Errors of one job, which the others of its transaction do not share."""


class Ledger:
    """What one process does with the journal. `owner` signs its intents; `limit`: seconds after which an intent may be
    adopted; `known_dead`: whether an owner has certainly ended.

    Its time is that of the host's steady clock, which no step of the wall clock moves, counted from a moment that the
    journal keeps: the same for all processes of a boot. `clock` replaces the steady clock; `now`, in epoch seconds,
    replaces both.

    Its methods are the work of a `JournalTask`; `commit` does many of them in one transaction. All raise
    `sqlite3.Error`.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        owner: Owner,
        *,
        limit: float,
        now: Callable[[], float] | None = None,
        clock: Callable[[], float] = steady,
        known_dead: Callable[[Owner], bool] = Owner.known_dead,
    ) -> None:
        """`db` is in autocommit mode (`isolation_level=None`) and used by one thread at a time."""
        self._db = db
        self._owner = owner
        self._limit = limit
        self.late = 0.0
        """Seconds within which a write of unknown outcome may take effect."""
        self._clock = now or clock
        self._anchored = now is None
        self._offset = 0.0
        self._known_dead = known_dead
        self._written: set[str] = set()

    def enter(self) -> None:
        """Makes the tables if they are missing and registers the owner. Raises what `schema.make_schema` raises."""
        make_schema(self._db)
        owner = self._owner
        row = (owner.id, owner.place, owner.pid, owner.started)
        self._db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)", row)
        if self._anchored:
            self._anchor()

    def _anchor(self) -> None:
        """Reads what to add to the steady clock to get the time of the journal, which is kept beside its counts."""
        mark = time_id()
        if not mark:
            # Nothing tells whether the steady clock has been reset since.
            self._clock, self._offset = time.time, 0.0
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._offset = self._kept_offset(mark)
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _kept_offset(self, mark: str) -> float:
        found = self._db.execute("SELECT number FROM counts WHERE kind = ? AND collection = ?", (_CLOCK, mark))
        kept = found.fetchone()
        if kept is not None:
            return float(kept[0]) / 1e6
        offset = round((time.time() - self._clock()) * 1e6)
        boot = mark.partition("/")[0]
        self._db.execute("DELETE FROM counts WHERE kind = ? AND collection NOT LIKE ? || '/%'", (_CLOCK, boot))
        self._db.execute("INSERT INTO counts VALUES (?, ?, ?)", (_CLOCK, mark, offset))
        self._restart_ages(self._clock() + offset / 1e6)
        return offset / 1e6

    def _restart_ages(self, now: float) -> None:
        """The moments in the file are of another clock: an operation that may still be under way gets the whole limit
        again before its entry can be settled."""
        self._db.execute("UPDATE intents SET opened = ?", (now,))
        self._db.execute(
            "UPDATE deferred SET since = min(since, :now), next_try = min(next_try, :now), "
            "settle_after = CASE WHEN settle_after > 0 THEN :now + :limit ELSE 0.0 END",
            {"now": now, "limit": self._limit},
        )
        ages = (now, now + self._limit, now + max(self._limit, self.late))
        self._db.execute("UPDATE late SET since = ?, next_try = ?, settle_after = ?", ages)

    def at(self, mark: float) -> float:
        """The moment in the journal's time at which the clock showed `mark`."""
        return mark + self._offset

    def now(self) -> float:
        """Epoch seconds in the journal's time: right when the host began, if its wall clock was."""
        return self.at(self._clock())

    def leave(self) -> None:
        """The clean end of the owner. One that leaves intents stays registered, so that its end is noticed."""
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
        for some in in_parts(entries):
            given: list[Any] = [opened, owner]
            for entry in some:
                key = _pack(entry.key)
                given += (entry.op_id, entry.collection, key, check_of(entry.collection, key))
            self._db.execute(opening(len(some)), given)
        self._written.update(entry.collection for entry in entries)

    def decide(self, op_id: str, key: Key) -> None:
        row = self._db.execute("SELECT collection FROM intents WHERE op_id = ?", (op_id,)).fetchone()
        if row is not None:
            packed = _pack(key)
            change = (packed, check_of(row[0], packed), op_id)
            self._db.execute('UPDATE intents SET key = ?, "check" = ? WHERE op_id = ?', change)

    def close(self, op_id: str) -> None:
        self._db.execute("DELETE FROM intents WHERE op_id = ?", (op_id,))

    def close_all(self, op_ids: Sequence[str]) -> None:
        for some in in_parts(op_ids):
            self._db.execute(closing(len(some)), some)

    def defer(self, op_id: str, *, unknown: bool) -> None:
        settle = "opened + ?" if unknown else "0 * ?"
        self._db.execute(DEFER.format(settle=settle, where="op_id = ?"), (self._limit, op_id))
        self.close(op_id)

    def has_open(self, collection: str, key: Key) -> bool:
        packed = _pack(key)
        for first, last in ((packed, packed), _UNDECIDED):
            for table in ("intents", "deferred"):
                query = f"SELECT 1 FROM {table} WHERE collection = ? AND key BETWEEN ? AND ? LIMIT 1"  # noqa: S608
                if self._db.execute(query, (collection, first, last)).fetchone():
                    return True
        return False

    def due(self, limit: int, lease: float) -> list[Due]:
        now = self.now()
        self._adopt(now)
        found = self._due("deferred", REASON, limit, now, lease)
        return found + self._due("late", "''", limit - len(found), now, lease)

    def _due(self, table: str, reason: str, limit: int, now: float, lease: float) -> list[Due]:
        rows = self._db.execute(
            f"SELECT collection, key, generation, attempts, since, {reason}, settle_after, "  # noqa: S608
            f'"check" FROM {table} WHERE next_try <= ? ORDER BY next_try LIMIT ?',
            (now, limit),
        ).fetchall()
        _check(rows)
        self._db.executemany(
            f"UPDATE {table} SET next_try = ? WHERE collection = ? AND key = ?",  # noqa: S608
            [(now + lease, row[0], row[1]) for row in rows],
        )
        late = table == "late"
        return [
            Due(name, _unpack(key), generation, attempts, since, now, now + lease, refused, settle_after, late)
            for name, key, generation, attempts, since, refused, settle_after, _ in rows
        ]

    def claim(self, collection: str, key: Key, lease: float) -> Due | None:
        now = self.now()
        self._adopt(now)
        place = (collection, _pack(key))
        where = "WHERE collection = ? AND key = ?"
        query = f"SELECT generation, attempts, since, {REASON}, settle_after FROM deferred {where}"  # noqa: S608
        row = self._db.execute(query, place).fetchone()
        if row is None:
            return None
        self._db.execute(f"UPDATE deferred SET next_try = ? {where}", (now + lease, *place))  # noqa: S608
        generation, attempts, since, refused, settle_after = row
        return Due(collection, key, generation, attempts, since, now, now + lease, refused, settle_after)

    def entries(self, limit: int, collection: str | None, after: Pending | None) -> list[Pending]:
        where = "" if collection is None else "AND collection = :collection"
        place = _START
        if after is not None:
            place = {"since": after.since, "name": after.collection, "key": _pack(after.key), "op_id": after.op_id}
        arguments = {"limit": self._limit, "collection": collection, "most": limit, **place}
        return self._pending(self._db.execute(PENDING.format(where=where, reason=REASON), arguments).fetchall())

    def explain(self, collection: str, key: Key) -> list[Pending]:
        query = PENDING.format(where="AND collection = :collection AND key = :its", reason=REASON)
        arguments = {"limit": self._limit, "collection": collection, "its": _pack(key), "most": -1, **_START}
        return self._pending(self._db.execute(query, arguments).fetchall())

    def _pending(self, rows: Sequence[tuple[Any, ...]]) -> list[Pending]:
        """Rows of `PENDING` as entries, with the owners that are known to be dead."""
        known = self._db.execute("SELECT id, place, pid, started FROM owners").fetchall()
        dead = {id_ for id_, *owner in known if self._known_dead(Owner(*owner))}
        return [
            Pending(collection, _unpack(key), since, settle_after, op_id, owner, owner in dead, *rest)
            for since, collection, key, op_id, owner, settle_after, *rest in rows
        ]

    def settle(self, due: Due) -> bool:
        table, entry = _table(due), (due.collection, _pack(due.key), due.generation, due.until)
        if not due.late and 0 < due.settle_after <= due.claimed < due.settle_after - self._limit + self.late:
            self._keep_late(due, entry)
        done = self._db.execute(
            f"DELETE FROM {table} WHERE {CLAIMED} AND settle_after <= ?",  # noqa: S608
            (*entry, due.claimed),
        )
        if done.rowcount == 0:
            again = due.next_look if due.late else math.inf
            self._db.execute(
                f"UPDATE {table} SET next_try = min(settle_after, ?) WHERE {CLAIMED}",  # noqa: S608
                (again, *entry),
            )
        return done.rowcount == 1

    def _keep_late(self, due: Due, entry: tuple[Any, ...]) -> None:
        found = self._db.execute(f"SELECT 1 FROM deferred WHERE {CLAIMED}", entry)  # noqa: S608
        if found.fetchone() is not None:
            times = {"limit": self._limit, "late": self.late, "claimed": due.claimed}
            self._db.execute(LATE, {**times, "collection": entry[0], "key": entry[1]})

    def postpone(self, due: Due, delay: float, refused: str = "") -> None:
        place = (due.collection, _pack(due.key))
        done = self._db.execute(
            f"UPDATE {_table(due)} SET attempts = ?, next_try = ? WHERE {CLAIMED}",  # noqa: S608
            (due.attempts_after(refused), self.now() + delay, *place, due.generation, due.until),
        )
        if due.late or not done.rowcount:
            return
        if refused:
            self._db.execute(REFUSED, (*place, refused))
        else:
            self._db.execute("DELETE FROM refused WHERE collection = ? AND key = ?", place)

    def give_back(self, due: Due) -> None:
        self._db.execute(
            f"UPDATE {_table(due)} SET next_try = since WHERE {CLAIMED}",  # noqa: S608
            (due.collection, _pack(due.key), due.generation, due.until),
        )

    def stats(self) -> JournalStats:
        oldest = self._db.execute(
            "SELECT min(at) FROM (SELECT min(opened) AS at FROM intents UNION ALL SELECT min(since) FROM deferred)"
        ).fetchone()[0]
        age = max(0.0, self.now() - oldest) if oldest is not None else 0.0
        unclean = dict(self._db.execute("SELECT collection, since FROM unclean").fetchall())
        counts = {kind: self._count(kind) for kind in ("intents", "deferred", "passed", "refused", "late")}
        return JournalStats(
            counts["intents"], counts["deferred"], age, unclean, counts["passed"], counts["refused"], counts["late"]
        )

    def _count(self, kind: str) -> dict[str, int]:
        query = "SELECT collection, number FROM counts WHERE kind = ? AND number > 0"
        return dict(self._db.execute(query, (kind,)).fetchall())

    def _adopt(self, now: float) -> None:
        """Defers the intents of dead processes and those older than the limit. The primary may still be at work on
        them, so none is settled before the limit has passed since it was opened."""
        for id_, place, pid, started in self._db.execute("SELECT id, place, pid, started FROM owners").fetchall():
            if self._known_dead(Owner(place, pid, started)):
                self._adopt_where("owner = ?", id_)
                self._doubt(id_, Owner(place, pid, started))
                self._db.execute("DELETE FROM owners WHERE id = ?", (id_,))
                # No claim says whose it is: a living process whose claim ends with them finds its key healed once
                # more, and a postponed key is tried a little early.
                self._db.execute("UPDATE deferred SET next_try = since WHERE next_try > ?", (now,))
        self._adopt_where("opened < ?", now - self._limit)

    def _doubt(self, id_: str, owner: Owner) -> None:
        """A process that ended with its operating system, and not cleanly, may have lost its last intents: the
        collections that it wrote become unverified from its start on."""
        if owner.ended_with_its_system():
            wrote = self._db.execute("SELECT collection FROM written WHERE owner = ?", (id_,)).fetchall()
            for (collection,) in wrote:
                self.doubt(collection, owner.since)
        self._db.execute("DELETE FROM written WHERE owner = ?", (id_,))

    def probe(self) -> None:
        """Takes a page and frees it: a transaction that writes nothing would succeed on a full disk too."""
        self._db.execute("INSERT OR REPLACE INTO uses VALUES (?)", (_ROOM,))
        self._db.execute("DELETE FROM uses WHERE file = ?", (_ROOM,))

    def doubt(self, collection: str, since: float) -> None:
        """Marks the collection unverified from `since` (epoch seconds) on: one of its writes may have left no entry."""
        self._db.execute(
            "INSERT INTO unclean VALUES (?, ?, ?) "
            "ON CONFLICT (collection) DO UPDATE SET since = min(since, excluded.since)",
            (collection, since, check_of(collection)),
        )
        self._db.execute("INSERT OR REPLACE INTO counts VALUES (?, ?, ?)", (DOUBTS, collection, random.getrandbits(62)))

    def doubts(self, collection: str) -> str:
        """Identifies the unverified mark; see `Journal.doubts`."""
        found = self._db.execute("SELECT number FROM counts WHERE kind = ? AND collection = ?", (DOUBTS, collection))
        row = found.fetchone()
        return "" if row is None else str(row[0])

    def primaries(self, configured: Mapping[str, str]) -> dict[str, str]:
        self._db.executemany("INSERT OR IGNORE INTO primaries VALUES (?, ?)", configured.items())
        return dict(self._db.execute("SELECT collection, name FROM primaries").fetchall())

    def set_primary(self, collection: str, primary: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO primaries VALUES (?, ?)", (collection, primary))

    def trust(self, collection: str, doubts: str) -> None:
        """Marks the collection verified, unless its mark is no longer `doubts`."""
        if self.doubts(collection) == doubts:
            self._db.execute("DELETE FROM unclean WHERE collection = ?", (collection,))
            self._db.execute("DELETE FROM counts WHERE kind = ? AND collection = ?", (DOUBTS, collection))

    def _adopt_where(self, where: str, argument: Any) -> None:
        self._db.execute(DEFER.format(settle="opened + ?", where=where), (self._limit, argument))
        self._db.execute(f"DELETE FROM intents WHERE {where}", (argument,))  # noqa: S608 - two constants above

    # --- group commit -------------------------------------------------------------------------------------------

    def commit(self, jobs: Sequence[JournalTask]) -> None:
        """Does all jobs in one transaction, durable when it returns. A job that fails by itself gets its error, with
        its own changes rolled back; any other error rolls back all.

        Jobs that only read wait for nobody. While another process writes, it retries within milliseconds, and gives up
        after `BUSY` seconds: SQLite's own waiting (1, 2, 5, 10, 15, 20, 25 ... 100 ms; source: its
        `sqliteDefaultBusyCallback`) lets those who came last go first, and costs several processes tens of
        milliseconds."""
        if not jobs:
            return
        end = time.monotonic() + BUSY
        while not self._committed(jobs, last=time.monotonic() > end):
            time.sleep(random.uniform(_RETRY_WAIT / 2, _RETRY_WAIT))

    def _committed(self, jobs: Sequence[JournalTask], *, last: bool) -> bool:
        """False: another process writes, and nothing was done; raises that error at the `last` attempt."""
        try:
            self._transact(jobs)
        except sqlite3.OperationalError as error:
            if last or (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def _transact(self, jobs: Sequence[JournalTask]) -> None:
        try:
            self._do_all(jobs, self._do_together)
        except _OF_ONE as error:
            if len(jobs) == 1:
                jobs[0].error = error
                return
            # Only now: below a savepoint SQLite keeps every page that a statement changes once more, and to open a
            # thousand intents takes twice the time.
            self._do_all(jobs, self._do_apart)

    def _do_all(self, jobs: Sequence[JournalTask], do: Callable[[Sequence[JournalTask]], None]) -> None:
        self._db.execute("BEGIN" if all(job.reads for job in jobs) else "BEGIN IMMEDIATE")
        try:
            do(jobs)
            self._db.execute("COMMIT")
        except BaseException:
            self._written.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _do(self, job: JournalTask) -> None:
        job.error = None
        job.result = job.work(self)

    def _do_together(self, jobs: Sequence[JournalTask]) -> None:
        """Closes that follow each other are one statement."""
        for closes, some in itertools.groupby(jobs, lambda job: bool(job.closes)):
            if not closes:
                for job in some:
                    self._do(job)
                continue
            closed = list(some)
            self.close_all([job.closes for job in closed])
            for job in closed:
                job.error = None

    def _do_apart(self, jobs: Sequence[JournalTask]) -> None:
        for job in jobs:
            self._db.execute("SAVEPOINT job")
            try:
                self._do(job)
            except _OF_ONE as error:
                self._db.execute("ROLLBACK TO job")
                self._written.clear()
                job.error = error
            self._db.execute("RELEASE job")


Work: TypeAlias = Callable[[Ledger], Any]


@dataclass(slots=True)
class JournalTask:
    """One piece of work, and its result."""

    work: Work
    reads: bool = False
    """Whether it changes nothing."""
    closes: str = ""
    """The id of the operation whose intent it closes, if `work` does nothing else."""
    result: Any = None
    error: BaseException | None = None


def _table(due: Due) -> str:
    return "late" if due.late else "deferred"


def _check(rows: Sequence[tuple[Any, ...]]) -> None:
    """Raises `DamagedJournal` for a row (collection, key, ..., check) whose key is not the one that was deferred."""
    if any(row[-1] != check_of(row[0], row[1]) for row in rows):
        raise DamagedJournal("an entry of the journal has another key than it was given")


def _pack(key: Key) -> bytes:
    return bson.encode({"": key})


def _unpack(blob: bytes) -> Key:
    return bson.decode(blob, codec_options=CANONICAL)[""]


def _undecided_keys() -> tuple[bytes, bytes]:
    """The least and the greatest that an undecided key can be when it is packed; operations' ids are all as long."""
    first, last = _pack(undecided("0" * 24)), _pack(undecided("f" * 24))
    return first, last


_UNDECIDED: Final = _undecided_keys()
