"""Collections that are not migrated are the driver's own call: those that the configuration does not name, and those in
phase `off` on MongoDB. Held against the bare driver, both drivers, clients of our own and handed in: every verb with
every option that its signature documents, answers and errors as they are, and what is stored, to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import inspect
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bson
import pymongo
import pymongo.monitoring
import pytest
import pytest_asyncio
from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern

from shadow import Shadow
from shadow.config import CollectionSettings, Defaults, JournalSettings, MongoSettings, Settings
from shadow.errors import StoreUnavailable, UnsupportedOperation
from shadow.model.phase import Phase, StoreName
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.mongo.drivers import collection_class, connect
from shadow.surface.collections.collection import Collection
from shadow.surface.collections.routed import RoutedCollection
from shadow.surface.database.driver_database import NOT_COLLECTIONS
from shadow.surface.direct.forwarded import ForwardedCollection
from tests.support.calls import DOCUMENTS, INDEX_CALLS, Call, answer_of, calls, undocumented
from tests.support.shims import without_heartbeats
from tests.support.topologies import admit, drop, root_client, root_url

pytestmark = pytest.mark.drawn_over("site", "driver", of=2, reason="each call is forwarded by the same code")

_NOWHERE = DynamoSettings(endpoint_url="http://127.0.0.1:9", access_key_id="x", secret_access_key="x")


class Beside:
    """The same collection twice: the driver's own, and through a Shadow."""

    def __init__(self, shadow: Shadow, bare: Any, name: str, collection: str) -> None:
        self.shadow = shadow
        self.name = name
        self.collection = collection
        self.bare = bare[f"{name}bare"][collection]
        self.shim = shadow[collection]
        self.names = (f"{name}bare", name)
        self._way_past: pymongo.MongoClient[Any] = pymongo.MongoClient(
            root_url(shadow.admin.settings.mongo.url.get_secret_value()), document_class=RawBSONDocument
        )

    def stored(self, shim: bool) -> list[bytes]:
        """What is there, to the byte, but for ids that were made on the way."""
        database = self._way_past[self.name if shim else f"{self.name}bare"]
        found = list(database[self.collection].find(sort=[("_id", 1)]))
        return [
            bson.encode({**each, "_id": "made"}) if isinstance(each["_id"], bson.ObjectId) else each.raw
            for each in found
        ]

    def refill(self, *, anew: bool = True) -> None:
        for database in (self._way_past[self.name], self._way_past[f"{self.name}bare"]):
            for name in database.list_collection_names() if anew else ():
                database.drop_collection(name)
            database[self.collection].delete_many({})
            database[self.collection].insert_many([dict(each) for each in DOCUMENTS])

    def end(self) -> None:
        self._way_past.close()
        drop(self.shadow.admin.settings.mongo.url.get_secret_value(), *self.names)

    async def difference(self, call: Call, before: str = "drop") -> str:
        self.refill(anew=before in INDEX_CALLS)
        theirs, ours = [await self._answer(call, side) for side in (self.bare, self.shim)]
        if theirs != ours:
            return f"{call}\n  driver: {theirs}\n  shim:   {ours}"
        stored = self.stored(shim=True)
        return "" if stored == self.stored(shim=False) else f"{call}: stored {[bson.decode(each) for each in stored]}"

    async def _answer(self, call: Call, collection: Any) -> Any:
        try:
            return answer_of(await call.on(collection), self.names)
        except Exception as error:
            return answer_of(error, self.names)


@contextlib.asynccontextmanager
async def beside(
    folder: Path, mongo_url: str, driver: str, *, named: bool, handed_in: bool, options: str = ""
) -> AsyncIterator[Beside]:
    name, url = f"t{uuid.uuid4().hex[:12]}", f"{mongo_url}{options}"
    admit(url, name, f"{name}bare")
    settings = Settings(
        mongo=MongoSettings(url=url, database=name, driver=driver),
        dynamo=_NOWHERE,
        journal=JournalSettings(url=f"sqlite:///{folder / 'journal.db'}"),
        defaults=Defaults(phase=Phase.SHADOW),
        collections={"things" if named else "others": CollectionSettings(phase=Phase.OFF)},
    )
    bare = connect(url, driver)
    given = connect(url, driver) if handed_in else None
    try:
        async with Shadow.from_settings(without_heartbeats(settings), mongo_client=given) as shadow:
            made = Beside(shadow, bare, name, "things")
            try:
                yield made
            finally:
                made.end()
    finally:
        for client in (bare, given):
            ending = None if client is None else client.close()
            if inspect.isawaitable(ending):
                await ending


