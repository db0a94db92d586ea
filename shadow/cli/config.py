"""`shadow config`: look at the settings without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.config import load, parse
from shadow.migrate.config_file import edited, replace_file
from shadow.migrate.sides import JobRefused
from shadow.model.phase import Phase, Route, neighbours

__all__ = ["app"]

app = typer.Typer(help="Check and show the settings.", no_args_is_help=True)


@app.command("check")
def check(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Reads the file and the environment together; every fault is one line. Exit code 2 if there is one."""
    settings = load(config)
    routes = {
        name: f"{route.primary} {route.phase} writes={route.writes} shadow_reads={route.shadow_reads:g}{_reads(route)}"
        for name, route in settings.routes().items()
    }
    if as_json:
        print_json({"ok": True, "routes": routes})
        return
    typer.echo(f"{config}: no faults")
    for name, text in routes.items():
        typer.echo(f"  {name}: {text}")


def _reads(route: Route) -> str:
    """The shares of reads that are set, and whether they do anything."""
    said = "".join(f" reads={store}:{share:.4g}" for store, share in route.reads.named().items())
    return said if not said or route.secondary_reads else f"{said} (no effect: {route.primary} is the primary)"


@app.command("show")
def show(config: ConfigFile = Path("config/shadow.yaml")) -> None:
    """The settings in force, with the defaults filled in, as JSON. Secrets are hidden."""
    typer.echo(load(config).model_dump_json(indent=2))


@app.command("phase")
def phase(
    phase: Annotated[Phase, typer.Argument(help="The phase that they are to have.")],
    collections: Annotated[list[str], typer.Argument(help="The collections.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Sets the phase of collections in the file, comments kept; running applications that watch this file take it from
    there. One step at a time: off, dual_write, shadow. Exit code 2 if the file would not be right."""
    settings, before = load(config), config.read_text(encoding="utf-8")
    for name in collections:
        if name not in settings.collections:
            raise JobRefused(f"{name}: not in the configuration")
        now = settings.route(name).phase
        if phase not in (now, *neighbours(now)):
            raise JobRefused(f"{name}: it is in phase {now}", hint=f"first {neighbours(now)[0]}, in every process")
    after = edited(before, collections, {"phase": str(phase)})
    made = parse(after, source=str(config))
    behind = [name for name in collections if made.route(name).phase is not phase]
    if behind:
        raise JobRefused("the file alone does not decide it", hint="look for SHADOW_COLLECTIONS_... in the environment")
    if after != before:
        replace_file(config, after)
    typer.echo(f"{', '.join(collections)}: phase {phase} in {config}")
