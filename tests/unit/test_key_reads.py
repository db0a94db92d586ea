"""Key reads that are near in time share one request to the secondary, and are judged one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pymongo.errors import AutoReconnect

from shadow.model.phase import Phase, StoreName
from shadow.model.verdict import Kind, ShedReason, Verdict
from shadow.model.version import ABSENT, Image, Version
from tests.support.faulty import raising, refuse
from tests.support.pair import Pair

KEYS = [f"key {number}" for number in range(10)]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with Pair(tmp_path, phase=Phase.SHADOW) as made:
        await made.things.insert_many([{"_id": key, "n": 1} for key in KEYS])
        await made.settled()
        made.secondary.calls.clear()
        yield made


async def read_all(pair: Pair) -> None:
    for key in KEYS:
        assert (await pair.things.find_one({"_id": key}))["_id"] == key
    await pair.settled()


async def test_reads_near_in_time_are_one_request(pair: Pair) -> None:
    await read_all(pair)
    assert pair.report.verdicts == {Verdict.MATCH: len(KEYS)}
    assert (pair.secondary.calls["images"], pair.secondary.calls["find_one"]) == (1, 0)


async def test_a_read_that_is_alone_is_the_read_itself(pair: Pair) -> None:
    await pair.things.find_one({"_id": KEYS[0]})
    await pair.settled()
    assert pair.report.verdicts == {Verdict.MATCH: 1}
    assert (pair.secondary.calls["images"], pair.secondary.calls["find_one"]) == (0, 1)


async def test_what_differs_among_them_is_found_and_nothing_else(pair: Pair) -> None:
    inner, key = pair.inner[StoreName.DYNAMO], KEYS[3]
    before = await inner.image("things", key)
    assert isinstance(before.state, Version)
    assert await inner.put("things", key, Image(before.state, {"_id": key, "n": 2}), before.state)
    await read_all(pair)
    assert pair.report.verdicts == {Verdict.MATCH: len(KEYS) - 1, Verdict.MISMATCH: 1}
    assert [(found.key, found.kind) for found in pair.report.mismatches] == [(key, Kind.VALUE)]


async def test_what_cannot_be_compared_is_counted_so_and_keeps_no_other_from_its_verdict(pair: Pair) -> None:
    """Another writer's item may hold what no document can: a name with a NUL byte."""
    inner, key = pair.inner[StoreName.DYNAMO], KEYS[3]
    before = await inner.image("things", key)
    assert isinstance(before.state, Version)
    assert await inner.put("things", key, Image(before.state, {"_id": key, "n\0": 1}), before.state)
    await read_all(pair)
    assert pair.report.verdicts == {Verdict.MATCH: len(KEYS) - 1, Verdict.INCOMPARABLE: 1}


async def test_a_document_that_is_in_neither_store_is_equal(pair: Pair) -> None:
    for number in range(3):
        assert await pair.things.find_one({"_id": f"absent {number}"}) is None
    await pair.settled()
    assert pair.report.verdicts == {Verdict.MATCH: 3}
    assert (await pair.inner[StoreName.DYNAMO].image("things", "absent 0")).state == ABSENT


async def test_a_request_that_is_refused_is_made_again_one_by_one(pair: Pair) -> None:
    pair.secondary.on("images", refuse)
    await read_all(pair)
    assert pair.report.verdicts == {Verdict.MATCH: len(KEYS)}
    assert pair.secondary.calls["find_one"] == len(KEYS)


async def test_a_request_that_is_lost_sheds_each_and_is_one_failure(pair: Pair) -> None:
    pair.secondary.on("images", raising(AutoReconnect("connection closed")))
    await read_all(pair)
    assert pair.report.sheds == {ShedReason.SECONDARY_DOWN: len(KEYS)}
    assert pair.runtime.breakers[StoreName.DYNAMO].closed


async def test_what_waits_for_company_at_the_end_is_shed_and_counted(pair: Pair) -> None:
    for key in KEYS:
        await pair.things.find_one({"_id": key})
    await pair.runtime.close()
    assert pair.report.sheds == {ShedReason.CLOSING: len(KEYS)}
    assert pair.report.verdicts == {Verdict.SHED: len(KEYS)}
