"""Transactions of the application with MongoDB as the primary.

Nothing but a commit makes what a transaction wrote visible, and only the process that has the session can send one. So
three rules are enough:

- Each key has a durable intent before the statement that writes it is sent. Before each commit, also one that is tried
  again, all keys have intents that are young enough for an operation to begin: a transaction may be open longer than an
  intent lasts, and others may have adopted its intents, found both stores equal, and forgotten them.
- Nothing is replicated before the commit is acknowledged. Then each key is: a single change is replayed, and the
  outcome of several is copied, because the states between them are none that the primary ever had.
- After a commit without an answer, an abort, or an end that nobody saw, the keys are settled by reading.

A transaction counts as a write under way of each collection that it has written. A change of phase waits for it during
a part of its own patience; then the transaction is *lost*: this process sends no commit for it any more, and the
application gets the error after which it tries all of it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pymongo
from pymongo.errors import ConnectionFailure, NetworkTimeout, PyMongoError

from shadow.errors import JournalError, UnsupportedOperation
from shadow.host.failpoints import Point
from shadow.host.tasks import begin
from shadow.model.batches import Result
from shadow.model.deadline import ending
from shadow.model.keys import queue_key
from shadow.model.operation import Applied, Change, Verb, Write
from shadow.model.outcome import TRANSIENT, UNKNOWN_COMMIT, Outcome, classify, transient
from shadow.model.phase import Route, StoreName
from shadow.model.verdict import Deferral
from shadow.model.version import fresh_id
from shadow.routes.routes import OpenWrite
from shadow.writes.dual_write import Ask, DualWrite
from shadow.writes.intents import Intents, Opened

__all__ = ["Send", "Transaction", "TransactionWrites"]

_ATTEMPTS: Final = 3
"""How often intents are opened again because the journal was slow."""
_GRACE: Final = 1.0
"""Seconds that the driver has beyond its own time limit, so that it reports the limit itself."""

Send: TypeAlias = Callable[[], Awaitable[Any]]
"""The driver's own commit or abort."""


@dataclass(slots=True)
class Changed:
    """One change that the transaction has made, and its intent. `change` is addressed to its key."""

    collection: str
    verb: Verb
    change: Change
    op_id: str
    applied: Applied

    @property
    def address(self) -> tuple[str, Any]:
        return self.collection, queue_key(self.collection, self.change.key)


@dataclass(slots=True)
class Transaction:
    """One transaction of one session. It ends once: committed, aborted or lost."""

    primary: StoreName | None = None
    """The store of its first call."""
    primaries: dict[str, StoreName] = field(default_factory=dict)
    """By each collection that it has read or written."""
    buffer: Any = None
    """What a store keeps back until the commit; see `Buffering`."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Its calls go one after the other, as the server requires."""
    routes: dict[str, Route] = field(default_factory=dict)
    gates: list[OpenWrite] = field(default_factory=list)
    """By which a change of phase waits for it."""
    changes: list[Changed] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    lost: str = ""
    """Why it can't be committed any more."""
    over: bool = False
    aborted: bool = False
    """By the application."""

    @property
    def collections(self) -> Sequence[str]:
        """Those that it has written."""
        return list(self.routes)

    def check(self, collection: str, primary: StoreName) -> None:
        """Raises if it can't be continued, or not on this store: the primary has changed since it began, or there are
        two of them."""
        if self.primaries.setdefault(collection, primary) is not primary and not self.lost:
            self.lost = "the primary has changed since the transaction began"
        if self.lost:
            raise transient(self.lost)
        if self.primary is None:
            self.primary = primary
        if self.primary is not primary:
            raise UnsupportedOperation(
                "a transaction over two stores", f"{collection} is on {primary}, and the transaction on {self.primary}"
            )


