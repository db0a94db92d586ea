"""A document that the secondary can never hold: told apart from one that waits, named with what to do, and in the way
of a flip until it is changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import WriteError

from shadow import Shadow
from shadow.journal.base import Entry
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool

JOURNAL = ("journal",)
OF_THINGS = ("--collection", COLLECTION)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    return Site(mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))


async def until_refused(shadow: Shadow) -> None:
    async with asyncio.timeout(90):
        while not (await shadow.admin.journal_stats()).refused_by_collection:  # noqa: ASYNC110 - the file wakes nobody
            await asyncio.sleep(0.02)


async def journal_gate(shadow: Shadow) -> dict[str, Any]:
    status = await shadow.admin.status()
    assert status["journal"]["refused"] == {COLLECTION: 1}
    (gate,) = (each for each in status["verdict"]["gates"] if each["name"] == "journal")
    return dict(gate)


async def check_told(site: Site, shadow: Shadow, folder: Path, key: str, error: str, what: str) -> None:
    """By the gate, by a flip that is forced, and by each verb of `journal`."""
    tool = Tool(site, folder, collections={COLLECTION: site.options})
    gate = await journal_gate(shadow)
    assert not gate["ok"]
    assert "1 of 1 open can never reach the secondary" in gate["said"]
    assert "shadow journal list" in gate["look_at"]
    to = "dynamo" if site.primary == "mongo" else "mongo"
    flipped = await shadow.admin.flip(COLLECTION, to, "a test")  # type: ignore[arg-type]
    assert not flipped["done"]
    listed = await tool(*JOURNAL, "list", "--json")
    (entry,) = listed.json["entries"]
    assert (entry["state"], entry["refused"]) == ("refused", error)
    assert what in entry["advice"]
    assert what in " ".join((await tool(*JOURNAL, "list")).out.split())
    explained = await tool(*JOURNAL, "explain", key, *OF_THINGS, "--json")
    assert explained.code == 1
    assert (explained.json["waits"], explained.json["refused"]) == ("refused", error)
    assert what in (await tool(*JOURNAL, "explain", key, *OF_THINGS)).out
    dry = await tool(*JOURNAL, "heal", "--json")
    assert (dry.code, dry.json["endings"]) == (1, {"refused": 1})
    done = await tool(*JOURNAL, "heal", "--apply")
    assert done.code == 1
    assert "refused by the secondary" in done.out
    assert what in done.out


async def test_mongodb_cannot_hold_what_dynamodb_has(site: Site, tmp_path: Path) -> None:
    """It was written while DynamoDB was alone. A change that leaves it so is refused; one that mends it heals it."""
    site = site.but(primary="dynamo")
    async with site.but(phase="off").shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": "deep", "v": deep(190)})
    await owed(site, "deep")
    async with site.shadow() as shadow:
        await until_refused(shadow)
        await check_told(
            site,
            shadow,
            tmp_path,
            "deep",
            "WriteError 15",
            "180 levels",
        )
        with pytest.raises(WriteError) as caught:
            await shadow[COLLECTION].update_one({"_id": "deep"}, {"$set": {"n": 1}})
        assert caught.value.code == 15
        await shadow[COLLECTION].update_one({"_id": "deep"}, {"$set": {"v": "flat"}})
        await site.level(shadow)
        assert (await shadow.admin.status())["journal"]["refused"] == {}


async def test_dynamodb_cannot_hold_what_an_update_has_made_on_mongodb(site: Site, tmp_path: Path) -> None:
    """Nobody knows before MongoDB has done it."""
    site = site.but(options={"unique": ["tags"]})
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "tagged", "tags": [f"t{n}" for n in range(60)]})
        await site.level(shadow)
        await things.update_one({"_id": "tagged"}, {"$push": {"tags": {"$each": [f"u{n}" for n in range(101)]}}})
        await until_refused(shadow)
        await check_told(
            site,
            shadow,
            tmp_path,
            "tagged",
            "WriteError 2",
            "both stores can hold",
        )
        await things.update_one({"_id": "tagged"}, {"$push": {"tags": {"$each": [], "$slice": 70}}})
        await site.level(shadow)


async def owed(site: Site, key: str) -> None:
    """The journal has an entry for the key, as after an outage."""
    journal = SqliteJournal(FileSettings(Path(site.journal), limit=10.0))
    await journal.open([Entry("op", COLLECTION, key)])
    journal.defer("op")
    await journal.flush()
    journal.shut()
