"""The pace of a job: its limit, changes of it, and what a slow primary does to it. On a clock of its own."""

from __future__ import annotations

import math

import pytest

from shadow.jobs.throttle import RateLimiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def spend(throttle: RateLimiter, documents: int, batch: int = 10) -> None:
    for _ in range(documents // batch):
        await throttle.take(batch)


async def test_without_a_limit_nothing_waits(clock: Clock) -> None:
    await spend(RateLimiter(clock=clock, pause=clock.pause), 100_000)
    assert clock.now == 0.0


@pytest.mark.parametrize("rate", [20.0, 1000.0])
async def test_the_rate_holds_over_a_while(clock: Clock, rate: float) -> None:
    await spend(RateLimiter(rate, clock=clock, pause=clock.pause), int(rate * 30))
    assert clock.now == pytest.approx(30, rel=0.05)


async def test_a_rest_saves_up_a_quarter_of_a_second_at_most(clock: Clock) -> None:
    throttle = RateLimiter(100.0, clock=clock, pause=clock.pause)
    clock.now += 3600
    await spend(throttle, 1000)
    assert clock.now - 3600 == pytest.approx(10, abs=0.5)


async def test_a_changed_limit_counts_for_who_waits_already(clock: Clock) -> None:
    throttle = RateLimiter(1.0, clock=clock, pause=clock.pause)
    await throttle.take(1000)
    throttle.rate = None
    await throttle.take(1)
    assert clock.now == 0.0


async def test_a_slow_primary_halves_the_pace_and_a_quick_one_gives_it_back(clock: Clock) -> None:
    throttle = RateLimiter(1000.0, clock=clock, pause=clock.pause)
    await spend(throttle, 2000)
    throttle.observe(0.5, allowed=0.1)
    slowed = throttle.limit
    assert slowed == pytest.approx(500, rel=0.1)
    for _ in range(8):
        await spend(throttle, int(throttle.limit))
        throttle.observe(0.01, allowed=0.1)
    assert throttle.limit == 1000.0


async def test_a_primary_that_stays_slow_never_stops_the_job(clock: Clock) -> None:
    throttle = RateLimiter(clock=clock, pause=clock.pause)
    for _ in range(50):
        clock.now += 1
        throttle.observe(1.0, allowed=0.1)
    assert 0 < throttle.limit < 100
    assert not math.isinf(throttle.limit)
