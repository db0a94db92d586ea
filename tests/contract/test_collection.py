"""The Motor surface, side by side with a bare Motor collection: same calls, same answers, same exceptions.

Each scenario runs on a bare collection and through a Shadow, with each store as primary and by each driver; after it
both stores are equal and the journal is empty.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from bson import Decimal128, Int64, ObjectId, Regex

from shadow import Shadow
from shadow.model.phase import StoreName
from shadow.surface.collections.collection import Collection
from tests.support.drawn import Draws
from tests.support.shims import assert_level, prepared
from tests.support.surface import Scenarios, Seen, assert_same
from tests.support.topologies import DEPLOYMENTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

AFTER: Final = pymongo.ReturnDocument.AFTER
BEFORE: Final = pymongo.ReturnDocument.BEFORE
SIDES: Final = [(StoreName.MONGO, "one"), (StoreName.MONGO, "replicas"), (StoreName.DYNAMO, "auth")]
"""Primary, deployment of MongoDB."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SIDES, ids=lambda side: "-".join(side))
async def shadow(
    request: pytest.FixtureRequest, draws: Draws, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    primary, deployment = request.param
    url = draws.of_node(request.node)(deployment).url(request.getfixturevalue(DEPLOYMENTS[deployment]))
    folder = tmp_path_factory.mktemp("journal")
    async with prepared(folder, url, dynamodb_local_url, ["things", "others"], primary=primary) as shadow:
        yield shadow


SCENARIOS: Final = Scenarios()
scenario = SCENARIOS.add


async def stocked(c: Any, count: int = 12) -> None:
    """`count` documents; n counts up, k is one of three, and some have a list."""
    await c.insert_many(
        [
            {"_id": n, "n": n, "k": "abc"[n % 3], "s": f"s{n}", **({"list": [n, {"x": n % 4}]} if n % 2 else {})}
            for n in range(count)
        ]
    )


async def all_of(c: Any, see: Seen) -> None:
    await see(c.find().sort("_id").to_list(None))


# --- inserts ----------------------------------------------------------------------------------------------------


@scenario
async def insert_one(c: Any, see: Seen) -> None:
    document: dict[str, Any] = {"name": "Ada"}
    await see(c.insert_one(document))
    see.note(list(document))
    see.note(isinstance(document["_id"], ObjectId))
    await see(c.insert_one({"b": 1, "_id": "late", "a": 2}))
    await see(c.find_one({"_id": "late"}))
    await see(c.insert_one({"_id": "late"}))
    await see(c.insert_one({"_id": {"a": 1, "b": [1, 2]}, "x": None}))
    await see(c.find_one({"_id": {"a": 1, "b": [1, 2]}}))
    await see(c.insert_one({"_id": "t", "tuple": (1, 2), "when": dt.datetime(2024, 1, 2, 3, 4, 5, 678912)}))
    await see(c.find_one("t"))
    await see(c.insert_one(OrderedDict([("_id", "o"), ("z", 1), ("a", 2)])))
    await see(c.insert_one({"_id": "aware", "at": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))}))
    await see(c.insert_one({"_id": None}))
    await see(c.insert_one({"_id": 2**40, "big": 2**40, "small": Int64(1), "d": Decimal128("1.10")}))
    await see(c.find({"_id": {"$ne": document["_id"]}}).sort("_id").to_list(None))


@scenario
async def insert_one_refused(c: Any, see: Seen) -> None:
    for wrong in (None, 5, "text", [], {"a": {1, 2}}, {"a": object()}, {1: 2}, {"a": 2**70}, {"_id": [1]}):
        await see(lambda wrong=wrong: c.insert_one(wrong))
    await see(lambda: c.insert_one({"_id": Regex("a")}))
    await see(lambda: c.insert_one({"a\0b": 1}))
    await all_of(c, see)


@scenario
async def insert_many(c: Any, see: Seen) -> None:
    documents: list[dict[str, Any]] = [{"n": n} for n in range(3)]
    result = await see(c.insert_many(documents))
    see.note([document["_id"] for document in documents] == result.inserted_ids)
    await see(c.insert_many({"_id": n} for n in range(5)))
    await see(c.insert_many(({"_id": "a"}, {"_id": "b"})))
    await see(c.insert_many([{"_id": f"x{n}"} for n in range(250)], ordered=False))
    await see(c.count_documents({}))
    for wrong in ([], (), None, {}, {"a": 1}, 5, [5], [{"_id": "ok"}, "text"], "text"):
        await see(lambda wrong=wrong: c.insert_many(wrong))
    await see(c.count_documents({}))


