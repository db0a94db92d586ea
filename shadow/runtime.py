"""What lives as long as one event loop: stores, work queues, replicator, reader, router, and the tasks that run
them."""

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
from shadow.model.schema import ExpirySpec
from shadow.observe.log import Event
from shadow.reads.loop_lag import LoopLag
from shadow.reads.percent_reads import PercentReads
from shadow.reads.shadow_read import ShadowReader
from shadow.reads.unconfirmed import MemoryUnconfirmed, UnconfirmedMismatches
from shadow.router import Router
from shadow.routes.forwarder import Forwarder, no_era
from shadow.routes.routes import Routes
from shadow.sessions import Sessions
from shadow.stores.base import Store
from shadow.stores.breaker import Breaker
from shadow.traces.spans import NO_TRACES, Traces
from shadow.writes.admission import Admission, OnUnfit
from shadow.writes.context import LoopContext
from shadow.writes.intents import FailurePolicy, Intents, OnFailure, OnGap, no_gap
from shadow.writes.replicator import Replicator
from shadow.writes.transactions import TransactionWrites
from shadow.writes.work_queue import WorkQueue

__all__ = ["Runtime", "RuntimeContext"]

_QUICK: Final = 0.01
"""Seconds between two reads of a journal that is to become empty."""
_ORPHANS: Final = 0.2
"""Seconds after which intents that stay open are checked for dead owners."""


@dataclass(frozen=True)
class RuntimeContext:
    """What outlives an event loop and is shared by the runtimes of a Shadow, one after the other. The engine builds
    it once, and it is passed whole."""

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
    """Called before a write without an intent."""
    on_journal: Callable[[bool], None] = lambda works: None
    """Called with whether the journal works."""
    on_unfit: OnUnfit = lambda collection, reason, advice: None
    """Called for a collection that cannot be written to both stores."""
    supervisor: Supervisor = field(default_factory=Supervisor)
    era: Callable[[str], str] = no_era
    """Names the period since both stores of a collection were written last, the same in all processes."""
    expiry: Callable[[str], ExpirySpec | None] = lambda collection: None
    """By which rule the documents of a collection expire."""
    traces: Traces = NO_TRACES


