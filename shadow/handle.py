"""What the database object gives access to: the configured collections, and the driver's own objects."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS

from shadow.building import HandedClients
from shadow.config import Settings
from shadow.errors import StoreUnavailable, UnsupportedOperation
from shadow.fleet.fleet import Fleet
from shadow.model.events import CallRefused
from shadow.model.phase import Route, StoreName
from shadow.mongoql.portability import name_of
from shadow.notices import Notices
from shadow.observe.report import Report
from shadow.router import Router
from shadow.routes.forwarder import Forwarder, Passage, expected
from shadow.runtime import Runtime, RuntimeContext
from shadow.sessions import TransactionRouter
from shadow.stores.base import OnDriver
from shadow.stores.mongo.drivers import collection_class, driver_of
from shadow.surface.calls.futures import BegunCalls
from shadow.surface.calls.options import ClientDefaults, kept_by_client, kept_by_url
from shadow.surface.collections.routed import RoutedCollection
from shadow.surface.database.driver_database import ForwardedClient
from shadow.surface.direct.forwarded import ForwardedCollection
from shadow.surface.direct.ways_around import refuse_past
from shadow.surface.indexing.index_upkeep import IndexUpkeep
from shadow.traces.spans import Traces

__all__ = ["DatabaseHandle"]


class DatabaseHandle(abc.ABC):
    """What the collections of a Shadow need of it. Needs no event loop except where it says so."""

    def __init__(self, settings: Settings, clients: HandedClients, notices: Notices) -> None:
        self.settings = settings
        self.specs = dict(settings.specs())
        self.clients = clients
        self.notices = notices
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._handed_in: Any = None
        self._last: Any = None
        self._kind: type[Any] | None = None
        self._kept_by_url: ClientDefaults | None = None
        self.calls = BegunCalls()
        self.client = ForwardedClient(self)

    database: Any
    report: Report
    parts: RuntimeContext
    traces: Traces
    fleet: Fleet
    indexes: IndexUpkeep

    @abc.abstractmethod
    async def close(self) -> None:
        """Ends what was started in the running event loop."""

    @abc.abstractmethod
    def runtime(self) -> Runtime:
        """That of the running event loop, made on first use. Raises RuntimeError where there is none, and
        `ShadowClosed`."""

    @property
    def name(self) -> str:
        return self.settings.mongo.database

    database_name = name

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The collection; may be called at import time. Arguments after the name are those of its `with_options`.

        A configured name gives a `Collection`; any other name gives the driver's own collection, as it is.
        """
        spec = self.specs.get(name)
        made: RoutedCollection | ForwardedCollection
        if spec is None:
            self.notices.unconfigured(name, self.specs)
            made = ForwardedCollection(name, self)
        else:
            kept = self.kept().codec_options
            made = RoutedCollection(spec, self, options=None if kept == DEFAULT_CODEC_OPTIONS else kept)
        return made.with_options(*arguments, **options) if arguments or options else made

    def kept(self) -> ClientDefaults:
        """The default options of the MongoDB client for every read and write."""
        given = self.clients.mongo
        if given is not None:
            return kept_by_client(given.database if given.database is not None else given.client)
        if self._kept_by_url is None:
            self._kept_by_url = kept_by_url(self.settings.mongo.url.get_secret_value())
        return self._kept_by_url

    def driver(self) -> Any:
        """The driver's database object for the running event loop, without shadow. Raises `ShadowClosed`,
        RuntimeError where there is no event loop and no client was passed in, `StoreUnavailable` if the
        configuration names no MongoDB."""
        found = self._last = self._driver()
        return found

    def last_driver(self) -> Any:
        """What `driver` has returned last, for what is asked when no event loop runs any more; None if nothing."""
        return self._last

    def _driver(self) -> Any:
        given = self.clients.mongo
        if given is not None:
            if self._handed_in is None:
                self._handed_in = given.client.get_database(self.name, **given.options)
            return self._handed_in
        if not self.needs_mongo() and "url" not in self.settings.mongo.model_fields_set:
            raise StoreUnavailable(
                "the configuration names no MongoDB, and no configured collection is on one",
                hint="name the collection under `collections`, or set `mongo.url`",
            )
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, OnDriver)
        return store.driver

    def given_client(self) -> Any:
        """The client of MongoDB that was passed in, or None."""
        return None if self.clients.mongo is None else self.clients.mongo.client

    def session_client(self) -> Any:
        """The driver's client that makes the application's sessions, whether or not MongoDB is there."""
        given = self.clients.mongo
        if given is not None:
            return given.client
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, OnDriver)
        return store.client

    def driver_kind(self) -> type[Any]:
        """The class of the driver's collections."""
        if self._kind is None:
            given = self.clients.mongo
            self._kind = collection_class(self.settings.mongo.driver if given is None else driver_of(given.client))
        return self._kind

    def begin(self, call: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        """A call as the driver gives it: PyMongo's coroutine, or with Motor a future of a call that has begun."""
        return self.calls.begin(call, list(self._runtimes)) if hasattr(self.driver_kind(), "get_io_loop") else call

    def driver_option(self, name: str) -> Any:
        """A default option of the MongoDB client, by name: `codec_options`, `read_concern`, ..."""
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
        """Whether a collection is on MongoDB alone, with no trace of another store."""
        return collection not in self.specs or self.expected(collection) is Passage.OWN

    def reserved_of(self, collection: str) -> str:
        """The reserved field of a configured collection, which holds the version."""
        return self.specs[collection].reserved

    def is_on_mongo(self, collection: str) -> bool:
        """Whether MongoDB is the primary of a configured collection."""
        return self.parts.routes[collection].primary is StoreName.MONGO

    def refused(self, collection: str, refusal: UnsupportedOperation) -> None:
        """Reports a call that is refused because DynamoDB is the primary, unless the configuration accepts that."""
        operator, entry = name_of(refusal), self.settings.collections.get(collection)
        if entry is None or operator not in entry.accept_not_portable:
            self.report.publish(CallRefused(collection, operator))

    def is_flipped(self) -> bool:
        """Whether every configured collection has DynamoDB as its primary, and there is one."""
        return bool(self.specs) and not any(map(self.is_on_mongo, self.specs))

    def routes(self) -> dict[str, Route]:
        return self.parts.routes.all()

    def expected(self, collection: str) -> Passage:
        """How a call of a configured collection would be made, as far as is known now."""
        return expected(self.parts.routes, collection)

    def forwarder(self) -> Forwarder:
        """That of the running event loop, made on first use."""
        return self.runtime().forwarder

    async def gated(self, collection: str, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a write to a collection, during which its phase does not change. Raises UnsupportedOperation, with
        `what`, if it is configured and not on MongoDB alone."""
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
        """Whether this process is registered in the running event loop, and a write to a collection that is not
        configured needs no check now."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        return loop in self._runtimes and self.fleet.has_entered()

    async def enter(self, collections: Collection[str]) -> None:
        """Returns when `has_entered`, or MongoDB keeps a marker of the write to come. Raises `ControlError`,
        `JournalError`, `ShadowClosed`."""
        self.runtime()
        await self.fleet.enter(collections)

    def in_session(self, session: Any) -> Router | TransactionRouter:
        """Likewise for calls with the driver's session."""
        return self.runtime().sessions.router(session)

    async def end_transaction(self, session: Any) -> None:
        """See `Sessions.refuse`."""
        await self.runtime().sessions.refuse(session)

    def current(self) -> Router:
        """The router of the running event loop, made on first use."""
        return self.runtime().router
