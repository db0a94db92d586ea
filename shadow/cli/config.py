"""`shadow config`: look at the settings without starting anything."""

from __future__ import annotations

from pathlib import Path

import typer

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.config import load
from shadow.model.phase import Route

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
