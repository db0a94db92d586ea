"""What filters mean; `tests/compat` holds the same rules to a real mongod over generated cases."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Decimal128, Int64, MaxKey, MinKey, Regex
from pymongo.errors import OperationFailure, WriteError

from shadow.errors import UnsupportedOperation
from shadow.mongoql import And, Leaf, Nor, Not, Or, cached_filter, compile_filter
from tests.support.cases import each_of

MATCHES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1}, {"a": [3, 1]}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": None}, {}, True),
    ({"a.b": None}, {"a": 5}, True),
    ({"a.b": None}, {"a": [5]}, False),
    ({"a.b": None}, {"a": [{}]}, True),
    ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
    ({"a.b": 1}, {"a": [{"b": 2}, {"b": [1]}]}, True),
    ({"a.0": 1}, {"a": [1, 2]}, True),
    ({"a.0": 1}, {"a": [[1], 2]}, False),
    ({"a.0.b": 1}, {"a": [{"b": 1}]}, True),
    ({"a": {"$gt": 1}}, {"a": "x"}, False),
    ({"a": {"$gt": 1}}, {"a": Decimal128("1.5")}, True),
    ({"a": {"$gte": None}}, {}, True),
    ({"a": {"$lt": dt.datetime(2024, 1, 1)}}, {"a": dt.datetime(2023, 1, 1)}, True),
    ({"a": {"$lt": 5}}, {"a": float("nan")}, False),
    ({"a": {"$lte": float("nan")}}, {"a": float("nan")}, True),
    ({"a": {"$lt": MaxKey()}}, {"a": 1}, True),
    ({"a": {"$gt": MinKey()}}, {}, True),
    ({"a": {"$gt": 1, "$lt": 3}}, {"a": [0, 4]}, True),
    ({"a": {"$gt": 1, "$lt": 3}}, {"a": [0, 2]}, True),
    ({"a": {"$ne": 1}}, {"a": [1, 2]}, False),
    ({"a": {"$in": [1, Regex("^x")]}}, {"a": "xy"}, True),
    ({"a": {"$in": [None]}}, {}, True),
    ({"a": {"$nin": [1]}}, {}, True),
    ({"a": {"$exists": 0}}, {}, True),
    ({"a": {"$type": "number"}}, {"a": Int64(5)}, True),
    ({"a": {"$type": ["array"]}}, {"a": []}, True),
    ({"a": {"$size": 2}}, {"a": [1, [2]]}, True),
    ({"a": {"$all": [1, 2]}}, {"a": [2, 3, 1]}, True),
    ({"a": {"$all": []}}, {"a": []}, False),
    ({"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"a": [0, 4]}, False),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"c": 2}]}, False),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1, "c": 2}]}, True),
    ({"a": {"$mod": [4, -1]}}, {"a": -5}, True),
    ({"a": {"$not": {"$gt": 1}}}, {}, True),
    ({"a": {"$regex": "B", "$options": "i"}}, {"a": "abc"}, True),
    ({"a": {"$bitsAllSet": [0, 2]}}, {"a": 5}, True),
    ({"$and": [{"a": 1}, {"b": 2}]}, {"a": 1, "b": 2}, True),
    ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}, True),
    ({"$nor": [{"a": 1}]}, {"a": 2}, True),
    ({"$expr": {"$gt": ["$a", "$b"]}}, {"a": 2, "b": 1}, True),
    ({"$comment": "why", "a": 1}, {"a": 1}, True),
]

CODES: list[tuple[dict[str, Any], int]] = [
    ({"$foo": 1}, 2),
    ({"a": {"$foo": 1}}, 2),
    ({"$and": []}, 2),
    ({"$or": 5}, 2),
    ({"a": {"$in": 5}}, 2),
    ({"a": {"$in": [{"$gt": 1}]}}, 2),
    ({"a": {"$not": {}}}, 2),
    ({"a": {"$ne": Regex("a")}}, 2),
    ({"a": {"$size": -1}}, 2),
    ({"a": {"$mod": [0, 1]}}, 2),
    ({"a": {"$type": []}}, 9),
    ({"a": {"$type": None}}, 14),
    ({"a": {"$bitsAllSet": -1}}, 9),
    ({"a": {"$regex": "a", "$options": "q"}}, 51108),
    ({"a": {"$elemMatch": {"$expr": True}}}, 2),
]


@each_of(("filter", "document", "expected"), MATCHES)
def test_a_filter_decides_as_the_server_does(filter: dict[str, Any], document: dict[str, Any], expected: bool) -> None:
    assert compile_filter(filter).matches(document) is expected
    assert cached_filter(filter).matches(document) is expected


@each_of(("filter", "code"), CODES)
def test_a_bad_filter_is_refused_with_the_servers_code(filter: dict[str, Any], code: int) -> None:
    with pytest.raises(OperationFailure) as caught:
        compile_filter(filter)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["$nonsense", "$eq", "$elemMatch", "$in", "$getField"])
def test_an_operator_that_is_none_at_the_top_is_refused_in_the_servers_words(name: str) -> None:
    hint = "If you have a field name that starts with a '$' symbol, consider using $getField or $setField."
    for filter in ({name: 1}, {"$and": [{name: 1}]}, {"a": {"$elemMatch": {"b": 1, name: 1}}}):
        with pytest.raises(OperationFailure) as raised:
            compile_filter(filter)
        assert (raised.value.details or {})["errmsg"] == f"unknown top level operator: {name}. {hint}"


def test_not_at_the_top_is_refused_with_the_servers_advice() -> None:
    with pytest.raises(OperationFailure, match=r"operator: \$not\. If you are trying to negate .+, use \$nor\."):
        compile_filter({"$not": {"a": 1}})


@each_of(
    ("pattern", "text", "expected"),
    [
        (r"^\d+$", "12", True),
        (r"\d", "٣", False),
        (r"^[\w.]+@", "a.b@", True),
        (r"^[^\w]$", "é", True),
        (r"a\Z", "a\n", True),
        (r"a\z", "a\n", False),
        (r"^\Qa.b\E$", "a.b", True),
        (r"(?<n>a)(?P=n)", "aa", True),
        (r"a{,2}", "a{,2}", True),
        (r"\x{e9}", "é", True),
    ],
)
def test_a_pattern_means_what_pcre_means(pattern: str, text: str, expected: bool) -> None:
    """The expected answers were taken from mongod 6.0.5."""
    assert compile_filter({"a": {"$regex": pattern}}).matches({"a": text}) is expected


@each_of("pattern", [r"\p{L}", r"(?R)", r"[[:alpha:]]", r"\K", "(*UTF8)a", r"a(?i)b", r"\R"])
def test_a_pattern_that_python_lacks_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(UnsupportedOperation) as caught:
        compile_filter({"a": {"$regex": pattern}})
    assert caught.value.name == "$regex"


def test_the_tree_says_what_the_filter_says() -> None:
    tree = compile_filter({"a": 1, "b": {"$gt": 2, "$not": {"$lt": 9}}, "$or": [{"c": Regex("x")}], "$nor": [{}]}).tree
    assert tree == And(
        (
            Leaf("a", "$eq", 1),
            Leaf("b", "$gt", 2),
            Not(And((Leaf("b", "$lt", 9),))),
            Or((Leaf("c", "$regex", Regex("x")),)),
            Nor((And(()),)),
        )
    )


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"a": 1, "b": {"$gt": 1}}, {"a": 1}),
        ({"$and": [{"a": 1}, {"b.c": {"$eq": 2}}]}, {"a": 1, "b.c": 2}),
        ({"a": {"$in": [1]}}, {"a": 1}),
        ({"a": {"$in": [1, 2]}}, {}),
        ({"$or": [{"a": 1}]}, {"a": 1}),
    ],
)
def test_equalities_are_what_an_upsert_would_take(filter: dict[str, Any], expected: dict[str, Any]) -> None:
    assert compile_filter(filter).equalities() == expected


def test_a_path_given_twice_cannot_seed_an_upsert() -> None:
    with pytest.raises(WriteError) as caught:
        compile_filter({"$and": [{"a": 1}, {"a.b": 2}]}).equalities()
    assert caught.value.code == 54


@each_of(
    ("filter", "expected"),
    [
        ({"a": 2}, 1),
        ({"a": {"$elemMatch": {"$gt": 2}}}, 2),
        ({"b.x": 1}, 1),
        ({"a.0": 1}, None),
        ({"c": 1}, None),
        ({"a": {"$ne": 9}}, None),
        ({"b": {"$elemMatch": {"x": 1}}, "a": 1}, 0),
    ],
)
def test_the_position_is_that_of_the_element_that_matched(filter: dict[str, Any], expected: int | None) -> None:
    assert compile_filter(filter).positional({"a": [1, 2, 3], "b": [{"x": 0}, {"x": 1}], "c": 1}) == expected


def test_an_ambiguous_position_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperation):
        compile_filter({"a": {"$all": [1, 2]}}).positional({"a": [1, 2]})
