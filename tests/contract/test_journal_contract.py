"""One contract, kept by every journal: in a file, in MongoDB, in DynamoDB (DynamoDB Local and ministack)."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from bson import Decimal128, Int64, ObjectId

from shadow.journal.base import Due, Entry, Journal, undecided, undecided_op
from tests.support.drawn import in_one_deployment
from tests.support.journals import JOURNALS, LIMIT, Place, SetClock

pytestmark = in_one_deployment("place")


@pytest.fixture(params=JOURNALS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path, request.getfixturevalue)
    yield made
    made.close()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def journal(place: Place, clock: SetClock) -> Journal:
    return place.journal(clock)


async def pass_time(clock: SetClock, seconds: float, *living: Journal) -> None:
    """Lets time go by in steps in which living processes give their signs of life."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now = min(end, clock.now + LIMIT / 4)
        for each in living:
            await each.flush()


async def test_an_opened_intent_is_seen_by_another_process_when_open_returns(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    key = ObjectId()
    assert not await other.has_open("users", key)
    await journal.open([Entry("op1", "users", key)])
    assert await other.has_open("users", key)
    assert not await other.has_open("users", ObjectId())
    assert not await other.has_open("documents", key)
    assert (await other.stats()).open_by_collection == {"users": 1}


async def test_open_is_all_or_nothing(journal: Journal) -> None:
    await journal.open([Entry("op1", "users", 1)])
    with pytest.raises(Exception):  # noqa: B017 - each journal has its own way to say so
        await journal.open([Entry("op2", "users", 2), Entry("op1", "users", 3)])
    assert await journal.has_open("users", 1)
    assert not await journal.has_open("users", 2)
    assert not await journal.has_open("users", 3)


async def test_a_closed_intent_is_gone_and_others_stay(journal: Journal) -> None:
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 1)])
    journal.close("op1")
    await journal.flush()
    assert await journal.has_open("users", 1)
    journal.close("op2")
    await journal.flush()
    assert not await journal.has_open("users", 1)
    assert (await journal.stats()).open == 0


OP, OTHER = "6b0e2f0a8d3c4e5f60718293", "6b0e2f0a8d3c4e5f60718294"