@scenario
async def insert_many_with_duplicates(c: Any, see: Seen) -> None:
    await c.insert_one({"_id": 2, "old": True})
    await see(c.insert_many([{"_id": n, "new": n} for n in range(5)]))
    await all_of(c, see)
    await see(c.insert_many([{"_id": n, "new": n} for n in range(6)], ordered=False))
    await see(c.insert_many([{"_id": 9}, {"_id": 9.0}, {"_id": 10}], ordered=True))
    await all_of(c, see)


# --- changes ----------------------------------------------------------------------------------------------------


@scenario
async def update_one(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.update_one({"_id": 3}, {"$set": {"n": 30}}))
    await see(c.update_one({"_id": 3}, {"$set": {"n": 30}}))
    await see(c.update_one({"_id": 99}, {"$set": {"n": 1}}))
    await see(c.update_one({"_id": 3, "n": 1}, {"$set": {"n": 1}}))
    await see(c.update_one({"s": "s4"}, {"$inc": {"n": 1}, "$push": {"new": {"$each": [3, 1, 2], "$sort": 1}}}))
    await see(c.update_one({"list.x": 1, "_id": 5}, {"$set": {"list.$.x": 7}}))
    await see(c.update_one({"_id": 7}, {"$set": {"list.$[e]": 0}}, array_filters=[{"e": {"$lt": 10}}]))
    await see(c.update_one({"_id": {"$eq": 8}}, {"$unset": {"s": ""}, "$rename": {"k": "kind"}}))
    await see(c.update_one({"_id": 9.0}, {"$mul": {"n": 2.5}, "$min": {"m": 1}, "$max": {"n": 3}}))
    await see(c.update_one({"_id": 1}, [{"$set": {"sum": {"$add": ["$n", 1]}}}]))
    await all_of(c, see)


@scenario
async def update_one_refused(c: Any, see: Seen) -> None:
    await stocked(c, 3)
    for wrong in ({}, {"n": 1}, {"n": 1, "$set": {"n": 2}}, None, 5, "text", []):
        await see(lambda wrong=wrong: c.update_one({"_id": 1}, wrong))
    await see(lambda: c.update_one(5, {"$set": {"a": 1}}))
    await see(lambda: c.update_one(None, {"$set": {"a": 1}}))
    for refused in (
        {"$inc": {"s": 1}},
        {"$set": {"_id": 5}},
        {"$push": {"n": 1}},
        {"$set": {"n": 1}, "$inc": {"n": 1}},
        {"$set": {"n.deep": 1}},
        {"$frobnicate": {"n": 1}},
        {"$rename": {"n": "n"}},
        {"$set": {"a": 1}, "n": 1},
    ):
        await see(lambda refused=refused: c.update_one({"_id": 1}, refused))
    await see(lambda: c.update_one({"_id": 1}, {"$set": {"x": object()}}))
    await see(lambda: c.update_one({"$frob": 1}, {"$set": {"x": 1}}))
    await all_of(c, see)


@scenario
async def upsert(c: Any, see: Seen) -> None:
    await see(c.update_one({"_id": "a"}, {"$set": {"n": 1}}, upsert=True))
    await see(c.update_one({"_id": "a"}, {"$inc": {"n": 1}}, upsert=True))
    await see(c.update_one({"k": "v", "n": {"$gt": 5}}, {"$set": {"m": 1}, "$setOnInsert": {"o": 1}}, upsert=True))
    await see(c.update_one({"k": "v"}, {"$set": {"m": 2}, "$setOnInsert": {"o": 2}}, upsert=True))
    await see(c.update_one({"_id": "a", "n": 77}, {"$set": {"m": 1}}, True))
    await see(c.update_one({"_id": {"$in": ["z"]}, "q": 1}, {"$set": {"m": 1}}, upsert=True))
    await see(c.update_many({"_id": "many", "t": True}, {"$set": {"m": 1}}, upsert=True))
    await see(c.replace_one({"_id": "r"}, {"x": 1}, upsert=True))
    await see(c.replace_one({"y": 1}, {"x": 2}, upsert=True))
    await see(c.replace_one({"y": 2}, {"_id": "named", "x": 3}, upsert=True))
    await see(c.update_one({"$and": [{"_id": "and"}, {"w": 1}]}, {"$set": {"v": 1}}, upsert=True))
    await see(c.find({}, {"_id": 0}).sort([("x", 1), ("n", 1), ("m", 1), ("o", 1), ("q", 1)]).to_list(None))
    await c.delete_many({})
    await see(c.update_one({"_id": "a"}, {"$set": {"again": True}}, upsert=True))
    await see(c.insert_one({"_id": "a"}))
    await all_of(c, see)


