"""`shadow backfill`: copies the existing documents, beside live traffic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import typer

from shadow.cli.jobs import (
    Collections,
    JobOptions,
    Join,
    Latency,
    Processes,
    Rate,
    Restart,
    Scheduler,
    Workers,
    named,
    run_jobs,
)
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.rights import run, tell_lacking
from shadow.client import Shadow
from shadow.jobs.backfill import Backfill
from shadow.jobs.jobs import Job, reasons_of

__all__ = ["backfill"]


def backfill(
    collections: Collections = None,
    config: ConfigFile = Path("config/shadow.yaml"),
    workers: Workers = 8,
    processes: Processes = 1,
    rate: Rate = None,
    latency: Latency = 0.0,
    scheduler: Scheduler = None,
    restart: Restart = False,
    join: Join = False,
    as_json: AsJson = False,
) -> None:
    """Copies the documents of the primary to the secondary, beside live traffic.

    Either store can be the primary. You can kill it at any time: run it again and it continues. It never overwrites
    a live write and never restores a deleted document. Exit code 0 if everything is copied, 1 if some documents
    could not be copied (the report says why), 2 if it was stopped or refused."""
    options = JobOptions(workers, processes, rate, latency, scheduler=scheduler, restart=restart, join=join)
    done = run(config, run_jobs(config, collections, options, _task, quiet=as_json, verb=["backfill"]))
    tell_lacking(config, (reason for job in done if not join for reason in reasons_of(job)))
    reports = [{**_report(job), "keys": [dataclasses.asdict(each) for each in named(config, job)]} for job in done]
    if as_json:
        print_json(reports)
    else:
        for each in reports:
            _show(each)
    raise typer.Exit(_code(done, join=join))


def _task(shadow: Shadow, collection: str) -> Backfill:
    return Backfill(shadow.admin.sides(collection))


def _code(jobs: list[Job], *, join: bool) -> int:
    if any(job.finished is None for job in jobs) and not join:
        return 2
    return 1 if any(job.outcome == "incomplete" for job in jobs) else 0


def _report(job: Job) -> dict[str, Any]:
    seconds = None if job.finished is None else round(job.finished - job.started, 3)
    return {
        "job": job.id,
        "collection": job.collection,
        "outcome": job.outcome or "stopped",
        **{name: job.counts.get(name, 0) for name in ("seen", "copied", "present", "moved", "gone")},
        "not_copied": sum(job.issues.values()),
        "reasons": reasons_of(job),
        "seconds": seconds,
    }


def _show(each: dict[str, Any]) -> None:
    typer.echo(
        f"{each['collection']}: {each['outcome']}; {each['seen']} documents seen: {each['copied']} copied, "
        f"{each['present']} already there, {each['moved']} changed meanwhile and repaired, {each['gone']} "
        f"deleted meanwhile, {each['not_copied']} not copied"
    )
    for reason, count in each["reasons"].items():
        typer.echo(f"  {reason}: {count}")
    for one in each["keys"]:
        typer.echo(f"  key {one['key']}: not copied: {one['reason']}")
    if each["not_copied"]:
        typer.echo(f"  `shadow jobs failed {each['job']}` lists them all; with --retry it tries them again, alone")
    if each["outcome"] == "stopped":
        typer.echo("  run the same command to continue")
