"""A process that starts with another primary than the one under which the journal's entries were written.

Somebody edits `primary` and restarts while writes are still to be followed: they are healed from the store that has
them, and the flip is made after that, like any other.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from shadow import Shadow
from shadow.embedded.servers import FaultProxy, Mode
from shadow.errors import JournalError
from shadow.model.phase import StoreName
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

NewProxy = Callable[[str], FaultProxy]
OTHER = {"mongo": "dynamo", "dynamo": "mongo"}


async def left_behind(site: Site, new_proxy: NewProxy) -> None:
    """Writes that the primary has and the secondary does not, a deletion among them; their process has ended."""
    proxy = new_proxy(site.dynamo_url if site.primary == "mongo" else site.mongo_url)
    through = site.but(mongo_url=proxy.url) if site.primary == "dynamo" else site.but(dynamo_url=proxy.url)
    async with through.but(limits={"drain": 0.3}).shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": "changed", "n": 1}, {"_id": "gone", "n": 1}])
        assert await shadow.settled(90)
        proxy.set(Mode.REFUSE, only=b"" if site.primary == "mongo" else b"_shadow")
        await things.insert_one({"_id": "new", "n": 1})
        await things.update_one({"_id": "changed"}, {"$inc": {"n": 1}})
        await things.delete_one({"_id": "gone"})


def noted(site: Site) -> list[tuple[str, str]]:
    with sqlite3.connect(site.journal) as journal:
        return journal.execute(f"SELECT collection, name FROM primaries WHERE collection = '{COLLECTION}'").fetchall()


def primary_of(shadow: Shadow) -> StoreName:
    return shadow.admin.routes()[COLLECTION].primary


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_what_was_to_be_followed_goes_the_way_it_came(site: Site, new_proxy: NewProxy, primary: str) -> None:
    site = site.but(primary=primary)
    await left_behind(site, new_proxy)
    async with site.but(primary=OTHER[primary]).shadow() as shadow:
        things = shadow[COLLECTION]
        found = {each["_id"]: each["n"] async for each in things.find({})}
        assert found == {"new": 1, "changed": 2}, "answered by the store that has the writes"
        await things.update_one({"_id": "new"}, {"$inc": {"n": 1}})
        await until(lambda: primary_of(shadow) == OTHER[primary])
        await things.update_one({"_id": "new"}, {"$inc": {"n": 1}})
        await site.level(shadow)
        assert {each["_id"]: each["n"] async for each in things.find({})} == {"new": 3, "changed": 2}


async def test_the_flip_is_remembered_by_the_next_process(site: Site, new_proxy: NewProxy) -> None:
    await left_behind(site, new_proxy)
    async with site.but(primary="dynamo").shadow() as shadow:
        await shadow[COLLECTION].find_one({"_id": "new"})
        await until(lambda: primary_of(shadow) is StoreName.DYNAMO)
    assert noted(site) == [(COLLECTION, "dynamo")]
    async with site.shadow() as shadow:
        await shadow[COLLECTION].find_one({"_id": "new"})
        await until(lambda: primary_of(shadow) is StoreName.MONGO)
        done = b'shadow_flips_total{collection="things",result="done"} 1.0'
        await until(lambda: done in shadow.admin.metrics()[0])
        await site.level(shadow)
    assert noted(site) == [(COLLECTION, "mongo")]


async def test_a_tool_heals_the_way_that_is_remembered_and_changes_nothing(site: Site, new_proxy: NewProxy) -> None:
    await left_behind(site, new_proxy)
    async with Shadow(site.but(primary="dynamo").settings(), passive=True) as tool:
        async with asyncio.timeout(90):
            while (await tool.admin.journal_stats()).open:
                await tool.admin.inspector().heal(apply=True)
        assert primary_of(tool) is StoreName.MONGO
        await site.level(tool)
        assert site.digest("new") in await site.documents()
    assert noted(site) == [(COLLECTION, "mongo")]


async def test_no_write_before_the_primary_is_known(site: Site, tmp_path: Path) -> None:
    """With no journal to ask, a write could go to the store that lags; a read is answered all the same."""
    blocked = tmp_path / "no-folder"
    blocked.write_text("a file where the journal's folder should be")
    async with site.but(journal=str(blocked / "shadow.db")).shadow() as shadow:
        with pytest.raises(JournalError):
            await shadow[COLLECTION].insert_one({"_id": 1})
        assert await shadow[COLLECTION].find_one({"_id": 1}) is None
        blocked.unlink()
        await shadow.prepare()

        async def written() -> bool:
            try:
                await shadow[COLLECTION].insert_one({"_id": 1})
            except JournalError:
                return False
            return True

        for _ in range(200):
            if await written():
                break
        await site.level(shadow)
