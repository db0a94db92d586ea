"""`$$NOW` and the variables of the option `let` have their values above both stores: on either primary the answers are
those of a bare collection, and what is written is the same on both stores."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from motor.motor_asyncio import AsyncIOMotorClient

from shadow import Shadow
from shadow.model.phase import StoreName
from shadow.mongoql import caching
from tests.support.shims import assert_level, settings_for
from tests.support.surface import Seen, assert_same
from tests.support.topologies import drop

pytestmark = pytest.mark.asyncio(loop_scope="module")

AFTER: Final = pymongo.ReturnDocument.AFTER
PAST: Final = {"$expr": {"$lt": ["$at", "$$NOW"]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName))
async def shadow(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    name = f"t{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("journal")
    settings = settings_for(folder, mongo_url, dynamodb_local_url, name, ["things"], primary=request.param)
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        yield shadow
    drop(mongo_url, name)


async def _calls(c: Any, see: Seen) -> None:
    then = dt.datetime(2020, 1, 1)
    await c.insert_many([{"_id": n, "n": n, "at": then if n < 3 else dt.datetime(2999, 1, 1)} for n in range(5)])
    await see(c.find(PAST).sort("_id").to_list(None))
    await see(c.count_documents({"$or": [PAST, {"n": 4}]}))
    await see(c.find({}, {"past": {"$gt": ["$$NOW", "$at"]}, "part": "$$NOW.x"}).sort("_id").to_list(None))
    shown = {"new": {"$type": "$$NOW"}, "text": {"$literal": "$$NOW"}, "same": {"$eq": ["$$NOW", "$$NOW"]}}
    inner = [{"$match": PAST}, {"$count": "n"}]
    stages = [{"$sort": {"_id": 1}}, {"$project": shown}, {"$facet": {"x": [{"$limit": 2}], "y": inner}}]
    await see(c.aggregate(stages).to_list(None))
    await see(c.update_one({"_id": 1}, [{"$set": {"kept": {"$literal": "$$NOW"}, "due": {"$lt": ["$at", "$$NOW"]}}}]))
    await see(c.update_many(PAST, [{"$set": {"seen": True}}]))
    await see(c.find_one_and_update({"_id": 2, "text": "$$NOW"}, {"$set": {"n": 7}}, upsert=False))

    let = {"least": 2, "word": "$$NOW", "deep": {"$literal": {"a": [1, 2]}}, "sum": {"$add": [1, 1]}}
    least = {"$expr": {"$gte": ["$n", "$$least"]}}
    await see(c.find(least, {"d": "$$deep.a", "x": "$$deep.b", "k": "$$least"}, let=let).sort("_id").to_list(None))
    await see(c.find_one(least, let=let, sort=[("_id", 1)]))
    bound = {"$let": {"vars": {"least": "$n"}, "in": ["$$least", "$$sum"]}}
    loops = {
        "m": {"$map": {"input": [1], "as": "sum", "in": "$$sum"}},
        "r": {"$filter": {"input": [1, 3], "cond": True}},
    }
    join = {"from": "things", "let": {"least": "$n"}, "pipeline": [{"$project": {"q": "$$least", "s": "$$sum"}}]}
    added = {"b": bound, "t": {"$type": "$$word"}, **loops}
    pipeline = [{"$match": least}, {"$sort": {"_id": 1}}, {"$set": added}, {"$unset": "at"}]
    await see(c.aggregate(pipeline, let=let).to_list(None))
    await see(
        c.aggregate(
            [{"$match": {"_id": 1}}, {"$lookup": {**join, "as": "j"}}, {"$project": {"j.q": 1}}], let=let
        ).to_list(None)
    )
    await see(c.update_one({"_id": 0}, [{"$set": {"from": "$$deep"}}], let=let))
    await see(c.update_many(least, {"$inc": {"n": 1}}, let=let))
    await see(
        c.find_one_and_update({"_id": 3}, [{"$set": {"s": "$$sum"}}], {"s": "$$sum"}, return_document=AFTER, let=let)
    )
    hinted = pymongo.UpdateOne(least, [{"$set": {"w": "$$sum"}}], hint="_id_")
    await see(c.bulk_write([pymongo.UpdateMany(least, {"$inc": {"n": 10}}), hinted], let={**let, "least": 13}))
    await see(c.delete_one({"$expr": {"$eq": ["$n", "$$four"]}}, let={"four": 4}))
    await see(lambda: c.find({"$expr": {"$eq": ["$n", "$$other"]}}, let=let).to_list(None))
    await see(lambda: c.find({}, let=5).to_list(None))
    await see(c.find().sort("_id").to_list(None))


async def test_variables_have_the_values_that_they_have_on_a_server(
    shadow: Shadow, mongo_url: str, mongo_database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongo_url)
    theirs, ours = Seen(), Seen()
    await _calls(client[mongo_database]["things"], theirs)
    await _calls(shadow["things"], ours)
    client.close()
    assert_same(theirs, ours)
    await assert_level(shadow)
    await shadow["things"].delete_many({})


async def test_both_stores_have_one_clock(shadow: Shadow) -> None:
    things = shadow["things"]
    before = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(milliseconds=1)
    await things.insert_many([{"_id": n} for n in range(3)])
    await things.update_many({}, [{"$set": {"at": "$$NOW", "list": [{"at": "$$NOW"}]}}])
    found = await things.find().to_list(None)
    (at,) = {each["at"] for each in found}
    assert before <= at <= dt.datetime.now(dt.UTC).replace(tzinfo=None)
    assert all(each["list"] == [{"at": at}] for each in found)
    for _ in range(3):
        await things.aggregate([{"$project": {"at": "$$NOW"}}]).to_list(None)
        await asyncio.sleep(0.01)
    await assert_level(shadow)
    assert not (await shadow.admin.status())["not_portable"]


async def test_calls_with_the_time_in_them_push_nothing_out_of_the_compiled_forms(shadow: Shadow) -> None:
    """Each of them is another one: it is compiled for its call, and not kept for others."""
    things = shadow["things"]
    await things.delete_many({})
    await things.insert_one({"_id": 1, "at": dt.datetime(2020, 1, 1)})
    caches = {name: getattr(caching, name)._by_bytes for name in ("_filters", "_projections", "_pipelines", "_updates")}
    let = {"least": 2}
    for turn in range(3):
        before = {name: each.cache_info().currsize for name, each in caches.items()}
        await asyncio.sleep(0.002)
        assert await things.find_one(PAST, {"now": "$$NOW"}) is not None
        assert await things.count_documents({"$or": [PAST, {"n": 4}]}) == 1
        assert len(await things.find(PAST, {"x": {"$gt": ["$$NOW", "$at"]}}).to_list(None)) == 1
        assert len(await things.aggregate([{"$match": PAST}, {"$set": {"now": "$$NOW"}}]).to_list(None)) == 1
        await things.update_one({"_id": 1}, [{"$set": {"seen": "$$NOW"}}])
        await things.update_one({"_id": 1}, {"$currentDate": {"seen": True}})
        await things.update_many(PAST, [{"$set": {"seen": "$$NOW"}}])
        await things.find_one_and_update(PAST, [{"$set": {"seen": "$$NOW"}}])
        # Constants are the same in each call, and kept.
        await things.find_one({"$expr": {"$gte": ["$n", "$$least"]}}, let=let)
        await assert_level(shadow)
        grown = {name: each.cache_info().currsize - before[name] for name, each in caches.items()}
        if turn:  # two of them may have lost their place to another call's, before a shadow read came to them
            assert sum(grown.values()) <= 2, grown
    await things.delete_many({})
