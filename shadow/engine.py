"""The engine of a Shadow: builds and owns everything, and is the only place that picks concrete components."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from shadow.building import (
    EngineOptions,
    HandedClients,
    Observation,
    journal_name,
    make_journal,
    make_observation,
    make_stores,
    places,
)
from shadow.config import Settings
from shadow.errors import (
    ShadowClosed,
    ShadowError,
)
from shadow.fleet.context import FleetContext
from shadow.fleet.fleet import Fleet
from shadow.fleet.history import SharedHistory
from shadow.fleet.made_indexes import SharedIndexes
from shadow.fleet.portability import SharedPortability
from shadow.hooks.hooks import Hooks
from shadow.host.process import hold_lock, share_locks
from shadow.host.steady import steady
from shadow.host.supervisor import Supervisor, Turn
from shadow.model.background import Background
from shadow.model.events import ComponentFailed
from shadow.model.health import CollectionHealth
from shadow.model.hooks import HookEvent
from shadow.model.phase import Route, StoreName
from shadow.model.schema import ExpirySpec
from shadow.model.verdict import Mismatch
from shadow.notices import Notices
from shadow.observe.findings_file import shared_secret
from shadow.observe.gauges import GaugeSnapshot
from shadow.reloading import Reloading
from shadow.rights import RightsWatch, needs
from shadow.routes.routes import Routes, RouteSource
from shadow.routes.startup import StartupContext, StartupPrimary
from shadow.runtime import Runtime, RuntimeContext
from shadow.status import check, own_status
from shadow.stores.base import Store
from shadow.surface.indexing.index_report import IndexReport
from shadow.surface.indexing.index_upkeep import IndexUpkeep
from shadow.upkeep import Upkeep

__all__ = ["Engine"]

_DEFAULTS: Final = EngineOptions()


class Engine(Upkeep):
    """Everything behind a `Shadow`. Making one does no I/O and needs no event loop; it connects on first use."""

    def __init__(self, settings: Settings, database: Any, options: EngineOptions = _DEFAULTS) -> None:
        """`database`: the `Shadow` that this is the engine of."""
        clients = HandedClients.of(options, settings)
        seen = make_observation(settings, self._gauges, self._doubted, self._relayed)
        super().__init__(settings, clients, Notices(seen.report))
        self.database = database
        self.options = options
        self._closed = False
        self.excuses = seen.excuses
        self.metrics_registry = seen.metrics
        self.findings = seen.findings
        self.report = seen.report
        self.traces = seen.traces
        self.shared_findings = seen.shared_findings
        self.pulse = seen.pulse
        self.suspects = seen.unconfirmed
        self.supervisor = Supervisor(self.report.background_failed, self.report.background_works, options.reach)
        self.hooks = Hooks(settings.hook_list(), self.report)
        self.report.on_finding = self._found
        self.parts = self._context(seen)
        self.fleet = Fleet(self._fleet_context(), settings.routes(), settings.forced())
        self.portability = SharedPortability(
            self.report.portability, self.fleet.records, lambda: self.settings.control.keep_not_portable
        )
        self.history = SharedHistory(self.report.history, self.fleet.records)
        self.index_report = IndexReport(self.report, self._accepted_indexes)
        self.indexes = IndexUpkeep(
            self.specs,
            lambda: self.settings.specs(),
            lambda name: self.parts.routes[name],
            lambda: self.runtime().stores,
            self.index_report,
            SharedIndexes(self.fleet.records, self.report),
        )
        self.rights = RightsWatch(
            self._lacking_rights, lambda: needs(self.settings, self.routes()), self.notices.rights_lacking
        )
        self._startup = StartupPrimary(self._startup_context())
        share_locks(settings.host_file("lives"))
        self.reloading = Reloading(self, options.path)
        self.started = steady()

    def _context(self, seen: Observation) -> RuntimeContext:
        settings = self.settings
        routes = Routes(
            settings.routes(),
            on_change=self.report.routed,
            on_unknown=lambda collection: None,
            source=RouteSource(
                learn=lambda *, writing: self._startup.learn(writing=writing),
                on_unplaced=lambda collection: self.fleet.unplaced([collection]),
            ),
            patience=settings.limits.operation / 2,
            in_flight_timeout=settings.limits.in_flight_timeout,
        )
        return RuntimeContext(
            journal=make_journal(settings, self.notices.journal_damaged, self.supervisor),
            routes=routes,
            limits=settings.limits,
            reporter=self.report,
            hasher=seen.hasher,
            reach=self.options.reach,
            on_secondary=self.notices.secondary_changed,
            excuses=self.excuses,
            on_journal_failure=settings.journal.on_failure,
            watch=settings.observe.watch(),
            unconfirmed=self.suspects,
            on_gap=lambda name: self.fleet.gap(name),
            on_journal=lambda works: self.fleet.journal_works(works),
            supervisor=self.supervisor,
            on_unfit=self.notices.unfit,
            era=lambda name: self.fleet.era(name),
            expiry=self._expiry,
            traces=seen.traces,
        )

    def _startup_context(self) -> StartupContext:
        return StartupContext(
            self.parts.journal,
            self.parts.routes,
            self.fleet.kept,
            join=self.fleet.join,
            renew=self.fleet.participant.renew,
            patience=self.settings.limits.operation / 4,
            configured=self._configured,
            passive=self.options.passive,
            lenient=self.settings.journal.on_failure == "sync",
        )

    def _fleet_context(self) -> FleetContext:
        settings = self.settings
        return FleetContext(
            settings.control_place().open(),
            self.parts,
            current=self.runtime,
            figures=self.figures,
            journal=journal_name(settings),
            heartbeat=settings.control.heartbeat,
            tool=self.options.tool or self.options.passive,
            where=places(settings),
            ramps=settings.ramps(),
            watch=settings.flip.plan(),
            hooks=self.hooks,
            windows=self.metrics_registry.guards,
        )

    async def start(self) -> None:
        """Starts recovery and watches the configuration file in the running loop. First use does the same."""
        self._closed = False
        self.runtime()

    async def close(self) -> None:
        """Drains within `limits.drain` and ends everything that was started in the running loop; what remains stays
        in the journal. Where the primary is still being looked up, that has the same time again. Clients that were
        passed in stay open."""
        await self.calls.ended(self.settings.limits.drain)
        self._closed = True
        await self.fleet.participant.settled()
        runtime = self._runtimes.pop(asyncio.get_running_loop(), None)
        if runtime is not None:
            await runtime.close()
            await self.calls.cancel()
            await self._startup.end(self.settings.limits.drain)
            await self.shared_findings.save()
            if self.report.portability.waiting:
                await check(self.portability.exchange(ending=True))
            if not self.options.passive:
                await check(self.history.exchange(ending=True))
            self.report.say_held(ending=True)
            if not self._other_loops():
                self.metrics_registry.close()
                await self.fleet.participant.leave()
        await asyncio.to_thread(self.suspects.shut)
        await asyncio.to_thread(self.fleet.close)
        await asyncio.to_thread(self.parts.journal.shut)

    def runtime(self) -> Runtime:
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None:
            if self._closed:
                raise ShadowClosed("this Shadow is closed", hint="enter it again: `async with shadow:`")
            self._forget_dead_loops()
            self._share_secret()
            self._hold_lock()
            self.metrics_registry.open()
            # Routes that were read in another event loop may have changed since.
            self.parts.routes.forget()
            runtime = self._runtimes[loop] = Runtime(
                loop, self.parts, self._made_stores(), passive=self.options.passive
            )
            if self.options.path is not None:
                runtime.keep(Background.WATCH, self.reloading.watch)
            runtime.keep(Background.FLEET, self._belong)
            if not self.options.passive:
                runtime.keep(Background.PULSE, self.pulse.run)
                runtime.keep(Background.FLIPS, self.fleet.tend)
                runtime.keep(Background.GUARDS, self.fleet.guarding.run)
                runtime.keep(Background.RIGHTS, self.rights.run)
                self._keep_swept(runtime)
                self._keep_writers_watched(runtime)
                if not self.options.tool:
                    self._keep_writers_relayed(runtime)
        return runtime

    async def _belong(self, turn: Turn) -> None:
        """Takes part in the fleet until cancelled, by `close` or at the end of a loop that nobody closed. Each loop
        reads the routes again before its first write; the process leaves with its last loop."""
        try:
            while not await self._placed():
                turn()
                await asyncio.sleep(self.settings.control.heartbeat)
            await self.fleet.participant.run(turn)
        except ShadowClosed:
            # `close` has begun, and the heartbeat under way finds no runtime any more.
            return
        except asyncio.CancelledError:
            # Only then: a process whose heartbeat has failed still writes.
            if not self._closed and not self._other_loops():
                self.parts.routes.forget()
                await self.fleet.participant.leave()
            raise

    def _other_loops(self) -> bool:
        """Whether this Shadow is in use in another event loop too."""
        own = asyncio.get_running_loop()
        return any(each is not own and each.is_running() for each in list(self._runtimes))

    async def _configured(self) -> Mapping[str, Route]:
        """The routes that the configuration asks for at the start of an event loop. Unless another loop is running,
        the file is read first, as a new process would: a loop may end before the watch sees a change."""
        if self.options.path is not None and not self._other_loops():
            with suppress(OSError):
                text = await asyncio.to_thread(self.reloading.changed)
                if text is not None:
                    self.reloading.begin_with(text)
        return self.fleet.configured()

    async def _placed(self) -> bool:
        """Whether the routes are known, and this process is registered. An operation that comes first asks the same,
        and gets the error. A tool asks only when it needs it; where only one store is written, no operation waits
        for the fleet."""
        participant = self.fleet.participant
        with suppress(ShadowError):
            if not self.options.passive:
                await self.parts.routes.learnt(writing=True)
        return participant.joined

    def _found(self, found: Mismatch, id: str) -> None:
        about = {"collection": found.collection, "finding": id, "kind": found.kind, "verb": found.verb}
        self.hooks.send(HookEvent.NEW_FINDING, about)

    def _share_secret(self) -> None:
        """Makes hashes and findings comparable between the processes of one host, unless the file for it cannot be
        used."""
        if self.settings.observe.hash_secret is None and not self._runtimes:
            try:
                self.parts.hasher.adopt(shared_secret(self.settings.host_file("key")))
            except OSError as error:
                self.report.publish(ComponentFailed("report", error))

    def _hold_lock(self) -> None:
        """Called before this process signs anything: those who share the folder notice its death at once."""
        try:
            hold_lock(self.settings.host_file("lives"))
        except OSError as error:
            self.report.publish(ComponentFailed("report", error))

    def _forget_dead_loops(self) -> None:
        for loop in [each for each in self._runtimes if each.is_closed()]:
            self._runtimes.pop(loop).abandon()

    async def figures(self) -> Mapping[str, CollectionHealth]:
        """The figures of this process, for the gates of the fleet."""
        return (await own_status(self)).health()

    async def settled(self, timeout: float) -> bool:
        """Waits until work queues and journal are empty. False: they were not within `timeout` seconds."""
        runtime = self.runtime()
        try:
            async with asyncio.timeout(timeout):
                while self.calls.running or runtime.at_work or (await self._flushed(runtime)).open:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def _flushed(self, runtime: Runtime) -> Any:
        await self.parts.journal.flush()
        return await runtime.refresh()

    def _made_stores(self) -> dict[StoreName, Store]:
        """The stores of one event loop."""
        doubt = self.parts.journal.doubt
        return make_stores(self.settings, self.specs, self.clients, self.metrics_registry, self.notices, doubt)

    def _gauges(self) -> GaugeSnapshot:
        runtimes = [each for loop, each in self._runtimes.items() if not loop.is_closed()]
        runtime = runtimes[-1] if runtimes else None
        if runtime is None:
            return GaugeSnapshot(routes=self.routes())
        stats = runtime.stats
        names = {*stats.open_by_collection, *stats.deferred_by_collection}
        return GaugeSnapshot(
            open_intents={
                each: stats.open_by_collection.get(each, 0) + stats.deferred_by_collection.get(each, 0)
                for each in names
            },
            oldest_intent_seconds=stats.oldest_age,
            lane_depth=runtime.writes.depth + runtime.reads.depth,
            lane_capacity=runtime.writes.capacity + runtime.reads.capacity,
            routes=self.routes(),
            secondary_up={name: breaker.closed for name, breaker in runtime.breakers.items()},
            canary_found=runtime.reader.canaries.last_found(),
            comparison_working=runtime.reader.canaries.working(),
            mismatches_by_path=self.findings.by_path(),
            relay_lag={name: each.status().behind for name, each in self.relays.items()},
            background_down=self.supervisor.down.keys(),
            **self.fleet.gauges(),
        )

    def _expiry(self, collection: str) -> ExpirySpec | None:
        spec = self.specs.get(collection)
        return None if spec is None else spec.expiry

    def _accepted_indexes(self, collection: str) -> Collection[str]:
        """The indexes of MongoDB whose loss the configuration acknowledges."""
        entry = self.settings.collections.get(collection)
        return () if entry is None else entry.accept_lost_indexes

    def _relayed(self, collection: str) -> bool:
        """Whether out-of-band writes to the primary of the collection are relayed."""
        relay = self.relays.get(self.parts.routes[collection].primary)
        return relay is not None and relay.reads(collection)

    def _doubted(self, collection: str) -> bool:
        """Whether intents of the collection are known to be lost, as of the last read of the journal."""
        unclean = (each.stats.unclean for each in self._runtimes.values())
        return collection in self.parts.journal.doubted or any(collection in each for each in unclean)
