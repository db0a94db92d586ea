"""What a pipeline leaves open: legal both ways is equal, what cannot be known is not comparable, the rest is strict."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Decimal128

from shadow.compare.answers import compare_values, less_open
from shadow.compare.equality import KeyDifference, compare_hits
from shadow.model.operation import Hit, Query, Verb
from shadow.model.reads import Aggregate
from shadow.model.verdict import Difference, Incomparable, Kind, Mismatch
from shadow.model.version import Version
from tests.support.cases import each_of

A, B, C = ({"_id": n, "v": n} for n in "abc")
LOOKUP = {"$lookup": {"from": "o", "localField": "x", "foreignField": "y", "as": "j"}}
TOTAL = {"$group": {"_id": "$k", "n": {"$sum": "$p"}}}


def outcome(pipeline: list[Any], primary: list[Any], secondary: list[Any]) -> Any:
    """ "equal", the reason why not comparable, or the kinds of the differences."""
    found = compare_values(Aggregate(pipeline), primary, secondary)
    assert all(each.primary is not None or each.secondary is not None for each in found.keys)
    return "equal" if found.equal else found.incomparable or [each.kind for each in found.keys]


@each_of(
    ("pipeline", "primary", "secondary"),
    [
        pytest.param([LOOKUP], [{"_id": 1, "j": [A, B]}], [{"_id": 1, "j": [B, A]}], id="joined"),
        pytest.param(
            [LOOKUP, {"$unwind": "$j"}],
            [{"_id": 1, "j": A}, {"_id": 1, "j": B}],
            [{"_id": 1, "j": B}, {"_id": 1, "j": A}],
            id="joined and unwound",
        ),
        pytest.param(
            [LOOKUP, {"$project": {"j.v": 1}}],
            [{"_id": 1, "j": [{"v": 1}, {"v": 2}]}],
            [{"_id": 1, "j": [{"v": 2}, {"v": 1}]}],
            id="a part of what is joined",
        ),
        pytest.param(
            [LOOKUP, {"$set": {"k": "$j.v"}}, {"$unset": "j"}],
            [{"_id": 1, "k": [1, 2]}],
            [{"_id": 1, "k": [2, 1]}],
            id="renamed",
        ),
        pytest.param([{"$group": {"_id": "$k"}}], [{"_id": 10}], [{"_id": 10.0}], id="a group's key"),
        pytest.param(
            [{"$sortByCount": "$k"}],
            [{"_id": 10, "count": 2}, {"_id": 1, "count": 2}],
            [{"_id": 1, "count": 2}, {"_id": Decimal128("10.0"), "count": 2}],
            id="sortByCount",
        ),
        pytest.param(
            [{"$group": {"_id": None, "m": {"$max": "$v"}}}],
            [{"_id": None, "m": 10}],
            [{"_id": None, "m": 10.0}],
            id="max",
        ),
        pytest.param(
            [{"$group": {"_id": 1, "m": {"$addToSet": "$v"}}}],
            [{"_id": 1, "m": [1, 2]}],
            [{"_id": 1, "m": [2.0, 1]}],
            id="addToSet",
        ),
        pytest.param(
            [{"$group": {"_id": 1, "m": {"$push": "$v"}}}],
            [{"_id": 1, "m": [1, 2]}],
            [{"_id": 1, "m": [2, 1]}],
            id="push",
        ),
        pytest.param(
            [{"$project": {"x": {"$setUnion": ["$a", "$b"]}}}],
            [{"_id": 1, "x": [1, 2]}],
            [{"_id": 1, "x": [2, 1]}],
            id="setUnion",
        ),
        pytest.param([{"$facet": {"f": [{"$match": {}}]}}], [{"f": [A, B]}], [{"f": [B, A]}], id="facet"),
        pytest.param(
            [{"$sort": {"v": 1}}, {"$limit": 1}, {"$project": {"v": 1}}],
            [{"_id": 1, "v": 2}],
            [{"_id": 3, "v": 2}],
            id="a tie at the cut",
        ),
        pytest.param(
            [
                {
                    "$densify": {
                        "field": "v",
                        "partitionByFields": ["k"],
                        "range": {"step": 1, "bounds": "partition"},
                    }
                }
            ],
            [{"_id": 1, "k": 1, "v": 1}, {"k": 1, "v": 2}],
            [{"_id": 1, "k": 1, "v": 1}, {"k": 1.0, "v": 2}],
            id="a partition of equal numbers",
        ),
    ],
)
def test_what_is_legal_both_ways_is_equal(pipeline: list[Any], primary: list[Any], secondary: list[Any]) -> None:
    assert outcome(pipeline, primary, secondary) == "equal"


@each_of(
    ("pipeline", "primary", "secondary", "reason"),
    [
        pytest.param(
            [{"$group": {"_id": 1, "f": {"$first": "$v"}}}],
            [{"_id": 1, "f": 1}],
            [{"_id": 1, "f": 2}],
            Incomparable.PIPELINE_ORDER,
            id="first",
        ),
        pytest.param(
            [{"$sort": {"t": 1}}, {"$group": {"_id": 1, "f": {"$last": "$v"}}}],
            [{"_id": 1, "f": 1}],
            [{"_id": 1, "f": 2}],
            Incomparable.PIPELINE_ORDER,
            id="last of what may tie",
        ),
        pytest.param([{"$limit": 2}], [A, B], [A, C], Incomparable.PIPELINE_ORDER, id="a limit without a sort"),
        pytest.param(
            [
                {"$group": {"_id": "$l", "k": {"$first": "$k"}}},
                {
                    "$setWindowFields": {
                        "partitionBy": "$k",
                        "sortBy": {"_id": 1},
                        "output": {"n": {"$documentNumber": {}}},
                    }
                },
            ],
            [{"_id": [1, 2], "k": 1, "n": 1}, {"_id": [1, 3], "k": 1, "n": 2}],
            [{"_id": [1, 3], "k": 1, "n": 1}, {"_id": [1, 2], "k": 1, "n": 2}],
            Incomparable.PIPELINE_ORDER,
            id="lists that may tie where partitions are sorted by first",
        ),
        pytest.param(
            [TOTAL], [{"_id": 1, "n": 0.6}], [{"_id": 1, "n": 0.6000000000000001}], Incomparable.ROUNDING, id="sum"
        ),
        pytest.param(
            [TOTAL, {"$sort": {"n": -1}}, {"$limit": 1}],
            [{"_id": 1, "n": 0.6}],
            [{"_id": 2, "n": 0.6000000000000001}],
            Incomparable.ROUNDING,
            id="the greatest of two that are near",
        ),
        pytest.param(
            [{"$sort": {"v": 1}}, {"$project": {"w": 1}}],
            [{"_id": 1}, {"_id": 2}],
            [{"_id": 2}, {"_id": 1}],
            Incomparable.PROJECTED_SORT,
            id="a sort by what is gone",
        ),
        pytest.param(
            [LOOKUP, {"$set": {"f": {"$first": "$j"}}}, {"$unset": "j"}],
            [{"_id": 1, "f": A}],
            [{"_id": 1, "f": B}],
            Incomparable.PIPELINE_ORDER,
            id="the first of what is joined",
        ),
        pytest.param(
            [{"$set": {"a": 1}}, {"$set": {"b": 1}}],
            [{"_id": 1, "a": 1, "b": 1}],
            [{"_id": 1, "b": 1, "a": 1}],
            Incomparable.FIELD_ORDER,
            id="the order of fields after two stages",
        ),
        pytest.param([{"$futureStage": {}}], [A], [B], Incomparable.PIPELINE_ORDER, id="an unknown stage"),
    ],
)
def test_what_cannot_be_known_is_not_comparable_by_name(
    pipeline: list[Any], primary: list[Any], secondary: list[Any], reason: Incomparable
) -> None:
    assert outcome(pipeline, primary, secondary) is reason
    assert outcome(pipeline, primary, primary) == "equal"


@each_of(
    ("pipeline", "primary", "secondary", "kinds"),
    [
        pytest.param(
            [LOOKUP], [{"_id": 1, "j": [A, B]}], [{"_id": 1, "j": [A, C]}], [Kind.VALUE], id="another is joined"
        ),
        pytest.param(
            [LOOKUP], [{"_id": 1, "j": [A, A]}], [{"_id": 1, "j": [A]}], [Kind.VALUE], id="one less is joined"
        ),
        pytest.param(
            [{"$set": {"a": 1}}], [{"_id": 1, "l": [1, 2]}], [{"_id": 1, "l": [2, 1]}], [Kind.VALUE], id="a stored list"
        ),
        pytest.param(
            [{"$set": {"a": 1}}], [{"_id": 1, "n": 10}], [{"_id": 1, "n": 10.0}], [Kind.VALUE], id="a stored number"
        ),
        pytest.param(
            [{"$group": {"_id": "$k", "f": {"$first": "$v"}}}],
            [{"_id": 1, "f": 1}],
            [{"_id": 2, "f": 1}],
            [Kind.VALUE],
            id="a group's key beside what is open",
        ),
        pytest.param([TOTAL], [{"_id": 1, "n": 0.6}], [{"_id": 1, "n": 0.7}], [Kind.VALUE], id="another sum"),
        pytest.param(
            [TOTAL], [{"_id": 1, "n": 6}], [{"_id": 1, "n": 7}], [Kind.VALUE], id="another sum of whole numbers"
        ),
        pytest.param([{"$limit": 2}], [A, B], [A], [Kind.COUNT], id="fewer than the limit"),
        pytest.param(
            [{"$sort": {"_id": 1}}, {"$group": {"_id": 1, "m": {"$push": "$v"}}}],
            [{"_id": 1, "m": [1, 2]}],
            [{"_id": 1, "m": [2, 1]}],
            [Kind.VALUE],
            id="pushed in a whole order",
        ),
        pytest.param([{"$sort": {"_id": 1}}], [A, B], [B, A], [Kind.ORDER], id="a whole order"),
        pytest.param(
            [{"$match": {"_id": 1}}, {"$limit": 1}],
            [{"_id": 1, "v": 1}],
            [{"_id": 1, "v": 2}],
            [Kind.VALUE],
            id="one document",
        ),
        pytest.param([{"$limit": 3}, {"$count": "n"}], [{"n": 3}], [{"n": 2}], [Kind.VALUE], id="how many there are"),
        pytest.param(
            [TOTAL, {"$sort": {"n": -1}}, {"$limit": 1}],
            [{"_id": 1, "n": 0.6}],
            [{"_id": 2, "n": 0.5}],
            [Kind.MISSING],
            id="the greatest",
        ),
        pytest.param(
            [{"$sort": {"v": 1}}, {"$limit": 1}],
            [{"_id": 1, "v": 2}],
            [{"_id": 1, "v": 2, "w": 1}],
            [Kind.VALUE],
            id="the same key at the cut",
        ),
    ],
)
def test_what_the_server_fixes_is_compared_strictly(
    pipeline: list[Any], primary: list[Any], secondary: list[Any], kinds: list[Kind]
) -> None:
    assert outcome(pipeline, primary, secondary) == kinds


def test_a_projection_of_find_leaves_open_what_its_expressions_do() -> None:
    query = Query(projection={"x": {"$setUnion": ["$a", "$b"]}, "y": 1})
    one, other = (Hit(1, Version("b", 1), {"_id": 1, "y": 1, "x": x}) for x in ([1, 2], [2, 1]))
    assert less_open(query, compare_hits(query, [one], [other])).equal
    lacks = Hit(1, Version("b", 1), {"_id": 1, "y": 1, "x": [1]})
    assert [each.kind for each in less_open(query, compare_hits(query, [one], [lacks])).keys] == [Kind.VALUE]


def test_a_finding_without_a_difference_cannot_be_made() -> None:
    with pytest.raises(ValueError):
        KeyDifference(1, Kind.VALUE)
    with pytest.raises(ValueError):
        Mismatch("users", Verb.FIND, Kind.VALUE, 1, ())
    assert Mismatch("users", Verb.FIND, Kind.VALUE, 1, (Difference(Kind.VALUE, "a"),)).differences
