"""Writers past the shim are relayed, on real servers: whatever a bare driver writes to the primary reaches the
secondary, through restarts and beside the shim's own writes, of which none is healed; where the stream cannot tell
every document, the collection is unverified."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymongo import DeleteMany, MongoClient, UpdateMany

from shadow import Shadow
from shadow.control.place import SqlitePlace
from shadow.control.sqlite import SqliteRecords
from shadow.errors import UnsupportedOperation
from shadow.fleet.health_gates import gates_of
from tests.support import migration
from tests.support.bare import bare_writer
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import Standalone

Database = Any


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    limits = {"read_deadline": 20.0, "write_deadline": 20.0, "operation": 60.0}
    journal = str(tmp_path / "shadow.db")
    return Site(mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", journal, limits=limits, patience=20.0)


@contextlib.asynccontextmanager
async def relaying(site: Site) -> AsyncIterator[Shadow]:
    """A Shadow that relays, or is ready to: it has begun when it has looked at the seat."""
    settings = site.settings()
    observe = settings.observe.model_copy(update={"follow_writers": True})
    shadow = Shadow(settings.model_copy(update={"observe": observe}))
    try:
        await shadow.prepare()
        await until(lambda: relay(shadow)["holder"] and not relay(shadow)["fault"])
        yield shadow
    finally:
        await shadow.close()


def relay(shadow: Shadow) -> dict[str, Any]:
    (found,) = [each.status() for name, each in shadow._engine.relays.items() if str(name) == "mongo"]
    return dataclasses.asdict(found)


async def begun(shadow: Shadow, site: Site) -> None:
    """Its stream is open, and what was unknown when it began has been verified."""
    records = SqliteRecords(control_file(site))
    await until(lambda: (found := records.get("relay/mongo")) is not None and found.value["value"].get("cursor"))
    records.close()
    journal = shadow._engine.parts.journal
    await journal.trust(COLLECTION, await journal.doubts(COLLECTION))
    await shadow._engine.runtime().refresh()


def control_file(site: Site) -> Path:
    place = site.settings().control_place()
    assert isinstance(place, SqlitePlace)
    return place.path


async def bare(site: Site, work: Callable[[Any], Any]) -> None:
    """What a writer that knows nothing of shadow does to the database."""

    def call() -> None:
        with MongoClient[dict[str, Any]](site.mongo_url) as client:
            work(client[site.database])

    await asyncio.to_thread(call)


async def level(site: Site, timeout: float = 60.0) -> None:
    async with asyncio.timeout(timeout):
        while await site.disagreements():  # noqa: ASYNC110 - nobody says when they are equal
            await asyncio.sleep(0.1)


def total(shadow: Shadow, name: str, **labels: str) -> dict[str, float]:
    """A counter of the collection by its other label, without zeros."""
    families = text_string_to_metric_families(shadow.admin.metrics()[0].decode())
    samples = [each for family in families for each in family.samples if each.name == name]
    found: dict[str, float] = {}
    for each in samples:
        if each.labels.pop("collection") == COLLECTION and each.value:
            found["/".join(each.labels.values())] = each.value
    return found


def relayed(shadow: Shadow) -> dict[str, float]:
    return total(shadow, "shadow_relayed_writes_total")


async def becomes_unverified(shadow: Shadow) -> None:
    async with asyncio.timeout(60):
        while not await unverified(shadow):  # noqa: ASYNC110 - nobody says when it is
            await asyncio.sleep(0.05)


async def unverified(shadow: Shadow) -> bool:
    return COLLECTION in (await shadow._engine.runtime().refresh()).unclean


def keep_stamp(things: Any) -> None:
    """Reads a document and writes it back whole, with whatever it has found in it."""
    found = things.find_one({"_id": "kept"})
    things.replace_one({"_id": "kept"}, {**found, "by": "a bare driver"})


def copy_document(things: Any) -> None:
    found = things.find_one({"_id": "source"})
    things.insert_one({**found, "_id": "a copy"})


async def test_whatever_a_bare_driver_writes_reaches_the_secondary_and_closes_nothing(site: Site) -> None:
    async with relaying(site) as shadow:
        await begun(shadow, site)
        things = shadow[COLLECTION]
        names = ("changed", "replaced", "deleted", "kept", "source", "gone", "many1", "many2", "back")
        await things.insert_many([{"_id": name, "n": 1} for name in names])
        await things.update_one({"_id": "source"}, {"$set": {"n": 2}})
        await things.delete_one({"_id": "gone"})
        await things.insert_one({"_id": "ours", "n": 1})
        await things.replace_one({"_id": "ours"}, {"n": 2})
        await things.delete_one({"_id": "ours"})
        await site.level(shadow)
        await asyncio.sleep(1.0)
        assert total(shadow, "shadow_heals_total") == {}, "a write of the library itself is not healed"

        def work(database: Database) -> None:
            bare = database[COLLECTION]
            bare.insert_one({"_id": "new", "by": "a bare driver"})
            bare.insert_one({"_id": "gone", "by": "a bare driver"})
            bare.update_one({"_id": "changed"}, {"$set": {"by": "a bare driver"}})
            bare.replace_one({"_id": "replaced"}, {"by": "a bare driver"})
            bare.delete_one({"_id": "deleted"})
            bare.delete_one({"_id": "back"})
            bare.insert_one({"_id": "back", "n": 2})
            bare.bulk_write([UpdateMany({"_id": "many1"}, {"$inc": {"n": 1}}), DeleteMany({"_id": "many2"})])
            keep_stamp(bare)
            copy_document(bare)

        await bare(site, work)
        await level(site)
        assert await shadow.settled(60)
        await until(lambda: sum(relayed(shadow).values()) >= 10)
        counts = relayed(shadow)
        # Whether the delete of what is inserted at once again counts, depends on when it is looked at.
        assert counts.pop("deleted") in (2, 3)
        assert counts == {"changed": 2, "inserted": 4, "replaced": 2}
        assert total(shadow, "shadow_out_of_band_writes_total") == {}
        assert not await unverified(shadow)
        seen = (await shadow.admin.status())["relay"]["mongo"]
        assert seen["collections"][COLLECTION]["count"] >= 10
        assert (seen["fault"], seen["behind"] < 10) == ("", True)
        (gate,) = [each for each in gates_of([await shadow._engine.figures()]) if each.name == "writers"]
        assert not gate.ok
        assert "still active" in gate.look_at


async def test_what_was_written_while_nobody_relayed_is_relayed_by_the_next(site: Site) -> None:
    """The place in the stream outlives the process, and one that waits takes over from one that leaves."""
    async with relaying(site) as shadow:
        await begun(shadow, site)
        await shadow[COLLECTION].insert_many([{"_id": name, "n": 1} for name in ("a", "b", "c")])
        await site.level(shadow)
    await bare(site, lambda database: database[COLLECTION].update_one({"_id": "a"}, {"$set": {"n": 2}}))
    await bare(site, lambda database: database[COLLECTION].delete_one({"_id": "b"}))
    async with relaying(site) as second, relaying(site) as third:
        assert relay(third)["holder"] == relay(second)["holder"]
        await level(site)
        assert not await unverified(second)
        await second.close()
        await bare(site, lambda database: database[COLLECTION].update_one({"_id": "c"}, {"$set": {"n": 2}}))
        await level(site)
        assert relayed(third) == {"changed": 1}
        assert not await unverified(third)


def dropped(database: Database) -> None:
    database[COLLECTION].drop()


def renamed(database: Database) -> None:
    database[COLLECTION].rename("elsewhere")


def renamed_over(database: Database) -> None:
    database["draft"].insert_one({"_id": 1})
    database["draft"].rename(COLLECTION, dropTarget=True)


def written_out(database: Database) -> None:
    database["draft"].insert_one({"_id": 1})
    database["draft"].aggregate([{"$out": COLLECTION}])


def without_database(database: Database) -> None:
    database.client.drop_database(database.name)


async def test_where_the_stream_does_not_tell_every_document_the_collection_is_unverified(site: Site) -> None:
    """And it relays on after it, also behind the end of the stream that a dropped database brings."""
    for number, work in enumerate((dropped, renamed, renamed_over, written_out, without_database)):
        async with relaying(site) as shadow:
            await begun(shadow, site)
            await shadow[COLLECTION].insert_one({"_id": f"k{number}", "n": 1})
            assert await shadow.settled(60)
            assert not await unverified(shadow), work.__name__
            await bare(site, work)
            await becomes_unverified(shadow)
            before = relayed(shadow)
            await bare_writer(site).insert(f"after {number}")
            async with asyncio.timeout(60):
                while relayed(shadow) == before:  # noqa: ASYNC110 - nobody says when it is
                    await asyncio.sleep(0.05)


def aged(database: Database) -> str:
    """The place of an event in the stream, in 2001: its seconds are the four bytes after the first."""
    with database.watch(max_await_time_ms=100) as stream:
        database["draft"].insert_one({"_id": 1})
        token = str(next(stream)["_id"]["_data"])
    return token[:2] + "3b9aca00" + token[10:]


async def test_a_place_that_is_too_old_makes_the_collection_unverified(site: Site) -> None:
    async with relaying(site) as shadow:
        await begun(shadow, site)
    records = SqliteRecords(control_file(site))
    tokens = ["no token"]
    await bare(site, lambda database: tokens.append(aged(database)))
    for token in tokens:
        held = records.get("relay/mongo")
        assert held is not None
        value = {**held.value, "value": {**held.value["value"], "cursor": {"_data": token}}}
        assert records.put(held.key, value) is not None
        async with relaying(site) as shadow:
            await becomes_unverified(shadow)
            await begun(shadow, site)
            await bare_writer(site).insert(f"after {token}")
            await level(site)
    records.close()


@pytest.mark.timeout(600)
async def test_bare_writers_beside_the_shim_and_a_backfill_leave_both_stores_equal(site: Site) -> None:
    rng = random.Random(11)
    await bare(site, lambda db: db[COLLECTION].insert_many([{"_id": f"k{n}", "n": n} for n in range(200)]))

    def hand(database: Database) -> None:
        things = database[COLLECTION]
        for _ in range(150):
            key = f"k{rng.randrange(40)}"
            match rng.randrange(5):
                case 0:
                    things.delete_one({"_id": key})
                case 1:
                    things.replace_one({"_id": key}, {"n": rng.randrange(99)}, upsert=True)
                case 2:
                    found = things.find_one({"_id": key})
                    if found is not None:
                        things.replace_one({"_id": key}, {**found, "n": rng.randrange(99)})
                case _:
                    things.update_one({"_id": key}, {"$set": {"n": rng.randrange(99)}}, upsert=True)

    async def shim(things: Any) -> None:
        for _ in range(150):
            key = f"k{rng.randrange(40)}"
            match rng.randrange(4):
                case 0:
                    await things.delete_one({"_id": key})
                case 1:
                    await things.replace_one({"_id": key}, {"n": rng.randrange(99)}, upsert=True)
                case _:
                    await things.update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)

    async with relaying(site) as shadow:
        await begun(shadow, site)
        control = migration.control_of(site)
        copy = migration.backfill(shadow, control, batch=10, rate=100.0)
        _, _, job = await asyncio.gather(bare(site, hand), shim(shadow[COLLECTION]), copy)
        assert job.outcome == "complete"
        await level(site, 120)
        assert await shadow.settled(60)
        assert await site.disagreements() == []
        assert not await unverified(shadow)
        assert (await migration.verify(shadow, control)).clean
        control.close()


async def test_without_a_replica_set_it_says_what_to_do_before_anything_is_written(site: Site) -> None:
    with Standalone() as server:
        alone = site.but(mongo_url=server.url, driver="pymongo")
        settings = alone.settings()
        observe = settings.observe.model_copy(update={"follow_writers": True})
        shadow = Shadow(settings.model_copy(update={"observe": observe}))
        try:
            with pytest.raises(UnsupportedOperation, match="replSet"):
                await shadow.prepare()
            with MongoClient[dict[str, Any]](server.url) as client:
                # A control store that answers late has a marker made of that; it is no document.
                assert set(client[alone.database].list_collection_names()) <= {"shadow_witness"}
            await until(lambda: "no replica set" in relay(shadow)["fault"])
            gates = gates_of([await shadow._engine.figures()])
            (gate,) = [each for each in gates if each.name == "writers"]
            assert not gate.ok
            assert "no replica set" in gate.look_at
        finally:
            await shadow.close()
