"""The simulator can fail: each rule of the protocol, weakened, breaks a promise within 2,000 seeds."""

from __future__ import annotations

import os

import pytest

from tests.simulation.flip_mutations import FLIP_MUTATIONS
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.runs import run

ALL = MUTATIONS + FLIP_MUTATIONS
SEEDS = 2000
HELD = 40 if os.environ.get("SHADOW_LONG") == "1" else 10
"""Seeds under which the rule itself is looked at: one would tell that the conditions alone break it, and the seeds of
`test_simulation` draw the same conditions."""
FIRST = {
    "a batch of heals does not touch a deletion again": 655,
    "a flip that was aborted counts as made": 20,
    "a heal goes on while the roles change": 40,
    "a process that begins alone leaves what was proven as it is": 140,
    "a process goes on with bare writes when it hears nothing any more": 40,
    "a process that has died has no bare write under way": 30,
    "a process that ends has no bare write under way": 80,
    "the id of the operation that found a document is not kept with it": 325,
    "the journal goes by a clock that somebody sets": 80,
    "the statements of a batch of replays have no conditions": 145,
    "two times of writes to one store have one name": 60,
    "values change hands in one step that has no conditions": 675,
    "what a command for many documents may have changed is changed alone": 45,
    "which document an operation has found is asked of whoever says that it is the primary": 1360,
}
"""The seed to begin with, for a rule that few seeds show to be needed."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_a_weakened_rule_is_caught(mutation: Mutation) -> None:
    first = FIRST.get(mutation.name, 0)
    with mutation.applied():
        found = any(run(seed, mutation.conditions).failure for seed in range(first, first + SEEDS))
    assert found, "no seed has shown it"


@pytest.mark.takes_turns
@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_the_rule_itself_holds_under_the_same_conditions(mutation: Mutation) -> None:
    """What is caught is the mutation, not the conditions."""
    for seed in range(HELD):
        outcome = run(seed, mutation.conditions)
        assert outcome.failure is None, outcome.story()
