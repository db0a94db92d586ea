"""Verify over real servers: what is damaged is found, what is in flight is not, and repair makes it good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from shadow import Shadow
from shadow.migrate.jobs import reasons_of
from shadow.migrate.sides import JobRefused
from shadow.replicate.journal import Entry
from tests.support.migration import OpenJobs, backfill, control_of, load, verify
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

COUNT = 300


@pytest.fixture
def site(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> Site:
    return Site(
        least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"),
        limits={"write_deadline": 2.0},
    )  # fmt: skip


@pytest.fixture
async def copied(site: Site) -> AsyncIterator[tuple[Shadow, OpenJobs]]:
    """Two equal stores with `COUNT` documents each."""
    load(site, [{"_id": number, "n": number, "text": f"text {number}"} for number in range(COUNT)])
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await backfill(shadow, control)
        yield shadow, control
    control.close()


def damage(site: Site) -> None:
    """One document altered, two taken away, one too many: in the secondary, behind everything's back."""
    site.audit.damage(COLLECTION, 5, "n", {"N": "999"})
    site.audit.remove(COLLECTION, 6)
    site.audit.remove(COLLECTION, 7)
    site.audit.plant(COLLECTION, {"_id": "extra", "n": 1})


async def test_equal_stores_are_equal_with_denominators(copied: tuple[Shadow, OpenJobs]) -> None:
    found = await verify(*copied)
    assert found.clean
    assert (found.primary_documents, found.secondary_documents, found.compared, found.equal) == (COUNT,) * 4
    assert (found.missing, found.extra, found.different, found.undecided) == (0, 0, 0, 0)


async def test_full_verify_finds_every_damage_and_nothing_else(copied: tuple[Shadow, OpenJobs], site: Site) -> None:
    shadow, control = copied
    damage(site)
    found = await verify(shadow, control)
    assert (found.outcome, found.missing, found.extra, found.different) == ("different", 2, 1, 1)
    issues = {each.key: each.kind for page in control.issues(control.jobs()[0].id) for each in page}
    assert issues == {5: "different", 6: "missing", 7: "missing", "extra": "extra"}
    assert shadow.findings.summary()["open"] == 4, "they are findings as those of shadow reads are"


async def test_quick_verify_finds_what_versions_show(copied: tuple[Shadow, OpenJobs], site: Site) -> None:
    damage(site)
    found = await verify(*copied, full=False)
    assert (found.missing, found.extra, found.different) == (2, 1, 0), (
        "a content altered at the same version is not seen"
    )


async def test_a_sample_is_the_same_in_every_run_and_says_what_it_is(copied: tuple[Shadow, OpenJobs]) -> None:
    first, second = await verify(*copied, sample=0.2), await verify(*copied, sample=0.2)
    assert 0 < first.compared < COUNT / 2
    assert (first.compared, first.secondary_documents) == (second.compared, second.secondary_documents)
    assert first.primary_documents == first.secondary_documents, "both directions look at the same keys"


async def test_a_filter_leaves_out_the_rest(copied: tuple[Shadow, OpenJobs], site: Site) -> None:
    damage(site)
    found = await verify(*copied, filter={"n": {"$gte": 100, "$lt": 200}})
    assert (found.outcome, found.compared) == ("equal", 100)


async def test_nothing_compared_is_not_equal(copied: tuple[Shadow, OpenJobs]) -> None:
    found = await verify(*copied, filter={"n": -1})
    assert (found.outcome, found.clean) == ("nothing", False)


async def test_keys_in_flight_are_no_differences(copied: tuple[Shadow, OpenJobs], site: Site) -> None:
    """A key that the journal holds open may differ; it counts neither as different nor, for good, as equal."""
    shadow, control = copied
    journal = shadow.sides(COLLECTION).journal
    await journal.open([Entry("an-operation-under-way", COLLECTION, 6)])
    site.audit.remove(COLLECTION, 6)
    found = await verify(shadow, control, patience=1.0)
    assert (found.outcome, found.missing, found.undecided) == ("undecided", 0, 1)
    journal.close("an-operation-under-way")
    await journal.flush()
    assert (await verify(shadow, control)).missing == 1


