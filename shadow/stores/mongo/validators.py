"""Whether a collection's validator rejects documents that carry shadow's version. Pure.

To a validator, the version is one more field at the top of the document, of type object. `judge` reads the validator;
the server itself can tell more (`shadow assess` asks it).
"""

from __future__ import annotations

import copy
import enum
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Place", "ValidatorVerdict", "judge", "mended", "mending"]

Place: TypeAlias = tuple[str | int, ...]
"""The path to a schema inside a validator."""


class ValidatorVerdict(enum.StrEnum):
    ACCEPTS = "accepts"
    REFUSES = "refuses"
    UNSURE = "unsure"


_COMBINED: Final = ("anyOf", "oneOf")


def judge(validator: Mapping[str, Any], reserved: str) -> tuple[ValidatorVerdict, tuple[Place, ...]]:
    """The verdict, and the schemas that need the reserved field among their properties."""
    found = list(_query(validator, reserved, ()))
    places = tuple(place for verdict, place in found if verdict is ValidatorVerdict.REFUSES and place)
    verdicts = {verdict for verdict, _ in found}
    return next(
        (each for each in (ValidatorVerdict.REFUSES, ValidatorVerdict.UNSURE) if each in verdicts),
        ValidatorVerdict.ACCEPTS,
    ), places


_Found: TypeAlias = tuple[ValidatorVerdict, Place]


def _query(query: Any, reserved: str, place: Place) -> Iterator[_Found]:
    if not isinstance(query, Mapping):
        yield ValidatorVerdict.UNSURE, ()
        return
    for name, operand in query.items():
        match name:
            case "$jsonSchema":
                yield from _schema(operand, reserved, (*place, name))
            case "$and":
                for number, part in enumerate(operand):
                    yield from _query(part, reserved, (*place, name, number))
            case "$comment":
                continue
            case _ if name.startswith("$"):
                yield _alternatives(operand if isinstance(operand, list) else [operand], reserved, name), ()
            case _ if name.partition(".")[0] == reserved:
                yield ValidatorVerdict.UNSURE, ()


def _alternatives(parts: Sequence[Any], reserved: str, name: str) -> ValidatorVerdict:
    """Of `$or`, all must reject; the other branches may count or compare anything."""
    if name != "$or":
        return ValidatorVerdict.UNSURE
    verdicts = {verdict for part in parts for verdict, _ in _query(part, reserved, ())}
    return ValidatorVerdict.UNSURE if verdicts - {ValidatorVerdict.ACCEPTS} else ValidatorVerdict.ACCEPTS


def _schema(schema: Any, reserved: str, place: Place) -> Iterator[_Found]:
    if not isinstance(schema, Mapping):
        yield ValidatorVerdict.UNSURE, ()
        return
    properties = schema.get("properties", {})
    patterns = [text for text in schema.get("patternProperties", {}) if re.search(text, reserved)]
    if reserved in properties or patterns:
        if properties.get(reserved) or patterns:
            yield ValidatorVerdict.UNSURE, ()
    elif schema.get("additionalProperties", True) is False:
        yield ValidatorVerdict.REFUSES, place
    elif isinstance(schema.get("additionalProperties"), Mapping) and schema["additionalProperties"]:
        yield ValidatorVerdict.UNSURE, ()
    if "maxProperties" in schema or "not" in schema:
        yield ValidatorVerdict.UNSURE, ()
    for number, part in enumerate(schema.get("allOf", ())):
        yield from _schema(part, reserved, (*place, "allOf", number))
    for name in _COMBINED:
        if any(
            verdict is not ValidatorVerdict.ACCEPTS
            for part in schema.get(name, ())
            for verdict, _ in _schema(part, reserved, ())
        ):
            yield ValidatorVerdict.UNSURE, ()


def mended(validator: Mapping[str, Any], reserved: str) -> dict[str, Any]:
    """The validator with the reserved field allowed wherever `judge` reports a schema that rejects it."""
    changed = copy.deepcopy(dict(validator))
    for place in judge(validator, reserved)[1]:
        schema: Any = changed
        for step in place:
            schema = schema[step]
        schema.setdefault("properties", {})[reserved] = {}
    return changed


def mending(collection: str, validator: Mapping[str, Any], reserved: str) -> str:
    """The command for mongosh that does the same as `mended`, without quoting any part of the validator."""
    name = json.dumps(collection)
    steps = " ".join(
        f"(v{''.join(f'[{json.dumps(step)}]' for step in place)}.properties ??= {{}})[{json.dumps(reserved)}] = {{}};"
        for place in judge(validator, reserved)[1]
    )
    read = f"db.getCollectionInfos({{name: {name}}})[0].options.validator"
    return f"db.runCommand({{collMod: {name}, validator: (v => {{ {steps} return v }})({read})}})"
