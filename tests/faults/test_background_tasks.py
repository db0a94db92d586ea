"""Every long-lived task and thread is hit at its failpoint: it is counted, said, and goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from fastapi import FastAPI

from shadow import Shadow
from shadow.config import load
from shadow.host import supervisor
from shadow.model.background import Background
from shadow.model.phase import StoreName
from tests.support.pair import until
from tests.support.shadows import COLLECTION, LIMITS, Site

_NOT_HERE: Final = (Background.FIGURES, Background.FLIP, Background.RELAY)
ALWAYS: Final = tuple(each for each in Background if each not in _NOT_HERE)
"""These reach a failpoint at each of their rounds. Of the others two are parts of a round, and the relay takes the
place of the watch where the configuration wants it."""


class Injected(Exception):
    """What nothing expects."""


class Saboteur:
    """A failpoint: raises where it is told to, and counts who comes by."""

    def __init__(self) -> None:
        self.target: object = None
        self.times = 0
        self.raised = 0
        self.seen: Counter[object] = Counter()
        self._lock = threading.Lock()

    def __call__(self, at: object) -> None:
        with self._lock:
            self.seen[at] += 1
            if at is not self.target or not self.times:
                return
            self.times -= 1
            self.raised += 1
        raise Injected


@pytest.fixture
def saboteur() -> Saboteur:
    return Saboteur()


@pytest.fixture
async def ready(site: Site) -> Site:
    async with site.shadow() as shadow:
        await shadow.prepare()
    return site


@pytest.fixture
def unstarted(ready: Site, saboteur: Saboteur, tmp_path: Path) -> Shadow:
    """One with every task that there is: a file to watch, a watch over writers, a sweep, canaries."""
    content = {
        "mongo": {"url": ready.mongo_url, "database": ready.database},
        "dynamo": {
            "endpoint_url": ready.dynamo_url,
            "table_prefix": ready.prefix,
            "access_key_id": "local",
            "secret_access_key": "local",
            "sweep_every": 1.0,
        },
        "journal": {"url": f"sqlite:///{ready.journal}"},
        "control": {"heartbeat": 0.1},
        "limits": LIMITS,
        "watch_every": 0.1,
        "observe": {"watch_writers": True, "canary_every": 0.2},
        "defaults": {"phase": "shadow", "forced": "a test"},
        "collections": {COLLECTION: {}},
    }
    path = tmp_path / "shadow.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return Shadow(load(path), path=path, reach=saboteur)


@pytest.fixture
async def shadow(unstarted: Shadow) -> AsyncIterator[Shadow]:
    async with unstarted:
        await unstarted[COLLECTION].insert_one({"_id": "first"})
        yield unstarted


async def asked(shadow: Shadow, path: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(shadow.admin_router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return await client.get(path)


def metric(shadow: Shadow, name: str, task: str) -> float:
    text = shadow.admin.metrics()[0].decode()
    (value,) = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f'{name}{{task="{task}"}}')]
    return float(value)


@pytest.mark.drawn_over("task", of=(len(ALWAYS) + 1) // 2, reason="one supervisor keeps them all")
@pytest.mark.parametrize("task", ALWAYS)
async def test_a_task_that_fails_is_counted_and_said_and_comes_back(
    unstarted: Shadow,
    saboteur: Saboteur,
    task: Background,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "_PROVEN", 6.0)  # the watch over writers has no rounds while all is well
    caplog.set_level(logging.INFO, "shadow")
    saboteur.target, saboteur.times = task, 1 << 62  # down for as long as it is looked at
    async with unstarted as shadow:
        await until(lambda: saboteur.raised >= 3)
        await until(lambda: task in shadow.admin.supervisor.down)
        assert shadow.admin.supervisor.down[task] == "Injected"
        assert metric(shadow, "shadow_background_up", task) == 0
        assert metric(shadow, "shadow_background_failures_total", task) >= 1
        saboteur.times = 0
        before = saboteur.seen[task]
        await until(lambda: task not in shadow.admin.supervisor.down)
        assert saboteur.seen[task] > before, "it is at work again"
        assert metric(shadow, "shadow_background_up", task) == 1
        assert metric(shadow, "shadow_background_failures_total", task) == saboteur.raised
        events = [json.loads(each.message) for each in caplog.records if each.name == "shadow"]
        said = [each for each in events if each["event"] == "background.failed" and each["task"] == task]
        assert [each["error"].rpartition(".")[2] for each in said] == ["Injected"], "once for one cause"
        assert {"background.working"} <= {each["event"] for each in events if each.get("task") == task}
        await shadow[COLLECTION].insert_one({"_id": "second"})
        assert await shadow.settled(90)


async def test_readiness_names_what_is_down(shadow: Shadow, saboteur: Saboteur) -> None:
    saboteur.target, saboteur.times = Background.REFRESH, 1000
    await until(lambda: Background.REFRESH in shadow.admin.supervisor.down)
    answer = await asked(shadow, "/readyz")
    assert answer.status_code == 200
    assert answer.json()["parts"]["background"] == "down: refresh (Injected)"
    saboteur.times = 0
    await until(lambda: not shadow.admin.supervisor.down)


async def test_a_figure_that_cannot_be_computed_takes_no_heartbeat_with_it_and_closes_the_gates(
    shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    participant = shadow.admin.fleet.participant
    await until(lambda: bool(participant._figures))

    def broken() -> Any:
        raise Injected

    monkeypatch.setattr(shadow.admin.metrics_registry, "totals", broken)
    await until(lambda: Background.FIGURES in shadow.admin.supervisor.down)
    assert participant._figures == {}, "what is not known is not said"
    assert participant._row is not None
    beat = participant._row.beat
    await until(lambda: participant._row is not None and participant._row.beat > beat + 2)
    assert metric(shadow, "shadow_background_up", "fleet") == 1
    monkeypatch.undo()
    await until(lambda: Background.FIGURES not in shadow.admin.supervisor.down)
    assert participant._figures


async def test_a_process_that_fails_to_give_a_sign_of_life_stays_in_the_fleet(
    shadow: Shadow, saboteur: Saboteur
) -> None:
    """It still writes: a flip must not go on without it."""
    member = shadow.admin.fleet.participant.id
    saboteur.target, saboteur.times = Background.FLEET, 2
    await until(lambda: not saboteur.times)
    assert shadow.admin.fleet.participant.id == member
    await until(lambda: Background.FLEET not in shadow.admin.supervisor.down)
    assert [each["id"] for each in (await shadow.admin.fleet.status())["members"]] == [member]


async def test_a_flip_in_which_something_unexpected_happens_is_counted_and_aborted(
    shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(flip: Any) -> str:
        raise Injected

    await until(lambda: shadow.admin.fleet.participant.joined)
    monkeypatch.setattr(shadow.admin.fleet.participant, "_objection", broken)
    done = await shadow.admin.flip(COLLECTION, StoreName.DYNAMO, "a test")
    assert not done["done"]
    assert metric(shadow, "shadow_background_failures_total", "flip") == 1
    monkeypatch.undo()
    async with asyncio.timeout(90):
        while not (again := await shadow.admin.flip(COLLECTION, StoreName.DYNAMO, "a test"))["done"]:
            # On a busy machine a request to the secondary may have timed out, and no flip passes it.
            assert "may still arrive" in again["said"]
            await asyncio.sleep(0.2)
    assert shadow.admin.routes()[COLLECTION].primary is StoreName.DYNAMO


async def test_a_change_of_the_file_that_could_not_be_read_is_taken_up_later(
    shadow: Shadow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was raised in the middle of it: the file is not looked at as if it had been done."""
    path = tmp_path / "shadow.yaml"
    content = yaml.safe_load(path.read_text())

    def broken(wanted: Any) -> None:
        raise Injected

    monkeypatch.setattr(shadow._engine.reloading, "_check_reload", broken)
    content["collections"] = {COLLECTION: {"shadow_reads": 0.5}}
    path.write_text(yaml.safe_dump(content))
    await until(lambda: Background.WATCH in shadow.admin.supervisor.down)
    monkeypatch.undo()
    await until(lambda: shadow.admin.routes()[COLLECTION].shadow_reads == 0.5)
    await until(lambda: Background.WATCH not in shadow.admin.supervisor.down)


