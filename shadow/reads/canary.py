"""The canary: an injected difference that the comparison must find, or the comparison counts as not working.

Nothing is written anywhere. Both stores are really asked for a reserved key that no document has; the difference is
injected into their answers, so that it goes through work queue, breaker, comparator, journal and confirmation as a read
of the application does. The kind of difference changes from one to the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shadow.host.steady import steady
from shadow.model.events import (
    CanaryFound,
    CanaryInjected,
    ComparisonFinished,
    ComponentFailed,
    Event,
    MismatchConfirmed,
    ReadShed,
    Reporter,
)
from shadow.model.limits import Watch
from shadow.model.operation import Hit, Query
from shadow.model.phase import PHASES, Route, StoreName
from shadow.model.reads import FindOne
from shadow.model.verdict import Kind, Mismatch, Verdict
from shadow.model.version import ABSENT, Document, Image, Key, Version
from shadow.reads.sources import ShadowRead, StorePair
from shadow.reads.unconfirmed import MemoryUnconfirmed
from shadow.stores.base import Store

__all__ = ["KEY", "Canaries", "Canary"]

KEY: Final = "_shadow_canary"
"""The reserved `_id`. No document is ever stored under it."""

_NOW: Final = Version("canary", 1)


def _image(version: Version = _NOW, **fields: Any) -> Image:
    return Image(version, {"_id": KEY, **fields})


_PLANTED: Final[tuple[tuple[Kind, str, Image, Image], ...]] = (
    (Kind.VALUE, "planted", _image(planted=1, beside=1), _image(planted=2, beside=1)),
    (Kind.MISSING, "", _image(planted=1), Image(ABSENT)),
    (Kind.TYPE, "planted", _image(planted=1), _image(planted=1.0)),
    (Kind.EXTRA, "", Image(ABSENT), _image(planted=1)),
    (Kind.ORDER, "", _image(planted=1, beside=1), _image(beside=1, planted=1)),
    (Kind.VERSION_LOST, "planted", _image(Version("canary", 2), planted=2), _image(planted=1)),
)
"""Kind and path to be found; the images that the primary and the secondary seem to hold."""


class _Planted:
    """A store with one document more, where the real one has none. Each call asks the real one first."""

    def __init__(self, store: Store, image: Image) -> None:
        self.name = store.name
        self._store = store
        self._image = image

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        found = await self._store.find_one(collection, query)
        return found if found is not None else _hit(self._image)

    async def image(self, collection: str, key: Key) -> Image:
        found = await self._store.image(collection, key)
        return found if found.state != ABSENT else self._image

    def may_lag(self, collection: str, filter: Document) -> bool:
        return False


def _hit(image: Image) -> Hit | None:
    if not isinstance(image.state, Version) or image.document is None:
        return None
    return Hit(KEY, image.state, image.document)


class Canary:
    """One injected difference under way: the reporter of its comparison, which passes nothing on."""

    def __init__(self, kind: Kind, path: str, done: Callable[[str], None]) -> None:
        self._kind = kind
        self._path = path
        self._done = done
        self._found: list[Mismatch] = []
        self._failure = ""

    def publish(self, event: Event) -> None:
        match event:
            case MismatchConfirmed():
                self._found.append(event.found)
            case ReadShed():
                self._done(f"shed: {event.reason}")
            case ComponentFailed():
                self._failure = f", failed: {type(event.error).__name__}"
            case ComparisonFinished() if event.verdict is not Verdict.SHED:
                self._finish(event.verdict)

    def _finish(self, verdict: Verdict) -> None:
        kinds = sorted({each.kind for each in self._found})
        right = kinds == [self._kind] and self._at_its_path()
        result = f"came to {verdict}" + (f" of kind {', '.join(kinds)}" if kinds else "") + self._failure
        self._done("" if right else result)

    def _at_its_path(self) -> bool:
        return not self._path or any(
            difference.path == self._path for each in self._found for difference in each.differences
        )


@dataclass(slots=True)
class _State:
    """Of one collection. `began`: when the first one was injected, by the steady clock; `last_found`: epoch seconds,
    0.0 for never, for display; `found_at`: the same moment by the steady clock. `reason`: why the last one was not
    found."""

    turn: int = 0
    began: float = 0.0
    injected: int = 0
    found: int = 0
    last_found: float = 0.0
    found_at: float = 0.0
    reason: str = "not yet"


class Canaries:
    """Injects differences into every collection that is in phase shadow, and keeps which of them the comparison found.

    `offer` takes a read with the primary's answer into the comparison; `sides` gives the pair of stores by the primary.
    """

    def __init__(
        self,
        watch: Watch,
        reporter: Reporter,
        routes: Callable[[], Mapping[str, Route]],
        sides: Callable[[StoreName], StorePair],
        offer: Callable[[ShadowRead, list[Hit]], None],
    ) -> None:
        self._watch = watch
        self._reporter = reporter
        self._routes = routes
        self._sides = sides
        self._offer = offer
        self._states: dict[str, _State] = {}

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Injects until cancelled. `turn` is called at each round."""
        if not self._watch.canary_every:
            return
        await asyncio.sleep(min(1.0, self._watch.canary_every))
        while True:
            turn()
            self.plant()
            await asyncio.sleep(self._watch.canary_every)

    def plant(self) -> None:
        """One difference in each collection that is compared."""
        watched = self._watched()
        for gone in self._states.keys() - {name for name, _ in watched}:
            del self._states[gone]
        for collection, route in watched:
            if route.shadow_read:
                self._plant(collection, route)

    def _watched(self) -> list[tuple[str, Route]]:
        return [(name, route) for name, route in self._routes().items() if PHASES[route.phase].shadow_read]

    def _state(self, collection: str) -> _State:
        """Changes nothing, for a scrape may ask from another thread."""
        return self._states.get(collection) or _State()

    def _plant(self, collection: str, route: Route) -> None:
        state, real = self._states.setdefault(collection, _State()), self._sides(route.primary)
        kind, path, primary, secondary = _PLANTED[state.turn % len(_PLANTED)]
        state.turn += 1
        state.injected += 1
        state.began = state.began or steady()
        self._reporter.publish(CanaryInjected(collection))

        def done(why_not: str) -> None:
            state.reason = why_not
            if not why_not:
                state.found += 1
                state.last_found, state.found_at = time.time(), steady()
                self._reporter.publish(CanaryFound(collection))

        sides = StorePair(
            primary=_Planted(real.primary, primary),  # type: ignore[arg-type]
            secondary=_Planted(real.secondary, secondary),  # type: ignore[arg-type]
            breaker=real.breaker,
            reporter=Canary(kind, path, done),
            unconfirmed=MemoryUnconfirmed(),
            counted=False,
            traces=real.traces,
        )
        hit = _hit(primary)
        query = Query(filter={"_id": KEY}, limit=1)
        self._offer(ShadowRead(collection, FindOne(query), sides), [] if hit is None else [hit])

    def last_found(self) -> dict[str, float]:
        """Epoch seconds by collection in phase shadow; 0.0 for never."""
        return {name: self._state(name).last_found for name, _ in self._watched()}

    def working(self) -> dict[str, bool]:
        """By collection in phase shadow: whether an injected difference was found within `canary_within` seconds."""
        return {name: not self._fault(name, route) for name, route in self._watched()}

    def status(self) -> dict[str, dict[str, Any]]:
        """By collection in phase shadow, JSON-able: `working`, `why_not` (empty if it works), `undecided` (that it does
        not work proves nothing yet: nothing is compared, or too little time has passed), and the canary's figures:
        `injected`, `found`, `last_found` (epoch seconds or None), `within` (seconds)."""
        return {name: self._row(name, route) for name, route in self._watched()}

    def _row(self, collection: str, route: Route) -> dict[str, Any]:
        state, fault = self._state(collection), self._fault(collection, route)
        return {
            "working": not fault,
            "why_not": fault,
            "undecided": bool(fault) and self._is_undecided(state, route),
            "canary": {
                "injected": state.injected,
                "found": state.found,
                "last_found": round(state.last_found, 3) or None,
                "within": self._watch.canary_within,
            },
        }

    def _is_undecided(self, state: _State, route: Route) -> bool:
        if not route.shadow_read or not self._watch.canary_every:
            return True
        return not state.last_found and (not state.began or steady() - state.began <= self._watch.canary_within)

    def _fault(self, collection: str, route: Route) -> str:
        if not route.shadow_read:
            return "sampling is 0: no read is compared"
        if not self._watch.canary_every:
            return "no differences are planted"
        state = self._state(collection)
        ago = steady() - state.found_at
        if state.last_found and ago <= self._watch.canary_within:
            return ""
        since = f"for {ago:.0f} s" if state.last_found else "since it began"
        return f"no planted difference was found {since} (the last one: {state.reason or 'under way'})"
