"""The command line as people call it, over the stores and the journal of a test."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from shadow.cli import app
from tests.support.shadows import Site

__all__ = ["Said", "Tool"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


class Tool:
    """`shadow` with a configuration file of its own."""

    def __init__(self, site: Site, folder: Path, **sections: Any) -> None:
        self.config = folder / "shadow.yaml"
        settings = {
            "mongo": {"url": site.mongo_url, "database": site.database},
            "dynamo": {
                "endpoint_url": site.dynamo_url,
                "table_prefix": site.prefix,
                "access_key_id": "local",
                "secret_access_key": "local",
            },
            "journal": {"url": site.journal if "://" in site.journal else f"sqlite:///{site.journal}"},
            "limits": dict(site.limits),
            "defaults": {"primary": site.primary, "phase": site.phase},
            "collections": {site.collection: {}},
            **sections,
        }
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    async def __call__(self, *arguments: str) -> Said:
        """In this process, which is quicker; errors that end the program are raised."""
        return await asyncio.to_thread(self._invoke, arguments)

    def _invoke(self, arguments: tuple[str, ...]) -> Said:
        runner = CliRunner(env={"COLUMNS": "200"})
        result = runner.invoke(app, [*arguments, "--config", str(self.config)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    async def program(self, *arguments: str) -> Said:
        """As a process of its own."""
        command = [
            sys.executable,
            "-c",
            "from shadow.cli import main; main()",
            *arguments,
            "--config",
            str(self.config),
        ]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=240, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)
