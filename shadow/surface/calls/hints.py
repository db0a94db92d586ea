"""What a hint names, where DynamoDB answers: it chooses its indexes by itself, and the server's errors stay.

Tried on MongoDB 6.0.5: an empty hint of `find` is none, one by keys names the index with exactly these keys in this
order, one that several indexes have is ambiguous, and a hidden index does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import bson
from pymongo.errors import OperationFailure, WriteError
from pymongo.operations import IndexModel

from shadow.errors import UnsupportedOperation
from shadow.model.outcome import details_of

__all__ = ["RAW_HINT", "check_form", "checked", "counted_by", "is_none", "no_such_index", "unknown_index"]

RAW_HINT: Final = frozenset({"aggregate", "estimated_document_count"})
"""Verbs whose driver sends a hint as it is."""
_READS: Final = frozenset({"aggregate", "count_documents", "distinct", "estimated_document_count", "find", "find_one"})
_NATURAL: Final = "$natural"
_NO_INDEX: Final = "hint provided does not correspond to an existing index"
_PARTLY: Final = "that index does not have every document, and MongoDB answers with those that it has"


def no_such_index(verb: str) -> OperationFailure:
    """The server's error for a hint that names nothing."""
    return _refusal(verb, 2, _NO_INDEX)


def unknown_index(verb: str) -> UnsupportedOperation:
    """For a hint where it is not known which indexes exist."""
    return UnsupportedOperation(f"{verb}(hint=...)", "it names no index that the configuration declares")


def is_none(verb: str, hint: Any) -> bool:
    """Whether driver or server take the hint for none."""
    return hint is None or (hint == "" and verb in ("find", "find_one")) or (hint == {} and verb in RAW_HINT)


def check_form(verb: str, hint: Any) -> None:
    """Raises TypeError and ValueError as the drivers do for what is neither a name nor keys, OperationFailure as the
    server does where they send it."""
    if verb in RAW_HINT:
        bson.encode({"": hint})
        if not isinstance(hint, str | Mapping):
            raise _refusal(verb, 9, "Hint must be a string or an object")
    elif not isinstance(hint, str):
        for each in () if isinstance(hint, Mapping) or not isinstance(hint, list | tuple) else hint:
            if not isinstance(each, str):
                _, _ = each  # what is no pair has its own errors
        IndexModel(hint)


def counted_by(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an estimate for an exact count, whose driver takes whole numbers alone and no empty hint."""
    hint = options.get("hint")
    if not isinstance(hint, Mapping):
        return dict(options)
    if not all(isinstance(kind, str | int | float) for kind in hint.values()):
        raise no_such_index("estimated_document_count")
    rest = {name: value for name, value in options.items() if name != "hint"}
    whole = {path: int(kind) if isinstance(kind, float) and kind.is_integer() else kind for path, kind in hint.items()}
    return {**rest, "hint": whole} if whole else rest


def checked(verb: str, hint: Any, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a hint names one of these (entries of `listIndexes`). Raises UnsupportedOperation for `$natural` and for
    an index whose use would change the result, OperationFailure for what several are."""
    there = [each for each in entries if not each.get("hidden")]
    if isinstance(hint, str):
        named = [each for each in there if each["name"] == hint]
    else:
        wanted = _keys(hint if isinstance(hint, Mapping) else IndexModel(hint).document["key"])
        if any(path == _NATURAL for path, *_ in wanted):
            raise _natural(verb, alone=len(wanted) == 1)
        named = [each for each in there if _keys(each["key"]) == wanted]
    if len(named) > 1:
        raise _refusal(verb, 27, "Hint matched multiple indexes, must hint by index name")
    if named and not _is_whole(named[0]):
        raise UnsupportedOperation(f"{verb}(hint=...)", _PARTLY)
    return bool(named)


def _keys(given: Mapping[str, Any]) -> list[tuple[str, bool, Any]]:
    """Numbers are equal whatever their types, and a boolean is none."""
    return [(str.__str__(path), isinstance(kind, bool), kind) for path, kind in given.items()]


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Whether an index has every document, so that its use changes no result."""
    kinds = {kind for kind in entry["key"].values() if isinstance(kind, str)}
    wildcard = any(path == "$**" or path.endswith(".$**") for path in entry["key"])
    return not (entry.get("sparse") or "partialFilterExpression" in entry or kinds - {"hashed"} or wildcard)


def _natural(verb: str, *, alone: bool) -> OperationFailure:
    if alone:
        return UnsupportedOperation(f"{verb}(hint=$natural)", "DynamoDB keeps no order of insertion or of storage")
    return _refusal(verb, 2, "Cannot include '$natural' in compound hint")


def _refusal(verb: str, code: int, text: str) -> OperationFailure:
    """That of one of the writes of `update` and `delete`, and otherwise of a command."""
    if verb in _READS or verb.startswith("find_one_and"):
        return OperationFailure(text, code, details_of(code, text))
    return WriteError(text, code, {"index": 0, "code": code, "errmsg": text})
