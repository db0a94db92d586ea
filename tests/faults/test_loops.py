"""A process with one event loop after the other, like a task worker that calls `asyncio.run` for each job.

Between its loops it hears of nothing. So each loop begins with the configuration file and the control store's record as
they are, before its first write; and one that has only stood still looks again before it goes on. The worker's loops
run in threads, beside the loop of a web process that has its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shadow import Shadow
from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import RouteRecord
from shadow.fleet.gates import is_way_back
from shadow.host.process import Owner
from shadow.model.phase import Phase, StoreName
from tests.faults.test_flip_by_file import order
from tests.support.memory import Place
from tests.support.pair import until
from tests.support.shadows import COLLECTION

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "shadow.yaml"


@asynccontextmanager
async def web(place: Place, **changes: Any) -> AsyncIterator[Shadow]:
    async with place.shadow(**changes) as shadow:
        await shadow[COLLECTION].find_one({})
        await until(lambda: shadow.admin.fleet.participant.joined)
        yield shadow


async def job(worker: Shadow, key: str) -> Any:
    """One job, in an event loop of its own."""
    return await asyncio.to_thread(lambda: asyncio.run(insert(worker, key)))


async def insert(worker: Shadow, key: str) -> None:
    await worker[COLLECTION].insert_one({"_id": key})
    assert await worker.settled(90)


def placed(shadow: Shadow) -> RouteRecord:
    return routing.load(shadow.admin.fleet.records).placed[COLLECTION]


async def test_a_worker_between_two_jobs_follows_a_migration_from_beginning_to_end(place: Place, config: Path) -> None:
    """Nothing that it acknowledges is lost, and nothing that it does shuts the way back."""
    place.file(config, phase="off")
    worker = place.from_file(config)
    async with web(place, phase="off"):
        await job(worker, "in phase off")
    place.file(config, phase="shadow")
    async with web(place) as shadow:
        await job(worker, "in phase shadow")
        assert worker.admin.routes()[COLLECTION].phase is Phase.SHADOW
        mark = placed(shadow).mark
        await order(shadow, DYNAMO)
        assert placed(shadow).mark == mark != ""
        await job(worker, "after the flip")
        assert await shadow[COLLECTION].find_one({"_id": "after the flip"}) is not None
        assert worker.admin.routes()[COLLECTION].primary is DYNAMO
        assert shadow._engine.parts.journal.doubted == worker._engine.parts.journal.doubted == {}
        assert (await shadow.admin.journal_stats()).unclean == {}
        assert is_way_back(placed(shadow), MONGO)
        with sqlite3.connect(place.journal) as journal:
            noted = dict(journal.execute("SELECT collection, name FROM primaries").fetchall())
        assert noted[COLLECTION] == "dynamo"
        await shadow.admin.heal(COLLECTION, "in phase off")
        await place.level(shadow)


async def test_a_worker_whose_file_is_behind_takes_the_fleets_word(place: Place, config: Path) -> None:
    place.file(config, phase="off")
    worker = place.from_file(config)
    async with web(place) as shadow:
        await order(shadow, DYNAMO)
        mark = placed(shadow).mark
        await job(worker, "by an older file")
        assert worker.admin.routes()[COLLECTION].primary is DYNAMO
        assert place.held(MONGO) == {}, "it writes one store alone, and never the old primary"
        assert place.held(DYNAMO).keys() == {"by an older file"}
        assert placed(shadow).mark != mark


@pytest.mark.parametrize("phase", ["dual_write", "shadow"])
async def test_a_new_file_is_seen_at_the_start_of_each_loop(place: Place, config: Path, phase: str) -> None:
    """However short the loops are. One that is no configuration changes nothing."""
    place.file(config, phase="off")
    worker = place.from_file(config)
    await job(worker, "one")
    place.file(config, phase=phase)
    await job(worker, "two")
    assert worker.admin.routes()[COLLECTION].phase == phase
    config.write_text("collections: [", encoding="utf-8")
    await job(worker, "three")
    assert worker.admin.routes()[COLLECTION].phase == phase
    place.file(config, phase="off")
    await job(worker, "four")
    assert worker.admin.routes()[COLLECTION].phase is Phase.OFF
    assert place.held(MONGO).keys() == {"one", "two", "three", "four"}


async def run_and_close(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
    """As whoever knows no `asyncio.run` does: what still runs in the loop is never cancelled."""
    try:
        await asyncio.to_thread(loop.run_until_complete, work)
    finally:
        for task in asyncio.all_tasks(loop):
            # Lost on purpose: what asyncio says of it would fail whatever test runs by then (tests/conftest.py).
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()


async def test_a_loop_that_is_closed_without_a_word_fences_the_next_one(place: Place, config: Path) -> None:
    place.file(config, phase="shadow")
    worker = place.from_file(config)
    async with web(place) as shadow:
        await run_and_close(asyncio.new_event_loop(), insert(worker, "before"))
        rows = members.members(shadow.admin.fleet.records)
        assert len(rows) == 2, "it may write on at any time, and a flip waits for its word"
        assert members.forget(
            shadow.admin.fleet.records, next(row.id for row in rows if row.id != shadow.admin.fleet.participant.id)
        )
        await order(shadow, DYNAMO)
        await run_and_close(asyncio.new_event_loop(), insert(worker, "after"))
        assert worker.admin.routes()[COLLECTION].primary is DYNAMO
        await shadow[COLLECTION].find_one({"_id": "after"})
        await until(lambda: "after" in place.held(DYNAMO))


async def test_a_loop_that_stood_still_looks_before_its_next_write(place: Place, config: Path) -> None:
    """Its process was taken off the list meanwhile, and the others have flipped."""
    place.file(config, phase="shadow")
    worker, loop = place.from_file(config), asyncio.new_event_loop()

    async def write(key: str, condition: Callable[[], bool]) -> None:
        await insert(worker, key)
        await until(condition)

    async with web(place) as shadow:
        await asyncio.to_thread(
            loop.run_until_complete,
            write("before", lambda: worker.admin.fleet.participant.joined and worker.admin.fleet.vouched),
        )
        await place.level(shadow)
        members.forget(shadow.admin.fleet.records, worker.admin.fleet.participant.id)
        await order(shadow, DYNAMO)
        await until(lambda: not worker._engine.parts.routes.fresh)
        asked = place.primary.calls["apply"]
        await asyncio.to_thread(loop.run_until_complete, write("after", lambda: True))
        assert place.primary.calls["apply"] == asked, "MongoDB was not asked as the primary"
        assert worker.admin.routes()[COLLECTION].primary is DYNAMO
        await asyncio.to_thread(loop.run_until_complete, worker.close())
    loop.close()


async def test_a_process_stays_a_member_as_long_as_one_of_its_loops_lives(place: Place) -> None:
    async with web(place) as shadow:
        await job(shadow, "in a second loop")
        assert [row.id for row in members.members(shadow.admin.fleet.records)] == [shadow.admin.fleet.participant.id]
        await shadow[COLLECTION].insert_one({"_id": "in the first"})
        await order(shadow, DYNAMO)
        await job(shadow, "after the flip")
        assert "after the flip" in place.held(DYNAMO)


async def test_a_forked_process_has_a_record_of_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was forked while its parent was on the list: neither takes the other off it."""
    async with web(place) as shadow:
        participant, parent = shadow.admin.fleet.participant, shadow.admin.fleet.participant.id
        # Nobody here can know that it is none.
        child = Owner("another-host/boot/pid:[1]", 7, 1.0)
        monkeypatch.setattr("shadow.fleet.membership.this_process", lambda: child)
        await participant.join({COLLECTION: MONGO})
        assert {row.id for row in members.members(shadow.admin.fleet.records)} == {parent, participant.id}
        assert participant.id != parent
        await participant.leave()
        assert [row.id for row in members.members(shadow.admin.fleet.records)] == [parent]


async def test_a_control_store_that_is_away_stops_no_process_that_has_joined(place: Place) -> None:
    async with web(place) as shadow:
        away = place.control.with_name("away")
        shadow.admin.fleet.records.close()
        place.control.rename(away)
        place.control.mkdir()
        try:
            await until(lambda: not shadow.admin.fleet.participant.reachable)
            await shadow[COLLECTION].insert_one({"_id": 1})
        finally:
            place.control.rmdir()
            away.rename(place.control)
        await until(lambda: shadow.admin.fleet.participant.reachable)
        await place.level(shadow)
