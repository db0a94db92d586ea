"""Recovery: reads what a damaged journal still holds, page by page, and makes a new journal of it.

Why not an empty journal, and every configured collection unverified until it is verified? Promise 2, "no acknowledged
write is lost", would break:

- Collections that the configuration does not name are known from the entries alone. Without these, nothing would say
  that their open writes are missing on the secondary, and no gate would close for them.
- The noted primaries would be gone. A process whose configuration was edited would start with the other store as
  primary and copy its old documents over acknowledged writes; see `routes.startup`.
- An open write reaches the secondary by its entry. Without it, nothing repairs the key before an operator verifies.

SQLite has no other way: its `.recover` is a command of its own shell, and SQL reads no table of a file whose first page
or whose root page is damaged. So nothing here follows a tree: every page of the file and of its write-ahead log is read
by itself, and each cell on it that is a whole row with the right check sum counts. That finds deleted rows that are not
yet overwritten too, which does no harm: a key that is healed once more stays as it is. Source of the formats: the
SQLite documentation, "Database File Format", sections 1.6 (pages), 2.1 (records) and 4.1 (the log).
"""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import bson

from shadow.journal.sqlite.schema import DOUBTS, PAGE_SIZE, check_of, make_schema

__all__ = ["RECOVERED", "Recovery", "finish", "recover", "set_aside"]

RECOVERED: Final = "-salvaged"
"""Beside the journal, the new one until it takes its place. Every version must know it by one name: a second one could
be left behind, and later be put over a journal that is whole."""

_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_LEAF, _INTERIOR = 10, 2
"""Kinds of page that hold the rows of a table without rowid; both kinds hold whole rows."""
_MOST_LOCAL: Final = (PAGE_SIZE - 12) * 64 // 255 - 23
_LEAST_LOCAL: Final = (PAGE_SIZE - 12) * 32 // 255 - 23
_WIDTHS: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_BATCH: Final = 1000

Record = list[Any]


@dataclass(slots=True)
class Recovery:
    """What a damaged file still held: `kept` names the damaged file, `entries` counts keys, `collections` are those of
    the entries and those that were marked before, with the moment (epoch seconds)."""

    kept: Path
    entries: int = 0
    collections: dict[str, float] = field(default_factory=dict)


# --- the files --------------------------------------------------------------------------------------------------


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def set_aside(path: Path) -> Path:
    """Gives the file and its log a second name, under which they are kept for people."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        kept = _beside(path, f".damaged-{moment}" + (f"-{number}" if number else ""))
        if not kept.exists() and not _beside(kept, "-wal").exists():
            break
        number += 1
    for suffix in ("", "-wal"):
        if _beside(path, suffix).exists():
            os.link(_beside(path, suffix), _beside(kept, suffix))
    return kept


def finish(path: Path) -> None:
    """Puts a recovered journal in its place, also one whose maker died before it could. The old log must go first:
    SQLite would else take it for the new file's."""
    recovered = _beside(path, RECOVERED)
    if not recovered.exists():
        return
    for suffix in ("-wal", "-shm"):
        _beside(path, suffix).unlink(missing_ok=True)
    recovered.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def recover(path: Path, kept: Path, collections: Iterable[str], *, limit: float, now: float) -> Recovery:
    """Replaces the damaged journal at `path`, which was set aside as `kept`, by a new one with every entry that could
    be read. `collections`, and those of the entries, become unverified from the beginning, for nobody can say what was
    on a page that is gone. `limit`: seconds after which an operation has certainly ended. The caller keeps
    every other process away.

    Raises OSError and `sqlite3.Error` where the new file cannot be written; the old one is unchanged then.
    """
    found = Recovery(kept)
    making = _beside(path, "-recovering")
    making.unlink(missing_ok=True)
    db = sqlite3.connect(making, isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        make_schema(db)
        db.execute("BEGIN")
        _fill(db, found, set(collections), limit, now)
        found.collections = dict.fromkeys({*found.collections, *collections}, 0.0)
        marks = [(name, since, check_of(name)) for name, since in found.collections.items()]
        db.executemany("INSERT INTO unclean VALUES (?, ?, ?)", marks)
        # A verification that is under way has not seen these.
        drawn = [(DOUBTS, name, random.getrandbits(62)) for name in found.collections]
        db.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?, ?)", drawn)
        found.entries = db.execute("SELECT count(*) FROM deferred").fetchone()[0]
        db.execute("COMMIT")
    finally:
        db.close()
    _sync(making)
    making.replace(_beside(path, RECOVERED))
    finish(path)
    return found