@scenario
async def update_many(c: Any, see: Seen) -> None:
    await stocked(c, 40)
    await see(c.update_many({"k": "a"}, {"$inc": {"n": 100}}))
    await see(c.update_many({"k": "b"}, {"$set": {"k": "b"}}))
    await see(c.update_many({"n": {"$lt": 20}}, {"$set": {"low": True}}))
    await see(c.update_many({"k": "nothing"}, {"$set": {"x": 1}}))
    await see(c.update_many({}, [{"$set": {"twice": {"$multiply": ["$n", 2]}}}]))
    await see(lambda: c.update_many({}, {"n": 1}))
    await all_of(c, see)


@scenario
async def replace_one(c: Any, see: Seen) -> None:
    await stocked(c, 5)
    replacement = {"n": "new", "sub": {"a": (1, 2)}}
    await see(c.replace_one({"_id": 1}, replacement))
    see.note(list(replacement))
    await see(c.replace_one({"_id": 1}, replacement))
    await see(c.replace_one({"s": "s2"}, {"_id": 2, "x": 1}))
    await see(c.replace_one({"_id": 3}, {"_id": 4}))
    await see(c.replace_one({"_id": 77}, {"x": 1}))
    await see(c.replace_one({"_id": 0}, {}))
    for wrong in ({"$set": {"a": 1}}, None, 5, [{"$set": {"a": 1}}]):
        await see(lambda wrong=wrong: c.replace_one({"_id": 3}, wrong))
    await all_of(c, see)


@scenario
async def delete(c: Any, see: Seen) -> None:
    await stocked(c, 30)
    await see(c.delete_one({"_id": 1}))
    await see(c.delete_one({"_id": 1}))
    await see(c.delete_one({"s": "s2", "n": 2}))
    await see(c.delete_one({"_id": 3, "n": 4}))
    await see(c.delete_many({"k": "a", "n": {"$gt": 10}}))
    await see(c.delete_many({"k": "none"}))
    await see(lambda: c.delete_one(5))
    await see(lambda: c.delete_many(None))
    await see(c.find_one({"_id": 1}))
    await see(c.count_documents({}))
    await see(c.insert_one({"_id": 1, "again": True}))
    await see(c.insert_many([{"_id": 2, "again": True}, {"_id": 18, "again": True}]))
    await all_of(c, see)


@scenario
async def find_one_and(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.find_one_and_update({"_id": 1}, {"$inc": {"n": 10}}))
    await see(c.find_one_and_update({"_id": 1}, {"$inc": {"n": 10}}, return_document=AFTER))
    await see(c.find_one_and_update({"k": "a"}, {"$set": {"hit": 1}}, sort=[("n", -1)], return_document=AFTER))
    await see(c.find_one_and_update({"k": "a"}, {"$set": {"hit": 2}}, {"_id": 0, "n": 1}, [("n", 1)]))
    await see(c.find_one_and_update({"_id": 77}, {"$set": {"x": 1}}))
    await see(c.find_one_and_update({"_id": 77}, {"$set": {"x": 1}}, upsert=True))
    await see(c.find_one_and_update({"_id": 78}, {"$set": {"x": 1}}, upsert=True, return_document=AFTER))
    await see(c.find_one_and_update({"_id": 5}, {"$set": {"list.$[e]": 1}}, array_filters=[{"e": 5}]))
    await see(c.find_one_and_replace({"_id": 2}, {"r": 1}))
    await see(c.find_one_and_replace({"_id": 2}, {"r": 2}, return_document=AFTER))
    await see(c.find_one_and_replace({"_id": 79}, {"r": 2}, upsert=True, return_document=AFTER))
    await see(c.find_one_and_replace({"_id": 80}, {"r": 2}, {"r": 1, "_id": 0}))
    await see(c.find_one_and_delete({"k": "c"}, sort=[("n", -1)], projection=["s"]))
    await see(c.find_one_and_delete({"_id": 3}))
    await see(c.find_one_and_delete({"_id": 3}))
    await see(lambda: c.find_one_and_update({"_id": 4}, {"n": 1}))
    await see(lambda: c.find_one_and_replace({"_id": 4}, {"$set": {"n": 1}}))
    await see(lambda: c.find_one_and_update({"_id": 4}, {"$inc": {"s": 1}}))
    await all_of(c, see)


