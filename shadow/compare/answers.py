"""Equality of answers that name no documents: counts, distinct values, aggregates.

Strict where the server is strict. What the server leaves open (`pipelines.openness`) is never a difference: either both
answers are allowed and count as equal, or it cannot be decided and the answers are incomparable, with a reason.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import Decimal128

from shadow.compare.equality import Comparison, KeyDifference, compare_hits, counts, orders, same, whole
from shadow.compare.freedom import Freedom, OpenShape, agreed, near, near_numbers, unknown
from shadow.compare.pipelines import Openness, Rows, openness, projected
from shadow.model.operation import Hit, Query
from shadow.model.order import order_key
from shadow.model.reads import Aggregate, Count, Distinct, ValueRead
from shadow.model.stored import Damaged
from shadow.model.verdict import Incomparable, Kind
from shadow.model.version import Document, Version
from shadow.mongoql.values.fieldpaths import at_path

__all__ = ["compare_values", "less_open"]

_EQUAL: Final = Comparison()
_VALUES: Final = "$values"
"""The path of a difference between two lists of distinct values."""


def compare_values(read: ValueRead, primary: Any, secondary: Any) -> Comparison:
    """Compares two answers to a read that names no documents: numbers to a `Count`, lists to the others.

    `distinct` compares as a set under MongoDB's equality, because either of 1 and 1.0 may stand for both. Aggregates
    compare in order with ties free if the pipeline fixes an order, otherwise as multisets, without what it leaves open
    inside the documents. What may or may not be a difference is then `incomparable`. Differences name no document.
    """
    match read:
        case Count(estimated=True):
            return _EQUAL if primary == secondary else Comparison(incomparable=Incomparable.ESTIMATE)
        case Count():
            return _EQUAL if primary == secondary else Comparison((counts(primary, secondary),))
        case Distinct():
            return _compare_distinct(primary, secondary)
        case Aggregate(pipeline):
            return _compare_aggregates(pipeline, primary, secondary)


def _compare_distinct(primary: Sequence[Any], secondary: Sequence[Any]) -> Comparison:
    left, right = ({order_key(each): each for each in side} for side in (primary, secondary))
    if left.keys() == right.keys():
        return _EQUAL
    if len(primary) != len(secondary):
        return Comparison((counts(len(primary), len(secondary)),))
    only = [[value for key, value in a.items() if key not in b] for a, b in ((left, right), (right, left))]
    return Comparison((whole(Kind.VALUE, {_VALUES: only[0]}, {_VALUES: only[1]}),))


_NO_VERSION: Final = Version("", 0)


def less_open(query: Query, found: Comparison) -> Comparison:
    """The result of `compare_hits`, without what the expressions of the projection leave open in a document."""
    shape = projected(query.projection) if found.keys and query.projection else None
    if shape is None or shape.exact:
        return found
    rest = tuple(each for each in found.keys if not _both_right(each, shape))
    return found if len(rest) == len(found.keys) else Comparison(rest, found.incomparable)


def _both_right(each: KeyDifference, shape: OpenShape) -> bool:
    if not each.named or each.primary is None or each.secondary is None:
        return False
    return _text(agreed(each.primary.document, shape)) == _text(agreed(each.secondary.document, shape))


# -- aggregates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _OpenRow:
    """A row as the text of its fixed part: `sure` keeps what is open but allowed on both sides, `blind` also hides what
    cannot be known."""

    document: Document
    sure: str
    blind: str


def _compare_aggregates(
    pipeline: Sequence[Document], primary: Sequence[Document], secondary: Sequence[Document]
) -> Comparison:
    if len(primary) == len(secondary) and all(map(same, primary, secondary)):
        return _EQUAL
    known = openness(pipeline)
    if known.rows is Rows.OPEN:
        return Comparison(incomparable=Incomparable.PIPELINE_ORDER)
    if len(primary) != len(secondary) and not _shifts(known):
        return Comparison((counts(len(primary), len(secondary)),))
    if known.rows is Rows.COUNTED:
        return Comparison(incomparable=Incomparable.PIPELINE_ORDER)
    return _Rows(known, primary, secondary).compare()


def _shifts(known: Openness) -> bool:
    """Whether a window shows more about missing rows than their number."""
    return bool(known.sort) and known.seen and not known.fixed


class _Rows:
    """Two answers of which the set of rows is known."""

    def __init__(self, known: Openness, primary: Sequence[Document], secondary: Sequence[Document]) -> None:
        self._known = known
        self._left = [self._row(each) for each in primary]
        self._right = [self._row(each) for each in secondary]

    def _row(self, document: Document) -> _OpenRow:
        if type(document) is not dict:
            raw = (document.raw if isinstance(document, Damaged) else bson.encode(document)).hex()
            return _OpenRow(document, raw, raw)
        whole = {"_id": document["_id"], **document} if "_id" in document else document
        blind = unknown(whole, self._known.shape)
        return _OpenRow(
            document,
            _text(agreed(whole, self._known.shape)),
            _text(blind) if self._known.placed else _text(_unplaced(blind)),
        )

    def compare(self) -> Comparison:
        known = self._known
        if known.fixed:
            return self._in_sequence()
        if known.sort and known.seen:
            return self._in_window()
        if not known.sort:
            return self._as_bag()
        if known.cut:
            return Comparison(incomparable=Incomparable.PROJECTED_SORT)
        found = self._as_bag()
        return Comparison(found.keys, found.incomparable or Incomparable.PROJECTED_SORT)

    # -- order

    def _in_sequence(self) -> Comparison:
        pairs = list(zip(self._left, self._right, strict=True))
        if all(a.sure == b.sure for a, b in pairs):
            return _EQUAL
        bad = [pair for pair in pairs if not self._may_agree(*pair)]
        if not bad:
            return Comparison(incomparable=self._reason())
        if Counter(each.sure for each in self._left) == Counter(each.sure for each in self._right):
            places = {text: place for place, text in enumerate(dict.fromkeys(each.sure for each in self._left))}
            return Comparison((orders(*([places[row.sure] for row in side] for side in (self._left, self._right))),))
        return Comparison((whole(Kind.VALUE, bad[0][0].document, bad[0][1].document),))

    def _as_bag(self) -> Comparison:
        left, right = _less(self._left, self._right), _less(self._right, self._left)
        if not left:
            return _EQUAL
        pairs = list(self._pairs(left, right))
        bad = next((pair for pair in pairs if not self._may_agree(*pair)), None)
        if bad is None:
            return Comparison(incomparable=self._reason())
        return Comparison((whole(Kind.VALUE, bad[0].document, bad[1].document),))

    @staticmethod
    def _pairs(left: Sequence[_OpenRow], right: Sequence[_OpenRow]) -> Iterator[tuple[_OpenRow, _OpenRow]]:
        """Pairs of rows that may be the same, then the rest of both in their order."""
        places, others = defaultdict[str, list[_OpenRow]](list), list[_OpenRow]()
        for row in sorted(right, key=lambda row: row.sure, reverse=True):
            places[row.blind].append(row)
        for row in sorted(left, key=lambda row: row.sure):
            if places[row.blind]:
                yield row, places[row.blind].pop()
            else:
                others.append(row)
        yield from zip(others, (row for rows in places.values() for row in rows), strict=True)

    def _in_window(self) -> Comparison:
        sure = self._windows(lambda row: row.sure)
        if not sure.keys:
            return _EQUAL
        found = self._windows(lambda row: row.blind)
        if found.keys:
            if self._ties_by_rounding():
                return Comparison(incomparable=Incomparable.ROUNDING)
            return Comparison(tuple({each.kind: _unnamed(each) for each in found.keys}.values()))
        left, right = _less(self._left, self._right), _less(self._right, self._left)
        for a, b in self._pairs(left, right) if len(left) == len(right) else ():
            if a.blind == b.blind and not self._may_agree(a, b):
                return Comparison((whole(Kind.VALUE, a.document, b.document),))
        return Comparison(incomparable=self._reason())

    def _windows(self, form: Callable[[_OpenRow], str]) -> Comparison:
        known = self._known
        query = Query(sort=known.sort, skip=known.skip, limit=known.limit)
        keyed = known.distinct and all("_id" in row.document for row in (*self._left, *self._right))
        return compare_hits(query, *self._hits(form, keyed=keyed), keyed=keyed)

    def _hits(self, form: Callable[[_OpenRow], str], *, keyed: bool) -> Iterator[list[Hit]]:
        """Both answers as hits whose keys are those of the rows, or else their forms with a number for repeats. What
        has the same form on both sides is the same document."""
        shown: dict[str, Document] = {}
        for side in (self._left, self._right):
            seen, hits = Counter[str](), []
            for row in side:
                text = form(row)
                seen[text] += 1
                key = row.document["_id"] if keyed else f"{text}/{seen[text]}"
                hits.append(Hit(key, _NO_VERSION, shown.setdefault(text, row.document)))
            yield hits

    # -- open parts

    def _may_agree(self, a: _OpenRow, b: _OpenRow) -> bool:
        return a.sure == b.sure or (a.blind == b.blind and near(a.document, b.document, self._known.shape))

    def _reason(self) -> Incomparable:
        found = frozenset().union(*_freedoms(self._known.shape))
        if found & {Freedom.ANYTHING, Freedom.PLACE}:
            return Incomparable.PIPELINE_ORDER
        return Incomparable.ROUNDING if Freedom.ROUNDING in found else Incomparable.FIELD_ORDER

    def _ties_by_rounding(self) -> bool:
        """Whether two rows are so close in a sum by which they are sorted that rounding may swap them."""
        for path, _ in self._known.sort:
            values = [at_path(row.document, path.split(".")) for row in (*self._left, *self._right)]
            inexact = any(type(each) in (float, Decimal128) for each in values)
            if inexact and _is_rounded(self._known.shape, path):
                numbers = sorted({order_key(each): each for each in values if _is_number(each)}.items())
                if any(near_numbers(a, b) for (_, a), (_, b) in itertools.pairwise(numbers)):
                    return True
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal128) and not isinstance(value, bool)


def _is_rounded(shape: OpenShape, path: str) -> bool:
    for name in path.split("."):
        shape = shape.fields.get(name, OpenShape())
    return Freedom.ROUNDING in shape.open


def _freedoms(shape: OpenShape) -> Iterator[frozenset[Freedom]]:
    yield shape.open
    for each in shape.fields.values():
        yield from _freedoms(each)


def _less(rows: Sequence[_OpenRow], others: Sequence[_OpenRow]) -> list[_OpenRow]:
    """The rows that the other side does not have."""
    left = Counter(row.sure for row in others)
    rest = []
    for row in rows:
        if left[row.sure]:
            left[row.sure] -= 1
        else:
            rest.append(row)
    return rest


def _unnamed(each: KeyDifference) -> KeyDifference:
    return KeyDifference(None, each.kind, each.primary, each.secondary, named=False)


def _text(form: Any) -> str:
    return repr(form)


def _unplaced(form: Any) -> Any:
    """A form in which the order of fields does not count."""
    if isinstance(form, dict):
        return {name: _unplaced(form[name]) for name in sorted(form)}
    return [_unplaced(each) for each in form] if isinstance(form, list) else form
