"""Documents that Python's values do not fully represent.

The driver decodes BSON into values that cannot always be encoded to the same bytes again: of a duplicate name it keeps
the last, undefined becomes None, a symbol becomes a string. Two documents compared by such values could wrongly be
called equal, and a copy would silently change them. So what comes from MongoDB is encoded again, which costs about a
microsecond; if the bytes are not those that were read, the document keeps them (`RawDocument`), and is compared and
copied by them.

    RawDocument   reads like the driver's document, and is encoded as it is stored
    Damaged       cannot be read as a whole; equals nothing, is never copied and never the basis of a change

BSON's layout is that of bsonspec.org, version 1.1.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import Timestamp
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.errors import BSONError, InvalidBSON
from bson.raw_bson import RawBSONDocument

from shadow.errors import UnreadableDocument, UnsupportedOperation
from shadow.model import version
from shadow.model.values import CANONICAL
from shadow.model.version import Document, Image, Key, Unknown, Version

__all__ = [
    "CANNOT_READ",
    "EMPTY",
    "NO_UTF8",
    "NO_VERSION",
    "RAW",
    "Damaged",
    "Oddity",
    "RawDocument",
    "check_copyable",
    "check_readable",
    "document_of",
    "element_document",
    "elements",
    "encoded",
    "exact_value",
    "is_copyable",
    "is_readable",
    "key_of",
    "oddities",
    "split",
    "taken_in",
    "unreadable_in",
    "with_field",
    "with_id",
    "with_time",
    "without",
]


class _Reply(RawBSONDocument):
    """PyMongo adds the error labels to the server's answer (helpers_shared.py, `_check_command_response`) and retries
    such a write; that fails if the answer is an immutable document."""

    __slots__ = ()

    def update(self, more: Mapping[str, Any]) -> None:
        self.__init__(bson.encode({**self, **more}), RAW)  # type: ignore[misc]


RAW: Final[CodecOptions[Any]] = CANONICAL.with_options(document_class=_Reply)
"""Decodes to documents that keep their bytes."""

_ENCODED_AS_IT_IS: Final = 101
"""PyMongo's marker of a document that is encoded by its `raw` (bson/raw_bson.py, `_RAW_BSON_DOCUMENT_MARKER`)."""

NO_UTF8: Final = "text that is not UTF-8"
CANNOT_READ: Final = "a value that the driver cannot read"
NO_VERSION: Final = "a version that shadow has not written"

_FAULTS: Final = (BSONError, ValueError, TypeError, OverflowError, RecursionError)
"""The errors of decoding a document."""


class RawDocument(dict[str, Any]):
    """The driver's values of a document, and the BSON as which it is encoded. Treat it as immutable."""

    __slots__ = ("raw",)
    _type_marker: Final = _ENCODED_AS_IT_IS

    def __init__(self, values: Mapping[str, Any] = {}, raw: bytes = b"") -> None:
        super().__init__(values)
        self.raw = raw

    def presented(self, options: CodecOptions[Any] | None) -> Any:
        """As the driver would return it to the application."""
        return _inside(self.raw, options)


class Damaged(dict[str, Any]):
    """The readable fields of a document that cannot be read as a whole. `faults`: the reasons by top-level name; "" if
    it is not about a field. `raw`: its BSON, or empty if it is not BSON. Treat it as immutable."""

    __slots__ = ("faults", "raw")

    def __init__(self, values: Mapping[str, Any] = {}, faults: Mapping[str, str] = {}, raw: bytes = b"") -> None:
        super().__init__(values)
        self.faults = dict(faults)
        self.raw = raw

    @property
    def reason(self) -> str:
        """Why it cannot be read, without any of its content."""
        return ", ".join(dict.fromkeys(self.faults.values())) or CANNOT_READ

    def presented(self, options: CodecOptions[Any] | None) -> Any:
        """As the driver would return it to the application, which may have options to read it. Raises
        `bson.errors.InvalidBSON` like the driver, or its subclass `UnreadableDocument` if there is no BSON."""
        if self.raw:
            return _inside(self.raw, options)
        raise UnreadableDocument(self.reason)


