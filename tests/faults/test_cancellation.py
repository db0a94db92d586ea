"""A caller that goes away cancels nothing past the intent: what the primary got, the secondary gets."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from shadow.embedded.process import free_port
from shadow.embedded.servers import FaultProxy, Mode
from shadow.host.failpoints import Point
from shadow.model.phase import StoreName
from tests.support.faulty import refuse
from tests.support.pair import Pair, until
from tests.support.service import create
from tests.support.shadows import Site

VERBS: dict[str, Callable[[Any], Any]] = {
    "insert": lambda things: things.insert_one({"_id": "new", "n": 1}),
    "insert_many": lambda things: things.insert_many([{"_id": "new", "n": 1}, {"_id": "newer", "n": 1}]),
    "update": lambda things: things.update_one({"_id": "old"}, {"$inc": {"n": 1}}),
    "upsert by filter": lambda things: things.update_one({"tag": "x"}, {"$inc": {"n": 1}}, upsert=True),
    "replace": lambda things: things.replace_one({"_id": "old"}, {"n": 9}),
    "delete": lambda things: things.delete_one({"_id": "old"}),
}


@pytest.fixture
async def complaints() -> AsyncIterator[list[str]]:
    """What asyncio has to say about this loop, lost exceptions above all: nothing, in the end."""
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(str(context)))
    yield found
    gc.collect()
    await asyncio.sleep(0)
    assert found == []


async def test_a_write_that_is_ended_before_its_first_step_is_cancelled_for_its_caller_too(
    tmp_path: Path, complaints: list[str]
) -> None:
    async with Pair(tmp_path) as pair:
        caller = asyncio.create_task(pair.things.insert_one({"_id": "new"}))
        await asyncio.sleep(0)
        (task,) = pair.current()._running._tasks
        task.cancel()
        done, _ = await asyncio.wait([caller], timeout=90)
        assert done == {caller}
        assert caller.cancelled()
        assert await pair.things.find_one({"_id": "new"}) is None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("point", [point for point in Point if point not in (Point.AFTER_HEAL, Point.AFTER_ASIDE)])
async def test_cancelled_at_a_named_point(tmp_path: Path, complaints: list[str], verb: str, point: Point) -> None:
    caller: asyncio.Task[Any] | None = None

    def reach(at: Point) -> None:
        if caller is not None and at is point:
            caller.cancel()

    async with Pair(tmp_path, reach=reach) as pair:
        await pair.things.insert_one({"_id": "old", "n": 1})
        await pair.settled()
        caller = asyncio.create_task(VERBS[verb](pair.things))
        await asyncio.wait([caller], timeout=90)
        await pair.settled()
        pair.assert_equal()


@pytest.mark.parametrize("verb", VERBS)
async def test_cancelled_after_any_number_of_steps(tmp_path: Path, complaints: list[str], verb: str) -> None:
    async with Pair(tmp_path) as pair:
        for steps in range(25):
            await pair.things.insert_one({"_id": "old", "n": 1})
            await pair.settled()
            caller = asyncio.create_task(VERBS[verb](pair.things))
            for _ in range(steps):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller], timeout=90)
            await pair.settled()
            pair.assert_equal()
            await pair.things.delete_many({})
        await pair.settled()


async def test_a_refusal_that_nobody_waits_for_any_more_is_not_called_lost(
    tmp_path: Path, complaints: list[str]
) -> None:
    async with Pair(tmp_path) as pair:
        pair.primary.on("apply", refuse)
        caller = asyncio.create_task(pair.things.insert_one({"_id": 1}))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller], timeout=90)
        await pair.settled()
        assert pair.documents(StoreName.MONGO) == pair.documents(StoreName.DYNAMO) == {}


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="error", timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done(), 90)
        yield server.config.port
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 30)


def half_a_conversation(port: int, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("path", ["/stream/{}", "/things/{}"])
async def test_clients_that_hang_up_in_the_middle_of_a_request(
    site: Site,
    new_proxy: Callable[[str], FaultProxy],
    complaints: list[str],
    path: str,
    driver: str,
) -> None:
    proxy = new_proxy(site.mongo_url)
    before = asyncio.all_tasks()
    shadow = site.but(mongo_url=proxy.url, driver=driver).shadow()
    app = create(shadow)
    async with served(app) as port:
        await shadow.prepare()
        proxy.set(Mode.DELAY, seconds=0.3, only=b"insert")
        connections = [half_a_conversation(port, path.format(f"k{number}")) for number in range(8)]
        await until(lambda: proxy.faults >= 8)
        for connection in connections:
            connection.close()
        if "stream" in path:
            await until(lambda: app.state.cancelled == 8)
        proxy.clear()
        await site.level(shadow)
        assert len(await site.documents()) == 8, "the primary had been asked, so the writes are there, in both stores"
    await until(lambda: asyncio.all_tasks() == before)
