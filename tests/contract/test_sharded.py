"""A sharded collection whose key is not `_id`: every command by key carries the shard key, however it is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pymongo import DeleteOne, UpdateOne
from pymongo.errors import DuplicateKeyError, OperationFailure

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.operation import ANY, Applied, Change, Delete, Insert, Replace, Update, Verb, Write
from shadow.model.phase import Phase, StoreName
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Version
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from tests.support.scripted_mongo import Answer, ScriptedMongo
from tests.support.scripted_router import SHARD_KEY_NOT_FOUND, ScriptedRouter
from tests.support.shims import settings_for

NAME = "things"
BORN = "b" * 24
KEYS = pytest.mark.parametrize(
    "shard_key",
    [
        {"region": 1},
        {"region": "hashed"},
        {"_id": 1, "region": 1},
        {"at.country": 1, "region": 1},
        {"never": 1},
    ],
    ids=lambda key: "_".join(key),
)
DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])


@pytest.fixture
def shard_key() -> Document:
    return {"region": 1}


@pytest.fixture
def router(shard_key: Document) -> ScriptedRouter:
    return ScriptedRouter(NAME, shard_key)


@pytest.fixture
async def store(router: ScriptedRouter, driver: str) -> AsyncIterator[MongoStore]:
    async with ScriptedMongo() as server:
        server.is_router, server.answer = True, router
        made = MongoStore(connect(server.url, driver), "d", {}, owned=True)
        yield made
        await made.close()


def document(key: Key, region: str = "eu", n: int = 0) -> Document:
    return {"_id": key, "region": region, "at": {"country": f"{region}-1"}, "n": n}


def live(key: Key, region: str = "eu", n: int = 0, rev: int = 1) -> Image:
    return Image(Version(BORN, rev), document(key, region, n))


def write(change: Change, pre: State, post: Image) -> Write:
    return Write(NAME, Verb.UPDATE_ONE, "op", change, pre, post)


def carried(router: ScriptedRouter) -> None:
    """None of the changes was one that a router would have had to ask every shard for."""
    for command in router.changes:
        for query in [command.get("query"), *(each["q"] for each in command.get("updates", ()))]:
            assert query is None or router._shard_of(query) is not None, command


@KEYS
@DRIVERS
async def test_every_verb_by_key_as_the_primary(store: MongoStore, router: ScriptedRouter) -> None:
    assert await store.look(NAME) is None
    assert await store.apply(NAME, Insert(1, document(1), BORN), "op")
    made = await store.insert_many(
        NAME, [Insert(key, document(key, "us"), BORN) for key in (2, 1, 3)], ["a", "b", "c"], ordered=False
    )
    assert [type(each) for each in made] == [Applied, DuplicateKeyError, Applied]
    made = await store.insert_many(
        NAME, [Insert(key, document(key), BORN) for key in (4, 1, 5)], ["a", "b", "c"], ordered=True
    )
    assert [type(each) for each in made] == [Applied, DuplicateKeyError, type(None)]
    update = Update(2, {}, {"$inc": {"n": 5}}, BORN)
    applied = await store.apply(NAME, update, "op")
    assert applied is not None
    assert applied.post == live(2, "us", 5, rev=2)
    assert await store.image(NAME, 2) == live(2, "us", 5, rev=2)
    by_filter = Update(2, {"_id": {"$gt": 0}, "n": {"$gt": 4}}, {"$set": {"n": 1}}, BORN)
    assert await store.apply(NAME, by_filter, "op") is not None
    assert await store.apply(NAME, by_filter, "op") is None
    assert await store.apply(NAME, Replace(3, {}, {"region": "us", "at": {"country": "us-1"}, "n": 9}, BORN), "op")
    upsert = Replace(6, {}, {"region": "eu", "n": 9}, BORN, upsert=True)
    assert (await store.apply(NAME, upsert, "op")) is not None
    assert await store.apply(NAME, Update(7, {}, {"$set": {"n": 9}}, BORN, upsert=True), "op") is not None
    assert await store.apply(NAME, Delete(2, {}, "t" * 24), "op") is not None
    assert await store.apply(NAME, Delete(2, {}, "t" * 24), "op") is None
    assert not (await store.image(NAME, 2)).present
    assert {each["_id"] for each in router.documents} == {1, 3, 4, 6, 7}
    carried(router)


@KEYS
@DRIVERS
async def test_every_replay_and_copy_as_the_secondary(store: MongoStore, router: ScriptedRouter) -> None:
    """Nobody has looked before: the first command of this kind does."""
    assert await store.put(NAME, 1, live(1), ABSENT)
    assert not await store.put(NAME, 1, live(1, n=1), ABSENT)
    assert await store.put(NAME, 1, live(1, "us", n=2, rev=2), Version(BORN, 1))
    assert await store.image(NAME, 1) == live(1, "us", n=2, rev=2)
    change = Update(1, {}, {"$inc": {"n": 1}}, BORN)
    image = await store.replay(NAME, write(change, Version(BORN, 2), live(1, "us", n=3, rev=3)))
    assert image == live(1, "us", n=3, rev=3)
    assert await store.replay(NAME, write(change, Version(BORN, 2), live(1, "us", n=3, rev=3))) is None
    replacement = Replace(1, {}, {"region": "us", "at": {"country": "us-1"}, "n": 7}, "c" * 24)
    image = await store.replay(NAME, write(replacement, Version(BORN, 3), live(1)))
    assert image is not None
    assert image.state == Version("c" * 24, 1)
    gone = Delete(1, {"_id": 1}, "t" * 24)
    image = await store.replay(NAME, write(gone, Version("c" * 24, 1), Image(ABSENT)))
    assert image == Image(Tombstone("t" * 24))
    assert (await store.image(NAME, 1)).state == Tombstone("t" * 24)
    (tombstone,) = router.documents
    assert tombstone.get("region") == "us" or "region" not in router.key
    assert await store.replay(NAME, write(Delete(9, {}, "u" * 24), Version(BORN, 1), Image(ABSENT)))
    assert (await store.image(NAME, 9)).state == Tombstone("u" * 24)
    insert = Insert(2, document(2), BORN)
    assert await store.replay(NAME, write(insert, ABSENT, live(2))) == live(2)
    assert await store.replay(NAME, write(insert, ABSENT, live(2))) is None
    assert await store.ranges.put_absent(NAME, [(5, live(5))]) == [False]  # they are put one by one
    carried(router)


@DRIVERS
async def test_one_key_stands_on_one_shard_alone(store: MongoStore, router: ScriptedRouter) -> None:
    """The server would take the same `_id` on each of them."""
    await store.look(NAME)
    await store.apply(NAME, Insert(1, document(1, "eu"), BORN), "op")
    with pytest.raises(DuplicateKeyError) as caught:
        await store.apply(NAME, Insert(1, document(1, "us"), BORN), "op")
    assert (caught.value.details or {})["keyPattern"] == {"_id": 1}
    assert not await store.put(NAME, 1, live(1, "us"), ABSENT)
    assert await store.put(NAME, 1, Image(Tombstone("t")), Version(BORN, 1))
    assert await store.apply(NAME, Insert(1, document(1, "us"), "c" * 24), "op") is not None
    assert [(each["_id"], each["region"]) for each in router.documents] == [(1, "us")]
    assert (await store.image(NAME, 1)).state == Version("c" * 24, 1)
    carried(router)


@DRIVERS
async def test_two_copies_that_come_at_once_on_two_shards_leave_none_behind(
    store: MongoStore, router: ScriptedRouter
) -> None:
    other = {**document(1, "us"), "_shadow": {"b": "o" * 24, "r": 1}}

    def meanwhile(name: str) -> None:
        if name == "update" and other not in router.documents:
            router.documents.append(other)

    router.before = meanwhile
    assert not await store.put(NAME, 1, live(1, "eu"), ABSENT)
    assert router.documents == [other]


@DRIVERS
async def test_a_document_that_has_come_to_another_shard_meanwhile_is_found_there(
    store: MongoStore, router: ScriptedRouter
) -> None:
    await store.look(NAME)
    await store.apply(NAME, Insert(1, document(1, "eu"), BORN), "op")
    moves = iter(["us", "asia"])

    def meanwhile(name: str) -> None:
        if name == "findAndModify":
            router.documents[0]["region"] = next(moves, router.documents[0]["region"])

    router.before = meanwhile
    applied = await store.apply(NAME, Update(1, {}, {"$set": {"n": 5}}, BORN), "op")
    assert applied is not None
    assert [(each["region"], each["n"]) for each in router.documents] == [("asia", 5)]


@DRIVERS
async def test_a_filter_carries_what_the_application_says_and_no_look_is_made_for_it(
    store: MongoStore, router: ScriptedRouter
) -> None:
    await store.look(NAME)
    await store.apply(NAME, Insert(1, document(1, "eu"), BORN), "op")
    applied = await store.apply(NAME, Update(ANY, {"region": "eu", "n": 0}, {"$set": {"n": 5}}, BORN), "op")
    assert applied is not None
    assert applied.key == 1
    with pytest.raises(OperationFailure) as caught:
        await store.apply(NAME, Update(ANY, {"n": 5}, {"$set": {"n": 6}}, BORN), "op")
    assert caught.value.code == SHARD_KEY_NOT_FOUND
    assert await store.apply(NAME, Delete(1, {"_id": 1, "region": "eu"}, "t"), "op") is not None
    carried_by_filter = [command["query"] for command in router.changes if "query" in command]
    assert all("region" in str(query) for query in carried_by_filter if query != {"n": 5, "_shadow.t": None})


@DRIVERS
@pytest.mark.parametrize("shard_key", [{"_id": 1}, {"_id": "hashed"}], ids=["plain", "hashed"])
async def test_sharded_by_the_key_itself_nothing_more_is_asked(store: MongoStore, router: ScriptedRouter) -> None:
    await store.look(NAME)
    asked: list[str] = []
    router.before = asked.append
    await store.apply(NAME, Insert(1, document(1), BORN), "op")
    assert await store.apply(NAME, Update(1, {}, {"$set": {"n": 5}}, BORN), "op") is not None
    assert await store.put(NAME, 2, live(2), ABSENT)
    assert asked == ["insert", "findAndModify", "update"]


@DRIVERS
async def test_who_may_not_see_the_shard_key_is_told_which_right_is_lacking(
    store: MongoStore, router: ScriptedRouter
) -> None:
    router.denied = {"config.collections"}
    unfit = await store.look(NAME)
    assert unfit is not None
    error = unfit.error()
    assert isinstance(error, UnsupportedOperation)
    assert "find on config.collections" in error.hint
    router.denied = {"config.collections", "collStats"}
    assert await store.look(NAME) is not None
    router.denied = {"listCollections"}
    unfit = await store.look(NAME)
    assert unfit is not None
    assert "listCollections" in unfit.advice


# --- a whole Shadow -----------------------------------------------------------------------------------------------


def only(router: ScriptedRouter) -> Answer:
    """The collection is sharded; of what shadow keeps beside it there is nothing yet."""

    def answer(name: str, command: Document) -> Document:
        if command.get(name) == NAME or command["$db"] in ("admin", "config") or not isinstance(command[name], str):
            return router(name, command)
        return {"n": 0, "nModified": 0, "value": None, "cursor": {"id": 0, "ns": "d.c", "firstBatch": []}}

    return answer


@DRIVERS
@pytest.mark.parametrize("primary", list(StoreName))
@pytest.mark.parametrize("shard_key", [{"region": 1}, {"_id": 1, "region": 1}], ids=lambda key: "_".join(key))
async def test_writes_of_an_application_carry_the_shard_key_whichever_store_is_primary(
    router: ScriptedRouter, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str, primary: StoreName
) -> None:
    """End to end: through `get_collection`, the journal, and the lane or the follower behind the primary."""
    async with ScriptedMongo() as server:
        server.is_router, server.answer = True, only(router)
        made = settings_for(
            tmp_path, server.url, dynamodb_local_url, fresh_name, [NAME], primary=primary, phase=Phase.DUAL_WRITE,
            driver=driver,
        )  # fmt: skip
        async with Shadow.from_settings(made) as shadow:
            await shadow.prepare()
            things = shadow.get_collection(NAME)
            await things.insert_one(document(1))
            await things.insert_many([document(2, "us"), document(3)])
            await things.update_one({"_id": 1}, {"$inc": {"n": 5}})
            await things.update_one({"_id": 2, "region": "us"}, {"$set": {"n": 1}})
            assert await things.find_one_and_update({"_id": 3}, {"$set": {"n": 3}}) == document(3)
            await things.replace_one({"_id": 3}, {"region": "eu", "at": {"country": "eu-1"}, "n": 4})
            await things.update_one({"_id": 4}, {"$set": {"region": "us", "n": 9}}, upsert=True)
            await things.bulk_write([UpdateOne({"_id": 1}, {"$inc": {"n": 1}}), DeleteOne({"_id": 2})])
            assert (await things.delete_one({"_id": 4})).deleted_count == 1
            assert await shadow.settled(20)
            assert await things.find_one({"_id": 1}) == document(1, n=6)
            assert not shadow.admin.metrics_registry.totals().get("internal_failures")
    stored = {each["_id"]: each for each in router.documents if "n" in each}
    assert {key: each["n"] for key, each in stored.items()} == {1: 6, 3: 4}
    assert len(router.changes) >= 9
    carried(router)
