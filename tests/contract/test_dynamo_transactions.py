"""Transactions of the application on DynamoDB as the primary, with the sessions of each driver."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import ConnectionFailure, DuplicateKeyError, OperationFailure

from shadow import Shadow
from shadow.config import CollectionSettings, MongoSettings, Settings
from shadow.embedded.servers import FaultProxy, Mode, free_port
from shadow.errors import UnsupportedOperation
from shadow.model.phase import Phase, StoreName
from tests.contract.test_sessions import EVERY_VERB, PLAIN, listed, session_of, shown, start, transaction
from tests.support.shims import assert_level, audit_of, settings_for
from tests.support.topologies import drop

pytestmark = pytest.mark.plain_options(reason="the drivers refuse some options in a session or a transaction")

UNIQUE = {"unique": [{"name": "email_1", "fields": ["email"]}]}


@pytest.fixture(params=["motor", "pymongo"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str
) -> Iterator[Settings]:
    names = ["things", "others"]
    made = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, fresh_name, names, primary=StoreName.DYNAMO, driver=request.param
    )
    collections = {**made.collections, "users": CollectionSettings(**UNIQUE)}
    yield made.model_copy(update={"collections": collections})
    drop(mongo_url, fresh_name)


@pytest.fixture
async def shadow(settings: Settings) -> AsyncIterator[Shadow]:
    async with Shadow.from_settings(settings) as made:
        await made.prepare()
        await made["things"].insert_many([{"_id": n, "n": n} for n in range(5)])
        assert await made.settled(30)
        yield made


async def on_dynamo(shadow: Shadow, name: str = "things") -> dict[Any, Any]:
    found = await asyncio.to_thread(audit_of(shadow.admin.settings).documents, name)
    return {each["_id"]: each for each in found[1].values()}


@pytest.mark.parametrize("verb", EVERY_VERB)
async def test_every_verb_answers_as_mongodb_does_in_a_transaction(shadow: Shadow, verb: str) -> None:
    bare, call = shadow._engine.driver()["bare"], EVERY_VERB[verb]
    await bare.insert_many([{"_id": n, "n": n} for n in range(5)])
    answers = []
    for target in (shadow["things"], bare):
        async with session_of(shadow) as session, transaction(session):
            await target.update_one({"_id": 4}, {"$inc": {"n": 5}}, session=session)
            answers.append(shown(await call(target, session)))
    assert answers[0] == answers[1]
    left = await shadow["things"].find({}, {"_id": 0}).to_list(None)
    assert sorted(left, key=repr) == sorted(await bare.find({}, {"_id": 0}).to_list(None), key=repr)
    await assert_level(shadow)


async def test_own_reads_show_own_writes_and_nobody_elses_do(shadow: Shadow) -> None:
    things, others = shadow["things"], shadow["others"]
    async with session_of(shadow) as session, transaction(session):
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 100}}, session=session)
        await things.delete_one({"n": 2}, session=session)
        await things.insert_one({"_id": "new", "n": 3}, session=session)
        await others.insert_many([{"_id": "a", "of": "new"}, {"_id": "b", "of": 1}], session=session)
        await others.delete_one({"_id": "b"}, session=session)
        assert await things.find_one({"_id": 1}, session=session) == {"_id": 1, "n": 111}
        assert await things.find_one({"_id": 2}, session=session) is None
        found = await things.find({"n": {"$gte": 3}}, {"n": 1, "_id": 0}, session=session).sort("n", -1).to_list(None)
        assert [each["n"] for each in found] == [111, 4, 3, 3]
        assert len(await things.find({}, session=session).sort("n").skip(1).limit(2).to_list(None)) == 2
        assert await things.count_documents({"n": 3}, session=session) == 2
        assert sorted(await things.distinct("n", session=session)) == [0, 3, 4, 111]
        join = {"$lookup": {"from": "others", "localField": "_id", "foreignField": "of", "as": "o"}}
        joined = await listed(things.aggregate([{"$match": {"_id": "new"}}, join], session=session))
        assert joined == [{"_id": "new", "n": 3, "o": [{"_id": "a", "of": "new"}]}]
        assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1}
        assert await others.count_documents({}) == 0
        assert await shadow._engine.parts.journal.entries(10) == []
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 111}
    assert await others.find({}).to_list(None) == [{"_id": "a", "of": "new"}]
    await assert_level(shadow)


@pytest.mark.parametrize("how", ["abort", "end"])
async def test_an_aborted_transaction_leaves_nothing(shadow: Shadow, how: str) -> None:
    async with session_of(shadow) as session:
        await start(session)
        await shadow["things"].update_many({}, {"$inc": {"n": 10}}, session=session)
        if how == "abort":
            await session.abort_transaction()
    await assert_level(shadow)
    assert {each["n"] for each in (await on_dynamo(shadow)).values()} == set(range(5))


async def test_with_transaction_tries_again_after_a_conflict(shadow: Shadow) -> None:
    """Another writer changes a document that the transaction has read, once before and once after it is written."""
    things, tries = shadow["things"], []

    async def callback(session: Any) -> int:
        tries.append(1)
        n = (await things.find_one({"_id": 1}, session=session))["n"]
        if len(tries) == 1:
            await things.update_one({"_id": 1}, {"$set": {"n": 70}})
        await things.update_one({"_id": 1}, {"$set": {"n": n + 1}}, session=session)
        if len(tries) == 2:
            await things.update_one({"_id": 1}, {"$set": {"n": 80}})
        return int(n)

    async with session_of(shadow) as session:
        if "motor" in type(session).__module__:  # its `with_transaction` tries again what the callback raises
            with pytest.raises(OperationFailure) as caught:
                await session.with_transaction(callback, **PLAIN)
            assert caught.value.has_error_label("TransientTransactionError")
            assert len(tries) == 2
        assert await session.with_transaction(callback, **PLAIN) == 80
    assert len(tries) == 3
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 81}
    await assert_level(shadow)


async def test_more_than_a_request_takes_is_refused_at_the_statement(shadow: Shadow) -> None:
    things = shadow["things"]
    async with session_of(shadow) as session, transaction(session):
        await things.insert_many([{"_id": f"many {n}"} for n in range(100)], session=session)
        with pytest.raises(UnsupportedOperation, match="101 items"):
            await things.insert_one({"_id": "one more"}, session=session)
        await things.update_one({"_id": "many 1"}, {"$set": {"n": 1}}, session=session)
    assert await things.count_documents({}) == 105
    async with session_of(shadow) as session, transaction(session):
        for n in range(10):
            await things.insert_one({"_id": f"large {n}", "text": "x" * 370_000}, session=session)
        with pytest.raises(UnsupportedOperation, match="bytes"):
            await things.insert_one({"_id": "large too", "text": "x" * 370_000}, session=session)
    assert await things.count_documents({}) == 115
    await assert_level(shadow)


async def test_a_document_in_parts_is_part_of_a_transaction(shadow: Shadow) -> None:
    things = shadow["things"]
    text = "".join(chr(97 + n * n % 23 + n % 3) for n in range(1_500_000))
    async with session_of(shadow) as session, transaction(session):
        await things.update_one({"_id": 1}, {"$set": {"text": text}}, session=session)
        await things.update_one({"_id": 2}, {"$set": {"n": 20}}, session=session)
    assert (await things.find_one({"_id": 1}))["text"] == text
    await assert_level(shadow)


async def test_unique_values_are_held_and_may_change_hands(shadow: Shadow) -> None:
    users = shadow["users"]
    await users.insert_many([{"_id": 1, "email": "a"}, {"_id": 2, "email": "b"}])
    async with session_of(shadow) as session:
        for document in ({"_id": 3, "email": "a"}, {"_id": 1}):
            await start(session)
            with pytest.raises(DuplicateKeyError):
                await users.insert_one(dict(document), session=session)
            await session.abort_transaction()
        await start(session)
        await users.insert_one({"_id": 4, "email": "c"}, session=session)
        with pytest.raises(DuplicateKeyError):
            await users.update_one({"_id": 2}, {"$set": {"email": "c"}}, session=session)
        await session.abort_transaction()
        async with transaction(session):
            await users.update_one({"_id": 1}, {"$set": {"email": "other"}}, session=session)
            await users.update_one({"_id": 2}, {"$set": {"email": "a"}}, session=session)
            await users.update_one({"_id": 1}, {"$set": {"email": "b"}}, session=session)
    assert {each["_id"]: each["email"] for each in await users.find({}).to_list(None)} == {1: "b", 2: "a"}
    for email in ("a", "b"):
        with pytest.raises(DuplicateKeyError):
            await users.insert_one({"email": email})
    await users.insert_one({"_id": 5, "email": "other"})
    await assert_level(shadow)


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.REFUSE])
async def test_a_commit_without_an_answer_is_made_once(
    settings: Settings, mode: Mode, new_proxy: Callable[[str], FaultProxy]
) -> None:
    proxy = new_proxy(str(settings.dynamo.endpoint_url))
    dynamo = settings.dynamo.model_copy(update={"endpoint_url": proxy.url, "max_attempts": 1})
    limits = settings.limits.model_copy(update={"operation": 2.0})
    async with Shadow.from_settings(settings.model_copy(update={"dynamo": dynamo, "limits": limits})) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": n} for n in range(5)])
        assert await shadow.settled(30)
        async with session_of(shadow) as session:
            await start(session)
            await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
            await things.delete_one({"_id": 2}, session=session)
            proxy.set(mode, only=b"TransactWriteItems")
            with pytest.raises(ConnectionFailure) as caught:
                await session.commit_transaction()
            assert caught.value.has_error_label("UnknownTransactionCommitResult")
            proxy.clear()
            await session.commit_transaction()
        assert sorted([each["n"] for each in await things.find({}).to_list(None)]) == [0, 3, 4, 11]
        assert shadow._engine.parts.journal is not None
    async with Shadow.from_settings(settings) as shadow:
        await assert_level(shadow)


async def test_a_transaction_over_two_stores_is_refused(shadow: Shadow) -> None:
    things, bare = shadow["things"], shadow["bare"]
    async with session_of(shadow) as session:
        await start(session)
        await bare.insert_one({"_id": 1}, session=session)
        with pytest.raises(UnsupportedOperation, match="two stores"):
            await things.insert_one({"_id": "x"}, session=session)
        await session.abort_transaction()
        await start(session)
        await things.insert_one({"_id": "x"}, session=session)
        await bare.insert_one({"_id": 1}, session=session)
        with pytest.raises(UnsupportedOperation, match="two stores"):
            await session.commit_transaction()
    assert await things.find_one({"_id": "x"}) is None
    assert await bare.count_documents({}) == 0
    await assert_level(shadow)


async def test_once_mongodb_is_gone(settings: Settings) -> None:
    """The driver's session sends nothing by itself, so it can be had without a server."""
    mongo = MongoSettings(
        url=f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=500",
        database=settings.mongo.database,
        driver=settings.mongo.driver,
    )
    defaults = settings.defaults.model_copy(update={"phase": Phase.OFF})
    async with Shadow.from_settings(settings) as before:
        await before.prepare()
        await before.settled(30)
    gone = settings.model_copy(update={"mongo": mongo, "defaults": defaults})
    async with Shadow.from_settings(gone) as shadow:
        things = shadow["things"]

        async def callback(session: Any) -> None:
            await things.insert_one({"_id": 1, "n": 0}, session=session)
            await things.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)

        begun = shadow.client.start_session()
        async with await begun if inspect.isawaitable(begun) else begun as session:
            await session.with_transaction(callback, **PLAIN)
            assert await things.find_one({"_id": 1}, session=session) == {"_id": 1, "n": 1}
