"""Which store is a collection's primary: what the journal remembers, before what the configuration asks for.

What the journal holds of a collection was written under one primary. A process that began with the other one (an
edited configuration and a restart) would heal those keys the wrong way round: from the store that lags over the one
that does not. So the primary in force is noted in the journal, and a process starts with the one that is noted; the
configured one is a flip that is still to be made, like any other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from shadow.errors import ControlError, JournalError
from shadow.model.phase import Phase, Route, StoreName
from shadow.replicate.journal import Journal
from shadow.replicate.routes import Routes

__all__ = ["Agreed", "Join", "Roles"]

_AGAIN: Final = 0.5
"""Seconds before a journal that failed is asked again."""


class Agreed(Protocol):
    """Where the fleet stands with one collection."""

    @property
    def primary(self) -> StoreName: ...

    @property
    def epoch(self) -> int: ...

    @property
    def completed(self) -> bool: ...


Join = Callable[[Mapping[str, StoreName]], Awaitable[Mapping[str, Agreed]]]
"""Takes part in the fleet with what this process knows, and answers where the fleet stands. Raises `ControlError`."""


async def _alone(kept: Mapping[str, StoreName]) -> Mapping[str, Agreed]:
    return {}


class Roles:
    """Asks journal and fleet once, before the first operation. `resting`: changes nothing in the journal, for tools.

    `on_kept` is told of a collection, in force, and wanted, where another primary is remembered. `lenient`: a journal
    that cannot be read lets writes go on with the configured primary.
    """

    def __init__(
        self,
        journal: Journal,
        routes: Routes,
        on_kept: Callable[[str, StoreName, StoreName], None],
        *,
        join: Join = _alone,
        resting: bool = False,
        lenient: bool = False,
    ) -> None:
        self._journal = journal
        self._routes = routes
        self._on_kept = on_kept
        self._join = join
        self._resting = resting
        self._lenient = lenient
        self._failed: JournalError | ControlError | None = None
        self._not_before = 0.0
        self._learning: asyncio.Task[None] | None = None
        routes.begin_with(self.learn)

    async def learn(self, *, writing: bool) -> None:
        """Puts the remembered primaries in force. Raises `JournalError` or `ControlError` for a write if that cannot
        be known; reads go on with the configured primary, for an old answer is better than none."""
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

    async def _once(self) -> None:
        """Operations that come together learn it together, and a cancelled one leaves it to the others."""
        loop = asyncio.get_running_loop()
        if self._learning is None or self._learning.done() or self._learning.get_loop() is not loop:
            self._learning = loop.create_task(self._learn(), name="shadow-roles")
        learning = self._learning
        try:
            await asyncio.shield(learning)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not learning.cancelled() or task is None or task.cancelling():
                raise
            raise JournalError("closed before it was known which store is the primary", hint="begin it anew") from None

    async def end(self, patience: float) -> None:
        """Returns when nobody learns any more, which nothing else would end: what it asks the journal for would begin
        the journal anew after its end. After `patience` seconds it is cancelled."""
        learning, self._learning = self._learning, None
        if learning is None or learning.get_loop() is not asyncio.get_running_loop():
            return
        await asyncio.wait([learning], timeout=patience)
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)

    async def _learn(self) -> None:
        routes = self._routes.all()
        dual = {name: each.primary for name, each in routes.items() if each.dual_write}
        noted = await self._journal.primaries({} if self._resting else {n: str(each) for n, each in dual.items()})
        kept = {name: StoreName(noted.get(name, each)) for name, each in dual.items()}
        agreed = await self._join(kept) if dual else {}
        for name, primary in kept.items():
            now = agreed.get(name)
            if now is not None and now.primary is not primary:
                await self._overruled(name, now.primary)
            await self._begin(name, routes[name], now, primary)
        await self._begin_alone([name for name in routes if name not in dual], routes, noted)
        self._routes.known = True

    async def _begin(self, name: str, route: Route, now: Agreed | None, kept: StoreName) -> None:
        primary = kept if now is None else now.primary
        epoch = 0 if now is None else now.epoch
        if now is not None and now.completed:
            self._routes.set(name, dataclasses.replace(route, primary=primary, phase=Phase.OFF, epoch=epoch))
        elif (primary, epoch or route.epoch) != (route.primary, route.epoch):
            self._routes.set(name, dataclasses.replace(route, primary=primary, epoch=epoch))
        if primary is not route.primary:
            self._on_kept(name, primary, route.primary)

    async def _overruled(self, name: str, primary: StoreName) -> None:
        """The fleet has flipped since this journal was written. It was empty then; if it is not, somebody has given
        up what it holds."""
        stats = await self._journal.stats()
        if stats.open_by_collection.get(name) or stats.deferred_by_collection.get(name):
            self._journal.doubt(name)
        if not self._resting:
            await self._journal.set_primary(name, str(primary))

    async def _begin_alone(self, names: Sequence[str], routes: Mapping[str, Route], noted: Mapping[str, str]) -> None:
        """One store alone, by the operator's word: nothing can be brought level any more."""
        for name in names:
            if noted.get(name, routes[name].primary) != routes[name].primary and not self._resting:
                self._journal.doubt(name)
                await self._journal.set_primary(name, str(routes[name].primary))