async def test_the_folder_of_the_workers_metrics_may_go(
    shadow: Shadow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody cleans up: metrics may be lost, and nothing else; that is counted."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    await until(lambda: any(folder.glob("shadow_gauges_*.json")))
    await asyncio.to_thread(shutil.rmtree, folder)
    participant = shadow.admin.fleet.participant
    await until(lambda: participant._row is not None)
    beat = participant._row.beat if participant._row else 0
    await until(lambda: participant._row is not None and participant._row.beat > beat + 2)
    for path in ("/metrics", "/status", "/readyz"):
        assert (await asked(shadow, path)).status_code == 200
    assert "shadow_operations_total" in (await asked(shadow, "/metrics")).text
    assert shadow.admin.metrics_registry.totals()["failures"]["gauges"] > 0
    assert (await shadow.admin.flip(COLLECTION, StoreName.DYNAMO, "a test"))["done"]


async def test_a_journal_thread_that_fails_loses_no_close_and_lets_nobody_wait(site: Site, saboteur: Saboteur) -> None:
    saboteur.target = Background.JOURNAL
    async with site.shadow(saboteur) as shadow:
        await shadow.prepare()
        for number in range(30):
            if number % 10 == 5:
                saboteur.times = 1
            await shadow[COLLECTION].insert_one({"_id": number})
        assert await shadow.settled(90)
        assert await site.disagreements() == []
