"""A transaction that another process has open: shadow reads and verify never count its keys, before its commit and
while what it changed is replicated."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.test_crash import join
from tests.support.migration import control_of, verify
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import spawn

KEYS: Final = ("inc", "twice", "old", "new")


def transact(site: Site, opened: str, go: str) -> None:
    """Opens a transaction, says so, and commits when it is told to."""

    async def run() -> None:
        async with site.shadow() as shadow:
            things = shadow[COLLECTION]
            async with shadow.client.start_session() as session:
                await session.start_transaction()
                await things.update_one({"_id": "inc"}, {"$inc": {"n": 1}}, session=session)
                await things.update_one({"_id": "twice"}, {"$inc": {"n": 1}}, session=session)
                await things.update_one({"_id": "twice"}, {"$inc": {"n": 1}}, session=session)
                await things.delete_one({"_id": "old"}, session=session)
                await things.insert_one({"_id": "new", "n": 1}, session=session)
                Path(opened).touch()
                while not Path(go).exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(0.02)
                await session.commit_transaction()
            assert await shadow.settled(60)

    asyncio.run(run())


async def _read_all(things: Any) -> list[Any]:
    for key in KEYS:
        await things.find_one({"_id": key})
    await things.count_documents({})
    await things.distinct("n")
    return list(await things.find({}).sort("_id", 1).to_list(None))


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_the_keys_of_an_open_transaction_are_no_mismatches(site: Site, tmp_path: Path, primary: str) -> None:
    site = site.but(primary=primary, phase="shadow", driver="pymongo", patience=20.0)
    opened, go = tmp_path / "opened", tmp_path / "go"
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        before = sorted(({"_id": key, "n": 0} for key in KEYS[:3]), key=lambda each: each["_id"])
        await things.insert_many(before)
        await site.level(shadow)
        process = spawn(transact, site, str(opened), str(go))
        async with asyncio.timeout(60):
            while not opened.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.02)
        control = control_of(site)
        for _ in range(3):
            assert await _read_all(things) == before
            assert (await verify(shadow, control)).different == 0
        go.touch()
        while process.is_alive():
            await _read_all(things)
            await asyncio.sleep(0.01)
        assert await join([process]) == [0]
        assert await shadow.settled(60)
        found = await verify(shadow, control)
        control.close()
        assert (found.clean, found.compared) == (True, 3)
        after = [{"_id": "inc", "n": 1}, {"_id": "new", "n": 1}, {"_id": "twice", "n": 2}]
        assert await things.find({}).sort("_id", 1).to_list(None) == after
        totals = (await shadow.admin.status())["totals"]
        assert shadow.admin.findings.groups() == []
        assert sum(totals["kinds"].values()) == 0
        await site.level(shadow)
