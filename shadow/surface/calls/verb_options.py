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
from bson import Decimal128
from pymongo.collation import Collation
from pymongo.cursor_shared import CursorType

from shadow.errors import UnsupportedOperation
from shadow.mongoql.values.failures import failure
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
    "create_indexes": _ALWAYS | {"commitQuorum"},
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
_WRONG_TYPE: Final = 14
_FAILED_TO_PARSE: Final = 9


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_flag_or_none(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_number_or_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | Decimal128)


def _is_await_time(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST)


_TYPES: Final[Mapping[str, tuple[Callable[[Any], bool], int]]] = {
    "allowDiskUse": (_is_flag, _WRONG_TYPE),
    "bypassDocumentValidation": (_is_number_or_flag, _WRONG_TYPE),
    "bypass_document_validation": (_is_number_or_flag, _WRONG_TYPE),
    "ordered": (_is_flag_or_none, _WRONG_TYPE),
}
"""What the server takes for options that change no result, and the code of its error for anything else."""
_FLAGS: Final = frozenset({"allow_disk_use", *_NOT_NONE})
"""Options of `find` that the driver itself looks at."""


def _check_value(verb: str, name: str, value: Any) -> None:
    """Raises for an option that changes no result, and has a value that is not one of it: the driver's errors for what
    it looks at or cannot send, otherwise the server's."""
    if name in _FLAGS and not (isinstance(value, bool) or (value is None and name not in _NOT_NONE)):
        raise TypeError(f"{name} must be True or False, was: {name}={value}")
    if name == "comment":
        bson.encode({"": value})
    elif name == "batchSize" and verb == "aggregate":
        _check_batch_size(value)
    elif name in _TYPES:
        fits, code = _TYPES[name]
        bson.encode({"": value})
        if not fits(value):
            raise failure(code, f"BSON field '{verb}.{name}' is the wrong type '{type(value).__name__}'")
    elif (name == "cursor" and not isinstance(value, Mapping)) or (
        name == "maxAwaitTimeMS" and not _is_await_time(value)
    ):
        raise UnsupportedOperation(f"{verb}({name}=...)", f"it takes no {type(value).__name__} of this kind")


def _check_batch_size(value: Any) -> None:
    if isinstance(value, str):
        raise ValueError("The value of batchSize must be an integer")
    if value is not None and not isinstance(value, int):
        raise TypeError(f"Wrong type for batchSize, value must be an integer, not {type(value)}")
    if value is not None and value < 0:
        raise ValueError("The value of batchSize must be a non negative integer")
    bson.encode({"": value})
    if isinstance(value, bool):
        raise failure(_WRONG_TYPE, "BSON field 'cursor.batchSize' is the wrong type 'bool'")


def _check_sent_raw(verb: str, name: str, value: Any) -> None:
    """Options that drivers send as they are given, whose form the server is the first to look at. Raises its error."""
    if name == "readConcern":
        bson.encode({"": value})
        _check_read_concern(verb, value)
    elif name == "collation" and verb == "estimated_document_count" and not isinstance(value, Mapping | Collation):
        bson.encode({"": value})
        if value is not None:
            raise failure(_WRONG_TYPE, f"BSON field 'count.collation' is the wrong type '{type(value).__name__}'")


def _check_read_concern(verb: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        # `aggregate` is a typed command, which other types do not reach
        typed = verb in ("aggregate", "count_documents") and value is not None
        code = _WRONG_TYPE if typed else _FAILED_TO_PARSE
        raise failure(code, f"readConcern field should be an object, not {type(value).__name__}")
    for name, each in value.items():
        if name not in _OF_READ_CONCERN:
            raise failure(72, f"Unrecognized option in readConcern: {name}")
        if name == "level" and not isinstance(each, str):
            raise failure(_WRONG_TYPE, f"the name of a read concern is a string, not {type(each).__name__}")
        if name == "level" and each not in _READ_CONCERNS:
            raise failure(_FAILED_TO_PARSE, f"a read concern is one of {', '.join(_READ_CONCERNS)}")


def check_options(verb: str, options: Mapping[str, Any]) -> None:
    """Raises TypeError for a name that the driver does not accept, ValueError for no kind of cursor,
    UnsupportedOperation for a name that the server's command does not have, what driver and server raise for a value of
    another type, `bson.errors.InvalidDocument` and OverflowError for a value that no driver can send."""
    for name, value in options.items():
        if name not in _named(verb):
            if verb not in FIELDS:
                raise TypeError(f"Collection.{verb}() got an unexpected keyword argument {name!r}")
            if name not in FIELDS[verb]:
                raise UnsupportedOperation(f"{verb}({name}=...)", "the server's command has no such field")
        if name == "hint" and value is None and verb in _FORWARD_NO_HINT:
            raise UnsupportedOperation(f"{verb}(hint=None)", "the driver forwards it, and the server refuses it")
        if name == "cursor_type" and (isinstance(value, bool) or value not in _CURSOR_TYPES):
            raise ValueError("not a valid value for cursor_type")
        _check_value(verb, name, value)
        _check_sent_raw(verb, name, value)


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
