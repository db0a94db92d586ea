"""Equality of two stores' answers: type-strict for documents, by key for result sets.

Documents are equal if they are the same BSON: int is not long, bool is not int, missing is not null, and field order
counts at every level, except for a top-level `_id`, which BSON encoders and the server put first. One thing is looser:
a NaN equals any other, whatever its sign or payload, because only one of the stores keeps those.

If the driver's values do not represent all of a document (`model.stored`), its bytes decide, and nothing is looser. A
document that cannot be read as a whole equals only its own bytes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import bson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import BSONError

from shadow.model.operation import Hit, Query, Sort
from shadow.model.order import millis, order_key, regex_flags, sort_key
from shadow.model.stored import Damaged, RawDocument, encoded, is_copyable
from shadow.model.values import normalise_value, type_name
from shadow.model.verdict import COUNT_PATH, ORDER_PATH, Incomparable, Kind
from shadow.model.version import Document, Image, Key, Version

__all__ = [
    "Comparison",
    "KeyDifference",
    "agree",
    "canonical",
    "compare_documents",
    "compare_hits",
    "compare_one",
    "counts",
    "orders",
    "same",
    "same_after",
    "same_part",
    "whole",
]

# -- documents ----------------------------------------------------------------------------------------------------


def same(a: Document, b: Document) -> bool:
    """Whether two canonical documents are the same BSON (NaN equals NaN) and the same values: a DBRef is not the plain
    document as which it is stored, for the application would see the difference."""
    if type(a) is not dict or type(b) is not dict:
        return _same_bytes(a, b)
    try:
        raw = bson.encode(a)
        if raw == bson.encode(b) and _REFERENCE not in raw:
            return True
        return _same_mapping(_id_first(a), _id_first(b))
    except _NO_BSON:
        return False  # a manual edit has put something into the other store that MongoDB could not hold


_NO_BSON: Final = (BSONError, OverflowError)
_REFERENCE: Final = b"$ref\0"
"""In the bytes of a document that has a DBRef."""


def _same_bytes(a: Document, b: Document) -> bool:
    """`same` by stored bytes, if at least one document is not plain."""
    if isinstance(a, Damaged) or isinstance(b, Damaged):
        return isinstance(a, Damaged) and isinstance(b, Damaged) and a.raw == b.raw != b""
    return encoded(_id_first(a)) == encoded(_id_first(b))


def same_after(pre: Document, post: Document) -> bool:
    """`same` for a document before and after a change: untouched parts are mostly the same objects."""
    if type(pre) is not dict or type(post) is not dict:
        return _same_bytes(pre, post)
    before, after = _id_first(pre), _id_first(post)
    if list(before) != list(after):
        return False
    for name, value in before.items():
        if (other := after[name]) is not value and not same_part(value, other):
            return False
    return True


def same_part(a: Any, b: Any) -> bool:
    """`same` of two values, mostly the very same or of the commonest types, which need no encoding."""
    known = _known(a, b)
    return same({"": a}, {"": b}) if known is None else known


def _known(a: Any, b: Any) -> bool | None:
    """Whether both are the same BSON, where type and identity decide it; None: unknown."""
    if a is b:
        return True
    kind = type(a)
    if kind in _SIMPLE and type(b) in _SIMPLE:
        return kind is type(b) and bool(a == b)
    if kind is list and type(b) is list and len(a) == len(b):
        return True if all(_known(one, other) is True for one, other in zip(a, b, strict=True)) else None
    if kind is dict and type(b) is dict and a.keys() == b.keys():
        pairs = zip(a, b, strict=True)
        return True if all(name == other and _known(a[name], b[other]) is True for name, other in pairs) else None
    return None


_SIMPLE: Final = frozenset({bool, int, str, bytes, ObjectId, type(None)})
"""Types whose values are the same BSON exactly if type and value are equal: an int is stored in 32 or 64 bits by its
value alone."""


def _id_first(document: Document) -> Document:
    if isinstance(document, RawDocument) or next(iter(document), "") == "_id":
        return document
    return {"_id": document["_id"], **document} if "_id" in document else document


def _same_mapping(a: Document, b: Document) -> bool:
    return len(a) == len(b) and all(
        left == right and _same_value(a[left], b[right]) for left, right in zip(a, b, strict=True)
    )


def _same_value(a: Any, b: Any) -> bool:
    if isinstance(a, DBRef) or isinstance(b, DBRef):
        return isinstance(a, DBRef) and isinstance(b, DBRef) and _same_mapping(dict(a.as_doc()), dict(b.as_doc()))
    if isinstance(a, dict) and isinstance(b, dict):
        return _same_mapping(a, b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same_value, a, b))
    if isinstance(a, Code) and isinstance(b, Code) and a.scope is not None and b.scope is not None:
        return str(a) == str(b) and _same_mapping(dict(a.scope), dict(b.scope))
    return (type(a) is float and type(b) is float and a != a and b != b) or bson.encode({"": a}) == bson.encode({"": b})


def _timestamp(value: Timestamp) -> str:
    return f"{value.time}.{value.inc}"


def _double(value: float) -> str:
    return repr(value) if value == value else "nan"


def _binary(value: bytes) -> str:
    return f"{value.subtype if isinstance(value, Binary) else 0}:{value.hex()}"


def _code(value: Code) -> Any:
    return f"{str(value)!r}" if value.scope is None else f"{str(value)!r}:{canonical(dict(value.scope))!r}"


_TEXTS: Final[dict[type, Callable[[Any], Any]]] = {
    str: repr,
    int: int.__repr__,
    Int64: int.__repr__,
    bool: lambda v: "true" if v else "false",
    float: _double,
    type(None): lambda v: "",
    ObjectId: str,
    dt.datetime: millis,
    DatetimeMS: int,
    Decimal128: lambda v: v.bid.hex(),
    Timestamp: _timestamp,
    bytes: _binary,
    Binary: _binary,
    Regex: lambda v: f"{regex_flags(v.flags)}:{v.pattern!r}",
    Code: _code,
    MinKey: lambda v: "",
    MaxKey: lambda v: "",
}


def canonical(value: Any) -> Any:
    """`value` as plain dicts, lists and tagged strings, whose equality in Python is BSON's except for field order.

    A scalar becomes "<`$type` alias>:<text>" on one line, so that no private attribute, numeric tower, time zone or
    line break can hide or blur a difference. A DBRef becomes its BSON document. Raises `bson.errors.InvalidDocument`
    for what BSON cannot hold.
    """
    kind = type(value)
    if kind is dict or kind is RawDocument or kind is Damaged:
        return {name: canonical(inner) for name, inner in value.items()}
    if kind is list:
        return [canonical(inner) for inner in value]
    text = _TEXTS.get(kind)
    if text is not None:
        return f"{type_name(value)}:{text(value)}"
    return canonical(dict(value.as_doc()) if kind is DBRef else normalise_value(value))


def compare_documents(primary: Document, secondary: Document) -> Kind | None:
    """How two documents differ: None if they are equal, otherwise the gravest of TYPE, VALUE and ORDER; UNREADABLE if
    one cannot be read as a whole.

    TYPE: some place has different types on the two sides. ORDER: only the order of fields differs.
    """
    if same(primary, secondary):
        return None
    if isinstance(primary, Damaged) or isinstance(secondary, Damaged):
        return Kind.UNREADABLE
    left, right = canonical(primary), canonical(secondary)
    if left == right:
        odd = isinstance(primary, RawDocument) or isinstance(secondary, RawDocument)
        return Kind.TYPE if odd or bson.encode(primary) == bson.encode(secondary) else Kind.ORDER
    return Kind.TYPE if _types_differ(left, right) else Kind.VALUE


def _types_differ(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return True
    if type(left) is dict:
        return any(_types_differ(left[name], right[name]) for name in left if name in right)
    if type(left) is list:
        return any(map(_types_differ, left, right))
    return bool(left.partition(":")[0] != right.partition(":")[0])


# -- answers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """One document in which two answers differ, with what each store answered for it; None if it lacks the document.

    Not `named`: the answers differ as a whole, and no document can be identified by a key (`key` is None). The hits
    then hold what differs: documents of an aggregate, or one with the numbers (`counts`) or positions (`orders`).
    Raises ValueError without a hit, because every difference must be shown.
    """

    key: Key
    kind: Kind
    primary: Hit | None = None
    secondary: Hit | None = None
    named: bool = True

    def __post_init__(self) -> None:
        if self.primary is None and self.secondary is None:
            raise ValueError(f"a difference ({self.kind}) without what differs")


def counts(primary: Any, secondary: Any) -> KeyDifference:
    """A difference in the number of documents, none of which can be named."""
    return whole(Kind.COUNT, {COUNT_PATH: primary}, {COUNT_PATH: secondary})


def orders(primary: Sequence[Any], secondary: Sequence[Any]) -> KeyDifference:
    """A difference in the order of the same documents, as two lists of positions or keys."""
    return whole(Kind.ORDER, {ORDER_PATH: list(primary)}, {ORDER_PATH: list(secondary)})


def whole(kind: Kind, primary: Document, secondary: Document) -> KeyDifference:
    """A difference between two answers, shown by a document of each."""
    left, right = (Hit(None, Version("", 0), each) for each in (primary, secondary))
    return KeyDifference(None, kind, left, right, named=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two answers. `incomparable` is the reason why a part could not be compared; there may be
    differences in the rest."""

    keys: tuple[KeyDifference, ...] = ()
    incomparable: Incomparable | None = None

    @property
    def equal(self) -> bool:
        """Whether everything was compared and nothing differs."""
        return not self.keys and not self.incomparable


