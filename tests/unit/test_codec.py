"""The codec: every BSON document comes back to the byte, in items that DynamoDB takes."""

from __future__ import annotations

import datetime as dt
import random
import struct
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pymongo.errors import DocumentTooLarge

from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.values import CANONICAL, normalise
from shadow.model.version import ABSENT, Document, Image, State, Tombstone, Version
from shadow.stores.dynamo.client.limits import ITEM_LIMIT
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.codec import Codec, Item, item_size
from tests.support.cases import each_of
from tests.support.drawn import examples

VERSION = Version("0123456789abcdef01234567", 7)
PLAIN = Codec(CollectionSpec("plain"))
INDEXED = Codec(
    CollectionSpec(
        "indexed", (IndexSpec("a-index", "a"), IndexSpec("b-c-index", "b", "c"), IndexSpec("d-index", "d", "a"))
    )
)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = st.one_of(st.sampled_from(["a", "b", "c", "d", "_id", "~", "~a", "*", "0", "a.b", "$x", "_shadow_ttl"]), texts)
decimals = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**20), max_value=10**20),
    st.sampled_from(
        ["NaN", "-NaN", "Infinity", "-Infinity", "0", "-0", "0E+3", "0E-6176", "1E+6144", "1.50", "100", "1E2"]
    ),
    st.sampled_from(["9.99E+125", "1E-130", "9.999E-131", "1E+126", "1234567890123456789012345678901234", "0.000"]),
)
raw_decimals = st.binary(min_size=16, max_size=16).map(Decimal128.from_bid)
odd_floats = [0.0, -0.0, float("nan"), float("inf"), -float("inf"), 5e-324, 1e-130, 9.9e125, 9.99e125, 1e126, 1.7e308]
odd_texts = ["", "~", "~array", "~missing", "~null", "0123456789abcdef01234567", "0123456789ABCDEF01234567", "é" * 1100]
milliseconds = st.integers(-(2**63), 2**63 - 1)

