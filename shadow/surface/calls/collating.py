"""The arguments of a call with a collation that both stores have: equalities of texts in its filter go by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Sort
from shadow.model.schema import CollationSpec
from shadow.model.values import normalise
from shadow.model.version import Document
from shadow.mongoql.caching import remember_filter
from shadow.mongoql.values.collation import collated, compares_texts, computes
from shadow.surface.calls.arguments import Arguments

__all__ = ["CollatedArguments"]


class CollatedArguments(Arguments):
    """Those of one call. What compares texts anywhere but in an equality of the filter is refused by name."""

    def __init__(self, strict: Arguments, by: CollationSpec) -> None:
        super().__init__(strict.reserved, strict.options, strict.knows)
        self._by = by
        self.collation: Document = {"locale": by.locale, "strength": by.strength}

    def filter(self, filter: Any) -> Document:
        given = filter if isinstance(filter, Mapping) or filter is None else {"_id": filter}
        wanted = normalise(given or {}, self.options)
        self.unreserved("filter", wanted)
        remember_filter(wanted)  # refuses what the server refuses
        made = collated(wanted, self._by)
        remember_filter(made)
        return made

    def update(
        self, update: Any, array_filters: Sequence[Mapping[str, Any]] | None
    ) -> tuple[Document | list[Document], tuple[Document, ...]]:
        wanted, filters = super().update(update, array_filters)
        if compares_texts(wanted, filters):
            _refuse("an update that compares texts")
        return wanted, filters

    def sort(self, key: Any, direction: int | None = None) -> Sort:
        return _refuse("a sort") if key else ()

    def projection(self, projection: Any) -> Document | None:
        made = super().projection(projection)
        return _refuse("a projection that compares") if computes(made) else made

    def path(self, what: str, path: str) -> str:
        _refuse(what)

    def pipeline(self, pipeline: Any) -> list[Document]:
        _refuse("aggregate")


def _refuse(what: str) -> NoReturn:
    raise UnsupportedOperation(f"collation with {what}", "DynamoDB compares by bytes")
