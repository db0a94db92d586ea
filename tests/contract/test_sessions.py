"""Sessions and transactions of the application, with each driver, while both stores are written."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo import ReadPreference
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DuplicateKeyError,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
)
from pymongo.read_concern import ReadConcern

from shadow import Shadow
from shadow.config import Settings
from shadow.errors import JournalError, UnsupportedOperation
from shadow.model.phase import Phase
from tests.support.shims import assert_level, audit_of, settings_for
from tests.support.topologies import drop

pytestmark = pytest.mark.plain_options(reason="the drivers refuse some options in a session or a transaction")

PLAIN: Final[dict[str, Any]] = {"read_concern": ReadConcern("local"), "read_preference": ReadPreference.PRIMARY}
"""The drawn url may ask for what no transaction takes."""


@pytest.fixture(params=["motor", "pymongo"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str
) -> Iterator[Settings]:
    yield settings_for(tmp_path, mongo_url, dynamodb_local_url, fresh_name, ["things", "others"], driver=request.param)
    drop(mongo_url, fresh_name)


@pytest.fixture
async def shadow(settings: Settings) -> AsyncIterator[Shadow]:
    async with Shadow.from_settings(settings) as made:
        await made.prepare()
        await made["things"].insert_many([{"_id": n, "n": n} for n in range(5)])
        assert await made.settled(30)
        yield made


@contextlib.asynccontextmanager
async def session_of(shadow: Shadow, **options: Any) -> AsyncIterator[Any]:
    begun = shadow.client.start_session(**options)
    async with await begun if inspect.isawaitable(begun) else begun as session:
        yield session


@contextlib.asynccontextmanager
async def transaction(session: Any, **options: Any) -> AsyncIterator[Any]:
    begun = session.start_transaction(**{**PLAIN, **options})
    async with await begun if inspect.isawaitable(begun) else begun:
        yield session


async def start(session: Any) -> None:
    begun = session.start_transaction(**PLAIN)
    if inspect.isawaitable(begun):
        await begun


async def in_secondary(shadow: Shadow, name: str = "things") -> dict[Any, Any]:
    found = await asyncio.to_thread(audit_of(shadow.admin.settings).documents, name)
    return {each["_id"]: each for each in found[1].values()}


EVERY_VERB: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "insert_one": lambda c, s: c.insert_one({"_id": 10}, session=s),
    "insert_many": lambda c, s: c.insert_many([{"_id": 11}, {"_id": 12}], session=s),
    "find_one": lambda c, s: c.find_one({"_id": 1}, session=s),
    "find": lambda c, s: c.find({}, session=s).sort("_id").to_list(None),
    "update_one": lambda c, s: c.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=s),
    "update_one upserts": lambda c, s: c.update_one({"_id": 20}, {"$inc": {"n": 1}}, upsert=True, session=s),
    "update_many": lambda c, s: c.update_many({"n": {"$gte": 3}}, {"$inc": {"n": 1}}, session=s),
    "replace_one": lambda c, s: c.replace_one({"_id": 2}, {"r": 1}, session=s),
    "replace by filter": lambda c, s: c.replace_one({"n": 3}, {"r": 1}, session=s),
    "delete_one": lambda c, s: c.delete_one({"_id": 1}, session=s),
    "delete by filter": lambda c, s: c.delete_one({"n": {"$lt": 1}}, session=s),
    "delete_many": lambda c, s: c.delete_many({"n": {"$gte": 3}}, session=s),
    "find_one_and_update": lambda c, s: c.find_one_and_update({"_id": 1}, {"$set": {"f": 1}}, session=s),
    "find_one_and_replace": lambda c, s: c.find_one_and_replace({"_id": 1}, {"f": 2}, session=s),
    "find_one_and_delete": lambda c, s: c.find_one_and_delete({"_id": 0}, session=s),
    "bulk_write": lambda c, s: c.bulk_write(
        [
            pymongo.InsertOne({"_id": 30}),
            pymongo.UpdateOne({"_id": 1}, {"$inc": {"n": 1}}),
            pymongo.DeleteOne({"_id": 2}),
        ],
        session=s,
    ),
    "count_documents": lambda c, s: c.count_documents({}, session=s),
    "count by position": lambda c, s: c.count_documents({}, s),
    "distinct": lambda c, s: c.distinct("n", session=s),
    "aggregate": lambda c, s: listed(c.aggregate([{"$match": {"n": {"$gte": 1}}}, {"$sort": {"_id": 1}}], session=s)),
    "pipeline": lambda c, s: c.update_one({"_id": 1}, [{"$set": {"n": {"$add": ["$n", 5]}}}], session=s),
    "upsert by filter": lambda c, s: c.update_one({"e": 1}, {"$set": {"n": 9}}, upsert=True, session=s),
}


async def listed(cursor: Any) -> list[Any]:
    made = await cursor if inspect.isawaitable(cursor) else cursor
    return list(await made.to_list(None))


def shown(answer: Any) -> Any:
    """What is compared of an answer; an upserted id is chance."""
    if hasattr(answer, "bulk_api_result"):
        return answer.bulk_api_result
    names = ("inserted_id", "inserted_ids", "matched_count", "modified_count", "deleted_count")
    found = {name: getattr(answer, name) for name in names if hasattr(answer, name)}
    return found or (sorted(answer) if isinstance(answer, list) and answer and type(answer[0]) is int else answer)


@pytest.mark.parametrize("how", ["in a session", "in a transaction"])
@pytest.mark.parametrize("verb", EVERY_VERB)
async def test_every_verb_takes_a_session_and_answers_as_the_driver(shadow: Shadow, verb: str, how: str) -> None:
    bare, call = shadow._engine.driver()["bare"], EVERY_VERB[verb]
    await bare.insert_many([{"_id": n, "n": n} for n in range(5)])
    async with session_of(shadow) as session:
        block = transaction if how == "in a transaction" else contextlib.nullcontext
        async with block(session):
            answer = shown(await call(shadow["things"], session))
            expected = shown(await call(bare, session))
    assert answer == expected
    left = await shadow["things"].find({}, {"_id": 0}).sort("_id").to_list(None)
    assert left == await bare.find({}, {"_id": 0}).sort("_id").to_list(None)
    await assert_level(shadow)


async def test_what_is_no_session_is_refused_as_the_driver_refuses_it(shadow: Shadow) -> None:
    for call in EVERY_VERB.values():
        with pytest.raises(ValueError, match="session"):
            await call(shadow["things"], object())
    async with session_of(shadow) as session:
        with pytest.raises(ConfigurationError, match="session"):
            await shadow["things"].estimated_document_count(session=session)
        assert "_id_" in await shadow["things"].index_information(session=session)
        await shadow["things"].create_index("n", session=session)
    with pytest.raises(InvalidOperation):
        await shadow["things"].insert_one({"_id": 50}, session=session)
    assert not await shadow._engine.parts.journal.entries(10), "nothing was sent"
    assert await shadow["things"].count_documents({}) == 5
    await assert_level(shadow)


async def test_only_the_primarys_calls_carry_the_session(shadow: Shadow) -> None:
    """The server's time of the session moves with each of its calls, and a later read asks for it."""
    async with session_of(shadow, causal_consistency=True) as session:
        await shadow["things"].insert_one({"_id": "mine"}, session=session)
        first = session.operation_time
        assert first is not None
        assert await shadow.settled(30)
        assert session.operation_time == first, "replication moved it"
        assert await shadow["things"].find_one({"_id": "mine"}, session=session) == {"_id": "mine"}
    await assert_level(shadow)


