"""The driver's own calls on a collection whose documents carry versions: only MongoDB is written now, but both stores
were written earlier.

Each call remains one command, with every option. Its filter excludes tombstones, its projection the version, and a
write moves the version in the same command: a document that was changed while only one store was written can never be
mistaken for the other store's. The version of such a write names the time when both stores were last written (`era`),
so that an update without effect counts as modified once after that time and not again.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import pymongo
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from shadow.model.stored import with_field
from shadow.model.version import STAMP_PARTS, Document, fresh_id
from shadow.mongoql.pipeline.projections import projection_includes
from shadow.stores.mongo.drivers import call_signature
from shadow.stores.mongo.schema_filters import without_version
from shadow.surface.calls.arguments import Arguments

__all__ = ["READS", "WRITES", "Stamping", "hidden_in", "is_stamp", "joins_hidden"]

READS: Final = frozenset({"find_one", "find", "count_documents", "estimated_document_count", "distinct", "aggregate"})
WRITES: Final = frozenset({
    "insert_one", "insert_many", "update_one", "update_many", "replace_one", "delete_one", "delete_many",
    "find_one_and_update", "find_one_and_replace", "find_one_and_delete", "bulk_write",
})  # fmt: skip

_FIRST_ONLY: Final = frozenset({"$match", "$geoNear", "$search", "$vectorSearch"})
"""Stages that must be first, or are faster there; versions and tombstones are hidden after them."""
_NO_DOCUMENTS: Final = frozenset({
    "$changeStream", "$collStats", "$indexStats", "$listSearchIndexes", "$planCacheStats", "$searchMeta",
})  # fmt: skip


def is_stamp(value: Any) -> bool:
    """Whether a value of the reserved field is a version, and not the application's own."""
    return isinstance(value, Mapping) and bool(value) and set(value) <= STAMP_PARTS


def _hiding(reserved: str) -> list[Any]:
    return [{"$match": {f"{reserved}.t": {"$exists": False}}}, {"$unset": reserved}]


def joins_hidden(pipeline: Sequence[Any], reserved_of: Callable[[str], str | None]) -> list[Any]:
    """`pipeline`, with versions and tombstones hidden in the collections that it joins. `reserved_of`: the field of the
    version in a collection, None where there is none."""
    made: list[Any] = []
    for stage in pipeline:
        match stage:
            case {"$lookup": {"from": str(name)} as join}:
                inner = _joined(name, join.get("pipeline", ()), reserved_of)
                made.append({"$lookup": {**join, "pipeline": inner}} if inner else stage)
            case {"$unionWith": str(name)}:
                inner = _joined(name, (), reserved_of)
                made.append({"$unionWith": {"coll": name, "pipeline": inner}} if inner else stage)
            case {"$unionWith": {"coll": str(name)} as union}:
                inner = _joined(name, union.get("pipeline", ()), reserved_of)
                made.append({"$unionWith": {**union, "pipeline": inner}} if inner else stage)
            case {"$graphLookup": {"from": str(name), "as": str(field)}}:
                reserved = reserved_of(name)
                made += [stage] if reserved is None else [stage, {"$unset": f"{field}.{reserved}"}]
            case {"$facet": facets} if isinstance(facets, Mapping):
                inside = {name: joins_hidden(inner, reserved_of) for name, inner in facets.items()}
                made.append({"$facet": inside})
            case _:
                made.append(stage)
    return made


def hidden_in(pipeline: Sequence[Any], reserved: str, reserved_of: Callable[[str], str | None]) -> list[Any]:
    """`pipeline` over a collection whose documents have versions, which are hidden, as are tombstones. For
    `reserved_of` see `joins_hidden`."""
    stages = joins_hidden(pipeline, reserved_of)
    name = next(iter(stages[0]), "") if stages and isinstance(stages[0], Mapping) else ""
    if name in _NO_DOCUMENTS:
        return stages
    return [stages[0], *_hiding(reserved), *stages[1:]] if name in _FIRST_ONLY else [*_hiding(reserved), *stages]


def _joined(name: str, pipeline: Sequence[Any], reserved_of: Callable[[str], str | None]) -> list[Any]:
    reserved = reserved_of(name)
    return [*([] if reserved is None else _hiding(reserved)), *joins_hidden(pipeline, reserved_of)]


