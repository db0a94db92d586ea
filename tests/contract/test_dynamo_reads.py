"""How the DynamoDB store reads: in the order of an index, by segments, by parts of items, by the branches of an `$or`.

Each way has to answer as the plain one does: what matches, sorted as MongoDB sorts it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import bson
import pymongo
import pytest
import pytest_asyncio
from bson import DatetimeMS, Decimal128, Int64, ObjectId
from pymongo.errors import OperationFailure

from shadow.model.operation import Delete, Insert, Query
from shadow.model.order import sort_key
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.values import normalise
from shadow.model.version import Document, fresh_id
from shadow.mongoql import compile_filter, compile_pipeline, compile_projection
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.query import scanning
from shadow.stores.dynamo.store import DynamoStore
from tests.support.topologies import admit, drop

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_AT: Final = IndexSpec("owner-at-index", "owner", "at")
BY_USER: Final = IndexSpec("user-index", "user")
SPEC: Final = CollectionSpec("docs", (BY_AT, BY_USER))
NOON: Final = dt.datetime(2024, 5, 17, 12)


class Calls:
    """What the store asks of DynamoDB: the requests, the items that came back, the read units."""

    def __init__(self, store: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.items = 0
        self.units = 0.0
        self.under_way = 0
        self.most_under_way = 0
        self._call = store._gateway.call
        monkeypatch.setattr(store._gateway, "call", self)

    async def __call__(self, verb: str, table: str, **parameters: Any) -> Any:
        self.requests.append((verb, parameters))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = await self._call(verb, table, **parameters)
        finally:
            self.under_way -= 1
        self.items += len(answer.get("Items", []))
        consumed = answer.get("ConsumedCapacity") or {}
        self.units += sum(one["CapacityUnits"] for one in (consumed if isinstance(consumed, list) else [consumed]))
        return answer

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.requests]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(dynamodb_local_url: str) -> AsyncIterator[DynamoStore]:
    settings = DynamoSettings(
        endpoint_url=dynamodb_local_url, table_prefix=f"{fresh_id()}-", access_key_id="local", secret_access_key="local"
    )
    made = DynamoStore(settings, {"docs": SPEC})
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def empty(store: DynamoStore) -> AsyncIterator[DynamoStore]:
    await store.prepare([SPEC])
    yield store
    await store.drop("docs")


@pytest.fixture
def calls(empty: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(empty, monkeypatch)


async def fill(store: DynamoStore, documents: list[Document]) -> None:
    inserts = [Insert(each["_id"], each, fresh_id()) for each in documents]
    results = await store.insert_many("docs", inserts, [fresh_id() for _ in inserts], ordered=False)
    assert not [each for each in results if isinstance(each, Exception)]


async def ask(store: DynamoStore, filter: Document, **more: Any) -> list[Document]:
    return [hit.document async for page in store.find("docs", Query(filter, **more)) for hit in page]


def same(a: list[Document], b: list[Document]) -> bool:
    return [bson.encode(each) for each in a] == [bson.encode(each) for each in b]


# ---- the order of an index ----

STRINGS: Final[list[Any]] = ["2024-05-17", "2023-01-01", "2024-11-02", "alice", "bob", "zoe", "Émile", "Q", "a", "b1"]
ODD_STRINGS: Final[list[Any]] = ["", "~tilde", str(ObjectId("5ca4bbc7a2dd94ee5816238c")), "x" * 1100, "é" * 600]
DATES: Final[list[Any]] = [NOON + dt.timedelta(days=day) for day in range(-40_000, 40_000, 5_000)]
ODD_DATES: Final[list[Any]] = [DatetimeMS(-(10**15)), DatetimeMS(-(10**14) * 7), DatetimeMS(10**15), dt.datetime.max]
OTHERS: Final[list[Any]] = [ObjectId(), ObjectId("f" * 24), 5, 2.5, Int64(2**40), Decimal128("7"), True, None, {"a": 1}]
ARRAYS: Final[list[Any]] = [["alice", "zz"], [], [NOON], [5, "m"], [None]]
POOLS: Final[dict[str, list[Any]]] = {
    "strings": STRINGS,
    "odd strings": STRINGS + ODD_STRINGS,
    "dates": DATES,
    "odd dates": DATES + ODD_DATES,
    "ObjectIds": [ObjectId(f"{n:024x}") for n in range(0, 2**90, 2**86)],
    "strings and ObjectIds": [*STRINGS, ObjectId(), ObjectId("a" * 24)],
    "dates and nothing": [*DATES, None, "nothing"],
    "with arrays": [*STRINGS, *ARRAYS],
    "all": [*STRINGS, *ODD_STRINGS, *DATES, *ODD_DATES, *OTHERS, *ARRAYS, "nothing"],
}
BOUNDS: Final[list[Document]] = [
    {},
    {"at": {"$gte": "a"}},
    {"at": {"$gt": "2024", "$lt": "b"}},
    {"at": {"$lte": "zz"}},
    {"at": {"$gte": ""}},
    {"at": {"$gt": "é"}},
    {"at": {"$gt": NOON}},
    {"at": {"$lt": NOON}},
    {"at": {"$gte": ObjectId("5" * 24)}},
    {"at": {"$gt": 3}},
    {"at": {"$ne": None}},
    {"n": {"$mod": [3, 1]}},
]


def documents_of(pool: list[Any], seed: int) -> list[Document]:
    """Forty of one owner and some of others, one of whom is in a list; ties are as frequent as the pool is small."""
    chance = random.Random(seed)
    made: list[Document] = []
    for n in range(50):
        value = chance.choice(pool)
        owner = "o" if n < 40 else chance.choice(["p", ["p", "q"]])
        made.append({"_id": n, "n": n, "owner": owner, **({} if value == "nothing" else {"at": value})})
    if seed % 2:
        made.append({"_id": 100, "n": 100, "owner": ["o", "x"], "at": chance.choice(pool)})
    return [normalise({name: value for name, value in each.items() if value != "nothing"}) for each in made]


@pytest.fixture(scope="module")
def mongo(mongo_url: str) -> Iterator[Any]:
    with pymongo.MongoClient(mongo_url, datetime_conversion="DATETIME_AUTO") as client:
        name = f"t{fresh_id()}"
        admit(mongo_url, name)
        yield client[name]["docs"]
    drop(mongo_url, name)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("pool", POOLS)
async def test_a_limited_sort_is_the_servers(empty: DynamoStore, mongo: Any, pool: str, seed: int) -> None:
    """Whatever lies in the index: same documents, same order, for every bound, direction, skip and limit. Ties are
    broken by `_id`, or else only what was sorted by is compared, for MongoDB promises no more."""
    documents = documents_of(POOLS[pool], seed)
    await fill(empty, documents)
    mongo.delete_many({})
    mongo.insert_many(documents)
    chance = random.Random(seed)
    for bound in BOUNDS:
        for direction in (1, -1):
            skip, limit = chance.choice([(0, 1), (0, 5), (3, 4), (0, 60)])
            filter = {"owner": "o", **bound}
            tied = (("at", direction), ("_id", chance.choice([1, -1])))
            theirs = list(mongo.find(filter).sort(list(tied)).skip(skip).limit(limit))
            ours = await ask(empty, filter, sort=tied, skip=skip, limit=limit)
            assert same(ours, [normalise(each) for each in theirs]), (filter, tied, skip, limit)
            alone = (("owner", 1), ("at", direction)) if seed % 2 == 0 else (("at", direction),)
            theirs = list(mongo.find(filter).sort(list(alone)).skip(skip).limit(limit))
            ours = await ask(empty, filter, sort=alone, skip=skip, limit=limit)
            key = sort_key(alone)
            assert [key(each) for each in ours] == [key(normalise(each)) for each in theirs], (filter, alone)
            assert len({each["_id"] for each in ours}) == len(ours)


async def test_the_newest_few_of_many_cost_no_more_than_themselves(empty: DynamoStore, calls: Calls) -> None:
    """Five of four hundred by date: two looks to make sure, no more than five documents read for the answer."""
    await fill(
        empty, [{"_id": n, "owner": "o", "at": NOON + dt.timedelta(hours=n), "t": "x" * 2000} for n in range(400)]
    )
    calls.requests.clear()
    calls.items, calls.units = 0, 0.0
    answer = await ask(empty, {"owner": "o"}, sort=(("at", -1),), limit=5)
    assert [each["_id"] for each in answer] == [399, 398, 397, 396, 395]
    assert set(calls.verbs) == {"query"}
    assert calls.items == 6
    assert calls.units <= 3.0
    calls.items, calls.units = 0, 0.0
    answer = await ask(empty, {"owner": "o", "at": {"$gte": NOON}}, sort=(("at", 1), ("_id", 1)), skip=2, limit=3)
    assert [each["_id"] for each in answer] == [2, 3, 4]
    assert calls.items == 6
    assert calls.units <= 3.5
    calls.units = 0.0
    await ask(empty, {"owner": "o"}, sort=(("t", 1),), limit=5)
    assert calls.units > 90


async def test_among_strings_the_gaps_are_looked_into(empty: DynamoStore, calls: Calls) -> None:
    """An ObjectId between two of them comes after both in MongoDB, and so does a string that stands behind "~"."""
    rows: list[Document] = [{"_id": n, "owner": "o", "at": f"2024-{n:04}", "t": "x" * 2000} for n in range(300)]
    await fill(empty, rows)
    calls.items = 0
    answer = await ask(empty, {"owner": "o"}, sort=(("at", 1),), limit=4)
    assert [each["_id"] for each in answer] == [0, 1, 2, 3]
    assert calls.items <= 7
    await fill(empty, [{"_id": "middle", "owner": "o", "at": ObjectId("2024-0100".replace("-", "0").ljust(24, "a"))}])
    await fill(empty, [{"_id": "least", "owner": "o", "at": ""}])
    answer = await ask(empty, {"owner": "o"}, sort=(("at", 1),), limit=2)
    assert [each["_id"] for each in answer] == ["least", 0]
    answer = await ask(empty, {"owner": "o"}, sort=(("at", -1),), limit=2)
    assert [each["_id"] for each in answer] == ["middle", 299]


# ---- the first few, in any order ----


async def test_the_first_few_of_an_index_cost_no_more_than_themselves(empty: DynamoStore, calls: Calls) -> None:
    """Nobody sorts, so whichever the index names first will do; a whole answer of it would be 150 units and more."""
    await fill(empty, [{"_id": n, "user": "u", "n": n, "t": "x" * 4_000} for n in range(300)])
    calls.units = 0.0
    found = await empty.find_one("docs", Query({"user": "u"}))
    assert found is not None
    assert calls.units <= 2
    calls.units = 0.0
    assert len(await ask(empty, {"user": "u"}, skip=2, limit=3)) == 3
    assert calls.units <= 5
    calls.units = 0.0
    assert await empty.count("docs", {"user": "u"}, limit=1) == 1
    assert calls.units <= 2
    calls.units = 0.0
    assert await empty.find_one("docs", Query({"$or": [{"user": "u"}, {"_id": "nothing"}]})) is not None
    assert calls.units <= 3


async def test_where_the_index_cannot_decide_all_it_reads_on_until_there_is_enough(
    empty: DynamoStore, calls: Calls
) -> None:
    await fill(empty, [{"_id": n, "user": "u", "n": n} for n in range(300)])
    await fill(empty, [{"_id": "list", "user": ["u", "v"], "n": -1}])
    calls.requests.clear()
    assert [each["_id"] for each in await ask(empty, {"user": "u", "n": 250}, limit=1)] == [250]
    assert [each["_id"] for each in await ask(empty, {"user": "u", "n": -1}, limit=1)] == ["list"]
    assert await ask(empty, {"user": "u", "n": 999}, limit=2) == []
    assert calls.verbs.count("query") <= 24
    assert {each["_id"] for each in await ask(empty, {"user": "u"}, limit=1000)} == {*range(300), "list"}


# ---- joins ----


@pytest.mark.parametrize("foreign", ["_id", "user", "n"])
async def test_a_lookup_reads_by_key_or_index_and_finds_what_a_scan_would(
    empty: DynamoStore, calls: Calls, foreign: str
) -> None:
    """Values of every kind that a join may meet, an array of them and none at all; `n` has no index."""
    odd: list[Any] = [1, 1.0, "a", "~b", None, [1, "a"], [], {"x": 1}, ObjectId("a" * 24), [[1]]]
    await fill(empty, [{"_id": f"o{n}", "user": each, "n": each, "kind": "other"} for n, each in enumerate(odd)])
    await fill(
        empty, [{"_id": f"d{n}", "ref": each, "kind": "doc"} for n, each in enumerate([*odd, "o1", ["o2", "o3"]])]
    )
    await fill(empty, [{"_id": "d-none", "kind": "doc"}])
    join = {"from": "docs", "localField": "ref", "foreignField": foreign, "as": "found"}
    for few in ({"_id": "d0"}, {"_id": "d11"}, {"kind": "doc"}, {"_id": {"$in": ["d2", "d3", "d-none"]}}):
        calls.requests.clear()
        answer = await empty.aggregate("docs", [{"$match": few}, {"$sort": {"_id": 1}}, {"$lookup": join}])
        scans = calls.verbs.count("scan")
        everything = {"docs": await ask(empty, {}, sort=(("_id", 1),))}
        chosen = [each for each in everything["docs"] if compile_filter(few).matches(each)]
        expected = compile_pipeline([{"$sort": {"_id": 1}}, {"$lookup": join}]).run(chosen, everything.__getitem__)
        assert same(answer, expected)
        if foreign == "_id" and few != {"kind": "doc"}:
            assert scans == 0
        if foreign == "user" and few == {"_id": "d0"}:
            assert scans == 0


def _over(condition: Any, field: str) -> Any:
    if isinstance(condition, dict):
        return {name: _over(inner, field) for name, inner in condition.items()}
    if isinstance(condition, list):
        return [_over(each, field) for each in condition]
    return f"${field}" if condition == "$FIELD" else condition


VARIABLES: Final[list[Any]] = [
    {"$eq": ["$FIELD", "$$v"]},
    {"$eq": ["$$v", "$FIELD"]},
    {"$and": [{"$gt": ["$kind", "d"]}, {"$eq": ["$FIELD", "$$v"]}]},
    {"$in": ["$FIELD", "$$v"]},
]


@pytest.mark.parametrize("condition", VARIABLES, ids=str)
@pytest.mark.parametrize("foreign", ["_id", "user", "n"])
async def test_a_lookup_by_a_variable_reads_by_key_or_index_and_finds_what_a_scan_would(
    empty: DynamoStore, calls: Calls, foreign: str, condition: Any
) -> None:
    odd: list[Any] = [1, 1.0, "a", "~b", None, {"x": 1}, ObjectId("a" * 24), [1], []]
    await fill(empty, [{"_id": f"o{n}", "user": each, "n": each, "kind": "other"} for n, each in enumerate(odd)])
    lists = "$in" in condition
    refs = [[1, "a", "o3"], [None], [], ["o1", [1]]] if lists else [*odd, "o1"]
    await fill(empty, [{"_id": f"d{n}", "ref": each, "kind": "doc"} for n, each in enumerate(refs)])
    test = _over(condition, foreign)
    stages = [{"$match": {"$expr": test}}, {"$sort": {"_id": 1}}]
    join = {"$lookup": {"from": "docs", "let": {"v": "$ref"}, "pipeline": stages, "as": "found"}}
    for few in ({"_id": "d0"}, {"_id": {"$in": ["d1", "d2"]}}, {"kind": "doc"}):
        calls.requests.clear()
        answer = await empty.aggregate("docs", [{"$match": few}, {"$sort": {"_id": 1}}, join])
        scans = calls.verbs.count("scan")
        everything = {"docs": await ask(empty, {}, sort=(("_id", 1),))}
        chosen = [each for each in everything["docs"] if compile_filter(few).matches(each)]
        assert same(answer, compile_pipeline([join]).run(chosen, everything.__getitem__))
        if foreign == "_id" and few == {"_id": "d0"}:
            assert scans == 0


async def test_a_lookup_by_a_variable_that_is_no_list_fails_as_on_a_scan(empty: DynamoStore) -> None:
    await fill(empty, [{"_id": "o", "ref": 5}])
    stages = [{"$match": {"$expr": {"$in": ["$_id", "$$v"]}}}]
    join = {"$lookup": {"from": "docs", "let": {"v": "$ref"}, "pipeline": stages, "as": "found"}}
    with pytest.raises(OperationFailure) as caught:
        await empty.aggregate("docs", [{"$match": {"_id": "o"}}, join])
    assert caught.value.code == 40081


async def test_a_lookup_over_a_field_that_a_stage_has_written_reads_all(empty: DynamoStore) -> None:
    await fill(empty, [{"_id": 1, "ref": 5, "v": 2}, {"_id": 2, "ref": 7}])
    join = {"from": "docs", "localField": "ref", "foreignField": "_id", "as": "found"}
    for rewritten in ([{"$set": {"ref": "$v"}}], [{"$lookup": {**join, "localField": "v", "as": "ref"}}]):
        stages = [{"$match": {"_id": 1}}, *rewritten, {"$set": {"ref": 2}}, {"$lookup": join}]
        (found,) = await empty.aggregate("docs", stages)
        assert found["found"] == [{"_id": 2, "ref": 7}]


# ---- segments ----


@pytest.mark.takes_turns
async def test_a_large_table_is_scanned_in_segments(
    empty: DynamoStore, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each document once, with as many requests under way as there are segments; a small table has one request."""
    await fill(empty, [{"_id": n, "t": "x" * 60_000} for n in range(100)])
    calls.requests.clear()
    calls.most_under_way = 0
    for _ in range(2):
        assert sorted(each["_id"] for each in await ask(empty, {})) == list(range(100))
        assert calls.most_under_way == 4
        assert await empty.count("docs", {}) == 100
        assert await empty.count("docs", {"_id": {"$lt": 50}}) == 50
    unsegmented = [parameters for _, parameters in calls.requests if "Segment" not in parameters]
    assert len(unsegmented) == 1
    for n in range(10, 100):
        await empty.apply("docs", Delete(n, {"_id": n}, fresh_id()), fresh_id())
    calls.requests.clear()
    for expected in (4, 1):
        assert len(await ask(empty, {})) == 10
        assert len(calls.requests) == expected
        calls.requests.clear()


