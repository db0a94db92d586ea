"""Collections that are not plain: supported with every verb and job, or refused by name before anything is written."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from bson import Binary
from pymongo import MongoClient
from pymongo.client_options import ClientOptions
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from shadow import Shadow
from shadow.embedded.proxy import FaultProxy
from shadow.errors import ConfigurationError, UnsupportedOperation
from shadow.jobs.backfill import Backfill
from shadow.jobs.target import JobRefused
from shadow.jobs.verify import Scope, Verify
from shadow.model.phase import StoreName
from shadow.model.verdict import Healing
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.kinds import REASONS, Special
from shadow.stores.mongo.looks import MongoLooks
from tests.support.kinds import PLAIN, REFUSED
from tests.support.migration import backfill, control_of, verify
from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool
from tests.support.topologies import allow_past_validators, root_url

DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])
EITHER = pytest.mark.drawn_over("driver", reason="what a collection is, the server says to both in the same words")
PRIMARIES = pytest.mark.parametrize("primary", ["mongo", "dynamo"])

KINDS = pytest.mark.parametrize("special", REFUSED, ids=lambda each: each.replace(" ", "_"))


@pytest.fixture
def site(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> Site:
    journal, prefix = str(tmp_path / "shadow.db"), f"{fresh_name}-"
    return Site(mongo_url, mongo_database, dynamodb_local_url, prefix, journal, driver=driver, patience=10.0)


def made(site: Site, options: Mapping[str, Any]) -> None:
    with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
        client[site.database].command({"create": COLLECTION, **options})


def there(site: Site) -> list[dict[str, Any]]:
    with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
        return list(client[site.database][COLLECTION].find())


@contextlib.asynccontextmanager
async def running(site: Site, *, prepare: bool = True) -> AsyncIterator[Shadow]:
    async with site.shadow() as shadow:
        if prepare:
            await shadow.prepare()
        yield shadow


VERBS: Final[Mapping[str, Callable[[Any], Awaitable[Any]]]] = {
    "insert_one": lambda things: things.insert_one({"_id": "a"}),
    "insert_many": lambda things: things.insert_many([{"_id": "a"}, {"_id": "b"}]),
    "update_one": lambda things: things.update_one({"_id": "a"}, {"$set": {"n": 1}}, upsert=True),
    "update_by_filter": lambda things: things.update_one({"n": 1}, {"$set": {"n": 2}}, upsert=True),
    "replace_one": lambda things: things.replace_one({"_id": "a"}, {"n": 1}, upsert=True),
    "find_one_and_update": lambda things: things.find_one_and_update({"_id": "a"}, {"$set": {"n": 1}}, upsert=True),
}


# --- refused ----------------------------------------------------------------------------------------------------


@EITHER
@DRIVERS
@KINDS
@PRIMARIES
async def test_it_is_refused_at_start_and_at_each_write_with_the_reason_and_the_next_step(
    site: Site, special: Special, primary: str, caplog: pytest.LogCaptureFixture
) -> None:
    made(site, REFUSED[special])
    before = there(site)
    reason = REASONS[special].why.partition(",")[0]
    async with site.but(primary=primary).shadow() as shadow:
        with pytest.raises(UnsupportedOperation, match=f"{COLLECTION}.*{special}") as caught:
            await shadow.prepare()
        assert reason in caught.value.message
        assert "hint: " in str(caught.value)
        for verb in VERBS.values():
            with pytest.raises(UnsupportedOperation, match=special):
                await verb(shadow[COLLECTION])
        assert (await shadow.admin.journal_stats()).open == 0
        assert reason in (await shadow.admin.status())["refused"][COLLECTION]
        assert reason in (await shadow.admin.ready())[1][f"collection_{COLLECTION}"]
        for task in (Backfill(shadow.admin.sides(COLLECTION)), Verify(shadow.admin.sides(COLLECTION), Scope())):
            with pytest.raises(JobRefused, match=COLLECTION):
                await task.sides.check_kind()
    assert there(site) == before
    assert sum("collection.refused" in record.getMessage() for record in caplog.records) == 1


@EITHER
@DRIVERS
@KINDS
async def test_in_phase_off_every_call_is_the_drivers_own(site: Site, special: Special) -> None:
    made(site, REFUSED[special])
    async with running(site.but(phase="off")) as shadow:
        things = shadow[COLLECTION]
        if special is Special.VIEW:
            with pytest.raises(OperationFailure) as caught:
                await things.insert_one({"_id": "a"})
            assert caught.value.code == 166
            return
        if special is Special.TIME_SERIES:
            await things.insert_one({"_id": "a", "at": dt.datetime(2026, 1, 1)})
            assert await things.count_documents({}) == 1
            return
        await things.insert_one({"_id": "Alice", "n": 1})
        assert (await things.update_one({"_id": "Alice"}, {"$set": {"n": 2}})).modified_count == 1
        found = await things.find_one({"_id": "ALICE"})
        assert found == ({"_id": "Alice", "n": 2} if special is Special.COLLATION else None)
        if special is Special.COLLATION:
            with pytest.raises(DuplicateKeyError):
                await things.insert_one({"_id": "aLICE"})
            assert (await things.delete_one({"_id": "ALICE"})).deleted_count == 1
    assert all("_shadow" not in each for each in there(site))


@DRIVERS
async def test_one_that_is_made_again_as_another_kind_is_refused_from_the_next_look_on(site: Site) -> None:
    """The fleet's own look, before a flip and from time to time, and that of a job."""
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "Alice"})
        assert await shadow.settled(20)
        with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
            client[site.database].drop_collection(COLLECTION)
        made(site, REFUSED[Special.COLLATION])
        await things.insert_one({"_id": "Bob"})  # nobody has looked yet
        assert REASONS[Special.COLLATION].why in await shadow.admin.fleet.vouch([COLLECTION])
        with pytest.raises(UnsupportedOperation, match=Special.COLLATION):
            await things.insert_one({"_id": "Carol"})
        with pytest.raises(JobRefused, match=Special.COLLATION):
            await shadow.admin.sides(COLLECTION).check_kind()
        with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
            client[site.database].drop_collection(COLLECTION)
        await shadow.admin.sides(COLLECTION).check_kind()
        await things.insert_one({"_id": "Dora"})


