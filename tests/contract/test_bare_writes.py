"""Phase `off` beside other times: a collection that was written to both stores once, processes that stand differently,
writes that are under way when both stores come to be written. A write by the driver's own call never hides behind a
version that stays."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from pymongo.errors import BulkWriteError, DuplicateKeyError, NetworkTimeout
from pymongo.read_concern import ReadConcern

from shadow import Shadow
from shadow.config import CollectionSettings, Settings
from shadow.control import members
from shadow.control.epochs import proof_of
from shadow.control.sqlite import SqliteRecords
from shadow.errors import NotFollowed, UnsupportedOperation
from shadow.jobs.backfill import Backfill
from shadow.jobs.target import JobRefused
from shadow.jobs.work import Handled, JobPace, Work
from shadow.model.phase import Phase, StoreName
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Image, Tombstone, fresh_id
from shadow.routes.forwarder import Passage
from tests.support import migration
from tests.support.pair import until
from tests.support.shims import settings_for
from tests.support.topologies import drop, root_client

NAME: Final = "things"


class Site:
    """One collection on real stores, by one Shadow after the other, or several at once."""

    def __init__(self, folder: Path, mongo_url: str, dynamo_url: str, driver: str) -> None:
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self._mongo_url = mongo_url
        self._settings = settings_for(folder, mongo_url, dynamo_url, self.name, [NAME], driver=driver)
        self.raw = root_client(mongo_url)
        self.jobs = migration.OpenJobs(SqliteRecords(folder / "jobs.db"))

    def settings(self, phase: Phase, heartbeat: float = 0.1, **limits: Any) -> Settings:
        entry = CollectionSettings(phase=phase, primary=StoreName.MONGO)
        control = self._settings.control.model_copy(update={"heartbeat": heartbeat})
        quick = self._settings.limits.model_copy(update=limits)
        return self._settings.model_copy(update={"collections": {NAME: entry}, "control": control, "limits": quick})

    @contextlib.asynccontextmanager
    async def shadow(self, phase: Phase, heartbeat: float = 0.1, **limits: Any) -> AsyncIterator[Shadow]:
        async with Shadow.from_settings(self.settings(phase, heartbeat, **limits)) as made:
            yield made

    def stored(self) -> dict[Any, dict[str, Any]]:
        return {each["_id"]: each for each in self.raw[self.name][NAME].find()}

    async def was_dual(self, *documents: dict[str, Any]) -> None:
        async with self.shadow(Phase.DUAL_WRITE) as shadow:
            await shadow.prepare()
            for each in documents:
                await shadow[NAME].insert_one(dict(each))
            assert await shadow.settled(30)

    def end(self) -> None:
        self.jobs.close()
        drop(self._mongo_url, self.name)


@pytest_asyncio.fixture(params=["motor", "pymongo"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, dynamodb_local_url: str
) -> AsyncIterator[Site]:
    made = Site(tmp_path, mongo_url, dynamodb_local_url, request.param)
    yield made
    made.end()


async def bare(shadow: Shadow) -> None:
    """Waits until its writes are the driver's own calls: until no process writes both stores any more, in the fleet's
    record too."""
    async with asyncio.timeout(20):
        while True:
            async with shadow._engine.parts.routes.writing(NAME) as route:
                if route.bare:
                    return
            await asyncio.sleep(0.01)


def versions(site: Site) -> dict[Any, Any]:
    return {key: each.get("_shadow") for key, each in site.stored().items()}


# --- a collection that was written to both stores ---------------------------------------------------------------


SCHEMAS: Final[tuple[tuple[dict[str, Any], list[int]], ...]] = (
    ({"maxProperties": 2}, [1]),
    ({"minProperties": 3}, [2]),
    ({"properties": {"_id": {}, "n": {}}, "additionalProperties": False}, [1]),
    ({"patternProperties": {"^[^_n]": {"bsonType": "string"}}, "additionalProperties": False}, []),
    ({"required": ["s"]}, [2]),
    ({"not": {"maxProperties": 2}}, [2]),
    ({"anyOf": [{"maxProperties": 1}, {"minProperties": 3}]}, [2]),
)
"""Schemas of whole documents, and the documents of the test that they fit: the version is none of their fields."""


async def test_a_schema_in_a_filter_does_not_see_the_version(site: Site, mongo_url: str) -> None:
    documents = [{"_id": 1, "n": 1}, {"_id": 2, "n": 2, "s": "a"}]
    await site.was_dual(*documents)
    async with site.shadow(Phase.OFF) as shadow:
        await bare(shadow)
        things, plain = shadow[NAME], site.raw[site.name]["plain"]
        plain.insert_many([dict(each) for each in documents])
        assert all(versions(site).values()), "the documents have versions"
        for schema, fits in SCHEMAS:
            filter = {"$jsonSchema": schema}
            expected = [each["_id"] for each in plain.find(filter)]
            assert expected == fits or schema == SCHEMAS[3][0], (schema, expected)
            for given in (filter, {"$and": [filter]}, {"$nor": [{"$nor": [filter]}]}):
                assert [each["_id"] for each in await things.find(given).sort("_id").to_list(None)] == expected, given
                assert await things.count_documents(given) == len(expected)
                assert await things.distinct("_id", given) == expected
            done = await things.update_many(filter, {"$set": {"n": 5}})
            assert done.matched_count == len(expected)


async def test_versions_and_tombstones_stay_hidden(site: Site) -> None:
    await site.was_dual({"_id": 1, "n": 1, "s": "a"}, {"_id": 2, "n": 2, "s": "A"}, {"_id": 3, "n": 2})
    async with site.shadow(Phase.OFF) as shadow:
        things = shadow[NAME]
        store = shadow._engine.runtime().stores[StoreName.MONGO]
        assert await store.put(NAME, "gone", Image(Tombstone(fresh_id())), ABSENT)
        assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 1, "s": "a"} == await things.find_one(1)
        assert await things.find_one({"_id": "gone"}) is None
        assert await things.find_one(1, {"s": 0}) == {"_id": 1, "n": 1}
        assert await things.find_one(1, ["n"]) == {"_id": 1, "n": 1}
        assert await things.find_one({"_id": 1}, {"_id": 0, "s": {"$toUpper": "$s"}}) == {"s": "A"}
        assert await things.find().sort("_id").to_list(None) == [
            {"_id": 1, "n": 1, "s": "a"},
            {"_id": 2, "n": 2, "s": "A"},
            {"_id": 3, "n": 2},
        ]
        assert len(await things.find({"s": "a"}, collation={"locale": "en", "strength": 2}).to_list(None)) == 2
        assert await things.count_documents({}) == await things.estimated_document_count() == 3
        assert await things.distinct("_id") == [1, 2, 3]
        join = {"from": NAME, "localField": "n", "foreignField": "n", "as": "same"}
        walk = {"from": NAME, "startWith": "$n", "connectFromField": "n", "connectToField": "n", "as": "same"}
        for stages in (
            [{"$sort": {"_id": 1}}],
            [{"$match": {"_id": 1}}],
            [{"$lookup": join}, {"$sort": {"_id": 1}}],
            [{"$graphLookup": walk}],
            [{"$unionWith": NAME}],
            [{"$facet": {"all": [{"$lookup": join}]}}],
            [{"$project": {"whole": "$$ROOT"}}],
        ):
            cursor = things.aggregate(stages, allowDiskUse=True)
            found = await (await cursor if site.settings(Phase.OFF).mongo.driver == "pymongo" else cursor).to_list(None)
            assert found
            assert "_shadow" not in repr(found)
            assert "gone" not in repr(found)
        assert not {"_shadow_ttl", "_shadow_op"} & set(await things.index_information())
        for refused in ({"_shadow.r": 1}, {"$expr": {"$eq": ["$_shadow.r", 1]}}):
            with pytest.raises(UnsupportedOperation):
                await things.find_one(refused)


async def test_versions_stay_hidden_in_what_another_collection_joins(site: Site) -> None:
    await site.was_dual({"_id": 1, "n": 1})
    for phase in (Phase.OFF, Phase.DUAL_WRITE):
        async with site.shadow(phase) as shadow:
            await shadow[NAME].find_one({})
            elsewhere = shadow["elsewhere"]
            await elsewhere.insert_one({"n": 1})
            join = {"from": NAME, "localField": "n", "foreignField": "n", "as": "same"}
            for stages in ([{"$lookup": join}], [{"$unionWith": {"coll": NAME}}]):
                cursor = elsewhere.aggregate(stages)
                cursor = await cursor if hasattr(cursor, "__await__") else cursor
                found = await cursor.to_list(None)
                assert repr({"_id": 1, "n": 1}) in repr(found)
                assert "_shadow" not in repr(found)


async def test_every_write_moves_the_version_in_one_command(site: Site) -> None:
    await site.was_dual(*({"_id": n, "n": 0} for n in range(8)))
    before = versions(site)
    async with site.shadow(Phase.OFF) as shadow:
        things = shadow[NAME]
        await bare(shadow)
        assert (await things.update_one({"_id": 0}, {"$inc": {"n": 1}}, comment="why")).modified_count == 1
        assert (await things.update_one({"_id": 1}, [{"$replaceWith": {"m": 1}}], hint="_id_")).modified_count == 1
        assert (await things.replace_one({"_id": 2}, {"n": 2})).modified_count == 1
        assert await things.find_one_and_update({"_id": 3}, {"$set": {"n": 3}}) == {"_id": 3, "n": 0}
        found = await things.find_one_and_replace({"_id": 4}, {"n": 4}, return_document=True, projection={"_id": 0})
        assert found == {"n": 4}
        assert (await things.update_many({"_id": {"$in": [5, 6]}}, {"$set": {"n": 5}})).modified_count == 2
        requests = [pymongo.UpdateOne({"_id": 7}, {"$set": {"n": 7}}), pymongo.InsertOne({"_id": 8})]
        assert (await things.bulk_write(requests)).modified_count == 1
        await things.insert_one({"_id": 9})
        await things.insert_many([{"_id": 10}, {"n": 11}])
        assert (await things.update_one({"_id": 12}, {"$set": {"n": 12}}, upsert=True)).upserted_id == 12
        assert (await things.replace_one({"k": 13}, {"k": 13, "_id": 13}, upsert=True)).upserted_id == 13
        after = versions(site)
        assert all(after[key] != before[key] for key in before)
        assert all(after[key] and after[key]["b"] for key in after)
        # A deleted document that is inserted again is another one.
        await things.delete_one({"_id": 9})
        await things.insert_one({"_id": 9})
        assert versions(site)[9] != after[9]
        # What changes nothing is not modified: the version moves once in this time.
        assert (await things.update_one({"_id": 0}, {"$set": {"n": 1}})).modified_count == 0
        assert (await things.update_one({"_id": 0}, {"$inc": {"n": 1}})).modified_count == 1
        shown = [{name: value for name, value in each.items() if name != "_shadow"} for each in site.stored().values()]
        assert shown == await things.find().to_list(None)


async def test_an_insert_takes_the_place_of_a_tombstone(site: Site) -> None:
    await site.was_dual({"_id": 1})
    async with site.shadow(Phase.OFF) as shadow:
        things, store = shadow[NAME], shadow._engine.runtime().stores[StoreName.MONGO]
        await bare(shadow)

        async def buried(*keys: Any) -> None:
            await things.delete_many({"_id": {"$in": list(keys)}})
            for key in keys:
                assert await store.put(NAME, key, Image(Tombstone(fresh_id())), ABSENT)

        await buried("a", "b", "c", "d", "e", "f")
        await things.insert_one({"_id": "a"})
        assert (await things.update_one({"_id": "b"}, {"$set": {"n": 1}}, upsert=True)).upserted_id == "b"
        assert (await things.replace_one({"_id": "c"}, {"n": 1}, upsert=True)).upserted_id == "c"
        update = {"$set": {"n": 1}}
        assert await things.find_one_and_update({"_id": "d"}, update, upsert=True, return_document=True) is not None
        await things.insert_many([{"_id": "e"}])
        await things.bulk_write([pymongo.UpdateOne({"_id": "f"}, update, upsert=True)])
        assert await things.count_documents({}) == 7
        with pytest.raises(DuplicateKeyError):
            await things.insert_one({"_id": "a"})
        with pytest.raises(BulkWriteError) as refused:
            await things.insert_many([{"_id": "g"}, {"_id": "a", "n": 2}, {"_id": "h"}])
        assert [each["op"] for each in refused.value.details["writeErrors"]] == [{"_id": "a", "n": 2}]
        with pytest.raises(BulkWriteError) as refused:
            await things.bulk_write([pymongo.UpdateOne({"_id": "a"}, {"$inc": {"_id": 1}})])
        (fault,) = refused.value.details["writeErrors"]
        assert (fault["op"]["q"], fault["op"]["u"]) == ({"_id": "a"}, {"$inc": {"_id": 1}})


async def test_what_was_written_alone_is_found_by_the_next_time_of_dual_writes(site: Site) -> None:
    """By a quick look at versions too: backfill copies it, and both stores are equal."""
    await site.was_dual(*({"_id": n, "n": 0} for n in range(6)))
    async with site.shadow(Phase.OFF) as shadow:
        things = shadow[NAME]
        await bare(shadow)
        await things.update_one({"_id": 0}, {"$set": {"n": 1}})
        await things.replace_one({"_id": 1}, {"n": 1})
        await things.delete_one({"_id": 2})
        await things.insert_one({"_id": 2, "n": 1})
        await things.insert_one({"_id": "new"})
    async with site.shadow(Phase.DUAL_WRITE) as shadow:
        await until(lambda: shadow._engine.expected(NAME) is Passage.VERSIONED)
        # The fence holds against what stands at the other store: no replay comes to something else.
        await shadow[NAME].update_one({"_id": 0}, {"$inc": {"n": 1}})
        assert await shadow.settled(30)
        assert shadow.admin.findings.groups() == []
        sides = shadow.admin.sides(NAME)
        quick = migration.Verify(sides, migration.Scope(full=False))
        found = migration.summary(await migration.Work(quick, site.jobs, migration.JobPace()).run())
        assert (found.missing, found.different, found.extra) == (1, 2, 0)
        await migration.Work(migration.Backfill(sides), site.jobs, migration.JobPace()).run()
        assert await shadow.settled(30)
        verify = migration.Verify(sides, migration.Scope())
        assert migration.summary(await migration.Work(verify, site.jobs, migration.JobPace()).run()).clean
        assert await shadow[NAME].find_one({"_id": 0}) == {"_id": 0, "n": 2}


async def test_versions_of_an_unknown_past_are_found(site: Site) -> None:
    """Another control store, or an older version of the library, has left them."""
    stamp = {"b": fresh_id(), "r": 3}
    site.raw[site.name][NAME].insert_many([{"_id": 1}, {"_id": 2, "_shadow": stamp}])
    async with site.shadow(Phase.OFF) as shadow:
        assert await shadow[NAME].find({}).to_list(None) == [{"_id": 1}, {"_id": 2}]
        await shadow[NAME].update_one({"_id": 2}, {"$set": {"n": 1}})
        assert versions(site)[2] not in (None, stamp)


# --- a collection that was not ----------------------------------------------------------------------------------


async def test_no_version_without_a_second_store(site: Site) -> None:
    """With a heartbeat that a busy machine keeps: writes move versions while it is late."""
    async with site.shadow(Phase.OFF, heartbeat=10.0) as shadow:
        things = shadow[NAME]
        await things.insert_many([{"_id": n, "_shadow": "the application's own"} for n in range(3)])
        await things.update_many({}, {"$set": {"n": 1}})
        assert await things.find_one({"_shadow": "the application's own", "_id": 1}) is not None
        assert shadow.admin.metrics()[0].count(b"shadow_operations_total{") > 0
    assert set(map(str, versions(site).values())) == {"the application's own"}


async def test_calls_are_counted(site: Site) -> None:
    async with site.shadow(Phase.OFF) as shadow:
        things = shadow[NAME]
        await things.insert_one({"_id": 1})
        with pytest.raises(DuplicateKeyError):
            await things.insert_one({"_id": 1})
        await things.find().to_list(None)
        assert [each async for each in things.find({"_id": "none"})] == []
        await things.find_one(1)
        text = shadow.admin.metrics()[0].decode()

        def counted(verb: str, outcome: str) -> float:
            wanted = [f'verb="{verb}"', f'outcome="{outcome}"', f'collection="{NAME}"', 'store="mongo"']
            lines = [each for each in text.splitlines() if each.startswith("shadow_operations_total{")]
            return sum(float(each.split()[-1]) for each in lines if all(part in each for part in wanted))

        assert (counted("insert_one", "acked"), counted("insert_one", "refused")) == (1, 1)
        assert (counted("find", "acked"), counted("find_one", "acked")) == (2, 1)


# --- the moment in which both stores come to be written ---------------------------------------------------------


async def test_processes_that_stand_differently(site: Site) -> None:
    """One is in phase `off`, another one begins with dual writes: the first one's writes move versions from then on,
    and are found; none of it is shown to anybody."""
    async with site.shadow(Phase.OFF) as alone:
        await alone[NAME].insert_one({"_id": "before"})
        assert versions(site) == {"before": None}
        async with site.shadow(Phase.DUAL_WRITE) as both:
            await both.prepare()
            await both[NAME].insert_one({"_id": "both"})
            assert versions(site)["both"] is not None
            await alone[NAME].insert_one({"_id": "alone"})
            await alone[NAME].update_one({"_id": "before"}, {"$set": {"n": 1}})
            assert None not in versions(site).values()
            for shadow in (alone, both):
                found = await shadow[NAME].find().sort("_id").to_list(None)
                assert found == [{"_id": "alone"}, {"_id": "before", "n": 1}, {"_id": "both"}]


async def test_a_bare_write_under_way_holds_dual_writes_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller has gone; it is waited for all the same."""
    async with site.shadow(Phase.OFF) as alone:
        await alone[NAME].insert_one({"_id": 1, "n": 0})
        gate, asked = asyncio.Event(), asyncio.Event()
        own = alone[NAME]._own()

        class Slow:
            async def update_one(self, *arguments: Any, **options: Any) -> Any:
                asked.set()
                await gate.wait()
                return await own.update_one(*arguments, **options)

        monkeypatch.setattr(alone._engine.forwarder(), "collection", lambda name, options: Slow())
        caller = asyncio.ensure_future(alone[NAME].update_one({"_id": 1}, {"$set": {"n": 1}}))
        await asked.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        async with site.shadow(Phase.DUAL_WRITE) as both:
            await both.prepare()
            writing = asyncio.ensure_future(both[NAME].insert_one({"_id": 2}))
            await until(lambda: alone._engine.parts.routes.stamped(NAME))
            assert not alone._engine.parts.routes.drained([NAME])
            assert versions(site).get(2) is None, "no version of a dual write while the bare one is under way"
            gate.set()
            await writing
            await until(lambda: site.stored()[1]["n"] == 1)
            assert await both.settled(30)


