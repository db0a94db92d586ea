"""The fleet's record of the indexes that applications make: over a flip and back, by several processes, and without the
stores that it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import DuplicateKeyError

from shadow import Settings, Shadow
from shadow.errors import ControlError
from shadow.model.phase import Phase, Route, StoreName
from tests.contract.test_indexes import settings
from tests.support.shims import without_heartbeats
from tests.support.topologies import drop

AFTER = {"expireAfterSeconds": 10**9}


def is_routed(shadow: Shadow, primary: StoreName, phase: Phase = Phase.DUAL_WRITE) -> None:
    shadow._engine.parts.routes.set("users", Route(primary, phase))


async def of(collection: Any) -> list[dict[str, Any]]:
    """By each way of asking."""
    listed = [dict(each) for each in await collection.list_indexes().to_list(None)]
    assert list(await collection.index_information()) == [each["name"] for each in listed]
    return listed


def on_mongo(made: Settings, url: str) -> set[str]:
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        names = set(client[made.mongo.database]["users"].index_information())
    return {name for name in names if not name.startswith("_shadow")} - {"_id_"}


async def test_indexes_are_the_same_after_a_flip_and_what_is_made_then_is_on_mongodb_after_the_way_back(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    """Those too that were made past shadow, and before it came. An index that deletes documents is made on MongoDB only
    when that is the primary again."""
    made = without_heartbeats(settings(mongo_url, dynamodb_local_url, tmp_path, "mongo", "dual_write"))
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        bare = client[made.mongo.database]["users"]
        bare.create_index([("early", -1)], partialFilterExpression={"n": {"$gt": 1}})
        async with Shadow.from_settings(made) as shadow:
            await shadow.prepare()
            users = shadow["users"]
            await users.create_index([("a", "text"), ("b", "text")], weights={"a": 3})
            await users.create_index("at", **AFTER)
            await users.create_index([("$**", 1)], wildcardProjection={"a": 1}, name="all")
            await users.create_index("nick", unique=True, collation={"locale": "en", "strength": 2})
            bare.create_index([("place", "2dsphere")])
            before = await of(users)
            assert len(before) == 7
            is_routed(shadow, StoreName.DYNAMO)
            await shadow._engine.indexes.look("users")
            assert await of(users) == before
            for each in before[1:3]:
                await users.drop_index(each["name"])
            await users.create_index("gone", **AFTER)
            await users.create_index([("more", "hashed")])
            after = await of(users)
            assert {each["name"] for each in after} - {each["name"] for each in before} == {"gone_1", "more_hashed"}
            assert on_mongo(made, mongo_url) == {each["name"] for each in after} - {"_id_", "gone_1"}
            is_routed(shadow, StoreName.MONGO)
            await shadow._engine.indexes.look("users")
            assert sorted(await of(users), key=lambda each: each["name"]) == sorted(
                after, key=lambda each: each["name"]
            )
    drop(mongo_url, made.mongo.database)


async def test_what_was_made_and_dropped_without_mongodb_is_made_up_for(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    made = without_heartbeats(settings(mongo_url, dynamodb_local_url, tmp_path, "dynamo", "dual_write"))
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        users = shadow["users"]
        for path in ("kept", "dropped", "other"):
            await users.create_index(path, name=f"by_{path}")
        is_routed(shadow, StoreName.DYNAMO, Phase.OFF)
        await users.drop_index("by_dropped")
        await users.drop_index("by_other")
        await users.create_index([("other", -1)], name="by_other")
        await users.create_index("new", unique=True)
        assert on_mongo(made, mongo_url) == {"by_kept", "by_dropped", "by_other"}
        is_routed(shadow, StoreName.DYNAMO)
        await shadow._engine.indexes.look("users")
        assert on_mongo(made, mongo_url) == {"by_kept", "by_other", "new_1"}
        with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
            found = client[made.mongo.database]["users"].index_information()
        assert found["by_other"]["key"] == [("other", -1)]
        assert {each["name"] for each in await of(users)} == {"_id_", "by_kept", "by_other", "new_1"}
    drop(mongo_url, made.mongo.database)


async def test_what_one_process_makes_and_drops_another_one_lists_and_enforces(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    """Also one that starts later and makes no index itself."""
    made = without_heartbeats(settings(mongo_url, dynamodb_local_url, tmp_path, "dynamo", "dual_write"))
    async with Shadow.from_settings(made) as one, Shadow.from_settings(made) as other:
        await one.prepare()
        await one["users"].create_index("nick", unique=True)
        await one["users"].create_index([("bio", "text")])
        assert await of(other["users"]) == await of(one["users"])
        await one["users"].insert_one({"_id": 1, "nick": "a"})
        with pytest.raises(DuplicateKeyError):
            await other["users"].insert_one({"_id": 2, "nick": "a"})
        await other["users"].drop_indexes()
        assert {each["name"] for each in await of(one["users"])} == {"_id_"}
        for number, shadow in ((3, one), (4, other)):
            await shadow["users"].insert_one({"_id": number, "nick": "a"})
        assert await one.settled(20)
        assert await other.settled(20)
    drop(mongo_url, made.mongo.database)


async def test_a_control_store_that_is_away_is_in_nobody_s_way(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process remembers, and writes the record when the control store answers again."""
    made = without_heartbeats(settings(mongo_url, dynamodb_local_url, tmp_path, "dynamo", "dual_write"))

    def away(*arguments: Any, **options: Any) -> Any:
        raise ControlError("away")

    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        users = shadow["users"]
        await users.create_index("a")
        with monkeypatch.context() as patch:
            for verb in ("get", "put"):
                patch.setattr(shadow._engine.fleet.records, verb, away)
            assert await users.create_index("b") == "b_1"
            await users.drop_index("a_1")
            assert {each["name"] for each in await of(users)} == {"_id_", "b_1"}
        assert shadow.admin.metrics_registry.totals()["failures"]["index"]
        assert {each["name"] for each in await of(users)} == {"_id_", "b_1"}
        async with Shadow.from_settings(made) as later:
            assert await of(later["users"]) == await of(users)
    drop(mongo_url, made.mongo.database)
