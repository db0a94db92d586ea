"""Metrics of several worker processes of one host: what any of them exports, and what is left of the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.test_metrics import Series

WORKER = """
import sys
from shadow.model.events import ComparisonFinished
from shadow.model.operation import READS, Verb
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Verdict
from shadow.observe.metrics import GaugeSnapshot, Metrics
primary, up, depth = StoreName(sys.argv[1]), sys.argv[2] == "up", int(sys.argv[3])
route = Route(primary, Phase.SHADOW)
gauges = GaugeSnapshot({"users": depth}, depth, depth, 10, {"users": route}, {StoreName.DYNAMO: up})
metrics = Metrics(["users"], gauges=lambda: gauges)
for _ in range(3):
    metrics.count(ComparisonFinished("users", Verb.FIND, Verdict.MATCH))
metrics.publish()
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.write(metrics.render()[0].decode())
"""


class Workers:
    """Processes with a `Metrics` each, in one shared folder."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join(sys.path)
        self._environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": path}
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            env=self._environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def scrape(self, process: subprocess.Popen[str]) -> Series:
        """What one worker, who ends with it, exports for all."""
        text = process.communicate("\n", timeout=60)[0]
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def test_any_worker_exports_what_all_of_them_say(workers: Workers) -> None:
    """Counters are added up; each gauge is merged as its meaning wants; nothing is said twice."""
    first = workers.start("mongo", "up", "2")
    workers.start("dynamo", "down", "5")
    seen = workers.scrape(first)
    users = ("collection", "users")
    verdict = frozenset({users, ("verb", "find"), ("verdict", "match")})
    assert seen["shadow_comparisons_total", verdict] == 6
    assert seen["shadow_queue_depth", frozenset()] == 7
    assert seen["shadow_queue_capacity", frozenset()] == 20
    assert seen["shadow_journal_open_intents", frozenset({users})] == 5
    assert seen["shadow_journal_oldest_intent_seconds", frozenset()] == 5
    assert seen["shadow_secondary_up", frozenset({("store", "dynamo")})] == 0
    for primary in ("mongo", "dynamo"):
        assert seen["shadow_route_info", frozenset({users, ("primary", primary), ("phase", "shadow")})] == 1
    assert not any("pid" in dict(labels) for _, labels in seen)


def test_the_counters_of_a_dead_worker_stay_and_its_gauges_go(workers: Workers, tmp_path: Path) -> None:
    dead = workers.start("dynamo", "down", "5")
    assert len(list(tmp_path.glob("shadow_gauges_*.json"))) == 1
    dead.kill()
    dead.communicate()
    seen = workers.scrape(workers.start("mongo", "up", "2"))
    verdict = frozenset({("collection", "users"), ("verb", "find"), ("verdict", "match")})
    assert seen["shadow_comparisons_total", verdict] == 6
    assert seen["shadow_queue_depth", frozenset()] == 2
    assert seen["shadow_secondary_up", frozenset({("store", "dynamo")})] == 1
    routes = {dict(labels)["primary"]: on for (name, labels), on in seen.items() if name == "shadow_route_info" and on}
    assert routes == {"mongo": 1}
    assert len(list(tmp_path.glob("shadow_gauges_*.json"))) == 1, "the dead one's is removed"


ALONE = """
import os, resource, sys
from shadow.model.events import RuleApplied
from tests.unit.test_metrics import Metrics, StoreName, use

def alone():
    metrics = Metrics(["users"], rules=[("users", "last-seen")])
    use(metrics)
    metrics.excuses([("users", "later")])
    metrics.count(RuleApplied("users", "later"))
    metrics.abandoned[StoreName.MONGO]()
    child = os.fork()
    if not child:
        metrics.abandoned[StoreName.MONGO]()
        os._exit(0 if metrics.totals()["operations"] == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    print(metrics.render()[0].decode(), flush=True)

for full, folder in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    worker = os.fork()  # a process of its own for each, and what takes long is imported once
    if not worker:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        if full == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        alone()
        os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0, folder
    print("# the next worker", flush=True)
"""


def test_a_worker_whose_folder_takes_no_file_starts_and_counts_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = {"full": tmp_path, "gone": tmp_path / "gone", "no folder": tmp_path / "file"}
    words = [word for what, place in folders.items() for word in (what, str(place))]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-c", ALONE, *words]
    told = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 0, told.stderr
    texts = told.stdout.split("# the next worker\n")[:-1]
    assert len(texts) == len(folders)
    for text in texts:
        _counts_for_itself(text)


def _counts_for_itself(text: str) -> None:
    seen = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    users = ("collection", "users")
    answered = frozenset({users, ("family", "read"), ("store", "mongo"), ("role", "primary")})
    assert seen["shadow_operation_seconds_count", answered] == 1
    assert seen["shadow_comparisons_total", frozenset({users, ("verb", "find_one"), ("verdict", "match")})] == 1
    assert seen["shadow_excused_total", frozenset({users, ("rule", "later")})] == 1
    assert seen["shadow_internal_failures_total", frozenset({("part", "gauges")})] >= 1
