"""A collection that this process's configuration does not name, while another process writes it to both stores: what
was proven of it ends before this process changes it, whatever it changes it by, and at no cost where nobody has it.

The collection's own process writes both stores all the while. The other one is slow to enter the fleet, so that a call
that does not wait for it comes to MongoDB first.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from pymongo import InsertOne, UpdateOne, WriteConcern
from pymongo.errors import InvalidOperation

from shadow import Shadow
from shadow.config import CollectionSettings
from shadow.control import epochs, members
from shadow.control import flip_record as routing
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError, ShadowClosed, UnsupportedOperation
from shadow.fleet.participant import Participant
from shadow.model.phase import Phase, StoreName
from shadow.stores.mongo.drivers import COLLECTION_VERBS, collection_class, connect
from shadow.surface.direct.forwarded import CHANGES
from tests.contract.test_bare_writes import NAME, Site
from tests.support.pair import until

SLOW: Final = 0.1
"""Seconds that the process needs to enter the fleet: a call that waits for nothing is at MongoDB long before."""

Act = Callable[[Any], Awaitable[Any]]


pytestmark = pytest.mark.drawn_over("site", reason="the calls of either driver are looked at by the same code")


async def by_client(db: Any, *spaces: str) -> None:
    """A server before 8.0 has no such command, which the driver finds out when it is about to send it."""
    with contextlib.suppress(InvalidOperation):
        await db.client.bulk_write([InsertOne({"_id": "new"}, namespace=space) for space in spaces])


async def drained(cursor: Any) -> Any:
    cursor = await cursor if inspect.isawaitable(cursor) else cursor
    return [each async for each in cursor]


def _update(operator: str = "$set") -> dict[str, Any]:
    return {operator: {"n": 1}}


ACTS: Final[dict[str, Act]] = {
    "insert_one": lambda db: db[NAME].insert_one({"_id": "new"}),
    "insert_many": lambda db: db[NAME].insert_many([{"_id": "new"}]),
    "update_one": lambda db: db[NAME].update_one({"_id": 1}, _update()),
    "update_many": lambda db: db[NAME].update_many({}, _update()),
    "replace_one": lambda db: db[NAME].replace_one({"_id": 1}, {"n": 1}),
    "delete_one": lambda db: db[NAME].delete_one({"_id": 1}),
    "delete_many": lambda db: db[NAME].delete_many({"n": "none"}),
    "find_one_and_update": lambda db: db[NAME].find_one_and_update({"_id": 1}, _update()),
    "find_one_and_replace": lambda db: db[NAME].find_one_and_replace({"_id": 1}, {"n": 1}),
    "find_one_and_delete": lambda db: db[NAME].find_one_and_delete({"_id": 1}),
    "bulk_write": lambda db: db[NAME].bulk_write([InsertOne({"_id": "new"}), UpdateOne({"_id": 1}, _update())]),
    "drop": lambda db: db[NAME].drop(),
    "an index that deletes": lambda db: db[NAME].create_index("when", expireAfterSeconds=1),
    "by other options": lambda db: db[NAME].with_options(write_concern=WriteConcern(w=1)).delete_one({"_id": 1}),
    "by options of get_collection": lambda db: db.get_collection(NAME, write_concern=WriteConcern(w=1)).drop(),
    "by attribute": lambda db: getattr(db, NAME).insert_one({"_id": "new"}),
    "$out": lambda db: drained(db["elsewhere"].aggregate([{"$out": NAME}])),
    "$merge": lambda db: drained(db["elsewhere"].aggregate([{"$merge": {"into": NAME}}])),
    "$out with the database's name": lambda db: drained(
        db["elsewhere"].aggregate([{"$out": {"db": db.name, "coll": NAME}}])
    ),
    "$merge with the database's name": lambda db: drained(
        db["elsewhere"].aggregate([{"$merge": {"into": {"db": db.name, "coll": NAME}}}])
    ),
    "$out of raw batches": lambda db: drained(db["elsewhere"].aggregate_raw_batches([{"$out": NAME}])),
    "$merge of a configured one": lambda db: drained(db["others"].aggregate([{"$merge": NAME}])),
    "$merge of a configured one's raw batches": lambda db: drained(
        db["others"].aggregate_raw_batches([{"$merge": NAME}])
    ),
    "$merge of the database": lambda db: drained(db.aggregate([{"$documents": [{"_id": "new"}]}, {"$merge": NAME}])),
    "rename": lambda db: db[NAME].rename("renamed"),
    "rename to it": lambda db: db["elsewhere"].rename(NAME, dropTarget=True),
    "rename of a configured one to it": lambda db: db["others"].rename(NAME, dropTarget=True),
    "command": lambda db: db.command("insert", NAME, documents=[{"_id": "new"}]),
    "command as a mapping": lambda db: db.command({"delete": NAME, "deletes": [{"q": {"_id": 1}, "limit": 1}]}),
    "command with a pipeline": lambda db: db.command("aggregate", "elsewhere", pipeline=[{"$merge": NAME}], cursor={}),
    "command on all": lambda db: db.command("dropDatabase"),
    "drop_collection": lambda db: db.drop_collection(NAME),
    "drop_database": lambda db: db.client.drop_database(db.name),
    "the client's bulk_write": lambda db: by_client(db, f"{db.name}.{NAME}", f"{db.name}.elsewhere"),
}


class Beside(Site):
    """Two processes, of which one does not have the collection."""

    records: SqliteRecords

    @contextlib.asynccontextmanager
    async def stranger(self, *, handed_in: bool = False, **collections: Phase) -> AsyncIterator[Shadow]:
        """The process whose configuration does not name the collection."""
        entries = {name: CollectionSettings(phase=phase) for name, phase in collections.items()}
        settings = self.settings(Phase.OFF).model_copy(update={"collections": entries})
        mongo = settings.mongo
        given = connect(mongo.url.get_secret_value(), mongo.driver) if handed_in else None
        try:
            async with contextlib.AsyncExitStack() as stack:
                shadow = Shadow.from_settings(settings, mongo_client=given)
                # Not entered here: an application may make it and use it at once.
                stack.push_async_callback(shadow.close)
                yield shadow
        finally:
            ending = None if given is None else given.close()
            if inspect.isawaitable(ending):
                await ending

    def placed(self) -> routing.RouteRecord:
        return routing.load(self.records).placed[NAME]

    def refill(self) -> None:
        database = self.raw[self.name]
        database.drop_collection("renamed")
        for name in (NAME, "elsewhere", "others"):
            database[name].delete_many({"_id": "new"})
            database[name].replace_one({"_id": 1}, {"n": 0}, upsert=True)


@pytest_asyncio.fixture(params=["motor", "pymongo"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, dynamodb_local_url: str
) -> AsyncIterator[Beside]:
    made = Beside(tmp_path, mongo_url, dynamodb_local_url, request.param)
    made.records = SqliteRecords(made.settings(Phase.OFF).control_place().path)  # type: ignore[union-attr]
    yield made
    made.records.close()
    made.end()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever enters the fleet takes its time."""
    register = Participant._register

    def slow(self: Participant, *arguments: Any, **options: Any) -> Any:
        time.sleep(SLOW)
        return register(self, *arguments, **options)

    monkeypatch.setattr(Participant, "_register", slow)


