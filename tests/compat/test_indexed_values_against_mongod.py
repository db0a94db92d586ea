"""What stands in an index is found by the same value, by every way of asking, exactly as the real MongoDB finds it; and
unique indexes refuse what the real MongoDB refuses, and nothing else.

The values are of every BSON type, and strings at the borders of DynamoDB's keys: 1,024 bytes of a range, 2,048 of a
hash. The seed (`amount`) draws the ways in which the others are asked for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shadow.errors import UnsupportedOperation
from shadow.model.operation import ANY, Delete, Insert, Query, Replace, Update, Verb, Write
from shadow.model.order import key_digest
from shadow.model.schema import CollectionSpec, IndexSpec, UniqueSpec
from shadow.model.values import CANONICAL, normalise, normalise_value
from shadow.model.version import ABSENT, Document, Image, Tombstone, Version, fresh_id
from shadow.stores.base import Store
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from tests.compat.amount import SEED
from tests.support.topologies import admit, root_url

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

CHARACTERS: Final = {"x": 1, "é": 2, "日": 3, "😀": 4}
BORDERS: Final = (1_023, 1_024, 1_025, 2_047, 2_048, 2_049)


def of_bytes(size: int, character: str = "x", begin: str = "") -> str:
    """A string of exactly so many bytes, of this character as far as it goes."""
    rest = size - len(begin.encode())
    whole, more = divmod(rest, CHARACTERS[character])
    return begin + character * whole + "y" * more


LONG: Final = [
    *(of_bytes(size) for size in BORDERS),
    *(of_bytes(size, character) for size in (1_024, 1_025, 2_048, 2_049) for character in "é日😀"),
    *(of_bytes(size, begin="~str:") for size in (1_024, 1_029, 2_048, 2_053)),
    *(of_bytes(size, begin="~") for size in (1_019, 1_020, 2_043, 2_044)),
    of_bytes(1_025, begin="z"),
    of_bytes(1_500, begin="a\0b"),
]
SHORT: Final = [
    "",
    "a",
    "~",
    "~array",
    "~missing",
    "~null",
    "~str:",
    "~num:5",
    "\0",
    "a\0b",
    "5",
    "true",
    "ß",
    "\U0010ffff",
]
HEX: Final = ["5ca4bbc7a2dd94ee5816238c", "5CA4BBC7A2DD94EE5816238C", "f" * 24, "0" * 23]
NUMBERS: Final = [
    *(0, 5, -5, 2**31 - 1, Int64(5), Int64(2**31), Int64(2**53 + 1), Int64(2**63 - 1), Int64(-(2**63))),
    *(0.0, -0.0, 5.0, 5.5, 0.1, 2.0**53, 1e22, 1e34, 1e40, 1e300, 5e-324, 2.0**63),
    *(float("nan"), float("inf"), float("-inf")),
    *map(Decimal128, ("0", "-0", "5", "5.00", "5.5", "0.1", "1E+22", "1E+34", "1E+40", "NaN", "Infinity", "-Infinity")),
    *map(
        Decimal128, ("9999999999999999455752309870428160", "9999999999999999999999999999999999", "1E-6176", "9E+6144")
    ),
    Decimal128("0.1000000000000000055511151231257827"),
]
DATES: Final = [
    *(dt.datetime(1970, 1, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999000), dt.datetime(1, 1, 1)),
    *(dt.datetime(9999, 12, 31, 23, 59, 59, 999000), dt.datetime(2024, 2, 29, 12, 30, 15, 123000)),
    *(DatetimeMS(253_402_300_800_000), DatetimeMS(-62_135_596_800_001), DatetimeMS(2**62), DatetimeMS(-(2**62))),
]
SCALARS: Final = [
    *(None, True, False, ObjectId("5ca4bbc7a2dd94ee5816238c"), ObjectId("f" * 24)),
    *(b"", b"\x00", b"x" * 3_000, Binary(b"x", 5), Binary(b"x", 2), Binary(b"x", 128)),
    Binary(uuid.UUID(int=7).bytes, 4),
    Binary(uuid.UUID(int=7).bytes, 3),
    *(Timestamp(1, 1), Timestamp(4_000_000_000, 2), MinKey(), MaxKey()),
    *(Code("x"), Code("x", {"a": 1}), Regex("^a"), Regex("^a", 2)),
]
NESTED: Final = [
    *({}, {"a": 1}, {"a": 1.0}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": {"b": "x" * 2_049}}, {"": 1}),
    *([], [[]], [None], [5], [5.0, "a"], ["a", "b"], [{"a": 1}], [["a"]], ["x" * 1_025], ["x" * 2_049]),
]
MISSING: Final = object()
POOLS: Final[dict[str, list[Any]]] = {
    "long": LONG,
    "short": [*SHORT, *HEX],
    "numbers": NUMBERS,
    "dates": DATES,
    "scalars": SCALARS,
    "nested": NESTED,
}
POOL: Final[list[Any]] = [*(value for pool in POOLS.values() for value in pool), MISSING]
_WAYS: Final = 4

BOTH: Final = CollectionSpec(
    "values",
    (
        IndexSpec("hash-index", "hash"),
        IndexSpec("both-index", "both"),
        IndexSpec("group-both-index", "group", "both"),
        IndexSpec("both-n-index", "both", "n"),
        IndexSpec("range-index", "group", "range"),
        IndexSpec("joined-index", "_shadow_by_joined-index", None, ("joined", "group")),
        IndexSpec("joined-range-index", "_shadow_by_joined-range-index", "range", ("hash", "group")),
    ),
)
KEYED: Final = CollectionSpec("keyed")


def documents_of(pool: Sequence[Any]) -> list[Document]:
    """One for each value, which is in every kind of index."""
    fields = ("hash", "both", "range", "joined")
    return [
        normalise({"_id": n, "n": n % 3, "group": "g", **({} if value is MISSING else dict.fromkeys(fields, value))})
        for n, value in enumerate(pool)
    ]


def ways(value: Any) -> Iterator[Document]:
    """Every way to ask for a value."""
    exact = {"$eq": value}  # a pattern asks for itself only so
    yield from ({name: exact} for name in ("hash", "both"))
    yield from ({"group": "g", name: exact} for name in ("both", "range", "joined"))
    yield {"joined": exact, "group": {"$in": ["g", "h"]}}
    yield {"hash": exact, "group": "g", "range": exact}
    yield {"$or": [{"hash": exact}, {"both": exact}]}
    if type(value) is Regex:
        return
    yield {"both": {"$in": [value, "none"]}}
    yield {"group": "g", "both": {"$in": [value, "none", 5]}}
    yield {"both": exact, "range": {"$gte": value, "$lte": value}}
    for name, bounds in (("both", {"$gte": value}), ("range", {"$lte": value})):
        yield {"group": "g", name: bounds}
    if type(value) is str and "\0" not in value:
        yield {"hash": value, "both": {"$regex": f"^{value[: len(value) // 2]}"}}


def settings_of(url: str, prefix: str, **more: Any) -> DynamoSettings:
    return DynamoSettings(
        endpoint_url=url, table_prefix=f"{prefix}-", access_key_id="local", secret_access_key="local", **more
    )


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[pymongo.database.Database[Document]]:
    with pymongo.MongoClient[Document](root_url(mongo_url)) as client:
        database = client.get_database(f"indexed_{fresh_id()}", codec_options=CANONICAL)
        admit(mongo_url, database.name)
        yield database
        client.drop_database(database.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(dynamodb_local_url: str, server: pymongo.database.Database[Document]) -> AsyncIterator[DynamoStore]:
    """Made again for each MongoDB that the tests draw: what it holds is what that one holds."""
    made = DynamoStore(settings_of(dynamodb_local_url, fresh_id()), {each.name: each for each in (BOTH, KEYED)})
    await made.prepare([BOTH, KEYED])
    yield made
    await asyncio.gather(*(made.drop(each.name) for each in (BOTH, KEYED)))
    await made.close()


async def insert_all(store: Store, collection: str, documents: Sequence[Document]) -> None:
    inserts = [Insert(each["_id"], each, fresh_id()) for each in documents]
    results = await store.insert_many(collection, inserts, [fresh_id() for _ in inserts], ordered=False)
    assert not [each for each in results if isinstance(each, Exception)]


async def ids(store: Store, collection: str, filter: Document) -> list[str]:
    pages = store.find(collection, Query(normalise(filter)))
    return sorted([key_digest(hit.key) async for page in pages for hit in page])


def their_ids(collection: Collection[Document], filter: Document) -> list[str]:
    return sorted(key_digest(normalise_value(each["_id"])) for each in collection.find(filter, {"_id": 1}))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def values(store: DynamoStore, server: pymongo.database.Database[Document]) -> Collection[Document]:
    documents = documents_of(POOL)
    server["values"].insert_many(documents)
    await insert_all(store, "values", documents)
    return server["values"]


@pytest.mark.takes_turns
@pytest.mark.parametrize("kind", POOLS)
async def test_every_value_is_found_by_every_way_of_asking(
    store: DynamoStore, values: Collection[Document], kind: str
) -> None:
    """Equality, lists, bounds, patterns; as hash, as range, as both, joined with others."""
    chance = random.Random(SEED)
    different: list[str] = []
    for value in POOLS[kind]:
        every = list(ways(value))
        for filter in every if kind == "long" else chance.sample(every, _WAYS):
            theirs, ours = their_ids(values, filter), await ids(store, "values", filter)
            if theirs != ours:
                different.append(f"{str(filter)[:120]} ({len(str(filter))} characters): {len(theirs)}, {len(ours)}")
    assert not different, f"{len(different)} answers differ\n" + "\n".join(different[:20])


@pytest.mark.parametrize("path", ["both", "range", "hash", "joined"])
async def test_order_least_greatest_and_distinct_are_the_servers(
    store: DynamoStore, values: Collection[Document], path: str
) -> None:
    """Through an index that has the order, and through one that has not."""
    for direction in (1, -1):
        for limit in (1, 7):
            query = Query({"group": "g"}, sort=((path, direction), ("_id", 1)), limit=limit)
            ours = [hit.key async for page in store.find("values", query) for hit in page]
            theirs = values.find({"group": "g"}).sort([(path, direction), ("_id", 1)]).limit(limit)
            assert ours == [each["_id"] for each in theirs]
    ours = sorted(key_digest(each) for each in await store.distinct("values", path, {"group": "g"}))
    assert ours == sorted(key_digest(normalise_value(each)) for each in values.distinct(path, {"group": "g"}))


async def test_every_key_is_found_by_itself(store: DynamoStore, server: pymongo.database.Database[Document]) -> None:
    """Whatever MongoDB takes as `_id`."""
    keys: dict[str, Any] = {}
    for value in POOL:
        if value is not MISSING and type(value) not in (list, Regex):
            keys.setdefault(key_digest(normalise_value(value)), normalise_value(value))
    keyed = server["keyed"]
    keyed.insert_many([{"_id": key} for key in keys.values()])
    await insert_all(store, "keyed", [{"_id": key} for key in keys.values()])
    for value in POOL:
        if value is not MISSING:
            for filter in ({"_id": {"$eq": value}}, {"$or": [{"_id": {"$eq": value}}, {"_id": "none"}]}):
                assert await ids(store, "keyed", filter) == their_ids(keyed, filter)
    asked = [value for value in POOL if value is not MISSING and type(value) is not Regex]
    assert await ids(store, "keyed", {"_id": {"$in": asked}}) == their_ids(keyed, {"_id": {"$in": asked}})


async def test_a_value_that_moves_over_a_limit_and_back_is_found_where_it_is(store: DynamoStore) -> None:
    """By an update of the side that answers, of the side that follows, and by a copy."""
    key, moving = "moves", [of_bytes(size) for size in (10, 1_025, 1_024, 2_049, 2_048, 1_100, 3)]
    await insert_all(store, "values", [{"_id": key, "group": "m"}])
    before: Any = None
    for step, value in enumerate([*moving, None, *moving]):
        fields = {"hash": value, "both": value, "range": value, "joined": value}
        image = await store.image("values", key)
        assert isinstance(image.state, Version)
        change = Update(key, {"_id": key}, {"$set": fields}, fresh_id())
        match step % 3:
            case 0:
                assert await store.apply("values", change, fresh_id()) is not None
            case 1:
                post = Image(image.state.next(), {**(image.document or {}), **fields})
                write = Write("values", Verb.UPDATE_ONE, fresh_id(), change, image.state, post)
                assert await store.replay("values", write) is not None
            case _:
                copied = Image(image.state.next(), {**(image.document or {}), **fields})
                assert await store.put("values", key, copied, image.state)
        for name in ("hash", "both", "range"):
            assert await ids(store, "values", {name: value, "group": "m"}) == [key_digest(key)]
            if before is not None:
                assert await ids(store, "values", {name: before, "group": "m"}) == []
        before = value


@pytest.mark.takes_turns
async def test_a_field_that_becomes_a_range_is_found_before_its_documents_are_written_again(
    roomy_dynamodb_local_url: str,
) -> None:
    """A hash has twice the room: under another description the same value has another text. Whichever process wrote it,
    and whichever asks, it is found."""
    prefix = fresh_id()
    narrow = replace(BOTH, indexes=(IndexSpec("both-index", "both"),))
    before, after = (
        DynamoStore(settings_of(roomy_dynamodb_local_url, prefix), {"values": each}) for each in (narrow, BOTH)
    )
    await before.prepare([narrow])
    texts = [of_bytes(size, character) for size in (1_024, 1_025, 2_048) for character in CHARACTERS]
    await insert_all(before, "values", [{"_id": text[:3] + str(len(text)), "both": text} for text in texts])
    held = {text: key_digest(text[:3] + str(len(text))) for text in texts}

    async def all_found() -> None:
        for text, digest in held.items():
            for store in (before, after):
                assert await ids(store, "values", {"both": text}) == [digest]
                assert await ids(store, "values", {"both": {"$in": ["none", text]}}) == [digest]

    await all_found()
    await after.prepare([BOTH])
    await all_found()
    assert await after.reindex("values") == 0
    await after.drop("values")
    await before.close()
    await after.close()


# --- unique ------------------------------------------------------------------------------------------------------


KINDS: Final[dict[str, UniqueSpec]] = {
    "plain": UniqueSpec("plain", ("a",)),
    "sparse": UniqueSpec("sparse", ("a",), sparse=True),
    "compound": UniqueSpec("compound", ("a", "b")),
    "compound sparse": UniqueSpec("compound_sparse", ("a", "b"), sparse=True),
    "path": UniqueSpec("path", ("a.b",)),
    "path sparse": UniqueSpec("path_sparse", ("a.b",), sparse=True),
    "paths": UniqueSpec("paths", ("a.b", "a.c")),
    "paths sparse": UniqueSpec("paths_sparse", ("a.b", "a.c"), sparse=True),
    "positions": UniqueSpec("positions", ("a.0",)),
    "positions sparse": UniqueSpec("positions_sparse", ("a.0",), sparse=True),
    "of a long name": UniqueSpec("n" * 3_000, ("a", "b")),
}
INNER: Final[list[Any]] = [MISSING, None, [], 1, 1.0, "x", [1], [None], {"b": 1}, of_bytes(2_049)]


def candidates(seed: int) -> list[Document]:
    """Documents of few values, so that many of them meet; some of the pool's values on top."""
    chance = random.Random(seed)

    def value(depth: int = 2) -> Any:
        if depth and chance.random() < 0.45:
            names = ("b", "c", "0", "1")
            inner = {name: value(depth - 1) for name in names if chance.random() < 0.4}
            return chance.choice([inner, [inner], [value(depth - 1), inner], [inner, inner]])
        return chance.choice(INNER)

    def cleared(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: cleared(one) for name, one in each.items() if one is not MISSING}
        return [cleared(one) for one in each if one is not MISSING] if isinstance(each, list) else each

    made: list[Document] = []
    for n in range(120):
        fields = {name: cleared(value()) for name in ("a", "b") if chance.random() < 0.8}
        made.append({"_id": n, **{name: each for name, each in fields.items() if each is not MISSING}})
    scalars = [each for each in POOL if each is not MISSING]
    made += [{"_id": 1_000 + n, "a": each, "b": 1} for n, each in enumerate(scalars)]
    return [normalise(each) for each in made]


