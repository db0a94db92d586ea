"""A share of a job on a worker of a Dask cluster: what is sent to the worker, and what it does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from shadow.client import Shadow
from shadow.config import Settings, parse
from shadow.control.place import SqlitePlace
from shadow.errors import ConfigurationError, ShadowError
from shadow.host.process import this_process
from shadow.jobs.cluster import Ended
from shadow.jobs.jobs import Jobs
from shadow.jobs.target import JobRefused
from shadow.jobs.work import JobPace, Task, Work, WorkOptions

__all__ = ["WorkerTask", "part_of", "take_part"]


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is sent. `settings`: the text of the configuration file, which the worker's own environment
    overrides as usual. `files`: further overrides, for files that only the host `home` (see `Owner.realm`) has."""

    settings: str
    files: Mapping[str, str]
    home: str
    collection: str
    task: Callable[[Shadow, str], Task]
    pace: JobPace


def part_of(
    config: Path, settings: Settings, collection: str, task: Callable[[Shadow, str], Task], pace: JobPace
) -> WorkerTask:
    """The task for every worker of a cluster. `task` must be importable by name and its arguments picklable."""
    files = {}
    if settings.journal.kind == "sqlite":
        files["SHADOW_JOURNAL_URL"] = f"sqlite:///{settings.journal.path.absolute()}"
    place = settings.control_place()
    if isinstance(place, SqlitePlace):
        files["SHADOW_CONTROL_URL"] = f"sqlite:///{place.path.absolute()}"
    return WorkerTask(config.read_text(encoding="utf-8"), files, this_process().realm, collection, task, pace)


def take_part(part: WorkerTask) -> Ended:
    """Works on the job's ranges until none is left or the job is stopped. Runs in a thread of the worker. Returns
    shadow's own errors as text, because not all of them can be pickled."""
    try:
        asyncio.run(_take_part(part))
    except (ConfigurationError, JobRefused) as error:
        return Ended(refused=str(error))
    except ShadowError as error:
        return Ended(failed=str(error))
    return Ended()


async def _take_part(part: WorkerTask) -> None:
    if part.files and this_process().realm != part.home:
        what = " and ".join(name.removeprefix("SHADOW_").removesuffix("_URL").lower() for name in part.files)
        raise JobRefused(
            f"a worker on another host cannot use {what} in a file",
            hint="set journal.url and control.url to a server (MongoDB or DynamoDB) that all workers reach",
        )
    settings = parse(part.settings, {**os.environ, **part.files}, source="(sent to the worker)")
    with closing(settings.control_place().open()) as records:
        async with Shadow(settings, tool=True) as shadow:
            await shadow.admin.learn()
            task = part.task(shadow, part.collection)
            await Work(task, Jobs(records), part.pace, WorkOptions(join=True, wait=True)).run()
