"""`shadow jobs`: what backfills and verifications are doing, and the hand on them; and what their verbs share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from shadow.cli.options import AsJson, ConfigFile, bar, print_json
from shadow.cli.part import part_of, take_part
from shadow.client import Shadow
from shadow.compare.diff import Hasher
from shadow.config import Settings, load
from shadow.control import members
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.migrate.cluster import Cluster
from shadow.migrate.jobs import Issue, Job, Jobs
from shadow.migrate.sides import JobRefused
from shadow.migrate.verify import UNREADABLE
from shadow.migrate.work import Pace, Task, Work
from shadow.model.phase import Phase
from shadow.model.values import type_name
from shadow.model.verdict import Kind

__all__ = ["Named", "Options", "app", "control_of", "named", "run_jobs"]

app = typer.Typer(help="Backfills and verifications at work: how fast, and how to stop one.", no_args_is_help=True)

Collections = Annotated[list[str] | None, typer.Argument(help="The collections; all of the configuration if none.")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Ranges worked on at once in each process.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Processes on this host that share the work.")]
Rate = Annotated[
    float | None,
    typer.Option(min=1, help="Documents a second over all processes; `shadow jobs rate` changes it while it runs."),
]
Latency = Annotated[
    float, typer.Option(min=0, help="Milliseconds that a read of the primary may take before the job slows down.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="A Dask cluster whose workers do the work instead: the address of its scheduler (tcp://...)."),
]
Restart = Annotated[bool, typer.Option("--restart", help="Give up the checkpoints there are, and begin anew.")]
Join = Annotated[bool, typer.Option("--join", hidden=True)]

_WINDOW: Final = 10
_NAMED: Final = 10
"""Issues that a report names one by one."""
_TICK: Final = 0.5


class Options:
    """How a verb that runs a job was called."""

    def __init__(
        self,
        workers: int,
        processes: int,
        rate: float | None,
        latency: float,
        *,
        scheduler: str | None,
        restart: bool,
        join: bool,
    ) -> None:
        if scheduler is not None and processes > 1:
            raise typer.BadParameter("--processes are of this host, --scheduler names a cluster: give one of them")
        self.pace = Pace(workers=workers, rate=rate, latency=latency / 1000)
        self.processes = processes
        self.scheduler = scheduler
        self.restart = restart
        self.join = join


def control_of(settings: Settings) -> Records:
    """The control store of a configuration, made if it is missing. The caller closes it."""
    records = settings.control_place().open()
    records.prepare()
    return records


class _Run:
    """One call of a verb: a job for each collection, one after the other."""

    def __init__(
        self,
        config: Path,
        options: Options,
        task: Callable[[Shadow, str], Task | Awaitable[Task]],
        *,
        quiet: bool,
        verb: Sequence[str],
    ) -> None:
        self._config = config
        self._options = options
        self._task = task
        self._quiet = quiet
        self._verb = verb

    async def __call__(self, collections: Sequence[str] | None) -> list[Job]:
        settings = load(self._config)
        done: list[Job] = []
        async with contextlib.AsyncExitStack() as stack:
            records = stack.enter_context(contextlib.closing(await asyncio.to_thread(control_of, settings)))
            shadow = await stack.enter_async_context(Shadow(settings, path=self._config, tool=True))
            scheduler = self._options.scheduler
            cluster = None if scheduler is None else await stack.enter_async_context(Cluster(scheduler))
            for name in collections or list(settings.collections):
                work = await self._work(shadow, name, records, cluster)
                done.append(await (self._here(work, name) if cluster is None else self._there(work, name, cluster)))
                if done[-1].finished is None:
                    break
        return done

    async def _work(self, shadow: Shadow, name: str, records: Records, cluster: Cluster | None) -> Work:
        if name in shadow.routes():
            await asyncio.to_thread(_check_fleet, records, name, shadow)
        options, made = self._options, self._task(shadow, name)
        processes = options.processes if cluster is None else cluster.size
        return Work(
            await made if isinstance(made, Awaitable) else made,
            Jobs(records),
            options.pace,
            restart=options.restart,
            join=options.join,
            slots=processes * options.pace.workers,
        )

    async def _here(self, work: Work, name: str) -> Job:
        """In this process, and in helping ones of this host."""
        await work.begin()
        helper = [*self._verb, name, "--config", str(self._config)]
        helpers = [await _help(helper, self._options) for _ in range(self._options.processes - 1)]
        try:
            async with self._watched(work):
                return await work.run()
        finally:
            for each in helpers:
                with contextlib.suppress(ProcessLookupError):
                    each.terminate()
            await asyncio.gather(*(each.wait() for each in helpers))

    async def _there(self, work: Work, name: str, cluster: Cluster) -> Job:
        """On the workers of a cluster; this process sees to it that each has its part."""
        await work.begin()
        # Only verbs whose task is made at once take --scheduler.
        make = cast(Callable[[Shadow, str], Task], self._task)
        part = part_of(self._config, load(self._config), name, make, self._options.pace)
        async with self._watched(work):
            await cluster.work_off(work, take_part, part)
            return await work.end()

    @contextlib.asynccontextmanager
    async def _watched(self, work: Work) -> AsyncIterator[None]:
        with _until_signalled(work), bar(work.task.kind, quiet=self._quiet) as shown:
            showing = asyncio.create_task(_show(work, shown))
            try:
                yield
            finally:
                showing.cancel()
                # What it could not show is no fault of the job.
                await asyncio.gather(showing, return_exceptions=True)


def _check_fleet(records: Records, name: str, shadow: Shadow) -> None:
    """A job over what one process of the application does not write twice would miss its writes."""
    if not shadow.routes()[name].dual_write:
        return
    rows = members.prune(records, members.members(records))
    alone = [row.name for row in rows if not row.tool and _writes_alone(row, name)]
    if alone:
        raise JobRefused(
            f"{name}: {', '.join(alone)} writes to one store only",
            hint="give every process of the application phase dual_write first: shadow fleet list",
        )


def _writes_alone(row: Member, name: str) -> bool:
    standing = row.standing.get(name)
    return standing is not None and standing.phase is Phase.OFF


async def run_jobs(
    config: Path,
    collections: Sequence[str] | None,
    options: Options,
    task: Callable[[Shadow, str], Task | Awaitable[Task]],
    *,
    quiet: bool,
    verb: Sequence[str],
) -> list[Job]:
    """Runs one job a collection, one after the other. `verb` is the command line that a helping process gets, `task`
    a function that a worker of a cluster can import."""
    return await _Run(config, options, task, quiet=quiet, verb=verb)(collections)


async def _help(helper: Sequence[str], options: Options) -> asyncio.subprocess.Process:
    program = [sys.executable, "-c", "from shadow.cli import main; main()"]
    pace = ["--join", "--json", "--workers", str(options.pace.workers), "--latency", str(options.pace.latency * 1000)]
    return await asyncio.create_subprocess_exec(*program, *helper, *pace, stdout=asyncio.subprocess.DEVNULL)


@contextlib.contextmanager
def _until_signalled(work: Work) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the work after the batches at hand, with its checkpoints."""
    loop = asyncio.get_running_loop()
    able = os.name == "posix" and threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if able else ()
    for number in numbers:
        loop.add_signal_handler(number, work.stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _show(work: Work, shown: Progress) -> None:
    task = shown.add_task("starting", total=None)
    seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
    while not shown.disable:
        job = await work.look()
        seen.append((time.monotonic(), job.counts.get("seen", 0)))
        rate = _rate(seen)
        left = f", {_time((job.total - seen[-1][1]) / rate)} left" if rate and job.total > seen[-1][1] else ""
        text = f"{job.collection}: {seen[-1][1]} of about {job.total}, {rate:.0f}/s{left}"
        shown.update(task, total=job.total or None, completed=seen[-1][1], description=text)
        await asyncio.sleep(_TICK)


def _rate(seen: Sequence[tuple[float, int]]) -> float:
    (first, before), (last, now) = seen[0], seen[-1]
    return (now - before) / (last - first) if last > first else 0.0


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@dataclass(frozen=True, slots=True)
class Named:
    """An issue of a job that wants a person: the type and the keyed hash of its key, its kind, and why."""

    key: str
    kind: str
    reason: str


def named(config: Path, job: Job) -> list[Named]:
    """The first issues of a job whose documents cannot be read or copied, by key."""
    if not job.issues:
        return []
    settings = load(config)
    secret = settings.observe.hash_secret
    hasher = Hasher(secret.get_secret_value().encode() if secret is not None else b"")
    with contextlib.closing(control_of(settings)) as records:
        kept = (each for issues in Jobs(records).issues(job.id) for each in issues if _wants_a_person(each))
        return [
            Named(f"{type_name(each.key)}:{hasher.hash_key(each.key)}", each.kind, each.reason)
            for each in islice(kept, _NAMED)
        ]


def _wants_a_person(issue: Issue) -> bool:
    return issue.kind in ("failed", UNREADABLE) or issue.reason.startswith(Kind.UNREADABLE)


# --- the verbs --------------------------------------------------------------------------------------------------


def _row(job: Job) -> dict[str, Any]:
    state = job.outcome or ("stopping" if job.stopping else "running" if job.parts else "not at work")
    return {
        "job": job.id,
        "kind": job.kind,
        "collection": job.collection,
        "state": state,
        "ranges": f"{job.ranges_done}/{job.ranges}",
        "seen": job.counts.get("seen", 0),
        "total": job.total,
        "issues": sum(job.issues.values()),
        "rate": job.rate,
        "processes": job.parts,
        "started": job.started,
        "finished": job.finished,
    }


@app.command("list")
def list_jobs(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """The jobs in the control store, the newest first."""
    with _jobs(config) as jobs:
        rows = [_row(job) for job in jobs.jobs()]
    if as_json:
        print_json(rows)
        return
    table = Table("job", "kind", "collection", "state", "ranges", "seen", "issues", "rate", "processes")
    for row in rows:
        table.add_row(*(str("-" if row[name] is None else row[name]) for name in _SHOWN))
    Console().print(table)


_SHOWN: Final = ("job", "kind", "collection", "state", "ranges", "seen", "issues", "rate", "processes")


@app.command("rate")
def rate(
    job: Annotated[int, typer.Argument(help="Its number, as `shadow jobs list` says.")],
    documents: Annotated[float, typer.Argument(min=0, help="Documents a second over all processes; 0 for no limit.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Changes how fast a job may go; within a second, also while it runs."""
    with _jobs(config) as jobs:
        jobs.set_rate(job, documents or None)
    typer.echo(f"job {job}: {f'{documents:g} documents a second' if documents else 'no limit'}")


@app.command("stop")
def stop(
    job: Annotated[int, typer.Argument(help="Its number, as `shadow jobs list` says.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Ends a job after the batches at hand, in all its processes. The same command as before goes on with it."""
    with _jobs(config) as jobs:
        jobs.stop(job)
    typer.echo(f"job {job}: stopping")


@contextlib.contextmanager
def _jobs(config: Path) -> Iterator[Jobs]:
    with contextlib.closing(control_of(load(config))) as records:
        yield Jobs(records)
