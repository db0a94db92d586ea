"""The commands for MongoDB: filters at a version, updates with their stamps, and documents without stamps. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from bson import Decimal128, Regex
from pymongo.errors import (
    WriteError,
)

from shadow.model.operation import (
    ANY,
    Applied,
    Delete,
    Hit,
    Replace,
    Update,
    at_key,
    version_after,
)
from shadow.model.order import MISSING
from shadow.model.stored import check_copyable, check_readable, key_of, split, with_id
from shadow.model.version import (
    ABSENT,
    TOMBSTONE_LIFETIME,
    Document,
    Image,
    Key,
    State,
    Tombstone,
    Unknown,
    Version,
    stamp_of,
)
from shadow.mongoql import cached_filter, cached_projection, cached_update
from shadow.mongoql.pipeline.projections import projection_includes
from shadow.mongoql.update.updates import check_upsert
from shadow.mongoql.upserts import insert_key, named_key, replaced
from shadow.mongoql.values.predicates import truthy
from shadow.stores.mongo.bytes import exact_form, has_empty_timestamp, literal, stored, taken
from shadow.stores.mongo.ranges import identity
from shadow.stores.mongo.schema_filters import without_version

__all__ = [
    "after_upsert",
    "applied_after",
    "check_upsert_key",
    "exactly",
    "hide",
    "hide_joined",
    "hit_of",
    "inserting",
    "is_plain",
    "is_under",
    "key_of_change",
    "next_version",
    "own_id",
    "project",
    "raw_of",
    "replacement",
    "replacing",
    "stamping",
    "where_of",
]


def raw_of(image: Image, reserved: str, key: Key = None, *, op_id: str = "") -> Document:
    """The stored form of an image; `op_id` of an operation that selected its document by itself. A tombstone has
    its key, its id and the time of its expiry. Raises `UnreadableDocument` for an image that must not be copied."""
    check_copyable(image)
    stamp = stamp_of(image.state)
    if image.document is not None:
        return exact_form(image.document, reserved, {**(stamp or {}), "o": op_id} if op_id else stamp)
    expiry = dt.datetime.now(dt.UTC) + TOMBSTONE_LIFETIME
    return {"_id": key, reserved: {**(stamp or {}), "x": expiry}}


async def replacing(target: Any, where: Document, raw: Document, **options: Any) -> Any:
    """`replace_one`, for every document that MongoDB can hold: a replacement, unlike an insert, rejects names with `$`
    at the top, and fills in empty timestamps; a pipeline accepts everything unchanged."""
    if any(name.startswith("$") for name in raw) or has_empty_timestamp(raw):
        return await target.update_one(where, literal(raw), **options)
    return await target.replace_one(where, raw, **options)


def exactly(state: State, reserved: str) -> Document:
    """The condition that a stored document is at `state`."""
    if isinstance(state, Tombstone):
        return {f"{reserved}.t": state.id}
    if isinstance(state, Unknown):
        return {reserved: {"$in": []}}  # matches nothing: an unreadable stamp is compared as a whole (`put`)
    assert isinstance(state, Version)
    # A document that shadow did not write does not have these parts; a copy of it has them, empty.
    born = state.born or {"$in": [None, ""]}
    rev = state.rev or {"$in": [None, 0]}
    return {f"{reserved}.b": born, f"{reserved}.r": rev, f"{reserved}.t": None}


def hide(filter: Document, reserved: str, *, always: bool = False) -> Document:
    """`filter`, without tombstones. A lookup of one `_id` alone needs no condition: its result is checked."""
    if not always and len(filter) == 1 and not isinstance(filter.get("_id", {}), dict | Regex):
        return filter
    return {**without_version(filter, reserved), f"{reserved}.t": None}


def hide_joined(pipeline: Sequence[Document], reserved: str) -> list[Document]:
    """The pipeline, with versions and tombstones hidden in the collections that it joins."""
    hidden: list[Document] = [{"$match": {f"{reserved}.t": None}}, {"$unset": reserved}]
    made: list[Document] = []
    for stage in pipeline:
        match stage:
            case {"$lookup": {"from": _} as join}:
                made.append(
                    {"$lookup": {**join, "pipeline": [*hidden, *hide_joined(join.get("pipeline", ()), reserved)]}}
                )
            case {"$graphLookup": {"from": _} as graph}:
                made += _hidden_graph(graph, reserved)
            case {"$unionWith": str(name)}:
                made.append({"$unionWith": {"coll": name, "pipeline": hidden}})
            case {"$unionWith": {"coll": _} as union}:
                made.append(
                    {"$unionWith": {**union, "pipeline": [*hidden, *hide_joined(union.get("pipeline", ()), reserved)]}}
                )
            case {"$facet": dict(facets)}:
                made.append({"$facet": {name: hide_joined(inner, reserved) for name, inner in facets.items()}})
            case _:
                made.append(stage)
    return made


def _hidden_graph(graph: Document, reserved: str) -> list[Document]:
    """`$graphLookup`, which takes no pipeline: what it finds loses the version in a stage of its own."""
    allowed = {"$and": [{f"{reserved}.t": None}, graph.get("restrictSearchWithMatch", {})]}
    bare = {"$unsetField": {"field": {"$literal": reserved}, "input": "$$this"}}
    found = {"$map": {"input": f"${graph['as']}", "in": bare}}
    return [{"$graphLookup": {**graph, "restrictSearchWithMatch": allowed}}, {"$set": {graph["as"]: found}}]


def where_of(change: Update | Replace | Delete, reserved: str) -> Document:
    """The key, if it is known, and the filter together; tombstones never match."""
    filter = without_version(change.filter, reserved)
    if change.key is ANY:
        # Equalities in an upsert's filter become fields of the new document.
        hidden: Any = {"$exists": False} if not isinstance(change, Delete) and change.upsert else None
        return {**filter, f"{reserved}.t": hidden}
    if "_id" in filter:
        # A repeated equality on `_id` is redundant; anything else must match in addition to the key.
        if len(filter) == 1 and not isinstance(filter["_id"], dict):
            return {"_id": change.key, f"{reserved}.t": None}
        return {"$and": [{"_id": change.key, f"{reserved}.t": None}, filter]}
    return {"_id": change.key, f"{reserved}.t": None, **filter}


def stamping(change: Update, op_id: str, reserved: str) -> Document | list[Document]:
    """The update, which also moves the version. `op_id`: of an operation that selects its document by itself."""
    if isinstance(change.update, list):
        return _stamping_pipeline(change, change.update, op_id, reserved)
    update: Document = {**change.update, "$inc": {**change.update.get("$inc", {}), f"{reserved}.r": 1}}
    if op_id:
        update["$set"] = {**update.get("$set", {}), f"{reserved}.o": op_id}
        if change.upsert:
            own = {f"{reserved}.b": change.born}
            if key_of_change(change) is MISSING:
                own["_id"] = change.new
            update["$setOnInsert"] = {**update.get("$setOnInsert", {}), **own}
    return update


def _stamping_pipeline(change: Update, stages: list[Document], op_id: str, reserved: str) -> list[Document]:
    """A pipeline may replace the whole document including the stamp, so it gets a new stamp, and does not see the
    old."""
    assert change.born
    stamp = stamp_of(Version(change.born, 1)) or {}
    inserting = (
        [{"$set": {"_id": own_id(change.new)}}] if op_id and change.upsert and key_of_change(change) is MISSING else []
    )
    last = {"$set": {reserved: {"$literal": {**stamp, "o": op_id} if op_id else stamp}}}
    return [*inserting, {"$unset": reserved}, *stages, last]


def own_id(new: Key) -> Document:
    """The `_id` that a document has, or the one under which it is inserted."""
    return {"$ifNull": ["$_id", {"$literal": new}]}


def inserting(change: Update | Replace) -> Update | Replace:
    """The upsert, at the key under which it inserts."""
    made = at_key(change, insert_key(change)) if change.key is ANY else change
    assert isinstance(made, Update | Replace)
    return made


def key_of_change(change: Update | Replace) -> Key:
    """The `_id` that an upsert names. An invalid one is left to the server, which rejects it if it has to insert; so is
    one in conditions that only MongoDB understands."""
    if change.mongo_only is not None:
        return None if _names_key(change) else MISSING
    try:
        return named_key(change)
    except WriteError:
        return None


def _names_key(change: Update | Replace) -> bool:
    """Whether an upsert may name an `_id` by itself, so that it must not be given one."""
    parts: list[Any] = [change.filter, change.update if isinstance(change, Update) else change.replacement]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            if any(str(name).partition(".")[0] == "_id" for name in part):
                return True
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return False


def project(projection: Document | None, reserved: str) -> Document | None:
    """The projection, extended by the version and the key; None for whole documents."""
    if not projection or computes_key(projection):
        return None
    wanted = {name: value for name, value in projection.items() if name != "_id"}
    if projection_includes(projection):
        return {**wanted, "_id": 1, reserved: 1}
    return wanted or None


def computes_key(projection: Document) -> bool:
    """Whether the projection replaces `_id` by a computed value: the original is needed here."""
    return not isinstance(projection.get("_id", True), bool | int | float | Decimal128) or any(
        name.startswith("_id.") for name in projection
    )


def hit_of(raw: Document, reserved: str, projection: Document | None) -> Hit | None:
    image = split(raw, reserved)
    if image.document is None:
        return None
    version = image.state if isinstance(image.state, Version) else Version("", 0)
    document = image.document
    key = document["_id"] if "_id" in document else taken(raw)["_id"]
    if projection and computes_key(projection):
        check_readable(document)
        return Hit(key, version, cached_projection(projection)(document))
    if projection and not truthy(projection.get("_id", True)):
        document = stored(document, "_id")
    return Hit(key, version, document)


def is_under(key: Key, raw: Any, image: Image) -> bool:
    """Whether a raw document, which has this image, has this key; a key that no query can name is accepted."""
    found, fault = (image.document["_id"], "") if type(image.document) is dict else key_of(raw)
    return bool(fault) or (type(found) is type(key) and found == key) or identity(found) == identity(key)


def is_plain(image: Image) -> bool:
    """Whether the result of a change on this image can be computed here."""
    return type(image.document) is dict and isinstance(image.state, Version)


def next_version(change: Update | Replace, pre: Image) -> Version:
    return version_after(change, pre.state if isinstance(pre.state, Version) else Version("", 0))


def applied_after(change: Update | Replace, pre: Image) -> Applied:
    """The result of the change on the previous document, if it can be computed here."""
    assert pre.document is not None
    state = next_version(change, pre)
    if isinstance(change, Replace):
        return Applied(pre, Image(state, replacement(change, pre.document.get("_id", change.key))))
    updater = cached_update(change.update, change.array_filters)
    matched = cached_filter(change.filter) if updater.positional else None
    return Applied(pre, Image(state, updater.apply(pre.document, matched)))


def replacement(change: Replace, key: Key) -> Document:
    """The document after a replacement: one without an `_id` keeps the existing `_id`, which may be an equal number
    of another type."""
    return with_id(change.replacement, key)


def check_upsert_key(change: Update | Replace) -> None:
    """The server refuses `$expr` in an upsert; here the command is not an upsert, so it would not."""
    if change.upsert:
        check_upsert(cached_filter(change.filter))


def after_upsert(change: Update | Replace) -> Applied:
    if isinstance(change, Replace):
        document = replaced(change.replacement, change.key, None)
    else:
        document = cached_update(change.update, change.array_filters).upsert(cached_filter(change.filter), change.key)
    return Applied(Image(ABSENT), Image(Version(change.born, 1), document))
