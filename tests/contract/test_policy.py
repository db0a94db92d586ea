"""The rights in the exported policy are those that the requests of the code want: not one less, and not one more."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiobotocore.client
import botocore.client
import pymongo
import pytest
from pymongo.errors import DuplicateKeyError
from typer.testing import CliRunner

from shadow import Shadow
from shadow.cli import tables
from shadow.config import Settings
from shadow.control import flip_record as routing
from shadow.control.dynamo import control_description
from shadow.control.flip_record import Routing
from shadow.jobs.backfill import Backfill
from shadow.jobs.finalize import Finalize
from shadow.jobs.plan_file import write_plan
from shadow.jobs.repair import apply_plan
from shadow.jobs.verify import Scope, Verify
from shadow.jobs.work import JobPace, Work
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec, IndexSpec, TableSpec, UniqueSpec
from shadow.model.version import ABSENT, Image, Version, fresh_id
from shadow.stores.dynamo.client.wire import OPERATIONS, Wire
from shadow.stores.dynamo.tables.policy import Use, iam_policy
from shadow.stores.dynamo.tables.spec import TableDefinition, collection_table, plain_table
from tests.support.migration import OpenJobs
from tests.support.pair import until

LARGE = random.Random(1).randbytes(500_000)

Rights = set[tuple[str, str]]
"""Actions with what they are done to: a table, `table/index`, or `*`."""

_OF_A_TEST = re.compile(r"t[0-9a-f]{12}-").match
"""Whether the table's name begins as those of every test do."""


