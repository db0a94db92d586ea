"""The harness: blocks of calls, measured in turns, so that a ratio compares what ran under the same conditions.

A bench names contenders and a load. Each round runs one block of every contender, in an order that turns from round to
round; a line divides a figure of one contender by that of another *within a round*, and its result is the median of
the rounds' ratios beside the least and the greatest of them. Absolute times of a shared machine mean little.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["METRICS", "Bench", "Block", "Closed", "Contender", "Line", "Paced", "Result", "nothing", "run"]


async def nothing() -> None:
    """For contenders that leave nothing behind."""


@dataclass(frozen=True)
class Contender:
    """`call` makes the call of a number; `settled` returns when nothing that the calls began is under way, which
    belongs to their processor time. `shed` counts what was begun and given up, and spoils the figure if it rises."""

    name: str
    call: Callable[[int], Awaitable[object]]
    settled: Callable[[], Awaitable[object]] = nothing
    shed: Callable[[], int] = lambda: 0
    share: float = 1.0
    """Of the load's calls: less for what is very slow."""
    block: Callable[[], Awaitable[Block]] | None = None
    """Makes a block by itself, in other processes, in the place of `call`."""


@dataclass(frozen=True)
class Block:
    """What one block of calls took: seconds of each call, processor seconds of the process, wall seconds."""

    latencies: Sequence[float]
    cpu: float
    wall: float

    @property
    def ordered(self) -> list[float]:
        return sorted(self.latencies)


METRICS: Final[dict[str, Callable[[Block], float]]] = {
    "p50": lambda block: statistics.median(block.latencies),
    "p99": lambda block: block.ordered[min(len(block.latencies) - 1, int(len(block.latencies) * 0.99))],
    "cpu": lambda block: block.cpu / len(block.latencies),
    "seconds": lambda block: block.wall / len(block.latencies),
}
"""Seconds each: a call's median latency, its 99th percentile, its processor time, its share of the wall time."""


@dataclass(frozen=True)
class Closed:
    """`tasks` loops, each making its next call when the last one has ended."""

    calls: int
    tasks: int = 1

    async def drive(self, call: Callable[[int], Awaitable[object]], share: float) -> list[float]:
        latencies: list[float] = []
        numbers = iter(range(max(self.tasks, int(self.calls * share))))

        async def loop() -> None:
            for number in numbers:
                started = time.perf_counter()
                await call(number)
                latencies.append(time.perf_counter() - started)

        await asyncio.gather(*(loop() for _ in range(self.tasks)))
        return latencies


@dataclass(frozen=True)
class Paced:
    """`rate` calls a second at random moments (the same for all contenders), whether the last has ended or not."""

    calls: int
    rate: float

    async def drive(self, call: Callable[[int], Awaitable[object]], share: float) -> list[float]:
        latencies: list[float] = []
        moments = random.Random(7)
        began = time.perf_counter()
        due = 0.0

        async def one(number: int, planned: float) -> None:
            await call(number)
            latencies.append(time.perf_counter() - planned)

        async with asyncio.TaskGroup() as group:
            for number in range(int(self.calls * share)):
                due += moments.expovariate(self.rate)
                await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
                # From the moment at which the loop came to it: the timer's own coarseness is nobody's cost.
                group.create_task(one(number, time.perf_counter()))
        return latencies


@dataclass(frozen=True)
class Line:
    """One ratio: `metric` of `contender` over that of `base`, and what it may be (None: for information)."""

    name: str
    metric: str
    contender: str
    base: str
    budget: float | None = None
    at_least: bool = False

    def met(self, ratio: float) -> bool | None:
        if self.budget is None:
            return None
        return ratio >= self.budget if self.at_least else ratio <= self.budget


@dataclass(frozen=True)
class Bench:
    name: str
    contenders: Sequence[Contender]
    load: Closed | Paced
    lines: Sequence[Line]


@dataclass(frozen=True)
class Result:
    """A line's ratios, one a round; `seconds` are the medians of both figures; `shed` what the contender gave up."""

    bench: str
    line: Line
    ratios: Sequence[float]
    seconds: tuple[float, float]
    shed: int = 0

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        return self.line.met(self.ratio) if not self.shed else (None if self.line.budget is None else False)

    def as_json(self) -> dict[str, Any]:
        line = self.line
        return {
            "bench": self.bench,
            "name": line.name,
            "metric": line.metric,
            "contender": line.contender,
            "base": line.base,
            "ratio": round(self.ratio, 4),
            "ratios": [round(each, 4) for each in self.ratios],
            "budget": line.budget,
            "at_least": line.at_least,
            "met": self.met,
            "contender_microseconds": round(self.seconds[0] * 1e6, 2),
            "base_microseconds": round(self.seconds[1] * 1e6, 2),
            "shed": self.shed,
        }


@dataclass
class _Rounds:
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    shed: dict[str, int] = field(default_factory=dict)


async def run(bench: Bench, rounds: int, *, warm_up: int = 1) -> list[Result]:
    """The results of a bench's lines. The first `warm_up` rounds are run and forgotten."""
    kept = _Rounds({each.name: [] for each in bench.contenders}, dict.fromkeys((c.name for c in bench.contenders), 0))
    for turn in range(warm_up + rounds):
        order = list(bench.contenders) if turn % 2 else list(reversed(bench.contenders))
        for contender in order:
            before = contender.shed()
            block = await _block(contender, bench.load)
            if turn >= warm_up:
                kept.blocks[contender.name].append(block)
                kept.shed[contender.name] += contender.shed() - before
    return [_result(bench.name, line, kept) for line in bench.lines]


async def _block(contender: Contender, load: Closed | Paced) -> Block:
    await contender.settled()
    gc.collect()
    if contender.block is not None:
        return await contender.block()
    wall, cpu = time.perf_counter(), time.process_time()
    latencies = await load.drive(contender.call, contender.share)
    wall = time.perf_counter() - wall
    await contender.settled()
    return Block(latencies, time.process_time() - cpu, wall)


def _result(bench: str, line: Line, kept: _Rounds) -> Result:
    figure = METRICS[line.metric]
    over = [figure(block) for block in kept.blocks[line.contender]]
    under = [figure(block) for block in kept.blocks[line.base]]
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    medians = statistics.median(over), statistics.median(under)
    return Result(bench, line, ratios, medians, kept.shed[line.contender])
