"""A worker that runs an event loop for each job: what a loop leaves when it ends is anybody's at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shadow import Shadow
from shadow.model.phase import StoreName
from tests.support.shadows import COLLECTION, Site

JOBS = 12


@pytest.fixture(params=["sqlite", "mongodb", "dynamodb"])
async def place(request: pytest.FixtureRequest, site: Site) -> Site:
    """An intent, and the lease of a claim, last far longer than the test is patient."""
    journal = {
        "sqlite": site.journal,
        "mongodb": "mongodb:///?journal=intents",
        "dynamodb": f"dynamodb://{site.prefix}journal",
    }[request.param]
    made = site.but(journal=journal, phase="shadow", limits={"operation": 120.0, "recover_every": 0.1})
    async with made.shadow() as shadow:
        await made.prepared(shadow)
    return made


async def _job(shadow: Shadow, number: int) -> None:
    """Ends with its last answer: with writes, heals and claims wherever they are just then."""
    things = shadow[COLLECTION]
    for state in range(3):
        await things.update_one({"_id": number}, {"$set": {"state": state}}, upsert=True)
    if number % 3 == 0:
        await asyncio.sleep(0.01 * number)


@pytest.mark.takes_turns
async def test_the_journal_is_empty_soon_after_each_loop_and_a_flip_can_be_made(place: Site, tmp_path: Path) -> None:
    worker = place.shadow()
    async with place.shadow() as web:
        await web[COLLECTION].insert_one({"_id": "web"})
        for number in range(JOBS):
            await asyncio.to_thread(lambda number=number: asyncio.run(_job(worker, number)))  # type: ignore[misc]
            assert await web.settled(90), (await web.admin.status())["journal"]
        # A request that somebody gave up on, as happens on a busy machine, may still be under way for a while.
        async with asyncio.timeout(90):
            while not (done := await web.admin.flip(COLLECTION, StoreName.DYNAMO, "a test"))["done"]:
                assert "abandoned request" in str(done), done
                await asyncio.sleep(1)
    assert await place.disagreements() == []


async def test_the_next_loop_of_the_same_worker_takes_over_by_itself(place: Site) -> None:
    """No other process is there; the worker's own next job heals what the last one left."""
    worker = place.shadow()
    for number in range(JOBS):
        await asyncio.to_thread(lambda number=number: asyncio.run(_job(worker, number)))  # type: ignore[misc]
    async with worker:
        assert await worker.settled(90), (await worker.admin.status())["journal"]
    assert await place.disagreements() == []
