"""Sessions of the simulated store called MongoDB: transactions with a snapshot each, of which the first committer wins.

As with the driver, what the application calls is a session; as on the server, a statement or a commit lands at a moment
of its own, and a transaction that is too old is aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from pymongo.errors import (
    ConnectionFailure,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from shadow.model.operation import Applied, Change, Hit, Insert, Query, at_key
from shadow.model.order import key_digest
from shadow.model.outcome import TRANSIENT, UNKNOWN_COMMIT, transient
from shadow.model.version import Image, Key
from shadow.stores.memory import MemoryStore
from tests.simulation.conditions import COLLECTION, LIMIT, REQUEST
from tests.simulation.replicas import Member

if TYPE_CHECKING:
    from tests.simulation.stores import Client, Server

__all__ = ["LIFETIME", "Session", "SessionClient"]

LIFETIME = 3 * LIMIT
"""Seconds after which the server aborts a transaction."""


def at_once(work: Any) -> Any:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a memory store never waits")


class _View:
    """One transaction, as the server has it."""

    def __init__(self, server: Server, now: float) -> None:
        self._server = server
        self._until = now + LIFETIME
        self._memory: MemoryStore | None = None
        self._bases: dict[str, Image] = {}
        self._made: list[tuple[Change, str]] = []
        self.state = "open"

    def begun(self, on: Member, now: float) -> MemoryStore:
        """Its snapshot, taken by its first statement."""
        if self.state == "open" and now > self._until:
            self.state = "aborted"
        if self.state != "open":
            raise transient("there is no such transaction in the simulation")
        if self._memory is None:
            self._memory = MemoryStore(on.memory.name)
            self._memory._images = {name: dict(images) for name, images in on.memory._images.items()}
        return self._memory

    def apply(self, on: Member, now: float, collection: str, change: Change, op_id: str) -> Applied | None:
        memory = self.begun(on, now)
        before = dict(memory._images.get(collection, {}))
        try:
            applied: Applied | None = at_once(memory.apply(collection, change, op_id))
        except PyMongoError:
            self.state = "aborted"
            raise
        if applied is not None:
            made = at_key(change, applied.key)
            digest = key_digest(made.key)
            if digest not in self._bases:
                self._bases[digest] = before[digest][1] if digest in before else memory._image("", made.key)
            self._check(on, made.key)
            self._made.append((made, op_id))
        return applied

    def _check(self, on: Member, key: Key) -> None:
        if on.memory._image(COLLECTION, key).state != self._bases[key_digest(key)].state:
            self.state = "aborted"
            details = {"code": 112, "errmsg": "write conflict", "errorLabels": [TRANSIENT]}
            raise OperationFailure("write conflict in the simulation", 112, details)

    def commit(self, on: Member, now: float) -> bool:
        if self.state == "committed":
            return True
        memory = self.begun(on, now)
        keys = {key_digest(change.key): change.key for change, _ in self._made}
        for key in keys.values():
            self._check(on, key)
        self.state = "committed"
        for digest, key in keys.items():
            image = memory._image(COLLECTION, key)
            if image.present:
                on.memory._set(COLLECTION, key, image)
                last = memory._chosen.get((COLLECTION, digest))
                if last is not None:
                    on.memory._chosen[COLLECTION, digest] = last
            else:
                on.memory._images.get(COLLECTION, {}).pop(digest, None)
                on.memory._chosen.pop((COLLECTION, digest), None)
            changes = [change for change, _ in self._made if key_digest(change.key) == digest]
            self._server.history.primary_committed(changes, image)
        return True

    def abort(self) -> None:
        if self.state == "open":
            self.state = "aborted"


class Session:
    """What an application has of its driver."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._view: _View | None = None
        self.in_transaction = False
        self.has_ended = False

    def start_transaction(self) -> None:
        if self.in_transaction:
            raise InvalidOperation("Transaction already in progress")
        self.in_transaction, self._view = True, None

    def view(self) -> _View:
        if self._view is None:
            self._view = _View(self._client._server, self._client._process.loop.time())
        return self._view

    async def commit_transaction(self) -> None:
        view, loop = self.view(), self._client._process.loop
        conditions, rng = self._client._process.world.conditions, self._client._process.world.rng
        try:
            if conditions.uncertain and rng.random() < conditions.uncertain and not self._client._server.healthy:
                await self._send_uncertainly(view)
            await self._client._ask("commit", lambda on: view.commit(on, loop.time()), write=True)
        except (ConnectionFailure, WriteConcernError) as error:
            error._add_error_label(UNKNOWN_COMMIT)
            raise
        finally:
            self.in_transaction = False

    async def _send_uncertainly(self, view: _View) -> None:
        """A commit that lands late, or never, and has no answer."""
        process, server = self._client._process, self._client._server
        process.note("sends a commit that will have no answer")
        if process.world.rng.random() < 0.7:
            delay = process.world.rng.random() * REQUEST
            server._later(
                delay, lambda: server._land("commit", lambda: view.commit(server.member, process.loop.time()))
            )
        await asyncio.sleep(process.world.rng.random() * 0.05)
        raise NetworkTimeout("no answer to a commit in the simulation")

    async def abort_transaction(self) -> None:
        view = self.view()
        self.in_transaction = False
        with contextlib.suppress(PyMongoError):
            await self._client._ask("abort", lambda on: view.abort(), write=True)


class SessionClient:
    """The store within the session's transaction."""

    def __init__(self, client: Client, session: Session) -> None:
        self._client = client
        self._view = session.view()
        self._loop = client._process.loop

    def chooses(self, change: Change) -> bool:
        return self._client.chooses(change)

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        view, loop = self._view, self._loop
        what = f"in a transaction {type(change).__name__} {change.key}"
        return await self._client._ask(
            what, lambda on: view.apply(on, loop.time(), collection, change, op_id), write=True
        )

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        raise NotImplementedError

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        view, loop = self._view, self._loop
        found: Hit | None = await self._client._ask(
            "in a transaction find_one", lambda on: at_once(view.begun(on, loop.time()).find_one(collection, query))
        )
        return found

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        view, loop = self._view, self._loop
        yield await self._client._ask(
            "in a transaction find", lambda on: view.begun(on, loop.time())._find(collection, query)
        )
