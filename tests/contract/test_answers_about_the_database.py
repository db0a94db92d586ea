"""What the drivers answer about a database, its collections and their indexes is what a Shadow answers: the same calls
on a bare database and on a Shadow, in each phase, sessions of every kind included."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bson import SON, CodecOptions, DBRef
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, InsertOne, MongoClient

from shadow import Shadow
from shadow.model.phase import Phase, StoreName
from shadow.stores.mongo.drivers import connect
from tests.support.calls import answer_of
from tests.support.shims import settings_for
from tests.support.topologies import drop, root_url

pytestmark = [
    pytest.mark.plain_options(reason="some drawn options are refused in a session or a transaction"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of the bare driver, for no session
]

Call = Callable[[Any, Any], Any]
WAYS: Final = [(Phase.OFF, StoreName.MONGO), (Phase.SHADOW, StoreName.MONGO), (Phase.SHADOW, StoreName.DYNAMO)]


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bare(mongo_url: str, driver: str, fresh_name: str) -> AsyncIterator[Any]:
    client = connect(root_url(mongo_url), driver)
    yield client[f"{fresh_name}bare"]
    await awaited(client.close())
    drop(mongo_url, f"{fresh_name}bare")


@pytest.fixture(params=WAYS, ids=[f"{phase}-{primary}" for phase, primary in WAYS])
async def ours(
    request: Any, driver: str, tmp_path: Path, mongo_url: str, dynamodb_local_url: str, fresh_name: str
) -> AsyncIterator[Any]:
    phase, primary = request.param
    settings = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, fresh_name, ["things"], driver=driver, phase=phase, primary=primary
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        yield shadow
    drop(mongo_url, fresh_name)


async def awaited(made: Any) -> Any:
    made = await made if inspect.isawaitable(made) else made
    return await made.to_list(None) if hasattr(made, "to_list") else made


async def answered(call: Callable[[], Any]) -> Any:
    try:
        return await awaited(call())
    except Exception as error:
        return error


def shown(answer: Any, database: str) -> Any:
    """An error by its class (the driver's), code and details; our texts are our own."""
    if isinstance(answer, Exception):
        kind = next(each for each in type(answer).__mro__ if not each.__module__.startswith("shadow."))
        return [kind, getattr(answer, "code", None), without_text(answer_of(getattr(answer, "details", None), ()))]
    return [type(answer), answer_of(answer, (database,))]


def without_text(details: Any) -> Any:
    return [(key, value) for key, value in details.items() if key != "errmsg"] if isinstance(details, dict) else details


async def compared(bare: Any, ours: Any, call: Callable[[Any], Any]) -> None:
    theirs, mine = [shown(await answered(functools.partial(call, each)), each.name) for each in (bare, ours)]
    assert mine == theirs


async def session_of(database: Any, kind: str, mongo_url: str) -> Any:
    client = connect(root_url(mongo_url), kind_of(database))
    session = await awaited((client if kind == "foreign" else database.client).start_session())
    if kind == "ended":
        await awaited(session.end_session())
    if kind == "transaction":
        await awaited(session.start_transaction())
    return session


def kind_of(database: Any) -> str:
    return "motor" if "Motor" in database.__class__.__name__ else "pymongo"


IN_A_SESSION: Final[dict[str, Call]] = {
    "ping": lambda db, s: db.command("ping", session=s),
    "ping by position": lambda db, s: db.command("ping", 1, True, None, None, None, s),
    "names of collections": lambda db, s: db.list_collection_names(s, {"name": "things"}),
    "names by keyword": lambda db, s: db.list_collection_names(session=s, filter={"name": "things"}),
    "list_indexes": lambda db, s: db.things.list_indexes(session=s),
    "index_information": lambda db, s: db.things.index_information(session=s),
    "options": lambda db, s: db.things.options(session=s),
    "drop_index": lambda db, s: db.things.drop_index("n_1", session=s),
    "drop_index by position": lambda db, s: db.things.drop_index("n_1", s),
    "dereference": lambda db, s: db.dereference(DBRef("things", 1), session=s),
    "dereference by position": lambda db, s: db.dereference(DBRef("things", 1), s, "why"),
    "drop_collection": lambda db, s: db.drop_collection("things", session=s),
    "drop by position": lambda db, s: db.things.drop(s),
}
CREATING: Final[dict[str, Call]] = {
    "create_index": lambda db, s: db.things.create_index("m", session=s),
    "create_index by position": lambda db, s: db.things.create_index("m", s, "why"),
}
"""In a transaction these are refused by name."""
ODD: Final = ["ended", "foreign", "transaction", "none"]


@pytest.mark.parametrize("kind", ODD)
async def test_every_kind_of_session_meets_the_same_answer(bare: Any, ours: Any, mongo_url: str, kind: str) -> None:
    wrong = []
    calls = IN_A_SESSION if kind == "transaction" else IN_A_SESSION | CREATING
    for name, call in calls.items():
        answers = []
        for database in (bare, ours):
            await prepared(database)
            session = "no session" if kind == "none" else await session_of(database, kind, mongo_url)
            made = await answered(lambda call=call, database=database, session=session: call(database, session))
            answers.append(shown(made, database.name)[:2] if kind != "none" else isinstance(made, Exception))
            if kind == "transaction":
                await awaited(session.abort_transaction())
        if answers[0] != answers[1]:
            wrong.append((name, *answers))
    assert wrong == []


async def prepared(database: Any) -> None:
    await database.things.delete_many({})
    await database.things.insert_one({"_id": 1, "n": 1})
    if "n_1" not in await database.things.index_information():
        await database.things.create_index("n")


async def test_a_reference_is_followed_within_the_transaction(ours: Any) -> None:
    await ours.things.insert_one({"_id": 1, "n": 1})
    session = await awaited(ours.client.start_session())
    await awaited(session.start_transaction())
    await ours.things.update_one({"_id": 1}, {"$set": {"n": 2}}, session=session)
    await ours.things.insert_one({"_id": 2}, session=session)
    assert await ours.dereference(DBRef("things", 1), session=session) == {"_id": 1, "n": 2}
    assert await ours.dereference(DBRef("things", 2), session) == {"_id": 2}
    assert await ours.dereference(DBRef("things", 2)) is None
    await awaited(session.abort_transaction())


PLAIN: Final[dict[str, Callable[[Any], Any]]] = {
    "dereference with options of the database": lambda db: db.with_options(
        CodecOptions(document_class=SON)
    ).dereference(DBRef("things", 1)),
    "dereference with a comment": lambda db: db.dereference(DBRef("things", 1), comment="why"),
    "dereference with a projection": lambda db: db.dereference(DBRef("things", 1), projection={"n": 0}),
    "dereference with what find has not": lambda db: db.dereference(DBRef("things", 1), bogus=1),
    "ping with codec options": lambda db: db.command("ping", codec_options=CodecOptions(document_class=SON)),
    "names with what the server has not": lambda db: db.list_collection_names(bogus=1),
    "names with a comment": lambda db: db.list_collection_names(comment="why", filter={"name": "things"}),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_what_is_asked_of_the_database_is_answered_alike(bare: Any, ours: Any, name: str) -> None:
    for database in (bare, ours):
        await database.things.insert_one({"_id": 1, "n": 1})
    await compared(bare, ours, PLAIN[name])


MAKING: Final[dict[str, Callable[[Any], Any]]] = {
    "a quorum": lambda c: c.create_indexes([IndexModel("q")], commitQuorum=1),
    "no index": lambda c: c.create_indexes([]),
    "a number for an index": lambda c: c.create_indexes([5]),
    "a description for an index": lambda c: c.create_indexes([{"key": {"a": 1}, "name": "a"}]),
    "a tuple of indexes": lambda c: c.create_indexes((IndexModel("t"),)),
    "an index alone": lambda c: c.create_indexes(IndexModel("t")),
    "an old version": lambda c: c.create_index("v", v=1),
    "a version that is none": lambda c: c.create_index("w", v=99),
    "a text as version": lambda c: c.create_index("w", v="x"),
    "a clustered index": lambda c: c.create_index("w", clustered=True),
    "a mapping to drop": lambda c: c.drop_index({"q": 1}),
    "keys to drop": lambda c: c.drop_index([("q", 1)]),
    "a tuple of requests": lambda c: c.bulk_write((InsertOne({"_id": 1}),)),
    "an iterator of requests": lambda c: c.bulk_write(iter([InsertOne({"_id": 1})])),
    "a mapping of requests": lambda c: c.bulk_write({}),
}


async def test_indexes_and_requests_are_lists_of_what_the_drivers_take(bare: Any, ours: Any) -> None:
    for database in (bare, ours):
        await prepared(database)
    wrong = []
    for name, call in MAKING.items():
        answers = [shown(await answered(functools.partial(call, each.things)), each.name) for each in (bare, ours)]
        if answers[0][:2] != answers[1][:2]:
            wrong.append((name, *answers))
    assert wrong == []
    names = [sorted(await each.things.index_information()) for each in (bare, ours)]
    assert names[0] == names[1]


async def test_listed_indexes_know_nothing_of_codec_options(bare: Any, ours: Any) -> None:
    seen = []
    for database in (bare, ours):
        await prepared(database)
        await database.things.create_index("p", partialFilterExpression={"at": {"$gt": dt.datetime(2020, 1, 1)}})
        for options in (CodecOptions(), CodecOptions(tz_aware=True), CodecOptions(document_class=RawBSONDocument)):
            things = database.things.with_options(codec_options=options)
            found = await awaited(things.list_indexes())
            kinds = [(type(each), type(each["key"]), each.get("partialFilterExpression")) for each in found]
            seen.append(sorted(kinds, key=str))
    assert seen[:3] == seen[3:]


async def test_a_dropped_collection_has_the_answer_of_the_command(ours: Any, mongo_url: str, fresh_name: str) -> None:
    await ours.things.insert_one({"_id": 1})
    await ours.things.create_index("n")
    answer = await ours.drop_collection("things")
    assert (answer["ns"], answer["ok"], answer["nIndexesWas"] >= 2) == (f"{fresh_name}.things", 1.0, True)
    assert await ours.things.drop() is None
    assert await ours.things.find().to_list(None) == []
    if await ours.settled(30):
        with MongoClient[Any](root_url(mongo_url)) as client:
            there = await asyncio.to_thread(client[fresh_name]["things"].count_documents, {"n": 1})
        assert there == 0


async def test_the_answer_of_an_upsert_has_its_fields_in_the_servers_order(bare: Any, ours: Any) -> None:
    for call in (
        lambda db: db.things.update_one({"_id": 7}, {"$set": {"n": 1}}, upsert=True),
        lambda db: db.things.replace_one({"_id": 8}, {"n": 1}, upsert=True),
        lambda db: db.things.update_many({"_id": 9}, {"$set": {"n": 1}}, upsert=True),
        lambda db: db.things.update_one({"_id": 7}, {"$set": {"n": 1}}, upsert=True),
    ):
        theirs, mine = [(await call(each)).raw_result for each in (bare, ours)]
        volatile = ("$clusterTime", "operationTime", "electionId", "opTime")
        assert [(k, v) for k, v in mine.items() if k not in volatile] == [
            (k, v) for k, v in theirs.items() if k not in volatile
        ]
