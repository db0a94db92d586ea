"""Both stores of one collection, as a job uses them: which is primary, how to scan and how to heal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shadow.compare.diff import Hasher
from shadow.errors import NotFollowed, ShadowError
from shadow.journal.base import Journal
from shadow.model.events import Reporter
from shadow.model.limits import Limits
from shadow.model.phase import Route, StoreName
from shadow.model.schema import ExpirySpec
from shadow.model.verdict import Healing
from shadow.model.version import Key
from shadow.observe.findings_file import SharedFindings
from shadow.routes.routes import Routes
from shadow.stores.base import Store
from shadow.stores.ranges import Ranges
from shadow.traces.spans import NO_TRACES, Traces

__all__ = ["JobRefused", "JobTarget", "RouteChanged"]


class JobRefused(ShadowError):
    """The job cannot be done as things are; nothing was changed."""


class RouteChanged(JobRefused):
    """The route of the collection has changed since the job began. What was done is noted."""


async def _any_kind() -> None:
    return


async def _each_alone(keys: Sequence[Key]) -> list[Healing | None]:
    return [None] * len(keys)


@dataclass(frozen=True)
class JobTarget:
    """One collection's stores with their roles at the beginning of a job. `identity` says, without credentials, which
    stores and which table these are; `repair` repairs one key and checks the route itself; `repair_many` does so with
    many keys, with None for each that `repair` has to be asked for; `findings`: those of this host, which a job may
    close; `check_kind` raises `JobRefused` if the collection is of a kind that both stores cannot hold alike; `expiry`:
    by which rule documents expire."""

    collection: str
    identity: str
    start: Route
    stores: Mapping[StoreName, Store]
    ranges: Mapping[StoreName, Ranges]
    routes: Routes
    journal: Journal
    limits: Limits
    reporter: Reporter
    hasher: Hasher
    repair: Callable[[Key], Awaitable[Healing]]
    repair_many: Callable[[Sequence[Key]], Awaitable[list[Healing | None]]] = _each_alone
    findings: SharedFindings | None = None
    check_kind: Callable[[], Awaitable[None]] = _any_kind
    expiry: ExpirySpec | None = None
    traces: Traces = NO_TRACES

    @property
    def primary(self) -> Store:
        return self.stores[self.start.primary]

    @property
    def secondary(self) -> Store:
        return self.stores[self.start.secondary]

    @property
    def source(self) -> Ranges:
        """The primary's ranges."""
        return self.ranges[self.start.primary]

    @property
    def target(self) -> Ranges:
        """The secondary's ranges."""
        return self.ranges[self.start.secondary]

    def _changed(self, now: Route) -> str:
        def described(route: Route) -> str:
            return f"{route.primary} is the primary{'' if route.dual_write else ' and the only store that is written'}"

        return f"{self.collection}: when the job began, {described(self.start)}; now {described(now)}"

    def check_followed(self) -> None:
        """Raises `JobRefused` where only one store is written: a copy could not be distinguished from a
        later write."""
        if not self.start.dual_write:
            raise JobRefused(
                f"{self.collection}: phase {self.start.phase} writes to one store only",
                hint="set its phase to dual_write in every process first: a copy beside single writes loses updates",
            )

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """The roles do not change in this process before the block ends. Raises `RouteChanged` if they have."""
        async with self.routes.healing(self.collection) as route:
            if (route.primary, route.dual_write) != (self.start.primary, self.start.dual_write):
                raise self._no_more(route)
            yield

    async def heal(self, key: Key) -> Healing:
        """Heals one key, outside `steady`. Raises `RouteChanged` where only one store is written by now, and what
        `repair` raises."""
        try:
            return await self.repair(key)
        except NotFollowed as error:
            raise self._no_more(self.routes[self.collection]) from error

    async def heal_many(self, keys: Sequence[Key]) -> list[Healing | None]:
        """Repairs many keys in few requests, outside `steady`. None for each that `heal` has to be asked for. Raises
        `RouteChanged` where only one store is written by now."""
        try:
            return await self.repair_many(keys)
        except NotFollowed as error:
            raise self._no_more(self.routes[self.collection]) from error

    def _no_more(self, now: Route) -> RouteChanged:
        return RouteChanged(self._changed(now), hint="the same command with --restart begins again from there")
