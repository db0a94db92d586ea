"""The process is killed with SIGKILL, at each named point and at random; the next one makes both stores equal.

Nothing acknowledged is lost, nothing is applied twice, and the journal ends empty.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from shadow.model.version import Document
from shadow.replicate.points import Point
from shadow.replicate.process import Owner, this_process
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import STEPS, VERBS, crash_at, load, notes, spawn

LIMITS = {"operation": 1.5}
"""After it, what a killed process left without an answer can no longer change the primary."""

LONG = os.environ.get("SHADOW_LONG") == "1"

CASES = [("mongo", point) for point in Point] + [
    ("dynamo", point) for point in (Point.AFTER_INTENT, Point.AFTER_PRIMARY, Point.AFTER_REPLAY, Point.AFTER_HEAL)
]


async def join(processes: list[BaseProcess]) -> list[int | None]:
    await asyncio.gather(*(asyncio.to_thread(process.join, 30) for process in processes))
    return [process.exitcode for process in processes]


async def start_documents(site: Site) -> None:
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": "inc", "n": 0}, {"_id": "replace", "n": 0}])
        await things.insert_many([{"_id": f"delete-{n}", "n": n} for n in range(STEPS)])
        await site.level(shadow)


async def recover(site: Site) -> dict[Any, Document]:
    """The next process: it heals, and both stores are equal. The primary's documents by key."""
    async with site.shadow() as shadow:
        await site.level(shadow)
    return {document["_id"]: document for document in (await site.documents()).values()}


@pytest.mark.parametrize(("primary", "point"), CASES)
async def test_killed_at_a_named_point(site: Site, tmp_path: Path, primary: str, point: Point) -> None:
    site = site.but(primary=primary, limits=LIMITS)
    await start_documents(site)
    logs = {verb: tmp_path / f"{verb}.log" for verb in VERBS}
    killed = await join([spawn(crash_at, site, verb, point, str(log)) for verb, log in logs.items()])
    assert killed == [-signal.SIGKILL] * len(VERBS), "every process came to the point and died there"
    found = await recover(site)
    for verb, log in logs.items():
        acked = sum(words[0] == "ack" for words in notes(log))
        assert acked >= 1
        check(verb, found, acked)


def check(verb: str, found: dict[Any, Document], acked: int) -> None:
    """What was acknowledged is there, and at most the one operation that was in flight beside it."""
    match verb:
        case "insert" | "upsert":
            there = [n for n in range(STEPS) if f"{verb}-{n}" in found]
            assert there in (list(range(acked)), list(range(acked + 1)))
        case "delete":
            there = [n for n in range(STEPS) if f"delete-{n}" in found]
            assert there in (list(range(acked, STEPS)), list(range(acked + 1, STEPS)))
        case _:
            assert found[verb]["n"] in (acked, acked + 1)


@pytest.mark.timeout(2400)
@pytest.mark.slow
async def test_killed_at_random_under_load(site: Site, tmp_path: Path) -> None:
    site = site.but(limits={"operation": 3.0})
    async with site.shadow() as shadow:
        await shadow.prepare()
    end = time.monotonic() + (1800 if LONG else 6)
    logs: list[Path] = []
    while time.monotonic() < end or len(logs) < 6:
        await one_round(site, tmp_path, logs)
    found = await recover(site)
    started, acked = Counter[str](), Counter[str]()
    documents = defaultdict[str, int](int)
    for log in logs:
        for what, task, _ in notes(log):
            (acked if what == "ack" else started)[task] += 1
    for key in found:
        documents[str(key).rpartition("-")[0]] += 1
    assert acked.total() > 0
    for task, times in started.items():
        assert acked[task] <= found.get(task, {"n": 0})["n"] <= times
        assert acked[task] <= documents[task] <= times


async def one_round(site: Site, folder: Path, logs: list[Path]) -> None:
    """Two processes under load, killed when both have written a little, the one some writes after the other."""
    mine = [folder / f"load-{len(logs) + n}.log" for n in range(2)]
    logs += mine
    processes = [spawn(load, site, 3, log.stem, str(log)) for log in mine]
    for process, log, enough in zip(processes, mine, (20, 35), strict=True):
        await until(lambda log=log, enough=enough: log.exists() and log.read_bytes().count(b"ack") >= enough, 30)
        os.kill(process.pid or 0, signal.SIGKILL)
    assert await join(processes) == [-signal.SIGKILL] * 2


def test_a_killed_process_is_known_dead_before_its_parent_has_asked_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner = Owner(this_process().place, process.pid, psutil.Process(process.pid).create_time())
        assert not owner.known_dead()
        process.kill()
        end = time.monotonic() + 10
        while not owner.known_dead():
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.communicate()
    assert owner.known_dead()
