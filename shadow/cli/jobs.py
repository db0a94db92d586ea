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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from shadow.cli.options import AsJson, ConfigFile, bar, print_json
from shadow.client import Shadow
from shadow.config import Settings, load
from shadow.migrate.control import Control, Job
from shadow.migrate.work import Pace, Task, Work

__all__ = ["Options", "app", "control_of", "run_jobs"]

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
Restart = Annotated[bool, typer.Option("--restart", help="Give up the checkpoints there are, and begin anew.")]
Join = Annotated[bool, typer.Option("--join", hidden=True)]

_WINDOW: Final = 10
_TICK: Final = 0.5


class Options:
    """How a verb that runs a job was called."""

    def __init__(
        self, workers: int, processes: int, rate: float | None, latency: float, *, restart: bool, join: bool
    ) -> None:
        self.pace = Pace(workers=workers, rate=rate, latency=latency / 1000)
        self.processes = processes
        self.restart = restart
        self.join = join


def control_of(settings: Settings) -> Control:
    """The control store of a configuration: a file beside its journal."""
    return Control(settings.host_file("jobs"))


async def run_jobs(
    config: Path,
    collections: Sequence[str] | None,
    options: Options,
    task: Callable[[Shadow, str], Task | Awaitable[Task]],
    *,
    quiet: bool,
    verb: Sequence[str],
) -> list[tuple[Job, dict[str, int]]]:
    """Runs one job a collection, one after the other: each with the reasons of its issues. `verb` is the command line
    that a helping process gets."""
    settings = load(config)
    done = []
    with contextlib.closing(control_of(settings)) as control:
        async with Shadow.from_file(config) as shadow:
            for name in collections or list(settings.collections):
                made = task(shadow, name)
                one = await made if isinstance(made, Awaitable) else made
                work = Work(one, control, options.pace, restart=options.restart, join=options.join)
                job = await _run(work, options, quiet=quiet, helper=[*verb, name, "--config", str(config)])
                done.append((job, control.reasons(job.id)))
                if job.finished is None:
                    break
    return done


async def _run(work: Work, options: Options, *, quiet: bool, helper: Sequence[str]) -> Job:
    await work.begin()
    helpers = [await _help(helper, options) for _ in range(options.processes - 1)]
    with _until_signalled(work), bar(work.task.kind, quiet=quiet) as shown:
        showing = asyncio.create_task(_show(work, shown))
        try:
            return await work.run()
        finally:
            showing.cancel()
            for each in helpers:
                with contextlib.suppress(ProcessLookupError):
                    each.terminate()
            await asyncio.gather(*(each.wait() for each in helpers))


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
        job = await asyncio.to_thread(work.control.job, work.job_id)
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


# --- the verbs --------------------------------------------------------------------------------------------------


def _row(job: Job) -> dict[str, Any]:
    state = job.outcome or ("stopping" if job.stopping else "running" if job.workers else "not at work")
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
        "processes": job.workers,
        "started": job.started,
        "finished": job.finished,
    }


@app.command("list")
def list_jobs(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """The jobs of this host, the newest first."""
    with contextlib.closing(control_of(load(config))) as control:
        rows = [_row(job) for job in control.jobs()]
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
    with contextlib.closing(control_of(load(config))) as control:
        _known(control, job)
        control.set_rate(job, documents or None)
    typer.echo(f"job {job}: {f'{documents:g} documents a second' if documents else 'no limit'}")


@app.command("stop")
def stop(
    job: Annotated[int, typer.Argument(help="Its number, as `shadow jobs list` says.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Ends a job after the batches at hand, in all its processes. The same command as before goes on with it."""
    with contextlib.closing(control_of(load(config))) as control:
        _known(control, job)
        control.stop(job)
    typer.echo(f"job {job}: stopping")


def _known(control: Control, job: int) -> None:
    if job not in {each.id for each in control.jobs(limit=1000)}:
        raise typer.BadParameter(f"there is no job {job}")