@pytest_asyncio.fixture(params=["motor", "pymongo"])
async def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=["unnamed", "off"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, driver: str) -> AsyncIterator[Beside]:
    async with beside(tmp_path, mongo_url, driver, named=request.param == "off", handed_in=False) as made:
        yield made


def test_every_documented_option_is_tried() -> None:
    assert undocumented() == set()


@pytest.mark.takes_turns
@pytest.mark.drawn_over("driver", "named", "handed_in", of=2, reason="each call is forwarded by the same code")
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "off"])
@pytest.mark.parametrize("handed_in", [False, True], ids=["own", "handed-in"])
async def test_every_verb_with_every_option(
    tmp_path: Path, mongo_url: str, driver: str, named: bool, handed_in: bool
) -> None:
    async with beside(tmp_path, mongo_url, driver, named=named, handed_in=handed_in) as site:
        made = list(calls())
        assert len(made) > 150
        verbs = ["drop", *(call.verb for call in made[:-1])]
        pairs = zip(made, verbs, strict=True)
        different = [text for call, before in pairs if (text := await site.difference(call, before))]
        assert not different, "\n".join(different)


# --- cursors, options, sub-collections --------------------------------------------------------------------------


async def test_cursors_have_every_method_of_the_drivers(site: Beside) -> None:
    """Whatever is asked of them, in any order, before and after the first document."""
    site.refill()

    async def ask(things: Any) -> list[Any]:
        cursor = things.find({"n": {"$gte": 1}}).sort("_id", -1).skip(1).limit(2).batch_size(1).comment("why")
        found = [await cursor.to_list(None)]
        cursor = things.find().where("this.n >= 2").collation({"locale": "en"}).max_time_ms(60_000).allow_disk_use(True)
        found.append([each async for each in cursor.hint([("_id", 1)])])
        found.append(sorted(map(str, await things.find({"n": 2}).distinct("kind"))))
        found.append((await things.find({"n": 2}).explain())["queryPlanner"]["winningPlan"]["stage"])
        cursor = things.find().sort("_id")
        first = await cursor.next()
        again = cursor.rewind()
        cursor = await again if inspect.isawaitable(again) else again
        found += [first, await cursor.next(), await cursor.clone().to_list(1), cursor.alive]
        await cursor.close()
        async with things.find({"_id": 1}) as entered:
            found.append([each async for each in entered])
        with pytest.raises(pymongo.errors.InvalidOperation):
            cursor.sort("n")
        with pytest.raises(TypeError):
            things.find().limit("many")
        return found

    assert await ask(site.shim) == await ask(site.bare)
    if isinstance(site.shim, Collection):
        assert site.shim.find().collection is site.shim


async def test_a_pipeline_may_be_awaited_or_not_as_with_the_driver(site: Beside, driver: str) -> None:
    site.refill()
    pipeline = [{"$match": {"n": 2}}, {"$sort": {"_id": 1}}, {"$project": {"_id": 1}}]
    made = site.shim.aggregate(pipeline, allowDiskUse=True, comment="why")
    cursor = await made if driver == "pymongo" else made
    assert [each async for each in cursor] == [{"_id": 2}, {"_id": 3}]
    for last in ({"$out": "elsewhere"}, {"$merge": {"into": "elsewhere"}}):
        made = site.shim.aggregate([{"$match": {"n": 2}}, last])
        assert await (await made if driver == "pymongo" else made).to_list(None) == []
        assert await site.shadow["elsewhere"].count_documents({}) == 2


@pytest.mark.plain_options(reason="it reads by a majority what it has written with what the url says")
async def test_options_are_the_drivers_whatever_they_are(site: Beside) -> None:
    site.refill()
    assert site.shim.codec_options == site.bare.codec_options
    assert site.shim.write_concern == site.bare.write_concern
    weak = site.shim.with_options(write_concern=WriteConcern(w=0), read_preference=ReadPreference.SECONDARY_PREFERRED)
    assert not (await weak.insert_one({"_id": "weak"})).acknowledged
    assert weak.write_concern == WriteConcern(w=0)
    aware = site.shadow.get_collection("things", CodecOptions(tz_aware=True), read_concern=ReadConcern("majority"))
    await site.shim.update_one({"_id": 1}, {"$set": {"when": dt.datetime(2024, 1, 1)}})
    found = await aware.find_one({"_id": 1})
    assert found["when"] == dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    raw = site.shim.with_options(CodecOptions(document_class=RawBSONDocument))
    assert isinstance(await raw.find_one({"_id": 1}), RawBSONDocument)
    assert [type(each) async for each in raw.find({"n": 2})] == [RawBSONDocument] * 2