async def unseen(_: MongoLooks, __: str) -> None:
    """A look that sees nothing."""


@DRIVERS
async def test_a_write_under_another_spelling_of_a_key_puts_the_collection_in_doubt(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that got a collation after it was looked at, and before the next look, which does not come here."""
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
            client[site.database].drop_collection(COLLECTION)
        monkeypatch.setattr(MongoLooks, "look", unseen)
        made(site, REFUSED[Special.COLLATION])
        await things.insert_one({"_id": "Alice", "n": 1})
        assert await shadow.settled(20)
        image = await shadow._engine.runtime().stores[StoreName.MONGO].image(COLLECTION, "ALICE")
        assert not image.present
        assert not shadow._engine.parts.journal.doubted
        assert (await things.delete_one({"_id": "ALICE"})).deleted_count == 1
        assert COLLECTION in shadow._engine.parts.journal.doubted
        assert (await shadow.admin.status())["journal"]["verify_since"][COLLECTION]


@EITHER
@DRIVERS
@KINDS
async def test_a_file_that_asks_for_dual_writes_of_one_changes_nothing(site: Site, special: Special) -> None:
    made(site, REFUSED[special])
    async with running(site.but(phase="off")) as shadow:
        wanted = site.but(phase="dual_write").settings()
        with pytest.raises(ConfigurationError, match=COLLECTION) as caught:
            await shadow._engine.reloading._check_kinds(wanted)
        assert special in str(caught.value)
        assert REASONS[special].why[:40] in str(caught.value)


DOUBTFUL: Final[Mapping[str, tuple[Mapping[str, Any], bool]]] = {
    "counts_fields": ({"$expr": {"$eq": [{"$size": {"$objectToArray": "$$ROOT"}}, 2]}}, True),
    "most_properties": ({"$jsonSchema": {"maxProperties": 2}}, True),
    "more_properties": ({"$jsonSchema": {"maxProperties": 3}}, False),
    "names_the_field": ({"_shadow": {"$exists": False}}, True),
    "one_of_two": ({"$or": [{"n": 1}, {"$jsonSchema": {"maxProperties": 2}}]}, False),
}
"""Validators of which reading does not tell; whether they refuse a version beside `_id` and `n: 1`."""


@EITHER
@DRIVERS
@pytest.mark.parametrize("name", DOUBTFUL)
async def test_a_validator_that_reading_does_not_judge_is_tried_on_documents(site: Site, name: str) -> None:
    validator, refuses = DOUBTFUL[name]
    made(site, {"validator": validator})
    async with running(site, prepare=False) as shadow:
        look = shadow._engine.runtime().stores[StoreName.MONGO].look  # type: ignore[attr-defined]
        assert await look(COLLECTION) is None  # there is nothing to try it on
        with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
            client[site.database][COLLECTION].insert_many([{"_id": each, "n": 1} for each in range(3)])
        unfit = await look(COLLECTION)
        assert (unfit is not None) is refuses
        assert unfit is None or (unfit.special is Special.VALIDATOR and "_shadow" in unfit.advice)


def test_a_name_of_the_servers_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"system\. are MongoDB's own"):
        Site("mongodb://host", "database", "http://host", "", "journal", collection="system.things").settings()


class _Encrypting(ClientOptions):
    auto_encryption_opts = property(lambda self: object())


@DRIVERS
async def test_a_client_that_encrypts_by_itself_is_refused(site: Site) -> None:
    """What shadow read through it would be in the clear. (The options alone: the driver's part of it is no library of
    ours.)"""
    client = connect(site.mongo_url, site.driver)
    inner = client.delegate if site.driver == "motor" else client
    inner.options.__class__ = _Encrypting
    try:
        async with Shadow(site.settings(), mongo_client=client) as shadow:
            with pytest.raises(UnsupportedOperation, match="auto_encryption_opts"):
                await shadow.prepare()
            with pytest.raises(UnsupportedOperation, match="ClientEncryption"):
                await shadow[COLLECTION].insert_one({"_id": "a"})
        async with Shadow(site.but(phase="off").settings(), mongo_client=client) as shadow:
            await shadow.prepare()
            await shadow[COLLECTION].insert_one({"_id": "a"})
    finally:
        closing = client.close()
        if closing is not None:
            await closing


@DRIVERS
async def test_a_user_who_may_not_see_what_a_collection_is_is_told_which_right_is_lacking(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    with MongoClient[dict[str, Any]](root_url(least_role_url)) as client:
        actions = ["find", "insert", "update", "remove", "createIndex"]
        may = [{"resource": {"db": least_role_database, "collection": ""}, "actions": actions}]
        client[least_role_database].command("createRole", "narrow", privileges=may, roles=[])
        role = {"role": "narrow", "db": least_role_database}
        client.admin.command("createUser", fresh_name, pwd="p", roles=[role])
        host, port = client.address
    url = f"mongodb://{fresh_name}:p@{host}:{port}/?directConnection=true&authSource=admin"
    journal = str(tmp_path / "shadow.db")
    site = Site(url, least_role_database, dynamodb_local_url, f"{fresh_name}-", journal, driver=driver, patience=10.0)
    async with site.shadow() as shadow:
        with pytest.raises(UnsupportedOperation, match="listCollections"):
            await shadow.prepare()


@DRIVERS
@pytest.mark.only_on("one", "auth", reason="a driver finds the members of a replica set behind a proxy's back")
async def test_a_secondary_that_does_not_answer_holds_no_write_up(
    site: Site, new_proxy: Callable[[str], FaultProxy]
) -> None:
    """What its collection is, is looked at behind the writes, and refused when it is known."""
    proxy = new_proxy(site.mongo_url)
    await prepared(site)
    mongo = site.but(mongo_url=proxy.url, primary="dynamo", limits={"write_deadline": 0.2})
    with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
        client[site.database].drop_collection(COLLECTION)
    made(site, REFUSED[Special.CAPPED])
    async with mongo.shadow() as shadow:
        things = shadow[COLLECTION]
        proxy.mode = "refuse"
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number in range(20):
            await things.insert_one({"_id": number})
        assert loop.time() - started < 5.0
        proxy.mode = "pass"
        shadow._engine.runtime().admission._not_before.clear()

        async def refused() -> bool:
            try:
                await things.insert_one({"_id": "more"})
            except DuplicateKeyError:
                return False
            except UnsupportedOperation as error:
                return Special.CAPPED in str(error)
            return False

        async with asyncio.timeout(30):
            while not await refused():  # noqa: ASYNC110 - a look wakes nobody
                await asyncio.sleep(0.05)


async def prepared(site: Site) -> None:
    """Its table is there, and no journal nor control store has heard of it."""
    async with running(site.but(phase="off", journal=f"{site.journal}-before")):
        pass


# --- supported --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "driver"), list(zip(PLAIN, itertools.cycle(["motor", "pymongo"]), strict=False)))
@PRIMARIES
async def test_every_verb_and_job_works(site: Site, primary: str, kind: str) -> None:
    site = site.but(primary=primary)
    made(site, PLAIN[kind])
    old = [{"_id": f"old{n}", "n": n} for n in range(5)]
    async with running(site.but(phase="off", journal=f"{site.journal}-before")) as shadow:
        await shadow[COLLECTION].insert_many(old)
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        with contextlib.closing(control_of(site)) as control:
            assert (await backfill(shadow, control)).outcome == "complete"
        for verb in VERBS.values():
            with contextlib.suppress(BulkWriteError):  # the key is there already
                await verb(things)
        await things.insert_one({"_id": 7, "n": 1.5})
        await things.update_many({"n": {"$gte": 1}}, {"$inc": {"n": 1}})
        await things.find_one_and_replace({"_id": "old1"}, {"n": 10})
        await things.delete_one({"_id": "a"})
        await things.delete_many({"n": {"$lt": 1}})
        await things.find_one_and_delete({"n": 10})
        await things.insert_one({"_id": "a", "n": 5})
        assert await things.count_documents({}) == len(await things.find({}, sort=[("_id", 1)]).to_list(None))
        await site.level(shadow)
        assert await shadow.admin.heal(COLLECTION, "a") is Healing.EQUAL
        with contextlib.closing(control_of(site)) as control:
            found = await verify(shadow, control)
            assert found.clean
            assert found.primary_documents == await things.count_documents({})


async def until_told(tool: Tool, refused: str, advice: str) -> None:
    """Each entry of the journal is named with its error and what to do; one of them may be under way again."""

    async def told() -> set[tuple[str | None, bool]]:
        entries = (await tool("journal", "list", "--json")).json["entries"]
        return {(each.get("refused"), advice in each.get("advice", "")) for each in entries}

    async with asyncio.timeout(60):
        while await told() != {(refused, True)}:  # noqa: ASYNC110 - the file wakes nobody
            await asyncio.sleep(0.1)


@DRIVERS
@pytest.mark.parametrize("mongo_url", ["auth"], indirect=True)
@pytest.mark.parametrize("level", ["strict", "moderate"])
async def test_what_a_validator_refuses_to_take_from_the_primary_is_named_until_the_right_is_there(
    site: Site, level: str, tmp_path: Path
) -> None:
    """It was set while both stores were written. Of the documents that it takes, none waits."""
    site = site.but(primary="dynamo")
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": n, "n": n} for n in range(3)])
        assert await shadow.settled(20)
        with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
            rule = {"n": {"$type": "number"}}
            client[site.database].command("collMod", COLLECTION, validator=rule, validationLevel=level)
        await things.update_one({"_id": 0}, {"$set": {"n": "zero"}})
        await things.insert_one({"_id": 3, "n": "three"})
        await things.delete_one({"_id": 1})
        await things.update_one({"_id": 2}, {"$inc": {"n": 1}})
        async with asyncio.timeout(60):
            while (await shadow.admin.journal_stats()).refused_by_collection != {COLLECTION: 3}:  # noqa: ASYNC110 - the file wakes nobody
                await asyncio.sleep(0.02)
        status = await shadow.admin.status()
        (gate,) = (each for each in status["verdict"]["gates"] if each["name"] == "journal")
        assert "3 of 3 open can never reach the secondary" in gate["said"]
        tool = Tool(site, tmp_path)
        await until_told(tool, "RefusedByValidator 121", "bypassDocumentValidation")
        with contextlib.closing(control_of(site)) as control:
            copied = await backfill(shadow, control)
            assert (copied.outcome, dict(copied.issues)) == ("incomplete", {"failed": 2})
            assert set(copied.reasons["failed"]) == {"RefusedByValidator 121"}
            assert not (await verify(shadow, control, patience=0.5)).clean
        allow_past_validators(site.mongo_url, site.database)
        for key in range(4):
            await shadow.admin.heal(COLLECTION, key)
        async with asyncio.timeout(60):
            await tool("journal", "heal", "--apply")
        await site.level(shadow)
        await things.update_one({"_id": 2}, {"$set": {"n": "two"}})
        await site.level(shadow)


@DRIVERS
async def test_what_a_unique_index_with_a_collation_refuses_is_named(site: Site, tmp_path: Path) -> None:
    """With DynamoDB as primary, which has none."""
    site = site.but(primary="dynamo")
    with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
        anyhow = {"locale": "en", "strength": 2}
        client[site.database][COLLECTION].create_index("email", unique=True, collation=anyhow)
    async with running(site) as shadow:
        things = shadow[COLLECTION]
        await things.insert_one({"_id": 1, "email": "Alice@example.org"})
        assert await shadow.settled(20)
        await things.insert_one({"_id": 2, "email": "alice@example.org"})
        async with asyncio.timeout(60):
            while (await shadow.admin.journal_stats()).refused_by_collection != {COLLECTION: 1}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await until_told(Tool(site, tmp_path), "DuplicateKeyError 11000", "same unique indexes")
        await things.update_one({"_id": 2}, {"$set": {"email": "bob@example.org"}})
        await site.level(shadow)


@DRIVERS
@PRIMARIES
async def test_values_that_the_application_has_encrypted_are_kept_as_they_are(site: Site, primary: str) -> None:
    hidden = Binary(bytes(range(64)), 6)
    async with running(site.but(primary=primary)) as shadow:
        await shadow[COLLECTION].insert_one({"_id": 1, "ssn": hidden, "in": {"deep": [hidden]}})
        assert await shadow[COLLECTION].find_one({"ssn": hidden}, {"_id": 1}) == {"_id": 1}
        await site.level(shadow)


# --- documents that expire ----------------------------------------------------------------------------------------


def expiring(site: Site, how: str) -> None:
    if how == "clustered":
        made(site, PLAIN["clustered_and_expiring"])
        return
    with MongoClient[dict[str, Any]](root_url(site.mongo_url)) as client:
        more = {} if how == "plain" else {"expireAfterSeconds": 10**9}
        client[site.database][COLLECTION].create_index("at", **more)


@pytest.mark.parametrize("driver", ["pymongo"])
@pytest.mark.parametrize(("how", "by"), [("index", "at"), ("clustered", "_id"), ("plain", None)])
@PRIMARIES
async def test_what_becomes_of_documents_that_expire_is_said_once_at_start(
    site: Site, primary: str, how: str, by: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The index by which tombstones go is shadow's own, and is not meant."""
    expiring(site, how)
    async with running(site.but(primary=primary)) as shadow:
        for _ in range(2):
            await shadow._engine._lacking_rights()
    told = [each.getMessage() for each in caplog.records if "collection.expiring" in each.getMessage()]
    assert len(told) == (0 if by is None else 1)
    for line in told:
        assert f'"path": "{by}"' in line
        assert ("finds them as extra" if primary == "mongo" else "finds them as missing") in line
