"""Documents of which the driver's values do not say all: no byte of them is lost, and nothing unequal is equal."""

from __future__ import annotations

import copy
import pickle

import bson
import pytest
from bson import DBRef, Regex, Timestamp
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from hypothesis import given, settings

from shadow.compare.diff import Hasher, explain
from shadow.compare.equality import agree, compare_documents, same, same_after
from shadow.errors import UnreadableDocument, UnsupportedOperation
from shadow.model import stored
from shadow.model.schema import CollectionSpec
from shadow.model.stored import Damaged, RawDocument, document_of, key_of, oddities, split, taken_in, with_time, without
from shadow.model.values import CANONICAL, present
from shadow.model.verdict import Kind
from shadow.model.version import Image, Tombstone, Unknown, Version
from shadow.stores.dynamo.items.codec import Codec
from tests.support.cases import each_of
from tests.support.drawn import examples
from tests.support.raw_bson import ODD, UNHEARD_OF, UNREADABLE, array, document, documents, element, int32, text

CODEC = Codec(CollectionSpec("things"))
HASHER = Hasher(b"secret")


def whole(fields: bytes) -> bytes:
    return document(element(16, "_id", int32(1)), fields)


@given(documents())
@settings(max_examples=examples(150), deadline=None)
def test_whatever_bson_there_is_comes_through_dynamodb_to_the_byte_or_is_called_unreadable(raw: bytes) -> None:
    found = document_of(raw)
    if isinstance(found, Damaged):
        with pytest.raises(InvalidBSON):
            bson.decode(raw, codec_options=CANONICAL)
        with pytest.raises(UnreadableDocument):
            CODEC.encode("~num:1", Version("b", 1), found, "")
        return
    encoded = CODEC.encode("~num:1", Version("b", 1), found, "op")
    back = CODEC.decode(encoded.item).document
    assert back is not None
    assert stored.encoded(back) == raw
    assert same(found, back)


@given(documents(), documents())
@settings(max_examples=examples(150), deadline=None)
def test_only_documents_of_the_same_bytes_are_the_same(one: bytes, other: bytes) -> None:
    left, right = document_of(one), document_of(other)
    if one == other:
        assert same(left, right)
    elif same(left, right):
        # Looser than bytes in this alone: a NaN equals any other.
        assert "nan" in repr(left).lower()


@given(documents())
@settings(max_examples=examples(100), deadline=None)
def test_a_document_and_its_values_alone_are_the_same_only_if_nothing_was_lost(raw: bytes) -> None:
    found = document_of(raw)
    if type(found) is not dict:
        assert not same(found, dict(found))
        assert not same(dict(found), found)
        assert compare_documents(found, dict(found)) in (Kind.TYPE, Kind.UNREADABLE, Kind.VALUE)
        assert explain(found, dict(found), hasher=HASHER)


@each_of("kind", ODD)
def test_what_is_odd_keeps_its_bytes_and_is_named(kind: str) -> None:
    raw = whole(ODD[kind])
    found = document_of(raw)
    assert isinstance(found, RawDocument)
    assert bson.encode(found) == raw
    assert bson.encode({"": found}) == document(element(3, "", raw))
    assert oddities(raw), "and it can be said what is odd"
    assert present(found, None) == bson.decode(raw)
    assert bson.encode(copy.deepcopy(found)) == bson.encode(pickle.loads(pickle.dumps(found))) == raw


@each_of("kind", [*UNREADABLE, *UNHEARD_OF])
def test_what_cannot_be_read_is_named_equals_nothing_and_is_not_copied(kind: str) -> None:
    raw = whole({**UNREADABLE, **UNHEARD_OF}[kind] + element(16, "rest", int32(7)))
    found = document_of(raw)
    assert isinstance(found, Damaged)
    assert (found["_id"], found["rest"]) == (1, 7), "one field hides no other"
    assert found.reason
    assert not same(found, dict(found))
    image = Image(Version("b", 1), found)
    assert not agree(image, image), "what nobody can read is not known to be equal"
    with pytest.raises(InvalidBSON):
        present(found, None)
    lenient = CANONICAL.with_options(unicode_decode_error_handler="replace")
    try:
        expected = bson.decode(raw, codec_options=lenient)
    except InvalidBSON:
        return
    assert present(found, lenient) == expected, "an application that knows how, reads it"


def test_a_stamp_is_taken_off_without_touching_anything_else() -> None:
    stamp = element(3, "_shadow", bson.encode({"b": "x", "r": 3}))
    for fields in (*ODD.values(), *UNREADABLE.values()):
        for raw in (whole(fields + stamp), whole(stamp + fields)):
            image = split(RawBSONDocument(raw), "_shadow")
            assert image.state == Version("x", 3)
            assert getattr(image.document, "raw", b"") == whole(fields)
    image = split(RawBSONDocument(whole(element(16, "a", int32(1)) + stamp)), "_shadow")
    assert (image.state, image.document) == (Version("x", 3), {"_id": 1, "a": 1})


@pytest.mark.parametrize(
    "stamp",
    [{"b": 5, "r": 1}, {"b": "x", "r": "1"}, {"b": "x", "r": True}, {"b": "x", "r": 1.5}, [{"b": "x", "r": 1}]],
    ids=str,
)
def test_a_stamp_that_no_writer_has_made_is_no_version(stamp: object) -> None:
    image = split(RawBSONDocument(bson.encode({"_id": 1, "a": 1, "_shadow": stamp})), "_shadow")
    assert isinstance(image.state, Unknown)
    assert image.document == {"_id": 1, "a": 1}
    assert image.state == split({"_id": 1, "_shadow": stamp}, "_shadow").state, "however it is read"
    other = split(RawBSONDocument(bson.encode({"_id": 1, "_shadow": [stamp]})), "_shadow")
    assert other.state != image.state
    assert not agree(image, image)