async def test_an_undecided_intent_stands_for_every_key_of_its_collection(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    await journal.open([Entry(OP, "users", undecided(OP))])
    assert await other.has_open("users", ObjectId())
    assert await other.has_open("users", "k")
    assert not await other.has_open("documents", "k")
    assert (await other.stats()).open_by_collection == {"users": 1}
    journal.close(OP)
    await journal.flush()
    assert not await other.has_open("users", "k")
    assert (await other.stats()).open == 0


async def test_a_decided_intent_is_deferred_under_its_key(journal: Journal, place: Place, clock: SetClock) -> None:
    other = place.journal(clock)
    await journal.open([Entry(OP, "users", undecided(OP)), Entry(OTHER, "users", undecided(OTHER))])
    journal.decide(OP, "k")
    journal.decide(OTHER, "k")
    journal.defer(OP)
    journal.defer(OTHER)
    await journal.flush()
    assert await other.has_open("users", "k")
    assert not await other.has_open("users", "other")
    (due,) = await other.due(10, lease=5.0)
    assert (due.key, due.generation) == ("k", 2)
    assert await other.settle(due)
    assert (await other.stats()).open == 0


async def test_what_was_never_decided_is_deferred_by_its_operation(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    await journal.open([Entry(OP, "users", undecided(OP)), Entry(OTHER, "users", undecided(OTHER))])
    journal.defer(OP, unknown=True)
    journal.defer(OTHER, unknown=True)
    await journal.flush()
    other = place.journal(clock)
    assert await other.has_open("users", "any")
    found = await other.due(10, lease=5.0)
    assert {undecided_op(due.key) for due in found} == {OP, OTHER}
    assert [await other.settle(due) for due in found] == [False, False], "their outcome is not known yet"
    await pass_time(clock, LIMIT * 2, journal, other)
    found = await other.due(10, lease=5.0)
    assert [await other.settle(due) for due in found] == [True, True]
    assert not await other.has_open("users", "any")


async def test_deciding_what_is_not_open_does_nothing(journal: Journal) -> None:
    journal.decide(OP, "k")
    await journal.flush()
    assert not await journal.has_open("users", "k")
    assert (await journal.stats()).open == 0


async def test_a_probe_leaves_nothing_behind(journal: Journal, place: Place, clock: SetClock) -> None:
    await journal.open([Entry("op1", "users", 1)])
    before = await journal.stats()
    for _ in range(3):
        await journal.probe()
    after = await place.journal(clock).stats()
    assert (after.open_by_collection, after.passed) == (before.open_by_collection, before.passed)
    assert [each.op_id for each in await journal.entries(10)] == ["op1"]


async def test_what_is_asked_knows_every_earlier_close_and_deferral(journal: Journal) -> None:
    for number in range(20):
        await journal.open([Entry(f"op{number}", "users", number)])
        journal.close(f"op{number}") if number % 2 else journal.defer(f"op{number}")
        assert await journal.has_open("users", number) == (number % 2 == 0)
    assert (await journal.stats()).deferred_by_collection == {"users": 10}


async def test_keys_of_every_type_come_back_as_they_were(journal: Journal) -> None:
    keys = ["text", 1, Int64(2**40), ObjectId(), {"a": 1, "b": "x"}, None, True, 1.5, b"bytes", Decimal128("0.1")]
    keys += ["a#b", "~", "", "ä" * 300]
    await journal.open([Entry(f"op{i}", "c/d#e f", key) for i, key in enumerate(keys)])
    for i in range(len(keys)):
        journal.defer(f"op{i}")
    found = [due.key for due in await journal.due(100, 10)]
    assert sorted(map(repr, found)) == sorted(map(repr, keys))
    assert (await journal.stats()).deferred_by_collection == {"c/d#e f": len(keys)}


async def test_deferrals_of_one_key_become_one_entry_that_keeps_the_oldest_time(
    journal: Journal, clock: SetClock
) -> None:
    await journal.open([Entry("op1", "users", 1)])
    clock.now += 5
    await journal.open([Entry("op2", "users", 1)])
    journal.defer("op2")
    journal.defer("op1")
    (due,) = await journal.due(10, 10)
    assert (due.generation, due.since) == (2, 1_000_000.0)
    assert (await journal.stats()).open == 1


async def test_a_settle_does_not_clear_a_deferral_that_came_after_it_was_due(journal: Journal) -> None:
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 1)])
    journal.defer("op1")
    (due,) = await journal.due(10, 10)
    journal.defer("op2")
    assert not await journal.settle(due)
    (again,) = await journal.due(10, 10)
    assert await journal.settle(again)
    assert (await journal.stats()).open == 0


async def test_an_unknown_outcome_is_not_settled_before_the_operation_must_have_ended(
    journal: Journal, clock: SetClock
) -> None:
    await journal.open([Entry("op1", "users", 1)])
    journal.defer("op1", unknown=True)
    (due,) = await journal.due(10, 10)
    clock.now += LIMIT + 1
    assert not await journal.settle(due), "that heal began while the primary could still have been at work"
    (due,) = await journal.due(10, 10)
    assert await journal.settle(due)


async def test_an_unknown_outcome_stays_unknown_under_a_later_deferral_of_the_key(
    journal: Journal, clock: SetClock
) -> None:
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 1), Entry("op3", "users", 1)])
    journal.defer("op2")
    journal.defer("op1", unknown=True)
    journal.defer("op3")
    (due,) = await journal.due(10, 10)
    assert due.generation == 3
    assert not await journal.settle(due)
    clock.now += LIMIT + 1
    (due,) = await journal.due(10, 10)
    assert await journal.settle(due)