async def test_a_transaction_under_way_is_a_write_under_way(site: Site) -> None:
    async with site.shadow(Phase.OFF) as alone:
        things, routes = alone[NAME], alone._engine.parts.routes
        await things.insert_one({"_id": 1})
        session = alone.client.start_session()
        async with await session if hasattr(session, "__await__") else session as session:
            # The url may ask for `available`, which no transaction takes.
            begun = session.start_transaction(read_concern=ReadConcern("local"))
            async with await begun if hasattr(begun, "__await__") else begun:
                await things.insert_one({"_id": 2}, session=session)
                await things.update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
                assert not routes.drained([NAME])
                assert await things.count_documents({}) == 1
            await until(lambda: routes.drained([NAME]))
        assert await things.count_documents({}) == 2


async def test_a_cursor_made_before_the_phase_changed(site: Site) -> None:
    """It takes the way that is right when it is read."""
    async with site.shadow(Phase.OFF) as alone:
        await alone[NAME].insert_many([{"_id": n} for n in range(300)])
        early = alone[NAME].find().sort("_id", -1).limit(2)
        begun = alone[NAME].find(batch_size=2).sort("_id")
        assert await begun.next() == {"_id": 0}
        async with site.shadow(Phase.DUAL_WRITE) as both:
            await both.prepare()
            await both[NAME].update_many({"_id": {"$gte": 298}}, {"$set": {"n": 1}})
            assert await early.to_list(None) == [{"_id": 299, "n": 1}, {"_id": 298, "n": 1}]
            left = await begun.to_list(None)
            assert len(left) == 299
            assert not any("_shadow" in each for each in left)


