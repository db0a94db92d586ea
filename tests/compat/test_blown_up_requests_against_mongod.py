"""Requests of any size stay within DynamoDB's documented limits, and are answered as the real MongoDB answers them.

The generators' filters, blown up: hundreds of branches, thousands of values, texts of hundreds of KB, deep paths, long
names. What the store sends is held to the limits by a reading of its own, not by the module that keeps them: DynamoDB
Local does not refuse all that DynamoDB does. `amount` says where the generator starts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pymongo
import pytest
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Delete, Insert, Query, Update
from shadow.model.order import key_digest
from shadow.model.values import normalise, normalise_value
from shadow.model.version import Document, fresh_id
from shadow.mongoql import compile_filter
from tests.compat.amount import CASES, SEED
from tests.compat.cases import Case, Server, verdict
from tests.compat.generators import Generator
from tests.compat.test_stores_against_mongod import Asked
from tests.support.topologies import root_url

pytestmark = pytest.mark.timeout(600)

_TOKENS: Final = re.compile(r"#\w+|:\w+|[A-Za-z_]+|<>|<=|>=|[=<>+(),.-]")
_WORDS: Final = frozenset({"AND", "OR", "NOT", "IN"})
_SIGNS: Final = frozenset({"=", "<>", "<", ">", "<=", ">=", "+", "-"})
_LARGE: Final = 300_000
_MANY: Final = 2 * CASES
"""Documents that are inserted at once."""


def operators_of(text: str) -> int:
    """Comparators, AND, OR, NOT, BETWEEN with its AND as one, IN, and functions."""
    tokens = _TOKENS.findall(text)
    named = sum(token in _WORDS or token in _SIGNS for token in tokens)
    called = sum(a.isidentifier() and a not in _WORDS and b == "(" for a, b in itertools.pairwise(tokens))
    return named + called


def size_of(attribute: dict[str, Any]) -> int:
    ((tag, raw),) = attribute.items()
    match tag:
        case "M":
            return 3 + sum(len(name.encode()) + size_of(each) + 1 for name, each in raw.items())
        case "L":
            return 3 + sum(size_of(each) + 1 for each in raw)
        case "S" | "N":
            return len(raw.encode())
        case "B":
            return len(raw)
    return 1


def depth_of(attribute: dict[str, Any]) -> int:
    ((tag, raw),) = attribute.items()
    inner = raw.values() if tag == "M" else raw if tag == "L" else ()
    return 1 + max(map(depth_of, inner), default=0) if tag in ("M", "L") else 0


def check_request(parameters: dict[str, Any]) -> None:
    """Developer Guide, "Constraints in Amazon DynamoDB" and "Quotas"; the API's reference."""
    names = parameters.get("ExpressionAttributeNames", {})
    values = parameters.get("ExpressionAttributeValues", {})
    substituted = sum(len(k) + len(v.encode()) for k, v in names.items())
    substituted += sum(len(k) + size_of(v) for k, v in values.items())
    assert substituted <= 2 * 1024 * 1024
    assert all(len(each) <= 255 for each in (*names, *values))
    assert all(0 < len(name.encode()) <= 65_535 for name in names.values())
    assert all(size_of(each) <= 400 * 1024 and depth_of(each) <= 32 for each in values.values())
    for name, text in parameters.items():
        if name.endswith("Expression"):
            assert len(text.encode()) <= 4_096, name
            assert operators_of(text) <= 300, name
            assert all(path.count(".") < 32 for path in re.findall(r"[#\w.]+", text))
    if "Limit" in parameters:
        assert 0 < parameters["Limit"] < 2**31
    for key in _keys(parameters):
        assert 0 < len(key.encode()) <= 2_048
    if "Item" in parameters:
        assert sum(len(k.encode()) + size_of(v) for k, v in parameters["Item"].items()) <= 400 * 1024 * 1.05
    assert len(parameters.get("Statements", ())) <= 25
    assert all(len(each["Statement"]) <= 8_192 for each in parameters.get("Statements", ()))
    assert len(parameters.get("TransactItems", ())) <= 100
    for action in parameters.get("TransactItems", ()):
        check_request(*action.values())
    for asked in parameters.get("RequestItems", {}).values():
        assert 0 < len(asked["Keys"]) <= 100
        check_request({name: each for name, each in asked.items() if name != "Keys"})