# --- transactions ------------------------------------------------------------------------------------------------


async def test_nothing_is_replicated_before_the_commit(shadow: Shadow) -> None:
    things, others = shadow["things"], shadow["others"]
    async with session_of(shadow) as session:
        async with transaction(session):
            await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
            await things.update_one({"_id": 1}, {"$inc": {"n": 100}}, session=session)
            await things.delete_one({"_id": 2}, session=session)
            await others.insert_one({"_id": "new"}, session=session)
            await others.delete_one({"_id": "new"}, session=session)
            await others.insert_one({"_id": "kept"}, session=session)
            assert await things.find_one({"_id": 1}, session=session) == {"_id": 1, "n": 111}
            assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1}
            assert await things.count_documents({}, session=session) == 4
            entries = await shadow._engine.parts.journal.entries(100)
            assert {(each.collection, each.key) for each in entries if type(each.key) is not list} >= {
                ("things", 1), ("things", 2), ("others", "new"), ("others", "kept")
            }  # fmt: skip
            await asyncio.sleep(0.3)
            assert (await in_secondary(shadow))[1]["n"] == 1
            assert not await in_secondary(shadow, "others")
        assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 111}
    await assert_level(shadow)
    assert (await in_secondary(shadow))[1]["n"] == 111


@pytest.mark.parametrize("how", ["abort", "exception", "end"])
async def test_an_aborted_transaction_leaves_nothing(shadow: Shadow, how: str) -> None:
    things = shadow["things"]
    async with session_of(shadow) as session:
        await start(session)
        await things.update_many({}, {"$inc": {"n": 10}}, session=session)
        await things.insert_one({"_id": "new"}, session=session)
        if how == "abort":
            await session.abort_transaction()
        elif how == "exception":
            with contextlib.suppress(KeyError):
                raise KeyError
    await assert_level(shadow)
    assert await things.find({}).sort("_id").to_list(None) == [{"_id": n, "n": n} for n in range(5)]
    assert await shadow._engine.parts.journal.entries(10) == []


