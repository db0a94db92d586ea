"""Document <-> item, without loss: what is decoded encodes to the same BSON bytes as what was encoded.

An item in the wire form of the low-level client ({"S": ...}):

    _id              key text (see keys.py)
    <field>          the field in its natural form, so that people and other tools can read the table
    <index field>    its key text; left out if it is null or missing (a range attribute says ~null, ~missing)
    _shadow          {b, r} version or {t} tombstone; o: id of the last operation;
                     h: hints; a: values that a key attribute cannot hold; z, g, n: see below
    _shadow_ttl      epoch seconds, on tombstones only

Natural forms, which need no hint: string S, bool BOOL, null NULL, document M, list L, binary (subtype 0) B, int32 N,
and an integer outside int32 (Int64) N. All else has a hint, and so has a document whose fields are not in the order of
their names (`_id` first). Hints are AttributeValues themselves, shaped like the value they belong to:

    {"S": code}      d double, l Int64 within int32, D decimal (with its text if N would lose it: D1.50), t date,
                     m date outside Python's range (N of milliseconds), o ObjectId, b<subtype> binary,
                     /<flags> regular expression, T timestamp, - MinKey, + MaxKey, j code without scope,
                     $ a BSON document {"": value} as B: whatever has no other form;
                     of index attributes: k the key text decodes to the value, K the value is in _shadow.a,
                     x the field is missing and the attribute is there for the index alone
    {"S": "*" code}  a list or document whose leaves all have this code
    {"B": order}     a document: for each field the place of its name among the sorted names (2 bytes each over 255)
    {"M": hints}     a document or list: hints by name or place; "~" is the order, "*" the hint of every list element,
                     names that begin with ~ have one more
    {"L": [hint]}    a DBRef, written as the document that it is in BSON

A document that no item can hold (over 400 KB, or with field names that DynamoDB refuses) keeps its index attributes
and has its BSON, compressed, in `_shadow.z`; if that is still too large, in n parts of generation g (see large.py).

Rules of DynamoDB used here (Developer Guide, "Constraints" and "Item sizes and formats"): 38 digits between 1e-130 and
9.99e125, 32 levels, attribute names of 1 to 65,535 bytes, 409,600 bytes an item.
"""

from __future__ import annotations

import datetime as dt
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

import bson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from pymongo.errors import DocumentTooLarge

from shadow.model.schema import CollectionSpec
from shadow.model.values import CANONICAL
from shadow.model.version import TOMBSTONE_LIFETIME, Document, Image, State, Tombstone, Version, fresh_id
from shadow.stores.dynamo import keys

__all__ = ["ITEM_LIMIT", "Codec", "Encoded", "Item", "Parts", "decode_value", "encode_value", "escaped", "item_size"]

Attribute: TypeAlias = dict[str, Any]
"""One AttributeValue in wire form, e.g. {"N": "5"}."""

Item: TypeAlias = dict[str, Attribute]

ITEM_LIMIT: Final = 409_600
PART_BYTES: Final = 390_000
BSON_LIMIT: Final = 16 * 1024 * 1024
_SURELY_FITS: Final = 65_536
"""BSON of this length never makes an item over the limit: no value grows to more than five times its BSON."""

_DEPTH: Final = 26
"""Containers deeper than this are written as BSON; hints lie up to five levels deeper than what they describe."""

_NAME_LIMIT: Final = 65_535
_PLAIN_DECIMAL: Final = re.compile(r"-?(0|[1-9]\d*[1-9]|[1-9]|(0|[1-9]\d*)\.\d*[1-9])")
_NULL: Final[Attribute] = {"NULL": True}
_BLOB: Final[Attribute] = {"S": "$"}
_ABSENT: Final[Attribute] = {"S": "x"}
_SIMPLE: Final = frozenset("dlto")

Pair: TypeAlias = tuple[Attribute, Attribute | None]
"""An attribute and its hint."""


# ---- values to attributes ----


def encode_value(value: Any, depth: int = 0) -> Pair:
    """The attribute of one BSON value, `depth` containers down, and its hint. Raises what `bson.encode` raises."""
    encoder = _ENCODERS.get(type(value))
    return encoder(value, depth) if encoder is not None else _encode_other(value, depth)


def _encode_other(value: Any, depth: int) -> Pair:
    """Subclasses, and types that only BSON knows: decided by what BSON makes of them."""
    if isinstance(value, Mapping):
        return _encode_map(value, depth)
    canonical = bson.decode(bson.encode({"": value}), codec_options=CANONICAL)[""]
    encoder = _ENCODERS.get(type(canonical))
    return encoder(canonical, depth) if encoder is not None else _blob(canonical, depth)


