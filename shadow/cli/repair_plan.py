"""`shadow repair-plan`: what verify found, as a plan to look over, to apply, and to take back."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import getpass
import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from shadow.cli.jobs import control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.client import Shadow
from shadow.config import load
from shadow.control import receipts
from shadow.migrate.jobs import Jobs
from shadow.migrate.repair import apply_plan, read_plan, undo, write_plan
from shadow.migrate.sides import JobRefused

__all__ = ["app"]

app = typer.Typer(help="Make good what verify found: plan, apply, undo.", no_args_is_help=True)

Plan = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The plan, as `make` wrote it.")]


@app.command("make")
def make(
    collection: Annotated[str, typer.Argument(help="The collection; its last verification is taken.")],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the plan (JSON lines).")],
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Writes a plan of what the last verification of a collection found. It holds keys and versions, no contents."""
    with contextlib.closing(control_of(load(config))) as records:
        jobs = Jobs(records)
        last = jobs.jobs(kind="verify", collection=collection, limit=1)
        if not last:
            raise JobRefused(f"{collection}: never verified", hint=f"run `shadow verify {collection}` first")
        with _private(file) as opened:
            lines = write_plan(opened, jobs, last[0])
    if as_json:
        print_json({"collection": collection, "job": last[0].id, "lines": lines, "file": str(file)})
    else:
        typer.echo(f"{file}: {lines} documents to repair; look it over, then: shadow repair-plan apply {file}")


@app.command("apply")
def apply(
    file: Plan,
    config: ConfigFile = Path("config/shadow.yaml"),
    really: Annotated[bool, typer.Option("--apply", help="Do it; without this, only say what would be done.")] = False,
    log: Annotated[
        Path | None, typer.Option(help="The undo log; beside the plan by default. It holds whole documents.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes the secondary hold what the primary holds, for the keys of a plan, where neither has moved since. Exit code
    0 if nothing of the plan is left, 1 if something has moved meanwhile, cannot be read on the primary, or this was a
    dry run."""
    target = log or file.with_suffix(f".undo-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}.jsonl")
    counts = asyncio.run(_apply(config, file, target if really else None))
    report = {
        "applied": really,
        **{name: counts[name] for name in ("copied", "deleted", "settled", "moved", "unreadable", "refused")},
        "undo": str(target) if really else None,
    }
    if as_json:
        print_json(report)
    else:
        would = "" if really else "would be "
        typer.echo(
            f"{counts['copied']} {would}copied, {counts['deleted']} {would}deleted; {counts['settled']} equal by now, "
            f"{counts['moved']} changed since and left alone, {counts['unreadable']} not to be read on the primary"
        )
        if counts["refused"]:
            typer.echo(
                f"{counts['refused']} refused by the secondary: too deep or too large for it, or a unique value of it "
                "has another document there; `shadow backfill` puts right what stands in each other's way, and names "
                "the rest"
            )
        typer.echo(f"undo log: {target}" if really else "a dry run: --apply does it")
    left = counts["moved"] + counts["unreadable"] + counts["refused"]
    raise typer.Exit(0 if really and not left else 1)


async def _apply(config: Path, file: Path, log: Path | None) -> Counter[str]:
    header, _ = read_plan(file)
    with contextlib.ExitStack() as stack:
        opened = None if log is None else stack.enter_context(_private(log))
        async with Shadow(load(config), path=config, tool=True) as shadow:
            counts = await apply_plan(shadow.sides(str(header["collection"])), file, log=opened)
    if log is not None:
        _file_receipt(config, "repair", file, {**counts, "undo": str(log)})
    return counts


@app.command("undo")
def take_back(file: Plan, config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Puts back what a repair has replaced, where the secondary has not moved since. Exit code 1 if something has."""
    counts = asyncio.run(_undo(config, file))
    _file_receipt(config, "undo", file, counts)
    if as_json:
        print_json({name: counts[name] for name in ("restored", "moved", "unreadable")})
    else:
        typer.echo(
            f"{counts['restored']} put back, {counts['moved']} changed since and left alone, "
            f"{counts['unreadable']} that could not be read before the repair"
        )
    raise typer.Exit(1 if counts["moved"] or counts["unreadable"] else 0)


async def _undo(config: Path, file: Path) -> Counter[str]:
    header, _ = read_plan(file)
    async with Shadow(load(config), path=config, tool=True) as shadow:
        return await undo(shadow.sides(str(header["collection"])), file)


def _private(path: Path) -> IO[str]:
    """A new file that only its owner can read. Raises FileExistsError: nothing is overwritten."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")


def _file_receipt(config: Path, kind: str, file: Path, counts: dict[str, Any]) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with contextlib.closing(control_of(load(config))) as records:
        receipts.file(records, kind, {"who": getpass.getuser(), "file": str(file), "sha256": digest, **counts})
