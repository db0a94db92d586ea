"""A read stands at one place between 0 and 1, for good; a share is the reads below it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex
from hypothesis import given
from hypothesis import strategies as st

from shadow.model.order import MISSING
from shadow.reads.stickiness import fixed_key, place
from tests.support.cases import each_of

SCALARS = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=8) | st.binary(max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)
FILTERS = st.dictionaries(st.sampled_from(["_id", "a", "b", "c.d"]), VALUES, max_size=4)


@given(FILTERS, st.floats(0, 1), st.floats(0, 1))
def test_the_same_read_stands_at_the_same_place_and_a_greater_share_keeps_what_a_smaller_one_had(
    filter: dict[str, Any], one: float, other: float
) -> None:
    where = place("users", filter)
    assert 0.0 <= where < 1.0
    assert place("users", dict(reversed(filter.items()))) == where, "the order of fields is none of the read"
    small, great = sorted((one, other))
    assert not (where < small and where >= great)


@given(VALUES.filter(lambda value: not isinstance(value, list)), FILTERS)
def test_every_read_of_one_key_stands_where_the_key_does(key: Any, rest: dict[str, Any]) -> None:
    where = place("users", {"_id": {"$eq": key}})
    others = {name: value for name, value in rest.items() if name != "_id"}
    for filter in (
        {"_id": {"$eq": key}, **others},
        {"_id": {"$in": [key]}, **others},
        {"$and": [{"_id": {"$eq": key}}, others]},
        {"$and": [others, {"$and": [{"_id": {"$eq": key}}]}]},
    ):
        assert place("users", filter) == where
    assert place("users", {"_id": {"$eq": key}}, [{"$count": "n"}]) == where


@functools.cache
def many_places() -> list[list[float]]:
    """Of many keys of two types, and of many filters."""
    filters: list[list[dict[str, Any]]] = [
        [{"_id": f"k{n}"} for n in range(5_000)],
        [{"_id": ObjectId(f"{n:024x}")} for n in range(5_000)],
        [{"user": n, "$or": [{"a": n}, {"b": 1}]} for n in range(5_000)],
    ]
    return [[place("users", each) for each in those] for those in filters]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_a_share_is_that_share_of_many_keys_and_of_many_filters(share: float) -> None:
    for places in many_places():
        below = sum(each < share for each in places)
        spread = 5 * (5_000 * share * (1 - share)) ** 0.5
        assert abs(below - 5_000 * share) <= spread, "within five deviations of a fair coin of that share"


def test_collections_pipelines_and_values_have_places_of_their_own() -> None:
    places = [
        place("users", {"_id": "a"}),
        place("notes", {"_id": "a"}),
        place("users", {"name": "a"}),
        place("users", {"name": {"$eq": "a"}}),
        place("users", {"name": {"$ne": "a"}}),
        place("users", {}),
        place("users", {}, [{"$count": "n"}]),
        place("users", {}, [{"$count": "m"}]),
    ]
    assert len(set(places)) == len(places)


def test_numbers_that_are_equal_to_mongodb_are_one_key() -> None:
    keys: list[Any] = [7, 7.0, Int64(7), Decimal128("7.00")]
    assert len({place("users", {"_id": key}) for key in keys}) == 1


@each_of(
    "filter",
    [
        {},
        {"a": 1},
        {"_id": {"$in": [1, 2]}},
        {"_id": {"$gt": 1}},
        {"_id": Regex("a")},
        {"_id": [1]},
        {"_id": {"$eq": Regex("a")}},
        {"$or": [{"_id": 1}]},
        {"$and": []},
    ],
)
def test_a_filter_that_may_match_several_documents_fixes_no_key(filter: dict[str, Any]) -> None:
    assert fixed_key(filter) is MISSING


@each_of("key", ["a", 1, None, {"a": 1}, {}, {"$ref": "c", "$id": 1}])
def test_a_key_may_be_anything_that_an_id_may_be(key: Any) -> None:
    assert fixed_key({"_id": key, "a": 1}) == key