def _fill(db: sqlite3.Connection, found: Recovery, known: Collection[str], limit: float, now: float) -> None:
    """Every entry becomes a deferral that is not settled before its operation must have ended. The generation rises:
    a heal that began before the recovery settles nothing."""
    rows: list[tuple[Any, ...]] = []
    primaries: set[tuple[str, str]] = set()
    for record in _records(found.kept):
        match record:
            case [str(name), ("mongo" | "dynamo") as primary] if name in known:
                primaries.add((name, primary))
            case [str(name), float(_), int(check)] if check == check_of(name):
                found.collections[name] = 0.0
            case _ if (row := _deferral(record, known, limit, now)) is not None:
                found.collections[row[0]] = 0.0
                rows.append(row)
        if len(rows) >= _BATCH:
            _put(db, rows)
            rows = []
    _put(db, rows)
    # A page that was freed may hold a primary of before a flip: where two are found, neither counts.
    named = [name for name, _ in primaries]
    sure = [each for each in primaries if named.count(each[0]) == 1]
    db.executemany("INSERT INTO primaries VALUES (?, ?)", sure)


def _put(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    db.executemany(
        "INSERT INTO deferred VALUES (?, ?, ?, ?, 0, ?, ?, ?) ON CONFLICT DO UPDATE SET since = min(since, "
        "excluded.since), next_try = min(next_try, excluded.next_try), generation = max(generation, "
        "excluded.generation), settle_after = max(settle_after, excluded.settle_after)",
        rows,
    )


def _deferral(record: Record, known: Collection[str], limit: float, now: float) -> tuple[Any, ...] | None:
    """The record of a key as a row to defer; None if it is no such record, or not certain. Records of an
    index, and those of version 1, have no check sum: they count for the collections that are `known`."""
    sure = False
    generation, settle_after = 0.0, now + limit
    match record:
        case [str(_), str(name), bytes(key), float(since), str(_), int(check)]:
            settle_after, sure = since + limit, check == check_of(name, key)
        case [str(name), bytes(key), float(generation), float(since), float(_), float(_), float(last), int(check)]:
            settle_after, sure = last, check == check_of(name, key)
        case [str(_), str(name), bytes(key), float(since), str(_)]:
            settle_after = since + limit
        case [str(name), bytes(key), float(generation), float(since), float(_), float(_), int(settle_after)]:
            pass
        case [float(since), str(name), bytes(key)]:
            pass
        case [str(name), bytes(key), str(_)]:
            since = now
        case _:
            return None
    if (len(record) in (6, 8) and not sure) or (not sure and name not in known) or not _is_key(key):
        return None
    since = min(since, now)
    return name, key, max(0, int(generation)) + 1, since, since, min(settle_after, now + limit), check_of(name, key)


def _is_key(blob: bytes) -> bool:
    try:
        return list(bson.decode(blob)) == [""]
    except Exception:  # whatever the bytes are, they are no key
        return False


# --- pages and records ------------------------------------------------------------------------------------------


class _FilePages:
    """The pages of a file and of its log, by number; of a page with several versions, the latest of the log."""

    def __init__(self, path: Path) -> None:
        self._files = [each for each in (path, _beside(path, "-wal")) if each.exists()]
        self._main = path
        self._latest: dict[int, tuple[Path, int]] = {}
        for file, offset, number in self._places():
            self._latest[number] = file, offset

    def _places(self) -> Iterator[tuple[Path, int, int]]:
        for file in self._files:
            with file.open("rb") as stream:
                size = file.stat().st_size
                if file == self._main:
                    for offset in range(0, size, PAGE_SIZE):
                        yield file, offset, offset // PAGE_SIZE + 1
                    continue
                for offset in range(_LOG_HEADER, size, _FRAME_HEADER + PAGE_SIZE):
                    stream.seek(offset)
                    head = stream.read(4)
                    if len(head) == 4:
                        yield file, offset + _FRAME_HEADER, struct.unpack(">I", head)[0]

    def __iter__(self) -> Iterator[bytes]:
        """Every page of every version; a truncated one is padded with zeros."""
        streams = {file: file.open("rb") for file in self._files}
        try:
            for file, offset, _ in self._places():
                streams[file].seek(offset)
                yield streams[file].read(PAGE_SIZE).ljust(PAGE_SIZE, b"\0")
        finally:
            for stream in streams.values():
                stream.close()

    def page(self, number: int) -> bytes:
        if number not in self._latest:
            return b""
        file, offset = self._latest[number]
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(PAGE_SIZE)


def _records(path: Path) -> Iterator[Record]:
    pages = _FilePages(path)
    for page in pages:
        if page[0] not in (_LEAF, _INTERIOR):
            continue
        start, child = (8, 0) if page[0] == _LEAF else (12, 4)
        count = min(int.from_bytes(page[3:5], "big"), (PAGE_SIZE - start) // 2)
        for (place,) in struct.iter_unpack(">H", page[start : start + 2 * count]):
            try:
                yield _record(_payload(pages, page, place + child))
            except (IndexError, ValueError, struct.error):
                continue


def _payload(pages: _FilePages, page: bytes, place: int) -> bytes:
    """The bytes of the cell's record, with those on overflow pages."""
    size, place = _varint(page, place)
    if size <= _MOST_LOCAL:
        return page[place : place + size]
    room = PAGE_SIZE - 4
    local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % room
    if local > _MOST_LOCAL:
        local = _LEAST_LOCAL
    parts, left = [page[place : place + local]], size - local
    following = int.from_bytes(page[place + local : place + local + 4], "big")
    while left > 0:
        more = pages.page(following)
        if len(more) < 4:
            raise ValueError("an overflow page is gone")
        parts.append(more[4 : 4 + min(left, room)])
        left -= room
        following = int.from_bytes(more[:4], "big")
    return b"".join(parts)


def _record(payload: bytes) -> Record:
    """The values of a record: int only where SQLite keeps a check sum or a flag, for whole REALs are kept as integers
    too: every number is a float here but the last one."""
    size, place = _varint(payload, 0)
    kinds: list[int] = []
    while place < size:
        kind, place = _varint(payload, place)
        kinds.append(kind)
    values: Record = []
    place = size
    for kind in kinds:
        width = _WIDTHS[kind] if kind < len(_WIDTHS) else (kind - 12) // 2
        values.append(_value(kind, payload[place : place + width], width))
        place += width
    if values and isinstance(values[-1], float):
        values[-1] = int(values[-1])
    return values


def _value(kind: int, raw: bytes, width: int) -> str | bytes | float | None:
    if len(raw) != width or kind in (10, 11):
        raise ValueError("truncated")
    if kind == 0:
        return None
    if kind < 7:
        return float(int.from_bytes(raw, "big", signed=True))
    if kind < 10:
        return float(struct.unpack(">d", raw)[0]) if kind == 7 else float(kind - 8)
    return raw.decode() if kind % 2 else raw


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of one to nine bytes, and the place behind it."""
    value = 0
    for at in range(place, place + 8):
        value = value << 7 | data[at] & 0x7F
        if data[at] < 0x80:
            return value, at + 1
    return value << 8 | data[place + 8], place + 9
