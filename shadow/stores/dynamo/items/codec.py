"""Document <-> item, without loss: a decoded document encodes to the same BSON bytes as the original.

An item in the wire form of the low-level client ({"S": ...}):

    _id              key text (see keys.py)
    <field>          the field in its natural form, so that people and other tools can read the table
    <index field>    its key text; omitted if it is null or missing (a range attribute then holds ~null, ~missing)
    _shadow          {b, r} version or {t} tombstone; o: id of the last operation;
                     h: hints; a: values that a key attribute cannot hold; z, g, n: see below
    _shadow_ttl      epoch seconds, on tombstones, and on documents that expire

Natural forms, which need no hint: string S, bool BOOL, null NULL, document M, list L, binary (subtype 0) B, int32 N,
and an integer outside int32 (Int64) N. Every other value has a hint, and so has a document whose fields are not in the
order of their names (`_id` first). Hints are AttributeValues themselves, shaped like the value they describe:

    {"S": code}      d double, l Int64 within int32, D decimal (with its text if N would lose it: D1.50), t date,
                     m date outside Python's range (N of milliseconds), o ObjectId, b<subtype> binary,
                     /<flags> regular expression, T timestamp, - MinKey, + MaxKey, j code without scope,
                     $ a BSON document {"": value} as B: any value without another form;
                     of index attributes: k the key text decodes to the value, K the value is in _shadow.a,
                     x the field is missing and the attribute exists only for the index
    {"S": "*" code}  a list or document whose leaves all have this code
    {"B": order}     a document: the position of each field's name among the sorted names (2 bytes each over 255)
    {"M": hints}     a document or list: hints by name or position; "~" is the order, "*" the hint of every list
                     element; names that begin with ~ are escaped with one more ~
    {"L": [hint]}    a DBRef, written as the document that it is in BSON

A document that does not fit into an item (over 400 KB, with field names that DynamoDB rejects, or with BSON that the
driver's values cannot represent: see `model.stored`) keeps its index attributes and stores its BSON, compressed, in
`_shadow.z`; if that is still too large, in n parts of generation g (see writes.py).

Rules of DynamoDB used here (Developer Guide, "Constraints" and "Item sizes and formats"): 38 digits between 1e-130 and
9.99e125, 32 levels, attribute names of 1 to 65,535 bytes, 409,600 bytes an item.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import ObjectId
from bson.errors import BSONError
from pymongo.errors import DocumentTooLarge

from shadow.errors import UnreadableDocument
from shadow.model.schema import CollectionSpec
from shadow.model.stored import NO_VERSION, Damaged, RawDocument, check_readable, document_of
from shadow.model.version import TOMBSTONE_LIFETIME, Document, Image, Key, State, Tombstone, Unknown, Version, fresh_id
from shadow.mongoql.expiry import delete_after
from shadow.stores.dynamo.client.limits import ITEM_LIMIT, NAME_LIMIT
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.values import (
    Attribute,
    Item,
    decode_value,
    encode_value,
    escaped,
    item_size,
    map_hint,
    octets,
    opened,
    ordered_names,
    unescaped,
)

__all__ = ["STAMP", "BodyParts", "Codec", "Encoded", "Item", "item_size", "whole"]

PART_BYTES: Final = 390_000
BSON_LIMIT: Final = 16 * 1024 * 1024
_SURELY_FITS: Final = 65_536
"""BSON of this length never makes an item over the limit: no value grows to more than five times its BSON."""

STAMP: Final = ("b", "r", "t", "a")
"""The parts of the reserved attribute that hold the state, and the key where its text is not exact."""
_ABSENT: Final[Attribute] = {"S": "x"}
_NO_STAMP: Final[dict[str, Any]] = {}
_NO_BIRTH: Final[Attribute] = {"S": ""}
_NO_REVISION: Final[Attribute] = {"N": "0"}

_MOST_BYTES: Final = BSON_LIMIT + 65_536
"""The most bytes of an unpacked document: MongoDB's own limit, and some room."""
_MOST_PARTS: Final = _MOST_BYTES // PART_BYTES + 2

