"""The values that a document holds under a unique constraint, by the rules of MongoDB's unique indexes."""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import OperationFailure, WriteError

from shadow.model.order import MISSING, index_keys
from shadow.model.schema import UniqueSpec
from shadow.model.version import Document

__all__ = ["held_values"]


def held_values(constraint: UniqueSpec, document: Document) -> list[tuple[Any, ...]]:
    """The tuples of values that `document` holds, one value for each field of the constraint.

    Lists count by their elements. A missing field counts as null, and an empty list as `UNDEFINED`, which is neither
    null nor missing. A sparse constraint skips a document, or an element of a list, that has none of its fields. Raises
    WriteError with the server's code for a document that an index over these fields cannot hold: 171 for lists in two
    of them.
    """
    try:
        found = index_keys(document, constraint.fields, sparse=constraint.sparse)
    except OperationFailure as error:
        raise _not_held(constraint, error) from None
    return [tuple(None if value is MISSING else value for value in values) for values in found]


def _not_held(constraint: UniqueSpec, error: OperationFailure) -> WriteError:
    if error.code != _PARALLEL:
        text, code = f"index {constraint.name}: {error.details['errmsg'] if error.details else error}", error.code
    else:
        text, code = f"cannot index parallel arrays: index {constraint.name}, fields {list(constraint.fields)}", 171
    return WriteError(text, code, {"index": 0, "code": code, "errmsg": text})


_PARALLEL: Final = 2
"""The code with which a sort refuses parallel arrays."""
