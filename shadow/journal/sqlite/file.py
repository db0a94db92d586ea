"""The journal's file on the disk: who may open it, what is checked before it is used, how it stays small.

Beside the file are two locks. Every transaction holds the gate (`-gate`) shared; a process that replaces the file holds
it alone. `-users` is held shared for as long as the file is open: a process that gets it alone is the only user, and
has the time to check every page.

While it is open, the file says so in `uses`: one that says so and has neither log nor index has lost its log.

A damaged file is replaced by what `recovery` makes of it. The other processes notice by its number (inode) before their
next transaction, and open the new one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shadow.host.process import Owner, hold_lock
from shadow.journal.sqlite.locks import FileLock
from shadow.journal.sqlite.recovery import RECOVERED, Recovery, finish, recover, set_aside
from shadow.journal.sqlite.schema import PAGE_SIZE, DamagedJournal, check_of, check_schema
from shadow.journal.sqlite.tables import BUSY, JournalTask, Ledger

__all__ = ["FileSettings", "JournalFile", "RecoveryFailed", "is_damage", "is_full"]

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SHORT_READ: Final = 522
"""SQLITE_IOERR_SHORT_READ: the file ends before its own last page."""

LOCKS: Final = ".lives"
"""Of the folder beside the journal with the locks of the processes that live."""
_LOG_LIMIT: Final = 16 * 2**20
"""Bytes to which the write-ahead log is cut back when it has been emptied."""
_FREE_PAGES: Final = 1024
"""Pages without content that the file may keep for what comes next."""
_FREED_AT_ONCE: Final = 512
_TIDY_EVERY: Final = 1.0
"""Seconds between two checks of the size of the file."""

_HEADER: Final = ((0, b"SQLite format 3\0"), (16, struct.pack(">H", PAGE_SIZE)), (20, b"\0\x40\x20\x20"))
"""Bytes of an SQLite file's header that are the same in every journal, with their place ("Database File Format",
section 1.3)."""

_in_use: dict[tuple[int, str], int] = {}
"""By process and path, how often the file is open here. POSIX locks end when any descriptor of a file is closed, so a
file that SQLite has open in this process must not be opened by anybody else in it."""
_in_use_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class FileSettings:
    """The journal's file, and how it is used."""

    path: Path
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    max_bytes: int | None = None
    """The most that the file may hold (its log not counted), None for no bound. What does not fit is refused, like what
    does not fit on the disk."""
    limit: float = 30.0
    """Seconds after which an intent may be adopted."""
    late: float = 0.0
    """Seconds within which a write of unknown outcome may take effect."""
    now: Callable[[], float] | None = None
    """Epoch seconds, in place of the host's steady clock."""
    collections: Sequence[str] = ()
    """Those that become unverified when the file is damaged, beside those that its entries name."""
    on_damage: Callable[[Recovery], None] = lambda recovered: None
    """Called after every recovery, in the journal's thread."""


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file is not what was written, rather than that it cannot be written now."""
    if isinstance(error, DamagedJournal):
        return True
    code = getattr(error, "sqlite_errorcode", 0) or 0
    return isinstance(error, sqlite3.Error) and (code & 0xFF in _DAMAGE or code == _SHORT_READ)


class RecoveryFailed(OSError):
    """The file is damaged and unchanged: there was no room or no right to make another."""


def is_full(error: BaseException) -> bool:
    """Whether there is no room, which does the connection no harm."""
    return (
        isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF == sqlite3.SQLITE_FULL
    )


class JournalFile:
    """One process's connection to the file; opened by making it, used by one thread.

    Raises `sqlite3.Error`, OSError, and `JournalError` for a file that is no journal or of a newer version. A damaged
    file is recovered first; `damaged` is the `number` (inode) of one that was found damaged while it was in use.
    """

    def __init__(self, settings: FileSettings, owner: Owner, *, damaged: int | None = None) -> None:
        self._settings = settings
        self._path = settings.path.absolute()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._tidied = time.monotonic()
        with contextlib.ExitStack() as stack:
            self._gate = FileLock(self._beside("-gate"))
            stack.callback(self._gate.close)
            self._users = FileLock(self._beside("-users"))
            stack.callback(self._users.close)
            # Where no lock can be had, the kernel is asked for the pid.
            with contextlib.suppress(OSError):
                hold_lock(self._beside(LOCKS))
            stack.callback(self._detach)
            self._enter(owner, damaged)
            self._stack = stack.pop_all()

    # --- opening ------------------------------------------------------------------------------------------------

    def _enter(self, owner: Owner, damaged: int | None) -> None:
        only = self._users.take(alone=True)
        try:
            if not only and damaged is None and not self._beside(RECOVERED).exists():
                with self._gate.shared():
                    self._attach(owner, thorough=False)
                self._users.wait_shared()
                return
        except Exception as error:
            if not is_damage(error):
                raise
            self._detach()
        with self._gate.alone():
            finish(self._path)
            self._enter_alone(owner, damaged=damaged is not None and damaged == self._inode(), thorough=only)
        self._users.wait_shared()

    def _enter_alone(self, owner: Owner, *, damaged: bool, thorough: bool) -> None:
        try:
            if damaged:
                raise DamagedJournal("found damaged while it was in use")
            self._attach(owner, thorough=thorough)
        except Exception as error:
            if not is_damage(error):
                raise
            # Before the connection ends, which may do away with the log.
            kept = set_aside(self._path)
            self._detach()
            self._settings.on_damage(self._recover(kept))
            self._attach(owner, thorough=False)

    def _recover(self, kept: Path) -> Recovery:
        settings = self._settings
        now = time.time() if settings.now is None else settings.now()
        try:
            return recover(self._path, kept, settings.collections, limit=settings.limit, now=now)
        except (OSError, sqlite3.Error) as error:
            for suffix in ("", "-wal"):
                kept.with_name(kept.name + suffix).unlink(missing_ok=True)
            raise RecoveryFailed(f"it is damaged, and a new one could not be made of it: {error}") from error

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def _attach(self, owner: Owner, *, thorough: bool) -> None:
        settings = self._settings
        expected = self._before()
        new = not self._path.exists()
        self._db = db = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None)
        self._used(1)
        if new:
            db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {settings.synchronous}")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")
        self.ledger = Ledger(db, owner, limit=settings.limit, now=settings.now)
        self.ledger.late = settings.late
        if expected is not None and _frames(db) < expected:
            raise DamagedJournal("the write-ahead log has lost transactions")
        self.ledger.enter()
        if db.execute("INSERT OR IGNORE INTO uses VALUES ('file')").rowcount:
            # Into the file itself: a mark in the log alone would go with the log.
            _frames(db)
        elif expected is None and not new and thorough:
            raise DamagedJournal("the write-ahead log is gone")
        if thorough and not new:
            _check_all(db, self.ledger.now() + settings.limit)
            _make_shrinkable(db)
        # Not before: to open it may take a page, and a full journal must be opened to be emptied.
        if settings.max_bytes is not None:
            db.execute(f"PRAGMA max_page_count = {max(16, settings.max_bytes // PAGE_SIZE)}")
        # `Ledger.commit` waits by itself.
        db.execute("PRAGMA busy_timeout = 0")
        self.number = self._inode()

    def _before(self) -> int | None:
        """Checks the files before SQLite does, which rebuilds the index of its log. Returns the number of frames that
        the log is known to have held and the file does not have yet; None if nothing is left of log and index."""
        here, log = self._path.exists(), self._beside("-wal")
        if not here and not log.exists():
            return None
        if not here or self._path.stat().st_size == 0:
            raise DamagedJournal("the file is empty")
        if self._used(0):
            return 0
        with self._path.open("rb") as stream:
            header = stream.read(100)
        if any(header[place : place + len(text)] != text for place, text in _HEADER):
            raise DamagedJournal("the file does not begin as a journal does")
        return _frames_by_index(self._path)

    def _used(self, more: int) -> int:
        place = os.getpid(), str(self._path)
        with _in_use_lock:
            _in_use[place] = _in_use.get(place, 0) + more
            return _in_use[place]

    def _detach(self) -> None:
        db = self.__dict__.pop("_db", None)
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
            self._used(-1)

    # --- use ----------------------------------------------------------------------------------------------------

    def commit(self, jobs: Sequence[JournalTask]) -> bool:
        """All jobs in one transaction, durable when it returns. False: the file was replaced meanwhile, and nothing
        was done."""
        # Not by a context manager: this stands between every write and its primary.
        self._gate.pass_shared()
        try:
            if self._inode() != self.number:
                return False
            self.ledger.commit(jobs)
            self._tidy()
        finally:
            self._gate.release()
        return True

    def _inode(self) -> int | None:
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return None

    def _tidy(self) -> None:
        """Returns free pages to the disk, a few at a time; truncates a log that readers have kept from being
        emptied."""
        now = time.monotonic()
        if now - self._tidied < _TIDY_EVERY:
            return
        self._tidied = now
        with contextlib.suppress(sqlite3.OperationalError, FileNotFoundError):
            if self._db.execute("PRAGMA freelist_count").fetchone()[0] > _FREE_PAGES:
                # Not by `execute`, which stops after the first page: the pragma answers rows without columns.
                self._db.executescript(f"PRAGMA incremental_vacuum({_FREED_AT_ONCE});")
            if self._beside("-wal").stat().st_size > 2 * _LOG_LIMIT:
                # Not while somebody reads, for whom it would wait if it could.
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Ends the connection, and signs the owner off if the file can still be written. Raises nothing."""
        with contextlib.suppress(sqlite3.Error, OSError), self._gate.alone():
            try:
                if self._inode() == self.number:
                    self._db.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
                    self.ledger.leave()
                    self._leave()
            finally:
                self._detach()
        self.abandon()

    def _leave(self) -> None:
        """The last user takes its mark away, for SQLite then does away with the log."""
        if self._users.take(alone=True):
            self._db.execute("DELETE FROM uses")

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._detach()
        self._stack.close()


