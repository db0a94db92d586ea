"""Canonical values: what MongoDB would store and return, determined by BSON itself.

Documents enter through `normalise`, an encode and a decode: tuples become lists, microseconds are cut to milliseconds,
UUIDs follow the application's representation, and what BSON cannot hold is refused with the driver's own error. They
leave through `present`, in the types that the application's codec options ask for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import bson
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion

from shadow.model.version import Document

__all__ = [
    "CANONICAL",
    "is_plain",
    "is_reference",
    "normalise",
    "normalise_value",
    "present",
    "reference",
    "snapshot",
    "type_name",
]

CANONICAL: Final[CodecOptions[Document]] = CodecOptions(
    document_class=dict,
    tz_aware=False,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""dict, naive UTC datetimes (`DatetimeMS` outside Python's range), Int64 for int64, UUIDs as Binary."""


def is_plain(options: CodecOptions[Any] | None) -> bool:
    """Whether `options` decode every document to the same Python values as CANONICAL."""
    return options is None or (
        options.document_class is dict
        and not options.tz_aware
        and options.uuid_representation in (UuidRepresentation.UNSPECIFIED,)
        and options.datetime_conversion in (DatetimeConversion.DATETIME, DatetimeConversion.DATETIME_AUTO)
        and not options.type_registry._decoder_map
    )


def normalise(document: Mapping[str, Any], options: CodecOptions[Any] | None = None) -> Document:
    """A deep copy of `document` as MongoDB would return it. Raises the encoding errors of `bson.errors`."""
    encoded = bson.encode(document, codec_options=options) if options is not None else bson.encode(document)
    return bson.decode(encoded, codec_options=CANONICAL)


def normalise_value(value: Any, options: CodecOptions[Any] | None = None) -> Any:
    """`normalise` for a value that is not a document."""
    return normalise({"": value}, options)[""]


def present(document: Document, options: CodecOptions[Any] | None) -> Any:
    """`document` (canonical, or of `model.stored`) in the types of the application's codec options. Raises
    `bson.errors.InvalidBSON` for one that they cannot decode."""
    if type(document) is not dict and hasattr(document, "presented"):
        return document.presented(options)
    if is_plain(options):
        return reference(document) if is_reference(document) else document
    assert options is not None
    # A reply to a command has it inside another document, and there the driver makes a DBRef of it.
    return bson.decode(bson.encode({"": document}), codec_options=options)[""]


def is_reference(document: Mapping[str, Any]) -> bool:
    """Whether the driver reads a document inside another one as a DBRef."""
    return (
        "$ref" in document
        and "$id" in document
        and type(document["$ref"]) is str
        and isinstance(document.get("$db"), str | None)
    )


def reference(document: Mapping[str, Any]) -> DBRef:
    """The DBRef that the driver makes of such a document."""
    rest = dict(document)
    return DBRef(rest.pop("$ref"), rest.pop("$id"), rest.pop("$db", None), rest)


def snapshot(value: Any) -> Any:
    """A copy of a canonical value that shares only immutable parts."""
    kind = type(value)
    if kind is dict:
        return {name: snapshot(each) if type(each) in _CONTAINERS else each for name, each in value.items()}
    if kind is list:
        return [snapshot(each) if type(each) in _CONTAINERS else each for each in value]
    return value


_CONTAINERS: Final = frozenset({dict, list})

_NAMES: Final[dict[type, str]] = {
    dict: "object",
    list: "array",
    str: "string",
    Int64: "long",
    float: "double",
    bool: "bool",
    type(None): "null",
    dt.datetime: "date",
    DatetimeMS: "date",
    ObjectId: "objectId",
    bytes: "binData",
    Binary: "binData",
    Decimal128: "decimal",
    Regex: "regex",
    Timestamp: "timestamp",
    DBRef: "object",
    MinKey: "minKey",
    MaxKey: "maxKey",
}


def type_name(value: Any) -> str:
    """The `$type` alias of a canonical value."""
    kind = type(value)
    if kind is int:
        return "int" if -(2**31) <= value < 2**31 else "long"
    if kind is Code:
        return "javascript" if value.scope is None else "javascriptWithScope"
    return _NAMES.get(kind, "unknown")
