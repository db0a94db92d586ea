"""Reads that only a server of MongoDB has: raw batches and plans. While it is primary it answers them alone, without
versions and tombstones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pymongo.errors import InvalidOperation

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Query, Verb
from shadow.mongoql.values.collation import uncollated
from shadow.routes.forwarder import Passage
from shadow.surface.calls.futures import is_motor
from shadow.surface.collections.collection import Collection
from shadow.surface.cursors.driver_cursor import no_indexing
from shadow.surface.cursors.routed_cursor import RoutedAnswer, RoutedCursor
from shadow.surface.direct.stamping import Stamping
from shadow.surface.direct.ways_around import checked_pipeline, target_of, written_elsewhere

__all__ = ["ServerReads"]


class RawCursor(RoutedCursor):
    """The driver's own cursor of `find_raw_batches`."""

    def _found(self, passage: Passage) -> Any:
        return self._collection._raw_found(passage, *self._given)

    def __getitem__(self, index: Any) -> NoReturn:
        if not is_motor(self._collection):
            raise InvalidOperation("Cannot call __getitem__ on RawBatchCursor")
        no_indexing(self._collection)

    async def _settle(self) -> None:
        await super()._settle()
        if self._passage is Passage.VERSIONED:
            await self._collection._admit_alone("find_raw_batches", Verb.FIND)


class ServerReads(Collection):
    """`find_raw_batches`, `aggregate_raw_batches`, and `explain` of a cursor."""

    def _own(self) -> Any:
        """The driver's own collection."""
        raise NotImplementedError

    def _stamping(self) -> Stamping:
        raise NotImplementedError

    def find_raw_batches(self, *arguments: Any, **options: Any) -> RawCursor:
        """The driver's own. Raises UnsupportedOperation unless MongoDB is the primary."""
        filter = arguments[0] if arguments else options.get("filter")
        if filter and not isinstance(filter, Mapping):
            raise TypeError(f"filter must be an instance of a mapping, not {type(filter).__name__}")
        self._check_alone("find_raw_batches")
        return RawCursor(self, arguments, options)

    def _raw_found(self, passage: Passage, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if passage is Passage.OWN:
            return self._own().find_raw_batches(*arguments, **options)
        return self._own().find_raw_batches(**self._stamping().read("find", arguments, options)[1])

    def aggregate_raw_batches(self, pipeline: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own. Raises UnsupportedOperation unless MongoDB is the primary."""
        self._check_alone("aggregate_raw_batches")
        handle: Any = self._handle
        target, checked = target_of(pipeline, handle.name), checked_pipeline(handle, pipeline)
        if target is not None and handle.expected(self._name) is not Passage.OWN:
            return self.aggregate(pipeline, *arguments, **options)  # its answer is empty either way
        if target:
            return written_elsewhere(
                handle, self, target, lambda: self._own().aggregate_raw_batches(checked, *arguments, **options)
            )

        async def make(passage: Passage) -> Any:
            given, rest, more = checked, arguments, options
            if passage is not Passage.OWN:
                hidden = dict(self._stamping().read("aggregate", (pipeline, *arguments), options)[1])
                given, rest, more = hidden.pop("pipeline"), (), hidden
            if passage is Passage.VERSIONED:
                await self._admit_alone("aggregate_raw_batches", Verb.AGGREGATE)
            made = self._own().aggregate_raw_batches(given, *rest, **more)
            return await made if hasattr(made, "__await__") else made

        return RoutedAnswer(self, None, make)

    async def _explained(self, query: Query) -> Any:
        """The server's plan of a query."""
        await self._admit_alone("cursor.explain", Verb.FIND)
        filter, collation = uncollated(query.filter)
        given = {"filter": filter, "projection": query.projection, "skip": query.skip, "limit": query.limit}
        asked = self._stamping().read("find", (), {**given, "sort": list(query.sort) or None})[1]
        only = {} if query.mongo_only is None else dict(query.mongo_only.options)
        more: dict[str, Any] = {"collation": collation} if collation else {}
        if (session := getattr(self._handle, "session", None)) is not None:
            more["session"] = session
        return await self._own().find(**{**asked, **more, **only}).explain()

    def _check_alone(self, what: str) -> None:
        """Raises UnsupportedOperation for what would not be answered: before the driver is asked."""
        handle: Any = self._handle
        if handle.expected(self._name) is Passage.VERSIONED:
            self._passing(_refusal(what))

    async def _admit_alone(self, what: str, verb: Verb) -> None:
        """Counts a read that MongoDB answers alone. Raises UnsupportedOperation if it is not the primary."""
        only = self._passing(_refusal(what)).mongo_only
        await self._router.admit_alone(self._name, verb, only)


def _refusal(what: str) -> UnsupportedOperation:
    return UnsupportedOperation(what, "it is about MongoDB's own answer", hint="shadow.admin.driver()")
