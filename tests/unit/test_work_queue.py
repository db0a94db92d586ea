"""The lane keeps the order of each key, its bound, and its promises at the end."""

from __future__ import annotations

import asyncio

from shadow.stores.breaker import Breaker
from shadow.writes.work_queue import WorkQueue


def lane(workers: int = 4, capacity: int = 100) -> tuple[WorkQueue, list[BaseException]]:
    errors: list[BaseException] = []
    return WorkQueue(workers=workers, capacity=capacity, on_error=errors.append), errors


async def test_jobs_of_one_key_run_in_order_and_one_at_a_time() -> None:
    under_test, _ = lane()
    seen, running = [], 0

    def job(number: int):
        async def run() -> None:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            seen.append(number)
            running -= 1

        return run

    for number in range(50):
        assert under_test.offer("c", "key", job(number))
    assert await under_test.drain(30)
    assert seen == list(range(50))


async def test_a_stuck_key_does_not_hold_up_another() -> None:
    under_test, _ = lane(workers=2)
    gate, other = asyncio.Event(), asyncio.Event()

    async def stuck() -> None:
        await gate.wait()

    async def free() -> None:
        other.set()

    under_test.offer("c", "a", stuck)
    under_test.offer("c", "b", free)
    async with asyncio.timeout(30):
        await other.wait()
    assert under_test.depth == 1
    gate.set()
    assert await under_test.drain(30)


async def test_a_full_lane_refuses_and_takes_again_when_there_is_room() -> None:
    under_test, _ = lane(workers=1, capacity=2)
    gate = asyncio.Event()

    async def job() -> None:
        await gate.wait()

    assert under_test.offer("c", 1, job)
    assert under_test.offer("c", 2, job)
    assert not under_test.offer("c", 3, job)
    gate.set()
    assert await under_test.drain(30)
    assert under_test.offer("c", 3, job)
    assert await under_test.drain(30)


async def test_what_goes_on_comes_before_what_begins_and_is_taken_where_that_is_not() -> None:
    under_test, _ = lane(workers=1, capacity=3)
    started, gate, seen = asyncio.Event(), asyncio.Event(), list[str]()

    def job(name: str):
        async def run() -> None:
            started.set()
            await gate.wait()
            seen.append(name)

        return run

    for name in ("running", "new 1", "new 2"):
        assert under_test.offer("c", name, job(name))
    await started.wait()
    assert not under_test.offer("c", "new 3", job("new 3"))
    for name in ("begun 1", "begun 2", "begun 3"):
        assert under_test.offer("c", name, job(name), ahead=True)
    assert not under_test.offer("c", "begun 4", job("begun 4"), ahead=True)
    gate.set()
    assert await under_test.drain(30)
    assert seen == ["running", "begun 1", "begun 2", "begun 3", "new 1", "new 2"]
    under_test.capacity = 0
    assert not under_test.offer("c", "begun 5", job("begun 5"), ahead=True)


async def test_a_paused_lane_takes_jobs_and_begins_none_until_the_last_pause_has_ended() -> None:
    under_test, _ = lane(workers=2)
    done: list[int] = []

    def job(number: int):
        async def run() -> None:
            done.append(number)

        return run

    with under_test.paused():
        assert under_test.offer("c", 1, job(1))
        with under_test.paused():
            assert under_test.offer("c", 2, job(2))
        assert not await under_test.drain(0.05)
        assert done == []
    assert under_test.offer("c", 3, job(3))
    assert await under_test.drain(30)
    assert sorted(done) == [1, 2, 3]
    with under_test.paused():
        assert under_test.offer("c", 4, job(4))
        assert not await under_test.close(0)
    assert 4 not in done


async def test_an_error_ends_one_job_only_and_is_reported() -> None:
    under_test, errors = lane(workers=1)
    done = []

    async def bad() -> None:
        raise ValueError("bad")

    async def good() -> None:
        done.append(1)

    under_test.offer("c", "k", bad)
    under_test.offer("c", "k", good)
    assert await under_test.drain(30)
    assert done == [1]
    assert [str(error) for error in errors] == ["bad"]


async def test_drain_of_one_collection_does_not_wait_for_another() -> None:
    under_test, _ = lane()
    gate = asyncio.Event()

    async def stuck() -> None:
        await gate.wait()

    async def quick() -> None:
        await asyncio.sleep(0)

    under_test.offer("slow", 1, stuck)
    under_test.offer("fast", 2, quick)
    assert await under_test.drain(30, "fast")
    assert not await under_test.drain(0.01, "slow")
    gate.set()
    assert await under_test.drain(30)


async def test_closing_cancels_what_does_not_end_in_time_and_leaves_no_task() -> None:
    under_test, _ = lane()
    cancelled, begun = [], asyncio.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    under_test.offer("c", 1, forever)
    await begun.wait()
    assert not await under_test.close(0.01)
    assert cancelled == [1]
    assert not under_test.offer("c", 2, forever)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "shadow-lane"] == []


async def test_an_idle_lane_holds_no_task() -> None:
    under_test, _ = lane()

    async def job() -> None:
        return None

    under_test.offer("c", 1, job)
    assert await under_test.drain(30)
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "shadow-lane"] == []


def test_the_breaker_opens_after_failures_in_a_row_and_closes_on_a_success() -> None:
    now, changes = [0.0], []
    breaker = Breaker(threshold=3, pause=1.0, on_change=changes.append, clock=lambda: now[0])
    breaker.failed()
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    breaker.failed()
    assert breaker.allow()
    breaker.failed()
    assert not breaker.closed
    assert not breaker.allow()
    now[0] = 1.1
    assert breaker.allow(), "one probe"
    assert not breaker.allow(), "and only one"
    breaker.succeeded()
    assert breaker.allow()
    assert changes == [False, True]


async def test_the_jobs_of_one_call_begin_when_it_ends_and_leave_the_places_of_others_free() -> None:
    under_test, _ = lane(workers=2, capacity=2)
    done: list[object] = []

    def job(name: object):
        async def run() -> None:
            done.append(name)

        return run

    with under_test.held() as hold:
        for number in range(10):
            assert under_test.offer("many", number, job(number), hold=hold)
        assert not under_test.offer("many", 10, job(10), hold=hold), "a call may fill its share only"
        assert under_test.offer("c", "other", job("other"))
        assert under_test.offer("c", 3, job("after 3"))
        assert not under_test.offer("c", "third", job("third")), "the places of others are counted by themselves"
        assert under_test.busy(3)
        await asyncio.sleep(0.01)
        assert done == ["other"]
    assert await under_test.drain(30)
    assert sorted(map(str, done)) == sorted(["other", "after 3", *map(str, range(10))])
    assert done.index("after 3") > done.index(3)
    assert under_test.depth == 0
    with under_test.held() as hold:
        assert under_test.offer("many", 1, job("again"), hold=hold)
    assert await under_test.drain(30)


async def test_who_waits_for_the_queue_does_not_wait_for_a_call_that_goes_on() -> None:
    under_test, _ = lane()
    done: list[int] = []

    def job(number: int):
        async def run() -> None:
            done.append(number)

        return run

    with under_test.held() as hold:
        assert under_test.offer("c", 1, job(1), hold=hold)
        assert await under_test.drain(30)
        assert under_test.offer("c", 2, job(2), hold=hold)
        assert await under_test.drain(30)
    assert done == [1, 2]
