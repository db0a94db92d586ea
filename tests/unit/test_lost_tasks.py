"""The test run notices where an error of a task is left for asyncio to find."""

from __future__ import annotations

import asyncio
import gc
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest


@pytest.fixture
def heard() -> list[str]:
    """What this test loses on purpose; taken away before the run hears of it."""
    conftest._lost_tasks.take()
    return conftest._lost_tasks.heard


def test_the_run_hears_of_an_error_that_nobody_retrieves(heard: list[str]) -> None:
    async def lose() -> None:
        async def fail() -> None:
            raise ValueError("lost")

        task = asyncio.create_task(fail())
        await asyncio.wait([task])

    asyncio.run(lose())
    gc.collect()
    (said,) = conftest._lost_tasks.take()
    assert "was never retrieved" in said
    assert "ValueError" in said


def test_the_run_hears_of_a_task_that_is_destroyed(heard: list[str]) -> None:
    loop = asyncio.new_event_loop()

    async def forever() -> None:
        await asyncio.Event().wait()

    task = loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task
    gc.collect()
    (said,) = conftest._lost_tasks.take()
    assert "was destroyed but it is pending" in said


def test_other_things_that_asyncio_says_are_none_of_that() -> None:
    logging.getLogger("asyncio").error("Executing took 0.2 seconds")
    assert conftest._lost_tasks.take() == []


def ended(config: Any) -> int:
    """The exit status of a run of `config` in which no test has failed."""
    session: Any = SimpleNamespace(config=config, exitstatus=0)
    conftest.pytest_sessionfinish(session)
    return int(session.exitstatus)


def test_what_one_of_several_processes_has_lost_fails_the_run_of_all(
    heard: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conftest, "_lost_by_others", [])
    assert ended(SimpleNamespace()) == 0
    conftest._lost_tasks.heard.append("Task was destroyed")
    one, other = (SimpleNamespace(workeroutput={}) for _ in range(2))
    assert [ended(each) for each in (one, other)] == [0, 0], "what a process has lost is said by its run"
    for each in (one, other, SimpleNamespace()):
        conftest.pytest_testnodedown(each, None)
    assert ended(SimpleNamespace()) == pytest.ExitCode.TESTS_FAILED
    assert "Task was destroyed" in capsys.readouterr().err


def test_a_process_that_dies_is_more_than_a_failed_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has run what it had still to run: to run again what has failed is not enough."""
    monkeypatch.setattr(conftest, "_died", [])
    conftest.pytest_testnodedown(SimpleNamespace(), None)
    assert ended(SimpleNamespace()) == 0
    conftest.pytest_testnodedown(SimpleNamespace(), "not properly terminated")
    assert ended(SimpleNamespace()) == pytest.ExitCode.INTERNAL_ERROR
