"""Documents of every kind of mapping are inserted as by the bare driver: the same answers, ids, errors and documents,
by every verb that inserts, in each phase; also with `w=0`, where the drivers send fewer options."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable
from typing import Any, Final

import bson
import pymongo
import pytest
from bson import SON
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, WriteConcern

from tests.contract.test_answers_about_the_database import answered, bare, driver, ours, shown

__all__ = ["bare", "driver", "ours"]

pytestmark = pytest.mark.plain_options(reason="a write concern of the url is not that of the calls here")

Call = Callable[[Any], Any]


def raw(**fields: Any) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(fields))


KINDS: Final[dict[str, Callable[..., Any]]] = {
    "dict": dict,
    "SON": lambda **fields: SON(fields),
    "raw": raw,
    "ordered": lambda **fields: collections.OrderedDict(fields),
    "chained": lambda **fields: collections.ChainMap(fields),
    "of the user": lambda **fields: collections.UserDict(fields),
    "read only": lambda **fields: types.MappingProxyType(fields),
}
VERBS: Final[dict[str, Callable[[Any, list[Any]], Any]]] = {
    "insert_one": lambda things, given: things.insert_one(given[0]),
    "insert_many": lambda things, given: things.insert_many(given),
    "unordered": lambda things, given: things.insert_many(given, ordered=False),
    "bulk_write": lambda things, given: things.bulk_write([InsertOne(each) for each in given]),
}


async def insert(database: Any, verb: str, kind: str, *, acknowledged: bool) -> Any:
    things = database.things if acknowledged else database.things.with_options(write_concern=WriteConcern(0))
    await database.things.delete_many({})
    make = KINDS[kind]
    documents = [make(n=1), make(_id=2, n=2), make(n=3, _id=3), make(_id=2, n=4)]
    found = []
    for given in ([documents[1], documents[0], documents[2]], [documents[3], make(_id=5, n=5)]):
        answer = await answered(lambda given=given: VERBS[verb](things, given))
        named = [sorted(each) for each in given]
        found.append([shown(answer, database.name)[:2], getattr(answer, "acknowledged", None), named])
    if not acknowledged:
        await database.client.admin.command("ping")
    kept = sorted([each["n"] for each in await database.things.find().to_list(None)])
    return [found, kept, sorted([type(each["_id"]).__name__ for each in await database.things.find().to_list(None)])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
async def test_each_kind_is_inserted_as_by_the_driver(bare: Any, ours: Any, verb: str, kind: str) -> None:
    mine = await insert(ours, verb, kind, acknowledged=True)
    assert mine == await insert(bare, verb, kind, acknowledged=True)
    assert not any("_shadow" in each for each in await ours.things.find().to_list(None))


@pytest.mark.parametrize("kind", ["dict", "raw"])
@pytest.mark.parametrize("verb", VERBS)
async def test_unacknowledged_inserts_name_the_same_ids(bare: Any, ours: Any, verb: str, kind: str) -> None:
    theirs, mine = [await insert(each, verb, kind, acknowledged=False) for each in (bare, ours)]
    assert [each[:2] for each in mine[0]] == [each[:2] for each in theirs[0]]


ENGLISH: Final = {"locale": "en"}
WITHOUT_ANSWER: Final[dict[str, Call]] = {
    "collation of an update": lambda c: c.update_one({"_id": 1}, {"$set": {"n": 1}}, collation=ENGLISH),
    "collation of a delete": lambda c: c.delete_many({"_id": 1}, collation=ENGLISH),
    "collation of a replacement": lambda c: c.replace_one({"_id": 1}, {"n": 1}, collation=ENGLISH),
    "array_filters": lambda c: c.update_one({"_id": 1}, {"$set": {"a.$[e]": 1}}, array_filters=[{"e": 1}]),
    "array_filters by position": lambda c: c.update_many({"_id": 1}, {"$set": {"a.$[e]": 1}}, False, [{"e": 1}]),
    "array_filters of a find-and-modify": lambda c: c.find_one_and_update(
        {"_id": 1}, {"$set": {"a.$[e]": 1}}, array_filters=[{"e": 1}]
    ),
    "collation in bulk": lambda c: c.bulk_write([pymongo.DeleteOne({"_id": 1}, collation=ENGLISH)]),
    "array_filters in bulk": lambda c: c.bulk_write(
        [pymongo.UpdateOne({"_id": 1}, {"$set": {"a.$[e]": 1}}, array_filters=[{"e": 1}])]
    ),
    "past validators in bulk": lambda c: c.bulk_write([InsertOne({"_id": 9})], bypass_document_validation=True),
    "past validators of many": lambda c: c.insert_many([{"_id": 9}], bypass_document_validation=True),
    "past validators of one": lambda c: c.insert_one({"_id": 9}, bypass_document_validation=True),
    "a delete": lambda c: c.delete_one({"_id": 1}),
    "deletes": lambda c: c.delete_many({"_id": 1}),
}


async def test_options_that_no_unacknowledged_write_takes(bare: Any, ours: Any) -> None:
    wrong = []
    for name, call in WITHOUT_ANSWER.items():
        answers = []
        for database in (bare, ours):
            await database.things.delete_many({})
            await database.things.insert_one({"_id": 1, "a": [1, 2]})
            things = database.things.with_options(write_concern=WriteConcern(0))
            answer = await answered(lambda call=call, things=things: call(things))
            answers.append([shown(answer, database.name)[:2], getattr(answer, "raw_result", None)])
        if answers[0] != answers[1]:
            wrong.append((name, *answers))
    assert wrong == []