def takes(collection: Collection[Document], document: Document) -> str:
    try:
        collection.insert_one(dict(document))
    except DuplicateKeyError:
        return "duplicate"
    except pymongo.errors.WriteError:
        return "refused"
    return "taken"


async def takes_too(store: Store, collection: str, document: Document) -> str:
    try:
        await store.apply(collection, Insert(document["_id"], document, fresh_id()), fresh_id())
    except DuplicateKeyError:
        return "duplicate"
    except (pymongo.errors.OperationFailure, UnsupportedOperation):
        return "refused"
    return "taken"


@pytest.mark.takes_turns
@pytest.mark.parametrize("kind", KINDS)
async def test_a_unique_constraint_refuses_what_the_servers_index_refuses(
    dynamodb_local_url: str, server: pymongo.database.Database[Document], kind: str
) -> None:
    """In the same order the same documents are taken, and nothing else is."""
    constraint = KINDS[kind]
    spec = CollectionSpec(f"unique-{constraint.name[:20]}", (), (constraint,))
    store = DynamoStore(settings_of(dynamodb_local_url, fresh_id()), {spec.name: spec})
    await store.prepare([spec])
    bare = server[spec.name]
    bare.create_index(
        [(path, 1) for path in constraint.fields], name=constraint.name, unique=True, sparse=constraint.sparse
    )
    different: list[str] = []
    for document in candidates(len(constraint.fields)):
        theirs, ours = takes(bare, document), await takes_too(store, spec.name, document)
        if theirs != ours:
            different.append(f"{theirs}, {ours}: {str(document)[:150]}")
            await store.apply(spec.name, Delete(document["_id"], {"_id": document["_id"]}, fresh_id()), fresh_id())
            bare.delete_one({"_id": document["_id"]})
    await store.drop(spec.name)
    await store.close()
    assert not different, f"{len(different)} differ\n" + "\n".join(different[:20])


