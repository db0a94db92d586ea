"""Requests wait after a throttling, recover when it ends, and a cancelled one leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shadow.stores.dynamo.client.pace import RequestPace
from tests.support.hurry import Hurry


class _Client:
    """What `RequestPace.attach` is given: its two handlers, and a call that asks them as the SDK does."""

    def __init__(self, pace: RequestPace) -> None:
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.meta = SimpleNamespace(events=SimpleNamespace(register=self.handlers.__setitem__))
        pace.attach(self)

    async def request(self) -> None:
        await self.handlers["before-send"](request=None)

    def answer(self, code: str | None) -> None:
        parsed = {} if code is None else {"Error": {"Code": code}}
        self.handlers["needs-retry"](
            response=(SimpleNamespace(status_code=200 if code is None else 400), parsed),
            attempts=1,
            operation=None,
            caught_exception=None,
            request_dict={"context": {}},
        )


class _Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Time:
    return _Time()


@pytest.fixture
def pace(clock: _Time) -> RequestPace:
    return RequestPace(clock)


def _run(client: _Client, clock: _Time, seconds: float, each: float, code: str | None) -> None:
    until = clock.now + seconds
    while clock.now < until:
        clock.now += each
        client.answer(code)


async def test_nothing_waits_before_the_first_throttling(pace: RequestPace, clock: _Time) -> None:
    client = _Client(pace)
    _run(client, clock, 5, 0.01, None)
    async with asyncio.timeout(20):
        for _ in range(10_000):
            await client.request()
    assert pace.rate is None


@pytest.mark.parametrize("code", ["ThrottlingException", "ProvisionedThroughputExceededException"])
def test_a_throttling_slows_below_the_rate_that_was_seen(pace: RequestPace, clock: _Time, code: str) -> None:
    client = _Client(pace)
    _run(client, clock, 5, 0.01, None)
    client.answer(code)
    assert pace.rate is not None
    assert 50 < pace.rate < 100, "100 a second were sent"


def test_what_is_no_throttling_slows_nothing(pace: RequestPace, clock: _Time) -> None:
    client = _Client(pace)
    _run(client, clock, 5, 0.01, "ConditionalCheckFailedException")
    assert pace.rate is None


def test_the_rate_rises_again_as_answers_come(pace: RequestPace, clock: _Time) -> None:
    client = _Client(pace)
    _run(client, clock, 5, 0.01, None)
    _run(client, clock, 5, 0.5, "ThrottlingException")
    slow = pace.rate
    _run(client, clock, 30, 0.02, None)
    assert (slow or 99) < 5
    assert (pace.rate or 0) > 40


async def test_requests_are_let_through_at_the_rate(pace: RequestPace, clock: _Time) -> None:
    client = _Client(pace)
    _run(client, clock, 5, 0.01, None)
    client.answer("ThrottlingException")
    clock.now += 60
    waiting = [asyncio.create_task(client.request()) for _ in range(500)]
    await asyncio.sleep(0.01)
    through = sum(each.done() for each in waiting)
    assert pace.rate is not None
    assert through == int(pace.rate), "as many as gathered while nothing was sent, and no more"
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_requests_cancelled_while_they_wait_leave_the_others_going(seed: int) -> None:
    """The SDK's own waiting hangs for good under this very storm."""
    hurry = Hurry()
    hurry.by(10)
    dice = random.Random(seed)
    pace = RequestPace(hurry)
    client = _Client(pace)
    for _ in range(20):
        await asyncio.sleep(0.03)
        client.answer(None)
    client.answer("ThrottlingException")

    async def impatient() -> None:
        try:
            async with asyncio.timeout(dice.uniform(0.001, 0.08)):
                await client.request()
        except TimeoutError:
            return
        client.answer(dice.choice([None, None, "ThrottlingException"]))

    storm = []
    for _ in range(300):
        storm.append(asyncio.create_task(impatient()))
        await asyncio.sleep(dice.uniform(0, 0.003))
    async with asyncio.timeout(300):
        await asyncio.gather(*storm)
        await client.request()
