"""Hints of every form, in every verb: as on a bare collection with the same indexes, whoever is primary."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from bson import Int64
from pymongo.errors import BulkWriteError, OperationFailure

from shadow import Shadow, UnsupportedOperation
from shadow.model.phase import StoreName
from tests.compat.amount import SEED
from tests.compat.test_indexes_against_mongod import made
from tests.support.topologies import drop

INDEXES: Final[list[tuple[Any, dict[str, Any]]]] = [
    *(("a", {}), ([("a", -1), ("b", 1)], {"name": "ab"}), ([("a", "hashed")], {}), ("t", {"expireAfterSeconds": 99})),
    *(("c", {}), ("c", {"name": "c_de", "collation": {"locale": "de"}}), ("n", {"unique": True})),
    *(("h", {"hidden": True}), ("s", {"sparse": True})),
    *(("p", {"partialFilterExpression": {"a": {"$gt": 2}}}), ([("x", "text")], {})),
    *(([("l", "2dsphere")], {}), ([("l", "2d")], {"name": "flat"})),
]
NAMES: Final = [
    *("_id_", "a_1", "ab", "a_hashed", "t_1", "c_1", "c_de", "n_1", "h_1", "nothing", "a", "", "$natural"),
    *({"_id": 1}, {"a": 1}, [("a", 1)], ["a"], [("a", -1)], {"a": -1, "b": 1}, [("b", 1), ("a", -1)], {"a": Int64(1)}),
    *({"c": 1}, {"h": 1}, {"a": True}, {"a": 1.0}, {"a": 2}, {"a": "hashed"}, {"_id": -1}, ["a", "b"], [("a", 1), 5]),
    *({}, [], 5, True, b"x", [("a",)], {"a": None}, {"$natural": 1, "a": 1}, ("a", 1), {5: 1}),
]
PARTLY: Final = ["s_1", {"s": 1}, "p_1", "x_text", {"_fts": "text", "_ftsx": 1}, "l_2dsphere", "flat", {"l": "2d"}]
"""Hints of indexes without every document."""

SET: Final = {"$set": {"z": 1}}
FOUND: Final = {"b": {"$exists": True}}
NOBODY: Final = {"_id": "nobody"}
VERBS: Final[dict[str, Callable[[Any, Any], Awaitable[Any]]]] = {
    "find": lambda c, hint: c.find(FOUND, {"_id": 1}, hint=hint).to_list(None),
    "cursor": lambda c, hint: c.find({}, {"_id": 1}).hint(hint).to_list(None),
    "find_one": lambda c, hint: c.find_one({"_id": 2}, hint=hint),
    "aggregate": lambda c, hint: listed(c.aggregate([{"$match": FOUND}], hint=hint)),
    "count": lambda c, hint: c.count_documents(FOUND, hint=hint),
    "estimated": lambda c, hint: c.estimated_document_count(hint=hint),
    "update_one": lambda c, hint: c.update_one({"_id": 1}, SET, hint=hint),
    "update_many": lambda c, hint: c.update_many(FOUND, SET, hint=hint),
    "upsert": lambda c, hint: upserted(c, hint),
    "replace_one": lambda c, hint: c.replace_one(NOBODY, {}, hint=hint),
    "delete_one": lambda c, hint: c.delete_one(NOBODY, hint=hint),
    "delete_many": lambda c, hint: c.delete_many(NOBODY, hint=hint),
    "find_one_and_update": lambda c, hint: c.find_one_and_update({"_id": 1}, SET, {"a": 1}, hint=hint),
    "find_one_and_replace": lambda c, hint: c.find_one_and_replace(NOBODY, {}, hint=hint),
    "find_one_and_delete": lambda c, hint: c.find_one_and_delete(NOBODY, hint=hint),
    "bulk_write": lambda c, hint: bulk(c, hint),
}


async def listed(made: Any) -> list[Any]:
    cursor = await made if inspect.isawaitable(made) else made
    return list(await cursor.to_list(None))


async def upserted(collection: Any, hint: Any) -> Any:
    made = await collection.update_one({"_id": 9}, SET, upsert=True, hint=hint)
    await collection.delete_one({"_id": 9})
    return made.upserted_id


async def bulk(collection: Any, hint: Any) -> Any:
    """The one before is made, the one after is not."""
    first, last = pymongo.UpdateOne({"_id": 1}, SET), pymongo.UpdateOne({"_id": 2}, SET)
    try:
        return await collection.bulk_write([first, pymongo.DeleteOne(NOBODY, hint=hint), last])
    except BulkWriteError as error:
        details = error.details
        return details["nMatched"], [(each["index"], each["code"]) for each in details["writeErrors"]]


async def outcome(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call answers, or the class and code of what it raises."""
    try:
        answer = await call()
    except Exception as error:
        kind = UnsupportedOperation if isinstance(error, UnsupportedOperation) else type(error)
        return kind.__name__, error.code if isinstance(error, OperationFailure) else None
    for name in ("matched_count", "deleted_count"):
        if hasattr(answer, name):
            return getattr(answer, name)
    return sorted(map(str, answer)) if isinstance(answer, list) else answer