@contextlib.asynccontextmanager
async def twice(site: Beside) -> AsyncIterator[Shadow]:
    """A process that writes the collection to both stores."""
    async with site.shadow(Phase.DUAL_WRITE) as shadow:
        await shadow.prepare()
        await shadow[NAME].insert_one({"_id": "early"})
        await until(lambda: site.placed().mark != "")
        yield shadow


@pytest.mark.parametrize("handed_in", [False, True], ids=["own", "handed-in"])
@pytest.mark.parametrize("way", ["update_one", "command", "$merge of the database", "$out"])
async def test_the_first_operation_of_a_process(site: Beside, slowly: None, way: str, handed_in: bool) -> None:
    """Its configuration names no collection at all; what was proven ends before it changes one."""
    async with twice(site), site.stranger(handed_in=handed_in) as stranger:
        site.refill()
        before = site.placed().mark
        await ACTS[way](stranger)
        assert site.placed().mark != before
        assert epochs.proof_of(site.records, NAME) == ""


@pytest.mark.only_on("one", "replicas", reason="readWrite lets nobody drop a database")
async def test_whatever_a_collection_is_changed_by(site: Beside, slowly: None) -> None:
    """By every way there is, each as the first operation after the process had left."""
    hidden = []
    async with twice(site), site.stranger(others=Phase.OFF) as stranger:
        for way, act in ACTS.items():
            site.refill()
            before = site.placed().mark
            await act(stranger)
            if site.placed().mark == before or epochs.proof_of(site.records, NAME):
                hidden.append(way)
            await stranger.admin.fleet.participant.leave()
            stranger._engine.parts.routes.forget()
    assert hidden == []


