"""Hooks beside a flip: one may veto it before any write is paused, the others hear how it ended and hold nothing up."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from shadow.control import flip_record as routing
from shadow.control import members, receipts
from shadow.control.flip_record import FlipKind
from shadow.fleet.coordinator import Aborted, Flipped
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.hooks.hooks import Hooks
from shadow.hooks.sending import Attempt
from shadow.model.hooks import Hook, HookEvent
from shadow.model.phase import StoreName
from tests.races.test_flip_races import DYNAMO, HEARTBEAT, INC, KEY, MONGO, two_processes


def flip(fleet: Any, hooks: Hooks, to: StoreName = DYNAMO, kind: FlipKind = FlipKind.FLIP) -> Flipped:
    request = FlipRequest(fleet.records, kind, ["things"], to, HEARTBEAT, fleet.limit, hooks)
    plan = FlipPlan(routing.load(fleet.records), members.members(fleet.records), ())
    return request.make(plan, reason="a reason", forced=False, by="a test")


async def test_a_veto_comes_before_the_pause_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as (fleet, one, two):
        asked: list[Any] = []

        def sent(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
            paused = [pair.routes._gate("things").held is not None for pair in (one, two)]
            asked.append((hook.name, event, paused, routing.load(fleet.records).flip, json.loads(body)))
            return Attempt(hook.name != "freeze" or len(asked) > 2, True, "a freeze until Monday")

        hooks = Hooks(
            [
                Hook("freeze", frozenset({HookEvent.BEFORE_PAUSE}), command=("x",), veto=True),
                Hook("log", frozenset(HookEvent) - {HookEvent.BEFORE_PAUSE}, command=("x",)),
            ],
            sent=sent,
        )
        vetoed = await asyncio.to_thread(flip, fleet, hooks)
        assert hooks.finish(60)
        assert (vetoed.done, vetoed.vetoed) == (False, True)
        assert vetoed.said == "the hook freeze has vetoed it: a freeze until Monday"
        assert routing.load(fleet.records).placed["things"].primary is MONGO
        assert [each[:4] for each in asked[:1]] == [("freeze", "before_pause", [False, False], None)]
        assert asked[0][4]["collections"] == ["things"]
        assert asked[0][4]["to"] == "dynamo"
        assert [each[1] for each in asked] == ["before_pause", "after_abort"]
        assert receipts.listed(fleet.records, "flip")[0]["said"] == vetoed.said
        asked.append(None)
        done = await asyncio.to_thread(flip, fleet, hooks)
        assert hooks.finish(60)
        assert done.done
        assert [each[1] for each in asked[3:]] == ["before_pause", "after_commit"]
        assert asked[-1][4]["flip"] == done.id
        assert asked[-1][4]["paused_seconds"] > 0
        request = FlipRequest(fleet.records, FlipKind.FLIP, ["nothing"], MONGO, HEARTBEAT, fleet.limit, hooks)
        nothing = FlipPlan(routing.Routing({"nothing": routing.load(fleet.records).placed["things"]}), (), ())
        with pytest.raises(Aborted):
            await asyncio.to_thread(lambda: request.make(nothing, reason="", forced=False, by="a test"))
        assert hooks.finish(60)
        assert asked[-1][1] == "after_abort"


async def test_a_hook_that_hangs_pauses_no_write_longer(tmp_path: Path) -> None:
    """All hooks hang until the test ends them: the flip is made, and the writes continue."""
    async with two_processes(tmp_path) as (fleet, one, two):
        go = threading.Event()

        def sent(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
            go.wait(120)
            return Attempt(True, True)

        hooks = Hooks([Hook("hangs", frozenset(HookEvent), command=("x",))], sent=sent)
        try:
            done = await asyncio.to_thread(flip, fleet, hooks)
            assert done.done
            for pair in (one, two):
                await pair.things.update_one({"_id": KEY}, INC)
                assert pair.routes["things"].primary is DYNAMO
            assert not hooks.finish(0.0)
        finally:
            go.set()
        assert hooks.finish(60)
