"""`shadow journal` on real servers: what waits is shown, explained and healed, without a running application
and beside one, and a dry run changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from shadow import Shadow
from shadow.embedded.servers import free_port
from shadow.errors import JournalError
from shadow.journal.base import Entry
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.keytext import format_key
from shadow.model.verdict import Healing
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.mongo.store import MongoStore
from shadow.writes.replicator import Replicator
from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool

SECRET = "content-that-nobody-may-see"
JOURNAL = ("journal",)
OF_THINGS = ("--collection", COLLECTION)


@pytest.fixture(params=["mongo", "dynamo"])
def site(
    request: pytest.FixtureRequest,
    least_role_url: str,
    least_role_database: str,
    dynamodb_local_url: str,
    fresh_name: str,
    tmp_path: Path,
) -> Site:
    """Both stores; either is primary."""
    journal = str(tmp_path / "shadow.db")
    return Site(
        least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", journal, primary=request.param
    )


@pytest.fixture
def tool(site: Site, tmp_path: Path) -> Tool:
    return Tool(site, tmp_path)


def without_secondary(site: Site) -> Site:
    """The same site as an application sees it whose secondary is not there."""
    limits = {**site.limits, "write_deadline": 0.3, "drain": 0.5}
    if site.primary == "mongo":
        return site.but(dynamo_url=f"http://127.0.0.1:{free_port()}", limits=limits)
    nowhere = f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"
    return site.but(mongo_url=nowhere, limits=limits)


@contextlib.asynccontextmanager
async def running(site: Site) -> AsyncIterator[Shadow]:
    shadow = site.shadow()
    try:
        yield shadow
    finally:
        await shadow.close()


@pytest.fixture
async def owed(site: Site) -> dict[str, Any]:
    """Keys that the secondary is owed: one inserted, one updated, one deleted, all while it was away."""
    keys = {"inserted": ObjectId(), "updated": "text key", "deleted": "deleted"}
    async with running(site) as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many([{"_id": keys[name], "n": 1} for name in ("updated", "deleted")])
        await site.level(shadow)
    async with running(without_secondary(site)) as shadow:
        things = shadow[COLLECTION]
        await things.insert_one({"_id": keys["inserted"], "n": 1, "text": SECRET})
        await things.update_one({"_id": keys["updated"]}, {"$set": {"n": 2.5, "text": SECRET}})
        await things.delete_one({"_id": keys["deleted"]})
    return keys


@pytest.mark.takes_turns
async def test_what_waits_is_listed_oldest_first_and_bounded(site: Site, tool: Tool, owed: dict[str, Any]) -> None:
    """Hashes of keys unless they are asked for; counts are whole though the list is cut."""
    said = await tool(*JOURNAL, "list", "--json")
    assert said.code == 0
    found = said.json
    assert found["collections"] == {COLLECTION: {"open": 0, "deferred": 3}}
    assert all(each["key"].startswith("#") and each["state"] == "deferred" for each in found["entries"])
    shown = (await tool(*JOURNAL, "list", "--json", "--show-keys")).json["entries"]
    assert [each["key"] for each in shown] == [format_key(owed[name]) for name in ("inserted", "updated", "deleted")]
    cut = (await tool(*JOURNAL, "list", "--json", "--limit", "1")).json
    assert (len(cut["entries"]), cut["more"]) == (1, 2)
    text = await tool(*JOURNAL, "list")
    assert f"{COLLECTION}: 0 open, 3 deferred" in text.out


async def test_a_dry_run_says_what_a_heal_would_do_and_changes_nothing(
    site: Site, tool: Tool, owed: dict[str, Any]
) -> None:
    before = len(await site.disagreements())
    said = await tool(*JOURNAL, "heal", "--json")
    assert said.code == 1, said.out
    assert said.json["endings"] == {"copied": 2, "tombstoned": 1}
    assert (said.json["applied"], said.json["remaining"]) == (False, 3)
    assert len(await site.disagreements()) == before == 3
    assert (await tool(*JOURNAL, "list", "--json")).json["collections"][COLLECTION]["deferred"] == 3
    text = await tool(*JOURNAL, "heal")
    other = "dynamo" if site.primary == "mongo" else "mongo"
    assert f"{COLLECTION} ({site.primary} -> {other}): 2 would be copied, 1 would get a tombstone" in text.out


@pytest.mark.takes_turns
async def test_applied_it_makes_both_stores_equal_and_empties_the_journal(
    site: Site, tool: Tool, owed: dict[str, Any]
) -> None:
    said = await tool.program(*JOURNAL, "heal", "--apply", "--json")
    assert said.code == 0, said.out + said.err
    assert said.json["endings"] == {"copied": 2, "tombstoned": 1}
    assert await site.disagreements() == []
    assert (await tool(*JOURNAL, "list", "--json")).json == {
        "collections": {},
        "oldest_seconds": 0.0,
        "more": 0,
        "entries": [],
    }
    again = await tool(*JOURNAL, "heal", "--apply", *OF_THINGS)
    assert (again.code, again.out) == (0, "the journal has no such entry\n")


MANY = 130


@pytest.mark.parametrize("by", ["upkeep", "order"])
@pytest.mark.takes_turns
async def test_many_keys_are_healed_in_few_requests(site: Site, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Inserted, changed and deleted while the secondary was away: no key is read or put by a request of its own."""
    async with running(site) as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many([{"_id": n, "n": 1} for n in range(MANY)])
        await site.level(shadow)
    async with running(without_secondary(site)) as shadow:
        things = shadow[COLLECTION]
        await things.update_many({"_id": {"$lt": MANY // 2}}, {"$inc": {"n": 1}})
        await things.delete_many({"_id": {"$gte": MANY - 10}})
        await things.insert_many([{"_id": MANY + n, "n": 1} for n in range(10)])
    if by == "order":  # two that heal the same keys at the same time would leave some to each other

        async def nothing(self: Replicator) -> int:
            return 0

        monkeypatch.setattr(Replicator, "recover", nothing)
    asked: Counter[str] = Counter()
    for store in (MongoStore, DynamoStore):
        for name in ("image", "lasting_images", "copy_many"):
            monkeypatch.setattr(store, name, _counted(asked, getattr(store, name)))
    async with running(site.but(limits={**site.limits, "write_deadline": 10.0})) as shadow:
        if by == "upkeep":
            await site.level(shadow)
        else:
            report = await shadow.admin.inspector().heal(apply=True)
            assert report.endings == {Healing.COPIED: MANY // 2 + 10, Healing.TOMBSTONED: 10}
            assert (await shadow.admin.journal_stats()).open == 0
    assert await site.disagreements() == []
    assert asked["image"] == 0
    assert asked["lasting_images"] <= 12
    assert asked["copy_many"] <= 4


def _counted(asked: Counter[str], method: Any) -> Any:
    async def ask(*arguments: Any) -> Any:
        asked[method.__name__] += 1
        return await method(*arguments)

    return ask


async def test_one_key_alone_can_be_healed(site: Site, tool: Tool, owed: dict[str, Any]) -> None:
    said = await tool(*JOURNAL, "heal", format_key(owed["inserted"]), *OF_THINGS, "--apply", "--json")
    assert (said.code, said.json["endings"]) == (0, {"copied": 1})
    assert {each.key for each in await site.disagreements()} == {owed["updated"], owed["deleted"]}


@pytest.mark.takes_turns
async def test_one_key_is_explained_by_versions_paths_and_types_without_values(
    site: Site, tool: Tool, owed: dict[str, Any]
) -> None:
    said = await tool(*JOURNAL, "explain", owed["updated"], *OF_THINGS, "--json")
    assert said.code == 1
    assert SECRET not in said.out
    found = said.json
    assert found["primary"]["state"].endswith("@2")
    assert found["secondary"]["state"].endswith("@1")
    assert {(each["path"], each["kind"]) for each in found["differences"]} == {
        ("n", "type"),
        ("text", "missing_in_secondary"),
    }
    (entry,) = found["journal"]
    assert (entry["state"], entry["generation"]) == ("deferred", 1)
    assert (found["heal"], found["settles"], found["equal"]) == ("copy", True, False)
    inserted = (await tool(*JOURNAL, "explain", f'{{"$oid": "{owed["inserted"]}"}}', *OF_THINGS, "--json")).json
    assert (inserted["secondary"]["state"], inserted["heal"]) == ("absent", "copy")
    deleted = await tool(*JOURNAL, "explain", owed["deleted"], *OF_THINGS)
    assert "repair     put a tombstone into the secondary" in deleted.out
    assert "settles    yes, by the next repair" in deleted.out
    await tool(*JOURNAL, "heal", "--apply")
    level = await tool(*JOURNAL, "explain", owed["updated"], *OF_THINGS, "--json")
    assert (level.code, level.json["equal"], level.json["waits"]) == (0, True, "nothing_held")
    gone = (await tool(*JOURNAL, "explain", owed["deleted"], *OF_THINGS, "--json")).json
    assert (gone["primary"]["state"], gone["secondary"]["state"]) == ("absent", "tombstone")


@pytest.mark.takes_turns
@pytest.mark.parametrize("kind", ["mongodb", "dynamodb"])
async def test_a_journal_on_a_server_is_listed_explained_and_healed_alike(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, kind: str
) -> None:
    """The secondary is away; the journal, wherever it is, is not."""
    journal = "mongodb:///" if kind == "mongodb" else f"dynamodb://{fresh_name}-journal"
    primary = "mongo" if kind == "mongodb" else "dynamo"
    site = Site(least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", journal, primary=primary)
    async with running(site) as shadow:
        await shadow.prepare()
    async with running(without_secondary(site)) as shadow:
        await shadow[COLLECTION].insert_one({"_id": "k", "text": SECRET})
    tool = Tool(site, tmp_path)
    assert (await tool(*JOURNAL, "list", "--json")).json["collections"] == {COLLECTION: {"open": 0, "deferred": 1}}
    found = (await tool(*JOURNAL, "explain", "k", *OF_THINGS, "--json")).json
    assert (found["heal"], found["settles"]) == ("copy", True)
    said = await tool(*JOURNAL, "heal", "--apply", "--json")
    assert (said.code, said.json["endings"]) == (0, {"copied": 1})
    assert await site.disagreements() == []
    assert (await tool(*JOURNAL, "list", "--json")).json["entries"] == []


async def test_the_operation_of_a_living_process_is_left_to_it(site: Site, tool: Tool) -> None:
    """An intent that is young, and whose owner lives, is neither healed nor settled; the reason is said."""
    async with running(site) as shadow:
        await shadow.prepare()
    journal = SqliteJournal(FileSettings(Path(site.journal)))
    await journal.open([Entry("op", COLLECTION, "k")])
    try:
        said = await tool(*JOURNAL, "heal", "--apply", "--json")
        assert (said.code, said.json["endings"]) == (1, {"in_flight": 1})
        found = (await tool(*JOURNAL, "explain", "k", *OF_THINGS, "--json")).json
        assert (found["waits"], found["settles"]) == ("in_flight", False)
        assert [each["op_id"] for each in found["journal"]] == ["op"]
        assert found["journal"][0]["owner_dead"] is False
        assert await journal.has_open(COLLECTION, "k")
        journal.defer("op", unknown=True)
        await journal.flush()
        unknown = (await tool(*JOURNAL, "explain", "k", *OF_THINGS, "--json")).json
        assert (unknown["waits"], unknown["settles"]) == ("unknown_outcome", False)
        healed = await tool(*JOURNAL, "heal", "--apply", "--json")
        assert (healed.code, healed.json["endings"]) == (1, {"unsettled": 1})
        assert await journal.has_open(COLLECTION, "k")
    finally:
        journal.shut()


@pytest.mark.takes_turns
async def test_beside_a_running_application_under_load_nothing_is_lost(site: Site, tmp_path: Path) -> None:
    """Heals run again and again while hot keys are changed: both stores end equal and every increment counts."""
    # Four writers take turns at each key, beside the heals: on a busy machine that takes its time.
    site = site.but(limits={**site.limits, "operation": 120.0})
    tool = Tool(site, tmp_path)
    async with running(site) as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": f"hot{n}", "n": 0} for n in range(5)])
        ended = asyncio.Event()

        async def work(worker: int) -> int:
            for n in range(60):
                await things.update_one({"_id": f"hot{(n + worker) % 5}"}, {"$inc": {"n": 1}})
            return 60

        async def heal() -> int:
            runs = 0
            while not ended.is_set():
                said = await tool(*JOURNAL, "heal", "--apply", "--json")
                assert "failed" not in said.json["endings"]
                runs += 1
            return runs

        healing = asyncio.create_task(heal())
        made = sum(await asyncio.gather(*(work(each) for each in range(4))))
        ended.set()
        assert await healing >= 1
        await site.level(shadow)
        assert sum(document["n"] for document in (await site.documents()).values()) == made


async def test_a_secondary_ahead_of_its_primary_is_never_overwritten(
    site: Site, tool: Tool, owed: dict[str, Any], tmp_path: Path
) -> None:
    """A configuration that names the wrong primary: the older document is not put over the newer one."""
    other = "dynamo" if site.primary == "mongo" else "mongo"
    folder = tmp_path / "turned"
    folder.mkdir()
    turned = Tool(site.but(primary=other), folder)
    said = await turned(*JOURNAL, "heal", owed["updated"], *OF_THINGS, "--apply", "--json")
    assert (said.code, said.json["endings"]) == (1, {"reversed": 1})
    explained = (await turned(*JOURNAL, "explain", owed["updated"], *OF_THINGS, "--json")).json
    assert (explained["heal"], explained["waits"]) == ("refuse", "reversed")
    documents = await site.documents()
    assert documents[site.digest(owed["updated"])]["n"] == 2.5


@pytest.mark.takes_turns
async def test_a_store_that_does_not_answer_is_one_error_and_exit_code_3(
    site: Site, owed: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    tool = Tool(without_secondary(site), folder)
    said = await tool.program(*JOURNAL, "heal", "--apply")
    assert said.code == 3
    assert "does not answer" in said.err
    assert "Traceback" not in said.err


async def test_wrong_use_is_said_and_no_journal_is_made(site: Site, tool: Tool) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        await tool(*JOURNAL, "list")
    assert not Path(site.journal).exists()
    async with running(site) as shadow:
        await shadow._engine.start()
        await shadow.admin.journal_stats()
    for arguments, reason in {
        ("repair", "list"): "shadow journal list",
        (*JOURNAL, "list", "--apply"): "No such option",
        (*JOURNAL, "explain", "k"): "--collection",
        (*JOURNAL, "heal", "k"): "a key needs its collection",
        (*JOURNAL, "list", "k", *OF_THINGS): "unexpected extra argument",
        ("repair", "--journal", "list", "--apply"): "--apply works with `heal`",
        ("repair", "--journal", "explain", "k"): "a key needs its collection",
        ("repair", "--journal", "list", "k", *OF_THINGS): "list takes no key",
        (*JOURNAL, "explain", "ObjectId(1)", *OF_THINGS): "24 hexadecimal digits",
        (*JOURNAL, "list", "--collection", "nobody"): "not in",
    }.items():
        said = await tool(*arguments)
        assert said.code == 2, arguments
        assert reason in said.err
