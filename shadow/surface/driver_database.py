"""The drivers' database object and client apart from their collections: commands, lists, sessions, their options.

Both belong to the driver, and calls are forwarded to it. Ways around shadow are rejected: a command or a pipeline that
would write to, or read from, a configured collection without its other store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, NoReturn

from shadow.errors import UnsupportedOperation
from shadow.surface.forwarded import INSTANCE_ATTRIBUTES
from shadow.surface.futures import at_once
from shadow.surface.names import NotIterable
from shadow.surface.ways_around import (
    CollectionOwner,
    checked_pipeline,
    refuse_past,
    target_of,
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
NOT_COLLECTIONS: Final = frozenset({"delegate", "get_io_loop", "io_loop", "next", "wrap"})
"""Attributes of the drivers' database objects that are neither collections nor supported here."""


class DriverDatabase(NotIterable):
    """Motor's database object apart from its collections; a base of the Shadow."""

    _owner: CollectionOwner

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

        def call() -> Any:
            return getattr(self._owner.driver(), verb)(command, *arguments, **options)

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
        """The driver's own: the collections that are on MongoDB."""
        return self._owner.driver().list_collection_names(*arguments, **options)

    def list_collections(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own: the collections that are on MongoDB."""
        return self._owner.driver().list_collections(*arguments, **options)

    def validate_collection(self, name_or_collection: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own, on MongoDB."""
        return self._owner.driver().validate_collection(_name_of(name_or_collection), *arguments, **options)

    async def create_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Creates the collection on MongoDB, as the driver does, and returns it. Raises CollectionInvalid if it exists,
        UnsupportedOperation for a configured one whose primary is DynamoDB."""
        if not self._owner.is_forwarded(name) and not self._owner.is_on_mongo(name):
            raise UnsupportedOperation(
                f"create_collection({name!r})", "its primary is DynamoDB", hint="create it with `shadow tables create`"
            )
        await self._owner.enter([name])
        await self._owner.driver().create_collection(name, *arguments, **options)
        return self._owner.get_collection(name)

    @at_once
    async def drop_collection(self, name_or_collection: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own, or, for a configured collection, what its `drop` does."""
        name = _name_of(name_or_collection)
        if name in self._owner.configured():
            return await self._owner.get_collection(name).drop()
        await self._owner.enter([name])
        return await self._owner.driver().drop_collection(name, *arguments, **options)

    def dereference(self, dbref: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own; for a configured collection, its `find_one`."""
        named = getattr(dbref, "collection", "")
        if named in self._owner.configured() and getattr(dbref, "database", None) in (None, self._owner.name):
            return self._owner.get_collection(named).find_one({"_id": dbref.id})
        return self._owner.driver().dereference(dbref, *arguments, **options)

    def aggregate(self, pipeline: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own pipeline over the database (`$currentOp` and the like)."""
        target, checked = target_of(pipeline, self._owner.name), checked_pipeline(self._owner, pipeline)

        def call() -> Any:
            return self._owner.driver().aggregate(checked, *arguments, **options)

        return written_elsewhere(self._owner, self, target, call) if target else call()

    def watch(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own change stream. Raises UnsupportedOperation while a configured collection is written to two
        stores: the stream would only have the events of one of them."""
        self._all_forwarded("db.watch")
        return self._owner.driver().watch(*arguments, **options)

    def with_options(self, *arguments: Any, **options: Any) -> NoReturn:
        """Not supported: set options per collection, or in `mongo.url` for all."""
        raise UnsupportedOperation(
            "db.with_options", "options are set per collection", hint='db.get_collection("users", write_concern=...)'
        )

    # --- what the client keeps

    @property
    def client(self) -> ForwardedClient:
        """The driver's client, in which this database is the Shadow."""
        return ForwardedClient(self._owner)

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


class ForwardedClient(NotIterable):
    """The driver's client: other databases and sessions are its own, this database is the Shadow."""

    __slots__ = ("_owner",)

    def __init__(self, owner: CollectionOwner) -> None:
        self._owner = owner

    def __repr__(self) -> str:
        return f"ForwardedClient({self._owner.name!r})"

    def __eq__(self, other: object) -> bool:
        return self._owner == other._owner if type(other) is ForwardedClient else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._owner))

    def __getitem__(self, name: str) -> Any:
        return self.get_database(name)

    def get_database(self, name: str | None = None, *arguments: Any, **options: Any) -> Any:
        """The Shadow for its own database (without options), the driver's for any other."""
        if name in (None, self._owner.name):
            if arguments or options:
                raise UnsupportedOperation("client.get_database(options)", "options are set per collection here")
            return self._owner.database
        return self._owner.driver().client.get_database(name, *arguments, **options)

    def get_default_database(self, default: str | None = None, *arguments: Any, **options: Any) -> Any:
        """See `get_database`."""
        made = self._owner.driver().client.get_default_database(default, *arguments, **options)
        return self._owner.database if made.name == self._owner.name else made

    def drop_database(self, name_or_database: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own. Raises UnsupportedOperation for this one while a collection of it is on two stores."""
        name, client = _name_of(name_or_database), self._owner.driver().client
        if name != self._owner.name:
            return client.drop_database(name, *arguments, **options)
        kept = [each for each in self._owner.configured() if not self._owner.is_forwarded(each)]
        if kept:
            raise UnsupportedOperation("client.drop_database", f"{kept[0]!r} would stay on its other store")
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

    def close(self) -> NoReturn:
        """Not supported: `await shadow.close()` closes the client that it created."""
        raise UnsupportedOperation("client.close", "the client is shared", hint="await shadow.close()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_owner":
            # Attributes that Python itself looks up, even before there is an owner.
            raise AttributeError(name)
        client = self._owner.driver().client
        if name.startswith("_") or hasattr(type(client), name) or name in INSTANCE_ATTRIBUTES:
            return getattr(client, name)
        return self[name]


def _name_of(given: Any) -> Any:
    return given if isinstance(given, str) else getattr(given, "name", given)
