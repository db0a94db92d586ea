"""Calls that nobody cancels: abandoned ones are counted and bounded; a client that answers nothing is given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError

from shadow.stores.calls import Calls
from tests.support.pair import until


class Client:
    """Answers when it is let; a cancellation inside a call of it is noted, for that is what must not happen."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.pings = asyncio.Event()
        self.seen: Counter[str] = Counter()

    async def call(self, answer: str = "answer") -> str:
        self.seen["begun"] += 1
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.seen["cancelled"] += 1
            raise
        self.seen["ended"] += 1
        return answer

    async def ping(self) -> None:
        self.seen["pings"] += 1
        await self.pings.wait()


Make = Callable[..., Calls]


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def calls(client: Client) -> Make:
    def make(patience: float = 60.0, **options: Any) -> Calls:
        options = {"on_stuck": lambda: True, **options}
        return Calls("Store", patience=patience, ping=client.ping, **options)

    return make


async def begun(client: Client, count: int = 1) -> None:
    await until(lambda: client.seen["begun"] == count)


async def test_a_call_answers_or_raises_as_it_would_by_itself(calls: Make, client: Client) -> None:
    async def refused() -> None:
        raise DuplicateKeyError("x", 11000)

    client.answers.set()
    made = calls()
    assert await made.run(client.call()) == "answer"
    with pytest.raises(DuplicateKeyError):
        await made.run(refused())


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
async def test_a_caller_that_goes_away_leaves_the_call_to_its_end(calls: Make, client: Client, how: str) -> None:
    """Once, twice, while the call is about to end: no cancellation reaches it, and it is counted."""
    abandoned: list[int] = []
    made = calls(on_abandoned=lambda: abandoned.append(1))

    async def caller() -> None:
        async with asyncio.timeout(0.01 if how == "out of time" else None):
            await made.run(client.call())

    callers = [asyncio.create_task(caller()) for _ in range(20)]
    await begun(client, 20)
    if how == "cancelled":
        for each in callers:
            each.cancel()
            each.cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    expected = asyncio.CancelledError if how == "cancelled" else TimeoutError
    assert {type(each) for each in results} == {expected}
    assert (made.abandoned, len(abandoned)) == (20, 20)
    client.answers.set()
    await until(lambda: made.abandoned == 0)
    assert client.seen == {"begun": 20, "ended": 20}


