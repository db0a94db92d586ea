"""The control store of jobs: an SQLite file beside the journal, shared by the processes of one host.

It holds, for each job, its ranges with the place that each has come to, what could not be done and why, and the rate
that is allowed. Ranges are claimed: by one worker at a time, again when its process is dead or has not been heard of
for a while. Work is idempotent, so a worker that comes back late does no harm; its checkpoint is refused.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bson

from shadow.migrate.sides import JobRefused
from shadow.model.values import CANONICAL
from shadow.model.version import Document, Key
from shadow.replicate.process import Owner

__all__ = ["FORMAT", "Claim", "Control", "Issue", "Job"]

FORMAT: Final = 1
"""Of checkpoints: a job of another format is not gone on with."""

_SILENT: Final = 60.0
"""Seconds without a checkpoint after which a range of a living process may be claimed by another."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, collection TEXT NOT NULL, fingerprint TEXT NOT NULL,
    format INTEGER NOT NULL, options TEXT NOT NULL, started REAL NOT NULL, finished REAL, outcome TEXT,
    rate REAL, total INTEGER NOT NULL DEFAULT 0, stopping INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_collection ON jobs (collection, kind, id);
CREATE TABLE IF NOT EXISTS ranges (
    job INTEGER NOT NULL, number INTEGER NOT NULL, range BLOB NOT NULL, place BLOB, done INTEGER NOT NULL DEFAULT 0,
    worker TEXT, host TEXT, pid INTEGER, born REAL, beat REAL, counts TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS issues (
    job INTEGER NOT NULL, key BLOB NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL,
    primary_state TEXT NOT NULL, secondary_state TEXT NOT NULL, PRIMARY KEY (job, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a job over one collection. Times are epoch seconds; `rate` is documents a second over all workers;
    `counts` adds up the ranges."""

    id: int
    kind: str
    collection: str
    fingerprint: str
    options: Mapping[str, Any]
    started: float
    finished: float | None
    outcome: str | None
    rate: float | None
    total: int
    stopping: bool
    ranges: int
    ranges_done: int
    counts: Mapping[str, int]
    issues: Mapping[str, int]
    workers: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A range in a worker's hands, and the place that was reached (None: its beginning)."""

    job: int
    number: int
    worker: str
    range: Document
    place: Document | None


@dataclass(frozen=True, slots=True)
class Issue:
    """One key that wants something: `kind` is a kind of difference or "failed", `reason` a short text without any
    value; the states are those seen, as JSON."""

    key: Key
    kind: str
    reason: str = ""
    primary_state: str = ""
    secondary_state: str = ""


class Control:
    """Synchronous, thread-safe; raises `sqlite3.Error`, and `JobRefused` where a checkpoint belongs to something else.

    `path`: the file, made with its folder if missing. `now`: epoch seconds.
    """

    def __init__(self, path: str | Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._now = now
        self._lock = threading.RLock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, timeout=20.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, arguments).fetchall()

    # --- jobs ---------------------------------------------------------------------------------------------------

    def begin(
        self, kind: str, collection: str, fingerprint: str, options: Mapping[str, Any], *, restart: bool = False
    ) -> int:
        """The unfinished job of this kind and collection, or a new one. Raises `JobRefused` if the unfinished one
        belongs to another configuration, other options or another format; `restart` gives it up instead."""
        text = json.dumps(options, sort_keys=True)
        with self._transaction() as db:
            found = db.execute(
                "SELECT id, fingerprint, format, options FROM jobs "
                "WHERE kind = ? AND collection = ? AND finished IS NULL ORDER BY id DESC LIMIT 1",
                (kind, collection),
            ).fetchone()
            if found and not restart:
                _check(kind, collection, found[1:], (fingerprint, FORMAT, text))
                db.execute("UPDATE jobs SET stopping = 0 WHERE id = ?", (found[0],))
                return int(found[0])
            db.execute(
                "UPDATE jobs SET finished = ?, outcome = 'abandoned' "
                "WHERE kind = ? AND collection = ? AND finished IS NULL",
                (self._now(), kind, collection),
            )
            row = (kind, collection, fingerprint, FORMAT, text, self._now())
            made = db.execute(
                "INSERT INTO jobs (kind, collection, fingerprint, format, options, started) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            return int(made.lastrowid or 0)

    def lay_out(self, job: int, ranges: Sequence[Document], total: int) -> None:
        """Gives a job its ranges, unless it has some; `total` is about how many documents there are."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM ranges WHERE job = ? LIMIT 1", (job,)).fetchone():
                return
            rows = [(job, number, bson.encode(each)) for number, each in enumerate(ranges)]
            db.executemany("INSERT INTO ranges (job, number, range) VALUES (?, ?, ?)", rows)
            db.execute("UPDATE jobs SET total = ? WHERE id = ?", (total, job))

    def is_laid_out(self, job: int) -> bool:
        return bool(self._rows("SELECT 1 FROM ranges WHERE job = ? LIMIT 1", job))

    def finish(self, job: int, outcome: str) -> None:
        """Ends a job once; later ends change nothing."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET finished = ?, outcome = ? WHERE id = ? AND finished IS NULL",
                (self._now(), outcome, job),
            )

    def set_rate(self, job: int, rate: float | None) -> None:
        with self._transaction() as db:
            db.execute("UPDATE jobs SET rate = ? WHERE id = ?", (rate, job))

    def stop(self, job: int) -> None:
        """Asks the workers of a job to end after the batch at hand; it can be gone on with."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET stopping = 1 WHERE id = ?", (job,))

    def job(self, id: int) -> Job:
        return self._job(self._rows(f"SELECT {_JOB} FROM jobs WHERE id = ?", id)[0])  # noqa: S608 - a constant

    def jobs(self, *, kind: str | None = None, collection: str | None = None, limit: int = 50) -> list[Job]:
        """The newest first."""
        rows = self._rows(
            f"SELECT {_JOB} FROM jobs WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR collection = ?2) "  # noqa: S608
            "ORDER BY id DESC LIMIT ?3",
            kind,
            collection,
            limit,
        )
        return [self._job(row) for row in rows]

    def _job(self, row: tuple[Any, ...]) -> Job:
        id_ = row[0]
        counts: Counter[str] = Counter()
        ranges = self._rows("SELECT done, counts FROM ranges WHERE job = ?", id_)
        for _, text in ranges:
            counts.update(json.loads(text))
        issues = dict(self._rows("SELECT kind, count(*) FROM issues WHERE job = ? GROUP BY kind", id_))
        workers = self._rows(
            "SELECT count(DISTINCT host || '/' || pid) FROM ranges WHERE job = ? AND done = 0 AND beat > ?",
            id_,
            self._now() - 15,
        )[0][0]
        kind, collection, fingerprint, options, started, finished, outcome, rate, total, stopping = row[1:]
        return Job(
            id=id_,
            kind=kind,
            collection=collection,
            fingerprint=fingerprint,
            options=json.loads(options),
            started=started,
            finished=finished,
            outcome=outcome,
            rate=rate,
            total=total,
            stopping=bool(stopping),
            ranges=len(ranges),
            ranges_done=sum(1 for done, _ in ranges if done),
            counts=counts,
            issues=issues,
            workers=int(workers),
        )

    # --- ranges -------------------------------------------------------------------------------------------------

    def claim(self, job: int, worker: str, owner: Owner) -> Claim | None:
        """A range that is not done and that nobody is at work on; None if there is none now."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT number, range, place, worker, host, pid, born, beat FROM ranges "
                "WHERE job = ? AND done = 0 ORDER BY worker IS NOT NULL, number",
                (job,),
            ).fetchall()
            free = next((row for row in rows if self._is_free(row)), None)
            if free is None:
                return None
            db.execute(
                "UPDATE ranges SET worker = ?, host = ?, pid = ?, born = ?, beat = ? WHERE job = ? AND number = ?",
                (worker, owner.place, owner.pid, owner.started, self._now(), job, free[0]),
            )
            return Claim(job, free[0], worker, _unpack(free[1]), None if free[2] is None else _unpack(free[2]))

    def _is_free(self, row: tuple[Any, ...]) -> bool:
        worker, host, pid, born, beat = row[3:]
        return worker is None or beat < self._now() - _SILENT or Owner(host, pid, born).known_dead()

    def advance(self, claim: Claim, place: Document, counts: Mapping[str, int], issues: Sequence[Issue]) -> bool:
        """Notes what was done up to `place`. False: the range is another worker's now, and nothing was noted."""
        with self._transaction() as db:
            if not self._is_own(db, claim):
                return False
            before = db.execute(
                "SELECT counts FROM ranges WHERE job = ? AND number = ?", (claim.job, claim.number)
            ).fetchone()[0]
            total = Counter(json.loads(before))
            total.update(counts)
            db.execute(
                "UPDATE ranges SET place = ?, counts = ?, beat = ? WHERE job = ? AND number = ?",
                (bson.encode(place), json.dumps(total), self._now(), claim.job, claim.number),
            )
            self._note(db, claim.job, issues)
            return True

    def complete(self, claim: Claim) -> None:
        with self._transaction() as db:
            if self._is_own(db, claim):
                db.execute("UPDATE ranges SET done = 1 WHERE job = ? AND number = ?", (claim.job, claim.number))

    def release(self, claim: Claim) -> None:
        """Gives a range back as it is."""
        with self._transaction() as db:
            if self._is_own(db, claim):
                db.execute("UPDATE ranges SET worker = NULL WHERE job = ? AND number = ?", (claim.job, claim.number))

    def beat(self, claim: Claim) -> None:
        """Says that the worker is alive, where a batch takes long."""
        with self._transaction() as db:
            if self._is_own(db, claim):
                db.execute(
                    "UPDATE ranges SET beat = ? WHERE job = ? AND number = ?", (self._now(), claim.job, claim.number)
                )

    @staticmethod
    def _is_own(db: sqlite3.Connection, claim: Claim) -> bool:
        row = db.execute(
            "SELECT worker FROM ranges WHERE job = ? AND number = ? AND done = 0", (claim.job, claim.number)
        ).fetchone()
        return row is not None and row[0] == claim.worker

    # --- issues and receipts ------------------------------------------------------------------------------------

    @staticmethod
    def _note(db: sqlite3.Connection, job: int, issues: Sequence[Issue]) -> None:
        rows = [
            (job, bson.encode({"": each.key}), each.kind, each.reason, each.primary_state, each.secondary_state)
            for each in issues
        ]
        db.executemany("INSERT OR REPLACE INTO issues VALUES (?, ?, ?, ?, ?, ?)", rows)

    def note(self, job: int, issues: Sequence[Issue]) -> None:
        with self._transaction() as db:
            self._note(db, job, issues)

    def forget(self, job: int, keys: Sequence[Key]) -> None:
        """Takes back the issues of keys that are settled."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM issues WHERE job = ? AND key = ?", [(job, bson.encode({"": key})) for key in keys]
            )

    def issues(self, job: int, *, size: int = 500) -> Iterator[list[Issue]]:
        """The issues of a job, some at a time."""
        last = b""
        while rows := self._rows(
            "SELECT key, kind, reason, primary_state, secondary_state FROM issues "
            "WHERE job = ? AND key > ? ORDER BY key LIMIT ?",
            job,
            last,
            size,
        ):
            last = rows[-1][0]
            yield [Issue(_unpack(row[0])[""], *row[1:]) for row in rows]

    def reasons(self, job: int) -> dict[str, int]:
        """How many issues there are by kind and reason, as "kind: reason"."""
        rows = self._rows(
            "SELECT kind, reason, count(*) FROM issues WHERE job = ? GROUP BY kind, reason ORDER BY 3 DESC", job
        )
        return {f"{kind}: {reason}" if reason else kind: count for kind, reason, count in rows}

    def file_receipt(self, kind: str, body: Mapping[str, Any]) -> int:
        """Keeps a record for good; answers its number."""
        with self._transaction() as db:
            made = db.execute(
                "INSERT INTO receipts (at, kind, body) VALUES (?, ?, ?)",
                (self._now(), kind, json.dumps(body, default=str)),
            )
            return int(made.lastrowid or 0)

    def receipts(self, *, kind: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest first, each with `id`, `at` (epoch seconds) and `kind`."""
        rows = self._rows(
            "SELECT id, at, kind, body FROM receipts WHERE ?1 IS NULL OR kind = ?1 ORDER BY id DESC LIMIT ?2",
            kind,
            limit,
        )
        return [{"id": id_, "at": at, "kind": kind, **json.loads(body)} for id_, at, kind, body in rows]


_JOB: Final = "id, kind, collection, fingerprint, options, started, finished, outcome, rate, total, stopping"


def _check(kind: str, collection: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    parts = ("the configuration", "the format of checkpoints", "the options")
    changed = [part for part, old, new in zip(parts, found, wanted, strict=True) if old != new]
    if changed:
        raise JobRefused(
            f"{kind} of {collection}: there is one that has not ended, and {' and '.join(changed)} changed since",
            hint="go on with it as it was, or give it up and begin anew with --restart",
        )


def _unpack(blob: bytes) -> Document:
    return bson.decode(blob, codec_options=CANONICAL)
