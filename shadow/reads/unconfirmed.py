"""Unconfirmed mismatches: documents that differ and are not confirmed yet, and since when each has not changed.

Kept in a file beside the journal, they survive a restart and are shared by the processes of a host: another process
continues what one has begun. A new write starts the clock again, for it changes the document.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import bson

from shadow.model.order import key_digest
from shadow.model.values import CANONICAL
from shadow.model.version import Key
from shadow.observe.mismatch_file import MismatchFile

__all__ = ["MemoryUnconfirmed", "SharedUnconfirmed", "Unconfirmed", "UnconfirmedMismatches"]

MOST: Final = 10_000
"""Rows that are kept; of more, those not probed for the longest are dropped. They come back with the next read."""

LONGEST: Final = 3600.0
"""Seconds after which an unconfirmed mismatch is dropped if no probe could decide it."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A document that differs, as far as a probe could see."""

    collection: str
    key: Key


class UnconfirmedMismatches(Protocol):
    """Where unconfirmed mismatches are kept between two probes."""

    async def note(self, collection: str, key: Key, standing: str) -> float:
        """A probe saw the document differ, in the state that `standing` names. Returns for how many seconds it has been
        seen in that state: 0.0 at first, and again after it has changed."""

    async def clear(self, collection: str, key: Key) -> None:
        """It is decided, and no longer kept."""

    async def left(self, idle: float, limit: int) -> list[Unconfirmed]:
        """Up to `limit` of them that nobody has probed for `idle` seconds; they count as probed from now on."""

    async def count(self) -> int: ...


@dataclass(slots=True)
class _MismatchRow:
    key: Key
    standing: str
    since: float
    seen: float


class MemoryUnconfirmed:
    """For one process, for as long as it lives."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._rows: OrderedDict[tuple[str, str], _MismatchRow] = OrderedDict()

    async def note(self, collection: str, key: Key, standing: str) -> float:
        now, place = self._now(), (collection, key_digest(key))
        row = self._rows.pop(place, None)
        if row is None or row.standing != standing:
            row = _MismatchRow(key, standing, now, now)
        row.seen = now
        self._rows[place] = row
        if len(self._rows) > MOST:
            self._rows.popitem(last=False)
        return now - row.since

    async def clear(self, collection: str, key: Key) -> None:
        self._rows.pop((collection, key_digest(key)), None)

    async def left(self, idle: float, limit: int) -> list[Unconfirmed]:
        now = self._now()
        for place in [place for place, row in self._rows.items() if now - row.since > LONGEST]:
            del self._rows[place]
        waiting = [(place, row) for place, row in self._rows.items() if now - row.seen >= idle][:limit]
        for _, row in waiting:
            row.seen = now
        return [Unconfirmed(place[0], row.key) for place, row in waiting]

    async def count(self) -> int:
        return len(self._rows)


_NOTE: Final = """
INSERT INTO unconfirmed VALUES (:collection, :digest, :key, :standing, :now, :now)
ON CONFLICT (collection, digest) DO UPDATE SET
    since = CASE WHEN standing = excluded.standing AND since <= excluded.since THEN since ELSE excluded.since END,
    standing = excluded.standing, seen = excluded.seen
RETURNING since
"""


class SharedUnconfirmed:
    """In the `MismatchFile`, for all processes of a host, by the file's clock.

    If the file cannot be used, only the memory over a restart is lost: they are then kept in this process, and `fault`
    says why. The file is used in threads.
    """

    def __init__(self, file: MismatchFile) -> None:
        self.fault = ""
        self._file = file
        self._memory = MemoryUnconfirmed(now=file.now)

    async def note(self, collection: str, key: Key, standing: str) -> float:
        now = self._file.now()
        row = {
            "collection": collection,
            "digest": key_digest(key),
            "key": bson.encode({"": key}),
            "standing": standing,
            "now": now,
        }

        def work(db: sqlite3.Connection) -> float:
            (since,) = db.execute(_NOTE, row).fetchone()
            return max(0.0, now - float(since))

        known = await self._do(work)
        return await self._memory.note(collection, key, standing) if known is None else float(known)

    async def clear(self, collection: str, key: Key) -> None:
        place = (collection, key_digest(key))
        statement = "DELETE FROM unconfirmed WHERE collection = ? AND digest = ?"
        await self._memory.clear(collection, key)
        await self._do(lambda db: db.execute(statement, place).rowcount)

    async def left(self, idle: float, limit: int) -> list[Unconfirmed]:
        now = self._file.now()

        def work(db: sqlite3.Connection) -> list[Unconfirmed]:
            db.execute("DELETE FROM unconfirmed WHERE since < ?", (now - LONGEST,))
            rows = db.execute(
                "UPDATE unconfirmed SET seen = ? WHERE (collection, digest) IN "
                "(SELECT collection, digest FROM unconfirmed WHERE seen <= ? ORDER BY seen LIMIT ?) "
                "RETURNING collection, key",
                (now, now - idle, limit),
            ).fetchall()
            (count,) = db.execute("SELECT count(*) FROM unconfirmed").fetchone()
            if count > MOST:
                oldest = "SELECT collection, digest FROM unconfirmed ORDER BY seen LIMIT ?"
                db.execute(f"DELETE FROM unconfirmed WHERE (collection, digest) IN ({oldest})", (count - MOST,))  # noqa: S608
            return [Unconfirmed(name, bson.decode(key, codec_options=CANONICAL)[""]) for name, key in rows]

        found = await self._do(work)
        return await self._memory.left(idle, limit) if found is None else list(found)

    async def count(self) -> int:
        found = await self._do(lambda db: db.execute("SELECT count(*) FROM unconfirmed").fetchone()[0])
        return await self._memory.count() if found is None else int(found)

    def shut(self) -> None:
        """Closes the file; the next use opens it again."""
        self._file.close()

    async def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """What `work` gives, or None if the file cannot be used."""
        return await asyncio.to_thread(self._in_turn, work)

    def _in_turn(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            with self._file.transaction() as db:
                found = work(db)
        except (sqlite3.Error, OSError) as error:
            self.fault = type(error).__name__
            return None
        self.fault = ""
        return found
