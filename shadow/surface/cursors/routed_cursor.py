"""The cursors of a configured collection: the driver's own or those of `Collection`, chosen when they are read."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Self

from pymongo.cursor_shared import CursorType

from shadow.model.operation import Verb
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import StoreName
from shadow.routes.forwarder import Passage
from shadow.surface.calls.futures import at_once, begun, is_motor
from shadow.surface.cursors.cursor_delegate import Delegate
from shadow.surface.cursors.driver_cursor import DriversClass, MotorLoop, list_method, no_indexing

__all__ = ["RoutedAnswer", "RoutedCursor"]


class RoutedCursor(MotorLoop):
    """The cursor of `find`: the driver's own with all of its methods, or that of `Collection`. The choice is made when
    its first document is requested; until then it has the driver's options."""

    def __init__(
        self,
        collection: Any,
        arguments: Sequence[Any],
        options: Mapping[str, Any],
        calls: Sequence[tuple[str, Sequence[Any], Mapping[str, Any]]] = (),
    ) -> None:
        self._collection = collection
        self._given = (arguments, options)
        self._calls = list(calls)
        self._passage: Passage | None = None
        self._inner: Any = None
        self._settled = False
        if _running():
            self._make(collection._handle.expected(collection.name))

    def _make(self, passage: Passage) -> None:
        inner = self._found(passage)
        for name, arguments, options in self._calls:
            inner = getattr(inner, name)(*arguments, **options)
        self._inner, self._passage = inner, passage

    def _found(self, passage: Passage) -> Any:
        return self._collection._found(passage, *self._given)

    async def _settle(self) -> None:
        """Makes the choice now."""
        passage = await self._collection._passage()
        if self._inner is None or passage is not self._passage:
            self._make(passage)
        self._settled = True

    @property
    def collection(self) -> Any:
        return self._collection

    @property
    def alive(self) -> bool:
        return True if self._inner is None else bool(self._inner.alive)

    # --- documents

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._settled:
            return await self._first(lambda: self._inner.__anext__())
        return self._collection._unstamped(await self._inner.__anext__())

    async def next(self) -> Any:
        """The next document. Raises StopAsyncIteration at the end."""
        return await self.__anext__()

    @list_method
    async def to_list(self, length: int | None = None) -> list[Any]:
        """The next documents, or all remaining ones."""
        found = await self._first(lambda: self._inner.to_list(length))
        return list(self._collection._all_unstamped(found))

    def _is_tailable(self) -> bool:
        if self._inner is None or isinstance(self._inner, MotorLoop):
            return self._inner is not None and bool(self._inner._is_tailable())
        return bool(self._inner._query_flags() & CursorType.TAILABLE)

    async def _ready(self) -> bool:
        return bool(await self._first(lambda: self._inner.fetch_next))

    def _take_ready(self) -> Any:
        return self._collection._unstamped(self._inner.next_object()) if self._settled else None

    @property
    def started(self) -> bool:
        """Motor's: whether a document was requested."""
        self._of_motor("started")
        return self._inner is not None and bool(self._inner.started)

    @started.setter
    def started(self, value: bool) -> None:
        self._of_motor("started")
        if self._inner is not None:
            self._inner.started = value

    @property
    def closed(self) -> bool:
        """Motor's: whether `close` was called."""
        self._of_motor("closed")
        return self._inner is not None and bool(self._inner.closed)

    @property
    def delegate(self) -> Any:
        """Motor's: of a cursor that was not read yet, one that keeps what is set for whichever path the read takes."""
        self._of_motor("delegate")
        return self._inner.delegate if self._settled else Delegate(self)

    async def _first(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if self._settled:
            return await call()
        await self._settle()
        if self._passage is Passage.VERSIONED:
            return await call()
        return await _counted(self._collection, Verb.FIND, call)

    # --- everything else

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and (name.startswith("__") or not self._settled):
            raise AttributeError(name)
        if self._inner is None:
            return functools.partial(self._note, name)
        found = getattr(self._inner, name)
        return functools.partial(self._call, name) if callable(found) else found

    def __getitem__(self, index: Any) -> NoReturn:
        no_indexing(self._collection)

    def _note(self, name: str, *arguments: Any, **options: Any) -> Self:
        """At import time, the call is recorded: the driver checks it once there is an event loop."""
        self._calls.append((name, arguments, options))
        return self

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name in _ASKING and not self._settled:
            return begun(self._collection, self._ask(name, arguments, options))
        made = getattr(self._inner, name)(*arguments, **options)
        if made is not self._inner:
            return made
        self._calls.append((name, arguments, options))
        return self

    async def _ask(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        await self._settle()
        return await getattr(self._inner, name)(*arguments, **options)

    # --- life

    @at_once
    async def close(self) -> None:
        if self._inner is not None:
            await self._inner.close()

    def clone(self) -> RoutedCursor:
        """A new cursor with the same options, at the start."""
        return type(self)(self._collection, *self._given, calls=self._calls)

    def __copy__(self) -> RoutedCursor:
        return self.clone()

    def __deepcopy__(self, memo: Any) -> RoutedCursor:
        return self.clone()

    def rewind(self) -> Any:
        """Back to the start. Awaited with PyMongo's own client, and not with Motor, like their own."""
        self._settled = False
        made = None if self._inner is None else self._inner.rewind()
        return self._rewound(made) if inspect.isawaitable(made) else self

    async def _rewound(self, made: Awaitable[Any]) -> Self:
        await made
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


_ASKING: Final = ("distinct", "explain")
_OF_MOTOR: Final = frozenset({"closed", "delegate", "each", "fetch_next", "get_io_loop", "next_object", "started"})
"""What Motor's cursors have and PyMongo's own do not."""
_BEFORE: Final = frozenset({"address", "cursor_id", "session"})
"""What is None before there is a cursor."""


class RoutedAnswer(DriversClass):
    """A cursor over the result of a command: the driver's own, created when it is awaited or its first document is
    requested."""

    _command = True

    def _is_tailable(self) -> bool:
        return False

    def __init__(
        self,
        collection: Any,
        verb: Verb | None,
        make: Callable[[Passage], Any],
        *,
        hidden: Callable[[Any], bool] = lambda document: False,
    ) -> None:
        self._collection = collection
        self._verb = verb
        self._make = make
        self._hidden = hidden
        self._inner: Any = None
        self._asked = False
        self._sizes: list[int] = []
        self._closed = False

    @property
    def collection(self) -> Any:
        return self._collection

    @property
    def alive(self) -> bool:
        return True if self._inner is None else bool(self._inner.alive)

    def __await__(self) -> Iterator[Any]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        if self._inner is None:
            passage = await self._collection._passage()

            async def made() -> Any:
                found = self._make(passage)
                found = await found if inspect.isawaitable(found) else found
                for size in self._sizes:
                    found = found.batch_size(size)
                return found

            self._inner = await made()
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while self._hidden(found := await self._ask(lambda: self._inner.__anext__())):
            continue
        return self._collection._unstamped(found)

    async def next(self) -> Any:
        """The next document. Raises StopAsyncIteration at the end."""
        return await self.__anext__()

    @list_method
    async def to_list(self, length: int | None = None) -> list[Any]:
        """The next documents, or all remaining ones."""
        found = await self._ask(lambda: self._inner.to_list(length))
        return list(self._collection._all_unstamped([each for each in found if not self._hidden(each)]))

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        await self._opened()
        if self._asked or self._verb is None:
            return await call()
        self._asked = True
        return await _counted(self._collection, self._verb, call)

    @at_once
    async def try_next(self) -> Any:
        """The next document; None if there is none now."""
        while (found := await self._ask(lambda: self._inner.try_next())) is not None and self._hidden(found):
            continue
        return self._collection._unstamped(found)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_MOTOR and is_motor(self._collection):
            return getattr(self, f"_motors_{name}")()
        if name.startswith("_"):
            raise AttributeError(name)
        if self._inner is None:
            if name in _BEFORE:
                return None
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _motors_fetch_next(self) -> Any:
        return begun(self._collection, self._fetched())

    async def _fetched(self) -> bool:
        return bool(await self._ask(lambda: self._inner.fetch_next))

    def _motors_next_object(self) -> Callable[[], Any]:
        return lambda: None if self._inner is None else self._collection._unstamped(self._inner.next_object())

    def _motors_each(self) -> Callable[[Callable[[Any, Any], Any]], None]:
        def each(callback: Callable[[Any, Any], Any]) -> None:
            if not callable(callback):
                raise TypeError("callback must be a callable")
            begun(self._collection, self._each(callback))

        return each

    async def _each(self, callback: Callable[[Any, Any], Any]) -> None:
        try:
            async for found in self:
                if callback(found, None) is False:
                    return
        except Exception as error:
            callback(None, error)
        else:
            callback(None, None)

    def _motors_get_io_loop(self) -> Callable[[], asyncio.AbstractEventLoop]:
        return asyncio.get_running_loop

    def _motors_started(self) -> bool:
        return self._inner is not None and bool(self._inner.started)

    def _motors_closed(self) -> bool:
        return self._closed

    def _motors_delegate(self) -> Any:
        return self if self._inner is None else self._inner.delegate

    def batch_size(self, batch_size: int) -> Self:
        """The driver's own."""
        self._sizes.append(batch_size)
        return self

    @at_once
    async def close(self) -> None:
        self._closed = True
        if self._inner is not None:
            await self._inner.close()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


async def _counted(collection: Any, verb: Verb | None, call: Callable[[], Awaitable[Any]]) -> Any:
    """The first response to a cursor, counted. No documents is a response too."""
    started, outcome = time.perf_counter(), Outcome.ACKED
    try:
        with collection._traced(verb or "list_indexes"), collection._handle.traces.request(StoreName.MONGO):
            return await call()
    except StopAsyncIteration:
        raise
    except Exception as error:
        outcome = classify(error)
        raise
    finally:
        collection._handle.forwarder().count(collection.name, verb, outcome, started)


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
