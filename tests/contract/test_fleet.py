"""Processes that agree on the primary in one record: all change over, or none does, whatever is missing or dies.

The processes here are participants in one event loop, each with a site that keeps no documents: what is tested is the
protocol over the real control stores. `tests/e2e/test_runbook.py` has real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.cli import jobs
from shadow.control import epochs, members, raising
from shadow.control import flip_record as routing
from shadow.control.dynamo import DynamoRecords
from shadow.control.flip_record import Flip, FlipKind, FlipState, RouteRecord, Routing, WriteState
from shadow.control.members import Member, MemberRoute
from shadow.control.mongo import MongoRecords
from shadow.control.records import Records, Value
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError, NotCaughtUp
from shadow.fleet.context import ParticipantContext
from shadow.fleet.coordinator import Aborted, Flipped, make_flip
from shadow.fleet.participant import Participant
from shadow.host.process import Owner, this_process
from shadow.host.steady import steady
from shadow.jobs.target import JobRefused
from shadow.journal.server.dynamo_table import Access
from shadow.model.background import Background
from shadow.model.health import CollectionHealth, FindingsHealth
from shadow.model.phase import Phase, Route, StoreName
from tests.support.pair import until

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
HEARTBEAT: Final = 0.05
LIMIT: Final = 1.0
STORES: Final = ("sqlite", "mongo", "dynamo-local")

pytestmark = pytest.mark.drawn_over(
    "records", reason="one protocol, over what test_control_store holds every control store to"
)


class Process:
    """A site without documents: it knows its route and whether its writes are held."""

    def __init__(
        self,
        records: Records,
        name: str,
        *,
        journal: str = "a journal",
        tool: bool = False,
        phase: Phase = Phase.SHADOW,
    ) -> None:
        self.name = name
        self.phase = phase
        self.route = Route(MONGO, phase)
        self.seen = Routing()
        self.until = 0.0
        self.bare = 0
        self.lost = 0
        self.is_held = False
        self.obstacle = ""
        self.at_hold: Callable[[Process], Awaitable[None]] | None = None
        self.heard_of: list[str] = []
        self.participant = Participant(ParticipantContext(records, journal, HEARTBEAT, LIMIT, tool=tool), self)
        self._running: asyncio.Task[None] | None = None

    def routes(self) -> Mapping[str, Route]:
        return {"things": self.route}

    def wanted(self) -> Mapping[str, StoreName]:
        return {"things": self.route.primary}

    def wants_both(self) -> Mapping[str, Phase]:
        return {"things": self.phase} if self.phase is not Phase.OFF else {}

    def noted(self, seen: Routing, until: float) -> None:
        self.seen, self.until = seen, until

    def drained(self, collections: Iterable[str]) -> bool:
        return not (self.bare and "things" in collections)

    def arrived(self, collections: Iterable[str]) -> bool:
        return self.drained(collections) and not (self.lost and "things" in collections)

    async def write_both(self, collections: list[str]) -> None:
        self.route = dataclasses.replace(self.route, phase=self.phase)

    @asynccontextmanager
    async def holding(self, collections: list[str]) -> AsyncIterator[None]:
        assert collections == ["things"]
        if self.obstacle:
            raise NotCaughtUp(self.obstacle)
        if self.at_hold is not None:
            # Beside it: what is done there ends the task that holds.
            self._ending = asyncio.create_task(self.at_hold(self))
            await asyncio.Event().wait()
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False

    async def switch(self, placed: Mapping[str, RouteRecord]) -> None:
        each = placed["things"]
        phase = Phase.OFF if each.completed else self.route.phase
        self.route = Route(each.primary, phase, epoch=each.epoch)

    async def vouch(self, collections: Collection[str], *, whole: bool = True) -> str:
        return ""

    async def figures(self) -> Mapping[str, CollectionHealth]:
        return {"things": CollectionHealth(findings=FindingsHealth(0, kept=self.name))}

    async def is_empty(self) -> bool:
        return True

    def failed(self, task: Background, error: BaseException | None) -> None:
        if error is not None:
            raise error

    def notify(self, what: str, **about: Any) -> None:
        self.heard_of.append(f"{what} {about.get('state', '')}".strip())

    async def begin(self) -> Process:
        self.route = Route(MONGO, self.phase)
        placed = await self.participant.join({"things": MONGO})
        await self.switch(placed)
        if not placed["things"].both:
            self.route = dataclasses.replace(self.route, phase=Phase.OFF)
        self._running = asyncio.create_task(self.participant.run())
        return self

    async def die(self) -> None:
        """As a killed process does: its record stays."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self.participant._flip is not None:
            self.participant._flip.cancel()
            await asyncio.gather(self.participant._flip, return_exceptions=True)
        self.is_held = False

    async def end(self) -> None:
        await self.die()
        await self.participant.leave()


