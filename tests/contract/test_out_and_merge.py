"""`$out` and `$merge` do what the bare driver's do, in each phase and with either primary: the same documents in the
target, byte for byte, and the same errors. Into a configured collection the writes are replicated like all others."""

from __future__ import annotations

import datetime as dt
import inspect
from pathlib import Path
from typing import Any, Final

import bson
import pymongo
import pytest
from bson import Int64, ObjectId
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.phase import Phase, StoreName
from tests.support.shims import assert_level, prepared
from tests.support.topologies import admit, root_url

SOURCE: Final[list[dict[str, Any]]] = [
    {"_id": 1, "z": 1, "b": 2, "aa": 3},
    {"_id": 2, "z": Int64(5), "in": {"x": [1, {"y": None}]}},
    {"_id": 3, "z": 7, "text": "é"},
]
TARGET: Final[list[dict[str, Any]]] = [{"_id": 1, "m": 0, "z": 9, "q": 1}, {"_id": 9, "z": 7, "old": True}]
UNIQUE: Final = "unique"
"""In place of a pipeline's first stage: the target has a unique index on `z`."""

Case = list[Any]


def merge(**options: Any) -> dict[str, Any]:
    return {"$merge": {"into": "target", **options}}


def _modes() -> list[Case]:
    pipelines = ["replace", "keepExisting", "merge", "fail", [{"$set": {"n": "$$new.z", "o": "$m"}}], []]
    return [
        [merge(whenMatched=matched, whenNotMatched=unmatched)]
        for matched in pipelines
        for unmatched in ("insert", "discard", "fail")
    ]


CASES: Final[list[Case]] = [
    [{"$out": "target"}],
    [{"$match": {"z": {"$gt": 1}}}, {"$set": {"s": {"$add": ["$z", 1]}}}, {"$out": "target"}],
    [{"$match": {"no": 1}}, {"$out": "target"}],
    [{"$set": {"_id": 1}}, {"$out": "target"}],
    [{"$set": {"_id": [1]}}, {"$limit": 1}, {"$out": "target"}],
    [UNIQUE, {"$out": "target"}],
    [UNIQUE, {"$set": {"z": 1}}, {"$match": {"_id": 1}}, {"$out": "target"}],
    [{"$out": {"coll": "target"}}], [{"$out": 5}], [{"$out": ""}],
    [{"$merge": "target"}],
    *_modes(),
    [merge(whenMatched=[{"$set": {"n": "$$x", "k": {"$add": ["$$x", "$q"]}}}], let={"x": "$b"})],
    [merge(whenMatched=[{"$set": {"n": "$$x"}}], let={"x": "$nowhere"})],
    [merge(whenMatched=[{"$replaceWith": {"$mergeObjects": ["$$new", {"q": "$q"}]}}])],
    [merge(whenMatched=[{"$set": {"_id": 5}}])], [merge(whenMatched=[{"$match": {}}])],
    [merge(on="z")], [UNIQUE, merge(on="z")], [UNIQUE, merge(on="z", whenMatched="replace")],
    [UNIQUE, {"$match": {"_id": 3}}, {"$unset": "_id"}, merge(on="z")],
    [UNIQUE, {"$match": {"_id": 3}}, {"$unset": "_id"}, merge(on="z", whenMatched="replace")],
    [UNIQUE, {"$match": {"_id": 3}}, {"$unset": "_id"}, merge(on=["z"], whenMatched=[{"$set": {"hit": "$$new.text"}}])],
    [UNIQUE, {"$unset": "z"}, merge(on="z")], [UNIQUE, {"$set": {"z": [1]}}, merge(on="z")],
    [{"$set": {"_id": None}}, {"$limit": 1}, merge()],
    *([{"$merge": bad}] for bad in (
        5, {}, {"into": 5}, {"into": ""}, {"into": "target", "foo": 1}, {"into": "target", "on": []},
        {"into": "target", "on": 5}, {"into": "target", "on": ["a", "a"]}, {"into": "target", "on": ""},
        {"into": "target", "whenMatched": "foo"}, {"into": "target", "whenMatched": 5},
        {"into": "target", "whenNotMatched": "foo"}, {"into": {"coll": "target", "foo": 1}}, {"into": {}},
        {"into": "target", "let": {"x": 1}}, {"into": "target", "whenMatched": [], "let": {"new": "$a"}},
        {"into": "target", "whenMatched": [], "let": 5},
    )),
]  # fmt: skip


async def _put(db: Any, pipeline: Case) -> Any:
    """The code of the error, or what the cursor gives."""
    try:
        made = db["source"].aggregate(pipeline)
        made = await made if inspect.isawaitable(made) else made
        return await made.to_list(None)
    except OperationFailure as error:
        # With what is refused by name, which the server never does.
        kinds = UnsupportedOperation, pymongo.errors.DuplicateKeyError
        return error.code, *(isinstance(error, kind) for kind in kinds)


async def _refilled(db: Any) -> None:
    await db["target"].delete_many({})
    await db["target"].insert_many([dict(each) for each in TARGET])


