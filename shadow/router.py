"""The router: every operation of the application passes here, and only here is decided which store is asked.

The primary answers. What the secondary has to do, it does off the caller's path; the caller waits for it only where the
write mode of the collection, or its share of reads for the secondary, says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.errors import DocumentTooLarge, WriteError

from shadow.model.batches import Made, Result
from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Insert,
    MongoOnly,
    Replace,
    Update,
    Verb,
    mongo_only,
)
from shadow.model.phase import Route, StoreName, WriteMode
from shadow.reads.percent_reads import PercentReads
from shadow.reads.read_router import ByPrimary, ReadRouter
from shadow.reads.shadow_read import ShadowReader
from shadow.stores.base import Batching, InSessions, Store
from shadow.stores.many import change_each
from shadow.writes.by_version import ByVersion
from shadow.writes.context import LoopContext
from shadow.writes.dual_write import Admit, DualWrite, Early
from shadow.writes.in_turn import Begun, Turn, in_turn
from shadow.writes.replicator import Replicator
from shadow.writes.running import Running
from shadow.writes.search import Search

__all__ = ["Router"]

_TOGETHER: Final = 1000
"""Changes of one batch, which have their intents, and their answers, together."""
_ONE_BY_ONE: Final = 16
"""The same where the primary changes one document at a time, or the caller waits for the secondary, which does: each
document has the time that a batch has."""

_NOT_CHOSEN: Final = WriteError("the primary does not choose documents by itself")
"""The result in a process that has just flipped: nothing was asked."""

_VERBS: Final[Mapping[type[Change], Verb]] = {
    Insert: Verb.INSERT_ONE,
    Update: Verb.UPDATE_ONE,
    Replace: Verb.REPLACE_ONE,
    Delete: Verb.DELETE_ONE,
}
"""The verbs of changes that come by the stores' contract, which knows none."""


