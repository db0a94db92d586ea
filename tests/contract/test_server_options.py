"""Options that only a server of MongoDB has a use for are passed on to it, in each command that does the call's work,
while the collection is over two stores; with DynamoDB as primary they change nothing. Every argument of the table that
says so is tried, with each driver, and the server's commands are watched."""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo import AsyncMongoClient, monitoring
from pymongo.errors import NetworkTimeout, OperationFailure, WriteError

from shadow import Shadow
from shadow.model.phase import Phase, StoreName
from shadow.surface.calls.argument_table import VERBS, Fate, fate_of, names_of
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop, root_client, root_url

pytestmark = pytest.mark.plain_options(reason="the client is the test's own, with a listener")

SET: Final = {"$set": {"x": 1}}
CALLS: Final[dict[str, tuple[Any, ...]]] = {
    "aggregate": ([{"$match": {"n": {"$gt": 0}}}],),
    "bulk_write": ([pymongo.UpdateOne({"_id": 1}, SET), pymongo.InsertOne({"_id": 30}), pymongo.DeleteMany({"n": 2})],),
    "count_documents": ({"n": {"$gt": 0}},),
    "create_index": ("other",),
    "create_indexes": ([pymongo.IndexModel("other")],),
    "delete_many": ({"n": {"$lt": 3}},),
    "delete_one": ({"n": 1},),
    "distinct": ("n",),
    "drop": (),
    "drop_index": ("made_1",),
    "drop_indexes": (),
    "estimated_document_count": (),
    "find": ({"n": {"$gt": 0}},),
    "find_one": ({"n": {"$gt": 0}},),
    "find_one_and_delete": ({"n": 1},),
    "find_one_and_replace": ({"_id": 1}, {"x": 1}),
    "find_one_and_update": ({"n": 1}, SET),
    "index_information": (),
    "insert_many": ([{"_id": 20}, {"_id": 21}],),
    "insert_one": ({"_id": 20},),
    "list_indexes": (),
    "options": (),
    "replace_one": ({"_id": 1}, {"x": 1}),
    "update_many": ({"n": {"$lt": 3}}, SET),
    "update_one": ({"_id": 1}, SET),
}
VALUES: Final[dict[str, Any]] = {
    "comment": {"why": "a test"}, "hint": "_id_", "maxTimeMS": 8000, "max_time_ms": 8000, "allow_disk_use": True,
    "allowDiskUse": True, "batchSize": 3, "cursor": {"batchSize": 3}, "bypass_document_validation": True,
    "bypassDocumentValidation": True, "no_cursor_timeout": True,
}  # fmt: skip
FIELDS: Final = {
    "max_time_ms": "maxTimeMS", "allow_disk_use": "allowDiskUse", "bypass_document_validation":
    "bypassDocumentValidation", "no_cursor_timeout": "noCursorTimeout", "batchSize": "cursor",
}  # fmt: skip
"""The names of the commands' fields, where they are others."""
ONE: Final = frozenset({"distinct", "find_one_and_delete", "find_one_and_replace", "find_one_and_update"})
ENDED: Final = {50, 11601}
"""MaxTimeMSExpired, and Interrupted, with which the server's JavaScript ends (error_codes.yml)."""
NOT_BY_THE_SERVER: Final = {("distinct", "hint"), ("create_indexes", "commitQuorum")}
"""A server before 7.1 refuses the first, and one alone the second, as they do with the bare driver."""


