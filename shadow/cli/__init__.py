"""The command line, one file per command. Exit codes: 0 done, 1 the answer is no (see the report), 2 wrong usage or
settings, 3 a store or server could not be reached, 130 interrupted."""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import Annotated, TextIO

import typer

from shadow.cli import (
    assess,
    backfill,
    complete,
    config,
    demo,
    docs,
    evidence,
    finalize,
    findings,
    fleet,
    flip,
    hooks,
    jobs,
    jobs_failed,
    journal,
    old_spellings,
    ramp,
    repair_plan,
    status,
    tables,
    verify,
)
from shadow.cli.ending import ended
from shadow.settings.renamed import RenamedSetting

__all__ = ["app", "main"]

app = typer.Typer(
    name="shadow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_show_warning = warnings.showwarning


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"shadow {metadata.version('shadow')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Migrates a live backend from MongoDB to DynamoDB, with a way back."""


app.command("demo")(demo.demo)
app.command("status")(status.status)
app.command("assess")(assess.assess)
app.add_typer(findings.app, name="findings")
app.add_typer(journal.app, name="journal")
app.command("backfill")(backfill.backfill)
app.command("verify")(verify.verify)
app.command("flip")(flip.flip)
app.add_typer(ramp.app, name="ramp")
app.command("complete")(complete.complete)
app.add_typer(fleet.app, name="fleet")
app.add_typer(hooks.app, name="hooks")
app.command("evidence")(evidence.evidence)
app.command("finalize")(finalize.finalize)
app.add_typer(repair_plan.app, name="repair")
repair_plan.app.command(old_spellings.HIDDEN, hidden=True)(old_spellings.journal)
app.add_typer(jobs.app, name="jobs")
jobs.app.command("failed")(jobs_failed.failed)
app.add_typer(tables.app, name="tables")
app.add_typer(config.app, name="config")
app.command("docs")(docs.docs)
app.add_typer(
    old_spellings.old_repair_plan(
        {"make": repair_plan.plan, "apply": repair_plan.apply, "undo": repair_plan.take_back}
    ),
    name="repair-plan",
    hidden=True,
)


def _notice(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a notice without its place in the code, and any other warning as usual."""
    if issubclass(category, RenamedSetting):
        typer.echo(f"notice: {message}", err=True)
    else:
        _show_warning(message, category, filename, lineno, file, line)


def main() -> None:
    """The entry point. Errors that a user can cause end in a message and an exit code, not in a traceback."""
    warnings.showwarning = _notice
    ended(app)