@pytest.mark.takes_turns
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_a_hint_is_answered_as_on_a_bare_collection(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, primary: str
) -> None:
    settings = made(mongo_url, dynamodb_local_url, tmp_path, primary, "shadow")
    documents = [
        {"_id": each, "a": each, "b": str(each), "c": each, "n": each, **({"s": 1, "p": 1} if each % 2 else {})}
        for each in range(6)
    ]
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things, bare = shadow["things"], shadow.admin.driver()["bare"]
        for collection in (things, bare):
            await collection.insert_many([dict(each) for each in documents])
            for keys, options in INDEXES:
                await collection.create_index(keys, **options)
        draw = random.Random(SEED)
        for hint in [*draw.sample(NAMES, 20), *draw.sample(PARTLY, 3), "nothing", "h_1", {"$natural": 1}]:
            refused = primary == "dynamo" and (hint in PARTLY or hint == {"$natural": 1})
            for verb, call in VERBS.items():
                expected = await outcome(functools.partial(call, bare, hint))
                answered = await outcome(functools.partial(call, things, hint))
                if refused and not (isinstance(expected, tuple) and expected[0] == "OperationFailure"):
                    expected = "UnsupportedOperation", 115
                assert answered == expected, (hint, verb)
        assert await shadow.settled(60)
        assert shadow.admin.findings.groups() == []
    drop(mongo_url, settings.mongo.database)


async def test_an_index_of_another_process_is_known_to_a_hint_at_once(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    """Nobody has to look first, and one that was dropped by another is an error once this process has looked."""
    settings = made(mongo_url, dynamodb_local_url, tmp_path, "dynamo", "off")
    async with Shadow.from_settings(settings) as one, Shadow.from_settings(settings) as other:
        await one.prepare()
        await one["things"].insert_one({"_id": 1})
        with pytest.raises(UnsupportedOperation, match="hint"):  # nobody knows yet what there is
            await one["things"].count_documents({}, hint="a_1")
        assert await one["things"].create_index("a") == "a_1"
        assert await other["things"].count_documents({}, hint="a_1") == 1
        assert await other["things"].find({}, hint=[("a", 1)]).to_list(None) == [{"_id": 1}]
        await one["things"].drop_index("a_1")
        with pytest.raises(OperationFailure) as raised:
            await one["things"].update_one({}, SET, hint="a_1")
        assert raised.value.code == 2
        assert await other["things"].index_information() == await one["things"].index_information()
        with pytest.raises(OperationFailure):
            await other["things"].find_one(hint="a_1")
        assert one.admin.routes()["things"].primary is StoreName.DYNAMO
    drop(mongo_url, settings.mongo.database)
