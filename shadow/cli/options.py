"""Options that several verbs share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["AsJson", "ConfigFile", "print_json"]

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
