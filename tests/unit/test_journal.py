"""What only the journal in a file has; what all journals have is in `tests/contract/test_journal_contract.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bson import ObjectId

from shadow.errors import JournalError
from shadow.host.process import Owner
from shadow.journal.base import Entry
from shadow.journal.sqlite import journal as sqlite_journal
from shadow.journal.sqlite import tables as ledger
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock):
    journal = SqliteJournal(FileSettings(tmp_path / "var" / "shadow.db", limit=30, now=clock))
    yield journal
    journal.shut()


def rows(journal: SqliteJournal, table: str) -> list[tuple]:
    with sqlite3.connect(journal.path) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


async def test_an_opened_intent_is_in_the_file_when_open_returns(journal: SqliteJournal) -> None:
    await journal.open([Entry("op1", "users", ObjectId())])
    assert len(rows(journal, "intents")) == 1


async def test_a_postponed_key_comes_back_after_its_delay_oldest_first(journal: SqliteJournal, clock: Clock) -> None:
    await journal.open([Entry("op1", "users", 1)])
    clock.now += 1
    await journal.open([Entry("op2", "users", 2)])
    journal.defer("op2")
    journal.defer("op1")
    first, second = await journal.due(10, 10)
    assert (first.key, second.key) == (1, 2)
    await journal.postpone(first, 60)
    clock.now += 20
    assert [due.key for due in await journal.due(10, 10)] == [2]
    clock.now += 60
    assert {due.key for due in await journal.due(10, 10)} == {1, 2}


async def test_intents_of_a_dead_process_are_adopted_at_once(journal: SqliteJournal) -> None:
    await journal.open([Entry("op1", "users", 1)])
    here = rows(journal, "owners")[0]
    with sqlite3.connect(journal.path) as db:
        db.execute("INSERT INTO owners VALUES ('dead', ?, ?, 1.0)", (here[1], os.getpid()))
        db.execute("UPDATE intents SET owner = 'dead'")
    assert [due.key for due in await journal.due(10, 10)] == [1]
    assert all(row[0] != "dead" for row in rows(journal, "owners"))


async def test_a_crash_of_the_system_says_which_collections_want_to_be_verified(journal: SqliteJournal) -> None:
    await journal.open([Entry("op1", "users", 1), Entry("op2", "documents", 1)])
    journal.close("op2")
    await journal.flush()
    ((_, place, pid, started),) = rows(journal, "owners")
    host, _, namespace = place.split("/", 2)
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE owners SET id = 'old', place = ?", (f"{host}/another-boot/{namespace}",))
        db.execute("UPDATE intents SET owner = 'old'")
        db.execute("UPDATE written SET owner = 'old'")
    assert [due.key for due in await journal.due(10, 10)] == [1]
    assert (await journal.stats()).unclean == dict.fromkeys(("users", "documents"), Owner(place, pid, started).since)
    await journal.trust("users", await journal.doubts("users"))
    assert (await journal.stats()).unclean.keys() == {"documents"}


async def test_the_death_of_a_process_alone_puts_nothing_in_doubt(journal: SqliteJournal) -> None:
    await journal.open([Entry("op1", "users", 1)])
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE owners SET id = 'dead', started = 1.0")
        db.execute("UPDATE intents SET owner = 'dead'")
        db.execute("UPDATE written SET owner = 'dead'")
    assert len(await journal.due(10, 10)) == 1
    assert (await journal.stats()).unclean == {}


def test_a_process_of_another_container_is_never_known_dead() -> None:
    assert not Owner("other/boot/pid:[1]", 1, 0.0).known_dead()


def test_a_clean_end_takes_the_owner_away_but_not_its_intents(journal: SqliteJournal) -> None:
    asyncio.run(journal.open([Entry("op1", "users", 1)]))
    journal.shut()
    assert len(rows(journal, "intents")) == 1
    assert len(rows(journal, "owners")) == 1, "open intents keep their owner, so that its death is noticed"


async def test_a_journal_that_cannot_be_written_says_so_and_works_again_when_it_can(tmp_path: Path) -> None:
    blocked = tmp_path / "var"
    blocked.write_text("a file where the folder should be")
    journal = SqliteJournal(FileSettings(blocked / "shadow.db"))
    with pytest.raises(JournalError, match="could not be written"):
        await journal.open([Entry("op1", "users", 1)])
    blocked.unlink()
    await journal.open([Entry("op1", "users", 1)])
    assert (await journal.stats()).open == 1
    journal.shut()


async def test_many_concurrent_opens_are_all_durable(journal: SqliteJournal) -> None:
    await asyncio.gather(*(journal.open([Entry(f"op{i}", "users", i)]) for i in range(2000)))
    assert len(rows(journal, "intents")) == 2000


async def test_what_only_looks_waits_for_no_other_process_and_what_writes_goes_on_after_it(
    journal: SqliteJournal,
) -> None:
    await journal.open([Entry("op1", "users", 1)])
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await journal.has_open("users", 1)
        assert (await journal.stats()).open_by_collection == {"users": 1}
        assert [each.op_id for each in await journal.entries(10)] == ["op1"]
        await journal.flush()
        writing = asyncio.create_task(journal.open([Entry("op2", "users", 2)]))
        await asyncio.sleep(0.05)
        assert not writing.done()
        other.execute("COMMIT")
    await writing
    assert len(rows(journal, "intents")) == 2


async def test_another_process_that_never_ends_its_transaction_is_not_waited_for_without_end(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BUSY", 0.05)
    await journal.open([Entry("op1", "users", 1)])
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            await journal.open([Entry("op2", "users", 2)])
        other.execute("COMMIT")
    await journal.open([Entry("op3", "users", 3)])
    assert [row[0] for row in rows(journal, "intents")] == ["op1", "op3"]


def test_a_close_waits_for_the_next_job_and_that_job_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_journal, "_MAX_WAIT", 60.0)
    jobs: queue.SimpleQueue[sqlite_journal._Job | None] = queue.SimpleQueue()
    quiet = sqlite_journal._Job(lambda ledger: None)
    with contextlib.closing(asyncio.new_event_loop()) as loop, ThreadPoolExecutor(1) as threads:
        asked = sqlite_journal._Job(lambda ledger: None, loop=loop)
        jobs.put(quiet)
        taken = threads.submit(sqlite_journal._take, jobs, None)
        while not jobs.empty():
            time.sleep(0.001)
        jobs.put(asked)
        assert taken.result(30) == ([quiet, asked], False)
    jobs.put(quiet)
    jobs.put(None)
    assert sqlite_journal._take(jobs, None) == ([quiet], True)
