"""Which keyword options a verb has, and which types their values may have, whether or not they change a result.

A name that the driver's verb does not have raises the driver's TypeError. An option that the driver forwards to the
server as a field of the command is rejected by name if the command has no such field, or no such value.

Sources: the signatures of PyMongo's `AsyncCollection`; the MongoDB manual, "aggregate", "count", "distinct",
"findAndModify", "createIndexes", "dropIndexes" (fields of the commands); tried on MongoDB 6.0.5.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import bson
from pymongo.collation import Collation
from pymongo.cursor_shared import CursorType

from shadow.errors import UnsupportedOperation
from shadow.mongoql.failures import failure
from shadow.stores.mongo.drivers import call_signature

__all__ = ["FIELDS", "check_let", "check_modify", "check_options", "order_of_one"]

_ALWAYS: Final = frozenset({"comment", "maxTimeMS", "session"})
_FIND_AND_MODIFY: Final = _ALWAYS | {"bypassDocumentValidation", "collation", "hint", "let"}
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "count_documents": _ALWAYS | {"collation", "hint", "allowDiskUse", "let", "readConcern", "skip", "limit"},
    "estimated_document_count": _ALWAYS | {"collation", "hint", "readConcern"},
    "distinct": _ALWAYS | {"collation", "readConcern"},
    "aggregate": _ALWAYS
    | {
        "allowDiskUse",
        "batchSize",
        "bypassDocumentValidation",
        "collation",
        "cursor",
        "hint",
        "let",
        "maxAwaitTimeMS",
        "readConcern",
    },
    "find_one_and_update": _FIND_AND_MODIFY,
    "find_one_and_replace": _FIND_AND_MODIFY,
    "find_one_and_delete": _FIND_AND_MODIFY,
    "create_indexes": _ALWAYS,
    "drop_index": _ALWAYS,
}
"""By verb that takes any name: the fields of its command."""

_FORWARD_NO_HINT: Final = frozenset({"estimated_document_count", "count_documents", "aggregate"})
"""Verbs whose driver sends `hint=None`, or refuses it."""
_NOT_NONE: Final = frozenset({"allow_partial_results", "no_cursor_timeout", "oplog_replay"})
"""Options of `find` for which the driver requires True or False (PyMongo, `Cursor`)."""

_CURSOR_TYPES: Final = (
    CursorType.NON_TAILABLE, CursorType.TAILABLE, CursorType.TAILABLE_AWAIT, CursorType.EXHAUST,
)  # fmt: skip
_READ_CONCERNS: Final = ("local", "majority", "linearizable", "available", "snapshot")
_OF_READ_CONCERN: Final = frozenset({"level", "afterOpTime", "afterClusterTime", "atClusterTime", "provenance"})

_MOST: Final = 2**63 - 1


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number_or_flag(value: Any) -> bool:
    return isinstance(value, bool | int | float) and abs(value) <= _MOST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_small_count(value: Any) -> bool:
    return _is_count(value) and value < 2**31


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "allowDiskUse": _is_flag,
    "allow_disk_use": lambda value: value is None or _is_flag(value),
    "batchSize": _is_small_count,
    "bypassDocumentValidation": _is_number_or_flag,
    "bypass_document_validation": lambda value: value is None or _is_number_or_flag(value),
    "cursor": lambda value: isinstance(value, Mapping),
    "maxTimeMS": lambda value: isinstance(value, bool | int | float | str) and _fits(value),
    "max_time_ms": lambda value: value is None or _fits(value),
    "maxAwaitTimeMS": lambda value: value is None or _is_small_count(value),
    "no_cursor_timeout": _is_flag,
    "ordered": lambda value: value is None or _is_flag(value),
}
"""Accepted types of options that change no result. For another type, the server's error or an oversight."""


def _fits(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) <= _MOST


