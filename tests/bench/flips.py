"""How long a flip holds writes: `python -m tests.bench.flips [processes] [flips]`.

Starts a MongoDB, a DynamoDB Local and the processes of an application with their traffic, flips there and back again by
the command line, and prints for how long the writes were held: as each process measured it, as the writes felt that
began before a flip's end, and by step.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from shadow.config import load
from shadow.control import receipts
from shadow.embedded.servers import DynamoDBLocal, Mongod
from tests.support import dynamodb_local
from tests.support.fleet_site import FleetSite


def flips(site: FleetSite, count: int) -> list[dict[str, Any]]:
    """The receipts, oldest first."""
    for turn in range(count):
        site.run(f"shadow flip users --to {('dynamo', 'mongo')[turn % 2]} --force --reason bench")
        time.sleep(1)
    records = load(site.config, {}).control_place().open()
    try:
        found = [each for each in receipts.listed(records) if each["kind"] == "flip"]
    finally:
        records.close()
    return sorted(found, key=lambda each: each["at"])


def show(found: list[dict[str, Any]], waits: list[float]) -> None:
    steps: defaultdict[str, list[float]] = defaultdict(list)
    for each in found:
        before = 0.0
        for step in each["steps"]:
            name = step["step"].partition(":")[0]
            steps[name].append((step["at"] - before) * 1000)
            before = step["at"]
    held = sorted(seconds * 1000 for each in found for seconds in each["held_seconds"].values())
    print(f"held, each process: {_spread(held)}")
    longest = sorted(max(each["held_seconds"].values()) * 1000 for each in found)
    print(f"held, the longest of a flip: {_spread(longest)}")
    for name, took in steps.items():
        print(f"  {name}: {_spread(sorted(took))}")
    print(f"all {len(waits)} writes of the run: {_spread(sorted(each * 1000 for each in waits))}")


def _spread(times: list[float]) -> str:
    return f"median {median(times):.0f} ms, 99 % within {times[len(times) * 99 // 100]:.0f}, all within {times[-1]:.0f}"


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with (
        tempfile.TemporaryDirectory() as folder,
        Mongod() as mongo,
        DynamoDBLocal(dynamodb_local.home()) as dynamo,
    ):
        site = FleetSite(
            Path(folder), mongo.url, "bench", dynamo.url, processes=processes, documents=100, phase="shadow"
        )
        site.fill()
        site.run("shadow tables create")
        site.start()
        try:
            time.sleep(5)
            found = flips(site, count)
            print(f"{processes} processes, {len(found)} flips, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            notes = site.stop()
        finally:
            site.kill()
        assert [error for each in notes for error in each["errors"]] == []
        show(found, [end - start for each in notes for start, end in each["waits"]])


if __name__ == "__main__":
    main()
