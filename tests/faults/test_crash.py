"""The process is killed with SIGKILL at each named point; the next one makes both stores equal. At random: `chaos`.

Nothing acknowledged is lost, nothing is applied twice, and the journal ends empty.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from shadow.host.failpoints import Point
from shadow.host.process import Owner, this_process
from shadow.model.version import Document
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import STEPS, TOGETHER, VERBS, crash_at, crash_in_turn, notes, spawn

LIMITS = {"operation": 1.5}
"""Of the process that recovers: what a killed one left without an answer can no longer change the primary then."""

PATIENT = {"operation": 60.0, "write_deadline": 20.0}
"""Of the processes that are to be killed: a slow machine must not take the point from them."""

LONG = os.environ.get("SHADOW_LONG") == "1"

PRIMARIES = ("mongo", "dynamo")
OFTEN = (Point.AFTER_PRIMARY, Point.AFTER_REPLAY)
"""Where a write is in the one store and not, or not known to be, in the other: also on the other server each time."""
POINTS = [point for point in Point if point is not Point.AFTER_ASIDE]
"""Those that every write comes by, or can be made to; for the other one see `test_untangling`."""
CASES = [
    *(("one", "dynamodb_local_url", primary, point) for primary in PRIMARIES for point in POINTS),
    *(("one", "ministack_url", primary, point) for primary in PRIMARIES for point in (POINTS if LONG else OFTEN)),
    *(
        ("replicas", "dynamodb_local_url", primary, point)
        for primary in PRIMARIES
        for point in (POINTS if LONG else OFTEN)
    ),
    *(("auth", "dynamodb_local_url", "dynamo", point) for point in (POINTS if LONG else OFTEN)),
]


async def join(processes: list[BaseProcess]) -> list[int | None]:
    await asyncio.gather(*(asyncio.to_thread(process.join, 200) for process in processes))
    return [process.exitcode for process in processes]


async def start_documents(site: Site) -> None:
    async with site.but(limits=PATIENT, patience=20.0).shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": "inc", "n": 0}, {"_id": "replace", "n": 0}])
        await things.insert_one({"_id": "first", "kind": "first", "n": 0})
        await things.insert_many([{"_id": f"delete-{n}", "n": n} for n in range(STEPS)])
        await things.insert_many([{"_id": f"gone-{n}", "rank": n} for n in range(STEPS)])
        await things.insert_many([{"_id": f"many-{n}", "batch": "many", "n": 0} for n in range(TOGETHER)])
        cleared = [{"_id": f"cleared-{n}-{m}", "batch": n} for n in range(STEPS) for m in range(TOGETHER)]
        await things.insert_many(cleared)
        await site.level(shadow)


async def recover(site: Site) -> dict[Any, Document]:
    """The next process: it heals, and both stores are equal. The primary's documents by key."""
    async with site.shadow() as shadow:
        await site.level(shadow)
    return {document["_id"]: document for document in (await site.documents()).values()}


@pytest.mark.drawn_over("primary", "mongo_url", "dynamo_url", reason="the same death, on other servers")
@pytest.mark.parametrize(("mongo_url", "dynamo_url", "primary", "point"), CASES, indirect=["mongo_url", "dynamo_url"])
async def test_killed_at_a_named_point(site: Site, tmp_path: Path, primary: str, point: Point) -> None:
    site = site.but(primary=primary, limits=LIMITS)
    await start_documents(site)
    logs = {verb: tmp_path / f"{verb}.log" for verb in VERBS}
    patient = site.but(limits=PATIENT, patience=20.0)
    killed = await join([spawn(crash_at, patient, verb, point, str(log)) for verb, log in logs.items()])
    assert killed == [-signal.SIGKILL] * len(VERBS), "every process came to the point and died there"
    found = await recover(site)
    for verb, log in logs.items():
        acked = sum(words[0] == "ack" for words in notes(log))
        assert acked >= 1
        check(verb, found, acked)


@pytest.mark.parametrize(
    ("point", "time", "changed"),
    [
        # While the primary makes the first batch, the second has its intents, or gets them.
        (Point.AFTER_INTENT, 2, {0, 1}),
        (Point.AFTER_PRIMARY, 1, {1}),
        (Point.AFTER_PRIMARY, 2, {2}),
        (Point.AFTER_INTENT, 3, {1, 2}),
    ],
)
async def test_killed_between_two_batches_of_one_call(
    site: Site, tmp_path: Path, point: Point, time: int, changed: set[int]
) -> None:
    """Nothing of what the primary has made is lost, and what only has its intents is not made by their recovery."""
    site, log = site.but(limits=LIMITS), tmp_path / "log"
    await start_documents(site)
    patient = site.but(limits=PATIENT, patience=20.0)
    assert await join([spawn(crash_in_turn, patient, point, time, str(log))]) == [-signal.SIGKILL]
    assert [words[0] for words in notes(log)] == ["start"]
    found = await recover(site)
    made = [found[f"many-{n}"]["n"] for n in range(TOGETHER)]
    assert set(made) <= {0, 1}
    assert sum(made) in changed


def check(verb: str, found: dict[Any, Document], acked: int) -> None:
    """What was acknowledged is there, and at most the one operation that was in flight beside it."""
    match verb:
        case "insert" | "upsert":
            there = [n for n in range(STEPS) if f"{verb}-{n}" in found]
            assert there in (list(range(acked)), list(range(acked + 1)))
        case "named":
            there = sorted(each["n"] for each in found.values() if "name" in each)
            assert there in (list(range(acked)), list(range(acked + 1)))
        case "delete" | "gone":
            there = [n for n in range(STEPS) if f"{verb}-{n}" in found]
            assert there in (list(range(acked, STEPS)), list(range(acked + 1, STEPS)))
        case "many":
            assert {found[f"many-{n}"]["n"] for n in range(TOGETHER)} <= {acked, acked + 1}
        case "cleared":
            there = {each["batch"] for key, each in found.items() if str(key).startswith("cleared")}
            assert there - {acked} == set(range(acked + 1, STEPS))
        case _:
            assert found[verb]["n"] in (acked, acked + 1)


def test_a_killed_process_is_known_dead_before_its_parent_has_asked_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner = Owner(this_process().place, process.pid, psutil.Process(process.pid).create_time())
        assert not owner.known_dead()
        process.kill()
        end = time.monotonic() + 30
        while not owner.known_dead():
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.communicate(timeout=30)
    assert owner.known_dead()
