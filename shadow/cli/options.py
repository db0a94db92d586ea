"""Options that several verbs share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["AsJson", "ConfigFile", "bar", "is_quiet", "print_json"]

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="SHADOW_CONFIG", help="The configuration file.", show_envvar=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=str))


def is_quiet() -> bool:
    """Whether nobody watches: no progress bars then."""
    return not os.isatty(2)


def bar(title: str, *, quiet: bool) -> Progress:
    """A progress bar on standard error, gone when it ends."""
    columns = (TextColumn(title), BarColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet or is_quiet())
