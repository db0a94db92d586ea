"""What one store does alone, in the simulator: writes that only MongoDB can make, and the deletions of each store."""

from __future__ import annotations

import os

import pytest

from tests.simulation.conditions import Conditions
from tests.simulation.mutations import Mutation
from tests.simulation.one_store_mutations import ALONE_MUTATIONS, EXPIRY_MUTATIONS
from tests.simulation.runs import run

SEEDS = int(os.environ.get("SHADOW_SIMULATION_SEEDS", "2000")) // 40
MOST = 2000
"""Seeds within which a weakened rule has to be caught."""
HELD = 40 if os.environ.get("SHADOW_LONG") == "1" else 10
FIRST = {
    "a result that does not fit is old": 28,
    "DynamoDB deletes at once what has expired": 48,
    "where a store deletes by itself, nothing is a condition like any other": 38,
    "a read is repeated for the time at which it was first asked": 228,
    "a verification counts what has expired as missing": 74,
}
"""The seed to begin with, for a rule that few seeds show to be needed."""
ALL = ALONE_MUTATIONS + EXPIRY_MUTATIONS


@pytest.mark.timeout(300 + SEEDS)
@pytest.mark.parametrize("kind", ["of_one_store", "expiring"])
def test_no_seed_breaks_a_promise(kind: str) -> None:
    for seed in range(SEEDS):
        outcome = run(seed, getattr(Conditions, kind))
        if outcome.failure is not None:
            pytest.fail(outcome.story(), pytrace=False)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("of_one_store", {"what MongoDB finds", "has not all been changed", "put k0", "CRASHED"}),
        ("expiring", {"mongo deletes k0", "dynamo deletes k0", "has verified, with 0 issues", "CRASHED"}),
    ],
)
def test_the_runs_come_by_what_one_store_does_alone(kind: str, wanted: set[str]) -> None:
    for seed in range(200):
        if not wanted:
            break
        told = "\n".join(text for _, text in run(seed, getattr(Conditions, kind)).trace)
        wanted = {each for each in wanted if each not in told}
    assert not wanted


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_a_weakened_rule_is_caught(mutation: Mutation) -> None:
    for seed in range(HELD):
        outcome = run(seed, mutation.conditions)
        assert outcome.failure is None, outcome.story()
    first = FIRST.get(mutation.name, 0)
    with mutation.applied():
        found = any(run(seed, mutation.conditions).failure for seed in range(first, first + MOST))
    assert found, "no seed has shown it"
