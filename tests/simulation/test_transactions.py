"""Transactions in the simulator: no seed breaks a promise, and each rule, weakened, is caught."""

from __future__ import annotations

import os

import pytest

from tests.simulation.conditions import Conditions
from tests.simulation.mutations import Mutation
from tests.simulation.runs import run
from tests.simulation.transaction_mutations import TRANSACTION_MUTATIONS

SEEDS = int(os.environ.get("SHADOW_SIMULATION_SEEDS", "2000")) // 4
SHARES = 4
MOST = 2000
"""Seeds within which a weakened rule has to be caught."""
HELD = 40 if os.environ.get("SHADOW_LONG") == "1" else 10


@pytest.mark.drawn_over("share", of=2, reason="the same proof of other seeds")
@pytest.mark.timeout(300 + SEEDS)
@pytest.mark.parametrize("share", range(SHARES))
def test_no_seed_breaks_a_promise(share: int) -> None:
    for seed in range(share, SEEDS, SHARES):
        outcome = run(seed, Conditions.transacting)
        if outcome.failure is not None:
            pytest.fail(outcome.story(), pytrace=False)


def test_the_runs_come_by_everything_that_happens_to_transactions() -> None:
    wanted = {
        "Heard.DONE",
        "Heard.NOTHING",
        "Heard.UNKNOWN",
        "a statement failed",
        "the commit failed",
        "write conflict",
        "commit !lost",
        "commit !unanswered",
        "commit !late",
        "a statement had no answer",
        "there is no such transaction",
        "CRASHED",
    }
    for seed in range(300):
        if not wanted:
            break
        told = "\n".join(text for _, text in run(seed, Conditions.transacting).trace)
        wanted -= {each for each in wanted if each in told}
    assert not wanted


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", TRANSACTION_MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_a_weakened_rule_is_caught(mutation: Mutation) -> None:
    with mutation.applied():
        found = any(run(seed, mutation.conditions).failure for seed in range(MOST))
    assert found, "no seed has shown it"


@pytest.mark.parametrize("mutation", TRANSACTION_MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_the_rule_itself_holds_under_the_same_conditions(mutation: Mutation) -> None:
    """What is caught is the mutation, not the conditions."""
    for seed in range(HELD):
        outcome = run(seed, mutation.conditions)
        assert outcome.failure is None, outcome.story()
