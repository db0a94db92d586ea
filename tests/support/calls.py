"""Every verb of a driver's collection with every option that its signature documents, and what it answers in a form in
which two collections can be compared."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import bson
import pymongo
from bson import CodecOptions, ObjectId
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.cursor_shared import CursorType
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult

__all__ = ["DOCUMENTS", "INDEX_CALLS", "Call", "answer_of", "calls", "undocumented"]

DOCUMENTS: Final = [
    {"_id": 1, "n": 1, "kind": "a", "tags": ["x", "y"], "at": {"deep": 1}},
    {"_id": 2, "n": 2, "kind": "A", "tags": []},
    {"_id": 3, "n": 2, "kind": "b", "rows": [{"v": 1}, {"v": 5}]},
    {"_id": "k", "n": 3.5, "kind": "b"},
]

_UPDATE: Final = {"$set": {"n": 9}, "$push": {"tags": "z"}}
_ROWS: Final = {"$set": {"rows.$[row].v": 7}}
_GIVEN: Final[dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]] = {
    "aggregate": [([{"$match": {"n": 2}}, {"$sort": {"_id": 1}}],), ([{"$collStats": {"count": {}}}],)],
    "bulk_write": [
        ([pymongo.InsertOne({"_id": 9}), pymongo.UpdateOne({"n": 2}, _UPDATE), pymongo.DeleteMany({"kind": "b"})],),
        ([pymongo.InsertOne({"_id": 9}), pymongo.InsertOne({"_id": 1}), pymongo.InsertOne({"_id": 10})],),
        ([pymongo.UpdateOne({"kind": "a"}, _UPDATE, collation={"locale": "en", "strength": 2}, hint="_id_")],),
        ([pymongo.ReplaceOne({"_id": 77}, {"y": 1}, upsert=True), pymongo.UpdateMany({}, {"$bad": 1})],),
        ([],),
    ],
    "count_documents": [({"n": 2},), ({"$where": "this.n > 2"},), (3,)],
    "delete_many": [({"n": 2},), ({},), (3,)],
    "delete_one": [({"n": 2},), ({"_id": 77},)],
    "distinct": [("n",), ("tags", {"n": 1}), (3,)],
    "estimated_document_count": [()],
    "find": [(), ({"n": {"$gt": 1}},), ({}, ["kind"]), ({}, {"tags": {"$slice": 1}}), ({"$bad": 1},), (3,)],
    "find_one": [(), (2,), ({"n": 2}, {"_id": 0}), ({"_id": 77},)],
    "find_one_and_delete": [({"n": 2},), ({"_id": 77},)],
    "find_one_and_replace": [({"n": 2}, {"x": 1}), ({"n": 2}, {"$set": {"x": 1}})],
    "find_one_and_update": [({"n": 2}, _UPDATE), ({"n": 2}, [{"$set": {"m": "$n"}}]), ({"n": 2}, {"$bad": 1})],
    "insert_many": [([{"_id": 5}, {"_id": 6}],), ([{"_id": 5}, {"_id": 1}, {"_id": 7}],), ([],), ({"_id": 5},)],
    "insert_one": [({"_id": 5, "x": 1},), ({"_id": 1},), ({"_id": ["no"]},), (3,), ({"a.b": 1, "_id": 8},)],
    "replace_one": [({"n": 2}, {"x": 1}), ({"_id": 1}, {"_id": 2}), ({"n": 2}, {"$set": {"x": 1}})],
    "update_many": [({"n": 2}, _UPDATE), ({}, {"$inc": {"n": 1}}), ({}, {"$inc": {"kind": 1}}), ({"n": 2}, {"x": 1})],
    "update_one": [
        ({"n": 2}, _UPDATE),
        ({"_id": 77}, _UPDATE),
        ({"_id": 1}, {"$set": {"n": 1}}),
        ({"_id": 1}, [{"$set": {"m": "$n"}}]),
        ({"_id": 1}, {}),
    ],
    "create_index": [("n",), ([("n", 1), ("kind", -1)],), ([("kind", "text")],), ([("$**", 1)],)],
    "create_indexes": [([pymongo.IndexModel("n"), pymongo.IndexModel("kind", sparse=True)],)],
    "drop_index": [("no_such",), ("_id_",)],
    "drop_indexes": [()],
    "index_information": [()],
    "list_indexes": [()],
    "options": [()],
    "drop": [()],
    "rename": [("renamed",), ("",)],
    "find_raw_batches": [({"n": 2},)],
    "aggregate_raw_batches": [([{"$match": {"n": 2}}],)],
}  # fmt: skip
"""Verb to the arguments that it is called with."""

_OPTIONS: Final[dict[str, list[Any]]] = {
    "allow_disk_use": [True],
    "allow_partial_results": [True],
    "array_filters": [[{"row.v": {"$gt": 2}}]],
    "batch_size": [1],
    "bypass_document_validation": [True],
    "collation": [{"locale": "en", "strength": 2}],
    "comment": ["why"],
    "cursor_type": [CursorType.EXHAUST],
    "encrypted_fields": [],
    "filter": [],
    "hint": ["_id_", [("_id", 1)], "no_such"],
    "let": [{"two": 2}],
    "limit": [1, -1],
    "max": [],
    "max_scan": [],
    "max_time_ms": [60_000],
    "maxTimeMS": [60_000],
    "min": [],
    "no_cursor_timeout": [True],
    "oplog_replay": [True],
    "ordered": [False],
    "projection": [{"n": 1}, {"tags": 0}, ["n"], {"kind": {"$toUpper": "$kind"}}],
    "return_document": [pymongo.ReturnDocument.AFTER],
    "return_key": [True],
    "session": [],
    "show_record_id": [True],
    "skip": [1],
    "snapshot": [],
    "sort": [[("_id", -1)], {"_id": -1}],
    "upsert": [True],
}
"""Option to values. None where the server has it no more, or where it has calls of its own below."""
_MORE: Final = {
    "create_index": {"unique": True, "partialFilterExpression": {"n": {"$gt": 0}}, "name": "mine", "hidden": True},
    "find": {"min": {"_id": 1}, "max": {"_id": 3}, "hint": {"_id": 1}},
    "update_one": {"array_filters": [{"row.v": {"$gt": 2}}]},
    "distinct": {"collation": {"locale": "en", "strength": 2}},
    "count_documents": {"limit": 1, "skip": 1, "collation": {"locale": "en", "strength": 2}, "hint": "_id_"},
    "aggregate": {"collation": {"locale": "en", "strength": 2}, "batchSize": 1, "allowDiskUse": True},
}


@dataclasses.dataclass(frozen=True)
class Call:
    verb: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    async def on(self, collection: Any) -> Any:
        """What it answers; a cursor is read to its end."""
        arguments, options = copy.deepcopy(self.arguments), dict(self.options)
        made = getattr(collection, self.verb)(*arguments, **options)
        if inspect.isawaitable(made):
            made = await made
        if not hasattr(made, "to_list"):
            return made, arguments
        if "raw_batches" in self.verb:
            return [each async for batch in made for each in bson.decode_all(batch)], arguments
        return await made.to_list(None), arguments

    def __str__(self) -> str:
        return f"{self.verb}(*{self.arguments!r}, **{self.options!r})"


def calls() -> Iterator[Call]:
    """Each verb with each way of calling it, and each option of its signature with each value."""
    for verb, given in _GIVEN.items():
        for arguments in given:
            yield Call(verb, arguments, {})
        for name in _options_of(verb):
            for value in _OPTIONS[name]:
                first = ({"_id": 3}, _ROWS) if name == "array_filters" else given[0]
                taken = list(_signature(verb).parameters)[: len(first)]
                yield Call(verb, first if name not in taken else first[: taken.index(name)], {name: value})
        if verb in _MORE:
            first = ({"_id": 3}, _ROWS) if "array_filters" in _MORE[verb] else given[0]
            yield Call(verb, first, _MORE[verb])


def _options_of(verb: str) -> list[str]:
    kept = [each for each in _signature(verb).parameters.values() if each.default is not each.empty]
    return [each.name for each in kept if each.kind is not each.VAR_KEYWORD and each.name in _OPTIONS]


def _signature(verb: str) -> inspect.Signature:
    of_cursor = verb in ("find", "find_one", "find_raw_batches")
    whole = inspect.signature(AsyncCursor.__init__ if of_cursor else getattr(AsyncCollection, verb))
    left = [each for each in whole.parameters.values() if each.name not in ("self", "collection")]
    return whole.replace(parameters=left)


def undocumented() -> set[str]:
    """The options of signatures that nothing here gives a value to."""
    found = {
        each.name
        for verb in _GIVEN
        for each in _signature(verb).parameters.values()
        if each.default is not each.empty and each.kind is not each.VAR_KEYWORD
    }
    return found - set(_OPTIONS)


# --- answers ----------------------------------------------------------------------------------------------------


def answer_of(value: Any, names: tuple[str, ...]) -> Any:
    """An answer, or an error with its class, text, code and details, without what no two servers have the same:
    `names` of databases, ids that were made on the way."""
    match value:
        case Exception():
            details = answer_of(getattr(value, "details", None), names)
            return (type(value), _plain(str(value), names), getattr(value, "code", None), details)
        case BulkWriteResult():
            return ("bulk", answer_of(value.bulk_api_result, names), value.acknowledged)
        case InsertOneResult():
            return ("inserted", answer_of(value.inserted_id, names), value.acknowledged)
        case InsertManyResult():
            return ("inserted", answer_of(value.inserted_ids, names), value.acknowledged)
        case UpdateResult() | DeleteResult():
            return (type(value), answer_of(value.raw_result, names), value.acknowledged)
        case dict():
            return {_plain(k, names): answer_of(v, names) for k, v in value.items() if k not in _VOLATILE}
        case list() | tuple():
            return [answer_of(each, names) for each in value]
        case ObjectId():
            return ObjectId
        case str():
            return _plain(value, names)
        case _ if value is None or isinstance(value, int | float | bool | bytes):
            return value
        case _ if dataclasses.is_dataclass(value) or hasattr(value, "full_name"):
            return type(value).__name__
        case _:
            return bson.encode({"": value}, codec_options=CodecOptions()) if not hasattr(value, "_doc") else repr(value)


INDEX_CALLS: Final = ("create_index", "create_indexes", "drop_indexes", "drop", "rename")
"""Verbs that leave a collection other than empty and filled again."""
_VOLATILE: Final = ("$clusterTime", "operationTime", "electionId", "opTime", "localTime", "host", "lsid", "uuid")


_CLOCK: Final = re.compile(r"(lsid|\$clusterTime): \{(?:[^{}]|\{[^{}]*\})*\}|txnNumber: \d+")
"""What a driver says of its session, in the command that an error's text repeats."""
_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _plain(text: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(text, str):
        return text
    # What the drivers add to an error's text is in its details, in full.
    text = _UUID.sub("UUID", _CLOCK.sub("", text.partition(", full error")[0]))
    for name in names:
        text = text.replace(name, "DATABASE")
    return text