def _inside(raw: bytes, options: CodecOptions[Any] | None) -> Any:
    """A document as the driver decodes it inside its server's reply: there it may be a DBRef."""
    return bson.decode(_wrapped(3, b"", raw), codec_options=options or DEFAULT_CODEC_OPTIONS)[""]


def taken_in(document: Mapping[str, Any], options: CodecOptions[Any] | None) -> Document:
    """A document of the application as MongoDB would store it. Raises the encoding errors of `bson.errors`, such as
    `InvalidDocument`, and `UnsupportedOperation` for an `_id` that no query could name."""
    given = bson.encode(document) if options is None else bson.encode(document, codec_options=options)
    whole = document_of(given)
    check_readable(whole)
    if isinstance(whole, RawDocument) and "_id" in whole:
        fault = key_of(RawBSONDocument(given))[1]
        if fault:
            raise UnsupportedOperation("_id", f"it is {fault}", hint="give it another `_id`")
    return whole


def exact_value(update: Any, options: CodecOptions[Any] | None) -> Any:
    """An update as MongoDB would read it. Raises the encoding errors of `bson.errors`, such as `InvalidDocument`, and
    `UnsupportedOperation` if the driver's values do not represent all of it, because its effect is then unknown."""
    given = {"": update}
    found = document_of(bson.encode(given) if options is None else bson.encode(given, codec_options=options))
    if type(found) is dict:
        return found[""]
    kinds = ", ".join(sorted({each.kind for each in oddities(found.raw)} if isinstance(found, RawDocument) else {}))
    raise UnsupportedOperation("update", f"it has {kinds or CANNOT_READ}", hint="give a bson.DBRef, and plain values")


def with_id(document: Document, key: Key) -> Document:
    """`document` with its `_id`, or else with `key`, as its first field, where MongoDB stores it."""
    if type(document) is dict and next(iter(document), "") == "_id":
        return dict(document)
    if not isinstance(document, RawDocument):
        return {"_id": document.get("_id", key), **{name: each for name, each in document.items() if name != "_id"}}
    alone = element_document(document.raw, "_id", "_id") or bson.encode({"_id": key})
    return document_of(_joined([alone[4:-1], without(document.raw, "_id")[4:-1]]))


def with_time(document: Document) -> Document:
    """`document`, about to be inserted or to replace another, with this host's time in its empty timestamps.

    The server fills in `Timestamp(0, 0)` in the top-level fields of inserts and replacements (upserts included), except
    `_id`, and nowhere else (MongoDB 6.0.5, by trial; manual, "BSON Types: Timestamps"). shadow does it above both
    stores, so that both hold the same time. Timestamps within one second differ and increase.
    """
    empty = [name for name, value in document.items() if type(value) is Timestamp and value == EMPTY and name != "_id"]
    for name in empty:
        now = Timestamp(int(time.time()), next(_TICKS) % _MOST_TICKS + 1)
        if isinstance(document, RawDocument):
            document = document_of(with_value(document.raw, name, now))
        else:
            document[name] = now
    return document


EMPTY: Final = Timestamp(0, 0)
_MOST_TICKS: Final = 2**32 - 1
_TICKS: Final = itertools.count(secrets.randbelow(2**31))


# --- reading ----------------------------------------------------------------------------------------------------


def document_of(raw: bytes) -> Document:
    """The document in `raw`: a plain one if its values represent everything."""
    try:
        values = bson.decode(raw, codec_options=CANONICAL)
        # Inside another document no field is moved to the front, as a top-level `_id` would be.
        again = bson.encode({"": values})
    except _FAULTS:
        return _damaged(raw)
    return values if again.startswith(raw, _BEFORE) else RawDocument(values, raw)


_BEFORE: Final = 6
"""Bytes before the inner document: the length, a type and an empty name."""


def split(raw: Mapping[str, Any], reserved: str) -> Image:
    """`model.version.split` for documents decoded with `RAW`; others are used as they are."""
    if type(raw) is not _Reply and type(raw) is not RawBSONDocument:
        return version.split(raw, reserved)
    document = document_of(bytes(raw.raw))
    return version.split_own(document, reserved) if type(document) is dict else _split_odd(bytes(raw.raw), reserved)


