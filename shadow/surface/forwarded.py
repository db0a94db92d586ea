"""What belongs to MongoDB's driver alone: collections that the configuration does not name, the client, and what the
database is asked beside its collections.

A collection that is not named is not migrated by this process, so its calls are not looked at: every attribute is that
of the driver's own collection, of the client that serves the running event loop. Other processes may have it on two
stores, though, and what was proven of it ends before this one writes it: the first write of an event loop, and of each
pause, waits until the process has entered the fleet (`CollectionOwner.enter`).

What is held back is a way around the shim: a pipeline or a command that would write to, or read from, a configured
collection past it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NoReturn

from pymongo.errors import InvalidName, ServerSelectionTimeoutError

from shadow.errors import StoreUnavailable, UnsupportedOperation
from shadow.stores.mongo.drivers import COLLECTION_VERBS
from shadow.surface.stamping import WRITES
from shadow.surface.ways_around import (
    CollectionOwner,
    checked_pipeline,
    entered,
    refuse_past,
    target_of,
    written,
    written_elsewhere,
)

__all__ = [
    "CHANGES",
    "NOT_COLLECTIONS",
    "DriverDatabase",
    "ForwardedClient",
    "ForwardedCollection",
    "NotIterable",
    "check_name",
    "sub_name",
]

CHANGES: Final = WRITES | {
    "create_index", "create_indexes", "create_search_index", "create_search_indexes", "drop", "drop_index",
    "drop_indexes", "drop_search_index", "update_search_index",
}  # fmt: skip
"""Verbs of the drivers' collections that change the collection; an index may delete documents, or refuse some."""
_WRITES_ELSEWHERE: Final = ("aggregate", "aggregate_raw_batches", "rename")
_ABOUT: Final = frozenset({
    "collstats", "compact", "createindexes", "datasize", "listindexes", "plancacheclear", "reindex", "validate",
})  # fmt: skip
"""Commands that name a collection first and read and change no document of it. In small letters."""
_READING: Final = frozenset({
    "aggregate", "buildinfo", "connectionstatus", "count", "currentop", "dbhash", "dbstats", "distinct", "explain",
    "find", "getlasterror", "getmore", "hello", "ismaster", "killcursors", "killop", "listcollections", "ping",
    "profile", "serverstatus", "usersinfo",
})  # fmt: skip
"""Commands that change no document, but for `aggregate`, whose pipeline says which. In small letters."""
_OF_ALL: Final = ("applyops", "bulkwrite", "clonecollectionascapped", "dropdatabase", "eval", "mapreduce")
"""Commands that can write to any collection. In small letters."""


NOT_COLLECTIONS: Final = frozenset({"delegate", "get_io_loop", "io_loop", "next", "wrap"})
"""Attributes of the drivers' database objects that are neither collections nor here."""


class NotIterable:
    """The base of what has `__getitem__` and is no sequence: without this, `for` and `in` would ask for `[0]`, `[1]`
    and so on, without an end. As PyMongo's own objects, these raise TypeError."""

    __slots__ = ()

    __iter__: Final = None
    __contains__: Final = None
    __reversed__: Final = None


def check_name(name: Any) -> None:
    """As the drivers do, when the collection is made. Raises TypeError for a name that is no text, InvalidName for one
    that MongoDB refuses (PyMongo's `Collection.__init__`)."""
    if not isinstance(name, str):
        raise TypeError(f"name must be an instance of str, not {type(name).__name__}")
    if not name or ".." in name:
        raise InvalidName("collection names cannot be empty")
    if "$" in name and not name.startswith(("oplog.$main", "$cmd")):
        raise InvalidName(f"collection names must not contain '$': {name!r}")
    if name[0] == "." or name[-1] == ".":
        raise InvalidName(f"collection names must not start or end with '.': {name!r}")
    if "\x00" in name:
        raise InvalidName("collection names must not contain the null character")


def sub_name(name: str, sub: Any) -> str:
    """The name of a sub-collection. Raises TypeError for what is no text, as Motor does."""
    if not isinstance(sub, str):
        raise TypeError(f"name must be an instance of str, not {type(sub).__name__}")
    return f"{name}.{sub}"


