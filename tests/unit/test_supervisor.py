"""Long-lived tasks go on: what they raise is counted, said once for each cause, and they begin again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from shadow.host import supervisor as module
from shadow.host.supervisor import Supervisor, Turn
from shadow.model.background import Background

TASK = Background.RECOVERY


class Ears:
    def __init__(self) -> None:
        self.failures: list[tuple[Background, str, bool]] = []
        self.works: list[Background] = []

    def failed(self, task: Background, error: BaseException, new: bool) -> None:
        self.failures.append((task, type(error).__name__, new))


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def supervisor(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(module, "_FIRST", 0.001)
    monkeypatch.setattr(module, "_LONGEST", 0.004)
    return Supervisor(ears.failed, ears.works.append)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_what_a_task_raises_is_told_once_for_each_cause_and_the_task_begins_again(
    supervisor: Supervisor, ears: Ears
) -> None:
    faults: list[type[Exception]] = [ValueError, ValueError, KeyError, ValueError]
    rounds = 0

    async def work(turn: Turn) -> None:
        nonlocal rounds
        while True:
            turn()
            if faults:
                raise faults.pop(0)
            rounds += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(supervisor.run(TASK, work))
    await until(lambda: rounds > 2)
    assert [(name, new) for _, name, new in ears.failures] == [
        ("ValueError", True),
        ("ValueError", False),
        ("KeyError", True),
        ("ValueError", False),
    ]
    assert ears.works == [TASK], "once, when a whole round went well"
    assert supervisor.down == {}
    faults.append(ValueError)
    await until(lambda: len(ears.failures) == 5)
    assert ears.failures[-1][2], "it had worked in between, so this is news"
    await end(running)


async def test_a_task_is_down_until_a_round_has_gone_well(supervisor: Supervisor) -> None:
    gate = asyncio.Event()
    calls = 0

    async def work(turn: Turn) -> None:
        nonlocal calls
        calls += 1
        turn()
        if calls == 1:
            raise ValueError
        await gate.wait()
        turn()
        await asyncio.Event().wait()

    running = asyncio.create_task(supervisor.run(TASK, work))
    await until(lambda: calls == 2)
    assert supervisor.down == {TASK: "ValueError"}
    gate.set()
    await until(lambda: not supervisor.down)
    await end(running)


async def test_a_task_without_rounds_works_when_it_has_gone_on_for_long(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROVEN", 0.01)
    calls = 0

    async def work(turn: Turn) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        await asyncio.Event().wait()

    running = asyncio.create_task(supervisor.run(TASK, work))
    await until(lambda: calls == 2 and not supervisor.down)
    await end(running)


async def test_a_task_that_something_else_has_cancelled_begins_again(supervisor: Supervisor, ears: Ears) -> None:
    """What it waits for may be cancelled, by another caller who shares it; nobody wants the task to end."""
    calls = 0

    async def work(turn: Turn) -> None:
        nonlocal calls
        calls += 1
        waiting = asyncio.get_running_loop().create_future()
        if calls == 1:
            waiting.cancel()
        await waiting

    running = asyncio.create_task(supervisor.run(TASK, work))
    await until(lambda: calls == 2)
    assert [name for _, name, _ in ears.failures] == ["CancelledError"]
    await end(running)


async def test_a_task_that_returns_or_is_cancelled_is_not_down(supervisor: Supervisor, ears: Ears) -> None:
    async def once(turn: Turn) -> None:
        turn()

    await supervisor.run(TASK, once)

    async def fails(turn: Turn) -> None:
        raise ValueError

    running = asyncio.create_task(supervisor.run(TASK, fails))
    await until(lambda: bool(supervisor.down))
    await end(running)
    assert supervisor.down == {}


async def test_it_begins_again_later_each_time_and_at_most_so_late(supervisor: Supervisor) -> None:
    turn = supervisor.turn(TASK)
    assert [turn.failed(ValueError()) for _ in range(4)] == [0.001, 0.002, 0.004, 0.004]
    turn()
    turn()
    assert turn.failed(ValueError()) == 0.001


async def test_two_loops_with_the_same_task_are_down_while_one_of_them_is(supervisor: Supervisor, ears: Ears) -> None:
    one, other = supervisor.turn(TASK), supervisor.turn(TASK)
    one.failed(ValueError())
    other.failed(ValueError())
    one.works()
    assert supervisor.down
    assert ears.works == []
    other.ended()
    assert not supervisor.down
    assert ears.works == [TASK]


async def test_who_listens_and_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST", 0.001)

    def deaf(*_: object) -> None:
        raise RuntimeError

    supervisor = Supervisor(deaf, deaf)
    calls = 0

    async def work(turn: Turn) -> None:
        nonlocal calls
        calls += 1
        turn()
        if calls < 3:
            raise ValueError
        turn()

    await supervisor.run(TASK, work)
    assert calls == 3


def test_threads_report_beside_each_other(supervisor: Supervisor, ears: Ears) -> None:
    def fail() -> None:
        turn = supervisor.turn(Background.JOURNAL)
        for _ in range(50):
            turn.failed(ValueError())
        turn.ended()

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(ears.failures) == 200
    assert supervisor.down == {}
