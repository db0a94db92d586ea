"""What stands for PyMongo's cursor under one of Motor's.

Motor's chaining methods (`limit`, `sort`, ...) call PyMongo's functions with `cursor.delegate`, and so do those of
classes that are made on Motor's cursor (umongo's). Such a function checks a value, and sets an attribute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["Delegate"]

_PLAIN: Final = frozenset({
    "allow_disk_use", "batch_size", "collation", "comment", "limit", "max_await_time_ms", "max_scan", "max_time_ms",
    "skip",
})  # fmt: skip


def _called(name: str, cursor: Any, value: Any) -> None:
    getattr(cursor, name)(value)


_OWN: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "_ordering": lambda cursor, keys: cursor.sort(list(keys.items())),
    "_min": lambda cursor, spec: cursor.min(list(spec.items())),
    "_max": lambda cursor, spec: cursor.max(list(spec.items())),
    "_spec": lambda cursor, spec: cursor.where(spec["$where"]),
    "_query_flags": lambda cursor, flags: cursor.add_option(flags) if flags else None,
    "_empty": lambda cursor, empty: None,
    **{f"_{name}": functools.partial(_called, name) for name in _PLAIN},
}
"""An attribute of PyMongo's cursor to what setting it means."""
_AT_FIRST: Final[Mapping[str, Any]] = {
    "_exhaust": False, "_has_filter": True, "_limit": 0, "_query_flags": 0, "_spec": {},
}  # fmt: skip
"""What such a function reads before it sets."""


class Delegate:
    """`cursor`: that of Motor's surface, which has all other attributes."""

    def __init__(self, cursor: Any) -> None:
        object.__setattr__(self, "_cursor", cursor)

    def _check_okay_to_chain(self) -> None:
        """The cursor's own methods raise InvalidOperation once it has been read."""

    @property
    def _killed(self) -> bool:
        return bool(self._cursor.closed)

    def _set_hint(self, index: Any) -> None:
        self._cursor.hint(index)

    def __getattr__(self, name: str) -> Any:
        return _AT_FIRST[name] if name in _AT_FIRST else getattr(self._cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            _OWN[name](self._cursor, value)
        else:
            setattr(self._cursor, name, value)
