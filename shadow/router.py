"""The fork: every operation of the application passes here, and nowhere else is it decided who is asked.

The primary answers. What the secondary has to do, it does off the caller's path; the only waiting for it is what the
write mode of the collection asks for by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from pymongo.errors import NetworkTimeout

from shadow.compare.equality import Comparison
from shadow.errors import JournalError, SecondaryWriteError
from shadow.model.operation import Applied, Change, Hit, Insert, Query, Verb, Write
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, Route, StoreName, WriteMode
from shadow.model.reporter import Reporter
from shadow.model.values import snapshot
from shadow.model.verdict import Deferral, ShedReason
from shadow.model.version import Document, Key, fresh_id
from shadow.replicate.follower import Follower
from shadow.replicate.journal import Entry, Journal
from shadow.replicate.limits import Limits
from shadow.replicate.points import Point, Reach
from shadow.replicate.routes import Routes
from shadow.replicate.shadow_read import Answer, ShadowReader
from shadow.stores.base import Store

__all__ = ["Router"]

_OPEN_ATTEMPTS: Final = 3
"""How often intents are opened anew because the journal was slow."""

T = TypeVar("T")
Result = Applied | Exception | None


class Router:
    """One for each event loop."""

    def __init__(
        self,
        stores: Mapping[StoreName, Store],
        routes: Routes,
        journal: Journal,
        follower: Follower,
        reader: ShadowReader,
        limits: Limits,
        reporter: Reporter,
        reach: Reach,
    ) -> None:
        self._stores = stores
        self._routes = routes
        self._journal = journal
        self._follower = follower
        self._reader = reader
        self._limits = limits
        self._reporter = reporter
        self._reach = reach
        self._tasks: set[asyncio.Task[object]] = set()

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        route = self._routes[collection]
        asked = self._stores[route.primary].find_one(collection, query)
        hit = await self._observed(collection, Verb.FIND_ONE, route, asked)
        if self._reader.sampled(route):
            query = _first(query, 1)
            self._reader.offer_hits(collection, Verb.FIND_ONE, query, [] if hit is None else [_snapshot(hit)], route)
        return hit

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        """The primary's pages. What was read of them is compared when the answer ends or is left."""
        route = self._routes[collection]
        kept = _Kept(self._limits.compare_documents) if self._reader.sampled(route) else None
        started = time.perf_counter()
        outcome, whole = Outcome.ACKED, False
        try:
            async for page in self._stores[route.primary].find(collection, query):
                if kept is not None:
                    kept.add(page)
                yield page
            whole = True
        except Exception as error:
            outcome, kept = classify(error), None
            raise
        finally:
            seconds = time.perf_counter() - started
            self._reporter.operation(collection, Verb.FIND, route.primary, Role.PRIMARY, outcome, seconds)
            if kept is not None:
                self._compare_kept(collection, query, kept, route, whole=whole)

    def _compare_kept(self, collection: str, query: Query, kept: _Kept, route: Route, *, whole: bool) -> None:
        if kept.overflowed:
            self._reader.shed(collection, Verb.FIND, ShedReason.TOO_LARGE)
        elif whole:
            self._reader.offer_hits(collection, Verb.FIND, query, kept.hits, route)
        elif query.sort and kept.hits:
            self._reader.offer_hits(collection, Verb.FIND, _first(query, len(kept.hits)), kept.hits, route)
        else:
            # Left early and unsorted: any documents would have been a right answer.
            self._reader.incomparable(collection, Verb.FIND)

    async def answer(
        self,
        collection: str,
        verb: Verb,
        ask: Callable[[Store], Awaitable[T]],
        compare: Callable[[T, T], Comparison],
    ) -> T:
        """A read that names no documents (a count, distinct values, an aggregate), asked of the primary and compared
        in the shadow."""
        route = self._routes[collection]
        found = await self._observed(collection, verb, route, ask(self._stores[route.primary]))
        if self._reader.sampled(route):
            self._reader.offer_answer(collection, verb, Answer(snapshot(found), ask, compare), route)
        return found

    async def key_of(self, collection: str, filter: Document, sort: Sequence[tuple[str, int]] = ()) -> Hit | None:
        """The document that a write with this filter is about, on the primary; never compared or counted."""
        route = self._routes[collection]
        query = Query(filter=filter, projection={"_id": 1}, sort=tuple(sort))
        return await self._stores[route.primary].find_one(collection, query)

    async def keys_of(self, collection: str, filter: Document) -> list[Key]:
        """The keys of all documents that a write with this filter is about, on the primary."""
        route = self._routes[collection]
        query = Query(filter=filter, projection={"_id": 1})
        return [hit.key async for page in self._stores[route.primary].find(collection, query) for hit in page]

    # --- writes -------------------------------------------------------------------------------------------------

    async def write(self, collection: str, verb: Verb, change: Change) -> Applied | None:
        """One document's change. Cancelling the caller cancels nothing once it has begun."""
        result = (await self._shielded(self._write_one(collection, verb, change)))[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def insert_many(self, collection: str, inserts: Sequence[Insert], *, ordered: bool) -> list[Result]:
        """One result each: what was applied, the error, or None where an earlier error ended an ordered batch."""
        return await self._shielded(self._insert_many(collection, inserts, ordered=ordered))

    async def finish(self, timeout: float) -> None:
        """Waits for the writes that are under way, then leaves those that do not end to their intents."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _write_one(self, collection: str, verb: Verb, change: Change) -> list[Result]:
        async def ask(route: Route, op_ids: Sequence[str]) -> list[Result]:
            return [await self._stores[route.primary].apply(collection, change, op_ids[0])]

        return await self._write(collection, verb, [change], ask)

    async def _insert_many(self, collection: str, inserts: Sequence[Insert], *, ordered: bool) -> list[Result]:
        async def ask(route: Route, op_ids: Sequence[str]) -> list[Result]:
            return await self._stores[route.primary].insert_many(collection, inserts, op_ids, ordered=ordered)

        return await self._write(collection, Verb.INSERT_MANY, inserts, ask)

    async def _write(
        self,
        collection: str,
        verb: Verb,
        changes: Sequence[Change],
        ask: Callable[[Route, Sequence[str]], Awaitable[list[Result]]],
    ) -> list[Result]:
        async with self._routes.writing(collection) as route:
            if not route.dual_write:
                return await self._ask(collection, verb, route, [fresh_id() for _ in changes], ask)
            op_ids = await self._open(collection, changes)
            results = await self._ask(collection, verb, route, op_ids, ask)
            self._reach(Point.AFTER_PRIMARY)
            following = [
                self._settle(collection, verb, change, op_id, result, route)
                for change, op_id, result in zip(changes, op_ids, results, strict=True)
            ]
        await self._wait_for(route, [each for each in following if each is not None], results)
        return results

    async def _open(self, collection: str, changes: Sequence[Change]) -> list[str]:
        """Makes one intent a change durable, and answers their ids. Intents that took so long that others may soon
        take them for orphaned are given up for new ones. Raises `JournalError`."""
        self._reach(Point.BEFORE_INTENT)
        for _ in range(_OPEN_ATTEMPTS):
            op_ids = [fresh_id() for _ in changes]
            started = time.monotonic()
            await self._journal.open(
                [Entry(op_id, collection, each.key) for op_id, each in zip(op_ids, changes, strict=True)]
            )
            if time.monotonic() - started <= self._limits.operation / 4:
                self._reach(Point.AFTER_INTENT)
                return op_ids
            for op_id in op_ids:
                self._journal.close(op_id)
        raise JournalError(
            f"the journal took longer than {self._limits.operation / 4:g} s, {_OPEN_ATTEMPTS} times in a row",
            hint="look at the disk that it is on; writes are refused until it can keep up",
        )

    async def _ask(
        self,
        collection: str,
        verb: Verb,
        route: Route,
        op_ids: Sequence[str],
        ask: Callable[[Route, Sequence[str]], Awaitable[list[Result]]],
    ) -> list[Result]:
        """The primary's answers. An error of the whole call is the answer to each change."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._limits.operation / 2):
                results = await ask(route, op_ids)
        except TimeoutError:
            results = [NetworkTimeout(f"no answer from {route.primary} within {self._limits.operation / 2:g} s")]
        except Exception as error:
            results = [error]
        if len(results) < len(op_ids):
            results = results * len(op_ids)
        seconds = time.perf_counter() - started
        fault = next((each for each in results if isinstance(each, Exception)), None)
        outcome = Outcome.ACKED if fault is None else classify(fault)
        self._reporter.operation(collection, verb, route.primary, Role.PRIMARY, outcome, seconds)
        return results

    def _settle(
        self, collection: str, verb: Verb, change: Change, op_id: str, result: Result, route: Route
    ) -> asyncio.Future[bool] | None:
        """What becomes of one intent: closed where nothing changed, left open where nobody knows, else followed."""
        if isinstance(result, Applied):
            write = Write(collection, verb, op_id, change, result.pre.state, result.post)
            return self._follower.follow(write, route)
        if isinstance(result, Exception) and classify(result) is Outcome.UNKNOWN:
            self._follower.defer(collection, op_id, Deferral.PRIMARY_UNKNOWN)
        else:
            self._journal.close(op_id)
        return None

    async def _wait_for(
        self, route: Route, following: Sequence[asyncio.Future[bool]], results: Sequence[Result]
    ) -> None:
        if route.writes is WriteMode.BACKGROUND or not following:
            return
        done, _ = await asyncio.wait(following, timeout=self._limits.write_deadline)
        taken = len(done) == len(following) and all(each.result() for each in done)
        # What the primary refused goes first: the caller must hear it.
        refused = any(isinstance(each, Exception) for each in results)
        if route.writes is WriteMode.STRICT and not taken and not refused:
            raise SecondaryWriteError(
                f"the primary ({route.primary}) has the write, the secondary ({route.secondary}) has not yet",
                hint="the write stays in the journal and will be healed; `writes: sync` waits without raising",
            )

    # --- shared -------------------------------------------------------------------------------------------------

    async def _observed(self, collection: str, verb: Verb, route: Route, asked: Awaitable[T]) -> T:
        started = time.perf_counter()
        outcome = Outcome.ACKED
        try:
            return await asked
        except Exception as error:
            outcome = classify(error)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._reporter.operation(collection, verb, route.primary, Role.PRIMARY, outcome, seconds)

    async def _shielded(self, work: Awaitable[T]) -> T:
        """Runs `work` to its end even if the caller is cancelled."""
        task: asyncio.Task[T] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        # A caller that has gone cannot hear it; asking for the exception keeps asyncio from calling it lost.
        if not task.cancelled():
            task.exception()


class _Kept:
    """The documents of an answer that are kept for comparison, up to a bound."""

    __slots__ = ("_bound", "hits", "overflowed")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.hits: list[Hit] = []
        self.overflowed = False

    def add(self, page: list[Hit]) -> None:
        if len(self.hits) + len(page) > self._bound:
            self.overflowed = True
            self.hits = []
        elif not self.overflowed:
            self.hits.extend(_snapshot(hit) for hit in page)


def _snapshot(hit: Hit) -> Hit:
    """The application may change what it was given before the comparison comes to it."""
    return Hit(hit.key, hit.version, snapshot(hit.document))


def _first(query: Query, count: int) -> Query:
    return Query(query.filter, query.projection, query.sort, query.skip, count, query.batch_size)
