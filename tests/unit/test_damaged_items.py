"""Items that another hand has changed: they are read as far as they can be, never raise, and never pass for whole."""

from __future__ import annotations

import copy
import datetime as dt
import tracemalloc
import zlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import bson
import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.compare.equality import agree, same
from shadow.errors import UnreadableDocument
from shadow.model.operation import Delete, Insert, Replace, Update
from shadow.model.schema import CollectionSpec, IndexSpec, UniqueSpec
from shadow.model.stored import Damaged, check_copyable
from shadow.model.version import ABSENT, Document, Image, Unknown, Version
from shadow.stores.dynamo.items import unique
from shadow.stores.dynamo.items.codec import Codec, Item
from shadow.stores.dynamo.write.changes import computation
from tests.support.cases import each_of
from tests.support.drawn import examples

SPEC: Final = CollectionSpec("things", indexes=(IndexSpec("by-email", "email"),))
CODEC: Final = Codec(SPEC)
VERSION: Final = Version("b" * 24, 3)
DOCUMENT: Final[Document] = {
    "_id": 2.5,
    "email": "",
    "at": dt.datetime(2024, 1, 8),
    "far": DatetimeMS(10**15),
    "double": 2.5,
    "long": Int64(5),
    "number": 7,
    "decimal": Decimal128("1.50"),
    "id": ObjectId("5ca4bbc7a2dd94ee5816238c"),
    "binary": Binary(b"abc", 5),
    "pattern": Regex("a", 2),
    "when": Timestamp(5, 1),
    "least": MinKey(),
    "most": MaxKey(),
    "code": Code("f()"),
    "scoped": Code("f()", {"a": 1.5}),
    "ref": DBRef("c", 1.5),
    "doubles": [1.5, 2.5],
    "mixed": [1, 1.5, {"b": 1.5, "a": Int64(1)}],
    "dates": {"b": dt.datetime(2024, 1, 8), "a": dt.datetime(2024, 1, 9)},
    "deep": {"b": {"d": 1, "c": 1.5}, "a": "text"},
}
ITEM: Final[Item] = CODEC.encode("~numx:" + "0" * 8, VERSION, DOCUMENT, "op").item
ATTRIBUTES: Final = (
    {"S": "2024-01-08T00:00:00.000~"},
    {"S": "x"},
    {"S": ""},
    {"N": "20240108"},
    {"N": "1.25"},
    {"N": "99999999999999999999999999999999999999"},
    {"B": b"\xff\xfe"},
    {"BOOL": True},
    {"NULL": True},
    {"L": []},
    {"L": [{"S": "x"}]},
    {"M": {}},
    {"M": {"x": {"S": "y"}}},
    {"SS": ["a", "b"]},
    {"NS": ["1", "2"]},
    {"BS": [b"a"]},
)
"""One of each type, and texts and numbers that are nothing that they ought to be."""


def item_of(document: Document, key_text: str = "") -> Item:
    from shadow.stores.dynamo.items import keys

    return CODEC.encode(key_text or keys.key_text(document["_id"]), VERSION, document, "op").item


ITEM.update(item_of(DOCUMENT))


