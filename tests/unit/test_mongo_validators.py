"""Validators: whether they refuse the version's field, and what mends them."""

from __future__ import annotations

from typing import Any

import pytest

from shadow.stores.mongo.validators import ValidatorVerdict, judge, mended, mending
from tests.support.cases import each_of

CLOSED = {"properties": {"_id": {}, "name": {"enum": ["hunter2"]}}, "additionalProperties": False}


@each_of(
    ("validator", "verdict"),
    [
        ({}, ValidatorVerdict.ACCEPTS),
        ({"name": {"$type": "string"}}, ValidatorVerdict.ACCEPTS),
        ({"$jsonSchema": {"required": ["name"], "properties": {"name": {}}}}, ValidatorVerdict.ACCEPTS),
        ({"$jsonSchema": {"properties": {"in": {"additionalProperties": False}}}}, ValidatorVerdict.ACCEPTS),
        ({"$jsonSchema": CLOSED}, ValidatorVerdict.REFUSES),
        ({"$jsonSchema": {"additionalProperties": False}}, ValidatorVerdict.REFUSES),
        ({"$jsonSchema": {**CLOSED, "properties": {"_shadow": {}}}}, ValidatorVerdict.ACCEPTS),
        ({"$jsonSchema": {**CLOSED, "properties": {"_shadow": {"bsonType": "string"}}}}, ValidatorVerdict.UNSURE),
        ({"$jsonSchema": {"patternProperties": {"^_": {}}, "additionalProperties": False}}, ValidatorVerdict.UNSURE),
        ({"$jsonSchema": {"patternProperties": {"^x": {}}, "additionalProperties": False}}, ValidatorVerdict.REFUSES),
        ({"$jsonSchema": {"additionalProperties": {"bsonType": "string"}}}, ValidatorVerdict.UNSURE),
        ({"$jsonSchema": {"additionalProperties": {}}}, ValidatorVerdict.ACCEPTS),
        ({"$jsonSchema": {"maxProperties": 3}}, ValidatorVerdict.UNSURE),
        ({"$jsonSchema": {"allOf": [{}, CLOSED]}}, ValidatorVerdict.REFUSES),
        ({"$jsonSchema": {"anyOf": [{}, CLOSED]}}, ValidatorVerdict.UNSURE),
        ({"$and": [{"a": 1}, {"$jsonSchema": CLOSED}]}, ValidatorVerdict.REFUSES),
        ({"$or": [{"a": 1}, {"b": 2}]}, ValidatorVerdict.ACCEPTS),
        ({"$or": [{"a": 1}, {"$jsonSchema": CLOSED}]}, ValidatorVerdict.UNSURE),
        ({"$nor": [{"a": 1}]}, ValidatorVerdict.UNSURE),
        ({"$expr": {"$eq": [{"$size": {"$objectToArray": "$$ROOT"}}, 3]}}, ValidatorVerdict.UNSURE),
        ({"_shadow.b": "x"}, ValidatorVerdict.UNSURE),
    ],
)
def test_what_a_validator_makes_of_one_more_field(validator: dict[str, Any], verdict: ValidatorVerdict) -> None:
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
    assert judge(mended(validator, "_v"), "_v")[0] is ValidatorVerdict.ACCEPTS
    assert repr(validator) == before


def test_the_command_names_the_place_and_no_value() -> None:
    command = mending('od"d', {"$and": [{"$jsonSchema": CLOSED}]}, "_shadow")
    assert '(v["$and"][0]["$jsonSchema"].properties ??= {})["_shadow"] = {};' in command
    assert 'collMod: "od\\"d"' in command
    assert "hunter2" not in command
