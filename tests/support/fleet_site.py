"""A fleet on one host: the configuration, the processes of the application, and an operator with his commands."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pymongo
import yaml

from shadow.cli.remote import ask
from shadow.config import load
from shadow.embedded.audit import Audit
from shadow.embedded.process import free_port
from shadow.migrate.jobs import Jobs
from tests.support.fleet_worker import COLLECTION
from tests.support.shadows import LIMITS

__all__ = ["FleetSite"]

PATIENCE: Final = 120.0


class FleetSite:
    """The configuration, the processes of the application, and an operator."""

    def __init__(
        self,
        folder: Path,
        mongo_url: str,
        database: str,
        dynamo_url: str,
        *,
        processes: int,
        documents: int,
        phase: str = "off",
    ) -> None:
        """`documents`: how many there are before the migration; `phase`: the one that the processes begin in."""
        self.folder = folder
        self.processes = processes
        self.documents = documents
        self.config = folder / "shadow.yaml"
        self.mongo = mongo_url, database
        self.dynamo_url = dynamo_url
        self.port = free_port()
        self.workers: list[subprocess.Popen[bytes]] = []
        content = {
            "mongo": {"url": mongo_url, "database": database, "driver": "pymongo"},
            "dynamo": {
                "endpoint_url": dynamo_url,
                "table_prefix": f"{database}-",
                "access_key_id": "local",
                "secret_access_key": "local",
            },
            "journal": {"url": f"sqlite:///{folder / 'shadow.db'}"},
            "limits": {**LIMITS, "write_deadline": 5.0, "read_deadline": 5.0, "straggle": 1.0, "drain": 10.0},
            "control": {"heartbeat": 0.3},
            "observe": {"canary_every": 1.0, "canary_within": 30.0},
            "watch_every": 0.2,
            "defaults": {"phase": phase},
            "collections": {COLLECTION: {"indexes": [{"name": "group-index", "hash": "group"}]}},
        }
        self.config.write_text(yaml.safe_dump(content))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SHADOW_", "AWS_"))},
            "SHADOW_CONFIG": str(self.config),
            "SHADOW_STATUS_URL": f"http://127.0.0.1:{self.port}",
            "COLUMNS": "300",
        }

    def fill(self) -> None:
        """What was there before the migration."""
        url, database = self.mongo
        with pymongo.MongoClient[dict[str, Any]](url) as client:
            client[database][COLLECTION].create_index("group", name="group-index")
            client[database][COLLECTION].insert_many(
                [{"_id": f"old-{n}", "group": f"g{n % 100}", "n": n} for n in range(self.documents)]
            )

    def notes(self, number: int) -> Path:
        return self.folder / f"worker-{number}.json"

    def start(self) -> None:
        for number in range(self.processes):
            port = [str(self.port)] if number == 0 else []
            command = [sys.executable, "-m", "tests.support.fleet_worker", str(self.config), str(self.notes(number))]
            self.workers.append(subprocess.Popen([*command, str(number), *port], env=self.environment))
        self.until(lambda: all(self.notes(number).with_suffix(".ready").exists() for number in range(self.processes)))

    def stop(self) -> list[dict[str, Any]]:
        for each in self.workers:
            each.send_signal(signal.SIGTERM)
        for each in self.workers:
            assert each.wait(PATIENCE) == 0
        return [json.loads(self.notes(number).read_text()) for number in range(self.processes)]

    def until(self, condition: Any, what: Any = lambda: "") -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, what()
            assert all(each.poll() is None for each in self.workers), "a process of the application has ended"
            time.sleep(0.1)

    def command(self, line: str) -> list[str]:
        program, *words = shlex.split(line)
        assert program == "shadow"
        return [sys.executable, "-c", "from shadow.cli import main; main()", *words]

    def run(self, line: str) -> str:
        done = subprocess.run(
            self.command(line), env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def code(self, line: str) -> int:
        return subprocess.run(self.command(line), env=self.environment, cwd=self.folder, check=False).returncode

    def kill_on_the_way(self, line: str, times: int) -> None:
        """Starts a command and kills it, each time a little further."""
        for turn in range(1, times + 1):
            command = [*self.command(line), "--rate", str(self.documents // 20)]
            with subprocess.Popen(command, env=self.environment, cwd=self.folder) as killed:
                goal = turn * self.documents // (2 * times)
                self.until(lambda goal=goal: self.seen() >= goal, self.seen)
                killed.kill()

    def seen(self) -> int:
        records = load(self.config, {}).control_place().open()
        found = Jobs(records).jobs(kind="backfill")
        records.close()
        return found[0].counts.get("seen", 0) if found else 0

    def gates(self) -> dict[str, Any]:
        status = ask(self.environment["SHADOW_STATUS_URL"], "/status")
        return {gate["name"]: gate for gate in status["verdict"]["gates"]}

    def closed(self) -> list[str]:
        return [f"{name}: {gate['said']}" for name, gate in self.gates().items() if not gate["ok"]]

    def all_at(self, phase: str) -> bool:
        fleet = ask(self.environment["SHADOW_STATUS_URL"], "/status")["fleet"]
        standing = [each["standing"].get(COLLECTION, {}) for each in fleet["members"] if not each["tool"]]
        return len(standing) == self.processes and all(each.get("phase") == phase for each in standing)

    def audit(self) -> Audit:
        url, database = self.mongo
        return Audit(url, database, self.dynamo_url, f"{database}-", load(self.config, {}).specs())

    def kill(self) -> None:
        for each in self.workers:
            with contextlib.suppress(ProcessLookupError):
                each.kill()
            each.wait()
