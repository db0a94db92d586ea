"""Field paths of expressions and projections: no positions; arrays are mapped over, arrays inside arrays are not."""

from __future__ import annotations

from typing import Any

from shadow.model.order import MISSING, as_document
from shadow.mongoql.values.failures import failure
from shadow.mongoql.values.references import is_dollar_name

__all__ = ["at_path", "checked_path"]


def checked_path(path: str) -> list[str]:
    """The parts of a field path. Raises with the server's codes for empty, dangling and dollar-prefixed ones, except
    for the names of a DBRef's parts (`references.DOLLAR_NAMES`)."""
    if not path:
        raise failure(40352, "FieldPath cannot be constructed with empty string")
    if path.endswith("."):
        raise failure(40353, "FieldPath must not end with a '.'.")
    parts = path.split(".")
    for part in parts:
        if not part:
            raise failure(15998, "FieldPath field names may not be empty strings.")
        if part.startswith("$") and not is_dollar_name(part):
            raise failure(16410, f"FieldPath field names may not start with '$'. Consider using $getField: {part}")
        if "\0" in part:
            raise failure(16411, "FieldPath field names may not contain '\\0'.")
    if len(parts) > 200:
        raise failure(5984701, "FieldPath is too long")
    return parts


def at_path(value: Any, parts: list[str], start: int = 0) -> Any:
    """The value at the path `parts` from `value`: a value, `MISSING`, or a list collected from an array on the way."""
    for i in range(start, len(parts)):
        value = as_document(value)
        if type(value) is list:
            gathered = [at_path(v, parts, i) for v in map(as_document, value) if type(v) is dict]
            return [v for v in gathered if v is not MISSING]
        if not isinstance(value, dict):
            return MISSING
        value = value.get(parts[i], MISSING)
    return value
