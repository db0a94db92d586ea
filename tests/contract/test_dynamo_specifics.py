"""What is DynamoDB's alone: capacity, pages, item limits, key texts, uniqueness items, the client's own retries."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo import errors as pm

from shadow.embedded.servers import CREDENTIALS, FaultProxy
from shadow.model.operation import Applied, Delete, Insert, Query, Replace, Update, Verb, Write
from shadow.model.outcome import Outcome, classify
from shadow.model.schema import CollectionSpec, IndexSpec, UniqueSpec
from shadow.model.values import normalise
from shadow.model.version import ABSENT, Document, Image, Tombstone, Version, fresh_id
from shadow.mongoql import compile_filter
from shadow.stores.dynamo.client.limits import ITEM_LIMIT
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.items.codec import Codec, item_size
from shadow.stores.dynamo.store import DynamoContext, DynamoStore
from shadow.stores.dynamo.write.writes import SWEEP_MARK
from tests.support.drawn import examples
from tests.unit.test_codec import documents as any_document

DOCS = CollectionSpec("docs", (IndexSpec("user-index", "user"), IndexSpec("owner-at-index", "owner", "at")))
USERS = CollectionSpec(
    "users", (), (UniqueSpec("email_1", ("email",), sparse=True), UniqueSpec("a_b", ("a", "b"), True))
)
SPECS = {spec.name: spec for spec in (DOCS, USERS)}

Units = dict[tuple[str, str], float]


class Capacity:
    """Collects what the store says it consumed, by (index, verb)."""

    def __init__(self) -> None:
        self.units: Units = {}

    def __call__(self, table: str, index: str, verb: str, units: float) -> None:
        self.units[index, verb] = self.units.get((index, verb), 0.0) + units

    def taken(self) -> Units:
        taken, self.units = self.units, {}
        return taken


@pytest.fixture(params=["dynamodb_local_url", "ministack_url"])
def url(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def settings_for(url: str, prefix: str, **more: Any) -> DynamoSettings:
    return DynamoSettings(
        region=CREDENTIALS["region_name"],
        endpoint_url=url,
        access_key_id=CREDENTIALS["aws_access_key_id"],
        secret_access_key=CREDENTIALS["aws_secret_access_key"],
        table_prefix=f"{prefix}-",
        **more,
    )


@asynccontextmanager
async def opened(url: str, prefix: str, capacity: Capacity | None = None, **more: Any) -> AsyncIterator[DynamoStore]:
    context = DynamoContext() if capacity is None else DynamoContext(on_capacity=capacity)
    store = DynamoStore(settings_for(url, prefix, **more), SPECS, context=context)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(url: str, fresh_name: str) -> AsyncIterator[DynamoStore]:
    async with opened(url, fresh_name) as made:
        await made.prepare(SPECS.values())
        yield made
        await asyncio.gather(*(made.drop(name) for name in SPECS))


@pytest.fixture
def capacity() -> Capacity:
    return Capacity()


@pytest.fixture
async def counted(dynamodb_local_url: str, fresh_name: str, capacity: Capacity) -> AsyncIterator[DynamoStore]:
    """A store on DynamoDB Local, whose capacity figures are exact."""
    async with opened(dynamodb_local_url, fresh_name, capacity) as made:
        await made.prepare([DOCS])
        capacity.taken()
        yield made
        await made.drop("docs")


async def insert(store: DynamoStore, collection: str, document: Document) -> Applied:
    applied = await store.apply(collection, Insert(document["_id"], document, fresh_id()), fresh_id())
    assert applied is not None
    return applied


async def found(store: DynamoStore, filter: Document, **more: Any) -> list[Document]:
    return [hit.document async for page in store.find("docs", Query(filter, **more)) for hit in page]


async def raw_items(store: DynamoStore, collection: str = "docs") -> list[dict[str, Any]]:
    """All items but the mark of a table with large documents."""
    table = store._table(collection).name
    items: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        answer = await store._gateway.call("scan", table, TableName=table, ConsistentRead=True, **more)
        items += [item for item in answer["Items"] if item["_id"]["S"] != SWEEP_MARK]
        if not answer.get("LastEvaluatedKey"):
            return items
        more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def assert_same(a: Image, b: Image) -> None:
    assert a.state == b.state
    assert bson.encode(a.document or {}) == bson.encode(b.document or {})


def verbs_of(store: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs that the store calls from here on."""
    verbs: list[str] = []
    call = store._gateway.call

    async def listed(verb: str, table: str, **parameters: Any) -> Any:
        verbs.append(verb)
        return await call(verb, table, **parameters)

    monkeypatch.setattr(store._gateway, "call", listed)
    return verbs


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def update(key: Any, operators: Document, **more: Any) -> Update:
    return Update(key, {"_id": key, **more}, operators, fresh_id())


# ---- capacity ----


@pytest.mark.parametrize(("size", "units"), [(100, 1.0), (3_000, 1.0), (5_000, 2.0), (9_000, 3.0), (40_000, 10.0)])
async def test_a_read_by_key_costs_one_unit_per_four_kilobytes(
    counted: DynamoStore, capacity: Capacity, size: int, units: float
) -> None:
    """Strongly consistent: a whole unit for each 4 KB begun, whatever stands beside it in the table."""
    for i in range(5):
        await insert(counted, "docs", {"_id": f"other{i}", "t": "x" * 50_000})
    await insert(counted, "docs", {"_id": "k", "t": "x" * size})
    capacity.taken()
    assert await counted.find_one("docs", Query({"_id": "k"})) is not None
    assert capacity.taken() == {("", "get_item"): units}
    assert (await counted.image("docs", "k")).present
    assert capacity.taken() == {("", "get_item"): units}