class Recorder:
    """Every request of every client of AWS's in this process, as the rights that it wants; but not those of objects
    that another test has left to be closed, for tables of its own."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.wanted: Rights = set()
        self.on = True
        self.iterators: dict[str, str] = {}
        """The tables of the iterators of streams, which name none."""

    def note(self, operation: str, parameters: dict[str, Any]) -> None:
        if self.on:
            rights = _rights(operation, parameters, self.iterators)
            self.wanted |= {each for each in rights if each[1].startswith(self.database) or not _OF_A_TEST(each[1])}

    def answered(self, parameters: dict[str, Any], answer: dict[str, Any]) -> None:
        table = self.iterators.get(parameters.get("ShardIterator", ""), _streaming(parameters))
        for name in ("ShardIterator", "NextShardIterator"):
            if name in answer:
                self.iterators[answer[name]] = table

    @contextmanager
    def off(self) -> Iterator[None]:
        self.on = False
        yield
        self.on = True


def _streaming(parameters: dict[str, Any]) -> str:
    """The table of a stream."""
    return str(parameters.get("StreamArn", "")).partition(":table/")[2].partition("/")[0]


def _rights(operation: str, parameters: dict[str, Any], iterators: dict[str, str]) -> Iterator[tuple[str, str]]:
    """As the Service Authorization Reference has it."""
    table = str(parameters.get("TableName", ""))
    match operation:
        case "BatchExecuteStatement":
            for each in parameters["Statements"]:
                made = re.match(r'(INSERT INTO|UPDATE) "([^"]+)"', each["Statement"])
                assert made is not None
                yield "PartiQLUpdate" if made[1] == "UPDATE" else "PartiQLInsert", made[2]
        case "TransactWriteItems":
            names = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
            for action in parameters["TransactItems"]:
                ((kind, inner),) = action.items()
                yield names.get(kind, "ConditionCheckItem"), inner["TableName"]
        case "BatchGetItem" | "BatchWriteItem":
            yield from ((operation, name) for name in parameters["RequestItems"])
        case "DescribeStream" | "GetShardIterator":
            yield operation, f"{_streaming(parameters)}/stream"
        case "GetRecords":
            yield operation, f"{iterators[parameters['ShardIterator']]}/stream"
        case "ListTables":
            yield operation, "*"
        case "Query" if "IndexName" in parameters:
            yield operation, f"{table}/{parameters['IndexName']}"
        case "ListTagsOfResource" | "TagResource":
            yield operation, parameters["ResourceArn"].rpartition("/")[2]
        case _:
            yield operation, table


def granted(policy: dict[str, Any]) -> Rights:
    rights: Rights = set()
    for statement in policy["Statement"]:
        resources = statement["Resource"]
        for arn in ["*"] if resources == "*" else resources:
            name = arn.partition(":table/")[2].replace("/index/", "/").replace("/stream/*", "/stream") or "*"
            rights |= {(action.removeprefix("dynamodb:"), name) for action in statement["Action"]}
    return rights


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, mongo_database: str) -> Recorder:
    made = Recorder(mongo_database)
    plain = botocore.client.BaseClient._make_api_call

    def call(self: Any, operation: str, parameters: Any) -> Any:
        made.note(operation, parameters)
        return plain(self, operation, parameters)

    awaited = aiobotocore.client.AioBaseClient._make_api_call

    async def call_later(self: Any, operation: str, parameters: Any) -> Any:
        made.note(operation, parameters)
        answer = await awaited(self, operation, parameters)
        made.answered(parameters, answer)
        return answer

    straight = Wire.call

    async def call_straight(self: Wire, verb: str, parameters: Any) -> Any:
        made.note(OPERATIONS[verb], parameters)
        return await straight(self, verb, parameters)

    monkeypatch.setattr(Wire, "call", call_straight)
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", call_later)
    return made


class Site:
    def __init__(self, folder: Path, mongo_url: str, database: str, dynamo_url: str) -> None:
        self.folder, self.mongo_url, self.database, self.dynamo_url = folder, mongo_url, database, dynamo_url

    def settings(self, table: dict[str, Any] | None = None, **entries: dict[str, Any]) -> Settings:
        return Settings(
            mongo={"url": self.mongo_url, "database": self.database, "driver": "pymongo"},
            dynamo={
                "endpoint_url": self.dynamo_url,
                "table_prefix": f"{self.database}-",
                "access_key_id": "local",
                "secret_access_key": "local",
                "table": table or {},
            },
            journal={"url": f"dynamodb://{self.database}-journal"},
            control={"url": f"dynamodb://{self.database}-control"},
            limits={
                "recover_every": 0.3,
                "settle": 0.05,
                "write_deadline": 20.0,
                "read_deadline": 20.0,
                "loop_lag": 0,
                "operation": 10.0,
            },
            observe={"canary_every": 3600},
            defaults={"phase": "shadow"},
            collections={**COLLECTIONS, **entries},
        )

    def policy(self, settings: Settings, *uses: Use) -> dict[str, Any]:
        return iam_policy(
            tables._collections(settings),
            uses,
            region=settings.dynamo.region,
            journal=tables._journal(settings),
            control=tables._control(settings),
        )

    @property
    def control(self) -> OpenJobs:
        return OpenJobs(self.settings().control_place().open())


COLLECTIONS: dict[str, dict[str, Any]] = {
    "users": {"indexes": [{"name": "email-index", "hash": "email"}], "unique": ["email"]},
    "logs": {},
}


@pytest.fixture
def site(tmp_path: Path, mongo_url: str, mongo_database: str, dynamodb_local_url: str) -> Site:
    return Site(tmp_path, mongo_url, mongo_database, dynamodb_local_url)


@asynccontextmanager
async def quietly(recorder: Recorder, settings: Settings) -> AsyncIterator[Shadow]:
    """A shadow of somebody else's."""
    with recorder.off():
        async with Shadow(settings) as shadow:
            yield shadow


async def use(things: Any) -> None:
    """What an application does, as far as DynamoDB is asked differently for it."""
    await things.insert_one({"_id": "a", "email": "a", "n": 1})
    await things.insert_many([{"_id": f"m{n}", "email": f"m{n}"} for n in range(5)])
    await things.insert_many([{"_id": f"u{n}", "email": f"u{n}"} for n in range(5)], ordered=False)
    await things.update_one({"_id": "a"}, {"$set": {"n": 2}})
    await things.update_many({"n": {"$gt": 1}}, {"$push": {"list": 1}})
    await things.replace_one({"_id": "a"}, {"email": "b"})
    await things.insert_one({"_id": "large", "email": "large", "data": LARGE})
    assert (await things.find_one({"_id": "large"}))["data"] == LARGE
    await things.update_one({"_id": "large"}, {"$set": {"n": 1}})
    assert len(await things.find({"_id": {"$in": ["a", "m1", "u1"]}}).to_list(None)) == 3
    assert len(await things.find({"email": "m1"}).to_list(None)) == 1
    assert await things.count_documents({"email": {"$exists": True}}) == 12
    await things.delete_many({})


