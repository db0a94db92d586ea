"""Watched flips of two collections, on real stores: flipped together they go back together, though one of them is well;
flipped one after another, only the one that is wrong goes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from shadow import Shadow
from shadow.config import CollectionSettings, Settings
from shadow.fleet import participant
from shadow.model.phase import StoreName
from tests.e2e.test_migration_commands import Operator
from tests.e2e.test_watched_flip import GUARDS, PAUSE
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

OTHER: Final = "other.things"
"""With a dot, as names may have it."""
BOTH: Final = (COLLECTION, OTHER)
KEYS: Final = [f"k{number}" for number in range(8)]


class TwoSite(Site):
    def settings(self) -> Settings:
        made = super().settings()
        return made.model_copy(update={"collections": {**made.collections, OTHER: CollectionSettings()}})


@pytest.fixture
async def running(
    mongo_url: str,
    mongo_database: str,
    dynamodb_local_url: str,
    fresh_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[TwoSite, Shadow, Operator]]:
    monkeypatch.setattr(participant, "_FIGURES_EVERY", 0.1)
    limits = {"read_deadline": 10.0, "write_deadline": 10.0, "minimum_age": 0.0, **PAUSE}
    journal = str(tmp_path / "shadow.db")
    site = TwoSite(
        mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", journal, phase="shadow", limits=limits
    )
    operator = Operator(site, tmp_path)
    content = yaml.safe_load(operator.config.read_text())
    content["collections"][OTHER] = {}
    content["defaults"]["phase"] = "shadow"
    content["limits"] |= PAUSE
    content["control"] = {"heartbeat": 0.1}
    content["flip"] = {"guards": GUARDS}
    operator.config.write_text(yaml.safe_dump(content))
    async with site.shadow() as shadow:
        await shadow.prepare()
        for name in BOTH:
            await shadow[name].insert_many([{"_id": key, "n": 0} for key in KEYS])
        assert await shadow.settled(60)
        yield site, shadow, operator


@contextlib.asynccontextmanager
async def load(shadow: Shadow) -> AsyncIterator[None]:
    ended = asyncio.Event()

    async def work(name: str, key: str) -> None:
        while not ended.is_set():
            assert await shadow[name].find_one({"_id": key}) is not None
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(work(name, key)) for name in BOTH for key in KEYS]
    try:
        yield
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def flip(operator: Operator, *names: str) -> None:
    words = ("flip", *names, "--to", "dynamo", "--watch", "10m", "--force", "--reason", "a test")
    assert "it is watched for 600 s" in await asyncio.to_thread(operator.run, *words)


async def windows(operator: Operator) -> dict[tuple[str, ...], dict[str, Any]]:
    """By their collections."""
    found = json.loads(await asyncio.to_thread(operator.run, "watch", "list", "--json"))["watches"]
    return {tuple(sorted(each["collections"])): each for each in found}


def primaries(shadow: Shadow) -> dict[str, StoreName]:
    return {name: shadow.admin.routes()[name].primary for name in BOTH}


async def taken_back(operator: Operator, *names: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while (found := (await windows(operator))[tuple(sorted(names))])["open"]:  # noqa: ASYNC110 - of a control store
            await asyncio.sleep(0.1)
    assert found["state"] == "taken_back"
    return found


def damage(site: Site, name: str, value: str) -> None:
    for key in KEYS:
        site.audit.damage(name, key, "n", {"N": value})


async def test_together_they_go_back_together_and_one_after_another_only_the_one_that_is_wrong(
    running: tuple[TwoSite, Shadow, Operator],
) -> None:
    site, shadow, operator = running
    async with load(shadow):
        await flip(operator, *BOTH)
        assert primaries(shadow) == dict.fromkeys(BOTH, StoreName.DYNAMO)
        await asyncio.to_thread(damage, site, OTHER, "77")
        await until(lambda: primaries(shadow) == dict.fromkeys(BOTH, StoreName.MONGO))
        found = await taken_back(operator, *BOTH)
        assert found["reason"].startswith(f"mismatches of {OTHER}: ")
        assert f"of {COLLECTION}: " not in found["reason"]
        await asyncio.to_thread(damage, site, OTHER, "0")
        receipts = json.loads(await asyncio.to_thread(operator.run, "fleet", "receipts", "--json"))
        (back,) = [each for each in receipts if each["kind"] == "flip" and "mongo" in each["to"].values()]
        assert back["to"] == dict.fromkeys(BOTH, "mongo"), "one flip, in one pause"

        for name in BOTH:
            await flip(operator, name)
        await asyncio.to_thread(damage, site, OTHER, "78")
        await until(lambda: primaries(shadow)[OTHER] is StoreName.MONGO)
        await taken_back(operator, OTHER)
        await asyncio.to_thread(damage, site, OTHER, "0")
        assert primaries(shadow)[COLLECTION] is StoreName.DYNAMO
        still = (await windows(operator))[(COLLECTION,)]
        assert (still["state"], still["open"]) == ("watching", True)
        # By hand, which ends its window too.
        words = ("flip", COLLECTION, "--to", "mongo", "--force", "--reason", "enough")
        await asyncio.to_thread(operator.run, *words)
        async with asyncio.timeout(60):
            while (await windows(operator))[(COLLECTION,)]["open"]:  # noqa: ASYNC110 - of a control store
                await asyncio.sleep(0.1)
        assert (await windows(operator))[(COLLECTION,)]["state"] == "ended"
    await site.level(shadow)
