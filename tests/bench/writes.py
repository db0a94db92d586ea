"""Writes: what durable intents and the following store add to a call; the journal alone."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shadow.journal.base import Entry
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.version import fresh_id
from tests.bench.harness import Bench, Closed, Contender, Line, Paced
from tests.bench.peers import Peers, document
from tests.bench.reads import key
from tests.bench.sites import NOTES, Sites, of

__all__ = ["benches", "journal_benches"]

_BATCH = 50


async def benches(peers: Peers, sites: Sites, calls: int) -> list[Bench]:
    return [
        await _update(peers, sites, "update_one paced", Paced(calls // 4, 25.0), 1.35),
        await _update(peers, sites, "update_one busy", Paced(calls // 2, 100.0), None),
        await _update(peers, sites, "update_one in a row", Closed(calls // 2), None),
        await _insert(peers, sites, calls),
        await _insert_many(peers, sites, calls),
    ]


async def _update(peers: Peers, sites: Sites, name: str, load: Closed | Paced, budget: float | None) -> Bench:
    value = itertools.count()

    def change() -> dict[str, Any]:
        return {"$set": {"views": next(value) % 1000}}

    async def of_shadow(name: str, driver: str, phase: str) -> Contender:
        shadow = await sites.shadow(driver, phase)
        notes = shadow[NOTES]
        return of(shadow, name, lambda number: notes.update_one({"_id": key(number)}, change()))

    motor = Contender("motor", lambda number: peers.motor.update_one({"_id": key(number)}, change()))
    pymongo = Contender("pymongo", lambda number: peers.pymongo.update_one({"_id": key(number)}, change()))
    naive = Contender("naive shim", lambda number: peers.naive_update_one(peers.motor, key(number), number))

    def versioned(number: int) -> Any:
        """The command alone that a versioned update is: it answers the document of before."""
        return peers.motor.find_one_and_update({"_id": key(number)}, {**change(), "$inc": {"_shadow.r": 1}})

    bare = Contender("find_one_and_update", versioned)
    shadowing = await of_shadow("shadow", "motor", "dual_write")
    on_pymongo = await of_shadow("shadow on pymongo", "pymongo", "dual_write")
    return Bench(
        name,
        [motor, shadowing, naive, pymongo, on_pymongo, bare],
        load,
        [
            Line("update_one, background, durable intents", "p50", shadowing.name, motor.name, budget),
            Line("the same, 99th percentile", "p99", shadowing.name, motor.name),
            Line("the same, processor time", "cpu", shadowing.name, motor.name),
            Line("the same, on PyMongo async", "p50", on_pymongo.name, pymongo.name),
            Line("the same, on PyMongo async against bare Motor", "p50", on_pymongo.name, motor.name),
            Line("its command alone, bare Motor's find_one_and_update", "p50", bare.name, motor.name),
            Line("naive shim, nothing durable", "p50", naive.name, motor.name),
            Line("naive shim, nothing durable", "cpu", naive.name, motor.name),
        ],
    )


async def _insert(peers: Peers, sites: Sites, calls: int) -> Bench:
    number = itertools.count(1_000_000)
    shadow = await sites.shadow("motor", "dual_write")
    notes = shadow[NOTES]
    motor = Contender("motor", lambda _: peers.motor.insert_one(document(next(number))))
    shadowing = of(shadow, "shadow", lambda _: notes.insert_one(document(next(number))))
    return Bench(
        "insert_one paced",
        [motor, shadowing],
        Paced(calls // 2, 100.0),
        [
            Line("insert_one, background, durable intents", "p50", shadowing.name, motor.name),
            Line("the same, processor time", "cpu", shadowing.name, motor.name),
        ],
    )


async def _insert_many(peers: Peers, sites: Sites, calls: int) -> Bench:
    number = itertools.count(2_000_000)
    shadow = await sites.shadow("motor", "dual_write")
    notes = shadow[NOTES]

    def batch() -> list[dict[str, Any]]:
        return [document(next(number)) for _ in range(_BATCH)]

    motor = Contender("motor", lambda _: peers.motor.insert_many(batch()))
    shadowing = of(shadow, "shadow", lambda _: notes.insert_many(batch()))
    return Bench(
        "insert_many",
        [motor, shadowing],
        Paced(max(8, calls // 40), 5.0),
        [
            Line(f"insert_many of {_BATCH}, background, durable intents", "p50", shadowing.name, motor.name),
            Line("the same, processor time", "cpu", shadowing.name, motor.name),
        ],
    )


class _CommitEach:
    """A journal as it is written first: one transaction an entry, in a thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE intents (op_id TEXT PRIMARY KEY, collection TEXT, key BLOB)")
        self._turn = asyncio.Lock()

    async def append(self) -> None:
        async with self._turn:
            await asyncio.to_thread(self._write, fresh_id())

    def _write(self, op_id: str) -> None:
        self._db.execute("INSERT INTO intents VALUES (?, ?, ?)", (op_id, NOTES, b"note"))

    def close(self) -> None:
        self._db.close()


@contextmanager
def journal_benches(folder: Path, calls: int) -> Iterator[list[Bench]]:
    """Opening an intent and closing it again, with 1, 16 and 64 writers."""
    journal, peer = SqliteJournal(FileSettings(folder / "journal.db")), _CommitEach(folder / "peer.db")

    async def intent(number: int) -> None:
        op_id = fresh_id()
        await journal.open([Entry(op_id, NOTES, key(number))])
        journal.close(op_id)

    ours = Contender("journal", intent, journal.flush)
    theirs = Contender("commit each", lambda _: peer.append())
    try:
        yield [
            Bench(
                f"journal {tasks}",
                [theirs, ours],
                Closed(max(2 * calls, 40 * tasks), tasks),
                [
                    Line(f"an intent made durable, {tasks} at once", "p50", ours.name, theirs.name),
                    Line(f"an intent made durable, {tasks} at once", "p99", ours.name, theirs.name),
                ],
            )
            for tasks in (1, 16, 64)
        ]
    finally:
        journal.shut()
        peer.close()
