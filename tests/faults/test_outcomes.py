"""Acked, refused, unknown: each outcome of the primary with each of the secondary, and what becomes of the write.

| primary | secondary | the caller sees      | the intent                       | counted             |
|---------|-----------|----------------------|----------------------------------|---------------------|
| acked   | acked     | the result           | closed                           | nothing             |
| acked   | refused   | the result           | deferred, healed                 | `secondary_error`   |
| acked   | unknown   | the result           | deferred, healed                 | `secondary_error`   |
| refused | (any)     | the refusal          | closed; the secondary is not asked | nothing           |
| unknown | (any)     | the driver's error   | deferred, settled once it is old | `primary_unknown`   |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, WriteError

from shadow.errors import JournalError, SecondaryWriteError
from shadow.model.limits import Limits
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName, WriteMode
from shadow.model.verdict import Deferral
from tests.support.faulty import Fault, apply_and_lose, hang, lose, refuse
from tests.support.pair import QUICK, Pair, until

LIMITS = QUICK.model_copy(update={"operation": 0.5})

PRIMARY: dict[str, Fault | None] = {
    "acked": None,
    "refused": refuse,
    "unknown, not applied": lose,
    "unknown, applied": apply_and_lose,
    "no answer": hang,
}
SECONDARY: dict[str, Fault | None] = {
    "acked": None,
    "refused": refuse,
    "unknown, not applied": lose,
    "unknown, applied": apply_and_lose,
    "no answer": hang,
}
RAISES: dict[str, type[Exception]] = {
    "refused": WriteError,
    "unknown, not applied": AutoReconnect,
    "unknown, applied": AutoReconnect,
    "no answer": NetworkTimeout,
}

Things = Any
VERBS: dict[str, Callable[[Things], Awaitable[Any]]] = {
    "insert": lambda things: things.insert_one({"_id": "new", "n": 1}),
    "update": lambda things: things.update_one({"_id": "old"}, {"$inc": {"n": 1}}),
    "upsert": lambda things: things.update_one({"_id": "new"}, {"$inc": {"n": 1}}, upsert=True),
    "replace": lambda things: things.replace_one({"_id": "old"}, {"n": 9}),
    "delete": lambda things: things.delete_one({"_id": "old"}),
}
AFTER: dict[str, dict[str, dict[str, Any]]] = {
    "insert": {"old": {"_id": "old", "n": 1}, "new": {"_id": "new", "n": 1}},
    "update": {"old": {"_id": "old", "n": 2}},
    "upsert": {"old": {"_id": "old", "n": 1}, "new": {"_id": "new", "n": 1}},
    "replace": {"old": {"_id": "old", "n": 9}},
    "delete": {},
}
BEFORE = {"old": {"_id": "old", "n": 1}}


@pytest.fixture
async def pair(tmp_path: Path):
    async with Pair(tmp_path, limits=LIMITS) as pair:
        await pair.things.insert_one(dict(BEFORE["old"]))
        await pair.settled()
        pair.report.operations.clear()
        pair.secondary.calls.clear()
        yield pair


@pytest.mark.takes_turns
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("secondary", SECONDARY)
@pytest.mark.parametrize("primary", PRIMARY)
async def test_each_pair_of_outcomes(pair: Pair, primary: str, secondary: str, verb: str) -> None:
    if (fault := PRIMARY[primary]) is not None:
        pair.primary.on("apply", fault)
    if (fault := SECONDARY[secondary]) is not None:
        pair.secondary.on("replay", fault)
    began = time.time()
    call = VERBS[verb](pair.things)
    if primary == "acked":
        await call
    else:
        with pytest.raises(RAISES[primary]):
            await call
    await pair.settled()
    if primary.startswith(("unknown", "no answer")):
        assert time.time() - began >= LIMITS.operation, "settled while the primary may still be at work"
    applied = primary in ("acked", "unknown, applied")
    assert pair.documents(StoreName.MONGO) == (AFTER[verb] if applied else BEFORE)
    pair.assert_equal()
    _check_counts(pair, primary, secondary)


def _check_counts(pair: Pair, primary: str, secondary: str) -> None:
    asked = pair.secondary.calls["replay"]
    outcome = primary if primary in ("acked", "refused") else "unknown"
    assert pair.report.operations[Role.PRIMARY, Outcome(outcome)] == 1
    if primary == "refused":
        assert asked == 0
        assert not pair.report.deferrals
    elif primary != "acked":
        assert asked == 0
        assert pair.report.deferrals == {Deferral.PRIMARY_UNKNOWN: 1}
    elif secondary == "acked":
        assert not pair.report.deferrals
    else:
        reason = Deferral.DEADLINE if secondary == "no answer" else Deferral.SECONDARY_ERROR
        assert pair.report.deferrals == {reason: 1}
        assert pair.report.healings.total() == 1


@pytest.mark.parametrize("secondary", [name for name in SECONDARY if name != "acked"])
async def test_sync_waits_and_does_not_fail_strict_raises_and_the_write_is_healed(
    tmp_path: Path, secondary: str
) -> None:
    for mode in (WriteMode.SYNC, WriteMode.STRICT):
        folder = tmp_path / mode
        async with Pair(folder, writes=mode, limits=LIMITS) as pair:
            pair.secondary.on("replay", SECONDARY[secondary] or refuse)
            if mode is WriteMode.SYNC:
                await pair.things.insert_one({"_id": 1})
                assert pair.report.deferrals.total() == 1, "answered after the secondary had its chance"
            else:
                with pytest.raises(SecondaryWriteError):
                    await pair.things.insert_one({"_id": 1})
            await pair.settled()
            assert pair.documents(StoreName.DYNAMO) == {1: {"_id": 1}}
            pair.assert_equal()


@pytest.mark.parametrize("mode", [WriteMode.SYNC, WriteMode.STRICT])
async def test_sync_and_strict_answer_when_the_secondary_has_the_write(tmp_path: Path, mode: WriteMode) -> None:
    async with Pair(tmp_path, writes=mode) as pair:
        await pair.things.insert_one({"_id": 1})
        pair.assert_equal()


async def test_a_journal_that_cannot_be_written_refuses_the_write_before_the_primary_is_asked(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    async with Pair(tmp_path / "var") as pair:
        with pytest.raises(JournalError):
            await pair.things.insert_one({"_id": 1})
        assert pair.primary.calls["apply"] == 0
        (tmp_path / "var").unlink()
        await pair.things.insert_one({"_id": 1})
        await pair.settled()
        pair.assert_equal()


async def test_a_partly_refused_batch_is_followed_as_far_as_it_went(pair: Pair) -> None:
    with pytest.raises(BulkWriteError):
        await pair.things.insert_many([{"_id": 1}, {"_id": "old"}, {"_id": 2}])
    with pytest.raises(BulkWriteError):
        await pair.things.insert_many([{"_id": 3}, {"_id": "old"}, {"_id": 4}], ordered=False)
    await pair.settled()
    assert set(pair.documents(StoreName.DYNAMO)) == {"old", 1, 3, 4}
    pair.assert_equal()


@pytest.mark.parametrize("fault", [lose, apply_and_lose])
async def test_a_batch_without_an_answer_is_unknown_in_all_its_parts(pair: Pair, fault: Fault) -> None:
    pair.primary.on("insert_many", fault)
    with pytest.raises(AutoReconnect):
        await pair.things.insert_many([{"_id": 1}, {"_id": 2}])
    await pair.settled()
    pair.assert_equal()


async def test_a_primary_that_answers_late_is_found_by_the_heal_after_it(tmp_path: Path) -> None:
    """Not applied at first, applied after the caller was told: the entry is not settled before that can have been."""
    async with Pair(tmp_path, limits=LIMITS) as pair:
        late: list[asyncio.Task[Any]] = []

        async def applied_late(call: Any) -> Any:
            async def work() -> None:
                await until(pair.report.healings.total)
                await call()

            late.append(asyncio.create_task(work()))
            raise AutoReconnect("connection closed")

        pair.primary.on("apply", applied_late)
        with pytest.raises(AutoReconnect):
            await pair.things.insert_one({"_id": 1})
        await pair.settled()
        await asyncio.gather(*late)
        assert pair.documents(StoreName.DYNAMO) == {1: {"_id": 1}}
        pair.assert_equal()


async def test_a_slow_journal_does_not_let_the_primary_be_asked_under_an_intent_that_others_may_adopt(
    tmp_path: Path,
) -> None:
    limits = Limits(operation=0.4, write_deadline=0.2, recover_every=0.02)
    async with Pair(tmp_path, limits=limits) as pair:
        real, waits = pair.journal.open, [0.3]

        async def slow(entries: Any) -> None:
            await real(entries)
            await asyncio.sleep(waits.pop() if waits else 0)

        pair.journal.open = slow  # type: ignore[method-assign]
        await pair.things.insert_one({"_id": 1})
        await pair.settled()
        pair.assert_equal()
