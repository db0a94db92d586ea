"""The journal under a long outage of the secondary: one entry a key, each verb as quick as with few, bounded on disk.

`SHADOW_LONG=1` does it with 1,000,000 open keys and prints what it measured; CI with 20,000.
"""

from __future__ import annotations

import math
import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bson import ObjectId

from shadow.host.process import this_process
from shadow.journal.base import Due, Entry
from shadow.journal.sqlite.file import FileSettings, JournalFile
from shadow.journal.sqlite.tables import JournalTask, Ledger, Work

KEYS: Final = 1_000_000 if os.environ.get("SHADOW_LONG") == "1" else 20_000
BATCH: Final = 500
MOST_BYTES: Final = 300
"""On the disk, for one open key that is an ObjectId."""


class Journal:
    """The file and its ledger without the thread, on a clock that stands still."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shadow.db"
        self.now = 1_000_000.0
        self.file = JournalFile(FileSettings(self.path, now=lambda: self.now), this_process())
        self.db = self.file.ledger._db
        self.times: dict[str, float] = {}

    def do(self, *works: Work, name: str = "") -> list[Any]:
        jobs = [JournalTask(work) for work in works]
        began = time.perf_counter()
        assert self.file.commit(jobs)
        if name:
            self.times[name] = (time.perf_counter() - began) * 1000
        assert not any(job.error for job in jobs)
        return [job.result for job in jobs]

    def defer_many(self, first: int, count: int) -> None:
        """Opens `count` keys, each by itself, and defers them."""
        numbers = range(first, first + count)
        self.do(*(_opening(n) for n in numbers))
        self.do(*(_deferring(n) for n in numbers))

    def size(self, suffix: str = "") -> int:
        path = Path(f"{self.path}{suffix}")
        return path.stat().st_size if path.exists() else 0


def key(number: int) -> ObjectId:
    """In no order, as keys of documents come."""
    return ObjectId(f"{number * 2654435761 % 2**32:08x}{number:016x}")


def _opening(number: int) -> Work:
    return lambda ledger: ledger.open([Entry(f"op{number:022d}", "things", key(number))], 1_000_000.0)


def _deferring(number: int) -> Work:
    return lambda ledger: ledger.defer(f"op{number:022d}", unknown=False)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    made.file.close()


def use(journal: Journal, number: int) -> None:
    """Every verb of the way of a write, and of recovery, once."""
    journal.do(_opening(number), name="open")
    journal.do(lambda ledger: ledger.has_open("things", key(number)), name="has_open")
    journal.do(_deferring(number), name="defer")
    ((due, *_),) = journal.do(lambda ledger: ledger.due(64, 30.0), name="due")
    journal.do(lambda ledger: ledger.settle(due), name="settle")
    journal.do(lambda ledger: ledger.postpone(due, 1.0), name="postpone")
    journal.do(Ledger.stats, name="stats")


def plans(journal: Journal, number: int) -> dict[str, list[str]]:
    """What SQLite does for each statement of `use`."""
    statements: list[str] = []
    journal.db.set_trace_callback(statements.append)
    use(journal, number)
    journal.db.set_trace_callback(None)
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE")
    wanted = {each.strip() for each in statements if each.strip().startswith(verbs)}
    return {each: [row[3] for row in journal.db.execute(f"EXPLAIN QUERY PLAN {each}")] for each in wanted}


def test_no_verb_looks_at_every_entry(journal: Journal) -> None:
    journal.defer_many(0, 2000)
    journal.db.execute("ANALYZE")
    seen = plans(journal, 5000)
    assert len(seen) > 12
    for statement, steps in seen.items():
        for step in steps:
            assert not step.startswith(("SCAN intents", "SCAN deferred")), f"{statement}: {step}"
            assert "TEMP B-TREE" not in step, f"{statement}: {step}"


@pytest.mark.timeout(3600)
def test_an_outage_leaves_one_small_entry_a_key_and_the_end_of_it_leaves_a_small_file(journal: Journal) -> None:
    use(journal, KEYS + 1)
    few = dict(journal.times)
    began = time.perf_counter()
    for first in range(0, KEYS, BATCH):
        journal.defer_many(first, BATCH)
    filled = time.perf_counter() - began
    journal.defer_many(0, BATCH)
    stats = journal.do(Ledger.stats)[0]
    assert stats.deferred_by_collection == {"things": KEYS}, "a key that is deferred again has still one entry"
    journal.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    full = journal.size()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(journal, KEYS + 1)
    many = dict(journal.times)
    healed = _heal_all(journal)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    _settle_down(journal)
    print(f"\n{KEYS} keys: {full / KEYS:.0f} bytes each; opened and deferred {KEYS / filled:.0f}/s")
    print(f"claimed and settled {KEYS / healed:.0f}/s; file afterwards {journal.size()} bytes; memory +{grown} KiB")
    print("ms with few entries:", {name: round(value, 2) for name, value in few.items()})
    print("ms with all entries:", {name: round(value, 2) for name, value in many.items()})
    assert full <= KEYS * MOST_BYTES
    assert journal.size("-wal") <= 32 * 2**20
    assert journal.size() <= 8 * 2**20
    assert grown < 64 * 1024


def _heal_all(journal: Journal) -> float:
    journal.now += 100
    began = time.perf_counter()
    while found := journal.do(lambda ledger: ledger.due(BATCH, 30.0))[0]:
        journal.do(*(_settling(due) for due in found))
    return time.perf_counter() - began


def _settling(due: Due) -> Work:
    return lambda ledger: ledger.settle(due)


def _settle_down(journal: Journal) -> None:
    """As many looks at the size as it takes, as time would bring them."""
    for _ in range(KEYS // 5000 + 10):
        journal.file._tidied = 0.0
        before = journal.size()
        journal.do(Ledger.stats)
        journal.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if journal.size() == before and journal.size() <= 8 * 2**20:
            return


def test_the_file_gives_back_hundreds_of_pages_at_a_time(journal: Journal) -> None:
    journal.file._tidied = math.inf  # on a busy machine it would begin on its way
    # As many pages as tens of thousands of healed keys would leave, which takes minutes and is looked at above.
    rows = "WITH RECURSIVE row(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM row LIMIT 2000)"
    journal.db.execute("CREATE TABLE ballast (bytes)")
    journal.db.execute(f"INSERT INTO ballast {rows} SELECT zeroblob(4000) FROM row")
    journal.db.execute("DROP TABLE ballast")
    (before,) = journal.db.execute("PRAGMA freelist_count").fetchone()
    assert before > 1024
    journal.file._tidied = 0.0
    journal.do(Ledger.stats)
    (after,) = journal.db.execute("PRAGMA freelist_count").fetchone()
    assert before - after >= 500


def test_a_reader_that_stays_keeps_the_log_only_while_it_reads(journal: Journal) -> None:
    reader = sqlite3.connect(journal.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM deferred").fetchall()
    number = 0
    while journal.size("-wal") < 40 * 2**20:
        journal.defer_many(number, BATCH)
        number += BATCH
    reader.close()
    journal.file._tidied = 0.0
    journal.do(Ledger.stats)
    assert journal.size("-wal") <= 32 * 2**20
    assert journal.do(Ledger.stats)[0].deferred_by_collection == {"things": number}
