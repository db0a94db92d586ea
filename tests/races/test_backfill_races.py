"""A backfill beside writes to the very keys that it copies, and one that is killed and gone on with."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pymongo
import pytest

from shadow import Shadow
from tests.support.migration import backfill, control_of, copy_in_another_process, entered, load, verify
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import DEPLOYMENTS
from tests.support.writer import spawn

LONG = os.environ.get("SHADOW_LONG") == "1"
SEEDS = range(40 if LONG else 2)
KEYS = 150
ALTERNATING = ("one", "replicas")


async def disturb(shadow: Shadow, dice: random.Random, ended: asyncio.Event) -> int:
    """Updates, replaces, deletes and inserts anew, hundreds of times a second, until told to end."""
    things, done = shadow[COLLECTION], 0
    while not ended.is_set():
        key = dice.randrange(KEYS)
        match dice.randrange(5):
            case 0:
                await things.update_one({"_id": key}, {"$inc": {"n": 1}})
            case 1:
                await things.replace_one({"_id": key}, {"n": dice.randrange(1000), "replaced": True}, upsert=True)
            case 2:
                await things.delete_one({"_id": key})
            case 3:
                await things.delete_one({"_id": key})
                await things.replace_one({"_id": key}, {"n": -1, "again": True}, upsert=True)
            case _:
                await things.update_one({"_id": key}, {"$set": {"text": "x" * dice.randrange(60)}}, upsert=True)
        done += 1
    return done


@pytest.mark.parametrize(
    ("mongo_url", "seed"),
    [(deployment, seed) for seed in SEEDS for deployment in (DEPLOYMENTS if LONG else [ALTERNATING[seed]])],
    indirect=["mongo_url"],
)
async def test_a_backfill_beside_writes_to_the_same_keys_ends_in_equal_stores(site: Site, seed: int) -> None:
    """Nothing newer is overwritten, nothing deleted comes back, whatever the order in which things happen."""
    dice, ended = random.Random(seed), asyncio.Event()
    site = site.but(limits={"write_deadline": 2.0})
    load(site, [{"_id": key, "n": 0, "old": True} for key in range(KEYS)])
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        writers = [asyncio.create_task(disturb(shadow, random.Random(dice.random()), ended)) for _ in range(6)]
        job = await backfill(shadow, control, batch=dice.choice([5, 20, 100]))
        ended.set()
        writes = sum(await asyncio.gather(*writers))
        await site.level(shadow)
        assert job.outcome == "complete"
        assert writes > 20
        found = await verify(shadow, control)
        assert found.clean, found
    control.close()


async def test_a_backfill_the_other_way_round(site: Site) -> None:
    """DynamoDB is primary: MongoDB takes the copies, and meets live writes and tombstones as well."""
    away, back = site.but(phase="off", primary="dynamo"), site.but(primary="dynamo", limits={"write_deadline": 2.0})
    async with away.shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many([{"_id": key, "n": 0} for key in range(KEYS)])
    control, ended = control_of(site), asyncio.Event()
    async with back.shadow() as shadow:
        writers = [asyncio.create_task(disturb(shadow, random.Random(each), ended)) for each in range(3)]
        job = await backfill(shadow, control, batch=20)
        ended.set()
        await asyncio.gather(*writers)
        await back.level(shadow)
        assert job.outcome == "complete"
        assert (await verify(shadow, control)).clean
    control.close()


async def test_a_late_copy_changes_nothing_that_live_writes_have_left(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the read and the copy every key is updated, deleted, or deleted and inserted anew, and the secondary has
    it: the copy meets that, and the secondary does not move, not even for a moment."""
    load(site, [{"_id": key, "n": 0} for key in range(30)])
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        things, target = shadow[COLLECTION], shadow.admin.sides(COLLECTION).target
        real, answers = target.put_absent, []

        async def late(collection: str, images: Any) -> list[bool]:
            for key, _ in images:
                await things.update_one({"_id": key}, {"$inc": {"n": 1}})
                if key % 3:
                    await things.delete_one({"_id": key})
                if key % 3 == 2:
                    await things.insert_one({"_id": key, "n": 7})
            assert await shadow.settled(90)
            keys = [key for key, _ in images]
            before = await target.look(collection, keys, whole=True)
            done = await real(collection, images)
            assert await target.look(collection, keys, whole=True) == before
            answers.extend(done)
            return done

        monkeypatch.setattr(target, "put_absent", late)
        job = await backfill(shadow, control, workers=1)
        assert answers == [False] * 30
        assert job.outcome == "complete"
        await site.level(shadow)
        assert {each["n"] for each in (await site.documents()).values()} == {1, 7}
    control.close()


