"""Excuses excuse what they name and nothing else, and say which of them it took."""

from __future__ import annotations

import datetime as dt
from copy import deepcopy
from typing import Any

import pytest
from bson import DatetimeMS, Decimal128, Int64
from pydantic import TypeAdapter, ValidationError

from shadow.compare.rules import Excuses, Rule, active, excused_by
from shadow.model.version import Document
from tests.support.cases import each_of

RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


def rule(kind: str, path: str, name: str = "r", **more: Any) -> Rule:
    return RULE.validate_python({"rule": kind, "name": name, "path": path, **more})


NOON = dt.datetime(2026, 1, 1, 12, 0, 0, 500_000)

CASES: list[tuple[str, Rule, Document, Document, bool]] = [
    ("a field", rule("ignore", "a"), {"a": 1, "b": 1}, {"a": 2, "b": 1}, True),
    ("a field on one side", rule("ignore", "a"), {"a": 1, "b": 1}, {"b": 1}, True),
    ("another field", rule("ignore", "a"), {"a": 1, "b": 1}, {"a": 2, "b": 2}, False),
    ("a nested field", rule("ignore", "a.b"), {"a": {"b": 1}}, {"a": {"b": 2}}, True),
    ("a field in every element", rule("ignore", "a.b"), {"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 3}, {}]}, True),
    ("a star", rule("ignore", "a.*.b"), {"a": {"x": {"b": 1}}}, {"a": {"x": {"b": 2}}}, True),
    ("a position", rule("ignore", "a.0"), {"a": [1, 2]}, {"a": [3, 2]}, True),
    ("another position", rule("ignore", "a.0"), {"a": [1, 2]}, {"a": [1, 3]}, False),
    ("the length of a list", rule("ignore", "a.*"), {"a": [1]}, {"a": [1, 2]}, False),
    ("within", rule("tolerance", "a", by=0.01), {"a": 1.0}, {"a": 1.005}, True),
    ("beyond", rule("tolerance", "a", by=0.01), {"a": 1.0}, {"a": 1.02}, False),
    ("another type of number", rule("tolerance", "a", by=1), {"a": 1}, {"a": 1.0}, False),
    ("a long", rule("tolerance", "a", by=1), {"a": Int64(1)}, {"a": Int64(2)}, True),
    ("a decimal", rule("tolerance", "a", by=0.1), {"a": Decimal128("1.00")}, {"a": Decimal128("1.05")}, True),
    ("no number", rule("tolerance", "a", by=0.1), {"a": Decimal128("NaN")}, {"a": Decimal128("sNaN")}, False),
    ("flags", rule("tolerance", "a", by=1), {"a": True}, {"a": False}, False),
    ("texts", rule("tolerance", "a", by=1), {"a": "1"}, {"a": "2"}, False),
    ("missing", rule("tolerance", "a", by=1), {"a": 1}, {}, False),
    ("each element", rule("tolerance", "a.*", by=1), {"a": [1, 2]}, {"a": [2, 3]}, True),
    ("a field of each", rule("tolerance", "a.b", by=1), {"a": [{"b": 1}]}, {"a": [{"b": 2}]}, True),
    ("a list", rule("unordered", "a"), {"a": [1, "x", {"b": 1}]}, {"a": [{"b": 1}, 1, "x"]}, True),
    ("repeats", rule("unordered", "a"), {"a": [1, 1, 2]}, {"a": [1, 2, 2]}, False),
    ("types in a list", rule("unordered", "a"), {"a": [1, 2]}, {"a": [2.0, 1]}, False),
    ("no list", rule("unordered", "a"), {"a": 1}, {"a": 2}, False),
    ("the same second", rule("truncate", "a", to="second"), {"a": NOON}, {"a": NOON.replace(microsecond=0)}, True),
    ("another second", rule("truncate", "a", to="second"), {"a": NOON}, {"a": NOON.replace(second=1)}, False),
    ("the same day", rule("truncate", "a", to="day"), {"a": NOON}, {"a": NOON.replace(hour=1)}, True),
    ("a far date", rule("truncate", "a", to="minute"), {"a": DatetimeMS(2**60)}, {"a": DatetimeMS(2**60 + 1)}, True),
    ("a date and no date", rule("truncate", "a", to="day"), {"a": NOON}, {"a": None}, False),
    ("null and nothing", rule("missing_as_null", "a"), {"a": None, "b": 1}, {"b": 1}, True),
    ("nothing and null", rule("missing_as_null", "a"), {"b": 1}, {"b": 1, "a": None}, True),
    ("a value and nothing", rule("missing_as_null", "a"), {"a": 0}, {}, False),
]


@each_of(("what", "each", "a", "b", "excused"), CASES, ids=[f"{c[1].rule}: {c[0]}" for c in CASES])
def test_a_rule_excuses_what_it_names_and_nothing_else(
    what: str, each: Rule, a: Document, b: Document, excused: bool
) -> None:
    before = deepcopy((a, b))
    expected = ("r",) if excused else None
    assert excused_by([each], a, b) == expected, what
    assert excused_by([each], b, a) == expected, what
    assert (a, b) == before


def test_only_the_rules_that_it_took_are_named() -> None:
    rules = [rule("ignore", "a", "seen"), rule("tolerance", "b", "score", by=1), rule("unordered", "c", "tags")]
    a, b = {"a": 1, "b": 1, "c": [1, 2]}, {"a": 2, "b": 1, "c": [2, 1]}
    assert excused_by(rules, a, b) == ("seen", "tags")
    assert excused_by(rules, a, {**b, "d": 1}) is None
    assert excused_by(rules, a, a) == ()
    assert excused_by([], a, b) is None


def test_of_two_rules_of_which_either_suffices_one_is_named() -> None:
    rules = [rule("ignore", "a", "one"), rule("ignore", "a", "two")]
    assert excused_by(rules, {"a": 1}, {"a": 2}) == ("two",)


def test_rules_act_in_an_order_in_which_they_add_up() -> None:
    rules = active([rule("unordered", "a", "bag"), rule("ignore", "a.t", "times")], dt.date(2026, 1, 1))
    a, b = {"a": [{"k": 1, "t": 1}, {"k": 2, "t": 2}]}, {"a": [{"k": 2, "t": 9}, {"k": 1, "t": 8}]}
    assert excused_by(rules, a, b) == ("times", "bag")


def test_rules_hold_until_the_end_of_their_day() -> None:
    lasting, expiring = rule("ignore", "a", "one"), rule("ignore", "b", "two", expires="2026-05-01")
    assert active([lasting, expiring], dt.date(2026, 5, 1)) == (lasting, expiring)
    assert active([lasting, expiring], dt.date(2026, 5, 2)) == (lasting,)


def test_rules_hold_for_their_collection_and_say_whether_they_were_ever_needed() -> None:
    today = dt.date(2026, 5, 2)
    rules = [rule("ignore", "a", "one"), rule("ignore", "b", "two"), rule("ignore", "c", "old", expires="2026-05-01")]
    excuses = Excuses({"users": rules, "empty": []}, today=lambda: today)
    assert excuses.excuse("users", {"a": 1}, {"a": 2}) == ("one",)
    assert excuses.excuse("documents", {"a": 1}, {"a": 2}) is None
    assert excuses.excuse("users", {"c": 1}, {"c": 2}) is None
    excuses.taken("users", ["one"])
    assert [(row["name"], row["excused"], row["state"]) for row in excuses.status()] == [
        ("one", 1, "active"),
        ("two", 0, "never_matched"),
        ("old", 0, "expired"),
    ]
    assert excuses.names() == [("users", "one"), ("users", "two"), ("users", "old")]


def test_other_rules_keep_the_counts_of_those_that_stay() -> None:
    excuses = Excuses({"users": [rule("ignore", "a", "one")]})
    excuses.taken("users", ["one"])
    excuses.replace({"users": [rule("ignore", "a", "one"), rule("ignore", "b", "two")]})
    assert [(row["name"], row["excused"]) for row in excuses.status()] == [("one", 1), ("two", 0)]


@each_of(
    "wrong",
    [
        {"path": ""},
        {"path": "a..b"},
        {"path": "_id"},
        {"path": "_id.x"},
        {"path": "*"},
        {"rule": "forget"},
        {"name": "Has Spaces"},
        {"by": 1},
        {"rule": "tolerance"},
        {"rule": "tolerance", "by": 0},
        {"rule": "tolerance", "by": "inf"},
        {"rule": "truncate", "to": "century"},
        {"expires": "soon"},
        {"collection": "users"},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RULE.validate_python({"rule": "ignore", "name": "r", "path": "a", **wrong})


def test_rules_are_frozen() -> None:
    with pytest.raises(ValidationError):
        rule("ignore", "a").path = "b"
