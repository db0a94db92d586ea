"""The way back of a watched flip against other flips, by name: a watcher that comes late changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.control import flip_record as routing
from shadow.control import guard_record, members
from shadow.control.flip_record import FlipKind
from shadow.fleet.coordinator import Aborted, Flipped
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.model.guards import WatchPlan
from shadow.model.phase import StoreName
from tests.races.test_flip_races import DYNAMO, HEARTBEAT, INC, KEY, MONGO, two_processes

PLAN: Final = WatchPlan(60.0)


async def flip(fleet: Any, to: StoreName, watch: WatchPlan | None = None, **at: int) -> Flipped:
    request = FlipRequest(fleet.records, FlipKind.FLIP, ["things"], to, HEARTBEAT, fleet.limit, watch=watch, at=at)
    plan = FlipPlan(routing.load(fleet.records), members.members(fleet.records), ())
    return await asyncio.to_thread(lambda: request.make(plan, reason="a guard", forced=False, by="a test"))


async def test_two_watchers_take_a_flip_back_and_one_comes_after_it_was_made_again(tmp_path: Path) -> None:
    """Both have decided upon the same flip; by the time that the second one acts, an operator has made the next one."""
    async with two_processes(tmp_path) as (fleet, one, two):
        assert (await flip(fleet, DYNAMO, PLAN)).done
        (window,) = guard_record.open_windows(routing.load(fleet.records), guard_record.GuardRecord()).values()
        epochs = dict(window.epochs)
        both = await asyncio.gather(*(flip(fleet, MONGO, **epochs) for _ in range(2)), return_exceptions=True)
        done = [each for each in both if isinstance(each, Flipped) and each.done]
        assert len(done) == 1, both
        assert window.left(routing.load(fleet.records)) == []
        assert (await flip(fleet, DYNAMO, PLAN)).done
        before = routing.load(fleet.records)
        with pytest.raises(Aborted, match="things: flipped or completed meanwhile"):
            await flip(fleet, MONGO, **epochs)
        now = routing.load(fleet.records)
        assert (now.placed, now.watched) == (before.placed, before.watched)
        assert [each.epochs for each in now.watched] == [{"things": epochs["things"] + 2}]
        for pair in (one, two):
            assert pair.routes["things"].primary is DYNAMO
            await pair.things.update_one({"_id": KEY}, INC)


async def test_a_window_begins_with_the_write_that_decides_and_not_with_a_flip_that_is_aborted(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as (fleet, _, _):
        one = routing.load(fleet.records).placed["things"].epoch
        with pytest.raises(Aborted):
            await flip(fleet, DYNAMO, PLAN, things=one + 1)
        assert routing.load(fleet.records).watched == ()
        assert (await flip(fleet, DYNAMO, PLAN, things=one)).done
        assert [each.plan for each in routing.load(fleet.records).watched] == [PLAN]
        assert (await flip(fleet, MONGO)).done
        assert routing.load(fleet.records).watched == ()