async def test_a_scan_that_is_closed_early_ends_all_segments(empty: DynamoStore, calls: Calls) -> None:
    """Nothing is under way any more, and nothing else is asked."""
    await fill(empty, [{"_id": n, "n": n, "t": "x" * 60_000} for n in range(100)])
    await ask(empty, {})
    calls.requests.clear()
    pages = empty.find("docs", Query())
    async for page in pages:
        if page:
            break
    await pages.aclose()  # type: ignore[attr-defined]
    asked = len(calls.requests)
    assert calls.under_way == 0
    assert asked <= 4 + 4
    assert len(await ask(empty, {"n": {"$gte": 0}}, limit=3)) == 3
    assert calls.under_way == 0
    assert len(calls.requests) == asked + 1


async def test_an_error_in_one_segment_ends_the_others() -> None:
    """And is the error of the whole."""
    ended: list[str] = []

    async def endless(name: str) -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                await asyncio.sleep(0)
                yield {}
        finally:
            ended.append(name)

    async def failing() -> AsyncIterator[dict[str, Any]]:
        yield {}
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        async for _ in scanning.at_once([endless("a"), failing(), endless("b")]):  # type: ignore[list-item]
            pass


# ---- parts of items ----


async def test_a_projection_fetches_what_it_needs(empty: DynamoStore, calls: Calls) -> None:
    """The named fields, those of the filter and the sort, `_id` and the reserved attribute; by key, index and scan."""
    await fill(empty, [{"_id": n, "z": n, "owner": "o", "at": f"m{n}", "big": "x" * 500, "n": n} for n in range(20)])
    calls.requests.clear()
    assert await ask(empty, {"_id": 3}, projection={"z": 1}) == [{"_id": 3, "z": 3}]
    assert await ask(empty, {"_id": {"$in": [3]}, "n": 3}, projection={"z": 1, "_id": 0}) == [{"z": 3}]
    answer = await ask(empty, {"owner": "o"}, projection={"n": 1}, sort=(("z", -1),), limit=2)
    assert answer == [{"_id": 19, "n": 19}, {"_id": 18, "n": 18}]
    assert len(await ask(empty, {"z": {"$gt": 3}}, projection={"at": 1})) == 16
    assert sorted(await empty.distinct("docs", "at", {"z": {"$lt": 2}})) == ["m0", "m1"]
    assert await empty.count("docs", {"owner": "o", "z": {"$lt": 5}}) == 5
    for verb, parameters in calls.requests:
        asked = parameters if verb != "batch_get_item" else next(iter(parameters["RequestItems"].values()))
        named = {asked["ExpressionAttributeNames"][name] for name in asked["ProjectionExpression"].split(", ")}
        assert {"_id", "_shadow"} <= named
        assert "big" not in named


