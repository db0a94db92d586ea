"""Reads of the application: the primary answers them, or, by its share, the secondary; the other one is compared."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from pymongo.errors import PyMongoError

from shadow.errors import UnsupportedOperation
from shadow.model.events import NotPortable, OperationFinished, ReadFinished, ReadRouted, Reporter
from shadow.model.expiry import hide, joined_collections, unexpired
from shadow.model.operation import Hit, MongoOnly, Query, Verb
from shadow.model.outcome import Outcome, classify, is_denied
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reads import Aggregate, Count, Distinct, Find, FindOne, Read, ValueRead
from shadow.model.values import snapshot
from shadow.model.verdict import Incomparable, Routed, ShedReason, Slice
from shadow.model.version import Document, Key
from shadow.reads.asking import ask_store
from shadow.reads.kept import KeptHits, Stopwatch, first, one_of, snapshot_of
from shadow.reads.percent_reads import PercentReads
from shadow.reads.shadow_read import ShadowReader
from shadow.stores.base import Batching
from shadow.traces.spans import caused, here
from shadow.writes.context import LoopContext

__all__ = ["ByPrimary", "ReadRouter"]

_BY_KEY: Final = 100
"""Documents of an unsorted answer that was left early, at most, that are compared by their keys."""


class ByPrimary:
    """In place of `PercentReads`: every read is answered by the primary."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def answer(self, collection: str, read: Read, route: Route) -> None:
        self._reporter.publish(ReadRouted(collection, route.primary, Routed.SESSION))


