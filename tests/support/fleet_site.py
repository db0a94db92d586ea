"""A fleet on one host: the configuration, the processes of the application, and an operator with his commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import pymongo
import yaml

from shadow.cli.remote import ask
from shadow.config import load
from shadow.embedded.audit import Audit
from shadow.embedded.process import free_port
from shadow.jobs.jobs import Jobs
from tests.support import commands, fleet_worker
from tests.support.fleet_worker import COLLECTION
from tests.support.shadows import LIMITS

__all__ = ["FleetSite"]

PATIENCE: Final = 400.0
"""Seconds: far more than it takes, for a loaded machine."""


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
        self.workers: list[BaseProcess] = []
        content = {
            "mongo": {"url": mongo_url, "database": database, "driver": "pymongo"},
            "dynamo": {
                "endpoint_url": dynamo_url,
                "table_prefix": f"{database}-",
                "access_key_id": "local",
                "secret_access_key": "local",
            },
            "journal": {"url": f"sqlite:///{folder / 'shadow.db'}"},
            "limits": {**LIMITS, "write_deadline": 5.0, "read_deadline": 5.0, "in_flight_timeout": 1.0, "drain": 10.0},
            "control": {"heartbeat": 0.3},
            "observe": {"canary_every": 1.0, "canary_within": 30.0},
            "watch_every": 0.2,
            # DynamoDB Local on a busy machine says nothing of DynamoDB: the gate `fast enough` has its own tests.
            "defaults": {"phase": phase, "slower": 0},
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
            order = (str(self.config), str(self.notes(number)), number, self.port if number == 0 else None)
            self.workers.append(self._begin(fleet_worker.begin, *order))
        self.until(lambda: all(self.notes(number).with_suffix(".ready").exists() for number in range(self.processes)))

    def stop(self) -> list[dict[str, Any]]:
        for each in self.workers:
            os.kill(_pid(each), signal.SIGTERM)
        for each in self.workers:
            each.join(PATIENCE)
            assert each.exitcode == 0
        return [json.loads(self.notes(number).read_text()) for number in range(self.processes)]

    def until(self, condition: Any, what: Any = lambda: "") -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, what()
            assert all(each.exitcode is None for each in self.workers), "a process of the application has ended"
            time.sleep(0.1)

    def run(self, line: str) -> str:
        """What a command prints, which has to end well."""
        done = self.ended(line)
        assert done.code == 0, f"{line}: {done.code}\n{done.out}{done.err}"
        return done.out

    def ended(self, line: str) -> commands.Ended:
        return commands.run(_words(line), self.environment, self.folder)

    def kill_on_the_way(self, line: str, times: int) -> None:
        """Starts a command and kills it, each time a little further."""
        words = [*_words(line), "--rate", str(self.documents // 20)]
        for turn in range(1, times + 1):
            killed = self._begin(commands.command, words)
            goal = turn * self.documents // (2 * times)
            self.until(lambda goal=goal: self.seen() >= goal, self.seen)
            killed.kill()
            killed.join()
            assert killed.exitcode == -signal.SIGKILL, "it was on its way"

    def _begin(self, target: Any, *arguments: Any) -> BaseProcess:
        return commands.begin(target, *arguments, environment=self.environment, folder=self.folder)

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
            each.kill()
            each.join()


def _words(line: str) -> list[str]:
    program, *words = shlex.split(line)
    assert program == "shadow"
    return words


def _pid(process: BaseProcess) -> int:
    assert process.pid is not None
    return process.pid
