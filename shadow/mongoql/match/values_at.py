"""`distinct`: the distinct values at a path over many documents.

The traversal is that of the command `distinct`, which differs from that of filters: a position selects only the
element, not a field of that name, and an array at the end of the path is always expanded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shadow.model.order import as_document, order_key
from shadow.model.version import Document
from shadow.mongoql.values.paths import position
from shadow.mongoql.values.references import with_references

__all__ = ["distinct_values"]


def distinct_values(path: str, documents: Iterable[Document]) -> list[Any]:
    """The distinct values (under MongoDB's equality) at the dotted `path`, in MongoDB's order, as the server returns
    them; of equal values, the first one. An array at the end of the path counts as its elements, an empty one and a
    missing field as nothing."""
    parts = path.split(".")
    found: dict[Any, Any] = {}
    for document in documents:
        for value in _walk(document, parts, 0):
            found.setdefault(order_key(value), value)
    return [with_references([found[key]])[0] for key in sorted(found)]


def _walk(value: Any, parts: list[str], at: int) -> Iterator[Any]:
    if at == len(parts):
        yield from value if type(value) is list else (value,)
        return
    if type(value) is not list:
        inner = as_document(value)
        if isinstance(inner, dict) and parts[at] in inner:
            yield from _walk(inner[parts[at]], parts, at + 1)
        return
    place = position(parts[at])
    if place >= 0:
        if place < len(value):
            yield from _walk(value[place], parts, at + 1)
        return
    for element in value:
        if type(element) is not list:
            yield from _walk(element, parts, at)
