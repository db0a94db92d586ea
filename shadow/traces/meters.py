"""The metrics through a meter of OpenTelemetry, beside Prometheus's exposition or in its place.

Only the API is used; the application configures a provider with its reader and exporter, before or after. Counters and
gauges are observed when the reader collects, so that an event costs nothing more; histograms are recorded at each.

The instruments of a process are shared by all its `Shadow` objects: a counter is the sum of theirs, those that have
been closed included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider

__all__ = ["Attributes", "Counts", "Meters", "Observe", "meter_name"]

Attributes: TypeAlias = "tuple[tuple[str, str], ...]"
"""Names and values of labels."""
Counts: TypeAlias = "Mapping[Attributes, float]"
Observe: TypeAlias = "Callable[[], Counts]"
"""Reads every series of one metric."""

_MERGE: Final[Mapping[str, Callable[[float, float], float]]] = {"sum": lambda a, b: a + b, "max": max, "min": min}


def meter_name(name: str) -> str:
    """The instrument of a metric of the documented list. Prometheus's own exporters add `_total` again."""
    return name.removesuffix("_total")


class _Shared:
    """The instruments of one provider, and who is observed by each."""

    def __init__(self, provider: MeterProvider) -> None:
        self._meter = provider.get_meter("shadow")
        self._lock = threading.Lock()
        self._observed: dict[str, dict[object, Observe]] = {}
        """By the name of a metric: what is read, by its owner."""
        self._histograms: dict[str, Histogram] = {}

    def observe(self, owner: object, name: str, read: Observe) -> bool:
        """Whether nobody was observed under this name before."""
        with self._lock:
            new = name not in self._observed
            self._observed.setdefault(name, {})[owner] = read
        return new

    def create(self, name: str, kind: str, help: str, merge: str) -> None:
        def callback(options: Any) -> Iterator[Any]:
            from opentelemetry.metrics import Observation

            with self._lock:
                reads = list(self._observed[name].values())
            for attributes, value in _merged((read() for read in reads), _MERGE[merge]).items():
                yield Observation(value, dict(attributes))

        create = self._meter.create_observable_counter if kind == "counter" else self._meter.create_observable_gauge
        create(meter_name(name), [callback], unit=_unit(name), description=help)

    def histogram(self, name: str, help: str, bounds: Iterable[float]) -> Histogram:
        with self._lock:
            if name not in self._histograms:
                create: Any = self._meter.create_histogram
                told = {"unit": _unit(name), "description": help}
                try:
                    made = create(meter_name(name), explicit_bucket_boundaries_advisory=list(bounds), **told)
                except TypeError:  # an API before 1.30; the application's views set the boundaries
                    made = create(meter_name(name), **told)
                self._histograms[name] = made
            return self._histograms[name]

    def end(self, owner: object, name: str) -> None:
        with self._lock:
            self._observed[name].pop(owner, None)


_SHARED: Final[WeakKeyDictionary[Any, _Shared]] = WeakKeyDictionary()
_LOCK: Final = threading.Lock()


class Meters:
    """The instruments of one `Metrics`. `provider`: the application's, by default the global one, which may be set
    later. Raises ImportError without `opentelemetry-api`."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        from opentelemetry import metrics

        provider = provider or metrics.get_meter_provider()
        with _LOCK:
            if provider not in _SHARED:
                _SHARED[provider] = _Shared(provider)
            self._shared = _SHARED[provider]

    def counter(self, name: str, help: str, read: Observe) -> None:
        """A counter that is observed at each collection."""
        if self._shared.observe(self, name, read):
            self._shared.create(name, "counter", help, "sum")

    def gauge(self, name: str, help: str, merge: str, read: Observe) -> None:
        """`merge`: how the values of several sources become one: sum, max or min."""
        if self._shared.observe(self, name, read):
            self._shared.create(name, "gauge", help, merge)

    def histogram(self, name: str, help: str, bounds: Iterable[float]) -> Callable[[float, dict[str, str]], None]:
        """Call it with what was observed and its labels."""
        return self._shared.histogram(name, help, bounds).record

    def freeze(self, name: str, counts: Counts) -> None:
        """What this source has counted stays as it is, for a sum must not fall, and the source is let go."""
        self._shared.observe(self, name, lambda: counts)

    def end(self, name: str) -> None:
        """This source has nothing under this name any more."""
        self._shared.end(self, name)


def _unit(name: str) -> str:
    return "s" if name.endswith("_seconds") else ""


def _merged(several: Iterable[Counts], merge: Callable[[float, float], float]) -> Counts:
    found: dict[Attributes, float] = {}
    for each in several:
        for attributes, value in each.items():
            found[attributes] = merge(found[attributes], value) if attributes in found else value
    return found
