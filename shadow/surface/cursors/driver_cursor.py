"""What the drivers' cursors have besides documents and options: a cursor over two stores, or DynamoDB."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NoReturn, Self

from bson import Int64
from pymongo.cursor_shared import CursorType
from pymongo.errors import InvalidOperation

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Query
from shadow.model.version import Document
from shadow.mongoql.values.collation import uncollated
from shadow.stores.mongo.drivers import cursor_class
from shadow.surface.calls.futures import at_once, begun, driver_kind, is_motor
from shadow.surface.cursors.cursor_delegate import Delegate

__all__ = ["Chained", "DriverCursor", "MotorLoop", "MotorReads", "chained", "list_method", "no_indexing"]

_TAILABLE: Final = 2
_NO_TIMEOUT: Final = 16
_AWAIT: Final = 32
_EXHAUST: Final = CursorType.EXHAUST
_PARTIAL: Final = 128
"""Flags of a query. Others change no result: reads of a secondary allowed (4), a hint about the oplog (8)."""


class DriversClass:
    """A cursor that is an instance of the driver's class, for those who ask. `type` does not say so."""

    _collection: Any
    _command = False
    """Whether the driver's is a cursor over the answer of a command."""

    @property
    def __class__(self) -> type[Any]:
        kind = driver_kind(self._collection)
        return type(self) if kind is None else cursor_class(kind, command=self._command)

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(of {self._collection!r})"


def list_method(method: Callable[..., Coroutine[Any, Any, list[Any]]]) -> Any:
    """A cursor's `to_list`, which raises what the driver's raises: Motor's before it gives a future, PyMongo's when it
    is awaited."""

    @functools.wraps(method)
    async def to_list(self: Any, length: int | None = None) -> list[Any]:
        if not is_motor(self._collection) and isinstance(length, int) and length < 1:
            raise ValueError("to_list() length must be greater than 0")
        return await method(self, length)

    return at_once(to_list, _check_motors_list)


def _check_motors_list(cursor: Any, length: Any = None) -> None:
    if length is not None:
        if not isinstance(length, int):
            raise TypeError(f"length must be an int, not {length!r}")
        if length < 0:
            raise ValueError("length must be non-negative")
    if cursor._is_tailable():
        raise InvalidOperation("Can't call to_list on tailable cursor")


class MotorLoop(DriversClass):
    """Motor's ways to read a cursor, which PyMongo's own do not have."""

    async def _ready(self) -> bool:
        """Whether there is another document, read if need be."""
        raise NotImplementedError

    def _take_ready(self) -> Any:
        """The next document of those that were read; None if there is none."""
        raise NotImplementedError

    def _is_tailable(self) -> bool:
        return False

    def _of_motor(self, name: str) -> None:
        """Raises AttributeError for an attribute that PyMongo's own cursors do not have."""
        if not is_motor(self._collection):
            raise AttributeError(f"'AsyncCursor' object has no attribute {name!r}")

    @property
    def fetch_next(self) -> Awaitable[bool]:
        """Motor's: whether `next_object` will return a document."""
        self._of_motor("fetch_next")
        warnings.warn("The fetch_next property is deprecated: use `async for`.", DeprecationWarning, stacklevel=2)
        return begun(self._collection, self._ready())

    def next_object(self) -> Any:
        """Motor's: the document that `fetch_next` has read, or None."""
        warnings.warn("The next_object method is deprecated: use `async for`.", DeprecationWarning, stacklevel=2)
        return self._take_ready()

    def each(self, callback: Callable[[Any, Any], Any]) -> None:
        """Motor's: calls `callback` with each document and None, until it returns False, and at the end with None and
        None, or with None and an error."""
        if not callable(callback):
            raise TypeError("callback must be a callable")
        begun(self._collection, self._each(callback))

    async def _each(self, callback: Callable[[Any, Any], Any]) -> None:
        try:
            while await self._ready():
                if callback(self._take_ready(), None) is False:
                    return
        except Exception as error:
            callback(None, error)
        else:
            callback(None, None)

    def get_io_loop(self) -> asyncio.AbstractEventLoop:
        """Motor's."""
        return asyncio.get_running_loop()