async def test_what_is_due_is_leased_to_one_process_at_a_time(journal: Journal, place: Place, clock: SetClock) -> None:
    other = place.journal(clock)
    await journal.open([Entry("op1", "users", 1)])
    journal.defer("op1")
    assert len(await journal.due(10, lease=10)) == 1
    assert await other.due(10, lease=10) == []
    clock.now += 11
    assert len(await other.due(10, lease=10)) == 1


async def test_processes_that_ask_at_once_share_what_is_due(place: Place) -> None:
    journals = [place.journal() for _ in range(3)]
    for journal in journals:
        await journal.flush()
    await journals[0].open([Entry(f"op{n}", "users", n) for n in range(60)])
    for number in range(60):
        journals[0].defer(f"op{number}")
    await journals[0].flush()
    keys: list[int] = []
    async with asyncio.timeout(60):
        while len(keys) < 60:
            for some in await asyncio.gather(*(each.due(10, 600) for each in journals)):
                keys += [due.key for due in some]
    assert sorted(keys) == list(range(60)), "each key once"


async def test_a_postponed_key_comes_back_after_its_delay(journal: Journal, clock: SetClock) -> None:
    await journal.open([Entry("op1", "users", 1)])
    clock.now += 1
    await journal.open([Entry("op2", "users", 2)])
    journal.defer("op2")
    journal.defer("op1")
    first, second = await journal.due(10, 10)
    assert (first.key, second.key) == (1, 2), "oldest first"
    await journal.postpone(first, 60)
    clock.now += 20
    assert [due.key for due in await journal.due(10, 10)] == [2]
    clock.now += 60
    found = {due.key: due.attempts for due in await journal.due(10, 10)}
    assert found == {1: 1, 2: 0}


async def test_a_key_that_the_secondary_refuses_is_told_from_one_that_waits(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    """By every process; its attempts count from the first refusal on, and what comes after a refusal is what counts."""
    for number in range(3):
        await journal.open([Entry(f"op{number}", "users", number)])
        journal.defer(f"op{number}")
    found = {due.key: due for due in await journal.due(10, 10)}
    await journal.postpone(found[0], 0)
    await journal.postpone(found[1], 0)
    await journal.postpone(found[2], 0)
    clock.now += 20
    found = {due.key: due for due in await journal.due(10, 10)}
    assert [found[key].attempts for key in range(3)] == [1, 1, 1]
    await journal.postpone(found[0], 0, "WriteError 15")
    await journal.postpone(found[1], 0, "DocumentTooLarge")
    await journal.postpone(found[2], 0)
    other = place.journal(clock)
    stats = await other.stats()
    assert (stats.deferred_by_collection, stats.refused_by_collection) == ({"users": 3}, {"users": 2})
    told = {each.key: each.refused for each in await other.entries(10)}
    assert told == {0: "WriteError 15", 1: "DocumentTooLarge", 2: ""}
    assert [each.refused for each in await other.explain("users", 1)] == ["DocumentTooLarge"]

    clock.now += 20
    found = {due.key: due for due in await other.due(10, 10)}
    assert [(found[key].attempts, found[key].refused) for key in range(3)] == [
        (1, "WriteError 15"),
        (1, "DocumentTooLarge"),
        (2, ""),
    ]
    await other.postpone(found[0], 0, "WriteError 15")
    await other.postpone(found[1], 0)
    assert await other.settle(found[2])
    clock.now += 20
    assert (await journal.stats()).refused_by_collection == {"users": 1}
    claimed = await journal.claim("users", 0, 10)
    assert claimed is not None
    assert (claimed.attempts, claimed.refused) == (2, "WriteError 15")
    assert await journal.settle(claimed)
    assert (await journal.stats()).refused_by_collection == {}
    await journal.open([Entry("again", "users", 0)])
    journal.defer("again")
    await journal.flush()
    assert [each.refused for each in await journal.explain("users", 0)] == [""], "it was settled, and began anew"


async def test_the_oldest_are_due_first_when_there_is_no_room_for_all(journal: Journal, clock: SetClock) -> None:
    for number in range(12):
        await journal.open([Entry(f"op{number}", "users", number)])
        clock.now += 1
    for number in reversed(range(12)):
        journal.defer(f"op{number}")
    assert [due.key for due in await journal.due(5, 10)] == [0, 1, 2, 3, 4]
    assert [due.key for due in await journal.due(5, 10)] == [5, 6, 7, 8, 9]


async def test_intents_of_a_living_young_operation_are_left_alone(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    await journal.open([Entry("op1", "users", 1)])
    await pass_time(clock, LIMIT - 1, journal)
    assert await other.due(10, 10) == []
    await pass_time(clock, 2, journal)
    (due,) = await other.due(10, 10)
    assert due.key == 1
    assert await other.settle(due), "the operation must have ended when the heal began"
    journal.close("op1")
    assert (await journal.stats()).open == 0


async def test_one_deferral_is_asked_for_by_name_whether_its_turn_has_come_or_not(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 2)])
    journal.defer("op1")
    (due,) = await journal.due(10, 100)
    assert await other.claim("users", 2, 10) is None, "an open intent of a living process"
    clock.now += 1
    claimed = await other.claim("users", 1, 10)
    assert claimed is not None
    assert (claimed.key, claimed.generation) == (1, due.generation)
    assert await other.settle(claimed)
    assert await journal.claim("users", 1, 10) is None