@pytest.mark.plain_options(reason="it gives the url options of its own")
async def test_the_urls_options_are_the_drivers(tmp_path: Path, mongo_url: str, driver: str) -> None:
    options = "&uuidRepresentation=standard&tz_aware=true"
    for named in (False, True):
        folder = tmp_path / str(named)
        folder.mkdir()
        async with beside(folder, mongo_url, driver, named=named, handed_in=False, options=options) as site:
            answers = []
            for side in (site.bare, site.shim):
                await side.insert_one({"_id": 1, "u": uuid.UUID(int=1), "when": dt.datetime(2024, 1, 1)})
                answers.append(await side.find_one({"_id": 1}))
            assert answers[0] == answers[1]
            assert type(answers[1]["u"]) is uuid.UUID


async def test_what_it_is(site: Beside, driver: str) -> None:
    shadow = site.shadow
    other = shadow["some.thing"]
    assert isinstance(other, collection_class(driver))
    assert other == shadow.get_collection("some.thing") == shadow["some"]["thing"] == shadow.some.thing
    assert {other, shadow.some.thing} == {other}
    assert other != shadow["some"]
    assert other != shadow["things"]
    assert (other.name, other.full_name, other.database) == ("some.thing", f"{site.name}.some.thing", shadow)
    assert repr(other) == f"{collection_class(driver).__name__}('{site.name}.some.thing' of a Shadow)"
    assert repr(shadow).startswith(shadow.__class__.__name__)
    assert shadow.client is shadow.client
    assert repr(shadow.client).startswith(shadow.client.__class__.__name__)
    with pytest.raises(NotImplementedError):
        bool(other)
    with pytest.raises(TypeError, match=r"'find_won' .* no such method exists"):
        other.find_won({})
    with pytest.raises(AttributeError):
        _ = other._nothing
    with pytest.raises(TypeError):
        shadow.get_collection(3)  # type: ignore[arg-type]


async def test_a_configured_name_below_one_that_is_not(tmp_path: Path, mongo_url: str, driver: str) -> None:
    async with beside(tmp_path, mongo_url, driver, named=True, handed_in=False) as site:
        specs = site.shadow._engine.specs
        specs["a.b"] = specs["things"]
        assert type(site.shadow["a"]["b"]) is type(site.shadow.a.b) is type(site.shim)


@pytest.mark.plain_options(reason="what it writes with w=1 it counts at once, and a majority may not have it yet")
def test_made_without_an_event_loop(tmp_path: Path, mongo_url: str, driver: str, fresh_name: str) -> None:
    """At import time, and used under one loop after the other."""
    admit(mongo_url, fresh_name)
    shadow = Shadow.from_settings(
        Settings(
            mongo=MongoSettings(url=mongo_url, database=fresh_name, driver=driver),
            dynamo=_NOWHERE,
            journal=JournalSettings(url=f"sqlite:///{tmp_path / 'journal.db'}"),
            collections={"named": CollectionSettings(phase=Phase.OFF)},
        )
    )
    made = [shadow["named"], shadow.unnamed, shadow.unnamed.with_options(write_concern=WriteConcern(w=1))]
    late = shadow["named"].find({"n": 1}).sort("_id", -1).limit(1)
    assert made[2].write_concern == WriteConcern(w=1)
    assert made[1].codec_options == CodecOptions()
    assert isinstance(made[1], collection_class(driver))

    async def job(number: int) -> None:
        for each in made:
            await each.insert_one({"n": number, "_id": f"{number}{id(each)}"})
        assert await made[0].count_documents({}) == number + 1
        assert await made[1].count_documents({}) == 2 * (number + 1)
        assert len(await late.clone().to_list(None)) == min(number, 1)

    try:
        for number in range(3):
            asyncio.run(job(number))
    finally:
        stored = list(root_client(mongo_url)[fresh_name]["named"].find())
        drop(mongo_url, fresh_name)
    assert all("_shadow" not in each for each in stored)


