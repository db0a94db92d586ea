"""MongoDB's order over BSON values."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from typing import Any

import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from pymongo.errors import OperationFailure

from shadow.model.order import MISSING, equal, key_digest, order_key, sort_documents
from tests.support.cases import each_of

ASCENDING: list[Any] = [
    MinKey(),
    MISSING,
    None,
    math.nan,
    -math.inf,
    Int64(-(2**63)),
    -2.5,
    0,
    Decimal128("1E-20"),
    Decimal128("0.1"),
    0.1,
    1,
    2**53,
    Decimal128("9007199254740993"),
    1e300,
    Decimal128("1E+400"),
    math.inf,
    "",
    "a",
    "ab",
    "b",
    "é",
    "日",
    {},
    {"a": 1},
    {"a": 1, "b": 0},
    {"b": 1},
    {"a": "x"},
    [],
    [1],
    [1, 2],
    ["a"],
    b"",
    b"\x01",
    Binary(b"\x00", 5),
    b"\x01\x02",
    ObjectId("0" * 24),
    ObjectId("f" * 24),
    False,
    True,
    dt.datetime(1960, 1, 1),
    dt.datetime(2024, 1, 1),
    DatetimeMS(2**60),
    Timestamp(1, 1),
    Timestamp(1, 2),
    Regex("a"),
    Regex("a", 2),
    Regex("b"),
    Code("a"),
    Code("a", {"x": 1}),
    MaxKey(),
]

EQUAL: list[tuple[Any, Any]] = [
    (1, 1.0),
    (1, Int64(1)),
    (1, Decimal128("1.00")),
    (0.0, -0.0),
    (math.nan, Decimal128("NaN")),
    (math.inf, Decimal128("Infinity")),
    (b"x", Binary(b"x", 0)),
    ({"a": 1}, {"a": 1.0}),
    ([1, {"b": None}], [Int64(1), {"b": None}]),
    (dt.datetime(2024, 1, 1), DatetimeMS(1704067200000)),
    (DBRef("c", 1), {"$ref": "c", "$id": 1}),
]


def test_values_stand_in_the_servers_order() -> None:
    """Every earlier value of the list is less than every later one, and none of them are equal."""
    for low, high in itertools.combinations(ASCENDING, 2):
        assert order_key(low) < order_key(high), (low, high)
        assert key_digest(low) != key_digest(high), (low, high)


@each_of(("a", "b"), EQUAL)
def test_equal_values_share_key_hash_and_digest(a: Any, b: Any) -> None:
    """What MongoDB calls equal is one dictionary key and one digest."""
    assert equal(a, b)
    assert hash(order_key(a)) == hash(order_key(b))
    assert key_digest(a) == key_digest(b)


@pytest.mark.parametrize(("a", "b"), [(True, 1), (None, MISSING), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ("1", 1)])
def test_unequal_values_have_other_digests(a: Any, b: Any) -> None:
    """Types and the order of fields count."""
    assert not equal(a, b)
    assert key_digest(a) != key_digest(b)


@pytest.mark.parametrize(
    ("values", "direction", "order"),
    [
        ([2, 1, None, "a"], 1, [2, 1, 0, 3]),
        ([[5, 1], 3, [2]], 1, [0, 2, 1]),
        ([[5, 1], 3, [2]], -1, [0, 1, 2]),
        ([None, [], 1], 1, [1, 0, 2]),
        ([{"b": 1}, {"a": 2}], 1, [1, 0]),
    ],
)
def test_documents_sort_by_one_field(values: list[Any], direction: int, order: list[int]) -> None:
    """Arrays sort by their least or greatest element, empty ones before null."""
    documents = [{"_id": i, "v": value} for i, value in enumerate(values)]
    assert [d["_id"] for d in sort_documents(documents, [("v", direction)])] == order


def test_a_missing_field_sorts_as_null_and_ties_keep_their_order() -> None:
    documents = [{"_id": 1, "a": None}, {"_id": 2}, {"_id": 3, "a": 0}]
    assert [d["_id"] for d in sort_documents(documents, [("a", 1)])] == [1, 2, 3]
    assert [d["_id"] for d in sort_documents(documents, [("a", -1)])] == [3, 1, 2]


def test_several_fields_of_one_array_sort_by_their_best_combination() -> None:
    """The least key of the whole pattern decides, not the least of each field."""
    documents = [{"_id": 1, "a": [{"b": 1, "c": 9}, {"b": 2, "c": 0}]}, {"_id": 2, "a": [{"b": 1, "c": 5}]}]
    assert [d["_id"] for d in sort_documents(documents, [("a.b", 1), ("a.c", 1)])] == [2, 1]


def test_parallel_arrays_are_refused() -> None:
    with pytest.raises(OperationFailure) as caught:
        sort_documents([{"a": [1], "b": [2]}], [("a", 1), ("b", 1)])
    assert caught.value.code == 2


def test_an_item_sorts_by_the_document_that_key_takes_from_it() -> None:
    items = [("x", {"a": 2}), ("y", {"a": 1})]
    assert [name for name, _ in sort_documents(items, [("a", 1)], key=lambda item: item[1])] == ["y", "x"]
