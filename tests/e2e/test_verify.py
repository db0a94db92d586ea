"""Verify over real servers: what is damaged is found, what is in flight is not, and repair makes it good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo.errors import OperationFailure

from shadow import Shadow
from shadow.jobs.jobs import reasons_of
from shadow.jobs.plan_file import made_whole, new_file, write_plan
from shadow.jobs.repair import apply_plan, undo
from shadow.jobs.target import JobRefused
from shadow.jobs.verify import Scope, Verify
from shadow.jobs.work import JobPace, Work, WorkOptions
from shadow.journal.base import Entry
from shadow.model.events import MismatchConfirmed
from shadow.model.operation import Verb
from shadow.model.verdict import Difference, Kind, Mismatch
from shadow.model.version import Version
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
    assert shadow.admin.findings.summary()["open"] == 4, "they are findings as those of shadow reads are"


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
    journal = shadow.admin.sides(COLLECTION).journal
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
    journal = shadow.admin.sides(COLLECTION).journal

    async def trust(collection: str, doubts: str) -> None:
        trusted.append(collection)

    journal.trust = trust  # type: ignore[method-assign]
    await verify(shadow, control, full=False)
    await verify(shadow, control, sample=0.5)
    assert trusted == []
    await verify(shadow, control)
    assert trusted == [COLLECTION]


async def test_a_doubt_that_comes_while_a_verification_runs_is_not_taken_back_by_it(
    copied: tuple[Shadow, OpenJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow, control = copied
    journal, handle = shadow.admin.sides(COLLECTION).journal, Verify.handle

    async def unclean() -> list[str]:
        return list((await shadow.admin.status())["journal"]["verify_since"])

    async def handled(self: Verify, within: Any, batch: Any) -> Any:
        found = await handle(self, within, batch)
        journal.doubt(COLLECTION)
        return found

    journal.doubt(COLLECTION)
    monkeypatch.setattr(Verify, "handle", handled)
    assert (await verify(shadow, control)).clean
    assert await unclean() == [COLLECTION]
    monkeypatch.setattr(Verify, "handle", handle)
    assert (await verify(shadow, control)).clean
    assert await unclean() == []


async def test_checkpoints_of_another_configuration_or_scope_are_refused(
    copied: tuple[Shadow, OpenJobs], site: Site
) -> None:
    shadow, control = copied
    task = Verify(shadow.admin.sides(COLLECTION), Scope())
    stopped = Work(task, control, JobPace(workers=2, batch=10))
    await stopped.begin()
    stopped.stop()
    assert (await stopped.run()).finished is None
    with pytest.raises(JobRefused, match="the options changed"):
        await verify(shadow, control, sample=0.5)
    other = site.but(primary="dynamo")
    async with other.shadow() as changed:
        with pytest.raises(JobRefused, match="the configuration changed"):
            await verify(changed, control)
    restarted = await Work(task, control, JobPace(), WorkOptions(restart=True)).run()
    assert restarted.outcome == "equal"


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
        await shadow.admin.sides(COLLECTION).secondary.prepare(unique.specs().values())
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


# --- findings are closed by proof -----------------------------------------------------------------------------------


COUNTED: Final = Mismatch(COLLECTION, Verb.COUNT_DOCUMENTS, Kind.COUNT, None, (Difference(Kind.COUNT, "$count"),))


async def opened(shadow: Shadow) -> int:
    return (await shadow.admin.shared_findings.open_by_collection()).get(COLLECTION, 0)


def answers(shadow: Shadow) -> None:
    """What reads have found: a document, an answer that names none, and documents that agree though the answers to a
    read of them did not."""
    states = (Version("b", 1), Version("b", 1))
    for found in (
        Mismatch(COLLECTION, Verb.FIND, Kind.VALUE, 5, (Difference(Kind.VALUE, "n"),), *states),
        COUNTED,
        Mismatch(COLLECTION, Verb.FIND, Kind.ORDER, 9, (Difference(Kind.ORDER, "$order"),)),
    ):
        shadow.admin.report.publish(MismatchConfirmed(found))


async def test_a_clean_verification_closes_what_was_found_before_it(copied: tuple[Shadow, OpenJobs]) -> None:
    shadow, control = copied
    answers(shadow)
    assert await opened(shadow) == 3
    assert (await verify(shadow, control)).clean
    assert await opened(shadow) == 0


async def test_a_verification_of_a_part_closes_what_it_can_prove(copied: tuple[Shadow, OpenJobs]) -> None:
    """The document is looked at by itself; of answers only the whole speaks."""
    shadow, control = copied
    answers(shadow)
    await verify(shadow, control, full=False)
    assert await opened(shadow) == 2
    assert {each.of_answer for each in await shadow.admin.shared_findings.open(COLLECTION)} == {True}
    await verify(shadow, control, filter={"n": -1})
    assert await opened(shadow) == 2


async def test_what_is_found_while_it_verifies_stays_open(copied: tuple[Shadow, OpenJobs]) -> None:
    shadow, control = copied
    answers(shadow)
    task = Verify(shadow.admin.sides(COLLECTION), Scope())
    work = Work(task, control, JobPace(workers=4))
    await work.begin()
    shadow.admin.report.publish(MismatchConfirmed(COUNTED))
    assert (await work.run()).outcome == "equal"
    (left,) = await shadow.admin.shared_findings.open(COLLECTION)
    assert (left.key, left.count) == (None, 2)


async def test_what_still_differs_and_what_is_in_flight_stays_open(copied: tuple[Shadow, OpenJobs], site: Site) -> None:
    shadow, control = copied
    damage(site)
    await verify(shadow, control)
    assert await opened(shadow) == 4
    journal = shadow.admin.sides(COLLECTION).journal
    await journal.open([Entry("an-operation-under-way", COLLECTION, 5)])
    await shadow.admin.heal(COLLECTION, 6)
    assert await opened(shadow) == 3
    site.audit.damage(COLLECTION, 5, "n", {"N": "5"})
    await verify(shadow, control, patience=1.0)
    assert await opened(shadow) == 3, "equal, but a write of it is under way"
    journal.close("an-operation-under-way")
    await journal.flush()
    await verify(shadow, control)
    assert await opened(shadow) == 2


async def test_every_way_of_healing_closes_the_finding(copied: tuple[Shadow, OpenJobs], site: Site) -> None:
    shadow, control = copied
    for key in (5, 6, 7):
        site.audit.damage(COLLECTION, key, "n", {"N": "999"})
    assert (await verify(shadow, control)).different == 3
    assert await opened(shadow) == 3
    await shadow.admin.heal(COLLECTION, 5)
    assert await opened(shadow) == 2
    journal = shadow.admin.sides(COLLECTION).journal
    await journal.open([Entry("a-write", COLLECTION, 6)])
    journal.defer("a-write")
    assert await shadow.settled(90)
    assert await opened(shadow) == 1
    await shadow[COLLECTION].update_one({"_id": 7}, {"$set": {"text": "new"}})
    assert await shadow.settled(90)
    assert (await verify(shadow, control)).clean
    assert await opened(shadow) == 0


async def test_a_repair_by_plan_closes_and_its_undoing_opens_again(
    copied: tuple[Shadow, OpenJobs], site: Site, tmp_path: Path
) -> None:
    shadow, control = copied
    damage(site)
    await verify(shadow, control)
    plan, log = tmp_path / "plan", tmp_path / "log"
    with made_whole(plan) as file:
        write_plan(file, control, control.jobs(kind="verify", limit=1)[0])
    await apply_plan(shadow.admin.sides(COLLECTION), plan, log=None)
    assert await opened(shadow) == 4, "a dry run proves nothing"
    with new_file(log) as file:
        assert (await apply_plan(shadow.admin.sides(COLLECTION), plan, log=lambda: file))["moved"] == 0
    assert await opened(shadow) == 0
    assert (await undo(shadow.admin.sides(COLLECTION), log))["restored"] == 4
    assert await opened(shadow) == 4


# --- a collection without documents ---------------------------------------------------------------------------------


async def test_stores_that_are_both_empty_are_equal_and_all_is_copied(site: Site) -> None:
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        assert (await backfill(shadow, control)).outcome == "complete"
        found = await verify(shadow, control)
        assert (found.outcome, found.clean, found.compared) == ("equal", True, 0)
        assert (await verify(shadow, control, full=False)).outcome == "equal"
        assert (await verify(shadow, control, sample=0.5)).outcome == "nothing"
        assert (await verify(shadow, control, filter={"n": 1})).outcome == "nothing"
        site.audit.plant(COLLECTION, {"_id": "extra", "n": 1})
        assert (await verify(shadow, control)).outcome == "different"
    control.close()


async def test_a_table_that_is_missing_is_said_to_be_where_there_is_nothing_to_copy(site: Site) -> None:
    async with site.shadow() as shadow:
        with pytest.raises(OperationFailure, match="shadow tables create"):
            await backfill(shadow, control_of(site))