_EQUAL: Final = Comparison()
_Row: TypeAlias = tuple[Any, Hit]
"""A document's sort key, and its hit."""


def compare_hits(query: Query, primary: Sequence[Hit], secondary: Sequence[Hit], *, keyed: bool = True) -> Comparison:
    """Compares the two answers to `query`, completely and in order.

    Documents are paired by `_id`, under MongoDB's equality of keys. With a sort, tied documents may come in any order,
    and if `limit` or `skip` cuts through a tie, either part of it may be answered: a document counts as missing or
    extra only if the other answer's range covers its position. A window that is shifted as a whole is COUNT. Without a
    sort, `limit` and `skip` cut anywhere: documents that are in both answers are compared, the rest is
    `Incomparable.UNSORTED_LIMIT`. A projection that removes the sort's fields makes the order undecidable: keys are
    compared as without a sort, and if that is not enough the rest is `Incomparable.PROJECTED_SORT`.

    `query.limit` must say how far both answers were read: 1 for `find_one` (as `compare_one` sets it), and the number
    of documents read for a cursor that the application abandoned. `keyed`: a hit's key is its `_id`, even if the
    document does not show it.
    """
    if len(primary) == len(secondary) and all(map(_same_hit, primary, secondary)):
        return _EQUAL
    known = bool(query.sort) and all(_visible(query.projection, path) for path, _ in query.sort)
    place = _by(query.sort, keyed=keyed) if known else _no_place
    answers = _Answers(
        [(place(hit), hit) for hit in primary],
        [(place(hit), hit) for hit in secondary],
        abs(query.limit),
        query.skip,
    )
    if known:
        found = answers.compare(None)
    else:
        reason = Incomparable.PROJECTED_SORT if query.sort else Incomparable.UNSORTED_LIMIT
        found = answers.compare(reason, ordered=bool(query.sort))
    return _less_projected_bytes(found) if query.projection else found


