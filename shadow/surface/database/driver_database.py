"""The drivers' database object and client apart from their collections: commands, lists, sessions, their options.

Both belong to the driver, and calls are forwarded to it. Ways around shadow are rejected: a command or a pipeline that
would write to, or read from, a configured collection without its other store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from pymongo.errors import CollectionInvalid

from shadow.errors import ShadowClosed, ShadowError, UnsupportedOperation
from shadow.stores.mongo.drivers import client_class, database_class, handed
from shadow.surface.calls.futures import at_once, begun
from shadow.surface.calls.names import NotIterable
from shadow.surface.cursors.cursor import DocumentCursor
from shadow.surface.database.database_view import OF_COLLECTIONS, GuardedClient, GuardedDatabase, given_options
from shadow.surface.database.local_answers import answer, given, is_own, listed
from shadow.surface.direct.forwarded import INSTANCE_ATTRIBUTES
from shadow.surface.direct.ways_around import (
    CollectionOwner,
    checked_pipeline,
    refuse_past,
    target_of,
    view_hidden,
    written,
    written_elsewhere,
)

__all__ = ["NOT_COLLECTIONS", "DriverDatabase", "ForwardedClient"]

_ABOUT: Final = frozenset({
    "collstats", "compact", "createindexes", "datasize", "listindexes", "plancacheclear", "reindex", "validate",
})  # fmt: skip
"""Commands that name a collection first and neither read nor change its documents. In lower case."""
_READING: Final = frozenset({
    "aggregate", "buildinfo", "connectionstatus", "count", "currentop", "dbhash", "dbstats", "distinct", "explain",
    "find", "getlasterror", "getmore", "hello", "ismaster", "killcursors", "killop", "listcollections", "ping",
    "profile", "serverstatus", "usersinfo",
})  # fmt: skip
"""Commands that change no document, except for `aggregate`, whose pipeline decides. In lower case."""
_OF_ALL: Final = ("applyops", "bulkwrite", "clonecollectionascapped", "dropdatabase", "eval", "mapreduce")
"""Commands that can write to any collection. In lower case."""
NOT_COLLECTIONS: Final = frozenset({"next", "wrap"})
"""Attributes of the drivers' database objects that are neither collections nor supported here."""