# --- checks -----------------------------------------------------------------------------------------------------


def _frames(db: sqlite3.Connection) -> int:
    """How many frames of the log SQLite accepts as committed."""
    return int(db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])


def _frames_by_index(path: Path) -> int | None:
    """How many frames the last process knew to be in the log, by the index that it left; 0 if the file has them all.
    Raises `DamagedJournal` for a log without a usable index: nobody can say whether it is whole. Source:
    "WAL-mode File Format", sections 2.1 and 2.2."""
    log = Path(f"{path}-wal")
    try:
        index = Path(f"{path}-shm").read_bytes()[:136]
    except FileNotFoundError:
        index = b""
    if len(index) < 136 or index[:48] != index[48:96] or not index[12]:
        if log.exists() and log.stat().st_size:
            raise DamagedJournal("the write-ahead log came without its index")
        return None
    (last,), (stored,) = struct.unpack("=I", index[16:20]), struct.unpack("=I", index[96:100])
    return last if last > stored else 0


def _check_all(db: sqlite3.Connection, latest: float) -> None:
    """Raises `DamagedJournal` or `sqlite3.Error` unless every page and every entry is as it was written. `latest`: a
    moment (epoch seconds) that no entry can be behind. Takes about two seconds for a million entries."""
    check_schema(db)
    said = db.execute("PRAGMA integrity_check(1)").fetchall()
    if said != [("ok",)]:
        raise DamagedJournal("pages of the journal contradict each other")
    db.create_function("check_of", 2, check_of, deterministic=True)
    wrong = db.execute(
        'SELECT 1 FROM intents WHERE "check" IS NOT check_of(collection, key) UNION ALL '
        'SELECT 1 FROM deferred WHERE "check" IS NOT check_of(collection, key) UNION ALL '
        'SELECT 1 FROM late WHERE "check" IS NOT check_of(collection, key) UNION ALL '
        "SELECT 1 FROM unclean WHERE \"check\" IS NOT check_of(collection, x'') UNION ALL "
        "SELECT 1 FROM (SELECT max(opened) AS at FROM intents UNION ALL SELECT max(since) FROM deferred) WHERE at > ? "
        "LIMIT 1",
        (latest,),
    ).fetchone()
    if wrong:
        raise DamagedJournal("an entry of the journal is not as it was written")
    if _counted(db, "intents") or _counted(db, "deferred"):
        raise DamagedJournal("the journal holds another number of entries than it counted")


def _make_shrinkable(db: sqlite3.Connection) -> None:
    """Files of the first version could only grow."""
    if db.execute("PRAGMA auto_vacuum").fetchone() == (0,):
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")


def _counted(db: sqlite3.Connection, table: str) -> bool:
    """Whether the counts of a table are not those of its rows."""
    rows = db.execute(f"SELECT collection, count(*) FROM {table} GROUP BY collection").fetchall()  # noqa: S608 - two constants
    query = "SELECT collection, number FROM counts WHERE kind = ? AND number <> 0"
    return dict(rows) != dict(db.execute(query, (table,)).fetchall())