async def test_an_index_query_costs_in_proportion_to_what_it_answers(counted: DynamoStore, capacity: Capacity) -> None:
    """Ten of three hundred documents cost about a thirtieth of a scan, at half a unit per 4 KB."""
    rows = [{"_id": i, "user": f"u{i % 30}", "t": "x" * 2_000} for i in range(300)]
    await counted.insert_many(
        "docs", [Insert(d["_id"], d, fresh_id()) for d in rows], [fresh_id()] * 300, ordered=False
    )
    capacity.taken()
    assert len(await found(counted, {"user": "u3"})) == 10
    taken = capacity.taken()
    assert set(taken) == {("user-index", "query")}
    by_index = taken["user-index", "query"]
    assert 2.5 <= by_index <= 4.5
    assert len(await found(counted, {"t": "x" * 2_000})) == 300
    taken = capacity.taken()
    assert set(taken) == {("", "scan")}
    assert taken["", "scan"] > 40 * by_index


async def test_many_keys_travel_in_one_request(
    counted: DynamoStore, capacity: Capacity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`images` of 90 keys is one BatchGetItem of 90 units, in the order asked, repeats and gaps included."""
    for i in range(90):
        await insert(counted, "docs", {"_id": i})
    capacity.taken()
    verbs = verbs_of(counted, monkeypatch)
    images = await counted.images("docs", [*range(89, -1, -1), 5, "none"])
    assert verbs == ["batch_get_item"]
    assert capacity.taken() == {("", "batch_get_item"): 90.0}
    assert [image.document and image.document["_id"] for image in images] == [*range(89, -1, -1), 5, None]


async def test_keys_that_dynamodb_leaves_over_are_asked_for_again(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full answer leaves some over, and so does throttling, of which an empty one is the sign."""
    for i in range(30):
        await insert(store, "docs", {"_id": i})
    call, asked = store._gateway.call, 0

    async def short(verb: str, table: str, **parameters: Any) -> Any:
        nonlocal asked
        ((name, wanted),) = parameters["RequestItems"].items()
        asked += 1
        few, rest = wanted["Keys"][:7], wanted["Keys"][7:]
        if asked == 2:
            return {"Responses": {}, "UnprocessedKeys": {name: wanted}}
        answer = await call(verb, table, **{**parameters, "RequestItems": {name: {**wanted, "Keys": few}}})
        return {**answer, "UnprocessedKeys": {name: {**wanted, "Keys": rest}} if rest else {}}

    monkeypatch.setattr(store._gateway, "call", short)
    images = await store.images("docs", range(30))
    assert [image.document for image in images] == [{"_id": i} for i in range(30)]
    assert asked == 6


async def test_what_scans_is_counted_by_shape(store: DynamoStore) -> None:
    """Values do not count, and the index that is missing is named."""
    await insert(store, "docs", {"_id": 1, "n": 1})
    await insert(store, "docs", {"_id": 2, "n": 2})
    for n in (1, 2, 3):
        await found(store, {"n": n, "s": {"$gt": "a"}})
    await found(store, {"user": "u"})
    (entry,) = store.scans()
    assert entry["collection"] == "docs"
    assert entry["shape"] == "{n: $eq, s: $gt}"
    assert entry["times"] == 3
    assert entry["items_read"] == 6
    assert entry["suggested_index"] == "hash n, range s"


# ---- pages and limits ----


async def test_answers_over_one_megabyte_are_read_to_the_end(store: DynamoStore) -> None:
    """DynamoDB answers at most 1 MB at a time, by scan and by query alike."""
    rows = [{"_id": i, "user": "u", "t": "x" * 100_000} for i in range(35)]
    await asyncio.gather(*(insert(store, "docs", row) for row in rows))
    assert sorted(d["_id"] for d in await found(store, {})) == list(range(35))
    assert sorted(d["_id"] for d in await found(store, {"user": "u"})) == list(range(35))
    assert await store.count("docs", {}) == 35
    assert await store.count("docs", {"user": "u"}) == 35
    assert len(await found(store, {}, limit=3)) == 3
    assert [d["_id"] for d in await found(store, {}, sort=(("_id", -1),), skip=2, limit=3)] == [32, 31, 30]


@pytest.mark.parametrize("over", [-2, -1, 0, 1, 2])
async def test_documents_at_the_item_limit_are_kept_whole(dynamodb_local_url: str, fresh_name: str, over: int) -> None:
    """The size is computed as DynamoDB computes it: up to the last byte the item is natural, then packed."""
    base = item_size(Codec(DOCS).encode("k", Version("b" * 24, 1), {"_id": "k", "t": ""}, "o" * 24).item)
    document = {"_id": "k", "t": "x" * (ITEM_LIMIT - base + over)}
    async with opened(dynamodb_local_url, fresh_name) as store:
        await store.prepare([DOCS])
        applied = await store.apply("docs", Insert("k", document, "b" * 24), "o" * 24)
        assert applied is not None
        (item,) = await raw_items(store)
        assert ("t" in item) == (over <= 0)
        assert (await store.image("docs", "k")).document == document
        await store.drop("docs")


@settings(
    max_examples=examples(32),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(any_document, min_size=8, max_size=8))
def test_every_document_survives_the_table(url: str, documents: list[Document]) -> None:
    """Whatever the codec makes is taken by the server, and comes back to the byte."""

    async def round_trip() -> None:
        async with opened(url, f"survives{os.getpid()}") as store:
            await store.prepare([DOCS])
            for document in map(normalise, documents):
                image = Image(Version("b", 1), document)
                there = await store.image("docs", document["_id"])
                assert await store.put("docs", document["_id"], image, there.state)
                back = (await store.image("docs", document["_id"])).document
                assert back is not None
                assert bson.encode(back) == bson.encode(document)

    asyncio.run(round_trip())


# ---- large documents ----


async def test_a_large_document_is_one_document_everywhere(store: DynamoStore) -> None:
    """Its parts are in no find, no count and no index; updates and deletes leave none of the old ones."""
    large = {"_id": "large", "user": "u", "data": noise(2_000_000), "n": 1}
    await insert(store, "docs", large)
    await insert(store, "docs", {"_id": "small", "user": "u", "n": 2})
    assert len(await raw_items(store)) > 5
    assert await store.count("docs", {}) == 2
    assert await found(store, {"n": 1}) == [large]
    assert {d["_id"] for d in await found(store, {"user": "u"})} == {"large", "small"}
    assert (await store.images("docs", ["large"]))[0].document == large
    applied = await store.apply("docs", update("large", {"$set": {"n": 7}}), fresh_id())
    assert applied is not None
    assert applied.post.document == {**large, "n": 7}
    assert await found(store, {"_id": "large"}) == [{**large, "n": 7}]
    parts = [item for item in await raw_items(store) if item["_id"]["S"].startswith("~part:")]
    assert len(parts) == 6
    deleted = await store.apply("docs", Delete("large", {"_id": "large"}, "t"), fresh_id())
    assert deleted is not None
    assert deleted.pre.document == {**large, "n": 7}
    assert [item["_id"]["S"] for item in await raw_items(store)] == ["small"]


async def test_fifteen_megabytes_come_back(dynamodb_local_url: str, fresh_name: str) -> None:
    """MongoDB's own limit is the limit."""
    document = {"_id": "k", "data": [Binary(noise(1_000_000 + i), 0) for i in range(15)]}
    async with opened(dynamodb_local_url, fresh_name) as store:
        await store.prepare([DOCS])
        await insert(store, "docs", normalise(document))
        assert (await store.image("docs", "k")).document == normalise(document)
        with pytest.raises(pm.DocumentTooLarge):
            await insert(store, "docs", {"_id": "k2", "data": noise(17_000_000)})
        await store.drop("docs")


@pytest.mark.parametrize("died_at", range(5))
async def test_a_writer_that_dies_leaves_the_old_or_the_new_document_whole(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch, died_at: int
) -> None:
    """Killed after any number of its requests, a replacement of one large document by another is all or nothing, and
    `sweep` removes what nothing names."""
    old, new = ({"_id": "k", "data": noise(size)} for size in (700_000, 800_000))
    await insert(store, "docs", old)
    call = store._gateway.call
    left = died_at

    async def dying(verb: str, table: str, **parameters: Any) -> Any:
        nonlocal left
        if verb in ("put_item", "delete_item"):
            if not left:
                raise RuntimeError("killed")
            left -= 1
        return await call(verb, table, **parameters)

    with monkeypatch.context() as patched:
        patched.setattr(store._gateway, "call", dying)
        with pytest.raises(RuntimeError):
            await store.apply("docs", Replace("k", {"_id": "k"}, new, fresh_id()), fresh_id())
    image = await store.image("docs", "k")
    assert image.document in (old, new)
    assert image.document == (new if died_at >= 4 else old)
    await store.sweep("docs", dt.timedelta(seconds=-5))
    assert (await store.image("docs", "k")).document == image.document
    parts = [item for item in await raw_items(store) if item["_id"]["S"].startswith("~part:")]
    assert len(parts) == (2 if image.document == old else 3)


async def test_readers_of_a_large_document_see_it_whole_while_it_changes(store: DynamoStore) -> None:
    """A reader that holds an old head finds its parts gone, and reads the head again."""
    states = [{"_id": "k", "n": n, "data": noise(500_000 + n)} for n in range(6)]
    await insert(store, "docs", states[0])

    async def write() -> None:
        for state in states[1:]:
            await store.apply("docs", Replace("k", {"_id": "k"}, state, fresh_id()), fresh_id())

    async def read(writing: asyncio.Task[None]) -> None:
        while not writing.done():
            image = await store.image("docs", "k")
            assert image.document in states

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, *(read(writing) for _ in range(3)))


