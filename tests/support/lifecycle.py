"""What child processes of the lifecycle tests run."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.support.shadows import COLLECTION, Site

__all__ = ["forked", "one_loop_a_task"]


def one_loop_a_task(site: Site, loops: int, closing: bool, out: str) -> None:
    """As a task queue does it: one Shadow in the process, one `asyncio.run` a task. Writes what the process holds
    after a tenth of the loops and after all of them."""
    shadow = site.shadow()
    things = shadow[COLLECTION]
    complaints: list[str] = []

    async def work(number: int) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(_shown(context)))
        await things.insert_one({"_id": f"{closing}-{number}", "n": number})
        await things.update_one({"_id": "count"}, {"$inc": {"n": 1}}, upsert=True)

    async def task(number: int) -> None:
        if not closing:
            await work(number)
            return
        async with shadow:
            await work(number)

    held: list[dict[str, int]] = []
    for number in range(loops):
        asyncio.run(task(number))
        if number + 1 in (loops // 10, loops):
            held.append(_held(shadow))
    Path(out).write_text(json.dumps({"held": held, "complaints": complaints}))


def _held(shadow: Any) -> dict[str, int]:
    gc.collect()
    _until_threads_rest()
    process = psutil.Process()
    return {
        "files": process.num_fds(),
        "sockets": len(process.net_connections()),
        "threads": threading.active_count(),
        "loops": len(shadow._engine._runtimes),
    }


def _until_threads_rest(longest: float = 20.0, quiet: float = 1.5) -> None:
    """The drivers' threads of clients that were closed end in their own time: waits until none has for a while."""
    deadline = time.monotonic() + longest
    count, since = threading.active_count(), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < quiet:
        time.sleep(0.02)
        if threading.active_count() != count:
            count, since = threading.active_count(), time.monotonic()


def forked(site: Site, children: int, each: int, used: int = 0) -> None:
    """Makes Shadow and collection as an import does, then forks, as a server that loads the application first. With
    `used`, so many writes have been made before, in a loop that is over: clients, threads and files are open."""
    shadow = site.shadow()
    things = shadow[COLLECTION]

    async def use() -> None:
        for number in range(used):
            await things.insert_one({"_id": f"before-{number}"})

    asyncio.run(use())

    async def work(name: str) -> None:
        async with shadow:
            for number in range(each):
                await things.insert_one({"_id": f"{name}-{number}"})
                await things.update_one({"_id": "count"}, {"$inc": {"n": 1}}, upsert=True)

    pids = []
    for child in range(children):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                asyncio.run(work(f"child{child}"))
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    asyncio.run(work("parent"))
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0


def _shown(context: dict[str, Any]) -> str:
    """What an event loop complains of, with what it is about."""
    return f"{context['message']}: {context.get('exception')!r} {context.get('future') or context.get('task')!r}"
