"""What journals on a server do beyond the common contract: signs of life, one who looks for orphans, one clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.journal.base import Entry
from tests.support.drawn import in_one_deployment
from tests.support.journals import JOURNALS, LIMIT, Place, SetClock

pytestmark = in_one_deployment("place")


@pytest.fixture(params=[kind for kind in JOURNALS if kind != "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path, request.getfixturevalue)
    yield made
    made.close()


async def test_a_process_that_gives_no_sign_of_life_is_adopted_and_not_settled_too_early(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    silent, other = place.journal(clock), place.journal(clock)
    monkeypatch.setattr(type(silent), "_beat_every", 3600.0)  # on a busy machine a sign of life would come in between
    await silent.open([Entry("op1", "users", 1)])
    clock.now += LIMIT / 2 - 1
    assert await other.due(10, 1) == []
    clock.now += 3
    (due,) = await other.due(10, 1)
    assert not await other.settle(due), "it may only be slow, and its operation may still be under way"
    assert await other.has_open("users", 1)
    clock.now += LIMIT
    (due,) = await other.due(10, 1)
    assert await other.settle(due)


async def test_a_process_that_was_taken_for_dead_goes_on_as_before(place: Place) -> None:
    clock = SetClock()
    silent, other = place.journal(clock), place.journal(clock)
    await silent.open([Entry("op1", "users", 1)])
    clock.now += LIMIT / 2 + 1
    async with asyncio.timeout(60):
        while not (found := await other.due(10, 1)):
            clock.now += 1  # one process at a time looks for orphans, and the silent one may have just begun to
    assert [due.key for due in found] == [1]
    silent.close("op1")
    await silent.open([Entry("op2", "users", 2)])
    silent.defer("op2")
    await silent.flush()
    clock.now += 2
    assert {due.key for due in await other.due(10, 1)} == {1, 2}
    (entry,) = await other.explain("users", 2)
    assert entry.deferred


async def test_orphans_are_adopted_once_by_processes_that_look_at_the_same_time(place: Place) -> None:
    clock = SetClock()
    dead, *living = (place.journal(clock) for _ in range(4))
    for each in living:
        await each.flush()
    await dead.open([Entry(f"op{n}", "users", n) for n in range(120)])
    clock.now += LIMIT + 1
    found = []
    async with asyncio.timeout(60):
        while len(found) < 120:
            claimed = [due for some in await asyncio.gather(*(each.due(50, 600) for each in living)) for due in some]
            found += claimed
            # Who finds nothing waits: with each second that passes the living are taken for dead the sooner.
            clock.now += 0 if claimed else 1
    assert sorted(due.key for due in found) == list(range(120)), "each key is claimed once"
    assert {due.generation for due in found} == {1}, "each intent was deferred once"


async def test_a_host_whose_clock_is_an_hour_off_takes_nothing_from_a_living_process(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = place.journal(), place.journal()
    await right.open([Entry("op1", "users", 1)])
    true = time.time
    for off in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda off=off: true() + off)
        await wrong.open([Entry(f"op{off}", "users", off)])
        wrong.defer(f"op{off}", unknown=True)
        assert [due.key for due in await wrong.due(10, 600)] == [off]
        assert (await wrong.stats()).oldest_age < LIMIT
    assert await right.has_open("users", 1)
    assert (await right.stats()).open_by_collection == {"users": 1}


async def test_a_settle_that_comes_after_another_process_took_over_clears_nothing_new(place: Place) -> None:
    """The numbers of deferrals begin anew when a key was settled: an older claim must not pass for a new one."""
    clock = SetClock()
    slow, quick = place.journal(clock), place.journal(clock)
    await quick.open([Entry("op1", "users", 1), Entry("op2", "users", 1)])
    quick.defer("op1")
    await quick.flush()
    (stale,) = await slow.due(10, 1)
    clock.now += 2
    (due,) = await quick.due(10, 1)
    assert await quick.settle(due)
    quick.defer("op2")
    await quick.flush()
    assert not await slow.settle(stale)
    assert await quick.has_open("users", 1)


async def test_counts_of_many_entries_are_near_and_no_collection_is_missed(place: Place) -> None:
    journal = place.journal()
    rows = {"a": 1, "b": 1500, "b#c": 2, "c": 1}
    for name, number in rows.items():
        await journal.open([Entry(f"{name}{n}", name, n) for n in range(number)])
    stats = await journal.stats()
    assert stats.open_by_collection.keys() == rows.keys()
    assert stats.open_by_collection["b"] == pytest.approx(1500, rel=0.3)
    assert [stats.open_by_collection[name] for name in ("a", "b#c", "c")] == [1, 2, 1]
