"""The cursor: the result of `find`, with Motor's methods. It sends no request before the first document is
requested."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Self

import bson
from bson import Code
from bson.errors import InvalidDocument
from pymongo.collation import Collation
from pymongo.errors import InvalidOperation, OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.collations import is_simple, of_query
from shadow.model.operation import Hit, Query
from shadow.model.schema import CollationSpec
from shadow.model.server_options import current, sending
from shadow.model.version import Document
from shadow.mongoql.values.collation import collated, computes, uncollated
from shadow.surface.calls.arguments import Arguments, check_harmless
from shadow.surface.calls.futures import at_once
from shadow.surface.calls.hints import check_form
from shadow.surface.cursors.driver_cursor import DriverCursor, MotorReads, chained, list_method
from shadow.traces.spans import Call, Untraced

__all__ = ["REFUSED_LATER", "Cursor", "DocumentCursor"]

Pages = Callable[[Query], AsyncIterator[list[Hit]]]

REFUSED_LATER: Final = (OperationFailure, InvalidDocument, OverflowError)
"""What a cursor's first request raises with the drivers: the server's errors, and those for values that BSON cannot
hold."""


class Cursor(DriverCursor):
    """Asynchronously iterable; also `to_list`, `next`, `sort`, `limit`, `skip`, `batch_size`, `clone`, `rewind`,
    `close`, `alive`. Options can be set until the first document is asked for, as in Motor."""

    def __init__(
        self,
        collection: Any,
        query: Query,
        pages: Pages,
        present: Callable[[Document], Any],
        take: Arguments,
        passing: Callable[[UnsupportedOperation], Arguments],
    ) -> None:
        """`passing`: the arguments that take what `take` has refused. Raises the refusal where nobody does."""
        self._collection = collection
        self._query = query
        self._take = take
        self._passing = passing
        self._pages = pages
        self._present = present
        self._iterator: AsyncIterator[list[Hit]] | None = None
        self._buffer: list[Hit] = []
        self._place = 0
        self._fetched = 0
        self._ended = False
        self._started = False
        self._failed: Exception | None = None
        self._closed = False
        self._refusal: Exception | None = None
        self._sent = current()
        self._flags = self._flags_sent()
        self._by: Document = {}

    @property
    def collection(self) -> Any:
        return self._collection

    @property
    def alive(self) -> bool:
        """Whether more documents may come."""
        return not self._ended or self._place < len(self._buffer) or self._failed is not None

    # --- options ------------------------------------------------------------------------------------------------

    def sort(self, key_or_list: str | Sequence[Any] | Mapping[str, int], direction: int | None = None) -> Self:
        if self._by:  # the order depends on it too
            refusal = UnsupportedOperation("cursor.collation with a sort", "DynamoDB orders by bytes")
            self._pass_on("collation", self._by, refusal)
        try:
            return self._with(sort=self._take.sort(key_or_list, direction))
        except UnsupportedOperation as refusal:
            take = self._passing(refusal)
            return self._with(
                sort=take.sort(key_or_list, direction), mongo_only=self._query.mongo_only or take.mongo_only
            )
        except REFUSED_LATER as error:
            return self._with()._refused(error)

    def limit(self, limit: int) -> Self:
        """At most `limit` documents; 0 is no limit, a negative one counts as its absolute value, as in MongoDB."""
        if self._is_exhaust():
            raise InvalidOperation("Can't use limit and exhaust together.")
        return self._with(limit=abs(_whole("limit", limit)))

    def skip(self, skip: int) -> Self:
        if _whole("skip", skip) < 0:
            raise ValueError("skip must be >= 0")
        return self._with(skip=skip)

    def batch_size(self, batch_size: int) -> Self:
        if _whole("batch_size", batch_size) < 0:
            raise ValueError("batch_size must be >= 0")
        return self._with(batch_size=batch_size)

    def allow_disk_use(self, allow_disk_use: bool) -> Self:
        """MongoDB's alone; it changes no result. Raises TypeError as the drivers do."""
        if not isinstance(allow_disk_use, bool):
            raise TypeError(f"allow_disk_use must be a bool, not {type(allow_disk_use)}")
        return self._send("allow_disk_use", allow_disk_use)

    def comment(self, comment: Any) -> Self:
        """MongoDB's alone; it changes no result."""
        try:
            bson.encode({"": comment})
        except REFUSED_LATER as error:
            return self._with()._refused(error)
        return self._send("comment", comment)

    def max_time_ms(self, max_time_ms: int | None) -> Self:
        """MongoDB's alone; on DynamoDB the configured limits apply instead. Raises TypeError as the drivers do."""
        if not isinstance(max_time_ms, int) and max_time_ms is not None:
            raise TypeError(f"max_time_ms must be an integer or None, not {type(max_time_ms)}")
        try:
            check_harmless("max_time_ms", max_time_ms)
        except REFUSED_LATER as error:
            return self._with()._refused(error)
        return self._send("max_time_ms", max_time_ms)

    def hint(self, index: Any) -> Self:
        if index is None:
            return self._send("hint", None)
        check_form("find", index)
        try:
            self._take.hint("cursor.hint", index)
        except UnsupportedOperation as refusal:
            return self._pass_on("hint", index, refusal)
        return self._send("hint", index)

    def _refused(self, error: Exception) -> Self:
        """Makes the first request raise what the driver and the server raise for an option then, and not before."""
        self._refusal = error
        return self

    def _send(self, name: str, value: Any) -> Self:
        """Gives MongoDB's own request an option that changes no result; None takes it back."""
        self._with()
        kept = {each: given for each, given in self._sent.items() if each != name}
        self._sent = kept if value is None else {**kept, name: value}
        return self

    def collation(self, collation: Any) -> Self:
        if not isinstance(collation, dict | Collation) and collation is not None:
            raise TypeError("collation must be a dict, an instance of collation.Collation, or None")
        only, plain = self._query.mongo_only, uncollated(self._query.filter)[0]
        if only is not None and "collation" in only.options:
            options = {name: value for name, value in only.options.items() if name != "collation"}
            only = dataclasses.replace(only, options=options)
        self._with(filter=plain, mongo_only=only)._by = {}
        if collation is None or is_simple(collation):
            return self
        refusal = UnsupportedOperation("cursor.collation", "DynamoDB orders by bytes")
        by = of_query(collation)
        if by is not None and not self._query.sort and only is None and not computes(self._query.projection):
            with contextlib.suppress(UnsupportedOperation):
                return self._with(filter=collated(plain, by))._compared_by(by)
        return self._pass_on("collation", collation, refusal)

    def _compared_by(self, by: CollationSpec | None) -> Self:
        """Keeps the collation that both stores have: what is asked for later may depend on it too."""
        self._by = {} if by is None else {"locale": by.locale, "strength": by.strength}
        return self

    def min(self, spec: Sequence[Any]) -> Self:
        """The first key of an index that is read. Only MongoDB has that."""
        return self._bound("min", spec)

    def max(self, spec: Sequence[Any]) -> Self:
        """The key of an index at which the read ends. Only MongoDB has that."""
        return self._bound("max", spec)

    def where(self, code: str | Code) -> Self:
        """A condition in JavaScript. Only MongoDB has that."""
        if not isinstance(code, str):
            raise TypeError(f"code must be an instance of str or bson.Code, not {type(code)}")
        refusal = UnsupportedOperation("cursor.where", "DynamoDB runs no JavaScript", hint="$expr")
        self._alone(refusal, {})
        return self._with(filter={**self._query.filter, "$where": Code(code)})

    def _bound(self, name: str, spec: Any) -> Self:
        if not isinstance(spec, list | tuple):
            raise TypeError(f"spec must be an instance of list or tuple, not {type(spec)}")
        refusal = UnsupportedOperation(f"cursor.{name}", "it is a bound of an index of MongoDB")
        return self._pass_on(name, dict(spec), refusal)

    def _pass_on(self, name: str, value: Any, refusal: UnsupportedOperation) -> Self:
        """Gives the query one of the driver's options, for MongoDB alone."""
        return self._alone(refusal, {name: value})

    def _alone(self, refusal: UnsupportedOperation, options: Document) -> Self:
        """Leaves the query to MongoDB, with these options of the driver, and with the collation that both stores had.
        Raises the refusal where MongoDB is not asked."""
        only = self._query.mongo_only or self._passing(refusal).mongo_only
        assert only is not None
        given = {"collation": self._by, **options} if self._by else options
        only = dataclasses.replace(only, options={**only.options, **given})
        return self._with(filter=uncollated(self._query.filter)[0], mongo_only=only)

    def _with(self, **changes: Any) -> Self:
        if self._started:
            raise InvalidOperation("cannot set options after executing query")
        fields = {name: getattr(self._query, name) for name in Query.__slots__}
        self._query = Query(**{**fields, **changes})
        return self

    # --- documents ----------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._ended or self._place + 1 < len(self._buffer):
            return await self._next()
        with self._asking():
            return await self._next()

    def _asking(self) -> Call | Untraced:
        """The span of a request for documents."""
        found: Call | Untraced = self._collection._traced(
            "get_more" if self._started else "find", (self._query.filter,)
        )
        return found

    async def _next(self) -> Any:
        if not await self._ready():
            raise StopAsyncIteration
        hit = self._buffer[self._place]
        self._place += 1
        await self._look_ahead()
        return self._present(hit.document)

    async def _ready(self) -> bool:
        return self._place < len(self._buffer) or await self._fetch()

    def _take_ready(self) -> Any:
        if self._place >= len(self._buffer):
            return None
        self._place += 1
        return self._present(self._buffer[self._place - 1].document)

    async def _look_ahead(self) -> None:
        """Reads on where the documents at hand are used up, so that `alive` is False after the last one. An error is
        raised when the next document is requested."""
        if self._place >= len(self._buffer) and not self._ended and self._failed is None:
            try:
                await self._fetch()
            except Exception as error:
                self._buffer, self._place, self._failed = [], 0, error

    async def next(self) -> Any:
        """The next document. Raises StopAsyncIteration at the end."""
        return await self.__anext__()

    @list_method
    async def to_list(self, length: int | None = None) -> list[Any]:
        """The next `length` documents, or all that are left."""
        if self._closed:
            return []  # whatever the length
        with self._asking():
            return await self._listed(length)

    async def _listed(self, length: int | None) -> list[Any]:
        found: list[Any] = []
        while length is None or len(found) < length:
            if not await self._ready():
                break
            end = len(self._buffer) if length is None else min(len(self._buffer), self._place + length - len(found))
            found.extend(self._present(hit.document) for hit in self._buffer[self._place : end])
            self._place = end
        if length:
            await self._look_ahead()
        return found

    async def _fetch(self) -> bool:
        """Puts the next page into the buffer; returns False at the end."""
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        if self._ended:
            return False
        with self._asking():
            self._started = True
            return await self._fetch_page()

    async def _fetch_page(self) -> bool:
        if self._refusal is not None:
            raise self._refusal
        if self._iterator is None and (hint := self._sent.get("hint")) is not None:
            await self._collection._check_hint("find", hint)
        if self._iterator is None:
            self._iterator = self._pages(self._query)
        self._buffer, self._place = [], 0
        with sending(self._sent):
            return await self._fetch_from(self._iterator)

    async def _fetch_from(self, pages: AsyncIterator[list[Hit]]) -> bool:
        async for page in pages:
            if page:
                self._buffer = page
                self._fetched += len(page)
                if 0 < self._query.limit <= self._fetched:
                    # Complete: the read ends now, not at the next request or when the iterator is collected.
                    self._ended = True
                    await anext(pages, None)
                return True
        self._ended = True
        return False

    # --- life ---------------------------------------------------------------------------------------------------

    @at_once
    async def close(self) -> None:
        """Ends the read; the documents read so far are compared."""
        self._closed = self._ended = True
        self._buffer, self._place = [], 0
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            await iterator.aclose()  # type: ignore[attr-defined]

    def clone(self) -> Cursor:
        """A new cursor with the same options, at the start."""
        made = Cursor(self._collection, copy.copy(self._query), self._pages, self._present, self._take, self._passing)
        made._sent, made._flags, made._refusal, made._by = self._sent, self._flags, self._refusal, self._by
        return made

    def __copy__(self) -> Cursor:
        return self.clone()

    def __deepcopy__(self, memo: Any) -> Cursor:
        return self.clone()

    def _more(self) -> bool:
        return not self._ended

    def _buffer_size(self) -> int:
        return len(self._buffer) - self._place

    def rewind(self) -> Any:
        """Back to the start. May be awaited, as with PyMongo's own client, or not, as with Motor."""
        stale, self._iterator = self._iterator, None
        self._buffer, self._place, self._fetched, self._ended, self._started = [], 0, 0, False, False
        self._closed, self._failed = False, None
        return chained(self, None if stale is None else functools.partial(_ended, stale))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


