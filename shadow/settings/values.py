"""How faults show values, and values that would silently be read as something else."""

from __future__ import annotations

import datetime as dt
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel

from shadow.errors import Fault
from shadow.model.phase import Phase
from shadow.settings.yaml_text import Odd

__all__ = ["misread", "shown"]

_SECRET_WORDS: Final = ("secret", "key_id", "token", "password", "url")


def shown(field: str, value: Any) -> str:
    """The value for a message if it is plain and not secret, otherwise only its kind."""
    name, section = field.rsplit(".", 1)[-1], field.split(".", 1)[0]
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if any(word in name for word in _SECRET_WORDS) or field in (
        "mongo",
        "dynamo",
        "journal",
        "control",
        "observe",
        "admin",
    ):
        return "(hidden)"
    text = repr(value)
    if section in ("mongo", "dynamo") and "://" in text:
        return "(hidden)"
    return text if len(text) <= 80 else f"{text[:77]}..."


def misread(model: type[BaseModel], given: Any, place: str = "") -> Iterator[Fault]:
    """Faults for words that YAML reads as something else, and for flags and infinities in place of numbers, which would
    be accepted silently."""
    if not isinstance(given, Mapping):
        return
    for name, info in model.model_fields.items():
        if name in given:
            yield from _misread_at(info.annotation, given[name], f"{place}{name}")


def _misread_at(kind: Any, value: Any, field: str) -> Iterator[Fault]:
    inside = _types(kind)
    models = [each for each in inside if isinstance(each, type) and issubclass(each, BaseModel)]
    if isinstance(value, Mapping):
        for model in models:
            if typing.get_origin(_bare(kind)) is not dict:
                yield from misread(model, value, f"{field}.")
        if typing.get_origin(_bare(kind)) is dict:
            of_values = typing.get_args(_bare(kind))[1]
            for key, each in value.items():
                yield from _misread_at(of_values, each, f"{field}.{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _misread_at(kind, each, f"{field}.{number}")
    else:
        fault = _misread_word(inside, value, field)
        if fault is not None:
            yield fault


def _misread_word(kinds: set[Any], value: Any, field: str) -> Fault | None:
    number = bool({int, float} & kinds) and bool not in kinds
    if isinstance(value, Odd):
        if {bool, Phase, dt.date, dt.datetime} & kinds:
            return None
        if number:
            return Fault(field, str(value), "a plain decimal number (times are seconds, without a unit)")
        return Fault(field, shown(field, str(value)), f"in quotes: YAML reads it as {value.reading} without them")
    if number and isinstance(value, bool):
        return Fault(field, str(value).lower(), "a number, not a flag")
    if number and isinstance(value, float) and not math.isfinite(value):
        return Fault(field, str(value), "a finite number")
    return None


def _bare(kind: Any) -> Any:
    return _bare(typing.get_args(kind)[0]) if typing.get_origin(kind) is Annotated else kind


def _types(kind: Any) -> set[Any]:
    """The classes in an annotation, at any depth."""
    inside = [each for each in typing.get_args(kind) if isinstance(each, type) or typing.get_origin(each) is not None]
    return set().union(*map(_types, inside)) if inside else {kind}
