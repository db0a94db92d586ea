"""`shadow demo`: a whole migration on real servers, with a report at the end."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from shadow.cli.options import AsJson, print_json
from shadow.cli.progress import Shown, progress
from shadow.errors import StoreUnavailable

if TYPE_CHECKING:
    from shadow.embedded.demo import DemoOptions, DemoReport

__all__ = ["demo"]

_console = Console(stderr=True)


def demo(
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="Seconds for which the traffic runs.")] = 20.0,
    dynamo: Annotated[
        str, typer.Option(help="ministack (embedded), local (DynamoDB Local), or the http:// address of a server.")
    ] = "ministack",
    driver: Annotated[
        str | None, typer.Option(help="motor, or pymongo for PyMongo's own async client, which Beanie takes.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="driver (the sample backend calls the driver), or beanie for its twin on that ODM.")
    ] = "driver",
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A folder to load, with one extended-JSON file per collection."
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Stay up, with traffic, damage and a ramp, and print the addresses.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Runs the sample backend on both stores and proves that shadow works.

    It writes and reads under traffic, damages the secondary, stops it, flips the primary, and proves at the end that
    all damage was found and both stores are equal. Exit code 0 only if so; 130 if interrupted. With --serve it stays
    up until Ctrl-C and then exits with the code of the proof."""
    try:
        from shadow.embedded.demo import DemoOptions
    except ModuleNotFoundError as error:
        raise StoreUnavailable(
            f"the demo needs {error.name}, which is not installed", hint="pip install 'shadow[demo]'"
        ) from error
    if backend == "beanie" and find_spec("beanie") is None:
        raise StoreUnavailable(
            "--backend beanie needs beanie, which is not installed", hint="pip install 'shadow[demo,beanie]'"
        )
    # The demo causes warnings about its planted damage; errors it does not cause.
    logging.getLogger("shadow").setLevel(logging.ERROR)
    # The demo's servers accept any keys: don't send them those of a profile or of AWS.
    os.environ |= {"SHADOW_DYNAMO_ACCESS_KEY_ID": "local", "SHADOW_DYNAMO_SECRET_ACCESS_KEY": "local"}
    mongo_url = os.environ.get("SHADOW_MONGO_URL") or None
    options = DemoOptions(
        seconds=seconds,
        dynamo=dynamo,
        mongo_url=mongo_url,
        driver=driver or ("pymongo" if backend == "beanie" else "motor"),
        data=data,
        backend=backend,
    )
    raise typer.Exit(asyncio.run(_run(options, serve=serve, as_json=as_json)))


async def _run(options: DemoOptions, *, serve: bool, as_json: bool) -> int:
    from shadow.embedded.demo import Demo

    with _progress(quiet=as_json) as bar:
        task = bar.add_task("starting", total=1.0)
        async with Demo(options, lambda share, what: bar.update(task, completed=share, description=what)) as running:
            report = await running.run()
            bar.stop()
            _show(report, as_json=as_json)
            if serve:
                for name, address in running.addresses.items():
                    _console.print(f"{name:<9} {address}", soft_wrap=True, highlight=False)
                _console.print("Traffic continues, with damage that is found and repaired, and a ramp of reads.")
                _console.print(f"In another terminal: export SHADOW_CONFIG={running.config}", soft_wrap=True)
                _console.print(f"                     export SHADOW_STATUS_URL={running.app_url}", soft_wrap=True)
                _console.print("Press Ctrl-C to stop.")
                try:
                    await running.serve()
                except asyncio.CancelledError:
                    # Ctrl-C is how it ends. Until 3.11.3 Python's time limits raise CancelledError in what a task
                    # cleans up while a cancellation of it counts.
                    if (current := asyncio.current_task()) is not None:
                        current.uncancel()
    return 0 if report.passed else 1


def _progress(*, quiet: bool) -> Shown:
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    return progress("demo", *columns, quiet=quiet)


def _show(report: DemoReport, *, as_json: bool) -> None:
    values = {**dataclasses.asdict(report), "passed": report.passed}
    if as_json:
        print_json(values)
        return
    table = Table(title="shadow demo", show_header=False)
    for name, value in values.items():
        if name not in ("faults", "passed", "verdicts"):
            table.add_row(name.replace("_", " "), str(value))
    table.add_row("verdicts", ", ".join(f"{count} {name}" for name, count in sorted(report.verdicts.items())))
    Console().print(table)
    for fault in report.faults:
        typer.echo(f"FAULT: {fault}")
    typer.echo("passed: all damage found, both stores equal" if report.passed else "failed")
