"""The test run notices where an error of a task is left for asyncio to find."""

from __future__ import annotations

import asyncio
import gc
import logging

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