@pytest.fixture(params=STORES)
def records(request: pytest.FixtureRequest, tmp_path: Path, fresh_name: str) -> Iterator[Records]:
    if request.param == "sqlite":
        made: Records = SqliteRecords(tmp_path / "control.db")
    elif request.param == "mongo":
        url, database = request.getfixturevalue("mongo_url"), request.getfixturevalue("mongo_database")
        made = MongoRecords(url, database, "control")
    else:
        url = request.getfixturevalue("dynamodb_local_url")
        made = DynamoRecords(Access("us-east-1", url, "local", "local"), f"{fresh_name}-control")
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Records]:
    """One store, where the store makes no difference."""
    made = SqliteRecords(tmp_path / "control.db")
    yield made
    made.close()


@asynccontextmanager
async def fleet(records: Records, count: int, *, phase: Phase = Phase.SHADOW) -> AsyncIterator[list[Process]]:
    processes = [await Process(records, f"p{number}", phase=phase).begin() for number in range(count)]
    yield processes
    for each in processes:
        await each.end()


async def flip(records: Records, to: StoreName = DYNAMO, **options: Any) -> Flipped:
    return await asyncio.to_thread(
        make_flip,
        records,
        {"things": to},
        **{"by": "a test", "heartbeat": HEARTBEAT, "limit": LIMIT, **options},
    )


def state(records: Records) -> FlipState | None:
    found = routing.load(records).flip
    return None if found is None else found.state


async def test_all_processes_change_over_together_and_back(records: Records) -> None:
    async with fleet(records, 4) as processes:
        done = await flip(records)
        assert done.done, done.said
        assert {each.route.primary for each in processes} == {DYNAMO}
        assert {each.route.epoch for each in processes} == {2}
        assert len(done.held) == 4
        placed = routing.load(records).placed["things"]
        assert (placed.primary, placed.previous, placed.epoch) == (DYNAMO, MONGO, 2)
        assert (await flip(records, MONGO)).done
        assert {each.route.primary for each in processes} == {MONGO}
        await until(lambda: not any(each.is_held for each in processes))
    assert members.members(records) == []
    assert members.journals(records) == set(), "left empty"


async def test_nobody_changes_over_before_all_hold_their_writes(local: Records) -> None:
    """Whoever has changed over has seen every other process hold or change."""
    async with fleet(local, 5) as processes:
        for process in processes:
            switch = process.switch

            async def seen(placed: Mapping[str, RouteRecord], switch: Any = switch) -> None:
                assert all(each.is_held for each in processes)
                await switch(placed)

            process.switch = seen  # type: ignore[method-assign]
        assert (await flip(local)).done


async def test_one_that_is_not_level_aborts_for_all(records: Records) -> None:
    async with fleet(records, 3) as processes:
        processes[1].obstacle = "its secondary is down"
        failed = await flip(records)
        assert not failed.done
        assert "its secondary is down" in failed.said
        await until(lambda: not any(each.is_held for each in processes))
        assert {each.route.primary for each in processes} == {MONGO}
        processes[1].obstacle = ""
        assert (await flip(records)).done


async def test_one_that_stands_elsewhere_is_a_reason_not_to_begin(local: Records) -> None:
    """Nobody's writes are held for it."""
    async with fleet(local, 3) as processes:
        processes[2].phase = Phase.OFF
        processes[2].route = Route(MONGO, Phase.OFF)
        failed = await flip(local)
        assert "phase off" in failed.said
        assert failed.paused == 0.0


async def test_a_silent_process_aborts_and_is_named_until_it_is_forgotten(local: Records) -> None:
    async with fleet(local, 2) as processes:
        await processes[1].die()
        silent = processes[1].participant.id
        failed = await flip(local, limit=0.3)
        assert silent in failed.said
        assert processes[0].route.primary is MONGO
        assert members.forget(local, silent)
        assert (await flip(local)).done


async def test_a_process_that_is_certainly_dead_is_not_waited_for(local: Records) -> None:
    own = this_process()
    dead = Member("gone", Owner(own.place, own.pid, own.started - 5000), "a journal")
    dead.write(local)
    async with fleet(local, 2):
        assert (await flip(local)).done
    assert members.members(local) == []


