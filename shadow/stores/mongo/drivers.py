"""Both drivers of MongoDB, Motor and PyMongo's own async client: clients, classes, and signatures of their methods."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, Final

from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous import client_session
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.database import AsyncDatabase

__all__ = [
    "COLLECTION_VERBS",
    "bound_session",
    "call_signature",
    "client_class",
    "collection_class",
    "connect",
    "cursor_class",
    "database_class",
    "driver_of",
    "handed",
    "in_progress",
    "is_of_client",
    "is_session",
    "plain_client_class",
    "unbind",
]

_BOUND: Final[ContextVar[Any] | None] = getattr(client_session, "_SESSION", None)
"""Where PyMongo keeps the session of `session.bind()` (since 4.17), which it adds to every call without one."""


def connect(url: str, driver: str) -> Any:
    """A client of our own: `motor` or `pymongo` (its async client). Connects on first use."""
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        return AsyncIOMotorClient(url)
    return AsyncMongoClient(url)


def driver_of(client: Any) -> str:
    """The driver of a client: `motor` or `pymongo`."""
    return "motor" if type(client).__module__.startswith("motor") else "pymongo"


def collection_class(driver: str) -> type[Any]:
    """The class of a driver's collections."""
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorCollection

        return AsyncIOMotorCollection
    return AsyncCollection


def is_session(value: Any) -> bool:
    """Whether this is a session of either driver. Motor itself tells its own by the name of the class."""
    return isinstance(value, AsyncClientSession) or type(value).__name__.endswith("MotorClientSession")


def is_of_client(session: Any, client: Any) -> bool:
    """Whether the client has made the session. Motor's say so by PyMongo's under them."""
    inner = getattr(session, "delegate", None)
    return session._client is client if inner is None else inner.client is client.delegate


def bound_session() -> Any:
    """The session that the application has bound to its calls; None: there is none."""
    return None if _BOUND is None else _BOUND.get()


def unbind() -> None:
    """In the task of one call: the driver adds no bound session to it."""
    if _BOUND is not None and _BOUND.get() is not None:
        _BOUND.set(None)


def in_progress(session: Any) -> bool:
    """Whether the transaction of a session has sent anything to MongoDB."""
    transaction = getattr(session, "delegate", session)._transaction
    return bool(transaction.active() and not transaction.starting())


def database_class(collections: type[Any]) -> type[Any]:
    """The class of the databases whose collections are of a class."""
    if collections is AsyncCollection:
        return AsyncDatabase
    from motor.motor_asyncio import AsyncIOMotorDatabase

    return AsyncIOMotorDatabase


def client_class(collections: type[Any]) -> type[Any]:
    """The class of the clients whose collections are of a class."""
    if collections is AsyncCollection:
        return AsyncMongoClient
    from motor.motor_asyncio import AsyncIOMotorClient

    return AsyncIOMotorClient


def plain_client_class() -> type[Any]:
    """The class of PyMongo's clients under Motor's."""
    return MongoClient


def cursor_class(collections: type[Any], *, command: bool) -> type[Any]:
    """The class of the cursors of collections of a class; `command`: of those over the answer of a command, as
    `aggregate` gives them."""
    if collections is AsyncCollection:
        return AsyncCommandCursor if command else AsyncCursor
    from motor.motor_asyncio import AsyncIOMotorCursor, AsyncIOMotorLatentCommandCursor

    return AsyncIOMotorLatentCommandCursor if command else AsyncIOMotorCursor


COLLECTION_VERBS: Final = frozenset(name for name in dir(AsyncCollection) if not name.startswith("_"))
"""The public attributes of the drivers' collections; Motor's have a few more."""


@functools.cache
def call_signature(verb: str) -> inspect.Signature:
    """The signature of a method of the drivers' collections; for `find`, that of its cursor."""
    return inspect.signature(AsyncCursor.__init__ if verb == "find" else getattr(AsyncCollection, verb))


# --- sessions whose `client` is what the application has in the place of its client ----------------------------------

_HANDED: Final = "_shadow_client"
_DRIVERS: Final = "_shadow_driver_session"
"""Attributes of a session: what its `client` is, and itself as the driver made it."""


class HandedSession(AsyncClientSession):
    """Everything but `client` is the driver's. A callback of `with_transaction` reaches its collections by it."""

    @property
    def client(self) -> Any:
        """What the application has in the place of its client."""
        return vars(self)[_HANDED]


class BoundSession(HandedSession):
    """Where the driver has `bind` (since 4.17)."""

    @contextlib.asynccontextmanager
    async def bind(self, *arguments: Any, **options: Any) -> AsyncIterator[BoundSession]:  # type: ignore[override]
        """The driver compares the `client` of a bound session with itself, so it is given the session as it made it."""
        async with vars(self)[_DRIVERS].bind(*arguments, **options):
            yield self


def handed(session: AsyncClientSession, client: Any) -> AsyncClientSession:
    """The same session, with another `client`."""
    state = vars(session)
    own = object.__new__(AsyncClientSession)
    own.__dict__ = state
    state.update({_HANDED: client, _DRIVERS: own})
    session.__class__ = BoundSession if hasattr(AsyncClientSession, "bind") else HandedSession
    return session
