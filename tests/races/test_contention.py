"""Callers that meet each other come to what they come to on bare MongoDB, in every phase, on either primary: to lose a
race is never "none", no change is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import pytest
from pymongo import AsyncMongoClient

from tests.support.contention import SCENARIOS, SPARE
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import spawn

CALLERS: Final = (1, 8, 40, 100)
PROCESSES: Final = 4

_EVERY = [(name, 40) for name in SCENARIOS] + [
    (name, callers)
    for name in ("take", "delete_the_first", "hot_key", "upsert_by_filter")
    for callers in CALLERS
    if callers != 40
]


@pytest.mark.parametrize(("name", "callers"), _EVERY)
async def test_bare_mongodb_comes_to_it(mongo_url: str, mongo_database: str, name: str, callers: int) -> None:
    """What the scenarios ask of the library is what the driver gives."""
    async with AsyncMongoClient(mongo_url) as client:
        await SCENARIOS[name](client[mongo_database][COLLECTION], callers)


@pytest.mark.parametrize("phase", ["off", "dual_write", "shadow"])
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
@pytest.mark.parametrize(("name", "callers"), _EVERY)
async def test_callers_that_meet(site: Site, name: str, callers: int, primary: str, phase: str) -> None:
    site = site.but(primary=primary, phase=phase, limits={"write_deadline": 5.0, "operation": 30.0}, patience=10.0)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await SCENARIOS[name](shadow[COLLECTION], callers)
        if phase != "off":
            await site.level(shadow)


async def test_one_upsert_by_filter_inserts_where_dynamodb_answers(site: Site) -> None:
    site = site.but(primary="dynamo", limits={"write_deadline": 5.0, "operation": 30.0}, patience=10.0)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await SCENARIOS["upsert_by_filter"](shadow[COLLECTION], 40)
        assert await shadow[COLLECTION].count_documents({}) == 1


# --- several processes --------------------------------------------------------------------------------------------


def meet(site: Site, number: int, callers: int, answers: str) -> None:
    """One of several processes whose callers all take, count, delete and upsert the same; notes what they got."""

    async def run() -> dict[str, list[object]]:
        async with site.shadow() as shadow:
            things = shadow[COLLECTION]
            taken = [
                things.find_one_and_update({"st": "new"}, {"$set": {"st": "taken", "by": number}})
                for _ in range(callers)
            ]
            deleted = [things.find_one_and_delete({"st": "old"}) for _ in range(callers)]
            counted = [things.update_one({"_id": "hot"}, {"$inc": {"n": 1}}) for _ in range(callers)]
            upserted = [things.update_one({"name": "counter"}, {"$inc": {"n": 1}}, upsert=True) for _ in range(callers)]
            found = await asyncio.gather(*taken, *deleted, *counted, *upserted)
            await shadow.settled(60)
        names = [None if each is None else each["_id"] for each in found[: 2 * callers]]
        return {"taken": names[:callers], "deleted": names[callers:]}

    Path(answers).write_text(json.dumps(asyncio.run(run())))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_processes_that_meet(site: Site, tmp_path: Path, primary: str) -> None:
    callers = 10
    every = PROCESSES * callers
    site = site.but(primary=primary, limits={"write_deadline": 10.0, "operation": 60.0}, patience=30.0)
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": f"job-{n:03}", "st": "new"} for n in range(every + SPARE)])
        await things.insert_many([{"_id": f"old-{n:03}", "st": "old"} for n in range(every + SPARE)])
        await things.insert_one({"_id": "hot", "n": 0})
    files = [tmp_path / f"answers-{number}" for number in range(PROCESSES)]
    processes = [spawn(meet, site, number, callers, str(file)) for number, file in enumerate(files)]
    await asyncio.gather(*(asyncio.to_thread(process.join, 240) for process in processes))
    assert [process.exitcode for process in processes] == [0] * PROCESSES

    told = [json.loads(file.read_text()) for file in files]
    for kind in ("taken", "deleted"):
        names = [name for each in told for name in each[kind]]
        assert None not in names, f"{names.count(None)} of {every} were told that nothing matches ({kind})"
        assert len(set(names)) == every
    async with site.shadow() as shadow:
        await site.level(shadow)
        things = shadow[COLLECTION]
        assert await things.find_one({"_id": "hot"}) == {"_id": "hot", "n": every}
        counters = await things.find({"name": "counter"}).to_list(None)
        assert sum(each["n"] for each in counters) == every
        assert primary == "mongo" or len(counters) == 1
        assert await things.count_documents({"st": "taken"}) == every
        assert await things.count_documents({"st": "old"}) == SPARE
