"""The part of another collection that a pipeline's `$lookup` can match, so that a key or an index serves it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from bson import Regex
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, key_digest
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.pipeline.joins import local_values

__all__ = ["partners"]

_KEEPING: Final = frozenset({"$match", "$sort", "$limit", "$skip"})
"""Stages whose output is a subset of their input documents, unchanged."""
_MOST_VALUES: Final = 1_000
_PLAIN_FIELD: Final = re.compile(r"\$[^$.\0]+")
"""A field at the top. A path through an array would compare the list of all values on it."""
_PLAIN_VARIABLE: Final = re.compile(r"\$\$[^$.\0]+")


def partners(pipeline: Sequence[Document], documents: Sequence[Document]) -> dict[str, Document]:
    """A filter for each collection that one `$lookup` reads, if what the stage compares with is unchanged since
    `documents`, the pipeline's input. The filter selects every document that the stage can match; the stage itself
    decides."""
    found: dict[str, Document] = {}
    written: set[str] = set()
    for stage in pipeline:
        ((name, spec),) = stage.items()
        if name == "$lookup":
            filter = _filter_of(spec, documents, written)
            if filter is not None:
                found[spec["from"]] = filter
            written.add(spec["as"].partition(".")[0])
        elif name not in _KEEPING:
            break
    names = list(_sources(pipeline))
    return {name: filter for name, filter in found.items() if names.count(name) == 1}


def _filter_of(spec: Document, documents: Sequence[Document], written: set[str]) -> Document | None:
    """The most selective filter that a `$lookup` gives; None without one."""
    if "localField" in spec:
        if spec["localField"].partition(".")[0] in written:
            return None
        local = (list(local_values(document, spec["localField"])) or [None] for document in documents)
        return _one_of(spec["foreignField"], (value for some in local for value in some))
    for path, name, spread in _compared(spec["pipeline"]):
        if name in spec.get("let", {}) and not _reads(spec["let"][name], written):
            values = _of_variable(spec["let"][name], documents, spread)
            filter = None if values is None else _one_of(path, values)
            if filter is not None:
                return filter
    return None


def _one_of(path: str, values: Iterable[Any]) -> Document | None:
    wanted: dict[str, Any] = {}
    for value in values:
        if type(value) in (Regex, list) or len(wanted) > _MOST_VALUES:
            return None
        wanted[key_digest(value)] = value
    return {path: {"$in": list(wanted.values())}}


def _compared(pipeline: Sequence[Document]) -> Iterator[tuple[str, str, bool]]:
    """The fields that the first stage of a joined pipeline compares with a variable: the path, the variable's name, and
    whether the field must be one of its elements."""
    condition = pipeline[0].get("$match", {}).get("$expr") if pipeline else None
    parts = condition.get("$and") if isinstance(condition, dict) and "$and" in condition else [condition]
    for part in parts if isinstance(parts, list) else []:
        match part:
            case {"$eq": [str(one), str(other)]}:
                field, variable = (one, other) if other.startswith("$$") else (other, one)
                spread = False
            case {"$in": [str(field), str(variable)]}:
                spread = True
            case _:
                continue
        if _PLAIN_FIELD.fullmatch(field) and _PLAIN_VARIABLE.fullmatch(variable):
            yield field[1:], variable[2:], spread


def _reads(expression: Any, written: set[str]) -> bool:
    """Whether an expression may read a field that an earlier stage has written."""
    if isinstance(expression, str):
        first = expression.partition(".")[0]
        return expression.startswith("$") and (first.startswith("$$") or first[1:] in written)
    if isinstance(expression, list):
        return any(_reads(each, written) for each in expression)
    if isinstance(expression, dict):
        return any(_reads(each, written) for each in expression.values())
    return False


def _of_variable(expression: Any, documents: Sequence[Document], spread: bool) -> list[Any] | None:
    """The values of a variable, or their elements; None where the stage would fail on a document."""
    evaluate = evaluator(expression)
    try:
        values = [evaluate(document) for document in documents]
    except (OperationFailure, UnsupportedOperation):
        return None
    if not spread:
        return [None if value is MISSING else value for value in values]
    if not all(type(value) is list for value in values):
        return None
    return [element for value in values for element in value]


def _sources(value: Any) -> Iterator[str]:
    """The collections that the stages of a pipeline read, including nested stages, as often as they do."""
    if isinstance(value, list):
        for each in value:
            yield from _sources(each)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in ("$lookup", "$graphLookup") and isinstance(inner, dict) and isinstance(inner.get("from"), str):
                yield inner["from"]
            elif name == "$unionWith":
                yield inner if isinstance(inner, str) else str(inner.get("coll"))
            yield from _sources(inner)