FIELDS: Final = ["a", "b", "c", "d", "owner", "at", "Z", "~x"]
VALUES: Final[list[Any]] = [
    1,
    "x",
    None,
    [1, {"b": 2.5}],
    {"b": 1, "a": 2},
    {"d": NOON},
    NOON,
    ObjectId(),
    Int64(5),
    "",
]


async def test_every_projection_is_that_of_the_whole_document(empty: DynamoStore) -> None:
    """Fields in any order, packed documents, index fields that stand aside; alone and many, the order of the answer
    included."""
    chance = random.Random(7)
    documents: list[Document] = []
    for n in range(60):
        names = chance.sample(FIELDS, chance.randrange(1, 7))
        document = {"_id": n, **{name: chance.choice(VALUES) for name in (sorted(names) if n % 3 else names)}}
        if n % 15 == 1:
            document[""] = "packed"
        if n == 31:
            document["bytes"] = random.Random(1).randbytes(500_000)
        documents.append(normalise(document))
    await fill(empty, documents)
    await fill(empty, [{"a": 1, "_id": "late", "b": 2}])
    documents.append({"a": 1, "_id": "late", "b": 2})
    for _ in range(60):
        projection = dict.fromkeys(chance.sample([*FIELDS, "a.b", "c.a"], chance.randrange(1, 4)), 1)
        if {"a", "a.b"} <= set(projection) or {"c", "c.a"} <= set(projection):
            continue
        if chance.random() < 0.3:
            projection["_id"] = 0
        filter = chance.choice(
            [{}, {"owner": "x"}, {"a": 1}, {"_id": {"$in": [1, 3, 4, "late"]}}, {"b.b": {"$gte": 1}}]
        )
        empty._reader._whole.clear()
        project, matches = compile_projection(projection), compile_filter(filter).matches
        expected = [project(each) for each in documents if matches(each)]
        answer = await ask(empty, filter, projection=projection)
        assert sorted(map(bson.encode, answer)) == sorted(map(bson.encode, expected)), (filter, projection)


