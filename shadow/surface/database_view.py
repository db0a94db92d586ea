"""The database with options of its own, as `with_options` of the drivers gives it, and what GridFS needs of Motor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from pymongo.database import Database

from shadow.errors import UnsupportedOperation
from shadow.surface.names import NotIterable
from shadow.surface.ways_around import CollectionOwner

__all__ = ["OPTIONS", "GuardedDatabase", "given_options"]

OPTIONS: Final = ("codec_options", "read_preference", "write_concern", "read_concern")


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
    collections that the configuration names."""

    __slots__ = ("_database", "_owner")

    def __init__(self, owner: CollectionOwner, database: Any) -> None:
        self._owner = owner
        self._database = database

    @property
    def __class__(self) -> type[Any]:
        """PyMongo's: `isinstance` returns the same as for its own database."""
        return Database

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    def with_options(self, *arguments: Any, **options: Any) -> GuardedDatabase:
        """The driver's own."""
        return GuardedDatabase(self._owner, self._database.with_options(*arguments, **options))

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