class ReadRouter:
    """The reading half of the router. One for each event loop."""

    def __init__(self, context: LoopContext, reader: ShadowReader, percent: PercentReads) -> None:
        self._stores = context.stores
        self._routes = context.routes
        self._reader = reader
        self._limits = context.limits
        self._reporter = context.reporter
        self._percent: PercentReads | ByPrimary = percent
        self._expiry = context.expiry
        self._traces = context.traces

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        routes = self._routes
        route = routes[collection] if routes.known else await routes.route(collection)
        if (expiry := self._expiry(collection)) is not None:
            query = replace(query, filter=unexpired(expiry, query.filter, time.time()))
        alone = query.mongo_only is not None and self._alone(collection, Verb.FIND_ONE, query.mongo_only, route)
        if route.secondary_reads and not alone:
            read = FindOne(first(query, 1))
            routed = await self._percent.answer(collection, read, route)
            if routed is not None:
                self._compare_routed(collection, read, [] if routed.value is None else [routed.value], route)
                hit: Hit | None = routed.value
                return hit
        # The commonest call of all: no datum and no coroutine more than it needs.
        sampled = not alone and self._reader.sampled(route)
        outcome, refused, started = Outcome.ACKED, False, time.perf_counter()
        try:
            with self._traces.request(route.primary):
                hit = await self._stores[route.primary].find_one(collection, query)
        except Exception as error:
            outcome, refused = classify(error), is_denied(error)
            if sampled:
                self._offer_refusal(collection, FindOne(first(query, 1)), error, route)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._reporter.publish(
                OperationFinished(
                    collection, Verb.FIND_ONE, route.primary, Role.PRIMARY, outcome, seconds, denied=refused
                )
            )
        if sampled:
            hits = [] if hit is None else [snapshot_of(hit)]
            self._reader.offer_documents(collection, FindOne(first(query, 1)), hits, route, seconds=seconds)
        self._measure(Verb.FIND_ONE, route, time.perf_counter() - started, sampled=sampled)
        return hit

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        """The primary's pages. What was read of them is compared when the read ends, also early."""
        route, of_call = await self._routes.route(collection), here()
        if (expiry := self._expiry(collection)) is not None:
            query = replace(query, filter=unexpired(expiry, query.filter, time.time()))
        alone = self._alone(collection, Verb.FIND, query.mongo_only, route)
        if route.secondary_reads and not alone:
            routed = await self._percent.answer(collection, Find(query), route)
            if routed is not None:
                self._compare_routed(collection, Find(query), routed.value, route)
                yield routed.value
                return
        sampled = not alone and self._reader.sampled(route)
        kept = KeptHits(self._limits.compare_documents) if sampled else None
        watch = Stopwatch()
        outcome, refused, whole = Outcome.ACKED, False, False
        try:
            async for page in self._traces.pages(route.primary, self._stores[route.primary].find(collection, query)):
                if kept is not None:
                    kept.add(page)
                watch.stop()
                yield page
                watch.start()
            whole = True
        except Exception as error:
            outcome, refused, kept = classify(error), is_denied(error), None
            if sampled:
                self._offer_refusal(collection, Find(query), error, route)
            raise
        finally:
            seconds = watch.seconds
            self._reporter.publish(
                OperationFinished(collection, Verb.FIND, route.primary, Role.PRIMARY, outcome, seconds, denied=refused)
            )
            watch.start()
            if kept is not None:
                with caused(of_call):
                    self._compare_kept(collection, query, kept, route, seconds if whole else None)
            self._measure(Verb.FIND, route, watch.seconds, sampled=sampled)

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        return int(await self.answer(collection, Count(filter, skip, limit)))

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        return list(await self.answer(collection, Distinct(path, filter)))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        return list(await self.answer(collection, Aggregate(pipeline)))

    async def answer(self, collection: str, read: ValueRead) -> Any:
        """The primary's answer to a read that names no documents; the secondary's is compared with it."""
        route = await self._routes.route(collection)
        if (expiry := self._expiry(collection)) is not None:
            read = cast(ValueRead, hide(expiry, read, time.time()))
        alone = self._alone(collection, read.verb, read.mongo_only, route)
        if route.secondary_reads and not alone:
            routed = await self._percent.answer(collection, read, route)
            if routed is not None:
                if self._reader.sampled(route):
                    given = snapshot(routed.value)
                    self._reader.offer_values(collection, read, given, route, by=Role.SECONDARY)
                return routed.value
        sampled = not alone and self._reader.sampled(route)
        outcome, refused, started = Outcome.ACKED, False, time.perf_counter()
        if sampled and any(self._expiry(name) for name in joined_collections(read)):
            # The stores delete what has expired there at different times, and a join shows it.
            self._reader.incomparable(collection, read.verb, Incomparable.EXPIRING)
            sampled = False
        try:
            with self._traces.request(route.primary):
                found = await ask_store(self._stores[route.primary], collection, read)
        except Exception as error:
            outcome, refused = classify(error), is_denied(error)
            if sampled:
                self._offer_refusal(collection, read, error, route)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._reporter.publish(
                OperationFinished(collection, read.verb, route.primary, Role.PRIMARY, outcome, seconds, denied=refused)
            )
        if sampled:
            self._reader.offer_values(collection, read, snapshot(found), route, seconds=seconds)
        self._measure(read.verb, route, time.perf_counter() - started, sampled=sampled)
        return found

    def shown(self, collection: str, pipeline: Sequence[Document]) -> Sequence[Document]:
        """The pipeline, without the documents that have expired."""
        expiry, read = self._expiry(collection), Aggregate(list(pipeline))
        return read.pipeline if expiry is None else cast(Aggregate, hide(expiry, read, time.time())).pipeline

    async def keys_of(self, collection: str, filter: Document) -> list[Key]:
        """The keys of all documents that a write with this filter is about, on the primary."""
        route = await self._routes.route(collection)
        filter = self._unexpired(collection, filter)
        store = self._stores[route.primary]
        with self._traces.request(route.primary):
            if isinstance(store, Batching):
                return await store.keys(collection, filter)
            query = Query(filter=filter, projection={"_id": 1}, newest=True)
            return [hit.key async for page in store.find(collection, query) for hit in page]

    def _alone(self, collection: str, verb: Verb, only: MongoOnly | None, route: Route) -> bool:
        """Whether a read is for MongoDB alone, which is counted. Raises UnsupportedOperation if it is not primary."""
        if only is None:
            return False
        if route.primary is not StoreName.MONGO:
            raise only.refusal.fresh()
        self._count_alone(collection, verb, only)
        if route.shadow_read:
            self._reader.incomparable(collection, verb, Incomparable.NOT_PORTABLE)
        return True

    def _count_alone(self, collection: str, verb: Verb, only: MongoOnly) -> None:
        if not only.portable:
            self._reporter.publish(NotPortable(collection, verb, only.name))

    async def admit_alone(self, collection: str, verb: Verb, only: MongoOnly) -> None:
        """Counts a read that the surface asks of MongoDB alone. Raises UnsupportedOperation if it is not primary."""
        self._alone(collection, verb, only, await self._routes.route(collection))

    def _unexpired(self, collection: str, filter: Document) -> Document:
        """What a write looks for: on DynamoDB nothing that has expired. On MongoDB that stays until its monitor runs,
        and a write may move its date."""
        expiry = self._expiry(collection)
        if expiry is None or self._routes[collection].primary is StoreName.MONGO:
            return filter
        return unexpired(expiry, filter, time.time())

    def _compare_routed(self, collection: str, read: FindOne | Find, hits: Sequence[Hit], route: Route) -> None:
        """Compares what the secondary has answered to the application."""
        if self._reader.sampled(route):
            kept = [snapshot_of(hit) for hit in hits]
            self._reader.offer_documents(collection, read, kept, route, by=Role.SECONDARY)

    def _compare_kept(self, collection: str, query: Query, kept: KeptHits, route: Route, seconds: float | None) -> None:
        """`seconds`: for the whole answer; None if it was left early."""
        if kept.overflowed:
            self._reader.shed(collection, Verb.FIND, ShedReason.TOO_LARGE)
        elif seconds is not None:
            self._reader.offer_documents(collection, Find(query), kept.hits, route, seconds=seconds)
        elif query.sort and kept.hits:
            self._reader.offer_documents(collection, Find(first(query, len(kept.hits))), kept.hits, route)
        elif 0 < len(kept.hits) <= _BY_KEY:
            # Left early and unsorted: other documents would have been right as well, but these have to be there.
            self._reader.offer_documents(collection, Find(one_of(query, kept.hits)), kept.hits, route)
        else:
            self._reader.incomparable(collection, Verb.FIND, Incomparable.LEFT_EARLY)

    def _offer_refusal(self, collection: str, read: Read, error: Exception, route: Route) -> None:
        """What the primary refuses, the secondary has to refuse; what shadow refuses itself reaches neither."""
        refused = classify(error) is Outcome.REFUSED and isinstance(error, PyMongoError)
        if refused and not isinstance(error, UnsupportedOperation):
            self._reader.offer_refusal(collection, read, error, route)

    def _measure(self, verb: Verb, route: Route, seconds: float, *, sampled: bool) -> None:
        """Reports how long the application has waited, apart for reads that are shadowed: so shows what that costs."""
        if route.shadow_read:
            self._reporter.publish(ReadFinished(verb, Slice.SHADOWED if sampled else Slice.LEFT_OUT, seconds))