class DocumentCursor(MotorReads):
    """A cursor over a result that arrives as a whole: an aggregate, a list of indexes. Awaiting it returns the cursor
    itself, because such calls are awaited with PyMongo's own client, but not with Motor."""

    _command = True

    def __init__(
        self,
        collection: Any,
        documents: Callable[[], Awaitable[list[Document]]],
        present: Callable[[Document], Any],
    ) -> None:
        self._collection = collection
        self._documents = documents
        self._present = present
        self._left: list[Document] | None = None
        self._closed = False
        self._sent = current()

    @property
    def collection(self) -> Any:
        return self._collection

    @property
    def alive(self) -> bool:
        return not self._closed and (self._left is None or bool(self._left))

    def batch_size(self, batch_size: int) -> Self:
        """How many documents MongoDB sends at a time; it changes no result. Raises TypeError and ValueError as the
        drivers do."""
        if _whole("batch_size", batch_size) < 0:
            raise ValueError("batch_size must be >= 0")
        if batch_size:
            self._sent = {**self._sent, "batch_size": batch_size}
        return self

    def __await__(self) -> Any:
        return self._fetched().__await__()

    async def _fetched(self) -> Self:
        if self._left is None and not self._closed:
            with sending(self._sent):
                self._left = list(reversed(await self._documents()))
        return self

    async def _ready(self) -> bool:
        await self._fetched()
        return bool(self._left) and not self._closed

    def _take_ready(self) -> Any:
        return self._present(self._left.pop()) if self._left and not self._closed else None

    def _has_started(self) -> bool:
        return self._left is not None

    def _has_closed(self) -> bool:
        return self._closed

    @at_once
    async def try_next(self) -> Any:
        """The next document; None at the end."""
        return self._take_ready() if await self._ready() else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        await self._fetched()
        if not self._left or self._closed:
            raise StopAsyncIteration
        return self._present(self._left.pop())

    async def next(self) -> Any:
        return await self.__anext__()

    @list_method
    async def to_list(self, length: int | None = None) -> list[Any]:
        """The next `length` documents, or all that are left."""
        await self._fetched()
        left = self._left if self._left and not self._closed else []
        return [self._present(left.pop()) for _ in range(len(left) if length is None else min(length, len(left)))]

    @at_once
    async def close(self) -> None:
        self._closed, self._left = True, []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


async def _ended(read: AsyncIterator[list[Hit]]) -> None:
    await read.aclose()  # type: ignore[attr-defined]


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an instance of int")
    return int(value)
