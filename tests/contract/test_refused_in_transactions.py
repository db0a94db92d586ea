"""What is refused within a transaction ends it, as the server aborts one: nothing of it can be committed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bson import ObjectId
from pymongo import InsertOne, UpdateOne
from pymongo.errors import OperationFailure

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from tests.contract.test_sessions import session_of, start
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop

pytestmark = pytest.mark.plain_options(reason="the drivers refuse some options in a session or a transaction")

Call = Callable[[Any, Any], Any]
REFUSED: Final[dict[str, Call]] = {
    "an operator of no update": lambda c, s: c.update_one({"_id": 1}, {"$bad": 1}, session=s),
    "a step that is no number": lambda c, s: c.update_one({"_id": 1}, {"$inc": {"n": "x"}}, session=s),
    "a key that is a list": lambda c, s: c.insert_one({"_id": [1]}, session=s),
    "another key": lambda c, s: c.replace_one({"_id": 1}, {"_id": 2}, session=s),
    "a duplicate": lambda c, s: c.insert_one({"_id": 1}, session=s),
    "one of several": lambda c, s: c.bulk_write(
        [InsertOne({"_id": "bulk"}), UpdateOne({"_id": 1}, {"$inc": {"n": "x"}})], session=s
    ),
    "one of many": lambda c, s: c.insert_many([{"_id": "many"}, {"_id": 1}], session=s),
    "many": lambda c, s: c.update_many({}, {"$push": {"n": 1}}, session=s),
    "an operator of no filter": lambda c, s: c.find_one({"n": {"$bad": 1}}, session=s),
    "a delete": lambda c, s: c.delete_one({"n": {"$bad": 1}}, session=s),
    "a count": lambda c, s: c.count_documents({"$bad": 1}, session=s),
    "a look and change": lambda c, s: c.find_one_and_update({"_id": 1}, {"$bad": 1}, session=s),
    "different values": lambda c, s: c.distinct("n", {"$bad": 1}, session=s),
}


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(StoreName))
async def shadow(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mongo_url: str,
    dynamodb_local_url: str,
    fresh_name: str,
    driver: str,
) -> AsyncIterator[Shadow]:
    made = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, fresh_name, ["things"], primary=request.param, driver=driver
    )
    async with Shadow.from_settings(made) as opened:
        await opened.prepare()
        for each in (opened["things"], opened._engine.driver()["bare"]):
            await each.insert_many([{"_id": n, "n": n} for n in range(5)])
        assert await opened.settled(30)
        yield opened
    drop(mongo_url, fresh_name)


async def refused(call: Any) -> tuple[type[Exception], int | None]:
    with pytest.raises(OperationFailure) as raised:
        await call
    return type(raised.value), raised.value.code


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_ends_the_transaction_as_on_the_server(shadow: Shadow, name: str) -> None:
    seen = []
    for target in (shadow["things"], shadow._engine.driver()["bare"]):
        async with session_of(shadow) as session:
            await start(session)
            await target.insert_one({"_id": "first"}, session=session)
            of_call = await refused(REFUSED[name](target, session))
            of_next = await refused(target.insert_one({"_id": ObjectId()}, session=session))
            of_commit = await refused(session.commit_transaction())
            seen.append((of_call, of_next[1], of_commit[1], await target.count_documents({})))
    assert seen[0] == seen[1]
    assert seen[0][-1] == 5
    await assert_level(shadow)


async def test_what_the_driver_refuses_leaves_it_as_it_is(shadow: Shadow) -> None:
    for target in (shadow["things"], shadow._engine.driver()["bare"]):
        async with session_of(shadow) as session:
            await start(session)
            await target.insert_one({"_id": "first"}, session=session)
            with pytest.raises((TypeError, ValueError)):
                await target.update_one({"_id": 1}, {"n": 1}, session=session)
            await session.commit_transaction()
            assert await target.count_documents({}) == 6
    await assert_level(shadow)


@pytest.mark.parametrize("shadow", [StoreName.DYNAMO], indirect=True)
async def test_what_only_mongodb_has_leaves_it_as_it_is(shadow: Shadow) -> None:
    """The server would have done it."""
    async with session_of(shadow) as session:
        await start(session)
        await shadow["things"].insert_one({"_id": "first"}, session=session)
        with pytest.raises(UnsupportedOperation):
            await shadow["things"].find_one({"$where": "1"}, session=session)
        await session.commit_transaction()
    assert await shadow["things"].count_documents({}) == 6
    await assert_level(shadow)
