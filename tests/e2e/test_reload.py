"""The configuration file is watched: routing changes between operations, under load, and no operation is lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shadow import Shadow
from shadow.embedded.servers import FaultProxy
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Routed
from tests.support.pair import until
from tests.support.shims import assert_level

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
WORKERS: Final = 6
TAKEN_OVER: Final = (Routed.OPEN, Routed.SLOW, Routed.DOWN, Routed.ERROR, Routed.JOURNAL)
"""Why the primary may answer a read of the share, on such a machine."""
FLIPPED: Final = 100.0
"""Seconds in which a change of primary has come, on a machine that is busy with other tests."""


class Config:
    """The file, and the Shadow that watches it."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self._path = path
        self._content = content
        self.write()
        self.shadow = Shadow.from_file(path)

    def write(self, **sections: Any) -> None:
        """The file with other sections, put in place at once as deployments do."""
        content = {**self._content, **sections}
        # Gates are another test's: here they are closed, for nothing was copied or verified.
        content["defaults"] = {"forced": "a test", **content.get("defaults", {})}
        self._replace(yaml.safe_dump(content))

    def write_text(self, text: str) -> None:
        self._replace(text)

    def _replace(self, text: str) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self._path)

    def route(self, collection: str = "things") -> Route:
        return self.shadow.admin.routes()[collection]

    def is_at(self, primary: StoreName, phase: Phase = Phase.SHADOW) -> bool:
        return (self.route().primary, self.route().phase) == (primary, phase)

    def reloads(self, result: str) -> float:
        return self.metric("shadow_config_reloads_total", result=result)

    def answered_by_dynamo(self) -> float:
        """Reads that a share has made DynamoDB answer."""
        return self.metric("shadow_routed_reads_total", collection="things", store="dynamo", reason="share")

    def metric(self, name: str, **labels: str) -> float:
        return next(
            sample.value
            for family in text_string_to_metric_families(self.shadow.admin.metrics()[0].decode())
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        )


