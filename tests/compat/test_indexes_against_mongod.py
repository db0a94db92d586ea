"""Every kind and option of an index that an application makes: as on a bare MongoDB while MongoDB is the primary, and
accepted or refused with its codes when it is not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from bson import Decimal128, Int64
from pymongo.collation import Collation
from pymongo.errors import OperationFailure
from pymongo.operations import IndexModel

from shadow import Shadow
from shadow.config import parse
from shadow.model.version import fresh_id
from tests.compat.amount import SEED
from tests.support.drawn import driver_of
from tests.support.topologies import admit, drop, root_url

pytestmark = pytest.mark.timeout(600)

KEYS: Final[list[Any]] = [
    *("a", [("a", 1)], [("a", -1)], {"a": 1, "b": -1}, ["a", ("b", -1)], [("a.b", 1), ("c", 1)], [("a", 5)]),
    *([("a", "text")], [("a", "text"), ("b", "text"), ("c", 1)], [("$**", "text")], [("a", "hashed")]),
    *([("a", "2dsphere")], [("a", "2d")], [("a", "2dsphere"), ("b", 1)], "$**", [("a.$**", 1)], "_id"),
    *([("$**", -1)], [("a.$**", -1)], [("$**", "hashed")]),
    *([("a", "hashed"), ("b", 1)], [("a", "nonsense")], [("a", 0)], "", [("a", "geoHaystack")], [("a", "hashed")] * 2),
]
OPTIONS: Final[list[dict[str, Any]]] = [
    *({}, {"name": "mine"}, {"unique": True}, {"sparse": True}, {"unique": True, "sparse": True}, {"hidden": True}),
    *(
        {"unique": False},
        {"sparse": False},
        {"unique": 0, "name": "_id_"},
        {"collation": {"locale": "simple"}, "name": "x"},
    ),
    *({"expireAfterSeconds": 3600}, {"expireAfterSeconds": 0}, {"expireAfterSeconds": Int64(5)}, {"hidden": False}),
    *({"expireAfterSeconds": 1.5}, {"expireAfterSeconds": Decimal128("7")}, {"expireAfterSeconds": -1}),
    *({"partialFilterExpression": {"a": {"$gt": 1}}}, {"partialFilterExpression": {"a": {"$ne": 1}}}),
    *({"unique": True, "partialFilterExpression": {"b": {"$exists": True}}}, {"background": True}),
    *({"collation": {"locale": "en", "strength": 2}}, {"collation": Collation("fr")}, {"collation": {"locale": "??"}}),
    *({"collation": {"locale": "simple"}}, {"unique": True, "collation": {"locale": "en", "strength": 1}}),
    *({"weights": {"a": 5}}, {"default_language": "german"}, {"language_override": "idioma"}, {"bits": 20}),
    *({"min": -10, "max": 10}, {"wildcardProjection": {"a": 1}}, {"comment": "why"}, {"nonsense": 1}, {"name": ""}),
    *({"storageEngine": {"wiredTiger": {}}}, {"sparse": True, "partialFilterExpression": {"a": 1}}, {"hidden": "x"}),
    *({"expireAfterSeconds": 60, "partialFilterExpression": {"a": {"$exists": True}}}, {"maxTimeMS": 5000}),
]


def cases(count: int) -> list[tuple[Any, dict[str, Any]]]:
    """Every kind and every option at least once, then combinations by the seed."""
    draw = random.Random(SEED)
    found = [(keys, {}) for keys in KEYS] + [(keys, options) for keys in ("a", "_id", "$**") for options in OPTIONS]
    return found + [(draw.choice(KEYS), draw.choice(OPTIONS)) for _ in range(count)]


def outcome(error: BaseException) -> Any:
    code = error.code if isinstance(error, OperationFailure) else None
    return type(error).__name__, code


async def seen(collection: Any, keys: Any, options: dict[str, Any]) -> list[Any]:
    """What `create_index` came to, and which indexes there are then, by each way of asking."""
    try:
        said: Any = await collection.create_index(keys, **options)
    except Exception as error:
        said = outcome(error)
    listed = collection.list_indexes()
    listed = await listed if not hasattr(listed, "to_list") else listed
    found = await listed.to_list(None)
    information = await collection.index_information()
    return [said, found, information, list(information)]


def made(mongo_url: str, dynamo_url: str, folder: Path, primary: str, phase: str) -> Any:
    name = fresh_id()
    admit(mongo_url, f"kinds_{name}")
    return parse(
        f"""
        mongo: {{url: "{mongo_url}", database: kinds_{name}, driver: {driver_of(mongo_url, "motor")}}}
        dynamo: {{endpoint_url: "{dynamo_url}", table_prefix: "{name}-", access_key_id: a, secret_access_key: b}}
        journal: {{url: "sqlite:///{folder}/shadow.db"}}
        defaults: {{primary: {primary}, phase: "{phase}"}}
        collections: {{things: {{}}}}
        """,
        {},
    )


@pytest.mark.takes_turns
@pytest.mark.drawn_over("phase", reason="two phases of one way, and the driver's own")
@pytest.mark.parametrize("phase", ["off", "dual_write", "shadow"])
async def test_while_mongodb_is_the_primary_indexes_are_those_of_a_bare_collection(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, phase: str
) -> None:
    settings = made(mongo_url, dynamodb_local_url, tmp_path, "mongo", phase)
    with pymongo.MongoClient(root_url(mongo_url)) as root:
        async with Shadow.from_settings(settings) as shadow:
            await shadow.prepare()
            bare = shadow.admin.driver()["bare"]
            root[shadow.name].create_collection("bare")
            for keys, options in cases(20):
                expected, answered = await seen(bare, keys, options), await seen(shadow["things"], keys, options)
                assert answered == expected, (keys, options)
                root[shadow.name]["bare"].drop_indexes()
                await shadow["things"].drop_indexes()
                if phase == "off":
                    await shadow.prepare()
            models = [IndexModel("a"), IndexModel([("b", "text")], name="words"), IndexModel("c", unique=True)]
            assert await shadow["things"].create_indexes(models) == await bare.create_indexes(models)
            for name in ("words", [("c", 1)], "none", [("a", 1)]):
                gone = []
                for collection in (bare, shadow["things"]):
                    try:
                        gone.append(await collection.drop_index(name))
                    except OperationFailure as error:
                        gone.append(outcome(error))
                assert gone[0] == gone[1], name
            assert not shadow.admin.metrics_registry.totals()["failures"]["index"]
            assert await shadow.settled(20)
    drop(mongo_url, settings.mongo.database)


@pytest.mark.drawn_over("phase", reason="one set of rules, with MongoDB at hand and without it")
@pytest.mark.parametrize("phase", ["off", "shadow"])
async def test_with_dynamodb_as_primary_indexes_are_listed_and_refused_as_by_a_bare_collection(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, phase: str
) -> None:
    """Except a unique index that DynamoDB cannot enforce; and what only a server can judge (a locale, a language) may
    be accepted. Each is asked for twice, as an application does that starts again, and its name with other keys."""
    settings = made(mongo_url, dynamodb_local_url, tmp_path, "dynamo", phase)
    judged = (2, 16801, 31303)
    with pymongo.MongoClient(root_url(mongo_url)) as root:
        async with Shadow.from_settings(settings) as shadow:
            await shadow.prepare()
            bare = shadow.admin.driver()["bare"]
            root[shadow.name].create_collection("bare")
            for keys, options in cases(20):
                expected, answered = await seen(bare, keys, options), await seen(shadow["things"], keys, options)
                unenforced = options.get("unique") and answered[0] == ("UnsupportedOperation", 115)
                only_judged = isinstance(expected[0], tuple) and expected[0][1] in judged and not refused(answered)
                if not (unenforced or only_judged):
                    if refused(answered) and refused(expected) and options and keys not in ("a", "_id"):
                        expected[0] = answered[0]  # several faults: which of them is named is difference 5
                    assert named(answered) == named(expected), (keys, options)
                    assert named(await seen(shadow["things"], keys, options)) == named(answered)
                    other = [("zz", -1)], {"name": "z" if refused(answered) else answered[0]}
                    assert named(await seen(shadow["things"], *other))[0] == named(await seen(bare, *other))[0]
                for collection in (bare, shadow["things"]):
                    await collection.drop_indexes()
                assert list(await shadow["things"].index_information()) == ["_id_"]
            for collection in (bare, shadow["things"]):
                await collection.create_index("a", name="n")
                await collection.create_index([("b", "text")], hidden=True)
            dropped = [await drops(collection) for collection in (bare, shadow["things"])]
            assert dropped[0] == dropped[1] == [None, None, *(("OperationFailure", code) for code in (27, 27, 72))]
            assert await shadow.settled(20)
    drop(mongo_url, settings.mongo.database)


def refused(found: list[Any]) -> bool:
    return isinstance(found[0], tuple)


async def drops(collection: Any) -> list[Any]:
    found = []
    for name in ("n", [("b", "text")], "n", [("_id", 1)], "_id_"):
        try:
            found.append(await collection.drop_index(name))
        except OperationFailure as error:
            found.append(outcome(error))
    return found


def named(found: list[Any]) -> list[Any]:
    """Without what differs between servers: the version of a collation's library."""
    name, entries, information, order = found
    for each in (*entries, *information.values()):
        each.get("collation", {}).pop("version", None)
    return [name, [dict(each) for each in entries], information, order]
