"""Every BSON type comes back as the same Python value as from the driver: by every verb, with the default and with
given codec options, whichever store answers."""

from __future__ import annotations

import datetime as dt
import inspect
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeCodec, TypeRegistry
from bson.son import SON
from pymongo.errors import BulkWriteError, DuplicateKeyError

from shadow import Shadow
from shadow.compare.diff import Hasher, explain
from shadow.compare.equality import compare_documents
from shadow.model.phase import StoreName
from shadow.model.verdict import Kind
from shadow.mongoql import compile_pipeline, compile_update
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop, root_client, root_url

pytestmark = pytest.mark.asyncio(loop_scope="module")

_UUID: Final = uuid.UUID("12345678-1234-5678-1234-567812345678")


class _Money(TypeCodec):
    """An application's own type for decimals."""

    python_type = complex
    bson_type = Decimal128

    def transform_python(self, value: Any) -> Any:
        return Decimal128(str(value.real))

    def transform_bson(self, value: Any) -> Any:
        return complex(float(str(value)), 0)


VALUES: Final[dict[str, Any]] = {
    "null": None,
    "boolean": True,
    "text": "ä\N{GRINNING FACE}",
    "int32": 7,
    "int64": Int64(2**40),
    "small int64": Int64(3),
    "double": 1.0,
    "decimal": Decimal128("12.340"),
    "date": dt.datetime(2024, 2, 29, 12, 30, 1, 123000),
    "date outside of Python": DatetimeMS(2**55),
    "object id": ObjectId("0123456789abcdef01234567"),
    "binary": b"\x00\x01",
    "binary of a subtype": Binary(b"\x00\x01", 128),
    "UUID": Binary(_UUID.bytes, 4),
    "legacy UUID": Binary(_UUID.bytes, 3),
    "timestamp": Timestamp(5, 6),
    "min key": MinKey(),
    "max key": MaxKey(),
    "code": Code("f()"),
    "code with scope": Code("f()", {"x": 1}),
    "document": {"b": 1, "a": Int64(2)},
    "reference": DBRef("others", ObjectId("0123456789abcdef01234567")),
    "reference of a database": DBRef("others", 7, "elsewhere"),
    "reference with more": DBRef("others", 7, "elsewhere", z=1, a=DBRef("inner", 1)),
    "reference to null": DBRef("others", None),
}
OPTED: Final = ("date", "UUID", "decimal", "document", "reference with more", "code with scope")
"""What codec options change; the rest is tried as an `_id` with the default ones alone."""
ONLY_BELOW: Final[dict[str, Any]] = {
    "regular expression": Regex("^a", "im"),
    "list": [1, Int64(2), DBRef("others", 7), {"r": DBRef("others", 7)}],
    "no reference": [{"$ref": "x"}, {"$id": 1}, {"$ref": 1, "$id": 2}, {"$db": "x"}, {"$ref": "x", "$db": "y"}],
    "a reference of no database": {"$ref": "x", "$id": 2, "$db": 5},
}
"""What no `_id` may be."""

OPTIONS: Final[dict[str, CodecOptions[Any] | None]] = {
    "default": None,
    "aware": CodecOptions(tz_aware=True, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "son": CodecOptions(document_class=SON),
    "uuid": CodecOptions(uuid_representation=UuidRepresentation.STANDARD),
    "milliseconds": CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS),
    "own type": CodecOptions(type_registry=TypeRegistry([_Money()])),
}
Verb = Callable[[Any, Any, str], Awaitable[Any]]


async def _all(cursor: Any) -> list[Any]:
    cursor = await cursor if inspect.isawaitable(cursor) else cursor
    return list(await cursor.to_list(None))


async def _inserted(things: Any, value: Any, key: str) -> None:
    await things.insert_one({"_id": key, "v": value, "in": {"l": [value]}})


async def _find_one(things: Any, value: Any, key: str) -> Any:
    await _inserted(things, value, key)
    return [await things.find_one({"_id": key}), await things.find_one(key, {"in.l": 1, "v": 1})]


async def _find(things: Any, value: Any, key: str) -> Any:
    await _inserted(things, value, key)
    return [
        await _all(things.find({"_id": key})),
        await _all(things.find({"_id": key}, {"w": "$v", "in": 1})),
        [each async for each in things.find({"_id": key}, {"v": 0})],
    ]


