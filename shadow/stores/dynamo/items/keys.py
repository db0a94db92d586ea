"""Key texts: the form of a BSON value in a key attribute (`_id`, or the hash or range attribute of an index).

DynamoDB's keys are typed, non-empty and short; MongoDB's `_id` may be nearly anything. A key text is a string for any
value. Two values have the same text exactly where MongoDB treats them as equal (5, 5.0 and Decimal128("5") share one):

    ObjectId                     its 24 hex digits
    string                       itself
    string that is empty, looks like an ObjectId, or begins with "~"      ~str:<string>
    string over the limit        ~strx:<digest>
    whole number of any type     ~num:<decimal digits>
    date                         ~date:<ISO 8601>, so that texts sort as dates do (outside the years that Python
                                 supports: ~date:-<ms> and ~date:A<ms>)
    bool, null                   ~bool:true, ~bool:false, ~null
    anything else                ~<type>:<digest>

In addition, an index has `~array` for a list (MongoDB's multikey), and a range attribute has `~missing` for a field
that the document does not have; `~part:` and `~unique:` begin the keys of auxiliary items.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from bson import DatetimeMS, Decimal128, Int64, ObjectId

from shadow.model.order import key_digest
from shadow.model.schema import IndexSpec
from shadow.model.values import type_name
from shadow.stores.dynamo.client.limits import HASH_LIMIT, RANGE_LIMIT

__all__ = [
    "ARRAY",
    "MISSING",
    "asked_texts",
    "date_of",
    "date_text",
    "decode_key",
    "is_natural",
    "joined",
    "key_limits",
    "key_text",
    "part_key",
    "short_name",
    "text_and_exactness",
    "unique_key",
]

ARRAY: Final = "~array"
MISSING: Final = "~missing"
NULL: Final = "~null"

_OBJECT_ID: Final = re.compile(r"[0-9a-f]{24}")
_EPOCH: Final = dt.datetime(1970, 1, 1)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_LONGEST_INTEGER: Final = 34
_FIRST_DIGEST: Final = int(10.0**_LONGEST_INTEGER)
"""The smallest double that is written as a digest. It is a little less than the power of ten, so that a decimal written
by its digits has the same value."""
_LONGEST_NAME: Final = 1_024
"""Bytes of a constraint's name in the key of an item; MongoDB sets no limit to the name of an index."""
_DATE_LENGTH: Final = 24
_DATE_MARKS: Final = "--T::."
"""The separators between the parts of a date."""