def test_every_verb_is_looked_at() -> None:
    """Each verb of the drivers' collections changes the collection, or is known not to."""
    reads = {
        "count_documents", "distinct", "estimated_document_count", "find", "find_one", "find_raw_batches",
        "index_information", "list_indexes", "list_search_indexes", "options", "watch",
    }  # fmt: skip
    elsewhere = {"aggregate", "aggregate_raw_batches", "rename"}
    about = {
        "codec_options", "database", "full_name", "get_io_loop", "name", "next", "read_concern", "read_preference",
        "with_options", "wrap", "write_concern",
    }  # fmt: skip
    motors = {name for name in dir(collection_class("motor")) if not name.startswith("_")}
    assert COLLECTION_VERBS | motors == CHANGES | reads | elsewhere | about
    assert {name.partition(" ")[0] for name in ACTS} >= {name for name in CHANGES if "index" not in name}


async def test_each_loop_of_a_process_enters_before_its_first_write(site: Beside, slowly: None) -> None:
    """A collection that was made once, in a program that calls `asyncio.run` for each job."""
    async with twice(site), site.stranger() as stranger:
        things = stranger[NAME]

        async def job(number: int) -> None:
            await things.insert_one({"_id": number})

        for number in range(3):
            before = site.placed().mark
            await asyncio.to_thread(lambda number=number: asyncio.run(job(number)))
            assert site.placed().mark != before
            assert epochs.proof_of(site.records, NAME), "it has left, and what is proven from now on counts"


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "off"])
async def test_a_process_that_was_taken_off_the_list_enters_again_after_a_pause(site: Beside, named: bool) -> None:
    """It stood still for longer than a heartbeat; the others have proven something meanwhile."""
    loop = asyncio.new_event_loop()
    entry = {NAME: Phase.OFF} if named else {"others": Phase.OFF}
    async with twice(site), site.stranger(**entry) as stranger:

        async def write(key: str) -> None:
            await stranger[NAME].insert_one({"_id": key})

        try:
            await asyncio.to_thread(loop.run_until_complete, write("before"))
            assert epochs.proof_of(site.records, NAME) == ""
            members.forget(site.records, stranger.admin.fleet.participant.id)
            await until(lambda: not stranger._engine.parts.routes.fresh)
            proven = epochs.proof_of(site.records, NAME)
            assert proven

            def run() -> None:
                asyncio.set_event_loop(loop)
                loop.run_until_complete(write("after"))

            await asyncio.to_thread(run)
            assert not epochs.has_epoch(site.placed(), proven)
        finally:
            await asyncio.to_thread(loop.run_until_complete, stranger.close())
            loop.close()


