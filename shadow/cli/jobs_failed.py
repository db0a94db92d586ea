"""`shadow jobs failed`: the documents that a job could not bring to an end, and another attempt at them alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from shadow.cli.jobs import Named, control_of, job_records, namer
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.progress import progress
from shadow.cli.rights import run, tell_lacking
from shadow.client import Shadow
from shadow.config import load
from shadow.jobs.backfill import Backfill, retry
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import Job, Jobs, reasons_of
from shadow.jobs.plan_file import dumps, made_whole
from shadow.jobs.target import JobRefused
from shadow.jobs.work import JobPace

__all__ = ["failed"]


def failed(
    job: Annotated[int, typer.Argument(help="The job's number, from `shadow jobs list`.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    page: Annotated[int, typer.Option(min=1, help="Which page to show.")] = 1,
    size: Annotated[int, typer.Option(min=1, max=10_000, help="How many a page has.")] = 50,
    keys: Annotated[
        bool, typer.Option("--keys", help="Show the keys themselves, in Extended JSON, in place of their hashes.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write all of them with their keys to this file (JSON lines).")
    ] = None,
    again: Annotated[
        bool, typer.Option("--retry", help="Try to copy these documents again, and no others, before the list is made.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lists the documents that a backfill could not copy, and retries them.

    Each with its key and the reason. --file writes a file that only its owner can read. After --retry the job has the
    outcome of that attempt, which opens or closes the gate `copied`. Of a verification it lists what differs. Exit code
    0 if the list is empty, 1 if it is not, 2 if the retry was refused."""
    if again:
        done = run(config, _retry(config, job, quiet=as_json))
        tell_lacking(config, reasons_of(done))
    with job_records(config) as jobs:
        found = jobs.job(job)
        _check_kept(jobs, found)
        written = None if file is None else _write(file, jobs, found)
        name = _with_keys if keys else namer(load(config))
        shown = islice(_all(jobs, job), (page - 1) * size, page * size)
        rows = [dataclasses.asdict(name(each)) for each in shown]
        count = sum(1 for _ in _all(jobs, job))
    report = {**_report(found, count), "page": page, "pages": max(1, -(-count // size)), "documents": rows}
    if as_json:
        print_json({**report, "file": None if file is None else str(file)})
    else:
        _show(report)
        if file is not None:
            typer.echo(f"{file}: {written} documents, with their keys")
        elif count and found.kind == Backfill.kind and not again:
            typer.echo("--file FILE writes them with their keys; --retry tries to copy them again, alone")
    raise typer.Exit(1 if count else 0)


async def _retry(config: Path, id: int, *, quiet: bool) -> Job:
    settings = load(config)
    with contextlib.closing(control_of(settings)) as records, progress("retry", quiet=quiet) as shown:
        jobs = Jobs(records)
        collection = jobs.job(id).collection
        if collection not in settings.collections:
            raise JobRefused(f"{collection}: not in the configuration", hint="give the job's own file with --config")
        shown.add_task(f"{collection}: trying again")
        async with Shadow(settings, path=config, tool=True) as shadow:
            await shadow.admin.learn()
            return await retry(shadow.admin.sides(collection), jobs, id, JobPace().patience)


def _check_kept(jobs: Jobs, job: Job) -> None:
    """Raises `JobRefused` where the documents of a job are no longer known."""
    newest = jobs.jobs(kind=job.kind, collection=job.collection, limit=1)[0]
    if newest.id != job.id and job.issues:
        raise JobRefused(
            f"job {job.id}: the documents of the newest {job.kind} of {job.collection} alone are kept",
            hint=f"shadow jobs failed {newest.id}",
        )


def _all(jobs: Jobs, job: int) -> Iterator[Issue]:
    return (each for page in jobs.issues(job) for each in page)


def _with_keys(issue: Issue) -> Named:
    return Named(dumps({"_id": issue.key}), issue.kind, issue.reason)


def _write(file: Path, jobs: Jobs, job: Job) -> int:
    header = {"job": job.id, "kind": job.kind, "collection": job.collection, "fingerprint": job.fingerprint}
    lines = 0
    with made_whole(file) as opened:
        opened.write(json.dumps(header) + "\n")
        for each in _all(jobs, job.id):
            key = json.loads(dumps({"_id": each.key}))
            opened.write(json.dumps({**key, "kind": each.kind, "reason": each.reason}) + "\n")
            lines += 1
    return lines


def _report(job: Job, count: int) -> dict[str, Any]:
    return {
        "job": job.id,
        "kind": job.kind,
        "collection": job.collection,
        "outcome": job.outcome or "not ended",
        "count": count,
        "reasons": reasons_of(job),
    }


def _show(report: dict[str, Any]) -> None:
    what = "not copied" if report["kind"] == Backfill.kind else "different or not compared"
    typer.echo(
        f"job {report['job']}: {report['kind']} of {report['collection']}, {report['outcome']}; "
        f"{report['count']} documents {what}"
    )
    for reason, count in report["reasons"].items():
        typer.echo(f"  {reason}: {count}")
    if report["documents"]:
        table = Table(Column("key", overflow="fold"), Column("kind"), Column("reason", overflow="fold"))
        for each in report["documents"]:
            table.add_row(each["key"], each["kind"], each["reason"])
        Console().print(table, markup=False)
    if report["pages"] > 1:
        typer.echo(f"page {report['page']} of {report['pages']}: --page shows another")
