"""The confirmation of verdicts: what is equal matches, what settles is transient, what is open is lagging, and only
what stands still and differs is a mismatch."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from shadow.errors import JournalError
from shadow.model.operation import Hit, Query, Update
from shadow.model.phase import Phase, StoreName
from shadow.model.verdict import Kind, ShedReason, Verdict
from shadow.model.version import ABSENT, Image, Tombstone, Version
from tests.support.faulty import Gate, hang, lose, raising
from tests.support.hurry import Hurry
from tests.support.pair import QUICK, Pair, until


@pytest.fixture
async def pair(tmp_path: Path):
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=QUICK.model_copy(update={"settle": 0.01})) as pair:
        await pair.things.insert_many([{"_id": n, "n": n, "tag": "x"} for n in range(5)])
        await pair.settled()
        yield pair


async def damage(pair: Pair, key: Any, document: dict[str, Any] | None, version: Version | None = None) -> None:
    """Puts something else into the secondary, past everything; the version stays unless one is given."""
    seen = await pair.inner[StoreName.DYNAMO].image("things", key)
    gone = Image(Tombstone("damage"))
    image = gone if document is None else Image(version or seen.state, {"_id": key, **document})
    assert await pair.inner[StoreName.DYNAMO].put("things", key, image, seen.state)


async def verdicts(pair: Pair) -> dict[Verdict, int]:
    await pair.settled()
    return dict(pair.report.verdicts)


async def test_equal_answers_match(pair: Pair) -> None:
    await pair.things.find_one({"_id": 1})
    await pair.things.find({"tag": "x"}).sort("n", -1).limit(3).to_list(None)
    await pair.things.find({}, {"n": 1}).to_list(None)
    await pair.things.find_one({"_id": "nobody"})
    await pair.things.count_documents({"tag": "x"})
    assert await verdicts(pair) == {Verdict.MATCH: 5}


MISMATCHES: dict[str, tuple[dict[str, Any] | None, Version | None, Kind]] = {
    "another value": ({"n": 99, "tag": "x"}, None, Kind.VALUE),
    "another type": ({"n": 1.0, "tag": "x"}, None, Kind.TYPE),
    "another order of fields": ({"tag": "x", "n": 1}, None, Kind.ORDER),
    "nothing": (None, None, Kind.MISSING),
    "an older version": ({"n": 0, "tag": "x"}, Version("elsewhere", 1), Kind.VERSION_LOST),
}


@pytest.mark.parametrize("case", MISMATCHES)
@pytest.mark.parametrize("read", ["find_one", "find"])
async def test_what_stands_still_and_differs_is_a_mismatch_of_its_kind(pair: Pair, case: str, read: str) -> None:
    document, version, kind = MISMATCHES[case]
    await damage(pair, 1, document, version)
    if read == "find_one":
        await pair.things.find_one({"_id": 1})
    else:
        await pair.things.find({"_id": {"$lte": 2}}).to_list(None)
    assert await verdicts(pair) == {Verdict.MISMATCH: 1}
    (found,) = pair.report.mismatches
    assert (found.kind, found.key) == (kind, 1)
    assert "99" not in repr(found.differences)


async def test_a_document_that_only_the_secondary_has_is_a_mismatch(pair: Pair) -> None:
    planted = Image(Version("planted", 1), {"_id": "extra", "tag": "x"})
    await pair.inner[StoreName.DYNAMO].put("things", "extra", planted, ABSENT)
    await pair.things.find({"tag": "x"}).to_list(None)
    assert await verdicts(pair) == {Verdict.MISMATCH: 1}
    assert pair.report.mismatches[0].kind is Kind.EXTRA


async def test_a_difference_that_is_gone_at_the_next_look_is_transient(pair: Pair) -> None:
    right = dict(pair.documents(StoreName.DYNAMO)[1])
    await damage(pair, 1, {"n": 99})

    async def first(call: Any) -> Any:
        return await call()

    async def second(call: Any) -> Any:
        await damage(pair, 1, {name: value for name, value in right.items() if name != "_id"})
        return await call()

    pair.secondary.on("find_one", first)
    pair.secondary.on("find_one", second)
    await pair.things.find_one({"_id": 1})
    assert await verdicts(pair) == {Verdict.TRANSIENT: 1}
    assert not pair.report.mismatches


async def test_what_the_journal_holds_open_is_lagging(pair: Pair) -> None:
    pair.secondary.on("replay", lose, None)
    pair.secondary.on("put", lose, None)
    await pair.things.update_one({"_id": 1}, {"$inc": {"n": 1}})
    await until(lambda: not pair.runtime.writes.depth)
    await pair.things.find_one({"_id": 1})
    await until(lambda: pair.report.verdicts or pair.report.sheds)
    assert set(pair.report.verdicts) <= {Verdict.LAGGING, Verdict.SHED}
    assert not pair.report.mismatches
    pair.secondary.clear()
    await pair.settled()


async def test_a_write_that_was_never_followed_and_is_not_open_is_a_lost_version(pair: Pair) -> None:
    past = Update(1, {"_id": 1}, {"$inc": {"n": 1}}, "b")
    await pair.inner[StoreName.MONGO].apply("things", past, "behind the shim")
    await pair.things.find_one({"_id": 1})
    assert await verdicts(pair) == {Verdict.MISMATCH: 1}
    assert pair.report.mismatches[0].kind is Kind.VERSION_LOST


async def test_a_wrong_count_is_a_mismatch_and_a_count_that_moves_is_not(pair: Pair) -> None:
    await damage(pair, 1, None)
    await pair.things.count_documents({})
    assert await verdicts(pair) == {Verdict.MISMATCH: 1}
    assert [(found.kind, found.key) for found in pair.report.mismatches] == [(Kind.COUNT, None)]


async def test_a_read_that_has_its_limit_is_over_and_compared_while_the_application_keeps_the_cursor(
    pair: Pair,
) -> None:
    cursor = pair.things.find({"tag": "x"}).sort("n", 1).limit(2)
    assert [each["_id"] for each in await cursor.to_list(2)] == [0, 1]
    assert await verdicts(pair) == {Verdict.MATCH: 1}
    assert not cursor.alive
    assert await cursor.to_list(None) == []
    cursor.rewind()
    assert (await cursor.next())["_id"] == 0
    assert cursor.alive
    assert (await cursor.next())["_id"] == 1
    assert await verdicts(pair) == {Verdict.MATCH: 2}


async def test_an_unsorted_limit_cannot_be_compared_if_both_answers_are_right(pair: Pair) -> None:
    pair.secondary.on("find", _answering(pair, [4, 3]), None)
    await pair.things.find({}).limit(2).to_list(None)
    assert await verdicts(pair) == {Verdict.INCOMPARABLE: 1}
    assert not pair.report.mismatches


def _answering(pair: Pair, keys: list[int]) -> Any:
    """The secondary's answer is these documents, as they are."""

    async def fault(call: Any) -> Any:
        hits = {hit.key: hit for hit in pair.inner[StoreName.DYNAMO]._find("things", Query())}
        return [[Hit(key, hits[key].version, hits[key].document) for key in keys]]

    return fault


