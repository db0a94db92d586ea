"""Percent reads: the secondary answers its share, and nothing that it does wrong reaches the caller; whoever has
written reads what it wrote."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from shadow.errors import JournalError
from shadow.model.limits import Limits
from shadow.model.phase import Phase, ReadShares, Role, Route, StoreName, WriteMode
from shadow.model.stored import Damaged
from shadow.model.verdict import Kind, Routed, Slice, Verdict
from shadow.model.version import Image, Tombstone
from shadow.reads.stickiness import place
from tests.support.faulty import Gate, hang, lose, raising
from tests.support.pair import QUICK, Pair, until

ALL = ReadShares(dynamo=1.0)
PATIENT = QUICK.model_copy(update={"routed_read": 30.0, "read_deadline": 30.0})
"""So that only what a test makes slow is too slow."""


async def opened(folder: Path, *, limits: Limits = PATIENT, **options: Any) -> Pair:
    """A pair with five documents, level, which has asked its journal."""
    pair = Pair(folder, phase=Phase.SHADOW, limits=limits, reads=options.pop("reads", ALL), **options)
    await pair.__aenter__()
    await pair.things.insert_many([{"_id": f"k{n}", "n": n, "tag": "x"} for n in range(5)])
    await pair.settled()
    await until(lambda: pair.runtime._asked)
    pair.primary.calls.clear()
    pair.secondary.calls.clear()
    return pair


@pytest.fixture
async def pair(tmp_path: Path):
    pair = await opened(tmp_path)
    yield pair
    await pair.__aexit__()


async def mark(pair: Pair, key: str, document: dict[str, Any] | None) -> None:
    """Gives the secondary something else under a key, at the same version, so that its answers can be told."""
    seen = await pair.inner[StoreName.DYNAMO].image("things", key)
    image = Image(Tombstone("gone")) if document is None else Image(seen.state, {"_id": key, **document})
    assert await pair.inner[StoreName.DYNAMO].put("things", key, image, seen.state)


READS: dict[str, Callable[[Any], Any]] = {
    "find_one": lambda c: c.find_one({"_id": "k1"}),
    "find_one by a filter": lambda c: c.find_one({"n": 1}),
    "find": lambda c: c.find({"tag": "x"}).sort("n", 1).to_list(None),
    "count_documents": lambda c: c.count_documents({"tag": "x"}),
    "estimated_document_count": lambda c: c.estimated_document_count(),
    "distinct": lambda c: c.distinct("n"),
    "aggregate": lambda c: c.aggregate([{"$match": {"tag": "x"}}, {"$count": "all"}]).to_list(None),
}


@pytest.mark.parametrize("name", READS)
async def test_each_verb_is_answered_by_the_secondary_and_compared_with_the_primary_in_the_shadow(
    pair: Pair, name: str
) -> None:
    gate = Gate()
    for method in ("find_one", "find", "count", "aggregate", "distinct"):
        pair.primary.on(method, gate, None)
    async with asyncio.timeout(30):
        answer = await READS[name](pair.things)
    assert answer == await READS[name](pair.things), "the primary, which answers nothing yet, has not been waited for"
    gate.opened.set()
    await pair.settled()
    assert pair.report.answered_by == {(StoreName.DYNAMO, Routed.SHARE): 2}
    assert pair.report.verdicts == {Verdict.MATCH: 2}
    assert not pair.report.reads, "no part of what shadowing costs"


@pytest.mark.parametrize("name", READS)
async def test_what_the_secondary_has_answered_wrongly_is_found_by_the_same_comparison(pair: Pair, name: str) -> None:
    right = await READS[name](pair.things)
    await pair.settled()
    await mark(pair, "k1", None)
    assert await READS[name](pair.things) != right
    await pair.settled()
    # An estimated count promises nothing, whoever gives it.
    found = Verdict.INCOMPARABLE if name == "estimated_document_count" else Verdict.MISMATCH
    assert pair.report.verdicts == {Verdict.MATCH: 1, found: 1}


async def test_a_mismatch_has_the_roles_as_they_are(pair: Pair) -> None:
    await mark(pair, "k1", None)
    assert await pair.things.find_one({"_id": "k1"}) is None
    await pair.settled()
    assert [(found.kind, found.key) for found in pair.report.mismatches] == [(Kind.MISSING, "k1")]


async def test_without_a_share_or_outside_of_phase_shadow_the_primary_answers_everything(tmp_path: Path) -> None:
    for route in (
        Route(StoreName.MONGO, Phase.SHADOW),
        Route(StoreName.MONGO, Phase.SHADOW, reads=ReadShares(mongo=1.0)),
        Route(StoreName.MONGO, Phase.DUAL_WRITE, reads=ALL),
        Route(StoreName.DYNAMO, Phase.SHADOW, reads=ALL),
        Route(StoreName.DYNAMO, Phase.OFF, WriteMode.SYNC, reads=ReadShares(mongo=1.0)),
    ):
        assert route.secondary_reads == 0.0
    pair = await opened(tmp_path, reads=ReadShares(mongo=1.0))
    for read in READS.values():
        await read(pair.things)
    assert not pair.report.answered_by
    await pair.__aexit__()


async def test_the_same_reads_go_to_the_same_store_and_a_greater_share_keeps_them_there(tmp_path: Path) -> None:
    pair = await opened(tmp_path, shadow_reads=0.0)
    taken: list[set[str]] = []
    for share in (0.0, 0.2, 0.2, 0.6, 1.0):
        pair.routes.set(
            "things", Route(StoreName.MONGO, Phase.SHADOW, shadow_reads=0.0, reads=ReadShares(dynamo=share))
        )
        went: set[str] = set()
        for number in range(100):
            before = pair.secondary.calls["find_one"]
            await pair.things.find_one({"_id": f"x{number}"})
            if pair.secondary.calls["find_one"] > before:
                went.add(f"x{number}")
        assert went == {f"x{n}" for n in range(100) if place("things", {"_id": f"x{n}"}) < share}
        taken.append(went)
    none, small, again, great, all_ = taken
    assert not none
    assert small == again < great < all_
    await pair.__aexit__()


# --- the secondary fails ----------------------------------------------------------------------------------------

FAULTS = {
    "lost": lose,
    "refused": raising(OperationFailure("no", 2)),
    "a bug": raising(RuntimeError("a bug over there")),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_primary_answers_where_the_secondary_fails(pair: Pair, name: str, fault: str) -> None:
    right = await READS[name](pair.things)
    pair.secondary.on_all(FAULTS[fault])
    assert await READS[name](pair.things) == right
    assert pair.report.answered_by[StoreName.MONGO, Routed.ERROR] == 1
    pair.secondary.clear()
    await pair.settled()


@pytest.mark.parametrize("name", READS)
async def test_the_primary_answers_within_the_bound_where_the_secondary_hangs(tmp_path: Path, name: str) -> None:
    pair = await opened(tmp_path, limits=PATIENT.model_copy(update={"routed_read": 0.05}), shadow_reads=0.0)
    right = await READS[name](pair.things)
    was_slow = pair.report.answered_by[StoreName.MONGO, Routed.SLOW]
    pair.secondary.on_all(hang)
    started = time.monotonic()
    async with asyncio.timeout(20):
        assert await READS[name](pair.things) == right
    assert time.monotonic() - started >= 0.05
    # What was asked to know the right answer may have been as slow, on a busy machine.
    assert pair.report.answered_by[StoreName.MONGO, Routed.SLOW] == 1 + was_slow
    await pair.__aexit__()


async def test_a_secondary_that_is_slow_again_and_again_is_waited_for_now_and_then_and_still_takes_writes(
    tmp_path: Path,
) -> None:
    pair = await opened(tmp_path, limits=PATIENT.model_copy(update={"routed_read": 0.01}), shadow_reads=0.0)
    pair.secondary.on("find_one", hang, None)
    for _ in range(50):
        assert await pair.things.find_one({"_id": "k1"}) == {"_id": "k1", "n": 1, "tag": "x"}
    assert pair.secondary.calls["find_one"] < 15, "five, then a probe in a while that doubles"
    assert pair.report.answered_by[StoreName.MONGO, Routed.DOWN] > 35
    assert pair.runtime.breakers[StoreName.DYNAMO].closed
    await pair.things.update_one({"_id": "k1"}, {"$set": {"n": 10}})
    await pair.settled()
    pair.assert_equal()
    pair.secondary.clear()
    async with asyncio.timeout(20):
        while not pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE]:
            await pair.things.find_one({"_id": "k1"})
            await asyncio.sleep(0.01)
    await pair.__aexit__()


async def test_nothing_is_sent_to_a_secondary_that_is_down_and_no_read_is_its_probe(pair: Pair) -> None:
    breaker = pair.runtime.breakers[StoreName.DYNAMO]
    for _ in range(5):
        breaker.failed()
    breaker._next_probe = 0.0
    assert await pair.things.find_one({"_id": "k1"}) == {"_id": "k1", "n": 1, "tag": "x"}
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.DOWN): 1}
    assert breaker._next_probe == 0.0
    breaker.succeeded()
    await pair.settled()


async def test_connections_that_break_under_such_reads_count_as_failures_of_the_store(pair: Pair) -> None:
    pair.secondary.on("find_one", lose, None)
    for _ in range(6):
        await pair.things.find_one({"_id": "k1"})
    assert not pair.runtime.breakers[StoreName.DYNAMO].closed
    assert pair.report.operations[Role.SECONDARY, "unknown"] >= 5
    pair.secondary.clear()


async def test_an_answer_of_more_documents_than_are_kept_is_the_primarys(tmp_path: Path) -> None:
    pair = await opened(tmp_path, limits=PATIENT.model_copy(update={"compare_documents": 4}))
    assert len(await pair.things.find({}).to_list(None)) == 5
    assert len(await pair.things.find({"n": {"$lt": 4}}).to_list(None)) == 4
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.TOO_LARGE): 1, (StoreName.DYNAMO, Routed.SHARE): 1}
    await pair.__aexit__()


async def test_an_aggregate_that_joins_another_collection_is_the_primarys(pair: Pair) -> None:
    for other, reason in (("others", Routed.JOINS), ("things", Routed.SHARE)):
        join = {"from": other, "localField": "n", "foreignField": "n", "as": "joined"}
        await pair.things.aggregate([{"$lookup": join}]).to_list(None)
        assert pair.report.answered_by[StoreName.MONGO if reason is Routed.JOINS else StoreName.DYNAMO, reason] == 1
    await pair.settled()


async def test_what_the_application_does_with_an_answer_does_not_change_what_is_compared(pair: Pair) -> None:
    found = await pair.things.find_one({"_id": "k1"})
    found["n"] = "changed by its owner"
    (several,) = await pair.things.find({"n": 1}).to_list(None)
    several.clear()
    await pair.settled()
    assert pair.report.verdicts == {Verdict.MATCH: 2}


async def test_a_cursor_that_is_left_early_is_compared_as_a_whole(pair: Pair) -> None:
    async with pair.things.find({"tag": "x"}) as cursor:
        assert await cursor.next() is not None
    await pair.settled()
    assert pair.report.verdicts == {Verdict.MATCH: 1}


async def test_a_cancelled_caller_is_no_failure_of_the_secondary(pair: Pair) -> None:
    gate = Gate()
    pair.secondary.on("find_one", gate)
    for _ in range(5):
        work = asyncio.create_task(pair.things.find_one({"_id": "k1"}))
        await gate.reached.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        gate.reached.clear()
        pair.secondary.on("find_one", gate)
    pair.secondary.clear()
    assert await pair.things.find_one({"_id": "k1"}) is not None
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE] == 1


# --- read your writes -------------------------------------------------------------------------------------------


async def test_a_write_that_the_secondary_does_not_have_yet_is_read_all_the_same(pair: Pair) -> None:
    gate = Gate()
    pair.secondary.on("replay", gate)
    await pair.things.update_one({"_id": "k1"}, {"$set": {"n": 10}})
    await gate.reached.wait()
    assert await pair.things.find_one({"_id": "k1"}) == {"_id": "k1", "n": 10, "tag": "x"}
    assert await pair.things.count_documents({"n": 10}) == 1
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.OPEN): 2}
    assert (await pair.things.find_one({"_id": "k2"}))["n"] == 2
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE] == 1, "another key waits for nothing"
    gate.opened.set()
    await pair.settled()
    assert await pair.things.find_one({"_id": "k1"}) == {"_id": "k1", "n": 10, "tag": "x"}
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE] == 2
    await pair.settled()


async def test_a_write_of_another_process_is_read_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    pair = await opened(tmp_path, recovering=False)
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=PATIENT, beside=pair, recovering=False) as other:
        gate = Gate()
        other.secondary.on("replay", gate)
        await other.things.update_one({"_id": "k1"}, {"$set": {"n": 10}})
        await gate.reached.wait()
        assert (await pair.things.find_one({"_id": "k1"}))["n"] == 10
        assert {each["n"] for each in await pair.things.find({}).to_list(None)} == {0, 10, 2, 3, 4}
        assert pair.report.answered_by == {(StoreName.MONGO, Routed.OPEN): 2}
        gate.opened.set()
        await other.settled()
    assert (await pair.things.find_one({"_id": "k1"}))["n"] == 10
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE] == 1
    await pair.__aexit__()


async def test_a_deferred_write_is_read_from_the_primary_until_it_is_healed(tmp_path: Path) -> None:
    pair = await opened(tmp_path, recovering=False)
    pair.secondary.on("replay", lose)
    await pair.things.update_one({"_id": "k1"}, {"$set": {"n": 10}})
    await until(lambda: not pair.runtime.writes.depth)
    assert (await pair.things.find_one({"_id": "k1"}))["n"] == 10
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.OPEN): 1}
    await pair.runtime.replicator.recover()
    await pair.settled()
    assert (await pair.things.find_one({"_id": "k1"}))["n"] == 10
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE] == 1
    await pair.__aexit__()


async def test_a_key_that_can_be_written_in_two_ways_waits_for_every_write_of_the_collection(pair: Pair) -> None:
    gate = Gate()
    await pair.things.insert_one({"_id": 7, "n": 7})
    await pair.settled()
    pair.secondary.on("replay", gate)
    await pair.things.update_one({"_id": 7}, {"$set": {"n": 8}})
    await gate.reached.wait()
    assert (await pair.things.find_one({"_id": 7.0}))["n"] == 8
    gate.opened.set()
    await pair.settled()


async def test_writers_that_read_back_what_they_wrote_never_see_less(tmp_path: Path) -> None:
    """Many tasks, each with a key of its own, while the secondary takes its time and fails now and then."""
    pair = await opened(tmp_path, shadow_reads=0.0)
    turn = 0

    async def odd(call: Any) -> Any:
        nonlocal turn
        turn += 1
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        return await (lose(call) if turn % 11 == 0 else call())

    pair.secondary.on("replay", odd, None)

    async def writer(name: str) -> None:
        for count in range(1, 40):
            await pair.things.update_one({"_id": name}, {"$set": {"count": count}}, upsert=True)
            if count % 3 == 0:
                await pair.settled()
            found = await pair.things.find_one({"_id": name})
            assert found["count"] == count
            (listed,) = await pair.things.find({"_id": name, "count": count}).to_list(None)
            assert listed["count"] == count

    await asyncio.gather(*(writer(f"w{n}") for n in range(4)))
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE]
    assert pair.report.answered_by[StoreName.MONGO, Routed.OPEN]
    await pair.__aexit__()


async def test_the_reads_inside_of_a_write_are_always_the_primarys(pair: Pair) -> None:
    await mark(pair, "k1", {"n": 99, "tag": "y"})
    assert (await pair.things.update_one({"tag": "y"}, {"$set": {"n": 5}})).matched_count == 0
    assert (await pair.things.update_many({"n": {"$lt": 3}}, {"$set": {"low": True}})).matched_count == 3
    assert (await pair.things.delete_one({"n": 99})).deleted_count == 0
    assert not pair.report.answered_by
    await pair.settled()


async def test_a_journal_that_cannot_be_asked_leaves_the_read_to_the_primary(pair: Pair) -> None:
    real = pair.journal.has_open

    async def broken(collection: str, key: Any) -> bool:
        raise JournalError("the disk is full")

    pair.journal.has_open = broken  # type: ignore[method-assign]
    assert await pair.things.find_one({"_id": "k1"}) == {"_id": "k1", "n": 1, "tag": "x"}
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.JOURNAL): 1}
    assert not pair.secondary.calls["find_one"]
    pair.journal.has_open = real  # type: ignore[method-assign]
    await pair.settled()


async def test_a_collection_whose_intents_may_be_lost_is_read_from_the_primary(pair: Pair) -> None:
    pair.journal.doubt("things")
    assert await pair.things.find_one({"_id": "k1"}) is not None
    await pair.runtime.refresh()
    assert await pair.things.find_one({"_id": "k1"}) is not None
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.DOUBTED): 2}
    await pair.journal.trust("things", await pair.journal.doubts("things"))
    await pair.runtime.refresh()
    await pair.things.find_one({"_id": "k1"})
    assert pair.report.answered_by[StoreName.DYNAMO, Routed.SHARE] == 1
    await pair.settled()


async def test_reads_outside_of_the_share_are_shadowed_and_measured_as_ever(tmp_path: Path) -> None:
    pair = await opened(tmp_path, reads=ReadShares(dynamo=1e-12))
    for read in READS.values():
        await read(pair.things)
    await pair.settled()
    assert pair.report.answered_by == {(StoreName.MONGO, Routed.OUTSIDE): len(READS)}
    assert pair.report.verdicts == {Verdict.MATCH: len(READS)}
    assert pair.report.reads == {Slice.SHADOWED: len(READS)}
    await pair.__aexit__()


async def test_what_cannot_be_read_in_the_secondary_is_answered_by_the_primary(pair: Pair) -> None:
    seen = await pair.inner[StoreName.DYNAMO].image("things", "k1")
    broken = Image(seen.state, Damaged({"_id": "k1", "n": 1, "tag": "x"}, {"at": "it was changed by hand"}))
    pair.inner[StoreName.DYNAMO]._set("things", "k1", broken)
    assert await pair.things.find_one({"_id": "k1"}) == {"_id": "k1", "n": 1, "tag": "x"}
    assert len(await pair.things.find({"tag": "x"}).to_list(None)) == 5
    assert pair.report.answered_by[StoreName.MONGO, Routed.ERROR] == 2
    await pair.settled()