# --- callers that meet ------------------------------------------------------------------------------------------


async def test_forty_callers_take_forty_of_sixty_jobs(site: Beside) -> None:
    for verb in ("find_one_and_update", "find_one_and_delete", "update_one", "delete_one"):
        await site.shim.delete_many({})
        await site.shim.insert_many([{"_id": n, "st": "new"} for n in range(60)])
        change = () if "delete" in verb else ({"$set": {"st": "taken"}},)
        taken = await asyncio.gather(*(getattr(site.shim, verb)({"st": "new"}, *change) for _ in range(40)))
        if verb.startswith("find"):
            assert len({each["_id"] for each in taken}) == 40
        assert await site.shim.count_documents({"st": "new"}) == 20, verb


async def test_a_counter_that_is_made_by_whoever_comes_first(site: Beside) -> None:
    await site.shim.create_index("name", unique=True)

    async def count() -> int:
        update = {"$inc": {"n": 1}}
        while True:
            with contextlib.suppress(pymongo.errors.DuplicateKeyError):
                found = await site.shim.find_one_and_update(
                    {"name": "c"}, update, upsert=True, return_document=pymongo.ReturnDocument.AFTER
                )
                return int(found["n"])

    assert sorted(await asyncio.gather(*(count() for _ in range(40)))) == list(range(1, 41))
    assert await site.shim.count_documents({}) == 1


# --- commands that are sent -------------------------------------------------------------------------------------