def test_a_tombstone_of_another_hand_is_hidden_and_is_no_tombstone() -> None:
    image = split(RawBSONDocument(bson.encode({"_id": 1, "_shadow": {"t": 5}})), "_shadow")
    assert isinstance(image.state, Unknown)
    assert image.document is None
    assert not agree(image, Image(Tombstone("x")))


@each_of(
    ("fields", "named"),
    [
        (element(2, "_id", text("k")), True),
        (element(14, "_id", text("k")), True),
        (element(3, "_id", document(element(16, "a", int32(1)))), True),
        (element(3, "_id", document(element(16, "a", int32(1)), element(16, "a", int32(2)))), False),
        (element(3, "_id", document(element(6, "a", b""))), False),
        (element(2, "_id", text(b"\xe9")), False),
        (element(16, "a", int32(1)), False),
    ],
)
def test_a_key_that_no_query_can_name_is_told_apart(fields: bytes, named: bool) -> None:
    assert (key_of(RawBSONDocument(document(fields)))[1] == "") is named


def test_taking_a_field_off_keeps_the_rest() -> None:
    fields = [element(16, "a", int32(1)), element(6, "u", b""), element(4, "l", array(element(10, "", b"")))]
    raw = document(*fields)
    assert without(raw, "u") == document(fields[0], fields[2])
    assert without(raw, "none") == raw


@each_of("cut", range(1, 30))
def test_damaged_bytes_are_told_and_never_raise(cut: int) -> None:
    raw = whole(element(2, "a", text("abc")) + element(3, "d", document(element(16, "x", int32(1)))))
    found = document_of(raw[:-cut])
    assert isinstance(found, Damaged)
    assert found.reason


# --- what the application gives ----------------------------------------------------------------------------------


def test_what_the_application_sends_is_what_is_stored() -> None:
    for fields in ODD.values():
        raw = whole(fields)
        assert stored.encoded(taken_in(RawBSONDocument(raw), None)) == raw
    moved = taken_in({"r": {"$id": 1, "$ref": "c"}}, None)
    assert stored.encoded(moved) == bson.encode({"r": {"$id": 1, "$ref": "c"}})
    assert type(taken_in({"r": DBRef("c", 1)}, None)) is dict
    with pytest.raises(UnsupportedOperation, match="_id"):
        taken_in({"_id": {"$id": 1, "$ref": "c"}}, None)


def test_an_empty_timestamp_is_filled_in_where_the_server_does_so() -> None:
    empty = Timestamp(0, 0)
    filled = with_time({"_id": empty, "a": empty, "b": {"c": empty}, "d": [empty], "e": Timestamp(0, 1), "f": empty})
    assert (filled["_id"], filled["b"], filled["d"], filled["e"]) == (empty, {"c": empty}, [empty], Timestamp(0, 1))
    assert filled["f"].time - filled["a"].time in (0, 1)
    assert filled["a"] != filled["f"]
    odd = with_time(document_of(whole(ODD["undefined"] + element(17, "at", bytes(8)))))
    assert isinstance(odd, RawDocument)
    assert odd["at"].time > 0
    assert odd.raw == whole(ODD["undefined"] + element(17, "at", bson.encode({"": odd["at"]})[6:-1]))


# --- values that compare as what they are stored as -----------------------------------------------------------------


def test_a_dbref_is_the_same_as_none_but_itself() -> None:
    nan = float("nan")
    other = -nan
    assert same({"n": nan, "r": DBRef("c", 1)}, {"n": other, "r": DBRef("c", 1)})
    assert same({"r": [DBRef("c", 1, "d", x=1)]}, {"r": [DBRef("c", 1, "d", x=1)]})
    assert not same({"r": DBRef("c", 1)}, {"r": {"$ref": "c", "$id": 1}})
    assert not same({"n": nan, "r": DBRef("c", 1)}, {"n": other, "r": {"$ref": "c", "$id": 1}})
    assert not same({"n": nan, "r": DBRef("c", 1)}, {"n": other, "r": {"$id": 1, "$ref": "c"}})
    assert not same({"n": nan, "r": DBRef("c", 1, x=1, y=2)}, {"n": other, "r": DBRef("c", 1, y=2, x=1)})
    assert not same({"n": nan, "x": Regex("a", "i")}, {"n": other, "x": Regex("a", "x")})


def test_what_mongodb_could_not_hold_is_not_the_same_and_not_an_error() -> None:
    assert not same({"a": 1}, {"a": 2**70})
    assert not same({"a": 1}, {"a\0b": 1})


def test_whether_a_change_left_a_document_different_is_decided_by_its_bytes() -> None:
    one, other = document_of(whole(ODD["a symbol"])), document_of(whole(element(2, "s", text("sym"))))
    assert same_after(one, document_of(whole(ODD["a symbol"])))
    assert not same_after(one, other)


def test_an_explanation_names_places_and_types_never_values() -> None:
    odd, plain = document_of(whole(ODD["a symbol"])), {"_id": 1, "s": "sym"}
    (found,) = explain(odd, plain, hasher=HASHER)
    assert (found.kind, found.path, found.primary_type) == (Kind.TYPE, "s", "a symbol")
    damaged = document_of(whole(UNREADABLE["text"]))
    (found,) = explain({"_id": 1, "n": "x"}, damaged, hasher=HASHER)
    assert (found.kind, found.path, found.primary_type, found.secondary_type) == (
        Kind.UNREADABLE,
        "n",
        "string",
        "unreadable",
    )
