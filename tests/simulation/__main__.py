"""`python -m tests.simulation SEED [NAME=VALUE ...] [WORDS OF A MUTATION]`: runs one seed and tells all that happened.

`NAME=VALUE` sets one of the `Conditions` that the seed would have drawn.
"""

from __future__ import annotations

import ast
import sys
from contextlib import nullcontext

from tests.simulation.conditions import Conditions
from tests.simulation.flip_mutations import FLIP_MUTATIONS
from tests.simulation.mutations import MUTATIONS
from tests.simulation.runs import run


def main(seed: int, arguments: list[str]) -> int:
    pairs = [each.split("=", 1) for each in arguments if "=" in each]
    changes = {name: ast.literal_eval(value) for name, value in pairs}
    words = " ".join(each for each in arguments if "=" not in each)
    mutation = next((each for each in MUTATIONS + FLIP_MUTATIONS if words and words in each.name), None)

    def conditions(drawn: Conditions) -> Conditions:
        return (drawn if mutation is None else mutation.conditions(drawn)).but(**changes)

    with nullcontext() if mutation is None else mutation.applied():
        outcome = run(seed, conditions)
    print(outcome.story())
    return 0 if outcome.failure is None else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
