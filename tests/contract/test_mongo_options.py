"""Every option of a connection to MongoDB on real servers: what the application reads by, what its writes look up by,
what they are written with, and what shadow asks by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import make_read_preference

from shadow.model.newest import newest
from shadow.model.operation import ANY, Delete, Insert, Query, Replace, Update, Verb, Write
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import ABSENT, Image, Version, fresh_id
from shadow.stores.mongo.store import MongoContext, MongoStore
from shadow.stores.stamps import Stamp
from tests.support.topologies import Members, admit
from tests.support.trail_of_commands import READS, WRITES, Commands, Said

NAME = "things"
CLIENTS = pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])
REPLICAS = pytest.mark.parametrize("mongo_url", ["replicas"], indirect=True)


# --- the four kinds of calls ------------------------------------------------------------------------------------


async def read_all(store: MongoStore) -> None:
    """Every read of an application."""
    query = Query(filter={"n": 1})
    await store.find_one(NAME, query)
    assert [page async for page in store.find(NAME, Query(filter={}, sort=(("n", 1),)))]
    await store.count(NAME, {})
    await store.distinct(NAME, "n", {})
    await store.aggregate(NAME, [{"$group": {"_id": "$n"}}])


async def look_up(store: MongoStore) -> None:
    """What writes by a filter look their documents up with."""
    assert [page async for page in store.find(NAME, Query(filter={}, projection={"_id": 1}, newest=True))]
    await store.find_one(NAME, Query(filter={}, newest=True))
    await store.chosen(NAME, fresh_id())


async def write_all(store: MongoStore) -> None:
    """Every way in which the application's documents are written."""
    await store.apply(NAME, Insert("a", {"_id": "a", "n": 1}, fresh_id()), fresh_id())
    await store.insert_many(NAME, [Insert("b", {"_id": "b"}, fresh_id())], [fresh_id()], ordered=True)
    await store.apply(NAME, Update(ANY, {"n": 1}, {"$inc": {"n": 0}}, fresh_id(), new="z"), fresh_id())
    await store.apply(NAME, Update("c", {"_id": "c"}, {"$set": {"n": 1}}, fresh_id(), upsert=True), fresh_id())
    await store.apply(NAME, Replace("a", {"_id": "a"}, {"_id": "a", "n": 1}, fresh_id()), fresh_id())
    await store.apply(NAME, Delete("b", {"_id": "b"}, fresh_id()), fresh_id())


async def own_reads(store: MongoStore) -> None:
    """Every read that decides something: confirmations, heal, verify, backfill, finalize."""
    with newest():
        await read_all(store)
    await store.image(NAME, "a")
    await store.images(NAME, ["a", "c"])
    await store.holders(NAME, "x", {"_id": "x", "n": 1})
    await store.has_stamps(NAME, 5.0)
    await store.token(NAME)
    await store.ranges.estimate(NAME)
    await store.ranges.cut(NAME, 2)
    await store.ranges.look(NAME, ["a"], whole=True)
    walk = store.ranges.walk(NAME, {}, None, size=100, whole=True, filter={})
    assert [batch async for batch in walk]
    await store.stamps.look(NAME, ["a"])
    assert [batch async for batch in store.stamps.walk(NAME, {}, None, size=100)]


async def own_writes(store: MongoStore) -> None:
    """Every write that the application has not asked for."""
    image = Image(Version("b" * 24, 1), {"_id": 8, "n": 8})
    after = Image(Version("b" * 24, 2), {"_id": 8, "n": 9})
    assert await store.put(NAME, 8, image, ABSENT)
    update = Update(8, {"_id": 8}, {"$inc": {"n": 1}}, fresh_id())
    assert await store.replay(NAME, Write(NAME, Verb.UPDATE_ONE, "o", update, image.state, after)) == after
    assert await store.ranges.put_absent(NAME, [(9, Image(Version("b" * 24, 1), {"_id": 9, "n": 10}))]) == [True]
    assert await store.stamps.strip(NAME, [Stamp(9, Version("b" * 24, 1))]) == [True]
    await store.set_token(NAME, "t")
    await store.prepare([CollectionSpec(NAME, unique=(UniqueSpec("n-unique", ("m",), sparse=True),))])


@pytest.fixture
async def spoken(
    make: Any, mongo_url: str, mongo_database: str, asked: str
) -> AsyncIterator[tuple[MongoStore, Commands]]:
    commands = Commands()
    client = make(f"{mongo_url}&{asked or 'appName=app'}", event_listeners=[commands])
    store = MongoStore(client, mongo_database, {}, owned=True)
    plain = MongoStore(make(f"{mongo_url}&w=3"), mongo_database, {}, owned=True)
    await plain.prepare([CollectionSpec(NAME)])
    await plain.apply(NAME, Insert("first", {"_id": "first", "n": 1}, fresh_id()), fresh_id())
    await plain.close()
    yield store, commands
    await store.close()