scalars = st.one_of(
    texts,
    st.sampled_from(odd_texts),
    st.booleans(),
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-5, 5),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.integers(-5, 5).map(Int64),
    st.floats(),
    st.sampled_from(odd_floats),
    decimals.map(lambda value: Decimal128(str(value))),
    raw_decimals,
    st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)),
    milliseconds.map(DatetimeMS),
    st.binary(max_size=12),
    st.tuples(st.binary(max_size=20), st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 128, 255])).map(lambda p: Binary(*p)),
    st.uuids().map(Binary.from_uuid),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.tuples(texts, st.integers(0, 127)).map(lambda p: Regex(p[0], p[1] & ~1)),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(lambda p: Timestamp(*p)),
    st.sampled_from([MinKey(), MaxKey()]),
    texts.map(Code),
    st.tuples(texts, st.dictionaries(texts, st.integers(0, 9), max_size=2)).map(lambda p: Code(*p)),
    st.tuples(texts, st.one_of(st.integers(0, 9), st.binary(min_size=12, max_size=12).map(ObjectId))).map(
        lambda p: DBRef(p[0], p[1], "db", extra=1.5)
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
keys_of_documents = scalars.filter(lambda value: not isinstance(value, Regex))
documents = st.builds(
    lambda key, rest: {"_id": key, **{name: value for name, value in rest.items() if name != "_id"}},
    keys_of_documents,
    st.dictionaries(names, values, max_size=7),
)


def encoded(codec: Codec, document: Document, state: State = VERSION) -> Any:
    return codec.encode(keys.key_text(document["_id"]), state, document, "op")


def decoded(codec: Codec, document: Document) -> Image:
    whole = encoded(codec, document)
    assert_taken_by_dynamodb(codec, whole.item)
    return codec.decode(whole.item, b"".join(whole.parts) or None)


def assert_same(codec: Codec, document: Document) -> None:
    image = decoded(codec, document)
    assert image.state == VERSION
    assert image.document is not None
    assert bson.encode(image.document) == bson.encode(document)


def assert_taken_by_dynamodb(codec: Codec, item: Item) -> None:
    """DynamoDB's rules, written down apart from the codec."""
    key_names = {"_id": 2048, **codec.limits}
    for name, attribute in item.items():
        assert 0 < len(name.encode()) <= 65_535
        if name in key_names:
            assert list(attribute) == ["S"]
            assert 0 < len(attribute["S"].encode()) <= key_names[name]
        check_attribute(attribute, 0)
    assert item_size(item) <= ITEM_LIMIT


def check_attribute(attribute: dict[str, Any], depth: int) -> None:
    assert depth <= 31, "DynamoDB nests 32 levels"
    ((tag, raw),) = attribute.items()
    match tag:
        case "S":
            assert isinstance(raw, str)
            raw.encode()
        case "N":
            number = Decimal(raw)
            assert number.is_finite()
            assert len(number.normalize().as_tuple().digits) <= 38
            assert not number or -130 <= number.adjusted() <= 125
        case "B":
            assert isinstance(raw, bytes)
        case "BOOL":
            assert isinstance(raw, bool)
        case "NULL":
            assert raw is True
        case "L":
            for element in raw:
                check_attribute(element, depth + 1)
        case "M":
            for name, element in raw.items():
                assert 0 < len(name.encode()) <= 65_535
                check_attribute(element, depth + 1)
        case _:
            pytest.fail(f"an attribute of type {tag}")


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents)
@example({"_id": 1, "a": [1.0, [2.0, 3.0]], "b": {"x": 1.0, "y": 2.0}, "c": [{"t": 1.5, "s": "x"}] * 3})
@example({"_id": None, "b": None, "c": None, "a": []})
@example({"_id": "", "c": "", "": 1})
def test_every_document_comes_back_to_the_byte(document: Document) -> None:
    """Whatever BSON can hold, with indexed fields or without, decodes to what encodes to the same bytes."""
    canonical = normalise(document)
    assert_same(PLAIN, canonical)
    assert_same(INDEXED, canonical)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents)
def test_an_item_does_not_depend_on_the_indexes_of_today(document: Document) -> None:
    """What was written with one set of indexes is read by a codec that knows another."""
    canonical = normalise(document)
    assert bson.encode(PLAIN.decode(encoded(INDEXED, canonical).item).document) == bson.encode(canonical)
    assert bson.encode(INDEXED.decode(encoded(PLAIN, canonical).item).document) == bson.encode(canonical)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents)
