"""Real documents, kept beside the project and not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bson import json_util
from bson.json_util import JSONMode, JSONOptions

__all__ = ["FOLDER", "load"]

FOLDER: Final = Path(__file__).parents[3] / "shared" / "data"

_OPTIONS: Final = JSONOptions(json_mode=JSONMode.CANONICAL, tz_aware=False, document_class=dict)


def load() -> dict[str, list[dict[str, Any]]]:
    """Collection name to its documents, from one extended JSON document a line. Raises if one does not parse, or if
    there are no files at all (`FileNotFoundError`)."""
    files = sorted(FOLDER.glob("*.json"))
    if not files:
        raise FileNotFoundError(FOLDER)
    return {file.stem: [_parse(line) for line in file.read_text("utf-8").splitlines() if line] for file in files}


def _parse(line: str) -> dict[str, Any]:
    document: dict[str, Any] = json_util.loads(line, json_options=_OPTIONS)
    return document
