"""What aggregation pipelines answer."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Decimal128, Int64
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING
from shadow.mongoql import compile_expression, compile_pipeline
from tests.support.cases import each_of

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": 1, "k": "a", "n": 1, "t": ["x", "y"]},
    {"_id": 2, "k": "b", "n": 2.5, "t": []},
    {"_id": 3, "k": "a", "n": Int64(4)},
]

ANSWERS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([{"$match": {"k": "a"}}, {"$project": {"n": 1}}], [{"_id": 1, "n": 1}, {"_id": 3, "n": 4}]),
    ([{"$sort": {"n": -1}}, {"$limit": 1}, {"$project": {"_id": 1}}], [{"_id": 3}]),
    ([{"$skip": 2}, {"$unset": ["k", "n"]}], [{"_id": 3}]),
    ([{"$group": {"_id": "$k", "s": {"$sum": "$n"}}}], [{"_id": "a", "s": 5}, {"_id": "b", "s": 2.5}]),
    ([{"$group": {"_id": None, "a": {"$avg": "$n"}, "c": {"$count": {}}}}], [{"_id": None, "a": 2.5, "c": 3}]),
    ([{"$group": {"_id": {"x": "$zz"}, "m": {"$max": "$n"}}}], [{"_id": {"x": None}, "m": 4}]),
    ([{"$unwind": "$t"}, {"$project": {"t": 1}}], [{"_id": 1, "t": "x"}, {"_id": 1, "t": "y"}]),
    (
        [
            {"$unwind": {"path": "$t", "preserveNullAndEmptyArrays": True, "includeArrayIndex": "i"}},
            {"$project": {"i": 1}},
        ],
        [{"_id": 1, "i": 0}, {"_id": 1, "i": 1}, {"_id": 2, "i": None}, {"_id": 3, "i": None}],
    ),
    ([{"$count": "all"}], [{"all": 3}]),
    ([{"$match": {"k": "z"}}, {"$count": "all"}], []),
    ([{"$sortByCount": "$k"}], [{"_id": "a", "count": 2}, {"_id": "b", "count": 1}]),
    (
        [{"$facet": {"x": [{"$count": "n"}], "y": [{"$limit": 1}, {"$project": {"_id": 1}}]}}],
        [{"x": [{"n": 3}], "y": [{"_id": 1}]}],
    ),
    ([{"$limit": 1}, {"$replaceWith": {"v": "$n"}}], [{"v": 1}]),
    (
        [
            {"$limit": 2},
            {"$lookup": {"from": "o", "localField": "t", "foreignField": "f", "as": "j"}},
            {"$project": {"j": 1}},
        ],
        [{"_id": 1, "j": [{"_id": 9, "f": "x"}]}, {"_id": 2, "j": [{"_id": 8}]}],
    ),
    ([{"$limit": 1}, {"$set": {"q.r": {"$size": "$t"}}}, {"$project": {"q": 1}}], [{"_id": 1, "q": {"r": 2}}]),
]

EXPRESSIONS: list[tuple[Any, Any]] = [
    ("$a.b", [1, 2]),
    ("$$ROOT.n", 7),
    ("$x", MISSING),
    ({"$literal": "$n"}, "$n"),
    ({"$add": [2**31 - 1, 1]}, Int64(2**31)),
    ({"$add": [dt.datetime(2024, 1, 1), 1000]}, dt.datetime(2024, 1, 1, 0, 0, 1)),
    ({"$subtract": [dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 1)]}, Int64(86400000)),
    ({"$multiply": ["$n", 1.5]}, 10.5),
    ({"$divide": [7, 2]}, 3.5),
    ({"$mod": [-7, 3]}, -1),
    ({"$add": [Decimal128("1.1"), 1]}, Decimal128("2.1")),
    ({"$cond": [{"$gt": ["$n", 5]}, "big", "small"]}, "big"),
    ({"$ifNull": ["$x", None, "d"]}, "d"),
    ({"$switch": {"branches": [{"case": {"$eq": ["$n", 7]}, "then": 1}], "default": 2}}, 1),
    ({"$concat": ["a", "$s"]}, "aÉz"),
    ({"$toUpper": "$s"}, "ÉZ"),
    ({"$substrCP": ["$s", 1, 5]}, "z"),
    ({"$filter": {"input": "$l", "cond": {"$gt": ["$$this", 1]}}}, [2, 3]),
    ({"$map": {"input": "$l", "as": "v", "in": {"$multiply": ["$$v", 2]}}}, [2, 4, 6]),
    ({"$reduce": {"input": "$l", "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}}, 6),
    ({"$slice": ["$l", -2, 1]}, [2]),
    ({"$arrayElemAt": ["$l", 9]}, MISSING),
    ({"$in": [2.0, "$l"]}, True),
    ({"$setUnion": [[3, 1], [2, 1.0]]}, [1, 2, 3]),
    ({"$mergeObjects": [{"a": 1}, None, {"b": 2}]}, {"a": 1, "b": 2}),
    ({"$type": "$x"}, "missing"),
    ({"$eq": ["$x", None]}, False),
    ({"$year": dt.datetime(2024, 5, 6)}, 2024),
    ({"$let": {"vars": {"v": "$n"}, "in": ["$$v", "$x"]}}, [7, None]),
    ({"k": "$x", "l": 1}, {"l": 1}),
]

CODES: list[tuple[list[dict[str, Any]], int]] = [
    ([{"$foo": 1}], 40324),
    ([{"$match": {}, "$limit": 1}], 40323),
    ([{"$limit": 0}], 15958),
    ([{"$limit": -1}], 5107201),
    ([{"$project": {}}], 51272),
    ([{"$group": {}}], 15955),
    ([{"$group": {"_id": 1, "a": {"$foo": 1}}}], 15952),
    ([{"$group": {"_id": 1, "a": 5}}], 40234),
    ([{"$count": "$n"}], 40158),
    ([{"$unwind": "t"}], 28818),
    ([{"$unset": 5}], 31002),
    ([{"$set": {"a": 1, "a.b": 2}}], 40176),
    ([{"$set": {"a": {"$foo": 1}}}], 168),
    ([{"$set": {"a": "$$nope"}}], 17276),
    ([{"$set": {"a": {"$size": "$n"}}}], 17124),
    ([{"$replaceWith": "$n"}], 40228),
]


@each_of(("pipeline", "expected"), ANSWERS)
def test_a_pipeline_answers_as_the_server_does(pipeline: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    others: list[dict[str, Any]] = [{"_id": 9, "f": "x"}, {"_id": 8}]
    assert compile_pipeline(pipeline).run(DOCUMENTS, lambda name: others) == expected


@each_of(("expression", "expected"), EXPRESSIONS)
def test_an_expression_has_the_servers_value_and_type(expression: Any, expected: Any) -> None:
    document = {"_id": 1, "n": 7, "s": "Éz", "l": [1, 2, 3], "a": [{"b": 1}, 5, {"b": 2}]}
    value = compile_expression(expression)(document, {})
    assert value == expected
    assert type(value) is type(expected)


@each_of(("pipeline", "code"), CODES)
def test_a_bad_pipeline_is_refused_with_the_servers_code(pipeline: list[dict[str, Any]], code: int) -> None:
    with pytest.raises(OperationFailure) as caught:
        compile_pipeline(pipeline).run(DOCUMENTS)
    assert caught.value.code == code


def test_stores_can_read_the_leading_match_and_the_collections() -> None:
    lookup = {"from": "o", "localField": "a", "foreignField": "b", "as": "j"}
    pipeline = compile_pipeline([{"$match": {"a": 1}}, {"$match": {"b": 2}}, {"$facet": {"x": [{"$lookup": lookup}]}}])
    assert pipeline.leading_match == {"$and": [{"a": 1}, {"b": 2}]}
    assert pipeline.collections == {"o"}
    assert compile_pipeline([{"$limit": 1}, {"$match": {"a": 1}}]).leading_match is None


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"$lookup": {"from": {"db": "d", "coll": "o"}, "pipeline": [], "as": "j"}}],
        [{"$set": {"a": "$$NOW"}}],
        [{"$bucketAuto": {"groupBy": "$a", "buckets": 2, "granularity": "R5"}}],
    ],
)
def test_what_is_not_exact_is_refused_by_name(pipeline: list[dict[str, Any]]) -> None:
    with pytest.raises(UnsupportedOperation):
        compile_pipeline(pipeline)


def test_the_documents_stay_as_they_are() -> None:
    documents = [{"_id": 1, "a": {"b": [1]}}]
    compile_pipeline([{"$set": {"a.c": 1}}, {"$unwind": "$a.b"}, {"$unset": "a.b"}]).run(documents)
    assert documents == [{"_id": 1, "a": {"b": [1]}}]
