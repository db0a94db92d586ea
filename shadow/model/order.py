"""MongoDB's order of BSON values, as plain Python keys: which comes first, which are equal, how documents sort.

The order of types and the rules within a type are those of the server's `canonicalizeBSONType` and
`BSONElement::compareElements`; sort keys over arrays are those of its index key generator. The differential tests in
`tests/compat` check this module against a real mongod.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.decimal128 import create_decimal128_context
from bson.son import SON
from pymongo.errors import OperationFailure

from shadow.model.outcome import details_of
from shadow.model.version import Document

__all__ = [
    "MISSING",
    "UNDEFINED",
    "as_document",
    "binary_data",
    "canonical_type",
    "equal",
    "key_digest",
    "millis",
    "order_key",
    "regex_flags",
    "sort_documents",
]

T = TypeVar("T")


class _Nothing:
    """A missing value. Compares like BSON's undefined: before null."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


MISSING: Final = _Nothing("MISSING")
"""The value at a path where a document has nothing."""

UNDEFINED: Final = _Nothing("UNDEFINED")
"""The sort key of an empty array."""

_EPOCH = dt.datetime(1970, 1, 1)
_MILLISECOND = dt.timedelta(milliseconds=1)
CONTEXT: Final = create_decimal128_context()

_FLAGS: Final = ((2, "i"), (4, "l"), (8, "m"), (16, "s"), (32, "u"), (64, "x"))


def millis(value: dt.datetime | DatetimeMS) -> int:
    """A date as milliseconds since 1970; a naive datetime is UTC."""
    if isinstance(value, DatetimeMS):
        return int(value)
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return (value - _EPOCH) // _MILLISECOND


def regex_flags(flags: int) -> str:
    """The option letters of a regular expression as BSON stores them: in alphabetical order."""
    return "".join(letter for bit, letter in _FLAGS if flags & bit)


def as_document(value: Any) -> Any:
    """`value`, with a DBRef converted to its BSON document."""
    return dict(value.as_doc()) if type(value) is DBRef else value


_TYPES: Final[dict[type, int]] = {
    MinKey: -1,
    _Nothing: 0,
    type(None): 5,
    int: 10,
    Int64: 10,
    float: 10,
    Decimal128: 10,
    str: 15,
    dict: 20,
    SON: 20,
    DBRef: 20,
    list: 25,
    bytes: 30,
    Binary: 30,
    ObjectId: 35,
    bool: 40,
    dt.datetime: 45,
    DatetimeMS: 45,
    Timestamp: 47,
    Regex: 50,
    MaxKey: 127,
}


def canonical_type(value: Any) -> int:
    """The rank of the value's type in the order of types. All kinds of numbers share one."""
    kind = type(value)
    if kind is Code:
        return 60 if value.scope is None else 65
    return _TYPES[kind]


def _decimal(value: Decimal128) -> tuple[Any, ...]:
    exact = value.to_decimal()
    if exact.is_nan():
        return (10, -math.inf, 0)
    if exact.is_infinite():
        return (10, math.inf if exact > 0 else -math.inf, 1)
    return (10, exact, 1)


def _float(value: float) -> tuple[Any, ...]:
    return (10, value, 1) if value == value else (10, -math.inf, 0)


def binary_data(value: bytes) -> bytes:
    """The bytes as the server compares them: the old binary subtype repeats its length inside."""
    data = bytes(value)
    old = isinstance(value, Binary) and value.subtype == 2
    return len(data).to_bytes(4, "little") + data if old else data


def _binary(value: bytes) -> tuple[Any, ...]:
    data = binary_data(value)
    return (30, len(data), value.subtype if isinstance(value, Binary) else 0, data)


def _object(value: dict[str, Any]) -> tuple[Any, ...]:
    return (20, tuple([(canonical_type(v), name, order_key(v)) for name, v in value.items()]))


def _code(value: Code) -> tuple[Any, ...]:
    return (60, str(value)) if value.scope is None else (65, str(value), _object(dict(value.scope)))


