"""Unconfirmed mismatches: the clock of one starts with it, starts again when the document changes, and outlives a
process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId

from shadow.model.order import key_digest
from shadow.model.phase import Phase, StoreName
from shadow.model.verdict import Kind, Verdict
from shadow.model.version import Image
from shadow.observe.findings_file import FindingsFile
from shadow.observe.mismatch_file import MismatchFile
from shadow.reads import unconfirmed
from shadow.reads.unconfirmed import MemoryUnconfirmed, SharedUnconfirmed, Unconfirmed, UnconfirmedMismatches
from tests.support.clock import Clock
from tests.support.pair import QUICK, Pair, until


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "shared"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[UnconfirmedMismatches]:
    if request.param == "memory":
        yield MemoryUnconfirmed(now=clock)
        return
    shared = SharedUnconfirmed(MismatchFile(tmp_path / "suspects", now=clock))
    yield shared
    shared.shut()


async def test_the_clock_starts_at_the_first_sight_and_again_when_the_document_moves(
    kept: UnconfirmedMismatches, clock: Clock
) -> None:
    assert await kept.note("things", 1, "a@1") == 0.0
    clock.at += 3
    assert await kept.note("things", 1, "a@1") == 3.0
    assert await kept.note("things", 1, "a@2") == 0.0
    clock.at += 1
    assert await kept.note("things", 1, "a@2") == 1.0
    assert await kept.note("others", 1, "a@2") == 0.0
    await kept.clear("things", 1)
    assert await kept.note("things", 1, "a@2") == 0.0


async def test_keys_that_mongodb_holds_equal_are_one_suspect(kept: UnconfirmedMismatches) -> None:
    for key in (1, 1.0, Int64(1), "1", ObjectId("0" * 24), {"a": 1}):
        await kept.note("things", key, "a@1")
    assert await kept.count() == 4


async def test_what_nobody_has_looked_at_for_a_while_is_handed_out_once(
    kept: UnconfirmedMismatches, clock: Clock
) -> None:
    await kept.note("things", 1, "a@1")
    clock.at += 4
    await kept.note("things", "two", "a@1")
    assert await kept.left(5.0, 10) == []
    clock.at += 2
    assert await kept.left(5.0, 10) == [Unconfirmed("things", 1)]
    assert await kept.left(5.0, 10) == []
    clock.at += 10
    assert len(await kept.left(5.0, 1)) == 1


async def test_they_are_bounded_in_number_and_age(
    kept: UnconfirmedMismatches, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unconfirmed, "MOST", 3)
    for number in range(5):
        await kept.note("things", number, "a@1")
        clock.at += 1
    await kept.left(0.0, 0)
    assert await kept.count() == 3
    clock.at += unconfirmed.LONGEST
    await kept.left(0.0, 0)
    assert await kept.count() == 0


async def test_they_survive_a_restart_and_are_shared(tmp_path: Path, clock: Clock) -> None:
    one = SharedUnconfirmed(MismatchFile(tmp_path / "suspects", now=clock))
    await one.note("things", 1, "a@1")
    clock.at += 7
    other = SharedUnconfirmed(MismatchFile(tmp_path / "suspects", now=clock))
    assert await other.note("things", 1, "a@1") == 7.0
    one.shut()
    other.shut()
    again = SharedUnconfirmed(MismatchFile(tmp_path / "suspects", now=clock))
    clock.at += 100
    assert await again.left(5.0, 10) == [Unconfirmed("things", 1)]
    again.shut()


async def test_a_clock_that_goes_back_makes_no_age(tmp_path: Path, clock: Clock) -> None:
    shared = SharedUnconfirmed(MismatchFile(tmp_path / "suspects", now=clock))
    await shared.note("things", 1, "a@1")
    clock.at -= 50
    assert await shared.note("things", 1, "a@1") == 0.0
    clock.at += 2
    assert await shared.note("things", 1, "a@1") == 2.0
    shared.shut()


async def test_a_file_that_cannot_be_used_costs_the_memory_over_a_restart_alone(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "suspects").write_bytes(b"this is no database at all" * 100)
    shared = SharedUnconfirmed(MismatchFile(tmp_path / "suspects", now=clock))
    assert await shared.note("things", 1, "a@1") == 0.0
    clock.at += 3
    assert await shared.note("things", 1, "a@1") == 3.0
    assert shared.fault == sqlite3.DatabaseError.__name__
    assert await shared.count() == 1
    assert await shared.left(0.0, 5) == [Unconfirmed("things", 1)]
    await shared.clear("things", 1)
    assert await shared.count() == 0
    shared.shut()


# --- with the whole way of a comparison -------------------------------------------------------------------------


async def spoil(pair: Pair, key: Any) -> None:
    seen = await pair.inner[StoreName.DYNAMO].image("things", key)
    assert await pair.inner[StoreName.DYNAMO].put("things", key, Image(seen.state, {"_id": key, "n": 99}), seen.state)


@pytest.fixture
def shared(tmp_path: Path) -> Callable[[], SharedUnconfirmed]:
    return lambda: SharedUnconfirmed(MismatchFile(tmp_path / "suspects"))


async def test_a_suspect_of_a_process_that_ended_is_confirmed_by_the_next_one_without_another_read(
    tmp_path: Path, shared: Callable[[], SharedUnconfirmed]
) -> None:
    young = QUICK.model_copy(update={"minimum_age": 3600.0})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=young, unconfirmed=shared()) as first:
        await first.things.insert_one({"_id": 1, "n": 1})
        await first.settled()
        await spoil(first, 1)
        await first.things.find_one({"_id": 1})
        await until(lambda: first.runtime.reader.waiting and first.secondary.calls["image"])
        assert not first.report.mismatches
    async with Pair(tmp_path, phase=Phase.SHADOW, beside=first, unconfirmed=shared()) as second:
        assert await second.runtime.reader.revisit(0.0) == 1
        await second.settled()
        assert [(found.key, found.kind) for found in second.report.mismatches] == [(1, Kind.VALUE)]
        assert await second.runtime.reader.revisit(0.0) == 0


async def test_a_suspect_that_was_healed_meanwhile_is_forgotten(
    tmp_path: Path, shared: Callable[[], SharedUnconfirmed]
) -> None:
    kept = shared()
    async with Pair(tmp_path, phase=Phase.SHADOW, unconfirmed=kept) as pair:
        await pair.things.insert_one({"_id": 1, "n": 1})
        await pair.settled()
        await kept.note("things", 1, "a@1")
        await pair.runtime.reader.revisit(0.0)
        await pair.settled()
        assert pair.report.verdicts == {Verdict.MATCH: 1}
        assert await kept.count() == 0


async def test_suspects_of_a_collection_that_is_no_longer_compared_are_forgotten(tmp_path: Path) -> None:
    kept = MemoryUnconfirmed()
    async with Pair(tmp_path, phase=Phase.DUAL_WRITE, unconfirmed=kept) as pair:
        await kept.note("things", 1, "a@1")
        await pair.runtime.reader.revisit(0.0)
        assert await kept.count() == 0
        assert not pair.report.verdicts


async def test_a_confirmed_mismatch_is_no_suspect_any_more(tmp_path: Path) -> None:
    kept = MemoryUnconfirmed()
    async with Pair(tmp_path, phase=Phase.SHADOW, unconfirmed=kept) as pair:
        await pair.things.insert_one({"_id": 1, "n": 1})
        await pair.settled()
        await spoil(pair, 1)
        await pair.things.find({}).to_list(None)
        await pair.settled()
        assert pair.report.verdicts == {Verdict.MISMATCH: 1}
        assert await kept.count() == 0


async def test_what_an_earlier_version_kept_is_taken_over_and_its_file_removed(tmp_path: Path, clock: Clock) -> None:
    earlier = tmp_path / "j.suspects"
    with contextlib.closing(sqlite3.connect(earlier)) as db, db:
        db.execute(
            "CREATE TABLE suspects (collection TEXT NOT NULL, digest TEXT NOT NULL, key BLOB NOT NULL, "
            "standing TEXT NOT NULL, since REAL NOT NULL, seen REAL NOT NULL, PRIMARY KEY (collection, digest)) "
            "WITHOUT ROWID"
        )
        row = ("things", key_digest("a"), bson.encode({"": "a"}), "there", clock() - 5.0, clock() - 1.0)
        db.execute("INSERT INTO suspects VALUES (?, ?, ?, ?, ?, ?)", row)
    shared = SharedUnconfirmed(MismatchFile(tmp_path / "j.findings", earlier=earlier, now=clock))
    assert await shared.count() == 1
    assert await shared.note("things", "a", "there") == 5.0
    assert not earlier.exists()
    shared.shut()


async def test_an_earlier_file_that_cannot_be_read_is_in_nobodys_way(tmp_path: Path, clock: Clock) -> None:
    earlier = tmp_path / "j.suspects"
    earlier.write_bytes(b"no database at all, and long enough to be one" * 100)
    shared = SharedUnconfirmed(MismatchFile(tmp_path / "j.findings", earlier=earlier, now=clock))
    assert await shared.note("things", "a", "there") == 0.0
    assert shared.fault == ""
    shared.shut()


async def test_findings_and_unconfirmed_mismatches_share_a_file_that_may_be_removed(
    tmp_path: Path, clock: Clock
) -> None:
    file = MismatchFile(tmp_path / "j.findings", now=clock)
    findings, shared = FindingsFile(file), SharedUnconfirmed(file)
    await shared.note("things", "a", "there")
    assert findings.summary()["kept"] == 0
    for path in tmp_path.iterdir():
        path.unlink()
    assert await shared.count() == 0
    assert shared.fault == ""
    assert findings.summary()["kept"] == 0
    shared.shut()


def test_the_file_is_used_on_both_sides_of_a_fork_also_while_a_thread_has_it(tmp_path: Path) -> None:
    file = MismatchFile(tmp_path / "j.findings")
    with file.transaction() as db:
        db.execute("INSERT INTO sums VALUES ('a', 1)")
    with file._lock:
        child = os.fork()
        if not child:
            with file.transaction() as other:
                os._exit(0 if other.execute("SELECT count(*) FROM sums").fetchone() == (1,) else 1)
    assert os.waitpid(child, 0)[1] == 0
    with file.transaction() as db:
        assert db.execute("SELECT count(*) FROM sums").fetchone() == (1,)
    file.close()
