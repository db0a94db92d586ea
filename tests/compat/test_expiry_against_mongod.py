"""Documents that expire: what the real monitor of MongoDB deletes is what shadow hides, on both stores and with each
primary; what either store deletes by itself is no difference."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import pymongo
import pytest
from bson import DatetimeMS, Decimal128, MinKey, Timestamp
from pymongo.errors import DuplicateKeyError

from shadow import Shadow
from shadow.model.expiry import hide, renew, unexpired
from shadow.model.operation import Query
from shadow.model.phase import StoreName
from shadow.model.reads import Aggregate, Count, Distinct, FindOne, Read
from shadow.model.schema import ExpirySpec
from shadow.model.version import ABSENT, Image, Version, fresh_id
from shadow.mongoql.expiry import MARGIN, delete_after, has_expired
from shadow.reads import bypass_watch
from tests.contract.test_sessions import session_of, transaction
from tests.support import drawn, services
from tests.support.drawn import Draw
from tests.support.migration import backfill, control_of, verify
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import MAKERS, admit, root_url

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.one_deployment("each is a server whose monitor comes by more often than that of one that others share"),
]

AFTER: Final = 3600
NOW: Final = dt.datetime.now(dt.UTC).replace(tzinfo=None)
GONE: Final = NOW - dt.timedelta(seconds=2 * AFTER)
LATER: Final = NOW + dt.timedelta(days=1)
VALUES: Final[list[Any]] = [
    *(GONE, LATER, NOW, [GONE, LATER], [LATER, LATER], [LATER, "x", GONE], [], ["x", 5], None, "2001-01-01", 5, 5.5),
    *(True, {"t": GONE}, [{"t": GONE}], [[GONE]], Timestamp(1, 1), Decimal128("1"), MinKey(), dt.datetime(1, 1, 1)),
    *(DatetimeMS(-(2**50)), DatetimeMS(2**50), [DatetimeMS(-(2**50)), LATER], dt.datetime(9999, 12, 31)),
]


@pytest.fixture(scope="module")
def mongo_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """What was drawn, of one's own: its monitor runs every second."""
    chosen: Draw = request.param
    extra = ("--setParameter", "ttlMonitorSleepSecs=1")
    with services.start(lambda: MAKERS[chosen.deployment](extra=extra)) as server:
        made = chosen.url(server.url)
        yield made
        drawn.forget(made)


@pytest.fixture(scope="module")
def fast_monitor(mongo_url: str) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        yield client


def wait_for_a_whole_pass(client: pymongo.MongoClient[dict[str, Any]]) -> None:
    """Returns when the monitor has come by all collections since this was called: it was under way at most once then,
    and has ended twice since."""

    def passes() -> int:
        return int(client.admin.command("serverStatus")["metrics"]["ttl"]["passes"])

    begun, deadline = passes(), time.monotonic() + 90
    while passes() < begun + 2:
        assert time.monotonic() < deadline, "the monitor does not come by"
        time.sleep(0.5)  # the answer is a large one


def test_what_the_monitor_deletes_is_what_has_expired(
    fast_monitor: pymongo.MongoClient[dict[str, Any]], fresh_name: str
) -> None:
    database = fast_monitor[fresh_name]
    for field in ("at", "in.at"):
        expiry, things = ExpirySpec(field, AFTER), database[field]
        things.create_index(field, expireAfterSeconds=AFTER)
        wrap = (lambda value: {"in": {"at": value}}) if "." in field else (lambda value: {"at": value})
        documents = [{"_id": number, **wrap(value)} for number, value in enumerate(VALUES)]
        documents += [{"_id": "missing"}, {"_id": "of many", "in": [{"at": GONE}, {"at": LATER}], "at": GONE}]
        things.insert_many(documents)
        expected = {each["_id"] for each in documents if has_expired(expiry, each)}
        wait_for_a_whole_pass(fast_monitor)
        left = {each["_id"] for each in things.find({}, {"_id": 1})}
        assert left == {each["_id"] for each in documents} - expected
        assert 4 <= len(expected) < len(documents) - 4
        assert {each["_id"] for each in things.find(unexpired(expiry, {}, time.time()), {"_id": 1})} == left
        for each in documents:
            at = delete_after(expiry, each)
            assert (at is not None and at - MARGIN <= time.time()) == (each["_id"] in expected), each
    fast_monitor.drop_database(fresh_name)


