"""`client.drop_database` of a database whose collections are on two stores: each is dropped in turn, on both."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from shadow import Shadow
from tests.support.shadows import COLLECTION, Site


def site_of(tmp_path: Path, mongo_url: str, database: str, dynamo_url: str, primary: str, driver: str) -> Site:
    return Site(
        mongo_url, database, dynamo_url, f"{database}-", str(tmp_path / "shadow.db"), primary, "shadow", driver=driver
    )


async def filled(shadow: Shadow) -> None:
    await shadow[COLLECTION].insert_many([{"_id": n} for n in range(5)])
    await shadow["elsewhere"].insert_one({"_id": 1})


@pytest.mark.drawn_over("driver", reason="the calls of either driver are made of the same ones")
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_nothing_is_left_on_either_store_and_new_documents_can_come(
    primary: str, driver: str, tmp_path: Path, mongo_url: str, mongo_database: str, dynamodb_local_url: str
) -> None:
    site = site_of(tmp_path, mongo_url, mongo_database, dynamodb_local_url, primary, driver)
    async with site.shadow() as shadow:
        await shadow.prepare()
        for named in (shadow.name, shadow):
            await filled(shadow)
            await shadow[COLLECTION].create_index("n", name="twice")
            dropping: Any = shadow.client.drop_database(named)
            assert inspect.isawaitable(dropping)
            await dropping
            assert await shadow[COLLECTION].count_documents({}) == 0
            assert await shadow["elsewhere"].count_documents({}) == 0
            if primary == "mongo":
                assert "twice" not in await shadow[COLLECTION].index_information()
        await site.level(shadow)
        assert await site.documents() == {}
        await filled(shadow)
        await site.level(shadow)
        assert len(await site.documents()) == 5


async def test_another_database_is_the_drivers_own(
    tmp_path: Path, one_mongod_url: str, fresh_name: str, dynamodb_local_url: str
) -> None:
    site = site_of(tmp_path, one_mongod_url, fresh_name, dynamodb_local_url, "mongo", "pymongo")
    async with site.shadow() as shadow:
        await shadow.prepare()
        await filled(shadow)
        await shadow.client.drop_database(f"{fresh_name}other")
        assert await shadow[COLLECTION].count_documents({}) == 5
