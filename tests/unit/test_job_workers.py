"""The workers of a job: what one of them gives back when another fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shadow.control.sqlite import SqliteRecords
from shadow.jobs.target import JobRefused
from shadow.jobs.work import JobPace, Work
from shadow.model.phase import StoreName
from tests.support.migration import OpenJobs

WORKERS = 6


class Refusing:
    """A job whose workers all have a range before the first of them is refused."""

    kind = "backfill"

    def __init__(self) -> None:
        self.sides: Any = SimpleNamespace(
            collection="things",
            identity="these",
            start=SimpleNamespace(primary=StoreName.MONGO, secondary=StoreName.DYNAMO, dual_write=False),
            traces=SimpleNamespace(work=lambda *_, **__: contextlib.nullcontext()),
        )
        self._all = asyncio.Barrier(WORKERS)

    def options(self) -> dict[str, Any]:
        return {}

    async def doubts(self) -> str:
        return ""

    async def split(self, parts: int) -> tuple[list[dict[str, Any]], int]:
        return [{"range": number} for number in range(parts)], parts

    async def scan(self, within: dict[str, Any], cursor: Any, size: int) -> AsyncGenerator[Any, None]:
        await self._all.wait()
        raise JobRefused("a table is missing", hint="make it")
        yield

    async def handle(self, within: dict[str, Any], batch: Any) -> Any:
        raise AssertionError("no batch was scanned")

    async def conclude(self, jobs: Any, job: int) -> str:
        raise AssertionError("nothing was done")


@pytest.mark.parametrize("called_off", [False, True])
async def test_workers_that_all_fail_give_all_their_ranges_back(
    tmp_path: Path, called_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose request waits for a thread when the first failure cancels the others, and when the command is
    called off in the middle of that."""
    jobs = OpenJobs(SqliteRecords(tmp_path / "control.db"))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    work = Work(Refusing(), jobs, JobPace(workers=WORKERS))
    begun, give_back = asyncio.Event(), Work._give_back

    async def told(release: Coroutine[Any, Any, Any]) -> None:
        begun.set()
        await give_back(release)

    monkeypatch.setattr(Work, "_give_back", staticmethod(told))
    running = asyncio.ensure_future(work.run())
    if called_off:
        await begun.wait()
        running.cancel()
    with pytest.raises((JobRefused, asyncio.CancelledError)):
        await running
    (job,) = jobs.jobs()
    assert job.parts == 0
    assert job.ranges_done == 0
    jobs.close()
