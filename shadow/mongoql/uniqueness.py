"""Values as a unique index compares them: texts by its collation, if it has one."""

from __future__ import annotations

from typing import Any

from bson import DBRef

from shadow.model.schema import UniqueSpec
from shadow.mongoql.values.collation import collation_key

__all__ = ["compared"]


def compared(constraint: UniqueSpec, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values with each text in the place of those that are equal to it. As on the server, texts inside of documents
    and lists count, but no names of fields, patterns or code."""
    if constraint.collation is None:
        return values
    strength = constraint.collation.strength
    return tuple(_keyed(value, strength) for value in values)


def _keyed(value: Any, strength: int) -> Any:
    if type(value) is str:
        return ".".join(map(str, collation_key(value, strength)))
    if isinstance(value, DBRef):
        return _keyed(dict(value.as_doc()), strength)
    if isinstance(value, dict):
        return {name: _keyed(inner, strength) for name, inner in value.items()}
    if isinstance(value, list):
        return [_keyed(inner, strength) for inner in value]
    return value