class TransactionWrites(DualWrite):
    """One for each event loop."""

    async def statement(
        self, held: Transaction, collection: str, verb: Verb, changes: Sequence[Change], ask: Ask
    ) -> Sequence[Result]:
        """One result for each change, as `make`. Once it has begun, it must not be cancelled with the caller."""
        async with held.lock:
            if held.lost:
                raise transient(held.lost)
            route = await self._entered(held, collection)
            if not route.dual_write:
                return await self._made(held, collection, verb, route, [fresh_id() for _ in changes], ask)
            if self._admit is not None:
                await self._admit(collection, route.primary)
            opened = await self._opened(held, collection, changes)
            results = await self._made(held, collection, verb, route, opened.op_ids, ask)
            self._failpoints(Point.AFTER_PRIMARY)
            kept = False
            for change, op_id, result in zip(changes, opened.op_ids, results, strict=True):
                kept |= self._keep(held, collection, verb, change, op_id, result)
            if kept and held.buffer is None:
                held.opened.append(opened)
            return results

    async def _opened(self, held: Transaction, collection: str, changes: Sequence[Change]) -> Opened:
        """The intents of a statement; of one that the store keeps back, the commit opens them."""
        if held.buffer is not None:
            return Intents.none(len(changes))
        return await self._intents.open_durably(collection, [change.key for change in changes])

    def _keep(self, held: Transaction, collection: str, verb: Verb, change: Change, op_id: str, result: Result) -> bool:
        """Whether its intent stays."""
        if isinstance(result, Applied):
            held.changes.append(Changed(collection, verb, self._decided(change, op_id, result), op_id, result))
            return True
        if held.buffer is not None:
            return False
        if isinstance(result, Exception) and classify(result) is Outcome.UNKNOWN:
            # It will not be committed, so it changes nothing; that is confirmed by reading all the same.
            self._replicator.defer(collection, op_id, Deferral.ROLLED_BACK)
        else:
            self._intents.close(op_id)
        return False

    async def _entered(self, held: Transaction, collection: str) -> Route:
        route = held.routes.get(collection)
        if route is None:
            writing = self._routes.writing(collection)
            route = await writing.__aenter__()
            held.gates.append(writing)
            held.routes[collection] = route
        held.check(collection, route.primary)
        return route

    async def _made(
        self, held: Transaction, collection: str, verb: Verb, route: Route, op_ids: Sequence[str], ask: Ask
    ) -> Sequence[Result]:
        """The primary's answers. A statement without an answer ends the transaction: nobody knows what a commit would
        make visible."""
        results = await self._ask(collection, verb, route, op_ids, ask)
        for each in results:
            if isinstance(each, Exception) and classify(each) is Outcome.UNKNOWN:
                held.lost = held.lost or "a statement had no answer"
                if isinstance(each, ConnectionFailure):
                    each._add_error_label(TRANSIENT)
        return results

    # --- its end ------------------------------------------------------------------------------------------------

    async def commit(self, held: Transaction, send: Send, abort: Send) -> None:
        """The driver's commit, and the replication of what it made visible. Raises what the driver raises, a transient
        error for a lost transaction, `JournalError` with nothing sent, and `SecondaryWriteError`."""
        async with held.lock:
            if held.lost:
                await self._end(held, Deferral.ROLLED_BACK)
                with contextlib.suppress(PyMongoError):
                    await abort()
                raise transient(held.lost)
            if not held.changes:
                await self._bare(held, send)
                return
            if held.over:
                await self._enter_again(held)
                await self._with_young_intents_again(held)
            else:
                await self._with_young_intents(held)
            replicating = await self._committed(held, send)
        await self._followed(held, replicating)

    async def _bare(self, held: Transaction, send: Send) -> None:
        """It has written nothing that has to be replicated."""
        try:
            await send()
        except BaseException:
            for writing in held.gates:
                writing.lost()
            raise
        finally:
            self._leave(held)

    async def _enter_again(self, held: Transaction) -> None:
        """Before a commit is tried again. Raises if the primary has changed meanwhile."""
        held.over = False
        try:
            for collection in {each.collection for each in held.changes}:
                writing = self._routes.writing(collection)
                route = await writing.__aenter__()
                held.gates.append(writing)
                held.routes[collection] = route
                if route.primary is not held.primary:
                    raise NetworkTimeout("the primary has changed before it was known if the transaction is committed")
        except BaseException:
            self._leave(held)
            raise

    async def _committed(self, held: Transaction, send: Send) -> dict[str, list[asyncio.Future[bool]]]:
        try:
            await self._sent(send)
        except BaseException as error:
            refused = held.buffer is not None and isinstance(error, Exception) and classify(error) is Outcome.REFUSED
            await self._end(held, Deferral.ROLLED_BACK if refused else Deferral.PRIMARY_UNKNOWN)
            raise
        self._failpoints(Point.AFTER_PRIMARY)
        try:
            if any(self._intents.expired(each) for each in held.opened):
                await self._renewed(held)
            return self._follow(held)
        finally:
            held.opened.clear()
            self._leave(held)

    async def _with_young_intents_again(self, held: Transaction) -> None:
        """Nothing is sent without them, and an earlier commit may nevertheless have been made. Raises an error of the
        driver with the label after which the commit may be tried again."""
        try:
            await self._with_young_intents(held)
        except BaseException as error:
            self._leave(held)
            if not isinstance(error, JournalError):
                raise
            unknown = NetworkTimeout(f"it is unknown whether the transaction is committed: {error.message}")
            unknown._add_error_label(UNKNOWN_COMMIT)
            raise unknown from error

    async def _with_young_intents(self, held: Transaction) -> None:
        for _ in range(_ATTEMPTS):
            if held.opened and all(each.age.seconds <= self._limits.operation / 4 for each in held.opened):
                return
            await self._opened_again(held)
        raise JournalError("the journal is too slow for the keys of a transaction", hint="nothing was committed")

    async def _opened_again(self, held: Transaction) -> None:
        """One new intent for each key; then the old ones are closed."""
        old = [each.op_id for each in held.changes] if held.opened else []
        fresh: list[Opened] = []
        ids: dict[tuple[str, Any], str] = {}
        for collection in dict.fromkeys(each.collection for each in held.changes):
            keys = {each.address: each.change.key for each in held.changes if each.collection == collection}
            opened = await self._intents.open_durably(collection, list(keys.values()))
            fresh.append(opened)
            ids.update(zip(keys, opened.op_ids, strict=True))
        for each in held.changes:
            each.op_id = ids[each.address]
        held.opened = fresh
        for op_id in old:
            self._intents.close(op_id)

    async def _renewed(self, held: Transaction) -> None:
        """The commit is acknowledged, and its intents have expired meanwhile."""
        for collection in dict.fromkeys(each.collection for each in held.changes):
            changes = {each.address: each for each in held.changes if each.collection == collection}
            old = Opened([each.op_id for each in changes.values()], durable=True, age=held.opened[0].age)
            fresh = await self._intents.renew(collection, [each.change.key for each in changes.values()], old)
            ids = dict(zip(changes, fresh.op_ids, strict=True))
            for each in held.changes:
                if each.collection == collection:
                    each.op_id = ids[each.address]

    async def _sent(self, send: Send) -> None:
        """The driver's commit, within half of what an operation may last. A call of the driver is never cancelled."""
        seconds = self._limits.operation / 2
        with pymongo.timeout(seconds), ending(seconds):
            task = begin(send(), name="shadow-commit")
        done, _ = await asyncio.wait([task], timeout=seconds + _GRACE)
        if not done:
            error = NetworkTimeout(f"no answer to a commit within {seconds:g} s")
            error._add_error_label(UNKNOWN_COMMIT)
            raise error
        await task

    def _follow(self, held: Transaction) -> dict[str, list[asyncio.Future[bool]]]:
        """Replicates what is committed: each key once. What is to be waited for, by collection."""
        keys: dict[tuple[str, Any], list[Changed]] = {}
        for each in held.changes:
            keys.setdefault(each.address, []).append(each)
        replicating: dict[str, list[asyncio.Future[bool]]] = {}
        for changes in keys.values():
            collection = changes[0].collection
            replicating.setdefault(collection, []).append(self._follow_key(held.routes[collection], changes))
        return replicating

    def _follow_key(self, route: Route, changes: Sequence[Changed]) -> asyncio.Future[bool]:
        first, *others = changes
        for op_id in {each.op_id for each in others} - {first.op_id}:
            self._intents.close(op_id)  # the intent of the first is the key's
        if others:
            return self._replicator.follow_copy(first.collection, first.verb, first.change.key, first.op_id, route)
        pre, post = first.applied.pre.state, first.applied.post
        write = Write(first.collection, first.verb, first.op_id, first.change, pre, post)
        return self._replicator.follow(write, route)

    async def _followed(self, held: Transaction, replicating: dict[str, list[asyncio.Future[bool]]]) -> None:
        """Waits for the secondary where the write mode asks for it."""
        for collection, each in replicating.items():
            await self._wait_for(collection, held.routes[collection], each, [], durable=True)

    async def abort(self, held: Transaction, send: Send) -> None:
        """The driver's abort. The keys are settled by reading."""
        async with held.lock:
            held.aborted = True
            try:
                await send()
            finally:
                await self._end(held, Deferral.ROLLED_BACK)

    async def lose(self, held: Transaction, why: str) -> None:
        """No commit of it will be sent. Returns when no call of it is under way."""
        async with held.lock:
            if not held.over:
                held.lost = held.lost or why
                await self._end(held, Deferral.ROLLED_BACK)

    async def _end(self, held: Transaction, reason: Deferral) -> None:
        """Leaves what it has written to its intents, and no change of phase waits for it any more."""
        if held.opened:
            held.opened.clear()
            for op_id, collection in {each.op_id: each.collection for each in held.changes}.items():
                self._replicator.defer(collection, op_id, reason)
        self._leave(held)

    def _leave(self, held: Transaction) -> None:
        held.over = True
        gates, held.gates = held.gates, []
        for writing in gates:
            writing.leave()