@pytest.mark.parametrize("dies", [True, False])
async def test_one_that_ends_before_it_is_level_aborts_for_all(local: Records, dies: bool) -> None:
    """What it wrote in its last moments may have come into the journal after the others had looked."""
    async with fleet(local, 3) as (one, two, ends):

        async def at_hold(process: Process) -> None:
            row = next(each for each in members.members(local) if each.id == process.participant.id)
            await process.die()
            if dies:
                dataclasses.replace(row, owner=Owner(row.owner.place, 2**22 + 1, row.owner.started)).write(local)
            else:
                await process.participant.leave()

        ends.at_hold = at_hold
        done = await flip(local)
        assert not done.done
        assert "ended while the writes were paused: try again" in done.said
        assert [each.route.primary for each in (one, two)] == [MONGO, MONGO]
        await until(lambda: not one.is_held and not two.is_held)
        ends.at_hold = None
        if dies:
            assert (await flip(local)).done, "the next one does not wait for it"


async def test_a_journal_that_nobody_shares_any_more_stands_in_the_way(local: Records) -> None:
    """What a dead process has left in it could only be healed the wrong way round after a flip."""
    own = this_process()
    Member("gone", Owner(own.place, own.pid, own.started - 5000), "another host's").write(local)
    members.note_journal(local, "another host's")
    async with fleet(local, 2) as processes:
        failed = await flip(local)
        assert "another host's" in failed.said
        assert {each.route.primary for each in processes} == {MONGO}
        heir = await Process(local, "heir", journal="another host's").begin()
        assert (await flip(local)).done
        await heir.end()


async def test_a_forgotten_process_that_comes_back_follows(local: Records) -> None:
    async with fleet(local, 2) as processes:
        await processes[1].die()
        members.forget(local, processes[1].participant.id)
        assert (await flip(local)).done
        assert processes[1].route.primary is MONGO
        processes[1]._running = asyncio.create_task(processes[1].participant.run())
        await until(lambda: processes[1].route.primary is DYNAMO)


async def test_a_tool_takes_part_too(local: Records) -> None:
    """It heals, so it must not hold on to the roles of before."""
    async with fleet(local, 1):
        tool = await Process(local, "tool", tool=True).begin()
        assert (await flip(local)).done
        assert tool.route.primary is DYNAMO
        await tool.end()


# --- the coordinator dies -------------------------------------------------------------------------------------------


class Dies(Exception):
    """The coordinator ends here."""


class Mortal:
    """Records of a coordinator that dies with its n-th write of the routing record, before or after it is made."""

    def __init__(self, records: Records, at: int, *, written: bool) -> None:
        self._records = records
        self._left = at
        self._written = written

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        if key != routing.KEY:
            return self._records.put(key, value, expected=expected)
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._written):
            raise Dies
        done = self._records.put(key, value, expected=expected)
        if self._left == 0:
            raise Dies
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4], ids=["announcing", "holding", "committing", "releasing"])
async def test_a_coordinator_that_dies_anywhere_leaves_one_routing_for_all(
    local: Records, at: int, *, written: bool
) -> None:
    async with fleet(local, 3) as processes:
        limits = [each.participant._limit for each in processes]
        for each in processes:
            each.participant._limit = 0.2
        with contextlib.suppress(Dies):
            await flip(Mortal(local, at, written=written))  # type: ignore[arg-type]
        decided = at == 4 or (at == 3 and written)
        primary = DYNAMO if decided else MONGO
        await until(lambda: {each.route.primary for each in processes} == {primary})
        await until(lambda: not any(each.is_held for each in processes))
        assert routing.load(local).placed["things"].primary is primary
        for each, limit in zip(processes, limits, strict=True):
            each.participant._limit = limit  # a flip on a busy machine takes longer than the dead one may be waited for
        again = await flip(local, primary.other)
        assert again.done, again.said
        assert {each.route.primary for each in processes} == {primary.other}


async def test_two_flips_at_once_come_one_after_the_other(local: Records) -> None:
    async with fleet(local, 3) as processes:
        both = await asyncio.gather(flip(local), flip(local, MONGO), return_exceptions=True)
        done = [each for each in both if isinstance(each, Flipped)]
        assert len(done) == 2
        assert any(each.done for each in done)
        await until(lambda: len({each.route for each in processes}) == 1)
        assert processes[0].route.primary is routing.load(local).placed["things"].primary


# --- coming and going -----------------------------------------------------------------------------------------------