class Router(ReadRouter):
    """The primary and the secondary as one store, in the order of the collection's route. One for each event loop.

    It is an `ApplicationStore` and no `Store`: replication, repair and the jobs, which need more of a store, work
    between the two stores and must not go through this one. It takes changes with `ANY` for their key whichever store
    is the primary, and names each attempt itself, by its intent: the `op_id` that it is given is not used.
    """

    def __init__(
        self,
        context: LoopContext,
        replicator: Replicator,
        reader: ShadowReader,
        percent: PercentReads,
        admit: Admit | None = None,
    ) -> None:
        super().__init__(context, reader, percent)
        self._work = context.writes
        self._admit = admit
        self._dual_write = DualWrite(context, replicator, admit)
        self._search = Search(self._primary, self._write_at_key, context.limits, self._unexpired, context.traces)
        self._by_version = ByVersion(self._primary, self._write_at_key, context.limits, context.traces)
        self._running = Running(context.reporter)
        self._turn: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
        """Of the writes of one call with a session: the server has one at a time."""

    def in_session(self, session: Any) -> Router:
        """This router for calls that belong to a session of the application, and to no transaction. The primary answers
        all reads, so that they are causally consistent; what is done beside the call knows of no session."""
        made = copy.copy(self)
        made._stores = {
            name: store.in_session(session) if isinstance(store, InSessions) else store
            for name, store in self._stores.items()
        }
        made._percent = ByPrimary(self._reporter)
        made._search = Search(made._primary, made._write_at_key, made._limits, made._unexpired, made._traces)
        made._by_version = ByVersion(made._primary, made._write_at_key, made._limits, made._traces)
        made._turn = asyncio.Lock()
        return made

    async def apply(self, collection: str, change: Change, op_id: str = "") -> Applied | None:
        return await self.write(collection, _VERBS[type(change)], change)

    async def write(self, collection: str, verb: Verb, change: Change) -> Applied | None:
        """`apply`, reported under the application's verb. Cancelling the caller does not cancel a write that has
        begun."""
        routes = self._routes
        route = routes[collection] if routes.known else await routes.route(collection)
        refused = self._refused(collection, change, route)
        if refused is not None:
            raise refused
        only = mongo_only(change)
        if only is not None:
            self._note(collection, verb, only, route)
        if self._admit is not None and route.dual_write and change.key is ANY:
            # Here already: a store is searched for the document before it is written.
            await self._admit(collection, route.primary)
        result = (await self._running.shielded(self._write_one(collection, verb, change)))[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def write_found(self, collection: str, verb: Verb, change: Update | Delete) -> list[Applied]:
        """Makes a change that only MongoDB can make, of every document that its filter matches, each by its key. An
        error ends it, and changes that were made remain."""
        only, route = mongo_only(change), await self._routes.route(collection)
        assert only is not None
        self._note(collection, verb, only, route)
        if self._admit is not None and route.dual_write:
            await self._admit(collection, route.primary)
        return await self._running.shielded(self._by_version.every(collection, verb, change))

    def _note(self, collection: str, verb: Verb, only: MongoOnly, route: Route) -> None:
        """Counts a write that only MongoDB can make. Raises UnsupportedOperation if it is not primary."""
        if route.primary is not StoreName.MONGO:
            raise only.refusal.fresh()
        self._count_alone(collection, verb, only)

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str] = (), *, ordered: bool
    ) -> Sequence[Result]:
        route = await self._routes.route(collection)
        refused = [self._refused(collection, each, route) for each in inserts]
        if not any(refused):
            return await self._insert_together(collection, inserts, ordered=ordered)
        return await self._insert_rest(collection, inserts, refused, ordered=ordered)

    async def change_many(self, collection: str, verb: Verb, changes: Sequence[Update | Delete]) -> Made:
        """Changes documents whose keys are known, in batches, each of them as one write of many changes: what was
        applied. Raises the first error; what was changed before stays, and nothing is attempted after it. Cancelling
        the caller does not cancel a batch that has begun."""
        made, place = Made(), 0

        async def begin() -> Begun | None:
            nonlocal place
            if place >= len(changes):
                return None
            route = await self._routes.route(collection)
            together = isinstance(self._stores[route.primary], Batching) and not _waits(route)
            batch, turn = changes[place : place + (_TOGETHER if together else _ONE_BY_ONE)], Turn()
            place += len(batch)
            work = functools.partial(self._change_many, collection, verb, batch, turn)
            return Begun(self._running.begun(work, hold), turn, ahead=together and route.dual_write)

        with self._work.held() as hold:
            async with contextlib.aclosing(in_turn(begin)) as batches:
                async for results in batches:
                    made.add(results)
        return made

    @property
    def writing(self) -> bool:
        """Whether a write is under way; of many documents, until all are in the work queue."""
        return bool(self._running)

    async def finish(self, timeout: float) -> None:
        """Waits `timeout` seconds for the writes that are under way, then leaves the rest to their intents."""
        await self._running.finish(timeout)

    async def _insert_rest(
        self, collection: str, inserts: Sequence[Insert], refused: Sequence[Exception | None], *, ordered: bool
    ) -> Sequence[Result]:
        """Inserts what both stores can hold, or, ordered, what comes before the first that one of them cannot."""
        one = WriteError, DocumentTooLarge
        whole = next((each for each in refused if each is not None and not isinstance(each, one)), None)
        if whole is not None:
            raise whole  # the drivers refuse the command with it
        wrong = next(place for place, each in enumerate(refused) if each is not None)
        places = [place for place, each in enumerate(refused) if each is None and (place < wrong or not ordered)]
        results: list[Result] = [None if ordered else each for each in refused]
        if places:
            kept = [inserts[place] for place in places]
            made = await self._insert_together(collection, kept, ordered=ordered)
            for place, result in zip(places, made, strict=True):
                results[place] = result
        if ordered and all(isinstance(results[place], Applied) for place in places):
            results[wrong] = refused[wrong]
        return results

    def _refused(self, collection: str, change: Change, route: Route) -> Exception | None:
        """The error with which the secondary would refuse to hold the outcome of the change, as far as that is known
        before the primary is asked. Where only one store is written, the limits of the other do not count."""
        if not route.dual_write:
            return None
        match change:
            case Insert(document=document):
                return self._stores[route.secondary].refusal(collection, change, False, document)
            case Replace(key=key, replacement=replacement):
                named = change.new if key is ANY else key
                return self._stores[route.secondary].refusal(collection, change, False, {"_id": named, **replacement})
        return None

    async def _write_one(self, collection: str, verb: Verb, change: Change) -> Sequence[Result]:
        if isinstance(change, Insert) or change.key is not ANY:
            return await self._write_at_key(collection, verb, change)
        if isinstance(change, Delete) and change.mongo_only is not None:
            return [await self._by_version.first(collection, verb, change)]
        while True:
            if (await self._primary(collection)).chooses(change):
                results = await self._write_at_key(collection, verb, change)
                if results != [_NOT_CHOSEN]:
                    return results
            else:
                return [await self._search.change(collection, verb, change)]

    async def _write_at_key(self, collection: str, verb: Verb, change: Change) -> Sequence[Result]:
        """The change of a document whose key is known, or which the primary chooses by itself."""

        async def ask(route: Route, op_ids: Sequence[str]) -> Sequence[Result]:
            store = self._stores[route.primary]
            only = mongo_only(change)
            if only is not None and route.primary is not StoreName.MONGO:  # it was, when the call came
                return [only.refusal.fresh()]
            if change.key is ANY and not store.chooses(change):  # another store has become the primary meanwhile
                return [_NOT_CHOSEN]
            return [await store.apply(collection, change, op_ids[0])]

        async with self._turn:
            return await self._dual_write.make(collection, verb, [change], ask)

    async def _insert_together(self, collection: str, inserts: Sequence[Insert], *, ordered: bool) -> Sequence[Result]:
        with self._work.held() as hold:
            return await self._running.answered(
                functools.partial(self._insert_many, collection, inserts, ordered=ordered), hold
            )

    async def _insert_many(
        self, collection: str, inserts: Sequence[Insert], early: Early, *, ordered: bool
    ) -> Sequence[Result]:
        async def ask(route: Route, op_ids: Sequence[str]) -> Sequence[Result]:
            return await self._stores[route.primary].insert_many(collection, inserts, op_ids, ordered=ordered)

        return await self._dual_write.make(collection, Verb.INSERT_MANY, inserts, ask, early)

    async def _change_many(
        self, collection: str, verb: Verb, changes: Sequence[Change], turn: Turn | None, early: Early
    ) -> Sequence[Result]:
        async def ask(route: Route, op_ids: Sequence[str]) -> Sequence[Result]:
            store = self._stores[route.primary]
            if isinstance(store, Batching):
                return await store.change_many(collection, changes, op_ids)
            return await change_each(len(changes), lambda place: store.apply(collection, changes[place], op_ids[place]))

        return await self._dual_write.make(collection, verb, changes, ask, early, turn)

    async def _primary(self, collection: str) -> Store:
        return self._stores[(await self._routes.route(collection)).primary]


def _waits(route: Route) -> bool:
    """Whether a caller waits for the secondary."""
    return route.dual_write and route.writes is not WriteMode.BACKGROUND
