"""The fork: the primary's answer is the only answer, and nothing of the secondary reaches a caller."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError, NetworkTimeout, PyMongoError

from shadow.errors import JournalError, ShadowError
from shadow.host.failpoints import Point
from shadow.journal.base import Entry
from shadow.model.background import Background
from shadow.model.limits import Limits
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, StoreName, WriteMode
from shadow.model.verdict import Deferral, ShedReason
from tests.support.faulty import Gate, hang, lose, raising, refuse
from tests.support.pair import QUICK, Pair, until


async def test_a_write_is_answered_while_the_secondary_is_still_at_it(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        gate = Gate()
        pair.secondary.on("replay", gate)
        result = await pair.things.insert_one({"_id": 1})
        assert result.inserted_id == 1
        await gate.reached.wait()
        assert pair.documents(StoreName.DYNAMO) == {}
        gate.opened.set()
        await pair.settled()
        pair.assert_equal()


async def test_the_intent_is_durable_before_the_primary_is_asked(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        gate = Gate()
        pair.primary.on("apply", gate)
        work = asyncio.create_task(pair.things.insert_one({"_id": 1}))
        await gate.reached.wait()
        assert await pair.journal.has_open("things", 1)
        gate.opened.set()
        await work
        await pair.settled()


@pytest.mark.parametrize("fault", [lose, hang, raising(RuntimeError("a bug over there"))])
async def test_no_read_of_the_secondary_ever_reaches_a_caller(tmp_path: Path, fault: Any) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW) as pair:
        await pair.things.insert_many([{"_id": n, "n": n} for n in range(3)])
        await pair.settled()
        pair.secondary.on_all(fault)
        assert await pair.things.find_one({"_id": 1}) == {"_id": 1, "n": 1}
        assert len(await pair.things.find({}).to_list(None)) == 3
        assert await pair.things.count_documents({}) == 3
        pair.secondary.clear()
        await pair.settled()


async def test_phase_off_asks_the_primary_alone_and_opens_no_intent(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.OFF) as pair:
        await pair.things.insert_one({"_id": 1})
        assert await pair.things.find_one({"_id": 1}) == {"_id": 1}
        assert (await pair.stats()).open == 0
        assert not pair.secondary.calls


async def test_a_write_to_one_store_without_an_answer_may_still_arrive(tmp_path: Path) -> None:
    """Nothing else stands for it. One that is refused has ended; of a batch, one is enough."""
    limits = QUICK.model_copy(update={"operation": 0.4})
    for fault, arrived in ((refuse, True), (lose, False), (hang, False)):
        for verb in ("apply", "insert_many"):
            async with Pair(tmp_path / f"{fault.__name__}{verb}", phase=Phase.OFF, limits=limits) as pair:
                pair.primary.on(verb, fault, None)
                write = pair.things.insert_one({"_id": 1}) if verb == "apply" else pair.things.insert_many([{"_id": 1}])
                with pytest.raises(PyMongoError):
                    await write
                assert pair.routes.arrived(["things"]) is arrived
                assert pair.routes.drained(["things"]), "it moves a version"


async def test_phase_dual_write_follows_and_compares_no_read(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.DUAL_WRITE) as pair:
        await pair.things.insert_one({"_id": 1})
        await pair.things.find_one({"_id": 1})
        await pair.settled()
        pair.assert_equal()
        assert not pair.report.verdicts


async def test_a_share_of_zero_shadows_no_read(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, shadow_reads=0.0) as pair:
        await pair.things.find_one({"_id": 1})
        await pair.settled()
        assert not pair.report.verdicts


async def test_a_full_lane_leaves_writes_to_their_intents_and_they_are_healed(tmp_path: Path) -> None:
    patient = {"operation": 60.0, "write_deadline": 60.0}
    limits = QUICK.model_copy(update={"write_workers": 1, "write_queue": 2, **patient})
    async with Pair(tmp_path, limits=limits) as pair:
        gate = Gate()
        pair.secondary.on("replay", gate)
        for number in range(20):
            await pair.things.insert_one({"_id": number})
        assert pair.runtime.writes.depth == 2
        assert pair.report.deferrals[Deferral.LANE_FULL] == 18
        gate.opened.set()
        await pair.settled()
        pair.assert_equal()


async def test_a_cancelled_caller_cancels_nothing(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        gate = Gate()
        pair.primary.on("apply", gate)
        work = asyncio.create_task(pair.things.insert_one({"_id": 1}))
        await gate.reached.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        gate.opened.set()
        await until(lambda: pair.documents(StoreName.MONGO))
        await pair.settled()
        pair.assert_equal()


async def test_a_primary_that_never_answers_is_given_up_in_half_the_time_that_its_intent_lasts(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"operation": 1.0})
    async with Pair(tmp_path, limits=limits) as pair:
        pair.primary.on("apply", hang)
        async with asyncio.timeout(30):
            with pytest.raises(NetworkTimeout) as caught:
                await pair.things.insert_one({"_id": 1, "secret": "not to be shown"})
        assert "not to be shown" not in str(caught.value)
        assert pair.report.operations[Role.PRIMARY, Outcome.UNKNOWN] == 1
        await pair.settled()


async def test_a_journal_that_stays_slow_refuses_the_write_and_leaves_no_intent(tmp_path: Path) -> None:
    async with Pair(tmp_path, limits=Limits(operation=0.2, recover_every=0.02)) as pair:
        real = pair.journal.open

        async def slow(entries: Any) -> None:
            await real(entries)
            await asyncio.sleep(0.06)

        pair.journal.open = slow  # type: ignore[method-assign]
        with pytest.raises(JournalError, match="took longer"):
            await pair.things.insert_one({"_id": 1})
        assert pair.primary.calls["apply"] == 0
        assert (await pair.stats()).open == 0


async def test_a_batch_raises_what_the_driver_raises_and_follows_the_rest(tmp_path: Path) -> None:
    async with Pair(tmp_path, writes=WriteMode.SYNC, limits=QUICK.model_copy(update={"operation": 1.0})) as pair:
        pair.primary.on("insert_many", lose)
        with pytest.raises(AutoReconnect):
            await pair.things.insert_many([{"_id": 1}, {"_id": 2}])
        await pair.things.insert_one({"_id": 3})
        with pytest.raises(DuplicateKeyError):
            await pair.things.insert_one({"_id": 3})
        await pair.settled()
        pair.assert_equal()


async def test_close_leaves_what_does_not_end_in_time_to_the_journal_and_no_task_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    limits = QUICK.model_copy(update={"drain": 0.05, "write_deadline": 30.0, "operation": 60.0})
    async with Pair(tmp_path, limits=limits, phase=Phase.SHADOW) as pair:
        pair.secondary.on_all(hang)
        for number in range(30):
            await pair.things.insert_one({"_id": number})
        await pair.things.find_one({"_id": 1})
        pair.primary.on("apply", hang)
        stuck = asyncio.create_task(pair.things.insert_one({"_id": "stuck"}))
        await until(lambda: pair.primary.calls["apply"] == 31)
    with pytest.raises((asyncio.CancelledError, ShadowError)):
        await stuck
    assert asyncio.all_tasks() == before
    assert pair.report.sheds[ShedReason.CLOSING] >= 1
    async with Pair(tmp_path, beside=pair) as again:
        assert (await again.stats()).open >= 30
        await until(lambda: len(again.documents(StoreName.DYNAMO)) == 30)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 100, None])
async def test_a_recovery_that_is_cancelled_gives_its_claims_back(tmp_path: Path, turns: int | None) -> None:
    """After so many turns of the event loop, while the claims are made; or while they wait for a worker."""
    limits = QUICK.model_copy(update={"operation": 60.0, "write_deadline": 30.0, "write_workers": 1})
    async with Pair(tmp_path, limits=limits, recovering=False) as pair:
        await pair.journal.open([Entry(f"{number}", "things", number) for number in range(10)])
        for number in range(10):
            pair.journal.defer(f"{number}")
        await pair.journal.flush()
        gate = Gate()
        pair.secondary.on_all(gate)
        recovery = asyncio.create_task(pair.runtime.replicator.recover())
        if turns is None:
            await gate.reached.wait()
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        recovery.cancel()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await recovery
        found: set[object] = set()
        async with asyncio.timeout(30):
            while len(found) < 10:
                found |= {due.key for due in await pair.journal.due(50, 60.0)}
                await asyncio.sleep(0.001)


async def test_every_point_of_the_protocol_is_passed_in_its_order(tmp_path: Path) -> None:
    passed: list[Point | Background] = []
    async with Pair(tmp_path, reach=passed.append) as pair:
        await pair.things.insert_one({"_id": 1})
        await pair.settled()
    expected = [point for point in Point if point not in (Point.BEFORE_HEAL, Point.AFTER_HEAL, Point.AFTER_ASIDE)]
    assert [each for each in passed if isinstance(each, Point)] == expected


async def test_two_upserts_of_one_filter_make_one_document(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        update = {"$inc": {"n": 1}}
        await asyncio.gather(*(pair.things.update_one({"_id": "k"}, update, upsert=True) for _ in range(50)))
        await pair.settled()
        assert pair.documents(StoreName.DYNAMO) == {"k": {"_id": "k", "n": 50}}
        pair.assert_equal()


@pytest.mark.parametrize(("mode", "sizes"), [(WriteMode.BACKGROUND, [1000, 40]), (WriteMode.STRICT, [16] * 65)])
async def test_a_caller_who_waits_for_the_secondary_waits_for_small_batches(
    tmp_path: Path, mode: WriteMode, sizes: list[int]
) -> None:
    """A thousand writes of the secondary take longer than a caller waits for them."""
    limits = QUICK.model_copy(update={"write_queue": 5000, "operation": 60.0, "write_deadline": 20.0})
    async with Pair(tmp_path, writes=mode, limits=limits) as pair:
        await pair.things.insert_many([{"_id": n, "n": 0} for n in range(1040)])
        asked: list[int] = []

        async def change_many(collection: str, changes: Any, op_ids: Any) -> list[Any]:
            asked.append(len(changes))
            return [await pair.primary.apply(collection, *each) for each in zip(changes, op_ids, strict=True)]

        async def keys(collection: str, filter: Any) -> list[int]:
            return list(range(1040))

        pair.primary.change_many, pair.primary.keys = change_many, keys
        result = await pair.things.update_many({"n": 0}, {"$inc": {"n": 1}})
        assert (result.matched_count, result.modified_count) == (1040, 1040)
        assert asked == sizes
        await pair.settled()
        pair.assert_equal()


async def test_many_documents_are_replicated_after_the_answer_and_their_intents_are_open_until_then(
    tmp_path: Path,
) -> None:
    async with Pair(tmp_path) as pair:
        things = pair.things
        calls: list[tuple[Any, int]] = [
            (lambda: things.insert_many([{"_id": n, "n": n} for n in range(100)]), 100),
            (lambda: things.update_many({"n": {"$lt": 60}}, {"$set": {"n": 7}}), 60),
            (lambda: things.delete_many({"n": 7}), 60),
        ]
        for call, count in calls:
            gate = Gate()
            pair.secondary.calls.clear()
            pair.secondary.on("replay", gate, None)
            result = await call()
            assert not pair.secondary.calls, "the secondary was asked before the caller had its answer"
            assert (await pair.stats()).open_by_collection == {"things": count}
            gate.opened.set()
            await pair.settled()
            pair.secondary.clear()
            pair.assert_equal()
            assert getattr(result, "matched_count", 60) == 60
            assert getattr(result, "modified_count", 59) == 59


async def test_what_is_not_passed_on_when_the_process_ends_stays_in_the_journal(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        with pair.runtime.writes.held():
            await pair.things.insert_many([{"_id": n} for n in range(100)])
            # The task that passes the writes on is cancelled before its first step.
            await pair.runtime.router.finish(0)
        await pair.settled()
        pair.assert_equal()
