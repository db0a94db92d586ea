"""Writes with `w=0` while a collection has two stores: the caller gets what the driver's own caller gets.

The library itself asks for an answer, because without one it could not tell what the secondary has to get. The caller
gets nothing of it: no count, and no refusal of the server. What is refused before anything is sent, and a connection
that is lost, are raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import ConfigurationError, OperationFailure
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult

from shadow.errors import ShadowError
from shadow.surface.calls.argument_table import by_name
from shadow.surface.collections.results import inserted_id, inserted_ids

__all__ = ["without_answer"]

_RESULTS: Final[Mapping[str, Callable[[], Any]]] = {
    "update_one": lambda: UpdateResult(None, False),
    "update_many": lambda: UpdateResult(None, False),
    "replace_one": lambda: UpdateResult(None, False),
    "delete_one": lambda: DeleteResult({"ok": 1}, False),
    "delete_many": lambda: DeleteResult({"ok": 1}, False),
    "bulk_write": lambda: BulkWriteResult({}, False),
    "find_one_and_update": lambda: None,
    "find_one_and_replace": lambda: None,
    "find_one_and_delete": lambda: None,
}


_NOT_SENT: Final = {"collation": "Collation is", "array_filters": "arrayFilters is"}


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
    _check_sent(verb, arguments, options)
    try:
        await call(arguments, options)
    except OperationFailure as error:
        if isinstance(error, ShadowError):
            raise
    if verb == "insert_one":
        return InsertOneResult(inserted_id(_first(arguments, options, "document")), False)
    if verb == "insert_many":
        return InsertManyResult(inserted_ids(_first(arguments, options, "documents")), False)
    return _RESULTS[verb]()


def _check_sent(verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Raises what the drivers raise for options that they do not send with an unacknowledged write."""
    whole = by_name(verb, arguments, options)
    if verb in ("bulk_write", "insert_many") and whole.get("bypass_document_validation"):
        raise OperationFailure("Cannot set bypass_document_validation with unacknowledged write concern")
    given = [whole]
    if verb == "bulk_write" and isinstance(requests := whole["requests"], Sequence):
        given = [{name: getattr(each, f"_{name}", None) for name in _NOT_SENT} for each in requests]
    for name, what in _NOT_SENT.items():
        if any(each.get(name) is not None for each in given) and not (verb.startswith("find") and name == "collation"):
            raise ConfigurationError(f"{what} unsupported for unacknowledged writes.")


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
