"""The driver's objects for calls that carry a session of the application; what a transaction may insert under."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

from shadow.model.operation import ANY, Change, Delete, Replace, Update
from shadow.model.order import MISSING
from shadow.model.version import Key
from shadow.stores.mongo.statements import key_of_change

__all__ = ["SessionDatabase", "inserted_under"]

_CALLS: Final = frozenset({
    "aggregate", "count_documents", "delete_many", "delete_one", "distinct", "find", "find_one", "find_one_and_delete",
    "find_one_and_replace", "find_one_and_update", "insert_many", "insert_one", "replace_one", "update_many",
    "update_one",
})  # fmt: skip
"""Methods of the driver's collections that take a session."""


class _Collection:
    """The driver's collection, whose calls carry the session."""

    def __init__(self, inner: Any, session: Any) -> None:
        self._inner = inner
        self._session = session

    def with_options(self, **options: Any) -> _Collection:
        return _Collection(self._inner.with_options(**options), self._session)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return functools.partial(found, session=self._session) if name in _CALLS else found


class SessionDatabase:
    """The driver's database, in which the calls of every collection carry the session."""

    def __init__(self, inner: Any, session: Any) -> None:
        self._inner = inner
        self._session = session

    def __getitem__(self, name: str) -> _Collection:
        return _Collection(self._inner[name], self._session)

    def get_collection(self, name: str, **options: Any) -> _Collection:
        return _Collection(self._inner.get_collection(name, **options), self._session)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def inserted_under(changes: Iterable[Change]) -> list[Key]:
    """The keys that these changes may insert under, as far as they name them."""
    found: list[Key] = []
    for change in changes:
        if isinstance(change, Delete) or (isinstance(change, Update | Replace) and not change.upsert):
            continue
        key = change.key
        if key is ANY and isinstance(change, Update | Replace):
            named = key_of_change(change)
            key = ANY if named is MISSING else named
        if key is not ANY:
            found.append(key)
    return found
