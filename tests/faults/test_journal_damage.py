"""A damaged journal: what can be read is kept, and what may be gone is said to be in doubt.

The damage is done as a disk or a copy does it: bytes flipped, pages zeroed, the file or its log cut or gone, while the
process that wrote it is dead. Whatever it was, each key that was open is still open, or its collection wants to be
verified; the application hears of nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import bson
import pytest
from bson import ObjectId

from shadow.errors import JournalError
from shadow.host.process import this_process
from shadow.journal.base import Entry, JournalStats
from shadow.journal.sqlite.file import FileSettings, JournalFile
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.journal.sqlite.recovery import Recovery
from shadow.journal.sqlite.schema import APPLICATION, VERSION

COLLECTIONS: Final = ("users", "documents", "notes")
OPEN: Final = 210
ROUNDS: Final = 4000 if os.environ.get("SHADOW_LONG") == "1" else 20

Keys = set[tuple[str, Any]]


def key(number: int) -> Any:
    """Keys of several types and sizes; some need pages of their own."""
    match number % 7:
        case 0:
            return f"{number:06d}" + "k" * 3000
        case 1:
            return {"tenant": number, "name": "x" * (number % 50)}
        case 2:
            return number
        case _:
            return ObjectId(f"{number:024x}")


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Keys]:
    """A journal as a killed process leaves it: file, log and index, with intents and deferrals; and what is open."""
    folder = tmp_path_factory.mktemp("journal")
    journal = SqliteJournal(FileSettings(folder / "live" / "shadow.db", collections=COLLECTIONS))
    asyncio.run(_fill(journal, OPEN))
    copy = folder / "killed"
    shutil.copytree(folder / "live", copy)
    keys = {(COLLECTIONS[n % 3], repr(key(n))) for n in range(OPEN) if n % 5}
    journal.shut()
    return copy, keys


async def _fill(journal: SqliteJournal, count: int) -> None:
    """One key in five is closed, two are deferred. The first half is in the file, the rest in its log."""
    for n in range(count):
        await journal.open([Entry(f"op{n:022d}", COLLECTIONS[n % 3], key(n))])
        if n % 5 == 0:
            journal.close(f"op{n:022d}")
        elif n % 5 < 3:
            journal.defer(f"op{n:022d}", unknown=n % 2 == 0)
        if n == count // 2:
            await journal.flush()
            with sqlite3.connect(journal.path) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            db.close()
    await journal.flush()


async def look(path: Path, found: list[Recovery] | None = None) -> tuple[Keys, JournalStats]:
    """What the next process finds, far in the future, when all is due."""
    told = [] if found is None else found
    journal = SqliteJournal(FileSettings(path, collections=COLLECTIONS, on_damage=told.append, now=lambda: 4e9))
    try:
        keys: Keys = set()
        while batch := await journal.due(500, lease=1e6):
            keys |= {(each.collection, repr(each.key)) for each in batch}
        return keys, await journal.stats()
    finally:
        journal.shut()


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 20))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_header(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(min(100, len(data)))] ^= rng.randrange(1, 256)


def zero(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data)) & ~0xFFF
    data[place : place + 4096] = bytes(min(4096, len(data) - place))


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def scramble(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    data[place : place + 600] = rng.randbytes(min(600, len(data) - place))


def replace(data: bytearray, rng: random.Random) -> None:
    data[:] = b"this is no database at all\n" * 50


DAMAGES: Final[dict[str, Callable[[bytearray, random.Random], None]]] = {
    each.__name__: each for each in (flip, flip_header, zero, cut, scramble, replace)
}


def damage(folder: Path, seed: int) -> str:
    """Draws a fault and does it to the file, its log, or both. What was done, in words."""
    rng = random.Random(seed)
    done = []
    for suffix in rng.choice(([""], ["-wal"], ["", "-wal"])):
        name = rng.choice([*DAMAGES, "flip", "cut", "gone"] if suffix else list(DAMAGES))
        file = folder / f"shadow.db{suffix}"
        if name == "gone":
            file.unlink()
        else:
            data = bytearray(file.read_bytes())
            DAMAGES[name](data, rng)
            file.write_bytes(data)
        done.append(f"{name} {file.name}")
    if rng.random() < 0.2:
        (folder / "shadow.db-shm").unlink(missing_ok=True)
        done.append("gone shadow.db-shm")
    return ", ".join(done)


@pytest.mark.takes_turns
@pytest.mark.timeout(300 + ROUNDS)
async def test_whatever_the_damage_each_key_is_open_or_its_collection_in_doubt(
    left_behind: tuple[Path, Keys], tmp_path: Path
) -> None:
    origin, keys = left_behind
    recovered = 0
    for seed in range(ROUNDS):
        folder = tmp_path / str(seed)
        shutil.copytree(origin, folder)
        what = damage(folder, seed)
        told: list[Recovery] = []
        found, stats = await look(folder / "shadow.db", told)
        lost = {name for name, each in keys - found if name not in stats.unclean}
        assert not lost, f"seed {seed}: {what}: entries of {lost} are gone, and nothing says so"
        assert all(each.kept.exists() or each.kept.with_name(each.kept.name + "-wal").exists() for each in told)
        recovered += bool(told)
        shutil.rmtree(folder)
    assert recovered > ROUNDS / 2


# --- what the file can be besides damaged ---------------------------------------------------------------------------


async def test_every_entry_that_the_damage_spared_is_kept_and_the_rest_named(
    left_behind: tuple[Path, Keys], tmp_path: Path
) -> None:
    origin, keys = left_behind
    folder = tmp_path / "one"
    shutil.copytree(origin, folder)
    path = folder / "shadow.db"
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    told: list[Recovery] = []
    found, stats = await look(path, told)
    assert found >= keys, "the first page holds no entry; SQLite alone could not have opened the file at all"
    assert stats.unclean == dict.fromkeys(COLLECTIONS, 0.0)
    (recovered,) = told
    assert recovered.kept.read_bytes()[:4096] == b"\xff" * 4096, "the damaged file is kept as it was"
    assert recovered.kept.name.startswith("shadow.db.damaged-20")
    assert recovered.entries >= len(keys)


async def test_collections_and_primaries_that_only_the_damaged_file_names_are_kept(tmp_path: Path) -> None:
    """An empty journal in its place would lose both: no gate would close for a collection that the configuration does
    not name, and a process whose configuration was edited would start with the wrong primary."""
    path = tmp_path / "shadow.db"
    journal = SqliteJournal(FileSettings(path, collections=["users"]))
    await journal.primaries({"users": "dynamo"})
    await journal.open([Entry("op1", "users", 1), Entry("op2", "unnamed", 2)])
    journal.defer("op2")
    await journal.flush()
    shutil.copytree(tmp_path, tmp_path / "killed")
    journal.shut()
    path = tmp_path / "killed" / "shadow.db"
    data = bytearray(path.read_bytes())
    data[:4096] = bytes(4096)
    path.write_bytes(data)
    told: list[Recovery] = []
    after = SqliteJournal(FileSettings(path, collections=["users"], on_damage=told.append))
    try:
        assert (await after.stats()).unclean.keys() == {"users", "unnamed"}
        assert await after.has_open("users", 1)
        assert await after.has_open("unnamed", 2)
        assert await after.primaries({"users": "mongo"}) == {"users": "dynamo"}
    finally:
        after.shut()
    assert len(told) == 1


async def test_a_journal_that_is_whole_is_left_as_it_is(left_behind: tuple[Path, Keys], tmp_path: Path) -> None:
    origin, keys = left_behind
    folder = tmp_path / "one"
    shutil.copytree(origin, folder)
    told: list[Recovery] = []
    found, stats = await look(folder / "shadow.db", told)
    assert (found, told, stats.unclean) == (keys, [], {})
    found, stats = await look(folder / "shadow.db", told)
    assert (told, stats.unclean) == ([], {}), "nor after a clean end"


async def test_several_that_open_it_at_once_recover_it_once(left_behind: tuple[Path, Keys], tmp_path: Path) -> None:
    folder = tmp_path / "one"
    shutil.copytree(left_behind[0], folder)
    path = folder / "shadow.db"
    path.write_bytes(path.read_bytes()[:5000])
    told: list[Recovery] = []
    settings = FileSettings(path, collections=COLLECTIONS, on_damage=told.append)
    opened: list[JournalFile] = []
    threads = [threading.Thread(target=lambda: opened.append(JournalFile(settings, this_process()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert len(opened) == 8
    assert len(told) == 1
    assert len({each.number for each in opened}) == 1, "all have the new file"
    for each in opened:
        each.close()


async def test_damage_that_comes_while_it_is_in_use_is_not_felt(tmp_path: Path) -> None:
    """Two processes use it; one finds the damage. Both go on with the new file, and nothing is written to the old."""
    path = tmp_path / "shadow.db"
    told: list[Recovery] = []
    journal, other = (
        SqliteJournal(FileSettings(path, collections=COLLECTIONS, on_damage=told.append)) for _ in range(2)
    )
    try:
        await _fill(journal, 210)
        await other.open([Entry("other", "users", "other")])
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        with path.open("r+b") as file:
            file.seek(4096 * 3)
            file.write(b"\xff" * (path.stat().st_size - 4096 * 3))
        for n in range(1000, 1100):
            await journal.open([Entry(f"new{n}", "users", n)])
            await other.open([Entry(f"more{n}", "notes", n)])
            found = await journal.due(10, lease=1.0)
            assert len(found) <= 10
        assert len(told) == 1
        stats = await other.stats()
        assert stats.unclean.keys() >= set(COLLECTIONS)
        assert await other.has_open("users", 1050)
        assert await journal.has_open("notes", 1050)
    finally:
        journal.shut()
        other.shut()


def _version_1(path: Path) -> None:
    """The tables of the first version, with an intent and a deferral."""
    with sqlite3.connect(path) as db:
        db.executescript(
            """
            PRAGMA journal_mode = WAL;
            CREATE TABLE owners (
                id TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL
            ) WITHOUT ROWID;
            CREATE TABLE written (
                owner TEXT NOT NULL, collection TEXT NOT NULL, PRIMARY KEY (owner, collection)
            ) WITHOUT ROWID;
            CREATE TABLE unclean (collection TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
            CREATE TABLE intents (
                op_id TEXT PRIMARY KEY, collection TEXT NOT NULL, key BLOB NOT NULL, opened REAL NOT NULL,
                owner TEXT NOT NULL
            ) WITHOUT ROWID;
            CREATE INDEX intents_by_key ON intents (collection, key);
            CREATE TABLE deferred (
                collection TEXT NOT NULL, key BLOB NOT NULL, generation INTEGER NOT NULL, since REAL NOT NULL,
                attempts INTEGER NOT NULL, next_try REAL NOT NULL, settle_after REAL NOT NULL,
                PRIMARY KEY (collection, key)
            ) WITHOUT ROWID;
            CREATE INDEX deferred_by_turn ON deferred (next_try, since);
            """
        )
        db.execute("INSERT INTO intents VALUES ('op', 'users', ?, 5.0, 'gone')", (bson.encode({"": "intent"}),))
        db.execute("INSERT INTO deferred VALUES ('users', ?, 3, 4.0, 2, 0.0, 0.0)", (bson.encode({"": "deferred"}),))
        db.execute("INSERT INTO unclean VALUES ('notes', 3.0)")
    db.close()


async def test_an_older_version_is_brought_up_with_all_that_it_holds(tmp_path: Path) -> None:
    _version_1(tmp_path / "shadow.db")
    told: list[Recovery] = []
    found, stats = await look(tmp_path / "shadow.db", told)
    assert found == {("users", "'intent'"), ("users", "'deferred'")}
    assert stats.unclean == {"notes": 3.0}
    assert told == []
    with sqlite3.connect(tmp_path / "shadow.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)


async def test_version_2_is_brought_up_with_all_that_it_holds(tmp_path: Path) -> None:
    """It knew nothing of keys that the secondary refuses."""
    path = tmp_path / "shadow.db"
    journal = SqliteJournal(FileSettings(path, collections=COLLECTIONS))
    await journal.open([Entry("op", "users", "deferred"), Entry("op2", "users", "intent")])
    journal.defer("op")
    await journal.flush()
    journal.shut()
    with sqlite3.connect(path) as db:
        db.executescript(
            f"DROP TRIGGER deferred_settled; DROP TABLE refused;"
            f"PRAGMA application_id = {APPLICATION + 2}; PRAGMA user_version = 2;"
        )
    db.close()
    told: list[Recovery] = []
    found, stats = await look(path, told)
    assert found == {("users", "'intent'"), ("users", "'deferred'")}
    assert (stats.refused_by_collection, told) == ({}, [])
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    db.close()


async def refusal(path: Path, match: str) -> None:
    before = path.read_bytes()
    journal = SqliteJournal(FileSettings(path, collections=COLLECTIONS))
    try:
        with pytest.raises(JournalError, match=match):
            await journal.open([Entry("op", "users", 1)])
    finally:
        journal.shut()
    assert path.read_bytes() == before, "it is untouched"


async def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shadow.db"
    await look(path)
    with sqlite3.connect(path) as db:
        db.executescript(f"PRAGMA user_version = 9; PRAGMA application_id = {APPLICATION + 9};")
    db.close()
    await refusal(path, f"version 9; this program knows versions up to {VERSION}")


async def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shadow.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE invoices (number INTEGER)")
    db.close()
    await refusal(path, "something else")


_AS_NOBODY: Final = """
import asyncio, os, sys
from pathlib import Path
from shadow.errors import JournalError
from shadow.journal.base import Entry
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal

async def run():
    path = Path(sys.argv[1])
    journal = SqliteJournal(FileSettings(path, collections=["users"], on_damage=lambda found: print("damaged")))
    try:
        await journal.open([Entry("op", "users", 1)])
        print("opened")
    except JournalError as error:
        print("refused", error.hint)
    journal.shut()

if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(run())
"""


async def test_a_file_of_another_user_is_refused_with_a_hint_and_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "shadow.db"
    await look(path)
    for each in tmp_path.iterdir():
        each.chmod(0o444)
    tmp_path.chmod(0o555)
    for folder in tmp_path.parents[:2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    try:
        run = subprocess.run([sys.executable, "-c", _AS_NOBODY, str(path)], capture_output=True, text=True, timeout=60)
    finally:
        tmp_path.chmod(0o755)
    assert run.stdout.startswith("refused check the rights"), run.stdout + run.stderr


async def test_a_recovery_that_was_cut_short_is_finished_by_the_next(
    left_behind: tuple[Path, Keys], tmp_path: Path
) -> None:
    """The new file was whole when its maker died; the damaged one and its log still had the name."""
    origin = left_behind[0]
    folder = tmp_path / "one"
    shutil.copytree(origin, folder)
    path = folder / "shadow.db"
    path.write_bytes(path.read_bytes()[:5000])
    await look(path)
    shutil.copy(path, folder / "shadow.db-salvaged")
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(origin / f"shadow.db{suffix}", folder)
    told: list[Recovery] = []
    _, stats = await look(path, told)
    assert told == [], "there is nothing left to recover"
    assert stats.unclean.keys() == set(COLLECTIONS)
    assert not (folder / "shadow.db-salvaged").exists()