# --- unique indexes with tombstones in place ---------------------------------------------------------------------


INDEXES: Final[dict[str, list[tuple[list[str], Document]]]] = {
    "plain": [(["a"], {})],
    "sparse": [(["a"], {"sparse": True})],
    "compound": [(["a", "b"], {})],
    "partial": [(["a"], {"partialFilterExpression": {"b": {"$exists": True}}})],
    "partial on itself": [(["a"], {"partialFilterExpression": {"a": {"$gte": 0}}})],
    "of any letter case": [(["a"], {"collation": {"locale": "en", "strength": 2}})],
    "path": [(["a.b"], {})],
    "one within the other": [(["a"], {}), (["a.b"], {}), (["a.b.c"], {})],
    "position": [(["a.0"], {})],
    "with the key": [(["_id.x", "a"], {})],
    "about to be unique": [(["a"], {"prepareUnique": True})],
}


@pytest.mark.takes_turns
@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("late", [False, True], ids=["index first", "tombstones first"])
async def test_tombstones_stand_in_nobodys_way(
    mongo_url: str, server: pymongo.database.Database[Document], kind: str, late: bool
) -> None:
    """Documents come and go on the side that follows; what comes then is taken or refused as if nothing had been."""
    name = fresh_id()
    spec = CollectionSpec(name)
    followed, bare = server[name], server[f"{name}-bare"]
    store = MongoStore(connect(mongo_url, "pymongo"), server.name, {name: spec}, owned=True)
    await store.prepare([spec])
    if not late:
        _make(followed, INDEXES[kind])
    for n in range(12):
        key = {"y": n} if n % 2 else {"x": n}
        document = {"_id": key, **({"a": {"b": {"c": n}}} if n % 3 else {})}
        if late or n % 3:
            assert await store.put(name, key, Image(Version("b", 1), document), ABSENT)
        delete = Delete(key, {"_id": key}, fresh_id())
        gone = Write(name, Verb.DELETE_ONE, fresh_id(), delete, Version("b", 1), Image(ABSENT))
        assert await store.replay(name, gone) is not None
        assert (await store.image(name, key)).document is None
    if late:
        await store._unique.clear(name, [fields for fields, _ in INDEXES[kind]])
        _make(followed, INDEXES[kind])
        await store.prepare([spec])
    _make(bare, INDEXES[kind])
    different: list[str] = []
    for document in candidates(7)[:120]:
        theirs = takes(bare, document)
        try:
            ours = "taken" if await store.put(name, document["_id"], Image(Version("b", 1), document), ABSENT) else "no"
        except DuplicateKeyError:
            ours = "duplicate"
        except pymongo.errors.WriteError:
            ours = "refused"
        if theirs != ours:
            different.append(f"{theirs}, {ours}: {str(document)[:150]}")
    await store.close()
    assert not different, f"{len(different)} differ\n" + "\n".join(different[:20])


