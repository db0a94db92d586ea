"""Names of collections, as the drivers accept them, and objects with `__getitem__` that are not sequences."""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import InvalidName

__all__ = ["NotIterable", "check_name", "not_callable", "sub_name"]


class NotIterable:
    """The base of objects that have `__getitem__` but are not sequences: without this, `for` and `in` would request
    `[0]`, `[1]` and so on, without end. Like PyMongo's own objects, they raise TypeError."""

    __slots__ = ()

    __iter__: Final = None
    __contains__: Final = None
    __reversed__: Final = None


def check_name(name: Any) -> None:
    """As the drivers do, when the collection object is created. Raises TypeError for a name that is not a string,
    InvalidName for one that MongoDB rejects (PyMongo's `Collection.__init__`)."""
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


def not_callable(name: str) -> TypeError:
    """For a call of a collection, which is what a misspelt verb becomes."""
    verb = name.rpartition(".")[2]
    return TypeError(f"{verb!r} is a collection here ({name!r}) and not callable: no such method exists")


def sub_name(name: str, sub: Any) -> str:
    """The name of a sub-collection. Raises TypeError for anything but a string, as Motor does."""
    if not isinstance(sub, str):
        raise TypeError(f"name must be an instance of str, not {type(sub).__name__}")
    return f"{name}.{sub}"
