"""One ramp for all processes: the record in the control store, who decides, and what a crash, a suspended host, a
restart and a control store that does not answer make of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.control import guard_record, receipts
from shadow.control.flip_record import Routing
from shadow.control.guard_record import RampState
from shadow.control.members import Member
from shadow.control.records import Record, Value
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError
from shadow.fleet.guard_context import GuardContext, TakeBack
from shadow.fleet.guarding import Guarding
from shadow.fleet.health_gates import Gate
from shadow.hooks.hooks import NO_HOOKS, Hooks
from shadow.hooks.sending import Attempt
from shadow.host.process import Owner, this_process
from shadow.model.events import Event, ReadRouted, RouteChanged
from shadow.model.guards import GuardLimits, RampPlan
from shadow.model.health import CollectionHealth, ComparisonHealth, SecondaryHealth
from shadow.model.hooks import Hook, HookEvent
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Routed
from shadow.observe.metrics import Metrics
from shadow.routes.routes import Routes
from tests.unit.test_guards import traffic

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
PLAN: Final = RampPlan((0.01, 0.05, 0.5), every=60.0, limits=GuardLimits(window=10_000.0))
ROUND: Final = 3.0


class Clock:
    """One for all processes of a test, and it stands still unless the test moves it."""

    def __init__(self) -> None:
        self.at = 5000.0

    def __call__(self) -> float:
        return self.at


class Store(SqliteRecords):
    """A control store that can be out of reach, and that calls a test between what a process reads and writes."""

    down = False
    before_put: Callable[[], None] | None = None

    def get(self, key: str) -> Record | None:
        if self.down:
            raise ControlError("out of reach")
        return super().get(key)

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        if self.down:
            raise ControlError("out of reach")
        meanwhile, self.before_put = self.before_put, None
        if meanwhile is not None and key == guard_record.KEY:
            meanwhile()
        return super().put(key, value, expected=expected)


class Process:
    """A process of the application as the control store sees it, with the product's own part that guards."""

    def __init__(
        self,
        records: Store,
        name: str,
        clock: Clock,
        plan: RampPlan = PLAN,
        hooks: Hooks = NO_HOOKS,
        take_back: TakeBack = lambda window, names: "not in this test",
        collections: Sequence[str] = ("users",),
    ) -> None:
        self.closed: list[str] = []
        self.routing = Routing()
        self.records = records
        self.clock = clock
        self.name = name
        self.beat = 0
        self.events: list[Any] = []
        self.metrics = Metrics(collections)
        self.routes = Routes(
            dict.fromkeys(collections, Route(MONGO, Phase.SHADOW)),
            on_change=lambda name, route: self.publish(RouteChanged(name, route)),
            on_unknown=lambda name: None,
        )
        self.guarding = Guarding(
            GuardContext(
                records,
                lambda: name,
                self.routes,
                self.metrics.guards,
                self,
                heartbeat=ROUND / 3,
                hooks=hooks,
                gates=lambda rows: [Gate("users", name, name not in self.closed, "a figure") for name in "abc"],
                clock=clock,
                routing=lambda: self.routing,
                take_back=take_back,
            ),
            {each: {DYNAMO: plan} for each in collections},
        )

    def publish(self, event: Event) -> None:
        self.events.append(event)
        self.metrics.count(event)

    @property
    def share(self) -> float:
        return self.routes["users"].secondary_reads

    def heartbeat(self, **odd: int) -> None:
        """Some traffic, and its figures in this process's row."""
        traffic(self.metrics, **odd)
        self.beat += 1
        health = CollectionHealth(
            secondary=SecondaryHealth(()),
            comparison=ComparisonHealth(True, True),
            guards=self.metrics.guards.of("users"),
        )
        owner = Owner(this_process().place, this_process().pid, this_process().started)
        Member(self.name, owner, "a journal", beat=self.beat, figures={"users": health}).write(self.records)

    async def round(self, **odd: int) -> None:
        self.heartbeat(**odd)
        await self.guarding.round()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "control.db")
    yield store
    store.close()


@pytest.fixture
def two(records: Store, clock: Clock) -> tuple[Process, Process]:
    return Process(records, "a", clock), Process(records, "b", clock)


async def rounds(count: int, *processes: Process, seconds: float = ROUND, **odd: int) -> None:
    for _ in range(count):
        processes[0].clock.at += seconds
        for each in processes:
            await each.round(**odd)


def steps(records: Store) -> list[tuple[float, float]]:
    found = reversed(receipts.listed(records, "ramp"))
    return [(each["share_before"], each["share"]) for each in found]