_KEYS: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    str: lambda v: (15, v),
    int: lambda v: (10, v, 1),
    Int64: lambda v: (10, v, 1),
    float: _float,
    bool: lambda v: (40, v),
    type(None): lambda v: (5,),
    _Nothing: lambda v: (0,),
    dict: _object,
    SON: _object,
    DBRef: lambda v: _object(v.as_doc()),
    list: lambda v: (25, tuple([order_key(e) for e in v])),
    dt.datetime: lambda v: (45, millis(v)),
    DatetimeMS: lambda v: (45, int(v)),
    ObjectId: lambda v: (35, v.binary),
    bytes: _binary,
    Binary: _binary,
    Decimal128: _decimal,
    Timestamp: lambda v: (47, v.time, v.inc),
    Regex: lambda v: (50, v.pattern, regex_flags(v.flags)),
    Code: _code,
    MinKey: lambda v: (-1,),
    MaxKey: lambda v: (127,),
}


def order_key(value: Any) -> tuple[Any, ...]:
    """A comparable and hashable key: keys compare as MongoDB compares the values, and equal keys mean equal values.

    `value` is canonical (`model.values.CANONICAL`), `MISSING` or `UNDEFINED`. Raises KeyError for any other type.
    """
    return _KEYS[type(value)](value)


def equal(a: Any, b: Any) -> bool:
    """MongoDB's equality: 1 == 1.0, NaN == NaN, the order of an object's fields counts."""
    return order_key(a) == order_key(b)


def key_digest(value: Any) -> str:
    """64 hex digits, equal exactly for values that MongoDB treats as equal (SHA-256 of their order key)."""
    return hashlib.sha256("".join(_text(order_key(value))).encode("utf-8", "surrogatepass")).hexdigest()


def _text(part: Any) -> Iterable[str]:
    """An unambiguous text of a key: every piece includes its length."""
    if isinstance(part, tuple):
        yield f"({len(part)}:"
        for piece in part:
            yield from _text(piece)
    elif isinstance(part, str):
        yield f"s{len(part)}:{part}"
    elif isinstance(part, bytes):
        yield f"b{part.hex()};"
    else:
        yield _number_text(part)


def _number_text(part: Any) -> str:
    if isinstance(part, float) and math.isinf(part):
        return f"n{part};"
    top, bottom = part.as_integer_ratio()
    # Hexadecimal, because a decimal's exponent can exceed Python's limit for decimal int-to-text conversion.
    return f"n{top:x}/{bottom:x};"


# -- sorting ------------------------------------------------------------------------------------------------------


@functools.total_ordering
class _Descending:
    __slots__ = ("key",)

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.key == other.key

    def __lt__(self, other: _Descending) -> bool:
        return other.key < self.key

    def __hash__(self) -> int:
        return hash(self.key)


def sort_documents(
    docs: Iterable[T],
    sort: Sequence[tuple[str, int]],
    key: Callable[[T], Document] = lambda d: d,  # type: ignore[assignment,return-value]
) -> list[T]:
    """`docs` in the order of `sort` (pairs of dotted path and 1 or -1), stable. `key` returns an item's document.

    A missing field sorts as null, an empty array before null, an array by its least element (its greatest when
    descending). Raises OperationFailure: code 2 for parallel arrays, 16746 for an ambiguous position.
    """
    make = sort_key(sort)
    return sorted(docs, key=lambda item: make(key(item)))


def sort_key(sort: Sequence[tuple[str, int]], *, alone: bool = True) -> Callable[[Document], Any]:
    """A function from a document to its key under `sort`. `alone`: nothing else is sorted by."""
    paths = [path for path, _ in sort]
    ascending = [direction > 0 for _, direction in sort]
    if paths == ["_id"] and alone:
        return _by_id(ascending[0])

    def directed(values: Sequence[Any]) -> tuple[Any, ...]:
        keys = [order_key(v) for v in values]
        return tuple([k if up else _Descending(k) for k, up in zip(keys, ascending, strict=True)])

    def make(document: Document) -> tuple[Any, ...]:
        simple = [_simple(document, path) for path in paths]
        if _ARRAY not in simple:
            return directed(simple)
        return min(directed(values) for values in index_keys(document, paths))

    return make