async def test_options_that_only_the_driver_can_keep(site: Site) -> None:
    """Asked for in phase `off`, and kept beyond it: refused by the first call that would not keep them."""
    async with site.shadow(Phase.OFF, heartbeat=60.0) as shadow:  # the next one would undo the route that is set here
        weak = shadow[NAME].with_options(write_concern=pymongo.WriteConcern(w=1, wtimeout=700))
        assert (await weak.insert_one({"_id": 1})).acknowledged
        routes = shadow._engine.parts.routes
        routes.set(NAME, site.settings(Phase.DUAL_WRITE).route(NAME))
        with pytest.raises(UnsupportedOperation, match="write_concern"):
            await weak.insert_one({"_id": 2})
        with pytest.raises(UnsupportedOperation, match="write_concern"):
            shadow[NAME].with_options(write_concern=pymongo.WriteConcern(w=1, wtimeout=700))


async def test_while_nobody_knows_versions_move_and_are_hidden(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control store does not answer: another process may be about to write both stores."""
    async with site.shadow(Phase.OFF) as shadow:
        things, routes = shadow[NAME], shadow._engine.parts.routes
        await bare(shadow)
        await things.insert_many([{"_id": n} for n in range(3)])
        with monkeypatch.context() as patched:
            routes.lease(-math.inf, versioned=(), stamped=())
            patched.setattr(routes, "lease", lambda *arguments, **options: None)
            await things.update_one({"_id": 1}, {"$set": {"n": 1}})
            changed = await things.update_one({"_id": 1}, {"$set": {"n": 1}}, collation={"locale": "en"})
            assert changed.matched_count == 1
            assert await things.find({}, comment="why").to_list(None) == [{"_id": 0}, {"_id": 1, "n": 1}, {"_id": 2}]
            assert await things.find_one(1) == {"_id": 1, "n": 1}
        assert [key for key, version in versions(site).items() if version] == [1]
        await bare(shadow)
        await until(lambda: routes.plain(NAME))
        assert await things.find({}).to_list(None) == [{"_id": 0}, {"_id": 1, "n": 1}, {"_id": 2}]
        assert await things.find_one_and_update({"_id": 1}, {"$set": {"n": 2}}) == {"_id": 1, "n": 1}


# --- writes of one store alone, and what is copied or proven beside them -----------------------------------------


async def put_in_phase(site: Site, shadow: Shadow, phase: Phase) -> None:
    """As by a new file."""
    route = dataclasses.replace(shadow.admin.routes()[NAME], phase=phase)
    shadow.admin.fleet.wishes({NAME: route}, {})
    await shadow.admin.fleet.change(NAME, route)
    await until(lambda: shadow.admin.routes()[NAME].phase is phase)


async def test_nothing_is_copied_while_one_store_is_written_alone(site: Site) -> None:
    """MongoDB's own calls give one version to one document after the other: whoever compares versions would take what
    was copied in between for what is there at the end."""
    await site.was_dual({"_id": 1, "n": 0}, {"_id": 2, "n": 0})
    async with site.shadow(Phase.DUAL_WRITE) as shadow:
        await until(lambda: shadow.admin.fleet.participant.joined and shadow.admin.routes()[NAME].dual_write)
        sides = shadow.admin.sides(NAME)
        assert await shadow.admin.heal(NAME, 1) is Healing.EQUAL
        job = await Work(Backfill(sides), site.jobs, JobPace()).run()
        assert job.outcome == "complete"
        await put_in_phase(site, shadow, Phase.OFF)
        await bare(shadow)
        await shadow[NAME].update_one({"_id": 1}, {"$set": {"n": 1}})
        version = versions(site)[1]
        with pytest.raises(NotFollowed, match="phase off writes one store only"):
            await shadow.admin.heal(NAME, 1)
        for refused in (lambda: Backfill(shadow.admin.sides(NAME)), lambda: Backfill(sides)._heal([1], Handled())):
            with pytest.raises(JobRefused):
                await refused()  # type: ignore[misc]
        await shadow[NAME].update_one({"_id": 1}, {"$set": {"n": 2}})
        assert versions(site)[1] == version, "the same version, of another document"
        secondary = shadow._engine.runtime().stores[StoreName.DYNAMO]
        assert (await secondary.image(NAME, 1)).document == {"_id": 1, "n": 0}
        await put_in_phase(site, shadow, Phase.DUAL_WRITE)
        assert await shadow.admin.heal(NAME, 1) is Healing.COPIED
        assert (await secondary.image(NAME, 1)).document == {"_id": 1, "n": 2}


async def test_a_heal_under_way_ends_before_the_process_says_that_it_writes_one_store(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the primary before anybody could write it alone."""
    await site.was_dual({"_id": 1, "n": 0})
    async with site.shadow(Phase.DUAL_WRITE) as shadow:
        await until(lambda: shadow.admin.fleet.participant.joined and shadow.admin.routes()[NAME].dual_write)
        primary = shadow._engine.runtime().stores[StoreName.MONGO]
        reached, gate, image = asyncio.Event(), asyncio.Event(), primary.image

        async def slow(*arguments: Any) -> Image:
            reached.set()
            await gate.wait()
            return await image(*arguments)

        monkeypatch.setattr(primary, "image", slow)
        heal = asyncio.create_task(shadow.admin.heal(NAME, 1))
        await reached.wait()
        lowering = asyncio.create_task(put_in_phase(site, shadow, Phase.OFF))
        await asyncio.sleep(0.3)
        mine = next(each for each in members.members(shadow.admin.fleet.records) if not each.tool)
        assert mine.standing[NAME].phase is Phase.DUAL_WRITE
        gate.set()
        assert await heal is Healing.EQUAL
        await lowering
        await shadow.admin.fleet.participant.beat()
        mine = next(each for each in members.members(shadow.admin.fleet.records) if not each.tool)
        assert mine.standing[NAME].phase is Phase.OFF


async def test_nothing_is_proven_while_a_write_to_one_store_may_still_arrive(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versioned, beside a process that writes both; its caller has heard that nobody knows. No intent stands for it, so
    that no proof may begin before it has arrived or never will."""
    async with site.shadow(Phase.DUAL_WRITE) as both, site.shadow(Phase.OFF, in_flight_timeout=1.0) as alone:
        await both.prepare()
        await both[NAME].insert_one({"_id": 1, "n": 0})
        primary = alone._engine.runtime().stores[StoreName.MONGO]
        gate, apply = asyncio.Event(), primary.apply
        under_way: list[asyncio.Task[Any]] = []

        async def late(*arguments: Any) -> Any:
            async def arrive() -> Any:
                await gate.wait()
                return await apply(*arguments)

            under_way.append(asyncio.create_task(arrive()))
            raise NetworkTimeout("no answer")

        monkeypatch.setattr(primary, "apply", late)
        with pytest.raises(NetworkTimeout):
            await alone[NAME].update_one({"_id": 1}, {"$set": {"n": 1}})
        records = both.admin.fleet.records
        assert alone._engine.parts.routes.drained([NAME])
        assert proof_of(records, NAME) == ""
        await put_in_phase(site, alone, Phase.DUAL_WRITE)
        assert proof_of(records, NAME) == "", "both write both, and the write may still arrive"
        gate.set()
        await asyncio.gather(*under_way)
        assert site.stored()[1]["n"] == 1
        await until(lambda: proof_of(records, NAME) != "")
        assert alone._engine.parts.routes.arrived([NAME])