def members(said: list[Said]) -> set[int | None]:
    return {each.member[1] for each in said}


# --- which member, and what it shows -----------------------------------------------------------------------------

ANSWERERS = [
    ("", "primary"),
    ("readPreference=primary", "primary"),
    ("readPreference=primaryPreferred", "primary"),
    ("readPreference=secondary", "secondary"),
    ("readPreference=secondaryPreferred&maxStalenessSeconds=120", "secondary"),
    ("readPreference=nearest&localThresholdMS=1000&readPreferenceTags=m0:yes", "m0"),
    ("readPreference=nearest&localThresholdMS=1000&readPreferenceTags=m9:yes&readPreferenceTags=m1:yes", "m1"),
]


@CLIENTS
@REPLICAS
@pytest.mark.parametrize(("asked", "who"), ANSWERERS)
async def test_the_application_reads_where_it_says_and_everything_else_is_asked_of_the_primary(
    spoken: tuple[MongoStore, Commands], replica_set: Members, who: str
) -> None:
    store, commands = spoken
    primary = {replica_set.primary.port}
    others = {each.port for each in replica_set.secondaries()}
    await store.ping()
    commands.take()
    await read_all(store)
    answered = members(commands.take(READS))
    if who in ("primary", "secondary"):
        assert answered <= (primary if who == "primary" else others)
    else:
        assert answered == {replica_set.tagged(who).port}
    for calls in (look_up, write_all, own_reads, own_writes):
        await calls(store)
        assert members(commands.take()) == primary, calls


@CLIENTS
@REPLICAS
@pytest.mark.parametrize("asked", [f"readConcernLevel={name}" for name in ("local", "majority", "snapshot")])
async def test_the_application_reads_with_its_own_concern_and_shadow_with_what_the_answer_needs(
    spoken: tuple[MongoStore, Commands], asked: str
) -> None:
    store, commands = spoken
    await read_all(store)
    assert {each.read_concern for each in commands.take(READS)} == {asked.partition("=")[2]}
    await look_up(store)
    # A write that found its document is told from one that found none by the newest that a majority has.
    assert [each.read_concern for each in commands.take(READS)] == ["local", "local", "linearizable"]
    await write_all(store)
    assert {each.read_concern for each in commands.take(WRITES)} == {None}
    await own_reads(store)
    assert {each.read_concern for each in commands.take(READS)} <= {"local", "linearizable"}
    with newest():
        await read_all(store)
    assert {each.read_concern for each in commands.take(READS)} == {"linearizable"}


@CLIENTS
@REPLICAS
@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("w=0", {"w": "majority"}),
        ("w=1&journal=true&wTimeoutMS=9000", {"w": "majority", "j": True, "wtimeout": 9000}),
        ("fsync=true", {"w": "majority", "j": True}),
        ("w=3&wTimeoutMS=9000", {"w": 3, "wtimeout": 9000}),
    ],
)
async def test_writes_go_with_the_application_s_concern_and_never_with_less_than_a_majority(
    spoken: tuple[MongoStore, Commands], sent: dict[str, Any]
) -> None:
    store, commands = spoken
    await write_all(store)
    assert [each.write_concern for each in commands.take(WRITES) if each.write_concern != sent] == []
    await own_writes(store)
    assert [each.write_concern for each in commands.take(WRITES) if each.write_concern != {"w": "majority"}] == []


@CLIENTS
@REPLICAS
@pytest.mark.parametrize("asked", ["retryWrites=false", "retryWrites=true"])
async def test_the_driver_sends_a_write_once_more_if_it_may(spoken: tuple[MongoStore, Commands], asked: str) -> None:
    store, commands = spoken
    await write_all(store)
    again = {"txnNumber" in each.body for each in commands.take(WRITES)}
    assert again == {asked == "retryWrites=true"}


@CLIENTS
@REPLICAS
@pytest.mark.parametrize("asked", ["readPreference=nearest&w=1&readConcernLevel=available"])
async def test_the_options_of_a_database_object_go_before_those_of_its_client(
    make: Any, mongo_url: str, mongo_database: str, asked: str, replica_set: Members
) -> None:
    commands = Commands()
    admit(mongo_url, mongo_database)
    client = make(f"{mongo_url}&{asked}", event_listeners=[commands])
    options = {
        "read_preference": make_read_preference(ReadPreference.SECONDARY.mode, None),
        "read_concern": ReadConcern("majority"),
        "write_concern": WriteConcern(w=3, j=True),
    }
    store = MongoStore(client, mongo_database, {}, owned=True, context=MongoContext(options=options))
    await write_all(store)
    assert all(each.write_concern == {"w": 3, "j": True} for each in commands.take(WRITES))
    await read_all(store)
    said = commands.take(READS)
    assert {each.read_concern for each in said} == {"majority"}
    assert members(said) <= {each.port for each in replica_set.secondaries()}
    await store.close()
