"""`shadow verify`: compares both stores document by document, in both directions."""

from __future__ import annotations

import dataclasses
import datetime as dt
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from bson import json_util

from shadow.cli.jobs import (
    Collections,
    JobOptions,
    Join,
    Latency,
    Named,
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
from shadow.jobs.jobs import reasons_of
from shadow.jobs.verify import Scope, Summary, Verify, summary

__all__ = ["verify"]

Filter = Annotated[
    str, typer.Option("--filter", help="Only documents that match this MongoDB filter, as extended JSON.")
]
Since = Annotated[dt.datetime | None, typer.Option(help="Only documents whose --since-field is not before this (UTC).")]
Field = Annotated[str, typer.Option(help="The field that --since compares.")]
Quick = Annotated[bool, typer.Option("--quick", help="Compare versions only, not contents.")]
Sample = Annotated[
    float, typer.Option(min=0.0001, max=1.0, help="The share of the keys to compare; the same keys in every run.")
]


def verify(
    collections: Collections = None,
    config: ConfigFile = Path("config/shadow.yaml"),
    quick: Quick = False,
    sample: Sample = 1.0,
    where: Filter = "{}",
    since: Since = None,
    since_field: Field = "updated_at",
    workers: Workers = 8,
    processes: Processes = 1,
    rate: Rate = None,
    latency: Latency = 0.0,
    scheduler: Scheduler = None,
    restart: Restart = False,
    join: Join = False,
    as_json: AsJson = False,
) -> None:
    """Compares both stores, beside live traffic.

    Differences are read again before they count. Exit code 0 if the stores are equal, 1 if there are differences
    (continue with `shadow repair plan`), 2 if the result is undecided or nothing was compared."""
    scope = Scope(full=not quick, sample=sample, filter=_filter(where, since, since_field))
    options = JobOptions(workers, processes, rate, latency, scheduler=scheduler, restart=restart, join=join)
    verb = ["verify", "--filter", json_util.dumps(scope.filter), "--sample", str(sample), *(["--quick"] * quick)]
    done = run(config, run_jobs(config, collections, options, partial(_task, scope), quiet=as_json, verb=verb))
    tell_lacking(config, (reason for job in done if not join for reason in reasons_of(job)))
    summaries = [summary(job) for job in done]
    if as_json:
        rows = [
            {**_row(one), "reasons": reasons_of(job), "keys": [_row(each) for each in named(config, job)]}
            for one, job in zip(summaries, done, strict=True)
        ]
        print_json(rows)
    else:
        for one, job in zip(summaries, done, strict=True):
            _show(one, reasons_of(job), named(config, job))
    raise typer.Exit(0 if join else _code(summaries))


def _task(scope: Scope, shadow: Shadow, collection: str) -> Verify:
    return Verify(shadow.admin.sides(collection), scope)


def _filter(text: str, since: dt.datetime | None, field: str) -> dict[str, Any]:
    try:
        found = json_util.loads(text, json_options=json_util.JSONOptions(tz_aware=False))
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(f"--filter: not extended JSON ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise typer.BadParameter("--filter: a filter is an object")
    return found if since is None else {**found, field: {"$gte": since}}


def _code(summaries: list[Summary]) -> int:
    outcomes = {each.outcome for each in summaries}
    if "different" in outcomes:
        return 1
    return 0 if outcomes <= {"equal"} else 2


def _row(one: Summary | Named) -> dict[str, Any]:
    return dataclasses.asdict(one)


def _show(one: Summary, reasons: dict[str, int], keys: list[Named]) -> None:
    share = "" if one.sample >= 1 else f", {one.sample:.2%} of the keys"
    typer.echo(
        f"{one.collection}: {one.outcome} ({one.mode}{share}{', filtered' if one.filtered else ''}); "
        f"{one.primary_documents} documents of the primary and {one.secondary_documents} of the secondary compared: "
        f"{one.missing} missing, {one.extra} extra, {one.different} different, "
        f"{one.unreadable} unreadable, {one.undecided} undecided; "
        f"{one.settled} settled during the run"
    )
    for reason, count in reasons.items():
        typer.echo(f"  {reason}: {count}")
    for each in keys:
        typer.echo(f"  key {each.key}: {each.kind}: {each.reason}")
