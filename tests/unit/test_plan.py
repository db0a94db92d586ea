"""The planner: tables of filter and plan, and the one rule that counts: a plan never misses a match."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.model.operation import Query
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.version import Document, Version
from shadow.mongoql import compile_filter
from shadow.stores.dynamo.items.codec import Codec, Item
from shadow.stores.dynamo.items.keys import key_text
from shadow.stores.dynamo.query.fetching import Fetch, fetch_of
from shadow.stores.dynamo.query.ordering import KeyTextKind, doubt, kind_of, ordered_plan
from shadow.stores.dynamo.query.plan import KeyPlan, KeyRange, QueryPlan, ScanPlan, UnionPlan, plan, shape, suggestion
from tests.support.cases import each_of
from tests.support.drawn import examples

EMAIL = IndexSpec("email-index", "email")
USER_AT = IndexSpec("user-at-index", "user", "at")
SPEC = CollectionSpec("c", (EMAIL, USER_AT))
BOTH_WAYS = CollectionSpec("c", (EMAIL, USER_AT, IndexSpec("at-user-index", "at", "user")))
LAST = "\U0010ffff"
ESCAPED = ("~", f"~{LAST}")
ARRAY = ("~array", "~array")
NOON = dt.datetime(2020, 1, 1, 12)
ID = ObjectId("5ca4bbc7a2dd94ee5816238c")


def ranges(hash: str, *spans: tuple[str | None, str | None]) -> tuple[KeyRange, ...]:
    return tuple(KeyRange(text, low, high) for text in (hash, "~array") for low, high in spans)


def texts(*hashes: str) -> tuple[KeyRange, ...]:
    return tuple(KeyRange(text) for text in (*hashes, "~array"))


KEYED: list[tuple[Document, tuple[str, ...]]] = [
    ({"_id": "k"}, ("k",)),
    ({"_id": ID}, (str(ID),)),
    ({"_id": None}, ("~null",)),
    ({"_id": {"a": 1}}, (key_text({"a": 1}),)),
    ({"_id": {"$eq": 5}}, ("~num:5",)),
    ({"_id": {"$in": [5, 5.0, Int64(6), "x"]}}, ("~num:5", "~num:6", "x")),
    ({"_id": {"$in": []}}, ()),
    ({"_id": {"$in": ["a", "b"], "$gt": "a"}}, ("a", "b")),
    ({"$and": [{"n": 1}, {"$and": [{"_id": "k"}]}]}, ("k",)),
    ({"_id": "k", "email": "x"}, ("k",)),
    ({"$and": [{"_id": {"$in": ["a", "b"]}}, {"_id": "a"}]}, ("a",)),
]


@each_of(("filter", "expected"), KEYED)
def test_a_filter_that_fixes_the_key_reads_by_key(filter: Document, expected: tuple[str, ...]) -> None:
    """Equality and $in on `_id`, wherever they stand in a conjunction."""
    assert plan(filter, SPEC) == KeyPlan(expected)


QUERIED: list[tuple[Document, IndexSpec, tuple[KeyRange, ...]]] = [
    ({"email": "x"}, EMAIL, texts("x")),
    ({"email": "x", "n": {"$gt": 1}}, EMAIL, texts("x")),
    ({"email": {"$in": ["x", "y"]}}, EMAIL, texts("x", "y")),
    ({"email": ["x"]}, EMAIL, (KeyRange("~array"),)),
    ({"email": ""}, EMAIL, texts("~str:")),
    ({"email": 5.0}, EMAIL, texts("~num:5")),
    ({"email": "x", "user": "u"}, EMAIL, texts("x")),
    ({"user": "u"}, USER_AT, texts("u")),
    ({"user": ID}, USER_AT, texts(str(ID))),
    ({"user": "u", "at": "2020"}, USER_AT, ranges("u", ("2020", "2020"), ARRAY)),
    ({"user": "u", "at": {"$gte": "a", "$lt": "m"}}, USER_AT, ranges("u", ("a", "m"), ESCAPED)),
    ({"user": "u", "at": {"$gt": "a"}}, USER_AT, ranges("u", ("a", None))),
    ({"user": "u", "at": {"$gt": "é"}}, USER_AT, ranges("u", ("é", None), ESCAPED)),
    ({"user": "u", "at": {"$lte": "m"}}, USER_AT, ranges("u", (None, "m"), ESCAPED)),
    ({"user": "u", "at": {"$lt": NOON}}, USER_AT, ranges("u", ("~date:", "~date:2020-01-01T12:00:00.000Z"), ARRAY)),
    (
        {"user": "u", "at": {"$gte": NOON}},
        USER_AT,
        ranges("u", ("~date:2020-01-01T12:00:00.000Z", f"~date:{LAST}"), ARRAY),
    ),
    ({"user": "u", "at": {"$gte": ID}}, USER_AT, ranges("u", (str(ID), "f" * 24), ARRAY)),
    ({"user": "u", "at": {"$gt": 5}}, USER_AT, texts("u")),
    ({"user": "u", "at": None}, USER_AT, texts("u")),
    ({"email": "x", "user": "u", "at": {"$gt": "a"}}, USER_AT, ranges("u", ("a", None))),
    # As a hash, and as it is written where the field is a range of any index.
    ({"email": "x" * 1_025}, EMAIL, texts("x" * 1_025, key_text("x" * 1_025, 1_024))),
    ({"email": "x" * 1_024}, EMAIL, texts("x" * 1_024)),
    ({"email": "x" * 2_049}, EMAIL, texts(key_text("x" * 2_049))),
    ({"user": "u", "at": {"$gt": {"a": 1}, "$gte": {"a": 2}}}, USER_AT, texts("u")),
    ({"user": "u", "at": {"$lt": [1], "$lte": [2]}}, USER_AT, texts("u")),
]


@each_of(("filter", "index", "expected"), QUERIED)
def test_a_filter_that_fixes_a_hash_asks_its_index(
    filter: Document, index: IndexSpec, expected: tuple[KeyRange, ...]
) -> None:
    """The value, and the text that stands for an array; a range narrows it where key texts sort as values do."""
    assert plan(filter, SPEC) == QueryPlan(index, expected)


@each_of(
    ("filter", "pushed"),
    [
        ({}, []),
        ({"email": None}, []),
        ({"email": {"$in": ["x", None]}}, []),
        ({"email": Regex("^x")}, []),
        ({"email": {"$gt": "a"}}, []),
        ({"at": "2020"}, []),
        ({"_id": {"$gt": "a"}}, []),
        ({"$or": [{"email": "x"}, {"n": 1}]}, []),
        ({"n": 1}, ["n"]),
        ({"n": 1.5}, ["n"]),
        ({"n": 0.1, "m": {"$gt": 2**60}}, ["n", "m"]),
        ({"n": float("nan"), "m": 1e300, "o": {"$lt": True}}, []),
        ({"n": {"$gte": 1, "$lt": 9}}, ["n", "n"]),
        ({"n": {"$ne": 1}}, []),
        ({"s": "x", "t": NOON, "o": ID, "b": True, "x": {"$exists": True}, "z": None}, ["s", "t", "o", "b", "x", "z"]),
        ({"a.b": 1, "a.0": "x", "a.b.c.d.e.f": 1, "a..b": 1, "email.b": 1}, ["a.b", "a.0"]),
        ({"d": {"a": 1}}, []),
        ({"email": {"$in": [str(i) for i in range(200)]}}, []),
    ],
)
def test_everything_else_scans(filter: Document, pushed: list[str]) -> None:
    """With the conditions that DynamoDB can judge without dropping a match."""
    found = plan(filter, SPEC)
    assert isinstance(found, ScanPlan)
    assert [one.path for one in found.pushed] == pushed


UNITED: list[tuple[Document, tuple[KeyPlan | QueryPlan, ...]]] = [
    (
        {"$or": [{"_id": "k"}, {"email": "x"}, {"_id": {"$in": ["l", "k"]}}]},
        (KeyPlan(("k", "l")), QueryPlan(EMAIL, texts("x"))),
    ),
    ({"$or": [{"email": "x"}, {"email": "x", "n": 1}], "m": 2}, (QueryPlan(EMAIL, texts("x")),)),
    (
        {"user": {"$ne": 1}, "$and": [{"$or": [{"user": "u"}, {"email": "x"}]}], "at": "2020"},
        (QueryPlan(USER_AT, ranges("u", ("2020", "2020"), ARRAY)), QueryPlan(EMAIL, texts("x"))),
    ),
    ({"$or": [{"n": 1}, {"m": 1}], "$and": [{"$or": [{"_id": 1}]}]}, (KeyPlan(("~num:1",)),)),
]


@pytest.mark.parametrize(("filter", "expected"), UNITED)
def test_branches_that_all_have_a_key_or_an_index_are_read_by_them(
    filter: Document, expected: tuple[KeyPlan | QueryPlan, ...]
) -> None:
    """Each with the conditions around it; two branches with one plan are one, and all keys are read together."""
    assert plan(filter, SPEC) == UnionPlan(expected)


def test_an_or_of_too_many_queries_scans() -> None:
    """A hundred requests are the limit, of all branches together."""
    assert isinstance(plan({"$or": [{"email": f"e{i}"} for i in range(50)]}, SPEC), UnionPlan)
    assert isinstance(plan({"$or": [{"email": f"e{i}"} for i in range(51)]}, SPEC), ScanPlan)


TEXTS = ["", "a", "m", "z", "~", "~date:x", str(ID), "é", "x" * 1100, "é" * 600, "x" * 2_049]
NUMBERS = [5, 5.0, Int64(5), Decimal128("5"), 5.5]
OTHERS = [ID, ObjectId("f" * 24), True, None, NOON, dt.datetime(1, 1, 1), {"a": 1}, b"x"]
ARRAYS = [["a", "z"], [], [NOON], ["a", 5]]
VALUES = st.sampled_from([*TEXTS, *NUMBERS, *OTHERS, *ARRAYS])
OPERANDS = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte"]), VALUES, min_size=1, max_size=2),
    st.lists(VALUES, max_size=3).map(lambda values: {"$in": values}),
    st.booleans().map(lambda present: {"$exists": present}),
)
FIELDS = st.sampled_from(["_id", "email", "user", "at"])
KEYS = st.sampled_from(["a", "m", ID, 5, 5.0, NOON, {"a": 1}, ""])


def attribute(item: Item, name: str) -> Any:
    return item[name]["S"] if name in item else None


def in_range(item: Item, index: IndexSpec, one: KeyRange) -> bool:
    text = attribute(item, index.range) if index.range is not None else ""
    return (
        attribute(item, index.hash) == one.hash
        and text is not None
        and (one.low is None or text >= one.low)
        and (one.high is None or text <= one.high)
    )


@settings(max_examples=examples(1_500), deadline=None)
@given(
    KEYS,
    st.dictionaries(FIELDS.filter(lambda name: name != "_id"), VALUES, max_size=3),
    st.dictionaries(FIELDS, OPERANDS, min_size=1, max_size=3),
    st.lists(st.dictionaries(FIELDS, OPERANDS, min_size=1, max_size=2), max_size=3),
)
def test_no_plan_misses_a_match(key: Any, fields: Document, filter: Document, branches: list[Document]) -> None:
    """Whatever the filter matches lies under one of the keys, or in one of the ranges, that the plan reads."""
    document = {"_id": key, **fields}
    filter = {**filter, "$or": branches} if branches else filter
    if not compile_filter(filter).matches(document):
        return
    for spec in (SPEC, BOTH_WAYS):
        item = Codec(spec).encode(key_text(key), Version("b", 1), document, "").item
        found = plan(filter, spec)
        parts = found.parts if isinstance(found, UnionPlan) else (found,)
        assert any(reads(part, item) for part in parts)


def reads(part: KeyPlan | QueryPlan | ScanPlan, item: Item) -> bool:
    match part:
        case KeyPlan(texts):
            return item["_id"]["S"] in texts
        case QueryPlan(index, ranges):
            return any(in_range(item, index, one) for one in ranges)
        case _:
            return True


def test_every_place_of_doubt_among_strings_is_found() -> None:
    """Between a string and `doubt` of it there is neither an ObjectId nor a text behind "~", and that is one."""
    samples = ["2024-05", "alice", "a", "Z", "0", "9f", "f" * 23, "f" * 24, "f" * 25, "0" * 24, "é", "z", "}", "a" * 30]
    samples += [f"{i:x}" for i in range(0, 5000, 37)] + [str(ID), f"{ID}x", "5ca4bbc7a2dd94ee5816238", "G", "5cA"]
    dangers = sorted([*(f"{i * 7919:024x}" for i in range(3000)), str(ID), "a" * 24, "0" * 24, "f" * 24, "~", "~x"])
    for text in samples:
        first = doubt(text)
        following = next((danger for danger in dangers if danger > text), None)
        assert first is None or (first > text and kind_of(first) in (KeyTextKind.OBJECT_ID, KeyTextKind.OTHER))
        assert following is None or following.startswith("~x") or (first is not None and first <= following)
    assert doubt("2024-05") == "2024" + "0" * 20
    assert doubt("alice") == "b" + "0" * 23
    assert doubt("zoe") == "~"
    assert doubt("é") is None


ORDERED: list[tuple[Query, bool, bool, bool]] = [
    (Query({"user": "u"}, sort=(("at", 1),), limit=3), False, True, False),
    (Query({"user": "u", "n": 5}, sort=(("at", -1), ("_id", 1)), limit=3), False, False, True),
    (Query({"user": "u"}, sort=(("user", 1), ("at", -1)), limit=3), False, False, False),
    (Query({"user": {"$in": ["u"]}, "at": {"$gt": NOON}}, sort=(("at", 1),), limit=3), True, True, False),
    (Query({"user": "u", "at": {"$gte": "a"}}, sort=(("at", 1),), limit=3), True, True, False),
]


@pytest.mark.parametrize(("query", "typed", "forward", "ties"), ORDERED)
def test_a_limited_sort_is_read_in_the_order_of_an_index(query: Query, typed: bool, forward: bool, ties: bool) -> None:
    """By its range attribute, with one value for its hash attribute."""
    found = ordered_plan(query, SPEC)
    assert found is not None
    assert (found.index, found.typed, found.forward, found.ties) == (USER_AT, typed, forward, ties)


@each_of(
    "query",
    [
        Query({"user": "u"}, sort=(("at", 1),)),
        Query({"user": "u"}, limit=3),
        Query({"user": "u"}, sort=(("n", 1), ("at", 1)), limit=3),
        Query({"user": "u"}, sort=(("at", 1), ("n", 1), ("m", 1)), limit=3),
        Query({"user": {"$in": ["u", "v"]}}, sort=(("at", 1),), limit=3),
        Query({"user": ["u"]}, sort=(("at", 1),), limit=3),
        Query({"user": None}, sort=(("at", 1),), limit=3),
        Query({"user": "u", "at": "2020"}, sort=(("at", 1),), limit=3),
        Query({"user": "u", "_id": 1}, sort=(("at", 1),), limit=3),
        Query({"email": "x"}, sort=(("at", 1),), limit=3),
        Query({}, sort=(("at", 1),), limit=3),
        Query({"user": "u", "at": {"$lt": ""}}, sort=(("at", 1),), limit=3),
    ],
)
def test_any_other_sort_reads_what_matches_and_sorts_it(query: Query) -> None:
    assert ordered_plan(query, SPEC) is None


@each_of(
    ("query", "names", "shown"),
    [
        (Query({"a": 1}, {"b": 1}), {"a", "b"}, {"b"}),
        (Query({"a.x": 1, "$or": [{"c": 1}]}, {"b.y": 1, "_id": 0}, (("d.e", 1),)), {"a", "b", "c", "d"}, {"b"}),
        (Query({}, {"_id": 1}), set(), set()),
        (Query({}, {"b": True, "c": 1.0}), {"b", "c"}, {"b", "c"}),
        (Query({"a": 1}), None, None),
        (Query({"a": 1}, {"_id": 0}), None, None),
        (Query({"a": 1}, {"b": 0}), None, None),
        (Query({"a": 1}, {"b": {"$slice": 1}}), None, None),
        (Query({"a": 1}, {"b": "$a"}), None, None),
        (Query({"$expr": {"$eq": ["$a", 1]}}, {"b": 1}), None, None),
        (Query({"": 1}, {"b": 1}), None, None),
        (Query({"a": 1}, {"b" * 300: 1}), None, None),
    ],
)
def test_a_projection_that_only_includes_is_fetched_in_part(
    query: Query, names: set[str] | None, shown: set[str] | None
) -> None:
    """With the fields that the filter and the sort look at."""
    found = fetch_of(query)
    assert found == (None if names is None or shown is None else Fetch(frozenset(names), frozenset(shown)))


@each_of(
    ("query", "text", "index"),
    [
        (Query(), "{}", ""),
        (Query({"b": 1, "a": "secret"}), "{a: $eq, b: $eq}", "hash b"),
        (Query({"a": {"$gt": 1}}, sort=(("b", -1), ("c", 1))), "{a: $gt} sort -b, c", ""),
        (Query({"u": 1, "t": {"$gte": 5}}), "{t: $gte, u: $eq}", "hash u, range t"),
        (Query({"u": 1}, sort=(("t", -1),)), "{u: $eq} sort -t", "hash u, range t"),
        (Query({"$or": [{"a": 1}, {"a": 2}, {"b": 1}]}), "{$or: [{a: $eq}, {b: $eq}]}", ""),
        (Query({"a.b": 1}), "{a.b: $eq}", ""),
        (Query({"a": None}), "{a: $eq}", ""),
    ],
)
def test_the_shape_of_a_query_has_no_values(query: Query, text: str, index: str) -> None:
    """Queries that differ in values alone are one line in the list of scans, with the index that would help."""
    assert shape(query) == text
    assert suggestion(query) == index
