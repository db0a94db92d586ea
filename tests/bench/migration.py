"""How fast backfill and verify are, and how much memory they take: `python -m tests.bench.migration [documents ...]`.

Starts a MongoDB and a DynamoDB Local of its own for each number of documents, and a process, for the memory is the most
that a process ever had. Everything runs on one machine, so the figures are those of client and servers together. With
several numbers it plots them.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
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
_TENFOLD = 12
_MIB_A_SIGN = 5


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


@dataclass(frozen=True, slots=True)
class Figure:
    """What one job took: `peak` is the most memory in MiB that its process had up to its end."""

    what: str
    documents: int
    seconds: float
    peak: int


async def run(site: Site, count: int) -> list[Figure]:
    async with site.shadow() as shadow:
        await shadow.prepare()
        control = control_of(site)
        figures = [
            await _timed("backfill", count, backfill(shadow, control, workers=8)),
            await _timed("verify, contents", count, verify(shadow, control)),
            await _timed("verify, versions", count, verify(shadow, control, full=False)),
        ]
        control.close()
        return figures


async def _timed(what: str, count: int, work: Awaitable[Any]) -> Figure:
    started = time.perf_counter()
    result = await work
    figure = Figure(what, count, time.perf_counter() - started, _peak())
    rate = f"{count / figure.seconds:,.0f} documents/s, {figure.seconds:.1f} s"
    print(f"{what} of {count:,}: {result.outcome}, {rate}, {figure.peak} MiB at most", flush=True)
    return figure


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measured(count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Mongod() as mongo, DynamoDBLocal(dynamodb_local.home()) as dynamo:
        limits = {"operation": 30.0, "write_deadline": 5.0}
        site = PatientSite(mongo.url, "bench", dynamo.url, "bench-", str(Path(folder) / "shadow.db"), limits=limits)
        fill(site, count)
        print(f"{count:,} documents, {_peak()} MiB before it begins", flush=True)
        return asyncio.run(run(site, count))


def plot(figures: Sequence[Figure]) -> str:
    """Bars: seconds by the power of ten, memory as it is."""
    lines = [f"seconds, {_TENFOLD} signs for ten times as many"]
    for what in dict.fromkeys(each.what for each in figures):
        for each in (each for each in figures if each.what == what):
            bar = _bar(_TENFOLD * math.log10(max(1.0, each.seconds)))
            lines.append(f"  {what:<17}{each.documents:>10,} |{bar} {each.seconds:,.1f}")
    lines.append(f"MiB at most, {_MIB_A_SIGN} for each sign")
    peaks = {each.documents: each.peak for each in figures}
    lines += [f"  {'the process':<17}{count:>10,} |{_bar(peak / _MIB_A_SIGN)} {peak}" for count, peak in peaks.items()]
    return "\n".join(lines)


def _bar(length: float) -> str:
    return "#" * round(length)


def main() -> None:
    counts = [int(each) for each in sys.argv[1:]] or [100_000]
    figures: list[Figure] = []
    for count in counts:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures += pool.apply(measured, (count,))
    if len(counts) > 1:
        print(plot(figures))


if __name__ == "__main__":
    main()
