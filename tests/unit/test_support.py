"""The support table and the compilers agree, both ways, for every operator."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.mongoql import (
    compile_expression,
    compile_filter,
    compile_pipeline,
    compile_projection,
    compile_update,
)
from shadow.mongoql.values.support import TABLE, Family, Support, SupportEntry, entries
from tests.support.cases import each_of

NOW = dt.datetime(2024, 1, 1)


def _same(names: Iterable[str], operand: Any) -> dict[str, Any]:
    return dict.fromkeys(names, operand)


OPERANDS: dict[Family, dict[str, Any]] = {
    Family.QUERY: {
        **_same(("$in", "$nin", "$all"), [1]),
        **_same(("$and", "$or", "$nor"), [{"a": 1}]),
        "$not": {"$gt": 1},
        "$type": "int",
        "$regex": "a",
        "$options": "i",
        "$elemMatch": {"b": 1},
        "$mod": [2, 1],
        "$expr": True,
        "$jsonSchema": {},
    },
    Family.UPDATE: {"$rename": "b", "$pullAll": [1], "$bit": {"and": 1}, "$currentDate": True},
    Family.MODIFIER: {"$each": [1], "$position": 0},
    Family.PROJECTION: {"$elemMatch": {"b": 1}},
    Family.STAGE: {
        **_same(("$match", "$sort", "$project", "$addFields", "$set"), {"a": 1}),
        **_same(("$out", "$merge"), "others"),
        "$unset": "a",
        "$unwind": "$a",
        "$group": {"_id": None},
        "$count": "n",
        "$sortByCount": "$a",
        "$facet": {"x": []},
        "$lookup": {"from": "o", "localField": "a", "foreignField": "b", "as": "c"},
        "$unionWith": "o",
        "$redact": "$$KEEP",
        "$setWindowFields": {"output": {"n": {"$sum": 1}}},
        "$bucket": {"groupBy": "$a", "boundaries": [0, 1]},
        "$bucketAuto": {"groupBy": "$a", "buckets": 2},
        "$densify": {"field": "a", "range": {"step": 1, "bounds": "full"}},
        "$fill": {"output": {"a": {"value": 1}}},
        "$sample": {"size": 1},
        "$graphLookup": {"from": "o", "startWith": "$a", "connectFromField": "a", "connectToField": "b", "as": "c"},
        "$replaceRoot": {"newRoot": "$a"},
        "$replaceWith": "$a",
    },
    Family.ACCUMULATOR: {
        "$count": {},
        **_same(("$firstN", "$lastN", "$maxN", "$minN"), {"n": 1, "input": "$a"}),
        **_same(("$top", "$bottom"), {"sortBy": {"a": 1}, "output": "$a"}),
        **_same(("$topN", "$bottomN"), {"n": 1, "sortBy": {"a": 1}, "output": "$a"}),
    },
    Family.WINDOW: {
        **_same(("$count", "$rank", "$denseRank", "$documentNumber"), {}),
        "$shift": {"output": "$a", "by": 1},
        **_same(("$derivative", "$integral"), {"input": "$a"}),
        "$expMovingAvg": {"input": "$a", "N": 2},
        **_same(("$firstN", "$lastN", "$maxN", "$minN"), {"n": 1, "input": "$a"}),
        **_same(("$top", "$bottom"), {"sortBy": {"a": 1}, "output": "$a"}),
        **_same(("$topN", "$bottomN"), {"n": 1, "sortBy": {"a": 1}, "output": "$a"}),
    },
    Family.EXPRESSION: {
        "$cond": [True, 1, 2],
        "$ifNull": ["$a", 1],
        "$switch": {"branches": [{"case": True, "then": 1}]},
        "$filter": {"input": "$a", "cond": True},
        "$map": {"input": "$a", "in": 1},
        "$reduce": {"input": "$a", "initialValue": 0, "in": 1},
        "$let": {"vars": {}, "in": 1},
        "$getField": "a",
        "$convert": {"input": "$a", "to": "int"},
        "$dateToString": {"date": "$a"},
        "$dateFromString": {"dateString": "$a"},
        "$dateToParts": {"date": "$a"},
        "$dateFromParts": {"year": "$a"},
        **_same(("$dateAdd", "$dateSubtract"), {"startDate": "$a", "unit": "day", "amount": 1}),
        "$dateDiff": {"startDate": "$a", "endDate": "$b", "unit": "day"},
        "$dateTrunc": {"date": "$a", "unit": "day"},
        **_same(("$trim", "$ltrim", "$rtrim"), {"input": "$a"}),
        **_same(("$replaceOne", "$replaceAll"), {"input": "$a", "find": "b", "replacement": "c"}),
        **_same(("$regexMatch", "$regexFind", "$regexFindAll"), {"input": "$a", "regex": "b"}),
        **_same(("$substr", "$substrBytes"), ["a", 0, 1]),
        **_same(("$strcasecmp", "$indexOfBytes", "$indexOfCP", "$log", "$pow", "$atan2"), ["$a", "$b"]),
        "$zip": {"inputs": ["$a", "$b"]},
        "$rand": {},
        "$sortArray": {"input": "$a", "sortBy": 1},
        **_same(("$firstN", "$lastN", "$maxN", "$minN"), {"n": 1, "input": "$a"}),
        "$setField": {"field": "a", "input": "$$ROOT", "value": 1},
        "$unsetField": {"field": "a", "input": "$$ROOT"},
        **_same(("$substrCP",), ["a", 0, 1]),
        **_same(
            [
                "$eq",
                "$ne",
                "$gt",
                "$gte",
                "$lt",
                "$lte",
                "$cmp",
                "$subtract",
                "$divide",
                "$mod",
                "$arrayElemAt",
                "$in",
                "$slice",
                "$indexOfArray",
                "$range",
                "$split",
                "$setDifference",
                "$setEquals",
                "$setIsSubset",
            ],
            ["$a", "$b"],
        ),
    },
}

TOP_LEVEL = (
    "$and",
    "$or",
    "$nor",
    "$expr",
    "$comment",
    "$alwaysTrue",
    "$alwaysFalse",
    "$where",
    "$jsonSchema",
    "$text",
    "$sampleRate",
)


def _query(name: str, operand: Any) -> Any:
    if name in TOP_LEVEL:
        return compile_filter({name: operand})
    return compile_filter({"a": {"$regex": "a", name: operand} if name == "$options" else {name: operand}})


def _window(name: str) -> dict[str, Any]:
    return {"window": {"documents": [-1, 0]}} if name == "$derivative" else {}


COMPILE: dict[Family, Callable[[str, Any], Any]] = {
    Family.QUERY: _query,
    Family.UPDATE: lambda name, operand: compile_update({name: {"a": operand}}, now=NOW),
    Family.MODIFIER: lambda name, operand: compile_update({"$push": {"a": {"$each": [1], name: operand}}}),
    Family.PROJECTION: lambda name, operand: compile_projection({"a": {name: operand}}),
    Family.STAGE: lambda name, operand: compile_pipeline([{name: operand}]),
    Family.ACCUMULATOR: lambda name, operand: compile_pipeline([{"$group": {"_id": 1, "a": {name: operand}}}]),
    Family.EXPRESSION: lambda name, operand: compile_expression({name: operand}),
    Family.WINDOW: lambda name, operand: compile_pipeline(
        [{"$setWindowFields": {"sortBy": {"a": 1}, "output": {"x": {name: operand, **_window(name)}}}}]
    ),
}

UNKNOWN = {
    Family.QUERY: (2, "unknown operator: $foo"),
    Family.UPDATE: (9, "Unknown modifier: $foo"),
    Family.MODIFIER: (2, "$foo"),
    Family.PROJECTION: (31325, "$foo"),
    Family.STAGE: (40324, "$foo"),
    Family.ACCUMULATOR: (15952, "$foo"),
    Family.EXPRESSION: (168, "$foo"),
    Family.WINDOW: (9, "$foo"),
}


@each_of("entry", [e for e in entries() if e.status is Support.SUPPORTED], ids=lambda e: f"{e.family}-{e.name}")
def test_a_supported_operator_compiles(entry: SupportEntry) -> None:
    COMPILE[entry.family](entry.name, OPERANDS[entry.family].get(entry.name, 1))


@each_of("entry", [e for e in entries() if e.status is Support.REFUSED], ids=lambda e: f"{e.family}-{e.name}")
def test_a_refused_operator_is_named_in_the_refusal(entry: SupportEntry) -> None:
    with pytest.raises(UnsupportedOperation) as caught:
        COMPILE[entry.family](entry.name, 1)
    assert caught.value.name == entry.name
    assert entry.reason


@each_of("family", Family)
def test_an_unknown_operator_has_the_servers_own_error(family: Family) -> None:
    code, words = UNKNOWN[family]
    with pytest.raises(OperationFailure) as caught:
        COMPILE[family]("$foo", 1)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert not isinstance(caught.value, UnsupportedOperation)


def test_no_operator_is_both_supported_and_refused() -> None:
    """The table is made from two lists; one name stands once in each family."""
    assert all(
        entry.name == name and entry.family is family for family in Family for name, entry in TABLE[family].items()
    )
