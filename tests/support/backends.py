"""The stores that the contract suite holds to one contract, and a way past each of them to its server."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from shadow.compare.diff import Hasher
from shadow.compare.equality import agree
from shadow.embedded.audit import dynamo_client
from shadow.errors import UnsupportedOperation
from shadow.host.failpoints import no_failpoint
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.limits import Limits
from shadow.model.operation import Applied, Change, Insert
from shadow.model.order import key_digest
from shadow.model.phase import Phase, Route, WriteMode
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.version import ABSENT, Document, Image, Key, State, Version
from shadow.router import Router
from shadow.routes.routes import Routes
from shadow.runtime import Runtime, RuntimeContext
from shadow.stores.base import ApplicationStore, Store
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.items.codec import encode_value
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.memory import MemoryStore
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from shadow.surface.calls.options import ClientDefaults, kept_by_url
from shadow.traces.spans import NO_TRACES
from tests.support.drawn import Draw
from tests.support.recorder import Recorder
from tests.support.topologies import DEPLOYMENTS, admit, drop, root_client

__all__ = ["BACKENDS", "ROUTED", "Backend", "open_backend"]

BACKENDS: Final = (
    "memory",
    "mongo-one",
    "mongo-replicas",
    "mongo-auth",
    "dynamo-local",
    "dynamo-ministack",
)
ROUTED: Final = ("router-memory", "router-mongo", "router-dynamo")
"""The router over two stores: this one is the primary, and the secondary is in memory."""


class Backend:
    """One store, shared by the tests of a module."""

    store: Store
    shared: Final = "shared"
    """The collection of tests that look at keys of their own and at nothing else."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._prefix = f"c{uuid.uuid4().hex[:12]}"

    def name(self) -> str:
        """The name of a collection that no other test has."""
        return f"fresh{next(self._numbers)}"

    async def fresh(self) -> str:
        """A collection of one's own, empty and ready."""
        spec = CollectionSpec(self.name(), (IndexSpec("owner-index", "owner"),))
        await self.store.prepare([spec])
        return spec.name

    async def plant(self, collection: str, document: Document) -> None:
        """Stores a document as one that no writer of shadow has touched: by the bare driver, without a version."""
        raise NotImplementedError

    async def open(self) -> None:
        await self.store.prepare([CollectionSpec(self.shared)])

    async def close(self) -> None:
        await self.store.close()


class Memory(Backend):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()

    async def plant(self, collection: str, document: Document) -> None:
        assert await self.store.put(collection, document["_id"], Image(Version("", 0), document), ABSENT)


class Mongo(Backend):
    def __init__(self, url: str, driver: str) -> None:
        super().__init__()
        self._url = url
        admit(url, self._prefix)
        self._bare = root_client(url)
        self._client = connect(url, driver)
        self._database = self._prefix
        self.store = MongoStore(self._client, self._database, {}, owned=False)

    async def plant(self, collection: str, document: Document) -> None:
        self._bare[self._database][collection].insert_one(document)

    async def close(self) -> None:
        await self.store.close()
        await self.store.ping()  # the client was handed in: it must still work
        ended = self._client.close()
        if inspect.isawaitable(ended):
            await ended
        drop(self._url, self._database)


class Dynamo(Backend):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        settings = DynamoSettings(
            endpoint_url=url, access_key_id="local", secret_access_key="local", table_prefix=f"{self._prefix}-"
        )
        self.store = DynamoStore(settings, {})

    async def plant(self, collection: str, document: Document) -> None:
        """Strings, numbers, lists and mappings as any other tool would write them."""
        item = {name: encode_value(value)[0] for name, value in document.items()}
        dynamo_client(self._url).put_item(TableName=f"{self._prefix}-{collection}", Item=item)


