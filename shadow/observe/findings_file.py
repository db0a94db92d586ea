"""The findings of all processes of a host, in the `MismatchFile` beside the journal.

Each process keeps its own in memory and writes new ones to the file about once a second, so a crash loses at most the
last second of them: a difference that persists is found again by the next read of it. Like the journal, the file
contains the keys of documents (a repair needs them) and never another value; only its owner may read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import bson

from shadow.model.values import CANONICAL
from shadow.model.verdict import Kind
from shadow.model.version import Key
from shadow.observe.findings import ELSEWHERE, Findings, Note, Open, is_of_answer, path_pattern
from shadow.observe.mismatch_file import MismatchFile

__all__ = ["FindingsFile", "SharedFindings", "shared_secret"]

_T = TypeVar("_T")

_GROUP: Final = """
INSERT INTO groups (collection, kind, path, first_seen, last_seen, count) VALUES (?, ?, ?, ?, ?, 1)
ON CONFLICT (collection, kind, path) DO UPDATE SET
    first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen), count = count + 1
"""

_TOO_MANY: Final = """
DELETE FROM findings WHERE id NOT IN (SELECT id FROM findings ORDER BY first_seen LIMIT ?)
    AND id NOT IN (SELECT id FROM findings ORDER BY last_seen DESC LIMIT ?)
"""


def shared_secret(path: Path) -> bytes:
    """The secret of a host's keyed hashes: created in the file at the first call, the same for every later process, so
    that hashes and ids of findings match across workers and restarts. Raises OSError."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not named by the pid: containers may share pids, and would write into each other's file.
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32))
        # A link appears completely or not at all, and only one process creates it.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()


