"""A server that belongs to no replica set: sessions work, and whatever needs a transaction is the driver's own error,
of the same class and code, before anything is written; with each driver."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure

from shadow import Shadow
from shadow.embedded.mongod import Mongod
from shadow.model.phase import Phase
from tests.contract.test_sessions import EVERY_VERB, session_of, shown, transaction
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import Standalone


@pytest.fixture(scope="module")
def standalone() -> Iterator[Mongod]:
    with Standalone() as server:
        yield server


@pytest.fixture(params=[("motor", Phase.SHADOW), ("pymongo", Phase.SHADOW), ("pymongo", Phase.OFF)], ids=str)
async def shadow(
    request: pytest.FixtureRequest, tmp_path: Path, standalone: Mongod, dynamodb_local_url: str
) -> AsyncIterator[Shadow]:
    driver, phase = request.param
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(tmp_path, standalone.url, dynamodb_local_url, name, ["things"], driver=driver, phase=phase)
    async with Shadow.from_settings(settings) as made:
        await made.prepare()
        await made["things"].insert_many([{"_id": n, "n": n} for n in range(5)])
        yield made


async def outcome(call: Any, collection: Any, session: Any) -> Any:
    """The answer, or the error's class and code."""
    try:
        return shown(await call(collection, session))
    except OperationFailure as error:
        return type(error), error.code, sorted(set(error.details or {}) & {"writeErrors", "code", "codeName"})


async def test_a_transaction_is_refused_as_with_the_driver_and_nothing_is_written(shadow: Shadow) -> None:
    bare = shadow._engine.driver()["bare"]
    await bare.insert_many([{"_id": n, "n": n} for n in range(5)])
    for name, call in EVERY_VERB.items():
        found = []
        for collection in (shadow["things"], bare):
            async with session_of(shadow) as session:
                with contextlib.suppress(OperationFailure):
                    async with transaction(session):
                        found.append(await outcome(call, collection, session))
        ours, theirs = found
        assert ours == theirs, name
        assert ours[:2] == (OperationFailure, 20), name
    everything = await shadow["things"].find().sort("_id").to_list(None)
    assert everything == [{"_id": n, "n": n} for n in range(5)]
    assert await shadow.settled(60)
    with pymongo.MongoClient(shadow.admin.settings.mongo.url.get_secret_value()) as client:
        assert client[shadow.name]["things"].count_documents({}) == 5


async def test_a_session_without_a_transaction_answers_as_the_driver(shadow: Shadow) -> None:
    bare = shadow._engine.driver()["bare"]
    await bare.insert_many([{"_id": n, "n": n} for n in range(5)])
    async with session_of(shadow) as session:
        for name, call in EVERY_VERB.items():
            assert await outcome(call, shadow["things"], session) == await outcome(call, bare, session), name
    left = await shadow["things"].find({}, {"_id": 0}).sort("_id").to_list(None)
    assert left == await bare.find({}, {"_id": 0}).sort("_id").to_list(None)
    if shadow.admin.settings.defaults.phase is Phase.SHADOW:
        await assert_level(shadow)