def _keys(parameters: dict[str, Any]) -> Iterator[str]:
    keys = [parameters["Key"]] if "Key" in parameters else []
    for asked in parameters.get("RequestItems", {}).values():
        keys += asked["Keys"]
    for key in keys:
        yield key["_id"]["S"]
    if "KeyConditionExpression" in parameters:
        values = parameters["ExpressionAttributeValues"]
        text = parameters["KeyConditionExpression"]
        hash_, *ranges = re.findall(r":\w+", text)
        assert all(0 < len(values[each]["S"].encode()) <= 1_024 for each in ranges)
        yield values[hash_]["S"]


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[Server]:
    with pymongo.MongoClient(root_url(mongo_url)) as client:
        name = f"compat_{fresh_id()}"
        yield Server(client[name])
        client.drop_database(name)


@pytest.fixture(scope="module")
def asked(dynamodb_local_url: str) -> Iterator[Asked]:
    """The store, with an eye on every request that it makes."""
    side = Asked(dynamodb_local_url, fresh_id())
    call = side.store._gateway.call

    async def checked(verb: str, table: str, **parameters: Any) -> Any:
        check_request(parameters)
        return await call(verb, table, **parameters)

    side.store._gateway.call = checked  # type: ignore[method-assign]
    yield side
    side.close()


def deep(levels: int, value: Any) -> Any:
    for _ in range(levels):
        value = {"d": value}
    return value


LONG_NAMES: Final = ("n" * 255, "n" * 256, "é" * 200, "n" * 5_000)


def documents() -> list[Document]:
    """Some of the generators', and some that the filters below are made for."""
    generator = Generator(SEED)
    made = [generator.document(n) for n in range(20)]
    wide = {f"f{n}": n for n in range(400)}
    made += [{"_id": "wide", "a": 7, **wide}, {"_id": "nearly", "a": 7, **wide, "f399": -1}]
    made += [{"_id": "deep", **deep(40, 1)}, {"_id": "long", **dict.fromkeys(LONG_NAMES, 1)}]
    made += [{"_id": "large", "t": "x" * _LARGE, "a": "y" * 1_500}, {"_id": "larger", "t": "x" * 600_000}]
    made += [{"_id": f"k{n}", "a": f"v{n}", "b": f"w{n % 5}", "c": n} for n in range(60)]
    return [normalise(each) for each in made]


