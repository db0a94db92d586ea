"""Several processes over the same few keys: afterwards both stores are equal, and every increment counted once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.support.shadows import Site
from tests.support.writer import hot, notes, spawn

LONG = os.environ.get("SHADOW_LONG") == "1"
PROCESSES = 8 if LONG else 4
SECONDS = 120.0 if LONG else 2.0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.drawn_over("mongo_url", "primary", of=2, reason="the same keys, on other servers")
@pytest.mark.parametrize(
    ("mongo_url", "primary"),
    [("one", "mongo"), ("replicas", "mongo"), ("auth", "dynamo")],
    indirect=["mongo_url"],
)
async def test_processes_over_hot_keys(site: Site, tmp_path: Path, primary: str) -> None:
    site = site.but(primary=primary, limits={"write_deadline": 2.0, "operation": 60.0})
    async with site.shadow() as shadow:
        await shadow.prepare()
    logs = [tmp_path / f"hot-{number}.log" for number in range(PROCESSES)]
    processes = [spawn(hot, site, number, SECONDS, str(log)) for number, log in enumerate(logs)]
    await asyncio.gather(*(asyncio.to_thread(process.join, SECONDS + 200) for process in processes))
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    async with site.shadow() as shadow:
        await site.level(shadow)
    acked: Counter[int] = Counter()
    for log in logs:
        for _, key, times in notes(log):
            acked[int(key)] += int(times)
    del acked[-1]
    found = await site.documents()
    assert {key: found[site.digest(key)]["n"] for key in acked} == dict(acked)
    assert acked.total() > 50