async def test_a_pause_asks_once_and_no_write_in_between(site: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.stranger(others=Phase.OFF) as stranger:
        things, asked = stranger[NAME], []
        await things.insert_one({"_id": "first"})
        learnt = stranger._engine.parts.routes.learnt

        async def counted(*, writing: bool) -> None:
            asked.append(writing)
            await learnt(writing=writing)

        monkeypatch.setattr(stranger._engine.parts.routes, "learnt", counted)
        monkeypatch.setattr(stranger._engine.parts.routes, "_until", float("inf"))
        monkeypatch.setattr(stranger._engine.parts.routes, "lease", lambda *arguments, **options: None)
        for number in range(50):
            await things.insert_one({"_id": number})
        assert asked == []
        monkeypatch.setattr(stranger._engine.parts.routes, "_until", 0.0)
        await things.insert_one({"_id": "after a pause"})
        assert asked == [True]


class Away:
    """A control store that cannot be used."""

    place = "away"

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise ControlError("the control store cannot be used")

        return fail


def cut_off(shadow: Shadow) -> None:
    participant, away = shadow.admin.fleet.participant, Away()
    shadow.admin.fleet.records = participant.records = participant._raising._records = away  # type: ignore[assignment]
    shadow.admin.fleet._vouching._records = away  # type: ignore[assignment]


async def test_a_control_store_that_is_away_stops_no_write_and_mongodb_keeps_a_sign(site: Beside) -> None:
    async with twice(site) as shadow:
        await until(lambda: shadow.admin.fleet.vouched)
        store = shadow._engine.runtime().stores[StoreName.MONGO]
        before, mark = await store.token(NAME), site.placed().mark  # type: ignore[attr-defined]
        async with site.stranger() as stranger:
            cut_off(stranger)
            await stranger[NAME].insert_one({"_id": "alone"})
            assert await store.token(NAME) != before  # type: ignore[attr-defined]
        assert await shadow.admin.fleet.vouch([NAME])
        assert site.placed().mark != mark


async def test_what_nobody_could_know_of_is_not_written(site: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    async with twice(site), site.stranger() as stranger:
        cut_off(stranger)

        async def unable(collection: str) -> bool:
            return False

        monkeypatch.setattr(stranger.admin.fleet._vouching, "spoil", unable)
        for act in (ACTS["insert_one"], ACTS["command on all"], ACTS["drop_database"], ACTS["$merge"]):
            with pytest.raises(ControlError):
                await act(stranger)
        assert site.stored().keys() == {"early"}


async def test_after_its_end_a_process_writes_nothing(site: Beside) -> None:
    async with site.stranger(handed_in=True) as stranger:
        await stranger[NAME].insert_one({"_id": 1})
        await stranger.close()
        with pytest.raises(ShadowClosed):
            await stranger[NAME].insert_one({"_id": 2})
        assert await stranger[NAME].find_one({"_id": 2}) is None


async def test_a_call_is_the_drivers_in_kind(site: Beside) -> None:
    """Motor's is under way before anybody waits for it; PyMongo's begins when it is awaited, also much later."""
    async with site.stranger() as stranger:
        for key in ("first", "second"):
            made = stranger[NAME].insert_one({"_id": key})
            if site.settings(Phase.OFF).mongo.driver == "motor":
                assert asyncio.isfuture(made)
                await until(lambda key=key: key in site.stored())
            else:
                assert inspect.iscoroutine(made)
            assert (await made).inserted_id == key


@pytest.mark.only_on("one", "replicas", reason="readWrite lets nobody drop a database")
async def test_nothing_goes_past_its_other_store(site: Beside) -> None:
    """The process that has it on two stores refuses what would write it in MongoDB alone, however it is named."""
    async with twice(site) as shadow:
        for act in (
            ACTS["$out with the database's name"],
            ACTS["$merge with the database's name"],
            ACTS["$merge of the database"],
            ACTS["command with a pipeline"],
            ACTS["the client's bulk_write"],
            ACTS["$out of raw batches"],
        ):
            with pytest.raises(UnsupportedOperation, match=NAME):
                await act(shadow)
        await by_client(shadow, f"{site.name}other.{NAME}")
        await shadow.client.drop_database(f"{site.name}other")