async def test_a_process_that_starts_while_writes_are_held_waits_for_the_decision(records: Records) -> None:
    """It begins with the primary that comes of it, and the flip does not wait for it."""
    async with fleet(records, 2) as processes:
        holding, going = asyncio.Event(), asyncio.Event()
        hold = processes[0].holding

        @asynccontextmanager
        async def slowly(collections: list[str]) -> AsyncIterator[None]:
            holding.set()
            await going.wait()
            async with hold(collections):
                yield

        processes[0].holding = slowly  # type: ignore[method-assign]
        flipping = asyncio.create_task(flip(records))
        await holding.wait()
        newcomer = Process(records, "newcomer")
        in_force: list[StoreName] = []
        switch = newcomer.switch

        async def noted(placed: Mapping[str, RouteRecord]) -> None:
            await switch(placed)
            in_force.append(newcomer.route.primary)

        newcomer.switch = noted  # type: ignore[method-assign]
        beginning = asyncio.create_task(newcomer.begin())
        await asyncio.sleep(0)
        assert not newcomer.participant.joined
        going.set()
        assert (await flipping).done
        await beginning
        assert newcomer.route.primary is DYNAMO
        assert set(in_force) == {DYNAMO}, "it writes to no other primary at any time"
        await newcomer.end()


async def test_processes_that_start_with_different_wishes_have_one_primary(records: Records) -> None:
    """Whoever comes first places the collection."""

    async def begin(primary: StoreName) -> Process:
        process = Process(records, str(primary))
        await process.switch(await process.participant.join({"things": primary}))
        return process

    processes = await asyncio.gather(*(begin(each) for each in (MONGO, DYNAMO, MONGO, DYNAMO)))
    assert len({each.route.primary for each in processes}) == 1
    for each in processes:
        await each.participant.leave()


async def test_processes_that_disagree_are_seen_by_all(local: Records) -> None:
    async with fleet(local, 3) as processes:
        for each in processes:
            # Nobody is to be put right before it is seen.
            await each.die()
        processes[1].route = Route(DYNAMO, Phase.SHADOW)
        for each in processes:
            await each.participant.beat()
        apart = members.disagreements(members.members(local))["things"]
        assert sorted(map(len, apart.values())) == [1, 2]
        assert set(apart) == {"mongo, shadow", "dynamo, shadow"}


async def test_a_rehearsal_holds_the_writes_and_changes_nothing(local: Records) -> None:
    async with fleet(local, 3) as processes:
        done = await flip(local, kind=FlipKind.REHEARSAL)
        assert done.done
        assert state(local) is FlipState.ABORTED
        assert {each.route.primary for each in processes} == {MONGO}
        await until(lambda: all("flip rehearsed" in each.heard_of for each in processes))
        assert not any("flip aborted" in each.heard_of for each in processes)


async def test_a_completion_ends_dual_writes_everywhere(local: Records) -> None:
    async with fleet(local, 3) as processes:
        assert (await flip(local)).done
        assert (await flip(local, DYNAMO, kind=FlipKind.COMPLETE)).done
        assert {(each.route.primary, each.route.phase) for each in processes} == {(DYNAMO, Phase.OFF)}
        placed = routing.load(local).placed["things"]
        assert (placed.completed, placed.previous) == (True, None)


async def test_without_a_process_nothing_can_be_flipped(local: Records) -> None:
    with pytest.raises(Aborted, match="is the application running"):
        await flip(local)


# --- the control store is out of reach ------------------------------------------------------------------------------


