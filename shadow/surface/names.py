"""Names of collections, as the drivers take them, and what is no sequence though it has `__getitem__`."""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import InvalidName

__all__ = ["NotIterable", "check_name", "sub_name"]


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
