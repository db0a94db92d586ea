"""A process that begins while the disk is full: it starts, answers what it can, and goes on when there is room."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hammer import Orders, hammer
from tests.support.shadows import Site
from tests.support.trail import notes, prepare
from tests.support.worker import Worker

PATIENCE = 100.0


def begins_on_a_full_disk(orders: Orders) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    hammer(orders)


def outcomes(trail: Path) -> Counter[str]:
    return Counter(words[2] for words in notes(trail) if words[0] == "end")


def wait_until(holds: Callable[[], bool], worker: Worker) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert worker.process.exitcode is None, worker.last_words()
        assert time.monotonic() < end, worker.last_words()
        time.sleep(0.02)


@pytest.mark.takes_turns
@pytest.mark.drawn_over("metrics", "journal", of=2, reason="the same disk, for whoever writes files")
@pytest.mark.parametrize("metrics", ["alone", "shared"])
@pytest.mark.parametrize("journal", ["sqlite", "mongodb"])
async def test_a_process_that_begins_on_a_full_disk_goes_on_when_there_is_room(
    metrics: str, journal: str, mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    place = {"sqlite": str(tmp_path / "journal" / "j.db"), "mongodb": "mongodb:///"}[journal]
    site = Site(mongo_url, fresh_name, dynamodb_local_url, f"{fresh_name}-", place, phase="shadow")
    async with site.shadow() as shadow:
        await shadow.prepare()
    trail = tmp_path / "p.trail"
    prepare(trail)
    (tmp_path / "metrics").mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")} if metrics == "shared" else {}
    worker = Worker(
        tmp_path / "said",
        begins_on_a_full_disk,
        Orders(site, "p", str(trail), time.monotonic()),
        environment=environment,
    )
    try:
        wait_until(lambda: outcomes(trail).total() > 20, worker)
        pid = worker.process.pid or 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        before = outcomes(trail)["acked"]
        wait_until(lambda: outcomes(trail)["acked"] > before + 20, worker)
        os.kill(pid, signal.SIGTERM)
        worker.process.join(PATIENCE)
        assert worker.process.exitcode == 0, worker.last_words()
    finally:
        worker.process.kill()
    assert not [words for words in notes(trail) if words[0] == "complaint"]
    async with site.shadow() as shadow:
        assert await shadow.settled(PATIENCE)
    assert await site.disagreements() == []