@pytest.fixture
def proxy(dynamodb_local_url: str, new_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return new_proxy(dynamodb_local_url)


@pytest.fixture
async def config(
    mongo_url: str, mongo_database: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Config]:
    for name in [each for each in os.environ if each.startswith(("SHADOW_", "AWS_", "USE_DYNAMODB"))]:
        monkeypatch.delenv(name)
    content = {
        "mongo": {"url": mongo_url, "database": mongo_database},
        "dynamo": {
            "endpoint_url": proxy.url,
            "table_prefix": f"{mongo_database}-",
            "access_key_id": "local",
            "secret_access_key": "local",
            "connect_timeout": 2.0,
            "read_timeout": 1.0,
            "max_attempts": 1,
        },
        "journal": {"url": f"sqlite:///{tmp_path / 'journal.db'}"},
        "limits": {"drain": 5.0, "recover_every": 0.05, "write_deadline": 0.5, "settle": 0.05},
        "collections": {"things": None},
        "watch_every": 0.03,
    }
    config = Config(tmp_path / "shadow.yaml", content)
    async with config.shadow:
        await config.shadow.prepare()
        yield config


class Load:
    """Readers and writers, each on a document of its own: every answer must be what the last one left."""

    def __init__(self, shadow: Shadow) -> None:
        self.things = shadow["things"]
        self.done = 0
        self.primaries: set[StoreName] = set()
        self._shadow = shadow
        self._ended = False
        self._tasks: list[asyncio.Task[int]] = []

    async def __aenter__(self) -> Load:
        await self.things.insert_many([{"_id": f"w{n}", "n": 0} for n in range(WORKERS)])
        self._tasks = [asyncio.create_task(self._work(f"w{n}")) for n in range(WORKERS)]
        return self

    async def _work(self, key: str) -> int:
        count = 0
        while not self._ended:
            answer = await self.things.update_one({"_id": key}, {"$inc": {"n": 1}, "$set": {"last": count}})
            assert answer.modified_count == 1
            count += 1
            assert await self.things.find_one({"_id": key}) == {"_id": key, "n": count, "last": count - 1}
            if count % 5 == 0:
                await self.things.insert_one({"_id": f"{key}-{count}"})
                assert (await self.things.delete_one({"_id": f"{key}-{count - 5}"})).deleted_count == (count > 5)
            self.done += 1
            self.primaries.add(self._shadow.admin.routes()["things"].primary)
        return count

    async def some(self, more: int = 30) -> None:
        """Returns when that many rounds more have been done."""
        goal = self.done + more
        await until(lambda: self.done >= goal or any(task.done() for task in self._tasks), timeout=FLIPPED)

    async def __aexit__(self, *exc_info: object) -> None:
        self._ended = True
        counts = await asyncio.gather(*self._tasks)
        found = await self.things.find({"n": {"$exists": True}}, {"n": 1}).sort("_id").to_list(None)
        assert [each["n"] for each in found] == counts


@pytest.mark.takes_turns
@pytest.mark.timeout(420)
async def test_changes_of_primary_and_phase_take_effect_under_load_and_lose_nothing(config: Config) -> None:
    async with Load(config.shadow) as load:
        await load.some()
        steps = [
            (DYNAMO, Phase.SHADOW),
            (MONGO, Phase.SHADOW),
            (DYNAMO, Phase.SHADOW),
            (DYNAMO, Phase.DUAL_WRITE),
            (DYNAMO, Phase.SHADOW),
            (MONGO, Phase.SHADOW),
        ]
        flips = 1
        for primary, phase in steps:
            flips += config.route().primary is not primary
            config.write(defaults={"primary": str(primary), "phase": str(phase)})
            await until(lambda primary=primary, phase=phase: config.is_at(primary, phase), timeout=FLIPPED)
            assert config.route().epoch == flips
            await load.some()
        assert load.primaries == {MONGO, DYNAMO}
    await assert_level(config.shadow)
    await until(lambda: config.reloads("ok") == len(steps))


async def test_the_write_mode_and_the_share_of_reads_change_at_once(config: Config) -> None:
    config.write(collections={"things": {"writes": "strict", "shadow_reads": 0.0}})
    await until(lambda: config.route().writes == "strict")
    assert config.route().shadow_reads == 0.0
    assert not config.route().shadow_read


async def test_a_share_of_reads_begins_and_ends_with_the_file_and_means_nothing_to_the_primary(config: Config) -> None:
    things = config.shadow["things"]
    await things.insert_many([{"_id": f"k{n}"} for n in range(20)])
    assert await config.shadow.settled(90)

    async def meant_for_dynamo() -> int:
        """How many of all reads so far were of the share. On a busy machine the primary may take one over, which is
        counted under its reason."""
        for number in range(20):
            assert await things.find_one({"_id": f"k{number}"}) is not None
        counted = (await config.shadow.admin.status())["totals"]["routed_reads"].get("things", {})
        by_reason = sum((Counter(reasons) for reasons in counted.values()), Counter[str]())
        assert by_reason.keys() <= {Routed.SHARE, Routed.OUTSIDE, *TAKEN_OVER}
        return sum(by_reason[each] for each in (Routed.SHARE, *TAKEN_OVER))

    assert await meant_for_dynamo() == 0
    config.write(collections={"things": {"reads": {"dynamo": "100%"}}})
    await until(lambda: config.route().secondary_reads == 1.0)
    assert await meant_for_dynamo() == 20
    shown = (await config.shadow.admin.status())["collections"]["things"]
    assert (shown["reads"], shown["secondary_reads"]) == ({"dynamo": 1.0}, 1.0)

    config.write(collections={"things": {"reads": {"dynamo": 7}}})
    await until(lambda: config.reloads("rejected") == 1)
    assert (meant := await meant_for_dynamo()) == 40, "a bad file changes nothing"
    async with asyncio.timeout(90):
        while not config.answered_by_dynamo():
            meant = await meant_for_dynamo()

    config.write(collections={"things": {"reads": {"dynamo": "100%"}, "primary": "dynamo"}})
    await until(lambda: config.is_at(DYNAMO), timeout=FLIPPED)
    assert config.route().secondary_reads == 0.0
    assert await meant_for_dynamo() == meant, "as the primary it needs no share"
    shown = (await config.shadow.admin.status())["collections"]["things"]
    assert (shown["reads"], shown["secondary_reads"]) == ({"dynamo": 1.0}, 0.0)

    config.write(collections={"things": None})
    await until(lambda: config.is_at(MONGO), timeout=FLIPPED)
    assert await meant_for_dynamo() == meant


BAD: Final[dict[str, dict[str, Any] | str]] = {
    "not YAML": "defaults: {primary: [",
    "an unknown key": {"defaults": {"primry": "dynamo"}},
    "an unknown value": {"defaults": {"primary": "postgres"}},
    "one fault beside a good change": {"defaults": {"primary": "dynamo"}, "watch_every": -1},
    "a share of reads outside of shadow": {"defaults": {"phase": "dual_write", "reads": {"dynamo": "5%"}}},
    "a leap over a phase": {"defaults": {"phase": "off"}},
    "a flip outside of shadow": {"defaults": {"phase": "dual_write", "primary": "dynamo"}},
    "what wants a restart": {"limits": {"drain": 1.0}, "defaults": {"primary": "dynamo"}},
    "another collection": {"collections": {"things": None, "more": None}, "defaults": {"primary": "dynamo"}},
    "other indexes": {"collections": {"things": {"indexes": [{"name": "by-h", "hash": "h"}], "primary": "dynamo"}}},
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_changes_nothing_and_is_counted_and_logged_once(
    config: Config, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="shadow")
    before, bad = config.route(), BAD[name]
    if isinstance(bad, str):
        config.write_text(bad)
    else:
        config.write(**bad)
    await until(lambda: config.reloads("rejected") == 1)
    assert config.route() == before
    await config.shadow["things"].insert_one({"_id": 1})
    assert await config.shadow["things"].find_one({"_id": 1}) == {"_id": 1}
    config.write(defaults={"writes": "sync"})
    await until(lambda: config.reloads("ok") == 1)
    assert config.route().writes == "sync"
    assert config.reloads("rejected") == 1
    logged = [record.getMessage() for record in caplog.records]
    assert len([line for line in logged if "config.rejected" in line or '"ok": false' in line]) == 1, logged
    await assert_level(config.shadow)


async def test_a_file_that_is_gone_for_a_moment_changes_nothing(config: Config, tmp_path: Path) -> None:
    before = config.route()
    (tmp_path / "shadow.yaml").unlink()
    await config.shadow["things"].insert_one({"_id": 1})
    await until(lambda: config.metric("shadow_internal_failures_total", part="watch") >= 2)
    assert config.route() == before
    config.write(defaults={"primary": "dynamo"})
    await until(lambda: config.is_at(DYNAMO))


@pytest.mark.takes_turns
async def test_a_flip_waits_while_the_secondary_is_down_and_happens_when_it_is_back(
    config: Config, proxy: FaultProxy
) -> None:
    things = config.shadow["things"]
    await things.insert_many([{"_id": n} for n in range(5)])
    proxy.mode = "refuse"
    await things.insert_many([{"_id": n} for n in range(5, 10)])
    config.write(defaults={"primary": "dynamo"})
    await until(lambda: config.reloads("rejected") >= 1)
    assert config.is_at(MONGO)
    async with Load(config.shadow) as load:
        await load.some(WORKERS)
        assert load.primaries == {MONGO}
        proxy.clear()
        await until(lambda: config.is_at(DYNAMO), 90)
        await load.some()
    # Counted when the flip is over, which is after the route is in force.
    await until(lambda: config.reloads("ok") == 1)
    assert await things.count_documents({"_id": {"$lt": 100}}) == 10
    await assert_level(config.shadow)


@pytest.mark.takes_turns
async def test_a_flip_that_waits_can_be_called_off(config: Config, proxy: FaultProxy) -> None:
    proxy.mode = "refuse"
    await config.shadow["things"].insert_one({"_id": 1})
    config.write(defaults={"primary": "dynamo"})
    await until(lambda: config.reloads("rejected") >= 1)
    config.write(defaults={"primary": "mongo"})
    await until(lambda: config.reloads("ok") == 1)
    proxy.clear()
    await assert_level(config.shadow)
    assert config.is_at(MONGO)