def test_decoding_gives_canonical_types(document: Document) -> None:
    """The decoded values have the very types that MongoDB's driver gives, not only the same bytes."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, DatetimeMS) or isinstance(b, DatetimeMS):
            return type(a) is type(b) and int(a) == int(b)
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(same, a, b))
        return bson.encode({"": a}) == bson.encode({"": b})

    canonical = normalise(document)
    assert same(PLAIN.decode(encoded(PLAIN, canonical).item).document, canonical)


@each_of("depth", [1, 5, 24, 25, 26, 27, 30, 40, 90])
@each_of("leaf", [1, 1.5, DBRef("c", ObjectId()), {"b": 1, "a": Int64(2)}, [Int64(1), "x"]])
def test_any_depth_is_kept(depth: int, leaf: Any) -> None:
    """MongoDB nests 100 levels, DynamoDB 32: deeper containers become BSON, and hints stay within the limit too."""
    for wrap in (lambda v: [v, "z"], lambda v: {"z": v, "a": 1}, lambda v: DBRef("c", v)):
        value = leaf
        for _ in range(depth):
            value = wrap(value)
        assert_same(PLAIN, normalise({"_id": 1, "v": value}))


def test_natural_forms_are_what_people_expect_to_read() -> None:
    """Names and values stand in the table as a person would write them; only what needs a hint has one."""
    document = {
        "_id": ObjectId("5ca4bbc7a2dd94ee5816238c"),
        "active": True,
        "born": dt.datetime(2009, 4, 1, 7, 0, 0, 250_000),
        "count": 5,
        "label": "x",
        "nested": {"a": None, "b": [1, 2]},
    }
    item = encoded(PLAIN, document).item
    shadow = item.pop("_shadow")["M"]
    assert item == {
        "_id": {"S": "5ca4bbc7a2dd94ee5816238c"},
        "active": {"BOOL": True},
        "born": {"S": "2009-04-01T07:00:00.250Z"},
        "count": {"N": "5"},
        "label": {"S": "x"},
        "nested": {"M": {"a": {"NULL": True}, "b": {"L": [{"N": "1"}, {"N": "2"}]}}},
    }
    assert shadow == {
        "b": {"S": VERSION.born},
        "r": {"N": "7"},
        "o": {"S": "op"},
        "h": {"M": {"born": {"S": "t"}}},
    }


def test_hints_of_one_kind_are_written_once() -> None:
    """A list of doubles, and a list of documents of one shape, cost one hint each."""
    document = {"_id": 1, "docs": [{"x": 1.5, "w": "a"}] * 50, "floats": [1.5] * 50}
    hints = encoded(PLAIN, document).item["_shadow"]["M"]["h"]["M"]
    assert hints["floats"] == {"S": "*d"}
    assert list(hints["docs"]["M"]) == ["*"]


def test_a_null_index_field_is_left_out_and_kept_aside() -> None:
    """The index stays sparse; the null comes back, and a field that was never there does not."""
    item = encoded(INDEXED, {"_id": 1, "b": None}).item
    assert "b" not in item
    assert item["c"] == {"S": keys.MISSING}
    assert decoded(INDEXED, {"_id": 1, "b": None}).document == {"_id": 1, "b": None}


def test_an_array_in_an_index_field_has_one_text() -> None:
    """MongoDB's multikey: the planner asks for this text beside the value."""
    assert encoded(INDEXED, {"_id": 1, "b": ["x", "y"]}).item["b"] == {"S": keys.ARRAY}


def test_tombstones_have_a_time_to_live_and_no_index_attributes() -> None:
    """A tombstone is key, id and expiry, so that no index finds it."""
    item = INDEXED.encode("k", Tombstone("t1"), None, "op").item
    assert set(item) == {"_id", "_shadow", "_shadow_ttl"}
    assert int(item["_shadow_ttl"]["N"]) > dt.datetime.now(dt.UTC).timestamp() + 86_400
    assert INDEXED.decode(item) == Image(Tombstone("t1"))


@pytest.mark.parametrize("state", [Version("", 0), Version("b", 0), Version("", 3), VERSION])
def test_versions_come_back(state: State) -> None:
    """Also the version of a document that no writer of shadow has touched."""
    assert PLAIN.decode(encoded(PLAIN, {"_id": 1}, state).item).state == state


def test_an_item_of_another_writer_is_read_as_it_stands() -> None:
    """No stamp, no hints: natural types, sets as lists, version ("", 0)."""
    item: Item = {
        "_id": {"S": "k"},
        "n": {"N": "5"},
        "big": {"N": "1E+3"},
        "f": {"N": "1.5"},
        "set": {"SS": ["a", "b"]},
        "m": {"M": {"x": {"L": [{"N": "1"}]}}},
    }
    image = PLAIN.decode(item)
    assert image.state == Version("", 0)
    assert image.document == {"_id": "k", "n": 5, "big": 1000, "f": 1.5, "set": ["a", "b"], "m": {"x": [1]}}


def test_a_field_added_by_another_writer_does_not_break_the_order() -> None:
    """The order that was kept is for other fields; the document is still whole."""
    item = encoded(PLAIN, {"_id": 1, "z": 1, "a": 1.5}).item
    item["new"] = {"S": "x"}
    assert PLAIN.decode(item).document == {"_id": 1, "z": 1, "a": 1.5, "new": "x"}


