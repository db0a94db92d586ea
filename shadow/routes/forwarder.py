"""Which calls of a configured collection are forwarded to MongoDB's driver as they are, and how they are made.

While every process writes MongoDB alone, nothing is replicated and nothing is compared: the driver's own call is the
right one, in one command, with every option. Two things remain to be done here:

- No call is forwarded before it is known that this is so, and none while it may be about to change: a write counts as
  under way until the driver has answered, whether or not its caller still waits, and its transaction has ended.
- Where both stores were written before, documents carry versions, and there may be tombstones. They are hidden, and a
  write moves the version: see `stamping`.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from shadow.host.tasks import begin
from shadow.model.events import OperationFinished, Reporter
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, Route, StoreName
from shadow.model.version import fresh_id
from shadow.routes.routes import OpenWrite, Routes
from shadow.stores.base import Store
from shadow.traces.spans import NO_TRACES, Traces

__all__ = ["Forwarder", "HasDriver", "Passage", "expected", "no_era"]

T = TypeVar("T")

_LOOK: Final = 2.0
"""Seconds to search a collection for versions; one that takes longer counts as one that has some."""
_RENEWALS: Final = 3
"""How often a write asks for a lease again that has run out by the time that it arrives."""
_TRANSACTION: Final = 0.02
"""Seconds between two checks whether a transaction has ended."""


class Passage(enum.Enum):
    """How a call is made."""

    OWN = enum.auto()
    """The driver's own call, as it is."""
    STAMPED = enum.auto()
    """The driver's own call, with versions and tombstones hidden, and the version moved by a write."""
    VERSIONED = enum.auto()
    """By the router: both stores, or DynamoDB."""


@runtime_checkable
class HasDriver(Protocol):
    """A store that has a driver under it."""

    @property
    def client(self) -> Any:
        """The driver's client that is in use now: one that answers nothing any more is replaced."""

    @property
    def driver(self) -> Any:
        """The driver's database object, as the application would have made it."""

    async def has_stamps(self, collection: str, patience: float) -> bool:
        """Whether a document carries a version, or there is a tombstone; True where `patience` seconds are not enough
        to search all of it."""


def expected(routes: Routes, collection: str) -> Passage:
    """How a call of a configured collection would be made by what is known now; it may be made otherwise then."""
    route = routes[collection]
    if route.dual_write or route.primary is not StoreName.MONGO:
        return Passage.VERSIONED
    return Passage.STAMPED if routes.stamped(collection) else Passage.OWN


def no_era(collection: str) -> str:
    """A time of its own for each call."""
    return fresh_id()


