"""The verbs that read: a call becomes a read as data (`model.reads`), and its result Motor's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import bson
from pymongo.cursor_shared import CursorType
from pymongo.errors import InvalidOperation, OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.collations import of_query
from shadow.model.operation import Hit, Query
from shadow.model.reads import Aggregate, Count, Distinct
from shadow.model.server_options import given_in, sending
from shadow.model.values import normalise
from shadow.model.version import Document
from shadow.mongoql.values.failures import failure
from shadow.surface.calls.arguments import Arguments
from shadow.surface.calls.hints import counted_by
from shadow.surface.calls.verb_options import check_modify
from shadow.surface.collections.collection_base import CollectionBase
from shadow.surface.cursors.cursor import REFUSED_LATER, Cursor, DocumentCursor
from shadow.surface.direct.stamping import hidden_in

__all__ = ["ReadVerbs"]


class ReadVerbs(CollectionBase):
    """`find_one`, `find`, `count_documents`, `estimated_document_count`, `distinct` and `aggregate`."""

    async def find_one(
        self,
        filter: Mapping[str, Any] | Any = None,
        projection: Any = None,
        *,
        sort: Any = None,
        skip: int = 0,
        **options: Any,
    ) -> Any:
        """The first document that matches, or None. If `filter` is not a mapping, it is treated as an `_id`."""
        self._take.counted("limit", abs(options.pop("limit", 0)))  # the drivers set their own in its place
        _check_exhaust(options, 1)
        query = self._query("find_one", filter, projection, options, sort=sort, skip=skip)
        hit = await self._router.find_one(self._name, query)
        return None if hit is None else self._present(hit.document)

    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        projection: Any = None,
        skip: int = 0,
        limit: int = 0,
        *,
        sort: Any = None,
        batch_size: int = 0,
        **options: Any,
    ) -> Cursor:
        """A cursor over the documents that match; it sends no request yet."""
        if filter and not isinstance(filter, Mapping):
            raise TypeError(f"filter must be an instance of a mapping, not {type(filter).__name__}")
        _check_exhaust(options, limit)
        # The drivers treat any empty filter as no filter, where `find_one` treats it as an `_id`.
        later: Exception | None = None
        query, given = Query({}), {"sort": sort, "skip": skip, "limit": abs(limit)}
        try:
            query = self._query("find", filter or None, projection, options, **given)
            if isinstance(batch_size, bool):
                raise failure(14, "BSON field 'batchSize' is the wrong type 'bool'")
            if isinstance(batch_size, int):
                bson.encode({"": batch_size})  # an OverflowError of the driver's, for a large one
        except UnsupportedOperation:
            raise
        except REFUSED_LATER as error:
            later, batch_size = error, 0
        except ValueError as error:
            if self._is_sendable(filter):
                raise
            later, batch_size = error, 0
        made = Cursor(self, query, self._pages, self._present, self._take, self._passing).batch_size(batch_size)
        if query.mongo_only is None:
            made._compared_by(of_query(options.get("collation")))
        return made if later is None else made._refused(later)

    def _is_sendable(self, filter: Any) -> bool:
        """Whether BSON holds the filter: the drivers say so when a cursor sends it."""
        try:
            normalise(filter or {}, self._options)
        except ValueError:
            return False
        return True

    async def count_documents(
        self, filter: Mapping[str, Any] | Any, *, skip: int = 0, limit: int = 0, **options: Any
    ) -> int:
        """How many documents match."""
        if not isinstance(filter, Mapping):
            bson.encode({"": filter})
            raise failure(15959, "the match filter must be an expression in an object")
        query = self._query("count_documents", filter, None, options, skip=skip, limit=limit)
        read = Count(
            query.filter, query.skip, query.limit, mongo_only=query.mongo_only, read_options=query.read_options
        )
        return int(await self._router.answer(self._name, read))

    async def estimated_document_count(self, **options: Any) -> int:
        """How many documents there are. Counted exactly, without tombstones."""
        given = counted_by(options)

        def build(take: Arguments) -> Count:
            return Count({}, estimated=True, mongo_only=take.mongo_only, read_options=self._reads)

        with sending(given_in(given)):
            read = self._built(self._door("estimated_document_count", given), build)
            return int(await self._router.answer(self._name, read))

    async def distinct(self, key: str, filter: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """The distinct values at a dotted path; arrays are unwound."""
        if not isinstance(key, str):
            raise TypeError(f"key must be an instance of str, not {type(key).__name__}")
        if filter is not None and not isinstance(filter, Mapping):
            raise _no_filter(filter)

        def build(take: Arguments) -> Distinct:
            return Distinct(take.path("distinct", key), take.filter(filter), take.mongo_only, self._reads)

        read = self._built(self._door("distinct", options), build)
        values = await self._router.answer(self._name, read)
        return list(self._present({"": values})[""])

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]], **options: Any) -> DocumentCursor:
        """A cursor over the result of a pipeline. May be awaited first, as with PyMongo's own client, or not."""
        wanted: Aggregate | Exception
        try:
            wanted = self._built(
                self._door("aggregate", options),
                lambda take: Aggregate(self._hidden(take, pipeline), take.mongo_only, self._reads),
            )
        except UnsupportedOperation:
            raise
        except Exception as error:  # the drivers raise everything when the result is awaited, or read
            wanted = error

        async def documents() -> list[Document]:
            if isinstance(wanted, Exception):
                raise wanted
            with self._traced("aggregate", (pipeline,)):
                await self._check_hint("aggregate", options.get("hint"))
                return list(await self._router.answer(self._name, wanted))

        return DocumentCursor(self, documents, self._present)

    def _hidden(self, take: Arguments, pipeline: Any) -> list[Document]:
        """The pipeline; for MongoDB alone with versions and tombstones hidden in it."""
        wanted = take.pipeline(pipeline)
        if take.mongo_only is None:
            return wanted
        if wanted and {"$out", "$merge"} & set(wanted[-1]):
            raise take.mongo_only.refusal.fresh()
        return hidden_in(wanted, self._spec.reserved, self._reserved_of)

    def _reserved_of(self, name: str) -> str | None:
        """The field of the version in a collection that a pipeline joins; None if it has none."""
        return self._spec.reserved

    def _pages(self, query: Query) -> AsyncIterator[list[Hit]]:
        return self._router.find(self._name, query)

    def _query(
        self,
        verb: str,
        filter: Any,
        projection: Any,
        options: Mapping[str, Any],
        *,
        sort: Any = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Query:
        def build(take: Arguments) -> Query:
            of_stage = verb == "count_documents"  # it is an aggregate, with the error codes of its stages
            first = take.counted("skip", skip, 5107200 if of_stage else 51024)
            most = take.counted("limit", limit, 5107201 if of_stage else 51024)
            wanted = take.projection(projection)
            check_modify(sort or None)
            order = take.sort(sort or None)
            only, given = take.mongo_only, take.filter(filter)
            return Query(given, wanted, order, first, most, mongo_only=only, read_options=self._reads)

        return self._built(self._door(verb, options), build)


def _check_exhaust(options: Mapping[str, Any], limit: Any) -> None:
    """Raises InvalidOperation, as the drivers do, for a cursor that is sent without being asked, and has a limit."""
    if limit and options.get("cursor_type") == CursorType.EXHAUST:
        raise InvalidOperation("Can't use limit and exhaust together.")


def _no_filter(given: object) -> OperationFailure:
    """The server's error for a filter that is not a mapping. Raises the driver's error if it cannot send the filter."""
    bson.encode({"": given})
    return failure(14, "BSON field 'distinct.query' is the wrong type")
