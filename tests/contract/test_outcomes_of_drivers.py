"""The table of outcomes, walked through with either driver and a server that says each of its codes.

As the error of a command, of a write, as a write concern error, and for each of many writes by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError, WriteConcernError, WriteError

from shadow.model.operation import Applied, Delete, Insert, Replace, Update
from shadow.model.outcome import ASSERTIONS, REFUSED_CODES, Outcome, classify
from shadow.model.version import fresh_id
from shadow.stores.mongo import refusals
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from tests.support.scripted_mongo import Answer, ScriptedMongo

REFUSED = [*REFUSED_CODES, *(numbers.start for numbers in ASSERTIONS)]
UNKNOWN = [6, 7, 18, 24, 50, 64, 65, 79, 89, 96, 100, 125, 133, 134, 202, 237, 251, 262, 384, 391, 8000, 11601, 424_242]
AWAY = [91, 189, 10107, 11600, 11602, 13435, 13436]
"""After these, of a command, the driver looks for its server anew, which takes a while."""


def outcome_of(code: int) -> Outcome:
    return Outcome.REFUSED if code in REFUSED else Outcome.UNKNOWN


@pytest.fixture
async def server() -> AsyncIterator[ScriptedMongo]:
    async with ScriptedMongo() as server:
        yield server


@pytest.fixture(params=["motor", "pymongo"])
async def store(request: pytest.FixtureRequest, server: ScriptedMongo) -> AsyncIterator[MongoStore]:
    store = MongoStore(connect(server.url, request.param), "d", {}, owned=True)
    yield store
    await store.close()


def always(answer: dict[str, Any]) -> Answer:
    return lambda name, command: answer


def inserts(count: int) -> list[Insert]:
    return [Insert(key, {"_id": key}, fresh_id()) for key in range(count)]


async def raised(store: MongoStore, change: Any) -> Exception:
    with pytest.raises(Exception) as caught:
        await store.apply("things", change, fresh_id())
    return caught.value


CHANGES: dict[str, Any] = {
    "insert": Insert(1, {"_id": 1}, fresh_id()),
    "update": Update(1, {"_id": 1}, {"$inc": {"n": 1}}, fresh_id(), upsert=False),
    "replace": Replace(1, {"_id": 1}, {"_id": 1}, fresh_id(), upsert=False),
    "delete": Delete(1, {"_id": 1}, fresh_id()),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_command_that_fails(store: MongoStore, server: ScriptedMongo, change: str) -> None:
    """With each code of the table, and others."""
    for code in [*REFUSED, *UNKNOWN, AWAY[0]]:
        server.answer = always({"ok": 0.0, "code": code, "errmsg": "x"})
        assert classify(await raised(store, CHANGES[change])) is outcome_of(code), code


async def test_a_write_that_fails(store: MongoStore, server: ScriptedMongo) -> None:
    """One that its command answers among its writes' errors."""
    for code in [*REFUSED, *UNKNOWN, *AWAY]:
        fault = {"index": 0, "code": code, "errmsg": "x", "keyPattern": {"other": 1}}
        server.answer = always({"n": 0, "writeErrors": [fault]})
        assert classify(await raised(store, CHANGES["insert"])) is outcome_of(code), code


@pytest.mark.parametrize("change", CHANGES)
async def test_a_write_concern_error_leaves_it_open(store: MongoStore, server: ScriptedMongo, change: str) -> None:
    """The write is done; whatever the code, and although it would refuse as any other error's."""
    for code in [64, 91, 100, 2, 121, 424_242]:
        server.answer = always({"n": 1, "value": {"_id": 1}, "writeConcernError": {"code": code, "errmsg": "x"}})
        assert classify(await raised(store, CHANGES[change])) is Outcome.UNKNOWN, code


@pytest.mark.parametrize("ordered", [True, False])
async def test_each_of_many_by_itself(store: MongoStore, server: ScriptedMongo, *, ordered: bool) -> None:
    """What one of them is refused for says nothing of the others; ordered, those behind it were not attempted."""
    for code in [*REFUSED, *UNKNOWN, *AWAY]:
        fault = {"index": 1, "code": code, "errmsg": "x", "keyPattern": {"other": 1}}
        server.answer = always({"n": 2, "writeErrors": [fault]})
        first, second, third = await store.insert_many("things", inserts(3), ["a", "b", "c"], ordered=ordered)
        assert isinstance(first, Applied)
        assert isinstance(second, Exception)
        assert classify(second) is outcome_of(code), code
        assert third is None if ordered else isinstance(third, Applied)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("code", [64, 91])