class FindingsFile:
    """Reads and writes the findings of the file. Every method blocks and raises `sqlite3.Error` or OSError; safe to
    use from threads.

    `limit` findings are kept, half of them the oldest and the others the newest, and `groups` groups.
    """

    def __init__(self, file: MismatchFile, *, limit: int = 1000, groups: int = 500, reveal_keys: bool = False) -> None:
        self._file = file
        self._limit = max(2, limit)
        self._groups = groups
        self._reveal = reveal_keys
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        return self._file.path

    def save(self, findings: Findings) -> int:
        """Writes the new entries of `findings`, in one transaction; returns the number of notes. If they cannot be
        written, they are kept for the next time."""
        with self._lock:
            # In this order: a document that is found after its repair differs again.
            level, notes = findings.take_level(), findings.take_notes()
            if level or notes:
                try:
                    with self._file.transaction() as db:
                        db.execute("BEGIN IMMEDIATE")
                        self._heal(db, self._open_among(db, level))
                        self._write(db, notes)
                except BaseException:
                    findings.put_back_level(level)
                    findings.put_back(notes)
                    raise
        return len(notes)

    def list(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        path: str | None = None,
        healed: bool | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """As `Findings.list`, of every process."""
        wanted = None if path is None else path_pattern(path)
        found = []
        with self._file.transaction() as db:
            for row, key in db.execute("SELECT row, key FROM findings ORDER BY last_seen DESC"):
                shown = self._shown(row, key)
                if (
                    collection in (None, shown["collection"])
                    and kind in (None, shown["kind"])
                    and healed in (None, shown["healed"])
                    and (wanted is None or wanted in {path_pattern(each["path"]) for each in shown["differences"]})
                ):
                    found.append(shown)
                if len(found) >= limit:
                    break
        return found

    def get(self, id: str) -> dict[str, Any] | None:
        """One finding, JSON-able."""
        with self._file.transaction() as db:
            found = db.execute("SELECT row, key FROM findings WHERE id = ?", (id,)).fetchone()
        return None if found is None else self._shown(*found)

    def key_of(self, id: str) -> tuple[str, Key] | None:
        """Collection and key; None if it is gone or is about a whole result."""
        with self._file.transaction() as db:
            found = db.execute("SELECT collection, key FROM findings WHERE id = ?", (id,)).fetchone()
        return None if found is None or found[1] is None else (found[0], _key(found[1]))

    def open(self, collection: str) -> Sequence[Open]:
        """As `Findings.open`, of every process."""
        with self._file.transaction() as db:
            rows = db.execute(
                "SELECT id, key, row FROM findings WHERE NOT healed AND collection = ?", (collection,)
            ).fetchall()
        found = [(id, key, json.loads(row)) for id, key, row in rows]
        return [
            Open(
                id,
                collection,
                None if key is None else _key(key),
                is_of_answer(key is None, row),
                Kind(row["kind"]),
                row["count"],
            )
            for id, key, row in found
        ]

    def close(self, found: Iterable[Open]) -> Sequence[str]:
        """As `Findings.close`, of every process; returns the ids of those that were closed."""
        with self._file.transaction() as db:
            db.execute("BEGIN IMMEDIATE")
            counts = {each.id: each.count for each in found}
            still = [each for each in self._open_among(db, counts) if json.loads(each[1])["count"] == counts[each[0]]]
            self._heal(db, still)
        return [id for id, _ in still]

    def groups(self) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        """As `Findings.groups`, of every process."""
        names = ("collection", "kind", "path", "first_seen", "last_seen", "count")
        with self._file.transaction() as db:
            rows = db.execute("SELECT * FROM groups ORDER BY count DESC").fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def open_by_collection(self) -> dict[str, int]:
        """As `Findings.open_by_collection`, of every process."""
        with self._file.transaction() as db:
            return dict(db.execute("SELECT collection, count(*) FROM findings WHERE NOT healed GROUP BY collection"))

    def summary(self) -> dict[str, int]:
        """As `Findings.summary`, of every process."""
        with self._file.transaction() as db:
            kept, healed = db.execute("SELECT count(*), coalesce(sum(healed), 0) FROM findings").fetchone()
            sums = dict(db.execute("SELECT name, value FROM sums"))
        return {"seen": sums.get("seen", 0), "kept": kept, "open": kept - healed, "dropped": sums.get("dropped", 0)}

    # --- inside -------------------------------------------------------------------------------------------------

    def _write(self, db: sqlite3.Connection, notes: Sequence[Note]) -> None:
        groups = {tuple(row) for row in db.execute("SELECT collection, kind, path FROM groups")}
        for note in notes:
            self._keep(db, note)
            if note.row is not None:
                self._count(db, note, groups)
        dropped = db.execute(_TOO_MANY, (self._limit // 2, self._limit - self._limit // 2)).rowcount
        seen = sum(note.row is not None for note in notes)
        for name, value in (("seen", seen), ("dropped", dropped)):
            db.execute(
                "INSERT INTO sums VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, value),
            )

    @staticmethod
    def _open_among(db: sqlite3.Connection, ids: Collection[str]) -> Sequence[tuple[str, str]]:
        """(id, row) of the open ones among these; few are open."""
        if not ids:
            return []
        wanted = set(ids)
        return [each for each in db.execute("SELECT id, row FROM findings WHERE NOT healed") if each[0] in wanted]

    @staticmethod
    def _heal(db: sqlite3.Connection, found: Iterable[tuple[str, str]]) -> None:
        for id, row in found:
            healed = json.dumps({**json.loads(row), "healed": True})
            db.execute("UPDATE findings SET healed = 1, row = ? WHERE id = ?", (healed, id))

    def _keep(self, db: sqlite3.Connection, note: Note) -> None:
        known = db.execute("SELECT row FROM findings WHERE id = ?", (note.id,)).fetchone()
        before = json.loads(known[0]) if known else None
        row = _merged(before, note)
        if row is not None:
            key = None if note.whole_answer else bson.encode({"key": note.key}, codec_options=CANONICAL)
            db.execute(
                "INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    note.id,
                    row["collection"],
                    key,
                    row["first_seen"],
                    row["last_seen"],
                    int(row["healed"]),
                    json.dumps(row),
                ),
            )

    def _count(self, db: sqlite3.Connection, note: Note, groups: set[tuple[Any, ...]]) -> None:
        for kind, path in note.places:
            name = (note.collection, kind.value, path)
            if name not in groups and len(groups) >= self._groups:
                name = (note.collection, kind.value, ELSEWHERE)
            groups.add(name)
            db.execute(_GROUP, (*name, note.at, note.at))

    def _shown(self, text: str, key: bytes | None) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(text)
        if self._reveal and key is not None:
            row["key"] = str(_key(key))
        return row


def _key(data: bytes) -> Key:
    return bson.decode(data, codec_options=CANONICAL)["key"]


def _merged(before: dict[str, Any] | None, note: Note) -> dict[str, Any] | None:
    """The row of a finding after a note; None: a repair without a finding."""
    if note.row is None:
        return None if before is None else {**before, "healed": True}
    row = {name: value for name, value in note.row.items() if name != "key"}
    if before is not None:
        row["first_seen"] = min(row["first_seen"], before["first_seen"])
        row["first_trace"] = before.get("first_trace", "") or row["first_trace"]
        row["count"] = before["count"] + 1
        row["verbs"] = _with_one(before["verbs"], note.verb)
    else:
        row["count"], row["verbs"] = 1, {note.verb: 1}
    return row


def _with_one(counts: Mapping[str, int], name: str) -> dict[str, int]:
    return {**counts, name: counts.get(name, 0) + 1}


class SharedFindings:
    """The findings that a process shows: those of the file, including its own; without a usable file, only its own.
    `on_error` is called with the reason."""

    def __init__(self, own: Findings, file: FindingsFile | None, on_error: Callable[[Exception], None]) -> None:
        self.own = own
        self._file = file
        self._on_error = on_error

    @property
    def place(self) -> str:
        """Host and file where they are stored; host and process, without a file."""
        where = f"process {os.getpid()}" if self._file is None else str(self._file.path.absolute())
        return f"{socket.gethostname()}: {where}"

    async def save(self) -> None:
        """Writes new entries. Never raises; entries that cannot be written wait."""
        await self._ask(lambda file: None, lambda: None)

    async def list(self, **wanted: Any) -> list[dict[str, Any]]:
        """As `Findings.list`."""
        return await self._ask(lambda file: file.list(**wanted), lambda: self.own.list(**wanted))

    async def get(self, id: str) -> dict[str, Any] | None:
        return await self._ask(lambda file: file.get(id), lambda: self.own.get(id))

    async def key_of(self, id: str) -> tuple[str, Key] | None:
        return await self._ask(lambda file: file.key_of(id), lambda: self.own.key_of(id))

    async def open(self, collection: str) -> Sequence[Open]:
        """As `Findings.open`."""
        return await self._ask(lambda file: file.open(collection), lambda: self.own.open(collection))

    async def close(self, found: Collection[Open]) -> int:
        """As `Findings.close`."""

        def closed(file: FindingsFile) -> int:
            ids = file.close(found)
            self.own.closed_elsewhere(ids)
            return len(ids)

        return await self._ask(closed, lambda: self.own.close(found))

    async def groups(self) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        return await self._ask(lambda file: file.groups(), self.own.groups)

    async def summary(self) -> dict[str, int]:
        return await self._ask(lambda file: file.summary(), self.own.summary)

    async def open_by_collection(self) -> dict[str, int]:
        return await self._ask(lambda file: file.open_by_collection(), self.own.open_by_collection)

    async def _ask(self, shared: Callable[[FindingsFile], _T], own: Callable[[], _T]) -> _T:
        file = self._file
        if file is None:
            return own()

        def work() -> _T:
            file.save(self.own)
            return shared(file)

        try:
            return await asyncio.to_thread(work)
        except (sqlite3.Error, OSError) as error:
            self._on_error(error)
            return own()
