"""`shadow jobs`: lists and controls backfills and verifications; and what the commands that run jobs share."""

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
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Console
from rich.table import Table

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.part import part_of, take_part
from shadow.cli.progress import Shown, duration, is_watched, progress
from shadow.client import Shadow
from shadow.compare.diff import Hasher
from shadow.config import Settings, load
from shadow.control import epochs, members
from shadow.control import flip_record as routing
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.host.tasks import begin
from shadow.jobs.cluster import Cluster
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.round import Round
from shadow.jobs.target import JobRefused
from shadow.jobs.verify import UNREADABLE
from shadow.jobs.work import JobPace, Task, Work, WorkOptions
from shadow.model.phase import Phase, Route
from shadow.model.values import type_name
from shadow.model.verdict import Kind

__all__ = ["JobOptions", "Named", "app", "chosen", "control_of", "job_records", "named", "namer", "run_jobs"]

app = typer.Typer(help="Lists backfills and verifications, and controls them.", no_args_is_help=True)

Collections = Annotated[list[str] | None, typer.Argument(help="The collections; default: every configured one.")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Ranges to work on at once in each process.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Processes of this host that share the work.")]
Rate = Annotated[
    float | None,
    typer.Option(min=1, help="Documents per second over all processes; `shadow jobs rate` changes it."),
]
Latency = Annotated[
    float, typer.Option(min=0, help="Slow down while a read of the primary takes more milliseconds than this.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Let the workers of a Dask cluster do the work: its scheduler's address (tcp://...)."),
]
Restart = Annotated[bool, typer.Option("--restart", help="Discard the checkpoints and start again.")]
Join = Annotated[bool, typer.Option("--join", hidden=True)]

_WINDOW: Final = 10
_NAMED: Final = 10
"""The most issues that a report lists by key."""
_TICK: Final = 0.5
"""Seconds between two updates of the progress that a terminal shows."""
_UNWATCHED: Final = 2.0


@dataclass(frozen=True)
class JobOptions:
    """The options of a command that runs a job. `latency` in milliseconds."""

    workers: int
    processes: int
    rate: float | None
    latency: float
    _: KW_ONLY
    scheduler: str | None
    restart: bool
    join: bool

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.processes > 1:
            raise typer.BadParameter(
                "--processes and --scheduler exclude each other: this host's processes, or a cluster"
            )

    @property
    def pace(self) -> JobPace:
        return JobPace(workers=self.workers, rate=self.rate, latency=self.latency / 1000)


def control_of(settings: Settings) -> Records:
    """The control store of a configuration, created if it is missing. The caller closes it."""
    records = settings.control_place().open()
    records.prepare()
    return records


class _JobCall:
    """One call of a command: a job for each collection, one after the other."""

    def __init__(
        self,
        config: Path,
        options: JobOptions,
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
        names = chosen(settings, collections)
        done: list[Job] = []
        async with contextlib.AsyncExitStack() as stack:
            records = stack.enter_context(contextlib.closing(await asyncio.to_thread(control_of, settings)))
            shadow = await stack.enter_async_context(Shadow(settings, path=self._config, tool=True))
            await shadow.admin.learn()
            self._tell_primaries(shadow, names)
            scheduler = self._options.scheduler
            cluster = None if scheduler is None else await stack.enter_async_context(Cluster(scheduler))
            round = Round(records, self._verb, names)
            await asyncio.to_thread(round.begin, restart=self._options.restart)
            for name in names:
                done.append(await self._one(shadow, name, records, cluster, round))
                if done[-1].finished is None:
                    return done
            if not self._options.join:
                await asyncio.to_thread(round.end)
        return done

    async def _one(self, shadow: Shadow, name: str, records: Records, cluster: Cluster | None, round: Round) -> Job:
        if name in shadow.admin.routes():
            await asyncio.to_thread(_check_fleet, records, name, shadow.admin.routes()[name])
        made = self._task(shadow, name)
        task = await made if isinstance(made, Awaitable) else made
        if not self._options.join and (had := await asyncio.to_thread(round.had, task)) is not None:
            self._note(
                f"{name}: {had.outcome} before this call was interrupted (job {had.id}); --restart does it again"
            )
            return had
        work = self._work(task, records, cluster)
        job = await (self._here(work, name) if cluster is None else self._there(work, name, cluster))
        if not self._options.join and job.finished is not None:
            await asyncio.to_thread(round.note, job)
        return job

    def _tell_primaries(self, shadow: Shadow, names: Sequence[str]) -> None:
        """The control store decides which store is primary; a file that says otherwise changes nothing."""
        for name in names:
            now, wanted = shadow.admin.routes()[name].primary, shadow.admin.fleet.wanted()[name]
            if now is not wanted:
                self._note(
                    f"{name}: {now} is the primary, although {self._config} says {wanted}: "
                    f"the job works from {now} to {now.other}"
                )

    def _note(self, text: str) -> None:
        if not self._options.join:
            typer.echo(f"note: {text}", err=True)

    def _work(self, task: Task, records: Records, cluster: Cluster | None) -> Work:
        options = self._options
        processes = options.processes if cluster is None else cluster.size
        share = WorkOptions(restart=options.restart, join=options.join, slots=processes * options.workers)
        return Work(task, Jobs(records), options.pace, share)

    async def _here(self, work: Work, name: str) -> Job:
        """In this process and in helper processes of this host."""
        helper = [*self._verb, name, "--config", str(self._config)]
        helpers: list[asyncio.subprocess.Process] = []
        try:
            async with self._watched(work, name):
                await work.begin()
                for _ in range(self._options.processes - 1):
                    helpers.append(await _help(helper, self._options))
                return await work.run()
        finally:
            for each in helpers:
                with contextlib.suppress(ProcessLookupError):
                    each.terminate()
            await asyncio.gather(*(each.wait() for each in helpers))

    async def _there(self, work: Work, name: str, cluster: Cluster) -> Job:
        """On the workers of a cluster. This process makes sure that each of them takes part."""
        # Only commands whose task is built without awaiting accept --scheduler.
        make = cast(Callable[[Shadow, str], Task], self._task)
        part = part_of(self._config, load(self._config), name, make, self._options.pace)
        async with self._watched(work, name):
            await work.begin()
            await cluster.work_off(work, take_part, part)
            return await work.end()

    @contextlib.asynccontextmanager
    async def _watched(self, work: Work, name: str) -> AsyncIterator[None]:
        with _until_signalled(work), progress(work.task.kind, quiet=self._quiet) as shown:
            showing = begin(_show(work, shown, name))
            try:
                yield
            finally:
                showing.cancel()
                # A progress display that failed is no failure of the job.
                await asyncio.gather(showing, return_exceptions=True)


def chosen(settings: Settings, given: Sequence[str] | None) -> list[str]:
    """The collections of a command: the given ones without repetition, or all. Raises `JobRefused`, before anything is
    done, for collections that are not configured and if there are none."""
    names = list(dict.fromkeys(given or settings.collections))
    unknown = [name for name in names if name not in settings.collections]
    known = ", ".join(settings.collections)
    if unknown:
        raise JobRefused(f"{', '.join(unknown)}: not in the configuration", hint=f"it has {known or 'no collections'}")
    if not names:
        raise JobRefused("the configuration names no collections", hint="name them under `collections`")
    return names


def _check_fleet(records: Records, name: str, route: Route) -> None:
    """A job would miss the writes of a process that does not write both stores."""
    if not route.dual_write:
        return
    rows = members.members(records)
    living = members.prune(records, rows)
    alone = [row.name for row in living if not row.tool and _writes_alone(row, name)]
    if alone:
        raise JobRefused(
            f"{name}: {', '.join(alone)} writes to one store only, or did until a moment ago",
            hint="set phase dual_write in every process of the application first: shadow fleet list",
        )
    placed = routing.load(records).placed.get(name)
    if placed is None or not placed.both:
        return
    gone = [row for row in epochs.alone(rows, name) if row not in living]
    if gone:
        raise JobRefused(
            f"{name}: {', '.join(row.name for row in gone)} died while it wrote to one store only, and its last "
            "writes may still arrive",
            hint="run the same command again once a process of the application has removed it from "
            "`shadow fleet list`, about a minute after its death",
        )


def _writes_alone(row: Member, name: str) -> bool:
    standing = row.standing.get(name)
    return standing is not None and standing.phase is Phase.OFF


async def run_jobs(
    config: Path,
    collections: Sequence[str] | None,
    options: JobOptions,
    task: Callable[[Shadow, str], Task | Awaitable[Task]],
    *,
    quiet: bool,
    verb: Sequence[str],
) -> list[Job]:
    """Runs one job per collection, one after the other. `verb` is the command line for a helper process, `task` a
    function that a cluster's worker can import."""
    return await _JobCall(config, options, task, quiet=quiet, verb=verb)(collections)


async def _help(helper: Sequence[str], options: JobOptions) -> asyncio.subprocess.Process:
    program = [sys.executable, "-c", "from shadow.cli import main; main()"]
    pace = ["--join", "--json", "--workers", str(options.pace.workers), "--latency", str(options.pace.latency * 1000)]
    return await asyncio.create_subprocess_exec(*program, *helper, *pace, stdout=asyncio.subprocess.DEVNULL)


@contextlib.contextmanager
def _until_signalled(work: Work) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) stops the work after the current batches, with its checkpoints. A second one, or
    one before there is a job, ends it at once, because a store that does not answer is waited for."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    able = os.name == "posix" and threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if able else ()

    def asked() -> None:
        if task is not None and (work.stopping or not work.job_id):
            task.cancel()
        work.stop()

    for number in numbers:
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _show(work: Work, shown: Shown, name: str) -> None:
    task = shown.add_task(f"{name}: starting", total=None)
    seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
    while not shown.disable:
        if not work.job_id:
            # Creating the ranges asks the stores, which may not answer for a while.
            await asyncio.sleep(_TICK)
            continue
        job = await work.look()
        seen.append((time.monotonic(), job.counts.get("seen", 0)))
        rate = _rate(seen)
        left = f", {duration((job.total - seen[-1][1]) / rate)} left" if rate and job.total > seen[-1][1] else ""
        text = f"{job.collection}: {seen[-1][1]} of about {job.total}, {rate:.0f}/s{left}"
        shown.update(task, total=job.total or None, completed=seen[-1][1], description=text)
        await asyncio.sleep(_TICK if is_watched() else _UNWATCHED)


def _rate(seen: Sequence[tuple[float, int]]) -> float:
    (first, before), (last, now) = seen[0], seen[-1]
    return (now - before) / (last - first) if last > first else 0.0


@dataclass(frozen=True, slots=True)
class Named:
    """An issue of a job that a person must look at: the type and keyed hash of its key, its kind, and the reason."""

    key: str
    kind: str
    reason: str


def named(config: Path, job: Job) -> list[Named]:
    """The first issues of a job with a document that cannot be read or copied, by key."""
    if not job.issues:
        return []
    settings = load(config)
    name = namer(settings)
    with contextlib.closing(control_of(settings)) as records:
        kept = (each for issues in Jobs(records).issues(job.id) for each in issues if _wants_a_person(each))
        return [name(each) for each in islice(kept, _NAMED)]


def namer(settings: Settings) -> Callable[[Issue], Named]:
    """How the issues of a job are shown, without their keys."""
    secret = settings.observe.hash_secret
    hasher = Hasher(secret.get_secret_value().encode() if secret is not None else b"")

    def name(issue: Issue) -> Named:
        return Named(f"{type_name(issue.key)}:{hasher.hash_key(issue.key)}", issue.kind, issue.reason)

    return name


def _wants_a_person(issue: Issue) -> bool:
    return issue.kind in ("failed", UNREADABLE) or issue.reason.startswith(Kind.UNREADABLE)


# --- the commands --------------------------------------------------------------------------------------------------


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
    """Lists the jobs in the control store, newest first."""
    with job_records(config) as jobs:
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
    job: Annotated[int, typer.Argument(help="The job's number, from `shadow jobs list`.")],
    documents: Annotated[float, typer.Argument(min=0, help="Documents per second over all processes; 0 for no limit.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Changes the speed limit of a job, also while it runs.

    It takes effect within a second, in all of its processes."""
    with job_records(config) as jobs:
        jobs.set_rate(job, documents or None)
    typer.echo(f"job {job}: {f'{documents:g} documents per second' if documents else 'no limit'}")


@app.command("stop")
def stop(
    job: Annotated[int, typer.Argument(help="The job's number, from `shadow jobs list`.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Stops a job after its current batches, in all its processes.

    To continue it later, run the command that started it."""
    with job_records(config) as jobs:
        jobs.stop(job)
    typer.echo(f"job {job}: stopping")


@contextlib.contextmanager
def job_records(config: Path) -> Iterator[Jobs]:
    with contextlib.closing(control_of(load(config))) as records:
        yield Jobs(records)
