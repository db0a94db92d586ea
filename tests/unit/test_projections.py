"""What projections of `find` leave of a document."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.mongoql import compile_filter, compile_projection
from tests.support.cases import each_of

DOCUMENT: dict[str, Any] = {
    "_id": 1,
    "a": [{"b": 1, "c": 2}, 5, [{"b": 3}]],
    "d": {"e": 1, "f": 2},
    "g": [1, 2, 3],
    "h": "x",
}

PROJECTED: list[tuple[dict[str, Any] | None, dict[str, Any]]] = [
    (None, DOCUMENT),
    ({}, DOCUMENT),
    ({"h": 1}, {"_id": 1, "h": "x"}),
    ({"h": 1, "_id": 0}, {"h": "x"}),
    ({"_id": 1}, {"_id": 1}),
    ({"_id": 0, "a": 0, "g": 0}, {"d": {"e": 1, "f": 2}, "h": "x"}),
    ({"a.b": 1}, {"_id": 1, "a": [{"b": 1}, [{"b": 3}]]}),
    ({"d": {"e": 1}}, {"_id": 1, "d": {"e": 1}}),
    ({"a": 0, "d.e": 0, "g": 0}, {"_id": 1, "d": {"f": 2}, "h": "x"}),
    ({"h.x": 1}, {"_id": 1}),
    ({"g": {"$slice": 1}, "h": 1}, {"_id": 1, "g": [1], "h": "x"}),
    ({"g": {"$slice": [-2, 1]}, "a": 0, "d": 0}, {"_id": 1, "g": [2], "h": "x"}),
    ({"g": {"$elemMatch": {"$gt": 1}}}, {"_id": 1, "g": [2]}),
    ({"g": {"$elemMatch": {"$gt": 9}}}, {"_id": 1}),
    ({"h": 1, "n": {"$add": [1, 2]}}, {"_id": 1, "h": "x", "n": 3}),
    ({"_id": 0, "k": "$d.e"}, {"k": 1}),
    ({"_id": 0, "d.n": "$h"}, {"d": {"n": "x"}}),
]

CODES: list[tuple[dict[str, Any], int]] = [
    ({"a": 1, "b": 0}, 31254),
    ({"a": 0, "b": 1}, 31253),
    ({"a": 1, "a.b": 1}, 31249),
    ({"a.b": 1, "a": 1}, 31250),
    ({"a": {}}, 51270),
    ({"a.": 1}, 40353),
    ({"a..b": 1}, 15998),
    ({"a": {"$foo": 1}}, 31325),
    ({"a": {"$slice": "x"}}, 28667),
    ({"a.b": {"$elemMatch": {"c": 1}}}, 31275),
    ({"a": 0, "b": {"$add": [1]}}, 31252),
]


@each_of(("projection", "expected"), PROJECTED)
def test_a_projection_leaves_what_the_server_leaves(projection: Any, expected: dict[str, Any]) -> None:
    """Order of fields included."""
    projected = compile_projection(projection)(DOCUMENT)
    assert projected == expected
    assert list(projected) == list(expected)


@each_of(("projection", "code"), CODES)
def test_a_bad_projection_is_refused_with_the_servers_code(projection: dict[str, Any], code: int) -> None:
    with pytest.raises(OperationFailure) as caught:
        compile_projection(projection)
    assert caught.value.code == code


def test_what_needs_an_index_of_text_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperation):
        compile_projection({"a": {"$meta": "textScore"}})


def test_the_positional_projection_needs_the_filter_of_its_query() -> None:
    project, document = compile_projection({"a.$": 1}), {"_id": 1, "a": [4, 5, 6]}
    assert project(document, compile_filter({"a": 5})) == {"_id": 1, "a": [5]}
    with pytest.raises(UnsupportedOperation):
        project(document)
    with pytest.raises(OperationFailure) as caught:
        project.check(compile_filter({"a": 5, "$expr": True}))
    assert caught.value.code == 224