async def test_deletes_and_updates_past_the_shim_are_seen_after_the_copy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that knows nothing of shadow deletes between the read and the copy: the copy does not stay."""
    load(site, [{"_id": key, "n": 0} for key in range(50)])
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        target = shadow.admin.sides(COLLECTION).target
        real = target.put_absent

        async def late(collection: str, images: Any) -> list[bool]:
            with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
                read = [key for key, _ in images if key < 10]
                client[site.database][COLLECTION].delete_many({"_id": {"$in": read}})
            return await real(collection, images)

        monkeypatch.setattr(target, "put_absent", late)
        job = await backfill(shadow, control, workers=1)
        assert job.counts["moved"] == 10, job.counts
        await site.level(shadow)
        assert len(await site.documents()) == 40
    control.close()


@pytest.mark.slow
@pytest.mark.drawn_over("control", reason="what the job's checkpoints stand in")
@pytest.mark.parametrize("control", [None, "mongodb:///"], ids=["sqlite", "mongo"])
async def test_a_backfill_that_is_killed_goes_on_where_it_was(site: Site, control: str | None) -> None:
    """Killed again and again: nothing is lost, and no more is done twice than was at work when it was killed."""
    count, batch, kills = 1000, 20, 3
    site = site.but(limits={"write_deadline": 2.0}, control=control)
    load(site, [{"_id": f"k{number:05}", "n": number} for number in range(count)])
    async with site.shadow() as shadow:
        await shadow.prepare()
    jobs = control_of(site)
    for turn in range(1, kills + 1):
        before = _seen(jobs)
        process = spawn(copy_in_another_process, site, batch)
        # Not while it enters the fleet: the next one would wait for what such a death has sent to one store alone.
        await until(lambda turn=turn, before=before: _seen(jobs) > max(before, turn * count // (kills + 2)), 90)
        process.kill()
        process.join()
    async with site.shadow() as shadow:
        await entered(shadow, jobs)
        job = await backfill(shadow, jobs, batch=batch)
        await site.level(shadow)
    assert job.id == 1, "the same job, gone on with"
    assert job.outcome == "complete"
    assert job.counts["seen"] == count, "every document passed a checkpoint exactly once"
    assert job.counts["copied"] >= count - kills * 4 * batch, "only what was at work when killed was done again"
    jobs.close()


def _seen(control: Any) -> int:
    jobs = control.jobs()
    return jobs[0].counts.get("seen", 0) if jobs else 0


async def test_two_processes_share_a_job(site: Site, tmp_path: Path) -> None:
    """Each takes ranges that the other has not; every document is seen once. They begin at once: one has the say."""
    load(site, [{"_id": number, "n": number} for number in range(1000)])
    control, other = control_of(site), control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        jobs = await asyncio.gather(backfill(shadow, control, batch=20), backfill(shadow, other, batch=20))
        await site.level(shadow)
    (job,) = {job.id for job in jobs}
    assert control.job(job).counts["seen"] == control.job(job).counts["copied"] == 1000
    assert control.job(job).outcome == "complete"
    control.close()
    other.close()