class DriverDatabase(NotIterable):
    """Motor's database object apart from its collections; a base of the Shadow."""

    _owner: CollectionOwner

    @property
    def __class__(self) -> type[Any]:
        """The driver's: `isinstance` returns the same as for the driver's own database. `type` does not."""
        return database_class(self._owner.driver_kind())

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    @property
    def name(self) -> str:
        return self._owner.name

    database_name = name

    def __eq__(self, other: object) -> bool:
        """As with the drivers, options do not count."""
        return self._owner is other._owner if isinstance(other, DriverDatabase) else NotImplemented

    def __hash__(self) -> int:
        """That of the driver's own database, which says that it is equal."""
        return hash((self._owner.client, self._owner.name))

    def __bool__(self) -> NoReturn:
        raise NotImplementedError("database objects do not implement truth value testing: compare with None instead")

    def __getitem__(self, name: str) -> Any:
        return self.get_collection(name)

    def __getattr__(self, name: str) -> Any:
        """Motor's `db.users`. As in Motor, a name that begins with an underscore is not a collection. Raises
        `UnsupportedOperation` for members of the driver's database object that are not supported here."""
        if name.startswith("_"):
            raise AttributeError(f"the database has no attribute {name!r}: for a collection, use [{name!r}]")
        if name in NOT_COLLECTIONS:
            raise UnsupportedOperation(f"db.{name}", "it is the driver's own", hint=f'a collection of it: db["{name}"]')
        return self.get_collection(name)

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Returns a collection. Can be called at import time. Further arguments are those of `with_options`.

        A configured name gives a `Collection`; any other name gives the driver's own collection.
        """
        return self._owner.get_collection(name, *arguments, **options)

    def _driver(self) -> Any:
        return self._owner.driver()

    def _begin(self, call: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return self._owner.begin(call)

    # --- commands

    def command(self, command: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own `command`. Raises UnsupportedOperation for one that would read or change the documents of a
        configured collection without its other store."""
        return self._commanded("command", command, arguments, options)

    def cursor_command(self, command: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own `cursor_command`; see `command`."""
        return self._commanded("cursor_command", command, arguments, options)

    def _commanded(self, verb: str, command: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if isinstance(command, str):
            whole = {command: arguments[0] if arguments else options.get("value", 1), **options}
        else:
            whole = dict(command) if isinstance(command, Mapping) else {}
        self._check(whole)
        if isinstance(command, str):
            options = view_hidden(self._owner, options)
        else:
            command = view_hidden(self._owner, command) if isinstance(command, Mapping) else command

        def call() -> Any:
            return getattr(self._driver(), verb)(command, *arguments, **options)

        known = answer(str(next(iter(whole), ""))) if verb == "command" and self._owner.is_flipped() else None
        if known is not None:
            return self._owner.begin(given(self._owner, known, arguments, options))
        names = self._touched(whole)
        return call() if names is None else written(self._owner, names, f"db.command({next(iter(whole))!r})", call)

    def _touched(self, whole: Mapping[str, Any]) -> Collection[str] | None:
        """The collections that a command may change, or read without hiding versions; None: it changes none."""
        name, named = next(iter(whole.items()), ("", None))
        target = target_of(whole.get("pipeline"), self._owner.name)
        if name.lower() in _OF_ALL:
            return self._owner.configured()
        if name.lower() in _READING and not target:
            return (named,) if isinstance(named, str) and named in self._owner.configured() else None
        if name.lower() in _ABOUT:
            return None
        return [each for each in (named, target) if isinstance(each, str) and each] or None

    def _check(self, whole: Mapping[str, Any]) -> None:
        name = str(next(iter(whole), ""))
        if name.lower() in _OF_ALL:
            self._all_forwarded(f"db.command({name!r})")
        elif name.lower() not in _ABOUT:
            refuse_past(self._owner, [next(iter(whole.values()), None)], f"db.command({name!r}) on")
        checked_pipeline(self._owner, whole.get("pipeline"))

    def _all_forwarded(self, what: str) -> None:
        kept = [name for name in self._owner.configured() if not self._owner.is_forwarded(name)]
        if kept:
            raise UnsupportedOperation(what, f"it could change {kept[0]!r} without its other store")

    # --- collections

    def list_collection_names(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own: the collections that are on MongoDB, without shadow's own. If all configured collections
        are on DynamoDB, those and what MongoDB has besides."""
        return self._owner.begin(self._names(arguments, options))

    async def _names(self, arguments: Sequence[Any], options: Mapping[str, Any]) -> list[str]:
        if not self._owner.is_flipped():
            found = await self._driver().list_collection_names(*arguments, **options)
            return [name for name in found if not is_own(name)]
        return [each["name"] for each in await listed(self._owner, self._driver, arguments, options)]

    def list_collections(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own: the collections that are on MongoDB; see `list_collection_names`."""
        if not self._owner.is_flipped():
            return self._driver().list_collections(*arguments, **options)
        return DocumentCursor(self, lambda: listed(self._owner, self._driver, arguments, options), lambda each: each)

    def validate_collection(self, name_or_collection: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own, on MongoDB."""
        return self._driver().validate_collection(_name_of(name_or_collection), *arguments, **options)

    async def create_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Creates the collection on MongoDB, as the driver does, and returns it; a view hides versions and tombstones.
        Raises CollectionInvalid if it exists, also for a configured one whose primary is DynamoDB: its table exists, or
        `shadow tables create` makes it."""
        if not self._owner.is_forwarded(name) and not self._owner.is_on_mongo(name):
            raise CollectionInvalid(f"collection {name} already exists: its primary is DynamoDB")
        await self._owner.enter([name])
        await self._driver().create_collection(name, *arguments, **view_hidden(self._owner, options))
        return self._owner.get_collection(name)

    @at_once
    async def drop_collection(self, name_or_collection: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own, or, for a configured collection, what its `drop` does."""
        name = _name_of(name_or_collection)
        if name in self._owner.configured():
            return await self._owner.get_collection(name)._dropped(*arguments, **options)
        await self._owner.enter([name])
        return await self._driver().drop_collection(name, *arguments, **options)

    @at_once
    async def _dropped(self, *arguments: Any, **options: Any) -> None:
        """Drops what `list_collection_names` names, and each configured collection on both stores. What remains are the
        collections of shadow itself, and the server's own (`system.`)."""
        there = set(await self.list_collection_names()) | set(self._owner.configured())
        for name in sorted(each for each in there if not each.startswith("system.")):
            await self.drop_collection(name, *arguments, **options)

    def dereference(self, dbref: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own; for a configured collection, its `find_one`."""
        named = getattr(dbref, "collection", "")
        if named in self._owner.configured() and getattr(dbref, "database", None) in (None, self._owner.name):
            given = dict(zip(("session", "comment"), arguments, strict=False))
            return self.get_collection(named).find_one({"_id": dbref.id}, **given, **options)
        return self._driver().dereference(dbref, *arguments, **options)

    def aggregate(self, pipeline: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own pipeline over the database (`$currentOp` and the like)."""
        target, checked = target_of(pipeline, self._owner.name), checked_pipeline(self._owner, pipeline)

        def call() -> Any:
            return self._driver().aggregate(checked, *arguments, **options)

        return written_elsewhere(self._owner, self, target, call) if target else call()

    def watch(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own change stream. Raises UnsupportedOperation while a configured collection is written to two
        stores: the stream would only have the events of one of them."""
        self._all_forwarded("db.watch")
        return self._driver().watch(*arguments, **options)

    def with_options(self, *arguments: Any, **options: Any) -> DatabaseView:
        """The same database with other options, which its collections inherit. See `Collection.with_options`."""
        return DatabaseView(self._owner, given_options(arguments, options))

    # --- Motor's own members

    def get_io_loop(self) -> Any:
        """Motor's."""
        return self._motors("get_io_loop").get_io_loop()

    @property
    def io_loop(self) -> Any:
        """Motor's."""
        return self._motors("io_loop").io_loop

    @property
    def delegate(self) -> GuardedDatabase:
        """Motor's: PyMongo's own database, which its GridFS uses, without the configured collections."""
        made = GuardedDatabase(self._owner, self._motors("delegate").delegate, _by_hand)
        if not self._owner.has_entered():
            begun(self, self._entering())
        return made

    async def _entering(self) -> None:
        """GridFS writes past the collections of shadow, so the process is registered before."""
        with suppress(ShadowError):
            await self._owner.enter(())

    def _motors(self, name: str) -> Any:
        if not hasattr(self._owner.driver_kind(), "get_io_loop"):
            raise UnsupportedOperation(f"db.{name}", "it is Motor's own", hint=f'a collection of it: db["{name}"]')
        return self._driver()

    # --- what the client keeps

    @property
    def client(self) -> ForwardedClient:
        """The driver's client, in which this database is the Shadow. The same object each time."""
        found: ForwardedClient = self._owner.client
        return found

    @property
    def codec_options(self) -> Any:
        return self._owner.driver_option("codec_options")

    @property
    def read_preference(self) -> Any:
        return self._owner.driver_option("read_preference")

    @property
    def write_concern(self) -> Any:
        return self._owner.driver_option("write_concern")

    @property
    def read_concern(self) -> Any:
        return self._owner.driver_option("read_concern")


class DatabaseView(DriverDatabase):
    """The database with options, which its collections inherit."""

    def __init__(self, owner: CollectionOwner, options: Mapping[str, Any]) -> None:
        self._owner = owner
        self._options = dict(options)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name!r} of a Shadow, with {', '.join(self._options)})"

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The collection, with the options of this view and those that are given."""
        return self._owner.get_collection(name, **{**self._options, **given_options(arguments, options)})

    def with_options(self, *arguments: Any, **options: Any) -> DatabaseView:
        """See `DriverDatabase.with_options`."""
        return DatabaseView(self._owner, {**self._options, **given_options(arguments, options)})

    def _driver(self) -> Any:
        return self._owner.driver().with_options(**self._options)

    @property
    def codec_options(self) -> Any:
        return self._options.get("codec_options", super().codec_options)

    @property
    def read_preference(self) -> Any:
        return self._options.get("read_preference", super().read_preference)

    @property
    def write_concern(self) -> Any:
        return self._options.get("write_concern", super().write_concern)

    @property
    def read_concern(self) -> Any:
        return self._options.get("read_concern", super().read_concern)


class ForwardedClient(NotIterable):
    """The driver's client: other databases and sessions are its own, this database is the Shadow."""

    __slots__ = ("_owner",)

    def __init__(self, owner: CollectionOwner) -> None:
        self._owner = owner

    @property
    def __class__(self) -> type[Any]:
        """The driver's: `isinstance` returns the same as for the driver's own client."""
        return client_class(self._owner.driver_kind())

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(of a Shadow of {self._owner.name!r})"

    def __eq__(self, other: object) -> bool:
        return self._owner == other._owner if type(other) is ForwardedClient else NotImplemented

    def __hash__(self) -> int:
        """That of the client that was passed in, which says that it is equal."""
        given = self._owner.given_client()
        return hash(id(self._owner) if given is None else given)

    def __getitem__(self, name: str) -> Any:
        return self.get_database(name)

    def get_database(self, name: str | None = None, *arguments: Any, **options: Any) -> Any:
        """The Shadow for its own database, with options if some are given; the driver's for any other."""
        if name in (None, self._owner.name):
            given = given_options(arguments, options)
            return self._owner.database.with_options(**given) if given else self._owner.database
        return self._owner.driver().client.get_database(name, *arguments, **options)

    def get_default_database(self, default: str | None = None, *arguments: Any, **options: Any) -> Any:
        """See `get_database`."""
        made = self._owner.driver().client.get_default_database(default, *arguments, **options)
        return self._owner.database if made.name == self._owner.name else made

    def drop_database(self, name_or_database: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own. While a collection of this database is on two stores, each is dropped by its own `drop`."""
        name, client = _name_of(name_or_database), self._owner.driver().client
        if name != self._owner.name:
            return client.drop_database(name, *arguments, **options)
        if not all(map(self._owner.is_forwarded, self._owner.configured())):
            return self._owner.database._dropped(*arguments, **options)
        names, call = self._owner.configured(), client.drop_database
        return written(self._owner, names, "client.drop_database", call, name, *arguments, **options)

    def bulk_write(self, models: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own. Raises UnsupportedOperation if it writes to a collection of this database that is on two
        stores."""
        call, own = self._owner.driver().client.bulk_write, self._owner.name
        spaces = [str(getattr(each, "_namespace", "")) for each in models] if isinstance(models, Sequence) else []
        names = sorted({each.removeprefix(f"{own}.") for each in spaces if each.startswith(f"{own}.")})
        refuse_past(self._owner, names, "client.bulk_write on")
        if not names:
            return call(models, *arguments, **options)
        return written(self._owner, names, "client.bulk_write", call, models, *arguments, **options)

    def start_session(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own session, whose client is this one. It can be had without MongoDB too: it sends nothing by
        itself."""
        made = self._owner.session_client().start_session(*arguments, **options)
        if hasattr(self._owner.driver_kind(), "get_io_loop"):
            return self._owner.begin(self._own_session(made))
        return handed(made, self)

    async def _own_session(self, made: Any) -> Any:
        session = await made
        session._client = self
        return session

    def server_info(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own; once all configured collections are on DynamoDB, what `buildInfo` answers."""
        known = answer("buildInfo") if self._owner.is_flipped() else None
        if known is not None:
            session = arguments[0] if arguments else options.get("session")
            return self._owner.begin(given(self._owner, known, (), {"session": session}))
        return self._owner.driver().client.server_info(*arguments, **options)

    def close(self) -> Any:
        """What `close` of the Shadow does: awaited with PyMongo's own client, begun at once with Motor. A client that
        was passed in stays open."""
        if not hasattr(self._owner.driver_kind(), "get_io_loop"):
            return self._owner.close()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None  # nothing was started in a loop that could be stopped here
        self._owner.begin(self._owner.close())
        return None

    async def aclose(self) -> None:
        """See `close`."""
        await self._owner.close()

    async def __aenter__(self) -> ForwardedClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._owner.close()

    def _run_operation(self, operation: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own, for its cursors over a collection of a Shadow (GridFS): an operation must name the client
        that sends it."""
        if operation.db == self._owner.name and operation.coll in self._owner.configured():
            raise _by_hand()
        client = self._client("_run_operation")
        operation.client = client
        return client._run_operation(operation, *arguments, **options)

    @property
    def delegate(self) -> Any:
        """Motor's: PyMongo's own client, without what a database made by hand would do with it past shadow. With
        PyMongo's own client a database of that name."""
        if not hasattr(self._owner.driver_kind(), "get_io_loop"):
            return self["delegate"]
        return GuardedClient(self._client("delegate").delegate, _by_hand)

    def _client(self, name: str) -> Any:
        """The driver's client; for a private name, which its own cursors ask for when they are collected, one that may
        be closed."""
        try:
            return self._owner.driver().client
        except (RuntimeError, ShadowClosed):
            last = self._owner.last_driver()
            if last is None or not name.startswith("_"):
                raise
            return last.client

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_owner":
            # Attributes that Python itself looks up, even before there is an owner.
            raise AttributeError(name)
        if name in OF_COLLECTIONS:
            raise _by_hand()
        client = self._client(name)
        if name.startswith("_") or hasattr(type(client), name) or name in INSTANCE_ATTRIBUTES:
            return getattr(client, name)
        return self[name]


def _by_hand() -> UnsupportedOperation:
    return UnsupportedOperation(
        "a collection or a database of the driver's class, made by hand with an object of shadow",
        "its calls would bypass shadow",
        hint="client[name], db[name]",
    )


def _name_of(given: Any) -> Any:
    return given if isinstance(given, str) else getattr(given, "name", given)
