"""The tables of the journal's file, their versions, and the marks that distinguish such a file from others.

The rows of entries have a check sum, for SQLite has none: a flipped bit in a key would else heal another key. Triggers
keep the counts of `stats`, so that it costs the same with ten entries as with a million.
"""

from __future__ import annotations

import sqlite3
import zlib
from typing import Final

from shadow.errors import JournalError

__all__ = ["APPLICATION", "DOUBTS", "PAGE_SIZE", "VERSION", "DamagedJournal", "check_of", "check_schema", "make_schema"]

VERSION: Final = 4
PAGE_SIZE: Final = 4096
DOUBTS: Final = "doubts"
"""A kind in `counts` that counts nothing: the random number that the last unverified mark of the collection drew."""
APPLICATION: Final = 0x53484A00
"""`PRAGMA application_id` of a journal, to which the version is added: one flipped bit in the file's header makes the
two disagree, which is damage, and not a newer file."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS owners (
    id TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (
    owner TEXT NOT NULL, collection TEXT NOT NULL, PRIMARY KEY (owner, collection)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unclean (
    collection TEXT PRIMARY KEY, since REAL NOT NULL, "check" INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (
    op_id TEXT PRIMARY KEY, collection TEXT NOT NULL, key BLOB NOT NULL, opened REAL NOT NULL, owner TEXT NOT NULL,
    "check" INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS intents_by_key ON intents (collection, key);
CREATE INDEX IF NOT EXISTS intents_by_age ON intents (opened);
CREATE TABLE IF NOT EXISTS deferred (
    collection TEXT NOT NULL, key BLOB NOT NULL, generation INTEGER NOT NULL, since REAL NOT NULL,
    attempts INTEGER NOT NULL, next_try REAL NOT NULL, settle_after REAL NOT NULL, "check" INTEGER NOT NULL,
    PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deferred_by_turn ON deferred (next_try);
CREATE INDEX IF NOT EXISTS deferred_by_age ON deferred (since);
CREATE TABLE IF NOT EXISTS late (
    collection TEXT NOT NULL, key BLOB NOT NULL, generation INTEGER NOT NULL, since REAL NOT NULL,
    attempts INTEGER NOT NULL, next_try REAL NOT NULL, settle_after REAL NOT NULL, "check" INTEGER NOT NULL,
    PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS late_by_turn ON late (next_try);
CREATE TABLE IF NOT EXISTS refused (
    collection TEXT NOT NULL, key BLOB NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS primaries (collection TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (file TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (
    kind TEXT NOT NULL, collection TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (kind, collection)
) WITHOUT ROWID;
"""

_TRIGGERS: Final = """
CREATE TRIGGER IF NOT EXISTS {table}_came AFTER INSERT ON {table} BEGIN
    INSERT INTO counts VALUES ('{table}', NEW.collection, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER IF NOT EXISTS {table}_went AFTER DELETE ON {table} BEGIN
    UPDATE counts SET number = number - 1 WHERE kind = '{table}' AND collection = OLD.collection;
END;
"""

_PASSED: Final = """
CREATE TRIGGER IF NOT EXISTS intents_passed AFTER INSERT ON intents BEGIN
    INSERT INTO counts VALUES ('passed', NEW.collection, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
"""
"""How many were ever opened: a comparison of two results holds only if none has passed meanwhile."""

_SETTLED: Final = """
CREATE TRIGGER IF NOT EXISTS deferred_settled AFTER DELETE ON deferred BEGIN
    DELETE FROM refused WHERE collection = OLD.collection AND key = OLD.key;
END;
"""
"""The secondary's refusal belongs to the key's deferral, and is deleted with it."""

_COUNTED: Final = ("intents", "deferred", "refused", "late")
SCHEMA: Final = _TABLES + "".join(_TRIGGERS.format(table=table) for table in _COUNTED) + _PASSED + _SETTLED

_ASIDE: Final = """
ALTER TABLE unclean RENAME TO unclean_1;
ALTER TABLE intents RENAME TO intents_1;
ALTER TABLE deferred RENAME TO deferred_1;
DROP INDEX intents_by_key;
DROP INDEX deferred_by_turn;
"""
_OVER: Final = """
INSERT INTO unclean SELECT collection, since, check_of(collection, x'') FROM unclean_1;
INSERT INTO intents SELECT op_id, collection, key, opened, owner, check_of(collection, key) FROM intents_1;
INSERT INTO deferred SELECT collection, key, generation, since, attempts, max(since, next_try), settle_after,
    check_of(collection, key) FROM deferred_1;
DROP TABLE unclean_1;
DROP TABLE intents_1;
DROP TABLE deferred_1;
"""
"""From version 1: renames its tables, creates the new ones, and moves the rows over."""


class DamagedJournal(sqlite3.DatabaseError):
    """The file is not as it was written."""


def check_of(collection: str, key: bytes = b"") -> int:
    """The check sum of an entry's address."""
    return zlib.crc32(key, zlib.crc32(collection.encode("utf-8", "surrogatepass")))


def make_schema(db: sqlite3.Connection) -> None:
    """Creates the tables of a new journal, or migrates those of an older one; idempotent, one transaction. Raises
    `JournalError` for the file of a newer version or of something else, `DamagedJournal` where the file contradicts
    itself."""
    version = _known_version(db)
    if version == VERSION:
        return
    db.create_function("check_of", 2, check_of, deterministic=True)
    # From version 2 on, what is missing is only added.
    steps = _ASIDE + SCHEMA + _OVER if version == 1 else SCHEMA
    stamp = f"PRAGMA application_id = {APPLICATION + VERSION}; PRAGMA user_version = {VERSION};"
    try:
        db.executescript(f"BEGIN IMMEDIATE; {steps} {stamp} COMMIT;")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _known_version(db: sqlite3.Connection) -> int:
    """0: an empty file; 1: the tables of 0.1.0, which were not stamped; else the stamped version."""
    stamped = db.execute("PRAGMA user_version").fetchone()[0]
    application = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    ours = {"owners", "written", "unclean", "intents", "deferred"} <= tables
    if stamped > VERSION and application == APPLICATION + stamped:
        raise JournalError(
            f"the journal is of version {stamped}; this program knows versions up to {VERSION}",
            hint="a newer shadow wrote it: run that one, or name another file in journal.url once it is empty",
        )
    if 2 <= stamped <= VERSION and application == APPLICATION + stamped:
        return int(stamped)
    if stamped == application == 0:
        if ours and "counts" not in tables:
            return 1
        if not tables:
            return 0
    if ours or application & ~0xFF == APPLICATION:
        raise DamagedJournal("the stamps of the journal contradict each other")
    raise JournalError(
        "the file is an SQLite database of something else",
        hint="name another file in journal.url; this one is untouched",
    )


def check_schema(db: sqlite3.Connection) -> None:
    """Raises `DamagedJournal` unless tables, indexes and triggers are those of `SCHEMA`."""
    fresh = sqlite3.connect(":memory:")
    try:
        fresh.executescript(SCHEMA)
        if _described(db) != _described(fresh):
            raise DamagedJournal("the tables of the journal are not as they were made")
    finally:
        fresh.close()


def _described(db: sqlite3.Connection) -> set[tuple[str, ...]]:
    """The tables, indexes and triggers, whatever the white space in their text."""
    rows = db.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema").fetchall()
    return {(*row[:3], " ".join(row[3].split())) for row in rows}