class Unreachable:
    """Records that answer only while `up`."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.up = True

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._records, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            if not self.up:
                raise ControlError("the control store did not answer")
            return found(*arguments, **options)

        return call


async def test_a_process_that_cannot_reach_the_control_store_goes_on_and_aborts_flips(local: Records) -> None:
    cut = Unreachable(local)
    async with fleet(local, 2) as processes:
        alone = await Process(cut, "alone").begin()  # type: ignore[arg-type]
        cut.up = False
        await until(lambda: "lost" in alone.heard_of)
        failed = await flip(local, limit=0.3)
        assert alone.participant.id in failed.said
        assert {each.route.primary for each in (*processes, alone)} == {MONGO}
        cut.up = True
        await until(lambda: "found" in alone.heard_of)
        assert (await flip(local)).done
        assert alone.route.primary is DYNAMO
        await alone.end()


async def test_writes_stay_held_while_nobody_can_know_what_was_decided(local: Records) -> None:
    """Letting them go on could mean two primaries: the decision may have been made."""
    cut = Unreachable(local)
    process = await Process(cut, "cut off").begin()  # type: ignore[arg-type]
    process.participant._limit = 0.1
    other = await Process(local, "other").begin()
    level = asyncio.Event()
    beat = process.participant.beat

    async def said(ack: Any = None) -> None:
        await beat(ack)
        if ack is not None and ack.stage == "level":
            cut.up = False
            level.set()

    process.participant.beat = said  # type: ignore[method-assign]
    flipping = asyncio.create_task(flip(local))
    await level.wait()
    done = await flipping
    assert done.done
    assert other.route.primary is DYNAMO
    assert process.is_held
    assert process.route.primary is MONGO
    cut.up = True
    await until(lambda: process.route.primary is DYNAMO and not process.is_held)
    await process.end()
    await other.end()


# --- dual writes begin and end --------------------------------------------------------------------------------------


def writing(records: Records) -> WriteState:
    return routing.load(records).placed["things"].writing


def mark(records: Records) -> str:
    return routing.load(records).placed["things"].mark


async def test_dual_writes_begin_when_every_process_has_ended_its_bare_writes(records: Records) -> None:
    async with fleet(records, 1, phase=Phase.OFF) as (bare,):
        assert writing(records) is WriteState.SINGLE
        bare.bare = 1
        wants = await Process(records, "wants").begin()
        assert wants.route.phase is Phase.OFF, "it writes one store alone for as long"
        await until(lambda: writing(records) is WriteState.RAISING and not epochs.bare(bare.seen.placed["things"]))
        bare.bare = 0
        await until(lambda: wants.route.phase is Phase.SHADOW)
        assert writing(records) is WriteState.DUAL
        await wants.end()


async def test_a_silent_process_is_waited_for_until_its_lease_has_long_run_out(
    local: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet(local, 1, phase=Phase.OFF) as (silent,):
        await silent.die()
        wants = Process(local, "wants")
        now = [1000.0]
        monkeypatch.setattr(raising, "steady", lambda: now[0])
        await wants.begin()
        for step in (WriteState.ANNOUNCED, WriteState.RAISING):
            await until(lambda step=step: writing(local) is step)
            await wants.participant._follow()
            now[0] += 60.0
            await wants.participant._follow()
            assert writing(local) is step, "its last write may still arrive"
            assert wants.route.phase is Phase.OFF
            now[0] += 1.0
        await until(lambda: wants.route.phase is Phase.SHADOW)
        await wants.end()


def died(records: Records, phase: Phase) -> None:
    """Leaves the record of a process of this host that has died, with `phase` in force."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = dataclasses.replace(this_process(), pid=ended.pid)
    assert owner.known_dead()
    Member("dead", owner, "a journal", standing={"things": MemberRoute(MONGO, phase, MONGO)}).write(records)


