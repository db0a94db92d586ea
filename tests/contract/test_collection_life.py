"""What a collection refuses before it asks anyone, the clients that it is handed, and its event loops."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import bson
import pymongo
import pytest
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, CursorType

from shadow import Shadow
from shadow.config import CollectionSettings, DynamoSettings, JournalSettings, MongoSettings, Settings
from shadow.embedded.servers import free_port
from shadow.errors import JournalError, ShadowClosed, UnsupportedOperation
from shadow.model.phase import StoreName, Unsupported
from shadow.surface.collections.collection import Collection
from tests.support.pair import QUICK
from tests.support.shims import assert_level, settings_for

KEY: Final = {"_id": 1}
SET: Final = {"$set": {"n": 1}}

Call = Callable[[Collection], Awaitable[Any]]

# --- refused by name, before any store is touched ---------------------------------------------------------------

REFUSED: Final[dict[str, Call]] = {
    "update_one(collation=": lambda c: c.update_one(KEY, SET, collation={"locale": "sv"}),
    "update_one(hint=": lambda c: c.update_one(KEY, SET, hint="n_1"),
    "replace_one(hint=": lambda c: c.replace_one(KEY, {"n": 1}, hint="n_1"),
    "delete_one(collation=": lambda c: c.delete_one(KEY, collation={"locale": "sv"}),
    "delete_many(hint=": lambda c: c.delete_many(KEY, hint="n_1"),
    "find(collation=": lambda c: c.find(KEY, collation={"locale": "sv"}).to_list(None),
    "find(hint=": lambda c: c.find(KEY, hint="n_1").to_list(None),
    "find(cursor_type=": lambda c: c.find(KEY, cursor_type=CursorType.TAILABLE).to_list(None),
    "cursor.hint": lambda c: c.find(KEY).hint("n_1").to_list(None),
    "cursor.collation": lambda c: c.find(KEY).collation({"locale": "sv"}).to_list(None),
    "find_one_and_delete(hint=": lambda c: c.find_one_and_delete(KEY, hint="n_1"),
    "count_documents(collation=": lambda c: c.count_documents({}, collation={"locale": "sv"}),
    "distinct(collation=": lambda c: c.distinct("n", collation={"locale": "sv"}),
    "bulk_write(hint=": lambda c: c.bulk_write([pymongo.UpdateOne(KEY, SET, hint="n_1")]),
    "bulk_write(collation=": lambda c: c.bulk_write([pymongo.DeleteOne(KEY, collation={"locale": "sv"})]),
    "watch": lambda c: c.watch(),
    "find_raw_batches": lambda c: c.find_raw_batches({}),
    "$where": lambda c: c.find_one({"$where": "true"}),
    "$near": lambda c: c.find_one({"a": {"$near": [0, 0]}}),
    "$text": lambda c: c.count_documents({"$text": {"$search": "x"}}),
    "$collStats": lambda c: c.aggregate([{"$collStats": {"count": {}}}]).to_list(None),
    "$function": lambda c: c.aggregate([{"$set": {"a": {"$function": {}}}}]).to_list(None),
}

RESERVED: Final[dict[str, Call]] = {
    "document": lambda c: c.insert_one({"_shadow": {"b": "x"}}),
    "document of many": lambda c: c.insert_many([{"n": 1}, {"_shadow": 1}]),
    "replacement": lambda c: c.replace_one(KEY, {"_shadow": 1}),
    "filter": lambda c: c.find_one({"_shadow.b": "x"}),
    "filter inside": lambda c: c.find_one({"$or": [{"n": 1}, {"_shadow": None}]}),
    "filter of a count": lambda c: c.count_documents({"_shadow.t": "x"}),
    "update": lambda c: c.update_one(KEY, {"$set": {"_shadow.r": 7}}),
    "unset": lambda c: c.update_many({}, {"$unset": {"_shadow": ""}}),
    "pipeline update": lambda c: c.update_one(KEY, [{"$set": {"_shadow": 1}}]),
    "rename from": lambda c: c.update_one(KEY, {"$rename": {"_shadow": "x"}}),
    "rename to": lambda c: c.update_one(KEY, {"$rename": {"x": "_shadow"}}),
    "projection": lambda c: c.find({}, {"_shadow": 1}).to_list(None),
    "projection by list": lambda c: c.find_one({}, ["_shadow.b"]),
    "projected expression": lambda c: c.find_one({}, {"version": "$_shadow.b"}),
    "sort": lambda c: c.find({}, sort=[("_shadow.r", 1)]).to_list(None),
    "sort of a cursor": lambda c: c.find().sort("_shadow.r").to_list(None),
    "distinct": lambda c: c.distinct("_shadow.b"),
    "pipeline": lambda c: c.aggregate([{"$match": {"_shadow.b": "x"}}]).to_list(None),
    "pipeline expression": lambda c: c.aggregate([{"$group": {"_id": "$_shadow.b"}}]).to_list(None),
    "bulk": lambda c: c.bulk_write([pymongo.UpdateOne(KEY, {"$set": {"_shadow": 1}})]),
}


@pytest.fixture
def nowhere(tmp_path: Path) -> Shadow:
    """A Shadow whose stores are not there: whoever asks one of them waits, and fails."""
    return made_nowhere(tmp_path)


@pytest.fixture
def refusing(tmp_path: Path) -> Shadow:
    """The same, which leaves nothing to MongoDB alone."""
    return made_nowhere(tmp_path, unsupported=Unsupported.REFUSE)


def made_nowhere(tmp_path: Path, **options: Any) -> Shadow:
    return Shadow.from_settings(
        Settings(
            mongo=MongoSettings(url=f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=60000"),
            dynamo=DynamoSettings(endpoint_url=f"http://127.0.0.1:{free_port()}"),
            journal=JournalSettings(url=f"sqlite:///{tmp_path / 'journal.db'}"),
            collections={"things": CollectionSettings(**options)},
        )
    )


async def refusal(call: Call, collection: Collection) -> UnsupportedOperation:
    with pytest.raises(UnsupportedOperation) as caught:
        async with asyncio.timeout(20):  # a store would be waited for longer
            await call(collection)
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
async def test_what_has_no_meaning_on_both_stores_is_refused_by_name_before_any_is_asked(
    refusing: Shadow, name: str
) -> None:
    error = await refusal(REFUSED[name], refusing["things"])
    assert name in str(error)
    assert error.code == 115
    assert isinstance(error, pymongo.errors.OperationFailure)


RESERVED_TOO: Final[dict[str, Call]] = {
    "filter": lambda c: c.find_one({"$where": "true", "_shadow.b": "x"}),
    "filter and option": lambda c: c.find_one({"_shadow.b": "x"}, collation={"locale": "sv"}),
    "update": lambda c: c.update_one({"$where": "true"}, {"$set": {"_shadow.r": 7}}),
    "rename to": lambda c: c.update_one({"$where": "true"}, {"$rename": {"x": "_shadow.r"}}),
    "pipeline update": lambda c: c.update_one({"$where": "true"}, [{"$set": {"_shadow": 1}}]),
    "replacement": lambda c: c.replace_one({"$where": "true"}, {"_shadow": 1}),
    "projection": lambda c: c.find({"$where": "true"}, {"_shadow": 1}).to_list(None),
    "projection by list": lambda c: c.find_one({"$where": "true"}, ["_shadow.b"]),
    "sort": lambda c: c.find({"$where": "true"}, sort=[("_shadow.r", 1)]).to_list(None),
    "sort of a cursor": lambda c: c.find({"$where": "true"}).sort([("$natural", 1), ("_shadow.r", 1)]).to_list(None),
    "distinct": lambda c: c.distinct("_shadow.b", {"$where": "true"}),
    "pipeline": lambda c: c.aggregate([{"$match": {"_shadow.b": "x", "$where": "true"}}]).to_list(None),
    "collated": lambda c: c.find_one({"_shadow.b": "x"}, collation={"locale": "en", "strength": 2}),
}
"""In calls that are passed on to MongoDB."""


@pytest.mark.parametrize("name", RESERVED_TOO)
async def test_the_reserved_field_is_refused_in_what_only_mongodb_can_do(nowhere: Shadow, name: str) -> None:
    assert "_shadow" in str(await refusal(RESERVED_TOO[name], nowhere["things"]))


@pytest.mark.parametrize("name", RESERVED)
async def test_the_reserved_field_is_refused_wherever_it_is_named(nowhere: Shadow, name: str) -> None:
    assert "_shadow" in str(await refusal(RESERVED[name], nowhere["things"]))


async def test_a_refused_call_changes_no_document_of_the_callers(refusing: Shadow) -> None:
    document = {"n": [1, (2, 3)], "_shadow": 1}
    update = {"$set": {"a": (1, 2)}}
    await refusal(lambda c: c.insert_one({**document, "_id": 1}), refusing["things"])
    await refusal(lambda c: c.update_one(KEY, update, hint="x"), refusing["things"])
    assert document == {"n": [1, (2, 3)], "_shadow": 1}
    assert update == {"$set": {"a": (1, 2)}}


# --- inputs and outputs are the application's own ---------------------------------------------------------------


@pytest.fixture
async def shadow(mongo_url: str, dynamodb_local_url: str, mongo_database: str, tmp_path: Path) -> AsyncIterator[Shadow]:
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, mongo_database, ["things"])
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        yield shadow


async def test_arguments_are_left_as_they_were_and_may_be_changed_at_once(shadow: Shadow) -> None:
    things = shadow["things"]
    document = {"_id": 1, "n": 1, "list": [1, {"deep": [2]}]}
    filter, update, replacement = {"_id": {"$in": [1]}}, {"$set": {"list.0": [5]}}, {"n": (1, 2)}
    await things.insert_one(document)
    assert document == {"_id": 1, "n": 1, "list": [1, {"deep": [2]}]}
    document["list"].append("later")  # type: ignore[attr-defined]
    await things.update_one(filter, update)
    update["$set"]["list.0"].append(6)
    found = await things.find_one({"_id": 1})
    found["list"].append("mine alone")
    await things.replace_one({"_id": 2}, replacement, upsert=True)
    await things.bulk_write([pymongo.ReplaceOne({"_id": 3}, replacement, upsert=True)])
    assert (filter, replacement) == ({"_id": {"$in": [1]}}, {"n": (1, 2)})
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1, "list": [[5], {"deep": [2]}]}
    await assert_level(shadow)


# --- clients that are handed in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("primary", StoreName)
@pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient])
async def test_the_codec_options_of_a_client_that_is_handed_in_shape_every_answer(
    make: Any, primary: StoreName, mongo_url: str, dynamodb_local_url: str, mongo_database: str, tmp_path: Path
) -> None:
    client = make(mongo_url, tz_aware=True, uuidRepresentation="standard", document_class=bson.SON)
    bare = client[f"{mongo_database}"]["bare"]
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, mongo_database, ["things"], primary=primary)
    document = {"_id": uuid.UUID(int=5), "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "sub": [{"u": uuid.UUID(int=6)}]}
    async with Shadow.from_settings(settings, mongo_client=client) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        for collection in (bare, things):
            await collection.insert_one(dict(document))
            await collection.update_one({"_id": uuid.UUID(int=5)}, {"$set": {"u": uuid.UUID(int=7)}})
        expected = await bare.find_one({"sub.u": uuid.UUID(int=6)})
        for answer in (
            await things.find_one({"sub.u": uuid.UUID(int=6)}),
            (await things.find({"at": document["at"]}).to_list(None))[0],
            await things.find_one_and_update({"_id": document["_id"]}, {"$inc": {"n": 1}}),
        ):
            assert answer == expected
            assert type(answer) is bson.SON
            assert answer["at"].tzinfo is not None
            assert type(answer["sub"][0]["u"]) is uuid.UUID
        assert await things.distinct("u") == [uuid.UUID(int=7)]
        plain = things.with_options(CodecOptions())
        assert type((await plain.find_one({}))["u"]) is bson.Binary
        await assert_level(shadow)
    assert await client.admin.command("ping")  # a client that was handed in stays open
    ended = client.close()
    if ended is not None:
        await ended


# --- event loops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
def test_collections_made_without_a_loop_serve_one_event_loop_after_the_other(
    driver: str, mongo_url: str, dynamodb_local_url: str, mongo_database: str, tmp_path: Path
) -> None:
    """As a task queue does that calls asyncio.run for each task, with the collection made when its module is."""
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, mongo_database, ["things"], driver=driver)
    shadow = Shadow.from_settings(settings)
    things = shadow.get_collection("things")

    async def first() -> None:
        await shadow.prepare()
        await things.insert_one({"_id": 1, "n": 0})

    async def task() -> None:
        await things.update_one({"_id": 1}, {"$inc": {"n": 1}})
        assert (await things.find_one({"_id": 1}))["n"] > 0

    async def last() -> None:
        assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 5}
        await assert_level(shadow)
        await shadow.close()

    asyncio.run(first())
    for _ in range(5):
        asyncio.run(task())
    asyncio.run(last())


async def test_what_is_asked_after_closing_is_refused_until_it_is_entered_again(shadow: Shadow) -> None:
    await shadow["things"].insert_one({"_id": 1})
    await shadow.close()
    with pytest.raises(ShadowClosed):
        await shadow["things"].find_one({"_id": 1})
    async with shadow:
        assert await shadow["things"].find_one({"_id": 1}) == {"_id": 1}


@pytest.mark.parametrize("answered", [True, False])
async def test_closing_ends_the_question_who_is_primary_and_then_the_journal(tmp_path: Path, answered: bool) -> None:
    """Whatever asks the journal after its end begins it anew, with a thread that nobody ends."""
    limits = QUICK.model_copy(update={"drain": 1.0})
    nowhere = f"127.0.0.1:{free_port()}"
    settings = settings_for(tmp_path, f"mongodb://{nowhere}", f"http://{nowhere}", "life", ["users"], limits=limits)
    shadow = Shadow.from_settings(settings)
    journal, asked, answer = shadow._engine.parts.journal, asyncio.Event(), asyncio.Event()
    plain, before = journal.primaries, threading.enumerate()

    async def slow(configured: Mapping[str, str]) -> Mapping[str, str]:
        asked.set()
        await answer.wait()
        found = await plain(configured)
        await asyncio.sleep(0.05)
        await journal.stats()
        return found

    journal.primaries = slow  # type: ignore[method-assign]
    await shadow._engine.start()
    asking = asyncio.create_task(shadow._engine.parts.routes.learnt(writing=True))
    await asked.wait()
    if answered:
        asyncio.get_running_loop().call_later(0.05, answer.set)
    await shadow.close()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "shadow-roles"] == []
    if answered:
        await asking
    else:
        with pytest.raises(JournalError, match="closed before"):
            await asking
    assert [each for each in threading.enumerate() if each.name == "shadow-journal" and each not in before] == []


async def test_names_reach_collections_as_they_do_in_motor(nowhere: Shadow) -> None:
    assert nowhere["things"] == nowhere.things == nowhere.get_collection("things")
    assert nowhere["things"]["sub"].name == "things.sub"
    assert nowhere["things"].full_name == f"{nowhere.name}.things"
    with pytest.raises(AttributeError):
        nowhere._private  # noqa: B018
    with pytest.raises(NotImplementedError):
        bool(nowhere["things"])
    await nowhere.close()