def moved(process: Process) -> dict[str, float]:
    text = process.metrics.render()[0].decode().splitlines()
    lines = [line for line in text if line.startswith('shadow_ramp_steps_total{collection="users"')]
    return {line.split('direction="')[1].split('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_all_processes_have_one_share_that_rises_while_the_guards_hold(
    two: tuple[Process, Process], records: Store
) -> None:
    seen = []
    for _ in range(60):
        await rounds(1, *two)
        seen.append(guard_record.load(records).ramps.get("users"))
        if seen[-1] is not None and seen[-1].state is RampState.DONE:
            break
    await rounds(1, *two)
    assert {each.share for each in two} == {0.5}
    assert steps(records) == [(0.0, 0.01), (0.01, 0.05), (0.05, 0.5)]
    held = [each["guards_held_seconds"] for each in receipts.listed(records, "ramp")][:2]
    assert all(60.0 <= seconds <= 60.0 + ROUND for seconds in held), held
    assert moved(two[0]) == {"on": 3.0, "back": 0.0}, "one decides, and reports it once"
    assert moved(two[1]) == {"on": 0.0, "back": 0.0}
    assert 'shadow_secondary_reads_share{collection="users"} 0.5' in two[1].metrics.render()[0].decode()


async def test_a_broken_guard_in_one_process_takes_the_share_of_all_back(
    two: tuple[Process, Process], records: Store
) -> None:
    await rounds(26, *two)
    assert two[0].share == 0.05
    two[0].clock.at += ROUND
    await two[1].round(failed=40)
    await two[0].round()
    await rounds(1, *two)
    assert {each.share for each in two} == {0.0}
    assert steps(records)[-1] == (0.05, 0.0)
    receipt = receipts.listed(records, "ramp")[0]
    assert "routed reads failed" in receipt["guards"]["errors"]
    assert "errors" in receipt["reason"]
    await rounds(60, *two)
    assert {each.share for each in two} == {0.0}, "it waits for somebody to resume it"
    said = [each.fields["reason"] for each in two[0].events if getattr(each, "name", "") == "ramp.stepped_back"]
    assert len(said) == 1


async def test_two_processes_cannot_step_at_once(two: tuple[Process, Process], records: Store, clock: Clock) -> None:
    """Both read the same record and figures, one of them writes between what the other reads and writes."""
    a, b = two
    await rounds(22, a, b)
    before = guard_record.load(records)
    assert before.holder == "a"
    assert before.ramps["users"].share == 0.01
    assert 50 < before.ramps["users"].held < 60
    clock.at += 10.0
    a.heartbeat()
    b.heartbeat()
    taken: list[Any] = []

    def take_over_and_step() -> None:
        mine = guard_record.change(records, lambda seen: _held_by(seen, "b"))
        taken.append(mine)

    records.before_put = take_over_and_step
    await a.guarding.round()
    assert taken
    now = guard_record.load(records)
    assert now == taken[0], "what a has decided from what it had read is not written"
    assert steps(records) == [(0.0, 0.01)]


def _held_by(seen: Any, holder: str) -> Any:
    return dataclasses.replace(seen, holder=holder, beat=seen.beat + 1)


async def test_another_process_takes_over_from_one_that_is_silent_and_not_from_one_that_lives(
    two: tuple[Process, Process], records: Store, clock: Clock
) -> None:
    a, b = two
    await rounds(30, a, b)
    assert guard_record.load(records).holder == "a"
    for number in range(12):
        clock.at += ROUND
        a.heartbeat()  # it lives, but does not decide any more
        await b.round()
        assert guard_record.load(records).holder == ("a" if number < 5 else "b"), number
    assert b.share == 0.05
    await rounds(30, b, a)
    assert {a.share, b.share} == {0.5}
    assert guard_record.load(records).holder == "b", "it stays with who has it"


async def test_the_record_of_a_process_that_is_gone_is_taken_at_once(
    two: tuple[Process, Process], records: Store
) -> None:
    a, b = two
    await rounds(5, a, b)
    records.delete("member/a")
    await rounds(1, b)
    assert guard_record.load(records).holder == "b"


async def test_what_was_decided_and_not_reported_is_reported_by_the_next_one(
    two: tuple[Process, Process], records: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that decides dies after the decision and before its receipt."""
    a, b = two
    died: list[Any] = []

    async def die(moves: Any) -> None:
        died.extend(moves)

    monkeypatch.setattr(a.guarding, "_tell", die)
    await rounds(4, a, b)
    assert died
    assert receipts.listed(records, "ramp") == []
    records.delete("member/a")
    await rounds(3, b)
    assert steps(records) == [(0.0, 0.01)]
    assert moved(b)["on"] == 1.0
    assert guard_record.load(records).moves == ()


async def test_a_suspended_host_decides_nothing_from_what_it_had_read(
    two: tuple[Process, Process], records: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = two
    await rounds(22, a)
    before = guard_record.load(records)
    decide = a.guarding._decide

    def suspended(*given: Any) -> Any:
        clock.at += 3600.0
        return decide(*given)

    monkeypatch.setattr(a.guarding, "_decide", suspended)
    clock.at += 20.0
    await a.round()
    assert guard_record.load(records) == before
    monkeypatch.undo()
    clock.at += ROUND
    await a.round()
    assert guard_record.load(records).ramps["users"].held == before.ramps["users"].held, "nobody watched that time"


async def test_after_a_restart_of_all_it_continues_where_it_was(
    two: tuple[Process, Process], records: Store, clock: Clock
) -> None:
    await rounds(30, *two)
    held = guard_record.load(records).ramps["users"]
    assert held.share == 0.05
    for name in ("a", "b"):
        records.delete(f"member/{name}")
    clock.at = 7.0  # another boot
    again = Process(records, "c", clock)
    assert again.share == 0.0, "until it has read the record, the primary answers"
    await rounds(3, again)
    assert again.share == 0.05
    now = guard_record.load(records).ramps["users"]
    assert held.held <= now.held <= held.held + 2 * ROUND
    assert steps(records)[-1] == (0.01, 0.05)


async def test_without_the_control_store_nothing_steps_on_and_a_broken_guard_is_answered_alone(
    two: tuple[Process, Process], records: Store, clock: Clock
) -> None:
    a, b = two
    await rounds(26, a, b)
    records.down = True
    for _ in range(40):
        clock.at += ROUND
        for each in two:
            traffic(each.metrics)
            await each.guarding.round()
    assert {a.share, b.share} == {0.05}, "held"
    for _ in range(60):
        a.publish(ReadRouted("users", MONGO, Routed.ERROR, 0.1))
    traffic(a.metrics, failed=100)
    for each in two:
        await each.guarding.round()
    assert (a.share, b.share) == (0.0, 0.05)
    records.down = False
    await rounds(3, a, b)
    assert {a.share, b.share} == {0.0}, "and then for all"
    assert len(steps(records)) == 3


async def test_a_silent_process_and_another_plan_make_it_wait(records: Store, clock: Clock) -> None:
    a, b = Process(records, "a", clock), Process(records, "b", clock)
    await rounds(5, a, b)
    for _ in range(40):
        clock.at += ROUND
        await a.round()  # b's row stays as it was
    ramp = guard_record.load(records).ramps["users"]
    assert ramp.share == 0.01
    assert "not heard of lately" in ramp.waits
    records.delete("member/b")
    other = Process(records, "c", clock, RampPlan((0.5,), every=1.0))
    await rounds(40, a, other)
    ramp = guard_record.load(records).ramps["users"]
    assert ramp.share == 0.01
    assert "different ramps" in ramp.waits


async def test_a_file_that_is_read_again_does_not_touch_the_share_and_one_without_a_ramp_ends_it(
    two: tuple[Process, Process], records: Store
) -> None:
    await rounds(5, *two)
    a, b = two
    assert a.guarding.applied("users", Route(MONGO, Phase.SHADOW)).secondary_reads == 0.01
    for each in two:
        each.guarding.plans = {}
        each.routes.set("users", Route(MONGO, Phase.SHADOW))
    await rounds(3, a, b)
    assert guard_record.load(records).ramps == {}
    assert a.guarding.applied("users", Route(MONGO, Phase.SHADOW)).secondary_reads == 0.0
    assert await asyncio.to_thread(a.guarding.described) == []


async def test_the_primary_of_a_ramp_has_no_ramp_and_after_the_way_back_it_begins_again(
    two: tuple[Process, Process], records: Store
) -> None:
    await rounds(30, *two)
    assert two[0].share == 0.05
    for each in two:
        each.routes.set("users", Route(DYNAMO, Phase.SHADOW, reads=each.routes["users"].reads))
    await rounds(4, *two)
    assert guard_record.load(records).ramps == {}
    assert {each.share for each in two} == {0.0}
    for each in two:
        each.routes.set("users", Route(MONGO, Phase.SHADOW, reads=each.routes["users"].reads))
    assert {each.share for each in two} == {0.0}
    await rounds(3, *two)
    assert {each.share for each in two} == {0.01}


async def test_hooks_are_called_for_each_step_and_for_a_gate_that_closes_by_one_process(
    records: Store, clock: Clock
) -> None:
    got: list[dict[str, Any]] = []

    def sent(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
        got.append(json.loads(body))
        return Attempt(True, True)

    hooks = Hooks([Hook("w", frozenset(HookEvent), command=("x",))], sent=sent)
    a, b = Process(records, "a", clock, hooks=hooks), Process(records, "b", clock, hooks=hooks)
    a.closed = b.closed = ["a"]
    await rounds(4, a, b)
    assert hooks.finish(60)
    assert [(each["event"], each["share"]) for each in got] == [("ramp_stepped", 0.01)]
    a.closed = b.closed = ["a", "c"]
    await rounds(6, a, b)
    a.closed = b.closed = []
    await rounds(6, a, b)
    records.delete("member/a")  # b takes over and knows which gates were open
    b.closed = ["b"]
    await rounds(8, b, failed=50)
    assert hooks.finish(60)
    events = [(each["event"], each.get("gate", "")) for each in got[1:]]
    assert events == [("gate_closed", "c"), ("ramp_stepped_back", ""), ("gate_closed", "b")]
    (back,) = [each for each in got if each["event"] == "ramp_stepped_back"]
    assert back["share"] == 0.0
    assert "errors" in back["guards"]
    assert len({each["id"] for each in got}) == len(got)
