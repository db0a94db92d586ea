"""Series that a process keeps for itself, also where `PROMETHEUS_MULTIPROC_DIR` is set.

prometheus_client keeps every series in a file there, and raises OSError where it cannot: a folder that is not there, is
not to be written, or is full. That must not keep a process from starting.
"""

from __future__ import annotations

import time

from prometheus_client import Counter, Histogram
from prometheus_client.values import MutexValue

__all__ = ["OwnCounter", "OwnHistogram"]


class OwnCounter(Counter):
    """Its children are of this class too: the library makes them by it."""

    def _metric_init(self) -> None:
        self._value = _value(self, "_total", self._labelnames, self._labelvalues)
        self._created = time.time()


class OwnHistogram(Histogram):
    def _metric_init(self) -> None:
        self._created = time.time()
        self._sum = _value(self, "_sum", self._labelnames, self._labelvalues)
        names = (*self._labelnames, "le")
        self._buckets = [
            _value(self, "_bucket", names, (*self._labelvalues, str(bound))) for bound in self._upper_bounds
        ]


def _value(of: Counter | Histogram, suffix: str, names: tuple[str, ...], values: tuple[str, ...]) -> MutexValue:
    return MutexValue(of._type, of._name, of._name + suffix, names, values, of._documentation)  # type: ignore[no-untyped-call]