async def test_many_with_a_refusal_and_a_write_concern_error(
    store: MongoStore, server: ScriptedMongo, code: int, *, ordered: bool
) -> None:
    """The one is refused, those that are done may not last."""
    fault = {"index": 1, "code": 11000, "errmsg": "x", "keyPattern": {"other": 1}}
    server.answer = always({"n": 2, "writeErrors": [fault], "writeConcernError": {"code": code, "errmsg": "y"}})
    first, second, third = await store.insert_many("things", inserts(3), ["a", "b", "c"], ordered=ordered)
    assert isinstance(first, WriteConcernError)
    assert isinstance(second, DuplicateKeyError)
    assert classify(second) is Outcome.REFUSED
    assert third is None if ordered else isinstance(third, WriteConcernError)


async def test_many_of_which_a_later_batch_fails(
    store: MongoStore, server: ScriptedMongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver sends them in several messages, and says only what became of the last one. (Of a thousandth of what
    servers take in one message.)"""
    monkeypatch.setattr(refusals, "_BATCH_COUNT", refusals._BATCH_COUNT // 1000)
    server.most_writes = 100
    answers: list[dict[str, Any]] = [{"n": 100}, {"ok": 0.0, "code": 13, "errmsg": "x"}]
    server.answer = lambda name, command: answers.pop(0) if name == "insert" else {}
    results = await store.insert_many("things", inserts(101), [""] * 101, ordered=True)
    assert server.commands.count("insert") == 2
    assert {classify(each) for each in results if isinstance(each, Exception)} == {Outcome.UNKNOWN}
    assert len(results) == 101


async def test_many_of_which_one_cannot_be_sent(store: MongoStore, server: ScriptedMongo) -> None:
    """None of them is, so all are refused."""
    unsendable = Insert(9, {"_id": 9, "n": 2**70}, fresh_id())
    results = await store.insert_many("things", [*inserts(2), unsendable], ["a", "b", "c"], ordered=False)
    assert {classify(each) for each in results if isinstance(each, Exception)} == {Outcome.REFUSED}
    assert len(results) == 3
    assert "insert" not in server.commands


async def test_the_refusal_of_what_a_tombstone_stood_for_is_its_own(store: MongoStore, server: ScriptedMongo) -> None:
    """Another unique value is taken: the other inserts are made all the same."""

    def answer(name: str, command: dict[str, Any]) -> dict[str, Any]:
        place, of = (1, "_id") if name == "insert" else (0, "email")
        return {"n": 2, "writeErrors": [{"index": place, "code": 11000, "errmsg": "x", "keyPattern": {of: 1}}]}

    server.answer = answer
    first, second, third = await store.insert_many("things", inserts(3), ["a", "b", "c"], ordered=False)
    assert isinstance(first, Applied)
    assert isinstance(second, DuplicateKeyError)
    assert isinstance(third, Applied)


async def test_what_is_wrong_with_an_answer_says_nothing_against_the_write(
    store: MongoStore, server: ScriptedMongo
) -> None:
    """The server has done it, although by our own reckoning it could not have."""
    server.answer = always({"value": {"_id": 1, "n": "text"}})
    error = await raised(store, CHANGES["update"])
    assert isinstance(error, WriteError)
    assert classify(error) is Outcome.UNKNOWN


async def test_a_server_that_ends_in_the_middle(store: MongoStore, server: ScriptedMongo) -> None:
    """Of one write and of many: unknown, each of them."""

    def gone(name: str, command: dict[str, Any]) -> dict[str, Any]:
        raise OSError

    server.answer = gone
    assert isinstance(await raised(store, CHANGES["insert"]), AutoReconnect)
    results = await store.insert_many("things", inserts(3), ["a", "b", "c"], ordered=True)
    assert [classify(each) for each in results if isinstance(each, Exception)] == [Outcome.UNKNOWN] * 3
