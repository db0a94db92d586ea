"""Sessions of the application: their calls, and what happens when their transactions end.

A session is the driver's own object, whoever made it. The first call in a transaction puts `start_transaction`,
`commit_transaction` and `abort_transaction` of that one object under watch; the driver's own `with_transaction` and its
context managers call them by their names.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from pymongo.errors import InvalidOperation

from shadow.errors import UnsupportedOperation
from shadow.host.tasks import begin
from shadow.model.batches import Result
from shadow.model.events import NotPortable, OperationFinished
from shadow.model.expiry import hide, unexpired
from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Hit,
    Insert,
    MongoOnly,
    Query,
    Replace,
    Update,
    Verb,
    at_key,
    mongo_only,
)
from shadow.model.outcome import Outcome, classify, is_denied
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reads import ValueRead
from shadow.model.verdict import Incomparable
from shadow.model.version import Document, Key
from shadow.mongoql.upserts import insert_key
from shadow.reads.asking import ask_store
from shadow.reads.shadow_read import ShadowReader
from shadow.router import Router
from shadow.routes.forwarder import HasDriver
from shadow.stores.base import Buffering, InSessions, InTransaction
from shadow.stores.mongo.drivers import in_progress, is_of_client
from shadow.writes.by_version import ByVersion
from shadow.writes.context import LoopContext
from shadow.writes.transactions import Transaction, TransactionWrites

__all__ = ["Sessions", "TransactionRouter"]

T = TypeVar("T")

_LOOK: Final = 0.02
"""Seconds between two checks of a transaction: its driver wakes nobody when it ends in another way."""
_PATIENCE: Final = 0.4
"""The part of the time of a change of phase (`limits.drain`) in which it waits for an open transaction."""
_KEPT: Final = "_shadow_transactions"
"""The attribute of a session with its `_Watched`, by the `Sessions` that made it."""


@dataclass(slots=True)
class _Watched:
    """A session whose transactions are under watch, and the one that it has, or had last."""

    transaction: Transaction | None = None


class Sessions:
    """One for each event loop."""

    def __init__(self, context: LoopContext, router: Router, reader: ShadowReader, writes: TransactionWrites) -> None:
        self._context = context
        self._router = router
        self._reader = reader
        self._writes = writes
        self._tasks: set[asyncio.Task[Any]] = set()
        self._checks: dict[asyncio.Task[Any], Transaction] = {}

    def router(self, session: Any) -> Router | TransactionRouter:
        """Where a call with this session goes now. Raises InvalidOperation, as the driver does, for a session that has
        ended or that another client has made, and UnsupportedOperation for what only MongoDB has."""
        self._check(session)
        if not session.in_transaction:
            return self._router.in_session(session)
        return TransactionRouter(self._context, self._reader, self._writes, session, self._transaction(session))

    async def refuse(self, session: Any) -> None:
        """A statement of its transaction was refused: nothing of it can be committed any more."""
        if session.in_transaction:
            await self._writes.lose(self._transaction(session), "a statement of it was refused")

    def _check(self, session: Any) -> None:
        """The driver checks this too, but not where DynamoDB answers."""
        if session.has_ended:
            raise InvalidOperation("Cannot use ended session")
        store = self._context.stores[StoreName.MONGO]
        if isinstance(store, HasDriver) and not is_of_client(session, store.client):
            raise InvalidOperation(f"Can only use session with the {type(store.client).__name__} that started it")

    def _transaction(self, session: Any) -> Transaction:
        """The one that the session has begun."""
        watched = vars(session).setdefault(_KEPT, {})
        if self not in watched:
            watched[self] = _Watched()
            self._watch(session, watched[self])
        kept: _Watched = watched[self]
        if kept.transaction is None:
            kept.transaction = Transaction()
            look = begin(self._look_at(weakref.ref(session), kept.transaction), name="shadow-transaction")
            self._checks[look] = kept.transaction
            look.add_done_callback(lambda look: self._checks.pop(look, None))
        return kept.transaction

    # --- its end ------------------------------------------------------------------------------------------------

    def _watch(self, session: Any, kept: _Watched) -> None:
        start, commit, abort = session.start_transaction, session.commit_transaction, session.abort_transaction

        def begun() -> None:
            before, kept.transaction = kept.transaction, None
            if before is not None and not before.over:
                self._spawn(self._writes.lose(before, _UNSEEN))

        async def awaited(made: Awaitable[Any]) -> Any:
            block = await made
            begun()
            return block

        def started(*arguments: Any, **options: Any) -> Any:
            # What the driver refuses, at once or when it is awaited, leaves the transaction as it is.
            made = start(*arguments, **options)
            if inspect.isawaitable(made):
                return awaited(made)
            begun()
            return made

        def committed() -> Any:
            held = kept.transaction
            if held is None or held.aborted or session.has_ended:
                return commit()  # where there is nothing to be committed, the driver refuses it
            return self._ending("commit_transaction", held, lambda: self._commit(session, held, commit, abort))

        def aborted() -> Any:
            if (held := kept.transaction) is None or held.over:
                return abort()
            send = abort if held.buffer is not None else self._requested(StoreName.MONGO, abort)
            return self._ending("abort_transaction", held, lambda: self._writes.abort(held, send))

        session.start_transaction = functools.wraps(start)(started)
        session.commit_transaction = functools.wraps(commit)(committed)
        session.abort_transaction = functools.wraps(abort)(aborted)

    async def _commit(
        self, session: Any, held: Transaction, commit: Callable[[], Awaitable[Any]], abort: Callable[[], Awaitable[Any]]
    ) -> None:
        if held.buffer is not None:
            await self._commit_buffer(session, held, commit, abort)
            return
        store = self._context.stores[StoreName.MONGO]
        if isinstance(store, InSessions) and held.changes:
            await store.make_lasting(session)
        send = self._requested(StoreName.MONGO, commit)
        await self._writes.commit(held, send, self._requested(StoreName.MONGO, abort))

    async def _commit_buffer(
        self, session: Any, held: Transaction, commit: Callable[[], Awaitable[Any]], abort: Callable[[], Awaitable[Any]]
    ) -> None:
        """The driver's own transaction has sent nothing: its commit and its abort only set its state."""
        if in_progress(session):
            await self._writes.lose(held, _UNSEEN)
            await abort()
            raise UnsupportedOperation(
                "a transaction over two stores", "MongoDB has a part of it; nothing was committed"
            )
        store = self._context.stores[StoreName.DYNAMO]
        assert isinstance(store, Buffering)

        async def send() -> None:
            try:
                with self._context.traces.request(StoreName.DYNAMO):
                    await store.commit(held.buffer)
            finally:
                await commit()

        await self._writes.commit(held, send, abort)

    def _ending(self, verb: str, held: Transaction, work: Callable[[], Awaitable[None]]) -> Awaitable[None]:
        """Runs to its end, in a span, even if its caller is cancelled."""
        store = StoreName.MONGO if held.buffer is None else StoreName.DYNAMO

        async def spanned() -> None:
            with self._context.traces.call(verb, "", "", store):
                await work()

        return asyncio.shield(self._spawn(spanned()))

    def _requested(self, store: StoreName, send: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        async def requested() -> None:
            with self._context.traces.request(store):
                await send()

        return requested

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = begin(work, name="shadow-transaction")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look_at(self, session: weakref.ref[Any], held: Transaction) -> None:
        """Returns when the transaction has ended, in whatever way; loses one that a change of phase waits for."""
        routes, waited = self._context.routes, 0.0
        patience = _PATIENCE * self._context.limits.drain
        while not held.over:
            await asyncio.sleep(_LOOK)
            seen = session()
            if seen is None or seen.has_ended or not seen.in_transaction:
                # Or its commit is under way, and ends before this has its turn.
                await self._writes.lose(held, _UNSEEN)
                return
            del seen
            waited += _LOOK if any(routes.waits(name) for name in held.collections) else 0.0
            if waited >= patience:
                await self._writes.lose(held, "a change of phase could not wait for it any longer")

    async def finish(self, timeout: float) -> None:
        """Waits `timeout` seconds for the commits that are under way. No open transaction can be committed after it."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout)
        checks = dict(self._checks)
        for task in [*checks, *self._tasks]:
            task.cancel()
        await asyncio.gather(*checks, *self._tasks, return_exceptions=True)
        for held in checks.values():
            await self._writes.lose(held, "the Shadow is closed")


_UNSEEN: Final = "the transaction has ended"


class TransactionRouter:
    """The calls of one session while it is in a transaction. Only the primary answers them, and nothing is compared:
    nobody else sees what the transaction sees."""

    def __init__(
        self, context: LoopContext, reader: ShadowReader, writes: TransactionWrites, session: Any, held: Transaction
    ) -> None:
        self._stores = context.stores
        self._routes = context.routes
        self._reporter = context.reporter
        self._reader = reader
        self._writes = writes
        self._session = session
        self._held = held
        self._traces = context.traces
        self._expiry = context.expiry
        self._by_version = ByVersion(self._store, self._at_key, context.limits, context.traces)

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        store, route = await self._begun(collection)
        query = self._read(collection, Verb.FIND_ONE, query, route)
        return await self._counted(collection, Verb.FIND_ONE, route, store.find_one(collection, query))

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        store, route = await self._begun(collection)
        pages = store.find(collection, self._read(collection, Verb.FIND, query, route))
        page = await self._counted(collection, Verb.FIND, route, anext(pages, None))
        try:
            while page is not None:
                yield page
                page = await anext(pages, None)
        finally:
            await pages.aclose()  # type: ignore[attr-defined]

    async def answer(self, collection: str, read: ValueRead) -> Any:
        store, route = await self._begun(collection)
        self._note(collection, read.verb, read.mongo_only, route)
        if (expiry := self._expiry(collection)) is not None:
            read = cast(ValueRead, hide(expiry, read, time.time()))
        return await self._counted(collection, read.verb, route, ask_store(store, collection, read))

    async def admit_alone(self, collection: str, verb: Verb, only: MongoOnly) -> None:
        """See `Router.admit_alone`."""
        self._note(collection, verb, only, (await self._begun(collection))[1])

    async def keys_of(self, collection: str, filter: Document) -> list[Key]:
        """The keys of all documents that a write with this filter is about."""
        store, route = await self._begun(collection)
        query = Query(filter=self._unexpired(collection, filter, route), projection={"_id": 1}, newest=True)
        return [hit.key async for page in store.find(collection, query) for hit in page]

    async def _begun(self, collection: str) -> tuple[InTransaction, Route]:
        """The primary, within the transaction."""
        route = self._held.routes.get(collection) or await self._routes.route(collection)
        self._held.check(collection, route.primary)
        return self._primary(route), route

    def _primary(self, route: Route) -> InTransaction:
        store, held = self._stores[route.primary], self._held
        if isinstance(store, InSessions):
            return store.in_session(self._session)
        assert isinstance(store, Buffering)
        if in_progress(self._session):
            raise UnsupportedOperation("a transaction over two stores", "MongoDB has a part of it already")
        if held.buffer is None:
            held.buffer = store.buffer()
        return store.in_transaction(held.buffer)

    def _read(self, collection: str, verb: Verb, query: Query, route: Route) -> Query:
        """What the store is asked: without what has expired."""
        self._note(collection, verb, query.mongo_only, route)
        expiry = self._expiry(collection)
        if expiry is None:
            return query
        return dataclasses.replace(query, filter=unexpired(expiry, query.filter, time.time()))

    def _unexpired(self, collection: str, filter: Document, route: Route) -> Document:
        """See `Router._unexpired`."""
        expiry = self._expiry(collection)
        if expiry is None or route.primary is StoreName.MONGO:
            return filter
        return unexpired(expiry, filter, time.time())

    def _note(self, collection: str, verb: Verb, only: MongoOnly | None, route: Route) -> None:
        """Counts what only MongoDB can do. Raises UnsupportedOperation if it is not primary."""
        if only is None:
            return
        if route.primary is not StoreName.MONGO:
            raise only.refusal.fresh()
        if not only.portable:
            self._reporter.publish(NotPortable(collection, verb, only.name))

    async def _counted(self, collection: str, verb: Verb, route: Route, answer: Awaitable[T]) -> T:
        started, outcome, refused = asyncio.get_running_loop().time(), Outcome.ACKED, False
        try:
            with self._traces.request(route.primary):
                return await answer
        except Exception as error:
            outcome, refused = classify(error), is_denied(error)
            raise
        finally:
            seconds = asyncio.get_running_loop().time() - started
            self._reporter.publish(
                OperationFinished(collection, verb, route.primary, Role.PRIMARY, outcome, seconds, denied=refused)
            )
            if self._reader.sampled(route):
                self._reader.incomparable(collection, verb, Incomparable.TRANSACTION)

    # --- writes -------------------------------------------------------------------------------------------------

    async def write(self, collection: str, verb: Verb, change: Change) -> Applied | None:
        """Makes the change within the transaction. Cancelling the caller does not cancel a statement that has begun."""
        store, route = await self._begun(collection)
        self._note(collection, verb, mongo_only(change), route)
        if isinstance(change, Delete) and change.key is ANY and change.mongo_only is not None:
            result = await self._by_version.first(collection, verb, change)
            if isinstance(result, Exception):
                raise result
            return result
        if change.key is ANY and not isinstance(change, Insert) and not store.chooses(change):
            found = await self._first(store, collection, change, route)
            if found is not ANY:
                change = at_key(change, found)
            elif isinstance(change, Delete) or not change.upsert:
                return None
            else:
                change = at_key(change, insert_key(change))
        refused = self._refused(collection, change, route)
        if refused is not None:
            raise refused

        result = (await self._at_key(collection, verb, change))[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def change_many(self, collection: str, verb: Verb, changes: Sequence[Update | Delete]) -> list[Applied]:
        """Changes documents whose keys are known, one after the other."""
        applied = [await self.write(collection, verb, change) for change in changes]
        return [each for each in applied if each is not None and each.counted]

    async def write_found(self, collection: str, verb: Verb, change: Update | Delete) -> list[Applied]:
        """See `Router.write_found`."""
        _, route = await self._begun(collection)
        self._note(collection, verb, mongo_only(change), route)
        return await self._by_version.every(collection, verb, change)

    async def _at_key(self, collection: str, verb: Verb, change: Change) -> Sequence[Result]:
        async def ask(route: Route, op_ids: Sequence[str]) -> list[Result]:
            return [await self._primary(route).apply(collection, change, op_ids[0])]

        return await self._made(collection, verb, [change], ask)

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str] = (), *, ordered: bool
    ) -> Sequence[Result]:
        _, route = await self._begun(collection)
        for each in inserts:
            if (refused := self._refused(collection, each, route)) is not None:
                raise refused

        async def ask(route: Route, op_ids: Sequence[str]) -> list[Result]:
            return await self._primary(route).insert_many(collection, inserts, op_ids, ordered=ordered)

        return await self._made(collection, Verb.INSERT_MANY, inserts, ask)

    async def _made(self, collection: str, verb: Verb, changes: Sequence[Change], ask: Any) -> Sequence[Result]:
        statement = self._writes.statement(self._held, collection, verb, changes, ask)
        return await asyncio.shield(begin(statement, name="shadow-statement"))

    async def _first(
        self, store: InTransaction, collection: str, change: Update | Replace | Delete, route: Route
    ) -> Key:
        filter = self._unexpired(collection, change.filter, route)
        query = Query(filter=filter, projection={"_id": 1}, sort=change.sort, limit=1, newest=True)
        hit = await store.find_one(collection, query)
        return ANY if hit is None else hit.key

    async def _store(self, collection: str) -> InTransaction:
        return (await self._begun(collection))[0]

    def _refused(self, collection: str, change: Change, route: Route) -> Exception | None:
        """See `Router._refused`."""
        if not route.dual_write:
            return None
        match change:
            case Insert(document=document):
                return self._stores[route.secondary].refusal(collection, change, False, document)
            case Replace(key=key, replacement=replacement):
                named = change.new if key is ANY else key
                return self._stores[route.secondary].refusal(collection, change, False, {"_id": named, **replacement})
        return None
