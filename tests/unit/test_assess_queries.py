"""Recorded queries: by shape, through the real planner, and without a value."""

from __future__ import annotations

from typing import Any

import pytest

from shadow.assess.model import QueryReport, Served
from shadow.assess.queries import MARK, QueryShape, ReadVerb, Recorded, from_lines, from_profile, gather, reported
from shadow.compare.diff import Hasher
from shadow.model.operation import Query
from shadow.model.schema import CollectionSpec, IndexSpec
from tests.support.cases import each_of

SPECS = {"users": CollectionSpec("users", (IndexSpec("email-index", "email"), IndexSpec("by-org", "org", "at")))}


def told(*recorded: Recorded) -> list[QueryReport]:
    return [report for _, report in reported(gather(recorded), SPECS, Hasher(b"x"))]


def found(filter: dict[str, Any], **more: Any) -> QueryReport:
    (report,) = told(Recorded("users", ReadVerb.FIND, Query(filter, **more)))
    return report


@each_of(
    ("filter", "served", "detail"),
    [
        ({"_id": 5}, Served.KEY, "_id"),
        ({"_id": {"$in": [1, 2]}}, Served.KEY, "_id"),
        ({"email": "x"}, Served.INDEX, "email-index"),
        ({"org": 1, "at": {"$gt": "x"}}, Served.INDEX, "by-org"),
        ({"$or": [{"_id": 5}, {"email": "x"}]}, Served.INDEX, "_id and email-index"),
        ({"name": "x"}, Served.SCAN, "filtered by DynamoDB"),
        ({"name": {"$regex": "x"}}, Served.SCAN, ""),
        ({}, Served.SCAN, ""),
        ({"$where": "true"}, Served.REFUSED, "$where"),
        ({"$text": {"$search": "x"}}, Served.REFUSED, "$text"),
        ({"at": {"$near": [1, 2]}}, Served.REFUSED, "$near"),
    ],
)
def test_a_shape_is_served_as_the_planner_serves_it(filter: dict[str, Any], served: Served, detail: str) -> None:
    report = found(filter)
    assert (report.served, report.detail) == (served, detail)


def test_what_scans_names_the_index_that_would_serve_it_and_what_does_not_names_none() -> None:
    assert found({"city": "x"}, sort=(("born", -1),)).suggestion == "hash city, range born"
    assert found({"email": "x"}).suggestion == ""
    assert found({"address.city": "x"}).suggestion == ""


def test_a_sort_that_no_index_gives_is_told() -> None:
    assert found({"org": 1}, sort=(("name", 1),), limit=5).sorted_here
    assert not found({"org": 1}, sort=(("at", 1),), limit=5).sorted_here
    assert not found({"org": 1}).sorted_here


def test_queries_that_differ_in_values_alone_are_one_shape() -> None:
    several = [Recorded("users", ReadVerb.FIND, Query({"email": f"hunter2{n}"})) for n in range(30)]
    several.append(Recorded("users", ReadVerb.COUNT, Query({"email": "hunter2"}), count=7))
    first, second = told(*several)
    assert (first.verb, first.shape, first.count) == ("find", "{email: $eq}", 30)
    assert (second.verb, second.count) == ("count", 7)
    assert "hunter2" not in repr(first)


def test_a_key_that_is_asked_for_again_and_again_is_told_by_its_hash() -> None:
    asked = [Recorded("users", ReadVerb.FIND, Query({"_id": "hunter2" if n % 2 else str(n)})) for n in range(40)]
    (report,) = told(*asked)
    (hot,) = report.hottest
    assert hot.share == 0.5
    assert hot.hash == Hasher(b"x").hash_value("hunter2")
    assert told(*asked[:10])[0].hottest == (), "ten say nothing"


def test_names_that_are_data_are_starred_and_no_index_is_suggested_over_them() -> None:
    report = found({"by.ann@example": 1, "$or": [{"hunter2-1234567890": 2}, {"x": 1}]}, sort=(("m.12-34567", 1),))
    assert report.shape == "{$or: [{*: $eq}, {x: $eq}], by.*: $eq} sort m.*"
    assert "hunter2" not in repr(report)
    assert found({"5ca4bbc7a2dd94ee5816238c": "x"}).suggestion == ""


