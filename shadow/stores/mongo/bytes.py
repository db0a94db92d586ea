"""Documents as the driver's raw documents: what goes to the server to be stored as it is, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import bson
from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from shadow.model.stored import EMPTY, Damaged, RawDocument, check_readable, document_of, key_of, with_field, without
from shadow.model.values import CANONICAL
from shadow.model.version import Document

__all__ = ["exact_form", "has_empty_timestamp", "literal", "plain_errors", "stored", "taken"]

_REPLY: Final = CANONICAL.with_options(unicode_decode_error_handler="replace")


def has_empty_timestamp(document: Document | None) -> bool:
    """Whether the server would put its own time into this document if it were inserted, or put in place of another: it
    does so for empty timestamps among the top-level fields, `_id` apart; not in updates, be they upserts or pipelines
    (MongoDB 6.0.5, by trial; manual, "Timestamps")."""
    return document is not None and any(
        type(value) is Timestamp and value == EMPTY and name != "_id" for name, value in document.items()
    )


def literal(raw: Document) -> list[Document]:
    """An update to exactly this document."""
    return [{"$replaceWith": {"$literal": raw}}]


def exact_form(document: Document, reserved: str, stamp: Any) -> Document:
    """A document with its stamp, to be stored. Raises `UnreadableDocument` for what must not be copied."""
    check_readable(document)
    if isinstance(document, RawDocument):
        return RawBSONDocument(with_field(document.raw, reserved, stamp))  # type: ignore[return-value]
    return {**document, reserved: stamp}


def stored(document: Document, left_out: str) -> Document:
    """A document less a top-level field."""
    if isinstance(document, RawDocument | Damaged):
        return document_of(without(document.raw, left_out))
    return {name: value for name, value in document.items() if name != left_out}


def taken(raw: Any) -> Document:
    """The `_id` of a raw document, as a document of its own."""
    return {"_id": key_of(raw)[0]}


@contextmanager
def plain_errors() -> Iterator[None]:
    """What the server says in an error is a raw document as well where documents are asked for as such; applications
    know it as a dict."""
    try:
        yield
    except OperationFailure as error:
        if not isinstance(error.details, RawBSONDocument):
            raise
        details: Document = bson.decode(bytes(error.details.raw), codec_options=_REPLY)
        plain = type(error)(str(details.get("errmsg", "refused")), error.code, details, error._max_wire_version)
        plain._error_labels |= error._error_labels
        raise plain from error.__cause__
