"""The watch window of a flip in the control store: who watches and takes back, and what a crash, a restart, a way back
that is not possible and an operator's order make of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.control import flip_record, guard_record, receipts
from shadow.control.flip_record import Flip, FlipKind, FlipState, RouteRecord
from shadow.control.guard_record import RampState, WatchState, WatchWindow
from shadow.control.members import Member
from shadow.errors import ControlError
from shadow.fleet.flip import check_unwatched
from shadow.fleet.watch_window import ended
from shadow.host.process import Owner, this_process
from shadow.jobs.target import JobRefused
from shadow.model.guards import GuardLimits, WatchPlan
from shadow.model.health import CollectionHealth, ComparisonHealth, SecondaryHealth
from shadow.model.phase import Phase, Route, StoreName
from tests.contract.test_ramp import ROUND, Clock, Process, Store
from tests.unit.test_watch_guards import traffic

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
PLAN: Final = WatchPlan(60.0, limits=GuardLimits(window=10_000.0, at_least=50))


def flip(
    records: Store, to: StoreName, id: str = "f", watch: WatchPlan | None = None, of: Sequence[str] = ("users",)
) -> None:
    """A flip as it is committed."""
    seen = flip_record.load(records)
    made = Flip(id, FlipKind.FLIP, FlipState.HOLDING, dict.fromkeys(of, to), by="me", watch=watch)
    placed = dict.fromkeys(of, RouteRecord(to.other)) | dict(seen.placed)
    committed = dataclasses.replace(seen, placed=placed, flip=made).committed(7.0, spent=True)
    assert flip_record.save(records, committed) is not None


class Watcher(Process):
    """A process that follows the routing record, and whose ways back the test makes or refuses."""

    def __init__(self, records: Store, name: str, clock: Clock, collections: Sequence[str] = ("users",)) -> None:
        super().__init__(records, name, clock, take_back=lambda *asked: self.goes_back(*asked), collections=collections)
        self.goes_back = self.take_back
        self.collections = collections
        self.tried: list[float] = []
        self.taken: list[Sequence[str]] = []
        """The collections of each attempt."""
        self.why_not = ""

    def take_back(self, window: WatchWindow, names: Sequence[str]) -> str:
        self.tried.append(self.clock.at)
        self.taken.append(names)
        if not self.why_not:
            flip(self.records, window.to.other, "back", of=names)
        return self.why_not

    def heartbeat(self, of: str = "users", **odd: int) -> None:
        """`odd`: what goes otherwise in the traffic of `of`."""
        if not self.records.down:
            self.routing = flip_record.load(self.records)
        figures: dict[str, CollectionHealth] = {}
        for name in self.collections:
            if name in self.routing.placed:
                placed = self.routing.placed[name]
                self.routes.set(name, Route(placed.primary, Phase.SHADOW, epoch=placed.epoch))
            traffic(self.metrics, name, **(odd if name == of else {}))
            figures[name] = CollectionHealth(
                secondary=SecondaryHealth(()),
                comparison=ComparisonHealth(True, True),
                guards=self.metrics.guards.of(name),
            )
        self.beat += 1
        owner = Owner(this_process().place, this_process().pid, this_process().started)
        row = Member(self.name, owner, "a journal", beat=self.beat, figures=figures)
        if not self.records.down:
            row.write(self.records)

    async def round(self, of: str = "users", **odd: int) -> None:
        self.heartbeat(of, **odd)
        await self.guarding.round()
        task = self.guarding._watching._task
        if task is not None:
            await task


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "control.db")
    flip(store, DYNAMO, watch=PLAN)
    yield store
    store.close()


@pytest.fixture
def two(records: Store, clock: Clock) -> tuple[Watcher, Watcher]:
    return Watcher(records, "a", clock), Watcher(records, "b", clock)


async def rounds(count: int, *processes: Watcher, of: str = "users", **odd: int) -> None:
    for _ in range(count):
        processes[0].clock.at += ROUND
        for each in processes:
            await each.round(of, **odd)


def window(records: Store, id: str = "f") -> WatchWindow:
    return guard_record.load(records).watches[id]


def steps(records: Store) -> list[str]:
    return [each["step"] for each in reversed(receipts.listed(records, "watch"))]


def counted(process: Process, of: str = "users") -> dict[str, float]:
    lines = process.metrics.render()[0].decode().splitlines()
    found = [line for line in lines if line.startswith(f'shadow_flip_watches_total{{collection="{of}"')]
    return {each.split('step="')[1].split('"')[0]: n for each in found if (n := float(each.rpartition(" ")[2]))}


async def test_while_every_guard_holds_the_window_runs_its_time_and_ends(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    with pytest.raises(JobRefused, match="its flip to dynamo is still watched"):
        check_unwatched(records, flip_record.load(records), ["users"])
    await rounds(20, *two)
    (shown,) = two[0].guarding.windows(two[0].routing)
    assert shown["state"] == "watching"
    assert 0 < shown["left_seconds"] < 60
    assert two[0].guarding.watched() == two[1].guarding.watched() == {"users": 1}
    assert {"errors", "slower", "mismatches", "throttled"} <= shown["guards"].keys()
    await rounds(6, *two)
    assert window(records).state is WatchState.HELD
    assert 60 <= window(records).watched <= 60 + ROUND
    assert steps(records) == ["opened", "ended"]
    assert counted(two[0]) == {"opened": 1.0, "ended": 1.0}, "one decides, and reports it once"
    assert counted(two[1]) == {}
    assert two[0].guarding.watched() == two[1].guarding.watched() == {}
    check_unwatched(records, flip_record.load(records), ["users"])
    before = guard_record.load(records)
    await rounds(5, *two, failed=90)
    assert guard_record.load(records) == before
    assert two[0].metrics.guards.of("users") is None, "nothing is counted any more"


async def test_a_broken_guard_in_one_process_takes_the_flip_back_once_and_keeps_its_ramp_from_going_on(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    a, b = two
    await rounds(4, a, b)
    a.clock.at += ROUND
    await b.round(failed=60)
    await a.round()
    assert flip_record.load(records).placed["users"].primary is MONGO
    await rounds(30, a, b)
    assert (window(records).state, a.tried, len(b.tried)) == (WatchState.TAKEN_BACK, a.tried[:1], 0)
    assert steps(records) == ["opened", "broken", "taken_back"]
    receipt = receipts.listed(records, "watch")[0]
    assert "requests failed" in receipt["guards"]["errors"]
    assert "errors of users" in receipt["reason"]
    ramp = guard_record.load(records).ramps["users"]
    assert (ramp.share, ramp.state, a.share) == (0.0, RampState.STOPPED, 0.0)
    assert "taken back" in ramp.waits


async def test_the_watcher_is_killed_between_its_decision_and_the_way_back(
    two: tuple[Watcher, Watcher], records: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    await rounds(4, a, b)
    monkeypatch.setattr(a.guarding, "_tell", _die)
    a.clock.at += ROUND
    await b.round(failed=60)
    with pytest.raises(_Killed):
        await a.round()
    assert window(records).state is WatchState.GOING_BACK
    assert (flip_record.load(records).placed["users"].primary, a.tried) == (DYNAMO, [])
    records.delete("member/a")
    await rounds(4, b)
    assert flip_record.load(records).placed["users"].primary is MONGO
    assert (len(b.tried), window(records).state) == (1, WatchState.TAKEN_BACK)
    assert steps(records) == ["opened", "broken", "taken_back"]
    assert counted(b) == {"broken": 1.0, "taken_back": 1.0}


class _Killed(Exception):
    pass


async def _die(moves: Any) -> None:
    raise _Killed


async def test_the_watcher_is_killed_between_the_way_back_and_its_report(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    a, b = two
    await rounds(4, a, b)
    a.clock.at += ROUND
    await b.round(failed=60)
    await a.round()
    assert flip_record.load(records).placed["users"].primary is MONGO
    assert steps(records) == ["opened", "broken"]
    records.delete("member/a")
    await rounds(4, b)
    # What was reported last may come twice then.
    assert (len(b.tried), [*dict.fromkeys(steps(records))]) == (0, ["opened", "broken", "taken_back"])


async def test_two_watchers_decide_once(two: tuple[Watcher, Watcher], records: Store, clock: Clock) -> None:
    """One takes over between what the other reads and writes; what that one decides is not written."""
    a, b = two
    await rounds(4, a, b)
    clock.at += ROUND
    b.heartbeat(failed=60)
    a.heartbeat()

    def take_over() -> None:
        guard_record.change(records, lambda seen: dataclasses.replace(seen, holder="b", beat=seen.beat + 1))

    records.before_put = take_over
    await a.guarding.round()
    assert (window(records).state, a.tried) == (WatchState.WATCHING, [])
    await rounds(3, b, a)
    assert (a.tried, len(b.tried)) == ([], 1)
    assert steps(records) == ["opened", "broken", "taken_back"]


async def test_a_way_back_that_is_not_possible_is_told_and_tried_again_with_growing_pauses(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    a, b = two
    a.why_not = "gate secondary of users: mongo is down for 5 s"
    await rounds(4, a, b)
    await rounds(1, a, b, failed=60)
    await rounds(40, a, b)
    assert window(records).state is WatchState.GOING_BACK
    assert window(records).waits == a.why_not
    assert b.guarding.watched() == {"users": 3}
    pauses = [later - earlier for earlier, later in zip(a.tried, a.tried[1:], strict=False)]
    assert len(pauses) >= 3
    assert pauses == sorted(pauses)
    assert pauses[-1] > 30
    assert steps(records) == ["opened", "broken", "not_taken_back"], "told once"
    assert counted(a)["not_taken_back"] == 1.0
    with pytest.raises(JobRefused, match="going_back"):
        check_unwatched(records, flip_record.load(records), ["users"])
    a.why_not = ""
    await rounds(40, a, b)
    assert window(records).state is WatchState.TAKEN_BACK
    # A second process would have begun at once: the pauses are of the one that tries.
    assert steps(records)[-1] == "taken_back"


async def test_after_a_restart_of_all_the_window_goes_on_and_time_without_processes_does_not_count(
    two: tuple[Watcher, Watcher], records: Store, clock: Clock
) -> None:
    await rounds(14, *two)
    before = window(records).watched
    assert 20 < before < 60
    for name in ("a", "b"):
        records.delete(f"member/{name}")
    clock.at = 7.0  # another boot
    again = Watcher(records, "c", clock)
    await rounds(3, again)
    assert before <= window(records).watched <= before + 2 * ROUND
    await rounds(20, again)
    assert window(records).state is WatchState.HELD
    assert steps(records) == ["opened", "ended"]


async def test_a_flip_by_hand_ends_the_window_and_an_operator_may_end_it(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    await rounds(4, *two)
    flip(records, MONGO, "by hand")
    await rounds(3, *two, failed=90)
    assert window(records).state is WatchState.ENDED
    assert window(records).reason == "flipped or completed by me"
    assert (two[0].tried, two[1].tried) == ([], [])
    flip(records, DYNAMO, "again", PLAN)
    await rounds(4, *two)
    assert window(records, "again").state is WatchState.WATCHING
    guard_record.change(
        records,
        lambda seen: seen.with_watch(*ended(seen.watches["again"], WatchState.ENDED, "enough", 9.0)),
    )
    await rounds(4, *two, failed=90)
    assert (window(records, "again").state, two[0].tried) == (WatchState.ENDED, [])
    assert flip_record.load(records).placed["users"].primary is DYNAMO
    assert steps(records) == ["opened", "ended", "opened", "ended"]


async def test_where_it_is_only_told_the_flip_stays(two: tuple[Watcher, Watcher], records: Store) -> None:
    flip(records, MONGO, "by hand")
    flip(records, DYNAMO, "told", dataclasses.replace(PLAN, take_back=False))
    await rounds(4, *two)
    await rounds(40, *two, failed=60)
    assert window(records, "told").state is WatchState.UNPROVEN
    assert (two[0].tried, flip_record.load(records).placed["users"].primary) == ([], DYNAMO)
    assert steps(records) == ["opened", "broken", "ended"]


async def test_without_the_control_store_nothing_is_taken_back_and_then_it_is(
    two: tuple[Watcher, Watcher], records: Store, clock: Clock
) -> None:
    await rounds(4, *two)
    records.down = True
    for _ in range(40):
        clock.at += ROUND
        for each in two:
            traffic(each.metrics, failed=60)
            await each.guarding.round()
    records.down = False
    assert window(records).watched < 30, "nobody watched that time"
    await rounds(3, *two)
    assert window(records).state is WatchState.TAKEN_BACK


async def test_an_error_of_the_control_store_on_the_way_back_is_a_reason_to_try_again(
    two: tuple[Watcher, Watcher], records: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    answers: list[Exception] = [ControlError("out of reach"), ValueError("a fault of ours")]

    def take_back(window: WatchWindow, names: Sequence[str]) -> str:
        if answers:
            raise answers.pop(0)
        return a.take_back(window, names)

    for each in two:
        monkeypatch.setattr(
            each.guarding._watching, "_context", dataclasses.replace(each.guarding._context, take_back=take_back)
        )
    await rounds(4, a, b)
    await rounds(20, a, b, failed=60)
    assert (window(records).state, answers) == (WatchState.TAKEN_BACK, [])
    told = [each["said"] for each in reversed(receipts.listed(records, "watch")) if each["step"] == "not_taken_back"]
    assert told == ["out of reach", "ValueError"]
