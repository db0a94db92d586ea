"""While writes go to both stores, a document that one of them can never hold is refused before either is asked.

What a bare MongoDB says to the same call is what the application must hear, whichever store is primary.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError, WriteError

from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import drop, root_url

Call = Callable[[Any], Awaitable[Any]]
MEGABYTE: Final = 1024 * 1024


def deep(levels: int) -> Any:
    """A value that makes its document `levels` deep."""
    value: Any = 1
    for _ in range(levels - 1):
        value = {"a": value}
    return value


CASES: Final[dict[str, Call]] = {
    "insert, deep": lambda c: c.insert_one({"_id": "new", "v": deep(181)}),
    "insert, deep in lists": lambda c: c.insert_one({"_id": "new", "v": [[deep(179)]]}),
    "insert, deep enough for the wire": lambda c: c.insert_one({"_id": "new", "v": deep(220)}),
    "insert, as deep as can be": lambda c: c.insert_one({"_id": "new", "v": deep(180)}),
    "insert_many, one deep": lambda c: c.insert_many([{"_id": 1}, {"_id": 2, "v": deep(190)}, {"_id": 3}]),
    "insert_many unordered, two deep": lambda c: c.insert_many(
        [{"_id": 1, "v": deep(190)}, {"_id": 2}, {"_id": 3, "v": deep(190)}, {"_id": "here"}, {"_id": 4}], ordered=False
    ),
    "insert_many, one deep for the wire": lambda c: c.insert_many([{"_id": 1}, {"_id": 2, "v": deep(220)}]),
    "insert_many, a duplicate before it": lambda c: c.insert_many([{"_id": "here"}, {"_id": 2, "v": deep(190)}]),
    "replace, deep": lambda c: c.replace_one({"_id": "here"}, {"v": deep(181)}),
    "replace by upsert, deep": lambda c: c.replace_one({"_id": "new"}, {"v": deep(181)}, upsert=True),
    "set, deep": lambda c: c.update_one({"_id": "here"}, {"$set": {"v": deep(181)}}),
    "set, far down": lambda c: c.update_one({"_id": "deep"}, {"$set": {"v" + ".a" * 100: deep(100)}}),
    "push, far down": lambda c: c.update_one({"_id": "list"}, {"$push": {"l": deep(180)}}),
    "update_many, deep": lambda c: c.update_many({}, {"$set": {"v": deep(190)}}),
    "find_one_and_update, deep": lambda c: c.find_one_and_update({"_id": "here"}, {"$set": {"v": deep(181)}}),
    "find_one_and_replace, deep": lambda c: c.find_one_and_replace({"_id": "here"}, {"v": deep(190)}),
    "bulk, deep": lambda c: c.bulk_write(
        [pymongo.InsertOne({"_id": 1}), pymongo.UpdateOne({"_id": "here"}, {"$set": {"v": deep(190)}})]
    ),
    "bulk, an insert": lambda c: c.bulk_write([pymongo.InsertOne({"_id": 1, "v": deep(190)})]),
    "replace, $ not first": lambda c: c.replace_one({"_id": "here"}, {"a": 1, "$d": 2}),
    "replace, a reference that is none": lambda c: c.replace_one({"_id": "here"}, {"a": 1, "$id": 2}),
    "replace by upsert, $ not first": lambda c: c.replace_one({"_id": "new"}, {"a": 1, "$d": 2}, upsert=True),
    "find_one_and_replace, $": lambda c: c.find_one_and_replace({"_id": "here"}, {"a": 1, "$d": 2}),
    "bulk, $": lambda c: c.bulk_write([pymongo.ReplaceOne({"_id": "here"}, {"a": 1, "$d": 2})]),
    "replace, $ below": lambda c: c.replace_one({"_id": "here"}, {"a": {"$d": 1}, "b.c": {"": {"$x": [{"$y": 1}]}}}),
    "insert, $": lambda c: c.insert_one({"_id": "new", "$d": 1, "a.b": {"$e": 1, "": 2}}),
    "set, $": lambda c: c.update_one({"_id": "here"}, {"$set": {"$d": 1}}),
    "set, no name": lambda c: c.update_one({"_id": "here"}, {"$set": {"": 1}}),
    "set beside $": lambda c: c.update_one({"_id": "dollar"}, {"$set": {"x": 1}}),
    "replace in a document with $": lambda c: c.replace_one({"_id": "dollar"}, {"x": 1}),
    "insert, large": lambda c: c.insert_one({"_id": "new", "v": b"x" * (16 * MEGABYTE)}),
    "insert, larger": lambda c: c.insert_one({"_id": "new", "v": b"x" * (20 * MEGABYTE)}),
    "replace, large": lambda c: c.replace_one({"_id": "here"}, {"v": b"x" * (16 * MEGABYTE)}),
    "replace, larger": lambda c: c.replace_one({"_id": "here"}, {"v": b"x" * (20 * MEGABYTE)}),
    "an update that grows it": lambda c: c.update_one({"_id": "large"}, {"$set": {"w": b"x" * (8 * MEGABYTE)}}),
    "an update that makes it large": lambda c: c.update_one({"_id": "large"}, {"$set": {"w": b"x" * (7 * MEGABYTE)}}),
    "find_one_and_update, grown": lambda c: c.find_one_and_update(
        {"_id": "large"}, [{"$set": {"w": "$v"}}], projection={"_id": 1}
    ),
}
BEFORE: Final[list[dict[str, Any]]] = [
    {"_id": "here", "n": 1},
    {"_id": "deep", "v": deep(120)},
    {"_id": "list", "l": []},
    {"_id": "dollar", "$d": 1},
    {"_id": "large", "v": b"x" * (9 * MEGABYTE)},
]
LEAST: Final = {name for name in CASES if "larg" not in name and "grow" not in name}


async def heard(call: Call, collection: Any) -> tuple[str, Any, Any]:
    """The class of the error and its code, and of a bulk those of each entry."""
    try:
        await call(collection)
    except BulkWriteError as error:
        details = error.details
        entries = [(each["index"], each["code"]) for each in details["writeErrors"]]
        return "BulkWriteError", details["nInserted"], entries
    except Exception as error:
        return type(error).__name__, getattr(error, "code", None), None
    return "", None, None


@pytest.fixture
async def bare(mongo_url: str, fresh_name: str) -> AsyncIterator[Any]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(root_url(mongo_url))
    yield client[f"bare{fresh_name}"][COLLECTION]
    await client.close()
    drop(mongo_url, f"bare{fresh_name}")


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    return Site(
        mongo_url,
        mongo_database,
        dynamodb_local_url,
        f"{fresh_name}-",
        str(tmp_path / "shadow.db"),
        limits={"operation": 100.0, "write_deadline": 30.0},
        patience=20.0,
    )


@pytest.mark.drawn_over("primary", reason="what either store cannot hold is refused whichever of them answers")
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
@pytest.mark.parametrize("case", CASES)
async def test_what_one_store_cannot_hold_is_refused_as_mongodb_refuses_it(
    site: Site, bare: Any, primary: str, case: str
) -> None:
    """And what it takes, both take; the journal is empty afterwards."""
    documents = BEFORE if case not in LEAST else BEFORE[:-1]
    await bare.insert_many([dict(each) for each in documents])
    async with site.but(primary=primary).shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([dict(each) for each in documents])
        expected = await heard(CASES[case], bare)
        assert await heard(CASES[case], things) == expected
        await site.level(shadow)
        there = {each["_id"]: each async for each in bare.find()}
        assert {each["_id"]: each async for each in things.find()} == there


async def test_where_one_store_is_written_the_other_one_has_no_say(site: Site) -> None:
    async with site.but(primary="dynamo", phase="off").shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": 1, "v": deep(190)})
        await things.insert_many([{"_id": 2, "v": deep(300)}])
        await things.replace_one({"_id": 1}, {"a": 1, "v": deep(190)})
        await things.update_one({"_id": 2}, {"$set": {"n": 1}})
        assert await things.find_one({"_id": 1}) == {"_id": 1, "a": 1, "v": deep(190)}
        assert (await things.find_one({"_id": 2}))["n"] == 1


@pytest.mark.takes_turns
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_a_document_of_just_under_16_megabytes_leaves_room_for_its_version(site: Site, primary: str) -> None:
    """It is taken by both stores or refused by both; changes count in the version, and still fit."""
    async with site.but(primary=primary).shadow() as shadow:
        await shadow.prepare()
        things, taken = shadow[COLLECTION], 0
        for spare in (1000, 400, 300, 200, 150, 100, 60, 20, 0):
            document = {"_id": spare, "n": 0, "v": b""}
            document["v"] = b"x" * (16 * MEGABYTE - spare - 40)
            if (refused := await heard(lambda c, d=document: c.insert_one(d), things))[0]:
                assert refused == ("WriteError", 2, None)
                continue
            taken += 1
            await things.update_one({"_id": spare}, {"$inc": {"n": 1}})
        assert 2 <= taken < 9
        await site.level(shadow)


BARELY: Final[dict[str, Callable[[Any, bytes], Awaitable[Any]]]] = {
    "insert_one": lambda c, v: c.insert_one({"_id": "new", "v": v}),
    "insert_many": lambda c, v: c.insert_many([{"_id": "a"}, {"_id": "new", "v": v}, {"_id": "b"}], ordered=False),
    "replace_one": lambda c, v: c.replace_one({"_id": "here"}, {"v": v}),
    "upsert": lambda c, v: c.replace_one({"_id": "new"}, {"v": v}, upsert=True),
    "update_one": lambda c, v: c.update_one({"_id": "large"}, {"$set": {"w": v[len(LARGE) + 14 :]}}),
    "update_many": lambda c, v: c.update_many({"_id": "large"}, {"$set": {"w": v[len(LARGE) + 14 :]}}),
    "find_one_and_update": lambda c, v: c.find_one_and_update({"_id": "large"}, {"$set": {"w": v[len(LARGE) + 14 :]}}),
    "find_one_and_replace": lambda c, v: c.find_one_and_replace({"_id": "here"}, {"v": v}),
    "bulk_write": lambda c, v: c.bulk_write(
        [pymongo.InsertOne({"_id": "a"}), pymongo.ReplaceOne({"_id": "here"}, {"v": v})]
    ),
}
LARGE: Final = b"x" * (9 * MEGABYTE)
TOO_LARGE: Final = {2, 10334, 17419}


@pytest.mark.takes_turns
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_the_last_bytes_of_16_megabytes_are_refused_by_every_verb_or_written_on_both(
    site: Site, primary: str
) -> None:
    """A bare MongoDB takes these documents, which leave too few bytes for a version: each is refused with an error and
    a code of documents that are too large, and nothing of it is written, never in silence."""
    async with site.but(primary=primary).shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        for verb, call in BARELY.items():
            await things.delete_many({})
            await things.insert_many([{"_id": "here", "n": 1}, {"_id": "large", "v": LARGE}])
            kind, code, entries = await heard(lambda c, call=call: call(c, b"x" * (16 * MEGABYTE - 40)), things)
            assert kind in ("WriteError", "OperationFailure", "BulkWriteError"), verb
            assert (kind == "OperationFailure") == verb.startswith("find_one_and"), verb
            if kind == "BulkWriteError":
                assert [each[1] in TOO_LARGE for each in entries] == [True], (verb, entries)
                assert code == (2 if verb == "insert_many" else 1)
            else:
                assert code in TOO_LARGE, (verb, code)
            left = {each["_id"]: len(each) async for each in things.find()}
            assert {name: left[name] for name in ("here", "large")} == {"here": 2, "large": 2}, verb
            assert set(left) <= {"here", "large", "a", "b"}, verb
        await site.level(shadow)


async def test_more_unique_values_than_one_transaction_can_write_are_refused_on_mongodb_too(site: Site) -> None:
    site = site.but(options={"unique": ["tags"]})
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": 1, "tags": [f"a{n}" for n in range(99)]})
        for call in (
            things.insert_one({"_id": 2, "tags": [f"b{n}" for n in range(100)]}),
            things.replace_one({"_id": 1}, {"tags": [f"b{n}" for n in range(100)]}),
        ):
            with pytest.raises(WriteError) as caught:
                await call
            assert caught.value.code == 2
        await site.level(shadow)
        assert await things.count_documents({}) == 1


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_what_a_key_attribute_cannot_hold_is_held_all_the_same(site: Site, primary: str) -> None:
    """Neither refused nor lost: long keys, long and odd values of indexed fields, and both in a large document."""
    options = {"indexes": ({"name": "by_owner", "hash": "owner", "range": "at"},), "unique": ["mail"]}
    site = site.but(primary=primary, options=options)
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        odd: list[Any] = ["x" * 3000, "", None, [1, 2], {"a": 1}, 1.5, b"\x00", "ü" * 1500, True]
        for number, value in enumerate(odd):
            key = f"{number}{'k' * 2048}"
            await things.insert_one({"_id": key, "owner": value, "at": value, "mail": [value, number]})
        await things.update_one({"_id": "0" + "k" * 2048}, {"$set": {"body": "y" * 500_000, "mail": "z" * 5000}})
        await site.level(shadow)
        assert (await things.find_one({"owner": "x" * 3000}))["at"] == "x" * 3000
