"""Top-level fields whose names begin with a dollar: an insert, an upsert and a pipeline may make them, but no operator
may change one, and no replacement may bring one, unless it is part of a DBRef that is the document itself.

The rules and codes are those of the server's `storage_validation`, tried on MongoDB 6.0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadow.model.stored import encoded
from shadow.model.version import Document
from shadow.mongoql.values.failures import described, write_failure

__all__ = ["check_dollar_field", "check_replacement"]

_DOLLAR_PREFIXED = 52
_NO_DBREF = 55


def check_dollar_field(document: Mapping[str, Any], name: str) -> None:
    """Raises WriteError (52, or 55 for a part of a DBRef) unless the field `name`, which begins with a dollar, is part
    of a DBRef at its place among the fields of `document`."""
    names = list(document)
    place = names.index(name)
    if names[place] == "$db":
        _check_text(document, "$db")
        place -= 1
        if place < 0 or names[place] != "$id":
            raise write_failure(_NO_DBREF, "Found $db field without a $id before it, which is invalid.")
    if names[place] == "$id":
        place -= 1
        if place < 0 or names[place] != "$ref":
            raise write_failure(_NO_DBREF, "Found $id field without a $ref before it, which is invalid.")
    if names[place] != "$ref":
        text = f"The dollar ($) prefixed field '{name}' is not allowed in the context of an update"
        raise write_failure(_DOLLAR_PREFIXED, text)
    _check_text(document, "$ref")
    if names[place + 1 : place + 2] != ["$id"]:
        raise write_failure(_NO_DBREF, "The DBRef $ref field needs a $id field right after it")


def _check_text(document: Mapping[str, Any], name: str) -> None:
    if not isinstance(document[name], str):
        text = f"The DBRef {name} field must be a String, not a {described(document[name])}"
        raise write_failure(_NO_DBREF, text)


def check_replacement(replacement: Document, before: Document) -> None:
    """Raises WriteError (52, 55) for a replacement of the document `before` with a top-level field that begins with a
    dollar. The server takes one that changes nothing. Both have their `_id`."""
    names = [name for name in replacement if name[:1] == "$"]
    if names and encoded(replacement) != encoded(before):
        for name in names:
            check_dollar_field(replacement, name)
