"""One run from its seed, and the trace of one that failed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from shadow.errors import ControlError
from shadow.model.phase import Phase
from tests.simulation.conditions import LIMIT, Conditions
from tests.simulation.fleets import HEARTBEAT
from tests.simulation.history import Broken
from tests.simulation.invariants import check_gates, check_settled, check_tasks
from tests.simulation.loop import SimulatedLoop, Stalled
from tests.simulation.workload import Workload
from tests.simulation.world import World

__all__ = ["Run", "run"]

SETTLING = 20 * LIMIT
"""Virtual seconds within which everything must be level once the faults have stopped."""

GATES = 0.1
"""Virtual seconds between two looks at the gates."""

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
    _watch_gates(world)
    await _until(lambda: workload.done)
    await asyncio.sleep(world.rng.random())
    _stop_faults(world)
    if world.conditions.mixed:
        await _until(lambda: workload.done)
        await _raise(world)
    await _settle(world, workload)
    if world.conditions.fleet:
        await _prove(world, workload)
    elif world.conditions.seeded:
        await world.alive[0].spawn(workload.fill(world.alive[0]))
    check_settled(world, workload)
    if world.conditions.divisions or world.conditions.verifications:
        process = world.alive[0]
        clean = await process.spawn(workload.verify(process))
        await process.journal.stats()
        world.check(clean and not world.doubted, "a verification finds both equal, and takes the doubt back")
    for process in world.alive:
        await process.spawn(process.end())
    await asyncio.sleep(0)
    check_tasks(world)


def _watch_gates(world: World) -> None:
    """Between any two steps would be dearer, and no other."""
    with contextlib.suppress(Broken):
        check_gates(world)
        world.loop.call_later(GATES, _watch_gates, world)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for is a state of the whole world
        await asyncio.sleep(0.1)


def _stop_faults(world: World) -> None:
    world.note("--- the faults stop ---")
    world.healed = True
    for server in world.servers.values():
        server.reunite()
        server.healthy, server.down = True, False
    for process in world.processes:  # one between two event loops has its journal too
        process.journal.healthy = True


async def _raise(world: World) -> None:
    """All files ask for dual writes, and they begin."""
    if not world.alive:
        world.begin()
    asked = [process.spawn(process.part.change(Phase.DUAL_WRITE)) for process in world.alive if process.part]
    await asyncio.wait(asked)
    end = world.loop.time() + SETTLING
    while world.loop.time() < end:
        if world.placed is not None and world.placed.both and all(process.both for process in world.alive):
            return
        await asyncio.sleep(0.1)
    world.check(False, f"dual writes begin: after {SETTLING:g} s the fleet stands at {world.placed}")


async def _prove(world: World, workload: Workload) -> None:
    """A proof counts as soon as every process has said that it writes both."""
    end = world.loop.time() + SETTLING
    while not await _is_proven(world, workload):
        text = f"within {SETTLING:g} s, what one store was given alone is put right in the other"
        world.check(world.loop.time() < end, text)
        await asyncio.sleep(HEARTBEAT)


async def _is_proven(world: World, workload: Workload) -> bool:
    try:
        return await world.alive[0].spawn(workload.prove(world.alive[0]))
    except ControlError:
        return False  # the control store is there again, and this process has not asked it again yet


async def _settle(world: World, workload: Workload) -> None:
    """Until nothing is on its way and the journal is empty; twice, for the last request may have left a trace."""
    end = world.loop.time() + SETTLING
    while world.loop.time() < end:
        if not world.alive:
            world.begin()
        await asyncio.sleep(0.25)
        if not workload.done or any(server.in_flight for server in world.servers.values()):
            continue
        if not all(process.quiet for process in world.alive) or world.open() or world.late():
            continue
        if not world.conditions.flips or all(process.stands for process in world.alive):
            return
    standing = {process.name: process.standing for process in world.alive}
    world.check(not world.conditions.flips or world.open(), f"all processes have one primary: {standing}")
    world.check(False, f"recovery settles: after {SETTLING:g} s the journal still holds {world.open()}")
