"""Backfill and verify against what they cannot do without: `python -m tests.bench.bulk [documents] [rounds]`.

    backfill    against BatchWriteItem of the same items, encoded before the clock starts: no reading, no conditions
    verify      against reading both sides whole, as documents, and comparing nothing

The writes go through aioboto3's client as it comes, with the settings of ours; the reads through the ranges that the
jobs walk. Both have as many workers at once and as many documents at a time as the jobs.
Each round begins with empty tables, runs every contender, in an order that turns from round to round, and gives one
ratio of items a second. Starts a MongoDB and a DynamoDB Local of its own.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aioboto3
from aiobotocore.config import AioConfig

from shadow import Shadow
from shadow.embedded.servers import CREDENTIALS, DynamoDBLocal, Mongod
from shadow.migrate.backfill import Backfill
from shadow.migrate.verify import Scope, Verify, summary
from shadow.migrate.work import Pace, Work
from shadow.stores.dynamo.codec import Item
from shadow.stores.ranges import Ranges
from tests.bench.migration import Bench, fill
from tests.support import dynamodb_local
from tests.support.migration import OpenJobs, control_of
from tests.support.shadows import COLLECTION

WORKERS: Final = 8
BATCH: Final = 100
_REQUEST: Final = 25
"""Puts that one BatchWriteItem takes."""


async def encoded(shadow: Shadow) -> list[Item]:
    """The items that a backfill writes, but for the ids of the operations."""
    sides = shadow.sides(COLLECTION)
    codec = _table(sides.secondary).codec
    items: list[Item] = []
    async for batch in sides.source.walk(COLLECTION, {}, None, size=BATCH, whole=True, filter={}):
        for key, image in batch.images:
            text = key if isinstance(key, str) else str(key)
            items.append(codec.encode(text, image.state, image.document, "0" * 32).item)
    return items


def _table(store: Any) -> Any:
    return store._table(COLLECTION)


async def bare_writes(client: Any, table: str, items: Sequence[Item]) -> None:
    """BatchWriteItem, as a backfill sends its batches: each worker four requests at once."""
    batches = iter([items[i : i + BATCH] for i in range(0, len(items), BATCH)])

    async def request(part: Sequence[Item]) -> None:
        left = {table: [{"PutRequest": {"Item": item}} for item in part]}
        while left:
            answer = await client.batch_write_item(RequestItems=left)
            left = answer.get("UnprocessedItems") or {}

    async def worker() -> None:
        for batch in batches:
            await asyncio.gather(*(request(batch[i : i + _REQUEST]) for i in range(0, len(batch), _REQUEST)))

    await asyncio.gather(*(worker() for _ in range(WORKERS)))


async def bare_reads(sides: Sequence[Ranges]) -> int:
    """Every document of both sides, `WORKERS` ranges at once; how many there were."""
    ranges = iter([(side, each) for side in sides for each in await side.cut(COLLECTION, WORKERS * 4)])

    async def worker() -> int:
        count = 0
        for side, within in ranges:
            async for batch in side.walk(COLLECTION, within, None, size=BATCH, whole=True, filter={}):
                count += len(batch.images)
        return count

    return sum(await asyncio.gather(*(worker() for _ in range(WORKERS))))


async def _seconds(work: Callable[[], Awaitable[object]]) -> float:
    gc.collect()
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


class Rounds:
    """`made` gives a site with empty tables for each name."""

    def __init__(self, made: Callable[[str], Bench], documents: int) -> None:
        self._made = made
        self._documents = documents
        self.backfill: list[tuple[float, float]] = []
        self.verify: list[tuple[float, float]] = []

    async def one(self, number: int) -> None:
        """One round: seconds of (ours, the peer's) for both jobs."""
        site = self._made(f"ours{number}")
        bare = self._made(f"bare{number}")
        async with site.shadow() as shadow, bare.shadow() as other, _client(bare) as client:
            await shadow.prepare()
            await other.prepare()
            control = control_of(site)
            table = _table(other.sides(COLLECTION).secondary).name
            write = functools.partial(bare_writes, client, table, await encoded(shadow))
            self.backfill.append(await _pair(number, lambda: _backfill(shadow, control, self._documents), write))
            sides = shadow.sides(COLLECTION)
            self.verify.append(
                await _pair(
                    number,
                    lambda: _verify(shadow, control, self._documents),
                    lambda: bare_reads([sides.source, sides.target]),
                )
            )
            control.close()


def _client(site: Bench) -> Any:
    """A context manager of a plain client."""
    chosen = site.settings().dynamo
    config = AioConfig(
        max_pool_connections=chosen.max_concurrency,
        connect_timeout=chosen.connect_timeout,
        read_timeout=chosen.read_timeout,
        retries={"mode": "standard", "total_max_attempts": chosen.max_attempts},
        parameter_validation=False,
        tcp_keepalive=True,
    )
    return aioboto3.Session().client("dynamodb", endpoint_url=site.dynamo_url, config=config, **CREDENTIALS)


async def _pair(
    number: int, ours: Callable[[], Awaitable[object]], peer: Callable[[], Awaitable[object]]
) -> tuple[float, float]:
    if number % 2:
        taken = await _seconds(peer)
        return await _seconds(ours), taken
    return await _seconds(ours), await _seconds(peer)


async def _backfill(shadow: Shadow, control: OpenJobs, documents: int) -> None:
    job = await Work(Backfill(shadow.sides(COLLECTION)), control, Pace(workers=WORKERS, batch=BATCH)).run()
    # A request that the client repeated finds there what its first attempt has inserted.
    if job.outcome != "complete" or job.counts["copied"] + job.counts.get("present", 0) != documents:
        raise RuntimeError(f"the backfill came to {job.outcome}: {dict(job.counts)}")


async def _verify(shadow: Shadow, control: OpenJobs, documents: int) -> None:
    task = Verify(shadow.sides(COLLECTION), Scope())
    found = summary(await Work(task, control, Pace(workers=WORKERS, batch=BATCH)).run())
    if not found.clean or found.compared != documents:
        raise RuntimeError(f"the verification came to {found.outcome}")


def shown(what: str, documents: int, seconds: Sequence[tuple[float, float]]) -> str:
    """A row of a Markdown table; the ratio is of items a second, ours to the peer's."""
    ratios = [peer / ours for ours, peer in seconds]
    rates = [documents / statistics.median(each) for each in zip(*seconds, strict=True)]
    spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}]"
    return f"| {what} | {spread} | {rates[0]:.0f} / {rates[1]:.0f} |"


def main() -> None:
    documents = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder, Mongod() as mongo, DynamoDBLocal(dynamodb_local.home()) as dynamo:

        def made(name: str) -> Bench:
            limits = {"operation": 30.0, "write_deadline": 5.0}
            place = str(Path(folder) / f"{name}.db")
            return Bench(mongo.url, "bench", dynamo.url, f"{name}-", place, limits=limits)

        fill(made("filled"), documents)
        rounds = Rounds(made, documents)

        async def run() -> None:
            for number in range(count):
                await rounds.one(number)

        asyncio.run(run())
    print("| what | items/s, ratio [least .. most] | documents/s, ours / the peer's |\n|---|---|---|")
    print(shown("backfill against BatchWriteItem", documents, rounds.backfill))
    print(shown("verify against reading both sides", documents, rounds.verify))


if __name__ == "__main__":
    main()