async def test_a_lost_race_leaves_no_parts_behind(store: DynamoStore) -> None:
    """The loser of two large inserts removes what it wrote."""
    tries = [insert(store, "docs", {"_id": "k", "data": noise(600_000 + n)}) for n in range(4)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, Applied) for result in results) == 1
    assert sum(isinstance(result, pm.DuplicateKeyError) for result in results) == 3
    assert len(await raw_items(store)) == 3


# ---- uniqueness ----


async def test_one_of_many_concurrent_inserts_of_a_value_wins(store: DynamoStore) -> None:
    """The others get MongoDB's DuplicateKeyError, with its code and details."""
    rows = [{"_id": i, "email": "x@y"} for i in range(12)]
    results = await asyncio.gather(*(insert(store, "users", row) for row in rows), return_exceptions=True)
    refused = [result for result in results if isinstance(result, pm.DuplicateKeyError)]
    assert len(refused) == 11
    assert refused[0].details is not None
    assert refused[0].details["keyPattern"] == {"email": 1}
    assert refused[0].details["keyValue"] == {"email": "x@y"}
    assert refused[0].code == 11000
    assert await store.count("users", {}) == 1


async def test_a_value_is_free_again_when_its_document_lets_go(store: DynamoStore) -> None:
    """By update, replacement, deletion, tombstone; and is kept by an update that keeps it."""
    await insert(store, "users", {"_id": 1, "email": "a"})
    await store.apply("users", update(1, {"$set": {"n": 1}}), fresh_id())
    with pytest.raises(pm.DuplicateKeyError):
        await insert(store, "users", {"_id": 2, "email": "a"})
    await store.apply("users", update(1, {"$set": {"email": "b"}}), fresh_id())
    await insert(store, "users", {"_id": 2, "email": "a"})
    with pytest.raises(pm.DuplicateKeyError):
        await store.apply("users", update(1, {"$set": {"email": "a"}}), fresh_id())
    await store.apply("users", Delete(2, {"_id": 2}, "t"), fresh_id())
    await store.apply("users", update(1, {"$set": {"email": "a"}}), fresh_id())
    there = (await store.image("users", 1)).state
    assert await store.put("users", 1, Image(Tombstone("t")), there)
    await insert(store, "users", {"_id": 3, "email": "a"})
    await insert(store, "users", {"_id": 4})
    await insert(store, "users", {"_id": 5})


