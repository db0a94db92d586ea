"""A real rollback on a replica set of three: what the primary had alone is gone when another member takes its place.

Nothing that was acknowledged goes that way, nothing that goes that way is settled in the other store, and what nobody
could know is marked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient, WriteConcern
from pymongo.errors import PyMongoError

from shadow import Shadow
from shadow.errors import ShadowError
from shadow.model.outcome import Outcome, classify
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Image, Version
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoContext, MongoStore
from tests.support import services
from tests.support.migration import control_of, verify
from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import ReplicaSet

LIMITS = {"operation": 3.0, "write_deadline": 2.0}

DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])

Things = Any
WRITES: dict[str, Callable[[Things], Awaitable[Any]]] = {
    "insert_one": lambda things: things.insert_one({"_id": "new"}),
    "insert_many": lambda things: things.insert_many([{"_id": "new"}, {"_id": "newer"}]),
    "update_one": lambda things: things.update_one({"_id": "old"}, {"$inc": {"n": 1}}),
    "upsert": lambda things: things.update_one({"_id": "new"}, {"$inc": {"n": 1}}, upsert=True),
    "replace_one": lambda things: things.replace_one({"_id": "old"}, {"n": 7}),
    "delete_one": lambda things: things.delete_one({"_id": "old"}),
    "find_one_and_update": lambda things: things.find_one_and_update({"_id": "old"}, {"$inc": {"n": 1}}),
}


@pytest.fixture(scope="module")
def own_replica_set() -> Iterator[ReplicaSet]:
    """One that soon elects another primary."""
    with services.start(ReplicaSet) as server:
        yield server


@pytest.fixture
def site(own_replica_set: ReplicaSet, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    journal = str(tmp_path / "shadow.db")
    return Site(own_replica_set.url, fresh_name, dynamodb_local_url, f"{fresh_name}-", journal, limits=LIMITS)


@asynccontextmanager
async def rolling_back(own_replica_set: ReplicaSet) -> AsyncIterator[None]:
    """`ReplicaSet.rolling_back`, with the event loop going on."""
    block = own_replica_set.rolling_back()
    await asyncio.to_thread(block.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)


def alone(site: Site) -> Any:
    """The primary's collection, for somebody who is content with the primary alone."""
    client = MongoClient[dict[str, Any]](site.mongo_url)
    return client[site.database].get_collection(COLLECTION, write_concern=WriteConcern(1))


@pytest.mark.takes_turns
@pytest.mark.parametrize(
    ("asked", "driver"),
    [("&w=1", "motor"), ("&w=0", "pymongo"), ("&w=1&journal=true", "pymongo"), ("&w=here", "motor")],
)
async def test_what_was_rolled_back_had_not_been_acknowledged(
    site: Site, own_replica_set: ReplicaSet, asked: str, driver: str
) -> None:
    weak = site.but(mongo_url=site.mongo_url + asked, driver=driver)
    async with weak.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "old", "n": 0})
        await site.level(shadow)
        async with rolling_back(own_replica_set):
            results = await asyncio.gather(*(write(things) for write in WRITES.values()), return_exceptions=True)
        for verb, result in zip(WRITES, results, strict=True):
            assert isinstance(result, Exception), f"{verb} was acknowledged: {result}"
        assert Outcome.UNKNOWN in {classify(error) for error in results if isinstance(error, Exception)}
        await site.level(shadow)
        assert await things.find_one({"_id": "old"}) == {"_id": "old", "n": 0}
        assert await things.count_documents({}) == 1
        doubted = (await shadow.admin.status())["journal"]["verify_since"]
        # What one member had acknowledged in the words of the application's own choice is marked.
        assert list(doubted) == ([COLLECTION] if asked == "&w=here" else [])


@pytest.mark.takes_turns
@pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])
async def test_a_client_that_was_handed_in_is_raised_too(site: Site, own_replica_set: ReplicaSet, make: Any) -> None:
    client = make(f"{site.mongo_url}&w=1")
    async with Shadow(site.settings(), mongo_client=client) as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "old", "n": 0})
        async with rolling_back(own_replica_set):
            for each in (things, things.with_options(write_concern=WriteConcern(1))):
                with pytest.raises(PyMongoError) as caught:
                    await each.update_one({"_id": "old"}, {"$inc": {"n": 1}})
                assert classify(caught.value) is Outcome.UNKNOWN
        await site.level(shadow)
        assert await things.find_one({"_id": "old"}) == {"_id": "old", "n": 0}
    closed = client.close()
    if closed is not None:
        await closed


