"""One time for all processes of a journal: that of its server, known to each of them between two bounds.

No process compares its own clock with another's. Each measures how far the server's clock is from its own steady one:
a stamp that the server made between a request and its answer bounds the difference from both sides, and several such
intervals bound it more narrowly. A process that opens an intent writes the *latest* moment that it can be, and one that
asks whether the intent has expired uses the *earliest* that it can be now; so an intent never counts as expired before
its time has passed on the server's clock, however far the clocks of the hosts are apart.

What remains: a server whose own clock leaps, or a new primary whose clock is ahead of the old one's. The rules of the
journal tolerate a quarter of `limits.operation` of that, for no operation may last longer than three quarters of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from shadow.host.steady import steady

__all__ = ["Clock", "ServerClock", "steady"]

_DRIFT: Final = 2e-4
"""The error of a steady clock, in seconds a second: far more than any crystal's."""


class Clock(Protocol):
    """Epoch seconds of the server, as bounds: `earliest() <= now <= latest()`."""

    def earliest(self) -> float: ...

    def latest(self) -> float: ...

    def observe(self, stamp: float, resolution: float, sent: float, received: float) -> None:
        """The server's time was between `stamp` and `resolution` seconds later, at a moment between the two moments
        `sent` and `received` of `steady`."""


class _Bounds(NamedTuple):
    low: float
    high: float
    measured: float


class ServerClock:
    """See `Clock`. Before the first observation nothing is known, and both bounds raise `RuntimeError`."""

    def __init__(self) -> None:
        self._bounds: _Bounds | None = None

    def earliest(self) -> float:
        now = steady()
        return now + self._known(now).low

    def latest(self) -> float:
        now = steady()
        return now + self._known(now).high

    def observe(self, stamp: float, resolution: float, sent: float, received: float) -> None:
        seen = _Bounds(stamp - received, stamp + resolution - sent, received)
        if self._bounds is not None:
            old = self._known(received)
            both = _Bounds(max(old.low, seen.low), min(old.high, seen.high), received)
            # Bounds that exclude each other: the server's clock was set, or another server answers.
            seen = both if both.low <= both.high else seen
        self._bounds = seen

    def _known(self, now: float) -> _Bounds:
        if self._bounds is None:
            raise RuntimeError("the server's clock has not been seen yet")
        low, high, measured = self._bounds
        slack = _DRIFT * max(0.0, now - measured)
        return _Bounds(low - slack, high + slack, measured)
