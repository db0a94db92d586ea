"""What lives as long as one event loop: stores, lanes, follower, reader, router, and the tasks that keep them going."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.errors import NotCaughtUp
from shadow.host.failpoints import Failpoints
from shadow.host.supervisor import Supervisor, Turn
from shadow.host.tasks import begin
from shadow.journal.base import Journal, JournalStats
from shadow.model.background import Background
from shadow.model.events import ComponentFailed, Reporter, noted
from shadow.model.limits import Limits, Watch
from shadow.model.phase import StoreName
from shadow.observe.log import Event
from shadow.reads.loop_lag import LoopLag
from shadow.reads.percent_reads import PercentReads
from shadow.reads.shadow_read import ShadowReader
from shadow.reads.unconfirmed import MemoryUnconfirmed, UnconfirmedMismatches
from shadow.router import Router
from shadow.routes.forwarder import Forwarder
from shadow.routes.routes import Routes
from shadow.stores.base import Store
from shadow.stores.breaker import Breaker
from shadow.writes.admission import Admission, OnUnfit
from shadow.writes.intents import Intents, OnFailure, OnGap, no_gap
from shadow.writes.replicator import Replicator
from shadow.writes.work_queue import WorkQueue

__all__ = ["Runtime", "Shared"]

_QUICK: Final = 0.01
"""Seconds between two looks at a journal that is to become empty."""
_ORPHANS: Final = 0.2
"""Seconds after which what stays open is asked for whether its process has died."""


@dataclass(frozen=True)
class Shared:
    """What outlives an event loop and is shared by the runtimes of a Shadow, one after the other."""

    journal: Journal
    routes: Routes
    limits: Limits
    reporter: Reporter
    hasher: Hasher
    reach: Failpoints
    on_secondary: Callable[[StoreName, bool], None]
    excuses: Excuses = field(default_factory=Excuses)
    on_journal_failure: OnFailure = OnFailure.REFUSE
    watch: Watch = field(default_factory=Watch)
    unconfirmed: UnconfirmedMismatches = field(default_factory=MemoryUnconfirmed)
    on_gap: OnGap = no_gap
    """Asked before a write without an intent."""
    on_journal: Callable[[bool], None] = lambda works: None
    """Told whether the journal works."""
    on_unfit: OnUnfit = lambda collection, reason, advice: None
    """Told of a collection that cannot be written to both stores."""
    supervisor: Supervisor = field(default_factory=Supervisor)


@dataclass
class Runtime:
    """Made inside its event loop, on first use; does no I/O until the first operation does."""

    loop: asyncio.AbstractEventLoop
    parts: Shared
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
        self.writes = WorkQueue(
            workers=limits.write_workers,
            capacity=limits.write_queue,
            on_error=lambda error: parts.reporter.publish(ComponentFailed("lane", error)),
        )
        self.reads = WorkQueue(
            workers=limits.read_workers,
            capacity=limits.read_queue,
            on_error=lambda error: parts.reporter.publish(ComponentFailed("lane", error)),
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
        self.follower = Replicator(
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
            unconfirmed=parts.unconfirmed,
            watch=parts.watch,
            routes=parts.routes.all,
            late=lambda: self.lag.late,
        )
        self.admission = Admission(self.stores.values(), limits, parts.on_unfit)
        percent = PercentReads(
            self.stores, self.breakers, parts.journal, self.writes, limits, parts.reporter, unverified=self._doubted
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
            self.admission,
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

    def _journal_changed(self, works: bool) -> None:
        self.parts.on_journal(works)
        self.parts.reporter.publish(noted(Event.JOURNAL_WORKING if works else Event.JOURNAL_FAILING))

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
        task = begin(work, name=f"shadow-{name}", context=Context(), failed=self._lost)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lost(self, error: BaseException) -> None:
        """What no supervisor has caught ends its task for good, and must not do so in silence."""
        self.parts.reporter.publish(ComponentFailed("background", error))

    async def _hold_stores(self) -> None:
        """Closes the stores when it is cancelled: by `close`, or by `asyncio.run` at the end of a loop that nobody
        closed, which is the last moment at which connections of that loop can be ended in order."""
        try:
            await asyncio.Event().wait()
        finally:
            # `asyncio.run` cancels the tasks that it sees: those that begin meanwhile would be destroyed with the loop.
            for lane in (self.reads, self.writes):
                await lane.cut_off()
            self.admission.stop()
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
                self.parts.reporter.publish(ComponentFailed("close", error))

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
            since = dt.datetime.fromtimestamp(self.stats.unclean[collection], dt.UTC).isoformat(timespec="seconds")
            self.parts.reporter.publish(noted(Event.JOURNAL_UNCLEAN, collection=collection, since=since))

    @property
    def at_work(self) -> bool:
        """Whether a write is being followed, or a comparison is not yet decided."""
        return bool(self.writes.depth or self.reads.depth or self.reader.waiting)

    @asynccontextmanager
    async def holding(self, collections: Sequence[str]) -> AsyncIterator[None]:
        """Holds the collections' writes; entered when the secondary is level and no heal is under way, and left when
        the block ends. Raises `NotCaughtUp` if the secondary was not level within `limits.drain`, or a request to it
        was given up on so lately that it may still arrive."""
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
                raise NotCaughtUp(self._why_not_level(collections)) from None
            straggling = [name for name in collections if self.follower.may_straggle(name)]
            if straggling:
                raise NotCaughtUp(f"{', '.join(straggling)}: a request that was given up on may still arrive")
            yield

    def _why_not_level(self, collections: Sequence[str]) -> str:
        text = f"the secondary was not level within {self.parts.limits.drain:g} s"
        refused = {name: count for name in collections if (count := self.stats.refused_by_collection.get(name))}
        if not refused:
            return text
        told = ", ".join(f"{count} documents of {name}" for name, count in refused.items())
        return f"{text}, and never will be: it refuses to hold {told} (shadow journal list)"

    async def _empty(self, collection: str) -> None:
        """Returns when neither lane nor journal holds anything of it; the caller bounds the time."""
        if not await self.writes.drain(self.parts.limits.drain, collection):
            raise TimeoutError
        await self._level(collection)

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
            stack.callback(self.admission.stop)
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
