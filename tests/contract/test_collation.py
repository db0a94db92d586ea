"""A filter by English at strength 1 or 2 finds, on either primary, what it finds in a bare collection; anything else by
a collation is passed on to MongoDB, or refused by name with DynamoDB as primary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from bson import Code, DBRef, Regex
from pymongo.collation import Collation
from pymongo.errors import DuplicateKeyError

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from shadow.model.schema import CollationSpec
from shadow.mongoql.values.collation import collated, uncollated
from shadow.surface.collections.collection import Collection
from tests.support.shims import assert_level, prepared
from tests.support.surface import Seen, assert_same

pytestmark = pytest.mark.asyncio(loop_scope="module")

EN1: Final = Collation(locale="en", strength=1)
EN2: Final = {"locale": "en", "strength": 2}
DE3: Final = {"locale": "de"}
AFTER: Final = pymongo.ReturnDocument.AFTER
NAMES: Final = (
    "ada@x.org",
    "ADA@x.org",
    "\xe1da@x.org",
    "a\u0301da@x.org",
    "адрес@x.org",
    "АДРЕС@X.ORG",
    "ﬀ",
    "FF",
    "",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName))
async def shadow(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    folder = tmp_path_factory.mktemp("journal")
    names = ["things", "one", "two"]
    async with prepared(folder, mongo_url, dynamodb_local_url, names, primary=request.param) as shadow:
        yield shadow


async def stocked(c: Any) -> None:
    await c.insert_many(
        [{"_id": n, "n": n, "email": name, "list": [name, n, {"x": name}]} for n, name in enumerate(NAMES)]
    )


async def found(c: Any, see: Seen, filter: Any, collation: Any) -> None:
    documents = await c.find(filter, collation=collation).to_list(None)
    see.note(sorted(each["_id"] for each in documents))
    documents = await c.find(filter).collation(collation).to_list(None)
    see.note(sorted(each["_id"] for each in documents))
    await see(c.count_documents(filter, collation=collation))


FILTERS: Final[tuple[Any, ...]] = (
    *({"email": name} for name in NAMES),
    {"email": {"$eq": "Ada@X.org"}},
    {"email": {"$in": ["Ada@X.org", "ff", "nobody"]}},
    {"email": {"$ne": "Ada@X.org"}},
    {"email": {"$nin": ["Ada@X.org", "ff"]}},
    {"email": {"$not": {"$eq": "FF"}}},
    {"email": "ff", "n": {"$gt": 5}},
    {"$or": [{"email": "ff"}, {"n": 0}, {"list": "АДРЕС@x.org"}]},
    {"$nor": [{"email": "ff"}, {"n": 0}]},
    {"list": "ADA@X.ORG"},
    {"list.x": "ADA@X.ORG"},
    {"email": Regex("^ada")},
    {"email": {"$exists": True, "$type": "string"}, "n": {"$in": [1, 2]}},
    {"n": 3},
    {},
)


async def test_an_equality_finds_what_it_finds_on_a_server(shadow: Shadow, things: Collection, bare: Any) -> None:
    theirs, ours = Seen(), Seen()
    for c, see in ((bare, theirs), (things, ours)):
        await stocked(c)
        for filter in FILTERS:
            for collation in (EN1, EN2, DE3):
                await found(c, see, filter, collation)
    assert_same(theirs, ours)
    await assert_level(shadow)
    # Both stores can answer, so all of it was compared, and none of it is lost by a flip.
    status = await shadow.admin.status()
    assert status["not_portable"] == {}
    text = shadow.admin.metrics()[0].decode()
    assert 'shadow_incomparable_total{collection="things",reason="not_portable"} 0.0' in text


async def test_a_write_changes_what_it_changes_on_a_server(shadow: Shadow, things: Collection, bare: Any) -> None:
    theirs, ours = Seen(), Seen()
    for c, see in ((bare, theirs), (things, ours)):
        await stocked(c)
        await see(c.update_one({"email": "Адрес@x.org", "n": {"$gt": 4}}, {"$set": {"hit": 1}}, collation=EN2))
        await see(c.update_many({"email": "Ada@x.org"}, {"$inc": {"n": 10}}, collation=EN1))
        await see(c.update_many({"email": "nobody"}, {"$inc": {"n": 10}}, collation=EN1))
        await see(c.replace_one({"email": "fF", "n": 7}, {"email": "fF", "new": True}, collation=EN2))
        await see(c.find_one_and_update({"email": "адрес@X.org", "hit": 1}, {"$set": {"hit": 2}}, collation=EN2))
        await see(
            c.find_one_and_update(
                {"email": "адрес@X.org", "hit": 2}, {"$unset": {"hit": 1}}, return_document=AFTER, collation=EN2
            )
        )
        await see(c.bulk_write([pymongo.UpdateMany({"email": "АДРЕС@x.org"}, {"$set": {"bulk": True}}, collation=EN1)]))
        await see(c.find().sort("_id").to_list(None))
        await see(c.find_one_and_delete({"email": "АДРЕС@x.org", "n": 4}, collation=EN1))
        await see(c.delete_one({"email": ""}, collation=EN2))
        await see(c.delete_many({"email": "ADA@X.ORG"}, collation=EN1))
        await see(c.find().sort("_id").to_list(None))
        await see(c.find_one({"email": "ff", "new": True}, collation={"locale": "simple"}))
        await see(c.find_one({"email": "fF", "new": True}, collation={"locale": "simple"}))
    assert_same(theirs, ours)
    await assert_level(shadow)
    assert (await shadow.admin.status())["not_portable"] == {}


async def test_mongodb_gets_the_filter_and_the_collation_that_the_application_gave() -> None:
    """With another locale, an index of the collation would not serve the query."""
    given = {"$or": [{"a": "x"}, {"b": {"$in": ["y", "z"]}}], "c": 5}
    for locale, strength in (("de", 1), ("en_US", 2), ("en", 3)):
        made = collated(given, CollationSpec(locale, strength))
        plain, collation = uncollated(made)
        assert collation == {"locale": locale, "strength": strength}
        assert plain == {"$or": [{"a": {"$in": ["x"]}}, {"b": {"$in": ["y", "z"]}}], "c": 5}


async def test_the_operator_of_shadows_own_is_unknown_to_applications(things: Collection) -> None:
    with pytest.raises(pymongo.errors.OperationFailure) as refused:
        await things.find_one({"email": {"$collated": {"v": ["x"], "s": 2}}})
    assert refused.value.code == 2


REFUSED: Final[dict[str, Any]] = {
    "another locale": lambda c: c.find({"email": "x"}, collation={"locale": "sv", "strength": 2}).to_list(None),
    "another strength": lambda c: c.find({"email": "x"}, collation={"locale": "en", "strength": 4}).to_list(None),
    "numbers": lambda c: c.find({"a": "x"}, collation={**EN2, "numericOrdering": True}).to_list(None),
    "sort": lambda c: c.find({"email": "x"}, sort=[("email", 1)], collation=EN2).to_list(None),
    "cursor.sort": lambda c: c.find({"email": "x"}).collation(EN2).sort("email").to_list(None),
    "sort.cursor": lambda c: c.find({"email": "x"}).sort("email").collation(EN2).to_list(None),
    "sort of all": lambda c: c.find({}, sort=[("email", 1), ("_id", 1)], collation=EN2).to_list(None),
    "cursor.sort of all": lambda c: c.find({}, collation=EN2).sort([("email", 1), ("_id", 1)]).to_list(None),
    "cursor.collation, sort": lambda c: c.find().collation(EN2).sort([("email", 1), ("_id", 1)]).to_list(None),
    "sort, cursor.collation": lambda c: c.find().sort([("email", 1), ("_id", 1)]).collation(EN2).to_list(None),
    "of a clone": lambda c: c.find().collation(EN2).clone().sort([("email", 1), ("_id", 1)]).to_list(None),
    "numbers, sort": lambda c: c.find({"n": {"$gt": 1}}).collation(EN1).sort("email", -1).to_list(2),
    "a second one": lambda c: c.find().collation(EN2).collation(EN1).sort([("email", 1), ("_id", 1)]).to_list(None),
    "cursor.distinct": lambda c: c.find().collation(EN2).distinct("email"),
    "distinct of some": lambda c: c.find({"n": {"$gt": 0}}, collation=EN2).distinct("email"),
    "elemMatch": lambda c: c.find({}, {"list": {"$elemMatch": {"$eq": "ADA@X.ORG"}}}, collation=EN2).to_list(None),
    "cursor.elemMatch": lambda c: c.find({}, {"list": {"$elemMatch": {"$eq": "FF"}}}).collation(EN2).to_list(None),
    "computed": lambda c: c.find({}, {"is": {"$eq": ["$email", "FF"]}}, collation=EN2).to_list(None),
    "min": lambda c: c.find().collation(EN2).min([("_id", 3)]).hint("_id_").to_list(None),
    "max": lambda c: c.find({"n": 1}, collation=EN2).hint("_id_").max([("_id", "a")]).to_list(None),
    "where": lambda c: c.find().collation(EN2).where("this.n > 1").sort("email").to_list(None),
    "where of some": lambda c: c.find({"email": "ADA@X.ORG"}).collation(EN2).where("this.n < 9").to_list(None),
    "range": lambda c: c.find({"email": {"$gt": "x"}}, collation=EN2).to_list(None),
    "object": lambda c: c.find({"a": {"email": "x"}}, collation=EN2).to_list(None),
    "expression": lambda c: c.find({"$expr": {"$eq": ["$a", "x"]}}, collation=EN2).to_list(None),
    "distinct": lambda c: c.distinct("email", collation=EN2),
    "aggregate": lambda c: c.aggregate([{"$match": {"email": "x"}}], collation=EN2).to_list(None),
    "set": lambda c: c.update_one({"email": "x"}, {"$addToSet": {"list": "y"}}, collation=EN2),
    "position": lambda c: c.update_one({"list": "x"}, {"$set": {"list.$": "y"}}, collation=EN2),
    "pipeline": lambda c: c.update_one({"email": "x"}, [{"$set": {"a": 1}}], collation=EN2),
    "upsert": lambda c: c.update_one({"email": "x"}, {"$set": {"a": 1}}, upsert=True, collation=EN2),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_anything_else_is_mongodbs_or_refused_by_name(
    shadow: Shadow, things: Collection, bare: Any, what: str
) -> None:
    if shadow.admin.routes()["things"].primary is StoreName.DYNAMO:
        with pytest.raises(UnsupportedOperation, match=r"collation|cursor\.(min|max|where)"):
            await REFUSED[what](things)
        assert await things.find().to_list(None) == []
        return
    theirs, ours = Seen(), Seen()
    for c in (bare, things):
        await stocked(c)
    await theirs(lambda: REFUSED[what](bare))
    await ours(lambda: REFUSED[what](things))
    assert_same(theirs, ours)
    await assert_level(shadow)


@pytest.mark.parametrize("none", [None, {"locale": "simple"}], ids=repr)
async def test_no_collation_takes_back_one_before(things: Collection, bare: Any, none: Any) -> None:
    theirs, ours = Seen(), Seen()
    for c, see in ((bare, theirs), (things, ours)):
        await stocked(c)
        await see(lambda c=c: c.find({"email": "ADA@X.ORG"}).collation(EN2).collation(none).to_list(None))
        await see(lambda c=c: c.find().collation(EN2).collation(none).sort("email").to_list(None))
    assert_same(theirs, ours)


TAKEN: Final[tuple[Any, ...]] = (
    *NAMES, None, 5, ["x", "Ada@X.org"], ["y", "Y"], {"x": "Q"}, {"x": "q"}, {"X": "q"}, [["L"]], [["l"], 1], ["l"],
    DBRef("a", "b"), DBRef("A", "B"), Regex("r"), Regex("R"), Code("z"), Code("Z"), "292b0106", "\0", b"Ab", b"ab",
)  # fmt: skip
"""Values of one field, some equal by a collation: inside of lists and documents too, not in names, patterns, code."""


@pytest.mark.parametrize(("name", "collation"), [("one", EN1), ("two", EN2)])
async def test_a_unique_index_refuses_what_it_refuses_on_a_server(
    shadow: Shadow, bare: Any, name: str, collation: Any
) -> None:
    """While documents come, change and go, and when there are some already."""
    theirs, ours = Seen(), Seen()
    for c, see in ((bare.database[name], theirs), (shadow[name], ours)):
        await c.insert_many([{"_id": "a", "t": "É"}, {"_id": "b", "t": "é"}])
        with pytest.raises(DuplicateKeyError):
            await c.create_index("t", unique=True, collation=collation, name="t")
        await c.delete_many({})
        assert await shadow.settled(20)  # the other store refuses a constraint while it has the duplicates
        assert await c.create_index("t", unique=True, collation=collation, name="t") == "t"
        assert await c.create_index("t", unique=True, collation=collation, name="t") == "t"
        for place, value in enumerate(TAKEN):
            await refused(see, c.insert_one({"_id": place, "t": value}))
        await refused(see, c.update_one({"_id": 0}, {"$set": {"t": "aDA@x.ORG"}}))
        await refused(see, c.update_one({"_id": 0}, {"$set": {"t": "адреС@x.org"}}))
        await refused(see, c.replace_one({"_id": 0}, {"t": "Another"}))
        await refused(see, c.insert_one({"_id": "c", "t": "ADA@x.org"}))
        await refused(see, c.delete_one({"_id": 0}))
        await refused(see, c.insert_one({"_id": "d", "t": "another"}))
        shown = (await c.index_information())["t"]["collation"]
        see.note([(key, shown[key]) for key in shown if key != "version"])
    assert_same(theirs, ours)
    await assert_level(shadow)
    assert shadow.admin.metrics_registry.totals()["failures"]["index"] == 0
    assert name not in (await shadow.admin.status())["lost_indexes"]


async def refused(see: Seen, call: Any) -> None:
    """Whether the values of a unique index refuse a write, and by which index."""
    try:
        await call
    except DuplicateKeyError as error:
        see.note((error.code, (error.details or {})["keyPattern"]))
    else:
        see.note("made")