async def test_a_read_that_means_something_else_over_there_is_a_mismatch_although_every_document_agrees(
    pair: Pair,
) -> None:
    pair.secondary.on("find", _answering(pair, [0, 1, 2]), None)
    await pair.things.find({"tag": "x"}).to_list(None)
    assert await verdicts(pair) == {Verdict.MISMATCH: 1}
    assert {found.key for found in pair.report.mismatches} == {3, 4}


async def test_a_refusal_by_the_secondary_is_confirmed_before_it_counts(pair: Pair) -> None:
    pair.secondary.on("find_one", raising(OperationFailure("no such operator", 2)))
    await pair.things.find_one({"_id": 1})
    assert await verdicts(pair) == {Verdict.MATCH: 1}
    pair.secondary.on("find_one", raising(OperationFailure("no such operator", 2)), None)
    await pair.things.find_one({"_id": 1})
    assert await verdicts(pair) == {Verdict.MATCH: 1, Verdict.MISMATCH: 1}
    assert pair.report.mismatches[0].kind is Kind.ERROR_SECONDARY_ONLY


async def test_a_primary_or_a_journal_that_fails_at_the_second_look_is_no_mismatch(pair: Pair) -> None:
    await damage(pair, 1, {"n": 99})
    await pair.things.find_one({"_id": 1})  # the first look at the primary is over with it
    pair.primary.on("find_one", raising(OperationFailure("not authorized", 13)))
    assert await verdicts(pair) == {Verdict.INCOMPARABLE: 1}
    real = pair.journal.has_open

    async def broken(collection: str, key: Any) -> bool:
        raise JournalError("the disk is full")

    pair.journal.has_open = broken  # type: ignore[method-assign]
    await pair.things.find_one({"_id": 1})
    assert await verdicts(pair) == {Verdict.INCOMPARABLE: 2}
    pair.journal.has_open = real  # type: ignore[method-assign]
    assert not pair.report.mismatches
    assert pair.runtime.breakers[StoreName.DYNAMO].closed


