"""Routes: no write sees two of them, and a change holds the writes of its own collection only, for a bounded time."""

from __future__ import annotations

import asyncio

import pytest

from shadow.model.phase import Phase, Route, StoreName
from shadow.replicate.routes import Routes

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
    async with made.held("a", 5), asyncio.timeout(1), made.writing("b"):
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
    async with asyncio.timeout(1), made.writing("a"):
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
    async with asyncio.timeout(1), made.held("a", 1):
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