class Forwarder:
    """One for each event loop."""

    def __init__(
        self,
        store: Store,
        routes: Routes,
        reporter: Reporter,
        era: Callable[[str], str] = no_era,
        traces: Traces = NO_TRACES,
    ) -> None:
        """`era` names the time since both stores of a collection were written last, in all processes alike."""
        self._store = store if isinstance(store, HasDriver) else None
        self._routes = routes
        self._reporter = reporter
        self._era = era
        self._traces = traces
        self._under_way: set[asyncio.Future[Any]] = set()
        self._looks: dict[str, asyncio.Lock] = {}

    @property
    def client(self) -> Any:
        """The driver's client that is in use now."""
        assert self._store is not None
        return self._store.client

    def collection(self, name: str, options: dict[str, Any]) -> Any:
        """The driver's own collection."""
        assert self._store is not None
        return self._store.driver.get_collection(name, **options)

    def era(self, collection: str) -> str:
        """Names the time since both stores were written last."""
        return self._era(collection)

    # --- which way ----------------------------------------------------------------------------------------------

    def expected(self, collection: str) -> Passage:
        """How a call would be made by what is known now."""
        return Passage.VERSIONED if self._store is None else expected(self._routes, collection)

    def known(self, collection: str) -> Passage | None:
        """How a read is made; None where that is to be asked first."""
        if not self._routes.known:
            return None
        found = self.expected(collection)
        if found is Passage.OWN and not (self._routes.plain(collection) and collection in self._routes.looked):
            return None
        return found

    async def asked(self, collection: str) -> Passage:
        """How a read is made. Where nobody can say whether documents carry versions, they are hidden: a read does not
        wait for the control store. Raises what the store raises."""
        routes = self._routes
        if not routes.known:
            await routes.learnt(writing=False)
        if self.expected(collection) is Passage.OWN:
            await self._look(collection)
        found = self.expected(collection)
        return Passage.STAMPED if found is Passage.OWN and not routes.plain(collection) else found

    async def _look(self, collection: str) -> None:
        """Searches the collection once: another control store, or an older version of this library, may have left
        versions in it."""
        looked = self._routes.looked
        if self._store is not None and collection not in looked:
            async with self._looks.setdefault(collection, asyncio.Lock()):
                if collection not in looked:
                    looked[collection] = await self._store.has_stamps(collection, _LOOK)

    def _of_write(self, route: Route) -> Passage:
        if not route.bare or self._store is None:
            return Passage.VERSIONED
        return Passage.STAMPED if route.stamps else Passage.OWN

    # --- calls --------------------------------------------------------------------------------------------------

    async def read(self, collection: str, verb: Verb | None, call: Awaitable[T]) -> T:
        """Makes a read, and counts it."""
        started, outcome = time.perf_counter(), Outcome.ACKED
        try:
            with self._traces.request(StoreName.MONGO):
                return await call
        except Exception as error:
            outcome = classify(error)
            raise
        finally:
            self.count(collection, verb, outcome, started)

    def count(self, collection: str, verb: Verb | None, outcome: Outcome, started: float) -> None:
        """`started`: by `time.perf_counter`."""
        if verb is not None:
            seconds = time.perf_counter() - started
            self._reporter.publish(OperationFinished(collection, verb, StoreName.MONGO, Role.PRIMARY, outcome, seconds))

    async def write(
        self,
        collection: str,
        verb: Verb | None,
        call: Callable[[Passage], Awaitable[Any]],
        session: Any = None,
    ) -> tuple[Passage, Any]:
        """Makes a write by `call`, or answers VERSIONED if it has to be made otherwise. Cancelling the caller ends its
        waiting; the write counts as under way until the driver has answered."""
        if self.expected(collection) is Passage.OWN:
            await self._look(collection)
        writing, route = await self._entered(collection)
        try:
            passage = self._of_write(route)
            if passage is Passage.OWN and self._routes.stamped(collection):
                passage = Passage.STAMPED
            if passage is Passage.VERSIONED:
                writing.leave()
                return passage, None
            started = time.perf_counter()
            task = asyncio.ensure_future(self._requested(call, passage))
        except BaseException:
            writing.leave()
            raise
        self._under_way.add(task)

        def ended(task: asyncio.Future[Any]) -> None:
            self._under_way.discard(task)
            error = _error(task)
            self.count(collection, verb, Outcome.ACKED if error is None else classify(error), started)
            self._leave(writing, error, session)

        task.add_done_callback(ended)
        return passage, await asyncio.shield(task)

    async def _requested(self, call: Callable[[Passage], Awaitable[Any]], passage: Passage) -> Any:
        with self._traces.request(StoreName.MONGO):
            return await call(passage)

    async def _entered(self, collection: str) -> tuple[OpenWrite, Route]:
        """The gate passed. A lease that ran out on the way is asked for again, or a slow host would have versions in
        a collection that needs none."""
        left = _RENEWALS
        while True:
            writing = self._routes.writing(collection)
            route = await writing.__aenter__()
            if self._routes.fresh or not left or self.expected(collection) is Passage.VERSIONED:
                return writing, route
            writing.leave()
            left -= 1

    def _leave(self, writing: OpenWrite, error: BaseException | None, session: Any) -> None:
        """A write in a transaction is made when that ends."""
        if session is None or not getattr(session, "in_transaction", False):
            writing.leave(error)
            return
        waiting = begin(self._transaction_ended(writing, session))
        self._under_way.add(waiting)
        waiting.add_done_callback(self._under_way.discard)

    async def _transaction_ended(self, writing: OpenWrite, session: Any) -> None:
        try:
            while session.in_transaction and not session.has_ended:  # noqa: ASYNC110 - the driver wakes nobody
                await asyncio.sleep(_TRANSACTION)
        finally:
            writing.leave()

    async def finish(self, timeout: float) -> None:
        """Waits for the writes that are under way, then gives up on those that do not end."""
        if self._under_way:
            _, left = await asyncio.wait(set(self._under_way), timeout=timeout)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def _error(task: asyncio.Future[Any]) -> BaseException | None:
    """Asking for it also keeps asyncio from calling it lost where the caller has gone."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()