def test_lines_are_read_with_extended_json_and_pipelines() -> None:
    lines = [
        '{"collection": "users", "filter": {"_id": {"$oid": "5ca4bbc7a2dd94ee5816238c"}}, "count": 12}',
        "",
        '{"collection": "users", "filter": {"org": "?"}, "sort": {"at": -1}, "limit": 10}',
        '{"collection": "users", "sort": [["at", 1], ["name", -1]], "verb": "find"}',
        '{"collection": "users", "pipeline": [{"$match": {"email": "x"}}, {"$group": {"_id": "$org"}}]}',
    ]
    first, second, third, fourth = from_lines(lines)
    assert (first.count, type(first.query.filter["_id"]).__name__) == (12, "ObjectId")
    assert (second.query.sort, second.query.limit) == ((("at", -1),), 10)
    assert third.query.sort == (("at", 1), ("name", -1))
    assert told(fourth)[0].shape == "{email: $eq} | $group"


@each_of(
    "line",
    [
        "hunter2",
        "[1]",
        '{"filter": {}}',
        '{"collection": "c", "hunter2": 1}',
        '{"collection": "c", "filter": {"$and": "hunter2"}}',
        '{"collection": "c", "filter": {"$hunter2": 1}}',
        '{"collection": "c", "filter": 5}',
        '{"collection": "c", "verb": "hunter2"}',
        '{"collection": "c", "count": "hunter2"}',
        '{"collection": "c", "pipeline": ["hunter2"]}',
        '{"collection": "c", "pipeline": {"$match": 1}}',
        '{"collection": "c", "sort": [5]}',
    ],
)
def test_a_line_that_is_no_query_is_named_by_its_number_and_not_by_its_words(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: not a recorded query") as caught:
        list(from_lines(['{"collection": "c"}', line]))
    assert "hunter2" not in str(caught.value)


def test_the_profiler_is_read_verb_by_verb_and_our_own_queries_are_left_out() -> None:
    def entry(op: str, command: dict[str, Any], ns: str = "db.users") -> dict[str, Any]:
        return {"op": op, "ns": ns, "command": command}

    counted = [{"$match": {"a": 1}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}]
    entries = [
        entry("query", {"find": "users", "filter": {"a": 1}, "sort": {"b": -1}, "limit": 3}),
        entry("query", {"find": "users", "filter": {"a": 1}, "comment": MARK}),
        entry("query", {"find": "system.profile", "filter": {}}, "db.system.profile"),
        entry("query", {"find": "users", "filter": {"a": 1}}, "other.users"),
        entry("update", {"q": {"a": 1}, "u": {"$set": {"a": 2}}}),
        entry("remove", {"q": {"a": 1}}),
        entry("command", {"aggregate": "users", "pipeline": counted}),
        entry("command", {"aggregate": "users", "pipeline": [{"$collStats": {}}]}),
        entry("command", {"distinct": "users", "key": "a", "query": {"b": 1}}),
        entry("command", {"count": "users", "query": {"a": 1}}),
        entry("command", {"count": "users"}),
        entry("command", {"findAndModify": "users", "query": {"a": 1}, "update": {}, "sort": {"b": 1}}),
        entry("command", {"findAndModify": "users", "query": {"a": 1}, "remove": True}),
        entry("command", {"listIndexes": "users"}),
        entry("getmore", {"getMore": 5}),
        {"op": "query", "ns": "db.users"},
    ]
    verbs = [each.verb.value for each in from_profile(entries, "db")]
    assert verbs == ["find", "update", "delete", "count", "distinct", "count", "update", "delete"]


def test_shapes_of_collections_that_are_not_assessed_are_left_out() -> None:
    shapes = gather([Recorded("elsewhere", ReadVerb.FIND, Query({"a": 1}))])
    assert [type(one) for one in shapes] == [QueryShape]
    assert list(reported(shapes, SPECS, Hasher(b"x"))) == []
