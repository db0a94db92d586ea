"""The command line, one file a verb. Exit codes: 0 done, 1 the answer is no (see the report), 2 wrong use or settings,
3 a store or server that could not be reached."""

from __future__ import annotations

import sys

import typer

from shadow.cli import (
    assess,
    backfill,
    complete,
    config,
    demo,
    finalize,
    findings,
    fleet,
    flip,
    jobs,
    repair,
    repair_plan,
    status,
    tables,
    verify,
)
from shadow.errors import ConfigurationError, ShadowError
from shadow.migrate.sides import JobRefused

__all__ = ["app", "main"]

app = typer.Typer(
    name="shadow",
    help="Move a live backend from MongoDB to DynamoDB: in parallel first, compared, and with a way back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("status")(status.status)
app.command("assess")(assess.assess)
app.add_typer(findings.app, name="findings")
app.command("repair")(repair.repair)
app.command("backfill")(backfill.backfill)
app.command("verify")(verify.verify)
app.command("flip")(flip.flip)
app.command("complete")(complete.complete)
app.add_typer(fleet.app, name="fleet")
app.command("finalize")(finalize.finalize)
app.add_typer(repair_plan.app, name="repair-plan")
app.add_typer(jobs.app, name="jobs")
app.add_typer(tables.app, name="tables")
app.add_typer(config.app, name="config")


def main() -> None:
    """The program. An error of shadow's own is a message and an exit code, not a traceback."""
    try:
        app()
    except (ConfigurationError, JobRefused) as error:
        _end(error, 2)
    except ShadowError as error:
        _end(error, 3)


def _end(error: ShadowError, code: int) -> None:
    sys.stderr.write(f"shadow: {error}\n")
    raise SystemExit(code)