def _by_id(ascending: bool) -> Callable[[Document], Any]:
    """When sorting by `_id` alone, a list counts as a whole, as in the index over `_id`; `$group` may produce one."""

    def make(document: Document) -> Any:
        key = order_key(document.get("_id"))
        return key if ascending else _Descending(key)

    return make


class _Array:
    """Marks a path that meets an array and needs the general algorithm."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


_ARRAY: Final = _Array()


def _simple(document: Any, path: str) -> Any:
    """The value at a path that meets no array (null if missing), or `_ARRAY`."""
    value = document
    for name in path.split("."):
        value = as_document(value)
        value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
        if type(value) is list:
            return _ARRAY
    return None if value is MISSING else value


def index_keys(document: Document, paths: Sequence[str], *, sparse: bool = False) -> list[tuple[Any, ...]]:
    """All keys that an index over `paths` would hold for the document, as the server's key generator makes them. A
    sparse index has none if all its paths end in nothing, even within one element of an array."""
    keys: list[tuple[Any, ...]] = []
    rest: list[str | None] = list(paths)
    _with_array(document, rest, [None] * len(paths), [None] * len(paths), keys, len(paths) if sparse else None)
    return keys


def _along(container: Any, path: str) -> tuple[Any, str | None]:
    """The element at `path`, or the first array on the way to it, and the rest of the path (None: nothing)."""
    name, _, rest = path.partition(".")
    value = as_document(_child(container, name))
    if value is MISSING:
        return MISSING, None
    if type(value) is list or not rest:
        return value, rest or None
    return _along(value, rest) if type(value) is dict else (MISSING, None)


def _child(container: Any, name: str) -> Any:
    if isinstance(container, dict):
        return container.get(name, MISSING)
    if type(container) is list and name.isascii() and name.isdigit() and str(int(name)) == name:
        return container[int(name)] if int(name) < len(container) else MISSING
    return MISSING


def _refusal(code: int, text: str) -> OperationFailure:
    return OperationFailure(text, code, details_of(code, text))


_Positional = tuple[Any, Any, str | None]
"""The element that a path component selects by position, the element further along the path, the rest of it."""


def _next(container: Any, path: str, positional: _Positional | None) -> tuple[Any, str | None, bool]:
    """The next element of one path: value, rest of the path, whether an array was reached by position."""
    has_field = _child(container, path.partition(".")[0]) is not MISSING
    if has_field and positional is not None:
        raise _refusal(16746, f"Ambiguous field name found in array: path {path!r}")
    if has_field:
        value, rest = _along(container, path)
        return value, rest, False
    if positional is not None:
        element, value, rest = positional
        return value, rest, type(element) is list
    return MISSING, None, False


def _with_array(
    container: Any,
    rests: list[str | None],
    fixed: list[Any],
    positional: Sequence[_Positional | None],
    keys: list[tuple[Any, ...]],
    wanted: int | None,
) -> None:
    """`wanted`: how many paths must still end in nothing for there to be no key; None: there always is one."""
    array: Any = None
    reached: list[int] = []
    expand = True
    for i, path in enumerate(rests):
        if path is None:
            continue
        value, rest, nested = _next(container, path, positional[i])
        rests[i] = rest
        if value is MISSING:
            fixed[i] = None
            wanted = None if wanted is None else wanted - 1
        elif type(value) is list:
            if array is not None and array is not value:
                raise _refusal(2, "cannot sort with keys that are parallel arrays")
            array = value
            reached.append(i)
            expand = expand and not (nested and rest is None)
        else:
            fixed[i] = value
    if array is None:
        if wanted != 0:
            keys.append(tuple(fixed))
        return
    info = [_position(array, rest) if rest is not None else None for rest in rests] if array else [None] * len(rests)
    for element in array or [UNDEFINED]:
        values = list(fixed)
        for i in reached:
            if rests[i] is None:
                values[i] = element if expand or not array else array
        inner = as_document(element)
        _with_array(inner if type(inner) is dict else {}, list(rests), values, info, keys, wanted)


def _position(array: list[Any], rest: str) -> _Positional | None:
    element = _child(array, rest.partition(".")[0])
    if element is MISSING:
        return None
    value, left = _along(array, rest)
    return element, value, left