async def test_compound_and_multikey_values_are_unique_as_in_mongodb(store: DynamoStore) -> None:
    """Each element of an array counts; a tuple counts as a whole; numbers are equal by value."""
    await insert(store, "users", {"_id": 1, "email": ["x", "y"], "a": 1, "b": 2})
    with pytest.raises(pm.DuplicateKeyError):
        await insert(store, "users", {"_id": 2, "email": "y"})
    with pytest.raises(pm.DuplicateKeyError):
        await insert(store, "users", {"_id": 2, "a": 1.0, "b": Int64(2)})
    await insert(store, "users", {"_id": 2, "a": 1, "b": 3})
    with pytest.raises(pm.DuplicateKeyError):
        await store.apply("users", update(2, {"$set": {"b": Decimal128("2")}}), fresh_id())


async def test_the_side_that_follows_says_so_when_a_value_is_taken(store: DynamoStore) -> None:
    """An error, for a write that is silently not made would be lost."""
    await insert(store, "users", {"_id": 1, "email": "x"})
    document = {"_id": 2, "email": "x"}
    write = Write("users", Verb.INSERT_ONE, "op", Insert(2, document, "b"), ABSENT, Image(Version("b", 1), document))
    with pytest.raises(pm.DuplicateKeyError):
        await store.replay("users", write)
    with pytest.raises(pm.DuplicateKeyError):
        await store.put("users", 2, Image(Version("b", 1), document), ABSENT)
    assert (await store.image("users", 2)).state == ABSENT


async def test_concurrent_changes_of_unique_values_keep_the_items_true(store: DynamoStore) -> None:
    """However the updates interleave, each value has exactly the owner that holds it."""
    for i in range(4):
        await insert(store, "users", {"_id": i, "email": f"e{i}"})
    chance = random.Random(5)
    changes = [update(chance.randrange(4), {"$set": {"email": f"e{chance.randrange(7)}"}}) for _ in range(60)]
    results = await asyncio.gather(
        *(store.apply("users", change, fresh_id()) for change in changes), return_exceptions=True
    )
    assert all(isinstance(result, Applied | pm.DuplicateKeyError) for result in results)
    items = await raw_items(store, "users")
    owners = sorted(item["_shadow"]["M"]["w"]["S"] for item in items if "w" in item["_shadow"]["M"])
    assert owners == ["~num:0", "~num:1", "~num:2", "~num:3"]
    emails = [(await store.image("users", i)).document for i in range(4)]
    assert len({document["email"] for document in emails if document}) == 4


# ---- key texts in the indexes ----


MIXED: list[Any] = ["u", "", "~u", str(ObjectId()), ObjectId(), 5, 5.5, Int64(6), True, None, dt.datetime(2020, 1, 1)]
MIXED += [["u", 5], [], [None], {"a": 1}, "x" * 3000, Decimal128("5.0"), b"bytes", dt.datetime(1969, 1, 1), "zebra"]


