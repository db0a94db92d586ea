"""The steps of `bulk_write` and `insert_many`, in the order in which PyMongo sends them."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo.collation import Collation

from shadow.model.batches import Made
from shadow.model.operation import Applied, Insert
from shadow.model.version import Document

__all__ = ["Make", "Step", "kind_of", "operation", "runs"]

Make = Callable[[], Awaitable[Sequence[Applied] | Made]]
_INSERT, _CHANGE, _DELETE = range(3)


@dataclass(frozen=True, slots=True)
class Step:
    """One request: its position in the list, its form in error details, and how it is applied: as an insert that can
    be sent together with its neighbours, or by itself."""

    place: int
    kind: int
    operation: Document
    insert: Insert | None = None
    make: Make | None = None

    @property
    def removes(self) -> bool:
        return self.kind == _DELETE


def kind_of(request: Any) -> int:
    """0 for an insert, 1 for an update or a replacement, 2 for a delete."""
    if isinstance(request, pymongo.InsertOne):
        return _INSERT
    return _DELETE if isinstance(request, pymongo.DeleteOne | pymongo.DeleteMany) else _CHANGE


def runs(steps: Sequence[Step], *, ordered: bool) -> Iterator[list[Step]]:
    """Steps that are applied together: consecutive inserts, and each other step alone. Unordered, PyMongo sends all
    inserts first, then all updates, then all deletes, whatever their order."""
    arranged = steps if ordered else sorted(steps, key=lambda step: step.kind)
    for together, run in itertools.groupby(arranged, key=lambda step: step.insert is not None):
        if together:
            yield list(run)
        else:
            yield from ([step] for step in run)


def operation(request: Any) -> Document:
    """A request as PyMongo's error details name it; an insert is its document."""
    match request:
        case pymongo.DeleteOne() | pymongo.DeleteMany():
            limit = int(isinstance(request, pymongo.DeleteOne))
            return {"q": request._filter, "limit": limit, **_options(request)}
        case pymongo.ReplaceOne():
            given = _given(upsert=request._upsert, sort=request._sort)
            return {"q": request._filter, "u": request._doc, **given, **_options(request)}
    many = isinstance(request, pymongo.UpdateMany)
    given = _given(
        upsert=request._upsert if many else bool(request._upsert),
        arrayFilters=request._array_filters,
        sort=None if many else request._sort,
    )
    return {"q": request._filter, "u": request._doc, "multi": many, **given, **_options(request)}


def _options(request: Any) -> Document:
    collation = request._collation
    return _given(hint=request._hint, collation=collation.document if isinstance(collation, Collation) else collation)


def _given(**options: Any) -> Document:
    return {name: value for name, value in options.items() if value is not None}
