"""The contract of `stores.base`: reads, and what a value or a key may be. Every store is held to the same tests,
and so is the router over two of them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any, Final

import bson
import pytest
import pytest_asyncio
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from pymongo.errors import DuplicateKeyError

from shadow.model.operation import Hit, Insert, Query, Replace, Update
from shadow.model.order import key_digest, sort_documents
from shadow.model.version import ABSENT, Document, Image, Tombstone, Version, fresh_id
from shadow.mongoql import compile_filter, compile_projection
from tests.support.backends import BACKENDS, ROUTED, Backend, open_backend
from tests.support.drawn import Draws, in_one_deployment

pytestmark = [pytest.mark.asyncio(loop_scope="module"), in_one_deployment("unopened_backend")]

SHARED: Final = Backend.shared


@pytest.fixture(scope="module", params=(*BACKENDS, *ROUTED))
def unopened_backend(request: pytest.FixtureRequest, draws: Draws) -> Backend:
    return open_backend(request.param, request.getfixturevalue, draws.of_node(request.node))


DOCUMENTS: Final[list[Document]] = [
    {
        "_id": f"n{n:02}",
        "n": n,
        "owner": ("ada", "bob", "cyd")[n % 3],
        "sub": {"a": n % 4, "b": str(n)},
        "list": [n, n + 1, {"x": n}],
        **({"maybe": n} if n % 2 else {}),
        **({"maybe": None} if n % 10 == 4 else {}),
    }
    for n in range(25)
]


def codes(documents: Iterable[Document]) -> list[bytes]:
    return [bson.encode(document) for document in documents]


async def read(backend: Backend, collection: str, query: Query) -> list[Hit]:
    return [hit async for page in backend.store.find(collection, query) for hit in page]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(backend: Backend) -> str:
    """A collection with DOCUMENTS, each at (id, 1), and with as many tombstones among them."""
    collection = await backend.fresh()
    for document in DOCUMENTS:
        image = Image(Version(f"born-{document['_id']}", 1), document)
        assert await backend.store.put(collection, document["_id"], image, ABSENT)
        await backend.store.put(collection, f"dead-{document['_id']}", Image(Tombstone(fresh_id())), ABSENT)
    return collection


# --- filter, sort, window ---------------------------------------------------------------------------------------

FILTERS: Final[list[Document]] = [
    {},
    {"_id": "n03"},
    {"_id": "dead-n03"},
    {"_id": {"$in": ["n01", "dead-n02", "n05", "nowhere"]}},
    {"_id": {"$gte": "n20"}},
    {"owner": "bob"},
    {"owner": {"$in": ["ada", "cyd"]}, "n": {"$lt": 9}},
    {"owner": "ada", "sub.a": 2},
    {"maybe": None},
    {"maybe": {"$exists": False}},
    {"$or": [{"n": 3}, {"owner": "cyd", "n": {"$gt": 20}}]},
    {"$nor": [{"n": {"$gt": 2}}]},
    {"list.x": {"$gte": 22}},
    {"list": 7},
    {"sub": {"a": 1, "b": "5"}},
    {"sub": {"b": "5", "a": 1}},
    {"owner": Regex("^b")},
    {"nothing": 1},
]


@pytest.mark.parametrize("filter", FILTERS, ids=str)
async def test_find_and_count_answer_the_documents_that_match_and_no_tombstone(
    backend: Backend, library: str, filter: Document
) -> None:
    matches = compile_filter(filter).matches
    expected = {document["_id"]: document for document in DOCUMENTS if matches(document)}
    hits = await read(backend, library, Query(filter))
    assert sorted(hit.key for hit in hits) == sorted(expected)
    for hit in hits:
        assert hit.version == Version(f"born-{hit.key}", 1)
        assert bson.encode(hit.document) == bson.encode(expected[hit.key])
    assert await backend.store.count(library, filter) == len(expected)
    first = await backend.store.find_one(library, Query(filter))
    assert first.document in expected.values() if first is not None else not expected


@pytest.mark.parametrize(
    "sort",
    [(("n", -1),), (("owner", 1), ("n", -1)), (("maybe", 1), ("_id", 1)), (("sub.b", 1),), (("list", -1), ("_id", 1))],
    ids=str,
)
@pytest.mark.parametrize(("skip", "limit"), [(0, 0), (0, 4), (5, 0), (3, 7), (24, 5), (30, 3)])
async def test_find_sorts_then_skips_then_limits(
    backend: Backend, library: str, sort: tuple[tuple[str, int], ...], skip: int, limit: int
) -> None:
    ordered = sort_documents(list(DOCUMENTS), sort)[skip : skip + limit if limit else None]
    hits = await read(backend, library, Query({}, sort=sort, skip=skip, limit=limit, batch_size=3))
    assert [hit.document["_id"] for hit in hits] == [document["_id"] for document in ordered]
    first = await backend.store.find_one(library, Query({}, sort=sort, skip=skip))
    assert (first.key if first else None) == (ordered[0]["_id"] if ordered else None)


@pytest.mark.parametrize(
    ("skip", "limit", "expected"), [(0, 0, 9), (0, 4, 4), (5, 0, 4), (7, 7, 2), (9, 1, 0), (20, 0, 0)]
)
async def test_count_and_unsorted_find_keep_to_skip_and_limit(
    backend: Backend, library: str, skip: int, limit: int, expected: int
) -> None:
    assert await backend.store.count(library, {"owner": "ada"}, skip, limit) == expected
    hits = await read(backend, library, Query({"owner": "ada"}, skip=skip, limit=limit))
    assert len({hit.key for hit in hits}) == len(hits) == expected


# --- projection -------------------------------------------------------------------------------------------------

PROJECTIONS: Final[list[Document]] = [
    {"_id": 1},
    {"_id": 0},
    {"n": 1},
    {"n": 1, "_id": 0},
    {"n": 1, "_id": 1, "sub": True},
    {"n": 0},
    {"n": 0, "_id": 0},
    {"sub.a": 1},
    {"sub.a": 0, "list": 0},
    {"sub": {"b": 1}},
    {"list.x": 1},
    {"list": {"$slice": 1}},
    {"list": {"$slice": [1, 1]}, "n": 1},
    {"list": {"$elemMatch": {"x": {"$gt": 0}}}},
    {"nothing": 1},
    {"nothing": 1, "_id": 0},
    {"n": 1.0, "_id": False},
    {"copy": "$n"},
    {"_id": 0, "list": {"$slice": -1}},
]


@pytest.mark.parametrize("projection", PROJECTIONS, ids=str)
async def test_a_projection_shapes_the_document_and_leaves_key_and_version_to_the_hit(
    backend: Backend, library: str, projection: Document
) -> None:
    project = compile_projection(projection)
    query = Query({"n": {"$gte": 5}}, projection, sort=(("n", 1),), limit=3)
    hits = await read(backend, library, query)
    assert [hit.key for hit in hits] == ["n05", "n06", "n07"]
    assert [hit.version.born for hit in hits] == ["born-n05", "born-n06", "born-n07"]
    assert codes(hit.document for hit in hits) == codes(project(document) for document in DOCUMENTS[5:8])
    one = await backend.store.find_one(library, Query({"_id": "n06"}, projection))
    assert one is not None
    assert (one.key, one.version) == ("n06", Version("born-n06", 1))
    assert bson.encode(one.document) == bson.encode(project(DOCUMENTS[6]))


# --- pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [0, 1, 7, 25, 100])
async def test_the_pages_of_a_find_hold_every_document_once(backend: Backend, library: str, batch_size: int) -> None:
    pages = [page async for page in backend.store.find(library, Query(batch_size=batch_size))]
    keys = [hit.key for page in pages for hit in page]
    assert sorted(keys) == [document["_id"] for document in DOCUMENTS]


@pytest.mark.parametrize("sort", [(), (("n", 1),)])
async def test_a_find_can_be_left_early_and_asked_again(backend: Backend, library: str, sort: Any) -> None:
    query = Query({}, sort=sort, batch_size=2)
    for _ in range(3):
        pages = backend.store.find(library, query)
        async with aclosing(pages):  # type: ignore[type-var]
            assert await anext(pages)
    assert len(await read(backend, library, query)) == len(DOCUMENTS)


async def test_an_answer_is_a_copy_that_may_be_changed(backend: Backend, library: str) -> None:
    hit = await backend.store.find_one(library, Query({"_id": "n01"}))
    assert hit is not None
    hit.document["list"].append("changed")
    image = await backend.store.image(library, "n01")
    assert image.document == DOCUMENTS[1]


# --- aggregates and distinct values -----------------------------------------------------------------------------


async def test_an_aggregate_sees_no_tombstones_and_no_reserved_field(backend: Backend, library: str) -> None:
    store = backend.store
    assert await store.aggregate(library, [{"$count": "all"}]) == [{"all": len(DOCUMENTS)}]
    grouped = await store.aggregate(
        library, [{"$group": {"_id": "$owner", "sum": {"$sum": "$n"}}}, {"$sort": {"_id": 1}}]
    )
    assert grouped == [
        {"_id": owner, "sum": sum(each["n"] for each in DOCUMENTS if each["owner"] == owner)}
        for owner in ("ada", "bob", "cyd")
    ]
    whole = await store.aggregate(library, [{"$match": {"owner": "bob"}}, {"$sort": {"n": 1}}])
    assert codes(whole) == codes(each for each in DOCUMENTS if each["owner"] == "bob")
    roots = await store.aggregate(library, [{"$sort": {"_id": 1}}, {"$limit": 1}, {"$project": {"r": "$$ROOT"}}])
    assert roots == [{"_id": "n00", "r": DOCUMENTS[0]}]


async def test_a_lookup_and_a_facet_see_no_tombstones_either(backend: Backend, library: str) -> None:
    join = {"$lookup": {"from": library, "localField": "n", "foreignField": "maybe", "as": "joined"}}
    found = await backend.store.aggregate(library, [{"$match": {"_id": {"$in": ["n03", "n05"]}}}, join])
    assert sorted(codes(each["joined"][0] for each in found)) == sorted(codes([DOCUMENTS[3], DOCUMENTS[5]]))
    nothing = {"$lookup": {"from": library, "localField": "none", "foreignField": "gone", "as": "joined"}}
    faceted = [{"$match": {"_id": "n03"}}, {"$facet": {"a": [nothing, {"$project": {"size": {"$size": "$joined"}}}]}}]
    assert await backend.store.aggregate(library, faceted) == [{"a": [{"_id": "n03", "size": len(DOCUMENTS)}]}]
    same = [{"$match": {"$expr": {"$eq": ["$n", "$$n"]}}}]
    by_pipeline = {"$lookup": {"from": library, "let": {"n": "$n"}, "pipeline": same, "as": "joined"}}
    found = await backend.store.aggregate(library, [{"$match": {"_id": "n03"}}, by_pipeline])
    assert codes(found[0]["joined"]) == codes([DOCUMENTS[3]])
    links = {"from": library, "connectFromField": "n", "connectToField": "n", "as": "joined"}
    for restricted in ({}, {"restrictSearchWithMatch": {"n": {"$gte": 0}}}):
        graph = {"$graphLookup": {**links, "startWith": "$n", **restricted}}
        found = await backend.store.aggregate(library, [{"$match": {"_id": "n03"}}, graph])
        assert codes(found[0]["joined"]) == codes([DOCUMENTS[3]])
    for union in (library, {"coll": library}, {"coll": library, "pipeline": [{"$project": {"list": 0}}]}):
        both = await backend.store.aggregate(library, [{"$unionWith": union}, {"$count": "n"}])
        assert both == [{"n": 2 * len(DOCUMENTS)}]
        shown = await backend.store.aggregate(library, [{"$limit": 1}, {"$unionWith": union}])
        assert not any("_shadow" in each for each in shown)


async def test_distinct_values_are_those_of_the_documents_that_match(backend: Backend, library: str) -> None:
    store = backend.store
    assert sorted(await store.distinct(library, "owner", {})) == ["ada", "bob", "cyd"]
    assert sorted(await store.distinct(library, "sub.a", {"n": {"$in": [1, 2, 5]}})) == [1, 2]
    assert len(await store.distinct(library, "_id", {})) == len(DOCUMENTS)
    assert sorted(await store.distinct(library, "list.x", {"n": {"$lt": 3}})) == [0, 1, 2]
    assert await store.distinct(library, "_shadow.t", {}) == []


# --- values -----------------------------------------------------------------------------------------------------

VALUES: Final[dict[str, Any]] = {
    "double": 1.5,
    "whole double": 2.0,
    "negative zero": -0.0,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "large double": 1.7976931348623157e308,
    "small double": 5e-324,
    "empty string": "",
    "string": "Grüße \U0001f600 \x00 end",
    "string like an ObjectId": "5f43a1b2c3d4e5f60718293a",
    "string with a tilde": "~num:5",
    "long string": "ä" * 3000,
    "empty document": {},
    "document": {"b": 1, "a": {"c": [None, {"d": 2.0}]}},
    "names of all kinds": {"": 1, "a.b": 2, "$x": 3, "__v": 4, "#n0": 5, "~": 6, "*": 7, "_id": 8},
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "binary subtype": Binary(b"\x01\x02", 128),
    "uuid": Binary.from_uuid(uuid.UUID(int=7)),
    "old uuid": Binary(bytes(16), 3),
    "ObjectId": ObjectId("5f43a1b2c3d4e5f60718293a"),
    "true": True,
    "false": False,
    "null": None,
    "date": dt.datetime(2024, 2, 29, 12, 30, 1, 123000),
    "old date": dt.datetime(1, 1, 1),
    "date outside of Python": DatetimeMS(2**55),
    "int32": -(2**31),
    "int64": Int64(2**62),
    "small int64": Int64(3),
    "decimal": Decimal128("12.3400"),
    "large decimal": Decimal128("9.999999999999999999999999999999999E+6144"),
    "decimal nan": Decimal128("NaN"),
    "decimal zero": Decimal128("-0E+3"),
    "timestamp": Timestamp(4294967295, 4294967295),
    "min key": MinKey(),
    "max key": MaxKey(),
    "code": Code("function () {}"),
    "code with scope": Code("f()", {"x": ObjectId(bytes(12))}),
    "reference": DBRef("users", ObjectId(bytes(12)), "db", extra=1),
}
VALUES_ONLY: Final[dict[str, Any]] = {
    "regular expression": Regex("^a+", "imx"),
    "empty array": [],
    "array of everything": [value for name, value in VALUES.items() if name != "names of all kinds"],
    "deep": {"a": [{"b": [[[{"c": {"d": {"e": [1, [2, [3]]]}}}]]]}]},
    "long array": list(range(500)),
}


def canonical(document: Document) -> Document:
    """As MongoDB gives it back, with the length of integers decided."""
    return bson.decode(bson.encode(document), bson.CodecOptions(datetime_conversion=4))  # DATETIME_AUTO


@pytest.mark.parametrize("name", [*VALUES, *VALUES_ONLY])
async def test_a_value_of_any_type_comes_back_as_it_went_in(backend: Backend, name: str) -> None:
    store = backend.store
    value = {**VALUES, **VALUES_ONLY}[name]
    key = ObjectId()
    document = canonical({"_id": key, "value": value, "inner": {"list": [value, {"value": value}]}, "last": 1})
    await store.apply(SHARED, Insert(key, document, fresh_id()), fresh_id())
    stored = await store.image(SHARED, key)
    assert stored.document is not None
    assert bson.encode(stored.document) == bson.encode(document)
    hit = await store.find_one(SHARED, Query({"_id": key, "last": 1}))
    assert hit is not None
    assert bson.encode(hit.document) == bson.encode(document)
    changed = await store.apply(SHARED, Update(key, {}, {"$set": {"again": document["value"]}}, ""), fresh_id())
    assert changed is not None
    assert changed.post.document is not None
    assert bson.encode(changed.post.document) == bson.encode({**document, "again": document["value"]})
    stored = await store.image(SHARED, key)
    assert stored.document is not None
    assert bson.encode(stored.document) == bson.encode(changed.post.document)


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("names of all kinds", "reference")])
async def test_a_value_of_any_type_may_be_the_key(backend: Backend, name: str) -> None:
    store = backend.store
    document = canonical({"_id": VALUES[name], "n": 1})
    key = document["_id"]
    applied = await store.apply(SHARED, Insert(key, document, fresh_id()), fresh_id())
    assert applied is not None
    for filter in ({"_id": key}, {"_id": {"$in": [key]}, "n": 1}):
        hits = await read(backend, SHARED, Query(filter))
        assert codes(hit.document for hit in hits) == codes([document])
        assert bson.encode({"": hits[0].key}) == bson.encode({"": key})
    [image] = await store.images(SHARED, [key])
    assert image.state == applied.post.state
    replaced = await store.apply(SHARED, Replace(key, {"_id": key}, {"_id": key, "n": 2}, fresh_id()), fresh_id())
    assert replaced is not None
    with pytest.raises(DuplicateKeyError):
        await store.apply(SHARED, Insert(key, document, fresh_id()), fresh_id())
    assert await store.put(SHARED, key, Image(Tombstone(fresh_id())), replaced.post.state)
    assert await store.find_one(SHARED, Query({"_id": key})) is None


@pytest.mark.parametrize(
    "keys",
    [
        [Int64(7_000_001), 7_000_001, 7_000_001.0, Decimal128("7000001"), Decimal128("7000001.00")],
        [0.5, Decimal128("0.5"), Decimal128("0.50")],
        [0, -0.0, Int64(0), Decimal128("0E+3")],
        [float("nan"), Decimal128("NaN")],
        [{"k": 7_000_002}, {"k": 7_000_002.0}, {"k": Int64(7_000_002)}],
    ],
    ids=str,
)
async def test_keys_that_are_equal_numbers_are_one_key(backend: Backend, keys: list[Any]) -> None:
    collection = await backend.fresh()
    store = backend.store
    await store.apply(collection, Insert(keys[0], {"_id": keys[0]}, fresh_id()), fresh_id())
    for key in keys:
        with pytest.raises(DuplicateKeyError):
            await store.apply(collection, Insert(key, {"_id": key}, fresh_id()), fresh_id())
        hit = await store.find_one(collection, Query({"_id": key}))
        assert hit is not None
        assert bson.encode(hit.document) == bson.encode({"_id": keys[0]})
        assert (await store.image(collection, key)).present
    assert all(image.present for image in await store.images(collection, keys))
    assert await store.count(collection, {}) == 1


@pytest.mark.parametrize(
    "keys",
    [
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {"a": {"b": 2}}, {}],
        ["5", 5, True, None, ""],
        [b"x", Binary(b"x", 128), "x"],
        [1, True, 1.5],
        [dt.datetime(2024, 1, 1), Timestamp(1704067200, 0), 1704067200000],
        ["5f43a1b2c3d4e5f60718293a", ObjectId("5f43a1b2c3d4e5f60718293a"), "5F43A1B2C3D4E5F60718293A"],
    ],
    ids=str,
)
async def test_keys_that_only_look_alike_are_different_keys(backend: Backend, keys: list[Any]) -> None:
    collection = await backend.fresh()
    for key in keys:
        inserted = await backend.store.apply(collection, Insert(key, {"_id": key}, fresh_id()), fresh_id())
        assert inserted is not None
    assert await backend.store.count(collection, {}) == len(keys)
    for key in keys:
        hits = await read(backend, collection, Query({"_id": key}))
        assert codes(hit.document for hit in hits) == codes([{"_id": key}])
    images = await backend.store.images(collection, keys)
    assert [key_digest(image.document["_id"]) for image in images if image.document] == list(map(key_digest, keys))