class MotorReads(MotorLoop):
    """What the drivers' cursors say about themselves."""

    @property
    def started(self) -> bool:
        """Motor's: whether a document has been requested."""
        self._of_motor("started")
        return self._has_started()

    @started.setter
    def started(self, value: bool) -> None:
        """For classes made on Motor's cursor: their `rewind` sets it after `delegate.rewind()`, which has done so."""
        self._of_motor("started")

    @property
    def closed(self) -> bool:
        """Motor's: whether the cursor has been closed."""
        self._of_motor("closed")
        return self._has_closed()

    @property
    def delegate(self) -> Delegate:
        """Motor's cursor is made of one of PyMongo's. This has all that a class made on Motor's asks of it."""
        self._of_motor("delegate")
        return Delegate(self)

    def _has_started(self) -> bool:
        raise NotImplementedError

    def _has_closed(self) -> bool:
        raise NotImplementedError

    # --- about the server's cursor

    @property
    def cursor_id(self) -> Int64 | None:
        """None before the first document is requested, 0 when no more are to be read, and until then a number that
        says nothing to a server: there may be several cursors of one, or none."""
        return Int64(self._more() and id(self)) if self._has_started() else None

    def _more(self) -> bool:
        """Whether there may be more than what has been read."""
        return False

    @property
    def address(self) -> None:
        """None: the documents do not come from one server."""
        return None

    @property
    def session(self) -> Any:
        """The session that the call was given, or None; with Motor PyMongo's own under it."""
        given = getattr(getattr(self._collection, "_handle", None), "session", None)
        return getattr(given, "delegate", given)


