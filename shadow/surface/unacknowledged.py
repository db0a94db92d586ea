"""Writes with `w=0` while a collection has two stores: the caller gets what the driver's own caller gets.

The library itself asks for an answer, because without one it could not tell what the secondary has to get. The caller
gets nothing of it: no count, and no refusal of the server. What is refused before anything is sent, and a connection
that is lost, are raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from pymongo.errors import ConfigurationError, OperationFailure
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult

from shadow.errors import ShadowError

__all__ = ["without_answer"]

_RESULTS: Final[Mapping[str, Callable[[], Any]]] = {
    "update_one": lambda: UpdateResult(None, False),
    "update_many": lambda: UpdateResult(None, False),
    "replace_one": lambda: UpdateResult(None, False),
    "delete_one": lambda: DeleteResult(cast(Any, None), False),
    "delete_many": lambda: DeleteResult(cast(Any, None), False),
    "bulk_write": lambda: BulkWriteResult({}, False),
    "find_one_and_update": lambda: None,
    "find_one_and_replace": lambda: None,
    "find_one_and_delete": lambda: None,
}


async def without_answer(
    verb: str,
    call: Callable[[Sequence[Any], Mapping[str, Any]], Awaitable[Any]],
    session: Any,
    arguments: Sequence[Any],
    options: Mapping[str, Any],
) -> Any:
    """Makes the call, and returns the driver's result of a write with `w=0`: of a find-and-modify None. A write in a
    transaction, whose own concern holds, has its answer. Raises ConfigurationError, as the driver does, for another
    session."""
    if session is not None and session.in_transaction:
        return await call(arguments, options)
    if session is not None:
        raise ConfigurationError("Explicit sessions are incompatible with unacknowledged write concern")
    arguments, options = _listed(verb, arguments, options)
    try:
        answer = await call(arguments, options)
    except OperationFailure as error:
        if isinstance(error, ShadowError):
            raise
        answer = None
    if verb == "insert_one":
        return InsertOneResult(_first(arguments, options, "document")["_id"], False)
    if verb == "insert_many":
        ids = answer.inserted_ids if answer else [each["_id"] for each in _first(arguments, options, "documents")]
        return InsertManyResult(ids, False)
    return _RESULTS[verb]()


def _first(arguments: Sequence[Any], options: Mapping[str, Any], name: str) -> Any:
    return arguments[0] if arguments else options[name]


def _listed(verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The same, with the documents of an iterator in a list: their ids are needed once more."""
    if verb != "insert_many":
        return arguments, options
    given = arguments[0] if arguments else options.get("documents")
    if not isinstance(given, Iterable) or isinstance(given, Mapping | str | bytes):
        return arguments, options
    if arguments:
        return (list(given), *arguments[1:]), options
    return arguments, {**options, "documents": list(given)}
