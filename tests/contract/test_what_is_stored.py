"""What was sent is what is stored, in both stores to the byte, whichever of them answers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import bson
import pymongo
import pytest
import pytest_asyncio
from bson import DBRef, Timestamp
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient

from shadow import Shadow
from shadow.errors import UnreadableDocument, UnsupportedOperation
from shadow.model.phase import StoreName
from shadow.model.stored import encoded
from shadow.model.verdict import Healing
from shadow.model.version import Document, Unknown
from tests.support.raw_bson import ODD, UNREADABLE, document, element, int32, text
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import admit, drop

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMPTY: Final = Timestamp(0, 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName), ids=lambda each: f"{each}-answers")
async def shadow(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    name = f"t{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("journal")
    settings = settings_for(folder, mongo_url, dynamodb_local_url, name, ["things"], primary=request.param)
    async with Shadow(settings) as shadow:
        await shadow.prepare()
        yield shadow
        await assert_level(shadow)
    drop(mongo_url, name)


async def stored(shadow: Shadow, key: Any) -> list[bytes]:
    """What each store holds under a key, as bytes."""
    assert await shadow.settled(30)
    images = [await shadow._engine.runtime().stores[name].image("things", key) for name in StoreName]
    assert images[0].state == images[1].state or not any(image.present for image in images)
    return [encoded(image.document) for image in images if image.document is not None]


async def bare(shadow: Shadow) -> Any:
    """MongoDB past the shim."""
    mongo = shadow.admin.settings.mongo
    client: Any = AsyncIOMotorClient(mongo.url.get_secret_value())
    return client[mongo.database]["things"]


@pytest.mark.parametrize("name", ODD)
async def test_odd_bson_that_is_inserted_or_put_in_place_is_kept_to_the_byte(shadow: Shadow, name: str) -> None:
    things, key = shadow["things"], f"odd {name}"
    raw = document(element(2, "_id", text(key)), ODD[name])
    await things.insert_one(RawBSONDocument(raw))
    assert await stored(shadow, key) == [raw, raw]
    assert await things.find_one({"_id": key}) == bson.decode(raw)
    assert [each async for each in things.find({"_id": {"$in": [key]}})] == [bson.decode(raw)]
    await things.replace_one({"_id": key}, {"n": 1})
    await things.replace_one({"_id": key}, RawBSONDocument(document(ODD[name])))
    assert await stored(shadow, key) == [raw, raw]
    assert (await things.find_one_and_delete({"_id": key}))["_id"] == key
    assert await stored(shadow, key) == []


async def test_odd_bson_in_batches(shadow: Shadow) -> None:
    raws = {name: document(element(2, "_id", text(f"batch {name}")), ODD[name]) for name in ODD}
    await shadow["things"].insert_many([RawBSONDocument(raw) for raw in raws.values()])
    for name, raw in raws.items():
        assert await stored(shadow, f"batch {name}") == [raw, raw]
    await shadow["things"].delete_many({})


async def test_a_reference_keeps_the_order_that_it_was_given(shadow: Shadow) -> None:
    things = shadow["things"]
    given = {"_id": "ref", "given": {"$id": 1, "$ref": "c"}, "usual": DBRef("c", 1), "more": {"$id": 1, "x": 2}}
    await things.insert_one(dict(given))
    assert await stored(shadow, "ref") == [bson.encode(given)] * 2
    with pytest.raises(UnsupportedOperation, match="a DBRef in another order"):
        await things.update_one({"_id": "ref"}, {"$set": {"given": {"$id": 2, "$ref": "c"}}})
    await things.delete_one({"_id": "ref"})


async def test_empty_timestamps_are_filled_in_as_the_server_does_it(shadow: Shadow) -> None:
    """In inserts and replacements at the top level; in no update, and in no upsert by operators."""
    things, nested = shadow["things"], {"x": EMPTY}
    await things.insert_one({"_id": 1, "at": EMPTY, "in": nested, "list": [EMPTY]})
    await things.insert_many([{"_id": 2, "at": EMPTY}], ordered=False)
    await things.insert_one({"_id": 3})
    await things.replace_one({"_id": 3}, {"at": EMPTY})
    await things.replace_one({"_id": 4}, {"at": EMPTY}, upsert=True)
    await things.find_one_and_replace({"_id": 5}, {"at": EMPTY}, upsert=True)
    await things.bulk_write([pymongo.InsertOne({"_id": 6, "at": EMPTY}), pymongo.ReplaceOne({"_id": 6}, {"at": EMPTY})])
    await things.update_one({"_id": 7}, {"$set": {"at": EMPTY}, "$setOnInsert": {"b": EMPTY}}, upsert=True)
    await things.update_one({"_id": 1}, {"$set": {"later": EMPTY}})
    await things.find_one_and_update({"_id": 2}, [{"$set": {"later": EMPTY}}])
    found = {each["_id"]: each async for each in things.find({})}
    assert all(found[key]["at"].time > 0 for key in range(1, 7))
    assert found[7] == {"_id": 7, "at": EMPTY, "b": EMPTY}
    assert (found[1]["in"], found[1]["list"], found[1]["later"], found[2]["later"]) == (nested, [EMPTY], EMPTY, EMPTY)
    for key, one in found.items():
        assert await stored(shadow, key) == [bson.encode(one)] * 2
    await things.delete_many({})


async def test_a_copy_of_an_empty_timestamp_leaves_it_empty(shadow: Shadow) -> None:
    """MongoDB as the secondary would fill it in, in an insert or a replacement."""
    things = shadow["things"]
    await things.insert_one({"_id": "k"})
    await things.update_one({"_id": "k"}, {"$set": {"at": EMPTY}})
    wanted = [bson.encode({"_id": "k", "at": EMPTY})] * 2
    assert await stored(shadow, "k") == wanted
    primary = shadow.admin.routes()["things"].primary
    secondary = shadow._engine.runtime().stores[primary.other]
    image = await secondary.image("things", "k")
    if primary is StoreName.DYNAMO:
        await (await bare(shadow)).delete_one({"_id": "k"})
        await shadow.admin.heal("things", "k")
        assert await stored(shadow, "k") == wanted
        await (await bare(shadow)).update_one({"_id": "k"}, {"$set": {"at": 1}})
        await shadow.admin.heal("things", "k")
    else:
        assert await secondary.put("things", "k", image, image.state)
    assert await stored(shadow, "k") == wanted
    await things.delete_one({"_id": "k"})


@pytest.mark.parametrize("name", [*UNREADABLE, "a stamp", "an array of stamps", "a tombstone"])
async def test_what_mongodb_cannot_show_is_copied_over_or_not_copied(shadow: Shadow, name: str) -> None:
    """MongoDB as the secondary: a difference that heals. As the primary: neither a copy nor a deletion."""
    things, mongo = shadow["things"], await bare(shadow)
    await things.insert_one({"_id": "k", "n": 1})
    assert await shadow.settled(30)
    seen = await mongo.find_one({"_id": "k"})
    if name in UNREADABLE:
        stamp = element(3, "_shadow", bson.encode(seen["_shadow"]))
        await mongo.delete_one({"_id": "k"})
        await mongo.insert_one(RawBSONDocument(document(element(2, "_id", text("k")), UNREADABLE[name], stamp)))
    else:
        stamps: dict[str, Any] = {
            "a stamp": {"b": "x", "r": "1"}, "an array of stamps": [{"b": "x", "r": 1}], "a tombstone": {"t": 5}
        }  # fmt: skip
        await mongo.update_one({"_id": "k"}, {"$set": {"_shadow": stamps[name]}})
    image = await shadow._engine.runtime().stores[StoreName.MONGO].image("things", "k")
    assert isinstance(image.state, Unknown) is (name not in UNREADABLE)
    if shadow.admin.routes()["things"].primary is StoreName.DYNAMO:
        assert await shadow.admin.heal("things", "k") is Healing.COPIED
        assert await stored(shadow, "k") == [bson.encode({"_id": "k", "n": 1})] * 2
    else:
        with pytest.raises(UnreadableDocument):
            await shadow.admin.heal("things", "k")
        there = await shadow._engine.runtime().stores[StoreName.DYNAMO].image("things", "k")
        assert there.document == {"_id": "k", "n": 1}
        await mongo.delete_one({"_id": "k"})
        await shadow.admin.heal("things", "k")
    await things.delete_one({"_id": "k"})
    assert await shadow.settled(30)


async def test_an_application_that_can_read_it_reads_it_by_every_verb(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    """`unicode_decode_error_handler` of its client holds here as it does on the bare driver."""
    name = f"t{uuid.uuid4().hex[:12]}"
    client: Any = AsyncIOMotorClient(mongo_url, unicode_decode_error_handler="replace")
    admit(mongo_url, name)
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, name, ["things"])
    plain = client[name]["things"]
    await plain.insert_one(RawBSONDocument(document(element(16, "_id", int32(1)), UNREADABLE["text"])))

    async def answers(things: Any) -> list[Any]:
        found: list[Document] = [
            await things.find_one({"_id": 1}),
            *[each async for each in things.find({})],
            *[each async for each in things.find({}, {"n": 1, "_id": 0})],
            *[each async for each in things.aggregate([{"$match": {"_id": 1}}])],
            await things.find_one_and_update({"_id": 1}, {"$set": {"a": 1}}),
            await things.find_one_and_update({"_id": 1}, {"$unset": {"a": 1}}),
        ]
        return [*found, await things.distinct("n")]

    async with Shadow.from_settings(settings, mongo_client=client) as shadow:
        await shadow.prepare()
        right = await answers(plain)
        assert right[0] == {"_id": 1, "n": "ab\ufffdd"}
        assert await answers(shadow["things"]) == [
            {name: value for name, value in each.items() if name != "_shadow"} if isinstance(each, dict) else each
            for each in right
        ]
    strict = settings_for(tmp_path / "strict", mongo_url, dynamodb_local_url, name, ["things"])
    (tmp_path / "strict").mkdir()
    async with Shadow(strict) as shadow:
        with pytest.raises(InvalidBSON):
            await shadow["things"].find_one({"_id": 1})
    client.close()
    drop(mongo_url, name)
