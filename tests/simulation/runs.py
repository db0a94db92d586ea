"""One run from its seed, and the trace of one that failed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.conditions import LIMIT, Conditions
from tests.simulation.history import Broken
from tests.simulation.invariants import check_settled, check_tasks
from tests.simulation.loop import SimulatedLoop, Stalled
from tests.simulation.workload import Workload
from tests.simulation.world import World

__all__ = ["Run", "run"]

SETTLING = 20 * LIMIT
"""Virtual seconds within which everything must be level once the faults have stopped."""

Trace = list[tuple[float, str]]


@dataclass(frozen=True)
class Run:
    """`failure`: the invariant that did not hold, or None."""

    seed: int
    failure: str | None
    trace: Trace

    def story(self) -> str:
        """Everything that happened, and how to see it again."""
        lines = [f"{at - 1000.0:9.4f}  {text}" for at, text in self.trace]
        return "\n".join(
            [*lines, f"seed {self.seed}: {self.failure}", f"replay: python -m tests.simulation {self.seed}"]
        )


def run(seed: int, change: Callable[[Conditions], Conditions] = lambda drawn: drawn) -> Run:
    """Runs the whole of one seed. `change` may set some of the conditions that the seed has drawn."""
    rng = random.Random(seed)
    conditions = change(Conditions.drawn(rng))
    loop = SimulatedLoop(rng, horizon=SETTLING * 2)
    world = World(conditions, rng, loop)
    try:
        with world.patched():
            loop.run_until_complete(_main(world))
    except Broken:
        pass
    except Stalled as stall:
        world.failure = world.failure or f"everything ends: {stall}"
    except RuntimeError:
        # The loop was stopped under its main task, which is how a broken invariant ends the run.
        if world.failure is None:
            raise
    failure = world.failure
    world.end()
    return Run(seed, failure, world.trace)


async def _main(world: World) -> None:
    for _ in range(world.conditions.processes):
        world.begin()
    workload = Workload(world)
    workload.begin()
    await _until(lambda: workload.done)
    await asyncio.sleep(world.rng.random())
    _stop_faults(world)
    await _settle(world, workload)
    if world.conditions.seeded:
        await world.alive[0].spawn(workload.fill(world.alive[0]))
    check_settled(world, workload)
    for process in world.alive:
        await process.spawn(process.runtime.close())
        process.journal.shut()
    await asyncio.sleep(0)
    check_tasks(world)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for is a state of the whole world
        await asyncio.sleep(0.1)


def _stop_faults(world: World) -> None:
    world.note("--- the faults stop ---")
    world.healed = True
    for server in world.servers.values():
        server.healthy, server.down = True, False
    for process in world.alive:
        process.journal.healthy = True


async def _settle(world: World, workload: Workload) -> None:
    """Until nothing is on its way and the journal is empty; twice, for the last request may have left a trace."""
    end = world.loop.time() + SETTLING
    while world.loop.time() < end:
        if not world.alive:
            world.begin()
        await asyncio.sleep(0.25)
        if not workload.done or any(server.in_flight for server in world.servers.values()):
            continue
        if all(process.quiet for process in world.alive) and not _open(world):
            return
    world.check(False, f"recovery settles: after {SETTLING:g} s the journal still holds {_open(world)}")


def _open(world: World) -> list[tuple[object, ...]]:
    return [row for table in ("intents", "deferred") for row in world.db.execute(f"SELECT * FROM {table}").fetchall()]