async def test_an_index_answers_as_a_scan_would(store: DynamoStore) -> None:
    """Equality, $in and ranges over fields of every type, arrays included, against matching in memory."""
    documents = [{"_id": i, "user": value, "owner": "o", "at": value} for i, value in enumerate(MIXED)]
    documents += [{"_id": 100}, {"_id": 101, "owner": "o"}, {"_id": 102, "owner": ["o", "p"], "at": "u"}]
    await asyncio.gather(*(insert(store, "docs", document) for document in documents))
    filters: list[Document] = [{"user": value} for value in MIXED]
    filters += [{"user": {"$in": [a, b]}} for a, b in zip(MIXED, MIXED[3:], strict=False)]
    filters += [
        {"owner": "o", "at": {operator: v}} for v in MIXED for operator in ("$eq", "$gt", "$gte", "$lt", "$lte")
    ]
    filters += [{"owner": "o", "at": {"$gte": "", "$lt": "x"}}, {"owner": "p"}, {"owner": "o"}]
    for one in filters:
        matches = compile_filter(one).matches
        expected = {document["_id"] for document in documents if matches(document)}
        answer = [document["_id"] for document in await found(store, one)]
        assert len(answer) == len(set(answer))
        assert set(answer) == expected, one


@pytest.mark.takes_turns
async def test_a_scan_drops_no_match(store: DynamoStore) -> None:
    """The conditions that DynamoDB applies itself let through every document that matches."""
    values = [*MIXED, -0.0, 0, 0.0, Decimal128("0E+3"), float("nan"), 1e300, {}, [[1]], [{"a": 1}], "a", False]
    documents: list[Document] = [{"_id": i, "v": value} for i, value in enumerate(values)]
    documents += [{"_id": 100}, {"_id": 101, "v": 5, "": 1}, {"_id": 102, "v": "u", "data": noise(450_000)}]
    await asyncio.gather(*(insert(store, "docs", document) for document in documents))
    filters: list[Document] = [{"v": value} for value in values]
    filters += [{"v": {operator: v}} for v in values for operator in ("$gt", "$gte", "$lt", "$lte", "$ne")]
    filters += [{"v": {"$exists": True}}, {"v": {"$exists": False}}, {"v": {"$type": "string"}}]
    for one in filters:
        matches = compile_filter(one).matches
        expected = {document["_id"] for document in documents if matches(document)}
        assert {document["_id"] for document in await found(store, one)} == expected, one


