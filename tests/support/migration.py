"""Backfill and verify over a `Site`, in this process and in others."""

from __future__ import annotations

import asyncio
from typing import Any

import pymongo

from shadow import Shadow
from shadow.control.epochs import proof_of
from shadow.control.records import Records
from shadow.jobs.backfill import Backfill
from shadow.jobs.finalize import Finalize, may_finalize
from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.verify import Scope, Summary, Verify, summary
from shadow.jobs.work import JobPace, Work
from shadow.model.phase import StoreName
from tests.support.shadows import COLLECTION, Site

__all__ = [
    "OpenJobs",
    "backfill",
    "control_of",
    "copy_in_another_process",
    "entered",
    "finalize",
    "finalize_in_another_process",
    "load",
    "verify",
]


class OpenJobs(Jobs):
    """Jobs that close the control store as well."""

    def __init__(self, records: Records, **clocks: Any) -> None:
        super().__init__(records, **clocks)
        self.records = records

    def close(self) -> None:
        self.records.close()


def control_of(site: Site) -> OpenJobs:
    """The jobs in the control store of a site, opened as one more process would."""
    records = site.settings().control_place().open()
    records.prepare()
    return OpenJobs(records)


def load(site: Site, documents: list[dict[str, Any]]) -> None:
    """Puts documents into MongoDB with the bare driver: nothing of shadow's is in them."""
    with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
        client[site.database][COLLECTION].insert_many(documents, ordered=False)


async def entered(shadow: Shadow, control: OpenJobs) -> None:
    """Returns when this process writes both stores, as the others see it: a job of its own proves nothing before that.
    (The commands are no process of the application.)"""
    await shadow[COLLECTION].update_one({"_id": "none"}, {"$set": {"n": 0}})
    async with asyncio.timeout(90):
        while not await asyncio.to_thread(proof_of, control.records, COLLECTION):  # noqa: ASYNC110 - it wakes nobody
            await asyncio.sleep(0.05)


async def backfill(shadow: Shadow, control: Jobs, **pace: Any) -> Job:
    return await Work(Backfill(shadow.admin.sides(COLLECTION)), control, JobPace(**{"workers": 4, **pace})).run()


async def verify(shadow: Shadow, control: Jobs, *, batch: int = 100, **scope: Any) -> Summary:
    task = Verify(shadow.admin.sides(COLLECTION), Scope(**scope))
    return summary(await Work(task, control, JobPace(workers=4, batch=batch)).run())


def copy_in_another_process(site: Site, batch: int) -> None:
    """The target of a child process that is going to be killed."""

    async def run() -> None:
        async with site.shadow() as shadow:
            jobs = control_of(site)
            await entered(shadow, jobs)
            await backfill(shadow, jobs, batch=batch, rate=400.0)

    asyncio.run(run())


async def finalize(
    shadow: Shadow,
    control: Jobs,
    store: str,
    *,
    collection: str = COLLECTION,
    apply: bool = True,
    older_than: float | None = 0.0,
    **pace: Any,
) -> Job:
    sides, name = shadow.admin.sides(collection), StoreName(store)
    await may_finalize(sides, name)
    task = Finalize(sides, name, apply=apply, older_than=older_than)
    return await Work(task, control, JobPace(**{"workers": 4, **pace})).run()


def finalize_in_another_process(site: Site, store: str, batch: int) -> None:
    """The target of a child process that is going to be killed."""

    async def run() -> None:
        async with site.shadow() as shadow:
            await finalize(shadow, control_of(site), store, batch=batch, rate=2000.0)

    asyncio.run(run())