class ForwardedCollection(NotIterable):
    """The driver's own collection of a name that is not configured. Usable at import time; every verb, option and
    result is the driver's: Motor's futures, or PyMongo's coroutines."""

    __slots__ = ("_made", "_name", "_options", "_owner")

    def __init__(self, name: str, owner: CollectionOwner, options: Mapping[str, Any] | None = None) -> None:
        """`options`: those of `with_options`. Raises TypeError, InvalidName: see `check_name`."""
        check_name(name)
        self._name = name
        self._owner = owner
        self._options = dict(options or {})
        self._made: tuple[Any, Any] | None = None

    def _own(self) -> Any:
        database = self._owner.driver()
        if self._made is None or self._made[0] is not database:
            self._made = (database, database.get_collection(self._name, **self._options))
        return self._made[1]

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def __class__(self) -> type[Any]:
        """The driver's: `isinstance` answers as it does for the driver's own collection."""
        return self._owner.driver_kind()

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    @property
    def name(self) -> str:
        return self._name

    @property
    def full_name(self) -> str:
        return f"{self._owner.name}.{self._name}"

    @property
    def database(self) -> Any:
        return self._owner.database

    @property
    def codec_options(self) -> Any:
        return self._kept("codec_options")

    @property
    def read_preference(self) -> Any:
        return self._kept("read_preference")

    @property
    def write_concern(self) -> Any:
        return self._kept("write_concern")

    @property
    def read_concern(self) -> Any:
        return self._kept("read_concern")

    def _kept(self, name: str) -> Any:
        given = self._options.get(name)
        return self._owner.driver_option(name) if given is None else given

    def __repr__(self) -> str:
        return f"ForwardedCollection({self.full_name!r})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not ForwardedCollection:
            return NotImplemented
        return (self._owner, self._name) == (other._owner, other._name)

    def __hash__(self) -> int:
        return hash((id(self._owner), self._name))

    def __bool__(self) -> NoReturn:
        raise NotImplementedError("collections do not implement truth value testing: compare with None instead")

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        raise TypeError(f"there is no such verb: {self._name.rpartition('.')[2]!r} (of collection {self._name!r})")

    # --- what it does -------------------------------------------------------------------------------------------

    def with_options(
        self,
        codec_options: Any = None,
        read_preference: Any = None,
        write_concern: Any = None,
        read_concern: Any = None,
    ) -> ForwardedCollection:
        """The same collection with other options, all of them the driver's."""
        given = {
            "codec_options": codec_options,
            "read_preference": read_preference,
            "write_concern": write_concern,
            "read_concern": read_concern,
        }
        asked = {name: value for name, value in given.items() if value is not None}
        return ForwardedCollection(self._name, self._owner, {**self._options, **asked})

    def __getitem__(self, name: str) -> Any:
        return self._owner.get_collection(sub_name(self._name, name))

    def __getattr__(self, name: str) -> Any:
        """The driver's own attribute, or, as in the driver, a sub-collection."""
        if name.startswith("_"):
            raise AttributeError(
                f"ForwardedCollection has no attribute {name!r}: a collection of it is {name!r} in brackets"
            )
        if not hasattr(self._owner.driver_kind(), name) and name not in _INSTANCE:
            return self[name]
        return self._attribute(name)

    def _attribute(self, name: str) -> Any:
        found = getattr(self._own(), name)
        if name in CHANGES:
            found = functools.partial(entered, self._owner, (self._name,), found)
        elif name in _WRITES_ELSEWHERE:
            found = self._checked(name, found)
        return found if self._owner.needs_mongo() or not callable(found) else _explained(found, self._name)

    def _checked(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        name = "new_name" if verb == "rename" else "pipeline"

        def checked(*arguments: Any, **options: Any) -> Any:
            given = list(arguments)
            target = first = given[0] if given else options.get(name)
            if verb == "rename":
                refuse_past(self._owner, [target], "rename to")
            else:
                target, first = target_of(first, self._owner.name), checked_pipeline(self._owner, first)
                if given:
                    given[0] = first
                elif name in options:
                    options[name] = first
            return self._gated(verb, target, lambda: call(*given, **options))

        return checked

    def _gated(self, verb: str, target: Any, call: Callable[[], Any]) -> Any:
        """A write to another collection, during which the phase of that one does not change, if it is configured."""
        if not isinstance(target, str) or not target:
            return call()
        if verb != "rename":
            return written_elsewhere(self._owner, self, target, call)
        if target not in self._owner.configured():
            return entered(self._owner, (self._name, target), call)

        async def renamed() -> Any:
            await self._owner.enter((self._name,))
            return await self._owner.gated(target, f"rename to {target!r}", call)

        return renamed()


class _Verb:
    """An attribute of the driver's collections. By `__getattr__` it would be found as well, after a lookup that fails,
    which costs more than all the rest."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, collection: ForwardedCollection | None, kind: type[Any]) -> Any:
        return self if collection is None else collection._attribute(self._name)


for _name in COLLECTION_VERBS - vars(ForwardedCollection).keys():
    setattr(ForwardedCollection, _name, _Verb(_name))

_INSTANCE: Final = ("delegate", "io_loop")
"""Attributes that Motor's objects have and their classes have not."""


def _explained(call: Callable[..., Any], collection: str) -> Callable[..., Any]:
    """Once no configured collection needs MongoDB it may be gone: that is said, with the collection that needs it."""

    def explained(*arguments: Any, **options: Any) -> Any:
        made = call(*arguments, **options)
        return _waited(made, collection) if inspect.isawaitable(made) and not hasattr(made, "to_list") else made

    return explained


async def _waited(made: Awaitable[Any], collection: str) -> Any:
    try:
        return await made
    except ServerSelectionTimeoutError as error:
        raise StoreUnavailable(
            f"{collection}: the configuration does not name it, so it is on MongoDB alone, which does not answer",
            hint=f"name it under `collections` and migrate it, or keep MongoDB for it ({type(error).__name__})",
        ) from error


class DriverDatabase(NotIterable):
    """What Motor's database object answers beside its collections; a base of the Shadow."""

    _owner: CollectionOwner

    # --- commands

    def command(self, command: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own `command`. Raises UnsupportedOperation for one that would read or change the documents of a
        configured collection past its other store."""
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
        """The collections that a command may change or read past their versions; None: it changes none."""
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
        """Makes the collection on MongoDB, as the driver does, and answers it. Raises CollectionInvalid if it exists,
        UnsupportedOperation for a configured one whose primary is DynamoDB."""
        if not self._owner.is_forwarded(name) and not self._owner.is_on_mongo(name):
            raise UnsupportedOperation(
                f"create_collection({name!r})", "its primary is DynamoDB", hint="`shadow tables create` makes its table"
            )
        await self._owner.enter([name])
        await self._owner.driver().create_collection(name, *arguments, **options)
        return self._owner.get_collection(name)

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
        """The driver's own pipeline over the database (`$currentOp` and its kin)."""
        target, checked = target_of(pipeline, self._owner.name), checked_pipeline(self._owner, pipeline)

        def call() -> Any:
            return self._owner.driver().aggregate(checked, *arguments, **options)

        return written_elsewhere(self._owner, self, target, call) if target else call()

    def watch(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own change stream. Raises UnsupportedOperation as long as a configured collection is written by
        two stores: its events would be those of one of them."""
        self._all_forwarded("db.watch")
        return self._owner.driver().watch(*arguments, **options)

    def with_options(self, *arguments: Any, **options: Any) -> NoReturn:
        """Not supported: ask for options by collection, or in `mongo.url` for all."""
        raise UnsupportedOperation(
            "db.with_options", "options are a collection's", hint='db.get_collection("users", write_concern=...)'
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
                raise UnsupportedOperation("client.get_database(options)", "options are a collection's here")
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
        """The driver's own. Raises UnsupportedOperation if it writes a collection of this database that is on two
        stores."""
        call, own = self._owner.driver().client.bulk_write, self._owner.name
        spaces = [str(getattr(each, "_namespace", "")) for each in models] if isinstance(models, Sequence) else []
        names = sorted({each.removeprefix(f"{own}.") for each in spaces if each.startswith(f"{own}.")})
        refuse_past(self._owner, names, "client.bulk_write on")
        if not names:
            return call(models, *arguments, **options)
        return written(self._owner, names, "client.bulk_write", call, models, *arguments, **options)

    def close(self) -> NoReturn:
        """Not here: `await shadow.close()` ends the client that it made."""
        raise UnsupportedOperation("client.close", "the client is shared", hint="await shadow.close()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_owner":
            # What Python looks for by itself, also before there is an owner.
            raise AttributeError(name)
        client = self._owner.driver().client
        if name.startswith("_") or hasattr(type(client), name) or name in _INSTANCE:
            return getattr(client, name)
        return self[name]


def _name_of(given: Any) -> Any:
    return given if isinstance(given, str) else getattr(given, "name", given)
