"""What a change means: from the image that a key holds to the image that it should hold. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from shadow.errors import UnreadableDocument, UnsupportedOperation
from shadow.model.operation import Change, Delete, Insert, Replace, Update, version_after
from shadow.model.stored import NO_VERSION, Damaged, check_readable
from shadow.model.version import ABSENT, Document, Image, Key, Version
from shadow.mongoql import cached_filter, cached_update
from shadow.mongoql.update.updates import check_upsert
from shadow.mongoql.upserts import replaced
from shadow.mongoql.values.references import in_order
from shadow.stores.dynamo.client.errors import duplicate_key
from shadow.stores.dynamo.items.codec import whole
from shadow.stores.dynamo.query.fetching import top_level_fields

__all__ = ["Computation", "computation", "depends", "matcher", "names_only_key"]

Computation: TypeAlias = Callable[[Image], Image | None]
"""From the image before a change to the image after it; None where the filter matches nothing."""


def computation(namespace: str, change: Change) -> Computation:
    """The function that applies `change` to an image. `namespace` is the collection's name in errors. Raises what
    compiling the filter or update raises; the function raises `DuplicateKeyError`, and `WriteError` where the
    update does."""
    match change:
        case Insert():
            return lambda before: _inserted(namespace, change, before)
        case Update():
            return _updating(namespace, change)
        case Replace():
            return _replacing(namespace, change)
        case Delete():
            matching = matcher(change.filter)
            return lambda before: Image(ABSENT) if before.present and matching(whole(before)) else None
    raise UnsupportedOperation(type(change).__name__, "it is not a change")


def _inserted(namespace: str, change: Insert, before: Image) -> Image:
    if before.present:
        raise _duplicate_id(namespace, change.key)
    return Image(Version(change.born, 1), change.document)


def _updating(namespace: str, change: Update) -> Computation:
    filter, matching = cached_filter(change.filter), matcher(change.filter)
    update = cached_update(change.update, change.array_filters)
    if change.upsert:
        check_upsert(filter)

    def compute(before: Image) -> Image | None:
        if before.document is not None and matching(before.document):
            check_readable(before.document)
            if not isinstance(before.state, Version):
                raise UnreadableDocument(NO_VERSION)
            # By the driver's values, where there is more (numbered in the manual as a known difference).
            document = in_order(before.document)
            document = document if type(document) is dict else dict(document)
            return Image(version_after(change, before.state), update.apply(document, filter))
        if not change.upsert:
            return None
        inserted = update.upsert(filter, change.key)
        if before.present:
            raise _duplicate_id(namespace, change.key)
        return Image(Version(change.born, 1), inserted)

    return compute


def _replacing(namespace: str, change: Replace) -> Computation:
    matches = matcher(change.filter)
    if change.upsert:
        check_upsert(cached_filter(change.filter))

    def compute(before: Image) -> Image | None:
        if before.document is not None and matches(before.document):
            made = replaced(change.replacement, before.document.get("_id", change.key), before.document)
            return Image(Version(change.born, 1), made)
        if not change.upsert:
            return None
        if before.present:
            raise _duplicate_id(namespace, change.key)
        return Image(Version(change.born, 1), replaced(change.replacement, change.key, None))

    return compute


def _duplicate_id(namespace: str, key: Key) -> Exception:
    return duplicate_key(namespace, "_id_", {"_id": 1}, {"_id": key})


def matcher(filter: Document) -> Callable[[Document], bool]:
    """Whether a filter matches a document. Raises `UnreadableDocument` where that depends on unreadable fields."""
    matches = cached_filter(filter).matches

    def matching(document: Document) -> bool:
        if isinstance(document, Damaged) and depends(top_level_fields(filter), document):
            raise UnreadableDocument(document.reason)
        return matches(document)

    return matching


def depends(fields: frozenset[str] | None, document: Damaged) -> bool:
    """Whether any of these top-level fields (None: any field) is unreadable."""
    if fields is None:
        return True
    hidden = "" in document.faults and not fields <= {"_id"}
    return hidden or not fields.isdisjoint(document.faults)


def names_only_key(filter: Document) -> bool:
    """Whether a filter selects one `_id` and nothing else."""
    return list(filter) == ["_id"] and not isinstance(filter["_id"], dict)
