"""What belongs to MongoDB's driver alone: collections that the configuration does not name, the client, and what the
database is asked beside its collections.

A collection that is not named is never migrated, so nothing here looks at its calls: every attribute is that of the
driver's own collection, of the client that serves the running event loop. What is held back is a way around the shim:
a pipeline or a command that would write to, or read from, a configured collection past it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from pymongo.errors import ServerSelectionTimeoutError

from shadow.cursor import DocumentCursor
from shadow.errors import StoreUnavailable, UnsupportedOperation
from shadow.stamping import joins_hidden
from shadow.stores.mongo import COLLECTION_VERBS

__all__ = [
    "NOT_COLLECTIONS",
    "DriverDatabase",
    "ForwardedClient",
    "ForwardedCollection",
    "Owner",
    "collections_of",
    "target_of",
]

_WRITES_ELSEWHERE: Final = ("aggregate", "aggregate_raw_batches", "rename")
_ABOUT: Final = frozenset({
    "collstats", "compact", "createindexes", "datasize", "listindexes", "plancacheclear", "reindex", "validate",
})  # fmt: skip
"""Commands that name a collection first and read and change no document of it. In small letters."""
_OF_ALL: Final = ("applyops", "bulkwrite", "clonecollectionascapped", "dropdatabase", "eval", "mapreduce")
"""Commands that can write to any collection. In small letters."""


NOT_COLLECTIONS: Final = frozenset({"delegate", "get_io_loop", "io_loop", "next", "wrap"})
"""Attributes of the drivers' database objects that are neither collections nor here."""


class Owner(Protocol):
    """The Shadow that made these."""

    @property
    def name(self) -> str:
        """Of the database."""

    def driver(self) -> Any:
        """The driver's database object for the running event loop. Raises `ShadowClosed`, and RuntimeError where there
        is no loop and no client was handed in."""

    def driver_kind(self) -> type[Any]:
        """The class of the driver's collections."""

    def driver_option(self, name: str) -> Any:
        """What the client keeps: "codec_options", "read_preference", "write_concern", "read_concern"."""

    def needs_mongo(self) -> bool:
        """Whether a configured collection has MongoDB as one of its stores."""

    def configured(self) -> Collection[str]:
        """The names of the configured collections."""

    def is_forwarded(self, collection: str) -> bool:
        """Whether a collection is MongoDB's alone: not configured, or in phase `off` there, and not written by two
        stores by any process."""

    def gated(self, collection: str, what: str, call: Callable[[], Awaitable[Any]]) -> Coroutine[Any, Any, Any]:
        """Makes a write to a collection, during which its phase does not change. Raises UnsupportedOperation, with
        `what`, if it is configured and not MongoDB's alone."""

    def reserved_of(self, collection: str) -> str:
        """The field of the version in a configured collection."""

    def is_on_mongo(self, collection: str) -> bool:
        """Whether MongoDB is the primary of a configured collection."""

    def get_collection(self, name: str) -> Any: ...


class ForwardedCollection:
    """The driver's own collection of a name that is not configured. Usable at import time; every verb, option and
    result is the driver's: Motor's futures, or PyMongo's coroutines."""

    __slots__ = ("_made", "_name", "_options", "_owner")

    def __init__(self, name: str, owner: Owner, options: Mapping[str, Any] | None = None) -> None:
        """`options`: those of `with_options`. Raises TypeError for a name that is no text."""
        if not isinstance(name, str):
            raise TypeError(f"name must be an instance of str, not {type(name).__name__}")
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
    def database(self) -> Owner:
        return self._owner

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
        return self._owner.get_collection(f"{self._name}.{name}")

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
        if name in _WRITES_ELSEWHERE:
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
                target, first = target_of(first), checked_pipeline(self._owner, first)
                if given:
                    given[0] = first
                elif name in options:
                    options[name] = first
            return self._gated(verb, target, lambda: call(*given, **options))

        return checked

    def _gated(self, verb: str, target: Any, call: Callable[[], Any]) -> Any:
        """A write to another collection, during which the phase of that one does not change, if it is configured."""
        if not isinstance(target, str) or target not in self._owner.configured():
            return call()
        if verb == "rename":
            return self._owner.gated(target, f"rename to {target!r}", call)

        async def documents() -> list[Any]:
            made = call()
            made = await made if inspect.isawaitable(made) else made
            return list(await made.to_list(None))

        def gated() -> Awaitable[list[Any]]:
            return self._owner.gated(target, f"aggregate into {target!r}", documents)

        return DocumentCursor(self, gated, lambda document: document)


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


# --- ways around ------------------------------------------------------------------------------------------------


def target_of(pipeline: Any) -> str | None:
    """The collection of the same database that a pipeline writes to, by `$out` or `$merge`; "" for another database's.
    None: it writes to none."""
    if not isinstance(pipeline, Sequence) or not pipeline or not isinstance(pipeline[-1], Mapping):
        return None
    last = pipeline[-1]
    if "$out" in last:
        return _in_database(last["$out"], "coll")
    if "$merge" in last:
        into = last["$merge"]
        return _in_database(into.get("into") if isinstance(into, Mapping) else into, "coll")
    return None


