"""The Shadow as an object: it stands for the driver's database and client, for libraries that look at it too."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import io
import uuid
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import bson
import pymongo
import pytest
import pytest_asyncio
from bson.codec_options import CodecOptions
from bson.son import SON
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.cursor_shared import CursorType
from pymongo.errors import BulkWriteError, CollectionInvalid, InvalidOperation, OperationFailure

from shadow import Shadow
from shadow.config import CollectionSettings
from shadow.errors import ShadowClosed, UnsupportedOperation
from shadow.model.phase import Phase, StoreName
from shadow.stores.mongo.drivers import connect
from tests.support.shims import settings_for
from tests.support.topologies import drop, root_url

PHASES: Final = {
    "off": CollectionSettings(phase=Phase.OFF),
    "shadow": CollectionSettings(phase=Phase.SHADOW),
    "dynamo": CollectionSettings(phase=Phase.SHADOW, primary=StoreName.DYNAMO, forced="a test"),
}
DOCUMENTS: Final = [{"_id": each, "n": each % 2} for each in (1, 2, 3)]


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=PHASES)
async def shadow(
    request: pytest.FixtureRequest, driver: str, mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> AsyncIterator[Shadow]:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, name, [], driver=driver)
    async with Shadow(settings.model_copy(update={"collections": {"things": PHASES[request.param]}})) as made:
        await made.prepare()
        await made["things"].insert_many([dict(each) for each in DOCUMENTS])
        yield made
    drop(mongo_url, name)


def flipped(shadow: Shadow) -> bool:
    return shadow._engine.is_flipped()


async def awaited(made: Any) -> Any:
    return await made if inspect.isawaitable(made) else made


async def test_it_is_an_instance_of_what_the_driver_has(shadow: Shadow, driver: str) -> None:
    if driver == "pymongo":
        kinds: Any = (AsyncDatabase, AsyncCollection, pymongo.AsyncMongoClient)
    else:
        from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase

        kinds = (AsyncIOMotorDatabase, AsyncIOMotorCollection, AsyncIOMotorClient)
    databases, collections, clients = kinds
    assert isinstance(shadow, databases)
    assert isinstance(shadow, Shadow)
    assert isinstance(shadow.with_options(), databases)
    assert isinstance(shadow["things"], collections)
    assert isinstance(shadow["others"], collections)
    assert isinstance(shadow.client, clients)
    for each in (shadow, shadow["things"], shadow.client):
        with pytest.raises(TypeError):
            each.__class__ = object


async def test_equality_hash_and_names(shadow: Shadow) -> None:
    view = shadow.with_options(codec_options=CodecOptions(tz_aware=True))
    assert shadow == view == shadow.client[shadow.name] == shadow.client.get_database()
    assert hash(shadow) == hash(view)
    assert shadow != object()
    for name in ("things", "others"):
        assert shadow[name] == getattr(shadow, name) == view[name]
        assert shadow[name].sub == shadow[name]["sub"] == shadow[f"{name}.sub"]
        assert shadow[name].sub.deep.name == f"{name}.sub.deep"
        assert shadow[name].database == shadow
        assert {shadow[name]: 1}[getattr(shadow, name)] == 1
    for each in (shadow, view, shadow["things"], shadow["others"]):
        with pytest.raises(NotImplementedError):
            bool(each)
    with pytest.raises(TypeError):
        shadow["things"].insert_on({})
    if shadow.admin.settings.collections["things"].phase is not Phase.OFF:
        with pytest.raises(UnsupportedOperation, match="no such verb"):
            _ = shadow["things"].delegate
        assert not hasattr(shadow["things"], "delegate")
    assert "tz" not in repr(shadow)
    assert "codec_options" in repr(view)


@pytest.mark.plain_options(reason="a read preference that the client does not have is refused")
async def test_a_database_with_options_gives_them_to_its_collections(shadow: Shadow) -> None:
    aware = CodecOptions[dict[str, Any]](tz_aware=True)
    views = [shadow.with_options(codec_options=aware), shadow.client.get_database(shadow.name, codec_options=aware)]
    await shadow["things"].insert_one({"_id": "date", "at": dt.datetime(2024, 1, 1)})
    for view in (*views, views[0].with_options(read_preference=pymongo.ReadPreference.PRIMARY)):
        found = await view.things.find_one({"_id": "date"})
        assert found["at"].tzinfo is not None
        assert view.codec_options.tz_aware
        assert view["others"].codec_options.tz_aware
        assert type(await view.get_collection("things", CodecOptions(document_class=SON)).find_one()) is SON
        assert (await view.command("ping"))["ok"] == 1
    assert not shadow.codec_options.tz_aware
    for wrong in ({"wrong": 1}, {"codec_options": 5}):
        with pytest.raises(TypeError):
            shadow.with_options(**wrong)["things"]


async def test_commands_and_lists(shadow: Shadow) -> None:
    await shadow["others"].insert_one({"_id": 1})
    for name in ("ping", "buildInfo", "hello", "isMaster"):
        assert (await shadow.command(name))["ok"] == 1
        assert (await shadow.command({name: 1}))["ok"] == 1
    assert (await shadow.command("buildInfo"))["version"].startswith("6.0") == flipped(shadow) or not flipped(shadow)
    assert (await shadow.client.server_info())["ok"] == 1
    assert sorted(await shadow.list_collection_names()) == ["others", "things"]
    assert await shadow.list_collection_names(filter={"name": "things"}) == ["things"]
    cursor = await awaited(shadow.list_collections(filter={"name": {"$in": ["things", "others"]}}))
    assert sorted(each["name"] for each in await cursor.to_list(None)) == ["others", "things"]
    with pytest.raises(CollectionInvalid):
        await shadow.create_collection("things")
    await shadow.drop_collection("others")
    assert "others" not in await shadow.list_collection_names()


async def test_a_view_shows_neither_versions_nor_tombstones(shadow: Shadow) -> None:
    """A view is read by the driver's own collection: what hides them is in the pipeline that MongoDB keeps. On MongoDB
    as secondary what was deleted is a tombstone."""
    await shadow["things"].delete_one({"_id": 3})
    await shadow["others"].insert_one({"_id": 1, "of": 3})
    if shadow.things.name in shadow._engine.configured() and shadow._engine.is_forwarded("things"):
        # It is written to both stores later, which the view outlives.
        await shadow.admin.driver()["things"].update_many({}, {"$set": {"_shadow": {"b": "x", "r": 1}}})
    join: dict[str, Any] = {"from": "things", "localField": "of", "foreignField": "_id", "as": "found"}
    await shadow.create_collection("seen", viewOn="things", pipeline=[{"$match": {"_id": {"$gt": 0}}}])
    await shadow.create_collection("joined", viewOn="others", pipeline=[{"$lookup": join}])
    await shadow.command("create", "whole", viewOn="things")
    await shadow.command(SON([("create", "odd"), ("viewOn", "things"), ("pipeline", [{"$match": {"n": 1}}])]))
    assert await shadow.settled(20)
    assert await shadow["seen"].find().sort("_id").to_list(None) == DOCUMENTS[:2]
    assert await shadow["whole"].find().sort("_id").to_list(None) == DOCUMENTS[:2]
    assert await shadow["odd"].count_documents({}) == 1
    assert await shadow["joined"].find().to_list(None) == [{"_id": 1, "of": 3, "found": []}]


async def test_gridfs_is_mongodbs(shadow: Shadow, driver: str) -> None:
    if driver == "pymongo":
        from gridfs import AsyncGridFSBucket as Bucket
    else:
        from motor.motor_asyncio import AsyncIOMotorGridFSBucket as Bucket
    bucket: Any = Bucket(shadow, chunk_size_bytes=100)
    key = await bucket.upload_from_stream("a name", b"hello" * 100)
    into = io.BytesIO()
    await bucket.download_to_stream(key, into)
    assert into.getvalue() == b"hello" * 100
    assert await shadow.fs.chunks.count_documents({}) == 5
    assert [each.filename async for each in bucket.find({})] == ["a name"]
    await bucket.rename(key, "another")
    assert await shadow["fs.files"].distinct("filename") == ["another"]
    await bucket.delete(key)
    assert await shadow["fs.files"].count_documents({}) == 0


async def test_pymongos_own_database_under_motors_has_no_configured_collection(shadow: Shadow, driver: str) -> None:
    if driver == "pymongo":
        with pytest.raises(UnsupportedOperation, match="Motor's own"):
            _ = shadow.delegate
        return
    own = shadow.delegate
    assert isinstance(own, pymongo.database.Database)
    assert own["elsewhere"].name == own.get_collection("elsewhere").name == own.elsewhere.name
    for take in (lambda: own["things"], lambda: own.with_options().things):
        with pytest.raises(UnsupportedOperation, match="things"):
            take()


async def test_cursors(shadow: Shadow, driver: str) -> None:
    things = shadow["things"]
    seen = []
    cursor = things.find(sort=[("_id", 1)])
    async for each in cursor:
        seen.append((each["_id"], cursor.alive))
    assert seen == [(1, True), (2, True), (3, False)]
    assert not cursor.alive
    assert len(await things.find(sort=[]).to_list(None)) == 3
    cursor = things.find().sort("_id", 1)
    assert [len(await cursor.to_list(1)), len(await cursor.to_list(1)), len(await cursor.to_list(5))] == [1, 1, 1]
    assert await cursor.to_list(5) == []
    assert await things.find({"n": 1}).distinct("_id") == [1, 3]
    cursor = things.find()
    assert cursor.cursor_id is None
    assert cursor.address is None
    await cursor.to_list(None)
    assert cursor.cursor_id == 0
    await awaited(cursor.rewind())
    assert len(await cursor.to_list(None)) == len(await cursor.clone().to_list(None)) == 3
    with pytest.raises(InvalidOperation):
        cursor.max_await_time_ms(5)
    assert len(await things.find().max_await_time_ms(5).comment("c").allow_disk_use(True).to_list(None)) == 3
    flagged = await awaited(things.find().add_option(16))
    assert len(await flagged.to_list(None)) == 3
    with pytest.raises(IndexError if driver == "pymongo" else TypeError):
        things.find()[0]
    defaults: dict[str, Any] = {
        "cursor_type": 0, "no_cursor_timeout": False, "allow_partial_results": False, "oplog_replay": False,
        "return_key": False, "show_record_id": False, "batch_size": 0, "hint": None, "session": None,
    }  # fmt: skip
    assert len(await things.find(**defaults).to_list(None)) == 3
    assert (await things.find_one({"_id": 1}, batch_size=1))["n"] == 1


async def test_what_only_a_server_could_answer_is_refused_by_its_name(shadow: Shadow) -> None:
    if not flipped(shadow):
        return
    things = shadow["things"]
    for name, arguments in (
        ("explain", ()), ("where", ("1",)), ("max_scan", (1,)), ("add_option", (2,)),
    ):  # fmt: skip
        with pytest.raises(UnsupportedOperation, match=f"cursor.{name}"):
            await awaited(getattr(things.find(), name)(*arguments))
    for name in ("return_key", "show_record_id", "max_scan"):
        with pytest.raises(UnsupportedOperation, match=name):
            await things.find(**{name: True}).to_list(None)


async def test_plans_and_raw_batches_are_the_servers_while_it_is_the_primary(shadow: Shadow, driver: str) -> None:
    """Without versions and tombstones, and after the flip refused by name."""
    things = shadow["things"]
    if flipped(shadow):
        for call in (
            lambda: things.find().explain(),
            lambda: things.find_raw_batches().to_list(None),
            lambda: awaited(things.aggregate_raw_batches([])),
        ):
            with pytest.raises(UnsupportedOperation, match=r"explain|raw_batches"):
                await call()
        return
    plan = await things.find({"n": {"$gt": 1}}, {"n": 1}).sort("n", 1).limit(2).explain()
    assert "queryPlanner" in plan
    for cursor in (
        things.find_raw_batches({"_id": {"$gt": 1}}, batch_size=1).sort("_id", -1),
        await awaited(things.aggregate_raw_batches([{"$match": {"_id": {"$gt": 1}}}, {"$sort": {"_id": -1}}])),
    ):
        found = [each async for batch in cursor for each in bson.decode_all(batch)]
        assert [each["_id"] for each in found] == [3, 2]
        assert all("_shadow" not in each for each in found)
    # The drawn url may have a concern that no causally consistent session takes.
    begun = shadow.client.start_session(causal_consistency=False)
    async with await begun if inspect.isawaitable(begun) else begun as session:
        for cursor in (
            things.find_raw_batches({"_id": 2}, session=session),
            await awaited(things.aggregate_raw_batches([{"$match": {"_id": 2}}], session=session)),
        ):
            assert [each async for batch in cursor for each in bson.decode_all(batch)] == [{"_id": 2, "n": 0}]
    out = await awaited(things.aggregate_raw_batches([{"$match": {"_id": 2}}, {"$out": "others"}]))
    assert await out.to_list(None) == []
    assert await shadow["others"].find().to_list(None) == [{"_id": 2, "n": 0}]


async def test_the_flags_of_a_cursor_are_its_options(shadow: Shadow) -> None:
    """Over two stores, and on DynamoDB, `EXHAUST` is accepted; what needs a cursor of MongoDB's is MongoDB's alone."""
    things = shadow["things"]
    for cursor in (things.find(cursor_type=CursorType.EXHAUST), await awaited(things.find().add_option(64))):
        assert sorted([each["_id"] for each in await cursor.to_list(None)]) == [1, 2, 3]
    for refused in (
        lambda: things.find(cursor_type=CursorType.EXHAUST, limit=1),
        lambda: things.find(cursor_type=CursorType.EXHAUST).limit(1),
        lambda: things.find(limit=1).add_option(64),
    ):
        with pytest.raises(InvalidOperation, match="exhaust"):
            await awaited(refused())
    with pytest.raises(ValueError, match="cursor_type"):
        things.find(cursor_type=7)
    with pytest.raises(InvalidOperation, match="exhaust"):
        await things.find_one({}, cursor_type=CursorType.EXHAUST)
    for tailable in (
        lambda: things.find(cursor_type=CursorType.TAILABLE_AWAIT),
        lambda: things.find().add_option(2),
        lambda: things.find().add_option(34),
    ):
        with pytest.raises(OperationFailure, match="cursor_type" if flipped(shadow) else "tailable"):
            await anext(aiter(await awaited(tailable())))
    if not flipped(shadow):
        partial = await awaited(things.find().add_option(128))
        assert len(await partial.to_list(None)) == 3


async def listed(cursor: Any, length: Any) -> Any:
    """What `to_list` answers, or the class of its error and whether the call itself raised it."""
    made = None
    try:
        made = cursor.to_list(length)
        return len(await made)
    except Exception as error:
        return type(error), made is None


@pytest.mark.parametrize("length", [None, 0, -1, 1, 7, True, False, "x", [1]], ids=repr)
async def test_a_list_of_any_length_is_answered_as_by_the_driver(
    shadow: Shadow, driver: str, mongo_url: str, length: Any
) -> None:
    bare = connect(root_url(mongo_url), driver)[f"{shadow.name}bare"]["things"]
    try:
        await bare.insert_many([dict(each) for each in DOCUMENTS])
        for kind in ("find", "aggregate"):
            for closed in (False, True) if kind == "find" else (False,):
                seen = []
                for collection in (bare, shadow["things"]):
                    cursor = await awaited(collection.find() if kind == "find" else collection.aggregate([]))
                    if closed:
                        await cursor.close()
                    seen.append(await listed(cursor, length))
                assert seen[0] == seen[1], (kind, closed)
    finally:
        await awaited(bare.database.client.drop_database(bare.database))
        await awaited(bare.database.client.close())


async def test_motors_ways_to_read(shadow: Shadow, driver: str) -> None:
    if driver == "pymongo":
        assert not hasattr(shadow["things"].find(), "fetch_next") or not flipped(shadow)
        return
    things = shadow["things"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for cursor in (things.find().sort("_id", 1), things.aggregate([{"$sort": {"_id": 1}}])):
            found = []
            assert not cursor.started
            while await cursor.fetch_next:
                found.append(cursor.next_object())
            assert found == DOCUMENTS
            assert cursor.started
            assert not cursor.closed
            await cursor.close()
            assert cursor.closed
        cursor = things.find().sort("_id", -1)
        assert await cursor.fetch_next
        assert cursor.rewind() is cursor
        assert await cursor.to_list(None) == DOCUMENTS[::-1]
    ended, told = asyncio.Event(), []

    def each(document: Any, error: Any) -> bool | None:
        told.append(None if document is None else document["_id"])
        if document is None or document["_id"] == 2:
            ended.set()
            return False
        return None

    things.find().sort("_id", 1).each(each)
    await asyncio.wait_for(ended.wait(), 30)
    await asyncio.sleep(0.05)
    assert told == [1, 2]


async def test_a_class_made_on_motors_cursor_can_be_chained(shadow: Shadow, driver: str) -> None:
    """Its methods are Motor's, which call PyMongo's functions with the cursor's `delegate`: umongo's cursor is one."""
    if driver == "pymongo":
        return
    from motor.motor_asyncio import AsyncIOMotorCursor

    class Wrapped(AsyncIOMotorCursor):  # type: ignore[misc, type-arg]
        def __init__(self, cursor: Any) -> None:
            self.delegate = cursor.delegate

    for name in ("things", "others"):
        collection = shadow[name]
        if name == "others":
            await collection.insert_many([dict(each) for each in DOCUMENTS])

        async def chained(name: str, *values: Any, collection: Any = collection) -> list[int]:
            cursor = collection.find({}, sort=[("_id", 1)])
            wrapped = Wrapped(cursor)
            assert getattr(wrapped, name)(*values) is wrapped
            return [each["_id"] for each in await cursor.to_list(None)]

        assert await chained("limit", 2) == [1, 2]
        assert await chained("skip", 1) == [2, 3]
        assert await chained("sort", "_id", -1) == [3, 2, 1]
        assert await chained("sort", [("n", 1), ("_id", -1)]) == [2, 3, 1]
        harmless: dict[str, Any] = {
            "batch_size": 2, "comment": "why", "max_time_ms": 9999, "allow_disk_use": True, "hint": "_id_",
            "add_option": 16, "remove_option": 16, "max_await_time_ms": 5, "collation": None,
        }  # fmt: skip
        for each, value in harmless.items():
            assert await chained(each, value) == [1, 2, 3], each
        for each, wrong in {"limit": "x", "skip": -1, "sort": 5, "hint": 5, "batch_size": -1}.items():
            with pytest.raises((TypeError, ValueError)):
                await chained(each, wrong)
        if name == "others" or not flipped(shadow):
            assert await chained("where", "this.n == 1") == [1, 3]
            assert await chained("collation", {"locale": "sv"}) == [1, 2, 3]
        read = collection.find({}, sort=[("_id", 1)])
        await read.to_list(None)
        with pytest.raises(InvalidOperation):
            Wrapped(read).limit(1)


async def test_a_cursor_is_one_of_the_drivers_and_says_where_it_is(shadow: Shadow, driver: str) -> None:
    for name in ("things", "others"):
        found, listed = shadow[name].find(), await awaited(shadow[name].aggregate([]))
        kinds: Any = (AsyncCursor, AsyncCommandCursor)
        if driver == "motor":
            from motor.motor_asyncio import AsyncIOMotorCursor, AsyncIOMotorLatentCommandCursor

            kinds = (AsyncIOMotorCursor, AsyncIOMotorLatentCommandCursor)
        assert isinstance(found, kinds[0])
        assert isinstance(listed, kinds[1])
    cursor = shadow["things"].find()
    assert repr(cursor).startswith(kinds[0].__name__)
    assert shadow["others"].insert_one.__name__ == shadow["things"].insert_one.__name__ == "insert_one"
    assert cursor.cursor_id is None
    await cursor.next()
    assert cursor.cursor_id is not None
    await cursor.to_list(None)
    assert cursor.cursor_id == 0


async def test_what_is_equal_has_one_hash(
    driver: str, mongo_url: str, dynamodb_local_url: str, tmp_path: Path, fresh_name: str
) -> None:
    """The driver says that a client which was passed in, and what it gives, is equal to what stands in for it."""
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, fresh_name, ["things"], driver=driver)
    given: Any = connect(mongo_url, driver)
    async with Shadow.from_settings(settings, mongo_client=given) as shadow:
        own = given[fresh_name]
        for one, other in (
            (shadow.client, given),
            (shadow, own),
            (shadow["others"], own["others"]),
            *([(shadow["things"], own["things"])] if driver == "pymongo" else []),  # Motor compares what is under it
        ):
            assert one == other
            assert other == one
            assert hash(one) == hash(other)
    await awaited(given.close())


async def test_sub_collections_have_the_options_of_their_collection(shadow: Shadow) -> None:
    aware = CodecOptions[dict[str, Any]](tz_aware=True)
    for name in ("things", "others"):
        collection = shadow.get_collection(name, codec_options=aware)
        assert collection["sub"].codec_options == collection.sub.codec_options == aware


async def test_objects_of_the_driver_made_by_hand_do_not_bypass_shadow(shadow: Shadow, driver: str) -> None:
    client: Any = shadow.client
    calls: list[Any]
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase, AsyncIOMotorGridFSBucket

        assert client.delegate.codec_options == client.codec_options
        database: Any = AsyncIOMotorDatabase(client, shadow.name)
        calls = [
            lambda: database["things"].insert_one({"_id": 9}),
            lambda: database["others"].insert_one({"_id": 9}),
            lambda: AsyncIOMotorCollection(shadow, "things").insert_one({"_id": 9}),
            lambda: AsyncIOMotorCollection(shadow, "things").find_one(),
            lambda: database.things.find({}).to_list(None),
            lambda: database.things.aggregate([{"$match": {}}]).to_list(None),
            lambda: database["things"].delete_many({}),
            lambda: database.command("ping"),
            lambda: database.drop_collection("things"),
            lambda: AsyncIOMotorGridFSBucket(database).upload_from_stream("name", b"bytes"),
        ]
    else:
        database = AsyncDatabase(client, shadow.name)
        calls = [
            lambda: database["things"].insert_one({"_id": 9}),
            lambda: AsyncCollection(shadow, "things").update_one({"_id": 1}, {"$set": {"m": 1}}),  # type: ignore[arg-type]
            lambda: database["things"].find_one({}),
            lambda: database.command("ping"),
            lambda: database.drop_collection("things"),
        ]
    for call in calls:
        with pytest.raises((UnsupportedOperation, InvalidOperation)):
            await call()
    assert await shadow["things"].find({}, sort=[("_id", 1)]).to_list(None) == DOCUMENTS
    assert await shadow.admin.driver()["others"].count_documents({}) == 0


@pytest.mark.plain_options(reason="a transaction takes no read concern but three of them")
async def test_a_session_leads_back_to_the_client_that_began_it(shadow: Shadow, driver: str) -> None:
    """As the drivers' manuals write a callback: `session.client.db.orders`."""
    async with await awaited(shadow.client.start_session()) as session:
        assert session.client is shadow.client
        assert session.client == shadow.client
        assert session.client[shadow.name] is shadow

        async def ordered(given: Any) -> str:
            assert given.client is shadow.client
            await given.client[shadow.name]["things"].insert_one({"_id": 9}, session=given)
            await given.client.get_database(shadow.name).things.delete_one({"_id": 1}, session=given)
            return "done"

        assert await session.with_transaction(ordered) == "done"
        if hasattr(session, "bind"):
            async with session.bind() as bound:
                assert bound.client is shadow.client
                assert await shadow["things"].count_documents({"_id": 9}) == 1
                await shadow["others"].insert_one({"_id": 1})
    assert session.has_ended
    assert await shadow.settled(30)
    assert [each["_id"] async for each in shadow["things"].find({}, sort=[("_id", 1)])] == [2, 3, 9]
    mine = await shadow.admin.driver()["things"].count_documents({"_id": 9})
    assert mine == 1  # where MongoDB is the secondary too, which the driver's own collection would not have told