def _less_projected_bytes(found: Comparison) -> Comparison:
    """Only MongoDB projects the bytes of a document that Python's values do not represent. If nothing else differs, it
    is unknown whether the documents do."""
    rest = tuple(each for each in found.keys if not _differs_in_bytes_alone(each))
    return (
        found if len(rest) == len(found.keys) else Comparison(rest, found.incomparable or Incomparable.PROJECTED_BYTES)
    )


def _differs_in_bytes_alone(each: KeyDifference) -> bool:
    if each.primary is None or each.secondary is None:
        return False
    left, right = each.primary.document, each.secondary.document
    odd = isinstance(left, RawDocument) != isinstance(right, RawDocument)
    return odd and not isinstance(left, Damaged) and not isinstance(right, Damaged) and same(dict(left), dict(right))


def compare_one(query: Query, primary: Hit | None, secondary: Hit | None) -> Comparison:
    """`compare_hits` for `find_one`."""
    return compare_hits(
        replace(query, limit=1), [] if primary is None else [primary], [] if secondary is None else [secondary]
    )


def _same_hit(a: Hit, b: Hit) -> bool:
    return _identity(a.key) == _identity(b.key) and same(a.document, b.document)


def _by(sort: Sort, *, keyed: bool) -> Callable[[Hit], Any]:
    """Positions by `sort`. `_id` is known even if the projection omits it."""
    key = sort_key(sort)
    if not keyed:
        return lambda hit: key(hit.document)
    return lambda hit: key({**hit.document, "_id": hit.key})


def _no_place(hit: Hit) -> tuple[()]:
    return ()


def _identity(key: Key) -> Hashable:
    """Equal for keys that MongoDB treats as equal."""
    return key if type(key) is str or type(key) is ObjectId else order_key(key)


def _visible(projection: Document | None, path: str) -> bool:
    """Whether the value by which `path` sorts is certainly unchanged after `projection`."""
    if not projection or path == "_id":
        return True
    entries = {name: value for name, value in projection.items() if name != "_id"}
    if not entries:
        return not projection["_id"]
    touching = {name: value for name, value in entries.items() if _related(name, path)}
    if any(name.endswith(".$") for name in entries):
        return False  # it removes elements from the first array on its path
    if not all(isinstance(value, bool | int | float) for value in touching.values()):
        return False
    if any(value in (0, False) for value in entries.values()):
        return not touching
    return any(path == name or path.startswith(f"{name}.") for name in touching)