READS: Final[list[Read]] = [
    FindOne(Query({"a": 1})), FindOne(Query({})), Count({}), Count({"$or": [{"a": 1}, {"b": 1}]}), Aggregate([]),
    Distinct("a", {"b": 1}), Aggregate([{"$match": {"a": 1}}, {"$count": "n"}]), Aggregate([{"$group": {"_id": "$a"}}]),
]  # fmt: skip


@pytest.mark.parametrize("read", READS)
def test_a_read_is_asked_again_for_a_later_time_and_means_the_same_otherwise(read: Read) -> None:
    expiry = ExpirySpec("at", 5)
    assert renew(expiry, hide(expiry, read, 1_000.0), 2_000.0) == hide(expiry, read, 2_000.0) != read


@pytest.mark.parametrize("read", [Count({}, estimated=True), Aggregate([{"$geoNear": {"near": [0, 0]}}])])
def test_what_cannot_be_narrowed_is_left_as_it_is(read: Read) -> None:
    assert hide(ExpirySpec("at", 5), read, 1_000.0) == read


@pytest.fixture(params=["mongo", "dynamo"])
def site(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> Site:
    admit(mongo_url, fresh_name)
    return Site(
        mongo_url, fresh_name, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"), request.param,
        "shadow", limits={"write_deadline": 5.0, "read_deadline": 5.0},
        options={"expires": {"field": "at", "after": AFTER}, "unique": ["mail"]},
    )  # fmt: skip


@pytest.fixture
async def shadow(site: Site, fast_monitor: pymongo.MongoClient[dict[str, Any]]) -> AsyncIterator[Shadow]:
    async with site.shadow() as shadow:
        await shadow.prepare()
        yield shadow
        assert await shadow.settled(30)
    fast_monitor.drop_database(site.database)


def pause_monitor(client: pymongo.MongoClient[dict[str, Any]], paused: bool) -> None:
    client.admin.command("setParameter", 1, ttlMonitorEnabled=not paused)


async def seen(things: Any) -> list[Any]:
    """The keys, as every read shows them."""
    found = sorted([each["_id"] async for each in things.find({}, {"_id": 1})])
    assert await things.count_documents({}) == len(found)
    assert sorted(await things.distinct("_id")) == found
    assert sorted([each["_id"] async for each in things.aggregate([{"$project": {"_id": 1}}])]) == found
    assert [(await things.find_one({"_id": key}) is not None) for key in (1, 2, 3)] == [
        key in found for key in (1, 2, 3)
    ]
    return found


async def test_what_has_expired_is_seen_on_neither_store_and_its_deletion_is_no_difference(
    site: Site, shadow: Shadow, fast_monitor: pymongo.MongoClient[dict[str, Any]]
) -> None:
    things, raw = shadow[COLLECTION], fast_monitor[site.database][COLLECTION]
    pause_monitor(fast_monitor, True)
    try:
        soon = NOW.replace(microsecond=0) - dt.timedelta(seconds=AFTER)
        await things.insert_many([{"_id": 1, "at": GONE, "mail": 1}, {"_id": 2, "at": LATER, "mail": 2}])
        await things.insert_one({"_id": 3, "at": soon, "mail": 3})
        if site.primary == "mongo":
            await things.create_index("at", expireAfterSeconds=AFTER)
            assert (await shadow.admin.status())["lost_indexes"] == {}
        else:
            raw.create_index("at", expireAfterSeconds=AFTER)
        assert await shadow.settled(30)
        assert await seen(things) == [2]
        assert raw.count_documents({"_id": {"$in": [1, 3]}}) == 2
    finally:
        pause_monitor(fast_monitor, False)
    async with asyncio.timeout(90):
        while raw.count_documents({"_id": {"$in": [1, 3]}}):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    assert await seen(things) == [2]
    control = control_of(site)
    found = await verify(shadow, control, patience=10.0)
    assert (found.outcome, found.extra, found.missing, found.undecided) == ("equal", 0, 0, 0)
    assert control.jobs()[0].counts.get("expired", 0) >= 2
    await things.delete_many({})
    control.close()
    assert await shadow.settled(30)
    status = await shadow.admin.status()
    assert (status["findings"]["open"], status["bypassing"]) == (0, {})
    assert not status["totals"]["verdicts"].get("mismatch")


async def test_a_date_that_moves_on_before_the_deletion_keeps_the_document(site: Site, shadow: Shadow) -> None:
    """On MongoDB an expired document stays until the monitor comes by, and may be changed; on DynamoDB it is gone."""
    things = shadow[COLLECTION]
    await things.insert_one({"_id": 1, "at": LATER, "mail": 1})
    for moment in (NOW, LATER + dt.timedelta(days=5)):
        await things.update_one({"_id": 1}, {"$set": {"at": moment}})
        assert await things.find_one({"_id": 1}) == {
            "_id": 1,
            "at": moment.replace(microsecond=moment.microsecond // 1000 * 1000),
            "mail": 1,
        }
    await things.update_one({"_id": 1}, {"$set": {"at": GONE}})
    assert await things.find_one({"_id": 1}) is None
    changed = await things.update_one({"_id": 1}, {"$set": {"at": LATER}})
    assert changed.matched_count == (1 if site.primary == "mongo" else 0)
    await site.level(shadow)


@pytest.mark.parametrize("site", ["dynamo"], indirect=True)
async def test_what_has_expired_gives_way_to_what_comes_after_it(
    site: Site, shadow: Shadow, fast_monitor: pymongo.MongoClient[dict[str, Any]]
) -> None:
    """Its key and its unique values, for inserts of every kind; no write finds it."""
    things = shadow[COLLECTION]
    fast_monitor[site.database][COLLECTION].create_index("at", expireAfterSeconds=AFTER)

    async def old(*keys: int) -> None:
        await things.insert_many([{"_id": key, "at": LATER, "mail": key, "n": 5} for key in keys])
        await things.update_many({"_id": {"$in": list(keys)}}, {"$set": {"at": GONE}})

    await old(1, 2, 3, 4, 5, 6)
    await things.insert_one({"_id": 1, "at": LATER, "mail": 1})
    await things.update_one({"_id": 2}, {"$inc": {"n": 1}, "$set": {"at": LATER}}, upsert=True)
    await things.insert_many([{"_id": 10, "mail": 3}, {"_id": 4, "mail": 40}])
    replaced = await things.find_one_and_update({"mail": 5}, {"$set": {"n": 1}}, upsert=True)
    assert replaced is None
    assert (await things.delete_one({"_id": 6})).deleted_count == 0
    assert (await things.update_many({"n": 5}, {"$set": {"n": 6}})).matched_count == 0
    assert (await things.delete_many({"n": 5})).deleted_count == 0
    with pytest.raises(DuplicateKeyError):
        await things.insert_one({"_id": 11, "mail": 3})
    assert (await things.find_one({"_id": 2}))["n"] == 1
    assert await things.find_one({"_id": 4}) == {"_id": 4, "mail": 40}
    await things.insert_one({"_id": 12, "mail": 4})  # released with the document that had it
    assert await shadow.settled(60)
    control = control_of(site)
    assert (await verify(shadow, control, patience=10.0)).clean
    control.close()


@pytest.mark.parametrize("site", ["dynamo"], indirect=True)
async def test_a_late_copy_does_not_take_the_place_of_what_the_monitor_has_deleted(
    site: Site, shadow: Shadow, fast_monitor: pymongo.MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB as the secondary leaves no tombstone where its monitor deletes. A copy of an older version, on its way
    since before all that, must not find the place free: that version would stay until somebody verifies."""
    things, raw = shadow[COLLECTION], fast_monitor[site.database][COLLECTION]
    raw.create_index("at", expireAfterSeconds=AFTER)
    store: Any = shadow._engine.runtime().stores[StoreName.MONGO]
    old = Image(Version(fresh_id(), 1), {"_id": 1, "at": LATER, "mail": 1, "n": "old"})
    on_its_way, arrives, put = asyncio.Event(), asyncio.Event(), store._put

    async def put_late(collection: str, key: Any, image: Image, expected: Any) -> bool:
        if image.state == old.state:
            on_its_way.set()
            await arrives.wait()
        return bool(await put(collection, key, image, expected))

    monkeypatch.setattr(store, "_put", put_late)
    late = asyncio.create_task(store.put(COLLECTION, 1, old, ABSENT))
    await on_its_way.wait()
    await things.insert_one({"_id": 1, "at": LATER, "mail": 1, "n": "new"})
    assert await shadow.settled(30)
    assert raw.find_one({"_id": 1}, {"n": 1}) == {"_id": 1, "n": "new"}
    await things.update_one({"_id": 1}, {"$set": {"at": GONE}})
    async with asyncio.timeout(90):
        while raw.find_one({"_id": 1}) is not None:  # noqa: ASYNC110 - the monitor wakes nobody
            await asyncio.sleep(0.2)
    arrives.set()
    assert not await late
    assert (await store.image(COLLECTION, 1)).state == ABSENT
    assert await shadow.settled(30)
    await things.insert_one({"_id": 1, "at": LATER, "mail": 1, "n": "newest"})
    await site.level(shadow)


async def test_a_unique_value_passes_on_from_what_has_expired(
    site: Site, shadow: Shadow, fast_monitor: pymongo.MongoClient[dict[str, Any]]
) -> None:
    """One store has deleted the document that held it, or lets another one have it, and the other still has both: in
    replication, repair, backfill, verification, and in a transaction."""
    things, raw = shadow[COLLECTION], fast_monitor[site.database][COLLECTION]
    pause_monitor(fast_monitor, True)
    try:
        await things.insert_many([{"_id": key, "at": LATER, "mail": key} for key in range(1, 8)])
        await things.update_many({}, {"$set": {"at": GONE}})
        await site.level(shadow)
        if site.primary == "mongo":
            raw.delete_many({"_id": {"$lt": 7}})  # as its monitor does; it has not come to the last one
        await things.insert_one({"_id": 11, "mail": 1})
        await things.insert_many([{"_id": 12, "mail": 2}])
        assert await shadow.settled(20)
        async with session_of(shadow) as session, transaction(session):
            assert sorted(each["_id"] for each in await things.find({}, session=session).to_list(None)) == [11, 12]
            assert await things.find_one({"_id": 7}, session=session) is None
            assert await things.count_documents({}, session=session) == 2
            await things.insert_one({"_id": 13, "mail": 3}, session=session)
            await things.insert_one({"_id": 4, "mail": 40}, session=session)
            await things.insert_one({"_id": 1, "mail": 41}, session=session)  # 11 has what it held
            assert (await things.update_one({"mail": 5}, {"$set": {"n": 6}}, session=session)).matched_count == 0
            assert (await things.delete_many({"_id": 6}, session=session)).deleted_count == 0
            found = await things.update_many({"mail": 7}, {"$set": {"n": 6}}, session=session)
            assert found.matched_count == (1 if site.primary == "mongo" else 0)
        assert await shadow.settled(20)
        live = {1: 41, 4: 40, 11: 1, 12: 2, 13: 3}
        assert {each["_id"]: each["mail"] async for each in things.find({})} == live
        control = control_of(site)
        assert (await verify(shadow, control, patience=10.0)).clean
        if site.primary == "dynamo":
            await asyncio.to_thread(raw.delete_many, {})
            await backfill(shadow, control)
            assert await shadow.settled(20)
            assert (await verify(shadow, control, patience=10.0)).clean
            assert {each["_id"] for each in raw.find({"mail": {"$exists": True}})} >= live.keys()
        control.close()
        status = await shadow.admin.status()
        assert status["findings"]["open"] == 0
        assert not status["totals"]["verdicts"].get("mismatch")
    finally:
        pause_monitor(fast_monitor, False)


async def test_dynamodb_deletes_by_its_own_ttl_a_day_later_and_the_rule_may_change(site: Site, shadow: Shadow) -> None:
    things = shadow[COLLECTION]
    await things.insert_many([{"_id": 1, "at": LATER, "mail": 1}, {"_id": 2, "mail": 2}])
    large = {"_id": 3, "at": [LATER, GONE], "mail": 3, "text": "x" * 600_000}
    await things.insert_one(large)
    await things.update_one({"_id": 1}, {"$set": {"at": LATER + dt.timedelta(hours=1)}})
    assert await shadow.settled(30)

    def marks() -> dict[str, int | None]:
        client = boto3.client(
            "dynamodb", endpoint_url=site.dynamo_url, region_name="us-east-1", aws_access_key_id="local",
            aws_secret_access_key="local",
        )  # fmt: skip
        found = client.scan(TableName=f"{site.prefix}{COLLECTION}")["Items"]
        items = [each for each in found if "b" in each["_shadow"]["M"]]
        return {each["_id"]["S"]: int(each["_shadow_ttl"]["N"]) if "_shadow_ttl" in each else None for each in items}

    def at(moment: dt.datetime, after: int) -> int:
        return int(moment.replace(tzinfo=dt.UTC, microsecond=0).timestamp()) + after + MARGIN

    moved = LATER + dt.timedelta(hours=1)
    before = await asyncio.to_thread(marks)
    assert sorted(each for each in before.values() if each) == sorted([at(GONE, AFTER), at(moved, AFTER)])
    assert len(before) == 3
    other = site.but(options={**site.options, "expires": {"field": "at", "after": 60}})
    async with other.shadow() as changed:
        store = changed._engine.runtime().stores[StoreName.DYNAMO]
        await store.prepare(other.settings().specs().values())
    after = await asyncio.to_thread(marks)
    assert sorted(each for each in after.values() if each) == sorted([at(GONE, 60), at(moved, 60)])


@pytest.mark.parametrize("site", ["mongo"], indirect=True)
async def test_the_watch_knows_the_monitors_deletions(
    site: Site, fast_monitor: pymongo.MongoClient[dict[str, Any]]
) -> None:
    """A delete by hand of a document that has not expired is reported as ever."""
    if "setName" not in fast_monitor.admin.command("hello"):
        pytest.skip("a server that is no member of a set tells nobody of changes")
    made = site.settings()
    made = made.model_copy(update={"observe": made.observe.model_copy(update={"watch_writers": True})})
    async with Shadow(made) as shadow:
        await shadow.prepare()
        things, raw = shadow[COLLECTION], fast_monitor[site.database][COLLECTION]
        await things.insert_many([{"_id": 1, "at": GONE, "mail": 1}, {"_id": 2, "at": LATER, "mail": 2}])
        assert await shadow.settled(30)

        def kinds() -> dict[str, int]:
            found: dict[str, int] = shadow.admin.report.bypassing.status().get(COLLECTION, {}).get("kinds", {})
            return found

        async with asyncio.timeout(90):
            beginnings = 0
            while not kinds():  # it sees what is written from now on
                beginnings += 1
                raw.insert_one({"_id": f"beginning {beginnings}"})
                await asyncio.sleep(0.1)
        raw.delete_one({"_id": 1})
        raw.delete_one({"_id": 2})
        await until(lambda: "deleted" in kinds(), timeout=90)
        # Deletes are taken up in their order and examined beside one another: the first one, too, is through.
        watch = shadow._engine.writer_watch
        assert watch is not None
        await until(lambda: watch._gate._value == bypass_watch._DELETES, timeout=90)
        assert kinds()["deleted"] == 1
    fast_monitor.drop_database(site.database)