async def test_with_transaction_tries_again(shadow: Shadow) -> None:
    """Another writer changes the document between the two statements, once."""
    things, tries = shadow["things"], []

    async def callback(session: Any) -> int:
        tries.append(1)
        n = (await things.find_one({"_id": 1}, session=session))["n"]
        if len(tries) == 1:
            await things.update_one({"_id": 1}, {"$set": {"n": 70}})
        await things.update_one({"_id": 1}, {"$set": {"n": n + 1}}, session=session)
        return n

    async with session_of(shadow) as session:
        assert await session.with_transaction(callback, **PLAIN) == 70
        assert await session.with_transaction(callback, **PLAIN) == 71
    assert len(tries) == 3
    await assert_level(shadow)
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 72}


CONFLICTING: Final[dict[str, Callable[[Any, Any], Any]]] = {
    verb: call
    for verb, call in EVERY_VERB.items()
    if verb not in ("update_one upserts", "upsert by filter", "find_one_and_delete", "replace_one", "replace by filter")
    and call.__code__.co_names[0] not in ("find", "find_one", "count_documents", "distinct", "listed")
}


@pytest.mark.parametrize("verb", CONFLICTING)
async def test_a_conflict_is_the_servers(shadow: Shadow, verb: str) -> None:
    """Another writer has changed the documents since the transaction began."""
    things, bare, call = shadow["things"], shadow._engine.driver()["bare"], CONFLICTING[verb]
    await bare.insert_many([{"_id": n, "n": n} for n in range(5)])
    caught = []
    for target in (bare, things):
        async with session_of(shadow) as session:
            await start(session)
            await target.find_one({}, session=session)
            await target.insert_many([{"_id": n} for n in (10, 11, 12, 30)])
            await target.update_many({}, {"$set": {"other": 1}})
            with pytest.raises(OperationFailure) as error:
                await call(target, session)
            assert error.value.has_error_label("TransientTransactionError")
            caught.append((type(error.value), error.value.code))
    assert caught[0] == caught[1]
    await assert_level(shadow)


async def test_a_refusal_is_the_servers_and_ends_the_transaction(shadow: Shadow) -> None:
    things = shadow["things"]
    async with session_of(shadow) as session:
        await start(session)
        await things.insert_one({"_id": "first"}, session=session)
        with pytest.raises(DuplicateKeyError):
            await things.insert_one({"_id": 1}, session=session)
        with pytest.raises(OperationFailure) as caught:
            await things.insert_one({"_id": "second"}, session=session)
        assert caught.value.has_error_label("TransientTransactionError")
        await session.abort_transaction()
    assert await things.count_documents({}) == 5
    await assert_level(shadow)


@pytest.mark.parametrize("verb", ["insert_one", "insert_many", "update_one", "replace_one"])
async def test_a_tombstone_under_the_key_is_no_document(settings: Settings, shadow: Shadow, verb: str) -> None:
    """It may be left on MongoDB since that was the secondary."""
    things, raw = shadow["things"], shadow._engine.driver()["things"]
    await raw.insert_one({"_id": "gone", "_shadow": {"t": "0" * 32}})
    calls: dict[str, Callable[[Any], Any]] = {
        "insert_one": lambda s: things.insert_one({"_id": "gone", "n": 1}, session=s),
        "insert_many": lambda s: things.insert_many([{"_id": "a", "n": 1}, {"_id": "gone", "n": 1}], session=s),
        "update_one": lambda s: things.update_one({"_id": "gone"}, {"$set": {"n": 1}}, upsert=True, session=s),
        "replace_one": lambda s: things.replace_one({"_id": "gone"}, {"n": 1}, upsert=True, session=s),
    }
    async with session_of(shadow) as session, transaction(session):
        await calls[verb](session)
    assert await things.find_one({"_id": "gone"}) == {"_id": "gone", "n": 1}
    await assert_level(shadow)