@pytest.mark.parametrize("width", [3, 255, 256, 300, 2000])
def test_the_order_of_many_fields_is_kept(width: int) -> None:
    """One byte a place up to 255 fields, two above."""
    shuffled = [f"f{i}" for i in range(width)]
    random.Random(width).shuffle(shuffled)
    assert_same(PLAIN, {"_id": 1, **dict.fromkeys(shuffled, 1), "n": dict.fromkeys(shuffled, 2.5)})


def test_a_document_over_the_item_limit_is_compressed_or_split() -> None:
    """Index attributes stay on the head; the body comes back from its parts."""
    text = "words that compress " * 40_000
    packed = encoded(INDEXED, {"_id": 1, "b": "hash", "t": text})
    assert not packed.parts
    assert packed.item["b"] == {"S": "hash"}
    noise = random.Random(1).randbytes(3_000_000)
    split = encoded(INDEXED, {"_id": 1, "b": "hash", "t": noise})
    assert len(split.parts) == 8
    assert split.item["b"] == {"S": "hash"}
    where = INDEXED.parts(split.item)
    assert where is not None
    assert where.count == 8
    assert where.generation == split.generation
    for document in ({"_id": 1, "b": "hash", "t": text}, {"_id": 1, "b": "hash", "t": noise, "c": [1.5]}):
        assert_same(INDEXED, document)


def test_over_sixteen_megabytes_is_refused_as_mongodb_refuses_it() -> None:
    """The limit is MongoDB's, on the BSON."""
    with pytest.raises(DocumentTooLarge):
        encoded(PLAIN, {"_id": 1, "t": b"x" * (16 * 1024 * 1024)})


def test_what_bson_cannot_hold_is_refused_by_bson() -> None:
    """The codec is no wider than BSON."""
    with pytest.raises(OverflowError):
        encoded(PLAIN, {"_id": 1, "n": 2**63})
    with pytest.raises(bson.errors.InvalidDocument):
        encoded(PLAIN, {"_id": 1, "n": object()})


def worst_growth() -> list[Document]:
    return [
        {"_id": 1, "v": [Int64(1), "", MinKey(), None] * 4000},
        {"_id": 1, "v": [Decimal128("1.00"), -0.0] * 2500},
        {"_id": 1, "v": [{}, [], {"b": 1, "a": 1.0}] * 2500},
        {"_id": 1, **{f"k{i}": MinKey() for i in range(7000)}},
        {"_id": 1, "v": [DatetimeMS(2**62), ObjectId()] * 2500},
        {"_id": 1, "v": [Regex("", "i"), Regex("a", "m"), Timestamp(2**31, 2**31)] * 2500},
        {"_id": 1, "v": [struct.pack("<d", i / 7) for i in range(4000)] + [Code("x"), DBRef("a", 1)] * 900},
    ]


@each_of("document", worst_growth())
def test_no_value_grows_by_more_than_five(document: Document) -> None:
    """What the codec relies on where it does not measure an item: up to 64 KB of BSON always fit."""
    item = PLAIN._natural("k", VERSION, document, "op")
    assert item is not None
    assert item_size(item) < 5 * len(bson.encode(document))


def test_absent_is_no_state_of_an_item() -> None:
    """An item always says a version or a tombstone."""
    assert PLAIN.state({"_id": {"S": "k"}}) != ABSENT


def test_canonical_options_are_those_of_the_codec() -> None:
    """A document kept as BSON is decoded with the same options as everything else."""
    moment = dt.datetime(2020, 1, 1)
    assert bson.decode(bson.encode({"t": moment}), codec_options=CANONICAL)["t"] == moment
    assert decoded(PLAIN, {"_id": 1, "t": moment, "": 1}).document == {"_id": 1, "t": moment, "": 1}