async def test_entries_are_shown_oldest_first_page_by_page(journal: Journal, clock: SetClock) -> None:
    for number in range(9):
        entries = [Entry(f"op{number}.{n}", f"c{n}", number) for n in range(2)]
        await journal.open(entries)
        if number % 3 == 0:
            journal.defer(entries[0].op_id)
        clock.now += number % 2
    seen = []
    after = None
    while page := await journal.entries(4, after=after):
        assert len(page) <= 4
        seen += page
        after = page[-1]
    assert len(seen) == 18
    assert [each.since for each in seen] == sorted(each.since for each in seen)
    assert {(each.collection, each.key) for each in seen} == {
        (f"c{n}", number) for n in range(2) for number in range(9)
    }
    assert sorted(each.key for each in seen if each.deferred) == [0, 3, 6]
    assert all(each.owner and not each.owner_dead for each in seen if not each.deferred)
    assert {each.key for each in await journal.entries(100, collection="c1")} == set(range(9))


async def test_a_key_is_explained_by_its_intents_and_its_deferral(journal: Journal, clock: SetClock) -> None:
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 2)])
    journal.defer("op1", unknown=True)
    clock.now += 1
    await journal.open([Entry("op3", "users", 1)])
    deferral, intent = await journal.explain("users", 1)
    assert (deferral.generation, deferral.settle_after, deferral.since) == (1, 1_000_000.0 + LIMIT, 1_000_000.0)
    assert (intent.op_id, intent.since, intent.settle_after) == ("op3", clock.now, clock.now + LIMIT)


async def test_the_age_is_that_of_the_oldest_entry(journal: Journal, clock: SetClock) -> None:
    assert (await journal.stats()).oldest_age == 0.0
    await journal.open([Entry("op1", "users", 1)])
    clock.now += 5
    await journal.open([Entry("op2", "users", 2)])
    assert (await journal.stats()).oldest_age == 5.0
    journal.close("op1")
    journal.defer("op2")
    clock.now += 2
    assert (await journal.stats()).oldest_age == 2.0


async def test_many_concurrent_opens_are_all_durable_and_few_requests(journal: Journal, place: Place) -> None:
    await asyncio.gather(*(journal.open([Entry(f"op{i}", "users", i)]) for i in range(500)))
    assert (await place.journal().stats()).open_by_collection == {"users": 500}