def _is_int32(value: int) -> bool:
    return -(2**31) <= value < 2**31


def _blob(value: Any, _depth: int = 0) -> Pair:
    return {"B": bson.encode({"": value})}, _BLOB


def _encode_int(value: int, _depth: int) -> Pair:
    if not -(2**63) <= value < 2**63:
        raise OverflowError("BSON can only handle up to 8-byte ints")
    return {"N": str(value)}, None


def _encode_int64(value: int, _depth: int) -> Pair:
    return {"N": str(int(value))}, {"S": "l"} if _is_int32(value) else None


def _encode_float(value: float, _depth: int) -> Pair:
    if 1e-130 <= abs(value) < 9.99e125:
        return {"N": repr(value)}, {"S": "d"}
    if value == 0 and str(value)[0] != "-":
        return {"N": "0"}, {"S": "d"}
    return _blob(value)


def _encode_decimal(value: Decimal128, _depth: int) -> Pair:
    text = str(value)
    number = value.to_decimal()
    fits = number.is_finite() and (not number or -130 <= number.adjusted() < 125) and Decimal128(text) == value
    if not fits:
        return _blob(value)
    exact = _PLAIN_DECIMAL.fullmatch(text) is not None and text != "-0"
    return {"N": text if number else "0"}, {"S": "D" if exact else f"D{text}"}


def _encode_datetime(value: dt.datetime, _depth: int) -> Pair:
    return {"S": keys.date_text(value)}, {"S": "t"}


def _encode_milliseconds(value: DatetimeMS, _depth: int) -> Pair:
    return {"N": str(int(value))}, {"S": "m"}


def _encode_binary(value: Binary, _depth: int) -> Pair:
    return {"B": bytes(value)}, {"S": f"b{value.subtype}"} if value.subtype else None


def _encode_regex(value: Regex[Any], depth: int) -> Pair:
    if isinstance(value.pattern, bytes):
        return _blob(value, depth)
    return {"S": value.pattern}, {"S": f"/{value.flags}"}


def _encode_code(value: Code, depth: int) -> Pair:
    return _blob(value, depth) if value.scope is not None else ({"S": str(value)}, {"S": "j"})


def _encode_dbref(value: DBRef, depth: int) -> Pair:
    if depth >= _DEPTH - 2:
        return _blob(value)
    attribute, hint = _encode_map(value.as_doc(), depth + 1)
    return (attribute, hint) if hint is _BLOB else (attribute, {"L": [hint or _NULL]})


def _encode_list(values: list[Any] | tuple[Any, ...], depth: int) -> Pair:
    if depth >= _DEPTH:
        return _blob(values)
    pairs = [encode_value(value, depth + 1) for value in values]
    attribute: Attribute = {"L": [attribute for attribute, _ in pairs]}
    hinted = [hint for _, hint in pairs if hint is not None]
    if not hinted:
        return attribute, None
    if len(hinted) == len(pairs):
        if code := _common_code(hinted):
            return attribute, {"S": f"*{code}"}
        if len(hinted) > 1 and all(hint == hinted[0] for hint in hinted):
            return attribute, {"M": {"*": hinted[0]}}
    return attribute, {"M": {str(i): hint for i, (_, hint) in enumerate(pairs) if hint is not None}}


def _encode_map(document: Mapping[str, Any], depth: int) -> Pair:
    if depth >= _DEPTH or not all(len(name) > 0 and len(name.encode()) <= _NAME_LIMIT for name in document):
        return _blob(document)
    attributes: dict[str, Attribute] = {}
    hints: dict[str, Attribute] = {}
    for name, value in document.items():
        attributes[name], hint = encode_value(value, depth + 1)
        if hint is not None:
            hints[escaped(name)] = hint
    return {"M": attributes}, _map_hint(list(document), hints)


def escaped(name: str) -> str:
    """The name under which a field's hint stands among the hints."""
    return f"~{name}" if name[0] == "~" else name


def _map_hint(names: list[str], hints: dict[str, Attribute]) -> Attribute | None:
    """The hint of a document with fields `names` in this order, given the hints of its fields."""
    order = _order(names)
    if order is not None:
        return {"M": {**hints, "~": {"B": order}}} if hints else {"B": order}
    if not hints:
        return None
    if len(hints) == len(names) and (code := _common_code(list(hints.values()))):
        return {"S": f"*{code}"}
    return {"M": hints}


