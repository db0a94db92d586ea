"""How a dotted path of a filter traverses a document: implicit array traversal, positions, missing fields.

The rules are those of the server's `ElementPath` and `BSONElementIterator`: a scalar on the way yields "missing", a
scalar inside an array yields nothing, and an element reached by position is not traversed further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from shadow.model.order import MISSING, as_document

__all__ = ["NOWHERE", "Predicate", "as_mapping", "finder", "matcher", "position"]

Predicate: TypeAlias = Callable[[Any], bool]
"""Tests one element, `MISSING` included."""

NOWHERE: Final = -1
"""A match that is in no array."""


def position(name: str) -> int:
    """The array position that a path component names, or -1."""
    if name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") and len(name) < 12:
        return int(name)
    return -1


def as_mapping(value: Any) -> Any:
    """An array as its BSON object; anything else unchanged."""
    return {str(i): v for i, v in enumerate(value)} if type(value) is list else as_document(value)


def matcher(path: str, predicate: Predicate, *, traverse: bool = True) -> Callable[[Any], bool]:
    """Whether any element at `path` satisfies `predicate`.

    `traverse`: an array at the end of the path yields its elements, then itself; otherwise only itself.
    """
    parts = path.split(".")
    if len(parts) > 1:
        return lambda document: _search(document, parts, 0, predicate, traverse) is not None
    if not traverse:
        return lambda document: predicate(document.get(path, MISSING))

    def match(document: Any) -> bool:
        value = document.get(path, MISSING)
        if type(value) is list:
            for element in value:
                if predicate(element):
                    return True
        return predicate(value)

    return match


def finder(path: str, predicate: Predicate, *, traverse: bool = True) -> Callable[[Any], int | None]:
    """Like `matcher`, but returns the match's position in the outermost array, `NOWHERE`, or None for no match."""
    parts = path.split(".")
    return lambda document: _search(document, parts, 0, predicate, traverse)


def _search(container: Any, parts: list[str], start: int, predicate: Predicate, traverse: bool) -> int | None:
    last = len(parts) - 1
    value = container
    for i in range(start, last + 1):
        value = value.get(parts[i], MISSING)
        kind = type(value)
        if kind is list:
            if i == last:
                return _leaf(value, predicate, traverse)
            return _elements(value, parts, i + 1, predicate, traverse)
        if i == last:
            break
        if kind is not dict:
            value = as_document(value)
            if type(value) is not dict:
                value = MISSING
                break
    return NOWHERE if predicate(value) else None


def _leaf(array: list[Any], predicate: Predicate, traverse: bool) -> int | None:
    if traverse:
        for i, element in enumerate(array):
            if predicate(element):
                return i
    return NOWHERE if predicate(array) else None


def _elements(array: list[Any], parts: list[str], rest: int, predicate: Predicate, traverse: bool) -> int | None:
    wanted = position(parts[rest])
    for i, element in enumerate(array):
        inner = as_document(element)
        if type(inner) is dict and _search(inner, parts, rest, predicate, traverse) is not None:
            return i
        if i == wanted:
            found = _at_position(inner, parts, rest, predicate, traverse)
            if found is not None:
                return found
    return None


def _at_position(element: Any, parts: list[str], at: int, predicate: Predicate, traverse: bool) -> int | None:
    """An element that `parts[at]` selects by position: its array gives `$` no position."""
    if at == len(parts) - 1:
        return NOWHERE if predicate(element) else None
    if type(element) is dict:
        return _search(element, parts, at + 1, predicate, traverse)
    return _elements(element, parts, at + 1, predicate, traverse) if type(element) is list else None
