"""Documents as the driver's raw documents: sent to be stored unchanged, and returned by the server."""

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
    """Whether the server would set its own time in this document on an insert or a replacement: it does so for empty
    timestamps among the top-level fields other than `_id`; not in updates, including upserts and pipelines (MongoDB
    6.0.5, by trial; manual, "Timestamps")."""
    return document is not None and any(
        type(value) is Timestamp and value == EMPTY and name != "_id" for name, value in document.items()
    )


def literal(raw: Document) -> list[Document]:
    """An update that stores exactly this document."""
    return [{"$replaceWith": {"$literal": raw}}]


def exact_form(document: Document, reserved: str, stamp: Any) -> Document:
    """A document with its stamp, in its stored form. Raises `UnreadableDocument` for one that must not be copied."""
    check_readable(document)
    if isinstance(document, RawDocument):
        return RawBSONDocument(with_field(document.raw, reserved, stamp))  # type: ignore[return-value]
    return {**document, reserved: stamp}


def stored(document: Document, left_out: str) -> Document:
    """A document without one top-level field."""
    if isinstance(document, RawDocument | Damaged):
        return document_of(without(document.raw, left_out))
    return {name: value for name, value in document.items() if name != left_out}


def taken(raw: Any) -> Document:
    """The `_id` of a raw document, as a separate document."""
    return {"_id": key_of(raw)[0]}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Converts the details of errors to dicts: where the driver returns raw documents, they are raw as well, but
    applications expect a dict."""
    try:
        yield
    except OperationFailure as error:
        if not isinstance(error.details, RawBSONDocument):
            raise
        details: Document = bson.decode(bytes(error.details.raw), codec_options=_REPLY)
        plain = type(error)(str(details.get("errmsg", "refused")), error.code, details, error._max_wire_version)
        plain._error_labels |= error._error_labels
        raise plain from error.__cause__
