"""The flip with one of its steps weakened, each in the plainest way. The simulator must catch every one of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from shadow.control import flip_record as routing
from shadow.control.flip_record import Flip, RouteRecord, Routing
from shadow.control.members import Ack, Member
from shadow.control.records import Records
from shadow.errors import NotCaughtUp
from shadow.fleet.coordinator import _Making
from shadow.fleet.fleet import Fleet
from shadow.fleet.flip_part import FAILED, LEVEL, SWITCHED
from shadow.fleet.participant import Participant
from shadow.host.steady import steady
from shadow.routes.routes import Routes
from shadow.runtime import Runtime
from tests.simulation.conditions import Conditions
from tests.simulation.mutations import Mutation, calm

__all__ = ["FLIP_MUTATIONS"]


def _flipping(drawn: Conditions, **changes: Any) -> Conditions:
    """Processes that write both stores all the time, while one after the other becomes primary."""
    flipping: dict[str, Any] = {
        "fleet": True, "flips": 2, "processes": 2, "callers": 3, "operations": 12, "haste": 0.1, "keys": 1,
        "counters": 1,
    }  # fmt: skip
    return calm(drawn, **flipping | changes)


# --- what a process says ----------------------------------------------------------------------------------------


@asynccontextmanager
async def _hold_nothing(self: Runtime, collections: Sequence[str]) -> AsyncIterator[None]:
    """Level, but its writes go on."""
    for name in collections:
        await self._empty(name)
    yield


async def _say_level_first(self: Participant, flip: Flip) -> None:
    """Before its writes are held."""
    await self.beat(Ack(flip.id, LEVEL))
    await _hold(self, flip)


_hold = Participant._hold


async def _empty_at_once(self: Runtime, collection: str) -> None:
    """Its writes are held, and what it has written is still on its way to the secondary."""


@asynccontextmanager
async def _change_at_once(self: Routes, collection: str) -> AsyncIterator[None]:
    """While a heal is under way."""
    yield


# --- what the coordinator waits for -----------------------------------------------------------------------------


def _wait_for_one(self: _Making, stage: str, patience: float, *, with_all: Sequence[Member] = ()) -> list[Member]:
    """Some process has said it."""
    while True:
        rows = self._members()
        if any(row.ack.flip == self._flip.id and row.ack.stage == stage for row in rows):
            return rows
        self._still()
        time.sleep(0.01)


def _wait_until_late(self: _Making, stage: str, patience: float, *, with_all: Sequence[Member] = ()) -> list[Member]:
    """Who has said nothing by the deadline agrees."""
    end = steady() + patience
    while steady() < end:
        rows = self._members()
        if all(row.ack.flip == self._flip.id and row.ack.stage == stage for row in rows):
            break
        time.sleep(0.01)
    return self._members()


def _save_always(records: Records, wanted: Routing) -> Routing | None:
    """Over whatever stands there."""
    revision = records.put(routing.KEY, routing._encoded(wanted))
    assert revision is not None
    return routing.dataclasses.replace(wanted, revision=revision)


# --- when a process lets its writes go on -----------------------------------------------------------------------


async def _let_go_when_level(self: Participant, flip: Flip) -> None:
    """Whatever will be decided."""
    async with self._site.holding(list(flip.to)):
        await self._patiently(self.beat(Ack(flip.id, LEVEL)))


async def _switch_nothing(self: Fleet, placed: Mapping[str, RouteRecord]) -> None:
    """Its writes go on by the route of before."""


async def _hold_and_switch(self: Participant, flip: Flip) -> None:
    """Whatever was decided, it was the flip."""
    names = list(flip.to)
    try:
        async with self._site.holding(names):
            await self._patiently(self.beat(Ack(flip.id, LEVEL)))
            seen = await self._decided(flip.id)
            await self._site.switch(
                {name: routing.dataclasses.replace(seen.placed[name], primary=to) for name, to in flip.to.items()}
            )
            await self._patiently(self.beat(Ack(flip.id, SWITCHED)))
    except NotCaughtUp as error:
        await self.beat(Ack(flip.id, FAILED, str(error)))


FLIP_MUTATIONS: Final = (
    Mutation(
        "a process says that it is level before its writes are held",
        ((Participant, "_hold", _say_level_first),),
        _flipping,
    ),
    Mutation("a process that is level goes on writing", ((Runtime, "holding", _hold_nothing),), _flipping),
    Mutation(
        "a process says that it is level before the secondary has everything",
        ((Runtime, "_empty", _empty_at_once),),
        _flipping,
    ),
    Mutation(
        "a heal goes on while the roles change",
        ((Routes, "changing", _change_at_once),),
        lambda drawn: _flipping(drawn, repairs=20, slow=0.5),
    ),
    Mutation("the coordinator waits for one process", ((_Making, "_wait", _wait_for_one),), _flipping),
    Mutation(
        "the coordinator commits when its deadline has passed",
        ((_Making, "_wait", _wait_until_late),),
        lambda drawn: _flipping(drawn, cut_off=1, slow=0.0),
    ),
    Mutation(
        "the routing record is written without its condition",
        ((routing, "save", _save_always),),
        lambda drawn: _flipping(drawn, flips=8, processes=3),
    ),
    Mutation(
        "a process lets its writes go on before the flip is decided",
        ((Participant, "_hold", _let_go_when_level),),
        _flipping,
    ),
    Mutation(
        "a process lets its writes go on by the route of before",
        ((Fleet, "switch", _switch_nothing),),
        _flipping,
    ),
    Mutation(
        "a flip that was aborted counts as made",
        ((Participant, "_hold", _hold_and_switch),),
        lambda drawn: _flipping(drawn, processes=3, flips=3, late=0.1, slow=0.0),
    ),
)
