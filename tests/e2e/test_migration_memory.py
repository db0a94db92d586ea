"""Backfill and verify hold a few batches at a time, however large the collection is.

SHADOW_LONG=1: a million small documents, and never more than 250 MiB."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.migration import backfill, control_of, load, verify
from tests.support.shadows import Site

LONG = os.environ.get("SHADOW_LONG") == "1"
COUNT, SIZE, BATCH = (1_000_000, 10, 100) if LONG else (2_000, 20_000, 10)
MIB = 2**20
ALLOWED = (250 if LONG else 25) * MIB
"""Growth in bytes; the documents of the short form are half as much again together."""


@contextmanager
def watched() -> Iterator[list[int]]:
    """The memory of this process, looked at all the time that the block runs."""
    process = psutil.Process()
    sizes = [process.memory_info().rss]

    async def watch() -> None:
        while True:
            sizes.append(process.memory_info().rss)
            await asyncio.sleep(0.02)

    task = asyncio.get_running_loop().create_task(watch())
    try:
        yield sizes
    finally:
        task.cancel()


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(7200 if LONG else 120)
async def test_memory_does_not_grow_with_the_collection(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    site = Site(
        mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"),
        limits={"write_deadline": 2.0},
    )  # fmt: skip
    for start in range(0, COUNT, 1000):
        load(site, [{"_id": f"k{start + each}", "text": "x" * SIZE} for each in range(min(1000, COUNT - start))])
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await verify(shadow, control, full=False, filter={"_id": "k0"})
        with watched() as sizes:
            assert (await backfill(shadow, control, batch=BATCH)).outcome == "complete"
            found = await verify(shadow, control, batch=BATCH)
    assert (found.clean, found.compared) == (True, COUNT)
    assert max(sizes) - sizes[0] < ALLOWED, f"{(max(sizes) - sizes[0]) / MIB:.0f} MiB more"
    control.close()
