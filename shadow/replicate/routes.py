"""The routes in force, and the gate before the writes of each collection.

A change of routing holds the writes of its collection for a bounded time: those under way end, those that come wait at
the gate, and no write ever sees two routes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from shadow.errors import WritesHeld
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.version import fresh_id

__all__ = ["Bare", "Learn", "Routes", "Writing"]


class Bare(enum.Enum):
    """Whether the writes of a collection may be the driver's own calls."""

    NO = enum.auto()
    """Both stores are written, by some process, or DynamoDB alone: every write moves the document's version."""
    STAMPED = enum.auto()
    """MongoDB alone is written; both stores were, once: documents carry versions, and tombstones may stand."""
    YES = enum.auto()
    """MongoDB alone is written, and always was, as far as is known."""


class Learn(Protocol):
    """Puts the primaries in force that are remembered from before. Raises `JournalError` or `ControlError` for a
    write."""

    async def __call__(self, *, writing: bool) -> None: ...


class _Gate:
    """Counts the writes that passed and have not ended; `opened` is set while a change holds the rest."""

    __slots__ = ("changing", "healed", "healing", "held", "inside", "left")

    def __init__(self) -> None:
        self.inside = 0
        self.held: asyncio.Event | None = None
        self.left: asyncio.Event | None = None
        self.healing = 0
        self.healed = asyncio.Event()
        self.changing: asyncio.Event | None = None

    def leave(self) -> None:
        """One of the writes inside has ended."""
        self.inside -= 1
        if self.inside == 0 and self.left is not None:
            self.left.set()


