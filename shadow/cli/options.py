"""Options that several commands share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["AsJson", "ConfigFile", "print_json", "why_unwritable"]

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="SHADOW_CONFIG", help="The configuration file.", show_envvar=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=str))


def why_unwritable(path: Path) -> str:
    """Why the file cannot be written, as far as can be seen now; "" if nothing prevents it. Creates a missing
    folder."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return "" if os.access(path if path.exists() else folder, os.W_OK) else f"no right to write in {folder}"
