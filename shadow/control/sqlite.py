"""The control store in an SQLite file, for the processes of one host.

What is written on a condition is a decision, and survives the operating system; the rest survives the process.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bson

from shadow.control.records import MISSING, Record, Value
from shadow.errors import ControlError
from shadow.model.values import CANONICAL
from shadow.model.version import fresh_id

__all__ = ["SqliteRecords"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision TEXT NOT NULL) WITHOUT ROWID
"""

_BUSY: Final = 20.0
"""Seconds to wait for another process that writes."""


class SqliteRecords:
    """See `records.Records`. Opens the file on first use, and makes it with its folder if it is missing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None
        self._pid = 0

    @property
    def place(self) -> str:
        return str(self.path)

    def prepare(self) -> None:
        with self._using() as db:
            db.execute("SELECT 1")

    def get(self, key: str) -> Record | None:
        with self._using() as db:
            row = db.execute("SELECT key, value, revision FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else _record(row)

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        with self._using() as db:
            rows = db.execute(
                "SELECT key, value, revision FROM records WHERE key >= ?1 AND key < ?2 AND key > ?3 "
                "ORDER BY key LIMIT ?4",
                (prefix, _end(prefix), after, -1 if limit is None else limit),
            ).fetchall()
        return [_record(row) for row in rows]

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        revision, blob = fresh_id(), bson.encode(value)
        with self._using() as db:
            if expected is None:
                db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (key, blob, revision))
                return revision
            db.execute("PRAGMA synchronous=FULL")
            try:
                if expected == MISSING:
                    done = db.execute("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", (key, blob, revision))
                else:
                    done = db.execute(
                        "UPDATE records SET value = ?, revision = ? WHERE key = ? AND revision = ?",
                        (blob, revision, key, expected),
                    )
            finally:
                db.execute("PRAGMA synchronous=NORMAL")
            return revision if done.rowcount else None

    def put_many(self, values: Mapping[str, Value]) -> None:
        rows = [(key, bson.encode(value), fresh_id()) for key, value in values.items()]
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        with self._using() as db:
            done = db.execute("DELETE FROM records WHERE key = ?1 AND (?2 IS NULL OR revision = ?2)", (key, expected))
            return done.rowcount > 0

    def delete_all(self, prefix: str) -> int:
        with self._using() as db:
            return db.execute("DELETE FROM records WHERE key >= ? AND key < ?", (prefix, _end(prefix))).rowcount

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection()
            except (sqlite3.Error, OSError) as error:
                raise ControlError(
                    f"the control store {self.path} cannot be used ({type(error).__name__})",
                    hint="check that its folder can be written and that the disk is not full",
                ) from error

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None or self._pid != os.getpid():
            # A connection of before a fork is the parent's.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may make the file at the same moment: the switch to WAL wants the lock as well.
            db = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute(_SCHEMA)
            except BaseException:
                db.close()
                raise
            self._opened, self._pid = db, os.getpid()
        return self._opened


def _end(prefix: str) -> str:
    """The first text after all that begin with `prefix`."""
    return f"{prefix}\U0010ffff"


def _record(row: tuple[Any, ...]) -> Record:
    return Record(row[0], bson.decode(row[1], codec_options=CANONICAL), row[2])
