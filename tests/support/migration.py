"""Backfill and verify over a `Site`, in this process and in others."""

from __future__ import annotations

import asyncio
from typing import Any

import pymongo

from shadow import Shadow
from shadow.control.records import Records
from shadow.migrate.backfill import Backfill
from shadow.migrate.finalize import Finalize, may_finalize
from shadow.migrate.jobs import Job, Jobs
from shadow.migrate.verify import Scope, Summary, Verify, summary
from shadow.migrate.work import Pace, Work
from shadow.model.phase import StoreName
from tests.support.shadows import COLLECTION, Site

__all__ = [
    "OpenJobs",
    "backfill",
    "control_of",
    "copy_in_another_process",
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


async def backfill(shadow: Shadow, control: Jobs, **pace: Any) -> Job:
    return await Work(Backfill(shadow.sides(COLLECTION)), control, Pace(**{"workers": 4, **pace})).run()


async def verify(shadow: Shadow, control: Jobs, *, batch: int = 100, **scope: Any) -> Summary:
    task = Verify(shadow.sides(COLLECTION), Scope(**scope))
    return summary(await Work(task, control, Pace(workers=4, batch=batch)).run())


def copy_in_another_process(site: Site, batch: int) -> None:
    """The target of a child process that is going to be killed."""

    async def run() -> None:
        async with site.shadow() as shadow:
            await backfill(shadow, control_of(site), batch=batch, rate=2000.0)

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
    sides, name = shadow.sides(collection), StoreName(store)
    await may_finalize(sides, name)
    task = Finalize(sides, name, apply=apply, older_than=older_than)
    return await Work(task, control, Pace(**{"workers": 4, **pace})).run()


def finalize_in_another_process(site: Site, store: str, batch: int) -> None:
    """The target of a child process that is going to be killed."""

    async def run() -> None:
        async with site.shadow() as shadow:
            await finalize(shadow, control_of(site), store, batch=batch, rate=2000.0)

    asyncio.run(run())
