"""How fast backfill and verify are, and how much memory they take: `python -m tests.bench.migration [documents]`.

Starts a MongoDB and a DynamoDB Local of its own. Everything runs on one machine, so the figures are those of client and
servers together.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pymongo
from bson import ObjectId

from shadow.config import Settings
from shadow.embedded.servers import DynamoDBLocal, Mongod
from tests.support import dynamodb_local
from tests.support.migration import backfill, control_of, verify
from tests.support.shadows import COLLECTION, Site

_AT_ONCE = 10_000


class PatientSite(Site):
    """A site with the patience that production has: the tests' own is short."""

    def settings(self) -> Settings:
        made = super().settings()
        return made.model_copy(
            update={
                "dynamo": made.dynamo.model_copy(update={"read_timeout": 5.0, "max_attempts": 3}),
                "control": made.control.model_copy(update={"heartbeat": 1.0}),
            }
        )


def fill(site: Site, count: int) -> None:
    """Small documents under keys of two types, put into MongoDB past shadow."""
    with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
        for start in range(0, count, _AT_ONCE):
            rows = [_document(number) for number in range(start, min(count, start + _AT_ONCE))]
            client[site.database][COLLECTION].insert_many(rows, ordered=False)


def _document(number: int) -> dict[str, Any]:
    key = ObjectId() if number % 2 else f"k{number:09}"
    return {"_id": key, "name": f"name {number}", "n": number, "tags": ["a", "b"], "x": number * 1.5, "ok": True}


async def run(site: Site, count: int) -> None:
    async with site.shadow() as shadow:
        await shadow.prepare()
        control = control_of(site)
        await _timed("backfill", count, backfill(shadow, control, workers=8))
        await _timed("verify, full", count, verify(shadow, control))
        await _timed("verify, quick", count, verify(shadow, control, full=False))
        control.close()


async def _timed(what: str, count: int, work: Awaitable[Any]) -> None:
    started = time.perf_counter()
    result = await work
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{what}: {result.outcome}, {count / seconds:.0f} documents/s, {seconds:.1f} s, peak {peak} MiB")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder, Mongod() as mongo, DynamoDBLocal(dynamodb_local.home()) as dynamo:
        limits = {"operation": 30.0, "write_deadline": 5.0}
        site = PatientSite(mongo.url, "bench", dynamo.url, "bench-", str(Path(folder) / "shadow.db"), limits=limits)
        fill(site, count)
        print(f"{count} documents, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB before it begins")
        asyncio.run(run(site, count))


if __name__ == "__main__":
    main()
