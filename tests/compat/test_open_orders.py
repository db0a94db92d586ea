"""The same documents on both sides, stored in another order: no answer may come to a mismatch. And a document that
differs is found wherever the server fixes what would show it.

Two collections of a real mongod differ in the order of their documents alone; the DynamoDB store is a third.
`amount` says how many cases are generated, and where the generator starts.
"""

from __future__ import annotations

import collections
import functools
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import bson
import pymongo
import pytest
from bson import Decimal128, Int64
from pymongo.errors import OperationFailure

from shadow.compare.answers import compare_values
from shadow.compare.equality import compare_hits
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Hit, Query
from shadow.model.reads import Aggregate
from shadow.model.values import CANONICAL, normalise, normalise_value
from shadow.model.version import Version
from shadow.mongoql import compile_pipeline
from tests.compat.amount import CASES, SEED, is_rare
from tests.compat.generators import Generator
from tests.compat.test_stores_against_mongod import Asked
from tests.support.topologies import root_url

pytestmark = pytest.mark.timeout(3600)

DOCUMENTS: Final = 12
OTHERS: Final = 8
BATCH: Final = 100
"""Cases over the same documents."""
OF_THE_STORE: Final = 0.3
"""The share of the cases that is asked of the DynamoDB store too."""

NUMBERS: Final = [1, 1.0, 2, Int64(1), Decimal128("1.0"), "x", 0.1, 0.2, 0.7, None]
READ: Final = ["$a", "$b", "$c.d", "$_id", "$l", "$j", "$j.a", 1, "$p", {"$size": {"$ifNull": ["$j", []]}}]
KEYS: Final = [None, "$a", "$b", "$c.d", {"x": "$a"}, "$l", "$j.a", "$j"]
STAGES: Final[list[dict[str, Any]]] = [
    {"$unwind": "$j"},
    {"$unwind": "$l"},
    {"$unwind": {"path": "$j", "includeArrayIndex": "i"}},
    {"$unwind": {"path": "$j", "preserveNullAndEmptyArrays": True}},
    {"$unwind": "$p"},
    {"$sort": {"a": 1}},
    {"$sort": {"_id": 1}},
    {"$sort": {"b": -1, "_id": 1}},
    {"$sort": {"p": -1}},
    {"$sort": {"j.a": 1}},
    {"$sort": {"i": 1}},
    {"$sort": {"l": 1}},
    {"$sort": {"count": -1}},
    {"$limit": 3},
    {"$skip": 2},
    {"$limit": 1},
    {"$project": {"a": 1}},
    {"$project": {"_id": 0, "a": 1, "j": 1}},
    {"$project": {"j.b": 1}},
    {"$project": {"x": "$j"}},
    {"$project": {"b": 0}},
    {"$project": {"x": {"$setUnion": ["$l", [1]]}}},
    {"$project": {"x": {"$arrayElemAt": ["$j", 0]}}},
    {"$project": {"s": {"$sum": "$j.b"}, "m": {"$max": "$j.b"}}},
    {"$project": {"_id": "$a"}},
    {"$project": {"x": {"$filter": {"input": "$j", "cond": {"$gt": ["$$this.b", 1]}}}}},
    {"$set": {"n": {"$size": {"$ifNull": ["$j", []]}}}},
    {"$set": {"x": "$j"}},
    {"$unset": "j"},
    {"$set": {"f": {"$first": "$j"}}},
    {"$replaceWith": {"z": "$j", "a": "$a"}},
    {"$set": {"a": "$p"}},
    {"$match": {"a": 1}},
    {"$match": {"j.a": 1}},
    {"$match": {"j.0.a": 1}},
    {"$match": {"p": {"$gt": 0.3}}},
    {"$match": {"j": {"$size": 2}}},
    {"$match": {"_id": 3}},
    {"$match": {"q": {"$type": "int"}}},
    {"$sortByCount": "$a"},
    {"$bucket": {"groupBy": "$_id", "boundaries": [0, 3, 50], "output": {"p": {"$sum": 1}, "q": {"$push": "$a"}}}},
    {"$bucket": {"groupBy": "$a", "boundaries": [0, 2], "default": "other"}},
    {"$bucketAuto": {"groupBy": "$a", "buckets": 3, "output": {"p": {"$sum": "$b"}}}},
    {"$bucketAuto": {"groupBy": "$p", "buckets": 2}},
    {"$sample": {"size": 3}},
    {"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"p": {"$push": "$a", "window": {"documents": [-1, 0]}}}}},
    {"$setWindowFields": {"sortBy": {"a": 1}, "output": {"p": {"$rank": {}}, "q": {"$documentNumber": {}}}}},
    {"$setWindowFields": {"sortBy": {"a": 1}, "output": {"p": {"$shift": {"output": "$b", "by": 1}}}}},
    {"$setWindowFields": {"partitionBy": "$c", "output": {"p": {"$push": "$_id"}, "q": {"$max": "$_id"}}}},
    {"$setWindowFields": {"partitionBy": "$b", "sortBy": {"_id": -1}, "output": {"p": {"$first": "$a"}}}},
    {"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"p": {"$sum": "$p", "window": {"documents": [-1, 0]}}}}},
    {"$setWindowFields": {"sortBy": {"a": 1}, "output": {"p": {"$locf": "$b"}}}},
    {"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"p": {"$expMovingAvg": {"input": "$b", "N": 2}}}}},
    {"$densify": {"field": "_id", "range": {"step": 1, "bounds": "full"}}},
    {"$densify": {"field": "_id", "partitionByFields": ["c"], "range": {"step": 2, "bounds": "partition"}}},
    {"$fill": {"sortBy": {"_id": 1}, "output": {"p": {"method": "locf"}, "q": {"value": "$a"}}}},
    {"$redact": {"$cond": [{"$eq": ["$a", 1]}, "$$PRUNE", "$$KEEP"]}},
    {"$redact": {"$cond": [{"$eq": ["$d", 1]}, "$$PRUNE", "$$DESCEND"]}},
    {"$sortByCount": "$l"},
    {"$sortByCount": "$j.a"},
    {"$count": "n"},
    {"$facet": {"x": [{"$sort": {"a": 1}}, {"$limit": 2}], "y": [{"$count": "n"}], "z": [{"$match": {"a": 1}}]}},
]
ACCUMULATORS: Final = ["$sum", "$avg", "$min", "$max", "$first", "$last", "$push", "$addToSet", "$mergeObjects"]
COUNTED: Final = ["$firstN", "$lastN", "$maxN", "$minN"]


_OF_A: Final = {"$match": {"$expr": {"$eq": ["$a", "$$v"]}}}
JOINS: Final[list[dict[str, Any]]] = [
    {"$lookup": {"from": "others", "let": {"v": "$a"}, "pipeline": [_OF_A], "as": "j"}},
    {"$lookup": {"from": "others", "let": {"v": "$a"}, "pipeline": [_OF_A, {"$sort": {"_id": 1}}], "as": "j"}},
    {"$lookup": {"from": "others", "let": {"v": "$a"}, "pipeline": [_OF_A, {"$limit": 1}], "as": "j"}},
    {"$lookup": {"from": "others", "let": {"v": "$p"}, "pipeline": [_OF_A, {"$project": {"b": "$$v"}}], "as": "j"}},
    {"$lookup": {"from": "others", "pipeline": [{"$group": {"_id": "$a", "b": {"$sum": 1}}}], "as": "j"}},
    {"$unionWith": {"coll": "others", "pipeline": []}},
    {
        "$graphLookup": {
            "from": "others",
            "startWith": "$a",
            "connectFromField": "b",
            "connectToField": "a",
            "as": "j",
            "maxDepth": 1,
        }
    },
    {"$unionWith": {"coll": "others", "pipeline": [{"$sort": {"a": 1}}, {"$limit": 2}]}},
    {"$unionWith": {"coll": "others", "pipeline": [{"$group": {"_id": "$a", "b": {"$push": "$b"}}}]}},
]


class Orders(Generator):
    """Documents in which numbers tie, and pipelines that hang on an order or leave one open."""

    def row(self, key: int) -> dict[str, Any]:
        return {
            "_id": key,
            "a": self.pick(NUMBERS),
            "b": self.pick([10, 10.0, 0.1, 1e-3, 3, "y", [1, 2], [2.0, 1]]),
            "c": self.pick([{"d": 1}, {"d": 1.0}, {"d": 2}, [{"d": 1}, {"d": 2}], None]),
            "l": [self.pick([1, 2, 1.0, "x"]) for _ in range(self.random.randrange(4))],
        }

    def stage(self) -> dict[str, Any]:
        kind = self.random.random()
        if kind < 0.25:
            outputs: dict[str, Any] = {name: {self.pick(ACCUMULATORS): self.pick(READ)} for name in ("p", "q")}
            if self.chance(0.2):
                outputs["q"] = {self.pick(COUNTED): {"n": 2, "input": self.pick(READ)}}
            if self.chance(0.1):
                outputs["q"] = {self.pick(["$top", "$bottom"]): {"sortBy": {"a": 1}, "output": self.pick(READ)}}
            return {"$group": {"_id": self.pick(KEYS), **outputs}}
        if kind < 0.4:
            if self.chance(0.3):
                return self.pick(JOINS)
            local, foreign = self.pick(["a", "b", "c.d", "l", "j.a"]), self.pick(["a", "b", "_id", "l"])
            return {
                "$lookup": {
                    "from": "others",
                    "localField": local,
                    "foreignField": foreign,
                    "as": self.pick(["j", "j", "k", "a"]),
                }
            }
        return self.pick(STAGES)

    def pipeline(self) -> list[dict[str, Any]]:
        return [self.stage() for _ in range(self.pick([1, 2, 2, 3, 3, 4]))]


class Side:
    """Documents and others in one order, in two collections of a mongod."""

    def __init__(self, database: Any, name: str) -> None:
        self.rows = database.get_collection(f"rows_{name}", codec_options=CANONICAL)
        self.others = database.get_collection(f"others_{name}", codec_options=CANONICAL)

    def fill(self, rows: list[Any], others: list[Any]) -> None:
        for collection, documents in ((self.rows, rows), (self.others, others)):
            collection.delete_many({})
            collection.insert_many([dict(each) for each in documents])

    def aggregate(self, pipeline: list[Any]) -> list[Any]:
        return list(self.rows.aggregate(_from(pipeline, self.others.name)))


def _from(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: name if key in ("from", "coll") else _from(inner, name) for key, inner in value.items()}
    return [_from(each, name) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def database(mongo_url: str) -> Iterator[Any]:
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        name = f"orders_{uuid.uuid4().hex[:12]}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture(scope="module")
def store(dynamodb_local_url: str) -> Iterator[Asked]:
    side = Asked(dynamodb_local_url, uuid.uuid4().hex)
    yield side
    side.close()


def _tried(ask: Callable[[], list[Any]]) -> list[Any] | None:
    """The answer; None where it is refused."""
    try:
        return [normalise_value(each) for each in ask()]
    except (OperationFailure, UnsupportedOperation):
        return None


def _drawn(orders: Orders) -> tuple[list[Any], list[Any]]:
    return [normalise(orders.row(n)) for n in range(DOCUMENTS)], [normalise(orders.row(n)) for n in range(OTHERS)]


def _shuffled(orders: Orders, documents: list[Any]) -> list[Any]:
    return orders.random.sample(documents, len(documents))


def _differs(pipeline: list[Any], one: list[Any], other: list[Any]) -> str:
    """What a comparison came to, as a word; the first difference where there is any."""
    found = compare_values(Aggregate(pipeline), one, other)
    if found.keys:
        return f"{found.keys[0].kind}: {pipeline!r}\n  {one!r}\n  {other!r}"
    return "" if found.equal else str(found.incomparable)


def test_equal_data_in_another_order_is_never_a_mismatch(database: Any, store: Asked) -> None:
    orders, outcomes = Orders(SEED), collections.Counter[str]()
    one, two = Side(database, "one"), Side(database, "two")
    bad: list[str] = []
    for number in range(max(BATCH, round(CASES * 0.15))):
        if number % BATCH == 0:
            rows, others = _drawn(orders)
            one.fill(rows, others)
            two.fill(_shuffled(orders, rows), _shuffled(orders, others))
        pipeline = normalise_value(orders.pipeline())
        primary = _tried(functools.partial(one.aggregate, pipeline))
        answers = {"mongod": _tried(functools.partial(two.aggregate, pipeline))}
        if orders.chance(OF_THE_STORE):
            answers["store"] = _tried(functools.partial(_of_store, store, pipeline, rows, others))
        for name, answer in answers.items():
            if primary is not None and answer is not None:
                outcome = _differs(pipeline, primary, answer)
                outcomes[f"{name} {outcome if len(outcome) < 40 else 'different'}"] += 1
                bad += [f"seed {SEED}, {name}: {outcome}"] if len(outcome) >= 40 else []
    print(f"seed {SEED}: {dict(outcomes)}")
    assert not bad, f"{len(bad)} false findings\n" + "\n".join(bad[:5])
    total = sum(outcomes.values())
    assert is_rare(total - outcomes["mongod "] - outcomes["store "], 0.3, total), f"too little is compared: {outcomes}"


def _of_store(store: Asked, pipeline: list[Any], rows: list[Any], others: list[Any]) -> list[Any]:
    async def ask() -> list[Any]:
        await store._fill("documents", rows)
        await store._fill("others", others)
        return list(await store.store.aggregate("documents", pipeline))

    return store.runner.run(ask())


def test_a_document_that_differs_is_found() -> None:
    """Both answers in the same order, so that whatever differs comes from the planted document: it is never called
    equal but where numbers that are equal, or ties, leave a choice; and mostly it is named."""
    orders, outcomes = Orders(SEED + 1), collections.Counter[str]()
    for _ in range(max(BATCH, round(CASES * 0.15))):
        rows, others = _drawn(orders)
        victim, field = orders.random.randrange(DOCUMENTS), orders.pick(["a", "b", "l"])
        planted = [{**each, field: "planted"} if each["_id"] == victim else each for each in rows]
        pipeline = normalise_value(orders.pipeline())
        answers = [_tried(functools.partial(_of_engine, pipeline, side, others)) for side in (rows, planted)]
        if None in answers or _bytes(answers[0]) == _bytes(answers[1]):
            continue
        outcome = _differs(pipeline, *answers)
        outcomes["found" if len(outcome) >= 40 else outcome or "equal"] += 1
    print(f"seed {SEED + 1}: {dict(outcomes)}")
    total = sum(outcomes.values())
    assert is_rare(total - outcomes["found"], 0.3, total), f"differences are lost: {outcomes}"
    assert is_rare(outcomes["equal"], 0.05, total), f"differences are called equal: {outcomes}"


def _of_engine(pipeline: list[Any], rows: list[Any], others: list[Any]) -> list[Any]:
    return compile_pipeline(pipeline).run(rows, lambda name: others)


def _bytes(answer: Any) -> list[bytes]:
    return [bson.encode(each) for each in answer]


def test_any_order_of_a_find_is_equal_and_a_planted_document_is_found(database: Any) -> None:
    """Sorts, limits and skips over ties, asked of the same documents in two orders."""
    orders, side = Orders(SEED + 2), [Side(database, "three"), Side(database, "four")]
    for number in range(max(BATCH, round(CASES * 0.15))):
        if number % BATCH == 0:
            rows, others = _drawn(orders)
            side[0].fill(rows, others)
            side[1].fill(_shuffled(orders, rows), others)
        sort = tuple(orders.pick([(), (("a", 1),), (("b", -1),), (("c.d", 1), ("a", -1)), (("a", 1), ("_id", 1))]))
        query = Query({}, None, sort, orders.pick([0, 0, 2, 5]), orders.pick([0, 3, 6, 20]))
        one, two = (_hits(each, query) for each in side)
        assert not compare_hits(query, one, two).keys, f"seed {SEED + 2}: {query}"
        if two:
            changed = [*two[:-1], Hit(two[-1].key, two[-1].version, {**two[-1].document, "z": 1})]
            common = {hit.key for hit in one} & {changed[-1].key}
            assert compare_hits(query, one, changed).keys or not common


def _hits(side: Side, query: Query) -> list[Hit]:
    cursor = side.rows.find(query.filter, sort=list(query.sort) or None, skip=query.skip, limit=query.limit)
    return [Hit(each["_id"], Version("b", 1), normalise(each)) for each in cursor]
