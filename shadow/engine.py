"""The engine of a Shadow: builds and owns everything. The only place that picks concrete parts."""

from __future__ import annotations

import asyncio
import difflib
import functools
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS
from pymongo.errors import DuplicateKeyError, PyMongoError

from shadow.building import admitted, journal_name, make_journal, places
from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.config import Settings
from shadow.errors import (
    ShadowClosed,
    ShadowError,
    StoreUnavailable,
    UnsupportedOperation,
)
from shadow.fleet.fleet import Fleet
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.host.process import hold_lock, share_locks
from shadow.host.steady import steady
from shadow.host.supervisor import Supervisor, Turn
from shadow.jobs.target import JobRefused
from shadow.journal.server.remote import RemoteJournal
from shadow.journal.sqlite.recovery import Salvage
from shadow.model.background import Background
from shadow.model.events import ComponentFailed, JournalRecovered, noted
from shadow.model.health import CollectionHealth
from shadow.model.phase import Route, StoreName
from shadow.model.schema import CollectionSpec
from shadow.observe.findings import Findings
from shadow.observe.findings_file import FindingsFile, SharedFindings, shared_secret
from shadow.observe.gauges import GaugeSnapshot
from shadow.observe.log import Event
from shadow.observe.metrics import Metrics
from shadow.observe.mismatch_file import MismatchFile
from shadow.observe.pulse import PeriodicTasks
from shadow.observe.report import Report
from shadow.reads.bypass_watch import WriterWatch
from shadow.reads.unconfirmed import SharedUnconfirmed
from shadow.reloading import Reloading
from shadow.rights import LackedRights, RightsWatch, ask, needs
from shadow.router import Router
from shadow.routes.forwarder import Forwarder, Passage, expected
from shadow.routes.routes import Routes
from shadow.routes.startup import StartupPrimary
from shadow.runtime import Runtime, Shared
from shadow.status import own_status
from shadow.stores.base import Judging, Store
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.dynamo.write.sweeping import sweep_forever
from shadow.stores.mongo.kinds import expiring_in_two_stores
from shadow.stores.mongo.store import MongoStore, collection_class, connect, driver_of
from shadow.surface.forwarded import ForwardedCollection
from shadow.surface.index_upkeep import IndexUpkeep
from shadow.surface.options import ClientDefaults, kept_by_client, kept_by_url
from shadow.surface.routed import RoutedCollection
from shadow.surface.ways_around import refuse_past

if TYPE_CHECKING:
    pass

__all__ = ["Engine"]