async def test_index_reads_can_be_verified_against_the_table(
    url: str, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting on, what an index names is read from the table before it is matched."""
    async with opened(url, fresh_name, verify_index_reads=True) as store:
        await store.prepare([DOCS])
        await insert(store, "docs", {"_id": 1, "user": "u"})
        await insert(store, "docs", {"_id": 2, "user": "u"})
        verbs = verbs_of(store, monkeypatch)
        assert len(await found(store, {"user": "u"})) == 2
        assert verbs[-1] == "batch_get_item"
        await store.drop("docs")


# ---- tombstones and versions ----


async def test_tombstones_are_seen_by_image_alone(store: DynamoStore) -> None:
    """Hidden from find, count and indexes; they expire; the answering side may insert over one, the other not."""
    document = {"_id": "k", "user": "u"}
    await insert(store, "docs", document)
    state = (await store.image("docs", "k")).state
    write = Write("docs", Verb.DELETE_ONE, "op", Delete("k", {"_id": "k"}, "t1"), state, Image(ABSENT))
    assert await store.replay("docs", write) == Image(Tombstone("t1"))
    assert await store.image("docs", "k") == Image(Tombstone("t1"))
    for filter in ({}, {"_id": "k"}, {"user": "u"}, {"_id": {"$in": ["k", "z"]}}):
        assert await found(store, filter) == []
        assert await store.count("docs", filter) == 0
    (item,) = await raw_items(store)
    assert "_shadow_ttl" in item
    followed = Write(
        "docs", Verb.INSERT_ONE, "op2", Insert("k", document, "b"), ABSENT, Image(Version("b", 1), document)
    )
    assert await store.replay("docs", followed) is None
    assert (await insert(store, "docs", document)).pre == Image(ABSENT)


async def test_time_to_live_is_on_for_the_attribute_of_tombstones(store: DynamoStore) -> None:
    """DynamoDB itself removes them in the end."""
    name = store._table("docs").name
    answer = await store._gateway.call("describe_time_to_live", name, TableName=name)
    assert answer["TimeToLiveDescription"]["AttributeName"] == "_shadow_ttl"


async def test_an_item_of_another_writer_can_be_changed(store: DynamoStore) -> None:
    """It is at version ("", 0), and conditions on that version hold for it."""
    table = store._table("docs").name
    for key in ("a", "b", "c"):
        item = {"_id": {"S": key}, "n": {"N": "1"}}
        await store._gateway.call("put_item", table, TableName=table, Item=item)
    applied = await store.apply("docs", update("a", {"$inc": {"n": 1}}), fresh_id())
    assert applied is not None
    assert applied.pre.state == Version("", 0)
    assert applied.post == Image(Version("", 1), {"_id": "a", "n": 2})
    assert await store.put("docs", "b", Image(Version("b", 5), {"_id": "b"}), Version("", 0))
    assert not await store.put("docs", "c", Image(Version("b", 5), {"_id": "c"}), Version("", 1))


async def test_concurrent_increments_all_count(store: DynamoStore) -> None:
    """A lost race continues from what the winner left."""
    await insert(store, "docs", {"_id": 1, "n": 0})
    await asyncio.gather(*(store.apply("docs", update(1, {"$inc": {"n": 1}}), fresh_id()) for _ in range(40)))
    image = await store.image("docs", 1)
    assert image.document == {"_id": 1, "n": 40}
    assert isinstance(image.state, Version)
    assert image.state.rev == 41


# ---- one round trip ----


async def test_common_updates_take_one_request(store: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the side that follows, where the version is known: $set of a field that is there with a value of its type,
    $inc of an int. The side that answers reads first, for every write of it has to name the version it replaces."""
    moment = dt.datetime(2020, 1, 1)
    await insert(store, "docs", {"_id": "k", "s": "x", "n": 1, "t": moment, "f": 1.5, "z": [1.5], "a": None})
    verbs = verbs_of(store, monkeypatch)
    later = {"s": "y", "t": moment + dt.timedelta(days=1), "f": 2.5, "z": [3.5, 4.5]}
    applied = await store.apply("docs", update("k", {"$set": later}), fresh_id())
    assert applied is not None
    assert applied.pre.document is not None
    assert applied.post.document is not None
    assert isinstance(applied.post.state, Version)
    assert verbs == ["get_item", "put_item"]
    assert list(applied.post.document.items()) == list({**applied.pre.document, **later}.items())
    change = update("k", {"$set": {**later, "s": "z"}, "$inc": {"n": 1}})
    write = Write("docs", Verb.UPDATE_ONE, "op", change, applied.post.state, Image(ABSENT))
    image = await store.replay("docs", write)
    assert verbs[2:] == ["update_item"]
    assert image is not None
    assert list((image.document or {}).items()) == list({**applied.pre.document, **later, "s": "z", "n": 2}.items())
    assert image == await store.image("docs", "k")
    assert await store.replay("docs", write) is None
    assert await store.image("docs", "k") == image


@pytest.mark.takes_turns
async def test_an_update_means_the_same_however_it_is_made(store: DynamoStore) -> None:
    """What the table holds after an update in one request is what the update means, to the byte."""
    chance = random.Random(11)
    values = [5, 2**31 - 1, -(2**31), Int64(7), Int64(2**40), 1.5, -0.0, "x", "", None, True, dt.datetime(2020, 1, 1)]
    values += [[1], [1.5, 2.5], [], {}, {"b": 1, "a": 2}, {"a": 1.5, "b": 2.5}, ObjectId(), Decimal128("1.50"), b"x"]
    names = ["a", "b", "~c", "Z", "d e"]
    for key in range(60):
        fields = chance.sample(names, chance.randrange(1, 6))
        await insert(store, "docs", {"_id": key, **{name: chance.choice(values) for name in fields}})
        for _ in range(4):
            operators: Document = {"$set": {name: chance.choice(values) for name in chance.sample(names, 2)}}
            left = [name for name in names if name not in operators["$set"]]
            if chance.random() < 0.5:
                operators["$inc"] = {chance.choice(left): chance.choice([1, -1, 2**31 - 1, -(2**31), 1.5, Int64(1)])}
            before = await store.image("docs", key)
            try:
                applied = await store.apply("docs", update(key, operators), fresh_id())
            except pm.WriteError:
                assert await store.image("docs", key) == before
                continue
            assert applied is not None
            assert isinstance(applied.post.state, Version)
            assert_same(await store.image("docs", key), applied.post)
            assert_same(before, applied.pre)
            write = Write("docs", Verb.UPDATE_ONE, "op", update(key, operators), applied.post.state, applied.post)
            with contextlib.suppress(pm.WriteError):
                followed = await store.replay("docs", write)
                assert followed is not None
                assert_same(await store.image("docs", key), followed)


async def test_an_update_goes_the_general_way_where_it_must(store: DynamoStore) -> None:
    """Nothing there, a tombstone, an index field, a packed document, an item that would grow too large."""
    change = update("k", {"$set": {"s": "x"}})
    assert await store.apply("docs", change, fresh_id()) is None
    assert await store.put("docs", "k", Image(Tombstone("t")), ABSENT)
    assert await store.apply("docs", change, fresh_id()) is None
    upserted = await store.apply("docs", Update("k", {"_id": "k"}, {"$set": {"s": "x"}}, "b", upsert=True), fresh_id())
    assert upserted == Applied(Image(ABSENT), Image(Version("b", 1), {"_id": "k", "s": "x"}))
    await insert(store, "docs", {"_id": "u", "user": "u", "s": "x", "data": noise(300_000)})
    for value in ("v", "~v", None):
        await store.apply("docs", update("u", {"$set": {"user": value}}), fresh_id())
        assert [d["_id"] for d in await found(store, {"user": value, "_id": {"$gte": "u"}})] == ["u"]
    grown = await store.apply("docs", update("u", {"$set": {"s": "y" * 150_000}}), fresh_id())
    assert grown is not None
    again = await store.apply("docs", update("u", {"$set": {"s": "z"}}), fresh_id())
    assert again is not None
    assert (await store.image("docs", "u")).document == {**(grown.post.document or {}), "s": "z"}


# ---- batches ----


async def test_many_inserts_travel_in_batches(store: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-five a request; what cannot go that way goes alone, with the same results."""
    await insert(store, "docs", {"_id": 7})
    assert await store.put("docs", 8, Image(Tombstone("t")), ABSENT)
    verbs = verbs_of(store, monkeypatch)
    rows: list[Document] = [{"_id": i, "user": "u", "f": i / 7} for i in range(100)]
    rows += [{"_id": 5, "again": 1}, {"_id": 200, "it's": 1}, {"_id": 201, "": 1}, {"_id": 202, "n": 2**70}]
    inserts = [Insert(row["_id"], row, fresh_id()) for row in rows]
    results = await store.insert_many("docs", inserts, [fresh_id() for _ in rows], ordered=False)
    assert verbs.count("batch_execute_statement") == 5
    refused = {place: type(result) for place, result in enumerate(results) if not isinstance(result, Applied)}
    assert refused == {7: pm.DuplicateKeyError, 100: pm.DuplicateKeyError, 103: OverflowError}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Applied):
            assert await store.image("docs", row["_id"]) == result.post


async def test_an_ordered_insert_stops_at_the_first_refusal(store: DynamoStore) -> None:
    """What comes after it is not attempted."""
    await insert(store, "docs", {"_id": 2})
    inserts = [Insert(i, {"_id": i}, fresh_id()) for i in range(5)]
    results = await store.insert_many("docs", inserts, [fresh_id() for _ in inserts], ordered=True)
    assert [type(result) for result in results] == [Applied, Applied, pm.DuplicateKeyError, type(None), type(None)]
    assert await store.count("docs", {}) == 3


async def test_many_copies_travel_in_batches(store: DynamoStore) -> None:
    """`put_many` keeps the fence of each."""
    await insert(store, "docs", {"_id": 1})
    state = (await store.image("docs", 1)).state
    puts: list[tuple[Any, Image, Any]] = [(i, Image(Version("c", 1), {"_id": i}), ABSENT) for i in range(40)]
    puts += [(1, Image(Version("d", 1), {"_id": 1, "d": 1}), state), (50, Image(Tombstone("t")), ABSENT)]
    puts += [(2, Image(Tombstone("t")), state)]
    results = await store.put_many("docs", puts)
    assert results == [True, False, *[True] * 38, True, True, False]
    assert await store.image("docs", 50) == Image(Tombstone("t"))


async def test_a_batch_whose_answer_was_lost_is_known_all_the_same(
    store: DynamoStore, through: FaultProxy, fresh_name: str
) -> None:
    """The second attempt finds the first one's items, and knows them for its own."""
    async with opened(through.url, fresh_name) as shaky:
        await shaky.ping()
        through.set("cut", only=b".BatchExecuteStatement", times=1)
        inserts = [Insert(i, {"_id": i}, f"b{i}") for i in range(10)]
        results = await shaky.insert_many("docs", inserts, [fresh_id() for _ in inserts], ordered=False)
        assert all(isinstance(result, Applied) for result in results)
        through.set("cut", only=b".BatchExecuteStatement", times=1)
        puts = [(i, Image(Version("c", 1), {"_id": i}), ABSENT) for i in range(20, 30)]
        assert await shaky.put_many("docs", puts) == [True] * 10
        assert through.faults == 2


# ---- the way there ----


@pytest.fixture
def through(url: str, new_proxy: Callable[[str], FaultProxy]) -> Iterator[FaultProxy]:
    return new_proxy(url)  # type: ignore[return-value]


async def test_an_answer_lost_on_the_way_is_recognised_as_our_own_write(
    store: DynamoStore, through: FaultProxy, fresh_name: str
) -> None:
    """The server applies the write, the connection breaks, the client sends it again: it counts once, as done."""
    async with opened(through.url, fresh_name) as shaky:
        await shaky.ping()
        through.set("cut", only=b".PutItem", times=1)
        applied = await shaky.apply("docs", Insert("k", {"_id": "k", "n": 0}, "b"), "op1")
        assert applied == Applied(Image(ABSENT), Image(Version("b", 1), {"_id": "k", "n": 0}))
        through.set("cut", only=b".PutItem", times=1)
        applied = await shaky.apply("docs", update("k", {"$mul": {"n": 1}, "$set": {"m": 1}}), "op2")
        assert applied is not None
        assert applied.post.document == {"_id": "k", "n": 0, "m": 1}
        through.set("cut", only=b".UpdateItem", times=1)
        post = Image(Version("b", 3), {"_id": "k", "n": 2, "m": 1})
        write = Write("docs", Verb.UPDATE_ONE, "op3", update("k", {"$inc": {"n": 2}}), Version("b", 2), post)
        assert await shaky.replay("docs", write) == post
        through.set("cut", only=b".PutItem", times=1)
        assert await shaky.put("docs", "k", Image(Tombstone("t")), Version("b", 3))
        assert through.faults >= 4
    assert (await store.image("docs", "k")).state == Tombstone("t")


@pytest.mark.parametrize("verb", [b".PutItem", b".DeleteItem"])
async def test_a_write_that_arrives_late_changes_nothing(
    store: DynamoStore, through: FaultProxy, fresh_name: str, verb: bytes
) -> None:
    """A request hangs on the way, the caller gives up, others go on; when it arrives it finds another version."""
    await insert(store, "docs", {"_id": "k", "n": 0})
    deleting = verb == b".DeleteItem"
    change = Delete("k", {"_id": "k"}, "t") if deleting else update("k", {"$set": {"n": 1}})
    async with opened(through.url, fresh_name, max_attempts=1, read_timeout=0.5) as shaky:
        await shaky.ping()
        through.set("hang", only=verb)
        with pytest.raises(pm.NetworkTimeout):
            await shaky.apply("docs", change, "op")
        await store.apply("docs", Delete("k", {"_id": "k"}, "t"), fresh_id())
        later = await insert(store, "docs", {"_id": "k", "n": 7})
        through.clear()
        await shaky.apply("docs", update("other", {"$set": {"n": 1}}), fresh_id())
    assert await store.image("docs", "k") == later.post


async def test_a_transaction_is_applied_once_although_it_is_sent_twice(
    store: DynamoStore, through: FaultProxy, fresh_name: str
) -> None:
    """Its client token says that it is the same."""
    async with opened(through.url, fresh_name) as shaky:
        await shaky.ping()
        through.set("cut", only=b".TransactWriteItems", times=1)
        applied = await shaky.apply("users", Insert(1, {"_id": 1, "email": "x"}, "b"), "op1")
        assert applied is not None
        assert through.faults == 1
    assert (await store.image("users", 1)).state == Version("b", 1)


async def test_a_delete_whose_answer_was_lost_is_unknown(
    store: DynamoStore, through: FaultProxy, fresh_name: str
) -> None:
    """Nothing is there on the second attempt, and who took it cannot be known: not "nothing matched"."""
    await insert(store, "docs", {"_id": "k"})
    async with opened(through.url, fresh_name) as shaky:
        await shaky.ping()
        through.set("cut", only=b".DeleteItem", times=1)
        with pytest.raises(pm.AutoReconnect) as caught:
            await shaky.apply("docs", Delete("k", {"_id": "k"}, "t"), "op")
        assert classify(caught.value) is Outcome.UNKNOWN


@pytest.mark.parametrize(("mode", "kind"), [("refuse", pm.AutoReconnect), ("throttle", pm.OperationFailure)])
async def test_an_unreachable_or_throttling_server_is_unknown(
    through: FaultProxy, fresh_name: str, mode: Any, kind: type[Exception]
) -> None:
    """Said in the driver's exceptions."""
    async with opened(through.url, fresh_name, max_attempts=2) as store:
        await store.ping()
        through.set(mode)
        with pytest.raises(kind) as caught:
            await store.apply("docs", Insert(1, {"_id": 1}, "b"), "op")
        assert classify(caught.value) is Outcome.UNKNOWN


async def test_a_hanging_server_costs_no_more_than_the_time_limits(through: FaultProxy, fresh_name: str) -> None:
    """The read timeout ends the wait."""
    async with opened(through.url, fresh_name, max_attempts=1, read_timeout=0.3) as store:
        await store.ping()
        through.set("hang")
        with pytest.raises(pm.NetworkTimeout):
            await store.find_one("docs", Query({"_id": 1}))


async def test_a_missing_table_says_how_to_make_it(url: str, fresh_name: str) -> None:
    """Code 26, NamespaceNotFound, and the command."""
    async with opened(url, fresh_name) as store:
        with pytest.raises(pm.OperationFailure, match="shadow tables create") as caught:
            await store.find_one("docs", Query({"_id": 1}))
        assert caught.value.code == 26


async def test_a_client_that_was_handed_in_stays_open(url: str, fresh_name: str) -> None:
    """It belongs to whoever made it."""
    async with aioboto3.Session().client("dynamodb", endpoint_url=url, **CREDENTIALS) as client:
        store = DynamoStore(settings_for(url, fresh_name), SPECS, client=client)
        await store.ping()
        await store.close()
        await store.close()
        assert "TableNames" in await client.list_tables()


async def test_more_calls_than_connections_all_get_their_turn(url: str, fresh_name: str) -> None:
    """The limit before the pool is first come, first served."""
    async with opened(url, fresh_name, max_concurrency=4) as store:
        await store.prepare([DOCS])
        await asyncio.gather(*(insert(store, "docs", {"_id": i}) for i in range(60)))
        assert await store.count("docs", {}) == 60
        await store.drop("docs")


@pytest.mark.parametrize("url", ["roomy_dynamodb_local_url", "ministack_url"], indirect=True)
async def test_preparing_adds_a_missing_index_and_every_document_is_found_through_it(store: DynamoStore) -> None:
    """Documents written before the index was declared stand in the table with natural values; the new index wants key
    texts. Run again, preparing does nothing; versions do not move."""
    values = ["e", "~e", str(ObjectId()), ObjectId(), 5, 5.5, None, ["e", "f"], dt.datetime(2020, 1, 1)]
    documents = [{"_id": i, "extra": value, "data": "x"} for i, value in enumerate(values)]
    documents += [{"_id": 100}, {"_id": 101, "extra": "e", "at2": 1, "data": noise(600_000)}]
    for document in documents:
        await insert(store, "docs", document)
    before = await store.images("docs", [document["_id"] for document in documents])
    more = CollectionSpec("docs", (*DOCS.indexes, IndexSpec("extra-index", "extra", "at2")))
    await store.prepare([DOCS])
    await store.prepare([more])
    for value in values:
        matches = compile_filter({"extra": value}).matches
        answer = {document["_id"] for document in await found(store, {"extra": value})}
        assert answer == {document["_id"] for document in documents if matches(document)}
    assert await store.images("docs", [document["_id"] for document in documents]) == before
    assert [entry["shape"] for entry in store.scans()] == ["{extra: $eq}"]  # null, which no index holds
    assert await store.reindex("docs") == 0


def test_the_description_hides_credentials() -> None:
    """What /status shows of an endpoint."""
    keys = {"access_key_id": "secret", "secret_access_key": "secret"}
    hidden = DynamoSettings(endpoint_url="http://user:secret@localhost:8000", **keys)
    assert "secret" not in str(DynamoStore(hidden, {}).describe())