def _in_database(named: Any, key: str) -> str:
    if isinstance(named, Mapping):
        return "" if named.get("db") is not None else str(named.get(key, ""))
    return str(named)


def collections_of(pipeline: Any) -> Iterator[str]:
    """Every collection that a pipeline reads beside its own, at any depth."""
    if isinstance(pipeline, Mapping):
        for name, value in pipeline.items():
            if (
                name in ("$lookup", "$graphLookup")
                and isinstance(value, Mapping)
                and isinstance(value.get("from"), str)
            ):
                yield value["from"]
            elif name == "$unionWith":
                named = value.get("coll") if isinstance(value, Mapping) else value
                if isinstance(named, str):
                    yield named
            yield from collections_of(value)
    elif isinstance(pipeline, Sequence) and not isinstance(pipeline, str | bytes):
        for each in pipeline:
            yield from collections_of(each)


def refuse_past(owner: Owner, names: Sequence[Any], what: str) -> None:
    """Raises UnsupportedOperation if one of the collections is not MongoDB's alone."""
    for name in names:
        if isinstance(name, str) and not owner.is_forwarded(name):
            raise UnsupportedOperation(
                f"{what} {name!r}",
                "the configuration names it, and this would go past its other store, or its documents' versions",
                hint=f"write to it through the collection itself: shadow[{name!r}]",
            )


def checked_pipeline(owner: Owner, pipeline: Any) -> Any:
    """`pipeline`, with the versions of configured collections hidden in what it joins. Raises UnsupportedOperation if
    it writes to a configured collection past its other store, or reads one whose documents are on DynamoDB."""
    target = target_of(pipeline)
    if target:
        refuse_past(owner, [target], "aggregate into")
    for name in collections_of(pipeline):
        if not owner.is_forwarded(name) and not owner.is_on_mongo(name):
            raise UnsupportedOperation(
                f"aggregate with {name!r}", "its primary is DynamoDB, and MongoDB may hold something older"
            )
    joined = {name for name in collections_of(pipeline) if not owner.is_forwarded(name)}
    return (
        joins_hidden(pipeline, lambda name: owner.reserved_of(name) if name in joined else None) if joined else pipeline
    )


class DriverDatabase:
    """What Motor's database object answers beside its collections; a base of the Shadow."""

    _owner: Owner

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

        named = next(iter(whole.values()), None)
        if isinstance(named, str) and named in self._owner.configured() and next(iter(whole)).lower() not in _ABOUT:
            return self._owner.gated(named, f"db.command({next(iter(whole))!r}) on {named!r}", call)
        return call()

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
        await self._owner.driver().create_collection(name, *arguments, **options)
        return self._owner.get_collection(name)

    async def drop_collection(self, name_or_collection: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own, or, for a configured collection, what its `drop` does."""
        name = _name_of(name_or_collection)
        if name in self._owner.configured():
            return await self._owner.get_collection(name).drop()
        return await self._owner.driver().drop_collection(name, *arguments, **options)

    def dereference(self, dbref: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own; for a configured collection, its `find_one`."""
        named = getattr(dbref, "collection", "")
        if named in self._owner.configured() and getattr(dbref, "database", None) in (None, self._owner.name):
            return self._owner.get_collection(named).find_one({"_id": dbref.id})
        return self._owner.driver().dereference(dbref, *arguments, **options)

    def aggregate(self, pipeline: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own pipeline over the database (`$currentOp` and its kin)."""
        pipeline = checked_pipeline(self._owner, pipeline)
        return self._owner.driver().aggregate(pipeline, *arguments, **options)

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


class ForwardedClient:
    """The driver's client: other databases and sessions are its own, this database is the Shadow."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Owner) -> None:
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
            return self._owner
        return self._owner.driver().client.get_database(name, *arguments, **options)

    def get_default_database(self, default: str | None = None, *arguments: Any, **options: Any) -> Any:
        """See `get_database`."""
        made = self._owner.driver().client.get_default_database(default, *arguments, **options)
        return self._owner if made.name == self._owner.name else made

    def drop_database(self, name_or_database: Any, *arguments: Any, **options: Any) -> Any:
        """The driver's own. Raises UnsupportedOperation for this one while a collection of it is on two stores."""
        name = _name_of(name_or_database)
        if name == self._owner.name:
            kept = [each for each in self._owner.configured() if not self._owner.is_forwarded(each)]
            if kept:
                raise UnsupportedOperation("client.drop_database", f"{kept[0]!r} would stay on its other store")
        return self._owner.driver().client.drop_database(name, *arguments, **options)

    def close(self) -> NoReturn:
        """Not here: `await shadow.close()` ends the client that it made."""
        raise UnsupportedOperation("client.close", "the client is shared", hint="await shadow.close()")

    def __getattr__(self, name: str) -> Any:
        client = self._owner.driver().client
        if name.startswith("_") or hasattr(type(client), name) or name in _INSTANCE:
            return getattr(client, name)
        return self[name]


def _name_of(given: Any) -> Any:
    return given if isinstance(given, str) else getattr(given, "name", given)