def _common_code(hints: list[Attribute]) -> str | None:
    """The code that all leaves under these hints share, if there is one and it may be written once."""
    first = hints[0].get("S", "")
    code = first.removeprefix("*")
    return code if code in _SIMPLE and all(hint.get("S", "").removeprefix("*") == code for hint in hints) else None


def _by_name(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != "_id", name))


def _order(names: list[str]) -> bytes | None:
    """For each field the place of its name among the sorted names; None if it is the sorted order already."""
    ordered = _by_name(names)
    if ordered == names:
        return None
    places = {name: place for place, name in enumerate(ordered)}
    width = 1 if len(names) <= 255 else 2 if len(names) <= 65_535 else 3
    return b"".join(places[name].to_bytes(width, "big") for name in names)


_ENCODERS: Final[dict[type, Callable[[Any, int], Pair]]] = {
    str: lambda value, _depth: ({"S": value}, None),
    int: _encode_int,
    bool: lambda value, _depth: ({"BOOL": value}, None),
    type(None): lambda _value, _depth: (_NULL, None),
    dict: _encode_map,
    list: _encode_list,
    tuple: _encode_list,
    bytes: lambda value, _depth: ({"B": value}, None),
    float: _encode_float,
    Int64: _encode_int64,
    ObjectId: lambda value, _depth: ({"S": str(value)}, {"S": "o"}),
    dt.datetime: _encode_datetime,
    DatetimeMS: _encode_milliseconds,
    Decimal128: _encode_decimal,
    Binary: _encode_binary,
    Regex: _encode_regex,
    Timestamp: lambda value, _depth: ({"S": f"{value.time}:{value.inc}"}, {"S": "T"}),
    Code: _encode_code,
    DBRef: _encode_dbref,
    MinKey: lambda _value, _depth: (_NULL, {"S": "-"}),
    MaxKey: lambda _value, _depth: (_NULL, {"S": "+"}),
}


# ---- attributes to values ----


def decode_value(attribute: Attribute, hint: Attribute | None = None) -> Any:
    """The value of an attribute. Without a hint, what any writer may have put there (sets become lists)."""
    ((tag, raw),) = attribute.items()
    if hint is not None:
        return _decode_hinted(tag, raw, hint)
    match tag:
        case "S" | "BOOL":
            return raw
        case "N":
            return _decode_number(raw)
        case "M":
            return {name: decode_value(raw[name]) for name in _by_name(list(raw))}
        case "L":
            return [decode_value(element) for element in raw]
        case "B":
            return bytes(raw)
        case "NULL":
            return None
        case _:
            return [decode_value({tag[0]: element}) for element in raw]


def _decode_number(text: str) -> Any:
    """An N without a hint: an integer, unless another writer put something else there."""
    try:
        number = int(text)
    except ValueError:
        value = Decimal(text)
        if value != value.to_integral_value() or abs(value) >= 2**63:
            return float(text)
        number = int(value)
    if _is_int32(number):
        return number
    return Int64(number) if -(2**63) <= number < 2**63 else float(text)


def _decode_hinted(tag: str, raw: Any, hint: Attribute) -> Any:
    code = hint.get("S")
    if code is None:
        if "L" in hint:
            inner = hint["L"][0]
            document = decode_value({tag: raw}, None if "NULL" in inner else inner)
            return DBRef(document.pop("$ref"), document.pop("$id", None), document.pop("$db", None), document)
        return _decode_list(raw, hint["M"]) if tag == "L" else _decode_map(raw, hint)
    if code[0] == "*":
        return _decode_uniform(tag, raw, code)
    return _DECODERS[code[0]](raw, code[1:])


def _decode_uniform(tag: str, raw: Any, code: str) -> Any:
    decoder = _DECODERS[code[1]]

    def element(attribute: Attribute) -> Any:
        ((kind, value),) = attribute.items()
        return _decode_uniform(kind, value, code) if kind in "LM" else decoder(value, "")

    return [element(one) for one in raw] if tag == "L" else {name: element(raw[name]) for name in _by_name(list(raw))}


def _decode_list(raw: list[Attribute], hints: Mapping[str, Attribute]) -> list[Any]:
    every = hints.get("*")
    if every is not None:
        return [decode_value(element, every) for element in raw]
    return [decode_value(element, hints.get(str(i))) for i, element in enumerate(raw)]


def _decode_map(raw: Mapping[str, Attribute], hint: Attribute | None) -> Document:
    hints, order = _opened(hint)
    return {name: decode_value(raw[name], hints.get(escaped(name))) for name in _ordered(list(raw), order)}


