"""The flip against the writes of its processes, by name: all change over between two writes, or nothing changes.

Each process is a pair over the same stores and journal, with the product's own part in a fleet; they share a control
store, and the flip is made as an operator makes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import FlipKind, FlipState, RouteRecord, Routing, WriteState
from shadow.control.sqlite import SqliteRecords
from shadow.fleet.context import FleetContext
from shadow.fleet.coordinator import Flipped
from shadow.fleet.fleet import Fleet
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.model.phase import StoreName
from shadow.routes.startup import StartupContext, StartupPrimary
from tests.support.faulty import Gate, lose
from tests.support.pair import QUICK, Pair, until

KEY: Final = "k"
HEARTBEAT: Final = 0.05
MARK: Final = "an epoch"
MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
INC: Final = {"$inc": {"n": 1}}


class _Fleet:
    """Processes, and the control store that they share."""

    def __init__(self, folder: Path) -> None:
        self.records = SqliteRecords(folder / "control.db")
        self.records.prepare()
        placed = RouteRecord(MONGO, writing=WriteState.DUAL, dual=1, mark=MARK)
        routing.save(self.records, Routing({"things": placed}))
        self.limit = QUICK.drain
        self._startup: dict[Pair, StartupPrimary] = {}

    def pair(self, folder: Path, **options: Any) -> Pair:
        """A process, to be begun."""

        async def learn(*, writing: bool) -> None:
            await self._startup[made].learn(writing=writing)

        made = Pair(folder, learn=learn, **options)
        return made

    @asynccontextmanager
    async def begun(self, pair: Pair) -> AsyncIterator[Pair]:
        """The pair as a process of the fleet."""
        self.limit = pair._parts.limits.drain
        context = FleetContext(
            self.records,
            pair._parts,
            current=lambda: pair.runtime,
            figures=_no_figures,
            journal="a journal",
            heartbeat=HEARTBEAT,
        )
        part = Fleet(context, {"things": pair.route})
        # However busy the machine is: the time in which the journal has to vouch for itself is no part of these races.
        part._vouching._patience = 30.0
        self._startup[pair] = StartupPrimary(
            StartupContext(
                pair.journal, pair.routes, part.kept, join=part.join, renew=part.participant.renew, configured=_of(part)
            )
        )
        async with pair:
            await pair.routes.learnt(writing=True)
            assert pair.routes["things"].dual_write
            running = asyncio.create_task(part.participant.run())
            try:
                yield pair
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await part.participant.leave()

    async def flip(self, to: StoreName = DYNAMO) -> Flipped:
        return await asyncio.to_thread(self._flip, to)

    def _flip(self, to: StoreName) -> Flipped:
        request = FlipRequest(self.records, FlipKind.FLIP, ["things"], to, HEARTBEAT, self.limit)
        plan = FlipPlan(routing.load(self.records), members.members(self.records), ())
        return request.make(plan, reason="", forced=False, by="a test")

    @property
    def state(self) -> FlipState | None:
        flip = routing.load(self.records).flip
        return None if flip is None else flip.state


async def _no_figures() -> dict[str, Any]:
    return {}


def _of(part: Fleet) -> Any:
    async def configured() -> Any:
        return part.configured()

    return configured


@asynccontextmanager
async def two_processes(folder: Path, **options: Any) -> AsyncIterator[tuple[_Fleet, Pair, Pair]]:
    fleet = _Fleet(folder)
    first = fleet.pair(folder, **options)
    async with fleet.begun(first) as one, fleet.begun(fleet.pair(folder, beside=first, **options)) as two:
        await one.things.insert_one({"_id": KEY, "n": 0})
        await one.settled()
        yield fleet, one, two
        await one.settled()
        await two.settled()
        one.assert_equal()
    fleet.records.close()


async def test_a_flip_while_writes_are_held(tmp_path: Path) -> None:
    """One write is inside, others come to both processes during the change: each sees one primary, none is lost."""
    async with two_processes(tmp_path) as (fleet, one, two):
        gate = Gate()
        one.primary.on("apply", gate)
        inside = asyncio.create_task(one.things.update_one({"_id": KEY}, INC))
        await gate.reached.wait()
        flip = asyncio.create_task(fleet.flip())
        await until(lambda: all(pair.routes._gate("things").held for pair in (one, two)))
        held = [asyncio.create_task(pair.things.update_one({"_id": KEY}, INC)) for pair in (one, two) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(task.done() for task in held)
        assert fleet.state is FlipState.HOLDING, "nothing is decided while a write is inside"
        gate.opened.set()
        done = await flip
        assert done.done, done.said
        await asyncio.gather(inside, *held)
        await one.settled()
        assert [pair.routes["things"].primary for pair in (one, two)] == [DYNAMO, DYNAMO]
        assert one.secondary.calls["apply"] + two.secondary.calls["apply"] == 10
        assert one.documents(MONGO)[KEY]["n"] == 11


async def test_a_flip_there_and_back_between_the_writes_of_two_processes(tmp_path: Path) -> None:
    """Writers never pause; the counter is exact, whichever store had which write first."""
    async with two_processes(tmp_path) as (fleet, one, two):
        over = asyncio.Event()

        async def write(pair: Pair) -> int:
            count = 0
            while not over.is_set():
                await pair.things.update_one({"_id": KEY}, INC)
                count += 1
                await asyncio.sleep(0.002)
            return count

        writers = [asyncio.create_task(write(pair)) for pair in (one, two)]
        flips = [await fleet.flip(to) for to in (DYNAMO, MONGO)]
        over.set()
        counts = await asyncio.gather(*writers)
        assert [flip.said for flip in flips if not flip.done] == []
        await one.settled()
        await two.settled()
        assert one.documents(DYNAMO)[KEY]["n"] == sum(counts)
        assert two.routes["things"].epoch == 3


async def test_a_flip_that_cannot_be_drained_changes_nothing_and_the_writes_go_on(tmp_path: Path) -> None:
    async with two_processes(tmp_path, limits=QUICK.model_copy(update={"drain": 0.3})) as (fleet, one, two):
        one.secondary.on_all(lose)
        two.secondary.on_all(lose)
        await one.things.update_one({"_id": KEY}, INC)
        done = await fleet.flip()
        assert not done.done
        # By the processes themselves, or by the coordinator whose time is over as soon
        assert "catch up" in done.said or "not level" in done.said
        assert fleet.state is FlipState.ABORTED
        assert routing.load(fleet.records).placed["things"].primary is MONGO
        assert [pair.routes["things"].primary for pair in (one, two)] == [MONGO, MONGO]
        one.secondary.clear()
        two.secondary.clear()
        await asyncio.gather(*(pair.things.update_one({"_id": KEY}, INC) for pair in (one, two)))
        await one.settled()
        assert one.documents(MONGO)[KEY]["n"] == 3


async def test_a_flip_waits_for_a_request_that_was_given_up_on(tmp_path: Path) -> None:
    """The secondary may still get it when it is the primary: nothing is flipped while that can be."""
    async with two_processes(tmp_path, limits=QUICK.model_copy(update={"in_flight_timeout": 60.0})) as (
        fleet,
        one,
        two,
    ):
        one.secondary.on("replay", lose)
        await one.things.update_one({"_id": KEY}, INC)
        await one.settled()
        one.secondary.clear()
        done = await fleet.flip()
        assert not done.done
        assert "may still arrive" in done.said
        assert [pair.routes["things"].primary for pair in (one, two)] == [MONGO, MONGO]


async def test_a_flip_whose_coordinator_goes_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    """It asked for the writes to be held, and is no more: the processes abort, and the next flip is made."""
    async with two_processes(tmp_path, limits=QUICK.model_copy(update={"drain": 0.4})) as (fleet, one, two):
        seen = routing.load(fleet.records)
        flip = routing.Flip("gone", FlipKind.FLIP, FlipState.ANNOUNCED, {"things": DYNAMO})
        announced = routing.save(fleet.records, seen.with_flip(flip))
        assert announced is not None
        await until(lambda: all(row.ack.stage == "ready" for row in members.members(fleet.records)))
        routing.save(fleet.records, announced.with_flip(flip.moved(FlipState.HOLDING)))
        await until(lambda: all(pair.routes._gate("things").held for pair in (one, two)))
        await asyncio.gather(*(pair.things.update_one({"_id": KEY}, INC) for pair in (one, two)))
        assert fleet.state is FlipState.ABORTED
        assert [pair.routes["things"].primary for pair in (one, two)] == [MONGO, MONGO]
        done = await fleet.flip()
        assert done.done, done.said


@pytest.mark.parametrize("who", ["inside", "held", "flip"])
async def test_a_caller_that_is_cancelled_in_the_middle_of_a_flip(tmp_path: Path, who: str) -> None:
    """Of a write that is inside, of one that is held, or of the flip: what was begun is done to its end, once."""
    async with two_processes(tmp_path) as (fleet, one, two):
        gate = Gate()
        one.primary.on("apply", gate)
        calls = {"inside": asyncio.create_task(one.things.update_one({"_id": KEY}, INC))}
        await gate.reached.wait()
        calls["flip"] = asyncio.create_task(fleet.flip())  # type: ignore[arg-type]
        await until(lambda: all(pair.routes._gate("things").held for pair in (one, two)))
        calls["held"] = asyncio.create_task(two.things.update_one({"_id": KEY}, INC))
        held = two.routes._gate("things").held
        await until(lambda: held is not None and len(held._waiters) == 1)  # type: ignore[attr-defined]
        calls[who].cancel()
        with suppress(asyncio.CancelledError):
            await calls[who]
        gate.opened.set()
        await until(lambda: [pair.routes["things"].primary for pair in (one, two)] == [DYNAMO, DYNAMO])
        await asyncio.gather(*(call for name, call in calls.items() if name != who))
        await until(lambda: fleet.state is FlipState.RELEASED)
        # Whoever was cancelled does not wait for what was begun for it.
        await until(lambda: one.documents(DYNAMO)[KEY]["n"] == 2)
        await one.settled()
        await two.settled()
        assert one.documents(MONGO)[KEY]["n"] == 2


@pytest.mark.parametrize("state", [FlipState.HOLDING, FlipState.COMMITTED])
async def test_a_flip_that_nobody_moves_any_more_is_ended_by_the_processes(tmp_path: Path, state: FlipState) -> None:
    """Its coordinator is gone, and the processes, which are not level, have no part in it any more: what the files ask
    for would wait for it for ever."""
    async with two_processes(tmp_path, limits=QUICK.model_copy(update={"drain": 0.2})) as (fleet, one, two):
        one.secondary.on_all(lose)
        two.secondary.on_all(lose)
        await one.things.update_one({"_id": KEY}, INC)
        to = DYNAMO if state is FlipState.HOLDING else MONGO
        flip = routing.Flip("gone", FlipKind.FLIP, state, {"things": to})
        routing.save(fleet.records, routing.load(fleet.records).with_flip(flip))
        await until(lambda: fleet.state is not None and fleet.state.over)
        assert [pair.routes["things"].primary for pair in (one, two)] == [MONGO, MONGO]
        one.secondary.clear()
        two.secondary.clear()
