"""The commands of the migration, as an operator types them: backfill, verify, a plan, its repair, and back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from shadow.cli import main
from tests.support.migration import control_of, load
from tests.support.shadows import COLLECTION, Site

COUNT = 500


class Operator:
    """Runs `shadow` with the configuration of a site."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "shadow.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "mongo": {"url": site.mongo_url, "database": site.database},
                    "dynamo": {"endpoint_url": site.dynamo_url, "table_prefix": site.prefix},
                    "journal": {"url": f"sqlite:///{site.journal}"},
                    "control": {"url": site.control},
                    "limits": {"settle": 0.05, "operation": 10.0},
                    "defaults": {"phase": "dual_write"},
                    "collections": {COLLECTION: {}},
                }
            )
        )

    def run(self, *words: str, code: int = 0) -> str:
        """What it prints; the test fails unless it ends with `code`."""
        ended, out, err = self.ended(*words)
        assert ended == code, out + err
        return out if code != 2 else err

    def ended(self, *words: str) -> tuple[int, str, str]:
        """The exit code, what stands on standard output and what on standard error."""
        out, err = io.StringIO(), io.StringIO()
        ended: Any = 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["shadow", *words, "--config", str(self.config)])
            patch.setenv("AWS_ACCESS_KEY_ID", "local")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "local")
            try:
                main()
            except SystemExit as error:
                ended = error.code
        return ended or 0, out.getvalue(), err.getvalue()

    def program(self, *words: str) -> str:
        """The same as a process of its own, which has to end well."""
        command = [sys.executable, "-c", "from shadow.cli import main; main()", *words, "--config", str(self.config)]
        credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        done = subprocess.run(
            command, env={**os.environ, **credentials}, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        sys.stderr.write(done.stderr)
        return done.stdout

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code))


@pytest.fixture
def site(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> Site:
    return Site(least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))


@pytest.mark.slow
def test_copy_verify_repair_and_undo(site: Site, tmp_path: Path) -> None:
    operator = Operator(site, tmp_path)
    load(site, [{"_id": f"k{number}", "n": number, "text": "secret"} for number in range(COUNT)])
    operator.run("tables", "create")

    (report,) = operator.json("backfill", "--workers", "2")
    assert (report["outcome"], report["copied"], report["not_copied"]) == ("complete", COUNT, 0)
    (found,) = operator.json("verify")
    assert (found["outcome"], found["compared"], found["secondary_documents"]) == ("equal", COUNT, COUNT)

    site.audit.damage(COLLECTION, "k5", "n", {"N": "999"})
    site.audit.remove(COLLECTION, "k6")
    site.audit.plant(COLLECTION, {"_id": "extra", "n": 1})
    (found,) = operator.json("verify", code=1)
    assert (found["missing"], found["extra"], found["different"]) == (1, 1, 1)

    plan = tmp_path / "plan.jsonl"
    assert operator.json("repair", "plan", COLLECTION, str(plan))["lines"] == 3
    assert "secret" not in plan.read_text(), "a plan holds keys and versions alone"
    dry = operator.json("repair", "apply", str(plan), code=1)
    assert (dry["applied"], dry["copied"], dry["deleted"]) == (False, 2, 1)
    assert len(asyncio.run(site.disagreements())) == 3, "a dry run changes nothing"

    done = operator.json("repair", "apply", str(plan), "--apply")
    assert (done["copied"], done["deleted"], done["moved"]) == (2, 1, 0)
    assert asyncio.run(site.disagreements()) == []
    log = Path(done["undo"])
    assert stat.S_IMODE(log.stat().st_mode) == 0o600, "it holds documents"
    assert operator.json("repair", "apply", str(plan), "--apply")["settled"] == 3

    assert operator.json("repair", "undo", str(log))["restored"] == 3
    assert len(asyncio.run(site.disagreements())) == 3, "as it was before the repair"
    assert "repair of" not in operator.run("jobs", "list")
    assert {row["kind"] for row in operator.json("jobs", "list")} == {"backfill", "verify"}


def test_a_plan_leaves_alone_what_has_moved(site: Site, tmp_path: Path) -> None:
    operator = Operator(site, tmp_path)
    load(site, [{"_id": f"k{number}", "n": number} for number in range(20)])
    operator.run("tables", "create")
    operator.run("verify", code=1)
    plan = tmp_path / "plan.jsonl"
    operator.run("repair", "plan", COLLECTION, str(plan))

    async def change() -> None:
        async with site.shadow() as shadow:
            await shadow[COLLECTION].update_one({"_id": "k3"}, {"$inc": {"n": 1}})
            await shadow[COLLECTION].delete_one({"_id": "k4"})
            assert await shadow.settled(90)

    asyncio.run(change())
    done = operator.json("repair", "apply", str(plan), "--apply")
    assert (done["copied"], done["settled"], done["moved"]) == (18, 2, 0)
    assert asyncio.run(site.disagreements()) == []


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.drawn_over("control", reason="the same work, shared through another store")
@pytest.mark.parametrize("control", ["sqlite", "mongo", "dynamodb-local"])
def test_helping_processes_share_the_work_through_every_control_store(
    site: Site, tmp_path: Path, control: str, fresh_name: str
) -> None:
    urls = {"sqlite": None, "mongo": "mongodb:///", "dynamodb-local": f"dynamodb://{fresh_name}-control"}
    site = site.but(control=urls[control])
    load(site, [{"_id": number} for number in range(400)])
    operator = Operator(site, tmp_path)
    operator.run("tables", "create")
    jobs = control_of(site)

    def at_work() -> bool:
        found = jobs.jobs()
        return bool(found) and found[0].parts == 3

    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(
            operator.program, "backfill", "--processes", "3", "--workers", "1", "--rate", "5", "--json"
        )
        while not at_work():
            assert not command.done(), command.result()
            time.sleep(0.05)
        jobs.set_rate(1, None)
        report = json.loads(command.result())[0]
    assert (report["outcome"], report["seen"], report["copied"]) == ("complete", 400, 400)
    assert asyncio.run(site.disagreements()) == []
    jobs.close()


def test_refusals_say_what_to_do(site: Site, tmp_path: Path) -> None:
    operator = Operator(site, tmp_path)
    said = operator.run("backfill", "no-such", code=2)
    assert re.search("not in the configuration", said)
    said = operator.run("repair", "plan", COLLECTION, str(tmp_path / "p"), code=2)
    assert "never verified" in said
