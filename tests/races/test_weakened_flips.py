"""Rules of the flip that no seed of the simulator breaks, weakened one by one: the named test of each must fail.

The simulator's own mutations of the flip are in `tests.simulation.flip_mutations`. What these four need is rarer than
what it draws: a process that begins while writes are paused, one that ends there, a control store that cannot be read
between a process's word and the decision, and a request to the secondary that outlives its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.control import flip_record as routing
from shadow.control.flip_record import Routing
from shadow.control.members import Member
from shadow.control.sqlite import SqliteRecords
from shadow.fleet.coordinator import _Making
from shadow.fleet.participant import Participant
from shadow.writes.replicator import Replicator
from tests.contract import test_fleet as fleets
from tests.races import test_flip_races as races


async def _take_the_old_primary(self: Participant, wanted: Any) -> Any:
    """Whatever is decided meanwhile."""
    placed = routing.load(self.records).placed
    joined = await _join(self, wanted)
    return placed or joined


_join = Participant.join


def _miss_nobody(self: _Making, stage: str, patience: float, *, with_all: Sequence[Member] = ()) -> list[Member]:
    """Who has ended meanwhile counts as one that agrees."""
    return _wait(self, stage, patience)


_wait = _Making._wait


async def _decide_alone(self: Participant, id: str) -> Routing:
    """After a while the flip counts as aborted, whatever the control store would say."""
    try:
        async with asyncio.timeout(self._limit):
            return await _decided(self, id)
    except TimeoutError:
        seen = self._routing
        assert seen.flip is not None
        return seen.with_flip(seen.flip.moved(routing.FlipState.ABORTED, "nobody answers"))


_decided = Participant._decided

WEAKENED: Final[dict[str, tuple[type[Any], str, Any]]] = {
    "a process that begins during a flip takes the old primary": (Participant, "join", _take_the_old_primary),
    "the coordinator does not miss a process that has ended": (_Making, "_wait", _miss_nobody),
    "a process that cannot learn the decision lets its writes go on": (Participant, "_decided", _decide_alone),
    "a request that was given up on is not waited for": (Replicator, "may_be_in_flight", lambda self, name: False),
}


@pytest.fixture
def named(tmp_path: Path) -> Iterator[dict[str, Callable[[], Awaitable[None]]]]:
    """The named tests, in the order of `WEAKENED`."""
    records = SqliteRecords(tmp_path / "control.db")
    records.prepare()
    tests: list[Callable[[], Awaitable[None]]] = [
        lambda: fleets.test_a_process_that_starts_while_writes_are_held_waits_for_the_decision(records),
        lambda: fleets.test_one_that_ends_before_it_is_level_aborts_for_all(records, True),
        lambda: fleets.test_writes_stay_held_while_nobody_can_know_what_was_decided(records),
        lambda: races.test_a_flip_waits_for_a_request_that_was_given_up_on(tmp_path),
    ]
    yield dict(zip(WEAKENED, tests, strict=True))
    records.close()


@pytest.mark.parametrize("weakened", WEAKENED)
async def test_a_weakened_rule_fails_its_named_test(
    named: dict[str, Callable[[], Awaitable[None]]], monkeypatch: pytest.MonkeyPatch, weakened: str
) -> None:
    monkeypatch.setattr(*WEAKENED[weakened])
    with pytest.raises((AssertionError, TimeoutError)):
        await named[weakened]()
    # What the test has left where it failed.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.mark.parametrize("weakened", WEAKENED)
async def test_the_rule_itself_passes_it(named: dict[str, Callable[[], Awaitable[None]]], weakened: str) -> None:
    await named[weakened]()