def _split_odd(raw: bytes, reserved: str) -> Image:
    body = document_of(without(raw, reserved))
    stamp = element_document(raw, reserved, "")
    if stamp is None:
        return Image(Version("", 0), body)
    read = document_of(stamp)
    if isinstance(read, Damaged):
        return Image(Unknown(hashlib.sha256(stamp).hexdigest()[:32]), body)
    found = version.split({reserved: read[""]}, reserved)
    return found if found.document is None else Image(found.state, body)


def key_of(raw: RawBSONDocument) -> tuple[Key, str]:
    """The `_id` of a stored document and "", or a digest of it and the reason why no query can name it."""
    alone = element_document(bytes(raw.raw), "_id", "_id")
    if alone is None:
        return None, CANNOT_READ
    document = document_of(alone)
    if type(document) is dict:
        return document["_id"], ""
    if isinstance(document.get("_id"), str):
        return document["_id"], ""  # this also finds a symbol, which the server compares as a string
    kinds = ", ".join(sorted({each.kind for each in oddities(alone)}))
    reason = f"of {document.reason}" if isinstance(document, Damaged) else f"with {kinds}"
    return hashlib.sha256(alone).hexdigest()[:32], f"a key {reason}"


def is_readable(document: Document | None) -> bool:
    """Whether there is no document or it can be read as a whole."""
    return not isinstance(document, Damaged)


def check_readable(document: object) -> None:
    """Raises `UnreadableDocument` for a document that cannot be read as a whole: it must not be copied or changed."""
    if isinstance(document, Damaged):
        raise UnreadableDocument(document.reason)


def check_copyable(image: Image) -> None:
    """Raises `UnreadableDocument` for an image that cannot be read as a whole, version included: it could not be copied
    exactly, and it is not a deletion."""
    check_readable(image.document)
    if isinstance(image.state, Unknown):
        raise UnreadableDocument(NO_VERSION)


def is_copyable(image: Image) -> bool:
    """Whether `check_copyable` accepts an image."""
    return is_readable(image.document) and not isinstance(image.state, Unknown)


def encoded(document: Document) -> bytes:
    """The BSON of a document in its own field order. Raises `UnreadableDocument` for a `Damaged` one."""
    check_readable(document)
    return document.raw if isinstance(document, RawDocument) else bson.encode({"": document})[_BEFORE:-1]


def _damaged(raw: bytes) -> Damaged:
    """Decodes field by field, so that an unreadable field hides no other."""
    values: Document = {}
    faults: dict[str, str] = {}
    try:
        for kind, name, value in elements(raw):
            text = name.decode("utf-8", "replace")
            try:
                values.update(bson.decode(_wrapped(kind, name, value), codec_options=CANONICAL))
            except _FAULTS as error:
                faults[text] = _reason(error)
    except (InvalidBSON, struct.error, ValueError, IndexError):
        faults[""] = CANNOT_READ
    return Damaged(values, faults or {"": CANNOT_READ}, raw)


def _reason(error: Exception) -> str:
    return NO_UTF8 if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error) else CANNOT_READ


# --- bytes ------------------------------------------------------------------------------------------------------

_FIXED: Final = {1: 8, 6: 0, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8, 19: 16, 255: 0, 127: 0}
"""Lengths of fixed-length values, by type."""
_COUNTED: Final = {2: 4, 3: 0, 4: 0, 5: 5, 12: 16, 13: 4, 14: 4, 15: 0}
"""For values that begin with a length: the number of bytes that it does not count."""