def places(attribute: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of an item where an attribute stands."""
    if isinstance(attribute, dict) and len(attribute) == 1 and path and next(iter(attribute)) in ("M", "L"):
        ((tag, raw),) = attribute.items()
        yield path
        for name in raw if tag == "M" else range(len(raw)):
            yield from places(raw[name], (*path, tag, name))
    elif path:
        yield path
    else:
        for name in attribute:
            yield from places(attribute[name], (name,))


def changed(item: Item, path: tuple[Any, ...], attribute: dict[str, Any] | None) -> Item:
    made: Any = copy.deepcopy(item)
    holder = made
    for step in path[:-1]:
        holder = holder[step]
    if attribute is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = attribute
    return made


PLACES: Final = [path for path in places(ITEM) if path != ("_id",)]


@given(st.sampled_from(PLACES), st.one_of(st.none(), st.sampled_from(ATTRIBUTES)))
@settings(max_examples=examples(1_500), deadline=None)
def test_no_change_of_an_item_raises_and_none_of_its_content_passes(
    path: tuple[Any, ...], attribute: dict[str, Any] | None
) -> None:
    item = changed(ITEM, path, attribute)
    image = CODEC.decode(item)
    CODEC.stamp(item)
    CODEC.parts(item)
    CODEC.key(item)
    CODEC.op_id(item)
    assert CODEC.state(item) == image.state
    # An index attribute whose value is kept aside says nothing of the document.
    if path[0] not in (CODEC.reserved, "email") and item != ITEM:
        assert image.document is not None
        assert not agree(Image(VERSION, DOCUMENT), image), "a change of the content shows"
    if isinstance(image.document, Damaged):
        assert image.document.reason
        assert "_id" in image.document


def test_as_it_was_written_it_is_read() -> None:
    assert agree(Image(VERSION, DOCUMENT), CODEC.decode(ITEM))


@each_of("name", [name for name in DOCUMENT if name not in ("_id", "email")])
def test_one_field_hides_no_other(name: str) -> None:
    image = CODEC.decode(changed(ITEM, (name,), {"BS": [b"a"]}))
    rest = {each: value for each, value in DOCUMENT.items() if each != name}
    found = image.document
    assert found is not None
    if isinstance(found, Damaged):
        assert set(found.faults) == {name}
        assert all(same({"": found[each]}, {"": value}) for each, value in rest.items())


@each_of(
    "text",
    ["2024-01-08", "20240108T000000.000Z", "2024-W01-1T00:00:00.000Z", "2024-01-08T00:00:00,000Z",
     "2024-01-08T00:00:00.000z", "2024-13-08T00:00:00.000Z", "2024-01-08T00:00:00+05:00Z"],
)  # fmt: skip
def test_a_date_that_was_not_written_so_is_none(text: str) -> None:
    assert isinstance(CODEC.decode(changed(ITEM, ("at",), {"S": text})).document, Damaged)


def test_a_number_under_the_text_of_another_is_seen() -> None:
    assert Decimal(ITEM["decimal"]["N"]) == Decimal("1.5")
    assert isinstance(CODEC.decode(changed(ITEM, ("decimal",), {"N": "9"})).document, Damaged)


@pytest.mark.parametrize(
    "stamp",
    [{"b": {"N": "5"}}, {"r": {"S": "3"}}, {"r": {"N": "1.5"}}, {"b": {"NULL": True}}, {"t": {"N": "5"}}],
    ids=str,
)
def test_a_stamp_that_no_codec_has_written_is_no_version(stamp: dict[str, Any]) -> None:
    item = copy.deepcopy(ITEM)
    item[CODEC.reserved]["M"].update(stamp)
    image = CODEC.decode(item)
    assert isinstance(image.state, Unknown)
    assert (image.document is None) is ("t" in stamp), "what reads hide is hidden"
    assert CODEC.state(item) == image.state
    assert CODEC.stamp(item).state == image.state
    assert not agree(Image(VERSION, DOCUMENT), image)
    assert not agree(Image(ABSENT), image)
    with pytest.raises(UnreadableDocument):
        check_copyable(image)


@pytest.mark.parametrize(
    "body", [b"", b"no zlib", zlib.compress(b"no bson"), zlib.compress(bson.encode({"_id": 1}))[:-6]], ids=repr
)
def test_a_body_that_is_none_is_told(body: bytes) -> None:
    item: Item = {"_id": {"S": "k"}, CODEC.reserved: {"M": {"b": {"S": "x"}, "z": {"B": body}}}}
    image = CODEC.decode(item)
    assert isinstance(image.document, Damaged)
    assert image.document["_id"] == "k"


def test_a_body_without_end_is_not_unpacked() -> None:
    item: Item = {"_id": {"S": "k"}, CODEC.reserved: {"M": {"z": {"B": zeros(200)}}}}
    tracemalloc.start()
    try:
        assert isinstance(CODEC.decode(item).document, Damaged)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def zeros(megabytes: int) -> bytes:
    """So many of them, compressed: the first one is, and the same bytes stand for each of the others."""
    one, packing, check = bytes(2**20), zlib.compressobj(9), 1
    first = packing.compress(one) + packing.flush(zlib.Z_FULL_FLUSH)
    again = packing.compress(one) + packing.flush(zlib.Z_FULL_FLUSH)
    for _ in range(megabytes):
        check = zlib.adler32(one, check)
    return first + again * (megabytes - 1) + packing.flush()[:-4] + check.to_bytes(4, "big")


def test_the_body_without_end_could_be_unpacked() -> None:
    assert zlib.decompress(zeros(3)) == bytes(3 * 2**20)


@each_of("count", ["x", "0", "-1", "1.5", "1000000000", None])
def test_a_number_of_parts_that_was_never_written_is_not_read(count: str | None) -> None:
    stamp: dict[str, Any] = {"g": {"S": "g"}, **({} if count is None else {"n": {"N": count}})}
    item: Item = {"_id": {"S": "k"}, CODEC.reserved: {"M": stamp}}
    assert CODEC.parts(item) is None
    assert CODEC.generation(item) == "g"
    assert isinstance(CODEC.decode(item).document, Damaged)


@pytest.mark.parametrize(
    ("key_text", "told"), [("~foo:x", False), ("~num:x", False), ("~num:007", False), ("~num:7", True), ("k", True)]
)
def test_a_key_that_is_no_text_of_a_key_is_told_apart(key_text: str, told: bool) -> None:
    assert (CODEC.key({"_id": {"S": key_text}})[1] == "") is told


# --- what is done with them ---------------------------------------------------------------------------------------


DAMAGED: Final = Image(VERSION, Damaged({"_id": "k", "n": 1}, {"at": "an attribute that is not as it was written"}))


def made(change: Any) -> Image | None:
    return computation("d.c", change)(DAMAGED)


def test_only_what_needs_nothing_of_it_is_done_to_what_cannot_be_read() -> None:
    assert made(Delete("k", {"_id": "k"}, "t")) == Image(ABSENT)
    assert made(Delete("k", {"_id": "k", "n": 1}, "t")) == Image(ABSENT)
    assert made(Delete("k", {"_id": "k", "n": 2}, "t")) is None
    assert made(Replace("k", {"_id": "k"}, {"n": 2}, "born")) == Image(Version("born", 1), {"_id": "k", "n": 2})
    with pytest.raises(UnreadableDocument):
        made(Delete("k", {"_id": "k", "at": 1}, "t"))
    with pytest.raises(UnreadableDocument):
        made(Delete("k", {"$or": [{"at": 1}, {"n": 2}]}, "t"))
    with pytest.raises(UnreadableDocument):
        made(Update("k", {"_id": "k"}, {"$set": {"n": 2}}, ""))
    with pytest.raises(Exception, match="E11000"):
        made(Insert("k", {"_id": "k"}, "born"))


def test_it_claims_only_the_values_that_can_be_read() -> None:
    spec = CollectionSpec("things", unique=(UniqueSpec("one", ("n",)), UniqueSpec("two", ("at",))))
    assert [each.constraint.name for each in unique.claims(spec, DAMAGED.document).values()] == ["one"]
    nothing = Damaged({"_id": "k"}, {"": "a body that is missing or damaged"})
    assert unique.claims(spec, nothing) == {}
