"""Backfill and verify on a real Dask cluster whose workers are killed on the way: the result is that of one process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadow.cli.part import WorkerTask, take_part
from shadow.cli.verify import _task
from shadow.host.process import Owner
from shadow.jobs.cluster import Cluster, ClusterUnavailable
from shadow.jobs.jobs import Job
from shadow.jobs.target import JobRefused
from shadow.jobs.work import JobPace
from tests.support.cluster import Dask, dask
from tests.support.migration import OpenJobs, control_of, load
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool

COUNT = 600
SLOWLY = ("--rate", "60", "--workers", "2", "--json")
HELD = 4.0
"""Documents a second, while workers are killed: the rest would take two minutes."""
DAMAGE = {"k00005": "different", "k00006": "missing", "k00007": "missing", "extra": "extra"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Dask]:
    with dask(workers=2) as made:
        yield made


@pytest.fixture
def site(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> Site:
    """Its journal and control store are files of this host, unless a test wants another place."""
    return Site(
        least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"),
        limits={"write_deadline": 2.0, "settle": 0.05},
    )  # fmt: skip


def last(jobs: OpenJobs) -> Job | None:
    return next(iter(jobs.jobs(limit=1)), None)


async def reach(jobs: OpenJobs, seen: int, kind: str) -> None:
    """Waits until the newest job, of this kind, has so many documents behind it."""

    def has_seen() -> bool:
        job = last(jobs)
        return job is not None and job.kind == kind and job.counts.get("seen", 0) >= seen

    await until(has_seen, 90)


async def killed_on_the_way(command: asyncio.Task[Any], jobs: OpenJobs, cluster: Dask, kind: str, total: int) -> None:
    """One of two workers dies early, and the other one later; then there is no hurry any more."""
    for share, last_of_them in ((10, False), (5, True)):
        await reach(jobs, total // share, kind)
        job = last(jobs)
        assert job is not None
        jobs.set_rate(job.id, HELD)
        await asyncio.to_thread(cluster.kill, 1)
        assert not command.done()
        assert not jobs.job(job.id).done, "they died on the way"
        jobs.set_rate(job.id, None if last_of_them else 60.0)


@pytest.mark.takes_turns
@pytest.mark.slow
async def test_a_backfill_is_stopped_gone_on_with_and_survives_its_workers(
    site: Site, cluster: Dask, tmp_path: Path
) -> None:
    site = site.but(journal="mongodb:///")
    load(site, [{"_id": f"k{number:05}", "n": number} for number in range(COUNT)])
    tool, jobs = Tool(site, tmp_path), control_of(site)
    assert (await tool("tables", "create")).code == 0

    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from shadow.cli import main; main()"),
        *("backfill", "--scheduler", cluster.address, *SLOWLY, "--config", str(tool.config)),
        stdout=asyncio.subprocess.PIPE,
    )
    await reach(jobs, 50, "backfill")
    program.send_signal(signal.SIGINT)
    out, _ = await program.communicate()
    assert program.returncode == 2
    stopped = json.loads(out)[0]
    assert stopped["outcome"] == "stopped"
    assert jobs.job(1).parts == 0, "nobody is at work behind its back"

    command = asyncio.create_task(tool("backfill", "--scheduler", cluster.address, *SLOWLY))
    await killed_on_the_way(command, jobs, cluster, "backfill", COUNT)
    said = await command
    assert said.code == 0, said.out
    report: Any = json.loads(said.out)[0]
    assert (report["job"], report["outcome"], report["not_copied"]) == (1, "complete", 0)
    assert report["seen"] == COUNT, "every document passed a checkpoint exactly once"
    assert report["copied"] + report["present"] == COUNT
    assert await site.disagreements() == []
    jobs.close()


@pytest.mark.takes_turns
@pytest.mark.slow
async def test_a_verification_that_loses_its_workers_leaves_nothing_out(
    site: Site, cluster: Dask, tmp_path: Path
) -> None:
    """With files of this host, on which the workers are as well."""
    load(site, [{"_id": f"k{number:05}", "n": number} for number in range(COUNT)])
    tool, jobs = Tool(site, tmp_path), control_of(site)
    assert (await tool("tables", "create")).code == 0
    said = await tool("backfill", "--json", "--scheduler", cluster.address, "--workers", "2")
    assert said.code == 0, said.out
    site.audit.damage(COLLECTION, "k00005", "n", {"N": "999"})
    site.audit.remove(COLLECTION, "k00006")
    site.audit.remove(COLLECTION, "k00007")
    site.audit.plant(COLLECTION, {"_id": "extra", "n": 1})

    command = asyncio.create_task(tool("verify", "--scheduler", cluster.address, *SLOWLY))
    await killed_on_the_way(command, jobs, cluster, "verify", 2 * COUNT)
    said = await command
    assert said.code == 1, said.out
    found: Any = json.loads(said.out)[0]
    assert (found["outcome"], found["compared"]) == ("different", COUNT)
    assert (found["primary_documents"], found["secondary_documents"]) == (COUNT, COUNT - 1)
    assert (found["missing"], found["extra"], found["different"]) == (2, 1, 1)
    job = last(jobs)
    assert job is not None
    assert {each.key: each.kind for page in jobs.issues(job.id) for each in page} == DAMAGE
    jobs.close()


async def test_workers_of_another_host_are_refused_what_only_this_one_has(
    site: Site, cluster: Dask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with the reason, instead of a job that nobody works on."""
    load(site, [{"_id": 1}])
    tool, jobs = Tool(site, tmp_path), control_of(site)
    assert (await tool("tables", "create")).code == 0
    monkeypatch.setattr("shadow.cli.part.this_process", lambda: Owner("another-host/boot/pid:[1]", 1, 1.0))
    with pytest.raises(JobRefused, match="a worker on another host cannot use journal and control in a file") as caught:
        await tool("verify", "--scheduler", cluster.address)
    assert "control.url" in str(caught.value)
    assert jobs.job(1).stopping
    jobs.close()


def test_a_part_says_what_is_wrong_with_its_settings_and_raises_nothing() -> None:
    made = WorkerTask("mongo: {urk: 1}", {}, "", COLLECTION, _task, JobPace())
    assert "did you mean 'url'" in take_part(made).refused


async def test_a_scheduler_that_does_not_answer_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadow.jobs.cluster._CONNECT", 0.3)
    with pytest.raises(ClusterUnavailable, match="no Dask cluster"):
        async with Cluster("tcp://127.0.0.1:9"):
            pass


async def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(JobRefused, match=r"pip install 'shadow\[dask\]'"):
        async with Cluster("tcp://127.0.0.1:9"):
            pass


async def test_helpers_of_this_host_and_workers_of_a_cluster_exclude_each_other(site: Site, tmp_path: Path) -> None:
    said = await Tool(site, tmp_path)("backfill", "--scheduler", "tcp://127.0.0.1:9", "--processes", "2")
    assert said.code == 2
