"""The fork: every operation of the application passes here, and nowhere else is it decided who is asked.

The primary answers. What the secondary has to do, it does off the caller's path; the only waiting for it is what the
write mode of the collection, or its share of reads for the secondary, asks for by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from pymongo.errors import NetworkTimeout, PyMongoError, WriteError

from shadow.compare.equality import Comparison
from shadow.errors import SecondaryWriteError, UnsupportedOperation
from shadow.host.failpoints import Failpoints, Point
from shadow.model.bounds import Refusal, held_to
from shadow.model.limits import Limits
from shadow.model.operation import ANY, Applied, Change, Hit, Insert, Query, Replace, Verb, Write, at_key
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, Route, StoreName, WriteMode
from shadow.model.reporter import Reporter
from shadow.model.values import snapshot
from shadow.model.verdict import Deferral, Incomparable, ShedReason, Slice
from shadow.model.version import Document, Key, fresh_id
from shadow.reads.percent_reads import PercentReads
from shadow.reads.shadow_read import Answer, ShadowReader
from shadow.routes.routes import Routes
from shadow.stores.base import Store
from shadow.stores.within import within
from shadow.writes.intents import Intents
from shadow.writes.replicator import Replicator
from shadow.writes.search import Search

__all__ = ["Router"]

_BY_KEY: Final = 100
"""Documents of an unsorted answer that was left early which are asked for by their keys."""

_LAST_WORD: Final = 0.05
"""Seconds: what is waited for begins its own time a little later, and shall say itself that it is over."""

T = TypeVar("T")
Result = Applied | Exception | None

_NOT_CHOSEN: Final = WriteError("the primary does not choose documents by itself")
"""Answered in a process that has just flipped: nothing was asked."""


class Router:
    """One for each event loop."""

    def __init__(
        self,
        stores: Mapping[StoreName, Store],
        routes: Routes,
        intents: Intents,
        follower: Replicator,
        reader: ShadowReader,
        limits: Limits,
        reporter: Reporter,
        reach: Failpoints,
        percent: PercentReads,
        admit: Callable[[str, StoreName], Awaitable[None]] | None = None,
    ) -> None:
        """`admit`: asked before each write to both stores, before its intent, with the collection and its primary; it
        raises where there may be none."""
        self._stores = stores
        self._routes = routes
        self._intents = intents
        self._follower = follower
        self._reader = reader
        self._limits = limits
        self._reporter = reporter
        self._reach = reach
        self._percent = percent
        self._search = Search(self._primary, self._write_at_key, limits)
        self._admit = admit
        self._tasks: set[asyncio.Task[object]] = set()

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        routes = self._routes
        route = routes[collection] if routes.known else await routes.route(collection)
        if route.secondary_reads:
            routed = await self._percent.answer(collection, Verb.FIND_ONE, route, _one(collection, query), query.filter)
            if routed is not None:
                found = [] if routed.value is None else [routed.value]
                self._compare_routed(collection, Verb.FIND_ONE, _first(query, 1), found, route)
                return routed.value
        # The commonest call of all: what `_observed` does, without its closure and a coroutine more.
        sampled, outcome, started = self._reader.sampled(route), Outcome.ACKED, time.perf_counter()
        try:
            hit = await self._stores[route.primary].find_one(collection, query)
        except Exception as error:
            outcome = classify(error)
            if sampled:
                self._offer_refusal(collection, Verb.FIND_ONE, _one(collection, query), error, route)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._reporter.operation(collection, Verb.FIND_ONE, route.primary, Role.PRIMARY, outcome, seconds)
        if sampled:
            hits = [] if hit is None else [_snapshot(hit)]
            self._reader.offer_hits(collection, Verb.FIND_ONE, _first(query, 1), hits, route)
        self._taxed(Verb.FIND_ONE, route, time.perf_counter() - started, sampled=sampled)
        return hit

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        """The primary's pages. What was read of them is compared when the answer ends or is left."""
        route = await self._routes.route(collection)
        if route.secondary_reads:
            routed = await self._percent.hits(collection, query, route)
            if routed is not None:
                self._compare_routed(collection, Verb.FIND, query, routed.value, route)
                yield routed.value
                return
        sampled = self._reader.sampled(route)
        kept = _Kept(self._limits.compare_documents) if sampled else None
        watch = _Watch()
        outcome, whole = Outcome.ACKED, False
        try:
            async for page in self._stores[route.primary].find(collection, query):
                if kept is not None:
                    kept.add(page)
                watch.stop()
                yield page
                watch.start()
            whole = True
        except Exception as error:
            outcome, kept = classify(error), None
            if sampled:
                self._offer_refusal(collection, Verb.FIND, _pages(collection, query), error, route)
            raise
        finally:
            self._reporter.operation(collection, Verb.FIND, route.primary, Role.PRIMARY, outcome, watch.seconds)
            watch.start()
            if kept is not None:
                self._compare_kept(collection, query, kept, route, whole=whole)
            self._taxed(Verb.FIND, route, watch.seconds, sampled=sampled)

    def _compare_routed(self, collection: str, verb: Verb, query: Query, hits: Sequence[Hit], route: Route) -> None:
        """Compares what the secondary has answered to the application."""
        if self._reader.sampled(route):
            kept = [_snapshot(hit) for hit in hits]
            self._reader.offer_hits(collection, verb, query, kept, route, by=Role.SECONDARY)

    def _compare_kept(self, collection: str, query: Query, kept: _Kept, route: Route, *, whole: bool) -> None:
        if kept.overflowed:
            self._reader.shed(collection, Verb.FIND, ShedReason.TOO_LARGE)
        elif whole:
            self._reader.offer_hits(collection, Verb.FIND, query, kept.hits, route)
        elif query.sort and kept.hits:
            self._reader.offer_hits(collection, Verb.FIND, _first(query, len(kept.hits)), kept.hits, route)
        elif 0 < len(kept.hits) <= _BY_KEY:
            # Left early and unsorted: other documents would have been right as well, but these have to be there.
            self._reader.offer_hits(collection, Verb.FIND, _these(query, kept.hits), kept.hits, route)
        else:
            self._reader.incomparable(collection, Verb.FIND, Incomparable.LEFT_EARLY)

    async def answer(
        self,
        collection: str,
        verb: Verb,
        ask: Callable[[Store], Awaitable[T]],
        compare: Callable[[T, T], Comparison],
        filter: Document | None = None,
        pipeline: Sequence[Document] = (),
    ) -> T:
        """A read that names no documents (a count, distinct values, an aggregate), asked of the primary and compared
        in the shadow. `filter` is by what its documents are found, `pipeline` what an aggregate does with them."""
        route = await self._routes.route(collection)
        if route.secondary_reads:
            routed = await self._percent.answer(collection, verb, route, ask, filter or {}, pipeline)
            if routed is not None:
                if self._reader.sampled(route):
                    asked = Answer(snapshot(routed.value), ask, compare, by=Role.SECONDARY)
                    self._reader.offer_answer(collection, verb, asked, route, filter)
                return routed.value
        started, sampled = time.perf_counter(), self._reader.sampled(route)
        found = await self._observed(collection, verb, route, ask, sampled=sampled)
        if sampled:
            self._reader.offer_answer(collection, verb, Answer(snapshot(found), ask, compare), route, filter)
        self._taxed(verb, route, time.perf_counter() - started, sampled=sampled)
        return found

    async def keys_of(self, collection: str, filter: Document) -> list[Key]:
        """The keys of all documents that a write with this filter is about, on the primary."""
        route = await self._routes.route(collection)
        query = Query(filter=filter, projection={"_id": 1}, newest=True)
        return [hit.key async for page in self._stores[route.primary].find(collection, query) for hit in page]

    # --- writes -------------------------------------------------------------------------------------------------

    async def write(self, collection: str, verb: Verb, change: Change) -> Applied | None:
        """One document's change. Cancelling the caller cancels nothing once it has begun."""
        routes = self._routes
        route = routes[collection] if routes.known else await routes.route(collection)
        refused = self._refused(collection, change, route)
        if refused is not None:
            raise refused
        if self._admit is not None and route.dual_write and change.key is ANY:
            # Here already: a store is searched for the document before it is written.
            await self._admit(collection, route.primary)
        result = (await self._shielded(self._write_one(collection, verb, change)))[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def insert_many(self, collection: str, inserts: Sequence[Insert], *, ordered: bool) -> list[Result]:
        """One result each: what was applied, the error, or None where an earlier error ended an ordered batch."""
        route = await self._routes.route(collection)
        refused = [self._refused(collection, each, route) for each in inserts]
        if not any(refused):
            return await self._shielded(self._insert_many(collection, inserts, ordered=ordered))
        return await self._insert_rest(collection, inserts, refused, ordered=ordered)

    async def _insert_rest(
        self, collection: str, inserts: Sequence[Insert], refused: Sequence[Exception | None], *, ordered: bool
    ) -> list[Result]:
        """Inserts what both stores can hold, or, ordered, what stands before the first that one of them cannot."""
        whole = next((each for each in refused if each is not None and not isinstance(each, WriteError)), None)
        if whole is not None:
            raise whole  # the drivers refuse the command with it
        first = next(place for place, each in enumerate(refused) if each is not None)
        places = [place for place, each in enumerate(refused) if each is None and (place < first or not ordered)]
        results: list[Result] = [None if ordered else each for each in refused]
        if places:
            kept = [inserts[place] for place in places]
            made = await self._shielded(self._insert_many(collection, kept, ordered=ordered))
            for place, result in zip(places, made, strict=True):
                results[place] = result
        if ordered and all(isinstance(results[place], Applied) for place in places):
            results[first] = refused[first]
        return results

    def _refused(self, collection: str, change: Change, route: Route) -> Exception | None:
        """With what the secondary would refuse to hold what the change comes to, as far as that is known before the
        primary is asked. Where only one store is written, the other one's limits are none."""
        if not route.dual_write:
            return None
        match change:
            case Insert(document=document):
                return self._stores[route.secondary].refusal(collection, change, False, document)
            case Replace(key=key, replacement=replacement):
                named = change.new if key is ANY else key
                return self._stores[route.secondary].refusal(collection, change, False, {"_id": named, **replacement})
        return None

    def _bounds(self, collection: str, route: Route) -> Refusal | None:
        """What the outcome of a change is held to, by a primary that knows it before it is written."""
        return functools.partial(self._stores[route.secondary].refusal, collection) if route.dual_write else None

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
        if isinstance(change, Insert) or change.key is not ANY:
            return await self._write_at_key(collection, verb, change)
        while True:
            if (await self._primary(collection)).chooses(change):
                results = await self._write_at_key(collection, verb, change)
                if results != [_NOT_CHOSEN]:
                    return results
            else:
                return [await self._search.change(collection, verb, change)]

    async def _write_at_key(self, collection: str, verb: Verb, change: Change) -> list[Result]:
        """The change of a document whose key is known, or which the primary chooses by itself."""

        async def ask(route: Route, op_ids: Sequence[str]) -> list[Result]:
            store = self._stores[route.primary]
            if change.key is ANY and not store.chooses(change):  # the primary is another one since it was asked
                return [_NOT_CHOSEN]
            return [await store.apply(collection, change, op_ids[0])]

        return await self._write(collection, verb, [change], ask)

    async def _primary(self, collection: str) -> Store:
        return self._stores[(await self._routes.route(collection)).primary]

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
        writing = self._routes.writing(collection)
        async with writing as route:
            if not route.dual_write:
                results = await self._ask(collection, verb, route, [fresh_id() for _ in changes], ask)
                if any(isinstance(each, Exception) and classify(each) is Outcome.UNKNOWN for each in results):
                    writing.lost()
                return results
            if self._admit is not None:
                await self._admit(collection, route.primary)
            keys = [change.key for change in changes]
            opened = await self._intents.open(collection, keys)
            results = await self._ask(collection, verb, route, opened.op_ids, ask)
            self._reach(Point.AFTER_PRIMARY)
            changes = [self._decided(*each) for each in zip(changes, opened.op_ids, results, strict=True)]
            if self._intents.expired(opened):
                keys = [change.key for change in changes]
                opened = await self._intents.renew(collection, keys, opened)
            following = [
                self._settle(collection, verb, change, op_id, result, route)
                for change, op_id, result in zip(changes, opened.op_ids, results, strict=True)
            ]
        under_way = [each for each in following if each is not None]
        await self._wait_for(collection, route, under_way, results, durable=opened.durable)
        return results

    def _decided(self, change: Change, op_id: str, result: Result) -> Change:
        """The change at the key that the primary has found for it."""
        if change.key is not ANY or not isinstance(result, Applied):
            return change
        self._intents.decide(op_id, result.key)
        return at_key(change, result.key)

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
            async with within(self._limits.operation / 2):
                with held_to(self._bounds(collection, route)):
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
            self._intents.close(op_id)
        return None

    async def _wait_for(
        self,
        collection: str,
        route: Route,
        following: Sequence[asyncio.Future[bool]],
        results: Sequence[Result],
        *,
        durable: bool,
    ) -> None:
        """Waits for the secondary where the mode of writing asks for it, and where no intent stands for the write."""
        if not following or (route.writes is WriteMode.BACKGROUND and durable):
            return
        done, _ = await asyncio.wait(following, timeout=self._limits.write_deadline + _LAST_WORD)
        taken = len(done) == len(following) and all(each.result() for each in done)
        if not taken and not durable:
            self._intents.doubt(collection)
        # What the primary refused goes first: the caller must hear it.
        refused = any(isinstance(each, Exception) for each in results)
        if route.writes is WriteMode.STRICT and not taken and not refused:
            raise SecondaryWriteError(
                f"the primary ({route.primary}) has the write, the secondary ({route.secondary}) has not yet",
                hint="the write stays in the journal and will be healed; `writes: sync` waits without raising",
            )

    # --- shared -------------------------------------------------------------------------------------------------

    async def _observed(
        self, collection: str, verb: Verb, route: Route, ask: Callable[[Store], Awaitable[T]], *, sampled: bool
    ) -> T:
        started = time.perf_counter()
        outcome = Outcome.ACKED
        try:
            return await ask(self._stores[route.primary])
        except Exception as error:
            outcome = classify(error)
            if sampled:
                self._offer_refusal(collection, verb, ask, error, route)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._reporter.operation(collection, verb, route.primary, Role.PRIMARY, outcome, seconds)

    def _offer_refusal(
        self, collection: str, verb: Verb, ask: Callable[[Store], Awaitable[object]], error: Exception, route: Route
    ) -> None:
        """What the primary refuses, the secondary has to refuse; what we refuse ourselves reaches neither."""
        if classify(error) is Outcome.REFUSED and isinstance(error, PyMongoError) and not _is_ours(error):
            self._reader.offer_refusal(collection, verb, Answer(None, ask, _never), error, route)

    def _taxed(self, verb: Verb, route: Route, seconds: float, *, sampled: bool) -> None:
        if route.shadow_read:
            self._reporter.read(verb, Slice.SHADOWED if sampled else Slice.LEFT_OUT, seconds)

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


class _Watch:
    """Counts the seconds that are ours, and not those in which the application has a page in hand."""

    __slots__ = ("_since", "_sum")

    def __init__(self) -> None:
        self._sum = 0.0
        self._since: float | None = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._sum + (0.0 if self._since is None else time.perf_counter() - self._since)

    def start(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        self._sum, self._since = self.seconds, None


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


def _these(query: Query, hits: Sequence[Hit]) -> Query:
    """The same query, narrowed to the documents that were read."""
    keys: Document = {"_id": {"$in": [hit.key for hit in hits]}}
    return Query({"$and": [query.filter, keys]} if query.filter else keys, query.projection)


def _one(collection: str, query: Query) -> Callable[[Store], Awaitable[Hit | None]]:
    return lambda store: store.find_one(collection, query)


def _pages(collection: str, query: Query) -> Callable[[Store], Awaitable[object]]:
    async def ask(store: Store) -> None:
        async for _ in store.find(collection, query):
            return

    return ask


def _is_ours(error: Exception) -> bool:
    return isinstance(error, UnsupportedOperation)


def _never(primary: object, secondary: object) -> Comparison:
    return Comparison()


def _first(query: Query, count: int) -> Query:
    return Query(query.filter, query.projection, query.sort, query.skip, count, query.batch_size)
