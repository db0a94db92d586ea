"""`with_options` on both primaries: the same collection, and writes with a concern of their own. For options of reads
see `test_read_options`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bson.codec_options import CodecOptions
from pymongo import InsertOne, ReadPreference, UpdateOne, WriteConcern
from pymongo.errors import ConfigurationError, InvalidOperation
from pymongo.read_concern import ReadConcern

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from tests.support.shims import assert_level, prepared, settings_for


@pytest.mark.plain_options(reason="what it asks for is measured by what a client keeps that was told nothing")
@pytest.mark.parametrize("primary", list(StoreName))
async def test_a_collection_with_options_is_the_same_collection(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path, primary: StoreName
) -> None:
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, mongo_database, ["things"], primary=primary)
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow.get_collection(
            "things",
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern(w=1),
            read_concern=ReadConcern("local"),
        )
        assert things == shadow["things"]
        assert (things.read_concern.level, things.write_concern.document) == ("local", {"w": 1})
        assert things.read_preference == ReadPreference.PRIMARY
        assert things.codec_options.tz_aware
        assert (await things.insert_one({"_id": 1})).acknowledged
        again = things.with_options(write_concern=WriteConcern())
        assert again.read_concern.level == "local"
        assert again.codec_options.tz_aware
        assert await again.find_one({"_id": 1}) == {"_id": 1}
        with pytest.raises(UnsupportedOperation, match="write_concern"):
            things.with_options(write_concern=WriteConcern(w=2, wtimeout=7))
        with pytest.raises(TypeError):
            things.with_options(session=1)  # type: ignore[call-arg]
        await assert_level(shadow)


def test_without_a_word_the_options_are_the_clients(tmp_path: Path) -> None:
    url = "mongodb://127.0.0.1:1/?w=majority&readConcernLevel=majority"
    shadow = Shadow.from_settings(settings_for(tmp_path, url, "http://127.0.0.1:1", "n", ["things"]))
    assert shadow["things"].write_concern == WriteConcern(w="majority")
    asked = shadow["things"].with_options(read_concern=ReadConcern("majority"))
    assert asked.read_concern == ReadConcern("majority")


CALLS: Final[dict[str, Callable[[Any], Any]]] = {
    "insert_one": lambda c: c.insert_one({"_id": 1}),
    "insert_one of a key that is there": lambda c: c.insert_one({"_id": 1}),
    "insert_one by its name": lambda c: c.insert_one(document={"_id": "named"}),
    "insert_many": lambda c: c.insert_many([{"_id": 2}, {"_id": 3}]),
    "insert_many of keys that are there": lambda c: c.insert_many(iter([{"_id": 4}, {"_id": 3}, {"_id": 5}])),
    "insert_many by its name": lambda c: c.insert_many(documents=({"_id": 6 + n} for n in range(2)), ordered=False),
    "insert_many of nothing": lambda c: c.insert_many([]),
    "insert_many of no documents": lambda c: c.insert_many(3),
    "update_one": lambda c: c.update_one({"_id": 2}, {"$set": {"n": 1}}),
    "update_one that is refused": lambda c: c.update_one({"_id": 2}, {"$inc": {"n.m": 1}}),
    "update_one that no driver sends": lambda c: c.update_one({"_id": 2}, {"n": 1}),
    "update_many": lambda c: c.update_many({"_id": {"$lt": 3}}, {"$set": {"m": 1}}),
    "an upsert": lambda c: c.update_one({"_id": 9}, {"$set": {"n": 1}}, upsert=True),
    "replace_one": lambda c: c.replace_one({"_id": 3}, {"r": 1}),
    "delete_one": lambda c: c.delete_one({"_id": 5}),
    "delete_many": lambda c: c.delete_many({"r": 1}),
    "bulk_write": lambda c: c.bulk_write([InsertOne({"_id": 20}), UpdateOne({"_id": 20}, {"$inc": {"n": 1}})]),
    "bulk_write that is refused": lambda c: c.bulk_write([InsertOne({"_id": 21}), InsertOne({"_id": 20})]),
    "find_one_and_update": lambda c: c.find_one_and_update({"_id": 20}, {"$inc": {"n": 1}}),
}  # fmt: skip


async def _heard(call: Callable[[Any], Any], target: Any) -> Any:
    try:
        answer = await call(target)
    except Exception as error:
        return type(error)
    if not hasattr(answer, "acknowledged"):
        return answer
    seen: dict[str, Any] = {"type": type(answer), "acknowledged": answer.acknowledged}
    for name in ("inserted_id", "inserted_ids", "matched_count", "upserted_id", "deleted_count", "inserted_count"):
        if hasattr(type(answer), name):
            try:
                seen[name] = getattr(answer, name)
            except InvalidOperation as error:
                seen[name] = str(error)
    return seen


@pytest.mark.plain_options(reason="a session with other options is another test")
@pytest.mark.parametrize("primary", list(StoreName))
async def test_a_write_that_wants_no_answer_hears_what_the_driver_says(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    """`w=0`: the caller hears nothing of counts and refusals, and what was written is on both stores."""
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], primary=primary) as shadow:
        silent = WriteConcern(w=0)
        bare = shadow._engine.driver()["bare"]
        asked, alone = shadow["things"].with_options(write_concern=silent), bare.with_options(write_concern=silent)
        for name, call in CALLS.items():
            expected = await _heard(call, alone)
            await bare.find_one({})
            assert await _heard(call, asked) == expected, name
            async with asyncio.timeout(20):
                # The bare driver's write may still be under way.
                found = await shadow["things"].find({}).sort("_id").to_list(None)
                while await bare.find({}).sort("_id").to_list(None) != found:  # noqa: ASYNC110 - it wakes nobody
                    await asyncio.sleep(0.02)
        session = shadow.client.start_session()
        async with await session if inspect.isawaitable(session) else session as session:
            for target in (asked, alone):
                with pytest.raises(ConfigurationError, match="Explicit sessions are incompatible"):
                    await target.insert_one({"_id": "never"}, session=session)
        await assert_level(shadow)
