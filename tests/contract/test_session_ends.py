"""Sessions as the driver checks them, and the ends of their transactions, with each primary and each driver."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo.errors import InvalidOperation, OperationFailure, PyMongoError

from shadow import Shadow
from shadow.config import Settings
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from tests.contract.test_sessions import in_secondary, listed, session_of, start, transaction
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop

pytestmark = pytest.mark.plain_options(reason="the drivers refuse some options in a session or a transaction")


@pytest.fixture(params=["mongo-pymongo", "mongo-motor", "dynamo-pymongo", "dynamo-motor"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str
) -> Iterator[Settings]:
    primary, driver = request.param.split("-")
    names = ["things", "others"]
    yield settings_for(
        tmp_path, mongo_url, dynamodb_local_url, fresh_name, names, primary=StoreName(primary), driver=driver
    )
    drop(mongo_url, fresh_name)


@pytest.fixture
async def shadow(settings: Settings) -> AsyncIterator[Shadow]:
    async with Shadow.from_settings(settings) as made:
        await made.prepare()
        await made["things"].insert_many([{"_id": n, "n": n} for n in range(5)])
        assert await made.settled(30)
        yield made


STEPS: Final[dict[str, Callable[[Any, Any, int], Any]]] = {
    "start": lambda target, session, key: start(session),
    "write": lambda target, session, key: target.insert_one({"_id": key}, session=session),
    "more": lambda target, session, key: target.insert_one({"_id": -key}, session=session),
    "read": lambda target, session, key: target.find_one({"_id": 1}, session=session),
    "commit": lambda target, session, key: session.commit_transaction(),
    "abort": lambda target, session, key: session.abort_transaction(),
    "end": lambda target, session, key: session.end_session(),
}
ENDS: Final = (
    "start write abort commit", "start write commit abort", "start write commit commit", "start write abort abort",
    "start start", "start write start commit", "commit", "abort", "end read", "end write", "start write end commit",
    "start write end abort", "start commit", "start read commit", "start write commit more", "end start",
    "start write abort more start write commit", "start write commit start more commit commit",
)  # fmt: skip


FUNCTION: Final = {"body": "function(n) { return n + 1 }", "args": ["$n"], "lang": "js"}


async def said(call: Callable[[], Any]) -> Any:
    """What a call says: nothing, or its error as the driver words it."""
    try:
        answer = call()
        if inspect.isawaitable(answer):
            await answer
    except PyMongoError as error:
        return type(error), str(error)
    return None


async def test_the_ends_of_a_transaction_are_the_drivers(shadow: Shadow) -> None:
    """Whatever is asked of a session after its transaction, or itself, has ended, nothing more is written."""
    bare = shadow._engine.driver()["bare"]
    await bare.insert_one({"_id": 1})
    for number, words in enumerate(ENDS, start=1000):
        answers = []
        for target in (shadow["things"], bare):
            async with session_of(shadow) as session:
                heard = [await said(lambda: STEPS[each](target, session, number)) for each in words.split()]  # noqa: B023
            left = [await target.count_documents({"_id": key}) for key in (number, -number)]
            answers.append((heard, left))
        assert answers[0] == answers[1], words
    await assert_level(shadow)


async def test_a_session_of_another_client_is_refused(settings: Settings, shadow: Shadow) -> None:
    async with Shadow.from_settings(settings) as other, session_of(other) as session:
        for step in ("read", "write"):
            with pytest.raises(InvalidOperation, match="Can only use session with the"):
                await STEPS[step](shadow["things"], session, 2000)
        await start(session)
        with pytest.raises(InvalidOperation, match="Can only use session with the"):
            await STEPS["write"](shadow["things"], session, 2000)
    assert await shadow["things"].count_documents({"_id": 2000}) == 0


async def test_what_only_mongodb_has_is_asked_of_it_in_a_session_too(shadow: Shadow) -> None:
    """And counted, in a transaction too; where DynamoDB answers it is refused by its name."""
    things, bare = shadow["things"], shadow._engine.driver()["bare"]
    await bare.insert_many([{"_id": n, "n": n} for n in range(5)])
    reads: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
        "explain": lambda c, s: c.find({}, session=s).explain(),
        "$where": lambda c, s: c.find({"$where": "this.n > 2"}, session=s).sort("_id").to_list(None),
        "$where of one": lambda c, s: c.find_one({"$where": "this.n == 2"}, session=s),
        "$where in a write": lambda c, s: c.update_many({"$where": "this.n == 4"}, {"$set": {"m": 1}}, session=s),
        "$function": lambda c, s: listed(c.aggregate([{"$set": {"r": {"$function": FUNCTION}}}], session=s)),
    }
    on_mongo = shadow.admin.routes()["things"].primary is StoreName.MONGO
    for name, call in reads.items():
        async with session_of(shadow) as session:
            if name != "explain":
                await start(session)
            expected = await call(bare, session)
            if name != "explain":
                await session.abort_transaction()
                await start(session)
            if not on_mongo:
                with pytest.raises(UnsupportedOperation, match=r"\$where|\$function|cursor\.explain"):
                    await call(things, session)
                continue
            found = await call(things, session)
            if isinstance(found, list):
                assert found == expected, name
    counter = "shadow_not_portable_total" if on_mongo else "shadow_refused_calls_total"

    def counted() -> list[str]:
        told = [line for line in shadow.admin.metrics()[0].decode().splitlines() if line.startswith(counter)]
        return [line for line in told if not line.endswith(" 0.0")]

    for name in ("$where", "$function", "explain"):
        assert any(name in line for line in counted()), counted()
    async with session_of(shadow, snapshot=True) as session:
        if on_mongo:
            await things.insert_one({"_id": "seen"})
            assert await things.count_documents({"_id": "seen"}, session=session) == 1
            await things.insert_one({"_id": "later"})
            assert await things.find({"_id": "later"}, session=session).to_list(None) == []
            for target in (things, bare):
                for call in ("index_information", "options", "drop_indexes", "drop"):
                    with pytest.raises(OperationFailure, match="read concern not supported") as refused:
                        await getattr(target, call)(session=session)
                    assert refused.value.code == 72
        else:
            with pytest.raises(UnsupportedOperation, match="a snapshot session"):
                await things.find_one({"_id": 1}, session=session)
            assert any('operator="other"' in line for line in counted())
    await assert_level(shadow)


async def test_a_bound_session_is_the_session_of_each_call(shadow: Shadow) -> None:
    """PyMongo's `session.bind()`: nothing of the transaction is replicated before its commit, and what is done beside
    a call is no part of it."""
    things = shadow["things"]
    async with session_of(shadow) as session:
        if not hasattr(session, "bind"):
            pytest.skip("Motor's sessions, and those of PyMongo before 4.17, cannot be bound")
        async with session.bind(end_session=False):
            for end in ("abort", "commit"):
                await start(session)
                await things.update_one({"_id": 1}, {"$inc": {"n": 10}})
                await things.insert_many([{"_id": "a"}, {"_id": "b"}])
                await things.delete_one({"n": 2})
                assert {each["_id"] async for each in things.find({})} == {0, 1, 3, 4, "a", "b"}
                assert await things.count_documents({}) == 6
                await asyncio.sleep(0.2)
                assert (await in_secondary(shadow)).keys() == set(range(5))
                await STEPS[end](things, session, 0)
                assert await shadow.settled(30)
            await things.update_one({"_id": 3}, {"$inc": {"n": 10}})  # in the session, and in no transaction
            assert await things.find_one({"_id": 3}) == {"_id": 3, "n": 13}
        async with transaction(session):
            await things.insert_one({"_id": "outside"})
            await things.insert_one({"_id": "within"}, session=session)
            assert await things.count_documents({"_id": {"$in": ["outside", "within"]}}) == 1
    assert {each["_id"] for each in await things.find({}).to_list(None)} == {
        0, 1, 3, 4, "a", "b", "outside", "within"
    }  # fmt: skip
    await assert_level(shadow)