def _make(collection: Collection[Document], indexes: Sequence[tuple[list[str], Document]]) -> None:
    for fields, options in indexes:
        collection.create_index([(path, 1) for path in fields], **{"unique": "prepareUnique" not in options, **options})


@pytest.mark.parametrize("verb", ["insert", "insert_many", "update", "upsert", "replace"])
async def test_the_application_is_not_refused_for_a_tombstone(
    mongo_url: str, server: pymongo.database.Database[Document], verb: str
) -> None:
    """Tombstones stay when the side that followed begins to answer, and an index may have come by another way."""
    name = fresh_id()
    store = MongoStore(connect(mongo_url, "pymongo"), server.name, {name: CollectionSpec(name)}, owned=True)
    await store.prepare([CollectionSpec(name)])
    await insert_all(store, name, [{"_id": "there", "a": 1}])
    assert await store.put(name, "gone", Image(Tombstone(fresh_id())), ABSENT)
    _make(server[name], INDEXES["plain"])
    match verb:
        case "insert":
            assert await takes_too(store, name, {"_id": "new"}) == "taken"
        case "insert_many":
            await insert_all(store, name, [{"_id": "new"}, {"_id": "newer", "a": 2}])
        case "update":
            change = Update("there", {"_id": "there"}, {"$unset": {"a": ""}}, fresh_id())
            assert await store.apply(name, change, fresh_id()) is not None
        case "upsert":
            change = Update(ANY, {"b": 1}, {"$set": {"c": 1}}, fresh_id(), True)
            assert await store.apply(name, change, fresh_id()) is not None
        case _:
            replace_ = Replace("there", {"_id": "there"}, {"_id": "there"}, fresh_id())
            assert await store.apply(name, replace_, fresh_id()) is not None
    assert await takes_too(store, name, {"_id": "one more"}) == "duplicate"
    await store.close()