@scenario
async def bulk_write(c: Any, see: Seen) -> None:
    await stocked(c, 5)
    requests = [
        pymongo.InsertOne({"_id": "i", "n": 1}),
        pymongo.InsertOne({"_id": "j", "n": 2}),
        pymongo.UpdateOne({"_id": "i"}, {"$inc": {"n": 1}}),
        pymongo.UpdateOne({"_id": "u"}, {"$set": {"n": 1}}, upsert=True),
        pymongo.UpdateOne({"w": 1}, {"$set": {"n": 1}}, upsert=True),
        pymongo.UpdateMany({"k": {"$exists": True}}, {"$set": {"many": True}}),
        pymongo.ReplaceOne({"_id": 0}, {"replaced": True}),
        pymongo.ReplaceOne({"_id": "v"}, {"replaced": True}, upsert=True),
        pymongo.DeleteOne({"_id": 1}),
        pymongo.DeleteMany({"n": {"$in": [2, 3]}}),
        pymongo.InsertOne({"_id": 1, "again": True}),
    ]
    await see(c.bulk_write(requests))
    await see(c.find({}, {"_id": 0}).sort([("n", 1), ("w", 1), ("replaced", 1), ("again", 1), ("s", 1)]).to_list(None))
    for ordered in (True, False):
        mixed = [
            pymongo.InsertOne({"_id": ("p", "q")[ordered]}),
            pymongo.InsertOne({"_id": "i"}),
            pymongo.DeleteOne({"_id": "j"}),
            pymongo.UpdateOne({"_id": "u"}, {"$push": {"n": 1}}),
            pymongo.UpdateOne({"_id": "u"}, {"$inc": {"n": 1}}),
        ]
        await see(c.bulk_write(mixed, ordered=ordered))
    await see(lambda: c.bulk_write([]))
    await see(lambda: c.bulk_write([{"insert": 1}]))
    await see(c.count_documents({}))


# --- reads ------------------------------------------------------------------------------------------------------


@scenario
async def find_one(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.find_one({"_id": 4}))
    await see(c.find_one(4))
    await see(c.find_one("nothing"))
    await see(c.find_one({"k": "b"}, sort=[("n", -1)]))
    await see(c.find_one({"k": "b"}, {"_id": 0, "s": 1}, sort=[("n", 1)]))
    await see(c.find_one({"k": "b"}, ["s", "n"], sort=[("n", 1)], skip=1))
    await see(c.find_one({"_id": 3}, {"list": {"$slice": 1}}))
    await see(c.find_one({"_id": 3}, {"list": 0, "s": 0}))
    await see(c.find_one({"_id": 3}, []))
    await see(c.find_one({"list.x": {"$gt": 2}}, sort=[("_id", 1)]))
    await see(lambda: c.find_one({"_id": {"$frob": 1}}))
    await see(lambda: c.find_one({"_id": 3}, {"a": 1, "b": 0}))


@scenario
async def find(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.find({"k": "a"}).sort("n", -1).to_list(None))
    await see(c.find({"k": "a"}, {"s": 1}, sort=[("n", 1)], skip=1, limit=2).to_list(None))
    await see(c.find(sort={"k": 1, "n": -1}).limit(5).to_list())
    await see(c.find().sort([("k", -1), ("n", 1)]).skip(3).limit(-4).to_list(length=100))
    await see(c.find(projection={"_id": 0, "n": 1}).sort("n").batch_size(2).to_list(None))
    await see(c.find({"$or": [{"n": 1}, {"list": 5}]}).sort("_id").to_list(None))
    await see(c.find({"s": Regex("^s1")}).sort("_id").to_list(None))
    await see(c.find({"k": {"$in": ["a", "b"]}, "n": {"$mod": [2, 0]}}).sort("_id").to_list(None))
    see.note([document["n"] async for document in c.find({"n": {"$lt": 5}}).sort("n")])
    for wrong in (5, "text", []):
        # An empty list counts as no filter; sorted, for the stores keep different orders.
        await see(lambda wrong=wrong: c.find(wrong).sort("_id").to_list(None))
    await see(lambda: c.find({}, limit="3").to_list(None))
    await see(lambda: c.find({}).limit("3").to_list(None))
    await see(lambda: c.find({}).skip(-1).to_list(None))
    await see(lambda: c.find({}).sort("n", 5).to_list(None))
    await see(lambda: c.find({}).sort([]).to_list(None))
    await see(lambda: c.find({"$frob": 1}).to_list(None))
    await see(lambda: c.find({}).to_list(-1))


