"""The README's runbook, as it stands: each command in its order, on real servers, under the traffic of many processes.

Nothing acknowledged is lost or done twice, nothing is found that is not so, and no write is answered by two primaries
at one time: that is read off what each write of each process was answered by. SHADOW_LONG=1 has more processes and
documents, and the traffic go on for longer between the steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
import yaml

from shadow.cli.remote import ask
from shadow.config import load
from shadow.control import receipts
from shadow.embedded.audit import Audit
from shadow.embedded.process import free_port
from shadow.migrate.jobs import Jobs
from shadow.model.order import key_digest
from tests.support.fleet_worker import COLLECTION, SHARED, TASKS
from tests.support.readme import README
from tests.support.shadows import LIMITS

LONG: Final = os.environ.get("SHADOW_LONG") == "1"
PROCESSES: Final = 8 if LONG else 3
BETWEEN: Final = float(os.environ.get("SHADOW_BETWEEN", "60" if LONG else "1"))
"""Seconds of traffic between two steps."""
DOCUMENTS: Final = 20_000 if LONG else 2000
KILLS: Final = 5
PATIENCE: Final = 120.0


def steps() -> list[tuple[str, str]]:
    """Each command of the runbook in order, with what is printed below its block ("" for all but the last of one)."""
    chapter = README.read_text("utf-8").partition("<!-- runbook -->\n")[2].partition("<!-- end -->")[0]
    found: list[tuple[str, str]] = []
    for block in re.finditer(r"```sh\n(.*?)```\n(?:\n```\n(.*?)```)?", chapter, re.DOTALL):
        *first, last = block[1].strip().splitlines()
        found += [*((command, "") for command in first), (last, (block[2] or "").strip())]
    return found


def test_the_runbook_has_all_its_steps() -> None:
    verbs = [command.split()[1] for command, _ in steps()]
    assert list(dict.fromkeys(verbs)) == [
        "assess", "tables", "config", "fleet", "backfill", "verify", "flip", "complete", "finalize",
    ]  # fmt: skip


class Site:
    """The configuration, the processes of the application, and an operator."""

    def __init__(self, folder: Path, mongo_url: str, database: str, dynamo_url: str) -> None:
        self.folder = folder
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
            "defaults": {"phase": "off"},
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
                [{"_id": f"old-{n}", "group": f"g{n % 100}", "n": n} for n in range(DOCUMENTS)]
            )

    def notes(self, number: int) -> Path:
        return self.folder / f"worker-{number}.json"

    def start(self) -> None:
        for number in range(PROCESSES):
            port = [str(self.port)] if number == 0 else []
            command = [sys.executable, "-m", "tests.support.fleet_worker", str(self.config), str(self.notes(number))]
            self.workers.append(subprocess.Popen([*command, str(number), *port], env=self.environment))
        self.until(lambda: all(self.notes(number).with_suffix(".ready").exists() for number in range(PROCESSES)))

    def stop(self) -> list[dict[str, Any]]:
        for each in self.workers:
            each.send_signal(signal.SIGTERM)
        for each in self.workers:
            assert each.wait(PATIENCE) == 0
        return [json.loads(self.notes(number).read_text()) for number in range(PROCESSES)]

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

    def kill_on_the_way(self, line: str) -> None:
        """Starts a command and kills it, each time a little further."""
        for turn in range(1, KILLS + 1):
            command = [*self.command(line), "--rate", str(DOCUMENTS // 20)]
            with subprocess.Popen(command, env=self.environment, cwd=self.folder) as killed:
                goal = turn * DOCUMENTS // (2 * KILLS)
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
        return len(standing) == PROCESSES and all(each.get("phase") == phase for each in standing)

    def audit(self) -> Audit:
        url, database = self.mongo
        return Audit(url, database, self.dynamo_url, f"{database}-", load(self.config, {}).specs())


@pytest.fixture
def running(mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, mongo_url, mongo_database, dynamodb_local_url)
    made.fill()
    made.start()
    yield made
    for each in made.workers:
        with contextlib.suppress(ProcessLookupError):
            each.kill()
        each.wait()


def like(shown: str) -> re.Pattern[str]:
    """What the README shows, with any number for each of its numbers."""
    return re.compile(r"\d+".join(map(re.escape, re.split(r"\d+", shown))))


@pytest.mark.slow
@pytest.mark.timeout(3600 if LONG else 1200)
def test_the_runbook_is_walked_through_under_the_traffic_of_many_processes(running: Site) -> None:
    before: dict[str, str] = {}
    for line, shown in steps():
        prepare(running, line, before)
        out = running.run(line)
        assert like(shown).search(out), f"{line}\n{out}"
        if line == "shadow config phase shadow users":
            running.until(lambda: running.all_at("shadow"))
        if line == "shadow config phase dual_write users":
            running.until(lambda: running.all_at("dual_write"))
        time.sleep(BETWEEN)
    notes = running.stop()
    assert [error for each in notes for error in each["errors"]] == []
    check_counts(running, notes)
    check_primaries(notes)
    show_pauses(running, notes)


def prepare(site: Site, line: str, before: dict[str, str]) -> None:
    """What an operator waits for before a step, and what happens on the way of one."""
    if line == "shadow backfill users":
        site.kill_on_the_way(line)
    if "--rehearse" in line:
        expected = {"way back"}
        site.until(lambda: {each.partition(":")[0] for each in site.closed()} <= expected, site.closed)
    if line == "shadow flip users --to dynamo --dry-run":
        site.until(lambda: not site.closed(), site.closed)
    if line == "shadow flip users --to dynamo" and "back" in before:
        # The second time everything has to be earned anew.
        site.until(lambda: not site.closed(), site.closed)
    if line == "shadow complete users":
        assert json.loads(site.run("shadow findings list --json"))["findings"] == []
        assert "users: equal" in site.run("shadow verify users"), "level on live traffic, flipped three times"
    if line == "shadow flip users --to mongo":
        before["back"] = line
    if line.startswith("shadow finalize"):
        # What was written only just now is left: it is said so, with exit code 1.
        site.until(lambda: site.code(line) == 0, lambda: site.run(line))


def check_counts(site: Site, notes: list[dict[str, Any]]) -> None:
    """Every acknowledged increment is there once."""
    acked: Counter[str] = Counter()
    for each in notes:
        acked.update(each["acked"])
    assert len(acked) == SHARED + PROCESSES * TASKS
    _, dynamo = site.audit().documents(COLLECTION)
    assert {key: dynamo[key_digest(key)]["n"] for key in acked} == dict(acked)
    assert len(dynamo) == DOCUMENTS + len(acked)


def check_primaries(notes: list[dict[str, Any]]) -> None:
    """Between two writes that different stores have answered, none of the one was under way with one of the other."""
    writes = sorted((tuple(write) for each in notes for write in each["writes"]), key=lambda write: write[1])
    ended: dict[str, float] = {}
    changes = 0
    last = writes[0][0]
    for store, start, end in writes:
        if store != last:
            changes += 1
            last = store
        for other, latest in ended.items():
            assert other == store or latest <= start, f"{other} until {latest}, {store} from {start}"
        ended[store] = max(end, ended.get(store, 0.0))
    assert changes == 3, "there, back, and there again"


def show_pauses(site: Site, notes: list[dict[str, Any]]) -> None:
    """What the receipts say; a figure, and no bound that a loaded machine could fail."""
    records = load(site.config, {}).control_place().open()
    for each in receipts.listed(records):
        if each["kind"] in ("flip", "complete"):
            assert each["done"]
            assert each["gates"]
            assert len(each["held_seconds"]) == PROCESSES
            print(f"{each['kind']}: held {max(each['held_seconds'].values()) * 1000:.0f} ms at most")
    records.close()
    waits = sorted(end - start for each in notes for start, end in each["waits"])
    print(
        f"{len(waits)} writes; 99 % within {waits[len(waits) * 99 // 100] * 1000:.0f} ms, all in {waits[-1] * 1000:.0f}"
    )
