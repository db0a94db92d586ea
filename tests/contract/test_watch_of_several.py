"""The watch window of a flip of several collections, and the windows of collections that are flipped one after another:
which of them are taken back, by whom, and what an operator takes back meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from shadow.control import flip_record, guard_record, receipts
from shadow.control.flip_record import RouteRecord
from shadow.control.guard_record import RampState, WatchState, WatchWindow
from shadow.fleet.flip import check_unwatched
from shadow.jobs.target import JobRefused
from shadow.model.phase import StoreName
from tests.contract.test_ramp import Clock, Store
from tests.contract.test_watch import PLAN, Watcher, counted, flip, rounds, steps, window

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
NAMES: Final = ("orders", "users", "audit.log")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "control.db")
    known = dict.fromkeys(NAMES, RouteRecord(MONGO))
    flip_record.change(store, lambda seen: seen.with_placed(known))
    yield store
    store.close()


@pytest.fixture
def two(records: Store) -> tuple[Watcher, Watcher]:
    clock = Clock()
    return Watcher(records, "a", clock, NAMES), Watcher(records, "b", clock, NAMES)


def primaries(records: Store) -> dict[str, StoreName]:
    return {name: each.primary for name, each in flip_record.load(records).placed.items()}


def together(records: Store) -> None:
    flip(records, DYNAMO, watch=PLAN, of=NAMES)


@pytest.mark.parametrize(
    ("of", "guard", "odd"),
    [
        ("orders", "mismatches", {"differing": 20}),
        ("users", "errors", {"failed": 60}),
        ("audit.log", "slower", {"slow_reads": 60}),
    ],
)
async def test_one_that_is_wrong_among_others_that_are_well_takes_the_whole_flip_back_at_once(
    two: tuple[Watcher, Watcher], records: Store, of: str, guard: str, odd: dict[str, int]
) -> None:
    """With one flip, whose reason names the collection and the guard, and no other one."""
    together(records)
    a, b = two
    await rounds(4, a, b)
    await rounds(1, a, b, of=of, **odd)
    await rounds(3, a, b)
    assert primaries(records) == dict.fromkeys(NAMES, MONGO)
    assert (a.taken, b.taken) == ([[*NAMES]], [])
    assert window(records).state is WatchState.TAKEN_BACK
    broken, taken_back = (
        next(each for each in receipts.listed(records, "watch") if each["step"] == step)
        for step in ("broken", "taken_back")
    )
    for receipt in (broken, taken_back):
        assert receipt["reason"].startswith(f"{guard} of {of}: ")
        assert "; " not in receipt["reason"].replace("; writes: ", "")
        assert receipt["collections"] == [*NAMES]
        assert all(f"{name}: " in receipt["guards"][guard] for name in NAMES)
    for name in NAMES:
        assert counted(a, name) == {"opened": 1.0, "broken": 1.0, "taken_back": 1.0}
        assert counted(b, name) == {}
        assert guard_record.load(records).ramps[name].state is RampState.STOPPED


async def test_the_window_holds_when_each_guard_of_each_of_them_was_known_to(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    together(records)
    await rounds(24, *two)
    assert window(records).state is WatchState.HELD
    assert len(window(records).known) == 8 * len(NAMES)


async def test_while_one_of_them_is_reported_by_no_process_no_time_counts(records: Store) -> None:
    together(records)
    clock = Clock()
    await rounds(30, Watcher(records, "a", clock, NAMES[:2]), Watcher(records, "b", clock, NAMES[:2]))
    assert (window(records).state, window(records).watched, window(records).still) == (WatchState.WATCHING, 0.0, True)
    assert "processes of audit.log: " in window(records).waits
    assert "of orders" not in window(records).waits


async def test_who_takes_over_takes_back_all_of_them_once(two: tuple[Watcher, Watcher], records: Store) -> None:
    """The watcher has died before anything was wrong; the next one sees what is wrong with one of them."""
    together(records)
    a, b = two
    await rounds(8, a, b)
    before = window(records).watched
    records.delete("member/a")
    await rounds(3, b)
    assert guard_record.load(records).holder == "b"
    assert before <= window(records).watched
    await rounds(2, b, of="audit.log", differing=20)
    await rounds(2, b)
    assert primaries(records) == dict.fromkeys(NAMES, MONGO)
    assert (a.taken, b.taken) == ([], [[*NAMES]])
    assert window(records).reason.startswith("mismatches of audit.log")
    assert steps(records) == ["opened", "broken", "taken_back"]


async def test_one_that_is_taken_back_by_hand_leaves_the_window_and_the_others_stay_in_it(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    """What is wrong with it takes nothing back any more, and its silence keeps nothing open."""
    together(records)
    await rounds(4, *two)
    flip(records, MONGO, "by hand", of=["users"])
    await rounds(10, *two, of="users", failed=100, differing=100)
    assert primaries(records) == {"orders": DYNAMO, "users": MONGO, "audit.log": DYNAMO}
    assert window(records).state is WatchState.WATCHING
    assert two[0].guarding.watched() == {"orders": 1, "audit.log": 1}
    with pytest.raises(JobRefused, match="still watched"):
        check_unwatched(records, flip_record.load(records), ["orders"])
    check_unwatched(records, flip_record.load(records), ["users"])
    await rounds(12, *two)
    assert window(records).state is WatchState.HELD
    assert (two[0].taken, two[1].taken) == ([], [])


async def test_one_that_is_taken_back_by_hand_and_another_one_that_breaks_then(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    together(records)
    await rounds(4, *two)
    flip(records, MONGO, "by hand", of=["users"])
    await rounds(2, *two)
    await rounds(3, *two, of="orders", failed=60)
    assert primaries(records) == dict.fromkeys(NAMES, MONGO)
    assert two[0].taken == [["orders", "audit.log"]]
    assert window(records).state is WatchState.TAKEN_BACK


async def test_one_that_is_flipped_by_hand_between_the_decision_and_the_way_back(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    """The way back of all is not possible then, and that of the others is."""
    together(records)
    a, b = two
    await rounds(4, a, b)
    real = a.take_back

    def overtaken(window: WatchWindow, names: Sequence[str]) -> str:
        if "users" not in names:
            return real(window, names)
        a.taken.append(names)
        flip(records, MONGO, "by hand", of=["users"])
        return "users: flipped or completed meanwhile"

    a.goes_back = overtaken
    await rounds(1, a, b, of="orders", failed=60)
    await rounds(4, a, b)
    assert a.taken == [[*NAMES], ["orders", "audit.log"]]
    assert primaries(records) == dict.fromkeys(NAMES, MONGO)
    assert window(records).state is WatchState.TAKEN_BACK
    assert steps(records) == ["opened", "broken", "not_taken_back", "taken_back"]


async def test_of_collections_that_are_flipped_one_after_another_only_the_one_that_breaks_is_taken_back(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    for name in NAMES:
        flip(records, DYNAMO, f"flip of {name}", PLAN, of=[name])
        await rounds(3, *two)
    assert two[0].guarding.watched() == dict.fromkeys(NAMES, 1)
    await rounds(2, *two, of="users", differing=20)
    await rounds(2, *two)
    assert primaries(records) == {"orders": DYNAMO, "users": MONGO, "audit.log": DYNAMO}
    assert (two[0].taken, two[1].taken) == ([["users"]], [])
    watched = [window(records, f"flip of {name}").watched for name in NAMES]
    assert watched[0] > watched[2], "each has its own time"
    await rounds(24, *two)
    states = {name: window(records, f"flip of {name}").state for name in NAMES}
    assert states == {"orders": WatchState.HELD, "users": WatchState.TAKEN_BACK, "audit.log": WatchState.HELD}
    assert counted(two[0], "orders") == {"opened": 1.0, "ended": 1.0}


async def test_several_that_break_at_once_are_taken_back_one_after_another(
    two: tuple[Watcher, Watcher], records: Store
) -> None:
    """Also where the first of them cannot be: the second does not wait for it."""
    for name in NAMES:
        flip(records, DYNAMO, f"flip of {name}", PLAN, of=[name])
    a, b = two
    await rounds(4, a, b)
    real = a.take_back

    def refused(window: WatchWindow, names: Sequence[str]) -> str:
        if list(names) == ["orders"]:
            a.taken.append(names)
            return "gate journal of orders: 61 s"
        return real(window, names)

    a.goes_back = refused
    a.clock.at += 3.0
    for each in two:
        for name in ("orders", "users"):
            each.heartbeat(name, failed=100)
    for _ in range(4):
        await rounds(1, a, b)
    assert primaries(records) == {"orders": DYNAMO, "users": MONGO, "audit.log": DYNAMO}
    assert window(records, "flip of orders").waits == "gate journal of orders: 61 s"
    a.goes_back = a.take_back
    await rounds(20, a, b)
    assert primaries(records) == {"orders": MONGO, "users": MONGO, "audit.log": DYNAMO}
    assert a.taken.count(["users"]) == 1
    assert window(records, "flip of audit.log").state is not WatchState.TAKEN_BACK