@scenario
async def cursor(c: Any, see: Seen) -> None:
    await stocked(c, 7)
    found = c.find().sort("_id").batch_size(2)
    see.note(found.alive)
    await see(found.to_list(3))
    see.note(found.alive)
    await see(lambda: found.sort("n"))
    await see(lambda: found.limit(1))
    await see(found.next())
    await see(found.to_list(length=2))
    await see(found.to_list(length=5))
    see.note(found.alive)
    await see(found.to_list(None))
    await see(found.next())
    copy = found.clone()
    see.note(copy.alive)
    await see(copy.limit(2).to_list(None))
    found.rewind()
    await see(found.to_list(2))
    await see(found.close())
    see.note(found.alive)
    await see(found.to_list(None))
    empty = c.find({"n": 99})
    see.note([each async for each in empty])
    await see(lambda: c.find()[0])
    await see(lambda: bool(c))
    see.note(c.find().collection.name)
    early = c.find().sort("_id")
    async for document in early:
        see.note(document)
        break
    await see(early.close())


@scenario
async def counts_distinct_and_aggregate(c: Any, see: Seen) -> None:
    await stocked(c)
    await c.delete_one({"_id": 11})
    await see(c.count_documents({}))
    await see(c.count_documents({"k": "a"}, skip=1, limit=2))
    await see(c.count_documents({"list.x": 1}))
    await see(c.estimated_document_count())
    see.note(sorted(await c.distinct("k")))
    see.note(sorted(await c.distinct("list.x", {"n": {"$gt": 4}})))
    group = {"$group": {"_id": "$k", "sum": {"$sum": "$n"}, "all": {"$push": "$n"}}}
    await see(
        c.aggregate([{"$match": {"n": {"$gt": 1}}}, {"$sort": {"n": 1}}, group, {"$sort": {"_id": 1}}]).to_list(None)
    )
    pipeline = [{"$unwind": "$list"}, {"$sort": {"_id": 1}}, {"$project": {"list": 1}}, {"$limit": 3}]
    see.note([document async for document in c.aggregate(pipeline)])
    await see(lambda: c.aggregate([{"$frob": 1}]).to_list(None))
    await see(lambda: c.aggregate({"$match": {}}).to_list(None))
    await see(lambda: c.count_documents({"$frob": 1}))
    await see(lambda: c.distinct(5))


@scenario
async def numbers_and_keys(c: Any, see: Seen) -> None:
    await see(c.insert_one({"_id": 5}))
    await see(c.insert_one({"_id": 5.0}))
    await see(c.update_one({"_id": Decimal128("5")}, {"$set": {"hit": True}}))
    await see(c.replace_one({"_id": 5.0}, {"r": 1}))
    await see(c.find_one({"_id": Int64(5)}))
    await see(c.insert_one({"_id": "5f43a1b2c3d4e5f60718293a"}))
    await see(c.insert_one({"_id": ObjectId("5f43a1b2c3d4e5f60718293a"), "x": 1}))
    await see(c.update_one({"_id": ObjectId("5f43a1b2c3d4e5f60718293a")}, {"$inc": {"x": 1}}))
    await see(c.insert_one({"_id": {"a": 1, "b": 2}}))
    await see(c.insert_one({"_id": {"b": 2, "a": 1}}))
    await see(c.delete_one({"_id": {"a": 1.0, "b": 2}}))
    await see(c.delete_one({"_id": 5.0}))
    await all_of(c, see)


@pytest.mark.drawn_over("shadow", of=2, reason="two of the three are MongoDB as primary, alone and in a set")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_shim_answers_as_bare_motor_does(shadow: Shadow, things: Collection, bare: Any, name: str) -> None:
    theirs, ours = Seen(), Seen()
    await SCENARIOS[name](bare, theirs)
    await SCENARIOS[name](things, ours)
    assert_same(theirs, ours)
    await assert_level(shadow)
