"""Runs suites by hand: `python -m tests.suites NAME [MODE ...]` starts the servers, runs a suite bare and in modes, and
prints what differs. With `--write` the list of what is kept as known (`kept.json`) is written from what was found."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from shadow.embedded.servers import DynamoDBLocal, Mongod
from tests.suites import kept
from tests.suites.apps import APPS, with_library
from tests.suites.apps import bare as bare_app
from tests.suites.plays import first_difference
from tests.suites.runs import Choice, Outcomes, Servers, run
from tests.suites.suites import MODES, SUITES
from tests.support import dynamodb_local


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join([*SUITES, *APPS])} (default: all)")
    parser.add_argument("--modes", nargs="*", default=list(MODES), help="bare, off, shadow, dynamo")
    parser.add_argument("--tests", nargs="*", default=[], help="arguments of pytest in the place of the suite's files")
    parser.add_argument("--part", type=int, help="one of the parts that a short run draws from")
    parser.add_argument("--kept", action="store_true", help="only the tests that kept.json has")
    parser.add_argument("--log", action="store_true", help="prints what pytest said")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        servers = started(stack)
        for name in given.names or [*SUITES, *APPS]:
            for mode, found in (played if name in APPS else ran)(stack, name, servers, given):
                for test, said in sorted(found.items()):
                    print(f"  {mode} {test}: {said}")
                if given.write:
                    kept.write(name, mode, found)


def ran(
    stack: contextlib.ExitStack, name: str, servers: Servers, given: argparse.Namespace
) -> Iterator[tuple[str, dict[str, str]]]:
    """Mode, and what fails in it of a suite although it passes bare."""
    bare: Outcomes = {}
    for mode in given.modes:
        tests = tuple(kept.known(name, mode)) if given.kept else tuple(given.tests)
        if given.kept and not tests:
            continue
        parts = 1 if given.part is None else SUITES[name].parts
        ended = one(stack, name, mode, servers, Choice(parts, given.part or 0, tests), log=given.log)
        if mode == "bare":
            bare |= ended
            continue
        failed = {test: said for test, (outcome, said) in ended.items() if outcome == "failed"}
        if not given.kept and (unknown := tuple(test for test in failed if test not in bare)):
            bare |= one(stack, name, "bare", servers, Choice(tests=unknown), log=given.log)
        yield mode, {test: said for test, said in failed.items() if given.kept or bare[test][0] == "passed"}


def played(
    stack: contextlib.ExitStack, name: str, servers: Servers, given: argparse.Namespace
) -> Iterator[tuple[str, dict[str, str]]]:
    """Mode, and the features of an application that answer otherwise than bare."""
    database = f"t{uuid.uuid4().hex[:12]}"
    bare = asyncio.run(bare_app(APPS[name], servers, database))
    for mode in given.modes:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"app-{name}-")))
        own = asyncio.run(with_library(APPS[name], mode, servers, database, folder))
        print(f"{name} {mode}: apart {own.apart}, {own.mismatches} mismatches", flush=True)
        differing = {each: first_difference(wanted, own.answers[each]) for each, wanted in bare.answers.items()}
        yield mode, {feature: said for feature, said in differing.items() if said}
    with MongoClient[Any](servers.mongo_url) as client:
        client.drop_database(database)


def started(stack: contextlib.ExitStack) -> Servers:
    """Servers that the environment names, else ones of our own."""
    mongo = os.environ.get("SHADOW_MONGO_URL") or stack.enter_context(Mongod()).url
    dynamo = os.environ.get("SHADOW_DYNAMO_URL") or stack.enter_context(DynamoDBLocal(dynamodb_local.home())).url
    return Servers(mongo, dynamo)


def one(stack: contextlib.ExitStack, name: str, mode: str, servers: Servers, choice: Choice, *, log: bool) -> Outcomes:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"suite-{name[:7]}-{mode}-")))
    began = time.monotonic()
    outcomes = run(name, mode, servers, folder / "run", choice)
    counts = Counter(outcome for outcome, _ in outcomes.values())
    print(f"{name} {mode}: {dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)
    if log:
        print((folder / "run" / "log").read_text())
    return outcomes


if __name__ == "__main__":
    main()
