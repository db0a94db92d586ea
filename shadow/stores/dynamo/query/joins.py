"""The part of another collection that a pipeline's `$lookup` can match, so that a key or an index serves it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bson import Regex

from shadow.model.order import key_digest
from shadow.model.version import Document
from shadow.mongoql.joins import local_values

__all__ = ["partners"]

_KEEPING: Final = frozenset({"$match", "$sort", "$limit", "$skip"})
"""Stages whose output is a subset of their input documents, unchanged."""
_MOST_VALUES: Final = 1_000


def partners(pipeline: Sequence[Document], documents: Sequence[Document]) -> dict[str, Document]:
    """A filter for each collection that one `$lookup` reads, if its local field is unchanged since `documents`, the
    pipeline's input. The filter selects every document that the stage can match; the stage itself decides."""
    found: dict[str, Document] = {}
    written: set[str] = set()
    for stage in pipeline:
        ((name, spec),) = stage.items()
        if name == "$lookup":
            if spec["localField"].partition(".")[0] not in written:
                filter = _of_values(spec, documents)
                if filter is not None:
                    found[spec["from"]] = filter
            written.add(spec["as"].partition(".")[0])
        elif name not in _KEEPING:
            break
    names = list(_sources(pipeline))
    return {name: filter for name, filter in found.items() if names.count(name) == 1}


def _of_values(spec: Document, documents: Sequence[Document]) -> Document | None:
    values: dict[str, Any] = {}
    for document in documents:
        for value in list(local_values(document, spec["localField"])) or [None]:
            if type(value) is Regex or len(values) > _MOST_VALUES:
                return None
            values[key_digest(value)] = value
    return {spec["foreignField"]: {"$in": list(values.values())}}


def _sources(value: Any) -> Iterator[str]:
    """The collections that the stages of a pipeline read, including nested stages, as often as they do."""
    if isinstance(value, list):
        for each in value:
            yield from _sources(each)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name == "$lookup" and isinstance(inner, dict) and isinstance(inner.get("from"), str):
                yield inner["from"]
            yield from _sources(inner)
