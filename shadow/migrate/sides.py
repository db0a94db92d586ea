"""Both sides of one collection, as a job sees them: who is primary, how to walk and how to heal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shadow.compare.diff import Hasher
from shadow.errors import ShadowError
from shadow.model.phase import Route, StoreName
from shadow.model.reporter import Reporter
from shadow.model.verdict import Healing
from shadow.model.version import Key
from shadow.replicate.journal import Journal
from shadow.replicate.limits import Limits
from shadow.replicate.routes import Routes
from shadow.stores.base import Store
from shadow.stores.ranges import Ranges

__all__ = ["JobRefused", "RouteChanged", "Sides"]


class JobRefused(ShadowError):
    """The job cannot be done as things are; nothing was changed."""


class RouteChanged(JobRefused):
    """The routing of the collection is not what the job began with. What was done is done and noted."""


@dataclass(frozen=True)
class Sides:
    """One collection's stores with their roles as of the beginning of a job. `identity` says, without credentials,
    which stores and which table these are; `repair` heals one key and takes care of the routing itself."""

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

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """The roles do not change in this process before the block ends. Raises `RouteChanged` if they have."""
        async with self.routes.healing(self.collection) as route:
            if (route.primary, route.dual_write) != (self.start.primary, self.start.dual_write):
                raise RouteChanged(
                    f"{self.collection}: its routing changed under the job", hint="start the job again: it begins anew"
                )
            yield
