"""Shadow: builds and owns everything. The only place that picks concrete parts."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from pymongo.errors import DuplicateKeyError

from shadow.collection import Collection
from shadow.compare.diff import Hasher
from shadow.config import Settings, load, parse
from shadow.errors import ConfigurationError, Fault, ShadowClosed, ShadowError, StoreUnavailable
from shadow.indexes import Wanted
from shadow.model.phase import Phase, Route, StoreName, neighbours
from shadow.model.schema import CollectionSpec
from shadow.model.verdict import Healing
from shadow.observe.findings import Findings
from shadow.observe.log import Event
from shadow.observe.metrics import GaugeSnapshot, Metrics
from shadow.observe.report import Report
from shadow.replicate.points import Reach, pass_by
from shadow.replicate.routes import Routes
from shadow.replicate.sqlite_journal import SqliteJournal
from shadow.router import Router
from shadow.runtime import Parts, Runtime
from shadow.stores.base import Store
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.mongo import MongoStore, connect
from shadow.web import APIRouter, admin_router

__all__ = ["Shadow", "get_collection"]


class Shadow:
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
    ) -> None:
        self.settings = settings
        self._path = path
        self._mongo_client = mongo_client
        self._dynamo_client = dynamo_client
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._closed = False
        self._specs = settings.specs()
        secret = settings.observe.hash_secret
        hasher = Hasher(secret.get_secret_value().encode() if secret is not None else b"")
        self.metrics_registry = Metrics(settings.collections, tables=self._tables())
        self.findings = Findings(hasher, reveal_keys=settings.observe.reveal_keys)
        self.report = Report(
            self.metrics_registry, self.findings, hasher=hasher, reveal_keys=settings.observe.reveal_keys
        )
        self.metrics_registry.bind(self._gauges)
        self._parts = Parts(
            journal=SqliteJournal(
                settings.journal.path, synchronous=settings.journal.synchronous, limit=settings.limits.operation
            ),
            routes=Routes(settings.routes(), on_change=self.report.routed, on_unknown=self._unconfigured),
            limits=settings.limits,
            reporter=self.report,
            hasher=hasher,
            reach=reach,
            on_secondary=self._secondary_changed,
        )
        self._text = _read(path)
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

    def get_collection(self, name: str) -> Collection:
        """The collection; may be called at import time."""
        spec = self._specs.get(name) or CollectionSpec(name)
        return Collection(spec, self, options=getattr(self._mongo_client, "codec_options", None))

    def __getitem__(self, name: str) -> Collection:
        return self.get_collection(name)

    def __getattr__(self, name: str) -> Collection:
        """Motor's `db.users`. Names that begin with an underscore are no collections, as in Motor."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self.get_collection(name)

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
        stays in the journal. Clients that were handed in stay open."""
        self._closed = True
        runtime = self._runtimes.pop(asyncio.get_running_loop(), None)
        if runtime is not None:
            await runtime.close()
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
            runtime = self._runtimes[loop] = Runtime(loop, self._parts, self._make_stores())
            if self._path is not None:
                runtime.keep(self._watch(), "watch")
        return runtime

    def _forget_dead_loops(self) -> None:
        for loop in [each for each in self._runtimes if each.is_closed()]:
            self._runtimes.pop(loop).abandon()

    def _make_stores(self) -> dict[StoreName, Store]:
        mongo, limit = self.settings.mongo, self.settings.limits.operation
        client = self._mongo_client or connect(mongo.url.get_secret_value(), mongo.driver)
        owned = self._mongo_client is None
        return {
            StoreName.MONGO: MongoStore(client, mongo.database, self._specs, owned=owned, operation_limit=limit),
            StoreName.DYNAMO: DynamoStore(
                self.settings.dynamo,
                self._specs,
                client=self._dynamo_client,
                database=mongo.database,
                on_capacity=self.metrics_registry.capacity,
                on_scan=self.metrics_registry.scanned,
            ),
        }

    # --- what operators ask for ---------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Makes the tables and indexes of the configured collections that are missing, on both stores. Raises
        `StoreUnavailable` naming the store that could not."""
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
        """What `create_index` does with an index that the configuration does not declare: a unique one is made on
        both stores, the primary first, and held from then on by this process; a plain one on MongoDB."""
        runtime, route = self._runtime(), self._parts.routes[spec.name]
        if not wanted.unique:
            await runtime.stores[StoreName.MONGO].speed_up(spec.name, wanted.keys, wanted.name)
            self.report.event(Event.INDEX_UNDECLARED, collection=spec.name, index=wanted.name, advice=wanted.advice())
            return spec
        made = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
        for name in (route.primary, route.secondary) if spec.name in self._specs else (StoreName.MONGO,):
            await runtime.stores[name].prepare([made])
        self._specs[spec.name] = made
        return made

    def admin_router(self, prefix: str = "") -> APIRouter:
        """/metrics, /healthz, /readyz and /status for a FastAPI application."""
        return admin_router(self, prefix=prefix)

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

    async def trust(self, collection: str) -> None:
        """Takes back what `/status` says under `verify_since`, when the collection has been compared whole."""
        self._runtime()
        await self._parts.journal.trust(collection)

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
        runtime = self._runtime()
        stats = await runtime.refresh()
        return {
            "collections": {name: _route_status(route) for name, route in self.routes().items()},
            "stores": {
                str(name): {**store.describe(), "up": runtime.breakers[name].closed}
                for name, store in runtime.stores.items()
            },
            "journal": {
                "path": str(self.settings.journal.path),
                "open": dict(stats.open_by_collection),
                "deferred": dict(stats.deferred_by_collection),
                "oldest_seconds": round(stats.oldest_age, 3),
                "verify_since": {name: _moment(since) for name, since in stats.unclean.items()},
            },
            "lanes": {
                "writes": {"depth": runtime.writes.depth, "capacity": runtime.writes.capacity},
                "reads": {"depth": runtime.reads.depth, "capacity": runtime.reads.capacity},
            },
            "indexes": _index_advice(runtime.stores[StoreName.DYNAMO]),
            "findings": self.findings.summary(),
            "totals": self.metrics_registry.totals(),
            "uptime_seconds": round(time.time() - self._started, 1),
        }

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether the application can be served, and what each check says: the primaries answer, the journal can be
        written. A secondary that is down does not make the application unready."""
        runtime = self._runtime()
        checks = {
            f"primary_{name}": await _check(runtime.stores[name].ping())
            for name in {route.primary for route in self.routes().values()}
        }
        checks["journal"] = await _check(self._parts.journal.flush())
        return all(text == "ok" for text in checks.values()), checks

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
        )

    def _secondary_changed(self, name: StoreName, up: bool) -> None:
        self.report.event(Event.SECONDARY_UP if up else Event.SECONDARY_DOWN, store=str(name))

    def _unconfigured(self, collection: str) -> None:
        self.report.event(Event.COLLECTION_UNCONFIGURED, collection=collection)

    def _tables(self) -> dict[str, list[str]]:
        prefix = self.settings.dynamo.table_prefix
        return {f"{prefix}{name}": [each.name for each in spec.indexes] for name, spec in self._specs.items()}

    # --- reloading ----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Looks at the file every `watch_every` seconds: content, not times, for mounted files keep odd ones."""
        pending = False
        while True:
            await asyncio.sleep(self.settings.watch_every)
            try:
                text = await asyncio.to_thread(_read, self._path)
                if text is not None and (text != self._text or pending):
                    pending = not await self.reload(text)
            except Exception as error:
                self.report.failed("watch", error)

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
        done = [await self._change(name, wanted.route(name)) for name in wanted.collections]
        if all(done):
            self.settings = wanted
            self.report.reloaded(True)
        elif first_look:
            self.report.reloaded(False, "a change of primary waits for the secondary to be level")
        return all(done)

    def _check_reload(self, wanted: Settings) -> None:
        """What cannot change while it runs is a fault, and so is a leap between phases."""
        faults = [
            Fault(section, "changed", "a restart: only routing can change while it runs")
            for section in ("mongo", "dynamo", "journal", "limits", "observe", "watch_every")
            if getattr(wanted, section) != getattr(self.settings, section)
        ]
        if wanted.specs() != self._specs:
            faults.append(Fault("collections", "indexes, names or constraints changed", "a restart"))
        else:
            faults += [fault for name in wanted.collections if (fault := self._leap(name, wanted.route(name)))]
        if faults:
            raise ConfigurationError(str(self._path), faults)

    def _leap(self, name: str, wanted: Route) -> Fault | None:
        now = self._parts.routes[name]
        if wanted.phase not in (now.phase, *neighbours(now.phase)):
            return Fault(f"collections.{name}.phase", str(wanted.phase), f"one step at a time from {now.phase}")
        if wanted.primary is not now.primary and not (now.phase is wanted.phase is Phase.SHADOW):
            return Fault(f"collections.{name}.primary", str(wanted.primary), "phase shadow before and after a flip")
        return None

    async def _change(self, name: str, wanted: Route) -> bool:
        now = self._parts.routes[name]
        if (wanted.primary, wanted.phase, wanted.writes, wanted.shadow_reads) == (
            now.primary,
            now.phase,
            now.writes,
            now.shadow_reads,
        ):
            return True
        if wanted.primary is now.primary:
            self._parts.routes.set(name, wanted)
            return True
        self.report.event(Event.FLIP_STARTED, collection=name, to=str(wanted.primary))
        done = await self._runtime().change_primary(name, lambda: self._parts.routes.set(name, wanted))
        self.report.event(Event.FLIP_DONE if done else Event.FLIP_REFUSED, collection=name, to=str(wanted.primary))
        return done


