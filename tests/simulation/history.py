"""What the primary held under each key, one state after the other, and how far the secondary has come along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from shadow.compare.equality import same
from shadow.model.operation import Change, Delete
from shadow.model.version import ABSENT, Image, Key, State, Tombstone, Version

__all__ = ["WRONG", "Broken", "History", "mark_of"]

WRONG = "wrong"
"""A field of documents that the secondary, by a fault of its own, has made of a replayed operation."""


TWICE: Final = (0, True)
"""The `Era` of a run in which both stores are written all the time."""

Era = tuple[int, bool]
"""How often dual writes have begun, and whether they go on."""


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
    era: Era = TWICE
    """In which the primary came to where it is."""
    firm: set[State] = field(default_factory=set)
    """The states in which the primary was while both stores were written. None of them may come back, for the other
    store may have it."""
    emptied: bool = False
    """Whether the secondary has itself deleted what had expired, and has had no document since."""

    def came_to(self, name: State, after: Image, era: Era) -> None:
        last = self.images[-1].state
        if self.era != era:
            self.firm.add(last)
        if era[1]:
            self.firm |= {last, name}
        self.places[name] = len(self.images)
        self.images.append(after)
        self.era = era

    def may_follow(self, state: State, now: Era) -> bool:
        """Whether the state was there while both stores were written: what one store is given alone is not copied as
        long as that goes on."""
        is_there = self.images[-1].state == state and (now[1] or self.era != now)
        return not is_of_an_era(state) or is_there or state in self.firm

    def last_deletion(self) -> int:
        return max(place for place, image in enumerate(self.images) if not image.present)


def is_of_an_era(state: State) -> bool:
    """Whether the version names a time in which one store alone was written, the one before all dual writes among them.
    MongoDB's own calls give it to one document after the other, so that it comes back while that time lasts."""
    return isinstance(state, Version) and (state.born == "" or state.born.startswith("one"))


def mark_of(change: Change) -> str:
    """What tells one attempt of the application from every other, and stays with its effect."""
    return change.tombstone if isinstance(change, Delete) else change.born


@dataclass(slots=True)
class History:
    """`broken` is told of the first thing that must not be; `initial`: what the primary began with; `era`: the one at
    hand."""

    initial: Mapping[Key, Image]
    broken: Callable[[str], None]
    era: Callable[[], Era] = lambda: TWICE
    marks: dict[str, int] = field(default_factory=dict)
    """How often each attempt took effect in the primary."""
    _lines: dict[Key, _Line] = field(default_factory=dict)

    def _line(self, key: Key) -> _Line:
        line = self._lines.get(key)
        if line is None:
            first = self.initial.get(key, Image(ABSENT))
            line = self._lines[key] = _Line([first], {first.state: 0} if first.present else {}, era=(0, False))
        return line

    def primary_changed(self, change: Change, after: Image) -> None:
        """The primary made the change, and holds `after`."""
        line, mark = self._line(change.key), mark_of(change)
        self.marks[mark] = self.marks.get(mark, 0) + 1
        # A replayed deletion leaves the tombstone that the deletion carries: it names this very place.
        name: State = Tombstone(mark) if isinstance(change, Delete) else after.state
        if name in line.places and (name in line.firm or not is_of_an_era(name)):
            self.broken(f"versions only ever rise: {change.key} came to {name} a second time")
        line.came_to(name, after, self.era())

    def expired(self, key: Key) -> None:
        """The primary itself has deleted what had expired. Nobody is told, and nothing stands for it."""
        self._line(key).came_to(ABSENT, Image(ABSENT), self.era())

    def secondary_expired(self, key: Key) -> None:
        """The secondary itself has deleted what had expired there."""
        self._line(key).emptied = True

    def primary_committed(self, changes: Sequence[Change], after: Image) -> None:
        """A transaction has made these changes of one document: nobody has seen what was between them."""
        for change in changes[:-1]:
            mark = mark_of(change)
            self.marks[mark] = self.marks.get(mark, 0) + 1
        self.primary_changed(changes[-1], after)

    def primary_changed_bare(self, change: Change, after: Image) -> None:
        """The same by the driver's own call: the version may be what it was, as long as the other store cannot have it,
        and names the latest such state."""
        line, mark = self._line(change.key), mark_of(change)
        self.marks[mark] = self.marks.get(mark, 0) + 1
        name: State = after.state if after.present else Tombstone(mark)
        line.came_to(name, after, self.era())
        if name in line.firm:
            self.broken(f"no bare write hides behind a version that both stores have: {change.key} {name}")

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
        if line.emptied and isinstance(now.state, Tombstone) and (place is None or place < line.place):
            # An old one, over nothing: no reader can tell. No older document may come by it.
            line.state = now.state
            return
        line.emptied = line.emptied and not now.present
        if not line.may_follow(now.state, self.era()):
            self.broken(f"nothing that one store was given alone: the secondary came to {key} {now.state}")
        elif place is None:
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
