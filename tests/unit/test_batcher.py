"""Gathering hands over what comes near in time, whole and once."""

from __future__ import annotations

import asyncio

from shadow.reads.batching import Batcher


async def test_a_full_group_is_handed_over_at_once() -> None:
    handed: list[list[int]] = []
    gather = Batcher[int](max_wait=60.0, max_size=3, hand_over=handed.append)
    for number in range(7):
        gather.add("group", number)
    assert handed == [[0, 1, 2], [3, 4, 5]]
    assert len(gather) == 1
    gather.stop()


async def test_what_lingers_is_handed_over_when_its_time_has_come() -> None:
    handed: asyncio.Queue[list[int]] = asyncio.Queue()
    gather = Batcher[int](max_wait=0.01, max_size=100, hand_over=handed.put_nowait)
    gather.add("group", 1)
    gather.add("group", 2)
    assert handed.empty()
    assert await asyncio.wait_for(handed.get(), 90) == [1, 2]
    assert len(gather) == 0


async def test_groups_do_not_mix() -> None:
    handed: list[list[str]] = []
    gather = Batcher[str](max_wait=60.0, max_size=2, hand_over=handed.append)
    for member in ("a1", "b1", "a2", "b2"):
        gather.add(member[0], member)
    assert handed == [["a1", "a2"], ["b1", "b2"]]


async def test_nothing_is_handed_over_after_the_end() -> None:
    handed: list[list[int]] = []
    gather = Batcher[int](max_wait=0.0, max_size=9, hand_over=handed.append)
    gather.add("group", 1)
    gather.stop()
    await asyncio.sleep(0.01)
    assert handed == []
    assert len(gather) == 0
