"""Collations that are the same on both stores: `simple`, and English at strength 1 to 3, in equalities of a filter.

MongoDB compares by ICU 57, whose tables are those of Unicode 8; a newer ICU would give other answers. `pyuca` has the
same tables. The tests compare every character, and strings of them, with a real server.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from bson import Regex

from shadow.errors import UnsupportedOperation
from shadow.model.schema import CollationSpec
from shadow.model.version import Document
from shadow.mongoql.values.failures import failure

__all__ = [
    "COLLATED",
    "collated",
    "collation_key",
    "compares_texts",
    "computes",
    "is_collated",
    "predicate_of",
    "uncollated",
]

COLLATED: Final = "$collated"
"""The operator that stands for an equality by a collation, `{"v": [text], "s": strength, "l": locale}`. No application
has it."""

_KEPT: Final = frozenset({
    "$exists", "$type", "$size", "$mod", "$regex", "$options",
    "$bitsAllSet", "$bitsAnySet", "$bitsAllClear", "$bitsAnyClear",
})  # fmt: skip
"""Operators that compare no texts, or as no collation changes it."""
_ANY_COLLATION: Final = frozenset({
    "$set", "$unset", "$inc", "$mul", "$rename", "$setOnInsert", "$currentDate", "$bit", "$pop",
})  # fmt: skip
"""Updates that compare no texts."""
_OTHERWISE: Final = "DynamoDB compares by bytes; equalities by English at strength 1 to 3 are supported"


# --- keys -------------------------------------------------------------------------------------------------------


@functools.cache
def _collator() -> Any:
    from pyuca.collator import Collator_8_0_0  # its tables take half a second to load

    return Collator_8_0_0()


@functools.lru_cache(maxsize=4096)
def collation_key(text: str, strength: int) -> tuple[int, ...]:
    """Equal for texts that are equal at this strength, 1 to 3."""
    # Without `normalization`, the server takes each character apart, but does not reorder accents.
    apart = "".join(map(_apart, text))
    elements = [element for element in _elements(apart) if element]
    primary = tuple(element[0] for element in elements if element[0])
    if strength == 1:
        return primary
    key = (*primary, 0, *(element[1] for element in elements if len(element) > 1 and element[1]))
    if strength == 2:
        return key
    return (*key, 0, *(element[2] for element in elements if len(element) > 2 and element[2]))


_SYMBOLS: Final = frozenset({0x20A8, 0xFDFC})
"""Signs of currencies that the server, as CLDR, doesn't take for the letters that Unicode's table has for them."""
_OWN_WEIGHT: Final = 0x10000
"""Above every weight of Unicode's table, which are of 16 bits."""


def _elements(text: str) -> Iterator[Any]:
    """The collation elements, of the longest contractions. `pyuca` has a rule of its own for a contraction that is
    interrupted by other accents; the server's is S2.1.1 to S2.1.3 of UTS #10, also in text that is not normalized."""
    codes = [ord(character) for character in text]
    place = 0
    while place < len(codes):
        node, after = _longest(codes, place)
        if codes[place] in _SYMBOLS:
            yield [_OWN_WEIGHT + codes[place], 32, 2]
            place += 1
            continue
        if node is None:
            yield from _collator().implicit_weight(codes[place])
            place += 1
            continue
        blocking, ahead = 0, after
        while node.children is not None and ahead < len(codes) and (kind := _class(codes[ahead])):
            longer = node.children.get(codes[ahead]) if blocking < kind else None
            if longer is not None and longer.value:
                node = longer
                del codes[ahead]
            else:
                blocking = kind
                ahead += 1
        yield from node.value
        place = after


def _longest(codes: list[int], place: int) -> tuple[Any, int]:
    """The node of the longest entry that begins at the place, and the place after it; None if there is none."""
    node, found, after = _collator().table.root, None, place
    while place < len(codes) and node.children is not None and codes[place] in node.children:
        node = node.children[codes[place]]
        place += 1
        if node.value:
            found, after = node, place
    return found, after


@functools.lru_cache(maxsize=4096)
def _class(code: int) -> int:
    """The canonical combining class in Unicode 8, 0 to 254."""
    kind = unicodedata.combining(chr(code))
    return kind if kind and _is_known(code) else 0


@functools.lru_cache(maxsize=4096)
def _apart(character: str) -> str:
    return unicodedata.normalize("NFD", character) if _is_known(ord(character)) else character


_IDEOGRAPHS: Final = (
    (0x3400, 0x4DB5), (0x4E00, 0x9FD5), (0xAC00, 0xD7A3), (0x20000, 0x2A6D6), (0x2A700, 0x2B734), (0x2B740, 0x2B81D),
    (0x2B820, 0x2CEA1),
)  # fmt: skip


