"""One process of an application of many: traffic on `users`, each write noted with the store that answered it.

`begin(config, notes, number, port)`; the one with the number `TWIN` writes and reads by Beanie's documents, the others
by the database object; with a port it serves the admin router as well. It runs until SIGTERM, and then writes its
notes: {"backend": "driver" or "beanie", "acked": {key: increments}, "writes": [[store, start, end]], "waits": [[start,
end]], "errors": [text]}; times are `time.monotonic()`, which the processes of a host share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from shadow import Shadow
from tests.support import services

__all__ = ["COLLECTION", "PAUSE", "SHARED", "TASKS", "TWIN", "Worker", "begin"]

COLLECTION: Final = "users"
TWIN: Final = 1

TASKS: Final = 4
SHARED: Final = 10
PAUSE: Final = 0.1


class Worker:
    backend = "driver"

    def __init__(self, shadow: Shadow, number: int) -> None:
        self.shadow = shadow
        self.number = number
        self.acked: Counter[str] = Counter()
        self.writes: list[tuple[str, float, float]] = []
        self.waits: list[tuple[float, float]] = []
        self.errors: list[str] = []
        self.ended = asyncio.Event()

    def watch(self) -> None:
        """Notes every write of the application that a store answers as the primary."""
        for name, store in self.shadow._engine.runtime().stores.items():
            self._watch(str(name), store)

    def _watch(self, name: str, store: Any) -> None:
        apply = store.apply

        async def noted(*arguments: Any) -> Any:
            started = time.monotonic()
            try:
                return await apply(*arguments)
            finally:
                self.writes.append((name, started, time.monotonic()))

        store.apply = noted

    async def run(self) -> None:
        await asyncio.gather(*(self._task(number) for number in range(TASKS)))

    async def _task(self, number: int) -> None:
        chance, turn = random.Random(f"{self.number}/{number}"), 0
        while not self.ended.is_set():
            turn += 1
            try:
                await self._act(chance, f"w{self.number}-{number}", turn)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), PAUSE * chance.uniform(0.5, 1.5))

    async def _act(self, chance: random.Random, own: str, turn: int) -> None:
        match chance.randrange(6):
            case 0:
                await self._increment(f"shared-{chance.randrange(SHARED)}")
            case 1:
                await self._increment(own)
            case 2:
                await self._write(self.insert(f"{own}-{turn}", own, turn))
                await self._write(self.delete(f"{own}-{turn}"))
            case 3:
                await self.of_group(own)
            case _:
                await self.read(f"shared-{chance.randrange(SHARED)}")

    async def _increment(self, key: str) -> None:
        await self._write(self.increment(key))
        self.acked[key] += 1

    # What the twin does otherwise.

    async def prepare(self) -> None:
        """Before the traffic begins."""

    async def insert(self, key: str, group: str, n: int) -> None:
        await self.shadow[COLLECTION].insert_one({"_id": key, "group": group, "n": n})

    async def delete(self, key: str) -> None:
        await self.shadow[COLLECTION].delete_one({"_id": key})

    async def increment(self, key: str) -> None:
        await self.shadow[COLLECTION].update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)

    async def of_group(self, group: str) -> None:
        await self.shadow[COLLECTION].find({"group": group}).to_list(None)

    async def read(self, key: str) -> None:
        await self.shadow[COLLECTION].find_one({"_id": key})

    async def _write(self, work: Any) -> None:
        started = time.monotonic()
        await work
        self.waits.append((started, time.monotonic()))

    def notes(self) -> str:
        said = {"acked": self.acked, "writes": self.writes, "waits": self.waits, "errors": self.errors}
        return json.dumps({"backend": self.backend, **said})


async def main(config: str, notes: str, number: int, port: int | None) -> None:
    async with Shadow.from_file(config) as shadow:
        worker = _made(shadow, number)
        worker.watch()
        await worker.prepare()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.ended.set)
        serving = None if port is None else asyncio.create_task(_serve(shadow, port, worker))
        Path(notes).with_suffix(".ready").touch()
        await worker.run()
        if serving is not None:
            await serving
    Path(notes).write_text(worker.notes())


def _made(shadow: Shadow, number: int) -> Worker:
    if number != TWIN:
        return Worker(shadow, number)
    try:
        from tests.support.fleet_twin import Twin
    except ModuleNotFoundError:
        if services.required():
            raise
        return Worker(shadow, number)
    return Twin(shadow, number)


async def _serve(shadow: Shadow, port: int, worker: Worker) -> None:
    app = FastAPI()
    app.include_router(shadow.admin_router())
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    # The signal is the worker's, who ends the server.
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
    serving = asyncio.create_task(server.serve())
    await worker.ended.wait()
    server.should_exit = True
    await serving


def begin(config: str, notes: str, number: int, port: int | None) -> None:
    """What a process of its own runs."""
    asyncio.run(main(config, notes, number, port))
