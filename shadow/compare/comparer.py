"""The comparator: whether two answers are equal under the comparison rules, and how two images differ.

Large values are compared in a thread, so that the event loop is not blocked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from shadow.compare.answers import compare_values, less_open
from shadow.compare.diff import Hasher, explain, explain_images, explain_lack
from shadow.compare.equality import Comparison, KeyDifference, agree, compare_documents, compare_hits
from shadow.compare.rules import Excuses
from shadow.model.operation import Hit, Query
from shadow.model.reads import ValueRead
from shadow.model.stored import RawDocument, is_copyable
from shadow.model.verdict import Difference, Kind
from shadow.model.version import Document, Image

__all__ = ["Comparator", "Seen", "is_heavy"]

HEAVY: Final = 2_000
"""Values, of both sides together, beyond which a thread compares; at worst a comparison of some milliseconds."""

_TEXT: Final = 64
"""Characters or bytes that cost about as much as one value."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Seen:
    """A comparison, without what the rules named in `excused` ignore."""

    comparison: Comparison
    excused: tuple[str, ...] = ()


class Comparator:
    """Thread-safe."""

    def __init__(self, hasher: Hasher, excuses: Excuses) -> None:
        self._hasher = hasher
        self._excuses = excuses

    async def hits(self, collection: str, query: Query, primary: Sequence[Hit], secondary: Sequence[Hit]) -> Seen:
        """`compare_hits` of two answers, under the comparison rules."""
        documents = [hit.document for answer in (primary, secondary) for hit in answer]
        return await _bounded(documents, self._hits, collection, query, primary, secondary)

    async def values(self, read: ValueRead, primary: Any, secondary: Any) -> Comparison:
        """`compare_values` of two answers that name no documents."""
        return await _bounded([primary, secondary], compare_values, read, primary, secondary)

    async def agree(self, collection: str, primary: Image, secondary: Image) -> tuple[str, ...] | None:
        """The names of the rules under which both images are equal (none if they are equal without rules); None if they
        differ in spite of the rules. No rule applies to images at different versions."""
        return await _bounded([primary.document, secondary.document], self._agree, collection, primary, secondary)

    async def describe(self, primary: Image, secondary: Image) -> tuple[Kind, tuple[Difference, ...]]:
        """How and where two images differ; no difference if they are equal."""
        return await _bounded([primary.document, secondary.document], self._describe, primary, secondary)

    async def explain(self, primary: Document, secondary: Document) -> tuple[Difference, ...]:
        """Where two documents differ."""
        return await _bounded([primary, secondary], lambda: explain(primary, secondary, hasher=self._hasher))

    async def point_out(self, found: KeyDifference) -> tuple[Difference, ...]:
        """Where the two answers differ in a found difference: one lacks the document, or both have it."""
        if found.primary is not None and found.secondary is not None:
            return await self.explain(found.primary.document, found.secondary.document)
        hit = found.primary or found.secondary
        kind = Kind.MISSING if found.secondary is None else Kind.EXTRA
        return (explain_lack(None if hit is None else hit.document, hasher=self._hasher, kind=kind),)

    def taken(self, collection: str, names: Sequence[str]) -> None:
        """Counts rules that were needed."""
        self._excuses.taken(collection, names)

    def _hits(self, collection: str, query: Query, primary: Sequence[Hit], secondary: Sequence[Hit]) -> Seen:
        found = less_open(query, compare_hits(query, primary, secondary))
        rest, names = [], dict[str, None]()
        for each in found.keys:
            taken = None
            if each.primary is not None and each.secondary is not None and _is_excusable(each):
                taken = self._excuses.excuse(collection, each.primary.document, each.secondary.document)
            if taken:
                names.update(dict.fromkeys(taken))
            else:
                rest.append(each)
        return Seen(Comparison(tuple(rest), found.incomparable), tuple(names)) if names else Seen(found)

    def _agree(self, collection: str, primary: Image, secondary: Image) -> tuple[str, ...] | None:
        if agree(primary, secondary):
            return ()
        if primary.document is None or secondary.document is None or primary.state != secondary.state:
            return None
        if not is_copyable(primary) or not is_copyable(secondary):
            return None  # what a rule would ignore in it is unknown
        if isinstance(primary.document, RawDocument) or isinstance(secondary.document, RawDocument):
            return None  # rules use the driver's values, which do not show the difference
        return self._excuses.excuse(collection, primary.document, secondary.document)

    def _describe(self, primary: Image, secondary: Image) -> tuple[Kind, tuple[Difference, ...]]:
        differences: tuple[Difference, ...] = ()
        if primary.document is not None and secondary.document is not None:
            differences = explain(primary.document, secondary.document, hasher=self._hasher)
        differences = differences or explain_images(primary, secondary, hasher=self._hasher)
        if secondary.document is None:
            return Kind.MISSING, differences
        if primary.document is None:
            return Kind.EXTRA, differences
        if not is_copyable(primary) or not is_copyable(secondary):
            return Kind.UNREADABLE, differences
        if primary.state != secondary.state:
            return Kind.VERSION_LOST, differences
        return compare_documents(primary.document, secondary.document) or Kind.VALUE, differences


def _is_excusable(each: KeyDifference) -> bool:
    documents = (hit.document for hit in (each.primary, each.secondary) if hit is not None)
    return all(type(document) is dict for document in documents)


async def _bounded(values: Sequence[Any], work: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T:
    if is_heavy(values):
        return await asyncio.to_thread(work, *arguments, **options)
    return work(*arguments, **options)


def is_heavy(values: Sequence[Any]) -> bool:
    """Whether `values` contain more than `HEAVY` values, where a long text counts as several."""
    left, rest = HEAVY, list[Any]((values,))
    while rest:
        inner = rest.pop()
        left -= len(inner)
        if left < 0:
            return True
        for each in inner.values() if type(inner) is dict else inner:
            kind = type(each)
            if kind is dict or kind is list:
                rest.append(each)
            elif (kind is str or kind is bytes) and len(each) > _TEXT:
                left -= len(each) // _TEXT
    return left < 0