async def _kept(db: Any) -> list[bytes]:
    return [bson.encode(each) for each in await db["target"].find().sort("_id").to_list(None)]


@pytest.mark.parametrize(
    ("primary", "phase"),
    [(StoreName.MONGO, Phase.OFF), (StoreName.MONGO, Phase.SHADOW), (StoreName.DYNAMO, Phase.SHADOW)],
    ids=lambda each: str(each),
)
@pytest.mark.parametrize("routed", [True, False], ids=["routed", "unrouted"])
async def test_the_target_has_what_the_bare_driver_leaves_in_it(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName, phase: Phase, routed: bool
) -> None:
    names = ["source", "target"] if routed else ["source"]
    options = {"driver": "pymongo", "primary": primary, "phase": phase}
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, names, **options) as shadow:
        bare = pymongo.AsyncMongoClient(root_url(mongo_url))
        beside = bare[f"{shadow.name}_bare"]
        for db in (beside, shadow):
            await db["source"].insert_many([dict(each) for each in SOURCE])
            await _refilled(db)
        different, before = [], await _kept(beside)
        unique = [case for case in CASES if UNIQUE in case]
        for case in [*(case for case in CASES if UNIQUE not in case), *unique]:
            if case is unique[0]:
                await beside["target"].create_index("z", unique=True)
                await shadow["target"].create_index("z", unique=True)
            pipeline = [stage for stage in case if stage != UNIQUE]
            theirs, ours = await _put(beside, pipeline), await _put(shadow, pipeline)
            left = await _kept(beside), await _kept(shadow)
            if theirs != ours or left[0] != left[1]:
                shown = [[bson.decode(each) for each in side] for side in left]
                different.append(f"{case}\n  {theirs} {shown[0]}\n  {ours} {shown[1]}")
            if left[0] != before or left[1] != before:
                await _refilled(beside)
                await _refilled(shadow)
        assert not different, f"{len(different)} differ\n" + "\n".join(different)
        if phase is not Phase.OFF:
            await assert_level(shadow)
        await bare.drop_database(beside.name)
        await bare.close()


@pytest.mark.parametrize("primary", StoreName)
async def test_into_another_database_and_in_several_parts(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow.surface.collections.outputs._BYTES", 200)
    values: list[dict[str, Any]] = [
        {"_id": ObjectId(), "n": n, "l": Int64(n), "d": dt.datetime(2024, 1, 1), "v": {"a.b": "$x"}} for n in range(9)
    ]
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["source"], primary=primary) as shadow:
        admit(mongo_url, f"{shadow.name}_else")
        await shadow["source"].insert_many(values)
        with pymongo.MongoClient(root_url(mongo_url)) as bare:
            made = bare[f"{shadow.name}_else"]["made"]
            made.insert_one({"_id": "old"})
            named = {"db": made.database.name, "coll": "made"}
            assert await shadow["source"].aggregate([{"$sort": {"n": 1}}, {"$out": named}]).to_list(None) == []
            assert list(made.find().sort("n")) == values
            await shadow["source"].aggregate([{"$set": {"n": 1}}, {"$merge": {"into": named}}]).to_list(None)
            assert made.count_documents({"n": 1}) == made.count_documents({}) == 9
            assert made.database.list_collection_names() == ["made"]
            bare.drop_database(made.database.name)
        await assert_level(shadow)


@pytest.mark.plain_options(reason="a session that is causally consistent takes no read concern but three of them")
@pytest.mark.parametrize("primary", StoreName)
async def test_none_of_them_in_a_transaction(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    async with prepared(
        tmp_path, mongo_url, dynamodb_local_url, ["source", "target"], primary=primary, driver="pymongo"
    ) as shadow:
        await shadow["source"].insert_one({"_id": 1})
        async with shadow.client.start_session() as session:
            for target in ("target", "unnamed"):
                for stage in ({"$out": target}, {"$merge": {"into": target}}):
                    async with await session.start_transaction():
                        with pytest.raises(OperationFailure) as refused:
                            await shadow["source"].aggregate([stage], session=session).to_list(None)
                        assert refused.value.code == 263
                        await session.abort_transaction()
            # Outside of one, a session is as good as none.
            await shadow["source"].aggregate([{"$out": "target"}], session=session).to_list(None)
        assert await shadow["target"].find().to_list(None) == [{"_id": 1}]
        await assert_level(shadow)


async def test_without_mongodb_it_is_refused_by_name(tmp_path: Path, mongo_url: str, dynamodb_local_url: str) -> None:
    async with prepared(
        tmp_path, mongo_url, dynamodb_local_url, ["source", "target"], primary=StoreName.DYNAMO, phase=Phase.OFF
    ) as shadow:
        await shadow["source"].insert_one({"_id": 1})
        with pytest.raises(UnsupportedOperation, match=r"\$out.*unnamed"):
            await shadow["source"].aggregate([{"$out": "unnamed"}]).to_list(None)
        await shadow["source"].aggregate([{"$out": "target"}]).to_list(None)
        assert await shadow["target"].find().to_list(None) == [{"_id": 1}]
