"""BSON values <-> AttributeValues with hints, without loss. `codec` describes the form of both.

An attribute is in the wire form of the low-level client ({"S": ...}), and so is a hint. Binaries are bytes if created
here, and base64 (the wire form) if they come from the server: `octets` accepts both.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import bson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from shadow.model.stored import document_of
from shadow.model.values import CANONICAL, is_reference, reference
from shadow.model.version import Document
from shadow.stores.dynamo.client.attributes import Attribute, Item
from shadow.stores.dynamo.client.limits import NAME_LIMIT
from shadow.stores.dynamo.items import keys

__all__ = [
    "Attribute",
    "Item",
    "attribute_size",
    "decode_value",
    "encode_value",
    "escaped",
    "item_size",
    "map_hint",
    "octets",
    "opened",
    "ordered_names",
    "unescaped",
]

_FEW_NAMES: Final = 32
"""Documents with up to this many fields have their order cached."""

_DEPTH: Final = 26
"""Deeper containers are written as BSON; hints are up to five levels deeper than the values they describe."""

_PLAIN_DECIMAL: Final = re.compile(r"-?(0|[1-9]\d*[1-9]|[1-9]|(0|[1-9]\d*)\.\d*[1-9])")
_NULL: Final[Attribute] = {"NULL": True}
_NO_HINTS: Final[Mapping[str, Attribute]] = MappingProxyType({})
_BLOB: Final[Attribute] = {"S": "$"}
_SIMPLE: Final = frozenset("dlto")

Pair: TypeAlias = tuple[Attribute, Attribute | None]
"""An attribute and its hint."""


def octets(raw: str | bytes) -> bytes:
    """The bytes of a B, in either of its forms."""
    return base64.b64decode(raw) if type(raw) is str else bytes(raw)  # type: ignore[arg-type]


# ---- values to attributes ----


def encode_value(value: Any, depth: int = 0) -> Pair:
    """The attribute of one BSON value, nested in `depth` containers, and its hint. Raises what `bson.encode` raises."""
    encoder = _ENCODERS.get(type(value))
    return encoder(value, depth) if encoder is not None else _encode_other(value, depth)


def _encode_other(value: Any, depth: int) -> Pair:
    """Subclasses, and types that only BSON knows: the BSON encoding decides."""
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
    return {"S": value.pattern}, {"S": f"/{int(value.flags)}"}


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
    if depth >= _DEPTH or not all(len(name) > 0 and len(name.encode()) <= NAME_LIMIT for name in document):
        return _blob(document)
    attributes: dict[str, Attribute] = {}
    hints: dict[str, Attribute] = {}
    for name, value in document.items():
        attributes[name], hint = encode_value(value, depth + 1)
        if hint is not None:
            hints[escaped(name)] = hint
    return {"M": attributes}, map_hint(list(document), hints)


def escaped(name: str) -> str:
    """The key of a field's hint in the map of hints."""
    return f"~{name}" if name[0] == "~" else name


def unescaped(name: str) -> str:
    """The name of the field whose hint has the key `name`."""
    return name[1:] if name[0] == "~" else name


def map_hint(names: list[str], hints: dict[str, Attribute]) -> Attribute | None:
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
    """For each field, the position of its name among the sorted names; None if the fields are sorted already."""
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
    """The value of an attribute. Without a hint, any attribute that another writer may have stored (sets become
    lists)."""
    ((tag, raw),) = attribute.items()
    if hint is not None:
        return _decode_hinted(tag, raw, hint)
    match tag:
        case "S" | "BOOL":
            return raw
        case "N":
            return _decode_number(raw)
        case "M":
            return _with_reference({name: decode_value(raw[name]) for name in _by_name(list(raw))})
        case "L":
            return [decode_value(element) for element in raw]
        case "B":
            return octets(raw)
        case "NULL":
            return None
        case _:
            return [decode_value({tag[0]: element}) for element in raw]


def _decode_number(text: str) -> Any:
    """An N without a hint: an integer, unless another writer stored something else."""
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
            if type(document) is DBRef:
                return document
            return DBRef(document.pop("$ref"), document.pop("$id", None), document.pop("$db", None), document)
        if tag == "L":
            return _decode_list(raw, hint["M"])
        _check_tag("M", tag)
        return _decode_map(raw, hint)
    if code[0] == "*":
        return _decode_uniform(tag, raw, code)
    wanted, decoder = _DECODERS[code[0]]
    if wanted != tag:
        _check_tag(wanted, tag)
    return decoder(raw, code[1:])


def _check_tag(wanted: str, found: str) -> None:
    """Raises ValueError for an attribute of another type than its hint describes: it was edited by hand, and decoding
    it would give an arbitrary value."""
    if wanted != found:
        raise ValueError(f"an attribute of type {found} under a hint for {wanted}")


def _decode_uniform(tag: str, raw: Any, code: str) -> Any:
    wanted, decoder = _DECODERS[code[1]]

    def element(attribute: Attribute) -> Any:
        ((kind, value),) = attribute.items()
        if kind == wanted:
            return decoder(value, "")
        if kind not in "LM":
            _check_tag(wanted, kind)
        return _decode_uniform(kind, value, code)

    if tag not in ("L", "M"):
        _check_tag("L", tag)
    if tag == "L":
        return [element(one) for one in raw]
    return _with_reference({name: element(raw[name]) for name in _by_name(list(raw))})


