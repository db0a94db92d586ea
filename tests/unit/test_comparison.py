"""The comparison watches itself: excuses are counted as such, a canary must be found, noise is measured, what is left
out is told apart, and what is large does not hold the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from shadow.compare import comparer as judge
from shadow.compare.rules import Rule
from shadow.errors import UnsupportedOperation
from shadow.model.limits import Watch
from shadow.model.operation import Update
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import ERROR_PATH, MATCHED_PATH, Difference, Kind, ShedReason, Slice, Verdict
from shadow.model.version import ABSENT, Image, Version
from shadow.reads.canary import KEY
from tests.support.cases import each_of
from tests.support.faulty import Gate, lose, raising
from tests.support.pair import QUICK, Pair, until

RULE: TypeAdapter[Rule] = TypeAdapter(Rule)
WATCHED = Watch(canary_every=0.02, canary_within=5.0)


def rule(kind: str, path: str, **more: Any) -> Rule:
    return RULE.validate_python({"rule": kind, "name": path, "path": path, **more})


async def spoil(pair: Pair, key: Any, document: dict[str, Any]) -> None:
    """Puts another document into the secondary at the same version, past everything."""
    seen = await pair.inner[StoreName.DYNAMO].image("things", key)
    assert await pair.inner[StoreName.DYNAMO].put(
        "things", key, Image(seen.state, {"_id": key, **document}), seen.state
    )


async def filled(pair: Pair, count: int = 5) -> None:
    await pair.things.insert_many([{"_id": n, "n": n, "seen": 1, "tag": "x"} for n in range(count)])
    await pair.settled()


# --- excuses ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def excusing(tmp_path: Path) -> AsyncIterator[Pair]:
    rules = [rule("ignore", "seen"), rule("tolerance", "n", by=0.5)]
    async with Pair(tmp_path, phase=Phase.SHADOW, rules=rules) as pair:
        await filled(pair)
        yield pair


async def test_an_excused_difference_is_excused_and_neither_equal_nor_a_mismatch(excusing: Pair) -> None:
    await spoil(excusing, 1, {"n": 1, "seen": 2, "tag": "x"})
    await excusing.things.find_one({"_id": 1})
    await excusing.things.find({"n": {"$lt": 3}}).to_list(None)
    await excusing.settled()
    assert excusing.report.verdicts == {Verdict.EXCUSED: 2}
    assert excusing.report.excuses == {"seen": 2}


async def test_a_difference_beside_an_excused_one_is_a_mismatch_all_the_same(excusing: Pair) -> None:
    await spoil(excusing, 1, {"n": 1, "seen": 2, "tag": "y"})
    await excusing.things.find_one({"_id": 1})
    await excusing.settled()
    assert excusing.report.verdicts == {Verdict.MISMATCH: 1}
    assert not excusing.report.excuses


async def test_a_window_that_an_excused_value_has_shifted_is_excused(excusing: Pair) -> None:
    """The filter is over what the rule ignores, so one store has a document in its answer that the other has not."""
    await spoil(excusing, 1, {"n": 1, "seen": 2, "tag": "x"})
    await excusing.things.find({"seen": 1}).to_list(None)
    await excusing.settled()
    assert excusing.report.verdicts == {Verdict.EXCUSED: 1}
    assert not excusing.report.mismatches


async def test_a_lost_version_is_never_excused(excusing: Pair) -> None:
    past = Update(1, {"_id": 1}, {"$inc": {"n": 1}}, "b")
    await excusing.inner[StoreName.MONGO].apply("things", past, "behind the shim")
    await excusing.things.find_one({"_id": 1})
    await excusing.settled()
    assert [found.kind for found in excusing.report.mismatches] == [Kind.VERSION_LOST]


async def test_an_excused_result_of_a_write_is_healed_and_counted_as_excused(excusing: Pair) -> None:
    async def otherwise(call: Any) -> Any:
        image = await call()
        return None if image is None else Image(image.state, {**image.document, "seen": 99})

    excusing.secondary.on("replay", otherwise)
    await excusing.things.update_one({"_id": 1}, {"$set": {"tag": "z"}})
    await excusing.settled()
    assert excusing.report.write_verdicts[Verdict.EXCUSED] == 1
    assert not excusing.report.mismatches


# --- write results ----------------------------------------------------------------------------------------------


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with Pair(tmp_path, phase=Phase.SHADOW) as made:
        await filled(made)
        made.report.write_verdicts.clear()
        yield made


async def test_every_followed_write_is_compared(pair: Pair) -> None:
    await pair.things.update_one({"_id": 1}, {"$inc": {"n": 1}})
    await pair.things.update_one({"_id": "new"}, {"$set": {"n": 1}}, upsert=True)
    await pair.things.delete_one({"_id": 2})
    await pair.settled()
    assert pair.report.write_verdicts == {Verdict.MATCH: 3}


async def test_a_write_that_matches_nothing_over_there_from_the_same_version_is_a_mismatch(pair: Pair) -> None:
    async def nothing(call: Any) -> None:
        return None

    pair.secondary.on("replay", nothing, 2)
    await pair.things.update_one({"_id": 1}, {"$inc": {"n": 1}})
    await pair.settled()
    (found,) = pair.report.mismatches
    assert (found.kind, found.key, found.healed) == (Kind.WRITE_RESULT, 1, True)
    assert [each.path for each in found.differences] == [MATCHED_PATH]
    assert pair.report.write_verdicts == {Verdict.MISMATCH: 1}
    pair.assert_equal()


async def test_a_fence_that_did_not_hold_is_no_difference_of_the_write(pair: Pair) -> None:
    stale = await pair.inner[StoreName.DYNAMO].image("things", 1)
    assert await pair.inner[StoreName.DYNAMO].put("things", 1, Image(Version("old", 1), {"_id": 1}), stale.state)
    await pair.things.update_one({"_id": 1}, {"$inc": {"n": 1}})
    await pair.settled()
    assert pair.report.write_verdicts == {Verdict.LAGGING: 1}
    assert not pair.report.mismatches
    pair.assert_equal()


async def test_a_secondary_that_keeps_refusing_a_document_is_a_mismatch_once(pair: Pair) -> None:
    refusal = raising(DuplicateKeyError("taken", 11000))
    pair.secondary.on("replay", refusal, None)
    pair.secondary.on("put", refusal, None)
    await pair.things.update_one({"_id": 1}, {"$inc": {"n": 1}})
    await until(lambda: pair.report.mismatches, 30)
    pair.secondary.clear()
    await pair.settled(30)
    assert [(found.kind, found.key) for found in pair.report.mismatches] == [(Kind.ERROR_SECONDARY_ONLY, 1)]


# --- errors -----------------------------------------------------------------------------------------------------


async def test_a_refusal_by_both_with_one_class_of_error_matches(pair: Pair) -> None:
    for store in (pair.primary, pair.secondary):
        store.on("find_one", raising(OperationFailure("bad regex", 51091)), None)
    with pytest.raises(OperationFailure):
        await pair.things.find_one({"_id": 1})
    await pair.settled()
    assert pair.report.verdicts == {Verdict.MATCH: 1}


async def test_a_refusal_by_the_primary_alone_is_a_mismatch_of_its_kind(pair: Pair) -> None:
    pair.primary.on("find_one", raising(OperationFailure("bad regex", 51091)), None)
    with pytest.raises(OperationFailure):
        await pair.things.find_one({"_id": 1})
    await pair.settled()
    assert [found.kind for found in pair.report.mismatches] == [Kind.ERROR_PRIMARY_ONLY]


async def test_a_refusal_by_the_primary_that_was_gone_at_the_second_look_is_transient(pair: Pair) -> None:
    pair.primary.on("find", raising(OperationFailure("index build", 51091)))
    with pytest.raises(OperationFailure):
        await pair.things.find({}).to_list(None)
    await pair.settled()
    assert pair.report.verdicts == {Verdict.TRANSIENT: 1}


async def test_refusals_of_different_classes_differ_by_type(pair: Pair) -> None:
    pair.primary.on("count", raising(OperationFailure("bad", 2)), None)
    pair.secondary.on("count", raising(TypeError("bad")), None)
    with pytest.raises(OperationFailure):
        await pair.things.count_documents({"n": 1})
    await pair.settled()
    (found,) = pair.report.mismatches
    assert (found.kind, found.differences[0].path) == (Kind.TYPE, ERROR_PATH)
    assert (found.differences[0].primary_type, found.differences[0].secondary_type) == ("OperationFailure", "TypeError")


@pytest.mark.parametrize("side", ["primary", "secondary"])
async def test_an_error_that_comes_from_a_document_on_its_way_is_no_mismatch(pair: Pair, side: str) -> None:
    """A division by what one store has, and the other one has not yet."""
    gate = Gate()
    pair.secondary.on("replay", gate, None)
    await pair.things.update_one({"_id": 1}, {"$set": {"n": 0}})
    await gate.reached.wait()
    getattr(pair, side).on("count", raising(OperationFailure("division by zero", 2)), None)
    if side == "primary":
        with pytest.raises(OperationFailure):
            await pair.things.count_documents({"n": 1})
    else:
        await pair.things.count_documents({"n": 1})
    await until(lambda: pair.report.verdicts, 30)
    assert pair.report.verdicts == {Verdict.LAGGING: 1}
    pair.secondary.clear()
    gate.opened.set()
    await pair.settled(30)
    assert not pair.report.mismatches


async def test_what_we_refuse_ourselves_and_what_is_unknown_is_not_compared(pair: Pair) -> None:
    for error in (UnsupportedOperation("$where", "no"), AutoReconnect("gone")):
        pair.primary.on("find_one", raising(error))
        with pytest.raises(type(error)):
            await pair.things.find_one({"_id": 1})
    await pair.settled()
    assert not pair.report.verdicts


# --- cursors that were left -----------------------------------------------------------------------------------------


async def read_two(pair: Pair, **options: Any) -> list[Any]:
    cursor = pair.things.find({"tag": "x"}, **options).batch_size(2)
    read = [(await cursor.next())["_id"], (await cursor.next())["_id"]]
    await cursor.close()
    return read


async def test_a_cursor_that_was_left_is_compared_as_far_as_it_was_read(pair: Pair) -> None:
    pair.secondary.on("find", reordered, None)
    await read_two(pair)
    await read_two(pair, sort=[("n", -1)])
    await pair.settled()
    assert pair.report.verdicts == {Verdict.MATCH: 2}


async def reordered(call: Any) -> Any:
    """Pages of another size and, where nothing sorts them, in another order."""
    return [[hit] for page in await call() for hit in page]


async def test_what_was_read_of_a_cursor_that_was_left_must_be_there(pair: Pair) -> None:
    first, second = await read_two(pair)
    await pair.settled()
    await spoil(pair, second, {"n": 99, "tag": "x"})
    await read_two(pair)
    await pair.settled()
    assert [(found.key, found.kind) for found in pair.report.mismatches] == [(second, Kind.VALUE)]
    assert first not in {found.key for found in pair.report.mismatches}


# --- figures ----------------------------------------------------------------------------------------------------


async def test_an_insert_and_a_delete_between_two_figures_never_make_a_mismatch(pair: Pair) -> None:
    """What the journal says before and after is the same, and so are the primary's two figures; only the count of
    writes that have passed tells."""

    async def meanwhile(call: Any) -> Any:
        await pair.things.insert_one({"_id": "passing", "n": 1})
        await level(pair)
        found = await call()
        await pair.things.delete_one({"_id": "passing"})
        await level(pair)
        return found

    pair.secondary.on("count", meanwhile, None)
    await pair.things.count_documents({})
    await until(lambda: pair.report.verdicts, 30)
    assert pair.report.verdicts == {Verdict.LAGGING: 1}
    assert not pair.report.mismatches


async def level(pair: Pair) -> None:
    """The writes so far are followed; the comparison that waits for us may be under way."""
    async with asyncio.timeout(10):
        while pair.runtime.writes.depth or (await pair.stats()).open:  # noqa: ASYNC110 - a file cannot wake us
            await asyncio.sleep(0.002)


async def test_the_journal_counts_what_passed_for_all_that_share_it(tmp_path: Path) -> None:
    async with Pair(tmp_path) as one, Pair(tmp_path, beside=one) as other:
        await one.things.insert_one({"_id": 1})
        await other.things.insert_many([{"_id": 2}, {"_id": 3}])
        await one.settled()
        await other.settled()
        assert dict((await one.stats()).passed) == {"things": 3} == dict((await other.stats()).passed)


# --- canary -----------------------------------------------------------------------------------------------------


def working(pair: Pair) -> bool:
    return pair.runtime.reader.canaries.working()["things"]


def why_not(pair: Pair) -> str:
    return str(pair.runtime.reader.canaries.status()["things"]["why_not"])


async def test_planted_differences_of_every_kind_are_found_and_nobody_else_hears_of_them(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=WATCHED) as pair:
        await filled(pair)
        await until(lambda: pair.report.canaries[True] >= 12)
        assert working(pair)
        assert why_not(pair) == ""
        await pair.settled()
    assert not pair.report.mismatches
    assert not pair.report.verdicts
    assert KEY not in {*pair.documents(StoreName.MONGO), *pair.documents(StoreName.DYNAMO)}


async def test_the_canary_writes_nothing_and_counts_as_no_work(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=WATCHED) as pair:
        await until(lambda: pair.report.canaries[True] >= 6)
        assert not {"put", "replay", "apply", "insert_many"} & {*pair.secondary.calls, *pair.primary.calls}
        assert not pair.report.operations


async def test_a_collection_that_is_not_compared_has_no_canary(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.DUAL_WRITE, watch=WATCHED) as pair:
        pair.runtime.reader.canaries.plant()
        assert pair.runtime.reader.canaries.status() == {}
        assert pair.runtime.reader.canaries.last_found() == {}


async def fails(pair: Pair, wanted: str) -> None:
    """The comparison does not work, and stays so through many canaries; `wanted` is why."""
    sought = pair.report.canaries[False]
    await until(lambda: pair.report.canaries[False] > sought + 8 and wanted in why_not(pair))
    assert not working(pair)
    assert pair.report.canaries[True] == 0
    assert pair.runtime.reader.canaries.last_found()["things"] == 0.0


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [(lose, "secondary_down"), (raising(OperationFailure("no", 13)), "OperationFailure")],
    ids=["lost", "refused"],
)
async def test_a_secondary_whose_reads_fail_shows(tmp_path: Path, fault: Any, wanted: str) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=WATCHED) as pair:
        pair.secondary.on("find_one", fault, None)
        await fails(pair, wanted)


async def test_a_lane_that_is_always_full_shows(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"read_queue": 1, "read_workers": 1, "read_deadline": 60.0})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits, watch=WATCHED) as pair:
        await filled(pair)
        gate = Gate()
        pair.secondary.on("find", gate, None)
        while not gate.reached.is_set():  # a canary may have had the one place
            await pair.things.find({}).to_list(None)
            await asyncio.sleep(0.02)
        pair.report.canaries.clear()
        pair.runtime.reader.canaries._states.clear()
        await fails(pair, ShedReason.LANE_FULL)
        gate.opened.set()


async def test_sampling_at_zero_shows(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, shadow_reads=0.0, watch=WATCHED) as pair:
        pair.runtime.reader.canaries.plant()
        assert not working(pair)
        assert "sampling is 0" in why_not(pair)


async def test_a_comparator_that_calls_everything_equal_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "compare_hits", lambda *_: judge.Comparison())
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=WATCHED) as pair:
        await fails(pair, "came to match")


async def test_a_comparator_that_names_the_wrong_kind_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge.Comparator, "_describe", lambda *_: (Kind.COUNT, (Difference(Kind.COUNT, "n"),)))
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=WATCHED) as pair:
        await fails(pair, "of kind count")


async def test_a_journal_that_cannot_be_asked_shows(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=WATCHED) as pair:

        async def broken(collection: str, key: Any) -> bool:
            raise OSError("the disk is full")

        pair.journal.has_open = broken  # type: ignore[method-assign]
        await fails(pair, "OSError")


async def test_a_canary_that_is_no_longer_found_shows_when_its_time_is_over(tmp_path: Path) -> None:
    watch = Watch(canary_every=0.02, canary_within=0.25)
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=watch) as pair:
        await until(lambda: working(pair))
        pair.secondary.on_all(lose)
        await until(lambda: not working(pair), 30)
        assert "for" in why_not(pair)
        pair.secondary.clear()
        await until(lambda: working(pair), 30)


# --- noise and tax ----------------------------------------------------------------------------------------------


async def test_the_noise_floor_compares_the_primary_with_itself_and_is_counted_apart(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=Watch(noise_share=1.0)) as pair:
        await filled(pair)
        await spoil(pair, 1, {"n": 99})
        for _ in range(3):
            await pair.things.find_one({"_id": 1})
            await pair.things.find({}).to_list(None)
            await pair.things.count_documents({"n": 99})
        await pair.settled()
        await until(lambda: pair.report.noises.total() == 9)
    assert pair.report.noises == {Verdict.MATCH: 9}
    assert pair.report.verdicts == {Verdict.MISMATCH: 9}


async def test_a_primary_that_moves_is_noise_and_no_mismatch(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=Watch(noise_share=1.0)) as pair:
        await filled(pair)
        gate = Gate()
        pair.secondary.on("find", gate, None)
        await pair.things.find({}).to_list(None)
        behind = Update(1, {"_id": 1}, {"$inc": {"n": 1}}, "b")
        await pair.inner[StoreName.MONGO].apply("things", behind, "between the two")
        await until(lambda: pair.report.noises)
        assert pair.report.noises == {Verdict.TRANSIENT: 1}
        gate.opened.set()
        await pair.settled()


async def test_what_is_left_out_is_not_shadowed_and_both_slices_are_timed(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW, watch=Watch(holdout=0.5)) as pair:
        await filled(pair)
        for _ in range(100):
            await pair.things.find_one({"_id": 1})
            await pair.things.find({}).to_list(None)
            await pair.things.count_documents({})
        await pair.settled()
    assert pair.report.reads.total() == 300
    assert pair.report.reads[Slice.LEFT_OUT] > 50
    assert pair.report.reads[Slice.SHADOWED] == pair.report.verdicts[Verdict.MATCH] > 50


async def test_reads_that_nobody_shadows_are_in_no_slice(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.DUAL_WRITE, watch=Watch(holdout=0.5)) as pair:
        await pair.things.find_one({"_id": 1})
        assert not pair.report.reads


# --- lagging indexes and age ------------------------------------------------------------------------------------


async def test_an_answer_through_a_lagging_index_is_given_its_time(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"index_age": 3600.0, "confirmations": 3})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:
        await filled(pair)
        pair.inner[StoreName.DYNAMO].may_lag = lambda *_: True  # type: ignore[method-assign]

        async def behind(call: Any) -> Any:
            return [page[:-1] for page in await call()]

        pair.secondary.on("find", behind, None)
        await pair.things.find({"tag": "x"}).to_list(None)
        await until(lambda: pair.secondary.calls["find"] >= 3 and pair.runtime.reader.waiting)
        assert not pair.report.verdicts
        assert not pair.report.mismatches


async def test_a_document_that_differs_is_confirmed_through_a_lagging_index_all_the_same(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"index_age": 3600.0})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:
        await filled(pair)
        pair.inner[StoreName.DYNAMO].may_lag = lambda *_: True  # type: ignore[method-assign]
        await spoil(pair, 1, {"n": 99, "seen": 1, "tag": "x"})
        await pair.things.find({"tag": "x"}).to_list(None)
        await pair.settled()
    assert [(found.key, found.kind) for found in pair.report.mismatches] == [(1, Kind.VALUE)]


async def test_a_difference_has_to_stand_for_the_minimum_age(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"minimum_age": 3600.0, "confirmations": 1})
    async with Pair(tmp_path, phase=Phase.SHADOW, limits=limits) as pair:
        await filled(pair)
        await spoil(pair, 1, {"n": 99})
        await pair.things.find_one({"_id": 1})
        await until(lambda: pair.secondary.calls["image"] >= 1 and pair.runtime.reader.waiting)
        assert not pair.report.mismatches


# --- the event loop ---------------------------------------------------------------------------------------------


async def test_what_is_large_is_compared_in_another_thread_and_what_is_small_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    real = judge.compare_hits

    def noting(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(judge, "compare_hits", noting)
    async with Pair(tmp_path, phase=Phase.SHADOW) as pair:
        await pair.things.insert_many([{"_id": "small", "n": 1}, {"_id": "large", "n": list(range(judge.HEAVY))}])
        await pair.settled()
        for key, on_loop in (("small", True), ("large", False)):
            threads.clear()
            await pair.things.find_one({"_id": key, "n": {"$exists": True}})
            await pair.settled()
            assert [thread is threading.main_thread() for thread in threads] == [on_loop]
        assert pair.report.verdicts == {Verdict.MATCH: 2}


async def test_a_large_difference_is_described_in_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    real = judge.explain

    def noting(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*arguments, **options)

    monkeypatch.setattr(judge, "explain", noting)
    async with Pair(tmp_path, phase=Phase.SHADOW) as pair:
        await pair.things.insert_one({"_id": 1, "n": list(range(judge.HEAVY))})
        await pair.settled()
        await spoil(pair, 1, {"n": list(range(judge.HEAVY, 0, -1))})
        await pair.things.find_one({"_id": 1})
        await pair.settled()
    assert pair.report.verdicts == {Verdict.MISMATCH: 1}
    assert threads
    assert threading.main_thread() not in threads


@each_of(
    ("values", "heavy"),
    [
        ([{"a": 1}, {"a": [1, 2]}], False),
        ([{"a": "x" * 100_000}], False),
        ([{"a": "x" * 1_000_000}], True),
        ([{"a": b"x" * 1_000_000}], True),
        ([{"a": {str(n): n for n in range(3000)}}], True),
        ([{"a": [[[list(range(3000))]]]}], True),
        ([None, 5, "x"], False),
        ([{"n": n} for n in range(3000)], True),
    ],
    ids=["small", "text", "long text", "bytes", "wide", "deep", "scalars", "many"],
)
def test_weight_counts_values_and_text(values: list[Any], heavy: bool) -> None:
    assert judge.is_heavy(values) is heavy


async def test_a_route_without_a_secondary_write_is_sampled_by_its_share(pair: Pair) -> None:
    reader = pair.runtime.reader
    assert reader.sampled(Route(StoreName.MONGO, Phase.SHADOW, shadow_reads=1.0))
    assert not reader.sampled(Route(StoreName.MONGO, Phase.SHADOW, shadow_reads=0.0))
    assert not reader.sampled(Route(StoreName.MONGO, Phase.DUAL_WRITE))
    assert (await pair.inner[StoreName.DYNAMO].image("things", "none")).state == ABSENT
