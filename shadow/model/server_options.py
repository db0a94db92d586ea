"""The options of the application's call that only a server of MongoDB has a use for, and that change no answer.

They mark a command (`comment`), limit it, or say how it is to be done. The call that gives them is on no store's
contract: `sending` makes them known for its block, and MongoDB's store takes from `sent_with` what the driver's method
has, wherever it makes a request of the application's call. DynamoDB's store has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

__all__ = ["NOTHING", "SERVER_OPTIONS", "current", "given_in", "hinted", "sending", "sent_with", "time_limit"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_SENT: Final[ContextVar[Mapping[str, Any]]] = ContextVar("shadow_server_options", default=NOTHING)

_ALIASES: Final = {"maxTimeMS": "max_time_ms", "allowDiskUse": "allow_disk_use", "batchSize": "batch_size",
                   "bypassDocumentValidation": "bypass_document_validation"}  # fmt: skip
SERVER_OPTIONS: Final = frozenset({
    "allow_disk_use", "batch_size", "bypass_document_validation", "comment", "cursor", "cursor_type", "hint",
    "max_time_ms", "no_cursor_timeout", *_ALIASES,
})  # fmt: skip
"""By both of the names that the drivers have for some."""

_FIND: Final = ("allow_disk_use", "comment", "cursor_type", "hint", "max_time_ms", "no_cursor_timeout")
_OF_COMMANDS: Final = {new: old for old, new in _ALIASES.items()}
_MODIFY: Final = ("bypass_document_validation", "comment", "hint")
_TAKEN: Final[Mapping[str, tuple[tuple[str, ...], bool]]] = {
    "find": (_FIND, False),
    "find_one": (_FIND, False),
    "count_documents": (("allow_disk_use", "comment", "hint", "max_time_ms"), True),
    "distinct": (("comment", "hint", "max_time_ms"), True),
    "aggregate": (
        ("allow_disk_use", "batch_size", "bypass_document_validation", "comment", "cursor", "hint", "max_time_ms"),
        True,
    ),
    "list_indexes": (("comment",), False),
    "insert_one": (("bypass_document_validation", "comment"), False),
    "insert_many": (("bypass_document_validation", "comment"), False),
    "bulk_write": (("bypass_document_validation", "comment"), False),
    "update_one": (("bypass_document_validation", "comment"), False),
    "replace_one": (("bypass_document_validation", "comment"), False),
    "find_one_and_update": (_MODIFY, True),
    "find_one_and_replace": (_MODIFY, True),
    "find_one_and_delete": (("comment", "hint"), True),
}
"""By the driver's method: the options that a call passes on to it, and whether it takes them as fields of the command.
`update_one` and `replace_one` are asked to insert only, where the application's filter, and its hint, have no say. The
time of a write is limited otherwise: see `time_limit`."""


def given_in(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those among the options of a call, under one name each."""
    if not options:
        return NOTHING
    found = {name: value for name, value in options.items() if name in SERVER_OPTIONS and value is not None}
    return {_ALIASES.get(name, name): value for name, value in found.items()} or NOTHING


def current() -> Mapping[str, Any]:
    """Those of the running call, for a cursor that sends them later."""
    return _SENT.get()


@contextmanager
def sending(options: Mapping[str, Any]) -> Iterator[None]:
    """Makes MongoDB's store send these (by the names of `given_in`), beside those of an enclosing block, with the
    requests of the block and of the tasks started in it."""
    token = _SENT.set({**_SENT.get(), **options})
    try:
        yield
    finally:
        _SENT.reset(token)


def sent_with(method: str, *, hint: bool = True) -> dict[str, Any]:
    """What the driver's method is to be given. `hint` False: the request is not found by the application's filter."""
    given = _SENT.get()
    if not given:
        return {}
    names, of_commands = _TAKEN[method]
    return {
        _OF_COMMANDS.get(name, name) if of_commands else name: given[name]
        for name in names
        if name in given and (hint or name != "hint")
    }


def hinted() -> bool:
    """Whether the call names an index, so that an error may be about that alone."""
    return "hint" in _SENT.get()


def time_limit() -> int | None:
    """Milliseconds that the application gives the server; None: it names none."""
    limit = _SENT.get().get("max_time_ms")
    return limit if isinstance(limit, int) and limit > 0 else None
