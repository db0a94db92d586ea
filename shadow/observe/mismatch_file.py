"""The one file of a host for mismatches: confirmed ones (findings) and unconfirmed ones.

It is an SQLite file beside the journal, readable only by its owner, with a table for each. `findings_file` and
`reads.unconfirmed` read and write the tables; this module owns the file, its schema and its connection.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from shadow.host.steady import steady

__all__ = ["MismatchFile"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS findings (
    id TEXT PRIMARY KEY, collection TEXT NOT NULL, key BLOB, first_seen REAL NOT NULL, last_seen REAL NOT NULL,
    healed INTEGER NOT NULL, row TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS findings_by_last ON findings (last_seen);
CREATE TABLE IF NOT EXISTS groups (
    collection TEXT NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL, first_seen REAL NOT NULL,
    last_seen REAL NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (collection, kind, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sums (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unconfirmed (
    collection TEXT NOT NULL, digest TEXT NOT NULL, key BLOB NOT NULL, standing TEXT NOT NULL,
    since REAL NOT NULL, seen REAL NOT NULL, PRIMARY KEY (collection, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unconfirmed_by_sight ON unconfirmed (seen);
"""

_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's lock on the file."""


class MismatchFile:
    """Safe to use from threads, one at a time, and on both sides of a fork. `earlier`: the file in which earlier
    versions kept the unconfirmed mismatches; what it holds is taken over, and it is removed. `now` gives seconds that
    all processes of a host share, and that start at 0 when the host boots: the times of unconfirmed mismatches."""

    def __init__(self, path: str | Path, *, earlier: Path | None = None, now: Callable[[], float] = steady) -> None:
        self.path: Final = Path(path)
        self.now: Final = now
        self._earlier = earlier
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._inode = (0, 0)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, in a transaction. Blocks; raises `sqlite3.Error` or OSError."""
        if self._pid != os.getpid():
            # A connection must not be used, nor closed, on the other side of a fork, where a lock may stay held.
            self._db, self._lock, self._pid = None, threading.Lock(), os.getpid()
        with self._lock:
            try:
                db = self._connected()
                with db:
                    yield db
            except (sqlite3.Error, OSError):
                self._close()
                raise

    def close(self) -> None:
        """The next use opens it again."""
        if self._pid == os.getpid():
            with self._lock:
                self._close()

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None and self._inode != _inode(self.path):
            self._close()  # the file was removed
        if self._db is None:
            self._db = self._opened()
            self._inode = _inode(self.path)
        return self._db

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.path, timeout=_TIMEOUT, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_SCHEMA)
            with contextlib.suppress(sqlite3.Error, OSError):
                self._take_over(db)
            with db:
                # From before the host booted, or written by another clock: their time starts now.
                db.execute("UPDATE unconfirmed SET since = :now, seen = :now WHERE seen > :now", {"now": self.now()})
        except BaseException:
            db.close()
            raise
        return db

    def _take_over(self, db: sqlite3.Connection) -> None:
        """Only unconfirmed mismatches: what can't be read is found again by the next read."""
        earlier = self._earlier
        if earlier is None or not earlier.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(earlier, timeout=_TIMEOUT)) as old:
                rows = old.execute("SELECT collection, digest, key, standing, since, seen FROM suspects").fetchall()
            with db:
                db.executemany("INSERT OR IGNORE INTO unconfirmed VALUES (?, ?, ?, ?, ?, ?)", rows)
        finally:
            for suffix in ("", "-wal", "-shm"):
                earlier.with_name(earlier.name + suffix).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _inode(path: Path) -> tuple[int, int]:
    """Distinguishes a file from another one of the same name; zeros if there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