def _is_known(code: int) -> bool:
    """Whether Unicode 8 has the character: later ones are taken as they are."""
    if any(low <= code <= high for low, high in _IDEOGRAPHS):
        return True
    _, value, rest = _collator().table.find_prefix([code])
    if value and not rest:
        return True
    composed = unicodedata.decomposition(chr(code))
    return (
        bool(composed) and not composed.startswith("<") and all(_is_known(int(part, 16)) for part in composed.split())
    )


# --- filters ----------------------------------------------------------------------------------------------------


def collated(filter: Document, by: CollationSpec) -> Document:
    """The filter with each equality of texts by the collation. Raises UnsupportedOperation for what compares texts
    otherwise."""
    made: Document = {}
    for name, value in filter.items():
        if name in ("$and", "$or", "$nor") and isinstance(value, list):
            made[name] = [collated(each, by) if isinstance(each, dict) else each for each in value]
        elif name == "$comment":
            made[name] = value
        elif name.startswith("$"):
            raise _refusal(name)
        else:
            made[name] = _field(value, by)
    return made


def _equal(texts: list[str], by: CollationSpec) -> Document:
    # The server needs the locale: it has an index for the query only if that is the index's own.
    return {"v": texts, "s": by.strength, "l": by.locale}


def _field(value: Any, by: CollationSpec) -> Any:
    if isinstance(value, dict) and next(iter(value), "").startswith("$") and "$ref" not in value:
        return _operators(value, by)
    if type(value) is str:
        return {COLLATED: _equal([value], by)}
    _check_no_text("$eq", value)
    return value


def _operators(given: Document, by: CollationSpec) -> Document:
    made: Document = {}
    for name, operand in given.items():
        texts = operand if isinstance(operand, list) else [operand]
        if name in ("$eq", "$in", "$ne", "$nin") and texts and all(type(each) is str for each in texts):
            equal = {COLLATED: _equal(texts, by)}
            places = equal if name in ("$eq", "$in") else {"$not": equal}
            if made.keys() & places.keys():
                raise _refusal(name)
            made |= places
        elif name == "$not" and isinstance(operand, dict) and "$not" not in made:
            made[name] = _operators(operand, by)
        elif name in _KEPT or (name == "$not" and isinstance(operand, Regex)):
            made[name] = operand
        elif name in ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte"):
            _check_no_text(name, operand)
            made[name] = operand
        else:
            raise _refusal(name)
    return made


def _check_no_text(name: str, value: Any) -> None:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, str):
        raise _refusal(name)
    for each in inner:
        _check_no_text(name, each)


def _refusal(name: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"collation with {name}", _OTHERWISE)


def is_collated(filter: Any) -> bool:
    """Whether an equality by a collation is in the filter."""
    if isinstance(filter, dict):
        return COLLATED in filter or any(is_collated(each) for each in filter.values())
    return isinstance(filter, list) and any(is_collated(each) for each in filter)


def computes(projection: Any) -> bool:
    """Whether a projection has an operator, which may compare texts."""
    if isinstance(projection, dict):
        return any(name.startswith("$") or computes(value) for name, value in projection.items())
    return isinstance(projection, list) and any(map(computes, projection))


def uncollated(filter: Document) -> tuple[Document, Document]:
    """The filter as the application gave it, and its collation, for MongoDB; {} if it has none."""
    if not is_collated(filter):
        return filter, {}
    found: list[Document] = []
    plain = _plain(filter, found)
    return plain, {"locale": found[0]["l"], "strength": min(each["s"] for each in found)}


def _plain(value: Any, found: list[Document]) -> Any:
    if isinstance(value, list):
        return [_plain(each, found) for each in value]
    if not isinstance(value, dict):
        return value
    made: Document = {}
    for name, inner in value.items():
        if name == COLLATED:
            found.append(inner)
            made["$in"] = inner["v"]
        else:
            made[name] = _plain(inner, found)
    return made


def predicate_of(operand: Any) -> Any:
    """Whether a value is equal to one of the texts. Raises OperationFailure for another operand."""
    try:
        strength, texts = operand["s"], operand["v"]
        wanted = {collation_key(text, strength) for text in texts}
    except (KeyError, TypeError):
        raise failure(2, f"unknown operator: {COLLATED}") from None
    return lambda value: type(value) is str and collation_key(value, strength) in wanted


def compares_texts(update: Document | list[Document], filters: tuple[Document, ...]) -> bool:
    """Whether an update depends on the collation: by its own comparisons, or by the element that the filter matched."""
    if isinstance(update, list) or filters or not set(update) <= _ANY_COLLATION:
        return True
    paths = [path for fields in update.values() if isinstance(fields, dict) for path in fields]
    return any("$" in path.split(".") for path in paths)