# ---- the branches of an `$or` ----


async def test_an_or_over_keys_and_indexes_scans_nothing(empty: DynamoStore, calls: Calls) -> None:
    """A document that several branches name comes once."""
    await fill(empty, [{"_id": n, "user": f"u{n % 5}", "owner": f"o{n % 3}", "at": n, "n": n} for n in range(60)])
    calls.requests.clear()
    filter = {"$or": [{"user": "u1"}, {"owner": "o2", "n": {"$lt": 30}}, {"_id": {"$in": [1, 2, 7]}}], "n": {"$ne": 6}}
    expected = [n for n in range(60) if n != 6 and (n % 5 == 1 or (n % 3 == 2 and n < 30) or n in (1, 2, 7))]
    assert sorted(each["_id"] for each in await ask(empty, filter)) == expected
    assert "scan" not in calls.verbs
    assert await empty.count("docs", filter) == len(expected)
    answer = await ask(empty, filter, sort=(("_id", -1),), limit=3)
    assert [each["_id"] for each in answer] == expected[:-4:-1]


# ---- what DynamoDB filters itself ----

NUMBERS: Final[list[Any]] = [0.1, Decimal128("0.1"), 2.0**-45, Decimal128("2.8421709430404007434844970703125E-14")]
NUMBERS += [2**60, Int64(2**60 + 1), 2.0**60, 1.5, Decimal128("1.50"), -0.0, 1e300, float("inf"), float("nan"), 7]
NUMBERS += [2**53, 2**53 + 1, float(2**53), 1e-130, 1e-125, Decimal128("1E+30"), 1e30, 0.1 + 0.2, 0.3]


