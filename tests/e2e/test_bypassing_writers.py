"""Writers that go past the shim, on real servers with either store as primary: each is found, counted and named, and
nobody else is accused of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from prometheus_client.parser import text_string_to_metric_families

from shadow import Shadow
from shadow.model.verdict import Healing
from tests.support.bare import BareMongo, BareWriter, bare_writer
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

ROUNDS = 200 if os.environ.get("SHADOW_LONG") else 15


@pytest.fixture(params=["mongo", "dynamo"])
def site(
    request: pytest.FixtureRequest,
    mongo_url: str,
    mongo_database: str,
    dynamodb_local_url: str,
    fresh_name: str,
    tmp_path: Path,
) -> Site:
    """Both stores in phase shadow; either is primary."""
    journal = str(tmp_path / "shadow.db")
    limits = {"read_deadline": 20.0, "write_deadline": 20.0, "operation": 60.0}
    return Site(
        mongo_url,
        mongo_database,
        dynamodb_local_url,
        f"{fresh_name}-",
        journal,
        primary=request.param,
        phase="shadow",
        limits=limits,
    )


@pytest.fixture
def bare(site: Site) -> BareWriter:
    return bare_writer(site)


def patient(site: Site, **observe: Any) -> Shadow:
    """A Shadow that waits longer for DynamoDB than a loaded machine takes."""
    settings = site.settings()
    dynamo = settings.dynamo.model_copy(update={"connect_timeout": 20.0, "read_timeout": 20.0})
    observing = settings.observe.model_copy(update=observe)
    return Shadow(settings.model_copy(update={"dynamo": dynamo, "observe": observing}))


@contextlib.asynccontextmanager
async def running(site: Site) -> AsyncIterator[Shadow]:
    shadow = patient(site)
    try:
        await shadow.prepare()
        yield shadow
    finally:
        await shadow.close()


def counted(shadow: Shadow) -> dict[str, float]:
    """What the metric says, by kind, without zeros."""
    families = text_string_to_metric_families(shadow.admin.metrics()[0].decode())
    samples = (each for family in families for each in family.samples)
    return {
        each.labels["kind"]: each.value
        for each in samples
        if each.name == "shadow_out_of_band_writes_total" and each.labels["collection"] == COLLECTION and each.value
    }


async def read(shadow: Shadow, key: Any, times: int = 1) -> None:
    for _ in range(times):
        await shadow[COLLECTION].find_one({"_id": key})
        assert await shadow.settled(90)


FOLLOWED: dict[str, Callable[[BareWriter, Any], Awaitable[None]]] = {
    "changed": lambda bare, key: bare.update(key),
    "replaced": lambda bare, key: bare.replace(key),
    "deleted": lambda bare, key: bare.delete(key),
}


@pytest.mark.takes_turns
@pytest.mark.parametrize("kind", FOLLOWED)
async def test_a_bare_write_to_a_document_of_ours_is_found_and_named(site: Site, bare: BareWriter, kind: str) -> None:
    """Once counted, however often it is read; `/status` says by collection how many, since when and what to do; a
    heal brings the secondary level."""
    async with running(site) as shadow:
        await shadow[COLLECTION].insert_many([{"_id": "k", "n": 1}, {"_id": "other", "n": 1}])
        await site.level(shadow)
        await FOLLOWED[kind](bare, "k")
        await read(shadow, "k", times=2)
        await read(shadow, "other")
        assert counted(shadow) == {kind: 1}
        found = (await shadow.admin.status())["bypassing"]
        assert set(found) == {COLLECTION}
        assert (found[COLLECTION]["count"], found[COLLECTION]["kinds"]) == (1, {kind: 1})
        assert found[COLLECTION]["first_seen"] <= found[COLLECTION]["last_seen"]
        assert found[COLLECTION]["means"].keys() == {kind}
        assert "shadow" in found[COLLECTION]["advice"]
        await shadow.admin.heal(COLLECTION, "k")
        await read(shadow, "k")
        assert counted(shadow) == {kind: 1}


async def test_a_bare_insert_is_found_by_the_time_in_its_key(site: Site, bare: BareWriter) -> None:
    """One that was made before the shim was there is a document of before, which the copy has yet to bring over."""
    before = ObjectId.from_datetime(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    async with running(site) as shadow:
        begun = time.time()
        await until(lambda: int(time.time()) > begun)
        new = ObjectId()
        await bare.insert(before)
        await bare.insert(new)
        await bare.insert("a key that says nothing")
        for key in (before, "a key that says nothing", new):
            await read(shadow, key)
        assert counted(shadow) == {"inserted": 1}


async def test_a_bare_insert_where_the_shim_has_deleted_is_found(site: Site, bare: BareWriter) -> None:
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "k", "n": 1})
        await things.delete_one({"_id": "k"})
        await site.level(shadow)
        await bare.insert("k")
        await read(shadow, "k")
        assert counted(shadow) == {"inserted": 1}


async def test_every_bare_write_of_a_key_counts(site: Site, bare: BareWriter) -> None:
    async with running(site) as shadow:
        await shadow[COLLECTION].insert_one({"_id": "k", "n": 1})
        await site.level(shadow)
        await bare.update("k")
        await read(shadow, "k")
        assert await shadow.admin.heal(COLLECTION, "k") is Healing.COPIED
        await bare.replace("k")
        await read(shadow, "k")
        assert counted(shadow) == {"changed": 1, "replaced": 1}


async def test_documents_of_before_the_migration_accuse_nobody(site: Site, bare: BareWriter) -> None:
    """Not copied yet, copied by a heal, changed by the shim after that: nothing of it went past the shim."""
    keys = [f"before{n}" for n in range(4)]
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        for key in keys:
            await bare.insert(key)
        for key in keys:
            await read(shadow, key)
        await shadow.admin.heal(COLLECTION, keys[1])
        await shadow.admin.heal(COLLECTION, keys[2])
        await things.update_one({"_id": keys[2]}, {"$set": {"n": 1}})
        await things.update_one({"_id": keys[3]}, {"$set": {"n": 1}})
        await things.delete_one({"_id": keys[1]})
        for key in keys:
            await read(shadow, key)
        assert counted(shadow) == {}
        assert (await shadow.admin.status())["bypassing"] == {}


@pytest.mark.timeout(900)
async def test_a_concurrent_workload_of_the_shim_accuses_nobody(site: Site) -> None:
    """Writes, deletes, re-inserts, replacements and heals of hot keys by two processes, read all the while."""
    rng = random.Random(7)
    async with running(site) as shadow, running(site) as other:

        async def write(things: Any) -> None:
            for _ in range(ROUNDS):
                key = f"hot{rng.randrange(6)}"
                verb = rng.choice(["update", "update", "upsert", "replace", "delete", "heal"])
                if verb == "delete":
                    await things.delete_one({"_id": key})
                elif verb == "replace":
                    await things.replace_one({"_id": key}, {"n": rng.randrange(9)}, upsert=True)
                elif verb == "heal":
                    await shadow.admin.heal(COLLECTION, key)
                else:
                    await things.update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=verb == "upsert")

        async def look(things: Any) -> None:
            for _ in range(ROUNDS):
                await things.find_one({"_id": f"hot{rng.randrange(6)}"})
                await things.find({"n": {"$gte": 0}}).to_list(None)

        work = [each(shadow_[COLLECTION]) for each in (write, write, look) for shadow_ in (shadow, other)]
        await asyncio.gather(*work)
        assert await other.settled(90)
        await site.level(shadow)
        assert counted(shadow) == counted(other) == {}


@pytest.fixture
async def watching(site: Site) -> AsyncIterator[Shadow]:
    """A Shadow that watches MongoDB's change streams, and sees what is written from now on."""
    shadow = patient(site, watch_writers=True)
    try:
        await shadow.prepare()
        seen = 0
        bare = BareMongo(site)
        async with asyncio.timeout(90):
            while not counted(shadow):
                seen += 1
                await bare.insert(f"a beginning {seen}")
                await asyncio.sleep(0.1)
        assert await shadow.settled(90)
        yield shadow
    finally:
        await shadow.close()


