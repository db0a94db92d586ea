"""What is said to MongoDB about durability, by every verb: a majority where there are several members, nothing more
than the client says where there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient, monitoring

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Delete, Insert, Replace, Update, Verb, Write
from shadow.model.phase import StoreName
from shadow.model.version import ABSENT, Image, Tombstone, Version, fresh_id
from shadow.stores.mongo.durability import WeakWrites
from shadow.stores.mongo.store import MongoStore
from shadow.stores.stamps import Stamp
from tests.support.shadows import Site
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import ReplicaSet

NAME = "things"
MAJORITY = {"w": "majority"}
WRITES = {"insert", "update", "findAndModify", "delete"}

CLIENTS = pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])


class Said(monitoring.CommandListener):
    """The write concern of each write that was sent, and the read concern of each read."""

    def __init__(self) -> None:
        self.writes: list[Any] = []
        self.reads: list[Any] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        # What the fleet notes of a database is no write of the application's.
        if event.command_name in WRITES and event.command[event.command_name] == NAME:
            self.writes.append(event.command.get("writeConcern"))
        if event.command_name == "find":
            self.reads.append(event.command.get("readConcern"))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
async def spoken(make: Any, mongo_url: str, mongo_database: str, asked: str) -> AsyncIterator[tuple[MongoStore, Said]]:
    said = Said()
    store = MongoStore(make(mongo_url + asked, event_listeners=[said]), mongo_database, {}, owned=True)
    yield store, said
    await store.close()


async def write_all(store: MongoStore) -> int:
    """Every way in which a document is written; how many commands that takes."""
    update = Update(1, {"_id": 1}, {"$inc": {"n": 1}}, fresh_id(), upsert=False)
    inserted = await store.apply(NAME, Insert(1, {"_id": 1}, fresh_id()), fresh_id())
    assert inserted is not None
    await store.insert_many(NAME, [Insert(2, {"_id": 2}, fresh_id())], [fresh_id()], ordered=True)
    await store.apply(NAME, update, fresh_id())
    await store.apply(NAME, Update(3, {"_id": 3}, {"$set": {"n": 1}}, fresh_id(), upsert=True), fresh_id())
    await store.apply(NAME, Update(1, {"_id": 1}, [{"$set": {"n": 7}}], fresh_id()), fresh_id())
    await store.apply(NAME, Replace(1, {"_id": 1}, {"_id": 1}, fresh_id(), upsert=False), fresh_id())
    return 7


async def follow_all(store: MongoStore) -> int:
    """Every way in which what another store holds is written."""
    image = Image(Version("b" * 24, 1), {"_id": 8, "n": 1})
    after = Image(Version("b" * 24, 2), {"_id": 8, "n": 2})
    assert await store.put(NAME, 8, image, ABSENT)
    update = Update(8, {"_id": 8}, {"$inc": {"n": 1}}, fresh_id())
    assert await store.replay(NAME, Write(NAME, Verb.UPDATE_ONE, "o", update, image.state, after)) == after
    delete = Delete(8, {"_id": 8}, fresh_id())
    gone = Write(NAME, Verb.DELETE_ONE, "o", delete, after.state, Image(ABSENT))
    assert await store.replay(NAME, gone) == Image(Tombstone(delete.tombstone))
    assert await store.ranges.put_absent(NAME, [(9, Image(Version("b" * 24, 1), {"_id": 9}))]) == [True]
    assert await store.stamps.strip(NAME, [Stamp(9, Version("b" * 24, 1))]) == [True]
    return 5


async def read_for_good(store: MongoStore) -> int:
    """Every read that something is settled by."""
    await store.image(NAME, 9)
    await store.chosen(NAME, fresh_id())
    await store.ranges.look(NAME, [9], whole=True)
    walk = store.ranges.walk(NAME, {}, None, size=100, whole=True, filter={})
    assert [len(batch.images) async for batch in walk]
    return 6  # a walk is a page, the end behind it, and the last of all keys by itself


@CLIENTS
@pytest.mark.parametrize("mongo_url", ["replicas"], indirect=True)
@pytest.mark.parametrize("asked", ["", "&w=1", "&w=0", "&w=2&journal=false", "&w=majority"])
async def test_in_a_set_every_write_asks_for_a_majority(spoken: tuple[MongoStore, Said], asked: str) -> None:
    store, said = spoken
    count = await write_all(store) + await follow_all(store)
    assert said.writes == [MAJORITY] * count
    said.reads.clear()
    count = await read_for_good(store)
    assert said.reads == [{"level": "linearizable"}] * count


@CLIENTS
@pytest.mark.parametrize("mongo_url", ["replicas"], indirect=True)
@pytest.mark.parametrize(("asked", "kept"), [("&w=3", {"w": 3}), ("&w=here", {"w": "here"})])
async def test_more_than_a_majority_is_asked_for_as_it_is_and_a_majority_is_waited_for(
    spoken: tuple[MongoStore, Said], asked: str, kept: Any
) -> None:
    store, said = spoken
    count = await write_all(store)
    assert said.writes == [kept] * count
    assert said.reads.count({"level": "linearizable"}) == 6  # once for each operation
    said.writes.clear()
    count = await follow_all(store)
    assert said.writes == [MAJORITY] * count


@CLIENTS
@pytest.mark.parametrize("mongo_url", ["one"], indirect=True)
@pytest.mark.parametrize(
    ("asked", "kept"), [("", None), ("&w=1", {"w": 1}), ("&w=1&journal=true", {"w": 1, "j": True})]
)
async def test_a_single_member_is_asked_for_what_the_client_says(
    spoken: tuple[MongoStore, Said], asked: str, kept: Any
) -> None:
    store, said = spoken
    count = await write_all(store) + await follow_all(store)
    assert said.writes == [kept] * count
    await read_for_good(store)
    assert set(map(str, said.reads)) == {"{'level': 'local'}"}


@CLIENTS
@pytest.mark.parametrize("mongo_url", ["one"], indirect=True)
@pytest.mark.parametrize("asked", ["&w=0"])
async def test_a_write_without_an_answer_gets_one_everywhere(spoken: tuple[MongoStore, Said], asked: str) -> None:
    store, said = spoken
    count = await write_all(store)
    assert said.writes == [MAJORITY] * count


@pytest.mark.takes_turns
@pytest.mark.parametrize("mongo_url", ["replicas"], indirect=True)
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("primary", list(StoreName))
async def test_what_is_raised_is_said_once(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path, driver: str, primary: StoreName,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = settings_for(
        tmp_path, f"{mongo_url}&w=1", dynamodb_local_url, mongo_database, [NAME], primary=primary, driver=driver
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        for key in range(3):
            await shadow[NAME].insert_one({"_id": key})
        await shadow[NAME].delete_one({"_id": 2})
        await assert_level(shadow)
        assert (
            "majority" in (await shadow.admin.status())["stores"]["mongo"]["write_concern"]
            or primary is StoreName.DYNAMO
        )
    told = [record for record in caplog.records if "writes.raised" in record.getMessage()]
    assert len(told) == (primary is StoreName.MONGO)


@CLIENTS
@pytest.mark.parametrize("mongo_url", ["replicas"], indirect=True)
@pytest.mark.parametrize("primary", list(StoreName))
@pytest.mark.parametrize("handed_in", [False, True])
async def test_where_weak_writes_are_refused_neither_store_is_asked(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path, make: Any, primary: StoreName,
    handed_in: bool,
) -> None:  # fmt: skip
    weak = f"{mongo_url}&w=1"
    settings = settings_for(tmp_path, weak, dynamodb_local_url, mongo_database, [NAME], primary=primary)
    settings = settings.model_copy(
        update={"mongo": settings.mongo.model_copy(update={"weak_writes": WeakWrites.REFUSE})}
    )
    client = make(weak) if handed_in else None
    async with Shadow.from_settings(settings, mongo_client=client) as shadow:
        await shadow.prepare()
        things = shadow[NAME]
        for call in (
            lambda: things.insert_one({"_id": 1}),
            lambda: things.insert_many([{"_id": 1}, {"_id": 2}]),
            lambda: things.update_one({"_id": 1}, {"$set": {"n": 1}}, upsert=True),
            lambda: things.delete_one({"_id": 1}),
        ):
            with pytest.raises(UnsupportedOperation, match=r"w=1[\s\S]*w=majority"):
                await call()
        assert await things.count_documents({}) == 0
        assert (await shadow.admin.journal_stats()).passed.get(NAME, 0) == 0
        await assert_level(shadow)
    if client is not None:
        closed = client.close()
        if closed is not None:
            await closed


async def test_the_server_s_own_default_is_not_relied_on(
    own_replica_set: ReplicaSet, fresh_name: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    said, url = Said(), own_replica_set.url
    with MongoClient[dict[str, Any]](url) as client:
        client.admin.command({"setDefaultRWConcern": 1, "defaultWriteConcern": {"w": 1}})
    site = Site(url, fresh_name, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "j.db"))
    site = site.but(patience=10.0)
    driver: Any = AsyncMongoClient(url, event_listeners=[said])
    shadow = Shadow(site.settings(), mongo_client=driver)
    async with shadow:
        await shadow.prepare()
        said.writes.clear()
        await shadow[NAME].insert_one({"_id": 1})
        await shadow[NAME].update_one({"_id": 1}, {"$set": {"n": 1}})
        await site.level(shadow)
    await driver.close()
    assert said.writes == [MAJORITY] * 2
