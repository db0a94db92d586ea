"""The same projection gives the same documents whichever store is primary, and those of a bare collection."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from bson import Decimal128
from motor.motor_asyncio import AsyncIOMotorClient

from shadow import Shadow
from shadow.model.phase import StoreName
from shadow.surface.collections.collection import Collection
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop

DOCUMENTS: Final[list[dict[str, Any]]] = [
    {"_id": 1, "a": [{"b": 1, "c": 2}, {"b": 2}, {"b": 3}], "n": {"x": 1, "y": 2}, "s": "one"},
    {"_id": "two", "a": [1, 2, 3, 4], "n": [{"x": 1}, {"y": 2}], "t": None},
    {"_id": {"k": 3, "l": 4}, "s": "three"},
]
PROJECTIONS: Final[list[dict[str, Any]]] = [
    {"a": {"$slice": 1}},
    {"a": {"$slice": -2}},
    {"a": {"$slice": [1, 2]}},
    {"a": {"$slice": 1}, "s": 1},
    {"a": {"$slice": 1}, "s": 0},
    {"a": {"$slice": 1}, "_id": 0},
    {"a": {"$slice": 1}, "_id": 1},
    {"a": {"$elemMatch": {"b": 2}}},
    {"a": {"$elemMatch": {"b": 2}}, "_id": 0},
    {"a": {"$elemMatch": {"b": 2}}, "s": 0},
    {"a": {"$elemMatch": {"b": 2}}, "n": {"$slice": 1}},
    {"n": {"x": 1}},
    {"n": {"x": 0}},
    {"n.x": 0, "_id": 0},
    {"_id": 0},
    {"_id": 1},
    {"_id": Decimal128("0"), "s": 1},
    {"_id": "$s", "a": 1},
    {"_id": {"$literal": 7}},
    {"_id.k": 1},
    {"_id.k": 0},
    {"upper": {"$toUpper": "$s"}},
    {"upper": {"$toUpper": "$s"}, "_id": 0},
    {"s": "literal text"},
    {"n": {"x": 0}, "a": {"$slice": 1}},
]


@pytest.fixture(params=list(StoreName))
async def shadow(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> AsyncIterator[Shadow]:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, name, ["things"], primary=request.param)
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        yield shadow
    drop(mongo_url, name)


async def test_a_projection_has_the_servers_answer(shadow: Shadow, mongo_url: str, mongo_database: str) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongo_url)
    bare, things = client[mongo_database]["things"], shadow["things"]
    for side in (bare, things):
        await side.insert_many([dict(each) for each in DOCUMENTS])
    different = []
    for projection in PROJECTIONS:
        theirs, ours = [await _shown(side, projection) for side in (bare, things)]
        if ours != theirs or [list(each) for each in ours] != [list(each) for each in theirs]:
            different.append(f"{projection}: {ours} instead of {theirs}")
    client.close()
    assert not different, "\n".join(different)
    await assert_level(shadow)


async def test_the_positional_projection_shows_the_element_that_matched(shadow: Shadow) -> None:
    """On both sides, in reads and in what a write returns; the version that MongoDB stores beside does not disturb."""
    things: Collection = shadow["things"]
    await things.insert_one({"_id": 1, "a": [4, 5, 6], "o": [{"x": 1, "y": "p"}, {"x": 2, "y": "q"}], "z": 0})
    for filter, projection, shown in (
        ({"a": 5}, {"a.$": 1}, {"_id": 1, "a": [5]}),
        ({"_id": 1, "a": {"$gt": 5}}, {"a.$": 1, "_id": 0}, {"a": [6]}),
        ({"o.x": 2}, {"o.y.$": 1, "z": 1}, {"_id": 1, "o": [{"y": "q"}], "z": 0}),
        ({"o": {"$elemMatch": {"y": "p"}}}, {"o.$": 1}, {"_id": 1, "o": [{"x": 1, "y": "p"}]}),
    ):
        assert await things.find(filter, projection).to_list(None) == [shown]
        assert await things.find_one(filter, projection) == shown
        assert await things.find_one_and_update(filter, {"$set": {"w": 1}}, projection) == shown
    await assert_level(shadow)


async def _shown(collection: Any, projection: dict[str, Any]) -> list[dict[str, Any]]:
    """As `find`, `find_one` and the projection of `find_one_and_update` show it."""
    found: list[dict[str, Any]] = await collection.find({}, projection).sort("s", 1).to_list(None)
    for key in (each["_id"] for each in DOCUMENTS):
        found.append(await collection.find_one({"_id": key}, projection))
        found.append(await collection.find_one_and_update({"_id": key}, {"$set": {"z": 1}}, projection))
        await collection.update_one({"_id": key}, {"$unset": {"z": 1}})
    return found


async def test_the_sort_of_a_write_of_one_document_chooses_it(shadow: Shadow) -> None:
    things: Collection = shadow["things"]
    await things.insert_many([{"_id": n, "a": n % 3} for n in range(6)])
    await things.update_one({"a": {"$gte": 1}}, {"$set": {"hit": 1}}, sort={"a": -1, "_id": -1})
    await things.replace_one({"a": {"$gte": 0}}, {"hit": 2}, sort={"a": 1, "_id": -1})
    assert await things.find({"hit": {"$exists": True}}, sort=[("_id", 1)]).to_list(None) == [
        {"_id": 3, "hit": 2},
        {"_id": 5, "a": 2, "hit": 1},
    ]
    await assert_level(shadow)


async def test_a_query_that_scans_is_in_the_status_with_the_index_that_would_serve_it(shadow: Shadow) -> None:
    things: Collection = shadow["things"]
    await things.insert_many([{"_id": n, "a": n % 3} for n in range(6)])
    assert await shadow.settled(20)
    for value in (0, 1):
        await things.find({"a": value}).to_list(None)
    assert await shadow.settled(20)
    (line,) = [each for each in (await shadow.admin.status())["indexes"] if each["shape"] == "{a: $eq}"]
    assert (line["collection"], line["times"], line["suggested_index"]) == ("things", 2, "hash a")
    assert line["items_read"] == 12
    assert line["items_returned"] == 4
    assert "scans" not in (await shadow.admin.status())["stores"]["dynamo"]
    table = f'{{table="{shadow.admin.settings.dynamo.table_prefix}things"}}'
    text = shadow.admin.metrics()[0].decode()
    assert f"shadow_dynamo_scan_items_read_total{table} 12.0" in text
    assert f"shadow_dynamo_scan_items_returned_total{table} 4.0" in text


async def test_an_upsert_with_expr_is_refused_though_a_document_matches(shadow: Shadow) -> None:
    things: Collection = shadow["things"]
    await things.insert_one({"_id": 1})
    for call in (things.update_one, things.update_many):
        with pytest.raises(pymongo.errors.WriteError) as refused:
            await call({"_id": 1, "$expr": True}, {"$set": {"a": 1}}, upsert=True)
        assert refused.value.code == 224
    with pytest.raises(pymongo.errors.OperationFailure) as command:
        await things.find_one_and_replace({"_id": 1, "$expr": True}, {"a": 1}, upsert=True)
    assert (type(command.value), command.value.code) == (pymongo.errors.OperationFailure, 224)
    assert await things.find_one() == {"_id": 1}