class Watched(monitoring.CommandListener):
    """The commands that were sent since the last `clear`."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.commands.append((event.command_name, dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    def with_field(self, name: str, value: Any) -> list[str]:
        """The names of the commands, or of their statements, that have the field with this value."""
        found = []
        for command, given in self.commands:
            statements = [each for part in ("updates", "deletes") for each in given.get(part, ())]
            if any(each.get(name) == value for each in [given, *statements]):
                found.append(command)
        return found


@contextlib.asynccontextmanager
async def watched(
    folder: Path, mongo_url: str, dynamo_url: str, driver: str, primary: StoreName
) -> AsyncIterator[tuple[Shadow, Watched]]:
    watch, name = Watched(), f"t{uuid.uuid4().hex[:12]}"
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        client: Any = AsyncIOMotorClient(root_url(mongo_url), event_listeners=[watch])
    else:
        client = AsyncMongoClient(root_url(mongo_url), event_listeners=[watch])
    settings = settings_for(
        folder, mongo_url, dynamo_url, name, ["things"], primary=primary, phase=Phase.SHADOW, driver=driver
    )
    try:
        async with Shadow.from_settings(settings, mongo_client=client) as shadow:
            await shadow.prepare()
            yield shadow, watch
    finally:
        drop(mongo_url, name)
        ending = client.close()
        if inspect.isawaitable(ending):
            await ending


@pytest.fixture(params=["motor", "pymongo"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, dynamodb_local_url: str
) -> AsyncIterator[tuple[Shadow, Watched]]:
    async with watched(tmp_path, mongo_url, dynamodb_local_url, request.param, StoreName.MONGO) as made:
        yield made


async def fill(things: Any) -> None:
    await things.delete_many({})
    await things.insert_many([{"_id": n, "n": n} for n in range(6)])


async def made(call: Any) -> Any:
    answer = await call if inspect.isawaitable(call) else call
    return await answer.to_list(None) if hasattr(answer, "to_list") else answer


def passed_on() -> list[tuple[str, str]]:
    found = [(verb, name) for verb in VERBS for name in sorted(names_of(verb)) if name in VALUES]
    return [each for each in found if fate_of(*each) is Fate.ON_MONGO and each not in NOT_BY_THE_SERVER]


def test_every_argument_that_goes_on_is_tried() -> None:
    every = {(verb, name) for verb in VERBS for name in names_of(verb) if fate_of(verb, name) is Fate.ON_MONGO}
    assert every - NOT_BY_THE_SERVER == set(passed_on())
    assert len(every) > 60


@pytest.mark.takes_turns
async def test_each_goes_on_to_mongodb_with_the_commands_of_its_call(site: tuple[Shadow, Watched]) -> None:
    shadow, watch = site
    things, missing = shadow["things"], []
    for verb, name in passed_on():
        await fill(things)
        if verb == "drop_indexes" or verb == "drop_index":
            await things.create_index("made")
        assert await shadow.settled(30)
        watch.commands.clear()
        value = dict(VALUES[name]) if isinstance(VALUES[name], dict) else VALUES[name]
        await made(getattr(things, verb)(*CALLS[verb], **{name: value}))
        wanted = {"batchSize": 3} if name in ("batchSize", "cursor") else value
        if verb.startswith("find_one_and") and name == "maxTimeMS":
            limits = [given["maxTimeMS"] for command, given in watch.commands if command == "findAndModify"]
            assert limits
            assert max(limits) <= value + 250
            continue
        if not watch.with_field(FIELDS.get(name, name), wanted):
            missing.append((verb, name, watch.commands))
        await things.drop_indexes()
    assert not missing
    await assert_level(shadow)


async def test_options_of_a_cursor_and_of_a_request_go_on_too(site: tuple[Shadow, Watched]) -> None:
    shadow, watch = site
    things = shadow["things"]
    await fill(things)
    watch.commands.clear()
    cursor = things.find({"n": {"$gt": 0}}).comment("c").max_time_ms(7000).hint([("_id", 1)]).allow_disk_use(True)
    assert len(await cursor.batch_size(2).to_list(None)) == 5
    asked = [given for command, given in watch.commands if command == "find"]
    (sent,) = [given for given in asked if given.get("comment") == "c"]  # beside those of shadow's own
    assert (sent["comment"], sent["maxTimeMS"], sent["allowDiskUse"], sent["batchSize"]) == ("c", 7000, True, 2)
    assert dict(sent["hint"]) == {"_id": 1}
    watch.commands.clear()
    assert len(await cursor.clone().to_list(None)) == 5
    assert watch.with_field("comment", "c")[:1] == ["find"]
    assert sorted(await things.find({"n": {"$gt": 3}}).comment("d").max_time_ms(6000).distinct("n")) == [4, 5]
    assert watch.with_field("comment", "d") == watch.with_field("maxTimeMS", 6000) == ["distinct"]
    watch.commands.clear()
    requests = [
        pymongo.UpdateOne({"n": 1}, SET, hint="_id_"),
        pymongo.UpdateMany({"n": {"$gt": 2}}, SET),
        pymongo.DeleteMany({"n": 5}, hint=[("_id", 1)]),
    ]
    await things.bulk_write(requests)
    assert [watch.with_field("hint", value)[:1] for value in ("_id_", {"_id": 1})] == [["findAndModify"], ["find"]]
    await things.find_one({})  # what one call sends is not sent with the next
    last = [given for command, given in watch.commands if command == "find"][-1]  # beside those of a change stream
    assert not {"hint", "comment"} & last.keys()
    await assert_level(shadow)


async def test_a_validator_is_passed_by_only_if_the_application_asks(site: tuple[Shadow, Watched]) -> None:
    shadow, _ = site
    things = shadow["things"]
    await fill(things)
    root = root_client(shadow.admin.settings.mongo.url.get_secret_value())
    root[shadow.name].command("collMod", "things", validator={"n": {"$type": "int"}})
    wrong: dict[str, Callable[..., Any]] = {
        "insert_one": lambda **o: things.insert_one({"_id": 40, "n": "x"}, **o),
        "insert_many": lambda **o: things.insert_many([{"_id": 41, "n": "x"}], **o),
        "update_one": lambda **o: things.update_one({"_id": 1}, {"$set": {"n": "x"}}, **o),
        "upsert": lambda **o: things.update_one({"_id": 42}, {"$set": {"n": "x"}}, upsert=True, **o),
        "update_many": lambda **o: things.update_many({"_id": {"$in": [0, 2]}}, {"$set": {"n": "x"}}, **o),
        "replace_one": lambda **o: things.replace_one({"_id": 3}, {"n": "x"}, **o),
        "bulk_write": lambda **o: things.bulk_write([pymongo.ReplaceOne({"_id": 5}, {"n": "x"})], **o),
    }
    for call in wrong.values():
        with pytest.raises(OperationFailure) as refused:
            await call()
        code = refused.value.details["writeErrors"][0]["code"] if refused.value.code == 65 else refused.value.code  # type: ignore[index]
        assert code == 121
        await call(bypass_document_validation=True)
    modify = things.find_one_and_update
    with pytest.raises(OperationFailure) as raised:
        await modify({"_id": 4}, {"$set": {"n": "y"}})
    assert raised.value.code == 121
    assert not isinstance(raised.value, WriteError)
    await modify({"_id": 4}, {"$set": {"n": "y"}}, bypassDocumentValidation=True)
    assert await things.count_documents({"n": {"$type": "string"}}) == 9
    await assert_level(shadow)


@pytest.mark.takes_turns
async def test_a_time_limit_ends_the_call_as_the_servers(site: tuple[Shadow, Watched]) -> None:
    shadow, _ = site
    things = shadow["things"]
    await fill(things)
    slow = {"$expr": {"$function": {"body": "function() {sleep(300); return true}", "args": [], "lang": "js"}}}
    for call in (
        lambda: things.find(slow).max_time_ms(50).to_list(None),
        lambda: things.find_one(slow, max_time_ms=50),
        lambda: things.count_documents(slow, maxTimeMS=50),
        lambda: made(things.aggregate([{"$match": slow}], maxTimeMS=50)),
        lambda: things.distinct("n", slow, maxTimeMS=50),
    ):
        with pytest.raises(OperationFailure) as raised:
            await call()
        assert raised.value.code in ENDED
    with pytest.raises((OperationFailure, NetworkTimeout)):
        await things.find_one_and_update({"$where": "sleep(2000) || true"}, SET, maxTimeMS=50)
    await assert_level(shadow)


async def test_a_hint_on_no_index_of_mongodb_is_its_error_and_no_mismatch(site: tuple[Shadow, Watched]) -> None:
    """The collection's description has it: DynamoDB would answer."""
    shadow, _ = site
    things = shadow["things"]
    await fill(things)
    await things.create_index("u", unique=True, sparse=True)
    await things.insert_one({"_id": 9, "u": 1})
    assert await things.count_documents({}, hint="u_1") == 1  # as MongoDB counts by a sparse index
    await things.create_index("n", unique=True, name="v_1")
    await shadow._engine.driver()["things"].drop_index("v_1")
    for call in (lambda: things.find({}, hint="v_1").to_list(None), lambda: things.update_one({}, SET, hint="v_1")):
        with pytest.raises(OperationFailure) as raised:
            await call()
        assert raised.value.code == 2
    assert await shadow.settled(30)
    assert shadow.admin.findings.groups() == []