def following(settings: Settings) -> Settings:
    observe = settings.observe.model_copy(update={"follow_writers": True})
    return settings.model_copy(update={"observe": observe})


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_application_has_the_rights_that_it_uses(site: Site, recorder: Recorder) -> None:
    """On either primary, in the shadow, with large documents, a write that waits in the journal, and a look at it."""
    settings = following(site.settings(gone={}))
    async with quietly(recorder, following(site.settings())) as other:
        await other.prepare()
    for primary in ("mongo", "dynamo"):
        entries = {name: {**each, "primary": primary} for name, each in COLLECTIONS.items()}
        used = following(site.settings(**entries, gone={}))
        if primary == "dynamo":
            async with quietly(recorder, settings) as other:
                for name in COLLECTIONS:
                    await other._engine.parts.journal.set_primary(name, primary)
                await asyncio.to_thread(routing.change, other.admin.fleet.records, _placed_on_dynamo)
        async with Shadow(used) as shadow:
            if primary == "mongo":
                await shadow["gone"].insert_one({"_id": "k"})
                await _until_deferred(shadow)
                with recorder.off():
                    await shadow._engine.runtime().stores[StoreName.DYNAMO].prepare([CollectionSpec("gone")])
            for name in COLLECTIONS:
                await use(shadow[name])
                assert await shadow.settled(60), await shadow.admin.status()
                await shadow._engine.runtime().stores[StoreName.DYNAMO].sweep_if_due(name, 0.0)  # type: ignore[attr-defined]
            await use(shadow["gone"])
            await shadow.admin.ready()
            await shadow.admin.status()
            assert await shadow.settled(60)
    wanted = granted(site.policy(settings, Use.APPLICATION))
    gone = f"{site.database}-gone"
    assert _split(recorder.wanted, gone)[0] == _split(wanted, gone)[0]
    assert _split(recorder.wanted, gone)[1] <= _split(wanted, gone)[1]


def _split(rights: Rights, table: str) -> tuple[Rights, Rights]:
    of_it = {each for each in rights if each[1].partition("/")[0] == table}
    return rights - of_it, of_it