def date_text(value: dt.datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z; of fixed length, so the texts sort as the dates do."""
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return value.isoformat(timespec="milliseconds") + "Z"


def date_of(text: str) -> dt.datetime:
    """The naive UTC datetime that `date_text` wrote. Raises ValueError for any other text: Python accepts more than one
    form of ISO 8601."""
    if len(text) != _DATE_LENGTH or text[4:20:3] != _DATE_MARKS or text[-1] != "Z":
        raise ValueError("not a date as it is written here")
    return dt.datetime.fromisoformat(text[:-1])


def is_natural(text: str) -> bool:
    """Whether a string may be its own key text, apart from its length."""
    return text != "" and not text.startswith("~") and _OBJECT_ID.fullmatch(text) is None


def key_text(value: Any, limit: int = HASH_LIMIT) -> str:
    return text_and_exactness(value, limit)[0]


@functools.lru_cache(maxsize=1024)
def key_limits(indexes: tuple[IndexSpec, ...]) -> Mapping[str, int]:
    """The maximum length in bytes of the key text of each field that is the key of an index by itself. One attribute
    serves all indexes, so a field that is the range of any index has the limit of a range everywhere."""
    limits = {index.hash: HASH_LIMIT for index in indexes if not index.fields}
    limits.update({index.range: RANGE_LIMIT for index in indexes if index.range is not None})
    return MappingProxyType(limits)


def asked_texts(value: Any) -> tuple[str, ...]:
    """The texts under which a hash attribute may store `value`: two, where the limits of a hash and of a range differ.

    The text for the current limit is not enough: documents may have been written under another description of the
    collection, and other processes may not have loaded the new description yet.
    """
    text = key_text(value)
    return (text, key_text(value, RANGE_LIMIT)) if len(text) * 4 > RANGE_LIMIT else (text,)


def joined(texts: Sequence[str]) -> str:
    """One text for several key texts: with their lengths, so that different lists have different texts."""
    text = "".join(f"{len(each)}:{each}" for each in texts)
    return text if len(text.encode()) <= HASH_LIMIT else f"~all:{hashlib.sha256(text.encode()).hexdigest()}"


def text_and_exactness(value: Any, limit: int = HASH_LIMIT) -> tuple[str, bool]:
    """The key text of `value` in at most `limit` bytes, and whether `decode_key` gives back exactly `value`."""
    maker = _MAKERS.get(type(value))
    if maker is not None:
        return maker(value, limit)
    return f"~{type_name(value)}:{key_digest(value)}", False


def _of_str(value: str, limit: int) -> tuple[str, bool]:
    text = value if is_natural(value) else f"~str:{value}"
    if len(text) * 4 > limit and len(text.encode()) > limit:
        return f"~strx:{key_digest(value)}", False
    return text, True


def _of_object_id(value: ObjectId, _limit: int) -> tuple[str, bool]:
    return str(value), True


def _of_bool(value: bool, _limit: int) -> tuple[str, bool]:
    return ("~bool:true" if value else "~bool:false"), True


def _of_null(_value: None, _limit: int) -> tuple[str, bool]:
    return NULL, True


def _of_int(value: int, _limit: int) -> tuple[str, bool]:
    return f"~num:{int(value)}", type(value) is int or not -(2**31) <= value < 2**31


def _of_float(value: float, _limit: int) -> tuple[str, bool]:
    if value.is_integer() and abs(value) < 10.0**_LONGEST_INTEGER:
        return f"~num:{int(value)}", False
    return f"~numx:{key_digest(value)}", False


def _of_decimal(value: Decimal128, _limit: int) -> tuple[str, bool]:
    number = value.to_decimal()
    short = number.is_finite() and (not number or number.adjusted() < _LONGEST_INTEGER)
    if short and number == number.to_integral_value() and number.copy_abs() != _FIRST_DIGEST:
        return f"~num:{int(number)}", False
    return f"~numx:{key_digest(value)}", False


def _of_datetime(value: dt.datetime, _limit: int) -> tuple[str, bool]:
    return f"~date:{date_text(value)}", True


def _of_milliseconds(value: DatetimeMS, _limit: int) -> tuple[str, bool]:
    milliseconds = int(value)
    try:
        return f"~date:{date_text(_EPOCH + milliseconds * _MILLISECOND)}", False
    except OverflowError:
        return f"~date:{'-' if milliseconds < 0 else 'A'}{abs(milliseconds)}", False


_MAKERS: Final[dict[type, Callable[[Any, int], tuple[str, bool]]]] = {
    str: _of_str,
    ObjectId: _of_object_id,
    bool: _of_bool,
    type(None): _of_null,
    Int64: _of_int,
    int: _of_int,
    float: _of_float,
    Decimal128: _of_decimal,
    dt.datetime: _of_datetime,
    DatetimeMS: _of_milliseconds,
}


def decode_key(text: str) -> Any:
    """The value of an exact key text. Raises `ValueError` for a text that represents more than one value."""
    if not text.startswith("~"):
        return ObjectId(text) if _OBJECT_ID.fullmatch(text) else text
    kind, _, rest = text.partition(":")
    match kind:
        case "~str":
            return rest
        case "~num":
            number = int(rest)
            return number if -(2**31) <= number < 2**31 else Int64(number)
        case "~date":
            return date_of(rest)
        case "~bool":
            return rest == "true"
        case "~null":
            return None
    raise ValueError(f"not an exact key text: it begins with {kind}")


def part_key(head: str, generation: str, number: int) -> str:
    """The key of one part of a large document; `head` is the key text of the document itself."""
    return f"~part:{key_digest(head)}:{generation}:{number}"


def unique_key(constraint: str, values: Sequence[Any]) -> str:
    """The key of the uniqueness item for one tuple of values of one constraint (equality of values as in MongoDB's
    index)."""
    return f"~unique:{short_name(constraint)}:{key_digest(list(values))}"


def short_name(constraint: str) -> str:
    """A constraint's name as used in keys."""
    raw = constraint.encode()
    return constraint if len(raw) <= _LONGEST_NAME else f"~{hashlib.sha256(raw).hexdigest()}"