def shapes() -> Iterator[tuple[str, Document]]:
    """Filters, each with what is large in it."""
    wide = {f"f{n}": n for n in range(400)}
    yield "fields", wide
    yield "fields and values", {**wide, "a": 7, "t": {"$exists": False}}
    yield "conditions of one field", {"$and": [{"f1": {"$gte": -n}} for n in range(600)]}
    yield "conditions that are alike", {"$and": [{f"f{n}": {"$exists": True}} for n in range(400)]}
    yield "numbers between doubles", {f"f{n}": {"$lt": n + 0.5, "$gt": n - 0.5} for n in range(200)}
    yield "alternatives", {"$or": [{f"f{n}": -1} for n in range(400)]}
    yield "alternatives by key", {"$or": [{"_id": f"k{n}"} for n in range(2_000)]}
    yield "alternatives by index", {"$or": [{"a": f"v{n}"} for n in range(40)]}
    yield "more of them", {"$or": [{"a": f"v{n}"} for n in range(2_000)]}
    yield "neither", {"$nor": [{f"f{n}": -1} for n in range(400)], "a": 7}
    yield "keys", {"_id": {"$in": [f"k{n}" for n in range(10_000)]}}
    yield "none of the keys", {"_id": {"$nin": [f"k{n}" for n in range(5_000)]}, "c": {"$gte": 0}}
    yield "values of an index", {"a": {"$in": [f"v{n}" for n in range(5_000)]}}
    yield "values of both", {"a": {"$in": [f"v{n}" for n in range(12)]}, "b": {"$in": [f"w{n}" for n in range(12)]}}
    yield "values of a field", {"c": {"$in": list(range(5_000))}}
    both = {"a": {"$in": [f"v{n}" for n in range(3_000)]}}
    yield "values and alternatives", {**both, "$or": [{"b": f"w{n}"} for n in range(500)]}
    yield "a text", {"t": "x" * _LARGE}
    yield "a text at the limit", {"t": "x" * 409_600}
    yield "a text over the limit", {"t": {"$gte": "x" * 600_000}}
    yield "texts", {"$and": [{"t": {"$gte": "x" * n}} for n in range(_LARGE - 12, _LARGE)]}
    yield "texts of an index", {"a": {"$in": [f"{n}" + "y" * 2_500 for n in range(60)] + ["y" * 1_500]}}
    yield "a path", {".".join("d" * 40): 1}
    yield "paths", {".".join("d" * n): {"$exists": True} for n in range(1, 41)}
    yield "names", dict.fromkeys(LONG_NAMES, 1)
    yield "many names", {**{f"{n}" + "m" * 250: None for n in range(100)}, "c": 3}
    yield "nesting", _nested(Generator(SEED + 1), 30)


def _generated(number: int) -> Document:
    generator = Generator(SEED + 2 + number)
    kind = generator.pick(["$and", "$or", "$nor"])
    return {kind: [_taken(generator) for _ in range(generator.pick([50, 200, 600]))]}


def _taken(generator: Generator) -> Document:
    """A filter that both sides take: of hundreds, one would be faulty, or an expression that fails or not by the order
    in which the server looks at them."""
    while True:
        filter = generator.filter(1)
        if "$expr" in repr(filter):
            continue
        with contextlib.suppress(OperationFailure, UnsupportedOperation):
            compiled = compile_filter(normalise(filter))
            for each in HELD:
                compiled.matches(each)
            return filter


def _nested(generator: Generator, levels: int) -> Document:
    filter: Document = {"a": 7}
    for _ in range(levels):
        filter = {generator.pick(["$and", "$or"]): [filter, {"a": 7}]}
    return filter


HELD: Final = documents()
SHAPES: Final[dict[str, Document | Callable[[], Document]]] = {
    **dict(shapes()),
    **{f"generated {n}": functools.partial(_generated, n) for n in range(6)},
}
"""By name; or what makes it, which takes a while, where only the test needs it."""


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filter_of_any_size_has_the_servers_answer(server: Server, asked: Asked, shape: str) -> None:
    """And no request goes over a limit; to count, to name the different values, to aggregate the same."""
    filter = SHAPES[shape]
    case = Case("filter", HELD, normalise(filter() if callable(filter) else filter))
    theirs, ours = server.ask(case), asked.ask(case)
    assert verdict(case, theirs, ours) == "equal", f"seed {SEED}: {str(theirs)[:500]}\n{str(ours)[:500]}"
    assert theirs.documents is not None
    store, run = asked.store, asked.runner.run
    assert run(store.count("documents", case.operation)) == len(theirs.documents)
    grouped = run(store.aggregate("documents", [{"$match": case.operation}, {"$count": "n"}]))
    assert [each["n"] for each in grouped] == ([len(theirs.documents)] if theirs.documents else [])
    collection = server._collection("documents", HELD)
    values = {key_digest(normalise_value(each)) for each in collection.distinct("c", case.operation)}
    assert {key_digest(each) for each in run(store.distinct("documents", "c", case.operation))} == values


