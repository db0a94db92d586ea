"""What updates mean, field order included; `tests/compat` holds the same rules to a real mongod."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, Timestamp
from pymongo.errors import WriteError

from shadow.compare.equality import same_after
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Update
from shadow.mongoql import compile_filter, compile_update
from shadow.stores.mongo.changes_of_many import MongoMany, modifies
from tests.support.cases import each_of

APPLIED: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    ({}, {"$set": {"z": 1, "b": 2}, "$inc": {"c": 1}}, {"b": 2, "c": 1, "z": 1}),
    ({}, {"$set": {"e.10": 1, "e.9": 2}}, {"e": {"9": 2, "10": 1}}),
    ({"a": [1]}, {"$set": {"a.3": 4}}, {"a": [1, None, None, 4]}),
    ({"a": [1, 2]}, {"$unset": {"a.0": 1, "b": 1}}, {"a": [None, 2]}),
    ({"a": 2**31 - 1}, {"$inc": {"a": 1}}, {"a": Int64(2**31)}),
    ({"a": 1}, {"$inc": {"a": Int64(1)}}, {"a": Int64(2)}),
    ({"a": Decimal128("1")}, {"$inc": {"a": 0.1}}, {"a": Decimal128("1.100000000000000")}),
    ({"a": -0.0}, {"$inc": {"a": 0.0}}, {"a": -0.0}),
    ({}, {"$mul": {"a": 5.0, "b": Int64(2)}}, {"a": 0.0, "b": Int64(0)}),
    ({"a": 5}, {"$min": {"a": 5.0}, "$max": {"b": None}}, {"a": 5, "b": None}),
    ({"a": 1, "b": 2, "c": 3}, {"$rename": {"a": "c"}}, {"b": 2, "c": 1}),
    ({"a": 1}, {"$setOnInsert": {"b": 1}}, {"a": 1}),
    ({"a": [3]}, {"$push": {"a": {"$each": [1, 2], "$sort": 1, "$slice": -2}}}, {"a": [2, 3]}),
    ({"a": [1, 4]}, {"$push": {"a": {"$each": [2, 3], "$position": -1}}}, {"a": [1, 2, 3, 4]}),
    ({"a": [{"k": 2}]}, {"$push": {"a": {"$each": [{"k": 1}], "$sort": {"k": 1}}}}, {"a": [{"k": 1}, {"k": 2}]}),
    ({"a": [1]}, {"$addToSet": {"a": {"$each": [1.0, 2, 2]}}}, {"a": [1, 2]}),
    ({"a": [1, 5, 9]}, {"$pull": {"a": {"$gte": 5}}}, {"a": [1]}),
    ({"a": [{"x": 1, "y": 2}, {"x": 2}]}, {"$pull": {"a": {"x": 1}}}, {"a": [{"x": 2}]}),
    ({"a": [1, 2, 1.0]}, {"$pullAll": {"a": [1]}}, {"a": [2]}),
    ({"a": [1, 2]}, {"$pop": {"a": -1}}, {"a": [2]}),
    ({"a": 13}, {"$bit": {"a": {"and": 10}}}, {"a": 8}),
    ({"a": [1, 2]}, {"$inc": {"a.$[]": 1}}, {"a": [2, 3]}),
    ({"a": 1}, [{"$set": {"b": {"$add": ["$a", 1]}}}, {"$unset": "a"}], {"b": 2}),
    ({"a": 1}, [{"$replaceWith": {"b": 1}}], {"b": 1}),
]

REFUSED: list[tuple[dict[str, Any], Any, int]] = [
    ({}, {"$foo": {"a": 1}}, 9),
    ({}, {"$set": 5}, 9),
    ({}, {"$set": {"a": 1, "a.b": 2}}, 40),
    ({}, {"$set": {"a": 1}, "$inc": {"a": 1}}, 40),
    ({}, {"$set": {"_id": 2}}, 66),
    ({}, {"$set": {"_id": 1.0}}, 66),
    ({}, {"$unset": {"_id": 1}}, 66),
    ({"a": 5}, {"$set": {"a.b": 1}}, 28),
    ({"a": [1]}, {"$set": {"a.x": 1}}, 28),
    ({"a": "x"}, {"$inc": {"a": 1}}, 14),
    ({}, {"$inc": {"a": "x"}}, 14),
    ({"a": Int64(2**63 - 1)}, {"$inc": {"a": 1}}, 2),
    ({"a": 5}, {"$push": {"a": 1}}, 2),
    ({"a": 5}, {"$pop": {"a": 1}}, 14),
    ({"a": [1]}, {"$pop": {"a": 2}}, 9),
    ({}, {"$set": {"a.$": 1}}, 2),
    ({}, {"$set": {"a.$[x]": 1}}, 2),
    ({"a": 1}, {"$set": {"a.$[]": 1}}, 2),
    ({}, {"$set": {"a..b": 1}}, 56),
    ({}, {"$set": {"$a": 1}}, 52),
    ({}, {"$rename": {"a": "a"}}, 2),
    ({}, [{"$match": {}}], 72),
]


@each_of(("pre", "update", "expected"), APPLIED)
def test_an_update_makes_the_servers_document(pre: dict[str, Any], update: Any, expected: dict[str, Any]) -> None:
    """Equal by BSON bytes, so types and the order of fields count; the input stays as it was."""
    before = {"_id": 1, **pre}
    encoded = bson.encode(before)
    assert bson.encode(compile_update(update).apply(before)) == bson.encode({"_id": 1, **expected})
    assert bson.encode(before) == encoded


@each_of(("pre", "update", "code"), REFUSED)
def test_a_bad_update_is_refused_with_the_servers_code(pre: dict[str, Any], update: Any, code: int) -> None:
    with pytest.raises(WriteError) as caught:
        compile_update(update).apply({"_id": 1, **pre})
    assert caught.value.code == code


def test_the_result_shares_nothing_with_its_inputs() -> None:
    inner = {"x": [1]}
    pre = {"_id": 1, "a": inner}
    updater = compile_update({"$set": {"b": inner}, "$push": {"c": inner}})
    post = updater.apply(pre)
    for name in ("a", "b"):
        post[name]["x"].append(2)
    post["c"][0]["x"].append(3)
    assert inner == {"x": [1]}
    assert updater.apply(pre)["b"] == {"x": [1]}


def test_the_positional_operator_takes_the_matched_element() -> None:
    filter = compile_filter({"a.k": 2})
    post = compile_update({"$set": {"a.$.v": 1}}).apply({"_id": 1, "a": [{"k": 1}, {"k": 2}]}, filter)
    assert post["a"] == [{"k": 1}, {"k": 2, "v": 1}]


def test_array_filters_choose_elements() -> None:
    update = compile_update({"$set": {"a.$[big]": 0}}, [{"big": {"$gt": 1}}])
    assert update.apply({"_id": 1, "a": [1, 2, 3]})["a"] == [1, 0, 0]


@pytest.mark.parametrize(
    ("filters", "code"),
    [([{"y": 1}], 2), ([{"x": 1}, {"x": 2}], 9), ([{"x": 1}, {"y": 2}], 9), ([{}], 9), ([{"X": 1}], 2)],
)
def test_bad_array_filters_are_refused(filters: list[dict[str, Any]], code: int) -> None:
    with pytest.raises(WriteError) as caught:
        compile_update({"$set": {"a.$[x]": 0}}, filters)
    assert caught.value.code == code


def test_an_upsert_puts_the_key_first_then_the_filter_then_the_operators() -> None:
    update = compile_update({"$set": {"z": 1}, "$setOnInsert": {"c": 2}})
    post = update.upsert({"b.x": 1, "_id": 5, "a": {"$eq": 3}, "n": {"$gt": 1}}, 5)
    assert list(post.items()) == [("_id", 5), ("a", 3), ("b", {"x": 1}), ("c", 2), ("z", 1)]


def test_an_upsert_by_a_filter_that_never_matches_is_refused_by_name() -> None:
    """The server then inserts nothing at all, which no caller expects."""
    with pytest.raises(UnsupportedOperation):
        compile_update({"$set": {"a": 1}}).upsert({"_id": 1, "b": {"$all": []}}, 1)


def test_the_current_date_is_the_one_given() -> None:
    now = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
    post = compile_update({"$currentDate": {"a": True, "b": {"$type": "timestamp"}}}, now=now).apply({"_id": 1})
    assert post["a"] == dt.datetime(2024, 5, 6, 7, 8, 9, 123000)
    assert post["b"] == Timestamp(1714979289, 1)
    with pytest.raises(UnsupportedOperation):
        compile_update({"$currentDate": {"a": True}})


def test_planners_can_read_the_paths() -> None:
    assert compile_update({"$set": {"a.b": 1}, "$inc": {"c": 2}}).paths == {"$set": {"a.b": 1}, "$inc": {"c": 2}}
    assert compile_update([{"$set": {"a": 1}}]).paths is None


def test_messages_hold_no_value_of_the_document() -> None:
    """Errors name paths and types only."""
    with pytest.raises(WriteError) as caught:
        compile_update({"$inc": {"a": 1}}).apply({"_id": 1, "a": "secret"})
    assert "secret" not in str(caught.value)


SCALARS: list[Any] = [1, 1.0, True, None, "x", b"x", Int64(3), Decimal128("1"), dt.datetime(2024, 1, 1), -0.0]
WHOLE: list[dict[str, Any]] = [
    {"_id": 1},
    {"_id": 1, "b": 1, "10": 0, "a": "x"},
    {"a": 1, "_id": 1},
    {"_id": 1, "a": [1, "x"], "b": [[1]]},
    {"_id": 1, "a": {"b": [1]}, "c": 1},
    {"_id": {"k": 1}, "a": None},
    {"_id": 1, "$odd": 1},
]


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("z", "10", "9", "a"), ("c", "b")])
def test_values_without_parts_are_set_as_any_other_value_is(names: tuple[str, ...]) -> None:
    """What is set in one step comes to what the walk through the tree of an update comes to."""
    for turn, pre in enumerate(WHOLE * len(SCALARS)):
        values = {name: SCALARS[(turn + place) % len(SCALARS)] for place, name in enumerate(names)}
        quick, slow = compile_update({"$set": values}), compile_update({"$set": values})
        assert quick.sets is not None
        slow.sets = None
        before = bson.encode({"": pre})
        made = quick.apply(pre)
        assert bson.encode({"": made}) == bson.encode({"": slow.apply(pre)})
        for name, value in made.items():
            assert type(value) is not list or value is not pre.get(name), "an array is shared"
            if type(value) is list:
                value.append("changed")
        assert bson.encode({"": pre}) == before


def test_whether_values_without_parts_change_a_document_is_known_without_making_it() -> None:
    seen = set()
    for pre, old, new in itertools.product(WHOLE, SCALARS, SCALARS):
        for document in (pre, {**pre, "a": old}, {**pre, "a": [old]}):
            updater = compile_update({"$set": {"a": new}})
            modified = not same_after(document, updater.apply(document))
            assert modifies(updater, document, None) is modified, (document, new)
            many = MongoMany("c", "_shadow", [Update("k", {}, {"$set": {"a": new}}, "")], ["op"], *[None] * 4)  # type: ignore[arg-type]
            many._note(0, document, bson.encode(document))
            assert many._modified[0] is modified, (document, new)
            seen.add(modified)
    assert seen == {True, False}


@each_of(
    "update",
    [
        {"$set": {"_id": 1}},
        {"$set": {"a.b": 1}},
        {"$set": {"$ref": "x"}},
        {"$set": {"a": {}}},
        {"$set": {"a": [1]}},
        {"$set": {"a": Timestamp(1, 1)}},
        {"$set": {"a": 1}, "$inc": {"b": 1}},
        {"$inc": {"a": 1}},
        [{"$set": {"a": 1}}],
    ],
)
def test_what_may_fail_or_has_parts_is_not_set_in_one_step(update: Any) -> None:
    with contextlib.suppress(WriteError):
        assert compile_update(update).sets is None
