"""Options that several verbs share."""

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
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=str))


def why_unwritable(path: Path) -> str:
    """As far as can be seen now; "" if nothing stands against it. A folder that is missing is made."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"{folder} is no folder"
    return "" if os.access(path if path.exists() else folder, os.W_OK) else f"no right to write in {folder}"
