"""Time limits and pools of a connection to MongoDB: the application gets what it asked for, and what was acknowledged
is followed however short that is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError, WriteConcernError

from shadow import Shadow
from shadow.config import Settings
from shadow.model.limits import Limits
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import StoreName
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import ReplicaSet

NAME = "things"
DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])
LIMITS: Final = Limits(operation=8.0, recover_every=0.05, settle=0.05, loop_lag=0)
"""What is not known to have been done is looked at again after `operation`; MongoDB has half of it."""
LATE: Final = 2.0
"""Seconds that a command is held up: beyond what the limits of these tests allow, and well under those of shadow."""
COMMANDS: Final = ["find", "findAndModify", "insert", "update", "aggregate", "distinct"]


@pytest.fixture
def settings(own_replica_set: ReplicaSet, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Any:
    def make(options: str, driver: str, primary: StoreName = StoreName.MONGO) -> Settings:
        url = f"{own_replica_set.url}&appName={fresh_name}&{options}"
        return settings_for(
            tmp_path, url, dynamodb_local_url, fresh_name, [NAME], primary=primary, driver=driver, limits=LIMITS
        )

    return make


@contextmanager
def held_up(members: ReplicaSet, app: str, seconds: float = LATE) -> Iterator[None]:
    """The commands of one application wait on the primary in the block."""
    data = {"failCommands": COMMANDS, "blockConnection": True, "blockTimeMS": int(seconds * 1000), "appName": app}
    with MongoClient[dict[str, Any]](members.primary.url) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.mark.takes_turns
@pytest.mark.parametrize(
    ("driver", "limit"),
    [
        ("motor", "timeoutMS=600"),
        ("pymongo", "timeoutMS=600"),
        ("motor", "socketTimeoutMS=600"),
        ("pymongo", "socketTimeoutMS=600&retryWrites=false"),
    ],
)
async def test_a_call_ends_by_the_application_s_own_limit_and_its_outcome_is_found_out(
    settings: Any, own_replica_set: ReplicaSet, fresh_name: str, driver: str, limit: str
) -> None:
    async with Shadow.from_settings(settings(limit, driver)) as shadow:
        await shadow.prepare()
        things = shadow[NAME]
        await things.insert_one({"_id": 1, "n": 0})
        with held_up(own_replica_set, fresh_name):
            for call in (
                lambda: things.find_one({"_id": 1}),
                lambda: things.update_one({"_id": 1}, {"$inc": {"n": 1}}),
                lambda: things.update_one({"n": 0}, {"$inc": {"n": 1}}),
                lambda: things.insert_one({"_id": 2}),
            ):
                # Whoever waited longer would have an answer.
                with pytest.raises(PyMongoError) as ended:
                    await call()
                assert classify(ended.value) is Outcome.UNKNOWN
        await assert_level(shadow)


@DRIVERS
@pytest.mark.parametrize("limit", ["timeoutMS=200", "socketTimeoutMS=200"])
async def test_what_was_acknowledged_is_followed_however_short_the_application_s_limit_is(
    settings: Any, own_replica_set: ReplicaSet, fresh_name: str, driver: str, limit: str
) -> None:
    async with Shadow.from_settings(settings(limit, driver, StoreName.DYNAMO)) as shadow:
        await shadow.prepare()
        with held_up(own_replica_set, fresh_name, 0.5):
            for key in range(3):
                await shadow[NAME].insert_one({"_id": key})
            await shadow[NAME].update_one({"_id": 1}, {"$set": {"n": 1}})
            await shadow[NAME].delete_one({"_id": 2})
            assert await shadow.settled(30)
            assert (await shadow.admin.heal(NAME, 1)).value != "failed"
        await assert_level(shadow)


@pytest.mark.takes_turns
@DRIVERS
async def test_a_write_that_waits_too_long_for_its_members_ends_by_wtimeout_and_is_unknown(
    settings: Any, own_replica_set: ReplicaSet, driver: str
) -> None:
    async with Shadow.from_settings(settings("w=majority&wTimeoutMS=600", driver)) as shadow:
        await shadow.prepare()
        things = shadow[NAME]
        await things.insert_many([{"_id": 1}, {"_id": 2}])
        with own_replica_set.apart():
            for call in (
                lambda: things.insert_one({"_id": 3}),
                lambda: things.update_one({"_id": 1}, {"$set": {"n": 1}}),
                lambda: things.delete_one({"_id": 2}),
            ):
                with pytest.raises(WriteConcernError) as ended:
                    await call()
                assert classify(ended.value) is Outcome.UNKNOWN
        await assert_level(shadow)
        assert await things.count_documents({}) == 2


@pytest.mark.takes_turns
@DRIVERS
@pytest.mark.parametrize("primary", list(StoreName))
async def test_one_connection_does_for_the_application_and_for_shadow(
    settings: Any, driver: str, primary: StoreName
) -> None:
    made: Settings = settings("maxPoolSize=1&maxConnecting=1&minPoolSize=1", driver, primary)
    made = made.model_copy(
        update={
            "observe": made.observe.model_copy(update={"watch_writers": True}),
            "limits": LIMITS.model_copy(update={"operation": 60.0, "write_deadline": 30.0, "read_deadline": 30.0}),
        }
    )
    async with asyncio.timeout(100), Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        things = shadow[NAME]

        async def use(key: int) -> None:
            await things.insert_one({"_id": key, "n": 0})
            await things.update_many({"n": 0, "_id": key}, {"$inc": {"n": 1}})
            assert await things.find_one({"_id": key}) == {"_id": key, "n": 1}
            async for each in things.find({"_id": {"$gte": key}}, batch_size=2).limit(5):
                await things.find_one({"_id": each["_id"]})
            await shadow.admin.heal(NAME, key)

        await asyncio.gather(*map(use, range(10)))
        assert await things.count_documents({}) == 10
        await assert_level(shadow)


@DRIVERS
async def test_a_server_that_is_not_there_is_waited_for_as_long_as_the_application_says(
    dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    url = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200&connectTimeoutMS=200&directConnection=true"
    made = settings_for(tmp_path, url, dynamodb_local_url, fresh_name, [NAME], driver=driver)
    async with Shadow.from_settings(made) as shadow:
        for call in (lambda: shadow[NAME].find_one({"_id": 1}), lambda: shadow[NAME].insert_one({"_id": 1})):
            begun = time.monotonic()
            with pytest.raises(ServerSelectionTimeoutError):
                await call()
            assert time.monotonic() - begun < 20, "the driver's own limit is 30 seconds"
