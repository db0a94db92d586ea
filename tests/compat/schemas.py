"""Schemas for the differential test of `$jsonSchema`: every keyword of the dialect, at any depth, and faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bson import Decimal128, Int64

from tests.compat.generators import NAMES, Generator

__all__ = ["FAULTY", "schema"]

_JSON: Final = ["array", "boolean", "null", "number", "object", "string"]
_BSON: Final = [
    "double", "string", "object", "array", "binData", "objectId", "bool", "date", "null", "regex", "int", "timestamp",
    "long", "decimal", "number", "minKey", "maxKey", "undefined", "javascript",
]  # fmt: skip
_PATTERNS: Final = ["", "a", "^a", "b$", "^.$", "[ab]+", "B|x", "c"]
_DIVISORS: Final = [1, 2, 0.5, 0.1, Int64(3), Decimal128("0.25"), 1e-300]

FAULTY: Final[list[Any]] = [
    5, {"foo": 1}, {"$ref": "x"}, {"$schema": "x"}, {"default": 1}, {"definitions": {}}, {"format": "x"}, {"id": "x"},
    {"title": 1}, {"description": 3}, {"type": "integer"}, {"type": "string", "bsonType": "string"}, {"type": []},
    {"type": ["string", "string"]}, {"type": "foo"}, {"type": 5}, {"type": ["object", 3]}, {"type": "int"},
    {"type": "bool"}, {"bsonType": "boolean"}, {"bsonType": 16}, {"bsonType": []}, {"bsonType": "foo"},
    {"minimum": "x"}, {"maximum": True}, {"exclusiveMinimum": True}, {"exclusiveMaximum": False},
    {"minimum": 1, "exclusiveMinimum": 3}, {"multipleOf": 0}, {"multipleOf": -1.5}, {"multipleOf": "x"},
    {"minLength": -1}, {"minLength": 1.5}, {"maxLength": "x"}, {"maxItems": float("nan")}, {"minItems": 1e30},
    {"minProperties": None}, {"uniqueItems": 1}, {"pattern": 1}, {"items": 1}, {"items": [1]}, {"additionalItems": 1},
    {"required": []}, {"required": "a"}, {"required": ["a", "a"]}, {"required": [1]}, {"properties": 1},
    {"properties": {"a": 1}}, {"patternProperties": {"a": 1}}, {"patternProperties": 1}, {"additionalProperties": 1},
    {"dependencies": 1}, {"dependencies": {"a": []}}, {"dependencies": {"a": ["b", "b"]}}, {"dependencies": {"a": [1]}},
    {"dependencies": {"a": 1}}, {"allOf": []}, {"anyOf": 1}, {"oneOf": [1]}, {"not": 1}, {"enum": []}, {"enum": 1},
    {"enum": [1, 1.0]}, {"enum": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, {"properties": {"a": {"foo": 1}}},
    {"items": {"type": "int"}}, {"not": {"minLength": -1}}, {"dependencies": {"a": {"enum": []}}},
]  # fmt: skip


def schema(generator: Generator, depth: int = 3) -> dict[str, Any]:
    """One of a document, or of a value in it. Most documents match a part of it."""
    count = generator.pick([1, 1, 2, 2, 3] if depth else [1])
    made: dict[str, Any] = {}
    for name in generator.random.sample(list(_KEYWORDS if depth else _LEAVES), count):
        made.update(_KEYWORDS[name](generator, depth - 1))
    if depth == 3 and not made.keys() & {"properties", "patternProperties", "required", "dependencies"}:
        made.update(_properties(generator, depth - 1))
    return made


def _typed(g: Generator, depth: int) -> dict[str, Any]:
    name, types = g.pick([("type", _JSON), ("bsonType", _BSON)])
    return {name: g.pick(types) if g.chance(0.4) else g.random.sample(types, 3)}


def _bounds(g: Generator, depth: int) -> dict[str, Any]:
    name, exclusive = g.pick([("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")])
    return {name: g.number(), **({exclusive: g.chance(0.7)} if g.chance(0.4) else {})}


def _lengths(g: Generator, depth: int) -> dict[str, Any]:
    return {g.pick(["minLength", "maxLength"]): g.pick([0, 1, 2, 3, 2.0, Int64(1), Decimal128("2")])}


def _sizes(g: Generator, depth: int) -> dict[str, Any]:
    return {g.pick(["minItems", "maxItems", "minProperties", "maxProperties"]): g.pick([0, 1, 2, 3])}


def _enumerated(g: Generator, depth: int) -> dict[str, Any]:
    return {"enum": [g.value(2) for _ in range(g.pick([1, 2, 4]))]}


def _items(g: Generator, depth: int) -> dict[str, Any]:
    if g.chance(0.5):
        return {"items": schema(g, depth)}
    more = {"additionalItems": g.pick([True, False, schema(g, depth)])} if g.chance(0.6) else {}
    return {"items": [schema(g, depth) for _ in range(g.pick([1, 2]))], **more}


def _required(g: Generator, depth: int) -> dict[str, Any]:
    return {"required": g.random.sample(NAMES, g.pick([1, 1, 2]))}


def _properties(g: Generator, depth: int) -> dict[str, Any]:
    return {"properties": {name: schema(g, depth) for name in g.random.sample(NAMES, g.pick([1, 1, 2]))}}


def _pattern_properties(g: Generator, depth: int) -> dict[str, Any]:
    return {"patternProperties": {g.pick(["^[ab]$", "c", "^_id$", "d|a", "0"]): schema(g, depth)}}


def _others(g: Generator, depth: int) -> dict[str, Any]:
    named = {"properties": {name: {} for name in ["_id", *g.random.sample(NAMES, 2)]}} if g.chance(0.7) else {}
    return {"additionalProperties": g.pick([True, False, schema(g, depth)]), **named}


def _dependencies(g: Generator, depth: int) -> dict[str, Any]:
    needed = g.pick([g.random.sample(NAMES, g.pick([1, 2])), schema(g, depth)])
    return {"dependencies": {g.pick(NAMES): needed}}


def _several(g: Generator, depth: int) -> dict[str, Any]:
    return {g.pick(["allOf", "anyOf", "oneOf"]): [schema(g, depth) for _ in range(g.pick([1, 2, 2, 3]))]}


_LEAVES: Final = ("type", "bounds", "multipleOf", "lengths", "sizes", "pattern", "uniqueItems", "enum", "required")

_KEYWORDS: Final[dict[str, Callable[[Generator, int], dict[str, Any]]]] = {
    "type": _typed,
    "bounds": _bounds,
    "multipleOf": lambda g, depth: {"multipleOf": g.pick(_DIVISORS)},
    "lengths": _lengths,
    "sizes": _sizes,
    "pattern": lambda g, depth: {"pattern": g.pick(_PATTERNS)},
    "uniqueItems": lambda g, depth: {"uniqueItems": g.chance(0.9)},
    "enum": _enumerated,
    "required": _required,
    "items": _items,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _others,
    "dependencies": _dependencies,
    "several": _several,
    "not": lambda g, depth: {"not": schema(g, depth)},
    "noted": lambda g, depth: {"title": "t", "description": "d"},
}
