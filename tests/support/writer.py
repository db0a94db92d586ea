"""What child processes of the crash and race tests run: writes through a Shadow, each noted before and after.

The processes are forked from a server that has everything imported, so that one costs a tenth of a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from shadow import Shadow, router
from shadow.host.failpoints import Point
from shadow.model.operation import Write
from shadow.model.phase import StoreName
from shadow.model.version import Image
from shadow.stores.base import ReplayingMany
from tests.support.shadows import COLLECTION, Site
from tests.support.worker import forking_server

__all__ = ["HOT", "STEPS", "TOGETHER", "VERBS", "crash_at", "crash_in_turn", "hot", "notes", "spawn"]

STEPS: Final = 4
"""Operations of one verb that a crashing process attempts; it dies in the second or soon after."""
HOT: Final = 50
"""Keys that the race is about; of those the first ten are only ever changed, never deleted."""
_KEPT: Final = 10
LEAST: Final = 20
"""Increments that each process makes at least."""

Things = Any
VERBS: Final[dict[str, Callable[[Things, int], Awaitable[Any]]]] = {
    "insert": lambda things, n: things.insert_one({"_id": f"insert-{n}", "n": n}),
    "inc": lambda things, n: things.update_one({"_id": "inc"}, {"$inc": {"n": 1}}),
    "replace": lambda things, n: things.replace_one({"_id": "replace"}, {"n": n + 1}),
    "delete": lambda things, n: things.delete_one({"_id": f"delete-{n}"}),
    "upsert": lambda things, n: things.update_one({"_id": f"upsert-{n}"}, {"$set": {"n": n}}, upsert=True),
    # By filters that name no key: it is not known before the primary is asked.
    "first": lambda things, n: things.update_one({"kind": "first"}, {"$inc": {"n": 1}}),
    "named": lambda things, n: things.update_one({"name": f"named-{n}"}, {"$set": {"n": n}}, upsert=True),
    "gone": lambda things, n: things.find_one_and_delete({"rank": {"$gte": 0}}, sort=[("rank", 1)]),
    # Several documents in one batch.
    "many": lambda things, n: things.update_many({"batch": "many"}, {"$inc": {"n": 1}}),
    "cleared": lambda things, n: things.delete_many({"batch": n}),
}
TOGETHER: Final = 3
"""Documents of one batch."""


def spawn(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts `target` in a process of its own."""
    process: BaseProcess = forking_server().Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


class _Log:
    """Lines in a file that outlive the process: written by the system call, not by Python at its end."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def notes(path: Path) -> Iterator[list[str]]:
    """The words of each whole line."""
    if path.exists():
        yield from (line.split() for line in path.read_text().splitlines())


# --- killed at a named point --------------------------------------------------------------------------------------


def crash_at(site: Site, verb: str, point: Point, log: str) -> None:
    """Runs `verb` and dies at `point`: by SIGKILL, at the first time that it comes there after its first operation."""
    armed = False

    def reach(at: Point) -> None:
        if armed and at is point:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        nonlocal armed
        note = _Log(log)
        async with site.shadow(reach) as shadow:
            _leave_recovery_to_others(shadow)
            await shadow[COLLECTION].find_one({"_id": verb})
            for number in range(STEPS):
                note("start", verb, number)
                await VERBS[verb](shadow[COLLECTION], number)
                note("ack", verb, number)
                if not armed:
                    await _idle(shadow)
                    armed = True
                    if point in (Point.BEFORE_HEAL, Point.AFTER_HEAL):
                        _break_fences(shadow, site)
            await _idle(shadow)

    asyncio.run(run())


def crash_in_turn(site: Site, point: Point, time: int, log: str) -> None:
    """Makes one call for many documents in batches of one, and dies when it comes to `point` for the `time`th time, by
    SIGKILL."""
    armed, times = False, 0

    def reach(at: Point) -> None:
        nonlocal times
        times += armed and at is point
        if times == time:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        nonlocal armed
        note = _Log(log)
        async with site.shadow(reach) as shadow:
            _leave_recovery_to_others(shadow)
            await shadow[COLLECTION].find_one({"_id": "many"})
            router._TOGETHER = 1  # type: ignore[misc]
            armed = True
            note("start", point, time)
            await VERBS["many"](shadow[COLLECTION], 0)
            note("ack", point, time)

    asyncio.run(run())


def _leave_recovery_to_others(shadow: Shadow) -> None:
    """What a sibling leaves is for the process that comes after them all, and for its limits: this one
    must not even look."""
    for task in shadow._engine.runtime()._tasks:
        if task.get_name() == "shadow-recovery":
            task.cancel()


async def _idle(shadow: Shadow) -> None:
    """Waits until this process has followed its own writes; the journal may hold those of others."""
    async with asyncio.timeout(60):
        while shadow._engine.runtime().at_work:  # noqa: ASYNC110 - the lane wakes nobody but its own end
            await asyncio.sleep(0.005)


def _break_fences(shadow: Shadow, site: Site) -> None:
    """Lets every replay come too late, as behind another process' write."""
    secondary = shadow._engine.runtime().stores[StoreName(site.primary).other]

    async def replay(collection: str, write: Write) -> Image | None:
        return None

    async def replay_many(collection: str, writes: Sequence[Write]) -> list[Image | None]:
        return [None for _ in writes]

    secondary.replay = replay  # type: ignore[method-assign]
    if isinstance(secondary, ReplayingMany):
        secondary.replay_many = replay_many  # type: ignore[method-assign]


# --- under load ---------------------------------------------------------------------------------------------------


def hot(site: Site, seed: int, seconds: float, log: str) -> None:
    """Increments, sets, deletes and re-inserts over the same few keys as its siblings; notes the increments of the
    keys that are never deleted."""

    async def one(things: Things, counted: Counter[int], chance: random.Random) -> None:
        end = asyncio.get_running_loop().time() + seconds
        # On a crowded machine seconds alone would make no race.
        while asyncio.get_running_loop().time() < end or counted.total() < LEAST:
            await _hot_step(things, counted, chance)

    async def run() -> None:
        counted: Counter[int] = Counter()
        async with site.shadow() as shadow:
            work = (one(shadow[COLLECTION], counted, random.Random(seed * 100 + task)) for task in range(4))
            await asyncio.gather(*work)
        note = _Log(log)
        for key, times in counted.items():
            note("inc", key, times)

    asyncio.run(run())


async def _hot_step(things: Things, counted: Counter[int], chance: random.Random) -> None:
    key = chance.randrange(HOT)
    if key < _KEPT:
        await things.update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)
        counted[key] += 1
        return
    match chance.randrange(5):
        case 0:
            await things.update_one({"_id": key}, {"$inc": {"n": 1}})
        case 1:
            await things.update_one({"_id": key}, {"$set": {"by": chance.randrange(1000)}})
        case 2:
            await things.replace_one({"_id": key}, {"n": chance.randrange(1000)})
        case 3:
            await things.delete_one({"_id": key})
        case _:
            try:
                await things.insert_one({"_id": key, "n": 0})
            except DuplicateKeyError:
                counted[-1] += 1