class Sent(pymongo.monitoring.CommandListener):
    """The commands of a client about one collection, and the bytes of their replies."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.replies = 0
        self._asked: set[int] = set()

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if event.command[event.command_name] == "things":
            self.names.append(event.command_name)
            self._asked.add(event.request_id)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        if event.request_id in self._asked:
            self.replies += len(bson.encode(event.reply))

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        pass


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "off"])
async def test_one_command_for_each_call(tmp_path: Path, mongo_url: str, mongo_database: str, named: bool) -> None:
    """However many documents it changes; and none of them comes over the wire that was not asked for."""
    sent = Sent()
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongo_url, event_listeners=[sent])
    settings = Settings(
        mongo=MongoSettings(url=mongo_url, database=mongo_database),
        dynamo=_NOWHERE,
        journal=JournalSettings(url=f"sqlite:///{tmp_path / 'journal.db'}"),
        collections={"things" if named else "others": CollectionSettings(phase=Phase.OFF)},
    )
    try:
        async with Shadow.from_settings(settings, mongo_client=client) as shadow:
            things = shadow["things"]
            await things.insert_one({"_id": "large", "rows": ["x" * 100] * 5000})
            await things.insert_many([{"_id": n, "n": 0} for n in range(10_000)])
            sent.names.clear()
            sent.replies = 0
            assert (await things.update_many({"n": 0}, {"$inc": {"n": 1}})).modified_count == 10_000
            assert (await things.update_one({"_id": "large"}, {"$push": {"rows": "y"}})).modified_count == 1
            found = await things.find_one_and_update({"_id": 1}, {"$inc": {"n": 1}})
            assert found == {"_id": 1, "n": 1}
            assert (await things.delete_many({"_id": {"$type": "int"}})).deleted_count == 10_000
            assert sent.names == ["update", "update", "findAndModify", "delete"]
            assert sent.replies < 2000
    finally:
        await client.close()


# --- what is not a collection -----------------------------------------------------------------------------------


async def test_what_the_database_answers(site: Beside, driver: str) -> None:
    shadow = site.shadow
    site.refill()
    assert (await shadow.command("ping"))["ok"] == 1
    assert (await shadow.command({"count": "things"}))["n"] == len(DOCUMENTS)
    assert (await shadow.command("insert", "things", documents=[{"_id": "by command"}]))["n"] == 1
    assert "things" in await shadow.list_collection_names()
    assert await shadow.create_collection("made", capped=True, size=4096) == shadow["made"]
    assert (await shadow["made"].options())["capped"]
    with pytest.raises(pymongo.errors.CollectionInvalid):
        await shadow.create_collection("made")
    await shadow.drop_collection("made")
    await shadow.drop_collection(shadow["things"])
    assert not {"made", "things"} & set(await shadow.list_collection_names())
    assert (await shadow.client.admin.command("ping"))["ok"] == 1
    assert shadow.client[site.name] is shadow.client.get_database() is shadow
    assert await shadow.client[f"{site.name}bare"]["things"].count_documents({}) == len(DOCUMENTS)
    session = shadow.client.start_session()
    async with await session if inspect.isawaitable(session) else session as session:
        await site.shim.insert_one({"_id": "in a session"}, session=session)
    assert shadow.codec_options == site.bare.codec_options
    with pytest.raises(UnsupportedOperation):
        _ = shadow.wrap


async def test_no_attribute_of_the_drivers_database_is_a_collection(tmp_path: Path, driver: str) -> None:
    settings = Settings(
        mongo=MongoSettings(driver=driver), journal=JournalSettings(url=f"sqlite:///{tmp_path / 'j.db'}")
    )
    client = connect("mongodb://127.0.0.1:9", driver)
    public = {name for name in dir(type(client["any"])) if not name.startswith("_")}
    ending = client.close()
    if inspect.isawaitable(ending):
        await ending
    shadow = Shadow.from_settings(settings, mongo_client=client)
    assert {"command", "client", "list_collection_names", "aggregate"} <= public
    for name in public:
        if name in NOT_COLLECTIONS:
            with pytest.raises(UnsupportedOperation, match=f"db.{name}"):
                getattr(shadow, name)
        elif name == "io_loop":
            assert driver == "motor"
        else:
            assert type(getattr(shadow, name)) not in (ForwardedCollection, RoutedCollection), name


async def test_nothing_goes_past_a_collection_that_is_on_two_stores(
    tmp_path: Path, mongo_url: str, driver: str
) -> None:
    """By a pipeline, a rename or a command: its other store would not hear of it."""
    async with beside(tmp_path, mongo_url, driver, named=False, handed_in=False) as site:
        shadow, things = site.shadow, site.shim
        routes = shadow._engine.parts.routes
        routes.set("others", dataclasses.replace(routes["others"], phase=Phase.DUAL_WRITE))
        for call in (
            lambda: things.rename("others"),
            lambda: shadow.command("insert", "others", documents=[{}]),
            lambda: shadow.command({"findAndModify": "others", "remove": True}),
            lambda: shadow.command("dropDatabase"),
        ):
            with pytest.raises(UnsupportedOperation, match="others"):
                call()
        assert (await shadow.command("collStats", "others"))["ok"] == 1
        routes.set("others", dataclasses.replace(routes["others"], primary=StoreName.DYNAMO))
        lookup = {"from": "others", "localField": "n", "foreignField": "n", "as": "found"}
        for pipeline in ([{"$lookup": lookup}], [{"$facet": {"a": [{"$unionWith": "others"}]}}]):
            with pytest.raises(UnsupportedOperation, match="DynamoDB"):
                things.aggregate(pipeline)


async def test_a_name_that_is_nearly_a_configured_one_is_said_once(
    tmp_path: Path, mongo_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside(tmp_path, mongo_url, "pymongo", named=True, handed_in=False) as site:
        for name in ("Things", "thing", "Things", "elsewhere"):
            _ = site.shadow[name]
    said = [each.getMessage() for each in caplog.records if "collection.unconfigured" in each.getMessage()]
    assert [name for name in ("Things", "thing") if sum(f"{name!r}" in text or f'"{name}"' in text for text in said)]
    assert len(said) == 2


async def test_no_mongodb_any_more(tmp_path: Path, new_mongod: Any) -> None:
    """All that is configured is on DynamoDB: a name that is not configured says what is missing."""
    settings = Settings(
        dynamo=_NOWHERE,
        journal=JournalSettings(url=f"sqlite:///{tmp_path / 'journal.db'}"),
        collections={"things": CollectionSettings(primary=StoreName.DYNAMO, phase=Phase.OFF)},
    )
    async with Shadow.from_settings(settings) as shadow:
        with pytest.raises(StoreUnavailable, match="names no MongoDB"):
            await shadow["elsewhere"].find_one()
    gone = MongoSettings(url="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50")
    async with Shadow.from_settings(settings.model_copy(update={"mongo": gone})) as shadow:
        with pytest.raises(StoreUnavailable, match="elsewhere: the configuration does not name it"):
            await shadow["elsewhere"].find_one()
