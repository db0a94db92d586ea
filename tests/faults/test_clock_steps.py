"""Wall clocks that are set, and hosts whose clocks are far apart: nobody is taken for dead who lives, no intent expires
before its time, and who has died is noticed all the same."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shadow.host.failpoints import Point
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.stepped_clock import SteppedClock, follow
from tests.support.writer import spawn

FAR = 600.0
Place = Callable[[Site], Site]


def in_file(site: Site) -> Site:
    return site


def in_mongo(site: Site) -> Site:
    return site.but(journal="mongodb:///?journal=intents")


def in_dynamo(site: Site) -> Site:
    return site.but(journal=f"dynamodb://{site.prefix}journal")


def write_and_wait(site: Site, clock: str, there: str, go: str) -> None:
    """Stands still after the primary's answer, with its intent open, until the file `go` is there."""
    follow(clock)
    armed = False

    def reach(at: object) -> None:
        if armed and at is Point.AFTER_PRIMARY:
            Path(there).touch()
            while not os.path.exists(go):
                time.sleep(0.01)

    async def run() -> None:
        nonlocal armed
        async with site.shadow(reach) as shadow:
            things = shadow[COLLECTION]
            await things.update_one({"_id": "key"}, {"$inc": {"n": 1}}, upsert=True)
            assert await shadow.settled(90)
            armed = True
            await things.update_one({"_id": "key"}, {"$inc": {"n": 1}})
            assert await shadow.settled(90)

    asyncio.run(run())


@pytest.mark.drawn_over("place", "step", of=3, reason="the same clock, whatever keeps the intents")
@pytest.mark.parametrize("place", [in_file, in_mongo, in_dynamo])
@pytest.mark.parametrize("step", [-FAR, FAR])
async def test_a_clock_that_is_set_neither_ends_an_intent_nor_keeps_it(
    site: Site, tmp_path: Path, place: Place, step: float
) -> None:
    """The writer's clock is set while its operation is under way; the other process's never is."""
    site = place(site).but(limits={"operation": 20.0})
    clock = SteppedClock(tmp_path / "clock")
    there, go = tmp_path / "there", tmp_path / "go"
    async with site.shadow() as shadow:
        await site.prepared(shadow)
        writer = spawn(write_and_wait, site, str(clock.path), str(there), str(go))
        try:
            await until(there.exists, 90)
            clock.step(step)
            for _ in range(5):
                assert await shadow._engine.runtime().replicator.recover() == 0, (
                    "nothing of a living, young operation is due"
                )
            (intent,) = [each for each in await shadow.admin.journal_entries() if each.collection == COLLECTION]
            assert not intent.deferred
            assert not intent.owner_dead
            go.touch()
            await asyncio.to_thread(writer.join, 90)
            assert writer.exitcode == 0
        finally:
            writer.kill()
            writer.join(90)
        await site.level(shadow)
    (document,) = (await site.documents()).values()
    assert document["n"] == 2


@pytest.mark.takes_turns
@pytest.mark.drawn_over("place", "apart", of=3, reason="the same clock, whatever keeps the intents")
@pytest.mark.parametrize("place", [in_file, in_mongo, in_dynamo])
@pytest.mark.parametrize("apart", [-FAR, FAR])
async def test_the_death_of_a_process_whose_clock_is_far_off_is_noticed(
    site: Site, tmp_path: Path, place: Place, apart: float
) -> None:
    site = place(site).but(limits={"operation": 8.0})
    clock = SteppedClock(tmp_path / "clock")
    clock.step(apart)
    there, go = tmp_path / "there", tmp_path / "go"
    async with site.shadow() as shadow:
        await site.prepared(shadow)
        writer = spawn(write_and_wait, site, str(clock.path), str(there), str(go))
        await until(there.exists, 90)
        writer.kill()
        await asyncio.to_thread(writer.join, 90)
        members = (await shadow.admin.fleet.status())["members"]
        assert [each["dead"] for each in members if not each["name"].endswith(f" {os.getpid()}")] == [True]
        await site.level(shadow)
    (document,) = (await site.documents()).values()
    assert document["n"] == 2
