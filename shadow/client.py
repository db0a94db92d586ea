"""Shadow: builds and owns everything. The only place that picks concrete parts."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import difflib
import functools
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from bson.codec_options import DEFAULT_CODEC_OPTIONS
from pymongo.errors import DuplicateKeyError

from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.concerns import Kept, kept_by_client, kept_by_url
from shadow.config import Settings, load, parse, revealed, where
from shadow.errors import (
    ConfigurationError,
    Fault,
    ShadowClosed,
    ShadowError,
    StoreUnavailable,
    UnsupportedOperation,
)
from shadow.fleet import Fleet
from shadow.forwarded import NOT_COLLECTIONS, DriverDatabase, ForwardedCollection, refuse_past
from shadow.forwarder import Forwarder, Passage, expected
from shadow.host.process import hold_lock, share_locks
from shadow.indexes import Wanted, index_not_found, is_not_found
from shadow.migrate.sides import JobRefused, Sides
from shadow.model.background import Background
from shadow.model.phase import Phase, Route, StoreName, neighbours
from shadow.model.schema import CollectionSpec
from shadow.model.verdict import Healing
from shadow.model.version import Image
from shadow.observe.findings import Findings
from shadow.observe.findings_file import FindingsFile, SharedFindings, shared_secret
from shadow.observe.judge import figures, verdict
from shadow.observe.log import Event
from shadow.observe.metrics import GaugeSnapshot, Metrics
from shadow.observe.pulse import Pulse
from shadow.observe.report import Report
from shadow.replicate.inspection import Explanation, Inspector
from shadow.replicate.intents import OnFailure
from shadow.replicate.journal import JournalStats, Pending
from shadow.replicate.journals.dynamo import DynamoLedger
from shadow.replicate.journals.dynamo_table import Access
from shadow.replicate.journals.ledger import RemoteLedger
from shadow.replicate.journals.mongo import MongoLedger
from shadow.replicate.journals.remote import RemoteJournal, patience
from shadow.replicate.points import Reach, pass_by
from shadow.replicate.process import Owner
from shadow.replicate.roles import Roles
from shadow.replicate.routes import Routes
from shadow.replicate.salvage import Salvage
from shadow.replicate.sqlite_journal import SqliteJournal
from shadow.replicate.supervisor import Supervisor, Turn
from shadow.replicate.suspects import SharedSuspects
from shadow.replicate.within import within
from shadow.replicate.writers import WriterWatch
from shadow.routed import RoutedCollection
from shadow.router import Router
from shadow.runtime import Parts, Runtime
from shadow.stores.base import Store
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.dynamo.sweeping import sweep_forever
from shadow.stores.mongo import MongoStore, collection_class, connect, driver_of
from shadow.stores.ranges import Ranged
from shadow.web import APIRouter, Desk, admin_router

__all__ = ["Shadow", "get_collection"]


class Shadow(DriverDatabase):
    """Takes the place of the Motor database object: `shadow["users"]`, `shadow.get_collection("users")`.

    Making one does no I/O and needs no event loop; it connects on first use. Use it under one event loop after the
    other as you like; `async with` (or `lifespan`) ends what it started in the loop at hand.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: Path | None = None,
        mongo_client: Any = None,
        dynamo_client: Any = None,
        reach: Reach = pass_by,
        resting: bool = False,
        tool: bool = False,
    ) -> None:
        """`tool`: it is beside an application, and its word on the routing does not count; `resting`: a tool that does
        nothing by itself, no recovery and no watching."""
        self.settings = settings
        self._resting = resting
        self._writer_watch: WriterWatch | None = None
        self._told_raised = False
        self._path = path
        self._mongo_client = mongo_client
        self._dynamo_client = dynamo_client
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._closed = False
        self._owner = self
        self._handed_in: Any = None
        self._kind: type[Any] | None = None
        self._kept_by_url: Kept | None = None
        self._noticed: set[str] = set()
        self._specs = settings.specs()
        secret = settings.observe.hash_secret
        hasher = Hasher(secret.get_secret_value().encode() if secret is not None else b"")
        self.excuses = Excuses(settings.rules())
        self._suspects = SharedSuspects(settings.host_file("suspects"))
        self.metrics_registry = Metrics(settings.collections, tables=self._tables(), rules=self.excuses.names())
        self.findings = Findings(hasher, reveal_keys=settings.observe.reveal_keys, notes=True)
        self.report = Report(
            self.metrics_registry, self.findings, hasher=hasher, reveal_keys=settings.observe.reveal_keys
        )
        self.metrics_registry.bind(self._gauges)
        self.metrics_registry.on_failure = self.report.failed
        self.shared_findings = SharedFindings(
            self.findings,
            FindingsFile(settings.host_file("findings"), reveal_keys=settings.observe.reveal_keys),
            lambda error: self.report.failed("report", error),
        )
        self.pulse = Pulse(self.metrics_registry, self.shared_findings)
        self.supervisor = Supervisor(self.report.background_failed, self.report.background_works, reach)
        self.report.doubted = self._doubted
        self._parts = Parts(
            journal=_make_journal(settings, self._journal_damaged, self.supervisor),
            routes=Routes(
                settings.routes(),
                on_change=self.report.routed,
                on_unknown=lambda collection: None,
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
            suspects=self._suspects,
            on_gap=lambda name: self.fleet.gap(name),
            on_journal=lambda works: self.fleet.journal_works(works),
            supervisor=self.supervisor,
        )
        self.fleet = Fleet(
            settings.control_place().open(),
            self._parts,
            settings.routes(),
            current=self._runtime,
            figures=self._figures,
            journal=_journal_name(settings),
            heartbeat=settings.control.heartbeat,
            tool=tool or resting,
        )
        self.fleet.wishes(settings.routes(), settings.forced())
        self._roles = Roles(
            self._parts.journal,
            self._parts.routes,
            self.fleet.kept,
            join=self.fleet.join,
            renew=self.fleet.participant.renew,
            patience=settings.limits.operation / 4,
            configured=self._configured,
            resting=resting,
            lenient=settings.journal.on_failure == "sync",
        )
        share_locks(settings.host_file("lives"))
        self._text = _read(path)
        self._reload_pending = False
        self._started = time.time()

    # --- making -------------------------------------------------------------------------------------------------

    @classmethod
    def from_file(cls, path: str | Path, *, mongo_client: Any = None, dynamo_client: Any = None) -> Self:
        """From a YAML file and the environment; the file is watched. Raises `ConfigurationError` with every fault.

        `mongo_client`: a Motor or a PyMongo async client to use and never to close; `dynamo_client`: a low-level
        DynamoDB client of aioboto3 or aiobotocore, likewise.
        """
        return cls(load(path), path=Path(path), mongo_client=mongo_client, dynamo_client=dynamo_client)

    @classmethod
    def from_settings(cls, settings: Settings, *, mongo_client: Any = None, dynamo_client: Any = None) -> Self:
        """From settings made in code; no file, no environment."""
        return cls(settings, mongo_client=mongo_client, dynamo_client=dynamo_client)

    @classmethod
    def from_environment(cls) -> Self:
        """From the file that `SHADOW_CONFIG` names, or from the environment's variables alone, with the three
        collections of the sample configuration."""
        path = os.environ.get("SHADOW_CONFIG")
        return cls.from_file(path) if path else cls(parse(_NOTES, source="(environment)"))

    # --- Motor's database ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.settings.mongo.database

    database_name = name

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The collection; may be called at import time. What follows the name is for its `with_options`.

        A configured name gives a `Collection`; any other name gives the driver's own collection, as it is.
        """
        spec = self._specs.get(name)
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
        by_small = {each.casefold(): each for each in self._specs}
        near = difflib.get_close_matches(name.casefold(), by_small, n=1, cutoff=0.85)
        if near:
            self.report.event(Event.COLLECTION_UNCONFIGURED, collection=name, meant=by_small[near[0]])

    def kept(self) -> Kept:
        """What the client of MongoDB keeps for every read and write."""
        if self._mongo_client is not None:
            return kept_by_client(self._mongo_client)
        if self._kept_by_url is None:
            self._kept_by_url = kept_by_url(self.settings.mongo.url.get_secret_value())
        return self._kept_by_url

    def __getitem__(self, name: str) -> Any:
        return self.get_collection(name)

    def __getattr__(self, name: str) -> Any:
        """Motor's `db.users`. Names that begin with an underscore are no collections, as in Motor. Raises
        UnsupportedOperation for what the driver's database object has and is not supported here."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in NOT_COLLECTIONS:
            raise UnsupportedOperation(f"db.{name}", "it is the driver's own", hint=f'a collection of it: db["{name}"]')
        return self.get_collection(name)

    # --- what is the driver's own

    def driver(self) -> Any:
        """The driver's database object for the running event loop, past everything else. Raises `ShadowClosed`,
        RuntimeError where there is no event loop and no client was handed in, `StoreUnavailable` if nothing is said of
        a MongoDB."""
        if self._mongo_client is not None:
            if self._handed_in is None:
                self._handed_in = self._mongo_client.get_database(self.name)
            return self._handed_in
        if not self.needs_mongo() and "url" not in self.settings.mongo.model_fields_set:
            raise StoreUnavailable(
                "the configuration says of no MongoDB where it is, and no configured collection is on one",
                hint="name the collection under `collections`, or set `mongo.url`",
            )
        store = self._runtime().stores[StoreName.MONGO]
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
        routes = self._parts.routes
        for name in self._specs:
            route = routes[name]
            if route.primary is StoreName.MONGO or route.dual_write:
                return True
        return not self._specs

    def configured(self) -> Collection[str]:
        """The names of the configured collections."""
        return self._specs

    def is_forwarded(self, collection: str) -> bool:
        """Whether a collection is MongoDB's alone, without a trace of another store."""
        return collection not in self._specs or self.expected(collection) is Passage.OWN

    def reserved_of(self, collection: str) -> str:
        """The field of the version in a configured collection."""
        return self._specs[collection].reserved

    def is_on_mongo(self, collection: str) -> bool:
        """Whether MongoDB is the primary of a configured collection."""
        return self._parts.routes[collection].primary is StoreName.MONGO

    def expected(self, collection: str) -> Passage:
        """How a call of a configured collection would be made by what is known now."""
        return expected(self._parts.routes, collection)

    def forwarder(self) -> Forwarder:
        """That of the running event loop, made on first use."""
        return self._runtime().forwarder

    async def gated(self, collection: str, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a write to a collection, during which its phase does not change. Raises UnsupportedOperation, with
        `what`, if it is configured and not MongoDB's alone."""
        if collection not in self._specs:
            return await call()

        def made(passage: Passage) -> Awaitable[Any]:
            refuse_past(self, [collection] if passage is not Passage.OWN else [], what)
            return call()

        passage, answer = await self.forwarder().write(collection, None, made)
        refuse_past(self, [collection] if passage is Passage.VERSIONED else [], what)
        return answer

    def note_index(self, spec: CollectionSpec, wanted: Wanted) -> CollectionSpec:
        """Takes note of an index that the driver has made while MongoDB alone is written: a unique one is held by this
        process from then on, of a plain one a log line says how to have it on DynamoDB."""
        if wanted.declared or not (wanted.plain or wanted.unique):
            return spec
        if wanted.plain:
            advice = wanted.advice()
            self.report.event(Event.INDEX_UNDECLARED, collection=spec.name, index=wanted.name, advice=advice)
            return spec
        made = self._specs[spec.name] = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
        return made

    def __repr__(self) -> str:
        return f"Shadow({self.name!r}, {len(self._specs)} collections)"

    def __bool__(self) -> bool:
        raise NotImplementedError("Shadow objects do not implement truth value testing: compare with None instead")

    # --- life ---------------------------------------------------------------------------------------------------

    def current(self) -> Router:
        """The router of the running event loop, made on first use."""
        return self._runtime().router

    async def start(self) -> None:
        """Begins recovery and the watch over the configuration file in the running loop. First use does the same."""
        self._closed = False
        self._runtime()

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
            if not self._other_loops():
                await self.fleet.participant.leave()
        await asyncio.to_thread(self._suspects.shut)
        await asyncio.to_thread(self.fleet.close)
        await asyncio.to_thread(self._parts.journal.shut)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """For `FastAPI(lifespan=shadow.lifespan)`."""
        async with self:
            yield

    def _runtime(self) -> Runtime:
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None:
            if self._closed:
                raise ShadowClosed("this Shadow is closed", hint="enter it again: `async with shadow:`")
            self._forget_dead_loops()
            self._share_secret()
            self._hold_lock()
            # What was agreed on in another event loop may have changed since.
            self._parts.routes.forget()
            runtime = self._runtimes[loop] = Runtime(loop, self._parts, self._make_stores(), resting=self._resting)
            runtime.forwarder.begin_with(self.fleet.era)
            if self._path is not None:
                runtime.keep(Background.WATCH, self._watch)
            runtime.keep(Background.FLEET, self._belong)
            if not self._resting:
                runtime.keep(Background.PULSE, self.pulse.run)
                runtime.keep(Background.FLIPS, self.fleet.tend)
                self._keep_swept(runtime)
                self._keep_writers_watched(runtime)
        return runtime

    async def _belong(self, turn: Turn) -> None:
        """Takes part in the fleet until cancelled: by `close`, or at the end of a loop that nobody closed. Each loop
        learns anew where the fleet stands before its first write; the process leaves with the last of them."""
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
                self._parts.routes.forget()
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
                text = await asyncio.to_thread(_read, self._path)
                if text is not None and text != self._text:
                    self._begin_with(text)
        return self.fleet.configured()

    def _begin_with(self, text: str) -> None:
        self._text = text
        try:
            wanted = parse(text, source=str(self._path))
            self._check_unchanged(wanted)
        except ConfigurationError as error:
            self.report.reloaded(False, str(error))
            return
        self.fleet.wishes(wanted.routes(), wanted.forced())
        self._put_in_force(wanted)

    async def _placed(self) -> bool:
        """Whether it is known where the fleet stands, and the fleet knows of this process. An operation that comes
        first asks the same, and hears what is wrong. A tool asks only when it needs it; where one store is written
        alone, no operation waits for the fleet."""
        participant = self.fleet.participant
        with suppress(ShadowError):
            if not self._resting:
                await self._parts.routes.learnt(writing=True)
        return participant.joined

    def _keep_writers_watched(self, runtime: Runtime) -> None:
        """Watches for writers that go past the shim, where the configuration asks for it."""
        store = runtime.stores[StoreName.MONGO]
        if not self.settings.observe.watch_writers or not isinstance(store, MongoStore):
            return
        parts = self._parts
        watch = self._writer_watch = WriterWatch(
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
            self.report.failed("sweep", error)

        def swept(collection: str, deleted: int) -> None:
            self.report.event(Event.TABLE_SWEPT, collection=collection, deleted=deleted)

        runtime.keep(Background.SWEEP, lambda turn: sweep_forever(store, in_use, every, failed, swept, turn))

    def _share_secret(self) -> None:
        """Hashes and findings of the processes of one host compare, unless the file for it cannot be had."""
        if self.settings.observe.hash_secret is None and not self._runtimes:
            try:
                self._parts.hasher.adopt(shared_secret(self.settings.host_file("key")))
            except OSError as error:
                self.report.failed("report", error)

    def _hold_lock(self) -> None:
        """Before anything is signed by this process: those who share the folder know at once when it has died."""
        try:
            hold_lock(self.settings.host_file("lives"))
        except OSError as error:
            self.report.failed("report", error)

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
            self._specs,
            owned=owned,
            operation_limit=limit,
            again=lambda: connect(mongo.url.get_secret_value(), mongo.driver),
            weak_writes=mongo.weak_writes,
            on_raised=self._raised,
            on_doubt=self._parts.journal.doubt,
        )
        dynamo = DynamoStore(
            self.settings.dynamo,
            self._specs,
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
        self.report.event(Event.CLIENT_STUCK, store=str(store), advice=advice)

    def _raised(self, asked: str) -> None:
        """Said once, however many event loops come and go."""
        if not self._told_raised:
            self._told_raised = True
            self.report.event(Event.WRITES_RAISED, detail=f"{asked} could be rolled back: w=majority instead")

    def _lacking(self, table: str, text: str) -> None:
        self.report.event(Event.TABLE_LACKING, table=table, detail=text)

    # --- what operators ask for ---------------------------------------------------------------------------------

    async def prepare(self, *, journal: bool = True) -> None:
        """Makes the tables and indexes of the configured collections that are missing, on both stores, and what a
        journal on a server is kept in (unless told not to). What the server does not have of what the configuration
        wants of a table is logged. Raises `StoreUnavailable` naming the store that could not, `JournalError`."""
        if journal and isinstance(self._parts.journal, RemoteJournal):
            await self._parts.journal.prepare(self.settings.dynamo.prepare_timeout)
        await asyncio.to_thread(self.fleet.prepare)
        for name, store in self._runtime().stores.items():
            try:
                await store.prepare(self._specs.values())
            except ShadowError:
                raise
            except DuplicateKeyError as error:
                raise StoreUnavailable(
                    f"{name}: a unique index cannot be made, for there are duplicates",
                    hint="settle them first: group over the fields of `unique`",
                ) from error
            except Exception as error:
                raise StoreUnavailable(
                    f"{name}: tables and indexes could not be made ({type(error).__name__})",
                    hint="check that the store runs and that the credentials may create tables",
                ) from error

    async def add_index(self, spec: CollectionSpec, wanted: Wanted) -> CollectionSpec:
        """What `create_index` does: a unique index that the configuration does not declare is made on both stores, the
        primary first, and held from then on by this process; a plain one is made on MongoDB. A store that is not in
        use is not asked, and what the secondary fails at is counted and not raised."""
        stores = self._in_use(spec.name)
        if wanted.plain:
            if not wanted.declared:
                advice = wanted.advice()
                self.report.event(Event.INDEX_UNDECLARED, collection=spec.name, index=wanted.name, advice=advice)
            for store in stores:
                await self._on_index(spec.name, store, store.speed_up(spec.name, wanted.keys, wanted.plain_name))
        if wanted.plain or wanted.declared:
            return spec
        made = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
        for store in stores:
            await self._on_index(spec.name, store, store.prepare([made]))
        self._specs[spec.name] = made
        return made

    async def drop_index(self, collection: str, name: str) -> None:
        """What `drop_index` does with an index that the configuration does not declare: it is on MongoDB, if it is."""
        stores = [store for store in self._in_use(collection) if isinstance(store, MongoStore)]
        if not stores:
            raise index_not_found(name)
        for store in stores:
            await self._on_index(collection, store, store.drop_index(collection, name))

    def _in_use(self, collection: str) -> list[Store]:
        """The stores that an operation on a collection may reach, the primary first."""
        route = self._parts.routes[collection]
        names = (route.primary, route.secondary) if route.dual_write else (route.primary,)
        return [self._runtime().stores[name] for name in names]

    async def _on_index(self, collection: str, store: Store, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            if store.name is self._parts.routes[collection].primary or is_not_found(error):
                raise
            self.report.failed("index", error)

    def admin_router(self, prefix: str = "") -> APIRouter:
        """/metrics, /healthz, /readyz, /status, /findings and /console for a FastAPI application; see *The console* in
        the README for who may read them and who may act."""
        return admin_router(Desk(self, self._path), prefix=prefix)

    def metrics(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text form, and its content type."""
        return self.metrics_registry.render()

    def routes(self) -> dict[str, Route]:
        return self._parts.routes.all()

    async def lagging(self, collection: str, key: Any) -> bool:
        """Whether the journal holds an open intent or a deferred write for the key, of any process."""
        self._runtime()
        return await self._parts.journal.has_open(collection, key)

    async def heal(self, collection: str, key: Any) -> Healing:
        """Makes the secondary hold what the primary holds under `key`, and says what that took. Raises what the
        stores raise."""
        result = await self._runtime().follower.repair(collection, key)
        if result is not Healing.FAILED:
            self.findings.mark_healed(collection, key)
        return result

    async def flip(self, collection: str, to: StoreName, reason: str) -> dict[str, Any]:
        """Makes the other store the primary in every process of the fleet, whatever the gates say; a receipt is kept.
        Shape: {"done": bool, "said": why not, "held": seconds that writes were held}. Raises `JobRefused`,
        `ControlError`."""
        self._runtime()
        return await self.fleet.order(collection, to, reason)

    def inspector(self) -> Inspector:
        """For looking at the journal, explaining a key, and healing what the journal holds."""
        parts, runtime = self._parts, self._runtime()
        return Inspector(
            runtime.stores,
            lambda name: parts.routes[name],
            parts.journal,
            parts.limits,
            parts.hasher,
            runtime.follower.repair,
        )

    async def journal_entries(self, collection: str | None = None, *, limit: int = 100) -> list[Pending]:
        """What the journal holds, oldest first: open intents and deferred keys. Raises `JournalError`."""
        return await self.inspector().entries(limit, collection)

    async def journal_stats(self) -> JournalStats:
        """How much the journal holds, by collection, and how old the oldest is. Raises `JournalError`."""
        return await self._runtime().refresh()

    async def explain(self, collection: str, key: Any) -> Explanation:
        """What stands behind one key: its intents and deferral, the versions on both sides, where they differ by path
        and type, and what a heal would do. No values. Raises `JournalError` and what the stores raise."""
        return await self.inspector().explain(collection, key)

    async def images(self, collection: str, key: Any) -> tuple[Image, Image]:
        """What the primary and the secondary hold under `key` now. Raises what the stores raise."""
        stores, route = self._runtime().stores, self._parts.routes[collection]
        primary, secondary = await asyncio.gather(
            stores[route.primary].image(collection, key), stores[route.secondary].image(collection, key)
        )
        return primary, secondary

    async def trust(self, collection: str) -> None:
        """Takes back what `/status` says under `verify_since`, when the collection has been compared whole."""
        self._runtime()
        await self._parts.journal.trust(collection)

    def sides(self, collection: str) -> Sides:
        """Both sides of a configured collection, for a job over all of it. Raises `JobRefused` for any other."""
        if collection not in self._specs:
            raise JobRefused(f"{collection}: not in the configuration", hint="name it under `collections` first")
        runtime = self._runtime()

        async def repair(key: Any) -> Healing:
            return await self.heal(collection, key)

        return Sides(
            collection=collection,
            identity=f"{where(self.settings)}|{self._specs[collection]}",
            start=self._parts.routes[collection],
            stores=runtime.stores,
            ranges={name: store.ranges for name, store in runtime.stores.items() if isinstance(store, Ranged)},
            routes=self._parts.routes,
            journal=self._parts.journal,
            limits=self._parts.limits,
            reporter=self.report,
            hasher=self._parts.hasher,
            repair=repair,
        )

    async def settled(self, timeout: float) -> bool:
        """Waits until lanes and journal are empty. False: they were not within `timeout` seconds."""
        runtime = self._runtime()
        try:
            async with asyncio.timeout(timeout):
                while runtime.at_work or (await self._flushed(runtime)).open:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def _flushed(self, runtime: Runtime) -> Any:
        await self._parts.journal.flush()
        return await runtime.refresh()

    async def status(self) -> dict[str, Any]:
        """Everything that is known, JSON-able, without document content."""
        status = await self._own_status()
        status["fleet"] = await self.fleet.status()
        status["verdict"] = verdict(await self.fleet.gates(figures(status)))
        return status

    async def _figures(self) -> Mapping[str, Any]:
        return figures(await self._own_status())

    async def _own_status(self) -> dict[str, Any]:
        """What this process knows by itself."""
        runtime = self._runtime()
        failure = await _check(runtime.refresh(), 5.0)
        stats = runtime.stats
        findings = self.shared_findings
        return {
            "collections": {name: _route_status(route) for name, route in self.routes().items()},
            "stores": {
                str(name): {**store.describe(), "up": runtime.breakers[name].closed}
                for name, store in runtime.stores.items()
            },
            "journal": {
                "path": self.settings.journal.place,
                "state": failure,
                "open": dict(stats.open_by_collection),
                "deferred": dict(stats.deferred_by_collection),
                "refused": dict(stats.refused_by_collection),
                "oldest_seconds": round(stats.oldest_age, 3),
                "verify_since": {name: _moment(since) for name, since in stats.unclean.items()},
                "look": "shadow repair --journal [list | heal | explain KEY --collection NAME]",
            },
            "lanes": {
                "writes": {"depth": runtime.writes.depth, "capacity": runtime.writes.capacity},
                "reads": {"depth": runtime.reads.depth, "capacity": runtime.reads.capacity},
            },
            "comparison": {
                name: {**each, "noise": self.metrics_registry.noise_of(name)}
                for name, each in runtime.reader.canaries.status().items()
            },
            "excuses": self.excuses.status(),
            "suspects": {
                "count": await self._suspects.count(),
                "kept": "in this process alone" if self._suspects.fault else "on this host",
            },
            "indexes": _index_advice(runtime.stores[StoreName.DYNAMO]),
            "findings": {**await findings.summary(), "open_by_collection": await findings.open_by_collection()},
            "bypassing": self.report.bypassing.status(),
            "writer_watch": "off" if self._writer_watch is None else self._writer_watch.state,
            "totals": self.metrics_registry.totals(),
            "uptime_seconds": round(time.time() - self._started, 1),
        }

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether the application can be served, and what each check says: the primaries answer, the journal can be
        written. A secondary that is down, a comparison that does not work, or a background task that has failed, is
        said and does not make the application unready."""
        runtime = self._runtime()
        checks = {
            f"primary_{name}": await _check(runtime.stores[name].ping())
            for name in {route.primary for route in self.routes().values()}
        }
        checks["journal"] = await _check(self._parts.journal.probe())
        needed = dict(checks)
        if self.settings.journal.on_failure is OnFailure.SYNC:
            del needed["journal"]
        ready = all(text == "ok" for text in needed.values())
        down = self.supervisor.down
        checks["background"] = "ok"
        if down:
            checks["background"] = "down: " + ", ".join(f"{task} ({error})" for task, error in sorted(down.items()))
        for name, each in runtime.reader.canaries.status().items():
            checks[f"comparison_{name}"] = "ok" if each["working"] else f"not working: {each['why_not']}"
        return ready, checks

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
        return collection in self._parts.journal.doubted or any(collection in each for each in unclean)

    def _secondary_changed(self, name: StoreName, up: bool) -> None:
        self.report.event(Event.SECONDARY_UP if up else Event.SECONDARY_DOWN, store=str(name))

    def _journal_damaged(self, found: Salvage) -> None:
        self.metrics_registry.damaged()
        self.report.event(
            Event.JOURNAL_DAMAGED, path=str(found.kept), entries=found.entries, collections=len(found.collections)
        )

    def _tables(self) -> dict[str, list[str]]:
        prefix = self.settings.dynamo.table_prefix
        return {f"{prefix}{name}": [each.name for each in spec.indexes] for name, spec in self._specs.items()}

    # --- reloading ----------------------------------------------------------------------------------------------

    async def _watch(self, turn: Turn) -> None:
        """Looks at the file every `watch_every` seconds: content, not times, for mounted files keep odd ones."""
        while True:
            turn()
            await asyncio.sleep(self.settings.watch_every)
            text = await asyncio.to_thread(_read, self._path)
            if text is not None and (text != self._text or self._reload_pending):
                # What fails in between is tried again, too.
                self._reload_pending = True
                self._reload_pending = not await self.reload(text)

    async def reload(self, text: str) -> bool:
        """Puts the routing that `text` (YAML) asks for in force. A fault changes nothing, is logged and counted.
        False: a change of primary is still wanted and could not be made yet."""
        first_look = text != self._text
        self._text = text
        try:
            wanted = parse(text, source=str(self._path))
            self._check_reload(wanted)
        except ConfigurationError as error:
            self.report.reloaded(False, str(error))
            return True
        # A newer file decides what was still to be done for an older one.
        self.fleet.wishes(wanted.routes(), wanted.forced())
        done = [await self.fleet.change(name, wanted.route(name)) for name in wanted.collections]
        if all(done):
            self._put_in_force(wanted)
        elif first_look:
            self.report.reloaded(False, "a change of primary waits: see event flip.refused")
        return all(done)

    def _put_in_force(self, wanted: Settings) -> None:
        self.settings = wanted
        self.excuses.replace(wanted.rules())
        self.metrics_registry.excuses(self.excuses.names())
        self.report.reloaded(True)

    def _check_reload(self, wanted: Settings) -> None:
        """What cannot change while it runs is a fault, and so is a leap between phases."""
        self._check_unchanged(wanted)
        faults = [fault for name in wanted.collections if (fault := self._leap(name, wanted.route(name)))]
        if faults:
            raise ConfigurationError(str(self._path), faults)

    def _check_unchanged(self, wanted: Settings) -> None:
        faults = [
            Fault(section, "changed", "a restart: only routing can change while it runs")
            for section in ("mongo", "dynamo", "journal", "control", "limits", "observe", "admin", "watch_every")
            if getattr(wanted, section) != getattr(self.settings, section)
        ]
        if wanted.specs() != self._specs:
            faults.append(Fault("collections", "indexes, names or constraints changed", "a restart"))
        if faults:
            raise ConfigurationError(str(self._path), faults)

    def _leap(self, name: str, wanted: Route) -> Fault | None:
        now = self._parts.routes[name]
        if self.fleet.decides(name, wanted):
            return None
        # Dual writes that are still waited for count as begun.
        now = dataclasses.replace(now, phase=self.fleet.wants_both().get(name, now.phase))
        if wanted.phase not in (now.phase, *neighbours(now.phase)):
            return Fault(f"collections.{name}.phase", str(wanted.phase), f"one step at a time from {now.phase}")
        if wanted.primary is not now.primary and not (now.phase is wanted.phase is Phase.SHADOW):
            return Fault(f"collections.{name}.primary", str(wanted.primary), "phase shadow before and after a flip")
        return None


_NAMES = 10_000
"""Names of collections that are remembered as said something of."""

_NOTES = """
collections:
  users: {indexes: [{name: email-index, hash: email}]}
  documents: {indexes: [{name: user_id-index, hash: user_id}]}
  generated_content: {indexes: [{name: document_id-index, hash: document_id}]}
"""

_shared: Shadow | None = None


def get_collection(name: str) -> Any:
    """A collection of the Shadow that the environment describes (`SHADOW_CONFIG`, or `USE_DYNAMODB` and the `AWS_...`
    variables alone). The same Shadow for the whole process, made at the first call."""
    global _shared
    if _shared is None:
        _shared = Shadow.from_environment()
    return _shared.get_collection(name)


def _make_journal(
    settings: Settings, on_damage: Callable[[Salvage], None], supervisor: Supervisor
) -> SqliteJournal | RemoteJournal:
    """Where `journal.url` says."""
    where, limit = settings.journal, settings.limits.operation
    if where.kind == "sqlite":
        return SqliteJournal(
            where.path,
            synchronous=where.synchronous,
            limit=limit,
            max_bytes=where.max_bytes,
            collections=settings.collections,
            on_damage=on_damage,
            supervisor=supervisor,
        )

    def make(owner: Owner, name: str) -> RemoteLedger:
        if where.kind == "mongodb":
            return MongoLedger(*where.mongo(settings.mongo), owner, name, patience=patience(limit))
        dynamo = settings.dynamo
        access = Access(
            dynamo.region,
            dynamo.endpoint_url,
            revealed(dynamo.access_key_id),
            revealed(dynamo.secret_access_key),
            revealed(dynamo.session_token),
        )
        return DynamoLedger(access, where.table, owner, name, patience=patience(limit))

    return RemoteJournal(make, place=where.place, limit=limit, supervisor=supervisor)


def _route_status(route: Route) -> dict[str, Any]:
    return {
        "primary": str(route.primary),
        "phase": str(route.phase),
        "writes": str(route.writes),
        "shadow_reads": route.shadow_reads,
        "reads": route.reads.named(),
        "secondary_reads": route.secondary_reads,
        "epoch": route.epoch,
    }


def _journal_name(settings: Settings) -> str:
    """Names the journal for every host: that of a file is its own host's."""
    journal = settings.journal
    if journal.kind != "sqlite":
        return f"{journal.place} {journal.name}"
    return f"{socket.gethostname()}:{journal.path.absolute()}"


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _read(path: Path | None) -> str | None:
    return None if path is None else path.read_text(encoding="utf-8")


def _index_advice(store: Store) -> list[dict[str, Any]]:
    """The shapes of queries that scanned, the costliest first, each with the index that would serve it."""
    return store.scans() if isinstance(store, DynamoStore) else []


async def _check(work: Any, seconds: float = 2.0) -> str:
    try:
        async with within(seconds):
            await work
    except Exception as error:
        return f"failed: {type(error).__name__}"
    return "ok"