async def test_each_reason_to_shed_is_counted_by_name(pair: Pair) -> None:
    pair.secondary.on("find_one", hang)
    await pair.things.find_one({"_id": 1})
    await until(lambda: pair.report.sheds[ShedReason.DEADLINE] == 1)
    pair.secondary.on("find_one", lose)
    await pair.things.find_one({"_id": 1})
    await until(lambda: pair.report.sheds[ShedReason.SECONDARY_DOWN] == 1)
    pair.runtime.reader._limits = QUICK.model_copy(update={"compare_documents": 2})
    pair.runtime.router._limits = pair.runtime.reader._limits
    await pair.things.find({}).to_list(None)
    assert pair.report.sheds[ShedReason.TOO_LARGE] == 1
    await pair.settled()
    assert pair.report.verdicts[Verdict.SHED] == pair.report.sheds.total()


async def test_a_read_that_a_full_lane_has_no_room_for_is_shed_and_counted(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"read_deadline": 60.0, "read_queue": 4})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:
        gate = Gate()
        pair.secondary.on("find_one", gate, None)
        for _ in range(limits.read_queue + 1):
            await pair.things.find_one({"_id": 1})
        assert pair.report.sheds == {ShedReason.LANE_FULL: 1}
        gate.opened.set()
        await pair.settled()
        assert pair.report.verdicts == {Verdict.SHED: 1, Verdict.MATCH: limits.read_queue}


async def test_reads_alone_find_out_that_the_secondary_is_back(pair: Pair) -> None:
    pair.secondary.on_all(lose)
    breaker = pair.runtime.breakers[StoreName.DYNAMO]
    while breaker.closed:
        await pair.things.find_one({"_id": 1})
        await pair.settled()
    pair.secondary.clear()
    async with asyncio.timeout(30):
        while not pair.report.verdicts[Verdict.MATCH]:
            await pair.things.find_one({"_id": 1})
            await asyncio.sleep(0.01)
    assert breaker.closed


async def test_waiting_for_the_next_look_holds_no_place_in_the_lane(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"settle": 30.0, "read_workers": 1})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:
        await pair.things.insert_many([{"_id": n, "n": n} for n in range(3)])
        await pair.settled()
        await damage(pair, 1, {"n": 99})
        for _ in range(20):
            await pair.things.find_one({"_id": 1})
        await until(lambda: pair.runtime.reader.waiting == 20)
        assert pair.runtime.reads.depth == 0
        await pair.things.find_one({"_id": 2})
        await until(lambda: pair.report.verdicts[Verdict.MATCH] == 1)
    assert pair.report.sheds[ShedReason.CLOSING] == 20