def elements(raw: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Type, name and value of each top-level field. Raises `InvalidBSON` for malformed BSON."""
    place, end = 4, len(raw) - 1
    while place < end:
        kind = raw[place]
        name_end = raw.index(0, place + 1)
        start = name_end + 1
        stop = start + _length(kind, raw, start)
        if stop > end:
            raise InvalidBSON("a value extends past the end of its document")
        yield kind, raw[place + 1 : name_end], raw[start:stop]
        place = stop


def _length(kind: int, raw: bytes, start: int) -> int:
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _COUNTED:
        length: int = struct.unpack_from("<i", raw, start)[0]
        if length < 0:
            raise InvalidBSON("a negative length")
        return length + _COUNTED[kind]
    if kind == 11:
        return raw.index(0, raw.index(0, start) + 1) + 1 - start
    raise InvalidBSON("an unknown type")


def _wrapped(kind: int, name: bytes, value: bytes) -> bytes:
    """A document of one field."""
    body = bytes((kind,)) + name + b"\0" + value + b"\0"
    return struct.pack("<i", len(body) + 4) + body


def element_document(raw: bytes, name: str, called: str) -> bytes | None:
    """A document with one top-level field of `raw` under the name `called`; None if there is no such field."""
    wanted = name.encode()
    found = ((kind, value) for kind, each, value in _elements_of(raw) if each == wanted)
    return next((_wrapped(kind, called.encode(), value) for kind, value in found), None)


def without(raw: bytes, name: str) -> bytes:
    """`raw` without a top-level field."""
    wanted = name.encode()
    kept = [_wrapped(kind, each, value)[4:-1] for kind, each, value in _elements_of(raw) if each != wanted]
    return _joined(kept)


def with_value(raw: bytes, name: str, value: Any) -> bytes:
    """`raw` with another value in each top-level field of this name."""
    wanted, new = name.encode(), bson.encode({name: value})[4:-1]
    return _joined(
        [new if each == wanted else _wrapped(kind, each, old)[4:-1] for kind, each, old in _elements_of(raw)]
    )


def with_field(raw: bytes, name: str, value: Any) -> bytes:
    """`raw` with one more field at its end."""
    return _joined([raw[4:-1], bson.encode({name: value})[4:-1]])


def _joined(parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _elements_of(raw: bytes) -> list[tuple[int, bytes, bytes]]:
    """The fields that can be parsed."""
    found: list[tuple[int, bytes, bytes]] = []
    with contextlib.suppress(InvalidBSON, struct.error, ValueError, IndexError):
        found.extend(elements(raw))
    return found


# --- oddities ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Oddity:
    """A place in a document that Python's values do not represent: a dotted path, and what is odd there."""

    path: str
    kind: str


_OBSOLETE: Final = {6: "undefined", 12: "a DBPointer", 14: "a symbol"}
_FLAGS: Final = b"ilmsux"
"""Of regular expressions, in the order in which the driver writes them."""


def oddities(raw: bytes) -> list[Oddity]:
    """What the driver's values would lose of a readable document, by place; the first of each."""
    return list(dict.fromkeys(_odd(raw, "", is_list=False)))


def _odd(raw: bytes, path: str, *, is_list: bool) -> Iterator[Oddity]:
    fields = _elements_of(raw)
    names = [name for _, name, _ in fields]
    if is_list and names != [b"%d" % place for place in range(len(names))]:
        yield Oddity(path, "an array whose names are not its positions")
    elif not is_list and len(set(names)) != len(names):
        yield Oddity(path, "a name given twice")
    if not is_list and _is_moved_reference(fields):
        yield Oddity(path, "a DBRef in another order")
    for kind, name, value in fields:
        inner = f"{path}.{name.decode('utf-8', 'replace')}".lstrip(".")
        if kind in _OBSOLETE:
            yield Oddity(inner, _OBSOLETE[kind])
        elif kind in (3, 4):
            yield from _odd(value, inner, is_list=kind == 4)
        elif kind == 11:
            flags = value.split(b"\0")[1]
            if flags != bytes(each for each in _FLAGS if each in flags):
                yield Oddity(inner, "flags of a regular expression")
        elif kind == 15:
            (length,) = struct.unpack_from("<i", value, 4)
            yield from _odd(value[8 + length :], inner, is_list=False)


def _is_moved_reference(fields: list[tuple[int, bytes, bytes]]) -> bool:
    names = [name for _, name, _ in fields]
    if b"$ref" not in names or b"$id" not in names or fields[names.index(b"$ref")][0] != 2:
        return False
    wanted = [b"$ref", b"$id", *([b"$db"] if b"$db" in names else [])]
    return names[: len(wanted)] != wanted


def unreadable_in(raw: bytes) -> list[Oddity]:
    """What makes a document unreadable, by top-level field."""
    document = document_of(raw)
    return [Oddity(name, why) for name, why in document.faults.items()] if isinstance(document, Damaged) else []