def but_the_beginning(shadow: Shadow) -> dict[str, float]:
    return {kind: count for kind, count in counted(shadow).items() if kind != "inserted"}


@pytest.mark.takes_turns
async def test_the_watch_counts_bare_writes_on_mongodb_as_they_happen(watching: Shadow, site: Site) -> None:
    """Though nobody reads them, and documents of before the migration too; a read that comes upon one afterwards does
    not count it again."""
    things, bare = watching[COLLECTION], BareMongo(site)
    await things.insert_many([{"_id": f"k{n}", "n": n} for n in range(3)])
    await site_level_but_beginnings(site, watching)
    await bare.update("k0")
    await bare.replace("k1")
    expected = {"changed": 1.0, "replaced": 1.0}
    if site.primary == "mongo":
        await bare.delete("k2")
        expected["deleted"] = 1.0
    await until(lambda: but_the_beginning(watching) == expected, 90)
    for key in ("k0", "k1", "k2"):
        await read(watching, key)
    before = counted(watching)["inserted"]
    assert but_the_beginning(watching) == expected
    await bare.insert("one more")
    await until(lambda: counted(watching)["inserted"] == before + 1, 90)
    status = await watching.admin.status()
    assert status["writer_watch"] == "on"
    assert status["bypassing"][COLLECTION]["kinds"]["changed"] == 1


@pytest.mark.takes_turns
async def test_the_watch_accuses_nobody_of_what_the_shim_writes(watching: Shadow, site: Site) -> None:
    """Every kind of verb, heals and deletes; the last bare writes show that all before them has been seen."""
    things = watching[COLLECTION]
    before = counted(watching)
    await things.insert_many([{"_id": f"k{n}", "n": n} for n in range(20)])
    await things.update_many({"n": {"$lt": 10}}, {"$inc": {"n": 100}, "$unset": {"gone": ""}})
    await things.update_one({"_id": "k1"}, [{"$set": {"n": 0}}])
    await things.replace_one({"_id": "k2"}, {"m": 1})
    await things.find_one_and_update({"_id": "k3"}, {"$push": {"list": 1}}, upsert=True)
    await things.delete_many({"n": {"$gt": 105}})
    await things.delete_one({"_id": "k4"})
    await things.insert_one({"_id": "k4", "n": 1})
    await watching.admin.heal(COLLECTION, "k5")
    assert await watching.settled(90)
    bare = BareMongo(site)
    await bare.delete("k11")
    await bare.insert("the last")
    await until(lambda: counted(watching)["inserted"] == before["inserted"] + 1, 90)
    # Deletes are looked into one after the other: when this one has been, all before it have.
    last = {"deleted": 1.0} if site.primary == "mongo" else {}
    await until(lambda: but_the_beginning(watching).keys() >= last.keys(), 90)
    assert but_the_beginning(watching) == last


async def site_level_but_beginnings(site: Site, shadow: Shadow) -> None:
    assert await shadow.settled(90)
    assert {str(each.key)[:11] for each in await site.disagreements()} <= {"a beginning"}
