"""The batches of one call: the intents of the next are opened while the primary makes one, and its turn comes after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import WriteError

from shadow import router
from shadow.errors import JournalError
from shadow.model.limits import Limits
from shadow.model.operation import Change
from shadow.model.phase import StoreName
from shadow.stores.many import change_each
from tests.support.faulty import Gate
from tests.support.pair import QUICK, Pair, until

BATCH = 4
COUNT = 11
PATIENT = QUICK.model_copy(update={"operation": 60.0, "write_deadline": 20.0})


class Batches:
    """`pair.primary` as a store that takes many changes: what it was asked, batch by batch. Each comes to a gate before
    it is made."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.asked: list[list[int]] = []
        self.gates: list[Gate] = [Gate() for _ in range(3)]
        self.error: Exception | None = None
        pair.primary.change_many, pair.primary.keys = self.change_many, self.keys

    async def keys(self, collection: str, filter: Any) -> list[int]:
        return list(range(COUNT))

    async def change_many(self, collection: str, changes: Sequence[Change], op_ids: Sequence[str]) -> Any:
        number = len(self.asked)
        self.asked.append([change.key for change in changes])
        for key in self.asked[-1]:
            assert await self.pair.journal.has_open("things", key), "an intent is durable before the primary is asked"

        async def make() -> Any:
            if self.error is not None:
                return [self.error] * len(changes)
            store = self.pair.primary
            return await change_each(len(changes), lambda n: store.apply(collection, changes[n], op_ids[n]))

        return await self.gates[number](make)

    async def open(self) -> list[int]:
        return [key for key in range(COUNT) if await self.pair.journal.has_open("things", key)]

    async def until_open(self, keys: Sequence[int]) -> None:
        async with asyncio.timeout(20):
            while await self.open() != list(keys):  # noqa: ASYNC110 - the journal wakes nobody
                await asyncio.sleep(0.01)


async def begun(pair: Pair) -> tuple[Batches, asyncio.Task[Any]]:
    """A call whose first batch is with the primary, and whose second has its intents."""
    await pair.things.insert_many([{"_id": n, "n": 0} for n in range(COUNT)])
    await pair.settled()
    batches = Batches(pair)
    call = asyncio.create_task(pair.things.update_many({}, {"$inc": {"n": 1}}))
    await batches.gates[0].reached.wait()
    await batches.until_open(range(2 * BATCH))
    return batches, call


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_TOGETHER", BATCH)


def values(pair: Pair) -> list[int]:
    found = pair.documents(StoreName.MONGO)
    return [found[key]["n"] for key in range(COUNT)]


async def test_the_next_batch_has_its_intents_before_its_turn_and_no_other_has(tmp_path: Path) -> None:
    async with Pair(tmp_path, limits=PATIENT) as pair:
        batches, call = await begun(pair)
        await asyncio.sleep(0.05)
        assert await batches.open() == list(range(2 * BATCH)), "the third waits until the second has its turn"
        assert batches.asked == [[0, 1, 2, 3]]
        batches.gates[0].opened.set()
        await batches.gates[1].reached.wait()
        await batches.until_open(range(COUNT))
        assert batches.asked == [[0, 1, 2, 3], [4, 5, 6, 7]]
        for gate in batches.gates:
            gate.opened.set()
        result = await call
        assert (result.matched_count, result.modified_count) == (COUNT, COUNT)
        assert batches.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
        await pair.settled()
        assert (await pair.stats()).open == 0
        pair.assert_equal()


async def test_after_an_error_the_next_batch_is_not_asked_and_its_intents_are_closed(tmp_path: Path) -> None:
    async with Pair(tmp_path, limits=PATIENT) as pair:
        batches, call = await begun(pair)
        batches.error = WriteError("refused", 121)
        batches.gates[0].opened.set()
        with pytest.raises(WriteError, match="refused"):
            await call
        await batches.until_open([])
        assert batches.asked == [[0, 1, 2, 3]]
        await pair.settled()
        assert values(pair) == [0] * COUNT
        pair.assert_equal()


async def test_a_caller_who_goes_leaves_the_batch_that_is_made_and_no_other(tmp_path: Path) -> None:
    async with Pair(tmp_path, limits=PATIENT) as pair:
        batches, call = await begun(pair)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await batches.until_open(range(BATCH))
        batches.gates[0].opened.set()
        await pair.settled()
        assert batches.asked == [[0, 1, 2, 3]]
        assert values(pair) == [1] * BATCH + [0] * (COUNT - BATCH)
        assert (await pair.stats()).open == 0
        pair.assert_equal()


async def test_a_flip_that_waits_has_what_has_begun_and_the_rest_comes_after_it(tmp_path: Path) -> None:
    async with Pair(tmp_path, limits=PATIENT) as pair:
        batches, call = await begun(pair)

        async def hold() -> list[list[int]]:
            async with pair.routes.held("things", 20):
                return [*batches.asked]

        flip = asyncio.create_task(hold())
        await until(lambda: pair.routes.waits("things"))
        for gate in batches.gates:
            gate.opened.set()
        assert await flip == [[0, 1, 2, 3], [4, 5, 6, 7]], "what has intents is made first"
        result = await call
        assert result.modified_count == COUNT
        await pair.settled()
        pair.assert_equal()


async def test_intents_that_waited_too_long_for_their_turn_are_opened_once_more(tmp_path: Path) -> None:
    """Others may soon take them for orphaned: a quarter of the limit is over."""
    limits = Limits(operation=6.0, write_deadline=2.0)
    async with Pair(tmp_path, limits=limits, recovering=False) as pair:
        batches, call = await begun(pair)
        await asyncio.sleep(1.6)
        for gate in batches.gates:
            gate.opened.set()
        assert (await call).modified_count == COUNT
        await pair.settled()
        stats = await pair.stats()
        # Those of the inserts, and of the update; on a slow machine the third batch may wait too long as well.
        assert stats.passed["things"] >= COUNT + COUNT + BATCH
        assert stats.open == 0
        pair.assert_equal()


async def test_a_journal_that_fails_for_the_next_batch_leaves_what_is_made(tmp_path: Path) -> None:
    async with Pair(tmp_path, limits=PATIENT) as pair:
        await pair.things.insert_many([{"_id": n, "n": 0} for n in range(COUNT)])
        await pair.settled()
        batches, real, opened = Batches(pair), pair.journal.open, []

        async def open_two(entries: Sequence[Any]) -> None:
            opened.append(len(entries))
            if len(opened) == 2:
                raise JournalError("the disk is full")
            await real(entries)

        pair.journal.open = open_two  # type: ignore[method-assign]
        for gate in batches.gates:
            gate.opened.set()
        with pytest.raises(JournalError):
            await pair.things.update_many({}, {"$inc": {"n": 1}})
        assert opened == [BATCH, BATCH]
        await pair.settled()
        assert values(pair) == [1] * BATCH + [0] * (COUNT - BATCH)
        assert (await pair.stats()).open == 0
        pair.assert_equal()
