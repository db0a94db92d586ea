"""A process that is stopped (SIGSTOP) in the middle of a write for longer than an intent stands, and goes on later.

Meanwhile another process takes the intent for orphaned, heals the key and forgets it. The write that comes after that
must be as safe as any: the stores are equal in the end, also if the process dies as soon as it has gone on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo.errors import ConnectionFailure

from shadow.host.failpoints import Point
from shadow.model.phase import StoreName
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import spawn

LIMITS = {"operation": 4.0}


def write_and_stop(site: Site, stop: str, die: str, log: str) -> None:
    """Increments once, then again: stopped on the way at `stop` (a point, or "sending"), killed at `die`, if that is
    a point, when it has gone on."""
    armed = stopped = False

    def note(word: str) -> None:
        with Path(log).open("a") as file:
            file.write(f"{word}\n")

    def halt() -> None:
        nonlocal stopped
        if armed and not stopped:
            stopped = True
            note("stopped")
            os.kill(os.getpid(), signal.SIGSTOP)
            # Nothing else shows that it has been let go on: the signal is taken by the kernel.
            note("resumed")

    def reach(at: Point) -> None:
        if stopped and at == die:
            os.kill(os.getpid(), signal.SIGKILL)
        if at == stop:
            halt()

    async def run() -> None:
        nonlocal armed
        async with site.shadow(reach) as shadow:
            things = shadow[COLLECTION]
            await things.update_one({"_id": "key"}, {"$inc": {"n": 1}}, upsert=True)
            assert await shadow.settled(90)
            if stop == "sending":
                store: Any = shadow._engine.runtime().stores[StoreName(site.primary)]
                apply = store.apply

                async def late(*arguments: Any) -> Any:
                    halt()
                    return await apply(*arguments)

                store.apply = late
            armed = True
            # What was sent too late may go without an answer: then nobody knows, and the journal does.
            with contextlib.suppress(ConnectionFailure):
                await things.update_one({"_id": "key"}, {"$inc": {"n": 1}})
                note("acked")
            assert await shadow.settled(90)

    asyncio.run(run())


@contextlib.contextmanager
def ended(process: BaseProcess) -> Iterator[BaseProcess]:
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join(90)


def is_stopped(process: BaseProcess) -> bool:
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


CASES = [
    ("mongo", "after_intent", ""),
    ("mongo", "after_intent", "after_primary"),
    ("mongo", "sending", ""),
    ("mongo", "sending", "after_intent"),
    ("mongo", "after_primary", "before_replay"),
    ("mongo", "before_replay", ""),
    ("dynamo", "after_intent", "after_primary"),
    ("dynamo", "sending", "after_intent"),
]


@pytest.mark.takes_turns
@pytest.mark.parametrize(("primary", "stop", "die"), CASES)
async def test_a_write_that_goes_on_after_its_intent_was_forgotten(
    site: Site, tmp_path: Path, primary: str, stop: str, die: str
) -> None:
    site = site.but(primary=primary, limits=LIMITS)
    log = tmp_path / "log"
    async with site.shadow() as shadow:
        await shadow.prepare()
        with ended(spawn(write_and_stop, site, stop, die, str(log))) as process:
            await until(lambda: log.exists() and "stopped" in log.read_text() and is_stopped(process), 200)
            # The intent is taken for orphaned, its key healed, the entry gone: nothing protects the write any more.
            assert await shadow.settled(90)
            os.kill(process.pid or 0, signal.SIGCONT)
            await asyncio.to_thread(process.join, 90)
            assert process.exitcode == (-signal.SIGKILL if die else 0)
        await site.level(shadow)
    (document,) = (await site.documents()).values()
    acked = "acked" in log.read_text()
    assert acked or die or stop == "sending"
    assert document["n"] in ((2,) if acked else (1, 2))