def test_projections_and_windows_of_any_size(server: Server, asked: Asked) -> None:
    """Thousands of fields, hundreds of long ones; and numbers that DynamoDB's parameters cannot hold."""
    for projection in (
        {f"f{n}": 1 for n in range(3_000)},
        {f"f{n}": 0 for n in range(3_000)},
        {f"{n}" + "m" * 250: 1 for n in range(500)},
        dict.fromkeys(LONG_NAMES, 1),
    ):
        case = Case("projection", HELD, projection)
        assert verdict(case, server.ask(case), asked.ask(case)) == "equal"
    run = asked.runner.run
    for query in (
        Query(limit=2**31),
        Query(skip=2**31 - 1, limit=2**31 - 1),
        Query({"b": "w1"}, sort=(("c", 1),), limit=2**31 - 1),
        Query({"b": "w1"}, limit=2**40),
    ):
        found = run(asked._find(query))
        assert len(found) == (0 if query.skip else len(HELD) if not query.filter else 12)


def test_updates_of_any_size(server: Server, asked: Asked) -> None:
    """Thousands of paths, values of hundreds of KB, on both sides."""
    collection = server.database["blown"]
    run, store = asked.runner.run, asked.store
    for number, update in enumerate(
        (
            {"$set": {f"f{n}": n for n in range(3_000)}},
            {"$set": {f"f{n}": "x" * 60_000 for n in range(25)}},
            {"$inc": {f"f{n}": 1 for n in range(2_000)}},
            {"$set": {f"p{n}.q.r": n for n in range(1_000)}, "$unset": {f"f{n}": "" for n in range(1_000)}},
            {"$set": {".".join("d" * 60): 1, "e": deep(60, [1])}},
            {"$push": {"l": {"$each": list(range(20_000))}}},
        )
    ):
        key = f"u{number}"
        collection.insert_one({"_id": key, "a": 1})
        run(store.apply("updated", Insert(key, {"_id": key, "a": 1}, fresh_id()), fresh_id()))
        filter = {"_id": key, **{f"g{n}": None for n in range(300)}}
        theirs = collection.find_one_and_update(filter, update, return_document=pymongo.ReturnDocument.AFTER)
        applied = run(store.apply("updated", Update(key, filter, update, fresh_id()), fresh_id()))
        assert applied is not None
        assert applied.post.document == theirs
        assert run(store.image("updated", key)).document == theirs
        assert run(store.apply("updated", Delete(key, filter, fresh_id()), fresh_id())) is not None


def test_inserts_of_any_number_and_shape(asked: Asked) -> None:
    """Thousands at once; documents of thousands of fields, and large ones, among small ones."""
    run, store = asked.runner.run, asked.store
    small: list[Document] = [{"_id": f"b{n}", "a": f"v{n % 7}"} for n in range(_MANY)]
    odd = [{"_id": f"w{n}", **{f"f{m}": m for m in range(n * 200)}} for n in range(12)]
    odd += [{"_id": f"l{n}", "t": "x" * 390_000} for n in range(30)]
    for given in (small, odd):
        inserts = [Insert(each["_id"], each, fresh_id()) for each in given]
        results = run(store.insert_many("others", inserts, [fresh_id() for _ in inserts], ordered=False))
        assert not [each for each in results if isinstance(each, Exception)]
    keys = [each["_id"] for each in (*small, *odd)]
    found = run(store.count("others", {"_id": {"$in": keys}}))
    assert found == len(keys)


def test_the_reading_of_expressions_finds_what_is_over_a_limit() -> None:
    """So that a clean run says something."""
    joined = " AND ".join(["attribute_exists(#a)"] * 151)
    assert operators_of(joined) == 301
    assert operators_of("#a BETWEEN :v AND :w OR contains(#a, :v)") == 3
    for wrong in (
        {"FilterExpression": joined},
        {"FilterExpression": "x" * 4_097},
        {"ExpressionAttributeValues": {":v": {"S": "x" * 410_000}}},
        {"RequestItems": {"t": {"Keys": [{"_id": {"S": str(n)}} for n in range(101)]}}},
        {"Key": {"_id": {"S": "x" * 2_049}}},
    ):
        with pytest.raises(AssertionError):
            check_request(wrong)
