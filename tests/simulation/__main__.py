"""`python -m tests.simulation SEED [WORDS OF A MUTATION]`: runs one seed and tells everything that happened."""

from __future__ import annotations

import sys

from tests.simulation.mutations import MUTATIONS
from tests.simulation.runs import run


def main(seed: int, words: str) -> int:
    mutation = next((each for each in MUTATIONS if words and words in each.name), None)
    if mutation is None:
        outcome = run(seed)
    else:
        with mutation.applied():
            outcome = run(seed, mutation.conditions)
    print(outcome.story())
    return 0 if outcome.failure is None else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), " ".join(sys.argv[2:])))