@pytest.mark.parametrize(("primary", "driver"), [("mongo", "motor"), ("dynamo", "pymongo")])
async def test_nothing_is_healed_after_what_can_be_rolled_back(
    site: Site, own_replica_set: ReplicaSet, primary: str, driver: str
) -> None:
    """MongoDB as primary: a copy of it would outlive it. As secondary: it looks as if the copy had arrived."""
    site = site.but(primary=primary, driver=driver)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": "k", "n": 0})
        await site.level(shadow)
        # The stores differ, and MongoDB gets a state that it will not keep: with it they seem equal.
        if primary == "dynamo":
            await asyncio.to_thread(alone(site).delete_one, {"_id": "k"})
            await asyncio.to_thread(own_replica_set.wait_until_whole)
        standing = await shadow.admin.images(COLLECTION, "k")
        async with rolling_back(own_replica_set):
            stamp = {"b": standing[0].state.born, "r": 2 if primary == "mongo" else 1}  # type: ignore[union-attr]
            passing = {"n": 1 if primary == "mongo" else 0, "_shadow": stamp}
            await asyncio.to_thread(alone(site).replace_one, {"_id": "k"}, passing, upsert=True)
            with pytest.raises((PyMongoError, TimeoutError)):
                await shadow.admin.heal(COLLECTION, "k")
        expected = Healing.EQUAL if primary == "mongo" else Healing.COPIED
        assert await shadow.admin.heal(COLLECTION, "k") is expected
        await site.level(shadow)
        assert await shadow[COLLECTION].find_one({"_id": "k"}) == {"_id": "k", "n": 0}


@pytest.mark.takes_turns
@DRIVERS
async def test_no_read_that_something_is_settled_by_shows_what_can_be_rolled_back(
    site: Site, own_replica_set: ReplicaSet, driver: str
) -> None:
    store = MongoStore(
        connect(site.mongo_url, driver), site.database, {}, owned=True, context=MongoContext(operation_limit=1.0)
    )

    async def walk() -> None:
        pages = store.ranges.walk(COLLECTION, {}, None, size=10, whole=True, filter={})
        async for batch in pages:
            assert [key for key, _ in batch.images] == ["kept"]

    try:
        assert await store.put(COLLECTION, "kept", Image(Version("b", 1), {"_id": "kept"}), ABSENT)
        await walk()
        async with rolling_back(own_replica_set):
            await asyncio.to_thread(alone(site).insert_one, {"_id": "gone"})
            reads: list[Callable[[], Awaitable[object]]] = [
                lambda: store.image(COLLECTION, "gone"),
                lambda: store.ranges.look(COLLECTION, ["gone"], whole=True),
                walk,
            ]
            for read in reads:
                with pytest.raises(PyMongoError):
                    await read()
        assert await store.image(COLLECTION, "gone") == Image(ABSENT)
        await walk()
    finally:
        await store.close()


async def test_what_was_acknowledged_by_name_and_not_by_a_majority_is_marked_until_it_was_verified(
    site: Site, own_replica_set: ReplicaSet
) -> None:
    named = site.but(mongo_url=f"{site.mongo_url}&w=here")
    async with named.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "old", "n": 0})
        assert (await shadow.admin.status())["journal"]["verify_since"] == {}, "a majority has it: nothing is in doubt"
        async with rolling_back(own_replica_set):
            with pytest.raises(PyMongoError) as caught:
                await things.update_one({"_id": "old"}, {"$inc": {"n": 1}})
            assert classify(caught.value) is Outcome.UNKNOWN
            assert list((await shadow.admin.status())["journal"]["verify_since"]) == [COLLECTION]
        await site.level(shadow)
        control = control_of(named)
        try:
            assert (await verify(shadow, control)).clean
        finally:
            control.close()
        assert (await shadow.admin.status())["journal"]["verify_since"] == {}


async def test_a_step_down_in_the_middle_of_writes_loses_and_doubles_nothing(
    site: Site, own_replica_set: ReplicaSet
) -> None:
    """Retried by the driver, or unknown and healed: the counter holds what was acknowledged, and at most the rest."""
    async with site.but(limits={**LIMITS, "operation": 20.0}).shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "n", "n": 0})
        stepping = asyncio.ensure_future(asyncio.to_thread(own_replica_set.step_down))
        acked = unknown = 0
        while not stepping.done() or acked < 5:
            try:
                await things.update_one({"_id": "n"}, {"$inc": {"n": 1}})
                acked += 1
            except (PyMongoError, ShadowError):
                unknown += 1
        await stepping
        await site.level(shadow)
        found = await things.find_one({"_id": "n"})
        assert acked <= found["n"] <= acked + unknown
    await asyncio.to_thread(own_replica_set.wait_until_whole)
