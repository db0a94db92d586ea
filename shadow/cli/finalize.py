"""`shadow finalize`: removes what the migration has left in a store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from shadow.cli.jobs import Collections, JobOptions, Join, Latency, Processes, Rate, Restart, Workers, run_jobs
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.rights import run, tell_lacking
from shadow.client import Shadow
from shadow.control import flip_record, members
from shadow.fleet.flip import check_unwatched
from shadow.jobs.finalize import Finalize, may_finalize
from shadow.jobs.jobs import Job, reasons_of
from shadow.model.phase import StoreName

__all__ = ["finalize"]

Store = Annotated[StoreName, typer.Option("--store", help="The store to remove versions and tombstones from.")]
Apply = Annotated[bool, typer.Option("--apply", help="Remove them; without it, only count them.")]


def finalize(
    store: Store,
    collections: Collections = None,
    config: ConfigFile = Path("config/shadow.yaml"),
    apply: Apply = False,
    workers: Workers = 8,
    processes: Processes = 1,
    rate: Rate = None,
    latency: Latency = 0.0,
    restart: Restart = False,
    join: Join = False,
    as_json: AsJson = False,
) -> None:
    """Removes versions and tombstones from one store after a migration.

    The collection must be in phase off, and the journal must hold nothing of it. Concurrent writes are safe. What
    DynamoDB needs to return documents exactly stays. You can kill it at any time: run it again and it continues. Exit
    code 0 if everything is done (or counted), 1 if something was written just now and is left, 2 if it was stopped or
    refused."""
    options = JobOptions(workers, processes, rate, latency, scheduler=None, restart=restart, join=join)

    async def task(shadow: Shadow, name: str) -> Finalize:
        sides = shadow.admin.sides(name)
        records = shadow.admin.fleet.records
        fleet = await asyncio.to_thread(lambda: members.prune(records, members.members(records)))
        await asyncio.to_thread(lambda: check_unwatched(records, flip_record.load(records), [name]))
        await may_finalize(sides, store, fleet)
        return Finalize(sides, store, apply=apply)

    verb = ["finalize", "--store", str(store), *(["--apply"] * apply)]
    done = run(config, run_jobs(config, collections, options, task, quiet=as_json, verb=verb))
    tell_lacking(config, (reason for job in done if not join for reason in reasons_of(job)))
    reports = [_report(job, store, apply=apply) for job in done]
    if as_json:
        print_json(reports)
    else:
        for each in reports:
            _show(each)
    raise typer.Exit(_code(done, join=join))


def _code(jobs: list[Job], *, join: bool) -> int:
    if any(job.finished is None for job in jobs) and not join:
        return 2
    return 1 if any(job.outcome == "incomplete" for job in jobs) else 0


def _report(job: Job, store: StoreName, *, apply: bool) -> dict[str, Any]:
    return {
        "job": job.id,
        "collection": job.collection,
        "store": str(store),
        "applied": apply,
        "outcome": job.outcome or "stopped",
        **{name: job.counts.get(name, 0) for name in ("versions", "tombstones", "later")},
        "left": sum(job.issues.values()),
        "reasons": reasons_of(job),
        "seconds": None if job.finished is None else round(job.finished - job.started, 3),
    }


def _show(each: dict[str, Any]) -> None:
    done = "removed" if each["applied"] else "to be removed"
    gone = "deleted" if each["applied"] else "to be deleted"
    typer.echo(
        f"{each['collection']}: {each['outcome']}; {each['store']}: {each['versions']} versions {done}, "
        f"{each['tombstones']} tombstones {gone}, {each['later']} postponed, {each['left']} left"
    )
    for reason, count in each["reasons"].items():
        typer.echo(f"  {reason}: {count}")
    if each["outcome"] == "stopped":
        typer.echo("  run the same command to continue")
    elif not each["applied"]:
        typer.echo("  dry run: nothing was changed; --apply makes the change")