class _ThroughRouter:
    """What the application asks, of the router; what a test does behind the application's back, of the primary."""

    def __init__(self, runtime: Runtime, primary: Store, secondary: Store) -> None:
        self._router: ApplicationStore = runtime.router
        self._primary = primary
        self._secondary = secondary
        self._through: dict[tuple[str, str], Key] = {}
        """The keys that were written by the router last, by collection and digest."""

    def __getattr__(self, name: str) -> Any:
        whole = name not in vars(ApplicationStore)
        return getattr(self._primary if whole else self._router, name)

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        specs = list(collections)
        await self._primary.prepare(specs)
        await self._secondary.prepare(specs)

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        applied = await self._router.apply(collection, change, op_id)
        self._note(collection, applied)
        return applied

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        results = await self._router.insert_many(collection, inserts, op_ids, ordered=ordered)
        for each in results:
            self._note(collection, each)
        return results

    def _note(self, collection: str, result: Applied | Exception | None) -> None:
        if isinstance(result, Applied):
            self._through[collection, key_digest(result.key)] = result.key

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        self._through.pop((collection, key_digest(key)), None)
        return await self._primary.put(collection, key, image, expected)

    async def differences(self) -> list[Key]:
        """The keys that the router has written, at which the stores do not hold the same."""
        different = []
        for (collection, _), key in self._through.items():
            primary = await self._primary.image(collection, key)
            secondary = await self._secondary.image(collection, key)
            if (primary.present or secondary.present) and not agree(primary, secondary):
                different.append(key)
        return different


class Routed(Backend):
    """The router over a backend's store, as primary, and one in memory. When it is closed, both hold the same."""

    def __init__(self, inner: Backend) -> None:
        super().__init__()
        self._inner = inner

    async def plant(self, collection: str, document: Document) -> None:
        await self._inner.plant(collection, document)

    async def open(self) -> None:
        primary = self._inner.store
        secondary = MemoryStore(primary.name.other)
        self._folder = tempfile.TemporaryDirectory()
        self._journal = SqliteJournal(FileSettings(Path(self._folder.name) / "shadow.db"))
        route = Route(primary.name, Phase.SHADOW, WriteMode.SYNC, 1.0)
        routes = _AnyRoutes(route)
        limits = Limits(settle=0.02, minimum_age=0.0, index_age=0.0)
        parts = RuntimeContext(
            self._journal, routes, limits, Recorder(), Hasher(b"test"), no_failpoint, lambda name, up: None
        )
        self._runtime = Runtime(asyncio.get_running_loop(), parts, {primary.name: primary, secondary.name: secondary})
        self._through = _ThroughRouter(self._runtime, primary, secondary)
        self.store = cast(Store, self._through)
        await super().open()

    async def settled(self) -> None:
        """Waits until no write is under way, no comparison is undecided and the journal is empty."""
        async with asyncio.timeout(60):
            while self._runtime.at_work or (await self._journal.stats()).open:
                await self._journal.flush()
                await asyncio.sleep(0.01)

    # What a `Collection` needs of the Shadow that made it.
    database_name = "routed"
    specs: Final = {Backend.shared: CollectionSpec(Backend.shared)}

    def current(self) -> Router:
        return self._runtime.router

    def is_on_mongo(self, collection: str) -> bool:
        """Never: nothing is left to MongoDB alone."""
        return False

    def refused(self, collection: str, refusal: UnsupportedOperation) -> None: ...

    traces = NO_TRACES

    def kept(self) -> ClientDefaults:
        return kept_by_url("mongodb://127.0.0.1/")

    async def close(self) -> None:
        try:
            await self.settled()
            assert await self._through.differences() == []
        finally:
            self._runtime.stores = {}
            await self._runtime.close()
            self._journal.shut()
            self._folder.cleanup()
            await self._inner.close()


class _AnyRoutes(Routes):
    """One route for all collections."""

    def __init__(self, route: Route) -> None:
        super().__init__({}, on_change=lambda collection, route: None, on_unknown=lambda collection: None)
        self._route = route

    def __getitem__(self, collection: str) -> Route:
        if collection not in self._routes:
            self.set(collection, self._route)
        return super().__getitem__(collection)


def open_backend(name: str, url_of: Callable[[str], str], draw: Callable[[str], Draw]) -> Backend:
    """`url_of` answers the value of a session fixture with the url of a server, `draw` what a deployment of MongoDB is
    tried with."""
    match name.split("-"):
        case ["mongo", deployment]:
            drawn = draw(deployment)
            return Mongo(drawn.url(url_of(DEPLOYMENTS[deployment])), drawn.driver)
        case ["dynamo", "local"]:
            return Dynamo(url_of("dynamodb_local_url"))
        case ["dynamo", "ministack"]:
            return Dynamo(url_of("ministack_url"))
        case ["router", inner]:
            kinds = {"mongo": "mongo-one", "dynamo": "dynamo-local"}
            return Routed(open_backend(kinds.get(inner, inner), url_of, draw))
        case _:
            return Memory()
