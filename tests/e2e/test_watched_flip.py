"""A flip that is watched, on real stores and under load: a new primary that is slow, wrong or throttled is left by
itself, and the way back loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pymongo.errors import PyMongoError

from shadow import Shadow
from shadow.embedded.servers import FaultProxy
from shadow.errors import UnsupportedOperation, WritesHeld
from shadow.fleet import participant
from shadow.model.phase import StoreName
from tests.e2e.test_migration_commands import Operator
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

READ: Final = [f"r{number}" for number in range(10)]
WRITTEN: Final = [f"w{number}" for number in range(4)]
GUARDS: Final = {"at_least": 10, "slower": 0, "errors": "100%", "window": 60}
"""Those that a case does not ask about are wide open: how busy this machine is breaks none."""

PAUSE: Final = {"operation": 60.0, "drain": 25.0}
"""A busy machine takes long to change over."""


@dataclass
class Watched:
    """Two processes of an application, the proxy before DynamoDB, and an operator."""

    site: Site
    proxy: FaultProxy
    operator: Operator
    shadows: tuple[Shadow, Shadow]
    acked: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def primaries(self) -> set[StoreName]:
        return {each.admin.routes()[COLLECTION].primary for each in self.shadows}

    async def run(self, *words: str, code: int = 0) -> str:
        return await asyncio.to_thread(self.operator.run, *words, code=code)

    async def windows(self) -> list[dict[str, Any]]:
        return list(json.loads(await self.run("watch", "list", "--json"))["watches"])

    async def flip(self, *words: str, **guards: Any) -> None:
        content = yaml.safe_load(self.operator.config.read_text())
        content["flip"] = {"watch": "10m", "guards": {**GUARDS, **guards}}
        self.operator.config.write_text(yaml.safe_dump(content))
        said = await self.run("flip", COLLECTION, "--to", "dynamo", "--force", "--reason", "a test", *words)
        assert "it is watched for 600 s" in said
        assert self.primaries() == {StoreName.DYNAMO}

    async def taken_back(self, guard: str) -> dict[str, Any]:
        try:
            await until(lambda: self.primaries() == {StoreName.MONGO})
        except TimeoutError:
            raise AssertionError(await self.windows()) from None
        while (newest := (await self.windows())[0])["open"]:  # noqa: ASYNC110 - of a control store
            await asyncio.sleep(0.1)
        assert newest["state"] == "taken_back"
        assert guard in newest["reason"]
        return newest

    async def write(self, shadow: Shadow, key: str) -> None:
        while not self.ended.is_set():
            try:
                await shadow[COLLECTION].update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)
                self.acked[key] += 1
            except WritesHeld:
                pass  # nothing was written
            except PyMongoError:
                self.unknown[key] += 1
            await asyncio.sleep(0.005)

    async def read(self, shadow: Shadow, key: str) -> None:
        while not self.ended.is_set():
            try:
                assert await shadow[COLLECTION].find_one({"_id": key}) is not None
            except PyMongoError:
                self.failed += 1
            await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        one, two = self.shadows
        work = [self.write(each, key) for each in self.shadows for key in WRITTEN]
        work += [self.read(each, key) for each, keys in ((one, READ[:5]), (two, READ[5:])) for key in keys]
        self.ended.clear()
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            # Not cancelled: a write that is under way would be made, and not counted.
            self.ended.set()
            await asyncio.gather(*tasks)


@pytest.fixture
async def watched(
    mongo_url: str,
    mongo_database: str,
    dynamodb_local_url: str,
    new_proxy: Callable[[str], FaultProxy],
    fresh_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Watched]:
    monkeypatch.setattr(participant, "_FIGURES_EVERY", 0.1)
    proxy = new_proxy(dynamodb_local_url)
    site = Site(
        mongo_url,
        mongo_database,
        proxy.url,
        f"{fresh_name}-",
        str(tmp_path / "shadow.db"),
        phase="shadow",
        limits={"read_deadline": 10.0, "write_deadline": 10.0, "minimum_age": 0.0, **PAUSE},
    )
    operator = Operator(site, tmp_path)
    content = yaml.safe_load(operator.config.read_text())
    content["defaults"]["phase"] = "shadow"
    content["limits"] |= PAUSE
    content["control"] = {"heartbeat": 0.1}
    operator.config.write_text(yaml.safe_dump(content))
    async with site.shadow() as one, site.shadow() as two:
        await one.prepare()
        await one[COLLECTION].insert_many([{"_id": key, "n": 0} for key in READ])
        assert await one.settled(60)
        yield Watched(site, proxy, operator, (one, two))
        proxy.clear()


async def test_a_new_primary_that_is_slow_wrong_or_throttled_is_left_by_itself_and_no_write_is_lost(
    watched: Watched,
) -> None:
    one = watched.shadows[0]
    async with watched.load():
        await watched.flip(slower=4)
        watched.proxy.set("delay", seconds=2.0, only=b".GetItem")
        found = await watched.taken_back("slower")
        watched.proxy.clear()
        assert "reads: p95" in found["guards"]["slower"]
        assert watched.failed == 0, "slow is not wrong"

        await watched.flip()
        for key in READ:
            watched.site.audit.damage(COLLECTION, key, "n", {"N": "77"})
        await watched.taken_back("mismatches")
        for key in READ:
            watched.site.audit.damage(COLLECTION, key, "n", {"N": "0"})
        assert watched.failed == 0

        await watched.flip()
        # Few: what is throttled is also asked more slowly, and the machine is slow enough.
        watched.proxy.set("throttle", only=b'"r7"', times=5)
        await watched.taken_back("throttled")
        watched.proxy.clear()
    await watched.site.level(one)
    documents = {each["_id"]: each["n"] async for each in one[COLLECTION].find({"_id": {"$in": WRITTEN}})}
    for key, count in watched.acked.items():
        assert count <= documents[key] <= count + watched.unknown[key], "none is lost, and none is done twice"
    assert sum(watched.unknown.values()) <= watched.proxy.faults
    filed = json.loads(await watched.run("fleet", "receipts", "--json"))
    ways_back = [each for each in filed if each["kind"] == "flip" and each["to"] == {COLLECTION: "mongo"}]
    assert [each["done"] for each in ways_back] == [True] * 3
    assert all(each["by"].startswith("the watch window, ") and each["held_seconds"] for each in ways_back)
    told = Counter(each["step"] for each in filed if each["kind"] == "watch")
    assert told == {"opened": 3, "broken": 3, "taken_back": 3}


@pytest.mark.takes_turns
async def test_a_new_primary_that_refuses_a_query_of_the_application_is_left_by_itself_and_the_operator_is_named(
    watched: Watched,
) -> None:
    """What it does not support never reaches it, so that no store reports an error."""
    one, two = (each[COLLECTION] for each in watched.shadows)
    unportable = {"_id": {"$in": READ}, "$where": "this.n >= 0"}
    assert await one.find_one(unportable) is not None
    refused: list[UnsupportedOperation] = []

    async def ask(things: Any) -> None:
        while not watched.ended.is_set():
            try:
                await things.find_one(unportable)
            except UnsupportedOperation as error:
                refused.append(error)
            await asyncio.sleep(0.02)

    async with watched.load():
        await watched.flip(errors="2%")
        asking = [asyncio.create_task(ask(each)) for each in (one, two)]
        found = await watched.taken_back(f"refused of {COLLECTION}: ")
        assert await two.find_one(unportable) is not None
    await asyncio.gather(*asking)
    for said in (found["reason"], found["guards"]["refused"]):
        assert "calls (" in said
        assert ") are not supported, at most 2.00%: $where " in said
    assert watched.failed == 0, "nothing else has failed"
    line = f'shadow_refused_calls_total{{collection="{COLLECTION}",operator="$where"}} '
    texts = [each.admin.metrics()[0].decode() for each in watched.shadows]
    counted = [float(text.partition(line)[2].partition("\n")[0] or 0) for text in texts]
    assert sum(counted) == len(refused) > 0
    (receipt,) = [
        each
        for each in json.loads(await watched.run("fleet", "receipts", "--json"))
        if each["kind"] == "watch" and each["step"] == "taken_back"
    ]
    assert "$where" in receipt["reason"]
    await watched.site.level(watched.shadows[0])


async def test_while_a_flip_is_watched_nothing_ends_the_dual_writes_and_an_operator_may_end_the_window(
    watched: Watched,
) -> None:
    one = watched.shadows[0]
    async with watched.load():
        await watched.flip("--report-only")
        (shown,) = await watched.windows()
        assert (shown["state"], shown["takes_back"], shown["collections"]) == ("watching", False, [COLLECTION])
        for refused in (("complete", COLLECTION), ("complete", COLLECTION, "--apply", "--force", "--reason", "no")):
            said = await watched.run(*refused, code=2)
            assert "its flip to dynamo is still watched" in said
            assert f"shadow watch end {COLLECTION}" in said
        said = await watched.run("finalize", COLLECTION, "--store", "mongo", code=2)
        assert "its flip to dynamo is still watched" in said
        status = (await one.admin.status())["fleet"]["watches"]
        assert [each["flip"] for each in status] == [shown["flip"]]
        assert "no flip of it is watched" in (await asyncio.to_thread(watched.operator.ended, "watch", "end", "o"))[2]
        await watched.run("watch", "end", COLLECTION, "--reason", "it looks well")
        (ended,) = await watched.windows()
        assert (ended["state"], ended["reason"]) == ("ended", "it looks well")
        assert "still watched" not in await watched.run("complete", COLLECTION, code=1)
        # By hand, and by itself not watched again.
        await watched.run("flip", COLLECTION, "--to", "mongo", "--force", "--reason", "back")
        assert [each["open"] for each in await watched.windows()] == [False]
    for words, said in (
        (("--watch", "soon"), "must be a time"),
        (("--watch", "30m", "--rehearse"), "nothing to watch"),
        (("--report-only", "--watch", "0"), "--report-only needs a window"),
    ):
        told = (await asyncio.to_thread(watched.operator.ended, "flip", COLLECTION, "--to", "dynamo", *words))[2]
        assert said in " ".join(told.replace("│", " ").split())
    await watched.site.level(one)