class DriverCursor(MotorReads):
    """A base of `Cursor`, which has the documents."""

    _query: Query
    _by: Document
    """The collation that both stores have, if the query has one."""
    _sent: Mapping[str, Any]
    _fetched: int
    _started: bool
    _closed: bool

    _flags: int = 0
    _refusal: Exception | None

    def _with(self, **changes: Any) -> Self:
        raise NotImplementedError

    def _send(self, name: str, value: Any) -> Self:
        raise NotImplementedError

    def _pass_on(self, name: str, value: Any, refusal: UnsupportedOperation) -> Self:
        raise NotImplementedError

    def _has_started(self) -> bool:
        return self._started

    def _has_closed(self) -> bool:
        return self._closed

    @property
    def retrieved(self) -> int:
        """How many documents have been read so far."""
        return self._fetched

    # --- other questions

    def distinct(self, key: str) -> Any:
        """The distinct values at a path among the documents that match; `sort`, `skip` and `limit` do not count."""
        if self._refusal is not None:
            return begun(self._collection, _raised(self._refusal))
        filter = uncollated(self._query.filter)[0]
        only = {} if self._query.mongo_only is None else dict(self._query.mongo_only.options)
        given = {
            "comment": self._sent.get("comment"),
            "maxTimeMS": self._sent.get("max_time_ms"),
            "collation": only.get("collation", self._by or None),
        }
        options = {name: value for name, value in given.items() if value is not None}
        return self._collection.distinct(key, filter, **options)

    def explain(self) -> Any:
        """MongoDB's plan. Raises UnsupportedOperation unless it is the primary."""
        if self._refusal is not None:
            return begun(self._collection, _raised(self._refusal))
        return begun(self._collection, self._collection._explained(self._query))

    # --- options

    def max_await_time_ms(self, max_await_time_ms: int | None) -> Self:
        """Accepted: it is about tailable cursors alone."""
        if not isinstance(max_await_time_ms, int) and max_await_time_ms is not None:
            raise TypeError(f"max_await_time_ms must be an integer or None, not {type(max_await_time_ms)}")
        return self._with()

    def max_scan(self, max_scan: int | None) -> Self:
        """MongoDB's alone; no server from 4.2 on has it."""
        refusal = UnsupportedOperation("cursor.max_scan", "servers from 4.2 on do not have it")
        return self._pass_on("max_scan", max_scan, refusal)

    def add_option(self, mask: int) -> Any:
        """The flags of a tailable cursor and of partial answers are MongoDB's alone; others change no result. May be
        awaited, as with PyMongo's own client, or not, as with Motor."""
        if not isinstance(mask, int):
            raise TypeError(f"mask must be an int, not {type(mask)}")
        if mask & _EXHAUST and self._query.limit:
            raise InvalidOperation("Can't use limit and exhaust together.")
        return self._flagged(self._flags | mask)

    def remove_option(self, mask: int) -> Any:
        """See `add_option`."""
        if not isinstance(mask, int):
            raise TypeError(f"mask must be an int, not {type(mask)}")
        return self._flagged(self._flags & ~mask)

    def _flagged(self, flags: int) -> Any:
        self._with()
        changed, self._flags = self._flags ^ flags, flags
        if changed & _NO_TIMEOUT:
            self._send("no_cursor_timeout", True if flags & _NO_TIMEOUT else None)
        if changed & _EXHAUST:
            self._send("cursor_type", _EXHAUST if flags & _EXHAUST else None)
        if changed & (_TAILABLE | _AWAIT):
            kind = _TAILABLE | flags & _AWAIT if flags & (_TAILABLE | _AWAIT) else CursorType.NON_TAILABLE
            self._pass_on("cursor_type", kind, _refusal("cursor_type"))
        if changed & _PARTIAL:
            self._pass_on("allow_partial_results", bool(flags & _PARTIAL), _refusal("allow_partial_results"))
        return chained(self)

    def _flags_sent(self) -> int:
        """The flags that the options of `find` have set."""
        only = {} if self._query.mongo_only is None else self._query.mongo_only.options
        sent = (_EXHAUST if self._is_exhaust() else 0) | (_NO_TIMEOUT if self._sent.get("no_cursor_timeout") else 0)
        return sent | int(only.get("cursor_type") or 0)

    def _is_tailable(self) -> bool:
        return bool(self._flags & _TAILABLE)

    def _is_exhaust(self) -> bool:
        return self._sent.get("cursor_type") == _EXHAUST

    def __getitem__(self, index: Any) -> NoReturn:
        """As the drivers' cursors, this one has no indexing. Raises IndexError with PyMongo's own client, TypeError
        with Motor."""
        no_indexing(self._collection)


async def _raised(error: Exception) -> NoReturn:
    raise error


def _refusal(name: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"cursor.add_option: {name}", "it is about a cursor of MongoDB's")


class Chained:
    """A cursor after a method that PyMongo's own client awaits and Motor does not; `ending`: what is awaited."""

    def __init__(self, cursor: Any, ending: Callable[[], Awaitable[None]] | None = None) -> None:
        self._cursor = cursor
        self._ending = ending

    def __await__(self) -> Any:
        return self._end().__await__()

    async def _end(self) -> Any:
        if self._ending is not None:
            await self._ending()
        return self._cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __aiter__(self) -> Any:
        return self._cursor


def chained(cursor: Any, ending: Callable[[], Coroutine[Any, Any, None]] | None = None) -> Any:
    """The cursor itself with Motor, and with PyMongo's own client one that may be awaited too: see `Chained`."""
    if not is_motor(cursor._collection):
        return Chained(cursor, ending)
    if ending is not None:
        begun(cursor._collection, ending())
    return cursor


def no_indexing(collection: Any) -> NoReturn:
    """Raises what the driver of a collection raises for an index on a cursor."""
    if is_motor(collection):
        raise TypeError("'AsyncIOMotorCursor' object is not subscriptable")
    raise _NoIndexing("AsyncCursor does not support indexing")


class _NoIndexing(IndexError, TypeError):
    """PyMongo's IndexError, which code that was written for Motor catches too."""