@pytest.mark.takes_turns
async def test_a_filter_on_numbers_and_paths_drops_no_match(empty: DynamoStore, calls: Calls) -> None:
    """Numbers of every type against each other, at the top and below; lists, and values that are kept as BSON."""
    shapes: list[Any] = [*NUMBERS]
    shapes += [
        [{"b": 7}, 7],
        [[{"b": 7}]],
        {"b": [7, 1.5]},
        {"b": {"": 7}},
        {"": 7, "b": 7},
        {"0": {"b": 7}},
        "x",
        None,
    ]
    rows = [{"_id": n, "v": value, "a": {"b": value}, "d": {"e": {"b": value}}} for n, value in enumerate(shapes)]
    rows += [{"_id": 100 + n, "a": value} for n, value in enumerate(shapes)] + [{"_id": 200, "a": {"b": 7}, "": 1}]
    rows = [normalise(row) for row in rows]
    await fill(empty, rows)
    calls.requests.clear()
    for path in ("v", "a.b", "a", "a.0", "a.0.b", "d.e.b", "a.b.1"):
        for value in [*NUMBERS, None, "x"]:
            for operator in ("$eq", "$gt", "$lte"):
                filter = {path: {operator: value}}
                matches = compile_filter(filter).matches
                expected = sorted(row["_id"] for row in rows if matches(row))
                assert sorted(each["_id"] for each in await ask(empty, filter)) == expected, filter
    calls.items = 0
    await ask(empty, {"d.e.b": 1.5})
    assert calls.items == 10  # one by value, the rest is packed, a list or kept as BSON
