"""No interleaving lets a bare write meet a write of both stores, or a proof outlive a gap; and each rule is needed."""

from __future__ import annotations

import pytest

from tests.simulation.epochs import RULES, Broken, run

SEEDS = 100
FIRST = {
    "a process has its record before it enters": 135,
    "a bare write needs a lease": 75,
    "lowering looks at all processes again": 1255,
}
"""The seed to begin with, for a rule that few seeds show to be needed."""


@pytest.mark.timeout(300)
def test_no_seed_breaks_a_promise() -> None:
    for seed in range(SEEDS):
        run(seed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.replace(" ", "_"))
def test_a_rule_that_is_not_kept_is_caught(rule: str) -> None:
    first = FIRST.get(rule, 0)
    for seed in range(first, first + 20 * SEEDS):
        try:
            run(seed, without=rule)
        except Broken:
            return
    pytest.fail("no seed has shown it")
