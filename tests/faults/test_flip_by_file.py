"""What configuration files ask for, in a fleet: one flip for all when all ask for it, and none before.

Each Shadow here is a process with a file of its own over the same stores, journal and control store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from shadow import Shadow
from shadow.control import flip_record as routing
from shadow.control import receipts
from shadow.control.epochs import has_epoch
from shadow.control.flip_record import FlipKind
from shadow.fleet.flip import FlipRequest
from shadow.model.phase import Phase, StoreName
from tests.support.memory import LIMITS, Place
from tests.support.pair import until
from tests.support.shadows import COLLECTION

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def fleet(place: Place, count: int) -> AsyncIterator[list[Shadow]]:
    async with AsyncExitStack() as stack:
        shadows = [await stack.enter_async_context(place.shadow()) for _ in range(count)]
        for each in shadows:
            await until(lambda each=each: each.admin.fleet.participant.joined)
        yield shadows


def text(shadow: Shadow, **defaults: Any) -> str:
    """The file of a Shadow with other defaults."""
    content = {
        "mongo": {"url": "mongodb://127.0.0.1:1", "database": "memory"},
        "dynamo": {"endpoint_url": "http://127.0.0.1:1"},
        "journal": {"url": shadow.admin.settings.journal.url.get_secret_value(), "on_failure": "refuse"},
        "limits": LIMITS,
        "control": {"heartbeat": 0.1, "url": shadow.admin.settings.control.url.get_secret_value()},
        "defaults": {"forced": "a test", **defaults},
        "collections": {COLLECTION: {}},
    }
    return yaml.safe_dump(content)


def primaries(shadows: list[Shadow]) -> set[StoreName]:
    return {each.admin.routes()[COLLECTION].primary for each in shadows}


async def order(shadow: Shadow, to: StoreName, kind: FlipKind = FlipKind.FLIP) -> None:
    """What `shadow flip --force` does."""
    made = FlipRequest(shadow.admin.fleet.records, kind, [COLLECTION], to, 0.1, 10.0)

    def make() -> None:
        flipped = made.make(made.look(), reason="a test", forced=True)
        assert flipped.done, flipped.said

    await asyncio.to_thread(make)


async def test_one_file_alone_changes_nothing_and_all_of_them_flip_all(place: Place) -> None:
    async with fleet(place, 3) as shadows:
        await shadows[0][COLLECTION].insert_one({"_id": 1, "n": 0})
        for each in shadows[:-1]:
            assert not await each.admin.reload(text(each, primary="dynamo"))
        assert primaries(shadows) == {MONGO}
        # Whoever sees first that all ask for it makes the flip; somebody else may be about to, and finds it made.
        await shadows[2].admin.reload(text(shadows[2], primary="dynamo"))
        await until(lambda: primaries(shadows) == {DYNAMO})
        await shadows[1][COLLECTION].update_one({"_id": 1}, {"$inc": {"n": 1}})
        await place.level(shadows[1])
        kept = receipts.listed(shadows[0].admin.fleet.records)
        assert [(each["kind"], each["reason"]) for each in kept if each["done"]] == [("flip", "a test")]


async def test_files_that_are_behind_an_order_change_nothing_until_all_have_come_after(place: Place) -> None:
    async with fleet(place, 2) as shadows:
        await order(shadows[0], DYNAMO)
        await until(lambda: primaries(shadows) == {DYNAMO})
        # A file that is read again for another reason still asks for the primary of before.
        assert await shadows[0].admin.reload(text(shadows[0], shadow_reads=0.5))
        assert primaries(shadows) == {DYNAMO}
        assert shadows[0].admin.routes()[COLLECTION].shadow_reads == 0.5
        for each in shadows:
            assert await each.admin.reload(text(each, primary="dynamo"))
        records = shadows[0].admin.fleet.records
        await until(lambda: not routing.load(records).placed[COLLECTION].spent)
        assert not await shadows[0].admin.reload(text(shadows[0], primary="mongo"))
        await shadows[1].admin.reload(text(shadows[1], primary="mongo"))
        await until(lambda: primaries(shadows) == {MONGO})


async def test_a_process_that_starts_with_a_file_that_is_behind_begins_where_the_fleet_is(place: Place) -> None:
    async with fleet(place, 1) as shadows:
        await order(shadows[0], DYNAMO)
        async with place.shadow() as late:
            await late[COLLECTION].insert_one({"_id": 1})
            assert primaries([late]) == {DYNAMO}
            await place.level(late)
        assert primaries(shadows) == {DYNAMO}


async def test_closed_gates_keep_a_file_from_flipping_and_are_named(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(place, 1) as (shadow,):
        assert not await shadow.admin.reload(text(shadow, primary="dynamo", forced=None))
        assert primaries([shadow]) == {MONGO}
        said = [record.getMessage() for record in caplog.records if '"flip.refused"' in record.getMessage()]
        assert "gate copied: never copied" in said[-1]
        assert "gate way back: never rehearsed" in said[-1]
        assert await shadow.admin.reload(text(shadow, primary="dynamo"))
        assert primaries([shadow]) == {DYNAMO}


async def test_the_way_back_asks_for_less(place: Place) -> None:
    """Four gates, whatever a young primary has not earned yet."""
    async with fleet(place, 1) as (shadow,):
        await order(shadow, DYNAMO)
        look = FlipRequest(shadow.admin.fleet.records, FlipKind.FLIP, [COLLECTION], MONGO, 0.1, 10.0).look
        await until(lambda: {gate.name for gate in look().gates} == {"processes", "secondary", "journal", "verified"})
        await until(lambda: not look().closed)


async def test_dual_writes_that_end_for_a_while_take_the_way_back_and_what_was_verified(place: Place) -> None:
    async with fleet(place, 1) as (shadow,):
        await order(shadow, DYNAMO)
        records = shadow.admin.fleet.records
        assert routing.load(records).placed[COLLECTION].previous is MONGO
        mark = routing.load(records).placed[COLLECTION].mark
        for phase in ("dual_write", "off"):
            assert await shadow.admin.reload(text(shadow, primary="dynamo", phase=phase))
        placed = routing.load(records).placed[COLLECTION]
        assert placed.previous is None
        assert not has_epoch(placed, mark)


async def test_a_completion_holds_against_a_file_that_asks_for_more(place: Place) -> None:
    async with fleet(place, 2) as shadows:
        await order(shadows[0], DYNAMO)
        await order(shadows[0], DYNAMO, FlipKind.COMPLETE)
        await until(lambda: {each.admin.routes()[COLLECTION].phase for each in shadows} == {Phase.OFF})
        assert await shadows[1].admin.reload(text(shadows[1], shadow_reads=0.5))
        await shadows[1][COLLECTION].insert_one({"_id": 1})
        assert place.held(DYNAMO).keys() == {1}
        assert place.held(MONGO) == {}
    async with place.shadow() as later:
        await later[COLLECTION].insert_one({"_id": 2})
        assert later.admin.routes()[COLLECTION].phase is Phase.OFF
    assert place.held(DYNAMO).keys() == {1, 2}
    assert place.held(MONGO) == {}
