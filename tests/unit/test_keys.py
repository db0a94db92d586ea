"""Key texts: equal exactly where MongoDB calls the values equal, and within DynamoDB's limits."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.model.order import equal
from shadow.model.values import normalise_value
from shadow.stores.dynamo.client.limits import HASH_LIMIT, RANGE_LIMIT
from shadow.stores.dynamo.items.keys import decode_key, key_text, text_and_exactness
from tests.support.cases import each_of
from tests.support.drawn import examples
from tests.unit.test_codec import keys_of_documents

canonical_keys = keys_of_documents.map(normalise_value)

ID = ObjectId("5ca4bbc7a2dd94ee5816238c")

CASES: list[tuple[Any, str]] = [
    (ID, "5ca4bbc7a2dd94ee5816238c"),
    ("plain", "plain"),
    ("", "~str:"),
    ("~x", "~str:~x"),
    (str(ID), f"~str:{ID}"),
    (str(ID).upper(), str(ID).upper()),
    (5, "~num:5"),
    (Int64(5), "~num:5"),
    (5.0, "~num:5"),
    (-0.0, "~num:0"),
    (Decimal128("5.00"), "~num:5"),
    (Decimal128("5E+2"), "~num:500"),
    (Int64(2**62), f"~num:{2**62}"),
    (True, "~bool:true"),
    (False, "~bool:false"),
    (None, "~null"),
    (dt.datetime(2009, 4, 1, 7), "~date:2009-04-01T07:00:00.000Z"),
    (DatetimeMS(-(2**62)), f"~date:-{2**62}"),
    (DatetimeMS(2**62), f"~date:A{2**62}"),
]


@each_of(("value", "text"), CASES)
def test_the_text_of_a_value(value: Any, text: str) -> None:
    """The table of the module's docstring, case by case."""
    assert key_text(value) == text


@each_of(
    ("value", "kind"),
    [
        ("x" * 2049, "~strx:"),
        (1.5, "~numx:"),
        (float("nan"), "~numx:"),
        (float("inf"), "~numx:"),
        (Decimal128("NaN"), "~numx:"),
        ({"a": 1}, "~object:"),
        ([1], "~array:"),
        (b"x", "~binData:"),
        (Binary(b"x", 4), "~binData:"),
        (Timestamp(1, 2), "~timestamp:"),
        (MinKey(), "~minKey:"),
        (MaxKey(), "~maxKey:"),
        (DBRef("c", 1), "~object:"),
        (Code("x"), "~javascript:"),
    ],
)
def test_other_values_become_a_digest(value: Any, kind: str) -> None:
    """And are not exact, so the value itself has to stand aside."""
    text, exact = text_and_exactness(value)
    assert text.startswith(kind)
    assert not exact
    with pytest.raises(ValueError):
        decode_key(text)


@settings(max_examples=examples(300), deadline=None)
@given(canonical_keys, canonical_keys)
def test_texts_are_equal_exactly_where_mongodb_says_so(a: Any, b: Any) -> None:
    """Two documents of one key in MongoDB are one item here, and two are two."""
    assert (key_text(a) == key_text(b)) == equal(a, b)


NUMBERS = [0, 1, Int64(1), 1.0, Decimal128("1"), Decimal128("1.0"), 0.1, Decimal128("0.1"), -0.0, 2.0**53, Int64(2**53)]
NUMBERS += [1e22, Decimal128("1E+22"), 1e33, Decimal128("1E+33"), 1e34, Decimal128("1E+34"), 1e40, Decimal128("1E+40")]
NUMBERS += [
    float(2**63),
    Int64(2**63 - 1),
    float("nan"),
    Decimal128("NaN"),
    Decimal128("0.1000000000000000055511151231257827"),
]
NUMBERS += [Decimal128("9999999999999999455752309870428160"), Decimal128("9" * 34), -1e34, Decimal128("-1E+34")]
NUMBERS += [float("inf"), Decimal128("Infinity"), 1e300, Decimal128("1E+300"), Decimal128("1E-6176"), 5e-324]


@each_of("a", NUMBERS)
def test_numbers_of_all_types_are_equal_by_value(a: Any) -> None:
    """5, 5.0 and Decimal128("5") are one key."""
    assert [b for b in NUMBERS if (key_text(a) == key_text(b)) != equal(a, b)] == []


@settings(max_examples=examples(300), deadline=None)
@given(canonical_keys, st.sampled_from([HASH_LIMIT, RANGE_LIMIT]))
def test_texts_are_keys_that_dynamodb_takes_and_exact_ones_decode(value: Any, limit: int) -> None:
    """Not empty, not over the limit; an exact text gives back value and type."""
    text, exact = text_and_exactness(value, limit)
    assert 0 < len(text.encode()) <= limit
    if exact:
        decoded = decode_key(text)
        assert decoded == value
        assert type(decoded) is type(value) or isinstance(decoded, Int64)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)), min_size=2, max_size=2))
def test_texts_of_dates_sort_as_dates(pair: list[dt.datetime]) -> None:
    """So that an index can be asked for a span of time."""
    a, b = (value.replace(microsecond=value.microsecond // 1000 * 1000) for value in pair)
    assert (key_text(a) < key_text(b)) == (a < b)
    assert key_text(DatetimeMS(-(2**60))) < key_text(a) < key_text(DatetimeMS(2**60))
