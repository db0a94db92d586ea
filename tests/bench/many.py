"""One call for many documents: `update_many`, `delete_many` and `insert_many`, against the bare drivers.

Only the call is timed. The documents are put back before it, and the secondary has followed before the next one. The
queue of the secondary takes all of them, so that no write waits in the journal for want of a place.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from shadow import Shadow
from shadow.config import Settings
from tests.bench.harness import Bench, Block, Closed, Contender, Line
from tests.bench.peers import Peers, document
from tests.bench.sites import Sites, of

__all__ = ["NAMES", "many"]

NAMES: Final = ("update_many", "delete_many", "insert_many of 100")
_COUNT: Final = 10_000
_QUICK: Final = 1_000
_INSERTED: Final = 100
_CALLS: Final = 20
"""Of `insert_many` in a block; the others are called once."""
_PHASES: Final = ("off", "dual_write")
_DRIVERS: Final = ("motor", "pymongo")
_BUDGETS: Final = {"update_many": 5.0, "delete_many": 5.0, "insert_many of 100": 1.3}
"""Of the median of a dual write, against that of the same driver."""

Step = Callable[[], Awaitable[object]]


class _Sites(Sites):
    """Each Shadow has a database of its own, and so a control store that no other one finds."""

    def _settings(self, driver: str, phase: str, shadow_reads: float, traces: bool) -> Settings:
        settings = super()._settings(driver, phase, shadow_reads, traces)
        limits = settings.limits.model_copy(update={"write_queue": 4 * _COUNT, "write_deadline": 60.0})
        mongo = settings.mongo.model_copy(update={"database": f"{self.database}-{driver}-{phase}"})
        collections = {_name(driver, phase): next(iter(settings.collections.values()))}
        return settings.model_copy(update={"limits": limits, "collections": collections, "mongo": mongo})


@dataclass
class _Target:
    """One collection, as one contender has it."""

    name: str
    collection: Any
    count: int
    shadow: Shadow | None = None
    _numbers: Any = field(default_factory=itertools.count)
    _fills: Any = field(default_factory=itertools.count)

    async def fill(self) -> None:
        """The documents, of both stores where there are two. Under keys that were never used: under the others the
        secondary has tombstones, and each insert over one is repaired by itself."""
        await self.collection.delete_many({})
        first = 10_000_000 + self.count * next(self._fills)
        for start in range(first, first + self.count, 1000):
            notes = [document(number) for number in range(start, min(start + 1000, first + self.count))]
            await self.collection.insert_many(notes, ordered=False)
        await self.settled()

    async def settled(self) -> None:
        if self.shadow is not None:
            assert await self.shadow.settled(300), "the secondary did not follow within five minutes"

    async def update(self) -> None:
        result = await self.collection.update_many({}, {"$set": {"views": 1000 + next(self._numbers)}})
        assert result.modified_count == self.count

    async def delete(self) -> None:
        assert (await self.collection.delete_many({})).deleted_count == self.count

    async def insert(self) -> None:
        first = 1_000_000 + _INSERTED * next(self._numbers)
        await self.collection.insert_many([document(first + number) for number in range(_INSERTED)])

    def contender(self, before: Step, call: Step, calls: int) -> Contender:
        async def block() -> Block:
            latencies, cpu = [], 0.0
            for _ in range(calls):
                await before()
                started, used = time.perf_counter(), time.process_time()
                await call()
                latencies.append(time.perf_counter() - started)
                await self.settled()
                cpu += time.process_time() - used
            return Block(latencies, cpu, sum(latencies))

        async def never(number: int) -> None:
            raise AssertionError("a block is made as a whole")

        if self.shadow is None:
            return Contender(self.name, never, block=block)
        return replace(of(self.shadow, self.name, never), block=block)


@asynccontextmanager
async def many(
    peers: Peers, mongo_url: str, database: str, endpoint: str, folder: Path, calls: int
) -> AsyncIterator[list[Bench]]:
    """Each makes documents of its own when it is run. `calls`: as of the other benches, fewer than 100 is a look."""
    count = _COUNT if calls >= 100 else _QUICK
    bare = {"motor": peers.motor.database, "pymongo": peers.pymongo.database}
    async with _Sites(mongo_url, database, endpoint, folder, tag="many-") as sites:
        targets = [_Target(driver, bare[driver][f"many-{driver}"], count) for driver in _DRIVERS]
        for driver, phase in itertools.product(_DRIVERS, _PHASES):
            shadow = await sites.shadow(driver, phase)
            if phase != "off":
                await shadow.prepare()
            name = f"shadow on {driver}, {phase}"
            targets.append(_Target(name, shadow[_name(driver, phase)], count, shadow))
        for each in targets:
            await each.fill()
        yield [
            _bench("update_many", [each.contender(each.settled, each.update, 1) for each in targets]),
            _bench("delete_many", [each.contender(each.fill, each.delete, 1) for each in targets]),
            _bench("insert_many of 100", [each.contender(each.settled, each.insert, _CALLS) for each in targets]),
        ]


def _name(driver: str, phase: str) -> str:
    return f"many-{driver}-{phase}"


def _bench(name: str, contenders: list[Contender]) -> Bench:
    lines = []
    for driver, phase in itertools.product(_DRIVERS, _PHASES):
        budget = _BUDGETS[name] if phase != "off" else None
        shadow = f"shadow on {driver}, {phase}"
        lines.append(Line(f"{name}, {phase}, against bare {driver}", "p50", shadow, driver, budget))
        lines.append(Line("the same, processor time with that of the secondary's writes", "cpu", shadow, driver))
    return Bench(name, contenders, Closed(1), lines)
