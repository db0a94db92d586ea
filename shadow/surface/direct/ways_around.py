"""Writes that MongoDB's driver makes without the router, and ways around a configured collection.

This module does two things. A collection that this process does not migrate may be on two stores for other processes,
so it must become unverified before this process writes to it: the first write of an event loop, and of each pause,
waits until the process has entered the fleet. And a call that would write to, or read from, a configured collection
without its other store is rejected; where only MongoDB is written, the phase does not change during the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Protocol

from shadow.errors import UnsupportedOperation
from shadow.surface.cursors.cursor import DocumentCursor
from shadow.surface.direct.stamping import hidden_in, joins_hidden

__all__ = [
    "CollectionOwner",
    "checked_pipeline",
    "collections_of",
    "entered",
    "entered_first",
    "joins_of",
    "refuse_past",
    "target_of",
    "view_hidden",
    "written",
    "written_elsewhere",
]


class CollectionOwner(Protocol):
    """The Shadow that created these collections."""

    @property
    def name(self) -> str:
        """The name of the database."""

    @property
    def database(self) -> Any:
        """The object that replaces the driver's database object for the application."""

    @property
    def client(self) -> Any:
        """The object that replaces the driver's client for the application."""

    def driver(self) -> Any:
        """The driver's database object for the running event loop. Raises `ShadowClosed`, and RuntimeError if there is
        no loop and no client was passed in."""

    def given_client(self) -> Any:
        """The client that was passed in, or None."""

    def session_client(self) -> Any:
        """The driver's client that makes the application's sessions, whether or not MongoDB is there."""

    def last_driver(self) -> Any:
        """What `driver` has returned last, for what is asked when no event loop runs any more; None if nothing."""

    def begin(self, call: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        """A call as the driver gives it: PyMongo's coroutine, or with Motor a future of a call that has begun."""

    def driver_kind(self) -> type[Any]:
        """The class of the driver's collections."""

    def driver_option(self, name: str) -> Any:
        """An option of the client: "codec_options", "read_preference", "write_concern", "read_concern"."""

    def needs_mongo(self) -> bool:
        """Whether a configured collection has MongoDB as one of its stores."""

    def configured(self) -> Collection[str]:
        """The names of the configured collections."""

    def is_forwarded(self, collection: str) -> bool:
        """Whether a collection is only on MongoDB: not configured, or in phase `off` there, and no process writes it to
        two stores."""

    def gated(self, collection: str, what: str, call: Callable[[], Awaitable[Any]]) -> Coroutine[Any, Any, Any]:
        """Executes a write to a collection, during which its phase does not change. Raises UnsupportedOperation, with
        `what`, if it is configured and not only on MongoDB."""

    def has_entered(self) -> bool:
        """Whether a write to a collection that is not configured need not wait for `enter` now. Does no I/O."""

    async def enter(self, collections: Collection[str]) -> None:
        """Returns when the fleet knows that this process may write to these collections, or MongoDB holds a mark of it.
        Empty: it is unknown which. Raises `ControlError`, `JournalError`, `ShadowClosed`."""

    def reserved_of(self, collection: str) -> str:
        """The field of the version in a configured collection."""

    def is_flipped(self) -> bool:
        """Whether every configured collection has DynamoDB as its primary, and there is one."""

    async def close(self) -> None:
        """Ends what was started in the running event loop."""

    def is_on_mongo(self, collection: str) -> bool:
        """Whether MongoDB is the primary of a configured collection."""

    def refused(self, collection: str, refusal: UnsupportedOperation) -> None:
        """Notes a call that is refused because DynamoDB is the primary of a configured collection."""

    def get_collection(self, name: str) -> Any: ...


# --- the first write -----------------------------------------------------------------------------------------------


def entered(
    owner: CollectionOwner, names: Collection[str], call: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """The result of the driver's own `call`, PyMongo's coroutine or Motor's future, once the process has entered the
    fleet. `names`: the collections that it may write to."""
    if not hasattr(owner.driver_kind(), "get_io_loop"):
        return _entered(owner, names, call, arguments, options)
    if owner.has_entered():
        return call(*arguments, **options)
    # Motor's calls start before they are awaited.
    return owner.begin(_entered(owner, names, call, arguments, options))


async def entered_first(
    owner: CollectionOwner, names: Collection[str], call: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """See `entered`, as the coroutine function that PyMongo's own verb is."""
    return await _entered(owner, names, call, arguments, options)


async def _entered(
    owner: CollectionOwner,
    names: Collection[str],
    call: Callable[..., Any],
    arguments: Sequence[Any],
    options: Mapping[str, Any],
) -> Any:
    # Checked here, and not when the coroutine is created: it may be awaited much later.
    if not owner.has_entered():
        await owner.enter(names)
    return await call(*arguments, **options)


def written(
    owner: CollectionOwner, names: Collection[str], what: str, call: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """See `entered`; the phase of those of `names` that are configured does not change meanwhile. `what` is rejected if
    one of them is not only on MongoDB."""
    configured = [each for each in names if each in owner.configured()]
    if not configured:
        return entered(owner, names, call, *arguments, **options)
    others = [each for each in names if each not in configured]
    return owner.begin(_gated(owner, configured, others, what, lambda: call(*arguments, **options)))


async def _gated(
    owner: CollectionOwner, configured: Sequence[str], others: Collection[str], what: str, call: Callable[[], Any]
) -> Any:
    if not configured:
        if others:
            await owner.enter(others)
        return await call()
    first, *rest = configured
    return await owner.gated(first, f"{what} on {first!r}", lambda: _gated(owner, rest, others, what, call))


def written_elsewhere(owner: CollectionOwner, collection: Any, target: str, call: Callable[[], Any]) -> DocumentCursor:
    """The cursor of a pipeline that ends in `$out` or `$merge`, made by the driver's own `call`: a write to `target`, a
    collection of this database. `collection`: whose cursor it is."""

    async def documents() -> list[Any]:
        made = call()
        made = await made if inspect.isawaitable(made) else made
        return [each async for each in made]

    async def gated() -> list[Any]:
        return list(await owner.gated(target, f"aggregate into {target!r}", documents))

    return DocumentCursor(collection, gated, lambda document: document)


# --- ways around ------------------------------------------------------------------------------------------------


def target_of(pipeline: Any, database: str) -> str | None:
    """The collection of `database` that a pipeline on it writes to, by `$out` or `$merge`; "" for one of another
    database. None: it writes to none."""
    if not isinstance(pipeline, Sequence) or not pipeline or not isinstance(pipeline[-1], Mapping):
        return None
    last = pipeline[-1]
    if "$out" in last:
        return _in_database(last["$out"], database)
    if "$merge" in last:
        into = last["$merge"]
        return _in_database(into.get("into") if isinstance(into, Mapping) else into, database)
    return None


def _in_database(named: Any, database: str) -> str:
    if isinstance(named, Mapping):
        return "" if named.get("db") not in (None, database) else str(named.get("coll", ""))
    return str(named)


def collections_of(pipeline: Any) -> Iterator[str]:
    """Every collection that a pipeline reads besides its own, at any depth."""
    return (collection for _, collection in joins_of(pipeline))


def joins_of(pipeline: Any) -> Iterator[tuple[str, str]]:
    """The same, each after the name of the stage that reads it."""
    if isinstance(pipeline, Mapping):
        for name, value in pipeline.items():
            if (
                name in ("$lookup", "$graphLookup")
                and isinstance(value, Mapping)
                and isinstance(value.get("from"), str)
            ):
                yield name, value["from"]
            elif name == "$unionWith":
                named = value.get("coll") if isinstance(value, Mapping) else value
                if isinstance(named, str):
                    yield name, named
            yield from joins_of(value)
    elif isinstance(pipeline, Sequence) and not isinstance(pipeline, str | bytes):
        for each in pipeline:
            yield from joins_of(each)


def refuse_past(owner: CollectionOwner, names: Sequence[Any], what: str) -> None:
    """Raises UnsupportedOperation if one of the collections is not only on MongoDB."""
    for name in names:
        if isinstance(name, str) and not owner.is_forwarded(name):
            raise UnsupportedOperation(
                f"{what} {name!r}",
                "the configuration names it, and this would bypass its other store, or the versions of its documents",
                hint=f"write to it through the collection itself: shadow[{name!r}]",
            )


def checked_pipeline(owner: CollectionOwner, pipeline: Any) -> Any:
    """`pipeline`, with the versions of configured collections hidden in its joins. Raises UnsupportedOperation if it
    writes to a configured collection without its other store, or reads one whose documents are on DynamoDB."""
    target = target_of(pipeline, owner.name)
    if target:
        refuse_past(owner, [target], "aggregate into")
    for name in collections_of(pipeline):
        if not owner.is_forwarded(name) and not owner.is_on_mongo(name):
            refusal = UnsupportedOperation(
                f"aggregate with {name!r}", "its primary is DynamoDB, and MongoDB may hold older data"
            )
            owner.refused(name, refusal)
            raise refusal
    joined = {name for name in collections_of(pipeline) if not owner.is_forwarded(name)}
    return (
        joins_hidden(pipeline, lambda name: owner.reserved_of(name) if name in joined else None) if joined else pipeline
    )


def view_hidden(owner: CollectionOwner, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a command that creates or changes a collection. If it is a view, the pipeline that MongoDB keeps
    hides versions and tombstones of configured collections: no call that reads the view could."""
    source, pipeline = options.get("viewOn"), options.get("pipeline", [])
    if not isinstance(source, str) or not isinstance(pipeline, Sequence) or isinstance(pipeline, str | bytes):
        return options

    def reserved_of(name: str) -> str | None:
        return owner.reserved_of(name) if name in owner.configured() else None

    own = reserved_of(source)
    hidden = joins_hidden(pipeline, reserved_of) if own is None else hidden_in(pipeline, own, reserved_of)
    return {**options, "pipeline": hidden}
