"""Runs suites by hand: `python -m tests.suites NAME [MODE ...]` starts the servers, runs a suite bare and in modes, and
prints what differs. With `--write` the list of what is kept as known (`kept.json`) is written from what was found."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from shadow.embedded.servers import DynamoDBLocal, Mongod
from tests.suites import kept
from tests.suites.runs import Choice, Outcomes, Servers, run
from tests.suites.suites import MODES, SUITES
from tests.support import dynamodb_local


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--modes", nargs="*", default=list(MODES))
    parser.add_argument("--tests", nargs="*", default=[], help="arguments of pytest in the place of the suite's files")
    parser.add_argument("--log", action="store_true", help="prints what pytest said")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        servers = started(stack)
        for name in given.names or SUITES:
            bare = one(stack, name, "bare", servers, given)
            for mode in given.modes:
                found = kept.worse(bare, one(stack, name, mode, servers, given))
                for test, said in sorted(found.items()):
                    print(f"  {mode} {test}: {said}")
                if given.write:
                    kept.write(name, mode, found)


def started(stack: contextlib.ExitStack) -> Servers:
    """Servers that the environment names, else ones of our own."""
    mongo = os.environ.get("SHADOW_MONGO_URL") or stack.enter_context(Mongod()).url
    dynamo = os.environ.get("SHADOW_DYNAMO_URL") or stack.enter_context(DynamoDBLocal(dynamodb_local.home())).url
    return Servers(mongo, dynamo)


def one(stack: contextlib.ExitStack, name: str, mode: str, servers: Servers, given: argparse.Namespace) -> Outcomes:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"suite-{name[:7]}-{mode}-")))
    began = time.monotonic()
    outcomes = run(name, mode, servers, folder / "run", Choice(tests=tuple(given.tests)))
    counts = Counter(outcome for outcome, _ in outcomes.values())
    print(f"{name} {mode}: {dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)
    if given.log:
        print((folder / "run" / "log").read_text())
    return outcomes


if __name__ == "__main__":
    main()
