"""What lives as long as one event loop: stores, lanes, follower, reader, router, and the tasks that keep them going."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.control.participant import NotLevel
from shadow.errors import JournalError
from shadow.forwarder import Forwarder
from shadow.model.background import Background
from shadow.model.phase import StoreName
from shadow.model.reporter import Reporter
from shadow.observe.log import Event
from shadow.replicate.breaker import Breaker
from shadow.replicate.follower import Follower
from shadow.replicate.intents import Intents, OnFailure, OnGap, no_gap
from shadow.replicate.journal import Journal, JournalStats
from shadow.replicate.lane import Lane
from shadow.replicate.limits import Limits, Watch
from shadow.replicate.loop_lag import LoopLag
from shadow.replicate.percent_reads import PercentReads
from shadow.replicate.points import Reach
from shadow.replicate.routes import Routes
from shadow.replicate.shadow_read import ShadowReader
from shadow.replicate.supervisor import Supervisor, Turn
from shadow.replicate.suspects import MemorySuspects, Suspects
from shadow.router import Router
from shadow.stores.base import Admitting, Store

__all__ = ["Parts", "Runtime"]

_QUICK: Final = 0.01
"""Seconds between two looks at a journal that is to become empty."""
_ORPHANS: Final = 0.2
"""Seconds after which what stays open is asked for whether its process has died."""


@dataclass(frozen=True)
class Parts:
    """What outlives an event loop and is shared by the runtimes of a Shadow, one after the other."""

    journal: Journal
    routes: Routes
    limits: Limits
    reporter: Reporter
    hasher: Hasher
    reach: Reach
    on_secondary: Callable[[StoreName, bool], None]
    excuses: Excuses = field(default_factory=Excuses)
    on_journal_failure: OnFailure = OnFailure.REFUSE
    watch: Watch = field(default_factory=Watch)
    suspects: Suspects = field(default_factory=MemorySuspects)
    on_gap: OnGap = no_gap
    """Asked before a write without an intent."""
    on_journal: Callable[[bool], None] = lambda works: None
    """Told whether the journal works."""
    supervisor: Supervisor = field(default_factory=Supervisor)


@dataclass
class Runtime:
    """Made inside its event loop, on first use; does no I/O until the first operation does."""

    loop: asyncio.AbstractEventLoop
    parts: Parts
    stores: Mapping[StoreName, Store]
    stats: JournalStats = field(default_factory=JournalStats)
    resting: bool = False
    """Whether nothing is done but what is asked for: no recovery, no looks at the journal by itself."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _asked: bool = False
    """Whether the journal has ever answered what it holds."""

    def __post_init__(self) -> None:
        parts, limits = self.parts, self.parts.limits
        self.breakers = {name: self._breaker(name) for name in StoreName}
        self.lag = LoopLag(limits.loop_lag)
        self.writes = Lane(
            workers=limits.write_workers,
            capacity=limits.write_queue,
            on_error=lambda error: parts.reporter.failed("lane", error),
        )
        self.reads = Lane(
            workers=limits.read_workers,
            capacity=limits.read_queue,
            on_error=lambda error: parts.reporter.failed("lane", error),
        )
        intents = Intents(
            parts.journal,
            limits,
            parts.reporter,
            on_failure=parts.on_journal_failure,
            on_journal=self._journal_changed,
            on_gap=parts.on_gap,
            reach=parts.reach,
        )
        self.follower = Follower(
            self.stores,
            self.breakers,
            parts.journal,
            self.writes,
            limits,
            parts.reporter,
            parts.hasher,
            parts.routes,
            parts.reach,
            excuses=parts.excuses,
            intents=intents,
        )
        self.reader = ShadowReader(
            self.stores,
            self.breakers,
            parts.journal,
            self.reads,
            self.writes,
            limits,
            parts.reporter,
            parts.hasher,
            excuses=parts.excuses,
            suspects=parts.suspects,
            watch=parts.watch,
            routes=parts.routes.all,
            late=lambda: self.lag.late,
        )
        percent = PercentReads(
            self.stores, self.breakers, parts.journal, self.writes, limits, parts.reporter, doubted=self._doubted
        )
        self.router = Router(
            self.stores,
            parts.routes,
            intents,
            self.follower,
            self.reader,
            limits,
            parts.reporter,
            parts.reach,
            percent,
            self._admission(),
        )
        self.forwarder = Forwarder(self.stores[StoreName.MONGO], parts.routes, parts.reporter)
        self._spawn(self._hold_stores(), "stores")
        if self.resting:
            return
        self.lag.start()
        self.keep(Background.RECOVERY, self.follower.recover_forever)
        self.keep(Background.REFRESH, self._refresh_forever)
        self.keep(Background.CANARIES, self.reader.canaries.run)
        self.keep(Background.SUSPECTS, self.reader.revisit_forever)

    def _admission(self) -> Callable[[], Awaitable[None]] | None:
        """What asks the stores whether the application may write to both; None if they let everything pass."""
        asked = [store for store in self.stores.values() if isinstance(store, Admitting) and store.refuses]
        if not asked:
            return None

        async def admit() -> None:
            for store in asked:
                await store.admit()

        return admit

    def _journal_changed(self, works: bool) -> None:
        self.parts.on_journal(works)
        self.parts.reporter.event(Event.JOURNAL_WORKING if works else Event.JOURNAL_FAILING)

    def _doubted(self, collection: str) -> bool:
        """Whether intents of the collection are known to be lost, or nobody has asked the journal yet."""
        return not self._asked or collection in self.stats.unclean or collection in self.parts.journal.doubted

    def _breaker(self, name: StoreName) -> Breaker:
        return Breaker(on_change=lambda up: self.parts.on_secondary(name, up))

    def keep(self, task: Background, work: Callable[[Turn], Awaitable[None]]) -> None:
        """Runs a task under supervision for as long as the runtime lives."""
        self._spawn(self.parts.supervisor.run(task, work), task)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """With a strong reference; in a context of its own, since the one at hand is that of the application's first
        call, with the time limit of that call in it."""
        task = self.loop.create_task(work, name=f"shadow-{name}", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold_stores(self) -> None:
        """Closes the stores when it is cancelled: by `close`, or by `asyncio.run` at the end of a loop that nobody
        closed, which is the last moment at which connections of that loop can be ended in order."""
        try:
            await asyncio.Event().wait()
        finally:
            # `asyncio.run` cancels the tasks that it sees: those that begin meanwhile would be destroyed with the loop.
            for lane in (self.reads, self.writes):
                await lane.cut_off()
            self.reader.stop()
            self.lag.stop()
            # What the lane has not begun: those intents would stand until their time is over.
            self.follower.abandon()
            await self._close_stores()

    async def _close_stores(self) -> None:
        for store in self.stores.values():
            try:
                await store.close()
            except Exception as error:
                self.parts.reporter.failed("close", error)

    async def _refresh_forever(self, turn: Turn) -> None:
        """Keeps the journal's figures near, for a scrape must not wait for a file."""
        while True:
            turn()
            await self.refresh()
            await asyncio.sleep(1.0)

    async def refresh(self) -> JournalStats:
        """Looks into the journal. Raises `JournalError`; what was doubted in this process is known all the same."""
        before, journal = self.stats, self.parts.journal
        found = before
        try:
            found = await journal.stats()
            self._asked = True
        finally:
            self.stats = dataclasses.replace(found, unclean={**journal.doubted, **found.unclean})
            self._tell(before)
        return self.stats

    def _tell(self, before: JournalStats) -> None:
        for collection in self.stats.unclean.keys() - before.unclean.keys():
            since = round(self.stats.unclean[collection], 3)
            self.parts.reporter.event(Event.JOURNAL_UNCLEAN, collection=collection, since_seconds=since)

    @property
    def at_work(self) -> bool:
        """Whether a write is being followed, or a comparison is not yet decided."""
        return bool(self.writes.depth or self.reads.depth or self.reader.waiting)

    @asynccontextmanager
    async def holding(self, collections: Sequence[str]) -> AsyncIterator[None]:
        """Holds the collections' writes; entered when the secondary is level and no heal is under way, and left when
        the block ends. Raises `NotLevel` if the secondary was not level within `limits.drain`, or a request to it was
        given up on so lately that it may still arrive."""
        drain, routes = self.parts.limits.drain, self.parts.routes
        if not routes.known:
            await routes.learnt(writing=True)
        async with AsyncExitStack() as stack:
            # Every write of the application waits for this: nothing that can wait shall take its time.
            stack.enter_context(self.reads.paused())
            try:
                async with asyncio.timeout(drain):
                    for name in collections:
                        await stack.enter_async_context(routes.held(name, drain))
                    for name in collections:
                        await self._empty(name)
                    for name in collections:
                        await stack.enter_async_context(routes.changing(name))
            except TimeoutError:
                raise NotLevel(self._why_not_level(collections)) from None
            straggling = [name for name in collections if self.follower.may_straggle(name)]
            if straggling:
                raise NotLevel(f"{', '.join(straggling)}: a request that was given up on may still arrive")
            yield

    def _why_not_level(self, collections: Sequence[str]) -> str:
        text = f"the secondary was not level within {self.parts.limits.drain:g} s"
        refused = {name: count for name in collections if (count := self.stats.refused_by_collection.get(name))}
        if not refused:
            return text
        told = ", ".join(f"{count} documents of {name}" for name, count in refused.items())
        return f"{text}, and never will be: it refuses to hold {told} (shadow repair --journal list)"

    async def _empty(self, collection: str) -> None:
        """Returns when neither lane nor journal holds anything of it; the caller bounds the time."""
        if not await self.writes.drain(self.parts.limits.drain, collection):
            raise TimeoutError
        await self._level(collection)

    async def change_primary(self, collection: str, change: Callable[[], None], to: StoreName | None = None) -> bool:
        """Makes the change between two operations, with the secondary level; `to` is noted in the journal before.
        False: it was not level in time, or the journal could not be written; nothing was changed, and the writes go
        on."""
        try:
            async with self.holding([collection]):
                return await self._whole(self._note_and_change(collection, change, to))
        except NotLevel:
            return False

    async def _note_and_change(self, collection: str, change: Callable[[], None], to: StoreName | None) -> bool:
        if to is not None:
            before = self.parts.routes[collection].primary
            try:
                await self.parts.journal.set_primary(collection, str(to))
            except JournalError as error:
                self.parts.reporter.failed("journal", error)
                await self._take_back(collection, before)
                return False
        change()
        return True

    async def _take_back(self, collection: str, before: StoreName) -> None:
        """What could not be noted may have been noted all the same."""
        try:
            await self.parts.journal.set_primary(collection, str(before))
        except JournalError:
            self.parts.journal.doubt(collection)

    async def _whole(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Cancelling the caller cancels nothing of it, and the caller does not go before it has ended."""
        task = self.loop.create_task(work, name="shadow-flip")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # With its result, which nobody else asks for.
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _level(self, collection: str) -> None:
        """Returns when the journal holds nothing of the collection; the caller bounds the time. Looks often and asks
        for little: the other processes' writes, which it waits for, need the same journal."""
        looked = self.loop.time()
        await self.parts.journal.flush()
        while True:
            stats = await self.refresh()
            deferred = stats.deferred_by_collection.get(collection)
            if not deferred and not stats.open_by_collection.get(collection):
                return
            if deferred or self.loop.time() - looked > _ORPHANS:
                looked = self.loop.time()
                await self.follower.recover()
            await asyncio.sleep(_QUICK)

    async def close(self) -> None:
        """Drains within `limits.drain`; what is not done by then stays in the journal. No task outlives this."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_stores)
            stack.push_async_callback(self._end_tasks)
            stack.callback(self.reader.stop)
            stack.callback(self.lag.stop)
            stack.push_async_callback(self.reads.close, 0)
            drain = self.parts.limits.drain
            await asyncio.gather(self.forwarder.finish(drain), self.router.finish(drain))
            await self.writes.close(self.parts.limits.drain)
            self.follower.abandon()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        """The event loop is gone: leaves every write that was under way to its intent."""
        self.follower.abandon()
