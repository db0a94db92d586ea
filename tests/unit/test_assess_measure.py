"""What an assessment measures of documents: through the real codec, and with nothing of their values."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from shadow.assess.measure import Meter, TextTally, is_stamp
from shadow.assess.model import BoundsReached, FieldReport, KeyReport, Severity
from shadow.assess.paths import BLOB, KEY
from shadow.assess.reach import remarks_of
from shadow.compare.diff import Hasher
from shadow.model.schema import CollectionSpec, IndexSpec, UniqueSpec
from shadow.model.version import Document, Tombstone, Version, stamp_of
from shadow.stores.dynamo.client.limits import ITEM_LIMIT
from shadow.stores.dynamo.items.codec import Codec, item_size
from shadow.stores.mongo.limits import LARGEST, ROOM
from tests.support.cases import each_of

SPEC = CollectionSpec("things", (IndexSpec("owner-index", "owner", "at"), IndexSpec("email-index", "email")))
NOISE = random.Random(3).randbytes(900_000)


def metered(*documents: Document, spec: CollectionSpec = SPEC) -> Meter:
    meter = Meter(spec)
    for place, document in enumerate(documents):
        whole = {"_id": place, **document}
        meter.add(whole, len(bson.encode(whole)))
    return meter


def fields(meter: Meter) -> dict[tuple[str, str], tuple[str, int]]:
    return {(each.path, each.type): (each.form, each.count) for each in meter.paths.report()}


def test_the_size_is_that_of_the_item_which_the_codec_writes(real_documents: dict[str, list[dict[str, Any]]]) -> None:
    for name, documents in real_documents.items():
        spec = CollectionSpec(name, SPEC.indexes)
        expected = [
            item_size(Codec(spec).encode("k" * 24, Version("b" * 24, 1), each, "o" * 24).item)
            for each in documents
            if isinstance(each.get("_id"), ObjectId)
        ]
        meter = Meter(spec)
        for each in documents:
            if isinstance(each.get("_id"), ObjectId):
                meter.add(each, 0)
        sizes = meter.sizes()
        assert (sizes.smallest, sizes.largest, sizes.item_bytes) == (min(expected), max(expected), sum(expected)), name
        assert sizes.median == pytest.approx(sorted(expected)[(len(expected) - 1) // 2], rel=0.02)


def test_every_document_is_in_one_bucket_of_the_histogram() -> None:
    """By the size that the item would have; beyond the limit they are told apart by what becomes of them."""
    near = "x" * (ITEM_LIMIT - 2000)
    sizes = metered({"t": "a"}, {"t": "b" * 3000}, {"t": near}, {"t": "c" * 500_000}, {"t": NOISE}).sizes()
    assert [each.documents for each in sizes.histogram] == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]
    assert (sizes.near, sizes.compressed, sizes.split, sizes.most_parts, sizes.unnamed) == (1, 1, 1, 3, 0)
    assert sizes.largest > 900_000


def test_a_document_that_no_item_can_name_counts_as_such() -> None:
    sizes = metered({"": 1}, {"a": 1}).sizes()
    assert (sizes.unnamed, sizes.compressed, sizes.split) == (1, 1, 0)


def test_a_large_document_weighs_its_parts_and_its_entries_its_head() -> None:
    """Three parts of 390,000 bytes at the most; the index holds the head alone."""
    weights = metered({"email": "e", "t": NOISE}).weights
    assert 880 <= weights.write_units <= 900
    assert weights.index_units == {"email-index": 1}
    assert metered({"email": None, "t": NOISE}).weights.index_units == {}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return value


def test_documents_within_reach_of_a_limit_are_counted_and_told() -> None:
    """A little growth would make one of the stores refuse them; what is beyond a limit has to be mended first."""
    spec = CollectionSpec("things", unique=(UniqueSpec("tags", ("tags",), True),))
    meter = Meter(spec)
    for size in (1000, LARGEST - 2_000_000, LARGEST - 1_000_000, LARGEST - ROOM, LARGEST - ROOM + 1, LARGEST):
        meter.add({"_id": size}, size)
    rows = [{"v": nested(levels)} for levels in (162, 163, 180)]
    rows += [{"tags": list(range(1000 * count, 1000 * count + count))} for count in (89, 90, 99, 100)]
    rows += [{"a": 1, "$b": 2}, {"a": {"$b": 2}}]
    for place, document in enumerate(rows):
        meter.add({"_id": place, **document}, 100)
    found = meter.reach()
    assert found == BoundsReached(near_size=2, no_room=2, near_depth=2, near_values=2, too_many_values=1, dollar=1)
    remarks = list(remarks_of("things", found))
    assert [each.severity for each in remarks] == [Severity.BLOCKER] * 2 + [Severity.NOTE] * 4
    assert all(each.collection == "things" for each in remarks)
    assert list(remarks_of("things", metered({"a": 1}).reach())) == []


def test_every_type_is_told_with_what_the_codec_makes_of_it() -> None:
    moment = dt.datetime(2020, 1, 1)
    values: Document = {
        "s": "x",
        "i": 1,
        "l": Int64(1),
        "f": 1.5,
        "inf": float("inf"),
        "b": True,
        "n": None,
        "d": moment,
        "o": ObjectId(),
        "raw": b"x",
        "uuid": Binary(b"x" * 16, 4),
        "dec": Decimal128("1.5"),
        "nan": Decimal128("NaN"),
        "re": Regex("x"),
        "ts": Timestamp(1, 2),
        "min": MinKey(),
        "max": MaxKey(),
        "js": Code("x"),
        "scoped": Code("x", {}),
        "ref": DBRef("c", 5),
        "list": [1, "x", [2.5]],
        "map": {"in": {"deep": moment}},
        "owner": "me",
    }
    found = fields(metered(values))
    assert found["s", "string"] == ("S", 1)
    assert found["i", "int"] == found["l", "long"] == found["f", "double"] == found["dec", "decimal"] == ("N", 1)
    assert found["d", "date"] == ("S: ISO 8601", 1)
    assert found["o", "objectId"] == ("S: hex digits", 1)
    assert found["uuid", "binData"] == found["raw", "binData"] == ("B", 1)
    assert found["inf", "double"] == found["nan", "decimal"] == found["scoped", "javascriptWithScope"] == (BLOB, 1)
    assert found["list[]", "string"] == ("S", 1)
    assert found["list[][]", "double"] == ("N", 1)
    assert found["map.in.deep", "date"] == ("S: ISO 8601", 1)
    assert found["ref.$id", "int"] == ("N", 1)
    assert found["owner", "string"] == found["_id", "int"] == (KEY, 1)


def test_what_lies_too_deep_is_told_where_it_turns_to_bson() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"in": deep}
    meter = metered({"deep": deep})
    assert meter.paths.deepest == 40
    blobs = [each.path for each in meter.paths.report() if each.form == BLOB]
    assert blobs == ["deep" + ".in" * 25]


@each_of(
    "name", ["ann@example.org", "5ca4bbc7a2dd94ee5816238c", "hunter2 with spaces", "2020-01-01T00:00", "a.b", "1234567"]
)
def test_a_name_that_is_data_is_starred(name: str) -> None:
    report = metered({"by": {name: {"n": 1}}}).paths.report()
    assert {each.path for each in report} == {"_id", "by", "by.*", "by.*.n"}


def test_maps_with_very_many_names_are_one_path_however_the_names_look() -> None:
    """Also where each document has few of them."""
    names = [f"user_{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]
    meter = metered(*({"by": {name: 1}} for name in names))
    assert meter.paths.report()[-1] == FieldReport("by.*", "int", "N", 200)


def test_of_a_key_it_is_told_what_its_values_are_to_it() -> None:
    values: list[Any] = [
        "plain",
        "",
        "x" * 3000,
        None,
        [1],
        5,
        5.5,
        {"a": 1},
        ObjectId(),
        Int64(7),
        dt.datetime(2020, 1, 1),
    ]
    report = metered(*({"email": value} for value in values), {}).key_report("email")
    assert report == KeyReport(
        path="email",
        limit=2048,
        exact=4,
        escaped=1,
        absent=2,
        arrays=1,
        aside={"string over 2048 bytes": 1, "double": 1, "object": 1, "long": 1},
        types=report.types,
        longest=report.longest,
    )
    assert report.types["missing"] == 1
    assert metered({"at": "x" * 1500}).key_report("at").aside == {"string over 1024 bytes": 1}


def test_documents_without_the_hash_have_no_entry_and_without_the_range_they_have() -> None:
    weights = metered({"owner": "a"}, {"owner": "a", "at": 1}, {"at": 1}, {"owner": None}).weights
    assert weights.index_entries == {"owner-index": 2}


def test_an_index_over_several_fields_counts_what_stands_under_all_of_them() -> None:
    spec = CollectionSpec("c", (IndexSpec("pair", "_shadow_by_pair", fields=("a", "b")),))
    meter = metered({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1}, spec=spec)
    assert (meter.tallies["pair"].total, meter.tallies["pair"].values) == (3, 2)
    assert meter.tallies["pair"].share == pytest.approx(2 / 3)


def test_a_version_is_told_from_a_field_of_the_application() -> None:
    version, tombstone = stamp_of(Version("b", 1)), stamp_of(Tombstone("t"))
    assert is_stamp(version)
    assert is_stamp(tombstone)
    for value in ("text", 5, None, {}, {"b": "x", "more": 1}):
        assert not is_stamp(value)
    meter = metered({"_shadow": version, "a": 1}, {"_shadow": tombstone}, {"_shadow": "mine", "a": 1}, {"a": 1})
    assert (meter.stamped, meter.tombstones, meter.foreign, meter.weights.documents) == (1, 1, 1, 3)


def test_claims_are_counted_as_the_constraint_counts_them() -> None:
    spec = CollectionSpec("c", (), (UniqueSpec("u", ("tags",), sparse=True),))
    assert metered({"tags": [1, 2, 3]}, {"tags": "x"}, {}, spec=spec).weights.claims == 4


def test_a_tally_stays_small_and_keeps_what_is_frequent() -> None:
    tally = TextTally(most=100)
    for n in range(10_000):
        tally.add("hot" if n % 4 == 0 else f"cold {n}")
    assert tally.values <= 100
    assert tally.is_cut
    assert tally.share == pytest.approx(0.25)


def test_what_is_frequent_is_told_by_a_keyed_hash() -> None:
    tally = TextTally()
    for text in ("secret", "secret", "other"):
        tally.add(text)
    (hot,) = tally.hottest(Hasher(b"pepper"))
    assert hot.share == pytest.approx(2 / 3)
    assert hot.hash == Hasher(b"pepper").hash_value("secret") != Hasher(b"salt").hash_value("secret")
    assert TextTally().share == 0.0
