"""How a running Shadow implements what its participant needs."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from shadow.control import epochs
from shadow.control.flip_record import RouteRecord, Routing
from shadow.control.vouching import Vouching
from shadow.errors import JournalError, ShadowClosed
from shadow.fleet.context import FleetContext
from shadow.fleet.participant import Participant
from shadow.fleet.site import Site
from shadow.model.background import Background
from shadow.model.events import ComponentFailed, noted
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, Route, StoreName
from shadow.observe.log import Event
from shadow.stores.base import Store

__all__ = ["RunningSite"]

_ENDS: Final = {"done": Event.FLIP_DONE, "aborted": Event.FLIP_REFUSED, "rehearsed": Event.FLIP_REHEARSED}
_VOUCHED_AT_MOST: Final = 3
"""How often a store that does not confirm its identity in time is asked before a flip is refused."""


class RunningSite(Site):
    """`wanted`: the routes that the configuration asks for, by collection."""

    _vouching: Vouching

    def __init__(self, context: FleetContext, wanted: Mapping[str, Route]) -> None:
        self.records = context.records
        self._parts = context.parts
        self._current = context.current
        self._figures = context.figures
        self._heartbeat = context.heartbeat
        self._tool = context.tool
        self._wanted = dict(wanted)
        self._pending: dict[str, StoreName] = {}
        """The primaries that are still to be put in force, by collection."""
        self.participant = Participant(context.participant, self)

    def _stores(self) -> Mapping[StoreName, Store]:
        try:
            return self._current().stores
        except ShadowClosed:
            return {}

    def _unfit(self) -> Mapping[str, str]:
        try:
            return self._current().admission.unfit()
        except ShadowClosed:
            return {}

    def routes(self) -> Mapping[str, Route]:
        routes = self._parts.routes.all()
        return {name: routes[name] for name in self._wanted if name in routes}

    def wanted(self) -> Mapping[str, StoreName]:
        return {name: route.primary for name, route in self._wanted.items()}

    def wants_both(self) -> Mapping[str, Phase]:
        return {name: route.phase for name, route in self._wanted.items() if route.dual_write}

    def noted(self, seen: Routing, until: float) -> None:
        routes = self._parts.routes
        versioned = {name for name, each in seen.placed.items() if not epochs.bare(each)}
        stamped = {name for name, each in seen.placed.items() if epochs.stamped(each)}
        routes.lease(until, versioned=versioned, stamped=stamped)
        if self._tool:
            return
        for name, route in self.routes().items():
            placed = seen.placed.get(name)
            if route.dual_write and placed is not None and placed.writing not in epochs.TWICE:
                # This process was removed from the list: the others write one store alone by now.
                routes.set(name, dataclasses.replace(route, phase=Phase.OFF))

    def drained(self, collections: Iterable[str]) -> bool:
        return self._parts.routes.drained(collections)

    def arrived(self, collections: Iterable[str]) -> bool:
        return self._parts.routes.arrived(collections)

    async def write_both(self, collections: list[str]) -> None:
        routes, wants = self._parts.routes, self.wants_both()
        for name in collections:
            # Writes to one store end before this process reports that it writes both.
            async with routes.held(name, self._parts.limits.operation):
                routes.set(name, dataclasses.replace(routes[name], phase=wants[name]))

    @asynccontextmanager
    async def holding(self, collections: list[str]) -> AsyncIterator[None]:
        for name in collections:
            self._parts.reporter.publish(noted(Event.FLIP_STARTED, collection=name))
        async with self._current().holding(collections):
            yield

    async def switch(self, placed: Mapping[str, RouteRecord]) -> None:
        for name, each in placed.items():
            try:
                await self._parts.journal.set_primary(name, str(each.primary))
            except JournalError as error:
                # The routing record decides at the next start, whatever the journal holds.
                self._parts.reporter.publish(ComponentFailed("journal", error))
            now = self._parts.routes[name]
            phase = Phase.OFF if each.completed else now.phase
            self._parts.routes.set(name, dataclasses.replace(now, primary=each.primary, phase=phase, epoch=each.epoch))
            self._pending.pop(name, None)

    async def vouch(self, collections: Collection[str], *, whole: bool = True) -> str:
        if self._tool:
            return ""
        wrong: set[str] = set()
        for _ in range(_VOUCHED_AT_MOST):
            wrong |= await self._vouching.tokens(collections)
            silent = set(self._vouching.silent)
            if not silent:
                break
        wrong |= await self._vouching.identities(collections)
        unfit = [
            f"{name} cannot be kept in two stores: {why}" for name, why in self._unfit().items() if name in collections
        ]
        if unfit:
            return "; ".join(unfit)
        if silent and whole and not wrong:
            return f"{', '.join(sorted(silent))}: not confirmed in time that it is unchanged: try again"
        if not wrong:
            return ""
        return f"{', '.join(sorted(wrong))}: a store or the journal was replaced: copy and verify again"

    async def figures(self) -> Mapping[str, CollectionHealth]:
        return await self._figures() if not self._tool else {}

    async def is_empty(self) -> bool:
        try:
            await self._parts.journal.flush()
            stats = await self._parts.journal.stats()
        except JournalError:
            return False
        return stats.open == 0

    def failed(self, task: Background, error: BaseException | None) -> None:
        self._parts.supervisor.report(task, error)

    def notify(self, what: str, **about: Any) -> None:
        said = about.get("said", "")
        if what == "flip":
            event = _ENDS[about["state"]]
            for name in about["collections"]:
                self._parts.reporter.publish(noted(event, collection=name, detail=said))
        elif what == "gap":
            for name in about["collections"]:
                self._parts.reporter.publish(noted(Event.DUAL_WRITES_INTERRUPTED, collection=name))
        else:
            self._parts.reporter.publish(
                noted(Event.CONTROL_LOST if what == "lost" else Event.CONTROL_FOUND, detail=said)
            )