def _related(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.") or path.startswith(f"{name}.")


class _Answers:
    """Two answers as ranges of one order, in which documents with equal positions may come in any order."""

    def __init__(self, primary: list[_Row], secondary: list[_Row], limit: int, skip: int) -> None:
        self._primary = primary
        self._secondary = secondary
        self._limit = limit
        self._skip = skip
        self._left = {_identity(hit.key): (place, hit) for place, hit in primary}
        self._right = {_identity(hit.key): (place, hit) for place, hit in secondary}

    def compare(self, undecided: Incomparable | None, *, ordered: bool = False) -> Comparison:
        """`undecided` is the reason to give if positions are unknown; `ordered`: there is an order nevertheless."""
        keys = (*self._changed(), *self._missing(), *self._extra())
        if undecided:
            return self._undecided(keys, undecided, ordered)
        if not self._in_order():
            return Comparison((*keys, orders(*map(self._keys, (self._primary, self._secondary)))))
        if not keys and [place for place, _ in self._primary] != [place for place, _ in self._secondary]:
            return Comparison((self._shifted(),))
        return Comparison(keys)

    def _shifted(self) -> KeyDifference:
        """Windows of the same order that show different parts of it."""
        if len(self._primary) != len(self._secondary):
            return counts(len(self._primary), len(self._secondary))
        shifted = orders(*map(self._keys, (self._primary, self._secondary)))
        return replace(shifted, kind=Kind.COUNT)

    @staticmethod
    def _keys(rows: list[_Row]) -> list[Key]:
        return [hit.key for _, hit in rows]

    def _undecided(self, keys: tuple[KeyDifference, ...], reason: Incomparable, ordered: bool) -> Comparison:
        if not keys and len(self._primary) != len(self._secondary):
            return Comparison((counts(len(self._primary), len(self._secondary)),))
        told = {_identity(each.key) for each in keys}
        rest = (self._left.keys() ^ self._right.keys()) - told
        moved = ordered and self._common(self._primary) != self._common(self._secondary)
        return Comparison(keys, reason if rest or moved else None)

    def _changed(self) -> list[KeyDifference]:
        found = []
        for identity, (_, hit) in self._left.items():
            other = self._right.get(identity)
            if other is not None and (kind := compare_documents(hit.document, other[1].document)):
                found.append(KeyDifference(hit.key, kind, hit, other[1]))
        return found

    def _missing(self) -> list[KeyDifference]:
        covers = self._range(self._secondary)
        return [
            KeyDifference(hit.key, Kind.MISSING, hit, None)
            for identity, (place, hit) in self._left.items()
            if identity not in self._right and covers(place)
        ]

    def _extra(self) -> list[KeyDifference]:
        covers = self._range(self._primary)
        return [
            KeyDifference(hit.key, Kind.EXTRA, None, hit)
            for identity, (place, hit) in self._right.items()
            if identity not in self._left and covers(place)
        ]

    def _range(self, rows: list[_Row]) -> Callable[[Any], bool]:
        """Whether an answer would have to contain a document at a position."""
        cut = bool(self._limit) and len(rows) >= self._limit
        if self._skip and not rows:
            return lambda place: False
        first, last = (rows[0][0], rows[-1][0]) if rows else (None, None)
        return lambda place: (not self._skip or first < place) and (not cut or place < last)

    def _in_order(self) -> bool:
        """Whether documents that are in both answers at unchanged positions follow the same order."""
        return [place for place, _ in self._steady(self._primary)] == [
            place for place, _ in self._steady(self._secondary)
        ]

    def _steady(self, rows: list[_Row]) -> list[_Row]:
        def steady(hit: Hit) -> bool:
            left, right = self._left.get(_identity(hit.key)), self._right.get(_identity(hit.key))
            return left is not None and right is not None and left[0] == right[0]

        return [(place, hit) for place, hit in rows if steady(hit)]

    def _common(self, rows: list[_Row]) -> list[Hashable]:
        return [
            identity for _, hit in rows if (identity := _identity(hit.key)) in self._left and identity in self._right
        ]


def agree(primary: Image, secondary: Image) -> bool:
    """Whether both stores hold the same under a key: the same document at the same version, or no document. Something
    unreadable agrees with nothing."""
    if not is_copyable(primary) or not is_copyable(secondary):
        return False
    if primary.document is None or secondary.document is None:
        return primary.document is None and secondary.document is None
    return primary.state == secondary.state and same(primary.document, secondary.document)
