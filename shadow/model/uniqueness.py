"""What a document holds under a unique constraint, by the rule of MongoDB's unique indexes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadow.model.order import MISSING, index_keys
from shadow.model.schema import UniqueSpec
from shadow.model.version import Document

__all__ = ["has_field", "held_values"]


def held_values(constraint: UniqueSpec, document: Document) -> list[tuple[Any, ...]]:
    """The tuples of values that `document` holds, one value for each field of the constraint.

    Lists count by their elements. A missing field counts as null, and an empty list as `UNDEFINED`, which is neither
    null nor missing. A sparse constraint leaves out documents with none of its fields.
    """
    if constraint.sparse and not any(has_field(document, path) for path in constraint.fields):
        return []
    return [
        tuple(None if value is MISSING else value for value in values)
        for values in index_keys(document, constraint.fields)
    ]


def has_field(value: Any, path: str) -> bool:
    """Whether there is anything at a dotted path, arrays opened."""
    if not path:
        return True
    name, _, rest = path.partition(".")
    if isinstance(value, list):
        return any(has_field(element, path) for element in value if isinstance(element, dict)) or (
            name.isdigit() and int(name) < len(value) and has_field(value[int(name)], rest)
        )
    return isinstance(value, Mapping) and name in value and has_field(value[name], rest)
