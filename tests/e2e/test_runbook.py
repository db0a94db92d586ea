"""The manual's runbook, as it is written: each command in order, on real servers, under the traffic of processes.

Nothing acknowledged is lost or done twice, nothing is found that is not so, and no write is answered by two primaries
at one time: that is read off what each write of each process was answered by. SHADOW_LONG=1 has more processes and
documents, and the traffic go on for longer between the steps.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.config import load
from shadow.control import receipts
from shadow.model.order import key_digest
from tests.support import manual
from tests.support.fleet_site import FleetSite
from tests.support.fleet_worker import COLLECTION, SHARED, TASKS, TWIN

LONG: Final = os.environ.get("SHADOW_LONG") == "1"
PROCESSES: Final = 8 if LONG else 3
BETWEEN: Final = float(os.environ.get("SHADOW_BETWEEN", "60" if LONG else "0.2"))
"""Seconds of traffic between two steps."""
DOCUMENTS: Final = 20_000 if LONG else 500
KILLS: Final = 5 if LONG else 2


def steps() -> list[tuple[str, str]]:
    """Each command of the runbook in order, with what is printed below its block ("" for all but the last of one)."""
    chapter = manual.text("runbook").partition("<!-- runbook -->\n")[2].partition("<!-- end -->")[0]
    found: list[tuple[str, str]] = []
    for block in re.finditer(r"```sh\n(.*?)```\n(?:\n```\n(.*?)```)?", chapter, re.DOTALL):
        *first, last = block[1].strip().splitlines()
        found += [*((command, "") for command in first), (last, (block[2] or "").strip())]
    return found


def test_the_runbook_has_all_its_steps() -> None:
    verbs = [command.split()[1] for command, _ in steps()]
    assert list(dict.fromkeys(verbs)) == [
        "assess", "tables", "config", "fleet", "backfill", "verify", "flip", "watch", "complete", "finalize",
    ]  # fmt: skip


@pytest.fixture
def running(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, tmp_path: Path
) -> Iterator[FleetSite]:
    made = FleetSite(
        tmp_path, least_role_url, least_role_database, dynamodb_local_url, processes=PROCESSES, documents=DOCUMENTS
    )
    made.fill()
    made.start()
    yield made
    made.kill()


def like(shown: str) -> re.Pattern[str]:
    """What the manual shows, with any number for each of its numbers."""
    return re.compile(r"\d+".join(map(re.escape, re.split(r"\d+", shown))))


@pytest.mark.slow
@pytest.mark.timeout(3600 if LONG else 1200)
def test_the_runbook_is_walked_through_under_the_traffic_of_many_processes(running: FleetSite) -> None:
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
    backends = {number: "beanie" for number in [TWIN] if find_spec("beanie") is not None}
    assert [each["backend"] for each in notes] == [backends.get(number, "driver") for number in range(PROCESSES)]
    check_counts(running, notes)
    check_primaries(notes)
    show_pauses(running, notes)


def prepare(site: FleetSite, line: str, before: dict[str, str]) -> None:
    """What an operator waits for before a step, and what happens on the way of one."""
    if line == "shadow backfill users":
        site.kill_on_the_way(line, KILLS)
    if "--rehearse" in line:
        expected = {"way back"}
        site.until(lambda: {each.partition(":")[0] for each in site.closed()} <= expected, site.closed)
    if line == "shadow flip users --to dynamo --dry-run":
        site.until(lambda: not site.closed(), site.closed)
    if line.startswith("shadow flip users --to dynamo") and "back" in before:
        # The second time everything has to be earned anew.
        site.until(lambda: not site.closed(), site.closed)
    if line == "shadow complete users":
        assert json.loads(site.run("shadow findings list --json"))["findings"] == []
        assert "users: equal" in site.run("shadow verify users"), "level on live traffic, flipped three times"
    if line == "shadow flip users --to mongo":
        before["back"] = line
    if line.startswith("shadow finalize"):
        # What was written only just now is left: it is said so, with exit code 1.
        site.until(lambda: site.ended(line).code == 0, lambda: site.run(line))


def check_counts(site: FleetSite, notes: list[dict[str, Any]]) -> None:
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


def show_pauses(site: FleetSite, notes: list[dict[str, Any]]) -> None:
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
