"""The changes of `epochs`, made in the control store: does I/O, and blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from shadow.control import epochs, members
from shadow.control import flip_record as routing
from shadow.control.flip_record import RouteRecord, Routing, WriteState
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.host.steady import steady
from shadow.model.phase import StoreName

__all__ = ["Raising", "is_on_the_way"]


def is_on_the_way(placed: RouteRecord | None) -> bool:
    """Whether dual writes that are wanted have not begun yet."""
    return placed is not None and not placed.completed and not (placed.both and placed.mark)


class Raising:
    """One for each process. `late`: seconds after which a request that another process has sent can no longer arrive.
    Every method raises `ControlError`."""

    def __init__(self, records: Records, *, late: float) -> None:
        self._records = records
        self._late = late
        self._silence: dict[str, tuple[tuple[int, int], float]] = {}
        self._deaths: dict[str, float] = {}
        """When this process first saw that another one was dead, by its id."""

    def enter(
        self, own: str, dual: Collection[str], kept: Mapping[str, StoreName], chosen: Mapping[str, StoreName]
    ) -> Routing:
        """See `epochs.entered`."""
        others = self._others(own)
        return routing.change(self._records, lambda seen: epochs.entered(seen, kept, dual, others, chosen=chosen))

    def want(self, names: Collection[str]) -> Routing:
        """Asks for dual writes of these collections and takes the first steps to them."""

        def make(seen: Routing) -> Routing | None:
            placed = {name: each for name, each in seen.placed.items() if name in names}
            asked = epochs.entered(dataclasses.replace(seen, placed=placed), {}, names, rows)
            return None if asked is None else dataclasses.replace(asked, placed={**seen.placed, **asked.placed})

        rows = members.members(self._records)
        return self.advance(routing.change(self._records, make), names)

    def advance(self, seen: Routing, names: Collection[str]) -> Routing:
        """Takes all steps to dual writes of these collections that the processes, this one among them, allow by now."""
        while any(is_on_the_way(seen.placed.get(name)) for name in names):
            others = self._others("")
            if self.bury():
                return seen
            wanted = epochs.advanced(seen, names, others, self._silent(others, seen.fence))
            if wanted is None:
                return seen
            seen = routing.save(self._records, wanted) or routing.load(self._records)
        return seen

    def bury(self) -> bool:
        """Whether a process that is certainly dead may have sent a write to one store that can still arrive. Deletes
        the records of the dead processes of which nothing can arrive any more."""
        dead = [row for row in members.members(self._records) if row.alone and row.owner.known_dead()]
        return self._arriving(dead)

    def _arriving(self, dead: Sequence[Member]) -> bool:
        now = steady()
        self._deaths = {row.id: self._deaths.get(row.id, now) for row in dead}
        over = [id for id, since in self._deaths.items() if now - since > self._late]
        for id in over:
            members.forget(self._records, id)
            del self._deaths[id]
        return bool(self._deaths)

    def _others(self, own: str) -> list[Member]:
        return [row for row in members.prune(self._records, members.members(self._records)) if row.id != own]

    def _silent(self, rows: Sequence[Member], fence: int) -> set[str]:
        """The processes whose lease expired long enough ago, by this process's own clock. A lease that lets them write
        as before the fence was given before this process first saw the fence."""
        now, silent = steady(), set()
        for row in rows:
            state, since = self._silence.get(row.id, ((-1, -1), now))
            if state != (row.beat, fence):
                state, since = self._silence[row.id] = (row.beat, fence), now
            if now - since > 1.1 * row.lease + self._late:
                silent.add(row.id)
        return silent

    def lower(self, names: Collection[str]) -> Routing:
        """See `epochs.lowered`; both steps, each with all processes read again."""
        seen = routing.load(self._records)
        for _ in range(2):
            wanted = epochs.lowered(seen, names, self._others(""))
            if wanted is not None:
                seen = routing.save(self._records, wanted) or routing.load(self._records)
        return seen

    def interrupt(self, names: Collection[str]) -> Routing:
        """See `epochs.interrupted`."""
        return routing.change(self._records, lambda seen: epochs.interrupted(seen, names))

    @staticmethod
    def lowers(seen: Routing, names: Collection[str], rows: Sequence[Member]) -> list[str]:
        """The collections that may be lowered, according to `rows`, read before."""
        return [
            name
            for name in names
            if name in seen.placed
            and seen.placed[name].writing is not WriteState.SINGLE
            and not any(epochs.wants_both(row, name) for row in rows)
        ]
