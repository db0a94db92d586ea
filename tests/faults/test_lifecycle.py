"""Starts and ends: signals, forks, and event loops one after the other. Nothing is lost, and nothing is left over."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from shadow.embedded.process import free_port
from shadow.embedded.servers import FaultProxy, Mode
from tests.support.lifecycle import forked, one_loop_a_task
from tests.support.pair import until
from tests.support.service import environment
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import spawn

LONG = os.environ.get("SHADOW_LONG") == "1"
BOUNDED = 12
"""More than the threads of Motor's pool and the connections of one loop; less than one for every third loop."""
ROOT = Path(__file__).parents[2]


async def finished(process: object, timeout: float = 240) -> None:
    await asyncio.to_thread(process.join, timeout)  # type: ignore[attr-defined]
    assert process.exitcode == 0  # type: ignore[attr-defined]


@pytest.fixture
async def ready(site: Site) -> Site:
    # A busy machine takes none of these writes for one without an answer.
    site = site.but(limits={"operation": 20.0, "drain": 0.5})
    async with site.shadow() as shadow:
        await shadow.prepare()
    return site


async def healed(site: Site) -> dict[object, dict[str, object]]:
    async with site.shadow() as shadow:
        await site.level(shadow)
    return {document["_id"]: document for document in (await site.documents()).values()}


# --- event loops --------------------------------------------------------------------------------------------------


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(3600 if LONG else 900)
@pytest.mark.drawn_over("closing", "driver", of=2, reason="the same loops, with what else they can meet")
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("closing", [False, True], ids=["left open", "closed"])
async def test_one_event_loop_after_the_other_leaks_nothing(
    ready: Site, tmp_path: Path, closing: bool, driver: str
) -> None:
    """`closing`: each task enters the Shadow; otherwise loops just end, with writes still on their way."""
    loops, out = (5000 if LONG else 50), tmp_path / "held.json"
    await finished(spawn(one_loop_a_task, ready.but(driver=driver), loops, closing, str(out)), 3000)
    told = json.loads(out.read_text())
    early, late = told["held"]
    assert late["loops"] <= 1
    for what in ("files", "sockets", "threads"):
        assert late[what] <= early[what] + BOUNDED, f"{what} grow with the number of loops: {told['held']}"
    assert told["complaints"] == []
    found = await healed(ready)
    assert found["count"]["n"] == loops
    assert len(found) == loops + 1


@pytest.mark.takes_turns
@pytest.mark.drawn_over("mongo_url", "driver", "used", of=3, reason="the same fork, of other processes")
@pytest.mark.parametrize("mongo_url", ["one", "replicas"], indirect=True)
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("used", [0, 5], ids=["after import", "after use"])
async def test_a_fork_gives_every_process_a_shadow_of_its_own(ready: Site, driver: str, used: int) -> None:
    # Four processes that begin at once have more to do than to answer.
    patient = ready.but(driver=driver, limits={"operation": 30.0, "drain": 0.5})
    await finished(spawn(forked, patient, 3, 10, used))
    found = await healed(ready)
    assert found["count"]["n"] == 40
    assert len(found) == 41 + used


async def test_one_shadow_is_entered_and_left_again_and_again_without_a_task_left(ready: Site) -> None:
    shadow = ready.shadow()
    before = asyncio.all_tasks()
    for number in range(5):
        async with shadow:
            await shadow[COLLECTION].insert_one({"_id": number})
        await until(lambda: asyncio.all_tasks() == before)
    assert len(await healed(ready)) == 5


# --- signals ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def uvicorn_of(site: Site, workers: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    port = free_port()
    command = ["-m", "uvicorn", "--factory", "tests.support.service:app", "--port", str(port)]
    command += ["--workers", str(workers), "--log-level", "error", "--timeout-graceful-shutdown", "5"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, env=environment(site), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def bump(client: httpx.AsyncClient, name: str, acked: list[str], started: list[str]) -> None:
    """Inserts and increments until the server is gone; what was answered is noted."""
    number = 0
    while True:
        key = f"{name}-{number}"
        number += 1
        started.append(key)
        try:
            if (await client.post(f"/things/{key}")).status_code == 200:
                acked.append(key)
            await client.post(f"/things/{name}-0/bump")
        except httpx.HTTPError:
            return


async def up(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                await client.get("/nothing")
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.parametrize("secondary", ["up", "hanging"])
async def test_sigterm_under_load_drains_and_leaves_the_rest_to_the_next_start(
    ready: Site, new_proxy: Callable[[str], FaultProxy], secondary: str
) -> None:
    proxy = new_proxy(ready.dynamo_url)
    acked: list[str] = []
    started: list[str] = []
    async with uvicorn_of(ready.but(dynamo_url=proxy.url), workers=2) as (server, url):
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await up(client)
            if secondary == "hanging":
                proxy.mode = Mode.HANG
            load = [asyncio.create_task(bump(client, f"c{n}", acked, started)) for n in range(6)]
            await until(lambda: len(acked) >= 120, 90)
            server.send_signal(signal.SIGTERM)
            async with asyncio.timeout(90):
                await server.wait()
                await asyncio.gather(*load)
        assert server.returncode in (0, -signal.SIGTERM)
    proxy.clear()
    async with ready.shadow() as shadow:
        left = (await shadow.admin.status())["journal"]
        open_at_start = sum(left["open"].values()) + sum(left["deferred"].values())
    assert (open_at_start > 0) == (secondary == "hanging"), left
    found = await healed(ready)
    assert set(acked) <= found.keys() <= set(started)
