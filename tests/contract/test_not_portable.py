"""While MongoDB is the primary, it does what DynamoDB does not support: side by side with a bare collection, on both
drivers; after each scenario both stores are equal and the journal is empty. With DynamoDB as primary, or by
configuration, the same calls are refused by name."""

from __future__ import annotations

import asyncio
import functools
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from bson import Code, ObjectId
from pymongo.collation import Collation

from shadow import Shadow
from shadow.config import CollectionSettings, Settings
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName, Unsupported
from shadow.mongoql.portability import name_of
from shadow.mongoql.values.support import Family, Support, SupportEntry, entries
from shadow.surface.collections.collection import Collection
from tests.support.drawn import Draws
from tests.support.shims import assert_level, prepared, settings_for
from tests.support.surface import Scenarios, Seen, assert_same
from tests.support.topologies import DEPLOYMENTS, drop

pytestmark = pytest.mark.asyncio(loop_scope="module")

AFTER: Final = pymongo.ReturnDocument.AFTER
SV: Final = Collation(locale="sv", strength=2)
EN2: Final = Collation(locale="en", strength=2)
EVEN: Final = {"$where": "this.n % 2 == 0"}
JOIN: Final = {"$lookup": {"from": "elsewhere", "localField": "n", "foreignField": "n", "as": "found"}}
"""`elsewhere` is not configured."""
GRAPH: Final = {"from": "elsewhere", "startWith": "$n", "connectFromField": "n", "connectToField": "n", "as": "found"}
SIDES: Final = [("motor", "one"), ("pymongo", "replicas")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SIDES, ids=lambda side: "-".join(side))
async def shadow(
    request: pytest.FixtureRequest, draws: Draws, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    driver, deployment = request.param
    url = draws.of_node(request.node)(deployment).url(request.getfixturevalue(DEPLOYMENTS[deployment]))
    folder = tmp_path_factory.mktemp("journal")
    async with prepared(folder, url, dynamodb_local_url, ["things", "others"], driver=driver) as shadow:
        yield shadow


SCENARIOS: Final = Scenarios()
scenario = SCENARIOS.add


async def stocked(c: Any, count: int = 10) -> None:
    """`n` counts up; names differ from another by case alone."""
    await c.insert_many(
        [
            {"_id": n, "n": n, "name": f"{'Ada' if n % 2 else 'ADA'}{n // 2}", "list": [n, n + 1, {"x": n}]}
            for n in range(count)
        ]
    )


async def all_of(c: Any, see: Seen) -> None:
    await see(c.find().sort("_id").to_list(None))


# --- reads ------------------------------------------------------------------------------------------------------


@scenario
async def reads_by_an_operator(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.find_one(EVEN, sort=[("n", -1)]))
    await see(c.find_one({"$where": Code("this.n == 3")}))
    await see(c.find(EVEN).sort("n", -1).skip(1).limit(2).to_list(None))
    await see(c.find(EVEN, {"name": 1}).sort("n").to_list(None))
    await see(c.find(EVEN, {"_id": 0, "list": 0}).sort("n").to_list(None))
    await see(c.find({"n": {"$lt": 5}, **EVEN}, ["n"]).sort("n").to_list(2))
    await see(
        c.find({}, {"n": 1, "f": {"$function": {"body": "function(n){return n}", "args": ["$n"], "lang": "js"}}})
        .sort("n")
        .to_list(None)
    )
    see.note(sorted(await c.distinct("n", EVEN)))
    function = {"$function": {"body": "function(n){return n * 2}", "args": ["$n"], "lang": "js"}}
    await see(c.aggregate([{"$sort": {"n": 1}}, {"$project": {"twice": function}}]).to_list(None))
    await see(
        c.aggregate([{"$match": {"n": {"$gt": 7}}}, {"$set": {"twice": function}}, {"$sort": {"n": 1}}]).to_list(None)
    )
    await see(c.find({"$where": "this is no code"}).to_list(None))
    await see(c.count_documents(EVEN))
    cursor = c.find(EVEN).sort("n").batch_size(2)
    see.note([each async for each in cursor])


@scenario
async def reads_by_a_schema(c: Any, see: Seen) -> None:
    """It is about the fields of the application, not about the version beside them."""
    await stocked(c, 4)
    await c.insert_many([{"_id": 10, "n": "x"}, {"_id": 11}])
    closed = {
        "additionalProperties": False,
        "properties": {"_id": {}, "n": {"bsonType": "int"}, "name": {}, "list": {}},
    }
    for schema in (
        closed, {"not": closed}, {"anyOf": [closed, {"maxProperties": 1}]}, {"minProperties": 3}, {"maxProperties": 2},
        {"minProperties": 2, "maxProperties": 2}, {"additionalProperties": {"bsonType": "int"}},
        {"patternProperties": {"^[^a]": {"bsonType": ["int", "string"]}}}, {"patternProperties": {"d$": {}}},
        {"dependencies": {"n": {"minProperties": 3}}}, {"required": ["n"]}, {"allOf": 5}, {"minProperties": -1},
    ):  # fmt: skip
        fitting = {"$jsonSchema": schema}
        await see(lambda fitting=fitting: c.find(fitting).sort("_id").to_list(None))
        await see(c.count_documents({"$or": [fitting, {"n": 2}]}))
        await see(lambda fitting=fitting: c.aggregate([{"$match": fitting}, {"$sort": {"_id": 1}}]).to_list(None))
    await see(c.update_many({"$jsonSchema": closed}, {"$set": {"hit": 1}}))
    await all_of(c, see)


@scenario
async def reads_by_a_collation(c: Any, see: Seen) -> None:
    await stocked(c)
    wanted = {"name": "ada1"}
    await see(c.find_one(wanted))
    await see(c.find_one(wanted, sort=[("n", 1)], collation=EN2))
    await see(c.find(wanted, collation=EN2).sort("n").to_list(None))
    await see(c.find(wanted).collation(EN2).sort("n").to_list(None))
    await see(
        c.find({"name": {"$in": ["ada1", "ada2"]}}).collation({"locale": "en", "strength": 1}).sort("n").to_list(None)
    )
    await see(
        c.find().collation(Collation(locale="en", numericOrdering=True)).sort([("name", 1), ("n", 1)]).to_list(None)
    )
    await see(c.count_documents(wanted, collation=EN2))
    see.note(len(await c.distinct("name", {}, collation=EN2)))
    group = [{"$group": {"_id": "$name", "all": {"$sum": "$n"}}}, {"$sort": {"all": 1}}, {"$unset": "_id"}]
    await see(c.aggregate(group, collation=EN2).to_list(None))
    await see(lambda: c.find().collation({"locale": "nowhere"}).to_list(None))


@scenario
async def reads_by_other_options(c: Any, see: Seen) -> None:
    await stocked(c)
    await c.create_index([("n", 1)], name="by_n")
    await see(c.find().min([("n", 3)]).max([("n", 6)]).hint([("n", 1)]).to_list(None))
    await see(c.find({"$expr": {"$gt": ["$n", "$$least"]}}, let={"least": 6}).sort("n").to_list(None))
    await see(
        c.aggregate([{"$match": {"$expr": {"$gt": ["$n", "$$least"]}}}, {"$sort": {"n": 1}}], let={"least": 6}).to_list(
            None
        )
    )
    await see(c.find(return_key=True).hint([("n", 1)]).to_list(None))
    await see(c.find({}).sort([("$natural", -1)]).to_list(None))
    await see(c.find(hint="by_nothing").to_list(None))
    await see(c.count_documents({"n": {"$gt": 2}}, hint="by_nothing"))
    await c.drop_index("by_n")


@scenario
async def text_search(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.find({"$text": {"$search": "ada1"}}).to_list(None))


# --- writes -----------------------------------------------------------------------------------------------------


@scenario
async def one_document_by_an_operator(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.update_one({"$where": "this.n == 4"}, {"$set": {"hit": True}, "$inc": {"n": 100}}))
    await see(c.update_one({"$where": "this.n == 4"}, {"$set": {"hit": True}}))
    await see(c.update_one({"_id": 5, **EVEN}, {"$set": {"hit": True}}))
    await see(c.update_one({"_id": 6, **EVEN}, {"$set": {"n": 6}}))
    await see(c.update_one({"_id": 6, "list": 6, "$where": "true"}, {"$set": {"list.$": "six"}}))
    await see(c.update_one({"_id": 7, "$where": "true"}, {"$currentDate": {"at": True}}))
    await see(c.update_one({"_id": 7, "$where": "true"}, {"$unset": {"at": 1}}))
    await see(c.replace_one({"$where": "this.n == 8"}, {"new": 1}))
    await see(c.replace_one({"$where": "this.n == 8"}, {"new": 1}))
    await see(c.delete_one({"$where": "this.n == 9"}))
    await see(c.delete_one({"$where": "this.n == 9"}))
    await see(c.update_one({"$where": "this is no code"}, {"$set": {"hit": 1}}))
    await see(c.update_one({"$where": "true", "_id": 0}, {"$set": {"_id": 77}}))
    await all_of(c, see)


@scenario
async def find_and_modify(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(c.find_one_and_update(EVEN, {"$inc": {"n": 1}}, sort=[("n", -1)]))
    await see(c.find_one_and_update(EVEN, {"$inc": {"n": 1}}, sort=[("n", -1)], return_document=AFTER))
    await see(c.find_one_and_update(EVEN, {"$push": {"list": 1}}, {"list": 1}, sort=[("n", 1)], return_document=AFTER))
    await see(c.find_one_and_update({"$where": "this.n > 1000"}, {"$inc": {"n": 1}}))
    await see(c.find_one_and_replace(EVEN, {"replaced": True}, sort=[("n", 1)], return_document=AFTER))
    await see(c.find_one_and_delete(EVEN, sort=[("n", 1)]))
    await see(c.find_one_and_delete({"$where": "this.n > 1000"}))
    await all_of(c, see)


@scenario
async def pipelines_that_are_not_computed_here(c: Any, see: Seen) -> None:
    await stocked(c)
    twice = [{"$set": {"n": {"$function": {"body": "function(n){return n * 2}", "args": ["$n"], "lang": "js"}}}}]
    await see(c.update_one({"_id": 3}, twice))
    await see(c.update_one({"_id": 0}, twice))
    await see(c.find_one_and_update({"_id": 4}, twice))
    await see(c.find_one_and_update({"_id": 5}, twice, return_document=AFTER))
    await see(c.update_many({"n": {"$gt": 5}}, twice))
    await see(c.update_one({"_id": 6}, [{"$set": {"least": "$$least"}}], let={"least": 5}))
    await see(c.update_one({"_id": "up", "$where": "true"}, twice, upsert=True))
    await all_of(c, see)


@scenario
async def many_documents(c: Any, see: Seen) -> None:
    await stocked(c, 50)
    await see(c.update_many(EVEN, {"$inc": {"n": 2}}))
    await see(c.update_many({"$where": "this.n > 1000"}, {"$inc": {"n": 1}}))
    await see(c.update_many({"$where": "true", "list": 7}, {"$set": {"list.$": "seven"}}))
    await see(c.update_many({"$where": "true"}, {"$set": {"list.$[one]": "big"}}, array_filters=[{"one": {"$gt": 45}}]))
    await see(c.delete_many({"$where": "this.n > 30"}))
    await see(c.delete_many({"$where": "this.n > 1000"}))
    await all_of(c, see)


@scenario
async def upserts(c: Any, see: Seen) -> None:
    await stocked(c, 3)
    await see(c.update_one({"$where": "this.n == 1"}, {"$set": {"hit": 1}}, upsert=True))
    await see(c.update_one({"$where": "this.n == 9", "k": 9}, {"$set": {"_id": "made"}}, upsert=True))
    await see(c.update_one({"$where": "this.n == 9", "_id": "nine"}, {"$set": {"n": 9}}, upsert=True))
    await see(c.update_one({"$where": "this.n == 8", "_id": "nine"}, {"$set": {"n": 8}}, upsert=True))
    await see(c.replace_one({"$where": "false", "_id": "ten"}, {"n": 10}, upsert=True))
    await see(c.update_many({"$where": "false", "_id": "all"}, {"$set": {"n": 11}}, upsert=True))
    await see(c.find_one_and_update({"$where": "false", "_id": "found"}, {"$set": {"n": 1}}, upsert=True))
    await see(
        c.find_one_and_update({"$where": "false", "_id": "f2"}, {"$set": {"n": 1}}, upsert=True, return_document=AFTER)
    )
    await see(c.update_one({"$where": "false", "n": 12}, {"$setOnInsert": {"made": True}}, upsert=True))
    await see(c.replace_one({"$where": "false"}, {"n": 13}, upsert=True))
    await see(c.find({}, {"_id": 0}).sort("n").to_list(None))
    await see(c.delete_one({"_id": "ten"}))
    await see(c.replace_one({"$where": "false", "_id": "ten"}, {"n": 10}, upsert=True))


@scenario
async def writes_by_a_collation(c: Any, see: Seen) -> None:
    await stocked(c)
    await c.insert_many([{"_id": "ada", "k": "x"}, {"_id": "ADA", "k": "X"}, {"_id": ObjectId(b"1" * 12), "k": "y"}])
    await see(c.update_one({"name": "ada1"}, {"$set": {"hit": 1}}, collation=EN2))
    await see(c.find_one_and_update({"name": "ADA2"}, {"$set": {"hit": 2}}, sort=[("n", -1)], collation=EN2))
    await see(c.update_many({"name": "ada3"}, {"$set": {"hit": 3}}, collation=EN2))
    await see(c.update_many({"k": "x"}, {"$addToSet": {"tags": "t"}}, collation=EN2))
    await see(c.update_many({"k": "x"}, {"$addToSet": {"tags": "T"}}, collation=EN2))
    await see(c.update_many({"k": "x"}, [{"$set": {"same": {"$eq": ["$k", "x"]}}}], collation=EN2))
    await see(c.update_one({"_id": "Ada"}, {"$set": {"hit": 4}}, collation=EN2))
    await see(c.update_one({"k": "Y"}, {"$pull": {"k2": "a"}}, collation=EN2))
    await see(c.update_one({"k": "new"}, {"$set": {"hit": 5}}, upsert=True, collation=EN2))
    await see(c.update_one({"k": "NEW"}, {"$set": {"hit": 6}}, upsert=True, collation=EN2))
    await see(c.replace_one({"name": "ADA4"}, {"name": "gone"}, collation=EN2))
    await see(c.delete_one({"k": "Y"}, collation=EN2))
    await see(c.delete_many({"k": "x"}, collation=EN2))
    await see(c.delete_many({"name": "ada0"}, collation=EN2))
    await see(c.find({}, {"_id": 0}).sort([("n", 1), ("k", 1), ("name", 1)]).to_list(None))


@scenario
async def bulk(c: Any, see: Seen) -> None:
    await stocked(c)
    await see(
        c.bulk_write(
            [
                pymongo.InsertOne({"_id": "new"}),
                pymongo.UpdateOne({"$where": "this.n == 1"}, {"$set": {"hit": 1}}),
                pymongo.UpdateOne({"name": "ada1"}, {"$set": {"hit": 2}}, collation=EN2),
                pymongo.UpdateMany(EVEN, {"$inc": {"n": 2}}),
                pymongo.UpdateMany({"name": "ADA3"}, {"$set": {"hit": 3}}, collation=EN2),
                pymongo.ReplaceOne({"$where": "this.n == 7"}, {"replaced": 1}),
                pymongo.DeleteOne({"$where": "this.n == 9"}),
                pymongo.DeleteMany({"name": "ada0"}, collation=EN2),
                pymongo.UpdateOne({"$where": "false", "_id": "up"}, {"$set": {"n": 77}}, upsert=True),
            ]
        )
    )
    await see(c.bulk_write([pymongo.UpdateOne({"n": 5}, {"$set": {"hit": 1}}, hint="by_nothing")]))
    await see(
        lambda: c.bulk_write(
            [pymongo.UpdateOne({"$where": "this is no code"}, {"$set": {"a": 1}}), pymongo.InsertOne({"_id": "late"})],
            ordered=False,
        )
    )
    await all_of(c, see)


OPERANDS: Final[dict[str, Any]] = {
    "$where": "this.n > 3", "$jsonSchema": {"required": ["n"]}, "$expr": {"$gt": ["$n", 3]}, "$sampleRate": 1.0,
    "$meta": "textScore", "$text": {"$search": "ada"}, "$near": [0, 0],
    "$geoWithin": {"$box": [[0, 0], [5, 5]]}, "$geoIntersects": {"$geometry": {"type": "Point", "coordinates": [0, 0]}},
    "$function": {"body": "function(n) {return n}", "args": ["$n"], "lang": "js"},
    "$accumulator": {
        "init": "function() {return 0}", "accumulate": "function(s, n) {return s + n}", "accumulateArgs": ["$n"],
        "merge": "function(a, b) {return a + b}", "lang": "js",
    },
    "$bitAnd": ["$n", 3], "$bitNot": "$n",
    "$median": {"input": "$n", "method": "approximate"},
    "$percentile": {"input": "$n", "p": [0.5], "method": "approximate"},
    "$geoNear": {"near": [0, 0], "distanceField": "d"},
}  # fmt: skip
"""Of operators that DynamoDB does not have: operands with which MongoDB answers, where it does at all."""
OWN: Final = frozenset({
    "$out", "$merge", "$indexStats", "$planCacheStats", "$collStats", "$changeStream", "$shardedDataDistribution",
    "$currentOp", "$listSessions", "$listLocalSessions", "$documents", "$rand",
})  # fmt: skip
"""Stages that write, wait, or report on the server itself, or belong to a database; and what differs by chance."""
TOP_LEVEL: Final = frozenset({"$where", "$jsonSchema", "$text", "$sampleRate", "$expr"})


def _asked(c: Any, family: Family, name: str) -> Any:
    operand = OPERANDS.get(name, 1)
    first = {"$sort": {"_id": 1}}
    match family:
        case Family.QUERY:
            return c.find({name: operand} if name in TOP_LEVEL else {"list": {name: operand}}).sort("_id", 1)
        case Family.PROJECTION:
            return c.find({}, {"x": {name: operand}}).sort("_id", 1)
        case Family.STAGE:
            return c.aggregate([{name: operand}])
        case Family.ACCUMULATOR:
            return c.aggregate([first, {"$group": {"_id": None, "x": {name: operand}}}])
        case Family.WINDOW:
            return c.aggregate([{"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"x": {name: operand}}}}])
        case _:
            return c.aggregate([first, {"$project": {"x": {name: operand}}}])


async def _listed(c: Any, entry: SupportEntry) -> Any:
    return await _asked(c, entry.family, entry.name).to_list(None)


@scenario
async def every_operator_that_dynamodb_does_not_have(c: Any, see: Seen) -> None:
    """And one that no MongoDB has: a newer one might."""
    await stocked(c)
    refused = [each for each in entries() if each.status is Support.REFUSED and each.name not in OWN]
    unknown = [SupportEntry("$notYet", family, Support.REFUSED) for family in Family]
    for entry in (*refused, *unknown):
        if entry.family in (Family.UPDATE, Family.MODIFIER):
            continue
        await see(functools.partial(_listed, c, entry))


@pytest.mark.parametrize("name", SCENARIOS)
async def test_mongodb_does_what_dynamodb_does_not_support(
    shadow: Shadow, things: Collection, bare: Any, name: str
) -> None:
    theirs, ours = Seen(), Seen()
    await SCENARIOS[name](bare, theirs)
    await SCENARIOS[name](things, ours)
    assert_same(theirs, ours)
    await assert_level(shadow)


# --- what is counted, and what is refused ------------------------------------------------------------------------


def settings_like(
    folder: Path, mongo_url: str, dynamo_url: str, name: str, primary: StoreName = StoreName.MONGO, **options: Any
) -> Settings:
    """`options`: of the collection."""
    settings = settings_for(folder, mongo_url, dynamo_url, name, ["things"], primary=primary, driver="pymongo")
    return settings.model_copy(update={"collections": {"things": CollectionSettings(**options)}})


REFUSED: Final[dict[str, tuple[str, Any]]] = {
    "find": ("$where", lambda c: c.find(EVEN).to_list(None)),
    "find_one": ("collation", lambda c: c.find_one({"a": "x"}, collation=SV)),
    "cursor": ("collation", lambda c: c.find().collation(SV).to_list(None)),
    "text": ("$text", lambda c: c.find({"$text": {"$search": "x"}}).to_list(None)),
    "count_documents": ("$where", lambda c: c.count_documents(EVEN)),
    "distinct": ("$where", lambda c: c.distinct("n", EVEN)),
    "aggregate": ("collation", lambda c: c.aggregate([{"$match": {}}], collation=SV).to_list(None)),
    "join": ("$lookup from 'elsewhere'", lambda c: c.aggregate([JOIN]).to_list(None)),
    "union": ("$unionWith from 'elsewhere'", lambda c: c.aggregate([{"$unionWith": "elsewhere"}]).to_list(None)),
    "inner join": (
        "$graphLookup from 'elsewhere'",
        lambda c: c.aggregate([{"$facet": {"a": [{"$graphLookup": GRAPH}]}}]).to_list(None),
    ),
    "update_one": ("$where", lambda c: c.update_one(EVEN, {"$set": {"hit": 1}})),
    "update_many": ("$where", lambda c: c.update_many(EVEN, {"$set": {"hit": 1}})),
    "replace_one": ("collation", lambda c: c.replace_one({"a": "x"}, {"hit": 1}, collation=SV)),
    "delete_one": ("$where", lambda c: c.delete_one(EVEN)),
    "delete_many": ("collation", lambda c: c.delete_many({"a": "x"}, collation=SV)),
    "find_one_and_update": ("$where", lambda c: c.find_one_and_update(EVEN, {"$set": {"hit": 1}})),
    "find_one_and_delete": ("collation", lambda c: c.find_one_and_delete({"a": "x"}, collation=SV)),
    "bulk_write": ("$where", lambda c: c.bulk_write([pymongo.UpdateOne(EVEN, {"$set": {"hit": 1}})])),
}
"""By verb: the name in the refusal, and the call."""


@pytest.mark.parametrize(
    ("primary", "options"),
    [
        (StoreName.DYNAMO, {}),
        (StoreName.DYNAMO, {"accept_not_portable": ("collation", "$lookup")}),
        (StoreName.DYNAMO, {"unsupported": Unsupported.REFUSE}),
        (StoreName.MONGO, {"unsupported": Unsupported.REFUSE}),
    ],
    ids=["dynamo", "accepted", "dynamo-refuse", "refuse"],
)
async def test_it_is_refused_by_name_after_the_flip_or_by_configuration(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str, primary: StoreName, options: Any
) -> None:
    """Each call is counted once, by its operator, where it is the flip that has ended it, and nobody has accepted
    that."""
    settings = settings_like(tmp_path, mongo_url, dynamodb_local_url, fresh_name, primary, **options)
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": n} for n in range(4)])
        operators: Counter[str] = Counter()
        for verb, (name, call) in REFUSED.items():
            with pytest.raises(UnsupportedOperation, match=re.escape(name)) as refused:
                await call(things)
            assert refused.value.code == 115, verb
            operators[name_of(refused.value)] += 1
            counted = refused_calls(shadow)
            lost = {each: n for each, n in operators.items() if each not in options.get("accept_not_portable", ())}
            assert counted == ({} if "unsupported" in options else lost), verb
        assert await things.find().sort("_id").to_list(None) == [{"_id": n, "n": n} for n in range(4)]
        if primary is StoreName.DYNAMO:
            # Of a collection that is on MongoDB alone, and reads one that has gone.
            join = [{"$lookup": {**JOIN["$lookup"], "from": "things"}}]
            with pytest.raises(UnsupportedOperation, match="its primary is DynamoDB"):
                await shadow["elsewhere"].aggregate(join).to_list(None)
            assert refused_calls(shadow)["other"] == 1.0
        assert (await shadow.admin.status())["not_portable"] == {}
        await assert_level(shadow)
    drop(mongo_url, fresh_name)


def refused_calls(shadow: Shadow) -> dict[str, float]:
    """By operator, without zeros."""
    text = shadow.admin.metrics()[0].decode()
    found = re.findall(r'^shadow_refused_calls_total{collection="things",operator="([^"]+)"} ([0-9.]+)$', text, re.M)
    return {name: float(value) for name, value in found if float(value)}


async def test_it_is_counted_listed_and_closes_a_gate_unless_it_is_accepted(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str
) -> None:
    settings = settings_like(
        tmp_path, mongo_url, dynamodb_local_url, fresh_name, accept_not_portable=("collation",), reads={"dynamo": 1.0}
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": n, "a": "x"} for n in range(4)])
        assert await shadow.settled(60)

        async def gate() -> Any:
            async with asyncio.timeout(60):
                while True:
                    verdict = (await shadow.admin.status())["verdict"]
                    found = next(each for each in verdict["gates"] if each["name"] == "portable")
                    if not found["said"].startswith("not known"):  # the control store is read within seconds
                        return found
                    await asyncio.sleep(0.05)

        assert (await gate())["ok"] is True
        assert (await things.find_one({"a": "X"}, collation=SV)) is not None
        assert (await gate())["ok"] is True
        assert len(await things.find(EVEN).to_list(None)) == 2
        await things.update_many(EVEN, {"$inc": {"n": 2}})
        with pymongo.MongoClient[Any](mongo_url) as client:
            client[fresh_name]["elsewhere"].insert_one({"_id": 1, "n": 3})
        joined = await things.aggregate([{"$match": {"_id": 3}}, JOIN]).to_list(None)
        assert joined == [{"_id": 3, "n": 3, "a": "x", "found": [{"_id": 1, "n": 3}]}]
        await assert_level(shadow)
        closed = await gate()
        assert (closed["ok"], closed["said"]) == (False, "not portable yet: $lookup, $where")
        status = await shadow.admin.status()
        seen = status["not_portable"]["things"]
        assert {name: each["verbs"] for name, each in seen["operators"].items()} == {
            "$lookup": {"aggregate": 1},
            "$where": {"find": 1, "update_many": 1},
            "collation": {"find_one": 1},
        }
        assert seen["not_accepted"] == ["$lookup", "$where"]
        text = shadow.admin.metrics()[0].decode()
        for line in (
            'shadow_not_portable_total{collection="things",operator="$where"} 2.0',
            'shadow_incomparable_total{collection="things",reason="not_portable"} 5.0',
        ):
            assert line in text
        # All of its reads are for the secondary, but these are not.
        routed = status["totals"]["routed_reads"]
        assert sum(routed.get("things", {}).get("dynamo", {}).values()) == 0
    # Another process, which has asked for nothing, and after the first one has ended.
    async with Shadow.from_settings(settings) as shadow:
        assert (await gate())["ok"] is False  # `said` is another while the first process is still known
        again = (await shadow.admin.status())["not_portable"]["things"]
        assert again["operators"]["$where"]["verbs"] == seen["operators"]["$where"]["verbs"]
    drop(mongo_url, fresh_name)


async def test_a_deleted_key_with_a_tombstone_is_inserted_or_refused_and_never_lost(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str
) -> None:
    """A tombstone is on MongoDB where it was the secondary."""
    first = settings_like(tmp_path, mongo_url, dynamodb_local_url, fresh_name, StoreName.DYNAMO)
    async with Shadow.from_settings(first) as shadow:
        await shadow.prepare()
        await shadow["things"].insert_one({"_id": "gone"})
        await shadow["things"].delete_one({"_id": "gone"})
        await assert_level(shadow)
        assert (await shadow.admin.flip("things", StoreName.MONGO, "a test"))["done"]
        things = shadow["things"]
        assert await things.find({"$where": "true"}).to_list(None) == []
        with pytest.raises(UnsupportedOperation, match="deleted while DynamoDB was the primary"):
            await things.update_one({"_id": "gone", "$where": "true"}, {"$set": {"a": 1}}, upsert=True)
        await things.insert_one({"_id": "gone", "n": 1})
        await things.update_one({"_id": "gone", "$where": "true"}, {"$set": {"a": 1}}, upsert=True)
        assert await things.find_one("gone") == {"_id": "gone", "n": 1, "a": 1}
        await assert_level(shadow)
    drop(mongo_url, fresh_name)


async def test_writers_of_the_same_documents_lose_nothing(shadow: Shadow, things: Collection) -> None:
    await things.insert_many([{"_id": n, "n": 0, "name": "Ada"} for n in range(4)])
    calls = [things.update_many({"$where": "this.n >= 0"}, {"$inc": {"n": 1}}) for _ in range(4)]
    calls += [things.update_many({"name": "ada"}, {"$inc": {"n": 1}}, collation=EN2) for _ in range(4)]
    calls += [things.update_one({"_id": 2, "$where": "true"}, {"$inc": {"n": 1}}) for _ in range(4)]
    calls += [things.update_one({"_id": 2}, {"$inc": {"n": 1}}) for _ in range(4)]
    results = await asyncio.gather(*calls)
    assert all(each.matched_count == each.modified_count for each in results)
    assert [each["n"] for each in await things.find().sort("_id").to_list(None)] == [8, 8, 16, 8]
    deleted = await asyncio.gather(*(things.delete_one({"$where": "true"}) for _ in range(6)))
    assert sum(each.deleted_count for each in deleted) == 4
    await assert_level(shadow)
