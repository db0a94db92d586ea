"""What the processes of the tests of journals on servers run: writes until they are killed, and recovery."""

from __future__ import annotations

import asyncio
import contextlib
import os

from pymongo.errors import ConnectionFailure

from shadow import Shadow
from shadow.errors import JournalError
from shadow.model.events import Event, KeyAgreed
from tests.support.shadows import COLLECTION, Site

__all__ = ["increment", "recover"]


def recover(site: Site, go: str, log: str) -> None:
    """Waits for the file `go`, then heals until the journal is empty: a line in `log` for each key that was healed."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def run() -> None:
        os.write(file, b"ready\n")
        while not os.path.exists(go):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.005)
        async with site.shadow() as shadow:
            publish = shadow.admin.report.publish

            def noting(event: Event) -> None:
                if isinstance(event, KeyAgreed):
                    os.write(file, b"heal\n")
                publish(event)

            shadow.admin.report.publish = noting  # type: ignore[method-assign]
            await shadow._engine.start()
            assert await shadow.settled(60)

    asyncio.run(run())


def increment(site: Site, name: str, log: str) -> None:
    """Increments three counters until it is killed: a line in `log` before each operation and one behind its answer."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def one(shadow: Shadow, task: str) -> None:
        while True:
            os.write(file, f"start {task}\n".encode())
            with contextlib.suppress(ConnectionFailure, JournalError):
                await shadow[COLLECTION].update_one({"_id": task}, {"$inc": {"n": 1}}, upsert=True)
                os.write(file, f"ack {task}\n".encode())

    async def run() -> None:
        async with site.shadow() as shadow:
            await asyncio.gather(*(one(shadow, f"{name}.{task}") for task in range(3)))

    asyncio.run(run())
