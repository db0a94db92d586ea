"""The simulator can fail: each rule of the protocol, weakened, breaks a promise within 2,000 seeds."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.runs import run

SEEDS = 2000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_a_weakened_rule_is_caught(mutation: Mutation) -> None:
    with mutation.applied():
        assert any(run(seed, mutation.conditions).failure for seed in range(SEEDS)), "no seed has shown it"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_the_rule_itself_holds_under_the_same_conditions(mutation: Mutation) -> None:
    """What is caught is the mutation, not the conditions."""
    for seed in range(40):
        outcome = run(seed, mutation.conditions)
        assert outcome.failure is None, outcome.story()