async def _until_deferred(shadow: Shadow) -> None:
    async with asyncio.timeout(60):
        while not (await shadow.admin.journal_stats()).deferred_by_collection.get("gone"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await shadow.admin.journal_entries()


@pytest.mark.timeout(120)
async def test_a_constraint_that_the_application_declares_wants_one_right_more(site: Site, recorder: Recorder) -> None:
    settings = site.settings()
    async with quietly(recorder, settings) as other:
        await other.prepare()
        for n in range(3):
            await other["logs"].insert_one({"_id": n, "name": n})
        assert await other.settled(20)
    async with Shadow(settings) as shadow:
        await shadow["logs"].create_index("name", unique=True)
        with pytest.raises(DuplicateKeyError):
            await shadow["logs"].insert_one({"name": 1})
    table = f"{site.database}-logs"
    more = {("ConditionCheckItem", table)}
    assert more <= recorder.wanted <= granted(site.policy(settings, Use.APPLICATION, Use.UNIQUE))
    every = {(action, f"{site.database}-{name}") for action, _ in more for name in COLLECTIONS}
    assert granted(site.policy(settings, Use.UNIQUE)) == every


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_jobs_have_the_rights_that_they_use(site: Site, recorder: Recorder) -> None:
    """All of them, over a collection with unique values and one without."""
    settings = site.settings()
    async with quietly(recorder, settings) as other:
        await other.prepare()
        # It begins with writes to one store, unless the control store answers at once.
        await until(lambda: all(each.dual_write for each in other._engine.routes().values()))
        for name in COLLECTIONS:
            await other[name].insert_one({"_id": "gone", "email": "gone"})
            await other[name].delete_one({"_id": "gone"})
            assert await other.settled(20)
    with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
        for name in COLLECTIONS:
            documents = [{"_id": n, "email": f"{n}"} for n in range(30)]
            large = {"_id": "large", "email": "large", "data": LARGE}
            client[site.database][name].insert_many([*documents, large])
    control = site.control
    async with Shadow(settings) as shadow:
        store: Any = shadow._engine.runtime().stores[StoreName.DYNAMO]
        for name in COLLECTIONS:
            sides = shadow.admin.sides(name)
            work = Work(Backfill(sides), control, JobPace(workers=2))
            assert (await work.run()).outcome == "complete"
            await work._answers()
            with recorder.off():
                extra = Image(Version(fresh_id(), 1), {"_id": "extra", "email": "extra"})
                await store.put(name, "extra", extra, ABSENT)
                await store._writer.delete_keys(store._table(name), ["large"])
            job = await Work(Verify(sides, Scope()), control, JobPace(workers=2)).run()
            plan = site.folder / f"{name}.jsonl"
            with plan.open("w") as file:
                write_plan(file, control, job)
            with (site.folder / f"{name}.undo").open("w") as log:
                counts = await apply_plan(sides, plan, log=lambda: log)
            assert (counts["copied"], counts["deleted"]) == (1, 1)
            await store.sweep(name)
            await store.check_unique(name)
            await shadow.admin.inspector().entries(10)
        assert await shadow.settled(20)
    off = settings.model_copy(update={"defaults": settings.defaults.model_copy(update={"phase": "off"})})
    async with Shadow(off) as shadow:
        for name in COLLECTIONS:
            task = Finalize(shadow.admin.sides(name), StoreName.DYNAMO, apply=True, older_than=0.0)
            assert (await Work(task, control, JobPace(workers=2)).run()).counts["tombstones"] == 2
    control.close()
    _hold(recorder.wanted, granted(site.policy(settings, Use.JOBS)), site)


def _placed_on_dynamo(seen: Routing) -> Routing:
    here = {name: dataclasses.replace(seen.placed[name], primary=StoreName.DYNAMO) for name in COLLECTIONS}
    return seen.with_placed(here)


def _control_table(name: str, table: TableSpec) -> TableDefinition:
    return plain_table(control_description(name), table)


def _hold(used: Rights, given: Rights, site: Site) -> None:
    """Of the journal's table it is enough that nothing is missing: which of its requests come, is a matter of time."""
    journal = f"{site.database}-journal"
    assert used <= given, used - given
    left = {each for each in given - used if not each[1].startswith(journal)}
    assert left == set()


OPTIONS = {
    "billing": "provisioned",
    "read": 5,
    "write": 5,
    "point_in_time_recovery": True,
    "deletion_protection": True,
    "tags": {"team": "a"},
}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_making_tables_has_the_rights_that_it_uses(
    site: Site, recorder: Recorder, ministack_url: str, tmp_path: Path
) -> None:
    """From nothing; then an index and a constraint over documents that are there, and every option. On ministack,
    which has them all."""
    site.dynamo_url = ministack_url
    bare = site.settings(users={})
    await _make(bare)
    async with quietly(recorder, bare) as other:
        for document in ({"_id": "list", "email": ["x"]}, {"_id": "large", "email": "large", "data": LARGE}):
            await other["users"].insert_one(document)
        assert await other.settled(30)
    full = site.settings(OPTIONS)
    await _make(full)
    assert all(not differences for differences, _ in (await _make(full)).values())
    _same(recorder.wanted, granted(site.policy(full, Use.TABLES)))


async def _make(settings: Settings) -> Any:
    """As `shadow tables create`, `plan` and `wait` do."""
    async with Shadow(settings, passive=True) as shadow:
        await shadow.prepare(journal=False)
        store: Any = shadow._engine.runtime().stores[StoreName.DYNAMO]
        for wanted in tables._others(settings):
            await store.manager.prepare(wanted)
        await store.manager.states(tables._wanted(settings))
        return await store.manager.drift(tables._wanted(settings))


def _same(used: Rights, given: Rights) -> None:
    assert (used - given, given - used) == (set(), set())


# --- what follows from the configuration alone ------------------------------------------------------------------

USERS = CollectionSpec("users", (IndexSpec("email-index", "email"),), (UniqueSpec("u", ("email",)),))


def policy(*uses: Use, region: str = "eu-west-1", spec: CollectionSpec = USERS, **more: Any) -> dict[str, Any]:
    return iam_policy({"p-users": (collection_table("p-users", spec), spec)}, uses, region=region, **more)


def test_the_policy_is_about_these_tables_alone() -> None:
    """The region's, by name; nothing but the question whether DynamoDB answers is about all. Nobody may delete one."""
    control = _control_table("p-control", TableSpec())
    for statement in policy(*Use, control=control)["Statement"]:
        if statement["Sid"] != "Reachable":
            arns = re.compile(r"arn:aws:dynamodb:eu-west-1:\*:table/p-(users(/index/email-index)?|control)")
            assert all(arns.fullmatch(each) for each in statement["Resource"])
        assert not any("DeleteTable" in each or "*" in each for each in statement["Action"])


def test_statements_have_names_that_differ() -> None:
    journal, control = (_control_table(name, TableSpec()) for name in ("p-journal", "p-control"))
    titles = [each["Sid"] for each in policy(*Use, journal=journal, control=control)["Statement"]]
    assert len(titles) == len(set(titles))
    assert all(each.isalnum() for each in titles)


def test_a_feature_that_nobody_configured_gives_no_right() -> None:
    """Recovery, tags, indexes, constraints, a change of billing."""
    plain = CollectionSpec("users")
    rights = {action for action, _ in granted(policy(Use.TABLES, spec=plain))}
    assert rights == {"CreateTable", "DescribeTable", "DescribeTimeToLive", "UpdateTimeToLive"}
    tagged = replace(plain, table=TableSpec(tags=(("a", "b"),), point_in_time_recovery=False))
    more = {action for action, _ in granted(policy(Use.TABLES, spec=tagged))} - rights
    assert more == {"DescribeContinuousBackups", "ListTagsOfResource", "TagResource", "UpdateContinuousBackups"}
    protected = replace(plain, table=TableSpec(deletion_protection=True))
    assert {action for action, _ in granted(policy(Use.TABLES, spec=protected))} - rights == {"UpdateTable"}
    assert "Query" not in {action for action, _ in granted(policy(Use.APPLICATION, spec=plain))}


def test_the_use_of_a_control_store_is_in_the_policy_where_there_is_one() -> None:
    control = _control_table("p-control", TableSpec())
    rights = granted(policy(Use.APPLICATION, control=control)) - granted(policy(Use.APPLICATION))
    assert {table for _, table in rights} == {"p-control"}


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_resources_are_named_in_the_regions_part_of_aws(region: str, partition: str) -> None:
    (first, *_) = policy(Use.APPLICATION, region=region)["Statement"]
    assert first["Resource"] == [f"arn:{partition}:dynamodb:{region}:*:table/p-users"]


def test_streams_are_read_also_where_somebody_else_switches_them_on(tmp_path: Path) -> None:
    """Then no right to change the table is needed for it."""
    text = (
        "mongo: {url: 'mongodb://host', database: app}\nobserve: {follow_writers: true}\n"
        "dynamo: {region: eu-west-1}\ncollections: {users: {table: {stream: false}}, logs: }\n"
    )
    (tmp_path / "shadow.yaml").write_text(text)
    said = CliRunner().invoke(
        tables.app, ["export", "iam", "-c", str(tmp_path / "shadow.yaml"), "--for", "application", "--for", "tables"]
    )
    found = granted(json.loads(said.output))
    for name in ("users", "logs"):
        read = {(action, f"{name}/stream") for action in ("DescribeStream", "GetRecords", "GetShardIterator")}
        assert read == {each for each in found if each[1].startswith(f"{name}/")}
    assert [each for each in found if each[0] == "UpdateTable"] == [("UpdateTable", "logs")]
