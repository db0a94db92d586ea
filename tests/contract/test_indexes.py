"""`create_index` and hints through the shim: what is made, what is confirmed, what is refused by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteError
from pymongo.operations import IndexModel

from shadow import Settings, Shadow, UnsupportedOperation
from shadow.config import parse
from shadow.fleet.health_gates import gates_of
from shadow.model.operation import Insert
from shadow.model.phase import StoreName
from shadow.model.version import fresh_id
from tests.support.drawn import driver_of
from tests.support.topologies import admit, drop


def settings(mongo_url: str, dynamo_url: str, folder: Path, primary: str, phase: str = "shadow") -> Settings:
    name = fresh_id()
    admit(mongo_url, f"indexes_{name}")
    return parse(
        f"""
        mongo: {{url: "{mongo_url}", database: indexes_{name}, driver: {driver_of(mongo_url, "motor")}}}
        dynamo: {{endpoint_url: "{dynamo_url}", table_prefix: "{name}-", access_key_id: a, secret_access_key: b}}
        journal: {{url: "sqlite:///{folder}/shadow.db"}}
        defaults: {{primary: {primary}, phase: "{phase}"}}
        collections: {{users: {{indexes: [{{name: email-index, hash: email, range: at}}]}}}}
        """,
        {},
    )


@pytest.fixture(params=["mongo", "dynamo"])
async def shadow(request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path: Path):
    made = settings(mongo_url, dynamodb_local_url, tmp_path, request.param)
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        yield shadow
        assert await shadow.settled(20)
    drop(mongo_url, shadow.name)


def is_on_mongo(shadow: Shadow) -> bool:
    return shadow.admin.routes()["users"].primary is StoreName.MONGO


async def test_an_index_that_the_configuration_has_is_that_of_mongodb_to_the_application(
    shadow: Shadow, mongo_url: str
) -> None:
    """Whoever is primary, with the server's names and errors."""
    users = shadow["users"]
    assert await users.create_index("email") == "email_1"
    assert await users.create_index([("email", 1), ("at", -1)]) == "email_1_at_-1"
    assert await users.create_index("_id") == "_id_1"
    with pytest.raises(OperationFailure, match="different name") as raised:
        await users.create_index("email", name="mails")
    assert raised.value.code == 85
    with pymongo.MongoClient(mongo_url) as client:
        assert set(client[shadow.name]["users"].index_information()) == {
            "_id_", "_shadow_ttl", "_shadow_op", "email_1", "email_1_at_-1"
        }  # fmt: skip


async def test_an_index_that_is_there_already_under_another_name_is_in_the_way(shadow: Shadow, mongo_url: str) -> None:
    with pymongo.MongoClient(mongo_url) as client:
        client[shadow.name]["users"].create_index("email", name="mails")
    assert await shadow["users"].create_index("email", name="mails") == "mails"
    with pytest.raises(OperationFailure, match="different name"):
        await shadow["users"].create_index("email")
    assert not shadow.admin.metrics_registry.totals()["failures"]["index"]


async def test_a_unique_index_is_made_on_both_stores_and_held(shadow: Shadow) -> None:
    users = shadow["users"]
    assert await users.create_index([("nick", 1)], unique=True, sparse=True) == "nick_1"
    await users.insert_one({"_id": 1, "nick": "a"})
    with pytest.raises(DuplicateKeyError) as refused:
        await users.insert_one({"_id": 2, "nick": "a"})
    assert refused.value.details["keyPattern"] == {"nick": 1}
    await users.insert_many([{"_id": 3}, {"_id": 4}])
    await users.update_one({"_id": 1}, {"$set": {"nick": "b"}})
    await users.insert_one({"_id": 2, "nick": "a"})
    assert (await users.index_information())["nick_1"]["unique"] is True
    assert (await shadow["users"].index_information())["nick_1"]["sparse"] is True
    assert await shadow["users"].create_index("nick", unique=True, sparse=True) == "nick_1"