def check_options(verb: str, options: Mapping[str, Any]) -> None:
    """Raises TypeError for a name that the driver does not accept, ValueError for no kind of cursor,
    UnsupportedOperation for a name that the server's command does not have and for a value of another type, the
    server's errors, `bson.errors.InvalidDocument` and OverflowError for what no driver can send."""
    for name, value in options.items():
        if name not in _named(verb):
            if verb not in FIELDS:
                raise TypeError(f"Collection.{verb}() got an unexpected keyword argument {name!r}")
            if name not in FIELDS[verb]:
                raise UnsupportedOperation(f"{verb}({name}=...)", "the server's command has no such field")
        if name == "hint" and value is None and verb in _FORWARD_NO_HINT:
            raise UnsupportedOperation(f"{verb}(hint=None)", "the driver forwards it, and the server refuses it")
        if value is None and name in _NOT_NONE:
            raise TypeError(f"{name} must be True or False, was: {name}=None")
        if name == "cursor_type" and (isinstance(value, bool) or value not in _CURSOR_TYPES):
            raise ValueError("not a valid value for cursor_type")
        _check_sent_raw(verb, name, value)
        if name in _TYPES and not _TYPES[name](value):
            raise UnsupportedOperation(f"{verb}({name}=...)", f"it takes no {type(value).__name__} of this kind")


def _check_sent_raw(verb: str, name: str, value: Any) -> None:
    """Options that drivers send as they are given. Raises what BSON cannot hold, and the server's errors."""
    if name in ("comment", "readConcern"):
        bson.encode({"": value})
    if name == "readConcern":
        _check_read_concern(verb, value)
    elif name == "collation" and verb == "estimated_document_count" and not isinstance(value, Mapping | Collation):
        bson.encode({"": value})
        if value is not None:
            raise failure(14, f"BSON field 'count.collation' is the wrong type '{type(value).__name__}'")


def _check_read_concern(verb: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        # `aggregate` is a typed command, which other types do not reach
        code = 14 if verb in ("aggregate", "count_documents") and value is not None else 9
        raise failure(code, f"readConcern field should be an object, not {type(value).__name__}")
    for name, each in value.items():
        if name not in _OF_READ_CONCERN:
            raise failure(72, f"Unrecognized option in readConcern: {name}")
        if name == "level" and not isinstance(each, str):
            raise failure(14, f"the name of a read concern is a string, not {type(each).__name__}")
        if name == "level" and each not in _READ_CONCERNS:
            raise failure(9, f"a read concern is one of {', '.join(_READ_CONCERNS)}")


def check_let(verb: str, let: Any) -> None:
    """Raises for variables that are no mapping: TypeError where the driver checks them, otherwise the server's error,
    and `bson.errors.InvalidDocument` for what no driver can send."""
    if let is None or isinstance(let, Mapping):
        return
    if verb not in FIELDS or "let" in _named(verb):
        raise TypeError(f"let must be an instance of a mapping, not {type(let)}")
    bson.encode({"": let})
    raise failure(14, "BSON field 'aggregate.let' is the wrong type")


def check_modify(sort: Any, return_document: Any = True) -> None:
    """Raises TypeError, as the drivers do, for an invalid order or choice of `find`, `find_one_and_...`."""
    if isinstance(sort, str):
        raise TypeError(f"must use a dictionary or a list of (key, direction) pairs, not: {sort!r}")
    if not isinstance(return_document, bool):
        kind = type(return_document)
        raise TypeError(f"return_document must be ReturnDocument.BEFORE or ReturnDocument.AFTER, not {kind}")


def order_of_one(sort: Any) -> Any:
    """The order in which `update_one` and `replace_one` choose; None for an empty one. Raises TypeError, as the drivers
    do, and `bson.errors.InvalidDocument` for values that BSON cannot hold."""
    if sort is not None and not isinstance(sort, Mapping):
        raise TypeError(
            "sort must be an instance of dict, bson.son.SON, or any other type that inherits from collections.Mapping"
        )
    if sort:
        bson.encode(sort)
    return sort or None


def _named(verb: str) -> Mapping[str, inspect.Parameter]:
    return call_signature("find" if verb == "find_one" else verb).parameters
