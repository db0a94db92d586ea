"""Routes: no write sees two of them, and a change holds the writes of its own collection only, for a bounded time."""

from __future__ import annotations

import asyncio
import math

import pytest
from pymongo.errors import DuplicateKeyError, NetworkTimeout

from shadow.model.phase import Phase, Route, StoreName
from shadow.routes import routes as routes_module
from shadow.routes.routes import Learn, Routes, RouteSource

HERE = Route(StoreName.MONGO, Phase.SHADOW)
THERE = Route(StoreName.DYNAMO, Phase.SHADOW)


def routes() -> tuple[Routes, list[tuple[str, int]], list[str]]:
    changes: list[tuple[str, int]] = []
    unknown: list[str] = []
    made = Routes(
        {"a": HERE, "b": HERE},
        on_change=lambda name, route: changes.append((name, route.epoch)),
        on_unknown=unknown.append,
    )
    return made, changes, unknown


def test_every_route_is_announced_and_epochs_rise() -> None:
    made, changes, _ = routes()
    made.set("a", THERE)
    assert changes == [("a", 1), ("b", 1), ("a", 2)]
    assert made["a"].epoch == 2
    assert made["a"].primary is StoreName.DYNAMO


def test_a_collection_without_a_route_stays_on_mongodb_alone_and_is_named_once() -> None:
    made, _, unknown = routes()
    assert (made["c"].primary, made["c"].dual_write) == (StoreName.MONGO, False)
    assert made["c"] is made["c"]
    assert unknown == ["c"]


