"""The server's clock, known between two bounds: never wrong, whatever a host's own clock says."""

from __future__ import annotations

import random

import pytest

from shadow.journal.server import clock as module
from shadow.journal.server.clock import ServerClock
from shadow.journal.server.records import estimate


class World:
    """The true time, and a host whose steady clock runs beside it."""

    def __init__(self, seed: int, drift: float = 0.0) -> None:
        self.chance = random.Random(seed)
        self.true = 1_700_000_000.0 + self.chance.random()
        self._origin = self.true - self.chance.uniform(0, 1e6)
        self._drift = drift

    def steady(self) -> float:
        return (self.true - self._origin) * (1 + self._drift)

    def ask(self, clock: ServerClock, resolution: float, ahead: float = 0.0) -> None:
        """A request, its way there and back of any length; the server cuts off what is finer than `resolution`."""
        sent = self.steady()
        self.true += self.chance.expovariate(50)
        stamp = self.true + ahead
        stamp -= stamp % resolution
        self.true += self.chance.expovariate(50)
        clock.observe(stamp, resolution, sent, self.steady())


@pytest.mark.parametrize("resolution", [0.001, 1.0])
@pytest.mark.parametrize("drift", [0.0, 1e-4, -1e-4])
def test_the_servers_time_always_lies_between_the_bounds(
    resolution: float, drift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(7, drift)
    monkeypatch.setattr(module, "steady", world.steady)
    clock = ServerClock()
    for _ in range(2000):
        world.ask(clock, resolution)
        world.true += world.chance.expovariate(1)
        assert clock.earliest() <= world.true <= clock.latest()


def test_many_coarse_stamps_bound_the_time_more_narrowly_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(11)
    monkeypatch.setattr(module, "steady", world.steady)
    clock = ServerClock()
    world.ask(clock, 1.0)
    one = clock.latest() - clock.earliest()
    for _ in range(200):
        world.true += world.chance.random()
        world.ask(clock, 1.0)
    assert clock.latest() - clock.earliest() < one / 4


def test_a_server_whose_clock_was_set_is_believed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(13)
    monkeypatch.setattr(module, "steady", world.steady)
    clock = ServerClock()
    world.ask(clock, 0.001)
    for ahead in (60.0, -60.0):
        world.ask(clock, 0.001, ahead)
        assert clock.earliest() <= world.true + ahead <= clock.latest()


def test_no_intent_expires_early_between_two_hosts_whatever_their_clocks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """One host writes when an intent expires, by its latest; another asks whether it has, by its earliest."""
    writer, reader = World(17), World(19)
    for _ in range(500):
        clocks = {}
        for name, world in (("writer", writer), ("reader", reader)):
            world.true = max(writer.true, reader.true)
            monkeypatch.setattr(module, "steady", world.steady)
            clocks[name] = ServerClock()
            world.ask(clocks[name], 1.0)
        now = writer.true = reader.true = max(writer.true, reader.true)
        monkeypatch.setattr(module, "steady", writer.steady)
        expires = clocks["writer"].latest() + 30.0
        monkeypatch.setattr(module, "steady", reader.steady)
        reader.true = now + 29.999
        assert clocks["reader"].earliest() <= expires


def test_nothing_is_known_before_the_server_has_spoken() -> None:
    with pytest.raises(RuntimeError):
        ServerClock().earliest()


def test_what_is_counted_in_part_is_estimated_by_the_spread_of_the_digests() -> None:
    chance = random.Random(23)
    digests = sorted(f"{chance.getrandbits(256):064x}" for _ in range(100_000))
    assert estimate(10_000, digests[9_999]) == pytest.approx(100_000, rel=0.05)
    assert estimate(10_000, "f" * 64) == 10_000
