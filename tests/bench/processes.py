"""Several processes at once: `python -m tests.bench.processes` is one of them, told on its standard input to begin.

A process prints a line of JSON for each block: the latencies, its processor time and its wall time, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from motor.motor_asyncio import AsyncIOMotorClient

from tests.bench.harness import Bench, Block, Closed, Contender, Line
from tests.bench.peers import PLAIN
from tests.bench.reads import key
from tests.bench.sites import NOTES, Sites

__all__ = ["COUNTS", "processes"]

COUNTS: Final = (1, 2, 4, 8)
_LONG: Final = 1024 * 1024
"""Bytes of the longest line that a process may print."""


@dataclass(frozen=True)
class _Crew:
    """The processes of one contender."""

    members: list[asyncio.subprocess.Process]

    async def block(self) -> Block:
        """All of them make their calls at once."""
        told = [asyncio.create_task(_told(each)) for each in self.members]
        blocks = await asyncio.gather(*told)
        latencies = [each for block in blocks for each in block.latencies]
        return Block(latencies, sum(block.cpu for block in blocks), max(block.wall for block in blocks))


async def _told(process: asyncio.subprocess.Process) -> Block:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    line = await process.stdout.readline()
    said = json.loads(line)
    return Block(said["latencies"], said["cpu"], said["wall"])


@asynccontextmanager
async def _crew(kind: str, count: int, calls: int, *place: str) -> AsyncIterator[_Crew]:
    members: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            command = (sys.executable, "-m", "tests.bench.processes", kind, str(calls), *place)
            pipe = asyncio.subprocess.PIPE
            members.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=_LONG))
        yield _Crew(members)
    finally:
        for each in members:
            assert each.stdin is not None
            each.stdin.close()
        await asyncio.gather(*(each.wait() for each in members))


@asynccontextmanager
async def processes(count: int, calls: int, mongo_url: str, database: str, endpoint: str) -> AsyncIterator[Bench]:
    """`count` processes of bare Motor beside as many of shadow, each over one journal, with every read shadowed."""
    calls = max(10, calls // count)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        place = (mongo_url, database, endpoint, folder)
        made = [
            Contender(kind, _unused, block=(await stack.enter_async_context(_crew(kind, count, calls, *place))).block)
            for kind in ("motor", "shadow")
        ]
        what = f"every read shadowed, {count} process{'es' * (count > 1)}"
        lines = [Line(what, metric, "shadow", "motor") for metric in ("p50", "p99", "cpu")]
        yield Bench(f"processes {count}", made, Closed(calls), lines)


async def _unused(number: int) -> None:
    raise AssertionError("the processes make their own calls")


async def _member(kind: str, calls: int, mongo_url: str, database: str, endpoint: str, folder: str) -> None:
    async with AsyncExitStack() as stack:
        if kind == "motor":
            notes = AsyncIOMotorClient(mongo_url)[database][PLAIN]
            settled = None
        else:
            sites = await stack.enter_async_context(Sites(mongo_url, database, endpoint, Path(folder)))
            shadow = await sites.shadow("motor", "shadow")
            notes, settled = shadow[NOTES], shadow.settled
        while await asyncio.to_thread(sys.stdin.readline):
            wall, cpu = time.perf_counter(), time.process_time()
            latencies = await Closed(calls).drive(lambda number: notes.find_one({"_id": key(number)}), 1.0)
            wall = time.perf_counter() - wall
            if settled is not None:
                assert await settled(60)
            cpu = time.process_time() - cpu
            print(json.dumps({"latencies": latencies, "cpu": cpu, "wall": wall}), flush=True)


if __name__ == "__main__":
    asyncio.run(_member(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