def _opened(hint: Attribute | None) -> tuple[Mapping[str, Attribute], bytes | None]:
    if hint is None:
        return {}, None
    if "B" in hint:
        return {}, bytes(hint["B"])
    hints = hint["M"]
    order = hints.get("~")
    return hints, bytes(order["B"]) if order is not None else None


def _ordered(names: list[str], order: bytes | None) -> list[str]:
    """`names` in the order that was kept; sorted, if there is none or it belongs to other fields (a foreign writer
    has added or removed one)."""
    ordered = _by_name(names)
    if order is None:
        return ordered
    width = 1 if len(names) <= 255 else 2 if len(names) <= 65_535 else 3
    places = [int.from_bytes(order[i : i + width], "big") for i in range(0, len(order), width)]
    if len(places) != len(names) or any(place >= len(names) for place in places):
        return ordered
    return [ordered[place] for place in places]


def _unblob(raw: Any, _rest: str) -> Any:
    return bson.decode(bytes(raw), codec_options=CANONICAL)[""]


def _decode_timestamp(raw: str, _rest: str) -> Timestamp:
    seconds, _, increment = raw.partition(":")
    return Timestamp(int(seconds), int(increment))


_DECODERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "d": lambda raw, _rest: float(raw),
    "l": lambda raw, _rest: Int64(int(raw)),
    "D": lambda raw, rest: Decimal128(rest or raw),
    "t": lambda raw, _rest: keys.date_of(raw),
    "m": lambda raw, _rest: DatetimeMS(int(raw)),
    "o": lambda raw, _rest: ObjectId(raw),
    "b": lambda raw, rest: Binary(bytes(raw), int(rest)),
    "/": lambda raw, rest: Regex(raw, int(rest)),
    "T": _decode_timestamp,
    "-": lambda _raw, _rest: MinKey(),
    "+": lambda _raw, _rest: MaxKey(),
    "j": lambda raw, _rest: Code(raw),
    "$": _unblob,
    "k": lambda raw, _rest: keys.decode_key(raw),
}


# ---- sizes ----


def item_size(item: Item) -> int:
    """The size of an item in bytes, by DynamoDB's rules; numbers counted at the most they can take."""
    return sum(len(name.encode()) + _size(attribute) for name, attribute in item.items())


def _size(attribute: Attribute) -> int:
    ((tag, raw),) = attribute.items()
    match tag:
        case "S":
            return len(raw) if raw.isascii() else len(raw.encode())
        case "N":
            return min(21, (len(raw) + 1) // 2 + 2)
        case "B":
            return len(raw)
        case "L":
            return 3 + sum(1 + _size(element) for element in raw)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _size(element) for name, element in raw.items())
        case _:
            return 1


