"""`python -m tests.simulation SEED [MUTATION]`: runs one seed and prints everything that happened."""

from __future__ import annotations

import sys

from tests.simulation.runs import run

if __name__ == "__main__":
    outcome = run(int(sys.argv[1]))
    print(outcome.story())
    sys.exit(outcome.failure is not None)