async def test_verify_beside_writes_finds_nothing_that_is_not_there(copied: tuple[Shadow, OpenJobs]) -> None:
    shadow, control = copied
    ended = asyncio.Event()

    async def write(first: int) -> None:
        number = first
        while not ended.is_set():
            await shadow[COLLECTION].update_one({"_id": number % COUNT}, {"$inc": {"n": 1}})
            await shadow[COLLECTION].delete_one({"_id": f"new {number % 40}"})
            await shadow[COLLECTION].insert_one({"_id": f"new {number % 40} {first}", "n": 1})
            await shadow[COLLECTION].delete_one({"_id": f"new {number % 40} {first}"})
            number += 1

    writers = [asyncio.create_task(write(each * 77)) for each in range(4)]
    found = await verify(shadow, control, batch=20)
    ended.set()
    await asyncio.gather(*writers)
    assert (found.outcome, found.missing, found.extra, found.different) == ("equal", 0, 0, 0), found


async def test_a_clean_full_verify_takes_back_the_doubt_of_a_crash(copied: tuple[Shadow, OpenJobs]) -> None:
    shadow, control = copied
    trusted = []
    journal = shadow.sides(COLLECTION).journal

    async def trust(collection: str) -> None:
        trusted.append(collection)

    journal.trust = trust  # type: ignore[method-assign]
    await verify(shadow, control, full=False)
    await verify(shadow, control, sample=0.5)
    assert trusted == []
    await verify(shadow, control)
    assert trusted == [COLLECTION]


async def test_checkpoints_of_another_configuration_or_scope_are_refused(
    copied: tuple[Shadow, OpenJobs], site: Site
) -> None:
    shadow, control = copied
    from shadow.migrate.verify import Scope, Verify
    from shadow.migrate.work import Pace, Work

    task = Verify(shadow.sides(COLLECTION), Scope())
    stopped = Work(task, control, Pace(workers=2, batch=10))
    await stopped.begin()
    stopped.stop()
    assert (await stopped.run()).finished is None
    with pytest.raises(JobRefused, match="the options changed"):
        await verify(shadow, control, sample=0.5)
    other = site.but(primary="dynamo")
    async with other.shadow() as changed:
        with pytest.raises(JobRefused, match="the configuration changed"):
            await verify(changed, control)
    anew = await Work(task, control, Pace(), restart=True).run()
    assert anew.outcome == "equal"


async def test_a_backfill_needs_dual_writes(site: Site) -> None:
    async with site.but(phase="off").shadow() as shadow:
        with pytest.raises(JobRefused, match="dual_write"):
            await backfill(shadow, control_of(site))


async def test_what_cannot_be_copied_is_reported_by_reason(site: Site) -> None:
    """A unique value that two documents have: one of them is copied, the other is named, and the rest goes on."""
    load(site, [{"_id": number, "email": f"{number // 2}@x" if number < 2 else f"{number}@x"} for number in range(40)])
    from shadow.config import Settings

    settings = site.settings()
    entry = {"unique": ["email"], "phase": "dual_write"}
    with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
        assert client[site.database][COLLECTION].count_documents({}) == 40
    unique = Settings(**{**settings.model_dump(), "collections": {COLLECTION: entry}})
    control = control_of(site)
    async with Shadow(unique) as shadow:
        await shadow.sides(COLLECTION).secondary.prepare(unique.specs().values())
        job = await backfill(shadow, control)
    assert job.outcome == "incomplete"
    assert (job.counts["copied"], sum(job.issues.values())) == (39, 1)
    assert reasons_of(job) == {"failed: DuplicateKeyError 11000": 1}


async def test_the_rate_can_be_changed_while_it_runs(site: Site) -> None:
    load(site, [{"_id": number} for number in range(600)])
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        running = asyncio.create_task(backfill(shadow, control, rate=20.0, batch=10))
        await until(lambda: control.jobs() and control.jobs()[0].counts.get("seen", 0) > 0)
        assert control.jobs()[0].counts["seen"] < 300
        control.set_rate(control.jobs()[0].id, None)
        assert (await asyncio.wait_for(running, 30)).outcome == "complete"