# ---- whole items ----


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image as it is stored: the item under its key, and the parts of a document that no item can hold."""

    item: Item
    generation: str = ""
    parts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the body of a large document lies: parts 0 to count - 1 of one generation, written by `head`."""

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
        ranges = {index.range for index in spec.indexes if index.range is not None}
        self.limits: Final[dict[str, int]] = {index.hash: keys.HASH_LIMIT for index in spec.indexes}
        self.limits.update(dict.fromkeys(sorted(ranges), keys.RANGE_LIMIT))
        self.ranges: Final = frozenset(ranges)
        self._refused = frozenset({"", self.reserved, self.ttl})

    def encode(self, key_text: str, state: State, document: Document | None, op_id: str) -> Encoded:
        """The item of an image. Raises `DocumentTooLarge` over MongoDB's 16 MB, and what `bson.encode` raises."""
        if document is None:
            return Encoded(self._tombstone(key_text, state, op_id))
        raw = bson.encode(document)
        if len(raw) > BSON_LIMIT:
            raise DocumentTooLarge(f"the document has {len(raw)} bytes of BSON; the limit is {BSON_LIMIT}")
        natural = self._natural(key_text, state, document, op_id)
        if natural is not None and (len(raw) <= _SURELY_FITS or item_size(natural) <= ITEM_LIMIT):
            return Encoded(natural)
        return self._packed(key_text, state, document, op_id, zlib.compress(raw, 6))

    @staticmethod
    def is_large(document: Document) -> bool:
        """Whether encoding takes so long that it should not be done in the event loop."""
        return len(bson.encode(document)) > _SURELY_FITS * 4

    def _tombstone(self, key_text: str, state: State, op_id: str) -> Item:
        expires = int(time.time() + TOMBSTONE_LIFETIME.total_seconds())
        return {
            "_id": {"S": key_text},
            self.reserved: {"M": _stamp(state, op_id)},
            self.ttl: {"N": str(expires)},
        }

    def _natural(self, key_text: str, state: State, document: Document, op_id: str) -> Item | None:
        """The item with one attribute a field; None if a field has a name that no attribute can have."""
        item: Item = {"_id": {"S": key_text}}
        hints: dict[str, Attribute] = {}
        aside: dict[str, Attribute] = {}
        for name, value in document.items():
            if name in self._refused or (len(name) > 9999 and len(name.encode()) > _NAME_LIMIT):
                return None
            if name == "_id" or name in self.limits:
                attribute, hint = self._key_attribute(name, value, aside)
            else:
                attribute, hint = encode_value(value, 1)
            if attribute is not None and name != "_id":
                item[name] = attribute
            if hint is not None:
                hints[escaped(name)] = hint
        hints.update(dict.fromkeys(map(escaped, self._add_missing(item, document)), _ABSENT))
        shadow = _stamp(state, op_id)
        whole = _map_hint(list(document), hints)
        if whole is not None:
            shadow["h"] = whole
        if aside:
            shadow["a"] = {"M": aside}
        item[self.reserved] = {"M": shadow}
        return item

    def _key_attribute(
        self, name: str, value: Any, aside: dict[str, Attribute]
    ) -> tuple[Attribute | None, Attribute | None]:
        """The attribute and hint of a key field; what its text does not say goes into `aside`."""
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

    def _packed(self, key_text: str, state: State, document: Document, op_id: str, body: bytes) -> Encoded:
        item: Item = {"_id": {"S": key_text}}
        for name in self.limits:
            text = self._index_text(name, document[name])[0] if name in document else None
            if text is not None:
                item[name] = {"S": text}
        self._add_missing(item, document)
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

    def state(self, item: Item) -> State:
        """The version or tombstone of an item."""
        shadow = item.get(self.reserved, {}).get("M", {})
        if "t" in shadow:
            return Tombstone(shadow["t"]["S"])
        return Version(shadow.get("b", {}).get("S", ""), int(shadow.get("r", {}).get("N", 0)))

    def op_id(self, item: Item) -> str:
        """The id of the operation that wrote the item last; "" if it was none of ours."""
        return str(item.get(self.reserved, {}).get("M", {}).get("o", {}).get("S", ""))

    def is_auxiliary(self, item: Item) -> bool:
        """Whether an item is no document and no tombstone: a part, or a uniqueness item."""
        return "k" in item.get(self.reserved, {}).get("M", {})

    def parts(self, item: Item) -> Parts | None:
        """Where the body lies, if the item is only the head of a large document."""
        shadow = item.get(self.reserved, {}).get("M", {})
        if "g" not in shadow:
            return None
        return Parts(item["_id"]["S"], shadow["g"]["S"], int(shadow["n"]["N"]))

    def decode(self, item: Item, body: bytes | None = None) -> Image:
        """The image in an item; `body` is the joined parts where `parts` says that there are some."""
        state = self.state(item)
        if isinstance(state, Tombstone):
            return Image(state)
        shadow = item.get(self.reserved, {}).get("M", {})
        packed = body if body is not None else shadow.get("z", {}).get("B")
        if packed is not None:
            return Image(state, bson.decode(zlib.decompress(bytes(packed)), codec_options=CANONICAL))
        return Image(state, self._document(item, shadow))

    def _document(self, item: Item, shadow: Mapping[str, Attribute]) -> Document:
        hints, order = _opened(shadow.get("h"))
        aside = shadow.get("a", {}).get("M", {})
        names = {*item, *aside} - {self.reserved, self.ttl}
        names.difference_update([name for name in names if hints.get(escaped(name)) == _ABSENT])
        document: Document = {}
        for name in _ordered(list(names), order):
            if name in aside:
                document[name] = decode_value(*aside[name]["L"])
            elif name == "_id":
                document[name] = _key_value(item[name])
            else:
                document[name] = decode_value(item[name], hints.get(escaped(name)))
        return document


def _key_value(attribute: Attribute) -> Any:
    text = attribute.get("S")
    return keys.decode_key(text) if text is not None else decode_value(attribute)


def _stamp(state: State, op_id: str) -> dict[str, Attribute]:
    """{b, r} or {t}, and o. Parts with their default value are left out, so that an unstamped document and one
    stamped as such are one state."""
    stamp: dict[str, Attribute] = {}
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