async def test_a_document_that_is_too_large_is_one_of_the_bulks_errors(shadow: Shadow) -> None:
    if not flipped(shadow):
        return
    big = "x" * (17 * 1024 * 1024)
    requests = [pymongo.InsertOne({"_id": "a"}), pymongo.InsertOne({"_id": "b", "big": big})]
    for bulk, code in (
        ([*requests, pymongo.InsertOne({"_id": "c"})], 2),
        ([pymongo.UpdateOne({"_id": 1}, {"$set": {"m": 1}}), pymongo.ReplaceOne({"_id": 2}, {"big": big})], 10334),
    ):
        with pytest.raises(BulkWriteError) as caught:
            await shadow["things"].bulk_write(bulk)
        (error,) = caught.value.details["writeErrors"]
        assert (error["index"], error["code"]) == (1, code)
    assert caught.value.details["nModified"] == 1
    assert sorted(map(str, await shadow["things"].distinct("_id"))) == ["1", "2", "3", "a"]


async def test_closing_the_client_closes_the_shadow(
    driver: str, mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, name, ["things"], driver=driver)
    given: Any = connect(mongo_url, driver)
    shadow = Shadow.from_settings(settings, mongo_client=given)
    await shadow["others"].insert_one({"_id": 1})
    closing = shadow.client.close()
    assert inspect.isawaitable(closing) == (driver == "pymongo")
    await awaited(closing)
    async with asyncio.timeout(60):
        while not shadow._engine._closed or shadow._engine._runtimes:  # noqa: ASYNC110 - Motor's close is not awaited
            await asyncio.sleep(0.01)
    with pytest.raises(ShadowClosed):
        await shadow["things"].find_one()
    assert await given[name]["others"].count_documents({}) == 1  # what was passed in stays open
    await awaited(given.close())
    drop(mongo_url, name)