_NOTES = """
collections:
  users: {indexes: [{name: email-index, hash: email}]}
  documents: {indexes: [{name: user_id-index, hash: user_id}]}
  generated_content: {indexes: [{name: document_id-index, hash: document_id}]}
"""

_shared: Shadow | None = None


def get_collection(name: str) -> Collection:
    """A collection of the Shadow that the environment describes (`SHADOW_CONFIG`, or `USE_DYNAMODB` and the `AWS_...`
    variables alone). The same Shadow for the whole process, made at the first call."""
    global _shared
    if _shared is None:
        _shared = Shadow.from_environment()
    return _shared.get_collection(name)


def _route_status(route: Route) -> dict[str, Any]:
    return {
        "primary": str(route.primary),
        "phase": str(route.phase),
        "writes": str(route.writes),
        "shadow_reads": route.shadow_reads,
        "epoch": route.epoch,
    }


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _read(path: Path | None) -> str | None:
    return None if path is None else path.read_text(encoding="utf-8")


def _index_advice(store: Store) -> list[dict[str, Any]]:
    """The shapes of queries that scanned, the costliest first, each with the index that would serve it."""
    return store.scans() if isinstance(store, DynamoStore) else []


async def _check(work: Any) -> str:
    try:
        async with asyncio.timeout(2.0):
            await work
    except Exception as error:
        return f"failed: {type(error).__name__}"
    return "ok"
