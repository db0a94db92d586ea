"""Backfill and verify against what they cannot do without.

    backfill    against BatchWriteItem of the same items, encoded before the clock starts: no reading, no conditions;
                and against the PartiQL batches of a backfill alone, which insert only where nothing is
    verify      against reading both sides whole, as documents, and comparing nothing;
                and against its own requests: one side walked and the other asked for the same keys, both ways

The writes go through aioboto3's client as it comes, with the settings of ours; the reads through the ranges that the
jobs walk. All have as many workers at once and as many documents at a time as the jobs. A block is one job, or the same
work of the peer, over the whole collection; what is written is written into tables that are made for the block.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import aioboto3
from aiobotocore.config import AioConfig

from shadow import Shadow
from shadow.embedded.servers import CREDENTIALS
from shadow.jobs.backfill import Backfill
from shadow.jobs.verify import Scope, Verify, summary
from shadow.jobs.work import JobPace, Work, WorkOptions
from shadow.stores.dynamo.items.codec import Item
from shadow.stores.dynamo.write.batches import insert_absent
from shadow.stores.ranges import Ranges
from tests.bench.harness import Bench, Block, Closed, Contender, Line
from tests.bench.migration import PatientSite, fill
from tests.support.migration import OpenJobs, control_of
from tests.support.shadows import COLLECTION

__all__ = ["NAMES", "bulk"]

NAMES: Final = ("backfill", "verify")
WORKERS: Final = 8
BATCH: Final = 100
_REQUEST: Final = 25
"""Puts that one BatchWriteItem takes."""
_PER_CALL: Final = 10
"""Documents for each call of an ordinary block."""


async def encoded(shadow: Shadow) -> list[Item]:
    """The items that a backfill writes, but for the ids of the operations."""
    sides = shadow.admin.sides(COLLECTION)
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

    async def request(part: Sequence[Item]) -> None:
        left = {table: [{"PutRequest": {"Item": item}} for item in part]}
        while left:
            answer = await client.batch_write_item(RequestItems=left)
            left = answer.get("UnprocessedItems") or {}

    async def write(batch: Sequence[Item]) -> None:
        await asyncio.gather(*(request(batch[i : i + _REQUEST]) for i in range(0, len(batch), _REQUEST)))

    await _by_workers(items, write)


async def conditional_writes(store: Any, items: Sequence[Item]) -> None:
    """The batches of a backfill without all else that it does."""

    async def write(batch: Sequence[Item]) -> None:
        if not all(await insert_absent(store._gateway, _table(store).name, batch)):
            raise RuntimeError("not all was inserted into a table that was empty")

    await _by_workers(items, write)


async def _by_workers(items: Sequence[Item], write: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
    batches = iter([items[i : i + BATCH] for i in range(0, len(items), BATCH)])

    async def worker() -> None:
        for batch in batches:
            await write(batch)

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


async def both_ways(source: Ranges, target: Ranges) -> None:
    """What a verification asks, with nothing compared: contents on the way there, stamps alone on the way back."""
    ways = ((source, target, True, BATCH), (target, source, False, 5 * BATCH))
    walks = iter([(way, each) for way in ways for each in await way[0].cut(COLLECTION, WORKERS * 4)])

    async def worker() -> None:
        for (walked, asked, whole, size), within in walks:
            async for batch in walked.walk(COLLECTION, within, None, size=size, whole=whole, filter={}):
                await asked.look(COLLECTION, [key for key, _ in batch.images], whole=whole)

    await asyncio.gather(*(worker() for _ in range(WORKERS)))


def _client(site: PatientSite) -> Any:
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


async def backfilled(shadow: Shadow, control: OpenJobs, documents: int) -> None:
    job = await Work(Backfill(shadow.admin.sides(COLLECTION)), control, JobPace(workers=WORKERS, batch=BATCH)).run()
    # A request that the client repeated finds there what its first attempt has inserted.
    if job.outcome != "complete" or job.counts["copied"] + job.counts.get("present", 0) != documents:
        raise RuntimeError(f"the backfill came to {job.outcome}: {dict(job.counts)}")


async def verified(shadow: Shadow, control: OpenJobs, documents: int) -> None:
    task = Verify(shadow.admin.sides(COLLECTION), Scope())
    found = summary(await Work(task, control, JobPace(workers=WORKERS, batch=BATCH), WorkOptions(restart=True)).run())
    if not found.clean or found.compared != documents:
        raise RuntimeError(f"the verification came to {found.outcome}")


@asynccontextmanager
async def bulk(mongo_url: str, endpoint: str, folder: Path, calls: int) -> AsyncIterator[list[Bench]]:
    documents = calls * _PER_CALL
    numbers, database = itertools.count(), f"bulk{uuid.uuid4().hex[:8]}"

    def made() -> PatientSite:
        """A site of its own over the same MongoDB: its tables are empty."""
        name = f"{database}-{next(numbers)}"
        limits = {"operation": 30.0, "write_deadline": 5.0}
        return PatientSite(mongo_url, database, endpoint, f"{name}-", str(folder / f"{name}.db"), limits=limits)

    async def timed(work: Callable[[], Awaitable[object]]) -> Block:
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return Block([wall / documents], cpu / documents, wall / documents)

    async def our_backfill() -> Block:
        site = made()
        async with site.shadow() as shadow:
            await shadow.prepare()
            control = control_of(site)
            block = await timed(lambda: backfilled(shadow, control, documents))
            control.close()
        return block

    async def their_backfill() -> Block:
        site = made()
        async with site.shadow() as shadow, _client(site) as client:
            await shadow.prepare()
            table, items = _table(shadow.admin.sides(COLLECTION).secondary).name, await encoded(shadow)
            return await timed(lambda: bare_writes(client, table, items))

    async def only_conditional() -> Block:
        site = made()
        async with site.shadow() as shadow:
            await shadow.prepare()
            store, items = shadow.admin.sides(COLLECTION).secondary, await encoded(shadow)
            return await timed(lambda: conditional_writes(store, items))

    site = made()
    await asyncio.to_thread(fill, site, documents)
    async with site.shadow() as shadow:
        await shadow.prepare()
        control = control_of(site)
        await backfilled(shadow, control, documents)
        sides = shadow.admin.sides(COLLECTION)
        yield [
            _bench(
                "backfill",
                our_backfill,
                {"BatchWriteItem": their_backfill, "conditional batches": only_conditional},
                0.6,
                documents,
            ),
            _bench(
                "verify",
                lambda: timed(lambda: verified(shadow, control, documents)),
                {
                    "reading both sides": lambda: timed(lambda: bare_reads([sides.source, sides.target])),
                    "its own requests": lambda: timed(lambda: both_ways(sides.source, sides.target)),
                },
                0.7,
                documents,
            ),
        ]
        control.close()


_Made: TypeAlias = Callable[[], Awaitable[Block]]


def _bench(name: str, ours: _Made, peers: Mapping[str, _Made], budget: float, documents: int) -> Bench:
    """Ratios of documents a second: a peer's time for one over ours. The budget is against the first peer."""
    contenders = [Contender(name, _unused, block=ours), *(Contender(p, _unused, block=m) for p, m in peers.items())]
    lines: list[Line] = []
    for place, peer in enumerate(peers):
        limit = None if place else budget
        lines += [
            Line(f"{name} of {documents:,}: documents a second", "seconds", peer, name, limit, at_least=True),
            Line(f"{name} of {documents:,}: processor time", "cpu", name, peer),
        ]
    return Bench(name, contenders, Closed(documents), lines)


async def _unused(number: int) -> None:
    raise AssertionError("a block is one job")