async def test_a_change_of_phase_does_not_wait_for_ever(shadow: Shadow) -> None:
    """It loses the transaction: nothing of it is ever committed, and the application hears that it may try again."""
    things, routes = shadow["things"], shadow._engine.parts.routes
    async with session_of(shadow) as session:
        await start(session)
        await things.update_one({"_id": 1}, {"$set": {"n": 50}}, session=session)
        async with asyncio.timeout(20), routes.held("things", shadow.admin.settings.limits.drain):
            pass
        with pytest.raises(OperationFailure) as caught:
            await things.update_one({"_id": 2}, {"$set": {"n": 50}}, session=session)
        assert caught.value.has_error_label("TransientTransactionError")
        with pytest.raises(OperationFailure) as caught:
            await session.commit_transaction()
        assert caught.value.has_error_label("TransientTransactionError")
        async with transaction(session):
            await things.update_one({"_id": 3}, {"$set": {"n": 50}}, session=session)
    assert await things.find({}).sort("_id").to_list(None) == [{"_id": n, "n": 50 if n == 3 else n} for n in range(5)]
    await assert_level(shadow)


async def test_a_short_transaction_is_waited_for(shadow: Shadow) -> None:
    things, routes = shadow["things"], shadow._engine.parts.routes
    async with session_of(shadow) as session:
        await start(session)
        await things.update_one({"_id": 1}, {"$set": {"n": 50}}, session=session)

        async def change_of_phase() -> None:
            async with routes.held("things", shadow.admin.settings.limits.drain):
                assert (await shadow._engine.driver()["things"].find_one({"_id": 1}))["n"] == 50

        changing = asyncio.create_task(change_of_phase())
        await asyncio.sleep(0.1)
        await session.commit_transaction()
        await changing
    await assert_level(shadow)


async def test_verbs_about_the_collection_are_no_part_of_a_transaction(shadow: Shadow) -> None:
    things = shadow["things"]
    async with session_of(shadow) as session:
        await start(session)
        with pytest.raises(OperationFailure) as caught:
            await things.drop(session=session)
        assert caught.value.code == 263
        with pytest.raises(UnsupportedOperation, match="create_index"):
            await things.create_index("n", session=session)
        await session.abort_transaction()
    assert await things.count_documents({}) == 5


async def test_reads_of_a_transaction_are_compared_with_nothing(shadow: Shadow) -> None:
    things = shadow["things"]
    async with session_of(shadow) as session, transaction(session):
        await things.update_one({"_id": 1}, {"$set": {"n": 50}}, session=session)
        assert [each async for each in things.find({"n": {"$gte": 4}}, session=session).sort("_id")] == [
            {"_id": 1, "n": 50}, {"_id": 4, "n": 4}
        ]  # fmt: skip
        assert await things.find_one({"n": 50}, session=session) == {"_id": 1, "n": 50}
        for _ in range(3):
            assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1}
    await assert_level(shadow)


async def test_in_phase_off_it_is_the_drivers_own(settings: Settings) -> None:
    off = settings.model_copy(update={"defaults": settings.defaults.model_copy(update={"phase": Phase.OFF})})
    async with Shadow.from_settings(off) as shadow:
        things = shadow["things"]
        await things.insert_one({"_id": 1})
        async with session_of(shadow) as session, transaction(session):
            await things.update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
            assert await things.find_one({"_id": 1}) == {"_id": 1}
        assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1}


# --- commits whose answer is lost, and long transactions ----------------------------------------------------------


@pytest.fixture
async def hasty(settings: Settings) -> AsyncIterator[Shadow]:
    """Intents last two seconds."""
    limits = settings.limits.model_copy(update={"operation": 2.0})
    async with Shadow.from_settings(settings.model_copy(update={"limits": limits})) as made:
        await made.prepare()
        await made["things"].insert_many([{"_id": n, "n": n} for n in range(5)])
        assert await made.settled(30)
        yield made


