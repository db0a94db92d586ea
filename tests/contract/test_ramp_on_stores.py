"""A ramp over real stores: two processes under traffic take it to its end, wrong answers take it back for both; what an
operator sees and orders."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shadow import Shadow
from shadow.config import load
from shadow.control import guard_record
from shadow.fleet import participant
from shadow.model.hooks import Hook, HookEvent
from tests.e2e.test_migration_commands import Operator
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

RAMP = {"ramp": ["40%", "70%", "100%"], "every": 0.3, "guards": {"at_least": 5, "slower": 0, "errors": "50%"}}


@pytest.fixture
def ramped(
    mongo_url: str,
    mongo_database: str,
    dynamodb_local_url: str,
    fresh_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    monkeypatch.setattr(participant, "_FIGURES_EVERY", 0.1)
    return Site(
        mongo_url,
        mongo_database,
        dynamodb_local_url,
        f"{fresh_name}-",
        str(tmp_path / "shadow.db"),
        phase="shadow",
        limits={"routed_read": 20.0, "read_deadline": 10.0, "write_deadline": 10.0, "minimum_age": 0.0},
        options={"reads": {"dynamo": RAMP}},
    )


@contextlib.asynccontextmanager
async def traffic(*shadows: Shadow) -> AsyncIterator[None]:
    """Reads of twenty documents in each process, and a write now and then."""

    async def read(shadow: Shadow) -> None:
        number = 0
        while True:
            number += 1
            found = await shadow[COLLECTION].find_one({"_id": f"k{number % 20}"})
            assert found is not None
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(read(each)) for each in shadows]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done), done


def share(shadow: Shadow) -> float:
    return shadow.admin.routes()[COLLECTION].secondary_reads


async def ramp_of(shadow: Shadow) -> dict[str, Any]:
    (found,) = (await shadow.admin.status())["fleet"]["ramps"]
    return dict(found)


async def test_two_processes_climb_together_and_wrong_answers_take_both_back(ramped: Site, tmp_path: Path) -> None:
    operator = Operator(ramped, tmp_path)
    content = yaml.safe_load(operator.config.read_text())
    content["collections"] = {COLLECTION: {"reads": {"dynamo": RAMP}}}
    content["defaults"]["phase"] = "shadow"
    operator.config.write_text(yaml.safe_dump(content))
    assert load(operator.config).ramps()
    async with ramped.shadow() as one, ramped.shadow() as two:
        await one.prepare()
        called = tmp_path / "called"
        append = ("/bin/sh", "-c", f"cat >> {called}; echo >> {called}")
        one._engine.hooks.replace([Hook("file", frozenset({HookEvent.NEW_FINDING}), command=append, timeout=60.0)])
        await one[COLLECTION].insert_many([{"_id": f"k{n}", "n": n} for n in range(20)])
        assert await one.settled(60)
        async with traffic(one, two):
            await until(lambda: share(one) == share(two) == 1.0)
            shown = await ramp_of(one)
            assert (shown["state"], shown["share"], shown["next_share"]) == ("done", 1.0, None)
            for number in range(20):
                ramped.audit.damage(COLLECTION, f"k{number}", "n", {"N": "77"})
            await until(lambda: share(one) == share(two) == 0.0)
            await until(called.exists)
            shown = await ramp_of(two)
            assert shown["state"] == "stopped"
            assert "mismatches" in shown["waits"]
            ramped.audit.damage(COLLECTION, "k1", "n", {"N": "1"})
            assert (await one[COLLECTION].find_one({"_id": "k1"})) == {"_id": "k1", "n": 1}
            listed = json.loads(await asyncio.to_thread(operator.run, "ramp", "list", "--json"))["ramps"]
            assert [each["state"] for each in listed] == ["stopped"]
            assert "no ramp is under way" in (await asyncio.to_thread(operator.ended, "ramp", "back", "others"))[2]
            await asyncio.to_thread(operator.run, "ramp", "resume", COLLECTION, "--reason", "repaired")
            await until(lambda: one.admin.fleet.guarding.described()[0]["state"] == "ramping")
            said = await asyncio.to_thread(operator.run, "ramp", "back", COLLECTION, "--reason", "a look at it first")
            assert "stopped" in said
            # A process that decides files the receipts of orders.
            await until(lambda: not guard_record.load(one.admin.fleet.records).moves)
    assert one._engine.hooks.finish(60)
    bodies = [json.loads(line) for line in called.read_text().splitlines()]
    assert {(each["event"], each["collection"], each["verb"]) for each in bodies} == {
        ("new_finding", COLLECTION, "find_one")
    }
    assert len({each["finding"] for each in bodies}) == len(bodies)
    filed = json.loads(operator.run("fleet", "receipts", "--json"))
    steps = [
        (each["share_before"], each["share"], each["reason"]) for each in reversed(filed) if each["kind"] == "ramp"
    ]
    assert [each[:2] for each in steps[:4]] == [(0.0, 0.4), (0.4, 0.7), (0.7, 1.0), (1.0, 0.0)]
    assert [each[2] for each in steps if "mismatch" not in each[2]][3:] == ["repaired", "a look at it first"]
