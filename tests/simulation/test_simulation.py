"""The protocol holds its promises under every interleaving and fault that the seeds come to."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys

import pytest

from tests.simulation.loop import SimulatedLoop
from tests.simulation.mutations import overdue
from tests.simulation.runs import run

SEEDS = int(os.environ.get("SHADOW_SIMULATION_SEEDS", "2000"))
FIRST = int(os.environ.get("SHADOW_SIMULATION_FIRST", "0"))
SHARES = 8


@pytest.mark.drawn_over("share", of=2, reason="the same proof of other seeds")
@pytest.mark.timeout(300 + SEEDS)
@pytest.mark.parametrize("share", range(SHARES))
def test_no_seed_breaks_a_promise(share: int) -> None:
    """Stores equal, no write lost or doubled, only forward, journal empty, no task left."""
    for seed in range(FIRST + share, FIRST + SEEDS, SHARES):
        outcome = run(seed)
        if outcome.failure is not None:
            pytest.fail(outcome.story(), pytrace=False)


@pytest.mark.takes_turns
def test_no_request_that_comes_too_late_breaks_one() -> None:
    """Long after its caller has given up, and its journal entry is settled."""
    told = 0
    for seed in range(60):
        outcome = run(seed, overdue)
        if outcome.failure is not None:
            pytest.fail(outcome.story(), pytrace=False)
        told += sum("!overdue" in text for _, text in outcome.trace)
    assert told > 50


def test_a_seed_replays_exactly() -> None:
    """The same seed tells the same story twice."""
    for seed in range(10):
        assert run(seed).trace == run(seed).trace


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_replays_in_another_process(hash_seed: str) -> None:
    """Nothing in a run depends on the order of hashes or on addresses."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "7"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.rstrip() == run(7).story()


@pytest.mark.takes_turns
def test_the_runs_come_by_everything_that_production_does() -> None:
    """Faults, recoveries and races that never happen would show nothing."""
    wanted = {
        "CRASHED",
        "has ended",
        "dies after_primary",
        "dies before_replay",
        "!refused",
        "!lost",
        "!unanswered",
        "!late",
        "!hung",
        "!down",
        "defer",
        "unknown",
        "due [",
        "False",
        ": None",
        "put k0",
        "repairs",
        "the journal fails",
        "is cancelled",
        "SecondaryWriteError",
        "DuplicateKeyError",
        "a part of the batch",
        "Tombstone",
        "the clock is set by +",
        "the clock is set by -",
    }
    for seed in range(300):
        if not wanted:
            break
        told = "\n".join(text for _, text in run(seed).trace)
        wanted -= {each for each in wanted if each in told}
    assert not wanted


def test_virtual_hours_take_no_time() -> None:
    """Time passes only by timers."""
    loop = SimulatedLoop(random.Random(1), horizon=10_000)

    async def sleep_long() -> float:
        before = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - before

    assert loop.run_until_complete(sleep_long()) == 3600
    loop.close()
