"""Which store is a collection's primary: what the journal remembers, before what the configuration asks for.

What the journal holds of a collection was written under one primary. A process that started with the other one (an
edited configuration and a restart) would repair those keys in the wrong direction: from the store that lags to the one
that does not. So the primary in force is recorded in the journal, and a process starts with the recorded one; if the
configuration names the other one, that is a flip still to be made, like any other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from shadow.errors import ControlError, JournalError
from shadow.host.tasks import begin
from shadow.journal.base import Journal
from shadow.model.phase import Phase, Route, StoreName
from shadow.routes.routes import Routes

__all__ = ["AgreedRoute", "Join", "StartupContext", "StartupPrimary"]

_AGAIN: Final = 0.5
"""Seconds before a journal that failed is asked again."""


class AgreedRoute(Protocol):
    """The fleet's route of one collection."""

    @property
    def primary(self) -> StoreName: ...

    @property
    def epoch(self) -> int: ...

    @property
    def phase(self) -> Phase:
        """The one that this process may begin in."""


Join = Callable[[Mapping[str, StoreName]], Awaitable[Mapping[str, AgreedRoute]]]
"""Joins the fleet with what this process knows, and returns the fleet's routes. Raises `ControlError`."""

Renew = Callable[[], Awaitable[None]]
"""Reads the fleet's routes again, and puts them in force. Raises `ControlError`."""


async def _alone(kept: Mapping[str, StoreName]) -> Mapping[str, AgreedRoute]:
    return {}


async def _nothing() -> None:
    return


@dataclass(frozen=True)
class StartupContext:
    """What decides which store is primary as a process, or its next event loop, starts."""

    journal: Journal
    routes: Routes
    on_kept: Callable[[str, StoreName, StoreName], None]
    """Called with a collection, the primary in force and the wanted one, where another primary is remembered."""
    join: Join = _alone
    renew: Renew = _nothing
    patience: float = 10.0
    """Seconds that `renew` may take."""
    configured: Callable[[], Awaitable[Mapping[str, Route]]] | None = None
    """Returns what the configuration asks for, read again each time; None: the routes as they are."""
    passive: bool = False
    """For tools: changes nothing in the journal."""
    lenient: bool = False
    """Whether writes continue with the configured primary while the journal cannot be read."""


class StartupPrimary:
    """Asks journal and fleet before the first operation, and the fleet again where the lease has expired: `learn` is
    what the `RouteSource` of the context's routes calls."""

    def __init__(self, context: StartupContext) -> None:
        self._journal = context.journal
        self._routes = context.routes
        self._on_kept = context.on_kept
        self._join = context.join
        self._renew = context.renew
        self._patience = context.patience
        self._configured = context.configured
        self._passive = context.passive
        self._lenient = context.lenient
        self._failed: JournalError | ControlError | None = None
        self._not_before = 0.0
        self._learning: asyncio.Task[None] | None = None

    async def learn(self, *, writing: bool) -> None:
        """Puts the remembered primaries in force. Raises `JournalError` or `ControlError` for a write if that cannot
        be known; reads continue with the configured primary, for an old answer is better than none.

        If they are in force, renews the lease. A control store that does not answer stops no write then: this process
        is on its list, and no flip is made without its acknowledgement. Until it answers, no write is bare.
        """
        if self._routes.known:
            if time.monotonic() >= self._not_before:
                await self._renewed()
            return
        if self._failed is not None and (not writing or time.monotonic() < self._not_before):
            if writing and not self._lenient:
                raise self._failed
            return
        try:
            await self._once()
        except (JournalError, ControlError) as error:
            self._failed, self._not_before = error, time.monotonic() + _AGAIN
            if writing and not self._lenient:
                raise

    async def _renewed(self) -> None:
        try:
            await self._once()
        except (JournalError, ControlError):
            self._not_before = time.monotonic() + _AGAIN

    async def _look_again(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._renew()
        except TimeoutError:
            raise ControlError(f"the control store did not answer within {self._patience:g} s") from None

    async def _once(self) -> None:
        """Operations that come together learn it together, and a cancelled one leaves it to the others."""
        loop = asyncio.get_running_loop()
        if self._learning is None or self._learning.done() or self._learning.get_loop() is not loop:
            work = self._look_again() if self._routes.known else self._learn()
            self._learning = begin(work, name="shadow-roles")
        learning = self._learning
        try:
            await asyncio.shield(learning)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not learning.cancelled() or task is None or task.cancelling():
                raise
            raise JournalError("closed before it was known which store is the primary", hint="start it again") from None

    async def end(self, patience: float) -> None:
        """Returns when nobody learns any more, which nothing else would end: what it asks the journal for would begin
        the journal again after its end. After `patience` seconds it is cancelled."""
        learning, self._learning = self._learning, None
        if learning is None or learning.get_loop() is not asyncio.get_running_loop():
            return
        await asyncio.wait([learning], timeout=patience)
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)

    async def _learn(self) -> None:
        routes = self._routes.all() if self._configured is None else await self._configured()
        noted = await self._journal.primaries({})
        kept = {name: StoreName(noted.get(name, each.primary)) for name, each in routes.items()}
        agreed = await self._join(kept)
        for name, route in routes.items():
            primary = kept[name] if route.dual_write else route.primary
            if name in agreed:
                primary = agreed[name].primary
            if name in agreed and noted.get(name, primary) != primary:
                await self._overruled(name, primary)
            self._begin(name, route, agreed.get(name), primary)
        if not self._passive:
            # Only now: what is noted once, is what later processes begin with.
            dual = {name: str(each.primary) for name, each in self._routes.all().items() if each.dual_write}
            await self._journal.primaries(dual)
        self._routes.known = True

    def _begin(self, name: str, route: Route, agreed: AgreedRoute | None, primary: StoreName) -> None:
        now = self._routes[name]
        phase, epoch = (route.phase, now.epoch) if agreed is None else (agreed.phase, agreed.epoch)
        wanted = dataclasses.replace(route, primary=primary, phase=phase, epoch=epoch)
        if wanted != now:
            self._routes.set(name, wanted)
        if primary is not route.primary:
            self._on_kept(name, primary, route.primary)

    async def _overruled(self, name: str, primary: StoreName) -> None:
        """The fleet has flipped since this journal was written. It was empty then; if it is not, somebody has given
        up what it holds."""
        stats = await self._journal.stats()
        if stats.open_by_collection.get(name) or stats.deferred_by_collection.get(name):
            self._journal.doubt(name)
        if not self._passive:
            await self._journal.set_primary(name, str(primary))
