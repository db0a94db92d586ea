"""Equality of documents and of answers: strict where it must be, and free exactly where both stores are right."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
import struct
from typing import Any

import bson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from shadow.compare.answers import compare_values
from shadow.compare.equality import (
    Comparison,
    canonical,
    compare_documents,
    compare_hits,
    compare_one,
    same,
    same_after,
)
from shadow.model.operation import Hit, Query
from shadow.model.order import sort_documents
from shadow.model.reads import Aggregate, Count, Distinct
from shadow.model.values import normalise
from shadow.model.verdict import Incomparable, Kind
from shadow.model.version import Document, Version
from tests.support.cases import each_of

DISTINCT = [
    None,
    False,
    True,
    0,
    1,
    Int64(1),
    2**31,
    1.0,
    0.0,
    -0.0,
    math.nan,
    math.inf,
    "",
    "1",
    "a\nb",
    "a\\nb",
    b"1",
    Binary(b"1", 5),
    [],
    {},
    [1],
    {"a": 1},
    {"__v": 1},
    {"__v": 2},
    ObjectId("0" * 24),
    ObjectId("1" * 24),
    "0" * 24,
    Decimal128("1"),
    Decimal128("1.0"),
    Decimal128("2"),
    Timestamp(1, 1),
    Timestamp(1, 2),
    dt.datetime(2026, 1, 1),
    dt.datetime(2026, 1, 1, microsecond=1000),
    DatetimeMS(2**60),
    Regex("a"),
    Regex("a", "i"),
    Code("x"),
    Code("x", {}),
    Code("x", {"y": 1}),
    DBRef("c", 1),
    DBRef("c", 2),
    MinKey(),
    MaxKey(),
]
NEGATIVE_NAN = struct.unpack("<d", b"\x01\0\0\0\0\0\xf8\xff")[0]


def test_no_two_different_values_are_the_same() -> None:
    for a, b in itertools.combinations(DISTINCT, 2):
        left, right = {"x": [a]}, {"x": [b]}
        assert not same(left, right), (a, b)
        assert canonical(left) != canonical(right), (a, b)
        assert compare_documents(left, right) in (Kind.TYPE, Kind.VALUE)


@each_of("value", DISTINCT, ids=repr)
def test_a_value_is_the_same_as_itself_after_a_round_trip(value: Any) -> None:
    assert same({"x": value}, normalise({"x": value}))
    assert canonical(value) == canonical(normalise({"x": value})["x"])


def test_nan_equals_nan_whatever_its_payload() -> None:
    assert same({"a": [{"b": math.nan}]}, {"a": [{"b": NEGATIVE_NAN}]})
    assert not same({"a": math.nan, "b": 1}, {"a": NEGATIVE_NAN, "b": 2})


def test_an_aware_datetime_is_the_date_that_bson_stores_for_it() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    noon = dt.datetime(2026, 1, 1, 12)
    assert same({"a": dt.datetime(2026, 1, 1, 14, tzinfo=zone)}, {"a": noon})
    assert not same({"a": dt.datetime(2026, 1, 1, 12, tzinfo=zone)}, {"a": noon})
    assert canonical(dt.datetime(2026, 1, 1, 12, tzinfo=zone)) != canonical(noon)


def test_the_order_of_fields_counts_at_every_level_but_for_the_top_level_id() -> None:
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same({"x": [{"_id": 1, "b": 2}]}, {"x": [{"b": 2, "_id": 1}]})
    assert same({"a": 1, "_id": 2}, {"_id": 2, "a": 1})
    assert compare_documents({"a": {"b": 1, "c": 1}}, {"a": {"c": 1, "b": 1}}) is Kind.ORDER


def test_a_missing_field_is_no_null() -> None:
    assert not same({"a": None}, {})
    assert compare_documents({"a": None}, {}) is Kind.VALUE


_leaves = st.sampled_from(DISTINCT).filter(lambda v: not isinstance(v, dict | list))
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "__c"]), inner, max_size=3),
    max_leaves=6,
)


@given(_values, _values)
def test_canonical_forms_are_equal_exactly_if_the_bytes_are_but_for_the_order_of_fields(a: Any, b: Any) -> None:
    left, right = {"x": a}, {"x": b}
    if same(left, right):
        assert canonical(left) == canonical(right)
    elif canonical(left) == canonical(right):
        assert compare_documents(left, right) is Kind.ORDER
    assert same(left, right) == (bson.encode(left) == bson.encode(right))


@given(_values, _values, _values)
def test_what_came_of_a_document_is_the_same_exactly_if_the_two_are(a: Any, b: Any, c: Any) -> None:
    """Whatever of it is the same object still."""
    pre: Document = {"a": a, "_id": 1, "b": b}
    for post in ({**pre}, {**pre, "b": c}, {**pre, "c": c}, {"b": b, "a": a, "_id": 1}, {"_id": 1, "a": c, "b": b}, {}):
        assert same_after(pre, post) == same(pre, post)
        assert same_after(post, pre) == same(post, pre)


# -- answers


def hit(key: Any, **fields: Any) -> Hit:
    return Hit(key, Version("b", 1), {"_id": key, **fields})


def kinds(found: Comparison) -> list[tuple[Any, Kind]]:
    return [(each.key, each.kind) for each in found.keys]


def test_without_a_sort_answers_are_sets() -> None:
    a, b = hit(1), hit(2)
    assert compare_hits(Query(), [a, b], [b, a]).equal


def test_what_one_side_lacks_and_what_differs_is_named_by_key() -> None:
    found = compare_hits(Query(), [hit(1, v=1), hit(2), hit(3, v=1)], [hit(3, v=Int64(1)), hit(4), hit(1, v=2)])
    assert sorted(kinds(found)) == [(1, Kind.VALUE), (2, Kind.MISSING), (3, Kind.TYPE), (4, Kind.EXTRA)]
    assert not found.equal


def test_keys_are_paired_as_mongodb_pairs_them_and_then_differ_in_type() -> None:
    assert kinds(compare_hits(Query(), [hit(1)], [hit(Int64(1))])) == [(1, Kind.TYPE)]
    assert {kind for _, kind in kinds(compare_hits(Query(), [hit(1)], [hit(True)]))} == {Kind.MISSING, Kind.EXTRA}
    assert compare_hits(Query(), [hit({"a": 1}), hit("x")], [hit("x"), hit({"a": 1})]).equal


SORT = (("n", 1),)


def test_with_a_sort_ties_are_free_and_the_rest_is_not() -> None:
    a, b, c = hit("a", n=1), hit("b", n=1), hit("c", n=2)
    assert compare_hits(Query(sort=SORT), [a, b, c], [b, a, c]).equal
    assert kinds(compare_hits(Query(sort=SORT), [a, b, c], [a, c, b])) == [(None, Kind.ORDER)]


def test_a_missing_sort_field_ties_with_null_and_int_ties_with_double() -> None:
    a, b = hit("a"), hit("b", n=None)
    c, d = hit("c", n=1), hit("d", n=1.0)
    assert compare_hits(Query(sort=SORT), [a, b, c, d], [b, a, d, c]).equal


def test_a_tie_cut_by_limit_or_skip_is_no_difference() -> None:
    a, b, c = hit("a", n=1), hit("b", n=2), hit("c", n=2)
    assert compare_hits(Query(sort=SORT, limit=2), [a, b], [a, c]).equal
    assert compare_hits(Query(sort=SORT, skip=1), [a, b], [a, b]).equal
    d, e = hit("d", n=1), hit("e", n=1)
    assert compare_hits(Query(sort=SORT, skip=1), [d, b, c], [e, c, b]).equal


def test_a_document_lost_before_the_cut_is_missing_and_what_moved_up_is_no_extra() -> None:
    one, two, three, four = (hit(str(n), n=n) for n in (1, 2, 3, 4))
    query = Query(sort=SORT, limit=3)
    assert kinds(compare_hits(query, [one, two, three], [two, three, four])) == [("1", Kind.MISSING)]
    assert kinds(compare_hits(query, [one, two, three], [one, two, four])) == [("3", Kind.MISSING)]
    assert kinds(compare_hits(query, [two, three, four], [one, two, three])) == [("1", Kind.EXTRA)]


def test_an_answer_that_ends_before_its_limit_shows_all_there_is() -> None:
    a, b, c = hit("a", n=1), hit("b", n=2), hit("c", n=2)
    assert kinds(compare_hits(Query(sort=SORT, limit=3), [a, b, c], [a, b])) == [("c", Kind.MISSING)]
    assert kinds(compare_hits(Query(sort=SORT, limit=3), [a, b], [a, b, c])) == [("c", Kind.EXTRA)]


def test_a_window_shifted_by_what_lies_before_it_is_a_count() -> None:
    two, three, four = (hit(str(n), n=n) for n in (2, 3, 4))
    query = Query(sort=SORT, skip=1, limit=2)
    assert kinds(compare_hits(query, [two, three], [three, four])) == [(None, Kind.COUNT)]
    assert kinds(compare_hits(Query(sort=SORT, skip=1), [two], [])) == [(None, Kind.COUNT)]


def test_a_changed_sort_value_is_a_value_and_not_an_order_too() -> None:
    primary = [hit("a", n=1), hit("b", n=2), hit("c", n=3)]
    secondary = [hit("b", n=2), hit("c", n=3), hit("a", n=9)]
    assert kinds(compare_hits(Query(sort=SORT), primary, secondary)) == [("a", Kind.VALUE)]


def test_a_limit_without_a_sort_is_compared_as_far_as_both_answered() -> None:
    query = Query(limit=2)
    found = compare_hits(query, [hit(1), hit(2, v=1)], [hit(2, v=2), hit(3)])
    assert kinds(found) == [(2, Kind.VALUE)]
    assert found.incomparable is Incomparable.UNSORTED_LIMIT
    assert compare_hits(query, [hit(1), hit(2)], [hit(2), hit(1)]).equal
    assert kinds(compare_hits(query, [hit(1), hit(2)], [hit(1)])) == [(2, Kind.MISSING)]
    assert kinds(compare_hits(Query(skip=1), [hit(1), hit(2)], [hit(3)])) == [(None, Kind.COUNT)]


def test_find_one_without_a_sort() -> None:
    assert compare_one(Query(), hit(1), hit(1)).equal
    assert compare_one(Query(), None, None).equal
    assert compare_one(Query(), hit(1), hit(2)).incomparable is Incomparable.UNSORTED_LIMIT
    assert kinds(compare_one(Query(), hit(1), None)) == [(1, Kind.MISSING)]
    assert kinds(compare_one(Query(), None, hit(1))) == [(1, Kind.EXTRA)]


@each_of(
    ("projection", "known"),
    [
        (None, True),
        ({"n": 1}, True),
        ({"m": 1}, False),
        ({"m": 0}, True),
        ({"n": 0}, False),
        ({"n.x": 0}, False),
        ({"n.x": 1}, False),
        ({"_id": 0}, True),
        ({"_id": 1}, False),
        ({"n": {"$slice": 1}}, False),
    ],
)
def test_a_projection_that_hides_the_sort_leaves_the_order_undecided(projection: Document | None, known: bool) -> None:
    query = Query(sort=SORT, projection=projection)
    a, b = hit("a", n=1), hit("b", n=2)
    found = compare_hits(query, [a, b], [b, a])
    assert (kinds(found), found.incomparable) == (
        ([(None, Kind.ORDER)], None) if known else ([], Incomparable.PROJECTED_SORT)
    )
    assert compare_hits(query, [a, b], [a, b]).equal
    assert (Kind.MISSING in {kind for _, kind in kinds(compare_hits(query, [a, b], [a]))}) is True


def test_a_sort_by_id_is_known_without_the_id() -> None:
    a, b = Hit(1, Version("", 0), {}), Hit(2, Version("", 0), {})
    query = Query(sort=(("_id", -1),), projection={"_id": 0})
    assert kinds(compare_hits(query, [b, a], [a, b])) == [(None, Kind.ORDER)]


def _answer(rng: random.Random, documents: list[Document], query: Query) -> list[Hit]:
    """What a correct store may answer: sorted, the ties in any order, then cut."""
    shuffled = rng.sample(documents, len(documents))
    ordered = sort_documents(shuffled, query.sort) if query.sort else shuffled
    stop = query.skip + query.limit if query.limit else None
    return [Hit(each["_id"], Version("b", 1), each) for each in ordered[query.skip : stop]]


def test_two_right_answers_never_differ_and_a_lost_document_in_range_is_always_noticed() -> None:
    for seed in range(300):
        _two_right_answers(random.Random(seed))


def _two_right_answers(rng: random.Random) -> None:
    documents = [{"_id": i, "n": rng.randrange(4), "m": rng.choice([1, 1.0, None])} for i in range(rng.randrange(12))]
    sort = rng.choice([(("n", 1),), (("n", -1), ("m", 1))])
    query = Query(sort=sort, skip=rng.choice([0, 0, 2]), limit=rng.choice([0, 3, 5]))
    primary = _answer(rng, documents, query)
    assert compare_hits(query, primary, _answer(rng, documents, query)).equal
    unsorted = Query(skip=query.skip, limit=query.limit)
    assert not compare_hits(unsorted, _answer(rng, documents, unsorted), _answer(rng, documents, unsorted)).keys
    if primary and not query.limit and not query.skip:
        lost = rng.choice(primary).key
        rest = [each for each in documents if each["_id"] != lost]
        assert kinds(compare_hits(query, primary, _answer(rng, rest, query))) == [(lost, Kind.MISSING)]


def test_every_document_named_missing_or_extra_truly_is() -> None:
    for seed in range(200):
        _named_missing_or_extra(random.Random(seed))


def _named_missing_or_extra(rng: random.Random) -> None:
    documents = [{"_id": i, "n": rng.randrange(5)} for i in range(12)]
    left = [each for each in documents if rng.random() < 0.8]
    right = [each for each in documents if rng.random() < 0.8]
    query = Query(
        sort=rng.choice([(), (("n", 1),), (("n", -1),)]), skip=rng.choice([0, 2]), limit=rng.choice([0, 3, 6])
    )
    found = compare_hits(query, _answer(rng, left, query), _answer(rng, right, query))
    keys = [{each["_id"] for each in side} for side in (left, right)]
    assert {key for key, kind in kinds(found) if kind is Kind.MISSING} <= keys[0] - keys[1]
    assert {key for key, kind in kinds(found) if kind is Kind.EXTRA} <= keys[1] - keys[0]


# -- values


def test_counts() -> None:
    assert compare_values(Count({}), 3, 3).equal
    assert kinds(compare_values(Count({}), 3, 4)) == [(None, Kind.COUNT)]
    assert compare_values(Count({}, estimated=True), 3, 4).incomparable


def test_distinct_is_a_set_under_mongodbs_equality() -> None:
    assert compare_values(Distinct("a", {}), [1, "a", None], [None, 1.0, "a"]).equal
    assert kinds(compare_values(Distinct("a", {}), [1], [True])) == [(None, Kind.VALUE)]
    assert kinds(compare_values(Distinct("a", {}), [1, 2], [1])) == [(None, Kind.COUNT)]


def test_aggregates_are_multisets_unless_they_end_in_a_sort() -> None:
    one, two, tie = {"_id": 1, "n": 1}, {"_id": 2, "n": 2}, {"_id": 3, "n": 1}
    group = {"$group": {"_id": "$x", "n": {"$sum": 1}}}
    assert compare_values(Aggregate([group]), [one, two], [two, one]).equal
    assert kinds(compare_values(Aggregate([group]), [one, one], [one, two])) == [(None, Kind.VALUE)]
    assert kinds(compare_values(Aggregate([group]), [one, one], [one])) == [(None, Kind.COUNT)]
    ordered = [group, {"$sort": {"n": 1}}]
    assert compare_values(Aggregate(ordered), [one, tie, two], [tie, one, two]).equal
    assert kinds(compare_values(Aggregate(ordered), [one, two], [two, one])) == [(None, Kind.ORDER)]
    top = [*ordered, {"$limit": 1}]
    assert compare_values(Aggregate(top), [one], [tie]).equal
    assert kinds(compare_values(Aggregate(top), [one], [two])) == [(None, Kind.MISSING)]


def test_aggregates_that_hang_on_an_unfixed_order_are_not_comparable() -> None:
    first = {"$group": {"_id": None, "n": {"$first": "$n"}}}
    for pipeline in ([first], [{"$limit": 1}], [{"$limit": 1}, {"$project": {"n": 1}}]):
        found = compare_values(Aggregate(pipeline), [{"n": 1}], [{"n": 2}])
        assert found.incomparable is Incomparable.PIPELINE_ORDER
        assert compare_values(Aggregate(pipeline), [{"n": 1}], [{"n": 1}]).equal
