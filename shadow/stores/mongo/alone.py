"""Commands for what only MongoDB can do: the application's own conditions and options, which nothing here interprets,
with versions and tombstones hidden, and the version moved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymongo.errors import OperationFailure

from shadow.model.operation import Delete, Hit, Query, Replace, Update
from shadow.model.stored import split
from shadow.model.version import Document, Version
from shadow.mongoql import cached_filter, cached_update
from shadow.stores.mongo.bytes import stored, taken
from shadow.stores.mongo.schema_filters import without_version
from shadow.stores.mongo.statements import exactly

__all__ = ["by_version", "hidden", "hit_of", "is_computed", "options_of", "shown"]

_ANY_COLLATION: Final = frozenset({
    "$set", "$unset", "$inc", "$mul", "$rename", "$setOnInsert", "$currentDate", "$bit", "$pop",
})  # fmt: skip
"""Updates that compare no texts."""
_OF_FILTER: Final = frozenset({"collation", "hint"})


def hidden(query: Query, reserved: str) -> Document:
    """The query's filter, without tombstones."""
    return {**without_version(query.filter, reserved), f"{reserved}.t": None}


def shown(query: Query, reserved: str) -> Document | None:
    """The projection as given; with the version where only keys are looked for."""
    return {"_id": 1, reserved: 1} if query.projection == {"_id": 1} else query.projection


def hit_of(raw: Document, reserved: str, projection: Document | None) -> Hit | None:
    """The document as the server has projected it. Its key is None if the projection omits it."""
    image = split(raw, reserved)
    if image.document is None:
        return None
    version = image.state if isinstance(image.state, Version) else Version("", 0)
    document = image.document
    key = document["_id"] if type(document) is dict and "_id" in document else taken(raw).get("_id")
    return Hit(key, version, stored(document, "_id") if _omits_key(projection) else document)


def _omits_key(projection: Document | None) -> bool:
    wanted = (projection or {}).get("_id", True)
    return isinstance(wanted, bool | int | float) and not wanted


# --- changes ------------------------------------------------------------------------------------------------------


def options_of(change: Update | Replace | Delete) -> Document:
    """The driver's options of a change. At a pinned version the filter is not needed, nor are its options."""
    assert change.mongo_only is not None
    options = dict(change.mongo_only.options)
    if isinstance(change, Replace) or change.pin is None or _needs_filter(change):
        return options
    return {name: value for name, value in options.items() if name not in _OF_FILTER}


def by_version(change: Update | Delete, reserved: str) -> Document:
    """The condition that a document is at the version at which it was found."""
    assert change.pin is not None
    where = {"_id": change.key, **exactly(change.pin, reserved)}
    return {"$and": [where, without_version(change.filter, reserved)]} if _needs_filter(change) else where


def _needs_filter(change: Update | Delete) -> bool:
    """Whether the change itself depends on its filter, or compares by the filter's collation."""
    if isinstance(change, Delete):
        return False
    assert change.mongo_only is not None
    if isinstance(change.update, list):
        return "collation" in change.mongo_only.options
    if _is_positional(change.update):
        return True
    return "collation" in change.mongo_only.options and _compares(change, change.update)


def _compares(change: Update, update: Document) -> bool:
    """Whether an update by operators compares texts."""
    return _is_positional(update) or bool(change.array_filters) or not set(update) <= _ANY_COLLATION


def _is_positional(update: Document) -> bool:
    """Whether a path has the element that the filter matched, `$`."""
    paths = [path for fields in update.values() if isinstance(fields, Mapping) for path in fields]
    return any("$" in path.split(".") for path in paths)


def is_computed(change: Update | Replace) -> bool:
    """Whether the document after the change can be computed from the one before it."""
    if isinstance(change, Replace) or change.mongo_only is None:
        return True
    options = change.mongo_only.options
    if isinstance(change.update, list) and options.keys() & {"collation", "let"}:
        return False
    if isinstance(change.update, dict) and "collation" in options and _compares(change, change.update):
        return False
    try:
        if cached_update(change.update, change.array_filters).positional:
            cached_filter(change.filter).check_positional()
    except OperationFailure:
        return False
    return True