async def _modify(things: Any, value: Any, key: str) -> Any:
    await _inserted(things, value, key)
    after = pymongo.ReturnDocument.AFTER
    return [
        await things.find_one_and_update({"_id": key}, {"$set": {"n": 1}}, return_document=after),
        await things.find_one_and_update({"_id": key}, {"$set": {"w": value}, "$push": {"in.l": value}}),
        await things.find_one_and_update(
            {"_id": key}, {"$rename": {"w": "x"}}, {"in": 1, "x": 1}, return_document=after
        ),
        await things.find_one_and_update({"_id": key}, [{"$set": {"y": "$v"}}], return_document=after),
        await things.find_one_and_replace({"_id": key}, {"v": value, "z": 1}, return_document=after),
        await things.find_one({"_id": key}),
        await things.find_one_and_delete({"_id": key}),
    ]


async def _distinct(things: Any, value: Any, key: str) -> Any:
    await _inserted(things, value, key)
    return [await things.distinct("v", {"_id": key}), await things.distinct("in", {"_id": key})]


async def _aggregate(things: Any, value: Any, key: str) -> Any:
    await _inserted(things, value, key)
    first: dict[str, Any] = {"$match": {"_id": key}}
    return [
        await _all(things.aggregate([first])),
        await _all(things.aggregate([first, {"$project": {"w": "$v", "in.l": 1}}])),
        await _all(things.aggregate([first, {"$unwind": "$in.l"}])),
        await _all(things.aggregate([first, {"$facet": {"a": [{"$set": {"in.m": "$v"}}]}}])),
        await _all(things.aggregate([first, {"$group": {"_id": None, "l": {"$push": "$in"}}}])),
    ]


async def _upserted(things: Any, value: Any, key: str) -> Any:
    """The ids in results and in the errors of duplicates. The `_id` is the value itself."""
    many = [pymongo.UpdateOne({"_id": value}, {"$set": {"n": 1}}, upsert=True)]
    by_update = await things.update_one({"_id": value}, {"$set": {"n": 1}}, upsert=True)
    found = [by_update.upserted_id, by_update.raw_result["upserted"]]
    try:
        await things.insert_one({"_id": value})
    except DuplicateKeyError as error:
        found.append((error.details or {})["keyValue"])
    try:
        await things.insert_many([{"_id": value}])
    except BulkWriteError as error:
        found.append(error.details["writeErrors"][0]["keyValue"])
    found.append(await _all(things.find({"_id": value})))
    await things.delete_one({"_id": value})
    by_replace = await things.replace_one({"_id": value}, {"n": 1}, upsert=True)
    await things.delete_one({"_id": value})
    by_bulk = await things.bulk_write(many)
    await things.delete_one({"_id": value})
    return [*found, by_replace.upserted_id, by_bulk.upserted_ids]


VERBS: Final[dict[str, Verb]] = {
    "find_one": _find_one,
    "find": _find,
    "find_one_and_...": _modify,
    "distinct": _distinct,
    "aggregate": _aggregate,
    "upserts and duplicates": _upserted,
}


def exact(value: Any) -> Any:
    """A value with its type, at every depth."""
    if isinstance(value, DBRef):
        inner = [exact(each) for each in value.as_doc().items()]
        return (type(value), *inner)
    if isinstance(value, Code):
        return (type(value), str(value), exact(value.scope))
    if isinstance(value, Mapping):
        return (type(value), *((name, exact(each)) for name, each in value.items()))
    if isinstance(value, list | tuple):
        return (type(value), *map(exact, value))
    return (type(value), repr(value))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName), ids=lambda each: f"{each}-answers")
async def sides(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Any, Any]]:
    """The driver's collection, and the same of a Shadow."""
    name = f"t{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("journal")
    settings = settings_for(folder, mongo_url, dynamodb_local_url, name, ["things"], primary=request.param)
    client: Any = pymongo.AsyncMongoClient(root_url(mongo_url))
    async with Shadow(settings) as shadow:
        await shadow.prepare()
        yield client[f"{name}bare"]["things"], shadow["things"]
        await assert_level(shadow)
    await client.close()
    drop(mongo_url, name, f"{name}bare")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_value_of_any_type_is_the_drivers(sides: tuple[Any, Any], verb: str, options: str) -> None:
    given = OPTIONS[options] or CodecOptions()
    whole = {**VALUES, **ONLY_BELOW, "all of them": list(VALUES.values())}
    values = {"all": whole, "reference": VALUES["reference with more"]}
    if verb.startswith("upserts"):
        values = VALUES if options == "default" else {kind: VALUES[kind] for kind in OPTED}
    if given.datetime_conversion is DatetimeConversion.DATETIME:
        # The driver raises for a date outside of Python otherwise.
        given = given.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    different: list[str] = []
    for kind, value in values.items():
        plain = options == "default" and kind != "all" and kind != "date outside of Python"
        answers = []
        for side in sides:
            things = side if plain else side.with_options(codec_options=given)
            answers.append(await VERBS[verb](things, value, f"{verb} {options} {kind}"))
        bare, shim = map(exact, answers)
        if bare != shim:
            different.append(f"{kind}: {answers[1]!r} instead of {answers[0]!r}")
    assert not different, "\n".join(different)