async def test_between_two_equal_figures_of_what_has_passed_no_write_has_begun(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    before = (await other.stats()).passed.get("a.b/c", 0)
    await journal.open([Entry("op1", "a.b/c", 1)])
    journal.close("op1")
    await journal.flush()
    after = await other.stats()
    assert after.open == 0
    assert after.passed["a.b/c"] > before
    assert (await other.stats()).passed == after.passed


async def test_a_doubted_collection_is_unclean_for_all_until_it_is_trusted(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    journal.doubt("users")
    assert journal.doubted.keys() == {"users"}, "known here at once"
    assert (await journal.stats()).unclean.keys() == {"users"}
    assert (await other.stats()).unclean.keys() == {"users"}
    await other.trust("users", await other.doubts("users"))
    assert (await journal.stats()).unclean == {}


@pytest.mark.parametrize("standing", [0, 1])
async def test_what_was_doubted_after_a_verification_had_begun_stays_doubted(
    journal: Journal, place: Place, clock: SetClock, standing: int
) -> None:
    """Whether there was a doubt before or not, and however soon after that."""
    other = place.journal(clock)
    for _ in range(standing):
        journal.doubt("users")
        await journal.stats()
        journal.doubt("users")
        await journal.stats()
    began = await other.doubts("users")
    assert bool(began) == bool(standing)
    journal.doubt("users")
    assert (await journal.stats()).unclean.keys() == {"users"}
    assert await other.doubts("users") != began
    await other.trust("users", began)
    assert (await journal.stats()).unclean.keys() == (await other.stats()).unclean.keys() == {"users"}
    await other.trust("users", await other.doubts("users"))
    assert (await journal.stats()).unclean == (await other.stats()).unclean == {}
    assert await other.doubts("users") == ""


async def test_a_verification_that_begins_right_after_a_doubt_has_seen_it_and_no_later_one(journal: Journal) -> None:
    journal.doubt("users")
    began = await journal.doubts("users")
    journal.doubt("users")
    await journal.trust("users", began)
    assert (await journal.stats()).unclean.keys() == {"users"}
    await journal.trust("users", await journal.doubts("users"))
    assert (await journal.stats()).unclean == {}
    assert journal.doubted == {}


def test_a_forked_child_has_a_journal_of_its_own(journal: Journal, place: Place) -> None:
    asyncio.run(journal.open([Entry("op1", "users", 1)]))
    child = multiprocessing.get_context("fork").Process(target=_open_and_shut, args=(journal, "op2"))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    journal.close("op1")
    assert asyncio.run(journal.stats()).open_by_collection == {"users": 1}


def _open_and_shut(journal: Journal, op_id: str) -> None:
    asyncio.run(journal.open([Entry(op_id, "users", op_id)]))
    journal.shut()


# --- claims end with the loop that made them --------------------------------------------------------------------


async def claimed_by_another(journal: Journal, limit: int = 10) -> list[Due]:
    """As soon as there is something to claim: the end of a loop is noticed by a thread."""
    async with asyncio.timeout(30):
        while not (found := await journal.due(limit, 600)):  # noqa: ASYNC110 - a thread does it
            await asyncio.sleep(0.01)
    return found


async def deferred(journal: Journal, count: int) -> None:
    await journal.open([Entry(f"op{n}", "users", n) for n in range(count)])
    for number in range(count):
        journal.defer(f"op{number}")


def test_a_key_that_was_claimed_is_free_when_the_loop_has_ended(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    """`asyncio.run` for each job, with a heal under way when the job is done."""

    async def job() -> None:
        await deferred(journal, 3)
        assert len(await journal.due(2, 600)) == 2
        assert await journal.claim("users", 2, 600) is not None

    asyncio.run(job())
    found = asyncio.run(claimed_by_another(place.journal(clock)))
    assert {due.attempts for due in found} == {0}, "a claim that is given back is no failed heal"


def test_a_loop_that_is_not_cancelled_but_closed_or_left_standing_keeps_no_claim(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    left, closed = asyncio.new_event_loop(), asyncio.new_event_loop()
    left.run_until_complete(deferred(journal, 2))
    assert len(left.run_until_complete(journal.due(1, 600))) == 1
    assert len(closed.run_until_complete(journal.due(1, 600))) == 1
    closed.close()
    other = place.journal(clock)
    keys: set[int] = set()
    while keys != {0, 1}:
        keys |= {due.key for due in asyncio.run(claimed_by_another(other))}
    left.close()


async def test_whoever_is_cancelled_while_he_waits_for_a_claim_leaves_none(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    """Cancelled before the journal has looked, while it looks, and when the answer is there but not yet taken."""
    await deferred(journal, 1)
    other = place.journal(clock)
    for turns in (*range(5), 50, 500):
        asked = asyncio.create_task(journal.due(10, 600))
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        (answer,) = await asyncio.gather(asked, return_exceptions=True)
        if isinstance(answer, list):
            for due in answer:
                journal.give_back(due)
        (due,) = await claimed_by_another(other)
        other.give_back(due)
        await other.flush()


async def test_a_claim_that_is_given_back_is_due_at_once_and_settles_nothing_for_a_later_claim(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    await deferred(journal, 1)
    (first,) = await journal.due(10, 600)
    journal.give_back(first)
    await journal.flush()
    clock.now += 1
    (second,) = await place.journal(clock).due(10, 600)
    journal.give_back(first)
    assert not await journal.settle(first), "it is another process's now"
    assert await journal.due(10, 600) == []
    assert second.attempts == 0
    assert (await journal.stats()).open == 1


def test_who_shuts_the_journal_claims_nothing_any_more(journal: Journal, place: Place, clock: SetClock) -> None:
    async def job() -> None:
        await deferred(journal, 1)
        assert len(await journal.due(10, 600)) == 1
        await asyncio.to_thread(journal.shut)
        assert len(await place.journal(clock).due(10, 600)) == 1

    asyncio.run(job())


async def test_the_claims_of_a_process_that_was_killed_are_free_when_its_death_is_known(
    place: Place, tmp_path: Path
) -> None:
    clock = SetClock()
    journal = place.journal(clock)
    await deferred(journal, 2)
    await journal.flush()
    ready = tmp_path / "claimed"
    child = multiprocessing.get_context("fork").Process(target=_claim_and_wait, args=(place, str(ready)))
    child.start()
    async with asyncio.timeout(60):
        while not ready.exists():
            assert child.exitcode is None
            await asyncio.sleep(0.01)
    assert await journal.due(10, 600) == []
    child.kill()
    child.join(30)
    clock.now += LIMIT / 20 + 0.1  # a journal on a server looks for the dead that often
    await journal.flush()
    assert {due.key for due in await claimed_by_another(journal)} == {0, 1}


def _claim_and_wait(place: Place, ready: str) -> None:
    async def job() -> None:
        assert len(await place.journal(SetClock()).due(10, 600)) == 2
        Path(ready).touch()
        await asyncio.Event().wait()

    asyncio.run(job())


def test_one_journal_serves_event_loops_one_after_the_other(journal: Journal) -> None:
    for number in range(5):
        asyncio.run(journal.open([Entry(f"op{number}", "users", number)]))
    assert asyncio.run(journal.stats()).open_by_collection == {"users": 5}


async def test_a_journal_that_was_shut_can_be_used_again_and_finds_what_it_left(
    journal: Journal, clock: SetClock
) -> None:
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 2)])
    journal.close("op2")
    await asyncio.to_thread(journal.shut)
    assert await journal.has_open("users", 1)
    assert not await journal.has_open("users", 2)
    await pass_time(clock, LIMIT + 1, journal)
    assert [due.key for due in await journal.due(10, 10)] == [1]


async def test_the_primary_that_was_noted_first_stays_until_another_is_set(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    other = place.journal(clock)
    assert await journal.primaries({}) == {}
    assert await journal.primaries({"users": "mongo"}) == {"users": "mongo"}
    configured = {"users": "dynamo", "documents": "dynamo"}
    assert await other.primaries(configured) == {"users": "mongo", "documents": "dynamo"}
    await other.set_primary("users", "dynamo")
    assert await journal.primaries({}) == {"users": "dynamo", "documents": "dynamo"}


async def test_a_settlement_that_comes_late_clears_no_deferral_that_came_meanwhile(
    journal: Journal, place: Place, clock: SetClock
) -> None:
    """The first process stops in the middle of a heal; another one heals the key, which is then deferred anew."""
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 1)])
    journal.defer("op1")
    (late,) = await journal.due(10, 5)
    other = place.journal(clock)
    await pass_time(clock, 6, journal, other)
    (due,) = await other.due(10, 5)
    assert await other.settle(due)
    journal.defer("op2")
    await journal.flush()
    assert not await journal.settle(late)
    assert (await journal.stats()).deferred_by_collection == {"users": 1}


# --- writes without an answer, once they are settled ----------------------------------------------------------------

LATE = 8 * LIMIT


async def test_a_write_without_an_answer_is_healed_again_at_twice_its_age(place: Place, clock: SetClock) -> None:
    journal = place.journal(clock, late=LATE)
    began = clock.now
    await journal.open([Entry("op1", "users", 1), Entry("op2", "users", 2)])
    journal.defer("op1", unknown=True)
    journal.defer("op2")
    await pass_time(clock, LIMIT + 1, journal)
    due = await journal.due(10, lease=5.0)
    assert sorted((each.key, each.late) for each in due) == [(1, False), (2, False)]
    assert [await journal.settle(each) for each in due] == [True, True]
    stats = await journal.stats()
    assert (stats.open, stats.late_by_collection) == (0, {"users": 1})
    assert not await journal.has_open("users", 1)
    looks = []
    while (await journal.stats()).late_by_collection:
        await pass_time(clock, 2.0, journal)
        for each in await journal.due(10, lease=5.0):
            assert (each.key, each.late) == (1, True)
            looks.append(clock.now - began)
            await journal.settle(each)
    expected = [2 * (LIMIT + 1), 4 * (LIMIT + 1), LATE]
    assert [abs(is_ - ought) < 12 for is_, ought in zip(looks, expected, strict=True)] == [True] * 3, looks


async def test_a_late_key_is_claimed_once_and_comes_again_if_it_was_not_healed(place: Place, clock: SetClock) -> None:
    journal, other = place.journal(clock, late=LATE), place.journal(clock, late=LATE)
    await journal.open([Entry("op1", "users", 1)])
    journal.defer("op1", unknown=True)
    await pass_time(clock, LIMIT + 1, journal, other)
    (due,) = await journal.due(10, lease=5.0)
    await journal.settle(due)
    await pass_time(clock, LIMIT + 2, journal, other)
    (late,) = await journal.due(10, lease=5.0)
    assert late.late
    assert await other.due(10, lease=5.0) == []
    await journal.postpone(late, 3.0)
    await pass_time(clock, 4.0, journal, other)
    (again,) = await journal.due(10, lease=5.0)
    assert (again.key, again.late, again.attempts) == (1, True, 1)
    journal.give_back(again)
    await journal.flush()
    await pass_time(clock, 2.0, journal, other)
    (given,) = await journal.due(10, lease=5.0)
    assert given.late
    # The same key is deferred meanwhile: one has nothing to do with the other.
    await journal.open([Entry("op2", "users", 1)])
    journal.defer("op2")
    (deferred,) = await journal.due(10, lease=5.0)
    assert not deferred.late
    assert await journal.settle(deferred)
    assert (await journal.stats()).late_by_collection == {"users": 1}
