"""`$rand`, `$sampleRate` and `$jsonSchema` with either store as primary: answers by chance are never mismatches, writes
by chance are refused where two stores would draw for themselves, and a schema is about the application's fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from tests.support.shims import assert_level, prepared

RAND: Final[dict[str, Any]] = {"$rand": {}}
HALF: Final = {"$expr": {"$lt": [RAND, 0.5]}}
SCHEMA: Final = {
    "required": ["n", "tags"],
    "properties": {"_id": {}, "n": {"bsonType": ["int", "long"], "maximum": 99}, "tags": {"uniqueItems": True}},
    "additionalProperties": False,
    "maxProperties": 3,
    "minProperties": 3,
}


@pytest.mark.parametrize("primary", StoreName)
async def test_what_is_drawn_is_compared_with_nothing(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], primary=primary) as shadow:
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": n} for n in range(200)])
        drawn = [
            len(await things.find({"$sampleRate": 0.5}).to_list(None)),
            len(await things.find({"n": {"$gte": 0}, "$or": [HALF]}).to_list(None)),
            await things.count_documents(HALF),
            len(await things.distinct("n", {"$sampleRate": 0.5})),
        ]
        stages = [
            [{"$match": {"$sampleRate": 0.5}}],
            [{"$sort": {"n": 1}}, {"$match": HALF}],
            [{"$set": {"r": RAND}}, {"$match": {"r": {"$lt": 0.5}}}],
            [{"$set": {"r": {"$add": [RAND, 0]}}}, {"$sort": {"r": 1}}, {"$limit": 100}],
        ]
        drawn += [len(await things.aggregate(each).to_list(None)) for each in stages]
        # Each is 100 but for chance: 40 away from it is once in 10^8.
        assert all(60 < each < 140 for each in drawn), drawn
        shown = await things.find({}, {"r": RAND}).sort("_id").to_list(None)
        assert len({each["r"] for each in shown}) == 200
        assert all(0 <= each["r"] < 1 for each in shown)
        await things.find_one({"_id": 1, **HALF})
        await things.aggregate([{"$group": {"_id": None, "r": {"$max": RAND}}}]).to_list(None)
        await things.aggregate([{"$lookup": {"from": "things", "pipeline": [{"$match": HALF}], "as": "x"}}]).to_list()
        await things.aggregate([{"$facet": {"a": [{"$match": HALF}, {"$count": "n"}]}}]).to_list(None)
        await assert_level(shadow)
        text = shadow.admin.metrics()[0].decode()
        assert 'shadow_incomparable_total{collection="things",reason="chance"} 6.0' in text


@pytest.mark.parametrize("primary", StoreName)
async def test_writes_by_chance_are_mongodbs_alone(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], primary=primary) as shadow:
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": n} for n in range(40)])
        calls = {
            "update_one": lambda: things.update_one({"_id": 1}, [{"$set": {"r": RAND}}]),
            "update_many": lambda: things.update_many({}, [{"$set": {"r": {"$multiply": [RAND, 10]}}}]),
            "filter": lambda: things.update_many({"$sampleRate": 1}, {"$set": {"hit": 1}}),
            "delete_one": lambda: things.delete_one({"$nor": [{"$expr": {"$gte": [RAND, 2]}}], "n": 3}),
        }
        for verb, call in calls.items():
            if primary is StoreName.DYNAMO:
                with pytest.raises(UnsupportedOperation, match=r"\$(rand|sampleRate)"):
                    await call()
            else:
                result = await call()
                assert result.raw_result["n"] >= 1, verb
        kept = await things.find().sort("_id").to_list(None)
        if primary is StoreName.DYNAMO:
            assert kept == [{"_id": n, "n": n} for n in range(40)]
        else:
            assert len({each["r"] for each in kept}) == 39
        await assert_level(shadow)


@pytest.mark.parametrize("primary", StoreName)
async def test_a_schema_is_about_the_applications_fields(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], primary=primary) as shadow:
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": n, "tags": [n, 1]} for n in range(4)])
        await things.insert_many([{"_id": 4, "n": "4", "tags": []}, {"_id": 5, "n": 5, "tags": [], "more": 1}])
        filter = {"$jsonSchema": SCHEMA}
        fitting = [each["_id"] for each in await things.find(filter).sort("_id").to_list(None)]
        assert fitting == [0, 2, 3]
        assert await things.count_documents({"$nor": [filter]}) == 3
        assert await things.distinct("n", filter) == [0, 2, 3]
        assert (await things.find_one({"$jsonSchema": {"enum": [{"tags": [], "n": "4", "_id": 4}]}}))["_id"] == 4
        counted = await things.aggregate([{"$match": filter}, {"$count": "n"}]).to_list(None)
        assert counted == [{"n": 3}]
        assert (await things.update_one({"_id": 2, **filter}, {"$inc": {"n": 10}})).modified_count == 1
        assert (await things.update_many(filter, {"$inc": {"n": 1}})).modified_count == 3
        assert (await things.replace_one({"n": 13, **filter}, {"n": 13, "tags": ["new"]})).modified_count == 1
        assert (await things.delete_many({"$jsonSchema": {"required": ["more"]}})).deleted_count == 1
        assert (await things.delete_one({"_id": 4, **filter})).deleted_count == 0
        with pytest.raises(OperationFailure) as refused:
            await things.find_one(filter, {"tags.$": 1})
        assert refused.value.code == 224
        for_place = {"_id": 0, "tags": 1, **filter}
        if primary is StoreName.DYNAMO:
            with pytest.raises(UnsupportedOperation, match="jsonSchema"):
                await things.update_one(for_place, {"$set": {"tags.$": 7}})
        else:
            assert (await things.update_one(for_place, {"$set": {"tags.$": 7}})).modified_count == 1
        await assert_level(shadow)
        alone = "1.0" if primary is StoreName.MONGO else "0.0"
        text = shadow.admin.metrics()[0].decode()
        assert f'shadow_incomparable_total{{collection="things",reason="not_portable"}} {alone}' in text


@pytest.mark.parametrize("primary", StoreName)
async def test_what_a_schema_cannot_say_here_is_refused_by_name(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    """MongoDB answers it while it is the primary."""
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], primary=primary) as shadow:
        things = shadow["things"]
        await things.insert_one({"_id": 1, "a": {"b": 1}})
        for schema, found in (
            ({"required": ["a.b"]}, 1),
            ({"properties": {"a.b": {"type": "string"}}}, 0),
            ({"properties": {"a": {"encrypt": {}}}}, 0),
            ({"dependencies": {"a": ["a.b"]}}, 1),
            ({"multipleOf": float("inf")}, 1),
        ):
            if primary is StoreName.MONGO:
                assert await things.count_documents({"$jsonSchema": schema}) == found
            else:
                with pytest.raises(UnsupportedOperation, match="jsonSchema"):
                    await things.count_documents({"$jsonSchema": schema})
        await assert_level(shadow)