async def test_a_change_waits_for_the_writes_inside_and_holds_those_that_come() -> None:
    made, _, _ = routes()
    inside, leave = asyncio.Event(), asyncio.Event()
    seen: list[Route] = []

    async def first() -> None:
        async with made.writing("a") as route:
            inside.set()
            await leave.wait()
            seen.append(route)
            assert made["a"] == route, "the route stays in force until the write has ended"

    async def second() -> None:
        async with made.writing("a") as route:
            seen.append(route)

    async def change() -> None:
        async with made.held("a", 5):
            assert len(seen) == 1, "the write inside has ended"
            made.set("a", THERE)

    tasks = [asyncio.create_task(first())]
    await inside.wait()
    tasks.append(asyncio.create_task(change()))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(second()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == []
    leave.set()
    await asyncio.gather(*tasks)
    assert [route.primary for route in seen] == [StoreName.MONGO, StoreName.DYNAMO]


async def test_a_change_of_one_collection_does_not_hold_another() -> None:
    made, _, _ = routes()
    async with made.held("a", 5), asyncio.timeout(30), made.writing("b"):
        pass


async def test_a_write_that_does_not_end_makes_the_change_give_up_and_the_others_go_on() -> None:
    made, _, _ = routes()
    inside, leave = asyncio.Event(), asyncio.Event()

    async def stuck() -> None:
        async with made.writing("a"):
            inside.set()
            await leave.wait()

    task = asyncio.create_task(stuck())
    await inside.wait()
    with pytest.raises(TimeoutError):
        async with made.held("a", 0.01):
            pytest.fail("held although a write was inside")
    async with asyncio.timeout(30), made.writing("a"):
        pass
    leave.set()
    await task


async def test_a_write_that_fails_or_is_cancelled_leaves_the_gate() -> None:
    made, _, _ = routes()
    with pytest.raises(ValueError):
        async with made.writing("a"):
            raise ValueError
    inside = asyncio.Event()

    async def cancelled() -> None:
        async with made.writing("a"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(cancelled())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(30), made.held("a", 1):
        pass


async def test_two_changes_of_one_collection_come_one_after_the_other() -> None:
    made, changes, _ = routes()
    now = 0

    async def change() -> None:
        nonlocal now
        async with made.held("a", 5):
            now += 1
            assert now == 1
            await asyncio.sleep(0)
            made.set("a", THERE)
            now -= 1

    await asyncio.gather(*(change() for _ in range(5)))
    assert len(changes) == 2 + 5


# --- the lease, and bare writes -------------------------------------------------------------------------------------

ALONE = Route(StoreName.MONGO, Phase.OFF)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(routes_module, "steady", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def alone(learn: Learn | None = None, **routes: Route) -> Routes:
    return Routes(
        {"a": ALONE, **routes},
        on_change=lambda *_: None,
        on_unknown=lambda _: None,
        source=None if learn is None else RouteSource(learn),
        in_flight_timeout=5.0,
    )


async def bare(made: Routes, collection: str = "a") -> bool:
    async with made.writing(collection) as route:
        return route.bare


async def test_a_write_is_bare_only_within_a_lease_that_says_so(clock: Clock) -> None:
    made = alone(b=HERE, c=Route(StoreName.DYNAMO, Phase.OFF))
    assert not await bare(made), "nobody has said that no process writes both"
    made.lease(110.0, versioned={"d"}, stamped={"d", "e"})
    assert [await bare(made, name) for name in "abcde"] == [True, False, False, False, True]
    async with made.writing("e") as route:
        assert route.stamps
    async with made.writing("a") as route:
        assert not route.stamps
    assert [made.plain(name) for name in "ade"] == [True, False, False]
    clock.now = 110.0
    assert not await bare(made)
    assert not made.plain("a")
    assert made["a"].phase is Phase.OFF, "what is in force says nothing of it"


async def test_a_lease_that_has_run_out_is_renewed_once_before_the_next_write_and_not_for_a_read(clock: Clock) -> None:
    asked = 0

    async def renew(*, writing: bool) -> None:
        nonlocal asked
        asked += 1
        made.known = True
        made.lease(clock.now + 1, versioned=(), stamped=())

    made = alone(renew)
    assert await bare(made)
    assert await bare(made)
    assert asked == 1
    clock.now += 60
    assert (await made.route("a")).phase is Phase.OFF
    assert asked == 1
    assert await bare(made)
    assert asked == 2


async def test_a_lease_that_cannot_be_renewed_stops_no_write_and_none_is_bare(clock: Clock) -> None:
    async def unreachable(*, writing: bool) -> None:
        made.known = True

    made = alone(unreachable)
    made.lease(101.0, versioned=(), stamped=())
    assert await bare(made)
    clock.now = 102.0
    assert not await bare(made)


async def test_a_write_that_was_held_longer_than_its_lease_asks_again(clock: Clock) -> None:
    seen: list[bool] = []

    async def renew(*, writing: bool) -> None:
        made.known = True
        made.lease(math.inf, versioned={"a"}, stamped={"a"})

    made = alone(renew)
    made.lease(101.0, versioned=(), stamped=())
    made.known = True

    async def write() -> None:
        async with made.writing("a") as route:
            seen.append(route.bare)

    async with made.held("a", 5):
        task = asyncio.create_task(write())
        await asyncio.sleep(0)
        clock.now = 102.0
    await task
    assert seen == [False]


async def test_bare_writes_are_waited_for_and_those_of_unknown_outcome_until_they_cannot_arrive(clock: Clock) -> None:
    made = alone()
    made.lease(math.inf, versioned=(), stamped=())
    async with made.writing("a"):
        assert not made.drained(["a", "b"])
        assert made.drained(["b"])
    assert made.drained(["a"])
    with pytest.raises(DuplicateKeyError):
        async with made.writing("a"):
            raise DuplicateKeyError("refused", 11000)
    assert made.drained(["a"])
    for lost in (NetworkTimeout("no answer"), asyncio.CancelledError()):
        with pytest.raises(type(lost)):
            async with made.writing("a"):
                raise lost
        assert not made.drained(["a"])
        clock.now += 5
        assert made.drained(["a"])


async def test_versioned_writes_are_not_counted_as_bare() -> None:
    made = alone(b=HERE)
    made.lease(math.inf, versioned={"a"}, stamped=())
    async with made.writing("a"), made.writing("b"):
        assert made.drained(["a", "b"])


async def test_a_versioned_write_to_one_store_alone_may_still_arrive_if_it_had_no_answer(clock: Clock) -> None:
    """No intent stands for it, as one does for a write to both. Nobody waits for it who only waits for bare writes."""
    made = alone(b=HERE)
    made.lease(math.inf, versioned={"a"}, stamped=())
    for name in ("a", "b"):
        with pytest.raises(NetworkTimeout):
            async with made.writing(name):
                raise NetworkTimeout("no answer")
    with pytest.raises(DuplicateKeyError):
        async with made.writing("c"):
            raise DuplicateKeyError("refused", 11000)
    assert made.drained(["a", "b", "c"])
    assert not made.arrived(["a"])
    assert made.arrived(["b", "c"])
    clock.now += 5
    assert made.arrived(["a"])
