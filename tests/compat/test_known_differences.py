"""The known differences, each by its number: shown on the real servers, or what holds instead.

A case of the server's own optimiser or engine (1 to 7) is shown where it is stable; the differential suites count them
under the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import inspect
import math
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import bson
import pymongo
import pytest
from bson import DBRef, Decimal128, MinKey
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference
from pymongo.errors import (
    CollectionInvalid,
    DuplicateKeyError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WriteError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Secondary

from shadow import Shadow
from shadow.config.sections import ExpirySettings
from shadow.errors import UnsupportedOperation
from shadow.model.differences import DIFFERENCES
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.schema import IndexSpec, UniqueSpec
from shadow.stores.dynamo.client.settings import DynamoSettings
from tests.compat.cases import Answer, Case, verdict
from tests.support.raw_bson import document, element, int32, text
from tests.support.shims import audit_of, settings_for, without_heartbeats
from tests.support.topologies import drop, root_url


class Sides:
    """The same collection on a bare MongoDB and through a Shadow whose primary is DynamoDB."""

    def __init__(self, bare: Any, shadow: Shadow) -> None:
        self.bare = bare
        self.shadow = shadow
        self.shim = shadow["things"]

    async def fill(self, *documents: dict[str, Any]) -> None:
        for side in (self.bare, self.shim):
            await side.insert_many([dict(each) for each in documents])

    async def both(self, pipeline: list[dict[str, Any]]) -> tuple[Any, Any]:
        return await self.bare.aggregate(pipeline).to_list(None), await self.shim.aggregate(pipeline).to_list(None)


@pytest.fixture
async def sides(mongo_url: str, dynamodb_local_url: str, tmp_path: Path) -> AsyncIterator[Sides]:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, name, ["things", "others"], primary=StoreName.DYNAMO
    )
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(root_url(mongo_url))
    async with Shadow.from_settings(without_heartbeats(settings)) as shadow:
        await shadow.prepare()
        yield Sides(client[f"{name}bare"]["things"], shadow)
    client.close()
    drop(mongo_url, name, f"{name}bare")


def test_every_difference_has_a_test_of_its_number() -> None:
    numbers = [int(number) for number in re.findall(r"^async def test_(\d+)_", Path(__file__).read_text(), re.M)]
    assert numbers == list(DIFFERENCES) == sorted(set(numbers))


async def test_01_an_expression_that_fails_on_a_document_fails_here_if_the_document_is_reached(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": 1}, {"_id": 2, "a": "x"})
    failing = {"$expr": {"$gt": [{"$add": ["$a", 1]}, 0]}}
    for side in (sides.bare, sides.shim):
        with pytest.raises(OperationFailure):
            await side.find(failing).to_list(None)
        assert len(await side.find({"_id": 1, **failing}).to_list(None)) == 1
    case = Case("pipeline", [], [{"$project": {"b": {"$add": ["$a", 1]}}}, {"$limit": 1}])
    assert verdict(case, Answer([]), Answer(code=14)) == "known 1"


async def test_02_the_groups_are_the_servers_in_another_order(sides: Sides) -> None:
    await sides.fill(*({"_id": n, "k": n % 7} for n in range(40)))
    theirs, ours = await sides.both([{"$sort": {"_id": 1}}, {"$group": {"_id": "$k", "n": {"$sum": 1}}}])
    assert [each["_id"] for each in ours] == list(range(7))
    assert sorted(theirs, key=lambda each: each["_id"]) == ours


async def test_03_a_field_removed_and_added_again_has_the_same_value(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": 1, "b": 2})
    theirs, ours = await sides.both([{"$unset": "a"}, {"$set": {"a": 5}}])
    assert theirs == ours
    assert list(ours[0]) == ["_id", "b", "a"]


async def test_04_as_over_a_field_that_exists_has_the_same_value(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": 1, "b": 2})
    join = {"from": "others", "localField": "b", "foreignField": "x", "as": "a"}
    theirs, ours = await sides.both([{"$lookup": join}])
    assert theirs == ours == [{"_id": 1, "a": [], "b": 2}]


async def test_05_of_several_faults_one_is_named_with_a_code_of_the_server(sides: Sides) -> None:
    faulty = {"$rename": {"e.9": "e"}, "$addToSet": {"e.9": 1}}
    codes = set()
    await sides.fill({"_id": 1})
    for side in (sides.bare, sides.shim):
        with pytest.raises(WriteError) as caught:
            await side.update_one({"_id": 1}, faulty)
        codes.add(caught.value.code)
    assert codes <= {2, 40}


async def test_06_what_the_stages_say_is_done_in_their_order(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": [3, 1]}, {"_id": 2, "a": [2]})
    theirs, ours = await sides.both([{"$unwind": "$a"}, {"$sort": {"_id": -1}}])
    assert [each["_id"] for each in ours] == [each["_id"] for each in theirs] == [2, 1, 1]
    assert [each["a"] for each in ours] == [2, 3, 1]


async def test_07_rare_types_and_positions_come_through_a_pipeline_as_they_are(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": MinKey()})
    ours = await sides.shim.aggregate([{"$group": {"_id": "$a", "all": {"$push": "$a"}}}]).to_list(None)
    assert ours == [{"_id": MinKey(), "all": [MinKey()]}]
    await sides.fill({"_id": 2, "a": [7, 8]})
    for others in (sides.bare.database["others"], sides.shadow["others"]):
        await others.insert_many([{"_id": 1, "x": 7}, {"_id": 2}])
    join = {"$lookup": {"from": "others", "localField": "a.0", "foreignField": "x", "as": "b"}}
    theirs, ours = await sides.both([{"$match": {"_id": 2}}, join])
    assert [each["_id"] for each in theirs[0]["b"]] == [each["_id"] for each in ours[0]["b"]] == [1]
    theirs, ours = await sides.both([{"$match": {"_id": 2}}, join, {"$project": {"b._id": 1}}])
    assert (theirs[0]["b"], ours[0]["b"]) == ([{"_id": 2}], [{"_id": 1}])


async def test_08_an_upsert_that_can_never_match_is_refused_by_name(sides: Sides) -> None:
    never = {"_id": 9, "x": {"$all": []}}
    inserted = await sides.bare.update_one(never, {"$set": {"b": 1}}, upsert=True)
    assert inserted.upserted_id not in (None, 9)
    with pytest.raises(UnsupportedOperation, match="can never match"):
        await sides.shim.update_one(never, {"$set": {"b": 1}}, upsert=True)
    assert await sides.shim.count_documents({}) == 0


async def test_09_the_text_of_an_error_holds_no_value_and_its_code_is_the_servers(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": "secret"})
    texts = []
    for side in (sides.bare, sides.shim):
        with pytest.raises(WriteError) as caught:
            await side.update_one({"_id": 1}, {"$push": {"a.b": "secret"}})
        assert caught.value.code == 28
        texts.append(str(caught.value))
    assert "secret" in texts[0]
    assert "secret" not in texts[1]


async def test_10_without_a_sort_the_same_documents_come_in_another_order(sides: Sides) -> None:
    await sides.fill(*({"_id": n} for n in range(40)))
    theirs, ours = [[each["_id"] for each in await side.find().to_list(None)] for side in (sides.bare, sides.shim)]
    assert theirs == list(range(40))
    assert sorted(ours) == theirs
    assert ours != theirs


async def test_10b_joined_documents_come_in_the_order_of_their_keys(sides: Sides) -> None:
    await sides.fill({"_id": 1, "b": 1})
    await sides.shadow["others"].insert_many([{"_id": key, "x": 1} for key in (3, 1, 2)])
    join = {"from": "others", "localField": "b", "foreignField": "x", "as": "found"}
    (found,) = await sides.shim.aggregate([{"$lookup": join}]).to_list(None)
    assert [each["_id"] for each in found["found"]] == [1, 2, 3]


async def test_11_index_reads_can_be_verified_and_are_not_by_default(sides: Sides) -> None:
    assert not DynamoSettings().verify_index_reads
    assert DynamoSettings(verify_index_reads=True).verify_index_reads


async def test_12_the_estimated_count_is_exact(sides: Sides) -> None:
    await sides.fill(*({"_id": n} for n in range(25)))
    await sides.shim.delete_many({"_id": {"$lt": 5}})
    assert await sides.shim.estimated_document_count() == 20


async def test_13_drop_deletes_the_documents_and_keeps_the_table(sides: Sides) -> None:
    await sides.fill({"_id": 1}, {"_id": 2})
    for side in (sides.bare, sides.shim):
        await side.create_index("n", unique=True, sparse=True)
        await side.drop()
        assert await side.count_documents({}) == 0
    assert await sides.bare.index_information() == {}
    assert list(await sides.shim.index_information()) == ["_id_"]
    await sides.shim.insert_one({"_id": 1})


async def test_14_what_has_been_deleted_is_hidden_though_the_follower_still_holds_its_tombstone(sides: Sides) -> None:
    await sides.fill({"_id": 1}, {"_id": 2})
    await sides.shim.delete_one({"_id": 1})
    assert await sides.shadow.settled(20)
    with pymongo.MongoClient[dict[str, Any]](sides.shadow.admin.settings.mongo.url.get_secret_value()) as client:
        raw = client[sides.shadow.name]["things"].find_one({"_id": 1})
    assert raw is not None
    assert set(raw) == {"_id", "_shadow"}
    mongo, dynamo = audit_of(sides.shadow.admin.settings).documents("things")
    assert len(mongo) == len(dynamo) == 1


async def test_15_an_update_of_many_that_fails_leaves_each_document_whole(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": 1}, {"_id": 2, "a": "x"}, {"_id": 3, "a": 1})
    for side in (sides.bare, sides.shim):
        with pytest.raises(WriteError) as caught:
            await side.update_many({}, {"$inc": {"a": 1}})
        assert caught.value.code == 14
        found = {each["_id"]: each["a"] for each in await side.find().to_list(None)}
        assert found[2] == "x"
        assert {found[1], found[3]} <= {1, 2}
    assert (await sides.bare.find_one({"_id": 3}))["a"] == 1  # the server had not come to it


async def test_16_sort_in_update_one_and_replace_one(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": 1}, {"_id": 2, "a": 2})
    with pytest.raises(OperationFailure):
        await sides.bare.update_one({}, {"$set": {"b": 1}}, sort={"a": -1})
    await sides.shim.update_one({}, {"$set": {"b": 1}}, sort={"a": -1})
    await sides.shim.replace_one({}, {"c": 1}, sort={"a": 1})
    assert await sides.shim.find(sort=[("_id", 1)]).to_list(None) == [{"_id": 1, "c": 1}, {"_id": 2, "a": 2, "b": 1}]


async def test_17_a_nan_stays_one(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": float("-nan")})
    found = await sides.shim.find_one({"_id": 1})
    assert found["a"] != found["a"]
    with pytest.raises(DuplicateKeyError):
        await sides.shim.insert_one({"_id": 1})


async def test_18_a_push_that_is_cut_off_again_modifies_nothing(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": [1, 2]})
    counts = []
    for side in (sides.bare, sides.shim):
        result = await side.update_one({"_id": 1}, {"$push": {"a": {"$each": [3], "$slice": 2}}})
        counts.append((result.matched_count, result.modified_count))
        assert await side.find_one() == {"_id": 1, "a": [1, 2]}
    assert counts == [(1, 1), (1, 0)]
    counts.clear()
    for side in (sides.bare, sides.shim):
        result = await side.bulk_write([pymongo.UpdateOne({"_id": 1}, {"$push": {"a": {"$each": [3], "$slice": 2}}})])
        counts.append((result.matched_count, result.modified_count))
    assert counts == [(1, 1), (1, 0)]


async def test_19_an_update_keeps_what_the_driver_reads(sides: Sides) -> None:
    """Inserts and replacements are kept to the byte on both; only an update tells them apart."""
    raw = document(element(2, "_id", text("odd")), element(6, "u", b""), element(14, "s", text("sym")))
    for side in (sides.bare, sides.shim):
        await side.insert_one(RawBSONDocument(raw))
        assert await side.find_one({"_id": "odd"}) == {"_id": "odd", "u": None, "s": "sym"}
    stores = sides.shadow._engine.runtime().stores
    assert bson.encode((await stores[StoreName.DYNAMO].image("things", "odd")).document) == raw
    for side in (sides.bare, sides.shim):
        await side.update_one({"_id": "odd"}, {"$set": {"n": 1}})
        assert await side.find_one({"_id": "odd"}) == {"_id": "odd", "u": None, "s": "sym", "n": 1}
    kept = (await stores[StoreName.DYNAMO].image("things", "odd")).document
    assert bson.encode(kept) == bson.encode({"_id": "odd", "u": None, "s": "sym", "n": 1})
    there = sides.bare.with_options(codec_options=bson.CodecOptions(document_class=RawBSONDocument))
    found = await there.find_one({"_id": "odd"})
    assert bytes(found.raw) == raw_with(raw, element(16, "n", int32(1)))


PLAIN: dict[str, Any] = {"read_concern": ReadConcern("local"), "read_preference": ReadPreference.PRIMARY}
"""The drawn url may ask for what no transaction takes."""


@contextlib.asynccontextmanager
async def begun_in(sides: Sides, target: Any) -> AsyncIterator[Any]:
    """A transaction on one of the sides, each with sessions of its own client; aborted unless it is committed."""
    begun = (sides.shadow if target is sides.shim else target.database).client.start_session()
    async with await begun if inspect.isawaitable(begun) else begun as session:
        started = session.start_transaction(**PLAIN)
        if inspect.isawaitable(started):
            await started
        yield session


@contextlib.asynccontextmanager
async def in_transaction(sides: Sides, target: Any) -> AsyncIterator[Any]:
    async with begun_in(sides, target) as session:
        yield session
        await session.commit_transaction()


async def test_25_a_transaction_sees_no_snapshot(sides: Sides) -> None:
    await sides.fill({"_id": 1, "n": 1}, {"_id": 2, "n": 1})
    seen = []
    for side in (sides.bare, sides.shim):
        async with in_transaction(sides, side) as session:
            await side.find_one({"_id": 1}, session=session)
            await side.update_one({"_id": 2}, {"$set": {"n": 2}})
            seen.append((await side.find_one({"_id": 2}, session=session))["n"])
        async with begun_in(sides, side) as session:
            await side.find_one({"_id": 1}, session=session)
            await side.update_one({"_id": 1}, {"$inc": {"n": 1}})
            with pytest.raises(OperationFailure) as caught:
                await side.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
            assert caught.value.has_error_label("TransientTransactionError")
    assert seen == [1, 2]


async def test_26_a_transaction_has_at_most_a_hundred_items(sides: Sides) -> None:
    documents = [{"_id": n} for n in range(101)]
    async with in_transaction(sides, sides.bare) as session:
        await sides.bare.insert_many(documents, session=session)
    async with in_transaction(sides, sides.shim) as session:
        await sides.shim.insert_many(documents[:100], session=session)
        with pytest.raises(UnsupportedOperation, match="101 items"):
            await sides.shim.insert_one(documents[100], session=session)
    assert (await sides.bare.count_documents({}), await sides.shim.count_documents({})) == (101, 100)


async def test_27_a_transaction_is_on_one_store(sides: Sides) -> None:
    other = sides.shadow["not configured"]
    await other.insert_one({"_id": 1})
    async with begun_in(sides, sides.shim) as session:
        await sides.shim.insert_one({"_id": 1}, session=session)
        await other.insert_one({"_id": 2}, session=session)
        with pytest.raises(UnsupportedOperation, match="two stores"):
            await session.commit_transaction()
    assert (await sides.shim.count_documents({}), await other.count_documents({})) == (0, 1)


async def test_30_a_time_zone_is_that_of_this_host(sides: Sides) -> None:
    moments = [dt.datetime(2024, 1, 1), dt.datetime(2024, 7, 1), dt.datetime(1950, 7, 1)]
    await sides.fill(*({"_id": n, "t": moment} for n, moment in enumerate(moments)))

    def shown(zone: str) -> list[dict[str, Any]]:
        return [{"$sort": {"_id": 1}}, {"$project": {"x": {"$hour": {"date": "$t", "timezone": zone}}}}]

    theirs, ours = await sides.both(shown("America/New_York"))
    assert theirs == ours
    for zone in ("America/New_York", "Africa/Freetown"):  # the second one is wrong in the server's database
        _, ours = await sides.both(shown(zone))
        hours = [moment.replace(tzinfo=dt.UTC).astimezone(ZoneInfo(zone)).hour for moment in moments]
        assert [each["x"] for each in ours] == hours


async def test_31_functions_of_the_c_library_agree_but_for_the_last_digit(sides: Sides) -> None:
    await sides.fill({"_id": 1, "a": 0.7})
    names = ("$exp", "$ln", "$log10", "$sin", "$cos", "$tan", "$asin", "$acos", "$atan", "$sinh", "$cosh", "$tanh")
    shown = {name[1:]: {name: "$a"} for name in names} | {"pow": {"$pow": ["$a", 1.3]}, "log": {"$log": ["$a", 3]}}
    (theirs,), (ours,) = await sides.both([{"$project": shown}])
    assert ours == pytest.approx(theirs, rel=1e-14)


async def test_32_equal_elements_stay_in_their_order(sides: Sides) -> None:
    values = [{"k": n % 3, "n": n} for n in range(40)]
    await sides.fill({"_id": 1, "few": values[:16], "many": values})
    shown = {name: {"$sortArray": {"input": f"${name}", "sortBy": {"k": 1}}} for name in ("few", "many")}
    (theirs,), (ours,) = await sides.both([{"$project": shown}])
    assert ours["few"] == theirs["few"]
    assert ours["many"] == sorted(values, key=lambda each: each["k"])
    assert sorted(theirs["many"], key=lambda each: (each["k"], each["n"])) == ours["many"]


async def test_33_a_graph_is_found_step_by_step(sides: Sides) -> None:
    await sides.fill(*({"_id": n, "next": [n * 2, n * 2 + 1]} for n in range(1, 16)))
    links = {"from": "things", "connectFromField": "next", "connectToField": "_id", "as": "found", "depthField": "d"}
    theirs, ours = await sides.both([{"$match": {"_id": 1}}, {"$graphLookup": {**links, "startWith": "$next"}}])
    found, there = ours[0]["found"], theirs[0]["found"]
    assert [each["_id"] for each in found] == list(range(2, 16))
    assert sorted(there, key=lambda each: each["_id"]) == found


def raw_with(raw: bytes, more: bytes) -> bytes:
    return document(raw[4:-1], more)


async def test_45_a_unique_index_of_the_configuration_stays(sides: Sides) -> None:
    own = {"indexes": (IndexSpec("a-index", "a"),), "unique": (UniqueSpec("u-unique", ("u",)),)}
    spec = dataclasses.replace(sides.shadow._engine.specs["things"], **own)
    sides.shadow._engine.specs["things"] = spec
    sides.shadow._engine.indexes._configured = lambda: {"things": spec}
    shim = sides.shadow["things"]
    for side in (sides.bare, shim):
        assert await side.create_index("a") == "a_1"
        assert await side.create_index([("b", "text")]) == "b_text"
    assert await sides.bare.create_index("u", unique=True) == "u_1"
    assert await shim.create_index("u", unique=True) == "u-unique"
    theirs, ours = await sides.bare.index_information(), await shim.index_information()
    theirs["u-unique"] = theirs.pop("u_1")
    assert theirs == ours
    for side in (sides.bare, shim):
        await side.drop_indexes()
    assert list(await sides.bare.index_information()) == ["_id_"]
    assert list(await shim.index_information()) == ["_id_", "u-unique"]
    with pytest.raises(OperationFailure, match="text"):
        await shim.find({"$text": {"$search": "x"}}).to_list(None)


async def test_46_what_has_expired_is_hidden_at_once_but_in_joins(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, name, ["things", "others"], primary=StoreName.DYNAMO
    )
    entry = settings.collections["things"].model_copy(update={"expires": ExpirySettings(field="at", after=5)})
    settings = settings.model_copy(update={"collections": {**settings.collections, "things": entry}})
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_one({"_id": 1, "at": dt.datetime(2020, 1, 1)})
        assert await things.find_one({"_id": 1}) is None
        assert (await things.update_one({"_id": 1}, {"$set": {"n": 1}})).matched_count == 0
        await shadow["others"].insert_one({"_id": 1})
        join = {"from": "things", "localField": "_id", "foreignField": "_id", "as": "found"}
        (found,) = await shadow["others"].aggregate([{"$lookup": join}]).to_list(None)
        assert len(found["found"]) == 1
    drop(mongo_url, name)


async def test_430_a_duplicate_by_a_collation_names_the_values(sides: Sides) -> None:
    collation = {"locale": "en", "strength": 2}
    details = []
    for side in (sides.bare, sides.shim):
        await side.create_index("email", unique=True, collation=collation)
        await side.insert_one({"_id": 1, "email": "ada@x.org"})
        with pytest.raises(DuplicateKeyError) as raised:
            await side.insert_one({"_id": 2, "email": "ADA@x.org"})
        assert raised.value.code == 11000
        details.append(raised.value.details)
    theirs, ours = details
    assert ours["keyPattern"] == theirs["keyPattern"] == {"email": 1}
    assert ours["keyValue"] == {"email": "ADA@x.org"}
    assert theirs["hexEncoded"] == [True]
    assert bytes.fromhex(theirs["keyValue"]["email"])


async def test_450_a_covariance_of_decimals_is_not_rounded_after_a_nan_has_left(sides: Sides) -> None:
    pairs = [(7, 2), (Decimal128("NaN"), 2), (0.1, -math.inf), (7, 0.1), (0.1, 1), (Decimal128("3"), Decimal128("0.1"))]
    await sides.fill(*({"_id": n, "x": x, "y": y} for n, (x, y) in enumerate(pairs)))
    output = {"o": {"$covarianceSamp": ["$x", "$y"], "window": {"documents": [-1, 0]}}}
    theirs, ours = await sides.both([{"$setWindowFields": {"sortBy": {"_id": 1}, "output": output}}])
    assert (theirs[-1]["o"], ours[-1]["o"]) == (-1.0, pytest.approx(-1.305))


async def test_451_given_bounds_fill_every_partition(sides: Sides) -> None:
    await sides.fill(*({"_id": n, "v": n, "p": part} for n, part in ((1, "a"), (4, "a"), (2, "b"), (10, "c"))))
    densify = {"field": "v", "partitionByFields": ["p"], "range": {"step": 2, "bounds": [20, 26]}}
    theirs, ours = ([(each["p"], each["v"]) for each in side] for side in await sides.both([{"$densify": densify}]))
    assert set(theirs) < set(ours)
    assert {each for each in ours if each[1] >= 20} == {(part, value) for part in "abc" for value in (20, 22, 24)}


async def test_470_out_replaces_document_by_document(sides: Sides) -> None:
    targets = sides.bare.database["others"], sides.shadow["others"]
    await sides.fill({"_id": 1, "u": 1}, {"_id": 2, "u": 1})
    for target in targets:
        await target.create_index("u", unique=True)
        await target.insert_one({"_id": "old", "u": 0})
    for side in (sides.bare, sides.shim):
        with pytest.raises(DuplicateKeyError):
            await side.aggregate([{"$out": "others"}]).to_list(None)
    theirs, ours = [await target.find().to_list(None) for target in targets]
    assert theirs == [{"_id": "old", "u": 0}]
    assert ours in ([{"_id": 1, "u": 1}], [{"_id": 2, "u": 1}])


async def test_510_a_collection_that_was_dropped_is_empty_and_exists(sides: Sides) -> None:
    for primary in (StoreName.DYNAMO, StoreName.MONGO):
        sides.shadow._engine.parts.routes.set("things", Route(primary, Phase.DUAL_WRITE))
        await sides.fill({"_id": 1})
        for side in (sides.bare, sides.shim):
            await side.drop()
        await sides.bare.database.create_collection("things")
        with pytest.raises(CollectionInvalid, match="already exists"):
            await sides.shadow.create_collection("things")
        assert await sides.shim.count_documents({}) == 0
        assert await sides.shadow.settled(20)


async def test_530_a_view_shows_what_is_replicated(sides: Sides) -> None:
    await sides.fill({"_id": 1})
    for database in (sides.bare.database, sides.shadow):
        await database.create_collection("seen", viewOn="things", pipeline=[])
    assert await sides.shadow.settled(20)
    sides.shadow._engine.parts.routes.set("things", Route(StoreName.DYNAMO, Phase.OFF))
    await sides.fill({"_id": 2})
    assert await sides.bare.database["seen"].count_documents({}) == 2
    assert await sides.shadow["seen"].find().to_list(None) == [{"_id": 1}]
    join = {"from": "things", "localField": "_id", "foreignField": "_id", "as": "a"}
    assert len(await sides.bare.database["seen"].aggregate([{"$lookup": join}]).to_list(None)) == 2
    with pytest.raises(UnsupportedOperation, match="its primary is DynamoDB"):
        await sides.shadow["seen"].aggregate([{"$lookup": join}]).to_list(None)


async def test_560_a_read_preference_chooses_nobody(sides: Sides, mongo_url: str) -> None:
    nowhere = Secondary(tag_sets=[{"dc": "nowhere"}])
    await sides.fill({"_id": 1, "n": 1})
    # A client that asks one host alone chooses nobody either.
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(root_url(mongo_url), directConnection=False)
    bare = client[sides.bare.database.name]["things"].with_options(read_preference=nowhere)
    with pymongo.timeout(0.5), pytest.raises(ServerSelectionTimeoutError):
        await bare.find_one({"n": 1})
    client.close()
    assert await sides.shim.with_options(read_preference=nowhere).find_one({"n": 1}) == {"_id": 1, "n": 1}


async def test_561_two_read_concerns_are_refused(sides: Sides) -> None:
    await sides.fill({"_id": 1, "n": 1})
    for level, by_key in (("snapshot", False), ("linearizable", True)):
        given = {**PLAIN, "read_concern": ReadConcern(level)}
        bare, shim = (side.with_options(**given) for side in (sides.bare, sides.shim))
        assert await bare.find({"n": 1}).to_list(None) == [{"_id": 1, "n": 1}]
        with pytest.raises(UnsupportedOperation, match=f"read_concern {level}"):
            await shim.find({"n": 1}).to_list(None)
        assert await bare.find_one({"_id": 1}) == {"_id": 1, "n": 1}
        if by_key:
            assert await shim.find_one({"_id": 1}) == {"_id": 1, "n": 1}
            continue
        with pytest.raises(UnsupportedOperation, match=f"read_concern {level}"):
            await shim.find_one({"_id": 1})


async def test_580_distinct_returns_a_dbref_in_another_order_in_the_drivers(sides: Sides) -> None:
    await sides.fill({"_id": 1, "r": {"$id": 1, "$ref": "c"}})
    raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
    stored, shown = bson.encode({"$id": 1, "$ref": "c"}), []
    for side in (sides.bare, sides.shim):
        assert await side.distinct("r") == [DBRef("c", 1)]
        side = side.with_options(codec_options=raw)
        (found,) = await side.find({}, {"r": 1}).to_list(None)
        (made,) = await side.aggregate([{"$project": {"r": 1, "_id": 0}}]).to_list(None)
        assert [bytes(each["r"].raw) for each in (found, made)] == [stored, stored]
        (distinct,) = await side.distinct("r")
        shown.append(bytes(distinct.raw) == stored)
    assert shown == [True, False]
