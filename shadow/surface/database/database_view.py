"""The database with options of its own, as `with_options` of the drivers gives it, and what GridFS needs of Motor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from pymongo.database import Database

from shadow.errors import UnsupportedOperation
from shadow.stores.mongo.drivers import plain_client_class
from shadow.surface.calls.names import NotIterable
from shadow.surface.direct.ways_around import CollectionOwner

__all__ = ["OF_COLLECTIONS", "OPTIONS", "GuardedClient", "GuardedDatabase", "given_options"]

OPTIONS: Final = ("codec_options", "read_preference", "write_concern", "read_concern")


OF_COLLECTIONS: Final = frozenset({
    "_conn_for_reads", "_conn_for_writes", "_retryable_read", "_retryable_write", "_run_operation", "_tmp_session",
})  # fmt: skip
"""What PyMongo's own collections and databases ask of their client for each of their calls."""


def given_options(arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `with_options` by name, without those that are None. Raises TypeError for other names."""
    if len(arguments) > len(OPTIONS):
        raise TypeError(f"with_options() takes at most {len(OPTIONS)} arguments ({len(arguments)} given)")
    given = {**dict(zip(OPTIONS, arguments, strict=False)), **options}
    for name in given:
        if name not in OPTIONS:
            raise TypeError(f"with_options() got an unexpected keyword argument {name!r}")
    return {name: value for name, value in given.items() if value is not None}


class GuardedDatabase(NotIterable):
    """PyMongo's own database under Motor's, as `AsyncIOMotorGridFSBucket` uses it from its threads: without the
    collections that the configuration names. `refusal`: what its client raises for what would bypass shadow."""

    __slots__ = ("_database", "_owner", "_refusal")

    def __init__(self, owner: CollectionOwner, database: Any, refusal: Callable[[], Exception]) -> None:
        self._owner = owner
        self._database = database
        self._refusal = refusal

    @property
    def client(self) -> GuardedClient:
        """What PyMongo's own collections ask that are made by hand."""
        return GuardedClient(self._database.client, self._refusal)

    @property
    def __class__(self) -> type[Any]:
        """PyMongo's: `isinstance` returns the same as for its own database."""
        return Database

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    def with_options(self, *arguments: Any, **options: Any) -> GuardedDatabase:
        """The driver's own."""
        return GuardedDatabase(self._owner, self._database.with_options(*arguments, **options), self._refusal)

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The driver's own. Raises UnsupportedOperation for a configured collection, or one that has such a
        sub-collection."""
        named = [each for each in self._owner.configured() if each == name or each.startswith(f"{name}.")]
        if named:
            raise UnsupportedOperation(
                f"db.delegate[{name!r}]",
                f"the configuration names {named[0]!r}, and calls of PyMongo's own database would bypass it",
                hint="take it out of `collections`, or use the collection itself",
            )
        return self._database.get_collection(name, *arguments, **options)

    def __getitem__(self, name: str) -> Any:
        return self.get_collection(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._database, name) if hasattr(type(self._database), name) else self[name]


class GuardedClient(NotIterable):
    """PyMongo's own client under Motor's, as `AsyncIOMotorDatabase(client, name)` uses it: no collection of such a
    database has a call, which would bypass shadow. `refusal`: what is raised."""

    __slots__ = ("_made", "_refusal")

    def __init__(self, client: Any, refusal: Callable[[], Exception]) -> None:
        self._made = client
        self._refusal = refusal

    @property
    def __class__(self) -> type[Any]:
        """PyMongo's: `isinstance` returns the same as for its own client."""
        return plain_client_class()

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    def __eq__(self, other: object) -> bool:
        return bool(self._made == (other._made if type(other) is GuardedClient else other))

    def __hash__(self) -> int:
        return hash(self._made)

    def __getitem__(self, name: str) -> Any:
        raise self._refusal()

    def __getattr__(self, name: str) -> Any:
        if name in OF_COLLECTIONS or name in _DATABASES:
            raise self._refusal()
        return getattr(self._made, name)


_DATABASES: Final = frozenset({"bulk_write", "drop_database", "get_database", "get_default_database"})