async def test_an_error_of_an_abandoned_call_is_nobodys(
    calls: Make, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """And asyncio does not call it lost."""
    made, complaints = calls(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def fails() -> None:
        await client.call()
        raise AutoReconnect("x")

    caller = asyncio.create_task(made.run(fails()))
    await begun(client)
    caller.cancel()
    await asyncio.wait([caller])
    client.answers.set()
    await until(lambda: made.abandoned == 0)
    del caller
    await asyncio.sleep(0)
    assert complaints == []


async def test_with_too_many_abandoned_none_is_begun(calls: Make, client: Client) -> None:
    """The caller hears so at once; those that end make room."""
    made, ended = calls(most_abandoned=3), list[int]()
    callers = [asyncio.create_task(made.run(client.call())) for _ in range(3)]
    await begun(client, 3)
    for each in callers:
        each.cancel()
    await asyncio.wait(callers)
    with pytest.raises(AutoReconnect, match="3 abandoned calls"):
        await made.run(client.call(), lambda: ended.append(1))
    assert ended == [1]
    assert client.seen["begun"] == 3
    client.answers.set()
    await until(lambda: made.abandoned == 0)
    assert await made.run(client.call()) == "answer"


async def test_what_ends_with_the_call_does_so_when_it_ends_and_not_before(calls: Make, client: Client) -> None:
    """A place among the requests under way is taken until then."""
    made, ended = calls(), list[int]()
    caller = asyncio.create_task(made.run(client.call(), lambda: ended.append(1)))
    await begun(client)
    caller.cancel()
    await asyncio.wait([caller])
    assert ended == []
    client.answers.set()
    await until(lambda: ended == [1])


# --- a client that answers nothing ------------------------------------------------------------------------------


async def test_a_client_that_does_not_even_answer_a_ping_is_given_up(calls: Make, client: Client) -> None:
    """Those that wait hear that nobody knows; its calls end, abandoned ones too."""
    asked: list[int] = []

    def stuck() -> bool:
        asked.append(1)
        return True

    made = calls(0.02, on_stuck=stuck)
    waiting, gone = (asyncio.create_task(made.run(client.call())) for _ in range(2))
    await begun(client, 2)
    gone.cancel()
    with pytest.raises(AutoReconnect, match="given up"):
        await waiting
    await until(lambda: client.seen["cancelled"] == 2)
    assert asked == [1]
    assert made.abandoned == 0
    client.answers.set()
    assert await made.run(client.call()) == "answer"


async def test_a_client_whose_ping_ends_is_well_however_long_its_calls_take(calls: Make, client: Client) -> None:
    """A slow call is slow; an error of the ping is an answer as well."""
    client.pings.set()
    made = calls(0.02, on_stuck=lambda: pytest.fail("given up"))
    waiting = asyncio.create_task(made.run(client.call()))
    await until(lambda: client.seen["pings"] >= 3)
    client.answers.set()
    assert await waiting == "answer"


async def test_a_client_that_is_not_ours_is_said_to_be_stuck_once_and_left_alone(calls: Make, client: Client) -> None:
    """When it comes back, all is as it was."""
    asked: list[int] = []

    def stuck() -> bool:
        asked.append(1)
        return False

    made = calls(0.01, on_stuck=stuck)
    waiting = asyncio.create_task(made.run(client.call()))
    await until(lambda: asked)
    client.pings.set()
    await until(lambda: client.seen["pings"] >= 3)
    assert asked == [1]
    client.answers.set()
    assert await waiting == "answer"
    assert client.seen["cancelled"] == 0


async def test_without_calls_nobody_is_asked_for_a_sign_of_life(calls: Make, client: Client) -> None:
    client.answers.set()
    made = calls(0.01)
    await made.run(client.call())
    await until(lambda: made._look is None)
    assert client.seen["pings"] == 0


# --- the end ----------------------------------------------------------------------------------------------------


async def test_the_end_closes_the_client_and_no_task_outlives_it(calls: Make, client: Client) -> None:
    """Although its calls would never end."""
    before, made, closed = asyncio.all_tasks(), calls(), list[int]()

    async def closing() -> None:
        closed.append(1)

    waiting, gone = (asyncio.create_task(made.run(client.call())) for _ in range(2))
    await begun(client, 2)
    gone.cancel()
    await made.end(closing)
    with pytest.raises(AutoReconnect):
        await waiting
    assert closed == [1]
    assert asyncio.all_tasks() == before


async def test_the_end_of_a_client_that_cannot_close(
    calls: Make, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes a while, and ends."""
    monkeypatch.setattr("shadow.stores.calls._FAREWELL", 0.05)

    async def closing() -> None:
        await asyncio.Event().wait()

    before, made = asyncio.all_tasks(), calls()
    gone = asyncio.create_task(made.run(client.call()))
    await begun(client)
    gone.cancel()
    await asyncio.wait([gone])
    await made.end(closing)
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_client_that_others_use_on_is_waited_for_and_never_cancelled(calls: Make, client: Client) -> None:
    made = calls()
    gone = asyncio.create_task(made.run(client.call()))
    await begun(client)
    gone.cancel()
    await asyncio.wait([gone])
    ending = asyncio.create_task(made.end(None))
    await asyncio.sleep(0)
    client.answers.set()
    await ending
    assert client.seen == {"begun": 1, "ended": 1}


async def test_what_follows_a_call_waits_for_its_end(calls: Make, client: Client) -> None:
    """A cursor is closed when the call that may open it is over."""
    made, order = calls(), list[str]()

    async def closing() -> None:
        order.append("closed")

    def wait_for(task: asyncio.Task[Any]) -> Coroutine[Any, Any, Any]:
        return made.wait(task)

    task = made.begin(client.call())
    caller = asyncio.create_task(wait_for(task))
    await begun(client)
    caller.cancel()
    made.follow(task, closing)
    await asyncio.sleep(0)
    assert order == []
    client.answers.set()
    await until(lambda: order == ["closed"])
    await until(lambda: made.abandoned == 0)
