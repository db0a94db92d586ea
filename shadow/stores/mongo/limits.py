"""Documents that MongoDB rejects, found without a request, with MongoDB's own messages. Pure.

Measured on MongoDB 6.0.5: 180 levels of nesting for stored documents (200 on the wire, error 15 either way), 16 MB of
BSON including the version (2 and 10334 for an insert, 17419 for the result of a change), and no names with `$` at the
top of a replacement (52; 55 for those of an invalid reference). An insert, and an upsert that inserts, accept such
names, and so do nested documents.
"""

from __future__ import annotations

from typing import Any, Final

import bson
from bson import Code, DBRef
from pymongo.errors import DocumentTooLarge, OperationFailure, WriteError

from shadow.model.operation import Change, Insert, Replace, Update
from shadow.model.version import Document

__all__ = ["LARGEST", "LEVELS", "ROOM", "depth", "refusal"]

LEVELS: Final = 180
_LEVELS_OF_A_COMMAND: Final = 200
LARGEST: Final = 16 * 1024 * 1024
ROOM: Final = 256
"""Bytes of a stored document that are reserved for its version."""
_LARGEST_ON_THE_WIRE: Final = LARGEST + 16 * 1024 - 2
_REFERENCE: Final = ("$ref", "$id", "$db")
_NESTING: Final = (dict, list, DBRef, Code)


def refusal(change: Change, existed: bool, document: Document) -> Exception | None:
    """The error with which MongoDB rejects `document` as the result of `change`; `existed`: it changes an existing
    document. None: MongoDB accepts it."""
    levels = depth(document)
    if levels > LEVELS:
        return _too_deep(change, levels)
    size = len(bson.encode(document)) + ROOM
    if size > LARGEST:
        return _too_large(change, size)
    return _dollar(document) if existed and isinstance(change, Replace) else None


def depth(value: Any, most: int = 1000) -> int:
    """The nesting levels of a document: 1 for one of plain values. Stops at `most`."""
    levels, here = 0, [value]
    while here and levels < most:
        levels += 1
        here = [inner for each in here for inner in _inside(each) if isinstance(inner, _NESTING)]
    return levels


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, DBRef):
        return value.as_doc().values()
    if isinstance(value, Code):
        return () if value.scope is None else (dict(value.scope),)
    return value


def _too_deep(change: Change, levels: int) -> OperationFailure:
    inserts = isinstance(change, Insert)
    if levels > _LEVELS_OF_A_COMMAND + inserts:
        text = f"BSONObj exceeds maximum nested object depth: {_LEVELS_OF_A_COMMAND}"
        return OperationFailure(text, 15, {"ok": 0.0, "errmsg": text, "code": 15, "codeName": "Overflow"})
    if inserts:
        return _write_error(15, f"cannot insert document because it exceeds {LEVELS} levels of nesting")
    return _write_error(15, f"Document exceeds maximum nesting depth of {LEVELS}")


def _too_large(change: Change, size: int) -> WriteError | DocumentTooLarge:
    """A document that the driver does not even send is its own error; an update is small itself, whatever its
    result."""
    beyond = size > _LARGEST_ON_THE_WIRE
    if beyond and not isinstance(change, Update):
        return DocumentTooLarge(
            f"BSON document too large ({size} bytes, {ROOM} of them for its version) - the other store supports BSON "
            f"document sizes up to {LARGEST} bytes."
        )
    if beyond:
        text = f"BSONObj size: {size} is invalid. Size must be between 0 and {_LARGEST_ON_THE_WIRE + 2}(16MB)"
        return _write_error(10334, text)
    if isinstance(change, Insert):
        return _write_error(2, f"object to insert too large. size in bytes: {size}, max size: {LARGEST}")
    return _write_error(17419, f"Resulting document after update is larger than {LARGEST}")


def _dollar(document: Document) -> WriteError | None:
    before = ""
    for name, value in document.items():
        if name in _REFERENCE:
            if name == "$ref" and not isinstance(value, str):
                return _write_error(55, f"The DBRef $ref field must be a String, not a {type(value).__name__}")
            if name != "$ref" and before not in _REFERENCE:
                return _write_error(55, f"Found {name} field without a $ref before it, which is invalid.")
        elif name.startswith("$"):
            return _write_error(
                52,
                f"The dollar ($) prefixed field '{name}' in '{name}' is not allowed in the context of an update's "
                "replacement document. Consider using an aggregation pipeline with $replaceWith.",
            )
        before = name
    return None


def _write_error(code: int, text: str) -> WriteError:
    return WriteError(text, code, {"index": 0, "code": code, "errmsg": text})