async def test_existing_duplicates_are_said_before_a_unique_index_is_accepted(shadow: Shadow) -> None:
    users = shadow["users"]
    await users.insert_many([{"_id": 1, "nick": "a"}, {"_id": 2, "nick": "a"}])
    with pytest.raises(DuplicateKeyError):
        await users.create_index("nick", unique=True)
    assert "nick_1" not in await users.index_information()
    await users.insert_many([{"_id": 3, "nick": "a"}, {"_id": 4, "nick": "a"}, {"_id": 5, "nick": "b"}])
    await users.update_one({"_id": 5}, {"$set": {"nick": "a"}})


async def test_a_plain_index_is_made_on_mongodb_and_the_log_says_how_to_have_it_on_dynamodb(
    shadow: Shadow, mongo_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await shadow["users"].create_index([("city", 1), ("age", -1)]) == "city_1_age_-1"
    with pymongo.MongoClient(mongo_url) as client:
        assert "city_1_age_-1" in client[shadow.name]["users"].index_information()
        await shadow["users"].drop_index([("city", 1), ("age", -1)])
        assert "city_1_age_-1" not in client[shadow.name]["users"].index_information()
    (line,) = [each.getMessage() for each in caplog.records if "index.undeclared" in each.getMessage()]
    assert "hash: city, range: age" in line


@pytest.mark.parametrize(
    "more", [{"partialFilterExpression": {"x": {"$gt": 1}}}, {"collation": {"locale": "de", "strength": 2}}]
)
async def test_a_unique_index_that_dynamodb_cannot_enforce_is_lost_or_refused(
    shadow: Shadow, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Lost with the flip; refused by name after it, because it decides what is stored."""
    (option,) = more
    if not is_on_mongo(shadow):
        with pytest.raises(UnsupportedOperation, match=option):
            await shadow["users"].create_index("x", unique=True, **more)
        return
    assert await shadow["users"].create_index("x", unique=True, **more) == "x_1"
    (line,) = [each.getMessage() for each in caplog.records if "index.lost" in each.getMessage()]
    assert f"unique index with {option}" in line


async def test_a_hint_on_an_index_that_is_there_changes_nothing_and_another_is_the_servers_error(
    shadow: Shadow,
) -> None:
    users = shadow["users"]
    await users.insert_one({"_id": 1, "email": "a", "at": "1"})
    await users.create_index([("email", 1), ("at", 1)])
    assert len(await users.find({"email": "a"}).hint("email_1_at_1").to_list()) == 1
    assert await users.count_documents({"email": "a"}, hint=[("email", 1), ("at", 1)]) == 1
    if not is_on_mongo(shadow):
        assert len(await users.find({"email": "a"}).hint("email-index").to_list()) == 1
    calls = (
        lambda: users.find({}).hint("city_1").to_list(),
        lambda: users.update_one({"_id": 1}, {"$set": {"a": 1}}, hint="city_1"),
    )
    for call in calls:
        with pytest.raises(OperationFailure, match="hint") as raised:
            await call()
        assert (isinstance(raised.value, UnsupportedOperation), raised.value.code) == (False, 2)


async def test_a_collection_that_is_not_configured_keeps_its_indexes_on_mongodb(shadow: Shadow) -> None:
    other = shadow["elsewhere"]
    assert await other.create_index("slug", unique=True) == "slug_1"
    await other.insert_one({"slug": "a"})
    with pytest.raises(DuplicateKeyError):
        await other.insert_one({"slug": "a"})


async def test_many_indexes_at_once_are_made_confirmed_or_refused_one_by_one(shadow: Shadow) -> None:
    users = shadow["users"]
    wanted = [IndexModel("email"), IndexModel([("nick", 1)], unique=True), IndexModel([("city", -1)], name="by_city")]
    assert await users.create_indexes(wanted) == ["email_1", "nick_1", "by_city"]
    shown = {"_id_", "email_1", "nick_1", "by_city"}
    assert set(await users.index_information()) == shown
    assert {each["name"] for each in await users.list_indexes().to_list(None)} == shown
    await users.drop_index("by_city")


async def test_names_of_fields_may_be_of_a_subclass_of_str(shadow: Shadow) -> None:
    """ODMantic's are."""

    class Name(str):
        __slots__ = ()

    users = shadow["users"]
    model = IndexModel([(Name("name"), 1), (Name("day"), -1)], unique=True, name="x")
    assert await users.create_indexes([model]) == ["x"]
    assert await users.create_index([(Name("rank"), 1)]) == "rank_1"
    keys = [path for each in (await users.index_information()).values() for path, _ in each["key"]]
    assert {type(each) for each in keys} == {str}
    await users.insert_one({"_id": 1, "name": "a", "day": 1})
    with pytest.raises(DuplicateKeyError):
        await users.insert_one({"_id": 2, "name": "a", "day": 1})


async def test_all_indexes_are_dropped_but_those_of_every_process(shadow: Shadow, mongo_url: str) -> None:
    users = shadow["users"]
    await users.create_indexes([IndexModel("email"), IndexModel("city"), IndexModel([("bio", "text")])])
    await users.drop_indexes()
    assert set(await users.index_information()) == {"_id_"}
    with pymongo.MongoClient(mongo_url) as client:
        left = set(client[shadow.name]["users"].index_information())
    assert left == {"_id_", "_shadow_ttl", "_shadow_op"}


async def test_a_unique_index_that_was_dropped_is_enforced_by_neither_store_and_can_come_back(shadow: Shadow) -> None:
    users = shadow["users"]
    await users.insert_one({"_id": 1, "nick": "a"})
    await users.create_index("nick", unique=True)
    await users.drop_index("nick_1")
    assert "nick_1" not in await users.index_information()
    await users.insert_one({"_id": 2, "nick": "a"})
    await users.insert_one({"_id": 3, "nick": "b"})
    assert await shadow.settled(20)
    assert not shadow.admin.metrics_registry.totals()["failures"]["index"]
    assert not (await shadow.admin.journal_stats()).refused_by_collection
    await users.delete_one({"_id": 2})
    assert await shadow.settled(20)
    await users.create_index("nick", unique=True)
    store = shadow._engine.runtime().stores[StoreName.DYNAMO]
    with pytest.raises(DuplicateKeyError):
        await store.apply("users", Insert(4, {"_id": 4, "nick": "b"}, fresh_id()), fresh_id())


async def test_dropping_says_what_mongodb_says_or_that_the_index_is_the_configurations(shadow: Shadow) -> None:
    users = shadow["users"]
    for missing in ("nothing", [("nothing", 1)]):
        with pytest.raises(OperationFailure) as refused:
            await users.drop_index(missing)
        assert refused.value.code == 27
    with pytest.raises(OperationFailure) as refused:
        await users.drop_index("_id_")
    assert refused.value.code == 72
    await users.create_index("nick", unique=True)
    for name in ("_shadow_ttl", "_shadow_op"):
        with pytest.raises(UnsupportedOperation, match="drop_index"):
            await users.drop_index(name)
    for options in ({"name": "_shadow_mine"}, {}):
        with pytest.raises(UnsupportedOperation, match="create_index"):
            await users.create_index("_shadow.x" if not options else "x", **options)


@pytest.mark.parametrize("phase", ["off", "dual_write"])
async def test_indexes_can_be_made_though_mongodb_is_gone_after_the_flip(
    dynamodb_local_url: str, tmp_path: Path, phase: str
) -> None:
    """An application goes on making its indexes at start-up; what follows, or is not in use, raises nothing."""
    gone = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    made = settings(gone, dynamodb_local_url, tmp_path, "dynamo", phase)
    async with Shadow.from_settings(made) as shadow:
        await shadow._engine.runtime().stores[StoreName.DYNAMO].prepare(made.specs().values())
        users = shadow["users"]
        assert await users.create_index("city") == "city_1"
        assert await users.create_index("nick", unique=True) == "nick_1"
        await users.insert_one({"_id": 1, "nick": "a"})
        with pytest.raises(DuplicateKeyError):
            await users.insert_one({"_id": 2, "nick": "a"})
        failed = shadow.admin.metrics_registry.totals()["failures"]["index"]
        assert bool(failed) == (phase != "off")
        assert set(await users.index_information()) == {"_id_", "city_1", "nick_1"}


@pytest.mark.parametrize(
    ("keys", "lost"),
    [([("a", "text")], True), ([("b", "2dsphere"), ("a", 1)], True), ({"a": "hashed"}, False), ([("a.$**", 1)], False)],
)
async def test_a_kind_of_index_that_only_mongodb_has_is_made_there_and_reported(
    shadow: Shadow, mongo_url: str, keys: Any, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = await shadow["users"].create_index(keys)
    with pymongo.MongoClient(mongo_url) as client:
        assert name in client[shadow.name]["users"].index_information()
    event = "index.lost" if lost else "index.undeclared"
    assert [name in each.getMessage() for each in caplog.records if event in each.getMessage()] == [True]
    (told,) = (await shadow.admin.status())["lost_indexes"]["users"]
    assert (told["index"], told["loss"], told["acknowledged"]) == (name, "answers" if lost else "speed", False)


@pytest.mark.parametrize("accepted", [[], ["other"], ["a_text"], ["*"]])
async def test_a_lost_index_closes_a_gate_unless_it_is_acknowledged(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, accepted: list[str]
) -> None:
    """Also one that was made past shadow. An index that only makes queries faster closes none."""
    made = settings(mongo_url, dynamodb_local_url, tmp_path, "mongo")
    entry = made.collections["users"].model_copy(update={"accept_lost_indexes": tuple(accepted)})
    made = made.model_copy(update={"collections": {"users": entry}})
    with pymongo.MongoClient(mongo_url) as client:
        client[made.mongo.database]["users"].create_index([("a", "text")])
        client[made.mongo.database]["users"].create_index("b")
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        async with asyncio.timeout(60):  # a look that takes more than two seconds is repeated soon
            while True:
                health = await shadow.admin.health()
                (gate,) = [each for each in gates_of([health.health()]) if each.name == "indexes"]
                if not gate.said.startswith("not known"):
                    break
                await asyncio.sleep(0.2)
        assert gate.ok == bool({"a_text", "*"} & set(accepted))
        assert gate.ok or "a_text" in gate.look_at
    drop(mongo_url, made.mongo.database)


@pytest.mark.drawn_over("shadow", reason="what the server would not make is refused before any store is asked")
@pytest.mark.parametrize(
    ("keys", "options", "code"),
    [
        ([("at", "nonsense")], {}, 67),
        ("at", {"nonsense": 1}, 197),
        ("at", {"expireAfterSeconds": -1}, 67),
        ("at", {"expireAfterSeconds": "x"}, 67),
        ([("at", 1), ("b", 1)], {"expireAfterSeconds": 5}, 67),
        ("_id", {"expireAfterSeconds": 5}, 197),
        ("at", {"partialFilterExpression": 5}, 14),
        ("at", {"hidden": "x"}, 14),
        ("name", {"unique": True, "sparse": True}, 86),
        ("name", {}, 86),
        ("at", {"name": "name_1"}, 86),
        ("at", {"name": "_id_"}, 2),
        ([("_id", -1)], {}, 2),
        ("_id", {"unique": True}, 197),
        ("at", {"name": 5}, 14),
        ("at", {"name": ""}, 67),
        ("at", {"unique": "yes"}, 14),
        *((path, {}, 67) for path in ("", ".a", "a.", "a..b", "$a", "a.$b")),
        ([("at", 0)], {}, 67),
        ([("at", True)], {}, 67),
    ],
)
async def test_an_index_that_the_server_would_not_make_is_refused_with_its_code(
    shadow: Shadow, mongo_url: str, keys: Any, options: dict[str, Any], code: int
) -> None:
    """The same as a bare collection with the same indexes, where it has them."""
    await shadow["users"].create_index("name", unique=True)
    with pytest.raises(OperationFailure) as raised:
        await shadow["users"].create_index(keys, **options)
    assert raised.value.code == code
    with pymongo.MongoClient(mongo_url) as client:
        bare = client[shadow.name]["bare"]
        bare.create_index([("email", 1), ("at", 1)], name="email-index")
        bare.create_index("name", unique=True)
        with pytest.raises(OperationFailure) as theirs:
            bare.create_index(keys, **options)
    assert theirs.value.code == code


@pytest.mark.parametrize("shadow", ["dynamo"], indirect=True)
async def test_lists_in_two_fields_of_a_unique_index_are_refused_alone(shadow: Shadow) -> None:
    """With the server's code, for each document by itself: the rest of a bulk is made."""
    users = shadow["users"]
    await users.create_index([("a", 1), ("b", 1)], unique=True)
    parallel = {"_id": "p", "a": [1, 2], "b": [3, 4]}
    with pytest.raises(WriteError) as raised:
        await users.insert_one(dict(parallel))
    assert raised.value.code == 171
    with pytest.raises(BulkWriteError) as many:
        await users.insert_many([{"_id": "x", "a": 1}, dict(parallel), {"_id": "y", "a": 2}], ordered=False)
    assert [(each["index"], each["code"]) for each in many.value.details["writeErrors"]] == [(1, 171)]
    assert {each["_id"] async for each in users.find()} == {"x", "y"}
    with pytest.raises(WriteError) as updated:
        await users.update_one({"_id": "x"}, {"$set": {"a": [1], "b": [2]}})
    assert updated.value.code == 171
    with pytest.raises(BulkWriteError) as bulk:
        await users.bulk_write(
            [
                pymongo.UpdateOne({"_id": "x"}, {"$set": {"a": [1], "b": [2]}}),
                pymongo.UpdateOne({"_id": "y"}, {"$set": {"c": 1}}),
            ],
            ordered=False,
        )
    assert [(each["index"], each["code"]) for each in bulk.value.details["writeErrors"]] == [(0, 171)]
    assert (await users.find_one({"_id": "y"}))["c"] == 1


EN2 = {"locale": "en", "strength": 2}
A, NOT_A, B = [("a", 1)], [("a", -1)], [("b", 1)]
OF_THE_SAME: list[tuple[Any, ...]] = [
    ((A, {}), (A, {})),
    ((A, {}), (A, {"name": "m"})),
    ((A, {}), (A, {"unique": True})),
    ((A, {}), (A, {"sparse": True})),
    ((A, {}), (NOT_A, {})),
    ((A, {"name": "n"}), (B, {"name": "n"})),
    ((A, {"name": "n"}), (A, {"name": "n", "unique": True})),
    ((A, {"name": "n"}), (A, {"name": "m", "unique": True})),
    ((A, {"name": "n"}), (A, {"name": "m", "sparse": True})),
    ((A, {"name": "n"}), (NOT_A, {"name": "n"})),
    ((A, {"name": "n"}), ([*A, *B], {"name": "n"})),
    ((A, {"sparse": True}), (A, {"sparse": True})),
    ((A, {"sparse": True}), (A, {})),
    ((A, {"sparse": True}), (A, {"sparse": True, "name": "m"})),
    ((A, {"unique": True}), (A, {"unique": True})),
    ((A, {"unique": True}), (A, {})),
    ((A, {"unique": True}), (A, {"name": "m"})),
    ((A, {"unique": True}), (A, {"unique": True, "name": "m"})),
    ((A, {"unique": True}), (A, {"unique": True, "sparse": True})),
    ((A, {"unique": True, "name": "n"}), (A, {"name": "n"})),
    ((A, {"unique": True, "name": "n"}), (B, {"unique": True, "name": "n"})),
    ((A, {"unique": True, "name": "n"}), (B, {"name": "n"})),
    ((A, {"unique": True, "collation": EN2}), (A, {"unique": True, "collation": EN2})),
    ((A, {"unique": True, "collation": EN2}), (A, {"unique": True, "collation": EN2, "name": "m"})),
    ((A, {"unique": True, "collation": EN2}), (A, {"unique": True, "name": "m"})),
    ((A, {"unique": True, "collation": EN2}), (A, {"unique": True})),
    ((A, {"unique": True, "collation": EN2}), (A, {"unique": True, "collation": {**EN2, "strength": 1}})),
    (
        (A, {"unique": True, "collation": EN2}),
        (A, {"unique": True, "collation": {**EN2, "locale": "en_US"}, "name": "m"}),
    ),
]
"""Two that are asked for one after the other: the same, of one name with other keys or options, of two names."""


@pytest.mark.drawn_over("primary", "phase", of=2, reason="whoever is primary, MongoDB's indexes are looked at alike")
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
@pytest.mark.parametrize("phase", ["off", "dual_write", "shadow"])
async def test_indexes_in_each_other_s_way_get_the_codes_of_a_bare_collection(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, primary: str, phase: str
) -> None:
    """Whoever is primary, and whether MongoDB is in use at all."""
    made = settings(mongo_url, dynamodb_local_url, tmp_path, primary, phase)
    names = [f"c{number}" for number in range(len(OF_THE_SAME))]
    entry = made.collections["users"].model_copy(update={"indexes": ()})
    made = made.model_copy(update={"collections": dict.fromkeys(names, entry)})
    found: dict[str, list[int | None]] = {"bare": [], "shadow": []}
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        with pymongo.MongoClient(mongo_url) as client:
            for name, pair in zip(names, OF_THE_SAME, strict=True):
                for keys, options in pair:
                    try:
                        client[shadow.name][f"bare_{name}"].create_index(keys, **options)
                        found["bare"].append(None)
                    except OperationFailure as error:
                        found["bare"].append(error.code)
                    try:
                        await shadow[name].create_index(keys, **options)
                        found["shadow"].append(None)
                    except OperationFailure as error:
                        found["shadow"].append(error.code)
        assert not shadow.admin.metrics_registry.totals()["failures"]["index"]
    drop(mongo_url, shadow.name)
    assert found["shadow"] == found["bare"]
    assert {85, 86, None} == set(found["bare"])


async def test_an_index_that_was_made_past_shadow_counts_with_all_its_options(shadow: Shadow, mongo_url: str) -> None:
    with pymongo.MongoClient(mongo_url) as client:
        bare = client[shadow.name]["users"]
        bare.create_index("gone", expireAfterSeconds=10**9)
        bare.create_index("part", partialFilterExpression={"part": {"$gt": 1}})
        for path, code in (("gone", 85), ("part", 86)):
            with pytest.raises(OperationFailure) as theirs:
                bare.create_index(path)
            with pytest.raises(OperationFailure) as ours:
                await shadow["users"].create_index(path)
            assert theirs.value.code == ours.value.code == code


async def test_of_many_indexes_none_is_made_if_one_is_in_another_s_way(shadow: Shadow, mongo_url: str) -> None:
    users = shadow["users"]
    await users.create_index("a", name="n")
    with pytest.raises(OperationFailure) as refused:
        await users.create_indexes([IndexModel("c"), IndexModel("b", name="n")])
    assert refused.value.code == 86
    with pymongo.MongoClient(mongo_url) as client:
        assert "c_1" not in client[shadow.name]["users"].index_information()


async def test_an_index_that_was_dropped_is_in_nobody_s_way(shadow: Shadow) -> None:
    users = shadow["users"]
    await users.create_index("a", name="n")
    await users.drop_index("n")
    assert await users.create_index("b", name="n") == "n"