class Routes:
    """`on_change` is told of every route, also of the first ones. Collections without a route stay on MongoDB alone,
    and `on_unknown` is told once of each."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        on_change: Callable[[str, Route], None],
        on_unknown: Callable[[str], None],
        patience: float | None = None,
    ) -> None:
        """`patience`: seconds that a write waits for a change that holds it; None: as long as it takes."""
        self._patience = patience
        self._on_change = on_change
        self._on_unknown = on_unknown
        self._routes: dict[str, Route] = {}
        self._gates: dict[str, _Gate] = {}
        self.known = True
        self._learn: Learn | None = None
        self._were_dual: set[str] = set()
        self._era = fresh_id()
        self.unstamped: set[str] = set()
        """The collections that were looked through, and hold neither versions nor tombstones."""
        for collection, route in routes.items():
            self.set(collection, route)

    def __getitem__(self, collection: str) -> Route:
        try:
            return self._routes[collection]
        except KeyError:
            route = self._routes[collection] = Route(StoreName.MONGO, Phase.OFF)
            self._on_unknown(collection)
            return route

    def bare(self, collection: str) -> Bare:
        """Whether the collection's writes may be the driver's own calls, as far as this process knows by now. For a
        write, ask inside `writing`: what is answered there holds until the block ends."""
        route = self[collection]
        if route.primary is not StoreName.MONGO or route.dual_write:
            return Bare.NO
        return Bare.STAMPED if collection in self._were_dual else Bare.YES

    def found_stamps(self, collection: str) -> None:
        """The collection holds versions or tombstones of before this process."""
        self._were_dual.add(collection)

    def era(self, collection: str) -> str:
        """Names the time since both stores were written last: the version of a document that is written bare is of
        it."""
        return self._era

    def begin_with(self, learn: Learn) -> None:
        """The primaries are not known until `learn` has set `known`; it is asked before the first operation."""
        self.known, self._learn = False, learn

    def forget(self) -> None:
        """They may change from now on without this process: they are to be learnt again before the next operation."""
        self.known = self._learn is None

    async def learnt(self, *, writing: bool) -> None:
        """Returns when the primaries are known, or a read may go on without. Raises `JournalError` or `ControlError`
        for a write."""
        if not self.known and self._learn is not None:
            await self._learn(writing=writing)

    async def route(self, collection: str) -> Route:
        """The route for one read."""
        if not self.known:
            await self.learnt(writing=False)
        return self[collection]

    def all(self) -> dict[str, Route]:
        return dict(self._routes)

    def set(self, collection: str, route: Route) -> None:
        """Puts the route in force: with its own epoch, if it has one, else with the next one where the primary
        changes. Where it does, call this inside `held`."""
        old = self._routes.get(collection)
        if not route.epoch:
            epoch = 1 if old is None else old.epoch + (route.primary is not old.primary)
            route = dataclasses.replace(route, epoch=epoch)
        self._routes[collection] = route
        if route.dual_write:
            self._were_dual.add(collection)
            self._era = fresh_id()
            self.unstamped.discard(collection)
        self._on_change(collection, route)

    def writing(self, collection: str) -> Writing:
        """The route for one write, which stays in force until the block ends. Entering raises `JournalError` or
        `ControlError` if it cannot be known which store is the primary, and `WritesHeld` if a change holds it for too
        long."""
        return Writing(self, collection)

    async def _enter(self, collection: str) -> tuple[_Gate, Route]:
        if not self.known:
            await self.learnt(writing=True)
        gate = self._gate(collection)
        while gate.held is not None:
            await self._let_go(collection, gate.held)
        route = self[collection]
        gate.inside += 1
        return gate, route

    async def _let_go(self, collection: str, held: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await held.wait()
        except TimeoutError:
            raise WritesHeld(
                f"{collection}: a flip holds its writes, and is not decided after {self._patience:g} s",
                hint="nothing was written; see `shadow fleet list`: the control store may be out of reach",
            ) from None

    @asynccontextmanager
    async def held(self, collection: str, timeout: float) -> AsyncIterator[None]:
        """Holds the collection's writes; entered when those under way have ended. Raises TimeoutError when they do
        not within `timeout` seconds; in every case the writes go on when the block ends."""
        gate = self._gate(collection)
        while gate.held is not None:
            await gate.held.wait()
        gate.held, gate.left = asyncio.Event(), asyncio.Event()
        try:
            if gate.inside:
                async with asyncio.timeout(timeout):
                    await gate.left.wait()
            yield
        finally:
            held, gate.held, gate.left = gate.held, None, None
            held.set()

    @asynccontextmanager
    async def healing(self, collection: str) -> AsyncIterator[Route]:
        """The route for one heal or copy. The primary does not change before the block ends: with its roles the
        other way round, a heal would put the old store's image over the new one's. Raises `JournalError` if it
        cannot be known."""
        if not self.known:
            await self.learnt(writing=True)
        gate = self._gate(collection)
        while gate.changing is not None:
            await gate.changing.wait()
        gate.healing += 1
        try:
            yield self[collection]
        finally:
            gate.healing -= 1
            if gate.healing == 0:
                gate.healed.set()

    @asynccontextmanager
    async def changing(self, collection: str) -> AsyncIterator[None]:
        """Entered when no heal of the collection is under way; none begins until the block ends. Waits for as long
        as the heals take: the caller bounds the time."""
        gate = self._gate(collection)
        while gate.changing is not None:
            await gate.changing.wait()
        changing = gate.changing = asyncio.Event()
        try:
            while gate.healing:
                gate.healed.clear()
                await gate.healed.wait()
            yield
        finally:
            gate.changing = None
            changing.set()

    def _gate(self, collection: str) -> _Gate:
        gate = self._gates.get(collection)
        if gate is None:
            gate = self._gates[collection] = _Gate()
        return gate


class Writing(AbstractAsyncContextManager[Route]):
    """One write inside the gate. Not by `asynccontextmanager`, whose generator costs a write more than what it does."""

    __slots__ = ("_collection", "_gate", "_routes")

    def __init__(self, routes: Routes, collection: str) -> None:
        self._routes = routes
        self._collection = collection

    async def __aenter__(self) -> Route:
        self._gate, route = await self._routes._enter(self._collection)
        return route

    async def __aexit__(self, *exc_info: object) -> None:
        self._gate.leave()

    def leave(self) -> None:
        """The end of a write that outlives its caller, which then does not leave the block itself."""
        self._gate.leave()
