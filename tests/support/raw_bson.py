"""BSON made by hand, byte by byte: what no driver writes, and other clients have written all the same."""

from __future__ import annotations

import struct
from typing import Any, Final

import bson
from hypothesis import strategies as st

__all__ = ["ODD", "UNHEARD_OF", "UNREADABLE", "array", "document", "documents", "element", "int32", "text"]


def element(kind: int, name: str | bytes, payload: bytes) -> bytes:
    """One field."""
    return bytes((kind,)) + (name.encode() if isinstance(name, str) else name) + b"\0" + payload


def document(*elements: bytes) -> bytes:
    body = b"".join(elements) + b"\0"
    return struct.pack("<i", len(body) + 4) + body


def array(*elements: bytes) -> bytes:
    """An array whose names are its places."""
    return document(*(each[:1] + b"%d\0" % place + each[each.index(0) + 1 :] for place, each in enumerate(elements)))


def text(value: str | bytes) -> bytes:
    raw = (value.encode() if isinstance(value, str) else value) + b"\0"
    return struct.pack("<i", len(raw)) + raw


def int32(value: int) -> bytes:
    return struct.pack("<i", value)


def scoped(code: str, scope: bytes) -> bytes:
    body = text(code) + scope
    return struct.pack("<i", len(body) + 4) + body


ODD: Final[dict[str, bytes]] = {
    "a name given twice": element(2, "a", text("first")) + element(2, "a", text("second")),
    "a name given twice below": element(3, "d", document(element(16, "a", int32(1)), element(16, "a", int32(2)))),
    "undefined": element(6, "u", b""),
    "undefined in an array": element(4, "l", array(element(6, "", b""), element(16, "", int32(1)))),
    "a symbol": element(14, "s", text("sym")),
    "a DBPointer": element(12, "p", text("coll") + bytes(range(12))),
    "an array with holes": element(4, "l", document(element(16, "0", int32(1)), element(16, "5", int32(2)))),
    "an array with names": element(4, "l", document(element(16, "x", int32(1)))),
    "an array backwards": element(4, "l", document(element(16, "1", int32(1)), element(16, "0", int32(2)))),
    "flags in another order": element(11, "x", b"a\0xi\0"),
    "flags that Python lacks": element(11, "x", b"a\0gi\0"),
    "a DBRef from behind": element(3, "r", document(element(16, "$id", int32(1)), element(2, "$ref", text("c")))),
    "a DBRef with its database last": element(
        3,
        "r",
        document(
            element(2, "$ref", text("c")),
            element(16, "$id", int32(1)),
            element(16, "x", int32(1)),
            element(2, "$db", text("d")),
        ),
    ),
    "code with an odd scope": element(15, "c", scoped("f()", document(element(6, "u", b"")))),
}
"""Fields that the driver reads, and would write otherwise, by what is odd in them."""

UNREADABLE: Final[dict[str, bytes]] = {
    "text": element(2, "n", text(b"ab\xe9d")),
    "text below": element(3, "d", document(element(2, "n", text(b"ab\xe9d")))),
    "a name": element(16, b"ab\xe9d", int32(1)),
    "a surrogate": element(2, "n", text(b"\xed\xa0\x80")),
    "a pattern": element(11, "x", b"ab\xe9d\0\0"),
}
"""Fields that the driver does not read; the server takes them."""

UNHEARD_OF: Final[dict[str, bytes]] = {
    "a boolean": element(8, "b", b"\2"),
    "an old binary": element(5, "b", struct.pack("<i", 7) + b"\2" + struct.pack("<i", 9) + b"abc"),
}
"""Fields that neither the driver reads nor today's servers take."""

_NAMES: Final = st.sampled_from(["a", "b", "c", "$ref", "$id", "$db", "0", "1", ""])


def _values(inner: st.SearchStrategy[tuple[int, bytes]]) -> st.SearchStrategy[tuple[int, bytes]]:
    fields = st.lists(st.tuples(_NAMES, inner), max_size=4)
    return st.one_of(
        fields.map(lambda pairs: (3, document(*(element(kind, name, value) for name, (kind, value) in pairs)))),
        fields.map(lambda pairs: (4, document(*(element(kind, name, value) for name, (kind, value) in pairs)))),
        st.lists(inner, max_size=4).map(lambda values: (4, array(*(element(kind, "", each) for kind, each in values)))),
    )


def _plain(value: Any) -> tuple[int, bytes]:
    raw = bson.encode({"": value})
    return raw[4], raw[6:-1]


_SCALARS: Final = st.one_of(
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.none(), st.text(max_size=5)).map(_plain),
    st.binary(max_size=4).map(lambda raw: (5, struct.pack("<i", len(raw)) + b"\5" + raw)),
    st.binary(max_size=4).map(lambda raw: (2, text(raw))),
    st.text("abc", max_size=3).map(lambda value: (14, text(value))),
    st.text("gilmsux", max_size=4).map(lambda flags: (11, b"a\0" + flags.encode() + b"\0")),
    st.binary(min_size=12, max_size=12).map(lambda raw: (12, text("c") + raw)),
    st.just((6, b"")),
    st.sampled_from([(8, b"\0"), (8, b"\1"), (8, b"\2"), (255, b""), (127, b""), (17, bytes(8)), (13, text("f()"))]),
)


def documents() -> st.SearchStrategy[bytes]:
    """Documents with an `_id`: good, odd, and such as cannot be read."""
    values = st.recursive(_SCALARS, _values, max_leaves=8)
    fields = st.lists(st.tuples(_NAMES, values), max_size=5)
    return fields.map(
        lambda pairs: document(
            element(16, "_id", int32(1)), *(element(kind, name, value) for name, (kind, value) in pairs)
        )
    )