def lose_answers(session: Any, times: int, *, arrives: bool) -> list[int]:
    """The next commits of the session have no answer. Returns the list of those that were sent."""
    commit, sent = session.commit_transaction, []

    async def committing() -> None:
        sent.append(1)
        if arrives or len(sent) > times:
            await commit()
        if len(sent) <= times:
            error = AutoReconnect("the answer is lost")
            error._add_error_label("UnknownTransactionCommitResult")
            raise error

    session.commit_transaction = committing
    return sent


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_without_an_answer_is_tried_again(hasty: Shadow, arrives: bool) -> None:
    things = hasty["things"]

    async with session_of(hasty) as session:
        sent = lose_answers(session, 2, arrives=arrives)
        await start(session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        await things.delete_one({"_id": 2}, session=session)
        for _ in range(2):
            with pytest.raises(AutoReconnect) as caught:
                await session.commit_transaction()
            assert caught.value.has_error_label("UnknownTransactionCommitResult")
        await session.commit_transaction()
        assert len(sent) == 3
    assert await things.find({}).sort("_id").to_list(None) == [
        {"_id": n, "n": 11 if n == 1 else n} for n in range(5) if n != 2
    ]
    await assert_level(hasty)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_that_nobody_tries_again_is_settled_by_reading(hasty: Shadow, arrives: bool) -> None:
    things = hasty["things"]
    async with session_of(hasty) as session:
        lose_answers(session, 1, arrives=arrives)
        await start(session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        with pytest.raises(AutoReconnect):
            await session.commit_transaction()
        assert [each.key for each in await hasty._engine.parts.journal.entries(10)] == [1]
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 11 if arrives else 1}
    await assert_level(hasty)
    assert (await in_secondary(hasty))[1]["n"] == (11 if arrives else 1)


async def test_a_transaction_may_last_longer_than_its_intents(hasty: Shadow) -> None:
    """Others have taken them for orphaned by then; before the commit all keys have new ones."""
    things, journal, seen = hasty["things"], hasty._engine.parts.journal, []
    async with session_of(hasty) as session:
        commit = session.commit_transaction

        async def committing() -> None:
            seen.extend(await journal.entries(10))
            await commit()

        session.commit_transaction = committing
        await start(session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        await things.update_one({"n": 3}, {"$inc": {"n": 10}}, session=session)
        async with asyncio.timeout(20):
            while await journal.entries(10):  # noqa: ASYNC110 - others take them for orphaned
                await asyncio.sleep(0.1)
        await session.commit_transaction()
    assert sorted((each.key, each.deferred) for each in seen) == [(1, False), (3, False)]
    await assert_level(hasty)
    assert await things.find({"n": {"$gt": 4}}).sort("_id").to_list(None) == [{"_id": 1, "n": 21}, {"_id": 3, "n": 13}]


async def test_a_commit_that_cannot_be_tried_again_stays_unknown(
    hasty: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the journal nothing is sent again, which says nothing about the first time; no change of phase waits."""
    things, intents = hasty["things"], hasty._engine.runtime().context.intents

    async def failing(collection: str, keys: Any) -> Any:
        raise JournalError("the disk is full", hint="a test")

    async with session_of(hasty) as session:
        sent = lose_answers(session, 1, arrives=True)
        await start(session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        with monkeypatch.context() as patched:
            with pytest.raises(AutoReconnect):
                await session.commit_transaction()
            patched.setattr(intents, "open_durably", failing)
            with pytest.raises(NetworkTimeout, match="the disk is full") as caught:
                await session.commit_transaction()
            assert caught.value.has_error_label("UnknownTransactionCommitResult")
        async with asyncio.timeout(1), hasty._engine.parts.routes.held("things", 1):
            pass
        await session.commit_transaction()
        assert len(sent) == 2
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 11}
    await assert_level(hasty)


async def test_while_the_journal_fails_nothing_is_committed(hasty: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    things, intents = hasty["things"], hasty._engine.runtime().context.intents

    async def failing(collection: str, keys: Any) -> Any:
        raise JournalError("the disk is full", hint="a test")

    async with session_of(hasty) as session:
        await start(session)
        await things.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
        monkeypatch.setattr(intents, "open_durably", failing)
        with pytest.raises(JournalError):
            await things.update_one({"_id": 2}, {"$inc": {"n": 10}}, session=session)
        await asyncio.sleep(0.6)  # a quarter of what an operation may last
        with pytest.raises(JournalError):
            await session.commit_transaction()
        monkeypatch.undo()
        await session.abort_transaction()
    assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1}
    await assert_level(hasty)
