"""One run of a suite, in a process of its own, bare or with the library in the place of its client."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pymongo import MongoClient

from tests.suites import sources, specifications
from tests.suites.suites import MODES, SUITES, Suite

__all__ = ["WHOLE", "Choice", "Outcomes", "Servers", "run"]

Outcomes = dict[str, tuple[str, str]]
"""How each test ended ("passed", "failed" or "skipped"), and with which words."""

_SECONDS: Final = 120
"""For one test of a suite. One that waits for something that never comes says so in its traceback."""


@dataclasses.dataclass(frozen=True, slots=True)
class Servers:
    mongo_url: str
    dynamo_url: str


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What of a suite is run: one of `parts` parts of it, or the tests that are named."""

    parts: int = 1
    part: int = 0
    tests: tuple[str, ...] = ()


WHOLE: Final = Choice()


def run(name: str, mode: str, servers: Servers, folder: Path, choice: Choice = WHOLE) -> Outcomes:
    """Runs a suite in a folder that is not there yet. `mode`: "bare" or one of `MODES`. Raises `RuntimeError` with the
    end of its output if it could not be run."""
    suite = SUITES[name]
    with MongoClient[Any](servers.mongo_url) as client:
        client.drop_database(suite.database)
    folder.mkdir(parents=True)
    copy = folder / "suite"
    shutil.copytree(
        sources.home(suite.archive) / suite.root, copy / suite.root, ignore=shutil.ignore_patterns("*.json")
    )
    for each in suite.specifications:
        source = sources.home(suite.archive) / each
        specifications.put_in(copy / each, source, mode, suite.database, suite.collections)
    shutil.copy(Path(__file__).with_name("stand_in.py"), copy / "shadow_stand_in.py")
    for line in (*(suite.objects if mode != "bare" else ()), *suite.address):
        dataclasses.replace(line, new=line.new.replace("{url}", servers.mongo_url)).put_in(copy)
    (copy / "suite.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    outcomes = folder / "outcomes.json"
    site = {
        "settings": {} if mode == "bare" else _settings(suite, mode, servers, folder),
        "outcomes": str(outcomes),
        "wipe": suite.wipe and mode not in ("bare", "off"),
        "a_client_for_each_test": suite.a_client_for_each_test,
        "left_out": list(suite.left_out),
        "other_drivers": list(suite.other_drivers),
        "own_clients": list(suite.own_clients),
        "of_more_clients": list(suite.of_more_clients),
        "counts_nothing": bool(suite.specifications),
        "parts": choice.parts,
        "part": choice.part,
    }
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", "suite.ini", "--rootdir", str(copy), "-p", "shadow_stand_in"),
            *("-q", "--tb=short", "-p", "no:cacheprovider", "-o", f"timeout={_SECONDS}"),
            *(part for option in suite.options for part in ("-o", option)),
            *(choice.tests or suite.files),
        ],
        cwd=copy,
        env=_environment(suite, servers, copy, site),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    (folder / "log").write_text(ended.stdout + ended.stderr)
    if not outcomes.exists() or ended.returncode not in (0, 1):
        raise RuntimeError(f"the suite of {name} could not be run:\n{(ended.stdout + ended.stderr)[-3000:]}")
    return {test: (outcome, said) for test, (outcome, said) in json.loads(outcomes.read_text()).items()}


def _environment(suite: Suite, servers: Servers, copy: Path, site: dict[str, Any]) -> dict[str, str]:
    address = urlsplit(servers.mongo_url)
    own = {key: text.format(host=address.hostname, port=address.port) for key, text in suite.environment.items()}
    path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))
    without = {"PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTHONASYNCIODEBUG"}
    kept = {key: value for key, value in os.environ.items() if key not in without}
    return {**kept, **own, "PYTHONPATH": path, "SHADOW_SUITE": json.dumps(site)}


def _settings(suite: Suite, mode: str, servers: Servers, folder: Path) -> dict[str, Any]:
    return {
        "mongo": {"url": servers.mongo_url, "database": suite.database, "driver": suite.driver},
        "dynamo": {
            "endpoint_url": servers.dynamo_url,
            "table_prefix": f"{uuid.uuid4().hex[:12]}-",
            "access_key_id": "local",
            "secret_access_key": "local",
        },
        "journal": {"url": f"sqlite:///{folder / 'shadow.db'}"},
        "limits": {"drain": 2.0, "loop_lag": 0.0},
        # A hundred collections with a canary every ten seconds take a third of a processor.
        "observe": {"canary_every": 600.0, "canary_within": 1800.0},
        "defaults": {**MODES[mode], "forced": "a test"},
        "collections": {name: {} for name in suite.collections},
    }