_NO_VALUE: Final = "an attribute that cannot be decoded"
_NO_HINTS: Final = "hints that cannot be decoded"
_NO_BODY: Final = "a body that is missing or damaged"
_NO_KEY: Final = "a key that is not a key text"

_FAULTS: Final = (
    ArithmeticError,
    AttributeError,
    BSONError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What decoding an item may raise after a manual edit."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image as it is stored: the item under its key, and the parts of a document that does not fit into one item."""

    item: Item
    generation: str = ""
    parts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class BodyParts:
    """Where the body of a large document is stored: parts 0 to count - 1 of one generation, written by `head`."""

    head: str
    generation: str
    count: int

    @property
    def keys(self) -> list[str]:
        return [keys.part_key(self.head, self.generation, number) for number in range(self.count)]


class Codec:
    """The codec of one collection. Pure; safe to share."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.reserved = spec.reserved
        self.ttl = f"{spec.reserved}_ttl"
        self.expiry: Final = spec.expiry
        ranges = {index.range for index in spec.indexes if index.range is not None}
        self.composites: Final = {index.hash: index.fields for index in spec.indexes if index.fields}
        self.limits: Final = keys.key_limits(spec.indexes)
        self.ranges: Final = frozenset(ranges)
        self._own = frozenset({self.reserved, self.ttl, *self.composites})
        self._refused = frozenset({"", *self._own})

    def encode(self, key_text: str, state: State, document: Document | None, op_id: str) -> Encoded:
        """The item of an image. Raises `DocumentTooLarge` over MongoDB's 16 MB, `UnreadableDocument` for a document
        that cannot be read completely, and what `bson.encode` raises."""
        if document is None:
            return Encoded(self._tombstone(key_text, state, op_id))
        check_readable(document)
        raw = bson.encode(document)
        if len(raw) > BSON_LIMIT:
            raise DocumentTooLarge(f"the document has {len(raw)} bytes of BSON; the limit is {BSON_LIMIT}")
        natural = self._natural(key_text, state, document, op_id)
        if natural is not None and (len(raw) <= _SURELY_FITS or item_size(natural) <= ITEM_LIMIT):
            return Encoded(natural)
        return self._packed(key_text, state, document, op_id, zlib.compress(raw, 6))

    def natural_size(self, key_text: str, state: State, document: Document, op_id: str) -> int | None:
        """The size in bytes of the item with one attribute per field, even if it is over the limit; None if there is no
        such item. Raises what `bson.encode` raises."""
        natural = self._natural(key_text, state, document, op_id)
        return None if natural is None else item_size(natural)

    @staticmethod
    def is_large(document: Document) -> bool:
        """Whether encoding takes too long for the event loop."""
        return len(bson.encode(document)) > _SURELY_FITS * 4

    def _tombstone(self, key_text: str, state: State, op_id: str) -> Item:
        expires = int(time.time() + TOMBSTONE_LIFETIME.total_seconds())
        return {
            "_id": {"S": key_text},
            self.reserved: {"M": _stamp(state, op_id)},
            self.ttl: {"N": str(expires)},
        }

    def _natural(self, key_text: str, state: State, document: Document, op_id: str) -> Item | None:
        """The item with one attribute per field; None if a field has a name that no attribute can have, or a value that
        no attribute can represent."""
        if isinstance(document, RawDocument):
            return None  # its values do not represent all of it
        item: Item = {"_id": {"S": key_text}}
        hints: dict[str, Attribute] = {}
        aside: dict[str, Attribute] = {}
        for name, value in document.items():
            if name in self._refused or (len(name) > 9999 and len(name.encode()) > NAME_LIMIT):
                return None
            if name == "_id" or name in self.limits:
                attribute, hint = self._key_attribute(name, value, aside)
            else:
                attribute, hint = encode_value(value, 1)
            if attribute is not None and name != "_id":
                item[name] = attribute
            if hint is not None:
                hints[escaped(name)] = hint
        self._add_composites(item, document)
        hints.update(dict.fromkeys(map(escaped, self._add_missing(item, document)), _ABSENT))
        shadow = _stamp(state, op_id)
        whole = map_hint(list(document), hints)
        if whole is not None:
            shadow["h"] = whole
        if aside:
            shadow["a"] = {"M": aside}
        item[self.reserved] = {"M": shadow}
        self._add_expiry(item, document)
        return item

    def _add_expiry(self, item: Item, document: Document) -> None:
        at = None if self.expiry is None else delete_after(self.expiry, document)
        if at is not None:
            item[self.ttl] = {"N": str(at)}

    def _key_attribute(
        self, name: str, value: Any, aside: dict[str, Attribute]
    ) -> tuple[Attribute | None, Attribute | None]:
        """The attribute and hint of a key field; a value that its text does not represent goes into `aside`."""
        text, exact = self._index_text(name, value)
        if not exact:
            attribute, hint = encode_value(value, 3)
            aside[name] = {"L": [attribute] if hint is None else [attribute, hint]}
            return None if text is None else {"S": text}, {"S": "K"}
        if name == "_id":
            return None, None
        if type(value) is ObjectId:
            return {"S": str(text)}, {"S": "o"}
        return {"S": str(text)}, None if text == value else {"S": "k"}

    def _index_text(self, name: str, value: Any) -> tuple[str | None, bool]:
        if name == "_id":
            return keys.text_and_exactness(value)
        if type(value) is list:
            return keys.ARRAY, False
        if value is None and name not in self.ranges:
            return None, False
        return keys.text_and_exactness(value, self.limits[name])

    def _add_missing(self, item: Item, document: Document) -> list[str]:
        missing = [name for name in self.ranges if name not in document]
        item.update((name, {"S": keys.MISSING}) for name in missing)
        return missing

    def _add_composites(self, item: Item, document: Document) -> None:
        for name, fields in self.composites.items():
            text = _joined_text(document, fields)
            if text is not None:
                item[name] = {"S": text}

    def _packed(self, key_text: str, state: State, document: Document, op_id: str, body: bytes) -> Encoded:
        item: Item = {"_id": {"S": key_text}}
        for name in self.limits:
            text = self._index_text(name, document[name])[0] if name in document else None
            if text is not None:
                item[name] = {"S": text}
        self._add_missing(item, document)
        self._add_composites(item, document)
        self._add_expiry(item, document)
        shadow = _stamp(state, op_id)
        item[self.reserved] = {"M": shadow}
        shadow["z"] = {"B": body}
        if item_size(item) <= ITEM_LIMIT:
            return Encoded(item)
        del shadow["z"]
        parts = tuple(body[i : i + PART_BYTES] for i in range(0, len(body), PART_BYTES))
        generation = fresh_id()
        shadow["g"] = {"S": generation}
        shadow["n"] = {"N": str(len(parts))}
        return Encoded(item, generation, parts)

    def is_indexed(self, item: Item, image: Image) -> bool:
        """Whether the item of a document has the index attributes that this codec would write."""
        document = image.document or {}
        if self.expiry is not None:
            at = delete_after(self.expiry, document)
            if item.get(self.ttl) != (None if at is None else {"N": str(at)}):
                return False
        for name in self.limits:
            text = self._index_text(name, document[name])[0] if name in document else None
            if name not in document and name in self.ranges:
                text = keys.MISSING
            if item.get(name) != (None if text is None else {"S": text}):
                return False
        texts = {name: _joined_text(document, fields) for name, fields in self.composites.items()}
        return all(item.get(name) == (None if text is None else {"S": text}) for name, text in texts.items())

    def state(self, item: Item) -> State:
        """The version or tombstone of an item; `Unknown` for a stamp that no codec wrote."""
        stamp = item.get(self.reserved, _NO_STAMP).get("M", _NO_STAMP)
        if "t" in stamp:
            tombstone = stamp["t"].get("S")
            return _unknown(item[self.reserved]) if tombstone is None else Tombstone(tombstone)
        born, rev = stamp.get("b", _NO_BIRTH).get("S"), stamp.get("r", _NO_REVISION).get("N", "")
        if born is None or not rev.removeprefix("-").isdecimal():
            return _unknown(item[self.reserved])
        return Version(born, int(rev))

    def op_id(self, item: Item) -> str:
        """The id of the operation that last wrote the item; "" if shadow did not write it."""
        return str(item.get(self.reserved, {}).get("M", {}).get("o", {}).get("S", ""))

    def is_auxiliary(self, item: Item) -> bool:
        """Whether an item is neither a document nor a tombstone: a part, or a uniqueness item."""
        return "k" in item.get(self.reserved, {}).get("M", {})

    def parts(self, item: Item) -> BodyParts | None:
        """Where the body is stored, if the item is only the head of a large document; None also if it does not say."""
        shadow = item.get(self.reserved, {}).get("M", {})
        generation, count = self.generation(item), str(shadow.get("n", {}).get("N", ""))
        # More parts than the largest document can have were never written.
        if generation is None or not count.isdecimal() or not 0 < int(count) <= _MOST_PARTS:
            return None
        return BodyParts(item["_id"]["S"], generation, int(count))

    def generation(self, item: Item) -> str | None:
        """The generation of the parts of its body, if it has such a body."""
        generation = item.get(self.reserved, {}).get("M", {}).get("g", {}).get("S")
        return None if generation is None else str(generation)

    def key(self, item: Item) -> tuple[Key, str]:
        """The key of an item, and ""; or the text of the key, and why the key cannot be decoded."""
        text = item["_id"].get("S")
        aside = item.get(self.reserved, {}).get("M", {}).get("a", {}).get("M", {})
        if text is not None and text[:1] != "~" and "_id" not in aside:
            return keys.decode_key(text), ""
        try:
            value = decode_value(*aside["_id"]["L"]) if "_id" in aside else _key_value(item["_id"])
            if keys.key_text(value) == text:
                return value, ""
        except _FAULTS:
            pass
        return str(text), _NO_KEY

    def stamp(self, item: Item) -> Image:
        """Only the key and the state of an item: an image whose document contains only `_id`."""
        state = self.state(item)
        if self._is_tombstone(item):
            return Image(state)
        key, fault = self.key(item)
        return Image(state, Damaged({"_id": key}, {"_id": fault}) if fault else {"_id": key})

    def _is_tombstone(self, item: Item) -> bool:
        """Whether an item is a tombstone, readable or not: reads hide it."""
        return "t" in item.get(self.reserved, {}).get("M", {})

    def decode(self, item: Item, body: bytes | None = None) -> Image:
        """The image in an item; `body` is the joined parts if `parts` reports some. An item that a manual edit
        has made unreadable is a `Damaged` document, with the readable fields."""
        state = self.state(item)
        if self._is_tombstone(item):
            return Image(state)
        shadow = item.get(self.reserved, {}).get("M", {})
        packed = body if body is not None else shadow.get("z", {}).get("B")
        try:
            if packed is not None:
                return Image(state, self._with_key(item, document_of(_unpacked(octets(packed)))))
            if "g" not in shadow and "z" not in shadow:
                return Image(state, self._document(item, shadow))
        except _FAULTS:
            return Image(state, self._damaged(item, shadow, packed=packed is not None))
        return self.damaged(item, _NO_BODY)

    def _with_key(self, item: Item, document: Document) -> Document:
        """Adds the key to a document that cannot be read completely."""
        if not isinstance(document, Damaged) or "_id" in document:
            return document
        return Damaged({"_id": self.key(item)[0], **document}, document.faults, document.raw)

    def damaged(self, item: Item, reason: str) -> Image:
        """The image of an item of which only the key is readable."""
        return Image(self.state(item), Damaged({"_id": self.key(item)[0]}, {"": reason}))

    def _damaged(self, item: Item, shadow: Mapping[str, Attribute], *, packed: bool) -> Damaged:
        """Decoded field by field, so that an unreadable field does not hide the others."""
        key, fault = self.key(item)
        values: Document = {"_id": key}
        faults = {"_id": fault} if fault else {}
        try:
            hints, _ = opened(shadow.get("h"))
            aside = shadow["a"]["M"] if "a" in shadow else {}
            absent = {unescaped(name) for name, hint in hints.items() if hint == _ABSENT}
        except _FAULTS:
            return Damaged(values, {**faults, "": _NO_HINTS})
        if packed:
            return Damaged(values, {**faults, "": _NO_BODY})
        for name in sorted({*item, *aside} - self._own - absent - {"_id"}):
            try:
                values[name] = self._field(name, item, aside, hints)
            except _FAULTS:
                faults[name] = _NO_VALUE
        return Damaged(values, faults or {"": _NO_HINTS})

    def _document(self, item: Item, shadow: Mapping[str, Attribute]) -> Document:
        hints, order = opened(shadow.get("h"))
        aside = shadow["a"]["M"] if "a" in shadow else {}
        names = {*item, *aside} - self._own
        names.difference_update(unescaped(name) for name, hint in hints.items() if hint == _ABSENT)
        document: Document = {}
        for name in ordered_names(names, order):
            if name in aside or name == "_id":
                text = item[name].get("S") if name == "_id" and not aside else None
                if text is not None and text[:1] != "~":
                    document[name] = keys.decode_key(text)
                else:
                    document[name] = self._field(name, item, aside, hints)
            else:
                attribute = item[name]
                hint = hints.get(escaped(name)) if hints else None
                # Most fields are strings, which need no hint.
                plain = attribute.get("S") if hint is None else None
                document[name] = decode_value(attribute, hint) if plain is None else plain
        return document

    def _field(self, name: str, item: Item, aside: Mapping[str, Attribute], hints: Mapping[str, Attribute]) -> Any:
        """One field. Raises one of `_FAULTS` for an attribute that no codec wrote."""
        if name != "_id":
            return (
                decode_value(*aside[name]["L"]) if name in aside else decode_value(item[name], hints.get(escaped(name)))
            )
        key, fault = self.key(item)
        if fault:
            raise ValueError(fault)
        return key


def whole(image: Image) -> Document:
    """The document of an image that has one."""
    assert image.document is not None
    return image.document


def _unpacked(body: bytes) -> bytes:
    """Raises if `raw` is not a compressed document, or (before unpacking all of it) if it exceeds MongoDB's limit."""
    unpacking = zlib.decompressobj()
    raw = unpacking.decompress(body, _MOST_BYTES)
    if not unpacking.eof:
        raise ValueError("a body that does not end")
    return raw


def _unknown(stamp: Attribute) -> Unknown:
    """The state, from the parts that every read has, even a read of the stamp alone."""
    parts = {name: stamp["M"][name] for name in ("b", "r", "t") if name in stamp["M"]}
    return Unknown(hashlib.sha256(json.dumps(parts, sort_keys=True, default=bytes.hex).encode()).hexdigest()[:32])


def _joined_text(document: Document, fields: Sequence[str]) -> str | None:
    """The entry of an index over several fields; None if one of the fields is null or missing."""
    values = [document.get(name) for name in fields]
    if any(value is None for value in values):
        return None
    if any(type(value) is list for value in values):
        return keys.ARRAY
    return keys.joined([keys.key_text(value) for value in values])


def _key_value(attribute: Attribute) -> Any:
    text = attribute.get("S")
    return keys.decode_key(text) if text is not None else decode_value(attribute)


def _stamp(state: State, op_id: str) -> dict[str, Attribute]:
    """{b, r} or {t}, and o. Parts with their default value are omitted, so that an unstamped document and one
    with a default stamp have the same state."""
    stamp: dict[str, Attribute] = {}
    if isinstance(state, Unknown):
        raise UnreadableDocument(NO_VERSION)
    if isinstance(state, Tombstone):
        stamp["t"] = {"S": state.id}
    elif isinstance(state, Version):
        if state.born:
            stamp["b"] = {"S": state.born}
        if state.rev:
            stamp["r"] = {"N": str(state.rev)}
    if op_id:
        stamp["o"] = {"S": op_id}
    return stamp
