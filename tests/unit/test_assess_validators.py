"""Validators: whether they refuse the version's field, and what mends them."""

from __future__ import annotations

from typing import Any

import pytest

from shadow.migrate.assess.validators import Verdict, judge, mended, mending

CLOSED = {"properties": {"_id": {}, "name": {"enum": ["hunter2"]}}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("validator", "verdict"),
    [
        ({}, Verdict.ACCEPTS),
        ({"name": {"$type": "string"}}, Verdict.ACCEPTS),
        ({"$jsonSchema": {"required": ["name"], "properties": {"name": {}}}}, Verdict.ACCEPTS),
        ({"$jsonSchema": {"properties": {"in": {"additionalProperties": False}}}}, Verdict.ACCEPTS),
        ({"$jsonSchema": CLOSED}, Verdict.REFUSES),
        ({"$jsonSchema": {"additionalProperties": False}}, Verdict.REFUSES),
        ({"$jsonSchema": {**CLOSED, "properties": {"_shadow": {}}}}, Verdict.ACCEPTS),
        ({"$jsonSchema": {**CLOSED, "properties": {"_shadow": {"bsonType": "string"}}}}, Verdict.UNSURE),
        ({"$jsonSchema": {"patternProperties": {"^_": {}}, "additionalProperties": False}}, Verdict.UNSURE),
        ({"$jsonSchema": {"patternProperties": {"^x": {}}, "additionalProperties": False}}, Verdict.REFUSES),
        ({"$jsonSchema": {"additionalProperties": {"bsonType": "string"}}}, Verdict.UNSURE),
        ({"$jsonSchema": {"additionalProperties": {}}}, Verdict.ACCEPTS),
        ({"$jsonSchema": {"maxProperties": 3}}, Verdict.UNSURE),
        ({"$jsonSchema": {"allOf": [{}, CLOSED]}}, Verdict.REFUSES),
        ({"$jsonSchema": {"anyOf": [{}, CLOSED]}}, Verdict.UNSURE),
        ({"$and": [{"a": 1}, {"$jsonSchema": CLOSED}]}, Verdict.REFUSES),
        ({"$or": [{"a": 1}, {"b": 2}]}, Verdict.ACCEPTS),
        ({"$or": [{"a": 1}, {"$jsonSchema": CLOSED}]}, Verdict.UNSURE),
        ({"$nor": [{"a": 1}]}, Verdict.UNSURE),
        ({"$expr": {"$eq": [{"$size": {"$objectToArray": "$$ROOT"}}, 3]}}, Verdict.UNSURE),
        ({"_shadow.b": "x"}, Verdict.UNSURE),
    ],
)
def test_what_a_validator_makes_of_one_more_field(validator: dict[str, Any], verdict: Verdict) -> None:
    assert judge(validator, "_shadow")[0] is verdict


@pytest.mark.parametrize(
    "validator",
    [
        {"$jsonSchema": CLOSED},
        {"$jsonSchema": {"additionalProperties": False}},
        {"$and": [{"a": 1}, {"$jsonSchema": {"allOf": [{}, CLOSED]}}]},
    ],
)
def test_a_mended_validator_accepts_it_and_the_given_one_is_not_touched(validator: dict[str, Any]) -> None:
    before = repr(validator)
    assert judge(mended(validator, "_v"), "_v")[0] is Verdict.ACCEPTS
    assert repr(validator) == before


def test_the_command_names_the_place_and_no_value() -> None:
    command = mending('od"d', {"$and": [{"$jsonSchema": CLOSED}]}, "_shadow")
    assert '(v["$and"][0]["$jsonSchema"].properties ??= {})["_shadow"] = {};' in command
    assert 'collMod: "od\\"d"' in command
    assert "hunter2" not in command
