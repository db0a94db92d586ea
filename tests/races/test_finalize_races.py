"""Finalize beside writes to the very documents that it goes over, and one that is killed and gone on with."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import Any

import pymongo
import pytest

from shadow import Shadow
from shadow.embedded.audit import dynamo_client
from shadow.jobs.finalize import Finalize
from shadow.jobs.target import RouteChanged
from shadow.jobs.work import JobPace, Work
from shadow.model.operation import Insert
from shadow.model.phase import StoreName
from shadow.model.version import ABSENT, Image, Tombstone, Version, fresh_id
from tests.support.migration import control_of, finalize, finalize_in_another_process
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import spawn

SEEDS = range(20 if os.environ.get("SHADOW_LONG") == "1" else 1)
KEYS = 120
WRITERS = 4


@pytest.fixture(params=list(StoreName))
def kept(request: pytest.FixtureRequest, site: Site) -> Site:
    """The store that was kept is the primary; the phase is off."""
    return site.but(primary=str(request.param), phase="off")


async def disturb(shadow: Shadow, number: int, seed: int, ended: asyncio.Event, sums: Counter[int]) -> None:
    """Counts up, deletes and inserts anew the keys of one writer. `sums`: what each key must come to."""
    things, dice = shadow[COLLECTION], random.Random(WRITERS * seed + number)
    while not ended.is_set():
        key = dice.randrange(number, KEYS, WRITERS)
        match dice.randrange(4):
            case 0:
                await things.delete_one({"_id": key})
                sums[key] = 0
            case 1:
                await things.replace_one({"_id": key}, {"n": 5}, upsert=True)
                sums[key] = 5
            case _:
                await things.update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)
                sums[key] += 1


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_write_is_lost_beside_it(kept: Site, seed: int) -> None:
    """Every acknowledged write stands afterwards; what was deleted stays so; a last run leaves no version at all."""
    control, ended, sums = control_of(kept), asyncio.Event(), Counter[int]()
    async with kept.shadow() as shadow:
        await shadow.prepare()
        await plant(shadow, kept)
        sums.update(dict.fromkeys(range(0, KEYS, 2), 1))
        writers = [asyncio.create_task(disturb(shadow, each, seed, ended, sums)) for each in range(WRITERS)]
        for _ in range(3):
            job = await finalize(shadow, control, kept.primary, batch=10)
            assert job.counts["versions"] + job.counts["tombstones"] > 0
        ended.set()
        await asyncio.gather(*writers)
        found = {each["_id"]: each["n"] async for each in shadow[COLLECTION].find({})}
        assert found == {key: total for key, total in sums.items() if total}
        assert (await finalize(shadow, control, kept.primary)).outcome == "complete"
        assert stamped(kept) == 0
        assert {each["_id"]: each["n"] async for each in shadow[COLLECTION].find({})} == found
    control.close()


async def plant(shadow: Shadow, site: Site) -> None:
    """Documents at a version under even keys, tombstones under odd ones."""
    store = shadow.admin.sides(COLLECTION).stores[StoreName(site.primary)]
    for key in range(KEYS):
        even = Image(Version(fresh_id(), 3), {"_id": key, "n": 1})
        assert await store.put(COLLECTION, key, Image(Tombstone(fresh_id())) if key % 2 else even, ABSENT)


def stamped(site: Site) -> int:
    """How many versions and tombstones the store holds, read past everything."""
    if site.primary == "mongo":
        with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
            return client[site.database][COLLECTION].count_documents({"_shadow": {"$exists": True}})
    pages = dynamo_client(site.dynamo_url).get_paginator("scan")
    table = f"{site.prefix}{COLLECTION}"
    items = [item for page in pages.paginate(TableName=table, ConsistentRead=True) for item in page["Items"]]
    return sum(1 for item in items if {"b", "r", "t", "o"} & set(item.get("_shadow", {}).get("M", {})))


@pytest.mark.slow
async def test_one_that_is_killed_goes_on_where_it_was(kept: Site) -> None:
    """Killed again and again; the same job ends with nothing left and every document as it was."""
    count, batch, kills = 900, 20, 2
    async with kept.shadow() as shadow:
        await shadow.prepare()
        store = shadow.admin.sides(COLLECTION).stores[StoreName(kept.primary)]
        for start in range(0, count, 100):
            documents = [{"_id": f"k{start + n:05}", "n": n} for n in range(100)]
            inserts = [Insert(each["_id"], each, fresh_id()) for each in documents]
            await store.insert_many(COLLECTION, inserts, [fresh_id() for _ in inserts], ordered=False)
    control = control_of(kept)
    for turn in range(1, kills + 1):
        process = spawn(finalize_in_another_process, kept, kept.primary, batch)
        await until(lambda turn=turn: _seen(control) >= turn * count // (kills + 2), 90)
        process.kill()
        process.join()
        assert 0 < stamped(kept) < count
    async with kept.shadow() as shadow:
        job = await finalize(shadow, control, kept.primary, batch=batch)
        assert (job.id, job.outcome) == (1, "complete"), "the same job, gone on with"
        assert stamped(kept) == 0
        found = [each async for each in shadow[COLLECTION].find({})]
        assert sorted(found, key=lambda each: each["_id"]) == [{"_id": f"k{n:05}", "n": n % 100} for n in range(count)]
    control.close()


def _seen(control: Any) -> int:
    jobs = control.jobs()
    return jobs[0].counts.get("seen", 0) if jobs else 0


async def test_it_ends_when_the_collection_is_followed_again(kept: Site) -> None:
    """The phase goes on to dual writes under it: from then on the versions are needed, and none is taken."""
    control = control_of(kept)
    async with kept.shadow() as shadow:
        await shadow.prepare()
        await plant(shadow, kept)
        task = Finalize(shadow.admin.sides(COLLECTION), StoreName(kept.primary), apply=True, older_than=0.0)
        wanted = kept.but(phase="dual_write").settings()
        shadow.admin.fleet.wishes(wanted.routes(), {})
        assert await shadow.admin.fleet.change(COLLECTION, wanted.route(COLLECTION))
        await until(lambda: shadow._engine.parts.routes[COLLECTION].dual_write, 90)
        with pytest.raises(RouteChanged):
            await Work(task, control, JobPace(workers=2)).run()
        assert stamped(kept) == KEYS
    control.close()
