"""Collections that the configuration does not name: they belong to MongoDB's driver alone.

A collection that is not named is not migrated by this process, so its calls are not examined: every attribute is that
of the driver's own collection, of the client that serves the running event loop. Other processes may have it on two
stores, though, so it must become unverified before this process writes to it: the first write of an event loop, and of
each pause, waits until the process has entered the fleet (`CollectionOwner.enter`).

Ways around shadow are rejected: a pipeline that would use a configured collection without its other store.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NoReturn

from pymongo.errors import ServerSelectionTimeoutError

from shadow.errors import ShadowClosed, StoreUnavailable
from shadow.stores.mongo.drivers import COLLECTION_VERBS
from shadow.surface.calls.names import NotIterable, check_name, not_callable, sub_name
from shadow.surface.direct.stamping import WRITES
from shadow.surface.direct.ways_around import (
    CollectionOwner,
    checked_pipeline,
    entered,
    entered_first,
    refuse_past,
    target_of,
    written_elsewhere,
)

__all__ = ["CHANGES", "INSTANCE_ATTRIBUTES", "ForwardedCollection"]

CHANGES: Final = WRITES | {
    "create_index", "create_indexes", "create_search_index", "create_search_indexes", "drop", "drop_index",
    "drop_indexes", "drop_search_index", "update_search_index",
}  # fmt: skip
"""Verbs that change the drivers' collections; an index may delete documents, or reject some."""
_WRITES_ELSEWHERE: Final = ("aggregate", "aggregate_raw_batches", "rename")


class ForwardedCollection(NotIterable):
    """The driver's own collection of a name that is not configured. Usable at import time; every verb, option and
    result is the driver's: Motor's futures, or PyMongo's coroutines."""

    __slots__ = ("_made", "_name", "_options", "_owner")

    def __init__(self, name: str, owner: CollectionOwner, options: Mapping[str, Any] | None = None) -> None:
        """`options`: the options of `with_options`. Raises TypeError, InvalidName: see `check_name`."""
        check_name(name)
        self._name = name
        self._owner = owner
        self._options = dict(options or {})
        self._made: tuple[Any, Any] | None = None

    def _database(self) -> Any:
        try:
            return self._owner.driver()
        except RuntimeError:
            # A thread without a loop: Motor's verbs work there too, in the loop of their client.
            last = self._owner.last_driver()
            if last is None or not hasattr(self._owner.driver_kind(), "get_io_loop"):
                raise
            return last

    def _own(self) -> Any:
        database = self._database()
        if self._made is None or self._made[0] is not database:
            self._made = (database, database.get_collection(self._name, **self._options))
        return self._made[1]

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def __class__(self) -> type[Any]:
        """The driver's: `isinstance` returns the same as for the driver's own collection."""
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
        return f"{self.__class__.__name__}({self.full_name!r} of a Shadow)"

    def __eq__(self, other: object) -> bool:
        if type(other) is not ForwardedCollection:
            return NotImplemented
        return (self._owner, self._name) == (other._owner, other._name)

    def __hash__(self) -> int:
        return hash((self._owner.database, self._name))

    def __bool__(self) -> NoReturn:
        raise NotImplementedError("collections do not implement truth value testing: compare with None instead")

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        raise not_callable(self._name)

    def _begin(self, call: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return self._owner.begin(call)

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
        """A sub-collection, with the options of this one, as in the driver."""
        return self._owner.get_collection(sub_name(self._name, name), **self._options)

    def __getattr__(self, name: str) -> Any:
        """The driver's own attribute, or, as in the driver, a sub-collection."""
        if name.startswith("__") or name in type(self).__slots__:
            raise AttributeError(f"ForwardedCollection has no attribute {name!r}: for a sub-collection, use [{name!r}]")
        if name.startswith("_"):
            return self._of_driver(name)
        if not hasattr(self._owner.driver_kind(), name) and name not in INSTANCE_ATTRIBUTES:
            return self[name]
        return self._attribute(name)

    def _of_driver(self, name: str) -> Any:
        """What the driver's own cursors and files ask of a collection."""
        try:
            return getattr(self._own(), name)
        except (RuntimeError, ShadowClosed, StoreUnavailable) as error:
            raise AttributeError(f"ForwardedCollection has no attribute {name!r} outside of an event loop") from error

    def _attribute(self, name: str) -> Any:
        found = getattr(self._own(), name)
        if name in CHANGES:
            entering = entered if hasattr(self._owner.driver_kind(), "get_io_loop") else entered_first
            # It has the name and the text of the driver's method, for those who look at it.
            found = functools.update_wrapper(functools.partial(entering, self._owner, (self._name,), found), found)
        elif name in _WRITES_ELSEWHERE:
            found = self._checked(name, found)
        return found if self._owner.needs_mongo() or not callable(found) else _explained(found, self._name)

    def _checked(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        name = "new_name" if verb == "rename" else "pipeline"

        @functools.wraps(call)
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
        """A write to another collection; if that one is configured, its phase does not change meanwhile."""
        if not isinstance(target, str) or not target:
            return call()
        if verb != "rename":
            return written_elsewhere(self._owner, self, target, call)
        if target not in self._owner.configured():
            return entered(self._owner, (self._name, target), call)

        async def renamed() -> Any:
            await self._owner.enter((self._name,))
            return await self._owner.gated(target, f"rename to {target!r}", call)

        return self._owner.begin(renamed())


class _Verb:
    """An attribute of the drivers' collections. `__getattr__` would find it as well, but only after a failed lookup,
    which costs more than all the rest."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, collection: ForwardedCollection | None, kind: type[Any]) -> Any:
        return self if collection is None else collection._attribute(self._name)


for _name in COLLECTION_VERBS - vars(ForwardedCollection).keys():
    setattr(ForwardedCollection, _name, _Verb(_name))

INSTANCE_ATTRIBUTES: Final = ("delegate", "io_loop")
"""Attributes of Motor's objects that their classes do not have."""


def _explained(call: Callable[..., Any], collection: str) -> Callable[..., Any]:
    """Once no configured collection needs MongoDB, it may be gone: the error names the collection that needs it."""

    @functools.wraps(call)
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
