"""The routes in force, and the gate before the writes of each collection.

A change of route pauses the writes of its collection for a bounded time: writes under way end, new ones wait at the
gate, and no write ever sees two routes.

The routes come with a lease. After it has run out (a stalled event loop, a suspended host) the fleet's record is asked
once before the next write. Within it, a write of a collection that no process writes to both stores may be *bare*: the
driver's own call.

    async with routes.writing(collection) as route:
        if route.bare:
            await driver_collection.update_one(...)   # MongoDB's own; no version moves, and no intent is needed
        else:
            ...                                       # the versioned way, also in phase `off`

A process that wants to write both stores makes the others stop first, and waits for the bare writes that are inside. A
bare write with an unknown outcome may still arrive, and is waited for during `limits.in_flight_timeout` seconds: so let
the driver's exception leave the block. `routes.plain(collection)` answers the same for reads, without waiting: whether
no document carries a version and there is no tombstone, so that a read may be the driver's own call as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from shadow.errors import WritesHeld
from shadow.host.steady import steady
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Phase, Route, StoreName

__all__ = ["Learn", "OpenWrite", "RouteSource", "Routes"]


class Learn(Protocol):
    """Puts the remembered primaries in force; if they already are, renews the lease. Raises `JournalError` or
    `ControlError` for a write if they cannot be known."""

    async def __call__(self, *, writing: bool) -> None: ...


@dataclass(frozen=True)
class RouteSource:
    """Where a process that belongs to a fleet has its routes from."""

    learn: Learn
    """Called before the first operation, and where the lease has expired. The primaries are not known until it has set
    `known`."""
    on_unplaced: Callable[[str], Awaitable[None]] | None = None
    """Awaited before each write to one store alone, in a process that could not learn the fleet's routes and works on
    without them; raises where it must not write."""


class _Gate:
    """Counts the writes that passed and have not ended; `opened` is set while a change holds the rest."""

    __slots__ = ("bare", "bare_lost", "changing", "healed", "healing", "held", "inside", "left", "lost")

    def __init__(self) -> None:
        self.inside = 0
        self.bare = 0
        self.bare_lost = -math.inf
        """When the last bare write was given up without an answer."""
        self.lost = -math.inf
        """Likewise the last write to one store alone, bare or not."""
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
    """`on_change` is called with every route, also with the first ones. Collections without a route stay on MongoDB
    alone, and `on_unknown` is called once with each."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        on_change: Callable[[str, Route], None],
        on_unknown: Callable[[str], None],
        source: RouteSource | None = None,
        patience: float | None = None,
        in_flight_timeout: float = 5.0,
    ) -> None:
        """`source`: None where `routes` are all that there is to know. `patience`: seconds that a write waits for a
        change that pauses it; None: as long as it takes. `in_flight_timeout`: seconds in which a request that timed
        out may still arrive."""
        self._patience = patience
        self._in_flight_timeout = in_flight_timeout
        self._on_change = on_change
        self._on_unknown = on_unknown
        self._on_unplaced = None if source is None else source.on_unplaced
        self._routes: dict[str, Route] = {}
        self._gates: dict[str, _Gate] = {}
        self.known = source is None
        self._learn = None if source is None else source.learn
        self._until = math.inf
        self._versioned: Container[str] | None = None
        self._stamped: Container[str] = frozenset()
        self._handed: dict[str, tuple[Route, Route]] = {}
        self.looked: dict[str, bool] = {}
        """By collection that was looked through: whether there were versions or tombstones in it."""
        for collection, route in routes.items():
            self.set(collection, route)

    def __getitem__(self, collection: str) -> Route:
        try:
            return self._routes[collection]
        except KeyError:
            route = self._routes[collection] = Route(StoreName.MONGO, Phase.OFF)
            self._on_unknown(collection)
            return route

    def forget(self) -> None:
        """They may change from now on without this process, so they are asked for again before the next operation."""
        self.known = self._learn is None

    async def learnt(self, *, writing: bool) -> None:
        """Returns when the primaries are known, or a read may go on without. Raises `JournalError` or `ControlError`
        for a write."""
        if self._learn is not None and (not self.known or (writing and not self.fresh)):
            await self._learn(writing=writing)

    @property
    def fresh(self) -> bool:
        """Whether the lease has not run out."""
        return steady() < self._until

    def lease(self, until: float, *, versioned: Container[str], stamped: Container[str]) -> None:
        """What the fleet's record said, to be relied on `until` a moment of `steady`. `versioned`: the
        collections that must not be written past their versions; `stamped`: those whose documents may carry some."""
        self._until, self._versioned, self._stamped = until, versioned, stamped

    def plain(self, collection: str) -> bool:
        """Whether its documents are known to carry no versions, with no tombstone between them: a read may be the
        driver's own call. Where it was not known a moment ago, the answer is False, and nothing is asked."""
        return self.known and self._versioned is not None and collection not in self._stamped and self.fresh

    def stamped(self, collection: str) -> bool:
        """Whether its documents may carry versions, as far as this process knows."""
        return collection in self._stamped or self.looked.get(collection, False)

    def drained(self, collections: Iterable[str]) -> bool:
        """Whether no bare write of these is under way in this process or may still arrive."""
        gates = [self._gate(name) for name in collections]
        return not any(gate.bare or steady() - gate.bare_lost < self._in_flight_timeout for gate in gates)

    def arrived(self, collections: Iterable[str]) -> bool:
        """The same of every write to one store alone that has ended: no intent stands for one without an answer."""
        names = list(collections)
        late = any(steady() - self._gate(name).lost < self._in_flight_timeout for name in names)
        return not late and self.drained(names)

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
            self.looked.pop(collection, None)
        self._on_change(collection, route)

    def writing(self, collection: str) -> OpenWrite:
        """The route for one write, which stays in force until the block ends. Entering raises `JournalError` or
        `ControlError` if it cannot be known which store is the primary, and `WritesHeld` if a change holds it for too
        long."""
        return OpenWrite(self, collection)

    async def _enter(self, collection: str) -> tuple[_Gate, Route]:
        gate = self._gate(collection)
        while True:
            if not self.known or steady() >= self._until:
                await self.learnt(writing=True)
            if not self.known and self._on_unplaced is not None and not self[collection].dual_write:
                await self._on_unplaced(collection)
            if gate.held is None:
                break
            await self._let_go(collection, gate.held)
        # From here on nothing waits: what is known now is so when the write begins.
        route = self[collection]
        gate.inside += 1
        if route.dual_write or self._versioned is None:
            return gate, route
        route = self._handed_out(collection, route)
        gate.bare += route.bare
        return gate, route

    def _handed_out(self, collection: str, route: Route) -> Route:
        """The route of a collection that this process writes to one store alone."""
        bare = route.primary is StoreName.MONGO and collection not in (self._versioned or ()) and self.fresh
        before, handed = self._handed.get(collection, (None, route))
        stamps = collection in self._stamped
        if before is not route or (handed.bare, handed.stamps) != (bare, stamps):
            handed = dataclasses.replace(route, bare=bare, stamps=stamps)
            self._handed[collection] = route, handed
        return handed

    async def _let_go(self, collection: str, held: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await held.wait()
        except TimeoutError:
            raise WritesHeld(
                f"{collection}: a flip pauses its writes, and is not decided after {self._patience:g} s",
                hint="nothing was written; see `shadow fleet list`: the control store may be out of reach",
            ) from None

    def waits(self, collection: str) -> bool:
        """Whether a change of its route waits for the writes under way, or holds those that come."""
        return self._gate(collection).held is not None

    @asynccontextmanager
    async def held(self, collection: str, timeout: float) -> AsyncIterator[None]:
        """Pauses the collection's writes; entered when those under way have ended. Raises TimeoutError when they do
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


class OpenWrite(AbstractAsyncContextManager[Route]):
    """One write. Not by `asynccontextmanager`, whose generator costs a write more than what it does."""

    __slots__ = ("_collection", "_gate", "_route", "_routes")

    def __init__(self, routes: Routes, collection: str) -> None:
        self._routes = routes
        self._collection = collection

    async def __aenter__(self) -> Route:
        self._gate, self._route = await self._routes._enter(self._collection)
        return self._route

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.leave(error)

    def leave(self, error: BaseException | None = None) -> None:
        """The end of a write; for one that outlives its caller, which then does not leave the block itself."""
        if error is not None and not (isinstance(error, Exception) and classify(error) is Outcome.REFUSED):
            self.lost()
        if self._route.bare:
            self._gate.bare -= 1
        self._gate.leave()

    def lost(self) -> None:
        """The write had no answer, and may still arrive. Called before the block ends, for what does not leave it as an
        exception."""
        if self._route.dual_write:
            return  # its intent stands for it
        self._gate.lost = steady()
        if self._route.bare:
            self._gate.bare_lost = steady()