_WHOLE: Final[list[dict[str, Any]]] = [
    {"$ref": "x", "$id": 1},
    {"a": 1, "$ref": "q", "$id": 2, "$db": "d", "z": DBRef("e", 1)},
    {"$ref": "x"},
    {"$id": 1, "$ref": "x"},
    {"$ref": 5, "$id": 1},
    {"$ref": "x", "$id": 1, "$db": 5},
    {"z": {"$id": 2, "$ref": "x"}, "y": {"q": 1, "$ref": "x", "$id": DBRef("y", 3)}, "w": [{"$id": 2, "$ref": "x"}]},
    {"z": {"$ref": "x", "$id": 2, "k": 2, "$db": "e"}, "a": 5},
]
"""Documents that are themselves references, or nearly, or that have one whose parts are in another order."""


async def _or_code(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except pymongo.errors.OperationFailure as error:
        return error.code


async def _whole(things: Any, document: dict[str, Any]) -> Any:
    await things.insert_one({"_id": "w", **document})
    key, after = {"_id": "w"}, pymongo.ReturnDocument.AFTER
    first: dict[str, Any] = {"$match": key}
    return [
        await things.find_one(key),
        await _all(things.find(key, {"_id": 0})),
        await _all(things.find(key, {"n": "$_id", "$ref": 1, "$id": 1, "z": 1}).sort([("z.k", 1), ("a", 1)])),
        await _all(things.find({**key, "$expr": {"$eq": [{"$type": "$z"}, "object"]}})),
        await _all(things.aggregate([first, {"$project": {"w": "$$ROOT"}}])),
        await _all(things.aggregate([first, {"$replaceWith": {"$ifNull": ["$z", "$$ROOT"]}}])),
        await _all(things.aggregate([first, {"$group": {"_id": None, "l": {"$push": "$$ROOT"}}}])),
        await things.distinct("z", key),
        await things.distinct("$ref", key),
        await things.find_one_and_update(key, {"$set": {"n": 1}}),
        await things.find_one_and_update(key, {"$set": {"n": 2}}, return_document=after),
        await things.find_one_and_update(key, [{"$set": {"n": 3}}], {"n": 0}, return_document=after),
        await _or_code(things.find_one_and_replace(key, {"r": 0, **document}, return_document=after)),
        await things.find_one_and_delete(key),
    ]


@pytest.mark.drawn_over("sides", reason="the same calls, on either primary")
async def test_a_document_that_is_itself_a_reference_is_the_drivers(sides: tuple[Any, Any]) -> None:
    different = []
    for options, document in itertools.product(("default", "aware", "son"), _WHOLE):
        given = OPTIONS[options]
        chosen = [side.with_options(codec_options=given) if given else side for side in sides]
        bare, shim = [list(map(exact, await _whole(each, document))) for each in chosen]
        different += [
            f"{options} {document} {place}: {ours}\n  instead of {theirs}"
            for place, (theirs, ours) in enumerate(zip(bare, shim, strict=True))
            if theirs != ours
        ]
    assert not different, "\n".join(different)


PATHS: Final[list[list[dict[str, Any]]]] = [
    [{"$sort": {"ref.$id": 1, "_id": 1}}],
    [{"$sort": {"$ref": 1, "_id": 1}}],
    [{"$project": {"ref.$id": 1}}],
    [{"$project": {"ref": {"$id": 1, "x": 1}}}],
    [{"$project": {"ref": {"$id": "$_id"}}}],
    [{"$project": {"ref": {"$ref": 0}}}],
    [{"$project": {"ref.$db": 0}}],
    [{"$project": {"l.$id": 0}}],
    [{"$project": {"l.$id": 1}}],
    [{"$project": {"x": "$ref.$id", "y": "$l.$ref"}}],
    [{"$project": {"x": "$$ROOT.ref.$db"}}],
    [{"$project": {"ref.$id": "$_id", "ref.$ref": "x"}}],
    [{"$project": {"x": {"$map": {"input": {"$ifNull": ["$l", []]}, "as": "e", "in": "$$e.$id"}}}}],
    [{"$project": {"x": {"$let": {"vars": {"v": "$ref"}, "in": "$$v.$id"}}}}],
    [{"$addFields": {"ref.$id": 5}}],
    [{"$addFields": {"y": {"$eq": ["$ref.$ref", "others"]}}}],
    [{"$addFields": {"$id": "$ref.$id"}}, {"$unset": "$id"}],
    [{"$unset": "ref.$id"}],
    [{"$unset": ["ref.$db", "l.$ref"]}],
    [{"$group": {"_id": "$ref.$id"}}, {"$sort": {"_id": 1}}],
    [{"$sort": {"_id": 1}}, {"$group": {"_id": None, "all": {"$push": "$ref.$id"}}}],
    [{"$sortByCount": "$ref.$ref"}],
    [{"$unwind": "$ref.$id"}],
    [{"$unwind": {"path": "$l", "includeArrayIndex": "ref.$id"}}],
    [{"$match": {"ref.$id": 7}}],
    [{"$match": {"l.$id": {"$gt": 7}}}],
    [{"$match": {"$expr": {"$eq": ["$ref.$id", 7]}}}],
    [{"$replaceWith": {"x": 1, "$id": "$ref.$id"}}],
    [{"$facet": {"$id": [{"$match": {"ref.$id": 7}}]}}],
    [{"$project": {"x": "$ref.$sortKey"}}],
    [{"$project": {"ref.$foo": 1}}],
    [{"$sort": {"ref.$foo": 1}}],
    [{"$project": {"ref": {"$foo": 1}}}],
    [{"$set": {"ref": {"$id": 1}}}],
    [{"$addFields": {"ref": {"$id": 1, "x": 1}}}],
    [{"$group": {"_id": 1, "$id": {"$sum": 1}}}],
    [{"$unwind": "$$id"}],
    [{"$unwind": {"path": "$l", "includeArrayIndex": "$id"}}],
    [{"$lookup": {"from": "things", "localField": "ref.$id", "foreignField": "_id", "as": "j"}}],
    [{"$lookup": {"from": "things", "localField": "_id", "foreignField": "ref.$id", "as": "j"}}],
    [{"$lookup": {"from": "things", "localField": "_id", "foreignField": "_id", "as": "j.$id"}}],
]
_REFERENCES: Final[list[dict[str, Any]]] = [
    {"_id": "r", "ref": DBRef("others", 7, "d", x=1), "l": [DBRef("o", 7), DBRef("z", 8)]},
    {"_id": 7, "ref": DBRef("others", "r")},
    {"_id": 8, "ref": {"$id": 5}},
    {"_id": 9, "ref": 5},
]


@pytest.fixture(scope="module")
def references(mongo_url: str) -> Any:
    """A collection of the real server with DBRefs."""
    name = f"t{uuid.uuid4().hex[:12]}"
    things = root_client(mongo_url)[name]["things"]
    things.insert_many([dict(each) for each in _REFERENCES])
    yield things
    drop(mongo_url, name)


async def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return exact(call())
    except pymongo.errors.OperationFailure as error:
        return error.code


@pytest.mark.parametrize("stages", PATHS, ids=str)
async def test_the_parts_of_a_dbref_are_fields_wherever_the_server_takes_them(
    references: Any, stages: list[dict[str, Any]]
) -> None:
    bare = await _outcome(lambda: list(references.aggregate(stages)))
    assert bare == await _outcome(lambda: compile_pipeline(stages).run(_REFERENCES, lambda name: _REFERENCES))


@pytest.mark.parametrize(
    "update",
    [
        {"$set": {"ref.$id": 9}},
        {"$unset": {"ref.$db": 1}},
        {"$rename": {"ref.$id": "q"}},
        {"$set": {"n.$ref": "x", "n.$id": 1}},
        {"$inc": {"l.0.$id": 1}},
        {"$set": {"l.$[].$id": 45}},
        {"$pull": {"l": {"$id": 8}}},
        {"$push": {"l": DBRef("q", 1)}},
        [{"$set": {"ref.$id": "$_id"}}],
        [{"$unset": "ref.$ref"}],
    ],
    ids=str,
)
async def test_an_update_leaves_what_the_driver_would_read(references: Any, update: Any) -> None:
    before = references.find_one({"_id": "r"})
    try:
        after = references.find_one_and_update({"_id": "r"}, update, return_document=True)
    finally:
        references.replace_one({"_id": "r"}, before)
    made = compile_update(update).apply(before)
    assert exact(dict(made)) == exact(after) or exact(made.presented(None)) == exact(after)  # type: ignore[attr-defined]


async def test_the_comparison_sees_a_dbref_that_became_a_document() -> None:
    reference, document = {"_id": 1, "r": DBRef("c", 1)}, {"_id": 1, "r": {"$ref": "c", "$id": 1}}
    assert compare_documents(reference, document) is Kind.TYPE
    assert explain(reference, document, hasher=Hasher(b"key"))
    assert compare_documents(reference, dict(reference)) is None
    assert compare_documents({"_id": 1, "l": [DBRef("c", 1)]}, {"_id": 1, "l": [DBRef("c", 2)]}) is Kind.VALUE
