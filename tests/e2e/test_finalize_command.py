"""`shadow finalize` and the commands of the tables, as an operator types them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pymongo
import pytest
import yaml

from tests.e2e.test_migration_commands import Operator
from tests.support.migration import load
from tests.support.shadows import COLLECTION, Site

BOUNDED = ("operation", "write_deadline", "read_deadline")
"""The limits of which the first bounds the others."""


@pytest.fixture
def site(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> Site:
    return Site(least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))


def configure(operator: Operator, **more: Any) -> None:
    """Sections over those of the file."""
    settings = yaml.safe_load(operator.config.read_text())
    for name, section in more.items():
        settings[name] = {**settings.get(name, {}), **section}
    operator.config.write_text(yaml.safe_dump(settings))


@pytest.mark.slow
def test_the_end_of_a_migration(site: Site, tmp_path: Path) -> None:
    """Refused before its time, a dry run, and both stores: DynamoDB kept, MongoDB left behind. The documents stay."""
    operator = Operator(site, tmp_path)
    load(site, [{"_id": f"k{number}", "n": number} for number in range(40)])
    operator.run("tables", "create")
    operator.run("backfill")

    async def write() -> None:
        async with site.shadow() as shadow:
            await shadow[COLLECTION].update_many({"n": {"$lt": 10}}, {"$inc": {"n": 1000}})
            await shadow[COLLECTION].delete_many({"n": {"$gte": 10, "$lt": 15}})
            assert await shadow.settled(90)

    asyncio.run(write())
    refused = operator.run("finalize", COLLECTION, "--store", "dynamo", code=2)
    assert "in phase dual_write the versions on dynamo are needed" in refused

    # Two operations of at most 0.6 s are what a document has to be older than.
    configure(operator, defaults={"phase": "off", "primary": "dynamo"}, limits=dict.fromkeys(BOUNDED, 0.6))
    before = site.audit.documents(COLLECTION)
    (dry,) = _when_old(operator, "finalize", COLLECTION, "--store", "dynamo")
    assert (dry["applied"], dry["versions"], dry["tombstones"]) == (False, 35, 5)
    assert operator.run("finalize", "--store", "mongo") == (
        f"{COLLECTION}: complete; mongo: 10 versions to be removed, 0 tombstones to be deleted, 0 postponed, 0 left\n"
        "  dry run: nothing was changed; --apply makes the change\n"
    )
    (done,) = operator.json("finalize", "--store", "dynamo", "--apply", "--processes", "2")
    assert (done["applied"], done["outcome"], done["versions"], done["tombstones"]) == (True, "complete", 35, 5)
    (done,) = operator.json("finalize", "--store", "mongo", "--apply")
    assert (done["outcome"], done["versions"], done["left"]) == ("complete", 10, 0)
    (again,) = operator.json("finalize", "--store", "dynamo", "--apply")
    assert (again["outcome"], again["versions"], again["tombstones"]) == ("complete", 0, 0)

    assert site.audit.documents(COLLECTION) == before
    with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
        found = list(client[site.database][COLLECTION].find())
        assert all(set(each) == {"_id", "n"} for each in found)
        assert set(client[site.database][COLLECTION].index_information()) == {"_id_"}
    assert {row["kind"] for row in operator.json("jobs", "list")} >= {"finalize-dynamo", "finalize-mongo-dry"}


def _when_old(operator: Operator, *words: str) -> Any:
    """Runs it until nothing was written just now: exit code 1 says so."""
    while True:
        code, out, err = operator.ended(*words, "--json")
        assert code in (0, 1), err
        if code == 0:
            return json.loads(out)
        (left,) = json.loads(out)
        assert list(left["reasons"]) == ["young: written in the last 1.2 s"]


def test_what_was_written_just_now_is_said(site: Site, tmp_path: Path) -> None:
    """Exit code 1, and why; nothing was done to it."""
    operator = Operator(site, tmp_path)
    operator.run("tables", "create")

    async def write() -> None:
        async with site.shadow() as shadow:
            await shadow[COLLECTION].insert_one({"_id": "k"})
            assert await shadow.settled(90)

    asyncio.run(write())
    configure(operator, defaults={"phase": "off"}, limits={"operation": 60.0})
    assert operator.run("finalize", "--store", "dynamo", "--apply", code=1) == (
        f"{COLLECTION}: incomplete; dynamo: 0 versions removed, 0 tombstones deleted, 1 postponed, 1 left\n"
        "  young: written in the last 120 s: 1\n"
    )


TABLE = {"billing": "provisioned", "read": 3, "write": 4, "deletion_protection": True, "tags": {"team": "a"}}


def test_tables_are_waited_for_made_changed_and_held_against_the_configuration(site: Site, tmp_path: Path) -> None:
    """The journal's own table among them. What DynamoDB Local does not have is said and is no error."""
    operator, table, journal = Operator(site, tmp_path), f"{site.prefix}{COLLECTION}", f"{site.prefix}journal"
    configure(operator, journal={"url": f"dynamodb://{journal}"})
    assert operator.run("tables", "wait", "--timeout", "0", code=1) == f"{table}: MISSING\n" + (
        f"{journal}: MISSING, by_turn MISSING, by_age MISSING\n"
    )
    assert operator.json("tables", "plan", code=1) == {
        name: {"differences": ["is missing"], "lacking": []} for name in (table, journal)
    }
    assert operator.run("tables", "create") == f"prepared: {COLLECTION}\n"
    assert operator.run("tables", "plan") == f"{table}: as configured\n{journal}: as configured\n"
    states = operator.json("tables", "wait", "--timeout", "30")
    assert states[journal] == {
        "status": "ACTIVE", "indexes": {"by_turn": "ACTIVE", "by_age": "ACTIVE"}, "ready": True,
    }  # fmt: skip

    configure(operator, dynamo={"table": TABLE})
    planned = operator.run("tables", "plan", code=1)
    assert planned == (
        f"{table}: is billed on demand and not for provisioned capacity\n"
        f"{table}: is not protected against deletion\n"
        f"{table}: tags: this server does not support it\n"
        f"{journal}: is not protected against deletion\n"
        f"{journal}: tags: this server does not support it\n"
    )
    assert operator.run("tables", "create") == (
        f"prepared: {COLLECTION}\n"
        f"{table}: tags: this server does not support it\n{journal}: tags: this server does not support it\n"
    )
    planned = operator.run("tables", "plan")
    assert (
        planned == f"{table}: tags: this server does not support it\n{journal}: tags: this server does not support it\n"
    )
    configure(operator, dynamo={"table": {"deletion_protection": False}})
    operator.run("tables", "create")


def test_exports_have_the_journals_table(site: Site, tmp_path: Path) -> None:
    operator = Operator(site, tmp_path)
    configure(operator, journal={"url": "dynamodb://the-journal"}, dynamo={"table": TABLE})

    def exported(*words: str) -> Any:
        return yaml.safe_load(operator.run("tables", "export", *words))

    names = {f"{site.prefix}{COLLECTION}", "the-journal"}
    resources = exported("cloudformation")["Resources"].values()
    assert {each["Properties"]["TableName"] for each in resources} == names
    assert {each["name"] for each in exported("terraform")["resource"]["aws_dynamodb_table"].values()} == names
    titles = [each["Sid"] for each in exported("iam")["Statement"]]
    journal = ["ApplicationJournal", "ApplicationJournalIndexes", "ApplicationControl"]
    assert titles == ["ApplicationDocuments", "ApplicationBatches", *journal, "Reachable"]
    making = {each["Sid"] for each in exported("iam", "--for", "tables", "--for", "jobs")["Statement"]}
    assert {"TablesMade", "TablesMadeJournal", "TablesTaggedJournal", "JobsDocuments", "JobsJournal"} <= making
