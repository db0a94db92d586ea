"""`shadow tables`: the tables and indexes that the configuration asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.client import Shadow

__all__ = ["app"]

app = typer.Typer(help="Tables and indexes.", no_args_is_help=True)


@app.callback()
def tables() -> None:
    """Tables and indexes."""


@app.command("create")
def create(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Makes the tables and indexes that are missing, on both stores, and waits until they can be used. Changes none
    that exists."""
    names = asyncio.run(_create(config))
    if as_json:
        print_json({"prepared": names})
        return
    typer.echo(f"prepared: {', '.join(names)}")


async def _create(config: Path) -> list[str]:
    async with Shadow.from_file(config) as shadow:
        await shadow.prepare()
        return list(shadow.settings.collections)