async def test_a_full_lane_sheds_no_difference_that_is_to_be_looked_at_again_nor_makes_it_wait(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"settle": 3.0, "read_deadline": 300.0, "read_workers": 1, "read_queue": 4})
    hurry = Hurry()
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:
        await pair.things.insert_many([{"_id": n, "n": n} for n in range(3)])
        await pair.settled()
        await damage(pair, 1, {"n": 99})
        await pair.things.find_one({"_id": 1})
        await until(lambda: pair.runtime.reader.waiting == 1 and not pair.runtime.reads.depth)
        gate, matches = Gate(), list[int]()
        pair.report.on_mismatch = lambda found: matches.append(pair.report.verdicts[Verdict.MATCH])
        pair.secondary.on("count", gate)
        for _ in range(4):
            await pair.things.count_documents({})
        assert (pair.runtime.reader.waiting, pair.runtime.reads.depth) == (1, 4)
        hurry.by(20)
        await until(lambda: pair.runtime.reads.depth == 5)
        gate.opened.set()
        await until(lambda: pair.report.verdicts.total() == 5)
    assert matches == [1], "the reads that waited were looked at first"
    assert pair.report.verdicts == {Verdict.MISMATCH: 1, Verdict.MATCH: 4}


async def test_a_secondary_that_hangs_at_the_second_look_does_not_hold_its_place(pair: Pair) -> None:
    await damage(pair, 1, {"n": 99})
    pair.secondary.on("image", hang, None)
    await pair.things.find_one({"_id": 1})
    async with asyncio.timeout(30):
        await until(lambda: pair.report.sheds[ShedReason.DEADLINE])
    assert pair.runtime.reads.depth == 0
    pair.secondary.clear()


async def test_no_false_mismatch_while_writes_go_on(tmp_path: Path) -> None:
    """Reads of every kind against updates, deletes and re-inserts of the same few keys, the secondary a little slow."""
    chance = random.Random(4)
    limits = QUICK.model_copy(update={"settle": 0.003, "write_queue": 50})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:

        async def slow(call: Any) -> Any:
            await asyncio.sleep(chance.random() * 0.004)
            return await call()

        for method in ("replay", "image", "put", "find", "find_one", "count"):
            pair.secondary.on(method, slow, None)
        for method in ("image", "find", "find_one"):
            pair.primary.on(method, slow, None)
        await asyncio.gather(*(_writer(pair, chance) for _ in range(6)), *(_reader(pair, chance) for _ in range(6)))
        await pair.settled(30)
        assert pair.report.mismatches == []
        assert pair.report.verdicts[Verdict.MATCH] > 0
        assert not pair.report.failures
        pair.assert_equal()


async def _writer(pair: Pair, chance: random.Random) -> None:
    for _ in range(80):
        key = chance.randrange(4)
        match chance.randrange(4):
            case 0:
                await pair.things.update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)
            case 1:
                await pair.things.delete_one({"_id": key})
            case 2:
                await pair.things.replace_one({"_id": key}, {"n": 0, "tag": chance.randrange(3)}, upsert=True)
            case _:
                await pair.things.update_one({"_id": key}, {"$set": {"tag": chance.randrange(3)}})
        await asyncio.sleep(chance.random() * 0.004)


async def _reader(pair: Pair, chance: random.Random) -> None:
    for _ in range(80):
        match chance.randrange(4):
            case 0:
                await pair.things.find_one({"_id": chance.randrange(4)})
            case 1:
                await pair.things.find({"tag": chance.randrange(3)}).to_list(None)
            case 2:
                await pair.things.find({}).sort("n", 1).limit(2).to_list(None)
            case _:
                await pair.things.find({"n": {"$gt": 0}}).to_list(None)
        await asyncio.sleep(chance.random() * 0.004)


async def test_nothing_is_compared_while_the_loop_is_late_and_that_is_counted(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=QUICK.model_copy(update={"loop_lag": 0.2})) as pair:
        await pair.things.insert_one({"_id": 1})
        await pair.settled()
        before = pair.report.verdicts.total()
        time.sleep(0.5)
        assert await pair.things.find_one({"_id": 1}) == {"_id": 1}
        await pair.things.count_documents({})
        assert pair.report.sheds[ShedReason.LOOP_LAG] == 2
        await pair.settled()
        assert pair.report.verdicts.total() - before == pair.report.verdicts[Verdict.SHED] == 2
        await until(lambda: not pair.runtime.lag.late)
        await pair.things.find_one({"_id": 1})
        await pair.settled()
        assert pair.report.verdicts.total() - before == 3
