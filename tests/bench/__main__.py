"""`python -m tests.bench [--quick] [--only NAME] [--json FILE]`: starts real servers, measures, prints the table.

Exit status 1 if a line of the budget is not met and `--strict` is given, else 0.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from pathlib import Path

import uvloop

from shadow.embedded.servers import CREDENTIALS, DynamoDBLocal, Ministack, Mongod
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from tests.bench import parts, reads, writes
from tests.bench.bulk import NAMES as BULK
from tests.bench.bulk import bulk
from tests.bench.faults import beside_faults
from tests.bench.harness import Bench, Result, run
from tests.bench.journals import journals_beside_each_other
from tests.bench.lanes import NAME as LANES
from tests.bench.lanes import lanes
from tests.bench.many import NAMES as MANY
from tests.bench.many import many
from tests.bench.peers import Peers, document, opened
from tests.bench.processes import COUNTS, processes
from tests.bench.sites import Sites
from tests.bench.table import as_json, missed, row, table
from tests.bench.traces import traces
from tests.support import dynamodb_local

_QUICK = ("comparison", "find_one off", "find_one shadow", "find_one paced", "update_one paced", *BULK)
"""What a minute's look is at: the lines of the budget. `--only` chooses others."""


_SEPARATE = (LANES, *MANY, *BULK, *map("processes {}".format, COUNTS))
"""Benches that make their own Shadows: where no other one is asked for, no others are made."""


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The cost of shadow, as ratios.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls: a look, no figure to quote")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="benches whose name begins so")
    parser.add_argument("--rounds", type=int, default=0, help="rounds that count (7; 3 with --quick)")
    parser.add_argument("--calls", type=int, default=0, help="calls in a block (600; 80 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    parser.add_argument("--ministack", action="store_true", help="ministack in the place of DynamoDB Local")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop, which most FastAPI applications run on")
    parser.add_argument("--list", action="store_true", help="name the benches and end")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a budget is not met")
    chosen = parser.parse_args(given)
    chosen.rounds = chosen.rounds or (3 if chosen.quick else 7)
    chosen.calls = chosen.calls or (80 if chosen.quick else 600)
    chosen.only = chosen.only or (list(_QUICK) if chosen.quick and not chosen.list else [])
    return chosen


def wanted(benches: Iterable[Bench], only: list[str]) -> list[Bench]:
    return [each for each in benches if not only or any(each.name.startswith(name) for name in only)]


async def measure(mongo_url: str, endpoint: str, folder: Path, chosen: argparse.Namespace) -> AsyncIterator[Result]:
    """The results, one by one as they come."""
    database = f"bench{uuid.uuid4().hex[:8]}"
    notes = [document(number) for number in range(reads.COUNT)]
    notes += [document(number, size) for number, size in reads.keys_of_sizes().items()]
    notes += reads.many()
    settings = DynamoSettings(
        endpoint_url=endpoint,
        access_key_id=CREDENTIALS["aws_access_key_id"],
        secret_access_key=CREDENTIALS["aws_secret_access_key"],
    )
    store = DynamoStore(settings, {})
    try:
        async with opened(mongo_url, database, endpoint) as peers:
            await peers.plant(notes)
            if chosen.list or not chosen.only or not set(_SEPARATE).issuperset(chosen.only):
                # Their Shadows are closed before the next benches begin: each has tasks of its own in the event loop.
                async with Sites(mongo_url, database, endpoint, folder) as sites:
                    await sites.plant(notes)
                    with (
                        writes.journal_benches(folder, chosen.calls) as journal,
                        journals_beside_each_other(mongo_url, database, endpoint, folder, chosen.calls) as journals,
                        beside_faults(endpoint) as secondary,
                    ):
                        benches = [
                            parts.comparison(chosen.calls),
                            parts.imports(chosen.calls),
                            *journal,
                            *journals,
                            *await parts.store(peers, store, chosen.calls),
                            *await reads.benches(peers, sites, chosen.calls),
                            await traces(sites, chosen.calls),
                            *await writes.benches(peers, sites, chosen.calls),
                            await secondary(sites, chosen.calls),
                        ]
                        if chosen.list:
                            print("\n".join([*(each.name for each in benches), *_SEPARATE]))
                            return
                        for bench in wanted(benches, chosen.only):
                            for result in await run(bench, chosen.rounds):
                                yield result
            async for result in separate(peers, mongo_url, database, endpoint, folder, chosen):
                yield result
    finally:
        await store.close()


async def separate(
    peers: Peers, mongo_url: str, database: str, endpoint: str, folder: Path, chosen: argparse.Namespace
) -> AsyncIterator[Result]:
    """The results of the benches that make their own Shadows."""
    if any(LANES.startswith(only) for only in chosen.only or [""]):
        async with lanes(peers, endpoint, chosen.calls) as bench:
            for result in await run(bench, chosen.rounds):
                yield result
    if any(name.startswith(only) for name in MANY for only in chosen.only or [""]):
        async with many(peers, mongo_url, database, endpoint, folder, chosen.calls) as calls_for_many:
            for bench in wanted(calls_for_many, chosen.only):
                for result in await run(bench, chosen.rounds):
                    yield result
    if any(name.startswith(only) for name in BULK for only in chosen.only or [""]):
        async with bulk(mongo_url, endpoint, folder, chosen.calls) as jobs:
            for bench in wanted(jobs, chosen.only):
                for result in await run(bench, chosen.rounds):
                    yield result
    for count in COUNTS:
        if not any(f"processes {count}".startswith(name) for name in chosen.only or [""]):
            continue
        async with processes(count, chosen.calls, mongo_url, database, endpoint) as bench:
            for result in await run(bench, chosen.rounds):
                yield result


async def show(mongo_url: str, endpoint: str, folder: Path, chosen: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    async for result in measure(mongo_url, endpoint, folder, chosen):
        results.append(result)
        print("  ".join(row(result)), file=sys.stderr, flush=True)
    return results


def main(given: list[str]) -> int:
    chosen = arguments(given)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mongo = stack.enter_context(Mongod())
        dynamo = stack.enter_context(Ministack() if chosen.ministack else DynamoDBLocal(dynamodb_local.home()))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if chosen.uvloop else None) as runner:
            results = runner.run(show(mongo.url, dynamo.url, folder, chosen))
    if results:
        print(table(results))
    if chosen.json is not None:
        chosen.json.write_text(as_json(results, command=" ".join(["python -m tests.bench", *given])) + "\n", "utf-8")
    return 1 if chosen.strict and missed(results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