class Engine:
    """What is behind a `Shadow`. Making one does no I/O and needs no event loop; it connects on first use."""

    def __init__(
        self,
        settings: Settings,
        database: Any,
        *,
        path: Path | None = None,
        mongo_client: Any = None,
        dynamo_client: Any = None,
        reach: Failpoints = no_failpoint,
        resting: bool = False,
        tool: bool = False,
    ) -> None:
        """`tool`: it is beside an application, and its word on the routing does not count; `resting`: a tool that does
        nothing by itself, no recovery and no watching."""
        self.settings = settings
        self._resting = resting
        self.writer_watch: WriterWatch | None = None
        self._told_raised = False
        self._told_unfit: set[tuple[str, str]] = set()
        self._told_expiring: set[str] = set()
        self._path = path
        self._given = None if mongo_client is None else admitted(mongo_client, settings)
        self._mongo_client = None if self._given is None else self._given.client
        self._dynamo_client = dynamo_client
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._closed = False
        self.database = database
        self._handed_in: Any = None
        self._kind: type[Any] | None = None
        self._kept_by_url: ClientDefaults | None = None
        self._noticed: set[str] = set()
        self.specs = dict(settings.specs())
        secret = settings.observe.hash_secret
        hasher = Hasher(secret.get_secret_value().encode() if secret is not None else b"")
        self.excuses = Excuses(settings.rules())
        mismatches = MismatchFile(settings.host_file("findings"), earlier=settings.host_file("suspects"))
        self.suspects = SharedUnconfirmed(mismatches)
        self.metrics_registry = Metrics(settings.collections, tables=self._tables(), rules=self.excuses.names())
        self.findings = Findings(hasher, reveal_keys=settings.observe.reveal_keys, notes=True)
        self.report = Report(
            self.metrics_registry, self.findings, hasher=hasher, reveal_keys=settings.observe.reveal_keys
        )
        self.metrics_registry.bind(self._gauges)
        self.metrics_registry.on_failure = self.report.failed
        self.shared_findings = SharedFindings(
            self.findings,
            FindingsFile(mismatches, reveal_keys=settings.observe.reveal_keys),
            lambda error: self.report.publish(ComponentFailed("report", error)),
        )
        self.pulse = PeriodicTasks(self.metrics_registry, self.shared_findings, self.report.say_held)
        self.supervisor = Supervisor(self.report.background_failed, self.report.background_works, reach)
        self.report.doubted = self._doubted
        self.parts = Shared(
            journal=make_journal(settings, self._journal_damaged, self.supervisor),
            routes=Routes(
                settings.routes(),
                on_change=self.report.routed,
                on_unknown=lambda collection: None,
                on_unplaced=lambda collection: self.fleet.unplaced([collection]),
                patience=settings.limits.operation / 2,
                straggle=settings.limits.straggle,
            ),
            limits=settings.limits,
            reporter=self.report,
            hasher=hasher,
            reach=reach,
            on_secondary=self._secondary_changed,
            excuses=self.excuses,
            on_journal_failure=settings.journal.on_failure,
            watch=settings.observe.watch(),
            unconfirmed=self.suspects,
            on_gap=lambda name: self.fleet.gap(name),
            on_journal=lambda works: self.fleet.journal_works(works),
            supervisor=self.supervisor,
            on_unfit=self._unfit,
        )
        self.fleet = Fleet(
            settings.control_place().open(),
            self.parts,
            settings.routes(),
            current=self.runtime,
            figures=self.figures,
            journal=journal_name(settings),
            heartbeat=settings.control.heartbeat,
            tool=tool or resting,
            where=places(settings),
        )
        self.fleet.wishes(settings.routes(), settings.forced())
        self.indexes = IndexUpkeep(
            self.specs,
            lambda: self.settings.specs(),
            lambda name: self.parts.routes[name],
            lambda: self.runtime().stores,
            self.report,
        )
        self.rights = RightsWatch(self._lacking_rights, lambda: needs(self.settings, self.routes()), self._rights_lack)
        self._roles = StartupPrimary(
            self.parts.journal,
            self.parts.routes,
            self.fleet.kept,
            join=self.fleet.join,
            renew=self.fleet.participant.renew,
            patience=settings.limits.operation / 4,
            configured=self._configured,
            resting=resting,
            lenient=settings.journal.on_failure == "sync",
        )
        share_locks(settings.host_file("lives"))
        self.reloading = Reloading(self, path)
        self.started = steady()

    # --- making -------------------------------------------------------------------------------------------------

    # --- Motor's database ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.settings.mongo.database

    database_name = name

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The collection; may be called at import time. What follows the name is for its `with_options`.

        A configured name gives a `Collection`; any other name gives the driver's own collection, as it is.
        """
        spec = self.specs.get(name)
        made: RoutedCollection | ForwardedCollection
        if spec is None:
            self._notice(name)
            made = ForwardedCollection(name, self)
        else:
            kept = self.kept().codec_options
            made = RoutedCollection(spec, self, options=None if kept == DEFAULT_CODEC_OPTIONS else kept)
        return made.with_options(*arguments, **options) if arguments or options else made

    def _notice(self, name: str) -> None:
        """Says once of a name that is not configured, and nearly is, that it goes to MongoDB alone."""
        if name in self._noticed or len(self._noticed) >= _NAMES or not isinstance(name, str):
            return
        self._noticed.add(name)
        by_small = {each.casefold(): each for each in self.specs}
        near = difflib.get_close_matches(name.casefold(), by_small, n=1, cutoff=0.85)
        if near:
            self.report.publish(noted(Event.COLLECTION_UNCONFIGURED, collection=name, meant=by_small[near[0]]))

    def kept(self) -> ClientDefaults:
        """What the client of MongoDB keeps for every read and write."""
        if self._given is not None:
            return kept_by_client(self._given.database if self._given.database is not None else self._given.client)
        if self._kept_by_url is None:
            self._kept_by_url = kept_by_url(self.settings.mongo.url.get_secret_value())
        return self._kept_by_url

    # --- what is the driver's own

    def driver(self) -> Any:
        """The driver's database object for the running event loop, past everything else. Raises `ShadowClosed`,
        RuntimeError where there is no event loop and no client was handed in, `StoreUnavailable` if nothing is said of
        a MongoDB."""
        if self._mongo_client is not None:
            if self._handed_in is None:
                assert self._given is not None
                self._handed_in = self._mongo_client.get_database(self.name, **self._given.options)
            return self._handed_in
        if not self.needs_mongo() and "url" not in self.settings.mongo.model_fields_set:
            raise StoreUnavailable(
                "the configuration says of no MongoDB where it is, and no configured collection is on one",
                hint="name the collection under `collections`, or set `mongo.url`",
            )
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, MongoStore)
        return store.driver

    def driver_kind(self) -> type[Any]:
        """The class of the driver's collections."""
        if self._kind is None:
            client = self._mongo_client
            self._kind = collection_class(self.settings.mongo.driver if client is None else driver_of(client))
        return self._kind

    def driver_option(self, name: str) -> Any:
        """What the client of MongoDB keeps, by name: `codec_options`, `read_concern`, ..."""
        return getattr(self.kept(), name)

    def needs_mongo(self) -> bool:
        """Whether a configured collection has MongoDB as one of its stores."""
        routes = self.parts.routes
        for name in self.specs:
            route = routes[name]
            if route.primary is StoreName.MONGO or route.dual_write:
                return True
        return not self.specs

    def configured(self) -> Collection[str]:
        """The names of the configured collections."""
        return self.specs

    def is_forwarded(self, collection: str) -> bool:
        """Whether a collection is MongoDB's alone, without a trace of another store."""
        return collection not in self.specs or self.expected(collection) is Passage.OWN

    def reserved_of(self, collection: str) -> str:
        """The field of the version in a configured collection."""
        return self.specs[collection].reserved

    def is_on_mongo(self, collection: str) -> bool:
        """Whether MongoDB is the primary of a configured collection."""
        return self.parts.routes[collection].primary is StoreName.MONGO

    def expected(self, collection: str) -> Passage:
        """How a call of a configured collection would be made by what is known now."""
        return expected(self.parts.routes, collection)

    def forwarder(self) -> Forwarder:
        """That of the running event loop, made on first use."""
        return self.runtime().forwarder

    async def gated(self, collection: str, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a write to a collection, during which its phase does not change. Raises UnsupportedOperation, with
        `what`, if it is configured and not MongoDB's alone."""
        if collection not in self.specs:
            if collection:
                await self.enter([collection])
            return await call()

        def made(passage: Passage) -> Awaitable[Any]:
            refuse_past(self, [collection] if passage is not Passage.OWN else [], what)
            return call()

        passage, answer = await self.forwarder().write(collection, None, made)
        refuse_past(self, [collection] if passage is Passage.VERSIONED else [], what)
        return answer

    def has_entered(self) -> bool:
        """Whether the fleet knows of this process, in the running event loop, and nothing is to be asked now before a
        write to a collection that is not configured."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        return loop in self._runtimes and self.fleet.has_entered()

    async def enter(self, collections: Collection[str]) -> None:
        """Returns when `has_entered`, or MongoDB keeps a sign of what is about to be written. Raises `ControlError`,
        `JournalError`, `ShadowClosed`."""
        self.runtime()
        await self.fleet.enter(collections)

    # --- life ---------------------------------------------------------------------------------------------------

    def current(self) -> Router:
        """The router of the running event loop, made on first use."""
        return self.runtime().router

    async def start(self) -> None:
        """Begins recovery and the watch over the configuration file in the running loop. First use does the same."""
        self._closed = False
        self.runtime()

    async def close(self) -> None:
        """Drains within `limits.drain` and ends everything that was started in the running loop; what was not done
        stays in the journal. Where it is still being learnt which store is primary, that has as long once more. Clients
        that were handed in stay open."""
        self._closed = True
        await self.fleet.participant.settled()
        runtime = self._runtimes.pop(asyncio.get_running_loop(), None)
        if runtime is not None:
            await runtime.close()
            await self._roles.end(self.settings.limits.drain)
            await self.shared_findings.save()
            self.report.say_held(ending=True)
            if not self._other_loops():
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
            # What was agreed on in another event loop may have changed since.
            self.parts.routes.forget()
            runtime = self._runtimes[loop] = Runtime(loop, self.parts, self._make_stores(), resting=self._resting)
            runtime.forwarder.begin_with(self.fleet.era)
            if self._path is not None:
                runtime.keep(Background.WATCH, self.reloading.watch)
            runtime.keep(Background.FLEET, self._belong)
            if not self._resting:
                runtime.keep(Background.PULSE, self.pulse.run)
                runtime.keep(Background.FLIPS, self.fleet.tend)
                runtime.keep(Background.RIGHTS, self.rights.run)
                self._keep_swept(runtime)
                self._keep_writers_watched(runtime)
        return runtime

    async def _belong(self, turn: Turn) -> None:
        """Takes part in the fleet until cancelled: by `close`, or at the end of a loop that nobody closed. Each loop
        learns again where the fleet stands before its first write; the process leaves with the last of them."""
        try:
            while not await self._placed():
                turn()
                await asyncio.sleep(self.settings.control.heartbeat)
            await self.fleet.participant.run(turn)
        except ShadowClosed:
            # `close` has begun, and the sign of life that was under way finds no runtime to ask any more.
            return
        except asyncio.CancelledError:
            # Only then: a process that has failed to give a sign of life still writes.
            if not self._closed and not self._other_loops():
                self.parts.routes.forget()
                await self.fleet.participant.leave()
            raise

    def _other_loops(self) -> bool:
        """Whether this Shadow is in use in another event loop too."""
        own = asyncio.get_running_loop()
        return any(each is not own and each.is_running() for each in list(self._runtimes))

    async def _configured(self) -> Mapping[str, Route]:
        """What the configuration asks for as an event loop begins. Where no other one is at work, the file is looked
        at before, as a process that starts would: a loop may be shorter than the watch over the file takes."""
        if self._path is not None and not self._other_loops():
            with suppress(OSError):
                text = await asyncio.to_thread(self.reloading.changed)
                if text is not None:
                    self.reloading.begin_with(text)
        return self.fleet.configured()

    async def _placed(self) -> bool:
        """Whether it is known where the fleet stands, and the fleet knows of this process. An operation that comes
        first asks the same, and hears what is wrong. A tool asks only when it needs it; where one store is written
        alone, no operation waits for the fleet."""
        participant = self.fleet.participant
        with suppress(ShadowError):
            if not self._resting:
                await self.parts.routes.learnt(writing=True)
        return participant.joined

    def _keep_writers_watched(self, runtime: Runtime) -> None:
        """Watches for writers that go past the shim, where the configuration asks for it."""
        store = runtime.stores[StoreName.MONGO]
        if not self.settings.observe.watch_writers or not isinstance(store, MongoStore):
            return
        parts = self.parts
        watch = self.writer_watch = WriterWatch(
            store.bare_writes,
            runtime.stores,
            lambda name: parts.routes[name],
            parts.journal,
            parts.limits,
            self.report.watched,
            self.report.failed,
        )
        runtime.keep(Background.WRITERS, watch.run)

    def _keep_swept(self, runtime: Runtime) -> None:
        """Has parts of large documents that a crash left on DynamoDB deleted, as long as the runtime lives."""
        store, every = runtime.stores[StoreName.DYNAMO], self.settings.dynamo.sweep_every
        if not every or not isinstance(store, DynamoStore):
            return

        def in_use() -> list[str]:
            routes = self.routes().items()
            return [name for name, each in routes if each.dual_write or each.primary is StoreName.DYNAMO]

        def failed(error: Exception) -> None:
            self.report.publish(ComponentFailed("sweep", error))

        def swept(collection: str, deleted: int) -> None:
            self.report.publish(noted(Event.TABLE_SWEPT, collection=collection, deleted=deleted))

        runtime.keep(Background.SWEEP, lambda turn: sweep_forever(store, in_use, every, failed, swept, turn))

    def _share_secret(self) -> None:
        """Hashes and findings of the processes of one host compare, unless the file for it cannot be had."""
        if self.settings.observe.hash_secret is None and not self._runtimes:
            try:
                self.parts.hasher.adopt(shared_secret(self.settings.host_file("key")))
            except OSError as error:
                self.report.publish(ComponentFailed("report", error))

    def _hold_lock(self) -> None:
        """Before anything is signed by this process: those who share the folder know at once when it has died."""
        try:
            hold_lock(self.settings.host_file("lives"))
        except OSError as error:
            self.report.publish(ComponentFailed("report", error))

    def _forget_dead_loops(self) -> None:
        for loop in [each for each in self._runtimes if each.is_closed()]:
            self._runtimes.pop(loop).abandon()

    def _make_stores(self) -> dict[StoreName, Store]:
        mongo, limit = self.settings.mongo, self.settings.limits.operation
        client = self._mongo_client or connect(mongo.url.get_secret_value(), mongo.driver)
        owned = self._mongo_client is None
        store = MongoStore(
            client,
            mongo.database,
            self.specs,
            owned=owned,
            operation_limit=limit,
            again=lambda: connect(mongo.url.get_secret_value(), mongo.driver),
            weak_writes=mongo.weak_writes,
            on_raised=self._raised,
            on_doubt=self.parts.journal.doubt,
            options={} if self._given is None else self._given.options,
        )
        dynamo = DynamoStore(
            self.settings.dynamo,
            self.specs,
            client=self._dynamo_client,
            database=mongo.database,
            on_capacity=self.metrics_registry.capacity,
            on_scan=self.metrics_registry.scanned,
            on_throttled=self.metrics_registry.throttled,
            on_lacking=self._lacking,
            operation_limit=limit,
        )
        for each in (store, dynamo):
            each.link.calls.on_abandoned = self.metrics_registry.abandoned[each.name]
            each.link.on_stuck = functools.partial(self._client_stuck, each.name)
        return {StoreName.MONGO: store, StoreName.DYNAMO: dynamo}

    def _client_stuck(self, store: StoreName, replaced: bool) -> None:
        self.metrics_registry.stuck[store]()
        advice = (
            "another was made in its place"
            if replaced
            else "it was handed in, so it stays: restart the process, or let shadow make its own"
        )
        self.report.publish(noted(Event.CLIENT_STUCK, store=str(store), advice=advice))

    def _raised(self, asked: str) -> None:
        """Said once, however many event loops come and go."""
        if not self._told_raised:
            self._told_raised = True
            self.report.publish(noted(Event.WRITES_RAISED, detail=f"{asked} could be rolled back: w=majority instead"))

    def _unfit(self, collection: str, reason: str, advice: str) -> None:
        """Said once, however many event loops come and go."""
        if (collection, reason) not in self._told_unfit:
            self._told_unfit.add((collection, reason))
            self.report.publish(noted(Event.COLLECTION_REFUSED, collection=collection, reason=reason, advice=advice))

    async def _lacking_rights(self) -> list[LackedRights]:
        """What the users of MongoDB may not do and would have to. Looks for documents that expire on the way."""
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, MongoStore)
        link, handed = store.link, self._mongo_client is not None
        found = await ask(self.settings, self.routes(), lambda name: link.database(name, own=True), handed_in=handed)
        await self._look_for_expiry()
        return found

    async def _look_for_expiry(self) -> None:
        """Says once of each collection that is written twice whether MongoDB deletes documents of it by itself. What
        the server does not answer now is asked with the next look at the rights."""
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, MongoStore)
        for name, route in self.routes().items():
            if not route.dual_write or name in self._told_expiring:
                continue
            with suppress(PyMongoError, TimeoutError):
                fields = await store.expiring(name)
                self._told_expiring.add(name)
                if fields:
                    detail = expiring_in_two_stores(route.primary is StoreName.MONGO)
                    self.report.publish(
                        noted(
                            Event.COLLECTION_EXPIRING,
                            collection=name,
                            path=", ".join(fields),
                            detail=detail.why,
                            advice=detail.next,
                        )
                    )

    def _rights_lack(self, found: LackedRights) -> None:
        self.report.publish(
            noted(
                Event.RIGHTS_LACKING if found.stops else Event.RIGHTS_LACKING_FOR_JOBS, store="mongo", detail=str(found)
            )
        )

    def _lacking(self, table: str, text: str) -> None:
        self.report.publish(noted(Event.TABLE_LACKING, table=table, detail=text))

    # --- what operators ask for ---------------------------------------------------------------------------------

    async def prepare(self, *, journal: bool = True) -> None:
        """Makes the tables and indexes of the configured collections that are missing, on both stores, and what a
        journal on a server is kept in (unless told not to). What the server does not have of what the configuration
        wants of a table is logged. Raises `StoreUnavailable` naming the store that could not, `JournalError`, and
        `UnsupportedOperation` for a collection that is to be written to both stores and cannot be."""
        if journal and isinstance(self.parts.journal, RemoteJournal):
            await self.parts.journal.prepare(self.settings.dynamo.prepare_timeout)
        await asyncio.to_thread(self.fleet.prepare)
        stores = self.runtime().stores
        fit = await self._fit(stores[StoreName.MONGO])
        for name, store in stores.items():
            try:
                await store.prepare(fit if name is StoreName.MONGO else self.specs.values())
            except ShadowError:
                raise
            except DuplicateKeyError as error:
                raise StoreUnavailable(
                    f"{name}: a unique index cannot be made, for there are duplicates",
                    hint="settle them first: group over the fields of `unique`",
                ) from error
            except Exception as error:
                raise _not_prepared(name, error) from error

    async def _fit(self, store: Store) -> list[CollectionSpec]:
        """The collections that can be prepared on a store: one that it has, and that cannot be written to both, is left
        as it is while it is in phase off."""
        routes, fit = self.settings.routes(), []
        for name, spec in self.specs.items():
            unfit = None
            if isinstance(store, Judging):
                try:
                    unfit = await store.look(name)
                except PyMongoError as error:
                    raise _not_prepared(store.name, error) from error
            if unfit is None:
                fit.append(spec)
            elif routes[name].dual_write:
                raise unfit.error()
            else:
                self._unfit(name, unfit.reason, unfit.advice)
        return fit

    async def check_kind(self, collection: str) -> None:
        """Looks at what a collection is on each store now. Raises `JobRefused` if both cannot be held level, and what
        the driver raises."""
        try:
            await self.runtime().admission.look(collection)
        except UnsupportedOperation as error:
            raise JobRefused(error.message, hint=error.hint) from error

    async def figures(self) -> Mapping[str, CollectionHealth]:
        """The health of this process's collections, for the gates of the fleet."""
        return (await own_status(self)).health()

    def routes(self) -> dict[str, Route]:
        return self.parts.routes.all()

    async def settled(self, timeout: float) -> bool:
        """Waits until lanes and journal are empty. False: they were not within `timeout` seconds."""
        runtime = self.runtime()
        try:
            async with asyncio.timeout(timeout):
                while runtime.at_work or (await self._flushed(runtime)).open:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def _flushed(self, runtime: Runtime) -> Any:
        await self.parts.journal.flush()
        return await runtime.refresh()

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
            background_down=self.supervisor.down.keys(),
            **self.fleet.gauges(),
        )

    def _doubted(self, collection: str) -> bool:
        """Whether intents of the collection are known to be lost, as far as the last look at the journal says."""
        unclean = (each.stats.unclean for each in self._runtimes.values())
        return collection in self.parts.journal.doubted or any(collection in each for each in unclean)

    def _secondary_changed(self, name: StoreName, up: bool) -> None:
        self.report.publish(noted(Event.SECONDARY_UP if up else Event.SECONDARY_DOWN, store=str(name)))

    def _journal_damaged(self, found: Salvage) -> None:
        self.metrics_registry.surely(JournalRecovered())
        self.report.publish(
            noted(
                Event.JOURNAL_DAMAGED, path=str(found.kept), entries=found.entries, collections=len(found.collections)
            )
        )

    def _tables(self) -> dict[str, list[str]]:
        prefix = self.settings.dynamo.table_prefix
        return {f"{prefix}{name}": [each.name for each in spec.indexes] for name, spec in self.specs.items()}

    # --- reloading ----------------------------------------------------------------------------------------------


_NAMES = 10_000
"""Names of collections that are remembered as said something of."""


def _not_prepared(store: StoreName, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{store}: tables and indexes could not be made ({type(error).__name__})",
        hint="check that the store runs and that the credentials may create tables",
    )
