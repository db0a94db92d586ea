"""What keys, numbers, names and levels of DynamoDB cannot hold goes through the shim and comes back exactly.

Asked of either store as primary, of the one that answers and of the one that follows: the same BSON, to the byte.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import bson
import pytest
import pytest_asyncio
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from pymongo.errors import DuplicateKeyError

from shadow import Shadow
from shadow.config import CollectionSettings, IndexSettings
from shadow.model.operation import Query
from shadow.model.order import key_digest
from shadow.model.phase import StoreName
from shadow.model.version import Document
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop

pytestmark = pytest.mark.asyncio(loop_scope="module")

INDEX: Final = "hashed"
"""A field that is the hash attribute of an index (the limit is 2048 bytes)."""
RANGE: Final = "ranged"
"""One that is a range attribute (1024 bytes)."""


def nested(levels: int, *, lists: bool = False) -> Any:
    value: Any = 1.5
    for level in range(levels):
        value = [value] if lists and level % 2 else {"b": value, "a": level}
    return value


KEYS: Final[dict[str, Any]] = {
    "empty": "",
    "null": None,
    "one byte under the limit": "k" * 2047,
    "at the limit": "k" * 2048,
    "one byte over": "k" * 2049,
    "long": "é" * 5_000,
    "looks like an ObjectId": "5ca4bbc7a2dd94ee5816238c",
    "is one": ObjectId("5ca4bbc7a2dd94ee5816238c"),
    "tilde": "~num:5",
    "tilde of a part": "~part:x",
    "tilde of a unique item": "~unique:email_1:x",
    "five": 5,
    "half": 0.5,
    "minus zero": -0.0,
    "int64": Int64(2**62),
    "decimal": Decimal128("1.50"),
    "huge decimal": Decimal128("9E+6144"),
    "infinity": float("inf"),
    "NaN": float("nan"),
    "true": True,
    "date": dt.datetime(2024, 5, 17, 12, 0, 0, 123000),
    "far date": DatetimeMS(10**15),
    "document": {"b": 1, "a": {"": [1]}},
    "binary": Binary(b"\x00\xff", 0),
    "uuid": Binary.from_uuid(uuid.UUID(int=5)),
    "timestamp": Timestamp(5, 1),
    "MinKey": MinKey(),
    "MaxKey": MaxKey(),
    "nul": "a\x00b",
    "snowman": "☃\U0001f600",
}

LISTS: Final[dict[str, Any]] = {
    "empty list": [],
    "list": ["x", 5],
    "list of null": [None],
    "list of lists": [[1], [[]]],
}

NUMBERS: Final[dict[str, Any]] = {
    "least double": 5e-324,
    "small double": 1e-131,
    "large double": 1e126,
    "greatest double": 1.7976931348623157e308,
    "minus infinity": float("-inf"),
    "NaN": float("nan"),
    "NaN decimal": Decimal128("NaN"),
    "signalling NaN": Decimal128("sNaN"),
    "least decimal": Decimal128("1E-6176"),
    "greatest decimal": Decimal128("9.999999999999999999999999999999999E+6144"),
    "decimal with zeros": Decimal128("1.000"),
    "decimal zero": Decimal128("0E-6176"),
    "minus zero decimal": Decimal128("-0"),
    "thirty-four digits": Decimal128("1234567890123456789012345678901234"),
    "tenth": 0.1,
    "integer as double": 5.0,
    "integer as int64": Int64(5),
    "greatest int64": Int64(2**63 - 1),
    "least int64": Int64(-(2**63)),
}

NAMES: Final[dict[str, Document]] = {
    "empty name": {"": 1, "a": 2},
    "empty name below": {"a": {"": {"": 1}}},
    "dot": {"a.b": 1, "a": {"b": 2, "c.d": 3}},
    "dollar below": {"a": {"$x": 1, "b$": 2}},
    "dollar inside": {"a$b": 1, "price.$": 2},
    "tilde": {"~": 1, "~~": 2, "*": 3, "a": {"~": 1.5, "~x": Int64(1)}},
    "blank": {" ": 1, "\t": 2, "\n": 3},
    "reserved words": {"name": 1, "size": 2, "values": 3, "_id_": 4, "NULL": 5},
    "digits": {"0": 1, "10": 2, "9": 3},
    "long": {"n" * 300: 1, "a": {"m" * 70_000: 2}},
    "very long": {"n" * 70_000: 1},
    "of the store": {"_shadow_ttl": 5, "_shadow2": 6},
    "quotes": {"it's": 1, '"': 2, "#n0": 3, ":v0": 4},
    "many": {f"f{n}": n for n in range(700, 0, -1)},
    "wide": {"a": {f"f{n}": n for n in range(70_000, 0, -1)}},
}

LEVELS: Final[dict[str, Any]] = {f"{levels} levels": nested(levels) for levels in (25, 26, 27, 30, 31, 32, 33, 60, 95)}
LEVELS.update({f"{levels} levels with lists": nested(levels, lists=True) for levels in (26, 31, 32, 33, 94)})

OTHERS: Final[dict[str, Any]] = {
    "empty string": "",
    "empty binary": Binary(b"", 0),
    "empty document": {},
    "empty list": [],
    "holes": [None, [], {}, ""],
    "year one": dt.datetime(1, 1, 1),
    "last year": dt.datetime(9999, 12, 31, 23, 59, 59, 999000),
    "before all years": DatetimeMS(-(2**63)),
    "code": Code("f()"),
    "code with scope": Code("f()", {"x": 1}),
    "regex": Regex("^a.*", "imsx"),
    "old uuid": Binary(b"0123456789abcdef", 3),
    "user binary": Binary(b"x", 200),
    "true": True,
    "half a megabyte": "é" * 250_000,
}


def cases() -> dict[str, Document]:
    found: dict[str, Document] = {f"_id: {name}": {"_id": value, "n": 1} for name, value in KEYS.items()}
    for place, (name, value) in enumerate({**KEYS, **LISTS}.items()):
        found[f"hash: {name}"] = {"_id": f"hash{place}", INDEX: value, "n": 1}
        found[f"range: {name}"] = {"_id": f"range{place}", RANGE: value, INDEX: "owner", "n": 1}
    values = {**NUMBERS, **LEVELS, **OTHERS}
    found |= {f"value: {name}": {"_id": name, "n": 1, "v": value, "in": [value]} for name, value in values.items()}
    deep = [name for name in LEVELS if int(name.split()[0]) > 90]  # with the list around it, it is at MongoDB's limit
    found |= {f"value: {name}": {"_id": name, "n": 1, "v": LEVELS[name]} for name in deep}
    found |= {f"name: {name}": {"_id": f"name {name}", "n": 1, **fields} for name, fields in NAMES.items()}
    return found


CASES: Final = cases()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName), ids=lambda each: f"{each}-answers")
async def shadow(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    name = f"t{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("journal")
    settings = settings_for(folder, mongo_url, dynamodb_local_url, name, ["odd"], primary=request.param)
    indexes = (IndexSettings(name="both-index", hash=INDEX, range=RANGE), IndexSettings(name="one-index", hash=INDEX))
    indexed = CollectionSettings(indexes=indexes)
    async with Shadow(settings.model_copy(update={"collections": {"odd": indexed}})) as shadow:
        await shadow.prepare()
        yield shadow
        await assert_level(shadow)
    drop(mongo_url, name)


@pytest_asyncio.fixture(loop_scope="module")
async def both(shadow: Shadow) -> Any:
    """Reads a document of both stores, past the shim, after what was written has been followed."""
    stores = shadow._engine.runtime().stores

    async def read(key: Any) -> list[bytes]:
        assert await shadow.settled(20)
        images = [await stores[name].image("odd", key) for name in StoreName]
        return [bson.encode(image.document or {}) for image in images]

    return read


def of_filter(document: Document) -> Document:
    return {"_id": {"$eq": document["_id"]}}


@pytest.mark.takes_turns
@pytest.mark.drawn_over("shadow", reason="either way both stores hold it and give it back")
@pytest.mark.parametrize("name", CASES)
async def test_it_comes_back_to_the_byte(shadow: Shadow, both: Any, name: str) -> None:
    """Inserted, read, changed beside it, refused a second time, replaced, deleted."""
    document, odd = CASES[name], shadow["odd"]
    raw = bson.encode(document)
    await odd.insert_one(dict(document))
    assert bson.encode(await odd.find_one(of_filter(document))) == raw
    assert await both(document["_id"]) == [raw, raw]
    with pytest.raises(DuplicateKeyError):
        await odd.insert_one({"_id": document["_id"]})
    result = await odd.update_one(of_filter(document), {"$inc": {"n": 1}})
    assert (result.matched_count, result.modified_count) == (1, 1)
    changed = bson.encode({**document, "n": 2})
    assert bson.encode(await odd.find_one(of_filter(document))) == changed
    assert await both(document["_id"]) == [changed, changed]
    await odd.replace_one(of_filter(document), {name: value for name, value in document.items() if name != "_id"})
    assert await both(document["_id"]) == [raw, raw]
    assert (await odd.delete_one(of_filter(document))).deleted_count == 1
    assert await odd.find_one(of_filter(document)) is None
    assert await both(document["_id"]) == [bson.encode({})] * 2


@pytest.mark.takes_turns
async def test_all_of_them_are_found_among_each_other(shadow: Shadow) -> None:
    """By scan, by each indexed value and by range: as many of them, and the same ones, as MongoDB finds."""
    odd, stores = shadow["odd"], shadow._engine.runtime().stores
    small = [document for name, document in CASES.items() if len(bson.encode(document)) < 300_000]
    await odd.insert_many([dict(document) for document in small], ordered=False)
    assert await shadow.settled(20)
    assert await odd.count_documents({}) == len(small)
    filters: list[Document] = [{INDEX: {"$eq": value}} for value in {**KEYS, **LISTS}.values()]
    filters += [{INDEX: "owner", RANGE: {"$eq": value}} for value in {**KEYS, **LISTS}.values()]
    filters += [{INDEX: "owner", RANGE: {each: "k"}} for each in ("$gt", "$lte", "$gte", "$lt")]
    filters += [{"v": {"$eq": value}} for value in NUMBERS.values()]
    for filter in filters:
        keys: list[list[str]] = []
        for name in StoreName:
            query = Query(filter)
            hits = [hit async for page in stores[name].find("odd", query) for hit in page]
            keys.append(sorted(key_digest(hit.key) for hit in hits))
        assert keys[0] == keys[1], filter
        documents = await odd.find(filter).to_list(None)
        assert sorted(key_digest(each["_id"]) for each in documents) == keys[0], filter
    await odd.delete_many({})
