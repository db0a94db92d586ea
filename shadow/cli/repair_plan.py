"""`shadow repair`: turns the result of verify into a plan, applies it, and undoes it."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from shadow.cli.jobs import chosen, control_of
from shadow.cli.old_spellings import WithOldSpelling
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.progress import progress
from shadow.cli.rights import run
from shadow.client import Shadow
from shadow.config import load
from shadow.control import receipts
from shadow.host.user import user
from shadow.jobs.jobs import Jobs
from shadow.jobs.plan_file import header_of, made_whole, new_file, write_plan
from shadow.jobs.repair import apply_plan, undo
from shadow.jobs.target import JobRefused

__all__ = ["app", "apply", "plan", "take_back"]

app = typer.Typer(help="Repairs what verify found: plan, apply, undo.", no_args_is_help=True, cls=WithOldSpelling)

Plan = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The plan, written by `shadow repair plan`.")]


@app.command("plan")
def plan(
    collection: Annotated[str, typer.Argument(help="The collection; its last verification is used.")],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the plan (JSON lines).")],
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Writes a plan from the last verification of a collection.

    It holds keys and versions, no contents. Review it, then run `shadow repair apply`."""
    settings = load(config)
    chosen(settings, [collection])
    with contextlib.closing(control_of(settings)) as records:
        jobs = Jobs(records)
        last = jobs.jobs(kind="verify", collection=collection, limit=1)
        if not last:
            raise JobRefused(f"{collection}: never verified", hint=f"run `shadow verify {collection}` first")
        with made_whole(file) as opened:
            lines = write_plan(opened, jobs, last[0])
    if as_json:
        print_json({"collection": collection, "job": last[0].id, "lines": lines, "file": str(file)})
    else:
        typer.echo(f"{file}: {lines} documents to repair; review it, then run: shadow repair apply {file}")


@app.command("apply")
def apply(
    file: Plan,
    config: ConfigFile = Path("config/shadow.yaml"),
    really: Annotated[
        bool, typer.Option("--apply", help="Make the change; without it, only show what would be done.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(help="The undo log, which holds whole documents; default: beside the plan.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Applies a plan: copies the primary's state to the secondary.

    Only for the keys of the plan that have changed in neither store since. A dry run unless --apply is given; the undo
    log is written first. Exit code 0 if nothing of the plan is left, 1 if a key has changed since, cannot be read on
    the primary or is refused by the secondary, or for a dry run."""
    target = log or file.with_suffix(f".undo-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}.jsonl")
    counts = run(config, _apply(config, file, target if really else None, quiet=as_json))
    made = really and target.exists()
    if really:
        _file_receipt(config, "repair", file, {**counts, "undo": str(target) if made else ""})
    report = {
        "applied": really,
        **{name: counts[name] for name in ("copied", "deleted", "settled", "moved", "unreadable", "refused")},
        "undo": str(target) if made else None,
    }
    if as_json:
        print_json(report)
    else:
        would = "" if really else "would be "
        typer.echo(
            f"{counts['copied']} {would}copied, {counts['deleted']} {would}deleted; {counts['settled']} already equal, "
            f"{counts['moved']} changed since and skipped, {counts['unreadable']} unreadable on the primary"
        )
        if counts["refused"]:
            typer.echo(
                f"{counts['refused']} refused by the secondary: too deep or too large, or another document there has a "
                "unique value of it; `shadow backfill` resolves documents that block each other, and names the rest"
            )
        if made:
            typer.echo(f"undo log: {target}")
        elif not really:
            typer.echo("dry run: nothing was changed; --apply makes the change")
    left = counts["moved"] + counts["unreadable"] + counts["refused"]
    raise typer.Exit(0 if really and not left else 1)


async def _apply(config: Path, file: Path, log: Path | None, *, quiet: bool) -> Counter[str]:
    header = header_of(file)
    with contextlib.ExitStack() as stack, progress("repair apply", quiet=quiet) as shown:
        task = shown.add_task("starting")

        def told(done: int) -> None:
            shown.update(task, description=f"{done} documents checked")

        make = None if log is None else lambda: stack.enter_context(new_file(log))
        async with Shadow(load(config), path=config, tool=True) as shadow:
            await shadow.admin.learn()
            counts = await apply_plan(shadow.admin.sides(header["collection"]), file, log=make, progress=told)
    return counts


@app.command("undo")
def take_back(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The undo log from `shadow repair apply`.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Puts back what a repair has replaced, from its undo log.

    Only for keys that have not changed in the secondary since. Exit code 1 if one has."""
    counts = run(config, _undo(config, file, quiet=as_json))
    _file_receipt(config, "undo", file, counts)
    if as_json:
        print_json({name: counts[name] for name in ("restored", "moved", "unreadable")})
    else:
        typer.echo(
            f"{counts['restored']} put back, {counts['moved']} changed since and skipped, "
            f"{counts['unreadable']} skipped: unreadable before the repair"
        )
    raise typer.Exit(1 if counts["moved"] or counts["unreadable"] else 0)


async def _undo(config: Path, file: Path, *, quiet: bool) -> Counter[str]:
    header = header_of(file)
    with progress("repair undo", quiet=quiet) as shown:
        task = shown.add_task("starting")
        async with Shadow(load(config), path=config, tool=True) as shadow:
            await shadow.admin.learn()
            sides = shadow.admin.sides(header["collection"])

            async def begins() -> None:
                # What was proven after the repair no longer holds, and there is no way back to what this puts there.
                await shadow.admin.fleet.participant.interrupt([sides.collection])

            def told(done: int) -> None:
                shown.update(task, description=f"{done} documents")

            return await undo(sides, file, begins=begins, progress=told)


def _file_receipt(config: Path, kind: str, file: Path, counts: dict[str, Any]) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with contextlib.closing(control_of(load(config))) as records:
        receipts.file(records, kind, {"who": user(), "file": str(file), "sha256": digest, **counts})