def _decode_list(raw: list[Attribute], hints: Mapping[str, Attribute]) -> list[Any]:
    every = hints.get("*")
    if every is not None:
        return [decode_value(element, every) for element in raw]
    return [decode_value(element, hints.get(str(i))) for i, element in enumerate(raw)]


def _decode_map(raw: Mapping[str, Attribute], hint: Attribute | None) -> Any:
    hints, order = opened(hint)
    names = ordered_names(list(raw), order)
    return _with_reference({name: decode_value(raw[name], hints.get(escaped(name))) for name in names})


def _with_reference(document: Document) -> Any:
    """`document`, or the DBRef as which the driver would read it and write it again: one that was computed from plain
    documents has no hint of its own."""
    if not is_reference(document):
        return document
    made = reference(document)
    return made if list(made.as_doc()) == list(document) else document


def opened(hint: Attribute | None) -> tuple[Mapping[str, Attribute], str | bytes | None]:
    """The hints of a document's fields, by `escaped` name, and the order of the fields (`octets`; None: sorted)."""
    if hint is None:
        return _NO_HINTS, None
    if "B" in hint:
        return _NO_HINTS, hint["B"]
    hints = hint["M"]
    order = hints.get("~")
    return hints, order["B"] if order is not None else None


def ordered_names(names: Collection[str], order: str | bytes | None) -> Sequence[str]:
    """`names` in the stored order; sorted, if there is none or it belongs to other fields (another writer has added or
    removed one)."""
    if len(names) <= _FEW_NAMES:
        return _ordered_once(frozenset(names), order)
    return _ordered(list(names), order)


@functools.lru_cache(maxsize=1024)
def _ordered_once(names: frozenset[str], order: str | bytes | None) -> tuple[str, ...]:
    """Cached: the documents of a collection have few shapes."""
    return tuple(_ordered(list(names), order))


def _ordered(names: list[str], kept: str | bytes | None) -> list[str]:
    ordered = _by_name(names)
    if kept is None:
        return ordered
    order = octets(kept)
    width = 1 if len(names) <= 255 else 2 if len(names) <= 65_535 else 3
    places = [int.from_bytes(order[i : i + width], "big") for i in range(0, len(order), width)]
    if len(places) != len(names) or any(place >= len(names) for place in places):
        return ordered
    return [ordered[place] for place in places]


def _unblob(raw: Any, _rest: str) -> Any:
    document = document_of(octets(raw))
    if type(document) is not dict:
        raise ValueError("a value in BSON that differs from the driver's encoding")
    return document[""]


def _decode_timestamp(raw: str, _rest: str) -> Timestamp:
    seconds, _, increment = raw.partition(":")
    return Timestamp(int(seconds), int(increment))


def _decode_decimal(raw: str, rest: str) -> Decimal128:
    value = Decimal128(rest or raw)
    if rest and value.to_decimal() != Decimal(raw):
        raise ValueError("a number under the text of another one")
    return value


def _int64(raw: str) -> int:
    number = int(raw)
    if not -(2**63) <= number < 2**63:
        raise OverflowError("BSON can only handle up to 8-byte ints")
    return number


_DECODERS: Final[dict[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "d": ("N", lambda raw, _rest: float(raw)),
    "l": ("N", lambda raw, _rest: Int64(_int64(raw))),
    "D": ("N", _decode_decimal),
    "t": ("S", lambda raw, _rest: keys.date_of(raw)),
    "m": ("N", lambda raw, _rest: DatetimeMS(_int64(raw))),
    "o": ("S", lambda raw, _rest: ObjectId(raw)),
    "b": ("B", lambda raw, rest: Binary(octets(raw), int(rest))),
    "/": ("S", lambda raw, rest: Regex(raw, int(rest))),
    "T": ("S", _decode_timestamp),
    "-": ("NULL", lambda _raw, _rest: MinKey()),
    "+": ("NULL", lambda _raw, _rest: MaxKey()),
    "j": ("S", lambda raw, _rest: Code(raw)),
    "$": ("B", _unblob),
    "k": ("S", lambda raw, _rest: keys.decode_key(raw)),
}
"""By code: the type of the attribute, and the function that builds its value from it and the rest of the code."""


# ---- sizes ----


def item_size(item: Item) -> int:
    """The size of an item in bytes, by DynamoDB's rules; a number counts with its largest possible size."""
    return sum(len(name.encode()) + attribute_size(attribute) for name, attribute in item.items())


def attribute_size(attribute: Attribute) -> int:
    """The bytes of one value, as `item_size` counts them."""
    ((tag, raw),) = attribute.items()
    match tag:
        case "S":
            return len(raw) if raw.isascii() else len(raw.encode())
        case "N":
            return min(21, (len(raw) + 1) // 2 + 2)
        case "B":
            return len(octets(raw))
        case "L":
            return 3 + sum(1 + attribute_size(element) for element in raw)
        case "M":
            return 3 + sum(1 + len(name.encode()) + attribute_size(element) for name, element in raw.items())
        case _:
            return 1
