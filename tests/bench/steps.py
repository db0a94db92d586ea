"""Where an `update_one` spends its time while the machine has little else to do: `python -m tests.bench.steps`.

Prints the median microseconds between the stations that a call passes, at 25 calls a second: of bare Motor, of the
command alone that a versioned update is, and of shadow in the phases `off` and `dual_write`. The stations are put
around the methods that the call goes through; a profiler would weigh what is small more than it is.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from motor.motor_asyncio import AsyncIOMotorCollection

from shadow.embedded.servers import DynamoDBLocal, Mongod
from shadow.router import Router
from shadow.stores.mongo.store import MongoStore
from shadow.writes.intents import Intents
from tests.bench.peers import document, opened
from tests.bench.reads import COUNT, key
from tests.bench.sites import NOTES, Sites
from tests.support import dynamodb_local

_PAUSE: Final = 0.04
_CALLS: Final = 75
_STATIONS: Final = (
    (Router, "write", "arguments", "told"),
    (Router, "_write_one", "task", "forwarded"),
    (Intents, "open", "route", "journal"),
    (MongoStore, "apply", "", "image after"),
    (AsyncIOMotorCollection, "find_one_and_update", "statement", "driver and server"),
)
"""Class and method, and what lies before its beginning and before its end."""

_Seen = list[tuple[str, float]]


def _passing(seen: _Seen, method: Callable[..., Awaitable[Any]], before: str, until: str) -> Callable[..., Any]:
    @functools.wraps(method)
    async def passing(*arguments: Any, **options: Any) -> Any:
        seen.append((before, time.perf_counter()))
        try:
            return await method(*arguments, **options)
        finally:
            seen.append((until, time.perf_counter()))

    return passing


def _print(name: str, rows: list[_Seen]) -> None:
    steps = [step for step, _ in rows[0]][1:]
    rows = [row for row in rows if [step for step, _ in row][1:] == steps]
    medians = [
        (step or "limits", statistics.median(row[place + 1][1] - row[place][1] for row in rows))
        for place, step in enumerate(steps)
    ]
    total = statistics.median(row[-1][1] - row[0][1] for row in rows)
    shown = ", ".join(f"{step} {seconds * 1e6:,.0f}" for step, seconds in medians)
    print(f"{name}: {total * 1e6:,.0f} = {shown}")


async def _steps(mongo_url: str, endpoint: str, folder: Path, rounds: int) -> None:
    async with opened(mongo_url, "steps", endpoint) as peers, Sites(mongo_url, "steps", endpoint, folder) as sites:
        notes = [document(number) for number in range(COUNT)]
        await peers.plant(notes)
        await sites.plant(notes)
        off, dual = [(await sites.shadow("motor", phase))[NOTES] for phase in ("off", "dual_write")]
        seen: _Seen = []
        for owner, name, before, until in _STATIONS:
            setattr(owner, name, _passing(seen, getattr(owner, name), before, until))
        value = itertools.count()

        def change() -> dict[str, Any]:
            return {"$set": {"views": next(value) % 1000}}

        def command(number: int) -> Awaitable[Any]:
            moved = {**change(), "$inc": {"_shadow.r": 1}}
            found: Awaitable[Any] = peers.motor.find_one_and_update({"_id": key(number)}, moved)
            return found

        calls: dict[str, Callable[[int], Awaitable[Any]]] = {
            "bare Motor": lambda number: peers.motor.update_one({"_id": key(number)}, change()),
            "its command alone": command,
            "shadow, off": lambda number: off.update_one({"_id": key(number)}, change()),
            "shadow, dual_write": lambda number: dual.update_one({"_id": key(number)}, change()),
        }
        rows: dict[str, list[_Seen]] = {name: [] for name in calls}
        for turn in range(1 + rounds):
            for name, call in calls.items():
                for number in range(_CALLS):
                    await asyncio.sleep(_PAUSE)
                    seen[:] = [("", time.perf_counter())]
                    await call(number)
                    seen.append(("answered", time.perf_counter()))
                    if turn:
                        rows[name].append(list(seen))
        for name, found in rows.items():
            _print(name, found)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder, Mongod() as mongo, DynamoDBLocal(dynamodb_local.home()) as dynamo:
        asyncio.run(_steps(mongo.url, dynamo.url, Path(folder), rounds))


if __name__ == "__main__":
    main()
