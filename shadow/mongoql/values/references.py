"""DBRefs: what the driver reads as one, and the names that only they may have.

In BSON a DBRef is a document; the driver reads each document with a text `$ref` and an `$id` as a `bson.DBRef`. What is
computed here consists of plain documents, so a result is converted before it leaves: the application must see the value
that the driver would show, and what is stored must be read again as that.
"""

from __future__ import annotations

from typing import Any, Final

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from shadow.model.stored import RawDocument, document_of, encoded
from shadow.model.values import CANONICAL, is_reference, reference
from shadow.model.version import Document

__all__ = ["DOLLAR_NAMES", "as_stored", "in_order", "is_dollar_name", "with_references"]

DOLLAR_NAMES: Final = frozenset({"$ref", "$id", "$db", "$sortKey", "$recordId"})
"""Names with a dollar that the server accepts in a field path, at any place in it: the parts of a DBRef, and metadata
that stored documents do not have. Tried on MongoDB 6.0.5."""


def is_dollar_name(name: Any) -> bool:
    """Whether a name with a dollar is one of a field, and not of an operator."""
    return name in DOLLAR_NAMES


def with_references(value: Any) -> Any:
    """`value` with a DBRef in place of each document inside it that the driver reads as one. Values without any are
    returned as they are."""
    kind = type(value)
    if kind is dict:
        inner = [(name, each) for name, each in value.items() if type(each) in _CONTAINERS]
        changed = {name: new for name, each in inner if (new := _inside(each)) is not each}
        return {**value, **changed} if changed else value
    if kind is list:
        made = [_inside(each) if type(each) in _CONTAINERS else each for each in value]
        return made if any(new is not old for new, old in zip(made, value, strict=True)) else value
    return value


_CONTAINERS: Final = frozenset({dict, list, RawDocument})


def _inside(value: Any) -> Any:
    value = with_references(dict(value) if type(value) is RawDocument else value)
    return reference(value) if type(value) is dict and is_reference(value) else value


def in_order(document: Document) -> Document:
    """`document`; where nothing but the order of a DBRef's parts is odd in it, with plain documents in place of DBRefs,
    so that the order is not lost on the way through stages."""
    if type(document) is not RawDocument:
        return document
    plain: Document = _plain(RawBSONDocument(document.raw, _AS_READ))
    return plain if encoded(plain) == document.raw else document


def _plain(value: Any) -> Any:
    if isinstance(value, RawBSONDocument):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if type(value) is list else value


_AS_READ: Final[CodecOptions[Any]] = CANONICAL.with_options(document_class=RawBSONDocument)


def as_stored(document: Document) -> Document:
    """A computed document as a store returns it: with DBRefs, or, if a DBRef has its parts in an order that the driver
    cannot write, as a `RawDocument`."""
    return document if with_references(document) is document else document_of(bson.encode(document))
