"""What one record of a table's stream says: a write of shadow's own, one past it, or one that may be either. Pure.

Each write of shadow on the primary moves the version of its document on, with the name of the operation beside it.
What does not is an out-of-band write. Where the images do not tell, the relay asks both stores.
Sources: the reference of DynamoDB Streams' API, "Record", "StreamRecord" and "Identity"; the developer guide, "DynamoDB
Streams and Time to Live".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shadow.compare.equality import agree
from shadow.model.verdict import Bypass
from shadow.model.version import Tombstone, Unknown, Version
from shadow.mongoql.expiry import has_expired
from shadow.stores.dynamo.items.codec import Codec, Item
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.past import PastWrite

__all__ = ["UNNAMED", "TableRecord", "table_record"]

UNNAMED: Final = "a document was written whose key cannot be read"


@dataclass(frozen=True, slots=True)
class TableRecord:
    """`write`: None if the record says nothing of a document, or is shadow's own; `unnamed`: whether it is past shadow,
    and the key cannot be read."""

    write: PastWrite | None
    unnamed: bool = False


def table_record(table: CollectionTable, record: Mapping[str, Any]) -> TableRecord:
    """`record` is one of GetRecords, of a stream of both images."""
    change, codec = record["dynamodb"], table.codec
    before, after = change.get("OldImage"), change.get("NewImage")
    if _is_no_document(codec, before, after):
        return TableRecord(None)
    by_store = after is None and _is_by_store(record)
    if by_store and has_expired(table.spec.expiry, codec.decode(before or {}).document):
        return TableRecord(None)  # by the rule of the configuration, which both stores follow by themselves
    said = _judged(codec, before, after)
    if said is None:
        return TableRecord(None)
    kind, certain = said
    for item in (after, before):
        key, fault = ("", "none") if item is None else codec.key(item)
        if not fault:
            name = str(record.get("eventID", ""))
            return TableRecord(PastWrite(table.spec.name, key, kind, name, certain, by_store))
    return TableRecord(None, unnamed=True)


def _is_by_store(record: Mapping[str, Any]) -> bool:
    """Whether DynamoDB itself has deleted the item, by its time to live."""
    who = record.get("userIdentity") or {}
    return (who.get("Type"), who.get("PrincipalId")) == ("Service", "dynamodb.amazonaws.com")


def _is_no_document(codec: Codec, before: Item | None, after: Item | None) -> bool:
    """Whether neither image is a document: parts, items of unique values, tombstones that come or expire."""
    images = [each for each in (before, after) if each is not None]
    return all(codec.is_auxiliary(each) or isinstance(codec.state(each), Tombstone) for each in images)


def _judged(codec: Codec, before: Item | None, after: Item | None) -> tuple[Bypass, bool] | None:
    """The kind of a write past shadow, and whether it is certainly one; None: it is shadow's own."""
    if after is None or codec.is_auxiliary(after):
        return Bypass.DELETED, False
    new = codec.state(after)
    if isinstance(new, Tombstone):
        return None
    if before is None or codec.is_auxiliary(before) or isinstance(codec.state(before), Tombstone):
        return _inserted(codec, after)
    if codec.reserved not in after:
        own = codec.reserved in before
        return (Bypass.REPLACED if own else Bypass.CHANGED), True
    if not isinstance(new, Version):
        return Bypass.CHANGED, True
    old = codec.state(before)
    if old != new:
        same = isinstance(old, Version) and new.born == old.born
        moved = new.rev > old.rev if isinstance(old, Version) and same else _is_first(new)
        return None if moved else (Bypass.REPLACED, False)
    return _rewritten(codec, before, after)


def _inserted(codec: Codec, after: Item) -> tuple[Bypass, bool] | None:
    new = codec.state(after)
    if codec.reserved not in after or isinstance(new, Unknown):
        return Bypass.INSERTED, True
    return None if isinstance(new, Version) and _is_first(new) else (Bypass.INSERTED, False)


def _is_first(version: Version) -> bool:
    """Whether it is one that shadow's own inserts have."""
    return bool(version.born) and version.rev == 1


def _rewritten(codec: Codec, before: Item, after: Item) -> tuple[Bypass, bool] | None:
    """Of an item whose version has not moved. Shadow itself writes attributes of indexes so, which are no content, and,
    while the table is the secondary, copies."""
    if codec.op_id(before) != codec.op_id(after) or codec.parts(before) or codec.parts(after):
        return Bypass.CHANGED, False
    return None if agree(codec.decode(before), codec.decode(after)) else (Bypass.CHANGED, True)
