"""What the primary held under each key, one state after the other, and how far the secondary has come along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shadow.compare.equality import same
from shadow.model.operation import Change, Delete
from shadow.model.version import ABSENT, Image, Key, State, Tombstone

__all__ = ["WRONG", "Broken", "History", "mark_of"]

WRONG = "wrong"
"""A field of documents that the secondary, by a fault of its own, has made of a replayed operation."""


class Broken(Exception):
    """An invariant does not hold; the text says which, and of what."""


@dataclass(slots=True)
class _Line:
    """One key: the primary's images in order, where each state stands among them, and the secondary's place."""

    images: list[Image]
    places: dict[State, int]
    place: int = -1
    furthest: int = -1
    """The latest place that the state may have: a tombstone put by a heal stands for any deletion so far."""
    state: State = ABSENT

    def last_deletion(self) -> int:
        return max(place for place, image in enumerate(self.images) if not image.present)


def mark_of(change: Change) -> str:
    """What tells one attempt of the application from every other, and stays with its effect."""
    return change.tombstone if isinstance(change, Delete) else change.born


@dataclass(slots=True)
class History:
    """`broken` is told of the first thing that must not be; `initial`: what the primary began with."""

    initial: Mapping[Key, Image]
    broken: Callable[[str], None]
    marks: dict[str, int] = field(default_factory=dict)
    """How often each attempt took effect in the primary."""
    _lines: dict[Key, _Line] = field(default_factory=dict)

    def _line(self, key: Key) -> _Line:
        line = self._lines.get(key)
        if line is None:
            first = self.initial.get(key, Image(ABSENT))
            line = self._lines[key] = _Line([first], {first.state: 0} if first.present else {})
        return line

    def primary_changed(self, change: Change, after: Image) -> None:
        """The primary made the change, and holds `after`."""
        line, mark = self._line(change.key), mark_of(change)
        self.marks[mark] = self.marks.get(mark, 0) + 1
        # A replayed deletion leaves the tombstone that the deletion carries: it names this very place.
        name: State = Tombstone(mark) if isinstance(change, Delete) else after.state
        if name in line.places:
            self.broken(f"versions only ever rise: {change.key} came to {name} a second time")
        line.places[name] = len(line.images)
        line.images.append(after)

    def secondary_is(self, key: Key, now: Image) -> None:
        """The secondary was written, or nearly: holds it to the order of the primary's states (promise 3)."""
        line = self._line(key)
        if now.state == line.state and not now.present:
            return
        if isinstance(now.state, Tombstone) and now.state.passing:
            # Set aside: the line stays where it was, and goes on from there.
            line.state = now.state
            return
        place = self._place(line, now)
        if place is None:
            self.broken(f"nothing that was never written: the secondary came to {key} {now.state}")
        elif place < line.place:
            self.broken(f"only forward: {key} went back from {line.state} to {now.state}, {line.place} -> {place}")
        else:
            line.place, line.state = place, now.state
            line.furthest = place if now.state in line.places else line.last_deletion()

    def turn(self, secondary: Callable[[Key], Image]) -> None:
        """The primary has changed: from here on the other store follows, from the last place."""
        for key, line in self._lines.items():
            line.place = line.furthest = len(line.images) - 1
            line.state = secondary(key).state

    def _place(self, line: _Line, now: Image) -> int | None:
        """Where in the primary's order `now` stands; the earliest that fits. None: nowhere."""
        place = line.places.get(now.state)
        if now.document is not None:
            if place is None:
                return None
            expected = line.images[place].document
            fits = expected is not None and (same(expected, now.document) or WRONG in now.document)
            return place if fits else None
        if place is not None:
            return place
        begin = max(line.place, 0)
        return next((i for i in range(begin, len(line.images)) if not line.images[i].present), None)

    def has_followed(self, key: Key, mark: str) -> bool:
        """Whether the secondary has come, or may have come, as far as the effect of this attempt."""
        line = self._line(key)
        for state, place in line.places.items():
            if mark in (getattr(state, "born", None), getattr(state, "id", None)):
                return line.furthest >= place
        return True