async def test_what_a_process_that_died_has_sent_to_one_store_is_waited_for(
    local: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is gone at once, its last request is not."""
    now = [1000.0]
    monkeypatch.setattr(raising, "steady", lambda: now[0])
    died(local, Phase.OFF)
    wants = await Process(local, "wants").begin()
    for passed in (0.0, 60.0):
        now[0] += passed
        await wants.participant._follow()
        assert writing(local) is WriteState.ANNOUNCED, "its last write may still arrive"
        assert wants.route.phase is Phase.OFF
        assert members.is_member(local, "dead"), "whoever begins now has to wait as well"
    now[0] += 1.0
    await until(lambda: wants.route.phase is Phase.SHADOW)
    assert not members.is_member(local, "dead")
    await wants.end()


async def test_a_process_that_died_and_wrote_both_is_not_waited_for(
    local: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raising, "steady", lambda: 1000.0)
    died(local, Phase.SHADOW)
    wants = await Process(local, "wants").begin()
    assert wants.route.phase is Phase.SHADOW
    assert not members.is_member(local, "dead")
    await wants.end()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_process_that_ends_stays_on_the_list_while_a_bare_write_can_arrive(
    local: Records, arrives: bool
) -> None:
    """And no longer than a request can take."""
    bare = await Process(local, "bare", phase=Phase.OFF).begin()
    bare.bare = 1
    if not arrives:
        bare.participant._late = 0.5
    since = steady()
    ending = asyncio.create_task(bare.end())
    while steady() - since < 0.3:
        await asyncio.sleep(0.05)
        assert members.is_member(local, bare.participant.id)
        assert not ending.done()
    if arrives:
        bare.bare = 0
    await ending
    assert members.members(local) == []
    assert arrives or steady() - since >= 0.5


async def test_a_stopped_process_does_not_write_as_before_when_it_goes_on(local: Records) -> None:
    """It looks before it writes: its lease has run out. What it finds holds for its next write."""
    async with fleet(local, 1, phase=Phase.OFF) as (stopped,):
        await stopped.die()
        assert steady() < stopped.until + 60, "as long as a lease"
        members.forget(local, stopped.participant.id)
        wants = await Process(local, "wants").begin()
        assert wants.route.phase is Phase.SHADOW
        before = mark(local)
        await stopped.participant.renew()
        assert not epochs.bare(stopped.seen.placed["things"])
        await stopped.participant.beat()
        assert mark(local) != before, "it was taken off the list, and writes one store alone"
        await wants.end()


async def test_several_processes_that_begin_together_write_both_at_once(records: Records) -> None:
    several = await asyncio.gather(*(Process(records, f"p{n}").begin() for n in range(4)))
    await until(lambda: all(each.route.dual_write for each in several))
    first = mark(records)
    assert first
    for each in several:
        await each.end()
    again = await Process(records, "later").begin()
    assert mark(records) == first, "nobody wrote one store alone in between"
    await again.end()


async def test_bare_writes_come_back_when_nobody_writes_both_or_wants_to(records: Records) -> None:
    async with fleet(records, 1) as (dual,), fleet(records, 1, phase=Phase.OFF) as (alone,):
        await until(lambda: len(alone.participant.seen_members) == 2)
        assert writing(records) is WriteState.DUAL
        await dual.end()
        await until(lambda: writing(records) is WriteState.SINGLE, timeout=60)
        placed = routing.load(records).placed["things"]
        assert (placed.mark, placed.previous) == ("", None)
        assert epochs.stamped(placed), "its documents have versions"
        await until(lambda: epochs.bare(alone.seen.placed["things"]))


async def test_one_that_begins_while_another_lowers_is_seen_or_sees(local: Records) -> None:
    """Between the two steps down, and after them."""
    dual = await Process(local, "dual").begin()
    await dual.end()
    closing = routing.change(local, lambda seen: epochs.lowered(seen, ["things"], []))
    assert closing.placed["things"].writing is WriteState.CLOSING
    late = await Process(local, "late").begin()
    assert late.route.dual_write
    assert writing(local) is WriteState.DUAL
    assert routing.save(local, closing) is None, "who was lowering comes too late"
    assert epochs.lowered(routing.load(local), ["things"], members.members(local)) is None
    await late.end()


async def test_dual_writes_that_have_not_begun_are_given_up_in_one_step(local: Records) -> None:
    """By way of `closing` one that comes back would write both at once, while others still make bare writes."""
    async with fleet(local, 1, phase=Phase.OFF) as (bare,):
        bare.bare = 1
        wants = await Process(local, "wants").begin()
        await until(lambda: writing(local) is WriteState.RAISING)
        await wants.end()
        lowered = epochs.lowered(routing.load(local), ["things"], members.members(local))
        assert lowered is not None
        placed = lowered.placed["things"]
        assert placed.writing is WriteState.SINGLE
        assert epochs.stamped(placed), "what was written meanwhile has versions"
        bare.bare = 0


async def test_a_process_of_an_older_version_keeps_everything_from_being_proven(local: Records) -> None:
    async with fleet(local, 1) as (process,):
        assert epochs.proof_of(local, "things") == mark(local) != ""
        own = this_process()
        old = Member("old", own, "a journal", standing={"things": MemberRoute(MONGO, Phase.SHADOW, MONGO)}, format=1)
        old.write(local)
        assert epochs.proof_of(local, "things") == ""
        old.leave(local, empty=False)
        found = local.get(routing.KEY)
        assert found is not None
        local.put(routing.KEY, {"placed": found.value["placed"], "flip": None})
        assert routing.load(local).placed["things"].writing is WriteState.DUAL
        assert epochs.proof_of(local, "things") == ""
        await until(lambda: epochs.proof_of(local, "things") != "", timeout=30)
        assert process.route.dual_write


async def test_a_gap_is_said_before_the_epoch_ends(local: Records) -> None:
    """A proof that begins in between sees the process that writes alone, or is of the epoch of before."""
    async with fleet(local, 1) as (process,):
        await process.die()
        seen: list[str] = []
        interrupt = process.participant._raising.interrupt

        def looked(names: Collection[str]) -> Routing:
            seen.append(epochs.proof_of(local, "things"))
            return interrupt(names)

        process.participant._raising.interrupt = looked  # type: ignore[method-assign]
        before = mark(local)
        await process.participant.write_alone(["things"])
        assert seen == [""]
        assert epochs.proof_of(local, "things") == ""
        assert mark(local) not in ("", before)
        process.participant.writes_both_again(["things"])
        await process.participant.beat()
        assert epochs.proof_of(local, "things") == mark(local)


async def test_gates_that_were_looked_at_in_another_epoch_begin_no_flip(local: Records) -> None:
    async with fleet(local, 1):
        before = {"things": mark(local)}
        routing.change(local, lambda seen: epochs.interrupted(seen, ["things"]))
        with pytest.raises(Aborted, match="interrupted after the gates were checked"):
            await flip(local, epochs=before)
        assert (await flip(local, epochs={"things": mark(local)})).done


async def test_a_primary_that_was_never_written_twice_is_the_configurations_choice(local: Records) -> None:
    async def begin(wanted: StoreName, *, end: bool = True) -> StoreName:
        process = Process(local, str(wanted), phase=Phase.OFF)
        placed = await process.participant.join({"things": MONGO}, {"things": wanted})
        if end:
            await process.participant.leave()
        return placed["things"].primary

    assert await begin(MONGO) is MONGO
    assert await begin(DYNAMO) is DYNAMO
    assert await begin(MONGO, end=False) is MONGO
    assert await begin(DYNAMO) is MONGO, "somebody else is there"
    for row in members.members(local):
        row.leave(local, empty=True)
    dual = await Process(local, "dual").begin()
    await dual.end()
    assert await begin(DYNAMO) is MONGO, "a flip is the way"


async def test_nothing_is_proven_while_what_was_written_to_one_store_may_still_arrive(
    local: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that writes both again, and by one that has died. Either lasts for a time and no longer."""
    now = [1000.0]
    monkeypatch.setattr(raising, "steady", lambda: now[0])
    async with fleet(local, 1) as (process,):
        assert epochs.proof_of(local, "things") == mark(local) != ""
        process.lost = 1
        await process.participant.beat()
        assert epochs.proof_of(local, "things") == ""
        process.lost = 0
        await process.participant.beat()
        assert epochs.proof_of(local, "things") == mark(local)
        died(local, Phase.SHADOW)
        assert epochs.proof_of(local, "things") == mark(local)
        died(local, Phase.OFF)
        for passed in (0.0, 60.0):
            now[0] += passed
            process.participant._members()
            assert epochs.proof_of(local, "things") == ""
        now[0] += 1.0
        process.participant._members()
        assert not members.is_member(local, "dead")
        assert epochs.proof_of(local, "things") == mark(local)


async def test_a_job_that_would_prove_nothing_says_so_before_it_begins(local: Records) -> None:
    async with fleet(local, 1) as (process,):
        jobs._check_fleet(local, "things", process.routes()["things"])
        process.lost = 1
        await process.participant.beat()
        with pytest.raises(JobRefused, match="writes to one store only, or did until a moment ago"):
            jobs._check_fleet(local, "things", process.routes()["things"])
        process.lost = 0
        await process.participant.beat()
        died(local, Phase.OFF)
        with pytest.raises(JobRefused, match="died while it wrote to one store only"):
            jobs._check_fleet(local, "things", process.routes()["things"])
        members.forget(local, "dead")
        jobs._check_fleet(local, "things", process.routes()["things"])


async def test_a_versioned_write_without_an_answer_keeps_nobody_from_writing_both(local: Records) -> None:
    """It moves a version, so that it cannot hide: it stands in the way of proofs alone."""
    async with fleet(local, 1, phase=Phase.OFF) as (alone,):
        alone.lost = 1
        wants = await Process(local, "wants").begin()
        await until(lambda: wants.route.dual_write)
        await wants.end()
        ending = asyncio.create_task(alone.participant.leave())
        await asyncio.sleep(0.2)
        assert not ending.done(), "it stays on the list for as long"
        alone.lost = 0
        await ending


class Takes:
    """A control store in which somebody takes a process's record away between a look at it and the write after it."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.armed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def get(self, key: str) -> Any:
        found = self._records.get(key)
        if self.armed and key.startswith("member/"):
            self.armed = False
            assert self._records.delete(key)
        return found


async def test_a_record_that_is_taken_while_it_is_renewed_is_not_brought_back(records: Records) -> None:
    """Others may have gone on without the process in between: it enters again."""
    taking: Any = Takes(records)
    process = await Process(taking, "a").begin()
    participant = process.participant
    assert participant._row is not None
    taking.armed = True
    assert not participant._renew(dataclasses.replace(participant._row, beat=1000))
    assert not members.is_member(records, participant.id)
    await participant.beat()
    assert members.is_member(records, participant.id)
    await process.end()


async def test_one_that_could_not_be_taken_off_the_list_enters_by_the_same_record(
    local: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one would be nobody's, of a process that lives: nothing could be proven any more."""
    process = await Process(local, "a").begin()
    await process.die()
    with monkeypatch.context() as patch:

        def refuse(*arguments: Any, **options: Any) -> None:
            raise ControlError("not now")

        patch.setattr(Member, "leave", refuse)
        await process.participant.leave()
    assert len(members.members(local)) == 1
    await process.begin()
    assert [each.id for each in members.members(local)] == [process.participant.id]
    assert epochs.proof_of(local, "things") == mark(local) != ""
    await process.end()
    assert members.members(local) == []


async def test_one_that_is_taken_off_the_list_while_it_enters_begins_again(
    local: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, looks = Process(local, "a"), 0
    raised = process.participant._raised

    def taken(row: Member, seen: Routing) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            members.forget(local, row.id)
        return raised(row, seen)

    monkeypatch.setattr(process.participant, "_raised", taken)
    await process.begin()
    assert looks == 2
    assert members.is_member(local, process.participant.id)
    await process.end()


async def test_one_that_comes_back_while_it_writes_one_store_alone_says_so(local: Records) -> None:
    """Whatever its file wants: it was off the list when the others began to write both, and has not begun itself."""
    back = Process(local, "back")
    async with fleet(local, 1):
        await back.begin()
        await back.die()
        back.route = dataclasses.replace(back.route, phase=Phase.OFF)
        members.forget(local, back.participant.id)
        proven = epochs.proof_of(local, "things")
        assert proven
        await back.participant.renew()
        assert mark(local) != proven
        assert epochs.proof_of(local, "things") == ""
        await back.participant._follow()
        assert back.route.dual_write
        assert epochs.proof_of(local, "things") == mark(local) != ""
        await back.participant.leave()


# --- one process, one record ---------------------------------------------------------------------------------------


async def test_whoever_enters_at_once_in_one_process_is_one_member(local: Records) -> None:
    process = Process(local, "a")
    await asyncio.gather(*(process.participant.join({"things": MONGO}) for _ in range(5)))
    assert [each.id for each in members.members(local)] == [process.participant.id]
    await process.participant.leave()
    assert members.members(local) == []


@pytest.mark.parametrize("again", [True, False])
async def test_one_who_did_not_wait_for_the_answer_leaves_no_record_behind(
    local: Records, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Its thread goes on, and registers later. Nobody would renew that record, of a process that lives."""
    process = Process(local, "a")
    write, register = members.note_journal, process.participant._register
    reached, go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def slow(records: Records, journal: str) -> None:
        reached.set()
        go_on.wait(30)
        write(records, journal)

    def registers(row: Member, *placed: Any, **options: Any) -> Any:
        try:
            return register(row, *placed, **options)
        finally:
            ended.append(row.id)

    process.participant._register = registers  # type: ignore[method-assign]
    monkeypatch.setattr(members, "note_journal", slow)
    entering = asyncio.create_task(process.participant.join({"things": MONGO}))
    await asyncio.to_thread(reached.wait, 30)
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)
    monkeypatch.setattr(members, "note_journal", write)
    if again:
        await process.participant.join({"things": MONGO})
    else:
        await process.participant.leave()
    go_on.set()
    await until(lambda: len(ended) == 1 + again)
    assert [each.id for each in members.members(local)] == ([process.participant.id] if again else [])
    await process.participant.leave()
    assert members.members(local) == []


# --- the record -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_", list(FlipState))
@pytest.mark.parametrize("to", list(FlipState))
def test_the_states_of_a_flip_move_as_the_table_says(from_: FlipState, to: FlipState) -> None:
    one = Flip("id", FlipKind.FLIP, from_, {"things": DYNAMO})
    if to in routing.MOVES[from_]:
        assert one.moved(to).state is to
    else:
        with pytest.raises(AssertionError):
            one.moved(to)


def test_the_record_comes_back_as_it_was_written(records: Records) -> None:
    dual = RouteRecord(DYNAMO, 3, 1.5, MONGO, spent=True, writing=WriteState.DUAL, dual=2, mark="an epoch")
    placed = {"a.b": dual, "c": RouteRecord(MONGO, completed=True, broken=2.0)}
    wanted = routing.Routing(
        placed, Flip("id", FlipKind.FLIP, FlipState.ANNOUNCED, {"a.b": MONGO}, "me", "why", "no"), fence=4
    )
    saved = routing.save(records, wanted)
    assert saved is not None
    assert routing.load(records) == saved
    assert routing.save(records, wanted) is None, "it has moved on"