async def test_a_write_with_an_empty_hint_is_the_servers_error(site: tuple[Shadow, Watched]) -> None:
    shadow, _ = site
    things, bare = shadow["things"], shadow._engine.driver()["bare"]
    await fill(things)
    for call in (
        lambda c: c.update_one({"_id": 1}, SET, hint=""),
        lambda c: c.update_many({}, SET, hint=""),
        lambda c: c.replace_one({}, {}, hint=""),
        lambda c: c.delete_one({}, hint=""),
        lambda c: c.delete_many({}, hint=""),
        lambda c: c.find_one_and_update({}, SET, hint=""),
        lambda c: c.find_one_and_delete({}, hint=""),
        lambda c: c.bulk_write([pymongo.InsertOne({"_id": 50}), pymongo.DeleteOne({}, hint="")]),
    ):
        await bare.delete_many({})
        await bare.insert_one({"_id": 1})  # without a collection the server asks for no plan
        with pytest.raises(OperationFailure) as expected:
            await call(bare)
        with pytest.raises(OperationFailure) as raised:
            await call(things)
        assert (type(raised.value), raised.value.code) == (type(expected.value), expected.value.code)
    assert await things.count_documents({}, hint="_id_") == 7
    await assert_level(shadow)


@pytest.mark.takes_turns
async def test_with_dynamodb_as_primary_they_change_nothing(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str
) -> None:
    async with watched(tmp_path, mongo_url, dynamodb_local_url, "pymongo", StoreName.DYNAMO) as (shadow, watch):
        things = shadow["things"]
        for verb, name in passed_on():
            await fill(things)
            if verb == "drop_index":
                await things.create_index("made")
            value = dict(VALUES[name]) if isinstance(VALUES[name], dict) else VALUES[name]
            expected = await made(getattr(things, verb)(*CALLS[verb])) if verb in ("find", "count_documents") else None
            answer = await made(getattr(things, verb)(*CALLS[verb], **{name: value}))
            if expected is not None:
                assert answer == expected
        await assert_level(shadow)
        # Before an index is made, those of MongoDB are listed.
        assert set(watch.with_field("comment", VALUES["comment"])) <= {"listIndexes", "createIndexes"}