@dataclass
class Runtime:
    """Made inside its event loop, on first use; does no I/O until the first operation does."""

    loop: asyncio.AbstractEventLoop
    parts: RuntimeContext
    stores: Mapping[StoreName, Store]
    stats: JournalStats = field(default_factory=JournalStats)
    passive: bool = False
    """Whether it does only what it is asked: no recovery, no reads of the journal by itself."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _asked: bool = False
    """Whether the journal has ever returned its figures."""

    def __post_init__(self) -> None:
        parts = self.parts
        self.breakers = {name: self._breaker(name) for name in StoreName}
        self.lag = LoopLag(parts.limits.loop_lag)
        self.writes = self._queue(parts.limits.write_workers, parts.limits.write_queue)
        self.reads = self._queue(parts.limits.read_workers, parts.limits.read_queue)
        self.admission = Admission(self.stores.values(), parts.limits, parts.on_unfit)
        self.context = context = self._context()
        self.replicator = Replicator(context)
        self.reader = ShadowReader(context, parts.unconfirmed, parts.watch, lambda: self.lag.late)
        self.router = Router(
            context, self.replicator, self.reader, PercentReads(context, self._doubted), self.admission
        )
        writes = TransactionWrites(context, self.replicator, self.admission)
        self.sessions = Sessions(context, self.router, self.reader, writes)
        self.forwarder = Forwarder(self.stores[StoreName.MONGO], parts.routes, parts.reporter, parts.era, parts.traces)
        self._spawn(self._hold_stores(), "stores")
        if self.passive:
            return
        self.lag.start()
        self.keep(Background.RECOVERY, self.replicator.recover_forever)
        self.keep(Background.REFRESH, self._refresh_forever)
        self.keep(Background.CANARIES, self.reader.canaries.run)
        self.keep(Background.SUSPECTS, self.reader.revisit_forever)

    def _queue(self, workers: int, capacity: int) -> WorkQueue:
        reporter = self.parts.reporter
        return WorkQueue(
            workers=workers, capacity=capacity, on_error=lambda error: reporter.publish(ComponentFailed("lane", error))
        )

    def _context(self) -> LoopContext:
        parts = self.parts
        policy = FailurePolicy(parts.on_journal_failure, self._journal_changed, parts.on_gap)
        return LoopContext(
            stores=self.stores,
            breakers=self.breakers,
            writes=self.writes,
            reads=self.reads,
            intents=Intents(parts.journal, parts.limits, parts.reporter, policy=policy, reach=parts.reach),
            journal=parts.journal,
            routes=parts.routes,
            limits=parts.limits,
            reporter=parts.reporter,
            hasher=parts.hasher,
            excuses=parts.excuses,
            failpoints=parts.reach,
            expiry=parts.expiry,
            traces=parts.traces,
        )

    def _journal_changed(self, works: bool) -> None:
        self.parts.on_journal(works)
        self.parts.reporter.publish(noted(Event.JOURNAL_WORKING if works else Event.JOURNAL_FAILING))

    def _doubted(self, collection: str) -> bool:
        """Whether intents of the collection are known to be lost, or the journal has not answered yet."""
        return not self._asked or collection in self.stats.unclean or collection in self.parts.journal.doubted

    def _breaker(self, name: StoreName) -> Breaker:
        return Breaker(on_change=lambda up: self.parts.on_secondary(name, up))

    def keep(self, task: Background, work: Callable[[Turn], Awaitable[None]]) -> None:
        """Runs a task under supervision for as long as the runtime lives."""
        self._spawn(self.parts.supervisor.run(task, work), task)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts a task, with a strong reference, in a context of its own: the current one belongs to the
        application's first call and carries its time limit."""
        task = begin(work, name=f"shadow-{name}", context=Context(), failed=self._lost)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lost(self, error: BaseException) -> None:
        """Reports an error that no supervisor has caught: it ends the task for good."""
        self.parts.reporter.publish(ComponentFailed("background", error))

    async def _hold_stores(self) -> None:
        """Closes the stores when it is cancelled: by `close`, or by `asyncio.run` at the end of a loop that nobody
        closed, which is the last moment at which connections of that loop can be closed in order."""
        try:
            await asyncio.Event().wait()
        finally:
            # `asyncio.run` cancels the tasks that it sees: those started meanwhile would be destroyed with the loop.
            for lane in (self.reads, self.writes):
                await lane.cut_off()
            self.admission.stop()
            self.reader.stop()
            self.lag.stop()
            # Writes that were still queued: their intents would stay open until they expire.
            self.replicator.abandon()
            await self._close_stores()

    async def _close_stores(self) -> None:
        for store in self.stores.values():
            try:
                await store.close()
            except Exception as error:
                self.parts.reporter.publish(ComponentFailed("close", error))

    async def _refresh_forever(self, turn: Turn) -> None:
        """Keeps the journal's figures in memory: a scrape must not wait for a file."""
        while True:
            turn()
            await self.refresh()
            await asyncio.sleep(1.0)

    async def refresh(self) -> JournalStats:
        """Reads the figures of the journal. Raises `JournalError`; collections marked unverified in this process are
        known nevertheless."""
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
        """Whether a write is under way or being replicated, or a comparison is undecided."""
        return bool(self.router.writing or self.writes.depth or self.reads.depth or self.reader.waiting)

    @asynccontextmanager
    async def holding(self, collections: Sequence[str]) -> AsyncIterator[None]:
        """Pauses the collections' writes until the block ends. Entered when the secondary has caught up and no
        repair is under way. Raises `NotCaughtUp` if the secondary did not catch up within `limits.drain`, or a
        request to it was abandoned so recently that it may still arrive."""
        drain, routes = self.parts.limits.drain, self.parts.routes
        if not routes.known:
            await routes.learnt(writing=True)
        async with AsyncExitStack() as stack:
            # Every write of the application waits for this: nothing that can wait may delay it.
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
            in_flight = [name for name in collections if self.replicator.may_be_in_flight(name)]
            if in_flight:
                raise NotCaughtUp(f"{', '.join(in_flight)}: an abandoned request may still arrive")
            yield

    def _why_not_level(self, collections: Sequence[str]) -> str:
        text = f"the secondary did not catch up within {self.parts.limits.drain:g} s"
        refused = {name: count for name in collections if (count := self.stats.refused_by_collection.get(name))}
        if not refused:
            return text
        told = ", ".join(f"{count} documents of {name}" for name, count in refused.items())
        return f"{text}, and never will: it refuses {told} (shadow journal list)"

    async def _empty(self, collection: str) -> None:
        """Returns when neither work queue nor journal holds anything of it; the caller bounds the time."""
        if not await self.writes.drain(self.parts.limits.drain, collection):
            raise TimeoutError
        await self._level(collection)

    async def _level(self, collection: str) -> None:
        """Returns when the journal holds nothing of the collection; the caller bounds the time. Reads often but
        little: the other processes' writes, which it waits for, need the same journal."""
        looked = self.loop.time()
        await self.parts.journal.flush()
        while True:
            stats = await self.refresh()
            deferred = stats.deferred_by_collection.get(collection)
            if not deferred and not stats.open_by_collection.get(collection):
                return
            if deferred or self.loop.time() - looked > _ORPHANS:
                looked = self.loop.time()
                await self.replicator.recover()
            await asyncio.sleep(_QUICK)

    async def close(self) -> None:
        """Drains within `limits.drain`; what remains stays in the journal. No task outlives this."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_stores)
            stack.push_async_callback(self._end_tasks)
            stack.callback(self.admission.stop)
            stack.callback(self.reader.stop)
            stack.callback(self.lag.stop)
            stack.push_async_callback(self.reads.close, 0)
            drain = self.parts.limits.drain
            await asyncio.gather(self.forwarder.finish(drain), self.router.finish(drain), self.sessions.finish(drain))
            await self.writes.close(self.parts.limits.drain)
            self.replicator.abandon()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        """For an event loop that has ended: leaves every write under way to its intent."""
        self.replicator.abandon()