class Stamping:
    """The calls of one collection. `reserved` is the field of the version."""

    def __init__(self, reserved: str, era: str, take: Arguments) -> None:
        self._reserved = reserved
        self._era = era
        self._take = take

    # --- reads --------------------------------------------------------------------------------------------------

    def read(self, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> tuple[str, Document]:
        """The driver's verb, and its options. Raises TypeError as the driver does, UnsupportedOperation for arguments
        that name the version."""
        if verb in ("find", "find_one"):
            return verb, self._found(verb, _bound("find", arguments, options))
        if verb == "estimated_document_count":
            return "count_documents", {"filter": self.filter({}), **_bound(verb, arguments, options)}
        given = _bound(verb, arguments, options)
        if verb == "aggregate":
            return verb, {**given, "pipeline": self.pipeline(given["pipeline"])}
        if verb == "distinct" and isinstance(given["key"], str):
            self._take.path("distinct", given["key"])
        return verb, {**given, "filter": self.filter(given.get("filter"))}

    def _found(self, verb: str, given: Document) -> Document:
        filter = given.get("filter")
        if filter is not None and not isinstance(filter, Mapping):
            # Both drivers take a value for a key in `find_one` alone, and whatever is empty for no filter in `find`.
            filter = {"_id": filter} if verb == "find_one" or filter else {}
        return {**given, "filter": self.filter(filter), "projection": self.projection(given.get("projection"))}

    def filter(self, filter: Any) -> Any:
        """`filter`, without tombstones. Not as an equality, which an upsert would turn into a field."""
        if filter is not None and not isinstance(filter, Mapping):
            return filter
        self._take.unreserved("filter", filter or {})
        return {**without_version(dict(filter or {}), self._reserved), f"{self._reserved}.t": {"$exists": False}}

    def projection(self, projection: Any) -> Any:
        """`projection`, without the version."""
        if projection is not None and not isinstance(projection, Mapping):
            if isinstance(projection, Iterable):
                projection = list(projection)
                self._take.unreserved("projection", dict.fromkeys(map(str, projection), 1))
            return projection
        self._take.unreserved("projection", projection or {})
        if projection and _includes(projection):
            return projection
        return {**(projection or {}), self._reserved: 0}

    def pipeline(self, pipeline: Any) -> Any:
        """`pipeline`, with versions and tombstones hidden, also in joined collections."""
        if not isinstance(pipeline, Sequence) or isinstance(pipeline, str | bytes):
            return pipeline
        self._take.unreserved("pipeline", pipeline)
        return hidden_in(pipeline, self._reserved, lambda name: self._reserved)

    # --- writes -------------------------------------------------------------------------------------------------

    async def write(self, own: Any, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Executes a write on the driver's collection. Raises what the driver raises, and UnsupportedOperation for
        arguments that name the version."""
        given = _bound(verb, arguments, options)
        call = getattr(own, verb)
        if verb in ("insert_many", "bulk_write"):
            return await (self._insert_many if verb == "insert_many" else self._bulk_write)(own, call, given)
        asked = self._asked(verb, given)
        try:
            return await call(**asked)
        except DuplicateKeyError as error:
            key = _refused_key(error)
            if key is _NONE:
                raise
            await self._cleared(own, [key])
        # Also without a tombstone: there was one, which is gone by now.
        return await call(**asked)

    def _asked(self, verb: str, given: Document) -> Document:
        if verb == "insert_one":
            return {**given, "document": self._inserted(given["document"])}
        asked = {**given, "filter": self.filter(given["filter"])}
        if "update" in given:
            asked["update"] = self.update(given["update"])
        if "replacement" in given:
            asked["replacement"] = self._replacement(given["replacement"])
        if verb.startswith("find_one_and"):
            asked["projection"] = self.projection(given.get("projection"))
        return asked

    async def _insert_many(self, own: Any, call: Callable[..., Awaitable[Any]], given: Document) -> Any:
        documents = given["documents"]
        if not isinstance(documents, Iterable) or isinstance(documents, Mapping | str | bytes):
            return await call(**given)
        originals = list(documents)
        await self._cleared(own, [each["_id"] for each in originals if isinstance(each, Mapping) and "_id" in each])
        try:
            return await call(**{**given, "documents": [self._inserted(each) for each in originals]})
        except BulkWriteError as error:
            for fault in error.details["writeErrors"]:
                fault["op"] = originals[fault["index"]]
            raise

    async def _bulk_write(self, own: Any, call: Callable[..., Awaitable[Any]], given: Document) -> Any:
        if not isinstance(given["requests"], Iterable):
            return await call(**given)
        originals = list(given["requests"])
        named = [_named_key(each) for each in originals]
        await self._cleared(own, [key[0] for key in named if key])
        try:
            return await call(**{**given, "requests": [self._request(each) for each in originals]})
        except BulkWriteError as error:
            for fault in error.details["writeErrors"]:
                _restore(fault, originals[fault["index"]])
            raise

    def _request(self, request: Any) -> Any:
        made = copy.copy(request)
        match request:
            case pymongo.InsertOne():
                made._doc = self._inserted(request._doc)
            case pymongo.UpdateOne() | pymongo.UpdateMany():
                made._filter, made._doc = self.filter(request._filter), self.update(request._doc)
            case pymongo.ReplaceOne():
                made._filter, made._doc = self.filter(request._filter), self._replacement(request._doc)
            case pymongo.DeleteOne() | pymongo.DeleteMany():
                made._filter = self.filter(request._filter)
        return made

    def _inserted(self, document: Any) -> Any:
        """A copy with its own version; the `_id` is put into the caller's document, as the driver does, but for one of
        raw bytes, whose `_id` is the server's if it names none."""
        if isinstance(document, RawBSONDocument):
            self._take.unstamped("document", document)
            return RawBSONDocument(with_field(bytes(document.raw), self._reserved, {"b": fresh_id(), "r": 1}))
        if not isinstance(document, MutableMapping):
            return document
        self._take.unstamped("document", document)
        if "_id" not in document:
            document["_id"] = ObjectId()
        return {**document, self._reserved: {"b": fresh_id(), "r": 1}}

    def _replacement(self, replacement: Any) -> Any:
        if not isinstance(replacement, Mapping) or str(next(iter(replacement), "")).startswith("$"):
            return replacement
        self._take.unstamped("replacement", replacement)
        return {**replacement, self._reserved: self._stamp()}

    def update(self, update: Any) -> Any:
        """`update`, which also moves the version. Invalid updates are left to the driver or the server to reject."""
        if isinstance(update, list) and update:
            self._take.unreserved("update", update)
            return [*update, {"$set": {self._reserved: {"$literal": self._stamp()}}}]
        if not isinstance(update, Mapping) or not str(next(iter(update), "")).startswith("$"):
            return update
        self._take.unreserved("update", update)
        sets = update.get("$set", {})
        return {**update, "$set": {**sets, self._reserved: self._stamp()}} if isinstance(sets, Mapping) else update

    def _stamp(self) -> Document:
        return {"b": self._era, "r": 0}

    async def _cleared(self, own: Any, keys: Sequence[Any]) -> None:
        """Deletes the tombstones under keys that are about to be inserted."""
        if keys:
            await own.delete_many({"_id": {"$in": list(keys)}, f"{self._reserved}.t": {"$exists": True}})


_NONE: Final = object()


def _refused_key(error: DuplicateKeyError) -> Any:
    details = error.details or {}
    if dict(details.get("keyPattern") or {}) != {"_id": 1}:
        return _NONE
    return dict(details.get("keyValue") or {}).get("_id", _NONE)


def _named_key(request: Any) -> tuple[Any, ...]:
    """The key that a request may insert under, if it names one."""
    if isinstance(request, pymongo.InsertOne):
        return (request._doc["_id"],) if isinstance(request._doc, Mapping) and "_id" in request._doc else ()
    if not getattr(request, "_upsert", False):
        return ()
    for named in (request._filter, getattr(request, "_doc", {})):
        if isinstance(named, Mapping) and "_id" in named and not isinstance(named["_id"], Mapping):
            return (named["_id"],)
    return ()


def _restore(fault: MutableMapping[str, Any], request: Any) -> None:
    """Puts the rejected operation into the error as the application passed it."""
    if isinstance(request, pymongo.InsertOne):
        fault["op"] = request._doc
        return
    for name, value in (("q", request._filter), ("u", getattr(request, "_doc", None))):
        if name in fault["op"]:
            fault["op"][name] = value


# --- signatures -------------------------------------------------------------------------------------------------


def _bound(verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Document:
    """The arguments by name. Raises TypeError for arguments that the driver does not have."""
    leading = (None, None) if verb == "find" else (None,)
    given = call_signature(verb).bind(*leading, *arguments, **options).arguments
    more = given.pop("kwargs", {})
    return {**{name: value for name, value in given.items() if name not in ("self", "collection")}, **more}


def _includes(projection: Mapping[str, Any]) -> bool:
    """Whether it is an inclusion. The server rejects one that is not recognised here."""
    try:
        return projection_includes(projection)
    except OperationFailure:
        return any(value and not isinstance(value, Mapping) for value in projection.values())
