"""`$jsonSchema` in a filter over documents that carry a version: the schema is about the application's fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from shadow.model.version import Document

__all__ = ["without_version"]

_LOGICAL: Final = frozenset({"$and", "$or", "$nor"})
_MAY_HOLD: Final = _LOGICAL | {"$jsonSchema"}
_SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf"})
_COUNTS: Final = frozenset({"minProperties", "maxProperties"})


def without_version(filter: Document, reserved: str) -> Document:
    """The filter, with schemas in which the field `reserved` has no part; the same one if it has no schema. What the
    server refuses stays."""
    if not _MAY_HOLD & filter.keys():
        return filter
    made: Document = {}
    for name, value in filter.items():
        if name == "$jsonSchema" and isinstance(value, Mapping):
            made[name] = _schema(value, reserved)
        elif name in _LOGICAL and isinstance(value, list):
            made[name] = [without_version(each, reserved) if isinstance(each, dict) else each for each in value]
        else:
            made[name] = value
    return made


def _schema(schema: Mapping[str, Any], reserved: str) -> Document:
    """A schema of whole documents; those of their fields stay as they are."""
    made: Document = {name: _part(name, value, reserved) for name, value in schema.items()}
    if "additionalProperties" in made and isinstance(made.get("properties", {}), Mapping):
        made["properties"] = {**made.get("properties", {}), reserved: {}}
    if isinstance(made.get("enum"), list) and isinstance(made.get("allOf", []), list):
        documents = [each for each in made.pop("enum") if isinstance(each, Mapping)]
        either = [_equal(each, reserved) for each in documents] or [{"not": {}}]
        made["allOf"] = [*made.get("allOf", []), {"anyOf": either}]
    for name in _COUNTS & made.keys():
        if isinstance(made[name], int) and made[name] >= 0 and isinstance(made.get("allOf", []), list):
            count = made.pop(name)
            has = {"required": [reserved]}
            either = [{**has, name: count + 1}, {"not": has, name: count}]
            made["allOf"] = [*made.get("allOf", []), {"anyOf": either}]
    return made


def _equal(document: Mapping[str, Any], reserved: str) -> Document:
    """A schema of the documents that have the fields of this one, and the version."""
    fields = {name: {"enum": [value]} for name, value in document.items()}
    exact = {"properties": {**fields, reserved: {}}, "additionalProperties": False}
    return {"required": list(fields), **exact} if fields else exact


def _part(name: str, value: Any, reserved: str) -> Any:
    if name in _SEVERAL and isinstance(value, list):
        return [_schema(each, reserved) if isinstance(each, Mapping) else each for each in value]
    if name == "not" and isinstance(value, Mapping):
        return _schema(value, reserved)
    if name == "dependencies" and isinstance(value, Mapping):
        return {key: _schema(each, reserved) if isinstance(each, Mapping) else each for key, each in value.items()}
    if name == "patternProperties" and isinstance(value, Mapping):
        return {rf"^(?!{re.escape(reserved)}$)[\s\S]*?(?:{pattern})": each for pattern, each in value.items()}
    return value
